// SPDX-License-Identifier: Apache-2.0
/*
 * The chains that hold pods to what is theirs. They are the same for all pods, and say nothing of
 * any; which pod may send what, and whom it may be reached by, are elements of sets. So what a
 * packet costs does not depend on the number of pods.
 *
 * table bridge flatnet {
 *	chain spoofcheck_prerouting {
 *		type filter hook prerouting priority -300; policy accept;
 *		iifname @spoofcheck_links jump spoofcheck
 *	}
 *	chain spoofcheck {
 *		iifname . ether saddr @spoofcheck_macs return
 *		ip saddr != 0.0.0.0 iifname . ether saddr . ip saddr @spoofcheck4 return
 *		iifname . ether saddr . arp saddr ip @spoofcheck4 iifname . arp saddr ether . arp
 *saddr ip
 *			@spoofcheck4 return
 *		ip saddr 0.0.0.0 udp sport 68 udp dport 67 iifname . ether saddr @spoofcheck_dhcp
 *return icmpv6 type nd-router-advert drop icmpv6 type nd-neighbor-advert iifname . ether saddr .
 *icmpv6 taddr != @spoofcheck6 drop ip6 saddr != :: iifname . ether saddr . ip6 saddr @spoofcheck6
 *return ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . ether saddr . icmpv6 taddr
 *			@spoofcheck6 return
 *		ip6 saddr :: icmpv6 type mld2-listener-report iifname . ether saddr . ip6 saddr
 *			@spoofcheck6 return
 *		drop
 *	}
 * }
 *
 * Every frame from a port of a bridge passes prerouting, whatever becomes of it: bridged, flooded,
 * or taken by the node. The exception are those for 01:80:c2:00:00:0X, which go to the node at
 * once, those for LLDP past every hook, and teach the bridge their source all the same
 * (br_handle_frame() in net/bridge/br_input.c). A port that is checked has them bridged
 * (bridges_reserved of struct flat_link_change). A VLAN's tag has been taken off before.
 *
 * An address is stolen without a packet from it, too: by an ARP message or a neighbour
 * advertisement that tells another one's address. 0.0.0.0 is in spoofcheck4 for ARP probes, and ::
 * in spoofcheck6 for what a pod says while its own link-local address is being checked; as a source
 * of anything else they are no good.
 *
 * table inet flatnet_ingress {
 *	chain forward {
 *		type filter hook forward priority filter; policy accept;
 *		ct state established,related accept
 *		iifname @bridges oifname @bridges iifname . oifname != @within drop
 *	}
 * }
 *
 * As with the reference plugin firewall, this is about pods of other bridges with a policy, and
 *with "isolated" about those of the same; what comes from elsewhere, other nodes included, passes.
 */
#include "nft-guard.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/expr.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <string.h>

#define LINK	   FLAT_NFT_TYPE_LINK
#define LINK_MAC   FLAT_NFT_TYPE2(FLAT_NFT_TYPE_LINK, FLAT_NFT_TYPE_MAC)
#define LINKS_TYPE FLAT_NFT_TYPE2(FLAT_NFT_TYPE_LINK, FLAT_NFT_TYPE_LINK)

const struct flat_nft_set flat_guard_sets[FLAT_GUARD_SETS] = {
	[FLAT_GUARD_LINKS] = { FLAT_NFT_SPOOF, "spoofcheck_links", LINK, 16 },
	[FLAT_GUARD_MACS] = { FLAT_NFT_SPOOF, "spoofcheck_macs", LINK_MAC, 24 },
	[FLAT_GUARD_IP4] = { FLAT_NFT_SPOOF, "spoofcheck4",
			     FLAT_NFT_TYPE3(LINK, FLAT_NFT_TYPE_MAC, FLAT_NFT_TYPE_IPV4), 28 },
	[FLAT_GUARD_IP6] = { FLAT_NFT_SPOOF, "spoofcheck6",
			     FLAT_NFT_TYPE3(LINK, FLAT_NFT_TYPE_MAC, FLAT_NFT_TYPE_IPV6), 40 },
	[FLAT_GUARD_DHCP] = { FLAT_NFT_SPOOF, "spoofcheck_dhcp", LINK_MAC, 24 },
	[FLAT_GUARD_SAME] = { FLAT_NFT_INGRESS, "same_bridge_pods", LINKS_TYPE, 32 },
	[FLAT_GUARD_ISOLATED] = { FLAT_NFT_INGRESS, "isolated_pods", LINKS_TYPE, 32 },
	[FLAT_GUARD_BRIDGES] = { FLAT_NFT_INGRESS, "bridges", LINK, 16 },
	[FLAT_GUARD_WITHIN] = { FLAT_NFT_INGRESS, "within", LINKS_TYPE, 32 },
};

