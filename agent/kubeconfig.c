// SPDX-License-Identifier: Apache-2.0
#include "kubeconfig.h"

#include "file.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct reader {
	const char *path;
	yaml_document_t document;
	struct flat_arena *arena;
	struct flat_err *err;
};

/* Which entry is read: "users[name=admin].user", for messages. */
struct place {
	yaml_node_t *node; /* a mapping; NULL: there is none */
	char where[200];
};

static int fail_at(struct reader *reader, const char *where, const char *key, const char *why)
{
	return flat_fail(reader->err, FLAT_CODE_CONFIG, 0, "kubeconfig '%s': %s%s%s %s",
			 reader->path, where, where[0] && key[0] ? "." : "", key, why);
}

static int fail_memory(struct reader *reader)
{
	return flat_fail(reader->err, FLAT_CODE_INTERNAL, ENOMEM, "kubeconfig '%s'", reader->path);
}

static yaml_node_t *member(struct reader *reader, const yaml_node_t *mapping, const char *key)
{
	if (!mapping || mapping->type != YAML_MAPPING_NODE)
		return NULL;
	for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
	     pair < mapping->data.mapping.pairs.top; pair++) {
		yaml_node_t *name = yaml_document_get_node(&reader->document, pair->key);
		if (name && name->type == YAML_SCALAR_NODE &&
		    !strcmp((char *)name->data.scalar.value, key))
			return yaml_document_get_node(&reader->document, pair->value);
	}
	return NULL;
}

static bool is_null(const yaml_node_t *node)
{
	if (node->type != YAML_SCALAR_NODE)
		return false;
	const char *text = (const char *)node->data.scalar.value;
	return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (!*text || !strcmp(text, "~") || !strcmp(text, "null"));
}

/* A text, or NULL in *ret_text where there is none, or an empty one. */
static int get_text(struct reader *reader, const struct place *place, const char *key,
		    const char **ret_text)
{
	yaml_node_t *node = member(reader, place->node, key);
	*ret_text = NULL;
	if (!node || is_null(node))
		return 0;
	if (node->type != YAML_SCALAR_NODE)
		return fail_at(reader, place->where, key, "is not a text");
	size_t len = node->data.scalar.length;
	if (!len)
		return 0;
	if (memchr(node->data.scalar.value, '\0', len))
		return fail_at(reader, place->where, key, "has a NUL in it");
	*ret_text = flat_arena_strdup(reader->arena, (char *)node->data.scalar.value);
	return *ret_text ? 0 : fail_memory(reader);
}

/* A path, relative to the file's folder. */
static int get_path(struct reader *reader, const struct place *place, const char *key,
		    const char **ret_path)
{
	int r = get_text(reader, place, key, ret_path);
	const char *path = *ret_path, *slash = strrchr(reader->path, '/');
	if (r < 0 || !path || path[0] == '/' || !slash)
		return r;
	size_t folder = (size_t)(slash - reader->path) + 1, len = strlen(path);
	char *whole = flat_arena_alloc(reader->arena, folder + len + 1);
	if (!whole)
		return fail_memory(reader);
	memcpy(whole, reader->path, folder);
	memcpy(whole + folder, path, len + 1);
	*ret_path = whole;
	return 0;
}

/* Base64 of a PEM text. */
static int get_data(struct reader *reader, const struct place *place, const char *key,
		    const char **ret_data)
{
	const char *text;
	int r = get_text(reader, place, key, &text);
	*ret_data = NULL;
	if (r < 0 || !text)
		return r;
	gnutls_datum_t coded = { .data = (unsigned char *)text, .size = (unsigned)strlen(text) };
	gnutls_datum_t plain;
	if (gnutls_base64_decode2(&coded, &plain) < 0)
		return fail_at(reader, place->where, key, "is not base64");
	char *copy = flat_arena_alloc(reader->arena, (size_t)plain.size + 1);
	if (copy)
		memcpy(copy, plain.data, plain.size);
	gnutls_free(plain.data);
	if (!copy)
		return fail_memory(reader);
	if (!strstr(copy, "-----BEGIN "))
		return fail_at(reader, place->where, key, "is not base64 of a PEM text");
	*ret_data = copy;
	return 0;
}

