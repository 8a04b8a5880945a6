// SPDX-License-Identifier: Apache-2.0
/*
 * Inside the pod's namespace: its interface comes up with addresses and routes, in one batch.
 */
#include "plan-internal.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <string.h>
#include <sys/socket.h>

enum { DAD_TIMEOUT_MS = 5000 };

static size_t count_ipv6(const struct flat_attachment *a)
{
	size_t count = 0;
	for (size_t i = 0; i < a->ip_count; i++)
		count += a->ips[i].address.ip.family == AF_INET6;
	return count;
}

static int tune_pod(const struct flat_attachment *a, struct flat_err *err)
{
	const bool ipv6 = count_ipv6(a) > 0;
	int r = 0;
	if (!ipv6 && !a->link_local)
		return 0;
	const struct {
		const char *link, *key, *value;
	} settings[] = {
		{ "lo", "disable_ipv6", ipv6 ? "0" : NULL },
		{ a->ifname, "disable_ipv6", ipv6 ? "0" : NULL },
		{ a->ifname, "keep_addr_on_down", ipv6 ? "1" : NULL },
		{ a->ifname, "accept_dad", a->enable_dad ? "1" : "0" },
		/* a redirect would lead around the node's IP layer */
		{ a->ifname, "accept_redirects", a->bridge.routed ? "0" : NULL },
		{ a->ifname, "enhanced_dad", a->enable_dad ? "1" : NULL },
	};
	for (size_t i = 0; i < FLAT_LEN(settings) && r >= 0; i++)
		if (settings[i].value)
			r = flat_link_set_sysctl("ipv6", settings[i].link, settings[i].key,
						 settings[i].value, err);
	return r;
}

static int fail_gone(const struct flat_attachment *a, struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_NETWORK, ENODEV, "interface '%s' is gone again", a->ifname);
}

struct look {
	const struct flat_attachment *a;
	size_t missing; /* of its IPv6 addresses */
	uint32_t flags; /* of all that the interface has */
};

static int see_address(void *arg, const struct flat_addr *addr)
{
	struct look *look = arg;
	look->flags |= addr->flags;
	for (size_t i = 0; i < look->a->ip_count; i++)
		if (flat_ip_equal(&look->a->ips[i].address.ip, &addr->address.ip))
			look->missing--;
	return 0;
}

/* With duplicate detection an address cannot be used for a second or two, or never. One that is not
 * there any more will never be. */
static int await_addresses(const struct flat_attachment *a, struct flat_net *pod, int index,
			   struct flat_err *err)
{
	const int64_t deadline = flat_now_ms() + DAD_TIMEOUT_MS;
	for (;;) {
		struct look look = { .a = a, .missing = count_ipv6(a) };
		struct flat_err e = { 0 };
		int r = flat_addr_each(pod, index, AF_INET6, see_address, &look, &e);
		if (r < 0 && r != -ENODEV) {
			*err = e;
			return r;
		}
		if (look.flags & IFA_F_DADFAILED)
			return flat_fail(
				err, FLAT_CODE_IN_USE, 0,
				"duplicate address detection: another host has an IPv6 address of this pod");
		if (look.missing) /* all, where the interface itself is not there */
			return fail_gone(a, err);
		if (!(look.flags & IFA_F_TENTATIVE))
			return 0;
		if (flat_now_ms() >= deadline)
			return flat_fail(err, FLAT_CODE_TRY_LATER, 0,
					 "duplicate address detection does not end within %d ms",
					 DAD_TIMEOUT_MS);
		flat_sleep_us(20000);
	}
}

/* A route that another interface of this pod has made stays: the first one wins, as with the
 * reference. */
static void queue_pod_routes(const struct flat_attachment *a, struct flat_net *pod, int index,
			     bool onlink)
{
	for (size_t i = 0; i < a->pod_route_count; i++) {
		struct flat_net_route route = a->pod_routes[i];
		route.oif = index;
		route.onlink = route.onlink || (onlink && route.route.gw.family);
		flat_route_add(pod, &route, false, FLAT_EXISTS_OK);
	}
}

static int fill(const struct flat_attachment *a, struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	int index, r = flat_net_open(&pod, err);
	if (r < 0)
		return r;
	r = flat_link_find_index(pod, a->ifname, &index, err);
	if (r <= 0)
		return r < 0 ? r : fail_gone(a, err);
	if (a->ip_count) {
		r = tune_pod(a, err);
		if (r < 0)
			return r;
	}
	const unsigned options = (a->bridge.routed ? 0 : FLAT_ADDR_PREFIX_ROUTE) |
				 (a->enable_dad ? FLAT_ADDR_DAD : 0);
	struct flat_link_change bare = FLAT_LINK_CHANGE, up = FLAT_LINK_CHANGE;
	/* What an IPv6 link says when it comes up is flooded to every pod of the bridge. */
	bare.no_ipv6ll = a->ip_count && !a->link_local && !count_ipv6(a);
	if (bare.no_ipv6ll)
		flat_link_change(pod, index, &bare, FLAT_UNSUPPORTED_OK);
	up.up = 1;
	up.arp_notify = a->ip_count ? 1 : -1;
	flat_link_change(pod, index, &up, FLAT_STRICT);
	for (size_t i = 0; i < a->ip_count; i++)
		flat_addr_add(pod, index, &a->ips[i].address, options, FLAT_STRICT);
	struct flat_err try = { 0 };
	queue_pod_routes(a, pod, index, false);
	r = flat_net_commit(pod, &try);
	if (r == -ENETUNREACH && a->bridge.routed) {
		/* The gateway's own route is another interface's, of this network, too: say that it
		 * is on the wire here as well. */
		try = (struct flat_err){ 0 };
		queue_pod_routes(a, pod, index, true);
		r = flat_net_commit(pod, &try);
	}
	if (r < 0)
		*err = try;
	return r;
}

static int await(const struct flat_attachment *a, struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	int index, r = flat_net_open(&pod, err);
	if (r >= 0)
		r = flat_link_find_index(pod, a->ifname, &index, err);
	if (r <= 0)
		return r < 0 ? r : fail_gone(a, err);
	return await_addresses(a, pod, index, err);
}

static int inside(const struct flat_attachment *a, int netns_fd,
		  int (*fn)(const struct flat_attachment *a, struct flat_err *err),
		  struct flat_err *err)
{
	int back = -1;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = fn(a, err);
	flat_netns_leave(&back);
	return r < 0 ? flat_wrap(err, "in '%.128s'", a->netns) : 0;
}

int flat_pod_fill(const struct flat_attachment *a, int netns_fd, struct flat_err *err)
{
	return a->pod_up ? inside(a, netns_fd, fill, err) : 0;
}

int flat_pod_await(const struct flat_attachment *a, int netns_fd, struct flat_err *err)
{
	return a->pod_up && a->enable_dad && count_ipv6(a) ? inside(a, netns_fd, await, err) : 0;
}
