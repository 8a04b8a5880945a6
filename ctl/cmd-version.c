// SPDX-License-Identifier: Apache-2.0
#include "agent.h"
#include "versions.h"

#include <string.h>
#include <sys/utsname.h>

static const struct flat_column columns[] = {
	{ .key = "program", .title = "PROGRAM" },
	{ .key = "version", .title = "VERSION", .toned = true },
	{ .key = "path", .title = "WHERE" },
	{ .key = "remark", .title = "REMARK", .spare = true },
};

/* Of one build they should be; a mixture is told, not refused. */
static bool add(struct flat_ctl *ctl, struct flat_table *table, const char *program,
		const char *version, const char *path, const char *remark)
{
	const bool same = !version || !strcmp(version, FLAT_VERSION);
	const char *cells[FLAT_LEN(columns)] = { program, version, path,
						 same ? remark
						      : "another version than this flatnetctl" };
	flat_table_add(&ctl->report, table,
		       !same	 ? FLAT_TONE_BAD
		       : version ? FLAT_TONE_GOOD
				 : FLAT_TONE_DOUBT,
		       cells);
	return same;
}

static int run(struct flat_ctl *ctl, struct flat_err *err)
{
	static const char *const plugins[] = { "flatnet", "flatnet-ipam" };
	const struct flat_table head = {
		.key = "programs", .none = "", .columns = columns, .column_count = FLAT_LEN(columns)
	};
	struct flat_report *report = &ctl->report;
	struct flat_agent_word agent;
	struct utsname kernel;
	bool same = true;
	int r = flat_agent_ask(ctl, &agent, err);
	if (r < 0)
		return r;
	struct flat_table *table = flat_report_table(report, &head);
	add(ctl, table, "flatnetctl", FLAT_VERSION, NULL, NULL);
	for (size_t i = 0; i < FLAT_LEN(plugins); i++) {
		const char *why = NULL;
		const char *path = flat_format(report, "%s/%s",
					       ctl->plugin_dir ? ctl->plugin_dir : FLAT_PLUGIN_DIR,
					       plugins[i]);
		const char *version = flat_version_of(ctl, path, &why);
		same = add(ctl, table, plugins[i], version, path, why) && same;
	}
	same = add(ctl, table, "flatnetd", agent.version,
		   flat_format(report, "http://%s", agent.address),
		   agent.reached ? NULL : "nobody answers there") &&
	       same;
	if (uname(&kernel) >= 0)
		flat_report_fact(report,
				 &(struct flat_fact){ .key = "kernel",
						      .title = "kernel",
						      .value = flat_format(report, "%s %s",
									   kernel.sysname,
									   kernel.release) });
	flat_report_fact(report, &(struct flat_fact){
					 .key = "cniVersions",
					 .title = "CNI",
					 .kind = FLAT_KIND_LIST,
					 .value = "0.1.0,0.2.0,0.3.0,0.3.1,0.4.0,1.0.0,1.1.0" });
	return same ? FLAT_EXIT_OK : FLAT_EXIT_WRONG;
}

const struct flat_ctl_command flat_command_version = {
	.name = "version",
	.arguments = "",
	.about = "versions of what is installed and running here",
	.help = "Tells the versions of flatnetctl, of the installed plugins (they are started to say\n"
		"so), of the agent that runs, and of the kernel.\n\n"
		"Exit status 1: they are not all of one version. What is not there does not count.",
	.options = FLAT_OPTION_PLUGIN_DIR | FLAT_OPTION_AGENT,
	.run = run,
};
