/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: which link carries the network between nodes, and this node's address on it. */
#pragma once

#include "conf.h"

#include <flatnet/net.h>

/* Looks at the links and addresses as they are now. Each family for itself, by the first of: name,
 * regular expression, networks, way to an address (conf->underlay); the address that this node is
 * told to have; the default route; the other family's link. What belongs to the flat network itself
 * (the bridge, the tunnels, addresses within it), loopback and link-local addresses are never
 * taken. told: this node as the source knows it, NULL: not known.
 * Returns how many families were found; 0: none, and err says what was looked for (code 11). */
int flat_underlay_find(const struct flat_agent_conf *conf, const struct flat_node *told,
		       struct flat_net *net,
		       struct flat_underlay ret_underlays[static FLAT_FAMILIES],
		       struct flat_err *err);
/* Does the source tell others an address of this node that somebody else has set? Else it is this
 * node that tells it. */
bool flat_underlay_is_told(const struct flat_agent_conf *conf);
bool flat_underlay_equal(const struct flat_underlay *a, const struct flat_underlay *b);
