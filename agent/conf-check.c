// SPDX-License-Identifier: Apache-2.0
#include "conf-private.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int flat_conf_refuse(struct flat_err *err, const char *place, const char *fmt, ...)
{
	char text[384];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: %s", place, text);
}

int flat_conf_choose(const char *place, const char *text, const char *const *words, size_t count,
		     int *ret_index, struct flat_err *err)
{
	char all[128] = "";
	for (size_t i = 0, n = 0; i < count; i++) {
		if (!flat_given(text) || !strcmp(text, words[i])) {
			*ret_index = (int)i;
			return 0;
		}
		n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", words[i]);
	}
	return flat_conf_refuse(err, place, "\"%.64s\" is not one of %s", text, all);
}

int flat_conf_check_path(const char *place, const char *path, struct flat_err *err)
{
	if (!flat_given(path))
		return 0;
	if (path[0] != '/')
		return flat_conf_refuse(err, place, "\"%.128s\" must be an absolute path", path);
	if (strlen(path) >= PATH_MAX)
		return flat_conf_refuse(err, place, "\"%.64s...\" is longer than a path can be",
					path);
	if (path[strlen(path) - 1] == '/')
		return flat_conf_refuse(err, place, "\"%.128s\" ends with '/': name it without",
					path);
	return 0;
}

int flat_conf_check_ifname(const char *place, const char *name, struct flat_err *err)
{
	if (flat_ifname_is_valid(name))
		return 0;
	return flat_conf_refuse(
		err, place,
		"\"%.64s\" cannot name an interface: 1 to 15 characters, without '/', ':' "
		"or white space",
		name);
}

bool flat_conf_is_reachable(const struct flat_ip *ip)
{
	static const char *const nowhere[] = { "0.0.0.0/8",	 "127.0.0.0/8", "224.0.0.0/3",
					       "169.254.0.0/16", "::/127",	"fe80::/10",
					       "ff00::/8" };
	for (size_t i = 0; i < FLAT_LEN(nowhere); i++) {
		struct flat_prefix prefix;
		if (flat_prefix_parse(nowhere[i], &prefix) && flat_prefix_contains(&prefix, ip))
			return false;
	}
	return true;
}

bool flat_conf_has_host_bits(const struct flat_prefix *prefix)
{
	const struct flat_ip first = flat_prefix_first(prefix);
	return !flat_ip_equal(&first, &prefix->ip);
}

int flat_conf_check_prefix(const char *place, const struct flat_prefix *prefix,
			   struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT], clean_text[FLAT_PREFIX_TEXT];
	const struct flat_prefix clean = { flat_prefix_first(prefix), prefix->len };
	if (flat_conf_has_host_bits(prefix))
		return flat_conf_refuse(err, place, "%s has host bits set: the network is %s",
					flat_prefix_text(prefix, text),
					flat_prefix_text(&clean, clean_text));
	return 0;
}

int flat_conf_check_url(const char *place, const char *url, struct flat_err *err)
{
	const char *host = !strncmp(url, "https://", 8)	 ? url + 8
			   : !strncmp(url, "http://", 7) ? url + 7
							 : NULL;
	if (!host)
		return flat_conf_refuse(
			err, place, "\"%.128s\" is not a URL: http:// or https://, host and port",
			url);
	const size_t host_len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
	const char *rest = host + (host_len <= strlen(host) ? host_len : strlen(host));
	bool good = host_len && host_len <= 255 && host_len <= strlen(host);
	if (good && host[0] == '[') {
		char text[FLAT_IP_TEXT];
		struct flat_ip ip;
		good = host_len - 2 < sizeof text;
		if (good) {
			memcpy(text, host + 1, host_len - 2);
			text[host_len - 2] = '\0';
			good = flat_ip_parse(text, &ip) && ip.family == AF_INET6;
		}
	}
	for (size_t i = 0; good && host[0] != '[' && i < host_len; i++)
		good = isalnum((unsigned char)host[i]) || strchr("-._", host[i]);
	if (!good)
		return flat_conf_refuse(err, place,
					"\"%.128s\": the host is neither a name nor an address",
					url);
	if (*rest == ':') {
		uint64_t port;
		if (!flat_uint_parse(rest + 1, 65535, &port) || !port)
			return flat_conf_refuse(err, place,
						"\"%.128s\": the port is not a number up to 65535",
						url);
	} else if (*rest) {
		return flat_conf_refuse(err, place,
					"\"%.128s\": must end with the host or the port", url);
	}
	return 0;
}
