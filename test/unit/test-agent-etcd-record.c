// SPDX-License-Identifier: Apache-2.0
#include "../../agent/etcd-record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static int read_record(const char *key, const char *value, struct flat_arena *arena,
		       struct flat_record *ret_record, struct flat_err *err)
{
	return flat_record_parse(key, value, strlen(value), arena, ret_record, err);
}

static void assert_ip(const struct flat_ip *got, const char *want)
{
	char text[FLAT_IP_TEXT];
	assert_string_equal(flat_ip_text(got, text), want);
}

static void assert_cidr(const struct flat_prefix *got, const char *want)
{
	char text[FLAT_PREFIX_TEXT];
	assert_string_equal(flat_prefix_text(got, text), want);
}

static void keys_are_flannels(void **state)
{
	static const char *const good[] = { "10.5.34.0-24", "10.244.1.0-24&fd00:10:244:1::-64",
					    "fd00:10:244:1::-64", "0.0.0.0-0" };
	static const char *const bad[] = { "",
					   "10.5.34.0",
					   "10.5.34.0/24",
					   "10.5.34.0-",
					   "10.5.34.0-33",
					   "10.5.34.0-24&",
					   "&fd00::-64",
					   "10.5.34.0-24&10.5.35.0-24",
					   "fd00::-64&10.5.34.0-24",
					   "10.5.34.0-24&fd00::-64&fd01::-64",
					   "10.5.34.0-24/x",
					   "x10.5.34.0-24",
					   "config" };
	struct flat_prefix cidrs[FLAT_FAMILIES];
	char text[FLAT_RECORD_KEY];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(good); i++) {
		assert_true(flat_record_key_parse(good[i], cidrs));
		assert_string_equal(flat_record_key_text(cidrs, text), good[i]);
	}
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		assert_false(flat_record_key_parse(bad[i], cidrs));
}

/* As flannel wrote it: from its documentation (Documentation/reservations.md), and of a host-gw. */
static void records_of_flannel_are_read(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_record record;
	char mac[FLAT_MAC_TEXT];
	(void)state;
	assert_int_equal(read_record("10.5.52.0-24",
				     "{\"PublicIP\":\"192.168.64.3\",\"PublicIPv6\":null,"
				     "\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":1,"
				     "\"VtepMAC\":\"c6:d2:32:6f:8f:44\"}}",
				     &arena, &record, NULL),
			 0);
	assert_false(record.named);
	assert_string_equal(record.node.name, "10.5.52.0-24");
	assert_int_equal(record.node.pod_cidr_count, 1);
	assert_cidr(&record.node.pod_cidrs[0], "10.5.52.0/24");
	assert_ip(&record.node.addresses[FLAT_V4], "192.168.64.3");
	assert_int_equal(record.node.addresses[FLAT_V6].family, 0);
	assert_true(record.node.has_vtep[FLAT_V4]);
	assert_false(record.node.has_vtep[FLAT_V6]);
	assert_string_equal(flat_mac_text(&record.node.vtep[FLAT_V4], mac), "c6:d2:32:6f:8f:44");
	assert_int_equal(read_record("10.5.34.0-24",
				     "{\"PublicIP\":\"10.37.7.195\",\"BackendType\":\"host-gw\","
				     "\"BackendData\":null}",
				     &arena, &record, NULL),
			 0);
	assert_ip(&record.node.addresses[FLAT_V4], "10.37.7.195");
	assert_false(record.node.has_vtep[FLAT_V4]);
	assert_int_equal(
		read_record("10.5.34.0-24&fc00::-64",
			    "{\"PublicIP\":\"10.37.7.195\",\"PublicIPv6\":\"2001:db8::5\","
			    "\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":1,\"VtepMAC\":"
			    "\"82:4b:b6:2f:54:4e\"},\"BackendV6Data\":{\"VNI\":1,\"VtepMAC\":"
			    "\"82:4b:b6:2f:54:4f\"}}",
			    &arena, &record, NULL),
		0);
	assert_int_equal(record.node.pod_cidr_count, 2);
	assert_cidr(&record.node.pod_cidrs[1], "fc00::/64");
	assert_ip(&record.node.addresses[FLAT_V6], "2001:db8::5");
	assert_string_equal(flat_mac_text(&record.node.vtep[FLAT_V6], mac), "82:4b:b6:2f:54:4f");
	flat_arena_free(&arena);
}

