/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: addresses and links that nobody uses come back, without anyone asking. */
#pragma once

#include "conf.h"
#include "status.h"

/* Looks at every network of conf->cni.ipam_dir once: frees reservations made by flatnet whose link
 * is gone and which no ADD in flight holds; removes links of a killed ADD (no alias, not in flight,
 * older than a grace time), and reserves again what a live link claims and nobody has. Fills in
 * status->ipam (of a network with two families: IPv4, which runs out first) and counts repairs.
 * Waits for nobody: what another process is writing to is looked at again next time. Goes on after
 * errors and returns the first, else the number of addresses and links that came back. */
struct flat_sweep; /* remembers what was seen bare last time */
int flat_sweep_open(struct flat_sweep **ret_sweep, struct flat_err *err);
void flat_sweep_close(struct flat_sweep *sweep); /* NULL is fine */
/* This node's pod subnets, once they are known: how many addresses conf->cni.network has. Copied.
 */
void flat_sweep_set_cidrs(struct flat_sweep *sweep, const struct flat_prefix *cidrs, size_t count);
int flat_sweep_run(struct flat_sweep *sweep, const struct flat_agent_conf *conf,
		   struct flat_net *net, struct flat_status *status, struct flat_err *err);
/* Seconds until the next pass is due: conf->sweep, or less when something is to be looked at again
 * before it is judged. 0: never. */
double flat_sweep_pause(const struct flat_sweep *sweep, const struct flat_agent_conf *conf);
