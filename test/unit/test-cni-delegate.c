// SPDX-License-Identifier: Apache-2.0
/* The plugins here are small shell scripts in a directory of the test's own. */
#include "../../lib/cni/private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CONF	"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"flatnet\"}"
#define ADDRESS "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.244.1.5/24\"}]}"

static char dir[] = "/tmp/flatnet-test-XXXXXX";

static const char *file_path(const char *name)
{
	static char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void write_plugin(const char *name, const char *script)
{
	FILE *file = fopen(file_path(name), "we");
	assert_non_null(file);
	fprintf(file, "#!/bin/sh\n%s\n", script);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(file_path(name), 0755), 0);
}

static char *read_file(const char *name)
{
	static char text[4096];
	FILE *file = fopen(file_path(name), "re");
	size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
	text[n] = '\0';
	if (file)
		fclose(file);
	return text;
}

static int run(const char *script, const char *conf, enum flat_command command,
	       struct flat_result *result, struct flat_err *err)
{
	struct flat_request req = {
		.version = FLAT_VERSION_1_0_0, .path = dir, .text = conf, .text_len = strlen(conf)
	};
	write_plugin("plugin", script);
	int r = flat_delegate_run(&req, "plugin", command, result, err);
	flat_arena_free(&req.arena);
	return r;
}

