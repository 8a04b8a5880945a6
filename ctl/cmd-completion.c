// SPDX-License-Identifier: Apache-2.0
/*
 * Completion for shells, printed from the tables of commands and options: it knows what this
 * flatnetctl knows, and nothing else.
 */
#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* In single quotes, for any of the three shells: no text of ours has a backslash. */
static void quote(FILE *out, const char *text, const char *escape)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", out);
		else if (strchr(escape, *text))
			fprintf(out, "\\%c", *text);
		else
			fputc(*text, out);
	}
}

static bool takes(const struct flat_ctl_command *command, const struct flat_option *option)
{
	return !option->bit || command->options & option->bit;
}

static bool is_path(const char *value)
{
	return value && (strstr(value, "DIR") || strstr(value, "FILE"));
}

/* How long the first word of a command's name is. */
static size_t first_word(const struct flat_ctl_command *command)
{
	return strcspn(command->name, " ");
}

/* Is it the first command with this first word? */
static bool begins_group(size_t i)
{
	const struct flat_ctl_command *c = flat_command_at(i);
	for (size_t k = 0; k < i; k++)
		if (first_word(flat_command_at(k)) == first_word(c) &&
		    !strncmp(flat_command_at(k)->name, c->name, first_word(c)))
			return false;
	return true;
}

static const char *second_word(const struct flat_ctl_command *command)
{
	const char *space = strchr(command->name, ' ');
	return space ? space + 1 : NULL;
}

/* ---- bash --------------------------------------------------------------------------------------
 */

static void print_bash_options(FILE *out)
{
	for (const struct flat_option *o = flat_options; o->name; o++) {
		if (!o->value)
			continue;
		fprintf(out, "\t--%s)\n", o->name);
		if (o->choice)
			fprintf(out, "\t\t_flatnetctl_offer '%s'\n", o->choice);
		else if (is_path(o->value))
			fprintf(out, "\t\t_flatnetctl_offer '' %s\n",
				strstr(o->value, "DIR") ? "-d" : "-f");
		fputs("\t\treturn\n\t\t;;\n", out);
	}
}

static void print_bash_command(FILE *out, const struct flat_ctl_command *c)
{
	fprintf(out, "\t'%s') _flatnetctl_offer '", c->name);
	for (const struct flat_option *o = flat_options; o->name; o++)
		if (takes(c, o))
			fprintf(out, "--%s ", o->name);
	fprintf(out, "'%s ;;\n", is_path(c->arguments) ? " -f" : "");
}

static void print_bash_words(FILE *out)
{
	fputs("\t'') _flatnetctl_offer '", out);
	for (size_t i = 0; flat_command_at(i); i++)
		if (begins_group(i))
			fprintf(out, "%.*s ", (int)first_word(flat_command_at(i)),
				flat_command_at(i)->name);
	fputs("help --help' ;;\n", out);
	for (size_t i = 0; flat_command_at(i); i++) {
		const struct flat_ctl_command *c = flat_command_at(i);
		if (!second_word(c) || !begins_group(i))
			continue;
		fprintf(out, "\t'%.*s') _flatnetctl_offer '", (int)first_word(c), c->name);
		for (size_t k = i; flat_command_at(k); k++)
			if (!strncmp(flat_command_at(k)->name, c->name, first_word(c) + 1))
				fprintf(out, "%s ", second_word(flat_command_at(k)));
		fputs("--help' ;;\n", out);
	}
}

