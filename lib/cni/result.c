// SPDX-License-Identifier: Apache-2.0
/*
 * Reading results. Two shapes came over the years: `ip4` and `ip6` until 0.2.0, lists of
 * interfaces, addresses and routes since 0.3.0. Keys that came later are read in any version.
 */
#include "private.h"

#include <sys/socket.h>

bool flat_dns_is_empty(const struct flat_dns *dns)
{
	return !dns->nameservers.count && !(dns->domain && dns->domain[0]) && !dns->search.count &&
	       !dns->options.count;
}

static int decode_mac(struct flat_json_decoder *d, const struct flat_json *value, void *target,
		      struct flat_err *err)
{
	struct flat_result_interface *interface = target;
	const char *text = flat_json_text(value);
	if (!text)
		return flat_json_fault(d, err, "a MAC address is a string");
	/* InfiniBand's has 20 bytes: none of ours, yet no fault */
	interface->has_mac = flat_mac_parse(text, &interface->mac);
	return 0;
}

static int decode_address(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			  struct flat_err *err)
{
	const char *text = flat_json_text(value);
	char quoted[FLAT_QUOTE];
	if (!text)
		return flat_json_fault(d, err, "an address is a string, like \"10.244.1.23/24\"");
	if (!flat_prefix_parse(text, target))
		return flat_json_fault(
			d, err,
			"%s is not an address with its subnet's length, like 10.244.1.23/24",
			flat_quote(text, quoted, sizeof quoted));
	return 0;
}

static int init_ip(void *elem)
{
	((struct flat_result_ip *)elem)->interface = -1;
	return 0;
}

static const struct flat_json_field interface_fields[] = {
	{ "name", FLAT_JSON_STRING, offsetof(struct flat_result_interface, name),
	  .required = true },
	{ "mac", FLAT_JSON_CUSTOM, 0, .decode = decode_mac },
	{ "mtu", FLAT_JSON_UINT32, offsetof(struct flat_result_interface, mtu) },
	{ "sandbox", FLAT_JSON_STRING, offsetof(struct flat_result_interface, sandbox) },
	{ "socketPath", FLAT_JSON_STRING, offsetof(struct flat_result_interface, socket_path) },
	{ "pciID", FLAT_JSON_STRING, offsetof(struct flat_result_interface, pci_id) },
	FLAT_JSON_END,
};

static const struct flat_json_field ip_fields[] = {
	{ "address", FLAT_JSON_CUSTOM, offsetof(struct flat_result_ip, address), .required = true,
	  .decode = decode_address },
	{ "gateway", FLAT_JSON_IP, offsetof(struct flat_result_ip, gateway) },
	{ "interface", FLAT_JSON_INT32, offsetof(struct flat_result_ip, interface), .min = 0,
	  .max = FLAT_MAX_INTERFACES - 1 },
	FLAT_JSON_END,
};

struct lists {
	struct flat_json_list interfaces, ips, routes;
	struct flat_dns dns;
};

static const struct flat_json_field result_fields[] = {
	{ "interfaces", FLAT_JSON_OBJECT_LIST, offsetof(struct lists, interfaces),
	  .max = FLAT_MAX_INTERFACES, .table = interface_fields,
	  .elem_size = sizeof(struct flat_result_interface) },
	{ "ips", FLAT_JSON_OBJECT_LIST, offsetof(struct lists, ips), .max = FLAT_MAX_IPS,
	  .table = ip_fields, .elem_size = sizeof(struct flat_result_ip), .init = init_ip },
	{ "routes", FLAT_JSON_OBJECT_LIST, offsetof(struct lists, routes), .max = FLAT_MAX_ROUTES,
	  .table = flat_route_fields, .elem_size = sizeof(struct flat_route),
	  .init = flat_route_init },
	{ "dns", FLAT_JSON_OBJECT, offsetof(struct lists, dns), .table = flat_dns_fields },
	FLAT_JSON_END,
};

static int check_indices(const struct lists *lists, const char *path, struct flat_err *err)
{
	const struct flat_result_ip *ips = lists->ips.items;
	/* containerd indexes with it unchecked */
	for (size_t i = 0; i < lists->ips.count; i++)
		if (ips[i].interface >= (int)lists->interfaces.count)
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "%s.ips[%zu].interface: there is no interfaces[%d]", path,
					 i, ips[i].interface);
	return 0;
}

