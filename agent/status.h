/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to agent: how it is doing, as one plain struct. Modules write their part; the web server
 * prints it as metrics and answers health questions from it.
 */
#pragma once

#include <flatnet/cluster.h>

enum { FLAT_STATUS_NETWORKS = 8, FLAT_STATUS_WHY = 512 };

/* Repairs beyond those of the cluster room. */
enum flat_upkeep {
	FLAT_UPKEEP_BRIDGE = FLAT_REPAIR_KINDS, /* the bridge's address, or it was down */
	FLAT_UPKEEP_RULES,
	FLAT_UPKEEP_SYSCTL,
	FLAT_UPKEEP_MTU,
	FLAT_UPKEEP_ORPHAN, /* a veth that nobody claims, or a host port */
	FLAT_UPKEEP_LEASE,  /* an address that nobody uses */
	FLAT_UPKEEP_KINDS,
};
extern const char *const flat_upkeep_names[FLAT_UPKEEP_KINDS];

struct flat_status {
	int64_t started_ms; /* flat_now_ms() */
	struct {
		const char *type;
		bool connected, synced;
		char why[FLAT_STATUS_WHY]; /* while it is not connected */
		int64_t heard_ms;	   /* last word of it, 0: none yet */
		int64_t event_ms; /* when the event came that is not in the kernel yet; 0: none */
		uint64_t events, errors, lists;
	} source;
	struct {
		size_t known, accepted, waiting, refused, direct, tunnelled;
	} nodes;
	struct {
		size_t routes, neighs, fdb;
	} wanted;
	struct {
		uint64_t runs, failures;
		double seconds, last_seconds, max_seconds; /* sum, last, greatest */
		/* how often within 1, 5, 10, 50, 100, 500 ms, 1, 5 s, longer */
		uint64_t bucket[9];
		int64_t last_ms;    /* 0: never */
		int64_t failing_ms; /* since when runs have failed; 0: the last one did not */
		char error[FLAT_STATUS_WHY]; /* of the last run; "": none */
	} reconcile;
	/* Seconds from an event of the source to the kernel. */
	double lag_seconds, max_lag_seconds;
	uint64_t repairs[FLAT_UPKEEP_KINDS]; /* not counted: what the source told to change */
	struct {
		char network[64];
		uint64_t size; /* addresses in its ranges, 0: not known */
		uint64_t used, healed;
	} ipam[FLAT_STATUS_NETWORKS];
	size_t ipam_count;
	uint64_t conntrack_insert_failed, conntrack_count, conntrack_max; /* max 0: no conntrack */
	struct {
		uint32_t count, limit;
	} neigh[FLAT_FAMILIES];
	/* This node's pods can be given addresses, and reach the others': nothing is missing that
	 * we know of. why: what is. */
	bool ready;
	char why_not_ready[FLAT_STATUS_WHY];
};
