// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation
 *
 * Each endpoint has an HTTP client of its own, and one is in use: so it is known which member said
 * what, and a member that accepts connections but has lost its leader is left as well as one that
 * is down. A call is one POST; bytes and 64-bit numbers are strings in JSON, and what is zero or
 * empty is not there. The gateway of a stream (keepalive, watch) wraps each message in {"result"},
 * one to a line, and tells errors as {"error"} with status 200.
 *
 * With a user, calls wait until there is a token. A token that is refused is dropped, another one
 * is asked for, and the call is made once more: tokens run out, and die with the member that gave
 * them.
 *
 * A canceled watch leaves the connection open: it is for us to close it.
 */
#include "etcd.h"
#include "base64.h"
#include "http.h"

#include <flatnet/cni.h>
#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_ENDPOINTS = 16,
	MAX_KVS = 16384, /* in one answer */
	MAX_TOKEN = 4096,
	MAX_PASSWORD = 4096,
	CALL_SECONDS = 10,
	/* of a watch: its first word */
	CREATE_SECONDS = 10,
	/* A watch without events is told so every ten minutes, give or take one. */
	WATCH_SECONDS = 1500,
};

/* Codes of gRPC, as they stand in an error's "code". */
enum {
	GRPC_NOT_FOUND = 5,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNAVAILABLE = 14,
	GRPC_UNAUTHENTICATED = 16,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_RESOURCE_EXHAUSTED = 8
};

struct text {
	char *data;
	size_t len, size;
};

struct call {
	struct call *next;
	struct flat_etcd *etcd;
	struct flat_http_call *http; /* NULL: it waits for a token */
	size_t endpoint;
	const char *path;
	char *body;
	struct text in; /* of the answer, as far as it has come; of a watch: of the line at hand */
	bool retried;	/* with another token */
	uint64_t token; /* number of the token that it was made with; 0: none */
	flat_etcd_done *done;
	void *arg;
	/* of a watch: */
	bool watch;
	struct flat_etcd_watcher watcher;
	ev_timer first_word;
};

struct flat_etcd {
	struct ev_loop *loop;
	const struct flat_agent_conf *conf;
	struct flat_http *https[MAX_ENDPOINTS];
	size_t endpoint_count, current;
	struct call *calls;
	struct call *watch; /* among them */
	char token[MAX_TOKEN];
	uint64_t token_number; /* 0: none */
	uint64_t tokens;
	struct call *login; /* among them; not NULL: a token is on its way */
};

const char *flat_etcd_endpoint(const struct flat_etcd *etcd)
{
	const char *const *urls = etcd->conf->etcd.endpoints.items;
	return urls[etcd->current];
}

static int no_memory(struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "talk to etcd");
}

/* ---- answers -----------------------------------------------------------------------------------
 */

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
	const char *message, *error_text;
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
	{ "kvs", FLAT_JSON_OBJECT_LIST, offsetof(struct raw_response, kvs), .max = MAX_KVS,
	  .table = kv_fields, .elem_size = sizeof(struct raw_kv) },
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
	{ "kvs", FLAT_JSON_OBJECT_LIST, offsetof(struct raw_answer, kvs), .max = MAX_KVS,
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
	{ "events", FLAT_JSON_OBJECT_LIST, offsetof(struct raw_answer, events), .max = MAX_KVS,
	  .table = event_fields, .elem_size = sizeof(struct raw_event) },
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
		return no_memory(err);
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

/* One JSON object of an answer or a stream. Returns 1 when it is an error of the server's: then
 * *ret_raw has message and code. */
static int read_answer(const char *text, size_t len, struct flat_arena *arena,
		       struct raw_answer *ret_raw, struct flat_etcd_answer *ret_answer,
		       struct flat_err *err)
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
	if (r == 0 && ret_answer) {
		*ret_answer = (struct flat_etcd_answer){
			.revision = raw.revision,
			.cluster_id = raw.cluster_id ? raw.cluster_id : "",
			.more = raw.more,
			.succeeded = raw.succeeded,
			.lease = raw.lease,
			.ttl = raw.ttl,
		};
		r = take_kvs(&raw, arena, ret_answer, err);
	}
	*ret_raw = raw;
	return r;
}

