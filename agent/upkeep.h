/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: what the plugin makes on this node, kept true between its calls: the bridge's
 * addresses, node-wide rules, sysctls, the MTU of pods; and of the tunnels what is no part of their
 * plan: checksum offload and room in the neighbour table.
 *
 * A bridge that is not there is not made: the first pod's ADD makes it, as its configuration says.
 */
#pragma once

#include "conf.h"
#include "status.h"

#include <flatnet/net.h>

struct flat_keeper;
int flat_keeper_open(const struct flat_agent_conf *conf, struct flat_status *status,
		     struct flat_net *net, struct flat_keeper **ret_keeper, struct flat_err *err);
void flat_keeper_close(struct flat_keeper *keeper); /* NULL is fine */

/* Why something is done. */
struct flat_cause {
	bool news;	  /* what is wanted has changed, or this is the first time: no repair */
	const char *text; /* else what disturbed, as far as it is known; NULL: nobody tells */
	/* Not NULL: while text is empty, this may fill it in: what disturbed may have been told
	 * since the pass began. */
	void (*ask)(void *arg);
	void *arg;
};
/* Counts a repair and says it. kind: enum flat_repair or flat_upkeep. News are said at level debug
 * and not counted. */
void flat_repaired(struct flat_status *status, int kind, size_t count, const char *what,
		   const struct flat_cause *cause);

/* Each makes one thing true. 1: something was done, 0: it was so, negative: it could not be done.
 * self has its pod subnets. */

/* The bridge is up and has the first address of each of this node's pod subnets. -EAGAIN (err not
 * set): the bridge is so new that its maker may not have come that far; try again later. */
int flat_keep_bridge(struct flat_keeper *keeper, const struct flat_node *self,
		     const struct flat_cause *cause, struct flat_err *err);
/* Exactly the rules that an ADD of network conf->cni.network wants which goes by the node file. */
int flat_keep_rules(struct flat_keeper *keeper, const struct flat_node *self,
		    const struct flat_cause *cause, struct flat_err *err);
/* Forwarding, no redirects, loose reverse path filter on our devices. */
int flat_keep_sysctls(struct flat_keeper *keeper, const struct flat_node *self,
		      const struct flat_node_state *state, const struct flat_cause *cause,
		      struct flat_err *err);
/* Does one of them differ that pods need? Changes of sysctls are not announced. */
bool flat_keeper_has_lost_sysctls(const struct flat_keeper *keeper, const struct flat_node *self);
/* conf->checksum for the devices that there are. */
int flat_keep_checksums(struct flat_keeper *keeper, const struct flat_node_state *state,
			struct flat_err *err);
/* Raises the neighbour table's limits where more than half of it is used or wanted, and this is the
 * namespace that has them. Fills in status->neigh. */
int flat_keep_neighbours(struct flat_keeper *keeper, const struct flat_node_state *state,
			 struct flat_err *err);
/* The limit that a table of so many wanted entries should have: doubled until a quarter is enough
 * for them, when half of it was not; never less than it was. */
uint32_t flat_keeper_room(uint32_t limit, uint32_t wanted);
/* Fills in what status tells of conntrack; zeros where there is none. */
void flat_keeper_count(struct flat_keeper *keeper);
/* Live pods, and the bridge, that have the MTU `was` get `now`, both ends. Links with another one
 * were made so by somebody's configuration. See mtu.c. */
int flat_keep_mtu(struct flat_keeper *keeper, uint32_t was, uint32_t now,
		  const struct flat_cause *cause, struct flat_err *err);

/* Does this event tell of a change of the bridge that is to be looked at? Remembers its index.
 * Writes why. */
bool flat_keeper_is_disturbed(struct flat_keeper *keeper, const struct flat_node *self,
			      const struct flat_event *event, char ret_why[static 160]);
