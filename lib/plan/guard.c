// SPDX-License-Identifier: Apache-2.0
/*
 * What a pod may send, and which pods may reach it: the reference bridge plugin's macspoofchk, the
 * reference firewall plugin's ingressPolicy, and our own ipspoofchk. They are elements of sets in
 * nf_tables (flat_guard_ensure()), and a flag of the bridge's port.
 */
#include "plan-internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* As the JSON has it. */
struct raw {
	bool mac_spoof_check, ip_spoof_check;
	const char *ingress_policy;
};

#define RAW(type, field) type, offsetof(struct raw, field)
static const struct flat_json_field fields[] = {
	{ .key = "macspoofchk", RAW(FLAT_JSON_BOOL, mac_spoof_check) },
	{ .key = "ipspoofchk", RAW(FLAT_JSON_BOOL, ip_spoof_check) },
	{ .key = "ingressPolicy", RAW(FLAT_JSON_STRING, ingress_policy) },
	FLAT_JSON_END,
};

static int parse_policy(const char *text, enum flat_ingress_policy *ret_policy,
			struct flat_err *err)
{
	static const char *const names[] = {
		[FLAT_INGRESS_OPEN] = "open",
		[FLAT_INGRESS_SAME_BRIDGE] = "same-bridge",
		[FLAT_INGRESS_ISOLATED] = "isolated",
	};
	if (!text || !text[0])
		return 0;
	for (size_t i = 0; i < FLAT_LEN(names); i++) {
		if (!strcmp(text, names[i])) {
			*ret_policy = (enum flat_ingress_policy)i;
			return 0;
		}
	}
	return flat_fail(
		err, FLAT_CODE_CONFIG, 0,
		"ingressPolicy: \"%.64s\" is not \"open\", \"same-bridge\" or \"isolated\"", text);
}

static int parse(struct flat_request *req, const struct flat_log *log, struct flat_conf *conf,
		 struct flat_err *err)
{
	struct raw raw = { 0 };
	(void)log;
	int r = flat_json_decode(req->json, "", fields, &raw, &req->arena, err);
	if (r >= 0 && !conf->reference)
		r = parse_policy(raw.ingress_policy, &conf->ingress_policy, err);
	if (r < 0)
		return r;
	if (conf->reference) /* its bridge has no other key of these */
		raw.ip_spoof_check = false;
	if (raw.ip_spoof_check && conf->ipam_kind == FLAT_IPAM_NONE)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"ipspoofchk: needs ipam: a pod without an address could send nothing at all: use macspoofchk");
	conf->mac_spoof_check = raw.mac_spoof_check || raw.ip_spoof_check;
	conf->ip_spoof_check = raw.ip_spoof_check;
	return 0;
}

/* The kernel's link-local address of a link with this MAC (addrconf_ifid_eui48()). */
static struct flat_ip link_local(const struct flat_mac *mac)
{
	struct flat_ip ip = { .family = AF_INET6,
			      .bytes = { 0xfe, 0x80, [11] = 0xff, [12] = 0xfe } };
	memcpy(ip.bytes + 8, mac->bytes, 3);
	memcpy(ip.bytes + 13, mac->bytes + 3, 3);
	ip.bytes[8] ^= 2;
	return ip;
}

static int plan_addresses(struct flat_request *req, struct flat_attachment *a, struct flat_err *err)
{
	struct flat_ip *ips = flat_arena_alloc(&req->arena, (a->ip_count + 1) * sizeof *ips);
	bool has6 = false;
	size_t n = 0;
	if (!ips)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "ipspoofchk");
	for (; n < a->ip_count; n++) {
		ips[n] = a->ips[n].address.ip;
		has6 = has6 || ips[n].family == AF_INET6;
	}
	if (has6) /* neighbour discovery speaks with it */
		ips[n++] = link_local(&a->pod_mac);
	a->guard.ips = ips;
	a->guard.ip_count = n;
	return 0;
}

static int plan(struct flat_request *req, const struct flat_conf *conf, struct flat_attachment *a,
		struct flat_err *err)
{
	if (!conf->mac_spoof_check && conf->ingress_policy == FLAT_INGRESS_OPEN)
		return 0;
	a->guard = (struct flat_guard){
		.owner = a->host_ifname,
		.spoof = conf->mac_spoof_check,
		.addresses = conf->ip_spoof_check,
		.dhcp = conf->ipam_over_link,
		.mac = a->pod_mac,
		.bridge = conf->ingress_policy != FLAT_INGRESS_OPEN ? a->gateway.name : NULL,
		.isolated = conf->ingress_policy == FLAT_INGRESS_ISOLATED,
	};
	/* what goes over the bridge does not pass the node's IP layer */
	a->isolated = a->isolated || a->guard.isolated;
	return conf->ip_spoof_check ? plan_addresses(req, a, err) : 0;
}

static int apply(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		 struct flat_applied *applied, const struct flat_log *log, struct flat_err *err)
{
	(void)net;
	(void)netns_fd;
	(void)log;
	if (!a->guard.owner)
		return 0;
	applied->features |= FLAT_FEATURE_GUARD;
	return flat_guard_ensure(&a->guard, &applied->guard_made, err);
}

static int verify(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		  struct flat_err *err)
{
	char what[FLAT_GUARD_WHAT];
	(void)net;
	(void)netns_fd;
	if (!a->guard.owner)
		return 0;
	int r = flat_guard_verify(&a->guard, what, err);
	if (r == 0)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0, "isolation: %s", what);
	return r < 0 ? r : 0;
}

static int undo(const struct flat_attachment *a, struct flat_net *net,
		const struct flat_applied *applied, struct flat_err *err)
{
	(void)net;
	return flat_guard_remove(a->host_ifname, applied->guard_made, NULL, err);
}

static int remove_guard(struct flat_net *net, struct flat_removal *removal, struct flat_err *err)
{
	(void)net;
	return flat_guard_remove(removal->host_ifname, 0, &removal->slow, err);
}

static int sweep(struct flat_net *net, const struct flat_log *log, struct flat_err *err)
{
	(void)net;
	(void)log;
	return flat_guard_sweep(err);
}

const struct flat_feature flat_feature_guard = {
	.name = "isolation",
	.bit = FLAT_FEATURE_GUARD,
	.fields = fields,
	.parse = parse,
	.plan = plan,
	.apply = apply,
	.undo = undo,
	.verify = verify,
	.remove = remove_guard,
	.sweep = sweep,
};
