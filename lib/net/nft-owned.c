// SPDX-License-Identifier: Apache-2.0
#include "nft-owned.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/udata.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <string.h>

static const char mark[] = "flatnet ";

struct flat_nft_element *flat_nft_add_element(struct flat_nl_list *list,
					      const struct flat_nft_set *set, const char *owner)
{
	struct flat_nft_element *e = flat_nl_list_add(list, sizeof *e);
	if (!e)
		return NULL;
	e->set = set;
	if (owner)
		snprintf(e->comment, sizeof e->comment, "%s%s", mark, owner);
	return e;
}

struct flat_nft_element *flat_nft_element_at(const struct flat_nl_list *list, size_t i)
{
	return (struct flat_nft_element *)list->items + i;
}

struct flat_nft_element *flat_nft_find_element(const struct flat_nl_list *list,
					       const struct flat_nft_element *like)
{
	for (size_t i = 0; i < list->count; i++) {
		struct flat_nft_element *e = flat_nft_element_at(list, i);
		if (e->set == like->set && !memcmp(e->key, like->key, sizeof e->key))
			return e;
	}
	return NULL;
}

bool flat_nft_owner_of(const struct flat_nft_element *e, char ret_owner[static FLAT_IFNAME_LEN])
{
	const char *text = e->comment + sizeof mark - 1;
	if (strncmp(e->comment, mark, sizeof mark - 1) != 0)
		return false;
	const size_t len = strcspn(text, " ");
	if (!len || len >= FLAT_IFNAME_LEN)
		return false;
	memcpy(ret_owner, text, len);
	ret_owner[len] = '\0';
	return true;
}

bool flat_nft_is_owned_by(const struct flat_nft_element *e, const char *owner)
{
	char name[FLAT_IFNAME_LEN];
	return flat_nft_owner_of(e, name) && !strcmp(name, owner);
}

bool flat_nft_has_living_owner(const struct flat_nft_element *e)
{
	char name[FLAT_IFNAME_LEN];
	return flat_nft_owner_of(e, name) && if_nametoindex(name) != 0;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

struct reading {
	const struct flat_nft_set *set;
	struct flat_nl_list *list;
	size_t before; /* elements of other sets */
};

static void reset_reading(void *arg)
{
	struct reading *reading = arg;
	reading->list->count = reading->before;
}

/* User data is a list of type, length (a byte each), value. */
static void copy_comment(const struct nlattr *userdata, char ret_comment[static FLAT_NFT_COMMENT])
{
	const uint8_t *p = nla_data(userdata);
	size_t left = (size_t)nla_len(userdata);
	while (left >= 2 && left - 2 >= p[1]) {
		if (p[0] == NFTNL_UDATA_SET_ELEM_COMMENT) {
			size_t n = strnlen((const char *)p + 2, p[1]);
			if (n >= FLAT_NFT_COMMENT)
				n = FLAT_NFT_COMMENT - 1;
			memcpy(ret_comment, p + 2, n);
			ret_comment[n] = '\0';
			return;
		}
		left -= 2U + p[1];
		p += 2 + p[1];
	}
}

static int parse_elements(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NFTA_SET_ELEM_LIST_MAX + 1], *one[NFTA_SET_ELEM_MAX + 1], *attr;
	struct reading *reading = arg;
	int left;
	(void)elem;
	if ((h->nlmsg_type & 0xff) != NFT_MSG_NEWSETELEM)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_SET_ELEM_LIST_MAX,
			NULL) < 0)
		return -EBADMSG;
	if (!tb[NFTA_SET_ELEM_LIST_ELEMENTS])
		return 0;
	nla_for_each_nested(attr, tb[NFTA_SET_ELEM_LIST_ELEMENTS], left)
	{
		const struct nlattr *key = NULL;
		if (nla_parse_nested(one, NFTA_SET_ELEM_MAX, attr, NULL) >= 0 &&
		    one[NFTA_SET_ELEM_KEY])
			key = nla_find(nla_data(one[NFTA_SET_ELEM_KEY]),
				       nla_len(one[NFTA_SET_ELEM_KEY]), NFTA_DATA_VALUE);
		if (!key || (size_t)nla_len(key) != reading->set->key_len)
			continue; /* not one of ours, whoever made it */
		struct flat_nft_element *e =
			flat_nft_add_element(reading->list, reading->set, NULL);
		if (!e)
			return -ENOMEM;
		memcpy(e->key, nla_data(key), reading->set->key_len);
		if (one[NFTA_SET_ELEM_USERDATA])
			copy_comment(one[NFTA_SET_ELEM_USERDATA], e->comment);
	}
	return 0;
}

