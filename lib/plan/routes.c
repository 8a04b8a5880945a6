// SPDX-License-Identifier: Apache-2.0
/*
 * The way to the other nodes: one route for each of their pod subnets, marked with our protocol
 * number. A dump of the routes so marked is compared with the wanted ones; only differences are
 * written. Routes of ours that lead into this network but to no node of the list go; other
 * networks' and other programs' routes are left alone.
 */
#include "plan-internal.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

struct diff {
	const struct flat_attachment *attachment;
	struct flat_net *net;
	uint8_t *present; /* of each wanted route: 0 no, 1 yes, 2 with a wrong gateway */
	struct flat_net_route *stale;
	size_t stale_count, stale_room;
	bool full; /* collect stale routes */
};

int flat_node_route_compare(const void *a, const void *b)
{
	const struct flat_node_route *x = a, *y = b;
	int c = flat_ip_compare(&x->dst.ip, &y->dst.ip);
	return c ? c : (int)x->dst.len - (int)y->dst.len;
}

static bool is_of_cluster(const struct flat_attachment *a, const struct flat_prefix *dst)
{
	for (size_t i = 0; i < a->nft.cluster_count; i++)
		if (a->nft.cluster[i].len <= dst->len &&
		    flat_prefix_contains(&a->nft.cluster[i], &dst->ip))
			return true;
	return false;
}

static int see_route(void *arg, const struct flat_net_route *seen)
{
	struct diff *d = arg;
	const struct flat_attachment *a = d->attachment;
	const struct flat_node_route key = { .dst = seen->route.dst };
	const struct flat_node_route *want = bsearch(&key, a->node_routes, a->node_route_count,
						     sizeof key, flat_node_route_compare);
	if (want) {
		bool same = flat_ip_equal(&want->via, &seen->route.gw);
		uint8_t *present = &d->present[want - a->node_routes];
		if (*present != 1)
			*present = same ? 1 : 2;
		return 0;
	}
	if (!d->full || !is_of_cluster(a, &seen->route.dst))
		return 0;
	if (d->stale_count == d->stale_room) {
		size_t room = d->stale_room ? 2 * d->stale_room : 64;
		struct flat_net_route *more = realloc(d->stale, room * sizeof *more);
		if (!more)
			return -ENOMEM;
		d->stale = more;
		d->stale_room = room;
	}
	d->stale[d->stale_count++] = *seen;
	return 0;
}

static struct flat_net_route kernel_route(const struct flat_node_route *want)
{
	return (struct flat_net_route){
		.route = { .dst = want->dst, .gw = want->via, .scope = -1 },
		.protocol = FLAT_RTPROT,
	};
}

static int look(struct diff *d, struct flat_err *err)
{
	memset(d->present, 0, d->attachment->node_route_count);
	d->stale_count = 0;
	int r = flat_route_each(d->net, 0, 0, FLAT_RTPROT, 0, see_route, d, err);
	return r < 0 ? flat_wrap(err, "routes to other nodes") : 0;
}

static int fail_route(const struct flat_node_route *want, struct flat_err *err)
{
	char dst[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT];
	flat_wrap(err, "route to node '%.64s' (%s via %s)", want->node,
		  flat_prefix_text(&want->dst, dst), flat_ip_text(&want->via, via));
	return 0;
}

/* Some other program's route stands where ours should: fine when it leads to the same node. */
static int settle_foreign(struct diff *d, const struct flat_node_route *want, struct flat_err *err)
{
	struct flat_net_route found;
	char dst[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT];
	int r = flat_route_lookup(d->net, &want->dst.ip, &found, err);
	if (r < 0)
		return r;
	if (r > 0 && flat_ip_equal(&found.route.gw, &want->via))
		return 0;
	flat_fail(err, FLAT_CODE_NETWORK, EEXIST, "route to node '%.64s' (%s via %s)", want->node,
		  flat_prefix_text(&want->dst, dst), flat_ip_text(&want->via, via));
	return flat_detail(
		err,
		"another program's route to that subnet is in the way; see `ip route show exact %s` and remove it",
		dst);
}

