// SPDX-License-Identifier: Apache-2.0
/*
 * Making it so, and looking whether it is so. Both go the same way: each dump is held against what
 * is wanted, and a difference is either written down to be changed, or the answer.
 *
 * Order: devices; routes that lead nowhere are taken away; neighbours and forwarding entries; then
 * routes, so that no packet is sent before it is known where to. Devices that have no work any more
 * go last, when nothing leads over them. What is read is read after the devices are right: one that
 * was made anew has lost all that hung on it, and the dumps say so.
 *
 * Changes are sent in pieces, so that a first run with thousands of nodes needs no memory for all
 * of their messages at once. Errors do not stop it: a node that cannot be reached must not keep
 * others from being so. The first one is told.
 */
#include "cluster-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	PIECE = 256, /* changes */
	TRIES = 3,   /* of routes, which others may write at the same time */
};

/* Of each wanted thing. */
enum presence { MISSING, THERE, WRONG };
enum asked { NOT_ASKED, WAS_MISSING, WAS_WRONG };

struct stale_fdb {
	struct flat_mac mac;
	struct flat_ip dst;
};

struct work {
	const struct flat_node_state *state;
	struct flat_net *net;
	bool change; /* else only look */
	int index[FLAT_FAMILIES];
	struct flat_repairs *repairs;
	size_t queued;
	bool in_the_way; /* a route was refused because there is one */
	bool refused;	 /* or for another reason */
	int result;	 /* first error */
	struct flat_err *err;

	uint8_t *routes;   /* presence of each */
	uint8_t *asked;	   /* what was written of them in this run */
	uint8_t *presence; /* of neighbours, then of forwarding entries */
	int link;	   /* whose they are */

	/* what is too much, of the dump at hand */
	void *stale;
	size_t stale_count, stale_room;
};

/* ---- keeping account ---------------------------------------------------------------------------
 */

static void note(struct work *w, int r, const struct flat_err *e)
{
	if (r >= 0 || w->result < 0)
		return;
	w->result = r;
	if (!e->code) /* of collecting what a dump tells */
		flat_fail(w->err, FLAT_CODE_INTERNAL, -r, "the way to other nodes");
	else if (w->err && !w->err->code)
		*w->err = *e;
}

static void flush(struct work *w)
{
	struct flat_err e = { 0 };
	int r = flat_net_commit(w->net, &e);
	w->queued = 0;
	note(w, r, &e);
}

static void queued(struct work *w)
{
	if (++w->queued >= PIECE)
		flush(w);
}

/* A difference: changing, it is counted, and told of the first of its kind. Looking, it is the
 * answer. True: to be changed now. */
FLAT_PRINTF(3, 4)
static bool differs(struct work *w, enum flat_repair kind, const char *fmt, ...)
{
	char text[160];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (!w->change) {
		struct flat_err e = { 0 };
		note(w, flat_fail(&e, FLAT_CODE_MISMATCH, 0, "%s", text), &e);
		return false;
	}
	w->repairs->set[kind]++;
	if (!w->repairs->first[kind][0])
		memcpy(w->repairs->first[kind], text, sizeof text);
	return true;
}

FLAT_PRINTF(3, 4)
static void removes(struct work *w, enum flat_repair kind, const char *fmt, ...)
{
	va_list ap;
	if (!w->repairs->first[kind][0]) {
		va_start(ap, fmt);
		vsnprintf(w->repairs->first[kind], sizeof w->repairs->first[kind], fmt, ap);
		va_end(ap);
	}
	w->repairs->removed[kind]++;
}

static int add_stale(struct work *w, const void *elem, size_t size)
{
	if (w->stale_count == w->stale_room) {
		size_t room = w->stale_room ? 2 * w->stale_room : 64;
		void *more = realloc(w->stale, room * size);
		if (!more)
			return -ENOMEM;
		w->stale = more;
		w->stale_room = room;
	}
	memcpy((char *)w->stale + w->stale_count++ * size, elem, size);
	return 0;
}

/* Before a dump of another sort of things. */
static void begin_stale(struct work *w)
{
	free(w->stale);
	w->stale = NULL;
	w->stale_count = w->stale_room = 0;
}

static const char *was(const struct work *w)
{
	return w->change ? "was" : "is";
}

