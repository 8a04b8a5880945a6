// SPDX-License-Identifier: Apache-2.0
/*
 * Host ports as elements of maps and sets.
 *
 * An element's comment is "flatnet OWNER LABEL", or "flatnet+ OWNER LABEL" where the attachment has
 * elements that lead to chains, too: the owner is a link, the attachment's host veth.
 * It exists before its elements do and until they are gone; so an element whose owner is not there
 * belongs to nobody, may be replaced and may be removed.
 */
#include "nft-ports.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/udata.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <string.h>

enum {
	/* as nft(8) numbers its types, to be shown by it: 6 bits for each part of a key */
	TYPE_IPV4 = 7,
	TYPE_IPV6 = 8,
	TYPE_PROTOCOL = 12,
	TYPE_PORT = 13,
	TYPE_LINK = 41,
};
#define TYPE2(a, b)    ((a) << 6 | (b))
#define TYPE3(a, b, c) ((a) << 12 | (b) << 6 | (c))

#define KEY_ANY	 TYPE2(TYPE_PROTOCOL, TYPE_PORT), 8
#define KEY_IPV4 TYPE3(TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT), 12
#define KEY_IPV6 TYPE3(TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT), 24
#define TO_POD4	 TYPE2(TYPE_IPV4, TYPE_PORT), 8
#define TO_POD6	 TYPE2(TYPE_IPV6, TYPE_PORT), 20
#define TO_CHAIN NFT_DATA_VERDICT

const struct flat_ports_set_type flat_ports_sets[FLAT_PORTS_SETS] = {
	[FLAT_PORTS_ANY4] = { "hostports4", AF_INET, KEY_ANY, TO_POD4 },
	[FLAT_PORTS_ADDRESS4] = { "hostports4_address", AF_INET, KEY_IPV4, TO_POD4 },
	[FLAT_PORTS_PODS4] = { "hostports4_pods", AF_INET, TYPE2(TYPE_IPV4, TYPE_IPV4), 8 },
	[FLAT_PORTS_MASQ4] = { "hostports4_masquerade", AF_INET, KEY_IPV4 },
	[FLAT_PORTS_ANY6] = { "hostports6", AF_INET6, KEY_ANY, TO_POD6 },
	[FLAT_PORTS_ADDRESS6] = { "hostports6_address", AF_INET6, KEY_IPV6, TO_POD6 },
	[FLAT_PORTS_PODS6] = { "hostports6_pods", AF_INET6, TYPE2(TYPE_IPV6, TYPE_IPV6), 32 },
	[FLAT_PORTS_MASQ6] = { "hostports6_masquerade", AF_INET6, KEY_IPV6 },
	[FLAT_PORTS_BRIDGES] = { "hostports_bridges", 0, TYPE2(TYPE_LINK, TYPE_LINK), 32 },
	[FLAT_PORTS_IF_ANY4] = { "hostports4_if", AF_INET, KEY_ANY, TO_CHAIN },
	[FLAT_PORTS_IF_ADDRESS4] = { "hostports4_address_if", AF_INET, KEY_IPV4, TO_CHAIN },
	[FLAT_PORTS_MARKS4] = { "hostports4_marks", AF_INET, TYPE_IPV4, 4, TO_CHAIN },
	[FLAT_PORTS_IF_ANY6] = { "hostports6_if", AF_INET6, KEY_ANY, TO_CHAIN },
	[FLAT_PORTS_IF_ADDRESS6] = { "hostports6_address_if", AF_INET6, KEY_IPV6, TO_CHAIN },
	[FLAT_PORTS_MARKS6] = { "hostports6_marks", AF_INET6, TYPE_IPV6, 16, TO_CHAIN },
};

bool flat_ports_is_map(enum flat_ports_set set)
{
	return flat_ports_sets[set].data_len > 0;
}

bool flat_ports_is_jump(enum flat_ports_set set)
{
	return set >= FLAT_PORTS_PLAIN;
}

/* ---- elements ----------------------------------------------------------------------------------
 */

static size_t put_ip(uint8_t *at, const struct flat_ip *ip)
{
	memcpy(at, ip->bytes, flat_ip_size(ip));
	return flat_ip_size(ip);
}

static size_t put_port(uint8_t *at, uint16_t port)
{
	const uint16_t be = htons(port);
	memcpy(at, &be, sizeof be);
	return 4;
}

