// SPDX-License-Identifier: Apache-2.0
/* What all sources share. */
#include "source.h"

#include <sys/random.h>

/* 0..1. Nodes that lost the same server at the same moment must not come back at the same moment,
 * so that the seed is the kernel's. */
static double chance(void)
{
	uint64_t bits = 0;
	if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != sizeof bits) { /* early at boot */
		const int64_t now = flat_now_ms();
		bits = flat_hash((uint64_t)(uintptr_t)&bits, &now, sizeof now);
	}
	return (double)(bits >> 11) / 9007199254740992.0;
}

double flat_backoff_next(struct flat_backoff *backoff, double min, double max)
{
	double pause = min;
	for (unsigned i = 0; i < backoff->tries && pause < max; i++)
		pause *= 2;
	if (pause > max)
		pause = max;
	if (backoff->tries < 64)
		backoff->tries++;
	return pause * (1 + chance()) / 2;
}
