// SPDX-License-Identifier: Apache-2.0
#include "../../lib/cni/private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static struct flat_json *parsed(const char *text)
{
	struct flat_json *json = NULL;
	struct flat_err err = { 0 };
	if (flat_json_parse(text, strlen(text), &json, &err) < 0)
		fail_msg("%s: %s", text, err.msg);
	return json;
}

/* The message of the refusal; it must be code 6. */
static const char *refused(const char *text, size_t len)
{
	static struct flat_err err;
	struct flat_json *json = NULL;
	/* a copy of exactly this size, so that a sanitizer sees a read beyond it */
	char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, text, len);
	err = (struct flat_err){ 0 };
	int r = flat_json_parse(copy, len, &json, &err);
	free(copy);
	if (r >= 0)
		fail_msg("accepted: %s", text);
	assert_null(json);
	assert_int_equal(err.code, FLAT_CODE_DECODE);
	return err.msg;
}

static void valid_texts_are_accepted(void **state)
{
	static const char *const texts[] = {
		"{}",
		"[]",
		" \t\r\n{ \"a\" : [ 1 , -0 , 0.5 , 1e9 , 1E-9, 1e400 ] } \n",
		"\"\\u00e9\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
		"\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf \xef\xbf\xbd\"",
		"null",
		"true",
		"{\"\":{\"\":[[],[{}]]}}",
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(texts); i++)
		flat_json_free(parsed(texts[i]));
}

static void invalid_texts_are_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"   ",
		"{",
		"[1,]",
		"{\"a\":1,}",
		"{\"a\" 1}",
		"{a:1}",
		"[1 2]",
		"01",
		"-",
		"1.",
		".5",
		"+1",
		"1e",
		"0x10",
		"nul",
		"True",
		"nullx",
		"{} {}",
		"{}x",
		"]",
		"}",
		"[}",
		"{]",
		"{\"a\"}",
		"\"",
		"\"\\",
		"\"\\x\"",
		"\"\\u12\"",
		"\"\\uzzzz\"",
		"\"\\u0000\"",
		"\"a\\u0000b\"",
		"\"\\ud800\"",
		"\"\\ud800\\n\"",
		"\"\\udc00\"",
		"\"\\ud800\\u0041\"",
		"\"\n\"",
		"\"\x01\"",
		"\x01{}",
		"\xef\xbb\xbf{}",
		"'a'",
		"// c\n{}",
		"NaN",
		"Infinity",
		",",
		":",
		"{\"a\":}",
		"{\"a\":1 \"b\":2}",
		"\"\x80\"",
		"\"\xc0\x80\"",
		"\"\xc1\xbf\"",
		"\"\xe0\x9f\xbf\"",
		"\"\xed\xa0\x80\"",
		"\"\xf0\x8f\xbf\xbf\"",
		"\"\xf4\x90\x80\x80\"",
		"\"\xf5\"",
		"\"\xc3\"",
		"\"\xe2\x82\"",
		"\"\xff\"",
		"\xc3",
		"{\"\xff\":1}",
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(texts); i++)
		refused(texts[i], strlen(texts[i]));
	refused("{\"a\":\"\0\"}", 9);
	refused("{}\0", 3);
	refused("\0", 1);
	assert_string_equal(refused("{\n  \"a\": 01}", 12),
			    "not valid JSON: line 2, column 9: a comma or '}' is expected");
	assert_non_null(strstr(refused("\"\\u0000\"", 8), "\\u0000 is not allowed"));
}

/* Every beginning of a valid text is refused, and nothing is read beyond its end. */
static void truncated_texts_are_refused(void **state)
{
	static const char text[] =
		"{\"a\":[1.5e3,true,null,\"\\ud83d\\ude00\xe2\x82\xac\",{\"b\":false}],\"c\":{}}";
	(void)state;
	for (size_t len = 0; len < strlen(text); len++)
		refused(text, len);
}