/* ---- devices -----------------------------------------------------------------------------------
 */

struct rival {
	const struct flat_wanted_link *want;
	char name[FLAT_IFNAME_LEN];
};

static int see_rival(void *arg, const struct flat_link *link)
{
	struct rival *rival = arg;
	const struct flat_vxlan *a = &link->vxlan, *b = &rival->want->vxlan;
	if (a->vni == b->vni && a->port == b->port &&
	    (a->local.family == AF_INET6) == (b->local.family == AF_INET6))
		memcpy(rival->name, link->name, sizeof rival->name);
	return 0;
}

/* The kernel has one device for a VNI, a port and a family. */
static int name_rival(struct work *w, const struct flat_wanted_link *want, struct flat_err *e)
{
	struct rival rival = { .want = want };
	flat_link_each(w->net, "vxlan", 0, see_rival, &rival, NULL);
	if (!rival.name[0])
		return -EEXIST;
	*e = (struct flat_err){ 0 };
	flat_fail(e, FLAT_CODE_CONFIG, EEXIST,
		  "add VXLAN device '%s': '%s' has VNI %u and port %u already", want->name,
		  rival.name, want->vxlan.vni, want->vxlan.port);
	return flat_detail(
		e, "remove it with `ip link del %s`, or use its name, another VNI or another port",
		rival.name);
}

static int make_link(struct work *w, const struct flat_wanted_link *want,
		     struct flat_link *ret_link, struct flat_err *e)
{
	flat_link_add_vxlan(w->net, want->name, &want->mac, want->mtu, &want->vxlan, FLAT_STRICT);
	int r = flat_net_commit(w->net, e);
	if (r == -EEXIST)
		r = name_rival(w, want, e);
	return r < 0 ? r : flat_link_by_name(w->net, want->name, ret_link, e);
}

/* 1: it is there, *ret_link; 0: it is not. */
static int settle_link(struct work *w, const struct flat_wanted_link *want,
		       struct flat_link *ret_link, struct flat_err *e)
{
	int r = flat_link_by_name(w->net, want->name, ret_link, e);
	if (r < 0)
		return r;
	if (r > 0 && strcmp(ret_link->kind, "vxlan") != 0) {
		flat_fail(e, FLAT_CODE_CONFIG, EEXIST,
			  "a link '%s' exists and is not a VXLAN device", want->name);
		return flat_detail(e, "rename or remove it, or give the VXLAN device another name");
	}
	const char *fault = r > 0 ? flat_link_wants_making(want, ret_link) : NULL;
	if (r > 0 && fault) {
		if (!differs(w, FLAT_REPAIR_LINK, "VXLAN device '%s' %s there with %s", want->name,
			     was(w), fault))
			return 0;
		flat_link_del(w->net, ret_link->index, FLAT_GONE_OK);
		return make_link(w, want, ret_link, e);
	}
	if (r == 0)
		return differs(w, FLAT_REPAIR_LINK, "VXLAN device '%s' %s missing", want->name,
			       was(w))
			       ? make_link(w, want, ret_link, e)
			       : 0;
	fault = flat_link_wants_change(want, ret_link);
	if (fault &&
	    differs(w, FLAT_REPAIR_LINK, "VXLAN device '%s' %s %s", want->name, was(w), fault)) {
		struct flat_link_change change = FLAT_LINK_CHANGE;
		change.up = 1;
		change.mtu = want->mtu == ret_link->mtu ? 0 : want->mtu;
		if (memcmp(&want->mac, &ret_link->mac, sizeof want->mac) != 0)
			change.mac = &want->mac;
		flat_link_change(w->net, ret_link->index, &change, FLAT_STRICT);
		r = flat_net_commit(w->net, e);
	}
	return r < 0 ? r : 1;
}

struct addresses {
	struct work *w;
	const struct flat_wanted_link *want;
	bool found[FLAT_NODE_CIDRS];
};

static int see_address(void *arg, const struct flat_addr *addr)
{
	struct addresses *a = arg;
	bool wanted = false;
	for (size_t i = 0; i < a->want->address_count; i++)
		if (flat_prefix_equal(&a->want->addresses[i], &addr->address))
			a->found[i] = wanted = true;
	if (wanted || !a->w->change || flat_address_is_kernels(&addr->address))
		return 0;
	return add_stale(a->w, addr, sizeof *addr);
}

