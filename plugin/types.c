// SPDX-License-Identifier: Apache-2.0
/*
 * The names. Under one of the reference plugins' a configuration means what it means to that
 * plugin, so that a node changes over by replacing files, and back.
 */
#include "types.h"

#include <string.h>

static int attach(const struct flat_call *call, struct flat_err *err)
{
	switch (call->req->command) {
	case FLAT_CMD_ADD:
		return flat_verb_add(call, err);
	case FLAT_CMD_DEL:
		return flat_verb_del(call, err);
	case FLAT_CMD_CHECK:
		return flat_verb_check(call, err);
	case FLAT_CMD_GC:
		return flat_verb_gc(call, err);
	case FLAT_CMD_STATUS:
		return flat_verb_status(call, err);
	case FLAT_CMD_VERSION:
		break; /* answered before */
	}
	return 0;
}

static int host_local(const struct flat_call *call, struct flat_err *err)
{
	return flat_ipam_carry_out(call->req, FLAT_IPAM_HOST_LOCAL_DIR, call->log, call->output_fd,
				   err);
}

static const struct flat_type types[] = {
	{
		.name = "flatnet",
		.about = "CNI plugin, a flat network of pods on bridges",
		.carry_out = attach,
		.defaults = &flat_defaults_flatnet,
	},
	{
		.name = "bridge",
		.about = "CNI plugin, pods on a bridge; this is flatnet as the reference plugin",
		.carry_out = attach,
		.defaults = &flat_defaults_bridge,
	},
	{
		.name = "host-local",
		.about = "CNI IPAM plugin, addresses from this node's ranges; this is flatnet-ipam "
			 "as the reference plugin",
		.carry_out = host_local,
	},
	{
		.name = "portmap",
		.about = "chained CNI plugin, ports of the host; this is flatnet as the reference "
			 "plugin",
		.carry_out = flat_chained_carry_out,
		.feature = FLAT_FEATURE_PORTS,
	},
	{
		.name = "bandwidth",
		.about = "chained CNI plugin, limits of the traffic; this is flatnet as the "
			 "reference plugin",
		.carry_out = flat_chained_carry_out,
		.feature = FLAT_FEATURE_BANDWIDTH,
	},
	{
		.name = "tuning",
		.about = "chained CNI plugin, sysctls and settings of the interface; this is "
			 "flatnet as the reference plugin",
		.carry_out = flat_tuning_carry_out,
	},
	{
		.name = "loopback",
		.about = "CNI plugin, the loopback interface; this is flatnet as the reference "
			 "plugin",
		.carry_out = flat_loopback_carry_out,
	},
};

const struct flat_type *flat_type_find(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');
	const char *name = slash ? slash + 1 : argv0;
	for (size_t i = 0; i < FLAT_LEN(types); i++)
		if (!strcmp(types[i].name, name))
			return &types[i];
	return &types[0];
}
