// SPDX-License-Identifier: Apache-2.0
/*
 * Bandwidth: what the reference bandwidth plugin is for; "ingress" is what the pod receives. The
 * rates are decided here, and kept by the host veth and an IFB beside it (flat_shape_link()). The
 * IFB's name follows from the veth's: so it is found when nothing else is known, and is nobody's
 * when there is no such veth.
 */
#include "plan-internal.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	LATENCY_MS = 25,      /* of a packet behind a full bucket: the reference's */
	RATE_MIN = 8,	      /* the kernel counts bytes */
	FRAME = ETH_HLEN + 4, /* what a packet has beside its MTU: header, VLAN tag */
	MTU = ETH_DATA_LEN,   /* the kernel's own, of veth and ifb */
	BURST_MS = 10,
	BURST_MIN = 64 << 10, /* what TCP sends in one piece */
};
#define BITS_MAX  ((INT64_C(1) << 53) - 1)
#define BURST_MAX INT64_C(34359738359) /* the reference's 4 GB: bytes fit 32 bits */

/* As the JSON has it. */
struct raw_bandwidth {
	int64_t ingress_rate, ingress_burst, egress_rate, egress_burst;
	bool given[4];
	struct flat_json_list shaped, unshaped;
};
struct raw {
	struct raw_bandwidth own, runtime;
};

#define RAW(type, field) type, offsetof(struct raw_bandwidth, field)
#define BANDWIDTH_FIELDS                                                                           \
	{ .key = "ingressRate",                                                                    \
	  RAW(FLAT_JSON_INT, ingress_rate),                                                        \
	  .max = BITS_MAX,                                                                         \
	  .offset2 = offsetof(struct raw_bandwidth, given[0]) },                                   \
		{ .key = "ingressBurst",                                                           \
		  RAW(FLAT_JSON_INT, ingress_burst),                                               \
		  .max = BURST_MAX,                                                                \
		  .offset2 = offsetof(struct raw_bandwidth, given[1]) },                           \
		{ .key = "egressRate",                                                             \
		  RAW(FLAT_JSON_INT, egress_rate),                                                 \
		  .max = BITS_MAX,                                                                 \
		  .offset2 = offsetof(struct raw_bandwidth, given[2]) },                           \
		{ .key = "egressBurst",                                                            \
		  RAW(FLAT_JSON_INT, egress_burst),                                                \
		  .max = BURST_MAX,                                                                \
		  .offset2 = offsetof(struct raw_bandwidth, given[3]) },                           \
		{ .key = "shapedSubnets", RAW(FLAT_JSON_STRING_LIST, shaped) },                    \
	{                                                                                          \
		.key = "unshapedSubnets", RAW(FLAT_JSON_STRING_LIST, unshaped)                     \
	}

static const struct flat_json_field bandwidth_fields[] = {
	BANDWIDTH_FIELDS,
	FLAT_JSON_END,
};
static const struct flat_json_field runtime_fields[] = {
	{ .key = "bandwidth",
	  FLAT_JSON_OBJECT,
	  offsetof(struct raw, runtime),
	  .table = bandwidth_fields },
	FLAT_JSON_END,
};
static const struct flat_json_field fields[] = {
	BANDWIDTH_FIELDS, /* of `own`, which is the first */
	{ .key = "runtimeConfig", FLAT_JSON_OBJECT, 0, .table = runtime_fields },
	FLAT_JSON_END,
};

/* Which part of the traffic counts would be a matter of filters; in the reference it is one of
 * versions after 1.9.1. */
static int refuse_subnets(const char *where, const char *key, const struct flat_json_list *list,
			  struct flat_err *err)
{
	if (!list->count)
		return 0;
	return flat_fail(
		err, FLAT_CODE_UNSUPPORTED, 0,
		"%s%s: [\"%.64s\"%s] is not supported: leave it out, a rate is for all of a pod's traffic",
		where, key, ((const char *const *)list->items)[0], list->count > 1 ? ", ..." : "");
}

/* What Kubernetes' runtimes send with a rate, because a burst has to be there: the largest number
 * of 32 bits, "no limit". Taken at its word it would let the first half gigabyte of each pod pass
 * at any speed. */
static bool is_no_limit(int64_t burst)
{
	return burst == INT32_MAX || burst == UINT32_MAX;
}

