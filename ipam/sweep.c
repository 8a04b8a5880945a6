// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation: who is dead.
 *
 * A reservation in flight (its ADD holds the lock of the file) is nobody's to judge. Else
 *  - an empty or unreadable file is dead: writers hold the directory's lock, and so do we;
 *  - one with our mark is dead when no link stands for it;
 *  - one without, another program's, is dead when no link stands for it and nobody answers at its
 *    address; without a way to ask, it lives.
 * GC may have a list of who is valid besides, and needs not ask then.
 */
#include "range.h"
#include "store.h"

#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
	PROBE_CHUNK = 256, /* asked at once; enough when some of them are silent */
	PROBE_MAX = 4096,  /* asked at all */
};

/* Both lists are sorted: *at moves along. */
static bool is_asked_for(const struct flat_census *census, const struct flat_entry *entry,
			 size_t *at)
{
	const struct flat_reservation *only = census->only;
	if (!only)
		return true;
	while (*at < census->only_count && flat_ip_compare(&only[*at].ip, &entry->ip) < 0)
		(*at)++;
	return *at < census->only_count && flat_ip_equal(&only[*at].ip, &entry->ip) &&
	       only[*at].inode == entry->inode;
}

int flat_census_take(struct flat_store *store, struct flat_census *census, bool locked,
		     struct flat_err *err)
{
	char name[FLAT_IP_TEXT];
	if (census->taken)
		return 0;
	int r = flat_listing_read(store, locked, &census->listing, err);
	if (r < 0)
		return r;
	for (size_t i = 0, at = 0; i < census->listing.count; i++) {
		struct flat_entry *entry = &census->listing.entries[i];
		if (!is_asked_for(census, entry, &at)) {
			entry->in_flight = true;
			continue;
		}
		int locked_by = flat_state_is_locked(store->dirfd, flat_ip_text(&entry->ip, name));
		/* cannot look is as good as locked, rather keep one too many; but what is no file
		 * at all (ELOOP: a symbolic link, ENXIO: a socket) is no reservation */
		entry->in_flight = locked_by > 0 ||
				   (locked_by < 0 && locked_by != -ELOOP && locked_by != -ENXIO);
	}
	if (census->witness) {
		r = census->witness->look(census->witness->arg, err);
		if (r < 0)
			return flat_wrap(err, "look which reservations of network '%s' are alive",
					 store->network);
	}
	census->taken = true;
	return 0;
}

void flat_census_free(struct flat_census *census)
{
	flat_listing_free(&census->listing);
}

static bool is_alive(const struct flat_ipam_witness *witness, const struct flat_record *record,
		     const struct flat_ip *ip)
{
	const char *id = record->container_id;
	char hashed[FLAT_STORE_HASHED];
	if (witness->is_alive(witness->arg, id, record->ifname, ip))
		return true;
	if (id[0] == '~')
		return false;
	/* a link's ifalias has the hash when the ID is too long for it */
	flat_record_hashed(id, hashed);
	return witness->is_alive(witness->arg, hashed, record->ifname, ip);
}

enum verdict { KEEP, DEAD, ASK };

static enum verdict judge(struct flat_store *store, const struct flat_census *census,
			  const struct flat_entry *entry, const char **ret_why)
{
	const struct flat_ipam_witness *witness = census->witness;
	flat_auto_record record = { 0 };
	struct flat_err ignored = { 0 };
	char name[FLAT_IP_TEXT];
	if (entry->in_flight || entry->gone)
		return KEEP;
	int r = flat_record_read(store, flat_ip_text(&entry->ip, name), &record, &ignored);
	if (r == -EBADMSG) {
		*ret_why = "its file is empty or unreadable";
		return DEAD;
	}
	if (r <= 0 || !witness || is_alive(witness, &record, &entry->ip))
		return KEEP;
	*ret_why = record.marked ? "its container has no link any more"
				 : "its container has no link and nobody answers there";
	if (record.marked)
		return DEAD;
	return witness->probe ? ASK : KEEP;
}

