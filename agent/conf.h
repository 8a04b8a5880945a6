/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: its configuration: one JSON file, flags that override it, and who this node is.
 * Parsing ends in this plain struct; nothing else reads the file, the flags or the environment.
 */
#pragma once

#include "log.h"

#include <flatnet/cluster.h>

struct flat_source_type;

enum flat_checksum { FLAT_CHECKSUM_AUTO, FLAT_CHECKSUM_ON, FLAT_CHECKSUM_OFF };

struct flat_agent_conf {
	struct flat_arena arena; /* all texts and lists */

	const char *node_name;
	const struct flat_source_type *source; /* see source.h */

	struct { /* source file */
		const char *path;
	} file;
	struct {				 /* source etcd */
		struct flat_json_list endpoints; /* const char *: URLs */
		const char *prefix; /* "/flatnet"; "/coreos.com/network" with flannel */
		const char *ca_file, *cert_file, *key_file, *user, *password_file; /* NULL: none */
		/* Subnets that are handed out: their length, and the bounds within clusterCIDR
		 * (family 0: all of it). Used where this node has no fixed subnet. */
		uint8_t subnet_len[FLAT_FAMILIES];
		struct flat_ip subnet_min[FLAT_FAMILIES], subnet_max[FLAT_FAMILIES];
		uint32_t lease_ttl; /* seconds: how long a node may be away and keep its subnet */
	} etcd;
	struct {			/* source kubernetes */
		const char *kubeconfig; /* NULL: in the cluster, by service account */
		const char *context;	/* of the kubeconfig; NULL: its current-context */
		const char
			*server; /* URL, in the cluster: from KUBERNETES_SERVICE_HOST and _PORT */
		const char *service_account; /* folder with token and ca.crt */
		uint32_t page;		     /* nodes in one piece of a list */
		bool set_network_available;  /* node condition NetworkUnavailable=False; needs the
						right  to patch nodes/status */
	} kubernetes;

	struct flat_cluster_conf cluster; /* clusterCIDR, backend, VXLAN, mtu, flannel */
	enum flat_checksum checksum;
	/* This node's pod subnets where they are fixed; empty: as the source says. */
	struct flat_prefix pod_cidrs[FLAT_NODE_CIDRS];
	size_t pod_cidr_count;

	struct {		       /* which link, and which address others reach this node by */
		const char *interface; /* name; NULL: found */
		const char *regex;     /* POSIX extended, on names, then on addresses */
		struct flat_json_list
			cidrs;		  /* struct flat_prefix: has an address in one of these */
		struct flat_ip can_reach; /* the link that leads there; family 0: not given */
		struct flat_ip public_address[FLAT_FAMILIES]; /* family 0: the link's own */
	} underlay;

	struct { /* what the plugin makes on this node; the agent keeps it true */
		const char *network; /* name in the CNI configuration */
		const char *bridge;
		bool ip_masq;
		const char *ipam_dir;  /* dataDir of flatnet-ipam */
		const char *conf_file; /* CNI configuration that is written when the node is ready;
					  NULL: none */
		const char *conf_template; /* its content; NULL: a conflist of flatnet alone */
	} cni;

	const char *node_file;	/* FLAT_NODE_FILE */
	const char *state_file; /* the last known state, /var/lib/flatnet/state.json; NULL: none is
				   kept */
	const char *subnet_env; /* flannel's subnet.env, for others; NULL: not written */

	uint32_t resync; /* seconds of the slow timer */
	uint32_t sweep;	 /* seconds between two looks for leaked addresses; 0: never */

	enum flat_level log_level;
	enum flat_log_format log_format;
	struct {			/* web server: health and metrics */
		struct flat_ip address; /* 127.0.0.1; family 0: no server */
		uint16_t port;
	} http;
};

/* The flags of one command line (getopt_long(3)); they override the file. */
struct flat_agent_flags {
	const char *config; /* --config; NULL: none */
	bool check;	    /* --check-config: say whether it is right, and stop */
	bool version, help;
	int argc; /* as given, for another reading of the same flags (reload) */
	char *const *argv;
};
/* Code 7: an unknown flag, one without its argument, or an argument that belongs to none. */
int flat_agent_flags_parse(int argc, char *const *argv, struct flat_agent_flags *ret_flags,
			   struct flat_err *err);
/* One line for each flag, for --help. */
const char *flat_agent_flags_help(void);

/* What main read elsewhere. NULL or "": not there. */
struct flat_agent_env {
	const char *node_name;			 /* NODE_NAME */
	const char *host_name;			 /* uname(2) */
	const char *service_host, *service_port; /* KUBERNETES_SERVICE_HOST, _PORT */
};
/* Reads the file (none: defaults alone) and the flags. Validated whole; an error is code 7 (5, 6:
 * the file cannot be read, is no JSON), and names key or flag, and the cure. Free with
 * flat_agent_conf_free(), also after a failure; *ret_conf is written in any case. */
int flat_agent_conf_load(const struct flat_agent_flags *flags, const struct flat_agent_env *env,
			 struct flat_agent_conf *ret_conf, struct flat_err *err);
void flat_agent_conf_free(struct flat_agent_conf *conf);
