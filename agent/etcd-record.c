// SPDX-License-Identifier: Apache-2.0
#include "etcd-record.h"

#include <flatnet/cni.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- keys --------------------------------------------------------------------------------------
 */

/* "ADDRESS-LEN", the whole of len bytes. */
static bool parse_part(const char *text, size_t len, int family, struct flat_prefix *ret_cidr)
{
	char copy[FLAT_PREFIX_TEXT];
	if (len >= sizeof copy)
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	char *dash = strrchr(copy, '-');
	if (!dash || strchr(copy, '/'))
		return false;
	*dash = '/';
	struct flat_prefix cidr;
	if (!flat_prefix_parse(copy, &cidr) || cidr.ip.family != family)
		return false;
	*ret_cidr = cidr;
	return true;
}

bool flat_record_key_parse(const char *key, struct flat_prefix ret_cidrs[static FLAT_FAMILIES])
{
	struct flat_prefix v4 = { 0 }, v6 = { 0 };
	const char *amp = strchr(key, '&');
	bool right = amp ? parse_part(key, (size_t)(amp - key), AF_INET, &v4) &&
				     parse_part(amp + 1, strlen(amp + 1), AF_INET6, &v6)
			 : parse_part(key, strlen(key), AF_INET, &v4) ||
				     parse_part(key, strlen(key), AF_INET6, &v6);
	if (right) {
		ret_cidrs[FLAT_V4] = v4;
		ret_cidrs[FLAT_V6] = v6;
	}
	return right;
}

const char *flat_record_key_text(const struct flat_prefix cidrs[static FLAT_FAMILIES], char *buf)
{
	size_t len = 0;
	buf[0] = '\0';
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		char text[FLAT_IP_TEXT];
		if (cidrs[f].ip.family)
			len += (size_t)snprintf(buf + len, FLAT_RECORD_KEY - len, "%s%s-%u",
						len ? "&" : "", flat_ip_text(&cidrs[f].ip, text),
						cidrs[f].len);
	}
	return buf;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

struct backend_data {
	struct flat_mac mac;
	bool has_mac;
};

struct input {
	const char *name, *backend;
	struct flat_ip public_ip[FLAT_FAMILIES];
	const struct flat_json *data[FLAT_FAMILIES]; /* alive as long as the document */
};

static int keep_value(struct flat_json_decoder *d, const struct flat_json *value, void *target,
		      struct flat_err *err)
{
	(void)d;
	(void)err;
	*(const struct flat_json **)target = value;
	return 0;
}

static const struct flat_json_field record_fields[] = {
	{ "NodeName", FLAT_JSON_STRING, offsetof(struct input, name) },
	{ "BackendType", FLAT_JSON_STRING, offsetof(struct input, backend) },
	{ "PublicIP", FLAT_JSON_IP, offsetof(struct input, public_ip[FLAT_V4]) },
	{ "PublicIPv6", FLAT_JSON_IP, offsetof(struct input, public_ip[FLAT_V6]) },
	{ "BackendData", FLAT_JSON_CUSTOM, offsetof(struct input, data[FLAT_V4]),
	  .decode = keep_value },
	{ "BackendV6Data", FLAT_JSON_CUSTOM, offsetof(struct input, data[FLAT_V6]),
	  .decode = keep_value },
	FLAT_JSON_END,
};

static const struct flat_json_field backend_data_fields[] = {
	{ "VtepMAC", FLAT_JSON_MAC, offsetof(struct backend_data, mac),
	  .offset2 = offsetof(struct backend_data, has_mac) },
	FLAT_JSON_END,
};

/* A name that others can print and compare: what RFC 1123 allows, and no less than people use. */
static bool name_is_valid(const char *name)
{
	size_t len = strlen(name);
	return len > 0 && len <= FLAT_NODE_NAME_MAX &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") ==
		       len;
}

/* What a record without a name is called: its key, as far as it can be shown. */
static char *name_of_key(const char *key, struct flat_arena *arena)
{
	size_t len = strnlen(key, FLAT_NODE_NAME_MAX);
	char *name = flat_arena_alloc(arena, len + 1);
	for (size_t i = 0; name && i < len; i++)
		name[i] = (char)(key[i] > ' ' && key[i] < 0x7f ? key[i] : '?');
	return name;
}

static int no_memory(struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read a record of etcd");
}

static int take_mac(const struct flat_json *json, int family, const char *path,
		    struct flat_record *record, struct flat_arena *arena, struct flat_err *err)
{
	struct backend_data data = { 0 };
	static const struct flat_mac none = { { 0 } };
	int r = flat_json_decode(json, path, backend_data_fields, &data, arena, err);
	if (r < 0)
		return r;
	if (!data.has_mac)
		return 0;
	if (data.mac.bytes[0] & 1 || !memcmp(&data.mac, &none, sizeof none))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s.VtepMAC is not the address of one machine", path);
	record->node.vtep[family] = data.mac;
	record->node.has_vtep[family] = true;
	return 0;
}

