// SPDX-License-Identifier: Apache-2.0
/*
 * Decoding by tables. Every fault is told in one form: where (the path), what was found, what is
 * allowed.
 */
#include "private.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_ITEMS = 4096 };

/* Beyond this a double, which the JSON library keeps numbers in, does not tell neighbours apart. */
static const double max_exact = 9007199254740991.0;

struct flat_json_decoder {
	struct flat_arena *arena;
	size_t len;
	char path[256]; /* made of keys of our tables, of indices, and of keys in quotes */
};

static const cJSON *tree(const struct flat_json *value)
{
	return (const cJSON *)value;
}

/* ---- the path ----------------------------------------------------------------------------------
 */

/* Adds what snprintf() wrote behind the path, as far as it fitted; returns the length before. */
static size_t advance(struct flat_json_decoder *d, int written)
{
	size_t before = d->len, room = sizeof d->path - d->len;
	if (written > 0)
		d->len += (size_t)written < room ? (size_t)written : room - 1;
	return before;
}

static size_t enter_key(struct flat_json_decoder *d, const char *key)
{
	return advance(d, snprintf(d->path + d->len, sizeof d->path - d->len, "%s%s",
				   d->len ? "." : "", key));
}

static size_t enter_item(struct flat_json_decoder *d, size_t index)
{
	return advance(d, snprintf(d->path + d->len, sizeof d->path - d->len, "[%zu]", index));
}

static void leave(struct flat_json_decoder *d, size_t before)
{
	d->len = before;
	d->path[before] = '\0';
}

struct flat_arena *flat_json_arena(const struct flat_json_decoder *d)
{
	return d->arena;
}

int flat_json_fault(const struct flat_json_decoder *d, struct flat_err *err, const char *fmt, ...)
{
	char text[384];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s%s%s", d->path, d->len ? ": " : "", text);
}

/* ---- what was found ----------------------------------------------------------------------------
 */

static const char *found(const struct flat_json *value, char *buf, size_t size)
{
	const cJSON *item = tree(value);
	if (cJSON_IsString(item))
		return flat_quote(item->valuestring, buf, size);
	if (cJSON_IsNumber(item)) {
		if (!isfinite(item->valuedouble))
			return "a number beyond all measure";
		snprintf(buf, size, fabs(item->valuedouble) <= max_exact ? "%.16g" : "%g",
			 item->valuedouble);
		return buf;
	}
	if (cJSON_IsBool(item))
		return cJSON_IsTrue(item) ? "true" : "false";
	return cJSON_IsObject(item) ? "an object" : cJSON_IsArray(item) ? "a list" : "null";
}

/* "FOUND is not EXPECTED"; quotes around what needs none are the usual mistake. */
static int not_a(const struct flat_json_decoder *d, const struct flat_json *value,
		 struct flat_err *err, const char *expected, bool without_quotes)
{
	char buf[FLAT_QUOTE];
	return flat_json_fault(d, err, "%s is not %s%s", found(value, buf, sizeof buf), expected,
			       without_quotes && cJSON_IsString(tree(value)) ? " without quotes"
									     : "");
}

/* ---- single values -----------------------------------------------------------------------------
 */

static int decode_integer(struct flat_json_decoder *d, const struct flat_json *value, int64_t min,
			  int64_t max, int64_t *ret_integer, struct flat_err *err)
{
	double number = cJSON_IsNumber(tree(value)) ? tree(value)->valuedouble : NAN;
	/* NAN fails every comparison */
	if (number >= -max_exact && number <= max_exact && number == (double)(int64_t)number &&
	    (int64_t)number >= min && (int64_t)number <= max) {
		*ret_integer = (int64_t)number;
		return 0;
	}
	char expected[80];
	snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)min,
		 (long long)max);
	return not_a(d, value, err, expected, true);
}

/* A field without limits of its own gets those of its type. */
static int decode_limited(struct flat_json_decoder *d, const struct flat_json *value,
			  const struct flat_json_field *field, int64_t min, int64_t max,
			  int64_t *ret_integer, struct flat_err *err)
{
	bool given = field->min || field->max;
	return decode_integer(d, value, given && field->min > min ? field->min : min,
			      given && field->max < max ? field->max : max, ret_integer, err);
}