static void nesting_is_bounded(void **state)
{
	enum { DEEP = 100000 };
	char *text = malloc(2 * DEEP + 1);
	(void)state;
	assert_non_null(text);
	memset(text, '[', DEEP);
	memset(text + DEEP, ']', DEEP);
	assert_non_null(strstr(refused(text, DEEP), "64 levels"));
	assert_non_null(strstr(refused(text, 2 * DEEP), "64 levels"));
	for (size_t i = 0; i + 5 <= DEEP; i += 5)
		memcpy(text + i, "{\"a\":", 5);
	assert_non_null(strstr(refused(text, DEEP), "64 levels"));
	/* brackets inside strings are no nesting */
	memset(text, '[', DEEP);
	text[0] = text[DEEP] = '"';
	text[DEEP + 1] = '\0';
	flat_json_free(parsed(text));
	for (int depth = 64; depth <= 65; depth++) {
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		text[2 * depth] = '\0';
		if (depth == 64)
			flat_json_free(parsed(text));
		else
			refused(text, 130);
	}
	free(text);
}

static void size_is_bounded(void **state)
{
	size_t len = FLAT_JSON_MAX_SIZE + 1;
	char *text = malloc(len);
	char number[80] = "[";
	(void)state;
	assert_non_null(text);
	memset(text, ' ', len);
	text[0] = '{';
	text[1] = '}';
	assert_non_null(strstr(refused(text, len), "more than the"));
	text[0] = '[';
	for (size_t i = 1; i < len - 3; i += 2)
		memcpy(text + i, "1,", 2);
	memcpy(text + len - 4, ",1]", 3);
	assert_non_null(strstr(refused(text, len - 1), "200000 values"));
	free(text);
	memset(number + 1, '1', 64);
	strcpy(number + 65, "]");
	assert_non_null(strstr(refused(number, 66), "63 characters"));
	strcpy(number + 64, "]");
	flat_json_free(parsed(number));
}

static void annotations_of_a_mebibyte_survive(void **state)
{
	enum { SIZE = 1 << 20 };
	static const char head[] =
		"{\"runtimeConfig\":{\"io.kubernetes.cri.pod-annotations\":{\"a\":\"";
	char *text = malloc(sizeof head + SIZE + 4);
	(void)state;
	assert_non_null(text);
	memcpy(text, head, sizeof head - 1);
	memset(text + sizeof head - 1, 'x', SIZE);
	strcpy(text + sizeof head - 1 + SIZE, "\"}}}");
	struct flat_json *json = parsed(text);
	const struct flat_json *annotations = flat_json_get(flat_json_get(json, "runtimeConfig"),
							    "io.kubernetes.cri.pod-annotations");
	assert_int_equal(strlen(flat_json_text(flat_json_get(annotations, "a"))), SIZE);
	flat_json_free(json);
	free(text);
}

static void keys_match_as_in_go(void **state)
{
	struct flat_json *json = parsed("{\"hostPort\":\"one\",\"HostPort\":\"two\",\"hostport\":"
					"\"three\",\"gone\":1,\"Gone\":null,\"\\u006dtu\":\"x\"}");
	(void)state;
	assert_string_equal(flat_json_text(flat_json_get(json, "hostPort")), "three");
	assert_null(flat_json_get(json, "gone"));
	assert_true(flat_json_is_null(flat_json_get_or_null(json, "gone")));
	assert_null(flat_json_get_or_null(json, "never"));
	assert_string_equal(flat_json_text(flat_json_get(json, "mtu")), "x");
	assert_null(flat_json_get(flat_json_get(json, "mtu"), "mtu"));
	assert_null(flat_json_get(NULL, "mtu"));
	assert_int_equal(flat_json_count(json), 0);
	flat_json_free(json);
	flat_json_free(NULL);
}

/* ---- tables ------------------------------------------------------------------------------------
 */

struct range {
	struct flat_prefix subnet;
	struct flat_ip gateway;
	int64_t weight;
};

struct conf {
	bool flag;
	int tristate;
	int64_t mtu, any;
	int32_t scope;
	uint32_t table;
	const char *bridge;
	struct flat_json_list names, subnets, ips;
	struct flat_mac mac;
	bool has_mac;
	struct range ipam;
	struct flat_json_list ranges;
	struct flat_dns dns;
	struct flat_json_list routes;
};

