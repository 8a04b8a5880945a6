// SPDX-License-Identifier: Apache-2.0
/*
 * A watch is a call whose answer has no end: one message to a line. One that etcd cancels leaves
 * the connection open: it is for us to close it.
 */
#include "etcd-ask.h"
#include "etcd-call.h"

#include <flatnet/cni.h>

#include <errno.h>
#include <string.h>

enum { CREATE_SECONDS = 10 }; /* until its first word */

static void watch_canceled(struct flat_etcd_call *call, const struct flat_etcd_reply *reply)
{
	struct flat_etcd_failure failure = { .trouble = FLAT_ETCD_UNREACHABLE };
	if (reply->compact_revision) {
		failure.trouble = FLAT_ETCD_COMPACTED;
		flat_fail(&failure.err, FLAT_CODE_IO, 0,
			  "%s: what came before revision %lld is forgotten there",
			  flat_etcd_call_url(call), (long long)reply->compact_revision);
	} else {
		flat_fail(&failure.err, FLAT_CODE_IO, 0, "%s: the watch was canceled: %s",
			  flat_etcd_call_url(call),
			  reply->cancel_reason ? reply->cancel_reason : "no reason given");
		/* The reason is text without a code. It may well be the token: the next call
		 * finds out with another one. */
		if (call->etcd->token_number == call->token)
			call->etcd->token_number = 0;
		if (!call->etcd->conf->etcd.user)
			flat_detail(&failure.err, "if etcd asks for a user, set etcd.user and "
						  "etcd.passwordFile");
	}
	flat_etcd_call_fail(call, &failure);
}

/* One message of a watch. False: the call is gone. */
static bool watch_line(struct flat_etcd_call *call, const char *line, size_t len)
{
	struct flat_etcd *etcd = call->etcd;
	struct flat_arena arena = { 0 };
	struct flat_etcd_reply reply = { 0 };
	struct flat_err err = { 0 };
	bool alive = true;
	int r = flat_etcd_reply_read(line, len, &arena, &reply, &err);
	if (r < 0) {
		flat_etcd_call_nonsense(call, &err);
		alive = false;
	} else if (r > 0) {
		flat_etcd_call_refused(call, 200, &reply);
		alive = false;
	} else if (reply.canceled) {
		watch_canceled(call, &reply);
		alive = false;
	} else {
		struct flat_etcd_watcher watcher = call->watcher;
		ev_timer_stop(etcd->loop, &call->first_word);
		if (reply.created)
			watcher.created(watcher.arg, &reply.answer);
		else
			watcher.events(watcher.arg, &reply.answer);
		alive = etcd->watch == call;
	}
	flat_arena_free(&arena);
	return alive;
}

bool flat_etcd_watch_data(void *arg, const char *data, size_t len)
{
	struct flat_etcd_call *call = arg;
	while (len) {
		const char *end = memchr(data, '\n', len);
		size_t piece = end ? (size_t)(end - data) + 1 : len;
		if (!flat_etcd_text_add(&call->in, data, piece)) {
			struct flat_err err = { 0 };
			flat_fail(&err, FLAT_CODE_IO, EFBIG, "a message of the watch");
			flat_etcd_call_nonsense(call, &err);
			return true; /* it is cancelled, and called no more */
		}
		data += piece;
		len -= piece;
		if (!end)
			return true;
		/* The line is the callback's while it may end the call. */
		struct flat_etcd_text line = call->in;
		call->in = (struct flat_etcd_text){ 0 };
		bool alive = line.len == 1 || watch_line(call, line.data, line.len);
		if (alive && line.size <= 16384) { /* most are short: the memory serves again */
			line.len = 0;
			call->in = line;
		} else {
			flat_etcd_text_free(&line);
		}
		if (!alive)
			return true;
	}
	return true;
}

void flat_etcd_watch_done(void *arg, int status, const char *body, int retry_after,
			  const struct flat_err *http_err)
{
	struct flat_etcd_call *call = arg;
	struct flat_arena arena = { 0 };
	struct flat_etcd_reply reply = { 0 };
	struct flat_err err = { 0 };
	(void)retry_after;
	call->http = NULL;
	if (http_err) {
		flat_etcd_call_unreachable(call, http_err);
	} else if (status / 100 != 2) {
		int r = body ? flat_etcd_reply_read(body, strlen(body), &arena, &reply, &err) : -1;
		flat_etcd_call_refused(call, status, r > 0 ? &reply : NULL);
	} else {
		flat_fail(&err, FLAT_CODE_IO, 0, "the watch on %s was closed",
			  flat_etcd_call_url(call));
		flat_etcd_call_unreachable(call, &err);
	}
	flat_arena_free(&arena);
}

static void no_first_word(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct flat_etcd_call *call = timer->data;
	struct flat_err err = { 0 };
	(void)loop;
	(void)revents;
	flat_fail(&err, FLAT_CODE_IO, ETIMEDOUT, "start a watch on %s", flat_etcd_call_url(call));
	flat_etcd_call_unreachable(call, &err);
}

int flat_etcd_watch(struct flat_etcd *etcd, const char *prefix, int64_t revision,
		    const struct flat_etcd_watcher *watcher, struct flat_err *err)
{
	flat_etcd_unwatch(etcd);
	struct flat_etcd_call *call =
		flat_etcd_call_new(etcd, "/v3/watch", flat_etcd_ask_watch(prefix, revision));
	if (!call)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "talk to etcd");
	call->watch = true;
	call->watcher = *watcher;
	ev_timer_init(&call->first_word, no_first_word, CREATE_SECONDS, 0.);
	call->first_word.data = call;
	ev_timer_start(etcd->loop, &call->first_word);
	etcd->watch = call;
	int r = flat_etcd_call_send(call, err);
	if (r < 0)
		flat_etcd_call_free(call);
	return r;
}

void flat_etcd_unwatch(struct flat_etcd *etcd)
{
	if (etcd->watch)
		flat_etcd_call_free(etcd->watch);
}
