// SPDX-License-Identifier: Apache-2.0
/*
 * Neighbours (which MAC has this address) and the forwarding entries of VXLAN devices (which host
 * has this MAC). To rtnetlink the latter are neighbours, too, of the family AF_BRIDGE.
 */
#include "nl.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <string.h>
#include <sys/socket.h>

/* ---- reading -----------------------------------------------------------------------------------
 */

/* 1: a neighbour message, *ret_header and tb are filled; 0: another message. */
static int parse(const struct nlmsghdr *h, struct ndmsg *ret_header, struct nlattr **tb)
{
	if (h->nlmsg_type != RTM_NEWNEIGH && h->nlmsg_type != RTM_DELNEIGH)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof *ret_header, tb, NDA_MAX, NULL) < 0)
		return -EBADMSG;
	memcpy(ret_header, nlmsg_data(h), sizeof *ret_header);
	return 1;
}

static bool get_mac(const struct nlattr *attr, struct flat_mac *ret_mac)
{
	if (!attr || nla_len(attr) != sizeof ret_mac->bytes)
		return false;
	memcpy(ret_mac->bytes, nla_data(attr), sizeof ret_mac->bytes);
	return true;
}

int flat_neigh_parse(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NDA_MAX + 1];
	struct ndmsg header;
	struct flat_neigh *neigh = elem;
	(void)arg;
	int r = parse(h, &header, tb);
	if (r <= 0 || (header.ndm_family != AF_INET && header.ndm_family != AF_INET6))
		return r < 0 ? r : 0;
	*neigh = (struct flat_neigh){
		.index = header.ndm_ifindex,
		.state = header.ndm_state,
		.flags = header.ndm_flags,
	};
	neigh->has_mac = get_mac(tb[NDA_LLADDR], &neigh->mac);
	return flat_nl_ip(tb[NDA_DST], header.ndm_family, &neigh->ip) ? 1 : -EBADMSG;
}

int flat_fdb_parse(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NDA_MAX + 1];
	struct ndmsg header;
	struct flat_fdb *fdb = elem;
	(void)arg;
	int r = parse(h, &header, tb);
	/* what has a master is in the database of a bridge */
	if (r <= 0 || header.ndm_family != AF_BRIDGE || tb[NDA_MASTER])
		return r < 0 ? r : 0;
	*fdb = (struct flat_fdb){
		.index = header.ndm_ifindex,
		.state = header.ndm_state,
		.flags = header.ndm_flags,
	};
	/* told only where they are not as the device has them */
	if (tb[NDA_PORT] || tb[NDA_VNI] || tb[NDA_IFINDEX])
		return get_mac(tb[NDA_LLADDR], &fdb->mac);
	if (tb[NDA_DST] && !flat_nl_ip(tb[NDA_DST], AF_INET, &fdb->dst) &&
	    !flat_nl_ip(tb[NDA_DST], AF_INET6, &fdb->dst))
		return -EBADMSG;
	return get_mac(tb[NDA_LLADDR], &fdb->mac);
}

int flat_neigh_each(struct flat_net *net, int index, int family,
		    int (*fn)(void *arg, const struct flat_neigh *neigh), void *arg,
		    struct flat_err *err)
{
	const struct ndmsg header = { .ndm_family = (uint8_t)family };
	flat_auto_builder b;
	flat_auto_list list = { 0 };
	flat_nl_begin(&b, RTM_GETNEIGH, 0, &header, sizeof header);
	flat_nl_put_u32(&b, NDA_IFINDEX, (uint32_t)index);
	int r = flat_nl_dump(net, flat_nl_message(&b), FLAT_GONE_OK, flat_neigh_parse,
			     sizeof(struct flat_neigh), NULL, NULL, &list, err,
			     "list neighbours on link %d", index);
	const struct flat_neigh *neighs = (const struct flat_neigh *)list.items;
	for (size_t i = 0; r >= 0 && i < list.count; i++) {
		/* older kernels filter less */
		if (neighs[i].index == index && (!family || neighs[i].ip.family == family))
			r = fn(arg, &neighs[i]);
	}
	return r < 0 ? r : 0;
}

