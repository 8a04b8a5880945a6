// SPDX-License-Identifier: Apache-2.0
/*
 * What is printed for people may have been written by others (a pod's name, a file's content):
 * nothing of it reaches a terminal but printable characters.
 */
#include "report.h"

#include <flatnet/cni.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- gathering ---------------------------------------------------------------------------------
 */

const char *flat_format(struct flat_report *report, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	char *text = NULL, *copy;
	const int len = vasprintf(&text, fmt, args);
	va_end(args);
	copy = len < 0 ? NULL : flat_arena_strdup(report->arena, text);
	if (len >= 0)
		free(text);
	if (!copy)
		report->no_memory = true;
	return copy ? copy : "";
}

const char *flat_keep(struct flat_report *report, const char *text)
{
	return text ? flat_format(report, "%s", text) : NULL;
}

void flat_report_fact(struct flat_report *report, const struct flat_fact *fact)
{
	if (report->fact_count < FLAT_REPORT_FACTS)
		report->facts[report->fact_count++] = *fact;
	else
		report->no_memory = true;
}

struct flat_table *flat_report_table(struct flat_report *report, const struct flat_table *head)
{
	static struct flat_table none;
	struct flat_table *table = report->table_count == FLAT_REPORT_TABLES
					   ? NULL
					   : flat_arena_alloc(report->arena, sizeof *table);
	if (!table) {
		report->no_memory = true;
		return &none;
	}
	*table = *head;
	report->tables[report->table_count++] = table;
	return table;
}

void flat_table_add(struct flat_report *report, struct flat_table *table, enum flat_tone tone,
		    const char *const *cells)
{
	const size_t width = table->column_count;
	if (!width)
		return;
	if (table->row_count == table->room) {
		const size_t room = table->room ? 2 * table->room : 32;
		const char **more = flat_arena_alloc(report->arena, room * width * sizeof *more);
		enum flat_tone *tones = flat_arena_alloc(report->arena, room * sizeof *tones);
		if (!more || !tones) {
			report->no_memory = true;
			return;
		}
		if (table->row_count) {
			memcpy(more, table->cells, table->row_count * width * sizeof *more);
			memcpy(tones, table->tones, table->row_count * sizeof *tones);
		}
		table->cells = more;
		table->tones = tones;
		table->room = room;
	}
	memcpy(&table->cells[table->row_count * width], cells, width * sizeof *cells);
	table->tones[table->row_count++] = tone;
}

void flat_report_problem(struct flat_report *report, const char *evidence, const char *cure,
			 const char *fmt, ...)
{
	va_list args;
	char text[1024];
	if (report->problem_count == FLAT_REPORT_PROBLEMS) {
		report->problems_dropped++;
		return;
	}
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	report->problems[report->problem_count++] =
		(struct flat_problem){ flat_format(report, "%s", text), flat_keep(report, evidence),
				       flat_keep(report, cure) };
}

int flat_report_end(const struct flat_report *report, struct flat_err *err)
{
	return report->no_memory ? flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "make the report")
				 : 0;
}

/* ---- for people --------------------------------------------------------------------------------
 */

static const char *const tones[] = {
	[FLAT_TONE_PLAIN] = "",
	[FLAT_TONE_GOOD] = "\033[32m",
	[FLAT_TONE_DOUBT] = "\033[33m",
	[FLAT_TONE_BAD] = "\033[1;31m",
};
#define BOLD "\033[1m"
#define DIM  "\033[2m"
#define END  "\033[0m"

/* Prints it and returns how many columns that took. */
static size_t say(FILE *out, const char *text)
{
	size_t width = 0;
	for (size_t len = strlen(text); len; width++) {
		const size_t n = flat_utf8_char(text, len);
		const unsigned char c = (unsigned char)*text;
		/* U+0080 to U+009F are controls, too */
		if (!n || c < ' ' || c == 0x7f || (c == 0xc2 && (unsigned char)text[1] < 0xa0))
			fputc('?', out);
		else
			fwrite(text, 1, n, out);
		text += n ? n : 1;
		len -= n ? n : 1;
	}
	return width;
}

static size_t width_of(const char *text)
{
	size_t width = 0;
	for (size_t len = strlen(text), n; len; width++, text += n, len -= n) {
		n = flat_utf8_char(text, len);
		n = n ? n : 1;
	}
	return width;
}

static void say_toned(FILE *out, const char *text, const char *tone, bool colour)
{
	if (colour && tone[0])
		fputs(tone, out);
	say(out, text);
	if (colour && tone[0])
		fputs(END, out);
}

