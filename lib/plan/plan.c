// SPDX-License-Identifier: Apache-2.0
/*
 * From configuration and addresses to the attachment: everything is decided here, and nothing is
 * done.
 *
 * In the routed mode (the default) a pod's subnet is not on-link for it: its address has the
 * subnet's length, but every packet goes to the gateway, neighbours' included. So the node's IP
 * layer, and with it conntrack, sees both directions of every connection, and a Service whose
 * endpoint is a neighbour on the same bridge answers with br_netfilter and without.
 */
#include "plan-internal.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* 0a:58 and the IPv4 address, as kubenet began it. */
static struct flat_mac mac_of_ip(const struct flat_ip *ip)
{
	struct flat_mac mac = { { 0x0a, 0x58 } };
	memcpy(mac.bytes + 2, ip->bytes, 4);
	return mac;
}

/* Locally administered, and no neighbour of those that derive from addresses. */
static struct flat_mac mac_of_hash(uint8_t second, uint64_t hash)
{
	struct flat_mac mac = { { 0x0e, second } };
	for (int i = 2; i < 6; i++)
		mac.bytes[i] = (uint8_t)(hash >> (8 * i));
	return mac;
}

static bool is_default(const struct flat_prefix *dst)
{
	return dst->len == 0;
}

static const struct flat_ip *gateway_of_family(const struct flat_attachment *a, int family)
{
	for (size_t i = 0; i < a->ip_count; i++)
		if (a->ips[i].address.ip.family == family && a->ips[i].gateway.family)
			return &a->ips[i].gateway;
	return NULL;
}

static bool is_bridge_gateway(const struct flat_attachment *a, const struct flat_ip *ip)
{
	for (size_t i = 0; i < a->bridge.gateway_count; i++)
		if (flat_ip_equal(&a->bridge.gateways[i].ip, ip))
			return true;
	return false;
}

static int add_pod_route(struct flat_attachment *a, const struct flat_net_route *route,
			 struct flat_err *err)
{
	if (a->pod_route_count == FLAT_MAX_POD_ROUTES)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "routes: more than %d for one pod",
				 FLAT_MAX_POD_ROUTES);
	a->pod_routes[a->pod_route_count++] = *route;
	return 0;
}

static int plan_addresses(struct flat_attachment *a, const struct flat_conf *conf,
			  const struct flat_result *lease, struct flat_err *err)
{
	if (lease->ip_count > FLAT_MAX_LEASE)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "the IPAM gave %zu addresses: at most %d are possible",
				 lease->ip_count, FLAT_MAX_LEASE);
	for (size_t i = 0; i < lease->ip_count; i++) {
		struct flat_result_ip *ip = &a->ips[a->ip_count++];
		*ip = lease->ips[i];
		ip->interface = 2;
		const unsigned bits = flat_ip_bits(&ip->address.ip);
		if (!ip->gateway.family && conf->is_gateway) { /* the first address of the subnet */
			struct flat_ip network = flat_prefix_first(&ip->address);
			ip->gateway = flat_ip_next(&network);
		}
		if (!conf->is_gateway || !ip->gateway.family)
			continue;
		if (flat_ip_equal(&ip->gateway, &ip->address.ip))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"address and gateway are both %s: with isGateway the gateway is the node's",
				flat_ip_text(&ip->gateway, (char[FLAT_IP_TEXT]){ 0 }));
		struct flat_prefix gateway = { ip->gateway, ip->address.len };
		if (!flat_prefix_contains(&ip->address, &ip->gateway))
			gateway.len = (uint8_t)bits;
		if (!is_bridge_gateway(a, &gateway.ip))
			a->bridge.gateways[a->bridge.gateway_count++] = gateway;
	}
	return 0;
}

