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

bool flat_settle_covers(const struct flat_cluster_conf *cluster, const struct flat_prefix *prefix)
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

static int settle_cidrs(struct flat_settle *s, struct flat_err *err)
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
		int r = flat_conf_check_prefix(place, cidr, err);
		if (r < 0)
			return r;
		if (!cidr->len)
			return flat_conf_refuse(err, place,
						"%s is the whole world: name the pods' network",
						flat_prefix_text(cidr, a));
		for (size_t k = 0; k < i; k++)
			if (flat_prefix_overlaps(cidr, &cluster->cidrs[k]))
				return flat_conf_refuse(err, place,
							"%s and %s overlap: name the larger one",
							flat_prefix_text(&cluster->cidrs[k], a),
							flat_prefix_text(cidr, b));
		cluster->cidrs[cluster->cidr_count++] = *cidr;
	}
	for (size_t i = 0; i < s->raw->pod_cidrs.count; i++) {
		const struct flat_prefix *cidr =
			&((const struct flat_prefix *)s->raw->pod_cidrs.items)[i];
		char here[32];
		snprintf(here, sizeof here, "podCIDRs[%zu]", i);
		int r = flat_conf_check_prefix(here, cidr, err);
		if (r < 0)
			return r;
		if (!flat_settle_covers(cluster, cidr))
			return flat_conf_refuse(err, here,
						"%s is not inside clusterCIDR: add it there",
						flat_prefix_text(cidr, a));
		for (size_t k = 0; k < i; k++)
			if (flat_prefix_overlaps(cidr, &s->conf->pod_cidrs[k]))
				return flat_conf_refuse(err, here, "%s overlaps %s",
							flat_prefix_text(cidr, a),
							flat_prefix_text(&s->conf->pod_cidrs[k],
									 b));
		s->conf->pod_cidrs[s->conf->pod_cidr_count++] = *cidr;
	}
	return 0;
}

static int settle_mtu(struct flat_settle *s, struct flat_err *err)
{
	const uint32_t mtu = s->raw->mtu;
	const bool ipv6 = has_family(&s->conf->cluster, AF_INET6);
	if (mtu && mtu < (ipv6 ? MTU_MIN_IPV6 : MTU_MIN))
		return flat_conf_refuse(err, "mtu",
					"%u is less than the %d that %s needs; 0: as the link's",
					mtu, ipv6 ? MTU_MIN_IPV6 : MTU_MIN, ipv6 ? "IPv6" : "IPv4");
	s->conf->cluster.mtu = mtu;
	return 0;
}

static int settle_backend(struct flat_settle *s, struct flat_err *err)
{
	static const char *const backends[] = { "auto", "direct", "vxlan" };
	static const char *const checksums[] = { "auto", "on", "off" };
	static const char *const keys[] = { "vxlan.name", "vxlan.nameIPv6" };
	const struct flat_raw *raw = s->raw;
	struct flat_cluster_conf *cluster = &s->conf->cluster;
	const char *const names[] = { flat_given(raw->vxlan.name), flat_given(raw->vxlan.name6) };
	int index = 0;
	int r = flat_conf_choose(flat_raw_place(raw, OPT_BACKEND, "backend"), raw->backend,
				 backends, FLAT_LEN(backends), &index, err);
	if (r < 0)
		return r;
	cluster->backend = (enum flat_backend)index;
	r = flat_conf_choose("vxlan.checksum", raw->vxlan.checksum, checksums, FLAT_LEN(checksums),
			     &index, err);
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
			return flat_conf_refuse(
				err, keys[i],
				"'%s', made of vxlan.vni, has more than %d characters: give "
				"a shorter name",
				name, FLAT_IFNAME_LEN - 1);
		r = flat_conf_check_ifname(keys[i], names[i] ? names[i] : name, err);
		if (r < 0)
			return r;
		snprintf(cluster->link[i], sizeof cluster->link[i], "%.15s", name);
	}
	if (!strcmp(cluster->link[FLAT_V4], cluster->link[FLAT_V6]))
		return flat_conf_refuse(err, "vxlan.nameIPv6",
					"\"%s\" is vxlan.name too: give another name",
					cluster->link[FLAT_V6]);
	return 0;
}

static int settle_name(struct flat_settle *s, struct flat_err *err)
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
		flat_conf_refuse(err, place, "\"%.64s\" cannot name a node", name);
		return flat_detail(err,
				   "letters, digits, '-', '_' and '.', at most %d; set nodeName or "
				   "--node-name",
				   FLAT_NODE_NAME_MAX);
	}
	s->conf->node_name = flat_arena_strdup(&s->conf->arena, name);
	return s->conf->node_name ? 0 : flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodeName");
}

