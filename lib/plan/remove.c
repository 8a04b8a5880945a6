// SPDX-License-Identifier: Apache-2.0
/*
 * DEL and GC. A link is ours when it has the derived name and its alias says the same, or says
 * nothing: then its ADD was killed before it signed with the alias, or has not come that far.
 */
#include "plan-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

static bool is_foreign(const struct flat_link *link, const char *network, const char *container_id,
		       const char *ifname)
{
	struct flat_alias alias;
	if (strcmp(link->kind, "veth") != 0)
		return true;
	return link->alias[0] && (!flat_alias_parse(link->alias, &alias) ||
				  !flat_alias_names(alias.network, network) ||
				  !flat_alias_names(alias.container_id, container_id) ||
				  strcmp(alias.ifname, ifname) != 0);
}

int flat_attachment_remove(struct flat_net *net, const char *network, const char *container_id,
			   const char *ifname, struct flat_err *err)
{
	struct flat_removal removal = { 0 };
	struct flat_link link;

	flat_name_host_veth(network, container_id, ifname, removal.host_ifname);
	/* Its features first: without the link they would be nobody's. When they cannot go, the
	 * link can, and whoever sweeps finds them. */
	int features = flat_features_remove(net, (unsigned)FLAT_FEATURES_ALL, &removal, err);
	int r = flat_link_by_name(net, removal.host_ifname, &link, err);
	if (r > 0 && is_foreign(&link, network, container_id, ifname))
		r = 0;
	if (r > 0)
		removal.links[removal.link_count++] = link.index;
	if (removal.link_count) {
		int deleted = flat_link_del_many(net, removal.links, removal.link_count, err);
		if (r >= 0 && deleted < 0)
			r = deleted;
	}
	flat_net_close(removal.slow);
	return features < 0 ? features : r;
}

/* ---- of the reference bridge plugin ------------------------------------------------------------
 */

/* Inside the pod: which link of the node is the other end? */
static int find_peer(const char *ifname, int *ret_index, int *ret_peer, struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	struct flat_link link;
	int r = flat_net_open(&pod, err);
	if (r >= 0)
		r = flat_link_by_name(pod, ifname, &link, err);
	if (r <= 0 || strcmp(link.kind, "veth") != 0)
		return r < 0 ? r : 0;
	*ret_index = link.index;
	*ret_peer = link.peer_index;
	return 1;
}

int flat_find_host_end(struct flat_net *net, int netns_fd, const char *ifname,
		       struct flat_link *ret_link, struct flat_err *err)
{
	int back = -1, index, peer, nsid;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = find_peer(ifname, &index, &peer, err);
	flat_netns_leave(&back);
	if (r > 0)
		r = flat_netns_id(net, netns_fd, &nsid, err);
	if (r > 0)
		r = flat_link_by_index(net, peer, ret_link, err);
	return r <= 0 ? r : ret_link->peer_index == index && ret_link->peer_nsid == nsid;
}

int flat_attachment_remove_reference(struct flat_net *net, const struct flat_request *req,
				     const char *bridge, const char *host_ifname,
				     struct flat_err *err)
{
	flat_auto_fd netns = -1;
	struct flat_err e = { 0 };
	struct flat_alias alias;
	struct flat_link link;
	int master = 0, removed = 0;
	int r = host_ifname ? flat_link_by_name(net, host_ifname, &link, err) : 0;
	/* a namespace that is gone, or is not the pod's, tells nothing */
	if (r == 0 && req->netns[0] && flat_netns_open(req->netns, &netns, NULL) >= 0 &&
	    flat_netns_is_own(netns) == 0)
		r = flat_find_host_end(net, netns, req->ifname, &link, err);
	if (r > 0)
		r = flat_link_find_index(net, bridge, &master, err);
	if (r > 0 && !strcmp(link.kind, "veth") && link.master == master &&
	    !flat_alias_parse(link.alias, &alias)) {
		flat_link_del(net, link.index, FLAT_GONE_OK);
		r = flat_net_commit(net, err);
		removed = r >= 0;
	}
	/* whatever has become of the link */
	int rules =
		flat_nft_remove_reference_masquerade(req->name, req->container_id, req->ifname, &e);
	if (rules < 0 && r >= 0) {
		*err = e;
		r = rules;
	}
	return r < 0 ? r : removed || rules > 0;
}

