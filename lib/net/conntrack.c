// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation. Conntrack decides about a connection once, with its first packet. UDP and
 * SCTP know no end that it would see in time, so an entry that a client keeps alive by asking again
 * outlives the pod it leads to, or the lack of one.
 *
 * Of a pod, everything can go: the entries whose answers come from its address, and those that it
 * began. The kernel does that itself since it takes CTA_FILTER for a deletion (Linux 6.9); an older
 * one refuses, since half a tuple names no connection, and is asked for a list instead. Of a port
 * of the node only what was sent to the node goes: the same number is a port of other hosts, too,
 * and their connections, a pod's queries to a DNS server outside, say, pass through the same table.
 *
 * The list comes filtered from the kernel since Linux 5.8; before, it is whole. So each entry is
 * looked at here again.
 */
#include "conntrack.h"
#include "nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* CTA_FILTER_F_*: net/netfilter/nf_internals.h in the kernel */
	BY_SOURCE = 1 << 0,
	BY_DESTINATION = 1 << 1,
	BY_PROTOCOL = 1 << 3,
	BY_PORT = 1 << 5, /* destination */

	TUPLE_BYTES = 128,    /* two addresses, protocol, ports */
	MOST_ENTRIES = 16384, /* of one list; there is a time-out for the others */
	/* More pods, or pairs of port and address, than that: one list for all of them. A list
	 * costs 9 ms where the kernel's table has 262,144 slots and hardly an entry (Linux 6.18), a
	 * deletion a tenth of that. */
	MOST_QUESTIONS = 8,
	MOST_ADDRESSES = 1024,
};

struct tuple {
	struct flat_ip src, dst;
	uint8_t protocol;
	uint16_t dst_port; /* host byte order */
};

struct entry {
	uint8_t family, zone_len;
	uint16_t len;
	struct tuple orig;
	uint8_t tuple[TUPLE_BYTES]; /* as the kernel has it: what to delete */
	uint16_t zone;
};

/* What to look for, for those entries that the kernel did not pick by itself. */
struct hunt {
	const struct flat_ip *pods;
	size_t pod_count;
	const struct flat_port *ports;
	size_t port_count;
	size_t kept;
};

/* ---- requests ----------------------------------------------------------------------------------
 */

static void begin(struct flat_nl_builder *b, int type, int flags, int family)
{
	/* with version 0 a deletion takes no notice of the family */
	const struct nfgenmsg g = { .nfgen_family = (uint8_t)family, .version = 1 };
	flat_nl_begin(b, NFNL_SUBSYS_CTNETLINK << 8 | type, flags, &g, sizeof g);
}

static void put_filter(struct flat_nl_builder *b, uint32_t orig, uint32_t reply)
{
	flat_nl_nest(b, NLA_F_NESTED | CTA_FILTER, NULL, 0);
	flat_nl_put_u32(b, CTA_FILTER_ORIG_FLAGS, orig);
	flat_nl_put_u32(b, CTA_FILTER_REPLY_FLAGS, reply);
	flat_nl_nest_end(b);
}

static void put_source(struct flat_nl_builder *b, bool reply, const struct flat_ip *ip)
{
	flat_nl_nest(b, NLA_F_NESTED | (reply ? CTA_TUPLE_REPLY : CTA_TUPLE_ORIG), NULL, 0);
	flat_nl_nest(b, NLA_F_NESTED | CTA_TUPLE_IP, NULL, 0);
	flat_nl_put_ip(b, ip->family == AF_INET ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, ip);
	flat_nl_nest_end(b);
	flat_nl_nest_end(b);
	put_filter(b, reply ? 0 : BY_SOURCE, reply ? BY_SOURCE : 0);
}

