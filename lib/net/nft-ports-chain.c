// SPDX-License-Identifier: Apache-2.0
/*
 * The chains of host ports are the same for all of them, and say nothing of any. What a packet
 *costs does not depend on their number, and only the first packet of a connection passes here at
 *all.
 *
 *	chain hostports_prerouting, hostports_output {
 *		ip6 daddr ::1 return			only in hostports_output; see below
 *		fib daddr type local jump hostports
 *	}
 *	chain hostports {
 *		ip daddr . meta l4proto . th dport vmap @hostports4_address_if
 *		meta l4proto . th dport vmap @hostports4_if
 *		dnat ip to ip daddr . meta l4proto . th dport map @hostports4_address
 *		dnat ip to meta l4proto . th dport map @hostports4
 *	}
 *	chain hostports_postrouting {
 *		meta mark & 0x00004000 == 0x00004000 return
 *		ct status & dnat != dnat return
 *		ip saddr . ip daddr @hostports4_pods goto hostports_masquerade
 *		ip saddr 127.0.0.0/8 ip daddr . ip daddr @hostports4_pods goto ...
 *		iifname . oifname @hostports_bridges ip daddr . ip daddr @hostports4_pods ...
 *		ip daddr . meta l4proto . ct original proto-dst @hostports4_masquerade ...
 *	}
 *	chain hostports_masquerade {
 *		ip daddr vmap @hostports4_marks
 *		masquerade fully-random
 *	}
 *	chain hostports_guard {
 *		iifname != "lo" ip daddr 127.0.0.0/8 drop
 *	}
 *
 * and the same for IPv6. hostports4_pods has "pod . pod" for each pod with a port: looked up with
 * source and destination it finds who speaks to himself, and with the destination twice who speaks
 * to such a pod. An answer to the node's loopback would leave the pod for its own one, and one to a
 * neighbour would take the short way over the bridge, so these get the node's address.
 *
 * That the kernel takes an answer for 127.0.0.1 from a bridge (route_localnet) means that it takes
 * anything else for it, too; the guard is there for that.
 *
 * An answer for ::1 has two things in its way. The route to ::1 must be by the link that it came
 * from (rt6_need_strict() in net/ipv6/route.c): a route of the bridge's own does it. And what says
 * ::1 when it comes is dropped (ip6_rcv_core() in net/ipv6/ip6_input.c), which is before NAT has
 * made it ::1, unless br_netfilter has NAT done by the bridge, earlier. Then such a connection
 *could only wait for its time-out, so it is left alone, and refused at once; who asks for
 *"localhost" goes on to 127.0.0.1.
 */
#include "nft-ports.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <string.h>

enum {
	/* a part of 4 bytes after one of 4; of 16 bytes it would be register 2 */
	REG_SECOND4 = NFT_REG32_01,
	REG_THIRD4 = NFT_REG32_02,
	REG_AFTER_IPV6_AND_4 = NFT_REG32_05,
};

static void add_meta_to(struct flat_nft_rule *r, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "meta");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, reg);
}

static void add_payload_to(struct flat_nft_rule *r, uint32_t base, uint32_t offset, uint32_t len,
			   uint32_t reg)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "payload");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, reg);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, len);
}

static void add_address_to(struct flat_nft_rule *r, bool v4, bool source, uint32_t reg)
{
	const uint32_t offset = v4 ? (source ? 12 : 16) : (source ? 8 : 24);
	add_payload_to(r, NFT_PAYLOAD_NETWORK_HEADER, offset, v4 ? 4 : 16, reg);
}

/* A map to chains is followed, any other leaves its data in register 1. */
static void add_lookup(struct flat_nft_rule *r, enum flat_ports_set set)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "lookup");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	if (flat_ports_is_map(set) || flat_ports_is_jump(set))
		nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_DREG,
				   flat_ports_is_jump(set) ? NFT_REG_VERDICT : NFT_REG_1);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, flat_ports_sets[set].name) < 0)
		r->failed = true;
}

/* ct status, or the port that the connection began with. */
static void add_ct(struct flat_nft_rule *r, uint32_t key, bool original, uint32_t reg)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "ct");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, reg);
	if (original)
		nftnl_expr_set_u8(e, NFTNL_EXPR_CT_DIR, IP_CT_DIR_ORIGINAL);
}

static void add_chain(struct flat_nft_rule *r, int verdict, enum flat_nft_place to)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "immediate");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, flat_nft_chains[to].chain) < 0)
		r->failed = true;
}

