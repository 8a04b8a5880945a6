// SPDX-License-Identifier: Apache-2.0
#include "example.h"

#include <string.h>

static bool is_taken(const struct flat_book *book, const struct flat_ip *ip)
{
	for (size_t i = 0; book && i < book->count; i++)
		if (flat_ip_equal(&book->entries[i].ip, ip))
			return true;
	return false;
}

/* After as many steps as there are reservations a free one has been met, if there is one. */
static struct flat_ip choose(const struct flat_ip_range_set *set, const struct flat_ip_range *range,
			     const struct flat_book *book)
{
	struct flat_ip ip = range->start;
	for (size_t steps = book ? book->count + 2 : 2; steps--; ip = flat_ip_next(&ip)) {
		if (flat_ip_compare(&ip, &range->end) > 0)
			break;
		if (!flat_ipam_set_is_gateway(set, &ip) && !is_taken(book, &ip))
			return ip;
	}
	return range->start;
}

int flat_example_plan(struct flat_request *req, const struct flat_conf *conf,
		      const struct flat_book *book, struct flat_attachment *ret_attachment,
		      struct flat_err *err)
{
	const struct flat_ip_range_set *sets = conf->ipam.sets.items;
	struct flat_result_ip ips[FLAT_MAX_LEASE];
	struct flat_result lease = { .ips = ips,
				     .routes = conf->ipam.routes.items,
				     .route_count = conf->ipam.routes.count,
				     .dns = conf->ipam.dns };
	const size_t count = conf->ipam_kind == FLAT_IPAM_OWN ? conf->ipam.sets.count : 0;
	for (size_t i = 0; i < count && i < FLAT_MAX_LEASE; i++) {
		const struct flat_ip_range *range = sets[i].ranges.items;
		ips[lease.ip_count++] = (struct flat_result_ip){
			.address = { choose(&sets[i], range, book), range->subnet.len },
			.gateway = range->gateway,
			.interface = -1,
		};
	}
	return flat_plan_attachment(req, conf, &lease, ret_attachment, err);
}
