// SPDX-License-Identifier: Apache-2.0
#include "scene.h"

#include <flatnet/state.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 256, MAX_NETWORKS = 256, MAX_PODS = 1 << 16 };

#define DEFAULT_CONF_DIR "/etc/cni/net.d"

static int no_memory(struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "look at this node");
}

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}
#define auto_dir __attribute__((cleanup(close_dir))) DIR

/* ---- configurations ----------------------------------------------------------------------------
 */

int flat_file_read(struct flat_ctl *ctl, const char *path, const char **ret_text, size_t *ret_len,
		   struct flat_err *err)
{
	flat_auto_free char *real = realpath(path, NULL);
	flat_auto_free char *text = NULL;
	if (!real)
		return flat_fail(err, FLAT_CODE_IO, errno, "'%.200s'", path);
	int r = flat_state_read(AT_FDCWD, real, FLAT_JSON_MAX_SIZE, &text, err);
	if (r == -ENOENT)
		return flat_fail(err, FLAT_CODE_IO, ENOENT, "'%.200s'", path);
	if (r < 0)
		return r;
	*ret_text = flat_arena_strdup(&ctl->arena, text);
	*ret_len = (size_t)r;
	return *ret_text ? 0 : no_memory(err);
}

int flat_plugin_request(struct flat_ctl *ctl, const struct flat_plugin_conf *plugin,
			struct flat_request *ret_req, struct flat_err *err)
{
	/* no pod's, and nothing is done with it */
	const struct flat_env env = {
		.command = "ADD",
		.container_id = "flatnetctl",
		.netns = "/run/netns/flatnetctl",
		.ifname = "eth0",
		.path = ctl->plugin_dir ? ctl->plugin_dir : FLAT_PLUGIN_DIR,
	};
	*ret_req = (struct flat_request){ 0 };
	return flat_request_parse(&env, plugin->text, strlen(plugin->text), ret_req, err);
}

struct flat_network *flat_scene_network(struct flat_scene *scene, const char *name)
{
	for (size_t i = 0; i < scene->network_count; i++)
		if (flat_alias_names(name, scene->networks[i].name))
			return &scene->networks[i];
	return NULL;
}

static struct flat_network *add_network(struct flat_scene *scene, const char *name)
{
	if (scene->network_count == MAX_NETWORKS)
		return NULL;
	struct flat_network *network = &scene->networks[scene->network_count++];
	*network = (struct flat_network){ .name = name };
	return network;
}

static int add_plugin(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_scene_file *file,
		      const struct flat_plugin_conf *plugin, struct flat_err *err)
{
	struct flat_err why = { 0 };
	struct flat_request req;
	int r = flat_plugin_request(ctl, plugin, &req, &why);
	const bool own = !strcmp(plugin->type, "flatnet");
	const bool ours = own || (req.ipam_type && !strcmp(req.ipam_type, "flatnet-ipam"));
	if (r < 0 || !ours || flat_scene_network(scene, req.name)) {
		/* of several with one name the first counts, as for a runtime */
		file->flatnet = file->flatnet || own;
		if (r < 0 && own && !file->fault)
			file->fault = flat_format(&ctl->report, "%s", why.msg);
		flat_request_free(&req);
		return 0;
	}
	struct flat_network *network = add_network(scene, "");
	if (!network) {
		flat_request_free(&req);
		return 0;
	}
	network->req = req; /* and its arena */
	network->name = network->req.name;
	network->file = file->path;
	network->own = own;
	if (own)
		r = flat_conf_parse(&network->req, &flat_defaults_flatnet, &ctl->host, scene->net,
				    NULL, &network->conf, &network->conf_err);
	else
		r = flat_ipam_conf_parse(&network->req, FLAT_IPAM_DATA_DIR, NULL,
					 &network->conf.ipam, &network->conf_err);
	network->has_conf = r >= 0;
	file->flatnet = file->flatnet || own;
	if (r < 0 && network->conf_err.code == FLAT_CODE_INTERNAL) {
		*err = network->conf_err;
		return r;
	}
	if (r < 0)
		flat_conf_parse_lenient(&network->req, &flat_defaults_flatnet, &network->conf);
	network->foreign_ipam = own && network->conf.ipam_kind != FLAT_IPAM_OWN;
	network->data_dir = network->conf.ipam.data_dir;
	return 0;
}

