// SPDX-License-Identifier: Apache-2.0
/*
 * Nodes: which one this is, which subnets are its own, what the flat network is, and the way to the
 * others.
 *
 * The pods' subnets come from the first of: ranges in `ipam`; this node's entry in `nodes` or
 * `nodesFile`; `subnetFile`, by default the file that the node agent writes.
 */
#include "plan-internal.h"

#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { NODES_FILE_MAX = 4 << 20, SUBNET_FILE_MAX = 64 << 10 };

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

static bool list_has_family(const struct flat_json_list *prefixes, int family)
{
	for (size_t i = 0; i < prefixes->count; i++)
		if (LIST_AT(prefixes, struct flat_prefix, i)->ip.family == family)
			return true;
	return false;
}

static const struct flat_ip *address_of_family(const struct flat_node *node, int family)
{
	for (size_t i = 0; i < node->addresses.count; i++) {
		const struct flat_ip *ip = LIST_AT(&node->addresses, struct flat_ip, i);
		if (ip->family == family)
			return ip;
	}
	return NULL;
}

/* ---- the list of nodes -------------------------------------------------------------------------
 */

/* One pod subnet with its owner, for the search of overlaps. */
struct owned {
	struct flat_prefix prefix;
	const struct flat_node *node;
};

static int compare_owned(const void *a, const void *b)
{
	const struct owned *x = a, *y = b;
	int c = flat_ip_compare(&x->prefix.ip, &y->prefix.ip);
	return c ? c : (int)x->prefix.len - (int)y->prefix.len;
}

static int check_node(const struct flat_node *node, size_t i, const char *where,
		      struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT];
	if (!node->name[0])
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s[%zu].name: must not be empty", where,
				 i);
	if (!node->addresses.count)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s[%zu].address: node '%.64s' has none",
				 where, i, node->name);
	if (node->addresses.count == 2 &&
	    LIST_AT(&node->addresses, struct flat_ip, 0)->family ==
		    LIST_AT(&node->addresses, struct flat_ip, 1)->family)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"%s[%zu].address: node '%.64s' has two of one family: give one IPv4 and one IPv6 address",
			where, i, node->name);
	for (size_t k = 0; k < node->pod_cidrs.count; k++) {
		const struct flat_prefix *cidr = LIST_AT(&node->pod_cidrs, struct flat_prefix, k);
		const struct flat_prefix clean = { flat_prefix_first(cidr), cidr->len };
		if (!flat_prefix_equal(cidr, &clean))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s[%zu].podCIDRs[%zu]: has host bits set: the subnet is %s", where,
				i, k, flat_prefix_text(&clean, text));
		if (!address_of_family(node, cidr->ip.family))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s[%zu].podCIDRs[%zu]: %s cannot be reached: node '%.64s' has no address of its family",
				where, i, k, flat_prefix_text(cidr, text), node->name);
	}
	return 0;
}

/* Sorted by their first address, two subnets overlap only if neighbours do, or the later lies in a
 * larger one seen before. */
static int check_overlaps(const struct flat_json_list *nodes, const char *where,
			  struct flat_err *err)
{
	size_t total = 0, n = 0;
	for (size_t i = 0; i < nodes->count; i++)
		total += LIST_AT(nodes, struct flat_node, i)->pod_cidrs.count;
	flat_auto_free struct owned *all = calloc(total + 1, sizeof *all);
	if (!all)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "%s", where);
	for (size_t i = 0; i < nodes->count; i++) {
		const struct flat_node *node = LIST_AT(nodes, struct flat_node, i);
		for (size_t k = 0; k < node->pod_cidrs.count; k++)
			all[n++] =
				(struct owned){ *LIST_AT(&node->pod_cidrs, struct flat_prefix, k),
						node };
	}
	qsort(all, n, sizeof *all, compare_owned);
	for (size_t i = 1; i < n; i++)
		if (flat_prefix_overlaps(&all[i - 1].prefix, &all[i].prefix)) {
			char a[FLAT_PREFIX_TEXT], b[FLAT_PREFIX_TEXT];
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s: podCIDRs overlap: %s of node '%.64s' and %s of node '%.64s': every node needs its own",
				where, flat_prefix_text(&all[i - 1].prefix, a),
				all[i - 1].node->name, flat_prefix_text(&all[i].prefix, b),
				all[i].node->name);
		}
	return 0;
}

