// SPDX-License-Identifier: Apache-2.0
/*
 * What happens, and when there is a pass.
 *
 * A pass is asked for by the source, by the kernel (links, addresses, routes, neighbours, rules)
 * and by timers; it starts a few milliseconds later, so that what comes in a burst is one pass.
 * While the kernel goes on to tell of things, it waits a little longer: a pass in the midst of a
 * flush would have to be followed by another one. After some in a row passes wait for a multiple of
 * what they cost, and longer the longer that goes on: whoever fights with this agent gets an answer
 * within half a second, and cannot make it burn the processor. Nothing is lost by waiting: what is
 * dirty stays so until a pass begins.
 *
 * What a pass writes comes back as events. They find the kernel as wanted, and ask for nothing.
 */
#include "agent.h"

#include "log.h"
#include "reconcile.h"
#include "sweep.h"

#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define LOCK_NAME "flatnetd.lock"

static const double coalesce = 0.005; /* seconds, from the first event of a burst */
static const double lull = 0.02;      /* a burst of the kernel's has ended ... */
static const double burst = 0.2;      /* ... or has gone on for too long */
static const double calm = 1.0;	      /* after so long without a pass it is no row of them */
static const double longest_gap = 0.5;
static const double poll_every = 0.5; /* sysctls: nobody tells when they change */
static const double save_after = 2;
static const double retry_min = 0.25, retry_max = 15;
enum {
	AT_ONCE = 3,  /* passes of a row that wait for nothing */
	SHARE = 4,    /* the others may take 1/(1+SHARE) of the time ... */
	PATIENCE = 8, /* ... and from then on wait longer each time */
	/* The same of those that the source alone asks for: nodes that come one after the other are
	 * not somebody who fights. */
	TOLD_SHARE = 1,
	TOLD_PATIENCE = 64,
	SAVE_AT_ONCE = 64, /* nodes */
};

struct flat_agent {
	struct ev_loop *loop;
	const struct flat_agent_conf *conf;
	struct flat_status *status;
	int lock_fd;
	struct flat_reconcile *reconcile;
	struct flat_source *source;
	struct flat_listener listener;
	bool list_open; /* a full list is being told */
	struct flat_self published;
	bool is_published;

	struct flat_monitor *monitor;
	ev_io events[2];
	size_t event_count;
	ev_timer pass, slow, poll, save, sweep_timer;
	unsigned dirty;
	bool passing;			    /* now; what is heard meanwhile asks for another one: */
	unsigned overheard;		    /* bits of dirty */
	double pass_at, earliest, last_end; /* by now() */
	double asked_at, last_event;	    /* of the pass to come; of the kernel */
	unsigned row;			    /* passes that followed each other closely */
	unsigned failures;
	struct flat_sweep *sweep;
	struct flat_net *sweep_net;
	struct flat_remark no_source, no_pass, no_events, no_save, no_sweep;
};

static double now(void)
{
	return (double)flat_now_ms() / 1000;
}

/* ---- passes ------------------------------------------------------------------------------------
 */

static void want_pass(struct flat_agent *a, unsigned dirty, double delay)
{
	const double t = now();
	double at = t + delay;
	if (at < a->earliest)
		at = a->earliest;
	if (!a->dirty)
		a->asked_at = t;
	if (a->dirty && a->pass_at <= at) {
		a->dirty |= dirty;
		return;
	}
	a->dirty |= dirty;
	a->pass_at = at;
	ev_timer_stop(a->loop, &a->pass);
	/* the loop's idea of now is that of its last round */
	ev_now_update(a->loop);
	ev_timer_set(&a->pass, at > t ? at - t : 0, 0);
	ev_timer_start(a->loop, &a->pass);
}

static void count_time(struct flat_status *status, double seconds)
{
	static const double bounds[] = { 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5 };
	size_t i = 0;
	while (i < FLAT_LEN(bounds) && seconds > bounds[i])
		i++;
	status->reconcile.runs++;
	status->reconcile.seconds += seconds;
	status->reconcile.last_seconds = seconds;
	if (seconds > status->reconcile.max_seconds)
		status->reconcile.max_seconds = seconds;
	status->reconcile.bucket[i]++;
}

