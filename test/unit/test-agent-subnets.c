// SPDX-License-Identifier: Apache-2.0
#include "../../agent/subnets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static struct flat_ip ip(const char *text)
{
	struct flat_ip parsed = { 0 };
	assert_true(flat_ip_parse(text, &parsed));
	return parsed;
}

static struct flat_prefix cidr(const char *text)
{
	struct flat_prefix parsed = { 0 };
	assert_true(flat_prefix_parse(text, &parsed));
	return parsed;
}

static void assert_cidr(const struct flat_prefix *got, const char *want)
{
	char text[FLAT_PREFIX_TEXT];
	assert_string_equal(flat_prefix_text(got, text), want);
}

static struct flat_subnet_pool pool(const char *net, uint8_t len)
{
	return (struct flat_subnet_pool){ .net = cidr(net), .len = len };
}

static const struct flat_prefix nothing[FLAT_FAMILIES];

/* One of IPv4. */
static int choose(const struct flat_subnet_pool *p, const struct flat_prefix *taken, size_t count,
		  uint64_t start, struct flat_prefix *ret_cidr, struct flat_err *err)
{
	struct flat_subnet_pool pools[FLAT_FAMILIES] = { *p };
	struct flat_prefix chosen[FLAT_FAMILIES] = { 0 };
	int r = flat_subnets_choose(pools, nothing, taken, count, start, chosen, err);
	*ret_cidr = chosen[FLAT_V4];
	assert_int_equal(chosen[FLAT_V6].ip.family, 0);
	return r;
}

static void the_first_free_from_the_start_is_chosen(void **state)
{
	struct flat_subnet_pool p = pool("10.244.0.0/16", 24);
	struct flat_prefix got, taken[] = { cidr("10.244.1.0/24"), cidr("10.244.2.0/24"),
					    cidr("10.244.255.0/24"), cidr("10.244.0.0/24") };
	(void)state;
	assert_int_equal(choose(&p, taken, 0, 0, &got, NULL), 0);
	assert_cidr(&got, "10.244.0.0/24");
	assert_int_equal(choose(&p, taken, 4, 0, &got, NULL), 0);
	assert_cidr(&got, "10.244.3.0/24");
	assert_int_equal(choose(&p, taken, 4, 17, &got, NULL), 0);
	assert_cidr(&got, "10.244.17.0/24");
	assert_int_equal(choose(&p, taken, 4, 255, &got, NULL), 0); /* around the end */
	assert_cidr(&got, "10.244.3.0/24");
	assert_int_equal(choose(&p, taken, 4, 256 * 1000 + 2, &got, NULL), 0); /* any number */
	assert_cidr(&got, "10.244.3.0/24");
}

static void subnets_of_other_lengths_take_what_they_cover(void **state)
{
	struct flat_subnet_pool p = pool("10.244.0.0/16", 24);
	struct flat_prefix got, taken[] = { cidr("10.244.0.0/18"), cidr("10.244.64.128/25"),
					    cidr("10.244.65.7/32") };
	(void)state;
	assert_int_equal(choose(&p, taken, 3, 5, &got, NULL), 0);
	assert_cidr(&got, "10.244.66.0/24");
}

static void what_is_not_inside_takes_nothing(void **state)
{
	struct flat_subnet_pool p = pool("10.244.0.0/16", 24);
	struct flat_prefix got, taken[] = { cidr("0.0.0.0/0"), cidr("10.0.0.0/8"),
					    cidr("192.168.0.0/24"), cidr("::/0") };
	(void)state;
	assert_int_equal(choose(&p, taken, 4, 0, &got, NULL), 0);
	assert_cidr(&got, "10.244.0.0/24");
}