static int take(const char *where, const char *rate_key, int64_t rate, const char *burst_key,
		int64_t burst, struct flat_bandwidth *ret_bandwidth, struct flat_err *err)
{
	if (rate && !burst)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s%s: if rate is set, burst must also be set: 1 to %lld bits",
				 where, burst_key, (long long)BURST_MAX);
	if (burst && !rate)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"%s%s: if burst is set, rate must also be set: %d to %lld bits per second",
			where, rate_key, RATE_MIN, (long long)BITS_MAX);
	if (rate && rate < RATE_MIN)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"%s%s: %lld is too little: 0 (no limit) or %d to %lld bits per second",
			where, rate_key, (long long)rate, RATE_MIN, (long long)BITS_MAX);
	*ret_bandwidth = (struct flat_bandwidth){
		.rate = (uint64_t)rate,
		.burst = is_no_limit(burst) ? 0 : (uint64_t)burst,
	};
	return 0;
}

/* A pod's own annotation, where the administrator lets it count, goes before what he has for all
 * pods, and behind what the runtime asks for this one. */
static void take_annotation(uint64_t rate, bool is_own, struct flat_bandwidth *bandwidth)
{
	if (rate && (is_own || !bandwidth->rate))
		*bandwidth = (struct flat_bandwidth){ .rate = rate };
}

/* One object counts, all of it: the configuration's own when it has any of the keys, as with the
 * reference, which refuses what is wrong in that one only. */
static int parse(struct flat_request *req, const struct flat_log *log, struct flat_conf *conf,
		 struct flat_err *err)
{
	struct raw raw = { 0 };
	(void)log;
	int r = flat_json_decode(req->json, "", fields, &raw, &req->arena, err);
	if (r < 0)
		return r;
	bool is_own = raw.own.shaped.count || raw.own.unshaped.count;
	for (size_t i = 0; i < FLAT_LEN(raw.own.given); i++)
		is_own |= raw.own.given[i];
	const struct raw_bandwidth *b = is_own ? &raw.own : &raw.runtime;
	const char *where = is_own ? "" : "runtimeConfig.bandwidth.";
	r = refuse_subnets(where, "shapedSubnets", &b->shaped, err);
	if (r >= 0)
		r = refuse_subnets(where, "unshapedSubnets", &b->unshaped, err);
	if (r >= 0)
		r = take(where, "ingressRate", b->ingress_rate, "ingressBurst", b->ingress_burst,
			 &conf->ingress, err);
	if (r >= 0)
		r = take(where, "egressRate", b->egress_rate, "egressBurst", b->egress_burst,
			 &conf->egress, err);
	if (r < 0)
		return r;
	take_annotation(conf->annotations.ingress_rate, is_own, &conf->ingress);
	take_annotation(conf->annotations.egress_rate, is_own, &conf->egress);
	return 0;
}

/* A bucket smaller than a packet would let none pass; larger ones (GSO) are cut to its size. */
static struct flat_rate plan_rate(const struct flat_bandwidth *bandwidth, uint32_t mtu)
{
	const uint64_t rate = bandwidth->rate / 8, packet = (mtu ? mtu : MTU) + FRAME;
	uint64_t burst = bandwidth->burst / 8;
	if (!bandwidth->rate)
		return (struct flat_rate){ 0 };
	if (!bandwidth->burst)
		burst = rate * BURST_MS / 1000 > BURST_MIN ? rate * BURST_MS / 1000 : BURST_MIN;
	burst = burst < packet ? packet : burst > UINT32_MAX ? UINT32_MAX : burst;
	const uint64_t limit = rate * LATENCY_MS / 1000 + burst;
	return (struct flat_rate){
		.rate = rate,
		.burst = (uint32_t)burst,
		.limit = limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit,
	};
}

static int plan(struct flat_request *req, const struct flat_conf *conf, struct flat_attachment *a,
		struct flat_err *err)
{
	(void)req;
	(void)err;
	a->shaping.to = plan_rate(&conf->ingress, a->mtu);
	a->shaping.from = plan_rate(&conf->egress, a->mtu);
	if (!a->shaping.from.rate)
		return 0;
	flat_name_ifb(a->host_ifname, a->shaping.ifb);
	const uint64_t hash = flat_hash(0, a->shaping.ifb, strlen(a->shaping.ifb));
	a->shaping.ifb_mac = (struct flat_mac){ { 0x0e, 0x5d } };
	memcpy(a->shaping.ifb_mac.bytes + 2, &hash, 4);
	a->shaping.mtu = a->mtu;
	/* not as the veth's alias begins: it stands for no reservation */
	snprintf(a->ifb_alias, sizeof a->ifb_alias, "from %s: %.230s", a->host_ifname, a->alias);
	a->shaping.alias = a->ifb_alias;
	return 0;
}

