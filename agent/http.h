/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: an HTTP/1.1 client in the loop, over TCP or TLS. For API servers: a handful of
 * requests at a time, some of them streams that last for minutes. TLS by GnuTLS, which the server
 * side (libmicrohttpd) brings along; parsing by http-parser.
 *
 * Why not libcurl: Debian's needs 11.4 MB of memory for one HTTPS request, most of it for
 * protocols that nobody speaks here; this agent is to fit into 8.
 */
#pragma once

#include <flatnet/base.h>

#include <ev.h>

/* Where requests go, and as whom. Several endpoints are tried in turn. */
struct flat_http_target {
	const char *const *urls; /* "https://192.0.2.1:6443", "http://[2001:db8::1]:2379"; a path
			   goes before those of the requests */
	size_t url_count;
	/* TLS; NULL: none. Files are read anew for every connection: they rotate. *_data are PEM
	 * texts and win over the files. ca NULL: the system's trust store. */
	const char *ca_file, *ca_data;
	const char *cert_file, *cert_data, *key_file, *key_data;
	const char *server_name; /* NULL: the host of the URL */
	bool insecure;		 /* the server's certificate is not checked */
	/* Authorization: "Bearer ..." of this file (read anew for every request: it rotates), or
	 * this text; basic: "user:password". NULL: none. */
	const char *token_file, *token, *basic;
};

struct flat_http;
/* target is copied; loop is borrowed. Code 7: a URL or file that cannot be right. Files that are
 * not there yet are no error here: requests fail until they are. */
int flat_http_open(struct ev_loop *loop, const struct flat_http_target *target,
		   struct flat_http **ret_http, struct flat_err *err);
/* Ends all requests without a call. */
void flat_http_close(struct flat_http *http);

struct flat_http_request {
	const char *method;	   /* "GET", "POST", "PATCH" */
	const char *path;	   /* with query, escaped */
	const char *body, *type;   /* NULL: none; Content-Type */
	const char *accept;	   /* NULL: application/json */
	const char *authorization; /* the header's whole value, instead of the target's */
	/* Seconds until the response must be whole; of a stream: without any byte of it. */
	double timeout;
	bool stream;
	size_t max_body; /* of a response that is not a stream: larger fails; 0: 4 MiB */
	/* The head of a response with status 2xx is there; of a stream: it runs. NULL: not told. */
	void (*begun)(void *arg);
	/* A piece of the body of a response with status 2xx. False ends the request as if it had
	 * failed (with done()). NULL: nobody wants it. */
	bool (*data)(void *arg, const char *data, size_t len);
	/* The end, exactly once unless it is cancelled. err NULL: the response came to its end,
	 * with this status; else what went wrong ("GET https://...: connection refused"). body: of
	 * a status that is not 2xx, at most 16 KiB as text, for messages and reasons. May start new
	 * requests. retry_after: seconds that the server asked for (429, 503), 0: not. */
	void (*done)(void *arg, int status, const char *body, int retry_after,
		     const struct flat_err *err);
	void *arg;
};
struct flat_http_call;
/* Starts; never calls back before it returns. Connections are kept for the next request. An
 * endpoint that cannot be reached (5 s for each of its addresses) is followed by the next, until
 * all were tried; what fails after the request went out is for the caller to repeat, but the next
 * request goes to the next endpoint. NULL: no memory, with err. */
struct flat_http_call *flat_http_start(struct flat_http *http,
				       const struct flat_http_request *request,
				       struct flat_err *err);
void flat_http_cancel(struct flat_http_call *call); /* NULL is fine; no callback follows */

/* Percent-encodes all but RFC 3986's unreserved characters. False: it does not fit. */
bool flat_http_escape(const char *text, char *buf, size_t size);