static void build_jump(struct flat_nft_builder *b, enum flat_nft_place place)
{
	const uint32_t local = RTN_LOCAL;
	struct flat_nft_rule r = flat_nft_begin_rule(place, 0);
	struct nftnl_expr *e = flat_nft_add_expr(&r, "fib");
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
	}
	flat_nft_add_compare(&r, NFT_CMP_EQ, &local, sizeof local);
	add_chain(&r, NFT_JUMP, FLAT_NFT_PORTS);
	flat_nft_end_rule(b, &r);
}

/* What this port is in the map. */
static void build_port(struct flat_nft_builder *b, enum flat_ports_set set, bool addressed)
{
	const int family = flat_ports_sets[set].family;
	const bool v4 = family == AF_INET;
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS, family);
	if (addressed)
		add_address_to(&r, v4, false, NFT_REG_1);
	add_meta_to(&r, NFT_META_L4PROTO, !addressed ? NFT_REG_1 : v4 ? REG_SECOND4 : NFT_REG_2);
	/* the destination port is at the same place in all three */
	add_payload_to(&r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2,
		       !addressed ? REG_SECOND4
		       : v4	  ? REG_THIRD4
				  : REG_AFTER_IPV6_AND_4);
	add_lookup(&r, set);
	struct nftnl_expr *e = flat_ports_is_map(set) ? flat_nft_add_expr(&r, "nat") : NULL;
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT);
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_FAMILY, (uint32_t)family);
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG_1);
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_REG_PROTO_MIN,
				   v4 ? (uint32_t)REG_SECOND4 : NFT_REG_2);
	}
	flat_nft_end_rule(b, &r);
}

/* Connections that nobody redirected are none of ours. */
static void build_status(struct flat_nft_builder *b)
{
	const uint32_t redirected = IPS_DST_NAT, none = 0;
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_SOURCE, 0);
	add_ct(&r, NFT_CT_STATUS, false, NFT_REG_1);
	flat_nft_add_mask(&r, &redirected, sizeof redirected);
	flat_nft_add_compare(&r, NFT_CMP_EQ, &none, sizeof none);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static const struct flat_prefix loopback4 = { .ip = { AF_INET, { 127 } }, .len = 8 };
static const struct flat_prefix loopback6 = { .ip = { AF_INET6, { [15] = 1 } }, .len = 128 };

static void build_no_loopback6(struct flat_nft_builder *b)
{
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_OUT, AF_INET6);
	flat_nft_add_address(&r, false, NFT_CMP_EQ, &loopback6);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

enum from { FROM_ITSELF, FROM_LOOPBACK, FROM_NEIGHBOUR, FROM_ANYWHERE, FROMS };

static void build_source(struct flat_nft_builder *b, int family, enum from from)
{
	const bool v4 = family == AF_INET;
	const uint32_t second = v4 ? (uint32_t)REG_SECOND4 : NFT_REG_2;
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_SOURCE, family);
	if (from == FROM_LOOPBACK)
		flat_nft_add_address(&r, true, NFT_CMP_EQ, v4 ? &loopback4 : &loopback6);
	if (from == FROM_NEIGHBOUR) { /* where it came in is known here since Linux 5.7 */
		add_meta_to(&r, NFT_META_IIFNAME, NFT_REG_1);
		add_meta_to(&r, NFT_META_OIFNAME, NFT_REG_2);
		add_lookup(&r, FLAT_PORTS_BRIDGES);
	}
	add_address_to(&r, v4, from == FROM_ITSELF, NFT_REG_1);
	if (from == FROM_ANYWHERE) {
		add_meta_to(&r, NFT_META_L4PROTO, second);
		add_ct(&r, NFT_CT_PROTO_DST, true, v4 ? REG_THIRD4 : REG_AFTER_IPV6_AND_4);
		add_lookup(&r, v4 ? FLAT_PORTS_MASQ4 : FLAT_PORTS_MASQ6);
	} else {
		add_address_to(&r, v4, false, second);
		add_lookup(&r, v4 ? FLAT_PORTS_PODS4 : FLAT_PORTS_PODS6);
	}
	add_chain(&r, NFT_GOTO, FLAT_NFT_PORTS_MASQUERADE);
	flat_nft_end_rule(b, &r);
}

static void build_masquerade(struct flat_nft_builder *b)
{
	static const enum flat_ports_set marks[] = { FLAT_PORTS_MARKS4, FLAT_PORTS_MARKS6 };
	for (size_t i = 0; i < FLAT_LEN(marks); i++) {
		const int family = flat_ports_sets[marks[i]].family;
		struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_MASQUERADE, family);
		add_address_to(&r, family == AF_INET, false, NFT_REG_1);
		add_lookup(&r, marks[i]);
		flat_nft_end_rule(b, &r);
	}
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_MASQUERADE, 0);
	flat_nft_add_masquerade(&r);
	flat_nft_end_rule(b, &r);
}

