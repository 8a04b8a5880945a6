// SPDX-License-Identifier: Apache-2.0
/*
 * libmicrohttpd without threads: it has one epoll descriptor, which the loop watches, and says when
 * it wants to be called at the latest.
 *
 * A connection is for one request and lives for some seconds, whatever its other end does: the
 * library's own time-out begins anew with every byte.
 */
#include "httpd.h"

#include <errno.h>
#include <math.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	CONNECTIONS = 16,
	CONNECTION_MEMORY = 16 << 10, /* request line and headers must fit, more is 431 */
	IDLE_SECONDS = 5,
	LIFE_SECONDS = 10,
	WATCH_SECONDS = 5,	    /* between two looks at connections */
	FAILING_MS = 5 * 60 * 1000, /* so long a failing reconcile may be somebody else's fault */
};

struct flat_httpd {
	struct ev_loop *loop;
	const struct flat_status *status;
	struct MHD_Daemon *daemon;
	ev_io readable;
	ev_timer due, watch;
	bool ended; /* a connection, in this run */
	struct {
		int fd; /* 0: free */
		int64_t since;
	} connections[CONNECTIONS];
};

/* ---- metrics -----------------------------------------------------------------------------------
 */

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* label NULL: none. */
static void sample(FILE *out, const char *name, const char *label, const char *label_value,
		   double value)
{
	fputs(name, out);
	if (label) {
		fprintf(out, "{%s=\"", label);
		for (const char *c = label_value; *c; c++) {
			if (*c == '\n')
				fputs("\\n", out);
			else
				fprintf(out, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
		}
		fputs("\"}", out);
	}
	if (isnan(value))
		fputs(" NaN\n", out);
	else
		fprintf(out, " %.15g\n", value);
}

static void one(FILE *out, const char *name, const char *type, const char *help, double value)
{
	family(out, name, type, help);
	sample(out, name, NULL, NULL, value);
}

/* Seconds since then; NaN: it has not been yet. */
static double age(int64_t now, int64_t then)
{
	return then ? (double)(now - then) / 1000 : NAN;
}

static void print_source(FILE *out, const struct flat_status *s, int64_t now)
{
	const char *type = s->source.type ? s->source.type : "";
	family(out, "flatnet_source_connected", "gauge",
	       "Whether what the source of nodes tells is current.");
	sample(out, "flatnet_source_connected", "source", type, s->source.connected);
	one(out, "flatnet_source_synced", "gauge",
	    "Whether the source has told its whole list once.", s->source.synced);
	one(out, "flatnet_source_heard_age_seconds", "gauge",
	    "Time since the source said anything; NaN: never.", age(now, s->source.heard_ms));
	one(out, "flatnet_source_pending_seconds", "gauge",
	    "Age of the oldest event that is not in the kernel yet; 0: none.",
	    s->source.event_ms ? age(now, s->source.event_ms) : 0);
	one(out, "flatnet_source_events_total", "counter", "Events of the source.",
	    (double)s->source.events);
	one(out, "flatnet_source_errors_total", "counter",
	    "Failed requests and lost connections of the source.", (double)s->source.errors);
	one(out, "flatnet_source_lists_total", "counter", "Whole lists of the source.",
	    (double)s->source.lists);
	one(out, "flatnet_source_lag_seconds", "gauge",
	    "Time from the last event of the source to the kernel.", s->lag_seconds);
	one(out, "flatnet_source_lag_max_seconds", "gauge", "The greatest of these so far.",
	    s->max_lag_seconds);
}

static void print_nodes(FILE *out, const struct flat_status *s)
{
	one(out, "flatnet_nodes_known", "gauge", "Nodes that the source told, this one included.",
	    (double)s->nodes.known);
	family(out, "flatnet_nodes", "gauge",
	       "Other nodes by what became of them; the log says why one waits or is refused.");
	sample(out, "flatnet_nodes", "state", "accepted", (double)s->nodes.accepted);
	sample(out, "flatnet_nodes", "state", "waiting", (double)s->nodes.waiting);
	sample(out, "flatnet_nodes", "state", "refused", (double)s->nodes.refused);
	family(out, "flatnet_peers", "gauge", "Nodes whose pods are reached, by the way to them.");
	sample(out, "flatnet_peers", "path", "direct", (double)s->nodes.direct);
	sample(out, "flatnet_peers", "path", "vxlan", (double)s->nodes.tunnelled);
	family(out, "flatnet_wanted_entries", "gauge",
	       "Entries that the kernel's tables should have.");
	sample(out, "flatnet_wanted_entries", "kind", "route", (double)s->wanted.routes);
	sample(out, "flatnet_wanted_entries", "kind", "neighbour", (double)s->wanted.neighs);
	sample(out, "flatnet_wanted_entries", "kind", "fdb", (double)s->wanted.fdb);
}

static void print_reconcile(FILE *out, const struct flat_status *s, int64_t now)
{
	static const char *const bounds[] = { "0.001", "0.005", "0.01", "0.05", "0.1",
					      "0.5",   "1",	"5",	"+Inf" };
	_Static_assert(FLAT_LEN(bounds) == FLAT_LEN(s->reconcile.bucket), "a bound for each");
	uint64_t sum = 0;
	family(out, "flatnet_reconcile_duration_seconds", "histogram",
	       "How long it took to hold the kernel against what is wanted, and to correct it.");
	for (size_t i = 0; i < FLAT_LEN(bounds); i++) {
		sum += s->reconcile.bucket[i];
		sample(out, "flatnet_reconcile_duration_seconds_bucket", "le", bounds[i],
		       (double)sum);
	}
	sample(out, "flatnet_reconcile_duration_seconds_sum", NULL, NULL, s->reconcile.seconds);
	sample(out, "flatnet_reconcile_duration_seconds_count", NULL, NULL, (double)sum);
	one(out, "flatnet_reconcile_runs_total", "counter", "Reconcile runs.",
	    (double)s->reconcile.runs);
	one(out, "flatnet_reconcile_failures_total", "counter",
	    "Reconcile runs that did not reach their end.", (double)s->reconcile.failures);
	one(out, "flatnet_reconcile_failing", "gauge", "Whether the last run failed.",
	    s->reconcile.error[0] != '\0');
	one(out, "flatnet_reconcile_age_seconds", "gauge", "Time since the last run; NaN: never.",
	    age(now, s->reconcile.last_ms));
	one(out, "flatnet_reconcile_last_duration_seconds", "gauge", "How long the last run took.",
	    s->reconcile.last_seconds);
	one(out, "flatnet_reconcile_max_duration_seconds", "gauge",
	    "How long the longest run took.", s->reconcile.max_seconds);
	family(out, "flatnet_repairs_total", "counter",
	       "What was not as it should be, and was corrected, without a change by the source.");
	for (size_t i = 0; i < FLAT_LEN(s->repairs); i++)
		sample(out, "flatnet_repairs_total", "kind", flat_upkeep_names[i],
		       (double)s->repairs[i]);
}

static void print_ipam(FILE *out, const struct flat_status *s)
{
	family(out, "flatnet_ipam_addresses", "gauge",
	       "Addresses in the ranges of this node's network; none: not known.");
	for (size_t i = 0; i < s->ipam_count; i++)
		if (s->ipam[i].size)
			sample(out, "flatnet_ipam_addresses", "network", s->ipam[i].network,
			       (double)s->ipam[i].size);
	family(out, "flatnet_ipam_used_addresses", "gauge", "Addresses that are reserved.");
	for (size_t i = 0; i < s->ipam_count; i++)
		sample(out, "flatnet_ipam_used_addresses", "network", s->ipam[i].network,
		       (double)s->ipam[i].used);
	family(out, "flatnet_ipam_free_addresses", "gauge", "Addresses that are free.");
	for (size_t i = 0; i < s->ipam_count; i++)
		if (s->ipam[i].size)
			sample(out, "flatnet_ipam_free_addresses", "network", s->ipam[i].network,
			       s->ipam[i].size > s->ipam[i].used
				       ? (double)(s->ipam[i].size - s->ipam[i].used)
				       : 0);
	family(out, "flatnet_ipam_healed_total", "counter",
	       "Addresses that were reserved for nobody, and came back.");
	for (size_t i = 0; i < s->ipam_count; i++)
		sample(out, "flatnet_ipam_healed_total", "network", s->ipam[i].network,
		       (double)s->ipam[i].healed);
}

static void print_kernel(FILE *out, const struct flat_status *s)
{
	static const char *const families[FLAT_FAMILIES] = {
		[FLAT_V4] = "ipv4", [FLAT_V6] = "ipv6"
	};
	one(out, "flatnet_conntrack_insert_failed_total", "counter",
	    "Connections that the kernel could not track: their packet was dropped.",
	    (double)s->conntrack_insert_failed);
	one(out, "flatnet_conntrack_entries", "gauge", "Connections that the kernel tracks.",
	    (double)s->conntrack_count);
	one(out, "flatnet_conntrack_entries_limit", "gauge",
	    "So many it can track; 0: there is no connection tracking.", (double)s->conntrack_max);
	family(out, "flatnet_neighbour_entries", "gauge",
	       "Entries of the kernel's neighbour table that count against its limit.");
	for (size_t i = 0; i < FLAT_FAMILIES; i++)
		sample(out, "flatnet_neighbour_entries", "family", families[i], s->neigh[i].count);
	family(out, "flatnet_neighbour_entries_limit", "gauge",
	       "So many it may have (gc_thresh3); beyond, connections fail.");
	for (size_t i = 0; i < FLAT_FAMILIES; i++)
		sample(out, "flatnet_neighbour_entries_limit", "family", families[i],
		       s->neigh[i].limit);
}

static void print_metrics(FILE *out, const struct flat_status *s)
{
	const int64_t now = flat_now_ms();
	family(out, "flatnet_build_info", "gauge", "Always 1; the label has the version.");
	sample(out, "flatnet_build_info", "version", FLAT_VERSION, 1);
	one(out, "flatnet_uptime_seconds", "gauge", "Time since the start.",
	    age(now, s->started_ms));
	one(out, "flatnet_ready", "gauge", "Whether pods of this node can be given addresses.",
	    s->ready);
	print_source(out, s, now);
	print_nodes(out, s);
	print_reconcile(out, s, now);
	print_ipam(out, s);
	print_kernel(out, s);
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static unsigned print_health(const struct flat_httpd *httpd, FILE *out)
{
	const struct flat_status *s = httpd->status;
	const int64_t now = flat_now_ms();
	const int64_t since = s->reconcile.runs ? s->reconcile.failing_ms : s->started_ms;
	if (!since || now - since <= FAILING_MS) {
		fputs("ok\n", out);
		return MHD_HTTP_OK;
	}
	fprintf(out, "reconcile has been failing for %lld s: %s\n", (long long)(now - since) / 1000,
		s->reconcile.error[0] ? s->reconcile.error : "it has not run");
	return MHD_HTTP_SERVICE_UNAVAILABLE;
}

static unsigned print_readiness(const struct flat_httpd *httpd, FILE *out)
{
	const struct flat_status *s = httpd->status;
	if (s->ready) {
		fputs("ok\n", out);
		return MHD_HTTP_OK;
	}
	fprintf(out, "%s\n", s->why_not_ready[0] ? s->why_not_ready : "starting");
	return MHD_HTTP_SERVICE_UNAVAILABLE;
}

static unsigned print_answer(const struct flat_httpd *httpd, const char *method, const char *path,
			     FILE *out)
{
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
		fputs("only GET and HEAD\n", out);
		return MHD_HTTP_METHOD_NOT_ALLOWED;
	}
	if (!strcmp(path, "/healthz"))
		return print_health(httpd, out);
	if (!strcmp(path, "/readyz"))
		return print_readiness(httpd, out);
	if (!strcmp(path, "/metrics")) {
		print_metrics(out, httpd->status);
		return MHD_HTTP_OK;
	}
	fputs("there are /healthz, /readyz and /metrics\n", out);
	return MHD_HTTP_NOT_FOUND;
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **state)
{
	char *text = NULL;
	size_t len = 0;
	(void)version, (void)upload, (void)upload_size, (void)state;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return MHD_NO;
	const unsigned status = print_answer(arg, method, url, out);
	if (fclose(out)) { /* no memory: the connection ends */
		free(text);
		return MHD_NO;
	}
	struct MHD_Response *response =
		MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
				status == MHD_HTTP_OK && !strcmp(url, "/metrics")
					? "text/plain; version=0.0.4; charset=utf-8"
					: "text/plain; charset=utf-8");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	const enum MHD_Result r = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return r;
}