static bool equal_self(const struct flat_self *a, const struct flat_self *b)
{
	return a->backend == b->backend && flat_node_equal(&a->node, &b->node);
}

/* Since when it has been there the source tells, not this node; and it may be the very publishing
 * that changes it. */
static void publish(struct flat_agent *a)
{
	const struct flat_self *known = flat_reconcile_self(a->reconcile);
	if (!known || !a->source || !a->conf->source->publish)
		return;
	struct flat_self self = *known;
	self.node.since = 0;
	if (a->is_published && equal_self(&self, &a->published))
		return;
	a->published = self;
	a->is_published = true;
	a->conf->source->publish(a->source, &self);
}

static void save_now(struct flat_agent *a)
{
	struct flat_err e = { 0 };
	if (flat_reconcile_save(a->reconcile, &e) < 0)
		flat_remark(&a->no_save, FLAT_LEVEL_ERROR, "the state cannot be kept", e.msg);
	else
		flat_remark_end(&a->no_save, "the state can be kept again");
	malloc_trim(0); /* what a list, its judgement and this file needed for a moment */
}

/* A large cluster's state is a large file: not for each change. */
static void want_save(struct flat_agent *a)
{
	if (a->status->nodes.known <= SAVE_AT_ONCE)
		save_now(a);
	else if (!ev_is_active(&a->save)) {
		ev_timer_set(&a->save, save_after, 0);
		ev_timer_start(a->loop, &a->save);
	}
}

/* When the next pass may start at the earliest. */
static void rest(struct flat_agent *a, unsigned dirty, double start, double end)
{
	const bool told = dirty == FLAT_DIRTY_NODES;
	const unsigned share = told ? TOLD_SHARE : SHARE;
	const unsigned patience = told ? TOLD_PATIENCE : PATIENCE;
	a->row = start - a->last_end < calm ? a->row + 1 : 0;
	a->last_end = end;
	const unsigned more = a->row > AT_ONCE ? a->row - AT_ONCE : 0;
	double gap = (end - start) * (more < share ? more : share);
	if (a->row > patience)
		gap += 0.01 * (a->row - patience);
	a->earliest = end + (gap < longest_gap ? gap : longest_gap);
}

static void run(struct flat_agent *a)
{
	struct flat_err e = { 0 };
	struct flat_status *status = a->status;
	const unsigned dirty = a->dirty;
	const int64_t told = status->source.event_ms;
	unsigned later = 0;

	a->dirty = 0;
	a->passing = true;
	const double start = now();
	int r = flat_reconcile_run(a->reconcile, dirty, &later, &e);
	const double end = now();
	a->passing = false;
	rest(a, dirty, start, end);
	if (a->overheard)
		want_pass(a, a->overheard, coalesce);
	a->overheard = 0;
	count_time(status, end - start);
	status->reconcile.last_ms = flat_now_ms();
	if (r >= 0 && told) {
		status->lag_seconds = (double)(flat_now_ms() - told) / 1000;
		if (status->lag_seconds > status->max_lag_seconds)
			status->max_lag_seconds = status->lag_seconds;
		status->source.event_ms = 0;
	}
	snprintf(status->reconcile.error, sizeof status->reconcile.error, "%s", e.msg);
	if (r < 0) {
		double pause = retry_min * (1 << (a->failures < 8 ? a->failures : 8));
		status->reconcile.failures++;
		if (!status->reconcile.failing_ms)
			status->reconcile.failing_ms = flat_now_ms();
		a->failures++;
		flat_remark(&a->no_pass, FLAT_LEVEL_ERROR,
			    "not everything is as it should be; it is tried again", e.msg);
		want_pass(a, FLAT_DIRTY_ALL, pause < retry_max ? pause : retry_max);
	} else {
		a->failures = 0;
		status->reconcile.failing_ms = 0;
		flat_remark_end(&a->no_pass, "everything is as it should be again");
	}
	if (later)
		want_pass(a, later, poll_every);
	publish(a);
	if (dirty & FLAT_DIRTY_NODES)
		want_save(a);
}