static void build_guard(struct flat_nft_builder *b)
{
	static const char lo[IFNAMSIZ] = "lo";
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_GUARD, AF_INET);
	flat_nft_add_meta(&r, NFT_META_IIFNAME);
	flat_nft_add_compare(&r, NFT_CMP_NEQ, lo, sizeof lo);
	flat_nft_add_address(&r, false, NFT_CMP_EQ, &loopback4);
	flat_nft_add_verdict(&r, NF_DROP);
	flat_nft_end_rule(b, &r);
}

int flat_ports_build_chains(bool to_loopback6, struct flat_nft_rules *ret_rules,
			    struct flat_err *err)
{
	static const struct {
		enum flat_ports_set set;
		bool addressed;
	} ports[] = {
		{ FLAT_PORTS_IF_ADDRESS4, true }, { FLAT_PORTS_IF_ANY4, false },
		{ FLAT_PORTS_ADDRESS4, true },	  { FLAT_PORTS_ANY4, false },
		{ FLAT_PORTS_IF_ADDRESS6, true }, { FLAT_PORTS_IF_ANY6, false },
		{ FLAT_PORTS_ADDRESS6, true },	  { FLAT_PORTS_ANY6, false },
	};
	struct flat_nft_builder b = { .rules = ret_rules, .digest = 2 };
	*ret_rules = (struct flat_nft_rules){ .prefix = FLAT_NFT_PORTS_TAG, .ports = true };
	for (size_t i = 0; i < FLAT_LEN(ports); i++)
		build_port(&b, ports[i].set, ports[i].addressed);
	build_masquerade(&b);
	build_jump(&b, FLAT_NFT_PORTS_IN);
	if (!to_loopback6)
		build_no_loopback6(&b);
	build_jump(&b, FLAT_NFT_PORTS_OUT);
	flat_nft_build_mark(&b, FLAT_NFT_PORTS_SOURCE);
	build_status(&b);
	for (int from = 0; from < FROMS; from++) {
		build_source(&b, AF_INET, (enum from)from);
		if (from != FROM_LOOPBACK || to_loopback6)
			build_source(&b, AF_INET6, (enum from)from);
	}
	build_guard(&b);
	if (!b.failed)
		return 0;
	flat_nft_rules_free(ret_rules);
	return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "rules of host ports");
}

void flat_ports_put_chains(struct flat_nft_batch *b, const struct flat_nft_view *view,
			   const struct flat_nl_list *old)
{
	flat_nft_put_table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	for (int p = FLAT_NFT_PORTS; p <= FLAT_NFT_PORTS_GUARD; p++)
		flat_nft_put_chain(b, (enum flat_nft_place)p);
	for (int set = 0; set < FLAT_PORTS_SETS; set++)
		flat_ports_put_set(b, (enum flat_ports_set)set, NFT_MSG_NEWSET, NLM_F_CREATE);
	for (size_t i = 0; i < old->count; i++) {
		const struct flat_nft_old *rule = (const struct flat_nft_old *)old->items + i;
		if (view->differs[rule->place])
			flat_nft_put_old(b, rule);
	}
	for (size_t i = 0; i < view->rules->count; i++)
		if (view->differs[view->rules->rules[i].place])
			flat_nft_put_rule(b, flat_nft_rule(view->rules, i), NLM_F_APPEND);
}

static void put_chain_removal(struct flat_nft_batch *b, enum flat_nft_place place)
{
	const struct flat_nft_chain *chain = &flat_nft_chains[place];
	struct nlmsghdr *h = flat_nft_put_header(b, NFT_MSG_DELCHAIN, chain, 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, chain->table);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, chain->chain);
	flat_nft_put_end(b, h);
}

void flat_ports_put_removal(struct flat_nft_batch *b, const struct flat_nft_view *view)
{
	if (!view->others) {
		flat_nft_put_table(b, NFT_MSG_DELTABLE, 0);
		return;
	}
	/* who jumps goes before where he jumps to */
	for (int p = FLAT_NFT_PORTS_GUARD; p >= FLAT_NFT_PORTS; p--)
		put_chain_removal(b, (enum flat_nft_place)p);
	for (int set = 0; set < FLAT_PORTS_SETS; set++)
		flat_ports_put_set(b, (enum flat_ports_set)set, NFT_MSG_DELSET, 0);
}
