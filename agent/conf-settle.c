// SPDX-License-Identifier: Apache-2.0
/* What file and flags say becomes the configuration: default, check and cure of each subject in one
 * place. */
#include "conf-private.h"
#include "file.h"
#include "source.h"

#include <flatnet/ipam.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
	MTU_MIN = 576,	     /* what every IPv4 host must take in one piece (RFC 791) */
	MTU_MIN_IPV6 = 1280, /* RFC 8200, section 5 */
};

/* ---- checks ------------------------------------------------------------------------------------
 */

static int refuse(struct flat_err *err, const char *place, const char *fmt, ...) FLAT_PRINTF(3, 4);
static int refuse(struct flat_err *err, const char *place, const char *fmt, ...)
{
	char text[384];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: %s", place, text);
}

/* One of count words; NULL: the first. */
static int choose(const char *place, const char *text, const char *const *words, size_t count,
		  int *ret_index, struct flat_err *err)
{
	char all[128] = "";
	for (size_t i = 0, n = 0; i < count; i++) {
		if (!flat_given(text) || !strcmp(text, words[i])) {
			*ret_index = (int)i;
			return 0;
		}
		n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", words[i]);
	}
	return refuse(err, place, "\"%.64s\" is not one of %s", text, all);
}

/* NULL and "" stay as they are. */
static int check_path(const char *place, const char *path, struct flat_err *err)
{
	if (!flat_given(path))
		return 0;
	if (path[0] != '/')
		return refuse(err, place, "\"%.128s\" must be an absolute path", path);
	if (strlen(path) >= PATH_MAX)
		return refuse(err, place, "\"%.64s...\" is longer than a path can be", path);
	if (path[strlen(path) - 1] == '/')
		return refuse(err, place, "\"%.128s\" ends with '/': name it without", path);
	return 0;
}

static int check_ifname(const char *place, const char *name, struct flat_err *err)
{
	if (flat_ifname_is_valid(name))
		return 0;
	return refuse(err, place,
		      "\"%.64s\" cannot name an interface: 1 to 15 characters, without '/', ':' "
		      "or white space",
		      name);
}

/* Can a packet be sent there from another host? */
static bool is_reachable(const struct flat_ip *ip)
{
	static const char *const nowhere[] = { "0.0.0.0/8",	 "127.0.0.0/8", "224.0.0.0/3",
					       "169.254.0.0/16", "::/127",	"fe80::/10",
					       "ff00::/8" };
	for (size_t i = 0; i < FLAT_LEN(nowhere); i++) {
		struct flat_prefix prefix;
		if (flat_prefix_parse(nowhere[i], &prefix) && flat_prefix_contains(&prefix, ip))
			return false;
	}
	return true;
}

static bool has_host_bits(const struct flat_prefix *prefix)
{
	const struct flat_ip first = flat_prefix_first(prefix);
	return !flat_ip_equal(&first, &prefix->ip);
}

static int check_prefix(const char *place, const struct flat_prefix *prefix, struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT], clean_text[FLAT_PREFIX_TEXT];
	const struct flat_prefix clean = { flat_prefix_first(prefix), prefix->len };
	if (has_host_bits(prefix))
		return refuse(err, place, "%s has host bits set: the network is %s",
			      flat_prefix_text(prefix, text), flat_prefix_text(&clean, clean_text));
	return 0;
}