/* A pool of several subnets has a gateway in each. */
static int plan_siblings(struct flat_request *req, struct flat_attachment *a,
			 const struct flat_conf *conf, struct flat_err *err)
{
	const struct flat_ip_range_set *sets = conf->ipam.sets.items;
	size_t total = 0, n = 0;
	for (size_t i = 0; conf->is_gateway && i < conf->ipam.sets.count; i++)
		total += sets[i].ranges.count;
	struct flat_ip *gateways =
		total ? flat_arena_alloc(&req->arena, total * sizeof *gateways) : NULL;
	if (total && !gateways)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "gateways");
	for (size_t i = 0; gateways && i < conf->ipam.sets.count; i++) {
		const struct flat_ip_range *ranges = sets[i].ranges.items;
		for (size_t k = 0; k < sets[i].ranges.count; k++)
			gateways[n++] = ranges[k].gateway;
	}
	a->bridge.siblings = gateways;
	a->bridge.sibling_count = n;
	return 0;
}

/* The result's routes: what the IPAM says, and a default route for each family that has a gateway
 * and none yet. */
static int plan_result_routes(struct flat_attachment *a, const struct flat_conf *conf,
			      const struct flat_result *lease, struct flat_err *err)
{
	bool have_default[2] = { false, false };
	if (lease->route_count > FLAT_MAX_POD_ROUTES - 2 * FLAT_MAX_LEASE - 2)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "routes: more than %d for one pod",
				 FLAT_MAX_POD_ROUTES - 2 * FLAT_MAX_LEASE - 2);
	for (size_t i = 0; i < lease->route_count; i++) {
		const struct flat_route *route = &lease->routes[i];
		a->result_routes[a->result_route_count++] = *route;
		/* with the reference one without a router is none, and gets company */
		if (is_default(&route->dst) && !route->table &&
		    (route->gw.family || !conf->reference))
			have_default[route->dst.ip.family == AF_INET6] = true;
	}
	for (int v6 = 0; v6 < 2 && conf->is_default_gateway; v6++) {
		const int family = v6 ? AF_INET6 : AF_INET;
		const struct flat_ip *gateway = gateway_of_family(a, family);
		if (!gateway || have_default[v6])
			continue;
		struct flat_route *route = &a->result_routes[a->result_route_count++];
		*route = (struct flat_route){ .dst.ip.family = (uint8_t)family,
					      .gw = *gateway,
					      .scope = -1 };
	}
	return 0;
}

/* The pod's own table: first the way to the gateway, then what leads over it. */
static int plan_pod_routes(struct flat_attachment *a, struct flat_err *err)
{
	int r = 0;
	for (size_t i = 0; a->bridge.routed && i < a->ip_count && r >= 0; i++) {
		const struct flat_result_ip *ip = &a->ips[i];
		const unsigned bits = flat_ip_bits(&ip->address.ip);
		struct flat_net_route gateway = { .route = { .dst = { ip->gateway, (uint8_t)bits },
							     .scope = RT_SCOPE_LINK } };
		struct flat_net_route subnet = {
			.route = { .dst = { flat_prefix_first(&ip->address), ip->address.len },
				   .gw = ip->gateway,
				   .scope = -1 }
		};
		bool seen = false;
		for (size_t k = 0; k < i; k++)
			seen = seen || flat_ip_equal(&a->ips[k].gateway, &ip->gateway);
		if (seen)
			continue; /* two addresses of one subnet */
		r = add_pod_route(a, &gateway, err);
		if (r >= 0 && ip->address.len < bits)
			r = add_pod_route(a, &subnet, err);
	}
	for (size_t i = 0; i < a->result_route_count && r >= 0; i++) {
		struct flat_net_route route = { .route = a->result_routes[i] };
		const struct flat_ip *gateway = gateway_of_family(a, route.route.dst.ip.family);
		/* what is on the link, or nearer, needs no gateway */
		if (!route.route.gw.family && gateway && route.route.scope < RT_SCOPE_LINK)
			route.route.gw = *gateway;
		/* a router among the pods: it is on the wire, though no route says so */
		route.onlink = a->bridge.routed && route.route.gw.family &&
			       !is_bridge_gateway(a, &route.route.gw);
		r = add_pod_route(a, &route, err);
	}
	return r;
}

