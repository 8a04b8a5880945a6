// SPDX-License-Identifier: Apache-2.0
/*
 * Which nodes are believed. Anybody who can write a node's record can write nonsense into it, and a
 * route is made of what it says; so a record must not be able to take away what others had before.
 *
 * Nodes are heard in the order in which they were there: this one first, then by `since`, then by
 * name. Each either gets all of its subnets or none. What is claimed is kept as a forest: all
 * prefixes, subnets and single addresses alike, sorted, each with the smallest one that contains it
 * as its parent. Two prefixes overlap only when one contains the other; so a claim is held against
 * its ancestors, of which there are at most 128, and against a mark that every claim leaves on its
 * own.
 */
#include <flatnet/cluster.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { NONE = -1 };

/* A distinct prefix. Indices of nodes, NONE where there is none. */
struct place {
	struct flat_prefix prefix;
	int parent;
	int owner, owner_below;	    /* whose subnet it is; a subnet strictly inside of it */
	int address, address_below; /* whose address it is; one strictly inside of it */
};

struct told_mac {
	struct flat_mac mac;
	int8_t family;
	int rank, node;
};

struct court {
	const struct flat_cluster_conf *conf;
	const struct flat_node *const *nodes;
	size_t count;
	int self; /* NONE: not known */
	int *order;
	struct place *places;
	size_t place_count;
	struct flat_judgement *out;
};

/* ---- what a record says by itself --------------------------------------------------------------
 */

FLAT_PRINTF(3, 4)
static void settle(struct flat_judgement *j, enum flat_verdict verdict, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(j->why, sizeof j->why, fmt, ap);
	va_end(ap);
	j->verdict = verdict;
}
#define REFUSE(j, ...) settle(j, FLAT_NODE_REFUSED, __VA_ARGS__)

/* NULL: others could be reached at it. */
static const char *fault_of_address(const struct flat_ip *ip)
{
	static const uint8_t zero[16], one[16] = { [15] = 1 };
	const uint8_t *b = ip->bytes;
	if (!memcmp(b, zero, flat_ip_size(ip)))
		return "unspecified";
	if (ip->family == AF_INET)
		return b[0] == 127		    ? "a loopback address"
		       : b[0] >= 224		    ? "a multicast or reserved address"
		       : b[0] == 0		    ? "reserved"
		       : b[0] == 169 && b[1] == 254 ? "a link-local address"
						    : NULL;
	return !memcmp(b, one, sizeof one)	       ? "a loopback address"
	       : b[0] == 0xff			       ? "a multicast address"
	       : b[0] == 0xfe && (b[1] & 0xc0) == 0x80 ? "a link-local address"
						       : NULL;
}

static bool is_unicast(const struct flat_mac *mac)
{
	static const struct flat_mac zero;
	return !(mac->bytes[0] & 1) && memcmp(mac, &zero, sizeof zero) != 0;
}

static bool is_of_cluster(const struct flat_cluster_conf *conf, const struct flat_prefix *prefix)
{
	for (size_t i = 0; i < conf->cidr_count; i++)
		if (conf->cidrs[i].len <= prefix->len &&
		    flat_prefix_contains(&conf->cidrs[i], &prefix->ip))
			return true;
	return false;
}

static bool has_address(const struct flat_node *node)
{
	return node->addresses[FLAT_V4].family || node->addresses[FLAT_V6].family;
}

/* How many of its subnets can be looked at. */
static size_t cidr_count(const struct flat_node *node)
{
	return node->pod_cidr_count <= FLAT_NODE_CIDRS ? node->pod_cidr_count : 0;
}