static void pad(FILE *out, size_t from, size_t to)
{
	for (; from < to; from++)
		fputc(' ', out);
}

static bool is_shown(const struct flat_table *table, size_t column)
{
	const struct flat_column *c = &table->columns[column];
	if (!c->title || !c->spare)
		return c->title;
	for (size_t row = 0; row < table->row_count; row++)
		if (table->cells[row * table->column_count + column])
			return true;
	return false;
}

static const char *cell(const struct flat_table *table, size_t row, size_t column)
{
	const char *text = table->cells[row * table->column_count + column];
	return text && text[0] ? text : "-";
}

static void print_table(const struct flat_table *table, FILE *out, bool colour)
{
	enum { COLUMNS = 16 };
	size_t widths[COLUMNS] = { 0 }, last = 0;
	if (table->title) {
		say_toned(out, table->title, BOLD, colour);
		fputc('\n', out);
	}
	if (!table->row_count) {
		fprintf(out, "%s%s\n", table->title ? "  " : "", table->none);
		return;
	}
	for (size_t i = 0; i < table->column_count && i < COLUMNS; i++) {
		if (!is_shown(table, i))
			continue;
		last = i;
		widths[i] = width_of(table->columns[i].title);
		for (size_t row = 0; row < table->row_count; row++) {
			const size_t width = width_of(cell(table, row, i));
			widths[i] = width > widths[i] ? width : widths[i];
		}
	}
	for (size_t row = 0; row <= table->row_count; row++) {
		if (table->title)
			fputs("  ", out);
		for (size_t i = 0; i <= last && i < COLUMNS; i++) {
			if (!widths[i])
				continue;
			const struct flat_column *c = &table->columns[i];
			const char *text = row ? cell(table, row - 1, i) : c->title;
			const char *tone = !row	      ? DIM
					   : c->toned ? tones[table->tones[row - 1]]
						      : "";
			const size_t width = width_of(text);
			if (c->kind == FLAT_KIND_NUMBER)
				pad(out, width, widths[i]);
			say_toned(out, text, tone, colour);
			if (c->kind != FLAT_KIND_NUMBER && i != last)
				pad(out, width, widths[i]);
			fputs(i == last ? "" : "  ", out);
		}
		fputc('\n', out);
	}
}

static void print_facts(const struct flat_report *report, FILE *out, bool colour)
{
	size_t widest = 0;
	for (size_t i = 0; i < report->fact_count; i++) {
		const struct flat_fact *f = &report->facts[i];
		const size_t width = f->title ? width_of(f->title) : 0;
		widest = width > widest && f->value ? width : widest;
	}
	for (size_t i = 0; i < report->fact_count; i++) {
		const struct flat_fact *f = &report->facts[i];
		if (!f->title || !f->value)
			continue;
		say_toned(out, f->title, DIM, colour);
		pad(out, width_of(f->title), widest + 2);
		say_toned(out, f->value, tones[f->tone], colour);
		fputc('\n', out);
	}
}

static void print_problems(const struct flat_report *report, FILE *out, bool colour)
{
	if (!report->problem_count)
		return;
	say_toned(out, "Problems", BOLD, colour);
	fputc('\n', out);
	for (size_t i = 0; i < report->problem_count; i++) {
		const struct flat_problem *p = &report->problems[i];
		fputs("  ", out);
		say_toned(out, p->what, tones[FLAT_TONE_BAD], colour);
		fputc('\n', out);
		if (p->evidence) {
			fputs("    shown by: ", out);
			say(out, p->evidence);
			fputc('\n', out);
		}
		if (p->cure) {
			fputs("    cure:     ", out);
			say(out, p->cure);
			fputc('\n', out);
		}
	}
	if (report->problems_dropped)
		fprintf(out, "  and %zu more\n", report->problems_dropped);
}

void flat_report_print(const struct flat_report *report, FILE *out, bool colour)
{
	bool empty = true;
	print_facts(report, out, colour);
	for (size_t i = 0; i < report->fact_count && empty; i++)
		empty = !report->facts[i].title || !report->facts[i].value;
	for (size_t i = 0; i < report->table_count; i++) {
		if (!empty)
			fputc('\n', out);
		print_table(report->tables[i], out, colour);
		empty = false;
	}
	if (!empty && report->problem_count)
		fputc('\n', out);
	print_problems(report, out, colour);
}

