// SPDX-License-Identifier: Apache-2.0
/* Which events are worth a look. When in doubt, one look too many: it finds all well, writes
 * nothing, and so causes no event. */
#include "cluster-internal.h"

#include <linux/rtnetlink.h>
#include <string.h>

/* The device that has this index, -1: none of ours. */
static int which(const int indices[static FLAT_FAMILIES], int index)
{
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (index && indices[f] == index)
			return f;
	return -1;
}

static bool by_link(const struct flat_node_state *state, const int *indices,
		    const struct flat_event *event)
{
	const struct flat_link *link = &event->link;
	const int f = which(indices, link->index);
	/* an older device of the name goes when we make it anew */
	if (event->gone)
		return f >= 0 && state->links[f].name[0];
	for (int k = 0; k < FLAT_FAMILIES; k++) {
		const struct flat_wanted_link *want = &state->links[k];
		const bool is_named = want->name[0] && !strcmp(want->name, link->name);
		if (state->idle[k].name[0] && !strcmp(state->idle[k].name, link->name) &&
		    !strcmp(link->kind, "vxlan") && link->vxlan.vni == state->idle[k].vni)
			return true;
		if (want->name[0] && is_named != (f == k)) /* made or renamed by others */
			return true;
		if (is_named &&
		    (strcmp(link->kind, "vxlan") != 0 || flat_link_wants_making(want, link) ||
		     flat_link_wants_change(want, link)))
			return true;
	}
	return false;
}

static bool by_address(const struct flat_node_state *state, const int *indices,
		       const struct flat_event *event)
{
	const struct flat_addr *addr = &event->addr;
	const int f = which(indices, addr->index);
	if (f < 0 || flat_address_is_kernels(&addr->address))
		return false;
	return flat_link_wants_address(&state->links[f], &addr->address) == event->gone;
}

static bool by_route(const struct flat_node_state *state, const int *indices,
		     const struct flat_event *event)
{
	const struct flat_net_route *route = &event->route;
	const struct flat_wanted_route *want = flat_state_find_route(state, &route->route.dst);
	const bool ours = route->protocol == FLAT_RTPROT;
	if (!want)
		return ours && !event->gone && flat_state_covers(state, &route->route.dst);
	const bool as_wanted =
		flat_route_is_plain(route) && flat_route_is_as_wanted(want, route, indices);
	/* another program's may have done our work, have stood in its way, or replaced it */
	return ours ? as_wanted == event->gone : true;
}

static bool by_neigh(const struct flat_node_state *state, const int *indices,
		     const struct flat_event *event)
{
	if (event->fdb) {
		const int f = which(indices, event->entry.index);
		const struct flat_wanted_fdb *want =
			f < 0 ? NULL : flat_state_find_fdb(state, &event->entry.mac, f);
		if (want)
			return flat_fdb_is_as_wanted(want, &event->entry) == event->gone;
		return f >= 0 && !event->gone && !flat_fdb_is_kernels(&event->entry);
	}
	const int f = which(indices, event->neigh.index);
	const struct flat_wanted_neigh *want =
		f < 0 ? NULL : flat_state_find_neigh(state, &event->neigh.ip, f);
	if (want) /* of one that goes the state says little */
		return event->gone || !flat_neigh_is_as_wanted(want, &event->neigh);
	return f >= 0 && !event->gone && !flat_neigh_is_kernels(&event->neigh);
}

bool flat_node_state_is_disturbed(const struct flat_node_state *state,
				  const int indices[static FLAT_FAMILIES],
				  const struct flat_event *event)
{
	switch (event->kind) {
	case FLAT_EVENT_LINK:
		return by_link(state, indices, event);
	case FLAT_EVENT_ADDR:
		return by_address(state, indices, event);
	case FLAT_EVENT_ROUTE:
		return by_route(state, indices, event);
	case FLAT_EVENT_NEIGH:
		return by_neigh(state, indices, event);
	case FLAT_EVENT_LOST:
		return true;
	case FLAT_EVENT_RULES: /* nothing here hangs on them */
		break;
	}
	return false;
}