static void ours_come_back(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_record record;
	struct flat_node node = { .name = "node-1.example", .has_vtep = { true, true } };
	char key[FLAT_RECORD_KEY];
	struct flat_prefix cidrs[FLAT_FAMILIES];
	(void)state;
	assert_true(flat_record_key_parse("10.244.1.0-24&fd00:10:244:1::-64", cidrs));
	memcpy(node.pod_cidrs, cidrs, sizeof cidrs);
	node.pod_cidr_count = 2;
	assert_true(flat_ip_parse("192.0.2.1", &node.addresses[FLAT_V4]));
	assert_true(flat_ip_parse("2001:db8::1", &node.addresses[FLAT_V6]));
	assert_true(flat_mac_parse("0a:58:0a:f4:01:00", &node.vtep[FLAT_V4]));
	node.vtep[FLAT_V6] = node.vtep[FLAT_V4];
	char *value = flat_record_print(&node, FLAT_BACKEND_VXLAN, 7);
	assert_string_equal(value,
			    "{\"PublicIP\":\"192.0.2.1\",\"PublicIPv6\":\"2001:db8::1\","
			    "\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":7,"
			    "\"VtepMAC\":\"0a:58:0a:f4:01:00\"},\"BackendV6Data\":{\"VNI\":7,"
			    "\"VtepMAC\":\"0a:58:0a:f4:01:00\"},\"NodeName\":"
			    "\"node-1.example\"}");
	assert_int_equal(read_record(flat_record_key_text(cidrs, key), value, &arena, &record,
				     NULL),
			 0);
	assert_true(record.named);
	assert_true(flat_node_equal(&record.node, &node));
	free(value);
	value = flat_record_print(&node, FLAT_BACKEND_DIRECT, 1);
	assert_non_null(strstr(value, "\"BackendType\":\"host-gw\",\"NodeName\""));
	free(value);
	flat_arena_free(&arena);
}

static void nonsense_is_named_and_keeps_what_makes_sense(void **state)
{
	static const struct {
		const char *key, *value, *fault, *name;
	} bad[] = {
		{ "10.1.2.0-24", "", "JSON", "10.1.2.0-24" },
		{ "10.1.2.0-24", "[]", "object", "10.1.2.0-24" },
		{ "10.1.2.0-24", "{\"PublicIP\":\"x\",\"NodeName\":\"n9\"}", "PublicIP", "n9" },
		{ "10.1.2.0-24", "{\"PublicIP\":\"fd00::1\"}", "PublicIP", "10.1.2.0-24" },
		{ "10.1.2.0-24", "{\"PublicIPv6\":\"10.0.0.1\"}", "PublicIPv6", "10.1.2.0-24" },
		{ "10.1.2.0-24", "{\"NodeName\":\"a b\"}", "NodeName", "10.1.2.0-24" },
		{ "10.1.2.0-24", "{\"NodeName\":5}", "NodeName", "10.1.2.0-24" },
		{ "10.1.2.0-24", "{\"BackendType\":\"wireguard\"}", "backend", "10.1.2.0-24" },
		{ "10.1.2.0-24",
		  "{\"BackendType\":\"vxlan\",\"BackendData\":{\"VtepMAC\":\"01:00:5e:00:00:01\"}}",
		  "BackendData.VtepMAC", "10.1.2.0-24" },
		{ "10.1.2.0-24",
		  "{\"BackendType\":\"vxlan\",\"BackendData\":{\"VtepMAC\":\"00:00:00:00:00:00\"}}",
		  "BackendData.VtepMAC", "10.1.2.0-24" },
		{ "10.1.2.0-24", "{\"BackendType\":\"vxlan\",\"BackendData\":[1]}", "BackendData",
		  "10.1.2.0-24" },
		{ "junk\n", "{\"NodeName\":\"n9\"}", "key", "n9" },
		{ "junk\n", "{}", "key", "junk?" },
	};
	struct flat_arena arena = { 0 };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++) {
		struct flat_record record = { 0 };
		struct flat_err err = { 0 };
		assert_true(read_record(bad[i].key, bad[i].value, &arena, &record, &err) < 0);
		assert_non_null(strstr(err.msg, bad[i].fault));
		assert_string_equal(record.node.name, bad[i].name);
		assert_int_equal(record.node.pod_cidr_count, bad[i].key[0] == 'j' ? 0 : 1);
	}
	flat_arena_free(&arena);
}

