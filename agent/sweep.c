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
 * A pass looks first, without a lock (sweep-links.c, sweep-stores.c): one dump of the links, when
 * the kernel has told of a change since the last one, and one listing of each directory. What was
 * seen in this state before (a file is known by its inode) is not read again, so a pass over a
 * node at rest lists a directory and no more. What looks wrong may be a race that was lost: the
 * links are older than the listing. Therefore nothing is done by this look; it only finds where
 * to look again, and flat_store_heal() decides: it takes the directory's lock, lists, sees who is
 * in flight, and then dumps the links, in this order. Against it run
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
 * Besides, a bare link must have been bare for FLAT_SWEEP_GRACE_MS and a reservation dead for
 * FLAT_SWEEP_DEAD_MS. These prove nothing, and need not; they keep us from the locks of an ADD at
 * work and from others' links in the making, and from saying of each DEL between its two steps
 * that it left an address behind.
 */
#include "sweep-private.h"

#include <flatnet/plan.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_REMOVALS = 8 }; /* in one pass: each waits some 15 ms for RCU */

/* ---- what is to be done ------------------------------------------------------------------------
 */

static void remove_bare(struct flat_sweep_pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	const int64_t now = flat_now_ms();
	int removed = 0;
	for (size_t i = 0; i < sweep->bare_count && removed < MAX_REMOVALS; i++) {
		struct flat_sweep_bare *bare = &sweep->bare[i];
		struct flat_err e = { 0 };
		if (bare->in_flight || now - bare->since_ms < FLAT_SWEEP_GRACE_MS)
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
static void remove_features(struct flat_sweep_pass *pass)
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
	struct flat_sweep_pass *pass;
	struct flat_sweep_network *network;
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

static int heal(struct flat_sweep_pass *pass, struct flat_sweep_network *network)
{
	flat_auto_store *store = NULL;
	struct flat_ipam_witness witness = { 0 };
	struct healing healing = { pass, network };
	struct flat_err e = { 0 };
	int r = flat_sweep_open_store(pass, network, network->lost, &store, &e);
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
static void drop_networks(const struct flat_sweep_pass *pass)
{
	struct flat_sweep *sweep = pass->sweep;
	size_t kept = 0;
	for (size_t i = 0; i < sweep->network_count; i++) {
		struct flat_sweep_network *network = &sweep->networks[i];
		if (network->here || network->lost ||
		    !strcmp(network->name, pass->conf->cni.network))
			sweep->networks[kept++] = *network;
		else
			flat_sweep_forget(network);
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

static void tell_status(const struct flat_sweep_pass *pass)
{
	const struct flat_sweep *sweep = pass->sweep;
	struct flat_status *status = pass->status;
	status->ipam_count = 0;
	/* our own is the first in the list */
	for (size_t i = 0; i < sweep->network_count && status->ipam_count < FLAT_STATUS_NETWORKS;
	     i++) {
		const struct flat_sweep_network *network = &sweep->networks[i];
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
	struct flat_sweep_pass pass = {
		.sweep = sweep,
		.conf = conf,
		.net = net,
		.status = status,
		.err = err ? err : &own,
	};
	sweep->pending = false;
	int r = flat_sweep_look_at_links(&pass);
	if (r >= 0)
		r = flat_sweep_see_networks(&pass);
	for (size_t i = 0; r >= 0 && i < sweep->network_count; i++) {
		int one = flat_sweep_look_at_network(&pass, &sweep->networks[i]);
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
	const double soon = FLAT_SWEEP_DEAD_MS / 1000.0 + 0.1;
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
		flat_sweep_forget(&sweep->networks[i]);
	free(sweep->networks);
	free(sweep->bare);
	free(sweep->claims);
	free(sweep->links);
	flat_arena_free(&sweep->arena);
	flat_monitor_close(sweep->monitor);
	free(sweep);
}
