// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#ifndef RTEXT_FILTER_SKIP_STATS
#define RTEXT_FILTER_SKIP_STATS (1 << 3)
#endif

/* ---- reading -----------------------------------------------------------------------------------
 */

/* A bit for each of these addresses, but pause frames, which no bridge may pass on. */
enum { BRIDGE_RESERVED = 0xfffd };

static const struct nla_policy link_policy[IFLA_MAX + 1] = {
	[IFLA_MASTER] = { .type = NLA_U32 },	   [IFLA_LINK] = { .type = NLA_U32 },
	[IFLA_MTU] = { .type = NLA_U32 },	   [IFLA_LINKINFO] = { .type = NLA_NESTED },
	[IFLA_LINK_NETNSID] = { .type = NLA_U32 }, [IFLA_TXQLEN] = { .type = NLA_U32 },
};
static const struct nla_policy port_policy[IFLA_BRPORT_MAX + 1] = {
	[IFLA_BRPORT_STATE] = { .type = NLA_U8 },
	[IFLA_BRPORT_MODE] = { .type = NLA_U8 },
	[IFLA_BRPORT_ISOLATED] = { .type = NLA_U8 },
	[IFLA_BRPORT_GROUP_FWD_MASK] = { .type = NLA_U16 },
};
static const struct nla_policy bridge_policy[IFLA_BR_MAX + 1] = {
	[IFLA_BR_VLAN_FILTERING] = { .type = NLA_U8 },
};

static bool get_flag(const struct nlattr *attr)
{
	return attr && nla_get_u8(attr);
}

static int parse_info(struct nlattr *linkinfo, struct flat_link *link)
{
	struct nlattr *info[IFLA_INFO_MAX + 1], *port[IFLA_BRPORT_MAX + 1], *br[IFLA_BR_MAX + 1];
	char master_kind[sizeof link->kind];
	if (nla_parse_nested(info, IFLA_INFO_MAX, linkinfo, NULL) < 0)
		return -EBADMSG;
	flat_nl_text(info[IFLA_INFO_KIND], link->kind, sizeof link->kind);
	flat_nl_text(info[IFLA_INFO_SLAVE_KIND], master_kind, sizeof master_kind);
	if (!strcmp(link->kind, "bridge") && info[IFLA_INFO_DATA]) {
		if (nla_parse_nested(br, IFLA_BR_MAX, info[IFLA_INFO_DATA], bridge_policy) < 0)
			return -EBADMSG;
		link->vlan_filtering = get_flag(br[IFLA_BR_VLAN_FILTERING]);
	}
	if (!strcmp(link->kind, "vxlan") && info[IFLA_INFO_DATA] &&
	    flat_vxlan_parse(info[IFLA_INFO_DATA], &link->vxlan) < 0)
		return -EBADMSG;
	if (!strcmp(master_kind, "bridge") && info[IFLA_INFO_SLAVE_DATA]) {
		struct nlattr *data = info[IFLA_INFO_SLAVE_DATA];
		if (nla_parse_nested(port, IFLA_BRPORT_MAX, data, port_policy) < 0)
			return -EBADMSG;
		link->port.present = true;
		link->port.hairpin = get_flag(port[IFLA_BRPORT_MODE]);
		link->port.isolated = get_flag(port[IFLA_BRPORT_ISOLATED]);
		link->port.bridges_reserved =
			port[IFLA_BRPORT_GROUP_FWD_MASK] &&
			nla_get_u16(port[IFLA_BRPORT_GROUP_FWD_MASK]) == BRIDGE_RESERVED;
		if (port[IFLA_BRPORT_STATE])
			link->port.state = nla_get_u8(port[IFLA_BRPORT_STATE]);
	}
	return 0;
}

