// SPDX-License-Identifier: Apache-2.0
/* Nodes as plain structs, their JSON, and the node's own file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster.h"

#include <errno.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/flat-nodes-XXXXXX";
static struct flat_arena arena;
static struct flat_err err;

static void write_file(const char *text)
{
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	err = (struct flat_err){ 0 };
}

static int setup(void **state)
{
	(void)state;
	int fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
	(void)state;
	flat_arena_free(&arena);
	return unlink(path);
}

static void test_vtep_mac(void **state)
{
	struct flat_node n = node("n1", NULL, NULL, "fd00:10:244:1::/64", "10.244.1.0/24");
	struct flat_node m = node("n2", NULL, NULL, "fd00:10:244:1::/64", NULL);
	char text[FLAT_MAC_TEXT];
	(void)state;
	struct flat_mac a = flat_node_vtep_mac(&n);
	assert_string_equal(flat_mac_text(&a, text), "0a:58:0a:f4:01:00");
	/* it never changes: the peers of other versions derive it, too */
	a = flat_node_vtep_mac(&m);
	assert_string_equal(flat_mac_text(&a, text), "0e:5b:06:41:2d:55");
	m.pod_cidrs[0] = prefix("fd00:10:244:2::/64");
	struct flat_mac b = flat_node_vtep_mac(&m);
	assert_memory_not_equal(&a, &b, sizeof a);
}

static void test_equal(void **state)
{
	struct flat_node a = node("n1", "192.0.2.1", NULL, "10.244.1.0/24", NULL), b = a;
	(void)state;
	assert_true(flat_node_equal(&a, &b));
	b.name = "n2";
	assert_false(flat_node_equal(&a, &b));
	b = a;
	b.addresses[FLAT_V6] = ip("2001:db8::1");
	assert_false(flat_node_equal(&a, &b));
	b = a;
	b.vtep[FLAT_V4].bytes[0] = 2; /* not told: does not count */
	assert_true(flat_node_equal(&a, &b));
	b.has_vtep[FLAT_V4] = true;
	assert_false(flat_node_equal(&a, &b));
	b = a;
	b.pod_cidrs[0].len = 25;
	assert_false(flat_node_equal(&a, &b));
	b = a;
	b.since = 1;
	assert_false(flat_node_equal(&a, &b));
}

#define N1 "{\"name\": \"n1\", \"podCIDRs\": \"10.244.1.0/24\", \"address\": \"192.0.2.1\"}"
#define N2                                                                                         \
	"{\"name\": \"n2\", \"podCIDRs\": [\"10.244.2.0/24\", \"fd00:10:244:2::/64\"],"            \
	" \"address\": [\"2001:db8::2\", \"192.0.2.2\"]}"

static void test_read(void **state)
{
	struct flat_json_list list = { 0 };
	(void)state;
	for (int object = 0; object < 2; object++) {
		write_file(object ? " {\"nodes\": [" N1 "," N2 "]}" : "[" N1 "," N2 "]\n");
		assert_int_equal(flat_nodes_read(path, &arena, &list, &err), 0);
		assert_int_equal(list.count, 2);
		const struct flat_node *n = list.items;
		const struct flat_node want = node("n2", "192.0.2.2", "2001:db8::2",
						   "10.244.2.0/24", "fd00:10:244:2::/64");
		assert_true(flat_node_equal(&n[1], &want));
		assert_int_equal(flat_nodes_check(&list, "nodes", &err), 0);
	}
	assert_int_equal(flat_nodes_read("/nowhere/nodes", &arena, &list, &err), -ENOENT);
	assert_int_equal(err.code, FLAT_CODE_TRY_LATER);
}

static void refuses(const char *text, int code, const char *message)
{
	struct flat_json_list list = { 0 };
	write_file(text);
	int r = flat_nodes_read(path, &arena, &list, &err);
	if (r >= 0)
		r = flat_nodes_check(&list, "nodes", &err);
	assert_true(r < 0);
	assert_int_equal(err.code, code);
	assert_has(err.msg, message);
}

#define NODE(name, cidrs, address)                                                                 \
	"[" N2 ", {\"name\": \"" name "\", \"podCIDRs\": " cidrs ", \"address\": " address "}]"

