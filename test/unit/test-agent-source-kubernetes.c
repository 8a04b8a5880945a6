// SPDX-License-Identifier: Apache-2.0
/*
 * The source against an API server that says what the test wants, in the order it wants: for what
 * a real one (test/kubernetes/source.sh) says only now and then.
 */
#include "../../agent/source.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_STEPS = 12 };

/* What the server was asked, shared with its process. */
struct seen {
	int count, next[2]; /* next: step of a GET, and of a PATCH */
	struct {
		char request[2048]; /* its first line, and its body */
		int64_t ms;
	} at[MAX_STEPS + 1];
};
static struct seen *seen;
static char dir[] = "/tmp/flat-source-XXXXXX";

struct step {
	int status; /* 200 with a body that ends; 0: a body that goes on */
	const char *headers, *body;
	bool patch; /* the answer to a PATCH: these have an order of their own */
};

static const struct step *next_step(const struct step *steps, int count, bool patch)
{
	int n = __atomic_fetch_add(&seen->next[patch], 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < count; i++) {
		if (steps[i].patch == patch && !n--)
			return &steps[i];
	}
	return NULL;
}

static void answer(int fd, const struct step *step)
{
	char head[512];
	int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\n%sTransfer-Encoding: chunked\r\n\r\n",
			 step->status ? step->status : 200, step->headers ? step->headers : "");
	if (write(fd, head, (size_t)n) != n)
		_exit(0);
	if (step->body[0]) {
		n = snprintf(head, sizeof head, "%zx\r\n", strlen(step->body));
		if (write(fd, head, (size_t)n) != n ||
		    write(fd, step->body, strlen(step->body)) != (ssize_t)strlen(step->body) ||
		    write(fd, "\r\n", 2) != 2)
			_exit(0);
	}
	if (step->status && write(fd, "0\r\n\r\n", 5) != 5)
		_exit(0);
}

static _Noreturn void serve(int listener, const struct step *steps, int count)
{
	static char buf[8192];
	signal(SIGALRM, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	alarm(60);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fork()) {
			close(fd);
			continue;
		}
		alarm(30);
		for (;;) {
			ssize_t n = read(fd, buf, sizeof buf - 1);
			if (n <= 0)
				_exit(0);
			buf[n] = '\0';
			int i = __atomic_fetch_add(&seen->count, 1, __ATOMIC_SEQ_CST);
			if (i > MAX_STEPS)
				_exit(0);
			const char *body = strstr(buf, "\r\n\r\n");
			snprintf(seen->at[i].request, sizeof seen->at[i].request, "%.*s %s",
				 (int)strcspn(buf, "\r"), buf, body ? body + 4 : "");
			seen->at[i].ms = flat_now_ms();
			const struct step *step =
				next_step(steps, count, !strncmp(buf, "PATCH ", 6));
			if (step)
				answer(fd, step);
		}
	}
}

/* ---- the listener ---- */

struct heard {
	char text[4096];
	size_t len;
};

__attribute__((format(printf, 2, 3))) static void note(struct heard *heard, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(heard->text + heard->len, sizeof heard->text - heard->len, fmt, ap);
	va_end(ap);
	if (n > 0 && heard->len + (size_t)n < sizeof heard->text)
		heard->len += (size_t)n;
}

static void on_begin(void *arg)
{
	note(arg, "begin ");
}

static void on_node(void *arg, const struct flat_node *node, const char *fault)
{
	note(arg, "%s%s ", node->name, fault ? "!" : "");
}

static void on_gone(void *arg, const char *name)
{
	note(arg, "-%s ", name);
}

static void on_synced(void *arg)
{
	note(arg, "synced ");
}

static void on_state(void *arg, bool connected, const char *why)
{
	note(arg, connected ? "up " : "down(%s) ", why);
}

static void on_enough(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)events;
	const int *wanted = timer->data;
	if (__atomic_load_n(&seen->count, __ATOMIC_SEQ_CST) >= *wanted)
		ev_break(loop, EVBREAK_ALL);
}

static void on_too_long(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)timer;
	(void)events;
	ev_break(loop, EVBREAK_ALL);
}

