// SPDX-License-Identifier: Apache-2.0
/* agent: source file, on real folders with a real inotify; and the pauses of all sources. */
#include "../../agent/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct ev_loop *loop;
static struct flat_source *source;
static struct flat_agent_conf conf;
static char folder[64], path[128], log_text[8192];

static void note(const char *fmt, ...) FLAT_PRINTF(1, 2);
static void note(const char *fmt, ...)
{
	const size_t len = strlen(log_text);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(log_text + len, sizeof log_text - len, fmt, ap);
	va_end(ap);
}

static void on_begin(void *arg)
{
	(void)arg;
	note("[");
}

static void on_node(void *arg, const struct flat_node *node, const char *fault)
{
	(void)arg;
	note("%s%s%s%s ", node->name, fault ? "(" : "", fault ? fault : "", fault ? ")" : "");
}

static void on_gone(void *arg, const char *name)
{
	(void)arg;
	note("gone %s ", name);
}

static void on_synced(void *arg)
{
	(void)arg;
	note("]");
}

static void on_state(void *arg, bool connected, const char *why)
{
	(void)arg;
	note("%s;", connected ? "+" : why);
}

static const struct flat_listener listener = {
	.begin = on_begin, .node = on_node, .gone = on_gone, .synced = on_synced, .state = on_state
};

static void on_tick(struct ev_loop *l, ev_timer *timer, int events)
{
	(void)timer, (void)events;
	ev_break(l, EVBREAK_ONE);
}

static void turn(double seconds)
{
	ev_timer timer;
	ev_timer_init(&timer, on_tick, seconds, 0);
	ev_now_update(loop);
	ev_timer_start(loop, &timer);
	ev_run(loop, 0);
	ev_timer_stop(loop, &timer);
}

/* Waits until this is heard, and forgets it. */
static void assert_hears(const char *text, double seconds)
{
	const int64_t until = flat_now_ms() + (int64_t)(seconds * 1000);
	while (!strstr(log_text, text) && flat_now_ms() < until)
		turn(0.02);
	if (!strstr(log_text, text))
		fail_msg("heard \"%s\", not \"%s\"", log_text, text);
	log_text[0] = '\0';
}

static void assert_quiet(double seconds)
{
	turn(seconds);
	assert_string_equal(log_text, "");
}

#define NODE(n)                                                                                    \
	"{\"name\":\"n" #n "\",\"podCIDRs\":[\"10.244." #n ".0/24\"],\"address\":\"192.0.2." #n    \
	"\"}"

static void write_to(const char *name, const char *text)
{
	FILE *file = fopen(name, "we");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static void replace(const char *text)
{
	char temporary[160];
	snprintf(temporary, sizeof temporary, "%s.new", path);
	write_to(temporary, text);
	assert_int_equal(rename(temporary, path), 0);
}

static void open_source(void)
{
	struct flat_err err = { 0 };
	log_text[0] = '\0';
	conf.file.path = path;
	assert_int_equal(flat_source_file.open(loop, &conf, &listener, &source, &err), 0);
	assert_string_equal(log_text, ""); /* nothing before it returned */
}

static int begin_test(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/flat-test-source.XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/nodes.json", folder);
	return 0;
}

static int end_test(void **state)
{
	char command[160];
	(void)state;
	flat_source_file.close(source);
	source = NULL;
	snprintf(command, sizeof command, "rm -rf '%s' '%s.old'", folder, folder);
	return system(command); /* NOLINT(cert-env33-c): a test's own folder */
}

static void test_changes(void **state)
{
	(void)state;
	write_to(path, "[" NODE(1) "," NODE(2) "]");
	open_source();
	assert_hears("[n1 n2 ]+;", 1);
	write_to(path, "[" NODE(1) "]"); /* in place */
	assert_hears("[n1 ]+;", 1);
	replace("{\"nodes\":[" NODE(3) "]}"); /* as editors do */
	assert_hears("[n3 ]+;", 1);
	assert_quiet(0.3);
}

static void test_it_comes_later(void **state)
{
	(void)state;
	open_source();
	assert_hears("No such file", 1);
	assert_quiet(0.3);
	write_to(path, "[" NODE(1) "]");
	assert_hears("[n1 ]+;", 1);
}

static void test_the_folder_comes_later(void **state)
{
	(void)state;
	assert_int_equal(rmdir(folder), 0);
	open_source();
	assert_hears("No such file", 1);
	assert_int_equal(mkdir(folder, 0755), 0);
	write_to(path, "[" NODE(1) "]");
	assert_hears("[n1 ]+;", 3);
	replace("[" NODE(2) "]"); /* and is watched from now on */
	assert_hears("[n2 ]+;", 0.9);
}

static void test_the_folder_is_replaced(void **state)
{
	(void)state;
	char old[80];
	write_to(path, "[" NODE(1) "]");
	open_source();
	assert_hears("[n1 ]+;", 1);
	snprintf(old, sizeof old, "%s.old", folder);
	assert_int_equal(rename(folder, old), 0);
	assert_int_equal(mkdir(folder, 0755), 0);
	write_to(path, "[" NODE(2) "]");
	assert_hears("[n2 ]+;", 3);
	replace("[" NODE(3) "]");
	assert_hears("[n3 ]+;", 0.9);
}

static void test_a_wrong_list_changes_nothing(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"", "[" NODE(1) ",", "{\"nodes\": {\"name\":\"n1\"}}", "{\"node\": []}", "7",
	};
	write_to(path, "[" NODE(1) "]");
	open_source();
	assert_hears("[n1 ]+;", 1);
	for (size_t i = 0; i < FLAT_LEN(wrong); i++) {
		replace(wrong[i]);
		turn(0.3);
		assert_null(strstr(log_text, " ]"));
		assert_null(strstr(log_text, "+;"));
		assert_hears("what was known stays", 1);
	}
	unlink(path);
	assert_hears("No such file", 1);
	replace("[" NODE(2) "]");
	assert_hears("[n2 ]+;", 1);
}

