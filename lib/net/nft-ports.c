// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation. The chains are the same for all ports, and say nothing of any of them; ports
 * are elements of maps. What a packet costs does not depend on their number, and only the first
 * packet of a connection passes here at all.
 *
 *	chain hostports_prerouting, hostports_output {
 *		ip6 daddr ::1 return			only in hostports_output
 *		fib daddr type local jump hostports
 *	}
 *	chain hostports {
 *		dnat ip to ip daddr . meta l4proto . th dport map @hostports4_address
 *		dnat ip to meta l4proto . th dport map @hostports4
 *	}
 *	chain hostports_postrouting {
 *		meta mark & 0x00004000 == 0x00004000 return
 *		ct status & dnat != dnat return
 *		ip saddr . ip daddr @hostports4_pods masquerade fully-random
 *		ip saddr 127.0.0.0/8 ip daddr . ip daddr @hostports4_pods masquerade fully-random
 *		iifname . oifname @hostports_bridges ip daddr . ip daddr @hostports4_pods masquerade
 *... ip daddr . meta l4proto . ct original proto-dst @hostports4_masquerade masquerade ...
 *	}
 *	chain hostports_guard {
 *		iifname != "lo" ip daddr 127.0.0.0/8 drop
 *	}
 *
 * and the same for IPv6. hostports4_pods has "pod . pod" for each pod with a port: looked up with
 * source and destination it finds who speaks to himself, and with the destination twice who speaks
 * to such a pod. An answer to the node's loopback would leave the pod for its own one, and one to a
 * neighbour would take the short way over the bridge, so these get the node's address.
 *
 * That the kernel takes an answer for 127.0.0.1 from a bridge (route_localnet) means that it takes
 * anything else for it, too; the guard is there for that. For ::1 it takes nothing that comes from
 * another link (rt6_need_strict() in net/ipv6/route.c), so such a connection could only wait for
 *its time-out. It is left alone, and refused at once; who asks for "localhost" goes on to
 *127.0.0.1.
 *
 * An element's comment is "flatnet OWNER LABEL": the owner is a link, the attachment's host veth.
 *It exists before its elements do and until they are gone; so an element whose owner is not there
 * belongs to nobody, may be replaced and may be removed.
 *
 * As with the other rules (nft.c), what was read and what is written belong together by the
 * generation of the rule set. So nobody removes what has become another's in between.
 */
#include "conntrack.h"
#include "nft.h"
#include "nl.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum set {
	PORTS4,	  /* protocol . port : pod . port */
	ADDRESS4, /* address . protocol . port : pod . port */
	PODS4,	  /* pod . pod */
	MASQ4,	  /* pod . protocol . port of the node */
	PORTS6,
	ADDRESS6,
	PODS6,
	MASQ6,
	BRIDGES, /* link . link */
	SETS,
};

enum {
	KEY_BYTES = 32,
	DATA_BYTES = 20,
	COMMENT_BYTES = 128, /* nft(8) shows no longer one; NUL included */
	MOST_PODS = 64,	     /* whose connections are forgotten one by one */
	/* as nft(8) numbers its types, to be shown by it: 6 bits for each part of a key */
	TYPE_IPV4 = 7,
	TYPE_IPV6 = 8,
	TYPE_PROTOCOL = 12,
	TYPE_PORT = 13,
	TYPE_LINK = 41,
	/* a part of 4 bytes after one of 4; of 16 bytes it would be register 2 */
	REG_SECOND4 = NFT_REG32_01,
	REG_THIRD4 = NFT_REG32_02,
	REG_AFTER_IPV6_AND_4 = NFT_REG32_05,
};
#define TYPE2(a, b)    ((a) << 6 | (b))
#define TYPE3(a, b, c) ((a) << 12 | (b) << 6 | (c))

