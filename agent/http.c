// SPDX-License-Identifier: Apache-2.0
/*
 * A call is a request that wants its answer; a connection (struct conn) is what carries it. A call
 * takes an idle connection to the endpoint in use, or makes one: resolve, connect, TLS handshake,
 * write, read. What fails before the request went out is tried at each address, then at each
 * endpoint, once; later failures are the caller's, who alone knows whether the request may be
 * repeated. An endpoint that failed goes to the end of the queue.
 *
 * Callbacks may cancel calls, start others, and close all: a connection that is being read from
 * when it goes is only marked (doomed), and freed by its reader.
 */
#include "http-private.h"

#include "file.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_ENDPOINTS = 16,
	DEFAULT_MAX_BODY = 4 * 1024 * 1024,
};

static int copy_target(struct flat_http *http, const struct flat_http_target *target,
		       struct flat_err *err)
{
	http->target = *target;
	const char **texts[] = {
		&http->target.ca_file,	   &http->target.ca_data,    &http->target.cert_file,
		&http->target.cert_data,   &http->target.key_file,   &http->target.key_data,
		&http->target.server_name, &http->target.token_file, &http->target.token,
		&http->target.basic,
	};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		if (*texts[i] && !(*texts[i] = flat_arena_strdup(&http->arena, *texts[i])))
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "prepare HTTP");
	}
	const struct flat_http_target *t = &http->target;
	if (!t->url_count || t->url_count > MAX_ENDPOINTS)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "there must be 1 to %d URLs",
				 MAX_ENDPOINTS);
	if ((t->cert_file || t->cert_data) && !t->key_file && !t->key_data)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "the client certificate has no key");
	if ((t->key_file || t->key_data) && !t->cert_file && !t->cert_data)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "the client key has no certificate");
	http->endpoints = flat_arena_alloc(&http->arena, t->url_count * sizeof *http->endpoints);
	if (!http->endpoints)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "prepare HTTP");
	for (size_t i = 0; i < t->url_count; i++) {
		int r = flat_http_parse_url(&http->arena, t->urls[i], &http->endpoints[i], err);
		if (r < 0)
			return r;
	}
	http->target.urls = NULL; /* the caller's */
	return 0;
}

int flat_http_open(struct ev_loop *loop, const struct flat_http_target *target,
		   struct flat_http **ret_http, struct flat_err *err)
{
	struct flat_http *http = calloc(1, sizeof *http);
	if (!http)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "prepare HTTP");
	http->loop = loop;
	int r = copy_target(http, target, err);
	if (r < 0) {
		flat_http_close(http);
		return r;
	}
	*ret_http = http;
	return 0;
}

/* ---- what is sent ---- */

/* As asprintf(3), which leaves its result undefined when it fails. */
FLAT_PRINTF(3, 4)
static int print(char **ret_text, struct flat_err *err, const char *fmt, ...)
{
	va_list ap;
	char *text;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print request");
	*ret_text = text;
	return 0;
}

static int print_authorization(const struct flat_http_target *target, const char *own,
			       char **ret_text, struct flat_err *err)
{
	flat_auto_free char *file = NULL;
	const char *token = target->token;
	if (own)
		return print(ret_text, err, "Authorization: %s\r\n", own);
	if (target->token_file) {
		int r = flat_file_read(target->token_file, "token file", &file, err);
		if (r < 0)
			return r;
		size_t len = strlen(file);
		while (len && strchr(" \t\r\n", file[len - 1]))
			file[--len] = '\0';
		token = file + strspn(file, " \t\r\n");
		if (!*token)
			return flat_fail(err, FLAT_CODE_IO, 0, "token file '%s' is empty",
					 target->token_file);
	}
	if (token) {
		for (const char *c = token; *c; c++) {
			if (*c <= ' ' || *c >= 0x7f)
				return flat_fail(err, FLAT_CODE_IO, 0,
						 "token%s%s has characters that no token has",
						 file ? " file " : "",
						 file ? target->token_file : "");
		}
		return print(ret_text, err, "Authorization: Bearer %s\r\n", token);
	}
	if (target->basic) {
		gnutls_datum_t plain = { .data = (unsigned char *)target->basic,
					 .size = (unsigned)strlen(target->basic) },
			       coded;
		if (gnutls_base64_encode2(&plain, &coded) < 0)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print request");
		int r = print(ret_text, err, "Authorization: Basic %.*s\r\n", (int)coded.size,
			      (const char *)coded.data);
		gnutls_free(coded.data);
		return r;
	}
	*ret_text = NULL;
	return 0;
}

