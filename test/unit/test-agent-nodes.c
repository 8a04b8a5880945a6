// SPDX-License-Identifier: Apache-2.0
/* The table of nodes: who is there, who has gone, who is refused, and how many fit. */
#include "../../agent/log.h"
#include "../../agent/nodes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct flat_node make(const char *name, const char *cidr, const char *address)
{
	struct flat_node node = { .name = name };
	if (cidr)
		assert_true(flat_prefix_parse(cidr, &node.pod_cidrs[node.pod_cidr_count++]));
	if (address)
		assert_true(flat_ip_parse(address, &node.addresses[FLAT_V4]));
	return node;
}

static struct flat_node_table *open_table(void)
{
	struct flat_node_table *table;
	struct flat_err err = { 0 };
	flat_log_setup(FLAT_LEVEL_ERROR, FLAT_LOG_KEYS);
	assert_int_equal(flat_node_table_open("self", &table, &err), 0);
	return table;
}

static size_t listed(struct flat_node_table *table, const struct flat_node *self)
{
	const struct flat_node *const *nodes;
	struct flat_err err = { 0 };
	size_t count;
	assert_int_equal(flat_node_table_list(table, self, &nodes, &count, &err), 0);
	for (size_t i = 0; i < count; i++)
		assert_true(nodes[i] == self || strcmp(nodes[i]->name, "self") != 0);
	return count;
}

static void test_news(void **state)
{
	struct flat_node_table *table = open_table();
	struct flat_node a = make("a", "10.244.1.0/24", "192.0.2.1");
	(void)state;
	assert_int_equal(flat_node_table_hear(table, &a, NULL), 1);
	assert_int_equal(flat_node_table_hear(table, &a, NULL), 0);
	a = make("a", "10.244.1.0/24", "192.0.2.2");
	assert_int_equal(flat_node_table_hear(table, &a, NULL), 1);
	assert_int_equal(flat_node_table_hear(table, &a, "nonsense"), 1);
	assert_int_equal(flat_node_table_hear(table, &a, "nonsense"), 0);
	assert_int_equal(flat_node_table_hear(table, &a, "other nonsense"), 1);

	const char *fault = NULL;
	char name[] = "a";
	const struct flat_node *found = flat_node_table_find(table, name, &fault);
	assert_non_null(found);
	assert_string_equal(found->name, "a");
	assert_ptr_not_equal(found->name, a.name); /* its own copy */
	assert_string_equal(fault, "other nonsense");
	assert_int_equal(listed(table, NULL), 0); /* with a fault it is not to be judged */
	assert_int_equal(flat_node_table_hear(table, &a, NULL), 1);
	assert_int_equal(listed(table, NULL), 1);
	assert_true(flat_node_table_gone(table, "a"));
	assert_false(flat_node_table_gone(table, "a"));
	assert_null(flat_node_table_find(table, "a", NULL));
	flat_node_table_close(table);
}

/* Who is not told of in a full list has gone, but not before its end. */
static void test_lists(void **state)
{
	struct flat_node_table *table = open_table();
	const struct flat_node a = make("a", NULL, NULL), b = make("b", NULL, NULL);
	(void)state;
	flat_node_table_begin(table);
	flat_node_table_hear(table, &a, NULL);
	flat_node_table_hear(table, &b, NULL);
	assert_int_equal(flat_node_table_synced(table), 0);
	flat_node_table_begin(table);
	flat_node_table_hear(table, &b, NULL);
	assert_int_equal(listed(table, NULL), 2);
	assert_int_equal(flat_node_table_synced(table), 1);
	assert_null(flat_node_table_find(table, "a", NULL));
	/* a list that broke off, and another one */
	flat_node_table_begin(table);
	flat_node_table_hear(table, &a, NULL);
	flat_node_table_begin(table);
	flat_node_table_hear(table, &b, NULL);
	assert_int_equal(flat_node_table_synced(table), 1);
	assert_int_equal(listed(table, NULL), 1);
	flat_node_table_close(table);
}

static void test_self(void **state)
{
	struct flat_node_table *table = open_table();
	const struct flat_node told = make("self", "10.244.1.0/24", "192.0.2.1");
	const struct flat_node settled = make("self", "10.244.7.0/24", "192.0.2.1");
	const struct flat_node a = make("a", "10.244.2.0/24", "192.0.2.2");
	(void)state;
	flat_node_table_hear(table, &told, NULL);
	flat_node_table_hear(table, &a, NULL);
	assert_int_equal(listed(table, NULL), 1);
	assert_int_equal(listed(table, &settled), 2);

	struct flat_judgement judgements[2] = { { .verdict = FLAT_NODE_WAITING },
						{ .verdict = FLAT_NODE_SELF } };
	const struct flat_node bad = make("bad", NULL, NULL);
	struct flat_status status = { 0 };
	flat_node_table_hear(table, &bad, "no address");
	assert_int_equal(listed(table, &settled), 2);
	flat_node_table_settle(table, judgements, &status);
	assert_int_equal(status.nodes.known, 3);
	assert_int_equal(status.nodes.accepted, 0);
	assert_int_equal(status.nodes.waiting, 1);
	assert_int_equal(status.nodes.refused, 1);
	flat_node_table_close(table);
}

static void test_full(void **state)
{
	struct flat_node_table *table = open_table();
	char name[16];
	(void)state;
	for (int i = 0; i < FLAT_NODE_TABLE_MAX; i++) {
		snprintf(name, sizeof name, "n%d", i);
		const struct flat_node node = make(name, NULL, NULL);
		assert_int_equal(flat_node_table_hear(table, &node, NULL), 1);
	}
	const struct flat_node more = make("more", NULL, NULL), self = make("self", NULL, NULL);
	flat_log_setup(FLAT_LEVEL_ERROR, FLAT_LOG_KEYS);
	assert_int_equal(flat_node_table_hear(table, &more, NULL), -E2BIG);
	assert_int_equal(flat_node_table_hear(table, &more, NULL), -E2BIG);
	assert_int_equal(flat_node_table_hear(table, &self, NULL), 1);
	assert_int_equal(listed(table, NULL), FLAT_NODE_TABLE_MAX);
	assert_true(flat_node_table_gone(table, "n77"));
	assert_true(flat_node_table_gone(table, "n78"));
	assert_int_equal(flat_node_table_hear(table, &more, NULL), 1);
	assert_non_null(flat_node_table_find(table, "n16383", NULL));
	flat_node_table_close(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_news),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_self),
		cmocka_unit_test(test_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
