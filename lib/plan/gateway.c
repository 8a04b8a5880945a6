// SPDX-License-Identifier: Apache-2.0
/*
 * Where the node's addresses are: its gateway link. Without a VLAN that is the bridge. The bridge
 * itself is in no VLAN of a pod; so with one, it is BRIDGE.VLAN, as with the reference: one end of
 * a veth pair whose other end is a port of the bridge, native in that VLAN. All pods of the VLAN on
 * this node share it; whoever comes first makes it, and whoever finds it makes it whole: its maker
 * may not have come that far yet, or was killed, or the bridge was deleted under it.
 */
#include "plan-internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TRIES = 8 };

/* No host veth of a pod can have this name: "g" is no hexadecimal digit. */
static const char port_prefix[] = "vethg";

void flat_name_gateway(const char *bridge, uint16_t vlan, char ret_name[static FLAT_IFNAME_LEN],
		       char ret_port[static FLAT_IFNAME_LEN])
{
	const uint8_t id[2] = { (uint8_t)(vlan >> 8), (uint8_t)vlan };
	if (!vlan) {
		snprintf(ret_name, FLAT_IFNAME_LEN, "%s", bridge);
		ret_port[0] = 0;
		return;
	}
	uint64_t h = flat_hash(0, bridge, strlen(bridge));
	h = flat_hash(h, id, sizeof id);
	snprintf(ret_name, FLAT_IFNAME_LEN, "%s.%u", bridge, vlan);
	snprintf(ret_port, FLAT_IFNAME_LEN, "%s%010llx", port_prefix,
		 (unsigned long long)(h >> 24));
}

bool flat_is_gateway_port(const struct flat_link *link)
{
	return !strcmp(link->kind, "veth") &&
	       !strncmp(link->name, port_prefix, sizeof port_prefix - 1) &&
	       strlen(link->name) == FLAT_IFNAME_LEN - 1;
}

void flat_gateway_vlans(const struct flat_attachment *a, struct flat_vlans *ret_vlans)
{
	*ret_vlans = (struct flat_vlans){ 0 };
	flat_vlan_add_native(ret_vlans, a->vlan);
}

/* The pair by the end that has the addresses; the other one may have another name: the reference
 * gives it one by chance. 1: found, 0: there is none. */
int flat_gateway_find(const struct flat_attachment *a, struct flat_net *net,
		      struct flat_link *ret_gateway, struct flat_link *ret_port,
		      struct flat_err *err)
{
	int r = flat_link_by_name(net, a->gateway.name, ret_gateway, err);
	if (r <= 0)
		return r;
	r = flat_link_by_index(net, ret_gateway->peer_index, ret_port, err);
	if (r < 0)
		return r;
	if (r == 0 || strcmp(ret_gateway->kind, "veth") != 0 ||
	    ret_port->peer_index != ret_gateway->index) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "vlan: a link '%s' exists and is not one end of a veth pair on this node",
			  a->gateway.name);
		return flat_detail(
			err,
			"flatnet needs that name for the gateway of VLAN %u on '%s': rename or remove that link, or choose another \"bridge\"",
			a->vlan, a->bridge.name);
	}
	return 1;
}

static int make(const struct flat_attachment *a, struct flat_net *net,
		const struct flat_link *bridge, struct flat_applied *applied,
		struct flat_link *ret_gateway, struct flat_link *ret_port, struct flat_err *err)
{
	const struct flat_veth veth = {
		.host_name = a->gateway.port,
		.master = bridge->index,
		.host_mac = a->gateway.port_mac,
		.pod_name = a->gateway.name,
		.pod_mac = a->gateway.mac,
		.netns_fd = -1,
		.mtu = bridge->mtu,
	};
	/* whoever loses the race for creating it finds it the next time round */
	for (int i = 0; i < TRIES; i++) {
		struct flat_err try = { 0 };
		int r = flat_gateway_find(a, net, ret_gateway, ret_port, err);
		if (r != 0)
			return r;
		flat_link_add_veth(net, &veth);
		applied->gateway_made = true;
		r = flat_net_commit(net, &try);
		if (r == -EEXIST) {
			applied->gateway_made = false;
		} else if (r < 0) {
			*err = try;
			return r;
		}
	}
	flat_fail(err, FLAT_CODE_TRY_LATER, 0, "link '%s', the gateway of VLAN %u, cannot be made",
		  a->gateway.name, a->vlan);
	return flat_detail(err, "is a link '%s' left over without it? `ip link del %s`",
			   a->gateway.port, a->gateway.port);
}

int flat_gateway_ensure(struct flat_attachment *a, struct flat_net *net,
			const struct flat_link *bridge, struct flat_applied *applied,
			struct flat_err *err)
{
	struct flat_link gateway, port;
	struct flat_vlans have, want;
	if (!a->gateway.port[0]) {
		applied->gateway_index = bridge->index;
		return 0;
	}
	int r = make(a, net, bridge, applied, &gateway, &port, err);
	if (r < 0)
		return r;
	applied->gateway_index = gateway.index;
	if (gateway.has_mac)
		a->gateway.mac = gateway.mac;
	if (port.master != bridge->index || !port.up) {
		struct flat_link_change change = FLAT_LINK_CHANGE;
		if (port.master != bridge->index)
			change.master = bridge->index;
		change.up = 1;
		flat_link_change(net, port.index, &change, FLAT_STRICT);
		r = flat_net_commit(net, err);
	}
	if (r >= 0)
		r = flat_vlan_get(net, port.index, &have, err);
	flat_gateway_vlans(a, &want);
	if (r >= 0 && !flat_vlan_equal(&have, &want)) {
		flat_vlan_set(net, port.index, &want, false);
		r = flat_net_commit(net, err);
	}
	if (r >= 0 && !gateway.up) {
		struct flat_link_change change = FLAT_LINK_CHANGE;
		change.up = 1;
		r = flat_link_tune(a, a->gateway.name, err);
		flat_link_change(net, gateway.index, &change, FLAT_STRICT);
		if (r >= 0)
			r = flat_net_commit(net, err);
	}
	return r < 0 ? flat_wrap(err, "gateway '%s'", a->gateway.name) : 0;
}

static int remove_port(void *arg, const struct flat_link *link)
{
	if (flat_is_gateway_port(link))
		flat_link_del(arg, link->index, FLAT_GONE_OK);
	return 0;
}

void flat_gateway_undo(const struct flat_attachment *a, struct flat_net *net,
		       const struct flat_applied *applied)
{
	struct flat_link gateway;
	/* a bridge does not take its ports along; of another VLAN may be one that was not alone
	 * when its ADD failed */
	if (applied->bridge_made && applied->bridge_index && flat_plan_has_vlans(a))
		flat_link_each(net, "veth", applied->bridge_index, remove_port, net, NULL);
	/* by name: the answer that tells its index may be what failed */
	if (applied->gateway_made && flat_link_by_name(net, a->gateway.name, &gateway, NULL) > 0)
		flat_link_del(net, gateway.index, FLAT_GONE_OK);
}
