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
#include "http.h"

#include "file.h"
#include "resolve.h"
#include "tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	MAX_ENDPOINTS = 16,
	MAX_IDLE = 2,
	MAX_ERROR_BODY = 16 * 1024,
	DEFAULT_MAX_BODY = 4 * 1024 * 1024,
	READ_SIZE = 16 * 1024, /* a TLS record */
	READS_AT_ONCE = 16,    /* then others have their turn */
	RESOLVE_SECONDS = 10,
	DEAD_PEER_MS = 30000, /* unacknowledged data, or no answer to keepalive */
};
/* One address: TCP and TLS. A server that is up answers in milliseconds; a dead one must not keep
 * us from the next. */
#define CONNECT_SECONDS 5.
#define IDLE_SECONDS	30.

struct endpoint {
	const char *url;  /* as given: for messages */
	const char *host; /* without brackets */
	const char *base; /* path in front of all; "" mostly */
	const char *authority;
	struct flat_ip ip; /* family 0: a name */
	uint16_t port;
	bool tls;
};

struct conn;
struct flat_http {
	struct ev_loop *loop;
	struct flat_arena arena;
	struct flat_http_target target;
	struct endpoint *endpoints;
	size_t current; /* the endpoint in use */
	struct conn *conns;
	struct flat_http_call *calls;
};

enum stage { STAGE_RESOLVE, STAGE_CONNECT, STAGE_HANDSHAKE, STAGE_WRITE, STAGE_READ, STAGE_IDLE };

struct conn {
	struct flat_http *http;
	struct conn *next;
	const struct endpoint *endpoint;
	struct flat_http_call *call; /* NULL: idle, or its call is gone */
	enum stage stage;
	struct flat_resolve *resolve;
	struct flat_ip ips[FLAT_RESOLVE_MAX];
	size_t ip_count, ip_index;
	int fd;
	struct flat_tls *tls;
	ev_io io;
	ev_timer timer; /* connecting; idle */
	char *out;
	size_t out_len, out_done;
	http_parser parser;
	char header[16]; /* name of the header that is read, lower case; what is longer is cut */
	size_t header_len;
	char value[16];
	size_t value_len;
	bool in_value, answered, complete;
	bool reused; /* has carried a request before this one */
	bool executing, doomed;
};

struct flat_http_call {
	struct flat_http *http;
	struct flat_http_call *next;
	struct flat_http_request request; /* texts are in `arena` */
	struct flat_arena arena;
	struct conn *conn;
	ev_timer begin, timer;
	size_t tried; /* endpoints that could not be reached */
	bool repeated;
	const struct endpoint *endpoint; /* the last one, for messages */
	int status, retry_after;
	size_t body_len;
	char *body; /* of a status that is not 2xx */
};

static void call_begin(struct flat_http_call *call);
static void conn_step(struct conn *conn, int events);

/* ---- endpoints ---- */

static int fail_url(const char *url, const char *why, struct flat_err *err)
{
	flat_fail(err, FLAT_CODE_CONFIG, 0, "URL '%.200s': %s", url, why);
	return flat_detail(err,
			   "write it like https://192.0.2.1:6443 or http://[2001:db8::1]:2379");
}

static bool is_host_name(const char *text)
{
	size_t len = strlen(text);
	return len && len <= 253 && text[0] != '-' && text[0] != '.' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") ==
		       len;
}