static const struct {
	const char *name;
	int family;
	uint32_t key_type, key_len, data_type, data_len;
} sets[SETS] = {
	[PORTS4] = { "hostports4", AF_INET, TYPE2(TYPE_PROTOCOL, TYPE_PORT), 8,
		     TYPE2(TYPE_IPV4, TYPE_PORT), 8 },
	[ADDRESS4] = { "hostports4_address", AF_INET, TYPE3(TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT),
		       12, TYPE2(TYPE_IPV4, TYPE_PORT), 8 },
	[PODS4] = { "hostports4_pods", AF_INET, TYPE2(TYPE_IPV4, TYPE_IPV4), 8 },
	[MASQ4] = { "hostports4_masquerade", AF_INET, TYPE3(TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT),
		    12 },
	[PORTS6] = { "hostports6", AF_INET6, TYPE2(TYPE_PROTOCOL, TYPE_PORT), 8,
		     TYPE2(TYPE_IPV6, TYPE_PORT), 20 },
	[ADDRESS6] = { "hostports6_address", AF_INET6, TYPE3(TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT),
		       24, TYPE2(TYPE_IPV6, TYPE_PORT), 20 },
	[PODS6] = { "hostports6_pods", AF_INET6, TYPE2(TYPE_IPV6, TYPE_IPV6), 32 },
	[MASQ6] = { "hostports6_masquerade", AF_INET6, TYPE3(TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT),
		    24 },
	[BRIDGES] = { "hostports_bridges", 0, TYPE2(TYPE_LINK, TYPE_LINK), 32 },
};

static bool is_map(enum set set)
{
	return sets[set].data_len > 0;
}

struct element {
	enum set set;
	bool drop;
	uint8_t key[KEY_BYTES], data[DATA_BYTES]; /* parts are padded to 4 bytes */
	char comment[COMMENT_BYTES];
};

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

static bool is_any(const struct flat_ip *ip)
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

/* The port that an element of a map stands for. */
static struct flat_port port_of(const struct element *e)
{
	const int family = sets[e->set].family;
	const bool addressed = e->set == ADDRESS4 || e->set == ADDRESS6;
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

/* The pod whose element it is; family 0: no pod's. */
static struct flat_ip pod_of(const struct element *e)
{
	if (!sets[e->set].family)
		return (struct flat_ip){ 0 };
	return read_ip(is_map(e->set) ? e->data : e->key, sets[e->set].family);
}

static bool same_key(const struct element *a, const struct element *b)
{
	return a->set == b->set && !memcmp(a->key, b->key, KEY_BYTES);
}

/* The word after "flatnet ", if it may be a link's name. */
static bool owner_of(const struct element *e, char ret_owner[static FLAT_IFNAME_LEN])
{
	static const char mark[] = "flatnet ";
	const char *text = e->comment + sizeof mark - 1;
	size_t len;
	if (strncmp(e->comment, mark, sizeof mark - 1) != 0)
		return false;
	len = strcspn(text, " ");
	if (!len || len >= FLAT_IFNAME_LEN)
		return false;
	memcpy(ret_owner, text, len);
	ret_owner[len] = '\0';
	return true;
}

static bool is_owned_by(const struct element *e, const char *owner)
{
	char name[FLAT_IFNAME_LEN];
	return owner_of(e, name) && !strcmp(name, owner);
}

static bool has_living_owner(const struct element *e)
{
	char name[FLAT_IFNAME_LEN];
	return owner_of(e, name) && if_nametoindex(name) != 0;
}

/* What an attachment wants, as elements. */
static struct element *add_element(struct flat_nl_list *list, enum set set)
{
	struct element *e = flat_nl_list_add(list, sizeof *e);
	if (e)
		e->set = set;
	return e;
}

static void drop_repeated(struct flat_nl_list *list)
{
	struct element *items = (struct element *)list->items, *last = &items[list->count - 1];
	for (struct element *e = items; e < last; e++) {
		if (same_key(e, last)) {
			list->count--;
			return;
		}
	}
}

static bool want_port(const struct flat_port *port, struct flat_nl_list *list)
{
	const bool v4 = port->pod.family == AF_INET, any = is_any(&port->host);
	struct element *e =
		add_element(list, any ? (v4 ? PORTS4 : PORTS6) : (v4 ? ADDRESS4 : ADDRESS6));
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
	struct element *e = add_element(list, v4 ? PODS4 : PODS6);
	if (!e)
		return false;
	size_t n = put_ip(e->key, &port->pod);
	put_ip(e->key + n, &port->pod);
	drop_repeated(list);
	if (!want->masquerade_all)
		return true;
	e = add_element(list, v4 ? MASQ4 : MASQ6);
	if (!e)
		return false;
	n = put_ip(e->key, &port->pod);
	e->key[n] = port->protocol;
	put_port(e->key + n + 4, port->port);
	drop_repeated(list);
	return true;
}

static int want_elements(const struct flat_ports *want, struct flat_nl_list *list,
			 struct flat_err *err)
{
	bool fine = true;
	list->count = 0;
	for (size_t i = 0; i < want->count && fine; i++) {
		fine = want_port(&want->items[i], list);
		if (fine && want->snat)
			fine = want_source(want, &want->items[i], list);
	}
	for (size_t i = 0; i < list->count && fine; i++) {
		struct element *e = (struct element *)list->items + i;
		snprintf(e->comment, sizeof e->comment, "flatnet %s %s", want->owner, want->label);
	}
	if (fine && want->bridge && want->snat) {
		struct element *e = add_element(list, BRIDGES);
		fine = e != NULL;
		if (fine) {
			memcpy(e->key, want->bridge, strnlen(want->bridge, FLAT_IFNAME_LEN - 1));
			memcpy(e->key + FLAT_IFNAME_LEN, e->key, FLAT_IFNAME_LEN);
			snprintf(e->comment, sizeof e->comment, "flatnet %s", want->bridge);
		}
	}
	return fine ? 0 : flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "host ports");
}

