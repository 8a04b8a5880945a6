// SPDX-License-Identifier: Apache-2.0
#include <flatnet/cni.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define DNS                                                                                        \
	"\"dns\":{\"nameservers\":[\"10.96.0.10\"],\"domain\":\"cluster.local\","                  \
	"\"search\":[\"svc.cluster.local\"],\"options\":[\"ndots:5\"]}"

/* A dual-stack attachment with all there is, in the newest shape. */
#define FULL_1_1_0                                                                                 \
	"{\"cniVersion\":\"1.1.0\",\"interfaces\":["                                               \
	"{\"name\":\"cni0\",\"mac\":\"0a:58:0a:f4:01:01\",\"mtu\":1450},"                          \
	"{\"name\":\"eth0\",\"mac\":\"0a:58:0a:f4:01:17\",\"mtu\":1450,"                           \
	"\"sandbox\":\"/run/netns/c1\",\"socketPath\":\"/run/s\",\"pciID\":\"0000:01\"}],"         \
	"\"ips\":[{\"interface\":1,\"address\":\"10.244.1.23/24\",\"gateway\":\"10.244.1.1\"},"    \
	"{\"interface\":1,\"address\":\"fd00:1::17/64\"}],"                                        \
	"\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.244.1.1\",\"mtu\":1400,\"advmss\":1360,"   \
	"\"priority\":10,\"table\":100,\"scope\":0},{\"dst\":\"::/0\",\"gw\":\"fd00:1::1\"},"      \
	"{\"dst\":\"10.244.0.0/16\"}]," DNS "}"

static const char *const shapes[] = {
	[FLAT_VERSION_0_1_0] =
		"{\"cniVersion\":\"0.1.0\",\"ip4\":{\"ip\":\"10.244.1.23/24\",\"gateway\":"
		"\"10.244.1.1\",\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.244.1.1\"},{\"dst\":"
		"\"10.244.0.0/16\"}]},\"ip6\":{\"ip\":\"fd00:1::17/64\",\"routes\":[{\"dst\":"
		"\"::/0\",\"gw\":\"fd00:1::1\"}]}," DNS "}",
	[FLAT_VERSION_0_2_0] =
		"{\"cniVersion\":\"0.2.0\",\"ip4\":{\"ip\":\"10.244.1.23/24\",\"gateway\":"
		"\"10.244.1.1\",\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.244.1.1\"},{\"dst\":"
		"\"10.244.0.0/16\"}]},\"ip6\":{\"ip\":\"fd00:1::17/64\",\"routes\":[{\"dst\":"
		"\"::/0\",\"gw\":\"fd00:1::1\"}]}," DNS "}",
#define LISTS(version)                                                                             \
	"{\"cniVersion\":\"" version "\",\"interfaces\":[{\"name\":\"cni0\",\"mac\":"              \
	"\"0a:58:0a:f4:01:01\"},{\"name\":\"eth0\",\"mac\":\"0a:58:0a:f4:01:17\","                 \
	"\"sandbox\":\"/run/netns/c1\"}],"
#define ROUTES                                                                                     \
	"\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.244.1.1\"},"                               \
	"{\"dst\":\"::/0\",\"gw\":\"fd00:1::1\"},{\"dst\":\"10.244.0.0/16\"}]," DNS "}"
#define IPS_WITH_VERSION                                                                           \
	"\"ips\":[{\"version\":\"4\",\"interface\":1,\"address\":\"10.244.1.23/24\","              \
	"\"gateway\":\"10.244.1.1\"},{\"version\":\"6\",\"interface\":1,"                          \
	"\"address\":\"fd00:1::17/64\"}],"
	[FLAT_VERSION_0_3_0] = LISTS("0.3.0") IPS_WITH_VERSION ROUTES,
	[FLAT_VERSION_0_3_1] = LISTS("0.3.1") IPS_WITH_VERSION ROUTES,
	[FLAT_VERSION_0_4_0] = LISTS("0.4.0") IPS_WITH_VERSION ROUTES,
	[FLAT_VERSION_1_0_0] = LISTS(
		"1.0.0") "\"ips\":[{\"interface\":1,\"address\":\"10.244.1.23/24\",\"gateway\":"
			 "\"10.244.1.1\"},{\"interface\":1,\"address\":\"fd00:1::17/64\"}]," ROUTES,
	[FLAT_VERSION_1_1_0] = FULL_1_1_0,
};

