// SPDX-License-Identifier: Apache-2.0
#include "pass.h"

#include "nodefile.h"
#include "underlay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { STEP = 256 }; /* routes and the like of a few nodes, that need not wait for a look */

/* ---- the beginning -----------------------------------------------------------------------------
 */

/* The MTU that the pods of an earlier life were told. */
static void remember_mtu(struct flat_reconcile *r)
{
	struct flat_arena arena = { 0 };
	struct flat_node_file file;
	if (flat_node_file_read(r->conf->node_file, &arena, &file, NULL) >= 0)
		r->mtu_now = file.mtu;
	flat_arena_free(&arena);
}

int flat_reconcile_open(const struct flat_agent_conf *conf, struct flat_status *status,
			struct flat_reconcile **ret_reconcile, struct flat_err *err)
{
	struct flat_reconcile *r = calloc(1, sizeof *r);
	if (!r)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "agent");
	r->conf = conf;
	r->status = status;
	r->self.node.name = conf->node_name;
	r->self.backend = conf->cluster.backend == FLAT_BACKEND_DIRECT ? FLAT_BACKEND_DIRECT
								       : FLAT_BACKEND_VXLAN;
	int ret = flat_net_open(&r->net, err);
	if (ret >= 0)
		ret = flat_keeper_open(conf, status, r->net, &r->keeper, err);
	if (ret >= 0)
		ret = flat_node_table_open(conf->node_name, &r->nodes, err);
	if (ret < 0) {
		flat_reconcile_close(r);
		return ret;
	}
	remember_mtu(r);
	*ret_reconcile = r;
	return 0;
}

void flat_reconcile_close(struct flat_reconcile *r)
{
	if (!r)
		return;
	flat_node_state_free(&r->state);
	flat_node_table_close(r->nodes);
	flat_keeper_close(r->keeper);
	flat_net_close(r->net);
	free(r);
}

struct flat_node_table *flat_reconcile_nodes(struct flat_reconcile *r)
{
	return r->nodes;
}

void flat_reconcile_trust(struct flat_reconcile *r)
{
	r->trusted = true;
}

void flat_reconcile_set_ear(struct flat_reconcile *r, void (*hear)(void *arg), void *arg)
{
	r->hear = hear;
	r->hear_arg = arg;
}

const struct flat_self *flat_reconcile_self(const struct flat_reconcile *r)
{
	return r->is_known ? &r->self : NULL;
}

/* ---- the kernel --------------------------------------------------------------------------------
 */

/* Of what is wanted, without the names of nodes. */
static uint64_t hash_state(const struct flat_node *self, const struct flat_node_state *s)
{
	uint64_t h = flat_hash(1, self->pod_cidrs, self->pod_cidr_count * sizeof *self->pod_cidrs);
	h = flat_hash(h, &s->pod_mtu, sizeof s->pod_mtu);
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_wanted_link *l = &s->links[f];
		h = flat_hash(h, l->name, strlen(l->name));
		h = flat_hash(h, &l->mac, sizeof l->mac);
		h = flat_hash(h, &l->mtu, sizeof l->mtu);
		h = flat_hash(h, &l->vxlan.vni, sizeof l->vxlan.vni);
		h = flat_hash(h, &l->vxlan.port, sizeof l->vxlan.port);
		h = flat_hash(h, &l->vxlan.underlay, sizeof l->vxlan.underlay);
		h = flat_hash(h, &l->vxlan.local, sizeof l->vxlan.local);
		for (size_t i = 0; i < l->address_count; i++)
			h = flat_hash(h, &l->addresses[i], sizeof l->addresses[i]);
	}
	for (size_t i = 0; i < s->route_count; i++) {
		h = flat_hash(h, &s->routes[i].dst, sizeof s->routes[i].dst);
		h = flat_hash(h, &s->routes[i].via, sizeof s->routes[i].via);
		h = flat_hash(h, &s->routes[i].link, sizeof s->routes[i].link);
	}
	for (size_t i = 0; i < s->neigh_count; i++) {
		h = flat_hash(h, &s->neighs[i].ip, sizeof s->neighs[i].ip);
		h = flat_hash(h, &s->neighs[i].mac, sizeof s->neighs[i].mac);
	}
	for (size_t i = 0; i < s->fdb_count; i++) {
		h = flat_hash(h, &s->fdb[i].mac, sizeof s->fdb[i].mac);
		h = flat_hash(h, &s->fdb[i].dst, sizeof s->fdb[i].dst);
	}
	return h | 1;
}

