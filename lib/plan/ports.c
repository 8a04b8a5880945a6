// SPDX-License-Identifier: Apache-2.0
/*
 * Host ports: what the reference portmap plugin is for. Which they are is decided here; they are
 * elements of maps in nf_tables (flat_ports_ensure()).
 */
#include "plan-internal.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* As the JSON has it. */
struct raw {
	const char *set_mark_chain;
	int snat;
	bool masq_all;
	int64_t mark_bit;
	struct flat_json_list ports, runtime_ports, conditions4, conditions6;
};

static int decode_protocol(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			   struct flat_err *err)
{
	static const struct {
		const char *name;
		uint8_t number;
	} protocols[] = { { "", IPPROTO_TCP },
			  { "tcp", IPPROTO_TCP },
			  { "udp", IPPROTO_UDP },
			  { "sctp", IPPROTO_SCTP } };
	const char *text = flat_json_text(value);
	for (size_t i = 0; text && i < FLAT_LEN(protocols); i++) {
		if (!strcasecmp(text, protocols[i].name)) {
			*(uint8_t *)target = protocols[i].number;
			return 0;
		}
	}
	if (!text)
		return flat_json_fault(d, err, "is not a string: \"tcp\", \"udp\" or \"sctp\"");
	return flat_json_fault(d, err, "\"%.32s\" is not \"tcp\", \"udp\" or \"sctp\"", text);
}

static int decode_port(struct flat_json_decoder *d, const struct flat_json *value, void *target,
		       struct flat_err *err)
{
	static const struct flat_json_field port = { .type = FLAT_JSON_UINT32,
						     .min = 1,
						     .max = UINT16_MAX };
	uint32_t number;
	int r = flat_json_decode_value(d, value, &port, &number, err);
	if (r >= 0)
		*(uint16_t *)target = (uint16_t)number;
	return r;
}

static int decode_host_ip(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			  struct flat_err *err)
{
	static const struct flat_json_field field = { .type = FLAT_JSON_IP };
	const char *text = flat_json_text(value);
	struct flat_ip ip = { 0 };
	if (text && !text[0])
		return 0;
	int r = flat_json_decode_value(d, value, &field, &ip, err);
	if (r < 0)
		return r;
	if (ip.bytes[0] == 0xff || (ip.family == AF_INET && ip.bytes[0] >= 224))
		return flat_json_fault(d, err,
				       "%s is a multicast or broadcast address: give one of this "
				       "node's, or leave it out for all of them",
				       text);
	*(struct flat_ip *)target = ip;
	return 0;
}

static int init_mapping(void *mapping)
{
	((struct flat_port_mapping *)mapping)->protocol = IPPROTO_TCP;
	return 0;
}

/* Kubernetes' names. What a runtime in Go sends as HostPort is matched without regard to case. */
static const struct flat_json_field mapping_fields[] = {
	{ "hostPort", FLAT_JSON_CUSTOM, offsetof(struct flat_port_mapping, host_port),
	  .required = true, .decode = decode_port },
	{ "containerPort", FLAT_JSON_CUSTOM, offsetof(struct flat_port_mapping, container_port),
	  .required = true, .decode = decode_port },
	{ "protocol", FLAT_JSON_CUSTOM, offsetof(struct flat_port_mapping, protocol),
	  .decode = decode_protocol },
	{ "hostIP", FLAT_JSON_CUSTOM, offsetof(struct flat_port_mapping, host_ip),
	  .decode = decode_host_ip },
	FLAT_JSON_END,
};
#define PORT_MAPPINGS(field)                                                                       \
	{                                                                                          \
		.key = "portMappings", FLAT_JSON_OBJECT_LIST, offsetof(struct raw, field),         \
		.table = mapping_fields, .elem_size = sizeof(struct flat_port_mapping),            \
		.init = init_mapping, .max = FLAT_MAX_PORTS                                        \
	}

static const struct flat_json_field runtime_fields[] = {
	PORT_MAPPINGS(runtime_ports),
	FLAT_JSON_END,
};

#define RAW(type, field) type, offsetof(struct raw, field)
static const struct flat_json_field fields[] = {
	PORT_MAPPINGS(ports),
	{ .key = "snat", RAW(FLAT_JSON_TRISTATE, snat) },
	{ .key = "masqAll", RAW(FLAT_JSON_BOOL, masq_all) },
	{ .key = "markMasqBit", RAW(FLAT_JSON_INT, mark_bit), .min = 0, .max = 31 },
	{ .key = "externalSetMarkChain", RAW(FLAT_JSON_STRING, set_mark_chain) },
	{ .key = "conditionsV4", RAW(FLAT_JSON_STRING_LIST, conditions4) },
	{ .key = "conditionsV6", RAW(FLAT_JSON_STRING_LIST, conditions6) },
	{ .key = "runtimeConfig", FLAT_JSON_OBJECT, 0, .table = runtime_fields },
	FLAT_JSON_END,
};

