// SPDX-License-Identifier: Apache-2.0
#include "base64.h"

#include <stdint.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t flat_base64_encode(const void *data, size_t len, char *ret_text)
{
	const uint8_t *in = data;
	char *out = ret_text;
	for (; len >= 3; len -= 3, in += 3) {
		uint32_t bits = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
		for (int shift = 18; shift >= 0; shift -= 6)
			*out++ = digits[bits >> shift & 63];
	}
	if (len) {
		uint32_t bits = (uint32_t)in[0] << 16 | (len > 1 ? (uint32_t)in[1] << 8 : 0);
		*out++ = digits[bits >> 18 & 63];
		*out++ = digits[bits >> 12 & 63];
		*out++ = len > 1 ? digits[bits >> 6 & 63] : '=';
		*out++ = '=';
	}
	*out = '\0';
	return (size_t)(out - ret_text);
}

/* 0..63; -1: not a digit. */
static int value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool flat_base64_decode(const char *text, size_t text_len, void *buf, size_t *ret_len)
{
	uint8_t *out = buf;
	if (text_len % 4)
		return false;
	for (size_t i = 0; i < text_len; i += 4) {
		size_t pad = i + 4 < text_len	  ? 0
			     : text[i + 3] != '=' ? 0
			     : text[i + 2] != '=' ? 1
						  : 2;
		uint32_t bits = 0;
		for (size_t k = 0; k < 4; k++) {
			int v = k < 4 - pad ? value(text[i + k]) : 0;
			if (v < 0)
				return false;
			bits = bits << 6 | (uint32_t)v;
		}
		if (pad && bits & (pad == 1 ? 0xffU : 0xffffU))
			return false;
		*out++ = (uint8_t)(bits >> 16);
		if (pad < 2)
			*out++ = (uint8_t)(bits >> 8);
		if (!pad)
			*out++ = (uint8_t)bits;
	}
	*ret_len = (size_t)(out - (uint8_t *)buf);
	return true;
}
