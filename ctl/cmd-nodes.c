// SPDX-License-Identifier: Apache-2.0
#include "peers.h"

#include <stdio.h>

static const struct flat_column columns[] = {
	{ .key = "name", .title = "NODE" },
	{ .key = "addresses", .title = "ADDRESS", .kind = FLAT_KIND_LIST },
	{ .key = "podCIDRs", .title = "PODS", .kind = FLAT_KIND_LIST },
	{ .key = "path", .title = "PATH" },
	{ .key = "link", .title = "LINK" },
	{ .key = "rttMs", .title = "MS", .kind = FLAT_KIND_NUMBER, .spare = true },
	{ .key = "state", .title = "STATE", .toned = true },
};

static void add_peer(struct flat_ctl *ctl, struct flat_table *table, const struct flat_peer *peer)
{
	struct flat_report *report = &ctl->report;
	const bool up = flat_peer_is_up(peer);
	const char *cells[FLAT_LEN(columns)] = {
		flat_keep(report, peer->node.name),
		flat_peer_addresses(ctl, &peer->node),
		flat_peer_subnets(ctl, &peer->node),
		peer->path,
		peer->link,
		peer->asked && peer->rtt_us >= 0
			? flat_format(report, "%d.%03d", peer->rtt_us / 1000, peer->rtt_us % 1000)
			: NULL,
		peer->self	? "this node"
		: peer->fault	? peer->fault
		: !up		? "no answer"
		: peer->pending ? "no route before the first pod"
		: peer->asked	? "up"
				: "reachable",
	};
	flat_table_add(report, table,
		       peer->self	     ? FLAT_TONE_PLAIN
		       : peer->pending && up ? FLAT_TONE_DOUBT
		       : up		     ? FLAT_TONE_GOOD
					     : FLAT_TONE_BAD,
		       cells);
}

static int list(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_err *err)
{
	const struct flat_table head = {
		.key = "nodes",
		.none = "nobody tells of nodes: neither a list in the CNI configuration, nor an agent "
			"that has run here",
		.columns = columns,
		.column_count = FLAT_LEN(columns)
	};
	struct flat_peers peers;
	int r = flat_peers_read(ctl, scene, &peers, err);
	if (r < 0)
		return r;
	flat_report_fact(&ctl->report,
			 &(struct flat_fact){ .key = "source",
					      .value = flat_keep(&ctl->report, peers.source) });
	struct flat_table *table = flat_report_table(&ctl->report, &head);
	for (size_t i = 0; i < peers.count; i++)
		add_peer(ctl, table, &peers.items[i]);
	ctl->report.has_problems = true;
	return flat_peers_complain(ctl, &peers) ? FLAT_EXIT_WRONG : FLAT_EXIT_OK;
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

const struct flat_ctl_command flat_command_nodes = {
	.name = "nodes",
	.arguments = "",
	.about = "the nodes, the way to their pods, and whether they answer",
	.help = "Lists the nodes of the cluster, and holds the kernel against the list: is there a route\n"
		"to each of their pod subnets, does it lead to the node, has a tunnel the entries that\n"
		"it needs? Then every node is asked by ping.\n\n"
		"The list is that of --nodes-file, of the CNI configuration, or what the agent last\n"
		"knew (--state-file).\n\n"
		"Exit status 1: a node does not answer, or there is no way to it.",
	.options = FLAT_OPTION_NETWORK | FLAT_OPTION_CONF_DIR | FLAT_OPTION_NODES |
		   FLAT_OPTION_STATE | FLAT_OPTION_NODE | FLAT_OPTION_NO_PING,
	.run = run,
};
