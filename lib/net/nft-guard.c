// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation. The rules are nft-guard-chain.c's, and the same for all pods. What differs
 * are elements of sets, which belong to the attachment's host veth (nft-owned.h).
 *
 * Whom a pod may be reached by is a matter of its bridge: that is all that the node's IP layer sees
 * of where a packet comes from and goes to. So same_bridge_pods and isolated_pods are never looked
 * up by a packet; they say which pods want a policy, and bridges and within, which packets do ask,
 * follow from them in the transaction that changes them. The strictest pod of a bridge decides.
 *
 * As with the other rules (nft.c), what was read and what is written belong together by the
 * generation of the rule set.
 */
#include "nft-guard.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

/* One change, as often as it is tried. */
struct change {
	const struct flat_guard *want; /* NULL: nothing is to come */
	const char *owner;	       /* whose elements go; NULL: of all whose link is gone */
	struct part {
		bool concerned, unmake;
		struct flat_nft_rules rules; /* count 0: not looked at */
		struct flat_nft_view view;
		struct flat_nl_list old;
		bool differs, last;
	} parts[FLAT_GUARD_PARTS];
	struct flat_nl_list have, fresh;
	size_t fresh_own; /* the rest of fresh follows from what there is */
	size_t dropped;
};

static void close_change(struct change *c)
{
	for (int p = 0; p < FLAT_GUARD_PARTS; p++) {
		flat_nft_rules_free(&c->parts[p].rules);
		flat_nl_list_free(&c->parts[p].old);
	}
	flat_nl_list_free(&c->have);
	flat_nl_list_free(&c->fresh);
}
#define flat_auto_change __attribute__((cleanup(close_change))) struct change

static bool is_in(const struct flat_nft_element *e, enum flat_guard_set set)
{
	return e->set == &flat_guard_sets[set];
}

static bool is_derived(const struct flat_nft_element *e)
{
	return is_in(e, FLAT_GUARD_BRIDGES) || is_in(e, FLAT_GUARD_WITHIN);
}

static bool is_of_pod(const struct flat_nft_element *e)
{
	return is_in(e, FLAT_GUARD_SAME) || is_in(e, FLAT_GUARD_ISOLATED);
}

static bool belongs_to(const struct flat_nft_element *e, const char *owner)
{
	const char *link = (const char *)e->key + (is_of_pod(e) ? FLAT_IFNAME_LEN : 0);
	return flat_nft_is_owned_by(e, owner) ||
	       (!is_derived(e) && !strncmp(link, owner, FLAT_IFNAME_LEN));
}

static bool is_of_bridge(const struct flat_nft_element *e, const uint8_t *bridge)
{
	return !memcmp(e->key, bridge, FLAT_IFNAME_LEN);
}

/* ---- what is wanted ----------------------------------------------------------------------------
 */

static bool add(struct flat_nl_list *list, enum flat_guard_set set, const char *owner,
		const void *parts[], const size_t *sizes, size_t count)
{
	struct flat_nft_element *e = flat_nft_add_element(list, &flat_guard_sets[set], owner);
	uint8_t *key = e ? e->key : NULL;
	for (size_t i = 0; key && i < count; i++) {
		memcpy(key, parts[i], sizes[i]);
		key += (sizes[i] + 3) / 4 * 4;
	}
	if (e && flat_nft_find_element(list, e) != e)
		list->count--; /* it is there already */
	return e != NULL;
}

static bool add_links(struct flat_nl_list *list, enum flat_guard_set set, const char *owner,
		      const char *first, const char *second)
{
	char names[2][FLAT_IFNAME_LEN] = { "", "" };
	memcpy(names[0], first, strnlen(first, FLAT_IFNAME_LEN - 1));
	if (second)
		memcpy(names[1], second, strnlen(second, FLAT_IFNAME_LEN - 1));
	return add(list, set, owner, (const void *[]){ names[0], names[1] },
		   (const size_t[]){ FLAT_IFNAME_LEN, FLAT_IFNAME_LEN }, second ? 2 : 1);
}