static void a_full_pool_is_told_with_counts(void **state)
{
	struct flat_subnet_pool p = pool("10.244.0.0/22", 24);
	struct flat_prefix got, taken[] = { cidr("10.244.0.0/24"), cidr("10.244.1.0/24"),
					    cidr("10.244.2.0/23"), cidr("10.244.2.0/24") };
	struct flat_err err = { 0 };
	(void)state;
	assert_true(choose(&p, taken, 4, 2, &got, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_EXHAUSTED);
	assert_non_null(strstr(err.msg, "4 of the 4 /24 to hand out of 10.244.0.0/22"));
	assert_int_equal(choose(&p, taken, 2, 0, &got, &err), 0);
	assert_cidr(&got, "10.244.2.0/24");
}

static void bounds_are_kept(void **state)
{
	struct flat_subnet_pool p = pool("10.244.0.0/16", 24);
	struct flat_prefix got, taken[] = { cidr("10.244.10.0/24"), cidr("10.244.9.0/24") };
	struct flat_err err = { 0 };
	(void)state;
	p.min = ip("10.244.10.0");
	p.max = ip("10.244.12.0");
	for (uint64_t start = 0; start < 9; start++) {
		assert_int_equal(choose(&p, taken, 2, start, &got, NULL), 0);
		assert_cidr(&got, start % 3 == 2 ? "10.244.12.0/24" : "10.244.11.0/24");
	}
	p.max = p.min;
	assert_true(choose(&p, taken, 2, 0, &got, &err) < 0);
	assert_non_null(strstr(err.msg, "1 of the 1 /24"));
	struct flat_prefix at[] = { cidr("10.244.10.0/24"), cidr("10.244.11.0/24"),
				    cidr("10.244.10.0/25"), cidr("10.244.10.1/24") };
	assert_true(flat_subnets_fits(&p, &at[0]));
	for (size_t i = 1; i < FLAT_LEN(at); i++)
		assert_false(flat_subnets_fits(&p, &at[i]));
}

static void both_families_have_one_number(void **state)
{
	struct flat_subnet_pool pools[] = { pool("10.244.0.0/16", 24), pool("fd00:10::/48", 64) };
	struct flat_prefix got[FLAT_FAMILIES],
		taken[] = { cidr("10.244.7.0/24"), cidr("fd00:10:0:8::/64") };
	(void)state;
	assert_int_equal(flat_subnets_choose(pools, nothing, taken, 2, 7, got, NULL), 0);
	assert_cidr(&got[FLAT_V4], "10.244.9.0/24");
	assert_cidr(&got[FLAT_V6], "fd00:10:0:9::/64");
	/* the smaller pool bounds both */
	pools[FLAT_V6] = pool("fd00:10::/62", 64);
	assert_int_equal(flat_subnets_choose(pools, nothing, taken, 0, 6, got, NULL), 0);
	assert_cidr(&got[FLAT_V4], "10.244.2.0/24");
	assert_cidr(&got[FLAT_V6], "fd00:10:0:2::/64");
}

static void what_is_kept_is_completed(void **state)
{
	struct flat_subnet_pool pools[] = { pool("10.244.0.0/16", 24), pool("fd00:10::/48", 64) };
	struct flat_prefix got[FLAT_FAMILIES], keep[FLAT_FAMILIES] = { cidr("10.244.5.0/24") },
					       taken[] = { cidr("fd00:10:0:5::/64") };
	(void)state;
	assert_int_equal(flat_subnets_choose(pools, keep, taken, 0, 99, got, NULL), 0);
	assert_cidr(&got[FLAT_V4], "10.244.5.0/24");
	assert_cidr(&got[FLAT_V6], "fd00:10:0:5::/64");
	assert_int_equal(flat_subnets_choose(pools, keep, taken, 1, 99, got, NULL), 0);
	assert_cidr(&got[FLAT_V6], "fd00:10:0:6::/64");
	keep[FLAT_V6] = cidr("fd00:10:0:77::/64");
	assert_int_equal(flat_subnets_choose(pools, keep, taken, 1, 99, got, NULL), 0);
	assert_cidr(&got[FLAT_V6], "fd00:10:0:77::/64");
}

static void large_pools_of_ipv6_are_no_trouble(void **state)
{
	struct flat_subnet_pool pools[] = { { .len = 0 }, pool("fd00::/8", 120) };
	struct flat_prefix got[FLAT_FAMILIES], taken[] = { cidr("fd00::/120"), cidr("fd80::/9") };
	(void)state;
	assert_int_equal(flat_subnets_choose(pools, nothing, taken, 2, 0, got, NULL), 0);
	assert_int_equal(got[FLAT_V4].ip.family, 0);
	assert_cidr(&got[FLAT_V6], "fd00::100/120");
	assert_int_equal(flat_subnets_choose(pools, nothing, taken, 2, UINT64_MAX, got, NULL), 0);
	assert_int_equal(got[FLAT_V6].len, 120);
}

static void filling_up_hands_out_each_once(void **state)
{
	struct flat_subnet_pool p = pool("10.244.0.0/19", 24);
	struct flat_prefix taken[33];
	struct flat_err err = { 0 };
	(void)state;
	for (size_t n = 0; n < 32; n++) {
		assert_int_equal(choose(&p, taken, n, n * 0x9e3779b97f4a7c15, &taken[n], NULL), 0);
		for (size_t i = 0; i < n; i++)
			assert_false(flat_prefix_overlaps(&taken[i], &taken[n]));
		assert_true(flat_subnets_fits(&p, &taken[n]));
	}
	assert_true(choose(&p, taken, 32, 3, &taken[32], &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_EXHAUSTED);
}

static void pools_that_make_no_sense_are_refused(void **state)
{
	struct flat_subnet_pool good = pool("10.244.0.0/16", 24), bad[6];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		bad[i] = good;
	bad[0].len = 15;
	bad[1].len = 31;
	bad[2].min = ip("10.245.0.0");
	bad[3].max = ip("10.244.3.1");
	bad[4].min = ip("10.244.9.0");
	bad[4].max = ip("10.244.8.0");
	bad[5].min = ip("fd00::");
	assert_int_equal(flat_subnets_check(&good, NULL), 0);
	assert_int_equal(flat_subnets_check(&(struct flat_subnet_pool){ 0 }, NULL), 0);
	for (size_t i = 0; i < FLAT_LEN(bad); i++) {
		struct flat_err err = { 0 };
		assert_true(flat_subnets_check(&bad[i], &err) < 0);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_free_from_the_start_is_chosen),
		cmocka_unit_test(subnets_of_other_lengths_take_what_they_cover),
		cmocka_unit_test(what_is_not_inside_takes_nothing),
		cmocka_unit_test(a_full_pool_is_told_with_counts),
		cmocka_unit_test(bounds_are_kept),
		cmocka_unit_test(both_families_have_one_number),
		cmocka_unit_test(what_is_kept_is_completed),
		cmocka_unit_test(large_pools_of_ipv6_are_no_trouble),
		cmocka_unit_test(filling_up_hands_out_each_once),
		cmocka_unit_test(pools_that_make_no_sense_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