static int settle_addresses(struct work *w, const struct flat_wanted_link *want, int index,
			    struct flat_err *e)
{
	struct addresses a = { .w = w, .want = want };
	char text[FLAT_PREFIX_TEXT];
	begin_stale(w);
	int r = flat_addr_each(w->net, index, 0, see_address, &a, e);
	if (r < 0)
		return r;
	const struct flat_addr *stale = w->stale;
	for (size_t i = 0; i < w->stale_count; i++) {
		removes(w, FLAT_REPAIR_ADDRESS, "address %s of '%s' was not its own",
			flat_prefix_text(&stale[i].address, text), want->name);
		flat_addr_del(w->net, index, &stale[i].address, FLAT_GONE_OK);
	}
	for (size_t i = 0; i < want->address_count; i++)
		if (!a.found[i] &&
		    differs(w, FLAT_REPAIR_ADDRESS, "address %s of '%s' %s missing",
			    flat_prefix_text(&want->addresses[i], text), want->name, was(w)))
			flat_addr_add(w->net, index, &want->addresses[i], 0, FLAT_EXISTS_OK);
	return flat_net_commit(w->net, e);
}

static void settle_links(struct work *w)
{
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_wanted_link *want = &w->state->links[f];
		struct flat_err e = { 0 };
		struct flat_link link;
		if (!want->name[0])
			continue;
		int r = settle_link(w, want, &link, &e);
		if (r > 0) {
			w->index[f] = link.index;
			r = settle_addresses(w, want, link.index, &e);
		}
		note(w, r, &e);
	}
}

static void remove_idle(struct work *w)
{
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		struct flat_err e = { 0 };
		struct flat_link link;
		if (!w->state->idle[f].name[0])
			continue;
		int r = flat_link_by_name(w->net, w->state->idle[f].name, &link, &e);
		if (r > 0 && !strcmp(link.kind, "vxlan") &&
		    link.vxlan.vni == w->state->idle[f].vni) {
			removes(w, FLAT_REPAIR_LINK, "VXLAN device '%s' had no work", link.name);
			flat_link_del(w->net, link.index, FLAT_GONE_OK);
			r = flat_net_commit(w->net, &e);
		}
		note(w, r, &e);
	}
}

/* ---- routes ------------------------------------------------------------------------------------
 */

static int see_route(void *arg, const struct flat_net_route *seen)
{
	struct work *w = arg;
	const struct flat_wanted_route *want = flat_state_find_route(w->state, &seen->route.dst);
	if (want && flat_route_is_plain(seen)) {
		uint8_t *presence = &w->routes[want - w->state->routes];
		if (*presence != THERE)
			*presence = flat_route_is_as_wanted(want, seen, w->index) ? THERE : WRONG;
		return 0;
	}
	if (!w->change || !flat_state_covers(w->state, &seen->route.dst))
		return 0;
	return add_stale(w, seen, sizeof *seen);
}

static int look_at_routes(struct work *w, struct flat_err *e)
{
	begin_stale(w);
	memset(w->routes, MISSING, w->state->route_count);
	int r = flat_route_each(w->net, 0, 0, FLAT_RTPROT, 0, see_route, w, e);
	return r < 0 ? flat_wrap(e, "routes to other nodes") : 0;
}

static bool has_device(const struct work *w, int link)
{
	return link < 0 || w->index[link];
}

static void remove_routes(struct work *w)
{
	const struct flat_net_route *stale = w->stale;
	char dst[FLAT_PREFIX_TEXT];
	for (size_t i = 0; i < w->stale_count; i++) {
		removes(w, FLAT_REPAIR_ROUTE, "route to %s led to no node",
			flat_prefix_text(&stale[i].route.dst, dst));
		flat_route_del(w->net, &stale[i], FLAT_GONE_OK);
		queued(w);
	}
}

