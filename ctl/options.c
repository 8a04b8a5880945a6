// SPDX-License-Identifier: Apache-2.0
/*
 * The command line, by two tables: commands and options. Help and completion are printed from the
 * same tables, so they cannot tell of anything that is not there.
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

const struct flat_option flat_options[] = {
	{ .name = "network",
	  .value = "NAME",
	  .about = "look at this network only",
	  .bit = FLAT_OPTION_NETWORK,
	  .offset = offsetof(struct flat_ctl, network) },
	{ .name = "conf-dir",
	  .value = "DIR",
	  .about = "where CNI configurations are (/etc/cni/net.d)",
	  .bit = FLAT_OPTION_CONF_DIR,
	  .offset = offsetof(struct flat_ctl, conf_dir) },
	{ .name = "data-dir",
	  .value = "DIR",
	  .about = "where addresses are kept (ipam.dataDir of the configurations, and "
		   "/run/flatnet/ipam)",
	  .bit = FLAT_OPTION_DATA_DIR,
	  .offset = offsetof(struct flat_ctl, data_dir) },
	{ .name = "nodes-file",
	  .value = "FILE",
	  .about =
		  "the list of nodes (that of the CNI configuration, else what the agent remembers)",
	  .bit = FLAT_OPTION_NODES,
	  .offset = offsetof(struct flat_ctl, nodes_file) },
	{ .name = "state-file",
	  .value = "FILE",
	  .about = "where the agent remembers nodes (/var/lib/flatnet/state.json)",
	  .bit = FLAT_OPTION_STATE,
	  .offset = offsetof(struct flat_ctl, state_file) },
	{ .name = "node",
	  .value = "NAME",
	  .about =
		  "which node of the list this one is ($NODE_NAME, the host's name, or by address)",
	  .bit = FLAT_OPTION_NODE,
	  .offset = offsetof(struct flat_ctl, node_name) },
	{ .name = "agent",
	  .value = "ADDRESS:PORT",
	  .about = "where flatnetd serves health and metrics (127.0.0.1:9464)",
	  .bit = FLAT_OPTION_AGENT,
	  .offset = offsetof(struct flat_ctl, agent) },
	{ .name = "plugin-dir",
	  .value = "DIR",
	  .about = "where the plugins are (" FLAT_PLUGIN_DIR ")",
	  .bit = FLAT_OPTION_PLUGIN_DIR,
	  .offset = offsetof(struct flat_ctl, plugin_dir) },
	{ .name = "no-ping",
	  .about = "do not ask the other nodes whether they are there",
	  .bit = FLAT_OPTION_NO_PING,
	  .offset = offsetof(struct flat_ctl, no_ping) },
	{ .name = "leaked",
	  .about = "all that are leaked, of all networks or of --network",
	  .bit = FLAT_OPTION_LEAKED,
	  .offset = offsetof(struct flat_ctl, leaked) },
	{ .name = "foreign",
	  .about = "another program's, too, when nobody answers at its address",
	  .bit = FLAT_OPTION_FOREIGN,
	  .offset = offsetof(struct flat_ctl, foreign) },
	{ .name = "json",
	  .about = "one JSON object, for programs",
	  .offset = offsetof(struct flat_ctl, json) },
	{ .name = "color",
	  .value = "WHEN",
	  .about = "auto, always or never",
	  .choice = "auto always never" },
	{ .name = "help", .about = "this text" },
	{ .name = NULL },
};

/* ---- commands ----------------------------------------------------------------------------------
 */

static const struct flat_ctl_command *const commands[] = {
	&flat_command_status,	 &flat_command_pods,	   &flat_command_ipam_list,
	&flat_command_ipam_show, &flat_command_ipam_check, &flat_command_ipam_release,
	&flat_command_nodes,	 &flat_command_routes,	   &flat_command_conf_check,
	&flat_command_version,	 &flat_command_completion,
};

const struct flat_ctl_command *flat_command_at(size_t i)
{
	return i < FLAT_LEN(commands) ? commands[i] : NULL;
}

