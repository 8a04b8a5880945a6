// SPDX-License-Identifier: Apache-2.0
#include "private.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	MAX_OUTPUT = 1 << 20,
	TIMEOUT_MS = 60000,
};

static const char *const assignments[] = {
	[FLAT_CMD_ADD] = "CNI_COMMAND=ADD",	  [FLAT_CMD_DEL] = "CNI_COMMAND=DEL",
	[FLAT_CMD_CHECK] = "CNI_COMMAND=CHECK",	  [FLAT_CMD_GC] = "CNI_COMMAND=GC",
	[FLAT_CMD_STATUS] = "CNI_COMMAND=STATUS", [FLAT_CMD_VERSION] = "CNI_COMMAND=VERSION",
};

/* ---- finding it --------------------------------------------------------------------------------
 */

static int find_plugin(const char *path, const char *type, char *ret_file, size_t size,
		       struct flat_err *err)
{
	char quoted[FLAT_QUOTE], where[FLAT_QUOTE];
	/* CNI spec section 4 wants a bare name: a path would run whatever the configuration says */
	if (!type[0] || strchr(type, '/') || !strcmp(type, ".") || !strcmp(type, ".."))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "plugin %s: a type is the name of an executable, without '/'",
				 flat_quote(type, quoted, sizeof quoted));
	for (const char *dir = path; *dir;) {
		size_t n = strcspn(dir, ":");
		struct stat st;
		int len = snprintf(ret_file, size, "%.*s/%s", (int)n, dir, type);
		if (n && len > 0 && (size_t)len < size && !stat(ret_file, &st) &&
		    S_ISREG(st.st_mode))
			return 0;
		dir += n + (dir[n] == ':');
	}
	flat_fail(err, FLAT_CODE_CONFIG, ENOENT, "find plugin %s in CNI_PATH %s",
		  flat_quote(type, quoted, sizeof quoted),
		  path[0] ? flat_quote(path, where, sizeof where) : "(not set)");
	return flat_detail(err, "install it into a directory of CNI_PATH, or correct the type");
}

bool flat_delegate_is_self(const struct flat_request *req, const char *type)
{
	char file[PATH_MAX];
	struct stat self, other;
	return find_plugin(req->path, type, file, sizeof file, NULL) >= 0 &&
	       !stat("/proc/self/exe", &self) && !stat(file, &other) &&
	       self.st_dev == other.st_dev && self.st_ino == other.st_ino;
}

/* ---- environment -------------------------------------------------------------------------------
 */

/* A new vector of the same strings, with our CNI_COMMAND; the caller frees the vector. */
static char **environ_with(const char *assignment)
{
	size_t count = 0, used = 0;
	while (environ && environ[count])
		count++;
	char **vector = malloc((count + 2) * sizeof *vector);
	if (!vector)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (strncmp(environ[i], "CNI_COMMAND=", 12) != 0)
			vector[used++] = environ[i];
	vector[used++] = (char *)assignment;
	vector[used] = NULL;
	return vector;
}

/* ---- what it says ------------------------------------------------------------------------------
 */

struct plugin_error {
	int32_t code;
	const char *msg, *details;
};

static const struct flat_json_field error_fields[] = {
	{ "code", FLAT_JSON_INT32, offsetof(struct plugin_error, code), .min = 0,
	  .max = INT32_MAX },
	{ "msg", FLAT_JSON_STRING, offsetof(struct plugin_error, msg) },
	{ "details", FLAT_JSON_STRING, offsetof(struct plugin_error, details) },
	FLAT_JSON_END,
};

static int not_json(const struct flat_exec *run, const struct flat_err *why, struct flat_err *err)
{
	char quoted[sizeof err->details];
	if (why->code != FLAT_CODE_DECODE) /* no memory */
		return flat_no_memory(err);
	flat_fail(err, FLAT_CODE_DECODE, 0, "its output is %s", why->msg);
	return flat_detail(err, "it wrote %s", flat_quote(run->output, quoted, 200));
}

