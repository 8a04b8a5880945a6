/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store - what store.c (one attachment's reservations) and sweep.c (everybody's) share; private to
 * ipam.
 */
#pragma once

#include <flatnet/ipam.h>

struct flat_store {
	int dirfd;
	struct flat_ipam_conf conf; /* its lists stay the request's */
	const struct flat_log *log;
	char *path;    /* for messages */
	char *network; /* likewise; the last part of path */
};

enum {
	FLAT_STORE_LOCK_MS = 10000,
	/* a reservation is two environment strings, each at most 128 KiB: MAX_ARG_STRLEN */
	FLAT_STORE_MAX_RECORD = 260 << 10,
	FLAT_STORE_MAX_ENTRIES = 1 << 20,
	FLAT_STORE_HASHED = 18, /* '~', 16 hex digits, NUL */
};

/* Takes the directory's lock, as every writer does, host-local too. */
int flat_store_lock(struct flat_store *store, int timeout_ms, int *ret_fd, struct flat_err *err);

/* ---- one reservation ---------------------------------------------------------------------------
 */

struct flat_record {
	char *text; /* owned; the two below point into it */
	const char *container_id;
	const char *ifname; /* "": a container ID alone, as older host-locals wrote */
	bool marked;	    /* in-process: it lives as long as its host veth */
};

/* 1: read; 0: there is none; -EBADMSG: empty or unreadable, whoever wrote it is dead; other
 * negative errno: could not look, err is set. */
int flat_record_read(struct flat_store *store, const char *name, struct flat_record *ret_record,
		     struct flat_err *err);
void flat_record_free(struct flat_record *record);
#define flat_auto_record __attribute__((cleanup(flat_record_free))) struct flat_record

/* What a rebuilt reservation holds when its container ID was too long for an ifalias. */
void flat_record_hashed(const char *container_id, char *buf);
bool flat_record_is_of(const struct flat_record *record, const char *container_id,
		       const char *ifname);

/* The content of a reservation; the caller frees. NULL: out of memory. */
char *flat_record_text(const char *container_id, const char *ifname, bool marked, size_t *ret_len);

/* ---- all of them -------------------------------------------------------------------------------
 */

struct flat_entry {
	struct flat_ip ip;
	uint64_t inode;
	bool in_flight; /* filled in by flat_census_take(); also: not to be judged */
	bool gone;	/* freed by this process */
};

struct flat_listing {
	struct flat_entry *entries; /* sorted by address */
	size_t count;
	bool has_last; /* there is a last_reserved_ip.* */
};
void flat_listing_free(struct flat_listing *listing);
#define flat_auto_listing __attribute__((cleanup(flat_listing_free))) struct flat_listing

/* Reads the directory once. locked: the caller holds the lock, so temporary files are leftovers and
 * are removed. */
int flat_listing_read(struct flat_store *store, bool locked, struct flat_listing *ret_listing,
		      struct flat_err *err);
const struct flat_entry *flat_listing_find(const struct flat_listing *listing,
					   const struct flat_ip *ip);
/* How many of the set's addresses are reserved (gateways not counted). */
uint64_t flat_listing_count(const struct flat_listing *listing,
			    const struct flat_ip_range_set *set);

/* What an operation knows about life and death: the listing, who was in flight, and then one look
 * at the kernel, in this order. An ADD that was not in flight had made its link before, so the look
 * sees it; looked at first, its link could be missed and its address given away. */
struct flat_census {
	const struct flat_ipam_witness *witness; /* NULL: only broken files are dead */
	/* sorted; the others are not judged, and not even looked at; NULL: all are */
	const struct flat_reservation *only;
	size_t only_count;
	struct flat_listing listing;
	bool taken;
};
int flat_census_take(struct flat_store *store, struct flat_census *census, bool locked,
		     struct flat_err *err);
void flat_census_free(struct flat_census *census);
#define flat_auto_census __attribute__((cleanup(flat_census_free))) struct flat_census

/* Frees the dead of a set; dry: only counts them. With `only`, no other address is looked at, and
 * other programs' reservations stay. The number of addresses freed. */
int flat_census_heal(struct flat_store *store, struct flat_census *census,
		     const struct flat_ip_range_set *set, const struct flat_ip *only, bool dry,
		     struct flat_err *err);

/* Writes a reservation for each claim of a live link, where the census has none. Returns how many.
 */
int flat_store_rebuild(struct flat_store *store, const struct flat_census *census,
		       flat_heal_fn *each, void *arg, struct flat_err *err);