bool flat_ports_is_any(const struct flat_ip *ip)
{
	const struct flat_ip any = { .family = ip->family };
	return flat_ip_equal(ip, &any);
}

static struct flat_ip read_ip(const uint8_t *at, int family)
{
	struct flat_ip ip = { .family = (uint8_t)family };
	memcpy(ip.bytes, at, flat_ip_size(&ip));
	return ip;
}

struct flat_port flat_ports_port_of(const struct flat_ports_element *e)
{
	const int family = flat_ports_sets[e->set].family;
	const bool addressed = e->set == FLAT_PORTS_ADDRESS4 || e->set == FLAT_PORTS_ADDRESS6;
	const size_t skip = family == AF_INET ? 4 : 16;
	const uint8_t *key = e->key + (addressed ? skip : 0);
	struct flat_port port = { .host.family = (uint8_t)family, .protocol = key[0] };
	uint16_t be;
	if (addressed)
		port.host = read_ip(e->key, family);
	port.pod = read_ip(e->data, family);
	memcpy(&be, key + 4, sizeof be);
	port.port = ntohs(be);
	memcpy(&be, e->data + skip, sizeof be);
	port.pod_port = ntohs(be);
	return port;
}

struct flat_ip flat_ports_pod_of(const struct flat_ports_element *e)
{
	const bool marks = e->set == FLAT_PORTS_MARKS4 || e->set == FLAT_PORTS_MARKS6;
	if (!flat_ports_sets[e->set].family || (flat_ports_is_jump(e->set) && !marks))
		return (struct flat_ip){ 0 };
	return read_ip(flat_ports_is_map(e->set) ? e->data : e->key,
		       flat_ports_sets[e->set].family);
}

bool flat_ports_same_key(const struct flat_ports_element *a, const struct flat_ports_element *b)
{
	return a->set == b->set && !memcmp(a->key, b->key, FLAT_PORTS_KEY);
}

bool flat_ports_has_side(const struct flat_ports_element *e)
{
	return !strncmp(e->comment, "flatnet+ ", strlen("flatnet+ "));
}

bool flat_ports_owner_of(const struct flat_ports_element *e, char ret_owner[static FLAT_IFNAME_LEN])
{
	static const char mark[] = "flatnet ";
	const char *text = e->comment + sizeof mark - 1 + flat_ports_has_side(e);
	size_t len;
	if (!flat_ports_has_side(e) && strncmp(e->comment, mark, sizeof mark - 1) != 0)
		return false;
	len = strcspn(text, " ");
	if (!len || len >= FLAT_IFNAME_LEN)
		return false;
	memcpy(ret_owner, text, len);
	ret_owner[len] = '\0';
	return true;
}

bool flat_ports_is_owned_by(const struct flat_ports_element *e, const char *owner)
{
	char name[FLAT_IFNAME_LEN];
	return flat_ports_owner_of(e, name) && !strcmp(name, owner);
}

bool flat_ports_has_living_owner(const struct flat_ports_element *e)
{
	char name[FLAT_IFNAME_LEN];
	return flat_ports_owner_of(e, name) && if_nametoindex(name) != 0;
}

static struct flat_ports_element *add_element(struct flat_nl_list *list, enum flat_ports_set set)
{
	struct flat_ports_element *e = flat_nl_list_add(list, sizeof *e);
	if (e)
		e->set = set;
	return e;
}

static void drop_repeated(struct flat_nl_list *list)
{
	struct flat_ports_element *items = (struct flat_ports_element *)list->items,
				  *last = &items[list->count - 1];
	for (struct flat_ports_element *e = items; e < last; e++) {
		if (flat_ports_same_key(e, last)) {
			list->count--;
			return;
		}
	}
}

static bool want_port(const struct flat_port *port, struct flat_nl_list *list)
{
	const bool v4 = port->pod.family == AF_INET, any = flat_ports_is_any(&port->host);
	struct flat_ports_element *e =
		add_element(list, any ? (v4 ? FLAT_PORTS_ANY4 : FLAT_PORTS_ANY6)
				      : (v4 ? FLAT_PORTS_ADDRESS4 : FLAT_PORTS_ADDRESS6));
	if (!e)
		return false;
	size_t n = any ? 0 : put_ip(e->key, &port->host);
	e->key[n] = port->protocol;
	put_port(e->key + n + 4, port->port);
	n = put_ip(e->data, &port->pod);
	put_port(e->data + n, port->pod_port);
	return true;
}

