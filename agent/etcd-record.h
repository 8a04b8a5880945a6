/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: what stands in etcd, in flannel's layout, so that its nodes and ours read each
 * other (flannel: pkg/subnet/subnet.go, pkg/lease/lease.go, pkg/subnet/config.go):
 *
 *	PREFIX/config                                what to hand out (read with flannel only)
 *	PREFIX/subnets/10.244.1.0-24                 one node
 *	PREFIX/subnets/10.244.1.0-24&fd00:1::-64     one node with both families
 *
 * The value is {"PublicIP", "PublicIPv6", "BackendType", "BackendData": {"VNI", "VtepMAC"},
 * "BackendV6Data"} and, of ours, "NodeName", which flannel passes over.
 */
#pragma once

#include "subnets.h"

enum {
	FLAT_RECORD_KEY = 112,	    /* bytes of a key of ours below PREFIX/subnets/ */
	FLAT_RECORD_MAX = 64 << 10, /* bytes of a value that we read */
};

/* "10.244.1.0-24&fd00:1::-64"; family 0: left out. Strict; both may not be missing. */
bool flat_record_key_parse(const char *key, struct flat_prefix ret_cidrs[static FLAT_FAMILIES]);
const char *flat_record_key_text(const struct flat_prefix cidrs[static FLAT_FAMILIES], char *buf);

struct flat_record {
	struct flat_node node;			 /* name in the arena */
	struct flat_prefix cidrs[FLAT_FAMILIES]; /* of the key; family 0: none */
	bool named;				 /* it has a NodeName; else the key is the name */
};
/* Reads a record. Negative: err says what is wrong with it, and *ret_record has what makes sense,
 * a name in any case, unless memory is out (FLAT_CODE_INTERNAL). key: below PREFIX/subnets/. */
int flat_record_parse(const char *key, const char *value, size_t value_len,
		      struct flat_arena *arena, struct flat_record *ret_record,
		      struct flat_err *err);
/* The value that tells about this node; the caller frees. NULL: no memory. */
char *flat_record_print(const struct flat_node *node, enum flat_backend backend, uint32_t vni);

/* flannel's PREFIX/config, with its defaults filled in. */
struct flat_netconf {
	struct flat_subnet_pool pools[FLAT_FAMILIES];
	const char *backend; /* "vxlan", "host-gw", ...; in the arena */
	uint32_t vni, port;  /* of vxlan */
};
/* Code 7 or 6: what is wrong with it, in flannel's terms. */
int flat_netconf_parse(const char *text, size_t len, struct flat_arena *arena,
		       struct flat_netconf *ret_netconf, struct flat_err *err);