static int decode_string(struct flat_json_decoder *d, const struct flat_json *value,
			 const char **ret_text, struct flat_err *err)
{
	const char *text = flat_json_text(value);
	if (!text)
		return not_a(d, value, err, "a string", false);
	const char *copy = flat_arena_strdup(d->arena, text);
	if (!copy)
		return flat_no_memory(err);
	*ret_text = copy;
	return 0;
}

static int decode_ip(struct flat_json_decoder *d, const struct flat_json *value,
		     struct flat_ip *ret_ip, struct flat_err *err)
{
	const char *text = flat_json_text(value);
	if (!text || !flat_ip_parse(text, ret_ip))
		return not_a(d, value, err, "an IP address, like 10.244.1.23", false);
	return 0;
}

static int decode_prefix(struct flat_json_decoder *d, const struct flat_json *value,
			 struct flat_prefix *ret_prefix, struct flat_err *err)
{
	const char *text = flat_json_text(value);
	if (!text || !flat_prefix_parse(text, ret_prefix))
		return not_a(d, value, err, "a subnet in CIDR form, like 10.244.1.0/24", false);
	return 0;
}

static int decode_mac(struct flat_json_decoder *d, const struct flat_json *value,
		      struct flat_mac *ret_mac, struct flat_err *err)
{
	const char *text = flat_json_text(value);
	if (!text || !flat_mac_parse(text, ret_mac))
		return not_a(d, value, err, "a MAC address, like 0a:58:0a:f4:01:17", false);
	return 0;
}

/* ---- lists -------------------------------------------------------------------------------------
 */

int flat_json_decode_items(struct flat_json_decoder *d, const struct flat_json *array, size_t max,
			   int (*fn)(struct flat_json_decoder *d, const struct flat_json *item,
				     size_t i, void *arg, struct flat_err *err),
			   void *arg, struct flat_err *err)
{
	if (!flat_json_is_array(array))
		return not_a(d, array, err, "a list", false);
	size_t count = flat_json_count(array), i = 0;
	if (count > max)
		return flat_json_fault(d, err, "%zu items are more than the %zu allowed", count,
				       max);
	for (const cJSON *item = tree(array)->child; item; item = item->next, i++) {
		size_t before = enter_item(d, i);
		int r = fn(d, (const struct flat_json *)item, i, arg, err);
		leave(d, before);
		if (r < 0)
			return r;
	}
	return 0;
}

int flat_json_decode_members(struct flat_json_decoder *d, const struct flat_json *object,
			     size_t max,
			     int (*fn)(struct flat_json_decoder *d, const char *key,
				       const struct flat_json *value, void *arg,
				       struct flat_err *err),
			     void *arg, struct flat_err *err)
{
	char quoted[FLAT_QUOTE];
	if (!flat_json_is_object(object))
		return not_a(d, object, err, "an object", false);
	size_t count = (size_t)cJSON_GetArraySize(tree(object));
	if (count > max)
		return flat_json_fault(d, err, "%zu keys are more than the %zu allowed", count,
				       max);
	for (const cJSON *item = tree(object)->child; item; item = item->next) {
		const char *key = item->string ? item->string : "";
		size_t before =
			advance(d, snprintf(d->path + d->len, sizeof d->path - d->len, "[%s]",
					    flat_quote(key, quoted, sizeof quoted)));
		int r = fn(d, key, (const struct flat_json *)item, arg, err);
		leave(d, before);
		if (r < 0)
			return r;
	}
	return 0;
}

struct list_job {
	const struct flat_json_field *field;
	char *items;
	size_t item_size;
};

