/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ipam - the address store: who has which address of this node's ranges.
 *
 * On disk it is the reference host-local's layout, so that both can share a directory:
 * <dataDir>/<network>/<address> holds "containerID\r\nifname"; last_reserved_ip.<n> the last
 * address given from range set n; `lock` is flock(2)ed by writers. What flatnet reserves in-process
 * carries one trailing newline (host-local trims it): the life of such a reservation is the life of
 * its host veth. Reservations without it are other programs' and end by DEL, GC, or when nobody
 * answers.
 *
 * The ADD in flight holds flock LOCK_EX on its own reservations, so that whoever sweeps knows them,
 * without time-outs.
 */
#pragma once

#include <flatnet/base.h>
#include <flatnet/cni.h>

/* ---- configuration -----------------------------------------------------------------------------
 */

struct flat_ip_range {
	struct flat_prefix subnet;
	struct flat_ip start,
		end; /* first and last address handed out; family 0 in input: the default */
	struct flat_ip gateway; /* never handed out; default: the first address of the subnet */
};

struct flat_ip_range_set {
	struct flat_json_list ranges; /* struct flat_ip_range: one pool */
};

/* The range that hands out this address; NULL when there is none. */
const struct flat_ip_range *flat_ipam_set_find(const struct flat_ip_range_set *set,
					       const struct flat_ip *ip);
bool flat_ipam_set_is_gateway(const struct flat_ip_range_set *set, const struct flat_ip *ip);
/* How many addresses can be handed out, gateways not counted; UINT64_MAX stands for more. */
uint64_t flat_ipam_set_size(const struct flat_ip_range_set *set);

/* The `ipam` object with the reference host-local's keys, plus runtimeConfig.ipRanges/ips,
 * args.cni.ips, CNI_ARGS IP.
 */
struct flat_ipam_conf {
	const char *data_dir;		 /* absolute */
	struct flat_json_list sets;	 /* struct flat_ip_range_set, in order: one address each */
	struct flat_json_list routes;	 /* struct flat_route */
	struct flat_dns dns;		 /* of resolvConf */
	struct flat_json_list requested; /* struct flat_ip */
};

/* The data directory where the configuration names none: ours, and the reference host-local's. */
#define FLAT_IPAM_DATA_DIR	 "/run/flatnet/ipam"
#define FLAT_IPAM_HOST_LOCAL_DIR "/var/lib/cni/networks"

/* Decodes and validates. data_dir is the default. `subnets` (struct flat_prefix; may be NULL) is
 * used, one range set each, when the configuration names no range at all; then no range at all is
 * code 7. Reads resolvConf. Memory is req's arena. Go-cni's flat list of runtimeConfig.ipRanges is
 * accepted as well as the list of lists. */
int flat_ipam_conf_parse(struct flat_request *req, const char *data_dir,
			 const struct flat_json_list *subnets, struct flat_ipam_conf *ret_conf,
			 struct flat_err *err);
extern const struct flat_json_field flat_ipam_fields[]; /* the keys that it reads */
/* Does the configuration name a range of its own (ipam.subnet, ipam.ranges or
 * runtimeConfig.ipRanges)? */
bool flat_ipam_conf_has_range(const struct flat_request *req);

/* ---- what only the kernel knows ----------------------------------------------------------------
 */

/* An attachment that a live link claims by its ifalias. */
struct flat_claim {
	const char *container_id, *ifname;
	const struct flat_ip *ips;
	size_t ip_count;
};

/* Who can tell which reservations are alive. The store asks only when it must: an exhausted range,
 * GC, an empty store.
 */
struct flat_ipam_witness {
	/* Takes a fresh look at the kernel; at most once per operation. */
	int (*look)(void *arg, struct flat_err *err);
	/* Does a link stand for this reservation? */
	bool (*is_alive)(void *arg, const char *container_id, const char *ifname,
			 const struct flat_ip *ip);
	/* Calls fn for each claim of this network's links; a negative return stops and is returned.
	 */
	int (*each_claim)(void *arg, int (*fn)(void *fn_arg, const struct flat_claim *claim),
			  void *fn_arg);
	/* Which of these addresses answer on the wire? May be NULL: then other programs'
	 * reservations are left alone.
	 */
	int (*probe)(void *arg, const struct flat_ip *ips, size_t count, bool *ret_answers,
		     struct flat_err *err);
	void *arg;
};

/* ---- the store ---------------------------------------------------------------------------------
 */

struct flat_store; /* the open directory of one network */

/* Opens <dataDir>/<network>, made when create is set. -ENOENT: not there, err not set. log may be
 * NULL. */
int flat_store_open(const struct flat_ipam_conf *conf, const char *network, bool create,
		    const struct flat_log *log, struct flat_store **ret_store,
		    struct flat_err *err);
void flat_store_close(struct flat_store *store); /* NULL is fine */
#define flat_auto_store __attribute__((cleanup(flat_store_closep))) struct flat_store
void flat_store_closep(struct flat_store **store);

enum { FLAT_MAX_LEASE = 16 };

struct flat_lease_ip {
	struct flat_prefix address; /* with the subnet's length */
	struct flat_ip gateway;
	int fd; /* the reservation, locked while the ADD is in flight */
};

/* What one ADD got: one address per range set. Close with flat_lease_close() (the reservations
 * stay). */
struct flat_lease {
	struct flat_lease_ip ips[FLAT_MAX_LEASE];
	size_t count;
};