static void print_bash(FILE *out)
{
	fputs("# bash completion for flatnetctl; made by flatnetctl completion bash\n"
	      "_flatnetctl_offer() {\n"
	      "\tlocal words=$1 kind=${2-}\n"
	      "\t[[ $kind && $cur != -* ]] && words=''\n"
	      "\tmapfile -t COMPREPLY < <(compgen ${kind:+$kind} -W \"$words\" -- \"$cur\")\n"
	      "\t[[ $kind ]] && compopt -o filenames 2>/dev/null\n"
	      "}\n"
	      "_flatnetctl() {\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words='' i\n"
	      "\tCOMPREPLY=()\n"
	      "\tcase $prev in\n",
	      out);
	print_bash_options(out);
	fputs("\tesac\n"
	      "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	      "\t\tcase ${COMP_WORDS[i]} in\n"
	      "\t\t",
	      out);
	bool any = false;
	for (const struct flat_option *o = flat_options; o->name; o++) {
		if (o->value)
			fprintf(out, "%s--%s", any ? " | " : "", o->name);
		any = any || o->value;
	}
	fputs(") i=$((i + 1)) ;;\n"
	      "\t\t-* | help) ;;\n"
	      "\t\t*) words+=\"${words:+ }${COMP_WORDS[i]}\" ;;\n"
	      "\t\tesac\n"
	      "\tdone\n"
	      "\tcase $words in\n",
	      out);
	print_bash_words(out);
	/* after an argument the command is still the same */
	for (size_t i = 0; flat_command_at(i); i++)
		print_bash_command(out, flat_command_at(i));
	fputs("\tesac\n}\ncomplete -F _flatnetctl flatnetctl\n", out);
}

/* ---- fish --------------------------------------------------------------------------------------
 */

static void print_fish_condition(FILE *out, const struct flat_ctl_command *c)
{
	fprintf(out, "-n '__fish_seen_subcommand_from %.*s", (int)first_word(c), c->name);
	if (second_word(c))
		fprintf(out, "; and __fish_seen_subcommand_from %s", second_word(c));
	fputs("' ", out);
}

static void print_fish_command(FILE *out, size_t i)
{
	const struct flat_ctl_command *c = flat_command_at(i);
	if (begins_group(i)) {
		fprintf(out, "complete -c flatnetctl -n __fish_use_subcommand -a %.*s -d '",
			(int)first_word(c), c->name);
		quote(out, second_word(c) ? "more words follow" : c->about, "");
		fputs("'\n", out);
	}
	if (second_word(c)) {
		fprintf(out,
			"complete -c flatnetctl -n '__fish_seen_subcommand_from %.*s; and test "
			"(count (commandline -poc)) -eq 2' -a %s -d '",
			(int)first_word(c), c->name, second_word(c));
		quote(out, c->about, "");
		fputs("'\n", out);
	}
	if (is_path(c->arguments)) {
		fputs("complete -c flatnetctl ", out);
		print_fish_condition(out, c);
		fputs("-F\n", out);
	}
	for (const struct flat_option *o = flat_options; o->name; o++) {
		if (!o->bit || !takes(c, o))
			continue;
		fputs("complete -c flatnetctl ", out);
		print_fish_condition(out, c);
		fprintf(out, "-l %s %s-d '", o->name,
			is_path(o->value) ? "-r -F "
			: o->value	  ? "-x "
					  : "");
		quote(out, o->about, "");
		fputs("'\n", out);
	}
}

static void print_fish(FILE *out)
{
	fputs("# fish completion for flatnetctl; made by flatnetctl completion fish\n"
	      "complete -c flatnetctl -f\n",
	      out);
	for (size_t i = 0; flat_command_at(i); i++)
		print_fish_command(out, i);
	for (const struct flat_option *o = flat_options; o->name; o++) {
		if (o->bit)
			continue;
		fprintf(out, "complete -c flatnetctl -l %s ", o->name);
		if (o->choice)
			fprintf(out, "-x -a '%s' ", o->choice);
		fputs("-d '", out);
		quote(out, o->about, "");
		fputs("'\n", out);
	}
}

/* ---- zsh ---------------------------------------------------------------------------------------
 */

static void print_zsh_options(FILE *out, const struct flat_ctl_command *c)
{
	fputs("_arguments", out);
	for (const struct flat_option *o = flat_options; o->name; o++) {
		if (!takes(c, o))
			continue;
		fprintf(out, " \\\n\t\t'--%s%s[", o->name, o->value ? "=" : "");
		quote(out, o->about, ":[]");
		fputc(']', out);
		if (o->choice)
			fprintf(out, ":%s:(%s)", o->value, o->choice);
		else if (o->value)
			fprintf(out, ":%.*s:%s", (int)strcspn(o->value, ":"), o->value,
				!is_path(o->value)	  ? " "
				: strstr(o->value, "DIR") ? "_files -/"
							  : "_files");
		fputc('\'', out);
	}
	if (c->max_args)
		fprintf(out, " \\\n\t\t'%s:%.*s:%s'", c->max_args > 1 ? "*" : "1",
			(int)strcspn(c->arguments, "."), c->arguments,
			is_path(c->arguments) ? "_files" : " ");
	fputs("\n", out);
}

