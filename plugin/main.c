// SPDX-License-Identifier: Apache-2.0
/*
 * flatnet: the CNI plugin. Reads what the runtime sends, calls the verb, prints once, exits.
 */
#include "verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_TIMEOUT_MS = 30000 };

static void say(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "flatnet: %s\n", line);
}

static int about(void)
{
	fprintf(stderr,
		"flatnet " FLAT_VERSION ": CNI plugin, flat pod network on a bridge\n"
		"CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
		"It is run by a container runtime, or by hand with cnitool; see flatnet(8).\n");
	return 0;
}

static int fail(const struct flat_err *err, enum flat_version version)
{
	flat_auto_free char *text = flat_error_print(err, version);
	struct flat_err ignored = { 0 };
	if (text)
		flat_output_write(STDOUT_FILENO, text, &ignored);
	return 1;
}

static int print_version(void)
{
	flat_auto_free char *input = NULL;
	flat_auto_free char *text = NULL;
	struct flat_err err = { 0 };
	size_t len = 0;
	/* a runtime that probes may keep standard input open, or give none */
	if (flat_input_read(STDIN_FILENO, 1000, &input, &len, &err) < 0)
		len = 0;
	err = (struct flat_err){ 0 };
	text = flat_version_print(input ? input : "", len);
	if (!text)
		flat_fail(&err, FLAT_CODE_INTERNAL, ENOMEM, "VERSION");
	return text && flat_output_write(STDOUT_FILENO, text, &err) >= 0
		       ? 0
		       : fail(&err, FLAT_VERSION_1_1_0);
}

static int carry_out(struct flat_call *call, struct flat_err *err)
{
	switch (call->req.command) {
	case FLAT_CMD_ADD:
		return flat_verb_add(call, err);
	case FLAT_CMD_DEL:
		return flat_verb_del(call, err);
	case FLAT_CMD_CHECK:
		return flat_verb_check(call, err);
	case FLAT_CMD_GC:
		return flat_verb_gc(call, err);
	case FLAT_CMD_STATUS:
		return flat_verb_status(call, err);
	case FLAT_CMD_VERSION:
		break;
	}
	return flat_fail(err, FLAT_CODE_ENV, 0, "unknown CNI_COMMAND");
}

int main(void)
{
	const struct flat_env env = {
		.command = getenv("CNI_COMMAND"),
		.container_id = getenv("CNI_CONTAINERID"),
		.netns = getenv("CNI_NETNS"),
		.ifname = getenv("CNI_IFNAME"),
		.args = getenv("CNI_ARGS"),
		.path = getenv("CNI_PATH"),
		.netns_override = getenv("CNI_NETNS_OVERRIDE"),
	};
	char host_name[256] = "";
	struct flat_call call = {
		.host = { .node_name = getenv("NODE_NAME"), .host_name = host_name },
		.log = { .say = say },
		.output_fd = STDOUT_FILENO,
	};
	struct flat_err err = { 0 };
	flat_auto_free char *input = NULL;
	enum flat_command command;
	size_t len;

	signal(SIGPIPE, SIG_IGN);
	int r = flat_command_parse(env.command, &command, &err);
	if (r == -ENOENT && !err.code)
		return about();
	if (r < 0)
		return fail(&err, FLAT_VERSION_1_1_0);
	if (command == FLAT_CMD_VERSION)
		return print_version();

	gethostname(host_name, sizeof host_name - 1);
	r = flat_input_read(STDIN_FILENO, INPUT_TIMEOUT_MS, &input, &len, &err);
	if (r < 0)
		return fail(&err, FLAT_VERSION_1_1_0);
	r = flat_request_parse(&env, input, len, &call.req, &err);
	if (r >= 0)
		r = carry_out(&call, &err);
	int status = r < 0 ? fail(&err, call.req.version) : 0;
	flat_request_free(&call.req);
	return status;
}
