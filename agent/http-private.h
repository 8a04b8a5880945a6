/* SPDX-License-Identifier: Apache-2.0 */
/* Private to http.c (calls), http-conn.c (connections) and http-url.c. */
#pragma once

#include "http.h"
#include "resolve.h"
#include "tls.h"

#include <http_parser.h>

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

/* http-url.c: code 7. Texts are in the arena. */
int flat_http_parse_url(struct flat_arena *arena, const char *url, struct endpoint *ret_endpoint,
			struct flat_err *err);

/* http.c: the end of a call, with err, or with its answer. Nothing of it is left when done() runs.
 */
void flat_http_finish(struct flat_http_call *call, struct flat_err *err);
/* What is sent; the caller frees. */
int flat_http_print(const struct flat_http_call *call, const struct endpoint *endpoint,
		    char **ret_text, struct flat_err *err);

/* http-conn.c: gives the call a connection, an idle or a new one, and lets it go its way. May end
 * the call. */
void flat_http_connect(struct flat_http_call *call);
void flat_http_disconnect(struct conn *conn); /* NULL is fine; its call has none then */
/* Who failed is asked again last. */
void flat_http_rotate(struct flat_http *http, const struct endpoint *endpoint);
