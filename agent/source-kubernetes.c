// SPDX-License-Identifier: Apache-2.0
/*
 * List, then watch. The list comes in pages; its resourceVersion is where the watch begins, and
 * each event moves on from there, so that a watch that ends (they all do, after minutes) or breaks
 * is taken up again without a list. Only what the API server has forgotten meanwhile (410 Gone)
 * makes another list necessary, or an absence so long that its memory may be of another life
 * (restored from a backup).
 *
 *   list ──page──▶ list ... ──▶ watch ◀──┐ its time is over: at once
 *    ▲                            │ └────┘ it broke: after a pause
 *    └────────── 410 Gone ────────┘
 *
 * Only what lasts resets the pause: a server that takes every watch and ends it at once is asked
 * every half minute, not all the time.
 *
 * What this node tells (flannel's annotations, the condition NetworkUnavailable) is held against
 * what the API server says of this node, and patched where it differs.
 */
#include "http.h"
#include "kube-node.h"
#include "kubeconfig.h"
#include "source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	PATH_SIZE = 16 * 1024,
	MAX_RETRY_AFTER = 120,
	MAX_ABSENCE_MS = 5 * 60 * 1000, /* then list again */
};
#define LIST_IDLE     30. /* seconds without a byte of a list */
#define WATCH_SECONDS 600.
#define WATCH_MARGIN  30. /* the API server ends a watch itself, when it is alive */
/* Bookmarks come every minute, once there was one. */
#define BOOKMARK_IDLE 180.
#define LASTING_MS    5000 /* what lived as long was not in vain */
#define PATCH_TIMEOUT 15.

struct flat_source {
	struct ev_loop *loop;
	const struct flat_agent_conf *conf;
	const struct flat_listener *listener;
	struct flat_arena arena;
	struct flat_http *http;
	const char *url;

	struct flat_http_call *call; /* list or watch */
	struct flat_kube_reader *reader;
	struct flat_err broken; /* what arrived makes no sense */
	char version[64];	/* the watch goes on from here; "": list */
	char *next;		/* token of the next page; NULL: the first */
	bool synced, connected, lasting;
	int error_code; /* of an ERROR event: 0: none */
	char error[FLAT_KUBE_TEXT];
	int64_t since_ms;  /* begin of the watch */
	int64_t absent_ms; /* what is told is not current since; 0: it is */
	struct flat_backoff backoff;
	ev_timer retry, idle;

	/* what this node tells */
	bool published, own_heard;
	struct flat_self self;
	char own[FLAT_KUBE_ANNOTATIONS][FLAT_KUBE_TEXT]; /* as the API server has it */
	char wanted[FLAT_KUBE_ANNOTATIONS][FLAT_KUBE_TEXT];
	bool network_unavailable, patching_condition;
	struct flat_http_call *patch;
	struct flat_backoff patch_backoff;
	ev_timer patch_retry;
	struct flat_remark patch_remark;
};

static void start(struct flat_source *source);
static void upkeep(struct flat_source *source);

/* ---- what goes wrong ---- */

static void tell_failure(struct flat_source *source, const struct flat_err *err)
{
	char why[sizeof err->msg + sizeof err->details + 64];
	source->connected = false;
	if (!source->absent_ms)
		source->absent_ms = flat_now_ms();
	snprintf(why, sizeof why, "%s%s%s%s; it is tried again every half minute or sooner",
		 err->msg, err->details[0] ? " (" : "", err->details, err->details[0] ? ")" : "");
	source->listener->state(source->listener->arg, false, why);
}

static void schedule(struct flat_source *source, int retry_after)
{
	struct flat_backoff *backoff = &source->backoff;
	double pause = flat_backoff_next(backoff, backoff->tries ? 1. : .3, 30.);
	if (retry_after > MAX_RETRY_AFTER)
		retry_after = MAX_RETRY_AFTER;
	if (retry_after > 0) /* not all at the same moment */
		pause = retry_after + flat_backoff_next(&(struct flat_backoff){ 0 }, 1., 1.);
	ev_timer_stop(source->loop, &source->retry);
	ev_now_update(source->loop);
	ev_timer_set(&source->retry, pause, 0.);
	ev_timer_start(source->loop, &source->retry);
}

