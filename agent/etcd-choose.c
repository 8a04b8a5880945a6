// SPDX-License-Identifier: Apache-2.0
/* Which subnet this node shall have, and who else has it. */
#include "source-etcd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- whose it is -------------------------------------------------------------------------------
 */

static bool same_name(const struct flat_source *source, const char *name)
{
	return !strcmp(name, source->conf->node_name);
}

bool flat_etcd_is_own(const struct flat_source *source, const struct flat_etcd_entry *entry)
{
	if (entry->named)
		return same_name(source, entry->name);
	if (!source->conf->cluster.flannel || !source->published)
		return false;
	for (int f = 0; f < FLAT_FAMILIES; f++) /* by the first address that both have */
		if (entry->addresses[f].family && source->self.node.addresses[f].family)
			return flat_ip_equal(&entry->addresses[f], &source->self.node.addresses[f]);
	return false;
}

struct flat_etcd_entry *flat_etcd_own_entry(const struct flat_source *source)
{
	struct flat_etcd_entry *found = NULL, *entry = NULL;
	while ((entry = flat_etcd_table_next(&source->table, entry)))
		if (flat_etcd_is_own(source, entry) &&
		    (!found || entry->create_revision > found->create_revision))
			found = entry;
	return found;
}

bool flat_etcd_overlaps(const struct flat_prefix *cidr, const struct flat_etcd_entry *entry)
{
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (cidr->ip.family && cidr->ip.family == entry->cidrs[f].ip.family &&
		    flat_prefix_overlaps(cidr, &entry->cidrs[f]))
			return true;
	return false;
}

static bool in_cluster(const struct flat_cluster_conf *cluster, const struct flat_prefix *net)
{
	for (size_t i = 0; i < cluster->cidr_count; i++)
		if (cluster->cidrs[i].ip.family == net->ip.family &&
		    cluster->cidrs[i].len <= net->len &&
		    flat_prefix_contains(&cluster->cidrs[i], &net->ip))
			return true;
	return false;
}

/* Can this record be believed to take addresses from others? One that reaches beyond the flat
 * network is refused by every node. */
static bool counts(const struct flat_source *source, const struct flat_etcd_entry *entry)
{
	const struct flat_cluster_conf *cluster = &source->conf->cluster;
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (entry->cidrs[f].ip.family && !in_cluster(cluster, &entry->cidrs[f]))
			return false;
	return true;
}

const struct flat_etcd_entry *flat_etcd_find_rival(const struct flat_source *source,
						   const struct flat_prefix *cidrs, size_t count)
{
	const struct flat_etcd_entry *found = NULL, *entry = NULL;
	while ((entry = flat_etcd_table_next(&source->table, entry))) {
		bool hit = false;
		for (size_t i = 0; i < count; i++)
			hit = hit || flat_etcd_overlaps(&cidrs[i], entry);
		if (hit && counts(source, entry) && !flat_etcd_is_own(source, entry) &&
		    (!found || entry->create_revision < found->create_revision))
			found = entry;
	}
	return found;
}

/* ---- what can be had ---------------------------------------------------------------------------
 */

/* What is handed out when we decide: of each family, the network that has the bounds, else the
 * first. */
static int native_pools(struct flat_source *source, struct flat_err *err)
{
	const struct flat_agent_conf *conf = source->conf;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		struct flat_subnet_pool *pool = &source->pools[f];
		pool->len = conf->etcd.subnet_len[f];
		pool->min = conf->etcd.subnet_min[f];
		pool->max = conf->etcd.subnet_max[f];
		const struct flat_ip *bound = pool->min.family ? &pool->min : &pool->max;
		for (size_t i = 0; i < conf->cluster.cidr_count; i++) {
			const struct flat_prefix *cidr = &conf->cluster.cidrs[i];
			if (flat_family_index(cidr->ip.family) != f)
				continue;
			if (!pool->net.ip.family ||
			    (bound->family && !flat_prefix_contains(&pool->net, bound)))
				pool->net = *cidr;
		}
		int r = flat_subnets_check(pool, err);
		if (r < 0)
			return flat_wrap(err, f == FLAT_V4 ? "etcd.subnetLen, subnetMin, subnetMax"
							   : "etcd.ipv6SubnetLen, ipv6SubnetMin, "
							     "ipv6SubnetMax");
	}
	return 0;
}

static int fixed_subnets(const struct flat_agent_conf *conf, struct flat_err *err)
{
	size_t count[FLAT_FAMILIES] = { 0 };
	for (size_t i = 0; i < conf->pod_cidr_count; i++)
		if (++count[flat_family_index(conf->pod_cidrs[i].ip.family)] > 1)
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "podCIDRs: with source etcd a node has one subnet of each "
					 "IP version");
	return 0;
}

int flat_etcd_open_pools(struct flat_source *source, struct flat_err *err)
{
	const struct flat_agent_conf *conf = source->conf;
	int r = fixed_subnets(conf, err);
	if (r >= 0 && !conf->pod_cidr_count && !conf->cluster.flannel)
		r = native_pools(source, err);
	return r;
}