int flat_fdb_each(struct flat_net *net, int index, int (*fn)(void *arg, const struct flat_fdb *fdb),
		  void *arg, struct flat_err *err)
{
	const struct ndmsg header = { .ndm_family = AF_BRIDGE, .ndm_ifindex = index };
	flat_auto_builder b;
	flat_auto_list list = { 0 };
	flat_nl_begin(&b, RTM_GETNEIGH, 0, &header, sizeof header);
	int r = flat_nl_dump(net, flat_nl_message(&b), FLAT_GONE_OK, flat_fdb_parse,
			     sizeof(struct flat_fdb), NULL, NULL, &list, err,
			     "list forwarding entries of link %d", index);
	const struct flat_fdb *entries = (const struct flat_fdb *)list.items;
	for (size_t i = 0; r >= 0 && i < list.count; i++) {
		if (entries[i].index == index)
			r = fn(arg, &entries[i]);
	}
	return r < 0 ? r : 0;
}

/* ---- how many ----------------------------------------------------------------------------------
 */

struct tally {
	uint8_t family;
	uint32_t count, limit;
};

static int count_neigh(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct tally *tally = arg;
	(void)elem;
	if (h->nlmsg_type == RTM_NEWNEIGH && nlmsg_valid_hdr(h, sizeof(struct ndmsg)) &&
	    ((const struct ndmsg *)nlmsg_data(h))->ndm_family == tally->family)
		tally->count++;
	return 0; /* all of it is in arg */
}

static void forget_count(void *arg)
{
	((struct tally *)arg)->count = 0;
}

static int take_limit(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NDTA_MAX + 1];
	struct tally *tally = arg;
	(void)elem;
	if (h->nlmsg_type != RTM_NEWNEIGHTBL)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct ndtmsg), tb, NDTA_MAX, NULL) < 0 ||
	    (tb[NDTA_THRESH3] && nla_len(tb[NDTA_THRESH3]) != sizeof tally->limit))
		return -EBADMSG;
	/* one message tells of the table, the others of its links */
	if (((const struct ndtmsg *)nlmsg_data(h))->ndtm_family == tally->family &&
	    tb[NDTA_THRESH3])
		tally->limit = nla_get_u32(tb[NDTA_THRESH3]);
	return 0;
}

int flat_neigh_count(struct flat_net *net, int family, uint32_t *ret_count, uint32_t *ret_limit,
		     struct flat_err *err)
{
	const struct ndmsg header = { .ndm_family = (uint8_t)family };
	const struct ndtmsg table = { .ndtm_family = (uint8_t)family };
	struct tally tally = { .family = (uint8_t)family };
	const char version = family == AF_INET ? '4' : '6';
	flat_auto_builder b;
	flat_auto_list none = { 0 };
	flat_nl_begin(&b, RTM_GETNEIGH, 0, &header, sizeof header);
	int r = flat_nl_dump(net, flat_nl_message(&b), 0, count_neigh, 1, &tally, forget_count,
			     &none, err, "count IPv%c neighbours", version);
	if (r < 0)
		return r;
	/* The table counts for itself, too (ndtc_entries), but the entries of all namespaces. */
	flat_nl_drop(&b);
	flat_nl_begin(&b, RTM_GETNEIGHTBL, 0, &table, sizeof table);
	r = flat_nl_dump(net, flat_nl_message(&b), 0, take_limit, 1, &tally, NULL, &none, err,
			 "read the limit of IPv%c neighbours", version);
	if (r < 0)
		return r;
	if (!tally.limit)
		return flat_fail(err, FLAT_CODE_NETWORK, EAFNOSUPPORT,
				 "read the limit of IPv%c neighbours", version);
	*ret_count = tally.count;
	*ret_limit = tally.limit;
	return 0;
}

