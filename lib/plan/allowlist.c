// SPDX-License-Identifier: Apache-2.0
/*
 * Which sysctls may be set: the file of the reference plugin tuning. Its lines are in the syntax of
 * Go's package regexp, and here regcomp(3) reads them. The two agree in most of what people write;
 * the rest is translated, or refused: a list that lets in more than its author meant is worse than
 * one that lets in nothing.
 */
#include "plan-internal.h"

#include <flatnet/state.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 64 << 10, MAX_PATTERN = 1024 };

/* ---- the syntax --------------------------------------------------------------------------------
 */

struct output {
	char *text;
	size_t len, size;
	bool full;
};

static void put(struct output *out, const char *text, size_t len)
{
	if (len >= out->size - out->len) {
		out->full = true;
		return;
	}
	memcpy(out->text + out->len, text, len);
	out->len += len;
	out->text[out->len] = '\0';
}

static void put_text(struct output *out, const char *text)
{
	put(out, text, strlen(text));
}

/* The inside of a class that a letter stands for; NULL: there is none. */
static const char *class_of(char letter)
{
	switch (letter) {
	case 'd':
		return "0-9";
	case 'w':
		return "0-9A-Za-z_";
	case 's':
		return "\t\n\f\r ";
	default:
		return NULL;
	}
}

static bool put_escape(struct output *out, char c)
{
	const char *class = class_of((char)tolower((unsigned char)c));
	if (class) {
		put_text(out, isupper((unsigned char)c) ? "[^" : "[");
		put_text(out, class);
		put_text(out, "]");
		return true;
	}
	/* of other letters and digits, each has a meaning of its own there or here */
	if (!ispunct((unsigned char)c))
		return false;
	put_text(out, strchr(".[]{}()\\*+?|^$", c) ? "\\" : "");
	put(out, &c, 1);
	return true;
}

/* Behind the '['. There a '\' means nothing to POSIX. Returns what is behind the ']'; NULL: it
 * cannot be said. */
static const char *put_brackets(struct output *out, const char *p)
{
	put_text(out, "[");
	if (*p == '^')
		put(out, p++, 1);
	if (*p == ']')
		put(out, p++, 1);
	while (*p && *p != ']') {
		if (*p == '\\') {
			const char *class = class_of(p[1]);
			/* where it stands decides what these mean */
			if (!class && (!ispunct((unsigned char)p[1]) || strchr("]^-[\\", p[1])))
				return NULL;
			if (class)
				put_text(out, class);
			else
				put(out, p + 1, 1);
			p += 2;
		} else if (*p == '[' && strchr(":.=", p[1]) && p[1]) {
			const char *end = p[1] == ':' ? strstr(p + 2, ":]") : NULL;
			if (!end)
				return NULL;
			put(out, p, (size_t)(end + 2 - p));
			p = end + 2;
		} else {
			put(out, p++, 1);
		}
	}
	if (!*p)
		return NULL;
	put_text(out, "]");
	return p + 1;
}

bool flat_allowlist_translate(const char *go, char *ret_posix, size_t size)
{
	struct output out = { .text = ret_posix, .size = size };
	const char *p = go;
	ret_posix[0] = '\0';
	while (*p && !out.full) {
		if (*p == '\\') {
			if (!put_escape(&out, p[1]))
				return false;
			p += 2;
		} else if (*p == '[') {
			p = put_brackets(&out, p + 1);
			if (!p)
				return false;
		} else if (*p == '(' && p[1] == '?') {
			if (p[2] != ':')
				return false;
			put_text(&out, "(");
			p += 3;
		} else if (strchr("*+?}", *p)) {
			put(&out, p++, 1);
			if (*p == '?') /* the shortest match is one, too */
				p++;
			if (*p && strchr("*+?{", *p))
				return false; /* nor does Go take it */
		} else {
			put(&out, p++, 1);
		}
	}
	return !out.full;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static char *trim(char *line)
{
	char *end = line + strlen(line);
	while (end > line && isspace((unsigned char)end[-1]))
		*--end = '\0';
	while (isspace((unsigned char)*line))
		line++;
	return line;
}

static int fail_line(const char *file, unsigned number, const char *line, const char *why,
		     struct flat_err *err)
{
	flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: line %u: \"%.128s\" cannot be used: %s", file,
		  number, line, why);
	return flat_detail(err,
			   "use a regular expression like ^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]+$");
}

/* How many of the sysctls the line lets in anew. */
static int match_line(const char *file, unsigned number, const char *line,
		      const struct flat_sysctl *sysctls, size_t count, bool *allowed,
		      struct flat_err *err)
{
	char posix[MAX_PATTERN], why[96];
	regex_t regex;
	if (!flat_allowlist_translate(line, posix, sizeof posix))
		return fail_line(file, number, line, "it is too long, or in a syntax of its own",
				 err);
	int r = regcomp(&regex, posix, REG_EXTENDED | REG_NOSUB);
	if (r != 0) {
		regerror(r, &regex, why, sizeof why);
		return fail_line(file, number, line, why, err);
	}
	for (size_t i = 0; i < count; i++)
		allowed[i] = allowed[i] || regexec(&regex, sysctls[i].key, 0, NULL, 0) == 0;
	regfree(&regex);
	return 0;
}

int flat_allowlist_check(const char *file, const struct flat_sysctl *sysctls, size_t count,
			 struct flat_err *err)
{
	/* it may be a symbolic link, as of a ConfigMap */
	flat_auto_free char *real = realpath(file, NULL);
	flat_auto_free char *text = NULL;
	bool allowed[FLAT_MAX_SYSCTLS * 2] = { false };
	unsigned number = 1;
	int r = real ? flat_state_read(AT_FDCWD, real, MAX_FILE, &text, err) : -errno;
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return flat_fail(err, FLAT_CODE_IO, -r, "read '%s'", file);
	for (char *line = text, *next; line; line = next, number++) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		line = trim(line);
		r = *line ? match_line(file, number, line, sysctls, count, allowed, err) : 0;
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < count; i++) {
		if (allowed[i])
			continue;
		flat_fail(err, FLAT_CODE_CONFIG, 0, "%s[\"%.128s\"]: no line of %s allows it",
			  sysctls[i].list, sysctls[i].key, file);
		return flat_detail(err,
				   "the administrator of this node can add a regular expression");
	}
	return 0;
}
