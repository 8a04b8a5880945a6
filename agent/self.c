// SPDX-License-Identifier: Apache-2.0
/* This node: its pod subnets, its underlay, and the addresses that others reach it by. */
#include "pass.h"

#include "underlay.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { GRACE_MS = 5000 }; /* of an underlay that is away: a lease renewed, a driver reloaded */

static void look_at_carrier(struct flat_reconcile *r)
{
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		struct flat_link link = { 0 };
		if (r->underlays[f].index)
			flat_link_by_index(r->net, r->underlays[f].index, &link, NULL);
		r->carrier[f].up = link.up;
		r->carrier[f].running = link.running;
	}
}

static void say_underlay(const struct flat_underlay *u)
{
	char mtu[16], address[FLAT_IP_TEXT];
	snprintf(mtu, sizeof mtu, "%u", u->mtu);
	flat_say(FLAT_LEVEL_INFO, "the underlay is", "link", u->name, "address",
		 flat_ip_text(&u->address, address), "mtu", mtu, NULL);
}

/* What goes away stays in force for a moment: with the plan, tunnels and all entries would go and
 * have to be made anew. *ret_away: look again soon. */
static int find_underlay(struct flat_reconcile *r, const struct flat_node *told, bool *ret_away,
			 struct flat_err *err)
{
	struct flat_underlay found[FLAT_FAMILIES] = { 0 };
	const int64_t now = flat_now_ms();
	int ret = flat_underlay_find(r->conf, told, r->net, found, err);
	if (ret < 0)
		return ret;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		struct flat_underlay *u = &r->underlays[f];
		if (found[f].index)
			r->lost_ms[f] = 0;
		else if (u->index && !r->lost_ms[f])
			r->lost_ms[f] = now;
		if (!found[f].index && u->index && now - r->lost_ms[f] < GRACE_MS) {
			*ret_away = true;
			continue;
		}
		if (flat_underlay_equal(&found[f], u))
			continue;
		if (found[f].index)
			say_underlay(&found[f]);
		else
			flat_say(FLAT_LEVEL_WARN, "the underlay is gone", "link", u->name, NULL);
		*u = found[f];
	}
	look_at_carrier(r);
	return ret > 0 ? 0 : -ENODEV;
}

/* NULL: all of them are in the flat network, as the configuration has it. */
const struct flat_prefix *flat_reconcile_stray(const struct flat_reconcile *r,
					       const struct flat_node *self)
{
	const struct flat_cluster_conf *c = &r->conf->cluster;
	for (size_t i = 0; i < self->pod_cidr_count; i++) {
		const struct flat_prefix *cidr = &self->pod_cidrs[i];
		bool inside = false;
		for (size_t k = 0; k < c->cidr_count && !inside; k++)
			inside = c->cidrs[k].len <= cidr->len &&
				 flat_prefix_contains(&c->cidrs[k], &cidr->ip);
		if (!inside)
			return cidr;
	}
	return NULL;
}

static void settle_cidrs(struct flat_reconcile *r, const struct flat_node *told, const char *fault)
{
	struct flat_node *self = &r->self.node;
	char was[FLAT_NODE_TEXT], now[FLAT_NODE_TEXT], stray_text[FLAT_PREFIX_TEXT],
		stray_fault[160];
	const struct flat_prefix *stray = told ? flat_reconcile_stray(r, told) : NULL;
	flat_node_cidrs_text(self, was);
	r->fault[0] = '\0';
	if (stray && !fault) {
		snprintf(
			stray_fault, sizeof stray_fault,
			"its pod subnet %s is not inside clusterCIDR: give it another, or extend clusterCIDR",
			flat_prefix_text(stray, stray_text));
		fault = stray_fault;
	}
	if (r->conf->pod_cidr_count) {
		memcpy(self->pod_cidrs, r->conf->pod_cidrs, sizeof self->pod_cidrs);
		self->pod_cidr_count = r->conf->pod_cidr_count;
	} else if (told && !fault && told->pod_cidr_count) {
		memcpy(self->pod_cidrs, told->pod_cidrs, sizeof self->pod_cidrs);
		self->pod_cidr_count = told->pod_cidr_count;
	}
	flat_node_cidrs_text(self, now);
	if (now[0] && strcmp(was, now) != 0)
		flat_say(FLAT_LEVEL_INFO, "this node's pod subnet is", "node", self->name,
			 "podCIDRs", now, "was", was[0] ? was : NULL, NULL);
	if (fault)
		snprintf(r->fault, sizeof r->fault, "this node's own entry is wrong: %s", fault);
	else if (!told && r->trusted && r->status->source.synced && !r->conf->pod_cidr_count)
		snprintf(r->fault, sizeof r->fault,
			 "this node, '%.64s', is not among the nodes that the source tells of",
			 self->name);
	else if (!self->pod_cidr_count)
		snprintf(r->fault, sizeof r->fault,
			 "this node, '%.64s', has no pod subnet yet: the source tells none",
			 self->name);
	if (r->fault[0] && r->trusted)
		flat_remark(&r->self_waits, FLAT_LEVEL_WARN,
			    now[0] ? "this node goes on with the subnet that it had"
				   : "this node waits for its pod subnet",
			    r->fault);
	else if (!r->fault[0])
		flat_remark_end(&r->self_waits, "this node is known");
}

int flat_reconcile_settle_self(struct flat_reconcile *r, bool look, bool *ret_away,
			       struct flat_err *err)
{
	const char *fault = NULL;
	const struct flat_node *told = flat_node_table_find(r->nodes, r->conf->node_name, &fault);
	const bool is_told = flat_underlay_is_told(r->conf);
	struct flat_node *self = &r->self.node;
	int ret = 0;

	settle_cidrs(r, told, fault);
	/* before the first list, this node's address may be all that there is to go by */
	if (look && (told || r->trusted || !is_told)) {
		struct flat_err e = { 0 };
		ret = find_underlay(r, told, ret_away, &e);
		if (ret < 0 && r->trusted) {
			flat_remark(&r->no_underlay, FLAT_LEVEL_WARN, "there is no underlay",
				    e.msg);
			*err = e;
		} else if (ret >= 0) {
			flat_remark_end(&r->no_underlay, "there is an underlay");
		}
	}
	r->is_known = false;
	self->since = told ? told->since : 0;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		self->addresses[f] = r->underlays[f].address;
		if (told && told->addresses[f].family && is_told)
			self->addresses[f] = told->addresses[f];
		if (r->conf->underlay.public_address[f].family)
			self->addresses[f] = r->conf->underlay.public_address[f];
		r->is_known = r->is_known || self->addresses[f].family;
		self->has_vtep[f] = self->pod_cidr_count && r->self.backend == FLAT_BACKEND_VXLAN;
	}
	if (self->has_vtep[FLAT_V4]) {
		struct flat_node bare = *self;
		memset(bare.has_vtep, 0, sizeof bare.has_vtep);
		self->vtep[FLAT_V4] = self->vtep[FLAT_V6] = flat_node_vtep_mac(&bare);
	}
	return ret;
}