/* ---- changing ----------------------------------------------------------------------------------
 */

static void begin(struct flat_nl_builder *b, int type, int flags, int index, uint8_t family,
		  uint16_t state, const struct flat_ip *ip, const struct flat_mac *mac)
{
	const struct ndmsg header = {
		.ndm_family = family,
		.ndm_ifindex = index,
		.ndm_state = state,
		.ndm_flags = family == AF_BRIDGE ? NTF_SELF : 0,
	};
	flat_nl_begin(b, type, flags, &header, sizeof header);
	if (ip->family)
		flat_nl_put_ip(b, NDA_DST, ip);
	if (mac)
		flat_nl_put(b, NDA_LLADDR, mac->bytes, sizeof mac->bytes);
}

void flat_neigh_replace(struct flat_net *net, int index, const struct flat_ip *ip,
			const struct flat_mac *mac)
{
	char text[FLAT_IP_TEXT];
	flat_auto_builder b;
	begin(&b, RTM_NEWNEIGH, NLM_F_REPLACE, index, ip->family, NUD_REACHABLE, ip, mac);
	flat_nl_queue(net, &b, FLAT_GONE_OK, "correct neighbour %s on link %d",
		      flat_ip_text(ip, text), index);
}

void flat_neigh_set(struct flat_net *net, int index, const struct flat_ip *ip,
		    const struct flat_mac *mac)
{
	char text[FLAT_IP_TEXT];
	flat_auto_builder b;
	begin(&b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, ip->family, NUD_PERMANENT, ip,
	      mac);
	flat_nl_queue(net, &b, FLAT_STRICT, "set neighbour %s on link %d", flat_ip_text(ip, text),
		      index);
}

void flat_neigh_del(struct flat_net *net, int index, const struct flat_ip *ip,
		    enum flat_accept accept)
{
	char text[FLAT_IP_TEXT];
	flat_auto_builder b;
	begin(&b, RTM_DELNEIGH, 0, index, ip->family, 0, ip, NULL);
	flat_nl_queue(net, &b, accept, "delete neighbour %s on link %d", flat_ip_text(ip, text),
		      index);
}

void flat_fdb_set(struct flat_net *net, int index, const struct flat_mac *mac,
		  const struct flat_ip *dst)
{
	static const struct flat_mac zero;
	const struct flat_ip nowhere = { 0 };
	char text[FLAT_MAC_TEXT], host[FLAT_IP_TEXT];
	bool many = mac->bytes[0] & 1 || !memcmp(mac, &zero, sizeof zero);
	flat_auto_builder b;
	if (many) {
		/* Several hosts may have it, and the kernel replaces none of them. */
		begin(&b, RTM_DELNEIGH, 0, index, AF_BRIDGE, 0, &nowhere, mac);
		flat_nl_queue(net, &b, FLAT_GONE_OK, "delete forwarding entry %s on link %d",
			      flat_mac_text(mac, text), index);
	}
	begin(&b, RTM_NEWNEIGH, NLM_F_CREATE | (many ? NLM_F_APPEND : NLM_F_REPLACE), index,
	      AF_BRIDGE, NUD_PERMANENT, dst, mac);
	flat_nl_queue(net, &b, FLAT_STRICT, "set forwarding entry %s to %s on link %d",
		      flat_mac_text(mac, text), flat_ip_text(dst, host), index);
}

void flat_fdb_del(struct flat_net *net, int index, const struct flat_mac *mac,
		  const struct flat_ip *dst, enum flat_accept accept)
{
	char text[FLAT_MAC_TEXT], host[FLAT_IP_TEXT];
	flat_auto_builder b;
	begin(&b, RTM_DELNEIGH, 0, index, AF_BRIDGE, 0, dst, mac);
	flat_nl_queue(net, &b, accept, "delete forwarding entry %s to %s on link %d",
		      flat_mac_text(mac, text), flat_ip_text(dst, host), index);
}
