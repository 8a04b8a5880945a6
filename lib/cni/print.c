// SPDX-License-Identifier: Apache-2.0
/*
 * Writing JSON: results in each version's shape, errors, versions. All texts pass through
 * flat_utf8_clean(): the JSON library writes out whatever bytes it is given.
 */
#include "private.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The tree that is being built. Out of memory is kept in mind and asked for once, at the end. */
struct printer {
	enum flat_version version;
	bool failed;
};

static cJSON *checked(struct printer *p, cJSON *item)
{
	p->failed = p->failed || !item;
	return item;
}

static void put(struct printer *p, cJSON *object, const char *key, cJSON *item)
{
	if (!checked(p, item))
		return;
	if (!object || !cJSON_AddItemToObject(object, key, item)) {
		cJSON_Delete(item);
		p->failed = true;
	}
}

static void append(struct printer *p, cJSON *array, cJSON *item)
{
	if (!checked(p, item))
		return;
	if (!array || !cJSON_AddItemToArray(array, item)) {
		cJSON_Delete(item);
		p->failed = true;
	}
}

static cJSON *text_of(const char *text)
{
	flat_auto_free char *clean = flat_utf8_clean(text);
	return clean ? cJSON_CreateString(clean) : NULL;
}

/* Texts that are not given and numbers that are 0 are left out. */
static void put_text(struct printer *p, cJSON *object, const char *key, const char *text)
{
	if (text && text[0])
		put(p, object, key, text_of(text));
}

static void put_number(struct printer *p, cJSON *object, const char *key, uint32_t number)
{
	if (number)
		put(p, object, key, cJSON_CreateNumber(number));
}

static void put_ip(struct printer *p, cJSON *object, const char *key, const struct flat_ip *ip)
{
	char text[FLAT_IP_TEXT];
	if (ip->family)
		put_text(p, object, key, flat_ip_text(ip, text));
}

static void put_prefix(struct printer *p, cJSON *object, const char *key,
		       const struct flat_prefix *prefix)
{
	char text[FLAT_PREFIX_TEXT];
	put_text(p, object, key, flat_prefix_text(prefix, text));
}

static void put_texts(struct printer *p, cJSON *object, const char *key,
		      const struct flat_json_list *list)
{
	const char *const *texts = list->items;
	if (!list->count)
		return;
	cJSON *array = checked(p, cJSON_CreateArray());
	for (size_t i = 0; i < list->count; i++)
		append(p, array, text_of(texts[i]));
	put(p, object, key, array);
}

/* Prints what was built and lets go of it. */
static char *finish(struct printer *p, cJSON *root)
{
	char *text = p->failed ? NULL : cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	return text;
}

char *flat_json_quote(const char *text)
{
	struct printer p = { 0 };
	return finish(&p, checked(&p, text_of(text)));
}

/* ---- results -----------------------------------------------------------------------------------
 */

static cJSON *interface_object(struct printer *p, const struct flat_result_interface *interface)
{
	cJSON *object = checked(p, cJSON_CreateObject());
	char mac[FLAT_MAC_TEXT];
	put(p, object, "name", text_of(interface->name ? interface->name : ""));
	if (interface->has_mac)
		put_text(p, object, "mac", flat_mac_text(&interface->mac, mac));
	if (p->version >= FLAT_VERSION_1_1_0)
		put_number(p, object, "mtu", interface->mtu);
	put_text(p, object, "sandbox", interface->sandbox);
	if (p->version >= FLAT_VERSION_1_1_0) {
		put_text(p, object, "socketPath", interface->socket_path);
		put_text(p, object, "pciID", interface->pci_id);
	}
	return object;
}

static cJSON *ip_object(struct printer *p, const struct flat_result_ip *ip)
{
	cJSON *object = checked(p, cJSON_CreateObject());
	if (p->version < FLAT_VERSION_1_0_0)
		put_text(p, object, "version", ip->address.ip.family == AF_INET ? "4" : "6");
	if (ip->interface >= 0)
		put(p, object, "interface", cJSON_CreateNumber(ip->interface));
	put_prefix(p, object, "address", &ip->address);
	put_ip(p, object, "gateway", &ip->gateway);
	return object;
}

static cJSON *route_object(struct printer *p, const struct flat_route *route)
{
	cJSON *object = checked(p, cJSON_CreateObject());
	put_prefix(p, object, "dst", &route->dst);
	put_ip(p, object, "gw", &route->gw);
	if (p->version < FLAT_VERSION_1_1_0)
		return object;
	put_number(p, object, "mtu", route->mtu);
	put_number(p, object, "advmss", route->advmss);
	put_number(p, object, "priority", route->priority);
	put_number(p, object, "table", route->table);
	if (route->scope >= 0)
		put(p, object, "scope", cJSON_CreateNumber(route->scope));
	return object;
}

