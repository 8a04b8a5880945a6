// SPDX-License-Identifier: Apache-2.0
#include <flatnet/base.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static struct flat_ip ip(const char *text)
{
	struct flat_ip parsed = { 0 };
	assert_true(flat_ip_parse(text, &parsed));
	return parsed;
}

static struct flat_prefix prefix(const char *text)
{
	struct flat_prefix parsed = { 0 };
	assert_true(flat_prefix_parse(text, &parsed));
	return parsed;
}

static void assert_ip(struct flat_ip got, const char *want)
{
	char text[FLAT_IP_TEXT];
	assert_string_equal(flat_ip_text(&got, text), want);
}

static void addresses_are_read_strictly(void **state)
{
	static const char *const bad[] = { "",		"1",	       "10.0.0",
					   "010.0.0.1", "10.0.0.256",  " 10.0.0.1",
					   "10.0.0.1 ", "10.0.0.1/24", "fe80::1%eth0",
					   "1:2",	"::g",	       "10.0.0.-1" };
	struct flat_ip parsed = { .family = 77 };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		assert_false(flat_ip_parse(bad[i], &parsed));
	assert_int_equal(parsed.family, 77); /* untouched */
	assert_ip(ip("10.244.1.23"), "10.244.1.23");
	assert_ip(ip("FD00:0:0::0A"), "fd00::a");
	assert_ip(ip("::ffff:10.1.2.3"), "10.1.2.3");
	assert_int_equal(ip("::ffff:10.1.2.3").family, AF_INET);
}

static void prefixes_are_read_strictly(void **state)
{
	static const char *const bad[] = { "",
					   "10.0.0.0",
					   "10.0.0.0/",
					   "10.0.0.0/33",
					   "10.0.0.0/08",
					   "10.0.0.0/+8",
					   "10.0.0.0/8 ",
					   "/8",
					   "fd00::/129",
					   "::ffff:10.0.0.0/104" };
	struct flat_prefix parsed;
	char text[FLAT_PREFIX_TEXT];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		assert_false(flat_prefix_parse(bad[i], &parsed));
	parsed = prefix("10.244.1.23/24");
	assert_string_equal(flat_prefix_text(&parsed, text), "10.244.1.23/24");
	assert_ip(flat_prefix_first(&parsed), "10.244.1.0");
	assert_ip(flat_prefix_last(&parsed), "10.244.1.255");
	parsed = prefix("fd00:10:244::5/62");
	assert_ip(flat_prefix_first(&parsed), "fd00:10:244::");
	assert_ip(flat_prefix_last(&parsed), "fd00:10:244:3:ffff:ffff:ffff:ffff");
	parsed = prefix("10.0.0.1/0");
	assert_ip(flat_prefix_first(&parsed), "0.0.0.0");
	assert_ip(flat_prefix_last(&parsed), "255.255.255.255");
}

static void macs_are_read_strictly(void **state)
{
	static const char *const bad[] = { "",
					   "0a:58:0a:f4:01",
					   "0a:58:0a:f4:01:17:00",
					   "0a:58:0a:f4:01:1",
					   "0a:58-0a:f4:01:17",
					   "0a580af40117",
					   "ga:58:0a:f4:01:17",
					   "0a:58:0a:f4:01:17 " };
	struct flat_mac mac;
	char text[FLAT_MAC_TEXT];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		assert_false(flat_mac_parse(bad[i], &mac));
	assert_true(flat_mac_parse("0A-58-0a-F4-01-17", &mac));
	assert_string_equal(flat_mac_text(&mac, text), "0a:58:0a:f4:01:17");
}

static void addresses_count_up_and_down(void **state)
{
	struct flat_ip a = ip("10.0.0.255"), b = ip("10.0.1.0");
	(void)state;
	assert_ip(flat_ip_next(&a), "10.0.1.0");
	assert_ip(flat_ip_prev(&b), "10.0.0.255");
	assert_true(flat_ip_compare(&a, &b) < 0);
	a = ip("255.255.255.255");
	assert_ip(flat_ip_next(&a), "0.0.0.0");
	a = ip("fd00::ffff:ffff");
	assert_ip(flat_ip_next(&a), "fd00::1:0:0");
	assert_true(flat_ip_compare(&b, &a) < 0); /* family first */
	assert_false(flat_ip_equal(&a, &b));
}

static void prefixes_contain_and_overlap(void **state)
{
	struct flat_prefix wide = prefix("10.244.0.0/16"), narrow = prefix("10.244.7.0/24");
	struct flat_prefix other = prefix("10.245.0.0/16"), six = prefix("::/0");
	struct flat_ip inside = ip("10.244.255.255"), outside = ip("10.245.0.0");
	(void)state;
	assert_true(flat_prefix_contains(&wide, &inside));
	assert_false(flat_prefix_contains(&wide, &outside));
	assert_false(flat_prefix_contains(&six, &inside));
	assert_true(flat_prefix_overlaps(&wide, &narrow));
	assert_true(flat_prefix_overlaps(&narrow, &wide));
	assert_false(flat_prefix_overlaps(&wide, &other));
	assert_false(flat_prefix_equal(&wide, &narrow));
}

