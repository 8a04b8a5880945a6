// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <stdio.h>
#include <string.h>

/* ---- reading -----------------------------------------------------------------------------------
 */

static const struct nla_policy route_policy[RTA_MAX + 1] = {
	[RTA_TABLE] = { .type = NLA_U32 },
	[RTA_OIF] = { .type = NLA_U32 },
	[RTA_PRIORITY] = { .type = NLA_U32 },
	[RTA_METRICS] = { .type = NLA_NESTED },
	[RTA_VIA] = { .minlen = 2 },
	[RTA_MULTIPATH] = { .minlen = sizeof(struct rtnexthop) },
};
static const struct nla_policy metrics_policy[RTAX_MAX + 1] = {
	[RTAX_MTU] = { .type = NLA_U32 },
	[RTAX_ADVMSS] = { .type = NLA_U32 },
};

/* The gateway, also the IPv6 one of an IPv4 route; false: the attribute makes no sense. */
static bool get_gateway(struct nlattr *const *tb, int family, struct flat_ip *ret_gw)
{
	if (tb[RTA_GATEWAY])
		return flat_nl_ip(tb[RTA_GATEWAY], family, ret_gw);
	if (!tb[RTA_VIA])
		return true;
	const struct rtvia *via = nla_data(tb[RTA_VIA]);
	struct flat_ip gw = { .family = (uint8_t)via->rtvia_family };
	if ((gw.family != AF_INET && gw.family != AF_INET6) ||
	    (size_t)nla_len(tb[RTA_VIA]) != sizeof *via + flat_ip_size(&gw))
		return false;
	memcpy(gw.bytes, via->rtvia_addr, flat_ip_size(&gw));
	*ret_gw = gw;
	return true;
}

int flat_route_parse(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[RTA_MAX + 1], *hop[RTA_MAX + 1], *metrics[RTAX_MAX + 1];
	struct flat_net_route *out = elem;
	(void)arg;
	if (h->nlmsg_type != RTM_NEWROUTE && h->nlmsg_type != RTM_DELROUTE)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct rtmsg), tb, RTA_MAX, route_policy) < 0)
		return -EBADMSG;
	const struct rtmsg *info = nlmsg_data(h);
	if (info->rtm_family != AF_INET && info->rtm_family != AF_INET6)
		return 0;
	*out = (struct flat_net_route){
		.protocol = info->rtm_protocol,
		.type = info->rtm_type,
		.onlink = info->rtm_flags & RTNH_F_ONLINK,
		.oif = tb[RTA_OIF] ? (int)nla_get_u32(tb[RTA_OIF]) : 0,
		.route.scope = info->rtm_scope,
		.route.table = tb[RTA_TABLE] ? nla_get_u32(tb[RTA_TABLE]) : info->rtm_table,
		.route.priority = tb[RTA_PRIORITY] ? nla_get_u32(tb[RTA_PRIORITY]) : 0,
		.route.dst = { .ip.family = info->rtm_family, .len = info->rtm_dst_len },
	};
	struct flat_route *route = &out->route;
	if ((tb[RTA_DST] && !flat_nl_ip(tb[RTA_DST], info->rtm_family, &route->dst.ip)) ||
	    !get_gateway(tb, info->rtm_family, &route->gw))
		return -EBADMSG;
	if (tb[RTA_MULTIPATH]) { /* not ours; its first hop stands for it */
		const struct rtnexthop *first = nla_data(tb[RTA_MULTIPATH]);
		int len = first->rtnh_len;
		if (len < (int)sizeof *first || len > nla_len(tb[RTA_MULTIPATH]) ||
		    nla_parse(hop, RTA_MAX, (struct nlattr *)RTNH_DATA(first),
			      len - (int)sizeof *first, route_policy) < 0 ||
		    !get_gateway(hop, info->rtm_family, &route->gw))
			return -EBADMSG;
		out->oif = first->rtnh_ifindex;
	}
	if (tb[RTA_METRICS]) {
		if (nla_parse_nested(metrics, RTAX_MAX, tb[RTA_METRICS], metrics_policy) < 0)
			return -EBADMSG;
		if (metrics[RTAX_MTU])
			route->mtu = nla_get_u32(metrics[RTAX_MTU]);
		if (metrics[RTAX_ADVMSS])
			route->advmss = nla_get_u32(metrics[RTAX_ADVMSS]);
	}
	return 1;
}