int flat_http_print(const struct flat_http_call *call, const struct endpoint *endpoint,
		    char **ret_text, struct flat_err *err)
{
	const struct flat_http_request *request = &call->request;
	flat_auto_free char *authorization = NULL;
	int r = print_authorization(&call->http->target, request->authorization, &authorization,
				    err);
	if (r < 0)
		return r;
	bool has_body = request->body || strcmp(request->method, "GET") != 0;
	char length[48] = "";
	if (has_body)
		snprintf(length, sizeof length, "Content-Length: %zu\r\n",
			 request->body ? strlen(request->body) : 0);
	return print(ret_text, err,
		     "%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: flatnetd/" FLAT_VERSION "\r\n"
		     "Accept: %s\r\n%s%s%s%s%s\r\n%s",
		     request->method, endpoint->base, request->path, endpoint->authority,
		     request->accept ? request->accept : "application/json",
		     authorization ? authorization : "", request->type ? "Content-Type: " : "",
		     request->type ? request->type : "", request->type ? "\r\n" : "", length,
		     request->body ? request->body : "");
}

/* ---- calls ---- */

void flat_http_finish(struct flat_http_call *call, struct flat_err *err)
{
	struct flat_http *http = call->http;
	ev_timer_stop(http->loop, &call->begin);
	ev_timer_stop(http->loop, &call->timer);
	for (struct flat_http_call **at = &http->calls; *at; at = &(*at)->next) {
		if (*at == call) {
			*at = call->next;
			break;
		}
	}
	if (err) {
		const struct endpoint *endpoint = call->endpoint;
		flat_wrap(err, "%s %s%.*s", call->request.method,
			  endpoint ? endpoint->url : http->endpoints[http->current].url,
			  (int)strcspn(call->request.path, "?"), call->request.path);
	}
	if (call->conn)
		flat_http_disconnect(call->conn);
	flat_auto_free char *body = call->body;
	int status = call->status, retry_after = call->retry_after;
	struct flat_http_request request = call->request;
	struct flat_arena arena = call->arena;
	free(call);
	request.done(request.arg, err ? 0 : status, body ? body : "", retry_after, err);
	flat_arena_free(&arena);
}

static void on_call_begin(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	flat_http_connect(timer->data);
}

static void on_call_timeout(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)events;
	ev_timer_stop(loop, timer);
	struct flat_http_call *call = timer->data;
	struct flat_err err = { 0 };
	if (call->conn) {
		call->endpoint = call->conn->endpoint;
		flat_http_rotate(call->http, call->endpoint);
	}
	flat_fail(&err, FLAT_CODE_IO, ETIMEDOUT,
		  call->request.stream ? "nothing heard for %g s" : "no whole answer within %g s",
		  call->request.timeout);
	flat_http_finish(call, &err);
}

struct flat_http_call *flat_http_start(struct flat_http *http,
				       const struct flat_http_request *request,
				       struct flat_err *err)
{
	struct flat_http_call *call = calloc(1, sizeof *call);
	if (!call) {
		flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "start request");
		return NULL;
	}
	call->http = http;
	call->request = *request;
	const char **texts[] = { &call->request.method, &call->request.path,
				 &call->request.body,	&call->request.type,
				 &call->request.accept, &call->request.authorization };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		if (*texts[i] && !(*texts[i] = flat_arena_strdup(&call->arena, *texts[i]))) {
			flat_arena_free(&call->arena);
			free(call);
			flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "start request");
			return NULL;
		}
	}
	if (!call->request.max_body)
		call->request.max_body = DEFAULT_MAX_BODY;
	call->next = http->calls;
	http->calls = call;
	ev_now_update(http->loop); /* a start after long work must not count it in */
	ev_timer_init(&call->begin, on_call_begin, 0., 0.);
	ev_init(&call->timer, on_call_timeout);
	call->timer.repeat = call->request.timeout;
	call->begin.data = call->timer.data = call;
	ev_timer_start(http->loop, &call->begin);
	ev_timer_again(http->loop, &call->timer);
	return call;
}

void flat_http_cancel(struct flat_http_call *call)
{
	if (!call)
		return;
	struct flat_http *http = call->http;
	flat_http_disconnect(call->conn);
	ev_timer_stop(http->loop, &call->begin);
	ev_timer_stop(http->loop, &call->timer);
	for (struct flat_http_call **at = &http->calls; *at; at = &(*at)->next) {
		if (*at == call) {
			*at = call->next;
			break;
		}
	}
	flat_arena_free(&call->arena);
	free(call->body);
	free(call);
}

void flat_http_close(struct flat_http *http)
{
	if (!http)
		return;
	while (http->calls)
		flat_http_cancel(http->calls);
	while (http->conns)
		flat_http_disconnect(http->conns);
	flat_arena_free(&http->arena);
	free(http);
}
