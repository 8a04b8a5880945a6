// SPDX-License-Identifier: Apache-2.0
/*
 * The parser is yajl. It holds a token that is not whole yet, however long it grows; so what comes
 * before it (pass()) lets through only the beginning of a string, and no endless number. Cutting
 * needs no more of JSON than where a string ends, and not to cut within an escape or a character.
 */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

enum { MAX_NUMBER = 64, ESCAPE = 8 /* after a backslash */ };

struct level {
	const struct flat_pick *picks; /* members that are picked; NULL: none */
	int id;
	bool array;
};

struct flat_stream {
	yajl_handle yajl;
	const struct flat_pick *root;
	struct flat_stream_calls calls;
	struct level levels[FLAT_STREAM_DEPTH];
	size_t depth;
	const struct flat_pick *member; /* of the key that was read last */
	const char *why;		/* an error of ours */
	/* pass() */
	bool in_string, cutting;
	unsigned escape; /* digits of an escape that follow, or ESCAPE */
	size_t token;	 /* bytes of this string or number so far */
	char text[FLAT_STREAM_TEXT + 64];
};

/* ---- what yajl calls ---- */

static const struct flat_pick *picked(const struct flat_stream *stream)
{
	if (!stream->depth)
		return stream->root;
	const struct level *level = &stream->levels[stream->depth - 1];
	if (!level->array)
		return stream->member;
	for (const struct flat_pick *pick = level->picks; pick && pick->key; pick++) {
		if (!pick->key[0])
			return pick;
	}
	return NULL;
}

static int tell(struct flat_stream *stream, const char *text, size_t len)
{
	const struct flat_pick *pick = picked(stream);
	if (!pick || !pick->id)
		return 1;
	if (len >= sizeof stream->text)
		len = sizeof stream->text - 1;
	memcpy(stream->text, text, len);
	stream->text[len] = '\0';
	stream->calls.value(stream->calls.arg, pick->id, stream->text, len);
	return 1;
}

static int begin(struct flat_stream *stream, bool array)
{
	const struct flat_pick *pick = picked(stream);
	if (stream->depth == FLAT_STREAM_DEPTH) {
		stream->why = "it is nested too deeply";
		return 0;
	}
	stream->levels[stream->depth++] = (struct level){
		.picks = pick ? pick->inside : NULL,
		.id = pick ? pick->id : 0,
		.array = array,
	};
	stream->member = NULL;
	if (pick && pick->id)
		stream->calls.begin(stream->calls.arg, pick->id);
	return 1;
}

static int end(struct flat_stream *stream)
{
	int id = stream->levels[--stream->depth].id;
	if (id)
		stream->calls.end(stream->calls.arg, id);
	return 1;
}

static int on_null(void *arg)
{
	return tell(arg, "", 0);
}

static int on_boolean(void *arg, int value)
{
	return value ? tell(arg, "true", 4) : tell(arg, "false", 5);
}

static int on_number(void *arg, const char *text, size_t len)
{
	return tell(arg, text, len);
}

static int on_string(void *arg, const unsigned char *text, size_t len)
{
	return tell(arg, (const char *)text, len);
}

static int on_start_map(void *arg)
{
	return begin(arg, false);
}

static int on_map_key(void *arg, const unsigned char *key, size_t len)
{
	struct flat_stream *stream = arg;
	const struct flat_pick *pick = stream->levels[stream->depth - 1].picks;
	while (pick && pick->key && (strlen(pick->key) != len || memcmp(pick->key, key, len) != 0))
		pick++;
	stream->member = pick && pick->key ? pick : NULL;
	return 1;
}

static int on_end(void *arg)
{
	return end(arg);
}

static int on_start_array(void *arg)
{
	return begin(arg, true);
}

static const yajl_callbacks callbacks = {
	.yajl_null = on_null,
	.yajl_boolean = on_boolean,
	.yajl_number = on_number,
	.yajl_string = on_string,
	.yajl_start_map = on_start_map,
	.yajl_map_key = on_map_key,
	.yajl_end_map = on_end,
	.yajl_start_array = on_start_array,
	.yajl_end_array = on_end,
};

/* ---- what comes before yajl ---- */

