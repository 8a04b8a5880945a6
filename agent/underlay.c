// SPDX-License-Identifier: Apache-2.0
#include "underlay.h"

#include "source.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { CANDIDATES_MAX = 64, ADDRESSES_MAX = 16 };

/* A link that could be it, with its addresses. */
struct candidate {
	struct flat_link link;
	int index;
	bool ours; /* never taken */
	struct {
		struct flat_prefix usable[ADDRESSES_MAX], onlink[ADDRESSES_MAX];
		size_t usable_count, onlink_count;
	} of[FLAT_FAMILIES];
};

struct search {
	const struct flat_agent_conf *conf;
	const struct flat_node *told;
	struct flat_net *net;
	struct candidate items[CANDIDATES_MAX];
	size_t count;
};

/* What was chosen: a place in the search, and one of its addresses. */
struct choice {
	const struct candidate *link; /* NULL: none */
	const struct flat_ip *address;
};

/* ---- what there is -----------------------------------------------------------------------------
 */

static bool is_special(const struct flat_ip *ip)
{
	const uint8_t *b = ip->bytes;
	if (ip->family == AF_INET)
		return b[0] == 127 || b[0] == 0 || b[0] >= 224 || (b[0] == 169 && b[1] == 254);
	static const uint8_t loopback[16] = { [15] = 1 };
	return !memcmp(b, loopback, sizeof loopback) || b[0] == 0xff ||
	       (b[0] == 0xfe && (b[1] & 0xc0) == 0x80);
}

static bool is_flat(const struct flat_agent_conf *conf, const struct flat_ip *ip)
{
	for (size_t i = 0; i < conf->cluster.cidr_count; i++)
		if (flat_prefix_contains(&conf->cluster.cidrs[i], ip))
			return true;
	return false;
}

static int collect(void *arg, const struct flat_addr *addr)
{
	struct search *s = arg;
	const struct flat_prefix *prefix = &addr->address;
	const int f = flat_family_index(prefix->ip.family);
	struct candidate *c = s->items;
	if (f < 0 || is_special(&prefix->ip) || is_flat(s->conf, &prefix->ip))
		return 0;
	while (c < s->items + s->count && c->index != addr->index)
		c++;
	if (c == s->items + CANDIDATES_MAX)
		return 0;
	if (c == s->items + s->count) {
		c->index = addr->index;
		s->count++;
	}
	if (prefix->len < flat_ip_bits(&prefix->ip) && c->of[f].onlink_count < ADDRESSES_MAX)
		c->of[f].onlink[c->of[f].onlink_count++] =
			(struct flat_prefix){ flat_prefix_first(prefix), prefix->len };
	const uint32_t passing = IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED |
				 (prefix->ip.family == AF_INET6 ? IFA_F_TEMPORARY : 0);
	if (!(addr->flags & passing) && c->of[f].usable_count < ADDRESSES_MAX)
		c->of[f].usable[c->of[f].usable_count++] = *prefix;
	return 0;
}

static int look(struct search *s, struct flat_err *err)
{
	const struct flat_cluster_conf *cluster = &s->conf->cluster;
	int r = flat_addr_each(s->net, 0, 0, collect, s, err);
	for (size_t i = 0; r >= 0 && i < s->count; i++) {
		struct candidate *c = &s->items[i];
		r = flat_link_by_index(s->net, c->index, &c->link, err);
		c->ours = r == 0 || c->link.loopback ||
			  !strcmp(c->link.name, s->conf->cni.bridge) ||
			  !strcmp(c->link.name, cluster->link[FLAT_V4]) ||
			  !strcmp(c->link.name, cluster->link[FLAT_V6]);
	}
	return r;
}

/* ---- the choice --------------------------------------------------------------------------------
 */

