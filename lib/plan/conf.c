// SPDX-License-Identifier: Apache-2.0
/*
 * The configuration of type flatnet: the reference bridge plugin's keys with its meaning, and our
 * own. What can be set in several places is settled here once: the configuration, the pod's
 * annotations, CNI_ARGS, args.cni, runtimeConfig, the later one wins (CNI CONVENTIONS.md).
 */
#include "plan-internal.h"

#include <errno.h>
#include <string.h>

struct trunk {
	int64_t min_id, max_id, id;
	bool has_min, has_max, has_id;
};

/* As the JSON has it, before defaults and precedence. */
struct raw {
	const char *bridge, *backend, *mode, *node_name, *nodes_file, *subnet_file;
	int is_gateway, is_default_gateway, ip_masq, hairpin;
	bool force_address, promisc, enable_dad, disable_container_interface, port_isolation;
	bool preserve_default_vlan;
	int64_t mtu, vlan;
	struct flat_json_list trunk, cluster_cidrs, nodes;
	bool has_nodes;
	struct flat_dns dns;
	struct flat_mac mac;
	bool has_mac;
	struct {
		struct flat_mac mac;
		bool has_mac;
		struct flat_dns dns;
	} runtime;
	struct {
		struct {
			struct flat_mac mac;
			bool has_mac;
		} cni;
	} args;
};

enum { MTU_MIN = 68, MTU_MAX = 65535, VLAN_MAX = 4094, MAX_NODES = 16384 };

static const struct flat_json_field trunk_fields[] = {
	{ .key = "minID",
	  FLAT_JSON_INT,
	  offsetof(struct trunk, min_id),
	  .min = 1,
	  .max = VLAN_MAX,
	  .offset2 = offsetof(struct trunk, has_min) },
	{ .key = "maxID",
	  FLAT_JSON_INT,
	  offsetof(struct trunk, max_id),
	  .min = 1,
	  .max = VLAN_MAX,
	  .offset2 = offsetof(struct trunk, has_max) },
	{ .key = "id",
	  FLAT_JSON_INT,
	  offsetof(struct trunk, id),
	  .min = 1,
	  .max = VLAN_MAX,
	  .offset2 = offsetof(struct trunk, has_id) },
	FLAT_JSON_END,
};

/* The CNI conventions' names, which are not those of a result. */
static const struct flat_json_field runtime_dns_fields[] = {
	{ .key = "servers", FLAT_JSON_STRING_LIST, offsetof(struct raw, runtime.dns.nameservers) },
	{ .key = "searches", FLAT_JSON_STRING_LIST, offsetof(struct raw, runtime.dns.search) },
	{ .key = "options", FLAT_JSON_STRING_LIST, offsetof(struct raw, runtime.dns.options) },
	FLAT_JSON_END,
};

static int ignore(struct flat_json_decoder *d, const struct flat_json *value, void *target,
		  struct flat_err *err)
{
	(void)d;
	(void)value;
	(void)target;
	(void)err;
	return 0;
}

static const struct flat_json_field runtime_fields[] = {
	{ .key = "mac",
	  FLAT_JSON_MAC,
	  offsetof(struct raw, runtime.mac),
	  .offset2 = offsetof(struct raw, runtime.has_mac) },
	{ .key = "dns", FLAT_JSON_OBJECT, 0, .table = runtime_dns_fields },
	/* for plugins that name pods or count their traffic; runtimes send them in several forms */
	{ .key = "aliases", FLAT_JSON_CUSTOM, 0, .decode = ignore },
	{ .key = "cgroupPath", FLAT_JSON_CUSTOM, 0, .decode = ignore },
	FLAT_JSON_END,
};

static const struct flat_json_field args_cni_fields[] = {
	{ .key = "mac",
	  FLAT_JSON_MAC,
	  offsetof(struct raw, args.cni.mac),
	  .offset2 = offsetof(struct raw, args.cni.has_mac) },
	FLAT_JSON_END,
};

static const struct flat_json_field args_fields[] = {
	{ .key = "cni", FLAT_JSON_OBJECT, 0, .table = args_cni_fields },
	FLAT_JSON_END,
};

