// SPDX-License-Identifier: Apache-2.0
/*
 * Conditions and marks. A map has room for one thing: where a port leads to. What else belongs to a
 * port, and few have it, is in a chain that a second map jumps to:
 *
 *	chain hostports_if_HASH {	from hostports, by protocol and port
 *		CONDITIONS return	... to be redirected
 *		accept			... as if there were no such port
 *	}
 *	chain hostports_mark_BITS {	from hostports_masquerade, by the pod
 *		meta mark set meta mark | BITS
 *	}
 *
 * So a packet still passes the same number of rules, however many pods and conditions there are.
 */
#include "nft-ports.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>
#include <sys/socket.h>

#define IF_CHAIN   "hostports_if_"
#define MARK_CHAIN "hostports_mark_"

/* Goes into the name: raise it when the same conditions make other rules. */
enum { CONDITIONS_VERSION = 1 };

static bool has_family(const struct flat_ports *want, int family)
{
	for (size_t i = 0; i < want->count; i++)
		if (want->items[i].pod.family == family)
			return true;
	return false;
}

size_t flat_ports_sides(const struct flat_ports *want,
			struct flat_ports_side ret_sides[static FLAT_PORTS_SIDES])
{
	const struct flat_ports_side conditions[] = {
		{ .family = AF_INET, .text = want->conditions4 },
		{ .family = AF_INET6, .text = want->conditions6 },
	};
	size_t count = 0;
	for (size_t i = 0; i < FLAT_LEN(conditions); i++) {
		const struct flat_ports_side *side = &conditions[i];
		if (!side->text || !has_family(want, side->family))
			continue;
		ret_sides[count] = *side;
		snprintf(ret_sides[count].chain, sizeof ret_sides[count].chain, IF_CHAIN "%016llx",
			 (unsigned long long)flat_hash(CONDITIONS_VERSION, side->text,
						       strlen(side->text)));
		count++;
	}
	if (want->mark && want->snat && want->count) {
		ret_sides[count] = (struct flat_ports_side){ .mark = want->mark };
		snprintf(ret_sides[count].chain, sizeof ret_sides[count].chain, MARK_CHAIN "%x",
			 want->mark);
		count++;
	}
	return count;
}

void flat_ports_tag_side(const struct flat_ports_side *side, int rule, char *buf, size_t size)
{
	snprintf(buf, size, FLAT_NFT_PORTS_TAG "%s:%d", side->chain, rule);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

struct looking {
	const struct flat_ports_side *side;
	int rules;
	bool others;
};

static void reset_looking(void *arg)
{
	struct looking *looking = arg;
	looking->rules = 0;
	looking->others = false;
}

static int parse_side_rule(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NFTA_RULE_MAX + 1];
	struct looking *looking = arg;
	char tag[FLAT_NFT_TAG];
	(void)elem;
	if ((h->nlmsg_type & 0xff) != NFT_MSG_NEWRULE)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_RULE_MAX, NULL) < 0)
		return -EBADMSG;
	flat_ports_tag_side(looking->side, looking->rules, tag, sizeof tag);
	if (flat_nft_is_tagged(tb, tag))
		looking->rules++;
	else
		looking->others = true;
	return 0;
}

int flat_ports_look_at_side(struct flat_net *net, const struct flat_ports_side *side,
			    struct flat_err *err)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	flat_auto_list none = { 0 };
	struct looking looking = { .side = side };
	char buf[FLAT_NFT_REQUEST];
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETRULE, table);
	mnl_attr_put_strz(h, NFTA_RULE_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_RULE_CHAIN, side->chain);
	int r = flat_nl_dump(net, h, FLAT_GONE_OK, parse_side_rule, 1, &looking, reset_looking,
			     &none, err, "list the rules of chain '%s'", side->chain);
	if (r < 0)
		return flat_nft_advise(err, r);
	return looking.rules == (side->family ? 2 : 1) && !looking.others;
}

static int parse_side(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NFTA_CHAIN_MAX + 1];
	struct flat_ports_side *side = elem;
	char table[64];
	(void)arg;
	if ((h->nlmsg_type & 0xff) != NFT_MSG_NEWCHAIN)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_CHAIN_MAX, NULL) <
	    0)
		return -EBADMSG;
	flat_nl_text(tb[NFTA_CHAIN_TABLE], table, sizeof table);
	flat_nl_text(tb[NFTA_CHAIN_NAME], side->chain, sizeof side->chain);
	return !strcmp(table, flat_nft_chains[FLAT_NFT_PORTS].table) &&
	       (!strncmp(side->chain, IF_CHAIN, strlen(IF_CHAIN)) ||
		!strncmp(side->chain, MARK_CHAIN, strlen(MARK_CHAIN)));
}

int flat_ports_list_sides(struct flat_net *net, struct flat_nl_list *list, struct flat_err *err)
{
	char buf[FLAT_NFT_REQUEST];
	struct nlmsghdr *h =
		flat_nft_header(buf, NFT_MSG_GETCHAIN, &flat_nft_chains[FLAT_NFT_PORTS]);
	int r = flat_nl_dump(net, h, FLAT_GONE_OK, parse_side, sizeof(struct flat_ports_side), NULL,
			     NULL, list, err, "list the chains of nf_tables");
	return r < 0 ? flat_nft_advise(err, r) : 0;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void put_chain(struct flat_nft_batch *b, const char *chain, int type, int flags)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	struct nlmsghdr *h = flat_nft_put_header(b, type, table, flags);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, chain);
	flat_nft_put_end(b, h);
}

/* The whole chain, whatever is in it. */
static void put_flush(struct flat_nft_batch *b, const char *chain)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	struct nlmsghdr *h = flat_nft_put_header(b, NFT_MSG_DELRULE, table, 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_RULE_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_RULE_CHAIN, chain);
	flat_nft_put_end(b, h);
}

void flat_ports_put_mark(struct flat_nft_batch *b, const struct flat_ports_side *side)
{
	const uint32_t others = ~side->mark;
	struct flat_nft_rules rules = { 0 };
	struct flat_nft_builder builder = { .rules = &rules };
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS, 0);
	struct nftnl_expr *e;
	if (r.rule && nftnl_rule_set_str(r.rule, NFTNL_RULE_CHAIN, side->chain) < 0)
		r.failed = true;
	flat_nft_add_meta(&r, NFT_META_MARK);
	e = flat_nft_add_expr(&r, "bitwise");
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
		nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
		nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, sizeof others);
		if (nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, &others, sizeof others) < 0 ||
		    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, &side->mark, sizeof side->mark) < 0)
			r.failed = true;
	}
	e = flat_nft_add_expr(&r, "meta");
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, NFT_META_MARK);
		nftnl_expr_set_u32(e, NFTNL_EXPR_META_SREG, NFT_REG_1);
	}
	flat_ports_tag_side(side, 0, rules.prefix, sizeof rules.prefix);
	flat_nft_end_rule(&builder, &r);
	b->failed |= builder.failed;
	put_chain(b, side->chain, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	put_flush(b, side->chain);
	if (rules.count)
		flat_nft_put_rule(b, flat_nft_rule(&rules, 0), NLM_F_APPEND);
	flat_nft_rules_free(&rules);
}

void flat_ports_put_side_removal(struct flat_nft_batch *b, const char *chain)
{
	put_flush(b, chain);
	put_chain(b, chain, NFT_MSG_DELCHAIN, 0);
}
