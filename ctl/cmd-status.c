// SPDX-License-Identifier: Apache-2.0
/*
 * One screen. Each part looks at one thing, adds its facts or rows, and says what is wrong as a
 * problem; none of them stops the others.
 */
#include "agent.h"
#include "example.h"
#include "peers.h"
#include "versions.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/rtnetlink.h>
#include <string.h>

static const struct flat_column columns[] = {
	{ .key = "name", .title = "NETWORK" },
	{ .key = "file", .title = NULL },
	{ .key = "subnets", .title = "PODS' SUBNET", .kind = FLAT_KIND_LIST },
	{ .key = "bridge", .title = "BRIDGE" },
	{ .key = "mtu", .title = "MTU", .kind = FLAT_KIND_NUMBER, .spare = true },
	{ .key = "pods", .title = "PODS", .kind = FLAT_KIND_NUMBER },
	{ .key = "used", .title = "USED", .kind = FLAT_KIND_NUMBER },
	{ .key = "free", .title = "FREE", .kind = FLAT_KIND_NUMBER },
	{ .key = "leaked", .title = "LEAKED", .kind = FLAT_KIND_NUMBER },
	{ .key = "rules", .title = "RULES" },
	{ .key = "state", .title = "STATE", .toned = true },
};

struct status {
	struct flat_ctl *ctl;
	struct flat_report *report;
	struct flat_scene scene;
	struct flat_peers peers;
	struct flat_agent_word agent;
	struct flat_table *table;
};

static void fact(struct status *s, const char *group, const char *key, const char *title,
		 const char *value, enum flat_kind kind, enum flat_tone tone)
{
	flat_report_fact(s->report, &(struct flat_fact){ .group = group,
							 .key = key,
							 .title = title,
							 .value = value,
							 .kind = kind,
							 .tone = tone });
}

static const char *number(struct status *s, uint64_t value)
{
	return flat_format(s->report, "%" PRIu64, value);
}

static const char *yes_no(bool yes)
{
	return yes ? "yes" : "no";
}

/* ---- the agent ---------------------------------------------------------------------------------
 */

/* It is needed where a network waits for what only it can tell. */
static bool is_waited_for(const struct status *s)
{
	for (size_t i = 0; i < s->scene.network_count; i++)
		if (s->scene.networks[i].conf_err.code == FLAT_CODE_TRY_LATER)
			return true;
	return false;
}

static void tell_agent(struct status *s)
{
	const struct flat_agent_word *a = &s->agent;
	const char *text =
		!a->reached ? flat_format(s->report, "nobody answers at %s", a->address)
		: a->ready  ? flat_format(s->report, "ready, source %s%s, %" PRIu64 " repairs",
					  a->source ? a->source : "?",
					  a->connected ? "" : " (not connected)", a->repairs)
			    : flat_format(s->report, "not ready: %s", a->why);
	fact(s, "agent", "state", "agent", text, FLAT_KIND_TEXT,
	     !a->reached ? FLAT_TONE_PLAIN
	     : a->ready	 ? FLAT_TONE_GOOD
			 : FLAT_TONE_BAD);
	fact(s, "agent", "reached", NULL, yes_no(a->reached), FLAT_KIND_BOOL, 0);
	fact(s, "agent", "ready", NULL, yes_no(a->ready), FLAT_KIND_BOOL, 0);
	fact(s, "agent", "why", NULL, a->why, FLAT_KIND_TEXT, 0);
	fact(s, "agent", "version", NULL, a->version, FLAT_KIND_TEXT, 0);
	fact(s, "agent", "source", NULL, a->source, FLAT_KIND_TEXT, 0);
	fact(s, "agent", "repairs", NULL, a->reached ? number(s, a->repairs) : NULL,
	     FLAT_KIND_NUMBER, 0);
	const char *ask = flat_format(s->report, "curl http://%s/readyz", a->address);
	if (!a->reached && is_waited_for(s))
		flat_report_problem(s->report, ask, "systemctl enable --now flatnetd",
				    "the agent does not run, and this node's subnet is not known "
				    "without it");
	if (a->reached && !a->ready)
		flat_report_problem(s->report, ask, "journalctl -u flatnetd says more",
				    "the agent is not ready: %s", a->why);
	else if (a->reached && a->failing)
		flat_report_problem(s->report,
				    flat_format(s->report, "curl http://%s/healthz", a->address),
				    "journalctl -u flatnetd says why",
				    "the agent's last pass over the kernel failed");
	else if (a->reached && !a->connected)
		flat_report_problem(
			s->report, flat_format(s->report, "curl http://%s/metrics", a->address),
			"journalctl -u flatnetd says why; pods go on with the nodes last known",
			"the agent is cut off from its source of nodes (%s)",
			a->source ? a->source : "?");
	if (a->refused)
		flat_report_problem(s->report, NULL,
				    "journalctl -u flatnetd names them and says why",
				    "the agent refuses %" PRIu64 " nodes", a->refused);
}

