/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes in a few words, for the tests of the cluster room. One test includes it. */
#pragma once

#include <flatnet/cluster.h>

#include <string.h>
#include <sys/socket.h>

static inline struct flat_prefix prefix(const char *text)
{
	struct flat_prefix p;
	assert_true(flat_prefix_parse(text, &p));
	return p;
}

static inline struct flat_ip ip(const char *text)
{
	struct flat_ip i;
	assert_true(flat_ip_parse(text, &i));
	return i;
}

static inline struct flat_mac mac(const char *text)
{
	struct flat_mac m;
	assert_true(flat_mac_parse(text, &m));
	return m;
}

/* NULL: none */
static inline struct flat_node node(const char *name, const char *v4, const char *v6,
				    const char *cidr, const char *cidr2)
{
	struct flat_node n = { .name = name };
	if (v4)
		n.addresses[FLAT_V4] = ip(v4);
	if (v6)
		n.addresses[FLAT_V6] = ip(v6);
	if (cidr)
		n.pod_cidrs[n.pod_cidr_count++] = prefix(cidr);
	if (cidr2)
		n.pod_cidrs[n.pod_cidr_count++] = prefix(cidr2);
	return n;
}

static inline void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in '%s'", part, text);
}

static inline struct flat_cluster_conf conf_of(enum flat_backend backend)
{
	return (struct flat_cluster_conf){
		.cidrs = { prefix("10.244.0.0/16"), prefix("fd00:10:244::/56") },
		.cidr_count = 2,
		.backend = backend,
		.vni = 1,
		.port = 8472,
		.link = { "flannel.1", "flannel-v6.1" },
	};
}
