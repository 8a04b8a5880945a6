// SPDX-License-Identifier: Apache-2.0
/*
 * ADD: from the attachment to the kernel, step by step, and the way back.
 *
 * Order: bridge, veth pair, the pod's inside, its port, and last what is the node's: sysctls,
 * routes to other nodes, rules. Where an IPAM talks over the link, that is made and raised before
 * it is asked, and all is gone through once more with the addresses. Every step writes down what it
 * made. A failed ADD takes the pod's link back always; what is node-wide it takes back only when it
 * is alone: ADDs on one bridge hold LOCK_SH on a file of that bridge, and who can turn his into
 * LOCK_EX and sees no port on the bridge knows that nobody uses, or is about to use, what he made.
 * The kernel drops the lock of a process that dies.
 */
#include "plan-internal.h"

#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	LOCK_TIMEOUT_MS = 10000,
	FORWARDING_TIMEOUT_MS = 2500, /* the reference gives up after 2550 */
	UNDO_MEMORY = 64 << 10,	      /* a conversation and some messages */
};

enum { LOCK_NAME = FLAT_IFNAME_LEN + 16 };

static const char *lock_name(const char *bridge, char *buf)
{
	snprintf(buf, LOCK_NAME, "bridge-%s.lock", bridge);
	return buf;
}

bool flat_bridge_has_lock(const char *bridge)
{
	char name[LOCK_NAME];
	flat_auto_fd dir = -1;
	return flat_state_open_dir(FLAT_RUN_DIR, false, &dir, NULL) >= 0 &&
	       !faccessat(dir, lock_name(bridge, name), F_OK, AT_SYMLINK_NOFOLLOW);
}

int flat_bridge_lock(const char *bridge, int operation, int timeout_ms, int *ret_fd,
		     struct flat_err *err)
{
	char name[LOCK_NAME];
	flat_auto_fd dir = -1;
	lock_name(bridge, name);
	int r = flat_state_open_dir(FLAT_RUN_DIR, true, &dir, err);
	return r < 0 ? r : flat_state_lock(dir, name, operation, timeout_ms, ret_fd, err);
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
		/* a port's MAC has no use of its own; another one for each would be one more entry
		 * in the bridge's table, which the kernel walks when a port comes */
		.host_mac = a->bridge.mac,
		.pod_name = a->ifname,
		.pod_mac = a->pod_mac,
		.pod_promisc = a->tuning.promisc > 0,
		.pod_allmulti = a->tuning.allmulti > 0,
		.pod_tx_queue_len = a->tuning.has_tx_queue_len ? &a->tuning.tx_queue_len : NULL,
		.netns_fd = netns_fd,
		.mtu = a->mtu,
		.pod_mtu = a->tuning.mtu,
	};
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
	r = flat_link_find_index(net, a->host_ifname, &applied->veth_index, err);
	if (r <= 0)
		return r < 0 ? r
			     : flat_fail(err, FLAT_CODE_NETWORK, ENODEV, "veth '%s' is gone again",
					 a->host_ifname);

	/* A port of a bridge needs no IPv6. With it each has routes of its own, and the kernel
	 * walks them all whenever a link of the node comes, goes or changes. */
	r = flat_link_set_sysctl("ipv6", a->host_ifname, "disable_ipv6", "1", err);
	if (r >= 0 && flat_plan_has_vlans(a)) {
		struct flat_vlans vlans;
		flat_plan_vlans(a, &vlans);
		flat_vlan_set(net, applied->veth_index, &vlans, a->preserve_default_vlan);
		r = flat_net_commit(net, err);
	}
	return r;
}

/* After the pod's end: then the link has a carrier at once, and the bridge takes it up in one go.
 * The other way round its port is enabled, disabled for want of a carrier and enabled again, and
 * for each the kernel walks all ports of the bridge. */
static int raise_port(const struct flat_attachment *a, struct flat_net *net,
		      const struct flat_applied *applied, struct flat_err *err)
{
	/* what the kernel does not take at creation; it sets them before the port comes up */
	struct flat_link_change port = FLAT_LINK_CHANGE;
	port.hairpin = a->hairpin;
	port.isolated = a->isolated ? 1 : -1;
	port.bridges_reserved = a->guard.spoof ? 1 : -1;
	port.up = 1;
	flat_link_change(net, applied->veth_index, &port, FLAT_STRICT);
	/* a reused address with another MAC must not meet the old entry */
	for (size_t i = 0; i < a->ip_count && a->bridge.gateway_count; i++)
		flat_neigh_replace(net, applied->gateway_index, &a->ips[i].address.ip, &a->pod_mac);
	return flat_net_commit(net, err);
}

