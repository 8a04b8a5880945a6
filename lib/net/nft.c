// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation. What a network wants is a list of rules in four places (nft.h); each rule
 * carries a comment "flatnet:NETWORK:DIGEST:ORDINAL", which people see in `nft list ruleset`. One
 * dump per place tells whether our rules stand there in order, with the same tags and the same
 * expressions. A place that differs is written anew in one transaction: our old rules there by
 * their handles, then the wanted ones. Nothing is kept outside the kernel.
 *
 * The transaction names the generation of the rule set that was read (NFNL_BATCH_GENID). If anybody
 * committed in between, another flatnet or kube-proxy, the kernel refuses with ERESTART and we read
 * again; so two writers never add the same rules twice.
 *
 * table inet flatnet {
 *	chain postrouting {
 *		type nat hook postrouting priority srcnat; policy accept;
 *		meta mark & 0x00004000 == 0x00004000 return
 *		ip saddr POD ip daddr != CLUSTER ip daddr != 224.0.0.0/4 masquerade fully-random
 *	}
 *	chain forward {
 *		type filter hook forward priority filter; policy accept;
 *		ip saddr CLUSTER accept
 *		ip daddr CLUSTER accept
 *	}
 * }
 */
#include "nft.h"
#include "nl.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- reading -----------------------------------------------------------------------------------
 */

struct nlmsghdr *flat_nft_header(char *buf, int type, const struct flat_nft_chain *chain)
{
	return nftnl_nlmsg_build_hdr(buf, (uint16_t)type, chain ? chain->family : AF_UNSPEC, 0, 0);
}

int flat_nft_advise(struct flat_err *err, int r)
{
	if (r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT || r == -EAFNOSUPPORT)
		flat_detail(err, "the kernel lacks nf_tables or a part of it: load the modules "
				 "nf_tables, nft_chain_nat and nft_masq, or turn ipMasq off");
	return r;
}

static int parse_generation(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NFTA_GEN_MAX + 1];
	(void)arg;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_GEN_MAX, NULL) <
		    0 ||
	    !tb[NFTA_GEN_ID] || nla_len(tb[NFTA_GEN_ID]) != sizeof(uint32_t))
		return -EBADMSG;
	*(uint32_t *)elem = ntohl(nla_get_u32(tb[NFTA_GEN_ID]));
	return 1;
}

int flat_nft_generation(struct flat_net *net, uint32_t *ret_generation, struct flat_err *err)
{
	char buf[FLAT_NFT_REQUEST];
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETGEN, NULL);
	int r = flat_nl_ask(net, h, 0, parse_generation, ret_generation, NULL, err,
			    "read the generation of nf_tables");
	return r < 0 ? flat_nft_advise(err, r) : 0;
}

static int parse_policy(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NFTA_CHAIN_MAX + 1];
	(void)arg;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_CHAIN_MAX, NULL) <
		    0 ||
	    (tb[NFTA_CHAIN_POLICY] && nla_len(tb[NFTA_CHAIN_POLICY]) != sizeof(uint32_t)))
		return -EBADMSG;
	*(bool *)elem = tb[NFTA_CHAIN_HOOK] && tb[NFTA_CHAIN_POLICY] &&
			ntohl(nla_get_u32(tb[NFTA_CHAIN_POLICY])) == NF_DROP;
	return 1;
}

/* 1: the chain is there; *ret_drop: its policy drops what no rule accepts. */
static int get_chain(struct flat_net *net, const struct flat_nft_chain *chain, bool *ret_drop,
		     struct flat_err *err)
{
	char buf[FLAT_NFT_REQUEST];
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETCHAIN, chain);
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, chain->table);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, chain->chain);
	int r = flat_nl_ask(net, h, FLAT_GONE_OK, parse_policy, ret_drop, NULL, err,
			    "look up chain '%s' of table '%s'", chain->chain, chain->table);
	return r < 0 ? flat_nft_advise(err, r) : r;
}

/* Is all that we would send in what the kernel shows? It may show more: defaults. */
static bool covers(const struct nlattr *want, const struct nlattr *have)
{
	if (!(want->nla_type & NLA_F_NESTED))
		return nla_len(want) == nla_len(have) &&
		       !memcmp(nla_data(want), nla_data(have), (size_t)nla_len(want));
	struct nlattr *w;
	int left;
	nla_for_each_nested(w, want, left)
	{
		const struct nlattr *h = nla_find(nla_data(have), nla_len(have), nla_type(w));
		if (!h || !covers(w, h))
			return false;
	}
	return true;
}

