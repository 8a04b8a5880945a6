// SPDX-License-Identifier: Apache-2.0
/*
 * Nodes: which one this is, which subnets are its own, what the flat network is, and the way to the
 * others.
 *
 * The pods' subnets come from the first of: ranges in `ipam`; this node's entry in `nodes` or
 * `nodesFile`; `subnetFile`, by default the file that the node agent writes.
 */
#include "plan-internal.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>

/* ---- lists -------------------------------------------------------------------------------------
 */

#define LIST_AT(list, type, i) (&((const type *)(list)->items)[i])

static int append_prefix(struct flat_arena *arena, struct flat_json_list *list,
			 const struct flat_prefix *prefix, struct flat_err *err)
{
	struct flat_prefix *items = flat_arena_alloc(arena, (list->count + 1) * sizeof *items);
	if (!items)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "list of prefixes");
	if (list->count)
		memcpy(items, list->items, list->count * sizeof *items);
	items[list->count] = *prefix;
	*list = (struct flat_json_list){ .items = items, .count = list->count + 1 };
	return 0;
}

static struct flat_json_list subnets_of(const struct flat_node *node)
{
	return (struct flat_json_list){ .items = (void *)node->pod_cidrs,
					.count = node->pod_cidr_count };
}

static bool list_has_family(const struct flat_json_list *prefixes, int family)
{
	for (size_t i = 0; i < prefixes->count; i++)
		if (LIST_AT(prefixes, struct flat_prefix, i)->ip.family == family)
			return true;
	return false;
}

/* ---- the list of nodes -------------------------------------------------------------------------
 */

static const struct flat_node *find_by_name(const struct flat_json_list *nodes, const char *name)
{
	for (size_t i = 0; name && i < nodes->count; i++)
		if (!strcmp(LIST_AT(nodes, struct flat_node, i)->name, name))
			return LIST_AT(nodes, struct flat_node, i);
	return NULL;
}

static int find_self(const struct flat_json_list *nodes, const struct flat_node_source *source,
		     const struct flat_host *host, struct flat_net *net,
		     const struct flat_node **ret_self, struct flat_err *err)
{
	if (source->node_name) {
		*ret_self = find_by_name(nodes, source->node_name);
		if (!*ret_self)
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "nodeName: \"%.64s\" is not in the list of nodes",
					 source->node_name);
		return 0;
	}
	*ret_self = find_by_name(nodes, host->node_name);
	if (!*ret_self)
		*ret_self = find_by_name(nodes, host->host_name);
	for (size_t i = 0; !*ret_self && i < nodes->count; i++) {
		const struct flat_node *node = LIST_AT(nodes, struct flat_node, i);
		for (int f = 0; !*ret_self && f < FLAT_FAMILIES; f++) {
			struct flat_net_route route;
			if (!node->addresses[f].family)
				continue;
			int r = flat_route_lookup(net, &node->addresses[f], &route, err);
			if (r < 0)
				return r;
			if (r > 0 && route.type == RTN_LOCAL)
				*ret_self = node;
		}
	}
	if (!*ret_self)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"nodes: none of the %zu entries is this host ('%.64s'): name it, set nodeName, or configure one of their addresses",
			nodes->count, host->host_name ? host->host_name : "?");
	return 0;
}

/* ---- all together ------------------------------------------------------------------------------
 */

/* The MTU of the link that leads to the first node that can be looked up; 0: unknown. */
static uint32_t underlay_mtu(const struct flat_conf *conf, struct flat_net *net)
{
	for (size_t i = 0; i < conf->nodes.count && i < 8; i++) {
		const struct flat_node *node = LIST_AT(&conf->nodes, struct flat_node, i);
		struct flat_net_route route;
		struct flat_link link;
		const struct flat_ip *ip = node->addresses[FLAT_V4].family
						   ? &node->addresses[FLAT_V4]
						   : &node->addresses[FLAT_V6];
		if (node == conf->self || !ip->family)
			continue;
		if (flat_route_lookup(net, ip, &route, NULL) > 0 && route.oif &&
		    flat_link_by_index(net, route.oif, &link, NULL) > 0 && !link.loopback)
			return link.mtu;
	}
	return 0;
}

