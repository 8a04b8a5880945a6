// SPDX-License-Identifier: Apache-2.0
/*
 * Rules that the reference plugins (1.9) made for a pod whose DEL comes to us. Each has a comment
 * that ends with who it is for: of iptables a match in the rule, of nft its user data. iptables has
 * a chain for each pod besides, which such a rule jumps to. All of it goes in one transaction for
 * each chain, and is found without knowing addresses or ports.
 *
 * Rules of iptables-legacy are not nf_tables', and are not seen.
 */
#include "nft.h"
#include "nl.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <stdlib.h>
#include <string.h>

enum {
	NAME = 64,
	COMMENT = 256,	   /* iptables' longest, NUL included */
	NFT_COMMENT = 128, /* at which the reference cuts those of nft; the NUL is not counted */
};

struct search {
	const char *end; /* of the comment */
	size_t room;	 /* of the comment; where it is full, the end may be cut */
	bool whole;	 /* it is the comment, from its start */
};

struct found {
	uint64_t handle;
	char jump[NAME]; /* "": to no chain of the pod's own */
};

static bool is_meant(const struct search *s, const char *comment)
{
	const size_t len = strlen(comment), end = strlen(s->end);
	if (s->whole)
		return !strcmp(comment, s->end);
	if (len >= end && !strcmp(comment + len - end, s->end))
		return true;
	/* the start of what would have been there, with most of the container ID in it */
	for (size_t n = end - 1; len == s->room && n > end / 2; n--)
		if (len >= n && !memcmp(comment + len - n, s->end, n))
			return true;
	return false;
}

static void read_userdata(const struct nlattr *userdata, char *comment)
{
	const uint8_t *p = nla_data(userdata);
	size_t left = (size_t)nla_len(userdata);
	while (left >= 2 && left - 2 >= p[1]) {
		if (p[0] == NFTNL_UDATA_RULE_COMMENT) {
			memcpy(comment, p + 2, p[1]);
			comment[p[1]] = '\0';
			return;
		}
		left -= 2U + p[1];
		p += 2 + p[1];
	}
}

static void read_match(struct nlattr *data, char *comment)
{
	struct nlattr *match[NFTA_MATCH_MAX + 1];
	char name[16];
	if (nla_parse_nested(match, NFTA_MATCH_MAX, data, NULL) < 0)
		return;
	flat_nl_text(match[NFTA_MATCH_NAME], name, sizeof name);
	if (!strcmp(name, "comment"))
		flat_nl_text(match[NFTA_MATCH_INFO], comment, COMMENT);
}

static void read_jump(struct nlattr *data, char *ret_chain)
{
	struct nlattr *immediate[NFTA_IMMEDIATE_MAX + 1], *value[NFTA_DATA_MAX + 1],
		*verdict[NFTA_VERDICT_MAX + 1];
	if (nla_parse_nested(immediate, NFTA_IMMEDIATE_MAX, data, NULL) < 0 ||
	    !immediate[NFTA_IMMEDIATE_DATA] ||
	    nla_parse_nested(value, NFTA_DATA_MAX, immediate[NFTA_IMMEDIATE_DATA], NULL) < 0 ||
	    !value[NFTA_DATA_VERDICT] ||
	    nla_parse_nested(verdict, NFTA_VERDICT_MAX, value[NFTA_DATA_VERDICT], NULL) < 0)
		return;
	flat_nl_text(verdict[NFTA_VERDICT_CHAIN], ret_chain, NAME);
	if (strncmp(ret_chain, "CNI-", 4) != 0)
		ret_chain[0] = '\0';
}

static int parse_rule(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NFTA_RULE_MAX + 1], *expr[NFTA_EXPR_MAX + 1], *e;
	struct found *found = elem;
	char comment[COMMENT] = "", name[16];
	int left;
	if ((h->nlmsg_type & 0xff) != NFT_MSG_NEWRULE)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_RULE_MAX, NULL) <
		    0 ||
	    !tb[NFTA_RULE_HANDLE] || nla_len(tb[NFTA_RULE_HANDLE]) != sizeof(uint64_t))
		return -EBADMSG;
	if (tb[NFTA_RULE_USERDATA])
		read_userdata(tb[NFTA_RULE_USERDATA], comment);
	if (tb[NFTA_RULE_EXPRESSIONS]) {
		nla_for_each_nested(e, tb[NFTA_RULE_EXPRESSIONS], left)
		{
			if (nla_parse_nested(expr, NFTA_EXPR_MAX, e, NULL) < 0 ||
			    !expr[NFTA_EXPR_DATA])
				continue;
			flat_nl_text(expr[NFTA_EXPR_NAME], name, sizeof name);
			if (!strcmp(name, "match"))
				read_match(expr[NFTA_EXPR_DATA], comment);
			else if (!strcmp(name, "immediate"))
				read_jump(expr[NFTA_EXPR_DATA], found->jump);
		}
	}
	if (!is_meant(arg, comment))
		return 0;
	found->handle = be64toh(nla_get_u64(tb[NFTA_RULE_HANDLE]));
	return 1;
}

static void put(struct flat_nft_batch *b, int type, const struct flat_nft_chain *in,
		const char *chain, uint64_t handle)
{
	struct nlmsghdr *h = flat_nft_put_header(b, type, in, 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, type == NFT_MSG_DELCHAIN ? NFTA_CHAIN_TABLE : NFTA_RULE_TABLE,
			  in->table);
	mnl_attr_put_strz(h, type == NFT_MSG_DELCHAIN ? NFTA_CHAIN_NAME : NFTA_RULE_CHAIN, chain);
	if (handle)
		mnl_attr_put_u64(h, NFTA_RULE_HANDLE, htobe64(handle));
	flat_nft_put_end(b, h);
}