/* A link's own address of a family: the one that this node is told to have, else the first. */
static struct choice take(const struct search *s, const struct candidate *c, int f)
{
	if (!c || c->ours || !c->of[f].usable_count)
		return (struct choice){ 0 };
	for (size_t i = 0; s->told && i < c->of[f].usable_count; i++)
		if (flat_ip_equal(&c->of[f].usable[i].ip, &s->told->addresses[f]))
			return (struct choice){ c, &c->of[f].usable[i].ip };
	return (struct choice){ c, &c->of[f].usable[0].ip };
}

static struct choice take_index(const struct search *s, int index, int f)
{
	for (size_t i = 0; index && i < s->count; i++)
		if (s->items[i].index == index)
			return take(s, &s->items[i], f);
	return (struct choice){ 0 };
}

static struct choice by_name(const struct search *s, int f)
{
	for (size_t i = 0; i < s->count; i++)
		if (!strcmp(s->items[i].link.name, s->conf->underlay.interface))
			return take(s, &s->items[i], f);
	return (struct choice){ 0 };
}

/* The first address that fits, of links that are none of ours. */
static struct choice by_address(const struct search *s, int f,
				bool (*fits)(const void *arg, const struct flat_ip *ip),
				const void *arg)
{
	for (size_t i = 0; i < s->count; i++)
		for (size_t k = 0; !s->items[i].ours && k < s->items[i].of[f].usable_count; k++)
			if (fits(arg, &s->items[i].of[f].usable[k].ip))
				return (struct choice){ &s->items[i],
							&s->items[i].of[f].usable[k].ip };
	return (struct choice){ 0 };
}

static bool fits_regex(const void *arg, const struct flat_ip *ip)
{
	char text[FLAT_IP_TEXT];
	return regexec(arg, flat_ip_text(ip, text), 0, NULL, 0) == 0;
}

static struct choice by_regex(const struct search *s, int f)
{
	struct choice choice = { 0 };
	regex_t regex;
	if (regcomp(&regex, s->conf->underlay.regex, REG_EXTENDED | REG_NOSUB) != 0)
		return choice; /* the configuration has been checked */
	for (size_t i = 0; !choice.link && i < s->count; i++)
		if (regexec(&regex, s->items[i].link.name, 0, NULL, 0) == 0)
			choice = take(s, &s->items[i], f);
	if (!choice.link)
		choice = by_address(s, f, fits_regex, &regex);
	regfree(&regex);
	return choice;
}

static bool fits_cidrs(const void *arg, const struct flat_ip *ip)
{
	const struct flat_json_list *cidrs = arg;
	const struct flat_prefix *items = cidrs->items;
	for (size_t i = 0; i < cidrs->count; i++)
		if (flat_prefix_contains(&items[i], ip))
			return true;
	return false;
}

static bool fits_equal(const void *arg, const struct flat_ip *ip)
{
	return flat_ip_equal(arg, ip);
}

static struct choice by_told(const struct search *s, int f)
{
	if (!s->told || !s->told->addresses[f].family)
		return (struct choice){ 0 };
	return by_address(s, f, fits_equal, &s->told->addresses[f]);
}

static struct choice by_reach(const struct search *s, int f)
{
	struct flat_net_route route = { 0 };
	if (flat_route_lookup(s->net, &s->conf->underlay.can_reach, &route, NULL) <= 0)
		return (struct choice){ 0 };
	return take_index(s, route.oif, f);
}

struct best {
	int oif;
	uint32_t priority;
};

static int find_default(void *arg, const struct flat_net_route *route)
{
	struct best *best = arg;
	if (route->route.dst.len == 0 && route->type == RTN_UNICAST && route->oif &&
	    (!best->oif || route->route.priority < best->priority))
		*best = (struct best){ route->oif, route->route.priority };
	return 0;
}

static struct choice by_default(const struct search *s, int f)
{
	struct best best = { 0 };
	flat_route_each(s->net, f == FLAT_V4 ? AF_INET : AF_INET6, 0, 0, 0, find_default, &best,
			NULL);
	return take_index(s, best.oif, f);
}

static bool is_named(const struct flat_agent_conf *conf)
{
	return conf->underlay.interface || conf->underlay.regex || conf->underlay.cidrs.count ||
	       conf->underlay.can_reach.family;
}