/* https://HOST[:PORT], without more. */
static int check_url(const char *place, const char *url, struct flat_err *err)
{
	const char *host = !strncmp(url, "https://", 8)	 ? url + 8
			   : !strncmp(url, "http://", 7) ? url + 7
							 : NULL;
	if (!host)
		return refuse(err, place,
			      "\"%.128s\" is not a URL: http:// or https://, host and port", url);
	const size_t host_len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
	const char *rest = host + (host_len <= strlen(host) ? host_len : strlen(host));
	bool good = host_len && host_len <= 255 && host_len <= strlen(host);
	if (good && host[0] == '[') {
		char text[FLAT_IP_TEXT];
		struct flat_ip ip;
		good = host_len - 2 < sizeof text;
		if (good) {
			memcpy(text, host + 1, host_len - 2);
			text[host_len - 2] = '\0';
			good = flat_ip_parse(text, &ip) && ip.family == AF_INET6;
		}
	}
	for (size_t i = 0; good && host[0] != '[' && i < host_len; i++)
		good = isalnum((unsigned char)host[i]) || strchr("-._", host[i]);
	if (!good)
		return refuse(err, place, "\"%.128s\": the host is neither a name nor an address",
			      url);
	if (*rest == ':') {
		uint64_t port;
		if (!flat_uint_parse(rest + 1, 65535, &port) || !port)
			return refuse(err, place,
				      "\"%.128s\": the port is not a number up to 65535", url);
	} else if (*rest) {
		return refuse(err, place, "\"%.128s\": must end with the host or the port", url);
	}
	return 0;
}

/* ---- subject by subject ------------------------------------------------------------------------
 */

struct settle {
	struct flat_raw *raw;
	const struct flat_agent_env *env;
	struct flat_agent_conf *conf;
};

static bool covers(const struct flat_cluster_conf *cluster, const struct flat_prefix *prefix)
{
	for (size_t i = 0; i < cluster->cidr_count; i++)
		if (cluster->cidrs[i].len <= prefix->len &&
		    flat_prefix_contains(&cluster->cidrs[i], &prefix->ip))
			return true;
	return false;
}

static bool has_family(const struct flat_cluster_conf *cluster, int family)
{
	for (size_t i = 0; i < cluster->cidr_count; i++)
		if (cluster->cidrs[i].ip.family == family)
			return true;
	return false;
}

static int settle_cidrs(struct settle *s, struct flat_err *err)
{
	const char *place = flat_raw_place(s->raw, OPT_CLUSTER_CIDR, "clusterCIDR");
	struct flat_cluster_conf *cluster = &s->conf->cluster;
	const struct flat_json_list *told = &s->raw->cluster_cidrs;
	char a[FLAT_PREFIX_TEXT], b[FLAT_PREFIX_TEXT];
	if (!told->count) {
		flat_prefix_parse("10.244.0.0/16", &cluster->cidrs[0]);
		cluster->cidr_count = 1;
	}
	for (size_t i = 0; i < told->count; i++) {
		const struct flat_prefix *cidr = &((const struct flat_prefix *)told->items)[i];
		int r = check_prefix(place, cidr, err);
		if (r < 0)
			return r;
		if (!cidr->len)
			return refuse(err, place, "%s is the whole world: name the pods' network",
				      flat_prefix_text(cidr, a));
		for (size_t k = 0; k < i; k++)
			if (flat_prefix_overlaps(cidr, &cluster->cidrs[k]))
				return refuse(err, place, "%s and %s overlap: name the larger one",
					      flat_prefix_text(&cluster->cidrs[k], a),
					      flat_prefix_text(cidr, b));
		cluster->cidrs[cluster->cidr_count++] = *cidr;
	}
	for (size_t i = 0; i < s->raw->pod_cidrs.count; i++) {
		const struct flat_prefix *cidr =
			&((const struct flat_prefix *)s->raw->pod_cidrs.items)[i];
		char here[32];
		snprintf(here, sizeof here, "podCIDRs[%zu]", i);
		int r = check_prefix(here, cidr, err);
		if (r < 0)
			return r;
		if (!covers(cluster, cidr))
			return refuse(err, here, "%s is not inside clusterCIDR: add it there",
				      flat_prefix_text(cidr, a));
		for (size_t k = 0; k < i; k++)
			if (flat_prefix_overlaps(cidr, &s->conf->pod_cidrs[k]))
				return refuse(err, here, "%s overlaps %s",
					      flat_prefix_text(cidr, a),
					      flat_prefix_text(&s->conf->pod_cidrs[k], b));
		s->conf->pod_cidrs[s->conf->pod_cidr_count++] = *cidr;
	}
	return 0;
}

