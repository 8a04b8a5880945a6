// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation. The chains are the same for all ports, and say nothing of any of them
 * (nft-ports-chain.c); ports are elements of maps (nft-ports-map.c). Here is decided what is to
 * change.
 *
 * As with the other rules (nft.c), what was read and what is written belong together by the
 * generation of the rule set. So nobody removes what has become another's in between.
 */
#include "nft-ports.h"
#include "conntrack.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST_PODS = 64 }; /* whose connections are forgotten one by one */

/* One change, as often as it is tried. */
struct change {
	const struct flat_ports *want; /* NULL: nothing is to come */
	const char *owner;	       /* whose elements go; NULL: of all whose link is gone */
	bool unmake;
	bool tidy;		     /* chains that nothing leads to go, whoever made them */
	struct flat_nft_rules rules; /* of the chains; count 0: not looked at */
	struct flat_ports_side sides[FLAT_PORTS_SIDES]; /* wanted */
	size_t side_count;

	struct flat_nft_view view;
	struct flat_nl_list old, have, fresh;
	struct flat_nl_list idle; /* side chains that nothing will lead to */
	bool chains_differ, last;
	size_t dropped;
};

static void close_change(struct change *c)
{
	flat_nft_rules_free(&c->rules);
	flat_nl_list_free(&c->old);
	flat_nl_list_free(&c->have);
	flat_nl_list_free(&c->fresh);
	flat_nl_list_free(&c->idle);
}
#define flat_auto_change __attribute__((cleanup(close_change))) struct change

static void drop(struct change *c, struct flat_ports_element *e)
{
	c->dropped += !e->drop;
	e->drop = true;
}

/* All that an owner who is gone has left. */
static void drop_owner(struct change *c, const struct flat_ports_element *of)
{
	char owner[FLAT_IFNAME_LEN];
	const bool named = flat_ports_owner_of(of, owner);
	for (size_t i = 0; i < c->have.count; i++) {
		struct flat_ports_element *e = (struct flat_ports_element *)c->have.items + i;
		if (e == of || (named && flat_ports_is_owned_by(e, owner)))
			drop(c, e);
	}
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "sctp";
}

static int in_use(const struct flat_ports_element *taken, struct flat_err *err)
{
	const struct flat_port port = flat_ports_port_of(taken);
	char owner[FLAT_IFNAME_LEN] = "", pod[FLAT_IP_TEXT], host[FLAT_IP_TEXT];
	const char *label = taken->comment;
	if (flat_ports_owner_of(taken, owner))
		label += strlen("flatnet ") + flat_ports_has_side(taken) + strlen(owner);
	label += *label == ' ';
	flat_fail(err, FLAT_CODE_IN_USE, 0, "host port %u/%s%s%s is taken by %s", port.port,
		  protocol_name(port.protocol), flat_ports_is_any(&port.host) ? "" : " of address ",
		  flat_ports_is_any(&port.host) ? "" : flat_ip_text(&port.host, host),
		  *label ? label : "an element without a name");
	flat_detail(err,
		    "it leads to port %u of %s (link '%s'): delete that pod, or choose another "
		    "hostPort or hostIP",
		    port.pod_port, flat_ip_text(&port.pod, pod), owner[0] ? owner : "?");
	return -EADDRINUSE;
}

/* As bind(2) has it: any address and one of them are the same port. */
static bool collide(const struct flat_port *a, const struct flat_port *b)
{
	return a->protocol == b->protocol && a->port == b->port &&
	       a->host.family == b->host.family &&
	       (flat_ports_is_any(&a->host) || flat_ports_is_any(&b->host) ||
		flat_ip_equal(&a->host, &b->host));
}

static int make_way_for(struct change *c, const struct flat_ports_element *fresh,
			struct flat_err *err)
{
	const struct flat_ip pod = flat_ports_pod_of(fresh);
	const struct flat_port port =
		flat_ports_is_map(fresh->set) ? flat_ports_port_of(fresh) : (struct flat_port){ 0 };
	for (size_t i = 0; i < c->have.count; i++) {
		struct flat_ports_element *e = (struct flat_ports_element *)c->have.items + i;
		const struct flat_ip other = flat_ports_pod_of(e);
		const struct flat_port taken =
			flat_ports_is_map(e->set) ? flat_ports_port_of(e) : (struct flat_port){ 0 };
		const bool clash = flat_ports_is_map(fresh->set) && flat_ports_is_map(e->set) &&
				   collide(&port, &taken);
		if (e->drop || !pod.family || (!clash && !flat_ip_equal(&pod, &other)))
			continue;
		if (!flat_ports_has_living_owner(e))
			drop_owner(c, e);
		else if (clash)
			return in_use(e, err);
		else if (flat_ports_same_key(e, fresh))
			drop(c, e);
	}
	return 0;
}