/* ---- failures ----------------------------------------------------------------------------------
 */

static void cure(struct flat_err *err, const char *text)
{
	if (!err->details[0])
		flat_detail(err, "%s", text);
}

/* What a code of gRPC means for us, and what a person can do. */
static void explain(const struct flat_etcd *etcd, const char *path, int64_t code,
		    struct flat_etcd_failure *failure)
{
	const char *user = etcd->conf->etcd.user;
	failure->trouble = FLAT_ETCD_FAULT;
	switch (code) {
	case GRPC_UNAVAILABLE:
	case GRPC_DEADLINE_EXCEEDED:
		failure->trouble = FLAT_ETCD_UNREACHABLE;
		break;
	case GRPC_OUT_OF_RANGE:
		failure->trouble = FLAT_ETCD_COMPACTED;
		break;
	case GRPC_NOT_FOUND:
		failure->trouble = FLAT_ETCD_NO_LEASE;
		break;
	case GRPC_UNAUTHENTICATED:
		failure->trouble = FLAT_ETCD_REFUSED;
		break;
	case GRPC_PERMISSION_DENIED:
		failure->trouble = FLAT_ETCD_REFUSED;
		if (!failure->err.details[0])
			flat_detail(&failure->err,
				    "give the role of etcd's user the right to read and write what "
				    "begins with %s/: etcdctl role grant-permission ROLE "
				    "readwrite %s/ --prefix",
				    etcd->conf->etcd.prefix, etcd->conf->etcd.prefix);
		break;
	case GRPC_INVALID_ARGUMENT:
		failure->trouble = FLAT_ETCD_REFUSED;
		cure(&failure->err, !user ? "if etcd asks for a user, set etcd.user and "
					    "etcd.passwordFile"
				    : !strcmp(path, "/v3/auth/authenticate")
					    ? "correct etcd.user and the content of "
					      "etcd.passwordFile"
					    : "");
		break;
	case GRPC_RESOURCE_EXHAUSTED:
		cure(&failure->err,
		     "where etcd's space is used up: compact and defragment it, then "
		     "etcdctl alarm disarm");
		break;
	default:
		break;
	}
}

static void rotate(struct flat_etcd *etcd, size_t failed)
{
	if (etcd->current == failed)
		etcd->current = (failed + 1) % etcd->endpoint_count;
}

static const char *url_of(const struct call *call)
{
	const char *const *urls = call->etcd->conf->etcd.endpoints.items;
	return urls[call->endpoint];
}

/* ---- calls -------------------------------------------------------------------------------------
 */

static void text_free(struct text *text)
{
	free(text->data);
	*text = (struct text){ 0 };
}

static bool text_add(struct text *text, const char *data, size_t len)
{
	if (len > FLAT_JSON_MAX_SIZE - text->len)
		return false;
	if (text->len + len > text->size) {
		size_t size = text->size ? text->size : 1024;
		while (size < text->len + len)
			size *= 2;
		char *bigger = realloc(text->data, size);
		if (!bigger)
			return false;
		text->data = bigger;
		text->size = size;
	}
	memcpy(text->data + text->len, data, len);
	text->len += len;
	return true;
}

/* Takes it out of the list and lets go of it; the HTTP call has ended or is cancelled here. */
static void call_free(struct call *call)
{
	struct flat_etcd *etcd = call->etcd;
	for (struct call **at = &etcd->calls; *at; at = &(*at)->next)
		if (*at == call) {
			*at = call->next;
			break;
		}
	if (etcd->watch == call)
		etcd->watch = NULL;
	if (etcd->login == call)
		etcd->login = NULL;
	ev_timer_stop(etcd->loop, &call->first_word);
	flat_http_cancel(call->http);
	text_free(&call->in);
	free(call->body);
	free(call);
}