/* ---- the chains --------------------------------------------------------------------------------
 */

static void add_meta_to(struct flat_nft_rule *r, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "meta");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, reg);
}

static void add_payload_to(struct flat_nft_rule *r, uint32_t base, uint32_t offset, uint32_t len,
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

static void add_address_to(struct flat_nft_rule *r, bool v4, bool source, uint32_t reg)
{
	const uint32_t offset = v4 ? (source ? 12 : 16) : (source ? 8 : 24);
	add_payload_to(r, NFT_PAYLOAD_NETWORK_HEADER, offset, v4 ? 4 : 16, reg);
}

static void add_lookup(struct flat_nft_rule *r, enum set set)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "lookup");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	if (is_map(set))
		nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_1);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, sets[set].name) < 0)
		r->failed = true;
}

/* ct status, or the port that the connection began with. */
static void add_ct(struct flat_nft_rule *r, uint32_t key, bool original, uint32_t reg)
{
	struct nftnl_expr *e = flat_nft_add_expr(r, "ct");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, reg);
	if (original)
		nftnl_expr_set_u8(e, NFTNL_EXPR_CT_DIR, IP_CT_DIR_ORIGINAL);
}

static void build_jump(struct flat_nft_builder *b, enum flat_nft_place place)
{
	const uint32_t local = RTN_LOCAL;
	struct flat_nft_rule r = flat_nft_begin_rule(place, 0);
	struct nftnl_expr *e = flat_nft_add_expr(&r, "fib");
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
	}
	flat_nft_add_compare(&r, NFT_CMP_EQ, &local, sizeof local);
	e = flat_nft_add_expr(&r, "immediate");
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
		nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)NFT_JUMP);
		if (nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN,
				       flat_nft_chains[FLAT_NFT_PORTS].chain) < 0)
			r.failed = true;
	}
	flat_nft_end_rule(b, &r);
}

static void build_dnat(struct flat_nft_builder *b, enum set set)
{
	const int family = sets[set].family;
	const bool v4 = family == AF_INET, addressed = set == ADDRESS4 || set == ADDRESS6;
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS, family);
	if (addressed)
		add_address_to(&r, v4, false, NFT_REG_1);
	add_meta_to(&r, NFT_META_L4PROTO, !addressed ? NFT_REG_1 : v4 ? REG_SECOND4 : NFT_REG_2);
	/* the destination port is at the same place in all three */
	add_payload_to(&r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2,
		       !addressed ? REG_SECOND4
		       : v4	  ? REG_THIRD4
				  : REG_AFTER_IPV6_AND_4);
	add_lookup(&r, set);
	struct nftnl_expr *e = flat_nft_add_expr(&r, "nat");
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT);
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_FAMILY, (uint32_t)family);
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG_1);
		nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_REG_PROTO_MIN,
				   v4 ? (uint32_t)REG_SECOND4 : NFT_REG_2);
	}
	flat_nft_end_rule(b, &r);
}

/* Connections that nobody redirected are none of ours. */
static void build_status(struct flat_nft_builder *b)
{
	const uint32_t redirected = IPS_DST_NAT, none = 0;
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_SOURCE, 0);
	add_ct(&r, NFT_CT_STATUS, false, NFT_REG_1);
	flat_nft_add_mask(&r, &redirected, sizeof redirected);
	flat_nft_add_compare(&r, NFT_CMP_EQ, &none, sizeof none);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static const struct flat_prefix loopback4 = { .ip = { AF_INET, { 127 } }, .len = 8 };
static const struct flat_prefix loopback6 = { .ip = { AF_INET6, { [15] = 1 } }, .len = 128 };

static void build_no_loopback6(struct flat_nft_builder *b)
{
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_OUT, AF_INET6);
	flat_nft_add_address(&r, false, NFT_CMP_EQ, &loopback6);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

