// SPDX-License-Identifier: Apache-2.0
/*
 * Whatever comes in by environment and standard input: no crash, no leak, and what we print is
 * JSON that we read back to the same.
 *
 * Input: one byte for the command, CNI_ARGS up to the first newline, the configuration.
 */
#include <flatnet/cni.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static struct flat_json *read_back(const char *text)
{
	struct flat_json *json = NULL;
	struct flat_err err = { 0 };
	if (flat_json_parse(text, strlen(text), &json, &err) < 0)
		fprintf(stderr, "%s\n%s\n", err.msg, text);
	must(json != NULL, "printed text is JSON");
	return json;
}

static void check_error(const struct flat_err *err, enum flat_version version)
{
	must(err->code != 0, "a failure has a code");
	must(err->msg[0], "a failure has a message");
	flat_auto_free char *text = flat_error_print(err, version);
	flat_json_free(read_back(text));
}

static void check_result(const struct flat_result *result)
{
	for (int v = FLAT_VERSION_0_1_0; v <= FLAT_VERSION_1_1_0; v++) {
		enum flat_version version = (enum flat_version)v;
		flat_auto_free char *text = NULL, *again = NULL;
		struct flat_arena arena = { 0 };
		struct flat_result second = { 0 };
		struct flat_err err = { 0 };
		if (flat_result_print(result, version, &text, &err) < 0) {
			check_error(&err, version);
			continue;
		}
		struct flat_json *json = read_back(text);
		int r = flat_result_parse(json, version, "r", &arena, &second, &err);
		if (r < 0)
			fprintf(stderr, "%s\n%s\n", err.msg, text);
		must(r >= 0, "a printed result is a result");
		must(flat_result_print(&second, version, &again, &err) >= 0, "printed again");
		must(!strcmp(text, again), "printed to the same");
		flat_json_free(json);
		flat_arena_free(&arena);
	}
}

static void try_request(const char *command, const char *args, const char *text, size_t len)
{
	struct flat_env env = {
		.command = command,
		.container_id = "c1",
		.netns = "/run/netns/c1",
		.ifname = args[0] ? args : "eth0",
		.args = args,
	};
	for (int i = 0; i < 2; i++, env.ifname = "eth0") {
		struct flat_request req = { 0 };
		struct flat_err err = { 0 };
		if (flat_request_parse(&env, text, len, &req, &err) < 0)
			check_error(&err, req.version);
		else if (req.prev_result)
			check_result(req.prev_result);
		flat_request_free(&req);
	}
}

static void try_results(const char *text, size_t len)
{
	struct flat_json *json = NULL;
	if (flat_json_parse(text, len, &json, NULL) < 0)
		return;
	for (int v = FLAT_VERSION_0_2_0; v <= FLAT_VERSION_1_1_0; v += FLAT_VERSION_1_0_0) {
		struct flat_arena arena = { 0 };
		struct flat_result result = { 0 };
		struct flat_err err = { 0 };
		if (flat_result_parse(json, (enum flat_version)v, "r", &arena, &result, &err) < 0)
			check_error(&err, FLAT_VERSION_1_1_0);
		else
			check_result(&result);
		flat_arena_free(&arena);
	}
	flat_json_free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const commands[] = { "ADD", "DEL", "CHECK", "GC", "STATUS", "NONE" };
	if (size < 2)
		return 0;
	const char *command = commands[data[0] % FLAT_LEN(commands)];
	const uint8_t *line = data + 1, *end = memchr(line, '\n', size - 1);
	size_t line_len = end ? (size_t)(end - line) : 0;
	const char *text = (const char *)(end ? end + 1 : line);
	size_t len = (size_t)((const char *)data + size - text);
	flat_auto_free char *args = strndup((const char *)line, line_len);
	try_request(command, args, text, len);
	try_results(text, len);
	flat_auto_free char *version = flat_version_print(text, len);
	flat_json_free(read_back(version));
	return 0;
}
