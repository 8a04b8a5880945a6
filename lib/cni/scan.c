// SPDX-License-Identifier: Apache-2.0
/*
 * The JSON library is lenient in ways that matter here: it takes a control character for white
 * space, "\uzzzz" for a NUL (which then cuts the string), bytes that are not UTF-8, numbers like
 * 01; and it recurses, and makes a node of 64 bytes of each value. So the text is checked against
 * the grammar of RFC 8259 and against our bounds first, in one pass without recursion: one bit for
 * each level of nesting tells an object from an array. What passes, the library reads faithfully.
 */
#include "private.h"

#include <string.h>

enum {
	MAX_NUMBER = 63,     /* bytes: what cJSON's buffer holds */
	MAX_VALUES = 200000, /* a configuration has some hundred */
};

enum expect {
	VALUE,
	VALUE_OR_END, /* after '[' */
	KEY,	      /* after ',' in an object */
	KEY_OR_END,   /* after '{' */
	COLON,
	COMMA_OR_END,
	NOTHING, /* the text is complete */
};

struct scan {
	const char *start, *at, *end;
	uint64_t objects; /* bit n: level n is an object */
	unsigned depth;
	unsigned values;
	struct flat_err *err;
};

static int fault(const struct scan *s, const char *what)
{
	size_t line = 1, column = 1;
	for (const char *p = s->start; p < s->at; p++) {
		column++;
		if (*p == '\n') {
			line++;
			column = 1;
		}
	}
	return flat_fail(s->err, FLAT_CODE_DECODE, 0, "not valid JSON: line %zu, column %zu: %s",
			 line, column, what);
}

static bool at(const struct scan *s, char c)
{
	return s->at < s->end && *s->at == c;
}

static size_t skip_digits(struct scan *s)
{
	const char *from = s->at;
	while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
		s->at++;
	return (size_t)(s->at - from);
}

static int scan_number(struct scan *s)
{
	const char *from = s->at;
	if (at(s, '-'))
		s->at++;
	if (at(s, '0'))
		s->at++;
	else if (!skip_digits(s))
		return fault(s, "a digit is missing");
	if (at(s, '.')) {
		s->at++;
		if (!skip_digits(s))
			return fault(s, "a digit is missing");
	}
	if (at(s, 'e') || at(s, 'E')) {
		s->at++;
		if (at(s, '+') || at(s, '-'))
			s->at++;
		if (!skip_digits(s))
			return fault(s, "a digit is missing");
	}
	if (s->at - from > MAX_NUMBER)
		return fault(s, "a number of more than 63 characters");
	return 0;
}

/* The four digits of \uXXXX; negative when they are not. */
static int scan_hex4(struct scan *s)
{
	int value = 0;
	for (int i = 0; i < 4; i++) {
		int digit = s->at < s->end ? flat_hex_digit(*s->at) : -1;
		if (digit < 0)
			return -1;
		value = value << 4 | digit;
		s->at++;
	}
	return value;
}

static int scan_escape(struct scan *s)
{
	s->at++; /* the backslash */
	if (s->at == s->end)
		return fault(s, "the text ends inside a string");
	if (*s->at != 'u') {
		if (!*s->at || !strchr("\"\\/bfnrt", *s->at))
			return fault(s, "an unknown escape sequence");
		s->at++;
		return 0;
	}
	s->at++;
	int unit = scan_hex4(s);
	if (unit < 0)
		return fault(s, "\\u without four hexadecimal digits");
	if (unit == 0)
		return fault(s, "the character \\u0000 is not allowed");
	if (unit >= 0xdc00 && unit <= 0xdfff)
		return fault(s, "half a surrogate pair");
	if (unit >= 0xd800 && unit <= 0xdbff) {
		if (!at(s, '\\') || s->end - s->at < 2 || s->at[1] != 'u')
			return fault(s, "half a surrogate pair");
		s->at += 2;
		unit = scan_hex4(s);
		if (unit < 0xdc00 || unit > 0xdfff)
			return fault(s, "half a surrogate pair");
	}
	return 0;
}