/* The answer of an API server that says no. */
static void fail_status(struct flat_source *source, const char *what, int status, const char *body,
			const char *right, struct flat_err *err)
{
	char message[FLAT_KUBE_TEXT];
	flat_kube_message(body, message, sizeof message);
	flat_fail(err, FLAT_CODE_IO, 0, "%s: API server %s says %d: %s", what, source->url, status,
		  message);
	if (status == 401)
		flat_detail(err, "the token or client certificate is not, or no longer, valid "
				 "there");
	else if (status == 403)
		flat_detail(err, "allow %s by a ClusterRole and a ClusterRoleBinding", right);
}

/* ---- list and watch ---- */

static void set_next(struct flat_source *source, const char *next)
{
	free(source->next);
	source->next = next && next[0] ? strdup(next) : NULL;
}

static void list_anew(struct flat_source *source)
{
	set_next(source, NULL);
	source->version[0] = '\0';
}

static void hear_self(struct flat_source *source, const struct flat_kube_object *object)
{
	memcpy(source->own, object->annotations, sizeof source->own);
	source->network_unavailable = object->network_unavailable;
	source->own_heard = true;
}

static void on_heard(void *arg, const struct flat_kube_object *object)
{
	struct flat_source *source = arg;
	const struct flat_listener *listener = source->listener;
	bool deleted = !strcmp(object->type, "DELETED");
	if (!strcmp(object->type, "ERROR")) {
		source->error_code = object->code ? object->code : -1;
		memcpy(source->error, object->message, sizeof source->error);
		return;
	}
	if (ev_is_active(&source->idle) || !strcmp(object->type, "BOOKMARK")) {
		source->idle.repeat = BOOKMARK_IDLE;
		ev_timer_again(source->loop, &source->idle);
	}
	bool known = !object->type[0] || deleted || !strcmp(object->type, "ADDED") ||
		     !strcmp(object->type, "MODIFIED");
	if (known && object->name[0]) {
		bool self = !strcmp(object->name, source->conf->node_name);
		if (deleted)
			listener->gone(listener->arg, object->name);
		else
			listener->node(listener->arg, &object->node,
				       object->fault[0] ? object->fault : NULL);
		if (self && !deleted)
			hear_self(source, object);
		else if (self)
			source->own_heard = false;
	}
	if (object->type[0] && object->version[0]) {
		memcpy(source->version, object->version, sizeof source->version);
		source->lasting = true;
	}
}

static bool on_data(void *arg, const char *data, size_t len)
{
	struct flat_source *source = arg;
	if (flat_kube_reader_feed(source->reader, data, len, &source->broken) < 0)
		return false;
	if (source->own_heard)
		upkeep(source);
	return !source->error_code;
}

static void on_watch_begun(void *arg)
{
	struct flat_source *source = arg;
	source->absent_ms = 0;
	if (source->connected)
		return;
	source->connected = true;
	source->listener->state(source->listener->arg, true, NULL);
}

/* Frees the reader; takes what was wrong with what it read before. */
static void close_reader(struct flat_source *source)
{
	flat_kube_reader_close(source->reader);
	source->reader = NULL;
	ev_timer_stop(source->loop, &source->idle);
}

static void on_list_done(void *arg, int status, const char *body, int retry_after,
			 const struct flat_err *http_err)
{
	struct flat_source *source = arg;
	struct flat_err err = source->broken;
	const char *next = NULL;
	source->call = NULL;
	if (!err.code && http_err)
		err = *http_err;
	if (!err.code && status == 200 && flat_kube_reader_end(source->reader, &err) >= 0) {
		next = flat_kube_reader_continue(source->reader);
		const char *version = flat_kube_reader_version(source->reader);
		if (!next || !version[0])
			flat_fail(&err, FLAT_CODE_DECODE, 0, "it is not a list of nodes");
		else if (!next[0])
			memcpy(source->version, version, sizeof source->version);
	}
	if (err.code)
		flat_wrap(&err, "list nodes");
	else if (status != 200)
		fail_status(source, "list nodes", status, body, "list and watch of nodes", &err);
	if (!err.code)
		set_next(source, next);
	bool whole = !err.code && next && !next[0];
	close_reader(source);
	if (status == 410 && source->next) { /* the token got too old: others were slower */
		list_anew(source);
		schedule(source, 0);
	} else if (err.code) {
		tell_failure(source, &err);
		schedule(source, retry_after);
	} else {
		if (whole) {
			source->synced = true;
			source->listener->synced(source->listener->arg);
			upkeep(source);
		}
		start(source);
	}
}

