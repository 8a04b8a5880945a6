// SPDX-License-Identifier: Apache-2.0
/*
 * The reference's plugins that give something to an interface which another plugin of the chain has
 * made: one feature of the model, and prevResult passed on.
 */
#include "types.h"

#include <errno.h>
#include <string.h>

static int print_result(const struct flat_call *call, const struct flat_attachment *a,
			struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_free char *text = NULL;
	if (!req->prev_result)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "prevResult is missing: '%.64s' must be called as chained plugin",
				 req->type);
	struct flat_result result = *req->prev_result;
	if (a && a->shaping.from.rate) { /* whose name nobody could know */
		struct flat_result_interface *all =
			flat_arena_alloc(&req->arena, (result.interface_count + 1) * sizeof *all);
		if (!all)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "result");
		if (result.interface_count)
			memcpy(all, result.interfaces, result.interface_count * sizeof *all);
		all[result.interface_count++] = (struct flat_result_interface){
			.name = a->shaping.ifb, .mac = a->shaping.ifb_mac, .has_mac = true
		};
		result.interfaces = all;
	}
	int r = flat_result_print(&result, req->version, &text, err);
	return r < 0 ? r : flat_output_write(call->output_fd, text, err);
}

static int add(const struct flat_call *call, struct flat_net *net, struct flat_err *err)
{
	flat_auto_fd netns = -1;
	struct flat_applied applied = FLAT_APPLIED;
	struct flat_attachment *a = flat_arena_alloc(&call->req->arena, sizeof *a);
	if (!a)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "attachment");
	int r = flat_call_netns(call, &netns, err);
	if (r >= 0)
		r = flat_chained_plan(call->req, call->feature, net, netns, call->log, a, &applied,
				      err);
	if (r <= 0)
		return r < 0 ? r : print_result(call, NULL, err);
	r = flat_chained_apply(a, net, netns, call->log, &applied, err);
	if (r >= 0)
		r = print_result(call, a, err);
	if (r < 0)
		flat_chained_undo(a, net, &applied, call->log);
	flat_applied_close(&applied);
	return r;
}

static int check(const struct flat_call *call, struct flat_net *net, struct flat_err *err)
{
	flat_auto_fd netns = -1;
	struct flat_applied applied = FLAT_APPLIED;
	struct flat_attachment *a = flat_arena_alloc(&call->req->arena, sizeof *a);
	if (!a)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "attachment");
	int r = flat_call_netns(call, &netns, err);
	if (r >= 0)
		r = flat_chained_plan(call->req, call->feature, net, netns, call->log, a, &applied,
				      err);
	return r <= 0 ? r : flat_chained_verify(call->req, a, net, netns, err);
}

int flat_chained_carry_out(const struct flat_call *call, struct flat_err *err)
{
	flat_auto_net *net = NULL;
	int r = flat_net_open(&net, err);
	if (r < 0)
		return r;
	switch (call->req->command) {
	case FLAT_CMD_ADD:
		return add(call, net, err);
	case FLAT_CMD_CHECK:
		return check(call, net, err);
	case FLAT_CMD_DEL:
		return flat_chained_remove(call->req, call->feature, net, call->log, err);
	case FLAT_CMD_GC:
		r = flat_chained_sweep(net, call->feature, call->log, err);
		return r < 0 ? r : 0;
	default:
		return 0;
	}
}
