// SPDX-License-Identifier: Apache-2.0
/* Hearing of the source etcd: its records, listed and watched. */
#include "source-etcd.h"

#include <stdio.h>
#include <string.h>

enum { PAGE = 256 }; /* records in one piece of a list */

/* ---- records -----------------------------------------------------------------------------------
 */

/* Takes an entry away. Its node is gone, unless it has another record. */
static void drop_entry(struct flat_source *source, struct flat_etcd_entry *entry)
{
	char name[FLAT_NODE_NAME_MAX + 1];
	bool told = flat_etcd_table_named(&source->table, entry->name, 0) == entry;
	bool own = entry->named && flat_etcd_is_own(source, entry);
	snprintf(name, sizeof name, "%s", entry->name);
	flat_etcd_table_remove(&source->table, entry);
	if (!told || own || source->hearing == FLAT_HEARING_LIST)
		return;
	if (flat_etcd_table_named(&source->table, name, 0))
		source->list_again = true; /* what the other one says is not remembered */
	else
		source->listener->gone(source->listener->arg, name);
}

const char *flat_etcd_hear_key(const struct flat_source *source, const struct flat_etcd_kv *kv)
{
	size_t len = strlen(source->folder);
	return !strncmp(kv->key, source->folder, len) && kv->key[len] ? kv->key + len : NULL;
}

void flat_etcd_hear_gone(struct flat_source *source, const char *key, int64_t revision)
{
	struct flat_etcd_entry *entry = flat_etcd_table_find(&source->table, key);
	if (!entry || entry->mod_revision > revision)
		return;
	drop_entry(source, entry);
	if (source->crowded) { /* now there may be room: do not wait */
		source->crowded = false;
		ev_timer_stop(source->loop, &source->own_timer);
	}
}

void flat_etcd_hear_put(struct flat_source *source, const struct flat_etcd_kv *kv)
{
	const char *key = flat_etcd_hear_key(source, kv);
	bool listing = source->hearing == FLAT_HEARING_LIST;
	struct flat_arena arena = { 0 };
	struct flat_record record;
	struct flat_err err = { 0 };
	if (!key)
		return;
	struct flat_etcd_entry *entry = flat_etcd_table_find(&source->table, key);
	if (entry && !listing && entry->mod_revision >= kv->mod_revision)
		return;
	int r = flat_record_parse(key, kv->value, kv->value_len, &arena, &record, &err);
	if (r < 0 && err.code == FLAT_CODE_INTERNAL) {
		source->list_again = true;
		flat_arena_free(&arena);
		return;
	}
	if (entry && strcmp(entry->name, record.node.name) != 0) {
		drop_entry(source, entry);
		entry = NULL;
	}
	if (!entry)
		entry = flat_etcd_table_add(&source->table, key, record.node.name);
	if (!entry) {
		source->list_again = true;
		flat_arena_free(&arena);
		return;
	}
	entry->named = record.named;
	entry->create_revision = kv->create_revision;
	entry->mod_revision = kv->mod_revision;
	entry->lease = kv->lease;
	entry->list = source->list;
	entry->value_hash = flat_hash(1, kv->value, kv->value_len);
	memcpy(entry->cidrs, record.cidrs, sizeof entry->cidrs);
	memcpy(entry->addresses, record.node.addresses, sizeof entry->addresses);
	bool own = flat_etcd_is_own(source, entry);
	if (source->held && !own && entry->create_revision < source->create_revision)
		for (int f = 0; f < FLAT_FAMILIES; f++)
			source->rival =
				source->rival || flat_etcd_overlaps(&source->cidrs[f], entry);
	record.node.since = (uint64_t)kv->create_revision;
	/* What this node has is told when it has it; until then, what it had. */
	if (!(own && source->held) && flat_etcd_table_named(&source->table, record.node.name,
							    listing ? source->list : 0) == entry)
		source->listener->node(source->listener->arg, &record.node, r < 0 ? err.msg : NULL);
	flat_arena_free(&arena);
}

/* ---- list and watch ----------------------------------------------------------------------------
 */

static void hear_later(struct flat_source *source, double seconds)
{
	flat_etcd_unwatch(source->etcd);
	source->hearing = FLAT_HEARING_NOTHING;
	ev_timer_stop(source->loop, &source->hear_timer);
	ev_timer_set(&source->hear_timer, seconds, 0.);
	ev_timer_start(source->loop, &source->hear_timer);
}

void flat_etcd_hear_failed(struct flat_source *source, const struct flat_etcd_failure *failure)
{
	if (failure->trouble == FLAT_ETCD_COMPACTED) {
		flat_say(FLAT_LEVEL_INFO, "etcd has forgotten what came next: listing again",
			 "endpoint", flat_etcd_endpoint(source->etcd), NULL);
		source->listed = false;
		hear_later(source, flat_backoff_next(&source->hear_backoff, 0.1, 10));
		return;
	}
	/* The first time, the next endpoint may well do. */
	if (source->hear_backoff.tries)
		source->hear_trouble = failure->err;
	hear_later(source, flat_backoff_next(&source->hear_backoff, 0.2, 15));
	flat_etcd_tell_state(source);
}

