// SPDX-License-Identifier: Apache-2.0
/*
 * The bridge, and the node's addresses on its gateway link. Concurrent ADDs agree: who loses a race
 * finds what the winner made.
 */
#include "plan-internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_BRIDGE_ADDRESSES = 64 };

struct addresses {
	struct flat_prefix items[MAX_BRIDGE_ADDRESSES];
	size_t count;
};

static int collect_address(void *arg, const struct flat_addr *addr)
{
	struct addresses *all = arg;
	const uint8_t *b = addr->address.ip.bytes;
	if (addr->address.ip.family == AF_INET6 && b[0] == 0xfe && (b[1] & 0xc0) == 0x80)
		return 0; /* link-local: the kernel's own */
	if (all->count < MAX_BRIDGE_ADDRESSES)
		all->items[all->count++] = addr->address;
	return 0;
}

static int count_link(void *arg, const struct flat_link *link)
{
	*(int *)arg += !flat_is_gateway_port(link);
	return 0;
}

int flat_bridge_count_ports(struct flat_net *net, int bridge_index, struct flat_err *err)
{
	int count = 0;
	int r = flat_link_each(net, NULL, bridge_index, count_link, &count, err);
	return r < 0 ? r : count;
}

static bool is_wanted(const struct flat_attachment *a, const struct flat_prefix *address)
{
	for (size_t i = 0; i < a->bridge.gateway_count; i++)
		if (flat_prefix_equal(&a->bridge.gateways[i], address))
			return true;
	for (size_t i = 0; i < a->bridge.gateway_count; i++)
		if (flat_ip_equal(&a->bridge.gateways[i].ip, &address->ip))
			return false; /* with another length */
	for (size_t i = 0; i < a->bridge.sibling_count; i++)
		if (flat_ip_equal(&a->bridge.siblings[i], &address->ip))
			return true;
	return false;
}

/* As the reference: any other IPv4 address is in the way, of IPv6 only one that overlaps. */
static bool is_in_the_way(const struct flat_attachment *a, const struct flat_prefix *address)
{
	if (is_wanted(a, address))
		return false;
	for (size_t i = 0; i < a->bridge.gateway_count; i++) {
		const struct flat_prefix *gateway = &a->bridge.gateways[i];
		if (gateway->ip.family == address->ip.family &&
		    (address->ip.family == AF_INET || flat_prefix_overlaps(gateway, address)))
			return true;
	}
	return false;
}

int flat_bridge_ensure_addresses(const struct flat_attachment *a, struct flat_net *net,
				 struct flat_applied *applied, struct flat_err *err)
{
	const char *kind = a->gateway.port[0] ? "gateway" : "bridge";
	const int link = applied->gateway_index;
	struct addresses have = { .count = 0 };
	char text[FLAT_PREFIX_TEXT], other[FLAT_PREFIX_TEXT];
	bool changed = false;
	int r = flat_addr_each(net, link, 0, collect_address, &have, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < have.count; i++) {
		if (!is_in_the_way(a, &have.items[i]))
			continue;
		int ports = a->bridge.force_address
				    ? 0
				    : flat_bridge_count_ports(net, applied->bridge_index, err);
		if (ports < 0)
			return ports;
		if (ports > 0) { /* an address that no pod uses any more is simply replaced */
			flat_fail(
				err, FLAT_CODE_IN_USE, 0,
				"%s '%s' has the address %s, not %s, and %d attached links use it",
				kind, a->gateway.name, flat_prefix_text(&have.items[i], other),
				flat_prefix_text(&a->bridge.gateways[0], text), ports);
			return flat_detail(
				err,
				"give this network another \"bridge\", or set \"forceAddress\": true to replace the address, "
				"or remove what is attached (`ip link show master %s`)",
				a->bridge.name);
		}
		flat_addr_del(net, link, &have.items[i], FLAT_GONE_OK);
		changed = true;
	}
	for (size_t i = 0; i < a->bridge.gateway_count; i++) {
		bool present = false;
		for (size_t k = 0; k < have.count; k++)
			present = present ||
				  flat_prefix_equal(&have.items[k], &a->bridge.gateways[i]);
		if (present)
			continue;
		flat_addr_add(net, link, &a->bridge.gateways[i], FLAT_ADDR_PREFIX_ROUTE,
			      FLAT_EXISTS_OK);
		applied->gateways[applied->gateway_count++] = a->bridge.gateways[i];
		changed = true;
	}
	r = changed ? flat_net_commit(net, err) : 0;
	return r < 0 ? flat_wrap(err, "%s '%s'", kind, a->gateway.name) : r;
}