/* Runs the source until the server has been asked wanted times, and a little longer. */
static void run(const struct step *steps, int count, int wanted, bool publish, struct heard *heard)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(listener, (void *)&address, len), 0);
	assert_int_equal(getsockname(listener, (void *)&address, &len), 0);
	assert_int_equal(listen(listener, 16), 0);
	memset(seen, 0, sizeof *seen);
	pid_t pid = fork();
	if (!pid) {
		setpgid(0, 0);
		serve(listener, steps, count);
	}
	setpgid(pid, pid);
	close(listener);

	char url[64];
	snprintf(url, sizeof url, "http://127.0.0.1:%u", ntohs(address.sin_port));
	struct flat_agent_conf conf = { .node_name = "self",
					.kubernetes = { .page = 2,
							.server = url,
							.service_account = dir,
							.set_network_available = publish },
					.cluster = { .vni = 1, .flannel = publish } };
	const struct flat_listener calls = {
		on_begin, on_node, on_gone, on_synced, on_state, heard
	};
	*heard = (struct heard){ 0 };
	struct ev_loop *loop = ev_loop_new(0);
	struct flat_source *source;
	struct flat_err err = { 0 };
	if (flat_source_kubernetes.open(loop, &conf, &calls, &source, &err) < 0)
		fail_msg("%s", err.msg);
	if (publish) {
		struct flat_self self = { .backend = FLAT_BACKEND_VXLAN,
					  .node = { .pod_cidr_count = 1 } };
		flat_prefix_parse("10.244.1.0/24", &self.node.pod_cidrs[0]);
		flat_ip_parse("192.0.2.1", &self.node.addresses[FLAT_V4]);
		flat_source_kubernetes.publish(source, &self);
	}
	ev_timer look, limit;
	ev_timer_init(&look, on_enough, 0.01, 0.01);
	ev_timer_init(&limit, on_too_long, 10., 0.);
	look.data = &wanted;
	ev_timer_start(loop, &look);
	ev_timer_start(loop, &limit);
	ev_run(loop, 0);
	ev_timer_stop(loop, &limit);
	ev_timer_stop(loop, &look);
	ev_timer_init(&limit, on_too_long, 0.2, 0.);
	ev_timer_start(loop, &limit);
	ev_run(loop, 0);
	flat_source_kubernetes.close(source);
	ev_loop_destroy(loop);
	kill(-pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

#define RUN(steps, wanted, heard) run(steps, sizeof(steps) / sizeof *(steps), wanted, false, heard)
#define LIST(version, next, items)                                                                 \
	"{\"kind\":\"NodeList\",\"metadata\":{\"resourceVersion\":\"" version                      \
	"\",\"continue\":\"" next "\"},\"items\":[" items "]}"
#define NODE(name) "{\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"1\"}}"
#define EVENT(type, name, version)                                                                 \
	"{\"type\":\"" type "\",\"object\":{\"metadata\":{\"name\":\"" name                        \
	"\",\"resourceVersion\":\"" version "\"}}}\n"
#define GONE                                                                                       \
	"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"message\":\"too old\"}}\n"

static void asked(int i, const char *prefix)
{
	if (strncmp(seen->at[i].request, prefix, strlen(prefix)) != 0)
		fail_msg("request %d is '%s', not '%s'", i, seen->at[i].request, prefix);
}

/* The token of the next page gets too old. */
static void test_gone_while_paging(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ 200, NULL, LIST("5", "a/b", NODE("n1") "," NODE("n2")) },
		{ 410, NULL, "{\"kind\":\"Status\",\"message\":\"expired\",\"code\":410}" },
		{ 200, NULL, LIST("7", "c", NODE("n1") "," NODE("n3")) },
		{ 200, NULL, LIST("7", "", NODE("n4")) },
		{ 0, NULL, "" },
	};
	struct heard heard;
	RUN(steps, 5, &heard);
	assert_string_equal(heard.text, "begin n1 n2 begin n1 n3 n4 synced up ");
	asked(0, "GET /api/v1/nodes?limit=2 ");
	asked(1, "GET /api/v1/nodes?limit=2&continue=a%2Fb ");
	asked(2, "GET /api/v1/nodes?limit=2 ");
	asked(3, "GET /api/v1/nodes?limit=2&continue=c ");
	asked(4, "GET /api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=7&"
		 "timeoutSeconds=");
}

/* A watch whose time is over is taken up where the last event was. */
static void test_watch_goes_on(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ 200, NULL, LIST("5", "", NODE("n1")) },
		{ 200, NULL, EVENT("ADDED", "n2", "8") EVENT("DELETED", "n1", "9") },
		{ 200, NULL, EVENT("BOOKMARK", "", "12") },
		{ 0, NULL, EVENT("MODIFIED", "n2", "13") EVENT("NEW-KIND", "n9", "14") },
	};
	struct heard heard;
	RUN(steps, 4, &heard);
	assert_string_equal(heard.text, "begin n1 synced up n2 -n1 n2 ");
	asked(2, "GET /api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=9&");
	asked(3, "GET /api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=12&");
	unsigned seconds = (unsigned)atoi(strstr(seen->at[3].request, "timeoutSeconds=") + 15);
	assert_in_range(seconds, 300, 600);
}