static int get_bool(struct reader *reader, const struct place *place, const char *key,
		    bool *ret_value)
{
	const char *text;
	int r = get_text(reader, place, key, &text);
	*ret_value = false;
	if (r < 0 || !text)
		return r;
	*ret_value = !strcmp(text, "true");
	if (!*ret_value && strcmp(text, "false") != 0)
		return fail_at(reader, place->where, key, "is neither true nor false");
	return 0;
}

/* What would change how the server is reached, or as whom, and cannot be done. */
static int refuse(struct reader *reader, const struct place *place, const char *key,
		  const char *cure)
{
	yaml_node_t *node = member(reader, place->node, key);
	if (!node || is_null(node))
		return 0;
	fail_at(reader, place->where, key, "is not supported");
	return flat_detail(reader->err, "%s", cure);
}

/* The entry of a list by name: {name: NAME, INSIDE: {...}}. */
static int find_named(struct reader *reader, const char *list, const char *name, const char *inside,
		      struct place *ret_place)
{
	yaml_node_t *root = yaml_document_get_root_node(&reader->document);
	yaml_node_t *sequence = member(reader, root, list);
	snprintf(ret_place->where, sizeof ret_place->where, "%s[name=%.100s]", list, name);
	if (!sequence || sequence->type != YAML_SEQUENCE_NODE)
		return fail_at(reader, list, "", "is not a list");
	for (yaml_node_item_t *item = sequence->data.sequence.items.start;
	     item < sequence->data.sequence.items.top; item++) {
		yaml_node_t *entry = yaml_document_get_node(&reader->document, *item);
		yaml_node_t *its = member(reader, entry, "name");
		if (!its || its->type != YAML_SCALAR_NODE ||
		    strcmp((char *)its->data.scalar.value, name) != 0)
			continue;
		ret_place->node = member(reader, entry, inside);
		if (!ret_place->node || ret_place->node->type != YAML_MAPPING_NODE)
			return fail_at(reader, ret_place->where, inside, "is missing");
		size_t used = strlen(ret_place->where);
		snprintf(ret_place->where + used, sizeof ret_place->where - used, ".%s", inside);
		return 0;
	}
	return fail_at(reader, ret_place->where, "", "is missing");
}

static int read_cluster(struct reader *reader, const char *name, struct flat_http_target *target)
{
	struct place place = { 0 };
	const char **urls = flat_arena_alloc(reader->arena, sizeof *urls);
	if (!urls)
		return fail_memory(reader);
	int r = find_named(reader, "clusters", name, "cluster", &place);
	if (r < 0 || (r = get_text(reader, &place, "server", &urls[0])) < 0 ||
	    (r = get_path(reader, &place, "certificate-authority", &target->ca_file)) < 0 ||
	    (r = get_data(reader, &place, "certificate-authority-data", &target->ca_data)) < 0 ||
	    (r = get_text(reader, &place, "tls-server-name", &target->server_name)) < 0 ||
	    (r = get_bool(reader, &place, "insecure-skip-tls-verify", &target->insecure)) < 0 ||
	    (r = refuse(reader, &place, "proxy-url", "reach the API server directly")) < 0)
		return r;
	if (!urls[0])
		return fail_at(reader, place.where, "server", "is missing");
	target->urls = urls;
	target->url_count = 1;
	return 0;
}