/* ---- in the loop -------------------------------------------------------------------------------
 */

static void run(struct flat_httpd *httpd)
{
	MHD_UNSIGNED_LONG_LONG ms;
	/* at its limit the library stops listening, and begins again at the start of a run after
	 * one in which a connection ended: nothing would wake us for that one */
	do {
		httpd->ended = false;
		MHD_run(httpd->daemon);
	} while (httpd->ended);
	ev_timer_stop(httpd->loop, &httpd->due);
	if (MHD_get_timeout(httpd->daemon, &ms) != MHD_YES)
		return;
	ev_timer_set(&httpd->due, (double)ms / 1000, 0);
	ev_timer_start(httpd->loop, &httpd->due);
}

static void on_readable(struct ev_loop *loop, ev_io *io, int events)
{
	(void)loop, (void)events;
	run(io->data);
}

static void on_due(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop, (void)events;
	run(timer->data);
}

static void on_watch(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct flat_httpd *httpd = timer->data;
	const int64_t now = flat_now_ms();
	(void)loop, (void)events;
	for (size_t i = 0; i < CONNECTIONS; i++) /* the library sees its end, and closes it */
		if (httpd->connections[i].fd &&
		    now - httpd->connections[i].since > LIFE_SECONDS * 1000)
			shutdown(httpd->connections[i].fd, SHUT_RDWR);
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **state,
			  enum MHD_ConnectionNotificationCode what)
{
	struct flat_httpd *httpd = arg;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	const bool started = what == MHD_CONNECTION_NOTIFY_STARTED;
	const int wanted = started ? 0 : info ? info->connect_fd : -1;
	(void)state;
	httpd->ended |= !started;
	for (size_t i = 0; info && i < CONNECTIONS; i++) {
		if (httpd->connections[i].fd != wanted)
			continue;
		httpd->connections[i].fd = started ? info->connect_fd : 0;
		httpd->connections[i].since = flat_now_ms();
		return;
	}
}

