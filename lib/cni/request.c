// SPDX-License-Identifier: Apache-2.0
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
	MAX_CONTAINER_ID = 1024,
	MAX_NAME = 200, /* it becomes a file name (NAME_MAX 255), with room for a suffix */
	MAX_VALID = 65536,
};

static const char *const commands[] = {
	[FLAT_CMD_ADD] = "ADD", [FLAT_CMD_DEL] = "DEL",	      [FLAT_CMD_CHECK] = "CHECK",
	[FLAT_CMD_GC] = "GC",	[FLAT_CMD_STATUS] = "STATUS", [FLAT_CMD_VERSION] = "VERSION",
};

static const char *const versions[] = {
	[FLAT_VERSION_0_1_0] = "0.1.0", [FLAT_VERSION_0_2_0] = "0.2.0",
	[FLAT_VERSION_0_3_0] = "0.3.0", [FLAT_VERSION_0_3_1] = "0.3.1",
	[FLAT_VERSION_0_4_0] = "0.4.0", [FLAT_VERSION_1_0_0] = "1.0.0",
	[FLAT_VERSION_1_1_0] = "1.1.0",
};

const char *flat_version_text(enum flat_version version)
{
	return versions[version];
}

bool flat_version_parse(const char *text, enum flat_version *ret_version)
{
	for (size_t i = 0; i < FLAT_LEN(versions); i++) {
		if (!strcmp(text, versions[i])) {
			*ret_version = (enum flat_version)i;
			return true;
		}
	}
	return false;
}

const char *flat_versions_text(char *buf, size_t size)
{
	size_t used = 0;
	for (size_t i = 0; i < FLAT_LEN(versions) && used < size; i++)
		used += (size_t)snprintf(buf + used, size - used, "%s\"%s\"%s", i ? " " : "[",
					 versions[i], i + 1 == FLAT_LEN(versions) ? "]" : "");
	return buf;
}

int flat_command_parse(const char *text, enum flat_command *ret_command, struct flat_err *err)
{
	char quoted[FLAT_QUOTE];
	if (!text || !text[0])
		return -ENOENT;
	for (size_t i = 0; i < FLAT_LEN(commands); i++) {
		if (!strcmp(text, commands[i])) {
			*ret_command = (enum flat_command)i;
			return 0;
		}
	}
	/* the wording is libcni's: runtimes look for it */
	if (strlen(text) < 32 && flat_name_is_valid(text))
		return flat_fail(err, FLAT_CODE_ENV, 0, "unknown CNI_COMMAND: %s", text);
	return flat_fail(err, FLAT_CODE_ENV, 0, "unknown CNI_COMMAND: %s",
			 flat_quote(text, quoted, sizeof quoted));
}

/* ---- names -------------------------------------------------------------------------------------
 */