static bool is_sound(const struct court *c, const struct flat_node *node, struct flat_judgement *j)
{
	const struct flat_node *self = c->self == NONE ? NULL : c->nodes[c->self];
	char text[FLAT_PREFIX_TEXT], clean_text[FLAT_PREFIX_TEXT];
	if (node->pod_cidr_count > FLAT_NODE_CIDRS) {
		REFUSE(j, "it lists %zu pod subnets: at most %d are possible", node->pod_cidr_count,
		       FLAT_NODE_CIDRS);
		return false;
	}
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_ip *ip = &node->addresses[f];
		const char *fault = ip->family ? fault_of_address(ip) : NULL;
		if (fault)
			REFUSE(j, "its address %s is %s: give it one that others reach it by",
			       flat_ip_text(ip, text), fault);
		else if (ip->family && self && flat_ip_equal(ip, &self->addresses[f]))
			REFUSE(j,
			       "its address %s is this node's own: remove its record if it has been renamed",
			       flat_ip_text(ip, text));
		else if (node->has_vtep[f] && !is_unicast(&node->vtep[f]))
			REFUSE(j, "the MAC %s that it told is none of a single device",
			       flat_mac_text(&node->vtep[f], text));
		else
			continue;
		return false;
	}
	for (size_t i = 0; i < node->pod_cidr_count; i++) {
		const struct flat_prefix *cidr = &node->pod_cidrs[i];
		const struct flat_prefix clean = { flat_prefix_first(cidr), cidr->len };
		if (!flat_prefix_equal(cidr, &clean))
			REFUSE(j, "its pod subnet %s has host bits set: the subnet is %s",
			       flat_prefix_text(cidr, text), flat_prefix_text(&clean, clean_text));
		else if (!is_of_cluster(c->conf, cidr))
			REFUSE(j,
			       "its pod subnet %s is not inside clusterCIDR: give it another, or extend clusterCIDR",
			       flat_prefix_text(cidr, text));
		else
			continue;
		return false;
	}
	return true;
}

/* ---- the forest --------------------------------------------------------------------------------
 */

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;
	int c = flat_ip_compare(&x->prefix.ip, &y->prefix.ip);
	return c ? c : (int)x->prefix.len - (int)y->prefix.len;
}

static struct flat_prefix single(const struct flat_ip *ip)
{
	return (struct flat_prefix){ *ip, (uint8_t)flat_ip_bits(ip) };
}

static struct flat_prefix clean(const struct flat_prefix *prefix)
{
	return (struct flat_prefix){ flat_prefix_first(prefix), prefix->len };
}

static int plant(struct court *c, struct flat_err *err)
{
	size_t total = 0, n = 0, kept = 0;
	for (size_t i = 0; i < c->count; i++)
		total += cidr_count(c->nodes[i]) + FLAT_FAMILIES;
	c->places = malloc((total + 1) * sizeof *c->places);
	if (!c->places)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "judge the nodes");
	for (size_t i = 0; i < c->count; i++) {
		const struct flat_node *node = c->nodes[i];
		for (size_t k = 0; k < cidr_count(node); k++)
			c->places[n++].prefix = clean(&node->pod_cidrs[k]);
		for (int f = 0; f < FLAT_FAMILIES; f++)
			if (node->addresses[f].family)
				c->places[n++].prefix = single(&node->addresses[f]);
	}
	qsort(c->places, n, sizeof *c->places, compare_places);
	for (size_t i = 0; i < n; i++) {
		const struct flat_prefix prefix = c->places[i].prefix;
		int parent = (int)kept - 1;
		if (kept && flat_prefix_equal(&c->places[kept - 1].prefix, &prefix))
			continue;
		while (parent != NONE && !flat_prefix_overlaps(&c->places[parent].prefix, &prefix))
			parent = c->places[parent].parent;
		c->places[kept++] = (struct place){ prefix, parent, NONE, NONE, NONE, NONE };
	}
	c->place_count = kept;
	return 0;
}

static struct place *find(const struct court *c, const struct flat_prefix *prefix)
{
	const struct place key = { .prefix = *prefix };
	return bsearch(&key, c->places, c->place_count, sizeof key, compare_places);
}

static struct place *parent_of(const struct court *c, const struct place *place)
{
	return place->parent == NONE ? NULL : &c->places[place->parent];
}

/* ---- what it says of others' --------------------------------------------------------------------
 */

