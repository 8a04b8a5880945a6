// SPDX-License-Identifier: Apache-2.0
#include "nft.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_bridge.h>
#include <linux/netfilter_ipv4.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

const struct flat_nft_chain flat_nft_chains[FLAT_NFT_PLACES] = {
	[FLAT_NFT_POSTROUTING] = { NFPROTO_INET, "flatnet", "postrouting", "nat",
				   NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC },
	[FLAT_NFT_FORWARD] = { NFPROTO_INET, "flatnet", "forward", "filter", NF_INET_FORWARD,
			       NF_IP_PRI_FILTER },
	[FLAT_NFT_PORTS] = { NFPROTO_INET, "flatnet", "hostports" },
	[FLAT_NFT_PORTS_MASQUERADE] = { NFPROTO_INET, "flatnet", "hostports_masquerade" },
	/* one after those of iptables, kube-proxy's and Docker's, whichever came first: the kernel
	 * stops at the first that has an answer */
	[FLAT_NFT_PORTS_IN] = { NFPROTO_INET, "flatnet", "hostports_prerouting", "nat",
				NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST + 1 },
	[FLAT_NFT_PORTS_OUT] = { NFPROTO_INET, "flatnet", "hostports_output", "nat",
				 NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST + 1 },
	[FLAT_NFT_PORTS_SOURCE] = { NFPROTO_INET, "flatnet", "hostports_postrouting", "nat",
				    NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC },
	[FLAT_NFT_PORTS_GUARD] = { NFPROTO_INET, "flatnet", "hostports_guard", "filter",
				   NF_INET_PRE_ROUTING, NF_IP_PRI_RAW },
	/* before br_netfilter, so that conntrack never sees what is not to pass */
	[FLAT_NFT_SPOOF_IN] = { NFPROTO_BRIDGE, "flatnet", "spoofcheck_prerouting", "filter",
				NF_BR_PRE_ROUTING, NF_BR_PRI_NAT_DST_BRIDGED },
	[FLAT_NFT_SPOOF] = { NFPROTO_BRIDGE, "flatnet", "spoofcheck" },
	[FLAT_NFT_INGRESS] = { NFPROTO_INET, "flatnet_ingress", "forward", "filter",
			       NF_INET_FORWARD, NF_IP_PRI_FILTER },
	[FLAT_NFT_IPTABLES] = { NFPROTO_IPV4, "filter", "FORWARD" },
	[FLAT_NFT_IP6TABLES] = { NFPROTO_IPV6, "filter", "FORWARD" },
};

enum {
	KUBE_PROXY_MASQUERADE = 0x4000, /* its --iptables-masquerade-bit is 14 */
	/* Goes into the digest: raise it when the same input makes other rules. */
	RULES_VERSION = 1,
	/* A masquerade rule has a source, FLAT_NFT_MAX_PREFIXES + 1 destinations, and less than 256
	 * bytes for each. The kernel takes 128 expressions, three for each of them, and 4 KiB in
	 * its own form (EFBIG), which 31 IPv6 prefixes with a mask are too much for (Linux 6.18).
	 */
	RULE_BYTES = 256 * (FLAT_NFT_MAX_PREFIXES + 4),
};
static_assert(3 * (FLAT_NFT_MAX_PREFIXES + 2) + 3 <= 128, "NFT_RULE_MAXEXPRS");
static_assert(FLAT_NFT_MAX_PREFIXES <= 24, "nf_tables_newrule(): EFBIG");

/* ---- expressions, the error sticks -------------------------------------------------------------
 */

struct nftnl_expr *flat_nft_add_expr(struct flat_nft_rule *r, const char *name)
{
	struct nftnl_expr *e = r->rule ? nftnl_expr_alloc(name) : NULL;
	if (!e)
		r->failed = true;
	else
		nftnl_rule_add_expr(r->rule, e);
	return e;
}

