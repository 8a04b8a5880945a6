/* SPDX-License-Identifier: Apache-2.0 */
/* Private to nft-ports*.c: the maps, sets and chains of host ports in table inet flatnet. */
#pragma once

#include "nft.h"
#include "nl.h"

/* ---- nft-ports-map.c: what is said of single ports
 * -----------------------------------------------
 */

enum flat_ports_set {
	FLAT_PORTS_ANY4,     /* protocol . port : pod . port */
	FLAT_PORTS_ADDRESS4, /* address . protocol . port : pod . port */
	FLAT_PORTS_PODS4,    /* pod . pod */
	FLAT_PORTS_MASQ4,    /* pod . protocol . port of the node */
	FLAT_PORTS_ANY6,
	FLAT_PORTS_ADDRESS6,
	FLAT_PORTS_PODS6,
	FLAT_PORTS_MASQ6,
	FLAT_PORTS_BRIDGES, /* link . link */
	FLAT_PORTS_PLAIN,
	/* maps to chains of their own, which few ports have: read where a comment says so */
	FLAT_PORTS_IF_ANY4 = FLAT_PORTS_PLAIN, /* protocol . port */
	FLAT_PORTS_IF_ADDRESS4,		       /* address . protocol . port */
	FLAT_PORTS_MARKS4,		       /* pod */
	FLAT_PORTS_IF_ANY6,
	FLAT_PORTS_IF_ADDRESS6,
	FLAT_PORTS_MARKS6,
	FLAT_PORTS_SETS,
};

struct flat_ports_set_type {
	const char *name;
	int family;
	uint32_t key_type, key_len, data_type, data_len;
};
extern const struct flat_ports_set_type flat_ports_sets[FLAT_PORTS_SETS];
bool flat_ports_is_map(enum flat_ports_set set);  /* its data is a pod . port */
bool flat_ports_is_jump(enum flat_ports_set set); /* ... a chain to jump to */

enum {
	FLAT_PORTS_KEY = 32,
	FLAT_PORTS_DATA = 32,
	FLAT_PORTS_COMMENT = 128, /* nft(8) shows no longer one; NUL included */
};

struct flat_ports_element {
	enum flat_ports_set set;
	bool drop;
	uint8_t key[FLAT_PORTS_KEY]; /* parts are padded to 4 bytes */
	union {
		uint8_t data[FLAT_PORTS_DATA];
		char chain[FLAT_PORTS_DATA];
	};
	char comment[FLAT_PORTS_COMMENT];
};

const struct flat_ports_element *flat_ports_element_at(const struct flat_nl_list *list, size_t i);
bool flat_ports_same_key(const struct flat_ports_element *a, const struct flat_ports_element *b);
/* Is the address of a port all zero: any of its family? */
bool flat_ports_is_any(const struct flat_ip *ip);
/* The port that an element of a map stands for. */
struct flat_port flat_ports_port_of(const struct flat_ports_element *e);
/* The pod whose element it is; family 0: no pod's. */
struct flat_ip flat_ports_pod_of(const struct flat_ports_element *e);
/* The word after "flatnet" or "flatnet+" in the comment, if it may be a link's name. */
bool flat_ports_owner_of(const struct flat_ports_element *e,
			 char ret_owner[static FLAT_IFNAME_LEN]);
bool flat_ports_is_owned_by(const struct flat_ports_element *e, const char *owner);
bool flat_ports_has_living_owner(const struct flat_ports_element *e);
/* Has its attachment elements that lead to chains, too? */
bool flat_ports_has_side(const struct flat_ports_element *e);

/* What an attachment wants, as elements. */
int flat_ports_want_elements(const struct flat_ports *want, struct flat_nl_list *list,
			     struct flat_err *err);
/* All that there are. A set that is not there has none. */
int flat_ports_read(struct flat_net *net, struct flat_nl_list *list, struct flat_err *err);
/* 1: there may be ports; 0: there are none, and never were, or the kernel has no nf_tables. */
int flat_ports_may_be_there(struct flat_net *net, struct flat_err *err);

void flat_ports_put_set(struct flat_nft_batch *b, enum flat_ports_set set, int type, int flags);
void flat_ports_put_element(struct flat_nft_batch *b, const struct flat_ports_element *e, bool add);

/* ---- nft-ports-chain.c: what is the same for all ports
 * -------------------------------------------
 */

/* to_loopback6: see loopback6 in struct flat_ports. */
int flat_ports_build_chains(bool to_loopback6, struct flat_nft_rules *ret_rules,
			    struct flat_err *err);
/* Chains, sets and rules where they are not as wanted. */
void flat_ports_put_chains(struct flat_nft_batch *b, const struct flat_nft_view *view,
			   const struct flat_nl_list *old);
/* All of it: the whole table, where there is nothing else in it. */
void flat_ports_put_removal(struct flat_nft_batch *b, const struct flat_nft_view *view);

/* ---- nft-ports-side.c: what few ports have: conditions, and a mark
 * -------------------------------
 */

/* A chain that elements jump to. Its name tells what is in it, so all who want the same share it;
 * it goes with the last element that leads there. */
struct flat_ports_side {
	char chain[FLAT_PORTS_DATA];
	int family;	  /* of the conditions; 0: it marks */
	const char *text; /* the conditions */
	uint32_t mark;	  /* the bits that it sets */
	bool there;
};
enum { FLAT_PORTS_SIDES = 3 };
/* Those that an attachment wants; returns how many. */
size_t flat_ports_sides(const struct flat_ports *want,
			struct flat_ports_side ret_sides[static FLAT_PORTS_SIDES]);
/* 1: it is as made, 0: not. */
int flat_ports_look_at_side(struct flat_net *net, const struct flat_ports_side *side,
			    struct flat_err *err);
/* All side chains that there are, as struct flat_ports_side of which only the name is set. */
int flat_ports_list_sides(struct flat_net *net, struct flat_nl_list *list, struct flat_err *err);
/* The chain of a mark. */
void flat_ports_put_mark(struct flat_nft_batch *b, const struct flat_ports_side *side);
void flat_ports_put_side_removal(struct flat_nft_batch *b, const char *chain);

/* ---- nft-conditions.c
 * ----------------------------------------------------------------------------
 */

/* Makes the chain of conditions anew, in a transaction of its own: nothing leads there yet. */
int flat_conditions_write(const struct flat_ports_side *side, struct flat_err *err);
/* The comment of its rules. */
void flat_ports_tag_side(const struct flat_ports_side *side, int rule, char *buf, size_t size);
