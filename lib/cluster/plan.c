// SPDX-License-Identifier: Apache-2.0
/*
 * From nodes to what the kernel should have. For each pod subnet of each accepted node there is one
 * way:
 *
 *   direct  SUBNET via NODE'S ADDRESS
 *   vxlan   SUBNET via NETWORK ADDRESS OF SUBNET dev DEVICE onlink      (flannel's scheme)
 *           neighbour NETWORK ADDRESS on DEVICE is MAC OF ITS DEVICE
 *           forwarding entry MAC OF ITS DEVICE on DEVICE is at NODE'S ADDRESS
 *
 * There are two devices, over IPv4 and over IPv6: one device has one local address, and so one
 * family. A subnet goes over the underlay of its own family where both nodes have one, else over
 * the other's. Both nodes decide by the same two records, so both take the same way.
 */
#include "cluster-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { UNDERLAY = -1 };

static const char *family_name(int f)
{
	return f == FLAT_V6 ? "IPv6" : "IPv4";
}

/* Outer Ethernet, IP, UDP and VXLAN headers. */
static const uint32_t overhead[FLAT_FAMILIES] = { 50, 70 };

struct planner {
	const struct flat_cluster_conf *conf;
	const struct flat_underlay *underlays;
	const struct flat_node *self;
	struct flat_node_state *state;
	bool used[FLAT_FAMILIES];      /* this underlay carries something */
	bool tunnelled[FLAT_FAMILIES]; /* over this device */
};

/* ---- one subnet ---------------------------------------------------------------------------------
 */

/* Can this node and others reach each other over this family? What others know of it counts: they
 * choose by it. */
static bool is_usable(const struct planner *p, int f)
{
	return p->underlays[f].index && p->underlays[f].address.family &&
	       p->self->addresses[f].family;
}

static bool is_onlink(const struct flat_underlay *underlay, const struct flat_ip *ip)
{
	for (size_t i = 0; i < underlay->onlink_count; i++)
		if (flat_prefix_contains(&underlay->onlink[i], ip))
			return true;
	return false;
}

/* Which family's underlay leads to a subnet of family f; NONE: neither. */
enum { NONE = -1 };
static int choose_underlay(const struct planner *p, const struct flat_node *node, int f)
{
	if (is_usable(p, f) && node->addresses[f].family)
		return f;
	const int other = f == FLAT_V4 ? FLAT_V6 : FLAT_V4;
	if (!p->conf->flannel && is_usable(p, other) && node->addresses[other].family)
		return other;
	return NONE;
}

FLAT_PRINTF(2, 3)
static bool cannot(struct flat_judgement *j, const char *fmt, ...)
{
	if (!j->why[0]) { /* the first reason will do */
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(j->why, sizeof j->why, fmt, ap);
		va_end(ap);
	}
	return false;
}

static bool plan_direct(struct planner *p, const struct flat_node *node,
			const struct flat_prefix *cidr, int u)
{
	struct flat_node_state *s = p->state;
	s->routes[s->route_count++] = (struct flat_wanted_route){
		.dst = *cidr, .via = node->addresses[u], .link = UNDERLAY, .node = node->name
	};
	return true;
}

static bool plan_tunnel(struct planner *p, const struct flat_node *node,
			const struct flat_prefix *cidr, int u, struct flat_judgement *j)
{
	struct flat_node_state *s = p->state;
	char text[FLAT_PREFIX_TEXT];
	if (p->conf->flannel && !node->has_vtep[u])
		return cannot(
			j,
			"its pod subnet %s: it has not told the MAC of its VXLAN device over %s yet",
			flat_prefix_text(cidr, text), family_name(u));
	const struct flat_mac mac = node->has_vtep[u] ? node->vtep[u] : flat_node_vtep_mac(node);
	s->routes[s->route_count++] = (struct flat_wanted_route){
		.dst = *cidr, .via = cidr->ip, .link = u, .onlink = true, .node = node->name
	};
	s->neighs[s->neigh_count++] = (struct flat_wanted_neigh){
		.ip = cidr->ip, .mac = mac, .link = u, .node = node->name
	};
	/* several subnets of one node have one entry; the nodes before have other MACs */
	const struct flat_wanted_fdb entry = {
		.mac = mac, .dst = node->addresses[u], .link = u, .node = node->name
	};
	bool there = false;
	for (size_t i = s->fdb_count; i > 0 && s->fdb[i - 1].node == node->name && !there; i--)
		there = s->fdb[i - 1].link == u;
	if (!there)
		s->fdb[s->fdb_count++] = entry;
	p->tunnelled[u] = true;
	return true;
}

