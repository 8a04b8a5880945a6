// SPDX-License-Identifier: Apache-2.0
#include "status.h"

/* As they are called in the log and in the metrics; those of the cluster room first. */
const char *const flat_upkeep_names[FLAT_UPKEEP_KINDS] = {
	[FLAT_REPAIR_LINK] = "link",   [FLAT_REPAIR_ADDRESS] = "address",
	[FLAT_REPAIR_ROUTE] = "route", [FLAT_REPAIR_NEIGH] = "neighbour",
	[FLAT_REPAIR_FDB] = "fdb",     [FLAT_UPKEEP_BRIDGE] = "bridge",
	[FLAT_UPKEEP_RULES] = "rules", [FLAT_UPKEEP_SYSCTL] = "sysctl",
	[FLAT_UPKEEP_MTU] = "mtu",     [FLAT_UPKEEP_ORPHAN] = "orphan",
	[FLAT_UPKEEP_LEASE] = "lease",
};
