/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: the pass. What is wanted is worked out anew from the nodes, the underlay and
 * the configuration; what there is, is read from the kernel; the difference is written.
 *
 * It remembers what it wanted last, for two reasons: to know what an event means, and to tell a
 * repair (the kernel had changed) from news (what is wanted has).
 */
#pragma once

#include "nodes.h"
#include "source.h"
#include "upkeep.h"

/* What may not be as it should. */
enum flat_dirty {
	FLAT_DIRTY_NODES = 1,	 /* the source has told something */
	FLAT_DIRTY_UNDERLAY = 2, /* links, addresses, the default route */
	FLAT_DIRTY_KERNEL = 4,	 /* tunnels, routes, neighbours, forwarding entries */
	FLAT_DIRTY_RULES = 8,
	FLAT_DIRTY_BRIDGE = 16,
	FLAT_DIRTY_SYSCTLS = 32,
	FLAT_DIRTY_MTU = 64,	    /* pods that came with the MTU of before */
	FLAT_DIRTY_ROOM = 128,	    /* of the neighbour table */
	FLAT_DIRTY_CHECKSUMS = 256, /* offload of the tunnels */
	FLAT_DIRTY_ALL = 511,
};

struct flat_reconcile;
/* conf and status are borrowed. */
int flat_reconcile_open(const struct flat_agent_conf *conf, struct flat_status *status,
			struct flat_reconcile **ret_reconcile, struct flat_err *err);
void flat_reconcile_close(struct flat_reconcile *reconcile); /* NULL is fine */

struct flat_node_table *flat_reconcile_nodes(struct flat_reconcile *reconcile);
/* The list of nodes is whole: until then, nothing in the kernel is touched. */
void flat_reconcile_trust(struct flat_reconcile *reconcile);
/* This node, as the others are to know it; NULL: not known yet. Its name is borrowed. */
const struct flat_self *flat_reconcile_self(const struct flat_reconcile *reconcile);

/* The last known state: read before the source has spoken; written when something has changed since
 * (1: it was). Loading returns 1 when there was one. */
int flat_reconcile_load(struct flat_reconcile *reconcile, struct flat_err *err);
int flat_reconcile_save(struct flat_reconcile *reconcile, struct flat_err *err);

/* What an event makes doubtful: bits of enum flat_dirty. Remembers what happened, for the pass that
 * repairs it to say. */
unsigned flat_reconcile_notice(struct flat_reconcile *reconcile, const struct flat_event *event);

/* Is something not as it should be that no event tells of? Cheap: for a timer. */
bool flat_reconcile_poll(const struct flat_reconcile *reconcile);

/* What a pass finds may have happened after the last event was read. hear reads what the kernel has
 * told by now, and calls flat_reconcile_notice(); a pass that finds something broken and does not
 * know why calls it. */
void flat_reconcile_set_ear(struct flat_reconcile *reconcile, void (*hear)(void *arg), void *arg);

/* One pass over what is dirty. *ret_later: what is to be looked at again in half a second, for it
 * was too early. Fills in status. Goes on after errors and returns the first. */
int flat_reconcile_run(struct flat_reconcile *reconcile, unsigned dirty, unsigned *ret_later,
		       struct flat_err *err);
