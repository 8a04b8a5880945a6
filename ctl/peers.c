// SPDX-License-Identifier: Apache-2.0
#include "peers.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STATE_FILE "/var/lib/flatnet/state.json"

enum { PING_MS = 900 };

static int no_memory(struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodes");
}

/* ---- the list ----------------------------------------------------------------------------------
 */

static struct flat_peer *grow(struct flat_ctl *ctl, struct flat_peers *peers, size_t count)
{
	struct flat_peer *items =
		flat_arena_alloc(&ctl->arena, (peers->count + count + 1) * sizeof *items);
	if (items && peers->count)
		memcpy(items, peers->items, peers->count * sizeof *items);
	if (items)
		peers->items = items;
	return items;
}

static int take_nodes(struct flat_ctl *ctl, struct flat_peers *peers,
		      const struct flat_json_list *nodes, struct flat_err *err)
{
	if (!grow(ctl, peers, nodes->count))
		return no_memory(err);
	for (size_t i = 0; i < nodes->count; i++)
		peers->items[peers->count++] =
			(struct flat_peer){ .node = ((const struct flat_node *)nodes->items)[i],
					    .rtt_us = -1 };
	return 0;
}

static int take_file(struct flat_ctl *ctl, struct flat_peers *peers, const char *path,
		     struct flat_err *err)
{
	struct flat_json_list told = { 0 };
	int r = flat_nodes_read_each(path, &ctl->arena, &told, err);
	if (r < 0)
		return r;
	if (!grow(ctl, peers, told.count))
		return no_memory(err);
	for (size_t i = 0; i < told.count; i++) {
		const struct flat_told_node *node = &((struct flat_told_node *)told.items)[i];
		peers->items[peers->count++] = (struct flat_peer){ .node = node->node,
								   .fault = node->fault,
								   .rtt_us = -1 };
	}
	return 0;
}

/* The agent's file has this node apart from the others. */
static int take_self(struct flat_ctl *ctl, struct flat_peers *peers, const char *path,
		     struct flat_err *err)
{
	static const struct flat_json_field fields[] = {
		{ .key = "self", FLAT_JSON_OBJECT, 0, .table = flat_node_fields },
		FLAT_JSON_END,
	};
	struct flat_json *json = NULL;
	struct flat_node self = { 0 };
	const char *text = NULL;
	size_t len = 0;
	int r = flat_file_read(ctl, path, &text, &len, err);
	if (r >= 0)
		r = flat_json_parse(text, len, &json, err);
	if (r >= 0)
		r = flat_json_decode(json, "", fields, &self, &ctl->arena, err);
	flat_json_free(json);
	if (r < 0 || !self.name)
		return r < 0 ? flat_wrap(err, "'%.128s'", path) : 0;
	for (size_t i = 0; i < peers->count; i++)
		if (!strcmp(peers->items[i].node.name, self.name))
			return 0;
	const struct flat_json_list one = { &self, 1 };
	return take_nodes(ctl, peers, &one, err);
}

static int find_list(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_peers *peers,
		     struct flat_err *err)
{
	const char *state = ctl->state_file ? ctl->state_file : STATE_FILE;
	int r;
	if (ctl->nodes_file) {
		peers->source = ctl->nodes_file;
		return take_file(ctl, peers, ctl->nodes_file, err);
	}
	for (size_t i = 0; i < scene->network_count && !ctl->state_file; i++) {
		const struct flat_network *network = &scene->networks[i];
		if (!network->has_conf || !network->conf.nodes.count ||
		    (ctl->network && strcmp(ctl->network, network->name) != 0))
			continue;
		peers->source = network->file;
		peers->self = network->conf.self;
		peers->before_first = !network->pods;
		return take_nodes(ctl, peers, &network->conf.nodes, err);
	}
	if (!ctl->state_file && access(state, F_OK) < 0 && errno == ENOENT)
		return 0;
	peers->source = state;
	r = take_file(ctl, peers, state, err);
	return r < 0 ? r : take_self(ctl, peers, state, err);
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct flat_peer *)a)->node.name,
		      ((const struct flat_peer *)b)->node.name);
}