static int read_conf(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_scene_file *file,
		     struct flat_err *err)
{
	struct flat_conf_file parsed = { 0 };
	struct flat_err why = { 0 };
	const char *text = NULL;
	size_t len = 0;
	int r = flat_file_read(ctl, file->path, &text, &len, &why);
	if (r >= 0)
		r = flat_conf_file_parse(text, len, &ctl->arena, &parsed, &why);
	if (why.code == FLAT_CODE_INTERNAL) {
		*err = why;
		return r;
	}
	if (r < 0) {
		file->fault = flat_format(&ctl->report, "%s", why.msg);
		return 0;
	}
	file->network = parsed.name;
	for (size_t i = 0; i < parsed.plugin_count && r >= 0; i++)
		r = add_plugin(ctl, scene, file, &parsed.plugins[i], err);
	return r;
}

static int compare_files(const void *a, const void *b)
{
	return strcmp(((const struct flat_scene_file *)a)->path,
		      ((const struct flat_scene_file *)b)->path);
}

static bool is_conf_name(const char *name)
{
	static const char *const ends[] = { ".conflist", ".conf", ".json" };
	const char *end = strrchr(name, '.');
	for (size_t i = 0; end && end != name && i < FLAT_LEN(ends); i++)
		if (!strcmp(end, ends[i]))
			return true;
	return false;
}

static int read_confs(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_err *err)
{
	const char *path = ctl->conf_dir ? ctl->conf_dir : DEFAULT_CONF_DIR;
	auto_dir *dir = opendir(path);
	const struct dirent *d;
	int r = 0;
	if (!dir && errno == ENOENT && !ctl->conf_dir)
		return 0;
	if (!dir)
		return flat_fail(err, FLAT_CODE_IO, errno, "folder of CNI configurations '%.128s'",
				 path);
	while ((d = readdir(dir)) && scene->file_count < MAX_FILES)
		if (is_conf_name(d->d_name))
			scene->files[scene->file_count++].path =
				flat_format(&ctl->report, "%s/%s", path, d->d_name);
	qsort(scene->files, scene->file_count, sizeof *scene->files, compare_files);
	for (size_t i = 0; i < scene->file_count && r >= 0; i++)
		r = read_conf(ctl, scene, &scene->files[i], err);
	return r;
}

/* ---- pods --------------------------------------------------------------------------------------
 */

struct collect {
	struct flat_ctl *ctl;
	struct flat_scene *scene;
	size_t room;
};

static int collect_pod(void *arg, const struct flat_link *link)
{
	struct collect *c = arg;
	struct flat_scene *scene = c->scene;
	struct flat_pod pod = { .link = *link };
	if (!flat_alias_parse(link->alias, &pod.alias) || scene->pod_count == MAX_PODS)
		return 0;
	if (scene->pod_count == c->room) {
		const size_t room = c->room ? 2 * c->room : 64;
		struct flat_pod *more = realloc(scene->pods, room * sizeof *more);
		if (!more)
			return -ENOMEM;
		scene->pods = more;
		c->room = room;
	}
	pod.name = flat_keep(&c->ctl->report, flat_alias_pod(link->alias));
	scene->pods[scene->pod_count++] = pod;
	return 0;
}

static int compare_pods(const void *a, const void *b)
{
	const struct flat_pod *x = a, *y = b;
	int c = strcmp(x->network, y->network);
	if (!c && x->alias.ip_count && y->alias.ip_count)
		c = flat_ip_compare(&x->alias.ips[0], &y->alias.ips[0]);
	return c ? c : strcmp(x->link.name, y->link.name);
}

static int read_pods(struct flat_ctl *ctl, struct flat_scene *scene, struct flat_err *err)
{
	struct collect c = { ctl, scene, 0 };
	int r = flat_link_each(scene->net, "veth", 0, collect_pod, &c, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < scene->pod_count; i++) {
		struct flat_pod *pod = &scene->pods[i];
		struct flat_network *network = flat_scene_network(scene, pod->alias.network);
		if (!network)
			network = add_network(scene, flat_keep(&ctl->report, pod->alias.network));
		pod->network = network ? network->name : pod->alias.network;
		if (network)
			network->pods++;
	}
	if (scene->pod_count)
		qsort(scene->pods, scene->pod_count, sizeof *scene->pods, compare_pods);
	return 0;
}

