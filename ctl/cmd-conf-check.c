// SPDX-License-Identifier: Apache-2.0
/*
 * A file of configuration, read as the runtime reads it and then as each plugin of ours would: by
 * the same code. What depends on this node and is not there yet (the agent's file with its subnet)
 * is no fault of the file.
 */
#include "example.h"

#include <string.h>

static const struct flat_column columns[] = {
	{ .key = "plugin", .title = "PLUGIN" },
	{ .key = "type", .title = "TYPE" },
	{ .key = "result", .title = "RESULT", .toned = true },
	{ .key = "remark", .title = "REMARK", .spare = true },
};

struct check {
	struct flat_ctl *ctl;
	struct flat_table *table;
	const char *path;
	bool wrong;
};

static void add_row(struct check *c, const char *place, const char *type, enum flat_tone tone,
		    const char *result, const char *remark)
{
	const char *cells[FLAT_LEN(columns)] = { place, type, result, remark };
	flat_table_add(&c->ctl->report, c->table, tone, cells);
	c->wrong = c->wrong || tone == FLAT_TONE_BAD;
}

struct remark {
	struct flat_report *report;
	const char *text;
};

static void remember(void *arg, const char *line)
{
	struct remark *remark = arg;
	remark->text = flat_keep(remark->report, line);
}

static int check_own(struct check *c, struct flat_request *req, const char **ret_remark,
		     struct flat_err *err)
{
	struct remark remark = { .report = &c->ctl->report };
	const struct flat_log log = { remember, &remark };
	flat_auto_net *net = NULL;
	struct flat_conf conf;
	struct flat_attachment *attachment = flat_arena_alloc(&req->arena, sizeof *attachment);
	if (!attachment)
		return flat_fail(err, FLAT_CODE_INTERNAL, 0, "out of memory");
	int r = flat_conf_check_keys(req, err);
	if (r >= 0)
		r = flat_net_open(&net, err);
	if (r >= 0)
		r = flat_conf_parse(req, &flat_defaults_flatnet, &c->ctl->host, net, &log, &conf,
				    err);
	if (r >= 0)
		r = flat_example_plan(req, &conf, NULL, attachment, err);
	*ret_remark = remark.text;
	return r;
}

static int check_request(struct check *c, const struct flat_plugin_conf *plugin,
			 struct flat_request *req, const char **ret_remark, struct flat_err *err)
{
	struct flat_ipam_conf ipam;
	int r = flat_plugin_request(c->ctl, plugin, req, err);
	if (r < 0)
		return r;
	if (!strcmp(plugin->type, "flatnet"))
		return check_own(c, req, ret_remark, err);
	if (req->ipam_type && !strcmp(req->ipam_type, "flatnet-ipam")) {
		/* flannel puts one in before it delegates */
		if (!flat_ipam_conf_has_range(req)) {
			*ret_remark =
				"names no range for flatnet-ipam: the plugin has to put it in";
			return 0;
		}
		return flat_ipam_conf_parse(req, FLAT_IPAM_DATA_DIR, NULL, &ipam, err);
	}
	*ret_remark = "another vendor's: only what every plugin has was looked at";
	return 0;
}

static int check_plugin(struct check *c, const struct flat_conf_file *file, size_t i,
			struct flat_err *err)
{
	struct flat_report *report = &c->ctl->report;
	const struct flat_plugin_conf *plugin = &file->plugins[i];
	const char *place = file->is_list ? flat_format(report, "plugins[%zu]", i) : "";
	const char *type = flat_keep(report, plugin->type), *remark = NULL;
	struct flat_request req = { 0 };
	struct flat_err why = { 0 };
	int r = check_request(c, plugin, &req, &remark, &why);
	if (r >= 0) {
		add_row(c, place, type, FLAT_TONE_GOOD, "right", remark);
	} else if (why.code == FLAT_CODE_INTERNAL || why.code == FLAT_CODE_NETWORK) {
		*err = why;
	} else if (why.code == FLAT_CODE_TRY_LATER) {
		add_row(c, place, type, FLAT_TONE_DOUBT, "right so far",
			flat_format(report, "not on this node yet: %s", why.msg));
		r = 0;
	} else {
		add_row(c, place, type, FLAT_TONE_BAD, "wrong", remark);
		flat_report_problem(report, NULL,
				    why.details[0] ? why.details
						   : "correct this value, and check again",
				    "%.200s: %s%s%s", c->path, place, place[0] ? ": " : "",
				    why.msg);
		r = 0;
	}
	flat_request_free(&req);
	return r;
}

/* The agent's has neither plugins nor a type. */
static bool is_agents(const char *text, size_t len)
{
	static const char *const keys[] = { "source", "vxlan", "backend", "stateFile" };
	struct flat_json *json = NULL;
	bool found = false;
	if (flat_json_parse(text, len, &json, NULL) < 0)
		return false;
	if (!flat_json_get(json, "plugins") && !flat_json_get(json, "type"))
		for (size_t i = 0; i < FLAT_LEN(keys) && !found; i++)
			found = flat_json_get(json, keys[i]);
	flat_json_free(json);
	return found;
}

static int run(struct flat_ctl *ctl, struct flat_err *err)
{
	const struct flat_table head = { .key = "plugins",
					 .none = "no plugin was looked at",
					 .columns = columns,
					 .column_count = FLAT_LEN(columns) };
	struct flat_report *report = &ctl->report;
	struct check c = { .ctl = ctl, .path = ctl->args[0] };
	struct flat_conf_file file = { 0 };
	struct flat_err why = { 0 };
	const char *text = NULL;
	size_t len = 0;
	int r = flat_file_read(ctl, c.path, &text, &len, err);
	if (r < 0)
		return r;
	report->has_problems = true;
	if (is_agents(text, len)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "'%.200s' is the agent's configuration, not CNI's", c.path);
		flat_detail(err, "flatnetd --config %.200s --check-config", c.path);
		return FLAT_EXIT_FAILED;
	}
	r = flat_conf_file_parse(text, len, &ctl->arena, &file, &why);
	if (r < 0 && why.code == FLAT_CODE_INTERNAL) {
		*err = why;
		return r;
	}
	if (r < 0) {
		flat_report_problem(report, NULL,
				    why.details[0] ? why.details
						   : "correct this value, and check again",
				    "%.200s: %s", c.path, why.msg);
		return FLAT_EXIT_WRONG;
	}
	flat_report_fact(report, &(struct flat_fact){ .key = "file", .value = c.path });
	flat_report_fact(report, &(struct flat_fact){ .key = "network", .value = file.name });
	c.table = flat_report_table(report, &head);
	for (size_t i = 0; i < file.plugin_count && r >= 0; i++)
		r = check_plugin(&c, &file, i, err);
	return r < 0 ? r : c.wrong ? FLAT_EXIT_WRONG : FLAT_EXIT_OK;
}

const struct flat_ctl_command flat_command_conf_check = {
	.name = "conf check",
	.arguments = "FILE",
	.about = "is this CNI configuration right? where not, and what instead?",
	.help = "Reads a CNI configuration file (.conflist, .conf) as a runtime and the plugins do, and\n"
		"says where it is wrong: the path of the key, what is allowed, the cure. Keys that\n"
		"nobody knows are wrong, too: runtimes would pass over a misspelt one in silence.\n"
		"Changes nothing.\n\n"
		"A list of nodes must have this node in it; --node says which one this is, for a file\n"
		"that is meant for another node.\n\n"
		"Exit status 1: it is wrong; 3: it cannot be read.",
	.options = FLAT_OPTION_NODE,
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
