// SPDX-License-Identifier: Apache-2.0
/*
 * A feature alone, on what another plugin of the chain has made: the work of the reference's
 * portmap and bandwidth.
 *
 * Owner of what is made is the node's end of the pod's interface. While that is there, so is the
 * pod; what belongs to one that is gone is nobody's, for everybody to sweep. DEL finds the owner by
 * prevResult, by the pod's namespace, or by the name that it has from us. When neither namespace
 * nor prevResult tells, the link has gone with the namespace, and sweeping is what is left to do.
 */
#include "plan-internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char reference_ifb[] = "bwp";

static bool is_on_host(const struct flat_result_interface *interface)
{
	return !interface->sandbox || !interface->sandbox[0];
}

static bool wants(const struct flat_conf *conf, unsigned feature)
{
	switch (feature) {
	case FLAT_FEATURE_PORTS:
		return conf->ports.count > 0;
	case FLAT_FEATURE_BANDWIDTH:
		return conf->ingress.rate || conf->egress.rate;
	default:
		return true;
	}
}

/* The addresses of the pod, as the reference sees it: all but those of the node's links. */
static int take_addresses(const struct flat_result *prev, struct flat_attachment *a,
			  struct flat_err *err)
{
	for (size_t i = 0; i < prev->ip_count; i++) {
		const int of = prev->ips[i].interface;
		if (of >= 0 && is_on_host(&prev->interfaces[of]))
			continue;
		if (a->ip_count == FLAT_MAX_LEASE)
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "prevResult has more than %d addresses of the pod",
					 FLAT_MAX_LEASE);
		a->ips[a->ip_count++] = prev->ips[i];
	}
	return 0;
}

/* Where the pod's packets come into the node's IP layer: the bridge, BRIDGE.VLAN of prevResult, or
 * without a bridge the link itself. */
static int find_gateway(const struct flat_result *prev, struct flat_net *net,
			const struct flat_link *host, struct flat_attachment *a,
			struct flat_err *err)
{
	struct flat_link master = *host;
	int r = host->master ? flat_link_by_index(net, host->master, &master, err) : 0;
	if (r < 0)
		return r;
	a->bridge.routed = r == 0;
	memcpy(a->gateway.name, master.name, sizeof a->gateway.name);
	const size_t len = strlen(master.name);
	for (size_t i = 0; r > 0 && i < prev->interface_count; i++) {
		const struct flat_result_interface *link = &prev->interfaces[i];
		if (is_on_host(link) && !strncmp(link->name, master.name, len) &&
		    link->name[len] == '.' && flat_ifname_is_valid(link->name))
			snprintf(a->gateway.name, sizeof a->gateway.name, "%s", link->name);
	}
	a->bridge.name = a->gateway.name;
	return 0;
}

int flat_chained_plan(struct flat_request *req, unsigned feature, struct flat_net *net,
		      int netns_fd, const struct flat_log *log, struct flat_attachment *a,
		      struct flat_applied *applied, struct flat_err *err)
{
	struct flat_conf conf = { .reference = true, .tuning = { .promisc = -1, .allmulti = -1 } };
	struct flat_link host;
	int r = flat_features_parse(req, feature, log, &conf, err);
	if (r < 0 || !wants(&conf, feature))
		return r < 0 ? r : 0;
	if (!req->prev_result) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "prevResult is missing");
		return flat_detail(err,
				   "'%.64s' must be called as chained plugin: put it behind "
				   "the one that makes the interface",
				   req->type);
	}
	r = flat_find_host_end(net, netns_fd, req->ifname, &host, err);
	if (r == 0) {
		flat_fail(err, FLAT_CODE_UNSUPPORTED, 0,
			  "interface '%s' in '%.128s' is not supported: it is no veth with its "
			  "other end on this node",
			  req->ifname, req->netns);
		return flat_detail(err, "leave '%.64s' out of this chain", req->type);
	}
	if (r > 0 && feature == FLAT_FEATURE_BANDWIDTH && !flat_name_has_ifb(host.name)) {
		flat_fail(err, FLAT_CODE_UNSUPPORTED, 0,
			  "host link '%s' is not supported: its name is not \"veth\" and 8 or 11 "
			  "hex digits",
			  host.name);
		return flat_detail(err,
				   "the IFB's name derives from it: leave '%.64s' out of this "
				   "chain",
				   req->type);
	}
	if (r < 0)
		return r;
	memset(a, 0, sizeof *a);
	a->network = req->name;
	a->container_id = req->container_id;
	a->ifname = req->ifname;
	a->netns = req->netns;
	a->mtu = host.mtu;
	memcpy(a->host_ifname, host.name, sizeof a->host_ifname);
	applied->veth_index = host.index;
	r = find_gateway(req->prev_result, net, &host, a, err);
	if (r >= 0)
		r = take_addresses(req->prev_result, a, err);
	if (r < 0)
		return r;
	flat_alias_format(a->network, a->container_id, a->ifname, a->ips, a->ip_count,
			  req->args.pod_namespace, req->args.pod_name, a->alias);
	r = flat_features_plan(req, &conf, a, err);
	return r < 0 ? r : 1;
}

int flat_chained_apply(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		       const struct flat_log *log, struct flat_applied *applied,
		       struct flat_err *err)
{
	return flat_features_apply(a, net, netns_fd, applied, log, err);
}