static int parse_endpoint(struct flat_arena *arena, const char *url, struct endpoint *ret_endpoint,
			  struct flat_err *err)
{
	struct endpoint endpoint = { .url = flat_arena_strdup(arena, url) };
	const char *rest = url;
	if (!strncmp(url, "https://", 8)) {
		endpoint.tls = true;
		rest += 8;
	} else if (!strncmp(url, "http://", 7)) {
		rest += 7;
	} else {
		return fail_url(url, "it begins neither with https:// nor with http://", err);
	}
	for (const char *c = rest; *c; c++) {
		if (*c <= ' ' || *c >= 0x7f || strchr("?#@\\\"<>", *c))
			return fail_url(url, "only a host, a port and a path can be in it", err);
	}
	size_t len = strcspn(rest, "/");
	const char *path = rest + len;
	size_t path_len = strlen(path);
	while (path_len && path[path_len - 1] == '/')
		path_len--;
	char *text = flat_arena_alloc(arena, len + 1),
	     *base = flat_arena_alloc(arena, path_len + 1);
	if (!endpoint.url || !text || !base)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read URL");
	memcpy(base, path, path_len);
	endpoint.base = base;
	memcpy(text, rest, len);
	endpoint.authority = flat_arena_strdup(arena, text);
	if (!endpoint.authority)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read URL");
	char *port = NULL;
	if (text[0] == '[') {
		char *end = strchr(text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return fail_url(url, "the address in brackets has no end", err);
		port = end[1] ? end + 2 : NULL;
		*end = '\0';
		endpoint.host = text + 1;
		if (!flat_ip_parse(endpoint.host, &endpoint.ip) || !strchr(endpoint.host, ':'))
			return fail_url(url, "what is in brackets is no IPv6 address", err);
	} else {
		char *colon = strchr(text, ':');
		if (colon) {
			*colon = '\0';
			port = colon + 1;
		}
		endpoint.host = text;
		if (!flat_ip_parse(text, &endpoint.ip) && !is_host_name(text))
			return fail_url(url, "it has no valid host", err);
	}
	uint64_t number = endpoint.tls ? 443 : 80;
	if (port && (!flat_uint_parse(port, UINT16_MAX, &number) || !number))
		return fail_url(url, "it has no valid port", err);
	endpoint.port = (uint16_t)number;
	*ret_endpoint = endpoint;
	return 0;
}

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
		int r = parse_endpoint(&http->arena, t->urls[i], &http->endpoints[i], err);
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

/* ---- connections ---- */

static void conn_disconnect(struct conn *conn)
{
	flat_resolve_cancel(conn->resolve);
	conn->resolve = NULL;
	ev_io_stop(conn->http->loop, &conn->io);
	ev_timer_stop(conn->http->loop, &conn->timer);
	flat_tls_close(conn->tls);
	conn->tls = NULL;
	if (conn->fd >= 0)
		close(conn->fd);
	conn->fd = -1;
}

static void conn_free(struct conn *conn)
{
	free(conn->out); /* it may hold a token */
	free(conn);
}

static void conn_destroy(struct conn *conn)
{
	if (!conn || conn->doomed)
		return;
	conn_disconnect(conn);
	if (conn->call)
		conn->call->conn = NULL;
	conn->call = NULL;
	for (struct conn **at = &conn->http->conns; *at; at = &(*at)->next) {
		if (*at == conn) {
			*at = conn->next;
			break;
		}
	}
	conn->doomed = true;
	if (!conn->executing)
		conn_free(conn);
}

/* Who failed is asked again last. */
static void rotate(struct flat_http *http, const struct endpoint *endpoint)
{
	if (&http->endpoints[http->current] == endpoint)
		http->current = (http->current + 1) % http->target.url_count;
}

/* The end of a call: nothing of it is left when done() runs. */
static void call_finish(struct flat_http_call *call, struct flat_err *err)
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
		conn_destroy(call->conn);
	flat_auto_free char *body = call->body;
	int status = call->status, retry_after = call->retry_after;
	struct flat_http_request request = call->request;
	struct flat_arena arena = call->arena;
	free(call);
	request.done(request.arg, err ? 0 : status, body ? body : "", retry_after, err);
	flat_arena_free(&arena);
}

