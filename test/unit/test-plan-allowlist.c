// SPDX-License-Identifier: Apache-2.0
/* The list of allowed sysctls: what a line of Go's syntax lets in, and what is refused for want of
 * a translation. */
#include "../../lib/plan/plan-internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_translate(void **state)
{
	static const struct {
		const char *go, *posix; /* NULL: refused */
	} cases[] = {
		{ "^net\\.core\\..*$", "^net\\.core\\..*$" },
		{ "net.ipv4", "net.ipv4" },
		{ "ipv\\d\\D", "ipv[0-9][^0-9]" },
		{ "\\w+\\W", "[0-9A-Za-z_]+[^0-9A-Za-z_]" },
		{ "\\s\\S", "[\t\n\f\r ][^\t\n\f\r ]" },
		{ "net\\/ipv4\\_x", "net/ipv4_x" },
		{ "(?:a|b)+", "(a|b)+" },
		{ "a+?b??c{2}?", "a+b?c{2}" },
		{ "[\\w.\\/-]+", "[0-9A-Za-z_./-]+" },
		{ "[^]\\d]", "[^]0-9]" },
		{ "[[:alpha:]_]", "[[:alpha:]_]" },
		/* with another meaning there, or none */
		{ "\\bnet", NULL },
		{ "\\pL", NULL },
		{ "\\Qnet.\\E", NULL },
		{ "(a)\\1", NULL },
		{ "net\\", NULL },
		{ "(?i)net", NULL },
		{ "(?P<x>net)", NULL },
		{ "a**", NULL },
		{ "a+?*", NULL },
		{ "[\\D]", NULL },
		{ "[a\\]]", NULL },
		{ "[a\\-z]", NULL },
		{ "[[=a=]]", NULL },
		{ "[[:alpha]", NULL },
		{ "[a", NULL },
		{ "[a\\", NULL },
		{ "[", NULL },
	};
	char posix[256];
	regex_t regex;
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		const bool r = flat_allowlist_translate(cases[i].go, posix, sizeof posix);
		if (r != (cases[i].posix != NULL))
			fail_msg("'%s' is %s", cases[i].go, r ? posix : "refused");
		if (!r)
			continue;
		assert_string_equal(posix, cases[i].posix);
		assert_int_equal(regcomp(&regex, posix, REG_EXTENDED | REG_NOSUB), 0);
		regfree(&regex);
	}
	/* what does not fit is refused, not cut */
	assert_true(flat_allowlist_translate("abcd", posix, 5));
	assert_false(flat_allowlist_translate("abcde", posix, 5));
	assert_false(flat_allowlist_translate("a\\d", posix, 6));
}

static int check(const char *list, const char *key, struct flat_err *err)
{
	char file[] = "/tmp/flatnet-allowlist-XXXXXX";
	const struct flat_sysctl sysctl = { .list = "sysctl", .key = key };
	const int fd = mkstemp(file);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, list, strlen(list)), (ssize_t)strlen(list));
	close(fd);
	*err = (struct flat_err){ 0 };
	const int r = flat_allowlist_check(file, &sysctl, 1, err);
	unlink(file);
	return r;
}

static void test_check(void **state)
{
	struct flat_err err;
	const struct flat_sysctl sysctl = { .list = "sysctl", .key = "net.core.somaxconn" };
	(void)state;
	assert_int_equal(check("\n\t ^net\\.core\\.\\w+$ \r\n", "net.core.somaxconn", &err), 0);
	assert_int_equal(check("a\nb\nsomaxconn", "net.core.somaxconn", &err), 0);
	assert_true(check("^net\\.ipv4\\.", "net.core.somaxconn", &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_CONFIG);
	assert_non_null(strstr(err.msg, "sysctl[\"net.core.somaxconn\"]: no line of /tmp/"));
	assert_true(check("", "net.core.somaxconn", &err) < 0);
	/* also when an earlier line has let it in */
	assert_true(check("net\n\\x", "net.core.somaxconn", &err) < 0);
	assert_non_null(strstr(err.msg, "line 2: \"\\x\""));
	assert_true(check("net[", "net.core.somaxconn", &err) < 0);
	assert_non_null(strstr(err.msg, "line 1: \"net[\""));
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_allowlist_check("/nowhere/list", &sysctl, 1, &err), 0);
	assert_true(flat_allowlist_check("/tmp", &sysctl, 1, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_IO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_translate),
		cmocka_unit_test(test_check),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
