// SPDX-License-Identifier: Apache-2.0
/* Which nodes are believed: every rule, who goes before whom, and many at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 8 };
struct scene {
	struct flat_node nodes[MOST];
	size_t count;
	struct flat_judgement out[MOST];
	struct flat_cluster_conf conf;
};

/* n1 is this node, n2 a good one. */
static struct scene scene(void)
{
	struct scene s = { .count = 2, .conf = conf_of(FLAT_BACKEND_VXLAN) };
	s.nodes[0] = node("n1", "192.0.2.1", "2001:db8::1", "10.244.1.0/24", "fd00:10:244:1::/64");
	s.nodes[1] = node("n2", "192.0.2.2", "2001:db8::2", "10.244.2.0/24", "fd00:10:244:2::/64");
	s.nodes[0].since = 100;
	s.nodes[1].since = 10;
	return s;
}

static void judge(struct scene *s)
{
	const struct flat_node *nodes[MOST];
	struct flat_err err = { 0 };
	for (size_t i = 0; i < s->count; i++)
		nodes[i] = &s->nodes[i];
	memset(s->out, 0xff, sizeof s->out);
	assert_int_equal(flat_cluster_judge(&s->conf, nodes, s->count, "n1", s->out, &err), 0);
	assert_int_equal(s->out[0].verdict, FLAT_NODE_SELF);
}

/* Beside n1 and n2 this one comes: n2 stays accepted whatever it says. */
static const struct flat_judgement *judge_third(const struct flat_node *third)
{
	static struct scene s;
	s = scene();
	s.nodes[s.count] = *third;
	if (!third->since)
		s.nodes[s.count].since = 50;
	s.count++;
	judge(&s);
	assert_int_equal(s.out[1].verdict, FLAT_NODE_ACCEPTED);
	assert_string_equal(s.out[1].why, "");
	return &s.out[2];
}

static void refuses(const char *v4, const char *v6, const char *cidr, const char *cidr2,
		    const char *why)
{
	const struct flat_node third = node("n3", v4, v6, cidr, cidr2);
	const struct flat_judgement *j = judge_third(&third);
	if (j->verdict != FLAT_NODE_REFUSED)
		fail_msg("verdict %d of '%s' '%s': %s", j->verdict, v4 ? v4 : v6, cidr, j->why);
	assert_has(j->why, why);
}

static void test_accepts(void **state)
{
	struct flat_node third =
		node("n3", "192.0.2.3", "2001:db8::3", "10.244.3.0/24", "fd00:10:244:3::/64");
	(void)state;
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_ACCEPTED);
	third = node("n3", "192.0.2.3", NULL, "10.244.3.5/32", NULL);
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_ACCEPTED);
	/* whole, right beside the others */
	third = node("n3", NULL, "2001:db8::3", "10.244.0.0/24", "10.244.3.0/24");
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_ACCEPTED);
}

static void test_subnets(void **state)
{
	(void)state;
	refuses("192.0.2.3", NULL, "10.244.3.1/24", NULL,
		"host bits set: the subnet is 10.244.3.0/24");
	refuses("192.0.2.3", NULL, "fd00:10:244:3::1/64", NULL, "host bits");
	refuses("192.0.2.3", NULL, "0.0.0.0/0", NULL, "not inside clusterCIDR");
	refuses("192.0.2.3", NULL, "::/0", NULL, "not inside clusterCIDR");
	refuses("192.0.2.3", NULL, "10.245.3.0/24", NULL, "not inside clusterCIDR");
	refuses("192.0.2.3", NULL, "10.0.0.0/8", NULL, "not inside clusterCIDR");
	/* one bad subnet is enough */
	refuses("192.0.2.3", NULL, "10.244.3.0/24", "192.168.0.0/24", "192.168.0.0/24");
	/* this node's: the same, more, less */
	refuses("192.0.2.3", NULL, "10.244.1.0/24", NULL, "overlaps this node's own");
	refuses("192.0.2.3", NULL, "10.244.0.0/23", NULL, "overlaps this node's own");
	refuses("192.0.2.3", NULL, "10.244.1.128/25", NULL, "overlaps this node's own");
	refuses("192.0.2.3", NULL, "10.244.3.0/24", "fd00:10:244:1:8000::/65", "this node's own");
	/* another's */
	refuses("192.0.2.3", NULL, "10.244.2.0/24", NULL, "node 'n2', which was there before");
	refuses("192.0.2.3", NULL, "10.244.2.7/32", NULL, "node 'n2', which was there before");
	refuses("192.0.2.3", NULL, "10.244.2.0/23", NULL, "node 'n2', which was there before");
	refuses("192.0.2.3", NULL, "fd00:10:244:2::/63", NULL, "node 'n2', which was there before");
	/* its own */
	refuses("192.0.2.3", NULL, "10.244.3.0/24", "10.244.3.0/24", "another one of its own");
	refuses("192.0.2.3", NULL, "10.244.4.0/23", "10.244.5.0/24", "another one of its own");
}