/* After the rules, which know what the flat network is. */
static int plan_node_routes(struct flat_request *req, struct flat_attachment *a,
			    const struct flat_conf *conf, struct flat_err *err)
{
	const struct flat_node *nodes = conf->nodes.items;
	struct flat_node_state *s = &a->nodes;
	size_t total = 0;
	if (!conf->nodes.count)
		return 0;
	for (size_t i = 0; i < conf->nodes.count; i++)
		total += nodes[i].pod_cidr_count;
	s->routes = flat_arena_alloc(&req->arena, (total + 1) * sizeof *s->routes);
	if (!s->routes)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "routes to other nodes");
	for (size_t i = 0; i < conf->nodes.count; i++)
		for (size_t k = 0; &nodes[i] != conf->self && k < nodes[i].pod_cidr_count; k++) {
			const struct flat_prefix *cidr = &nodes[i].pod_cidrs[k];
			s->routes[s->route_count++] = (struct flat_wanted_route){
				.dst = *cidr,
				.via = nodes[i].addresses[flat_family_index(cidr->ip.family)],
				.link = -1,
				.node = nodes[i].name,
			};
		}
	flat_node_state_sort(s);
	if (a->nft.cluster_count)
		memcpy(s->cidrs, a->nft.cluster, a->nft.cluster_count * sizeof s->cidrs[0]);
	s->cidr_count = a->nft.cluster_count;
	return 0;
}

/* What is not told to be part of the flat network, but has our pods in it, is: as the reference has
 * it, the pod's own subnet is never masqueraded. */
static int cover_pods(struct flat_request *req, struct flat_json_list *cluster,
		      const struct flat_json_list *pods, struct flat_err *err)
{
	const struct flat_prefix *own = pods->items;
	struct flat_prefix *all =
		flat_arena_alloc(&req->arena, (cluster->count + pods->count) * sizeof *all);
	if (!all)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "rules");
	size_t n = cluster->count;
	if (n)
		memcpy(all, cluster->items, n * sizeof *all);
	for (size_t i = 0; i < pods->count; i++) {
		bool covered = false;
		for (size_t k = 0; k < n; k++)
			covered = covered || (all[k].len <= own[i].len &&
					      flat_prefix_contains(&all[k], &own[i].ip));
		if (!covered)
			all[n++] = own[i];
	}
	if (n > FLAT_NFT_MAX_PREFIXES)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "clusterCIDR: more than %d networks with the pods' own",
				 FLAT_NFT_MAX_PREFIXES);
	*cluster = (struct flat_json_list){ .items = all, .count = n };
	return 0;
}

/* The node-wide rules. The pods' subnets are the node's where they are known; with a foreign IPAM
 * they are the lease's, and then part of the rules' name, so that pods of several subnets do not
 * take each other's rules away. */
static int plan_rules(struct flat_request *req, struct flat_attachment *a,
		      const struct flat_conf *conf, struct flat_err *err)
{
	const bool forward = conf->is_gateway && !conf->reference;
	if (!a->ip_count || (!forward && !conf->ip_masq))
		return 0;
	struct flat_json_list pods = conf->pod_cidrs, cluster = conf->cluster_cidrs;
	const char *name = a->network;
	if (!pods.count) {
		char *long_name =
			flat_arena_alloc(&req->arena,
					 strlen(name) + 2 + a->ip_count * FLAT_PREFIX_TEXT);
		struct flat_prefix *subnets =
			flat_arena_alloc(&req->arena, a->ip_count * sizeof *subnets);
		if (!long_name || !subnets)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "rules");
		strcpy(long_name, name);
		for (size_t i = 0; i < a->ip_count; i++) {
			subnets[i] = (struct flat_prefix){ flat_prefix_first(&a->ips[i].address),
							   a->ips[i].address.len };
			strcat(long_name, "@");
			flat_prefix_text(&subnets[i], long_name + strlen(long_name));
		}
		pods = (struct flat_json_list){ .items = subnets, .count = a->ip_count };
		name = long_name;
	}
	int r = cover_pods(req, &cluster, &pods, err);
	if (r < 0)
		return r;
	if (pods.count > FLAT_NFT_MAX_PREFIXES)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "more than %d pod subnets on one node",
				 FLAT_NFT_MAX_PREFIXES);
	a->nft = (struct flat_nft_network){
		.name = name,
		.cluster = cluster.items,
		.cluster_count = cluster.count,
		.pods = pods.items,
		.pod_count = pods.count,
		.masquerade = conf->ip_masq,
		.forward = forward,
	};
	return 0;
}

