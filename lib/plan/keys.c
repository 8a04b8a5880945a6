// SPDX-License-Identifier: Apache-2.0
/*
 * All keys that a configuration of type flatnet may have, as one table; and those of its `ipam`,
 * which stand in more than one table, as another.
 */
#include "plan-internal.h"

#include <errno.h>
#include <string.h>

enum { MAX_KEYS = 256 };

/* What any plugin may be given, and none reads. */
static const struct flat_json_field common[] = {
	{ .key = "cniVersion" },	  { .key = "capabilities" },
	{ .key = "prevResult" },	  { .key = "cni.dev/valid-attachments" },
	{ .key = "cni.dev/attachments" }, FLAT_JSON_END,
};

struct keys {
	struct flat_json_field table[MAX_KEYS + 1];
	size_t count;
};

/* What is below some keys comes from several tables, or is the runtime's: they are known by name.
 */
static void add(struct keys *keys, const struct flat_json_field *fields)
{
	static const char *const deep[] = { "ipam", "runtimeConfig", "args" };
	for (; fields->key && keys->count < MAX_KEYS; fields++) {
		struct flat_json_field field = *fields;
		bool known = false;
		for (size_t i = 0; i < keys->count && !known; i++)
			known = !strcmp(keys->table[i].key, field.key);
		if (known)
			continue;
		for (size_t i = 0; i < FLAT_LEN(deep); i++)
			if (!strcmp(deep[i], field.key))
				field.table = NULL;
		keys->table[keys->count++] = field;
	}
}

static void add_below(struct keys *keys, const struct flat_json_field *fields, const char *key)
{
	for (; fields->key; fields++)
		if (!strcmp(fields->key, key) && fields->table)
			add(keys, fields->table);
}

int flat_conf_check_keys(const struct flat_request *req, struct flat_err *err)
{
	struct keys keys = { 0 }, ipam = { 0 };
	const struct flat_json *value = flat_json_get(req->json, "ipam");
	const struct flat_json_field *table;
	add(&keys, common);
	for (size_t i = 0; (table = flat_conf_table(i)); i++) {
		add(&keys, table);
		add_below(&ipam, table, "ipam");
	}
	int r = flat_json_check_keys(req->json, "", keys.table, err);
	/* another program's keys are its own */
	if (r < 0 || !value || (req->ipam_type && strcmp(req->ipam_type, "flatnet-ipam") != 0))
		return r;
	return flat_json_check_keys(value, "ipam", ipam.table, err);
}