/* Judges and plans; *ret_news: something else is wanted than before. */
static int plan(struct flat_reconcile *r, bool *ret_news, struct flat_err *err)
{
	const struct flat_node *const *nodes;
	const struct flat_cluster_conf *cluster = &r->conf->cluster;
	struct flat_node *self = &r->self.node;
	struct flat_node_state state = { 0 };
	size_t count;

	const bool is_planned = self->pod_cidr_count && r->is_known;
	int ret = flat_node_table_list(r->nodes, self->pod_cidr_count ? self : NULL, &nodes, &count,
				       err);
	if (ret < 0)
		return ret;
	flat_auto_free struct flat_judgement *judgements = calloc(count + 1, sizeof *judgements);
	if (!judgements)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "judge %zu nodes", count);
	ret = flat_cluster_judge(cluster, nodes, count, self->pod_cidr_count ? self->name : NULL,
				 judgements, err);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < count; i++)
		if (nodes[i] == self && judgements[i].verdict == FLAT_NODE_REFUSED)
			return flat_fail(err, FLAT_CODE_CONFIG, 0, "this node: %s",
					 judgements[i].why);
	ret = flat_cluster_plan(cluster, r->underlays, is_planned ? self : NULL, nodes, count,
				judgements, &state, err);
	if (ret < 0)
		return ret;
	if (r->ran && !r->failed)
		flat_node_state_step(&r->state, &state, r->indices, STEP, r->net);
	flat_node_table_settle(r->nodes, judgements, r->status);
	flat_node_state_free(&r->state);
	r->state = state;
	const uint64_t wanted = hash_state(self, &state);
	*ret_news = wanted != r->wanted;
	r->wanted = wanted;
	r->status->nodes.direct = state.direct;
	r->status->nodes.tunnelled = state.tunnelled;
	r->status->wanted.routes = state.route_count;
	r->status->wanted.neighs = state.neigh_count;
	r->status->wanted.fdb = state.fdb_count;
	return 0;
}

static int write_kernel(struct flat_reconcile *r, const struct flat_cause *cause,
			struct flat_err *err)
{
	struct flat_repairs repairs = { 0 };
	int ret = flat_node_state_ensure(&r->state, r->net, &repairs, err);
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		r->indices[f] = 0;
		if (r->state.links[f].name[0] &&
		    flat_link_find_index(r->net, r->state.links[f].name, &r->indices[f], NULL) <= 0)
			r->indices[f] = 0;
	}
	/* by now the events of what was just written find it as wanted */
	for (int kind = 0; kind < FLAT_REPAIR_KINDS; kind++) {
		const size_t n = repairs.set[kind] + repairs.removed[kind];
		if (!n)
			continue;
		flat_repaired(r->status, kind, n, repairs.first[kind], cause);
		if (!r->ran && repairs.removed[kind])
			flat_say(FLAT_LEVEL_INFO, "removed what an earlier life left behind",
				 "what", repairs.first[kind], NULL);
	}
	flat_repairs_free(&repairs);
	return ret;
}

/* The first error is the pass's; what else goes wrong is none the better for being said, too. */
static void take_error(struct flat_err *err, const struct flat_err *e)
{
	if (!err->code)
		*err = *e;
}

/* Pods first: an MTU that nobody remembers any more after a crash could not be looked for. Then the
 * file, then pods again: an ADD may have read the old file in between. */
