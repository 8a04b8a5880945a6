// SPDX-License-Identifier: Apache-2.0
/*
 * flatnetctl: the person's tool. Reads the command line and the environment, has one command
 * carried out, prints its report once.
 */
#include "ctl.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_error(const struct flat_err *err)
{
	fprintf(stderr, "flatnetctl: %s\n", err->msg);
	if (err->details[0])
		fprintf(stderr, "flatnetctl: %s\n", err->details);
}

/* no-color.org; TERM=dumb is how Emacs and others say it. */
static bool wants_colour(const char *when)
{
	const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
	if (when && strcmp(when, "auto") != 0)
		return !strcmp(when, "always");
	return isatty(STDOUT_FILENO) && !(no_colour && no_colour[0]) && term &&
	       strcmp(term, "dumb") != 0;
}

static int carry_out(struct flat_ctl *ctl, const struct flat_ctl_command *command)
{
	struct flat_err err = { 0 };
	int status = command->run(ctl, &err);
	if (status >= 0 && flat_report_end(&ctl->report, &err) < 0)
		status = -1;
	if (status < 0)
		status = FLAT_EXIT_FAILED;
	if (ctl->json)
		flat_report_print_json(&ctl->report, ctl->out, &err);
	else
		flat_report_print(&ctl->report, ctl->out, ctl->colour);
	if (err.code) { /* after what was found out before, and not between */
		fflush(ctl->out);
		print_error(&err);
	}
	return status;
}

int main(int argc, char **argv)
{
	static struct flat_ctl ctl;
	static char host_name[FLAT_NODE_NAME_MAX + 3];
	struct flat_err err = { 0 };
	struct flat_line line;

	signal(SIGPIPE, SIG_IGN);
	gethostname(host_name, sizeof host_name - 1);
	ctl.out = stdout;
	ctl.host = (struct flat_host){ .node_name = getenv("NODE_NAME"), .host_name = host_name };
	ctl.report.arena = &ctl.arena;
	int status = FLAT_EXIT_OK;
	if (flat_line_parse(argc, argv, &ctl, &line, &err) < 0) {
		print_error(&err);
		status = FLAT_EXIT_USAGE;
	} else if (line.help) {
		flat_help_print(stdout, line.command);
	} else if (!line.command) {
		flat_help_print(stderr, NULL);
		status = FLAT_EXIT_USAGE;
	} else {
		ctl.colour = wants_colour(line.colour);
		ctl.args = line.args;
		ctl.arg_count = line.arg_count;
		if (ctl.node_name)
			ctl.host.node_name = ctl.node_name;
		status = carry_out(&ctl, line.command);
	}
	flat_arena_free(&ctl.arena);
	if (fflush(stdout) || ferror(stdout)) { /* a full disk, a reader that went away */
		fputs("flatnetctl: cannot write to standard output\n", stderr);
		status = status ? status : FLAT_EXIT_FAILED;
	}
	return status;
}