int flat_etcd_check_netconf(const struct flat_source *source, const struct flat_netconf *netconf,
			    struct flat_err *err)
{
	const struct flat_cluster_conf *cluster = &source->conf->cluster;
	char net[FLAT_PREFIX_TEXT];
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_prefix *network = &netconf->pools[f].net;
		if (!network->ip.family || in_cluster(cluster, network))
			continue;
		flat_fail(err, FLAT_CODE_CONFIG, 0, "flannel's network %s is not this node's",
			  flat_prefix_text(network, net));
		return flat_detail(err, "set clusterCIDR to %s", flat_prefix_text(network, net));
	}
	bool vxlan = !strcmp(netconf->backend, "vxlan");
	if (!vxlan && strcmp(netconf->backend, "host-gw") != 0) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "flannel's backend is neither vxlan nor host-gw");
		return flat_detail(err, "no other one is spoken here: \"Backend\": "
					"{\"Type\": \"vxlan\"}");
	}
	if (vxlan != (source->self.backend != FLAT_BACKEND_DIRECT)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "flannel's backend is %s, this node's is not",
			  netconf->backend);
		return flat_detail(err, "set backend to %s", vxlan ? "vxlan" : "direct");
	}
	if (vxlan && (netconf->vni != cluster->vni || netconf->port != cluster->port)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "flannel's VXLAN has VNI %u and port %u, this node's %u and %u",
			  netconf->vni, netconf->port, cluster->vni, cluster->port);
		return flat_detail(err, "set vxlan.vni to %u and vxlan.port to %u", netconf->vni,
				   netconf->port);
	}
	return 0;
}

/* ---- which one ---------------------------------------------------------------------------------
 */

static int taken_by(const struct flat_prefix *cidr, const struct flat_etcd_entry *rival,
		    struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT], address[FLAT_IP_TEXT] = "no address";
	for (int f = FLAT_FAMILIES - 1; f >= 0; f--)
		if (rival->addresses[f].family)
			flat_ip_text(&rival->addresses[f], address);
	return flat_fail(err, FLAT_CODE_IN_USE, 0,
			 "the subnet %s of this node is taken by node '%s' (%s, key %s)",
			 flat_prefix_text(cidr, text), rival->name, address, rival->key);
}

/* podCIDRs of the configuration are not for us to choose. */
static int choose_fixed(const struct flat_source *source, struct flat_prefix *ret_cidrs,
			struct flat_err *err)
{
	const struct flat_agent_conf *conf = source->conf;
	for (size_t i = 0; i < conf->pod_cidr_count; i++) {
		const struct flat_prefix *cidr = &conf->pod_cidrs[i];
		const struct flat_etcd_entry *rival = flat_etcd_find_rival(source, cidr, 1);
		if (rival) {
			taken_by(cidr, rival, err);
			return flat_detail(err, "give one of the two nodes other podCIDRs, or "
						"delete the record if that node is gone");
		}
		ret_cidrs[flat_family_index(cidr->ip.family)] = *cidr;
	}
	return 0;
}

/* Keeps of this candidate what fits and is free. loud: it was ours until now. */
static void keep_candidate(const struct flat_source *source, const struct flat_prefix *cidrs,
			   size_t count, bool loud, struct flat_prefix *keep)
{
	for (size_t i = 0; i < count; i++) {
		if (!cidrs[i].ip.family)
			continue;
		int f = flat_family_index(cidrs[i].ip.family);
		char text[FLAT_PREFIX_TEXT];
		if (keep[f].ip.family)
			continue;
		if (!flat_subnets_fits(&source->pools[f], &cidrs[i])) {
			if (loud && source->pools[f].net.ip.family)
				flat_say(
					FLAT_LEVEL_WARN,
					"the subnet of this node is none of those to hand out now: "
					"another one is taken",
					"podCIDR", flat_prefix_text(&cidrs[i], text), NULL);
			continue;
		}
		const struct flat_etcd_entry *rival = flat_etcd_find_rival(source, &cidrs[i], 1);
		if (!rival) {
			keep[f] = cidrs[i];
			continue;
		}
		struct flat_err err = { 0 };
		taken_by(&cidrs[i], rival, &err);
		flat_detail(&err, "another one is taken; pods that have addresses of the old one "
				  "are not reached any more: delete them");
		if (loud)
			flat_say_error(FLAT_LEVEL_ERROR, "this node has lost its subnet", &err);
	}
}

static int choose_free(const struct flat_source *source, const struct flat_etcd_entry *own,
		       struct flat_prefix *ret_cidrs, struct flat_err *err)
{
	const char *name = source->conf->node_name;
	struct flat_prefix keep[FLAT_FAMILIES] = { 0 };
	flat_auto_free struct flat_prefix *taken =
		calloc(source->table.count * FLAT_FAMILIES + 1, sizeof *taken);
	const struct flat_etcd_entry *entry = NULL;
	size_t count = 0;
	if (!taken)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "choose a subnet");
	while ((entry = flat_etcd_table_next(&source->table, entry))) {
		if (flat_etcd_is_own(source, entry) || !counts(source, entry))
			continue;
		for (int f = 0; f < FLAT_FAMILIES; f++)
			if (entry->cidrs[f].ip.family)
				taken[count++] = entry->cidrs[f];
	}
	keep_candidate(source, source->cidrs, FLAT_FAMILIES, true, keep);
	if (own)
		keep_candidate(source, own->cidrs, FLAT_FAMILIES,
			       !source->cidrs[0].ip.family && !source->cidrs[1].ip.family, keep);
	keep_candidate(source, source->self.node.pod_cidrs, source->self.node.pod_cidr_count,
		       !own && !source->cidrs[0].ip.family && !source->cidrs[1].ip.family, keep);
	return flat_subnets_choose(source->pools, keep, taken, count,
				   flat_hash(0, name, strlen(name)), ret_cidrs, err);
}

int flat_etcd_choose(const struct flat_source *source, const struct flat_etcd_entry *own,
		     struct flat_prefix ret_cidrs[static FLAT_FAMILIES], struct flat_err *err)
{
	return source->conf->pod_cidr_count ? choose_fixed(source, ret_cidrs, err)
					    : choose_free(source, own, ret_cidrs, err);
}
