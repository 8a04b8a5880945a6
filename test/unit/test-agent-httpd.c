// SPDX-License-Identifier: Apache-2.0
/* agent: the web server, really asked over loopback, in one loop with who asks. */
#include "../../agent/httpd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ctype.h>
#include <errno.h>
#include <flatnet/cni.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct ev_loop *loop;
static struct flat_httpd *httpd;
static struct flat_status status;
static uint16_t port;
static char answer[256 << 10];

static void on_tick(struct ev_loop *l, ev_timer *timer, int events)
{
	(void)l, (void)timer, (void)events;
}

/* Lets the server work for a moment. */
static void turn(double seconds)
{
	ev_timer timer;
	ev_timer_init(&timer, on_tick, seconds, 0);
	ev_timer_start(loop, &timer);
	ev_run(loop, EVRUN_ONCE);
	ev_timer_stop(loop, &timer);
}

/* flags: SOCK_NONBLOCK, where the server may not take it */
static int dial(int flags)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		assert_true(flags && errno == EINPROGRESS);
	return fd;
}

/* The whole answer to what is sent, up to the end of the connection. */
static const char *ask(const char *request)
{
	const int fd = dial(0);
	size_t len = 0;
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	const int64_t until = flat_now_ms() + 5000;
	for (;;) {
		assert_true(flat_now_ms() < until);
		const ssize_t n = recv(fd, answer + len, sizeof answer - len - 1, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			break;
		if (n > 0)
			len += (size_t)n;
		else
			turn(0.01);
	}
	close(fd);
	answer[len] = '\0';
	return answer;
}

static const char *body(void)
{
	const char *end = strstr(answer, "\r\n\r\n");
	assert_non_null(end);
	return end + 4;
}

static void get(const char *path)
{
	char request[256];
	snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	ask(request);
}

static bool answered(const char *code)
{
	return !strncmp(answer, "HTTP/1.1 ", 9) && !strncmp(answer + 9, code, 3);
}

/* ---- Prometheus' text format, as strictly as its documentation has it --------------------------
 */

struct family {
	char name[96], type[16];
	bool sampled;
};
static struct family families[128];
static size_t family_count;

static size_t name_length(const char *c)
{
	size_t n = 0;
	while (isalpha((unsigned char)c[n]) || c[n] == '_' || (n && isdigit((unsigned char)c[n])))
		n++;
	return n;
}

/* Of which family is the sample? A histogram's have endings. */
static bool is_of(const struct family *f, const char *name, size_t len)
{
	static const char *const ends[] = { "_bucket", "_sum", "_count" };
	const size_t own = strlen(f->name);
	if (strncmp(name, f->name, own) != 0)
		return false;
	if (strcmp(f->type, "histogram") != 0)
		return len == own;
	for (size_t i = 0; i < FLAT_LEN(ends); i++)
		if (len == own + strlen(ends[i]) && !strncmp(name + own, ends[i], strlen(ends[i])))
			return true;
	return false;
}

static void check_labels(const char **at)
{
	const char *c = *at;
	assert_int_equal(*c++, '{');
	for (;;) {
		const size_t n = name_length(c);
		assert_true(n > 0);
		c += n;
		assert_int_equal(*c++, '=');
		assert_int_equal(*c++, '"');
		for (; *c != '"'; c++) {
			assert_true(*c && *c != '\n');
			if (*c == '\\') {
				c++;
				assert_true(*c == '\\' || *c == '"' || *c == 'n');
			}
		}
		c++;
		if (*c != ',')
			break;
		c++;
	}
	assert_int_equal(*c++, '}');
	*at = c;
}

static void check_line(const char *line, char (*seen)[192], size_t *seen_count)
{
	struct family *f = family_count ? &families[family_count - 1] : NULL;
	if (!strncmp(line, "# HELP ", 7)) {
		const size_t n = name_length(line + 7);
		assert_true(n > 0 && n < sizeof f->name && line[7 + n] == ' ' && line[8 + n]);
		assert_true(family_count < FLAT_LEN(families));
		f = &families[family_count];
		*f = (struct family){ 0 };
		memcpy(f->name, line + 7, n);
		for (size_t i = 0; i < family_count; i++) /* each family is one block */
			assert_string_not_equal(families[i].name, f->name);
		family_count++;
		return;
	}
	assert_non_null(f);
	if (!strncmp(line, "# TYPE ", 7)) {
		const size_t n = name_length(line + 7);
		assert_true(n == strlen(f->name) && !strncmp(line + 7, f->name, n));
		assert_int_equal(line[7 + n], ' ');
		assert_true(!f->type[0] && !f->sampled);
		snprintf(f->type, sizeof f->type, "%.15s", line + 8 + n);
		assert_true(!strcmp(f->type, "gauge") || !strcmp(f->type, "counter") ||
			    !strcmp(f->type, "histogram"));
		/* by convention: counters, and only they, count up */
		const bool total = n > 6 && !strcmp(f->name + n - 6, "_total");
		assert_int_equal(total, !strcmp(f->type, "counter"));
		return;
	}
	assert_int_not_equal(line[0], '#');
	const size_t n = name_length(line);
	assert_true(n > 0 && f->type[0] && is_of(f, line, n));
	f->sampled = true;
	const char *c = line + n;
	if (*c == '{')
		check_labels(&c);
	assert_int_equal(*c, ' ');
	/* no two samples of one name and labels */
	assert_true(*seen_count < 256 && (size_t)(c - line) < sizeof seen[0]);
	snprintf(seen[*seen_count], sizeof seen[0], "%.*s", (int)(c - line), line);
	for (size_t i = 0; i < *seen_count; i++)
		assert_string_not_equal(seen[i], seen[*seen_count]);
	(*seen_count)++;
	char *end = NULL;
	const double value = strtod(c + 1, &end);
	assert_true(end && !*end && end > c + 1 && !isspace((unsigned char)c[1]));
	assert_true(isnan(value) || value >= 0);
}

static void check_format(void)
{
	static char seen[256][192];
	size_t seen_count = 0;
	const char *text = body();
	family_count = 0;
	assert_true(*text && text[strlen(text) - 1] == '\n');
	while (*text) {
		char line[1024];
		const size_t n = strcspn(text, "\n");
		assert_in_range(n, 1, sizeof line - 1);
		assert_true(flat_utf8_char(text, n) > 0);
		memcpy(line, text, n);
		line[n] = '\0';
		check_line(line, seen, &seen_count);
		text += n + 1;
	}
}

static void assert_says(const char *line)
{
	char whole[256];
	snprintf(whole, sizeof whole, "\n%s\n", line);
	if (!strstr(answer, whole))
		fail_msg("no line \"%s\" in:\n%s", line, answer);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_every_metric(void **state)
{
	(void)state;
	status = (struct flat_status){ .started_ms = flat_now_ms() - 61000 };
	get("/metrics");
	assert_true(answered("200"));
	assert_non_null(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8"));
	check_format();
	assert_says("flatnet_ready 0");
	assert_says("flatnet_reconcile_age_seconds NaN");
	assert_says("flatnet_source_heard_age_seconds NaN");
	assert_says("flatnet_source_pending_seconds 0");

	status = (struct flat_status){
		.started_ms = flat_now_ms() - 61000,
		.source = { .type = "etcd",
			    .connected = true,
			    .synced = true,
			    .heard_ms = flat_now_ms() - 2000,
			    .event_ms = flat_now_ms() - 3000,
			    .events = 11,
			    .errors = 12,
			    .lists = 13 },
		.nodes = { 21, 22, 23, 24, 25, 26 },
		.wanted = { 31, 32, 33 },
		.reconcile = { .runs = 41,
			       .failures = 42,
			       .seconds = 4.5,
			       .last_seconds = 0.25,
			       .max_seconds = 1.5,
			       .bucket = { 1, 2, 3, 4, 5, 6, 7, 8, 9 },
			       .last_ms = flat_now_ms() - 4000,
			       .error = "e" },
		.lag_seconds = 0.125,
		.max_lag_seconds = 0.5,
		.ipam = { { "a\"b\\c\nd", 254, 4, 5 }, { "unknown", 0, 6, 7 } },
		.ipam_count = 2,
		.conntrack_insert_failed = 51,
		.conntrack_count = 52,
		.conntrack_max = 53,
		.neigh = { { 61, 62 }, { 63, 64 } },
		.ready = true,
	};
	for (size_t i = 0; i < FLAT_LEN(status.repairs); i++)
		status.repairs[i] = 100 + i;
	get("/metrics");
	check_format();
	static const char *const lines[] = {
		"flatnet_build_info{version=\"" FLAT_VERSION "\"} 1",
		"flatnet_ready 1",
		"flatnet_source_connected{source=\"etcd\"} 1",
		"flatnet_source_synced 1",
		"flatnet_source_events_total 11",
		"flatnet_source_errors_total 12",
		"flatnet_source_lists_total 13",
		"flatnet_source_lag_seconds 0.125",
		"flatnet_source_lag_max_seconds 0.5",
		"flatnet_nodes_known 21",
		"flatnet_nodes{state=\"accepted\"} 22",
		"flatnet_nodes{state=\"waiting\"} 23",
		"flatnet_nodes{state=\"refused\"} 24",
		"flatnet_peers{path=\"direct\"} 25",
		"flatnet_peers{path=\"vxlan\"} 26",
		"flatnet_wanted_entries{kind=\"route\"} 31",
		"flatnet_wanted_entries{kind=\"neighbour\"} 32",
		"flatnet_wanted_entries{kind=\"fdb\"} 33",
		"flatnet_reconcile_duration_seconds_bucket{le=\"0.001\"} 1",
		"flatnet_reconcile_duration_seconds_bucket{le=\"0.005\"} 3",
		"flatnet_reconcile_duration_seconds_bucket{le=\"+Inf\"} 45",
		"flatnet_reconcile_duration_seconds_sum 4.5",
		"flatnet_reconcile_duration_seconds_count 45",
		"flatnet_reconcile_runs_total 41",
		"flatnet_reconcile_failures_total 42",
		"flatnet_reconcile_failing 1",
		"flatnet_reconcile_last_duration_seconds 0.25",
		"flatnet_reconcile_max_duration_seconds 1.5",
		"flatnet_repairs_total{kind=\"link\"} 100",
		"flatnet_repairs_total{kind=\"lease\"} 110",
		"flatnet_ipam_addresses{network=\"a\\\"b\\\\c\\nd\"} 254",
		"flatnet_ipam_used_addresses{network=\"unknown\"} 6",
		"flatnet_ipam_free_addresses{network=\"a\\\"b\\\\c\\nd\"} 250",
		"flatnet_ipam_healed_total{network=\"unknown\"} 7",
		"flatnet_conntrack_insert_failed_total 51",
		"flatnet_conntrack_entries 52",
		"flatnet_conntrack_entries_limit 53",
		"flatnet_neighbour_entries{family=\"ipv4\"} 61",
		"flatnet_neighbour_entries{family=\"ipv6\"} 63",
		"flatnet_neighbour_entries_limit{family=\"ipv4\"} 62",
		"flatnet_neighbour_entries_limit{family=\"ipv6\"} 64",
	};
	for (size_t i = 0; i < FLAT_LEN(lines); i++)
		assert_says(lines[i]);
	/* unknown sizes say nothing, rather than 0 */
	assert_null(strstr(answer, "flatnet_ipam_addresses{network=\"unknown\"}"));
	assert_null(strstr(answer, "flatnet_ipam_free_addresses{network=\"unknown\"}"));
	const char *uptime = strstr(answer, "\nflatnet_uptime_seconds 6");
	assert_non_null(uptime);
}

/* The manual lists the metrics that there are, with their types, and no others. */
static void test_the_manual(void **state)
{
	(void)state;
	const char *path = getenv("FLAT_MANUAL");
	char line[256], name[96], type[16];
	size_t listed = 0;
	if (!path)
		skip();
	FILE *manual = fopen(path, "re");
	assert_non_null(manual);
	get("/metrics");
	check_format();
	assert_true(family_count > 20);
	while (fgets(line, sizeof line, manual)) {
		bool known = false;
		if (sscanf(line, ".It flatnet_%80s Ta %15s Ta", name, type) != 2)
			continue;
		for (size_t i = 0; i < family_count && !known; i++)
			known = !strcmp(families[i].name + strlen("flatnet_"), name) &&
				!strcmp(families[i].type, type);
		if (!known)
			fail_msg("%s lists flatnet_%s, a %s", path, name, type);
		listed++;
	}
	fclose(manual);
	assert_int_equal(listed, family_count);
}

static void test_ready(void **state)
{
	(void)state;
	status = (struct flat_status){ .why_not_ready = "no pod subnet yet" };
	get("/readyz");
	assert_true(answered("503"));
	assert_string_equal(body(), "no pod subnet yet\n");
	status.ready = true;
	get("/readyz");
	assert_true(answered("200"));
	assert_string_equal(body(), "ok\n");
}

static void test_health(void **state)
{
	(void)state;
	static const int64_t patience = 5 * 60 * 1000;
	const int64_t now = flat_now_ms();
	status = (struct flat_status){
		.started_ms = now - 2 * patience,
		.reconcile = { .runs = 9,
			       .error = "netlink: no",
			       .failing_ms = now - patience + 5000 },
	};
	get("/healthz"); /* it fails, but not for so long */
	assert_true(answered("200"));
	status.reconcile.failing_ms = now - patience - 1000;
	get("/healthz");
	assert_true(answered("503"));
	assert_non_null(strstr(body(), "failing for 301 s: netlink: no"));
	status.reconcile.failing_ms = 0;
	status.reconcile.error[0] = '\0';
	get("/healthz");
	assert_true(answered("200"));
	assert_string_equal(body(), "ok\n");
	status.reconcile.runs = 0; /* never a run, in all this time */
	get("/healthz");
	assert_true(answered("503"));
	assert_non_null(strstr(body(), "it has not run"));
	status.started_ms = now;
	get("/healthz");
	assert_true(answered("200"));
}

static void test_what_is_not_there(void **state)
{
	(void)state;
	get("/");
	assert_true(answered("404"));
	get("/metrics/");
	assert_true(answered("404"));
	ask("HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_string_equal(body(), "");
	ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
	assert_true(answered("405"));
	assert_non_null(strstr(answer, "Allow: GET, HEAD"));
	ask("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(answered("405"));
	ask("\r\n\x01\x02 nonsense\r\n\r\n");
	assert_false(answered("200"));
}

static void test_a_huge_request_is_refused(void **state)
{
	(void)state;
	static char request[64 << 10];
	size_t n = (size_t)snprintf(request, sizeof request,
				    "GET /metrics HTTP/1.1\r\nHost: x\r\nA: ");
	memset(request + n, 'a', sizeof request - n - 1);
	ask(request);
	assert_false(answered("200"));
	get("/readyz"); /* and it goes on */
	assert_true(answered("503") || answered("200"));
}

/* Whoever opens all connections and says nothing, or a byte now and then, is cut off. */
static void test_idle_connections_end(void **state)
{
	(void)state;
	int fds[24];
	for (size_t i = 0; i < FLAT_LEN(fds); i++)
		fds[i] = dial(SOCK_NONBLOCK);
	const int64_t begun = flat_now_ms();
	bool served = false;
	while (!served && flat_now_ms() - begun < 25000) {
		for (size_t i = 0; i < FLAT_LEN(fds); i++)
			(void)send(fds[i], "G", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		const int64_t until = flat_now_ms() + 1000;
		while (flat_now_ms() < until)
			turn(0.05);
		const int fd = dial(SOCK_NONBLOCK);
		static const char request[] = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
		(void)send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
		for (int i = 0; i < 10 && !served; i++) {
			turn(0.02);
			served = recv(fd, answer, sizeof answer, MSG_DONTWAIT) > 0;
		}
		close(fd);
	}
	for (size_t i = 0; i < FLAT_LEN(fds); i++)
		close(fds[i]);
	assert_true(served);
}

static void test_a_port_that_is_taken(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_httpd *other = NULL;
	struct flat_ip address;
	assert_true(flat_ip_parse("127.0.0.1", &address));
	assert_int_equal(flat_httpd_open(loop, &address, port, &status, &other, &err), -EADDRINUSE);
	assert_int_equal(err.code, FLAT_CODE_IO);
	assert_non_null(strstr(err.msg, "listen on 127.0.0.1:"));
	assert_non_null(strstr(err.details, "http.address"));
	flat_httpd_close(NULL);
}

static int set_up(void **state)
{
	(void)state;
	struct flat_ip address;
	struct flat_err err = { 0 };
	loop = ev_default_loop(EVFLAG_NOENV);
	flat_ip_parse("127.0.0.1", &address);
	for (port = 20000 + (uint16_t)getpid() % 20000; port < 60000; port++) {
		err = (struct flat_err){ 0 };
		if (flat_httpd_open(loop, &address, port, &status, &httpd, &err) >= 0)
			return 0;
	}
	return -1;
}

static int tear_down(void **state)
{
	(void)state;
	flat_httpd_close(httpd);
	ev_loop_destroy(loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_metric),
		cmocka_unit_test(test_the_manual),
		cmocka_unit_test(test_ready),
		cmocka_unit_test(test_health),
		cmocka_unit_test(test_what_is_not_there),
		cmocka_unit_test(test_a_huge_request_is_refused),
		cmocka_unit_test(test_idle_connections_end),
		cmocka_unit_test(test_a_port_that_is_taken),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
