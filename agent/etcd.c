// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation
 *
 * Each endpoint has an HTTP client of its own, and one is in use: so it is known which member said
 * what, and a member that accepts connections but has lost its leader is left as well as one that
 * is down. A call is one POST.
 *
 * With a user, calls wait until there is a token. A token that is refused is dropped, another one
 * is asked for, and the call is made once more: tokens run out, and die with the member that gave
 * them.
 */
#include "etcd.h"

#include "etcd-ask.h"
#include "etcd-call.h"

#include <flatnet/cni.h>
#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_PASSWORD = 4096,
	CALL_SECONDS = 10,
	/* A watch without events is told so every ten minutes, give or take one. */
	WATCH_SECONDS = 1500,
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
	case FLAT_GRPC_UNAVAILABLE:
	case FLAT_GRPC_DEADLINE_EXCEEDED:
		failure->trouble = FLAT_ETCD_UNREACHABLE;
		break;
	case FLAT_GRPC_OUT_OF_RANGE:
		failure->trouble = FLAT_ETCD_COMPACTED;
		break;
	case FLAT_GRPC_NOT_FOUND:
		failure->trouble = FLAT_ETCD_NO_LEASE;
		break;
	case FLAT_GRPC_UNAUTHENTICATED:
		failure->trouble = FLAT_ETCD_REFUSED;
		break;
	case FLAT_GRPC_PERMISSION_DENIED:
		failure->trouble = FLAT_ETCD_REFUSED;
		if (!failure->err.details[0])
			flat_detail(&failure->err,
				    "give the role of etcd's user the right to read and write what "
				    "begins with %s/: etcdctl role grant-permission ROLE "
				    "readwrite %s/ --prefix",
				    etcd->conf->etcd.prefix, etcd->conf->etcd.prefix);
		break;
	case FLAT_GRPC_INVALID_ARGUMENT:
		failure->trouble = FLAT_ETCD_REFUSED;
		cure(&failure->err, !user ? "if etcd asks for a user, set etcd.user and "
					    "etcd.passwordFile"
				    : !strcmp(path, "/v3/auth/authenticate")
					    ? "correct etcd.user and the content of "
					      "etcd.passwordFile"
					    : "");
		break;
	case FLAT_GRPC_RESOURCE_EXHAUSTED:
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

const char *flat_etcd_call_url(const struct flat_etcd_call *call)
{
	const char *const *urls = call->etcd->conf->etcd.endpoints.items;
	return urls[call->endpoint];
}

/* ---- calls -------------------------------------------------------------------------------------
 */

void flat_etcd_text_free(struct flat_etcd_text *text)
{
	free(text->data);
	*text = (struct flat_etcd_text){ 0 };
}

bool flat_etcd_text_add(struct flat_etcd_text *text, const char *data, size_t len)
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

void flat_etcd_call_free(struct flat_etcd_call *call)
{
	struct flat_etcd *etcd = call->etcd;
	for (struct flat_etcd_call **at = &etcd->calls; *at; at = &(*at)->next)
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
	flat_etcd_text_free(&call->in);
	free(call->body);
	free(call);
}

void flat_etcd_call_fail(struct flat_etcd_call *call, struct flat_etcd_failure *failure)
{
	flat_etcd_done *done = call->done;
	struct flat_etcd_watcher watcher = call->watcher;
	void *arg = call->arg;
	bool watch = call->watch;
	if (failure->trouble == FLAT_ETCD_UNREACHABLE)
		rotate(call->etcd, call->endpoint);
	flat_etcd_call_free(call);
	if (watch)
		watcher.ended(watcher.arg, failure);
	else if (done)
		done(arg, NULL, failure);
}

static void fail_memory(struct flat_etcd_call *call)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_FAULT };
	no_memory(&failure.err);
	flat_etcd_call_fail(call, &failure);
}

/* The server did not take the token. True: the call will be made again with another one. */
static bool call_again(struct flat_etcd_call *call)
{
	struct flat_etcd *etcd = call->etcd;
	struct flat_err err = { 0 };
	if (!call->token || call->retried || call->watch)
		return false;
	call->retried = true;
	if (etcd->token_number == call->token)
		etcd->token_number = 0;
	flat_etcd_text_free(&call->in);
	return flat_etcd_call_send(call, &err) >= 0;
}

