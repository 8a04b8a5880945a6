/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: what etcd's gateway is asked, as the JSON text of a POST. Bytes go as base64,
 * 64-bit numbers as strings. The caller frees; NULL: no memory.
 */
#pragma once

#include "etcd.h"

char *flat_etcd_ask_range(const struct flat_etcd_range *range);
char *flat_etcd_ask_put(const struct flat_etcd_put *put);
char *flat_etcd_ask_watch(const char *prefix, int64_t revision);
char *flat_etcd_ask_number(const char *name, int64_t number); /* {"NAME":"NUMBER"} */
char *flat_etcd_ask_token(const char *user, const char *password);