static bool is_shaped(const struct flat_attachment *a)
{
	return a->shaping.to.rate || a->shaping.from.rate;
}

static int apply(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		 struct flat_applied *applied, const struct flat_log *log, struct flat_err *err)
{
	(void)netns_fd;
	(void)log;
	if (!is_shaped(a))
		return 0;
	applied->features |= FLAT_FEATURE_BANDWIDTH;
	int r = flat_shape_link(net, applied->veth_index, &a->shaping, err);
	return r < 0 ? flat_wrap(err, "bandwidth") : 0;
}

static int verify(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		  struct flat_err *err)
{
	char what[FLAT_SHAPE_WHAT];
	(void)netns_fd;
	if (!is_shaped(a))
		return 0;
	int r = flat_shape_verify(net, a->host_ifname, &a->shaping, what, err);
	return r == 0 ? flat_fail(err, FLAT_CODE_MISMATCH, 0, "bandwidth: %s", what) : r;
}

/* The IFB goes with the host veth. */
static int remove_ifb(struct flat_net *net, struct flat_removal *removal, struct flat_err *err)
{
	char name[FLAT_IFNAME_LEN];
	struct flat_link link;
	int index;
	if (!flat_name_has_ifb(removal->host_ifname))
		return 0;
	flat_name_ifb(removal->host_ifname, name);
	int r = flat_link_find_index(net, name, &index, err);
	if (r > 0)
		r = flat_link_by_index(net, index, &link, err);
	if (r > 0 && strcmp(link.kind, "ifb") != 0)
		r = 0;
	if (r > 0)
		removal->links[removal->link_count++] = index;
	return r;
}

/* A failed ADD takes the link back, and the IFB with it. */
static int undo(const struct flat_attachment *a, struct flat_net *net,
		const struct flat_applied *applied, struct flat_err *err)
{
	(void)a;
	(void)net;
	(void)applied;
	(void)err;
	return 0;
}

/* ---- sweep -------------------------------------------------------------------------------------
 */

struct sweep {
	struct flat_net *net;
	int *indices;
	size_t count, room;
	struct flat_err *err;
};

static int collect(struct sweep *s, int index)
{
	if (s->count == s->room) {
		const size_t room = s->room ? 2 * s->room : 16;
		int *more = realloc(s->indices, room * sizeof *more);
		if (!more)
			return flat_fail(s->err, FLAT_CODE_INTERNAL, ENOMEM, "list IFBs");
		s->indices = more;
		s->room = room;
	}
	s->indices[s->count++] = index;
	return 0;
}

/* An ADD makes the veth first; one that comes by now makes another IFB, with another index. */
static int judge(void *arg, const struct flat_link *link)
{
	struct sweep *s = arg;
	char veth[FLAT_IFNAME_LEN];
	int index;
	if (strncmp(link->name, "fbw", 3) != 0)
		return 0;
	snprintf(veth, sizeof veth, "veth%.11s", link->name + 3);
	if (!flat_name_has_ifb(veth))
		return 0;
	int r = flat_link_find_index(s->net, veth, &index, s->err);
	return r == 0 ? collect(s, link->index) : r < 0 ? r : 0;
}

static int sweep(struct flat_net *net, const struct flat_log *log, struct flat_err *err)
{
	struct sweep s = { .net = net, .err = err };
	(void)log;
	int r = flat_link_each(net, "ifb", 0, judge, &s, err);
	if (r >= 0 && s.count)
		r = flat_link_del_many(net, s.indices, s.count, err);
	free(s.indices);
	return r < 0 ? r : (int)s.count;
}

const struct flat_feature flat_feature_bandwidth = {
	.name = "bandwidth",
	.bit = FLAT_FEATURE_BANDWIDTH,
	.fields = fields,
	.parse = parse,
	.plan = plan,
	.apply = apply,
	.undo = undo,
	.verify = verify,
	.remove = remove_ifb,
	.sweep = sweep,
};
