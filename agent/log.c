// SPDX-License-Identifier: Apache-2.0
/*
 * A line is put together in a buffer of fixed size and written by one write(2), so that lines of
 * several writers do not mix. A value that does not fit is cut and says so by "..."; whatever
 * happens, the line stays what it is: words of key=value, or one JSON object.
 */
#include "log.h"

#include <flatnet/cni.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	LINE_MAX_BYTES = 2048,
	LINE_END = 8,	/* kept for ..."}\n */
	VALUE_MIN = 16, /* a pair is not begun with less room than this for its value */
};

static struct {
	enum flat_level level;
	enum flat_log_format format;
} setup = { FLAT_LEVEL_INFO, FLAT_LOG_KEYS };

struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
	bool cut; /* nothing can follow */
};

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void flat_log_setup(enum flat_level level, enum flat_log_format format)
{
	setup.level = level;
	setup.format = format;
}

/* ---- putting a line together -------------------------------------------------------------------
 */

static bool fits(const struct line *line, size_t len)
{
	return line->len + len + LINE_END <= sizeof line->text;
}

static void put(struct line *line, const char *text, size_t len)
{
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

/* What one character becomes within quotes; returns how many bytes it was. */
static size_t escape(const char *text, size_t len, char ret_escaped[static 8])
{
	const size_t n = flat_utf8_char(text, len);
	const unsigned char c = (unsigned char)*text;
	if (!n) {
		strcpy(ret_escaped, "\\ufffd");
		return 1;
	}
	if (c == '"' || c == '\\') {
		ret_escaped[0] = '\\';
		ret_escaped[1] = (char)c;
		ret_escaped[2] = '\0';
	} else if (c == '\n' || c == '\t' || c == '\r') {
		strcpy(ret_escaped, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
	} else if (c < ' ' || c == 0x7f) {
		snprintf(ret_escaped, 8, "\\u%04x", c);
	} else if (c == 0xc2 && (unsigned char)text[1] < 0xa0) { /* C1: U+0080..U+009F */
		snprintf(ret_escaped, 8, "\\u%04x", (unsigned char)text[1]);
	} else {
		memcpy(ret_escaped, text, n);
		ret_escaped[n] = '\0';
	}
	return n;
}

static void put_quoted(struct line *line, const char *text)
{
	size_t len = strlen(text);
	put(line, "\"", 1);
	while (len) {
		char escaped[8];
		const size_t n = escape(text, len, escaped), size = strlen(escaped);
		if (!fits(line, size)) {
			put(line, "...", 3);
			line->cut = true;
			break;
		}
		put(line, escaped, size);
		text += n;
		len -= n;
	}
	put(line, "\"", 1);
}

/* May it stand without quotes? */
static bool is_plain(const char *text)
{
	if (!*text)
		return false;
	for (; *text; text++)
		if (*text <= ' ' || *text >= 0x7f || strchr("\"=\\", *text))
			return false;
	return true;
}

static void put_pair(struct line *line, const char *key, const char *value, bool quote)
{
	const bool json = setup.format == FLAT_LOG_JSON;
	if (line->cut)
		return;
	if (!fits(line, strlen(key) + VALUE_MIN)) {
		line->cut = true;
		return;
	}
	if (line->len > (json ? 1 : 0))
		put(line, json ? "," : " ", 1);
	if (json)
		put(line, "\"", 1);
	put(line, key, strlen(key));
	put(line, json ? "\":" : "=", json ? 2 : 1);
	if (!json && !quote && is_plain(value) && fits(line, strlen(value)))
		put(line, value, strlen(value));
	else
		put_quoted(line, value);
}

static void put_time(struct line *line)
{
	struct timespec now;
	struct tm tm;
	char text[48];
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	const size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1000000);
	put_pair(line, "ts", text, false);
}

/* There is nobody to tell that telling failed. */
static void write_line(const struct line *line)
{
	ssize_t n;
	do
		n = write(STDERR_FILENO, line->text, line->len);
	while (n < 0 && errno == EINTR);
}

static void say(enum flat_level level, const char *msg, va_list ap)
{
	struct line line = { .len = 0 };
	if (level > setup.level)
		return;
	const bool json = setup.format == FLAT_LOG_JSON;
	if (json)
		put(&line, "{", 1);
	put_time(&line);
	put_pair(&line, "level", level_names[level], false);
	put_pair(&line, "msg", msg, true);
	for (const char *key; (key = va_arg(ap, const char *));) {
		const char *value = va_arg(ap, const char *);
		if (value)
			put_pair(&line, key, value, false);
	}
	if (json)
		put(&line, "}", 1);
	put(&line, "\n", 1);
	write_line(&line);
}

/* ---- what is said ------------------------------------------------------------------------------
 */

void flat_say(enum flat_level level, const char *msg, ...)
{
	va_list ap;
	va_start(ap, msg);
	say(level, msg, ap);
	va_end(ap);
}

void flat_say_error(enum flat_level level, const char *msg, const struct flat_err *err)
{
	flat_say(level, msg, "error", err->msg, "cure", err->details[0] ? err->details : NULL,
		 NULL);
}

void flat_remark(struct flat_remark *remark, enum flat_level level, const char *msg,
		 const char *text)
{
	uint64_t hash = flat_hash(flat_hash(0, msg, strlen(msg)), text, strlen(text));
	hash += !hash;
	if (remark->said == hash)
		return;
	remark->said = hash;
	flat_say(level, msg, "reason", text, NULL);
}

void flat_remark_end(struct flat_remark *remark, const char *msg)
{
	if (!remark->said)
		return;
	remark->said = 0;
	flat_say(FLAT_LEVEL_INFO, msg, NULL);
}

static void say_warning(void *arg, const char *text)
{
	(void)arg;
	flat_say(FLAT_LEVEL_WARN, text, NULL);
}

const struct flat_log flat_agent_log = { .say = say_warning };