static bool leads_to(const struct flat_nl_list *list, const char *chain)
{
	for (size_t i = 0; i < list->count; i++) {
		const struct flat_ports_element *e = flat_ports_element_at(list, i);
		if (flat_ports_is_jump(e->set) && !e->drop && !strcmp(e->chain, chain))
			return true;
	}
	return false;
}

static const char *side_at(const struct flat_nl_list *list, size_t i)
{
	return ((const struct flat_ports_side *)list->items)[i].chain;
}

/* Which side chains are there for nothing, after this change? Most nodes have none at all. */
static int find_idle(struct flat_net *net, struct change *c, struct flat_err *err)
{
	bool look = c->tidy;
	c->idle.count = 0;
	for (size_t i = 0; i < c->have.count && !look; i++)
		look = flat_ports_element_at(&c->have, i)->drop &&
		       flat_ports_has_side(flat_ports_element_at(&c->have, i));
	if (!look)
		return 0;
	int r = flat_ports_list_sides(net, &c->idle, err);
	struct flat_ports_side *sides = (struct flat_ports_side *)c->idle.items;
	size_t n = 0;
	for (size_t i = 0; i < c->idle.count; i++)
		if (!leads_to(&c->have, sides[i].chain) && !leads_to(&c->fresh, sides[i].chain))
			sides[n++] = sides[i];
	c->idle.count = n;
	return r;
}

static int look_at_sides(struct flat_net *net, struct change *c, struct flat_err *err)
{
	for (size_t i = 0; i < c->side_count; i++) {
		int r = flat_ports_look_at_side(net, &c->sides[i], err);
		if (r < 0)
			return r;
		c->sides[i].there = r > 0;
	}
	return 0;
}

/* Looks, and decides. 1: there is something to write. */
static int decide(struct flat_net *net, struct change *c, struct flat_err *err)
{
	int r = flat_ports_read(net, &c->have, err);
	c->dropped = 0;
	c->old.count = 0;
	c->chains_differ = c->last = false;
	if (r >= 0 && c->rules.count) {
		r = flat_nft_look(net, &c->rules, &c->view, &c->old, err);
		c->chains_differ = r == 0;
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < c->have.count; i++) {
		struct flat_ports_element *e = (struct flat_ports_element *)c->have.items + i;
		if (c->owner ? flat_ports_is_owned_by(e, c->owner)
			     : !flat_ports_has_living_owner(e))
			drop(c, e);
	}
	for (size_t i = 0; i < c->fresh.count; i++) {
		struct flat_ports_element *fresh = (struct flat_ports_element *)c->fresh.items + i;
		fresh->drop = false;
		r = make_way_for(c, fresh, err);
		if (r < 0)
			return r;
		for (size_t k = 0; fresh->set == FLAT_PORTS_BRIDGES && k < c->have.count; k++)
			fresh->drop =
				fresh->drop ||
				flat_ports_same_key(fresh, flat_ports_element_at(&c->have, k));
	}
	if ((r = find_idle(net, c, err)) < 0 || (r = look_at_sides(net, c, err)) < 0)
		return r;
	/* of a table without rules only idle chains can be left */
	c->last = c->unmake && (c->tidy ? !c->old.count && !c->view.others : c->old.count > 0);
	for (size_t i = 0; i < c->have.count && c->last; i++)
		c->last = flat_ports_element_at(&c->have, i)->drop ||
			  flat_ports_element_at(&c->have, i)->set == FLAT_PORTS_BRIDGES;
	return c->want || c->dropped || c->last || c->idle.count;
}