static bool is_alphanumeric(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool flat_name_is_valid(const char *text)
{
	if (!is_alphanumeric(text[0]))
		return false;
	for (; *text; text++)
		if (!is_alphanumeric(*text) && *text != '_' && *text != '.' && *text != '-')
			return false;
	return true;
}

bool flat_ifname_is_valid(const char *text)
{
	size_t len = strnlen(text, FLAT_IFNAME_LEN);
	if (!len || len >= FLAT_IFNAME_LEN || !strcmp(text, ".") || !strcmp(text, ".."))
		return false;
	/* 0xa0: the kernel's isspace() knows Latin-1 */
	return !strpbrk(text, "/: \t\n\v\f\r\xa0");
}

/* ---- environment -------------------------------------------------------------------------------
 */

static bool is_blank(const char *text)
{
	return !text || !text[0];
}

/* All that are missing in one error: nobody likes to find them one by one. */
static int check_required(const struct flat_env *env, enum flat_command command,
			  struct flat_err *err)
{
	bool attachment =
		command == FLAT_CMD_ADD || command == FLAT_CMD_DEL || command == FLAT_CMD_CHECK;
	const struct {
		const char *name, *value;
		bool needed;
	} variables[] = {
		{ "CNI_CONTAINERID", env->container_id, attachment },
		{ "CNI_NETNS", env->netns, attachment && command != FLAT_CMD_DEL },
		{ "CNI_IFNAME", env->ifname, attachment },
	};
	char names[64] = "";
	for (size_t i = 0; i < FLAT_LEN(variables); i++) {
		size_t used = strlen(names);
		if (variables[i].needed && is_blank(variables[i].value))
			snprintf(names + used, sizeof names - used, "%s%s", used ? "," : "",
				 variables[i].name);
	}
	if (!names[0])
		return 0;
	return flat_fail(err, FLAT_CODE_ENV, 0, "required env variables [%s] missing", names);
}

static int check_env(const struct flat_env *env, enum flat_command command, struct flat_err *err)
{
	char quoted[FLAT_QUOTE];
	int r = check_required(env, command, err);
	if (r < 0)
		return r;
	if (command == FLAT_CMD_GC || command == FLAT_CMD_STATUS)
		return 0;
	if (strlen(env->container_id) > MAX_CONTAINER_ID)
		return flat_fail(err, FLAT_CODE_ENV, 0,
				 "CNI_CONTAINERID is %zu bytes long; at most %d are allowed",
				 strlen(env->container_id), MAX_CONTAINER_ID);
	if (!flat_name_is_valid(env->container_id))
		return flat_fail(err, FLAT_CODE_ENV, 0,
				 "CNI_CONTAINERID: %s is not a container ID: letters, digits, '_', "
				 "'.' and '-', beginning with a letter or digit",
				 flat_quote(env->container_id, quoted, sizeof quoted));
	if (!flat_ifname_is_valid(env->ifname) ||
	    !flat_utf8_is_valid(env->ifname, strlen(env->ifname)))
		return flat_fail(err, FLAT_CODE_ENV, 0,
				 "CNI_IFNAME: %s is not an interface name: at most 15 bytes "
				 "without '/', ':' and white space",
				 flat_quote(env->ifname, quoted, sizeof quoted));
	/* it goes into the result, which is JSON, and must come back the same; DEL must not fail */
	if (command != FLAT_CMD_DEL && !flat_utf8_is_valid(env->netns, strlen(env->netns)))
		return flat_fail(err, FLAT_CODE_ENV, 0, "CNI_NETNS: %s is not UTF-8",
				 flat_quote(env->netns, quoted, sizeof quoted));
	return 0;
}

static int copy_text(struct flat_request *req, const char *text, const char **ret_copy,
		     struct flat_err *err)
{
	const char *copy = flat_arena_strdup(&req->arena, text ? text : "");
	if (!copy)
		return flat_no_memory(err);
	*ret_copy = copy;
	return 0;
}

static int copy_env(struct flat_request *req, const struct flat_env *env, struct flat_err *err)
{
	int r = copy_text(req, env->container_id, &req->container_id, err);
	if (r >= 0)
		r = copy_text(req, env->netns, &req->netns, err);
	if (r >= 0)
		r = copy_text(req, env->ifname, &req->ifname, err);
	if (r >= 0)
		r = copy_text(req, env->path, &req->path, err);
	req->netns_override = env->netns_override && (!strcmp(env->netns_override, "1") ||
						      !strcasecmp(env->netns_override, "true"));
	return r;
}

/* ---- configuration -----------------------------------------------------------------------------
 */

/* Reads the version first of all and without complaint, so that every error can be told in it. */
static void peek_version(struct flat_request *req)
{
	const struct flat_json *value = flat_json_get(req->json, "cniVersion");
	const char *text = flat_json_text(value);
	req->version = FLAT_VERSION_1_1_0;
	if (!flat_json_is_object(req->json))
		return;
	if (!value || (text && !text[0]))
		req->version = FLAT_VERSION_0_1_0;
	else if (text)
		flat_version_parse(text, &req->version);
}

static int check_version(const struct flat_request *req, struct flat_err *err)
{
	static const enum flat_version since[] = {
		[FLAT_CMD_CHECK] = FLAT_VERSION_0_4_0,
		[FLAT_CMD_GC] = FLAT_VERSION_1_1_0,
		[FLAT_CMD_STATUS] = FLAT_VERSION_1_1_0,
		[FLAT_CMD_VERSION] = FLAT_VERSION_0_1_0,
	};
	const struct flat_json *value = flat_json_get(req->json, "cniVersion");
	const char *text = flat_json_text(value);
	enum flat_version version;
	char quoted[FLAT_QUOTE], supported[128];
	if (value && !text)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "cniVersion: it is a string, like \"1.0.0\", with quotes");
	if (text && text[0] && !flat_version_parse(text, &version)) {
		flat_fail(err, FLAT_CODE_VERSION, 0, "incompatible CNI versions");
		return flat_detail(err, "config is %s, plugin supports %s",
				   flat_quote(text, quoted, sizeof quoted),
				   flat_versions_text(supported, sizeof supported));
	}
	if (req->version < since[req->command]) {
		flat_fail(err, FLAT_CODE_VERSION, 0, "config version does not allow %s",
			  commands[req->command]);
		return flat_detail(err, "config is \"%s\"; %s needs cniVersion %s or later",
				   flat_version_text(req->version), commands[req->command],
				   flat_version_text(since[req->command]));
	}
	return 0;
}