void flat_etcd_call_refused(struct flat_etcd_call *call, int status,
			    const struct flat_etcd_reply *reply)
{
	struct flat_etcd_failure failure = { 0 };
	/* "revision of auth store is old" and "user name is empty" have no code of their own */
	if (reply &&
	    (reply->code == FLAT_GRPC_UNAUTHENTICATED ||
	     reply->code == FLAT_GRPC_INVALID_ARGUMENT) &&
	    call_again(call))
		return;
	if (reply && reply->message) {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s: %s", flat_etcd_call_url(call),
			  reply->message);
		explain(call->etcd, call->path, reply->code, &failure);
	} else if (status >= 500) {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s%s: status %d",
			  flat_etcd_call_url(call), call->path, status);
		failure.trouble = FLAT_ETCD_UNREACHABLE;
	} else {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s%s: status %d",
			  flat_etcd_call_url(call), call->path, status);
		cure(&failure.err, "etcd.endpoints must be members of an etcd of version 3.4 or "
				   "later, with its HTTP gateway on");
		failure.trouble = FLAT_ETCD_FAULT;
	}
	if (failure.trouble == FLAT_ETCD_FAULT || status >= 500)
		rotate(call->etcd, call->endpoint);
	flat_etcd_call_fail(call, &failure);
}

void flat_etcd_call_nonsense(struct flat_etcd_call *call, const struct flat_err *err)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_FAULT, .err = *err };
	flat_wrap(&failure.err, "%s%s", flat_etcd_call_url(call), call->path);
	rotate(call->etcd, call->endpoint);
	flat_etcd_call_fail(call, &failure);
}

static bool call_data(void *arg, const char *data, size_t len)
{
	struct flat_etcd_call *call = arg;
	return flat_etcd_text_add(&call->in, data, len);
}

void flat_etcd_call_unreachable(struct flat_etcd_call *call, const struct flat_err *err)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_UNREACHABLE, .err = *err };
	char *details = failure.err.details;
	size_t len = strlen(details), room = sizeof failure.err.details - len;
	bool tls = !strncmp(flat_etcd_call_url(call), "https", 5);
	if (tls && len) /* what is wrong is said; where it stands is known only here */
		snprintf(details + len, room, " (etcd.caFile, etcd.certFile, etcd.keyFile)");
	else if (tls)
		cure(&failure.err,
		     "is it up? Are etcd.caFile, etcd.certFile and etcd.keyFile right?");
	else
		cure(&failure.err, "is it up, and does it speak without TLS?");
	flat_etcd_call_fail(call, &failure);
}

static void call_done(void *arg, int status, const char *body, int retry_after,
		      const struct flat_err *http_err)
{
	struct flat_etcd_call *call = arg;
	struct flat_arena arena = { 0 };
	struct flat_etcd_reply reply = { 0 };
	struct flat_err err = { 0 };
	(void)retry_after;
	call->http = NULL;
	if (http_err) {
		flat_etcd_call_unreachable(call, http_err);
		return;
	}
	if (status / 100 != 2) {
		int r = body ? flat_etcd_reply_read(body, strlen(body), &arena, &reply, &err) : -1;
		flat_etcd_call_refused(call, status, r > 0 ? &reply : NULL);
		flat_arena_free(&arena);
		return;
	}
	int r = flat_etcd_reply_read(call->in.data ? call->in.data : "", call->in.len, &arena,
				     &reply, &err);
	flat_etcd_text_free(&call->in);
	if (r < 0) {
		flat_etcd_call_nonsense(call, &err);
	} else if (r > 0) {
		flat_etcd_call_refused(call, status, &reply);
	} else {
		flat_etcd_done *done = call->done;
		void *user = call->arg;
		flat_etcd_call_free(call);
		if (done)
			done(user, &reply.answer, NULL);
	}
	flat_arena_free(&arena);
}