/* The host end has its bridge's MAC; a random one is not. */
static int has_mac_of_bridge(struct flat_net *net, const struct flat_link *link,
			     struct flat_link *ret_bridge, struct flat_err *err)
{
	int r = flat_link_by_index(net, link->master, ret_bridge, err);
	return r <= 0 ? r
		      : !strcmp(ret_bridge->kind, "bridge") && link->has_mac &&
				ret_bridge->has_mac &&
				!memcmp(&link->mac, &ret_bridge->mac, sizeof link->mac);
}

int flat_attachment_remove_bare(struct flat_net *net, int index, const char *name, bool in_store,
				struct flat_err *err)
{
	struct flat_removal removal = { 0 };
	flat_auto_fd lock = -1;
	struct flat_link link, bridge;
	struct flat_err busy = { 0 };
	int r;
	if (!in_store) {
		r = flat_link_by_index(net, index, &link, err);
		if (r > 0)
			r = has_mac_of_bridge(net, &link, &bridge, err);
		if (r <= 0)
			return r;
		if (!flat_bridge_has_lock(bridge.name))
			return 0; /* no ADD of ours was ever there */
		r = flat_bridge_lock(bridge.name, LOCK_EX, 0, &lock, &busy);
		if (r == -ETIMEDOUT)
			return 0;
		if (r < 0) {
			if (err && err->code == FLAT_CODE_NONE)
				*err = busy;
			return r;
		}
	}
	/* now that its ADD cannot be at work any more: has it come to its end meanwhile? */
	r = flat_link_by_index(net, index, &link, err);
	if (r <= 0)
		return r;
	if (strcmp(link.kind, "veth") != 0 || strcmp(link.name, name) != 0 || link.alias[0])
		return 0;
	memcpy(removal.host_ifname, link.name, sizeof removal.host_ifname);
	int features = flat_features_remove(net, (unsigned)FLAT_FEATURES_ALL, &removal, err);
	removal.links[removal.link_count++] = index;
	r = flat_link_del_many(net, removal.links, removal.link_count, err);
	flat_net_close(removal.slow);
	return features < 0 ? features : r < 0 ? r : 1;
}

struct sweep {
	const char *network;
	const struct flat_json_list *valid;
	int *indices;
	size_t count, room;
};

static bool is_valid(const struct sweep *s, const struct flat_alias *alias)
{
	const struct flat_attachment_id *valid = s->valid->items;
	for (size_t i = 0; i < s->valid->count; i++)
		if (!strcmp(alias->ifname, valid[i].ifname) &&
		    flat_alias_names(alias->container_id, valid[i].container_id))
			return true;
	return false;
}

static int collect_stale(void *arg, const struct flat_link *link)
{
	struct sweep *s = arg;
	struct flat_alias alias;
	if (!flat_alias_parse(link->alias, &alias) ||
	    !flat_alias_names(alias.network, s->network) || is_valid(s, &alias))
		return 0;
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		int *more = realloc(s->indices, room * sizeof *more);
		if (!more)
			return -ENOMEM;
		s->indices = more;
		s->room = room;
	}
	s->indices[s->count++] = link->index;
	return 0;
}

int flat_attachment_sweep(struct flat_net *net, const char *network,
			  const struct flat_json_list *valid, struct flat_err *err)
{
	struct sweep s = { .network = network, .valid = valid };
	int r = flat_link_each(net, "veth", 0, collect_stale, &s, err);
	if (r >= 0 && s.count)
		r = flat_link_del_many(net, s.indices, s.count, err);
	free(s.indices);
	if (r >= 0) /* those of the links that have just gone, and of any others */
		r = flat_features_sweep(net, NULL, err);
	return r < 0 ? r : (int)s.count;
}