static bool add_address(struct flat_nl_list *list, enum flat_guard_set set,
			const struct flat_guard *want, const struct flat_ip *ip)
{
	char link[FLAT_IFNAME_LEN] = "";
	memcpy(link, want->owner, strnlen(want->owner, FLAT_IFNAME_LEN - 1));
	return add(list, set, want->owner,
		   (const void *[]){ link, want->mac.bytes, ip ? ip->bytes : NULL },
		   (const size_t[]){ sizeof link, sizeof want->mac.bytes,
				     ip ? flat_ip_size(ip) : 0 },
		   ip ? 3 : 2);
}

/* With each address goes the unspecified one of its family, for probes. */
static bool want_addresses(const struct flat_guard *want, struct flat_nl_list *list)
{
	bool fine = true;
	for (size_t i = 0; i < want->ip_count && fine; i++) {
		const struct flat_ip *ip = &want->ips[i];
		const struct flat_ip any = { .family = ip->family };
		const enum flat_guard_set set =
			ip->family == AF_INET ? FLAT_GUARD_IP4 : FLAT_GUARD_IP6;
		fine = add_address(list, set, want, ip) && add_address(list, set, want, &any);
	}
	if (fine && want->dhcp)
		fine = add_address(list, FLAT_GUARD_DHCP, want, NULL);
	return fine;
}

static int want_elements(struct change *c, struct flat_err *err)
{
	const struct flat_guard *want = c->want;
	bool fine = true;
	if (want->spoof) {
		fine = add_links(&c->fresh, FLAT_GUARD_LINKS, want->owner, want->owner, NULL) &&
		       (want->addresses ? want_addresses(want, &c->fresh)
					: add_address(&c->fresh, FLAT_GUARD_MACS, want, NULL));
	}
	if (fine && want->bridge)
		fine = add_links(&c->fresh, want->isolated ? FLAT_GUARD_ISOLATED : FLAT_GUARD_SAME,
				 want->owner, want->bridge, want->owner);
	c->fresh_own = c->fresh.count;
	return fine ? 0 : flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "isolation");
}

/* ---- what there is -----------------------------------------------------------------------------
 */

static int read_elements(struct flat_net *net, struct change *c, struct flat_err *err)
{
	int r = 0;
	c->have.count = 0;
	for (int p = 0; p < FLAT_GUARD_PARTS && r >= 0; p++) {
		const struct flat_guard_range *range = &flat_guard_ranges[p];
		for (int set = range->first_set;
		     c->parts[p].concerned && set <= (int)range->last_set && r >= 0; set++)
			r = flat_nft_read_elements(net, &flat_guard_sets[set], &c->have, err);
	}
	return r;
}

static int look_at_rules(struct flat_net *net, struct change *c, struct flat_err *err)
{
	for (int p = 0; p < FLAT_GUARD_PARTS; p++) {
		struct part *part = &c->parts[p];
		if (!part->rules.count)
			continue;
		int r = flat_nft_look(net, &part->rules, &part->view, &part->old, err);
		if (r < 0)
			return r;
		part->differs = r == 0;
	}
	return 0;
}

static void drop(struct change *c, struct flat_nft_element *e)
{
	c->dropped += !e->drop;
	e->drop = true;
}

/* Is any pod of this bridge isolated? */
static bool has_isolated(const struct change *c, const uint8_t *bridge)
{
	const struct flat_nl_list *lists[] = { &c->have, &c->fresh };
	for (size_t l = 0; l < FLAT_LEN(lists); l++) {
		for (size_t i = 0; i < lists[l]->count; i++) {
			const struct flat_nft_element *e = flat_nft_element_at(lists[l], i);
			if (is_in(e, FLAT_GUARD_ISOLATED) && !e->drop && is_of_bridge(e, bridge))
				return true;
		}
	}
	return false;
}