/* The end of a call that went wrong. */
static void call_fail(struct call *call, struct flat_etcd_failure *failure)
{
	flat_etcd_done *done = call->done;
	struct flat_etcd_watcher watcher = call->watcher;
	void *arg = call->arg;
	bool watch = call->watch;
	if (failure->trouble == FLAT_ETCD_UNREACHABLE)
		rotate(call->etcd, call->endpoint);
	call_free(call);
	if (watch)
		watcher.ended(watcher.arg, failure);
	else if (done)
		done(arg, NULL, failure);
}

static int call_send(struct call *call, struct flat_err *err);

static void fail_memory(struct call *call)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_FAULT };
	no_memory(&failure.err);
	call_fail(call, &failure);
}

/* The server did not take the token. True: the call will be made again with another one. */
static bool call_again(struct call *call)
{
	struct flat_etcd *etcd = call->etcd;
	struct flat_err err = { 0 };
	if (!call->token || call->retried || call->watch)
		return false;
	call->retried = true;
	if (etcd->token_number == call->token)
		etcd->token_number = 0;
	text_free(&call->in);
	return call_send(call, &err) >= 0;
}

/* A refusal, with the server's words. */
static void call_refused(struct call *call, int status, const struct raw_answer *raw)
{
	struct flat_etcd_failure failure = { 0 };
	/* "revision of auth store is old" and "user name is empty" have no code of their own */
	if (raw && (raw->code == GRPC_UNAUTHENTICATED || raw->code == GRPC_INVALID_ARGUMENT) &&
	    call_again(call))
		return;
	if (raw && raw->message) {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s: %s", url_of(call), raw->message);
		explain(call->etcd, call->path, raw->code, &failure);
	} else if (status >= 500) {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s%s: status %d", url_of(call),
			  call->path, status);
		failure.trouble = FLAT_ETCD_UNREACHABLE;
	} else {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s%s: status %d", url_of(call),
			  call->path, status);
		cure(&failure.err, "etcd.endpoints must be members of an etcd of version 3.4 or "
				   "later, with its HTTP gateway on");
		failure.trouble = FLAT_ETCD_FAULT;
	}
	if (failure.trouble == FLAT_ETCD_FAULT || status >= 500)
		rotate(call->etcd, call->endpoint);
	call_fail(call, &failure);
}

static void call_nonsense(struct call *call, struct flat_err *err)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_FAULT, .err = *err };
	flat_wrap(&failure.err, "%s%s", url_of(call), call->path);
	rotate(call->etcd, call->endpoint);
	call_fail(call, &failure);
}

static bool call_data(void *arg, const char *data, size_t len)
{
	struct call *call = arg;
	return text_add(&call->in, data, len);
}

/* What happens below HTTP: name, connection, TLS, time. */
static void call_unreachable(struct call *call, const struct flat_err *err)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_UNREACHABLE, .err = *err };
	char *details = failure.err.details;
	size_t len = strlen(details), room = sizeof failure.err.details - len;
	bool tls = !strncmp(url_of(call), "https", 5);
	if (tls && len) /* what is wrong is said; where it stands is known only here */
		snprintf(details + len, room, " (etcd.caFile, etcd.certFile, etcd.keyFile)");
	else if (tls)
		cure(&failure.err,
		     "is it up? Are etcd.caFile, etcd.certFile and etcd.keyFile right?");
	else
		cure(&failure.err, "is it up, and does it speak without TLS?");
	call_fail(call, &failure);
}