/* The port forwards only after the kernel's link watch has seen the pod's end up: packets sent
 * before are lost. */
static int await_forwarding(struct flat_attachment *a, struct flat_net *net, int veth,
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
		a->mtu = link.mtu;
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
		r = flat_link_set_sysctl("ipv4", a->gateway.name, "send_redirects", "0", err);
	return r;
}

static int ensure_node_routes(const struct flat_attachment *a, struct flat_net *net,
			      struct flat_applied *applied, struct flat_err *err)
{
	return a->nodes.routes ? flat_node_state_ensure(&a->nodes, net, &applied->routes, err) : 0;
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
	/* once, not with every pod */
	char blocker[FLAT_NFT_BLOCKER];
	if (r > 0 && a->nft.forward && flat_nft_find_blocker(&a->nft, blocker, NULL) > 0)
		flat_warn(log, "pods may be cut off: %s", blocker);
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

static int prepare_undo(const struct flat_attachment *a, const struct flat_log *log,
			struct flat_applied *applied, struct flat_err *err)
{
	struct flat_err unlocked = { 0 };
	if (applied->reserve) /* a second apply */
		return 0;
	applied->reserve = malloc(UNDO_MEMORY);
	if (!applied->reserve)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "attach '%s'", a->ifname);
	if (flat_bridge_lock(a->bridge.name, LOCK_SH, LOCK_TIMEOUT_MS, &applied->lock_fd,
			     &unlocked) < 0)
		flat_warn(log, "%s: a failed ADD could not take the bridge back", unlocked.msg);
	return 0;
}

/* Bridge and veth pair, with all that is in the pod. */
static int apply_link(struct flat_attachment *a, struct flat_net *net, int netns_fd,
		      const struct flat_log *log, struct flat_applied *applied,
		      struct flat_err *err)
{
	struct flat_link bridge;
	int r = prepare_undo(a, log, applied, err);
	for (int i = 0; r >= 0; i++) {
		struct flat_err try = { 0 };
		r = flat_bridge_ensure(a, net, applied, &bridge, err);
		if (r < 0)
			return r;
		r = flat_gateway_ensure(a, net, &bridge, applied, &try);
		if (r >= 0)
			r = flat_bridge_ensure_addresses(a, net, applied, &try);
		if (r >= 0 && !applied->veth_index)
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
		r = 0;
	}
	if (r >= 0)
		r = flat_pod_fill(a, netns_fd, err);
	if (r >= 0)
		r = raise_port(a, net, applied, err);
	return r;
}

int flat_attachment_apply_link(struct flat_attachment *a, struct flat_net *net, int netns_fd,
			       const struct flat_log *log, struct flat_applied *applied,
			       struct flat_err *err)
{
	int r = apply_link(a, net, netns_fd, log, applied, err);
	return r < 0 ? r : await_forwarding(a, net, applied->veth_index, err);
}

int flat_attachment_apply(struct flat_attachment *a, struct flat_net *net, int netns_fd,
			  const struct flat_log *log, struct flat_applied *applied,
			  struct flat_err *err)
{
	int r = apply_link(a, net, netns_fd, log, applied, err);
	if (r >= 0)
		r = flat_pod_await(a, netns_fd, err);
	if (r >= 0)
		r = ensure_forwarding(a, err);
	if (r >= 0)
		r = ensure_node_routes(a, net, applied, err);
	if (r >= 0)
		r = ensure_rules(a, applied, log, err);
	if (r >= 0)
		r = flat_features_apply(a, net, netns_fd, applied, log, err);
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
	for (size_t i = 0; i < applied->routes.added_count; i++) {
		const struct flat_net_route route = {
			.route = { .dst = applied->routes.added[i], .scope = -1 },
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
	free(applied->reserve);
	applied->reserve = NULL;
	/* On the old conversation answers may be pending; without memory for another it must do. */
	if (flat_net_open(&fresh, &e) >= 0)
		net = fresh;
	flat_features_undo(a, net, applied, log);
	e = (struct flat_err){ 0 };
	if (applied->veth_made) /* by name: the answer that tells its index may be what failed */
		report(log, flat_attachment_remove(net, a->network, a->container_id, a->ifname, &e),
		       &e);
	if (applied->bridge_made || applied->gateway_made || applied->nft_made ||
	    applied->gateway_count || applied->routes.added_count)
		undo_node(a, net, applied, log);
	flat_applied_close(applied);
}

void flat_applied_close(struct flat_applied *applied)
{
	flat_close_fd(&applied->lock_fd);
	free(applied->reserve);
	flat_repairs_free(&applied->routes);
	*applied = (struct flat_applied)FLAT_APPLIED;
}