/* 1: it is free now; 0: it cannot be freed */
static int bury(struct flat_store *store, struct flat_entry *entry, const char *why, bool dry)
{
	char name[FLAT_IP_TEXT];
	flat_ip_text(&entry->ip, name);
	if (!dry && unlinkat(store->dirfd, name, 0) < 0 && errno != ENOENT) {
		flat_warn(store->log, "cannot remove reservation '%s/%s': %s", store->path, name,
			  strerror(errno));
		return 0;
	}
	entry->gone = true;
	if (!dry)
		flat_warn(store->log, "address %s of network '%s' is free again: %s", name,
			  store->network, why);
	return 1;
}

static int ask(struct flat_store *store, const struct flat_census *census, size_t *indices,
	       size_t count, bool dry, struct flat_err *err)
{
	const struct flat_ipam_witness *witness = census->witness;
	struct flat_ip ips[PROBE_CHUNK] = { 0 };
	bool answers[PROBE_CHUNK] = { false };
	int freed = 0;
	for (size_t i = 0; i < count; i++)
		ips[i] = census->listing.entries[indices[i]].ip;
	int r = witness->probe(witness->arg, ips, count, answers, err);
	if (r < 0)
		return flat_wrap(err, "ask which addresses of network '%s' answer", store->network);
	for (size_t i = 0; i < count; i++)
		if (!answers[i])
			freed += bury(store, &census->listing.entries[indices[i]],
				      "its container has no link and nobody answers there", dry);
	return freed;
}

int flat_census_heal(struct flat_store *store, struct flat_census *census,
		     const struct flat_ip_range_set *set, const struct flat_ip *only, bool dry,
		     struct flat_err *err)
{
	size_t doubtful[PROBE_CHUNK], count = 0, asked = 0;
	int freed = 0;
	for (size_t i = 0; i < census->listing.count; i++) {
		struct flat_entry *entry = &census->listing.entries[i];
		const char *why = "";
		if (only ? !flat_ip_equal(only, &entry->ip) : !flat_ipam_set_find(set, &entry->ip))
			continue;
		switch (judge(store, census, entry, &why)) {
		case KEEP:
			break;
		case DEAD:
			freed += bury(store, entry, why, dry);
			break;
		case ASK:
			/* for one wished-for address nobody's is put to the question */
			if (!only && count < PROBE_CHUNK)
				doubtful[count++] = i;
			break;
		}
		/* asking takes time: only while there is nothing free, and a chunk at a time */
		if (count == PROBE_CHUNK && !freed && asked < PROBE_MAX) {
			int r = ask(store, census, doubtful, count, dry, err);
			if (r < 0)
				return r;
			freed += r;
			asked += count;
			count = 0;
		}
	}
	if (count && !freed && asked < PROBE_MAX) {
		int r = ask(store, census, doubtful, count, dry, err);
		if (r < 0)
			return r;
		freed += r;
	}
	return freed;
}

/* ---- rebuild -----------------------------------------------------------------------------------
 */

struct rebuild {
	struct flat_store *store;
	const struct flat_listing *listing;
	flat_heal_fn *each;
	void *arg;
	struct flat_err *err;
	unsigned written;
};

static int write_claim(void *arg, const struct flat_claim *claim)
{
	struct rebuild *rebuild = arg;
	struct flat_store *store = rebuild->store;
	char name[FLAT_IP_TEXT];
	size_t len;
	flat_auto_free char *text = NULL;
	for (size_t i = 0; i < claim->ip_count; i++) {
		flat_auto_fd fd = -1;
		const struct flat_entry *entry =
			flat_listing_find(rebuild->listing, &claim->ips[i]);
		if (entry && !entry->gone)
			continue;
		if (!text)
			text = flat_record_text(claim->container_id, claim->ifname, true, &len);
		if (!text)
			return flat_fail(rebuild->err, FLAT_CODE_IO, ENOMEM, "make a reservation");
		int r = flat_state_create(store->dirfd, flat_ip_text(&claim->ips[i], name), text,
					  len, &fd, rebuild->err);
		if (r < 0 && r != -EEXIST)
			return r;
		rebuild->written += r == 0;
		if (r == 0 && rebuild->each)
			rebuild->each(rebuild->arg, FLAT_HEAL_LOST, claim->container_id,
				      claim->ifname, &claim->ips[i]);
	}
	return 0;
}