static int read_user(struct reader *reader, const char *name, struct flat_http_target *target)
{
	static const char cure[] = "use a client certificate or a token, such as a service "
				   "account's";
	struct place place = { 0 };
	const char *username, *password;
	int r = find_named(reader, "users", name, "user", &place);
	if (r < 0 || (r = refuse(reader, &place, "exec", cure)) < 0 ||
	    (r = refuse(reader, &place, "auth-provider", cure)) < 0 ||
	    (r = refuse(reader, &place, "as", "give the user itself the rights")) < 0 ||
	    (r = get_path(reader, &place, "client-certificate", &target->cert_file)) < 0 ||
	    (r = get_data(reader, &place, "client-certificate-data", &target->cert_data)) < 0 ||
	    (r = get_path(reader, &place, "client-key", &target->key_file)) < 0 ||
	    (r = get_data(reader, &place, "client-key-data", &target->key_data)) < 0 ||
	    (r = get_text(reader, &place, "token", &target->token)) < 0 ||
	    (r = get_path(reader, &place, "tokenFile", &target->token_file)) < 0 ||
	    (r = get_text(reader, &place, "username", &username)) < 0 ||
	    (r = get_text(reader, &place, "password", &password)) < 0)
		return r;
	bool has_cert = target->cert_file || target->cert_data;
	bool has_key = target->key_file || target->key_data;
	if (has_cert != has_key)
		return fail_at(reader, place.where, has_cert ? "client-key" : "client-certificate",
			       "is missing: certificate and key belong together");
	if (!username)
		return 0;
	size_t size = strlen(username) + 1 + (password ? strlen(password) : 0) + 1;
	char *basic = flat_arena_alloc(reader->arena, size);
	if (!basic)
		return fail_memory(reader);
	snprintf(basic, size, "%s:%s", username, password ? password : "");
	target->basic = basic;
	return 0;
}

static int read_config(struct reader *reader, const char *context, struct flat_http_target *target)
{
	struct place root = { .node = yaml_document_get_root_node(&reader->document) },
		     place = { 0 };
	const char *cluster, *user;
	if (!root.node || root.node->type != YAML_MAPPING_NODE)
		return fail_at(reader, "it", "", "is not a mapping of keys and values");
	int r = 0;
	if (!context && (r = get_text(reader, &root, "current-context", &context)) < 0)
		return r;
	if (!context)
		return fail_at(reader, "", "current-context",
			       "is missing, and no context is named");
	r = find_named(reader, "contexts", context, "context", &place);
	if (r < 0 || (r = get_text(reader, &place, "cluster", &cluster)) < 0 ||
	    (r = get_text(reader, &place, "user", &user)) < 0)
		return r;
	if (!cluster)
		return fail_at(reader, place.where, "cluster", "is missing");
	r = read_cluster(reader, cluster, target);
	return r < 0 || !user ? r : read_user(reader, user, target);
}

int flat_kubeconfig_read(const char *path, const char *context, struct flat_arena *arena,
			 struct flat_http_target *ret_target, struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	int len = flat_file_read(path, "kubeconfig", &text, err);
	if (len < 0)
		return len;
	yaml_parser_t parser;
	if (!yaml_parser_initialize(&parser))
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "kubeconfig '%s'", path);
	yaml_parser_set_input_string(&parser, (unsigned char *)text, (size_t)len);
	struct reader reader = { .path = path, .arena = arena, .err = err };
	struct flat_http_target target = { 0 };
	int r;
	if (!yaml_parser_load(&parser, &reader.document)) {
		r = flat_fail(err, FLAT_CODE_CONFIG, 0, "kubeconfig '%s', line %zu: %s", path,
			      parser.problem_mark.line + 1,
			      parser.problem ? parser.problem : "out of memory");
	} else {
		r = read_config(&reader, context, &target);
		yaml_document_delete(&reader.document);
	}
	yaml_parser_delete(&parser);
	explicit_bzero(text, (size_t)len);
	if (r < 0)
		return r;
	*ret_target = target;
	return 0;
}

int flat_kubeconfig_in_cluster(const char *server, const char *service_account,
			       struct flat_arena *arena, struct flat_http_target *ret_target,
			       struct flat_err *err)
{
	size_t size = strlen(service_account) + sizeof "/ca.crt";
	const char **urls = flat_arena_alloc(arena, sizeof *urls);
	char *ca = flat_arena_alloc(arena, size), *token = flat_arena_alloc(arena, size);
	if (!urls || !ca || !token || !(urls[0] = flat_arena_strdup(arena, server)))
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "prepare the service account");
	snprintf(ca, size, "%s/ca.crt", service_account);
	snprintf(token, size, "%s/token", service_account);
	*ret_target = (struct flat_http_target){
		.urls = urls, .url_count = 1, .ca_file = ca, .token_file = token
	};
	return 0;
}
