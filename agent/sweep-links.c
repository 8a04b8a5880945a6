// SPDX-License-Identifier: Apache-2.0
/* One look at the links: what they claim, and which are bare. */
#include "sweep-private.h"

#include <flatnet/plan.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BARE = 4096, MAX_READS = 16 };

int flat_sweep_grow(void *items, size_t count, size_t *room, size_t size)
{
	void **array = items;
	if (count < *room)
		return 0;
	size_t want = *room ? 2 * *room : 16;
	void *more = realloc(*array, want * size);
	if (!more)
		return -ENOMEM;
	*array = more;
	*room = want;
	return 0;
}

static int see_bare(struct flat_sweep *sweep, const struct flat_link *link)
{
	for (size_t i = 0; i < sweep->bare_count; i++)
		if (sweep->bare[i].index == link->index &&
		    !strcmp(sweep->bare[i].name, link->name)) {
			sweep->bare[i].here = true;
			return 0;
		}
	if (sweep->bare_count == MAX_BARE)
		return 0;
	if (flat_sweep_grow(&sweep->bare, sweep->bare_count, &sweep->bare_room,
			    sizeof *sweep->bare) < 0)
		return -ENOMEM;
	struct flat_sweep_bare *bare = &sweep->bare[sweep->bare_count++];
	*bare = (struct flat_sweep_bare){ .index = link->index,
					  .since_ms = flat_now_ms(),
					  .here = true };
	memcpy(bare->name, link->name, sizeof bare->name);
	return 0;
}

static int see_link(void *arg, const struct flat_link *link)
{
	struct flat_sweep *sweep = arg;
	struct flat_alias alias;
	if (!flat_name_is_host_veth(link->name))
		return 0;
	if (!link->alias[0])
		return see_bare(sweep, link);
	if (!flat_alias_parse(link->alias, &alias))
		return 0;
	if (flat_sweep_grow(&sweep->links, sweep->link_count, &sweep->link_room,
			    sizeof *sweep->links) < 0)
		return -ENOMEM;
	struct flat_sweep_link *seen = &sweep->links[sweep->link_count];
	*seen = (struct flat_sweep_link){
		.index = link->index,
		.cut = alias.cut,
		.network = flat_arena_strdup(&sweep->arena, alias.network),
		.container_id = flat_arena_strdup(&sweep->arena, alias.container_id),
		.ifname = flat_arena_strdup(&sweep->arena, alias.ifname),
	};
	memcpy(seen->name, link->name, sizeof seen->name);
	if (!seen->network || !seen->container_id || !seen->ifname)
		return -ENOMEM;
	for (size_t i = 0; i < alias.ip_count; i++) {
		if (flat_sweep_grow(&sweep->claims, sweep->claim_count, &sweep->claim_room,
				    sizeof *sweep->claims) < 0)
			return -ENOMEM;
		sweep->claims[sweep->claim_count++] =
			(struct flat_sweep_claim){ alias.ips[i], sweep->link_count };
	}
	sweep->link_count++;
	return 0;
}

static int compare_claims(const void *a, const void *b)
{
	const struct flat_sweep_claim *x = a, *y = b;
	int c = flat_ip_compare(&x->ip, &y->ip);
	return c ? c : (x->link > y->link) - (x->link < y->link);
}

static void hear(void *arg, const struct flat_event *event)
{
	struct flat_sweep *sweep = arg;
	if (event->kind == FLAT_EVENT_LOST ||
	    (event->kind == FLAT_EVENT_LINK && flat_name_is_host_veth(event->link.name)))
		sweep->links_known = false;
}

int flat_sweep_look_at_links(struct flat_sweep_pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	size_t kept = 0;
	int r = 1;
	/* what is told from here on is for the next pass; too much for now is a change anyway */
	for (int i = 0; i < MAX_READS && r > 0; i++)
		r = flat_monitor_read(sweep->monitor, hear, sweep, pass->err);
	if (r > 0)
		sweep->links_known = false;
	for (size_t i = 0; i < sweep->bare_count; i++)
		sweep->bare[i].in_flight = sweep->bare[i].in_store = false;
	if (r >= 0 && sweep->links_known)
		return 0;
	for (size_t i = 0; i < sweep->bare_count; i++)
		sweep->bare[i].here = false;
	sweep->links_known = false;
	sweep->link_count = sweep->claim_count = 0;
	flat_arena_free(&sweep->arena);
	if (r >= 0)
		r = flat_link_each(pass->net, "veth", 0, see_link, sweep, pass->err);
	if (r < 0) {
		flat_fail(pass->err, FLAT_CODE_INTERNAL, -r, "look at the links");
		return r;
	}
	for (size_t i = 0; i < sweep->bare_count; i++)
		if (sweep->bare[i].here)
			sweep->bare[kept++] = sweep->bare[i];
	sweep->bare_count = kept;
	if (sweep->claim_count)
		qsort(sweep->claims, sweep->claim_count, sizeof *sweep->claims, compare_claims);
	sweep->links_known = true;
	sweep->features_swept = false;
	return 0;
}

size_t flat_sweep_find_claim(const struct flat_sweep_pass *pass, const struct flat_ip *ip)
{
	size_t low = 0, high = pass->sweep->claim_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (flat_ip_compare(&pass->sweep->claims[middle].ip, ip) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct flat_sweep_link *flat_sweep_claimant(const struct flat_sweep_pass *pass, size_t claim,
						  const char *network)
{
	const struct flat_sweep_link *link = &pass->sweep->links[pass->sweep->claims[claim].link];
	return flat_alias_names(link->network, network) ? link : NULL;
}