/* The connection is of no use. Before the request went out, other ways are tried. */
static void conn_fail(struct conn *conn, struct flat_err *err)
{
	struct flat_http *http = conn->http;
	struct flat_http_call *call = conn->call;
	if (!call) {
		conn_destroy(conn);
		return;
	}
	call->endpoint = conn->endpoint;
	bool before = conn->stage < STAGE_WRITE;
	/* The server may have closed an idle connection just when we took it. A GET may be
	 * repeated; and it has not been answered, so nobody has heard of it. */
	bool stale = conn->reused && !conn->answered && !call->repeated &&
		     !strcmp(call->request.method, "GET");
	if (!stale)
		rotate(http, conn->endpoint);
	conn_destroy(conn);
	if (stale) {
		call->repeated = true;
		call_begin(call);
	} else if (before && ++call->tried < http->target.url_count) {
		call_begin(call);
	} else {
		call_finish(call, err);
	}
}

static void watch(struct conn *conn, int events)
{
	struct ev_loop *loop = conn->http->loop;
	if (ev_is_active(&conn->io) && (conn->io.events & (EV_READ | EV_WRITE)) == events)
		return;
	ev_io_stop(loop, &conn->io);
	ev_io_set(&conn->io, conn->fd, events);
	ev_io_start(loop, &conn->io);
}

static void set_timer(struct conn *conn, double seconds)
{
	ev_timer_stop(conn->http->loop, &conn->timer);
	ev_timer_set(&conn->timer, seconds, 0.);
	ev_timer_start(conn->http->loop, &conn->timer);
}

static socklen_t fill_address(const struct flat_ip *ip, uint16_t port,
			      struct sockaddr_storage *ret_address)
{
	*ret_address = (struct sockaddr_storage){ .ss_family = ip->family };
	if (ip->family == AF_INET) {
		struct sockaddr_in *in = (void *)ret_address;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, ip->bytes, 4);
		return sizeof *in;
	}
	struct sockaddr_in6 *in6 = (void *)ret_address;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, ip->bytes, 16);
	return sizeof *in6;
}

/* A peer that is gone without a word is noticed within half a minute, watching or not. */
static void set_options(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },   { SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 10 }, { IPPROTO_TCP, TCP_KEEPINTVL, 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 4 },   { IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_PEER_MS },
	};
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