static void put_removal(struct flat_nft_batch *b, const struct flat_nft_chain *in,
			const struct flat_nl_list *list)
{
	const struct found *found = (const struct found *)list->items;
	for (size_t i = 0; i < list->count; i++)
		put(b, NFT_MSG_DELRULE, in, in->chain, found[i].handle);
	for (size_t i = 0; i < list->count; i++) {
		bool again = !found[i].jump[0];
		for (size_t k = 0; k < i && !again; k++)
			again = !strcmp(found[i].jump, found[k].jump);
		if (again)
			continue;
		put(b, NFT_MSG_DELRULE, in, found[i].jump, 0); /* all of them */
		put(b, NFT_MSG_DELCHAIN, in, found[i].jump, 0);
	}
}

/* Returns how many rules of this chain there are, and removes them unless only_look. */
static int find_in(struct flat_net *net, const struct flat_nft_chain *chain,
		   const struct search *search, bool only_look, struct flat_err *err)
{
	char buf[FLAT_NFT_REQUEST], text[256] = "";
	int r = 0;
	for (int attempt = 0; attempt < FLAT_NFT_TRIES; attempt++) {
		flat_auto_list list = { 0 };
		struct flat_nft_batch batch = { .net = net };
		uint32_t generation = 0, seq = 0;
		if (attempt) {
			flat_nft_pause(attempt);
			r = flat_nft_generation(net, &generation, err);
			if (r < 0)
				return r;
		}
		struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETRULE, chain);
		mnl_attr_put_strz(h, NFTA_RULE_TABLE, chain->table);
		mnl_attr_put_strz(h, NFTA_RULE_CHAIN, chain->chain);
		r = flat_nl_dump(net, h, FLAT_GONE_OK | FLAT_UNSUPPORTED_OK, parse_rule,
				 sizeof(struct found), (void *)search, NULL, &list, err,
				 "list the rules of chain '%s'", chain->chain);
		if (r < 0 || !list.count || only_look)
			return r < 0 ? r : (int)list.count;
		if (!attempt) /* the common case is that there is none, and no generation to know */
			continue;
		flat_nft_put_marker(&batch, true, generation);
		put_removal(&batch, chain, &list);
		flat_nft_put_marker(&batch, false, 0);
		r = batch.failed
			    ? flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "nf_tables transaction")
			    : flat_nl_transact(net, batch.buf, batch.used, &seq, text, sizeof text,
					       err);
		free(batch.buf);
		if (r == 0)
			return (int)list.count;
		if (!seq)
			return r;
		if (r != -ERESTART)
			break;
	}
	flat_fail(err, FLAT_CODE_NETWORK, -r,
		  "remove the rules of the pod in chain '%s' of table '%s'", chain->chain,
		  chain->table);
	return text[0] ? flat_detail(err, "%s", text) : r;
}

/* One search for the chains of iptables, the other for nft's. */
static int find_all(const struct flat_nft_chain *chains, size_t count,
		    const struct search *iptables, const struct search *nft, bool only_look,
		    struct flat_err *err)
{
	flat_auto_net *net = NULL;
	int found = 0;
	int r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	for (size_t i = 0; i < count && r >= 0; i++) {
		r = find_in(net, &chains[i], strcmp(chains[i].table, "nat") ? nft : iptables,
			    only_look, err);
		if (r > 0)
			found += r;
	}
	return r < 0 ? r : found;
}

int flat_nft_remove_reference_masquerade(const char *network, const char *container_id,
					 const char *ifname, struct flat_err *err)
{
	static const struct flat_nft_chain chains[] = {
		{ NFPROTO_IPV4, "nat", "POSTROUTING" },
		{ NFPROTO_IPV6, "nat", "POSTROUTING" },
		{ NFPROTO_INET, "cni_plugins_masquerade", "masq_checks" },
	};
	flat_auto_free char *iptables = NULL;
	flat_auto_free char *nft = NULL;
	if (asprintf(&iptables, "name: \"%s\" id: \"%s\"", network, container_id) < 0 ||
	    asprintf(&nft, ", net: %s, if: %s, id: %s", network, ifname, container_id) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "rules of the reference's ipMasq");
	return find_all(chains, FLAT_LEN(chains), &(struct search){ iptables, COMMENT - 1 },
			&(struct search){ nft, NFT_COMMENT }, false, err);
}

int flat_nft_reference_ports(const char *network, const char *container_id, bool remove,
			     struct flat_err *err)
{
	static const struct flat_nft_chain chains[] = {
		{ NFPROTO_IPV4, "nat", "CNI-HOSTPORT-DNAT" },
		{ NFPROTO_IPV6, "nat", "CNI-HOSTPORT-DNAT" },
		{ NFPROTO_IPV4, "cni_hostport", "hostports" },
		{ NFPROTO_IPV4, "cni_hostport", "hostip_hostports" },
		{ NFPROTO_IPV4, "cni_hostport", "masquerading" },
		{ NFPROTO_IPV6, "cni_hostport", "hostports" },
		{ NFPROTO_IPV6, "cni_hostport", "hostip_hostports" },
		{ NFPROTO_IPV6, "cni_hostport", "masquerading" },
	};
	flat_auto_free char *iptables = NULL;
	if (asprintf(&iptables, "dnat name: \"%s\" id: \"%s\"", network, container_id) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM,
				 "rules of the reference's portmap");
	return find_all(chains, FLAT_LEN(chains), &(struct search){ iptables, COMMENT - 1 },
			&(struct search){ container_id, NFT_COMMENT, true }, !remove, err);
}