/* How many of the words are the command's name; 0: they are another one's. */
static size_t matches(const char *name, char *const *words, size_t count)
{
	const size_t first = strcspn(name, " ");
	if (!count || strncmp(name, words[0], first) || words[0][first])
		return 0;
	if (!name[first])
		return 1;
	return count > 1 && !strcmp(name + first + 1, words[1]) ? 2 : 0;
}

static bool is_group(const char *word)
{
	const size_t len = strlen(word);
	for (size_t i = 0; i < FLAT_LEN(commands); i++)
		if (!strncmp(commands[i]->name, word, len) && commands[i]->name[len] == ' ')
			return true;
	return false;
}

static int find_command(char *const *words, size_t count,
			const struct flat_ctl_command **ret_command, struct flat_err *err)
{
	char known[256] = "";
	size_t n = 0;
	for (size_t i = 0; i < FLAT_LEN(commands); i++) {
		const size_t used = matches(commands[i]->name, words, count);
		if (used) {
			*ret_command = commands[i];
			return (int)used;
		}
	}
	const bool group = is_group(words[0]);
	for (size_t i = 0; i < FLAT_LEN(commands); i++) {
		if (group && strncmp(commands[i]->name, words[0], strlen(words[0])) != 0)
			continue;
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
				      commands[i]->name);
	}
	if (group && count == 1)
		flat_fail(err, FLAT_CODE_CONFIG, 0, "'%.32s' what?", words[0]);
	else
		flat_fail(err, FLAT_CODE_CONFIG, 0, "there is no command '%.32s%s%.32s'", words[0],
			  group ? " " : "", group ? words[1] : "");
	return flat_detail(err, "there are: %s", known);
}

/* ---- options -----------------------------------------------------------------------------------
 */

static const struct flat_option *find_option(const char *text, size_t len)
{
	for (const struct flat_option *o = flat_options; o->name; o++)
		if (strlen(o->name) == len && !strncmp(o->name, text, len))
			return o;
	return NULL;
}

static bool is_choice(const char *choice, const char *value)
{
	const size_t len = strlen(value);
	for (const char *at = choice; len && (at = strstr(at, value)); at++)
		if ((at == choice || at[-1] == ' ') && (!at[len] || at[len] == ' '))
			return true;
	return false;
}

static int take_option(const struct flat_option *o, const char *value, struct flat_ctl *ctl,
		       struct flat_line *line, struct flat_err *err)
{
	if (o->choice && (!value || !is_choice(o->choice, value)))
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "--%s: '%.32s' is none of: %s", o->name,
				 value ? value : "", o->choice);
	if (!strcmp(o->name, "help"))
		line->help = true;
	else if (!strcmp(o->name, "color"))
		line->colour = value;
	else if (o->value)
		*(const char **)((char *)ctl + o->offset) = value;
	else
		*(bool *)((char *)ctl + o->offset) = true;
	return 0;
}

/* argv[*at] is an option, its value may be the next one. Returns its bit. */
static int parse_option(int argc, char **argv, int *at, struct flat_ctl *ctl,
			struct flat_line *line, struct flat_err *err)
{
	const char *text = argv[*at] + 2;
	const size_t len = strcspn(text, "=");
	const struct flat_option *o = find_option(text, len);
	const char *value = text[len] ? text + len + 1 : NULL;
	int r;
	if (!o) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "there is no option '%.40s'", argv[*at]);
		return flat_detail(err, "--help tells which there are");
	}
	if (!o->value && value)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "--%s takes no value", o->name);
	if (o->value && !value) {
		if (*at + 1 >= argc || !strncmp(argv[*at + 1], "--", 2))
			return flat_fail(err, FLAT_CODE_CONFIG, 0, "--%s: %s is missing", o->name,
					 o->value);
		value = argv[++*at];
	}
	r = take_option(o, value, ctl, line, err);
	return r < 0 ? r : (int)o->bit;
}