static void call_done(void *arg, int status, const char *body, int retry_after,
		      const struct flat_err *http_err)
{
	struct call *call = arg;
	struct flat_arena arena = { 0 };
	struct flat_etcd_answer answer;
	struct raw_answer raw = { 0 };
	struct flat_err err = { 0 };
	(void)retry_after;
	call->http = NULL;
	if (http_err) {
		call_unreachable(call, http_err);
		return;
	}
	if (status / 100 != 2) {
		int r = body ? read_answer(body, strlen(body), &arena, &raw, NULL, &err) : -1;
		call_refused(call, status, r > 0 ? &raw : NULL);
		flat_arena_free(&arena);
		return;
	}
	int r = read_answer(call->in.data ? call->in.data : "", call->in.len, &arena, &raw, &answer,
			    &err);
	text_free(&call->in);
	if (r < 0) {
		call_nonsense(call, &err);
	} else if (r > 0) {
		call_refused(call, status, &raw);
	} else {
		flat_etcd_done *done = call->done;
		void *user = call->arg;
		call_free(call);
		if (done)
			done(user, &answer, NULL);
	}
	flat_arena_free(&arena);
}

/* ---- the token ---------------------------------------------------------------------------------
 */

static void login_failed(struct flat_etcd *etcd, const struct flat_etcd_failure *failure)
{
	/* Whoever waits now; their callbacks may bring new ones, which try again. */
	struct call *waiting[64];
	size_t count = 0;
	for (struct call *call = etcd->calls; call && count < FLAT_LEN(waiting); call = call->next)
		if (!call->http && call != etcd->login)
			waiting[count++] = call;
	for (size_t i = 0; i < count; i++) {
		bool there = false;
		for (struct call *call = etcd->calls; call; call = call->next)
			there = there || call == waiting[i];
		struct flat_etcd_failure copy = *failure;
		if (there && !waiting[i]->http)
			call_fail(waiting[i], &copy);
	}
}

static void login_done(void *arg, int status, const char *body, int retry_after,
		       const struct flat_err *http_err)
{
	struct call *call = arg;
	struct flat_etcd *etcd = call->etcd;
	struct flat_etcd_failure failure = { 0 };
	struct flat_arena arena = { 0 };
	struct raw_answer raw = { 0 };
	struct flat_err err = { 0 };
	const char *text = status / 100 == 2 ? call->in.data : body;
	size_t len = status / 100 == 2 ? call->in.len : body ? strlen(body) : 0;
	int r = -1;
	(void)retry_after;
	call->http = NULL;
	if (!http_err)
		r = read_answer(text ? text : "", len, &arena, &raw, NULL, &err);
	if (http_err) {
		failure = (struct flat_etcd_failure){ FLAT_ETCD_UNREACHABLE, *http_err };
		rotate(etcd, call->endpoint);
	} else if (r > 0 && raw.code == GRPC_FAILED_PRECONDITION) {
		/* it asks nobody who he is */
		etcd->token[0] = '\0';
		etcd->token_number = ++etcd->tokens;
	} else if (r > 0) {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "log in to %s as '%s': %s", url_of(call),
			  etcd->conf->etcd.user, raw.message ? raw.message : "refused");
		explain(etcd, call->path, raw.code, &failure);
		if (failure.trouble == FLAT_ETCD_UNREACHABLE)
			rotate(etcd, call->endpoint);
	} else if (r < 0 || !raw.token || strlen(raw.token) >= sizeof etcd->token ||
		   strpbrk(raw.token, "\r\n")) {
		failure.trouble = FLAT_ETCD_FAULT;
		flat_fail(&failure.err, FLAT_CODE_IO, 0,
			  "log in to %s: there is no token in its "
			  "answer, of status %d",
			  url_of(call), status);
		rotate(etcd, call->endpoint);
	} else {
		strcpy(etcd->token, raw.token);
		etcd->token_number = ++etcd->tokens;
	}
	call_free(call);
	flat_arena_free(&arena);
	if (!etcd->token_number) {
		login_failed(etcd, &failure);
		return;
	}
	for (struct call *next, *waiting = etcd->calls; waiting; waiting = next) {
		next = waiting->next;
		/* one that cannot be sent fails by its time-out of the source's */
		if (!waiting->http && call_send(waiting, &err) < 0) {
			fail_memory(waiting);
			next = etcd->calls; /* the list may be another one now */
		}
	}
}

