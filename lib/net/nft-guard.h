/* SPDX-License-Identifier: Apache-2.0 */
/* Private to nft-guard*.c. */
#pragma once

#include "nft-owned.h"

enum flat_guard_set {
	/* table bridge flatnet */
	FLAT_GUARD_LINKS, /* link: what it sends is checked */
	FLAT_GUARD_MACS,  /* link . MAC: of those whose addresses are free */
	FLAT_GUARD_IP4,	  /* link . MAC . address */
	FLAT_GUARD_IP6,
	FLAT_GUARD_DHCP, /* link . MAC */
	/* table inet flatnet_ingress */
	FLAT_GUARD_SAME,     /* bridge . link: pods that are open to those of their bridge */
	FLAT_GUARD_ISOLATED, /* bridge . link: pods that are open to no pod */
	FLAT_GUARD_BRIDGES,  /* bridge: of all those */
	FLAT_GUARD_WITHIN,   /* bridge . bridge: none of its pods is isolated */
	FLAT_GUARD_SETS,
};
extern const struct flat_nft_set flat_guard_sets[FLAT_GUARD_SETS];

/* The two tables, each with chains and sets of its own. */
enum flat_guard_part { FLAT_GUARD_SPOOF, FLAT_GUARD_INGRESS, FLAT_GUARD_PARTS };
extern const struct flat_guard_range {
	enum flat_nft_place first, last;
	enum flat_guard_set first_set, last_set;
} flat_guard_ranges[FLAT_GUARD_PARTS];

int flat_guard_build(enum flat_guard_part part, struct flat_nft_rules *ret_rules,
		     struct flat_err *err);