/* ---- nodes -------------------------------------------------------------------------------------
 */

static void tell_nodes(struct status *s)
{
	const struct flat_peers *p = &s->peers;
	size_t up = 0, down = 0, direct = 0, tunnelled = 0;
	for (size_t i = 0; i < p->count; i++) {
		const struct flat_peer *peer = &p->items[i];
		if (peer->self)
			continue;
		up += flat_peer_is_up(peer);
		down += !flat_peer_is_up(peer);
		direct += peer->path && !strcmp(peer->path, "direct");
		tunnelled += peer->path && !strcmp(peer->path, "vxlan");
	}
	const char *name = p->self		    ? p->self->name
			   : s->ctl->host.node_name ? s->ctl->host.node_name
						    : s->ctl->host.host_name;
	fact(s, "node", "name", "node", flat_keep(s->report, name), FLAT_KIND_TEXT, 0);
	fact(s, "node", "addresses", p->self ? "address" : NULL,
	     p->self ? flat_peer_addresses(s->ctl, p->self) : NULL, FLAT_KIND_LIST, 0);
	fact(s, "node", "podCIDRs", p->self ? "subnet" : NULL,
	     p->self ? flat_peer_subnets(s->ctl, p->self) : NULL, FLAT_KIND_LIST, 0);
	fact(s, "peers", "text", p->source ? "peers" : NULL,
	     flat_format(s->report, "%zu up, %zu down (%zu direct, %zu by vxlan)", up, down, direct,
			 tunnelled),
	     FLAT_KIND_TEXT, down ? FLAT_TONE_BAD : FLAT_TONE_GOOD);
	fact(s, "peers", "source", NULL, flat_keep(s->report, p->source), FLAT_KIND_TEXT, 0);
	fact(s, "peers", "up", NULL, number(s, up), FLAT_KIND_NUMBER, 0);
	fact(s, "peers", "down", NULL, number(s, down), FLAT_KIND_NUMBER, 0);
	fact(s, "peers", "direct", NULL, number(s, direct), FLAT_KIND_NUMBER, 0);
	fact(s, "peers", "vxlan", NULL, number(s, tunnelled), FLAT_KIND_NUMBER, 0);
	flat_peers_complain(s->ctl, p);
}

/* ---- the files ---------------------------------------------------------------------------------
 */

static void tell_files(struct status *s)
{
	const struct flat_scene_file *first = s->scene.file_count ? &s->scene.files[0] : NULL;
	const char *ours = NULL;
	for (size_t i = 0; i < s->scene.file_count; i++) {
		const struct flat_scene_file *file = &s->scene.files[i];
		if (file->flatnet && !ours)
			ours = file->path;
		if (file->fault)
			flat_report_problem(
				s->report,
				flat_format(s->report, "flatnetctl conf check %s", file->path),
				"mend the file; runtimes read the folder again by themselves",
				"%s: %s", file->path, file->fault);
	}
	fact(s, NULL, "conf", "conf", ours ? ours : "no CNI configuration names flatnet",
	     FLAT_KIND_TEXT, ours ? FLAT_TONE_PLAIN : FLAT_TONE_DOUBT);
	if (ours && first->path != ours)
		flat_report_problem(
			s->report,
			flat_format(s->report, "ls %.*s", (int)(strrchr(ours, '/') - ours), ours),
			flat_format(s->report, "remove %s, or give it a name that sorts later",
				    first->path),
			"%s comes before %s: Kubernetes' runtimes take the first file only",
			first->path, ours);
}

/* ---- a network ---------------------------------------------------------------------------------
 */

