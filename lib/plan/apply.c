// SPDX-License-Identifier: Apache-2.0
/*
 * ADD: from the attachment to the kernel, step by step, and the way back.
 *
 * Order: bridge, veth pair, its port, the pod's inside, and last what is the node's: sysctls,
 * routes to other nodes, rules. Every step writes down what it made. A failed ADD takes the pod's
 * link back always; what is node-wide it takes back only when it is alone: ADDs on one bridge hold
 * LOCK_SH on a file of that bridge, and who can turn his into LOCK_EX and sees no port on the
 * bridge knows that nobody uses, or is about to use, what he made. The kernel drops the lock of a
 * process that dies.
 */
#include "plan-internal.h"

#include <flatnet/state.h>

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>

enum {
	LOCK_TIMEOUT_MS = 10000,
	FORWARDING_TIMEOUT_MS = 2500, /* the reference gives up after 2550 */
	DAD_TIMEOUT_MS = 5000,
	MAX_BRIDGE_ADDRESSES = 64,
};

static int take_lock(const char *bridge, int *ret_fd, struct flat_err *err)
{
	char name[FLAT_IFNAME_LEN + 16];
	flat_auto_fd dir = -1;
	snprintf(name, sizeof name, "bridge-%s.lock", bridge);
	int r = flat_state_open_dir(FLAT_RUN_DIR, true, &dir, err);
	return r < 0 ? r : flat_state_lock(dir, name, LOCK_SH, LOCK_TIMEOUT_MS, ret_fd, err);
}

/* ---- the bridge --------------------------------------------------------------------------------
 */

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