static void print_quoted(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if ((unsigned char)*text < ' ')
			fprintf(out, "\\u%04x", (unsigned char)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

/* The text that a memory stream has, or NULL. */
static char *finish(FILE *out, char **text)
{
	bool failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(*text);
		return NULL;
	}
	return *text;
}

static int login_body(const struct flat_etcd *etcd, char **ret_body, struct flat_err *err)
{
	flat_auto_free char *password = NULL;
	char *body = NULL;
	size_t size = 0;
	if (etcd->conf->etcd.password_file) {
		const char *path = etcd->conf->etcd.password_file;
		int r = flat_state_read(AT_FDCWD, path, MAX_PASSWORD, &password, err);
		if (r < 0) {
			if (!err->code)
				flat_fail(err, FLAT_CODE_CONFIG, -r, "read the password in '%s'",
					  path);
			return flat_detail(err, "etcd.passwordFile holds the password of "
						"etcd.user, and nothing else");
		}
		password[strcspn(password, "\r\n")] = '\0';
	}
	FILE *out = open_memstream(&body, &size);
	if (!out)
		return no_memory(err);
	fputs("{\"name\":", out);
	print_quoted(out, etcd->conf->etcd.user);
	fputs(",\"password\":", out);
	print_quoted(out, password ? password : "");
	fputc('}', out);
	*ret_body = finish(out, &body);
	return *ret_body ? 0 : no_memory(err);
}

static struct call *call_new(struct flat_etcd *etcd, const char *path, char *body)
{
	struct call *call = calloc(1, sizeof *call);
	if (!call || !body) {
		free(call);
		free(body);
		return NULL;
	}
	call->etcd = etcd;
	call->path = path;
	call->body = body;
	call->next = etcd->calls;
	etcd->calls = call;
	return call;
}

/* Asks for a token, unless somebody does already. */
static int login(struct flat_etcd *etcd, struct flat_err *err)
{
	char *body = NULL;
	if (etcd->login)
		return 0;
	int r = login_body(etcd, &body, err);
	if (r < 0)
		return r;
	struct call *call = call_new(etcd, "/v3/auth/authenticate", body);
	if (!call)
		return no_memory(err);
	etcd->login = call;
	call->endpoint = etcd->current;
	struct flat_http_request request = {
		.method = "POST",
		.path = call->path,
		.body = call->body,
		.type = "application/json",
		.timeout = CALL_SECONDS,
		.max_body = FLAT_JSON_MAX_SIZE,
		.data = call_data,
		.done = login_done,
		.arg = call,
	};
	call->http = flat_http_start(etcd->https[call->endpoint], &request, err);
	if (!call->http) {
		call_free(call);
		return -ENOMEM;
	}
	return 0;
}

/* ---- watches -----------------------------------------------------------------------------------
 */

static void watch_canceled(struct call *call, const struct raw_answer *raw)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_UNREACHABLE };
	if (raw->compact_revision) {
		failure.trouble = FLAT_ETCD_COMPACTED;
		flat_fail(&failure.err, FLAT_CODE_IO, 0,
			  "%s: what came before revision %lld is forgotten there", url_of(call),
			  (long long)raw->compact_revision);
	} else {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s: the watch was canceled: %s",
			  url_of(call),
			  raw->cancel_reason ? raw->cancel_reason : "no reason given");
		/* The reason is text without a code. It may well be the token: the next call
		 * finds out with another one. */
		if (call->etcd->token_number == call->token)
			call->etcd->token_number = 0;
		if (!call->etcd->conf->etcd.user)
			cure(&failure.err, "if etcd asks for a user, set etcd.user and "
					   "etcd.passwordFile");
	}
	call_fail(call, &failure);
}