static bool want_source(const struct flat_ports *want, const struct flat_port *port,
			struct flat_nl_list *list)
{
	const bool v4 = port->pod.family == AF_INET;
	struct flat_ports_element *e = add_element(list, v4 ? FLAT_PORTS_PODS4 : FLAT_PORTS_PODS6);
	if (!e)
		return false;
	size_t n = put_ip(e->key, &port->pod);
	put_ip(e->key + n, &port->pod);
	drop_repeated(list);
	if (!want->masquerade_all)
		return true;
	e = add_element(list, v4 ? FLAT_PORTS_MASQ4 : FLAT_PORTS_MASQ6);
	if (!e)
		return false;
	n = put_ip(e->key, &port->pod);
	e->key[n] = port->protocol;
	put_port(e->key + n + 4, port->port);
	drop_repeated(list);
	return true;
}

/* The way from what a port is, or from its pod, to a chain. */
static bool want_jump(const struct flat_port *port, const struct flat_ports_side *side,
		      struct flat_nl_list *list)
{
	const bool v4 = port->pod.family == AF_INET, any = flat_ports_is_any(&port->host);
	const enum flat_ports_set ways[2][2] = {
		{ FLAT_PORTS_IF_ADDRESS6, FLAT_PORTS_IF_ADDRESS4 },
		{ FLAT_PORTS_IF_ANY6, FLAT_PORTS_IF_ANY4 },
	};
	if (side->family && side->family != port->pod.family)
		return true;
	struct flat_ports_element *e = add_element(list, side->family ? ways[any][v4]
							 : v4	      ? FLAT_PORTS_MARKS4
								      : FLAT_PORTS_MARKS6);
	if (!e)
		return false;
	if (!side->family) {
		put_ip(e->key, &port->pod);
	} else {
		size_t n = any ? 0 : put_ip(e->key, &port->host);
		e->key[n] = port->protocol;
		put_port(e->key + n + 4, port->port);
	}
	memcpy(e->chain, side->chain, sizeof e->chain);
	drop_repeated(list);
	return true;
}

static bool want_bridge(const char *bridge, struct flat_nl_list *list)
{
	struct flat_ports_element *e = add_element(list, FLAT_PORTS_BRIDGES);
	if (!e)
		return false;
	memcpy(e->key, bridge, strnlen(bridge, FLAT_IFNAME_LEN - 1));
	memcpy(e->key + FLAT_IFNAME_LEN, e->key, FLAT_IFNAME_LEN);
	snprintf(e->comment, sizeof e->comment, "flatnet %s", bridge);
	return true;
}

int flat_ports_want_elements(const struct flat_ports *want, struct flat_nl_list *list,
			     struct flat_err *err)
{
	struct flat_ports_side sides[FLAT_PORTS_SIDES];
	const size_t side_count = flat_ports_sides(want, sides);
	bool fine = true;
	list->count = 0;
	for (size_t i = 0; i < want->count && fine; i++) {
		fine = want_port(&want->items[i], list);
		if (fine && want->snat)
			fine = want_source(want, &want->items[i], list);
		for (size_t s = 0; s < side_count && fine; s++)
			fine = want_jump(&want->items[i], &sides[s], list);
	}
	for (size_t i = 0; i < list->count && fine; i++) {
		struct flat_ports_element *e = (struct flat_ports_element *)list->items + i;
		snprintf(e->comment, sizeof e->comment, "flatnet%s %s %s", side_count ? "+" : "",
			 want->owner, want->label);
	}
	if (fine && want->bridge && want->snat)
		fine = want_bridge(want->bridge, list);
	return fine ? 0 : flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "host ports");
}

/* ---- reading -----------------------------------------------------------------------------------
 */

struct reading {
	enum flat_ports_set set;
	struct flat_nl_list *list;
	size_t before; /* elements of other sets */
};

static void reset_reading(void *arg)
{
	struct reading *reading = arg;
	reading->list->count = reading->before;
}

static bool copy_value(struct nlattr *attr, uint8_t *to, size_t len)
{
	const struct nlattr *value =
		attr ? nla_find(nla_data(attr), nla_len(attr), NFTA_DATA_VALUE) : NULL;
	if (!value || (size_t)nla_len(value) != len)
		return false;
	memcpy(to, nla_data(value), len);
	return true;
}