const struct flat_pod *flat_scene_pod(const struct flat_scene *scene, const char *network,
				      const struct flat_ip *ip)
{
	for (size_t i = 0; i < scene->pod_count; i++) {
		const struct flat_pod *pod = &scene->pods[i];
		for (size_t k = 0; k < pod->alias.ip_count && !strcmp(pod->network, network); k++)
			if (flat_ip_equal(&pod->alias.ips[k], ip))
				return pod;
	}
	return NULL;
}

const char *flat_pod_ips(struct flat_ctl *ctl, const struct flat_pod *pod)
{
	char text[FLAT_IP_TEXT];
	const char *list = NULL;
	for (size_t i = 0; i < pod->alias.ip_count; i++)
		list = flat_format(&ctl->report, "%s%s%s", list ? list : "", list ? "," : "",
				   flat_ip_text(&pod->alias.ips[i], text));
	return list;
}

const char *flat_pod_state(const struct flat_pod *pod)
{
	enum { FORWARDING = 3 }; /* BR_STATE_FORWARDING, linux/if_bridge.h */
	const struct flat_link *link = &pod->link;
	return !link->master			? "not on a bridge"
	       : !link->up			? "down"
	       : !link->running			? "no carrier"
	       : link->port.state != FORWARDING ? "port does not forward"
						: "up";
}

/* ---- stores ------------------------------------------------------------------------------------
 */

/* Folders with addresses that no configuration tells of, any more. */
static int read_stores(struct flat_ctl *ctl, struct flat_scene *scene, const char *path,
		       struct flat_err *err)
{
	auto_dir *dir = opendir(path);
	const struct dirent *d;
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir)
		return flat_fail(err, FLAT_CODE_IO, errno, "address store '%.128s'", path);
	while ((d = readdir(dir))) {
		if (d->d_type != DT_DIR || !flat_name_is_valid(d->d_name) ||
		    flat_scene_network(scene, d->d_name))
			continue;
		if (!add_network(scene, flat_keep(&ctl->report, d->d_name)))
			break;
	}
	return 0;
}

static int compare_networks(const void *a, const void *b)
{
	return strcmp(((const struct flat_network *)a)->name,
		      ((const struct flat_network *)b)->name);
}

/* ---- together ----------------------------------------------------------------------------------
 */

int flat_scene_open(struct flat_ctl *ctl, struct flat_scene *ret_scene, struct flat_err *err)
{
	struct flat_scene *scene = ret_scene;
	const char *data_dir = ctl->data_dir ? ctl->data_dir : FLAT_IPAM_DATA_DIR;
	*scene = (struct flat_scene){
		.files = flat_arena_alloc(&ctl->arena, MAX_FILES * sizeof *scene->files),
		.networks = flat_arena_alloc(&ctl->arena, MAX_NETWORKS * sizeof *scene->networks),
	};
	if (!scene->files || !scene->networks)
		return no_memory(err);
	int r = flat_net_open(&scene->net, err);
	if (r >= 0)
		r = read_confs(ctl, scene, err);
	if (r >= 0)
		r = read_stores(ctl, scene, data_dir, err);
	if (r >= 0)
		r = read_pods(ctl, scene, err);
	for (size_t i = 0; i < scene->network_count; i++) {
		struct flat_network *network = &scene->networks[i];
		if (ctl->data_dir || !network->data_dir)
			network->data_dir = data_dir;
		network->conf.ipam.data_dir = network->data_dir;
	}
	qsort(scene->networks, scene->network_count, sizeof *scene->networks, compare_networks);
	if (r >= 0 && ctl->network && !flat_scene_network(scene, ctl->network)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "there is no network '%.64s' on this node",
			  ctl->network);
		r = flat_detail(err, "flatnetctl status tells which there are");
	}
	return r;
}

void flat_scene_close(struct flat_scene *scene)
{
	for (size_t i = 0; i < scene->network_count; i++)
		flat_request_free(&scene->networks[i].req);
	free(scene->pods);
	flat_net_close(scene->net);
	*scene = (struct flat_scene){ 0 };
}