static int tell_mtu(struct flat_reconcile *r, struct flat_err *err)
{
	static const struct flat_cause cause = { .text = "the way to the others has another MTU" };
	const uint32_t was = r->mtu_now;
	const uint32_t now = r->state.pod_mtu ? r->state.pod_mtu : was;
	int ret = 0;
	if (now != was)
		ret = flat_keep_mtu(r->keeper, was, now, &cause, err);
	int written = flat_nodefile_write(r->conf, &r->self.node, now, ret < 0 ? NULL : err);
	if (written > 0)
		flat_say(FLAT_LEVEL_DEBUG, "node file written", "path", r->conf->node_file, NULL);
	if (written >= 0 && now != was) {
		r->mtu_was = was;
		r->mtu_now = now;
		r->mtu_changed_ms = was ? flat_now_ms() : 0;
	}
	if (ret >= 0 && written >= 0 && r->mtu_changed_ms)
		ret = flat_keep_mtu(r->keeper, r->mtu_was, now, &cause, err);
	return ret < 0 ? ret : written;
}

/* ---- the pass ----------------------------------------------------------------------------------
 */

static void judge_ready(struct flat_reconcile *r, const struct flat_err *own)
{
	struct flat_status *status = r->status;
	const char *why = "";
	if (r->fault[0])
		why = r->fault;
	else if (!r->self.node.pod_cidr_count)
		why = "this node's pod subnet is not known yet";
	else if (!r->trusted)
		why = "the source has not told all nodes yet, and there is no last known state";
	else if (own->code)
		why = own->msg;
	else if (!r->ran)
		why = "the first pass is not through yet";
	snprintf(status->why_not_ready, sizeof status->why_not_ready, "%s", why);
	if (status->ready != !why[0])
		flat_say(FLAT_LEVEL_INFO, why[0] ? "this node is not ready" : "this node is ready",
			 "reason", why[0] ? why : NULL, NULL);
	status->ready = !why[0];
}

static void keep_conf_file(struct flat_reconcile *r)
{
	struct flat_err e = { 0 };
	const bool ready = r->status->ready;
	int ret = ready ? flat_cniconf_write(r->conf, &e) : flat_cniconf_withdraw(r->conf, &e);
	if (ret > 0)
		flat_say(FLAT_LEVEL_INFO,
			 ready ? "CNI configuration written"
			       : "CNI configuration of an earlier boot taken away",
			 "path", r->conf->cni.conf_file, NULL);
	if (ret < 0)
		flat_remark(&r->no_file, FLAT_LEVEL_ERROR, "CNI configuration cannot be written",
			    e.msg);
	else
		flat_remark_end(&r->no_file, "CNI configuration can be written again");
}

bool flat_reconcile_poll(const struct flat_reconcile *r)
{
	return r->ran && flat_keeper_has_lost_sysctls(r->keeper, &r->self.node);
}

static struct flat_cause because(const struct flat_reconcile *r, bool news, const char *why)
{
	return (struct flat_cause){ news, why, r->hear, r->hear_arg };
}

/* What was known when the pass began it has dealt with; the rest, perhaps, another one has to. */
static void forget(char *why, bool known)
{
	if (known)
		why[0] = '\0';
}

