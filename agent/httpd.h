/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: health and metrics over HTTP: /healthz, /readyz, /metrics (Prometheus' text
 * format). Read-only, in the loop, without a thread. */
#pragma once

#include "status.h"

#include <ev.h>

struct flat_httpd;
/* status is borrowed. Code 5: the address cannot be listened on. */
int flat_httpd_open(struct ev_loop *loop, const struct flat_ip *address, uint16_t port,
		    const struct flat_status *status, struct flat_httpd **ret_httpd,
		    struct flat_err *err);
void flat_httpd_close(struct flat_httpd *httpd);