static int range_init(void *elem)
{
	((struct range *)elem)->weight = 7;
	return 0;
}

static const struct flat_json_field range_fields[] = {
	{ "subnet", FLAT_JSON_PREFIX, offsetof(struct range, subnet), .required = true },
	{ "gateway", FLAT_JSON_IP, offsetof(struct range, gateway) },
	{ "weight", FLAT_JSON_INT, offsetof(struct range, weight) },
	FLAT_JSON_END,
};

static int decode_set(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
		      void *arg, struct flat_err *err)
{
	struct range range = { 0 };
	(void)i;
	int r = flat_json_decode_object(d, item, range_fields, &range, err);
	if (r >= 0)
		(*(size_t *)arg)++;
	return r;
}

static int decode_sets(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
		       void *arg, struct flat_err *err)
{
	(void)i;
	return flat_json_decode_items(d, item, 8, decode_set, arg, err);
}

static int decode_nested(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			 struct flat_err *err)
{
	(void)target;
	size_t count = 0;
	assert_non_null(flat_json_arena(d));
	int r = flat_json_decode_items(d, value, 8, decode_sets, &count, err);
	return r < 0 ? r : count < 9 ? 0 : flat_json_fault(d, err, "too many, at %zu", count);
}

static const struct flat_json_field ipam_fields[] = {
	{ "ranges", FLAT_JSON_CUSTOM, 0, .decode = decode_nested },
	FLAT_JSON_END,
};

static const struct flat_json_field fields[] = {
	{ "flag", FLAT_JSON_BOOL, offsetof(struct conf, flag) },
	{ "tristate", FLAT_JSON_TRISTATE, offsetof(struct conf, tristate) },
	{ "mtu", FLAT_JSON_INT, offsetof(struct conf, mtu), .min = 0, .max = 65535 },
	{ "any", FLAT_JSON_INT, offsetof(struct conf, any) },
	{ "scope", FLAT_JSON_INT32, offsetof(struct conf, scope) },
	{ "table", FLAT_JSON_UINT32, offsetof(struct conf, table) },
	{ "bridge", FLAT_JSON_STRING, offsetof(struct conf, bridge) },
	{ "names", FLAT_JSON_STRING_LIST, offsetof(struct conf, names), .max = 3 },
	{ "subnets", FLAT_JSON_PREFIX_OR_LIST, offsetof(struct conf, subnets) },
	{ "ips", FLAT_JSON_IP_OR_LIST, offsetof(struct conf, ips) },
	{ "mac", FLAT_JSON_MAC, offsetof(struct conf, mac),
	  .offset2 = offsetof(struct conf, has_mac) },
	{ "range", FLAT_JSON_OBJECT, offsetof(struct conf, ipam), .table = range_fields },
	{ "ranges", FLAT_JSON_OBJECT_LIST, offsetof(struct conf, ranges), .table = range_fields,
	  .elem_size = sizeof(struct range), .init = range_init },
	{ "ipam", FLAT_JSON_OBJECT, 0, .table = ipam_fields },
	{ "dns", FLAT_JSON_OBJECT, offsetof(struct conf, dns), .table = flat_dns_fields },
	{ "routes", FLAT_JSON_OBJECT_LIST, offsetof(struct conf, routes),
	  .table = flat_route_fields, .elem_size = sizeof(struct flat_route),
	  .init = flat_route_init },
	FLAT_JSON_END,
};

static int decode(const char *text, struct conf *conf, struct flat_arena *arena,
		  struct flat_err *err)
{
	struct flat_json *json = parsed(text);
	int r = flat_json_decode(json, "", fields, conf, arena, err);
	flat_json_free(json); /* nothing may point into it */
	return r;
}