static int settle_underlay(struct flat_settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	const char *place = flat_raw_place(raw, OPT_INTERFACE, "underlay.interface");
	const char *name = flat_given(raw->underlay.interface),
		   *regex = flat_given(raw->underlay.regex);
	char text[FLAT_IP_TEXT];
	if (!!name + !!regex + !!raw->underlay.cidrs.count + !!raw->underlay.can_reach.family > 1)
		return flat_conf_refuse(
			err, "underlay",
			"interface, interfaceRegex, cidrs and canReach each choose the "
			"link: give one of them");
	if (name) {
		int r = flat_conf_check_ifname(place, name, err);
		if (r < 0)
			return r;
	}
	if (regex) {
		regex_t compiled;
		char why[128];
		const int r = regcomp(&compiled, regex, REG_EXTENDED | REG_NOSUB);
		if (r) {
			regerror(r, &compiled, why, sizeof why);
			return flat_conf_refuse(err, "underlay.interfaceRegex", "\"%.64s\": %s",
						regex, why);
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
		if (!flat_conf_is_reachable(ip))
			return flat_conf_refuse(err, place, "no other node can reach %s",
						flat_ip_text(ip, text));
		if (target->family)
			return flat_conf_refuse(
				err, place,
				"two of one family: give one IPv4 and one IPv6 address");
		*target = *ip;
	}
	if (raw->underlay.can_reach.family && !flat_conf_is_reachable(&raw->underlay.can_reach))
		return flat_conf_refuse(err, "underlay.canReach", "no link leads to %s",
					flat_ip_text(&raw->underlay.can_reach, text));
	s->conf->underlay.interface = name;
	s->conf->underlay.regex = regex;
	s->conf->underlay.cidrs = raw->underlay.cidrs;
	s->conf->underlay.can_reach = raw->underlay.can_reach;
	return 0;
}

/* The template must be what a runtime takes, or no pod would ever start. */
static int read_template(struct flat_settle *s, const char *path, struct flat_err *err)
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

static int settle_cni(struct flat_settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	struct flat_agent_conf *conf = s->conf;
	const char *network = flat_given(raw->cni.network) ? raw->cni.network : "flatnet";
	const char *bridge = flat_given(raw->cni.bridge) ? raw->cni.bridge : "cni0";
	const char *conf_file = flat_given(raw->cni.conf_file);
	const char *template = flat_given(raw->cni.conf_template);
	if (!flat_name_is_valid(network))
		return flat_conf_refuse(
			err, "cni.network",
			"\"%.64s\" cannot name a network: letters, digits, '-', '_' and '.'",
			network);
	int r = flat_conf_check_ifname("cni.bridge", bridge, err);
	if (r >= 0)
		r = flat_conf_check_path("cni.ipamDir", raw->cni.ipam_dir, err);
	if (r >= 0)
		r = flat_conf_check_path("cni.confFile", conf_file, err);
	if (r >= 0)
		r = flat_conf_check_path("cni.confTemplate", template, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < FLAT_FAMILIES; i++)
		if (!strcmp(bridge, conf->cluster.link[i]))
			return flat_conf_refuse(err, "cni.bridge",
						"\"%s\" is the VXLAN device's name too", bridge);
	if (conf_file && !ends_with(conf_file, ".conflist"))
		return flat_conf_refuse(err, "cni.confFile",
					"\"%.128s\" must end with .conflist: runtimes go by it",
					conf_file);
	if (template && !conf_file)
		return flat_conf_refuse(err, "cni.confFile",
					"is missing: where does confTemplate go?");
	conf->cni.network = network;
	conf->cni.bridge = bridge;
	conf->cni.ip_masq = raw->cni.ip_masq;
	conf->cni.ipam_dir = flat_given(raw->cni.ipam_dir) ? raw->cni.ipam_dir : FLAT_IPAM_DATA_DIR;
	conf->cni.conf_file = conf_file;
	return template ? read_template(s, template, err) : 0;
}

static int settle_files(struct flat_settle *s, struct flat_err *err)
{
	const struct flat_raw *raw = s->raw;
	int r = flat_conf_check_path("nodeFile", raw->node_file, err);
	if (r >= 0)
		r = flat_conf_check_path("stateFile", raw->state_file, err);
	if (r >= 0)
		r = flat_conf_check_path("subnetEnv", raw->subnet_env, err);
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

static int settle_log(struct flat_settle *s, struct flat_err *err)
{
	static const char *const levels[] = { "error", "warn", "info", "debug" };
	static const char *const formats[] = { "keys", "json" };
	const struct flat_raw *raw = s->raw;
	int level = FLAT_LEVEL_INFO, format = FLAT_LOG_KEYS, r = 0;
	if (flat_given(raw->log.level))
		r = flat_conf_choose(flat_raw_place(raw, OPT_LOG_LEVEL, "log.level"),
				     raw->log.level, levels, FLAT_LEN(levels), &level, err);
	if (r >= 0)
		r = flat_conf_choose(flat_raw_place(raw, OPT_LOG_FORMAT, "log.format"),
				     raw->log.format, formats, FLAT_LEN(formats), &format, err);
	s->conf->log_level = (enum flat_level)level;
	s->conf->log_format = (enum flat_log_format)format;
	return r;
}

static int settle_http(struct flat_settle *s, struct flat_err *err)
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
		return flat_conf_refuse(
			err, place,
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
	static int (*const steps[])(struct flat_settle * s, struct flat_err * err) = {
		flat_settle_source, settle_name,      settle_cidrs,	settle_mtu,
		settle_backend,	    flat_settle_file, flat_settle_etcd, flat_settle_kubernetes,
		settle_underlay,    settle_cni,	      settle_files,	settle_log,
		settle_http,
	};
	struct flat_settle s = { .raw = raw, .env = env, .conf = ret_conf };
	int r = 0;
	for (size_t i = 0; i < FLAT_LEN(steps) && r >= 0; i++)
		r = steps[i](&s, err);
	return r < 0 ? r : 0;
}