static void on_watch_done(void *arg, int status, const char *body, int retry_after,
			  const struct flat_err *http_err)
{
	struct flat_source *source = arg;
	struct flat_err err = source->broken;
	int64_t now = flat_now_ms();
	bool lasting = source->lasting || now - source->since_ms >= LASTING_MS;
	bool gone = status == 410 || source->error_code == 410;
	source->call = NULL;
	close_reader(source);
	if (lasting)
		source->backoff.tries = 0;
	if (!err.code && source->error_code) {
		fail_status(source, "watch nodes", source->error_code, source->error, "", &err);
	} else if (err.code || http_err) {
		if (!err.code)
			err = *http_err;
		flat_wrap(&err, "watch nodes");
	} else if (status != 200) {
		fail_status(source, "watch nodes", status, body, "list and watch of nodes", &err);
	}
	if (gone) {
		list_anew(source);
		schedule(source, 0);
		return;
	}
	if (err.code)
		tell_failure(source, &err);
	if (err.code && source->absent_ms && now - source->absent_ms > MAX_ABSENCE_MS)
		list_anew(source);
	if (err.code || !lasting)
		schedule(source, retry_after);
	else
		start(source);
}

/* A watch that went silent, though bookmarks had come. */
static void on_idle(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	struct flat_source *source = timer->data;
	struct flat_err err = { 0 };
	flat_fail(&err, FLAT_CODE_IO, ETIMEDOUT, "watch nodes: API server %s says nothing for %g s",
		  source->url, BOOKMARK_IDLE);
	flat_http_cancel(source->call);
	source->call = NULL;
	close_reader(source);
	tell_failure(source, &err);
	schedule(source, 0);
}

static void send_get(struct flat_source *source, const char *path, bool watch, double timeout)
{
	struct flat_err err = { 0 };
	struct flat_http_request request = {
		.method = "GET",
		.path = path,
		.timeout = timeout,
		.stream = true,
		.begun = watch ? on_watch_begun : NULL,
		.data = on_data,
		.done = watch ? on_watch_done : on_list_done,
		.arg = source,
	};
	source->broken = (struct flat_err){ 0 };
	source->error_code = 0;
	source->lasting = false;
	source->since_ms = flat_now_ms();
	if (flat_kube_reader_open(&source->conf->cluster, source->conf->node_name, on_heard, source,
				  &source->reader, &err) >= 0)
		source->call = flat_http_start(source->http, &request, &err);
	if (!source->call) {
		close_reader(source);
		tell_failure(source, &err);
		schedule(source, 0);
	}
}

static void start_list(struct flat_source *source)
{
	char path[PATH_SIZE], next[PATH_SIZE / 2 - 64] = "";
	if (!source->next)
		source->listener->begin(source->listener->arg);
	else if (!flat_http_escape(source->next, next, sizeof next))
		next[0] = '\0'; /* no token is so long */
	snprintf(path, sizeof path, "/api/v1/nodes?limit=%u%s%s", source->conf->kubernetes.page,
		 next[0] ? "&continue=" : "", next);
	send_get(source, path, false, LIST_IDLE);
}

static void start_watch(struct flat_source *source)
{
	char path[512], version[3 * sizeof source->version];
	/* half to all of it: watches that began together do not end together */
	double seconds =
		flat_backoff_next(&(struct flat_backoff){ 0 }, WATCH_SECONDS, WATCH_SECONDS);
	if (!flat_http_escape(source->version, version, sizeof version))
		version[0] = '\0';
	snprintf(path, sizeof path,
		 "/api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=%s"
		 "&timeoutSeconds=%u",
		 version, (unsigned)seconds);
	send_get(source, path, true, seconds + WATCH_MARGIN);
}

static void start(struct flat_source *source)
{
	if (source->version[0])
		start_watch(source);
	else
		start_list(source);
}

static void on_retry(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	start(timer->data);
}

/* ---- what this node tells ---- */

static void want(struct flat_source *source, int which, const char *text)
{
	snprintf(source->wanted[which], FLAT_KUBE_TEXT, "%s", text);
}

/* A person's word counts more than what we found. */
static void want_public_ip(struct flat_source *source, int family, int overwrite, int which)
{
	char text[FLAT_IP_TEXT];
	struct flat_ip ip;
	if (!flat_ip_parse(source->own[overwrite], &ip) || flat_family_index(ip.family) != family)
		ip = source->self.node.addresses[family];
	if (ip.family)
		want(source, which, flat_ip_text(&ip, text));
}

