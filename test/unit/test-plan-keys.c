// SPDX-License-Identifier: Apache-2.0
/* doc/keys.md has a row for every key that the code reads, and for no other; with the type that the
 * code reads it as. */
#include <flatnet/plan.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = 512, TEXT = 160, COLUMNS = 5 };

struct key {
	char path[TEXT], type[TEXT]; /* type "": whatever `decode` says */
	bool seen;
};
static struct key in_code[MAX_KEYS], in_doc[MAX_KEYS];
static size_t code_count, doc_count;

static struct key *find(struct key *keys, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(keys[i].path, path))
			return &keys[i];
	return NULL;
}

/* ---- the code ----------------------------------------------------------------------------------
 */

static const char *type_text(const struct flat_json_field *field, char *buf)
{
	int64_t min = field->min, max = field->max;
	switch (field->type) {
	case FLAT_JSON_BOOL:
	case FLAT_JSON_TRISTATE:
		return "bool";
	case FLAT_JSON_UINT32:
		if (!min && !max)
			max = UINT32_MAX;
		break;
	case FLAT_JSON_INT:
	case FLAT_JSON_INT32:
		break;
	case FLAT_JSON_STRING:
		return "string";
	case FLAT_JSON_STRING_LIST:
		return "list of strings";
	case FLAT_JSON_IP:
		return "address";
	case FLAT_JSON_PREFIX:
		return "network";
	case FLAT_JSON_PREFIX_OR_LIST:
		return "network or list";
	case FLAT_JSON_IP_OR_LIST:
		return "address or list";
	case FLAT_JSON_MAC:
		return "MAC";
	case FLAT_JSON_OBJECT:
		return "object";
	case FLAT_JSON_OBJECT_LIST:
		return "list of objects";
	case FLAT_JSON_CUSTOM:
		return "";
	}
	if (!min && !max)
		return "number";
	snprintf(buf, TEXT, "%lld to %lld", (long long)min, (long long)max);
	return buf;
}

static void walk(const struct flat_json_field *table, const char *prefix)
{
	char path[TEXT], below[TEXT + 4], buf[TEXT];
	for (const struct flat_json_field *field = table; field->key; field++) {
		assert_true(snprintf(path, sizeof path, "%s%s", prefix, field->key) < TEXT);
		const char *type = type_text(field, buf);
		const struct key *known = find(in_code, code_count, path);
		if (known && strcmp(known->type, type) != 0)
			fail_msg("%s is %s in one table and %s in another", path, known->type,
				 type);
		if (!known) {
			struct key *key = &in_code[code_count++];
			assert_true(code_count < MAX_KEYS);
			snprintf(key->path, sizeof key->path, "%s", path);
			snprintf(key->type, sizeof key->type, "%s", type);
		}
		if (!field->table)
			continue;
		snprintf(below, sizeof below, "%s%s", path,
			 field->type == FLAT_JSON_OBJECT ? "." : "[].");
		walk(field->table, below);
	}
}

/* ---- the document ------------------------------------------------------------------------------
 */

/* Cuts "| a | b |" to its cells, without what is around them. Returns how many. */
static size_t cells(char *line, char **ret_cells, size_t room)
{
	size_t n = 0;
	char *end = line + strlen(line);
	while (end > line && strchr(" \n|", end[-1]))
		*--end = '\0';
	for (char *rest = line + 1, *cell; rest && n < room; ret_cells[n++] = cell) {
		cell = rest;
		rest = strstr(cell, " | ");
		if (rest) {
			*rest = '\0';
			rest += 2;
		}
		cell += strspn(cell, " ");
	}
	return n;
}

static void read_doc(void)
{
	char line[1024], *cell[COLUMNS + 1];
	const char *name = getenv("FLAT_KEYS");
	FILE *file = name ? fopen(name, "re") : NULL;
	if (!file)
		fail_msg("cannot open doc/keys.md: FLAT_KEYS is %s", name ? name : "not set");
	while (fgets(line, sizeof line, file)) {
		assert_non_null(strchr(line, '\n'));
		if (strncmp(line, "| `", 3) != 0)
			continue;
		char *whole = strdup(line);
		if (cells(line, cell, COLUMNS + 1) != COLUMNS)
			fail_msg("not %d columns: %s", COLUMNS, whole);
		for (size_t i = 0; i < COLUMNS; i++)
			if (!cell[i][0])
				fail_msg("column %zu is empty: %s", i + 1, whole);
		free(whole);
		struct key *key = &in_doc[doc_count++];
		assert_true(doc_count < MAX_KEYS);
		const size_t len = strlen(cell[0]);
		assert_true(len > 2 && cell[0][len - 1] == '`');
		cell[0][len - 1] = '\0';
		snprintf(key->path, sizeof key->path, "%s", cell[0] + 1);
		snprintf(key->type, sizeof key->type, "%s", cell[1]);
	}
	fclose(file);
}

static void test_document_has_the_keys(void **state)
{
	unsigned faults = 0;
	(void)state;
	const struct flat_json_field *table;
	for (size_t i = 0; (table = flat_conf_table(i)); i++)
		walk(table, "");
	read_doc();
	assert_true(code_count > 80); /* the tables were read */
	for (size_t i = 0; i < code_count; i++) {
		const struct key *key = &in_code[i];
		struct key *row = find(in_doc, doc_count, key->path);
		if (!row) {
			print_error("doc/keys.md has no row | `%s` | %s | ... |\n", key->path,
				    key->type[0] ? key->type : "...");
			faults++;
			continue;
		}
		row->seen = true;
		if (key->type[0] && strcmp(key->type, row->type) != 0) {
			print_error("doc/keys.md says that %s is %s, the code %s\n", key->path,
				    row->type, key->type);
			faults++;
		}
	}
	for (size_t i = 0; i < doc_count; i++) {
		if (find(in_doc, i, in_doc[i].path)) {
			print_error("doc/keys.md has two rows for %s\n", in_doc[i].path);
			faults++;
		} else if (!in_doc[i].seen) {
			print_error("doc/keys.md has %s, the code has no such key\n",
				    in_doc[i].path);
			faults++;
		}
	}
	assert_int_equal(faults, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_document_has_the_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
