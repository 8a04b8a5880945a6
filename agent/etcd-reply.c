// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes and 64-bit numbers are strings in proto3's JSON, and what is zero or empty is not there.
 */
#include "etcd-reply.h"

#include "base64.h"

#include <flatnet/cni.h>

#include <errno.h>
#include <string.h>

struct raw_kv {
	const char *key, *value;
	int64_t create_revision, mod_revision, lease;
};

struct raw_event {
	const char *type;
	struct raw_kv kv;
};

struct raw_response {
	struct flat_json_list kvs; /* struct raw_kv */
};

struct raw_answer {
	const char *cluster_id;
	int64_t revision, lease, ttl, compact_revision;
	struct flat_json_list kvs, responses, events;
	bool more, succeeded, created, canceled;
	const char *cancel_reason, *token;
	/* of errors */
	const char *message;
	int64_t code;
};

/* proto3's JSON writes 64-bit numbers as strings. */
static int decode_int64(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			struct flat_err *err)
{
	const char *text = flat_json_text(value);
	uint64_t number = 0;
	if (!text || !flat_uint_parse(text, INT64_MAX, &number))
		return flat_json_fault(d, err, "not a whole number in quotes");
	*(int64_t *)target = (int64_t)number;
	return 0;
}

static const struct flat_json_field kv_fields[] = {
	{ "key", FLAT_JSON_STRING, offsetof(struct raw_kv, key), .required = true },
	{ "value", FLAT_JSON_STRING, offsetof(struct raw_kv, value) },
	{ "create_revision", FLAT_JSON_CUSTOM, offsetof(struct raw_kv, create_revision),
	  .decode = decode_int64 },
	{ "mod_revision", FLAT_JSON_CUSTOM, offsetof(struct raw_kv, mod_revision),
	  .decode = decode_int64 },
	{ "lease", FLAT_JSON_CUSTOM, offsetof(struct raw_kv, lease), .decode = decode_int64 },
	FLAT_JSON_END,
};

static const struct flat_json_field event_fields[] = {
	{ "type", FLAT_JSON_STRING, offsetof(struct raw_event, type) },
	{ "kv", FLAT_JSON_OBJECT, offsetof(struct raw_event, kv), .required = true,
	  .table = kv_fields },
	FLAT_JSON_END,
};

static const struct flat_json_field range_fields[] = {
	{ "kvs", FLAT_JSON_OBJECT_LIST, offsetof(struct raw_response, kvs),
	  .max = FLAT_ETCD_MAX_KVS, .table = kv_fields, .elem_size = sizeof(struct raw_kv) },
	FLAT_JSON_END,
};

static const struct flat_json_field response_fields[] = {
	{ "response_range", FLAT_JSON_OBJECT, 0, .table = range_fields },
	FLAT_JSON_END,
};

static const struct flat_json_field header_fields[] = {
	{ "cluster_id", FLAT_JSON_STRING, offsetof(struct raw_answer, cluster_id) },
	{ "revision", FLAT_JSON_CUSTOM, offsetof(struct raw_answer, revision),
	  .decode = decode_int64 },
	FLAT_JSON_END,
};

static const struct flat_json_field answer_fields[] = {
	{ "header", FLAT_JSON_OBJECT, 0, .table = header_fields },
	{ "kvs", FLAT_JSON_OBJECT_LIST, offsetof(struct raw_answer, kvs), .max = FLAT_ETCD_MAX_KVS,
	  .table = kv_fields, .elem_size = sizeof(struct raw_kv) },
	{ "more", FLAT_JSON_BOOL, offsetof(struct raw_answer, more) },
	{ "succeeded", FLAT_JSON_BOOL, offsetof(struct raw_answer, succeeded) },
	{ "responses", FLAT_JSON_OBJECT_LIST, offsetof(struct raw_answer, responses), .max = 8,
	  .table = response_fields, .elem_size = sizeof(struct raw_response) },
	{ "ID", FLAT_JSON_CUSTOM, offsetof(struct raw_answer, lease), .decode = decode_int64 },
	{ "TTL", FLAT_JSON_CUSTOM, offsetof(struct raw_answer, ttl), .decode = decode_int64 },
	{ "token", FLAT_JSON_STRING, offsetof(struct raw_answer, token) },
	{ "created", FLAT_JSON_BOOL, offsetof(struct raw_answer, created) },
	{ "canceled", FLAT_JSON_BOOL, offsetof(struct raw_answer, canceled) },
	{ "cancel_reason", FLAT_JSON_STRING, offsetof(struct raw_answer, cancel_reason) },
	{ "compact_revision", FLAT_JSON_CUSTOM, offsetof(struct raw_answer, compact_revision),
	  .decode = decode_int64 },
	{ "events", FLAT_JSON_OBJECT_LIST, offsetof(struct raw_answer, events),
	  .max = FLAT_ETCD_MAX_KVS, .table = event_fields, .elem_size = sizeof(struct raw_event) },
	FLAT_JSON_END,
};

