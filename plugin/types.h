/* SPDX-License-Identifier: Apache-2.0 */
/* Which plugin this is: that whose name it was started by. */
#pragma once

#include "verbs.h"

struct flat_type {
	const char *name;
	const char *about; /* for people: see struct flat_plugin */
	/* Any command but VERSION. */
	int (*carry_out)(const struct flat_call *call, struct flat_err *err);
	const struct flat_defaults *defaults; /* of a type that is an attachment of its own */
	unsigned feature;		      /* of one that is chained */
};

/* By the last part of argv[0]; flatnet where that is no name of the table. */
const struct flat_type *flat_type_find(const char *argv0);

/* One feature, behind another plugin (chained.c). */
int flat_chained_carry_out(const struct flat_call *call, struct flat_err *err);

/* Sysctls and settings of an interface that another plugin has made (tuning.c). */
int flat_tuning_carry_out(const struct flat_call *call, struct flat_err *err);

/* Lo up, and down again (loopback.c). */
int flat_loopback_carry_out(const struct flat_call *call, struct flat_err *err);