/* Everything on the node that all its pods share: there since its first ADD. Returns what is wrong
 * with it, NULL: nothing. */
static const char *see_bridge(struct status *s, const struct flat_network *network)
{
	struct flat_link link;
	const char *name = network->conf.bridge;
	const char *look = flat_format(s->report, "ip -d link show %s", name);
	int r = flat_link_by_name(s->scene.net, name, &link, NULL);
	if (r <= 0 && network->pods) {
		flat_report_problem(s->report, look,
				    "the next pod's ADD makes it; pods that are here must be made "
				    "again",
				    "network '%s': the bridge '%s' is gone, and %zu pods are here",
				    network->name, name, network->pods);
		return "no bridge";
	}
	if (r > 0 && strcmp(link.kind, "bridge") != 0) {
		flat_report_problem(s->report, look, "remove that link, or set \"bridge\"",
				    "network '%s': a link '%s' is there and is no bridge",
				    network->name, name);
		return "no bridge";
	}
	if (r > 0 && !link.up) {
		flat_report_problem(s->report, look,
				    flat_format(s->report, "ip link set %s up", name),
				    "network '%s': the bridge '%s' is down", network->name, name);
		return "bridge is down";
	}
	return NULL;
}

struct search {
	const struct flat_prefix *want;
	bool found;
};

static int see_address(void *arg, const struct flat_addr *addr)
{
	struct search *search = arg;
	search->found = search->found || flat_prefix_equal(&addr->address, search->want);
	return 0;
}

static const char *see_gateways(struct status *s, const struct flat_network *network,
				const struct flat_attachment *a)
{
	struct flat_link link;
	char text[FLAT_PREFIX_TEXT];
	if (flat_link_by_name(s->scene.net, a->gateway.name, &link, NULL) <= 0)
		return NULL; /* see_bridge() tells, or the first ADD makes it */
	for (size_t i = 0; i < a->bridge.gateway_count; i++) {
		struct search search = { .want = &a->bridge.gateways[i] };
		if (flat_addr_each(s->scene.net, link.index, 0, see_address, &search, NULL) < 0 ||
		    search.found)
			continue;
		flat_prefix_text(search.want, text);
		flat_report_problem(s->report,
				    flat_format(s->report, "ip addr show dev %s", a->gateway.name),
				    flat_format(s->report, "ip addr add %s dev %s noprefixroute",
						text, a->gateway.name),
				    "network '%s': '%s' lacks the pods' gateway address %s",
				    network->name, a->gateway.name, text);
		return "no gateway address";
	}
	return NULL;
}

static const char *see_forwarding(struct status *s, const struct flat_network *network,
				  const struct flat_attachment *a)
{
	const struct {
		bool wanted;
		const char *path, *name;
	} sysctls[] = {
		{ a->forward4, "net/ipv4/ip_forward", "net.ipv4.ip_forward" },
		{ a->forward6, "net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding" },
	};
	for (size_t i = 0; i < FLAT_LEN(sysctls); i++) {
		char value[16] = "";
		if (!sysctls[i].wanted ||
		    flat_sysctl_get(sysctls[i].path, value, sizeof value, NULL) < 0 ||
		    strcmp(value, "0") != 0)
			continue;
		flat_report_problem(s->report, flat_format(s->report, "sysctl %s", sysctls[i].name),
				    flat_format(s->report,
						"sysctl -w %s=1, and find who set it to 0",
						sysctls[i].name),
				    "network '%s': %s is 0: the node forwards nothing for its pods",
				    network->name, sysctls[i].name);
		return "no forwarding";
	}
	return NULL;
}

static const char *see_rules(struct status *s, const struct flat_network *network,
			     const struct flat_attachment *a, const char **ret_rules)
{
	const char *what = NULL;
	struct flat_err err = { 0 };
	if (!a->nft.name) {
		*ret_rules = "none wanted";
		return NULL;
	}
	int r = flat_nft_verify(&a->nft, &what, &err);
	*ret_rules = r > 0 ? "ok" : r < 0 ? "unknown" : "wrong";
	if (r < 0)
		flat_report_problem(s->report, "nft list table inet flatnet",
				    err.details[0] ? err.details : "run it as root",
				    "network '%s': the rules cannot be read: %s", network->name,
				    err.msg);
	else if (!r)
		flat_report_problem(s->report, "nft list table inet flatnet",
				    "flatnetd repairs it within a second; without it, the next "
				    "pod's ADD does",
				    "network '%s': %s", network->name,
				    what ? what : "rules differ");
	return r > 0 ? NULL : "rules";
}

