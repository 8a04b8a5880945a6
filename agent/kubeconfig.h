/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: how the API server of Kubernetes is reached, and as whom. */
#pragma once

#include "http.h"

/* From a kubeconfig file (YAML or JSON). context NULL: its current-context. Relative paths are
 * relative to the file. Texts of *ret_target are in the arena. Where both a token and a tokenFile
 * are given, the file counts: it rotates. Code 5: the file cannot be read; 7: what is wrong in it,
 * or not supported (exec, auth-provider, proxies), and where. */
int flat_kubeconfig_read(const char *path, const char *context, struct flat_arena *arena,
			 struct flat_http_target *ret_target, struct flat_err *err);
/* As a pod's service account: the files token and ca.crt in a folder. */
int flat_kubeconfig_in_cluster(const char *server, const char *service_account,
			       struct flat_arena *arena, struct flat_http_target *ret_target,
			       struct flat_err *err);
