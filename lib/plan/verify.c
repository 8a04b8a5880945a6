// SPDX-License-Identifier: Apache-2.0
/*
 * CHECK: the attachment against the kernel. Tells the first difference and what would mend it;
 * changes nothing. What other plugins of a chain may have added (more addresses, more routes) is
 * not a difference.
 */
#include "plan-internal.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define DIFFERENT(err, ...) flat_fail(err, FLAT_CODE_MISMATCH, 0, __VA_ARGS__)

struct wanted_addresses {
	const struct flat_prefix *wanted;
	size_t count;
	bool *found;
};

static int see_address(void *arg, const struct flat_addr *addr)
{
	struct wanted_addresses *w = arg;
	for (size_t i = 0; i < w->count; i++)
		if (flat_prefix_equal(&w->wanted[i], &addr->address))
			w->found[i] = true;
	return 0;
}

static int verify_addresses(struct flat_net *net, const struct flat_link *link,
			    const struct flat_prefix *wanted, size_t count, struct flat_err *err)
{
	bool found[FLAT_MAX_LEASE] = { false };
	struct wanted_addresses w = { wanted, count, found };
	int r = flat_addr_each(net, link->index, 0, see_address, &w, err);
	for (size_t i = 0; r >= 0 && i < count; i++)
		if (!found[i])
			r = DIFFERENT(err, "'%s' has lost its address %s", link->name,
				      flat_prefix_text(&wanted[i], (char[FLAT_PREFIX_TEXT]){ 0 }));
	return r;
}

static int verify_bridge(const struct flat_attachment *a, struct flat_net *net,
			 struct flat_link *ret_bridge, struct flat_err *err)
{
	int r = flat_link_by_name(net, a->bridge.name, ret_bridge, err);
	if (r < 0)
		return r;
	if (r == 0)
		return DIFFERENT(err, "bridge '%s' is missing", a->bridge.name);
	if (strcmp(ret_bridge->kind, "bridge") != 0)
		return DIFFERENT(err, "link '%s' is not a bridge", a->bridge.name);
	if (!ret_bridge->up)
		return DIFFERENT(err, "bridge '%s' is down: `ip link set %s up`", a->bridge.name,
				 a->bridge.name);
	return 0;
}

/* More VLANs than wanted are a way into somebody else's network, unless they were to stay. */
static int verify_vlans(const struct flat_attachment *a, struct flat_net *net,
			const struct flat_link *port, const struct flat_vlans *want, bool keep,
			struct flat_err *err)
{
	struct flat_vlans have;
	int r = flat_vlan_get(net, port->index, &have, err);
	if (r < 0)
		return r;
	if (have.native != want->native)
		return DIFFERENT(
			err,
			"port '%s' of bridge '%s' is natively in VLAN %u, not %u: `bridge vlan add vid %u dev %s pvid untagged`",
			port->name, a->bridge.name, have.native, want->native, want->native,
			port->name);
	for (unsigned id = 1; id <= FLAT_VLAN_MAX; id++) {
		const bool is_in = flat_vlan_has(have.member, id);
		const bool to_be = flat_vlan_has(want->member, id);
		if (to_be && !is_in)
			return DIFFERENT(
				err,
				"port '%s' of bridge '%s' is not in VLAN %u: `bridge vlan add vid %u dev %s`",
				port->name, a->bridge.name, id, id, port->name);
		if (is_in && !to_be && !keep)
			return DIFFERENT(
				err,
				"port '%s' of bridge '%s' is in VLAN %u, too: `bridge vlan del vid %u dev %s`",
				port->name, a->bridge.name, id, id, port->name);
		if (to_be && flat_vlan_has(have.untagged, id) != flat_vlan_has(want->untagged, id))
			return DIFFERENT(err, "port '%s' of bridge '%s' sends VLAN %u %s a tag",
					 port->name, a->bridge.name, id,
					 flat_vlan_has(want->untagged, id) ? "with" : "without");
	}
	return 0;
}

static int verify_gateway(const struct flat_attachment *a, struct flat_net *net,
			  const struct flat_link *bridge, struct flat_err *err)
{
	struct flat_link gateway = *bridge, port;
	struct flat_vlans want;
	if (a->gateway.port[0]) {
		int r = flat_gateway_find(a, net, &gateway, &port, err);
		if (r == 0)
			r = DIFFERENT(err, "'%s', the gateway of VLAN %u, is missing",
				      a->gateway.name, a->vlan);
		else if (r > 0 && port.master != bridge->index)
			r = DIFFERENT(
				err, "'%s', the gateway of VLAN %u, is not attached to bridge '%s'",
				a->gateway.name, a->vlan, a->bridge.name);
		else if (r > 0 && (!gateway.up || !port.up))
			r = DIFFERENT(err, "'%s' is down: `ip link set %s up`",
				      gateway.up ? port.name : gateway.name,
				      gateway.up ? port.name : gateway.name);
		flat_gateway_vlans(a, &want);
		if (r >= 0)
			r = verify_vlans(a, net, &port, &want, false, err);
		if (r < 0)
			return r;
	}
	return verify_addresses(net, &gateway, a->bridge.gateways, a->bridge.gateway_count, err);
}

