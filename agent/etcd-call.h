/* SPDX-License-Identifier: Apache-2.0 */
/* Private to etcd.c and etcd-watch.c: a call on its way. */
#pragma once

#include "etcd-reply.h"
#include "http.h"

enum { FLAT_ETCD_MAX_ENDPOINTS = 16, FLAT_ETCD_MAX_TOKEN = 4096 };

struct flat_etcd_text {
	char *data;
	size_t len, size;
};

struct flat_etcd_call {
	struct flat_etcd_call *next;
	struct flat_etcd *etcd;
	struct flat_http_call *http; /* NULL: it waits for a token */
	size_t endpoint;
	const char *path;
	char *body;
	struct flat_etcd_text
		in;	/* of the answer, as far as it has come; of a watch: of the line at hand */
	bool retried;	/* with another token */
	uint64_t token; /* number of the token that it was made with; 0: none */
	flat_etcd_done *done;
	void *arg;
	/* of a watch: */
	bool watch;
	struct flat_etcd_watcher watcher;
	ev_timer first_word; /* when it has to have come */
};

struct flat_etcd {
	struct ev_loop *loop;
	const struct flat_agent_conf *conf;
	struct flat_http *https[FLAT_ETCD_MAX_ENDPOINTS];
	size_t endpoint_count, current;
	struct flat_etcd_call *calls;
	struct flat_etcd_call *watch; /* among them */
	char token[FLAT_ETCD_MAX_TOKEN];
	uint64_t token_number; /* 0: none */
	uint64_t tokens;
	struct flat_etcd_call *login; /* among them; not NULL: a token is on its way */
};

/* False: no memory, or longer than any text of JSON may be. */
bool flat_etcd_text_add(struct flat_etcd_text *text, const char *data, size_t len);
void flat_etcd_text_free(struct flat_etcd_text *text);

/* A call in the list; body is taken over, NULL is fine. NULL: no memory. */
struct flat_etcd_call *flat_etcd_call_new(struct flat_etcd *etcd, const char *path, char *body);
/* Takes it out of the list and lets go of it, the HTTP call included. */
void flat_etcd_call_free(struct flat_etcd_call *call);
/* Sends the call, or lets it wait for a token. */
int flat_etcd_call_send(struct flat_etcd_call *call, struct flat_err *err);
/* The URL of its endpoint. */
const char *flat_etcd_call_url(const struct flat_etcd_call *call);

/* The ends of a call that went wrong: they tell whoever waits for it, and free it. */
void flat_etcd_call_fail(struct flat_etcd_call *call, struct flat_etcd_failure *failure);
/* ... by a refusal of the server's, in its words (reply NULL: none). One that may be the token's
 * fault is made once more instead. */
void flat_etcd_call_refused(struct flat_etcd_call *call, int status,
			    const struct flat_etcd_reply *reply);
/* ... by an answer that makes no sense. */
void flat_etcd_call_nonsense(struct flat_etcd_call *call, const struct flat_err *err);
/* ... by what happens below HTTP: name, connection, TLS, time. */
void flat_etcd_call_unreachable(struct flat_etcd_call *call, const struct flat_err *err);

/* The requests' functions of a watch. */
bool flat_etcd_watch_data(void *arg, const char *data, size_t len);
void flat_etcd_watch_done(void *arg, int status, const char *body, int retry_after,
			  const struct flat_err *http_err);
