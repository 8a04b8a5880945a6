/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of lib/net share: fresh namespaces for each, and eyes that are not ours. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <flatnet/net.h>

struct scene {
	int home, node, pod; /* namespaces; node is the one that the test is in */
	struct flat_net *net;
	struct flat_err err;
};
int setup(void **state);
int teardown(void **state);
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

/* What a command says, errors too; bounded, in a static buffer. */
const char *look(const char *fmt, ...) FLAT_PRINTF(1, 2);
size_t count_text(const char *text, const char *part);

void has_text(const char *text, const char *part, int line);
void lacks_text(const char *text, const char *part, int line);
void is_ok(const struct scene *s, int r, int line);
#define HAS(text, part)	  has_text(text, part, __LINE__)
#define LACKS(text, part) lacks_text(text, part, __LINE__)
#define OK(s, call)	  is_ok(s, call, __LINE__)

struct flat_prefix prefix(const char *text);
struct flat_ip ip(const char *text);
int index_of(struct scene *s, const char *name);