static void an_address_is_passed_on(void **state)
{
	struct flat_request req = { .version = FLAT_VERSION_0_2_0,
				    .text = CONF,
				    .text_len = strlen(CONF) };
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	char path[3 * PATH_MAX], text[FLAT_PREFIX_TEXT];
	(void)state;
	/* directories are searched in order; empty and missing ones are passed over */
	mkdir(file_path("empty"), 0755);
	mkdir(file_path("empty/plugin"), 0755);
	snprintf(path, sizeof path, "::/nonexistent:%s/empty:%s::", dir, dir);
	req.path = path;
	setenv("CNI_COMMAND", "STATUS", 1);
	setenv("CNI_ARGS", "A=B", 1);
	write_plugin("plugin",
		     "echo \"$CNI_COMMAND $CNI_ARGS $(env | grep -c ^CNI_COMMAND)\" > $0.env;"
		     "cat > $0.in; echo '" ADDRESS "'");
	if (flat_delegate_run(&req, "plugin", FLAT_CMD_ADD, &result, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(result.ip_count, 1);
	assert_string_equal(flat_prefix_text(&result.ips[0].address, text), "10.244.1.5/24");
	assert_string_equal(read_file("plugin.env"), "ADD A=B 1\n");
	assert_string_equal(read_file("plugin.in"), CONF);
	flat_arena_free(&req.arena);
}

static void names_and_paths_are_checked(void **state)
{
	static const char *const bad[] = { "", ".", "..", "../plugin", "/bin/true", "a/b" };
	struct flat_request req = { .path = dir, .text = CONF, .text_len = strlen(CONF) };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++) {
		struct flat_err err = { 0 };
		assert_int_equal(flat_delegate_run(&req, bad[i], FLAT_CMD_DEL, NULL, &err),
				 -EINVAL);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
	}
	struct flat_err err = { 0 };
	assert_int_equal(flat_delegate_run(&req, "no-such", FLAT_CMD_DEL, NULL, &err), -ENOENT);
	assert_int_equal(err.code, FLAT_CODE_CONFIG);
	assert_non_null(strstr(err.msg, "find plugin \"no-such\" in CNI_PATH"));
	assert_true(err.details[0]);
	err = (struct flat_err){ 0 };
	req.path = "";
	assert_int_equal(flat_delegate_run(&req, "plugin", FLAT_CMD_DEL, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "(not set)"));
	flat_arena_free(&req.arena);
}

static void errors_are_passed_on(void **state)
{
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	(void)state;
	unlink(file_path("plugin.log"));
	assert_int_equal(
		run("echo $CNI_COMMAND >> $0.log; [ $CNI_COMMAND = DEL ] && exit 0\n"
		    "echo '{\"code\":11,\"msg\":\"no addresses\",\"details\":\"10.1/16\"}';"
		    "exit 3",
		    CONF, FLAT_CMD_ADD, &result, &err),
		-EINVAL);
	assert_int_equal(err.code, 11);
	assert_string_equal(err.msg, "plugin \"plugin\": no addresses");
	assert_string_equal(err.details, "10.1/16");
	/* what a failed ADD left behind is cleaned up */
	assert_string_equal(read_file("plugin.log"), "ADD\nDEL\n");
}

static void failures_have_their_codes(void **state)
{
	static const struct {
		const char *script;
		int code;
		const char *message;
	} cases[] = {
		{ "echo 'panic: oops'; exit 1", 6,
		  "plugin \"plugin\": its output is not valid JSON" },
		{ "exit 2", 999, "exit status 2 without an error message" },
		{ "echo '{}'; exit 1", 999, "it failed without a message" },
		{ "echo '{\"code\":\"x\"}'; exit 1", 6, "its error is malformed: code: \"x\"" },
		{ "echo '[]'; exit 1", 6, "its error is malformed: a list" },
		{ "kill -SEGV $$", 999, "killed by signal 11" },
		{ "echo hello", 6, "its output is not valid JSON" },
		{ "printf '{\"ips\":['", 6, "its output is not valid JSON" },
		{ "true", 6, "no result" },
		{ "echo '{\"cniVersion\":\"1.0.0\"}'", 7, "its result has no address" },
		{ "echo null", 7, "its result has no address" },
		{ "echo '{\"ips\":[{\"address\":\"10.0.0.1\"}]}'", 7,
		  "result.ips[0].address: \"10.0.0.1\" is not" },
		{ "echo '{\"cniVersion\":\"3.0.0\"}'", 7, "result.cniVersion" },
		{ "head -c 1100000 /dev/zero", 6, "more than the 1048576 bytes" },
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		struct flat_result result = { .ip_count = 77 };
		struct flat_err err = { 0 };
		int r = run(cases[i].script, CONF, FLAT_CMD_ADD, &result, &err);
		if (r >= 0 || err.code != cases[i].code || !strstr(err.msg, cases[i].message))
			fail_msg("%s: %d, code %d, %s", cases[i].script, r, err.code, err.msg);
		assert_int_equal(result.ip_count, 77); /* untouched */
	}
}

static void other_commands_need_no_result(void **state)
{
	struct flat_err err = { 0 };
	(void)state;
	assert_int_equal(run("true", CONF, FLAT_CMD_DEL, NULL, &err), 0);
	assert_int_equal(run("echo text", CONF, FLAT_CMD_CHECK, NULL, &err), 0);
	assert_int_equal(run("echo '{\"code\":50,\"msg\":\"m\"}'; exit 1", CONF, FLAT_CMD_STATUS,
			     NULL, &err),
			 -EINVAL);
	assert_int_equal(err.code, 50);
}

static void an_earlier_error_stays(void **state)
{
	struct flat_err err = { 0 };
	(void)state;
	flat_fail(&err, FLAT_CODE_NETWORK, EBUSY, "first");
	assert_true(run("exit 1", CONF, FLAT_CMD_DEL, NULL, &err) < 0);
	assert_string_equal(err.msg, "first: Device or resource busy");
}

/* A large configuration, a plugin that writes before it reads, or does not read at all. */
static void large_configurations_do_not_hang(void **state)
{
	enum { SIZE = 1 << 20 };
	char *conf = malloc(SIZE + 1);
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	(void)state;
	assert_non_null(conf);
	memset(conf, ' ', SIZE);
	conf[SIZE] = '\0';
	memcpy(conf, CONF, strlen(CONF));
	assert_int_equal(run("head -c 200000 /dev/zero | tr '\\0' ' '; cat | wc -c > $0.size;"
			     "echo '" ADDRESS "'",
			     conf, FLAT_CMD_ADD, &result, &err),
			 0);
	assert_int_equal(atoi(read_file("plugin.size")), SIZE);
	assert_int_equal(run("exec < /dev/null; echo '" ADDRESS "'", conf, FLAT_CMD_ADD, &result,
			     &err),
			 0);
	assert_int_equal(run("wc -c < /dev/stdin > $0.size", conf, FLAT_CMD_DEL, NULL, &err), 0);
	assert_int_equal(atoi(read_file("plugin.size")), SIZE);
	free(conf);
}

/* Of what we open for it, it gets its input at 0 and its output at 1, and neither a second time. */
static void no_other_descriptors_are_passed(void **state)
{
	struct flat_err err = { 0 };
	(void)state;
	assert_int_equal(
		run("out=$(readlink /proc/$$/fd/1); for f in /proc/$$/fd/*; do\n"
		    "case $(readlink $f) in \"$out\" | *memfd*) r=\"$r${f##*/} \" ;; esac\n"
		    "done; echo \"$r\" > $0.fds",
		    CONF, FLAT_CMD_DEL, NULL, &err),
		0);
	assert_string_equal(read_file("plugin.fds"), "0 1 \n");
}

static void closed_descriptors_do_no_harm(void **state)
{
	struct flat_result result = { 0 };
	struct flat_err err = { 0 };
	(void)state;
	int in = fcntl(0, F_DUPFD_CLOEXEC, 10), out = fcntl(1, F_DUPFD_CLOEXEC, 10);
	write_plugin("plugin", "");
	close(0);
	close(1);
	int r = run("cat > $0.in; echo '" ADDRESS "'", CONF, FLAT_CMD_ADD, &result, &err);
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
	assert_int_equal(r, 0);
	assert_string_equal(read_file("plugin.in"), CONF);
}

static int exec(const char *script, int timeout_ms, struct flat_err *err, char **ret_output)
{
	struct flat_exec job = { .env = environ,
				 .text = CONF,
				 .text_len = strlen(CONF),
				 .max_output = 4096,
				 .timeout_ms = timeout_ms };
	write_plugin("plugin", script);
	job.file = file_path("plugin");
	char *file = strdup(job.file);
	job.file = file;
	int r = flat_exec_run(&job, err);
	free(file);
	if (ret_output)
		*ret_output = job.output;
	else
		free(job.output);
	return r;
}

static bool is_alive(pid_t pid)
{
	char path[64], line[256] = "";
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return false;
	bool alive = fgets(line, sizeof line, file) && !strstr(line, ") Z ");
	fclose(file);
	return alive;
}

static void a_late_plugin_is_killed_with_its_children(void **state)
{
	struct flat_err err = { 0 };
	int64_t start = flat_now_ms();
	(void)state;
	assert_int_equal(exec("trap '' TERM; sleep 30 & echo $! > $0.pid; wait", 300, &err, NULL),
			 -ETIMEDOUT);
	assert_true(flat_now_ms() - start < 5000);
	assert_int_equal(err.code, FLAT_CODE_TRY_LATER);
	assert_non_null(strstr(err.msg, "was not done after 300 ms and was killed"));
	pid_t pid = atoi(read_file("plugin.pid"));
	assert_true(pid > 1);
	for (int i = 0; i < 100 && is_alive(pid); i++)
		flat_sleep_us(10000);
	assert_false(is_alive(pid));
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing left to reap */
	assert_int_equal(errno, ECHILD);
	err = (struct flat_err){ 0 };
	assert_int_equal(exec("while :; do echo xxxxxxxxxxxxxxxxxxxx; done", 10000, &err, NULL),
			 -EFBIG);
}

/* A plugin may start a daemon that keeps the output open; its own end is what counts. */
static void a_daemon_left_behind_is_not_waited_for(void **state)
{
	struct flat_err err = { 0 };
	char *output = NULL;
	int64_t start = flat_now_ms();
	(void)state;
	assert_int_equal(exec("sleep 20 & echo $! > $0.pid; echo answer", 10000, &err, &output), 0);
	assert_string_equal(output, "answer\n");
	assert_true(flat_now_ms() - start < 5000);
	free(output);
	pid_t pid = atoi(read_file("plugin.pid"));
	assert_true(is_alive(pid));
	kill(pid, SIGKILL);
}

/* valgrind turns posix_spawn()'s vfork into a fork: a failing exec is then not told to the parent.
 */
static void skip_under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");
	if (!preload || !strstr(preload, "vgpreload"))
		return;
	print_message("skipped: valgrind hides why a program does not start\n");
	skip();
}

