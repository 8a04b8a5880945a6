/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share among themselves. */
#pragma once

#include <flatnet/cluster.h>

/* In the order of a state's arrays; 0: one stands where the other does. */
int flat_wanted_route_compare(const void *a, const void *b);
int flat_wanted_neigh_compare(const void *a, const void *b);
int flat_wanted_fdb_compare(const void *a, const void *b);

/* NULL: not wanted. */
const struct flat_wanted_route *flat_state_find_route(const struct flat_node_state *state,
						      const struct flat_prefix *dst);
const struct flat_wanted_neigh *flat_state_find_neigh(const struct flat_node_state *state,
						      const struct flat_ip *ip, int link);
const struct flat_wanted_fdb *flat_state_find_fdb(const struct flat_node_state *state,
						  const struct flat_mac *mac, int link);

/* Does it lead into the flat network? */
bool flat_state_covers(const struct flat_node_state *state, const struct flat_prefix *dst);

/* What the kernel says against what is wanted; each as the kernel shows it after we made it. */
/* NULL: as wanted, else in what it differs so that it has to be made anew */
const char *flat_link_wants_making(const struct flat_wanted_link *want,
				   const struct flat_link *have);
/* NULL: as wanted, else what has to be changed */
const char *flat_link_wants_change(const struct flat_wanted_link *want,
				   const struct flat_link *have);
bool flat_link_wants_address(const struct flat_wanted_link *want,
			     const struct flat_prefix *address);
/* indices: of the state's devices */
bool flat_route_is_as_wanted(const struct flat_wanted_route *want,
			     const struct flat_net_route *have,
			     const int indices[static FLAT_FAMILIES]);
bool flat_neigh_is_as_wanted(const struct flat_wanted_neigh *want, const struct flat_neigh *have);
bool flat_fdb_is_as_wanted(const struct flat_wanted_fdb *want, const struct flat_fdb *have);

/* Of those that are not wanted: not to be touched. */
bool flat_address_is_kernels(const struct flat_prefix *address);
bool flat_neigh_is_kernels(const struct flat_neigh *have);
bool flat_fdb_is_kernels(const struct flat_fdb *have);
/* The metric that a route has for which none was asked. */
bool flat_route_is_plain(const struct flat_net_route *route);
