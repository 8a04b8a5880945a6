// SPDX-License-Identifier: Apache-2.0
/*
 * flatnet: the CNI plugin. Under the name of a reference plugin it is that plugin.
 */
#include "types.h"

#include <flatnet/entry.h>

#include <stdlib.h>
#include <unistd.h>

static int carry_out(void *arg, struct flat_request *req, const struct flat_log *log, int output_fd,
		     struct flat_err *err)
{
	const struct flat_type *type = arg;
	char host_name[256] = "";
	gethostname(host_name, sizeof host_name - 1);
	const struct flat_call call = {
		.req = req,
		.defaults = type->defaults,
		.feature = type->feature,
		.host = { .node_name = getenv("NODE_NAME"), .host_name = host_name },
		.log = log,
		.output_fd = output_fd,
	};
	return type->carry_out(&call, err);
}

int main(int argc, char **argv)
{
	const struct flat_type *type = flat_type_find(argc > 0 ? argv[0] : "");
	const struct flat_plugin plugin = {
		.name = type->name,
		.about = type->about,
		.manual = "flatnet",
		.carry_out = carry_out,
		.arg = (void *)type,
	};
	return flat_plugin_main(&plugin);
}