const struct flat_guard_range flat_guard_ranges[FLAT_GUARD_PARTS] = {
	[FLAT_GUARD_SPOOF] = { FLAT_NFT_SPOOF_IN, FLAT_NFT_SPOOF, FLAT_GUARD_LINKS,
			       FLAT_GUARD_DHCP },
	[FLAT_GUARD_INGRESS] = { FLAT_NFT_INGRESS, FLAT_NFT_INGRESS, FLAT_GUARD_SAME,
				 FLAT_GUARD_WITHIN },
};

enum {
	/* where the parts of a key begin: link, MAC, address; a MAC takes two registers of 4 */
	REG_LINK = NFT_REG_1,
	REG_MAC = NFT_REG_2,
	REG_ADDRESS = NFT_REG32_06,
	/* offsets in their headers */
	ETHER_SOURCE = 6,
	ARP_SENDER_MAC = 8,
	ARP_SENDER_IP = 14,
	IP4_SOURCE = 12,
	IP6_SOURCE = 8,
	ND_TARGET = 8,
};

static const uint8_t zero[16];

static struct flat_nft_rule begin(enum flat_nft_place place, uint16_t protocol)
{
	struct flat_nft_rule r = flat_nft_begin_rule(place, 0);
	const uint16_t be = htons(protocol);
	if (protocol) {
		flat_nft_add_meta(&r, NFT_META_PROTOCOL);
		flat_nft_add_compare(&r, NFT_CMP_EQ, &be, sizeof be);
	}
	return r;
}

static void add_lookup(struct flat_nft_rule *r, enum flat_guard_set set, bool is_in)
{
	flat_nft_add_lookup(r, flat_guard_sets[set].name, is_in);
}

static void load_link(struct flat_nft_rule *r)
{
	flat_nft_load_meta(r, NFT_META_IIFNAME, REG_LINK);
}

static void load_link_and_mac(struct flat_nft_rule *r)
{
	load_link(r);
	flat_nft_load_payload(r, NFT_PAYLOAD_LL_HEADER, ETHER_SOURCE, ETH_ALEN, REG_MAC);
}

static void load_network(struct flat_nft_rule *r, uint32_t offset, uint32_t len, uint32_t reg)
{
	flat_nft_load_payload(r, NFT_PAYLOAD_NETWORK_HEADER, offset, len, reg);
}

static void add_source(struct flat_nft_rule *r, uint32_t offset, uint32_t len, bool unspecified)
{
	load_network(r, offset, len, NFT_REG_1);
	flat_nft_add_compare(r, unspecified ? NFT_CMP_EQ : NFT_CMP_NEQ, zero, len);
}

static void add_icmp6_type(struct flat_nft_rule *r, uint8_t type)
{
	const uint8_t icmp6 = IPPROTO_ICMPV6;
	flat_nft_add_meta(r, NFT_META_L4PROTO);
	flat_nft_add_compare(r, NFT_CMP_EQ, &icmp6, sizeof icmp6);
	flat_nft_load_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 0, sizeof type, NFT_REG_1);
	flat_nft_add_compare(r, NFT_CMP_EQ, &type, sizeof type);
}

static void build_entry(struct flat_nft_builder *b)
{
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF_IN, 0);
	load_link(&r);
	add_lookup(&r, FLAT_GUARD_LINKS, true);
	flat_nft_add_jump(&r, FLAT_NFT_SPOOF);
	flat_nft_end_rule(b, &r);
}

static void build_mac(struct flat_nft_builder *b)
{
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, 0);
	load_link_and_mac(&r);
	add_lookup(&r, FLAT_GUARD_MACS, true);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static void build_ip(struct flat_nft_builder *b, bool v4)
{
	const uint32_t offset = v4 ? IP4_SOURCE : IP6_SOURCE, len = v4 ? 4 : 16;
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, v4 ? ETH_P_IP : ETH_P_IPV6);
	add_source(&r, offset, len, false);
	load_link_and_mac(&r);
	load_network(&r, offset, len, REG_ADDRESS);
	add_lookup(&r, v4 ? FLAT_GUARD_IP4 : FLAT_GUARD_IP6, true);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static void build_arp(struct flat_nft_builder *b)
{
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, ETH_P_ARP);
	load_link_and_mac(&r);
	load_network(&r, ARP_SENDER_IP, 4, REG_ADDRESS);
	add_lookup(&r, FLAT_GUARD_IP4, true);
	load_link(&r);
	load_network(&r, ARP_SENDER_MAC, ETH_ALEN, REG_MAC);
	load_network(&r, ARP_SENDER_IP, 4, REG_ADDRESS);
	add_lookup(&r, FLAT_GUARD_IP4, true);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static void build_dhcp(struct flat_nft_builder *b)
{
	static const uint8_t ports[] = { 0, 68, 0, 67 };
	const uint8_t udp = IPPROTO_UDP;
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, ETH_P_IP);
	add_source(&r, IP4_SOURCE, 4, true);
	flat_nft_add_meta(&r, NFT_META_L4PROTO);
	flat_nft_add_compare(&r, NFT_CMP_EQ, &udp, sizeof udp);
	flat_nft_load_payload(&r, NFT_PAYLOAD_TRANSPORT_HEADER, 0, sizeof ports, NFT_REG_1);
	flat_nft_add_compare(&r, NFT_CMP_EQ, ports, sizeof ports);
	load_link_and_mac(&r);
	add_lookup(&r, FLAT_GUARD_DHCP, true);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static void build_router(struct flat_nft_builder *b)
{
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, ETH_P_IPV6);
	add_icmp6_type(&r, ND_ROUTER_ADVERT);
	flat_nft_add_verdict(&r, NF_DROP);
	flat_nft_end_rule(b, &r);
}