/* Which node's route was refused? The message has its destination. */
static void name_node(const struct work *w, struct flat_err *e)
{
	const struct flat_node_state *s = w->state;
	char dst[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT], text[FLAT_PREFIX_TEXT + FLAT_IP_TEXT + 8];
	for (size_t i = 0; i < s->route_count; i++) {
		if (w->routes[i] == THERE)
			continue;
		flat_prefix_text(&s->routes[i].dst, dst);
		flat_ip_text(&s->routes[i].via, via);
		snprintf(text, sizeof text, " %s via %s", dst, via);
		if (strstr(e->msg, text)) {
			flat_wrap(e, "route to node '%.64s' (%s via %s)", s->routes[i].node, dst,
				  via);
			return;
		}
	}
}

static void flush_routes(struct work *w)
{
	struct flat_err e = { 0 };
	int r = flat_net_commit(w->net, &e);
	w->queued = 0;
	if (r == -EEXIST) {
		w->in_the_way = true;
		return;
	}
	if (r < 0) {
		w->refused = true;
		name_node(w, &e);
	}
	if (r == -ENETUNREACH || r == -EHOSTUNREACH || r == -ENETDOWN || r == -EINVAL) {
		char told[sizeof e.details];
		memcpy(told, e.details, sizeof told);
		e.code = FLAT_CODE_TRY_LATER;
		e.details[0] = '\0';
		flat_detail(&e,
			    "%.200s%sa node's address must be on a network of this host that is up",
			    told, told[0] ? "; " : "");
	}
	note(w, r, &e);
}

static void write_routes(struct work *w)
{
	const struct flat_node_state *s = w->state;
	for (size_t i = 0; i < s->route_count; i++) {
		const struct flat_wanted_route *want = &s->routes[i];
		if (w->routes[i] == THERE || !has_device(w, want->link))
			continue;
		const struct flat_net_route route = {
			.route = { .dst = want->dst, .gw = want->via, .scope = -1 },
			.oif = want->link < 0 ? 0 : w->index[want->link],
			.protocol = FLAT_RTPROT,
			.onlink = want->onlink,
		};
		if (w->routes[i] == MISSING && !w->asked[i])
			w->repairs->added[w->repairs->added_count++] = want->dst;
		if (!w->asked[i])
			w->asked[i] = w->routes[i] == MISSING ? WAS_MISSING : WAS_WRONG;
		bool replace = w->routes[i] == WRONG;
		if (replace && want->onlink && want->dst.ip.family == AF_INET6) {
			/* the gateway is in the subnet: while another link leads there, it is
			 * refused (ip6_route_check_nh_onlink() in net/ipv6/route.c) */
			const struct flat_net_route old = {
				.route = { .dst = want->dst, .scope = -1 }, .protocol = FLAT_RTPROT
			};
			flat_route_del(w->net, &old, FLAT_GONE_OK);
			replace = false;
		}
		flat_route_add(w->net, &route, replace, FLAT_STRICT);
		if (++w->queued >= PIECE)
			flush_routes(w);
	}
	flush_routes(w);
}

/* Some other program's route stands where ours should: fine when it leads to the same node. */
static int settle_foreign(const struct work *w, const struct flat_wanted_route *want,
			  struct flat_err *e)
{
	struct flat_net_route found;
	char dst[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT];
	int r = flat_route_lookup(w->net, &want->dst.ip, &found, e);
	if (r < 0)
		return r;
	if (r > 0 && flat_route_is_as_wanted(want, &found, w->index))
		return 0;
	flat_fail(e, FLAT_CODE_NETWORK, EEXIST, "route to node '%.64s' (%s via %s)", want->node,
		  flat_prefix_text(&want->dst, dst), flat_ip_text(&want->via, via));
	return flat_detail(
		e,
		"another program's route to that subnet is in the way; see `ip route show exact %s` and remove it",
		dst);
}

/* ---- neighbours and forwarding entries ---------------------------------------------------------
 */

static int see_neigh(void *arg, const struct flat_neigh *seen)
{
	struct work *w = arg;
	const struct flat_wanted_neigh *want = flat_state_find_neigh(w->state, &seen->ip, w->link);
	if (want)
		w->presence[want - w->state->neighs] =
			flat_neigh_is_as_wanted(want, seen) ? THERE : WRONG;
	else if (w->change && !flat_neigh_is_kernels(seen))
		return add_stale(w, &seen->ip, sizeof seen->ip);
	return 0;
}

