// SPDX-License-Identifier: Apache-2.0
/* One look at the directories, without a lock: it finds only where to look again. */
#include "sweep-private.h"

#include <flatnet/plan.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	MAX_NETWORKS = 256,
	FORGET_EVERY = 64, /* passes: all files are read anew; an inode is not all there is */
};

void flat_sweep_forget(struct flat_sweep_network *network)
{
	free(network->known);
	network->known = NULL;
	network->known_count = 0;
	free(network->doubtful);
	network->doubtful = NULL;
	network->doubtful_count = network->doubtful_room = 0;
}

static struct flat_sweep_network *find_network(struct flat_sweep *sweep, const char *name)
{
	for (size_t i = 0; i < sweep->network_count; i++)
		if (!strcmp(sweep->networks[i].name, name))
			return &sweep->networks[i];
	return NULL;
}

static int see_network(struct flat_sweep *sweep, const char *name, bool here)
{
	struct flat_sweep_network *network = find_network(sweep, name);
	if (!network) {
		if (strlen(name) >= FLAT_SWEEP_NAME || sweep->network_count == MAX_NETWORKS)
			return -E2BIG;
		if (flat_sweep_grow(&sweep->networks, sweep->network_count, &sweep->network_room,
				    sizeof *sweep->networks) < 0)
			return -ENOMEM;
		network = &sweep->networks[sweep->network_count++];
		*network = (struct flat_sweep_network){ 0 };
		strcpy(network->name, name);
	}
	network->here = network->here || here;
	return 0;
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

int flat_sweep_see_networks(struct flat_sweep_pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	const char *path = pass->conf->cni.ipam_dir;
	for (size_t i = 0; i < sweep->network_count; i++) {
		struct flat_sweep_network *network = &sweep->networks[i];
		network->here = network->lost = network->suspect = false;
		network->doubtful_count = 0;
	}
	/* told of in any case */
	int r = see_network(sweep, pass->conf->cni.network, false);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__attribute__((cleanup(closedirp))) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int sys = errno;
		if (fd >= 0)
			close(fd);
		if (sys == ENOENT)
			return r;
		return flat_fail(pass->err, FLAT_CODE_IO, sys, "read directory '%s'", path);
	}
	for (const struct dirent *d; r >= 0 && (d = readdir(dir));)
		if (flat_name_is_valid(d->d_name) &&
		    (d->d_type == DT_DIR || d->d_type == DT_UNKNOWN))
			r = see_network(sweep, d->d_name, true);
	if (r == -E2BIG) {
		flat_remark(&sweep->too_many, FLAT_LEVEL_WARN, "not all networks are swept",
			    "there are more than 256 in the address store");
		return 0;
	}
	return r < 0 ? flat_fail(pass->err, FLAT_CODE_INTERNAL, -r, "look at '%s'", path) : 0;
}