static int take_value(const struct flat_json *json, struct flat_arena *arena,
		      struct flat_record *record, struct flat_err *err)
{
	struct input in = { 0 };
	static const char *const paths[] = { "BackendData", "BackendV6Data" };
	static const int families[] = { AF_INET, AF_INET6 };
	int r = flat_json_decode(json, "", record_fields, &in, arena, err);
	/* what was read before the fault counts */
	if (in.name && in.name[0]) {
		if (!name_is_valid(in.name))
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "NodeName is not the name of a node");
		record->node.name = in.name;
		record->named = true;
	}
	if (r < 0)
		return r;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		static const struct flat_ip zero;
		const struct flat_ip *ip = &in.public_ip[f];
		/* flannel writes 0.0.0.0 where there is none */
		if (!ip->family || !memcmp(ip->bytes, zero.bytes, sizeof zero.bytes))
			continue;
		if (ip->family != families[f])
			return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s is of the other IP version",
					 f == FLAT_V4 ? "PublicIP" : "PublicIPv6");
		record->node.addresses[f] = *ip;
	}
	bool vxlan = in.backend && !strcmp(in.backend, "vxlan");
	if (in.backend && in.backend[0] && !vxlan && strcmp(in.backend, "host-gw") != 0)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "its backend is neither vxlan nor host-gw: it cannot be reached");
	for (int f = 0; vxlan && f < FLAT_FAMILIES; f++) {
		if (!in.data[f])
			continue;
		r = take_mac(in.data[f], f, paths[f], record, arena, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int flat_record_parse(const char *key, const char *value, size_t value_len,
		      struct flat_arena *arena, struct flat_record *ret_record,
		      struct flat_err *err)
{
	struct flat_record record = { .node.name = name_of_key(key, arena) };
	struct flat_json *json = NULL;
	int r;
	if (!record.node.name)
		return no_memory(err);
	bool has_cidrs = flat_record_key_parse(key, record.cidrs);
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (record.cidrs[f].ip.family)
			record.node.pod_cidrs[record.node.pod_cidr_count++] = record.cidrs[f];
	if (value_len > FLAT_RECORD_MAX)
		r = flat_fail(err, FLAT_CODE_CONFIG, 0, "%zu bytes are no record: at most %d are",
			      value_len, FLAT_RECORD_MAX);
	else
		r = flat_json_parse(value, value_len, &json, err);
	if (r >= 0)
		r = take_value(json, arena, &record, err);
	flat_json_free(json);
	if (r >= 0 && !has_cidrs)
		r = flat_fail(err, FLAT_CODE_CONFIG, 0,
			      "its key is no subnet in the form 10.244.1.0-24 or "
			      "10.244.1.0-24&fd00:1::-64");
	*ret_record = record;
	return r;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void print_backend_data(FILE *out, const char *key, const struct flat_mac *mac, uint32_t vni)
{
	char text[FLAT_MAC_TEXT];
	fprintf(out, ",\"%s\":{\"VNI\":%u,\"VtepMAC\":\"%s\"}", key, vni, flat_mac_text(mac, text));
}

char *flat_record_print(const struct flat_node *node, enum flat_backend backend, uint32_t vni)
{
	flat_auto_free char *name = flat_json_quote(node->name);
	char *value = NULL, text[FLAT_IP_TEXT];
	size_t size = 0;
	FILE *out = name ? open_memstream(&value, &size) : NULL;
	if (!out)
		return NULL;
	static const char *const addresses[] = { "PublicIP", "PublicIPv6" };
	static const char *const data[] = { "BackendData", "BackendV6Data" };
	fputc('{', out);
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (node->addresses[f].family)
			fprintf(out, "\"%s\":\"%s\",", addresses[f],
				flat_ip_text(&node->addresses[f], text));
	fprintf(out, "\"BackendType\":\"%s\"",
		backend == FLAT_BACKEND_DIRECT ? "host-gw" : "vxlan");
	for (int f = 0; f < FLAT_FAMILIES && backend != FLAT_BACKEND_DIRECT; f++)
		if (node->addresses[f].family && node->has_vtep[f])
			print_backend_data(out, data[f], &node->vtep[f], vni);
	fprintf(out, ",\"NodeName\":%s}", name);
	bool failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(value);
		return NULL;
	}
	return value;
}

/* ---- flannel's configuration -------------------------------------------------------------------
 */

struct netconf_input {
	bool enable[FLAT_FAMILIES];
	struct flat_prefix network[FLAT_FAMILIES];
	uint32_t len[FLAT_FAMILIES];
	struct flat_ip min[FLAT_FAMILIES], max[FLAT_FAMILIES];
	struct {
		const char *type;
		uint32_t vni, port;
	} backend;
};

static const struct flat_json_field netconf_backend_fields[] = {
	{ "Type", FLAT_JSON_STRING,
	  offsetof(struct netconf_input, backend.type) - offsetof(struct netconf_input, backend) },
	{ "VNI", FLAT_JSON_UINT32,
	  offsetof(struct netconf_input, backend.vni) - offsetof(struct netconf_input, backend),
	  .max = (1 << 24) - 1 },
	{ "Port", FLAT_JSON_UINT32,
	  offsetof(struct netconf_input, backend.port) - offsetof(struct netconf_input, backend),
	  .max = 65535 },
	FLAT_JSON_END,
};

static const struct flat_json_field netconf_fields[] = {
	{ "EnableIPv4", FLAT_JSON_BOOL, offsetof(struct netconf_input, enable[FLAT_V4]) },
	{ "EnableIPv6", FLAT_JSON_BOOL, offsetof(struct netconf_input, enable[FLAT_V6]) },
	{ "Network", FLAT_JSON_PREFIX, offsetof(struct netconf_input, network[FLAT_V4]) },
	{ "IPv6Network", FLAT_JSON_PREFIX, offsetof(struct netconf_input, network[FLAT_V6]) },
	{ "SubnetLen", FLAT_JSON_UINT32, offsetof(struct netconf_input, len[FLAT_V4]), .max = 32 },
	{ "IPv6SubnetLen", FLAT_JSON_UINT32, offsetof(struct netconf_input, len[FLAT_V6]),
	  .max = 128 },
	{ "SubnetMin", FLAT_JSON_IP, offsetof(struct netconf_input, min[FLAT_V4]) },
	{ "SubnetMax", FLAT_JSON_IP, offsetof(struct netconf_input, max[FLAT_V4]) },
	{ "IPv6SubnetMin", FLAT_JSON_IP, offsetof(struct netconf_input, min[FLAT_V6]) },
	{ "IPv6SubnetMax", FLAT_JSON_IP, offsetof(struct netconf_input, max[FLAT_V6]) },
	{ "Backend", FLAT_JSON_OBJECT, offsetof(struct netconf_input, backend),
	  .table = netconf_backend_fields },
	FLAT_JSON_END,
};

/* One family, with flannel's defaults: /24 (/64) or a quarter of a small network, and never the
 * first subnet. */
static int netconf_pool(const struct netconf_input *in, int f, struct flat_subnet_pool *ret_pool,
			struct flat_err *err)
{
	const char *key = f == FLAT_V4 ? "Network" : "IPv6Network";
	const struct flat_prefix *net = &in->network[f];
	if (net->ip.family != (f == FLAT_V4 ? AF_INET : AF_INET6))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s is missing, or of the other IP "
				 "version",
				 key);
	struct flat_subnet_pool pool = {
		.net = { .ip = flat_prefix_first(net), .len = net->len },
		.min = in->min[f],
		.max = in->max[f],
	};
	unsigned usual = f == FLAT_V4 ? 24 : 64, bits = flat_ip_bits(&net->ip);
	unsigned len = in->len[f] ? in->len[f] : net->len + 2U <= usual ? usual : net->len + 2U;
	if (len < net->len + 2U || len > bits - 2)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s has no room for four subnets of length %u", key, len);
	pool.len = (uint8_t)len;
	if (!pool.min.family) {
		/* the second one: the network's address and the lowest bit of the subnet's number
		 */
		pool.min = pool.net.ip;
		pool.min.bytes[(len - 1) / 8] |= (uint8_t)(1U << (7 - (len - 1) % 8));
	}
	int r = flat_subnets_check(&pool, err);
	if (r < 0)
		return r;
	*ret_pool = pool;
	return 0;
}

int flat_netconf_parse(const char *text, size_t len, struct flat_arena *arena,
		       struct flat_netconf *ret_netconf, struct flat_err *err)
{
	struct netconf_input in = { .enable[FLAT_V4] = true, .backend = { .vni = 1, .port = 0 } };
	struct flat_netconf netconf = { .vni = 1, .port = 8472 };
	struct flat_json *json = NULL;
	int r = flat_json_parse(text, len, &json, err);
	if (r >= 0)
		r = flat_json_decode(json, "", netconf_fields, &in, arena, err);
	flat_json_free(json);
	for (int f = 0; r >= 0 && f < FLAT_FAMILIES; f++)
		if (in.enable[f])
			r = netconf_pool(&in, f, &netconf.pools[f], err);
	if (r < 0)
		return r;
	netconf.backend = in.backend.type ? in.backend.type : "udp"; /* flannel's own default */
	netconf.vni = in.backend.vni;
	if (in.backend.port)
		netconf.port = in.backend.port;
	*ret_netconf = netconf;
	return 0;
}
