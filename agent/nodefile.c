// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation: files that others read, or a later life.
 *
 * Each is replaced whole by rename(2) within its folder, and only when it differs, so that watchers
 * have nothing to hear. What lies below /run (node file, subnet.env) dies with the machine; the CNI
 * configuration and the last known state are read after the next boot and are synced.
 *
 * The state is JSON for people and lines for us: a head, this node, one line for each other node,
 * an end. The head has a checksum over all that follows it, and the whole file must be head,
 * content and end to the byte, so whatever a power loss or a disk makes of it is noticed. A line is
 * parsed by itself: 5,000 nodes as one JSON tree would take more memory than the agent has.
 */
#include "nodefile.h"

#include <flatnet/state.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	SMALL_MAX = 64 << 10, /* of the node file, subnet.env and the CNI configuration */
	STATE_MAX = 16 << 20,
	STATE_NODES = 16384, /* as many as flat_nodes_read() takes */
	STATE_VERSION = 1,
};

/* ---- writing -----------------------------------------------------------------------------------
 */

/* The folder of a file; the file's name within it. */
static int open_folder(const char *path, bool create, int *ret_fd, const char **ret_name,
		       struct flat_err *err)
{
	const char *slash = strrchr(path, '/');
	if (!slash || !slash[1])
		return flat_fail(err, FLAT_CODE_CONFIG, EINVAL,
				 "'%.128s' is not an absolute path of a file", path);
	flat_auto_free char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!folder)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "open the folder of '%.128s'", path);
	int r = flat_state_open_dir(folder, create, ret_fd, err);
	if (r >= 0)
		*ret_name = slash + 1;
	return r;
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static DIR *list_folder(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

/* Leftovers of a writer that was killed: there is one agent on a node, and nobody else writes to
 * these folders in this way. */
static void remove_temporary(int dirfd)
{
	__attribute__((cleanup(closedirp))) DIR *dir = list_folder(dirfd);
	for (const struct dirent *d; dir && (d = readdir(dir));)
		if (!strncmp(d->d_name, FLAT_STATE_TEMP_PREFIX, strlen(FLAT_STATE_TEMP_PREFIX)))
			unlinkat(dirfd, d->d_name, 0);
}

/* 1: written; 0: it was so. A file that cannot be read is as good as another one. */
static int write_if_different(int dirfd, const char *name, const char *text, size_t len,
			      bool durable, struct flat_err *err)
{
	flat_auto_free char *there = NULL;
	int have = flat_state_read(dirfd, name, SMALL_MAX, &there, NULL);
	if (have >= 0 && (size_t)have == len && !memcmp(there, text, len))
		return 0;
	remove_temporary(dirfd);
	int r = durable ? flat_state_replace_durable(dirfd, name, text, len, err)
			: flat_state_replace(dirfd, name, text, len, err);
	return r < 0 ? r : 1;
}

static int write_path(const char *path, const char *text, bool durable, struct flat_err *err)
{
	flat_auto_fd folder = -1;
	const char *name = "";
	int r = open_folder(path, true, &folder, &name, err);
	if (r >= 0)
		r = write_if_different(folder, name, text, strlen(text), durable, err);
	return r < 0 ? flat_wrap(err, "'%.128s'", path) : r;
}

/* ---- the node file and flannel's subnet.env ----------------------------------------------------
 */

static int write_node_file(const struct flat_agent_conf *conf, const struct flat_node *self,
			   uint32_t mtu, struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	const struct flat_node_file file = {
		.pod_cidrs = { (void *)self->pod_cidrs, self->pod_cidr_count },
		.cluster_cidrs = { (void *)conf->cluster.cidrs, conf->cluster.cidr_count },
		.mtu = mtu,
		.flannel_masq = -1,
		.node_name = self->name,
	};
	int r = flat_node_file_print(&file, &text, err);
	return r < 0 ? r : write_path(conf->node_file, text, false, err);
}

static const struct flat_prefix *first_of_family(const struct flat_prefix *prefixes, size_t count,
						 int family)
{
	for (size_t i = 0; i < count; i++)
		if (prefixes[i].ip.family == family)
			return &prefixes[i];
	return NULL;
}

/* As flannel's WriteSubnetFile() (pkg/subnet/subnet.go): the subnet with its first address. What
 * flannel's scheme has no words for, a second subnet of a family, is left out. */
static int print_subnet_env(const struct flat_agent_conf *conf, const struct flat_node *self,
			    uint32_t mtu, char *buf, size_t size)
{
	static const struct {
		int family;
		const char *prefix;
	} families[] = { { AF_INET, "FLANNEL" }, { AF_INET6, "FLANNEL_IPV6" } };
	int n = 0;
	for (size_t i = 0; i < FLAT_LEN(families); i++) {
		char network_text[FLAT_PREFIX_TEXT], subnet_text[FLAT_PREFIX_TEXT];
		const struct flat_prefix *network =
			first_of_family(conf->cluster.cidrs, conf->cluster.cidr_count,
					families[i].family);
		const struct flat_prefix *subnet =
			first_of_family(self->pod_cidrs, self->pod_cidr_count, families[i].family);
		if (!network || !subnet)
			continue;
		const struct flat_ip base = flat_prefix_first(subnet);
		const struct flat_prefix gateway = { flat_ip_next(&base), subnet->len };
		n += snprintf(buf + n, size - (size_t)n, "%s_NETWORK=%s\n%s_SUBNET=%s\n",
			      families[i].prefix, flat_prefix_text(network, network_text),
			      families[i].prefix, flat_prefix_text(&gateway, subnet_text));
	}
	/* true: it is done already, so flannel's plugin does not tell its delegate to */
	n += snprintf(buf + n, size - (size_t)n, "FLANNEL_MTU=%" PRIu32 "\nFLANNEL_IPMASQ=%s\n",
		      mtu, conf->cni.ip_masq ? "true" : "false");
	return n;
}

int flat_nodefile_write(const struct flat_agent_conf *conf, const struct flat_node *self,
			uint32_t mtu, struct flat_err *err)
{
	char env[512];
	int written = 0, env_written = 0;
	if (!self->pod_cidr_count)
		return 0; /* nothing to tell yet; what was told last stays true */
	written = write_node_file(conf, self, mtu, err);
	/* flannel's plugin takes no file without an MTU */
	if (conf->subnet_env && mtu) {
		print_subnet_env(conf, self, mtu, env, sizeof env);
		env_written = write_path(conf->subnet_env, env, false, written < 0 ? NULL : err);
	}
	if (written < 0)
		return written;
	return env_written < 0 ? env_written : written || env_written;
}

/* ---- the CNI configuration ---------------------------------------------------------------------
 */

static bool has_end(const char *name, const char *end)
{
	size_t len = strlen(name), end_len = strlen(end);
	return len > end_len && !strcmp(name + len - end_len, end);
}

/* Runtimes take the first of these by name (libcni's ConfFiles()). */
static bool is_configuration(const char *name)
{
	return has_end(name, ".conf") || has_end(name, ".conflist") || has_end(name, ".json");
}

static void warn_of_earlier(int dirfd, const char *own)
{
	static struct flat_remark remark;
	__attribute__((cleanup(closedirp))) DIR *dir = list_folder(dirfd);
	char first[NAME_MAX + 1] = "", text[NAME_MAX + 128];
	for (const struct dirent *d; dir && (d = readdir(dir));)
		if (is_configuration(d->d_name) && strcmp(d->d_name, own) < 0 &&
		    (!first[0] || strcmp(d->d_name, first) < 0))
			snprintf(first, sizeof first, "%s", d->d_name);
	if (first[0]) {
		snprintf(text, sizeof text,
			 "runtimes take '%s', which comes before '%s': remove or rename it", first,
			 own);
		flat_remark(&remark, FLAT_LEVEL_WARN,
			    "another CNI configuration goes before flatnet's", text);
	} else {
		flat_remark_end(&remark, "flatnet's CNI configuration is the first");
	}
}

/* Names and paths are text that a person wrote. */
static void print_text(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		const unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

/* Closes out; NULL when anything went wrong on the way. */
static char *end_text(FILE *out, char **text)
{
	bool failed = ferror(out);
	if (fclose(out) || failed)
		flat_free_ptr(text);
	return *text;
}

static char *print_conflist(const struct flat_agent_conf *conf)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	fputs("{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": ", out);
	print_text(out, conf->cni.network);
	fputs(",\n  \"plugins\": [\n    {\n      \"type\": \"flatnet\",\n      \"bridge\": ", out);
	print_text(out, conf->cni.bridge);
	fputs(",\n      \"subnetFile\": ", out);
	print_text(out, conf->node_file);
	fprintf(out, ",\n      \"ipMasq\": %s,\n      \"ipam\": {\n",
		conf->cni.ip_masq ? "true" : "false");
	fputs("        \"type\": \"flatnet-ipam\",\n        \"dataDir\": ", out);
	print_text(out, conf->cni.ipam_dir);
	fputs("\n      },\n      \"capabilities\": {\n        \"ips\": true,\n        \"mac\": true,\n        \"portMappings\": true\n      }\n    }\n  ]\n}\n",
	      out);
	return end_text(out, &text);
}

int flat_cniconf_write(const struct flat_agent_conf *conf, struct flat_err *err)
{
	flat_auto_fd folder = -1;
	flat_auto_free char *text = NULL;
	const char *name = "";
	if (!conf->cni.conf_file)
		return 0;
	/* the conf room has read the template, and found it right */
	text = conf->cni.conf_template ? strdup(conf->cni.conf_template) : print_conflist(conf);
	if (!text)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "print the CNI configuration");
	int r = open_folder(conf->cni.conf_file, true, &folder, &name, err);
	if (r < 0)
		return r;
	r = write_if_different(folder, name, text, strlen(text), true, err);
	if (r < 0)
		return flat_wrap(err, "'%.128s'", conf->cni.conf_file);
	warn_of_earlier(folder, name);
	return r;
}

int flat_cniconf_withdraw(const struct flat_agent_conf *conf, struct flat_err *err)
{
	flat_auto_fd folder = -1;
	const char *name = "";
	struct flat_err e = { 0 };
	if (!conf->cni.conf_file || access(conf->node_file, F_OK) == 0)
		return 0;
	int r = open_folder(conf->cni.conf_file, false, &folder, &name, &e);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		*err = e;
		return r;
	}
	if (unlinkat(folder, name, 0) == 0)
		return 1;
	return errno == ENOENT ? 0
			       : flat_fail(err, FLAT_CODE_IO, errno, "take away '%.128s'",
					   conf->cni.conf_file);
}