static int settle_mtu(struct settle *s, struct flat_err *err)
{
	const uint32_t mtu = s->raw->mtu;
	const bool ipv6 = has_family(&s->conf->cluster, AF_INET6);
	if (mtu && mtu < (ipv6 ? MTU_MIN_IPV6 : MTU_MIN))
		return refuse(err, "mtu", "%u is less than the %d that %s needs; 0: as the link's",
			      mtu, ipv6 ? MTU_MIN_IPV6 : MTU_MIN, ipv6 ? "IPv6" : "IPv4");
	s->conf->cluster.mtu = mtu;
	return 0;
}

static int settle_backend(struct settle *s, struct flat_err *err)
{
	static const char *const backends[] = { "auto", "direct", "vxlan" };
	static const char *const checksums[] = { "auto", "on", "off" };
	static const char *const keys[] = { "vxlan.name", "vxlan.nameIPv6" };
	const struct flat_raw *raw = s->raw;
	struct flat_cluster_conf *cluster = &s->conf->cluster;
	const char *const names[] = { flat_given(raw->vxlan.name), flat_given(raw->vxlan.name6) };
	int index = 0;
	int r = choose(flat_raw_place(raw, OPT_BACKEND, "backend"), raw->backend, backends,
		       FLAT_LEN(backends), &index, err);
	if (r < 0)
		return r;
	cluster->backend = (enum flat_backend)index;
	r = choose("vxlan.checksum", raw->vxlan.checksum, checksums, FLAT_LEN(checksums), &index,
		   err);
	if (r < 0)
		return r;
	s->conf->checksum = (enum flat_checksum)index;
	cluster->vni = raw->vxlan.vni;
	cluster->port = (uint16_t)raw->vxlan.port;
	cluster->flannel = raw->flannel;
	for (size_t i = 0; i < FLAT_FAMILIES; i++) {
		char name[32];
		if (names[i])
			snprintf(name, sizeof name, "%.31s", names[i]);
		else if (raw->flannel)
			snprintf(name, sizeof name, "flannel%s.%u", i == FLAT_V6 ? "-v6" : "",
				 cluster->vni);
		else
			snprintf(name, sizeof name, "flatnet%s.%u", i == FLAT_V6 ? "6" : "",
				 cluster->vni);
		if (!names[i] && strlen(name) >= FLAT_IFNAME_LEN)
			return refuse(err, keys[i],
				      "'%s', made of vxlan.vni, has more than %d characters: give "
				      "a shorter name",
				      name, FLAT_IFNAME_LEN - 1);
		r = check_ifname(keys[i], names[i] ? names[i] : name, err);
		if (r < 0)
			return r;
		snprintf(cluster->link[i], sizeof cluster->link[i], "%.15s", name);
	}
	if (!strcmp(cluster->link[FLAT_V4], cluster->link[FLAT_V6]))
		return refuse(err, "vxlan.nameIPv6", "\"%s\" is vxlan.name too: give another name",
			      cluster->link[FLAT_V6]);
	return 0;
}

static int settle_source(struct settle *s, struct flat_err *err)
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
		int r = choose(flat_raw_place(raw, OPT_SOURCE, "source"), raw->source, words,
			       FLAT_LEN(words), &told, err);
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
		return refuse(err, "source",
			      "settings of several are given: say which of kubernetes, etcd, file "
			      "counts");
	for (int i = 0; i < 3; i++)
		if (named[i])
			index = i;
	if (index < 0 && flat_given(s->env->service_host))
		index = 0;
	if (index < 0) {
		refuse(err, "source", "is not told: where do the nodes come from?");
		return flat_detail(err, "kubernetes (--kubeconfig FILE, or run in a pod), etcd "
					"(--etcd-endpoints URL), or file (--nodes-file FILE)");
	}
	s->conf->source = types[index];
	return 0;
}

