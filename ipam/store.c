// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation: reserving.
 *
 * Writers hold the directory's lock for a few file operations each. The next address after the last
 * one given is tried by creating its file; while the range has room, that costs the same with one
 * pod as with a thousand. Only when several in a row are taken the directory is read, once. Only
 * when that finds nothing, the dead are looked for (see sweep.c), and then the directory is read
 * once more.
 */
#include "store.h"
#include "range.h"

#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	QUICK_TRIES = 4,
	LAST_NAME = 40,
};

/* ---- opening -----------------------------------------------------------------------------------
 */

int flat_store_open(const struct flat_ipam_conf *conf, const char *network, bool create,
		    const struct flat_log *log, struct flat_store **ret_store, struct flat_err *err)
{
	flat_auto_fd data_fd = -1;
	int r = flat_state_open_dir(conf->data_dir, create, &data_fd, err);
	if (r < 0)
		return r == -ENOENT && !create ? r : flat_wrap(err, "address store");
	flat_auto_store *store = calloc(1, sizeof *store);
	if (!store)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "open address store '%s/%s'",
				 conf->data_dir, network);
	store->dirfd = -1;
	store->conf = *conf;
	store->log = log;
	size_t len = strlen(conf->data_dir);
	if (asprintf(&store->path, "%s%s%s", conf->data_dir,
		     len && conf->data_dir[len - 1] == '/' ? "" : "/", network) < 0) {
		store->path = NULL;
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "open address store '%s/%s'",
				 conf->data_dir, network);
	}
	store->network = store->path + strlen(store->path) - strlen(network);
	r = flat_state_open_subdir(data_fd, network, create, &store->dirfd, err);
	if (r < 0)
		return r == -ENOENT && !create
			       ? r
			       : flat_wrap(err, "address store in '%s'", conf->data_dir);
	*ret_store = store;
	store = NULL;
	return 0;
}

void flat_store_close(struct flat_store *store)
{
	if (!store)
		return;
	flat_close_fd(&store->dirfd);
	free(store->path);
	free(store);
}

void flat_store_closep(struct flat_store **store)
{
	flat_store_close(*store);
	*store = NULL;
}

int flat_store_lock(struct flat_store *store, int timeout_ms, int *ret_fd, struct flat_err *err)
{
	int r = flat_state_lock(store->dirfd, "lock", LOCK_EX, timeout_ms, ret_fd, err);
	return r < 0 ? flat_wrap(err, "address store '%s'", store->path) : 0;
}

bool flat_store_is_in_flight(struct flat_store *store, const struct flat_ip *ip)
{
	char name[FLAT_IP_TEXT];
	return flat_state_is_locked(store->dirfd, flat_ip_text(ip, name)) == 1;
}

/* ---- reserving ---------------------------------------------------------------------------------
 */

struct reserve {
	struct flat_store *store;
	const char *container_id, *ifname;
	char *text; /* of the reservation */
	size_t len;
	struct flat_census census;
	struct flat_lease lease;
	struct flat_err *err;
};

static void reserve_end(struct reserve *op)
{
	free(op->text);
	flat_census_free(&op->census);
}

static const struct flat_ip_range_set *set_at(const struct flat_store *store, size_t i)
{
	return &((const struct flat_ip_range_set *)store->conf.sets.items)[i];
}

static const char *last_name(size_t set, char *buf)
{
	snprintf(buf, LAST_NAME, "last_reserved_ip.%zu", set);
	return buf;
}

/* The last address given from a set. 0: none, or none that can be understood. */
static int read_last(struct flat_store *store, size_t set, struct flat_ip *ret_ip)
{
	char name[LAST_NAME];
	flat_auto_free char *text = NULL;
	*ret_ip = (struct flat_ip){ 0 };
	int r = flat_state_read(store->dirfd, last_name(set, name), FLAT_IP_TEXT, &text, NULL);
	if (r < 0)
		return r == -ENOENT ? -ENOENT : 0;
	text[strcspn(text, " \t\r\n")] = '\0';
	return flat_ip_parse(text, ret_ip);
}