/* What the plugin makes, and this node's files. */
static void keep_node(struct flat_reconcile *r, unsigned dirty, bool news, unsigned *ret_later,
		      struct flat_err *err)
{
	const struct flat_node *self = &r->self.node;
	const struct flat_cause bridge = because(r, news, r->why_bridge),
				rules = because(r, news, r->why_rules), silent = { .news = news };
	int ret;
	if (dirty & FLAT_DIRTY_BRIDGE) {
		struct flat_err e = { 0 };
		ret = flat_keep_bridge(r->keeper, self, &bridge, &e);
		if (ret == -EAGAIN && !e.code)
			*ret_later |= FLAT_DIRTY_BRIDGE | FLAT_DIRTY_SYSCTLS;
		else if (ret < 0)
			take_error(err, &e);
	}
	if (dirty & FLAT_DIRTY_RULES) {
		struct flat_err e = { 0 };
		ret = flat_keep_rules(r->keeper, self, &rules, &e);
		if (ret < 0)
			take_error(err, &e);
		if (ret > 0)
			r->rules_written_ms = flat_now_ms();
	}
	if (dirty & (FLAT_DIRTY_SYSCTLS | FLAT_DIRTY_KERNEL)) {
		struct flat_err e = { 0 };
		if (flat_keep_sysctls(r->keeper, self, &r->state, &silent, &e) < 0)
			take_error(err, &e);
	}
	if (dirty & (FLAT_DIRTY_CHECKSUMS | FLAT_DIRTY_KERNEL)) {
		struct flat_err e = { 0 };
		if (flat_keep_checksums(r->keeper, &r->state, &e) < 0)
			take_error(err, &e);
	}
	if (dirty & FLAT_DIRTY_ROOM) {
		struct flat_err e = { 0 };
		flat_keeper_count(r->keeper);
		if (flat_keep_neighbours(r->keeper, &r->state, &e) < 0)
			take_error(err, &e);
	}
	if (dirty & (FLAT_DIRTY_MTU | FLAT_DIRTY_KERNEL)) {
		struct flat_err e = { 0 };
		if (r->mtu_changed_ms && flat_now_ms() - r->mtu_changed_ms > FLAT_MTU_WATCH_MS)
			r->mtu_changed_ms = 0;
		if (tell_mtu(r, &e) < 0)
			take_error(err, &e);
	}
}

int flat_reconcile_run(struct flat_reconcile *r, unsigned dirty, unsigned *ret_later,
		       struct flat_err *err)
{
	struct flat_err own = { 0 }, peers = { 0 }; /* of this node; of the way to others */
	bool news = false, away = false;
	const bool knew_kernel = r->why_kernel[0], knew_rules = r->why_rules[0],
		   knew_bridge = r->why_bridge[0];
	*ret_later = 0;

	struct flat_underlay before[FLAT_FAMILIES];
	if (r->failed)
		dirty |= FLAT_DIRTY_ALL;
	memcpy(before, r->underlays, sizeof before);
	flat_reconcile_settle_self(r, (dirty & (FLAT_DIRTY_NODES | FLAT_DIRTY_UNDERLAY)) != 0,
				   &away, &own);
	if (away)
		*ret_later |= FLAT_DIRTY_UNDERLAY;
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (!flat_underlay_equal(&before[f], &r->underlays[f]))
			dirty |= FLAT_DIRTY_KERNEL;
	if (r->trusted && (dirty & (FLAT_DIRTY_NODES | FLAT_DIRTY_KERNEL))) {
		struct flat_err e = { 0 };
		r->is_planned = plan(r, &news, &e) >= 0;
		if (!r->is_planned)
			take_error(&own, &e);
		if (news)
			dirty |= FLAT_DIRTY_ALL;
	}
	news = news || !r->ran;
	if (r->is_planned && r->self.node.pod_cidr_count) {
		const struct flat_cause cause = because(r, news, r->why_kernel);
		if (dirty & FLAT_DIRTY_KERNEL)
			write_kernel(r, &cause, &peers);
		keep_node(r, dirty, news, ret_later, &own);
		/* a tunnel that cannot be made is this node's own trouble; a node that cannot be
		 * reached is not */
		for (int f = 0; f < FLAT_FAMILIES; f++)
			if (peers.code && r->state.links[f].name[0] && !r->indices[f])
				take_error(&own, &peers);
		if (!own.code)
			r->ran = true;
	}
	forget(r->why_kernel, knew_kernel);
	forget(r->why_rules, knew_rules);
	forget(r->why_bridge, knew_bridge);
	judge_ready(r, &own);
	keep_conf_file(r);
	take_error(&own, &peers);
	r->failed = own.code != 0;
	if (!own.code)
		return 0;
	*err = own;
	return own.sys ? -own.sys : -EINVAL;
}
