/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: a host name's addresses, without stopping the loop.
 *
 * getaddrinfo(3) waits for half a minute where no DNS server answers, which is when repairs are
 * needed most; getaddrinfo_a(3) is a thread. So a forked process of our own asks, and writes the
 * answer into a pipe: what /etc/hosts, nsswitch.conf and resolv.conf say holds as everywhere.
 */
#pragma once

#include <flatnet/base.h>

#include <ev.h>

enum { FLAT_RESOLVE_MAX = 8 };

struct flat_resolve;
/* Asks. done() is called once, never before this returns, unless it is cancelled: count addresses,
 * the best first; 0: why says what is wrong. The handle is gone with the call. */
typedef void flat_resolve_done(void *arg, const struct flat_ip *ips, size_t count, const char *why);
int flat_resolve_start(struct ev_loop *loop, const char *host, unsigned seconds,
		       flat_resolve_done *done, void *arg, struct flat_resolve **ret_resolve,
		       struct flat_err *err);
void flat_resolve_cancel(struct flat_resolve *resolve); /* NULL is fine */