static void records_are_bounded(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_record record = { 0 };
	struct flat_err err = { 0 };
	size_t size = FLAT_RECORD_MAX + 1;
	char *value = malloc(size), key[4096];
	(void)state;
	memset(value, ' ', size);
	memset(key, 'k', sizeof key);
	key[sizeof key - 1] = '\0';
	value[0] = '{';
	value[size - 1] = '}';
	assert_true(flat_record_parse(key, value, size, &arena, &record, &err) < 0);
	assert_int_equal(strlen(record.node.name), FLAT_NODE_NAME_MAX);
	free(value);
	flat_arena_free(&arena);
}

static int read_netconf(const char *text, struct flat_arena *arena, struct flat_netconf *ret)
{
	return flat_netconf_parse(text, strlen(text), arena, ret, NULL);
}

/* Flannel's defaults: pkg/subnet/config.go, CheckNetworkConfig(). */
static void flannels_configuration_has_flannels_defaults(void **state)
{
	struct flat_arena arena = { 0 };
	struct flat_netconf conf;
	(void)state;
	assert_int_equal(read_netconf("{\"Network\":\"10.5.0.0/16\"}", &arena, &conf), 0);
	assert_int_equal(conf.pools[FLAT_V4].len, 24);
	assert_ip(&conf.pools[FLAT_V4].min, "10.5.1.0");
	assert_int_equal(conf.pools[FLAT_V6].net.ip.family, 0);
	assert_string_equal(conf.backend, "udp");
	assert_int_equal(read_netconf("{\"Network\":\"10.0.0.0/8\",\"SubnetLen\":20,"
				      "\"SubnetMin\":\"10.10.0.0\",\"SubnetMax\":\"10.99.0.0\","
				      "\"Backend\":{\"Type\":\"vxlan\",\"VNI\":7,\"Port\":4789}}",
				      &arena, &conf),
			 0);
	assert_int_equal(conf.pools[FLAT_V4].len, 20);
	assert_ip(&conf.pools[FLAT_V4].max, "10.99.0.0");
	assert_string_equal(conf.backend, "vxlan");
	assert_int_equal(conf.vni, 7);
	assert_int_equal(conf.port, 4789);
	assert_int_equal(read_netconf("{\"Network\":\"10.5.0.0/24\"}", &arena, &conf), 0);
	assert_int_equal(conf.pools[FLAT_V4].len, 26);
	assert_ip(&conf.pools[FLAT_V4].min, "10.5.0.64");
	assert_int_equal(read_netconf("{\"Network\":\"10.5.0.0/16\",\"EnableIPv6\":true,"
				      "\"IPv6Network\":\"fc00::/48\",\"Backend\":{\"Type\":"
				      "\"host-gw\"}}",
				      &arena, &conf),
			 0);
	assert_int_equal(conf.pools[FLAT_V6].len, 64);
	assert_ip(&conf.pools[FLAT_V6].min, "fc00:0:0:1::");
	assert_int_equal(conf.vni, 1);
	assert_int_equal(conf.port, 8472);
	flat_arena_free(&arena);
}

static void flannels_configuration_is_checked(void **state)
{
	static const char *const bad[] = {
		"",
		"{}",
		"{\"Network\":\"fd00::/48\"}",
		"{\"Network\":\"10.5.0.0/29\"}",
		"{\"Network\":\"10.5.0.0/16\",\"SubnetLen\":17}",
		"{\"Network\":\"10.5.0.0/16\",\"SubnetLen\":31}",
		"{\"Network\":\"10.5.0.0/16\",\"SubnetMin\":\"10.6.0.0\"}",
		"{\"Network\":\"10.5.0.0/16\",\"SubnetMax\":\"10.5.1.1\"}",
		"{\"Network\":\"10.5.0.0/16\",\"EnableIPv6\":true}",
		"{\"Network\":\"10.5.0.0/16\",\"Backend\":\"vxlan\"}",
	};
	struct flat_arena arena = { 0 };
	struct flat_netconf conf;
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		assert_true(read_netconf(bad[i], &arena, &conf) < 0);
	flat_arena_free(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_flannels),
		cmocka_unit_test(records_of_flannel_are_read),
		cmocka_unit_test(ours_come_back),
		cmocka_unit_test(nonsense_is_named_and_keeps_what_makes_sense),
		cmocka_unit_test(records_are_bounded),
		cmocka_unit_test(flannels_configuration_has_flannels_defaults),
		cmocka_unit_test(flannels_configuration_is_checked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