#define RAW(type, field) type, offsetof(struct raw, field)
static const struct flat_json_field bridge_fields[] = {
	{ .key = "bridge", RAW(FLAT_JSON_STRING, bridge) },
	{ .key = "isGateway", RAW(FLAT_JSON_TRISTATE, is_gateway) },
	{ .key = "isDefaultGateway", RAW(FLAT_JSON_TRISTATE, is_default_gateway) },
	{ .key = "forceAddress", RAW(FLAT_JSON_BOOL, force_address) },
	{ .key = "ipMasq", RAW(FLAT_JSON_TRISTATE, ip_masq) },
	{ .key = "ipMasqBackend", RAW(FLAT_JSON_STRING, backend) },
	{ .key = "mtu", RAW(FLAT_JSON_INT, mtu), .min = 0, .max = MTU_MAX },
	{ .key = "hairpinMode", RAW(FLAT_JSON_TRISTATE, hairpin) },
	{ .key = "promiscMode", RAW(FLAT_JSON_BOOL, promisc) },
	{ .key = "vlan", RAW(FLAT_JSON_INT, vlan), .min = 0, .max = VLAN_MAX },
	{ .key = "vlanTrunk",
	  RAW(FLAT_JSON_OBJECT_LIST, trunk),
	  .table = trunk_fields,
	  .elem_size = sizeof(struct trunk),
	  .max = 64 },
	{ .key = "preserveDefaultVlan", RAW(FLAT_JSON_BOOL, preserve_default_vlan) },
	{ .key = "enabledad", RAW(FLAT_JSON_BOOL, enable_dad) },
	{ .key = "disableContainerInterface", RAW(FLAT_JSON_BOOL, disable_container_interface) },
	{ .key = "portIsolation", RAW(FLAT_JSON_BOOL, port_isolation) },
	{ .key = "dns", RAW(FLAT_JSON_OBJECT, dns), .table = flat_dns_fields },
	/* from the runtime */
	{ .key = "runtimeConfig", FLAT_JSON_OBJECT, 0, .table = runtime_fields },
	{ .key = "args", FLAT_JSON_OBJECT, 0, .table = args_fields },
	FLAT_JSON_END,
};
static const struct flat_json_field own_fields[] = {
	/* the reference tuning plugin's; the others are in tuning.c */
	{ .key = "mac", RAW(FLAT_JSON_MAC, mac), .offset2 = offsetof(struct raw, has_mac) },
	/* our own */
	{ .key = "bridgeMode", RAW(FLAT_JSON_STRING, mode) },
	{ .key = "clusterCIDR", RAW(FLAT_JSON_PREFIX_OR_LIST, cluster_cidrs), .max = 16 },
	{ .key = "nodes",
	  RAW(FLAT_JSON_OBJECT_LIST, nodes),
	  .offset2 = offsetof(struct raw, has_nodes),
	  .table = flat_node_fields,
	  .elem_size = sizeof(struct flat_node),
	  .max = MAX_NODES },
	{ .key = "nodesFile", RAW(FLAT_JSON_STRING, nodes_file) },
	{ .key = "nodeName", RAW(FLAT_JSON_STRING, node_name) },
	{ .key = "subnetFile", RAW(FLAT_JSON_STRING, subnet_file) },
	FLAT_JSON_END,
};

const struct flat_json_field *flat_conf_table(size_t i)
{
	const struct flat_json_field *const own[] = { bridge_fields, own_fields,
						      flat_annotation_fields, flat_ipam_fields };
	size_t names = 0;
	while (flat_request_table(names))
		names++;
	if (i < names)
		return flat_request_table(i);
	if (i - names < FLAT_LEN(own))
		return own[i - names];
	const struct flat_feature *feature = flat_feature_at(i - names - FLAT_LEN(own));
	return feature ? feature->fields : NULL;
}

/* Of the former, what DEL and GC need. */
static const struct flat_json_field vlan_fields[] = {
	{ .key = "isGateway", RAW(FLAT_JSON_TRISTATE, is_gateway) },
	{ .key = "isDefaultGateway", RAW(FLAT_JSON_TRISTATE, is_default_gateway) },
	{ .key = "vlan", RAW(FLAT_JSON_INT, vlan), .min = 0, .max = VLAN_MAX },
	FLAT_JSON_END,
};

