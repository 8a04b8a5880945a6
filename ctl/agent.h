/* SPDX-License-Identifier: Apache-2.0 */
/* Private to ctl: what flatnetd says of itself, over HTTP. */
#pragma once

#include "ctl.h"

#define FLAT_AGENT_ADDRESS "127.0.0.1:9464"

struct flat_agent_word {
	bool reached, ready;
	const char *address; /* where it was asked */
	const char *why;     /* while it is not ready; NULL: it is */
	const char *version, *source;
	bool connected; /* what the source tells is current */
	bool failing;	/* its last pass failed */
	uint64_t repairs, direct, tunnelled, refused, waiting;
};

/* That nobody answers there is no error: the node may have no agent. Waits a second at most. */
int flat_agent_ask(struct flat_ctl *ctl, struct flat_agent_word *ret_word, struct flat_err *err);
