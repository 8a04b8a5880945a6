// SPDX-License-Identifier: Apache-2.0
/*
 * The MTU of live pods follows the underlay. The host end of a veth is changed from here, the pod's
 * end in its own namespace. Which that is the kernel tells by a number; a file that opens it is
 * found by asking for the number of each namespace that this host has a name for: /run/netns, then
 * those of processes.
 */
#include "keeper.h"

#include <flatnet/plan.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PORTS = 1024, MAX_NAMESPACES = 65536 };

struct port {
	int index, peer_index, nsid;
	char name[FLAT_IFNAME_LEN];
	bool done; /* the pod's end */
};

struct ports {
	struct flat_keeper *keeper;
	uint32_t was, now;
	struct port items[MAX_PORTS];
	size_t count, left; /* of the pods' ends */
	ino_t seen[256];    /* processes share namespaces */
	size_t seen_count;
};

static int collect_port(void *arg, const struct flat_link *link)
{
	struct ports *all = arg;
	struct flat_alias alias;
	if (link->mtu != all->was || !flat_alias_parse(link->alias, &alias) ||
	    !flat_alias_names(alias.network, all->keeper->conf->cni.network) ||
	    all->count == MAX_PORTS)
		return 0;
	struct port *port = &all->items[all->count++];
	port->index = link->index;
	port->peer_index = link->peer_index;
	port->nsid = link->peer_nsid;
	memcpy(port->name, link->name, sizeof port->name);
	return 0;
}

/* ---- the pods' ends ----------------------------------------------------------------------------
 */

/* In the pod's namespace: all its links of ours that are on the list. */
static int change_inside(struct ports *all, int fd, int nsid, struct flat_err *err)
{
	struct flat_net *inside = NULL;
	int back;
	int r = flat_netns_enter(fd, &back, err);
	if (r < 0)
		return r;
	r = flat_net_open(&inside, err);
	for (size_t i = 0; r >= 0 && i < all->count; i++) {
		struct flat_link_change change = FLAT_LINK_CHANGE;
		struct flat_link link;
		if (all->items[i].nsid != nsid || all->items[i].done)
			continue;
		r = flat_link_by_index(inside, all->items[i].peer_index, &link, err);
		if (r < 0)
			break;
		/* one of its own (args.cni.mtu, or tuning in a chain) stays */
		if (r > 0 && link.mtu == all->was) {
			change.mtu = all->now;
			flat_link_change(inside, link.index, &change, FLAT_GONE_OK);
		}
		all->items[i].done = true;
		all->left--;
	}
	if (r >= 0)
		r = flat_net_commit(inside, err);
	flat_net_close(inside);
	flat_netns_leave(&back);
	return r;
}

static bool is_seen(struct ports *all, int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return true;
	for (size_t i = 0; i < all->seen_count; i++)
		if (all->seen[i] == st.st_ino)
			return true;
	if (all->seen_count < FLAT_LEN(all->seen))
		all->seen[all->seen_count++] = st.st_ino;
	return false;
}

static int try_namespace(struct ports *all, int fd, struct flat_err *err)
{
	int nsid;
	if (is_seen(all, fd) || flat_netns_id(all->keeper->net, fd, &nsid, NULL) <= 0)
		return 0;
	for (size_t i = 0; i < all->count; i++)
		if (all->items[i].nsid == nsid && !all->items[i].done)
			return change_inside(all, fd, nsid, err);
	return 0;
}

/* FOLDER/NAME, and FOLDER/PID/ns/net. */
static int search_folder(struct ports *all, const char *folder, bool processes,
			 struct flat_err *err)
{
	DIR *dir = opendir(folder);
	const struct dirent *entry;
	int r = 0;
	if (!dir)
		return 0;
	for (int n = 0; all->left && n < MAX_NAMESPACES && (entry = readdir(dir)); n++) {
		char path[300];
		const char *name = entry->d_name;
		if (name[0] == '.' || (processes && (name[0] < '0' || name[0] > '9')))
			continue;
		snprintf(path, sizeof path, "%s%s", name, processes ? "/ns/net" : "");
		const int fd = openat(dirfd(dir), path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			continue;
		r = try_namespace(all, fd, err);
		close(fd);
		if (r < 0)
			break;
	}
	closedir(dir);
	return r;
}

static void change_pods(struct ports *all)
{
	struct flat_remark *remark = &all->keeper->no_pod;
	struct flat_err e = { 0 };
	char text[200];
	int r = search_folder(all, "/run/netns", false, &e);
	if (r >= 0)
		r = search_folder(all, "/proc", true, &e);
	if (!all->left) {
		flat_remark_end(remark, "the pods' MTU follows the underlay again");
		return;
	}
	if (r < 0)
		snprintf(text, sizeof text, "%zu pods keep the MTU %u: %.120s", all->left, all->was,
			 e.msg);
	else
		snprintf(text, sizeof text,
			 "%zu pods keep the MTU %u: no file leads to their network namespace",
			 all->left, all->was);
	flat_remark(remark, FLAT_LEVEL_WARN, "the MTU of pods cannot be changed", text);
}

/* ---- all together ------------------------------------------------------------------------------
 */

int flat_keep_mtu(struct flat_keeper *k, uint32_t was, uint32_t now, const struct flat_cause *cause,
		  struct flat_err *err)
{
	struct flat_link bridge;
	char what[160];
	if (!was || !now || was == now)
		return 0;
	int r = flat_link_by_name(k->net, k->conf->cni.bridge, &bridge, err);
	if (r <= 0)
		return r;
	flat_auto_free struct ports *all = calloc(1, sizeof *all);
	if (!all)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "MTU of pods");
	all->keeper = k;
	all->was = was;
	all->now = now;
	r = flat_link_each(k->net, "veth", bridge.index, collect_port, all, err);
	if (r < 0)
		return flat_wrap(err, "MTU of pods");
	all->left = all->count;
	if (!all->count && bridge.mtu != was)
		return 0;
	struct flat_link_change change = FLAT_LINK_CHANGE;
	change.mtu = now;
	for (size_t i = 0; i < all->count; i++)
		flat_link_change(k->net, all->items[i].index, &change, FLAT_GONE_OK);
	if (bridge.mtu == was)
		flat_link_change(k->net, bridge.index, &change, FLAT_GONE_OK);
	r = flat_net_commit(k->net, err);
	if (r < 0)
		return flat_wrap(err, "MTU of pods");
	if (all->count)
		change_pods(all);
	snprintf(what, sizeof what, "MTU of bridge '%s' and %zu pods was %u, not %u",
		 k->conf->cni.bridge, all->count, was, now);
	flat_repaired(k->status, FLAT_UPKEEP_MTU, 1, what, cause);
	return 1;
}
