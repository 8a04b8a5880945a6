// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation
 *
 * Two things go on side by side. Hearing (etcd-hear.c): a list of all records in pages, all of
 * one revision R; then a watch from R+1 on, which is taken up again where it stopped; if that is
 * forgotten (compacted), or the store is another one than before, list again. Having
 * (etcd-own.c): this node's own record, on a lease of its own that is kept alive. The first try of
 * either is quiet: a member that restarts, or a leader that moves, is nothing to say a word
 * about.
 *
 * A record is claimed by one transaction: no key may begin with our IPv4 subnet (so that one with
 * both families and one without collide), or our own record must stand as we know it. Subnets of
 * different lengths, or IPv6 subnets that flannel pairs in another way, can still overlap: then the
 * older record wins, as it does when nodes are judged, and the younger node takes another subnet.
 *
 * In which order a subnet is looked for: what this node had in this life; the record with its
 * name (flannel: with its address); what it remembers from an earlier life; a free one. The same
 * subnet comes back as long as nobody else has it.
 */
#include "source-etcd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ALIVE_SECONDS = 60, /* at most, between two signs of life from etcd */
	ALIVE_AGAIN = 2,    /* after one that was missing */
};

void flat_etcd_tell_state(struct flat_source *source)
{
	const struct flat_err *trouble = source->hear_trouble.code ? &source->hear_trouble : NULL;
	char why[sizeof trouble->msg + sizeof trouble->details + 64] = "";
	bool connected = !trouble && source->hearing == FLAT_HEARING_LIVE;
	if (!trouble && !connected)
		return; /* on its way, and nothing is known to be wrong */
	if (trouble)
		snprintf(why, sizeof why, "%s%s%s; it is tried again", trouble->msg,
			 trouble->details[0] ? " - " : "", trouble->details);
	uint64_t hash = flat_hash(1, why, strlen(why));
	if (hash == source->told)
		return;
	source->told = hash;
	source->listener->state(source->listener->arg, connected, connected ? NULL : why);
}

/* ---- signs of life -----------------------------------------------------------------------------
 */

static double alive_seconds(const struct flat_source *source)
{
	double third = source->conf->etcd.lease_ttl / 3.;
	return third < 1 ? 1 : third < ALIVE_SECONDS ? third : ALIVE_SECONDS;
}

static void alive_later(struct flat_source *source, double seconds)
{
	ev_timer_stop(source->loop, &source->alive_timer);
	ev_timer_set(&source->alive_timer, seconds, 0.);
	ev_timer_start(source->loop, &source->alive_timer);
}

static void alive_done(void *arg, const struct flat_etcd_answer *answer,
		       const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	source->alive_asked = false;
	if (failure && failure->trouble != FLAT_ETCD_NO_LEASE) {
		/* The watch may well be silent for the same reason: take it up elsewhere. */
		double soon = alive_seconds(source);
		alive_later(source, soon < ALIVE_AGAIN ? soon : ALIVE_AGAIN);
		if (source->hearing == FLAT_HEARING_LIVE)
			flat_etcd_hear_failed(source, failure);
		return;
	}
	alive_later(source, alive_seconds(source));
	if (source->lease && (failure || !answer->ttl)) {
		flat_say(FLAT_LEVEL_WARN,
			 "the lease of this node's subnet ran out: it is taken again", NULL);
		source->lease = 0;
		flat_etcd_own_kick(source);
	}
}

/* Keeps the lease; without one, asks whether anybody is there. Both need a leader, and so tell of a
 * member that is cut off from the others, whose watches are silent. */
static void on_alive_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct flat_source *source = timer->data;
	const struct flat_etcd_range range = { .key = source->config_key, .limit = 1 };
	struct flat_err err = { 0 };
	int r;
	(void)loop;
	(void)revents;
	alive_later(source, alive_seconds(source));
	if (source->alive_asked || (!source->lease && source->hearing != FLAT_HEARING_LIVE))
		return;
	if (source->lease)
		r = flat_etcd_keepalive(source->etcd, source->lease, alive_done, source, &err);
	else
		r = flat_etcd_range(source->etcd, &range, alive_done, source, &err);
	source->alive_asked = r >= 0;
}

/* ---- the source --------------------------------------------------------------------------------
 */

static void source_close(struct flat_source *source)
{
	if (!source)
		return;
	ev_timer_stop(source->loop, &source->hear_timer);
	ev_timer_stop(source->loop, &source->own_timer);
	ev_timer_stop(source->loop, &source->alive_timer);
	flat_etcd_close(source->etcd);
	flat_etcd_table_clear(&source->table);
	flat_etcd_put_free(source);
	free(source->folder);
	free(source->config_key);
	free(source);
}

static int source_open(struct ev_loop *loop, const struct flat_agent_conf *conf,
		       const struct flat_listener *listener, struct flat_source **ret_source,
		       struct flat_err *err)
{
	struct flat_source *source = calloc(1, sizeof *source);
	if (!source)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "open the source");
	source->loop = loop;
	source->conf = conf;
	source->listener = listener;
	ev_timer_init(&source->hear_timer, flat_etcd_on_hear_timer, 0., 0.);
	ev_timer_init(&source->own_timer, flat_etcd_on_own_timer, 0., 0.);
	ev_timer_init(&source->alive_timer, on_alive_timer, alive_seconds(source), 0.);
	source->hear_timer.data = source->own_timer.data = source->alive_timer.data = source;
	int r = 0;
	if (asprintf(&source->folder, "%s/subnets/", conf->etcd.prefix) < 0)
		source->folder = NULL;
	if (asprintf(&source->config_key, "%s/config", conf->etcd.prefix) < 0)
		source->config_key = NULL;
	if (!source->folder || !source->config_key)
		r = flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "open the source");
	if (r >= 0)
		r = flat_etcd_open_pools(source, err);
	if (r >= 0)
		r = flat_etcd_open(loop, conf, &source->etcd, err);
	if (r < 0) {
		source_close(source);
		return r;
	}
	ev_timer_start(loop,
		       &source->hear_timer); /* at once, but nothing is told before we return */
	ev_timer_start(loop, &source->alive_timer);
	*ret_source = source;
	return 0;
}

static void source_publish(struct flat_source *source, const struct flat_self *self)
{
	source->self = *self;
	source->self.node.name = source->conf->node_name;
	/* Nobody can reach a node without an address: it is no node yet. */
	source->published =
		self->node.addresses[FLAT_V4].family || self->node.addresses[FLAT_V6].family;
	flat_etcd_own_kick(source);
}

const struct flat_source_type flat_source_etcd = {
	.name = "etcd",
	.open = source_open,
	.publish = source_publish,
	.close = source_close,
};
