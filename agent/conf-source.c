// SPDX-License-Identifier: Apache-2.0
/* Where the nodes come from, and what each source needs. */
#include "conf-private.h"
#include "source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int flat_settle_source(struct flat_settle *s, struct flat_err *err)
{
	static const struct flat_source_type *const types[] = {
		&flat_source_kubernetes,
		&flat_source_etcd,
		&flat_source_file,
	};
	static const char *const words[] = { "kubernetes", "etcd", "file" };
	const struct flat_raw *raw = s->raw;
	const uint32_t flags = raw->flags;
	int index = -1;
	if (flat_given(raw->source)) {
		int told = 0;
		int r = flat_conf_choose(flat_raw_place(raw, OPT_SOURCE, "source"), raw->source,
					 words, FLAT_LEN(words), &told, err);
		if (r < 0)
			return r;
		s->conf->source = types[told];
		return 0;
	}
	/* not told: what is named tells it, first on the command line, then in the file, then by
	 * where we are */
	bool named[] = { flags & 1U << OPT_KUBECONFIG, flags & 1U << OPT_ETCD_ENDPOINTS,
			 flags & 1U << OPT_NODES_FILE };
	if (!named[0] && !named[1] && !named[2]) {
		named[0] = flat_given(raw->kubernetes.kubeconfig) ||
			   flat_given(raw->kubernetes.server);
		named[1] = raw->etcd.endpoints.count;
		named[2] = flat_given(raw->file.path);
	}
	if (named[0] + named[1] + named[2] > 1)
		return flat_conf_refuse(
			err, "source",
			"settings of several are given: say which of kubernetes, etcd, file "
			"counts");
	for (int i = 0; i < 3; i++)
		if (named[i])
			index = i;
	if (index < 0 && flat_given(s->env->service_host))
		index = 0;
	if (index < 0) {
		flat_conf_refuse(err, "source", "is not told: where do the nodes come from?");
		return flat_detail(err, "kubernetes (--kubeconfig FILE, or run in a pod), etcd "
					"(--etcd-endpoints URL), or file (--nodes-file FILE)");
	}
	s->conf->source = types[index];
	return 0;
}

int flat_settle_file(struct flat_settle *s, struct flat_err *err)
{
	const char *place = flat_raw_place(s->raw, OPT_NODES_FILE, "file.path");
	const char *path = flat_given(s->raw->file.path);
	int r = flat_conf_check_path(place, path, err);
	if (r < 0)
		return r;
	if (!path && s->conf->source == &flat_source_file)
		return flat_conf_refuse(err, "file.path",
					"is needed with source file: the list of the nodes");
	s->conf->file.path = path;
	return 0;
}

/* Bounds of the subnets that are handed out. */
static int settle_subnets(struct flat_settle *s, int family, struct flat_err *err)
{
	static const char *const keys[][3] = {
		{ "etcd.subnetLen", "etcd.subnetMin", "etcd.subnetMax" },
		{ "etcd.ipv6SubnetLen", "etcd.ipv6SubnetMin", "etcd.ipv6SubnetMax" },
	};
	const struct flat_cluster_conf *cluster = &s->conf->cluster;
	const int i = family == AF_INET6 ? FLAT_V6 : FLAT_V4;
	const struct flat_ip *bounds[] = { &s->raw->etcd.subnet_min[i],
					   &s->raw->etcd.subnet_max[i] };
	const uint8_t len = (uint8_t)s->raw->etcd.subnet_len[i];
	char text[FLAT_PREFIX_TEXT], clean_text[FLAT_PREFIX_TEXT];
	for (size_t k = 0; k < cluster->cidr_count; k++)
		if (cluster->cidrs[k].ip.family == family && cluster->cidrs[k].len >= len)
			return flat_conf_refuse(
				err, keys[i][0],
				"/%u is no part of clusterCIDR %s: give a greater number", len,
				flat_prefix_text(&cluster->cidrs[k], text));
	for (size_t k = 0; k < 2; k++) {
		const struct flat_prefix subnet = { *bounds[k], len };
		if (!bounds[k]->family)
			continue;
		if (bounds[k]->family != family)
			return flat_conf_refuse(err, keys[i][1 + k], "%s is not of %s",
						flat_ip_text(bounds[k], text),
						family == AF_INET6 ? "IPv6" : "IPv4");
		if (!flat_settle_covers(cluster, &subnet))
			return flat_conf_refuse(err, keys[i][1 + k], "%s is not inside clusterCIDR",
						flat_ip_text(bounds[k], text));
		if (flat_conf_has_host_bits(&subnet)) {
			const struct flat_ip first = flat_prefix_first(&subnet);
			return flat_conf_refuse(err, keys[i][1 + k],
						"%s begins no /%u: its subnet is %s",
						flat_ip_text(bounds[k], text), len,
						flat_ip_text(&first, clean_text));
		}
	}
	if (bounds[0]->family && bounds[1]->family && flat_ip_compare(bounds[0], bounds[1]) > 0)
		return flat_conf_refuse(err, keys[i][2], "%s is before %s",
					flat_ip_text(bounds[1], text), keys[i][1]);
	s->conf->etcd.subnet_len[i] = len;
	s->conf->etcd.subnet_min[i] = *bounds[0];
	s->conf->etcd.subnet_max[i] = *bounds[1];
	return 0;
}

