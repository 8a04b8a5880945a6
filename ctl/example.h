/* SPDX-License-Identifier: Apache-2.0 */
/* Private to ctl: what an ADD would plan, without an ADD. */
#pragma once

#include "book.h"

/* The attachment of a pod that is not there, with addresses of the ranges that nobody has reserved
 * (book NULL: with any). Without a range of ours, as with a foreign IPAM, it has no address. Memory
 * is the request's arena. */
int flat_example_plan(struct flat_request *req, const struct flat_conf *conf,
		      const struct flat_book *book, struct flat_attachment *ret_attachment,
		      struct flat_err *err);