static bool same_expression(const struct nlattr *want, const struct nlattr *have)
{
	const struct nlattr *name = nla_find(nla_data(want), nla_len(want), NFTA_EXPR_NAME);
	if (name && !strcmp(nla_data(name), "counter")) { /* its data is what it has counted */
		const struct nlattr *other =
			nla_find(nla_data(have), nla_len(have), NFTA_EXPR_NAME);
		return other && covers(name, other);
	}
	return covers(want, have);
}

static bool same_expressions(const struct nlattr *want, const struct nlattr *have)
{
	const struct nlattr *w = nla_data(want), *h = nla_data(have);
	int w_left = nla_len(want), h_left = nla_len(have);
	while (nla_ok(w, w_left) && nla_ok(h, h_left)) {
		if (!same_expression(w, h))
			return false;
		w = nla_next(w, &w_left);
		h = nla_next(h, &h_left);
	}
	return !nla_ok(w, w_left) && !nla_ok(h, h_left);
}

static bool is_wanted(const struct flat_nft_rules *rules, size_t i, struct nlattr *const *have)
{
	struct nlattr *want[NFTA_RULE_MAX + 1];
	if (nlmsg_parse(flat_nft_rule(rules, i), sizeof(struct nfgenmsg), want, NFTA_RULE_MAX,
			NULL) < 0)
		return false;
	return want[NFTA_RULE_USERDATA] && want[NFTA_RULE_EXPRESSIONS] &&
	       have[NFTA_RULE_USERDATA] && have[NFTA_RULE_EXPRESSIONS] &&
	       covers(want[NFTA_RULE_USERDATA], have[NFTA_RULE_USERDATA]) &&
	       same_expressions(want[NFTA_RULE_EXPRESSIONS], have[NFTA_RULE_EXPRESSIONS]);
}

/* Does the comment in a rule's user data start like this? A list of type, length (a byte each),
 * value. */
static bool comment_starts(const struct nlattr *userdata, const char *prefix)
{
	const uint8_t *p = nla_data(userdata);
	size_t left = (size_t)nla_len(userdata), n = strlen(prefix);
	while (left >= 2 && left - 2 >= p[1]) {
		if (p[0] == NFTNL_UDATA_RULE_COMMENT)
			return p[1] >= n && !memcmp(p + 2, prefix, n);
		left -= 2U + p[1];
		p += 2 + p[1];
	}
	return false;
}

/* iptables-save keeps the comment of a rule, but iptables-restore writes it as a match. */
static bool match_starts(const struct nlattr *expressions, const char *prefix)
{
	struct nlattr *e, *expr[NFTA_EXPR_MAX + 1], *match[NFTA_MATCH_MAX + 1];
	char name[16], text[FLAT_NFT_TAG];
	int left;
	nla_for_each_nested(e, expressions, left)
	{
		if (nla_parse_nested(expr, NFTA_EXPR_MAX, e, NULL) < 0 || !expr[NFTA_EXPR_DATA])
			continue;
		flat_nl_text(expr[NFTA_EXPR_NAME], name, sizeof name);
		if (strcmp(name, "match") != 0 ||
		    nla_parse_nested(match, NFTA_MATCH_MAX, expr[NFTA_EXPR_DATA], NULL) < 0)
			continue;
		flat_nl_text(match[NFTA_MATCH_NAME], name, sizeof name);
		flat_nl_text(match[NFTA_MATCH_INFO], text, sizeof text);
		if (!strcmp(name, "comment") && !strncmp(text, prefix, strlen(prefix)))
			return true;
	}
	return false;
}

bool flat_nft_is_tagged(struct nlattr *const *rule, const char *prefix)
{
	return (rule[NFTA_RULE_USERDATA] && comment_starts(rule[NFTA_RULE_USERDATA], prefix)) ||
	       (rule[NFTA_RULE_EXPRESSIONS] && match_starts(rule[NFTA_RULE_EXPRESSIONS], prefix));
}