/* Exit code not 0: its error, with its own code. */
static int pass_on_error(const struct flat_exec *run, struct flat_arena *arena,
			 struct flat_err *err)
{
	struct plugin_error error = { 0 };
	struct flat_json *json = NULL;
	struct flat_err why = { 0 };
	int status = WEXITSTATUS(run->status);
	if (!run->output_len)
		return flat_fail(err, FLAT_CODE_INTERNAL, 0,
				 "exit status %d without an error message", status);
	if (flat_json_parse(run->output, run->output_len, &json, &why) < 0)
		return not_json(run, &why, err);
	int r = flat_json_decode(json, "", error_fields, &error, arena, &why);
	flat_json_free(json);
	if (r < 0)
		return flat_fail(err, FLAT_CODE_DECODE, 0,
				 "exit status %d, and its error is malformed: %s", status, why.msg);
	flat_fail(err, error.code ? error.code : (int)FLAT_CODE_INTERNAL, 0, "%s",
		  error.msg && error.msg[0] ? error.msg : "it failed without a message");
	if (error.details && error.details[0])
		flat_detail(err, "%s", error.details);
	return -EINVAL;
}

static int read_result(const struct flat_exec *run, struct flat_request *req,
		       struct flat_result *ret_result, struct flat_err *err)
{
	struct flat_result result = { 0 };
	struct flat_json *json = NULL;
	struct flat_err why = { 0 };
	if (flat_json_parse(run->output ? run->output : "", run->output_len, &json, &why) < 0)
		return run->output_len ? not_json(run, &why, err)
				       : flat_fail(err, FLAT_CODE_DECODE, 0,
						   "it wrote no result to its standard output");
	int r = 0;
	if (!flat_json_is_null(json)) /* null: what a Go program prints for an empty result */
		r = flat_result_parse(json, req->version, "result", &req->arena, &result, err);
	flat_json_free(json);
	if (r >= 0 && !result.ip_count)
		r = flat_fail(err, FLAT_CODE_CONFIG, 0, "its result has no address");
	if (r < 0)
		return r;
	*ret_result = result;
	return 0;
}

static int judge(const struct flat_exec *run, struct flat_request *req, enum flat_command command,
		 struct flat_result *ret_result, struct flat_err *err)
{
	if (WIFSIGNALED(run->status))
		return flat_fail(err, FLAT_CODE_INTERNAL, 0, "killed by signal %d (%s)",
				 WTERMSIG(run->status), strsignal(WTERMSIG(run->status)));
	if (WEXITSTATUS(run->status) != 0)
		return pass_on_error(run, &req->arena, err);
	return command == FLAT_CMD_ADD && ret_result ? read_result(run, req, ret_result, err) : 0;
}

/* ---- one run -----------------------------------------------------------------------------------
 */

static int run_once(struct flat_request *req, const char *file, enum flat_command command,
		    struct flat_result *ret_result, struct flat_err *err)
{
	flat_auto_free char **env = environ_with(assignments[command]);
	struct flat_exec run = {
		.file = file,
		.env = env,
		.text = req->text,
		.text_len = req->text_len,
		.max_output = MAX_OUTPUT,
		.timeout_ms = TIMEOUT_MS,
	};
	if (!env)
		return flat_no_memory(err);
	int r = flat_exec_run(&run, err);
	if (r >= 0)
		r = judge(&run, req, command, ret_result, err);
	free(run.output);
	return r;
}

int flat_delegate_run(struct flat_request *req, const char *type, enum flat_command command,
		      struct flat_result *ret_result, struct flat_err *err)
{
	char file[PATH_MAX], quoted[FLAT_QUOTE];
	struct flat_err failure = { 0 };
	int r = find_plugin(req->path ? req->path : "", type, file, sizeof file, err);
	if (r < 0)
		return r;
	/* its own error object: *err may hold an earlier error, which is not this plugin's */
	r = run_once(req, file, command, ret_result, &failure);
	if (r >= 0)
		return 0;
	/* CNI spec section 4: a failed ADD may have left something behind */
	if (command == FLAT_CMD_ADD)
		run_once(req, file, FLAT_CMD_DEL, NULL, NULL);
	flat_wrap(&failure, "plugin %s", flat_quote(type, quoted, sizeof quoted));
	if (err && err->code == FLAT_CODE_NONE)
		*err = failure;
	return r;
}