/* What follows from the elements that stay and those that come: added to the fresh ones. */
static bool derive(struct change *c)
{
	const struct flat_nl_list *lists[] = { &c->have, &c->fresh };
	const size_t counts[] = { c->have.count, c->fresh_own };
	bool fine = true;
	for (size_t l = 0; l < FLAT_LEN(lists); l++) {
		for (size_t i = 0; i < counts[l] && fine; i++) {
			const struct flat_nft_element *e = flat_nft_element_at(lists[l], i);
			char bridge[FLAT_IFNAME_LEN];
			if (!is_of_pod(e) || e->drop)
				continue;
			memcpy(bridge, e->key, sizeof bridge); /* the list may move */
			bridge[sizeof bridge - 1] = '\0';
			fine = add_links(&c->fresh, FLAT_GUARD_BRIDGES, bridge, bridge, NULL);
			if (fine && !has_isolated(c, (const uint8_t *)bridge))
				fine = add_links(&c->fresh, FLAT_GUARD_WITHIN, bridge, bridge,
						 bridge);
		}
	}
	for (size_t i = 0; i < c->have.count && fine; i++) {
		struct flat_nft_element *e = flat_nft_element_at(&c->have, i);
		struct flat_nft_element *same = flat_nft_find_element(&c->fresh, e);
		if (is_derived(e) && same)
			same->drop = true; /* there already */
		else if (is_derived(e))
			drop(c, e);
	}
	return fine;
}

static bool is_empty_after(const struct change *c, int part)
{
	const struct flat_guard_range *range = &flat_guard_ranges[part];
	for (size_t i = 0; i < c->have.count; i++) {
		const struct flat_nft_element *e = flat_nft_element_at(&c->have, i);
		const ptrdiff_t set = e->set - flat_guard_sets;
		if (set >= (ptrdiff_t)range->first_set && set <= (ptrdiff_t)range->last_set &&
		    !e->drop)
			return false;
	}
	return true;
}

/* Looks, and decides. 1: there is something to write. */
static int decide(struct flat_net *net, struct change *c, struct flat_err *err)
{
	bool last = false;
	int r = read_elements(net, c, err);
	if (r >= 0)
		r = look_at_rules(net, c, err);
	if (r < 0)
		return r;
	c->dropped = 0;
	c->fresh.count = c->fresh_own;
	for (size_t i = 0; i < c->have.count; i++) {
		struct flat_nft_element *e = flat_nft_element_at(&c->have, i);
		if (!is_derived(e) &&
		    (c->owner ? belongs_to(e, c->owner) : !flat_nft_has_living_owner(e)))
			drop(c, e);
	}
	if (!derive(c))
		return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "isolation");
	for (int p = 0; p < FLAT_GUARD_PARTS; p++) {
		struct part *part = &c->parts[p];
		part->last = part->unmake && part->old.count && !part->view.others &&
			     is_empty_after(c, p);
		last = last || part->last;
	}
	return c->want || c->dropped || last;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void put_table(struct flat_nft_batch *b, enum flat_guard_part part, int type, int flags)
{
	const struct flat_nft_chain *table = &flat_nft_chains[flat_guard_ranges[part].first];
	struct nlmsghdr *h = flat_nft_put_header(b, type, table, flags);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_TABLE_NAME, table->table);
	if (type == NFT_MSG_NEWTABLE)
		mnl_attr_put_u32(h, NFTA_TABLE_FLAGS, 0);
	flat_nft_put_end(b, h);
}

