// SPDX-License-Identifier: Apache-2.0
/*
 * Slots are numbers of 64 bits: a pool that has more is cut to the first 2^62, which is as good.
 * What is taken becomes intervals of slots, sorted; the choice is the first gap from a start that
 * comes from the node's name, so that nodes that come at once mostly want different ones.
 */
#include "subnets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const uint64_t max_slots = (uint64_t)1 << 62;

struct span {
	uint64_t first, last; /* slots, both included */
};

static bool exists(const struct flat_subnet_pool *pool)
{
	return pool->net.ip.family != 0;
}

/* The number of the slot that holds ip, counted from the pool's network; saturated. */
static uint64_t slot_of(const struct flat_subnet_pool *pool, const struct flat_ip *ip)
{
	uint64_t slot = 0;
	for (unsigned bit = pool->net.len; bit < pool->len; bit++) {
		if (slot >= max_slots / 2)
			return max_slots;
		slot = slot << 1 | (ip->bytes[bit / 8] >> (7 - bit % 8) & 1);
	}
	return slot;
}

static struct flat_prefix slot_at(const struct flat_subnet_pool *pool, uint64_t slot)
{
	struct flat_prefix subnet = { .ip = flat_prefix_first(&pool->net), .len = pool->len };
	for (unsigned bit = pool->len; slot && bit-- > pool->net.len; slot >>= 1)
		subnet.ip.bytes[bit / 8] |= (uint8_t)((slot & 1) << (7 - bit % 8));
	return subnet;
}

/* The slots between the pool's bounds. */
static struct span bounds(const struct flat_subnet_pool *pool)
{
	unsigned bits = (unsigned)pool->len - pool->net.len;
	struct span all = { 0, bits < 62 ? ((uint64_t)1 << bits) - 1 : max_slots - 1 };
	if (pool->min.family)
		all.first = slot_of(pool, &pool->min);
	if (pool->max.family && slot_of(pool, &pool->max) < all.last)
		all.last = slot_of(pool, &pool->max);
	return all;
}

static uint64_t size_of(const struct flat_subnet_pool *pool)
{
	struct span all = bounds(pool);
	return all.first > all.last ? 0 : all.last - all.first + 1;
}

static bool at_boundary(const struct flat_subnet_pool *pool, const struct flat_ip *ip)
{
	struct flat_prefix slot = { .ip = *ip, .len = pool->len };
	struct flat_ip first = flat_prefix_first(&slot);
	return flat_ip_equal(&first, ip);
}

int flat_subnets_check(const struct flat_subnet_pool *pool, struct flat_err *err)
{
	char net[FLAT_PREFIX_TEXT], text[FLAT_IP_TEXT];
	if (!exists(pool))
		return 0;
	unsigned most = flat_ip_bits(&pool->net.ip) - 2;
	flat_prefix_text(&pool->net, net);
	if (pool->len < pool->net.len || pool->len > most)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "subnets of length %u cannot be handed out of %s: %u to %u can",
				 pool->len, net, pool->net.len, most);
	const struct flat_ip *ends[] = { &pool->min, &pool->max };
	for (size_t i = 0; i < FLAT_LEN(ends); i++) {
		if (!ends[i]->family)
			continue;
		const char *which = i ? "last" : "first";
		flat_ip_text(ends[i], text);
		if (!flat_prefix_contains(&pool->net, ends[i]))
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "the %s subnet to hand out, %s, is not inside %s", which,
					 text, net);
		if (!at_boundary(pool, ends[i]))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"the %s subnet to hand out, %s, is not the network address "
				"of a /%u",
				which, text, pool->len);
	}
	if (!size_of(pool))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "the first subnet to hand out of %s comes after the last", net);
	return 0;
}

bool flat_subnets_fits(const struct flat_subnet_pool *pool, const struct flat_prefix *subnet)
{
	if (!exists(pool) || subnet->len != pool->len ||
	    !flat_prefix_contains(&pool->net, &subnet->ip) || !at_boundary(pool, &subnet->ip))
		return false;
	struct span all = bounds(pool);
	uint64_t slot = slot_of(pool, &subnet->ip);
	return slot >= all.first && slot <= all.last;
}

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	return x->first < y->first ? -1 : x->first > y->first;
}