/* To the endpoint in use. */
static int post(struct flat_etcd_call *call, double timeout,
		bool (*data)(void *arg, const char *data, size_t len),
		void (*done)(void *arg, int status, const char *body, int retry_after,
			     const struct flat_err *err),
		struct flat_err *err)
{
	struct flat_etcd *etcd = call->etcd;
	const struct flat_http_request request = {
		.method = "POST",
		.path = call->path,
		.body = call->body,
		.type = "application/json",
		.authorization = call->token && etcd->token[0] ? etcd->token : NULL,
		.timeout = timeout,
		.stream = call->watch,
		.max_body = FLAT_JSON_MAX_SIZE,
		.data = data,
		.done = done,
		.arg = call,
	};
	call->endpoint = etcd->current;
	call->http = flat_http_start(etcd->https[call->endpoint], &request, err);
	return call->http ? 0 : -ENOMEM;
}

/* ---- the token ---------------------------------------------------------------------------------
 */

static void login_failed(struct flat_etcd *etcd, const struct flat_etcd_failure *failure)
{
	/* Whoever waits now; their callbacks may bring new ones, which try again. */
	struct flat_etcd_call *waiting[64];
	size_t count = 0;
	for (struct flat_etcd_call *call = etcd->calls; call && count < FLAT_LEN(waiting);
	     call = call->next)
		if (!call->http && call != etcd->login)
			waiting[count++] = call;
	for (size_t i = 0; i < count; i++) {
		bool there = false;
		for (struct flat_etcd_call *call = etcd->calls; call; call = call->next)
			there = there || call == waiting[i];
		struct flat_etcd_failure copy = *failure;
		if (there && !waiting[i]->http)
			flat_etcd_call_fail(waiting[i], &copy);
	}
}

static void login_done(void *arg, int status, const char *body, int retry_after,
		       const struct flat_err *http_err)
{
	struct flat_etcd_call *call = arg;
	struct flat_etcd *etcd = call->etcd;
	struct flat_etcd_failure failure = { 0 };
	struct flat_arena arena = { 0 };
	struct flat_etcd_reply reply = { 0 };
	struct flat_err err = { 0 };
	const char *text = status / 100 == 2 ? call->in.data : body;
	size_t len = status / 100 == 2 ? call->in.len : body ? strlen(body) : 0;
	int r = -1;
	(void)retry_after;
	call->http = NULL;
	if (!http_err)
		r = flat_etcd_reply_read(text ? text : "", len, &arena, &reply, &err);
	if (http_err) {
		failure = (struct flat_etcd_failure){ FLAT_ETCD_UNREACHABLE, *http_err };
		rotate(etcd, call->endpoint);
	} else if (r > 0 && reply.code == FLAT_GRPC_FAILED_PRECONDITION) {
		/* it asks nobody who he is */
		etcd->token[0] = '\0';
		etcd->token_number = ++etcd->tokens;
	} else if (r > 0) {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "log in to %s as '%s': %s",
			  flat_etcd_call_url(call), etcd->conf->etcd.user,
			  reply.message ? reply.message : "refused");
		explain(etcd, call->path, reply.code, &failure);
		if (failure.trouble == FLAT_ETCD_UNREACHABLE)
			rotate(etcd, call->endpoint);
	} else if (r < 0 || !reply.token || strlen(reply.token) >= sizeof etcd->token ||
		   strpbrk(reply.token, "\r\n")) {
		failure.trouble = FLAT_ETCD_FAULT;
		flat_fail(&failure.err, FLAT_CODE_IO, 0,
			  "log in to %s: there is no token in its "
			  "answer, of status %d",
			  flat_etcd_call_url(call), status);
		rotate(etcd, call->endpoint);
	} else {
		strcpy(etcd->token, reply.token);
		etcd->token_number = ++etcd->tokens;
	}
	flat_etcd_call_free(call);
	flat_arena_free(&arena);
	if (!etcd->token_number) {
		login_failed(etcd, &failure);
		return;
	}
	for (struct flat_etcd_call *next, *waiting = etcd->calls; waiting; waiting = next) {
		next = waiting->next;
		/* one that cannot be sent fails by its time-out of the source's */
		if (!waiting->http && flat_etcd_call_send(waiting, &err) < 0) {
			fail_memory(waiting);
			next = etcd->calls; /* the list may be another one now */
		}
	}
}

