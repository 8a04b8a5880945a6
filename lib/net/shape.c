// SPDX-License-Identifier: Apache-2.0
/*
 * How fast a link may send and receive. A queueing discipline holds back what is sent, and only
 * that; so what a link receives is led through a second link, an IFB, which sends it on as if it
 * had come in there (drivers/net/ifb.c): its queue is the one that holds back.
 *
 *   to the pod:     bridge ──▶ [tbf] host veth ──▶ pod
 *   from the pod:   pod ──▶ host veth, ingress filter ──▶ [tbf] IFB ──▶ bridge
 */
#include "nl.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
	IFB_QUEUE_LENGTH = 1000, /* as a veth has it; the limit of the token bucket comes first */
	ROOT_HANDLE = 0x10000,	 /* 1: */
	FILTER_PRIORITY = 1,
	TICK_SHIFT = 6, /* PSCHED_SHIFT: a tick is 64 ns */
};
static const uint32_t ingress_handle = TC_H_MAKE(0xffff0000U, 0);

/* ---- making ------------------------------------------------------------------------------------
 */

static void queue_ifb(struct flat_net *net, const struct flat_shaping *want)
{
	const struct ifinfomsg down = { 0 };
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &down, sizeof down);
	flat_nl_put_text(&b, IFLA_IFNAME, want->ifb);
	flat_nl_put(&b, IFLA_ADDRESS, want->ifb_mac.bytes, sizeof want->ifb_mac.bytes);
	if (want->mtu)
		flat_nl_put_u32(&b, IFLA_MTU, want->mtu);
	flat_nl_put_u32(&b, IFLA_TXQLEN, IFB_QUEUE_LENGTH);
	flat_nl_put_u32(&b, IFLA_NUM_TX_QUEUES, 1);
	flat_nl_nest(&b, IFLA_LINKINFO, NULL, 0);
	flat_nl_put_text(&b, IFLA_INFO_KIND, "ifb");
	flat_nl_nest_end(&b);
	flat_nl_queue(net, &b, FLAT_STRICT, "add ifb '%s'", want->ifb);
}

static void queue_bucket(struct flat_net *net, int index, const struct flat_rate *rate)
{
	const struct tcmsg header = { .tcm_family = AF_UNSPEC,
				      .tcm_ifindex = index,
				      .tcm_parent = TC_H_ROOT,
				      .tcm_handle = ROOT_HANDLE };
	struct tc_tbf_qopt parms = { .limit = rate->limit };
	/* the 64-bit rate counts where there is one; with this link layer the kernel computes what
	 * was a table once */
	parms.rate.rate = rate->rate > UINT32_MAX ? UINT32_MAX : (uint32_t)rate->rate;
	parms.rate.linklayer = TC_LINKLAYER_ETHERNET;
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, &header, sizeof header);
	flat_nl_put_text(&b, TCA_KIND, "tbf");
	flat_nl_nest(&b, TCA_OPTIONS, NULL, 0);
	flat_nl_put(&b, TCA_TBF_PARMS, &parms, sizeof parms);
	if (rate->rate > UINT32_MAX)
		flat_nl_put(&b, TCA_TBF_RATE64, &rate->rate, sizeof rate->rate);
	/* in bytes: in ticks, as in parms.buffer, 275 s are the most */
	flat_nl_put_u32(&b, TCA_TBF_BURST, rate->burst);
	flat_nl_nest_end(&b);
	flat_nl_queue(net, &b, FLAT_STRICT, "limit the rate of link %d (qdisc tbf)", index);
}

static void queue_ingress(struct flat_net *net, int index)
{
	const struct tcmsg header = { .tcm_family = AF_UNSPEC,
				      .tcm_ifindex = index,
				      .tcm_parent = TC_H_INGRESS,
				      .tcm_handle = ingress_handle };
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_NEWQDISC, NLM_F_CREATE, &header, sizeof header);
	flat_nl_put_text(&b, TCA_KIND, "ingress");
	flat_nl_queue(net, &b, FLAT_STRICT, "look at what link %d receives (qdisc ingress)", index);
}