static int parse(struct flat_stream *stream, const char *data, size_t len, struct flat_err *err)
{
	if (!len)
		return 0;
	yajl_status status = yajl_parse(stream->yajl, (const unsigned char *)data, len);
	if (status == yajl_status_ok)
		return 0;
	if (stream->why)
		return flat_fail(err, FLAT_CODE_DECODE, 0, "read JSON: %s", stream->why);
	unsigned char *text = yajl_get_error(stream->yajl, 0, NULL, 0);
	flat_fail(err, FLAT_CODE_DECODE, 0, "read JSON: %.*s",
		  text ? (int)strcspn((const char *)text, "\n") : 13,
		  text ? (const char *)text : "out of memory");
	if (text)
		yajl_free_error(stream->yajl, text);
	return -EINVAL;
}

/* One byte of a string. Returns whether it is let through. */
static bool string_byte(struct flat_stream *stream, unsigned char c)
{
	if (stream->escape) {
		if (stream->escape == ESCAPE)
			stream->escape = c == 'u' ? 4 : 0; /* four digits */
		else
			stream->escape--;
	} else if (c == '"') {
		stream->in_string = stream->cutting = false;
		stream->token = 0;
		return true;
	} else {
		/* neither within an escape nor within a character of several bytes */
		if (stream->token >= FLAT_STREAM_TEXT && (c & 0xc0) != 0x80)
			stream->cutting = true;
		if (c == '\\')
			stream->escape = ESCAPE;
	}
	stream->token++;
	return !stream->cutting;
}

int flat_stream_feed(struct flat_stream *stream, const char *data, size_t len, struct flat_err *err)
{
	size_t from = 0; /* what is let through and not parsed yet begins here */
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		if (stream->in_string) {
			bool was_cutting = stream->cutting;
			bool through = string_byte(stream, c);
			if (!was_cutting && !through) {
				int r = parse(stream, data + from, i - from, err);
				if (r < 0)
					return r;
			}
			if (was_cutting && through)
				from = i;
		} else if (c == '"') {
			stream->in_string = true;
			stream->token = 0;
		} else if (c <= ' ' || strchr("{}[],:", c)) {
			stream->token = 0;
		} else if (++stream->token > MAX_NUMBER) {
			return flat_fail(err, FLAT_CODE_DECODE, 0,
					 "read JSON: a number has more than %d digits", MAX_NUMBER);
		}
	}
	return stream->cutting ? 0 : parse(stream, data + from, len - from, err);
}

int flat_stream_end(struct flat_stream *stream, struct flat_err *err)
{
	/* a value that is not in brackets is known to be whole only now */
	yajl_status status = yajl_complete_parse(stream->yajl);
	if (status == yajl_status_ok && !stream->depth && !stream->in_string)
		return 0;
	return flat_fail(err, FLAT_CODE_DECODE, 0, "read JSON: it ends too early");
}

int flat_stream_open(const struct flat_pick *root, const struct flat_stream_calls *calls,
		     struct flat_stream **ret_stream, struct flat_err *err)
{
	struct flat_stream *stream = calloc(1, sizeof *stream);
	if (!stream)
		goto no_memory;
	stream->root = root;
	stream->calls = *calls;
	stream->yajl = yajl_alloc(&callbacks, NULL, stream);
	if (!stream->yajl) {
		free(stream);
		goto no_memory;
	}
	yajl_config(stream->yajl, yajl_allow_multiple_values, 1);
	yajl_config(stream->yajl, yajl_dont_validate_strings, 1);
	*ret_stream = stream;
	return 0;
no_memory:
	flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read JSON");
	return -ENOMEM;
}

void flat_stream_close(struct flat_stream *stream)
{
	if (!stream)
		return;
	yajl_free(stream->yajl);
	free(stream);
}

int flat_stream_read(const struct flat_pick *root, const struct flat_stream_calls *calls,
		     const char *text, size_t len, struct flat_err *err)
{
	struct flat_stream *stream;
	int r = flat_stream_open(root, calls, &stream, err);
	if (r < 0)
		return r;
	r = flat_stream_feed(stream, text, len, err);
	if (r >= 0)
		r = flat_stream_end(stream, err);
	flat_stream_close(stream);
	return r;
}