/* One message of a watch. False: the call is gone. */
static bool watch_line(struct call *call, const char *line, size_t len)
{
	struct flat_etcd *etcd = call->etcd;
	struct flat_arena arena = { 0 };
	struct flat_etcd_answer answer;
	struct raw_answer raw = { 0 };
	struct flat_err err = { 0 };
	bool alive = true;
	int r = read_answer(line, len, &arena, &raw, &answer, &err);
	if (r < 0) {
		call_nonsense(call, &err);
		alive = false;
	} else if (r > 0) {
		call_refused(call, 200, &raw);
		alive = false;
	} else if (raw.canceled) {
		watch_canceled(call, &raw);
		alive = false;
	} else {
		struct flat_etcd_watcher watcher = call->watcher;
		ev_timer_stop(etcd->loop, &call->first_word);
		if (raw.created)
			watcher.created(watcher.arg, &answer);
		else
			watcher.events(watcher.arg, &answer);
		alive = etcd->watch == call;
	}
	flat_arena_free(&arena);
	return alive;
}

static bool watch_data(void *arg, const char *data, size_t len)
{
	struct call *call = arg;
	while (len) {
		const char *end = memchr(data, '\n', len);
		size_t piece = end ? (size_t)(end - data) + 1 : len;
		if (!text_add(&call->in, data, piece)) {
			struct flat_err err = { 0 };
			flat_fail(&err, FLAT_CODE_IO, EFBIG, "a message of the watch");
			call_nonsense(call, &err);
			return true; /* it is cancelled, and called no more */
		}
		data += piece;
		len -= piece;
		if (!end)
			return true;
		/* The line is the callback's while it may end the call. */
		struct text line = call->in;
		call->in = (struct text){ 0 };
		bool alive = line.len == 1 || watch_line(call, line.data, line.len);
		if (alive && line.size <= 16384) { /* most are short: the memory serves again */
			line.len = 0;
			call->in = line;
		} else {
			text_free(&line);
		}
		if (!alive)
			return true;
	}
	return true;
}

static void watch_done(void *arg, int status, const char *body, int retry_after,
		       const struct flat_err *http_err)
{
	struct call *call = arg;
	struct flat_arena arena = { 0 };
	struct raw_answer raw = { 0 };
	struct flat_err err = { 0 };
	(void)retry_after;
	call->http = NULL;
	if (http_err) {
		call_unreachable(call, http_err);
	} else if (status / 100 != 2) {
		int r = body ? read_answer(body, strlen(body), &arena, &raw, NULL, &err) : -1;
		call_refused(call, status, r > 0 ? &raw : NULL);
	} else {
		flat_fail(&err, FLAT_CODE_IO, 0, "the watch on %s was closed", url_of(call));
		call_unreachable(call, &err);
	}
	flat_arena_free(&arena);
}

static void no_first_word(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct call *call = timer->data;
	struct flat_err err = { 0 };
	(void)loop;
	(void)revents;
	flat_fail(&err, FLAT_CODE_IO, ETIMEDOUT, "start a watch on %s", url_of(call));
	call_unreachable(call, &err);
}

/* ---- what is asked -----------------------------------------------------------------------------
 */

/* Sends the call, or lets it wait for a token. */
static int call_send(struct call *call, struct flat_err *err)
{
	struct flat_etcd *etcd = call->etcd;
	call->http = NULL;
	if (etcd->conf->etcd.user && !etcd->token_number)
		return login(etcd, err);
	call->endpoint = etcd->current;
	call->token = etcd->token_number;
	struct flat_http_request request = {
		.method = "POST",
		.path = call->path,
		.body = call->body,
		.type = "application/json",
		.authorization = call->token && etcd->token[0] ? etcd->token : NULL,
		.timeout = call->watch ? WATCH_SECONDS : CALL_SECONDS,
		.stream = call->watch,
		.max_body = FLAT_JSON_MAX_SIZE,
		.data = call->watch ? watch_data : call_data,
		.done = call->watch ? watch_done : call_done,
		.arg = call,
	};
	call->http = flat_http_start(etcd->https[call->endpoint], &request, err);
	return call->http ? 0 : -ENOMEM;
}

static int call_start(struct flat_etcd *etcd, const char *path, char *body, flat_etcd_done *done,
		      void *arg, struct flat_err *err)
{
	struct call *call = call_new(etcd, path, body);
	if (!call)
		return no_memory(err);
	call->done = done;
	call->arg = arg;
	int r = call_send(call, err);
	if (r < 0)
		call_free(call);
	return r;
}

