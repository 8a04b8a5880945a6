// SPDX-License-Identifier: Apache-2.0
#include "http-private.h"

#include <errno.h>
#include <string.h>

static int fail_url(const char *url, const char *why, struct flat_err *err)
{
	flat_fail(err, FLAT_CODE_CONFIG, 0, "URL '%.200s': %s", url, why);
	return flat_detail(err,
			   "write it like https://192.0.2.1:6443 or http://[2001:db8::1]:2379");
}

static bool is_host_name(const char *text)
{
	size_t len = strlen(text);
	return len && len <= 253 && text[0] != '-' && text[0] != '.' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") ==
		       len;
}

int flat_http_parse_url(struct flat_arena *arena, const char *url, struct endpoint *ret_endpoint,
			struct flat_err *err)
{
	struct endpoint endpoint = { .url = flat_arena_strdup(arena, url) };
	const char *rest = url;
	if (!strncmp(url, "https://", 8)) {
		endpoint.tls = true;
		rest += 8;
	} else if (!strncmp(url, "http://", 7)) {
		rest += 7;
	} else {
		return fail_url(url, "it begins neither with https:// nor with http://", err);
	}
	for (const char *c = rest; *c; c++) {
		if (*c <= ' ' || *c >= 0x7f || strchr("?#@\\\"<>", *c))
			return fail_url(url, "only a host, a port and a path can be in it", err);
	}
	size_t len = strcspn(rest, "/");
	const char *path = rest + len;
	size_t path_len = strlen(path);
	while (path_len && path[path_len - 1] == '/')
		path_len--;
	char *text = flat_arena_alloc(arena, len + 1),
	     *base = flat_arena_alloc(arena, path_len + 1);
	if (!endpoint.url || !text || !base)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read URL");
	memcpy(base, path, path_len);
	endpoint.base = base;
	memcpy(text, rest, len);
	endpoint.authority = flat_arena_strdup(arena, text);
	if (!endpoint.authority)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read URL");
	char *port = NULL;
	if (text[0] == '[') {
		char *end = strchr(text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return fail_url(url, "the address in brackets has no end", err);
		port = end[1] ? end + 2 : NULL;
		*end = '\0';
		endpoint.host = text + 1;
		if (!flat_ip_parse(endpoint.host, &endpoint.ip) || !strchr(endpoint.host, ':'))
			return fail_url(url, "what is in brackets is no IPv6 address", err);
	} else {
		char *colon = strchr(text, ':');
		if (colon) {
			*colon = '\0';
			port = colon + 1;
		}
		endpoint.host = text;
		if (!flat_ip_parse(text, &endpoint.ip) && !is_host_name(text))
			return fail_url(url, "it has no valid host", err);
	}
	uint64_t number = endpoint.tls ? 443 : 80;
	if (port && (!flat_uint_parse(port, UINT16_MAX, &number) || !number))
		return fail_url(url, "it has no valid port", err);
	endpoint.port = (uint16_t)number;
	*ret_endpoint = endpoint;
	return 0;
}

bool flat_http_escape(const char *text, char *buf, size_t size)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t used = 0;
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			     (c >= '0' && c <= '9') || strchr("-._~", c);
		if (size - used <= (plain ? 1 : 3))
			return false;
		if (plain) {
			buf[used++] = (char)c;
		} else {
			buf[used++] = '%';
			buf[used++] = hex[c >> 4];
			buf[used++] = hex[c & 15];
		}
	}
	if (used >= size)
		return false;
	buf[used] = '\0';
	return true;
}