/* What was sent there. dst NULL, port 0: any. */
static void put_service(struct flat_nl_builder *b, const struct flat_ip *dst, uint8_t protocol,
			uint16_t port)
{
	flat_nl_nest(b, NLA_F_NESTED | CTA_TUPLE_ORIG, NULL, 0);
	if (dst) {
		flat_nl_nest(b, NLA_F_NESTED | CTA_TUPLE_IP, NULL, 0);
		flat_nl_put_ip(b, dst->family == AF_INET ? CTA_IP_V4_DST : CTA_IP_V6_DST, dst);
		flat_nl_nest_end(b);
	}
	flat_nl_nest(b, NLA_F_NESTED | CTA_TUPLE_PROTO, NULL, 0);
	flat_nl_put_u8(b, CTA_PROTO_NUM, protocol);
	if (port)
		flat_nl_put_u16(b, CTA_PROTO_DST_PORT, htons(port));
	flat_nl_nest_end(b);
	flat_nl_nest_end(b);
	put_filter(b, BY_PROTOCOL | (dst ? BY_DESTINATION : 0) | (port ? BY_PORT : 0), 0);
}

static int parse_nothing(const struct nlmsghdr *h, void *elem, void *arg)
{
	(void)h;
	(void)elem;
	(void)arg;
	return 0;
}

static bool is_absent(int r)
{
	return r == -EINVAL || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT || r == -ENOENT;
}

/* ---- lists -------------------------------------------------------------------------------------
 */

static bool parse_tuple(struct nlattr *attr, int family, struct tuple *ret_tuple)
{
	struct nlattr *tb[CTA_TUPLE_MAX + 1], *ip[CTA_IP_MAX + 1], *proto[CTA_PROTO_MAX + 1];
	const bool v4 = family == AF_INET;
	struct tuple t = { 0 };
	if (!attr || nla_parse_nested(tb, CTA_TUPLE_MAX, attr, NULL) < 0 || !tb[CTA_TUPLE_IP] ||
	    !tb[CTA_TUPLE_PROTO] || nla_parse_nested(ip, CTA_IP_MAX, tb[CTA_TUPLE_IP], NULL) < 0 ||
	    nla_parse_nested(proto, CTA_PROTO_MAX, tb[CTA_TUPLE_PROTO], NULL) < 0)
		return false;
	if (!flat_nl_ip(ip[v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC], family, &t.src) ||
	    !flat_nl_ip(ip[v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST], family, &t.dst) ||
	    !proto[CTA_PROTO_NUM] || nla_len(proto[CTA_PROTO_NUM]) < 1)
		return false;
	t.protocol = nla_get_u8(proto[CTA_PROTO_NUM]);
	if (proto[CTA_PROTO_DST_PORT] && nla_len(proto[CTA_PROTO_DST_PORT]) == sizeof(uint16_t))
		t.dst_port = ntohs(nla_get_u16(proto[CTA_PROTO_DST_PORT]));
	*ret_tuple = t;
	return true;
}

static bool is_of_pod(const struct hunt *hunt, const struct tuple *orig, const struct tuple *reply)
{
	for (size_t i = 0; i < hunt->pod_count; i++)
		if (flat_ip_equal(&hunt->pods[i], &orig->src) ||
		    flat_ip_equal(&hunt->pods[i], &reply->src))
			return true;
	return false;
}

static bool is_any(const struct flat_ip *ip)
{
	const struct flat_ip any = { .family = ip->family };
	return flat_ip_equal(ip, &any);
}

static bool is_of_port(const struct hunt *hunt, const struct tuple *orig)
{
	for (size_t i = 0; i < hunt->port_count; i++) {
		const struct flat_port *port = &hunt->ports[i];
		if (port->protocol == orig->protocol && port->port == orig->dst_port &&
		    port->host.family == orig->dst.family &&
		    (is_any(&port->host) || flat_ip_equal(&port->host, &orig->dst)))
			return true;
	}
	return false;
}

