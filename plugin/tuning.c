// SPDX-License-Identifier: Apache-2.0
/*
 * The reference plugin tuning: changes an interface that another plugin of the chain has made, and
 * passes prevResult on, with the MAC that it has then.
 */
#include "types.h"

#include <errno.h>
#include <string.h>

static int print_result(const struct flat_call *call, const struct flat_retuning *t,
			struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_free char *text = NULL;
	struct flat_result *result = req->prev_result;
	for (size_t i = 0; i < result->interface_count; i++) {
		struct flat_result_interface *link = &result->interfaces[i];
		if (strcmp(link->name, req->ifname) != 0)
			continue;
		if (t->has_mac) {
			link->mac = t->mac;
			link->has_mac = true;
		}
		if (t->tuning.mtu && link->mtu)
			link->mtu = t->tuning.mtu;
	}
	int r = flat_result_print(result, req->version, &text, err);
	return r < 0 ? r : flat_output_write(call->output_fd, text, err);
}

static int add(const struct flat_call *call, const struct flat_retuning *t, int netns_fd,
	       struct flat_err *err)
{
	struct flat_request *req = call->req;
	if (!req->prev_result) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "prevResult is missing");
		return flat_detail(err,
				   "'%.64s' must be called as chained plugin: put it behind "
				   "the one that makes the interface",
				   req->type);
	}
	int r = flat_retuning_apply(req, t, netns_fd, call->log, err);
	if (r < 0)
		return r;
	r = print_result(call, t, err);
	if (r < 0)
		flat_retuning_undo(req, t, netns_fd, call->log);
	return r;
}

int flat_tuning_carry_out(const struct flat_call *call, struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_fd netns = -1;
	struct flat_retuning t;
	int r;
	switch (req->command) {
	case FLAT_CMD_ADD:
	case FLAT_CMD_CHECK:
		r = flat_call_netns(call, &netns, err);
		if (r >= 0)
			r = flat_retuning_parse(req, call->log, &t, err);
		if (r < 0)
			return r;
		return req->command == FLAT_CMD_ADD ? add(call, &t, netns, err)
						    : flat_retuning_verify(req, &t, netns, err);
	case FLAT_CMD_DEL:
		if (req->netns[0] && flat_call_netns(call, &netns, NULL) < 0)
			netns = -1;
		return flat_retuning_remove(req, netns, err);
	default:
		return 0;
	}
}