static void on_pass(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct flat_agent *a = w->data;
	const double t = now();
	(void)revents;
	if (t - a->last_event < lull && t - a->asked_at < burst) {
		ev_timer_set(w, lull, 0);
		ev_timer_start(loop, w);
		return;
	}
	run(a);
}

/* ---- the source --------------------------------------------------------------------------------
 */

static void heard(struct flat_agent *a, bool news)
{
	struct flat_status *status = a->status;
	status->source.heard_ms = flat_now_ms();
	status->source.events++;
	if (!news)
		return;
	if (!status->source.event_ms)
		status->source.event_ms = status->source.heard_ms;
	if (!a->list_open) /* half a list is not worth a pass */
		want_pass(a, FLAT_DIRTY_NODES, coalesce);
}

static void on_begin(void *arg)
{
	struct flat_agent *a = arg;
	a->list_open = true;
	a->status->source.lists++;
	flat_node_table_begin(flat_reconcile_nodes(a->reconcile));
}

static void on_node(void *arg, const struct flat_node *node, const char *fault)
{
	struct flat_agent *a = arg;
	int r = flat_node_table_hear(flat_reconcile_nodes(a->reconcile), node, fault);
	if (r == -ENOMEM)
		a->status->source.errors++;
	heard(a, r > 0);
}

static void on_gone(void *arg, const char *name)
{
	struct flat_agent *a = arg;
	heard(a, flat_node_table_gone(flat_reconcile_nodes(a->reconcile), name));
}

static void on_synced(void *arg)
{
	struct flat_agent *a = arg;
	flat_node_table_synced(flat_reconcile_nodes(a->reconcile));
	flat_reconcile_trust(a->reconcile);
	if (!a->status->source.synced)
		flat_say(FLAT_LEVEL_INFO, "the source has told all nodes", "source",
			 a->conf->source->name, NULL);
	a->status->source.synced = true;
	a->list_open = false;
	heard(a, true);
}

static void on_state(void *arg, bool connected, const char *why)
{
	struct flat_agent *a = arg;
	struct flat_status *status = a->status;
	status->source.connected = connected;
	snprintf(status->source.why, sizeof status->source.why, "%s", connected || !why ? "" : why);
	if (connected) {
		flat_remark_end(&a->no_source, "the source is there again");
		return;
	}
	status->source.errors++;
	flat_remark(&a->no_source, FLAT_LEVEL_WARN,
		    "the source is away; what is known stays in force", why ? why : "?");
}

/* ---- the kernel --------------------------------------------------------------------------------
 */

static void on_event(void *arg, const struct flat_event *event)
{
	struct flat_agent *a = arg;
	const unsigned dirty = flat_reconcile_notice(a->reconcile, event);
	if (!dirty)
		return;
	if (a->passing) {
		a->overheard |= dirty;
		return;
	}
	if (a->dirty)
		a->last_event = now();
	want_pass(a, dirty, coalesce);
}

static void close_monitor(struct flat_agent *a)
{
	for (size_t i = 0; i < a->event_count; i++)
		ev_io_stop(a->loop, &a->events[i]);
	a->event_count = 0;
	flat_monitor_close(a->monitor);
	a->monitor = NULL;
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct flat_agent *a = w->data;
	struct flat_err e = { 0 };
	(void)loop, (void)revents;
	if (flat_monitor_read(a->monitor, on_event, a, &e) >= 0)
		return;
	/* opened anew by the slow timer, or at once when that helps */
	flat_remark(&a->no_events, FLAT_LEVEL_ERROR, "the kernel's events cannot be read", e.msg);
	close_monitor(a);
	want_pass(a, FLAT_DIRTY_ALL & ~(unsigned)FLAT_DIRTY_NODES, coalesce);
}