/* ---- the last known state ----------------------------------------------------------------------
 */

enum { HEAD_SIZE = 96 };
#define STATE_NODES_BEGIN "\"nodes\": [\n"
#define STATE_END	  "]}\n"

static const char *print_head(const char *content, size_t len, char *buf)
{
	snprintf(buf, HEAD_SIZE, "{\"version\": %d, \"checksum\": \"%016" PRIx64 "\", \"self\":\n",
		 STATE_VERSION, flat_hash(len, content, len));
	return buf;
}

static void print_node(FILE *out, const struct flat_node *node)
{
	static const char *const vtep[FLAT_FAMILIES] = { "vtep", "vtep6" };
	char text[FLAT_PREFIX_TEXT];
	bool first = true;
	fputs("{\"name\": ", out);
	print_text(out, node->name);
	fputs(", \"podCIDRs\": [", out);
	for (size_t i = 0; i < node->pod_cidr_count; i++)
		fprintf(out, "%s\"%s\"", i ? ", " : "",
			flat_prefix_text(&node->pod_cidrs[i], text));
	fputs("], \"address\": [", out);
	for (size_t i = 0; i < FLAT_FAMILIES; i++) {
		if (!node->addresses[i].family)
			continue;
		fprintf(out, "%s\"%s\"", first ? "" : ", ",
			flat_ip_text(&node->addresses[i], text));
		first = false;
	}
	fputs("]", out);
	for (size_t i = 0; i < FLAT_FAMILIES; i++)
		if (node->has_vtep[i])
			fprintf(out, ", \"%s\": \"%s\"", vtep[i],
				flat_mac_text(&node->vtep[i], text));
	/* as text: a JSON number has 53 bits */
	fprintf(out, ", \"since\": \"%" PRIu64 "\"}", node->since);
}