static void skip_to(const struct flat_nft_rules *rules, enum flat_nft_place place, size_t *i)
{
	while (*i < rules->count && rules->rules[*i].place != place)
		++*i;
}

/* Keeps our network's rules, and compares each with the one that should stand there. */
static int parse_rule(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NFTA_RULE_MAX + 1];
	struct flat_nft_old *old = elem;
	struct flat_nft_view *view = arg;
	char chain[64];
	if ((h->nlmsg_type & 0xff) != NFT_MSG_NEWRULE)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_RULE_MAX, NULL) <
		    0 ||
	    !tb[NFTA_RULE_HANDLE] || nla_len(tb[NFTA_RULE_HANDLE]) != sizeof(uint64_t))
		return -EBADMSG;
	flat_nl_text(tb[NFTA_RULE_CHAIN], chain, sizeof chain);
	old->handle = be64toh(nla_get_u64(tb[NFTA_RULE_HANDLE]));
	for (old->place = 0; old->place < FLAT_NFT_PLACES; old->place++) {
		const struct flat_nft_chain *c = &flat_nft_chains[old->place];
		if (c->family == view->reading->family && !strcmp(c->table, view->reading->table) &&
		    !strcmp(c->chain, chain))
			break;
	}
	if (old->place == FLAT_NFT_PLACES || !flat_nft_is_tagged(tb, view->rules->prefix)) {
		const bool ports = flat_nft_is_tagged(tb, FLAT_NFT_PORTS_TAG);
		view->ports |= ports;
		view->others += view->reading == &flat_nft_chains[view->rules->home] && !ports;
		return 0;
	}
	size_t *next = &view->next[old->place];
	if (view->wanted[old->place] && *next < view->rules->count &&
	    is_wanted(view->rules, *next, tb)) {
		++*next;
		skip_to(view->rules, old->place, next);
	} else {
		view->differs[old->place] = true;
	}
	return 1;
}

static bool same_table(const struct flat_nft_chain *a, const struct flat_nft_chain *b)
{
	return a->family == b->family && !strcmp(a->table, b->table);
}

static void reset_view(void *arg)
{
	struct flat_nft_view *view = arg;
	for (enum flat_nft_place place = 0; place < FLAT_NFT_PLACES; place++) {
		const struct flat_nft_chain *c = &flat_nft_chains[place];
		if (!same_table(c, view->reading))
			continue;
		view->differs[place] = false;
		view->next[place] = 0;
		skip_to(view->rules, place, &view->next[place]);
	}
	if (view->reading == &flat_nft_chains[view->rules->home]) {
		view->others = 0;
		view->ports = false;
	}
}

static int read_rules(struct flat_net *net, struct flat_nft_view *view,
		      const struct flat_nft_chain *chain, bool whole_table,
		      struct flat_nl_list *old, struct flat_err *err)
{
	char buf[FLAT_NFT_REQUEST];
	flat_auto_list some = { 0 };
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETRULE, chain);
	mnl_attr_put_strz(h, NFTA_RULE_TABLE, chain->table);
	if (!whole_table)
		mnl_attr_put_strz(h, NFTA_RULE_CHAIN, chain->chain);
	view->reading = chain;
	int r = flat_nl_dump(net, h, FLAT_GONE_OK, parse_rule, sizeof(struct flat_nft_old), view,
			     reset_view, &some, err, "list the rules of table '%s'", chain->table);
	if (r < 0)
		return flat_nft_advise(err, r);
	for (size_t i = 0; i < some.count; i++) {
		struct flat_nft_old *rule = flat_nl_list_add(old, sizeof *rule);
		if (!rule)
			return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM,
					 "list the rules of table '%s'", chain->table);
		*rule = ((const struct flat_nft_old *)some.items)[i];
	}
	return 0;
}