enum from { FROM_ITSELF, FROM_LOOPBACK, FROM_NEIGHBOUR, FROM_ANYWHERE, FROMS };

static void build_source(struct flat_nft_builder *b, int family, enum from from)
{
	const bool v4 = family == AF_INET;
	const uint32_t second = v4 ? (uint32_t)REG_SECOND4 : NFT_REG_2;
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_SOURCE, family);
	if (from == FROM_LOOPBACK)
		flat_nft_add_address(&r, true, NFT_CMP_EQ, &loopback4);
	if (from == FROM_NEIGHBOUR) { /* where it came in is known here since Linux 5.7 */
		add_meta_to(&r, NFT_META_IIFNAME, NFT_REG_1);
		add_meta_to(&r, NFT_META_OIFNAME, NFT_REG_2);
		add_lookup(&r, BRIDGES);
	}
	add_address_to(&r, v4, from == FROM_ITSELF, NFT_REG_1);
	if (from == FROM_ANYWHERE) {
		add_meta_to(&r, NFT_META_L4PROTO, second);
		add_ct(&r, NFT_CT_PROTO_DST, true, v4 ? REG_THIRD4 : REG_AFTER_IPV6_AND_4);
		add_lookup(&r, v4 ? MASQ4 : MASQ6);
	} else {
		add_address_to(&r, v4, false, second);
		add_lookup(&r, v4 ? PODS4 : PODS6);
	}
	flat_nft_add_masquerade(&r);
	flat_nft_end_rule(b, &r);
}

static void build_guard(struct flat_nft_builder *b)
{
	static const char lo[IFNAMSIZ] = "lo";
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_PORTS_GUARD, AF_INET);
	flat_nft_add_meta(&r, NFT_META_IIFNAME);
	flat_nft_add_compare(&r, NFT_CMP_NEQ, lo, sizeof lo);
	flat_nft_add_address(&r, false, NFT_CMP_EQ, &loopback4);
	flat_nft_add_verdict(&r, NF_DROP);
	flat_nft_end_rule(b, &r);
}

static int build_chains(struct flat_nft_rules *ret_rules, struct flat_err *err)
{
	struct flat_nft_builder b = { .rules = ret_rules, .digest = 1 };
	*ret_rules = (struct flat_nft_rules){ .prefix = FLAT_NFT_PORTS_TAG, .ports = true };
	build_dnat(&b, ADDRESS4);
	build_dnat(&b, PORTS4);
	build_dnat(&b, ADDRESS6);
	build_dnat(&b, PORTS6);
	build_jump(&b, FLAT_NFT_PORTS_IN);
	build_no_loopback6(&b);
	build_jump(&b, FLAT_NFT_PORTS_OUT);
	flat_nft_build_mark(&b, FLAT_NFT_PORTS_SOURCE);
	build_status(&b);
	for (int from = 0; from < FROMS; from++) {
		build_source(&b, AF_INET, (enum from)from);
		if (from != FROM_LOOPBACK)
			build_source(&b, AF_INET6, (enum from)from);
	}
	build_guard(&b);
	if (!b.failed)
		return 0;
	flat_nft_rules_free(ret_rules);
	return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "rules of host ports");
}

/* ---- reading -----------------------------------------------------------------------------------
 */

struct reading {
	enum set set;
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

/* User data is a list of type, length (a byte each), value. */
static void copy_comment(const struct nlattr *userdata, char ret_comment[static COMMENT_BYTES])
{
	const uint8_t *p = nla_data(userdata);
	size_t left = (size_t)nla_len(userdata);
	while (left >= 2 && left - 2 >= p[1]) {
		if (p[0] == NFTNL_UDATA_SET_ELEM_COMMENT) {
			size_t n = strnlen((const char *)p + 2, p[1]);
			if (n >= COMMENT_BYTES)
				n = COMMENT_BYTES - 1;
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
		struct element *e = add_element(reading->list, reading->set);
		if (!e)
			return -ENOMEM;
		if (nla_parse_nested(one, NFTA_SET_ELEM_MAX, attr, NULL) < 0 ||
		    !copy_value(one[NFTA_SET_ELEM_KEY], e->key, sets[e->set].key_len) ||
		    (is_map(e->set) &&
		     !copy_value(one[NFTA_SET_ELEM_DATA], e->data, sets[e->set].data_len))) {
			reading->list->count--; /* not one of ours, whoever made it */
			continue;
		}
		if (one[NFTA_SET_ELEM_USERDATA])
			copy_comment(one[NFTA_SET_ELEM_USERDATA], e->comment);
	}
	return 0;
}

static int read_elements(struct flat_net *net, struct flat_nl_list *list, struct flat_err *err)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	char buf[FLAT_NFT_REQUEST];
	int r = 0;
	list->count = 0;
	for (int set = 0; set < SETS && r >= 0; set++) {
		flat_auto_list none = { 0 };
		struct reading reading = { (enum set)set, list, list->count };
		struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETSETELEM, table);
		mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table->table);
		mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, sets[set].name);
		r = flat_nl_dump(net, h, FLAT_GONE_OK, parse_elements, 1, &reading, reset_reading,
				 &none, err, "list the elements of set '%s'", sets[set].name);
	}
	return r < 0 ? flat_nft_advise(err, r) : 0;
}

