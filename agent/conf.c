// SPDX-License-Identifier: Apache-2.0
/* The keys of the file, and all together. */
#include "conf-private.h"
#include "file.h"

#include <stddef.h>

enum {
	UNDERLAY_CIDRS_MAX = 16,
	MTU_MAX = 65535,
	VNI_MAX = (1 << 24) - 1,
	DAY = 24 * 60 * 60,
};

/* ---- the file ----------------------------------------------------------------------------------
 */

#define RAW(type, field) type, offsetof(struct flat_raw, field)

static const struct flat_json_field vxlan_fields[] = {
	{ .key = "vni", RAW(FLAT_JSON_UINT32, vxlan.vni), .min = 1, .max = VNI_MAX },
	{ .key = "port", RAW(FLAT_JSON_UINT32, vxlan.port), .min = 1, .max = 65535 },
	{ .key = "name", RAW(FLAT_JSON_STRING, vxlan.name) },
	{ .key = "nameIPv6", RAW(FLAT_JSON_STRING, vxlan.name6) },
	{ .key = "checksum", RAW(FLAT_JSON_STRING, vxlan.checksum) },
	FLAT_JSON_END,
};

static const struct flat_json_field underlay_fields[] = {
	{ .key = "interface", RAW(FLAT_JSON_STRING, underlay.interface) },
	{ .key = "interfaceRegex", RAW(FLAT_JSON_STRING, underlay.regex) },
	{ .key = "cidrs",
	  RAW(FLAT_JSON_PREFIX_OR_LIST, underlay.cidrs),
	  .max = UNDERLAY_CIDRS_MAX },
	{ .key = "canReach", RAW(FLAT_JSON_IP, underlay.can_reach) },
	{ .key = "publicIP", RAW(FLAT_JSON_IP_OR_LIST, underlay.public_ips), .max = FLAT_FAMILIES },
	FLAT_JSON_END,
};

static const struct flat_json_field file_fields[] = {
	{ .key = "path", RAW(FLAT_JSON_STRING, file.path) },
	FLAT_JSON_END,
};

static const struct flat_json_field etcd_fields[] = {
	{ .key = "endpoints", RAW(FLAT_JSON_STRING_LIST, etcd.endpoints), .max = ENDPOINTS_MAX },
	{ .key = "prefix", RAW(FLAT_JSON_STRING, etcd.prefix) },
	{ .key = "caFile", RAW(FLAT_JSON_STRING, etcd.ca_file) },
	{ .key = "certFile", RAW(FLAT_JSON_STRING, etcd.cert_file) },
	{ .key = "keyFile", RAW(FLAT_JSON_STRING, etcd.key_file) },
	{ .key = "user", RAW(FLAT_JSON_STRING, etcd.user) },
	{ .key = "passwordFile", RAW(FLAT_JSON_STRING, etcd.password_file) },
	{ .key = "subnetLen",
	  RAW(FLAT_JSON_UINT32, etcd.subnet_len[FLAT_V4]),
	  .min = 8,
	  .max = 30 },
	{ .key = "subnetMin", RAW(FLAT_JSON_IP, etcd.subnet_min[FLAT_V4]) },
	{ .key = "subnetMax", RAW(FLAT_JSON_IP, etcd.subnet_max[FLAT_V4]) },
	{ .key = "ipv6SubnetLen",
	  RAW(FLAT_JSON_UINT32, etcd.subnet_len[FLAT_V6]),
	  .min = 16,
	  .max = 126 },
	{ .key = "ipv6SubnetMin", RAW(FLAT_JSON_IP, etcd.subnet_min[FLAT_V6]) },
	{ .key = "ipv6SubnetMax", RAW(FLAT_JSON_IP, etcd.subnet_max[FLAT_V6]) },
	{ .key = "leaseSeconds", RAW(FLAT_JSON_UINT32, etcd.lease), .min = 60, .max = 365 * DAY },
	FLAT_JSON_END,
};

static const struct flat_json_field kubernetes_fields[] = {
	{ .key = "kubeconfig", RAW(FLAT_JSON_STRING, kubernetes.kubeconfig) },
	{ .key = "context", RAW(FLAT_JSON_STRING, kubernetes.context) },
	{ .key = "server", RAW(FLAT_JSON_STRING, kubernetes.server) },
	{ .key = "serviceAccountDir", RAW(FLAT_JSON_STRING, kubernetes.service_account) },
	{ .key = "pageSize", RAW(FLAT_JSON_UINT32, kubernetes.page), .min = 1, .max = 5000 },
	{ .key = "setNetworkAvailable", RAW(FLAT_JSON_BOOL, kubernetes.set_network_available) },
	FLAT_JSON_END,
};