/* 1: the address is ours; 0: it is taken */
static int take(struct reserve *op, size_t set, const struct flat_ip *ip)
{
	struct flat_store *store = op->store;
	const struct flat_ip_range *range = flat_ipam_set_find(set_at(store, set), ip);
	char name[FLAT_IP_TEXT], last[LAST_NAME];
	flat_auto_fd fd = -1;
	flat_ip_text(ip, name);
	int r = flat_state_create(store->dirfd, name, op->text, op->len, &fd, op->err);
	if (r == -EEXIST)
		return 0;
	if (r < 0)
		return flat_wrap(op->err, "reserve an address in '%s'", store->path);
	r = flat_state_replace(store->dirfd, last_name(set, last), name, strlen(name), op->err);
	if (r < 0) {
		unlinkat(store->dirfd, name, 0);
		return flat_wrap(op->err, "reserve an address in '%s'", store->path);
	}
	op->lease.ips[op->lease.count++] = (struct flat_lease_ip){
		.address = { .ip = *ip, .len = range->subnet.len },
		.gateway = range->gateway,
		.fd = fd,
	};
	fd = -1;
	return 1;
}

static int take_quickly(struct reserve *op, size_t set, const struct flat_ip *last)
{
	struct flat_ip ip = *last;
	for (int i = 0; i < QUICK_TRIES && flat_ipam_set_next(set_at(op->store, set), &ip, &ip);
	     i++) {
		int r = take(op, set, &ip);
		if (r)
			return r;
	}
	return 0;
}

static int take_thoroughly(struct reserve *op, size_t set, const struct flat_ip *last)
{
	flat_auto_listing listing = { 0 };
	struct flat_ip ip = *last;
	int r = flat_listing_read(op->store, true, &listing, op->err);
	if (r < 0)
		return r;
	uint64_t steps = flat_listing_count(&listing, set_at(op->store, set));
	if (steps >= flat_ipam_set_size(set_at(op->store, set)))
		return 0;
	/* after as many steps as there are files, a free one has been met; some more for writers
	 * who know nothing of the lock */
	steps += QUICK_TRIES;
	while (steps-- && flat_ipam_set_next(set_at(op->store, set), &ip, &ip)) {
		if (flat_listing_find(&listing, &ip))
			continue;
		r = take(op, set, &ip);
		if (r)
			return r;
	}
	return 0;
}

static int fail_exhausted(struct reserve *op, size_t set)
{
	struct flat_store *store = op->store;
	char text[FLAT_IPAM_SET_TEXT];
	flat_auto_listing listing = { 0 };
	struct flat_err ignored = { 0 };
	flat_listing_read(store, true, &listing, &ignored);
	flat_fail(op->err, FLAT_CODE_EXHAUSTED, 0,
		  "failed to allocate for range %zu: no IP addresses available in range set: %s: "
		  "network '%s' has %llu of %llu reserved in '%s', %s",
		  set, flat_ipam_set_text(set_at(store, set), text), store->network,
		  (unsigned long long)flat_listing_count(&listing, set_at(store, set)),
		  (unsigned long long)flat_ipam_set_size(set_at(store, set)), store->path,
		  op->census.witness ? "0 of them by dead containers"
				     : "dead containers among them are not known here");
	flat_detail(
		op->err,
		op->census.witness
			? "delete pods, or give the node a larger subnet"
			: "delete pods, give the node a larger subnet, or let the runtime run GC "
			  "(CNI 1.1) to free addresses of dead containers");
	return -ENOSPC;
}

static int reserve_any(struct reserve *op, size_t set, const struct flat_ip *last)
{
	int r = take_quickly(op, set, last);
	if (r)
		return r;
	r = take_thoroughly(op, set, last);
	if (r)
		return r;
	r = flat_census_take(op->store, &op->census, true, op->err);
	if (r < 0)
		return r;
	r = flat_census_heal(op->store, &op->census, set_at(op->store, set), NULL, false, op->err);
	if (r < 0)
		return r;
	if (r > 0) {
		r = take_thoroughly(op, set, last);
		if (r)
			return r;
	}
	return fail_exhausted(op, set);
}

