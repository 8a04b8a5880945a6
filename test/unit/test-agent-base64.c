// SPDX-License-Identifier: Apache-2.0
#include "../../agent/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* RFC 4648 section 10. */
static const struct {
	const char *plain, *coded;
} vectors[] = {
	{ "", "" },
	{ "f", "Zg==" },
	{ "fo", "Zm8=" },
	{ "foo", "Zm9v" },
	{ "foob", "Zm9vYg==" },
	{ "fooba", "Zm9vYmE=" },
	{ "foobar", "Zm9vYmFy" },
};

static void texts_of_the_rfc(void **state)
{
	char buf[64];
	size_t len = 0;
	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
		const char *plain = vectors[i].plain, *coded = vectors[i].coded;
		assert_int_equal(flat_base64_encode(plain, strlen(plain), buf), strlen(coded));
		assert_string_equal(buf, coded);
		assert_true(flat_base64_decode(coded, strlen(coded), buf, &len));
		assert_int_equal(len, strlen(plain));
		assert_memory_equal(buf, plain, len);
	}
}

static void all_bytes_and_lengths_come_back(void **state)
{
	uint8_t bytes[256], back[256];
	char text[FLAT_BASE64_SIZE(sizeof bytes)];
	(void)state;
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(255 - i);
	for (size_t len = 0; len <= sizeof bytes; len++) {
		size_t got = 0, text_len = flat_base64_encode(bytes, len, text);
		assert_int_equal(text_len + 1, FLAT_BASE64_SIZE(len));
		assert_true(flat_base64_decode(text, text_len, back, &got));
		assert_int_equal(got, len);
		assert_memory_equal(back, bytes, len);
		assert_true(flat_base64_decode(text, text_len, text, &got)); /* in place */
		assert_memory_equal(text, bytes, len);
	}
}

static void what_is_not_base64_is_refused(void **state)
{
	static const char *const bad[] = { "Z",	      "Zg",	 "Zg=",	     "Zm9",   "====",
					   "Z===",    "=g==",	 "Zh==",     "Zm9=",  "Zm9v\n",
					   " Zm9v",   "Zm 9",	 "Zg==Zm9v", "Zm9v=", "Zm-_",
					   "Zm9\x80", "Zm9v====" };
	char buf[64];
	size_t len = 77;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(flat_base64_decode(bad[i], strlen(bad[i]), buf, &len));
	assert_false(flat_base64_decode("Zm\0v", 4, buf, &len));
	assert_int_equal(len, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_of_the_rfc),
		cmocka_unit_test(all_bytes_and_lengths_come_back),
		cmocka_unit_test(what_is_not_base64_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