static void what_cannot_start_is_told(void **state)
{
	struct flat_exec job = { .env = environ, .text = "", .max_output = 10, .timeout_ms = 1000 };
	struct flat_err err = { 0 };
	(void)state;
	skip_under_valgrind();
	write_plugin("plugin", "true");
	assert_int_equal(chmod(file_path("plugin"), 0644), 0);
	job.file = file_path("plugin");
	assert_int_equal(flat_exec_run(&job, &err), -EACCES);
	assert_int_equal(err.code, FLAT_CODE_IO);
	assert_non_null(strstr(err.msg, "start '"));
	unlink(file_path("plugin"));
}

/* An executable that is just being replaced: the writer is done after a while. */
static void a_busy_executable_is_tried_again(void **state)
{
	struct flat_err err = { 0 };
	(void)state;
	skip_under_valgrind();
	pid_t pid = fork();
	if (!pid) {
		execlp("cp", "cp", "/bin/true", file_path("busy"), (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	pid = fork();
	if (!pid) {
		int fd = open(file_path("busy"), O_WRONLY);
		flat_sleep_us(fd < 0 ? 0 : 300000);
		_exit(0);
	}
	flat_sleep_us(100000);
	struct flat_exec job = {
		.env = environ,
		.text = "",
		.max_output = 10,
		.timeout_ms = 5000,
		.file = file_path("busy"),
	};
	int64_t start = flat_now_ms();
	int r = flat_exec_run(&job, &err);
	int64_t took = flat_now_ms() - start;
	waitpid(pid, NULL, 0);
	free(job.output);
	if (r < 0)
		fail_msg("%s", err.msg);
	assert_true(took >= 50); /* it had to wait, or this shows nothing */
	assert_int_equal(job.status, 0);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	static const char *const names[] = { "plugin",	   "plugin.env",  "plugin.in",
					     "plugin.log", "plugin.size", "plugin.fds",
					     "plugin.pid", "busy" };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(names); i++)
		unlink(file_path(names[i]));
	rmdir(file_path("empty/plugin"));
	rmdir(file_path("empty"));
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_is_passed_on),
		cmocka_unit_test(names_and_paths_are_checked),
		cmocka_unit_test(errors_are_passed_on),
		cmocka_unit_test(failures_have_their_codes),
		cmocka_unit_test(other_commands_need_no_result),
		cmocka_unit_test(an_earlier_error_stays),
		cmocka_unit_test(large_configurations_do_not_hang),
		cmocka_unit_test(no_other_descriptors_are_passed),
		cmocka_unit_test(closed_descriptors_do_no_harm),
		cmocka_unit_test(a_late_plugin_is_killed_with_its_children),
		cmocka_unit_test(a_daemon_left_behind_is_not_waited_for),
		cmocka_unit_test(what_cannot_start_is_told),
		cmocka_unit_test(a_busy_executable_is_tried_again),
	};
	return cmocka_run_group_tests_name("cni-delegate", tests, make_dir, remove_dir);
}
