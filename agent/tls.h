/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: TLS of one connection, non-blocking, by GnuTLS. Used by http.c alone. */
#pragma once

#include "http.h"

struct flat_tls;
/* Reads the target's files and prepares a session over fd (borrowed). host: name or literal
 * address that the certificate must be for. */
int flat_tls_open(const struct flat_http_target *target, const char *host, int fd,
		  struct flat_tls **ret_tls, struct flat_err *err);
void flat_tls_close(struct flat_tls *tls); /* NULL is fine */

/* 1: done; 0: goes on when fd is readable, or writable where flat_tls_wants_write() says so. */
int flat_tls_handshake(struct flat_tls *tls, struct flat_err *err);
bool flat_tls_wants_write(const struct flat_tls *tls);
/* As recv(2) and send(2), with -EAGAIN; other errors set err. After a write that said -EAGAIN the
 * next must be of the same bytes. */
ssize_t flat_tls_read(struct flat_tls *tls, void *buf, size_t size, struct flat_err *err);
ssize_t flat_tls_write(struct flat_tls *tls, const void *data, size_t len, struct flat_err *err);
bool flat_tls_pending(const struct flat_tls *tls); /* bytes that fd will not announce */