/* By name, else by an address that is this host's. */
static int find_self(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_peers *peers,
		     struct flat_err *err)
{
	const char *names[] = { ctl->host.node_name,
				peers->self ? peers->self->name : ctl->host.host_name };
	peers->self = NULL;
	for (size_t n = 0; n < FLAT_LEN(names) && !peers->self; n++)
		for (size_t i = 0; names[n] && i < peers->count && !peers->self; i++)
			if (!strcmp(peers->items[i].node.name, names[n]))
				peers->self = &peers->items[i].node;
	for (size_t i = 0; i < peers->count && !peers->self; i++)
		for (int f = 0; f < FLAT_FAMILIES; f++) {
			const struct flat_ip *ip = &peers->items[i].node.addresses[f];
			struct flat_net_route route;
			int r = ip->family ? flat_route_lookup(scene->net, ip, &route, err) : 0;
			if (r < 0)
				return r;
			if (r > 0 && route.type == RTN_LOCAL)
				peers->self = &peers->items[i].node;
		}
	for (size_t i = 0; i < peers->count; i++)
		peers->items[i].self = &peers->items[i].node == peers->self;
	return 0;
}

/* ---- the kernel --------------------------------------------------------------------------------
 */

struct kernel {
	struct flat_net_route *routes;
	size_t count, room;
};

static void free_kernel(struct kernel *kernel)
{
	free(kernel->routes);
}

static int collect(void *arg, const struct flat_net_route *route)
{
	struct kernel *kernel = arg;
	if (kernel->count == kernel->room) {
		const size_t room = kernel->room ? 2 * kernel->room : 64;
		struct flat_net_route *more = realloc(kernel->routes, room * sizeof *more);
		if (!more)
			return -ENOMEM;
		kernel->routes = more;
		kernel->room = room;
	}
	kernel->routes[kernel->count++] = *route;
	return 0;
}

static int compare_routes(const void *a, const void *b)
{
	const struct flat_prefix *x = &((const struct flat_net_route *)a)->route.dst;
	const struct flat_prefix *y = &((const struct flat_net_route *)b)->route.dst;
	int c = flat_ip_compare(&x->ip, &y->ip);
	return c ? c : (int)x->len - (int)y->len;
}

const struct flat_net_route *flat_peers_route(const struct flat_peers *peers,
					      const struct flat_prefix *dst)
{
	const struct flat_net_route key = { .route.dst = *dst };
	return peers->route_count ? bsearch(&key, peers->routes, peers->route_count, sizeof key,
					    compare_routes)
				  : NULL;
}

static int read_routes(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_peers *peers,
		       struct flat_err *err)
{
	__attribute__((cleanup(free_kernel))) struct kernel kernel = { 0 };
	int r = flat_route_each(scene->net, 0, 0, 0, 0, collect, &kernel, err);
	if (r < 0 || !kernel.count)
		return r;
	qsort(kernel.routes, kernel.count, sizeof *kernel.routes, compare_routes);
	peers->routes = flat_arena_alloc(&ctl->arena, kernel.count * sizeof *peers->routes);
	if (!peers->routes)
		return no_memory(err);
	memcpy(peers->routes, kernel.routes, kernel.count * sizeof *peers->routes);
	peers->route_count = kernel.count;
	return 0;
}

struct tunnel {
	const struct flat_ip *via, *remote;
	struct flat_mac mac;
	bool has_mac, has_entry;
};

static int see_neigh(void *arg, const struct flat_neigh *neigh)
{
	struct tunnel *t = arg;
	if (!flat_ip_equal(&neigh->ip, t->via) || !neigh->has_mac)
		return 0;
	t->mac = neigh->mac;
	t->has_mac = true;
	return 0;
}

static int see_fdb(void *arg, const struct flat_fdb *fdb)
{
	struct tunnel *t = arg;
	if (!memcmp(&fdb->mac, &t->mac, sizeof t->mac) && flat_ip_equal(&fdb->dst, t->remote))
		t->has_entry = true;
	return 0;
}