/* Reserves one address of each range set for (container_id, ifname), or none at all: round robin
 * after the last one, the requested addresses first. witness != NULL: in-process reservation (see
 * above); when the store is empty it is rebuilt from the claims, when a range is exhausted the dead
 * are freed, before refusing. witness == NULL: a duplicate (container_id, ifname) is refused as the
 * reference does. Codes: FLAT_CODE_EXHAUSTED names range and counts, FLAT_CODE_IN_USE a requested
 * address and its owner. */
int flat_store_reserve(struct flat_store *store, const char *container_id, const char *ifname,
		       const struct flat_ipam_witness *witness, struct flat_lease *ret_lease,
		       struct flat_err *err);
void flat_lease_close(struct flat_lease *lease);
/* Undoes a reserve: removes exactly the lease's reservations. */
void flat_lease_release(struct flat_store *store, struct flat_lease *lease);

/* Frees what (container_id, ifname) has; the hinted addresses are looked at first, and alone when
 * they all were its (hint may be NULL: then all reservations are searched). Nothing found is
 * success. Empty or unreadable files are no error. Returns the number of addresses freed. */
int flat_store_release(struct flat_store *store, const char *container_id, const char *ifname,
		       const struct flat_ip *hint, size_t hint_count, struct flat_err *err);

/* CHECK: is each of these addresses reserved for (container_id, ifname)? Code FLAT_CODE_MISMATCH.
 * ips NULL: any one will do. */
int flat_store_check(struct flat_store *store, const char *container_id, const char *ifname,
		     const struct flat_ip *ips, size_t count, struct flat_err *err);

/* GC: frees what is not of a valid attachment, not in flight and not of a live link (witness may be
 * NULL: nobody tells). valid NULL: no list was given, only in-process reservations without a link
 * go. Empty and unreadable files go too. each_freed (may be NULL) hears of each. Goes on after
 * errors, reports the first. Returns the number of addresses freed. */
int flat_store_gc(struct flat_store *store, const struct flat_json_list *valid,
		  const struct flat_ipam_witness *witness,
		  void (*each_freed)(void *arg, const char *container_id, const char *ifname,
				     const struct flat_ip *ip),
		  void *arg, struct flat_err *err);

/* What was put right: an in-process reservation without a link, an empty or unreadable file (no
 * container ID), a reservation that a live link claims and that was not there. */
enum flat_heal { FLAT_HEAL_DEAD, FLAT_HEAL_BROKEN, FLAT_HEAL_LOST };
typedef void flat_heal_fn(void *arg, enum flat_heal what, const char *container_id,
			  const char *ifname, const struct flat_ip *ip);
/* Which addresses are reserved now, by address; without a lock. The caller frees. */
struct flat_reservation {
	struct flat_ip ip;
	uint64_t inode; /* of its file: of another number, it is another reservation */
};
int flat_store_list(struct flat_store *store, struct flat_reservation **ret_list, size_t *ret_count,
		    struct flat_err *err);

/* What the node agent does unasked: of these reservations (sorted by address) frees the dead, as
 * flat_store_gc() without a list does; then reserves again what live links claim and nobody has.
 * Does not wait: -EAGAIN (err not set) while somebody else writes to the store. each (may be NULL)
 * hears of each address. Returns how many. */
int flat_store_heal(struct flat_store *store, const struct flat_ipam_witness *witness,
		    const struct flat_reservation *doubtful, size_t count, flat_heal_fn *each,
		    void *arg, struct flat_err *err);

struct flat_owner {
	char *text; /* owned; the two below point into it */
	const char *container_id, *ifname;
	bool in_process; /* see above: it lives as long as its host veth */
};
/* Whose is it? 1: *ret_owner, free it; 0: nobody's; -EBADMSG: the file is empty or unreadable, err
 * not set. */
int flat_store_look_up(struct flat_store *store, const struct flat_ip *ip,
		       struct flat_owner *ret_owner, struct flat_err *err);
void flat_owner_free(struct flat_owner *owner); /* zeroed is fine */
#define flat_auto_owner __attribute__((cleanup(flat_owner_free))) struct flat_owner
/* Is it this attachment, its container ID in clear or hashed as in an ifalias? */
bool flat_owner_is(const struct flat_owner *owner, const char *container_id, const char *ifname);

/* How many addresses the default range of a subnet hands out; UINT64_MAX stands for more, 0: it is
 * too small for one. */
uint64_t flat_ipam_subnet_size(const struct flat_prefix *subnet);

/* Is the reservation of this address held by an ADD in flight? */
bool flat_store_is_in_flight(struct flat_store *store, const struct flat_ip *ip);

/* STATUS, without a side effect: code 50 when the directory cannot be written, or when a range set
 * has no address left even after healing would have freed the dead. A missing directory is fine
 * when its nearest parent can be written. */
int flat_ipam_status(const struct flat_ipam_conf *conf, const char *network,
		     const struct flat_ipam_witness *witness, struct flat_err *err);

/* ---- the plugin --------------------------------------------------------------------------------
 */

/* Carries out any CNI command but VERSION as an IPAM plugin, over the store in the default
 * directory data_dir; ADD writes its result to output_fd. It knows no links, so it never judges who
 * is alive. */
int flat_ipam_carry_out(struct flat_request *req, const char *data_dir, const struct flat_log *log,
			int output_fd, struct flat_err *err);
