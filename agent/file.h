/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: small files that others write: tokens, certificates, kubeconfigs. */
#pragma once

#include <flatnet/base.h>

enum { FLAT_FILE_MAX = 1024 * 1024 };

/* Reads a regular file of at most FLAT_FILE_MAX bytes; NUL-terminated, the caller frees. Symbolic
 * links are followed: Kubernetes swaps a pod's secrets by one. what names it in messages: "CA
 * file". Code 5. Returns its length. */
int flat_file_read(const char *path, const char *what, char **ret_text, struct flat_err *err);
