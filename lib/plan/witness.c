// SPDX-License-Identifier: Apache-2.0
/*
 * The links' testimony about reservations: a snapshot of the host's veths and what their aliases
 * claim.
 */
#include "plan-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_TIMEOUT_MS = 600 };

struct seen {
	char name[FLAT_IFNAME_LEN];
	bool ours; /* of this network, by its alias */
	bool bare; /* no alias: an ADD that has not come so far, or was killed there */
	struct flat_alias alias;
};

struct flat_witness_state {
	struct flat_net *net;
	const char *network, *bridge;
	bool trust_bare;
	struct seen *links;
	size_t count, room;
};

static int collect(void *arg, const struct flat_link *link)
{
	struct flat_witness_state *w = arg;
	struct seen seen = { .bare = !link->alias[0] };
	memcpy(seen.name, link->name, sizeof seen.name);
	seen.ours = flat_alias_parse(link->alias, &seen.alias) &&
		    flat_alias_names(seen.alias.network, w->network);
	if (!seen.ours && !seen.bare)
		return 0;
	if (w->count == w->room) {
		size_t room = w->room ? 2 * w->room : 64;
		struct seen *more = realloc(w->links, room * sizeof *more);
		if (!more)
			return -ENOMEM;
		w->links = more;
		w->room = room;
	}
	w->links[w->count++] = seen;
	return 0;
}

static int look(void *arg, struct flat_err *err)
{
	struct flat_witness_state *w = arg;
	w->count = 0;
	int r = flat_link_each(w->net, "veth", 0, collect, w, err);
	return r < 0 ? flat_wrap(err, "links of network '%.64s'", w->network) : 0;
}

static bool claims(const struct seen *seen, const struct flat_ip *ip)
{
	for (size_t i = 0; i < seen->alias.ip_count; i++)
		if (flat_ip_equal(&seen->alias.ips[i], ip))
			return true;
	return false;
}

/* It is the pod's, though its alias has no room for this address. */
static bool may_claim(const struct seen *seen, const char *container_id, const char *ifname)
{
	return seen->alias.cut && !strcmp(seen->alias.ifname, ifname) &&
	       flat_alias_names(seen->alias.container_id, container_id);
}

static bool is_alive(void *arg, const char *container_id, const char *ifname,
		     const struct flat_ip *ip)
{
	const struct flat_witness_state *w = arg;
	char name[FLAT_IFNAME_LEN];
	flat_name_host_veth(w->network, container_id, ifname, name);
	for (size_t i = 0; i < w->count; i++)
		if ((w->links[i].ours &&
		     (claims(&w->links[i], ip) || may_claim(&w->links[i], container_id, ifname))) ||
		    (w->trust_bare && w->links[i].bare && !strcmp(w->links[i].name, name)))
			return true;
	return false;
}

static int each_claim(void *arg, int (*fn)(void *fn_arg, const struct flat_claim *claim),
		      void *fn_arg)
{
	const struct flat_witness_state *w = arg;
	int r = 0;
	for (size_t i = 0; i < w->count && r >= 0; i++) {
		const struct flat_alias *alias = &w->links[i].alias;
		if (w->links[i].ours)
			r = fn(fn_arg, &(struct flat_claim){ alias->container_id, alias->ifname,
							     alias->ips, alias->ip_count });
	}
	return r;
}

static int probe(void *arg, const struct flat_ip *ips, size_t count, bool *ret_answers,
		 struct flat_err *err)
{
	struct flat_witness_state *w = arg;
	struct flat_link link;
	int r = flat_link_by_name(w->net, w->bridge, &link, err);
	if (r < 0)
		return r;
	if (r == 0) { /* no bridge, no wire, no pod on it */
		memset(ret_answers, 0, count * sizeof *ret_answers);
		return 0;
	}
	return flat_net_probe(link.index, &link.mac, ips, count, PROBE_TIMEOUT_MS, ret_answers,
			      err);
}

int flat_witness_open(struct flat_net *net, const char *network, const char *bridge,
		      bool trust_bare, struct flat_ipam_witness *ret_witness, struct flat_err *err)
{
	struct flat_witness_state *w = calloc(1, sizeof *w);
	if (!w)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "links of network '%.64s'",
				 network);
	*w = (struct flat_witness_state){
		.net = net,
		.network = network,
		.bridge = bridge,
		.trust_bare = trust_bare,
	};
	*ret_witness = (struct flat_ipam_witness){
		.look = look,
		.is_alive = is_alive,
		.each_claim = each_claim,
		.probe = probe,
		.arg = w,
	};
	return 0;
}

void flat_witness_close(struct flat_ipam_witness *witness)
{
	struct flat_witness_state *w = witness->arg;
	if (!w)
		return;
	free(w->links);
	free(w);
	*witness = (struct flat_ipam_witness){ 0 };
}