/* Does the command take all options that were given? */
static int check_options(const struct flat_ctl_command *command, unsigned given,
			 struct flat_err *err)
{
	for (const struct flat_option *o = flat_options; o->name; o++)
		if (given & o->bit & ~command->options) {
			flat_fail(err, FLAT_CODE_CONFIG, 0, "'%s' takes no --%s", command->name,
				  o->name);
			return flat_detail(err, "flatnetctl %s --help tells what it takes",
					   command->name);
		}
	return 0;
}

int flat_line_parse(int argc, char **argv, struct flat_ctl *ctl, struct flat_line *ret_line,
		    struct flat_err *err)
{
	struct flat_line *line = ret_line;
	unsigned given = 0;
	bool only_words = false;
	int r, first = 0;
	*line = (struct flat_line){ .args = argv + 1 };
	for (int i = 1; i < argc; i++) {
		if (!only_words && !strcmp(argv[i], "--")) {
			only_words = true;
		} else if (!only_words && !strcmp(argv[i], "-h")) {
			line->help = true;
		} else if (!only_words && argv[i][0] == '-' && argv[i][1]) {
			if (argv[i][1] != '-') {
				flat_fail(err, FLAT_CODE_CONFIG, 0, "there is no option '%.40s'",
					  argv[i]);
				return flat_detail(err, "options begin with --; -h is --help");
			}
			r = parse_option(argc, argv, &i, ctl, line, err);
			if (r < 0)
				first = first < 0 ? first : r;
			else
				given |= (unsigned)r;
		} else {
			line->args[line->arg_count++] = argv[i];
		}
	}
	if (!line->arg_count)
		return first;
	if (!strcmp(line->args[0], "help")) {
		line->help = true;
		line->args++;
		if (!--line->arg_count)
			return first;
	}
	if (line->help && line->arg_count == 1 && is_group(line->args[0]))
		return first;
	r = find_command(line->args, line->arg_count, &line->command, err);
	if (r < 0 || first < 0)
		return r < 0 ? r : first;
	line->args += r;
	line->arg_count -= (size_t)r;
	if (line->help)
		return 0;
	const struct flat_ctl_command *c = line->command;
	if (line->arg_count < c->min_args || line->arg_count > c->max_args) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "'%s' takes %s", c->name,
			  !c->max_args	    ? "no argument"
			  : line->arg_count ? "fewer arguments"
					    : c->arguments);
		return flat_detail(err, "usage: flatnetctl %s%s%s", c->name,
				   c->arguments[0] ? " " : "", c->arguments);
	}
	return check_options(c, given, err);
}

/* ---- help --------------------------------------------------------------------------------------
 */

static void print_options(FILE *out, unsigned set)
{
	fputs("\nOptions:\n", out);
	for (const struct flat_option *o = flat_options; o->name; o++) {
		char left[48];
		if (o->bit && !(o->bit & set))
			continue;
		snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "",
			 o->value ? o->value : "");
		fprintf(out, "  %-22s %s\n", left, o->about);
	}
}

void flat_help_print(FILE *out, const struct flat_ctl_command *command)
{
	if (command) {
		fprintf(out, "usage: flatnetctl %s%s%s [options]\n\n%s\n", command->name,
			command->arguments[0] ? " " : "", command->arguments, command->help);
		print_options(out, command->options);
		return;
	}
	fputs("usage: flatnetctl COMMAND [ARGUMENTS] [options]\n\n"
	      "Shows and checks this node's part of the pods' network. It changes nothing but where\n"
	      "the command's name says so, and works with and without the agent, flatnetd.\n\n"
	      "Commands:\n",
	      out);
	for (size_t i = 0; i < FLAT_LEN(commands); i++) {
		char left[48];
		snprintf(left, sizeof left, "%s%s%s", commands[i]->name,
			 commands[i]->arguments[0] ? " " : "", commands[i]->arguments);
		fprintf(out, "  %-24s %s\n", left, commands[i]->about);
	}
	print_options(out, 0);
	fputs("\nExit status: 0 all is well; 1 something is wrong, and the output names it;\n"
	      "2 the command line; 3 could not look, or not do it; 4 refused: it would do harm.\n"
	      "\nflatnetctl COMMAND --help tells more of a command; so does flatnetctl(1).\n",
	      out);
}