static void put_change(struct flat_nft_batch *b, const struct change *c, uint32_t generation)
{
	flat_nft_put_marker(b, true, generation);
	if (c->last) {
		flat_ports_put_removal(b, &c->view);
		for (size_t i = 0; i < c->idle.count && c->view.others; i++)
			flat_ports_put_side_removal(b, side_at(&c->idle, i));
		flat_nft_put_marker(b, false, 0);
		return;
	}
	if (c->want && c->chains_differ)
		flat_ports_put_chains(b, &c->view, &c->old);
	for (size_t i = 0; i < c->side_count; i++)
		if (!c->sides[i].family && !c->sides[i].there)
			flat_ports_put_mark(b, &c->sides[i]);
	for (size_t i = 0; i < c->have.count; i++)
		if (flat_ports_element_at(&c->have, i)->drop)
			flat_ports_put_element(b, flat_ports_element_at(&c->have, i), false);
	for (size_t i = 0; i < c->fresh.count; i++)
		if (!flat_ports_element_at(&c->fresh, i)->drop)
			flat_ports_put_element(b, flat_ports_element_at(&c->fresh, i), true);
	for (size_t i = 0; i < c->idle.count; i++)
		flat_ports_put_side_removal(b, side_at(&c->idle, i));
	flat_nft_put_marker(b, false, 0);
}

/* The chains of conditions that are not there. 1: there were such, so all else is to be looked at
 * again. */
static int write_conditions(struct change *c, struct flat_err *err)
{
	int written = 0;
	for (size_t i = 0; i < c->side_count; i++) {
		if (!c->sides[i].family || c->sides[i].there)
			continue;
		int r = flat_conditions_write(&c->sides[i], err);
		if (r < 0)
			return r;
		written = 1;
	}
	return written;
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
		r = write_conditions(c, err);
		if (r < 0)
			return r;
		if (r > 0) {
			r = -ERESTART;
			continue;
		}
		put_change(&batch, c, generation);
		if (batch.failed)
			r = flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "host ports");
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
	return flat_nft_refused(err, r, text,
				"nft_chain_nat, nft_nat, nft_masq, nft_fib_inet and nft_ct",
				"write the host ports to nf_tables");
}

/* The pods of what was written, and the ports, have a past. */
static void forget(struct flat_net *net, const struct change *c, const struct flat_log *log)
{
	const struct flat_nl_list *lists[] = { &c->have, &c->fresh };
	struct flat_err e = { 0 };
	struct flat_ip pods[MOST_PODS];
	size_t count = 0;
	for (size_t l = 0; l < FLAT_LEN(lists); l++) {
		for (size_t i = 0; i < lists[l]->count && count < MOST_PODS; i++) {
			const struct flat_ports_element *item = flat_ports_element_at(lists[l], i);
			const struct flat_ip pod = flat_ports_pod_of(item);
			bool known = !pod.family || (lists[l] == &c->have && !item->drop);
			for (size_t k = 0; k < count && !known; k++)
				known = flat_ip_equal(&pods[k], &pod);
			if (!known)
				pods[count++] = pod;
		}
	}
	if (flat_conntrack_forget(net, pods, count, c->want ? c->want->items : NULL,
				  c->want ? c->want->count : 0, &e) < 0)
		flat_warn(log, "%s: old connections may go astray", e.msg);
}

/* A chain of conditions may have been made for a change that then failed. */
static void take_back(struct flat_net *net)
{
	flat_auto_change c = { .owner = "", .unmake = true, .tidy = true };
	struct flat_err e = { 0 };
	if (flat_ports_build_chains(false, &c.rules, &e) == 0)
		carry_out(net, &c, &e);
}

int flat_ports_ensure(const struct flat_ports *want, bool *ret_made, const struct flat_log *log,
		      struct flat_err *err)
{
	flat_auto_net *net = NULL;
	flat_auto_change c = { .want = want, .owner = want->owner };
	c.side_count = flat_ports_sides(want, c.sides);
	int r = flat_ports_build_chains(want->loopback6, &c.rules, err);
	if (r >= 0)
		r = flat_ports_want_elements(want, &c.fresh, err);
	if (r >= 0)
		r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r >= 0)
		r = carry_out(net, &c, err);
	if (r < 0) {
		if (net && c.side_count)
			take_back(net);
		return r;
	}
	*ret_made = c.chains_differ;
	forget(net, &c, log);
	return 0;
}