static int reserve_requested(struct reserve *op, size_t set, const struct flat_ip *ip)
{
	struct flat_store *store = op->store;
	char name[FLAT_IP_TEXT], text[FLAT_IPAM_SET_TEXT];
	flat_ip_text(ip, name);
	if (flat_ipam_set_is_gateway(set_at(store, set), ip))
		return flat_fail(op->err, FLAT_CODE_IN_USE, 0,
				 "failed to allocate for range %zu: requested ip %s is subnet's "
				 "gateway",
				 set, name);
	int r = take(op, set, ip);
	if (r)
		return r;
	r = flat_census_take(store, &op->census, true, op->err);
	if (r < 0)
		return r;
	r = flat_census_heal(store, &op->census, set_at(store, set), ip, false, op->err);
	if (r < 0)
		return r;
	r = r > 0 ? take(op, set, ip) : 0;
	if (r)
		return r;
	flat_auto_record owner = { 0 };
	bool known = flat_record_read(store, name, &owner, NULL) == 1;
	flat_fail(op->err, FLAT_CODE_IN_USE, 0,
		  "failed to allocate for range %zu: requested IP address %s is not available in "
		  "range set %s: %s%.80s%s%.16s%s has it",
		  set, name, flat_ipam_set_text(set_at(store, set), text),
		  known ? "container '" : "somebody", known ? owner.container_id : "",
		  known ? "' (" : "", known ? (owner.ifname[0] ? owner.ifname : "any") : "",
		  known ? ")" : "");
	flat_detail(op->err, "delete that pod, or request another address ('%s/%s')", store->path,
		    name);
	return -EADDRINUSE;
}

/* Which requested address is for which set? The reference takes one for each, and all must fit. */
static int assign_requested(struct reserve *op, const struct flat_ip **for_set)
{
	const struct flat_ipam_conf *conf = &op->store->conf;
	const struct flat_ip *ips = conf->requested.items;
	for (size_t i = 0; i < conf->requested.count; i++) {
		bool placed = false;
		for (size_t j = 0; j < i && !placed; j++)
			placed = flat_ip_equal(&ips[i], &ips[j]);
		for (size_t set = 0; set < conf->sets.count && !placed; set++) {
			bool inside = flat_ipam_set_find(set_at(op->store, set), &ips[i]) ||
				      flat_ipam_set_is_gateway(set_at(op->store, set), &ips[i]);
			if (for_set[set] || !inside)
				continue;
			for_set[set] = &ips[i];
			placed = true;
		}
		if (!placed) {
			char text[FLAT_IP_TEXT];
			flat_fail(op->err, FLAT_CODE_CONFIG, 0,
				  "failed to allocate all requested IPs: %s",
				  flat_ip_text(&ips[i], text));
			return flat_detail(op->err,
					   "each must lie in a range set of network '%s', "
					   "one in each",
					   op->store->network);
		}
	}
	return 0;
}

/* Who calls us as a program of its own cannot tell whether an earlier address is still in use: as
 * the reference, refuse. */
static int refuse_duplicate(struct reserve *op)
{
	struct flat_store *store = op->store;
	flat_auto_listing listing = { 0 };
	int r = flat_listing_read(store, true, &listing, op->err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < listing.count; i++) {
		const struct flat_ip *ip = &listing.entries[i].ip;
		flat_auto_record record = { 0 };
		char name[FLAT_IP_TEXT];
		size_t set = 0;
		while (set < store->conf.sets.count && !flat_ipam_set_find(set_at(store, set), ip))
			set++;
		if (set == store->conf.sets.count)
			continue;
		r = flat_record_read(store, flat_ip_text(ip, name), &record, op->err);
		if (r < 0 && r != -EBADMSG)
			return r;
		if (r != 1 || !flat_record_is_of(&record, op->container_id, op->ifname))
			continue;
		flat_fail(op->err, FLAT_CODE_IN_USE, 0,
			  "failed to allocate for range %zu: %s has been allocated to %.128s, "
			  "duplicate allocation is not allowed",
			  set, name, op->container_id);
		flat_detail(op->err, "DEL the container's interface '%s' first", op->ifname);
		return -EEXIST;
	}
	return 0;
}