/* In the midst of a pass. What cannot be read is the loop's to find out. */
static void hear(void *arg)
{
	struct flat_agent *a = arg;
	if (a->monitor)
		flat_monitor_read(a->monitor, on_event, a, NULL);
}

static void open_monitor(struct flat_agent *a)
{
	const unsigned kinds = 1u << FLAT_EVENT_LINK | 1u << FLAT_EVENT_ADDR |
			       1u << FLAT_EVENT_ROUTE | 1u << FLAT_EVENT_NEIGH;
	struct flat_err e = { 0 };
	int fds[2];
	if (a->monitor)
		return;
	int r = flat_monitor_open(kinds | 1u << FLAT_EVENT_RULES, &a->monitor, &e);
	if (r < 0) { /* a kernel without nf_tables, perhaps */
		e = (struct flat_err){ 0 };
		r = flat_monitor_open(kinds, &a->monitor, &e);
	}
	if (r < 0) {
		a->monitor = NULL;
		flat_remark(&a->no_events, FLAT_LEVEL_ERROR,
			    "the kernel's events cannot be heard: only the slow timer repairs",
			    e.msg);
		return;
	}
	flat_remark_end(&a->no_events, "the kernel's events are heard again");
	a->event_count = flat_monitor_fds(a->monitor, fds);
	for (size_t i = 0; i < a->event_count; i++) {
		ev_io_init(&a->events[i], on_readable, fds[i], EV_READ);
		a->events[i].data = a;
		ev_io_start(a->loop, &a->events[i]);
	}
}

/* ---- timers ------------------------------------------------------------------------------------
 */

static void on_slow(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct flat_agent *a = w->data;
	(void)loop, (void)revents;
	open_monitor(a);
	want_pass(a, FLAT_DIRTY_ALL & ~(unsigned)FLAT_DIRTY_NODES, coalesce);
}

static void on_poll(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct flat_agent *a = w->data;
	(void)loop, (void)revents;
	if (flat_reconcile_poll(a->reconcile))
		want_pass(a, FLAT_DIRTY_SYSCTLS, 0);
}

static void on_save(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop, (void)revents;
	save_now(w->data);
}

static void on_sweep(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct flat_agent *a = w->data;
	const struct flat_self *self = flat_reconcile_self(a->reconcile);
	struct flat_err e = { 0 };
	(void)revents;
	if (self)
		flat_sweep_set_cidrs(a->sweep, self->node.pod_cidrs, self->node.pod_cidr_count);
	if (flat_sweep_run(a->sweep, a->conf, a->sweep_net, a->status, &e) < 0)
		flat_remark(&a->no_sweep, FLAT_LEVEL_WARN, "leaked addresses cannot all be freed",
			    e.msg);
	else
		flat_remark_end(&a->no_sweep, "leaked addresses can be freed again");
	w->repeat = flat_sweep_pause(a->sweep, a->conf);
	ev_timer_again(loop, w);
}

static void start_timer(struct flat_agent *a, ev_timer *w, double every)
{
	w->data = a;
	w->repeat = every;
	if (every > 0)
		ev_timer_again(a->loop, w);
}

/* ---- beginning and end -------------------------------------------------------------------------
 */

static int fail_locked(int dir, struct flat_err *err)
{
	char *pid = NULL;
	int len = flat_state_read(dir, LOCK_NAME, 64, &pid, NULL);
	if (len > 0)
		pid[strcspn(pid, "\n")] = '\0';
	flat_fail(err, FLAT_CODE_IN_USE, EBUSY,
		  "another flatnetd is at work on this node (process %s)", len > 0 ? pid : "?");
	free(pid);
	return flat_detail(err, "stop it first; the lock is " FLAT_RUN_DIR "/" LOCK_NAME);
}

