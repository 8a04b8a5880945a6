/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: which records stand in etcd, by key and by name: to choose a free subnet, and
 * to know whose record it was when a key goes. Not the nodes themselves: those the listener keeps.
 */
#pragma once

#include <flatnet/cluster.h>

struct flat_etcd_entry {
	struct flat_etcd_entry *next_by_key, *next_by_name;
	struct flat_prefix cidrs[FLAT_FAMILIES];
	struct flat_ip addresses[FLAT_FAMILIES];
	int64_t create_revision, mod_revision, lease;
	uint64_t value_hash;
	uint64_t list; /* number of the last list that had it */
	bool named;
	const char *name; /* behind the key */
	char key[];
};

struct flat_etcd_table { /* zero-initialise */
	struct flat_etcd_entry **by_key, **by_name;
	size_t buckets, count;
};

struct flat_etcd_entry *flat_etcd_table_find(const struct flat_etcd_table *table, const char *key);
/* The youngest record of this name that was in this list (0: whichever). */
struct flat_etcd_entry *flat_etcd_table_named(const struct flat_etcd_table *table, const char *name,
					      uint64_t list);
/* A new entry, zeroed but for its texts; there is none of this key. NULL: no memory. */
struct flat_etcd_entry *flat_etcd_table_add(struct flat_etcd_table *table, const char *key,
					    const char *name);
void flat_etcd_table_remove(struct flat_etcd_table *table, struct flat_etcd_entry *entry);
/* Goes through all: NULL begins, NULL ends. The last one returned may not be removed. */
struct flat_etcd_entry *flat_etcd_table_next(const struct flat_etcd_table *table,
					     const struct flat_etcd_entry *entry);
void flat_etcd_table_clear(struct flat_etcd_table *table);