static int parse(const char *text, enum flat_version version, struct flat_arena *arena,
		 struct flat_result *result, struct flat_err *err)
{
	struct flat_json *json = NULL;
	assert_int_equal(flat_json_parse(text, strlen(text), &json, err), 0);
	int r = flat_result_parse(json, version, "prevResult", arena, result, err);
	flat_json_free(json);
	return r;
}

static void assert_prints(const struct flat_result *result, enum flat_version version,
			  const char *want)
{
	flat_auto_free char *text = NULL;
	struct flat_err err = { 0 };
	assert_int_equal(flat_result_print(result, version, &text, &err), 0);
	assert_string_equal(text, want);
}

static void every_version_has_its_shape(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	(void)state;
	assert_int_equal(parse(FULL_1_1_0, FLAT_VERSION_0_1_0, &arena, &result, &err), 0);
	for (size_t i = 0; i < FLAT_LEN(shapes); i++)
		assert_prints(&result, (enum flat_version)i, shapes[i]);
	flat_arena_free(&arena);
}

static void every_version_reads_its_shape(void **state)
{
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(shapes); i++) {
		struct flat_arena arena = { 0 };
		struct flat_result result = { 0 };
		struct flat_err err = { 0 };
		assert_int_equal(parse(shapes[i], FLAT_VERSION_1_1_0, &arena, &result, &err), 0);
		assert_int_equal(result.ip_count, 2);
		assert_int_equal(result.route_count, 3);
		assert_prints(&result, (enum flat_version)i, shapes[i]);
		flat_arena_free(&arena);
	}
}

static void the_empty_result(void **state)
{
	static const char *const want[] = {
		[FLAT_VERSION_0_3_0] = "{\"cniVersion\":\"0.3.0\",\"dns\":{}}",
		[FLAT_VERSION_0_3_1] = "{\"cniVersion\":\"0.3.1\",\"dns\":{}}",
		[FLAT_VERSION_0_4_0] = "{\"cniVersion\":\"0.4.0\",\"dns\":{}}",
		[FLAT_VERSION_1_0_0] = "{\"cniVersion\":\"1.0.0\"}",
		[FLAT_VERSION_1_1_0] = "{\"cniVersion\":\"1.1.0\"}",
	};
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	char *text = NULL;
	(void)state;
	for (size_t i = FLAT_VERSION_0_3_0; i < FLAT_LEN(want); i++)
		assert_prints(&result, (enum flat_version)i, want[i]);
	assert_int_equal(flat_result_print(&result, FLAT_VERSION_0_2_0, &text, &err), -EINVAL);
	assert_null(text);
	assert_int_equal(err.code, FLAT_CODE_CONFIG);
	assert_non_null(strstr(err.msg, "no valid IP addresses"));
}

static void old_shape_takes_the_first_of_a_family(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	(void)state;
	assert_int_equal(parse("{\"ips\":[{\"address\":\"fd00::2/64\"},{\"address\":\"fd00::3/64\"}"
			       "],\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}",
			       FLAT_VERSION_1_0_0, &arena, &result, &err),
			 0);
	assert_prints(&result, FLAT_VERSION_0_2_0,
		      "{\"cniVersion\":\"0.2.0\",\"ip6\":{\"ip\":\"fd00::2/64\"},\"dns\":{}}");
	flat_arena_free(&arena);
}

static void later_keys_are_read_in_any_version(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	(void)state;
	assert_int_equal(
		parse("{\"cniVersion\":\"\",\"Interfaces\":[{\"Name\":\"ib0\",\"Mac\":"
		      "\"00:00:10:49:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01\","
		      "\"mtu\":2044}],\"IPs\":[{\"Address\":\"10.0.0.5/8\",\"Interface\":0,"
		      "\"Version\":\"6\"}],\"Routes\":[{\"Dst\":\"10.1.2.3/16\",\"GW\":\"\","
		      "\"mtu\":9000}],\"future\":{}}",
		      FLAT_VERSION_0_3_1, &arena, &result, &err),
		0);
	assert_false(result.interfaces[0].has_mac);
	assert_int_equal(result.interfaces[0].mtu, 2044);
	assert_int_equal(result.routes[0].mtu, 9000);
	assert_prints(&result, FLAT_VERSION_1_0_0,
		      "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"ib0\"}],\"ips\":[{"
		      "\"interface\":0,\"address\":\"10.0.0.5/8\"}],\"routes\":[{\"dst\":"
		      "\"10.1.0.0/16\"}]}");
	flat_arena_free(&arena);
}

