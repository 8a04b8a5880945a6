/* SPDX-License-Identifier: Apache-2.0 */
/* Private to reconcile.c and those who share its memory: self.c, notice.c, known.c. */
#pragma once

#include "log.h"
#include "reconcile.h"

struct flat_reconcile {
	const struct flat_agent_conf *conf;
	struct flat_status *status;
	struct flat_net *net;
	struct flat_keeper *keeper;
	struct flat_node_table *nodes;
	bool trusted; /* the nodes are all there are */
	bool ran;     /* a pass over the kernel has succeeded */

	struct flat_underlay underlays[FLAT_FAMILIES];
	struct {
		bool up, running;
	} carrier[FLAT_FAMILIES]; /* of the underlays, as events told */

	/* This node. Its subnets stay in force until there are others. */
	struct flat_self self;
	bool is_known;		     /* self can be told to others */
	char fault[FLAT_STATUS_WHY]; /* why it has no subnet */

	struct flat_node_state state;	/* wanted */
	uint64_t wanted;		/* its hash; 0: none yet */
	int indices[FLAT_FAMILIES];	/* of its devices */
	bool is_planned;		/* the last plan succeeded */
	bool failed;			/* the last pass: the next one looks at everything */
	uint32_t mtu_now, mtu_was;	/* what pods are told; before the last change */
	int64_t mtu_changed_ms;		/* 0: long ago */
	int64_t lost_ms[FLAT_FAMILIES]; /* since when the underlay has been away; 0: it is there */
	uint64_t saved;			/* hash of what was saved */
	int64_t rules_written_ms;	/* by this agent: the events that follow are its own */
	/* what was heard first since the last pass began */
	char why_kernel[160], why_rules[160], why_bridge[160];
	void (*hear)(void *arg);
	void *hear_arg;
	struct flat_remark no_underlay, self_waits, no_file;
};

enum { FLAT_MTU_WATCH_MS = 60000 }; /* an ADD that read the old one has ended by then */

/* This node, its underlay, and what others are to know of it, as of now. look: at links and
 * addresses, too. *ret_away: an underlay is away, and stays in force for a moment: look again soon.
 */
int flat_reconcile_settle_self(struct flat_reconcile *r, bool look, bool *ret_away,
			       struct flat_err *err);

/* The first pod subnet of this node that is not inside the flat network; NULL: there is none. */
const struct flat_prefix *flat_reconcile_stray(const struct flat_reconcile *r,
					       const struct flat_node *self);