/* Fills the view, and the list of all our rules that stand somewhere. 1: all as wanted. */
int flat_nft_look(struct flat_net *net, const struct flat_nft_rules *rules,
		  struct flat_nft_view *view, struct flat_nl_list *old, struct flat_err *err)
{
	const struct flat_nft_chain *home = &flat_nft_chains[rules->home];
	const bool network = !rules->ports && !rules->home;
	*view = (struct flat_nft_view){ .rules = rules };
	old->count = 0;
	for (int p = 0; p < FLAT_NFT_PLACES; p++)
		view->wanted[p] = same_table(&flat_nft_chains[p], home);
	int r = read_rules(net, view, home, true, old, err);
	for (int p = FLAT_NFT_IPTABLES; r >= 0 && p <= FLAT_NFT_IP6TABLES && network; p++) {
		r = get_chain(net, &flat_nft_chains[p], &view->wanted[p], err);
		if (r > 0)
			r = read_rules(net, view, &flat_nft_chains[p], false, old, err);
	}
	if (r < 0)
		return r;
	bool same = true;
	for (int p = 0; p < FLAT_NFT_PLACES; p++) {
		if (view->wanted[p] && view->next[p] < rules->count)
			view->differs[p] = true;
		same = same && !view->differs[p];
	}
	return same;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

/* Room for len more bytes; NULL: out of memory, which sticks. */
static char *reserve(struct flat_nft_batch *b, size_t len)
{
	if (!b->failed && b->room - b->used < len) {
		size_t room = (b->room + len) * 2;
		char *buf = realloc(b->buf, room);
		if (!buf) {
			b->failed = true;
		} else {
			b->buf = buf;
			b->room = room;
		}
	}
	return b->failed ? NULL : b->buf + b->used;
}

void flat_nft_put_end(struct flat_nft_batch *b, const struct nlmsghdr *h)
{
	b->used += NLMSG_ALIGN(h->nlmsg_len);
}

void flat_nft_put_marker(struct flat_nft_batch *b, bool begin, uint32_t generation)
{
	char *buf = reserve(b, FLAT_NFT_REQUEST);
	if (!buf)
		return;
	uint32_t seq = flat_nl_next_seq(b->net);
	struct nlmsghdr *h = begin ? nftnl_batch_begin(buf, seq) : nftnl_batch_end(buf, seq);
	if (begin)
		mnl_attr_put_u32(h, NFNL_BATCH_GENID, htonl(generation));
	flat_nft_put_end(b, h);
}

struct nlmsghdr *flat_nft_put_header(struct flat_nft_batch *b, int type,
				     const struct flat_nft_chain *chain, int flags)
{
	char *buf = reserve(b, FLAT_NFT_REQUEST);
	return buf ? nftnl_nlmsg_build_hdr(buf, (uint16_t)type, chain->family, (uint16_t)flags,
					   flat_nl_next_seq(b->net))
		   : NULL;
}

void flat_nft_put_table(struct flat_nft_batch *b, int type, int flags)
{
	const struct flat_nft_chain *chain = &flat_nft_chains[FLAT_NFT_POSTROUTING];
	struct nlmsghdr *h = flat_nft_put_header(b, type, chain, flags);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_TABLE_NAME, chain->table);
	if (type == NFT_MSG_NEWTABLE)
		mnl_attr_put_u32(h, NFTA_TABLE_FLAGS, 0);
	flat_nft_put_end(b, h);
}

void flat_nft_put_chain(struct flat_nft_batch *b, enum flat_nft_place place)
{
	const struct flat_nft_chain *chain = &flat_nft_chains[place];
	struct nlmsghdr *h = flat_nft_put_header(b, NFT_MSG_NEWCHAIN, chain, NLM_F_CREATE);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, chain->table);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, chain->chain);
	if (chain->type) {
		struct nlattr *hook = mnl_attr_nest_start(h, NFTA_CHAIN_HOOK);
		mnl_attr_put_u32(h, NFTA_HOOK_HOOKNUM, htonl((uint32_t)chain->hook));
		mnl_attr_put_u32(h, NFTA_HOOK_PRIORITY, htonl((uint32_t)chain->priority));
		mnl_attr_nest_end(h, hook);
		mnl_attr_put_u32(h, NFTA_CHAIN_POLICY, htonl(NF_ACCEPT));
		mnl_attr_put_strz(h, NFTA_CHAIN_TYPE, chain->type);
	}
	flat_nft_put_end(b, h);
}

void flat_nft_put_old(struct flat_nft_batch *b, const struct flat_nft_old *old)
{
	const struct flat_nft_chain *chain = &flat_nft_chains[old->place];
	struct nlmsghdr *h = flat_nft_put_header(b, NFT_MSG_DELRULE, chain, 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_RULE_TABLE, chain->table);
	mnl_attr_put_strz(h, NFTA_RULE_CHAIN, chain->chain);
	mnl_attr_put_u64(h, NFTA_RULE_HANDLE, htobe64(old->handle));
	flat_nft_put_end(b, h);
}