/* The kernel drops it with the process, however that ends. */
static int take_lock(struct flat_agent *a, struct flat_err *err)
{
	flat_auto_fd dir = -1;
	struct flat_err e = { 0 };
	char pid[24];
	int r = flat_state_open_dir(FLAT_RUN_DIR, true, &dir, err);
	if (r < 0)
		return r;
	r = flat_state_lock(dir, LOCK_NAME, LOCK_EX, 0, &a->lock_fd, &e);
	if (r == -ETIMEDOUT)
		return fail_locked(dir, err);
	if (r < 0) {
		*err = e;
		return r;
	}
	const int len = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
	flat_auto_fd fd = openat(dir, LOCK_NAME, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || write(fd, pid, (size_t)len) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, FLAT_RUN_DIR "/" LOCK_NAME);
	return 0;
}

static int start(struct flat_agent *a, struct flat_err *err)
{
	struct flat_err e = { 0 };
	int r = take_lock(a, err);
	if (r >= 0)
		r = flat_reconcile_open(a->conf, a->status, &a->reconcile, err);
	if (r >= 0 && a->conf->sweep)
		r = flat_sweep_open(&a->sweep, err);
	if (r >= 0 && a->conf->sweep)
		r = flat_net_open(&a->sweep_net, err);
	if (r < 0)
		return r;
	r = flat_reconcile_load(a->reconcile, &e);
	if (r > 0)
		flat_say(FLAT_LEVEL_INFO, "the last known state is in force", "path",
			 a->conf->state_file, NULL);
	else if (r < 0)
		flat_say_error(FLAT_LEVEL_WARN, "the last known state is of no use", &e);

	/* first the ear, then the eye: what happens in between is heard */
	open_monitor(a);
	flat_reconcile_set_ear(a->reconcile, hear, a);
	a->dirty = FLAT_DIRTY_ALL;
	run(a);
	a->listener = (struct flat_listener){
		.begin = on_begin,
		.node = on_node,
		.gone = on_gone,
		.synced = on_synced,
		.state = on_state,
		.arg = a,
	};
	a->status->source.type = a->conf->source->name;
	a->status->source.connected = a->status->source.synced = false;
	r = a->conf->source->open(a->loop, a->conf, &a->listener, &a->source, err);
	if (r < 0)
		return r;
	publish(a);
	start_timer(a, &a->slow, a->conf->resync);
	start_timer(a, &a->poll, poll_every);
	start_timer(a, &a->sweep_timer, a->conf->sweep);
	return 0;
}

int flat_agent_start(struct ev_loop *loop, const struct flat_agent_conf *conf,
		     struct flat_status *status, struct flat_agent **ret_agent,
		     struct flat_err *err)
{
	struct flat_agent *a = calloc(1, sizeof *a);
	if (!a)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "agent");
	a->loop = loop;
	a->conf = conf;
	a->status = status;
	a->lock_fd = -1;
	a->last_end = -calm;
	ev_timer_init(&a->pass, on_pass, 0, 0);
	ev_timer_init(&a->slow, on_slow, 0, 0);
	ev_timer_init(&a->poll, on_poll, 0, 0);
	ev_timer_init(&a->save, on_save, 0, 0);
	ev_timer_init(&a->sweep_timer, on_sweep, 0, 0);
	a->pass.data = a->save.data = a;
	int r = start(a, err);
	if (r < 0) {
		flat_agent_stop(a);
		return r;
	}
	*ret_agent = a;
	return 0;
}

void flat_agent_stop(struct flat_agent *a)
{
	if (!a)
		return;
	ev_timer *const timers[] = { &a->pass, &a->slow, &a->poll, &a->save, &a->sweep_timer };
	for (size_t i = 0; i < FLAT_LEN(timers); i++)
		ev_timer_stop(a->loop, timers[i]);
	if (a->source)
		a->conf->source->close(a->source);
	close_monitor(a);
	if (a->reconcile)
		save_now(a);
	flat_sweep_close(a->sweep);
	flat_net_close(a->sweep_net);
	flat_reconcile_close(a->reconcile);
	flat_close_fd(&a->lock_fd);
	free(a);
}
