// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/netlink.h>

/* ---- reading -----------------------------------------------------------------------------------
 */

static const struct nla_policy vxlan_policy[IFLA_VXLAN_MAX + 1] = {
	[IFLA_VXLAN_ID] = { .type = NLA_U32 },
	[IFLA_VXLAN_LINK] = { .type = NLA_U32 },
	[IFLA_VXLAN_LEARNING] = { .type = NLA_U8 },
	[IFLA_VXLAN_PORT] = { .type = NLA_U16 },
	[IFLA_VXLAN_COLLECT_METADATA] = { .type = NLA_U8 },
};

int flat_vxlan_parse(struct nlattr *data, struct flat_vxlan *ret_vxlan)
{
	struct nlattr *tb[IFLA_VXLAN_MAX + 1];
	if (nla_parse_nested(tb, IFLA_VXLAN_MAX, data, vxlan_policy) < 0)
		return -EBADMSG;
	struct flat_vxlan vxlan = {
		.vni = tb[IFLA_VXLAN_ID] ? nla_get_u32(tb[IFLA_VXLAN_ID]) : 0,
		.port = tb[IFLA_VXLAN_PORT] ? ntohs(nla_get_u16(tb[IFLA_VXLAN_PORT])) : 0,
		.underlay = tb[IFLA_VXLAN_LINK] ? (int)nla_get_u32(tb[IFLA_VXLAN_LINK]) : 0,
		.learning = tb[IFLA_VXLAN_LEARNING] && nla_get_u8(tb[IFLA_VXLAN_LEARNING]),
		.gbp = tb[IFLA_VXLAN_GBP],
		.external = tb[IFLA_VXLAN_COLLECT_METADATA] &&
			    nla_get_u8(tb[IFLA_VXLAN_COLLECT_METADATA]),
	};
	if ((tb[IFLA_VXLAN_LOCAL] && !flat_nl_ip(tb[IFLA_VXLAN_LOCAL], AF_INET, &vxlan.local)) ||
	    (tb[IFLA_VXLAN_LOCAL6] && !flat_nl_ip(tb[IFLA_VXLAN_LOCAL6], AF_INET6, &vxlan.local)))
		return -EBADMSG;
	*ret_vxlan = vxlan;
	return 0;
}

/* ---- making ------------------------------------------------------------------------------------
 */

static void begin(struct flat_nl_builder *b, const char *name, int flags, unsigned up)
{
	const struct ifinfomsg info = { .ifi_flags = up, .ifi_change = up };
	flat_nl_begin(b, RTM_NEWLINK, flags, &info, sizeof info);
	flat_nl_put_text(b, IFLA_IFNAME, name);
}

static void begin_data(struct flat_nl_builder *b, const struct flat_vxlan *vxlan)
{
	flat_nl_nest(b, IFLA_LINKINFO, NULL, 0);
	flat_nl_put_text(b, IFLA_INFO_KIND, "vxlan");
	flat_nl_nest(b, IFLA_INFO_DATA, NULL, 0);
	flat_nl_put_u32(b, IFLA_VXLAN_ID, vxlan->vni);
}

static void end_data(struct flat_nl_builder *b)
{
	flat_nl_nest_end(b);
	flat_nl_nest_end(b);
}

void flat_link_add_vxlan(struct flat_net *net, const char *name, const struct flat_mac *mac,
			 uint32_t mtu, const struct flat_vxlan *vxlan, enum flat_accept accept)
{
	flat_auto_builder b;
	begin(&b, name, NLM_F_CREATE | NLM_F_EXCL, 0);
	flat_nl_put(&b, IFLA_ADDRESS, mac->bytes, sizeof mac->bytes);
	if (mtu)
		flat_nl_put_u32(&b, IFLA_MTU, mtu);
	begin_data(&b, vxlan);
	flat_nl_put_u16(&b, IFLA_VXLAN_PORT, htons(vxlan->port));
	flat_nl_put_u8(&b, IFLA_VXLAN_LEARNING, vxlan->learning);
	if (vxlan->underlay)
		flat_nl_put_u32(&b, IFLA_VXLAN_LINK, (uint32_t)vxlan->underlay);
	if (vxlan->local.family)
		flat_nl_put_ip(&b,
			       vxlan->local.family == AF_INET ? IFLA_VXLAN_LOCAL
							      : IFLA_VXLAN_LOCAL6,
			       &vxlan->local);
	end_data(&b);
	flat_nl_queue(net, &b, accept, "add VXLAN device '%s'", name);

	/* The kernel reads IFLA_AF_SPEC of links that are there, and after the flags. The VNI
	 * changes nothing, but guards: a link of another kind, or of another VNI, that has the name
	 * is refused, and left alone (vxlan_nl2conf() in drivers/net/vxlan/vxlan_core.c). */
	begin(&b, name, 0, 0);
	begin_data(&b, vxlan);
	end_data(&b);
	flat_nl_nest(&b, IFLA_AF_SPEC, NULL, 0);
	flat_nl_nest(&b, AF_INET6, NULL, 0);
	flat_nl_put_u8(&b, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	flat_nl_nest_end(&b);
	flat_nl_nest_end(&b);
	flat_nl_queue(net, &b, FLAT_UNSUPPORTED_OK, "set up VXLAN device '%s'", name);
	begin(&b, name, 0, IFF_UP);
	begin_data(&b, vxlan);
	end_data(&b);
	flat_nl_queue(net, &b, FLAT_STRICT, "bring up VXLAN device '%s'", name);
}
