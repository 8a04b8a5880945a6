/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to ctl: what is on this node: configurations, networks, pods. Looked at once, by the same
 * libraries as the plugins'; nothing is changed.
 */
#pragma once

#include "ctl.h"

/* A file of the folder of CNI configurations. Runtimes take the first one by name. */
struct flat_scene_file {
	const char *path;
	const char *network; /* NULL: it could not be read */
	bool flatnet;	     /* flatnet is among its plugins */
	const char *fault;   /* NULL: none */
};

/* A network: of a configuration, of a folder with addresses, or of a link. */
struct flat_network {
	const char *name;
	const char *data_dir;
	const char *file;  /* NULL: no configuration tells of it */
	bool own;	   /* of type flatnet; else another plugin's, with flatnet-ipam */
	bool foreign_ipam; /* its addresses are kept elsewhere */
	struct flat_request req;
	struct flat_conf conf; /* whole when has_conf, else what DEL would know */
	bool has_conf;
	struct flat_err conf_err; /* why not; code 11: not yet */
	size_t pods;
};

/* A host veth that says whose it is. */
struct flat_pod {
	struct flat_link link;
	struct flat_alias alias;
	const char *name;    /* "NAMESPACE/POD"; NULL: not told */
	const char *network; /* in clear, where that is known */
};

struct flat_scene {
	struct flat_net *net;
	struct flat_scene_file *files;
	size_t file_count;
	struct flat_network *networks;
	size_t network_count;
	struct flat_pod *pods; /* by name of their link */
	size_t pod_count;
};

/* Free with flat_scene_close(), on failure too. A folder that is not there is empty. */
int flat_scene_open(struct flat_ctl *ctl, struct flat_scene *ret_scene, struct flat_err *err);
void flat_scene_close(struct flat_scene *scene);
/* NULL: there is none of that name. */
struct flat_network *flat_scene_network(struct flat_scene *scene, const char *name);
/* The pod that has this address in this network; NULL: none. */
const struct flat_pod *flat_scene_pod(const struct flat_scene *scene, const char *network,
				      const struct flat_ip *ip);
/* "10.244.1.2,fd00::2" */
const char *flat_pod_ips(struct flat_ctl *ctl, const struct flat_pod *pod);
/* "up", or what is wrong with its link. */
const char *flat_pod_state(const struct flat_pod *pod);

/* The configuration that a runtime would hand to a plugin: parsed with an ADD's environment. Free
 * the request in any case. */
int flat_plugin_request(struct flat_ctl *ctl, const struct flat_plugin_conf *plugin,
			struct flat_request *ret_req, struct flat_err *err);
/* Reads a file that may be a link to one, of at most 4 MiB. The text is in ctl's arena. */
int flat_file_read(struct flat_ctl *ctl, const char *path, const char **ret_text, size_t *ret_len,
		   struct flat_err *err);