/* Interface names on running nodes derive from the hash: these values never change. */
static void hash_is_what_it_always_was(void **state)
{
	(void)state;
	assert_true(flat_hash(0, "", 0) == 0xf52a15e9a9b5e89bu);
	assert_true(flat_hash(0, "flatnet", 7) == 0x341f421c53d2a6d3u);
	assert_true(flat_hash(1, "flatnet", 7) == 0x00ebd8246073a42du);
	assert_true(flat_hash(flat_hash(0, "ab", 2), "c", 1) !=
		    flat_hash(flat_hash(0, "a", 1), "bc", 2));
}

static void numbers_are_read_strictly(void **state)
{
	static const char *const bad[] = { "",	 "01",	"+1",  "-1",  " 1",
					   "1 ", "256", "0x1", "1e1", "99999999999999999999999" };
	uint64_t value = 5;
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++)
		assert_false(flat_uint_parse(bad[i], 255, &value));
	assert_int_equal(value, 5);
	assert_true(flat_uint_parse("255", 255, &value));
	assert_int_equal(value, 255);
	assert_true(flat_uint_parse("18446744073709551615", UINT64_MAX, &value));
	assert_true(value == UINT64_MAX);
	assert_false(flat_uint_parse("18446744073709551616", UINT64_MAX, &value));
}

static void errors_keep_the_first_and_gain_context(void **state)
{
	struct flat_err err = { 0 };
	(void)state;
	assert_int_equal(flat_wrap(&err, "nothing to wrap"), -EINVAL);
	assert_string_equal(err.msg, "");
	assert_int_equal(flat_fail(&err, FLAT_CODE_NETWORK, EEXIST, "add veth '%s'", "v"), -EEXIST);
	assert_int_equal(flat_fail(&err, FLAT_CODE_IO, EIO, "later"), -EIO);
	assert_int_equal(flat_wrap(&err, "bridge '%s'", "cni0"), -EEXIST);
	assert_int_equal(flat_detail(&err, "first"), -EEXIST);
	flat_detail(&err, "second");
	assert_int_equal(err.code, FLAT_CODE_NETWORK);
	assert_string_equal(err.msg, "bridge 'cni0': add veth 'v': File exists");
	assert_string_equal(err.details, "first");
	assert_int_equal(flat_fail(NULL, FLAT_CODE_IO, 0, "nobody listens"), -EINVAL);
}

static void errors_fit_their_buffers(void **state)
{
	struct flat_err err = { 0 };
	char large[2000];
	(void)state;
	memset(large, 'x', sizeof large - 1);
	large[sizeof large - 1] = '\0';
	flat_fail(&err, FLAT_CODE_IO, EIO, "%s", large);
	flat_detail(&err, "%s", large);
	for (int i = 0; i < 100; i++)
		flat_wrap(&err, "context %d", i);
	flat_wrap(&err, "%s", large);
	assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
	assert_int_equal(strlen(err.details), sizeof err.details - 1);
}

static void arena_gives_zeroed_aligned_memory(void **state)
{
	struct flat_arena arena = { 0 };
	char *pieces[300];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(pieces); i++) {
		size_t size = i * 37;
		pieces[i] = flat_arena_alloc(&arena, size);
		assert_non_null(pieces[i]);
		assert_int_equal((uintptr_t)pieces[i] % _Alignof(max_align_t), 0);
		for (size_t k = 0; k < size; k++)
			assert_int_equal(pieces[i][k], 0);
		memset(pieces[i], (int)i, size);
	}
	for (size_t i = 1; i < FLAT_LEN(pieces); i++)
		assert_int_equal((unsigned char)pieces[i][i * 37 - 1], i & 0xff);
	assert_string_equal(flat_arena_strdup(&arena, "pod"), "pod");
	assert_null(flat_arena_alloc(&arena, SIZE_MAX));
	flat_arena_free(&arena);
	flat_arena_free(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_read_strictly),
		cmocka_unit_test(prefixes_are_read_strictly),
		cmocka_unit_test(macs_are_read_strictly),
		cmocka_unit_test(addresses_count_up_and_down),
		cmocka_unit_test(prefixes_contain_and_overlap),
		cmocka_unit_test(hash_is_what_it_always_was),
		cmocka_unit_test(numbers_are_read_strictly),
		cmocka_unit_test(errors_keep_the_first_and_gain_context),
		cmocka_unit_test(errors_fit_their_buffers),
		cmocka_unit_test(arena_gives_zeroed_aligned_memory),
	};
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