static const struct flat_json_field error_fields[] = {
	{ "message", FLAT_JSON_STRING, offsetof(struct raw_answer, message) },
	{ "code", FLAT_JSON_INT, offsetof(struct raw_answer, code) },
	{ "grpc_code", FLAT_JSON_INT, offsetof(struct raw_answer, code) },
	FLAT_JSON_END,
};

/* Bytes that came as base64, with a NUL behind. */
static bool unpack(const char *text, struct flat_arena *arena, const char **ret_bytes,
		   size_t *ret_len)
{
	size_t len = text ? strlen(text) : 0;
	char *bytes = flat_arena_alloc(arena, len / 4 * 3 + 1);
	if (!bytes || !flat_base64_decode(text ? text : "", len, bytes, &len))
		return false;
	bytes[len] = '\0';
	*ret_bytes = bytes;
	*ret_len = len;
	return true;
}

/* Adds one kv to the answer. */
static int take_kv(const struct raw_kv *raw, bool deleted, struct flat_arena *arena,
		   struct flat_etcd_answer *answer, struct flat_etcd_kv *kvs, struct flat_err *err)
{
	struct flat_etcd_kv kv = {
		.create_revision = raw->create_revision,
		.mod_revision = raw->mod_revision,
		.lease = raw->lease,
		.deleted = deleted,
	};
	size_t key_len = 0;
	if (!unpack(raw->key, arena, &kv.key, &key_len) ||
	    !unpack(raw->value, arena, &kv.value, &kv.value_len))
		return flat_fail(err, FLAT_CODE_DECODE, 0, "a key or value is not base64");
	answer->after = kv.key;
	answer->after_len = key_len;
	if (strlen(kv.key) == key_len)
		kvs[answer->kv_count++] = kv;
	return 0;
}

static int take_kvs(const struct raw_answer *raw, struct flat_arena *arena,
		    struct flat_etcd_answer *answer, struct flat_err *err)
{
	const struct raw_response *responses = raw->responses.items;
	const struct raw_event *events = raw->events.items;
	const struct raw_kv *own = raw->kvs.items;
	size_t count = raw->kvs.count + raw->events.count;
	int r = 0;
	for (size_t i = 0; i < raw->responses.count; i++)
		count += responses[i].kvs.count;
	if (!count)
		return 0;
	struct flat_etcd_kv *kvs = flat_arena_alloc(arena, count * sizeof *kvs);
	if (!kvs)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read an answer of etcd's");
	for (size_t i = 0; r >= 0 && i < raw->kvs.count; i++)
		r = take_kv(&own[i], false, arena, answer, kvs, err);
	for (size_t i = 0; r >= 0 && i < raw->events.count; i++)
		r = take_kv(&events[i].kv, events[i].type && !strcmp(events[i].type, "DELETE"),
			    arena, answer, kvs, err);
	for (size_t i = 0; i < raw->responses.count; i++) {
		const struct raw_kv *found = responses[i].kvs.items;
		for (size_t k = 0; r >= 0 && k < responses[i].kvs.count; k++)
			r = take_kv(&found[k], false, arena, answer, kvs, err);
	}
	answer->kvs = kvs;
	return r;
}

int flat_etcd_reply_read(const char *text, size_t len, struct flat_arena *arena,
			 struct flat_etcd_reply *ret_reply, struct flat_err *err)
{
	struct raw_answer raw = { 0 };
	struct flat_json *json = NULL;
	int r = flat_json_parse(text, len, &json, err);
	if (r < 0)
		return r;
	const struct flat_json *result = flat_json_get(json, "result");
	const struct flat_json *error = flat_json_get(json, "error");
	if (error) { /* a stream's is an object, a call's stands beside its message */
		r = flat_json_decode(flat_json_is_object(error) ? error : json, "", error_fields,
				     &raw, arena, err);
		if (r >= 0)
			r = 1;
	} else {
		r = flat_json_decode(result ? result : json, "", answer_fields, &raw, arena, err);
	}
	flat_json_free(json);
	struct flat_etcd_reply reply = {
		.answer = { .revision = raw.revision,
			    .cluster_id = raw.cluster_id ? raw.cluster_id : "",
			    .more = raw.more,
			    .succeeded = raw.succeeded,
			    .lease = raw.lease,
			    .ttl = raw.ttl, },
		.created = raw.created,
		.canceled = raw.canceled,
		.cancel_reason = raw.cancel_reason,
		.compact_revision = raw.compact_revision,
		.token = raw.token,
		.message = raw.message,
		.code = raw.code,
	};
	if (r == 0)
		r = take_kvs(&raw, arena, &reply.answer, err);
	*ret_reply = reply;
	return r;
}