/* Table, chains, sets and rules where they are not as wanted. */
static void put_chains(struct flat_nft_batch *b, const struct part *part, enum flat_guard_part p)
{
	const struct flat_guard_range *range = &flat_guard_ranges[p];
	put_table(b, p, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	for (int place = range->first; place <= (int)range->last; place++)
		flat_nft_put_chain(b, (enum flat_nft_place)place);
	for (int set = range->first_set; set <= (int)range->last_set; set++)
		flat_nft_put_set(b, &flat_guard_sets[set], (uint32_t)set + 1, NFT_MSG_NEWSET,
				 NLM_F_CREATE);
	for (size_t i = 0; i < part->old.count; i++) {
		const struct flat_nft_old *rule = (const struct flat_nft_old *)part->old.items + i;
		if (part->view.differs[rule->place])
			flat_nft_put_old(b, rule);
	}
	for (size_t i = 0; i < part->rules.count; i++)
		if (part->view.differs[part->rules.rules[i].place])
			flat_nft_put_rule(b, flat_nft_rule(&part->rules, i), NLM_F_APPEND);
}

static bool goes_with_table(const struct change *c, const struct flat_nft_element *e)
{
	const struct part *part = &c->parts[e->set->table == FLAT_NFT_INGRESS ? FLAT_GUARD_INGRESS
									      : FLAT_GUARD_SPOOF];
	return part->last;
}

static void put_change(struct flat_nft_batch *b, const struct change *c, uint32_t generation)
{
	flat_nft_put_marker(b, true, generation);
	for (int p = 0; p < FLAT_GUARD_PARTS; p++) {
		if (c->parts[p].last)
			put_table(b, (enum flat_guard_part)p, NFT_MSG_DELTABLE, 0);
		else if (c->want && c->parts[p].differs)
			put_chains(b, &c->parts[p], (enum flat_guard_part)p);
	}
	for (size_t i = 0; i < c->have.count; i++) {
		const struct flat_nft_element *e = flat_nft_element_at(&c->have, i);
		if (e->drop && !goes_with_table(c, e))
			flat_nft_put_element(b, e, false);
	}
	for (size_t i = 0; i < c->fresh.count; i++)
		if (!flat_nft_element_at(&c->fresh, i)->drop)
			flat_nft_put_element(b, flat_nft_element_at(&c->fresh, i), true);
	flat_nft_put_marker(b, false, 0);
}

static int refused(const struct change *c, struct flat_err *err, int r, const char *text)
{
	const bool spoof = c->parts[FLAT_GUARD_SPOOF].concerned;
	if (spoof && (r == -ENOENT || r == -EOPNOTSUPP || r == -EAFNOSUPPORT)) {
		flat_fail(err, FLAT_CODE_UNSUPPORTED, -r,
			  "macspoofchk, ipspoofchk: the kernel has no nf_tables for bridges");
		flat_detail(err, "load the module nf_tables, of a kernel with "
				 "CONFIG_NF_TABLES_BRIDGE, or leave these keys out");
		return r;
	}
	if ((r == -EEXIST || r == -EBUSY) && !*text)
		text = "a table is not as flatnet made it: remove it (nft delete table bridge "
		       "flatnet; nft delete table inet flatnet_ingress)";
	return flat_nft_refused(err, r, text, "nf_tables and nft_ct",
				"write the isolation of pods to nf_tables");
}

/* 1: written, 0: there was nothing to write. */
static int carry_out(struct flat_net *net, struct change *c, struct flat_err *err)
{
	char text[256] = "";
	int r = 0;
	for (int attempt = 0; attempt < FLAT_NFT_TRIES; attempt++) {
		struct flat_nft_batch batch = { .net = net };
		uint32_t generation = 0, seq = 0;
		if (attempt)
			flat_nft_pause(attempt);
		r = flat_nft_generation(net, &generation, err);
		if (r >= 0)
			r = decide(net, c, err);
		if (r <= 0)
			return r;
		put_change(&batch, c, generation);
		if (batch.failed)
			r = flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "isolation");
		else
			r = flat_nl_transact(net, batch.buf, batch.used, &seq, text, sizeof text,
					     err);
		free(batch.buf);
		if (r == 0)
			return 1;
		if (!seq)
			return r;
		if (r != -ERESTART)
			break;
	}
	return refused(c, err, r, text);
}

/* Concerned are the tables that it is about: their rules are to be looked at. */
static int prepare(struct change *c, struct flat_err *err)
{
	int r = 0;
	c->parts[FLAT_GUARD_SPOOF].concerned = c->want->spoof;
	c->parts[FLAT_GUARD_INGRESS].concerned = c->want->bridge != NULL;
	for (int p = 0; p < FLAT_GUARD_PARTS && r >= 0; p++)
		if (c->parts[p].concerned)
			r = flat_guard_build((enum flat_guard_part)p, &c->parts[p].rules, err);
	return r < 0 ? r : want_elements(c, err);
}

int flat_guard_ensure(const struct flat_guard *want, unsigned *ret_made, struct flat_err *err)
{
	flat_auto_net *net = NULL;
	flat_auto_change c = { .want = want, .owner = want->owner };
	int r = prepare(&c, err);
	if (r >= 0)
		r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r >= 0)
		r = carry_out(net, &c, err);
	if (r < 0)
		return r;
	*ret_made = 0;
	for (unsigned p = 0; p < FLAT_GUARD_PARTS; p++)
		*ret_made |= (c.parts[p].differs ? 1U : 0U) << p;
	return 0;
}