/* Bytes as a JSON string. */
static void print_bytes(FILE *out, const char *bytes, size_t len)
{
	char piece[FLAT_BASE64_SIZE(768)];
	fputc('"', out);
	for (size_t n; len; bytes += n, len -= n) {
		n = len < 768 ? len : 768; /* a multiple of three: pieces can be joined */
		flat_base64_encode(bytes, n, piece);
		fputs(piece, out);
	}
	fputc('"', out);
}

static void print_key(FILE *out, const char *name, const char *key)
{
	fprintf(out, "\"%s\":", name);
	print_bytes(out, key, strlen(key));
}

/* The key behind all that begin with prefix. */
static void print_prefix_end(FILE *out, const char *prefix)
{
	size_t len = strlen(prefix);
	char end[512];
	while (len && (unsigned char)prefix[len - 1] == 0xff)
		len--;
	fputs(",\"range_end\":", out);
	if (!len || len > sizeof end) {
		print_bytes(out, "", 1); /* all keys from prefix on */
		return;
	}
	memcpy(end, prefix, len);
	end[len - 1]++;
	print_bytes(out, end, len);
}

static void print_number(FILE *out, const char *name, int64_t number)
{
	if (number)
		fprintf(out, ",\"%s\":\"%lld\"", name, (long long)number);
}

int flat_etcd_range(struct flat_etcd *etcd, const struct flat_etcd_range *range,
		    flat_etcd_done *done, void *arg, struct flat_err *err)
{
	char *body = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&body, &size);
	if (!out)
		return no_memory(err);
	if (range->after) {
		flat_auto_free char *from = calloc(1, range->after_len + 1);
		if (!from) {
			fclose(out);
			free(body);
			return no_memory(err);
		}
		memcpy(from, range->after, range->after_len);
		fputs("{\"key\":", out);
		print_bytes(out, from, range->after_len + 1); /* the next one: a NUL more */
	} else {
		fputc('{', out);
		print_key(out, "key", range->key);
	}
	if (range->prefix)
		print_prefix_end(out, range->key);
	print_number(out, "limit", range->limit);
	print_number(out, "revision", range->revision);
	fputc('}', out);
	return call_start(etcd, "/v3/kv/range", finish(out, &body), done, arg, err);
}

int flat_etcd_put(struct flat_etcd *etcd, const struct flat_etcd_put *put, flat_etcd_done *done,
		  void *arg, struct flat_err *err)
{
	char *body = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&body, &size);
	if (!out)
		return no_memory(err);
	fputs("{\"compare\":[", out);
	if (put->unused) {
		fputc('{', out);
		print_key(out, "key", put->unused);
		print_prefix_end(out, put->unused);
		fputs(",\"target\":\"CREATE\",\"create_revision\":\"0\"}", out);
	}
	if (put->replaces) {
		fputs(put->unused ? ",{" : "{", out);
		print_key(out, "key", put->replaces);
		fprintf(out, ",\"target\":\"MOD\",\"mod_revision\":\"%lld\"}",
			(long long)put->replaces_revision);
	}
	fputs("],\"success\":[", out);
	if (put->replaces && strcmp(put->replaces, put->key) != 0) {
		fputs("{\"request_delete_range\":{", out);
		print_key(out, "key", put->replaces);
		fputs("}},", out);
	}
	fputs("{\"request_put\":{", out);
	print_key(out, "key", put->key);
	fputc(',', out);
	print_key(out, "value", put->value);
	print_number(out, "lease", put->lease);
	fputs("}}],\"failure\":[", out);
	if (put->unused) {
		fputs("{\"request_range\":{", out);
		print_key(out, "key", put->unused);
		print_prefix_end(out, put->unused);
		print_number(out, "limit", 16);
		fputs("}}", out);
	}
	if (put->replaces) {
		fputs(put->unused ? ",{\"request_range\":{" : "{\"request_range\":{", out);
		print_key(out, "key", put->replaces);
		fputs("}}", out);
	}
	fputs("]}", out);
	return call_start(etcd, "/v3/kv/txn", finish(out, &body), done, arg, err);
}