static int listen_on(const struct flat_ip *address, uint16_t port, int *ret_fd,
		     struct flat_err *err)
{
	const int on = 1;
	char text[FLAT_IP_TEXT];
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	const bool ipv6 = address->family == AF_INET6;
	memcpy(&v4.sin_addr, address->bytes, sizeof v4.sin_addr);
	memcpy(&v6.sin6_addr, address->bytes, sizeof v6.sin6_addr);
	flat_auto_fd fd = socket(address->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    (ipv6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) ||
	    bind(fd, ipv6 ? (const struct sockaddr *)&v6 : (const struct sockaddr *)&v4,
		 ipv6 ? sizeof v6 : sizeof v4) < 0 ||
	    listen(fd, CONNECTIONS) < 0) {
		flat_fail(err, FLAT_CODE_IO, errno, "listen on %s%s%s:%u", ipv6 ? "[" : "",
			  flat_ip_text(address, text), ipv6 ? "]" : "", port);
		return flat_detail(err, "set http.address to one that is free, or \"off\"");
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int flat_httpd_open(struct ev_loop *loop, const struct flat_ip *address, uint16_t port,
		    const struct flat_status *status, struct flat_httpd **ret_httpd,
		    struct flat_err *err)
{
	int fd = -1;
	int r = listen_on(address, port, &fd, err);
	if (r < 0)
		return r;
	struct flat_httpd *httpd = calloc(1, sizeof *httpd);
	if (!httpd) {
		close(fd);
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "web server");
	}
	httpd->loop = loop;
	httpd->status = status;
	httpd->daemon =
		MHD_start_daemon(MHD_USE_EPOLL | (address->family == AF_INET6 ? MHD_USE_IPv6 : 0),
				 0, NULL, NULL, answer, httpd, MHD_OPTION_LISTEN_SOCKET, fd,
				 MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
				 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
				 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
				 MHD_OPTION_NOTIFY_CONNECTION, on_connection, httpd,
				 MHD_OPTION_END);
	if (!httpd->daemon) {
		close(fd);
		free(httpd);
		return flat_fail(err, FLAT_CODE_IO, 0, "start the web server");
	}
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(httpd->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	ev_init(&httpd->due, on_due);
	ev_timer_init(&httpd->watch, on_watch, 0, WATCH_SECONDS);
	httpd->due.data = httpd->watch.data = httpd->readable.data = httpd;
	if (!info) {
		flat_httpd_close(httpd);
		return flat_fail(err, FLAT_CODE_IO, 0,
				 "the web server has no descriptor to wait for");
	}
	ev_io_init(&httpd->readable, on_readable, info->epoll_fd, EV_READ);
	httpd->readable.data = httpd;
	ev_io_start(loop, &httpd->readable);
	ev_timer_start(loop, &httpd->watch);
	*ret_httpd = httpd;
	return 0;
}

void flat_httpd_close(struct flat_httpd *httpd)
{
	if (!httpd)
		return;
	ev_io_stop(httpd->loop, &httpd->readable);
	ev_timer_stop(httpd->loop, &httpd->due);
	ev_timer_stop(httpd->loop, &httpd->watch);
	MHD_stop_daemon(httpd->daemon);
	free(httpd);
}
