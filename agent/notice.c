// SPDX-License-Identifier: Apache-2.0
/* What the kernel's events mean for what is wanted. */
#include "pass.h"

#include <stdio.h>
#include <string.h>

enum { OWN_ECHO_MS = 20 };

static const char *kind_text(const struct flat_event *e)
{
	switch (e->kind) {
	case FLAT_EVENT_LINK:
		return "link";
	case FLAT_EVENT_ADDR:
		return "address";
	case FLAT_EVENT_ROUTE:
		return "route";
	default:
		return e->fdb ? "forwarding entry" : "neighbour";
	}
}

static void describe(const struct flat_event *e, char ret_why[static 160])
{
	char text[FLAT_PREFIX_TEXT] = "";
	const char *name = text;
	switch (e->kind) {
	case FLAT_EVENT_LINK:
		name = e->link.name;
		break;
	case FLAT_EVENT_ADDR:
		flat_prefix_text(&e->addr.address, text);
		break;
	case FLAT_EVENT_ROUTE:
		flat_prefix_text(&e->route.route.dst, text);
		break;
	default:
		if (e->fdb)
			flat_mac_text(&e->entry.mac, text);
		else
			flat_ip_text(&e->neigh.ip, text);
		break;
	}
	snprintf(ret_why, 160, "%s %s was %s", kind_text(e), name, e->gone ? "removed" : "changed");
}

/* Routes over a link go when it goes down, and no event tells of each of them. */
static unsigned notice_link(struct flat_reconcile *r, const struct flat_event *e,
			    char ret_why[static 160])
{
	unsigned dirty = 0;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_underlay *u = &r->underlays[f];
		const bool named = !strcmp(e->link.name, u->name);
		if (!u->index || (e->link.index != u->index && !named))
			continue;
		const bool same = !e->gone && named && e->link.index == u->index &&
				  e->link.mtu == u->mtu && e->link.up == r->carrier[f].up &&
				  e->link.running == r->carrier[f].running;
		r->carrier[f].up = e->link.up;
		r->carrier[f].running = e->link.running;
		if (same)
			continue;
		dirty |= FLAT_DIRTY_UNDERLAY | FLAT_DIRTY_KERNEL;
		snprintf(ret_why, 160, "link %s %s", e->link.name,
			 e->gone			       ? "was removed"
			 : !e->link.up			       ? "went down"
			 : e->link.mtu != u->mtu	       ? "has another MTU"
			 : e->link.index != u->index || !named ? "came back"
							       : "came up");
	}
	/* what of a tunnel is no part of its plan: an event does not tell which feature changed */
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (r->indices[f] && e->link.index == r->indices[f] && !e->gone)
			dirty |= FLAT_DIRTY_CHECKSUMS;
	/* nothing yet: any link that comes up may be it */
	if (!r->underlays[FLAT_V4].index && !r->underlays[FLAT_V6].index && e->link.up)
		dirty |= FLAT_DIRTY_UNDERLAY;
	if (r->mtu_changed_ms && e->link.mtu == r->mtu_was && e->link.master && !e->gone &&
	    flat_now_ms() - r->mtu_changed_ms < FLAT_MTU_WATCH_MS)
		dirty |= FLAT_DIRTY_MTU;
	return dirty;
}

static unsigned notice_addr(const struct flat_reconcile *r, const struct flat_event *e,
			    char ret_why[static 160])
{
	unsigned dirty = FLAT_DIRTY_UNDERLAY;
	for (size_t i = 0; i < r->conf->cluster.cidr_count; i++)
		if (flat_prefix_contains(&r->conf->cluster.cidrs[i], &e->addr.address.ip))
			return 0; /* of the bridge, of a tunnel: never the underlay's */
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (e->gone && e->addr.index == r->underlays[f].index)
			dirty |= FLAT_DIRTY_KERNEL; /* takes routes along, silently */
	if (dirty & FLAT_DIRTY_KERNEL)
		describe(e, ret_why);
	return dirty;
}

static unsigned notice_rules(const struct flat_event *e, char ret_why[static 160])
{
	const bool iptables = !strcmp(e->rules.table, "filter");
	if (!iptables && strcmp(e->rules.table, "flatnet") != 0)
		return 0;
	snprintf(ret_why, 160,
		 iptables ? "iptables' table filter was changed"
			  : "nftables' table flatnet was changed");
	return FLAT_DIRTY_RULES;
}

static void remember(char why[static 160], const char *text)
{
	if (!why[0])
		memcpy(why, text, 160);
}

unsigned flat_reconcile_notice(struct flat_reconcile *r, const struct flat_event *e)
{
	unsigned dirty = 0;
	char why[160] = "";
	switch (e->kind) {
	case FLAT_EVENT_LOST:
		snprintf(why, sizeof why, "more happened than the kernel could tell");
		remember(r->why_kernel, why);
		remember(r->why_rules, why);
		remember(r->why_bridge, why);
		return FLAT_DIRTY_ALL & ~(unsigned)FLAT_DIRTY_NODES;
	case FLAT_EVENT_RULES:
		dirty = notice_rules(e, why);
		/* an event does not say whose it is: looked at it is, blamed it is not */
		if (dirty && flat_now_ms() - r->rules_written_ms > OWN_ECHO_MS)
			remember(r->why_rules, why);
		return dirty;
	case FLAT_EVENT_LINK:
		dirty = notice_link(r, e, why);
		break;
	case FLAT_EVENT_ADDR:
		dirty = notice_addr(r, e, why);
		break;
	case FLAT_EVENT_ROUTE:
		dirty = e->route.route.dst.len == 0 ? FLAT_DIRTY_UNDERLAY : 0;
		break;
	case FLAT_EVENT_NEIGH:
		break;
	}
	if (r->wanted && !(dirty & FLAT_DIRTY_KERNEL) &&
	    flat_node_state_is_disturbed(&r->state, r->indices, e)) {
		dirty |= FLAT_DIRTY_KERNEL;
		describe(e, why);
	}
	if (dirty & FLAT_DIRTY_KERNEL)
		remember(r->why_kernel, why);
	if (flat_keeper_is_disturbed(r->keeper, &r->self.node, e, why)) {
		dirty |= FLAT_DIRTY_BRIDGE | FLAT_DIRTY_SYSCTLS;
		remember(r->why_bridge, why);
	}
	return dirty;
}
