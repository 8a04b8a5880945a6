/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to lib/net: sets and maps whose elements belong to links.
 *
 * An element's comment is "flatnet OWNER": the owner is a link, most often an attachment's host
 * veth. It exists before its elements do and until they are gone; so an element whose owner is not
 * there belongs to nobody, may be replaced and may be removed.
 */
#pragma once

#include "nft.h"
#include "nl.h"

enum {
	FLAT_NFT_KEY = 40,
	FLAT_NFT_COMMENT = 128, /* nft(8) shows no longer one; NUL included */
	/* as nft(8) numbers its types, to be shown by it: 6 bits for each part of a key */
	FLAT_NFT_TYPE_IPV4 = 7,
	FLAT_NFT_TYPE_IPV6 = 8,
	FLAT_NFT_TYPE_MAC = 9,
	FLAT_NFT_TYPE_LINK = 41,
};
#define FLAT_NFT_TYPE2(a, b)	((a) << 6 | (b))
#define FLAT_NFT_TYPE3(a, b, c) ((a) << 12 | (b) << 6 | (c))

struct flat_nft_set {
	enum flat_nft_place table; /* a place in it */
	const char *name;
	uint32_t key_type, key_len;
};

struct flat_nft_element {
	const struct flat_nft_set *set;
	bool drop;
	uint8_t key[FLAT_NFT_KEY]; /* parts are padded to 4 bytes */
	char comment[FLAT_NFT_COMMENT];
};

/* A new one at the end of the list; NULL: no memory. */
struct flat_nft_element *flat_nft_add_element(struct flat_nl_list *list,
					      const struct flat_nft_set *set, const char *owner);
struct flat_nft_element *flat_nft_element_at(const struct flat_nl_list *list, size_t i);
/* The element of the list with the same key in the same set; NULL: none. */
struct flat_nft_element *flat_nft_find_element(const struct flat_nl_list *list,
					       const struct flat_nft_element *like);
/* The word after "flatnet " in the comment, if it may be a link's name. */
bool flat_nft_owner_of(const struct flat_nft_element *e, char ret_owner[static FLAT_IFNAME_LEN]);
bool flat_nft_is_owned_by(const struct flat_nft_element *e, const char *owner);
bool flat_nft_has_living_owner(const struct flat_nft_element *e);

/* Adds those of one set to the list. A set that is not there has none. */
int flat_nft_read_elements(struct flat_net *net, const struct flat_nft_set *set,
			   struct flat_nl_list *list, struct flat_err *err);
/* Which of these places' tables are there; a kernel without nf_tables has none. One question. */
int flat_nft_find_tables(struct flat_net *net, const enum flat_nft_place *places, size_t count,
			 bool *ret_there, struct flat_err *err);

/* type: NFT_MSG_NEWSET, NFT_MSG_DELSET. id: its own within the transaction. */
void flat_nft_put_set(struct flat_nft_batch *b, const struct flat_nft_set *set, uint32_t id,
		      int type, int flags);
void flat_nft_put_element(struct flat_nft_batch *b, const struct flat_nft_element *e, bool add);