static void print_zsh_words(FILE *out)
{
	fputs("local -a verbs\n"
	      "if ((CURRENT == 2)); then\n"
	      "\tverbs=(\n",
	      out);
	for (size_t i = 0; flat_command_at(i); i++) {
		const struct flat_ctl_command *c = flat_command_at(i);
		if (!begins_group(i))
			continue;
		fprintf(out, "\t\t'%.*s:", (int)first_word(c), c->name);
		quote(out, second_word(c) ? "more words follow" : c->about, ":");
		fputs("'\n", out);
	}
	fputs("\t)\n\t_describe command verbs\n\treturn\nfi\n"
	      "case $words[2] in\n",
	      out);
	for (size_t i = 0; flat_command_at(i); i++) {
		const struct flat_ctl_command *c = flat_command_at(i);
		if (!second_word(c) || !begins_group(i))
			continue;
		fprintf(out, "%.*s)\n\tif ((CURRENT == 3)); then\n\t\tverbs=(\n",
			(int)first_word(c), c->name);
		for (size_t k = i; flat_command_at(k); k++) {
			const struct flat_ctl_command *d = flat_command_at(k);
			if (strncmp(d->name, c->name, first_word(c) + 1) != 0)
				continue;
			fprintf(out, "\t\t\t'%s:", second_word(d));
			quote(out, d->about, ":");
			fputs("'\n", out);
		}
		fputs("\t\t)\n\t\t_describe command verbs\n\t\treturn\n\tfi\n"
		      "\twords=(\"$words[2] $words[3]\" \"${(@)words[4,-1]}\")\n"
		      "\t((CURRENT -= 2))\n\t;;\n",
		      out);
	}
	fputs("*)\n\tshift words\n\t((CURRENT--))\n\t;;\nesac\n", out);
}

static void print_zsh(FILE *out)
{
	fputs("#compdef flatnetctl\n# zsh completion; made by flatnetctl completion zsh\n", out);
	print_zsh_words(out);
	fputs("case $words[1] in\n", out);
	for (size_t i = 0; flat_command_at(i); i++) {
		fprintf(out, "'%s')\n\t", flat_command_at(i)->name);
		print_zsh_options(out, flat_command_at(i));
		fputs("\t;;\n", out);
	}
	fputs("esac\n", out);
}

/* ---- the command -------------------------------------------------------------------------------
 */

static int run(struct flat_ctl *ctl, struct flat_err *err)
{
	static const struct {
		const char *name;
		void (*print)(FILE *out);
	} shells[] = { { "bash", print_bash }, { "zsh", print_zsh }, { "fish", print_fish } };
	for (size_t i = 0; i < FLAT_LEN(shells); i++) {
		if (strcmp(shells[i].name, ctl->args[0]) != 0)
			continue;
		char *text = NULL;
		size_t len = 0;
		FILE *out = open_memstream(&text, &len);
		if (!out)
			return flat_fail(err, FLAT_CODE_INTERNAL, errno, "completion");
		shells[i].print(out);
		if (fclose(out)) {
			free(text);
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "completion");
		}
		if (ctl->json)
			flat_report_fact(&ctl->report,
					 &(struct flat_fact){
						 .key = "script",
						 .value = flat_keep(&ctl->report, text) });
		else
			fputs(text, ctl->out);
		free(text);
		return FLAT_EXIT_OK;
	}
	flat_fail(err, FLAT_CODE_CONFIG, 0, "'%.32s' is no shell that is known here", ctl->args[0]);
	flat_detail(err, "there are: bash, zsh, fish");
	return FLAT_EXIT_USAGE;
}

const struct flat_ctl_command flat_command_completion = {
	.name = "completion",
	.arguments = "bash|zsh|fish",
	.about = "completion for a shell, to be read by it",
	.help = "Prints a script that makes a shell complete the commands and options of flatnetctl.\n"
		"Packages and 'meson install' put it where the shells look; by hand, for bash:\n\n"
		"  source <(flatnetctl completion bash)",
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
