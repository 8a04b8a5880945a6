/* SPDX-License-Identifier: Apache-2.0 */
/* Private to lib/net: the rules that a network wants, as messages for the kernel. */
#pragma once

#include <flatnet/net.h>

#include <linux/netlink.h>

/* Where rules of ours live. */
enum flat_nft_place {
	FLAT_NFT_POSTROUTING, /* table inet flatnet */
	FLAT_NFT_FORWARD,
	FLAT_NFT_PORTS, /* host ports: see nft-ports-chain.c */
	FLAT_NFT_PORTS_MASQUERADE,
	FLAT_NFT_PORTS_IN,
	FLAT_NFT_PORTS_OUT,
	FLAT_NFT_PORTS_SOURCE,
	FLAT_NFT_PORTS_GUARD,
	FLAT_NFT_SPOOF_IN, /* table bridge flatnet: see nft-guard-chain.c */
	FLAT_NFT_SPOOF,
	FLAT_NFT_INGRESS,   /* table inet flatnet_ingress: likewise */
	FLAT_NFT_IPTABLES,  /* table ip filter, chain FORWARD: wanted only where its policy is drop
			     */
	FLAT_NFT_IP6TABLES, /* table ip6 filter */
	FLAT_NFT_PLACES,
};
struct flat_nft_chain {
	uint8_t family;
	const char *table, *chain;
	const char *type; /* NULL: not on a hook, or not made by us */
	int hook, priority;
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
	bool ports;		   /* they are those of host ports, and in our table only */
	/* 0: of a network; else a place in the one table that they are in */
	enum flat_nft_place home;
};

/* Makes them, rule by rule; the error sticks. */
struct flat_nft_builder {
	struct flat_nft_rules *rules;
	uint32_t digest; /* goes into the tags */
	bool failed;
};
struct flat_nft_rule {
	struct nftnl_rule *rule;
	enum flat_nft_place place;
	bool failed;
};
struct nftnl_expr;
/* family 0: of both. */
struct flat_nft_rule flat_nft_begin_rule(enum flat_nft_place place, int family);
struct nftnl_expr *flat_nft_add_expr(struct flat_nft_rule *r, const char *name);
/* Register 1 with this. */
void flat_nft_add_compare(struct flat_nft_rule *r, uint32_t op, const void *data, size_t len);
void flat_nft_add_mask(struct flat_nft_rule *r, const void *mask, size_t len);
void flat_nft_add_meta(struct flat_nft_rule *r, uint32_t key);
void flat_nft_add_address(struct flat_nft_rule *r, bool source, uint32_t op,
			  const struct flat_prefix *prefix);
/* These load into a register, which later parts of a key go on from. */
void flat_nft_load_meta(struct flat_nft_rule *r, uint32_t key, uint32_t reg);
void flat_nft_load_payload(struct flat_nft_rule *r, uint32_t base, uint32_t offset, uint32_t len,
			   uint32_t reg);
/* Is what begins in register 1 in the set; or is it not? */
void flat_nft_add_lookup(struct flat_nft_rule *r, const char *set, bool is_in);
void flat_nft_add_verdict(struct flat_nft_rule *r, int verdict);
void flat_nft_add_jump(struct flat_nft_rule *r, enum flat_nft_place to);
void flat_nft_add_masquerade(struct flat_nft_rule *r);
void flat_nft_end_rule(struct flat_nft_builder *b, struct flat_nft_rule *r);
/* What kube-proxy marked is its own. */
void flat_nft_build_mark(struct flat_nft_builder *b, enum flat_nft_place place);

int flat_nft_build(const struct flat_nft_network *want, struct flat_nft_rules *ret_rules,
		   struct flat_err *err);
void flat_nft_rules_free(struct flat_nft_rules *rules);
struct nlmsghdr *flat_nft_rule(const struct flat_nft_rules *rules, size_t i);
/* "flatnet:NAME:", the name hashed when it is long or has characters of its own meaning here. */
void flat_nft_tag_prefix(const char *name, char *buf, size_t size);

/* ---- reading -----------------------------------------------------------------------------------
 */

enum {
	FLAT_NFT_TRIES = 32,
	FLAT_NFT_REQUEST = 512, /* bounds each small message: two names of ours and a number */
};

struct flat_nft_old {
	enum flat_nft_place place;
	uint64_t handle;
};

/* What the kernel has, compared with what is wanted. */
struct flat_nft_view {
	const struct flat_nft_rules *rules;
	struct flat_nft_chain const *reading; /* the chain or table that a dump is about */
	bool wanted[FLAT_NFT_PLACES];	      /* false: our rules there are to go */
	bool differs[FLAT_NFT_PLACES];
	size_t next[FLAT_NFT_PLACES]; /* the first wanted rule not met yet */
	size_t others;		      /* rules in our table that are not of this network */
	bool ports, ports_used;	      /* those of host ports are there; and there is one */
};

/* Fills the view, and the list of all our rules that stand somewhere (struct flat_nft_old). 1: all
 * as wanted. */
struct flat_nl_list;
int flat_nft_look(struct flat_net *net, const struct flat_nft_rules *rules,
		  struct flat_nft_view *view, struct flat_nl_list *old, struct flat_err *err);
/* Does the comment of a rule (NFTA_RULE_*) start like this? */
struct nlattr;
bool flat_nft_is_tagged(struct nlattr *const *rule, const char *prefix);
struct nlmsghdr *flat_nft_header(char *buf, int type, const struct flat_nft_chain *chain);
int flat_nft_generation(struct flat_net *net, uint32_t *ret_generation, struct flat_err *err);
/* Tells what the kernel may lack; returns r. */
int flat_nft_advise(struct flat_err *err, int r);

/* ---- writing -----------------------------------------------------------------------------------
 */

/* Messages of one transaction; that memory was out sticks. Zero-initialise, free buf. */
struct flat_nft_batch {
	struct flat_net *net;
	char *buf;
	size_t used, room;
	bool failed;
};
void flat_nft_put_marker(struct flat_nft_batch *b, bool begin, uint32_t generation);
void flat_nft_put_table(struct flat_nft_batch *b, int type, int flags);
void flat_nft_put_chain(struct flat_nft_batch *b, enum flat_nft_place place);
void flat_nft_put_old(struct flat_nft_batch *b, const struct flat_nft_old *old);
void flat_nft_put_rule(struct flat_nft_batch *b, const struct nlmsghdr *rule, int flags);
/* For others: a message in our table, to be completed with at most FLAT_NFT_REQUEST bytes and
 * ended; NULL: out of memory. */
struct nlmsghdr *flat_nft_put_header(struct flat_nft_batch *b, int type,
				     const struct flat_nft_chain *chain, int flags);
void flat_nft_put_end(struct flat_nft_batch *b, const struct nlmsghdr *h);
void flat_nft_pause(int attempt); /* before another attempt */
/* What the text tried to do was refused with r, and with these words of the kernel ("": none);
 * modules: those it may lack. Returns r. */
int flat_nft_refused(struct flat_err *err, int r, const char *text, const char *modules,
		     const char *fmt, ...) FLAT_PRINTF(5, 6);

/* ---- host ports --------------------------------------------------------------------------------
 */

#define FLAT_NFT_PORTS_TAG "flatnet:~ports:"
/* Is there any? */
int flat_nft_ports_used(struct flat_net *net, struct flat_err *err);
