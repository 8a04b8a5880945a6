// SPDX-License-Identifier: Apache-2.0
/*
 * Whoever else may drop what the node forwards. An accept of ours ends our chain alone: the packet
 * goes on to every other base chain of the hook, and one drop is the end of it. In iptables'
 * FORWARD accept rules can stand (nft.c); who owns another table would not know of ours there, and
 * firewalld writes its own anew whenever it likes. So these are named, with what lifts them.
 */
#include "nft.h"
#include "nl.h"

#include <stdio.h> /* libnftnl's headers count on it */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct blocker {
	const char *prefix; /* of the pods, for the cure */
	const char *family; /* "ip" or "ip6", of the prefix */
	char *what;
};

static void reset_blocker(void *arg)
{
	((struct blocker *)arg)->what[0] = '\0';
}

static const char *family_name(uint8_t family)
{
	return family == NFPROTO_IPV4 ? "ip" : family == NFPROTO_IPV6 ? "ip6" : "inet";
}

static int parse_chain(const struct nlmsghdr *h, void *elem, void *arg)
{
	const struct nfgenmsg *head = nlmsg_data((struct nlmsghdr *)h);
	struct nlattr *tb[NFTA_CHAIN_MAX + 1], *hook[NFTA_HOOK_MAX + 1];
	struct blocker *b = arg;
	char table[64], chain[64];
	(void)elem;
	if ((h->nlmsg_type & 0xff) != NFT_MSG_NEWCHAIN)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof *head, tb, NFTA_CHAIN_MAX, NULL) < 0)
		return -EBADMSG;
	const uint8_t family = head->nfgen_family;
	if (b->what[0] || !tb[NFTA_CHAIN_HOOK] ||
	    (family != NFPROTO_IPV4 && family != NFPROTO_IPV6 && family != NFPROTO_INET) ||
	    nla_parse_nested(hook, NFTA_HOOK_MAX, tb[NFTA_CHAIN_HOOK], NULL) < 0 ||
	    !hook[NFTA_HOOK_HOOKNUM] ||
	    ntohl(nla_get_u32(hook[NFTA_HOOK_HOOKNUM])) != NF_INET_FORWARD)
		return 0;
	flat_nl_text(tb[NFTA_CHAIN_TABLE], table, sizeof table);
	flat_nl_text(tb[NFTA_CHAIN_NAME], chain, sizeof chain);
	const bool drops =
		tb[NFTA_CHAIN_POLICY] && ntohl(nla_get_u32(tb[NFTA_CHAIN_POLICY])) == NF_DROP;
	const bool iptables = family != NFPROTO_INET && !strcmp(table, "filter") &&
			      !strcmp(chain, "FORWARD"); /* overcome */
	if (!strcmp(table, "firewalld"))
		snprintf(b->what, FLAT_NFT_BLOCKER,
			 "firewalld rejects what it was not told of: `firewall-cmd --permanent "
			 "--zone=trusted --add-source=%s && firewall-cmd --reload`, and the "
			 "same with the other nodes' addresses",
			 b->prefix);
	else if (drops && !iptables)
		snprintf(b->what, FLAT_NFT_BLOCKER,
			 "chain '%s' of table '%s %s' has the policy drop: let it accept the pods: "
			 "`nft insert rule %s %s %s %s saddr %s accept`, and the same with daddr",
			 chain, family_name(family), table, family_name(family), table, chain,
			 b->family, b->prefix);
	return 0;
}

/* The FORWARD policy of iptables-legacy, which nf_tables does not show. 1: drop; 0: another, or
 * nobody has loaded its table. Asking alone would load it, so that is what is looked at first. */
static int legacy_drops(void)
{
	char names[256];
	flat_auto_fd file = open("/proc/net/ip_tables_names", O_RDONLY | O_CLOEXEC);
	const ssize_t len = file < 0 ? -1 : read(file, names, sizeof names - 1);
	if (len <= 0)
		return 0;
	names[len] = '\0';
	if (!strstr(names, "filter\n"))
		return 0;
	struct ipt_getinfo info = { .name = "filter" };
	socklen_t size = sizeof info;
	flat_auto_fd fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (fd < 0 || getsockopt(fd, IPPROTO_IP, IPT_SO_GET_INFO, &info, &size) < 0 ||
	    info.size > 64U << 20)
		return 0;
	size = (socklen_t)(sizeof(struct ipt_get_entries) + info.size);
	struct ipt_get_entries *all = calloc(1, size);
	if (!all)
		return 0;
	memcpy(all->name, "filter", sizeof "filter");
	all->size = info.size;
	/* a chain's policy is its last entry: no match, and a verdict, which is -drop - 1 */
	const unsigned at = info.underflow[NF_INET_FORWARD];
	int r = getsockopt(fd, IPPROTO_IP, IPT_SO_GET_ENTRIES, all, &size);
	if (r >= 0 && at <= info.size &&
	    info.size - at >= sizeof(struct ipt_entry) + sizeof(struct xt_standard_target)) {
		struct xt_standard_target target;
		memcpy(&target, (const char *)all->entrytable + at + sizeof(struct ipt_entry),
		       sizeof target);
		r = target.verdict == -NF_DROP - 1;
	}
	free(all);
	return r > 0;
}

int flat_nft_find_blocker(const struct flat_nft_network *of, char ret_what[static FLAT_NFT_BLOCKER],
			  struct flat_err *err)
{
	char prefix[FLAT_PREFIX_TEXT] = "", buf[FLAT_NFT_REQUEST];
	flat_auto_net *net = NULL;
	flat_auto_list none = { 0 };
	if (!of->cluster_count)
		return 0;
	flat_prefix_text(&of->cluster[0], prefix);
	struct blocker b = { .prefix = prefix,
			     .family = of->cluster[0].ip.family == AF_INET ? "ip" : "ip6",
			     .what = ret_what };
	ret_what[0] = '\0';
	int r = flat_nl_open(NETLINK_NETFILTER, &net, err);
	if (r >= 0)
		r = flat_nl_dump(net, flat_nft_header(buf, NFT_MSG_GETCHAIN, NULL), 0, parse_chain,
				 1, &b, reset_blocker, &none, err, "list the chains of nf_tables");
	if (r < 0)
		return r;
	if (!ret_what[0] && legacy_drops())
		snprintf(ret_what, FLAT_NFT_BLOCKER,
			 "iptables-legacy has the FORWARD policy drop: `iptables-legacy -I FORWARD "
			 "-s %s -j ACCEPT`, and the same with -d; or let its rules be written by "
			 "iptables-nft",
			 prefix);
	return ret_what[0] != '\0';
}
