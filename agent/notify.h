/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: a word to the service manager: sd_notify(3)'s protocol, spoken directly. */
#pragma once

#include <flatnet/base.h>

/* path is $NOTIFY_SOCKET: a path, or "@name" (abstract). NULL or "": nobody listens, all calls do
 * nothing. */
struct flat_notify {
	int fd; /* -1: nobody listens */
};
int flat_notify_open(const char *path, struct flat_notify *ret_notify, struct flat_err *err);
void flat_notify_close(struct flat_notify *notify);

void flat_notify_ready(const struct flat_notify *notify);
void flat_notify_reloading(const struct flat_notify *notify);
void flat_notify_stopping(const struct flat_notify *notify);
void flat_notify_watchdog(const struct flat_notify *notify);
/* One line for a person. */
void flat_notify_status(const struct flat_notify *notify, const char *text);
