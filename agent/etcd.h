/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: a client of etcd v3, over the HTTP/JSON gateway that each member serves (/v3/,
 * since 3.4). Several calls may run at a time. One endpoint is in use; when it does not answer, or
 * says that it cannot, the next one is.
 */
#pragma once

#include "conf.h"

#include <ev.h>

struct flat_etcd;
/* conf (its part etcd) and loop are borrowed. Code 7: something in it that cannot be right. */
int flat_etcd_open(struct ev_loop *loop, const struct flat_agent_conf *conf,
		   struct flat_etcd **ret_etcd, struct flat_err *err);
/* Ends all calls and watches without a callback; NULL is fine. */
void flat_etcd_close(struct flat_etcd *etcd);

enum flat_etcd_trouble {
	FLAT_ETCD_UNREACHABLE, /* no answer, or "not now": the next endpoint is asked next */
	FLAT_ETCD_REFUSED,     /* user, password or rights */
	FLAT_ETCD_COMPACTED,   /* the revision is not there (any more, or yet): list again */
	FLAT_ETCD_NO_LEASE,    /* the lease is not there: it ran out */
	FLAT_ETCD_FAULT,       /* an answer that makes no sense, or any other refusal */
};
struct flat_etcd_failure {
	enum flat_etcd_trouble trouble;
	struct flat_err err;
};

struct flat_etcd_kv {
	const char *key; /* NUL-terminated; a key that contains a NUL is left out of answers */
	const char *value;
	size_t value_len;
	int64_t create_revision, mod_revision;
	int64_t lease; /* 0: none */
	bool deleted;  /* of a watch: it is gone, at mod_revision */
};

struct flat_etcd_answer {
	int64_t revision;	/* of the store when it answered */
	const char *cluster_id; /* "" when it is not told */
	const struct flat_etcd_kv *kvs;
	size_t kv_count;
	bool more;	   /* of a range: the limit cut it; after: the key that was last */
	bool succeeded;	   /* of a put: its conditions held */
	int64_t lease;	   /* of a grant */
	int64_t ttl;	   /* of a grant or a keepalive: seconds; 0: there is no such lease */
	const char *after; /* key to go on behind; may contain a NUL, hence: */
	size_t after_len;
};

/* Exactly one of answer and failure is given, and both are borrowed for the call. New calls may be
 * started from it. */
typedef void flat_etcd_done(void *arg, const struct flat_etcd_answer *answer,
			    const struct flat_etcd_failure *failure);

/* All of these return 0, or -ENOMEM with err and then never call back. Nothing calls back before
 * it returns. */

/* The keys that begin with this (prefix), or this key alone; behind `after` where it is given. */
struct flat_etcd_range {
	const char *key;
	bool prefix;
	const char *after;
	size_t after_len;
	uint32_t limit;	  /* 0: none */
	int64_t revision; /* 0: now, as the majority has it */
};
int flat_etcd_range(struct flat_etcd *etcd, const struct flat_etcd_range *range,
		    flat_etcd_done *done, void *arg, struct flat_err *err);

/* One transaction: puts the key, if no key begins with `unused` and `replaces` stands at
 * replaces_revision (each NULL: no such condition); and deletes `replaces` where it is another key.
 * Else the answer has not succeeded, and has the keys that begin with `unused`, and `replaces`. */
struct flat_etcd_put {
	const char *key, *value;
	int64_t lease; /* 0: none */
	const char *unused;
	const char *replaces;
	int64_t replaces_revision;
};
int flat_etcd_put(struct flat_etcd *etcd, const struct flat_etcd_put *put, flat_etcd_done *done,
		  void *arg, struct flat_err *err);

int flat_etcd_grant(struct flat_etcd *etcd, uint32_t ttl, flat_etcd_done *done, void *arg,
		    struct flat_err *err);
int flat_etcd_keepalive(struct flat_etcd *etcd, int64_t lease, flat_etcd_done *done, void *arg,
			struct flat_err *err);

struct flat_etcd_watcher {
	/* It runs, and will tell what came from the wanted revision on. */
	void (*created)(void *arg, const struct flat_etcd_answer *answer);
	/* What happened, in order; without kvs: nothing up to answer->revision. */
	void (*events)(void *arg, const struct flat_etcd_answer *answer);
	/* It has ended; not after flat_etcd_unwatch(). */
	void (*ended)(void *arg, const struct flat_etcd_failure *failure);
	void *arg;
};
/* Watches the keys that begin with prefix. One watch at a time; a second one ends the first without
 * a call. */
int flat_etcd_watch(struct flat_etcd *etcd, const char *prefix, int64_t revision,
		    const struct flat_etcd_watcher *watcher, struct flat_err *err);
void flat_etcd_unwatch(struct flat_etcd *etcd);

/* The URL of the endpoint in use. */
const char *flat_etcd_endpoint(const struct flat_etcd *etcd);
