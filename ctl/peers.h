/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to ctl: the nodes of the cluster, and whether the kernel of this one has the way to their
 * pods. Where the list comes from is said, too: --nodes-file, the CNI configuration, or what the
 * agent remembers.
 */
#pragma once

#include "scene.h"

struct flat_peer {
	struct flat_node node;
	bool self;
	bool pending;	   /* no route yet, and none is due before the first pod: not a fault */
	const char *path;  /* "direct", "vxlan"; NULL: none */
	const char *link;  /* by which the routes go; NULL: none */
	const char *fault; /* what the kernel lacks; NULL: nothing */
	const char *evidence;
	bool asked;
	int32_t rtt_us; /* -1: no answer */
};

struct flat_peers {
	const char *source;	      /* NULL: nobody tells of nodes */
	const struct flat_node *self; /* NULL: not among them, or not known */
	struct flat_peer *items;
	size_t count;
	bool before_first;	       /* the plugin brings the routes, and has had no pod yet */
	struct flat_net_route *routes; /* the main table, by destination */
	size_t route_count;
};
/* NULL: the main table has none to exactly this destination. */
const struct flat_net_route *flat_peers_route(const struct flat_peers *peers,
					      const struct flat_prefix *dst);

/* Memory is ctl's arena. Asks the others by ping unless --no-ping, for a second at most. */
int flat_peers_read(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_peers *ret_peers,
		    struct flat_err *err);
bool flat_peer_is_up(const struct flat_peer *peer);
/* "10.244.1.0/24,fd00::/64" */
const char *flat_peer_subnets(struct flat_ctl *ctl, const struct flat_node *node);
const char *flat_peer_addresses(struct flat_ctl *ctl, const struct flat_node *node);
/* Says of each that is not up why, as problems. Returns how many. */
size_t flat_peers_complain(struct flat_ctl *ctl, const struct flat_peers *peers);
