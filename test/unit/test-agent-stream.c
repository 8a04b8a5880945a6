// SPDX-License-Identifier: Apache-2.0
#include "../../agent/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROOT = 1, NAME, LIST, ELEMENT, MEMBER, NUMBER };

static const struct flat_pick member_picks[] = { { "x", MEMBER, NULL }, { 0 } };
static const struct flat_pick element_picks[] = { { "", ELEMENT, member_picks }, { 0 } };
static const struct flat_pick inner_picks[] = { { "name", NAME, NULL },
						{ "list", LIST, element_picks },
						{ 0 } };
static const struct flat_pick root_picks[] = { { "inner", 0, inner_picks },
					       { "n", NUMBER, NULL },
					       { 0 } };
static const struct flat_pick root = { NULL, ROOT, root_picks };

/* What was told, as text: "(1" begin, ")1" end, "2=text" value. */
struct heard {
	char text[16384];
	size_t len, value_len;
};

static void on_begin(void *arg, int id)
{
	struct heard *heard = arg;
	heard->len += (size_t)snprintf(heard->text + heard->len, sizeof heard->text - heard->len,
				       "(%d ", id);
}

static void on_end(void *arg, int id)
{
	struct heard *heard = arg;
	heard->len += (size_t)snprintf(heard->text + heard->len, sizeof heard->text - heard->len,
				       ")%d ", id);
}

static void on_value(void *arg, int id, const char *text, size_t len)
{
	struct heard *heard = arg;
	assert_int_equal(text[len], '\0');
	heard->value_len = len;
	heard->len += (size_t)snprintf(heard->text + heard->len, sizeof heard->text - heard->len,
				       "%d=%s ", id, text);
}

/* Reads text in pieces of size. */
static int read_pieces(const char *text, size_t len, size_t size, struct heard *heard,
		       struct flat_err *err)
{
	struct flat_stream_calls calls = { on_begin, on_end, on_value, heard };
	struct flat_stream *stream;
	memset(heard, 0, sizeof *heard);
	assert_int_equal(flat_stream_open(&root, &calls, &stream, err), 0);
	int r = 0;
	for (size_t i = 0; i < len && r >= 0; i += size) {
		/* a copy of its own: a read beyond it is seen by the sanitizer */
		size_t n = len - i < size ? len - i : size;
		char *piece = malloc(n);
		assert_non_null(piece);
		memcpy(piece, text + i, n);
		r = flat_stream_feed(stream, piece, n, err);
		free(piece);
	}
	if (r >= 0)
		r = flat_stream_end(stream, err);
	flat_stream_close(stream);
	return r;
}

static void expect(const char *text, const char *expected)
{
	static struct heard heard;
	for (size_t size = 1; size <= strlen(text); size++) {
		struct flat_err err = { 0 };
		if (read_pieces(text, strlen(text), size, &heard, &err) < 0)
			fail_msg("%s", err.msg);
		assert_string_equal(heard.text, expected);
	}
}

static void test_picks(void **state)
{
	(void)state;
	expect("{\"inner\":{\"name\":\"a\\u00e9\\\"b\",\"other\":{\"name\":\"no\",\"x\":[1,{\"list\":"
	       "[{\"x\":1}]}]},\"list\":[{\"x\":\"1\",\"y\":2},{\"x\":true},\"s\",[{\"x\":3}],null,"
	       "{}]},\"name\":\"no\",\"n\":-1.5e3}",
	       "(1 2=a\xc3\xa9\"b (3 (4 5=1 )4 (4 5=true )4 4=s (4 )4 4= (4 )4 )3 6=-1.5e3 )1 ");
	expect("{\"n\":1}\n{\"n\":2} {\"n\":3}", "(1 6=1 )1 (1 6=2 )1 (1 6=3 )1 ");
	expect("  {\"inner\":[{\"name\":1}],\"n\":[2],\"\":5} \n", "(1 (6 )6 )1 ");
}

static void test_refuses(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"{",	  "{\"n\":1", "{\"n\"}",  "[1,",	"{\"n\":tru}",
		"\"open", "{]",	      "nonsense", "{\"n\":1}x", "{\"n\":\"a\nb\"}",
	};
	static struct heard heard;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		for (size_t size = 1; size <= strlen(bad[i]); size++) {
			struct flat_err err = { 0 };
			if (read_pieces(bad[i], strlen(bad[i]), size, &heard, &err) >= 0)
				fail_msg("'%s' in pieces of %zu is taken", bad[i], size);
			assert_int_equal(err.code, FLAT_CODE_DECODE);
		}
	}
}

static void test_bounds(void **state)
{
	(void)state;
	static struct heard heard;
	struct flat_err err = { 0 };
	enum { HUGE = 3 * 1024 * 1024 };
	static char text[HUGE + 256];
	/* an endless string is cut, between characters; what follows is read */
	static const char *const units[] = { "a", "\\u00e9", "\\\\", "\xc3\xa9", "\\\"" };
	for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
		size_t len = (size_t)sprintf(text, "{\"inner\":{\"name\":\"");
		while (len < HUGE)
			len += (size_t)sprintf(text + len, "%s", units[u]);
		len += (size_t)sprintf(text + len, "\"},\"n\":7}");
		err = (struct flat_err){ 0 };
		if (read_pieces(text, len, 1000, &heard, &err) < 0)
			fail_msg("%s", err.msg);
		assert_non_null(strstr(heard.text, " 6=7 )1 "));
		char *value = strstr(heard.text, "2=") + 2;
		size_t value_len = strcspn(value, " ");
		assert_in_range(value_len, FLAT_STREAM_TEXT / 6, FLAT_STREAM_TEXT + 8);
		if (u == 1 || u == 3)
			assert_memory_equal(value + value_len - 2, "\xc3\xa9", 2);
	}
	/* a key likewise, and is no other */
	size_t len = (size_t)sprintf(text, "{\"n");
	memset(text + len, 'n', HUGE);
	len += HUGE;
	len += (size_t)sprintf(text + len, "\":1,\"n\":2}");
	assert_int_equal(read_pieces(text, len, 1000, &heard, &err), 0);
	assert_string_equal(heard.text, "(1 6=2 )1 ");
	len = (size_t)sprintf(text, "{\"n\":");
	memset(text + len, '1', HUGE);
	assert_true(read_pieces(text, HUGE, 1000, &heard, &err) < 0);
	assert_non_null(strstr(err.msg, "a number has more than"));
	memset(text, '[', HUGE);
	err = (struct flat_err){ 0 };
	assert_true(read_pieces(text, HUGE, 1000, &heard, &err) < 0);
	assert_non_null(strstr(err.msg, "nested too deeply"));
}

static void test_reads_at_once(void **state)
{
	(void)state;
	static struct heard heard;
	struct flat_stream_calls calls = { on_begin, on_end, on_value, &heard };
	struct flat_err err = { 0 };
	assert_int_equal(flat_stream_read(&root, &calls, "{\"n\":1}", 7, &err), 0);
	assert_string_equal(heard.text, "(1 6=1 )1 ");
	assert_true(flat_stream_read(&root, &calls, "{\"n\":1", 6, &err) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_picks),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_reads_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