/* All of the list must hold, so it is one text, as in the reference plugin. What iptables takes
 * starts with an option or a "!". */
static int join_conditions(struct flat_request *req, const char *key,
			   const struct flat_json_list *list, const char **ret_text,
			   struct flat_err *err)
{
	const char *const *parts = list->items;
	size_t room = 1, n = 0;
	for (size_t i = 0; i < list->count; i++)
		room += strlen(parts[i]) + 1;
	char *text = flat_arena_alloc(&req->arena, room);
	if (!text)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "%s", key);
	for (size_t i = 0; i < list->count; i++)
		n += (size_t)snprintf(text + n, room - n, "%s%s", n && parts[i][0] ? " " : "",
				      parts[i]);
	text[n] = '\0';
	if (text[0] == '-' || text[0] == '!')
		return flat_fail(
			err, FLAT_CODE_UNSUPPORTED, 0,
			"%s: \"%.96s\" is for iptables, and not supported: write it as an nft expression, as \"ip saddr != 192.0.2.0/24\" for \"! -s 192.0.2.0/24\"",
			key, text);
	*ret_text = text[strspn(text, " ")] ? text : NULL;
	return *ret_text ? flat_conditions_check(key, text, err) : 0;
}

/* Both lists count: the configuration's ports are every pod's. */
static int join_ports(struct flat_request *req, const struct raw *raw, struct flat_conf *conf,
		      struct flat_err *err)
{
	const struct flat_json_list *lists[] = { &raw->runtime_ports, &raw->ports };
	const size_t total = lists[0]->count + lists[1]->count;
	size_t n = 0;
	if (!total)
		return 0;
	struct flat_port_mapping *all = flat_arena_alloc(&req->arena, total * sizeof *all);
	if (!all)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "portMappings");
	for (size_t l = 0; l < FLAT_LEN(lists); l++) {
		for (size_t i = 0; i < lists[l]->count; i++) {
			all[n] = ((const struct flat_port_mapping *)lists[l]->items)[i];
			all[n++].from_runtime = l == 0;
		}
	}
	conf->ports = (struct flat_json_list){ .items = all, .count = total };
	return 0;
}

static int parse(struct flat_request *req, const struct flat_log *log, struct flat_conf *conf,
		 struct flat_err *err)
{
	struct raw raw = { .snat = -1, .mark_bit = -1 };
	(void)log;
	int r = flat_json_decode(req->json, "", fields, &raw, &req->arena, err);
	if (r < 0)
		return r;
	if (raw.set_mark_chain && raw.set_mark_chain[0])
		return flat_fail(
			err, FLAT_CODE_UNSUPPORTED, 0,
			"externalSetMarkChain: \"%.64s\" is not supported: it is a chain of iptables: leave it out, host ports are masqueraded without, or mark them by markMasqBit",
			raw.set_mark_chain);
	r = join_conditions(req, "conditionsV4", &raw.conditions4, &conf->ports_conditions4, err);
	if (r >= 0)
		r = join_conditions(req, "conditionsV6", &raw.conditions6, &conf->ports_conditions6,
				    err);
	if (r < 0)
		return r;
	conf->ports_snat = raw.snat != 0;
	conf->ports_masquerade_all = raw.snat != 0 && raw.masq_all;
	conf->ports_mark = raw.mark_bit >= 0 ? UINT32_C(1) << raw.mark_bit : 0;
	return join_ports(req, &raw, conf, err);
}

static const char *list_of(const struct flat_port_mapping *mapping)
{
	return mapping->from_runtime ? "runtimeConfig.portMappings" : "portMappings";
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "sctp";
}

static bool is_unspecified(const struct flat_ip *ip)
{
	const struct flat_ip zero = { .family = ip->family };
	return flat_ip_equal(ip, &zero);
}

/* The same port twice is once, unless it were to lead to two places. 1: it is there already. */
static int find_port(const struct flat_port *ports, size_t count, const struct flat_port *port,
		     const struct flat_port_mapping *mapping, struct flat_err *err)
{
	for (size_t i = 0; i < count; i++) {
		if (ports[i].protocol != port->protocol || ports[i].port != port->port ||
		    !flat_ip_equal(&ports[i].host, &port->host))
			continue;
		if (ports[i].pod_port == port->pod_port)
			return 1;
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"%s: hostPort %u/%s cannot lead to both containerPort %u and %u: choose another for one of them",
			list_of(mapping), port->port, protocol_name(port->protocol),
			ports[i].pod_port, port->pod_port);
	}
	return 0;
}