static int read_nodes_file(struct flat_request *req, const char *path,
			   struct flat_json_list *ret_nodes, struct flat_err *err)
{
	static const struct flat_json_field fields[] = {
		{ .key = "nodes",
		  FLAT_JSON_OBJECT_LIST,
		  0,
		  .required = true,
		  .table = flat_node_fields,
		  .elem_size = sizeof(struct flat_node),
		  .max = 16384 },
		FLAT_JSON_END,
	};
	static const char head[] = "{\"nodes\":", tail[] = "}";
	flat_auto_free char *text = NULL;
	flat_auto_free char *object = NULL;
	struct flat_json *json = NULL;

	if (path[0] != '/')
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "nodesFile: \"%.128s\" must be an absolute path", path);
	int len = flat_state_read(AT_FDCWD, path, NODES_FILE_MAX, &text, err);
	if (len == -ENOENT)
		return flat_fail(err, FLAT_CODE_TRY_LATER, ENOENT, "nodesFile '%.128s'", path);
	if (len < 0)
		return flat_wrap(err, "nodesFile '%.128s'", path);
	/* the file is a list; tables describe objects */
	size_t size = (size_t)len + sizeof head + sizeof tail;
	object = malloc(size);
	if (!object)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodesFile '%.128s'", path);
	memcpy(object, head, sizeof head - 1);
	memcpy(object + sizeof head - 1, text, (size_t)len);
	memcpy(object + sizeof head - 1 + len, tail, sizeof tail);
	int r = flat_json_parse(object, strlen(object), &json, err);
	if (r >= 0)
		r = flat_json_decode(json, "", fields, ret_nodes, &req->arena, err);
	flat_json_free(json);
	return r < 0 ? flat_wrap(err, "nodesFile '%.128s'", path) : 0;
}

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
		for (size_t k = 0; !*ret_self && k < node->addresses.count; k++) {
			struct flat_net_route route;
			int r = flat_route_lookup(net, LIST_AT(&node->addresses, struct flat_ip, k),
						  &route, err);
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

/* ---- the node's own file -----------------------------------------------------------------------
 */

/* What an agent tells about this node. */
struct node_file {
	struct flat_json_list pod_cidrs, cluster_cidrs;
	int64_t mtu;
	int flannel_masq; /* FLANNEL_IPMASQ; -1: not told */
};

static const struct flat_json_field node_file_fields[] = {
	{ .key = "podCIDRs",
	  FLAT_JSON_PREFIX_OR_LIST,
	  offsetof(struct node_file, pod_cidrs),
	  .required = true,
	  .max = 16 },
	{ .key = "clusterCIDR",
	  FLAT_JSON_PREFIX_OR_LIST,
	  offsetof(struct node_file, cluster_cidrs),
	  .max = 16 },
	{ .key = "mtu", FLAT_JSON_INT, offsetof(struct node_file, mtu), .min = 0, .max = 65535 },
	FLAT_JSON_END,
};

/* One line KEY=VALUE of flannel's subnet.env; keys that we don't know are none of our business. */
static int parse_env_line(struct flat_request *req, char *line, struct node_file *file,
			  struct flat_err *err)
{
	char *value = strchr(line, '=');
	struct flat_prefix prefix;
	uint64_t number;
	if (!value)
		return 0;
	*value++ = '\0';
	struct flat_json_list *list =
		!strcmp(line, "FLANNEL_SUBNET") || !strcmp(line, "FLANNEL_IPV6_SUBNET")
			? &file->pod_cidrs
		: !strcmp(line, "FLANNEL_NETWORK") || !strcmp(line, "FLANNEL_IPV6_NETWORK")
			? &file->cluster_cidrs
			: NULL;
	if (list) { /* FLANNEL_NETWORK may be several, separated by commas */
		char *save = NULL;
		for (char *one = strtok_r(value, ",", &save); one;
		     one = strtok_r(NULL, ",", &save)) {
			if (!flat_prefix_parse(one, &prefix))
				return flat_fail(err, FLAT_CODE_CONFIG, 0,
						 "%s: \"%.64s\" is not a subnet", line, one);
			prefix.ip = flat_prefix_first(
				&prefix); /* flannel writes the gateway's address there */
			if (list->count < 16 && append_prefix(&req->arena, list, &prefix, err) < 0)
				return -ENOMEM;
		}
	} else if (!strcmp(line, "FLANNEL_MTU")) {
		if (!flat_uint_parse(value, 65535, &number))
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "FLANNEL_MTU: \"%.64s\" is not a number up to 65535",
					 value);
		file->mtu = (int64_t)number;
	} else if (!strcmp(line, "FLANNEL_IPMASQ")) {
		file->flannel_masq = !strcmp(value, "true");
	}
	return 0;
}