/* A directory without any last_reserved_ip.* has never been used, or was lost. */
static int rebuild_if_empty(struct reserve *op)
{
	flat_auto_listing listing = { 0 };
	int r = flat_listing_read(op->store, true, &listing, op->err);
	if (r < 0 || listing.has_last)
		return r;
	r = flat_census_take(op->store, &op->census, true, op->err);
	if (r < 0)
		return r;
	return flat_store_rebuild(op->store, &op->census, NULL, NULL, op->err);
}

static int reserve_all(struct reserve *op)
{
	const struct flat_ipam_conf *conf = &op->store->conf;
	const struct flat_ip *requested[FLAT_MAX_LEASE] = { NULL };
	int r = assign_requested(op, requested);
	if (r >= 0 && !op->census.witness)
		r = refuse_duplicate(op);
	for (size_t set = 0; set < conf->sets.count && r >= 0; set++) {
		struct flat_ip last;
		int known = read_last(op->store, set, &last);
		if (set == 0 && known == -ENOENT && op->census.witness)
			r = rebuild_if_empty(op);
		if (r >= 0)
			r = requested[set] ? reserve_requested(op, set, requested[set])
					   : reserve_any(op, set, &last);
	}
	return r;
}

/* Removes exactly what the lease has: the file must still be the one that we created. */
static void remove_leased(struct flat_store *store, struct flat_lease *lease)
{
	for (size_t i = 0; i < lease->count; i++) {
		struct flat_lease_ip *ip = &lease->ips[i];
		char name[FLAT_IP_TEXT];
		struct stat mine, there;
		flat_ip_text(&ip->address.ip, name);
		if (ip->fd >= 0 && !fstat(ip->fd, &mine) &&
		    !fstatat(store->dirfd, name, &there, AT_SYMLINK_NOFOLLOW) &&
		    mine.st_ino == there.st_ino && mine.st_dev == there.st_dev &&
		    unlinkat(store->dirfd, name, 0) < 0)
			flat_warn(store->log, "cannot remove reservation '%s/%s': %s", store->path,
				  name, strerror(errno));
		flat_close_fd(&ip->fd);
	}
	lease->count = 0;
}

int flat_store_reserve(struct flat_store *store, const char *container_id, const char *ifname,
		       const struct flat_ipam_witness *witness, struct flat_lease *ret_lease,
		       struct flat_err *err)
{
	if (store->conf.sets.count > FLAT_MAX_LEASE)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "network '%s' has %zu range sets; at most %d are possible",
				 store->network, store->conf.sets.count, FLAT_MAX_LEASE);
	if (!store->conf.sets.count)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "no IP ranges specified");
	__attribute__((cleanup(reserve_end))) struct reserve op = {
		.store = store,
		.container_id = container_id,
		.ifname = ifname,
		.census.witness = witness,
		.err = err,
	};
	op.text = flat_record_text(container_id, ifname, witness != NULL, &op.len);
	if (!op.text)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "reserve an address");
	flat_auto_fd lock = -1;
	int r = flat_store_lock(store, FLAT_STORE_LOCK_MS, &lock, err);
	if (r < 0)
		return r;
	r = reserve_all(&op);
	if (r < 0) {
		remove_leased(store, &op.lease);
		return r;
	}
	*ret_lease = op.lease;
	return 0;
}

void flat_lease_close(struct flat_lease *lease)
{
	for (size_t i = 0; i < lease->count; i++)
		flat_close_fd(&lease->ips[i].fd);
	lease->count = 0;
}

void flat_lease_release(struct flat_store *store, struct flat_lease *lease)
{
	flat_auto_fd lock = -1;
	struct flat_err err = { 0 };
	/* our own lock on the files keeps sweepers away; without the directory's lock it is
	 * still better to remove than to leak */
	if (flat_store_lock(store, FLAT_STORE_LOCK_MS, &lock, &err) < 0)
		flat_warn(store->log, "%s", err.msg);
	remove_leased(store, lease);
}

/* ---- releasing and checking --------------------------------------------------------------------
 */