static int remove_elements(struct change *c, unsigned unmake, struct flat_net **ret_net,
			   struct flat_err *err)
{
	static const enum flat_nft_place places[FLAT_GUARD_PARTS] = {
		[FLAT_GUARD_SPOOF] = FLAT_NFT_SPOOF,
		[FLAT_GUARD_INGRESS] = FLAT_NFT_INGRESS,
	};
	flat_auto_net *own = NULL;
	struct flat_net *net = ret_net ? *ret_net : NULL;
	bool there[FLAT_GUARD_PARTS] = { false };
	int r = 0;
	if (!net) {
		r = flat_nl_open(NETLINK_NETFILTER, &own, err);
		if (r == -EPROTONOSUPPORT)
			return 0;
		net = own;
	}
	if (r >= 0)
		r = flat_nft_find_tables(net, places, FLAT_LEN(places), there, err);
	for (unsigned p = 0; p < FLAT_GUARD_PARTS && r >= 0; p++) {
		c->parts[p].concerned = there[p];
		c->parts[p].unmake = there[p] && unmake & 1U << p;
		if (c->parts[p].unmake)
			r = flat_guard_build((enum flat_guard_part)p, &c->parts[p].rules, err);
	}
	if (r >= 0 && (there[FLAT_GUARD_SPOOF] || there[FLAT_GUARD_INGRESS]))
		r = carry_out(net, c, err);
	if (ret_net && own) {
		*ret_net = own;
		own = NULL;
	}
	return r > 0 ? (int)c->dropped : r;
}

int flat_guard_remove(const char *owner, unsigned unmake, struct flat_net **ret_net,
		      struct flat_err *err)
{
	flat_auto_change c = { .owner = owner };
	return remove_elements(&c, unmake, ret_net, err);
}

int flat_guard_sweep(struct flat_err *err)
{
	flat_auto_change c = { 0 };
	return remove_elements(&c, 0, NULL, err);
}

/* The first difference between the elements wanted and those there. */
static bool compare(const struct change *c, char ret_what[static FLAT_GUARD_WHAT])
{
	for (size_t i = 0; i < c->fresh.count; i++) {
		const struct flat_nft_element *e = flat_nft_element_at(&c->fresh, i);
		if (is_derived(e) ? e->drop : flat_nft_find_element(&c->have, e) != NULL)
			continue;
		snprintf(ret_what, FLAT_GUARD_WHAT, "an element for '%s' of set '%s' is missing",
			 c->owner, e->set->name);
		return false;
	}
	for (size_t i = 0; i < c->have.count; i++) {
		const struct flat_nft_element *e = flat_nft_element_at(&c->have, i);
		if (!e->drop || flat_nft_find_element(&c->fresh, e))
			continue;
		snprintf(ret_what, FLAT_GUARD_WHAT,
			 "an element for '%s' of set '%s' allows more than it should",
			 is_derived(e) ? c->want->bridge : c->owner, e->set->name);
		return false;
	}
	return true;
}

int flat_guard_verify(const struct flat_guard *want, char ret_what[static FLAT_GUARD_WHAT],
		      struct flat_err *err)
{
	flat_auto_net *net = NULL;
	flat_auto_change c = { .want = want, .owner = want->owner };
	int r = prepare(&c, err);
	if (r >= 0)
		r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r >= 0)
		r = decide(net, &c, err); /* what an ADD would do now */
	if (r < 0)
		return r;
	for (int p = 0; p < FLAT_GUARD_PARTS; p++) {
		const struct flat_nft_chain *table = &flat_nft_chains[flat_guard_ranges[p].first];
		if (!c.parts[p].differs && !c.parts[p].view.others)
			continue;
		snprintf(ret_what, FLAT_GUARD_WHAT,
			 c.parts[p].differs ? "the rules in table '%s %s' are missing or changed"
					    : "table '%s %s' has a rule that is not flatnet's",
			 table->family == NFPROTO_INET ? "inet" : "bridge", table->table);
		return 0;
	}
	return compare(&c, ret_what);
}