int flat_settle_etcd(struct flat_settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	const char *place = flat_raw_place(raw, OPT_ETCD_ENDPOINTS, "etcd.endpoints");
	const char *const *urls = raw->etcd.endpoints.items;
	const char *prefix = flat_given(raw->etcd.prefix);
	int r = 0;
	for (size_t i = 0; i < raw->etcd.endpoints.count && r >= 0; i++) {
		char here[48];
		snprintf(here, sizeof here, "%s[%zu]", place, i);
		r = flat_conf_check_url(here, urls[i], err);
	}
	if (r < 0)
		return r;
	if (!raw->etcd.endpoints.count && s->conf->source == &flat_source_etcd)
		return flat_conf_refuse(err, "etcd.endpoints",
					"is needed with source etcd: a list of URLs, like "
					"https://192.0.2.1:2379");
	if (!prefix)
		prefix = raw->flannel ? "/coreos.com/network" : "/flatnet";
	place = flat_raw_place(raw, OPT_ETCD_PREFIX, "etcd.prefix");
	if (prefix[0] != '/' || !prefix[1] || prefix[strlen(prefix) - 1] == '/' ||
	    strlen(prefix) > 256)
		return flat_conf_refuse(
			err, place,
			"\"%.64s\" must begin with '/', not end with it, and have at most 256 "
			"characters",
			prefix);
	const struct {
		const char *key, *path;
	} files[] = {
		{ "etcd.caFile", raw->etcd.ca_file },
		{ "etcd.certFile", raw->etcd.cert_file },
		{ "etcd.keyFile", raw->etcd.key_file },
		{ "etcd.passwordFile", raw->etcd.password_file },
	};
	for (size_t i = 0; i < FLAT_LEN(files) && r >= 0; i++)
		r = flat_conf_check_path(files[i].key, files[i].path, err);
	if (r < 0)
		return r;
	if (!flat_given(raw->etcd.cert_file) != !flat_given(raw->etcd.key_file))
		return flat_conf_refuse(err,
					flat_given(raw->etcd.cert_file) ? "etcd.keyFile"
									: "etcd.certFile",
					"is missing: certificate and key belong together");
	if (!flat_given(raw->etcd.user) != !flat_given(raw->etcd.password_file))
		return flat_conf_refuse(err,
					flat_given(raw->etcd.user) ? "etcd.passwordFile"
								   : "etcd.user",
					"is missing: user and password belong together");
	s->conf->etcd.endpoints = raw->etcd.endpoints;
	s->conf->etcd.prefix = prefix;
	s->conf->etcd.ca_file = flat_given(raw->etcd.ca_file);
	s->conf->etcd.cert_file = flat_given(raw->etcd.cert_file);
	s->conf->etcd.key_file = flat_given(raw->etcd.key_file);
	s->conf->etcd.user = flat_given(raw->etcd.user);
	s->conf->etcd.password_file = flat_given(raw->etcd.password_file);
	s->conf->etcd.lease_ttl = raw->etcd.lease;
	if (s->conf->source != &flat_source_etcd) /* the lengths are of no meaning then */
		return 0;
	r = settle_subnets(s, AF_INET, err);
	return r < 0 ? r : settle_subnets(s, AF_INET6, err);
}

int flat_settle_kubernetes(struct flat_settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	const struct flat_agent_env *env = s->env;
	const char *kubeconfig = flat_given(raw->kubernetes.kubeconfig);
	const char *server = flat_given(raw->kubernetes.server);
	const bool wanted = s->conf->source == &flat_source_kubernetes;
	int r = flat_conf_check_path(flat_raw_place(raw, OPT_KUBECONFIG, "kubernetes.kubeconfig"),
				     kubeconfig, err);
	if (r >= 0)
		r = flat_conf_check_path("kubernetes.serviceAccountDir",
					 raw->kubernetes.service_account, err);
	if (r >= 0 && server)
		r = flat_conf_check_url("kubernetes.server", server, err);
	if (r < 0)
		return r;
	if (kubeconfig && server)
		return flat_conf_refuse(err, "kubernetes.server",
					"is named by kubernetes.kubeconfig: give one of the two");
	if (flat_given(raw->kubernetes.context) && !kubeconfig)
		return flat_conf_refuse(err, flat_raw_place(raw, OPT_CONTEXT, "kubernetes.context"),
					"is one of a kubeconfig: give kubernetes.kubeconfig too");
	if (wanted && !kubeconfig && !server && flat_given(env->service_host)) {
		const char *host = env->service_host;
		const char *port = flat_given(env->service_port) ? env->service_port : "443";
		const bool bare6 = strchr(host, ':') && host[0] != '[';
		char url[320];
		if (snprintf(url, sizeof url, "https://%s%s%s:%s", bare6 ? "[" : "", host,
			     bare6 ? "]" : "", port) >= (int)sizeof url)
			return flat_conf_refuse(err, "KUBERNETES_SERVICE_HOST", "is too long");
		r = flat_conf_check_url("KUBERNETES_SERVICE_HOST and _PORT", url, err);
		if (r < 0)
			return r;
		server = flat_arena_strdup(&s->conf->arena, url);
		if (!server)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "kubernetes.server");
	}
	if (wanted && !kubeconfig && !server) {
		flat_conf_refuse(err, "kubernetes.kubeconfig", "is needed outside of a pod");
		return flat_detail(err, "--kubeconfig FILE, or kubernetes.server with a service "
					"account's token");
	}
	s->conf->kubernetes.kubeconfig = kubeconfig;
	s->conf->kubernetes.context = flat_given(raw->kubernetes.context);
	s->conf->kubernetes.server = server;
	s->conf->kubernetes.service_account =
		flat_given(raw->kubernetes.service_account)
			? raw->kubernetes.service_account
			: "/var/run/secrets/kubernetes.io/serviceaccount";
	s->conf->kubernetes.page = raw->kubernetes.page;
	s->conf->kubernetes.set_network_available = raw->kubernetes.set_network_available;
	return 0;
}