static void hear_no_memory(struct flat_source *source, const struct flat_err *err)
{
	struct flat_etcd_failure failure = { FLAT_ETCD_FAULT, *err };
	flat_etcd_hear_failed(source, &failure);
}

static void watch_created(void *arg, const struct flat_etcd_answer *answer)
{
	struct flat_source *source = arg;
	/* A store that was made anew, or put back from a copy, knows nothing of our revision. */
	if (answer->revision < source->seen ||
	    strncmp(answer->cluster_id, source->cluster_id, sizeof source->cluster_id - 1) != 0) {
		flat_say(FLAT_LEVEL_WARN, "etcd is not the store it was: listing again", "endpoint",
			 flat_etcd_endpoint(source->etcd), NULL);
		source->listed = false;
		hear_later(source, flat_backoff_next(&source->hear_backoff, 0.1, 10));
		return;
	}
	source->hearing = FLAT_HEARING_LIVE;
	source->hear_backoff.tries = 0;
	source->hear_trouble.code = 0;
	flat_etcd_tell_state(source);
	flat_etcd_own_kick(source);
}

static void watch_events(void *arg, const struct flat_etcd_answer *answer)
{
	struct flat_source *source = arg;
	int64_t seen = answer->revision;
	for (size_t i = 0; i < answer->kv_count; i++) {
		const struct flat_etcd_kv *kv = &answer->kvs[i];
		seen = kv->mod_revision;
		if (!kv->deleted)
			flat_etcd_hear_put(source, kv);
		else if (flat_etcd_hear_key(source, kv))
			flat_etcd_hear_gone(source, flat_etcd_hear_key(source, kv),
					    kv->mod_revision);
	}
	if (seen > source->seen)
		source->seen = seen;
	if (source->list_again) {
		source->listed = false;
		hear_later(source, 0.);
		return;
	}
	flat_etcd_own_kick(source);
}

static void watch_ended(void *arg, const struct flat_etcd_failure *failure)
{
	flat_etcd_hear_failed(arg, failure);
}

static void hear_watch(struct flat_source *source)
{
	const struct flat_etcd_watcher watcher = {
		.created = watch_created,
		.events = watch_events,
		.ended = watch_ended,
		.arg = source,
	};
	struct flat_err err = { 0 };
	source->hearing = FLAT_HEARING_WATCH;
	if (flat_etcd_watch(source->etcd, source->folder, source->seen + 1, &watcher, &err) < 0)
		hear_no_memory(source, &err);
}

/* What the list did not have is gone. */
static void drop_unlisted(struct flat_source *source)
{
	struct flat_etcd_entry *last = NULL, *entry;
	while ((entry = flat_etcd_table_next(&source->table, last))) {
		if (entry->list == source->list)
			last = entry;
		else
			flat_etcd_table_remove(&source->table, entry);
	}
}

static void list_page(struct flat_source *source, const char *after, size_t after_len);

static void list_done(void *arg, const struct flat_etcd_answer *answer,
		      const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	if (failure) {
		flat_etcd_hear_failed(source, failure);
		return;
	}
	if (!source->list_revision) {
		source->list++;
		source->list_revision = answer->revision;
		snprintf(source->cluster_id, sizeof source->cluster_id, "%s", answer->cluster_id);
		source->listener->begin(source->listener->arg);
	}
	for (size_t i = 0; i < answer->kv_count; i++)
		flat_etcd_hear_put(source, &answer->kvs[i]);
	if (answer->more && answer->after) {
		list_page(source, answer->after, answer->after_len);
		return;
	}
	drop_unlisted(source);
	source->told_fault = 0;
	if (source->held)
		flat_etcd_tell_self(source);
	else if (source->own_trouble.code)
		flat_etcd_tell_fault(source);
	source->seen = source->list_revision;
	source->listed = !source->list_again;
	source->list_again = false;
	source->listener->synced(source->listener->arg);
	hear_watch(source);
}

static void list_page(struct flat_source *source, const char *after, size_t after_len)
{
	const struct flat_etcd_range range = {
		.key = source->folder,
		.prefix = true,
		.after = after,
		.after_len = after_len,
		.limit = PAGE,
		.revision = source->list_revision,
	};
	struct flat_err err = { 0 };
	source->hearing = FLAT_HEARING_LIST;
	if (flat_etcd_range(source->etcd, &range, list_done, source, &err) < 0)
		hear_no_memory(source, &err);
}

static void hear(struct flat_source *source)
{
	if (source->listed) {
		hear_watch(source);
	} else {
		source->list_revision = 0;
		list_page(source, NULL, 0);
	}
}

void flat_etcd_on_hear_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	hear(timer->data);
}