static int parse_entry(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[CTA_ZONE + 1];
	struct entry *entry = elem;
	struct hunt *hunt = arg;
	struct tuple reply;
	if ((h->nlmsg_type & 0xff) != IPCTNL_MSG_CT_NEW || hunt->kept == MOST_ENTRIES)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct nfgenmsg), tb, CTA_ZONE, NULL) < 0)
		return -EBADMSG;
	const struct nfgenmsg *g = nlmsg_data(h);
	entry->family = g->nfgen_family;
	if ((entry->family != AF_INET && entry->family != AF_INET6) ||
	    !parse_tuple(tb[CTA_TUPLE_ORIG], entry->family, &entry->orig) ||
	    !parse_tuple(tb[CTA_TUPLE_REPLY], entry->family, &reply) ||
	    nla_len(tb[CTA_TUPLE_ORIG]) > TUPLE_BYTES)
		return 0;
	if (!is_of_pod(hunt, &entry->orig, &reply) && !is_of_port(hunt, &entry->orig))
		return 0;
	entry->len = (uint16_t)nla_len(tb[CTA_TUPLE_ORIG]);
	memcpy(entry->tuple, nla_data(tb[CTA_TUPLE_ORIG]), entry->len);
	if (tb[CTA_ZONE] && nla_len(tb[CTA_ZONE]) == sizeof entry->zone) {
		entry->zone = nla_get_u16(tb[CTA_ZONE]);
		entry->zone_len = sizeof entry->zone;
	}
	hunt->kept++;
	return 1;
}

static void reset_hunt(void *arg)
{
	((struct hunt *)arg)->kept = 0;
}

/* ---- addresses of the node ---------------------------------------------------------------------
 */

struct local {
	struct flat_ip ips[MOST_ADDRESSES];
	size_t count;
};

static int collect_address(void *arg, const struct flat_addr *addr)
{
	struct local *local = arg;
	if (local->count < MOST_ADDRESSES)
		local->ips[local->count++] = addr->address.ip;
	return 0;
}

static bool is_local(const struct local *local, const struct flat_ip *ip)
{
	if (ip->family == AF_INET && ip->bytes[0] == 127)
		return true;
	for (size_t i = 0; i < local->count; i++)
		if (flat_ip_equal(&local->ips[i], ip))
			return true;
	return false;
}

/* ---- forgetting --------------------------------------------------------------------------------
 */

static int forget_entry(struct flat_net *net, const struct entry *entry, struct flat_err *err)
{
	flat_auto_builder b;
	begin(&b, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, entry->family);
	flat_nl_put(&b, NLA_F_NESTED | CTA_TUPLE_ORIG, entry->tuple, entry->len);
	if (entry->zone_len)
		flat_nl_put_u16(&b, CTA_ZONE, entry->zone);
	return flat_nl_ask(net, flat_nl_message(&b), FLAT_GONE_OK, parse_nothing, NULL, NULL, err,
			   "delete a conntrack entry");
}

/* `local`, where not NULL: only entries that were sent to one of these addresses. */
static int hunt_down(struct flat_net *net, struct flat_nl_builder *request, struct hunt *hunt,
		     const struct local *local, struct flat_err *err)
{
	flat_auto_list list = { 0 };
	int r = flat_nl_dump(net, flat_nl_message(request), FLAT_GONE_OK, parse_entry,
			     sizeof(struct entry), hunt, reset_hunt, &list, err,
			     "list conntrack entries");
	const struct entry *entries = (const struct entry *)list.items;
	for (size_t i = 0; i < list.count && r >= 0; i++)
		if (!local || is_local(local, &entries[i].orig.dst))
			r = forget_entry(net, &entries[i], err);
	return r;
}

/* Lets the kernel delete what the message's filter says. 1: done; 0: it cannot. */
static int flush(struct flat_net *net, struct flat_nl_builder *request, struct flat_err *err)
{
	struct flat_err e = { 0 };
	int r = flat_nl_ask(net, flat_nl_message(request), FLAT_GONE_OK, parse_nothing, NULL, NULL,
			    &e, "flush conntrack entries");
	if (r >= 0)
		return 1;
	if (is_absent(r))
		return 0;
	if (err)
		*err = e;
	return r;
}