/* 1: freed; 0: not its. hinted: a broken file there was its, too. */
static int release_one(struct flat_store *store, const char *container_id, const char *ifname,
		       const struct flat_ip *ip, bool hinted, struct flat_err *err)
{
	flat_auto_record record = { 0 };
	char name[FLAT_IP_TEXT];
	int r = flat_record_read(store, flat_ip_text(ip, name), &record, err);
	if (r == -EBADMSG && !hinted)
		return 0;
	if (r == -EBADMSG)
		flat_warn(store->log, "reservation '%s/%s' is empty or unreadable: removing it",
			  store->path, name);
	else if (r <= 0)
		return r;
	else if (!flat_record_is_of(&record, container_id, ifname))
		return 0;
	if (unlinkat(store->dirfd, name, 0) < 0 && errno != ENOENT) {
		if (r == -EBADMSG)
			return 0; /* a directory, say: in nobody's way on DEL */
		return flat_fail(err, FLAT_CODE_IO, errno, "release '%s/%s'", store->path, name);
	}
	return 1;
}

int flat_store_release(struct flat_store *store, const char *container_id, const char *ifname,
		       const struct flat_ip *hint, size_t hint_count, struct flat_err *err)
{
	flat_auto_fd lock = -1;
	int r = flat_store_lock(store, FLAT_STORE_LOCK_MS, &lock, err);
	if (r < 0)
		return r;
	int freed = 0, first = 0;
	size_t its = 0;
	for (size_t i = 0; hint && i < hint_count; i++) {
		r = release_one(store, container_id, ifname, &hint[i], true, err);
		if (r < 0 && !first)
			first = r;
		if (r > 0) {
			freed++;
			its++;
		}
	}
	if (hint && hint_count && its == hint_count)
		return freed;
	flat_auto_listing listing = { 0 };
	r = flat_listing_read(store, true, &listing, err);
	if (r < 0)
		return first ? first : r;
	for (size_t i = 0; i < listing.count; i++) {
		r = release_one(store, container_id, ifname, &listing.entries[i].ip, false, err);
		if (r < 0 && !first)
			first = r;
		freed += r > 0;
	}
	return first ? first : freed;
}

static int fail_check(struct flat_store *store, const char *container_id, const char *ifname,
		      const char *name, int found, const struct flat_record *owner,
		      struct flat_err *err)
{
	if (found == 1)
		flat_fail(err, FLAT_CODE_MISMATCH, 0,
			  "address %s is reserved for container '%.80s' (%.16s), not for '%.80s' "
			  "(%.16s)",
			  name, owner->container_id, owner->ifname, container_id, ifname);
	else
		flat_fail(err, FLAT_CODE_MISMATCH, 0,
			  "address %s of container '%.80s' (%.16s) is not reserved: '%s/%s' %s",
			  name, container_id, ifname, store->path, name,
			  found == 0 ? "is missing" : "is empty or unreadable");
	return flat_detail(err, "restart the pod, so that it gets an address of its own");
}

int flat_store_check(struct flat_store *store, const char *container_id, const char *ifname,
		     const struct flat_ip *ips, size_t count, struct flat_err *err)
{
	for (size_t i = 0; ips && i < count; i++) {
		flat_auto_record record = { 0 };
		char name[FLAT_IP_TEXT];
		int r = flat_record_read(store, flat_ip_text(&ips[i], name), &record, err);
		if (r < 0 && r != -EBADMSG)
			return r;
		if (r != 1 || !flat_record_is_of(&record, container_id, ifname))
			return fail_check(store, container_id, ifname, name, r, &record, err);
	}
	if (ips)
		return 0;
	flat_auto_listing listing = { 0 };
	int r = flat_listing_read(store, false, &listing, err);
	for (size_t i = 0; r >= 0 && i < listing.count; i++) {
		flat_auto_record record = { 0 };
		char name[FLAT_IP_TEXT];
		r = flat_record_read(store, flat_ip_text(&listing.entries[i].ip, name), &record,
				     err);
		if (r == 1 && flat_record_is_of(&record, container_id, ifname))
			return 0;
		if (r == -EBADMSG)
			r = 0;
	}
	if (r < 0)
		return r;
	flat_fail(err, FLAT_CODE_MISMATCH, 0,
		  "no address is reserved for container '%.128s' (%.16s) in '%s'", container_id,
		  ifname, store->path);
	return flat_detail(err, "restart the pod, so that it gets an address of its own");
}
