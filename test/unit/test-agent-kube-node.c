// SPDX-License-Identifier: Apache-2.0
#include "../../agent/kube-node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { MAX_HEARD = 16 };

static struct flat_kube_object heard[MAX_HEARD];
static size_t heard_count;
static char version[64], next[256];
static bool next_is_null;

static void on_heard(void *arg, const struct flat_kube_object *object)
{
	(void)arg;
	assert_in_range(heard_count, 0, MAX_HEARD - 1);
	heard[heard_count++] = *object;
}

static int read_text(const char *text, bool flannel)
{
	const struct flat_cluster_conf conf = { .vni = 1, .flannel = flannel };
	struct flat_kube_reader *reader;
	struct flat_err err = { 0 };
	heard_count = 0;
	assert_int_equal(flat_kube_reader_open(&conf, "self", on_heard, NULL, &reader, &err), 0);
	int r = flat_kube_reader_feed(reader, text, strlen(text), &err);
	if (r >= 0)
		r = flat_kube_reader_end(reader, &err);
	snprintf(version, sizeof version, "%s", flat_kube_reader_version(reader));
	next_is_null = !flat_kube_reader_continue(reader);
	snprintf(next, sizeof next, "%s", next_is_null ? "" : flat_kube_reader_continue(reader));
	flat_kube_reader_close(reader);
	return r;
}

/* One node of a watch, with this inside. */
static const struct flat_kube_object *read_node(const char *inside, bool flannel)
{
	static char text[65536];
	snprintf(text, sizeof text, "{\"type\":\"ADDED\",\"object\":{\"kind\":\"Node\",%s}}",
		 inside);
	if (read_text(text, flannel) < 0 || heard_count != 1)
		fail_msg("%s", text);
	return &heard[0];
}

static const char *prefix_text(const struct flat_kube_object *object, size_t i)
{
	static char text[FLAT_PREFIX_TEXT];
	return flat_prefix_text(&object->node.pod_cidrs[i], text);
}

static void test_list(void **state)
{
	(void)state;
	assert_int_equal(
		read_text("{\"kind\":\"NodeList\",\"metadata\":{\"resourceVersion\":\"42\","
			  "\"continue\":\"abc\",\"remainingItemCount\":7},\"items\":[{\"metadata\":"
			  "{\"name\":\"n1\",\"resourceVersion\":\"7\",\"creationTimestamp\":"
			  "\"2026-01-02T03:04:05Z\"},\"spec\":{\"podCIDR\":\"10.244.1.0/24\","
			  "\"podCIDRs\":[\"10.244.1.0/24\",\"fd00:1::/64\"]},\"status\":{"
			  "\"addresses\":[{\"address\":\"198.51.100.1\",\"type\":\"ExternalIP\"},"
			  "{\"address\":\"192.0.2.1\",\"type\":\"InternalIP\"},{\"type\":"
			  "\"InternalIP\",\"address\":\"192.0.2.9\"},{\"type\":\"Hostname\","
			  "\"address\":\"n1\"}],\"conditions\":[{\"type\":\"Ready\",\"status\":"
			  "\"False\"},{\"type\":\"NetworkUnavailable\",\"status\":\"False\"}]}},"
			  "{\"metadata\":{\"name\":\"n2\"}}]}",
			  false),
		0);
	assert_int_equal(heard_count, 2);
	assert_string_equal(version, "42");
	assert_string_equal(next, "abc");
	assert_string_equal(heard[0].name, "n1");
	assert_string_equal(heard[0].type, "");
	assert_string_equal(heard[0].fault, "");
	assert_int_equal(heard[0].node.since, 1767323045);
	assert_int_equal(heard[0].node.pod_cidr_count, 2);
	assert_string_equal(prefix_text(&heard[0], 1), "fd00:1::/64");
	assert_int_equal(heard[0].node.addresses[FLAT_V4].bytes[3], 1);
	assert_int_equal(heard[0].node.addresses[FLAT_V6].family, 0);
	assert_false(heard[0].network_unavailable);
	/* nothing of the one before it */
	assert_string_equal(heard[1].name, "n2");
	assert_int_equal(heard[1].node.pod_cidr_count, 0);
	assert_int_equal(heard[1].node.addresses[FLAT_V4].family, 0);
	assert_true(heard[1].network_unavailable);
	assert_true(heard[1].node.since == UINT64_MAX);
	assert_int_equal(read_text("{\"items\":null,\"metadata\":{\"resourceVersion\":\"1\"}}",
				   false),
			 0);
	assert_int_equal(heard_count, 0);
	assert_string_equal(next, "");
}