int flat_link_parse(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[IFLA_MAX + 1];
	struct flat_link *link = elem;
	(void)arg;
	if (h->nlmsg_type != RTM_NEWLINK && h->nlmsg_type != RTM_DELLINK)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct ifinfomsg), tb, IFLA_MAX, link_policy) <
	    0)
		return -EBADMSG;
	const struct ifinfomsg *info = nlmsg_data(h);
	*link = (struct flat_link){
		.index = info->ifi_index,
		.up = info->ifi_flags & IFF_UP,
		.running = info->ifi_flags & IFF_RUNNING,
		.loopback = info->ifi_flags & IFF_LOOPBACK,
		.promisc = info->ifi_flags & IFF_PROMISC,
		.allmulti = info->ifi_flags & IFF_ALLMULTI,
		.master = tb[IFLA_MASTER] ? (int)nla_get_u32(tb[IFLA_MASTER]) : 0,
		.peer_index = tb[IFLA_LINK] ? (int)nla_get_u32(tb[IFLA_LINK]) : 0,
		.peer_nsid = tb[IFLA_LINK_NETNSID] ? (int)nla_get_u32(tb[IFLA_LINK_NETNSID]) : -1,
		.mtu = tb[IFLA_MTU] ? nla_get_u32(tb[IFLA_MTU]) : 0,
		.tx_queue_len = tb[IFLA_TXQLEN] ? nla_get_u32(tb[IFLA_TXQLEN]) : 0,
	};
	flat_nl_text(tb[IFLA_IFNAME], link->name, sizeof link->name);
	flat_nl_text(tb[IFLA_IFALIAS], link->alias, sizeof link->alias);
	if (tb[IFLA_ADDRESS] && nla_len(tb[IFLA_ADDRESS]) == sizeof link->mac.bytes) {
		memcpy(link->mac.bytes, nla_data(tb[IFLA_ADDRESS]), sizeof link->mac.bytes);
		link->has_mac = true;
	}
	int r = tb[IFLA_LINKINFO] ? parse_info(tb[IFLA_LINKINFO], link) : 0;
	return r < 0 ? r : 1;
}

static void begin_get(struct flat_nl_builder *b, int index)
{
	const struct ifinfomsg info = { .ifi_family = AF_UNSPEC, .ifi_index = index };
	flat_nl_begin(b, RTM_GETLINK, 0, &info, sizeof info);
	/* statistics are most of the answer, and nothing here reads them */
	flat_nl_put_u32(b, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

int flat_link_by_name(struct flat_net *net, const char *name, struct flat_link *ret_link,
		      struct flat_err *err)
{
	if (!*name || strlen(name) >= FLAT_IFNAME_LEN) /* no link can have it */
		return 0;
	flat_auto_builder b;
	begin_get(&b, 0);
	flat_nl_put_text(&b, IFLA_IFNAME, name);
	return flat_nl_ask(net, flat_nl_message(&b), FLAT_GONE_OK, flat_link_parse, ret_link, NULL,
			   err, "look up link '%s'", name);
}

int flat_link_find_index(struct flat_net *net, const char *name, int *ret_index,
			 struct flat_err *err)
{
	struct ifreq request = { 0 };
	if (!*name || strlen(name) >= sizeof request.ifr_name)
		return 0;
	strcpy(request.ifr_name, name);
	/* any socket of the namespace will do */
	if (ioctl(flat_nl_fd(net), SIOCGIFINDEX, &request) < 0) {
		if (errno == ENODEV)
			return 0;
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "look up link '%s'", name);
	}
	*ret_index = request.ifr_ifindex;
	return 1;
}

int flat_link_by_index(struct flat_net *net, int index, struct flat_link *ret_link,
		       struct flat_err *err)
{
	if (index <= 0)
		return 0;
	flat_auto_builder b;
	begin_get(&b, index);
	return flat_nl_ask(net, flat_nl_message(&b), FLAT_GONE_OK, flat_link_parse, ret_link, NULL,
			   err, "look up link %d", index);
}

int flat_link_each(struct flat_net *net, const char *kind, int master,
		   int (*fn)(void *arg, const struct flat_link *link), void *arg,
		   struct flat_err *err)
{
	flat_auto_builder b;
	flat_auto_list list = { 0 };
	begin_get(&b, 0);
	if (master)
		flat_nl_put_u32(&b, IFLA_MASTER, (uint32_t)master);
	if (kind) {
		flat_nl_nest(&b, IFLA_LINKINFO, NULL, 0);
		flat_nl_put_text(&b, IFLA_INFO_KIND, kind);
		flat_nl_nest_end(&b);
	}
	int r = flat_nl_dump(net, flat_nl_message(&b), 0, flat_link_parse, sizeof(struct flat_link),
			     NULL, NULL, &list, err, "list links");
	const struct flat_link *links = (const struct flat_link *)list.items;
	for (size_t i = 0; r >= 0 && i < list.count; i++) {
		/* older kernels, and those that do not know the kind, filter nothing */
		if ((!kind || !strcmp(links[i].kind, kind)) &&
		    (!master || links[i].master == master))
			r = fn(arg, &links[i]);
	}
	return r < 0 ? r : 0;
}

/* ---- changing ----------------------------------------------------------------------------------
 */

static void put_mtu(struct flat_nl_builder *b, uint32_t mtu)
{
	if (mtu)
		flat_nl_put_u32(b, IFLA_MTU, mtu);
}

void flat_link_add_bridge(struct flat_net *net, const char *name, const struct flat_mac *mac,
			  uint32_t mtu, bool vlan_filtering, enum flat_accept accept)
{
	const struct ifinfomsg info = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info, sizeof info);
	flat_nl_put_text(&b, IFLA_IFNAME, name);
	flat_nl_put(&b, IFLA_ADDRESS, mac->bytes, sizeof mac->bytes);
	put_mtu(&b, mtu);
	flat_nl_nest(&b, IFLA_LINKINFO, NULL, 0);
	flat_nl_put_text(&b, IFLA_INFO_KIND, "bridge");
	flat_nl_nest(&b, IFLA_INFO_DATA, NULL, 0);
	/* Without a querier on the bridge the kernel floods multicast whether it snoops or not; but
	 * snooping, it sets two timers of each port anew whenever a port comes up
	 * (br_multicast_enable_port() in net/bridge/br_multicast.c). */
	flat_nl_put_u8(&b, IFLA_BR_MCAST_SNOOPING, 0);
	if (vlan_filtering)
		flat_nl_put_u8(&b, IFLA_BR_VLAN_FILTERING, 1);
	flat_nl_nest_end(&b);
	flat_nl_nest_end(&b);
	flat_nl_queue(net, &b, accept, "add bridge '%s'", name);
}