void flat_nft_put_rule(struct flat_nft_batch *b, const struct nlmsghdr *rule, int flags)
{
	char *buf = reserve(b, NLMSG_ALIGN(rule->nlmsg_len));
	if (!buf)
		return;
	memcpy(buf, rule, rule->nlmsg_len);
	struct nlmsghdr *h = (struct nlmsghdr *)buf;
	h->nlmsg_flags |= (uint16_t)flags;
	h->nlmsg_seq = flat_nl_next_seq(b->net);
	flat_nft_put_end(b, h);
}

/* Our own chains are appended to; iptables' FORWARD gets ours at its head, in front of rules that
 * reject: each one before the last, so from the last to the first. */
static void put_wanted(struct flat_nft_batch *b, const struct flat_nft_view *view)
{
	const struct flat_nft_rules *rules = view->rules;
	for (size_t i = 0; i < rules->count; i++) {
		enum flat_nft_place p = rules->rules[i].place;
		if (view->differs[p] && flat_nft_chains[p].family == NFPROTO_INET)
			flat_nft_put_rule(b, flat_nft_rule(rules, i), NLM_F_APPEND);
	}
	for (size_t i = rules->count; i-- > 0;) {
		enum flat_nft_place p = rules->rules[i].place;
		if (view->differs[p] && view->wanted[p] &&
		    flat_nft_chains[p].family != NFPROTO_INET)
			flat_nft_put_rule(b, flat_nft_rule(rules, i), 0);
	}
}

static void put_all(struct flat_nft_batch *b, uint32_t generation, const struct flat_nft_view *view,
		    const struct flat_nl_list *old)
{
	const bool ours = view->differs[FLAT_NFT_POSTROUTING] || view->differs[FLAT_NFT_FORWARD];
	bool keep = view->others > 0 || view->ports_used, had = false;
	for (size_t i = 0; i < view->rules->count; i++)
		keep |= flat_nft_chains[view->rules->rules[i].place].family == NFPROTO_INET;
	flat_nft_put_marker(b, true, generation);
	if (ours && keep) {
		flat_nft_put_table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE);
		flat_nft_put_chain(b, FLAT_NFT_POSTROUTING);
		flat_nft_put_chain(b, FLAT_NFT_FORWARD);
	}
	for (size_t i = 0; i < old->count; i++) {
		const struct flat_nft_old *rule = (const struct flat_nft_old *)old->items + i;
		had |= flat_nft_chains[rule->place].family == NFPROTO_INET;
		if (view->differs[rule->place])
			flat_nft_put_old(b, rule);
	}
	if (ours && !keep && had) /* the last network has gone */
		flat_nft_put_table(b, NFT_MSG_DELTABLE, 0);
	put_wanted(b, view);
	flat_nft_put_marker(b, false, 0);
}

int flat_nft_refused(struct flat_err *err, int r, const char *text, const char *modules,
		     const char *fmt, ...)
{
	char what[160];
	va_list args;
	va_start(args, fmt);
	vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	flat_fail(err, r == -ERESTART ? FLAT_CODE_TRY_LATER : FLAT_CODE_NETWORK, -r, "%s", what);
	if (r == -ERESTART)
		flat_detail(err, "others changed the rules %d times in between", FLAT_NFT_TRIES);
	else if (*text)
		flat_detail(err, "%s", text);
	else if (r == -EPERM)
		flat_detail(err, "this needs root, or CAP_NET_ADMIN over the network namespace");
	else if (r == -EEXIST || r == -EBUSY)
		flat_detail(err, "table 'inet flatnet' is not as flatnet made it: remove it (nft "
				 "delete table inet flatnet), and it is made anew");
	else if (r == -ENOENT)
		flat_detail(err, "the kernel lacks a part of nf_tables: load the modules %s",
			    modules);
	return flat_nft_advise(err, r);
}

