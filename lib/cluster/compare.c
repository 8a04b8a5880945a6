// SPDX-License-Identifier: Apache-2.0
/* One wanted thing against one that the kernel has, or tells of. */
#include "cluster-internal.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- finding -----------------------------------------------------------------------------------
 */

int flat_wanted_route_compare(const void *a, const void *b)
{
	const struct flat_wanted_route *x = a, *y = b;
	int c = flat_ip_compare(&x->dst.ip, &y->dst.ip);
	return c ? c : (int)x->dst.len - (int)y->dst.len;
}

int flat_wanted_neigh_compare(const void *a, const void *b)
{
	const struct flat_wanted_neigh *x = a, *y = b;
	int c = flat_ip_compare(&x->ip, &y->ip);
	return c ? c : x->link - y->link;
}

int flat_wanted_fdb_compare(const void *a, const void *b)
{
	const struct flat_wanted_fdb *x = a, *y = b;
	int c = memcmp(&x->mac, &y->mac, sizeof x->mac);
	return c ? c : x->link - y->link;
}

void flat_node_state_sort(struct flat_node_state *s)
{
	if (s->route_count)
		qsort(s->routes, s->route_count, sizeof *s->routes, flat_wanted_route_compare);
	if (s->neigh_count)
		qsort(s->neighs, s->neigh_count, sizeof *s->neighs, flat_wanted_neigh_compare);
	if (s->fdb_count)
		qsort(s->fdb, s->fdb_count, sizeof *s->fdb, flat_wanted_fdb_compare);
}

const struct flat_wanted_route *flat_state_find_route(const struct flat_node_state *state,
						      const struct flat_prefix *dst)
{
	const struct flat_wanted_route key = { .dst = *dst };
	return state->route_count ? bsearch(&key, state->routes, state->route_count, sizeof key,
					    flat_wanted_route_compare)
				  : NULL;
}

const struct flat_wanted_neigh *flat_state_find_neigh(const struct flat_node_state *state,
						      const struct flat_ip *ip, int link)
{
	const struct flat_wanted_neigh key = { .ip = *ip, .link = link };
	return state->neigh_count ? bsearch(&key, state->neighs, state->neigh_count, sizeof key,
					    flat_wanted_neigh_compare)
				  : NULL;
}

const struct flat_wanted_fdb *flat_state_find_fdb(const struct flat_node_state *state,
						  const struct flat_mac *mac, int link)
{
	const struct flat_wanted_fdb key = { .mac = *mac, .link = link };
	return state->fdb_count ? bsearch(&key, state->fdb, state->fdb_count, sizeof key,
					  flat_wanted_fdb_compare)
				: NULL;
}

bool flat_state_covers(const struct flat_node_state *state, const struct flat_prefix *dst)
{
	for (size_t i = 0; i < state->cidr_count; i++)
		if (state->cidrs[i].len <= dst->len &&
		    flat_prefix_contains(&state->cidrs[i], &dst->ip))
			return true;
	return false;
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

const char *flat_link_wants_making(const struct flat_wanted_link *want,
				   const struct flat_link *have)
{
	const struct flat_vxlan *w = &want->vxlan, *h = &have->vxlan;
	return w->vni != h->vni			      ? "another VNI"
	       : w->port != h->port		      ? "another port"
	       : w->underlay != h->underlay	      ? "another underlay"
	       : !flat_ip_equal(&w->local, &h->local) ? "another local address"
	       : w->learning != h->learning	      ? "the wrong kind of learning"
	       : h->gbp || h->external		      ? "settings that are not ours"
						      : NULL;
}

const char *flat_link_wants_change(const struct flat_wanted_link *want,
				   const struct flat_link *have)
{
	return !have->up			     ? "down"
	       : want->mtu && want->mtu != have->mtu ? "of another MTU"
	       : !have->has_mac || memcmp(&want->mac, &have->mac, sizeof want->mac) != 0
		       ? "of another MAC"
		       : NULL;
}

bool flat_link_wants_address(const struct flat_wanted_link *want, const struct flat_prefix *address)
{
	for (size_t i = 0; i < want->address_count; i++)
		if (flat_prefix_equal(&want->addresses[i], address))
			return true;
	return false;
}

bool flat_route_is_as_wanted(const struct flat_wanted_route *want,
			     const struct flat_net_route *have,
			     const int indices[static FLAT_FAMILIES])
{
	return flat_ip_equal(&want->via, &have->route.gw) &&
	       (want->link < 0 || have->oif == indices[want->link]);
}

bool flat_neigh_is_as_wanted(const struct flat_wanted_neigh *want, const struct flat_neigh *have)
{
	return have->has_mac && (have->state & NUD_PERMANENT) &&
	       !memcmp(&want->mac, &have->mac, sizeof want->mac);
}

bool flat_fdb_is_as_wanted(const struct flat_wanted_fdb *want, const struct flat_fdb *have)
{
	return (have->state & NUD_PERMANENT) && flat_ip_equal(&want->dst, &have->dst);
}

/* ---- what the kernel makes ---------------------------------------------------------------------
 */

static bool is_multicast(const struct flat_ip *ip)
{
	return ip->family == AF_INET ? ip->bytes[0] >= 224 : ip->bytes[0] == 0xff;
}

bool flat_address_is_kernels(const struct flat_prefix *address)
{
	return address->ip.family == AF_INET6 && address->ip.bytes[0] == 0xfe &&
	       (address->ip.bytes[1] & 0xc0) == 0x80;
}

/* Whoever sends to an address on such a link makes an entry that the kernel takes away again. */
bool flat_neigh_is_kernels(const struct flat_neigh *have)
{
	return !(have->state & NUD_PERMANENT) || (have->state & NUD_NOARP) ||
	       is_multicast(&have->ip);
}

bool flat_fdb_is_kernels(const struct flat_fdb *have)
{
	return !have->dst.family && (have->mac.bytes[0] & 1);
}

bool flat_route_is_plain(const struct flat_net_route *route)
{
	/* IP6_RT_PRIO_USER in linux/ipv6_route.h */
	return route->route.priority == (route->route.dst.ip.family == AF_INET6 ? 1024 : 0);
}