int flat_store_rebuild(struct flat_store *store, const struct flat_census *census,
		       flat_heal_fn *each, void *arg, struct flat_err *err)
{
	const struct flat_ipam_witness *witness = census->witness;
	struct rebuild rebuild = {
		.store = store,
		.listing = &census->listing,
		.each = each,
		.arg = arg,
		.err = err,
	};
	int r = witness->each_claim(witness->arg, write_claim, &rebuild);
	if (r < 0) {
		flat_fail(err, FLAT_CODE_IO, -r, "read which addresses live links claim");
		flat_wrap(err, "rebuild the reservations in '%s' from the live links", store->path);
		return r;
	}
	if (rebuild.written)
		flat_warn(store->log, "rebuilt %u lost reservations in '%s' from the live links",
			  rebuild.written, store->path);
	return (int)rebuild.written;
}

/* ---- GC ----------------------------------------------------------------------------------------
 */

/* Without a list of the valid only our own mark tells enough, and only to who can see the links. */
static bool gc_keeps(const struct flat_json_list *valid, const struct flat_ipam_witness *witness,
		     const struct flat_record *record, const struct flat_ip *ip)
{
	if (witness && is_alive(witness, record, ip))
		return true;
	if (!valid)
		return !witness || !record->marked;
	const struct flat_attachment_id *ids = valid->items;
	for (size_t i = 0; i < valid->count; i++)
		if (flat_record_is_of(record, ids[i].container_id, ids[i].ifname))
			return true;
	return false;
}

typedef void freed_fn(void *arg, const char *container_id, const char *ifname,
		      const struct flat_ip *ip);

/* The lock is held, and the census taken. */
static int free_stale(struct flat_store *store, struct flat_census *census,
		      const struct flat_json_list *valid, freed_fn *each_freed, void *arg,
		      struct flat_err *err)
{
	int freed = 0, first = 0;
	for (size_t i = 0; i < census->listing.count; i++) {
		struct flat_entry *entry = &census->listing.entries[i];
		flat_auto_record record = { 0 };
		char name[FLAT_IP_TEXT];
		if (entry->in_flight)
			continue;
		int r = flat_record_read(store, flat_ip_text(&entry->ip, name), &record, err);
		if (r < 0 && r != -EBADMSG && !first)
			first = r;
		if (r == 0 || (r < 0 && r != -EBADMSG))
			continue;
		bool broken = r == -EBADMSG;
		if (!broken && gc_keeps(valid, census->witness, &record, &entry->ip))
			continue;
		if (unlinkat(store->dirfd, name, 0) < 0) {
			int sys = errno;
			if (sys != ENOENT && !first)
				first = flat_fail(err, FLAT_CODE_IO, sys, "remove '%s/%s'",
						  store->path, name);
			continue;
		}
		entry->gone = true;
		freed++;
		if (broken)
			flat_warn(store->log, "removed '%s/%s': it is empty or unreadable",
				  store->path, name);
		if (each_freed)
			each_freed(arg, broken ? "" : record.container_id,
				   broken ? "" : record.ifname, &entry->ip);
	}
	return first ? first : freed;
}