static bool copy_jump(struct nlattr *attr, char ret_chain[static FLAT_PORTS_DATA])
{
	const struct nlattr *verdict =
		attr ? nla_find(nla_data(attr), nla_len(attr), NFTA_DATA_VERDICT) : NULL;
	const struct nlattr *chain =
		verdict ? nla_find(nla_data(verdict), nla_len(verdict), NFTA_VERDICT_CHAIN) : NULL;
	flat_nl_text(chain, ret_chain, FLAT_PORTS_DATA);
	return chain != NULL;
}

/* User data is a list of type, length (a byte each), value. */
static void copy_comment(const struct nlattr *userdata, char ret_comment[static FLAT_PORTS_COMMENT])
{
	const uint8_t *p = nla_data(userdata);
	size_t left = (size_t)nla_len(userdata);
	while (left >= 2 && left - 2 >= p[1]) {
		if (p[0] == NFTNL_UDATA_SET_ELEM_COMMENT) {
			size_t n = strnlen((const char *)p + 2, p[1]);
			if (n >= FLAT_PORTS_COMMENT)
				n = FLAT_PORTS_COMMENT - 1;
			memcpy(ret_comment, p + 2, n);
			ret_comment[n] = '\0';
			return;
		}
		left -= 2U + p[1];
		p += 2 + p[1];
	}
}

static bool copy_element(struct nlattr *const *one, struct flat_ports_element *e)
{
	const struct flat_ports_set_type *type = &flat_ports_sets[e->set];
	if (!copy_value(one[NFTA_SET_ELEM_KEY], e->key, type->key_len))
		return false;
	if (flat_ports_is_jump(e->set))
		return copy_jump(one[NFTA_SET_ELEM_DATA], e->chain);
	return !flat_ports_is_map(e->set) ||
	       copy_value(one[NFTA_SET_ELEM_DATA], e->data, type->data_len);
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
		struct flat_ports_element *e = add_element(reading->list, reading->set);
		if (!e)
			return -ENOMEM;
		if (nla_parse_nested(one, NFTA_SET_ELEM_MAX, attr, NULL) < 0 ||
		    !copy_element(one, e)) {
			reading->list->count--; /* not one of ours, whoever made it */
			continue;
		}
		if (one[NFTA_SET_ELEM_USERDATA])
			copy_comment(one[NFTA_SET_ELEM_USERDATA], e->comment);
	}
	return 0;
}

static int read_set(struct flat_net *net, enum flat_ports_set set, struct flat_nl_list *list,
		    struct flat_err *err)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	flat_auto_list none = { 0 };
	struct reading reading = { set, list, list->count };
	char buf[FLAT_NFT_REQUEST];
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETSETELEM, table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, flat_ports_sets[set].name);
	return flat_nl_dump(net, h, FLAT_GONE_OK, parse_elements, 1, &reading, reset_reading, &none,
			    err, "list the elements of set '%s'", flat_ports_sets[set].name);
}

int flat_ports_read(struct flat_net *net, struct flat_nl_list *list, struct flat_err *err)
{
	bool sides = false;
	int r = 0;
	list->count = 0;
	for (int set = 0; set < FLAT_PORTS_PLAIN && r >= 0; set++)
		r = read_set(net, (enum flat_ports_set)set, list, err);
	for (size_t i = 0; i < list->count && !sides; i++)
		sides = flat_ports_has_side(flat_ports_element_at(list, i));
	for (int set = FLAT_PORTS_PLAIN; set < FLAT_PORTS_SETS && r >= 0 && sides; set++)
		r = read_set(net, (enum flat_ports_set)set, list, err);
	return r < 0 ? flat_nft_advise(err, r) : 0;
}

static int parse_set(const struct nlmsghdr *h, void *elem, void *arg)
{
	(void)h;
	(void)elem;
	(void)arg;
	return 1;
}