static void test_watch(void **state)
{
	(void)state;
	assert_int_equal(
		read_text("{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"n1\","
			  "\"resourceVersion\":\"5\"},\"spec\":{\"podCIDR\":\"10.244.1.0/24\"}}}\n"
			  "{\"object\":{\"metadata\":{\"name\":\"n2\"}},\"type\":\"DELETED\"}\n"
			  "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Node\",\"metadata\":{"
			  "\"resourceVersion\":\"9\",\"creationTimestamp\":null},\"spec\":{}}}\n"
			  "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"metadata\":{},"
			  "\"message\":\"too old resource version\",\"code\":410}}\n",
			  false),
		0);
	assert_int_equal(heard_count, 4);
	assert_string_equal(heard[0].type, "ADDED");
	assert_string_equal(heard[0].version, "5");
	assert_string_equal(prefix_text(&heard[0], 0), "10.244.1.0/24");
	assert_string_equal(heard[1].type, "DELETED");
	assert_string_equal(heard[1].name, "n2");
	assert_string_equal(heard[2].type, "BOOKMARK");
	assert_string_equal(heard[2].version, "9");
	assert_string_equal(heard[2].name, "");
	assert_string_equal(heard[3].type, "ERROR");
	assert_int_equal(heard[3].code, 410);
	assert_string_equal(heard[3].message, "too old resource version");
}