static int ensure_gateways(const struct flat_attachment *a, struct flat_net *net,
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

static int set_link_sysctl(const char *family, const char *link, const char *key, const char *value,
			   struct flat_err *err)
{
	char path[96];
	snprintf(path, sizeof path, "net/%s/conf/%s/%s", family, link, key);
	int r = flat_sysctl_set(path, value, err);
	return r == -ENOENT && (!err || !err->code) ? 0 : r;
}

int flat_link_tune(const struct flat_attachment *a, const char *link, struct flat_err *err)
{
	int r = set_link_sysctl("ipv6", link, "accept_ra", "0", err);
	if (r >= 0 && a->forward6)
		r = set_link_sysctl("ipv6", link, "disable_ipv6", "0", err);
	if (r >= 0 && a->forward6)
		r = set_link_sysctl("ipv6", link, "accept_dad", "0", err);
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

static int ensure_bridge(struct flat_attachment *a, struct flat_net *net,
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

/* ---- the veth pair -----------------------------------------------------------------------------
 */

/* Who was there first? */
static int fail_exists(const struct flat_attachment *a, struct flat_net *net, struct flat_err *err)
{
	struct flat_link link;
	struct flat_err e = { 0 };
	if (flat_link_by_name(net, a->host_ifname, &link, NULL) > 0) {
		flat_fail(&e, FLAT_CODE_IN_USE, EEXIST,
			  "container '%.64s' is attached to network '%.64s' as '%s' already",
			  a->container_id, a->network, a->ifname);
		flat_detail(&e, "its host link is '%s'; run DEL for it before another ADD",
			    a->host_ifname);
	} else {
		flat_fail(&e, FLAT_CODE_IN_USE, EEXIST, "interface '%s' in '%.128s'", a->ifname,
			  a->netns);
		flat_detail(
			&e,
			"every attachment of a container needs its own interface name (CNI_IFNAME)");
	}
	*err = e;
	return -EEXIST;
}

static int make_veth(struct flat_attachment *a, struct flat_net *net, int netns_fd,
		     struct flat_applied *applied, struct flat_err *err)
{
	const struct flat_veth veth = {
		.host_name = a->host_ifname,
		.master = applied->bridge_index,
		.host_mac = a->host_mac,
		.pod_name = a->ifname,
		.pod_mac = a->pod_mac,
		.netns_fd = netns_fd,
		.mtu = a->mtu,
	};
	struct flat_link link;
	flat_link_add_veth(net, &veth);
	applied->veth_made = true;
	int r = flat_net_commit(net, err);
	if (r == -EEXIST) {
		applied->veth_made = false;
		return fail_exists(a, net, err);
	}
	if (r == -EXFULL)
		return flat_detail(
			err,
			"a Linux bridge has at most 1023 ports: use a second network with a bridge of its own");
	if (r < 0)
		return r;
	r = flat_link_by_name(net, a->host_ifname, &link, err);
	if (r <= 0)
		return r < 0 ? r
			     : flat_fail(err, FLAT_CODE_NETWORK, ENODEV, "veth '%s' is gone again",
					 a->host_ifname);
	applied->veth_index = link.index;
	a->mtu = link.mtu;

	/* what the kernel does not take at creation */
	struct flat_link_change port = FLAT_LINK_CHANGE, bare = FLAT_LINK_CHANGE,
				up = FLAT_LINK_CHANGE;
	port.hairpin = a->hairpin;
	port.isolated = a->isolated ? 1 : -1;
	flat_link_change(net, link.index, &port, FLAT_STRICT);
	/* A port of a bridge needs no address. One on each port makes the kernel walk a table as
	 * long as there are pods whenever a link comes or goes. (MTUs below 1280 have no IPv6.) */
	bare.no_ipv6ll = true;
	flat_link_change(net, link.index, &bare, FLAT_UNSUPPORTED_OK);
	up.up = 1;
	flat_link_change(net, link.index, &up, FLAT_STRICT);
	if (flat_plan_has_vlans(a)) { /* the pod's end is still down */
		struct flat_vlans vlans;
		flat_plan_vlans(a, &vlans);
		flat_vlan_set(net, link.index, &vlans, a->preserve_default_vlan);
	}
	/* a reused address with another MAC must not meet the old entry */
	for (size_t i = 0; i < a->ip_count && a->bridge.gateway_count; i++)
		flat_neigh_replace(net, applied->gateway_index, &a->ips[i].address.ip, &a->pod_mac);
	return flat_net_commit(net, err);
}

/* ---- inside the pod ----------------------------------------------------------------------------
 */

static bool has_ipv6(const struct flat_attachment *a)
{
	for (size_t i = 0; i < a->ip_count; i++)
		if (a->ips[i].address.ip.family == AF_INET6)
			return true;
	return false;
}

static int tune_pod(const struct flat_attachment *a, struct flat_err *err)
{
	int r = 0;
	if (!has_ipv6(a))
		return 0;
	const struct {
		const char *link, *key, *value;
	} settings[] = {
		{ "lo", "disable_ipv6", "0" },
		{ a->ifname, "disable_ipv6", "0" },
		{ a->ifname, "keep_addr_on_down", "1" },
		{ a->ifname, "accept_dad", a->enable_dad ? "1" : "0" },
		/* a redirect would lead around the node's IP layer */
		{ a->ifname, "accept_redirects", a->bridge.routed ? "0" : NULL },
		{ a->ifname, "enhanced_dad", a->enable_dad ? "1" : NULL },
	};
	for (size_t i = 0; i < FLAT_LEN(settings) && r >= 0; i++)
		if (settings[i].value)
			r = set_link_sysctl("ipv6", settings[i].link, settings[i].key,
					    settings[i].value, err);
	return r;
}

static int see_tentative(void *arg, const struct flat_addr *addr)
{
	uint32_t *flags = arg;
	*flags |= addr->flags;
	return 0;
}

/* With duplicate detection an address cannot be used for a second or two, or never. */
static int await_addresses(struct flat_net *pod, int index, struct flat_err *err)
{
	const int64_t deadline = flat_now_ms() + DAD_TIMEOUT_MS;
	for (;;) {
		uint32_t flags = 0;
		int r = flat_addr_each(pod, index, AF_INET6, see_tentative, &flags, err);
		if (r < 0)
			return r;
		if (flags & IFA_F_DADFAILED)
			return flat_fail(
				err, FLAT_CODE_IN_USE, 0,
				"duplicate address detection: another host has an IPv6 address of this pod");
		if (!(flags & IFA_F_TENTATIVE))
			return 0;
		if (flat_now_ms() >= deadline)
			return flat_fail(err, FLAT_CODE_TRY_LATER, 0,
					 "duplicate address detection does not end within %d ms",
					 DAD_TIMEOUT_MS);
		flat_sleep_us(20000);
	}
}

/* A route that another interface of this pod has made stays: the first one wins, as with the
 * reference. */
static void queue_pod_routes(const struct flat_attachment *a, struct flat_net *pod, int index,
			     bool onlink)
{
	for (size_t i = 0; i < a->pod_route_count; i++) {
		struct flat_net_route route = a->pod_routes[i];
		route.oif = index;
		route.onlink = route.onlink || (onlink && route.route.gw.family);
		flat_route_add(pod, &route, false, FLAT_EXISTS_OK);
	}
}

static int fill_pod_inside(const struct flat_attachment *a, struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	struct flat_link link;
	int r = flat_net_open(&pod, err);
	if (r < 0)
		return r;
	r = flat_link_by_name(pod, a->ifname, &link, err);
	if (r <= 0)
		return r < 0 ? r
			     : flat_fail(err, FLAT_CODE_NETWORK, ENODEV,
					 "interface '%s' is gone again", a->ifname);
	if (a->ip_count) {
		r = tune_pod(a, err);
		if (r < 0)
			return r;
	}
	const unsigned options = (a->bridge.routed ? 0 : FLAT_ADDR_PREFIX_ROUTE) |
				 (a->enable_dad ? FLAT_ADDR_DAD : 0);
	struct flat_link_change bare = FLAT_LINK_CHANGE, up = FLAT_LINK_CHANGE;
	/* What an IPv6 link says when it comes up is flooded to every pod of the bridge. */
	bare.no_ipv6ll = a->ip_count && !has_ipv6(a);
	if (bare.no_ipv6ll)
		flat_link_change(pod, link.index, &bare, FLAT_UNSUPPORTED_OK);
	up.up = 1;
	up.arp_notify = a->ip_count ? 1 : -1;
	flat_link_change(pod, link.index, &up, FLAT_STRICT);
	for (size_t i = 0; i < a->ip_count; i++)
		flat_addr_add(pod, link.index, &a->ips[i].address, options, FLAT_STRICT);
	struct flat_err try = { 0 };
	queue_pod_routes(a, pod, link.index, false);
	r = flat_net_commit(pod, &try);
	if (r == -ENETUNREACH && a->bridge.routed) {
		/* The gateway's own route is another interface's, of this network, too: say that it
		 * is on the wire here as well. */
		try = (struct flat_err){ 0 };
		queue_pod_routes(a, pod, link.index, true);
		r = flat_net_commit(pod, &try);
	}
	if (r < 0)
		*err = try;
	return r < 0 || !a->enable_dad ? r : await_addresses(pod, link.index, err);
}

static int fill_pod(const struct flat_attachment *a, int netns_fd, struct flat_err *err)
{
	int back = -1;
	if (!a->pod_up)
		return 0;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = fill_pod_inside(a, err);
	flat_netns_leave(&back);
	return r < 0 ? flat_wrap(err, "in '%.128s'", a->netns) : 0;
}

/* The port forwards only after the kernel's link watch has seen the pod's end up: packets sent
 * before are lost. */
static int await_forwarding(const struct flat_attachment *a, struct flat_net *net, int veth,
			    struct flat_err *err)
{
	const int64_t deadline = flat_now_ms() + FORWARDING_TIMEOUT_MS;
	struct flat_link link;
	for (unsigned pause = 100; a->pod_up; pause = pause < 20000 ? 2 * pause : pause) {
		int r = flat_link_by_index(net, veth, &link, err);
		if (r <= 0)
			return r < 0 ? r
				     : flat_fail(err, FLAT_CODE_NETWORK, ENODEV,
						 "veth '%s' is gone again", a->host_ifname);
		if (link.port.present && link.port.state == BR_STATE_FORWARDING)
			return 0;
		if (flat_now_ms() >= deadline) {
			flat_fail(
				err, FLAT_CODE_TRY_LATER, 0,
				"port '%s' of bridge '%s' does not forward after %d ms (state %d)",
				a->host_ifname, a->bridge.name, FORWARDING_TIMEOUT_MS,
				link.port.state);
			return flat_detail(
				err,
				"is spanning tree on? `ip link set %s type bridge stp_state 0`",
				a->bridge.name);
		}
		flat_sleep_us(pause);
	}
	return 0;
}

/* ---- the node ----------------------------------------------------------------------------------
 */

static int ensure_sysctl(const char *path, const char *value, struct flat_err *err)
{
	int r = flat_sysctl_set(path, value, err);
	if (r == -ENOENT && (!err || !err->code))
		return flat_fail(err, FLAT_CODE_NETWORK, ENOENT, "sysctl '%s'", path);
	return r < 0 ? r : 0;
}

static int ensure_forwarding(const struct flat_attachment *a, struct flat_err *err)
{
	int r = 0;
	/* forwarding first: switching it on resets other settings (inet_forward_change() in
	 * net/ipv4/devinet.c) */
	if (a->forward4)
		r = ensure_sysctl("net/ipv4/ip_forward", "1", err);
	if (r >= 0 && a->forward6)
		r = ensure_sysctl("net/ipv6/conf/all/forwarding", "1", err);
	/* out by the way it came is what routed pods do: no advice to go directly. The kernel takes
	 * "all" or the link's. */
	if (r >= 0 && a->forward4 && a->bridge.routed)
		r = ensure_sysctl("net/ipv4/conf/all/send_redirects", "0", err);
	if (r >= 0 && a->forward4 && a->bridge.routed)
		r = set_link_sysctl("ipv4", a->gateway.name, "send_redirects", "0", err);
	return r;
}

static int ensure_rules(const struct flat_attachment *a, struct flat_applied *applied,
			const struct flat_log *log, struct flat_err *err)
{
	struct flat_err e = { 0 };
	if (!a->nft.name)
		return 0;
	int r = flat_nft_ensure(&a->nft, &e);
	applied->nft_made = r != 0; /* after a failure nobody knows */
	if (r < 0 && !a->nft.masquerade &&
	    (e.sys == EOPNOTSUPP || e.sys == EPROTONOSUPPORT || e.sys == EAFNOSUPPORT)) {
		flat_warn(log, "%s: forwarding is not accepted explicitly", e.msg);
		return 0;
	}
	if (r < 0) {
		*err = e;
		return r;
	}
	return 0;
}

/* The alias comes last: a link that has one is whole, and GC may judge it. */
static int sign(const struct flat_attachment *a, struct flat_net *net, int veth,
		struct flat_err *err)
{
	struct flat_link_change change = FLAT_LINK_CHANGE;
	change.alias = a->alias;
	flat_link_change(net, veth, &change, FLAT_STRICT);
	return flat_net_commit(net, err);
}

int flat_attachment_apply(struct flat_attachment *a, struct flat_net *net, int netns_fd,
			  const struct flat_log *log, struct flat_applied *applied,
			  struct flat_err *err)
{
	struct flat_link bridge;
	int r;

	struct flat_err unlocked = { 0 };
	if (take_lock(a->bridge.name, &applied->lock_fd, &unlocked) < 0)
		flat_warn(log, "%s: a failed ADD could not take the bridge back", unlocked.msg);
	for (int i = 0;; i++) {
		struct flat_err try = { 0 };
		r = ensure_bridge(a, net, applied, &bridge, err);
		if (r < 0)
			return r;
		r = flat_gateway_ensure(a, net, &bridge, applied, &try);
		if (r >= 0)
			r = ensure_gateways(a, net, applied, &try);
		if (r >= 0)
			r = make_veth(a, net, netns_fd, applied, &try);
		if (r >= 0)
			break;
		/* somebody deleted the bridge in between: once more */
		if (i == 3 || applied->veth_index ||
		    flat_link_by_index(net, bridge.index, &bridge, NULL) != 0) {
			*err = try;
			return r;
		}
		applied->bridge_made = false;
		applied->gateway_count = 0;
	}
	r = fill_pod(a, netns_fd, err);
	if (r >= 0)
		r = ensure_forwarding(a, err);
	if (r >= 0)
		r = flat_node_routes_ensure(a, net, applied, err);
	if (r >= 0)
		r = ensure_rules(a, applied, log, err);
	if (r >= 0)
		r = await_forwarding(a, net, applied->veth_index, err);
	return r < 0 ? r : sign(a, net, applied->veth_index, err);
}

/* ---- the way back ------------------------------------------------------------------------------
 */

static void report(const struct flat_log *log, int r, const struct flat_err *e)
{
	if (r < 0)
		flat_warn(log, "undo: %s", e->msg);
}

static bool is_alone(struct flat_net *net, const struct flat_applied *applied)
{
	return applied->lock_fd >= 0 && flock(applied->lock_fd, LOCK_EX | LOCK_NB) == 0 &&
	       (!applied->bridge_index ||
		flat_bridge_count_ports(net, applied->bridge_index, NULL) == 0);
}

static void undo_node(const struct flat_attachment *a, struct flat_net *net,
		      struct flat_applied *applied, const struct flat_log *log)
{
	struct flat_err e = { 0 };
	struct flat_link bridge;
	if (applied->bridge_made && !applied->bridge_index &&
	    flat_link_by_name(net, a->bridge.name, &bridge, NULL) > 0)
		applied->bridge_index = bridge.index;
	if (!is_alone(net, applied))
		return;
	if (applied->nft_made)
		report(log, flat_nft_remove(a->nft.name, &e), &e);
	for (size_t i = 0; i < applied->route_count; i++) {
		const struct flat_net_route route = {
			.route = { .dst = applied->routes[i].dst,
				   .gw = applied->routes[i].via,
				   .scope = -1 },
			.protocol = FLAT_RTPROT,
		};
		flat_route_del(net, &route, FLAT_GONE_OK);
	}
	flat_gateway_undo(a, net, applied);
	if (applied->bridge_made && applied->bridge_index)
		flat_link_del(net, applied->bridge_index, FLAT_GONE_OK);
	for (size_t i = 0; !applied->bridge_made && i < applied->gateway_count; i++)
		flat_addr_del(net, applied->gateway_index, &applied->gateways[i], FLAT_GONE_OK);
	e = (struct flat_err){ 0 };
	report(log, flat_net_commit(net, &e), &e);
}

void flat_attachment_undo(const struct flat_attachment *a, struct flat_net *net,
			  struct flat_applied *applied, const struct flat_log *log)
{
	flat_auto_net *fresh = NULL;
	struct flat_err e = { 0 };
	/* On the old conversation answers may be pending; without memory for another it must do. */
	if (flat_net_open(&fresh, &e) >= 0)
		net = fresh;
	e = (struct flat_err){ 0 };
	if (applied->veth_made) /* by name: the answer that tells its index may be what failed */
		report(log, flat_attachment_remove(net, a->network, a->container_id, a->ifname, &e),
		       &e);
	if (applied->bridge_made || applied->gateway_made || applied->nft_made ||
	    applied->gateway_count || applied->route_count)
		undo_node(a, net, applied, log);
	flat_applied_close(applied);
}

void flat_applied_close(struct flat_applied *applied)
{
	flat_close_fd(&applied->lock_fd);
	free(applied->routes);
	*applied = (struct flat_applied)FLAT_APPLIED;
}
