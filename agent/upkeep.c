// SPDX-License-Identifier: Apache-2.0
#include "keeper.h"

#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>

enum {
	MAX_ADDRESSES = 64,
	BRIDGE_PATIENCE_MS = 400, /* an ADD gives a new bridge its addresses within a few */
	THRESH_MAX = 1 << 20,
};

int flat_keeper_open(const struct flat_agent_conf *conf, struct flat_status *status,
		     struct flat_net *net, struct flat_keeper **ret_keeper, struct flat_err *err)
{
	struct flat_keeper *k = calloc(1, sizeof *k);
	struct utsname name;
	if (!k)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "upkeep");
	k->conf = conf;
	k->status = status;
	k->net = net;
	/* Before 5.7 the kernel miscomputes the inner checksum of UDP that was translated and then
	 * encapsulated, where the device is left to do it (ea64d8d6c675). */
	if (uname(&name) == 0) {
		char *end;
		const unsigned long major = strtoul(name.release, &end, 10);
		const unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
		k->old_kernel = major < 5 || (major == 5 && minor < 7);
	}
	*ret_keeper = k;
	return 0;
}

void flat_keeper_close(struct flat_keeper *keeper)
{
	free(keeper);
}

void flat_repaired(struct flat_status *status, int kind, size_t count, const char *what,
		   const struct flat_cause *cause)
{
	char number[24];
	snprintf(number, sizeof number, "%zu", count);
	if (cause->news) {
		flat_say(FLAT_LEVEL_DEBUG, "set", "kind", flat_upkeep_names[kind], "what", what,
			 "count", number, NULL);
		return;
	}
	if (cause->ask && !cause->text[0])
		cause->ask(cause->arg);
	status->repairs[kind] += count;
	flat_say(FLAT_LEVEL_WARN, "repaired", "kind", flat_upkeep_names[kind], "what", what,
		 "cause", cause->text && cause->text[0] ? cause->text : NULL, "count",
		 count > 1 ? number : NULL, NULL);
}

static bool has_family(const struct flat_node *self, int family)
{
	for (size_t i = 0; i < self->pod_cidr_count; i++)
		if (self->pod_cidrs[i].ip.family == family)
			return true;
	return false;
}

/* ---- the bridge --------------------------------------------------------------------------------
 */

struct addresses {
	struct flat_prefix items[MAX_ADDRESSES];
	size_t count;
};

static int collect_address(void *arg, const struct flat_addr *addr)
{
	struct addresses *all = arg;
	if (all->count < MAX_ADDRESSES)
		all->items[all->count++] = addr->address;
	return 0;
}

/* As an ADD plans it: the first address of the subnet, with its length. */
static struct flat_prefix gateway_of(const struct flat_prefix *cidr)
{
	const struct flat_ip network = flat_prefix_first(cidr);
	return (struct flat_prefix){ flat_ip_next(&network), cidr->len };
}

static void see_bridge(struct flat_keeper *k, int index)
{
	if (index == k->bridge_index)
		return;
	k->bridge_seen_ms = index ? flat_now_ms() : 0;
	k->bridge_index = index;
}