/* u32 without a key matches everything; matchall would be its own kernel option. */
static void queue_redirect(struct flat_net *net, int index, int ifb)
{
	const struct tcmsg header = { .tcm_family = AF_UNSPEC,
				      .tcm_ifindex = index,
				      .tcm_parent = ingress_handle,
				      .tcm_info =
					      TC_H_MAKE(FILTER_PRIORITY << 16, htons(ETH_P_ALL)) };
	const struct tc_u32_sel all = { .flags = TC_U32_TERMINAL };
	const struct tc_mirred redirect = { .action = TC_ACT_STOLEN,
					    .eaction = TCA_EGRESS_REDIR,
					    .ifindex = (uint32_t)ifb };
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header);
	flat_nl_put_text(&b, TCA_KIND, "u32");
	flat_nl_nest(&b, TCA_OPTIONS, NULL, 0);
	flat_nl_put(&b, TCA_U32_SEL, &all, sizeof all);
	flat_nl_nest(&b, TCA_U32_ACT, NULL, 0);
	flat_nl_nest(&b, 1, NULL, 0); /* the first action */
	flat_nl_put_text(&b, TCA_ACT_KIND, "mirred");
	flat_nl_nest(&b, TCA_ACT_OPTIONS, NULL, 0);
	flat_nl_put(&b, TCA_MIRRED_PARMS, &redirect, sizeof redirect);
	for (int i = 0; i < 4; i++)
		flat_nl_nest_end(&b);
	flat_nl_queue(net, &b, FLAT_STRICT,
		      "lead what link %d receives to link %d (filter u32, action mirred)", index,
		      ifb);
}

/* Who was told to shape and cannot must say what is missing. The kernel names it at best as
 * "unknown". */
static int explain(struct flat_err *err, int r)
{
	if (!err || (r != -EOPNOTSUPP && r != -ENOENT))
		return r;
	err->code = FLAT_CODE_UNSUPPORTED;
	err->details[0] = '\0';
	return flat_detail(
		err,
		"bandwidth needs ifb, sch_tbf, sch_ingress, cls_u32 and act_mirred of the kernel: `modprobe -a` them, or leave it out");
}

/* The link was made just now, so an IFB of its name is of one that died without a DEL. */
static int add_ifb(struct flat_net *net, const struct flat_shaping *want, int *ret_index,
		   struct flat_err *err)
{
	struct flat_link left;
	struct flat_err exists = { 0 };
	queue_ifb(net, want);
	int r = flat_net_commit(net, &exists);
	if (r == -EEXIST && flat_link_by_name(net, want->ifb, &left, NULL) > 0 &&
	    !strcmp(left.kind, "ifb")) {
		flat_link_del(net, left.index, FLAT_GONE_OK);
		queue_ifb(net, want);
		exists = (struct flat_err){ 0 };
		r = flat_net_commit(net, &exists);
	}
	if (r < 0) {
		if (err && err->code == FLAT_CODE_NONE)
			*err = exists;
		return explain(err, r);
	}
	r = flat_link_find_index(net, want->ifb, ret_index, err);
	return r == 0 ? flat_fail(err, FLAT_CODE_NETWORK, ENODEV, "ifb '%s' is gone again",
				  want->ifb)
		      : r;
}

int flat_shape_link(struct flat_net *net, int index, const struct flat_shaping *want,
		    struct flat_err *err)
{
	struct flat_link_change ifb = FLAT_LINK_CHANGE;
	char path[64];
	int ifb_index = 0, r = 0;
	if (want->from.rate) {
		r = add_ifb(net, want, &ifb_index, err);
		if (r < 0)
			return r;
		snprintf(path, sizeof path, "net/ipv6/conf/%s/disable_ipv6", want->ifb);
		r = flat_sysctl_set(path, "1", err);
		if (r < 0 && r != -ENOENT)
			return r;
		ifb.alias = want->alias;
		ifb.up = 1;
		/* while it is down: a queue of a link that is up is exchanged only after RCU has
		 * seen all of its users go */
		queue_bucket(net, ifb_index, &want->from);
		flat_link_change(net, ifb_index, &ifb, FLAT_STRICT);
		queue_ingress(net, index);
		queue_redirect(net, index, ifb_index);
	}
	if (want->to.rate)
		queue_bucket(net, index, &want->to);
	r = flat_net_commit(net, err);
	return r < 0 ? explain(err, r) : 0;
}

/* ---- looking -----------------------------------------------------------------------------------
 */

struct bucket {
	int index;
	struct flat_rate rate;
	uint32_t ticks; /* that a full bucket lasts; of its lower 32 bits */
	bool is_ingress;
};

static const struct nla_policy tc_policy[TCA_MAX + 1] = {
	[TCA_KIND] = { .type = NLA_STRING },
	[TCA_OPTIONS] = { .type = NLA_NESTED },
};
static const struct nla_policy tbf_policy[TCA_TBF_MAX + 1] = {
	[TCA_TBF_PARMS] = { .minlen = sizeof(struct tc_tbf_qopt) },
	[TCA_TBF_RATE64] = { .type = NLA_U64 },
};