static const char *given(const char *text)
{
	return text && text[0] ? text : NULL;
}

static int parse_trunk(struct flat_request *req, const struct raw *raw, struct flat_conf *conf,
		       struct flat_err *err)
{
	const struct trunk *trunk = raw->trunk.items;
	struct flat_vlan_range *ranges =
		flat_arena_alloc(&req->arena, 2 * raw->trunk.count * sizeof *ranges + 1);
	size_t n = 0;
	if (!ranges)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "vlanTrunk");
	for (size_t i = 0; i < raw->trunk.count; i++) {
		const struct trunk *t = &trunk[i];
		if (t->has_min != t->has_max)
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"vlanTrunk[%zu]: minID and maxID belong together, %s is missing", i,
				t->has_min ? "maxID" : "minID");
		if (t->has_min && t->min_id > t->max_id)
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "vlanTrunk[%zu]: minID %d is greater than maxID %d", i,
					 (int)t->min_id, (int)t->max_id);
		if (t->has_min)
			ranges[n++] = (struct flat_vlan_range){ (uint16_t)t->min_id,
								(uint16_t)t->max_id };
		if (t->has_id)
			ranges[n++] = (struct flat_vlan_range){ (uint16_t)t->id, (uint16_t)t->id };
		if (!t->has_min && !t->has_id)
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "vlanTrunk[%zu]: neither id nor minID and maxID", i);
	}
	conf->vlan_trunk = (struct flat_json_list){ .items = ranges, .count = n };
	return 0;
}

static int name_gateway(struct flat_conf *conf, struct flat_err *err)
{
	const uint16_t vlan = conf->is_gateway ? conf->vlan : 0;
	char port[FLAT_IFNAME_LEN];
	const unsigned digits = !vlan ? 0 : vlan < 10 ? 2 : vlan < 100 ? 3 : vlan < 1000 ? 4 : 5;
	if (strlen(conf->bridge) + digits >= FLAT_IFNAME_LEN) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "vlan: the gateway's interface '%s.%u' has more than %d characters",
			  conf->bridge, vlan, FLAT_IFNAME_LEN - 1);
		return flat_detail(err, "choose a shorter \"bridge\"");
	}
	flat_name_gateway(conf->bridge, vlan, conf->gateway_link, port);
	return 0;
}

/* Instead of executing host-local, its work is done here where it would be this program that is
 * executed; which IPAM a name means, CNI_PATH decides. */
static int parse_ipam_kind(struct flat_request *req, const struct flat_defaults *d,
			   const struct raw *raw, struct flat_conf *conf, struct flat_err *err)
{
	const char *type = req->ipam_type;
	if (!type && d->reference)
		type = "";
	if (raw->disable_container_interface && req->has_ipam && !(type && !type[0]))
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"disableContainerInterface: cannot be used with ipam: an interface that stays down has no address");
	if (raw->disable_container_interface || (type && !type[0]))
		conf->ipam_kind = FLAT_IPAM_NONE;
	else if (!type || (!strcmp(type, d->ipam_type) &&
			   (!d->reference || flat_delegate_is_self(req, type))))
		conf->ipam_kind = FLAT_IPAM_OWN;
	else
		conf->ipam_kind = FLAT_IPAM_FOREIGN;
	conf->ipam_over_link = conf->ipam_kind == FLAT_IPAM_FOREIGN && !strcmp(type, "dhcp");
	return 0;
}

/* What another program gives the addresses for is not ours to promise. */
static int parse_annotations(struct flat_request *req, struct flat_conf *conf, struct flat_err *err)
{
	int r = flat_annotations_parse(req, &conf->annotations, err);
	if (r >= 0 && conf->annotations.ips.count && conf->ipam_kind != FLAT_IPAM_OWN)
		r = flat_fail(
			err, FLAT_CODE_UNSUPPORTED, 0,
			"%s: \"%s\" cannot be had: addresses are not flatnet's to give in this network (ipam.type)",
			FLAT_ANNOTATION_PATH(FLAT_ANNOTATION_IP),
			flat_ip_text(conf->annotations.ips.items, (char[FLAT_IP_TEXT]){ 0 }));
	return r;
}