static int connect_one(struct conn *conn, const struct flat_ip *ip, struct flat_err *err)
{
	struct sockaddr_storage address;
	socklen_t len = fill_address(ip, conn->endpoint->port, &address);
	conn->fd = socket(ip->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (conn->fd < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "open a socket");
	set_options(conn->fd);
	if (connect(conn->fd, (struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS)
		return flat_fail(err, FLAT_CODE_IO, errno, "connect");
	conn->stage = STAGE_CONNECT;
	watch(conn, EV_WRITE);
	set_timer(conn, CONNECT_SECONDS);
	return 0;
}

/* The next address, or the end. err: why the one before it failed. */
static void connect_next(struct conn *conn, struct flat_err *err)
{
	while (conn->ip_index < conn->ip_count) {
		conn_disconnect(conn);
		struct flat_err failed = { 0 };
		if (connect_one(conn, &conn->ips[conn->ip_index++], &failed) >= 0)
			return;
		*err = failed;
	}
	if (!conn->endpoint->ip.family && conn->ip_index) {
		char text[FLAT_IP_TEXT];
		flat_wrap(err, "at %s", flat_ip_text(&conn->ips[conn->ip_index - 1], text));
	}
	conn_fail(conn, err);
}

static void on_resolved(void *arg, const struct flat_ip *ips, size_t count, const char *why)
{
	struct conn *conn = arg;
	struct flat_err err = { 0 };
	conn->resolve = NULL;
	if (!count) {
		flat_fail(&err, FLAT_CODE_IO, 0, "look up '%s': %s", conn->endpoint->host, why);
		flat_detail(&err, "an address in the URL needs no DNS");
		conn_fail(conn, &err);
		return;
	}
	memcpy(conn->ips, ips, count * sizeof *ips);
	conn->ip_count = count;
	connect_next(conn, &err);
}

static void conn_start(struct conn *conn)
{
	struct flat_err err = { 0 };
	if (conn->endpoint->ip.family) {
		conn->ips[conn->ip_count++] = conn->endpoint->ip;
		connect_next(conn, &err);
	} else if (flat_resolve_start(conn->http->loop, conn->endpoint->host, RESOLVE_SECONDS,
				      on_resolved, conn, &conn->resolve, &err) < 0) {
		conn_fail(conn, &err);
	}
}

static void on_conn_timeout(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	struct conn *conn = timer->data;
	if (conn->stage == STAGE_IDLE) {
		conn_destroy(conn);
		return;
	}
	struct flat_err err = { 0 };
	flat_fail(&err, FLAT_CODE_IO, ETIMEDOUT,
		  conn->stage == STAGE_HANDSHAKE ? "TLS handshake" : "connect");
	connect_next(conn, &err);
}

static void on_conn_io(struct ev_loop *loop, ev_io *io, int events)
{
	(void)loop;
	conn_step(io->data, events);
}

static struct conn *conn_new(struct flat_http *http, const struct endpoint *endpoint)
{
	struct conn *conn = calloc(1, sizeof *conn);
	if (!conn)
		return NULL;
	conn->http = http;
	conn->endpoint = endpoint;
	conn->fd = -1;
	ev_init(&conn->io, on_conn_io);
	ev_init(&conn->timer, on_conn_timeout);
	conn->io.data = conn->timer.data = conn;
	conn->next = http->conns;
	http->conns = conn;
	return conn;
}

/* ---- requests ---- */

static int print_authorization(const struct flat_http_target *target, char **ret_text,
			       struct flat_err *err)
{
	flat_auto_free char *file = NULL;
	const char *token = target->token;
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
		int n = asprintf(ret_text, "Authorization: Bearer %s\r\n", token);
		return n < 0 ? flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print request") : 0;
	}
	if (target->basic) {
		gnutls_datum_t plain = { .data = (unsigned char *)target->basic,
					 .size = (unsigned)strlen(target->basic) },
			       coded;
		if (gnutls_base64_encode2(&plain, &coded) < 0)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print request");
		int n = asprintf(ret_text, "Authorization: Basic %.*s\r\n", (int)coded.size,
				 (const char *)coded.data);
		gnutls_free(coded.data);
		return n < 0 ? flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print request") : 0;
	}
	*ret_text = NULL;
	return 0;
}

static int print_request(struct conn *conn, struct flat_err *err)
{
	const struct flat_http_request *request = &conn->call->request;
	flat_auto_free char *authorization = NULL;
	int r = print_authorization(&conn->http->target, &authorization, err);
	if (r < 0)
		return r;
	bool has_body = request->body || strcmp(request->method, "GET") != 0;
	char length[48] = "";
	if (has_body)
		snprintf(length, sizeof length, "Content-Length: %zu\r\n",
			 request->body ? strlen(request->body) : 0);
	free(conn->out);
	conn->out = NULL;
	int n = asprintf(&conn->out,
			 "%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: flatnetd/" FLAT_VERSION "\r\n"
			 "Accept: %s\r\n%s%s%s%s%s\r\n%s",
			 request->method, conn->endpoint->base, request->path,
			 conn->endpoint->authority,
			 request->accept ? request->accept : "application/json",
			 authorization ? authorization : "", request->type ? "Content-Type: " : "",
			 request->type ? request->type : "", request->type ? "\r\n" : "", length,
			 request->body ? request->body : "");
	if (n < 0) {
		conn->out = NULL;
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print request");
	}
	conn->out_len = (size_t)n;
	conn->out_done = 0;
	return 0;
}

/* The request goes out; the answer is awaited. */
static void conn_request(struct conn *conn)
{
	struct flat_err err = { 0 };
	if (print_request(conn, &err) < 0) {
		/* nothing that another endpoint would make better */
		struct flat_http_call *call = conn->call;
		call->endpoint = conn->endpoint;
		call_finish(call, &err);
		return;
	}
	conn->stage = STAGE_WRITE;
	conn->answered = conn->complete = conn->in_value = false;
	conn->header_len = conn->value_len = 0;
	http_parser_init(&conn->parser, HTTP_RESPONSE);
	conn->parser.data = conn;
	ev_timer_stop(conn->http->loop, &conn->timer);
	conn_step(conn, EV_WRITE);
}

static void call_begin(struct flat_http_call *call)
{
	struct flat_http *http = call->http;
	const struct endpoint *endpoint = &http->endpoints[http->current];
	struct conn *conn = http->conns;
	while (conn && (conn->stage != STAGE_IDLE || conn->endpoint != endpoint))
		conn = conn->next;
	bool idle = conn != NULL;
	if (!idle)
		conn = conn_new(http, endpoint);
	call->endpoint = endpoint;
	if (!conn) {
		struct flat_err err = { 0 };
		flat_fail(&err, FLAT_CODE_INTERNAL, ENOMEM, "connect");
		call_finish(call, &err);
		return;
	}
	call->conn = conn;
	conn->call = call;
	conn->reused = idle;
	if (idle)
		conn_request(conn);
	else
		conn_start(conn);
}

static void on_call_begin(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	call_begin(timer->data);
}

static void on_call_timeout(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)events;
	ev_timer_stop(loop, timer);
	struct flat_http_call *call = timer->data;
	struct flat_err err = { 0 };
	if (call->conn) {
		call->endpoint = call->conn->endpoint;
		rotate(call->http, call->endpoint);
	}
	flat_fail(&err, FLAT_CODE_IO, ETIMEDOUT,
		  call->request.stream ? "nothing heard for %g s" : "no whole answer within %g s",
		  call->request.timeout);
	call_finish(call, &err);
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
	const char **texts[] = { &call->request.method, &call->request.path, &call->request.body,
				 &call->request.type, &call->request.accept };
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
	conn_destroy(call->conn);
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
		conn_destroy(http->conns);
	flat_arena_free(&http->arena);
	free(http);
}

/* ---- responses ---- */

static void end_header(struct conn *conn)
{
	uint64_t seconds;
	conn->header[conn->header_len] = conn->value[conn->value_len] = '\0';
	if (!strcmp(conn->header, "retry-after") &&
	    flat_uint_parse(conn->value, 24 * 60 * 60, &seconds)) /* not as a date */
		conn->call->retry_after = (int)seconds;
	conn->header_len = conn->value_len = 0;
	conn->in_value = false;
}

static int on_header_field(http_parser *parser, const char *at, size_t len)
{
	struct conn *conn = parser->data;
	if (!conn->call)
		return 1;
	if (conn->in_value)
		end_header(conn);
	for (size_t i = 0; i < len && conn->header_len < sizeof conn->header - 1; i++)
		conn->header[conn->header_len++] =
			(char)(at[i] >= 'A' && at[i] <= 'Z' ? at[i] | 0x20 : at[i]);
	return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t len)
{
	struct conn *conn = parser->data;
	conn->in_value = true;
	for (size_t i = 0; i < len && conn->value_len < sizeof conn->value - 1; i++)
		conn->value[conn->value_len++] = at[i];
	return 0;
}

static int on_message_begin(http_parser *parser)
{
	struct conn *conn = parser->data;
	return conn->complete; /* an answer that nobody asked for */
}

static int on_headers_complete(http_parser *parser)
{
	struct conn *conn = parser->data;
	if (!conn->call)
		return -1;
	if (conn->in_value)
		end_header(conn);
	struct flat_http_call *call = conn->call;
	call->status = (int)parser->status_code;
	if (call->status == 101) /* we did not ask to switch */
		return -1;
	if (call->status / 100 == 2 && call->request.begun)
		call->request.begun(call->request.arg);
	return conn->doomed || !conn->call ? -1 : 0;
}

/* A piece of a body that tells of an error: kept as text. */
static int keep_body(struct flat_http_call *call, const char *at, size_t len)
{
	if (!call->body && !(call->body = calloc(1, MAX_ERROR_BODY + 1)))
		return 1;
	size_t room = MAX_ERROR_BODY - call->body_len;
	if (len > room)
		len = room;
	memcpy(call->body + call->body_len, at, len);
	call->body_len += len;
	return 0;
}

static void stop_reading(struct conn *conn, int sys, const char *why)
{
	struct flat_err err = { 0 };
	struct flat_http_call *call = conn->call;
	flat_fail(&err, FLAT_CODE_IO, sys, "%s", why);
	call->endpoint = conn->endpoint;
	call_finish(call, &err);
}

static int on_body(http_parser *parser, const char *at, size_t len)
{
	struct conn *conn = parser->data;
	struct flat_http_call *call = conn->call;
	if (!call)
		return 1;
	if (call->status / 100 != 2)
		return keep_body(call, at, len);
	if (!call->request.stream && len > call->request.max_body - call->body_len) {
		stop_reading(conn, EFBIG, "answer");
		return 1;
	}
	call->body_len += len;
	bool more = !call->request.data || call->request.data(call->request.arg, at, len);
	if (conn->doomed || !conn->call)
		return 1;
	if (!more)
		stop_reading(conn, ECANCELED, "read answer");
	return more ? 0 : 1;
}

static int on_message_complete(http_parser *parser)
{
	struct conn *conn = parser->data;
	conn->complete = parser->status_code >= 200; /* else: the real answer follows */
	return 0;
}

static const http_parser_settings settings = {
	.on_message_begin = on_message_begin,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

/* The answer is whole: the connection waits for the next request where it may. */
static void conn_complete(struct conn *conn, bool reusable)
{
	struct flat_http *http = conn->http;
	struct flat_http_call *call = conn->call;
	size_t idle = 0;
	for (struct conn *c = http->conns; c; c = c->next)
		idle += c->stage == STAGE_IDLE;
	/* 503: up, but of no use, like an etcd without a leader */
	if (call->status == 503)
		rotate(http, conn->endpoint);
	if (reusable && idle < MAX_IDLE && conn->endpoint == &http->endpoints[http->current]) {
		conn->call = NULL;
		call->conn = NULL;
		conn->stage = STAGE_IDLE;
		free(conn->out);
		conn->out = NULL;
		watch(conn, EV_READ);
		set_timer(conn, IDLE_SECONDS);
	} else {
		conn_destroy(conn);
	}
	call_finish(call, NULL);
}

static ssize_t conn_read(struct conn *conn, char *buf, size_t size, struct flat_err *err)
{
	if (conn->tls)
		return flat_tls_read(conn->tls, buf, size, err);
	ssize_t n = recv(conn->fd, buf, size, 0);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return -EAGAIN;
	return flat_fail(err, FLAT_CODE_IO, errno, "read");
}

/* False: the connection is gone, or has nothing more to say for now. */
static bool conn_read_once(struct conn *conn)
{
	char buf[READ_SIZE];
	struct flat_err err = { 0 };
	ssize_t n = conn_read(conn, buf, sizeof buf, &err);
	if (n == -EAGAIN && !err.code)
		return false;
	if (n < 0 || !conn->call) {
		conn_fail(conn, &err);
		return false;
	}
	if (n && conn->call->request.stream)
		ev_timer_again(conn->http->loop, &conn->call->timer);
	conn->answered |= n > 0;
	size_t used = http_parser_execute(&conn->parser, &settings, buf, (size_t)n);
	if (conn->doomed)
		return false;
	if (conn->complete) {
		conn_complete(conn,
			      n && used == (size_t)n && http_should_keep_alive(&conn->parser));
		return false;
	}
	enum http_errno why = HTTP_PARSER_ERRNO(&conn->parser);
	if (!n)
		flat_fail(&err, FLAT_CODE_IO, ECONNRESET, "read answer");
	else if (why != HPE_OK)
		flat_fail(&err, FLAT_CODE_IO, 0, "read answer: %s", http_errno_description(why));
	if (err.code)
		conn_fail(conn, &err);
	return !err.code;
}

static void conn_readable(struct conn *conn)
{
	conn->executing = true;
	for (int i = 0; i < READS_AT_ONCE && conn_read_once(conn); i++)
		;
	conn->executing = false;
	if (conn->doomed)
		conn_free(conn);
	else if (conn->tls && conn->fd >= 0 && flat_tls_pending(conn->tls))
		ev_feed_event(conn->http->loop, &conn->io, EV_READ);
}

static void conn_write(struct conn *conn)
{
	while (conn->out_done < conn->out_len) {
		struct flat_err err = { 0 };
		const char *from = conn->out + conn->out_done;
		size_t len = conn->out_len - conn->out_done;
		ssize_t n;
		if (conn->tls) {
			n = flat_tls_write(conn->tls, from, len, &err);
		} else {
			n = send(conn->fd, from, len, MSG_NOSIGNAL);
			if (n < 0)
				n = errno == EAGAIN || errno == EINTR
					    ? -EAGAIN
					    : flat_fail(&err, FLAT_CODE_IO, errno, "write");
		}
		if (n == -EAGAIN && !err.code) {
			watch(conn, EV_WRITE);
			return;
		}
		if (n < 0) {
			conn_fail(conn, &err);
			return;
		}
		conn->out_done += (size_t)n;
	}
	conn->stage = STAGE_READ;
	watch(conn, EV_READ);
}

static void conn_connected(struct conn *conn)
{
	struct flat_err err = { 0 };
	int sys = 0;
	socklen_t len = sizeof sys;
	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &sys, &len) < 0)
		sys = errno;
	if (sys) {
		flat_fail(&err, FLAT_CODE_IO, sys, "connect");
		connect_next(conn, &err);
		return;
	}
	if (!conn->endpoint->tls) {
		conn_request(conn);
		return;
	}
	if (flat_tls_open(&conn->http->target, conn->endpoint->host, conn->fd, &conn->tls, &err) <
	    0) {
		conn_fail(conn, &err);
		return;
	}
	conn->stage = STAGE_HANDSHAKE;
	conn_step(conn, 0);
}

