/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: where the nodes of the cluster come from. One source at a time, each a module
 * of its own: file, etcd, kubernetes.
 *
 * A source lives in the loop, never blocks, and never gives up: what goes wrong is told by state(),
 * and tried again with back-off and jitter. It keeps no table of nodes: it tells what it hears.
 */
#pragma once

#include "conf.h"

#include <flatnet/cluster.h>

#include <ev.h>

/* What a source tells. Nodes are borrowed for the call. */
struct flat_listener {
	/* A full list begins: nodes that are not told until synced() have gone. */
	void (*begin)(void *arg);
	/* This node is there, as it says now: new, changed, or as it was. Own node included. A node
	 * whose object makes no sense is told with what does, and `fault` says what is wrong with
	 * it (else NULL): it is refused. */
	void (*node)(void *arg, const struct flat_node *node, const char *fault);
	void (*gone)(void *arg, const char *name);
	/* The list is whole. Changes follow by node() and gone(). */
	void (*synced)(void *arg);
	/* connected: what is told is current. Else why says what is wrong and what will be done. */
	void (*state)(void *arg, bool connected, const char *why);
	void *arg;
};

/* What this node tells the others, where the source takes it: etcd always, Kubernetes in flannel's
 * compatibility mode. */
struct flat_self {
	struct flat_node node;	   /* name; addresses; vtep; pod_cidrs as far as they are known */
	enum flat_backend backend; /* VXLAN or DIRECT */
};

struct flat_source;
struct flat_source_type {
	const char *name; /* "file", "etcd", "kubernetes" */
	/* Starts; what can be wrong at once is a mistake in the configuration. conf and listener
	 * are borrowed for the life of the source; loop likewise. */
	int (*open)(struct ev_loop *loop, const struct flat_agent_conf *conf,
		    const struct flat_listener *listener, struct flat_source **ret_source,
		    struct flat_err *err);
	/* This node's own record has changed (or is known for the first time). Copied. NULL: the
	 * source publishes nothing. */
	void (*publish)(struct flat_source *source, const struct flat_self *self);
	void (*close)(struct flat_source *source); /* NULL is fine; what was published stays */
};
extern const struct flat_source_type flat_source_file, flat_source_etcd, flat_source_kubernetes;

/* Which pause before the next try: doubles from min to max seconds, each with jitter of half of
 * itself. Zero-initialise; reset by setting tries to 0. */
struct flat_backoff {
	unsigned tries;
};
double flat_backoff_next(struct flat_backoff *backoff, double min, double max);
