// SPDX-License-Identifier: Apache-2.0
/*
 * From one plan to the next, without a look at the kernel: what they differ in is written as if the
 * kernel had the first one. With thousands of nodes a look takes many times as long as the change
 * of one, and who waits for that node does not care about the others. Where the kernel was not as
 * planned, some of it is refused, or not enough; the look that follows finds that, and tells.
 */
#include "cluster-internal.h"

#include <string.h>

/* Both plans' things of a sort, in their common order. */
struct sort {
	const void *old, *new;
	size_t old_count, new_count, size;
	int (*compare)(const void *a, const void *b);
	bool (*equal)(const void *a, const void *b);
	/* NULL: there is none */
	void (*write)(struct flat_net *net, const int *indices, const void *old, const void *new);
};

/* ---- routes ---- */

static bool equal_routes(const void *a, const void *b)
{
	const struct flat_wanted_route *x = a, *y = b;
	return flat_ip_equal(&x->via, &y->via) && x->link == y->link && x->onlink == y->onlink;
}

static struct flat_net_route as_route(const struct flat_wanted_route *want, const int *indices)
{
	return (struct flat_net_route){
		.route = { .dst = want->dst, .gw = want->via, .scope = -1 },
		.oif = want->link < 0 ? 0 : indices[want->link],
		.protocol = FLAT_RTPROT,
		.onlink = want->onlink,
	};
}

static void remove_route(struct flat_net *net, const int *indices, const void *old, const void *new)
{
	if (!old)
		return;
	(void)new;
	const struct flat_net_route route = as_route(old, indices);
	flat_route_del(net, &route, FLAT_GONE_OK);
}

/* Never in the place of what is there: that may be another program's. */
static void add_route(struct flat_net *net, const int *indices, const void *old, const void *new)
{
	(void)old;
	if (!new)
		return;
	const struct flat_net_route route = as_route(new, indices);
	flat_route_add(net, &route, false, FLAT_EXISTS_OK);
}

/* ---- neighbours and forwarding entries ---- */

static bool equal_neighs(const void *a, const void *b)
{
	const struct flat_wanted_neigh *x = a, *y = b;
	return !memcmp(&x->mac, &y->mac, sizeof x->mac);
}

static void write_neigh(struct flat_net *net, const int *indices, const void *old, const void *new)
{
	const struct flat_wanted_neigh *was = old, *is = new;
	if (is)
		flat_neigh_set(net, indices[is->link], &is->ip, &is->mac);
	else if (was)
		flat_neigh_del(net, indices[was->link], &was->ip, FLAT_GONE_OK);
}

static bool equal_fdb(const void *a, const void *b)
{
	const struct flat_wanted_fdb *x = a, *y = b;
	return flat_ip_equal(&x->dst, &y->dst);
}

static void write_fdb(struct flat_net *net, const int *indices, const void *old, const void *new)
{
	const struct flat_wanted_fdb *was = old, *is = new;
	if (was) /* the kernel may keep it beside the new one */
		flat_fdb_del(net, indices[was->link], &was->mac, &was->dst, FLAT_GONE_OK);
	if (is)
		flat_fdb_set(net, indices[is->link], &is->mac, &is->dst);
}

/* ---- all together ---- */

static const void *item(const void *items, size_t size, size_t i)
{
	return (const char *)items + i * size;
}

/* How many differ; with net they are written. */
static size_t walk(const struct sort *sort, struct flat_net *net, const int *indices)
{
	size_t differ = 0;
	for (size_t o = 0, n = 0; o < sort->old_count || n < sort->new_count;) {
		const void *was = NULL, *is = NULL;
		if (o < sort->old_count)
			was = item(sort->old, sort->size, o);
		if (n < sort->new_count)
			is = item(sort->new, sort->size, n);
		const int c = !was ? 1 : !is ? -1 : sort->compare(was, is);
		if (c > 0)
			was = NULL;
		else
			o++;
		if (c < 0)
			is = NULL;
		else
			n++;
		if (was && is && sort->equal(was, is))
			continue;
		differ++;
		if (net)
			sort->write(net, indices, was, is);
	}
	return differ;
}

static bool equal_links(const struct flat_node_state *a, const struct flat_node_state *b,
			const int indices[static FLAT_FAMILIES])
{
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (strcmp(a->links[f].name, b->links[f].name) != 0 ||
		    (b->links[f].name[0] && !indices[f]))
			return false;
	return true;
}

int flat_node_state_step(const struct flat_node_state *old, const struct flat_node_state *new,
			 const int indices[static FLAT_FAMILIES], size_t most, struct flat_net *net)
{
	const struct sort routes = { old->routes,	  new->routes,
				     old->route_count,	  new->route_count,
				     sizeof *new->routes, flat_wanted_route_compare,
				     equal_routes,	  remove_route };
	const struct sort neighs = { old->neighs,	  new->neighs,
				     old->neigh_count,	  new->neigh_count,
				     sizeof *new->neighs, flat_wanted_neigh_compare,
				     equal_neighs,	  write_neigh };
	const struct sort fdb = { old->fdb,	  new->fdb,	    old->fdb_count,
				  new->fdb_count, sizeof *new->fdb, flat_wanted_fdb_compare,
				  equal_fdb,	  write_fdb };
	struct sort added = routes;
	added.write = add_route;
	if (!equal_links(old, new, indices))
		return 0;
	const size_t differ =
		walk(&routes, NULL, NULL) + walk(&neighs, NULL, NULL) + walk(&fdb, NULL, NULL);
	if (!differ || differ > most)
		return 0;
	/* nothing is sent before it is known where to */
	walk(&routes, net, indices);
	walk(&neighs, net, indices);
	walk(&fdb, net, indices);
	walk(&added, net, indices);
	flat_net_commit(net, NULL);
	return (int)differ;
}
