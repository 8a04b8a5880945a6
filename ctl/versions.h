/* SPDX-License-Identifier: Apache-2.0 */
/* Private to ctl: which versions of what are installed here. */
#pragma once

#include "ctl.h"

/* What the executable says when a person starts it: "flatnet 0.1.0: ..." gives "0.1.0". It is
 * stopped after two seconds. NULL: not there, not executable, or not one of ours; *ret_why (may be
 * NULL) says which. */
const char *flat_version_of(struct flat_ctl *ctl, const char *file, const char **ret_why);