static int validate(const struct raw *raw, struct flat_err *err)
{
	if (!flat_ifname_is_valid(raw->bridge))
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"bridge: \"%.64s\" is no name for an interface: 1 to 15 bytes, no '/', ':' or white space",
			raw->bridge);
	if (raw->hairpin == 1 && raw->promisc)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "cannot set hairpinMode and promiscMode at the same time");
	if (raw->mtu && raw->mtu < MTU_MIN)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "mtu: %d is too small: 0 (automatic) or %d to %d", (int)raw->mtu,
				 MTU_MIN, MTU_MAX);
	if (raw->backend && raw->backend[0] && strcmp(raw->backend, "nftables") != 0 &&
	    strcmp(raw->backend, "iptables") != 0)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "ipMasqBackend: unknown backend \"%.64s\": use \"nftables\"",
				 raw->backend);
	if (raw->mode && raw->mode[0] && strcmp(raw->mode, "routed") != 0 &&
	    strcmp(raw->mode, "l2") != 0)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "bridgeMode: \"%.64s\" is neither \"routed\" nor \"l2\"",
				 raw->mode);
	if (raw->has_nodes && given(raw->nodes_file))
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "nodes and nodesFile: give one of them");
	return 0;
}

const struct flat_defaults flat_defaults_flatnet = {
	.is_gateway = true,
	.is_default_gateway = true,
	.hairpin = true,
	.ipam_type = "flatnet-ipam",
	.data_dir = FLAT_IPAM_DATA_DIR,
	.features = (unsigned)FLAT_FEATURES_ALL,
};

const struct flat_defaults flat_defaults_bridge = {
	.reference = true,
	.ipam_type = "host-local",
	.data_dir = FLAT_IPAM_HOST_LOCAL_DIR,
	.features = FLAT_FEATURE_GUARD, /* macspoofchk */
};

static bool choose(int given, bool otherwise)
{
	return given == -1 ? otherwise : given;
}

int flat_conf_parse(struct flat_request *req, const struct flat_defaults *d,
		    const struct flat_host *host, struct flat_net *net, const struct flat_log *log,
		    struct flat_conf *ret_conf, struct flat_err *err)
{
	struct raw raw = { .bridge = "cni0",
			   .is_gateway = -1,
			   .is_default_gateway = -1,
			   .ip_masq = -1,
			   .hairpin = -1 };
	struct flat_conf conf = { .reference = d->reference,
				  .tuning = { .promisc = -1, .allmulti = -1 } };
	int r;

	r = flat_json_decode(req->json, "", bridge_fields, &raw, &req->arena, err);
	if (r >= 0 && !d->reference)
		r = flat_json_decode(req->json, "", own_fields, &raw, &req->arena, err);
	if (r < 0)
		return r;
	if (!raw.bridge[0])
		raw.bridge = "cni0";
	r = validate(&raw, err);
	if (r < 0)
		return r;

