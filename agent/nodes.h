/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: the nodes that the source has told of, by name. Kept as they were told; whether
 * they are believed is judged in each pass, and said when it changes.
 */
#pragma once

#include "status.h"

#include <flatnet/cluster.h>

enum { FLAT_NODE_TABLE_MAX = 16384 };

struct flat_node_table;
/* own: the name of this node, borrowed: it always has a place, and is not talked about. */
int flat_node_table_open(const char *own, struct flat_node_table **ret_table, struct flat_err *err);
void flat_node_table_close(struct flat_node_table *table); /* NULL is fine */

/* A full list begins: who is not heard of until flat_node_table_synced() has gone. */
void flat_node_table_begin(struct flat_node_table *table);
/* This node is there. fault: what is wrong with it, NULL: nothing. Both are copied. Returns 1:
 * news; 0: as it was; -E2BIG: the table is full (said once), -ENOMEM. */
int flat_node_table_hear(struct flat_node_table *table, const struct flat_node *node,
			 const char *fault);
bool flat_node_table_gone(struct flat_node_table *table, const char *name); /* was it there? */
size_t flat_node_table_synced(struct flat_node_table *table);		    /* how many have gone */

/* NULL: not heard of. *ret_fault as above. */
const struct flat_node *flat_node_table_find(const struct flat_node_table *table, const char *name,
					     const char **ret_fault);

/* All nodes without a fault, and self in the place of its own entry (NULL: none of it). The array
 * is the table's, and holds until its next change. */
int flat_node_table_list(struct flat_node_table *table, const struct flat_node *self,
			 const struct flat_node *const **ret_nodes, size_t *ret_count,
			 struct flat_err *err);
/* The verdicts of that list: says what has changed about whom, and counts into status->nodes. */
void flat_node_table_settle(struct flat_node_table *table, const struct flat_judgement *judgements,
			    struct flat_status *status);

/* "10.244.1.0/24,fd00::/64" and "192.0.2.1,2001:db8::1"; for messages. */
enum { FLAT_NODE_TEXT = FLAT_NODE_CIDRS * (FLAT_PREFIX_TEXT + 1) };
const char *flat_node_cidrs_text(const struct flat_node *node, char buf[static FLAT_NODE_TEXT]);
const char *flat_node_addresses_text(const struct flat_node *node, char buf[static FLAT_NODE_TEXT]);
