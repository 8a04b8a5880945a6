/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: what the agent says, on standard error: one line an event. */
#pragma once

#include <flatnet/base.h>

enum flat_level { FLAT_LEVEL_ERROR, FLAT_LEVEL_WARN, FLAT_LEVEL_INFO, FLAT_LEVEL_DEBUG };
enum flat_log_format { FLAT_LOG_KEYS, FLAT_LOG_JSON };

/* Before the first line; may be called again (reload). Default: INFO, key=value. */
void flat_log_setup(enum flat_level level, enum flat_log_format format);

/* ts=2026-01-02T03:04:05.678Z level=info msg="node accepted" node=n2 podCIDR=10.244.2.0/24
 * Pairs of key and value, both const char *, end with NULL: a value NULL leaves the pair out.
 * Lines are at most 2 KiB; control characters are escaped. */
void flat_say(enum flat_level level, const char *msg, ...) __attribute__((sentinel));
/* An error: msg, and its own message as `error`, the details as `cure`. */
void flat_say_error(enum flat_level level, const char *msg, const struct flat_err *err);

/* A condition that lasts: said when it begins or changes, and once when it ends; zero-initialise.
 * flat_remark(r, level, msg, text): says msg with reason=text unless the same was said last.
 * flat_remark_end(r, msg): says msg when the condition had been said, and forgets it. */
struct flat_remark {
	uint64_t said; /* hash of the text; 0: nothing */
};
void flat_remark(struct flat_remark *remark, enum flat_level level, const char *msg,
		 const char *text);
void flat_remark_end(struct flat_remark *remark, const char *msg);

/* For libraries' warnings. */
extern const struct flat_log flat_agent_log;
