/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: values picked out of JSON as it arrives, in pieces, of any length. An API
 * server's list of 5,000 nodes is 75 MB, most of it names of images; what is not picked leaves no
 * trace, and what is picked is held for the moment of its call alone.
 */
#pragma once

#include <flatnet/base.h>

enum {
	FLAT_STREAM_TEXT = 4096, /* a longer string is cut to about that */
	FLAT_STREAM_DEPTH = 64,	 /* deeper nesting is an error */
};

/* Which member: a tree, as deep as what is to be picked. A list of members ends with { 0 }. */
struct flat_pick {
	const char *key; /* of an object; "": each element of an array. Of the root: not used */
	int id;		 /* for the calls; 0: nothing is told of it but of what is inside */
	const struct flat_pick *inside; /* members; NULL: none is picked */
};

/* Calls in the order of the text. A type that is not the expected one is told all the same. */
struct flat_stream_calls {
	void (*begin)(void *arg, int id); /* an object or an array begins ... */
	void (*end)(void *arg, int id);	  /* ... and ends */
	/* A string, a number, true or false as text; NUL-terminated unless it has NULs of its own;
	 * null is "" with len 0. len >= FLAT_STREAM_TEXT: it was cut. Borrowed for the call. */
	void (*value)(void *arg, int id, const char *text, size_t len);
	void *arg;
};

struct flat_stream;
/* root and calls' functions are borrowed. Any number of values may follow each other; each is
 * root's. */
int flat_stream_open(const struct flat_pick *root, const struct flat_stream_calls *calls,
		     struct flat_stream **ret_stream, struct flat_err *err);
/* Never from within a call. NULL is fine. */
void flat_stream_close(struct flat_stream *stream);
/* The next piece. Code 6: it is not JSON; nothing more can be read. */
int flat_stream_feed(struct flat_stream *stream, const char *data, size_t len,
		     struct flat_err *err);
/* Code 6 when a value is not whole. */
int flat_stream_end(struct flat_stream *stream, struct flat_err *err);
/* All at once, for small texts: open, feed, end, close. */
int flat_stream_read(const struct flat_pick *root, const struct flat_stream_calls *calls,
		     const char *text, size_t len, struct flat_err *err);