/* All that the head has a checksum of. */
static char *print_content(const struct flat_node *self, const struct flat_node *const *nodes,
			   size_t count, size_t *ret_len)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, ret_len);
	if (!out)
		return NULL;
	print_node(out, self);
	fputs(",\n" STATE_NODES_BEGIN, out);
	for (size_t i = 0, n = 0; i < count && n < STATE_NODES; i++) {
		if (strlen(nodes[i]->name) > FLAT_NODE_NAME_MAX)
			continue;
		if (n++)
			fputs(",\n", out);
		print_node(out, nodes[i]);
	}
	fputs("\n" STATE_END, out);
	return end_text(out, &text);
}

int flat_statefile_save(const char *path, const struct flat_node *self,
			const struct flat_node *const *nodes, size_t count, struct flat_err *err)
{
	flat_auto_free char *content = NULL;
	flat_auto_free char *text = NULL;
	flat_auto_fd folder = -1;
	char head[HEAD_SIZE];
	const char *name = "";
	size_t len = 0;
	content = print_content(self, nodes, count, &len);
	if (!content || asprintf(&text, "%s%s", print_head(content, len, head), content) < 0) {
		text = NULL;
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "print the state");
	}
	flat_free_ptr(&content);
	int r = open_folder(path, true, &folder, &name, err);
	if (r >= 0) {
		remove_temporary(folder);
		r = flat_state_replace_durable(folder, name, text, strlen(text), err);
	}
	return r < 0 ? flat_wrap(err, "'%.128s'", path) : 0;
}