/* The slots of this pool, counted from its first, that the taken subnets lie on. */
static size_t add_spans(const struct flat_subnet_pool *pool, const struct flat_prefix *taken,
			size_t taken_count, struct span *spans)
{
	struct span all = bounds(pool);
	size_t count = 0;
	for (size_t i = 0; i < taken_count; i++) {
		if (taken[i].ip.family != pool->net.ip.family || taken[i].len < pool->net.len ||
		    !flat_prefix_contains(&pool->net, &taken[i].ip))
			continue;
		struct flat_ip first = flat_prefix_first(&taken[i]),
			       last = flat_prefix_last(&taken[i]);
		struct span span = { slot_of(pool, &first), slot_of(pool, &last) };
		if (span.last < all.first || span.first > all.last)
			continue;
		span.first = span.first > all.first ? span.first - all.first : 0;
		span.last = (span.last < all.last ? span.last : all.last) - all.first;
		spans[count++] = span;
	}
	return count;
}

/* The first slot from start on, of size, that is on no span; size: none is free. */
static uint64_t first_free(struct span *spans, size_t count, uint64_t start, uint64_t size)
{
	uint64_t at = start % size;
	qsort(spans, count, sizeof *spans, compare_spans);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < count && spans[i].first <= at; i++)
			if (spans[i].last >= at)
				at = spans[i].last + 1;
		if (at < size)
			return at;
		at = 0;
	}
	return size;
}

static uint64_t count_slots(const struct span *spans, size_t count, uint64_t size)
{
	uint64_t sum = 0, next = 0; /* sorted: next is behind the last one counted */
	for (size_t i = 0; i < count; i++) {
		uint64_t from = spans[i].first > next ? spans[i].first : next;
		uint64_t end = spans[i].last < size ? spans[i].last + 1 : size;
		if (end > from) {
			sum += end - from;
			next = end;
		}
	}
	return sum;
}

static int exhausted(const struct flat_subnet_pool *pool, uint64_t used, uint64_t size,
		     struct flat_err *err)
{
	char net[FLAT_PREFIX_TEXT];
	flat_fail(err, FLAT_CODE_EXHAUSTED, ENOSPC,
		  "no subnet is free: %llu of the %llu /%u to hand out of %s are taken",
		  (unsigned long long)used, (unsigned long long)size, pool->len,
		  flat_prefix_text(&pool->net, net));
	return flat_detail(err, "delete the records of nodes that are gone, or hand out of a "
				"larger clusterCIDR");
}

int flat_subnets_choose(const struct flat_subnet_pool pools[static FLAT_FAMILIES],
			const struct flat_prefix keep[static FLAT_FAMILIES],
			const struct flat_prefix *taken, size_t taken_count, uint64_t start,
			struct flat_prefix ret_subnets[static FLAT_FAMILIES], struct flat_err *err)
{
	struct flat_prefix chosen[FLAT_FAMILIES] = { keep[FLAT_V4], keep[FLAT_V6] };
	const struct flat_subnet_pool *open[FLAT_FAMILIES];
	uint64_t size = max_slots;
	size_t opens = 0;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		if (!exists(&pools[f]) || keep[f].ip.family)
			continue;
		open[opens++] = &pools[f];
		if (size_of(&pools[f]) < size)
			size = size_of(&pools[f]);
	}
	if (opens) {
		flat_auto_free struct span *spans = calloc(taken_count * opens + 1, sizeof *spans);
		size_t count = 0;
		if (!spans)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "choose a subnet");
		/* The partner of what is kept comes first: see subnets.h. */
		for (int f = 0; f < FLAT_FAMILIES; f++)
			if (keep[f].ip.family && flat_subnets_fits(&pools[f], &keep[f]))
				start = slot_of(&pools[f], &keep[f].ip) - bounds(&pools[f]).first;
		for (size_t i = 0; i < opens; i++)
			count += add_spans(open[i], taken, taken_count, spans + count);
		uint64_t slot = size ? first_free(spans, count, start, size) : 0;
		if (slot >= size)
			return exhausted(open[0], count_slots(spans, count, size), size, err);
		for (size_t i = 0; i < opens; i++)
			chosen[flat_family_index(open[i]->net.ip.family)] =
				slot_at(open[i], bounds(open[i]).first + slot);
	}
	for (int f = 0; f < FLAT_FAMILIES; f++)
		ret_subnets[f] = chosen[f];
	return 0;
}