	r = parse_ipam_kind(req, d, &raw, &conf, err);
	if (r < 0)
		return r;
	conf.bridge = raw.bridge;
	/* whose address a DHCP server tells as the router's is not the node's to take */
	if (conf.ipam_over_link && raw.is_gateway == -1)
		raw.is_gateway = 0;
	const bool gateway = choose(raw.is_gateway, d->is_gateway);
	conf.is_default_gateway = conf.ipam_kind != FLAT_IPAM_NONE &&
				  choose(raw.is_default_gateway, d->is_default_gateway && gateway);
	/* implied, as in the reference */
	conf.is_gateway = conf.ipam_kind != FLAT_IPAM_NONE && (gateway || conf.is_default_gateway);
	conf.force_address = raw.force_address;
	conf.ip_masq = raw.ip_masq == 1;
	conf.hairpin = choose(raw.hairpin, d->hairpin && !raw.promisc);
	conf.promisc = raw.promisc;
	conf.enable_dad = raw.enable_dad;
	conf.disable_container_interface = raw.disable_container_interface;
	conf.port_isolation = raw.port_isolation;
	conf.mtu = (uint32_t)raw.mtu;
	conf.vlan = (uint16_t)raw.vlan;
	conf.preserve_default_vlan = raw.preserve_default_vlan;
	conf.dns = flat_dns_is_empty(&raw.runtime.dns) || d->reference ? raw.dns : raw.runtime.dns;
	if (given(raw.mode))
		conf.mode = strcmp(raw.mode, "l2") ? FLAT_BRIDGE_ROUTED : FLAT_BRIDGE_L2;
	else /* who asks for isolated ports wants pods kept apart: a way through the node would undo
		that */
		conf.mode = conf.is_gateway && !conf.port_isolation && !d->reference
				    ? FLAT_BRIDGE_ROUTED
				    : FLAT_BRIDGE_L2;
	if (conf.mode == FLAT_BRIDGE_ROUTED && !conf.is_gateway)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"bridgeMode: \"routed\" needs isGateway: the way leads through the node");
	if (raw.backend && !strcmp(raw.backend, "iptables"))
		flat_warn(
			log,
			"ipMasqBackend: \"iptables\" is ignored: flatnet always writes nf_tables rules, which work beside iptables");
	r = parse_trunk(req, &raw, &conf, err);
	if (r >= 0)
		r = name_gateway(&conf, err);
	if (r < 0)
		return r;

	r = d->reference ? 0 : parse_annotations(req, &conf, err);
	if (r < 0)
		return r;
	conf.has_mac = true;
	if (raw.runtime.has_mac)
		conf.mac = raw.runtime.mac;
	else if (raw.args.cni.has_mac)
		conf.mac = raw.args.cni.mac;
	else if (req->args.has_mac)
		conf.mac = req->args.mac;
	else if (conf.annotations.has_mac)
		conf.mac = conf.annotations.mac;
	else if (raw.has_mac)
		conf.mac = raw.mac;
	else
		conf.has_mac = false;
	if (conf.has_mac && (conf.mac.bytes[0] & 1))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "mac: %s is a multicast address: the first byte must be even",
				 flat_mac_text(&conf.mac, (char[FLAT_MAC_TEXT]){ 0 }));

	const struct flat_node_source source = {
		.nodes = raw.nodes,
		.has_nodes = raw.has_nodes,
		.nodes_file = given(raw.nodes_file),
		.node_name = given(raw.node_name),
		.subnet_file = given(raw.subnet_file),
		.cluster_cidrs = raw.cluster_cidrs,
		.ip_masq_given = raw.ip_masq != -1,
	};
	if (!d->reference)
		r = flat_node_resolve(req, &source, host, net, &conf, err);
	else if (conf.ipam_kind == FLAT_IPAM_OWN)
		r = flat_ipam_conf_parse(req, d->data_dir, NULL, &conf.ipam, err);
	if (r >= 0)
		r = flat_features_parse(req, d->features, log, &conf, err);
	if (r < 0)
		return r;
	*ret_conf = conf;
	return 0;
}

void flat_conf_parse_lenient(struct flat_request *req, const struct flat_defaults *d,
			     struct flat_conf *ret_conf)
{
	const struct flat_json *ipam = flat_json_get(req->json, "ipam");
	const char *bridge = flat_json_text(flat_json_get(req->json, "bridge"));
	const char *dir = ipam ? flat_json_text(flat_json_get(ipam, "dataDir")) : NULL;
	const struct raw raw = { 0 };
	struct flat_conf conf = { .reference = d->reference };

	conf.bridge = bridge && flat_ifname_is_valid(bridge)
			      ? flat_arena_strdup(&req->arena, bridge)
			      : "cni0";
	if (!conf.bridge)
		conf.bridge = "cni0";
	parse_ipam_kind(req, d, &raw, &conf, NULL);
	struct raw vlan = { .is_gateway = d->is_gateway };
	if (flat_json_decode(req->json, "", vlan_fields, &vlan, &req->arena, NULL) >= 0)
		conf.vlan = (uint16_t)vlan.vlan;
	conf.is_gateway = vlan.is_gateway || vlan.is_default_gateway;
	if (name_gateway(&conf, NULL) < 0)
		memcpy(conf.gateway_link, conf.bridge, strlen(conf.bridge) + 1);
	conf.ipam.data_dir = dir && dir[0] == '/' ? flat_arena_strdup(&req->arena, dir) : NULL;
	if (!conf.ipam.data_dir)
		conf.ipam.data_dir = d->data_dir;
	*ret_conf = conf;
}