/* {"NAME":"NUMBER"} */
static char *number_body(const char *name, int64_t number)
{
	char *body = NULL;
	return asprintf(&body, "{\"%s\":\"%lld\"}", name, (long long)number) < 0 ? NULL : body;
}

int flat_etcd_grant(struct flat_etcd *etcd, uint32_t ttl, flat_etcd_done *done, void *arg,
		    struct flat_err *err)
{
	return call_start(etcd, "/v3/lease/grant", number_body("TTL", ttl), done, arg, err);
}

int flat_etcd_keepalive(struct flat_etcd *etcd, int64_t lease, flat_etcd_done *done, void *arg,
			struct flat_err *err)
{
	return call_start(etcd, "/v3/lease/keepalive", number_body("ID", lease), done, arg, err);
}

int flat_etcd_watch(struct flat_etcd *etcd, const char *prefix, int64_t revision,
		    const struct flat_etcd_watcher *watcher, struct flat_err *err)
{
	char *body = NULL;
	size_t size = 0;
	flat_etcd_unwatch(etcd);
	FILE *out = open_memstream(&body, &size);
	if (!out)
		return no_memory(err);
	fputs("{\"create_request\":{", out);
	print_key(out, "key", prefix);
	print_prefix_end(out, prefix);
	print_number(out, "start_revision", revision);
	fputs(",\"progress_notify\":true}}", out);
	struct call *call = call_new(etcd, "/v3/watch", finish(out, &body));
	if (!call)
		return no_memory(err);
	call->watch = true;
	call->watcher = *watcher;
	ev_timer_init(&call->first_word, no_first_word, CREATE_SECONDS, 0.);
	call->first_word.data = call;
	ev_timer_start(etcd->loop, &call->first_word);
	etcd->watch = call;
	int r = call_send(call, err);
	if (r < 0)
		call_free(call);
	return r;
}

void flat_etcd_unwatch(struct flat_etcd *etcd)
{
	if (etcd->watch)
		call_free(etcd->watch);
}

/* ---- open and close ----------------------------------------------------------------------------
 */

int flat_etcd_open(struct ev_loop *loop, const struct flat_agent_conf *conf,
		   struct flat_etcd **ret_etcd, struct flat_err *err)
{
	const char *const *urls = conf->etcd.endpoints.items;
	size_t count = conf->etcd.endpoints.count;
	if (!count || count > MAX_ENDPOINTS)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "etcd.endpoints: there are %zu, 1 to %d are possible", count,
				 MAX_ENDPOINTS);
	struct flat_etcd *etcd = calloc(1, sizeof *etcd);
	if (!etcd)
		return no_memory(err);
	etcd->loop = loop;
	etcd->conf = conf;
	etcd->endpoint_count = count;
	/* Nodes do not all begin with the same member. */
	etcd->current = flat_hash(0, conf->node_name, strlen(conf->node_name)) % count;
	for (size_t i = 0; i < count; i++) {
		const struct flat_http_target target = {
			.urls = &urls[i],
			.url_count = 1,
			.ca_file = conf->etcd.ca_file,
			.cert_file = conf->etcd.cert_file,
			.key_file = conf->etcd.key_file,
		};
		int r = flat_http_open(loop, &target, &etcd->https[i], err);
		if (r < 0) {
			flat_etcd_close(etcd);
			return r;
		}
	}
	*ret_etcd = etcd;
	return 0;
}

void flat_etcd_close(struct flat_etcd *etcd)
{
	if (!etcd)
		return;
	while (etcd->calls)
		call_free(etcd->calls);
	for (size_t i = 0; i < etcd->endpoint_count; i++)
		flat_http_close(etcd->https[i]);
	free(etcd);
}
