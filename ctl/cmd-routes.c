// SPDX-License-Identifier: Apache-2.0
#include "peers.h"

#include <errno.h>
#include <string.h>

static const struct flat_column columns[] = {
	{ .key = "destination", .title = "DESTINATION" },
	{ .key = "via", .title = "VIA" },
	{ .key = "link", .title = "LINK" },
	{ .key = "path", .title = "PATH" },
	{ .key = "node", .title = "NODE" },
	{ .key = "state", .title = "STATE", .toned = true },
};

struct listing {
	struct flat_ctl *ctl;
	struct flat_scene *scene;
	const struct flat_peers *peers;
	struct flat_table *table;
	bool wrong;
	struct flat_link link; /* the last one looked up */
	struct flat_err *err;
};

static const struct flat_peer *owner_of(const struct flat_peers *peers,
					const struct flat_prefix *dst)
{
	for (size_t i = 0; i < peers->count; i++)
		for (size_t k = 0; k < peers->items[i].node.pod_cidr_count; k++)
			if (flat_prefix_equal(&peers->items[i].node.pod_cidrs[k], dst))
				return &peers->items[i];
	return NULL;
}

static void add_row(struct listing *l, const struct flat_prefix *dst, const char *via,
		    const char *link, const char *path, const struct flat_peer *peer,
		    const char *state, bool wrong)
{
	struct flat_report *report = &l->ctl->report;
	char text[FLAT_PREFIX_TEXT];
	const char *cells[FLAT_LEN(columns)] = {
		flat_format(report, "%s", flat_prefix_text(dst, text)), via,   link, path,
		peer ? flat_keep(report, peer->node.name) : NULL,	state,
	};
	flat_table_add(report, l->table, wrong ? FLAT_TONE_BAD : FLAT_TONE_GOOD, cells);
	l->wrong = l->wrong || wrong;
}

static int add_route(void *arg, const struct flat_net_route *route)
{
	struct listing *l = arg;
	struct flat_report *report = &l->ctl->report;
	const struct flat_peer *peer = owner_of(l->peers, &route->route.dst);
	char via[FLAT_IP_TEXT];
	const char *state = "ok";
	if (l->link.index != route->oif &&
	    flat_link_by_index(l->scene->net, route->oif, &l->link, l->err) <= 0)
		return l->err->code ? -EIO : 0;
	if (peer && peer->self)
		state = "leads away from this node's own pods";
	else if (peer && peer->fault)
		state = peer->fault;
	else if (!peer && l->peers->source)
		state = "no node has this subnet";
	add_row(l, &route->route.dst,
		route->route.gw.family
			? flat_format(report, "%s", flat_ip_text(&route->route.gw, via))
			: NULL,
		flat_keep(report, l->link.name), strcmp(l->link.kind, "vxlan") ? "direct" : "vxlan",
		peer, state, strcmp(state, "ok") != 0);
	return 0;
}

/* Rows for what is not there. A route of another protocol does the work as well. */
static void add_missing(struct listing *l)
{
	for (size_t i = 0; i < l->peers->count; i++) {
		const struct flat_peer *peer = &l->peers->items[i];
		for (size_t k = 0; k < peer->node.pod_cidr_count && !peer->self; k++)
			if (!flat_peers_route(l->peers, &peer->node.pod_cidrs[k]))
				add_row(l, &peer->node.pod_cidrs[k], NULL, NULL, NULL, peer,
					peer->pending ? "comes with the first pod" : "missing",
					!peer->pending);
	}
}

static int list(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_err *err)
{
	const struct flat_table head = { .key = "routes",
					 .none = "no route of flatnet's is on this node",
					 .columns = columns,
					 .column_count = FLAT_LEN(columns) };
	struct flat_peers peers;
	ctl->no_ping = true;
	int r = flat_peers_read(ctl, scene, &peers, err);
	if (r < 0)
		return r;
	struct listing l = { .ctl = ctl, .scene = scene, .peers = &peers, .err = err };
	l.table = flat_report_table(&ctl->report, &head);
	r = flat_route_each(scene->net, 0, 0, FLAT_RTPROT, 0, add_route, &l, err);
	if (r < 0)
		return r;
	add_missing(&l);
	ctl->report.has_problems = true;
	flat_peers_complain(ctl, &peers);
	return l.wrong ? FLAT_EXIT_WRONG : FLAT_EXIT_OK;
}

static int run(struct flat_ctl *ctl, struct flat_err *err)
{
	struct flat_scene scene;
	int r = flat_scene_open(ctl, &scene, err);
	if (r >= 0)
		r = list(ctl, &scene, err);
	flat_scene_close(&scene);
	return r;
}

const struct flat_ctl_command flat_command_routes = {
	.name = "routes",
	.arguments = "",
	.about = "the routes to other nodes' pods, and which are missing",
	.help = "Lists the routes that flatnet has made on this node (protocol 241), whose they are,\n"
		"and those that are missing, by the list of nodes (see 'nodes').\n\n"
		"Exit status 1: a route is missing, leads elsewhere, or belongs to no node.",
	.options = FLAT_OPTION_NETWORK | FLAT_OPTION_CONF_DIR | FLAT_OPTION_NODES |
		   FLAT_OPTION_STATE | FLAT_OPTION_NODE,
	.run = run,
};
