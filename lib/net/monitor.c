// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation. Links and the like are told by one netlink protocol, rules by another: two
 * sockets, that only listen. The kernel waits for nobody: when a socket is full, it drops what it
 * has to tell until all that is there was read, and says so once (ENOBUFS; netlink_overrun() in
 * net/netlink/af_netlink.c). From then on there is no use in single events. What is there is thrown
 * away, and when nothing is left, so that whatever happens next is told again, the caller hears
 * that he has to look for himself.
 */
#include "nl.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
	RECEIVE_MEMORY = 1 << 20, /* a limit, not an allocation */
	DATAGRAM_BYTES = 16 << 10,
	/* In one call, of one socket. */
	DATAGRAMS = 256,
	EVENTS = 256,
};

struct ear {
	int fd, protocol;
	bool lost;
};

struct flat_monitor {
	unsigned kinds;
	size_t ear_count;
	struct ear ears[2];
	char buf[DATAGRAM_BYTES];
};

/* ---- opening -----------------------------------------------------------------------------------
 */

struct group {
	unsigned kinds;
	int protocol;
	int number;
};
static const struct group groups[] = {
	{ 1 << FLAT_EVENT_LINK, NETLINK_ROUTE, RTNLGRP_LINK },
	{ 1 << FLAT_EVENT_ADDR, NETLINK_ROUTE, RTNLGRP_IPV4_IFADDR },
	{ 1 << FLAT_EVENT_ADDR, NETLINK_ROUTE, RTNLGRP_IPV6_IFADDR },
	{ 1 << FLAT_EVENT_ROUTE, NETLINK_ROUTE, RTNLGRP_IPV4_ROUTE },
	{ 1 << FLAT_EVENT_ROUTE, NETLINK_ROUTE, RTNLGRP_IPV6_ROUTE },
	{ 1 << FLAT_EVENT_NEIGH, NETLINK_ROUTE, RTNLGRP_NEIGH },
	{ 1 << FLAT_EVENT_RULES, NETLINK_NETFILTER, NFNLGRP_NFTABLES },
};

static int open_ear(struct flat_monitor *monitor, int protocol, struct flat_err *err)
{
	const struct sockaddr_nl here = { .nl_family = AF_NETLINK };
	const char *what = protocol == NETLINK_ROUTE ? "links" : "rules";
	const int room = RECEIVE_MEMORY;
	flat_auto_fd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
	/* The groups come after: binding forgets them. And who has no address of his own looks like
	 * the kernel, which does not tell itself. */
	if (fd < 0 || bind(fd, (const struct sockaddr *)&here, sizeof here) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "listen to the kernel's %s", what);
	/* beyond net.core.rmem_max only with privileges over the namespace */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	for (size_t i = 0; i < FLAT_LEN(groups); i++) {
		const struct group *g = &groups[i];
		if (g->protocol == protocol && g->kinds & monitor->kinds &&
		    setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &g->number,
			       sizeof g->number) < 0)
			return flat_fail(err, FLAT_CODE_NETWORK, errno, "listen to the kernel's %s",
					 what);
	}
	monitor->ears[monitor->ear_count++] = (struct ear){ .fd = fd, .protocol = protocol };
	fd = -1;
	return 0;
}

int flat_monitor_open(unsigned kinds, struct flat_monitor **ret_monitor, struct flat_err *err)
{
	struct flat_monitor *monitor = calloc(1, sizeof *monitor);
	if (!monitor)
		return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "listen to the kernel");
	monitor->kinds = kinds;
	const unsigned rules = 1 << FLAT_EVENT_RULES;
	int r = kinds & ~rules ? open_ear(monitor, NETLINK_ROUTE, err) : 0;
	if (r == 0 && kinds & rules)
		r = open_ear(monitor, NETLINK_NETFILTER, err);
	if (r < 0)
		flat_monitor_close(monitor);
	else
		*ret_monitor = monitor;
	return r;
}

void flat_monitor_close(struct flat_monitor *monitor)
{
	if (!monitor)
		return;
	for (size_t i = 0; i < monitor->ear_count; i++)
		flat_close_fd(&monitor->ears[i].fd);
	free(monitor);
}

size_t flat_monitor_fds(const struct flat_monitor *monitor, int ret_fds[static 2])
{
	for (size_t i = 0; i < monitor->ear_count; i++)
		ret_fds[i] = monitor->ears[i].fd;
	return monitor->ear_count;
}

/* ---- understanding -----------------------------------------------------------------------------
 * As flat_nl_parse_fn: 1 = an event, 0 = nothing for us, negative errno = it makes no sense.
 */

static int parse_rules(const struct nlmsghdr *h, struct flat_event *event)
{
	struct nlattr *tb[NFTA_TABLE_NAME + 1];
	if (h->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES)
		return 0;
	/* the name of the table is the first attribute of all of them */
	_Static_assert((int)NFTA_TABLE_NAME == (int)NFTA_CHAIN_TABLE &&
			       (int)NFTA_TABLE_NAME == (int)NFTA_RULE_TABLE,
		       "nf_tables");
	switch (h->nlmsg_type & 0xff) {
	case NFT_MSG_DELTABLE:
	case NFT_MSG_DELCHAIN:
	case NFT_MSG_DELRULE:
		event->gone = true;
		break;
	case NFT_MSG_NEWTABLE:
	case NFT_MSG_NEWCHAIN:
	case NFT_MSG_NEWRULE:
		break;
	default: /* sets, and what they are made of: one for each Service */
		return 0;
	}
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, NFTA_TABLE_NAME, NULL) <
	    0)
		return -EBADMSG;
	event->kind = FLAT_EVENT_RULES;
	event->rules.family = ((const struct nfgenmsg *)nlmsg_data(h))->nfgen_family;
	flat_nl_text(tb[NFTA_TABLE_NAME], event->rules.table, sizeof event->rules.table);
	return 1;
}