static int verify_port(const struct flat_attachment *a, struct flat_net *net,
		       const struct flat_link *bridge, struct flat_err *err)
{
	struct flat_link link;
	int r = flat_link_by_name(net, a->host_ifname, &link, err);
	if (r < 0)
		return r;
	if (r == 0 || strcmp(link.kind, "veth") != 0)
		return DIFFERENT(err, "host veth '%s' is missing", a->host_ifname);
	if (link.master != bridge->index)
		return DIFFERENT(
			err,
			"host veth '%s' is not a port of bridge '%s': `ip link set %s master %s`",
			a->host_ifname, a->bridge.name, a->host_ifname, a->bridge.name);
	if (!link.up)
		return DIFFERENT(err, "host veth '%s' is down: `ip link set %s up`", a->host_ifname,
				 a->host_ifname);
	if (a->mtu && link.mtu != a->mtu)
		return DIFFERENT(err, "host veth '%s' has MTU %u, not %u", a->host_ifname, link.mtu,
				 a->mtu);
	if (link.port.hairpin != a->hairpin)
		return DIFFERENT(err,
				 "port '%s' has hairpin %s: `bridge link set dev %s hairpin %s`",
				 a->host_ifname, link.port.hairpin ? "on" : "off", a->host_ifname,
				 a->hairpin ? "on" : "off");
	if (link.port.isolated != a->isolated)
		return DIFFERENT(err,
				 "port '%s' has isolated %s: `bridge link set dev %s isolated %s`",
				 a->host_ifname, link.port.isolated ? "on" : "off", a->host_ifname,
				 a->isolated ? "on" : "off");
	if (a->guard.spoof && !link.port.bridges_reserved)
		return DIFFERENT(
			err,
			"port '%s' lets frames for 01:80:c2:00:00:0X pass unchecked: `ip link set %s type bridge_slave group_fwd_mask 0xfffd`",
			a->host_ifname, a->host_ifname);
	if (link.port.state == BR_STATE_DISABLED && a->pod_up)
		return DIFFERENT(
			err, "port '%s' of bridge '%s' does not forward: is the pod's end down?",
			a->host_ifname, a->bridge.name);
	if (flat_plan_has_vlans(a)) {
		struct flat_vlans want;
		flat_plan_vlans(a, &want);
		return verify_vlans(a, net, &link, &want, a->preserve_default_vlan, err);
	}
	return 0;
}

/* ---- inside the pod ----------------------------------------------------------------------------
 */

struct wanted_routes {
	const struct flat_attachment *a;
	bool found[FLAT_MAX_POD_ROUTES];
	bool other[FLAT_MAX_POD_ROUTES]; /* there is one to the same place by the same way */
};

/* What was not asked for is the kernel's choice. IPv6 knows no scopes. */
static bool has_attributes(const struct flat_route *have, const struct flat_route *want)
{
	return (!want->mtu || have->mtu == want->mtu) &&
	       (!want->advmss || have->advmss == want->advmss) &&
	       (!want->priority || have->priority == want->priority) &&
	       (want->scope < 0 || want->dst.ip.family == AF_INET6 || have->scope == want->scope);
}

static int see_route(void *arg, const struct flat_net_route *seen)
{
	struct wanted_routes *w = arg;
	for (size_t i = 0; i < w->a->pod_route_count; i++) {
		const struct flat_route *want = &w->a->pod_routes[i].route;
		const struct flat_prefix dst = { flat_prefix_first(&want->dst), want->dst.len };
		if (!flat_prefix_equal(&dst, &seen->route.dst) ||
		    (want->table && want->table != seen->route.table) ||
		    (want->gw.family ? !flat_ip_equal(&want->gw, &seen->route.gw)
				     : seen->route.gw.family != 0))
			continue;
		w->other[i] = true;
		w->found[i] = w->found[i] || has_attributes(&seen->route, want);
	}
	return 0;
}

/* " mtu 1400 metric 5", as ip-route(8) would write it. */
static const char *attributes_text(const struct flat_route *route, char *buf, size_t size)
{
	const struct {
		const char *name;
		uint32_t value;
	} attributes[] = { { "table", route->table },
			   { "metric", route->priority },
			   { "mtu", route->mtu },
			   { "advmss", route->advmss } };
	size_t n = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < FLAT_LEN(attributes) && n < size; i++)
		if (attributes[i].value)
			n += (size_t)snprintf(buf + n, size - n, " %s %u", attributes[i].name,
					      attributes[i].value);
	if (route->scope >= 0 && n < size)
		snprintf(buf + n, size - n, " scope %d", route->scope);
	return buf;
}

