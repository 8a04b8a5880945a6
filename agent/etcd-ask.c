// SPDX-License-Identifier: Apache-2.0
#include "etcd-ask.h"

#include "base64.h"

#include <flatnet/cni.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The text that a memory stream has, or NULL. */
static char *finish(FILE *out, char **text)
{
	bool failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(*text);
		return NULL;
	}
	return *text;
}

/* Bytes as a JSON string. */
static void print_bytes(FILE *out, const char *bytes, size_t len)
{
	char piece[FLAT_BASE64_SIZE(768)];
	fputc('"', out);
	for (size_t n; len; bytes += n, len -= n) {
		n = len < 768 ? len : 768; /* a multiple of three: pieces can be joined */
		flat_base64_encode(bytes, n, piece);
		fputs(piece, out);
	}
	fputc('"', out);
}

static void print_key(FILE *out, const char *name, const char *key)
{
	fprintf(out, "\"%s\":", name);
	print_bytes(out, key, strlen(key));
}

/* The key behind all that begin with prefix. */
static void print_prefix_end(FILE *out, const char *prefix)
{
	size_t len = strlen(prefix);
	char end[512];
	while (len && (unsigned char)prefix[len - 1] == 0xff)
		len--;
	fputs(",\"range_end\":", out);
	if (!len || len > sizeof end) {
		print_bytes(out, "", 1); /* all keys from prefix on */
		return;
	}
	memcpy(end, prefix, len);
	end[len - 1]++;
	print_bytes(out, end, len);
}

static void print_number(FILE *out, const char *name, int64_t number)
{
	if (number)
		fprintf(out, ",\"%s\":\"%lld\"", name, (long long)number);
}

char *flat_etcd_ask_range(const struct flat_etcd_range *range)
{
	char *body = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&body, &size);
	if (!out)
		return NULL;
	if (range->after) {
		flat_auto_free char *from = calloc(1, range->after_len + 1);
		if (!from) {
			fclose(out);
			free(body);
			return NULL;
		}
		memcpy(from, range->after, range->after_len);
		fputs("{\"key\":", out);
		print_bytes(out, from, range->after_len + 1); /* the next one: a NUL more */
	} else {
		fputc('{', out);
		print_key(out, "key", range->key);
	}
	if (range->prefix)
		print_prefix_end(out, range->key);
	print_number(out, "limit", range->limit);
	print_number(out, "revision", range->revision);
	fputc('}', out);
	return finish(out, &body);
}

char *flat_etcd_ask_put(const struct flat_etcd_put *put)
{
	char *body = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&body, &size);
	if (!out)
		return NULL;
	fputs("{\"compare\":[", out);
	if (put->unused) {
		fputc('{', out);
		print_key(out, "key", put->unused);
		print_prefix_end(out, put->unused);
		fputs(",\"target\":\"CREATE\",\"create_revision\":\"0\"}", out);
	}
	if (put->replaces) {
		fputs(put->unused ? ",{" : "{", out);
		print_key(out, "key", put->replaces);
		fprintf(out, ",\"target\":\"MOD\",\"mod_revision\":\"%lld\"}",
			(long long)put->replaces_revision);
	}
	fputs("],\"success\":[", out);
	if (put->replaces && strcmp(put->replaces, put->key) != 0) {
		fputs("{\"request_delete_range\":{", out);
		print_key(out, "key", put->replaces);
		fputs("}},", out);
	}
	fputs("{\"request_put\":{", out);
	print_key(out, "key", put->key);
	fputc(',', out);
	print_key(out, "value", put->value);
	print_number(out, "lease", put->lease);
	fputs("}}],\"failure\":[", out);
	if (put->unused) {
		fputs("{\"request_range\":{", out);
		print_key(out, "key", put->unused);
		print_prefix_end(out, put->unused);
		print_number(out, "limit", 16);
		fputs("}}", out);
	}
	if (put->replaces) {
		fputs(put->unused ? ",{\"request_range\":{" : "{\"request_range\":{", out);
		print_key(out, "key", put->replaces);
		fputs("}}", out);
	}
	fputs("]}", out);
	return finish(out, &body);
}

char *flat_etcd_ask_watch(const char *prefix, int64_t revision)
{
	char *body = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&body, &size);
	if (!out)
		return NULL;
	fputs("{\"create_request\":{", out);
	print_key(out, "key", prefix);
	print_prefix_end(out, prefix);
	print_number(out, "start_revision", revision);
	fputs(",\"progress_notify\":true}}", out);
	return finish(out, &body);
}

char *flat_etcd_ask_number(const char *name, int64_t number)
{
	char *body = NULL;
	return asprintf(&body, "{\"%s\":\"%lld\"}", name, (long long)number) < 0 ? NULL : body;
}

char *flat_etcd_ask_token(const char *user, const char *password)
{
	flat_auto_free char *name = flat_json_quote(user), *secret = flat_json_quote(password);
	char *body = NULL;
	if (!name || !secret)
		return NULL;
	return asprintf(&body, "{\"name\":%s,\"password\":%s}", name, secret) < 0 ? NULL : body;
}
