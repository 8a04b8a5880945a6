// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netlink/addr.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <string.h>
#include <sys/socket.h>

static const struct nla_policy addr_policy[IFA_MAX + 1] = {
	[IFA_FLAGS] = { .type = NLA_U32 },
};

int flat_addr_parse(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[IFA_MAX + 1];
	struct flat_addr *addr = elem;
	(void)arg;
	if (h->nlmsg_type != RTM_NEWADDR && h->nlmsg_type != RTM_DELADDR)
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
	int r = flat_nl_dump(net, flat_nl_message(&b), 0, flat_addr_parse, sizeof(struct flat_addr),
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

/* ---- changing: libnl-route's objects say it in fewer words than attributes do ------------------
 */

static struct nl_addr *make_nl_addr(const struct flat_ip *ip, unsigned len)
{
	struct nl_addr *addr = nl_addr_build(ip->family, ip->bytes, flat_ip_size(ip));
	if (addr)
		nl_addr_set_prefixlen(addr, (int)len);
	return addr;
}

/* NULL: out of memory. */
static struct rtnl_addr *make_rtnl_addr(int index, const struct flat_prefix *address)
{
	struct rtnl_addr *out = rtnl_addr_alloc();
	struct nl_addr *local = make_nl_addr(&address->ip, address->len);
	if (out && local)
		rtnl_addr_set_ifindex(out, index);
	if (!out || !local || rtnl_addr_set_local(out, local) < 0) {
		rtnl_addr_put(out);
		out = NULL;
	}
	nl_addr_put(local);
	return out;
}

void flat_addr_add(struct flat_net *net, int index, const struct flat_prefix *address,
		   unsigned options, enum flat_accept accept)
{
	char text[FLAT_PREFIX_TEXT];
	flat_auto_builder b = { .failed = true };
	struct rtnl_addr *addr = make_rtnl_addr(index, address);
	struct nl_addr *broadcast = NULL;
	uint32_t flags = options & FLAT_ADDR_PREFIX_ROUTE ? 0 : IFA_F_NOPREFIXROUTE;
	if (address->ip.family == AF_INET6) {
		flags |= options & FLAT_ADDR_DAD ? 0 : IFA_F_NODAD;
	} else if (address->len < 31) { /* RFC 3021: a /31 has no broadcast address */
		struct flat_ip last = flat_prefix_last(address);
		broadcast = make_nl_addr(&last, 32);
	}
	if (addr) {
		rtnl_addr_set_flags(addr, flags);
		b.failed = (broadcast && rtnl_addr_set_broadcast(addr, broadcast) < 0) ||
			   rtnl_addr_build_add_request(addr, NLM_F_EXCL, &b.msg) < 0;
	}
	nl_addr_put(broadcast);
	rtnl_addr_put(addr);
	flat_nl_queue(net, &b, accept, "add address %s to link %d", flat_prefix_text(address, text),
		      index);
}

void flat_addr_del(struct flat_net *net, int index, const struct flat_prefix *address,
		   enum flat_accept accept)
{
	char text[FLAT_PREFIX_TEXT];
	flat_auto_builder b = { .failed = true };
	struct rtnl_addr *addr = make_rtnl_addr(index, address);
	if (addr)
		b.failed = rtnl_addr_build_delete_request(addr, 0, &b.msg) < 0;
	rtnl_addr_put(addr);
	flat_nl_queue(net, &b, accept, "delete address %s from link %d",
		      flat_prefix_text(address, text), index);
}
