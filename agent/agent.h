/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: the agent itself: what the source tells becomes the kernel's state, and stays
 * it. One pass (reconcile) does all: believe nodes, plan, look, write the difference. It runs after
 * events of the source, of the kernel, and by a slow timer; never more than one at a time.
 */
#pragma once

#include "conf.h"
#include "status.h"

#include <ev.h>

struct flat_agent;
/* Starts: takes the lock of this node (code 102 when another agent has it), loads the last known
 * state, makes a first pass, opens the source. loop, conf and status are borrowed. */
int flat_agent_start(struct ev_loop *loop, const struct flat_agent_conf *conf,
		     struct flat_status *status, struct flat_agent **ret_agent,
		     struct flat_err *err);
/* Lets go of everything but the data path: links, routes and rules stay. NULL is fine. A reload is
 * a stop and a start with another configuration. */
void flat_agent_stop(struct flat_agent *agent);