static int decode_list_item(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
			    void *arg, struct flat_err *err)
{
	const struct list_job *job = arg;
	void *target = job->items + i * job->item_size;
	switch (job->field->type) {
	case FLAT_JSON_PREFIX_OR_LIST:
		return decode_prefix(d, item, target, err);
	case FLAT_JSON_IP_OR_LIST:
		return decode_ip(d, item, target, err);
	case FLAT_JSON_OBJECT_LIST:
		if (job->field->init) {
			int r = job->field->init(target);
			if (r < 0)
				return r;
		}
		return flat_json_decode_object(d, item, job->field->table, target, err);
	default:
		return decode_string(d, item, target, err);
	}
}

static int decode_list(struct flat_json_decoder *d, const struct flat_json *value,
		       const struct flat_json_field *field, struct flat_json_list *ret_list,
		       struct flat_err *err)
{
	struct list_job job = { .field = field };
	bool or_one =
		field->type == FLAT_JSON_PREFIX_OR_LIST || field->type == FLAT_JSON_IP_OR_LIST;
	size_t max = field->max > 0 ? (size_t)field->max : MAX_ITEMS;
	size_t count = or_one && flat_json_text(value) ? 1 : flat_json_count(value);
	switch (field->type) {
	case FLAT_JSON_PREFIX_OR_LIST:
		job.item_size = sizeof(struct flat_prefix);
		break;
	case FLAT_JSON_IP_OR_LIST:
		job.item_size = sizeof(struct flat_ip);
		break;
	case FLAT_JSON_OBJECT_LIST:
		job.item_size = field->elem_size;
		break;
	default:
		job.item_size = sizeof(const char *);
		break;
	}
	if (count && count <= max) {
		job.items = flat_arena_alloc(d->arena, count * job.item_size);
		if (!job.items)
			return flat_no_memory(err);
	}
	int r;
	if (or_one && flat_json_text(value))
		r = decode_list_item(d, value, 0, &job, err);
	else if (or_one && !flat_json_is_array(value))
		r = not_a(d, value, err,
			  field->type == FLAT_JSON_IP_OR_LIST ? "an IP address or a list of them"
							      : "a subnet or a list of them",
			  false);
	else
		r = flat_json_decode_items(d, value, max, decode_list_item, &job, err);
	if (r < 0)
		return r;
	*ret_list = (struct flat_json_list){ .items = job.items, .count = count };
	return 0;
}

/* ---- objects -----------------------------------------------------------------------------------
 */

static bool is_blank_address(const struct flat_json *value, enum flat_json_type type)
{
	const char *text = flat_json_text(value);
	if (!text || text[0])
		return false;
	return type == FLAT_JSON_IP || type == FLAT_JSON_PREFIX || type == FLAT_JSON_MAC ||
	       type == FLAT_JSON_IP_OR_LIST || type == FLAT_JSON_PREFIX_OR_LIST;
}

int flat_json_decode_value(struct flat_json_decoder *d, const struct flat_json *value,
			   const struct flat_json_field *field, void *target, struct flat_err *err)
{
	int64_t integer = 0;
	int r = 0;
	switch (field->type) {
	case FLAT_JSON_BOOL:
	case FLAT_JSON_TRISTATE:
		if (!cJSON_IsBool(tree(value)))
			return not_a(d, value, err, "true or false", true);
		if (field->type == FLAT_JSON_BOOL)
			*(bool *)target = cJSON_IsTrue(tree(value));
		else
			*(int *)target = cJSON_IsTrue(tree(value));
		return 0;
	case FLAT_JSON_INT:
		return decode_limited(d, value, field, -(int64_t)max_exact, (int64_t)max_exact,
				      target, err);
	case FLAT_JSON_INT32:
		r = decode_limited(d, value, field, INT32_MIN, INT32_MAX, &integer, err);
		if (r >= 0)
			*(int32_t *)target = (int32_t)integer;
		return r;
	case FLAT_JSON_UINT32:
		r = decode_limited(d, value, field, 0, UINT32_MAX, &integer, err);
		if (r >= 0)
			*(uint32_t *)target = (uint32_t)integer;
		return r;
	case FLAT_JSON_STRING:
		return decode_string(d, value, target, err);
	case FLAT_JSON_IP:
		return decode_ip(d, value, target, err);
	case FLAT_JSON_PREFIX:
		return decode_prefix(d, value, target, err);
	case FLAT_JSON_MAC:
		return decode_mac(d, value, target, err);
	case FLAT_JSON_STRING_LIST:
	case FLAT_JSON_PREFIX_OR_LIST:
	case FLAT_JSON_IP_OR_LIST:
	case FLAT_JSON_OBJECT_LIST:
		return decode_list(d, value, field, target, err);
	case FLAT_JSON_OBJECT:
		return flat_json_decode_object(d, value, field->table, target, err);
	case FLAT_JSON_CUSTOM:
		return field->decode(d, value, target, err);
	}
	return 0;
}

