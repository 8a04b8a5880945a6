/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: addresses and links that nobody uses come back, without anyone asking. */
#pragma once

#include "conf.h"
#include "status.h"

/* Looks at every network of conf->cni.ipam_dir once: frees reservations made by flatnet whose link
 * is gone and which no ADD in flight holds; removes links of a killed ADD (no alias, not in flight,
 * older than a grace time), and reserves again what a live link claims and nobody has. Fills in
 * status->ipam. Goes on after errors and returns the first, else the number of addresses and links
 * that came back. */
struct flat_sweep; /* remembers what was seen bare last time */
int flat_sweep_open(struct flat_sweep **ret_sweep, struct flat_err *err);
void flat_sweep_close(struct flat_sweep *sweep);
int flat_sweep_run(struct flat_sweep *sweep, const struct flat_agent_conf *conf,
		   struct flat_net *net, struct flat_status *status, struct flat_err *err);