static void tables_decode_every_type(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_err err = { 0 };
	struct conf c = { .tristate = -1 };
	char text[FLAT_PREFIX_TEXT];
	(void)state;
	assert_int_equal(
		decode("{\"FLAG\":true,\"TriState\":false,\"mtu\":1450,\"any\":-9007199254740991,"
		       "\"scope\":-1,\"table\":4294967295,\"bridge\":\"cni0\",\"names\":[\"a\","
		       "\"b\"],\"subnets\":\"10.0.0.0/8\",\"ips\":[\"::1\",\"10.0.0.1\"],\"mac\":"
		       "\"0a:58:0a:f4:01:17\",\"range\":{\"subnet\":\"fd00::/64\",\"gateway\":\"\"}"
		       ",\"ranges\":[{\"subnet\":\"10.1.0.0/16\"},{\"subnet\":\"10.2.0.0/16\","
		       "\"weight\":9}],\"dns\":{\"nameservers\":[\"10.96.0.10\"],\"domain\":null},"
		       "\"routes\":[{\"dst\":\"10.3.4.5/8\",\"gw\":\"10.0.0.1\",\"mtu\":1400,"
		       "\"scope\":0},{\"dst\":\"::/0\"}],\"unknown\":[1]}",
		       &c, &arena, &err),
		0);
	assert_true(c.flag);
	assert_int_equal(c.tristate, 0);
	assert_int_equal(c.mtu, 1450);
	assert_true(c.any == -9007199254740991);
	assert_int_equal(c.scope, -1);
	assert_true(c.table == UINT32_MAX);
	assert_string_equal(c.bridge, "cni0");
	assert_int_equal(c.names.count, 2);
	assert_string_equal(((const char **)c.names.items)[1], "b");
	assert_int_equal(c.subnets.count, 1);
	assert_string_equal(flat_prefix_text(c.subnets.items, text), "10.0.0.0/8");
	assert_int_equal(c.ips.count, 2);
	assert_true(c.has_mac);
	assert_int_equal(c.mac.bytes[5], 0x17);
	assert_int_equal(c.ipam.subnet.len, 64);
	assert_int_equal(c.ipam.gateway.family, 0);
	assert_int_equal(c.ranges.count, 2);
	assert_int_equal(((struct range *)c.ranges.items)[0].weight, 7);
	assert_int_equal(((struct range *)c.ranges.items)[1].weight, 9);
	assert_int_equal(c.dns.nameservers.count, 1);
	assert_null(c.dns.domain);
	const struct flat_route *routes = c.routes.items;
	assert_string_equal(flat_prefix_text(&routes[0].dst, text), "10.0.0.0/8");
	assert_int_equal(routes[0].mtu, 1400);
	assert_int_equal(routes[0].scope, 0);
	assert_int_equal(routes[1].scope, -1);
	flat_arena_free(&arena);
}

static void null_and_blank_are_not_given(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_err err = { 0 };
	struct conf c = { .tristate = -1, .mtu = 5 };
	(void)state;
	assert_int_equal(decode("{\"flag\":null,\"tristate\":null,\"mtu\":null,\"bridge\":\"\","
				"\"mac\":\"\",\"subnets\":\"\",\"ips\":[],\"names\":null,"
				"\"ranges\":null,\"range\":null}",
				&c, &arena, &err),
			 0);
	assert_int_equal(c.tristate, -1);
	assert_int_equal(c.mtu, 5);
	assert_string_equal(c.bridge, "");
	assert_false(c.has_mac);
	assert_int_equal(c.subnets.count + c.ips.count + c.names.count + c.ranges.count, 0);
	flat_arena_free(&arena);
}