static int list_routes(struct flat_net *net, uint8_t family, int oif, uint8_t protocol,
		       uint32_t table, struct flat_nl_list *list, struct flat_err *err)
{
	const struct rtmsg info = {
		.rtm_family = family,
		.rtm_protocol = protocol,
		.rtm_table = table < 256 ? (uint8_t)table : RT_TABLE_COMPAT,
	};
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_GETROUTE, 0, &info, sizeof info);
	if (table)
		flat_nl_put_u32(&b, RTA_TABLE, table);
	if (oif)
		flat_nl_put_u32(&b, RTA_OIF, (uint32_t)oif);
	/* ENOENT: a table that has no routes yet; ENODEV: a link that is gone has none either */
	return flat_nl_dump(net, flat_nl_message(&b), FLAT_GONE_OK, flat_route_parse,
			    sizeof(struct flat_net_route), NULL, NULL, list, err,
			    "list IPv%c routes", family == AF_INET ? '4' : '6');
}

int flat_route_each(struct flat_net *net, int family, int oif, uint8_t protocol, uint32_t table,
		    int (*fn)(void *arg, const struct flat_net_route *route), void *arg,
		    struct flat_err *err)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	const uint32_t wanted = table == FLAT_ANY_TABLE ? RT_TABLE_UNSPEC
				: table			? table
							: RT_TABLE_MAIN;
	for (size_t f = 0; f < FLAT_LEN(families); f++) {
		if (family && family != families[f])
			continue;
		flat_auto_list list = { 0 };
		int r = list_routes(net, families[f], oif, protocol, wanted, &list, err);
		const struct flat_net_route *routes = (const struct flat_net_route *)list.items;
		for (size_t i = 0; r >= 0 && i < list.count; i++) {
			/* older kernels filter less, and one without IPv6 answers with IPv4 */
			if (routes[i].route.dst.ip.family == families[f] &&
			    (!wanted || routes[i].route.table == wanted) &&
			    (!oif || routes[i].oif == oif) &&
			    (!protocol || routes[i].protocol == protocol))
				r = fn(arg, &routes[i]);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int flat_route_lookup(struct flat_net *net, const struct flat_ip *ip,
		      struct flat_net_route *ret_route, struct flat_err *err)
{
	const struct rtmsg info = { .rtm_family = ip->family,
				    .rtm_dst_len = (uint8_t)flat_ip_bits(ip) };
	struct flat_net_route route = { 0 };
	char text[FLAT_IP_TEXT];
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_GETROUTE, 0, &info, sizeof info);
	flat_nl_put_ip(&b, RTA_DST, ip);
	int r = flat_nl_ask(net, flat_nl_message(&b), FLAT_UNREACHABLE_OK, flat_route_parse, &route,
			    NULL, err, "look up the route to %s", flat_ip_text(ip, text));
	if (r == 1)
		*ret_route = route;
	return r;
}

/* ---- changing ----------------------------------------------------------------------------------
 */

static void put_gateway(struct flat_nl_builder *b, const struct flat_route *route)
{
	if (!route->gw.family)
		return;
	if (route->gw.family == route->dst.ip.family) {
		flat_nl_put_ip(b, RTA_GATEWAY, &route->gw);
		return;
	}
	struct {
		__kernel_sa_family_t family;
		uint8_t bytes[16];
	} via = { .family = route->gw.family };
	memcpy(via.bytes, route->gw.bytes, sizeof via.bytes);
	flat_nl_put(b, RTA_VIA, &via, sizeof via.family + flat_ip_size(&route->gw));
}

static void put_metrics(struct flat_nl_builder *b, const struct flat_route *route)
{
	if (!route->mtu && !route->advmss)
		return;
	flat_nl_nest(b, RTA_METRICS, NULL, 0);
	if (route->mtu)
		flat_nl_put_u32(b, RTAX_MTU, route->mtu);
	if (route->advmss)
		flat_nl_put_u32(b, RTAX_ADVMSS, route->advmss);
	flat_nl_nest_end(b);
}

static void begin_route(struct flat_nl_builder *b, int type, int flags, const struct rtmsg *base,
			const struct flat_net_route *r)
{
	struct rtmsg info = *base;
	uint32_t table = r->route.table ? r->route.table : RT_TABLE_MAIN;
	info.rtm_family = r->route.dst.ip.family;
	info.rtm_dst_len = r->route.dst.len;
	info.rtm_table = table < 256 ? (uint8_t)table : RT_TABLE_COMPAT;
	info.rtm_flags = r->onlink ? RTNH_F_ONLINK : 0;
	if (r->route.scope >= 0)
		info.rtm_scope = (uint8_t)r->route.scope;
	flat_nl_begin(b, type, flags, &info, sizeof info);
	flat_nl_put_ip(b, RTA_DST, &r->route.dst.ip);
	flat_nl_put_u32(b, RTA_TABLE, table);
	put_gateway(b, &r->route);
	if (r->oif)
		flat_nl_put_u32(b, RTA_OIF, (uint32_t)r->oif);
	if (r->route.priority)
		flat_nl_put_u32(b, RTA_PRIORITY, r->route.priority);
	put_metrics(b, &r->route);
}

/* "10.244.2.0/24 via 10.0.0.2", for error messages */
static const char *route_text(const struct flat_route *route, char *buf, size_t size)
{
	char dst[FLAT_PREFIX_TEXT], gw[FLAT_IP_TEXT];
	snprintf(buf, size, "%s%s%s", flat_prefix_text(&route->dst, dst),
		 route->gw.family ? " via " : "",
		 route->gw.family ? flat_ip_text(&route->gw, gw) : "");
	return buf;
}

void flat_route_add(struct flat_net *net, const struct flat_net_route *route, bool replace,
		    enum flat_accept accept)
{
	struct rtmsg base = {
		.rtm_protocol = route->protocol ? route->protocol : RTPROT_BOOT,
		.rtm_type = route->type ? route->type : RTN_UNICAST,
		.rtm_scope = RT_SCOPE_UNIVERSE,
	};
	/* as ip-route(8) defaults it; IPv6 knows no scopes */
	if (base.rtm_type == RTN_LOCAL)
		base.rtm_scope = RT_SCOPE_HOST;
	else if (base.rtm_type == RTN_UNICAST && !route->route.gw.family)
		base.rtm_scope = RT_SCOPE_LINK;
	char text[FLAT_PREFIX_TEXT + FLAT_IP_TEXT + 8];
	flat_auto_builder b;
	begin_route(&b, RTM_NEWROUTE, NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL), &base,
		    route);
	flat_nl_queue(net, &b, accept, "%s route to %s", replace ? "set" : "add",
		      route_text(&route->route, text, sizeof text));
}

void flat_route_del(struct flat_net *net, const struct flat_net_route *route,
		    enum flat_accept accept)
{
	/* protocol and type 0, scope "nowhere": any */
	const struct rtmsg base = {
		.rtm_protocol = route->protocol,
		.rtm_type = route->type,
		.rtm_scope = RT_SCOPE_NOWHERE,
	};
	char text[FLAT_PREFIX_TEXT + FLAT_IP_TEXT + 8];
	flat_auto_builder b;
	begin_route(&b, RTM_DELROUTE, 0, &base, route);
	flat_nl_queue(net, &b, accept, "delete route to %s",
		      route_text(&route->route, text, sizeof text));
}
