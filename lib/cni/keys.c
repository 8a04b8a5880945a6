// SPDX-License-Identifier: Apache-2.0
/*
 * Keys that no table names. What a runtime sends may have keys of others; what a person wrote for
 * us alone may not: there an unknown key is a misspelt one, which would be ignored in silence.
 */
#include "private.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { KEY_MAX = 32 }; /* longer ones are like none of ours */

/* How many letters must be changed, added, left out or swapped with their neighbour to make one of
 * the other (optimal string alignment). */
static size_t distance(const char *a, const char *b)
{
	const size_t a_len = strlen(a), b_len = strlen(b);
	size_t rows[3][KEY_MAX + 1];
	if (a_len > KEY_MAX || b_len > KEY_MAX)
		return KEY_MAX;
	for (size_t k = 0; k <= b_len; k++)
		rows[0][k] = k;
	for (size_t i = 1; i <= a_len; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *second = rows[(i + 1) % 3];
		row[0] = i;
		for (size_t k = 1; k <= b_len; k++) {
			const int x = tolower((unsigned char)a[i - 1]),
				  y = tolower((unsigned char)b[k - 1]);
			size_t best = above[k - 1] + (x != y);
			if (above[k] + 1 < best)
				best = above[k] + 1;
			if (row[k - 1] + 1 < best)
				best = row[k - 1] + 1;
			if (i > 1 && k > 1 && x == tolower((unsigned char)b[k - 2]) &&
			    y == tolower((unsigned char)a[i - 2]) && second[k - 2] + 1 < best)
				best = second[k - 2] + 1;
			row[k] = best;
		}
	}
	return rows[a_len % 3][b_len];
}

static const struct flat_json_field *find(const struct flat_json_field *table, const char *key)
{
	for (; table->key; table++)
		if (!strcasecmp(table->key, key))
			return table;
	return NULL;
}

static int refuse(const char *path, const char *key, const struct flat_json_field *table,
		  struct flat_err *err)
{
	const char *closest = NULL;
	size_t least = KEY_MAX;
	char quoted[FLAT_QUOTE];
	for (const struct flat_json_field *field = table; field->key; field++) {
		const size_t d = distance(key, field->key);
		if (d < least) {
			least = d;
			closest = field->key;
		}
	}
	flat_fail(err, FLAT_CODE_CONFIG, 0, "%s%sthere is no key %s", path, path[0] ? ": " : "",
		  flat_quote(key, quoted, sizeof quoted));
	/* more than half of it wrong: it is another word */
	if (closest && 2 * least <= strlen(closest))
		return flat_detail(err, "did you mean \"%s\"?", closest);
	char known[256] = "";
	for (size_t n = 0; table->key; table++) {
		const int w =
			snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", table->key);
		n += w > 0 && (size_t)w < sizeof known - n ? (size_t)w : 0;
	}
	return flat_detail(err, "known are: %s", known);
}

int flat_json_check_keys(const struct flat_json *object, const char *path,
			 const struct flat_json_field *table, struct flat_err *err)
{
	const cJSON *tree = (const cJSON *)object;
	if (!cJSON_IsObject(tree)) /* decoding tells */
		return 0;
	for (const cJSON *item = tree->child; item; item = item->next) {
		const char *key = item->string ? item->string : "";
		if (key[0] == '_' || (key[0] == '/' && key[1] == '/'))
			continue;
		const struct flat_json_field *field = find(table, key);
		if (!field)
			return refuse(path, key, table, err);
		if (!field->table)
			continue;
		char below[256];
		snprintf(below, sizeof below, "%s%s%s", path, path[0] ? "." : "", field->key);
		int r = 0;
		if (field->type == FLAT_JSON_OBJECT)
			r = flat_json_check_keys((const struct flat_json *)item, below,
						 field->table, err);
		size_t i = 0;
		for (const cJSON *one = cJSON_IsArray(item) ? item->child : NULL; one && r >= 0;
		     one = one->next, i++) {
			char at[sizeof below + 24];
			snprintf(at, sizeof at, "%s[%zu]", below, i);
			r = flat_json_check_keys((const struct flat_json *)one, at, field->table,
						 err);
		}
		if (r < 0)
			return r;
	}
	return 0;
}