/* A mapping is for the pod's first address of each family that it means. */
static int plan_mapping(struct flat_attachment *a, const struct flat_port_mapping *mapping,
			struct flat_port *ports, size_t *count, struct flat_err *err)
{
	static const int families[] = { AF_INET, AF_INET6 };
	const struct flat_ip *host = &mapping->host_ip;
	char text[FLAT_IP_TEXT];
	for (size_t f = 0; f < FLAT_LEN(families); f++) {
		const struct flat_ip *pod = NULL;
		for (size_t i = a->ip_count; i-- > 0;)
			if (a->ips[i].address.ip.family == families[f])
				pod = &a->ips[i].address.ip;
		if (host->family && host->family != families[f])
			continue;
		/* "0.0.0.0" and "::" come in pairs, whatever the pod has */
		if (!pod && host->family && !is_unspecified(host))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s: hostIP %s of hostPort %u: the pod has no address of that family: leave hostIP out",
				list_of(mapping), flat_ip_text(host, text), mapping->host_port);
		if (!pod)
			continue;
		const struct flat_port port = {
			.protocol = mapping->protocol,
			.port = mapping->host_port,
			.pod_port = mapping->container_port,
			.host = host->family ? *host : (struct flat_ip){ .family = pod->family },
			.pod = *pod,
		};
		int r = find_port(ports, *count, &port, mapping, err);
		if (r < 0)
			return r;
		if (r == 0)
			ports[(*count)++] = port;
		a->ports_loopback |= a->ports.snat && families[f] == AF_INET;
	}
	return 0;
}

/* Who has the ports, for people: pod and container, as far as there is room in a comment of
 * nf_tables. */
static const char *label_of(struct flat_request *req)
{
	enum { LABEL = 104, ID = 12 };
	const char *space = req->args.pod_namespace, *pod = req->args.pod_name;
	char *label = flat_arena_alloc(&req->arena, LABEL);
	if (label && space && pod && space[0] && pod[0]) {
		int len = snprintf(label, LABEL - ID - 1, "%s/%s", space, pod);
		len = len < LABEL - ID - 1 ? len : LABEL - ID - 2;
		snprintf(label + len, (size_t)(LABEL - len), " %s", req->container_id);
	} else if (label) {
		snprintf(label, LABEL, "container %s", req->container_id);
	}
	return label;
}