/* The subnets that this node's ranges lie in. */
static int subnets_of_ranges(struct flat_request *req, struct flat_conf *conf, struct flat_err *err)
{
	for (size_t i = 0; i < conf->ipam.sets.count; i++) {
		const struct flat_ip_range_set *set =
			LIST_AT(&conf->ipam.sets, struct flat_ip_range_set, i);
		for (size_t k = 0; k < set->ranges.count; k++) {
			const struct flat_ip_range *range =
				LIST_AT(&set->ranges, struct flat_ip_range, k);
			struct flat_prefix subnet = { flat_prefix_first(&range->subnet),
						      range->subnet.len };
			bool known = false;
			for (size_t j = 0; j < conf->pod_cidrs.count && !known; j++)
				known = flat_prefix_equal(LIST_AT(&conf->pod_cidrs,
								  struct flat_prefix, j),
							  &subnet);
			if (!known &&
			    append_prefix(&req->arena, &conf->pod_cidrs, &subnet, err) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

/* Addresses of another node's subnet, given out here, would exist twice. */
static int check_against_peers(const struct flat_conf *conf, struct flat_err *err)
{
	char a[FLAT_PREFIX_TEXT], b[FLAT_PREFIX_TEXT];
	for (size_t i = 0; i < conf->nodes.count; i++) {
		const struct flat_node *node = LIST_AT(&conf->nodes, struct flat_node, i);
		for (size_t k = 0; node != conf->self && k < node->pod_cidr_count; k++)
			for (size_t j = 0; j < conf->pod_cidrs.count; j++) {
				const struct flat_prefix *own =
					LIST_AT(&conf->pod_cidrs, struct flat_prefix, j);
				const struct flat_prefix *other = &node->pod_cidrs[k];
				if (flat_prefix_overlaps(own, other))
					return flat_fail(
						err, FLAT_CODE_CONFIG, 0,
						"ipam: %s overlaps %s, the subnet of node '%.64s': pods would have the same address twice",
						flat_prefix_text(own, a),
						flat_prefix_text(other, b), node->name);
			}
	}
	return 0;
}

static int resolve_nodes(struct flat_request *req, const struct flat_node_source *source,
			 const struct flat_host *host, struct flat_net *net, struct flat_conf *conf,
			 struct flat_err *err)
{
	const char *where = source->nodes_file ? "nodesFile" : "nodes";
	int r = 0;
	conf->nodes = source->nodes;
	if (source->nodes_file && source->nodes_file[0] != '/')
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "nodesFile: \"%.128s\" must be an absolute path",
				 source->nodes_file);
	if (source->nodes_file)
		r = flat_nodes_read(source->nodes_file, &req->arena, &conf->nodes, err);
	if (r < 0)
		return r;
	if (!conf->nodes.count)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s: the list is empty: this node must be in it", where);
	r = flat_nodes_check(&conf->nodes, where, err);
	if (r >= 0)
		r = find_self(&conf->nodes, source, host, net, &conf->self, err);
	return r;
}

static bool list_covers(const struct flat_json_list *prefixes, const struct flat_prefix *prefix)
{
	for (size_t i = 0; i < prefixes->count; i++) {
		const struct flat_prefix *p = LIST_AT(prefixes, struct flat_prefix, i);
		if (p->len <= prefix->len && flat_prefix_contains(p, &prefix->ip))
			return true;
	}
	return false;
}

static int check_cluster(const struct flat_json_list *cidrs, struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT];
	for (size_t i = 0; i < cidrs->count; i++) {
		const struct flat_prefix *cidr = LIST_AT(cidrs, struct flat_prefix, i);
		const struct flat_prefix clean = { flat_prefix_first(cidr), cidr->len };
		if (!flat_prefix_equal(cidr, &clean))
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "clusterCIDR: has host bits set: the network is %s",
					 flat_prefix_text(&clean, text));
	}
	return 0;
}

/* Every pod subnet that is known belongs to the flat network. A clusterCIDR that was told has to
 * contain those of its family; else they are its parts. */
static int include_subnets(struct flat_request *req, const struct flat_json_list *told,
			   const struct flat_json_list *subnets, const char *whose,
			   struct flat_conf *conf, struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT];
	for (size_t i = 0; i < subnets->count; i++) {
		const struct flat_prefix *subnet = LIST_AT(subnets, struct flat_prefix, i);
		if (list_covers(&conf->cluster_cidrs, subnet))
			continue;
		if (whose && list_has_family(told, subnet->ip.family))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"clusterCIDR: does not contain %s, a pod subnet of node '%.64s'",
				flat_prefix_text(subnet, text), whose);
		if (conf->cluster_cidrs.count == FLAT_NFT_MAX_PREFIXES)
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"clusterCIDR: is needed: the pods' subnets are more than %d networks without it",
				FLAT_NFT_MAX_PREFIXES);
		if (append_prefix(&req->arena, &conf->cluster_cidrs, subnet, err) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int settle_cluster(struct flat_request *req, const struct flat_node_source *source,
			  bool own_range, struct flat_conf *conf, struct flat_err *err)
{
	struct flat_prefix standard;
	int r = check_cluster(&source->cluster_cidrs, err);
	if (r < 0)
		return r;
	if (source->cluster_cidrs.count)
		conf->cluster_cidrs = source->cluster_cidrs;
	/* the default, where nodes or nothing were given, and it fits */
	flat_prefix_parse(FLAT_CLUSTER_CIDR, &standard);
	if (!conf->cluster_cidrs.count && (conf->nodes.count || !own_range)) {
		const struct flat_json_list one = { .items = &standard, .count = 1 };
		bool fits = !conf->pod_cidrs.count;
		for (size_t i = 0; i < conf->pod_cidrs.count; i++)
			fits = fits ||
			       list_covers(&one, LIST_AT(&conf->pod_cidrs, struct flat_prefix, i));
		if (fits && append_prefix(&req->arena, &conf->cluster_cidrs, &standard, err) < 0)
			return -ENOMEM;
	}
	const struct flat_json_list told = source->cluster_cidrs;
	r = include_subnets(req, &told, &conf->pod_cidrs, NULL, conf, err);
	for (size_t i = 0; r >= 0 && i < conf->nodes.count; i++) {
		const struct flat_node *node = LIST_AT(&conf->nodes, struct flat_node, i);
		const struct flat_json_list subnets = subnets_of(node);
		r = include_subnets(req, &told, &subnets, node->name, conf, err);
	}
	return r;
}

int flat_node_resolve(struct flat_request *req, const struct flat_node_source *source,
		      const struct flat_host *host, struct flat_net *net, struct flat_conf *conf,
		      struct flat_err *err)
{
	const bool own_range = conf->ipam_kind == FLAT_IPAM_OWN && flat_ipam_conf_has_range(req);
	struct flat_json_list subnets = { 0 };
	int r;

	if (source->has_nodes || source->nodes_file) {
		r = resolve_nodes(req, source, host, net, conf, err);
		if (r < 0)
			return r;
		subnets = subnets_of(conf->self);
		if (!conf->mtu)
			conf->mtu = underlay_mtu(conf, net);
	} else if (source->subnet_file || (conf->ipam_kind == FLAT_IPAM_OWN && !own_range)) {
		struct flat_node_file file = { 0 };
		if (source->subnet_file && source->subnet_file[0] != '/')
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "subnetFile: \"%.128s\" must be an absolute path",
					 source->subnet_file);
		r = flat_node_file_read(source->subnet_file ? source->subnet_file : FLAT_NODE_FILE,
					&req->arena, &file, err);
		if (r < 0)
			return r;
		subnets = file.pod_cidrs;
		conf->cluster_cidrs = file.cluster_cidrs;
		if (!conf->mtu)
			conf->mtu = file.mtu;
		/* as flannel's own CNI plugin: who masquerades, flanneld or we? */
		if (!source->ip_masq_given && file.flannel_masq != -1)
			conf->ip_masq = !file.flannel_masq;
	}
	if (conf->ipam_kind == FLAT_IPAM_OWN) {
		r = flat_ipam_conf_parse(req, FLAT_IPAM_DATA_DIR, &subnets, &conf->ipam, err);
		if (r < 0)
			return r;
		r = subnets_of_ranges(req, conf, err);
	} else {
		conf->pod_cidrs = subnets;
		r = 0;
	}
	if (r >= 0)
		r = check_against_peers(conf, err);
	if (r >= 0)
		r = settle_cluster(req, source, own_range, conf, err);
	return r;
}