static void faults_tell_path_found_and_allowed(void **state)
{
	static const struct {
		const char *text, *message;
	} faults[] = {
		{ "[]", "a list is not an object" },
		{ "{\"flag\":\"true\"}", "flag: \"true\" is not true or false without quotes" },
		{ "{\"flag\":1}", "flag: 1 is not true or false" },
		{ "{\"tristate\":[]}", "tristate: a list is not true or false" },
		{ "{\"mtu\":8080.5}", "mtu: 8080.5 is not a whole number from 0 to 65535" },
		{ "{\"mtu\":\"8080\"}",
		  "mtu: \"8080\" is not a whole number from 0 to 65535 without quotes" },
		{ "{\"mtu\":1e400}",
		  "mtu: a number beyond all measure is not a whole number from 0 to 65535" },
		{ "{\"mtu\":1e30}", "mtu: 1e+30 is not a whole number from 0 to 65535" },
		{ "{\"mtu\":-1}", "mtu: -1 is not a whole number from 0 to 65535" },
		{ "{\"mtu\":65536}", "mtu: 65536 is not a whole number from 0 to 65535" },
		{ "{\"mtu\":true}", "mtu: true is not a whole number from 0 to 65535" },
		{ "{\"any\":9007199254740992}",
		  "any: 9.0072e+15 is not a whole number from -9007199254740991 to "
		  "9007199254740991" },
		{ "{\"table\":-1}", "table: -1 is not a whole number from 0 to 4294967295" },
		{ "{\"table\":4294967296}",
		  "table: 4294967296 is not a whole number from 0 to 4294967295" },
		{ "{\"scope\":2147483648}",
		  "scope: 2147483648 is not a whole number from -2147483648 to 2147483647" },
		{ "{\"bridge\":5}", "bridge: 5 is not a string" },
		{ "{\"names\":\"a\"}", "names: \"a\" is not a list" },
		{ "{\"names\":[\"a\",{}]}", "names[1]: an object is not a string" },
		{ "{\"names\":[1,2,3,4]}", "names: 4 items are more than the 3 allowed" },
		{ "{\"subnets\":[\"10.0.0.0/8\",\"10.0.0.1\"]}",
		  "subnets[1]: \"10.0.0.1\" is not a subnet in CIDR form, like 10.244.1.0/24" },
		{ "{\"subnets\":5}", "subnets: 5 is not a subnet or a list of them" },
		{ "{\"ips\":[\"\"]}", "ips[0]: \"\" is not an IP address, like 10.244.1.23" },
		{ "{\"mac\":\"0a:58\"}",
		  "mac: \"0a:58\" is not a MAC address, like 0a:58:0a:f4:01:17" },
		{ "{\"range\":{}}", "range.subnet: missing, but required" },
		{ "{\"ranges\":[{\"subnet\":\"10.0.0.0/8\"},null]}",
		  "ranges[1]: null is not an object" },
		{ "{\"ranges\":{}}", "ranges: an object is not a list" },
		{ "{\"ipam\":{\"ranges\":[[{\"subnet\":\"10.0.0.0/8\"},{\"subnet\":"
		  "\"10.244.1.0/33\"}]]}}",
		  "ipam.ranges[0][1].subnet: \"10.244.1.0/33\" is not a subnet in CIDR form, like "
		  "10.244.1.0/24" },
		{ "{\"routes\":[{\"gw\":\"10.0.0.1\"}]}", "routes[0].dst: missing, but required" },
		{ "{\"routes\":[{\"dst\":\"0.0.0.0/0\",\"scope\":256}]}",
		  "routes[0].scope: 256 is not a whole number from 0 to 255" },
		{ "{\"bridge\":\"a\",\"bridge\":7}", "bridge: 7 is not a string" },
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(faults); i++) {
		struct flat_arena arena = { 0 };
		struct flat_err err = { 0 };
		struct conf c = { 0 };
		assert_int_equal(decode(faults[i].text, &c, &arena, &err), -EINVAL);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
		assert_string_equal(err.msg, faults[i].message);
		flat_arena_free(&arena);
	}
}

static void long_values_are_cut_between_characters(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_err err = { 0 };
	struct conf c = { 0 };
	char text[2100] = "{\"mac\":\"";
	(void)state;
	for (int i = 0; i < 500; i++)
		strcat(text, "\xe2\x82\xac");
	strcat(text, "\\n\"}");
	assert_int_equal(decode(text, &c, &arena, &err), -EINVAL);
	assert_true(strlen(err.msg) < 200);
	assert_non_null(strstr(err.msg, "\xe2\x82\xac...\" is not a MAC address"));
	flat_arena_free(&arena);
	err = (struct flat_err){ 0 };
	assert_int_equal(decode("{\"mac\":\"\\u001b[31m\x7f\"}", &c, &arena, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "mac: \"?[31m?\" is not"));
	flat_arena_free(&arena);
}