static void test_a_wrong_node_is_told_with_its_fault(void **state)
{
	(void)state;
	write_to(
		path,
		"[" NODE(1) ", 7, {\"name\":\"n2\"}, {\"podCIDRs\":\"10.244.3.0/24\"}," NODE(
			1) ","
			   "{\"name\":\"n4\",\"podCIDRs\":[\"10.244.4.1/24\"],\"address\":\"192.0.2.4\"},"
			   "{\"name\":\"n5\",\"podCIDRs\":[\"fd00::/64\"],\"address\":\"192.0.2.4\"}," NODE(
				   6) "]");
	open_source();
	turn(0.3);
	assert_non_null(strstr(log_text, "[n1 nodes[1](nodes[1]"));
	assert_non_null(strstr(log_text, " n2(nodes[2].podCIDRs: missing, but required) "));
	assert_non_null(strstr(log_text, " nodes[3](nodes[3].name: missing, but required) "));
	assert_non_null(
		strstr(log_text, " nodes[4](nodes[4].name: 'n1' is the name of nodes[0] too) "));
	assert_non_null(strstr(log_text, " n4(nodes[5].podCIDRs[0]: has host bits set"));
	assert_non_null(strstr(log_text, ") n5 ")); /* there are tunnels */
	assert_hears(" n5 n6 ]+;", 1);
}

/* As a ConfigMap is mounted: the file leads to ..data/, and that to a folder with a time. */
static void test_symbolic_links(void **state)
{
	(void)state;
	char name[160], other[160];
	snprintf(name, sizeof name, "%s/a", folder);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof name, "%s/a/nodes.json", folder);
	write_to(name, "[" NODE(1) "]");
	snprintf(name, sizeof name, "%s/..data", folder);
	assert_int_equal(symlink("a", name), 0);
	assert_int_equal(symlink("..data/nodes.json", path), 0);
	open_source();
	assert_hears("[n1 ]+;", 1);
	snprintf(name, sizeof name, "%s/b", folder);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof name, "%s/b/nodes.json", folder);
	write_to(name, "[" NODE(2) "]");
	snprintf(name, sizeof name, "%s/..tmp", folder);
	assert_int_equal(symlink("b", name), 0);
	snprintf(other, sizeof other, "%s/..data", folder);
	assert_int_equal(rename(name, other), 0);
	assert_hears("[n2 ]+;", 1);
}

static void test_many_writes_are_few_reads(void **state)
{
	(void)state;
	write_to(path, "[" NODE(1) "]");
	open_source();
	assert_hears("[n1 ]+;", 1);
	for (int i = 0; i < 100; i++) {
		replace(i % 2 ? "[" NODE(1) "]" : "[" NODE(2) "]");
		turn(0.002);
	}
	turn(0.3);
	size_t reads = 0;
	for (const char *c = log_text; *c; c++)
		reads += *c == '[';
	assert_in_range(reads, 1, 4);
	assert_hears("[n1 ]+;", 1);
}

static void test_a_path_that_cannot_be(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	conf.file.path = "nodes.json";
	assert_true(flat_source_file.open(loop, &conf, &listener, &source, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_CONFIG);
}

static void test_backoff(void **state)
{
	(void)state;
	double sum = 0;
	for (int round = 0; round < 200; round++) {
		struct flat_backoff backoff = { 0 };
		double whole = 1;
		for (int i = 0; i < 100; i++) {
			const double pause = flat_backoff_next(&backoff, 1, 30);
			assert_true(pause >= whole / 2 && pause <= whole);
			if (!i)
				sum += pause;
			whole = whole * 2 < 30 ? whole * 2 : 30;
		}
		backoff.tries = 0;
		assert_true(flat_backoff_next(&backoff, 1, 30) <= 1);
	}
	/* not all the same: the mean of 200 is within 0.75 +- 0.05 but for one time in a million */
	assert_true(sum / 200 > 0.70 && sum / 200 < 0.80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin_test, end_test)
		WITH_FOLDER(test_changes),
		WITH_FOLDER(test_it_comes_later),
		WITH_FOLDER(test_the_folder_comes_later),
		WITH_FOLDER(test_the_folder_is_replaced),
		WITH_FOLDER(test_a_wrong_list_changes_nothing),
		WITH_FOLDER(test_a_wrong_node_is_told_with_its_fault),
		WITH_FOLDER(test_symbolic_links),
		WITH_FOLDER(test_many_writes_are_few_reads),
		WITH_FOLDER(test_a_path_that_cannot_be),
		cmocka_unit_test(test_backoff),
	};
	loop = ev_default_loop(EVFLAG_NOENV);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