int flat_link_set_sysctl(const char *family, const char *link, const char *key, const char *value,
			 struct flat_err *err)
{
	char path[96];
	snprintf(path, sizeof path, "net/%s/conf/%s/%s", family, link, key);
	int r = flat_sysctl_set(path, value, err);
	return r == -ENOENT && (!err || !err->code) ? 0 : r;
}

int flat_link_tune(const struct flat_attachment *a, const char *link, struct flat_err *err)
{
	int r = flat_link_set_sysctl("ipv6", link, "accept_ra", "0", err);
	if (r >= 0 && a->forward6)
		r = flat_link_set_sysctl("ipv6", link, "disable_ipv6", "0", err);
	if (r >= 0 && a->forward6)
		r = flat_link_set_sysctl("ipv6", link, "accept_dad", "0", err);
	return r;
}

static int fail_vlan(const struct flat_attachment *a, const char *cure, struct flat_err *err)
{
	if (a->vlan)
		flat_fail(err, FLAT_CODE_UNSUPPORTED, 0,
			  "vlan: %u is not supported: bridge '%s' has no VLAN filtering", a->vlan,
			  a->bridge.name);
	else
		flat_fail(err, FLAT_CODE_UNSUPPORTED, 0,
			  "vlanTrunk: %u-%u is not supported: bridge '%s' has no VLAN filtering",
			  a->vlan_trunk[0].min, a->vlan_trunk[0].max, a->bridge.name);
	return flat_detail(err, "%s", cure);
}

int flat_bridge_ensure(struct flat_attachment *a, struct flat_net *net,
		       struct flat_applied *applied, struct flat_link *ret_bridge,
		       struct flat_err *err)
{
	const bool vlans = flat_plan_has_vlans(a);
	struct flat_link link;
	int r = 0, found = 0;

	/* whoever loses the race for creating it finds it the next time round */
	for (int i = 0; i < 8 && found == 0; i++) {
		struct flat_err try = { 0 };
		found = flat_link_by_name(net, a->bridge.name, &link, err);
		if (found != 0)
			break;
		flat_link_add_bridge(net, a->bridge.name, &a->bridge.mac, a->mtu, vlans,
				     FLAT_STRICT);
		applied->bridge_made = true;
		r = flat_net_commit(net, &try);
		if (r == -EEXIST) {
			applied->bridge_made = false;
		} else if (r == -EOPNOTSUPP && vlans) {
			return fail_vlan(
				a, "this kernel is built without CONFIG_BRIDGE_VLAN_FILTERING",
				err);
		} else if (r < 0) {
			*err = try;
			return r;
		}
	}
	if (found < 0)
		return found;
	if (found == 0)
		return flat_fail(err, FLAT_CODE_TRY_LATER, 0,
				 "bridge '%s' comes and goes: does another program remove it?",
				 a->bridge.name);
	if (strcmp(link.kind, "bridge") != 0)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"bridge: a link '%s' exists and is not a bridge (%s): choose another name",
			a->bridge.name, link.kind[0] ? link.kind : "a physical device");
	applied->bridge_index = link.index;
	if (link.has_mac)
		a->bridge.mac = link.mac;
	if (vlans && !link.vlan_filtering)
		return fail_vlan(
			a,
			"switch it on with `ip link set NAME type bridge vlan_filtering 1`, or name another bridge",
			err);
	if (applied->bridge_made) {
		r = flat_link_tune(a, a->bridge.name, err);
		if (r < 0)
			return r;
	}
	if (!link.up || (a->bridge.promisc && !link.promisc)) {
		struct flat_link_change change = FLAT_LINK_CHANGE;
		change.up = 1;
		change.promisc = a->bridge.promisc ? 1 : -1;
		flat_link_change(net, link.index, &change, FLAT_STRICT);
		r = flat_net_commit(net, err);
		if (r < 0)
			return r;
	}
	*ret_bridge = link;
	return 0;
}