static int parse_set(const struct nlmsghdr *h, void *elem, void *arg)
{
	(void)h;
	(void)elem;
	(void)arg;
	return 1;
}

/* 1: there may be ports; 0: there are none, and never were, or the kernel has no nf_tables. */
static int may_have_ports(struct flat_net *net, struct flat_err *err)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	char buf[FLAT_NFT_REQUEST];
	struct flat_err e = { 0 };
	struct nlmsghdr *h = flat_nft_header(buf, NFT_MSG_GETSET, table);
	mnl_attr_put_strz(h, NFTA_SET_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_NAME, sets[PORTS4].name);
	int r = flat_nl_ask(net, h, FLAT_GONE_OK, parse_set, NULL, NULL, &e, "look up set '%s'",
			    sets[PORTS4].name);
	if (r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT || r == -EAFNOSUPPORT)
		return 0;
	if (r < 0 && err)
		*err = e;
	return r;
}

static const struct element *element_at(const struct flat_nl_list *list, size_t i)
{
	return (const struct element *)list->items + i;
}

int flat_nft_ports_used(struct flat_net *net, struct flat_err *err)
{
	flat_auto_list have = { 0 };
	int r = read_elements(net, &have, err);
	for (size_t i = 0; r >= 0 && i < have.count; i++)
		if (element_at(&have, i)->set != BRIDGES)
			return 1;
	return r;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void put_set(struct flat_nft_batch *b, enum set set, int type, int flags)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	struct nlmsghdr *h = flat_nft_put_header(b, type, table, flags);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_SET_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_NAME, sets[set].name);
	if (type == NFT_MSG_NEWSET) {
		mnl_attr_put_u32(h, NFTA_SET_FLAGS, htonl(is_map(set) ? NFT_SET_MAP : 0));
		mnl_attr_put_u32(h, NFTA_SET_KEY_TYPE, htonl(sets[set].key_type));
		mnl_attr_put_u32(h, NFTA_SET_KEY_LEN, htonl(sets[set].key_len));
		if (is_map(set)) {
			mnl_attr_put_u32(h, NFTA_SET_DATA_TYPE, htonl(sets[set].data_type));
			mnl_attr_put_u32(h, NFTA_SET_DATA_LEN, htonl(sets[set].data_len));
		}
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

static void put_element(struct flat_nft_batch *b, const struct element *e, bool add)
{
	const struct flat_nft_chain *table = &flat_nft_chains[FLAT_NFT_PORTS];
	struct nlmsghdr *h = flat_nft_put_header(b, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
						 table, add ? NLM_F_CREATE | NLM_F_EXCL : 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table->table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, sets[e->set].name);
	struct nlattr *all = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
	struct nlattr *one = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
	put_value(h, NFTA_SET_ELEM_KEY, e->key, sets[e->set].key_len);
	if (is_map(e->set))
		put_value(h, NFTA_SET_ELEM_DATA, e->data, sets[e->set].data_len);
	if (add) {
		uint8_t user[2 + COMMENT_BYTES] = { NFTNL_UDATA_SET_ELEM_COMMENT };
		const size_t len = strlen(e->comment) + 1;
		user[1] = (uint8_t)len;
		memcpy(user + 2, e->comment, len);
		mnl_attr_put(h, NFTA_SET_ELEM_USERDATA, 2 + len, user);
	}
	mnl_attr_nest_end(h, one);
	mnl_attr_nest_end(h, all);
	flat_nft_put_end(b, h);
}

/* Chains, sets and rules where they are not as wanted. */
static void put_chains(struct flat_nft_batch *b, const struct flat_nft_view *view,
		       const struct flat_nl_list *old)
{
	flat_nft_put_table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	for (int p = FLAT_NFT_PORTS; p <= FLAT_NFT_PORTS_GUARD; p++)
		flat_nft_put_chain(b, (enum flat_nft_place)p);
	for (int set = 0; set < SETS; set++)
		put_set(b, (enum set)set, NFT_MSG_NEWSET, NLM_F_CREATE);
	for (size_t i = 0; i < old->count; i++) {
		const struct flat_nft_old *rule = (const struct flat_nft_old *)old->items + i;
		if (view->differs[rule->place])
			flat_nft_put_old(b, rule);
	}
	for (size_t i = 0; i < view->rules->count; i++)
		if (view->differs[view->rules->rules[i].place])
			flat_nft_put_rule(b, flat_nft_rule(view->rules, i), NLM_F_APPEND);
}

static void put_chain_removal(struct flat_nft_batch *b, enum flat_nft_place place)
{
	const struct flat_nft_chain *chain = &flat_nft_chains[place];
	struct nlmsghdr *h = flat_nft_put_header(b, NFT_MSG_DELCHAIN, chain, 0);
	if (!h)
		return;
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, chain->table);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, chain->chain);
	flat_nft_put_end(b, h);
}