static int parse_bucket(struct nlattr *options, struct bucket *bucket)
{
	struct nlattr *tb[TCA_TBF_MAX + 1];
	struct tc_tbf_qopt parms;
	if (!options || nla_parse_nested(tb, TCA_TBF_MAX, options, tbf_policy) < 0 ||
	    !tb[TCA_TBF_PARMS])
		return -EBADMSG;
	memcpy(&parms, nla_data(tb[TCA_TBF_PARMS]), sizeof parms);
	bucket->rate.rate = tb[TCA_TBF_RATE64] ? nla_get_u64(tb[TCA_TBF_RATE64]) : parms.rate.rate;
	bucket->rate.limit = parms.limit;
	bucket->ticks = parms.buffer;
	return 1;
}

/* Root buckets, and ingress. The kernel dumps the queues of all links; those of most say nothing.
 */
static int parse_qdisc(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[TCA_MAX + 1];
	struct bucket *bucket = elem;
	char kind[16];
	(void)arg;
	if (h->nlmsg_type != RTM_NEWQDISC)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct tcmsg), tb, TCA_MAX, tc_policy) < 0)
		return -EBADMSG;
	const struct tcmsg *tc = nlmsg_data(h);
	flat_nl_text(tb[TCA_KIND], kind, sizeof kind);
	bucket->index = tc->tcm_ifindex;
	bucket->is_ingress = !strcmp(kind, "ingress");
	if (bucket->is_ingress)
		return 1;
	return tc->tcm_parent == TC_H_ROOT && !strcmp(kind, "tbf")
		       ? parse_bucket(tb[TCA_OPTIONS], bucket)
		       : 0;
}

/* Where the first action of a filter redirects to; 0: nowhere. */
static int redirect_of(struct nlattr *actions)
{
	struct nlattr *first[2], *action[TCA_ACT_MAX + 1], *parms[TCA_MIRRED_MAX + 1];
	struct tc_mirred mirred;
	char kind[16];
	if (nla_parse_nested(first, 1, actions, NULL) < 0 || !first[1] ||
	    nla_parse_nested(action, TCA_ACT_MAX, first[1], NULL) < 0)
		return -EBADMSG;
	flat_nl_text(action[TCA_ACT_KIND], kind, sizeof kind);
	if (strcmp(kind, "mirred") != 0 || !action[TCA_ACT_OPTIONS])
		return 0;
	if (nla_parse_nested(parms, TCA_MIRRED_MAX, action[TCA_ACT_OPTIONS], NULL) < 0 ||
	    !parms[TCA_MIRRED_PARMS] || (size_t)nla_len(parms[TCA_MIRRED_PARMS]) < sizeof mirred)
		return -EBADMSG;
	memcpy(&mirred, nla_data(parms[TCA_MIRRED_PARMS]), sizeof mirred);
	return mirred.eaction == TCA_EGRESS_REDIR && mirred.action == TC_ACT_STOLEN
		       ? (int)mirred.ifindex
		       : 0;
}

/* Keeps the redirections of everything. */
static int parse_filter(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[TCA_MAX + 1], *u32[TCA_U32_MAX + 1];
	struct tc_u32_sel sel;
	char kind[16];
	(void)arg;
	if (h->nlmsg_type != RTM_NEWTFILTER)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct tcmsg), tb, TCA_MAX, tc_policy) < 0)
		return -EBADMSG;
	flat_nl_text(tb[TCA_KIND], kind, sizeof kind);
	if (strcmp(kind, "u32") != 0 || !tb[TCA_OPTIONS])
		return 0;
	if (nla_parse_nested(u32, TCA_U32_MAX, tb[TCA_OPTIONS], NULL) < 0)
		return -EBADMSG;
	if (!u32[TCA_U32_SEL] || !u32[TCA_U32_ACT])
		return 0;
	if ((size_t)nla_len(u32[TCA_U32_SEL]) < sizeof sel)
		return -EBADMSG;
	memcpy(&sel, nla_data(u32[TCA_U32_SEL]), sizeof sel);
	int r = sel.nkeys ? 0 : redirect_of(u32[TCA_U32_ACT]);
	*(int *)elem = r;
	return r > 0 ? 1 : r;
}

static const struct bucket *find(const struct flat_nl_list *list, int index, bool is_ingress)
{
	const struct bucket *buckets = (const struct bucket *)list->items;
	for (size_t i = 0; i < list->count; i++)
		if (buckets[i].index == index && buckets[i].is_ingress == is_ingress)
			return &buckets[i];
	return NULL;
}

