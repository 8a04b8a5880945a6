/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: which subnet a node gets when nobody has fixed one. Pure: who has what comes
 * as a list.
 *
 * A pool is cut into slots of one length, numbered from 0. With both families a node gets the same
 * number in each: so whoever wins the IPv4 subnet has won the IPv6 one as well, and one
 * compare-and-swap on one key decides about both.
 */
#pragma once

#include <flatnet/cluster.h>

struct flat_subnet_pool {
	struct flat_prefix net;	 /* family 0: nothing of this family is handed out */
	uint8_t len;		 /* of what is handed out: net.len..30, net.len..126 */
	struct flat_ip min, max; /* the first and the last; family 0: of net */
};

/* Is the pool right in itself? Code 7. */
int flat_subnets_check(const struct flat_subnet_pool *pool, struct flat_err *err);
/* Is this one of the pool's slots? */
bool flat_subnets_fits(const struct flat_subnet_pool *pool, const struct flat_prefix *subnet);
/* Chooses one of each family that has a pool (else family 0 in *ret_subnets), the first that is
 * free from the start-th on. keep: what is settled already, by family (family 0: nothing), so that
 * only the rest is chosen. Taken subnets count when they lie within the flat network: one that
 * does not is nobody's to take. Code FLAT_CODE_EXHAUSTED tells the counts. */
int flat_subnets_choose(const struct flat_subnet_pool pools[static FLAT_FAMILIES],
			const struct flat_prefix keep[static FLAT_FAMILIES],
			const struct flat_prefix *taken, size_t taken_count, uint64_t start,
			struct flat_prefix ret_subnets[static FLAT_FAMILIES], struct flat_err *err);