void flat_nft_add_compare(struct flat_nft_rule *r, uint32_t op, const void *data, size_t len)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "cmp");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
	if (nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, (uint32_t)len) < 0)
		r->failed = true;
}

void flat_nft_add_mask(struct flat_nft_rule *r, const void *mask, size_t len)
{
	static const uint8_t zero[16];
	struct nftnl_expr *e = flat_nft_add_expr(r, "bitwise");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, (uint32_t)len);
	if (nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask, (uint32_t)len) < 0 ||
	    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, zero, (uint32_t)len) < 0)
		r->failed = true;
}

void flat_nft_load_meta(struct flat_nft_rule *r, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "meta");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, reg);
}

void flat_nft_add_meta(struct flat_nft_rule *r, uint32_t key)
{
	flat_nft_load_meta(r, key, NFT_REG_1);
}

void flat_nft_load_payload(struct flat_nft_rule *r, uint32_t base, uint32_t offset, uint32_t len,
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

void flat_nft_add_lookup(struct flat_nft_rule *r, const char *set, bool is_in)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "lookup");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	if (!is_in)
		nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set) < 0)
		r->failed = true;
}

/* In a table of family inet, addresses make sense only after this. */
static void add_family(struct flat_nft_rule *r, int family)
{
	if (flat_nft_chains[r->place].family != NFPROTO_INET)
		return;
	const uint8_t nfproto = family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6;
	flat_nft_add_meta(r, NFT_META_NFPROTO);
	flat_nft_add_compare(r, NFT_CMP_EQ, &nfproto, sizeof nfproto);
}

/* Whole bytes are compared without a mask, as nft and iptables-nft do. */
void flat_nft_add_address(struct flat_nft_rule *r, bool source, uint32_t op,
			  const struct flat_prefix *prefix)
{
	const bool v4 = prefix->ip.family == AF_INET;
	const struct flat_ip first = flat_prefix_first(prefix);
	const size_t bytes = (prefix->len + 7U) / 8U;
	const bool whole = prefix->len % 8 == 0;
	const size_t len = whole ? bytes : flat_ip_size(&first);
	uint32_t offset = v4 ? (source ? 12 : 16) : (source ? 8 : 24);
	if (prefix->len == 0) /* everything */
		return;
	flat_nft_load_payload(r, NFT_PAYLOAD_NETWORK_HEADER, offset, (uint32_t)len, NFT_REG_1);
	if (!whole) {
		uint8_t mask[16] = { 0 };
		memset(mask, 0xff, bytes);
		mask[bytes - 1] = (uint8_t)(0xff00 >> (prefix->len % 8));
		flat_nft_add_mask(r, mask, len);
	}
	flat_nft_add_compare(r, op, first.bytes, len);
}

void flat_nft_add_verdict(struct flat_nft_rule *r, int verdict)
{
	struct nftnl_expr *e;
	/* iptables-nft writes each of its rules with a counter, and shows ours with one */
	if (r->place == FLAT_NFT_IPTABLES || r->place == FLAT_NFT_IP6TABLES)
		flat_nft_add_expr(r, "counter");
	e = flat_nft_add_expr(r, "immediate");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
}

void flat_nft_add_jump(struct flat_nft_rule *r, enum flat_nft_place to)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "immediate");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)NFT_JUMP);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, flat_nft_chains[to].chain) < 0)
		r->failed = true;
}

void flat_nft_add_masquerade(struct flat_nft_rule *r)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "masq");
	if (e)
		nftnl_expr_set_u32(e, NFTNL_EXPR_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
}

/* ---- rules -------------------------------------------------------------------------------------
 */

void flat_nft_tag_prefix(const char *name, char *buf, size_t size)
{
	bool plain = *name && strlen(name) <= 64;
	for (const char *c = name; plain && *c; c++)
		plain = isalnum((unsigned char)*c) || strchr("._-", *c);
	if (plain)
		snprintf(buf, size, "flatnet:%s:", name);
	else
		snprintf(buf, size,
			 "flatnet:~%016llx:", (unsigned long long)flat_hash(0, name, strlen(name)));
}