/* The whole table, where there is nothing else in it. */
static void put_removal(struct flat_nft_batch *b, const struct flat_nft_view *view)
{
	if (!view->others) {
		flat_nft_put_table(b, NFT_MSG_DELTABLE, 0);
		return;
	}
	/* who jumps goes before where he jumps to */
	for (int p = FLAT_NFT_PORTS_GUARD; p >= FLAT_NFT_PORTS; p--)
		put_chain_removal(b, (enum flat_nft_place)p);
	for (int set = 0; set < SETS; set++)
		put_set(b, (enum set)set, NFT_MSG_DELSET, 0);
}

/* ---- changes -----------------------------------------------------------------------------------
 */

/* One change, as often as it is tried. */
struct change {
	const struct flat_ports *want; /* NULL: nothing is to come */
	const char *owner;	       /* whose elements go; NULL: of all whose link is gone */
	bool unmake;
	struct flat_nft_rules rules; /* of the chains; count 0: not looked at */

	struct flat_nft_view view;
	struct flat_nl_list old, have, fresh;
	bool chains_differ, last;
	size_t dropped;
};

static void close_change(struct change *c)
{
	flat_nft_rules_free(&c->rules);
	flat_nl_list_free(&c->old);
	flat_nl_list_free(&c->have);
	flat_nl_list_free(&c->fresh);
}
#define flat_auto_change __attribute__((cleanup(close_change))) struct change

static void drop(struct change *c, struct element *e)
{
	c->dropped += !e->drop;
	e->drop = true;
}

/* All that an owner who is gone has left. */
static void drop_owner(struct change *c, const struct element *of)
{
	char owner[FLAT_IFNAME_LEN];
	const bool named = owner_of(of, owner);
	for (size_t i = 0; i < c->have.count; i++) {
		struct element *e = (struct element *)c->have.items + i;
		if (e == of || (named && is_owned_by(e, owner)))
			drop(c, e);
	}
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "sctp";
}

static int in_use(const struct element *taken, struct flat_err *err)
{
	const struct flat_port port = port_of(taken);
	char owner[FLAT_IFNAME_LEN] = "", pod[FLAT_IP_TEXT], host[FLAT_IP_TEXT];
	const char *label = taken->comment;
	if (owner_of(taken, owner))
		label += strlen("flatnet ") + strlen(owner);
	label += *label == ' ';
	flat_fail(err, FLAT_CODE_IN_USE, 0, "host port %u/%s%s%s is taken by %s", port.port,
		  protocol_name(port.protocol), is_any(&port.host) ? "" : " of address ",
		  is_any(&port.host) ? "" : flat_ip_text(&port.host, host),
		  *label ? label : "an element without a name");
	flat_detail(err,
		    "it leads to port %u of %s (link '%s'): delete that pod, or choose another "
		    "hostPort or hostIP",
		    port.pod_port, flat_ip_text(&port.pod, pod), owner[0] ? owner : "?");
	return -EADDRINUSE;
}

/* As bind(2) has it: any address and one of them are the same port. */
static bool collide(const struct flat_port *a, const struct flat_port *b)
{
	return a->protocol == b->protocol && a->port == b->port &&
	       a->host.family == b->host.family &&
	       (is_any(&a->host) || is_any(&b->host) || flat_ip_equal(&a->host, &b->host));
}