struct basics {
	const char *name, *type, *ipam_type;
};

static const struct flat_json_field name_fields[] = {
	{ "name", FLAT_JSON_STRING, offsetof(struct basics, name) },
	{ "type", FLAT_JSON_STRING, offsetof(struct basics, type) },
	FLAT_JSON_END,
};

static const struct flat_json_field ipam_type_fields[] = {
	{ "type", FLAT_JSON_STRING, offsetof(struct basics, ipam_type) },
	FLAT_JSON_END,
};

static const struct flat_json_field ipam_fields[] = {
	{ "ipam", FLAT_JSON_OBJECT, 0, .table = ipam_type_fields },
	FLAT_JSON_END,
};

const struct flat_json_field *flat_request_table(size_t i)
{
	static const struct flat_json_field *const tables[] = { name_fields, ipam_fields };
	return i < FLAT_LEN(tables) ? tables[i] : NULL;
}

static int parse_names(struct flat_request *req, struct flat_err *err)
{
	struct basics basics = { 0 };
	char quoted[FLAT_QUOTE];
	int r = flat_json_decode(req->json, "", name_fields, &basics, &req->arena, err);
	if (r < 0)
		return r;
	if (is_blank(basics.type) && flat_json_get(req->json, "plugins"))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "plugins: this is a whole network configuration list; a plugin "
				 "takes one entry of the list, with the list's name and cniVersion "
				 "(the runtime or cnitool makes it so)");
	if (is_blank(basics.type))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "type: missing, but required: the name of this plugin");
	if (is_blank(basics.name))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "missing network name: the key `name` of the configuration");
	if (!flat_name_is_valid(basics.name))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "name: %s is not a network name: letters, digits, '_', '.' and "
				 "'-', beginning with a letter or digit",
				 flat_quote(basics.name, quoted, sizeof quoted));
	if (strlen(basics.name) > MAX_NAME)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "name: the network name is %zu bytes long; at most %d are allowed",
				 strlen(basics.name), MAX_NAME);
	req->name = basics.name;
	req->type = basics.type;
	return 0;
}

static int parse_ipam(struct flat_request *req, struct flat_err *err)
{
	struct basics basics = { 0 };
	int r = flat_json_decode(req->json, "", ipam_fields, &basics, &req->arena, err);
	if (r < 0)
		return r;
	req->has_ipam = flat_json_get(req->json, "ipam") != NULL;
	req->ipam_type = basics.ipam_type;
	return 0;
}

static int parse_prev_result(struct flat_request *req, struct flat_err *err)
{
	const struct flat_json *json = flat_json_get(req->json, "prevResult");
	struct flat_err ignored = { 0 };
	bool is_del = req->command == FLAT_CMD_DEL;
	if (!json || req->command == FLAT_CMD_GC || req->command == FLAT_CMD_STATUS)
		return 0;
	struct flat_result *result = flat_arena_alloc(&req->arena, sizeof *result);
	if (!result)
		return flat_no_memory(err);
	int r = flat_result_parse(json, req->version, "prevResult", &req->arena, result,
				  is_del ? &ignored : err);
	if (r >= 0)
		req->prev_result = result;
	else if (is_del) /* it is only a hint there, and DEL must get its work done */
		return ignored.sys == ENOMEM ? flat_no_memory(err) : 0;
	return r;
}