static uint64_t hash_prefixes(uint64_t h, const struct flat_prefix *prefixes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char text[FLAT_PREFIX_TEXT];
		flat_prefix_text(&prefixes[i], text);
		h = flat_hash(h, text, strlen(text) + 1);
	}
	return flat_hash(h, "", 1);
}

static uint32_t digest(const struct flat_nft_network *want)
{
	const uint8_t head[] = { RULES_VERSION, want->masquerade, want->forward };
	uint64_t h = flat_hash(0, head, sizeof head);
	h = hash_prefixes(h, want->cluster, want->cluster_count);
	return (uint32_t)hash_prefixes(h, want->pods, want->pod_count);
}

struct flat_nft_rule flat_nft_begin_rule(enum flat_nft_place place, int family)
{
	const struct flat_nft_chain *chain = &flat_nft_chains[place];
	struct flat_nft_rule r = { .rule = nftnl_rule_alloc(), .place = place };
	if (!r.rule) {
		r.failed = true;
		return r;
	}
	nftnl_rule_set_u32(r.rule, NFTNL_RULE_FAMILY, chain->family);
	if (nftnl_rule_set_str(r.rule, NFTNL_RULE_TABLE, chain->table) < 0 ||
	    nftnl_rule_set_str(r.rule, NFTNL_RULE_CHAIN, chain->chain) < 0)
		r.failed = true;
	if (family)
		add_family(&r, family);
	return r;
}

static void tag_rule(struct flat_nft_builder *b, struct flat_nft_rule *r)
{
	char tag[FLAT_NFT_TAG + 16];
	struct nftnl_udata_buf *udata = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	snprintf(tag, sizeof tag, "%s%08x:%zu", b->rules->prefix, b->digest, b->rules->count);
	if (!udata || !nftnl_udata_put_strz(udata, NFTNL_UDATA_RULE_COMMENT, tag) ||
	    nftnl_rule_set_data(r->rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(udata),
				nftnl_udata_buf_len(udata)) < 0)
		r->failed = true;
	if (udata)
		nftnl_udata_buf_free(udata);
}

void flat_nft_end_rule(struct flat_nft_builder *b, struct flat_nft_rule *r)
{
	struct flat_nft_rules *rules = b->rules;
	if (r->rule)
		tag_rule(b, r);
	if (!r->failed && rules->room - rules->used < RULE_BYTES) {
		size_t room = rules->room ? rules->room * 2 : 2 * RULE_BYTES;
		char *buf = realloc(rules->buf, room);
		if (buf) {
			rules->buf = buf;
			rules->room = room;
		} else {
			r->failed = true;
		}
	}
	if (!r->failed) {
		struct nlmsghdr *h =
			nftnl_nlmsg_build_hdr(rules->buf + rules->used, NFT_MSG_NEWRULE,
					      flat_nft_chains[r->place].family, NLM_F_CREATE, 0);
		nftnl_rule_nlmsg_build_payload(h, r->rule);
		assert(h->nlmsg_len <= RULE_BYTES && rules->count < FLAT_NFT_RULES);
		rules->rules[rules->count].place = r->place;
		rules->rules[rules->count++].offset = rules->used;
		rules->used += NLMSG_ALIGN(h->nlmsg_len);
	}
	b->failed |= r->failed;
	if (r->rule)
		nftnl_rule_free(r->rule);
}