static int settle_neighs(struct work *w, int f, struct flat_err *e)
{
	const struct flat_node_state *s = w->state;
	const char *device = s->links[f].name;
	char text[FLAT_IP_TEXT];
	begin_stale(w);
	memset(w->presence, MISSING, s->neigh_count);
	w->link = f;
	int r = flat_neigh_each(w->net, w->index[f], 0, see_neigh, w, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->neigh_count; i++) {
		const struct flat_wanted_neigh *want = &s->neighs[i];
		if (want->link == f && w->presence[i] != THERE &&
		    differs(w, FLAT_REPAIR_NEIGH, "neighbour %s on '%s' of node '%.64s' %s %s",
			    flat_ip_text(&want->ip, text), device, want->node, was(w),
			    w->presence[i] == WRONG ? "wrong" : "missing")) {
			flat_neigh_set(w->net, w->index[f], &want->ip, &want->mac);
			queued(w);
		}
	}
	const struct flat_ip *stale = w->stale;
	for (size_t i = 0; i < w->stale_count; i++) {
		removes(w, FLAT_REPAIR_NEIGH, "neighbour %s on '%s' was of no node",
			flat_ip_text(&stale[i], text), device);
		flat_neigh_del(w->net, w->index[f], &stale[i], FLAT_GONE_OK);
		queued(w);
	}
	return 0;
}

static int see_fdb(void *arg, const struct flat_fdb *seen)
{
	struct work *w = arg;
	const struct stale_fdb elsewhere = { seen->mac, seen->dst };
	const struct flat_wanted_fdb *want = flat_state_find_fdb(w->state, &seen->mac, w->link);
	if (want && flat_fdb_is_as_wanted(want, seen)) {
		w->presence[want - w->state->fdb] = THERE;
		return 0;
	}
	if (want && w->presence[want - w->state->fdb] == MISSING)
		w->presence[want - w->state->fdb] = WRONG;
	/* the right one, that will age: setting it makes it permanent */
	if (want && flat_ip_equal(&want->dst, &seen->dst))
		return 0;
	if (!w->change || flat_fdb_is_kernels(seen))
		return 0;
	return add_stale(w, &elsewhere, sizeof elsewhere);
}

static int settle_fdb(struct work *w, int f, struct flat_err *e)
{
	const struct flat_node_state *s = w->state;
	const char *device = s->links[f].name;
	char mac[FLAT_MAC_TEXT];
	begin_stale(w);
	memset(w->presence, MISSING, s->fdb_count);
	w->link = f;
	int r = flat_fdb_each(w->net, w->index[f], see_fdb, w, e);
	if (r < 0)
		return r;
	/* what leads elsewhere goes first: the kernel would keep some of it beside the new one */
	const struct stale_fdb *stale = w->stale;
	for (size_t i = 0; i < w->stale_count; i++) {
		const struct flat_wanted_fdb *want = flat_state_find_fdb(s, &stale[i].mac, f);
		if (!want || w->presence[want - s->fdb] == THERE)
			removes(w, FLAT_REPAIR_FDB, "forwarding entry %s on '%s' was of no node",
				flat_mac_text(&stale[i].mac, mac), device);
		flat_fdb_del(w->net, w->index[f], &stale[i].mac, &stale[i].dst, FLAT_GONE_OK);
		queued(w);
	}
	for (size_t i = 0; i < s->fdb_count; i++) {
		const struct flat_wanted_fdb *want = &s->fdb[i];
		if (want->link == f && w->presence[i] != THERE &&
		    differs(w, FLAT_REPAIR_FDB, "forwarding entry %s on '%s' of node '%.64s' %s %s",
			    flat_mac_text(&want->mac, mac), device, want->node, was(w),
			    w->presence[i] == WRONG ? "wrong" : "missing")) {
			flat_fdb_set(w->net, w->index[f], &want->mac, &want->dst);
			queued(w);
		}
	}
	return 0;
}

static void settle_peers(struct work *w)
{
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		struct flat_err e = { 0 };
		if (!w->index[f])
			continue;
		int r = settle_neighs(w, f, &e);
		if (r >= 0)
			r = settle_fdb(w, f, &e);
		note(w, r, &e);
	}
	if (w->index[FLAT_V4] || w->index[FLAT_V6])
		flush(w);
}

