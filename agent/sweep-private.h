/* SPDX-License-Identifier: Apache-2.0 */
/* Private to sweep.c, which begins with the theory, sweep-links.c and sweep-stores.c. */
#pragma once

#include "sweep.h"

#include <flatnet/ipam.h>

enum {
	FLAT_SWEEP_GRACE_MS = 10000, /* of a bare link */
	FLAT_SWEEP_DEAD_MS = 1000,   /* of a reservation: DEL takes it a moment after the link */
	FLAT_SWEEP_NAME = 256,	     /* of a directory, as the kernel has it */
};

struct flat_sweep_bare {
	char name[FLAT_IFNAME_LEN];
	int index;
	int64_t since_ms;
	bool here, in_flight, in_store; /* as this pass sees it */
	size_t network;			/* in_store: which */
};

/* A reservation as it was judged: fine, or nothing to be done about it yet. */
struct flat_sweep_known {
	struct flat_ip ip;
	uint64_t inode;
	uint64_t claimants; /* hash of the links that claim it; 0: none, it is another program's */
	int64_t dead_ms;    /* not fine: since when it looks dead */
};

struct flat_sweep_network {
	char name[FLAT_SWEEP_NAME];
	struct flat_sweep_known *known; /* by address */
	size_t known_count;
	uint64_t used, healed;
	bool seen; /* its directory, in an earlier pass */
	/* in this pass: */
	bool here, lost, suspect;
	struct flat_reservation
		*doubtful; /* by address; dead, as far as a look without lock tells */
	size_t doubtful_count, doubtful_room;
};

struct flat_sweep_link {
	char name[FLAT_IFNAME_LEN];
	int index;
	bool cut;
	const char *network, *container_id, *ifname; /* in the arena; as the alias has them */
};

struct flat_sweep_claim {
	struct flat_ip ip;
	size_t link;
};

struct flat_sweep {
	/* The links, as they were at the last dump; true until the monitor tells of a change. */
	struct flat_monitor *monitor;
	bool links_known;
	bool features_swept; /* host ports, since then */
	bool pending;	     /* something is to be looked at again soon */
	struct flat_arena arena;
	struct flat_sweep_link *links;
	size_t link_count, link_room;
	struct flat_sweep_claim *claims; /* by address */
	size_t claim_count, claim_room;

	struct flat_sweep_bare *bare;
	size_t bare_count, bare_room;
	struct flat_sweep_network *networks;
	size_t network_count, network_room;
	struct flat_prefix cidrs[FLAT_NODE_CIDRS];
	size_t cidr_count;
	unsigned passes;
	struct flat_remark too_many;
};

struct flat_sweep_pass {
	struct flat_sweep *sweep;
	const struct flat_agent_conf *conf;
	struct flat_net *net;
	struct flat_status *status;
	int healed;
	int first; /* the first error, told in err */
	struct flat_err *err;
};

/* Room for one more item. -ENOMEM */
int flat_sweep_grow(void *items, size_t count, size_t *room, size_t size);

/* ---- sweep-links.c ------------------------------------------------------------------------------
 */

/* What the links claim, and which are bare: dumped when they have changed. */
int flat_sweep_look_at_links(struct flat_sweep_pass *pass);
/* The first claim of this address or a later one. */
size_t flat_sweep_find_claim(const struct flat_sweep_pass *pass, const struct flat_ip *ip);
/* Whose claim it is, where that link is of this network; else NULL. */
const struct flat_sweep_link *flat_sweep_claimant(const struct flat_sweep_pass *pass, size_t claim,
						  const char *network);

/* ---- sweep-stores.c -----------------------------------------------------------------------------
 */

/* Which networks there are: directories, and those of claims. */
int flat_sweep_see_networks(struct flat_sweep_pass *pass);
/* One listing: what looks wrong is made suspect, or is looked at again soon. */
int flat_sweep_look_at_network(struct flat_sweep_pass *pass, struct flat_sweep_network *network);
/* -ENOENT, err not set: there is no directory, and it is not to be created. */
int flat_sweep_open_store(const struct flat_sweep_pass *pass,
			  const struct flat_sweep_network *network, bool create,
			  struct flat_store **ret_store, struct flat_err *err);
void flat_sweep_forget(struct flat_sweep_network *network);