/* kube-proxy masquerades these itself, and picks the source address for them. */
void flat_nft_build_mark(struct flat_nft_builder *b, enum flat_nft_place place)
{
	const uint32_t mark = KUBE_PROXY_MASQUERADE;
	struct flat_nft_rule r = flat_nft_begin_rule(place, 0);
	flat_nft_add_meta(&r, NFT_META_MARK);
	flat_nft_add_mask(&r, &mark, sizeof mark);
	flat_nft_add_compare(&r, NFT_CMP_EQ, &mark, sizeof mark);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

/* One rule that excludes all of the cluster's prefixes, not a "return" for each: so no rule hides a
 * packet from those of another network, and their order means nothing. */
static void build_masquerade(struct flat_nft_builder *b, const struct flat_nft_network *want,
			     const struct flat_prefix *pods)
{
	static const struct flat_prefix multicast[] = {
		{ .ip = { AF_INET, { 224 } }, .len = 4 },
		{ .ip = { AF_INET6, { 0xff } }, .len = 8 },
	};
	const int family = pods->ip.family;
	for (size_t i = 0; i < want->cluster_count; i++) {
		if (want->cluster[i].ip.family == family && want->cluster[i].len == 0)
			return; /* nothing is outside */
	}
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_POSTROUTING, family);
	flat_nft_add_address(&r, true, NFT_CMP_EQ, pods);
	for (size_t i = 0; i < want->cluster_count; i++) {
		if (want->cluster[i].ip.family == family)
			flat_nft_add_address(&r, false, NFT_CMP_NEQ, &want->cluster[i]);
	}
	flat_nft_add_address(&r, false, NFT_CMP_NEQ, &multicast[family == AF_INET6]);
	flat_nft_add_masquerade(&r);
	flat_nft_end_rule(b, &r);
}

static void build_accept(struct flat_nft_builder *b, enum flat_nft_place place,
			 const struct flat_prefix *cluster)
{
	for (int source = 1; source >= 0; source--) {
		struct flat_nft_rule r = flat_nft_begin_rule(place, cluster->ip.family);
		flat_nft_add_address(&r, source, NFT_CMP_EQ, cluster);
		flat_nft_add_verdict(&r, NF_ACCEPT);
		flat_nft_end_rule(b, &r);
	}
}

int flat_nft_build(const struct flat_nft_network *want, struct flat_nft_rules *ret_rules,
		   struct flat_err *err)
{
	struct flat_nft_builder b = { .rules = ret_rules };
	*ret_rules = (struct flat_nft_rules){ 0 };
	flat_nft_tag_prefix(want->name, ret_rules->prefix, sizeof ret_rules->prefix);
	if (want->cluster_count > FLAT_NFT_MAX_PREFIXES || want->pod_count > FLAT_NFT_MAX_PREFIXES)
		return flat_fail(err, FLAT_CODE_CONFIG, E2BIG,
				 "rules of network '%s': more than %d prefixes", want->name,
				 FLAT_NFT_MAX_PREFIXES);
	b.digest = digest(want);
	if (want->masquerade && want->pod_count) {
		flat_nft_build_mark(&b, FLAT_NFT_POSTROUTING);
		for (size_t i = 0; i < want->pod_count; i++)
			build_masquerade(&b, want, &want->pods[i]);
	}
	static const enum flat_nft_place accepting[] = { FLAT_NFT_FORWARD, FLAT_NFT_IPTABLES,
							 FLAT_NFT_IP6TABLES };
	for (size_t p = 0; want->forward && p < FLAT_LEN(accepting); p++) {
		for (size_t i = 0; i < want->cluster_count; i++) {
			const int family = want->cluster[i].ip.family;
			if (accepting[p] == FLAT_NFT_FORWARD ||
			    (accepting[p] == FLAT_NFT_IPTABLES) == (family == AF_INET))
				build_accept(&b, accepting[p], &want->cluster[i]);
		}
	}
	if (b.failed) {
		flat_nft_rules_free(ret_rules);
		return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "rules of network '%s'",
				 want->name);
	}
	return 0;
}

void flat_nft_rules_free(struct flat_nft_rules *rules)
{
	free(rules->buf);
	rules->buf = NULL;
	rules->count = 0;
}

struct nlmsghdr *flat_nft_rule(const struct flat_nft_rules *rules, size_t i)
{
	return (struct nlmsghdr *)(rules->buf + rules->rules[i].offset);
}
