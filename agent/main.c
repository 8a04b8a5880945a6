// SPDX-License-Identifier: Apache-2.0
/*
 * flatnetd: reads flags, configuration and environment, runs the agent in one loop, and does what
 * signals ask for. See flatnetd(8).
 */
#include "agent.h"
#include "httpd.h"
#include "notify.h"
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGE = 64 << 10 }; /* bytes */

/* Exit statuses, as flatnetd(8) lists them. */
enum {
	EXIT_FAILED = 1, /* it may work the next time */
	EXIT_CONFIG = 2, /* flags or configuration are wrong */
	EXIT_OTHER = 3,	 /* another agent runs on this node */
};

static const double httpd_retry_seconds = 10;

struct daemon {
	struct ev_loop *loop;
	struct flat_agent_flags flags;
	struct flat_agent_env env;
	struct flat_agent_conf *conf; /* in use */
	struct flat_agent *agent;
	struct flat_status status;
	struct flat_httpd *httpd;
	struct flat_notify notify;
	bool told_ready;
	uint64_t told_status; /* hash of the last STATUS= */
	ev_signal term, interrupt, hangup;
	ev_prepare between; /* before the loop sleeps */
	ev_timer watchdog, httpd_retry;
	struct flat_remark no_httpd;
	int exit_status;
};

/* ---- before the loop ---------------------------------------------------------------------------
 */

static void print_error(const char *what, const struct flat_err *err)
{
	fprintf(stderr, "flatnetd: %s%s\n", what, err->msg);
	if (err->details[0])
		fprintf(stderr, "flatnetd: cure: %s\n", err->details);
}

/* A descriptor that somebody closed before the start would become a socket, and the log would be
 * written into it. */
static void fill_standard_fds(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)!open("/dev/null", (fd ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
}

static int load(const struct daemon *d, struct flat_agent_conf **ret_conf, struct flat_err *err)
{
	struct flat_agent_conf *conf = calloc(1, sizeof *conf);
	if (!conf)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "configuration");
	int r = flat_agent_conf_load(&d->flags, &d->env, conf, err);
	if (r < 0) {
		flat_agent_conf_free(conf);
		free(conf);
		return r;
	}
	*ret_conf = conf;
	return 0;
}

static void unload(struct flat_agent_conf **conf)
{
	if (*conf)
		flat_agent_conf_free(*conf);
	free(*conf);
	*conf = NULL;
}

static const char *backend_name(const struct flat_agent_conf *conf)
{
	static const char *const names[] = { [FLAT_BACKEND_AUTO] = "auto",
					     [FLAT_BACKEND_DIRECT] = "direct",
					     [FLAT_BACKEND_VXLAN] = "vxlan" };
	return names[conf->cluster.backend];
}

static int print_check(const struct flat_agent_conf *conf)
{
	char text[FLAT_PREFIX_TEXT];
	printf("configuration is right: node %s, source %s, backend %s, clusterCIDR",
	       conf->node_name, conf->source->name, backend_name(conf));
	for (size_t i = 0; i < conf->cluster.cidr_count; i++)
		printf("%s%s", i ? "," : " ", flat_prefix_text(&conf->cluster.cidrs[i], text));
	printf("\n");
	return fflush(stdout) ? EXIT_FAILED : EXIT_SUCCESS;
}

static int print_help(void)
{
	printf("usage: flatnetd [--config FILE] [flags]\n\nThe node agent of flatnet: it learns the "
	       "other nodes and keeps the way to their pods.\n\n%s\nSee flatnetd(8).\n",
	       flat_agent_flags_help());
	return fflush(stdout) ? EXIT_FAILED : EXIT_SUCCESS;
}

/* ---- health and metrics ------------------------------------------------------------------------
 */

/* Pods do not need it: a port that is taken costs the metrics, not the network. */
static void open_httpd(struct daemon *d)
{
	const struct flat_agent_conf *conf = d->conf;
	struct flat_err err = { 0 };
	if (!conf->http.address.family)
		return;
	if (flat_httpd_open(d->loop, &conf->http.address, conf->http.port, &d->status, &d->httpd,
			    &err) >= 0) {
		flat_remark_end(&d->no_httpd, "health and metrics are served again");
		return;
	}
	flat_remark(&d->no_httpd, FLAT_LEVEL_ERROR, "health and metrics are not served", err.msg);
	ev_timer_set(&d->httpd_retry, httpd_retry_seconds, 0);
	ev_timer_start(d->loop, &d->httpd_retry);
}