/* The first fault names the state; all are problems. */
static const char *see_network(struct status *s, struct flat_network *network,
			       const struct flat_book *book, const char **ret_rules,
			       struct flat_err *err)
{
	const char *faults[4] = { 0 };
	if (!network->own || !network->has_conf)
		return NULL;
	struct flat_attachment *a = flat_arena_alloc(&s->ctl->arena, sizeof *a);
	if (!a) {
		s->report->no_memory = true;
		return NULL;
	}
	if (flat_example_plan(&network->req, &network->conf, book, a, err) < 0)
		return NULL;
	faults[0] = see_bridge(s, network);
	if (!network->pods) { /* nothing of it need be there before the first pod */
		*ret_rules = "no pod yet";
		return faults[0];
	}
	faults[1] = see_gateways(s, network, a);
	faults[2] = see_forwarding(s, network, a);
	faults[3] = see_rules(s, network, a, ret_rules);
	for (size_t i = 0; i < FLAT_LEN(faults); i++)
		if (faults[i])
			return faults[i];
	return NULL;
}

static const char *subnets_of(struct status *s, const struct flat_network *network)
{
	const struct flat_prefix *items = network->conf.pod_cidrs.items;
	const char *list = NULL;
	char text[FLAT_PREFIX_TEXT];
	for (size_t i = 0; network->has_conf && i < network->conf.pod_cidrs.count; i++)
		list = flat_format(s->report, "%s%s%s", list ? list : "", list ? "," : "",
				   flat_prefix_text(&items[i], text));
	return list;
}

/* What the configuration says, where an ADD would fail for it. */
static const char *see_conf(struct status *s, const struct flat_network *network)
{
	const struct flat_err *e = &network->conf_err;
	if (!network->file || network->has_conf)
		return NULL;
	flat_report_problem(s->report,
			    flat_format(s->report, "flatnetctl conf check %s", network->file),
			    e->details[0] ? e->details
					  : "correct it there; conf check tells when it is right",
			    "network '%s': %s", network->name, e->msg);
	return e->code == FLAT_CODE_TRY_LATER ? "not ready" : "conf is wrong";
}

static int tell_network(struct status *s, struct flat_network *network, struct flat_err *err)
{
	struct flat_book book = { 0 };
	struct flat_room room;
	const char *rules = NULL;
	int r = flat_book_read(s->ctl, &s->scene, network, &book, err);
	if (r < 0)
		return r;
	flat_book_room(&book, &room);
	const char *state = see_conf(s, network);
	const char *fault = see_network(s, network, &book, &rules, err);
	if (err->code)
		return -EINVAL;
	state = state ? state : fault;
	const bool full = room.total && !room.free;
	if (full) {
		flat_report_problem(
			s->report,
			flat_format(s->report, "flatnetctl ipam list --network %s", network->name),
			"delete pods, or give the node a larger subnet; leaked addresses come back "
			"by themselves when they are needed",
			"network '%s': no address is free, of %" PRIu64, network->name, room.total);
		state = state ? state : "full";
	}
	if (flat_book_complain(s->ctl, &book))
		state = state ? state : "addresses";
	const char *cells[FLAT_LEN(columns)] = {
		flat_keep(s->report, network->name),
		flat_keep(s->report, network->file),
		subnets_of(s, network),
		network->own ? flat_keep(s->report, network->conf.bridge) : NULL,
		network->has_conf && network->conf.mtu ? number(s, network->conf.mtu) : NULL,
		number(s, network->pods),
		number(s, book.count - flat_book_count(&book, FLAT_ENTRY_LOST)),
		room.total ? number(s, room.free) : NULL,
		number(s, flat_book_count(&book, FLAT_ENTRY_LEAKED)),
		rules,
		state		? state
		: network->file ? "ok"
				: "no configuration",
	};
	flat_table_add(s->report, s->table,
		       state	       ? FLAT_TONE_BAD
		       : network->file ? FLAT_TONE_GOOD
				       : FLAT_TONE_DOUBT,
		       cells);
	return 0;
}