static bool is_local_route(const struct flat_net_route *route, const struct flat_node *node)
{
	const int f = flat_family_index(route->route.dst.ip.family);
	return flat_ip_equal(&route->route.gw, &node->addresses[f]);
}

static int judge_tunnel(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_peer *peer,
			const struct flat_link *link, const struct flat_net_route *route,
			struct flat_err *err)
{
	const struct flat_ip *v4 = &peer->node.addresses[FLAT_V4];
	const bool over6 = link->vxlan.local.family == AF_INET6 || !v4->family;
	struct tunnel t = { .via = &route->route.gw,
			    .remote = &peer->node.addresses[over6 ? FLAT_V6 : FLAT_V4] };
	char via[FLAT_IP_TEXT];
	flat_ip_text(t.via, via);
	peer->path = "vxlan";
	int r = flat_neigh_each(scene->net, link->index, 0, see_neigh, &t, err);
	if (r >= 0 && t.has_mac)
		r = flat_fdb_each(scene->net, link->index, see_fdb, &t, err);
	if (r < 0)
		return r;
	if (!t.has_mac) {
		peer->fault = flat_format(&ctl->report, "%s has no neighbour entry for %s",
					  link->name, via);
		peer->evidence = flat_format(&ctl->report, "ip neigh show dev %s", link->name);
	} else if (!t.has_entry) {
		peer->fault = flat_format(&ctl->report,
					  "%s has no forwarding entry that leads to the node",
					  link->name);
		peer->evidence = flat_format(&ctl->report, "bridge fdb show dev %s", link->name);
	}
	return 0;
}

/* link: the last one looked up. */
static int judge_route(struct flat_ctl *ctl, struct flat_scene *scene,
		       const struct flat_peers *peers, struct flat_peer *peer,
		       struct flat_link *link, const struct flat_prefix *dst, struct flat_err *err)
{
	struct flat_report *report = &ctl->report;
	const struct flat_net_route *route = flat_peers_route(peers, dst);
	char text[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT];
	flat_prefix_text(dst, text);
	peer->evidence = flat_format(report, "ip route show %s", text);
	if (!route && peers->before_first) {
		peer->pending = true;
		return 0;
	}
	if (!route || route->type != RTN_UNICAST) {
		peer->fault = flat_format(report, "there is no route to %s", text);
		return 0;
	}
	int r = link->index == route->oif && route->oif
			? 1
			: flat_link_by_index(scene->net, route->oif, link, err);
	if (r <= 0) /* gone with its route since the dump */
		return r;
	peer->link = flat_keep(report, link->name);
	if (!strcmp(link->kind, "vxlan"))
		return judge_tunnel(ctl, scene, peer, link, route, err);
	peer->path = "direct";
	if (!is_local_route(route, &peer->node))
		peer->fault = route->route.gw.family
				      ? flat_format(report, "the route to %s leads to %s", text,
						    flat_ip_text(&route->route.gw, via))
				      : flat_format(report, "the route to %s leads to the link %s",
						    text, link->name);
	return 0;
}

static int judge(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_peers *peers,
		 struct flat_err *err)
{
	struct flat_link link = { 0 };
	int r = read_routes(ctl, scene, peers, err);
	for (size_t i = 0; i < peers->count && r >= 0; i++) {
		struct flat_peer *peer = &peers->items[i];
		if (peer->self || peer->fault)
			continue;
		if (!peer->node.pod_cidr_count)
			peer->fault = "has no pod subnet yet";
		for (size_t k = 0; k < peer->node.pod_cidr_count && r >= 0 && !peer->fault; k++)
			r = judge_route(ctl, scene, peers, peer, &link, &peer->node.pod_cidrs[k],
					err);
	}
	return r;
}

/* ---- the nodes themselves ----------------------------------------------------------------------
 */

