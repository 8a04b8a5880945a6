/* SPDX-License-Identifier: Apache-2.0 */
/* Private to upkeep.c and mtu.c. */
#pragma once

#include "log.h"
#include "upkeep.h"

struct flat_keeper {
	const struct flat_agent_conf *conf;
	struct flat_status *status;
	struct flat_net *net;
	int bridge_index;	/* 0: not seen */
	int64_t bridge_seen_ms; /* when it was seen for the first time */
	struct flat_remark no_nft, no_neigh, no_checksum, no_pod, no_sysctl;
	bool old_kernel; /* checksums in hardware are not to be trusted: see upkeep.c */
};
