/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: base64 of RFC 4648 section 4, as etcd's gateway writes keys and values. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define FLAT_BASE64_SIZE(len) (((len) + 2) / 3 * 4 + 1) /* the text of len bytes, and its NUL */

/* ret_text has FLAT_BASE64_SIZE(len) bytes; returns the text's length. */
size_t flat_base64_encode(const void *data, size_t len, char *ret_text);
/* Strict: no white space, all the padding, no bit that is lost. Writes at most text_len / 4 * 3
 * bytes to buf, which may be the text itself. False: it is not base64; buf is then undefined. */
bool flat_base64_decode(const char *text, size_t text_len, void *buf, size_t *ret_len);