void flat_chained_undo(const struct flat_attachment *a, struct flat_net *net,
		       struct flat_applied *applied, const struct flat_log *log)
{
	struct flat_removal removal = { 0 };
	struct flat_err e = { 0 };
	flat_features_undo(a, net, applied, log);
	/* what goes with the link elsewhere: here the link is another's, and stays */
	memcpy(removal.host_ifname, a->host_ifname, sizeof removal.host_ifname);
	int r = flat_features_remove(net, applied->features, &removal, &e);
	if (r >= 0 && removal.link_count)
		r = flat_link_del_many(net, removal.links, removal.link_count, &e);
	if (r < 0)
		flat_warn(log, "undo: %s", e.msg);
	flat_net_close(removal.slow);
	flat_applied_close(applied);
}

/* ---- what the reference made -------------------------------------------------------------------
 */

/* Its IFB, as its result names it. 1: there; 0: none is named. */
static int find_reference_ifb(const struct flat_request *req, struct flat_net *net,
			      struct flat_link *ret_ifb, struct flat_err *err)
{
	const struct flat_result *prev = req->prev_result;
	for (size_t i = 0; prev && i < prev->interface_count; i++) {
		const struct flat_result_interface *link = &prev->interfaces[i];
		if (!is_on_host(link) ||
		    strncmp(link->name, reference_ifb, sizeof reference_ifb - 1) != 0)
			continue;
		int r = flat_link_by_name(net, link->name, ret_ifb, err);
		if (r != 0)
			return r < 0 ? r : !strcmp(ret_ifb->kind, "ifb");
	}
	return 0;
}

int flat_chained_verify(struct flat_request *req, struct flat_attachment *a, struct flat_net *net,
			int netns_fd, struct flat_err *err)
{
	struct flat_err other = { 0 };
	struct flat_link ifb;
	if (a->shaping.from.rate && find_reference_ifb(req, net, &ifb, NULL) > 0 && ifb.up)
		a->shaping.from.rate = 0; /* it has been seen to */
	int r = flat_features_verify(a, net, netns_fd, err);
	if (r < 0 && a->ports.count && err->code == FLAT_CODE_MISMATCH &&
	    flat_nft_reference_ports(req->name, req->container_id, false, &other) > 0) {
		*err = (struct flat_err){ 0 };
		return 0;
	}
	return r < 0 ? r : 0;
}

static int remove_reference(struct flat_request *req, unsigned feature, struct flat_net *net,
			    struct flat_err *err)
{
	struct flat_link ifb = { 0 };
	int r = 0;
	if (feature == FLAT_FEATURE_PORTS)
		r = flat_nft_reference_ports(req->name, req->container_id, true, err);
	if (feature == FLAT_FEATURE_BANDWIDTH)
		r = find_reference_ifb(req, net, &ifb, err);
	if (r > 0 && feature == FLAT_FEATURE_BANDWIDTH) {
		flat_link_del(net, ifb.index, FLAT_GONE_OK);
		r = flat_net_commit(net, err);
	}
	return r;
}

/* ---- DEL, GC -----------------------------------------------------------------------------------
 */

enum { MOST_OWNERS = 16 };
struct owners {
	const char *names[MOST_OWNERS];
	size_t count;
};

static void add_owner(struct owners *o, const char *name)
{
	for (size_t i = 0; i < o->count; i++)
		if (!strcmp(o->names[i], name))
			return;
	if (o->count < MOST_OWNERS && flat_ifname_is_valid(name))
		o->names[o->count++] = name;
}

static int remove_of(struct flat_net *net, unsigned feature, const char *owner,
		     struct flat_err *err)
{
	struct flat_removal removal = { 0 };
	snprintf(removal.host_ifname, sizeof removal.host_ifname, "%s", owner);
	int r = flat_features_remove(net, feature, &removal, err);
	if (removal.link_count) {
		int deleted = flat_link_del_many(net, removal.links, removal.link_count, err);
		r = r < 0 || deleted >= 0 ? r : deleted;
	}
	flat_net_close(removal.slow);
	return r;
}

int flat_chained_remove(struct flat_request *req, unsigned feature, struct flat_net *net,
			const struct flat_log *log, struct flat_err *err)
{
	const struct flat_result *prev = req->prev_result;
	flat_auto_fd netns = -1;
	struct owners owners = { .count = 0 };
	struct flat_link host;
	char derived[FLAT_IFNAME_LEN];
	int found = 0, first = 0, removed = 0;

	flat_name_host_veth(req->name, req->container_id, req->ifname, derived);
	add_owner(&owners, derived);
	if (req->netns[0] && flat_netns_open(req->netns, &netns, NULL) >= 0 &&
	    flat_netns_is_own(netns) == 0)
		found = flat_find_host_end(net, netns, req->ifname, &host, NULL);
	if (found > 0)
		add_owner(&owners, host.name);
	for (size_t i = 0; prev && i < prev->interface_count; i++)
		if (is_on_host(&prev->interfaces[i]))
			add_owner(&owners, prev->interfaces[i].name);
	for (size_t i = 0; i < owners.count; i++) {
		struct flat_err e = { 0 };
		int r = remove_of(net, feature, owners.names[i], &e);
		if (r >= 0) {
			removed += r;
		} else if (first >= 0) {
			first = r;
			*err = e;
		}
	}
	if (!removed && found <= 0) {
		struct flat_err e = { 0 };
		int r = flat_features_sweep_some(net, feature, log, &e);
		if (r < 0 && first >= 0) {
			first = r;
			*err = e;
		}
	}
	if (!removed) {
		struct flat_err e = { 0 };
		int r = remove_reference(req, feature, net, &e);
		if (r < 0 && first >= 0) {
			first = r;
			*err = e;
		}
	}
	return first;
}

int flat_chained_sweep(struct flat_net *net, unsigned feature, const struct flat_log *log,
		       struct flat_err *err)
{
	return flat_features_sweep_some(net, feature, log, err);
}
