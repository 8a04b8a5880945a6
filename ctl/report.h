/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to ctl: what a command has to say, as plain data: facts, tables and problems. Said once,
 * it is printed for people or as one JSON object.
 */
#pragma once

#include <flatnet/base.h>

#include <stdio.h>

enum flat_kind {
	FLAT_KIND_TEXT,
	FLAT_KIND_NUMBER, /* as text; in JSON without quotes */
	FLAT_KIND_LIST,	  /* texts, separated by commas; in JSON a list */
	FLAT_KIND_BOOL,	  /* "yes", "no" */
};

enum flat_tone { FLAT_TONE_PLAIN, FLAT_TONE_GOOD, FLAT_TONE_DOUBT, FLAT_TONE_BAD };

struct flat_column {
	const char *key;   /* in JSON */
	const char *title; /* for people; NULL: in JSON only */
	enum flat_kind kind;
	bool toned; /* has the row's colour */
	bool spare; /* not shown to people when no row has it */
};

struct flat_table {
	const char *key;	  /* in JSON: the list of rows */
	const char *title, *none; /* title NULL: none; none: what people read instead of no rows */
	const struct flat_column *columns;
	size_t column_count;
	const char **cells; /* rows of column_count; NULL: nothing to tell (in JSON null) */
	enum flat_tone *tones;
	size_t row_count, room;
};

struct flat_fact {
	const char *group, *key; /* in JSON: group.key; group NULL: at the top */
	const char *title;	 /* for people; NULL: in JSON only */
	enum flat_kind kind;
	enum flat_tone tone;
	const char *value; /* NULL: nothing to tell */
};

/* What is not as it should be: the thing and the cause, what shows it, what to do. */
struct flat_problem {
	const char *what, *evidence, *cure; /* evidence: a command; NULL: none */
};

enum { FLAT_REPORT_TABLES = 8, FLAT_REPORT_FACTS = 64, FLAT_REPORT_PROBLEMS = 256 };

struct flat_report {
	struct flat_arena *arena;
	struct flat_fact facts[FLAT_REPORT_FACTS];
	size_t fact_count;
	struct flat_table *tables[FLAT_REPORT_TABLES];
	size_t table_count;
	struct flat_problem problems[FLAT_REPORT_PROBLEMS];
	size_t problem_count, problems_dropped;
	bool has_problems; /* the command looks for them: JSON has the list, empty or not */
	bool no_memory;	   /* something is missing: flat_report_end() tells */
};

/* Text in the report's arena; "" when memory is out. */
const char *flat_format(struct flat_report *report, const char *fmt, ...) FLAT_PRINTF(2, 3);
/* A copy; NULL stays NULL. */
const char *flat_keep(struct flat_report *report, const char *text);
void flat_report_fact(struct flat_report *report, const struct flat_fact *fact);
/* The table lives in the report's arena; NULL never: when memory is out, it takes no rows. */
struct flat_table *flat_report_table(struct flat_report *report, const struct flat_table *head);
/* cells: column_count of them, borrowed until the report is printed. */
void flat_table_add(struct flat_report *report, struct flat_table *table, enum flat_tone tone,
		    const char *const *cells);
void flat_report_problem(struct flat_report *report, const char *evidence, const char *cure,
			 const char *fmt, ...) FLAT_PRINTF(4, 5);

/* For people: facts, tables, problems, in this order. */
void flat_report_print(const struct flat_report *report, FILE *out, bool colour);
/* One object: facts, tables and problems by their keys; err, where it has a code, as "error". */
void flat_report_print_json(const struct flat_report *report, FILE *out,
			    const struct flat_err *err);
/* Code 999 when memory was out while it was made. */
int flat_report_end(const struct flat_report *report, struct flat_err *err);