static int settle_name(struct settle *s, struct flat_err *err)
{
	const char *place = flat_raw_place(s->raw, OPT_NODE_NAME, "nodeName");
	const char *name = flat_given(s->raw->node_name);
	if (!name) {
		name = flat_given(s->env->node_name);
		place = "NODE_NAME";
	}
	if (!name) {
		/* as the kubelet does */
		char *lower =
			flat_arena_strdup(&s->conf->arena,
					  flat_given(s->env->host_name) ? s->env->host_name : "");
		if (!lower)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodeName");
		for (char *c = lower; *c && s->conf->source == &flat_source_kubernetes; c++)
			*c = (char)tolower((unsigned char)*c);
		name = lower;
		place = "the host's name";
	}
	if (!flat_name_is_valid(name) || strlen(name) > FLAT_NODE_NAME_MAX) {
		refuse(err, place, "\"%.64s\" cannot name a node", name);
		return flat_detail(err,
				   "letters, digits, '-', '_' and '.', at most %d; set nodeName or "
				   "--node-name",
				   FLAT_NODE_NAME_MAX);
	}
	s->conf->node_name = flat_arena_strdup(&s->conf->arena, name);
	return s->conf->node_name ? 0 : flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodeName");
}

static int settle_file(struct settle *s, struct flat_err *err)
{
	const char *place = flat_raw_place(s->raw, OPT_NODES_FILE, "file.path");
	const char *path = flat_given(s->raw->file.path);
	int r = check_path(place, path, err);
	if (r < 0)
		return r;
	if (!path && s->conf->source == &flat_source_file)
		return refuse(err, "file.path",
			      "is needed with source file: the list of the nodes");
	s->conf->file.path = path;
	return 0;
}

/* Bounds of the subnets that are handed out. */
static int settle_subnets(struct settle *s, int family, struct flat_err *err)
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
			return refuse(err, keys[i][0],
				      "/%u is no part of clusterCIDR %s: give a greater number",
				      len, flat_prefix_text(&cluster->cidrs[k], text));
	for (size_t k = 0; k < 2; k++) {
		const struct flat_prefix subnet = { *bounds[k], len };
		if (!bounds[k]->family)
			continue;
		if (bounds[k]->family != family)
			return refuse(err, keys[i][1 + k], "%s is not of %s",
				      flat_ip_text(bounds[k], text),
				      family == AF_INET6 ? "IPv6" : "IPv4");
		if (!covers(cluster, &subnet))
			return refuse(err, keys[i][1 + k], "%s is not inside clusterCIDR",
				      flat_ip_text(bounds[k], text));
		if (has_host_bits(&subnet)) {
			const struct flat_ip first = flat_prefix_first(&subnet);
			return refuse(err, keys[i][1 + k], "%s begins no /%u: its subnet is %s",
				      flat_ip_text(bounds[k], text), len,
				      flat_ip_text(&first, clean_text));
		}
	}
	if (bounds[0]->family && bounds[1]->family && flat_ip_compare(bounds[0], bounds[1]) > 0)
		return refuse(err, keys[i][2], "%s is before %s", flat_ip_text(bounds[1], text),
			      keys[i][1]);
	s->conf->etcd.subnet_len[i] = len;
	s->conf->etcd.subnet_min[i] = *bounds[0];
	s->conf->etcd.subnet_max[i] = *bounds[1];
	return 0;
}

