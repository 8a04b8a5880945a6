// SPDX-License-Identifier: Apache-2.0
#include "scene.h"

#include <string.h>

static const struct flat_column columns[] = {
	{ .key = "network", .title = "NETWORK" },
	{ .key = "addresses", .title = "ADDRESS", .kind = FLAT_KIND_LIST },
	{ .key = "pod", .title = "POD", .spare = true },
	{ .key = "containerID", .title = "CONTAINER" },
	{ .key = "interface", .title = "IFNAME" },
	{ .key = "hostInterface", .title = "HOST LINK" },
	{ .key = "bridge", .title = "BRIDGE" },
	{ .key = "mtu", .title = "MTU", .kind = FLAT_KIND_NUMBER },
	{ .key = "state", .title = "STATE", .toned = true },
};

static const char *bridge_of(struct flat_ctl *ctl, struct flat_scene *scene,
			     const struct flat_pod *pod)
{
	struct flat_link bridge;
	if (!pod->link.master ||
	    flat_link_by_index(scene->net, pod->link.master, &bridge, NULL) <= 0)
		return NULL;
	return flat_format(&ctl->report, "%s", bridge.name);
}

static int list(struct flat_ctl *ctl, struct flat_scene *scene)
{
	const struct flat_table head = { .key = "pods",
					 .none = "no pod of flatnet is on this node",
					 .columns = columns,
					 .column_count = FLAT_LEN(columns) };
	struct flat_table *table = flat_report_table(&ctl->report, &head);
	int status = FLAT_EXIT_OK, master = 0;
	const char *bridge = NULL;
	for (size_t i = 0; i < scene->pod_count; i++) {
		const struct flat_pod *pod = &scene->pods[i];
		const char *state = flat_pod_state(pod);
		const bool up = !strcmp(state, "up");
		if (ctl->network && strcmp(pod->network, ctl->network) != 0)
			continue;
		if (pod->link.master != master || !bridge)
			bridge = bridge_of(ctl, scene, pod);
		master = pod->link.master;
		const char *cells[FLAT_LEN(columns)] = {
			flat_keep(&ctl->report, pod->network),
			flat_pod_ips(ctl, pod),
			pod->name,
			flat_keep(&ctl->report, pod->alias.container_id),
			flat_keep(&ctl->report, pod->alias.ifname),
			flat_keep(&ctl->report, pod->link.name),
			bridge,
			flat_format(&ctl->report, "%u", pod->link.mtu),
			state,
		};
		flat_table_add(&ctl->report, table, up ? FLAT_TONE_GOOD : FLAT_TONE_BAD, cells);
		if (!up)
			status = FLAT_EXIT_WRONG;
	}
	return status;
}

static int run(struct flat_ctl *ctl, struct flat_err *err)
{
	struct flat_scene scene;
	int r = flat_scene_open(ctl, &scene, err);
	if (r >= 0)
		r = list(ctl, &scene);
	flat_scene_close(&scene);
	return r;
}

const struct flat_ctl_command flat_command_pods = {
	.name = "pods",
	.arguments = "",
	.about = "the pods on this node, as their links tell",
	.help = "Lists the pods that flatnet has attached to this node. The host's end of each pod's\n"
		"link tells: network, container, interface, addresses and, from Kubernetes, the pod.\n\n"
		"Exit status 1: a pod's link is down, has no carrier or is not on a bridge.",
	.options = FLAT_OPTION_NETWORK | FLAT_OPTION_CONF_DIR | FLAT_OPTION_DATA_DIR,
	.run = run,
};