static bool is_free(const struct court *c, int i, const struct flat_prefix *cidr,
		    struct flat_judgement *j)
{
	const struct place *place = find(c, cidr);
	char text[FLAT_PREFIX_TEXT], ip[FLAT_IP_TEXT];
	int owner = place->owner_below;
	int address = place->address != NONE ? place->address : place->address_below;
	for (const struct place *p = place; p && owner == NONE; p = parent_of(c, p))
		owner = p->owner;
	flat_prefix_text(cidr, text);
	if (owner == i)
		REFUSE(j, "its pod subnet %s overlaps another one of its own", text);
	else if (owner != NONE && owner == c->self)
		REFUSE(j, "its pod subnet %s overlaps this node's own: one of them needs another",
		       text);
	else if (owner != NONE)
		REFUSE(j,
		       "its pod subnet %s overlaps one of node '%.64s', which was there before it",
		       text, c->nodes[owner]->name);
	else if (address != NONE)
		REFUSE(j, "its pod subnet %s contains %s, the address of %s'%.64s'", text,
		       flat_ip_text(
			       &c->nodes[address]->addresses[flat_family_index(cidr->ip.family)],
			       ip),
		       address == c->self ? "this node " : "node ", c->nodes[address]->name);
	return owner == NONE && address == NONE;
}

static bool is_reachable(const struct court *c, const struct flat_ip *ip, struct flat_judgement *j)
{
	const struct flat_prefix at = single(ip);
	char address[FLAT_IP_TEXT], subnet[FLAT_PREFIX_TEXT];
	for (const struct place *p = find(c, &at); p; p = parent_of(c, p))
		if (p->owner != NONE) {
			REFUSE(j, "its address %s is in the pod subnet %s of node '%.64s'",
			       flat_ip_text(ip, address), flat_prefix_text(&p->prefix, subnet),
			       c->nodes[p->owner]->name);
			return false;
		}
	return true;
}

static void claim_subnet(const struct court *c, int i, const struct flat_prefix *cidr)
{
	struct place *p = find(c, cidr);
	p->owner = i;
	while ((p = parent_of(c, p)))
		p->owner_below = i;
}

static void claim_address(const struct court *c, int i, const struct flat_ip *ip)
{
	const struct flat_prefix at = single(ip);
	struct place *p = find(c, &at);
	p->address = i;
	while ((p = parent_of(c, p)))
		p->address_below = i;
}

/* Its addresses count against subnets of those after it also when it is refused or waits: it may
 * well be a host that others must reach, and a route into its subnet would cut it off. Unless they
 * are the reason. */
static void hear(const struct court *c, int i)
{
	const struct flat_node *node = c->nodes[i];
	struct flat_judgement *j = &c->out[i];
	bool sound = j->verdict != FLAT_NODE_REFUSED;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_ip *ip = &node->addresses[f];
		if (!ip->family || fault_of_address(ip))
			continue;
		if (i != c->self && c->self != NONE &&
		    flat_ip_equal(ip, &c->nodes[c->self]->addresses[f]))
			continue;
		struct flat_judgement other = { 0 };
		if (is_reachable(c, ip, sound ? j : &other))
			claim_address(c, i, ip);
		else
			sound = false;
	}
	for (size_t k = 0; sound && k < node->pod_cidr_count; k++) {
		sound = is_free(c, i, &node->pod_cidrs[k], j);
		for (size_t m = 0; sound && m < k; m++)
			if (flat_prefix_overlaps(&node->pod_cidrs[k], &node->pod_cidrs[m])) {
				char text[FLAT_PREFIX_TEXT];
				REFUSE(j, "its pod subnet %s overlaps another one of its own",
				       flat_prefix_text(&node->pod_cidrs[k], text));
				sound = false;
			}
	}
	for (size_t k = 0; sound && k < node->pod_cidr_count; k++)
		claim_subnet(c, i, &node->pod_cidrs[k]);
	if (sound && !node->pod_cidr_count)
		settle(j, FLAT_NODE_WAITING, "it has no pod subnet yet");
	else if (sound && !has_address(node))
		settle(j, FLAT_NODE_WAITING, "it has told no address yet");
}

/* ---- one MAC, one device -----------------------------------------------------------------------
 */

