// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation: what is left when nobody comes.
 *
 * An attachment has two halves, a reservation and a link, and each says whose it is: the file by
 * container ID and interface, the link by its name (their hash) and its alias. Everybody keeps the
 * same order:
 *
 *	ADD: reserve (flock on the file), make the link (bare), sign it (alias), let go of the flock
 *	DEL: remove the link, remove the reservation (under the directory's lock)
 *
 * So whoever is killed leaves one of four things, and each is told from one that is on its way:
 *
 *  1. A reservation without a link. In flight when its flock is held; else dead. An in-process one
 *     is freed; another program's is not ours to judge.
 *  2. A reservation and a bare link. In flight when the flock is held. Else its ADD is dead, and
 *     when the link is looked at once more and is still bare, it has not come to its end in between
 *     either: the link goes, then the reservation as above.
 *  3. A bare link alone: its IPAM is another, or the store was lost. Every ADD shares the lock of
 *     its bridge while it works; who gets it alone, and then still sees the link bare, knows that
 *     nobody works on it.
 *  4. A signed link without a reservation: the store was lost. It is reserved again, by the alias.
 *
 * A pass looks first, without a lock: one dump of the links, when the kernel has told of a change
 * since the last one, and one listing of each directory. What was seen in this state before (a file
 * is known by its inode) is not read again, so a pass over a node at rest lists a directory and no
 * more. What looks wrong may be a race that was lost: the links are older than the listing.
 *Therefore nothing is done by this look; it only finds where to look again, and flat_store_heal()
 *decides: it takes the directory's lock, lists, sees who is in flight, and then dumps the links, in
 *this order. Against it run
 *
 *  - ADD: reserves under the same lock, so no address changes hands during the decision. One that
 *    was not in flight had ended, and signed, before the dump, which therefore sees its link.
 *  - a failed ADD: removes its link, then its reservation, if the file is still its own: what was
 *    reserved again in between is of case 1, next time.
 *  - DEL before the dump: its link is not seen; the reservation is freed by us, and DEL finds
 *    nothing, or the next owner's record, which is not its. DEL after the dump: a claim that it
 *    saw was there when the directory was listed, so a missing reservation was lost, not deleted;
 *    DEL waits for the lock and then removes the one that we wrote.
 *  - GC, other sweepers: hold the same lock. A bare link is removed by its index, which the kernel
 *    does not give to another one soon; gone is success.
 *
 * Besides, a bare link must have been bare for GRACE_MS and a reservation dead for DEAD_MS. These
 * prove nothing, and need not; they keep us from the locks of an ADD at work and from others' links
 * in the making, and from saying of each DEL between its two steps that it left an address behind.
 */
#include "sweep.h"

#include <flatnet/plan.h>
#include <flatnet/state.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	GRACE_MS = 10000, /* of a bare link */
	DEAD_MS = 1000,	  /* of a reservation: DEL takes it a moment after the link */
	MAX_NETWORKS = 256,
	MAX_BARE = 4096,
	MAX_READS = 16,
	MAX_REMOVALS = 8,  /* in one pass: each waits some 15 ms for RCU */
	NAME_SIZE = 256,   /* of a directory, as the kernel has it */
	FORGET_EVERY = 64, /* passes: all files are read anew; an inode is not all there is */
};

struct bare {
	char name[FLAT_IFNAME_LEN];
	int index;
	int64_t since_ms;
	bool here, in_flight, in_store; /* as this pass sees it */
	size_t network;			/* in_store: which */
};

/* A reservation as it was judged: fine, or nothing to be done about it yet. */
struct known {
	struct flat_ip ip;
	uint64_t inode;
	uint64_t claimants; /* hash of the links that claim it; 0: none, it is another program's */
	int64_t dead_ms;    /* not fine: since when it looks dead */
};

struct network {
	char name[NAME_SIZE];
	struct known *known; /* by address */
	size_t known_count;
	uint64_t used, healed;
	bool seen; /* its directory, in an earlier pass */
	/* in this pass: */
	bool here, lost, suspect;
	struct flat_reservation
		*doubtful; /* by address; dead, as far as a look without lock tells */
	size_t doubtful_count, doubtful_room;
};

struct signed_link {
	char name[FLAT_IFNAME_LEN];
	int index;
	bool cut;
	const char *network, *container_id, *ifname; /* in the arena; as the alias has them */
};