static bool plan_subnet(struct planner *p, const struct flat_node *node,
			const struct flat_prefix *cidr, struct flat_judgement *j, bool *tunnelled)
{
	const enum flat_backend backend = p->conf->backend;
	const int f = flat_family_index(cidr->ip.family), u = choose_underlay(p, node, f);
	char subnet[FLAT_PREFIX_TEXT], ip[FLAT_IP_TEXT];
	flat_prefix_text(cidr, subnet);
	if (u == NONE && !is_usable(p, f))
		return cannot(j, "its pod subnet %s: this node has no %s address to reach it from",
			      subnet, family_name(f));
	if (u == NONE)
		return cannot(j, "its pod subnet %s: it has no %s address", subnet, family_name(f));
	const struct flat_ip *address = &node->addresses[u];
	/* the kernel takes an IPv6 gateway for an IPv4 route (Linux 5.2), not the other way */
	const bool direct = is_onlink(&p->underlays[u], address) && !(f == FLAT_V6 && u == FLAT_V4);
	p->used[u] = true;
	if (direct && backend != FLAT_BACKEND_VXLAN)
		return plan_direct(p, node, cidr, u);
	*tunnelled = backend != FLAT_BACKEND_DIRECT;
	if (*tunnelled)
		return plan_tunnel(p, node, cidr, u, j);
	if (f == FLAT_V6 && u == FLAT_V4)
		return cannot(
			j,
			"its pod subnet %s: an IPv6 route needs an IPv6 address of the node: give it one, or use backend vxlan",
			subnet);
	return cannot(
		j,
		"its address %s is in no network of '%s': backend direct needs one; use vxlan or auto",
		flat_ip_text(address, ip), p->underlays[u].name);
}

/* ---- one node -----------------------------------------------------------------------------------
 */

/* A told address need not be the underlay's: there may be a translation between. */
static bool cuts_us_off(const struct planner *p, const struct flat_node *node,
			struct flat_judgement *j)
{
	char subnet[FLAT_PREFIX_TEXT], ip[FLAT_IP_TEXT];
	for (size_t i = 0; i < node->pod_cidr_count; i++)
		for (int f = 0; f < FLAT_FAMILIES; f++)
			if (p->underlays[f].address.family &&
			    flat_prefix_contains(&node->pod_cidrs[i], &p->underlays[f].address)) {
				j->verdict = FLAT_NODE_REFUSED;
				snprintf(
					j->why, sizeof j->why,
					"its pod subnet %s contains %s, this node's address on '%s'",
					flat_prefix_text(&node->pod_cidrs[i], subnet),
					flat_ip_text(&p->underlays[f].address, ip),
					p->underlays[f].name);
				return true;
			}
	return false;
}

static void plan_node(struct planner *p, const struct flat_node *node, struct flat_judgement *j)
{
	bool reached = false, over_tunnel = false;
	if (cuts_us_off(p, node, j))
		return;
	for (size_t i = 0; i < node->pod_cidr_count; i++) {
		bool tunnelled = false;
		if (!plan_subnet(p, node, &node->pod_cidrs[i], j, &tunnelled))
			continue;
		reached = true;
		over_tunnel = over_tunnel || tunnelled;
	}
	if (!reached)
		j->verdict = FLAT_NODE_WAITING;
	else if (over_tunnel)
		p->state->tunnelled++;
	else
		p->state->direct++;
}

/* ---- this node ----------------------------------------------------------------------------------
 */

static bool has_family(const struct flat_node *node, int f)
{
	for (size_t i = 0; i < node->pod_cidr_count; i++)
		if (flat_family_index(node->pod_cidrs[i].ip.family) == f)
			return true;
	return false;
}

/* What peers send to this node's own subnets comes in over these, whoever the peers are. */
static void use_own_ways(struct planner *p)
{
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const int other = f == FLAT_V4 ? FLAT_V6 : FLAT_V4;
		if (!has_family(p->self, f))
			continue;
		if (is_usable(p, f))
			p->used[f] = true;
		else if (!p->conf->flannel && is_usable(p, other))
			p->used[other] = true;
	}
}

/* The smallest of the used underlays, less what VXLAN adds wherever it may be used. With `auto`
 * that is so before the first peer needs a tunnel: pods that are there then could not be told of a
 * smaller MTU in time, and the price is 50 bytes of 1500. */
static uint32_t pod_mtu(const struct planner *p)
{
	uint32_t mtu = 0;
	if (p->conf->mtu)
		return p->conf->mtu;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const uint32_t less = p->conf->backend == FLAT_BACKEND_DIRECT ? 0 : overhead[f];
		const uint32_t here = p->underlays[f].mtu;
		if (p->used[f] && here > less && (!mtu || here - less < mtu))
			mtu = here - less;
	}
	return mtu;
}