static int verify_pod_routes(const struct flat_attachment *a, struct flat_net *pod,
			     struct flat_err *err)
{
	struct wanted_routes w = { .a = a };
	char dst[FLAT_PREFIX_TEXT], gw[FLAT_IP_TEXT], attributes[128];
	int r = flat_route_each(pod, 0, 0, 0, 0, see_route, &w, err);
	for (size_t i = 0; r >= 0 && i < a->pod_route_count; i++) {
		const struct flat_route *want = &a->pod_routes[i].route;
		if (!w.found[i]) { /* in a table of its own; sbr moves all into one that it chose */
			r = flat_route_each(pod, want->dst.ip.family, 0, 0,
					    want->table ? want->table : FLAT_ANY_TABLE, see_route,
					    &w, err);
			if (r < 0)
				return r;
		}
		if (!w.found[i])
			r = DIFFERENT(err, "the route to %s%s%s%s %s",
				      flat_prefix_text(&want->dst, dst),
				      want->gw.family ? " via " : "",
				      want->gw.family ? flat_ip_text(&want->gw, gw) : "",
				      attributes_text(want, attributes, sizeof attributes),
				      w.other[i] ? "is another one" : "is missing");
	}
	return r;
}

static int verify_pod_inside(const struct flat_attachment *a, struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	struct flat_prefix addresses[FLAT_MAX_LEASE];
	struct flat_link link;
	char have[FLAT_MAC_TEXT], want[FLAT_MAC_TEXT];
	int r = flat_net_open(&pod, err);
	if (r < 0)
		return r;
	r = flat_link_by_name(pod, a->ifname, &link, err);
	if (r < 0)
		return r;
	if (r == 0)
		return DIFFERENT(err, "interface '%s' is missing", a->ifname);
	if (strcmp(link.kind, "veth") != 0)
		return DIFFERENT(err, "interface '%s' is not a veth", a->ifname);
	if (!link.up && a->pod_up)
		return DIFFERENT(err, "interface '%s' is down", a->ifname);
	if (memcmp(&link.mac, &a->pod_mac, sizeof link.mac) != 0)
		return DIFFERENT(err, "interface '%s' has MAC %s, not %s", a->ifname,
				 flat_mac_text(&link.mac, have), flat_mac_text(&a->pod_mac, want));
	/* tuning behind us makes it smaller and tells nobody; a larger one loses packets */
	const uint32_t mtu = flat_plan_pod_mtu(a);
	if (mtu && (a->tuning.mtu ? link.mtu != mtu : link.mtu > mtu))
		return DIFFERENT(err, "interface '%s' has MTU %u, %s %u", a->ifname, link.mtu,
				 a->tuning.mtu ? "not" : "more than", mtu);
	for (size_t i = 0; i < a->ip_count; i++)
		addresses[i] = a->ips[i].address;
	r = verify_addresses(pod, &link, addresses, a->ip_count, err);
	return r < 0 ? r : verify_pod_routes(a, pod, err);
}

static int verify_pod(const struct flat_attachment *a, int netns_fd, struct flat_err *err)
{
	int back = -1;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = verify_pod_inside(a, err);
	flat_netns_leave(&back);
	return r < 0 ? flat_wrap(err, "in '%.128s'", a->netns) : 0;
}

/* ---- the node ----------------------------------------------------------------------------------
 */

int flat_verify_sysctl(const char *path, const char *want, struct flat_err *err)
{
	char value[32];
	int r = flat_sysctl_get(path, value, sizeof value, err);
	if (r == -ENOENT)
		return DIFFERENT(err, "sysctl '%s' does not exist", path);
	if (r < 0)
		return r;
	return strcmp(value, want) ? DIFFERENT(err, "sysctl '%s' is %s, not %s", path, value, want)
				   : 0;
}

static int verify_node(const struct flat_attachment *a, struct flat_net *net, struct flat_err *err)
{
	const char *what = NULL;
	int r = 0;
	if (a->forward4)
		r = flat_verify_sysctl("net/ipv4/ip_forward", "1", err);
	if (r >= 0 && a->forward6)
		r = flat_verify_sysctl("net/ipv6/conf/all/forwarding", "1", err);
	if (r >= 0 && a->nodes.route_count)
		r = flat_node_state_verify(&a->nodes, net, err);
	if (r < 0 || !a->nft.name)
		return r;
	r = flat_nft_verify(&a->nft, &what, err);
	if (r == 0)
		return DIFFERENT(
			err,
			"node-wide rules in nf_tables: %s; the next ADD on this node restores them",
			what);
	return r < 0 ? r : 0;
}

int flat_attachment_verify(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
			   struct flat_err *err)
{
	struct flat_link bridge;
	int r = verify_bridge(a, net, &bridge, err);
	if (r >= 0)
		r = verify_gateway(a, net, &bridge, err);
	if (r >= 0)
		r = verify_port(a, net, &bridge, err);
	if (r >= 0)
		r = verify_pod(a, netns_fd, err);
	if (r >= 0)
		r = verify_node(a, net, err);
	if (r >= 0)
		r = flat_features_verify(a, net, netns_fd, err);
	return r;
}
