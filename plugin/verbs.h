/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <flatnet/plan.h>

/* What main has found out for the verbs. */
struct flat_call {
	struct flat_request *req;
	const struct flat_defaults *defaults; /* of the type */
	unsigned feature;		      /* FLAT_FEATURE_*: all that a chained type does */
	struct flat_host host;
	const struct flat_log *log;
	int output_fd;
};

/* Opens CNI_NETNS. It must not be the plugin's own, unless the caller says that it may be; code
 * FLAT_CODE_NETNS. */
int flat_call_netns(const struct flat_call *call, int *ret_fd, struct flat_err *err);

/* Each carries out one CNI command. ADD prints its result, because an attachment whose result could
 * not be told is taken back. */
int flat_verb_add(const struct flat_call *call, struct flat_err *err);
int flat_verb_del(const struct flat_call *call, struct flat_err *err);
int flat_verb_check(const struct flat_call *call, struct flat_err *err);
int flat_verb_gc(const struct flat_call *call, struct flat_err *err);
int flat_verb_status(const struct flat_call *call, struct flat_err *err);
