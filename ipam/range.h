/* SPDX-License-Identifier: Apache-2.0 */
/*
 * range - the arithmetic of ranges; private to ipam. Nothing here walks a range: an IPv6 one has
 * 2^64 addresses.
 */
#pragma once

#include <flatnet/ipam.h>

/* Fills in the defaults of a range and checks it. The message is the reference host-local's. */
int flat_ipam_range_complete(struct flat_ip_range *range, struct flat_err *err);
/* Checks a set of completed ranges: not empty, one family, no overlap. */
int flat_ipam_set_check(const struct flat_ip_range_set *set, struct flat_err *err);
bool flat_ipam_sets_overlap(const struct flat_ip_range_set *a, const struct flat_ip_range_set *b);

/* The address after `last` in round-robin order through all ranges of the set; the first one when
 * `last` is none of the set's. False: there is not one in the whole set. */
bool flat_ipam_set_next(const struct flat_ip_range_set *set, const struct flat_ip *last,
			struct flat_ip *ret_ip);

enum { FLAT_IPAM_SET_TEXT = 256 };
/* "10.1.0.2-10.1.0.254", with commas between ranges; cut with "..." when too long. */
const char *flat_ipam_set_text(const struct flat_ip_range_set *set, char *buf);