struct claim {
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
	struct signed_link *links;
	size_t link_count, link_room;
	struct claim *claims; /* by address */
	size_t claim_count, claim_room;

	struct bare *bare;
	size_t bare_count, bare_room;
	struct network *networks;
	size_t network_count, network_room;
	struct flat_prefix cidrs[FLAT_NODE_CIDRS];
	size_t cidr_count;
	unsigned passes;
	struct flat_remark too_many;
};

/* ---- one look at the links ---------------------------------------------------------------------
 */

struct pass {
	struct flat_sweep *sweep;
	const struct flat_agent_conf *conf;
	struct flat_net *net;
	struct flat_status *status;
	int healed;
	int first; /* the first error, told in err */
	struct flat_err *err;
};

static int grow(void *items, size_t count, size_t *room, size_t size)
{
	void **array = items;
	if (count < *room)
		return 0;
	size_t want = *room ? 2 * *room : 16;
	void *more = realloc(*array, want * size);
	if (!more)
		return -ENOMEM;
	*array = more;
	*room = want;
	return 0;
}

static int see_bare(struct flat_sweep *sweep, const struct flat_link *link)
{
	for (size_t i = 0; i < sweep->bare_count; i++)
		if (sweep->bare[i].index == link->index &&
		    !strcmp(sweep->bare[i].name, link->name)) {
			sweep->bare[i].here = true;
			return 0;
		}
	if (sweep->bare_count == MAX_BARE)
		return 0;
	if (grow(&sweep->bare, sweep->bare_count, &sweep->bare_room, sizeof *sweep->bare) < 0)
		return -ENOMEM;
	struct bare *bare = &sweep->bare[sweep->bare_count++];
	*bare = (struct bare){ .index = link->index, .since_ms = flat_now_ms(), .here = true };
	memcpy(bare->name, link->name, sizeof bare->name);
	return 0;
}

static int see_link(void *arg, const struct flat_link *link)
{
	struct flat_sweep *sweep = arg;
	struct flat_alias alias;
	if (!flat_name_is_host_veth(link->name))
		return 0;
	if (!link->alias[0])
		return see_bare(sweep, link);
	if (!flat_alias_parse(link->alias, &alias))
		return 0;
	if (grow(&sweep->links, sweep->link_count, &sweep->link_room, sizeof *sweep->links) < 0)
		return -ENOMEM;
	struct signed_link *seen = &sweep->links[sweep->link_count];
	*seen = (struct signed_link){
		.index = link->index,
		.cut = alias.cut,
		.network = flat_arena_strdup(&sweep->arena, alias.network),
		.container_id = flat_arena_strdup(&sweep->arena, alias.container_id),
		.ifname = flat_arena_strdup(&sweep->arena, alias.ifname),
	};
	memcpy(seen->name, link->name, sizeof seen->name);
	if (!seen->network || !seen->container_id || !seen->ifname)
		return -ENOMEM;
	for (size_t i = 0; i < alias.ip_count; i++) {
		if (grow(&sweep->claims, sweep->claim_count, &sweep->claim_room,
			 sizeof *sweep->claims) < 0)
			return -ENOMEM;
		sweep->claims[sweep->claim_count++] =
			(struct claim){ alias.ips[i], sweep->link_count };
	}
	sweep->link_count++;
	return 0;
}

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = flat_ip_compare(&x->ip, &y->ip);
	return c ? c : (x->link > y->link) - (x->link < y->link);
}

static void hear(void *arg, const struct flat_event *event)
{
	struct flat_sweep *sweep = arg;
	if (event->kind == FLAT_EVENT_LOST ||
	    (event->kind == FLAT_EVENT_LINK && flat_name_is_host_veth(event->link.name)))
		sweep->links_known = false;
}