/* Its IPv6 side, as an ADD does it. */
static int tune_bridge(struct flat_keeper *k, struct flat_err *err)
{
	static const char *const keys[][2] = { { "accept_ra", "0" },
					       { "disable_ipv6", "0" },
					       { "accept_dad", "0" } };
	char path[96];
	for (size_t i = 0; i < FLAT_LEN(keys); i++) {
		snprintf(path, sizeof path, "net/ipv6/conf/%s/%s", k->conf->cni.bridge, keys[i][0]);
		int r = flat_sysctl_set(path, keys[i][1], err);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

int flat_keep_bridge(struct flat_keeper *k, const struct flat_node *self,
		     const struct flat_cause *cause, struct flat_err *err)
{
	const char *name = k->conf->cni.bridge;
	struct flat_link bridge;
	struct addresses have = { .count = 0 };
	char text[FLAT_PREFIX_TEXT], what[160];
	int done = 0;

	int r = flat_link_by_name(k->net, name, &bridge, err);
	if (r < 0)
		return r;
	if (r == 0 || strcmp(bridge.kind, "bridge") != 0) {
		see_bridge(k, 0);
		return 0;
	}
	const bool known = bridge.index == k->bridge_index;
	see_bridge(k, bridge.index);
	if (!cause->news && (!known || flat_now_ms() - k->bridge_seen_ms < BRIDGE_PATIENCE_MS))
		return -EAGAIN;
	if (!bridge.up) {
		struct flat_link_change change = FLAT_LINK_CHANGE;
		change.up = 1;
		flat_link_change(k->net, bridge.index, &change, FLAT_STRICT);
		r = flat_net_commit(k->net, err);
		if (r < 0)
			return flat_wrap(err, "bridge '%s'", name);
		snprintf(what, sizeof what, "bridge '%s' was down", name);
		flat_repaired(k->status, FLAT_UPKEEP_BRIDGE, 1, what, cause);
		done = 1;
	}
	r = flat_addr_each(k->net, bridge.index, 0, collect_address, &have, err);
	for (size_t i = 0; r >= 0 && i < self->pod_cidr_count; i++) {
		const struct flat_prefix want = gateway_of(&self->pod_cidrs[i]);
		bool present = false;
		for (size_t j = 0; j < have.count && !present; j++)
			present = flat_prefix_equal(&have.items[j], &want);
		if (present)
			continue;
		if (want.ip.family == AF_INET6)
			r = tune_bridge(k, err);
		flat_addr_add(k->net, bridge.index, &want, FLAT_ADDR_PREFIX_ROUTE, FLAT_EXISTS_OK);
		if (r >= 0)
			r = flat_net_commit(k->net, err);
		if (r < 0)
			break;
		snprintf(what, sizeof what, "bridge '%s' had lost its address %s", name,
			 flat_prefix_text(&want, text));
		flat_repaired(k->status, FLAT_UPKEEP_BRIDGE, 1, what, cause);
		done = 1;
	}
	return r < 0 ? flat_wrap(err, "bridge '%s'", name) : done;
}

bool flat_keeper_is_disturbed(struct flat_keeper *k, const struct flat_node *self,
			      const struct flat_event *event, char ret_why[static 160])
{
	const char *name = k->conf->cni.bridge;
	char text[FLAT_PREFIX_TEXT];
	if (event->kind == FLAT_EVENT_LINK && !strcmp(event->link.name, name) &&
	    !strcmp(event->link.kind, "bridge")) {
		const bool fresh = event->link.index != k->bridge_index;
		see_bridge(k, event->gone ? 0 : event->link.index);
		snprintf(ret_why, 160, "bridge '%s' %s", name, fresh ? "is new" : "went down");
		return !event->gone && (fresh || !event->link.up);
	}
	if (event->kind != FLAT_EVENT_ADDR || !event->gone || !k->bridge_index ||
	    event->addr.index != k->bridge_index)
		return false;
	for (size_t i = 0; i < self->pod_cidr_count; i++) {
		const struct flat_prefix want = gateway_of(&self->pod_cidrs[i]);
		if (!flat_prefix_equal(&event->addr.address, &want))
			continue;
		snprintf(ret_why, 160, "address %s of bridge '%s' was removed",
			 flat_prefix_text(&want, text), name);
		return true;
	}
	return false;
}

/* ---- rules -------------------------------------------------------------------------------------
 */

static bool is_covered(const struct flat_prefix *items, size_t count, const struct flat_prefix *p)
{
	for (size_t i = 0; i < count; i++)
		if (items[i].len <= p->len && flat_prefix_contains(&items[i], &p->ip))
			return true;
	return false;
}

int flat_keep_rules(struct flat_keeper *k, const struct flat_node *self,
		    const struct flat_cause *cause, struct flat_err *err)
{
	/* As lib/plan has it, from the same node file: the flat network, and what of our pods is
	 * not in it. In that order: the rules' digest depends on it. */
	struct flat_prefix cluster[FLAT_NFT_MAX_PREFIXES];
	size_t count = k->conf->cluster.cidr_count;
	struct flat_err e = { 0 };
	const char *what = NULL;
	memcpy(cluster, k->conf->cluster.cidrs, count * sizeof *cluster);
	for (size_t i = 0; i < self->pod_cidr_count && count < FLAT_LEN(cluster); i++)
		if (!is_covered(cluster, count, &self->pod_cidrs[i]))
			cluster[count++] = self->pod_cidrs[i];
	const struct flat_nft_network want = {
		.name = k->conf->cni.network,
		.cluster = cluster,
		.cluster_count = count,
		.pods = self->pod_cidrs,
		.pod_count = self->pod_cidr_count,
		.masquerade = k->conf->cni.ip_masq,
		.forward = true,
	};
	int r = flat_nft_verify(&want, &what, &e);
	if (r == 0) {
		r = flat_nft_ensure(&want, &e);
		if (r >= 0)
			flat_repaired(k->status, FLAT_UPKEEP_RULES, 1,
				      what ? what : "rules were not as wanted", cause);
	} else if (r > 0) {
		r = 0;
	}
	/* as an ADD: without masquerading, a kernel without nf_tables will do */
	if (r < 0 && !want.masquerade &&
	    (e.sys == EOPNOTSUPP || e.sys == EPROTONOSUPPORT || e.sys == EAFNOSUPPORT)) {
		flat_remark(&k->no_nft, FLAT_LEVEL_WARN, "forwarding is not accepted explicitly",
			    e.msg);
		return 0;
	}
	if (r < 0) {
		*err = e;
		return flat_wrap(err, "rules");
	}
	return r;
}

/* ---- sysctls -----------------------------------------------------------------------------------
 */

/* What cannot be written is said once: in a container /proc/sys may be read-only, and somebody else
 * may be in charge. It is an error only where nothing works without. */
static int keep(struct flat_keeper *k, const char *path, const char *value, bool needed,
		const struct flat_cause *cause, struct flat_err *err)
{
	struct flat_err e = { 0 };
	char what[160], was[32] = "?";
	int r = flat_sysctl_get(path, was, sizeof was, NULL);
	if (r >= 0 && !strcmp(was, value))
		return 0;
	r = flat_sysctl_set(path, value, &e);
	if (r > 0) {
		snprintf(what, sizeof what, "%s was %s, not %s", path, was, value);
		flat_repaired(k->status, FLAT_UPKEEP_SYSCTL, 1, what, cause);
		return 1;
	}
	if (r >= 0 || (r == -ENOENT && !e.code && !needed))
		return 0;
	if (!e.code)
		flat_fail(&e, FLAT_CODE_NETWORK, -r, "sysctl '%s'", path);
	if (!needed) {
		flat_remark(&k->no_sysctl, FLAT_LEVEL_WARN, "a sysctl cannot be set", e.msg);
		return 0;
	}
	if (err && !err->code)
		*err = e;
	return r;
}

int flat_keep_sysctls(struct flat_keeper *k, const struct flat_node *self,
		      const struct flat_node_state *state, const struct flat_cause *cause,
		      struct flat_err *err)
{
	char path[96];
	int done = 0, r = 0;
	const bool v4 = has_family(self, AF_INET);
	/* forwarding first: switching it on resets others (inet_forward_change() in
	 * net/ipv4/devinet.c) */
	if (v4)
		r = keep(k, "net/ipv4/ip_forward", "1", true, cause, err);
	done |= r > 0;
	if (r >= 0 && has_family(self, AF_INET6))
		r = keep(k, "net/ipv6/conf/all/forwarding", "1", true, cause, err);
	done |= r > 0;
	if (v4) { /* out by the way it came is what routed pods do */
		done |= keep(k, "net/ipv4/conf/all/send_redirects", "0", false, cause, NULL) > 0;
		if (k->bridge_index) {
			const struct flat_cause quiet = {
				.news = cause->news ||
					flat_now_ms() - k->bridge_seen_ms < BRIDGE_PATIENCE_MS
			};
			snprintf(path, sizeof path, "net/ipv4/conf/%s/send_redirects",
				 k->conf->cni.bridge);
			done |= keep(k, path, "0", false, quiet.news ? &quiet : cause, NULL) > 0;
		}
	}
	/* Pods of other nodes come by the tunnel, and what leaves for one may take another way: the
	 * greater of "all" and the device's counts. */
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		if (!state->links[f].name[0])
			continue;
		snprintf(path, sizeof path, "net/ipv4/conf/%s/rp_filter", state->links[f].name);
		/* a device that was made anew has the default: no repair of its own */
		const struct flat_cause quiet = { .news = true };
		done |= keep(k, path, "2", false, &quiet, NULL) > 0;
	}
	return r < 0 ? r : done;
}

static bool differs(const char *path, const char *value)
{
	char is[16];
	return flat_sysctl_get(path, is, sizeof is, NULL) >= 0 && strcmp(is, value) != 0;
}

bool flat_keeper_has_lost_sysctls(const struct flat_keeper *k, const struct flat_node *self)
{
	char path[96];
	if (has_family(self, AF_INET6) && differs("net/ipv6/conf/all/forwarding", "1"))
		return true;
	if (!has_family(self, AF_INET))
		return false;
	if (differs("net/ipv4/ip_forward", "1") || differs("net/ipv4/conf/all/send_redirects", "0"))
		return !k->no_sysctl.said || differs("net/ipv4/ip_forward", "1");
	snprintf(path, sizeof path, "net/ipv4/conf/%s/send_redirects", k->conf->cni.bridge);
	return k->bridge_index && !k->no_sysctl.said && differs(path, "0");
}

/* ---- tunnels -----------------------------------------------------------------------------------
 */

int flat_keep_checksums(struct flat_keeper *k, const struct flat_node_state *state,
			struct flat_err *err)
{
	const enum flat_checksum mode = k->conf->checksum;
	const bool on = mode == FLAT_CHECKSUM_ON;
	int done = 0;
	if (mode == FLAT_CHECKSUM_AUTO && !k->old_kernel)
		return 0;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const char *name = state->links[f].name;
		struct flat_err e = { 0 };
		if (!name[0])
			continue;
		int r = flat_link_get_tx_checksum(name, &e);
		if (r >= 0 && (r > 0) != on)
			r = flat_link_set_tx_checksum(name, on, &e);
		else if (r >= 0)
			continue;
		if (r < 0 && on) { /* a device that cannot: slower, and right */
			flat_remark(&k->no_checksum, FLAT_LEVEL_WARN,
				    "checksum offload cannot be switched on", e.msg);
			continue;
		}
		if (r < 0) {
			*err = e;
			return flat_wrap(err, "checksum offload of '%s'", name);
		}
		flat_say(FLAT_LEVEL_INFO, on ? "checksum offload is on" : "checksum offload is off",
			 "link", name, NULL);
		done = 1;
	}
	return done;
}

