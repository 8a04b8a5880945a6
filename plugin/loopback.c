// SPDX-License-Identifier: Apache-2.0
/*
 * The reference plugin loopback: brings lo up and tells its addresses. Whatever CNI_IFNAME says, it
 * is lo.
 */
#include "types.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static const char lo[] = "lo";

struct seen {
	struct flat_prefix addresses[2]; /* the first of each family */
	bool foreign;			 /* one of them is not a loopback's */
	struct flat_prefix which;
};

static int see_address(void *arg, const struct flat_addr *addr)
{
	static const struct flat_ip six = { .family = AF_INET6, .bytes[15] = 1 };
	struct seen *seen = arg;
	const struct flat_prefix *address = &addr->address;
	const bool v6 = address->ip.family == AF_INET6;
	if (!(v6 ? flat_ip_equal(&address->ip, &six) : address->ip.bytes[0] == 127)) {
		seen->foreign = true;
		seen->which = *address;
	}
	if (!seen->addresses[v6].ip.family)
		seen->addresses[v6] = *address;
	return 0;
}

static int find(struct flat_net *net, struct flat_link *ret_link, struct flat_err *err)
{
	int r = flat_link_by_name(net, lo, ret_link, err);
	return r != 0 ? r : flat_fail(err, FLAT_CODE_NETWORK, ENODEV, "interface 'lo'");
}

static int raise(struct seen *seen, struct flat_err *err)
{
	flat_auto_net *net = NULL;
	struct flat_link_change change = FLAT_LINK_CHANGE;
	struct flat_link link;
	int r = flat_net_open(&net, err);
	if (r >= 0)
		r = find(net, &link, err);
	if (r < 0)
		return r;
	change.up = 1;
	flat_link_change(net, link.index, &change, FLAT_STRICT);
	r = flat_net_commit(net, err);
	if (r >= 0)
		r = flat_addr_each(net, link.index, 0, see_address, seen, err);
	if (r >= 0 && seen->foreign)
		return flat_fail(err, FLAT_CODE_NETWORK, 0,
				 "the loopback interface has %s, which is no loopback address",
				 flat_prefix_text(&seen->which, (char[FLAT_PREFIX_TEXT]){ 0 }));
	return r;
}

static int lower(struct seen *unused, struct flat_err *err)
{
	flat_auto_net *net = NULL;
	struct flat_link_change change = FLAT_LINK_CHANGE;
	struct flat_link link;
	(void)unused;
	int r = flat_net_open(&net, err);
	if (r >= 0)
		r = find(net, &link, err);
	if (r < 0)
		return r;
	change.up = 0;
	flat_link_change(net, link.index, &change, FLAT_STRICT);
	return flat_net_commit(net, err);
}

static int look(struct seen *unused, struct flat_err *err)
{
	flat_auto_net *net = NULL;
	struct flat_link link;
	(void)unused;
	int r = flat_net_open(&net, err);
	if (r >= 0)
		r = find(net, &link, err);
	if (r >= 0 && !link.up)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0,
				 "loopback interface is down: `ip link set lo up`");
	return r;
}

static int inside(int netns_fd, int (*fn)(struct seen *seen, struct flat_err *err),
		  struct seen *seen, struct flat_err *err)
{
	int back = -1;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = fn(seen, err);
	flat_netns_leave(&back);
	return r < 0 ? r : 0;
}

/* What came before us in the chain is passed on as it came. */
static int print_result(const struct flat_call *call, const struct seen *seen, struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_free char *text = NULL;
	struct flat_result_interface interface = { .name = lo,
						   .has_mac = true,
						   .sandbox = req->netns };
	struct flat_result_ip ips[2];
	struct flat_result result = { .interfaces = &interface, .interface_count = 1, .ips = ips };
	for (size_t i = 0; i < FLAT_LEN(seen->addresses); i++)
		if (seen->addresses[i].ip.family)
			ips[result.ip_count++] =
				(struct flat_result_ip){ .address = seen->addresses[i] };
	int r = flat_result_print(req->prev_result ? req->prev_result : &result, req->version,
				  &text, err);
	return r < 0 ? r : flat_output_write(call->output_fd, text, err);
}

int flat_loopback_carry_out(const struct flat_call *call, struct flat_err *err)
{
	flat_auto_fd netns = -1;
	struct seen seen = { 0 };
	int r;
	switch (call->req->command) {
	case FLAT_CMD_ADD:
		r = flat_call_netns(call, &netns, err);
		if (r >= 0)
			r = inside(netns, raise, &seen, err);
		return r < 0 ? r : print_result(call, &seen, err);
	case FLAT_CMD_CHECK:
		r = flat_call_netns(call, &netns, err);
		return r < 0 ? r : inside(netns, look, &seen, err);
	case FLAT_CMD_DEL: /* of a namespace that is gone, or of none, nothing is left */
		r = call->req->netns[0] ? flat_call_netns(call, &netns, NULL) : -ENOENT;
		return r < 0 ? 0 : inside(netns, lower, &seen, err);
	default:
		return 0;
	}
}