static void test_addresses(void **state)
{
	static const struct {
		const char *address, *why;
	} bad[] = {
		{ "0.0.0.0", "unspecified" },	     { "127.0.0.1", "loopback" },
		{ "224.0.0.5", "multicast" },	     { "255.255.255.255", "reserved" },
		{ "169.254.169.254", "link-local" }, { "0.0.0.7", "reserved" },
		{ "192.0.2.1", "this node's own" },  { "10.244.1.9", "pod subnet 10.244.1.0/24" },
		{ "10.244.2.9", "of node 'n2'" },    { "10.244.3.9", "contains 10.244.3.9" },
	};
	static const struct {
		const char *address, *why;
	} bad6[] = {
		{ "::", "unspecified" },
		{ "::1", "loopback" },
		{ "ff02::1", "multicast" },
		{ "fe80::1", "link-local" },
		{ "2001:db8::1", "this node's own" },
		{ "fd00:10:244:1::9", "of node 'n1'" },
	};
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		refuses(bad[i].address, NULL, "10.244.3.0/24", NULL, bad[i].why);
	for (size_t i = 0; i < FLAT_LEN(bad6); i++)
		refuses("192.0.2.3", bad6[i].address, "10.244.3.0/24", NULL, bad6[i].why);
}

/* The flat network may have the nodes in it; a pod subnet may not. */
static void test_subnet_with_a_node_inside(void **state)
{
	struct scene s = scene();
	(void)state;
	s.conf.cidrs[0] = prefix("0.0.0.0/0");
	s.count = 3;
	s.nodes[2] = node("n3", "192.0.2.3", NULL, "192.0.2.0/24", NULL);
	s.nodes[2].since = 50;
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_REFUSED);
	assert_has(s.out[2].why, "contains 192.0.2.");
	s.nodes[2].pod_cidrs[0] = prefix("192.0.2.2/32");
	judge(&s);
	assert_has(s.out[2].why, "contains 192.0.2.2, the address of node 'n2'");
	s.nodes[2].pod_cidrs[0] = prefix("192.0.2.1/32");
	judge(&s);
	assert_has(s.out[2].why, "contains 192.0.2.1, the address of this node 'n1'");
	s.nodes[2].pod_cidrs[0] = prefix("0.0.0.0/0");
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_REFUSED);
	assert_int_equal(s.out[1].verdict, FLAT_NODE_ACCEPTED);

	/* a node without a subnet is a host all the same: a control plane, say */
	s.nodes[3] = node("api", "198.51.100.9", NULL, NULL, NULL);
	s.nodes[2].pod_cidrs[0] = prefix("198.51.100.0/24");
	s.count = 4;
	judge(&s);
	assert_int_equal(s.out[3].verdict, FLAT_NODE_WAITING);
	assert_has(s.out[2].why, "the address of node 'api'");
	/* but a late one takes no subnet away by claiming an address in it */
	s.nodes[2].pod_cidrs[0] = prefix("10.244.3.0/24");
	s.nodes[3] = node("late", "10.244.3.3", NULL, "10.244.9.0/24", NULL);
	s.nodes[3].since = 60;
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_ACCEPTED);
	assert_int_equal(s.out[3].verdict, FLAT_NODE_REFUSED);
	assert_has(s.out[3].why, "is in the pod subnet 10.244.3.0/24 of node 'n3'");
}