static void conn_handshake(struct conn *conn)
{
	struct flat_err err = { 0 };
	int r = flat_tls_handshake(conn->tls, &err);
	if (r < 0)
		connect_next(conn, &err);
	else if (r)
		conn_request(conn);
	else
		watch(conn, flat_tls_wants_write(conn->tls) ? EV_WRITE : EV_READ);
}

static void conn_step(struct conn *conn, int events)
{
	(void)events;
	switch (conn->stage) {
	case STAGE_RESOLVE:
		break;
	case STAGE_CONNECT:
		conn_connected(conn);
		break;
	case STAGE_HANDSHAKE:
		conn_handshake(conn);
		break;
	case STAGE_WRITE:
		conn_write(conn);
		break;
	case STAGE_READ:
	case STAGE_IDLE:
		conn_readable(conn);
		break;
	}
}

bool flat_http_escape(const char *text, char *buf, size_t size)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t used = 0;
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			     (c >= '0' && c <= '9') || strchr("-._~", c);
		if (size - used <= (plain ? 1 : 3))
			return false;
		if (plain) {
			buf[used++] = (char)c;
		} else {
			buf[used++] = '%';
			buf[used++] = hex[c >> 4];
			buf[used++] = hex[c & 15];
		}
	}
	if (used >= size)
		return false;
	buf[used] = '\0';
	return true;
}