static int write_once(struct diff *d, struct flat_applied *applied, struct flat_err *err)
{
	const struct flat_attachment *a = d->attachment;
	struct flat_net_route route;
	size_t written = 0, last = 0;
	for (size_t i = 0; i < d->stale_count; i++, written++)
		flat_route_del(d->net, &d->stale[i], FLAT_GONE_OK);
	for (size_t i = 0; i < a->node_route_count; i++) {
		if (d->present[i] == 1)
			continue;
		route = kernel_route(&a->node_routes[i]);
		flat_route_add(d->net, &route, d->present[i] == 2, FLAT_STRICT);
		if (d->present[i] == 0)
			applied->routes[applied->route_count++] = a->node_routes[i];
		last = i;
		written++;
	}
	if (!written)
		return 0;
	int r = flat_net_commit(d->net, err);
	if (r >= 0 || r == -EEXIST)
		return r;
	if (written == 1 && a->node_route_count)
		fail_route(&a->node_routes[last], err);
	if (r == -ENETUNREACH || r == -EHOSTUNREACH || r == -ENETDOWN || r == -EINVAL) {
		if (err)
			err->code = FLAT_CODE_TRY_LATER;
		if (err && strlen(err->details) + 100 < sizeof err->details) {
			char told[sizeof err->details];
			memcpy(told, err->details, sizeof told);
			err->details[0] = '\0';
			flat_detail(
				err,
				"%.200s%sa node's address must be on a network of this host that is up",
				told, told[0] ? "; " : "");
		}
	}
	return r;
}

int flat_node_routes_ensure(const struct flat_attachment *a, struct flat_net *net,
			    struct flat_applied *applied, struct flat_err *err)
{
	struct diff d = { .attachment = a, .net = net, .full = true };
	int r = 0;
	if (!a->node_routes)
		return 0;
	/* others may write the same at the same time: EEXIST, look again */
	for (int i = 0; i < 8; i++) {
		struct flat_err try = { 0 };
		free(applied->routes);
		free(d.present);
		applied->route_count = 0;
		applied->routes = calloc(a->node_route_count + 1, sizeof *applied->routes);
		d.present = calloc(a->node_route_count + 1, 1);
		if (!d.present || !applied->routes) {
			r = flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "routes to other nodes");
			break;
		}
		r = look(&d, err);
		if (r < 0)
			break;
		r = write_once(&d, applied, &try);
		if (r >= 0)
			break;
		if (r != -EEXIST) {
			*err = try;
			break;
		}
		if (i < 2)
			continue;
		r = 0;
		for (size_t k = 0; k < a->node_route_count && r >= 0; k++)
			if (d.present[k] == 0)
				r = settle_foreign(&d, &a->node_routes[k], err);
		break;
	}
	free(d.present);
	free(d.stale);
	return r;
}

int flat_node_routes_verify(const struct flat_attachment *a, struct flat_net *net,
			    struct flat_err *err)
{
	struct diff d = { .attachment = a,
			  .net = net,
			  .present = calloc(a->node_route_count + 1, 1) };
	char dst[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT];
	if (!d.present)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "routes to other nodes");
	int r = look(&d, err);
	for (size_t i = 0; r >= 0 && i < a->node_route_count; i++) {
		const struct flat_node_route *want = &a->node_routes[i];
		if (d.present[i] == 1 || settle_foreign(&d, want, NULL) >= 0)
			continue;
		r = flat_fail(err, FLAT_CODE_MISMATCH, 0, "route to node '%.64s' (%s via %s) is %s",
			      want->node, flat_prefix_text(&want->dst, dst),
			      flat_ip_text(&want->via, via),
			      d.present[i] ? "there with another gateway" : "missing");
	}
	free(d.present);
	return r;
}
