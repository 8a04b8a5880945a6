/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to conf.c and conf-*.c. The configuration comes in three steps: the
 * file fills `struct flat_raw` by tables, the flags that are given take the place of values there,
 * and the settle functions make of it what everybody else sees. A fault names the flag where a flag
 * said it, else the key.
 */
#pragma once

#include "conf.h"

enum {
	ENDPOINTS_MAX = 16,
};

/* Flags, by the values that getopt_long() has for them. */
enum {
	OPT_CONFIG,
	OPT_CHECK_CONFIG,
	OPT_SOURCE,
	OPT_KUBECONFIG,
	OPT_CONTEXT,
	OPT_NODE_NAME,
	OPT_ETCD_ENDPOINTS,
	OPT_ETCD_PREFIX,
	OPT_NODES_FILE,
	OPT_BACKEND,
	OPT_INTERFACE,
	OPT_PUBLIC_IP,
	OPT_CLUSTER_CIDR,
	OPT_LOG_LEVEL,
	OPT_LOG_FORMAT,
	OPT_METRICS_ADDRESS,
	OPT_VERSION,
	OPT_HELP,
	OPT_COUNT,
	OPT_NONE = OPT_COUNT, /* no flag says this */
};

/* As file and flags have it. */
struct flat_raw {
	uint32_t flags; /* bit OPT_*: the value at hand came from the command line */
	const char *node_name, *source, *backend;
	struct flat_json_list cluster_cidrs, pod_cidrs; /* struct flat_prefix */
	uint32_t mtu;
	bool flannel;
	struct {
		uint32_t vni, port;
		const char *name, *name6, *checksum;
	} vxlan;
	struct {
		const char *interface, *regex;
		struct flat_json_list cidrs; /* struct flat_prefix */
		struct flat_ip can_reach;
		struct flat_json_list public_ips; /* struct flat_ip */
	} underlay;
	struct {
		const char *path;
	} file;
	struct {
		struct flat_json_list endpoints; /* const char * */
		const char *prefix, *ca_file, *cert_file, *key_file, *user, *password_file;
		uint32_t subnet_len[FLAT_FAMILIES];
		struct flat_ip subnet_min[FLAT_FAMILIES], subnet_max[FLAT_FAMILIES];
		uint32_t lease;
	} etcd;
	struct {
		const char *kubeconfig, *context, *server, *service_account;
		uint32_t page;
		bool set_network_available;
	} kubernetes;
	struct {
		const char *network, *bridge, *ipam_dir, *conf_file, *conf_template;
		bool ip_masq;
	} cni;
	const char *node_file, *state_file, *subnet_env;
	uint32_t resync, sweep;
	struct {
		const char *level, *format;
	} log;
	struct {
		const char *address;
	} http;
};

/* NULL for "", too: as good as not given. */
static inline const char *flat_given(const char *text)
{
	return text && text[0] ? text : NULL;
}

/* Puts the flags' values into raw; texts are copied to the arena. */
int flat_raw_apply_flags(struct flat_raw *raw, const struct flat_agent_flags *flags,
			 struct flat_arena *arena, struct flat_err *err);
/* What a fault calls a value: "--backend", or the key: "vxlan.port". opt OPT_NONE: no flag. */
const char *flat_raw_place(const struct flat_raw *raw, int opt, const char *key);
/* Defaults, checks and cures, subject by subject; ret_conf's arena has the texts. */
int flat_raw_settle(struct flat_raw *raw, const struct flat_agent_env *env,
		    struct flat_agent_conf *ret_conf, struct flat_err *err);

/* ---- conf-check.c -------------------------------------------------------------------------------
 * All of code 7; place is what the fault calls the value.
 */

/* "PLACE: what is wrong" */
int flat_conf_refuse(struct flat_err *err, const char *place, const char *fmt, ...)
	FLAT_PRINTF(3, 4);
/* One of count words; NULL: the first. */
int flat_conf_choose(const char *place, const char *text, const char *const *words, size_t count,
		     int *ret_index, struct flat_err *err);
/* An absolute path of a file; NULL and "" stay as they are. */
int flat_conf_check_path(const char *place, const char *path, struct flat_err *err);
int flat_conf_check_ifname(const char *place, const char *name, struct flat_err *err);
/* Can a packet be sent there from another host? */
bool flat_conf_is_reachable(const struct flat_ip *ip);
bool flat_conf_has_host_bits(const struct flat_prefix *prefix);
int flat_conf_check_prefix(const char *place, const struct flat_prefix *prefix,
			   struct flat_err *err);
/* https://HOST[:PORT], without more. */
int flat_conf_check_url(const char *place, const char *url, struct flat_err *err);

/* ---- conf-source.c, for conf-settle.c -----------------------------------------------------------
 */

struct flat_settle {
	struct flat_raw *raw;
	const struct flat_agent_env *env;
	struct flat_agent_conf *conf;
};
int flat_settle_source(struct flat_settle *settle, struct flat_err *err);
/* These after the cluster: they are held against it. */
int flat_settle_file(struct flat_settle *settle, struct flat_err *err);
int flat_settle_etcd(struct flat_settle *settle, struct flat_err *err);
int flat_settle_kubernetes(struct flat_settle *settle, struct flat_err *err);
/* Is the prefix within the flat network? */
bool flat_settle_covers(const struct flat_cluster_conf *cluster, const struct flat_prefix *prefix);