static int make_way_for(struct change *c, const struct element *fresh, struct flat_err *err)
{
	const struct flat_ip pod = pod_of(fresh);
	const struct flat_port port = is_map(fresh->set) ? port_of(fresh) : (struct flat_port){ 0 };
	for (size_t i = 0; i < c->have.count; i++) {
		struct element *e = (struct element *)c->have.items + i;
		const struct flat_ip other = pod_of(e);
		const struct flat_port taken =
			is_map(e->set) ? port_of(e) : (struct flat_port){ 0 };
		const bool clash = is_map(fresh->set) && is_map(e->set) && collide(&port, &taken);
		if (e->drop || !pod.family || (!clash && !flat_ip_equal(&pod, &other)))
			continue;
		if (!has_living_owner(e))
			drop_owner(c, e);
		else if (clash)
			return in_use(e, err);
		else if (same_key(e, fresh))
			drop(c, e);
	}
	return 0;
}

/* Looks, and decides. 1: there is something to write. */
static int decide(struct flat_net *net, struct change *c, struct flat_err *err)
{
	int r = read_elements(net, &c->have, err);
	c->dropped = 0;
	c->old.count = 0;
	c->chains_differ = c->last = false;
	if (r >= 0 && c->rules.count) {
		r = flat_nft_look(net, &c->rules, &c->view, &c->old, err);
		c->chains_differ = r == 0;
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < c->have.count; i++) {
		struct element *e = (struct element *)c->have.items + i;
		if (c->owner ? is_owned_by(e, c->owner) : !has_living_owner(e))
			drop(c, e);
	}
	for (size_t i = 0; i < c->fresh.count; i++) {
		struct element *fresh = (struct element *)c->fresh.items + i;
		fresh->drop = false;
		r = make_way_for(c, fresh, err);
		if (r < 0)
			return r;
		for (size_t k = 0; fresh->set == BRIDGES && k < c->have.count; k++)
			fresh->drop = fresh->drop || same_key(fresh, element_at(&c->have, k));
	}
	c->last = c->unmake && c->old.count > 0;
	for (size_t i = 0; i < c->have.count && c->last; i++)
		c->last = element_at(&c->have, i)->drop || element_at(&c->have, i)->set == BRIDGES;
	return c->want || c->dropped || c->last;
}

static void put_change(struct flat_nft_batch *b, const struct change *c, uint32_t generation)
{
	flat_nft_put_marker(b, true, generation);
	if (c->last) {
		put_removal(b, &c->view);
		flat_nft_put_marker(b, false, 0);
		return;
	}
	if (c->want && c->chains_differ)
		put_chains(b, &c->view, &c->old);
	for (size_t i = 0; i < c->have.count; i++)
		if (element_at(&c->have, i)->drop)
			put_element(b, element_at(&c->have, i), false);
	for (size_t i = 0; i < c->fresh.count; i++)
		if (!element_at(&c->fresh, i)->drop)
			put_element(b, element_at(&c->fresh, i), true);
	flat_nft_put_marker(b, false, 0);
}

static int refused(struct flat_err *err, int r, const char *text)
{
	flat_fail(err, r == -ERESTART ? FLAT_CODE_TRY_LATER : FLAT_CODE_NETWORK, -r,
		  "write the host ports to nf_tables");
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
		flat_detail(err, "the kernel lacks a part of nf_tables: load the modules "
				 "nft_chain_nat, nft_nat, nft_masq, nft_fib_inet and nft_ct");
	return flat_nft_advise(err, r);
}

/* 1: written, 0: there was nothing to write. */
static int carry_out(struct flat_net *net, struct change *c, struct flat_err *err)
{
	char text[256] = "";
	int r = 0;
	for (int attempt = 0; attempt < FLAT_NFT_TRIES; attempt++) {
		struct flat_nft_batch batch = { .net = net };
		uint32_t generation = 0, seq = 0;
		if (attempt)
			flat_nft_pause(attempt);
		r = flat_nft_generation(net, &generation, err);
		if (r >= 0)
			r = decide(net, c, err);
		if (r <= 0)
			return r;
		put_change(&batch, c, generation);
		if (batch.failed)
			r = flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "host ports");
		else
			r = flat_nl_transact(net, batch.buf, batch.used, &seq, text, sizeof text,
					     err);
		free(batch.buf);
		if (r == 0)
			return 1;
		if (!seq)
			return r;
		if (r != -ERESTART)
			break;
	}
	return refused(err, r, text);
}