static int forget_pod(struct flat_net *net, const struct flat_ip *pod, bool reply,
		      struct flat_err *err)
{
	flat_auto_builder deletion, listing;
	struct hunt hunt = { .pods = pod, .pod_count = 1 };
	begin(&deletion, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, pod->family);
	put_source(&deletion, reply, pod);
	begin(&listing, IPCTNL_MSG_CT_GET, 0, pod->family);
	put_source(&listing, reply, pod);
	int r = flush(net, &deletion, err);
	return r ? r : hunt_down(net, &listing, &hunt, NULL, err);
}

static int forget_pods(struct flat_net *net, const struct flat_ip *pods, size_t count,
		       struct flat_err *err)
{
	int r = 0;
	if (count > MOST_QUESTIONS) {
		flat_auto_builder b;
		struct hunt hunt = { .pods = pods, .pod_count = count };
		begin(&b, IPCTNL_MSG_CT_GET, 0, AF_UNSPEC);
		return hunt_down(net, &b, &hunt, NULL, err);
	}
	for (size_t i = 0; i < count && r >= 0; i++) {
		r = forget_pod(net, &pods[i], true, err);
		if (r >= 0)
			r = forget_pod(net, &pods[i], false, err);
	}
	return r;
}

/* 1: done by the kernel; 0: it cannot, or would be asked too often. */
static int flush_ports(struct flat_net *net, const struct hunt *hunt, const struct local *local,
		       uint8_t protocol, int family, struct flat_err *err)
{
	int asked = 0;
	for (size_t i = 0; i < hunt->port_count; i++) {
		const struct flat_port *port = &hunt->ports[i];
		if (port->protocol != protocol || port->host.family != family)
			continue;
		for (size_t k = 0; k < local->count; k++) {
			const struct flat_ip *dst = &local->ips[k];
			flat_auto_builder b = { 0 };
			if (dst->family != family ||
			    (!is_any(&port->host) && !flat_ip_equal(&port->host, dst)))
				continue;
			if (asked++ == MOST_QUESTIONS)
				return 0;
			begin(&b, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family);
			put_service(&b, dst, protocol, port->port);
			int r = flush(net, &b, err);
			if (r <= 0)
				return r;
		}
	}
	return 1;
}

static int forget_ports(struct flat_net *net, const struct flat_port *ports, size_t count,
			struct flat_err *err)
{
	static const uint8_t protocols[] = { IPPROTO_UDP, IPPROTO_SCTP };
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	flat_auto_free struct local *local = NULL;
	struct hunt hunt = { .ports = ports, .port_count = count };
	int r = 0;
	for (size_t k = 0; k < FLAT_LEN(protocols) * FLAT_LEN(families) && r >= 0; k++) {
		const uint8_t protocol = protocols[k % 2], family = families[k / 2];
		flat_auto_builder b = { 0 };
		size_t n = 0;
		for (size_t i = 0; i < count; i++)
			n += ports[i].protocol == protocol && ports[i].host.family == family;
		if (!n)
			continue;
		if (!local) {
			flat_auto_net *route = NULL;
			local = calloc(1, sizeof *local);
			if (!local)
				return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM,
						 "list conntrack entries");
			r = flat_net_open(&route, err);
			if (r >= 0)
				r = flat_addr_each(route, 0, 0, collect_address, local, err);
			if (r < 0)
				return r;
		}
		r = flush_ports(net, &hunt, local, protocol, family, err);
		if (r)
			continue;
		begin(&b, IPCTNL_MSG_CT_GET, 0, family);
		put_service(&b, NULL, protocol, 0);
		r = hunt_down(net, &b, &hunt, local, err);
	}
	return r;
}

int flat_conntrack_forget(struct flat_net *net, const struct flat_ip *pods, size_t pod_count,
			  const struct flat_port *ports, size_t port_count, struct flat_err *err)
{
	struct flat_err e = { 0 };
	int r = forget_pods(net, pods, pod_count, &e);
	if (r >= 0)
		r = forget_ports(net, ports, port_count, &e);
	if (r >= 0 || is_absent(r)) /* no conntrack, nothing to forget */
		return 0;
	if (err)
		*err = e;
	return r;
}
