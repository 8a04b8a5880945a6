/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to ctl: a command, and what main has found out for it. Commands write to ctl->out and end
 * with an exit status; they never print elsewhere, exit, or read the environment.
 */
#pragma once

#include "report.h"

#include <flatnet/plan.h>

/* Exit statuses: a promise to scripts, listed in flatnetctl(1) and in --help. */
enum flat_exit {
	FLAT_EXIT_OK = 0,
	FLAT_EXIT_WRONG = 1,   /* something is not as it should be; the output names it */
	FLAT_EXIT_USAGE = 2,   /* the command line */
	FLAT_EXIT_FAILED = 3,  /* could not look, or could not do it */
	FLAT_EXIT_REFUSED = 4, /* it would do harm: nothing was changed */
};

/* Options that commands share; a set of them says which ones a command takes. */
enum flat_option_bit {
	FLAT_OPTION_NETWORK = 1 << 0,
	FLAT_OPTION_CONF_DIR = 1 << 1,
	FLAT_OPTION_DATA_DIR = 1 << 2,
	FLAT_OPTION_NODES = 1 << 3,
	FLAT_OPTION_AGENT = 1 << 4,
	FLAT_OPTION_NODE = 1 << 5,
	FLAT_OPTION_PLUGIN_DIR = 1 << 6,
	FLAT_OPTION_LEAKED = 1 << 7,
	FLAT_OPTION_NO_PING = 1 << 8,
	FLAT_OPTION_STATE = 1 << 9,
	FLAT_OPTION_FOREIGN = 1 << 10,
};

struct flat_ctl {
	FILE *out;
	bool json, colour;
	struct flat_host host;
	struct flat_arena arena;
	struct flat_report report; /* printed by main, whatever the status */
	char *const *args;	   /* what follows the command's name */
	size_t arg_count;

	/* options; NULL: not given */
	const char *network, *conf_dir, *data_dir, *nodes_file, *state_file, *agent, *node_name;
	const char *plugin_dir;
	bool leaked, foreign, no_ping;
};

struct flat_ctl_command {
	const char *name;      /* "ipam show" */
	const char *arguments; /* for the usage line: "ADDRESS..."; "": none */
	const char *about;     /* one line */
	const char *help;      /* what it shows, and what its exit status means */
	unsigned options;      /* set of flat_option_bit */
	size_t min_args, max_args;
	/* An exit status, or a negative errno with err set: then 3, after the message. */
	int (*run)(struct flat_ctl *ctl, struct flat_err *err);
};

/* One for each file cmd-*.c, in the order of --help; NULL after the last. */
const struct flat_ctl_command *flat_command_at(size_t i);

extern const struct flat_ctl_command flat_command_status;
extern const struct flat_ctl_command flat_command_pods;
extern const struct flat_ctl_command flat_command_ipam_list, flat_command_ipam_show,
	flat_command_ipam_check, flat_command_ipam_release;
extern const struct flat_ctl_command flat_command_nodes;
extern const struct flat_ctl_command flat_command_routes;
extern const struct flat_ctl_command flat_command_conf_check;
extern const struct flat_ctl_command flat_command_version;
extern const struct flat_ctl_command flat_command_completion;

/* ---- the command line: options.c ---------------------------------------------------------------
 */

struct flat_option {
	const char *name;  /* without "--" */
	const char *value; /* what its value is called; NULL: it takes none */
	const char *about;
	unsigned bit;	    /* flat_option_bit; 0: every command takes it */
	size_t offset;	    /* in struct flat_ctl: const char *, or bool where value is NULL */
	const char *choice; /* its values, separated by spaces; NULL: any */
};
extern const struct flat_option flat_options[]; /* ends with one without a name */

/* What a command line asks for, before anything is done. */
struct flat_line {
	const struct flat_ctl_command *command; /* NULL: none was named */
	bool help;
	const char *colour; /* auto, always, never; NULL: not given */
	char **args;	    /* of the command; argv's, in another order */
	size_t arg_count;
};
/* Options may stand anywhere; after "--" there are none. Code 7 says what is wrong and what there
 * is. ret_line->command is set as far as it is known, on failure too. */
int flat_line_parse(int argc, char **argv, struct flat_ctl *ctl, struct flat_line *ret_line,
		    struct flat_err *err);
/* Of a command; of all, where it is NULL. */
void flat_help_print(FILE *out, const struct flat_ctl_command *command);