/* One transaction: 0, or the first refusal; *ret_seq 0: err has been set. */
static int write_rules(struct flat_net *net, uint32_t generation, const struct flat_nft_view *view,
		       const struct flat_nl_list *old, uint32_t *ret_seq, char *text, size_t size,
		       struct flat_err *err)
{
	struct flat_nft_batch batch = { .net = net };
	int r;
	put_all(&batch, generation, view, old);
	if (batch.failed) {
		*ret_seq = 0;
		r = flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "nf_tables transaction");
	} else {
		r = flat_nl_transact(net, batch.buf, batch.used, ret_seq, text, size, err);
	}
	free(batch.buf);
	return r;
}

void flat_nft_pause(int attempt)
{
	uint16_t random = 0;
	if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
		random = (uint16_t)flat_now_ms();
	flat_sleep_us(50U + random % (200U << (attempt < 6 ? attempt : 6)));
}

/* Makes the kernel's rules those of the list: 0 they were so, 1 written. */
static int settle(const char *name, const struct flat_nft_rules *rules, struct flat_err *err)
{
	flat_auto_net *net = NULL;
	flat_auto_list old = { 0 };
	struct flat_nft_view view;
	int r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r < 0)
		return r;
	/* the common case, without a look at the generation */
	if ((r = flat_nft_look(net, rules, &view, &old, err)) != 0)
		return r < 0 ? r : 0;
	char text[256] = "";
	for (int attempt = 0; attempt < FLAT_NFT_TRIES; attempt++) {
		uint32_t generation = 0, seq = 0;
		if (attempt)
			flat_nft_pause(attempt);
		if ((r = flat_nft_generation(net, &generation, err)) < 0)
			return r;
		if ((r = flat_nft_look(net, rules, &view, &old, err)) != 0)
			return r < 0 ? r : 0; /* another one did it */
		if (view.ports && !rules->count && (r = flat_nft_ports_used(net, err)) < 0)
			return r;
		view.ports_used = r > 0;
		r = write_rules(net, generation, &view, &old, &seq, text, sizeof text, err);
		if (r == 0)
			return 1;
		if (r < 0 && !seq)
			return r;
		if (r != -ERESTART)
			break;
	}
	return flat_nft_refused(err, r, text, "nft_chain_nat and nft_masq, or turn ipMasq off",
				"write the nf_tables rules of network '%s'", name);
}

int flat_nft_ensure(const struct flat_nft_network *want, struct flat_err *err)
{
	struct flat_nft_rules rules;
	int r = flat_nft_build(want, &rules, err);
	if (r < 0)
		return r;
	r = settle(want->name, &rules, err);
	flat_nft_rules_free(&rules);
	return r;
}

int flat_nft_remove(const char *name, struct flat_err *err)
{
	struct flat_nft_rules none = { 0 };
	flat_nft_tag_prefix(name, none.prefix, sizeof none.prefix);
	int r = settle(name, &none, err);
	return r < 0 ? r : 0;
}

int flat_nft_verify(const struct flat_nft_network *want, const char **ret_what,
		    struct flat_err *err)
{
	static const char *const what[FLAT_NFT_PLACES] = {
		[FLAT_NFT_POSTROUTING] = "masquerade rules in table 'inet flatnet' are missing or "
					 "changed",
		[FLAT_NFT_FORWARD] = "forward rules in table 'inet flatnet' are missing or changed",
		[FLAT_NFT_IPTABLES] = "accept rules in chain 'FORWARD' of iptables are missing or "
				      "changed, and its policy is drop",
		[FLAT_NFT_IP6TABLES] = "accept rules in chain 'FORWARD' of ip6tables are missing "
				       "or changed, and its policy is drop",
	};
	flat_auto_net *net = NULL;
	flat_auto_list old = { 0 };
	struct flat_nft_rules rules;
	struct flat_nft_view view = { 0 };
	int r = flat_nft_build(want, &rules, err);
	if (r < 0)
		return r;
	r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r == 0)
		r = flat_nft_look(net, &rules, &view, &old, err);
	flat_nft_rules_free(&rules);
	if (r < 0)
		return r;
	for (int p = 0; p < FLAT_NFT_PLACES; p++) {
		/* accept rules that are left in a chain that accepts by itself do no harm */
		if (view.differs[p] && view.wanted[p] && what[p]) {
			*ret_what = what[p];
			return 0;
		}
	}
	return 1;
}