static int settle_etcd(struct settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	const char *place = flat_raw_place(raw, OPT_ETCD_ENDPOINTS, "etcd.endpoints");
	const char *const *urls = raw->etcd.endpoints.items;
	const char *prefix = flat_given(raw->etcd.prefix);
	int r = 0;
	for (size_t i = 0; i < raw->etcd.endpoints.count && r >= 0; i++) {
		char here[48];
		snprintf(here, sizeof here, "%s[%zu]", place, i);
		r = check_url(here, urls[i], err);
	}
	if (r < 0)
		return r;
	if (!raw->etcd.endpoints.count && s->conf->source == &flat_source_etcd)
		return refuse(err, "etcd.endpoints",
			      "is needed with source etcd: a list of URLs, like "
			      "https://192.0.2.1:2379");
	if (!prefix)
		prefix = raw->flannel ? "/coreos.com/network" : "/flatnet";
	place = flat_raw_place(raw, OPT_ETCD_PREFIX, "etcd.prefix");
	if (prefix[0] != '/' || !prefix[1] || prefix[strlen(prefix) - 1] == '/' ||
	    strlen(prefix) > 256)
		return refuse(
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
		r = check_path(files[i].key, files[i].path, err);
	if (r < 0)
		return r;
	if (!flat_given(raw->etcd.cert_file) != !flat_given(raw->etcd.key_file))
		return refuse(err,
			      flat_given(raw->etcd.cert_file) ? "etcd.keyFile" : "etcd.certFile",
			      "is missing: certificate and key belong together");
	if (!flat_given(raw->etcd.user) != !flat_given(raw->etcd.password_file))
		return refuse(err, flat_given(raw->etcd.user) ? "etcd.passwordFile" : "etcd.user",
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

static int settle_kubernetes(struct settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	const struct flat_agent_env *env = s->env;
	const char *kubeconfig = flat_given(raw->kubernetes.kubeconfig);
	const char *server = flat_given(raw->kubernetes.server);
	const bool wanted = s->conf->source == &flat_source_kubernetes;
	int r = check_path(flat_raw_place(raw, OPT_KUBECONFIG, "kubernetes.kubeconfig"), kubeconfig,
			   err);
	if (r >= 0)
		r = check_path("kubernetes.serviceAccountDir", raw->kubernetes.service_account,
			       err);
	if (r >= 0 && server)
		r = check_url("kubernetes.server", server, err);
	if (r < 0)
		return r;
	if (kubeconfig && server)
		return refuse(err, "kubernetes.server",
			      "is named by kubernetes.kubeconfig: give one of the two");
	if (flat_given(raw->kubernetes.context) && !kubeconfig)
		return refuse(err, flat_raw_place(raw, OPT_CONTEXT, "kubernetes.context"),
			      "is one of a kubeconfig: give kubernetes.kubeconfig too");
	if (wanted && !kubeconfig && !server && flat_given(env->service_host)) {
		const char *host = env->service_host;
		const char *port = flat_given(env->service_port) ? env->service_port : "443";
		const bool bare6 = strchr(host, ':') && host[0] != '[';
		char url[320];
		if (snprintf(url, sizeof url, "https://%s%s%s:%s", bare6 ? "[" : "", host,
			     bare6 ? "]" : "", port) >= (int)sizeof url)
			return refuse(err, "KUBERNETES_SERVICE_HOST", "is too long");
		r = check_url("KUBERNETES_SERVICE_HOST and _PORT", url, err);
		if (r < 0)
			return r;
		server = flat_arena_strdup(&s->conf->arena, url);
		if (!server)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "kubernetes.server");
	}
	if (wanted && !kubeconfig && !server) {
		refuse(err, "kubernetes.kubeconfig", "is needed outside of a pod");
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

static int settle_underlay(struct settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	const char *place = flat_raw_place(raw, OPT_INTERFACE, "underlay.interface");
	const char *name = flat_given(raw->underlay.interface),
		   *regex = flat_given(raw->underlay.regex);
	char text[FLAT_IP_TEXT];
	if (!!name + !!regex + !!raw->underlay.cidrs.count + !!raw->underlay.can_reach.family > 1)
		return refuse(err, "underlay",
			      "interface, interfaceRegex, cidrs and canReach each choose the "
			      "link: give one of them");
	if (name) {
		int r = check_ifname(place, name, err);
		if (r < 0)
			return r;
	}
	if (regex) {
		regex_t compiled;
		char why[128];
		const int r = regcomp(&compiled, regex, REG_EXTENDED | REG_NOSUB);
		if (r) {
			regerror(r, &compiled, why, sizeof why);
			return refuse(err, "underlay.interfaceRegex", "\"%.64s\": %s", regex, why);
		}
		regfree(&compiled);
	}
	for (size_t i = 0; i < raw->underlay.public_ips.count; i++) {
		const struct flat_ip *ip =
			&((const struct flat_ip *)raw->underlay.public_ips.items)[i];
		struct flat_ip *target =
			&s->conf->underlay
				 .public_address[ip->family == AF_INET6 ? FLAT_V6 : FLAT_V4];
		place = flat_raw_place(raw, OPT_PUBLIC_IP, "underlay.publicIP");
		if (!is_reachable(ip))
			return refuse(err, place, "no other node can reach %s",
				      flat_ip_text(ip, text));
		if (target->family)
			return refuse(err, place,
				      "two of one family: give one IPv4 and one IPv6 address");
		*target = *ip;
	}
	if (raw->underlay.can_reach.family && !is_reachable(&raw->underlay.can_reach))
		return refuse(err, "underlay.canReach", "no link leads to %s",
			      flat_ip_text(&raw->underlay.can_reach, text));
	s->conf->underlay.interface = name;
	s->conf->underlay.regex = regex;
	s->conf->underlay.cidrs = raw->underlay.cidrs;
	s->conf->underlay.can_reach = raw->underlay.can_reach;
	return 0;
}

/* The template must be what a runtime takes, or no pod would ever start. */
static int read_template(struct settle *s, const char *path, struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	struct flat_json *json = NULL;
	const int len = flat_file_read(path, "template", &text, err);
	int r = len < 0 ? len : flat_json_parse(text, (size_t)len, &json, err);
	if (r >= 0 && (!flat_json_text(flat_json_get(json, "cniVersion")) ||
		       !flat_json_text(flat_json_get(json, "name")) ||
		       !flat_json_count(flat_json_get(json, "plugins"))))
		r = flat_fail(err, FLAT_CODE_CONFIG, 0,
			      "'%.128s' is not a network configuration list: cniVersion, name and "
			      "plugins are needed",
			      path);
	flat_json_free(json);
	if (r < 0)
		return flat_wrap(err, "cni.confTemplate");
	s->conf->cni.conf_template = flat_arena_strdup(&s->conf->arena, text);
	if (!s->conf->cni.conf_template)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "cni.confTemplate");
	return 0;
}

static bool ends_with(const char *text, const char *end)
{
	const size_t len = strlen(text), end_len = strlen(end);
	return len > end_len && !strcmp(text + len - end_len, end);
}

static int settle_cni(struct settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	struct flat_agent_conf *conf = s->conf;
	const char *network = flat_given(raw->cni.network) ? raw->cni.network : "flatnet";
	const char *bridge = flat_given(raw->cni.bridge) ? raw->cni.bridge : "cni0";
	const char *conf_file = flat_given(raw->cni.conf_file);
	const char *template = flat_given(raw->cni.conf_template);
	if (!flat_name_is_valid(network))
		return refuse(err, "cni.network",
			      "\"%.64s\" cannot name a network: letters, digits, '-', '_' and '.'",
			      network);
	int r = check_ifname("cni.bridge", bridge, err);
	if (r >= 0)
		r = check_path("cni.ipamDir", raw->cni.ipam_dir, err);
	if (r >= 0)
		r = check_path("cni.confFile", conf_file, err);
	if (r >= 0)
		r = check_path("cni.confTemplate", template, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < FLAT_FAMILIES; i++)
		if (!strcmp(bridge, conf->cluster.link[i]))
			return refuse(err, "cni.bridge", "\"%s\" is the VXLAN device's name too",
				      bridge);
	if (conf_file && !ends_with(conf_file, ".conflist"))
		return refuse(err, "cni.confFile",
			      "\"%.128s\" must end with .conflist: runtimes go by it", conf_file);
	if (template && !conf_file)
		return refuse(err, "cni.confFile", "is missing: where does confTemplate go?");
	conf->cni.network = network;
	conf->cni.bridge = bridge;
	conf->cni.ip_masq = raw->cni.ip_masq;
	conf->cni.ipam_dir = flat_given(raw->cni.ipam_dir) ? raw->cni.ipam_dir : FLAT_IPAM_DATA_DIR;
	conf->cni.conf_file = conf_file;
	return template ? read_template(s, template, err) : 0;
}

static int settle_files(struct settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	int r = check_path("nodeFile", raw->node_file, err);
	if (r >= 0)
		r = check_path("stateFile", raw->state_file, err);
	if (r >= 0)
		r = check_path("subnetEnv", raw->subnet_env, err);
	if (r < 0)
		return r;
	s->conf->node_file = flat_given(raw->node_file) ? raw->node_file : FLAT_NODE_FILE;
	s->conf->state_file =
		raw->state_file ? flat_given(raw->state_file) : "/var/lib/flatnet/state.json";
	s->conf->subnet_env = flat_given(raw->subnet_env);
	s->conf->resync = raw->resync;
	s->conf->sweep = raw->sweep;
	return 0;
}

static int settle_log(struct settle *s, struct flat_err *err)
{
	static const char *const levels[] = { "error", "warn", "info", "debug" };
	static const char *const formats[] = { "keys", "json" };
	const struct flat_raw *raw = s->raw;
	int level = FLAT_LEVEL_INFO, format = FLAT_LOG_KEYS, r = 0;
	if (flat_given(raw->log.level))
		r = choose(flat_raw_place(raw, OPT_LOG_LEVEL, "log.level"), raw->log.level, levels,
			   FLAT_LEN(levels), &level, err);
	if (r >= 0)
		r = choose(flat_raw_place(raw, OPT_LOG_FORMAT, "log.format"), raw->log.format,
			   formats, FLAT_LEN(formats), &format, err);
	s->conf->log_level = (enum flat_level)level;
	s->conf->log_format = (enum flat_log_format)format;
	return r;
}

static int settle_http(struct settle *s, struct flat_err *err)
{
	const char *place = flat_raw_place(s->raw, OPT_METRICS_ADDRESS, "http.address");
	const char *text =
		flat_given(s->raw->http.address) ? s->raw->http.address : "127.0.0.1:9464";
	const char *colon = strrchr(text, ':');
	char host[FLAT_IP_TEXT + 2] = "";
	uint64_t port = 0;
	struct flat_ip ip = { 0 };
	if (!strcmp(text, "off"))
		return 0;
	if (colon && (size_t)(colon - text) < sizeof host)
		memcpy(host, text, (size_t)(colon - text));
	const size_t len = strlen(host);
	const bool bracketed = len > 2 && host[0] == '[' && host[len - 1] == ']';
	if (bracketed)
		host[len - 1] = '\0';
	const bool good = colon && flat_ip_parse(host + bracketed, &ip) &&
			  (ip.family == AF_INET6) == bracketed &&
			  flat_uint_parse(colon + 1, 65535, &port) && port;
	if (!good)
		return refuse(err, place,
			      "\"%.64s\" is not an address and a port, like 127.0.0.1:9464 or "
			      "[::1]:9464, nor \"off\"",
			      text);
	s->conf->http.address = ip;
	s->conf->http.port = (uint16_t)port;
	return 0;
}

/* ---- all together ------------------------------------------------------------------------------
 */

int flat_raw_settle(struct flat_raw *raw, const struct flat_agent_env *env,
		    struct flat_agent_conf *ret_conf, struct flat_err *err)
{
	/* the cluster first: others are held against it */
	static int (*const steps[])(struct settle * s, struct flat_err * err) = {
		settle_source, settle_name, settle_cidrs,      settle_mtu,	settle_backend,
		settle_file,   settle_etcd, settle_kubernetes, settle_underlay, settle_cni,
		settle_files,  settle_log,  settle_http,
	};
	struct settle s = { .raw = raw, .env = env, .conf = ret_conf };
	int r = 0;
	for (size_t i = 0; i < FLAT_LEN(steps) && r >= 0; i++)
		r = steps[i](&s, err);
	return r < 0 ? r : 0;
}