static void test_waiting(void **state)
{
	struct flat_node third = node("n3", "192.0.2.3", NULL, NULL, NULL);
	(void)state;
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_WAITING);
	assert_has(judge_third(&third)->why, "no pod subnet yet");
	third = node("n3", NULL, NULL, "10.244.3.0/24", NULL);
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_WAITING);
	assert_has(judge_third(&third)->why, "no address yet");
	/* something is against it */
	refuses(NULL, NULL, "10.244.2.0/24", NULL, "overlaps");
	refuses("127.0.0.1", NULL, NULL, NULL, "loopback");
}

static void test_absurd(void **state)
{
	struct flat_node third = node("n3", "192.0.2.3", NULL, "10.244.3.0/24", NULL);
	(void)state;
	third.pod_cidr_count = 1u << 20;
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_REFUSED);
	assert_has(judge_third(&third)->why, "at most 8");
	char name[300];
	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = 0;
	third = node(name, "192.0.2.3", NULL, "10.244.2.0/24", NULL);
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_REFUSED);
}

static void test_macs(void **state)
{
	struct flat_node third = node("n3", "192.0.2.3", NULL, "10.244.3.0/24", NULL);
	(void)state;
	third.has_vtep[FLAT_V4] = true;
	third.vtep[FLAT_V4] = mac("0a:58:0a:f4:03:00");
	assert_int_equal(judge_third(&third)->verdict, FLAT_NODE_ACCEPTED);
	third.vtep[FLAT_V4] = mac("0a:58:0a:f4:02:00");
	assert_has(judge_third(&third)->why, "which is that of node 'n2'");
	third.vtep[FLAT_V4] = mac("0a:58:0a:f4:01:00");
	assert_has(judge_third(&third)->why, "which is that of node 'n1'");
	third.vtep[FLAT_V4] = mac("00:00:00:00:00:00");
	assert_has(judge_third(&third)->why, "none of a single device");
	third.vtep[FLAT_V4] = mac("01:00:5e:00:00:01");
	assert_has(judge_third(&third)->why, "none of a single device");
	struct scene s = scene();
	s.nodes[2] = third;
	s.nodes[2].vtep[FLAT_V4] = mac("0a:58:0a:f4:02:00");
	s.count = 3;
	s.conf.backend = FLAT_BACKEND_DIRECT; /* no device, no clash */
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_ACCEPTED);
}

/* First come, first served; names decide between equals; this node goes before all. */
static void test_precedence(void **state)
{
	struct scene s = scene();
	(void)state;
	s.count = 4;
	s.nodes[2] = node("b", "192.0.2.3", NULL, "10.244.3.0/24", NULL);
	s.nodes[3] = node("a", "192.0.2.4", NULL, "10.244.3.0/25", NULL);
	s.nodes[2].since = 20;
	s.nodes[3].since = 30;
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_ACCEPTED);
	assert_int_equal(s.out[3].verdict, FLAT_NODE_REFUSED);
	s.nodes[3].since = 20;
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_REFUSED);
	assert_int_equal(s.out[3].verdict, FLAT_NODE_ACCEPTED);
	assert_has(s.out[2].why, "node 'a'");

	/* who was there before this node does not go before it */
	s.nodes[2] = node("b", "192.0.2.3", NULL, "10.244.1.0/24", NULL);
	s.nodes[2].since = 1;
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_REFUSED);

	/* what a refused one claimed is free for others */
	s.nodes[2] = node("b", "192.0.2.3", NULL, "10.244.1.0/24", "10.244.8.0/24");
	s.nodes[3] = node("c", "192.0.2.4", NULL, "10.244.8.0/24", NULL);
	s.nodes[2].since = 1;
	s.nodes[3].since = 2;
	judge(&s);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_REFUSED);
	assert_int_equal(s.out[3].verdict, FLAT_NODE_ACCEPTED);
}