/* ---- what GC shall keep ------------------------------------------------------------------------
 */

static const struct flat_json_field attachment_fields[] = {
	{ "containerID", FLAT_JSON_STRING, offsetof(struct flat_attachment_id, container_id),
	  .required = true },
	{ "ifname", FLAT_JSON_STRING, offsetof(struct flat_attachment_id, ifname),
	  .required = true },
	FLAT_JSON_END,
};

static int parse_valid(struct flat_request *req, struct flat_err *err)
{
	/* older libcni sent the second one only; newer ones send both, for older plugins */
	static const char *const keys[] = { "cni.dev/valid-attachments", "cni.dev/attachments" };
	for (size_t i = 0; i < FLAT_LEN(keys); i++) {
		const struct flat_json_field fields[] = {
			{ keys[i], FLAT_JSON_OBJECT_LIST, 0, .max = MAX_VALID,
			  .table = attachment_fields,
			  .elem_size = sizeof(struct flat_attachment_id) },
			FLAT_JSON_END,
		};
		/* null is what a Go program sends for a list of none; no key at all is not the
		 * same: then nobody has told what is valid, and nothing may go */
		if (!flat_json_get_or_null(req->json, keys[i]))
			continue;
		req->has_valid = true;
		return flat_json_decode(req->json, "", fields, &req->valid, &req->arena, err);
	}
	return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static int parse_json(struct flat_request *req, struct flat_err *err)
{
	bool blank = true;
	for (size_t i = 0; i < req->text_len && blank; i++)
		blank = flat_json_is_space(req->text[i]);
	if (blank)
		return flat_fail(
			err, FLAT_CODE_DECODE, 0,
			"no network configuration on standard input; the runtime writes it "
			"there as JSON");
	int r = flat_json_parse(req->text, req->text_len, &req->json, err);
	if (r < 0)
		return flat_wrap(err, "network configuration");
	if (!flat_json_is_object(req->json))
		return flat_fail(err, FLAT_CODE_DECODE, 0,
				 "network configuration: it is not a JSON object");
	return 0;
}

static int parse_command(const struct flat_env *env, enum flat_command *ret_command,
			 struct flat_err *err)
{
	int r = flat_command_parse(env->command, ret_command, err);
	if (r == -ENOENT)
		return flat_fail(err, FLAT_CODE_ENV, 0,
				 "required env variables [CNI_COMMAND] missing");
	return r;
}

int flat_request_parse(const struct flat_env *env, const char *text, size_t len,
		       struct flat_request *ret_req, struct flat_err *err)
{
	struct flat_request *req = ret_req;
	struct flat_err json_err = { 0 };
	req->text = text;
	req->text_len = len;
	int json_r = parse_json(req, &json_err);
	peek_version(req);
	int r = parse_command(env, &req->command, err);
	if (r < 0)
		return r;
	if ((r = check_env(env, req->command, err)) < 0 || (r = copy_env(req, env, err)) < 0)
		return r;
	if (json_r < 0) {
		if (err)
			*err = json_err;
		return json_r;
	}
	if ((r = check_version(req, err)) < 0 || (r = parse_names(req, err)) < 0)
		return r;
	bool lenient = req->command != FLAT_CMD_ADD && req->command != FLAT_CMD_CHECK;
	r = flat_args_parse(env->args ? env->args : "", lenient, &req->arena, &req->args, err);
	if (r < 0)
		return r;
	if ((r = parse_ipam(req, err)) < 0 || (r = parse_prev_result(req, err)) < 0)
		return r;
	return req->command == FLAT_CMD_GC ? parse_valid(req, err) : 0;
}

void flat_request_free(struct flat_request *req)
{
	flat_json_free(req->json);
	flat_arena_free(&req->arena);
	*req = (struct flat_request){ 0 };
}
