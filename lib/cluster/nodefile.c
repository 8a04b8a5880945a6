// SPDX-License-Identifier: Apache-2.0
/* What an agent tells about this node: flatnet's own JSON, or flannel's subnet.env. */
#include <flatnet/cluster.h>
#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODE_FILE_BYTES = 64 << 10, LIST_MAX = 16 };

static const struct flat_json_field fields[] = {
	{ .key = "podCIDRs",
	  FLAT_JSON_PREFIX_OR_LIST,
	  offsetof(struct flat_node_file, pod_cidrs),
	  .required = true,
	  .max = LIST_MAX },
	{ .key = "clusterCIDR",
	  FLAT_JSON_PREFIX_OR_LIST,
	  offsetof(struct flat_node_file, cluster_cidrs),
	  .max = LIST_MAX },
	{ .key = "mtu",
	  FLAT_JSON_UINT32,
	  offsetof(struct flat_node_file, mtu),
	  .min = 0,
	  .max = 65535 },
	{ .key = "nodeName", FLAT_JSON_STRING, offsetof(struct flat_node_file, node_name) },
	FLAT_JSON_END,
};

/* ---- reading -----------------------------------------------------------------------------------
 */

static int append_prefix(struct flat_arena *arena, struct flat_json_list *list,
			 const struct flat_prefix *prefix, struct flat_err *err)
{
	struct flat_prefix *items = list->items;
	if (list->count == LIST_MAX)
		return 0;
	if (!items)
		items = flat_arena_alloc(arena, LIST_MAX * sizeof *items);
	if (!items)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "list of prefixes");
	items[list->count++] = *prefix;
	list->items = items;
	return 0;
}

/* One line KEY=VALUE of flannel's subnet.env; keys that we don't know are none of our business. */
static int parse_env_line(struct flat_arena *arena, char *line, struct flat_node_file *file,
			  struct flat_err *err)
{
	char *value = strchr(line, '=');
	struct flat_prefix prefix;
	uint64_t number;
	if (!value)
		return 0;
	*value++ = '\0';
	struct flat_json_list *list =
		!strcmp(line, "FLANNEL_SUBNET") || !strcmp(line, "FLANNEL_IPV6_SUBNET")
			? &file->pod_cidrs
		: !strcmp(line, "FLANNEL_NETWORK") || !strcmp(line, "FLANNEL_IPV6_NETWORK")
			? &file->cluster_cidrs
			: NULL;
	if (list) { /* FLANNEL_NETWORK may be several, separated by commas */
		char *save = NULL;
		for (char *one = strtok_r(value, ",", &save); one;
		     one = strtok_r(NULL, ",", &save)) {
			if (!flat_prefix_parse(one, &prefix))
				return flat_fail(err, FLAT_CODE_CONFIG, 0,
						 "%s: \"%.64s\" is not a subnet", line, one);
			prefix.ip = flat_prefix_first(
				&prefix); /* flannel writes the gateway's address there */
			if (append_prefix(arena, list, &prefix, err) < 0)
				return -ENOMEM;
		}
	} else if (!strcmp(line, "FLANNEL_MTU")) {
		if (!flat_uint_parse(value, 65535, &number))
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "FLANNEL_MTU: \"%.64s\" is not a number up to 65535",
					 value);
		file->mtu = (uint32_t)number;
	} else if (!strcmp(line, "FLANNEL_IPMASQ")) {
		file->flannel_masq = !strcmp(value, "true");
	}
	return 0;
}

int flat_node_file_read(const char *path, struct flat_arena *arena, struct flat_node_file *ret_file,
			struct flat_err *err)
{
	struct flat_node_file file = { .flannel_masq = -1 };
	flat_auto_free char *text = NULL;
	int r = 0;

	int len = flat_state_read(AT_FDCWD, path, NODE_FILE_BYTES, &text, err);
	if (len == -ENOENT) {
		flat_fail(err, FLAT_CODE_TRY_LATER, ENOENT,
			  "the pod subnet of this node is not known: subnet file '%.128s'", path);
		return flat_detail(
			err,
			"start the node agent that writes it, or set ipam.subnet, or give a list of nodes");
	}
	if (len < 0)
		return flat_wrap(err, "subnetFile '%.128s'", path);
	if (text[strspn(text, " \t\r\n")] == '{') {
		struct flat_json *json = NULL;
		r = flat_json_parse(text, (size_t)len, &json, err);
		if (r >= 0)
			r = flat_json_decode(json, "", fields, &file, arena, err);
		flat_json_free(json);
	} else {
		char *save = NULL;
		for (char *line = strtok_r(text, "\r\n", &save); line && r >= 0;
		     line = strtok_r(NULL, "\r\n", &save))
			r = parse_env_line(arena, line, &file, err);
	}
	if (r < 0)
		return flat_wrap(err, "subnetFile '%.128s'", path);
	if (!file.pod_cidrs.count) {
		flat_fail(err, FLAT_CODE_TRY_LATER, 0,
			  "subnetFile '%.128s' names no subnet of this node yet", path);
		return flat_detail(err, "podCIDRs in JSON, FLANNEL_SUBNET in flannel's format");
	}
	*ret_file = file;
	return 0;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

enum { LIST_TEXT = LIST_MAX * (FLAT_PREFIX_TEXT + 4) + 1 };

/* "a", "b" */
static const char *prefixes_text(const struct flat_json_list *list, char buf[static LIST_TEXT])
{
	const struct flat_prefix *items = list->items;
	char text[FLAT_PREFIX_TEXT];
	size_t n = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < list->count && i < LIST_MAX; i++)
		n += (size_t)snprintf(buf + n, LIST_TEXT - n, "%s\"%s\"", i ? ", " : "",
				      flat_prefix_text(&items[i], text));
	return buf;
}

int flat_node_file_print(const struct flat_node_file *file, char **ret_text, struct flat_err *err)
{
	char pods[LIST_TEXT], cluster[LIST_TEXT];
	flat_auto_free char *name = file->node_name ? flat_json_quote(file->node_name) : NULL;
	char *text;
	if ((file->node_name && !name) ||
	    asprintf(&text,
		     "{\n%s%s%s\t\"podCIDRs\": [%s],\n\t\"clusterCIDR\": [%s],\n\t\"mtu\": %u\n}\n",
		     name ? "\t\"nodeName\": " : "", name ? name : "", name ? ",\n" : "",
		     prefixes_text(&file->pod_cidrs, pods),
		     prefixes_text(&file->cluster_cidrs, cluster), file->mtu) < 0)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "print the node's file");
	*ret_text = text;
	return 0;
}
