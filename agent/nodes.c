// SPDX-License-Identifier: Apache-2.0
#include "nodes.h"

#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	FIRST_BUCKETS = 16,
	FAULT_MAX = 512,
	BURST = 64, /* lines about nodes in one go; a sum follows */
};

/* The node comes first: a pointer to it is one to its entry. */
struct entry {
	struct flat_node node;
	struct entry *next;
	uint64_t said; /* hash of what was last said about it; 0: nothing yet */
	uint32_t generation;
	uint8_t verdict; /* as it was said */
	char *fault;
	char name[];
};

struct flat_node_table {
	const char *own;
	struct entry **buckets;
	size_t bucket_count, count, refused_count; /* of the entries, those with a fault */
	uint32_t generation;
	const struct flat_node **list;
	size_t list_count, list_size;
	const struct flat_node *list_self;
	struct flat_remark full;
	unsigned lines; /* said in this go */
};

/* ---- texts -------------------------------------------------------------------------------------
 */

const char *flat_node_cidrs_text(const struct flat_node *node, char buf[static FLAT_NODE_TEXT])
{
	size_t n = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < node->pod_cidr_count; i++) {
		if (i)
			buf[n++] = ',';
		flat_prefix_text(&node->pod_cidrs[i], buf + n);
		n += strlen(buf + n);
	}
	return buf;
}

const char *flat_node_addresses_text(const struct flat_node *node, char buf[static FLAT_NODE_TEXT])
{
	size_t n = 0;
	buf[0] = '\0';
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		if (!node->addresses[f].family)
			continue;
		if (n)
			buf[n++] = ',';
		flat_ip_text(&node->addresses[f], buf + n);
		n += strlen(buf + n);
	}
	return buf;
}

/* One line about a node. After many in one go the others are for who asks for everything. */
static void say(struct flat_node_table *table, enum flat_level level, const char *msg,
		const struct flat_node *node, const char *why)
{
	char cidrs[FLAT_NODE_TEXT], addresses[FLAT_NODE_TEXT];
	if (++table->lines > BURST)
		level = FLAT_LEVEL_DEBUG;
	flat_node_cidrs_text(node, cidrs);
	flat_node_addresses_text(node, addresses);
	flat_say(level, msg, "node", node->name, "podCIDRs", cidrs[0] ? cidrs : NULL, "address",
		 addresses[0] ? addresses : NULL, "reason", why, NULL);
}

static void end_burst(struct flat_node_table *table)
{
	char more[24];
	if (table->lines > BURST) {
		snprintf(more, sizeof more, "%u", table->lines - BURST);
		flat_say(FLAT_LEVEL_INFO, "and more changes of nodes: see level debug", "count",
			 more, NULL);
	}
	table->lines = 0;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

int flat_node_table_open(const char *own, struct flat_node_table **ret_table, struct flat_err *err)
{
	struct flat_node_table *table = calloc(1, sizeof *table);
	if (table)
		table->buckets = calloc(FIRST_BUCKETS, sizeof(struct entry *));
	if (!table || !table->buckets) {
		free(table);
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "table of nodes");
	}
	table->own = own;
	table->bucket_count = FIRST_BUCKETS;
	*ret_table = table;
	return 0;
}

static void drop(struct flat_node_table *table, struct entry **place)
{
	struct entry *entry = *place;
	*place = entry->next;
	table->count--;
	table->refused_count -= entry->fault != NULL;
	table->list_count = 0; /* it may point there */
	free(entry->fault);
	free(entry);
}

void flat_node_table_close(struct flat_node_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->bucket_count; i++)
		while (table->buckets[i])
			drop(table, &table->buckets[i]);
	free(table->buckets);
	free(table->list);
	free(table);
}

static struct entry **find(const struct flat_node_table *table, const char *name)
{
	const uint64_t h = flat_hash(0, name, strlen(name));
	struct entry **place = &table->buckets[h & (table->bucket_count - 1)];
	while (*place && strcmp((*place)->name, name) != 0)
		place = &(*place)->next;
	return place;
}

/* Without memory for more buckets the old ones do. */
static void grow(struct flat_node_table *table)
{
	struct entry **old = table->buckets;
	const size_t count = table->bucket_count;
	struct entry **more = calloc(2 * count, sizeof(struct entry *));
	if (!more)
		return;
	table->buckets = more;
	table->bucket_count = 2 * count;
	for (size_t i = 0; i < count; i++)
		for (struct entry *entry = old[i], *next; entry; entry = next) {
			struct entry **place = find(table, entry->name);
			next = entry->next;
			entry->next = *place;
			*place = entry;
		}
	free(old);
}

void flat_node_table_begin(struct flat_node_table *table)
{
	table->generation++;
}

