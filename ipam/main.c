// SPDX-License-Identifier: Apache-2.0
/*
 * flatnet-ipam: the CNI IPAM plugin.
 */
#include <flatnet/entry.h>
#include <flatnet/ipam.h>

static int carry_out(void *arg, struct flat_request *req, const struct flat_log *log, int output_fd,
		     struct flat_err *err)
{
	(void)arg;
	return flat_ipam_carry_out(req, FLAT_IPAM_DATA_DIR, log, output_fd, err);
}

int main(void)
{
	static const struct flat_plugin plugin = {
		.name = "flatnet-ipam",
		.about = "CNI IPAM plugin, addresses from this node's ranges",
		.manual = "flatnet-ipam",
		.carry_out = carry_out,
	};
	return flat_plugin_main(&plugin);
}
