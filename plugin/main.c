// SPDX-License-Identifier: Apache-2.0
/*
 * flatnet: the CNI plugin.
 */
#include "verbs.h"

#include <flatnet/entry.h>

#include <stdlib.h>
#include <unistd.h>

static int carry_out(struct flat_request *req, const struct flat_log *log, int output_fd,
		     struct flat_err *err)
{
	char host_name[256] = "";
	gethostname(host_name, sizeof host_name - 1);
	const struct flat_call call = {
		.req = req,
		.host = { .node_name = getenv("NODE_NAME"), .host_name = host_name },
		.log = log,
		.output_fd = output_fd,
	};
	switch (req->command) {
	case FLAT_CMD_ADD:
		return flat_verb_add(&call, err);
	case FLAT_CMD_DEL:
		return flat_verb_del(&call, err);
	case FLAT_CMD_CHECK:
		return flat_verb_check(&call, err);
	case FLAT_CMD_GC:
		return flat_verb_gc(&call, err);
	case FLAT_CMD_STATUS:
		return flat_verb_status(&call, err);
	case FLAT_CMD_VERSION:
		break; /* answered before */
	}
	return 0;
}

int main(void)
{
	static const struct flat_plugin plugin = {
		.name = "flatnet",
		.about = "CNI plugin, a flat network of pods on bridges",
		.carry_out = carry_out,
	};
	return flat_plugin_main(&plugin);
}