static void plan_macs(struct flat_attachment *a, const struct flat_conf *conf)
{
	uint64_t hash = flat_hash(0, a->network, strlen(a->network));
	hash = flat_hash(hash, a->container_id, strlen(a->container_id));
	hash = flat_hash(hash, a->ifname, strlen(a->ifname));

	a->pod_mac = mac_of_hash(0x58, hash);
	for (size_t i = a->ip_count; i-- > 0;)
		if (a->ips[i].address.ip.family == AF_INET)
			a->pod_mac = mac_of_ip(&a->ips[i].address.ip);
	if (conf->has_mac)
		a->pod_mac = conf->mac;

	uint64_t bridge = flat_hash(hash, a->bridge.name, strlen(a->bridge.name));
	if (a->bridge.gateway_count) /* IPv6 only: the same on each creation */
		bridge = flat_hash(0, a->bridge.gateways[0].ip.bytes,
				   sizeof a->bridge.gateways[0].ip.bytes);
	struct flat_mac gateway = mac_of_hash(0x5a, bridge);
	for (size_t i = a->bridge.gateway_count; i-- > 0;)
		if (a->bridge.gateways[i].ip.family == AF_INET)
			gateway = mac_of_ip(&a->bridge.gateways[i].ip);
	/* a MAC that derives from the address is for the link that has the address */
	a->bridge.mac = a->gateway.port[0] ? mac_of_hash(0x5b, bridge) : gateway;
	a->gateway.mac = gateway;
	a->gateway.port_mac = mac_of_hash(0x5c, flat_hash(bridge, &a->vlan, sizeof a->vlan));
}

uint32_t flat_plan_pod_mtu(const struct flat_attachment *a)
{
	return a->tuning.mtu ? a->tuning.mtu : a->mtu;
}

bool flat_plan_has_vlans(const struct flat_attachment *a)
{
	return a->vlan || a->vlan_trunk_count;
}

/* A trunk alone has VLAN 1 for what comes without a tag, as with the reference. */
void flat_plan_vlans(const struct flat_attachment *a, struct flat_vlans *ret_vlans)
{
	*ret_vlans = (struct flat_vlans){ 0 };
	for (size_t i = 0; i < a->vlan_trunk_count; i++)
		flat_vlan_add(ret_vlans, a->vlan_trunk[i].min, a->vlan_trunk[i].max);
	flat_vlan_add_native(ret_vlans, a->vlan ? a->vlan : 1);
}

/* What no address decides. */
static void plan_link(struct flat_request *req, const struct flat_conf *conf,
		      struct flat_attachment *a)
{
	memset(a, 0, sizeof *a);
	a->network = req->name;
	a->container_id = req->container_id;
	a->ifname = req->ifname;
	a->netns = req->netns;
	a->bridge.name = conf->bridge;
	a->bridge.promisc = conf->promisc;
	a->bridge.force_address = conf->force_address;
	a->mtu = conf->mtu;
	a->hairpin = conf->hairpin;
	a->isolated = conf->port_isolation;
	a->pod_up = !conf->disable_container_interface;
	a->enable_dad = conf->enable_dad;
	a->link_local = conf->reference;
	a->vlan = conf->vlan;
	a->vlan_trunk = conf->vlan_trunk.items;
	a->vlan_trunk_count = conf->vlan_trunk.count;
	a->preserve_default_vlan = conf->preserve_default_vlan;
	flat_name_host_veth(a->network, a->container_id, a->ifname, a->host_ifname);
}