static void put_lists(struct printer *p, cJSON *root, const struct flat_result *result)
{
	cJSON *array;
	if (result->interface_count) {
		array = checked(p, cJSON_CreateArray());
		for (size_t i = 0; i < result->interface_count; i++)
			append(p, array, interface_object(p, &result->interfaces[i]));
		put(p, root, "interfaces", array);
	}
	if (result->ip_count) {
		array = checked(p, cJSON_CreateArray());
		for (size_t i = 0; i < result->ip_count; i++)
			append(p, array, ip_object(p, &result->ips[i]));
		put(p, root, "ips", array);
	}
	if (result->route_count) {
		array = checked(p, cJSON_CreateArray());
		for (size_t i = 0; i < result->route_count; i++)
			append(p, array, route_object(p, &result->routes[i]));
		put(p, root, "routes", array);
	}
}

/* Until 0.2.0: the first address of a family, with the routes of that family. */
static bool put_family(struct printer *p, cJSON *root, const struct flat_result *result, int family)
{
	const struct flat_result_ip *ip = NULL;
	cJSON *routes = NULL;
	for (size_t i = 0; i < result->ip_count && !ip; i++)
		if (result->ips[i].address.ip.family == family)
			ip = &result->ips[i];
	if (!ip)
		return false;
	cJSON *object = checked(p, cJSON_CreateObject());
	put_prefix(p, object, "ip", &ip->address);
	put_ip(p, object, "gateway", &ip->gateway);
	for (size_t i = 0; i < result->route_count; i++) {
		if (result->routes[i].dst.ip.family != family)
			continue;
		if (!routes)
			routes = checked(p, cJSON_CreateArray());
		append(p, routes, route_object(p, &result->routes[i]));
	}
	if (routes)
		put(p, object, "routes", routes);
	put(p, root, family == AF_INET ? "ip4" : "ip6", object);
	return true;
}

static void put_dns(struct printer *p, cJSON *root, const struct flat_dns *dns)
{
	/* libcni's types always wrote it before 1.0.0, empty as it may be */
	if (flat_dns_is_empty(dns) && p->version >= FLAT_VERSION_1_0_0)
		return;
	cJSON *object = checked(p, cJSON_CreateObject());
	put_texts(p, object, "nameservers", &dns->nameservers);
	put_text(p, object, "domain", dns->domain);
	put_texts(p, object, "search", &dns->search);
	put_texts(p, object, "options", &dns->options);
	put(p, root, "dns", object);
}

int flat_result_print(const struct flat_result *result, enum flat_version version, char **ret_text,
		      struct flat_err *err)
{
	struct printer p = { .version = version };
	cJSON *root = checked(&p, cJSON_CreateObject());
	put_text(&p, root, "cniVersion", flat_version_text(version));
	if (version <= FLAT_VERSION_0_2_0) {
		bool has_ip4 = put_family(&p, root, result, AF_INET);
		bool has_ip6 = put_family(&p, root, result, AF_INET6);
		if (!has_ip4 && !has_ip6) {
			cJSON_Delete(root);
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "cannot convert: no valid IP addresses; a result of "
					 "cniVersion %s needs one",
					 flat_version_text(version));
		}
	} else {
		put_lists(&p, root, result);
	}
	put_dns(&p, root, &result->dns);
	char *text = finish(&p, root);
	if (!text)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print the result");
	*ret_text = text;
	return 0;
}

/* ---- errors and versions -----------------------------------------------------------------------
 */

char *flat_error_print(const struct flat_err *err, enum flat_version version)
{
	struct printer p = { .version = version };
	cJSON *root = checked(&p, cJSON_CreateObject());
	put_text(&p, root, "cniVersion", flat_version_text(version));
	put(&p, root, "code", cJSON_CreateNumber(err->code ? err->code : (int)FLAT_CODE_INTERNAL));
	put(&p, root, "msg", text_of(err->msg));
	put_text(&p, root, "details", err->details);
	return finish(&p, root);
}

char *flat_version_print(const char *text, size_t len)
{
	struct printer p = { .version = FLAT_VERSION_1_1_0 };
	struct flat_json *json = NULL;
	/* anything may stand on standard input, and the answer is the same */
	if (len && flat_json_parse(text, len, &json, NULL) >= 0) {
		const char *asked = flat_json_text(flat_json_get(json, "cniVersion"));
		if (asked)
			flat_version_parse(asked, &p.version);
		flat_json_free(json);
	}
	cJSON *root = checked(&p, cJSON_CreateObject());
	cJSON *array = checked(&p, cJSON_CreateArray());
	put_text(&p, root, "cniVersion", flat_version_text(p.version));
	for (int i = FLAT_VERSION_0_1_0; i <= FLAT_VERSION_1_1_0; i++)
		append(&p, array, text_of(flat_version_text((enum flat_version)i)));
	put(&p, root, "supportedVersions", array);
	return finish(&p, root);
}