static void close_httpd(struct daemon *d)
{
	ev_timer_stop(d->loop, &d->httpd_retry);
	flat_httpd_close(d->httpd);
	d->httpd = NULL;
}

static void on_httpd_retry(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop, (void)events;
	open_httpd(timer->data);
}

/* ---- the service manager -----------------------------------------------------------------------
 */

static void tell_status(struct daemon *d)
{
	const struct flat_status *s = &d->status;
	char text[2 * FLAT_STATUS_WHY + 64];
	if (s->reconcile.error[0])
		snprintf(text, sizeof text, "failing: %s", s->reconcile.error);
	else if (!s->ready)
		snprintf(text, sizeof text, "not ready: %s", s->why_not_ready);
	else if (!s->source.connected && s->source.why[0])
		snprintf(text, sizeof text, "%zu nodes as last known: %s", s->nodes.accepted,
			 s->source.why);
	else
		snprintf(text, sizeof text, "%zu nodes, %zu direct, %zu by vxlan",
			 s->nodes.accepted, s->nodes.direct, s->nodes.tunnelled);
	const uint64_t hash = flat_hash(1, text, strlen(text));
	if (hash != d->told_status)
		flat_notify_status(&d->notify, text);
	d->told_status = hash;
}

static void on_between(struct ev_loop *loop, ev_prepare *prepare, int events)
{
	struct daemon *d = prepare->data;
	(void)loop, (void)events;
	if (d->notify.fd < 0)
		return;
	if (!d->told_ready && d->status.reconcile.runs && !d->status.reconcile.error[0]) {
		flat_notify_ready(&d->notify);
		d->told_ready = true;
	}
	tell_status(d);
}

static void on_watchdog(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct daemon *d = timer->data;
	(void)loop, (void)events;
	flat_notify_watchdog(&d->notify);
}

/* Half of what the manager waits; 0: it does not watch us. */
static double watchdog_seconds(const char *usec_text, const char *pid_text)
{
	uint64_t usec, pid;
	if (!usec_text || !flat_uint_parse(usec_text, UINT64_C(1) << 52, &usec) || !usec)
		return 0;
	if (pid_text && (!flat_uint_parse(pid_text, INT32_MAX, &pid) || pid != (uint64_t)getpid()))
		return 0;
	return (double)usec / 2e6;
}

/* ---- signals -----------------------------------------------------------------------------------
 */

static void on_stop(struct ev_loop *loop, ev_signal *signal, int events)
{
	struct daemon *d = signal->data;
	(void)events;
	flat_notify_stopping(&d->notify);
	flat_say(FLAT_LEVEL_INFO, "stopping; links, routes and rules stay", "signal",
		 signal->signum == SIGINT ? "SIGINT" : "SIGTERM", NULL);
	ev_break(loop, EVBREAK_ALL);
}

static int start(struct daemon *d, struct flat_agent_conf *conf, struct flat_err *err)
{
	flat_log_setup(conf->log_level, conf->log_format);
	int r = flat_agent_start(d->loop, conf, &d->status, &d->agent, err);
	if (r < 0)
		return r;
	d->conf = conf;
	flat_say(FLAT_LEVEL_INFO, "running", "version", FLAT_VERSION, "node", conf->node_name,
		 "source", conf->source->name, "backend", backend_name(conf), NULL);
	return 0;
}

static bool same_httpd(const struct flat_agent_conf *a, const struct flat_agent_conf *b)
{
	return flat_ip_equal(&a->http.address, &b->http.address) && a->http.port == b->http.port;
}

/* The new configuration is checked whole before the old agent stops. */
static void on_reload(struct ev_loop *loop, ev_signal *signal, int events)
{
	struct daemon *d = signal->data;
	struct flat_agent_conf *old = d->conf, *fresh = NULL;
	struct flat_err err = { 0 };
	(void)events;
	flat_notify_reloading(&d->notify);
	d->told_ready = false; /* on_between() tells the end of it */
	if (load(d, &fresh, &err) < 0 || !fresh) {
		flat_say_error(FLAT_LEVEL_ERROR, "not reloaded; the old configuration stays", &err);
		flat_notify_ready(&d->notify);
		d->told_ready = true;
		return;
	}
	flat_agent_stop(d->agent);
	d->agent = NULL;
	if (start(d, fresh, &err) < 0) {
		flat_say_error(FLAT_LEVEL_ERROR,
			       "the new configuration does not start; back to the old one", &err);
		unload(&fresh);
		err = (struct flat_err){ 0 };
		if (start(d, old, &err) < 0) {
			flat_say_error(FLAT_LEVEL_ERROR, "nor does the old one", &err);
			d->exit_status = EXIT_FAILED;
			ev_break(loop, EVBREAK_ALL);
		}
		return;
	}
	if (!same_httpd(old, fresh)) {
		close_httpd(d);
		d->no_httpd = (struct flat_remark){ 0 };
		open_httpd(d);
	}
	unload(&old);
}