uint32_t flat_keeper_room(uint32_t limit, uint32_t wanted)
{
	if (!limit || wanted <= limit / 2 || limit >= THRESH_MAX)
		return limit;
	while (limit < THRESH_MAX && limit / 4 < wanted)
		limit = limit < THRESH_MAX / 2 ? limit * 2 : THRESH_MAX;
	return limit;
}

/* One table for all namespaces; its limits are written in the first one, and only there. The
 * greatest first: at no time is one above the next. */
static int raise_limits(const char *family, uint32_t limit, struct flat_err *err)
{
	char path[64], value[16];
	for (int i = 3; i >= 1; i--) {
		snprintf(path, sizeof path, "net/%s/neigh/default/gc_thresh%d", family, i);
		snprintf(value, sizeof value, "%u", i == 3 ? limit : limit >> (4 - i));
		int r = flat_sysctl_set(path, value, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int flat_keep_neighbours(struct flat_keeper *k, const struct flat_node_state *state,
			 struct flat_err *err)
{
	static const char *const families[FLAT_FAMILIES] = { "ipv4", "ipv6" };
	int done = 0;
	bool tight = false;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		uint32_t count, limit, wanted = 0;
		char text[120];
		struct flat_err e = { 0 };
		int r = flat_neigh_count(k->net, f == FLAT_V4 ? AF_INET : AF_INET6, &count, &limit,
					 err);
		if (r < 0)
			return r;
		k->status->neigh[f].count = count;
		k->status->neigh[f].limit = limit;
		for (size_t i = 0; i < state->neigh_count; i++)
			wanted += flat_family_index(state->neighs[i].ip.family) == f;
		if (wanted < count)
			wanted = count;
		const uint32_t raised = flat_keeper_room(limit, wanted);
		if (raised == limit)
			continue;
		r = raise_limits(families[f], raised, &e);
		if (r >= 0) {
			snprintf(text, sizeof text, "%u of %u entries: gc_thresh3 is now %u",
				 wanted, limit, raised);
			flat_say(FLAT_LEVEL_INFO, "neighbour table made larger", "family",
				 families[f], "reason", text, NULL);
			k->status->neigh[f].limit = raised;
			done = 1;
			continue;
		}
		snprintf(text, sizeof text,
			 "raise net.%s.neigh.default.gc_thresh3 (%u) on the host to %u or more",
			 families[f], limit, raised);
		flat_remark(&k->no_neigh, FLAT_LEVEL_WARN,
			    "the neighbour table is more than half full", text);
		tight = true;
	}
	if (!tight)
		flat_remark_end(&k->no_neigh, "the neighbour table has room again");
	return done;
}

/* ---- counters of the kernel's -------------------------------------------------------------------
 */

static uint64_t read_number(const char *path)
{
	char text[24];
	uint64_t number = 0;
	if (flat_sysctl_get(path, text, sizeof text, NULL) >= 0)
		flat_uint_parse(text, UINT64_MAX, &number);
	return number;
}

/* The sum of a column, one line for each processor, hexadecimal. */
static uint64_t sum_column(char *text, const char *column)
{
	uint64_t sum = 0;
	char *lines = NULL, *words;
	int wanted = -1, i = 0;
	char *line = strtok_r(text, "\n", &lines);
	for (char *word = line ? strtok_r(line, " ", &words) : NULL; word;
	     word = strtok_r(NULL, " ", &words), i++)
		if (!strcmp(word, column))
			wanted = i;
	while (wanted >= 0 && (line = strtok_r(NULL, "\n", &lines))) {
		i = 0;
		for (char *word = strtok_r(line, " ", &words); word;
		     word = strtok_r(NULL, " ", &words), i++)
			if (i == wanted)
				sum += strtoull(word, NULL, 16);
	}
	return sum;
}

void flat_keeper_count(struct flat_keeper *k)
{
	char *text = NULL;
	k->status->conntrack_count = read_number("net/netfilter/nf_conntrack_count");
	k->status->conntrack_max = read_number("net/netfilter/nf_conntrack_max");
	if (flat_state_read(AT_FDCWD, "/proc/self/net/stat/nf_conntrack", 1 << 20, &text, NULL) > 0)
		k->status->conntrack_insert_failed = sum_column(text, "insert_failed");
	free(text);
}