/* An advertisement, or a question whether anybody has the address already. */
static void build_target(struct flat_nft_builder *b, uint8_t type)
{
	const bool advertisement = type == ND_NEIGHBOR_ADVERT;
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, ETH_P_IPV6);
	if (!advertisement)
		add_source(&r, IP6_SOURCE, 16, true);
	add_icmp6_type(&r, type);
	load_link_and_mac(&r);
	flat_nft_load_payload(&r, NFT_PAYLOAD_TRANSPORT_HEADER, ND_TARGET, 16, REG_ADDRESS);
	add_lookup(&r, FLAT_GUARD_IP6, !advertisement);
	flat_nft_add_verdict(&r, advertisement ? NF_DROP : NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static void build_listener(struct flat_nft_builder *b)
{
	const uint8_t mld2_report = 143; /* RFC 3810; sent from :: before there is an address */
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, ETH_P_IPV6);
	add_source(&r, IP6_SOURCE, 16, true);
	add_icmp6_type(&r, mld2_report);
	load_link_and_mac(&r);
	load_network(&r, IP6_SOURCE, 16, REG_ADDRESS);
	add_lookup(&r, FLAT_GUARD_IP6, true);
	flat_nft_add_verdict(&r, NFT_RETURN);
	flat_nft_end_rule(b, &r);
}

static void build_spoof(struct flat_nft_builder *b)
{
	build_entry(b);
	build_mac(b);
	build_ip(b, true);
	build_arp(b);
	build_dhcp(b);
	build_router(b);
	build_target(b, ND_NEIGHBOR_ADVERT);
	build_ip(b, false);
	build_target(b, ND_NEIGHBOR_SOLICIT);
	build_listener(b);
	struct flat_nft_rule r = begin(FLAT_NFT_SPOOF, 0);
	flat_nft_add_verdict(&r, NF_DROP);
	flat_nft_end_rule(b, &r);
}

static void build_ingress(struct flat_nft_builder *b)
{
	/* NF_CT_STATE_BIT() of the kernel's nf_conntrack_tuple_common.h */
	const uint32_t known = 1U << (IP_CT_ESTABLISHED + 1) | 1U << (IP_CT_RELATED + 1), none = 0;
	struct flat_nft_rule r = flat_nft_begin_rule(FLAT_NFT_INGRESS, 0);
	struct nftnl_expr *e = flat_nft_add_expr(&r, "ct");
	if (e) {
		nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
		nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
	}
	flat_nft_add_mask(&r, &known, sizeof known);
	flat_nft_add_compare(&r, NFT_CMP_NEQ, &none, sizeof none);
	flat_nft_add_verdict(&r, NF_ACCEPT);
	flat_nft_end_rule(b, &r);

	r = flat_nft_begin_rule(FLAT_NFT_INGRESS, 0);
	load_link(&r);
	add_lookup(&r, FLAT_GUARD_BRIDGES, true);
	flat_nft_load_meta(&r, NFT_META_OIFNAME, NFT_REG_1);
	add_lookup(&r, FLAT_GUARD_BRIDGES, true);
	load_link(&r);
	flat_nft_load_meta(&r, NFT_META_OIFNAME, NFT_REG_2);
	add_lookup(&r, FLAT_GUARD_WITHIN, false);
	flat_nft_add_verdict(&r, NF_DROP);
	flat_nft_end_rule(b, &r);
}

int flat_guard_build(enum flat_guard_part part, struct flat_nft_rules *ret_rules,
		     struct flat_err *err)
{
	struct flat_nft_builder b = { .rules = ret_rules, .digest = 1 };
	*ret_rules = (struct flat_nft_rules){ .home = flat_guard_ranges[part].first };
	snprintf(ret_rules->prefix, sizeof ret_rules->prefix,
		 "flatnet:~%s:", part == FLAT_GUARD_SPOOF ? "spoofcheck" : "ingress");
	if (part == FLAT_GUARD_SPOOF)
		build_spoof(&b);
	else
		build_ingress(&b);
	if (!b.failed)
		return 0;
	flat_nft_rules_free(ret_rules);
	return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "rules of isolation");
}
