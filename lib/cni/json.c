// SPDX-License-Identifier: Apache-2.0
/*
 * A parsed document is the JSON library's tree under another name. Keys are looked up here and not
 * with cJSON_GetObjectItem(), which takes the first of several equal keys; Go's encoding/json,
 * which all runtimes are written with, takes the last.
 */
#include "private.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

static const cJSON *tree(const struct flat_json *value)
{
	return (const cJSON *)value;
}

int flat_no_memory(struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read the configuration");
}

int flat_json_parse(const char *text, size_t len, struct flat_json **ret_json, struct flat_err *err)
{
	int r = flat_json_scan(text, len, err);
	if (r < 0)
		return r;
	cJSON *root = cJSON_ParseWithLengthOpts(text, len, NULL, false);
	if (!root) /* the grammar was right */
		return flat_no_memory(err);
	*ret_json = (struct flat_json *)root;
	return 0;
}

void flat_json_free(struct flat_json *json)
{
	cJSON_Delete((cJSON *)json);
}

const struct flat_json *flat_json_get_or_null(const struct flat_json *object, const char *key)
{
	const cJSON *found = NULL;
	if (!flat_json_is_object(object))
		return NULL;
	for (const cJSON *item = tree(object)->child; item; item = item->next)
		if (item->string && !strcasecmp(item->string, key))
			found = item;
	return (const struct flat_json *)found;
}

const struct flat_json *flat_json_get(const struct flat_json *object, const char *key)
{
	const struct flat_json *value = flat_json_get_or_null(object, key);
	return flat_json_is_null(value) ? NULL : value;
}

bool flat_json_is_null(const struct flat_json *value)
{
	return cJSON_IsNull(tree(value));
}

bool flat_json_is_object(const struct flat_json *value)
{
	return cJSON_IsObject(tree(value));
}

bool flat_json_is_array(const struct flat_json *value)
{
	return cJSON_IsArray(tree(value));
}

const char *flat_json_text(const struct flat_json *value)
{
	return cJSON_GetStringValue(tree(value));
}

size_t flat_json_count(const struct flat_json *array)
{
	return flat_json_is_array(array) ? (size_t)cJSON_GetArraySize(tree(array)) : 0;
}