static int parse_lists(const struct flat_json *json, const char *path, struct flat_arena *arena,
		       struct flat_result *result, struct flat_err *err)
{
	struct lists lists = { 0 };
	int r = flat_json_decode(json, path, result_fields, &lists, arena, err);
	if (r < 0)
		return r;
	r = check_indices(&lists, path, err);
	if (r < 0)
		return r;
	result->interfaces = lists.interfaces.items;
	result->interface_count = lists.interfaces.count;
	result->ips = lists.ips.items;
	result->ip_count = lists.ips.count;
	result->routes = lists.routes.items;
	result->route_count = lists.routes.count;
	result->dns = lists.dns;
	return 0;
}

/* ---- until 0.2.0 -------------------------------------------------------------------------------
 */

struct old_ip {
	bool given;
	struct flat_result_ip ip;
	struct flat_json_list routes;
};

struct old_result {
	struct old_ip ip4, ip6;
	struct flat_dns dns;
};

static const struct flat_json_field old_ip_fields[] = {
	{ "ip", FLAT_JSON_CUSTOM, offsetof(struct old_ip, ip.address), .required = true,
	  .decode = decode_address },
	{ "gateway", FLAT_JSON_IP, offsetof(struct old_ip, ip.gateway) },
	{ "routes", FLAT_JSON_OBJECT_LIST, offsetof(struct old_ip, routes), .max = FLAT_MAX_ROUTES,
	  .table = flat_route_fields, .elem_size = sizeof(struct flat_route),
	  .init = flat_route_init },
	FLAT_JSON_END,
};

static int decode_old_ip(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			 struct flat_err *err)
{
	struct old_ip *old = target;
	old->given = true;
	return flat_json_decode_object(d, value, old_ip_fields, old, err);
}

static const struct flat_json_field old_fields[] = {
	{ "ip4", FLAT_JSON_CUSTOM, offsetof(struct old_result, ip4), .decode = decode_old_ip },
	{ "ip6", FLAT_JSON_CUSTOM, offsetof(struct old_result, ip6), .decode = decode_old_ip },
	{ "dns", FLAT_JSON_OBJECT, offsetof(struct old_result, dns), .table = flat_dns_fields },
	FLAT_JSON_END,
};

static int parse_old(const struct flat_json *json, const char *path, struct flat_arena *arena,
		     struct flat_result *result, struct flat_err *err)
{
	struct old_result old = { 0 };
	const struct old_ip *const both[] = { &old.ip4, &old.ip6 };
	int r = flat_json_decode(json, path, old_fields, &old, arena, err);
	if (r < 0)
		return r;
	size_t routes = old.ip4.routes.count + old.ip6.routes.count;
	if (routes > FLAT_MAX_ROUTES)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s: %zu routes are more than the %d allowed", path, routes,
				 FLAT_MAX_ROUTES);
	result->ips = flat_arena_alloc(arena, 2 * sizeof *result->ips);
	result->routes = flat_arena_alloc(arena, routes * sizeof *result->routes);
	if (!result->ips || !result->routes)
		return flat_no_memory(err);
	for (size_t i = 0; i < FLAT_LEN(both); i++) {
		const struct flat_route *from = both[i]->routes.items;
		if (!both[i]->given)
			continue;
		result->ips[result->ip_count] = both[i]->ip;
		result->ips[result->ip_count++].interface = -1;
		for (size_t k = 0; k < both[i]->routes.count; k++)
			result->routes[result->route_count++] = from[k];
	}
	result->dns = old.dns;
	return 0;
}

int flat_result_parse(const struct flat_json *json, enum flat_version version, const char *path,
		      struct flat_arena *arena, struct flat_result *ret_result,
		      struct flat_err *err)
{
	const char *own = flat_json_text(flat_json_get(json, "cniVersion"));
	struct flat_result result = { 0 };
	char quoted[FLAT_QUOTE];
	if (!flat_json_is_object(json))
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: it is not an object", path);
	if (own && own[0] && !flat_version_parse(own, &version))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s.cniVersion: %s is not a version of CNI that is known here",
				 path, flat_quote(own, quoted, sizeof quoted));
	int r = version <= FLAT_VERSION_0_2_0 ? parse_old(json, path, arena, &result, err)
					      : parse_lists(json, path, arena, &result, err);
	if (r < 0)
		return r;
	*ret_result = result;
	return 0;
}