static int plan(struct flat_request *req, const struct flat_conf *conf, struct flat_attachment *a,
		struct flat_err *err)
{
	const struct flat_port_mapping *mappings = conf->ports.items;
	if (!conf->ports.count)
		return 0;
	if (!a->ip_count)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"%s: a pod without addresses cannot have ports of the host: configure ipam, or leave them out",
			list_of(mappings));
	struct flat_port *ports =
		flat_arena_alloc(&req->arena, 2 * conf->ports.count * sizeof *ports);
	a->ports = (struct flat_ports){
		.owner = a->host_ifname,
		.label = label_of(req),
		/* where pods are on-link for each other, they answer each other past the node */
		.bridge = a->bridge.routed ? NULL : a->gateway.name,
		.items = ports,
		.snat = conf->ports_snat,
		.masquerade_all = conf->ports_masquerade_all,
		.mark = conf->ports_mark,
		.conditions4 = conf->ports_conditions4,
		.conditions6 = conf->ports_conditions6,
	};
	if (!ports || !a->ports.label)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "portMappings");
	for (size_t i = 0; i < conf->ports.count; i++) {
		int r = plan_mapping(a, &mappings[i], ports, &a->ports.count, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct flat_prefix loopback6 = { .ip = { AF_INET6, { [15] = 1 } }, .len = 128 };

/* Can an answer for ::1 come from a bridge? Not where br_netfilter has NAT done by the bridge: the
 * kernel would take the packet for a forged one (see nft-ports-chain.c). 1, 0. */
static int can_loopback6(struct flat_err *err)
{
	char value[8];
	int r = flat_sysctl_get("net/bridge/bridge-nf-call-ip6tables", value, sizeof value, err);
	if (r == -ENOENT && (!err || !err->code)) /* no br_netfilter */
		return 1;
	return r < 0 ? r : !strcmp(value, "0");
}

static struct flat_net_route loopback6_route(int index)
{
	return (struct flat_net_route){
		/* the kernel knows one route for each metric, and lo's has 0 */
		.route = { .dst = loopback6,
			   .table = RT_TABLE_LOCAL,
			   .priority = 1024 + (uint32_t)index,
			   .scope = -1 },
		.oif = index,
		.protocol = FLAT_RTPROT,
		.type = RTN_LOCAL,
	};
}

static bool wants_loopback6(const struct flat_attachment *a)
{
	for (size_t i = 0; i < a->ports.count; i++)
		if (a->ports.items[i].host.family == AF_INET6)
			return a->ports.snat;
	return false;
}

/* An answer for ::1 may come from the bridge. */
static int ensure_loopback6(const struct flat_attachment *a, struct flat_net *net, bool possible,
			    struct flat_err *err)
{
	int index = 0;
	for (size_t i = 0; i < a->ports.count && !possible; i++)
		if (flat_ip_equal(&a->ports.items[i].host, &loopback6.ip))
			return flat_fail(
				err, FLAT_CODE_UNSUPPORTED, 0,
				"portMappings: hostIP ::1 of hostPort %u is not supported while net.bridge.bridge-nf-call-ip6tables is 1: use 127.0.0.1",
				a->ports.items[i].port);
	if (!possible || !wants_loopback6(a))
		return 0;
	int r = flat_link_find_index(net, a->gateway.name, &index, err);
	if (r <= 0)
		return r;
	const struct flat_net_route route = loopback6_route(index);
	flat_route_add(net, &route, false, FLAT_EXISTS_OK | FLAT_UNSUPPORTED_OK);
	return flat_net_commit(net, err);
}

/* While the link is there: it stands for them. */
static int apply(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		 struct flat_applied *applied, const struct flat_log *log, struct flat_err *err)
{
	struct flat_ports want = a->ports;
	int r = 0;
	(void)netns_fd;
	if (!a->ports.count)
		return 0;
	r = can_loopback6(err);
	want.loopback6 = r > 0;
	/* a packet from 127.0.0.1 may leave by this link, and its answer come back */
	if (r >= 0 && a->ports_loopback)
		r = flat_link_set_sysctl("ipv4", a->gateway.name, "route_localnet", "1", err);
	if (r >= 0)
		r = ensure_loopback6(a, net, want.loopback6, err);
	if (r < 0)
		return r;
	applied->features |= FLAT_FEATURE_PORTS;
	r = flat_ports_ensure(&want, &applied->port_chains_made, log, err);
	return r < 0 ? r : 0;
}

static int find_loopback6(void *arg, const struct flat_net_route *route)
{
	bool *found = arg;
	*found = *found || (route->type == RTN_LOCAL && route->route.dst.len == 128 &&
			    flat_ip_equal(&route->route.dst.ip, &loopback6.ip));
	return 0;
}

static int verify_loopback6(const struct flat_attachment *a, struct flat_net *net,
			    struct flat_err *err)
{
	bool found = false;
	int index = 0;
	int r = flat_link_find_index(net, a->gateway.name, &index, err);
	if (r > 0)
		r = flat_route_each(net, AF_INET6, index, 0, RT_TABLE_LOCAL, find_loopback6, &found,
				    err);
	if (r >= 0 && !found)
		return flat_fail(
			err, FLAT_CODE_MISMATCH, 0,
			"the route by which [::1] gets answers from '%s' is missing: `ip -6 route add local ::1 dev %s metric %u`",
			a->gateway.name, a->gateway.name, 1024U + (unsigned)index);
	return r;
}

static int verify(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		  struct flat_err *err)
{
	struct flat_ports want = a->ports;
	char path[64], what[FLAT_PORTS_WHAT];
	int r = 0;
	(void)netns_fd;
	if (!a->ports.count)
		return 0;
	r = can_loopback6(err);
	want.loopback6 = r > 0;
	if (r >= 0 && a->ports_loopback) {
		snprintf(path, sizeof path, "net/ipv4/conf/%s/route_localnet", a->gateway.name);
		r = flat_verify_sysctl(path, "1", err);
	}
	if (r >= 0 && want.loopback6 && wants_loopback6(a))
		r = verify_loopback6(a, net, err);
	if (r >= 0) {
		r = flat_ports_verify(&want, what, err);
		if (r == 0)
			return flat_fail(err, FLAT_CODE_MISMATCH, 0, "%s", what);
	}
	return r < 0 ? r : 0;
}

/* A failed ADD also takes the chains and maps back that it made. */
static int undo(const struct flat_attachment *a, struct flat_net *net,
		const struct flat_applied *applied, struct flat_err *err)
{
	(void)net;
	return flat_ports_remove(a->host_ifname, applied->port_chains_made, NULL, NULL, err);
}

static int remove_ports(struct flat_net *net, struct flat_removal *removal, struct flat_err *err)
{
	(void)net;
	return flat_ports_remove(removal->host_ifname, false, &removal->slow, NULL, err);
}

static int sweep(struct flat_net *net, const struct flat_log *log, struct flat_err *err)
{
	(void)net;
	return flat_ports_sweep(log, err);
}

const struct flat_feature flat_feature_ports = {
	.name = "host ports",
	.bit = FLAT_FEATURE_PORTS,
	.fields = fields,
	.parse = parse,
	.plan = plan,
	.apply = apply,
	.undo = undo,
	.verify = verify,
	.remove = remove_ports,
	.sweep = sweep,
};
