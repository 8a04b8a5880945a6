// SPDX-License-Identifier: Apache-2.0
/*
 * VLANs of a bridge port. They are set through the link (RTM_SETLINK and RTM_DELLINK of AF_BRIDGE,
 * as long as there are filtering bridges), and read through the VLAN database (RTM_GETVLAN, Linux
 * 5.6), which, unlike a dump of links, tells of one port without telling of all.
 */
#include "nl.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

bool flat_vlan_has(const uint8_t *set, unsigned id)
{
	return set[id / 8] >> (id % 8) & 1;
}

void flat_vlan_add(struct flat_vlans *vlans, unsigned min, unsigned max)
{
	for (unsigned id = min; id <= max && id <= FLAT_VLAN_MAX; id++)
		vlans->member[id / 8] |= (uint8_t)(1 << (id % 8));
}

void flat_vlan_add_native(struct flat_vlans *vlans, unsigned id)
{
	flat_vlan_add(vlans, id, id);
	vlans->untagged[id / 8] |= (uint8_t)(1 << (id % 8));
	vlans->native = (uint16_t)id;
}

bool flat_vlan_equal(const struct flat_vlans *a, const struct flat_vlans *b)
{
	return a->native == b->native && !memcmp(a->member, b->member, sizeof a->member) &&
	       !memcmp(a->untagged, b->untagged, sizeof a->untagged);
}

/* ---- changing ----------------------------------------------------------------------------------
 */

static void begin(struct flat_nl_builder *b, int type, int index)
{
	const struct ifinfomsg info = { .ifi_family = AF_BRIDGE, .ifi_index = index };
	flat_nl_begin(b, type, 0, &info, sizeof info);
	flat_nl_nest(b, IFLA_AF_SPEC, NULL, 0);
}

static void put_range(struct flat_nl_builder *b, uint16_t flags, unsigned min, unsigned max)
{
	struct bridge_vlan_info info = { .flags = flags, .vid = (uint16_t)min };
	if (min < max) {
		info.flags |= BRIDGE_VLAN_INFO_RANGE_BEGIN;
		flat_nl_put(b, IFLA_BRIDGE_VLAN_INFO, &info, sizeof info);
		info.flags = (uint16_t)(flags | BRIDGE_VLAN_INFO_RANGE_END);
		info.vid = (uint16_t)max;
	}
	flat_nl_put(b, IFLA_BRIDGE_VLAN_INFO, &info, sizeof info);
}

static uint16_t flags_of(const struct flat_vlans *vlans, unsigned id)
{
	return (uint16_t)((id == vlans->native ? BRIDGE_VLAN_INFO_PVID : 0) |
			  (flat_vlan_has(vlans->untagged, id) ? BRIDGE_VLAN_INFO_UNTAGGED : 0));
}

void flat_vlan_set(struct flat_net *net, int index, const struct flat_vlans *vlans, bool keep)
{
	flat_auto_builder b;
	if (!keep) { /* the kernel passes over those that are not there */
		begin(&b, RTM_DELLINK, index);
		put_range(&b, 0, 1, FLAT_VLAN_MAX);
		flat_nl_nest_end(&b);
		flat_nl_queue(net, &b, FLAT_STRICT, "take link %d out of its VLANs", index);
	}
	begin(&b, RTM_SETLINK, index);
	for (unsigned id = 1, last; id <= FLAT_VLAN_MAX; id = last + 1) {
		const uint16_t flags = flags_of(vlans, id);
		last = id;
		if (!flat_vlan_has(vlans->member, id))
			continue;
		/* a range has no PVID: the kernel refuses it */
		while (last < FLAT_VLAN_MAX && !(flags & BRIDGE_VLAN_INFO_PVID) &&
		       flat_vlan_has(vlans->member, last + 1) && flags_of(vlans, last + 1) == flags)
			last++;
		put_range(&b, flags, id, last);
	}
	flat_nl_nest_end(&b);
	flat_nl_queue(net, &b, FLAT_STRICT, "put link %d into VLANs", index);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static const struct nla_policy entry_policy[BRIDGE_VLANDB_ENTRY_MAX + 1] = {
	[BRIDGE_VLANDB_ENTRY_INFO] = { .minlen = sizeof(struct bridge_vlan_info) },
	[BRIDGE_VLANDB_ENTRY_RANGE] = { .type = NLA_U16 },
};

static int take_entry(struct nlattr *entry, struct flat_vlans *vlans)
{
	struct nlattr *tb[BRIDGE_VLANDB_ENTRY_MAX + 1];
	struct bridge_vlan_info info;
	if (nla_parse_nested(tb, BRIDGE_VLANDB_ENTRY_MAX, entry, entry_policy) < 0 ||
	    !tb[BRIDGE_VLANDB_ENTRY_INFO])
		return -EBADMSG;
	memcpy(&info, nla_data(tb[BRIDGE_VLANDB_ENTRY_INFO]), sizeof info);
	const unsigned last = tb[BRIDGE_VLANDB_ENTRY_RANGE]
				      ? nla_get_u16(tb[BRIDGE_VLANDB_ENTRY_RANGE])
				      : info.vid;
	if (!info.vid || last < info.vid || last > FLAT_VLAN_MAX)
		return -EBADMSG;
	flat_vlan_add(vlans, info.vid, last);
	for (unsigned id = info.vid; info.flags & BRIDGE_VLAN_INFO_UNTAGGED && id <= last; id++)
		vlans->untagged[id / 8] |= (uint8_t)(1 << (id % 8));
	if (info.flags & BRIDGE_VLAN_INFO_PVID)
		vlans->native = info.vid;
	return 0;
}

static int parse_vlans(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *attr;
	int left;
	(void)elem;
	if (h->nlmsg_type != RTM_NEWVLAN)
		return 0;
	if (!nlmsg_valid_hdr(h, sizeof(struct br_vlan_msg)))
		return -EBADMSG;
	nlmsg_for_each_attr(attr, (struct nlmsghdr *)h, sizeof(struct br_vlan_msg), left)
	{
		int r = nla_type(attr) == BRIDGE_VLANDB_ENTRY ? take_entry(attr, arg) : 0;
		if (r < 0)
			return r;
	}
	return 0; /* all of it is in arg */
}

static void forget(void *arg)
{
	*(struct flat_vlans *)arg = (struct flat_vlans){ 0 };
}

int flat_vlan_get(struct flat_net *net, int index, struct flat_vlans *ret_vlans,
		  struct flat_err *err)
{
	const struct br_vlan_msg header = { .family = AF_BRIDGE, .ifindex = (uint32_t)index };
	struct flat_vlans vlans = { 0 };
	flat_auto_builder b;
	flat_auto_list none = { 0 };
	flat_nl_begin(&b, RTM_GETVLAN, 0, &header, sizeof header);
	int r = flat_nl_dump(net, flat_nl_message(&b), 0, parse_vlans, 1, &vlans, forget, &none,
			     err, "list VLANs of link %d", index);
	if (r >= 0)
		*ret_vlans = vlans;
	return r;
}