int flat_store_gc(struct flat_store *store, const struct flat_json_list *valid,
		  const struct flat_ipam_witness *witness,
		  void (*each_freed)(void *arg, const char *container_id, const char *ifname,
				     const struct flat_ip *ip),
		  void *arg, struct flat_err *err)
{
	flat_auto_fd lock = -1;
	int r = flat_store_lock(store, FLAT_STORE_LOCK_MS, &lock, err);
	if (r < 0)
		return r;
	flat_auto_census census = { .witness = witness };
	r = flat_census_take(store, &census, true, err);
	return r < 0 ? r : free_stale(store, &census, valid, each_freed, arg, err);
}

/* ---- healing without being asked ---------------------------------------------------------------
 */

struct heal {
	flat_heal_fn *each;
	void *arg;
};

static void tell_freed(void *arg, const char *container_id, const char *ifname,
		       const struct flat_ip *ip)
{
	const struct heal *heal = arg;
	if (heal->each)
		heal->each(heal->arg, container_id[0] ? FLAT_HEAL_DEAD : FLAT_HEAL_BROKEN,
			   container_id, ifname, ip);
}

int flat_store_heal(struct flat_store *store, const struct flat_ipam_witness *witness,
		    const struct flat_reservation *doubtful, size_t count, flat_heal_fn *each,
		    void *arg, struct flat_err *err)
{
	static const struct flat_reservation none;
	struct heal heal = { each, arg };
	flat_auto_fd lock = -1;
	struct flat_err busy = { 0 };
	int r = flat_store_lock(store, 0, &lock, &busy);
	if (r == -ETIMEDOUT)
		return -EAGAIN;
	if (r < 0) {
		if (err && err->code == FLAT_CODE_NONE)
			*err = busy;
		return r;
	}
	flat_auto_census census = {
		.witness = witness,
		.only = count ? doubtful : &none,
		.only_count = count,
	};
	r = flat_census_take(store, &census, true, err);
	if (r < 0)
		return r;
	/* in this order: a link's claim stands, though its file was broken */
	int freed = free_stale(store, &census, NULL, tell_freed, &heal, err);
	int written = flat_store_rebuild(store, &census, each, arg, freed < 0 ? NULL : err);
	return freed < 0 ? freed : written < 0 ? written : freed + written;
}

/* ---- looking -----------------------------------------------------------------------------------
 */

int flat_store_list(struct flat_store *store, struct flat_reservation **ret_list, size_t *ret_count,
		    struct flat_err *err)
{
	flat_auto_listing listing = { 0 };
	int r = flat_listing_read(store, false, &listing, err);
	if (r < 0)
		return r;
	struct flat_reservation *list = calloc(listing.count + 1, sizeof *list);
	if (!list)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "read directory '%s'", store->path);
	for (size_t i = 0; i < listing.count; i++)
		list[i] = (struct flat_reservation){ listing.entries[i].ip,
						     listing.entries[i].inode };
	*ret_list = list;
	*ret_count = listing.count;
	return 0;
}

int flat_store_look_up(struct flat_store *store, const struct flat_ip *ip,
		       struct flat_owner *ret_owner, struct flat_err *err)
{
	struct flat_record record = { 0 };
	char name[FLAT_IP_TEXT];
	int r = flat_record_read(store, flat_ip_text(ip, name), &record, err);
	if (r > 0)
		*ret_owner = (struct flat_owner){ record.text, record.container_id, record.ifname,
						  record.marked };
	return r;
}

void flat_owner_free(struct flat_owner *owner)
{
	flat_free_ptr(&owner->text);
}

bool flat_owner_is(const struct flat_owner *owner, const char *container_id, const char *ifname)
{
	const struct flat_record record = {
		.container_id = owner->container_id,
		.ifname = owner->ifname,
	};
	char hashed[FLAT_STORE_HASHED];
	if (flat_record_is_of(&record, container_id, ifname))
		return true;
	/* the other way round: a link's ifalias may have the hash */
	flat_record_hashed(owner->container_id, hashed);
	return container_id[0] == '~' && !strcmp(container_id, hashed) &&
	       (!owner->ifname[0] || !strcmp(owner->ifname, ifname));
}

/* ---- STATUS ------------------------------------------------------------------------------------
 */

