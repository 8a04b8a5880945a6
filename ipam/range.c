// SPDX-License-Identifier: Apache-2.0
#include "range.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const struct flat_ip_range *range_at(const struct flat_ip_range_set *set, size_t i)
{
	return &((const struct flat_ip_range *)set->ranges.items)[i];
}

static bool within(const struct flat_ip_range *range, const struct flat_ip *ip)
{
	return range->start.family == ip->family && flat_ip_compare(&range->start, ip) <= 0 &&
	       flat_ip_compare(ip, &range->end) <= 0;
}

int flat_ipam_range_complete(struct flat_ip_range *range, struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT], other[FLAT_IP_TEXT];
	const struct flat_prefix *subnet = &range->subnet;
	if (!subnet->ip.family)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "a range without subnet");
	struct flat_ip network = flat_prefix_first(subnet), last = flat_prefix_last(subnet);
	if (!flat_ip_equal(&network, &subnet->ip))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "Network has host bits set. For a subnet mask of length %u the "
				 "network address is %s",
				 subnet->len, flat_ip_text(&network, other));
	if (subnet->len + 2u > flat_ip_bits(&network))
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "Network %s too small to allocate from",
				 flat_prefix_text(subnet, text));
	struct flat_ip first = flat_ip_next(&network);
	if (network.family == AF_INET)
		last = flat_ip_prev(&last); /* the broadcast address */
	if (!range->gateway.family)
		range->gateway = first;
	if (!range->start.family)
		range->start = first;
	if (!range->end.family)
		range->end = last;
	flat_prefix_text(subnet, text);
	if (!flat_prefix_contains(subnet, &range->start))
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "RangeStart %s not in network %s",
				 flat_ip_text(&range->start, other), text);
	if (!flat_prefix_contains(subnet, &range->end))
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "RangeEnd %s not in network %s",
				 flat_ip_text(&range->end, other), text);
	if (range->gateway.family != network.family)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "gateway %s is not of the address family of network %s",
				 flat_ip_text(&range->gateway, other), text);
	/* neither the network nor the broadcast address is any pod's, whatever rangeStart says */
	if (flat_ip_compare(&range->start, &first) < 0)
		range->start = first;
	if (flat_ip_compare(&range->end, &last) > 0)
		range->end = last;
	if (flat_ip_compare(&range->start, &range->end) > 0) {
		char end[FLAT_IP_TEXT];
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "RangeStart %s is after RangeEnd %s in network %s",
				 flat_ip_text(&range->start, other), flat_ip_text(&range->end, end),
				 text);
	}
	return 0;
}

static bool ranges_overlap(const struct flat_ip_range *a, const struct flat_ip_range *b)
{
	return within(a, &b->start) || within(b, &a->start);
}

int flat_ipam_set_check(const struct flat_ip_range_set *set, struct flat_err *err)
{
	if (!set->ranges.count)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "empty range set");
	for (size_t i = 1; i < set->ranges.count; i++) {
		if (range_at(set, i)->start.family != range_at(set, 0)->start.family)
			return flat_fail(err, FLAT_CODE_CONFIG, 0, "mixed address families");
		for (size_t j = 0; j < i; j++) {
			if (!ranges_overlap(range_at(set, j), range_at(set, i)))
				continue;
			char a[4][FLAT_IP_TEXT];
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "subnets %s-%s and %s-%s overlap",
					 flat_ip_text(&range_at(set, j)->start, a[0]),
					 flat_ip_text(&range_at(set, j)->end, a[1]),
					 flat_ip_text(&range_at(set, i)->start, a[2]),
					 flat_ip_text(&range_at(set, i)->end, a[3]));
		}
	}
	return 0;
}

bool flat_ipam_sets_overlap(const struct flat_ip_range_set *a, const struct flat_ip_range_set *b)
{
	for (size_t i = 0; i < a->ranges.count; i++)
		for (size_t j = 0; j < b->ranges.count; j++)
			if (ranges_overlap(range_at(a, i), range_at(b, j)))
				return true;
	return false;
}

