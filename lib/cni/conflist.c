// SPDX-License-Identifier: Apache-2.0
/*
 * A network configuration file as libcni reads it (CNI spec 1.1.0, section 1; libcni's conf.go):
 * what the plugins of the list get is made here as there, so that who looks at a file sees what
 * they will see.
 */
#include "private.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PLUGINS = 64 };

/* One entry with the list's name and cniVersion, as a text of its own. */
static int print_plugin(const struct flat_json *list, const struct flat_json *entry,
			struct flat_arena *arena, struct flat_plugin_conf *plugin)
{
	static const char *const inherited[] = { "name", "cniVersion" };
	cJSON *copy = cJSON_Duplicate((const cJSON *)entry, true);
	char *text = NULL;
	bool whole = copy;
	for (size_t i = 0; whole && list != entry && i < FLAT_LEN(inherited); i++) {
		const struct flat_json *value = flat_json_get(list, inherited[i]);
		cJSON_DeleteItemFromObject(copy, inherited[i]); /* in any case of its letters */
		if (value)
			whole = cJSON_AddItemToObject(copy, inherited[i],
						      cJSON_Duplicate((const cJSON *)value, true));
	}
	if (whole)
		text = cJSON_PrintUnformatted(copy);
	cJSON_Delete(copy);
	plugin->text = text ? flat_arena_strdup(arena, text) : NULL;
	cJSON_free(text);
	return plugin->text ? 0 : -1;
}

static int add_plugin(const struct flat_json *list, const struct flat_json *entry, size_t i,
		      struct flat_arena *arena, struct flat_conf_file *file, struct flat_err *err)
{
	const char *type = flat_json_text(flat_json_get(entry, "type"));
	char place[32] = "";
	if (list != entry)
		snprintf(place, sizeof place, "plugins[%zu]%s", i,
			 flat_json_is_object(entry) ? "." : "");
	if (!flat_json_is_object(entry))
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: is not an object", place);
	if (!type || !type[0])
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%stype: missing, but required: the name of a plugin", place);
	struct flat_plugin_conf *plugin = &file->plugins[file->plugin_count];
	plugin->type = flat_arena_strdup(arena, type);
	if (!plugin->type || print_plugin(list, entry, arena, plugin) < 0)
		return flat_no_memory(err);
	file->plugin_count++;
	return 0;
}

static int read_name(const struct flat_json *json, struct flat_arena *arena,
		     struct flat_conf_file *file, struct flat_err *err)
{
	const char *name = flat_json_text(flat_json_get(json, "name"));
	char quoted[FLAT_QUOTE];
	if (!name || !name[0])
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "name: missing, but required: the name of the network");
	if (!flat_name_is_valid(name))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "name: %s is not a network name: letters, digits, '_', '.' and "
				 "'-', beginning with a letter or digit",
				 flat_quote(name, quoted, sizeof quoted));
	file->name = flat_arena_strdup(arena, name);
	return file->name ? 0 : flat_no_memory(err);
}

static int read_file(const struct flat_json *json, struct flat_arena *arena,
		     struct flat_conf_file *file, struct flat_err *err)
{
	const struct flat_json *plugins = flat_json_get(json, "plugins");
	const struct flat_json *version = flat_json_get(json, "cniVersion");
	int r = read_name(json, arena, file, err);
	if (r < 0)
		return r;
	if (version && !flat_json_text(version))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "cniVersion: it is a string, like \"1.0.0\", with quotes");
	file->is_list = plugins;
	const size_t count = plugins ? flat_json_count(plugins) : 1;
	if (!count || count > MAX_PLUGINS)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "plugins: must be a list of 1 to %d plugins", MAX_PLUGINS);
	file->plugins = flat_arena_alloc(arena, count * sizeof *file->plugins);
	if (!file->plugins)
		return flat_no_memory(err);
	if (!plugins)
		return add_plugin(json, json, 0, arena, file, err);
	size_t i = 0;
	for (const cJSON *item = ((const cJSON *)plugins)->child; item && r >= 0;
	     item = item->next, i++)
		r = add_plugin(json, (const struct flat_json *)item, i, arena, file, err);
	return r;
}

int flat_conf_file_parse(const char *text, size_t len, struct flat_arena *arena,
			 struct flat_conf_file *ret_file, struct flat_err *err)
{
	struct flat_conf_file file = { 0 };
	struct flat_json *json = NULL;
	int r = flat_json_parse(text, len, &json, err);
	if (r < 0)
		return r;
	if (!flat_json_is_object(json))
		r = flat_fail(err, FLAT_CODE_DECODE, 0, "it is not a JSON object");
	else
		r = read_file(json, arena, &file, err);
	flat_json_free(json);
	if (r >= 0)
		*ret_file = file;
	return r;
}
