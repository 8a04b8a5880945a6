// SPDX-License-Identifier: Apache-2.0
/* The last known state: what a restart begins with while the source is away. */
#include "pass.h"

#include "nodefile.h"

#include <string.h>

static uint64_t hash_node(uint64_t hash, const struct flat_node *node)
{
	char text[FLAT_NODE_TEXT];
	hash = flat_hash(hash, node->name, strlen(node->name));
	flat_node_cidrs_text(node, text);
	hash = flat_hash(hash, text, strlen(text));
	flat_node_addresses_text(node, text);
	hash = flat_hash(hash, text, strlen(text));
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (node->has_vtep[f])
			hash = flat_hash(hash, &node->vtep[f], sizeof node->vtep[f]);
	return hash;
}

int flat_reconcile_load(struct flat_reconcile *r, struct flat_err *err)
{
	struct flat_arena arena = { 0 };
	struct flat_json_list nodes = { 0 };
	struct flat_node self = { 0 };
	if (!r->conf->state_file)
		return 0;
	int ret = flat_statefile_load(r->conf->state_file, r->conf->node_name, &arena, &self,
				      &nodes, err);
	if (ret > 0) {
		const struct flat_node *items = nodes.items;
		if (flat_reconcile_stray(r, &self)) /* clusterCIDR was another one then */
			self.pod_cidr_count = 0;
		memcpy(r->self.node.pod_cidrs, self.pod_cidrs, sizeof self.pod_cidrs);
		r->self.node.pod_cidr_count = self.pod_cidr_count;
		for (size_t i = 0; i < nodes.count; i++)
			flat_node_table_hear(r->nodes, &items[i], NULL);
		if (self.name && self.pod_cidr_count && self.name[0])
			flat_node_table_hear(r->nodes, &self, NULL);
		r->trusted = true;
	}
	flat_arena_free(&arena);
	return ret;
}

/* The order of the list is the table's, and says nothing: hashes are added up. */
int flat_reconcile_save(struct flat_reconcile *r, struct flat_err *err)
{
	const struct flat_node *const *nodes;
	size_t count;
	if (!r->conf->state_file || !r->trusted || !r->self.node.pod_cidr_count)
		return 0;
	int ret = flat_node_table_list(r->nodes, NULL, &nodes, &count, err);
	if (ret < 0)
		return ret;
	uint64_t hash = hash_node(1, &r->self.node);
	for (size_t i = 0; i < count; i++)
		hash += hash_node(2, nodes[i]);
	if (hash == r->saved)
		return 0;
	ret = flat_statefile_save(r->conf->state_file, &r->self.node, nodes, count, err);
	if (ret < 0)
		return ret;
	r->saved = hash;
	return 1;
}