/* ---- all together ------------------------------------------------------------------------------
 */

static int prepare(struct work *w, struct flat_err *err)
{
	const struct flat_node_state *s = w->state;
	const size_t most = s->neigh_count > s->fdb_count ? s->neigh_count : s->fdb_count;
	w->routes = calloc(s->route_count + 1, sizeof *w->routes);
	w->presence = calloc(most + 1, sizeof *w->presence);
	w->asked = calloc(s->route_count + 1, sizeof *w->asked);
	if (w->change)
		w->repairs->added = malloc((s->route_count + 1) * sizeof *w->repairs->added);
	if (!w->routes || !w->presence || !w->asked || (w->change && !w->repairs->added))
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "routes to other nodes");
	return 0;
}

static void finish(struct work *w)
{
	free(w->routes);
	free(w->presence);
	free(w->asked);
	free(w->stale);
}

/* What was written and is there. */
static void count_routes(struct work *w, bool all)
{
	const struct flat_node_state *s = w->state;
	char dst[FLAT_PREFIX_TEXT];
	for (size_t i = 0; i < s->route_count; i++)
		if (w->asked[i] && (all || w->routes[i] == THERE))
			differs(w, FLAT_REPAIR_ROUTE, "route to %s of node '%.64s' %s",
				flat_prefix_text(&s->routes[i].dst, dst), s->routes[i].node,
				w->asked[i] == WAS_WRONG ? "led elsewhere" : "was missing");
}

/* Others may write the same at the same time: refused, look again. */
static void settle_routes(struct work *w)
{
	struct flat_err e = { 0 };
	int r = 0;
	for (int i = 0; i < TRIES && r >= 0 && (i == 0 || w->in_the_way); i++) {
		w->in_the_way = false;
		r = look_at_routes(w, &e);
		if (r < 0)
			break;
		remove_routes(w);
		if (i == 0)
			settle_peers(w);
		write_routes(w);
	}
	const bool all = r >= 0 && !w->in_the_way && !w->refused;
	if (r >= 0 && !all)
		r = look_at_routes(w, &e);
	count_routes(w, all);
	for (size_t k = 0; r >= 0 && w->in_the_way && k < w->state->route_count; k++)
		if (w->routes[k] == MISSING && has_device(w, w->state->routes[k].link))
			r = settle_foreign(w, &w->state->routes[k], &e);
	note(w, r, &e);
}

int flat_node_state_ensure(const struct flat_node_state *state, struct flat_net *net,
			   struct flat_repairs *ret_repairs, struct flat_err *err)
{
	struct work w = {
		.state = state, .net = net, .change = true, .repairs = ret_repairs, .err = err
	};
	*ret_repairs = (struct flat_repairs){ 0 };
	int r = prepare(&w, err);
	if (r >= 0) {
		settle_links(&w);
		settle_routes(&w);
		remove_idle(&w);
		r = w.result;
	}
	finish(&w);
	return r;
}

static void verify_routes(struct work *w)
{
	struct flat_err e = { 0 };
	char dst[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT];
	int r = look_at_routes(w, &e);
	for (size_t i = 0; r >= 0 && i < w->state->route_count; i++) {
		const struct flat_wanted_route *want = &w->state->routes[i];
		if (w->routes[i] == THERE || settle_foreign(w, want, NULL) >= 0)
			continue;
		r = flat_fail(&e, FLAT_CODE_MISMATCH, 0, "route to node '%.64s' (%s via %s) is %s",
			      want->node, flat_prefix_text(&want->dst, dst),
			      flat_ip_text(&want->via, via),
			      w->routes[i] == WRONG ? "there with another gateway" : "missing");
	}
	note(w, r, &e);
}

int flat_node_state_verify(const struct flat_node_state *state, struct flat_net *net,
			   struct flat_err *err)
{
	struct work w = { .state = state, .net = net, .err = err };
	int r = prepare(&w, err);
	if (r >= 0) {
		settle_links(&w);
		settle_peers(&w);
		verify_routes(&w);
		r = w.result;
	}
	finish(&w);
	return r;
}

void flat_repairs_free(struct flat_repairs *repairs)
{
	free(repairs->added);
	*repairs = (struct flat_repairs){ 0 };
}