/* ---- for machines ------------------------------------------------------------------------------
 */

static void quote(FILE *out, const char *text)
{
	flat_auto_free char *quoted = flat_json_quote(text);
	fputs(quoted ? quoted : "null", out);
}

static void print_value(FILE *out, enum flat_kind kind, const char *value)
{
	if (!value) {
		fputs(kind == FLAT_KIND_LIST ? "[]" : "null", out);
		return;
	}
	switch (kind) {
	case FLAT_KIND_NUMBER:
		fputs(value, out);
		return;
	case FLAT_KIND_BOOL:
		fputs(strcmp(value, "yes") ? "false" : "true", out);
		return;
	case FLAT_KIND_TEXT:
		quote(out, value);
		return;
	case FLAT_KIND_LIST:
		break;
	}
	flat_auto_free char *copy = strdup(value);
	char *save = NULL;
	fputc('[', out);
	for (char *item = copy ? strtok_r(copy, ",", &save) : NULL; item;
	     item = strtok_r(NULL, ",", &save)) {
		quote(out, item);
		if (save && *save)
			fputs(", ", out);
	}
	fputc(']', out);
}

static void print_key(FILE *out, bool *first, const char *indent, const char *key)
{
	fprintf(out, "%s%s", *first ? "" : ",\n", indent);
	*first = false;
	quote(out, key);
	fputs(": ", out);
}

static void print_facts_json(const struct flat_report *report, FILE *out, bool *first)
{
	for (size_t i = 0; i < report->fact_count; i++) {
		const struct flat_fact *f = &report->facts[i];
		bool seen = false, inner = true;
		if (!f->group) {
			print_key(out, first, "  ", f->key);
			print_value(out, f->kind, f->value);
			continue;
		}
		for (size_t k = 0; k < i && !seen; k++)
			seen = report->facts[k].group && !strcmp(report->facts[k].group, f->group);
		if (seen)
			continue;
		print_key(out, first, "  ", f->group);
		fputs("{\n", out);
		for (size_t k = i; k < report->fact_count; k++) {
			const struct flat_fact *g = &report->facts[k];
			if (!g->group || strcmp(g->group, f->group) != 0)
				continue;
			print_key(out, &inner, "    ", g->key);
			print_value(out, g->kind, g->value);
		}
		fputs("\n  }", out);
	}
}

static void print_table_json(const struct flat_table *table, FILE *out)
{
	fputs("[", out);
	for (size_t row = 0; row < table->row_count; row++) {
		bool first = true;
		fputs(row ? ",\n    {" : "\n    {", out);
		for (size_t i = 0; i < table->column_count; i++) {
			const struct flat_column *c = &table->columns[i];
			fputs(first ? "" : ", ", out);
			first = false;
			quote(out, c->key);
			fputs(": ", out);
			print_value(out, c->kind, table->cells[row * table->column_count + i]);
		}
		fputs("}", out);
	}
	fputs(table->row_count ? "\n  ]" : "]", out);
}

static void print_problems_json(const struct flat_report *report, FILE *out)
{
	fputs("[", out);
	for (size_t i = 0; i < report->problem_count; i++) {
		const struct flat_problem *p = &report->problems[i];
		fputs(i ? ",\n    {\"what\": " : "\n    {\"what\": ", out);
		quote(out, p->what);
		fputs(", \"evidence\": ", out);
		print_value(out, FLAT_KIND_TEXT, p->evidence);
		fputs(", \"cure\": ", out);
		print_value(out, FLAT_KIND_TEXT, p->cure);
		fputs("}", out);
	}
	fputs(report->problem_count ? "\n  ]" : "]", out);
}

void flat_report_print_json(const struct flat_report *report, FILE *out, const struct flat_err *err)
{
	bool first = true;
	fputs("{\n", out);
	print_facts_json(report, out, &first);
	for (size_t i = 0; i < report->table_count; i++) {
		print_key(out, &first, "  ", report->tables[i]->key);
		print_table_json(report->tables[i], out);
	}
	if (report->has_problems) {
		print_key(out, &first, "  ", "problems");
		print_problems_json(report, out);
	}
	if (err && err->code) {
		print_key(out, &first, "  ", "error");
		fprintf(out, "{\"code\": %d, \"what\": ", err->code);
		quote(out, err->msg);
		fputs(", \"cure\": ", out);
		print_value(out, FLAT_KIND_TEXT, err->details[0] ? err->details : NULL);
		fputs("}", out);
	}
	fputs("\n}\n", out);
}