struct record {
	const char *name, *since;
	struct flat_json_list pod_cidrs, addresses;
	struct flat_mac vtep[FLAT_FAMILIES];
	bool has_vtep[FLAT_FAMILIES];
};

static const struct flat_json_field record_fields[] = {
	{ "name", FLAT_JSON_STRING, offsetof(struct record, name), .required = true },
	{ "podCIDRs", FLAT_JSON_PREFIX_OR_LIST, offsetof(struct record, pod_cidrs),
	  .required = true, .max = FLAT_NODE_CIDRS },
	{ "address", FLAT_JSON_IP_OR_LIST, offsetof(struct record, addresses), .required = true,
	  .max = FLAT_FAMILIES },
	{ "vtep", FLAT_JSON_MAC, offsetof(struct record, vtep[FLAT_V4]),
	  .offset2 = offsetof(struct record, has_vtep[FLAT_V4]) },
	{ "vtep6", FLAT_JSON_MAC, offsetof(struct record, vtep[FLAT_V6]),
	  .offset2 = offsetof(struct record, has_vtep[FLAT_V6]) },
	{ "since", FLAT_JSON_STRING, offsetof(struct record, since), .required = true },
	FLAT_JSON_END,
};

static int take_record(const struct record *record, struct flat_arena *arena,
		       struct flat_node *ret_node)
{
	struct flat_node node = { .pod_cidr_count = record->pod_cidrs.count };
	if (!record->name[0] || strlen(record->name) > FLAT_NODE_NAME_MAX ||
	    !flat_uint_parse(record->since, UINT64_MAX, &node.since))
		return -EBADMSG;
	if (record->pod_cidrs.count)
		memcpy(node.pod_cidrs, record->pod_cidrs.items,
		       record->pod_cidrs.count * sizeof node.pod_cidrs[0]);
	for (size_t i = 0; i < record->addresses.count; i++) {
		const struct flat_ip *ip = &((const struct flat_ip *)record->addresses.items)[i];
		node.addresses[flat_family_index(ip->family)] = *ip;
	}
	memcpy(node.vtep, record->vtep, sizeof node.vtep);
	memcpy(node.has_vtep, record->has_vtep, sizeof node.has_vtep);
	node.name = flat_arena_strdup(arena, record->name);
	if (!node.name)
		return -ENOMEM;
	*ret_node = node;
	return 0;
}

