// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <string.h>

static const struct nla_policy addr_policy[IFA_MAX + 1] = {
	[IFA_FLAGS] = { .type = NLA_U32 },
};

static int parse_addr(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[IFA_MAX + 1];
	struct flat_addr *addr = elem;
	(void)arg;
	if (h->nlmsg_type != RTM_NEWADDR)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct ifaddrmsg), tb, IFA_MAX, addr_policy) <
	    0)
		return -EBADMSG;
	const struct ifaddrmsg *info = nlmsg_data(h);
	if (info->ifa_family != AF_INET && info->ifa_family != AF_INET6)
		return 0;
	addr->index = (int)info->ifa_index;
	addr->flags = tb[IFA_FLAGS] ? nla_get_u32(tb[IFA_FLAGS]) : info->ifa_flags;
	addr->address.len = info->ifa_prefixlen;
	/* IFA_ADDRESS is the other end's where there is one */
	if (!flat_nl_ip(tb[IFA_LOCAL] ? tb[IFA_LOCAL] : tb[IFA_ADDRESS], info->ifa_family,
			&addr->address.ip))
		return -EBADMSG;
	return 1;
}

int flat_addr_each(struct flat_net *net, int index, int family,
		   int (*fn)(void *arg, const struct flat_addr *addr), void *arg,
		   struct flat_err *err)
{
	const struct ifaddrmsg info = { .ifa_family = (uint8_t)family,
					.ifa_index = (uint32_t)index };
	flat_auto_builder b;
	flat_auto_list list = { 0 };
	flat_nl_begin(&b, RTM_GETADDR, 0, &info, sizeof info);
	int r = flat_nl_dump(net, flat_nl_message(&b), 0, parse_addr, sizeof(struct flat_addr),
			     NULL, NULL, &list, err, "list addresses of link %d", index);
	const struct flat_addr *addrs = (const struct flat_addr *)list.items;
	for (size_t i = 0; r >= 0 && i < list.count; i++) {
		/* a kernel without IPv6 answers with what it has */
		if ((!index || addrs[i].index == index) &&
		    (!family || addrs[i].address.ip.family == family))
			r = fn(arg, &addrs[i]);
	}
	return r < 0 ? r : 0;
}

static void begin_addr(struct flat_nl_builder *b, int type, int flags, int index,
		       const struct flat_prefix *address)
{
	const struct ifaddrmsg info = {
		.ifa_family = address->ip.family,
		.ifa_prefixlen = address->len,
		.ifa_index = (uint32_t)index,
	};
	flat_nl_begin(b, type, flags, &info, sizeof info);
	flat_nl_put_ip(b, IFA_LOCAL, &address->ip);
	flat_nl_put_ip(b, IFA_ADDRESS, &address->ip);
}

void flat_addr_add(struct flat_net *net, int index, const struct flat_prefix *address,
		   unsigned options, enum flat_accept accept)
{
	char text[FLAT_PREFIX_TEXT];
	flat_auto_builder b;
	begin_addr(&b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address);
	uint32_t flags = options & FLAT_ADDR_PREFIX_ROUTE ? 0 : IFA_F_NOPREFIXROUTE;
	if (address->ip.family == AF_INET6) {
		flags |= options & FLAT_ADDR_DAD ? 0 : IFA_F_NODAD;
	} else if (address->len < 31) { /* RFC 3021: a /31 has no broadcast address */
		struct flat_ip broadcast = flat_prefix_last(address);
		flat_nl_put_ip(&b, IFA_BROADCAST, &broadcast);
	}
	if (flags)
		flat_nl_put_u32(&b, IFA_FLAGS, flags);
	flat_nl_queue(net, &b, accept, "add address %s to link %d", flat_prefix_text(address, text),
		      index);
}

void flat_addr_del(struct flat_net *net, int index, const struct flat_prefix *address,
		   enum flat_accept accept)
{
	char text[FLAT_PREFIX_TEXT];
	flat_auto_builder b;
	begin_addr(&b, RTM_DELADDR, 0, index, address);
	flat_nl_queue(net, &b, accept, "delete address %s from link %d",
		      flat_prefix_text(address, text), index);
}

void flat_neigh_put(struct flat_net *net, int index, const struct flat_ip *ip,
		    const struct flat_mac *mac)
{
	const struct ndmsg info = {
		.ndm_family = ip->family,
		.ndm_ifindex = index,
		.ndm_state = NUD_REACHABLE,
	};
	char text[FLAT_IP_TEXT];
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &info, sizeof info);
	flat_nl_put_ip(&b, NDA_DST, ip);
	flat_nl_put(&b, NDA_LLADDR, mac->bytes, sizeof mac->bytes);
	flat_nl_queue(net, &b, FLAT_STRICT, "add neighbour %s on link %d", flat_ip_text(ip, text),
		      index);
}
