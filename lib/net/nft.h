/* SPDX-License-Identifier: Apache-2.0 */
/* Private to lib/net: the rules that a network wants, as messages for the kernel. */
#pragma once

#include <flatnet/net.h>

#include <linux/netlink.h>

/* Where rules of ours live. */
enum flat_nft_place {
	FLAT_NFT_POSTROUTING, /* table inet flatnet */
	FLAT_NFT_FORWARD,
	FLAT_NFT_IPTABLES,  /* table ip filter, chain FORWARD: wanted only where its policy is drop
			     */
	FLAT_NFT_IP6TABLES, /* table ip6 filter */
	FLAT_NFT_PLACES,
};
struct flat_nft_chain {
	uint8_t family;
	const char *table, *chain;
};
extern const struct flat_nft_chain flat_nft_chains[FLAT_NFT_PLACES];

enum {
	FLAT_NFT_TAG = 128, /* nft(8) shows no longer comment; NUL included */
	/* Per family: the mark, one per pod prefix, and twice (here and for iptables) two per
	 * cluster prefix. */
	FLAT_NFT_RULES = 2 + 5 * FLAT_NFT_MAX_PREFIXES,
};

/* NFT_MSG_NEWRULE messages in one buffer, in the order of their places. */
struct flat_nft_rules {
	char *buf;
	size_t used, room;
	size_t count;
	struct {
		enum flat_nft_place place;
		size_t offset;
	} rules[FLAT_NFT_RULES];
	char prefix[FLAT_NFT_TAG]; /* how the tags of this network start: "flatnet:NAME:" */
};
int flat_nft_build(const struct flat_nft_network *want, struct flat_nft_rules *ret_rules,
		   struct flat_err *err);
void flat_nft_rules_free(struct flat_nft_rules *rules);
struct nlmsghdr *flat_nft_rule(const struct flat_nft_rules *rules, size_t i);
/* "flatnet:NAME:", the name hashed when it is long or has characters of its own meaning here. */
void flat_nft_tag_prefix(const char *name, char *buf, size_t size);