static void test_read_faults(void **state)
{
	(void)state;
	refuses("[", FLAT_CODE_DECODE, "nodesFile");
	refuses("{}", FLAT_CODE_CONFIG, "nodes: missing");
	refuses("[{}]", FLAT_CODE_CONFIG, "nodes[0].name: missing");
	refuses(NODE("a", "\"\"", "\"192.0.2.3\""), FLAT_CODE_CONFIG,
		"nodes[1].podCIDRs: missing, but required");
	refuses(NODE("a", "[\"10.244.3.0\"]", "\"192.0.2.3\""), FLAT_CODE_CONFIG,
		"nodes[1].podCIDRs[0]: \"10.244.3.0\" is not a subnet");
	refuses(NODE("a",
		     "[\"10.244.3.0/24\",\"10.244.4.0/24\",\"10.244.5.0/24\",\"10.244.6.0/24\",\"10.244.7.0/24\",\"10.244.8.0/24\",\"10.244.9.0/24\",\"10.244.10.0/24\",\"10.244.11.0/24\"]",
		     "\"192.0.2.3\""),
		FLAT_CODE_CONFIG, "nodes[1].podCIDRs: 9 items are more than the 8 allowed");
	refuses(NODE("a", "\"10.244.3.0/24\"", "[\"192.0.2.3\", \"192.0.2.4\"]"), FLAT_CODE_CONFIG,
		"nodes[1].address: node 'a' has two of one family");
	refuses(NODE("a", "\"10.244.3.0/24\"", "[]"), FLAT_CODE_CONFIG, "node 'a' has none");
	refuses(NODE("", "\"10.244.3.0/24\"", "\"192.0.2.3\""), FLAT_CODE_CONFIG,
		"nodes[1].name: must not be empty");
	refuses(NODE("a", "\"10.244.3.1/24\"", "\"192.0.2.3\""), FLAT_CODE_CONFIG,
		"nodes[1].podCIDRs[0]: has host bits set: the subnet is 10.244.3.0/24");
	refuses(NODE("a", "\"fd00::/64\"", "\"192.0.2.3\""), FLAT_CODE_CONFIG,
		"node 'a' has no address of its family");
	refuses(NODE("a", "\"10.244.2.128/25\"", "\"192.0.2.3\""), FLAT_CODE_CONFIG,
		"podCIDRs overlap: 10.244.2.0/24 of node 'n2' and 10.244.2.128/25 of node 'a'");
}

static void test_node_file(void **state)
{
	struct flat_prefix pods[] = { prefix("10.244.1.0/24"), prefix("fd00:10:244:1::/64") };
	struct flat_prefix cluster[] = { prefix("10.244.0.0/16") };
	const struct flat_node_file file = { .pod_cidrs = { pods, 2 },
					     .cluster_cidrs = { cluster, 1 },
					     .mtu = 1450,
					     .node_name = "no\"de\n1" };
	struct flat_node_file back = { 0 };
	char *text = NULL;
	(void)state;
	assert_int_equal(flat_node_file_print(&file, &text, &err), 0);
	write_file(text);
	free(text);
	assert_int_equal(flat_node_file_read(path, &arena, &back, &err), 0);
	assert_int_equal(back.pod_cidrs.count, 2);
	assert_memory_equal(back.pod_cidrs.items, pods, sizeof pods);
	assert_int_equal(back.cluster_cidrs.count, 1);
	assert_int_equal(back.mtu, 1450);
	assert_int_equal(back.flannel_masq, -1);
	assert_string_equal(back.node_name, file.node_name);

	const struct flat_node_file least = { .pod_cidrs = { pods, 1 } };
	assert_int_equal(flat_node_file_print(&least, &text, &err), 0);
	write_file(text);
	free(text);
	assert_int_equal(flat_node_file_read(path, &arena, &back, &err), 0);
	assert_null(back.node_name);
	assert_int_equal(back.mtu, 0);
	assert_int_equal(back.cluster_cidrs.count, 0);

	write_file("{\"podCIDRs\": []}");
	assert_true(flat_node_file_read(path, &arena, &back, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_TRY_LATER);
	write_file("FLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
		   "FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n");
	assert_int_equal(flat_node_file_read(path, &arena, &back, &err), 0);
	assert_int_equal(back.cluster_cidrs.count, 2);
	assert_memory_equal(back.pod_cidrs.items, pods, sizeof pods[0]);
	assert_int_equal(back.mtu, 1430);
	assert_int_equal(back.flannel_masq, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vtep_mac),  cmocka_unit_test(test_equal),
		cmocka_unit_test(test_read),	  cmocka_unit_test(test_read_faults),
		cmocka_unit_test(test_node_file),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