static bool equal_texts(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static int make_entry(struct flat_node_table *table, const struct flat_node *node,
		      struct entry **place)
{
	const size_t len = strlen(node->name);
	if (table->count >= FLAT_NODE_TABLE_MAX && strcmp(node->name, table->own) != 0) {
		flat_remark(&table->full, FLAT_LEVEL_ERROR, "not every node has a place",
			    "the source tells of more than 16384 nodes: the others are refused");
		return -E2BIG;
	}
	struct entry *entry = calloc(1, sizeof *entry + len + 1);
	if (!entry)
		return -ENOMEM;
	memcpy(entry->name, node->name, len);
	*place = entry;
	table->count++;
	return 0;
}

int flat_node_table_hear(struct flat_node_table *table, const struct flat_node *node,
			 const char *fault)
{
	struct entry **place = find(table, node->name);
	const bool fresh = !*place;
	int r = fresh ? make_entry(table, node, place) : 0;
	if (r < 0)
		return r;
	struct entry *entry = *place;
	entry->generation = table->generation;
	if (!fresh && flat_node_equal(&entry->node, node) && equal_texts(entry->fault, fault))
		return 0;
	char *copy = fault ? strndup(fault, FAULT_MAX) : NULL;
	if (fault && !copy) {
		if (fresh)
			drop(table, place);
		return -ENOMEM;
	}
	table->refused_count += (copy != NULL) - (entry->fault != NULL);
	free(entry->fault);
	entry->fault = copy;
	entry->node = *node;
	entry->node.name = entry->name;
	if (fresh && table->count > table->bucket_count)
		grow(table);
	return 1;
}

static void tell_gone(struct flat_node_table *table, const struct entry *entry)
{
	if (strcmp(entry->name, table->own) != 0)
		say(table, FLAT_LEVEL_INFO, "node gone", &entry->node, NULL);
}

bool flat_node_table_gone(struct flat_node_table *table, const char *name)
{
	struct entry **place = find(table, name);
	if (!*place)
		return false;
	tell_gone(table, *place);
	table->lines = 0;
	drop(table, place);
	return true;
}

size_t flat_node_table_synced(struct flat_node_table *table)
{
	size_t gone = 0;
	for (size_t i = 0; i < table->bucket_count; i++)
		for (struct entry **place = &table->buckets[i]; *place;) {
			if ((*place)->generation == table->generation) {
				place = &(*place)->next;
				continue;
			}
			tell_gone(table, *place);
			drop(table, place);
			gone++;
		}
	end_burst(table);
	if (table->count < FLAT_NODE_TABLE_MAX)
		flat_remark_end(&table->full, "every node has a place again");
	return gone;
}

const struct flat_node *flat_node_table_find(const struct flat_node_table *table, const char *name,
					     const char **ret_fault)
{
	const struct entry *entry = *find(table, name);
	if (entry && ret_fault)
		*ret_fault = entry->fault;
	return entry ? &entry->node : NULL;
}

/* ---- what is believed --------------------------------------------------------------------------
 */

int flat_node_table_list(struct flat_node_table *table, const struct flat_node *self,
			 const struct flat_node *const **ret_nodes, size_t *ret_count,
			 struct flat_err *err)
{
	size_t n = 0;
	if (table->list_size < table->count + 1) {
		const size_t size = table->count + table->count / 4 + 16;
		const struct flat_node **list = reallocarray(table->list, size, sizeof(void *));
		if (!list)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "list of nodes");
		table->list = list;
		table->list_size = size;
	}
	for (size_t i = 0; i < table->bucket_count; i++)
		for (struct entry *entry = table->buckets[i]; entry; entry = entry->next)
			if (!entry->fault && strcmp(entry->name, table->own) != 0)
				table->list[n++] = &entry->node;
	if (self)
		table->list[n++] = self;
	table->list_self = self;
	table->list_count = n;
	*ret_nodes = table->list;
	*ret_count = n;
	return 0;
}

static void settle(struct flat_node_table *table, struct entry *entry, enum flat_verdict verdict,
		   const char *why)
{
	static const char *const words[] = {
		[FLAT_NODE_ACCEPTED] = "node accepted",
		[FLAT_NODE_SELF] = "node accepted",
		[FLAT_NODE_WAITING] = "node waits",
		[FLAT_NODE_REFUSED] = "node refused",
	};
	char text[FLAT_NODE_TEXT];
	if (!why)
		why = "";
	uint64_t hash = flat_hash((uint64_t)verdict + 1, why, strlen(why));
	flat_node_cidrs_text(&entry->node, text);
	hash = flat_hash(hash, text, strlen(text));
	flat_node_addresses_text(&entry->node, text);
	hash = flat_hash(hash, text, strlen(text)) | 1;
	if (hash == entry->said)
		return;
	const bool moved = entry->said && verdict == FLAT_NODE_ACCEPTED &&
			   entry->verdict == FLAT_NODE_ACCEPTED;
	say(table, verdict == FLAT_NODE_REFUSED ? FLAT_LEVEL_WARN : FLAT_LEVEL_INFO,
	    moved ? "node changed" : words[verdict], &entry->node, why[0] ? why : NULL);
	entry->said = hash;
	entry->verdict = (uint8_t)verdict;
}

void flat_node_table_settle(struct flat_node_table *table, const struct flat_judgement *judgements,
			    struct flat_status *status)
{
	size_t accepted = 0, waiting = 0, refused = table->refused_count;
	for (size_t i = 0; i < table->list_count; i++) {
		const struct flat_judgement *j = &judgements[i];
		accepted += j->verdict == FLAT_NODE_ACCEPTED;
		waiting += j->verdict == FLAT_NODE_WAITING;
		refused += j->verdict == FLAT_NODE_REFUSED;
		if (table->list[i] != table->list_self)
			settle(table, (struct entry *)table->list[i], j->verdict, j->why);
	}
	for (size_t i = 0; table->refused_count && i < table->bucket_count; i++)
		for (struct entry *entry = table->buckets[i]; entry; entry = entry->next)
			if (entry->fault && strcmp(entry->name, table->own) != 0)
				settle(table, entry, FLAT_NODE_REFUSED, entry->fault);
	end_burst(table);
	status->nodes.known = table->count;
	status->nodes.accepted = accepted;
	status->nodes.waiting = waiting;
	status->nodes.refused = refused;
}