/* Unless told a number, veth makes as many queues as the machine may have CPUs, then takes all but
 * one out of use again, and waits for RCU on the way (veth_newlink() since Linux 5.14). */
static void put_one_queue(struct flat_nl_builder *b)
{
	flat_nl_put_u32(b, IFLA_NUM_TX_QUEUES, 1);
	flat_nl_put_u32(b, IFLA_NUM_RX_QUEUES, 1);
}

void flat_link_add_veth(struct flat_net *net, const struct flat_veth *veth)
{
	const unsigned flags =
		(veth->pod_promisc ? IFF_PROMISC : 0) | (veth->pod_allmulti ? IFF_ALLMULTI : 0);
	const struct ifinfomsg host = { 0 }, pod = { .ifi_flags = flags, .ifi_change = flags };
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &host, sizeof host);
	flat_nl_put_text(&b, IFLA_IFNAME, veth->host_name);
	flat_nl_put(&b, IFLA_ADDRESS, veth->host_mac.bytes, sizeof veth->host_mac.bytes);
	put_mtu(&b, veth->mtu);
	put_one_queue(&b);
	if (veth->master)
		flat_nl_put_u32(&b, IFLA_MASTER, (uint32_t)veth->master);
	flat_nl_nest(&b, IFLA_LINKINFO, NULL, 0);
	flat_nl_put_text(&b, IFLA_INFO_KIND, "veth");
	flat_nl_nest(&b, IFLA_INFO_DATA, NULL, 0);
	flat_nl_nest(&b, VETH_INFO_PEER, &pod, sizeof pod);
	flat_nl_put_text(&b, IFLA_IFNAME, veth->pod_name);
	flat_nl_put(&b, IFLA_ADDRESS, veth->pod_mac.bytes, sizeof veth->pod_mac.bytes);
	put_mtu(&b, veth->pod_mtu ? veth->pod_mtu : veth->mtu);
	if (veth->pod_tx_queue_len)
		flat_nl_put_u32(&b, IFLA_TXQLEN, *veth->pod_tx_queue_len);
	if (veth->netns_fd >= 0)
		flat_nl_put_u32(&b, IFLA_NET_NS_FD, (uint32_t)veth->netns_fd);
	flat_nl_nest_end(&b);
	flat_nl_nest_end(&b);
	flat_nl_nest_end(&b);
	flat_nl_queue(net, &b, FLAT_STRICT, "add veth '%s' with peer '%s'", veth->host_name,
		      veth->pod_name);
}