/* The pods of what was written, and the ports, have a past. */
static void forget(struct flat_net *net, const struct change *c, const struct flat_log *log)
{
	const struct flat_nl_list *lists[] = { &c->have, &c->fresh };
	struct flat_err e = { 0 };
	struct flat_ip pods[MOST_PODS];
	size_t count = 0;
	for (size_t l = 0; l < FLAT_LEN(lists); l++) {
		for (size_t i = 0; i < lists[l]->count && count < MOST_PODS; i++) {
			const struct element *item = element_at(lists[l], i);
			const struct flat_ip pod = pod_of(item);
			bool known = !pod.family || (lists[l] == &c->have && !item->drop);
			for (size_t k = 0; k < count && !known; k++)
				known = flat_ip_equal(&pods[k], &pod);
			if (!known)
				pods[count++] = pod;
		}
	}
	if (flat_conntrack_forget(net, pods, count, c->want ? c->want->items : NULL,
				  c->want ? c->want->count : 0, &e) < 0)
		flat_warn(log, "%s: old connections may go astray", e.msg);
}

int flat_ports_ensure(const struct flat_ports *want, bool *ret_made, const struct flat_log *log,
		      struct flat_err *err)
{
	flat_auto_net *net = NULL;
	flat_auto_change c = { .want = want, .owner = want->owner };
	int r = build_chains(&c.rules, err);
	if (r >= 0)
		r = want_elements(want, &c.fresh, err);
	if (r >= 0)
		r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r >= 0)
		r = carry_out(net, &c, err);
	if (r < 0)
		return r;
	*ret_made = c.chains_differ;
	forget(net, &c, log);
	return 0;
}

static int remove_ports(struct change *c, struct flat_net **ret_net, const struct flat_log *log,
			struct flat_err *err)
{
	flat_auto_net *net = NULL;
	struct flat_err e = { 0 };
	int r = flat_nl_open(NETLINK_NETFILTER, &net, &e);
	if (r == -EPROTONOSUPPORT)
		return 0;
	if (r >= 0)
		r = may_have_ports(net, &e);
	if (r > 0)
		r = carry_out(net, c, &e);
	if (r < 0 && err)
		*err = e;
	if (r > 0 && c->dropped)
		forget(net, c, log);
	if (ret_net) {
		*ret_net = net;
		net = NULL;
	}
	return r > 0 ? (int)c->dropped : r;
}

int flat_ports_remove(const char *owner, bool unmake, struct flat_net **ret_net,
		      const struct flat_log *log, struct flat_err *err)
{
	flat_auto_change c = { .owner = owner, .unmake = unmake };
	int r = unmake ? build_chains(&c.rules, err) : 0;
	return r < 0 ? r : remove_ports(&c, ret_net, log, err);
}

int flat_ports_sweep(const struct flat_log *log, struct flat_err *err)
{
	flat_auto_change c = { 0 };
	return remove_ports(&c, NULL, log, err);
}

int flat_ports_verify(const struct flat_ports *want, char ret_what[static FLAT_PORTS_WHAT],
		      struct flat_err *err)
{
	flat_auto_net *net = NULL;
	flat_auto_change c = { .want = want };
	int r = build_chains(&c.rules, err);
	if (r >= 0)
		r = want_elements(want, &c.fresh, err);
	if (r >= 0)
		r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r >= 0)
		r = flat_nft_look(net, &c.rules, &c.view, &c.old, err);
	if (r == 0) {
		snprintf(ret_what, FLAT_PORTS_WHAT,
			 "the chains of host ports in table 'inet flatnet' are missing or changed");
		return 0;
	}
	if (r > 0)
		r = read_elements(net, &c.have, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < c.fresh.count; i++) {
		const struct element *e = element_at(&c.fresh, i), *found = NULL;
		for (size_t k = 0; k < c.have.count && !found; k++) {
			const struct element *other = element_at(&c.have, k);
			if (same_key(e, other) && !memcmp(e->data, other->data, DATA_BYTES) &&
			    (e->set == BRIDGES || is_owned_by(other, want->owner)))
				found = other;
		}
		if (found)
			continue;
		const struct flat_port port = is_map(e->set) ? port_of(e) : (struct flat_port){ 0 };
		if (is_map(e->set))
			snprintf(ret_what, FLAT_PORTS_WHAT,
				 "host port %u/%s does not lead to the pod: its element of map "
				 "'%s' is missing or another's",
				 port.port, protocol_name(port.protocol), sets[e->set].name);
		else
			snprintf(ret_what, FLAT_PORTS_WHAT,
				 "an element of set '%s' is missing or another's",
				 sets[e->set].name);
		return 0;
	}
	return 1;
}