static int compare_macs(const void *a, const void *b)
{
	const struct told_mac *x = a, *y = b;
	int c = memcmp(&x->mac, &y->mac, sizeof x->mac);
	c = c ? c : x->family - y->family;
	return c ? c : (x->rank > y->rank) - (x->rank < y->rank);
}

/* Whoever tells another's MAC would get its packets: a forwarding database has one host for each.
 */
static int judge_macs(const struct court *c, struct flat_err *err)
{
	flat_auto_free struct told_mac *macs =
		malloc((c->count * FLAT_FAMILIES + 1) * sizeof *macs);
	size_t n = 0;
	if (!macs)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "judge the nodes");
	for (size_t rank = 0; rank < c->count; rank++) {
		const int i = c->order[rank];
		const struct flat_node *node = c->nodes[i];
		if (c->out[i].verdict != FLAT_NODE_ACCEPTED && i != c->self)
			continue;
		if (!cidr_count(node))
			continue;
		const struct flat_mac derived = flat_node_vtep_mac(node);
		for (int f = 0; f < FLAT_FAMILIES; f++)
			macs[n++] = (struct told_mac){ node->has_vtep[f] ? node->vtep[f] : derived,
						       (int8_t)f, (int)rank, i };
	}
	qsort(macs, n, sizeof *macs, compare_macs);
	for (size_t k = 1, first = 0; k < n; k++) {
		char text[FLAT_MAC_TEXT];
		if (memcmp(&macs[first].mac, &macs[k].mac, sizeof macs[k].mac) != 0 ||
		    macs[first].family != macs[k].family)
			first = k;
		else if (c->out[macs[k].node].verdict == FLAT_NODE_ACCEPTED)
			REFUSE(&c->out[macs[k].node],
			       "its VXLAN device has the MAC %s, which is that of node '%.64s'",
			       flat_mac_text(&macs[k].mac, text), c->nodes[macs[first].node]->name);
	}
	return 0;
}

/* ---- all together ------------------------------------------------------------------------------
 */

static int compare_rank(const void *a, const void *b, void *arg)
{
	const struct court *c = arg;
	const int i = *(const int *)a, k = *(const int *)b;
	const struct flat_node *x = c->nodes[i], *y = c->nodes[k];
	if ((i == c->self) != (k == c->self))
		return i == c->self ? -1 : 1;
	if (x->since != y->since)
		return x->since < y->since ? -1 : 1;
	return strcmp(x->name, y->name);
}

int flat_cluster_judge(const struct flat_cluster_conf *conf, const struct flat_node *const *nodes,
		       size_t count, const char *self, struct flat_judgement *ret_judgements,
		       struct flat_err *err)
{
	struct court c = {
		.conf = conf, .nodes = nodes, .count = count, .self = NONE, .out = ret_judgements
	};
	flat_auto_free int *order = malloc((count + 1) * sizeof *order);
	if (!order)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "judge the nodes");
	c.order = order;
	for (size_t i = 0; i < count; i++) {
		order[i] = (int)i;
		if (self && !strcmp(nodes[i]->name, self))
			c.self = (int)i;
	}
	qsort_r(order, count, sizeof *order, compare_rank, &c);
	int r = plant(&c, err);
	for (size_t rank = 0; r >= 0 && rank < count; rank++) {
		const int i = order[rank];
		ret_judgements[i] = (struct flat_judgement){ .verdict = FLAT_NODE_ACCEPTED };
		if (i != c.self) {
			is_sound(&c, nodes[i], &ret_judgements[i]);
			hear(&c, i);
			continue;
		}
		ret_judgements[i].verdict = FLAT_NODE_SELF;
		for (size_t k = 0; k < cidr_count(nodes[i]); k++) {
			const struct flat_prefix cidr = clean(&nodes[i]->pod_cidrs[k]);
			claim_subnet(&c, i, &cidr);
		}
		for (int f = 0; f < FLAT_FAMILIES; f++)
			if (nodes[i]->addresses[f].family)
				claim_address(&c, i, &nodes[i]->addresses[f]);
	}
	if (r >= 0 && conf->backend != FLAT_BACKEND_DIRECT)
		r = judge_macs(&c, err);
	free(c.places);
	return r;
}
