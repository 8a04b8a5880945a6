// SPDX-License-Identifier: Apache-2.0
#include "etcd-table.h"

#include <stdlib.h>
#include <string.h>

static size_t bucket_of(const struct flat_etcd_table *table, const char *text)
{
	return flat_hash(0, text, strlen(text)) & (table->buckets - 1);
}

static void link_entry(struct flat_etcd_table *table, struct flat_etcd_entry *entry)
{
	struct flat_etcd_entry **key = &table->by_key[bucket_of(table, entry->key)];
	struct flat_etcd_entry **name = &table->by_name[bucket_of(table, entry->name)];
	entry->next_by_key = *key;
	entry->next_by_name = *name;
	*key = *name = entry;
}

/* Twice as many buckets; without memory it stays as it is, only slower. */
static bool grow(struct flat_etcd_table *table)
{
	struct flat_etcd_table bigger = { .buckets = table->buckets ? table->buckets * 2 : 64 };
	bigger.by_key = calloc(bigger.buckets, sizeof(struct flat_etcd_entry *));
	bigger.by_name = calloc(bigger.buckets, sizeof(struct flat_etcd_entry *));
	if (!bigger.by_key || !bigger.by_name) {
		free(bigger.by_key);
		free(bigger.by_name);
		return table->buckets != 0;
	}
	for (size_t i = 0; i < table->buckets; i++) {
		struct flat_etcd_entry *entry = table->by_key[i];
		while (entry) {
			struct flat_etcd_entry *next = entry->next_by_key;
			link_entry(&bigger, entry);
			entry = next;
		}
	}
	bigger.count = table->count;
	free(table->by_key);
	free(table->by_name);
	*table = bigger;
	return true;
}

struct flat_etcd_entry *flat_etcd_table_find(const struct flat_etcd_table *table, const char *key)
{
	if (!table->buckets)
		return NULL;
	struct flat_etcd_entry *entry = table->by_key[bucket_of(table, key)];
	while (entry && strcmp(entry->key, key) != 0)
		entry = entry->next_by_key;
	return entry;
}

struct flat_etcd_entry *flat_etcd_table_named(const struct flat_etcd_table *table, const char *name,
					      uint64_t list)
{
	struct flat_etcd_entry *found = NULL;
	if (!table->buckets)
		return NULL;
	for (struct flat_etcd_entry *entry = table->by_name[bucket_of(table, name)]; entry;
	     entry = entry->next_by_name)
		if ((!list || entry->list == list) && !strcmp(entry->name, name) &&
		    (!found || entry->create_revision > found->create_revision))
			found = entry;
	return found;
}

struct flat_etcd_entry *flat_etcd_table_add(struct flat_etcd_table *table, const char *key,
					    const char *name)
{
	size_t key_size = strlen(key) + 1, name_size = strlen(name) + 1;
	if (table->count >= table->buckets && !grow(table))
		return NULL;
	struct flat_etcd_entry *entry = calloc(1, sizeof *entry + key_size + name_size);
	if (!entry)
		return NULL;
	memcpy(entry->key, key, key_size);
	entry->name = memcpy(entry->key + key_size, name, name_size);
	link_entry(table, entry);
	table->count++;
	return entry;
}

void flat_etcd_table_remove(struct flat_etcd_table *table, struct flat_etcd_entry *entry)
{
	struct flat_etcd_entry **at = &table->by_key[bucket_of(table, entry->key)];
	while (*at != entry)
		at = &(*at)->next_by_key;
	*at = entry->next_by_key;
	at = &table->by_name[bucket_of(table, entry->name)];
	while (*at != entry)
		at = &(*at)->next_by_name;
	*at = entry->next_by_name;
	free(entry);
	table->count--;
}

struct flat_etcd_entry *flat_etcd_table_next(const struct flat_etcd_table *table,
					     const struct flat_etcd_entry *entry)
{
	size_t bucket = 0;
	if (entry) {
		if (entry->next_by_key)
			return entry->next_by_key;
		bucket = bucket_of(table, entry->key) + 1;
	}
	for (; bucket < table->buckets; bucket++)
		if (table->by_key[bucket])
			return table->by_key[bucket];
	return NULL;
}

void flat_etcd_table_clear(struct flat_etcd_table *table)
{
	for (size_t i = 0; i < table->buckets; i++) {
		struct flat_etcd_entry *entry = table->by_key[i];
		while (entry) {
			struct flat_etcd_entry *next = entry->next_by_key;
			free(entry);
			entry = next;
		}
	}
	free(table->by_key);
	free(table->by_name);
	*table = (struct flat_etcd_table){ 0 };
}