/* Without NLM_F_CREATE. RTM_NEWLINK, because RTM_SETLINK ignores a bridge port's own settings. */
static void begin_change(struct flat_nl_builder *b, int index,
			 const struct flat_link_change *change)
{
	struct ifinfomsg info = { .ifi_index = index };
	if (change->up >= 0) {
		info.ifi_change |= IFF_UP;
		info.ifi_flags |= change->up ? IFF_UP : 0;
	}
	if (change->promisc >= 0) {
		info.ifi_change |= IFF_PROMISC;
		info.ifi_flags |= change->promisc ? IFF_PROMISC : 0;
	}
	if (change->allmulti >= 0) {
		info.ifi_change |= IFF_ALLMULTI;
		info.ifi_flags |= change->allmulti ? IFF_ALLMULTI : 0;
	}
	flat_nl_begin(b, RTM_NEWLINK, 0, &info, sizeof info);
}

static bool changes_port(const struct flat_link_change *change)
{
	return change->hairpin >= 0 || change->isolated >= 0 || change->bridges_reserved >= 0;
}

static void put_port(struct flat_nl_builder *b, const struct flat_link_change *change)
{
	if (!changes_port(change))
		return;
	flat_nl_nest(b, IFLA_LINKINFO, NULL, 0);
	flat_nl_put_text(b, IFLA_INFO_SLAVE_KIND, "bridge");
	flat_nl_nest(b, IFLA_INFO_SLAVE_DATA, NULL, 0);
	if (change->hairpin >= 0)
		flat_nl_put_u8(b, IFLA_BRPORT_MODE, change->hairpin != 0);
	if (change->isolated >= 0)
		flat_nl_put_u8(b, IFLA_BRPORT_ISOLATED, change->isolated != 0);
	if (change->bridges_reserved >= 0)
		flat_nl_put_u16(b, IFLA_BRPORT_GROUP_FWD_MASK,
				change->bridges_reserved ? BRIDGE_RESERVED : 0);
	flat_nl_nest_end(b);
	flat_nl_nest_end(b);
}

/* Below /proc/sys/net every namespace that was looked into leaves its entries in one hash chain: a
 * path there costs more with each pod. */
static void put_af_spec(struct flat_nl_builder *b, const struct flat_link_change *change)
{
	if (change->arp_notify < 0 && !change->no_ipv6ll)
		return;
	flat_nl_nest(b, IFLA_AF_SPEC, NULL, 0);
	if (change->arp_notify >= 0) {
		flat_nl_nest(b, AF_INET, NULL, 0);
		flat_nl_nest(b, IFLA_INET_CONF, NULL, 0);
		flat_nl_put_u32(b, IPV4_DEVCONF_ARP_NOTIFY, change->arp_notify != 0);
		flat_nl_nest_end(b);
		flat_nl_nest_end(b);
	}
	if (change->no_ipv6ll) {
		flat_nl_nest(b, AF_INET6, NULL, 0);
		flat_nl_put_u8(b, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
		flat_nl_nest_end(b);
	}
	flat_nl_nest_end(b);
}

void flat_link_change(struct flat_net *net, int index, const struct flat_link_change *change,
		      enum flat_accept accept)
{
	const struct flat_link_change nothing = FLAT_LINK_CHANGE;
	flat_auto_builder b;
	begin_change(&b, index, change);
	if (change->alias)
		flat_nl_put(&b, IFLA_IFALIAS, change->alias, strlen(change->alias));
	put_mtu(&b, change->mtu);
	put_af_spec(&b, change);
	if (change->mac)
		flat_nl_put(&b, IFLA_ADDRESS, change->mac->bytes, sizeof change->mac->bytes);
	if (change->tx_queue_len)
		flat_nl_put_u32(&b, IFLA_TXQLEN, *change->tx_queue_len);
	if (change->master >= 0) {
		/* the kernel looks at port settings first, so that they would meet the old master
		 */
		flat_nl_put_u32(&b, IFLA_MASTER, (uint32_t)change->master);
		flat_nl_queue(net, &b, accept, "%s link %d %s bridge",
			      change->master ? "add" : "take", index,
			      change->master ? "to its" : "off its");
		if (!changes_port(change))
			return;
		begin_change(&b, index, &nothing);
	}
	put_port(&b, change);
	flat_nl_queue(net, &b, accept, "change link %d", index);
}

static void queue_del(struct flat_net *net, int index, uint32_t group, enum flat_accept accept)
{
	const struct ifinfomsg info = { .ifi_index = index };
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_DELLINK, 0, &info, sizeof info);
	if (index) {
		flat_nl_queue(net, &b, accept, "delete link %d", index);
	} else {
		flat_nl_put_u32(&b, IFLA_GROUP, group);
		flat_nl_queue(net, &b, accept, "delete links of group %u", group);
	}
}