static struct choice choose(const struct search *s, int f)
{
	const struct flat_agent_conf *conf = s->conf;
	if (conf->underlay.interface)
		return by_name(s, f);
	if (conf->underlay.regex)
		return by_regex(s, f);
	if (conf->underlay.cidrs.count)
		return by_address(s, f, fits_cidrs, &conf->underlay.cidrs);
	if (conf->underlay.can_reach.family)
		return by_reach(s, f);
	/* Where the others are told this node's address by somebody else, what they send arrives at
	 * the link with that address. Where this node tells it, the default route's link decides.
	 */
	const bool is_told = flat_underlay_is_told(conf);
	struct choice choice = is_told ? by_told(s, f) : by_default(s, f);
	if (!choice.link)
		choice = is_told ? by_default(s, f) : by_told(s, f);
	return choice;
}

static void fill(const struct choice *choice, int f, struct flat_underlay *ret_underlay)
{
	const struct candidate *c = choice->link;
	*ret_underlay = (struct flat_underlay){
		.index = c->link.index,
		.mtu = c->link.mtu,
		.address = *choice->address,
	};
	memcpy(ret_underlay->name, c->link.name, sizeof ret_underlay->name);
	for (size_t i = 0; i < c->of[f].onlink_count; i++)
		ret_underlay->onlink[ret_underlay->onlink_count++] = c->of[f].onlink[i];
}

static int fail_none(const struct flat_agent_conf *conf, struct flat_err *err)
{
	if (conf->underlay.interface)
		return flat_fail(err, FLAT_CODE_TRY_LATER, ENODEV,
				 "underlay.interface: no link '%.15s' with an address",
				 conf->underlay.interface);
	if (is_named(conf))
		return flat_fail(err, FLAT_CODE_TRY_LATER, ENODEV,
				 "underlay: no link fits what the configuration asks for");
	flat_fail(
		err, FLAT_CODE_TRY_LATER, ENODEV,
		"no link to the other nodes: there is no default route, and no link has this node's address");
	return flat_detail(err, "name the link: underlay.interface");
}

int flat_underlay_find(const struct flat_agent_conf *conf, const struct flat_node *told,
		       struct flat_net *net,
		       struct flat_underlay ret_underlays[static FLAT_FAMILIES],
		       struct flat_err *err)
{
	flat_auto_free struct search *s = calloc(1, sizeof *s);
	struct choice choices[FLAT_FAMILIES];
	int found = 0;
	if (!s)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "look for the underlay");
	s->conf = conf;
	s->told = told;
	s->net = net;
	int r = look(s, err);
	if (r < 0)
		return flat_wrap(err, "look for the underlay");
	for (int f = 0; f < FLAT_FAMILIES; f++)
		choices[f] = choose(s, f);
	/* a family without a hint of its own goes where the other one does */
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (!choices[f].link && choices[!f].link && !is_named(conf))
			choices[f] = take(s, choices[!f].link, f);
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		ret_underlays[f] = (struct flat_underlay){ 0 };
		if (choices[f].link)
			fill(&choices[f], f, &ret_underlays[f]);
		found += choices[f].link != NULL;
	}
	if (!found)
		fail_none(conf, err);
	return found;
}

bool flat_underlay_is_told(const struct flat_agent_conf *conf)
{
	return !conf->cluster.flannel && strcmp(conf->source->name, "etcd") != 0;
}

bool flat_underlay_equal(const struct flat_underlay *a, const struct flat_underlay *b)
{
	if (a->index != b->index || a->mtu != b->mtu || strcmp(a->name, b->name) != 0 ||
	    !flat_ip_equal(&a->address, &b->address) || a->onlink_count != b->onlink_count)
		return false;
	for (size_t i = 0; i < a->onlink_count; i++)
		if (!flat_prefix_equal(&a->onlink[i], &b->onlink[i]))
			return false;
	return true;
}