void flat_plan_link(struct flat_request *req, const struct flat_conf *conf,
		    struct flat_attachment *ret_attachment)
{
	struct flat_attachment *a = ret_attachment;
	plan_link(req, conf, a);
	flat_name_gateway(a->bridge.name, 0, a->gateway.name, a->gateway.port);
	plan_macs(a, conf);
}

int flat_plan_attachment(struct flat_request *req, const struct flat_conf *conf,
			 const struct flat_result *lease, struct flat_attachment *ret_attachment,
			 struct flat_err *err)
{
	struct flat_attachment *a = ret_attachment;
	int r;

	plan_link(req, conf, a);
	a->dns = flat_dns_is_empty(&conf->dns) ? lease->dns : conf->dns;
	r = plan_addresses(a, conf, lease, err);
	if (r < 0)
		return r;
	r = plan_siblings(req, a, conf, err);
	if (r < 0)
		return r;
	a->bridge.routed = conf->mode == FLAT_BRIDGE_ROUTED && a->bridge.gateway_count;
	flat_name_gateway(a->bridge.name, a->bridge.gateway_count ? a->vlan : 0, a->gateway.name,
			  a->gateway.port);
	plan_macs(a, conf);
	flat_alias_format(a->network, a->container_id, a->ifname, a->ips, a->ip_count,
			  req->args.pod_namespace, req->args.pod_name, a->alias);
	for (size_t i = 0; i < a->bridge.gateway_count; i++)
		*(a->bridge.gateways[i].ip.family == AF_INET ? &a->forward4 : &a->forward6) = true;

	r = plan_result_routes(a, conf, lease, err);
	if (r >= 0)
		r = plan_pod_routes(a, err);
	if (r >= 0)
		r = plan_rules(req, a, conf, err);
	if (r >= 0)
		r = plan_node_routes(req, a, conf, err);
	if (r >= 0)
		r = flat_features_plan(req, conf, a, err);
	return r;
}

int flat_plan_result(struct flat_request *req, const struct flat_attachment *a,
		     struct flat_result *ret_result, struct flat_err *err)
{
	struct flat_result_interface *interfaces =
		flat_arena_alloc(&req->arena, 5 * sizeof *interfaces);
	struct flat_result_ip *ips = flat_arena_alloc(&req->arena, (a->ip_count + 1) * sizeof *ips);
	struct flat_route *routes =
		flat_arena_alloc(&req->arena, (a->result_route_count + 1) * sizeof *routes);
	size_t count = 3;
	if (!interfaces || !ips || !routes)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "result");
	/* the order that users of the bridge plugin know */
	interfaces[0] = (struct flat_result_interface){
		.name = a->bridge.name, .mac = a->bridge.mac, .has_mac = true, .mtu = a->mtu
	};
	interfaces[1] = (struct flat_result_interface){
		.name = a->host_ifname, .mac = a->bridge.mac, .has_mac = true, .mtu = a->mtu
	};
	interfaces[2] = (struct flat_result_interface){ .name = a->ifname,
							.mac = a->pod_mac,
							.has_mac = true,
							.mtu = flat_plan_pod_mtu(a),
							.sandbox = a->netns };
	if (a->gateway.port[0])
		interfaces[count++] = (struct flat_result_interface){ .name = a->gateway.name,
								      .mac = a->gateway.mac,
								      .has_mac = true,
								      .mtu = a->mtu };
	if (a->shaping.from.rate)
		interfaces[count++] = (struct flat_result_interface){ .name = a->shaping.ifb,
								      .mac = a->shaping.ifb_mac,
								      .has_mac = true,
								      .mtu = a->mtu };
	memcpy(ips, a->ips, a->ip_count * sizeof *ips);
	memcpy(routes, a->result_routes, a->result_route_count * sizeof *routes);
	*ret_result = (struct flat_result){
		.interfaces = interfaces,
		.interface_count = count,
		.ips = ips,
		.ip_count = a->ip_count,
		.routes = routes,
		.route_count = a->result_route_count,
		.dns = a->dns,
	};
	return 0;
}