static int parse_link(const struct nlmsghdr *h, struct flat_event *event)
{
	event->kind = FLAT_EVENT_LINK;
	event->gone = h->nlmsg_type == RTM_DELLINK;
	int r = flat_link_parse(h, &event->link, NULL);
	/* Of the family AF_BRIDGE they tell of a port: a link that leaves a bridge is not gone.
	 * Without a name they tell of a radio. */
	if (r > 0 && (((const struct ifinfomsg *)nlmsg_data(h))->ifi_family != AF_UNSPEC ||
		      !*event->link.name))
		return 0;
	return r;
}

static int parse_route(const struct nlmsghdr *h, struct flat_event *event)
{
	event->kind = FLAT_EVENT_ROUTE;
	event->gone = h->nlmsg_type == RTM_DELROUTE;
	int r = flat_route_parse(h, &event->route, NULL);
	if (r > 0 && (event->route.route.table != RT_TABLE_MAIN ||
		      ((const struct rtmsg *)nlmsg_data(h))->rtm_flags & RTM_F_CLONED))
		return 0;
	return r;
}

static int parse_neigh(const struct nlmsghdr *h, struct flat_event *event)
{
	event->kind = FLAT_EVENT_NEIGH;
	event->gone = h->nlmsg_type == RTM_DELNEIGH;
	int r = flat_neigh_parse(h, &event->neigh, NULL);
	if (r != 0)
		return r;
	event->fdb = true;
	return flat_fdb_parse(h, &event->entry, NULL);
}

static int parse(const struct nlmsghdr *h, int protocol, struct flat_event *event)
{
	*event = (struct flat_event){ 0 };
	if (protocol == NETLINK_NETFILTER)
		return parse_rules(h, event);
	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return parse_link(h, event);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		event->kind = FLAT_EVENT_ADDR;
		event->gone = h->nlmsg_type == RTM_DELADDR;
		return flat_addr_parse(h, &event->addr, NULL);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return parse_route(h, event);
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		return parse_neigh(h, event);
	default:
		return 0;
	}
}

/* ---- listening ---------------------------------------------------------------------------------
 */

typedef void event_fn(void *arg, const struct flat_event *event);

/* Tells the events of one datagram; returns how many. What makes no sense is as good as lost. */
static int tell(struct flat_monitor *monitor, struct ear *ear, int len, event_fn *fn, void *arg)
{
	struct flat_event event;
	int told = 0;
	for (struct nlmsghdr *h = (struct nlmsghdr *)monitor->buf; nlmsg_ok(h, len);
	     h = nlmsg_next(h, &len)) {
		int r = parse(h, ear->protocol, &event);
		if (r < 0)
			ear->lost = true;
		if (r <= 0)
			continue;
		fn(arg, &event);
		told++;
	}
	return told;
}

/* -EAGAIN: there is nothing more. */
static int hear(struct flat_monitor *monitor, struct ear *ear, event_fn *fn, void *arg)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { .iov_base = monitor->buf, .iov_len = sizeof monitor->buf };
	struct msghdr m = {
		.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1
	};
	ssize_t n = recvmsg(ear->fd, &m, 0);
	if (n < 0) {
		switch (errno) {
		case EINTR:
			return 0;
		case ENOBUFS: /* the others: the kernel could not make the message */
		case ENOMEM:
		case EMSGSIZE:
			ear->lost = true;
			return 0;
		default:
			return -errno;
		}
	}
	if (from.nl_pid != 0) /* anybody may send to us; only the kernel counts */
		return 0;
	if (m.msg_flags & MSG_TRUNC)
		ear->lost = true;
	return ear->lost ? 0 : tell(monitor, ear, (int)n, fn, arg);
}

int flat_monitor_read(struct flat_monitor *monitor,
		      void (*fn)(void *arg, const struct flat_event *event), void *arg,
		      struct flat_err *err)
{
	const struct flat_event lost = { .kind = FLAT_EVENT_LOST };
	bool tell_lost = false;
	int told = 0;
	for (size_t i = 0; i < monitor->ear_count; i++) {
		struct ear *ear = &monitor->ears[i];
		int r = 0;
		for (int n = 0, mine = 0; r >= 0 && n < DATAGRAMS && mine < EVENTS; n++) {
			r = hear(monitor, ear, fn, arg);
			mine += r > 0 ? r : 0;
			told += r > 0 ? r : 0;
		}
		if (r < 0 && r != -EAGAIN)
			return flat_fail(err, FLAT_CODE_NETWORK, -r, "listen to the kernel");
		if (r == -EAGAIN && ear->lost) {
			ear->lost = false;
			tell_lost = true;
		}
	}
	if (tell_lost) {
		fn(arg, &lost);
		told++;
	}
	return told;
}