static void want_backend_data(struct flat_source *source, int family, int which)
{
	const struct flat_node *node = &source->self.node;
	char mac_text[FLAT_MAC_TEXT], text[FLAT_KUBE_TEXT];
	struct flat_mac mac =
		node->has_vtep[family] ? node->vtep[family] : flat_node_vtep_mac(node);
	snprintf(text, sizeof text, "{\"VNI\":%u,\"VtepMAC\":\"%s\"}", source->conf->cluster.vni,
		 flat_mac_text(&mac, mac_text));
	want(source, which, source->self.backend == FLAT_BACKEND_DIRECT ? "null" : text);
}

/* As flannel writes them. An annotation that is not wanted is "", and left alone. */
static void want_annotations(struct flat_source *source)
{
	memset(source->wanted, 0, sizeof source->wanted);
	want(source, FLAT_KUBE_MANAGED, "true");
	want(source, FLAT_KUBE_BACKEND_TYPE,
	     source->self.backend == FLAT_BACKEND_DIRECT ? "host-gw" : "vxlan");
	want_public_ip(source, FLAT_V4, FLAT_KUBE_OVERWRITE, FLAT_KUBE_PUBLIC_IP);
	want_public_ip(source, FLAT_V6, FLAT_KUBE_OVERWRITE_V6, FLAT_KUBE_PUBLIC_IPV6);
	if (source->wanted[FLAT_KUBE_PUBLIC_IP][0])
		want_backend_data(source, FLAT_V4, FLAT_KUBE_BACKEND_DATA);
	if (source->wanted[FLAT_KUBE_PUBLIC_IPV6][0])
		want_backend_data(source, FLAT_V6, FLAT_KUBE_BACKEND_V6_DATA);
}

/* {"metadata":{"annotations":{...}}} of those that differ; false: none does. Nothing in them needs
 * an escape but quotation marks. */
static bool print_annotations(struct flat_source *source, char *buf, size_t size)
{
	size_t used = (size_t)snprintf(buf, size, "{\"metadata\":{\"annotations\":{");
	bool any = false;
	for (int i = 0; i < FLAT_KUBE_ANNOTATIONS; i++) {
		if (!source->wanted[i][0] || !strcmp(source->wanted[i], source->own[i]))
			continue;
		used += (size_t)snprintf(buf + used, size - used, "%s\"%s%s\":\"", any ? "," : "",
					 FLAT_KUBE_PREFIX, flat_kube_annotation_names[i]);
		for (const char *c = source->wanted[i]; *c; c++) {
			if (*c == '"')
				buf[used++] = '\\';
			buf[used++] = *c;
		}
		buf[used++] = '"';
		any = true;
	}
	snprintf(buf + used, size - used, "}}}");
	return any;
}

static void print_condition(char *buf, size_t size)
{
	char now[32];
	time_t t = time(NULL);
	struct tm tm;
	strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
	snprintf(buf, size,
		 "{\"status\":{\"conditions\":[{\"type\":\"NetworkUnavailable\","
		 "\"status\":\"False\",\"reason\":\"FlatnetIsUp\","
		 "\"message\":\"flatnet is running on this node\","
		 "\"lastTransitionTime\":\"%s\",\"lastHeartbeatTime\":\"%s\"}]}}",
		 now, now);
}

static void schedule_upkeep(struct flat_source *source, double pause)
{
	ev_timer_stop(source->loop, &source->patch_retry);
	ev_timer_set(&source->patch_retry, pause, 0.);
	ev_timer_start(source->loop, &source->patch_retry);
}

static void on_patch_done(void *arg, int status, const char *body, int retry_after,
			  const struct flat_err *http_err)
{
	struct flat_source *source = arg;
	struct flat_err err = { 0 };
	source->patch = NULL;
	if (http_err)
		err = *http_err;
	else if (status / 100 != 2)
		fail_status(source, "patch this node", status, body, "patch of nodes/status", &err);
	if (err.code) {
		double pause = flat_backoff_next(&source->patch_backoff, 1., 30.);
		char why[sizeof err.msg + sizeof err.details + 8];
		snprintf(why, sizeof why, "%s%s%s%s", err.msg, err.details[0] ? " (" : "",
			 err.details, err.details[0] ? ")" : "");
		flat_remark(&source->patch_remark, FLAT_LEVEL_WARN,
			    "this node cannot tell the others about itself", why);
		if (retry_after > MAX_RETRY_AFTER)
			retry_after = MAX_RETRY_AFTER;
		schedule_upkeep(source, retry_after > pause ? retry_after : pause);
		return;
	}
	source->patch_backoff.tries = 0;
	flat_remark_end(&source->patch_remark, "this node can tell the others about itself again");
	/* The watch will say so too; until then, do not do it again. */
	if (source->patching_condition)
		source->network_unavailable = false;
	for (int i = 0; !source->patching_condition && i < FLAT_KUBE_ANNOTATIONS; i++) {
		if (source->wanted[i][0])
			memcpy(source->own[i], source->wanted[i], FLAT_KUBE_TEXT);
	}
	schedule_upkeep(source, 1.); /* no war with another that writes them */
}

