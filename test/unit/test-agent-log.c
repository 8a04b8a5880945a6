// SPDX-License-Identifier: Apache-2.0
/* agent: log lines: formats, escapes, bounds. What goes to standard error is read back. */
#include "../../agent/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <flatnet/cni.h>
#include <string.h>
#include <unistd.h>

static char heard[65536];
static int saved = -1, ends[2];

static void begin(void)
{
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	saved = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
}

/* What was said since begin(); a read takes what one write wrote, so that two lines are two. */
static const char *end(void)
{
	size_t len = 0;
	ssize_t n;
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(ends[1]);
	while ((n = read(ends[0], heard + len, sizeof heard - len - 1)) > 0)
		len += (size_t)n;
	close(ends[0]);
	heard[len] = '\0';
	return heard;
}

/* The line behind its time. */
static const char *without_time(const char *line)
{
	static const char form[] = "ts=0000-00-00T00:00:00.000Z ";
	for (size_t i = 0; form[i]; i++)
		if (form[i] == '0')
			assert_in_range(line[i], '0', '9');
		else
			assert_int_equal(line[i], form[i]);
	return line + sizeof form - 1;
}

static void test_keys(void **state)
{
	(void)state;
	flat_log_setup(FLAT_LEVEL_INFO, FLAT_LOG_KEYS);
	begin();
	flat_say(FLAT_LEVEL_INFO, "node accepted", "node", "n2", "none", NULL, "cidr",
		 "10.244.2.0/24", "empty", "", "text", "a \"b\"\\", NULL);
	assert_string_equal(
		without_time(end()),
		"level=info msg=\"node accepted\" node=n2 cidr=10.244.2.0/24 empty=\"\" "
		"text=\"a \\\"b\\\"\\\\\"\n");
}

static void test_nothing_breaks_a_line(void **state)
{
	(void)state;
	flat_log_setup(FLAT_LEVEL_INFO, FLAT_LOG_KEYS);
	begin();
	flat_say(FLAT_LEVEL_WARN, "a\nb", "k", "\x1b[31m\t\r", "bad", "\xff\xc0", "c1", "\xc2\x9b",
		 "good", "\xc3\xa4", "eq", "a=b", NULL);
	assert_string_equal(without_time(end()),
			    "level=warn msg=\"a\\nb\" k=\"\\u001b[31m\\t\\r\" "
			    "bad=\"\\ufffd\\ufffd\" c1=\"\\u009b\" good=\"\xc3\xa4\" eq=\"a=b\"\n");
}

static void test_json(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_json *json = NULL;
	flat_log_setup(FLAT_LEVEL_INFO, FLAT_LOG_JSON);
	begin();
	flat_say(FLAT_LEVEL_ERROR, "a\nb", "k", "\x1b\x7f\"\\\xff", NULL);
	end();
	assert_int_equal(flat_json_parse(heard, strlen(heard), &json, &err), 0);
	assert_string_equal(flat_json_text(flat_json_get(json, "level")), "error");
	assert_string_equal(flat_json_text(flat_json_get(json, "msg")), "a\nb");
	assert_string_equal(flat_json_text(flat_json_get(json, "k")), "\x1b\x7f\"\\\xef\xbf\xbd");
	assert_non_null(flat_json_text(flat_json_get(json, "ts")));
	flat_json_free(json);
	flat_log_setup(FLAT_LEVEL_INFO, FLAT_LOG_KEYS);
}

/* A value of any length and kind leaves one line, whole, of at most 2 KiB. */
static void test_bounds(void **state)
{
	(void)state;
	static const char *const units[] = { "x", "\"", "\n", "\xc3\xa4", "\xff" };
	static char value[4096];
	for (int format = FLAT_LOG_KEYS; format <= FLAT_LOG_JSON; format++)
		for (size_t u = 0; u < FLAT_LEN(units); u++)
			for (size_t len = 1900; len < 2100; len++) {
				struct flat_json *json = NULL;
				struct flat_err err = { 0 };
				value[0] = '\0';
				for (size_t i = 0; i + strlen(units[u]) <= len;
				     i += strlen(units[u]))
					memcpy(value + i, units[u], strlen(units[u]) + 1);
				flat_log_setup(FLAT_LEVEL_INFO, (enum flat_log_format)format);
				begin();
				flat_say(FLAT_LEVEL_INFO, "m", "k", value, "after", "b c", NULL);
				end();
				const size_t n = strlen(heard);
				assert_in_range(n, 1, 2048);
				assert_ptr_equal(strchr(heard, '\n'), heard + n - 1);
				if (format == FLAT_LOG_JSON) {
					assert_int_equal(flat_json_parse(heard, n, &json, &err), 0);
					flat_json_free(json);
				} else {
					assert_int_equal(heard[n - 2] == '"' || heard[n - 2] == 'x',
							 1);
				}
			}
	flat_log_setup(FLAT_LEVEL_INFO, FLAT_LOG_KEYS);
}

static void test_levels(void **state)
{
	(void)state;
	begin();
	flat_log_setup(FLAT_LEVEL_WARN, FLAT_LOG_KEYS);
	flat_say(FLAT_LEVEL_INFO, "silent", NULL);
	flat_say(FLAT_LEVEL_WARN, "heard", NULL);
	assert_string_equal(without_time(end()), "level=warn msg=\"heard\"\n");
	flat_log_setup(FLAT_LEVEL_INFO, FLAT_LOG_KEYS);
}

static void test_errors(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	flat_fail(&err, FLAT_CODE_IO, 0, "no file");
	flat_detail(&err, "make one");
	begin();
	flat_say_error(FLAT_LEVEL_ERROR, "cannot start", &err);
	assert_string_equal(
		without_time(end()),
		"level=error msg=\"cannot start\" error=\"no file\" cure=\"make one\"\n");
}

static void test_a_condition_is_said_once(void **state)
{
	(void)state;
	struct flat_remark remark = { 0 };
	begin();
	flat_remark_end(&remark, "never was");
	for (int i = 0; i < 3; i++)
		flat_remark(&remark, FLAT_LEVEL_WARN, "cut off", "refused");
	flat_remark(&remark, FLAT_LEVEL_WARN, "cut off", "timed out");
	flat_remark_end(&remark, "back");
	flat_remark_end(&remark, "back");
	flat_remark(&remark, FLAT_LEVEL_WARN, "cut off", "timed out");
	end();
	size_t lines = 0;
	for (const char *c = heard; *c; c++)
		lines += *c == '\n';
	assert_int_equal(lines, 4);
	assert_non_null(strstr(heard, "msg=\"cut off\" reason=refused\n"));
	assert_non_null(strstr(heard, "msg=\"back\"\n"));
	assert_null(strstr(heard, "never"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_nothing_breaks_a_line),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_a_condition_is_said_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