/* With `vxlan` a device is there as soon as something could come in over it: peers may know of this
 * node before it knows of them. With `auto` when a peer needs it; then that peer is off-link for
 * this node as this node is for it, and it goes with the last of them. While there is no underlay
 * of its family a device is neither made nor removed: a link that flaps comes back. */
static void plan_links(struct planner *p)
{
	const struct flat_cluster_conf *conf = p->conf;
	struct flat_node_state *s = p->state;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_underlay *underlay = &p->underlays[f];
		struct flat_wanted_link *link = &s->links[f];
		const bool wanted =
			conf->backend == FLAT_BACKEND_VXLAN ? p->used[f] : p->tunnelled[f];
		if (!wanted && (conf->backend == FLAT_BACKEND_DIRECT || is_usable(p, f))) {
			memcpy(s->idle[f].name, conf->link[f], sizeof s->idle[f].name);
			s->idle[f].vni = conf->vni;
		}
		if (!wanted)
			continue;
		memcpy(link->name, conf->link[f], sizeof link->name);
		link->mac = p->self->has_vtep[f] ? p->self->vtep[f] : flat_node_vtep_mac(p->self);
		link->mtu = underlay->mtu > overhead[f] ? underlay->mtu - overhead[f] : 0;
		if (conf->mtu && (!link->mtu || conf->mtu < link->mtu))
			link->mtu = conf->mtu;
		link->vxlan = (struct flat_vxlan){ .vni = conf->vni,
						   .port = conf->port,
						   .underlay = underlay->index,
						   .local = underlay->address };
		for (size_t i = 0; i < p->self->pod_cidr_count; i++) {
			const struct flat_ip ip = flat_prefix_first(&p->self->pod_cidrs[i]);
			/* flannel: each device has addresses of its own family */
			if (!conf->flannel || flat_family_index(ip.family) == f)
				link->addresses[link->address_count++] =
					(struct flat_prefix){ ip, (uint8_t)flat_ip_bits(&ip) };
		}
	}
}

/* ---- all together ------------------------------------------------------------------------------
 */

/* As many as there can be; what is not written takes no memory. */
static int reserve(struct flat_node_state *s, const struct flat_node *const *nodes, size_t count,
		   const struct flat_judgement *judgements, bool tunnels)
{
	size_t subnets = 0, accepted = 0;
	for (size_t i = 0; i < count; i++)
		if (judgements[i].verdict == FLAT_NODE_ACCEPTED) {
			subnets += nodes[i]->pod_cidr_count;
			accepted++;
		}
	s->routes = malloc((subnets + 1) * sizeof *s->routes);
	s->neighs = tunnels ? malloc((subnets + 1) * sizeof *s->neighs) : NULL;
	s->fdb = tunnels ? malloc((accepted * FLAT_FAMILIES + 1) * sizeof *s->fdb) : NULL;
	return s->routes && (!tunnels || (s->neighs && s->fdb)) ? 0 : -ENOMEM;
}

int flat_cluster_plan(const struct flat_cluster_conf *conf,
		      const struct flat_underlay underlays[static FLAT_FAMILIES],
		      const struct flat_node *self, const struct flat_node *const *nodes,
		      size_t count, struct flat_judgement *judgements,
		      struct flat_node_state *ret_state, struct flat_err *err)
{
	struct flat_node_state state = { 0 };
	struct planner p = { .conf = conf, .underlays = underlays, .self = self, .state = &state };
	if (!self || !self->pod_cidr_count) {
		*ret_state = state;
		return 0;
	}
	if (reserve(&state, nodes, count, judgements, conf->backend != FLAT_BACKEND_DIRECT) < 0) {
		flat_node_state_free(&state);
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "plan the way to the nodes");
	}
	memcpy(state.cidrs, conf->cidrs, conf->cidr_count * sizeof state.cidrs[0]);
	state.cidr_count = conf->cidr_count;
	for (size_t i = 0; i < count; i++)
		if (judgements[i].verdict == FLAT_NODE_ACCEPTED)
			plan_node(&p, nodes[i], &judgements[i]);
	use_own_ways(&p);
	plan_links(&p);
	state.pod_mtu = pod_mtu(&p);
	flat_node_state_sort(&state);
	*ret_state = state;
	return 0;
}

void flat_node_state_free(struct flat_node_state *state)
{
	free(state->routes);
	free(state->neighs);
	free(state->fdb);
	*state = (struct flat_node_state){ 0 };
}
