/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to source-etcd.c, which begins with the theory, and those who share its memory:
 * etcd-hear.c, etcd-own.c, etcd-choose.c.
 */
#pragma once

#include "etcd-record.h"
#include "etcd-table.h"
#include "etcd.h"
#include "source.h"

enum flat_hearing {
	FLAT_HEARING_NOTHING, /* the retry timer runs */
	FLAT_HEARING_LIST,
	FLAT_HEARING_WATCH, /* asked for */
	FLAT_HEARING_LIVE,
};

enum flat_step {
	FLAT_STEP_NONE,
	FLAT_STEP_CONFIG, /* flannel's configuration is read */
	FLAT_STEP_REUSE,  /* is the lease of an earlier life still there? */
	FLAT_STEP_GRANT,
	FLAT_STEP_PUT,
};

struct flat_source {
	struct ev_loop *loop;
	const struct flat_agent_conf *conf;
	const struct flat_listener *listener;
	struct flat_etcd *etcd;
	char *folder;	  /* PREFIX/subnets/ */
	char *config_key; /* PREFIX/config */
	struct flat_etcd_table table;

	enum flat_hearing hearing;
	ev_timer hear_timer;
	struct flat_backoff hear_backoff;
	uint64_t list;	       /* number of the last list */
	bool listed;	       /* it was whole, and the watch can go on from seen + 1 */
	bool list_again;       /* the table cannot tell what is true: list */
	int64_t list_revision; /* 0: no page of this list has come yet */
	int64_t seen;
	char cluster_id[24];
	struct flat_err hear_trouble; /* code 0: none */

	bool published;
	struct flat_self self;
	struct flat_subnet_pool pools[FLAT_FAMILIES];
	enum flat_step step;
	ev_timer own_timer; /* the next try */
	struct flat_backoff own_backoff;
	unsigned tries;
	struct flat_err own_trouble; /* code 0: none */
	bool crowded; /* others have what this node could have: a record that goes may end it */
	struct flat_remark remark;

	/* What this node has, or had and wants back (held false). */
	bool held;
	struct flat_prefix cidrs[FLAT_FAMILIES];
	char key[FLAT_RECORD_KEY];
	int64_t create_revision, mod_revision;
	uint64_t value_hash;
	int64_t lease; /* 0: none, or not known whether it lives */
	bool reserved; /* the record is on no lease: an administrator put it there for this node */
	bool rival;    /* an older record with the same addresses has come up */

	/* What is being put. */
	struct {
		struct flat_prefix cidrs[FLAT_FAMILIES];
		char key[FLAT_RECORD_KEY];
		char *value;
		char *replaces; /* key below folder; NULL: none */
		int64_t replaces_revision;
		bool unused; /* no other key may begin with its first subnet */
	} put;

	ev_timer alive_timer;
	bool alive_asked;

	uint64_t told;	     /* hash of the last word about the connection */
	uint64_t told_fault; /* and about the want of a subnet; 0: none */
};

/* ---- source-etcd.c ------------------------------------------------------------------------------
 */

/* Whether all is well, as the listener shall know it; said when it changes. */
void flat_etcd_tell_state(struct flat_source *source);

/* ---- etcd-hear.c --------------------------------------------------------------------------------
 */

/* The key of a record below the folder; NULL: not a record. */
const char *flat_etcd_hear_key(const struct flat_source *source, const struct flat_etcd_kv *kv);
/* A record as it stands now; one that is gone, at this revision. What is older than what is known
 * is passed over. */
void flat_etcd_hear_put(struct flat_source *source, const struct flat_etcd_kv *kv);
void flat_etcd_hear_gone(struct flat_source *source, const char *key, int64_t revision);
/* Nothing is heard any more: taken up again, soon. */
void flat_etcd_hear_failed(struct flat_source *source, const struct flat_etcd_failure *failure);
void flat_etcd_on_hear_timer(struct ev_loop *loop, ev_timer *timer, int revents);

/* ---- etcd-own.c ---------------------------------------------------------------------------------
 */

/* Tells the listener of this node: with what it has; or why it has no subnet, as what is wrong with
 * its record. */
void flat_etcd_tell_self(struct flat_source *source);
void flat_etcd_tell_fault(struct flat_source *source);
/* Something has changed: is there anything to do about our record? */
void flat_etcd_own_kick(struct flat_source *source);
void flat_etcd_on_own_timer(struct ev_loop *loop, ev_timer *timer, int revents);
void flat_etcd_put_free(struct flat_source *source);

/* ---- etcd-choose.c ------------------------------------------------------------------------------
 */

/* Is it this node's? With flannel, a record without a name is by its address: so a node keeps its
 * subnet when flanneld goes and flatnetd comes. */
bool flat_etcd_is_own(const struct flat_source *source, const struct flat_etcd_entry *entry);
/* The youngest of them; NULL: there is none. */
struct flat_etcd_entry *flat_etcd_own_entry(const struct flat_source *source);
bool flat_etcd_overlaps(const struct flat_prefix *cidr, const struct flat_etcd_entry *entry);
/* The oldest record of another node that has one of these addresses. */
const struct flat_etcd_entry *flat_etcd_find_rival(const struct flat_source *source,
						   const struct flat_prefix *cidrs, size_t count);

/* What can be handed out, from the configuration. Code 7. */
int flat_etcd_open_pools(struct flat_source *source, struct flat_err *err);
/* What flannel's nodes go by must be what this one goes by. Code 7. */
int flat_etcd_check_netconf(const struct flat_source *source, const struct flat_netconf *netconf,
			    struct flat_err *err);
/* The subnets that this node shall have; own: the record that it has, NULL: none. Codes
 * FLAT_CODE_IN_USE, FLAT_CODE_EXHAUSTED. */
int flat_etcd_choose(const struct flat_source *source, const struct flat_etcd_entry *own,
		     struct flat_prefix ret_cidrs[static FLAT_FAMILIES], struct flat_err *err);