static int look_at_links(struct pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	size_t kept = 0;
	int r = 1;
	/* what is told from here on is for the next pass; too much for now is a change anyway */
	for (int i = 0; i < MAX_READS && r > 0; i++)
		r = flat_monitor_read(sweep->monitor, hear, sweep, pass->err);
	if (r > 0)
		sweep->links_known = false;
	for (size_t i = 0; i < sweep->bare_count; i++)
		sweep->bare[i].in_flight = sweep->bare[i].in_store = false;
	if (r >= 0 && sweep->links_known)
		return 0;
	for (size_t i = 0; i < sweep->bare_count; i++)
		sweep->bare[i].here = false;
	sweep->links_known = false;
	sweep->link_count = sweep->claim_count = 0;
	flat_arena_free(&sweep->arena);
	if (r >= 0)
		r = flat_link_each(pass->net, "veth", 0, see_link, sweep, pass->err);
	if (r < 0) {
		flat_fail(pass->err, FLAT_CODE_INTERNAL, -r, "look at the links");
		return r;
	}
	for (size_t i = 0; i < sweep->bare_count; i++)
		if (sweep->bare[i].here)
			sweep->bare[kept++] = sweep->bare[i];
	sweep->bare_count = kept;
	if (sweep->claim_count)
		qsort(sweep->claims, sweep->claim_count, sizeof *sweep->claims, compare_claims);
	sweep->links_known = true;
	sweep->features_swept = false;
	return 0;
}