int flat_ports_may_be_there(struct flat_net *net, struct flat_err *err)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	char buf[FLAT_NFT_REQUEST];
	struct flat_err e = { 0 };
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETSET, table);
	mnl_attr_put_strz(h, NFTA_SET_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_NAME, flat_ports_sets[FLAT_PORTS_ANY4].name);
	int r = flat_nl_ask(net, h, FLAT_GONE_OK, parse_set, NULL, NULL, &e, "look up set '%s'",
			    flat_ports_sets[FLAT_PORTS_ANY4].name);
	if (r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT || r == -EAFNOSUPPORT)
		return 0;
	if (r < 0 && err)
		*err = e;
	return r;
}

const struct flat_ports_element *flat_ports_element_at(const struct flat_nl_list *list, size_t i)
{
	return (const struct flat_ports_element *)list->items + i;
}

int flat_nft_ports_used(struct flat_net *net, struct flat_err *err)
{
	flat_auto_list have = { 0 };
	int r = flat_ports_read(net, &have, err);
	for (size_t i = 0; r >= 0 && i < have.count; i++)
		if (flat_ports_element_at(&have, i)->set != FLAT_PORTS_BRIDGES)
			return 1;
	return r;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

void flat_ports_put_set(struct flat_nft_batch *b, enum flat_ports_set set, int type, int flags)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	struct nlmsghdr *h = flat_nft_put_header(b, type, table, flags);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_SET_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_NAME, flat_ports_sets[set].name);
	if (type == NFT_MSG_NEWSET) {
		const bool map = flat_ports_is_map(set), jump = flat_ports_is_jump(set);
		mnl_attr_put_u32(h, NFTA_SET_FLAGS, htonl(map || jump ? NFT_SET_MAP : 0));
		mnl_attr_put_u32(h, NFTA_SET_KEY_TYPE, htonl(flat_ports_sets[set].key_type));
		mnl_attr_put_u32(h, NFTA_SET_KEY_LEN, htonl(flat_ports_sets[set].key_len));
		if (map || jump)
			mnl_attr_put_u32(h, NFTA_SET_DATA_TYPE,
					 htonl(flat_ports_sets[set].data_type));
		if (map)
			mnl_attr_put_u32(h, NFTA_SET_DATA_LEN,
					 htonl(flat_ports_sets[set].data_len));
		mnl_attr_put_u32(h, NFTA_SET_ID, htonl((uint32_t)set + 1));
	}
	flat_nft_put_end(b, h);
}

static void put_value(struct nlmsghdr *h, uint16_t attr, const uint8_t *value, size_t len)
{
	struct nlattr *nest = mnl_attr_nest_start(h, attr);
	mnl_attr_put(h, NFTA_DATA_VALUE, len, value);
	mnl_attr_nest_end(h, nest);
}

static void put_jump(struct nlmsghdr *h, uint16_t attr, const char *chain)
{
	struct nlattr *data = mnl_attr_nest_start(h, attr);
	struct nlattr *verdict = mnl_attr_nest_start(h, NFTA_DATA_VERDICT);
	mnl_attr_put_u32(h, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_JUMP));
	mnl_attr_put_strz(h, NFTA_VERDICT_CHAIN, chain);
	mnl_attr_nest_end(h, verdict);
	mnl_attr_nest_end(h, data);
}

void flat_ports_put_element(struct flat_nft_batch *b, const struct flat_ports_element *e, bool add)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	struct nlmsghdr *h = flat_nft_put_header(b, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
						 table, add ? NLM_F_CREATE | NLM_F_EXCL : 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, flat_ports_sets[e->set].name);
	struct nlattr *all = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
	struct nlattr *one = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
	put_value(h, NFTA_SET_ELEM_KEY, e->key, flat_ports_sets[e->set].key_len);
	if (flat_ports_is_map(e->set))
		put_value(h, NFTA_SET_ELEM_DATA, e->data, flat_ports_sets[e->set].data_len);
	else if (flat_ports_is_jump(e->set))
		put_jump(h, NFTA_SET_ELEM_DATA, e->chain);
	if (add) {
		uint8_t user[2 + FLAT_PORTS_COMMENT] = { NFTNL_UDATA_SET_ELEM_COMMENT };
		const size_t len = strlen(e->comment) + 1;
		user[1] = (uint8_t)len;
		memcpy(user + 2, e->comment, len);
		mnl_attr_put(h, NFTA_SET_ELEM_USERDATA, 2 + len, user);
	}
	mnl_attr_nest_end(h, one);
	mnl_attr_nest_end(h, all);
	flat_nft_put_end(b, h);
}