/* The kernel keeps how long a full bucket lasts, computed with a multiplier of 31 bits, and tells
 * the lower half. */
static bool has_burst(const struct bucket *have, const struct flat_rate *want)
{
	const double ticks = (double)want->burst * 1e9 / (double)want->rate / (1 << TICK_SHIFT);
	const uint64_t whole = (uint64_t)ticks;
	const int32_t off = (int32_t)(have->ticks - (uint32_t)whole);
	const int64_t allowed = 2 + (int64_t)(whole >> 28);
	return off <= allowed && off >= -allowed;
}

static int verify_bucket(const struct flat_nl_list *list, const char *link, int index,
			 const struct flat_rate *want, char what[static FLAT_SHAPE_WHAT])
{
	const struct bucket *have = find(list, index, false);
	if (!have)
		snprintf(what, FLAT_SHAPE_WHAT, "link '%s' has no rate limit (qdisc tbf)", link);
	else if (have->rate.rate != want->rate)
		snprintf(what, FLAT_SHAPE_WHAT, "link '%s' is limited to %llu bytes/s, not %llu",
			 link, (unsigned long long)have->rate.rate, (unsigned long long)want->rate);
	else if (have->rate.limit != want->limit)
		snprintf(what, FLAT_SHAPE_WHAT, "link '%s' lets %u bytes wait, not %u", link,
			 have->rate.limit, want->limit);
	else if (!has_burst(have, want))
		snprintf(what, FLAT_SHAPE_WHAT, "link '%s' has another burst than %u bytes", link,
			 want->burst);
	else
		return 1;
	return 0;
}

/* The two ends of the detour of what the link receives. */
static int verify_detour(struct flat_net *net, const struct flat_nl_list *list, const char *link,
			 int index, const struct flat_shaping *want,
			 char what[static FLAT_SHAPE_WHAT], struct flat_err *err)
{
	const struct tcmsg header = { .tcm_family = AF_UNSPEC,
				      .tcm_ifindex = index,
				      .tcm_parent = ingress_handle };
	struct flat_link ifb;
	flat_auto_builder b;
	flat_auto_list redirects = { 0 };
	int r = flat_link_by_name(net, want->ifb, &ifb, err);
	if (r < 0)
		return r;
	if (r == 0 || strcmp(ifb.kind, "ifb") != 0) {
		snprintf(what, FLAT_SHAPE_WHAT, "ifb '%s' is missing", want->ifb);
		return 0;
	}
	if (!ifb.up) {
		snprintf(what, FLAT_SHAPE_WHAT, "ifb '%s' is down: `ip link set %s up`", want->ifb,
			 want->ifb);
		return 0;
	}
	flat_nl_begin(&b, RTM_GETTFILTER, 0, &header, sizeof header);
	if (find(list, index, true))
		r = flat_nl_dump(net, flat_nl_message(&b), 0, parse_filter, sizeof(int), NULL, NULL,
				 &redirects, err, "list filters of link '%s'", link);
	if (r < 0)
		return r;
	for (size_t i = 0; i < redirects.count; i++)
		if (((const int *)redirects.items)[i] == ifb.index)
			return verify_bucket(list, want->ifb, ifb.index, &want->from, what);
	snprintf(what, FLAT_SHAPE_WHAT, "what link '%s' receives is not led to ifb '%s'", link,
		 want->ifb);
	return 0;
}

int flat_shape_verify(struct flat_net *net, const char *link, const struct flat_shaping *want,
		      char ret_what[static FLAT_SHAPE_WHAT], struct flat_err *err)
{
	const struct tcmsg header = { .tcm_family = AF_UNSPEC };
	flat_auto_builder b;
	flat_auto_list list = { 0 };
	int index = 0;
	int r = flat_link_find_index(net, link, &index, err);
	if (r < 0)
		return r;
	if (r == 0) {
		snprintf(ret_what, FLAT_SHAPE_WHAT, "link '%s' is missing", link);
		return 0;
	}
	flat_nl_begin(&b, RTM_GETQDISC, 0, &header, sizeof header);
	r = flat_nl_dump(net, flat_nl_message(&b), 0, parse_qdisc, sizeof(struct bucket), NULL,
			 NULL, &list, err, "list queueing disciplines");
	if (r >= 0)
		r = 1;
	if (r > 0 && want->to.rate)
		r = verify_bucket(&list, link, index, &want->to, ret_what);
	if (r > 0 && want->from.rate)
		r = verify_detour(net, &list, link, index, want, ret_what, err);
	return r;
}
