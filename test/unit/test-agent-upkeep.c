// SPDX-License-Identifier: Apache-2.0
/* agent: what upkeep decides without a kernel. */
#include "../../agent/upkeep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_room(void **state)
{
	(void)state;
	static const struct {
		uint32_t limit, wanted, is;
	} cases[] = {
		{ 1024, 0, 1024 },
		{ 1024, 512, 1024 },
		{ 1024, 513, 4096 },
		{ 1024, 1024, 4096 },
		{ 1024, 1025, 8192 },
		{ 4096, 2048, 4096 },
		{ 1024, 5000, 32768 },
		{ 1, 1, 4 },
		{ 0, 5000, 0 },
		{ 1024, UINT32_MAX, 1 << 20 },
		{ 1000000, 600000, 1 << 20 },
		{ 1 << 20, 1 << 20, 1 << 20 },
		{ 1 << 21, 1 << 21, 1 << 21 },
		{ UINT32_MAX, UINT32_MAX, UINT32_MAX },
	};
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		const uint32_t room = flat_keeper_room(cases[i].limit, cases[i].wanted);
		assert_int_equal(room, cases[i].is);
		assert_int_equal(flat_keeper_room(room, cases[i].wanted), room);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_room) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