static void test_faults(void **state)
{
	(void)state;
	static const struct {
		const char *inside, *fault;
	} cases[] = {
		{ "\"spec\":{\"podCIDRs\":[\"10.244.1.0\"]}",
		  "podCIDR '10.244.1.0' is not a subnet" },
		{ "\"spec\":{\"podCIDRs\":[\"10.244.1.0/33\"]}", "is not a subnet" },
		{ "\"spec\":{\"podCIDRs\":[{\"a\":1},true,\"10.0.0.0/24\"]}",
		  "podCIDR 'true' is not a subnet" },
		{ "\"spec\":{\"podCIDR\":\"x\"}", "podCIDR 'x' is not a subnet" },
		{ "\"spec\":{\"podCIDRs\":[\"10.0.0.0/24\",\"10.0.1.0/24\",\"10.0.2.0/24\","
		  "\"10.0.3.0/24\",\"10.0.4.0/24\",\"10.0.5.0/24\",\"10.0.6.0/24\",\"10.0.7.0/24\","
		  "\"10.0.8.0/24\"]}",
		  "more than 8 podCIDRs" },
		{ "\"status\":{\"addresses\":[{\"type\":\"InternalIP\",\"address\":\"a.b\"}]}",
		  "InternalIP 'a.b' is not an address" },
		{ "\"status\":{\"addresses\":[{\"type\":\"InternalIP\"}]}",
		  "InternalIP '' is not an address" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char inside[1024];
		snprintf(inside, sizeof inside, "\"metadata\":{\"name\":\"n\"},%s",
			 cases[i].inside);
		const struct flat_kube_object *object = read_node(inside, false);
		if (!strstr(object->fault, cases[i].fault))
			fail_msg("'%s' is not '%s'", object->fault, cases[i].fault);
	}
	/* shapes that are none of a node's */
	static const char *const shapes[] = {
		"\"spec\":[]",
		"\"spec\":\"x\",\"status\":7",
		"\"status\":{\"addresses\":{\"type\":\"InternalIP\",\"address\":\"x\"}}",
		"\"metadata\":null",
		"\"status\":{\"conditions\":[[],null,7]}",
	};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		assert_string_equal(read_node(shapes[i], true)->fault, "");
	char long_name[400];
	memset(long_name, 'n', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	char inside[512];
	snprintf(inside, sizeof inside, "\"metadata\":{\"name\":\"%s\"}", long_name);
	assert_string_equal(read_node(inside, false)->name, "");
	assert_string_equal(read_node("\"metadata\":{\"name\":\"a\\u0000b\"}", false)->name, "");
}

#define P "\"flannel.alpha.coreos.com/"
static const struct flat_kube_object *read_flannel(const char *name, const char *annotations)
{
	char inside[8192];
	snprintf(inside, sizeof inside,
		 "\"metadata\":{\"name\":\"%s\",\"annotations\":{%s}},\"status\":{\"addresses\":[{"
		 "\"type\":\"InternalIP\",\"address\":\"192.0.2.99\"}]}",
		 name, annotations);
	return read_node(inside, true);
}

static void test_flannel(void **state)
{
	(void)state;
	const struct flat_kube_object *o =
		read_flannel("n",
			     P "kube-subnet-manager\":\"true\"," P "backend-type\":\"vxlan\"," P
			       "public-ip\":\"192.0.2.1\"," P "backend-data\":\"{\\\"VNI\\\":1,"
			       "\\\"VtepMAC\\\":\\\"0a:01:02:03:04:05\\\"}\"," P
			       "public-ipv6\":\"2001:db8::1\"," P
			       "backend-v6-data\":\"{\\\"VtepMAC\\\":"
			       "\\\"0a:01:02:03:04:06\\\",\\\"VNI\\\":1}\"");
	assert_string_equal(o->fault, "");
	assert_int_equal(o->node.addresses[FLAT_V4].bytes[3], 1);
	assert_int_equal(o->node.addresses[FLAT_V6].bytes[15], 1);
	assert_true(o->node.has_vtep[FLAT_V4] && o->node.has_vtep[FLAT_V6]);
	assert_int_equal(o->node.vtep[FLAT_V4].bytes[5], 5);
	assert_int_equal(o->node.vtep[FLAT_V6].bytes[5], 6);
	o = read_flannel("n", P "kube-subnet-manager\":\"true\"," P "backend-type\":\"host-gw\"," P
				"public-ip\":\"192.0.2.1\"," P "backend-data\":\"null\"");
	assert_string_equal(o->fault, "");
	assert_false(o->node.has_vtep[FLAT_V4]);
	/* not there yet: no address */
	o = read_flannel("n", "");
	assert_string_equal(o->fault, "");
	assert_int_equal(o->node.addresses[FLAT_V4].family, 0);
	/* our own says of itself what others say of it */
	o = read_flannel("self", P "kube-subnet-manager\":\"true\"," P "backend-type\":\"ipsec\"");
	assert_string_equal(o->fault, "");
	assert_int_equal(o->node.addresses[FLAT_V4].bytes[3], 99);
	static const struct {
		const char *annotations, *fault;
	} cases[] = {
		{ P "backend-type\":\"ipsec\"", "flannel's backend 'ipsec'" },
		{ P "backend-type\":\"vxlan\"," P "public-ip\":\"x\"",
		  "public-ip 'x' is not an addr" },
		{ P "backend-type\":\"vxlan\"," P "public-ip\":\"2001:db8::1\"",
		  "is not an address" },
		{ P "backend-type\":\"vxlan\"," P "public-ip\":\"192.0.2.1\"",
		  "backend-data '' makes" },
		{ P "backend-type\":\"vxlan\"," P "public-ip\":\"192.0.2.1\"," P
		    "backend-data\":\"{\\\"VNI\\\":7,\\\"VtepMAC\\\":\\\"0a:01:02:03:04:05\\\"}\"",
		  "its VNI is 7, but this node's is 1" },
		{ P "backend-type\":\"vxlan\"," P "public-ip\":\"192.0.2.1\"," P
		    "backend-data\":\"{\\\"VNI\\\":1,\\\"VtepMAC\\\":\\\"0a:01:02:03:04\\\"}\"",
		  "makes no sense" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char annotations[1024];
		snprintf(annotations, sizeof annotations, P "kube-subnet-manager\":\"true\",%s",
			 cases[i].annotations);
		o = read_flannel("n", annotations);
		if (!strstr(o->fault, cases[i].fault))
			fail_msg("'%s' is not '%s'", o->fault, cases[i].fault);
	}
	char annotations[4096];
	snprintf(annotations, sizeof annotations,
		 P "kube-subnet-manager\":\"true\"," P "backend-type\":\"vxlan\"," P
		   "public-ip\":\"%0300d\"",
		 0);
	assert_non_null(strstr(read_flannel("n", annotations)->fault, "public-ip is too long"));
}

static void test_messages(void **state)
{
	(void)state;
	char buf[64];
	flat_kube_message("{\"kind\":\"Status\",\"metadata\":{},\"message\":\"no\"}", buf,
			  sizeof buf);
	assert_string_equal(buf, "no");
	flat_kube_message("Bad Gateway\r\n<html>", buf, sizeof buf);
	assert_string_equal(buf, "Bad Gateway");
	flat_kube_message("{\"message\":\"cu", buf, sizeof buf);
	assert_string_equal(buf, "{\"message\":\"cu");
	flat_kube_message("", buf, sizeof buf);
	assert_string_equal(buf, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),	 cmocka_unit_test(test_watch),
		cmocka_unit_test(test_faults),	 cmocka_unit_test(test_flannel),
		cmocka_unit_test(test_messages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