static void test_self_unknown(void **state)
{
	struct scene s = scene();
	const struct flat_node *nodes[] = { &s.nodes[0], &s.nodes[1] };
	struct flat_err err = { 0 };
	(void)state;
	assert_int_equal(flat_cluster_judge(&s.conf, nodes, 2, NULL, s.out, &err), 0);
	assert_int_equal(s.out[0].verdict, FLAT_NODE_ACCEPTED);
	assert_int_equal(s.out[1].verdict, FLAT_NODE_ACCEPTED);
	assert_int_equal(flat_cluster_judge(&s.conf, nodes, 2, "other", s.out, &err), 0);
	assert_int_equal(flat_cluster_judge(&s.conf, nodes, 0, "n1", s.out, &err), 0);
}

/* Nested as deep as prefixes can be, and wide; what quadratic time would make seconds of. */
static void test_many(void **state)
{
	enum { MANY = 5000 };
	struct flat_node *nodes = calloc(MANY, sizeof *nodes);
	const struct flat_node **list = calloc(MANY, sizeof *list);
	struct flat_judgement *out = calloc(MANY, sizeof *out);
	struct flat_cluster_conf conf = conf_of(FLAT_BACKEND_VXLAN);
	char(*names)[16] = calloc(MANY, sizeof *names);
	struct flat_err err = { 0 };
	size_t accepted = 0, refused = 0;
	(void)state;
	assert_true(nodes && list && out && names);
	conf.cidrs[0] = prefix("10.0.0.0/8");
	for (unsigned i = 0; i < MANY; i++) {
		struct flat_node *n = &nodes[i];
		snprintf(names[i], sizeof names[i], "node-%05u", i);
		*n = node(names[i], "192.0.2.1", "2001:db8::1", "10.0.0.0/24", "fd00:10:244::/64");
		n->addresses[FLAT_V4].bytes[2] = (uint8_t)(i >> 8);
		n->addresses[FLAT_V4].bytes[3] = (uint8_t)i;
		n->addresses[FLAT_V4].bytes[0] = 172;
		n->addresses[FLAT_V6].bytes[14] = (uint8_t)(i >> 8);
		n->addresses[FLAT_V6].bytes[15] = (uint8_t)i;
		n->pod_cidrs[0].ip.bytes[1] = (uint8_t)(i >> 8);
		n->pod_cidrs[0].ip.bytes[2] = (uint8_t)i;
		n->pod_cidr_count = 1;
		list[MANY - 1 - i] = n;
	}
	int64_t start = flat_now_ms();
	assert_int_equal(flat_cluster_judge(&conf, list, MANY, "node-00042", out, &err), 0);
	for (unsigned i = 0; i < MANY; i++)
		accepted += out[i].verdict == FLAT_NODE_ACCEPTED;
	assert_int_equal(accepted, MANY - 1);

	/* all of them in each other */
	for (unsigned i = 0; i < MANY; i++) {
		nodes[i].pod_cidrs[0] = prefix("10.0.0.0/8");
		nodes[i].pod_cidrs[0].len = (uint8_t)(8 + i % 25);
		nodes[i].since = i;
	}
	assert_int_equal(flat_cluster_judge(&conf, list, MANY, NULL, out, &err), 0);
	for (unsigned i = 0; i < MANY; i++)
		refused += out[i].verdict == FLAT_NODE_REFUSED;
	assert_int_equal(refused, MANY - 1);
	assert_int_equal(out[MANY - 1].verdict, FLAT_NODE_ACCEPTED); /* the first in time */
	assert_true(flat_now_ms() - start < 2000);
	free(nodes);
	free(list);
	free(out);
	free(names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_subnets),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_subnet_with_a_node_inside),
		cmocka_unit_test(test_waiting),
		cmocka_unit_test(test_absurd),
		cmocka_unit_test(test_macs),
		cmocka_unit_test(test_precedence),
		cmocka_unit_test(test_self_unknown),
		cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