static void tell_pods(struct status *s)
{
	for (size_t i = 0; i < s->scene.pod_count; i++) {
		const struct flat_pod *pod = &s->scene.pods[i];
		const char *state = flat_pod_state(pod);
		if (strcmp(state, "up") != 0)
			flat_report_problem(s->report,
					    flat_format(s->report, "ip -d link show %s",
							pod->link.name),
					    "delete the pod and let it be made again",
					    "network '%s': the link %s of container %s is %s",
					    pod->network, pod->link.name, pod->alias.container_id,
					    state);
	}
}

/* ---- together ----------------------------------------------------------------------------------
 */

static void tell_versions(struct status *s)
{
	const char *dir = s->ctl->plugin_dir ? s->ctl->plugin_dir : FLAT_PLUGIN_DIR;
	const char *path = flat_format(s->report, "%s/flatnet", dir), *why = NULL;
	const char *plugin = flat_version_of(s->ctl, path, &why);
	fact(s, "versions", "text", "versions",
	     flat_format(s->report, "flatnetctl " FLAT_VERSION ", flatnet %s, flatnetd %s",
			 plugin ? plugin : why,
			 s->agent.version ? s->agent.version : "not running"),
	     FLAT_KIND_TEXT, 0);
	fact(s, "versions", "flatnetctl", NULL, FLAT_VERSION, FLAT_KIND_TEXT, 0);
	fact(s, "versions", "flatnet", NULL, plugin, FLAT_KIND_TEXT, 0);
	fact(s, "versions", "flatnetd", NULL, s->agent.version, FLAT_KIND_TEXT, 0);
	if (!plugin)
		flat_report_problem(s->report, flat_format(s->report, "ls -l %s", path),
				    "install flatnet there, or name the folder with --plugin-dir",
				    "the plugin cannot be started: %s: %s", path, why);
}

static int tell(struct status *s, struct flat_err *err)
{
	const struct flat_table head = { .key = "networks",
					 .none = "no network of flatnet is on this node",
					 .columns = columns,
					 .column_count = FLAT_LEN(columns) };
	int r = flat_agent_ask(s->ctl, &s->agent, err);
	if (r >= 0)
		r = flat_peers_read(s->ctl, &s->scene, &s->peers, err);
	if (r < 0)
		return r;
	tell_nodes(s);
	tell_agent(s);
	tell_files(s);
	tell_versions(s);
	s->table = flat_report_table(s->report, &head);
	for (size_t i = 0; i < s->scene.network_count && r >= 0; i++)
		if (!s->ctl->network || !strcmp(s->scene.networks[i].name, s->ctl->network))
			r = tell_network(s, &s->scene.networks[i], err);
	if (r >= 0)
		tell_pods(s);
	return r < 0 ? r : s->report->problem_count ? FLAT_EXIT_WRONG : FLAT_EXIT_OK;
}

static int run(struct flat_ctl *ctl, struct flat_err *err)
{
	struct status s = { .ctl = ctl, .report = &ctl->report };
	ctl->report.has_problems = true;
	int r = flat_scene_open(ctl, &s.scene, err);
	if (r >= 0)
		r = tell(&s, err);
	flat_scene_close(&s.scene);
	return r;
}

const struct flat_ctl_command flat_command_status = {
	.name = "status",
	.arguments = "",
	.about = "this node on one screen, with what is wrong and its cure",
	.help = "One screen: this node and its subnet, the other nodes, the agent, versions, and for each\n"
		"network its bridge, pods, addresses and rules. What is not as it should be is listed\n"
		"below as a problem, with the command that shows it and the cure. Changes nothing.\n\n"
		"The agent is asked over HTTP, and need not be there.\n\n"
		"Exit status 1: there is a problem.",
	.options = FLAT_OPTION_NETWORK | FLAT_OPTION_CONF_DIR | FLAT_OPTION_DATA_DIR |
		   FLAT_OPTION_NODES | FLAT_OPTION_STATE | FLAT_OPTION_NODE | FLAT_OPTION_AGENT |
		   FLAT_OPTION_PLUGIN_DIR | FLAT_OPTION_NO_PING,
	.run = run,
};