/* Patches one thing that differs, if any. nodes/status: the one right that flannel has, too. */
static void upkeep(struct flat_source *source)
{
	char body[FLAT_KUBE_ANNOTATIONS * (2 * FLAT_KUBE_TEXT + 80)], path[1024];
	char name[3 * FLAT_NODE_NAME_MAX + 1];
	if (!source->published || !source->own_heard || source->patch ||
	    ev_is_active(&source->patch_retry))
		return;
	source->patching_condition = false;
	bool differs = false;
	if (source->conf->cluster.flannel) {
		want_annotations(source);
		differs = print_annotations(source, body, sizeof body);
	}
	if (!differs && source->conf->kubernetes.set_network_available &&
	    source->network_unavailable) {
		print_condition(body, sizeof body);
		source->patching_condition = differs = true;
	}
	if (!differs || !flat_http_escape(source->conf->node_name, name, sizeof name))
		return;
	snprintf(path, sizeof path, "/api/v1/nodes/%s/status", name);
	struct flat_http_request request = {
		.method = "PATCH",
		.path = path,
		.body = body,
		/* merge patch knows no list of conditions by type */
		.type = source->patching_condition ? "application/strategic-merge-patch+json"
						   : "application/merge-patch+json",
		.timeout = PATCH_TIMEOUT,
		.done = on_patch_done,
		.arg = source,
	};
	source->patch = flat_http_start(source->http, &request, NULL);
	if (!source->patch)
		schedule_upkeep(source, 1.);
}

static void on_patch_retry(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	upkeep(timer->data);
}

static void kubernetes_publish(struct flat_source *source, const struct flat_self *self)
{
	source->self = *self;
	source->self.node.name = source->conf->node_name;
	source->published = true;
	upkeep(source);
}

/* ---- the source ---- */

static void kubernetes_close(struct flat_source *source)
{
	if (!source)
		return;
	flat_http_close(source->http);
	flat_kube_reader_close(source->reader);
	ev_timer_stop(source->loop, &source->retry);
	ev_timer_stop(source->loop, &source->idle);
	ev_timer_stop(source->loop, &source->patch_retry);
	free(source->next);
	flat_arena_free(&source->arena);
	free(source);
}

static int open_http(struct flat_source *source, struct flat_err *err)
{
	const struct flat_agent_conf *conf = source->conf;
	struct flat_http_target target;
	int r;
	if (conf->kubernetes.kubeconfig)
		r = flat_kubeconfig_read(conf->kubernetes.kubeconfig, conf->kubernetes.context,
					 &source->arena, &target, err);
	else
		r = flat_kubeconfig_in_cluster(conf->kubernetes.server,
					       conf->kubernetes.service_account, &source->arena,
					       &target, err);
	if (r < 0)
		return r;
	source->url = target.urls[0];
	return flat_http_open(source->loop, &target, &source->http, err);
}

static int kubernetes_open(struct ev_loop *loop, const struct flat_agent_conf *conf,
			   const struct flat_listener *listener, struct flat_source **ret_source,
			   struct flat_err *err)
{
	struct flat_source *source = calloc(1, sizeof *source);
	if (!source)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "open source kubernetes");
	source->loop = loop;
	source->conf = conf;
	source->listener = listener;
	ev_timer_init(&source->retry, on_retry, 0., 0.);
	ev_init(&source->idle, on_idle);
	ev_init(&source->patch_retry, on_patch_retry);
	source->retry.data = source->idle.data = source->patch_retry.data = source;
	int r = open_http(source, err);
	if (r < 0) {
		kubernetes_close(source);
		return r;
	}
	ev_timer_start(loop, &source->retry); /* no word before this returns */
	*ret_source = source;
	return 0;
}

const struct flat_source_type flat_source_kubernetes = {
	.name = "kubernetes",
	.open = kubernetes_open,
	.publish = kubernetes_publish,
	.close = kubernetes_close,
};