/* Gone, again and again: each list comes later. */
static void test_gone_does_not_hammer(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ 200, NULL, LIST("5", "", NODE("n1")) }, { 0, NULL, GONE },
		{ 200, NULL, LIST("6", "", NODE("n1")) }, { 410, NULL, "{}" },
		{ 200, NULL, LIST("7", "", NODE("n2")) }, { 0, NULL, "" },
	};
	struct heard heard;
	RUN(steps, 6, &heard);
	assert_string_equal(heard.text, "begin n1 synced up begin n1 synced begin n2 synced ");
	assert_in_range(seen->at[2].ms - seen->at[1].ms, 100, 1000);
	assert_in_range(seen->at[4].ms - seen->at[3].ms, 900, 3000);
}

/* Too many requests: as the server says. A page is not asked for twice that was there. */
static void test_retry_after(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ 200, NULL, LIST("5", "x", NODE("n1")) },
		{ 429, "Retry-After: 1\r\n", "{\"message\":\"slow down\"}" },
		{ 200, NULL, LIST("5", "", NODE("n2")) },
		{ 0, NULL, "" },
	};
	struct heard heard;
	RUN(steps, 4, &heard);
	assert_non_null(
		strstr(heard.text, "begin n1 down(list nodes: API server http://127.0.0.1:"));
	assert_non_null(strstr(heard.text, " says 429: slow down; it is tried again"));
	assert_non_null(strstr(heard.text, ") n2 synced up "));
	assert_in_range(seen->at[2].ms - seen->at[1].ms, 1400, 3500);
	asked(2, "GET /api/v1/nodes?limit=2&continue=x ");
}

/* What is no list is not taken for an empty one. */
static void test_nonsense(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ 200, NULL, "{}" },
		{ 200, NULL, "<html>login</html>" },
		{ 200, NULL, LIST("5", "", NODE("n1")) },
		{ 0, NULL, EVENT("ADDED", "n2", "6") "}{" },
		{ 0, NULL, "" },
	};
	struct heard heard;
	RUN(steps, 5, &heard);
	assert_non_null(strstr(heard.text, "begin down(list nodes: it is not a list of nodes; "));
	assert_non_null(strstr(heard.text, "begin down(list nodes: read JSON: lexical error"));
	assert_non_null(strstr(heard.text, "synced up n2 down(watch nodes: read JSON: "));
	asked(4, "GET /api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=6&");
}

static void test_publishes(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ 200, NULL, LIST("5", "", NODE("self")) },
		{ 0, NULL, "" },
		{ 500, NULL, "{\"message\":\"not now\"}", true },
		{ 200, NULL, "{}", true },
		{ 200, NULL, "{}", true },
	};
	struct heard heard;
	run(steps, 5, 5, true, &heard);
	int patches[3], count = 0;
	for (int i = 0; i < 5; i++) {
		if (!strncmp(seen->at[i].request, "PATCH ", 6) && count < 3)
			patches[count++] = i;
	}
	assert_int_equal(count, 3);
	for (int i = 0; i < 2; i++)
		assert_string_equal(
			seen->at[patches[i]].request,
			"PATCH /api/v1/nodes/self/status HTTP/1.1 {\"metadata\":{\"annotations\":{"
			"\"flannel.alpha.coreos.com/kube-subnet-manager\":\"true\","
			"\"flannel.alpha.coreos.com/backend-type\":\"vxlan\","
			"\"flannel.alpha.coreos.com/backend-data\":"
			"\"{\\\"VNI\\\":1,\\\"VtepMAC\\\":\\\"0a:58:0a:f4:01:00\\\"}\","
			"\"flannel.alpha.coreos.com/public-ip\":\"192.0.2.1\"}}}");
	assert_non_null(strstr(seen->at[patches[2]].request,
			       "{\"status\":{\"conditions\":[{\"type\":\"NetworkUnavailable\","
			       "\"status\":\"False\",\"reason\":\"FlatnetIsUp\""));
}

static int prepare(void **state)
{
	(void)state;
	seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char path[128];
	if (seen == MAP_FAILED || !mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/token", dir);
	FILE *file = fopen(path, "w");
	return !file || fputs("token\n", file) < 0 || fclose(file) ? -1 : 0;
}

static int clean(void **state)
{
	(void)state;
	char path[128];
	snprintf(path, sizeof path, "%s/token", dir);
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gone_while_paging),
		cmocka_unit_test(test_watch_goes_on),
		cmocka_unit_test(test_gone_does_not_hammer),
		cmocka_unit_test(test_retry_after),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_publishes),
	};
	return cmocka_run_group_tests(tests, prepare, clean);
}
