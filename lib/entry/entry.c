// SPDX-License-Identifier: Apache-2.0
#include <flatnet/entry.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { INPUT_TIMEOUT_MS = 30000, PROBE_TIMEOUT_MS = 1000 };

static void say(void *arg, const char *line)
{
	const struct flat_plugin *plugin = arg;
	fprintf(stderr, "%s: %s\n", plugin->name, line);
}

static int about(const struct flat_plugin *plugin)
{
	fprintf(stderr,
		"%s " FLAT_VERSION ": %s\n"
		"CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
		"Container runtimes start it; by hand, use cnitool. See %s(8).\n",
		plugin->name, plugin->about, plugin->manual);
	return EXIT_SUCCESS;
}

static int fail(const struct flat_plugin *plugin, const struct flat_err *err,
		enum flat_version version)
{
	flat_auto_free char *text = flat_error_print(err, version);
	char plain[64] = "";
	if (!text) /* no memory to print with: that can still be told */
		snprintf(plain, sizeof plain, "{\"code\":%d,\"msg\":\"out of memory\"}", err->code);
	if (flat_output_write(STDOUT_FILENO, text ? text : plain, NULL) < 0)
		say((void *)plugin, err->msg); /* nobody reads standard output */
	return EXIT_FAILURE;
}

static int answer_version(const struct flat_plugin *plugin)
{
	flat_auto_free char *input = NULL;
	flat_auto_free char *text = NULL;
	struct flat_err err = { 0 };
	size_t len = 0;
	/* it answers whatever is on standard input, even if that is never closed */
	if (flat_input_read(STDIN_FILENO, PROBE_TIMEOUT_MS, &input, &len, NULL) < 0)
		len = 0;
	text = flat_version_print(input ? input : "", len);
	if (!text)
		flat_fail(&err, FLAT_CODE_INTERNAL, ENOMEM, "VERSION");
	return text && flat_output_write(STDOUT_FILENO, text, &err) >= 0
		       ? EXIT_SUCCESS
		       : fail(plugin, &err, FLAT_VERSION_1_1_0);
}

int flat_plugin_main(const struct flat_plugin *plugin)
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
	const struct flat_log log = { .say = say, .arg = (void *)plugin };
	struct flat_request req = { .version = FLAT_VERSION_1_1_0 };
	struct flat_err err = { 0 };
	flat_auto_free char *input = NULL;
	enum flat_command command;
	size_t len = 0;

	signal(SIGPIPE, SIG_IGN); /* a reader that went away is an error to undo, not our end */
	int r = flat_command_parse(env.command, &command, &err);
	if (r == -ENOENT && !err.code)
		return about(plugin);
	if (r >= 0 && command == FLAT_CMD_VERSION)
		return answer_version(plugin);
	if (r >= 0)
		r = flat_input_read(STDIN_FILENO, INPUT_TIMEOUT_MS, &input, &len, &err);
	if (r >= 0)
		r = flat_request_parse(&env, input, len, &req, &err);
	if (r >= 0)
		r = plugin->carry_out(plugin->arg, &req, &log, STDOUT_FILENO, &err);
	int status = r < 0 ? fail(plugin, &err, req.version) : EXIT_SUCCESS;
	flat_request_free(&req);
	return status;
}