static void malformed_results_are_refused(void **state)
{
	static const struct {
		enum flat_version version;
		const char *text, *message;
	} bad[] = {
		{ FLAT_VERSION_1_0_0, "[]", "prevResult: it is not an object" },
		{ FLAT_VERSION_1_0_0, "{\"cniVersion\":\"7\"}", "prevResult.cniVersion: \"7\"" },
		{ FLAT_VERSION_1_0_0, "{\"ips\":{}}", "prevResult.ips: an object is not a list" },
		{ FLAT_VERSION_1_0_0, "{\"ips\":[{}]}",
		  "prevResult.ips[0].address: missing, but required" },
		{ FLAT_VERSION_1_0_0, "{\"ips\":[{\"address\":\"10.0.0.1/8\",\"interface\":0}]}",
		  "prevResult.ips[0].interface: there is no interfaces[0]" },
		{ FLAT_VERSION_1_0_0,
		  "{\"interfaces\":[{\"name\":\"a\"}],\"ips\":[{\"address\":\"10.0.0.1/8\"},"
		  "{\"address\":\"10.0.0.1/8\",\"interface\":1}]}",
		  "prevResult.ips[1].interface: there is no interfaces[1]" },
		{ FLAT_VERSION_1_0_0, "{\"ips\":[{\"address\":\"10.0.0.1/8\",\"interface\":-1}]}",
		  "prevResult.ips[0].interface: -1 is not a whole number from 0 to 63" },
		{ FLAT_VERSION_0_2_0, "{\"ip4\":{\"gateway\":\"10.0.0.1\"}}",
		  "prevResult.ip4.ip: missing, but required" },
		{ FLAT_VERSION_0_2_0, "{\"ip4\":[]}", "prevResult.ip4: a list is not an object" },
		{ FLAT_VERSION_0_2_0, "{\"ip6\":{\"ip\":\"::1/128\",\"routes\":[{\"dst\":5}]}}",
		  "prevResult.ip6.routes[0].dst: 5 is not a subnet" },
		{ FLAT_VERSION_1_0_0, "{\"interfaces\":[{\"mac\":5,\"name\":\"a\"}]}",
		  "prevResult.interfaces[0].mac: a MAC address is a string" },
		{ FLAT_VERSION_1_0_0, "{\"dns\":{\"search\":\"x\"}}",
		  "prevResult.dns.search: \"x\" is not a list" },
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++) {
		struct flat_arena arena = { 0 };
		struct flat_result result = { .ip_count = 77 };
		struct flat_err err = { 0 };
		assert_int_equal(parse(bad[i].text, bad[i].version, &arena, &result, &err),
				 -EINVAL);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
		if (!strstr(err.msg, bad[i].message))
			fail_msg("%s: %s", bad[i].text, err.msg);
		assert_int_equal(result.ip_count, 77); /* untouched */
		flat_arena_free(&arena);
	}
}

static void errors_are_printed(void **state)
{
	struct flat_err err = { 0 };
	(void)state;
	flat_fail(&err, FLAT_CODE_IN_USE, 0, "address \"10.0.0.1\"\n");
	flat_auto_free char *plain = flat_error_print(&err, FLAT_VERSION_1_0_0);
	assert_string_equal(plain, "{\"cniVersion\":\"1.0.0\",\"code\":102,\"msg\":\"address "
				   "\\\"10.0.0.1\\\"\\n\"}");
	flat_detail(&err, "it is c2's");
	flat_auto_free char *detailed = flat_error_print(&err, FLAT_VERSION_0_4_0);
	assert_string_equal(detailed, "{\"cniVersion\":\"0.4.0\",\"code\":102,\"msg\":\"address "
				      "\\\"10.0.0.1\\\"\\n\",\"details\":\"it is c2's\"}");
	err = (struct flat_err){ 0 };
	flat_auto_free char *unset = flat_error_print(&err, FLAT_VERSION_1_1_0);
	assert_string_equal(unset, "{\"cniVersion\":\"1.1.0\",\"code\":999,\"msg\":\"\"}");
}