/* ---- all together ------------------------------------------------------------------------------
 */

static void watch_signal(struct daemon *d, ev_signal *watcher, int number,
			 void (*fn)(struct ev_loop *, ev_signal *, int))
{
	ev_signal_init(watcher, fn, number);
	watcher->data = d;
	ev_signal_start(d->loop, watcher);
}

static int run(struct daemon *d, double watchdog)
{
	struct flat_err err = { 0 };
	/* no LIBEV_FLAGS from the environment */
	d->loop = ev_default_loop(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (!d->loop) {
		fprintf(stderr, "flatnetd: no event loop: %s\n", strerror(errno));
		return EXIT_FAILED;
	}
	d->status.started_ms = flat_now_ms();
	struct flat_agent_conf *conf = d->conf;
	d->conf = NULL;
	if (!conf || start(d, conf, &err) < 0) {
		flat_say_error(FLAT_LEVEL_ERROR, "cannot start", &err);
		unload(&conf);
		return err.code == FLAT_CODE_IN_USE   ? EXIT_OTHER
		       : err.code == FLAT_CODE_CONFIG ? EXIT_CONFIG
						      : EXIT_FAILED;
	}
	watch_signal(d, &d->term, SIGTERM, on_stop);
	watch_signal(d, &d->interrupt, SIGINT, on_stop);
	watch_signal(d, &d->hangup, SIGHUP, on_reload);
	ev_prepare_init(&d->between, on_between);
	d->between.data = d;
	ev_prepare_start(d->loop, &d->between);
	ev_timer_init(&d->watchdog, on_watchdog, 0, watchdog);
	d->watchdog.data = d;
	if (watchdog > 0 && d->notify.fd >= 0)
		ev_timer_start(d->loop, &d->watchdog);
	ev_init(&d->httpd_retry, on_httpd_retry);
	d->httpd_retry.data = d;
	open_httpd(d);

	ev_run(d->loop, 0);

	close_httpd(d);
	flat_agent_stop(d->agent);
	unload(&d->conf);
	return d->exit_status;
}

int main(int argc, char **argv)
{
	static struct daemon d = { .notify = { .fd = -1 } };
	static char host_name[FLAT_NODE_NAME_MAX + 3];
	struct flat_err err = { 0 };

	/* What is as large as the cluster comes and goes with each pass, and is to go back to the
	 * system: by itself glibc learns to keep it. */
	mallopt(M_MMAP_THRESHOLD, LARGE);
	fill_standard_fds();
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	if (flat_agent_flags_parse(argc, argv, &d.flags, &err) < 0) {
		print_error("", &err);
		return EXIT_CONFIG;
	}
	if (d.flags.help)
		return print_help();
	if (d.flags.version) {
		printf("flatnetd %s\n", FLAT_VERSION);
		return fflush(stdout) ? EXIT_FAILED : EXIT_SUCCESS;
	}
	gethostname(host_name, sizeof host_name - 1);
	d.env = (struct flat_agent_env){
		.node_name = getenv("NODE_NAME"),
		.host_name = host_name,
		.service_host = getenv("KUBERNETES_SERVICE_HOST"),
		.service_port = getenv("KUBERNETES_SERVICE_PORT"),
	};
	if (load(&d, &d.conf, &err) < 0 || !d.conf) {
		print_error("", &err);
		return EXIT_CONFIG;
	}
	if (d.flags.check) {
		const int status = print_check(d.conf);
		unload(&d.conf);
		return status;
	}
	if (flat_notify_open(getenv("NOTIFY_SOCKET"), &d.notify, &err) < 0)
		print_error("", &err); /* the manager will miss us, the nodes need not */
	const int status =
		run(&d, watchdog_seconds(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID")));
	flat_notify_close(&d.notify);
	return status;
}