static int read_node_file(struct flat_request *req, const char *path, struct node_file *ret_file,
			  struct flat_err *err)
{
	struct node_file file = { .flannel_masq = -1 };
	flat_auto_free char *text = NULL;
	int r = 0;

	if (path[0] != '/')
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "subnetFile: \"%.128s\" must be an absolute path", path);
	int len = flat_state_read(AT_FDCWD, path, SUBNET_FILE_MAX, &text, err);
	if (len == -ENOENT) {
		flat_fail(err, FLAT_CODE_TRY_LATER, ENOENT,
			  "the pod subnet of this node is not known: subnet file '%.128s'", path);
		return flat_detail(
			err,
			"start the node agent that writes it, or set ipam.subnet, or give a list of nodes");
	}
	if (len < 0)
		return flat_wrap(err, "subnetFile '%.128s'", path);
	if (text[strspn(text, " \t\r\n")] == '{') {
		struct flat_json *json = NULL;
		r = flat_json_parse(text, (size_t)len, &json, err);
		if (r >= 0)
			r = flat_json_decode(json, "", node_file_fields, &file, &req->arena, err);
		flat_json_free(json);
	} else {
		char *save = NULL;
		for (char *line = strtok_r(text, "\r\n", &save); line && r >= 0;
		     line = strtok_r(NULL, "\r\n", &save))
			r = parse_env_line(req, line, &file, err);
	}
	if (r < 0)
		return flat_wrap(err, "subnetFile '%.128s'", path);
	if (!file.pod_cidrs.count) {
		flat_fail(err, FLAT_CODE_TRY_LATER, 0,
			  "subnetFile '%.128s' names no subnet of this node yet", path);
		return flat_detail(err, "podCIDRs in JSON, FLANNEL_SUBNET in flannel's format");
	}
	*ret_file = file;
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
		if (node == conf->self || !node->addresses.count)
			continue;
		if (flat_route_lookup(net, LIST_AT(&node->addresses, struct flat_ip, 0), &route,
				      NULL) > 0 &&
		    route.oif && flat_link_by_index(net, route.oif, &link, NULL) > 0 &&
		    !link.loopback)
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
		for (size_t k = 0; node != conf->self && k < node->pod_cidrs.count; k++)
			for (size_t j = 0; j < conf->pod_cidrs.count; j++) {
				const struct flat_prefix *own =
					LIST_AT(&conf->pod_cidrs, struct flat_prefix, j);
				const struct flat_prefix *other =
					LIST_AT(&node->pod_cidrs, struct flat_prefix, k);
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
	if (source->nodes_file)
		r = read_nodes_file(req, source->nodes_file, &conf->nodes, err);
	if (r < 0)
		return r;
	if (!conf->nodes.count)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s: the list is empty: this node must be in it", where);
	for (size_t i = 0; i < conf->nodes.count && r >= 0; i++)
		r = check_node(LIST_AT(&conf->nodes, struct flat_node, i), i, where, err);
	if (r >= 0)
		r = check_overlaps(&conf->nodes, where, err);
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
		r = include_subnets(req, &told, &node->pod_cidrs, node->name, conf, err);
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
		subnets = conf->self->pod_cidrs;
		if (!conf->mtu)
			conf->mtu = underlay_mtu(conf, net);
	} else if (source->subnet_file || (conf->ipam_kind == FLAT_IPAM_OWN && !own_range)) {
		struct node_file file = { 0 };
		r = read_node_file(req, source->subnet_file ? source->subnet_file : FLAT_NODE_FILE,
				   &file, err);
		if (r < 0)
			return r;
		subnets = file.pod_cidrs;
		conf->cluster_cidrs = file.cluster_cidrs;
		if (!conf->mtu)
			conf->mtu = (uint32_t)file.mtu;
		/* as flannel's own CNI plugin: who masquerades, flanneld or we? */
		if (!source->ip_masq_given && file.flannel_masq != -1)
			conf->ip_masq = !file.flannel_masq;
	}
	if (conf->ipam_kind == FLAT_IPAM_OWN) {
		r = flat_ipam_conf_parse(req, &subnets, &conf->ipam, err);
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