static const struct flat_json_field cni_fields[] = {
	{ .key = "network", RAW(FLAT_JSON_STRING, cni.network) },
	{ .key = "bridge", RAW(FLAT_JSON_STRING, cni.bridge) },
	{ .key = "ipMasq", RAW(FLAT_JSON_BOOL, cni.ip_masq) },
	{ .key = "ipamDir", RAW(FLAT_JSON_STRING, cni.ipam_dir) },
	{ .key = "confFile", RAW(FLAT_JSON_STRING, cni.conf_file) },
	{ .key = "confTemplate", RAW(FLAT_JSON_STRING, cni.conf_template) },
	FLAT_JSON_END,
};

static const struct flat_json_field log_fields[] = {
	{ .key = "level", RAW(FLAT_JSON_STRING, log.level) },
	{ .key = "format", RAW(FLAT_JSON_STRING, log.format) },
	FLAT_JSON_END,
};

static const struct flat_json_field http_fields[] = {
	{ .key = "address", RAW(FLAT_JSON_STRING, http.address) },
	FLAT_JSON_END,
};

static const struct flat_json_field conf_fields[] = {
	{ .key = "nodeName", RAW(FLAT_JSON_STRING, node_name) },
	{ .key = "source", RAW(FLAT_JSON_STRING, source) },
	{ .key = "file", FLAT_JSON_OBJECT, 0, .table = file_fields },
	{ .key = "etcd", FLAT_JSON_OBJECT, 0, .table = etcd_fields },
	{ .key = "kubernetes", FLAT_JSON_OBJECT, 0, .table = kubernetes_fields },
	{ .key = "clusterCIDR",
	  RAW(FLAT_JSON_PREFIX_OR_LIST, cluster_cidrs),
	  .max = FLAT_NFT_MAX_PREFIXES },
	{ .key = "podCIDRs", RAW(FLAT_JSON_PREFIX_OR_LIST, pod_cidrs), .max = FLAT_NODE_CIDRS },
	{ .key = "backend", RAW(FLAT_JSON_STRING, backend) },
	{ .key = "mtu", RAW(FLAT_JSON_UINT32, mtu), .min = 0, .max = MTU_MAX },
	{ .key = "flannelCompat", RAW(FLAT_JSON_BOOL, flannel) },
	{ .key = "vxlan", FLAT_JSON_OBJECT, 0, .table = vxlan_fields },
	{ .key = "underlay", FLAT_JSON_OBJECT, 0, .table = underlay_fields },
	{ .key = "cni", FLAT_JSON_OBJECT, 0, .table = cni_fields },
	{ .key = "nodeFile", RAW(FLAT_JSON_STRING, node_file) },
	{ .key = "stateFile", RAW(FLAT_JSON_STRING, state_file) },
	{ .key = "subnetEnv", RAW(FLAT_JSON_STRING, subnet_env) },
	{ .key = "resyncSeconds", RAW(FLAT_JSON_UINT32, resync), .min = 1, .max = DAY },
	{ .key = "sweepSeconds", RAW(FLAT_JSON_UINT32, sweep), .min = 0, .max = DAY },
	{ .key = "log", FLAT_JSON_OBJECT, 0, .table = log_fields },
	{ .key = "http", FLAT_JSON_OBJECT, 0, .table = http_fields },
	FLAT_JSON_END,
};

static int read_conf(const char *path, struct flat_arena *arena, struct flat_raw *raw,
		     struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	struct flat_json *json = NULL;
	const int len = flat_file_read(path, "configuration", &text, err);
	if (len < 0)
		return len;
	int r = flat_json_parse(text, (size_t)len, &json, err);
	if (r >= 0 && !flat_json_is_object(json))
		r = flat_fail(err, FLAT_CODE_CONFIG, 0, "is not an object {...}");
	if (r >= 0)
		r = flat_json_check_keys(json, "", conf_fields, err);
	if (r >= 0)
		r = flat_json_decode(json, "", conf_fields, raw, arena, err);
	flat_json_free(json);
	return r < 0 ? flat_wrap(err, "configuration '%.256s'", path) : 0;
}

/* ---- all together ------------------------------------------------------------------------------
 */

int flat_agent_conf_load(const struct flat_agent_flags *flags, const struct flat_agent_env *env,
			 struct flat_agent_conf *ret_conf, struct flat_err *err)
{
	struct flat_raw raw = {
		.vxlan = { .vni = 1, .port = 8472 },
		.etcd = { .subnet_len = { [FLAT_V4] = 24, [FLAT_V6] = 64 }, .lease = DAY },
		.kubernetes = { .page = 500 },
		.cni = { .ip_masq = true },
		.resync = 60,
		.sweep = 5,
	};
	*ret_conf = (struct flat_agent_conf){ 0 };
	int r = 0;
	if (flags->config)
		r = read_conf(flags->config, &ret_conf->arena, &raw, err);
	if (r >= 0)
		r = flat_raw_apply_flags(&raw, flags, &ret_conf->arena, err);
	return r < 0 ? r : flat_raw_settle(&raw, env, ret_conf, err);
}

void flat_agent_conf_free(struct flat_agent_conf *conf)
{
	flat_arena_free(&conf->arena);
	*conf = (struct flat_agent_conf){ 0 };
}
