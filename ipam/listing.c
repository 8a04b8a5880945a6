// SPDX-License-Identifier: Apache-2.0
#include "range.h"
#include "store.h"

#include <flatnet/state.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
	return flat_ip_compare(&((const struct flat_entry *)a)->ip,
			       &((const struct flat_entry *)b)->ip);
}

static int append(struct flat_listing *listing, size_t *size, const struct flat_ip *ip,
		  uint64_t inode)
{
	if (listing->count == *size) {
		size_t want = *size ? 2 * *size : 256;
		void *more = realloc(listing->entries, want * sizeof *listing->entries);
		if (!more)
			return -ENOMEM;
		listing->entries = more;
		*size = want;
	}
	listing->entries[listing->count++] = (struct flat_entry){ .ip = *ip, .inode = inode };
	return 0;
}

void flat_listing_free(struct flat_listing *listing)
{
	free(listing->entries);
	*listing = (struct flat_listing){ 0 };
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

int flat_listing_read(struct flat_store *store, bool locked, struct flat_listing *ret_listing,
		      struct flat_err *err)
{
	/* opened anew: a duplicate would share its position with others */
	int fd = openat(store->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__attribute__((cleanup(closedirp))) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int sys = errno;
		if (fd >= 0)
			close(fd);
		return flat_fail(err, FLAT_CODE_IO, sys, "read directory '%s'", store->path);
	}
	flat_auto_listing listing = { 0 };
	size_t size = 0, seen = 0;
	for (;;) {
		errno = 0;
		const struct dirent *d = readdir(dir);
		if (!d && errno)
			return flat_fail(err, FLAT_CODE_IO, errno, "read directory '%s'",
					 store->path);
		if (!d)
			break;
		if (++seen > FLAT_STORE_MAX_ENTRIES)
			return flat_fail(err, FLAT_CODE_IO, EFBIG,
					 "directory '%s' has more than %d files", store->path,
					 FLAT_STORE_MAX_ENTRIES);
		struct flat_ip ip;
		char text[FLAT_IP_TEXT];
		if (!strncmp(d->d_name, "last_reserved_ip.", strlen("last_reserved_ip."))) {
			listing.has_last = true;
		} else if (locked && !strncmp(d->d_name, FLAT_STATE_TEMP_PREFIX,
					      strlen(FLAT_STATE_TEMP_PREFIX))) {
			unlinkat(store->dirfd, d->d_name, 0);
		} else if (flat_ip_parse(d->d_name, &ip) &&
			   !strcmp(flat_ip_text(&ip, text), d->d_name)) {
			if (append(&listing, &size, &ip, d->d_ino) < 0)
				return flat_fail(err, FLAT_CODE_IO, ENOMEM, "read directory '%s'",
						 store->path);
		}
	}
	if (listing.count)
		qsort(listing.entries, listing.count, sizeof *listing.entries, compare);
	*ret_listing = listing;
	listing.entries = NULL;
	return 0;
}

const struct flat_entry *flat_listing_find(const struct flat_listing *listing,
					   const struct flat_ip *ip)
{
	struct flat_entry key = { .ip = *ip };
	if (!listing->count)
		return NULL;
	return bsearch(&key, listing->entries, listing->count, sizeof key, compare);
}

uint64_t flat_listing_count(const struct flat_listing *listing, const struct flat_ip_range_set *set)
{
	uint64_t n = 0;
	for (size_t i = 0; i < listing->count; i++)
		n += flat_ipam_set_find(set, &listing->entries[i].ip) &&
		     !flat_ipam_set_is_gateway(set, &listing->entries[i].ip);
	return n;
}