static int remove_ports(struct change *c, struct flat_net **ret_net, const struct flat_log *log,
			struct flat_err *err)
{
	flat_auto_net *own = NULL;
	struct flat_net *net = ret_net ? *ret_net : NULL;
	struct flat_err e = { 0 };
	int r = 0;
	if (!net) {
		r = flat_nl_open(NETLINK_NETFILTER, &own, &e);
		if (r == -EPROTONOSUPPORT)
			return 0;
		net = own;
	}
	if (r >= 0)
		r = flat_ports_may_be_there(net, &e);
	if (r == 0 && c->tidy) {
		r = flat_ports_list_sides(net, &c->idle, &e);
		r = r < 0 ? r : c->idle.count > 0;
	}
	if (r > 0)
		r = carry_out(net, c, &e);
	if (r < 0 && err)
		*err = e;
	if (r > 0 && c->dropped)
		forget(net, c, log);
	if (ret_net && own) {
		*ret_net = own;
		own = NULL;
	}
	return r > 0 ? (int)c->dropped : r;
}

int flat_ports_remove(const char *owner, bool unmake, struct flat_net **ret_net,
		      const struct flat_log *log, struct flat_err *err)
{
	flat_auto_change c = { .owner = owner, .unmake = unmake };
	int r = unmake ? flat_ports_build_chains(false, &c.rules, err) : 0;
	return r < 0 ? r : remove_ports(&c, ret_net, log, err);
}

int flat_ports_sweep(const struct flat_log *log, struct flat_err *err)
{
	flat_auto_change c = { .tidy = true };
	return remove_ports(&c, NULL, log, err);
}

int flat_ports_verify(const struct flat_ports *want, char ret_what[static FLAT_PORTS_WHAT],
		      struct flat_err *err)
{
	flat_auto_net *net = NULL;
	flat_auto_change c = { .want = want };
	c.side_count = flat_ports_sides(want, c.sides);
	int r = flat_ports_build_chains(want->loopback6, &c.rules, err);
	if (r >= 0)
		r = flat_ports_want_elements(want, &c.fresh, err);
	if (r >= 0)
		r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r >= 0)
		r = flat_nft_look(net, &c.rules, &c.view, &c.old, err);
	if (r == 0) {
		snprintf(ret_what, FLAT_PORTS_WHAT,
			 "the chains of host ports in table 'inet flatnet' are missing or changed");
		return 0;
	}
	if (r > 0)
		r = flat_ports_read(net, &c.have, err);
	if (r < 0)
		return r;
	r = look_at_sides(net, &c, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < c.side_count; i++) {
		if (c.sides[i].there)
			continue;
		snprintf(ret_what, FLAT_PORTS_WHAT,
			 "chain '%s' in table 'inet flatnet' (%s) is missing or changed",
			 c.sides[i].chain,
			 c.sides[i].family == AF_INET	 ? "conditionsV4"
			 : c.sides[i].family == AF_INET6 ? "conditionsV6"
							 : "markMasqBit");
		return 0;
	}
	for (size_t i = 0; i < c.fresh.count; i++) {
		const struct flat_ports_element *e = flat_ports_element_at(&c.fresh, i),
						*found = NULL;
		for (size_t k = 0; k < c.have.count && !found; k++) {
			const struct flat_ports_element *other = flat_ports_element_at(&c.have, k);
			if (flat_ports_same_key(e, other) &&
			    !memcmp(e->data, other->data, FLAT_PORTS_DATA) &&
			    (e->set == FLAT_PORTS_BRIDGES ||
			     flat_ports_is_owned_by(other, want->owner)))
				found = other;
		}
		if (found)
			continue;
		const struct flat_port port =
			flat_ports_is_map(e->set) ? flat_ports_port_of(e) : (struct flat_port){ 0 };
		if (flat_ports_is_map(e->set))
			snprintf(ret_what, FLAT_PORTS_WHAT,
				 "host port %u/%s does not lead to the pod: its element of map "
				 "'%s' is missing or another's",
				 port.port, protocol_name(port.protocol),
				 flat_ports_sets[e->set].name);
		else
			snprintf(ret_what, FLAT_PORTS_WHAT,
				 "an element of set '%s' is missing or another's",
				 flat_ports_sets[e->set].name);
		return 0;
	}
	return 1;
}
