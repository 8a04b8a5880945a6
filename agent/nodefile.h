/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: files: what the plugin reads, what others read, and what is remembered. */
#pragma once

#include "conf.h"

/* Writes conf->node_file and conf->subnet_env, each whole and only when its content changes. The
 * mtu is that of pods. Returns 1 when something was written, 0 when it was so. */
int flat_nodefile_write(const struct flat_agent_conf *conf, const struct flat_node *self,
			uint32_t mtu, struct flat_err *err);

/* Writes conf->cni.conf_file by rename within its folder, only when its content differs; the folder
 * is made when it is missing, never removed. Returns as above. */
int flat_cniconf_write(const struct flat_agent_conf *conf, struct flat_err *err);
/* Takes it away where there is no node file: it is an earlier boot's, and runtimes would take a
 * node for ready on which no ADD can work. While there is one it stays whatever happens: DEL needs
 * it. 1: it was there. */
int flat_cniconf_withdraw(const struct flat_agent_conf *conf, struct flat_err *err);

/* The last known state: this node and its peers, with a checksum, so that pods start after a reboot
 * before the source can be reached. */
int flat_statefile_save(const char *path, const struct flat_node *self,
			const struct flat_node *const *nodes, size_t count, struct flat_err *err);
/* 1: *ret_self (pod_cidr_count 0: it was not known) and *ret_nodes (struct flat_node), in the
 * arena; 0: there is none; negative: it cannot be read or makes no sense: as good as none, after a
 * word. */
int flat_statefile_load(const char *path, const char *node_name, struct flat_arena *arena,
			struct flat_node *ret_self, struct flat_json_list *ret_nodes,
			struct flat_err *err);