const struct flat_ip_range *flat_ipam_set_find(const struct flat_ip_range_set *set,
					       const struct flat_ip *ip)
{
	for (size_t i = 0; i < set->ranges.count; i++)
		if (within(range_at(set, i), ip))
			return range_at(set, i);
	return NULL;
}

bool flat_ipam_set_is_gateway(const struct flat_ip_range_set *set, const struct flat_ip *ip)
{
	for (size_t i = 0; i < set->ranges.count; i++)
		if (flat_ip_equal(&range_at(set, i)->gateway, ip))
			return true;
	return false;
}

static uint64_t range_size(const struct flat_ip_range *range)
{
	uint64_t difference = 0;
	unsigned borrow = 0;
	for (size_t i = flat_ip_size(&range->start), shift = 0; i-- > 0; shift += 8) {
		unsigned sub = range->start.bytes[i] + borrow;
		uint8_t byte = (uint8_t)(range->end.bytes[i] - sub);
		borrow = range->end.bytes[i] < sub;
		if (shift < 64)
			difference |= (uint64_t)byte << shift;
		else if (byte)
			return UINT64_MAX;
	}
	return difference == UINT64_MAX ? UINT64_MAX : difference + 1;
}

uint64_t flat_ipam_set_size(const struct flat_ip_range_set *set)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < set->ranges.count; i++) {
		uint64_t size = range_size(range_at(set, i));
		if (sum + size < sum || size == UINT64_MAX)
			return UINT64_MAX;
		sum += size;
	}
	for (size_t i = 0; i < set->ranges.count; i++) {
		const struct flat_ip *gateway = &range_at(set, i)->gateway;
		bool seen = false;
		for (size_t j = 0; j < i && !seen; j++)
			seen = flat_ip_equal(&range_at(set, j)->gateway, gateway);
		if (!seen && flat_ipam_set_find(set, gateway))
			sum--;
	}
	return sum;
}

uint64_t flat_ipam_subnet_size(const struct flat_prefix *subnet)
{
	struct flat_ip_range range = { .subnet = *subnet };
	const struct flat_ip_range_set set = { .ranges = { &range, 1 } };
	return flat_ipam_range_complete(&range, NULL) < 0 ? 0 : flat_ipam_set_size(&set);
}

bool flat_ipam_set_next(const struct flat_ip_range_set *set, const struct flat_ip *last,
			struct flat_ip *ret_ip)
{
	size_t count = set->ranges.count, at = 0;
	if (!count)
		return false;
	struct flat_ip ip = range_at(set, 0)->start;
	bool found = false;
	for (size_t i = 0; i < count && !found; i++) {
		found = within(range_at(set, i), last);
		if (found) {
			at = i;
			ip = *last;
		}
	}
	/* each step but the last meets a gateway, and there are no more of them than ranges; twice,
	 * for the way round */
	for (size_t step = 0; step < 2 * count + 2; step++) {
		if (found) {
			if (flat_ip_equal(&ip, &range_at(set, at)->end)) {
				at = (at + 1) % count;
				ip = range_at(set, at)->start;
			} else {
				ip = flat_ip_next(&ip);
			}
		}
		found = true;
		if (!flat_ipam_set_is_gateway(set, &ip)) {
			*ret_ip = ip;
			return true;
		}
	}
	return false;
}

const char *flat_ipam_set_text(const struct flat_ip_range_set *set, char *buf)
{
	size_t len = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < set->ranges.count; i++) {
		char a[FLAT_IP_TEXT], b[FLAT_IP_TEXT];
		if (FLAT_IPAM_SET_TEXT - len < 2 * FLAT_IP_TEXT + 8) {
			strcpy(buf + len, ",...");
			break;
		}
		len += (size_t)snprintf(buf + len, FLAT_IPAM_SET_TEXT - len, "%s%s-%s",
					i ? "," : "", flat_ip_text(&range_at(set, i)->start, a),
					flat_ip_text(&range_at(set, i)->end, b));
	}
	return buf;
}