void flat_link_del(struct flat_net *net, int index, enum flat_accept accept)
{
	queue_del(net, index, 0, accept);
}

/* ---- deleting many -----------------------------------------------------------------------------
 * Deleting a veth takes 12 ms and more, nearly all of it waiting for RCU grace periods; the links
 * of a group are deleted in one go, and share them.
 */

struct member {
	int index;
	uint32_t group;
};

static int parse_member(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[IFLA_MAX + 1];
	struct member *member = elem;
	const uint32_t *group = arg;
	if (h->nlmsg_type != RTM_NEWLINK)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct ifinfomsg), tb, IFLA_MAX, NULL) < 0 ||
	    (tb[IFLA_GROUP] && nla_len(tb[IFLA_GROUP]) != sizeof(uint32_t)))
		return -EBADMSG;
	member->index = ((const struct ifinfomsg *)nlmsg_data(h))->ifi_index;
	member->group = tb[IFLA_GROUP] ? nla_get_u32(tb[IFLA_GROUP]) : 0;
	return member->group == *group;
}

static int compare_ints(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return (x > y) - (x < y);
}

/* 1: nobody but links of the sorted list is in the group. */
static int only_ours(struct flat_net *net, uint32_t group, const int *sorted, size_t count,
		     struct flat_err *err)
{
	flat_auto_builder b;
	flat_auto_list list = { 0 };
	begin_get(&b, 0);
	int r = flat_nl_dump(net, flat_nl_message(&b), 0, parse_member, sizeof(struct member),
			     &group, NULL, &list, err, "list links of group %u", group);
	if (r < 0)
		return r;
	const struct member *members = (const struct member *)list.items;
	for (size_t i = 0; i < list.count; i++) {
		if (!bsearch(&members[i].index, sorted, count, sizeof *sorted, compare_ints))
			return 0;
	}
	return 1;
}

static void queue_group(struct flat_net *net, const int *indices, size_t count, uint32_t group)
{
	for (size_t i = 0; i < count; i++) {
		const struct ifinfomsg info = { .ifi_index = indices[i] };
		flat_auto_builder b;
		flat_nl_begin(&b, RTM_SETLINK, 0, &info, sizeof info);
		flat_nl_put_u32(&b, IFLA_GROUP, group);
		flat_nl_queue(net, &b, FLAT_GONE_OK, "put link %d in group %u", indices[i], group);
	}
}

/* 1: they are gone; 0: it cannot be done this way. */
static int del_group(struct flat_net *net, const int *sorted, size_t count, struct flat_err *err)
{
	uint32_t group;
	if (getrandom(&group, sizeof group, 0) != sizeof group)
		return 0;
	/* A random number, far from those that people give; and looked at after our links are in,
	 * so that nobody else's can be deleted with them. */
	group |= 1U << 30;
	queue_group(net, sorted, count, group);
	int r = flat_net_commit(net, err);
	if (r == 0)
		r = only_ours(net, group, sorted, count, err);
	if (r < 0)
		return r;
	if (r == 1) {
		struct flat_err no = { 0 };
		queue_del(net, 0, group, FLAT_GONE_OK);
		r = flat_net_commit(net, &no);
		if (r == 0)
			return 1;
		/* one link of a kind that cannot be deleted protects all the others */
		if (r != -EOPNOTSUPP) {
			if (err && err->code == FLAT_CODE_NONE)
				*err = no;
			return r;
		}
	}
	queue_group(net, sorted, count, 0);
	return 0;
}

int flat_link_del_many(struct flat_net *net, const int *indices, size_t count, struct flat_err *err)
{
	int r = 0;
	if (count > 1) {
		int *sorted = malloc(count * sizeof *sorted);
		if (!sorted)
			return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "delete %zu links", count);
		memcpy(sorted, indices, count * sizeof *sorted);
		qsort(sorted, count, sizeof *sorted, compare_ints);
		r = del_group(net, sorted, count, err);
		free(sorted);
	}
	if (r != 0)
		return r < 0 ? r : 0;
	for (size_t i = 0; i < count; i++)
		queue_del(net, indices[i], 0, FLAT_GONE_OK);
	return flat_net_commit(net, err);
}