static int not_ready(struct flat_err *err, int sys, const char *what, const char *path)
{
	flat_fail(err, FLAT_CODE_NOT_READY, sys, "%s '%s'", what, path);
	return flat_detail(err,
			   "no pod can get an address before '%s' can be written: see whether "
			   "its file system is full or read-only, or set ipam.dataDir",
			   path);
}

/* The directory, or what stands in the place where it would be made. */
static int check_parent(const char *path, struct flat_err *err)
{
	flat_auto_free char *part = strdup(path);
	if (!part)
		return flat_fail(err, FLAT_CODE_NOT_READY, ENOMEM, "look at '%s'", path);
	for (;;) {
		char *slash = strrchr(part, '/');
		if (!slash)
			return 0;
		slash[slash == part] = '\0';
		if (!faccessat(AT_FDCWD, part, W_OK | X_OK, AT_EACCESS))
			return 0;
		if (errno != ENOENT || !strcmp(part, "/"))
			return not_ready(err, errno, "cannot make a directory in", part);
	}
}

static int check_writable(struct flat_store *store, struct flat_err *err)
{
	struct statvfs fs;
	if (faccessat(store->dirfd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return not_ready(err, errno, "cannot write to", store->path);
	if (fstatvfs(store->dirfd, &fs) < 0)
		return 0;
	/* some file systems do not count: zero in all */
	if ((fs.f_blocks && !fs.f_bfree) || (fs.f_files && !fs.f_ffree))
		return not_ready(err, ENOSPC, "cannot write to", store->path);
	return 0;
}

static int check_free(struct flat_store *store, struct flat_census *census,
		      const struct flat_listing *listing, size_t i, struct flat_err *err)
{
	const struct flat_ip_range_set *set =
		&((const struct flat_ip_range_set *)store->conf.sets.items)[i];
	char text[FLAT_IPAM_SET_TEXT];
	uint64_t taken = flat_listing_count(listing, set);
	if (taken < flat_ipam_set_size(set))
		return 0;
	int r = flat_census_take(store, census, false, err);
	if (r >= 0)
		r = flat_census_heal(store, census, set, NULL, true, err);
	if (r > 0)
		return 0;
	if (r < 0) {
		if (err)
			err->code = FLAT_CODE_NOT_READY;
		return r;
	}
	flat_fail(
		err, FLAT_CODE_NOT_READY, 0,
		"no free address in range set %s of network '%s': all %llu are reserved in '%s'%s",
		flat_ipam_set_text(set, text), store->network, (unsigned long long)taken,
		store->path, census->witness ? " by living containers" : "");
	flat_detail(err, "delete pods, or give the node a larger subnet");
	return -ENOSPC;
}

int flat_ipam_status(const struct flat_ipam_conf *conf, const char *network,
		     const struct flat_ipam_witness *witness, struct flat_err *err)
{
	flat_auto_store *store = NULL;
	int r = flat_store_open(conf, network, false, NULL, &store, err);
	if (r == -ENOENT) {
		flat_auto_free char *path = NULL;
		if (asprintf(&path, "%s/%s", conf->data_dir, network) < 0)
			return flat_fail(err, FLAT_CODE_NOT_READY, ENOMEM, "look at '%s'",
					 conf->data_dir);
		return check_parent(path, err);
	}
	if (r < 0) {
		if (err)
			err->code = FLAT_CODE_NOT_READY;
		return r;
	}
	r = check_writable(store, err);
	if (r < 0)
		return r;
	flat_auto_listing listing = { 0 };
	r = flat_listing_read(store, false, &listing, err);
	if (r < 0) {
		if (err)
			err->code = FLAT_CODE_NOT_READY;
		return r;
	}
	flat_auto_census census = { .witness = witness };
	for (size_t i = 0; i < conf->sets.count; i++) {
		r = check_free(store, &census, &listing, i, err);
		if (r < 0)
			return r;
	}
	return 0;
}