static int decode_field(struct flat_json_decoder *d, const struct flat_json *object,
			const struct flat_json_field *field, char *target, struct flat_err *err)
{
	const struct flat_json *value = flat_json_get(object, field->key);
	bool given = value && !is_blank_address(value, field->type);
	size_t before = enter_key(d, field->key);
	int r = 0;
	if (given)
		r = flat_json_decode_value(d, value, field, target + field->offset, err);
	else if (field->required)
		r = flat_json_fault(d, err, "missing, but required");
	leave(d, before);
	if (r >= 0 && given && field->offset2)
		*(bool *)(target + field->offset2) = true;
	return r < 0 ? r : 0;
}

int flat_json_decode_object(struct flat_json_decoder *d, const struct flat_json *object,
			    const struct flat_json_field *table, void *target, struct flat_err *err)
{
	if (object && !flat_json_is_object(object))
		return not_a(d, object, err, "an object", false);
	for (const struct flat_json_field *field = table; field->key; field++) {
		int r = decode_field(d, object, field, target, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int flat_json_decode(const struct flat_json *object, const char *path,
		     const struct flat_json_field *table, void *target, struct flat_arena *arena,
		     struct flat_err *err)
{
	struct flat_json_decoder d = { .arena = arena };
	if (path[0])
		enter_key(&d, path);
	return flat_json_decode_object(&d, object, table, target, err);
}

/* ---- tables that several rooms use -------------------------------------------------------------
 */

static int decode_route_dst(struct flat_json_decoder *d, const struct flat_json *value,
			    void *target, struct flat_err *err)
{
	struct flat_prefix dst;
	int r = decode_prefix(d, value, &dst, err);
	if (r < 0)
		return r;
	dst.ip = flat_prefix_first(&dst); /* the kernel refuses a route with host bits */
	*(struct flat_prefix *)target = dst;
	return 0;
}

const struct flat_json_field flat_route_fields[] = {
	{ "dst", FLAT_JSON_CUSTOM, offsetof(struct flat_route, dst), .required = true,
	  .decode = decode_route_dst },
	{ "gw", FLAT_JSON_IP, offsetof(struct flat_route, gw) },
	{ "mtu", FLAT_JSON_UINT32, offsetof(struct flat_route, mtu) },
	{ "advmss", FLAT_JSON_UINT32, offsetof(struct flat_route, advmss) },
	{ "priority", FLAT_JSON_UINT32, offsetof(struct flat_route, priority) },
	{ "table", FLAT_JSON_UINT32, offsetof(struct flat_route, table) },
	{ "scope", FLAT_JSON_INT32, offsetof(struct flat_route, scope), .min = 0, .max = 255 },
	FLAT_JSON_END,
};

int flat_route_init(void *route)
{
	((struct flat_route *)route)->scope = -1;
	return 0;
}

const struct flat_json_field flat_dns_fields[] = {
	{ "nameservers", FLAT_JSON_STRING_LIST, offsetof(struct flat_dns, nameservers) },
	{ "domain", FLAT_JSON_STRING, offsetof(struct flat_dns, domain) },
	{ "search", FLAT_JSON_STRING_LIST, offsetof(struct flat_dns, search) },
	{ "options", FLAT_JSON_STRING_LIST, offsetof(struct flat_dns, options) },
	FLAT_JSON_END,
};