static int ask(struct flat_ctl *ctl, struct flat_peers *peers, struct flat_err *err)
{
	struct flat_ip *ips = flat_arena_alloc(&ctl->arena, (peers->count + 1) * sizeof *ips);
	size_t *whose = flat_arena_alloc(&ctl->arena, (peers->count + 1) * sizeof *whose);
	int32_t *rtt = flat_arena_alloc(&ctl->arena, (peers->count + 1) * sizeof *rtt);
	size_t count = 0;
	if (!ips || !whose || !rtt)
		return no_memory(err);
	for (size_t i = 0; i < peers->count; i++) {
		const struct flat_ip *addresses = peers->items[i].node.addresses;
		const struct flat_ip *ip =
			&addresses[addresses[FLAT_V4].family ? FLAT_V4 : FLAT_V6];
		if (peers->items[i].self || !ip->family)
			continue;
		whose[count] = i;
		ips[count++] = *ip;
	}
	int r = count ? flat_net_ping(ips, count, PING_MS, rtt, err) : 0;
	if (r == -EPERM)
		return flat_detail(err, "run it as root, or with --no-ping");
	for (size_t i = 0; i < count && r >= 0; i++) {
		peers->items[whose[i]].asked = true;
		peers->items[whose[i]].rtt_us = rtt[i];
	}
	return r;
}

int flat_peers_read(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_peers *ret_peers,
		    struct flat_err *err)
{
	struct flat_peers peers = { 0 };
	int r = find_list(ctl, scene, &peers, err);
	if (r >= 0 && peers.count)
		qsort(peers.items, peers.count, sizeof *peers.items, compare);
	if (r >= 0)
		r = find_self(ctl, scene, &peers, err);
	if (r >= 0)
		r = judge(ctl, scene, &peers, err);
	if (r >= 0 && !ctl->no_ping)
		r = ask(ctl, &peers, err);
	if (r >= 0)
		*ret_peers = peers;
	return r;
}

/* ---- what is said of them ----------------------------------------------------------------------
 */

bool flat_peer_is_up(const struct flat_peer *peer)
{
	return !peer->fault && (!peer->asked || peer->rtt_us >= 0);
}

const char *flat_peer_subnets(struct flat_ctl *ctl, const struct flat_node *node)
{
	char text[FLAT_PREFIX_TEXT];
	const char *list = NULL;
	for (size_t i = 0; i < node->pod_cidr_count; i++)
		list = flat_format(&ctl->report, "%s%s%s", list ? list : "", list ? "," : "",
				   flat_prefix_text(&node->pod_cidrs[i], text));
	return list;
}

const char *flat_peer_addresses(struct flat_ctl *ctl, const struct flat_node *node)
{
	char text[FLAT_IP_TEXT];
	const char *list = NULL;
	for (size_t i = 0; i < FLAT_FAMILIES; i++)
		if (node->addresses[i].family)
			list = flat_format(&ctl->report, "%s%s%s", list ? list : "",
					   list ? "," : "",
					   flat_ip_text(&node->addresses[i], text));
	return list;
}

size_t flat_peers_complain(struct flat_ctl *ctl, const struct flat_peers *peers)
{
	struct flat_report *report = &ctl->report;
	size_t n = 0;
	for (size_t i = 0; i < peers->count; i++) {
		const struct flat_peer *peer = &peers->items[i];
		const char *addresses = flat_peer_addresses(ctl, &peer->node);
		if (peer->self || flat_peer_is_up(peer))
			continue;
		n++;
		if (peer->fault)
			flat_report_problem(
				report, peer->evidence,
				"flatnetd repairs it within a second; without it, the next pod's ADD does. "
				"If it does not last, its log names who takes it away",
				"node '%s': %s", peer->node.name, peer->fault);
		else
			flat_report_problem(
				report,
				flat_format(report, "ping -c 1 %.*s",
					    (int)strcspn(addresses ? addresses : "", ","),
					    addresses ? addresses : ""),
				"is the node up, and does its firewall let echo requests in? --no-ping "
				"does not ask",
				"node '%s': %s does not answer", peer->node.name,
				addresses ? addresses : "it");
	}
	return n;
}
