// SPDX-License-Identifier: Apache-2.0
#include "http-private.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	MAX_IDLE = 2,
	MAX_ERROR_BODY = 16 * 1024,
	READ_SIZE = 16 * 1024, /* a TLS record */
	READS_AT_ONCE = 16,    /* then others have their turn */
	RESOLVE_SECONDS = 10,
	DEAD_PEER_MS = 30000, /* unacknowledged data, or no answer to keepalive */
};
/* One address: TCP and TLS. A server that is up answers in milliseconds; a dead one must not keep
 * us from the next. */
#define CONNECT_SECONDS 5.
#define IDLE_SECONDS	30.

static void conn_step(struct conn *conn, int events);

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

void flat_http_disconnect(struct conn *conn)
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

void flat_http_rotate(struct flat_http *http, const struct endpoint *endpoint)
{
	if (&http->endpoints[http->current] == endpoint)
		http->current = (http->current + 1) % http->target.url_count;
}

/* The connection is of no use. Before the request went out, other ways are tried. */
static void conn_fail(struct conn *conn, struct flat_err *err)
{
	struct flat_http *http = conn->http;
	struct flat_http_call *call = conn->call;
	if (!call) {
		flat_http_disconnect(conn);
		return;
	}
	call->endpoint = conn->endpoint;
	bool before = conn->stage < STAGE_WRITE;
	/* The server may have closed an idle connection just when we took it. A GET may be
	 * repeated; and it has not been answered, so nobody has heard of it. */
	bool stale = conn->reused && !conn->answered && !call->repeated &&
		     !strcmp(call->request.method, "GET");
	if (!stale)
		flat_http_rotate(http, conn->endpoint);
	flat_http_disconnect(conn);
	if (stale) {
		call->repeated = true;
		flat_http_connect(call);
	} else if (before && ++call->tried < http->target.url_count) {
		flat_http_connect(call);
	} else {
		flat_http_finish(call, err);
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
		flat_http_disconnect(conn);
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

/* The request goes out; the answer is awaited. */
static void conn_request(struct conn *conn)
{
	struct flat_err err = { 0 };
	free(conn->out);
	conn->out = NULL;
	if (flat_http_print(conn->call, conn->endpoint, &conn->out, &err) < 0) {
		/* nothing that another endpoint would make better */
		struct flat_http_call *call = conn->call;
		call->endpoint = conn->endpoint;
		flat_http_finish(call, &err);
		return;
	}
	conn->out_len = strlen(conn->out);
	conn->out_done = 0;
	conn->stage = STAGE_WRITE;
	conn->answered = conn->complete = conn->in_value = false;
	conn->header_len = conn->value_len = 0;
	http_parser_init(&conn->parser, HTTP_RESPONSE);
	conn->parser.data = conn;
	ev_timer_stop(conn->http->loop, &conn->timer);
	conn_step(conn, EV_WRITE);
}

void flat_http_connect(struct flat_http_call *call)
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
		flat_http_finish(call, &err);
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
	flat_http_finish(call, &err);
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
		flat_http_rotate(http, conn->endpoint);
	if (reusable && idle < MAX_IDLE && conn->endpoint == &http->endpoints[http->current]) {
		conn->call = NULL;
		call->conn = NULL;
		conn->stage = STAGE_IDLE;
		free(conn->out);
		conn->out = NULL;
		watch(conn, EV_READ);
		set_timer(conn, IDLE_SECONDS);
	} else {
		flat_http_disconnect(conn);
	}
	flat_http_finish(call, NULL);
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