int flat_nft_read_elements(struct flat_net *net, const struct flat_nft_set *set,
			   struct flat_nl_list *list, struct flat_err *err)
{
	const struct flat_nft_chain *table = &flat_nft_chains[set->table];
	char buf[FLAT_NFT_REQUEST];
	flat_auto_list none = { 0 };
	struct reading reading = { set, list, list->count };
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETSETELEM, table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set->name);
	int r = flat_nl_dump(net, h, FLAT_GONE_OK, parse_elements, 1, &reading, reset_reading,
			     &none, err, "list the elements of set '%s'", set->name);
	return r < 0 ? flat_nft_advise(err, r) : 0;
}

struct tables {
	const enum flat_nft_place *places;
	size_t count;
	bool *there;
};

static void reset_tables(void *arg)
{
	struct tables *tables = arg;
	for (size_t i = 0; i < tables->count; i++)
		tables->there[i] = false;
}

static int parse_table(const struct nlmsghdr *h, void *elem, void *arg)
{
	const struct nfgenmsg *head = nlmsg_data((struct nlmsghdr *)h);
	struct nlattr *tb[NFTA_TABLE_MAX + 1];
	struct tables *tables = arg;
	char name[64];
	(void)elem;
	if ((h->nlmsg_type & 0xff) != NFT_MSG_NEWTABLE)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof *head, tb, NFTA_TABLE_MAX, NULL) < 0)
		return -EBADMSG;
	flat_nl_text(tb[NFTA_TABLE_NAME], name, sizeof name);
	for (size_t i = 0; i < tables->count; i++) {
		const struct flat_nft_chain *want = &flat_nft_chains[tables->places[i]];
		if (head->nfgen_family == want->family && !strcmp(name, want->table))
			tables->there[i] = true;
	}
	return 0;
}

int flat_nft_find_tables(struct flat_net *net, const enum flat_nft_place *places, size_t count,
			 bool *ret_there, struct flat_err *err)
{
	struct tables tables = { places, count, ret_there };
	char buf[FLAT_NFT_REQUEST];
	flat_auto_list none = { 0 };
	struct flat_err e = { 0 };
	int r = flat_nl_dump(net, flat_nft_header(buf, NFT_MSG_GETTABLE, NULL), 0, parse_table, 1,
			     &tables, reset_tables, &none, &e, "list the tables of nf_tables");
	if (r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT || r == -EAFNOSUPPORT) {
		reset_tables(&tables);
		return 0;
	}
	if (r < 0 && err)
		*err = e;
	return r < 0 ? r : 0;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

void flat_nft_put_set(struct flat_nft_batch *b, const struct flat_nft_set *set, uint32_t id,
		      int type, int flags)
{
	const struct flat_nft_chain *table = &flat_nft_chains[set->table];
	struct nlmsghdr *h = flat_nft_put_header(b, type, table, flags);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_SET_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_NAME, set->name);
	if (type == NFT_MSG_NEWSET) {
		mnl_attr_put_u32(h, NFTA_SET_FLAGS, 0);
		mnl_attr_put_u32(h, NFTA_SET_KEY_TYPE, htonl(set->key_type));
		mnl_attr_put_u32(h, NFTA_SET_KEY_LEN, htonl(set->key_len));
		mnl_attr_put_u32(h, NFTA_SET_ID, htonl(id));
		if (set->key_type == FLAT_NFT_TYPE_LINK) {
			/* nft(8) shows a name alone only when it is told its byte order: the
			 * host's */
			static const uint8_t order[] = { NFTNL_UDATA_SET_KEYBYTEORDER, 4 };
			const uint32_t host = 1;
			uint8_t user[sizeof order + sizeof host];
			memcpy(user, order, sizeof order);
			memcpy(user + sizeof order, &host, sizeof host);
			mnl_attr_put(h, NFTA_SET_USERDATA, sizeof user, user);
		}
	}
	flat_nft_put_end(b, h);
}

void flat_nft_put_element(struct flat_nft_batch *b, const struct flat_nft_element *e, bool add)
{
	const struct flat_nft_chain *table = &flat_nft_chains[e->set->table];
	struct nlmsghdr *h = flat_nft_put_header(b, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
						 table, add ? NLM_F_CREATE | NLM_F_EXCL : 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, e->set->name);
	struct nlattr *all = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
	struct nlattr *one = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
	struct nlattr *key = mnl_attr_nest_start(h, NFTA_SET_ELEM_KEY);
	mnl_attr_put(h, NFTA_DATA_VALUE, e->set->key_len, e->key);
	mnl_attr_nest_end(h, key);
	if (add) {
		uint8_t user[2 + FLAT_NFT_COMMENT] = { NFTNL_UDATA_SET_ELEM_COMMENT };
		const size_t len = strlen(e->comment) + 1;
		user[1] = (uint8_t)len;
		memcpy(user + 2, e->comment, len);
		mnl_attr_put(h, NFTA_SET_ELEM_USERDATA, 2 + len, user);
	}
	mnl_attr_nest_end(h, one);
	mnl_attr_nest_end(h, all);
	flat_nft_put_end(b, h);
}