/* The buffer is on the heap and of exactly this size: a sanitizer or valgrind sees a byte beyond.
 */
static void quotes_fit_their_buffer(void **state)
{
	static const char *const letters[] = { "x", "\xff", "\xc3\xa9", "\xe2\x82\xac",
					       "\xf0\x9f\x98\x80" };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(letters); i++) {
		char text[200] = "";
		while (strlen(text) < 120) {
			for (size_t size = 16; size < 140; size++) {
				char *buf = malloc(size);
				assert_non_null(buf);
				memset(buf, 'z', size);
				flat_quote(text, buf, size);
				size_t len = strnlen(buf, size);
				assert_true(len < size);
				assert_int_equal(buf[len - 1], '"');
				assert_true(flat_utf8_is_valid(buf, len));
				free(buf);
			}
			strcat(text, letters[i]);
		}
	}
}

struct members {
	char seen[64];
	size_t max;
};

static int see_member(struct flat_json_decoder *d, const char *key, const struct flat_json *value,
		      void *arg, struct flat_err *err)
{
	struct members *m = arg;
	const char *text = flat_json_text(value);
	if (!text)
		return flat_json_fault(d, err, "no text");
	strcat(strcat(strcat(m->seen, key), text), " ");
	return 0;
}

static int decode_members(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			  struct flat_err *err)
{
	struct members *m = target;
	return flat_json_decode_members(d, value, m->max, see_member, m, err);
}

/* Keys that are data: their case counts, and the path has them in quotes. */
static void members_are_told_in_order(void **state)
{
	static const struct flat_json_field table[] = {
		{ "map", FLAT_JSON_CUSTOM, 0, .decode = decode_members },
		FLAT_JSON_END,
	};
	static const struct {
		const char *text, *seen, *msg;
	} cases[] = {
		{ "{\"map\":{}}", "", "" },
		{ "{\"Map\":{\"b\":\"1\",\"B\":\"2\",\"b\":\"3\"}}", "b1 B2 b3 ", "" },
		{ "{\"map\":{\"a\":\"1\",\"x.y\\n\":2}}", "a1 ", "map[\"x.y?\"]: no text" },
		{ "{\"map\":{\"a\":null}}", "", "map[\"a\"]: no text" },
		{ "{\"map\":[]}", "", "map: a list is not an object" },
		{ "{\"map\":{\"a\":\"\",\"b\":\"\",\"c\":\"\",\"d\":\"\"}}", "",
		  "map: 4 keys are more than the 3 allowed" },
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		struct members m = { .max = 3 };
		struct flat_arena arena = { 0 };
		struct flat_json *json;
		struct flat_err err = { 0 };
		assert_int_equal(flat_json_parse(cases[i].text, strlen(cases[i].text), &json, &err),
				 0);
		const int r = flat_json_decode(json, "", table, &m, &arena, &err);
		assert_int_equal(r < 0, cases[i].msg[0] != 0);
		assert_string_equal(err.msg, cases[i].msg);
		assert_string_equal(m.seen, cases[i].seen);
		flat_json_free(json);
		flat_arena_free(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_texts_are_accepted),
		cmocka_unit_test(invalid_texts_are_refused),
		cmocka_unit_test(truncated_texts_are_refused),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(size_is_bounded),
		cmocka_unit_test(annotations_of_a_mebibyte_survive),
		cmocka_unit_test(keys_match_as_in_go),
		cmocka_unit_test(tables_decode_every_type),
		cmocka_unit_test(null_and_blank_are_not_given),
		cmocka_unit_test(members_are_told_in_order),
		cmocka_unit_test(faults_tell_path_found_and_allowed),
		cmocka_unit_test(long_values_are_cut_between_characters),
		cmocka_unit_test(quotes_fit_their_buffer),
	};
	return cmocka_run_group_tests_name("cni-json", tests, NULL, NULL);
}