/* What is known of this file; NULL: nothing, or others claim it now. */
static const struct flat_sweep_known *find_known(const struct flat_sweep_network *network,
						 const struct flat_sweep_known *now)
{
	size_t low = 0, high = network->known_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct flat_sweep_known *known = &network->known[middle];
		int c = flat_ip_compare(&known->ip, &now->ip);
		if (c == 0)
			return known->inode == now->inode && known->claimants == now->claimants
				       ? known
				       : NULL;
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static int doubt(struct flat_sweep_network *network, const struct flat_sweep_known *now)
{
	if (flat_sweep_grow(&network->doubtful, network->doubtful_count, &network->doubtful_room,
			    sizeof *network->doubtful) < 0)
		return -ENOMEM;
	network->doubtful[network->doubtful_count++] =
		(struct flat_reservation){ now->ip, now->inode };
	network->suspect = true;
	return 0;
}

static uint64_t hash_claimants(const struct flat_sweep_pass *pass,
			       const struct flat_sweep_network *network, size_t claim,
			       const struct flat_ip *ip)
{
	uint64_t h = 0;
	for (;
	     claim < pass->sweep->claim_count && flat_ip_equal(&pass->sweep->claims[claim].ip, ip);
	     claim++) {
		const struct flat_sweep_link *link =
			flat_sweep_claimant(pass, claim, network->name);
		if (link)
			h = flat_hash(h, &link->index, sizeof link->index) | 1;
	}
	return h;
}

/* Somebody claims it: is it his? Two that claim one address have it both, and no one but a person
 * can say who has to go. */
static void compare_owners(const struct flat_sweep_pass *pass,
			   const struct flat_sweep_network *network, size_t claim,
			   const struct flat_ip *ip, const struct flat_owner *owner)
{
	char text[FLAT_IP_TEXT];
	for (;
	     claim < pass->sweep->claim_count && flat_ip_equal(&pass->sweep->claims[claim].ip, ip);
	     claim++) {
		const struct flat_sweep_link *link =
			flat_sweep_claimant(pass, claim, network->name);
		if (link && !flat_owner_is(owner, link->container_id, link->ifname))
			flat_say(FLAT_LEVEL_WARN,
				 "a link claims an address that is reserved for another container",
				 "network", network->name, "address", flat_ip_text(ip, text),
				 "link", link->name, "container", link->container_id, "owner",
				 owner->container_id, "cure", "restart one of the two pods", NULL);
	}
}

/* Nobody claims it by its address. 1: remember it; 0: look again next time */
static int judge_unclaimed(struct flat_sweep_pass *pass, struct flat_sweep_network *network,
			   const struct flat_owner *owner, bool in_flight,
			   struct flat_sweep_known *now, const struct flat_sweep_known *before)
{
	struct flat_sweep *sweep = pass->sweep;
	const int64_t now_ms = flat_now_ms();
	char name[FLAT_IFNAME_LEN];
	if (!owner->in_process)
		return 1;
	flat_name_host_veth(network->name, owner->container_id, owner->ifname, name);
	for (size_t i = 0; i < sweep->bare_count; i++) {
		struct flat_sweep_bare *bare = &sweep->bare[i];
		if (strcmp(bare->name, name) != 0)
			continue;
		bare->in_flight = bare->in_flight || in_flight;
		bare->in_store = true;
		bare->network = (size_t)(network - sweep->networks);
		/* it goes with its link */
		return !in_flight && now_ms - bare->since_ms >= FLAT_SWEEP_GRACE_MS
			       ? doubt(network, now)
			       : 0;
	}
	/* an alias without room for all of the pod's addresses */
	for (size_t i = 0; i < sweep->link_count; i++)
		if (sweep->links[i].cut && !strcmp(sweep->links[i].name, name))
			return 0;
	if (in_flight)
		return 0;
	now->dead_ms = before && before->dead_ms ? before->dead_ms : now_ms;
	if (now_ms - now->dead_ms >= FLAT_SWEEP_DEAD_MS)
		return doubt(network, now) < 0 ? -ENOMEM : 1;
	sweep->pending = true;
	return 1;
}

/* 1: remember it; 0: look again next time */
static int judge(struct flat_sweep_pass *pass, struct flat_sweep_network *network,
		 struct flat_store *store, size_t claim, struct flat_sweep_known *now,
		 const struct flat_sweep_known *before)
{
	flat_auto_owner owner = { 0 };
	struct flat_err e = { 0 };
	/* first this, then what the file says: one that is not in flight stays as it is read */
	bool in_flight = flat_store_is_in_flight(store, &now->ip);
	int r = flat_store_look_up(store, &now->ip, &owner, &e);
	if (r == -EBADMSG)
		return in_flight ? 0 : doubt(network, now);
	if (r < 0 && !pass->first) {
		*pass->err = e;
		pass->first = r;
	}
	if (r <= 0)
		return 0;
	if (!now->claimants)
		return judge_unclaimed(pass, network, &owner, in_flight, now, before);
	if (in_flight)
		return 0;
	if (!before) /* else it has been said */
		compare_owners(pass, network, claim, &now->ip, &owner);
	return 1;
}

static bool has_claims(const struct flat_sweep_pass *pass, const struct flat_sweep_network *network)
{
	for (size_t i = 0; i < pass->sweep->claim_count; i++)
		if (flat_sweep_claimant(pass, i, network->name))
			return true;
	return false;
}

/* Is each claim in the list? Both are sorted. */
static bool all_reserved(const struct flat_sweep_pass *pass,
			 const struct flat_sweep_network *network,
			 const struct flat_reservation *list, size_t count)
{
	size_t k = 0;
	for (size_t i = 0; i < pass->sweep->claim_count; i++) {
		if (!flat_sweep_claimant(pass, i, network->name))
			continue;
		while (k < count && flat_ip_compare(&list[k].ip, &pass->sweep->claims[i].ip) < 0)
			k++;
		if (k == count || !flat_ip_equal(&list[k].ip, &pass->sweep->claims[i].ip))
			return false;
	}
	return true;
}

static int look_at_list(struct flat_sweep_pass *pass, struct flat_sweep_network *network,
			struct flat_store *store, const struct flat_reservation *list, size_t count)
{
	size_t v4 = 0, known_count = 0;
	struct flat_sweep_known *known = calloc(count + 1, sizeof *known);
	if (!known)
		return flat_fail(pass->err, FLAT_CODE_INTERNAL, ENOMEM, "look at network '%.64s'",
				 network->name);
	for (size_t i = 0; i < count; i++) {
		const size_t claim = flat_sweep_find_claim(pass, &list[i].ip);
		struct flat_sweep_known now = {
			.ip = list[i].ip,
			.inode = list[i].inode,
			.claimants = hash_claimants(pass, network, claim, &list[i].ip),
		};
		const struct flat_sweep_known *before = find_known(network, &now);
		v4 += now.ip.family == AF_INET;
		int r = before && !before->dead_ms && pass->sweep->passes % FORGET_EVERY
				? 1
				: judge(pass, network, store, claim, &now, before);
		if (r < 0) {
			free(known);
			return flat_fail(pass->err, FLAT_CODE_INTERNAL, ENOMEM,
					 "look at network '%.64s'", network->name);
		}
		if (r > 0)
			known[known_count++] = now;
	}
	free(network->known);
	network->known = known;
	network->known_count = known_count;
	network->used = v4 ? v4 : count;
	network->suspect = network->suspect || !all_reserved(pass, network, list, count);
	return 0;
}

int flat_sweep_open_store(const struct flat_sweep_pass *pass,
			  const struct flat_sweep_network *network, bool create,
			  struct flat_store **ret_store, struct flat_err *err)
{
	const struct flat_ipam_conf conf = { .data_dir = pass->conf->cni.ipam_dir };
	return flat_store_open(&conf, network->name, create, NULL, ret_store, err);
}

int flat_sweep_look_at_network(struct flat_sweep_pass *pass, struct flat_sweep_network *network)
{
	flat_auto_store *store = NULL;
	flat_auto_free struct flat_reservation *list = NULL;
	struct flat_err e = { 0 };
	size_t count = 0;
	int r = flat_sweep_open_store(pass, network, false, &store, &e);
	if (r == -ENOENT && !e.code) {
		network->here = false;
		/* A network that never had a directory has another IPAM. One that was lost before
		 * our time is written anew by its next ADD. */
		network->lost = network->suspect = network->seen && has_claims(pass, network);
		network->used = 0;
		flat_sweep_forget(network);
		return 0;
	}
	if (r >= 0)
		r = flat_store_list(store, &list, &count, &e);
	if (r < 0) {
		flat_fail(pass->err, e.code, 0, "%s", e.msg);
		return r;
	}
	network->here = network->seen = true;
	return look_at_list(pass, network, store, list, count);
}