/* Whatever bytes land in an error and wherever a buffer cuts them: what is printed is JSON. */
static void printed_errors_are_utf8(void **state)
{
	(void)state;
	for (size_t pad = 0; pad < 8; pad++) {
		struct flat_err err = { 0 };
		struct flat_json *json = NULL;
		char text[700];
		memset(text, 'x', pad);
		for (size_t i = pad; i + 4 < sizeof text; i += 4)
			memcpy(text + i, "\xf0\x9f\x98\x80", 5);
		flat_fail(&err, FLAT_CODE_IO, 0, "%s", text);
		flat_detail(&err, "a\xff%c\xc0\xaf\xed\xa0\x80 \xe2\x82", 1);
		flat_auto_free char *printed = flat_error_print(&err, FLAT_VERSION_1_1_0);
		assert_int_equal(flat_json_parse(printed, strlen(printed), &json, NULL), 0);
		const char *msg = flat_json_text(flat_json_get(json, "msg"));
		assert_int_equal(strlen(msg), pad + (511 - pad) / 4 * 4); /* no half character */
		assert_string_equal(flat_json_text(flat_json_get(json, "details")),
				    "a\xef\xbf\xbd\x01\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
				    "\xef\xbf\xbd\xef\xbf\xbd ");
		flat_json_free(json);
	}
}

static void versions_are_printed(void **state)
{
	static const struct {
		const char *text, *echo;
	} cases[] = {
		{ "", "1.1.0" },
		{ "garbage \xff", "1.1.0" },
		{ "[]", "1.1.0" },
		{ "{}", "1.1.0" },
		{ "{\"cniVersion\":\"0.4.0\"}", "0.4.0" },
		{ "{\"CniVersion\":\"1.0.0\"}", "1.0.0" },
		{ "{\"cniVersion\":\"2.0.0\"}", "1.1.0" },
		{ "{\"cniVersion\":7}", "1.1.0" },
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		char want[200] = "{\"cniVersion\":\"";
		strcat(strcat(want, cases[i].echo),
		       "\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\","
		       "\"1.0.0\",\"1.1.0\"]}");
		flat_auto_free char *text =
			flat_version_print(cases[i].text, strlen(cases[i].text));
		assert_string_equal(text, want);
	}
	flat_auto_free char *text = flat_version_print(NULL, 0);
	assert_non_null(text);
}

static void input_is_read_to_its_end(void **state)
{
	struct flat_err err = { 0 };
	char *text = NULL;
	size_t len = 0;
	int ends[2];
	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], "{}", 2), 2);
	assert_int_equal(flat_input_read(ends[0], 20, &text, &len, &err), -ETIMEDOUT);
	assert_int_equal(err.code, FLAT_CODE_IO);
	assert_null(text);
	assert_int_equal(write(ends[1], "{\"a\":1}", 7), 7);
	close(ends[1]);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_input_read(ends[0], 1000, &text, &len, &err), 0);
	assert_int_equal(len, 7);
	assert_string_equal(text, "{\"a\":1}");
	free(text);
	assert_int_equal(flat_input_read(ends[0], 1000, &text, &len, &err), 0);
	assert_int_equal(len, 0);
	assert_string_equal(text, "");
	free(text);
	close(ends[0]);
	assert_int_equal(flat_input_read(-1, 20, &text, &len, &err), -ETIMEDOUT);

	err = (struct flat_err){ 0 };
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	assert_int_equal(flat_input_read(fd, 5000, &text, &len, &err), -EINVAL);
	assert_int_equal(err.code, FLAT_CODE_DECODE);
	close(fd);
	err = (struct flat_err){ 0 };
	fd = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(flat_input_read(fd, 1000, &text, &len, &err), -EISDIR);
	close(fd);
}

static void output_is_written_whole_or_told(void **state)
{
	struct flat_err err = { 0 };
	char back[8] = "";
	int ends[2];
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(flat_output_write(ends[1], "{}", &err), 0);
	assert_int_equal(read(ends[0], back, sizeof back), 3);
	assert_string_equal(back, "{}\n");
	close(ends[0]);
	assert_int_equal(flat_output_write(ends[1], "{}", &err), -EPIPE);
	assert_int_equal(err.code, FLAT_CODE_IO);
	close(ends[1]);
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_output_write(fd, "{}", &err), -ENOSPC);
	close(fd);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_output_write(fd, "{}", &err), -EBADF);
	assert_string_equal(err.msg, "write standard output: Bad file descriptor");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_version_has_its_shape),
		cmocka_unit_test(every_version_reads_its_shape),
		cmocka_unit_test(the_empty_result),
		cmocka_unit_test(old_shape_takes_the_first_of_a_family),
		cmocka_unit_test(later_keys_are_read_in_any_version),
		cmocka_unit_test(malformed_results_are_refused),
		cmocka_unit_test(errors_are_printed),
		cmocka_unit_test(printed_errors_are_utf8),
		cmocka_unit_test(versions_are_printed),
		cmocka_unit_test(input_is_read_to_its_end),
		cmocka_unit_test(output_is_written_whole_or_told),
	};
	return cmocka_run_group_tests_name("cni-result", tests, NULL, NULL);
}