static int login_body(const struct flat_etcd *etcd, char **ret_body, struct flat_err *err)
{
	flat_auto_free char *password = NULL;
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
	*ret_body = flat_etcd_ask_token(etcd->conf->etcd.user, password ? password : "");
	return *ret_body ? 0 : no_memory(err);
}

struct flat_etcd_call *flat_etcd_call_new(struct flat_etcd *etcd, const char *path, char *body)
{
	struct flat_etcd_call *call = calloc(1, sizeof *call);
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
	struct flat_etcd_call *call = flat_etcd_call_new(etcd, "/v3/auth/authenticate", body);
	if (!call)
		return no_memory(err);
	etcd->login = call;
	r = post(call, CALL_SECONDS, call_data, login_done, err);
	if (r < 0)
		flat_etcd_call_free(call);
	return r;
}

/* ---- what is asked -----------------------------------------------------------------------------
 */

int flat_etcd_call_send(struct flat_etcd_call *call, struct flat_err *err)
{
	struct flat_etcd *etcd = call->etcd;
	call->http = NULL;
	if (etcd->conf->etcd.user && !etcd->token_number)
		return login(etcd, err);
	call->token = etcd->token_number;
	return call->watch
		       ? post(call, WATCH_SECONDS, flat_etcd_watch_data, flat_etcd_watch_done, err)
		       : post(call, CALL_SECONDS, call_data, call_done, err);
}

static int call_start(struct flat_etcd *etcd, const char *path, char *body, flat_etcd_done *done,
		      void *arg, struct flat_err *err)
{
	struct flat_etcd_call *call = flat_etcd_call_new(etcd, path, body);
	if (!call)
		return no_memory(err);
	call->done = done;
	call->arg = arg;
	int r = flat_etcd_call_send(call, err);
	if (r < 0)
		flat_etcd_call_free(call);
	return r;
}

int flat_etcd_range(struct flat_etcd *etcd, const struct flat_etcd_range *range,
		    flat_etcd_done *done, void *arg, struct flat_err *err)
{
	return call_start(etcd, "/v3/kv/range", flat_etcd_ask_range(range), done, arg, err);
}

int flat_etcd_put(struct flat_etcd *etcd, const struct flat_etcd_put *put, flat_etcd_done *done,
		  void *arg, struct flat_err *err)
{
	return call_start(etcd, "/v3/kv/txn", flat_etcd_ask_put(put), done, arg, err);
}

int flat_etcd_grant(struct flat_etcd *etcd, uint32_t ttl, flat_etcd_done *done, void *arg,
		    struct flat_err *err)
{
	return call_start(etcd, "/v3/lease/grant", flat_etcd_ask_number("TTL", ttl), done, arg,
			  err);
}

int flat_etcd_keepalive(struct flat_etcd *etcd, int64_t lease, flat_etcd_done *done, void *arg,
			struct flat_err *err)
{
	return call_start(etcd, "/v3/lease/keepalive", flat_etcd_ask_number("ID", lease), done, arg,
			  err);
}

/* ---- open and close ----------------------------------------------------------------------------
 */

int flat_etcd_open(struct ev_loop *loop, const struct flat_agent_conf *conf,
		   struct flat_etcd **ret_etcd, struct flat_err *err)
{
	const char *const *urls = conf->etcd.endpoints.items;
	size_t count = conf->etcd.endpoints.count;
	if (!count || count > FLAT_ETCD_MAX_ENDPOINTS)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "etcd.endpoints: there are %zu, 1 to %d are possible", count,
				 FLAT_ETCD_MAX_ENDPOINTS);
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
		flat_etcd_call_free(etcd->calls);
	for (size_t i = 0; i < etcd->endpoint_count; i++)
		flat_http_close(etcd->https[i]);
	free(etcd);
}