/* The first claim of this address or a later one. */
static size_t find_claim(const struct pass *pass, const struct flat_ip *ip)
{
	size_t low = 0, high = pass->sweep->claim_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (flat_ip_compare(&pass->sweep->claims[middle].ip, ip) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct signed_link *claimant(const struct pass *pass, size_t claim,
					  const char *network)
{
	const struct signed_link *link = &pass->sweep->links[pass->sweep->claims[claim].link];
	return flat_alias_names(link->network, network) ? link : NULL;
}

/* ---- one look at the directories ---------------------------------------------------------------
 */

static void forget(struct network *network)
{
	free(network->known);
	network->known = NULL;
	network->known_count = 0;
	free(network->doubtful);
	network->doubtful = NULL;
	network->doubtful_count = network->doubtful_room = 0;
}

static struct network *find_network(struct flat_sweep *sweep, const char *name)
{
	for (size_t i = 0; i < sweep->network_count; i++)
		if (!strcmp(sweep->networks[i].name, name))
			return &sweep->networks[i];
	return NULL;
}

static int see_network(struct flat_sweep *sweep, const char *name, bool here)
{
	struct network *network = find_network(sweep, name);
	if (!network) {
		if (strlen(name) >= NAME_SIZE || sweep->network_count == MAX_NETWORKS)
			return -E2BIG;
		if (grow(&sweep->networks, sweep->network_count, &sweep->network_room,
			 sizeof *sweep->networks) < 0)
			return -ENOMEM;
		network = &sweep->networks[sweep->network_count++];
		*network = (struct network){ 0 };
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

static int see_networks(struct pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	const char *path = pass->conf->cni.ipam_dir;
	for (size_t i = 0; i < sweep->network_count; i++) {
		struct network *network = &sweep->networks[i];
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
static const struct known *find_known(const struct network *network, const struct known *now)
{
	size_t low = 0, high = network->known_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct known *known = &network->known[middle];
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

static int doubt(struct network *network, const struct known *now)
{
	if (grow(&network->doubtful, network->doubtful_count, &network->doubtful_room,
		 sizeof *network->doubtful) < 0)
		return -ENOMEM;
	network->doubtful[network->doubtful_count++] =
		(struct flat_reservation){ now->ip, now->inode };
	network->suspect = true;
	return 0;
}

static uint64_t hash_claimants(const struct pass *pass, const struct network *network, size_t claim,
			       const struct flat_ip *ip)
{
	uint64_t h = 0;
	for (;
	     claim < pass->sweep->claim_count && flat_ip_equal(&pass->sweep->claims[claim].ip, ip);
	     claim++) {
		const struct signed_link *link = claimant(pass, claim, network->name);
		if (link)
			h = flat_hash(h, &link->index, sizeof link->index) | 1;
	}
	return h;
}

/* Somebody claims it: is it his? Two that claim one address have it both, and no one but a person
 * can say who has to go. */
static void compare_owners(const struct pass *pass, const struct network *network, size_t claim,
			   const struct flat_ip *ip, const struct flat_owner *owner)
{
	char text[FLAT_IP_TEXT];
	for (;
	     claim < pass->sweep->claim_count && flat_ip_equal(&pass->sweep->claims[claim].ip, ip);
	     claim++) {
		const struct signed_link *link = claimant(pass, claim, network->name);
		if (link && !flat_owner_is(owner, link->container_id, link->ifname))
			flat_say(FLAT_LEVEL_WARN,
				 "a link claims an address that is reserved for another container",
				 "network", network->name, "address", flat_ip_text(ip, text),
				 "link", link->name, "container", link->container_id, "owner",
				 owner->container_id, "cure", "restart one of the two pods", NULL);
	}
}

/* Nobody claims it by its address. 1: remember it; 0: look again next time */
static int judge_unclaimed(struct pass *pass, struct network *network,
			   const struct flat_owner *owner, bool in_flight, struct known *now,
			   const struct known *before)
{
	struct flat_sweep *sweep = pass->sweep;
	const int64_t now_ms = flat_now_ms();
	char name[FLAT_IFNAME_LEN];
	if (!owner->in_process)
		return 1;
	flat_name_host_veth(network->name, owner->container_id, owner->ifname, name);
	for (size_t i = 0; i < sweep->bare_count; i++) {
		struct bare *bare = &sweep->bare[i];
		if (strcmp(bare->name, name) != 0)
			continue;
		bare->in_flight = bare->in_flight || in_flight;
		bare->in_store = true;
		bare->network = (size_t)(network - sweep->networks);
		/* it goes with its link */
		return !in_flight && now_ms - bare->since_ms >= GRACE_MS ? doubt(network, now) : 0;
	}
	/* an alias without room for all of the pod's addresses */
	for (size_t i = 0; i < sweep->link_count; i++)
		if (sweep->links[i].cut && !strcmp(sweep->links[i].name, name))
			return 0;
	if (in_flight)
		return 0;
	now->dead_ms = before && before->dead_ms ? before->dead_ms : now_ms;
	if (now_ms - now->dead_ms >= DEAD_MS)
		return doubt(network, now) < 0 ? -ENOMEM : 1;
	sweep->pending = true;
	return 1;
}

/* 1: remember it; 0: look again next time */
static int judge(struct pass *pass, struct network *network, struct flat_store *store, size_t claim,
		 struct known *now, const struct known *before)
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

static bool has_claims(const struct pass *pass, const struct network *network)
{
	for (size_t i = 0; i < pass->sweep->claim_count; i++)
		if (claimant(pass, i, network->name))
			return true;
	return false;
}

/* Is each claim in the list? Both are sorted. */
static bool all_reserved(const struct pass *pass, const struct network *network,
			 const struct flat_reservation *list, size_t count)
{
	size_t k = 0;
	for (size_t i = 0; i < pass->sweep->claim_count; i++) {
		if (!claimant(pass, i, network->name))
			continue;
		while (k < count && flat_ip_compare(&list[k].ip, &pass->sweep->claims[i].ip) < 0)
			k++;
		if (k == count || !flat_ip_equal(&list[k].ip, &pass->sweep->claims[i].ip))
			return false;
	}
	return true;
}

static int look_at_list(struct pass *pass, struct network *network, struct flat_store *store,
			const struct flat_reservation *list, size_t count)
{
	size_t v4 = 0, known_count = 0;
	struct known *known = calloc(count + 1, sizeof *known);
	if (!known)
		return flat_fail(pass->err, FLAT_CODE_INTERNAL, ENOMEM, "look at network '%.64s'",
				 network->name);
	for (size_t i = 0; i < count; i++) {
		const size_t claim = find_claim(pass, &list[i].ip);
		struct known now = {
			.ip = list[i].ip,
			.inode = list[i].inode,
			.claimants = hash_claimants(pass, network, claim, &list[i].ip),
		};
		const struct known *before = find_known(network, &now);
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

static int open_store(const struct pass *pass, const struct network *network, bool create,
		      struct flat_store **ret_store, struct flat_err *err)
{
	const struct flat_ipam_conf conf = { .data_dir = pass->conf->cni.ipam_dir };
	return flat_store_open(&conf, network->name, create, NULL, ret_store, err);
}

static int look_at_network(struct pass *pass, struct network *network)
{
	flat_auto_store *store = NULL;
	flat_auto_free struct flat_reservation *list = NULL;
	struct flat_err e = { 0 };
	size_t count = 0;
	int r = open_store(pass, network, false, &store, &e);
	if (r == -ENOENT && !e.code) {
		network->here = false;
		/* A network that never had a directory has another IPAM. One that was lost before
		 * our time is written anew by its next ADD. */
		network->lost = network->suspect = network->seen && has_claims(pass, network);
		network->used = 0;
		forget(network);
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

/* ---- what is to be done ------------------------------------------------------------------------
 */

static void remove_bare(struct pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	const int64_t now = flat_now_ms();
	int removed = 0;
	for (size_t i = 0; i < sweep->bare_count && removed < MAX_REMOVALS; i++) {
		struct bare *bare = &sweep->bare[i];
		struct flat_err e = { 0 };
		if (bare->in_flight || now - bare->since_ms < GRACE_MS)
			continue;
		int r = flat_attachment_remove_bare(pass->net, bare->index, bare->name,
						    bare->in_store, &e);
		if (r < 0 && !pass->first) {
			*pass->err = e;
			pass->first = r;
		}
		if (r <= 0)
			continue;
		removed++;
		pass->status->repairs[FLAT_UPKEEP_ORPHAN]++;
		flat_say(FLAT_LEVEL_INFO, "removed a link whose ADD was killed", "link", bare->name,
			 "network", bare->in_store ? sweep->networks[bare->network].name : NULL,
			 NULL);
	}
	pass->healed += removed;
}

/* Host ports and other features of pods whose link went with their network namespace, and no DEL
 * came. */
static void remove_features(struct pass *pass)
{
	struct flat_err e = { 0 };
	if (pass->sweep->features_swept) /* since a link went, or came */
		return;
	int r = flat_features_sweep(pass->net, NULL, &e);
	pass->sweep->features_swept = r >= 0;
	if (r < 0 && !pass->first) {
		*pass->err = e;
		pass->first = r;
	}
	if (r <= 0)
		return;
	pass->status->repairs[FLAT_UPKEEP_ORPHAN]++;
	pass->healed++;
	flat_say(FLAT_LEVEL_INFO, "removed host ports or other features whose pods are gone", NULL);
}

struct healing {
	struct pass *pass;
	struct network *network;
};

static void tell_healed(void *arg, enum flat_heal what, const char *container_id,
			const char *ifname, const struct flat_ip *ip)
{
	static const struct {
		enum flat_level level;
		const char *msg, *reason;
	} words[] = {
		[FLAT_HEAL_DEAD] = { FLAT_LEVEL_INFO, "address is free again",
				     "its container has no link any more" },
		[FLAT_HEAL_BROKEN] = { FLAT_LEVEL_WARN, "address is free again",
				       "its file was empty or unreadable" },
		[FLAT_HEAL_LOST] = { FLAT_LEVEL_WARN, "address is reserved again",
				     "a live link claims it and its reservation was lost" },
	};
	const struct healing *healing = arg;
	char text[FLAT_IP_TEXT];
	healing->network->healed++;
	healing->pass->status->repairs[FLAT_UPKEEP_LEASE]++;
	flat_say(words[what].level, words[what].msg, "network", healing->network->name, "address",
		 flat_ip_text(ip, text), "container", container_id[0] ? container_id : NULL,
		 "interface", ifname[0] ? ifname : NULL, "reason", words[what].reason, NULL);
}

static int heal(struct pass *pass, struct network *network)
{
	flat_auto_store *store = NULL;
	struct flat_ipam_witness witness = { 0 };
	struct healing healing = { pass, network };
	struct flat_err e = { 0 };
	int r = open_store(pass, network, network->lost, &store, &e);
	if (r == -ENOENT && !e.code)
		return 0;
	if (r >= 0)
		r = flat_witness_open(pass->net, network->name, pass->conf->cni.bridge, true,
				      &witness, &e);
	if (r >= 0)
		r = flat_store_heal(store, &witness, network->doubtful, network->doubtful_count,
				    tell_healed, &healing, &e);
	flat_witness_close(&witness);
	if (r == -EAGAIN && !e.code) {
		pass->sweep->pending = true;
		return 0;
	}
	if (r < 0) {
		flat_fail(pass->err, e.code, 0, "%s", e.msg);
		return r;
	}
	pass->healed += r;
	return 0;
}

/* Those that went, with the last pod. */
static void drop_networks(const struct pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	size_t kept = 0;
	for (size_t i = 0; i < sweep->network_count; i++) {
		struct network *network = &sweep->networks[i];
		if (network->here || network->lost ||
		    !strcmp(network->name, pass->conf->cni.network))
			sweep->networks[kept++] = *network;
		else
			forget(network);
	}
	sweep->network_count = kept;
}

/* ---- all together ------------------------------------------------------------------------------
 */

static uint64_t size_of_network(const struct flat_sweep *sweep)
{
	uint64_t sizes[FLAT_FAMILIES] = { 0 };
	for (size_t i = 0; i < sweep->cidr_count; i++) {
		const bool v6 = sweep->cidrs[i].ip.family == AF_INET6;
		uint64_t *size = &sizes[v6 ? FLAT_V6 : FLAT_V4];
		uint64_t more = flat_ipam_subnet_size(&sweep->cidrs[i]);
		*size = *size > UINT64_MAX - more ? UINT64_MAX : *size + more;
	}
	return sizes[FLAT_V4] ? sizes[FLAT_V4] : sizes[FLAT_V6];
}

static void tell_status(const struct pass *pass)
{
	const struct flat_sweep *sweep = pass->sweep;
	struct flat_status *status = pass->status;
	status->ipam_count = 0;
	/* our own is the first in the list */
	for (size_t i = 0; i < sweep->network_count && status->ipam_count < FLAT_STATUS_NETWORKS;
	     i++) {
		const struct network *network = &sweep->networks[i];
		const bool own = !strcmp(network->name, pass->conf->cni.network);
		if (!own && !network->here && !network->lost)
			continue;
		snprintf(status->ipam[status->ipam_count].network, sizeof status->ipam[0].network,
			 "%.63s", network->name);
		status->ipam[status->ipam_count].size = own ? size_of_network(sweep) : 0;
		status->ipam[status->ipam_count].used = network->used;
		status->ipam[status->ipam_count].healed = network->healed;
		status->ipam_count++;
	}
}

int flat_sweep_run(struct flat_sweep *sweep, const struct flat_agent_conf *conf,
		   struct flat_net *net, struct flat_status *status, struct flat_err *err)
{
	struct flat_err own = { 0 };
	struct pass pass = {
		.sweep = sweep,
		.conf = conf,
		.net = net,
		.status = status,
		.err = err ? err : &own,
	};
	sweep->pending = false;
	int r = look_at_links(&pass);
	if (r >= 0)
		r = see_networks(&pass);
	for (size_t i = 0; r >= 0 && i < sweep->network_count; i++) {
		int one = look_at_network(&pass, &sweep->networks[i]);
		if (one < 0 && !pass.first)
			pass.first = one;
	}
	if (r >= 0) {
		remove_bare(&pass);
		remove_features(&pass);
	}
	for (size_t i = 0; r >= 0 && i < sweep->network_count; i++) {
		int one = sweep->networks[i].suspect ? heal(&pass, &sweep->networks[i]) : 0;
		if (one < 0 && !pass.first)
			pass.first = one;
	}
	if (r >= 0) {
		tell_status(&pass);
		drop_networks(&pass);
	}
	sweep->passes++;
	return r < 0 ? r : pass.first ? pass.first : pass.healed;
}

double flat_sweep_pause(const struct flat_sweep *sweep, const struct flat_agent_conf *conf)
{
	const double soon = DEAD_MS / 1000.0 + 0.1;
	return sweep->pending && conf->sweep > soon ? soon : conf->sweep;
}

void flat_sweep_set_cidrs(struct flat_sweep *sweep, const struct flat_prefix *cidrs, size_t count)
{
	sweep->cidr_count = count < FLAT_NODE_CIDRS ? count : FLAT_NODE_CIDRS;
	if (sweep->cidr_count)
		memcpy(sweep->cidrs, cidrs, sweep->cidr_count * sizeof *cidrs);
}

int flat_sweep_open(struct flat_sweep **ret_sweep, struct flat_err *err)
{
	struct flat_sweep *sweep = calloc(1, sizeof *sweep);
	if (!sweep)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "sweep the addresses");
	int r = flat_monitor_open(1U << FLAT_EVENT_LINK, &sweep->monitor, err);
	if (r < 0) {
		free(sweep);
		return r;
	}
	*ret_sweep = sweep;
	return 0;
}

void flat_sweep_close(struct flat_sweep *sweep)
{
	if (!sweep)
		return;
	for (size_t i = 0; i < sweep->network_count; i++)
		forget(&sweep->networks[i]);
	free(sweep->networks);
	free(sweep->bare);
	free(sweep->claims);
	free(sweep->links);
	flat_arena_free(&sweep->arena);
	flat_monitor_close(sweep->monitor);
	free(sweep);
}
