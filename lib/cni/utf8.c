// SPDX-License-Identifier: Apache-2.0
#include "private.h"

#include <stdlib.h>
#include <string.h>

static bool is_between(char c, unsigned low, unsigned high)
{
	return (unsigned char)c >= low && (unsigned char)c <= high;
}

size_t flat_utf8_char(const char *text, size_t len)
{
	/* RFC 3629, section 4: what the second byte may be depends on the first */
	static const struct {
		unsigned char first_low, first_high, second_low, second_high, size;
	} forms[] = {
		{ 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	for (size_t i = 0; len && i < FLAT_LEN(forms); i++) {
		if (!is_between(text[0], forms[i].first_low, forms[i].first_high))
			continue;
		size_t size = forms[i].size;
		if (size > len)
			return 0;
		if (size > 1 && !is_between(text[1], forms[i].second_low, forms[i].second_high))
			return 0;
		for (size_t k = 2; k < size; k++)
			if (!is_between(text[k], 0x80, 0xbf))
				return 0;
		return size;
	}
	return 0;
}

bool flat_utf8_is_valid(const char *text, size_t len)
{
	while (len) {
		size_t n = flat_utf8_char(text, len);
		if (!n)
			return false;
		text += n;
		len -= n;
	}
	return true;
}

/* Is the rest of the text the beginning of a longer character? */
static bool is_cut(const char *text, size_t len)
{
	static const char tails[][3] = { "\x80\x80", "\x90\x80", "\xa0\x80" };
	if (len > 3 || !is_between(text[0], 0xc2, 0xf4))
		return false;
	for (size_t i = 0; i < FLAT_LEN(tails); i++) {
		char whole[6];
		memcpy(whole, text, len);
		memcpy(whole + len, tails[i], 2);
		whole[len + 2] = '\x80';
		size_t n = flat_utf8_char(whole, len + 3);
		if (n > len)
			return true;
	}
	return false;
}

char *flat_utf8_clean(const char *text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	size_t len = strlen(text), used = 0;
	char *copy = malloc(3 * len + 1);
	if (!copy)
		return NULL;
	while (len) {
		size_t n = flat_utf8_char(text, len);
		if (n) {
			memcpy(copy + used, text, n);
			used += n;
		} else if (is_cut(text, len)) {
			break;
		} else {
			memcpy(copy + used, replacement, 3);
			used += 3;
			n = 1;
		}
		text += n;
		len -= n;
	}
	copy[used] = '\0';
	return copy;
}

const char *flat_quote(const char *text, char *buf, size_t size)
{
	static const char end[] = "...\"";
	size_t used = 0, len = strlen(text);
	buf[used++] = '"';
	while (len) {
		size_t n = flat_utf8_char(text, len);
		/* there is always room left to tell that it was cut */
		if (used + (n ? n : 1) + sizeof end > size) {
			memcpy(buf + used, end, sizeof end);
			return buf;
		}
		if (n > 1 || (n == 1 && (unsigned char)*text >= ' ' && *text != 0x7f)) {
			memcpy(buf + used, text, n);
			used += n;
		} else {
			buf[used++] = '?';
			n = 1;
		}
		text += n;
		len -= n;
	}
	memcpy(buf + used, "\"", 2);
	return buf;
}
