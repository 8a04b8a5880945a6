/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: what etcd's gateway says, read. Of a stream each message comes wrapped in
 * {"result"}, and an error as {"error"} with status 200.
 */
#pragma once

#include "etcd.h"

enum { FLAT_ETCD_MAX_KVS = 16384 }; /* in one answer */

/* Codes of gRPC, as they stand in an error's "code". */
enum flat_grpc {
	FLAT_GRPC_INVALID_ARGUMENT = 3,
	FLAT_GRPC_DEADLINE_EXCEEDED = 4,
	FLAT_GRPC_NOT_FOUND = 5,
	FLAT_GRPC_PERMISSION_DENIED = 7,
	FLAT_GRPC_RESOURCE_EXHAUSTED = 8,
	FLAT_GRPC_FAILED_PRECONDITION = 9,
	FLAT_GRPC_OUT_OF_RANGE = 11,
	FLAT_GRPC_UNAVAILABLE = 14,
	FLAT_GRPC_UNAUTHENTICATED = 16,
};

struct flat_etcd_reply {
	struct flat_etcd_answer answer;
	/* of a watch: */
	bool created, canceled;
	const char *cancel_reason; /* NULL: none given */
	int64_t compact_revision;  /* what is forgotten; 0: nothing */
	/* of a login: */
	const char *token;
	/* of an error: */
	const char *message; /* NULL: none given */
	int64_t code;
};

/* One JSON object of an answer or a stream; its texts are in the arena. Returns 1 when it is an
 * error of the server's. */
int flat_etcd_reply_read(const char *text, size_t len, struct flat_arena *arena,
			 struct flat_etcd_reply *ret_reply, struct flat_err *err);