static int scan_string(struct scan *s)
{
	s->at++; /* the opening quote */
	while (s->at < s->end && *s->at != '"') {
		if (*s->at == '\\') {
			int r = scan_escape(s);
			if (r < 0)
				return r;
			continue;
		}
		if ((unsigned char)*s->at < ' ')
			return fault(s, "a control character inside a string");
		size_t n = flat_utf8_char(s->at, (size_t)(s->end - s->at));
		if (!n)
			return fault(s, "bytes that are not UTF-8");
		s->at += n;
	}
	if (s->at == s->end)
		return fault(s, "the text ends inside a string");
	s->at++;
	return 0;
}

static int scan_word(struct scan *s)
{
	static const char *const words[] = { "true", "false", "null" };
	for (size_t i = 0; i < FLAT_LEN(words); i++) {
		size_t n = strlen(words[i]);
		if ((size_t)(s->end - s->at) >= n && !memcmp(s->at, words[i], n)) {
			s->at += n;
			return 0;
		}
	}
	return fault(s, "a value is expected");
}

static enum expect after_value(const struct scan *s)
{
	return s->depth ? COMMA_OR_END : NOTHING;
}

static bool in_object(const struct scan *s)
{
	return s->depth && (s->objects >> (s->depth - 1) & 1);
}

static int scan_open(struct scan *s, enum expect *ret_next)
{
	bool object = *s->at == '{';
	if (s->depth == FLAT_JSON_MAX_DEPTH)
		return fault(s, "nested more than 64 levels deep");
	uint64_t bit = (uint64_t)1 << s->depth++;
	s->objects = object ? s->objects | bit : s->objects & ~bit;
	s->at++;
	*ret_next = object ? KEY_OR_END : VALUE_OR_END;
	return 0;
}

static int scan_value(struct scan *s, enum expect *ret_next)
{
	if (++s->values > MAX_VALUES)
		return fault(s, "more than 200000 values");
	if (*s->at == '{' || *s->at == '[')
		return scan_open(s, ret_next);
	*ret_next = after_value(s);
	if (*s->at == '"')
		return scan_string(s);
	if (*s->at == '-' || (*s->at >= '0' && *s->at <= '9'))
		return scan_number(s);
	return scan_word(s);
}

static int scan_close(struct scan *s, enum expect *ret_next)
{
	s->at++;
	s->depth--;
	*ret_next = after_value(s);
	return 0;
}

/* One step: what stands at s->at, where there is something that is not white space. */
static int scan_token(struct scan *s, enum expect *next)
{
	char c = *s->at;
	switch (*next) {
	case VALUE_OR_END:
		if (c == ']')
			return scan_close(s, next);
		return scan_value(s, next);
	case VALUE:
		return scan_value(s, next);
	case KEY_OR_END:
		if (c == '}')
			return scan_close(s, next);
		/* fall through */
	case KEY:
		if (c != '"')
			return fault(s, "a key in double quotes is expected");
		*next = COLON;
		return scan_string(s);
	case COLON:
		if (c != ':')
			return fault(s, "a colon is expected after a key");
		s->at++;
		*next = VALUE;
		return 0;
	case COMMA_OR_END:
		if (c == (in_object(s) ? '}' : ']'))
			return scan_close(s, next);
		if (c != ',')
			return fault(s, in_object(s) ? "a comma or '}' is expected"
						     : "a comma or ']' is expected");
		s->at++;
		*next = in_object(s) ? KEY : VALUE;
		return 0;
	case NOTHING:
		break;
	}
	return fault(s, "text after the end of the JSON value");
}

bool flat_json_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

int flat_json_scan(const char *text, size_t len, struct flat_err *err)
{
	struct scan s = { .start = text, .at = text, .end = text + len, .err = err };
	enum expect next = VALUE;
	if (len > FLAT_JSON_MAX_SIZE)
		return flat_fail(err, FLAT_CODE_DECODE, 0,
				 "%zu bytes of JSON are more than the %d allowed", len,
				 FLAT_JSON_MAX_SIZE);
	for (;;) {
		while (s.at < s.end && flat_json_is_space(*s.at))
			s.at++;
		if (s.at == s.end)
			break;
		int r = scan_token(&s, &next);
		if (r < 0)
			return r;
	}
	if (next != NOTHING)
		return s.values ? fault(&s, "the text ends too early")
				: flat_fail(err, FLAT_CODE_DECODE, 0, "not valid JSON: no text");
	return 0;
}
