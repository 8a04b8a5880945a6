// SPDX-License-Identifier: Apache-2.0
#include "../../agent/etcd-table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include <stdio.h>

static void records_are_found_by_key_and_name(void **state)
{
	struct flat_etcd_table table = { 0 };
	char key[32], name[32];
	(void)state;
	assert_null(flat_etcd_table_find(&table, "k0"));
	assert_null(flat_etcd_table_named(&table, "n0", 0));
	for (int i = 0; i < 1000; i++) { /* two records of each name */
		snprintf(key, sizeof key, "k%d", i);
		snprintf(name, sizeof name, "n%d", i / 2);
		struct flat_etcd_entry *entry = flat_etcd_table_add(&table, key, name);
		entry->create_revision = i;
		entry->list = i % 2 ? 1 : 2;
	}
	assert_int_equal(table.count, 1000);
	assert_string_equal(flat_etcd_table_find(&table, "k777")->name, "n388");
	assert_string_equal(flat_etcd_table_named(&table, "n388", 0)->key,
			    "k777"); /* the younger */
	assert_string_equal(flat_etcd_table_named(&table, "n388", 2)->key,
			    "k776"); /* of the list */
	flat_etcd_table_remove(&table, flat_etcd_table_find(&table, "k777"));
	assert_null(flat_etcd_table_find(&table, "k777"));
	assert_string_equal(flat_etcd_table_named(&table, "n388", 0)->key, "k776");
	size_t count = 0;
	for (struct flat_etcd_entry *entry = NULL; (entry = flat_etcd_table_next(&table, entry));)
		count++;
	assert_int_equal(count, 999);
	flat_etcd_table_clear(&table);
	assert_null(flat_etcd_table_next(&table, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_found_by_key_and_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