static int parse_node(const char *line, size_t len, struct flat_arena *arena,
		      struct flat_node *ret_node)
{
	struct flat_arena scratch = { 0 };
	struct flat_json *json = NULL;
	struct record record = { 0 };
	int r = flat_json_parse(line, len, &json, NULL);
	if (r >= 0)
		r = flat_json_decode(json, "", record_fields, &record, &scratch, NULL);
	flat_json_free(json);
	if (r >= 0)
		r = take_record(&record, arena, ret_node);
	flat_arena_free(&scratch);
	return r;
}

/* The next line of *text, without its end and a comma there; NULL: there is none. */
static const char *next_line(const char **text, size_t *ret_len)
{
	const char *line = *text, *end = strchr(line, '\n');
	if (!end)
		return NULL;
	*text = end + 1;
	*ret_len = (size_t)(end - line);
	if (*ret_len && line[*ret_len - 1] == ',')
		(*ret_len)--;
	return line;
}

static int parse_nodes(const char *text, struct flat_arena *arena, struct flat_json_list *ret_nodes)
{
	size_t lines = 0, count = 0, len;
	for (const char *end = text; (end = strchr(end, '\n')); end++)
		lines++;
	struct flat_node *nodes = flat_arena_alloc(arena, (lines + 1) * sizeof *nodes);
	if (!nodes)
		return -ENOMEM;
	for (const char *line; (line = next_line(&text, &len)) && strcmp(line, STATE_END) != 0;) {
		/* one that we wrote and do not understand ourselves is none the less */
		int r = count < STATE_NODES ? parse_node(line, len, arena, &nodes[count]) : -E2BIG;
		if (r == -ENOMEM)
			return r;
		count += r >= 0;
	}
	*ret_nodes = (struct flat_json_list){ .items = nodes, .count = count };
	return 0;
}

/* The content, when the file is as it was written; NULL else. */
static const char *check_state(const char *text, size_t len)
{
	const char *content = memchr(text, '\n', len);
	char head[HEAD_SIZE];
	if (!content || memchr(text, '\0', len))
		return NULL;
	content++;
	print_head(content, len - (size_t)(content - text), head);
	return strlen(head) == (size_t)(content - text) && !memcmp(head, text, strlen(head))
		       ? content
		       : NULL;
}

int flat_statefile_load(const char *path, const char *node_name, struct flat_arena *arena,
			struct flat_node *ret_self, struct flat_json_list *ret_nodes,
			struct flat_err *err)
{
	flat_auto_fd folder = -1;
	flat_auto_free char *text = NULL;
	struct flat_node self = { 0 };
	const char *name = "", *content, *line;
	size_t line_len;
	int r = open_folder(path, false, &folder, &name, err);
	if (r == -ENOENT && (!err || !err->code))
		return 0;
	int len = r < 0 ? r : flat_state_read(folder, name, STATE_MAX, &text, err);
	if (len == -ENOENT)
		return 0;
	if (len < 0)
		return flat_wrap(err, "last known state '%.128s'", path);
	content = check_state(text, (size_t)len);
	if (!content)
		return flat_fail(err, FLAT_CODE_IO, EBADMSG,
				 "last known state '%.128s' is damaged, or another version's",
				 path);
	line = next_line(&content, &line_len);
	r = line ? parse_node(line, line_len, arena, &self) : -EBADMSG;
	if (r >= 0 && strcmp(self.name, node_name) != 0)
		return 0; /* a disk that was another node's */
	line = r >= 0 ? next_line(&content, &line_len) : NULL;
	if (r >= 0)
		r = line && !strncmp(line, STATE_NODES_BEGIN, strlen(STATE_NODES_BEGIN))
			    ? parse_nodes(content, arena, ret_nodes)
			    : -EBADMSG;
	if (r < 0)
		return flat_fail(err, FLAT_CODE_IO, -r, "last known state '%.128s'", path);
	*ret_self = self;
	return 1;
}
