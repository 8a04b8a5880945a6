// SPDX-License-Identifier: Apache-2.0
/* A node as a plain struct, and lists of them that a person wrote. */
#include <flatnet/cluster.h>
#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { NODES_FILE_MAX = 4 << 20, NODES_MAX = 16384 };

int flat_family_index(int family)
{
	return family == AF_INET6 ? FLAT_V6 : FLAT_V4;
}

bool flat_node_equal(const struct flat_node *a, const struct flat_node *b)
{
	if (strcmp(a->name, b->name) != 0 || a->pod_cidr_count != b->pod_cidr_count ||
	    a->since != b->since)
		return false;
	for (size_t i = 0; i < a->pod_cidr_count; i++)
		if (!flat_prefix_equal(&a->pod_cidrs[i], &b->pod_cidrs[i]))
			return false;
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (!flat_ip_equal(&a->addresses[f], &b->addresses[f]) ||
		    a->has_vtep[f] != b->has_vtep[f] ||
		    (a->has_vtep[f] && memcmp(&a->vtep[f], &b->vtep[f], sizeof a->vtep[f]) != 0))
			return false;
	return true;
}

struct flat_mac flat_node_vtep_mac(const struct flat_node *node)
{
	const struct flat_prefix *v6 = NULL;
	struct flat_mac mac = { { 0x0e, 0x5b } };
	uint64_t hash = flat_hash(0, node->name, strlen(node->name));
	for (size_t i = 0; i < node->pod_cidr_count; i++) {
		const struct flat_prefix *cidr = &node->pod_cidrs[i];
		struct flat_ip network = flat_prefix_first(cidr);
		if (network.family == AF_INET) {
			mac = (struct flat_mac){ { 0x0a, 0x58 } };
			memcpy(mac.bytes + 2, network.bytes, 4);
			return mac;
		}
		if (!v6) {
			v6 = cidr;
			hash = flat_hash(flat_hash(0, network.bytes, sizeof network.bytes),
					 &cidr->len, sizeof cidr->len);
		}
	}
	for (int i = 2; i < 6; i++)
		mac.bytes[i] = (uint8_t)(hash >> (8 * i));
	return mac;
}

/* ---- the JSON form -----------------------------------------------------------------------------
 */

/* "" is as good as no key, as with addresses everywhere. */
static bool is_blank(const struct flat_json *value)
{
	const char *text = flat_json_text(value);
	return text && !text[0];
}

static int decode_cidrs(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			struct flat_err *err)
{
	static const struct flat_json_field form = { .type = FLAT_JSON_PREFIX_OR_LIST,
						     .max = FLAT_NODE_CIDRS };
	struct flat_node *node = target;
	struct flat_json_list list = { 0 };
	if (is_blank(value))
		return flat_json_fault(d, err, "missing, but required");
	int r = flat_json_decode_value(d, value, &form, &list, err);
	if (r < 0)
		return r;
	if (list.count)
		memcpy(node->pod_cidrs, list.items, list.count * sizeof node->pod_cidrs[0]);
	node->pod_cidr_count = list.count;
	return 0;
}

static int decode_addresses(struct flat_json_decoder *d, const struct flat_json *value,
			    void *target, struct flat_err *err)
{
	static const struct flat_json_field form = { .type = FLAT_JSON_IP_OR_LIST, .max = 2 };
	struct flat_node *node = target;
	struct flat_json_list list = { 0 };
	if (is_blank(value))
		return flat_json_fault(d, err, "missing, but required");
	int r = flat_json_decode_value(d, value, &form, &list, err);
	for (size_t i = 0; r >= 0 && i < list.count; i++) {
		const struct flat_ip *ip = &((const struct flat_ip *)list.items)[i];
		struct flat_ip *slot = &node->addresses[flat_family_index(ip->family)];
		if (slot->family)
			return flat_json_fault(
				d, err,
				"node '%.64s' has two of one family: give one IPv4 and one IPv6 address",
				node->name);
		*slot = *ip;
	}
	return r;
}

const struct flat_json_field flat_node_fields[] = {
	{ .key = "name", FLAT_JSON_STRING, offsetof(struct flat_node, name), .required = true },
	{ .key = "podCIDRs", FLAT_JSON_CUSTOM, 0, .required = true, .decode = decode_cidrs },
	{ .key = "address", FLAT_JSON_CUSTOM, 0, .required = true, .decode = decode_addresses },
	FLAT_JSON_END,
};

/* The text of the file as an object with the key "nodes": tables describe objects. */
static int read_nodes(const char *path, struct flat_json **ret_json, struct flat_err *err)
{
	static const char head[] = "{\"nodes\":", tail[] = "}";
	flat_auto_free char *text = NULL;
	flat_auto_free char *object = NULL;

	int len = flat_state_read(AT_FDCWD, path, NODES_FILE_MAX, &text, err);
	if (len == -ENOENT)
		return flat_fail(err, FLAT_CODE_TRY_LATER, ENOENT, "nodesFile '%.128s'", path);
	if (len < 0)
		return flat_wrap(err, "nodesFile '%.128s'", path);
	if (text[strspn(text, " \t\r\n")] == '{') {
		object = text;
		text = NULL;
	} else {
		size_t size = (size_t)len + sizeof head + sizeof tail;
		object = malloc(size);
		if (!object)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodesFile '%.128s'",
					 path);
		memcpy(object, head, sizeof head - 1);
		memcpy(object + sizeof head - 1, text, (size_t)len);
		memcpy(object + sizeof head - 1 + len, tail, sizeof tail);
	}
	int r = flat_json_parse(object, strlen(object), ret_json, err);
	return r < 0 ? flat_wrap(err, "nodesFile '%.128s'", path) : 0;
}

static int decode_nodes(const char *path, const struct flat_json_field *fields, void *target,
			struct flat_arena *arena, struct flat_err *err)
{
	struct flat_json *json = NULL;
	int r = read_nodes(path, &json, err);
	if (r < 0)
		return r;
	r = flat_json_decode(json, "", fields, target, arena, err);
	flat_json_free(json);
	return r < 0 ? flat_wrap(err, "nodesFile '%.128s'", path) : 0;
}

int flat_nodes_read(const char *path, struct flat_arena *arena, struct flat_json_list *ret_nodes,
		    struct flat_err *err)
{
	static const struct flat_json_field fields[] = {
		{ .key = "nodes",
		  FLAT_JSON_OBJECT_LIST,
		  0,
		  .required = true,
		  .table = flat_node_fields,
		  .elem_size = sizeof(struct flat_node),
		  .max = NODES_MAX },
		FLAT_JSON_END,
	};
	struct flat_json_list nodes = { 0 };
	int r = decode_nodes(path, fields, &nodes, arena, err);
	if (r >= 0)
		*ret_nodes = nodes;
	return r;
}

/* ---- what a person can get wrong ---------------------------------------------------------------
 */

static int check_node(const struct flat_node *node, size_t i, const char *where,
		      struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT];
	if (!node->name[0])
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s[%zu].name: must not be empty", where,
				 i);
	if (!node->addresses[FLAT_V4].family && !node->addresses[FLAT_V6].family)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s[%zu].address: node '%.64s' has none",
				 where, i, node->name);
	for (size_t k = 0; k < node->pod_cidr_count; k++) {
		const struct flat_prefix *cidr = &node->pod_cidrs[k];
		const struct flat_prefix clean = { flat_prefix_first(cidr), cidr->len };
		if (!flat_prefix_equal(cidr, &clean))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s[%zu].podCIDRs[%zu]: has host bits set: the subnet is %s", where,
				i, k, flat_prefix_text(&clean, text));
	}
	return 0;
}

/* A list of routes, without tunnels. */
static int check_families(const struct flat_node *node, size_t i, const char *where,
			  struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT];
	for (size_t k = 0; k < node->pod_cidr_count; k++) {
		const struct flat_prefix *cidr = &node->pod_cidrs[k];
		if (!node->addresses[flat_family_index(cidr->ip.family)].family)
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s[%zu].podCIDRs[%zu]: %s cannot be reached: node '%.64s' has no address of its family",
				where, i, k, flat_prefix_text(cidr, text), node->name);
	}
	return 0;
}

/* One pod subnet with its owner, for the search of overlaps. */
struct owned {
	struct flat_prefix prefix;
	const struct flat_node *node;
};

static int compare_owned(const void *a, const void *b)
{
	const struct owned *x = a, *y = b;
	int c = flat_ip_compare(&x->prefix.ip, &y->prefix.ip);
	return c ? c : (int)x->prefix.len - (int)y->prefix.len;
}

/* Sorted by their first address, two subnets overlap only if neighbours do, or the later lies in a
 * larger one seen before. */
static int check_overlaps(const struct flat_node *nodes, size_t count, const char *where,
			  struct flat_err *err)
{
	size_t total = 0, n = 0;
	for (size_t i = 0; i < count; i++)
		total += nodes[i].pod_cidr_count;
	flat_auto_free struct owned *all = calloc(total + 1, sizeof *all);
	if (!all)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "%s", where);
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < nodes[i].pod_cidr_count; k++)
			all[n++] = (struct owned){ nodes[i].pod_cidrs[k], &nodes[i] };
	qsort(all, n, sizeof *all, compare_owned);
	for (size_t i = 1; i < n; i++)
		if (flat_prefix_overlaps(&all[i - 1].prefix, &all[i].prefix)) {
			char a[FLAT_PREFIX_TEXT], b[FLAT_PREFIX_TEXT];
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s: podCIDRs overlap: %s of node '%.64s' and %s of node '%.64s': every node needs its own",
				where, flat_prefix_text(&all[i - 1].prefix, a),
				all[i - 1].node->name, flat_prefix_text(&all[i].prefix, b),
				all[i].node->name);
		}
	return 0;
}

int flat_nodes_check(const struct flat_json_list *nodes, const char *where, struct flat_err *err)
{
	const struct flat_node *items = nodes->items;
	int r = 0;
	for (size_t i = 0; i < nodes->count && r >= 0; i++) {
		r = check_node(&items[i], i, where, err);
		if (r >= 0)
			r = check_families(&items[i], i, where, err);
	}
	return r < 0 ? r : check_overlaps(items, nodes->count, where, err);
}

/* ---- one by one --------------------------------------------------------------------------------
 */

static int tell_fault(struct flat_arena *arena, struct flat_told_node *told,
		      const struct flat_err *fault, struct flat_err *err)
{
	told->fault = flat_arena_strdup(arena, fault->msg);
	return told->fault ? 0 : flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodes");
}

/* A node without a name of its own is called by its place. */
static int call_by_place(struct flat_arena *arena, struct flat_told_node *told, size_t i,
			 struct flat_err *err)
{
	char place[32];
	snprintf(place, sizeof place, "nodes[%zu]", i);
	told->node.name = flat_arena_strdup(arena, place);
	return told->node.name ? 0 : flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodes");
}

static int decode_told(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
		       void *arg, struct flat_err *err)
{
	struct flat_json_list *list = arg;
	struct flat_told_node *told = &((struct flat_told_node *)list->items)[i];
	struct flat_arena *arena = flat_json_arena(d);
	struct flat_err fault = { 0 };
	*told = (struct flat_told_node){ 0 };
	list->count = i + 1;
	int r = flat_json_decode_object(d, item, flat_node_fields, &told->node, &fault);
	if (fault.code == FLAT_CODE_INTERNAL) {
		*err = fault;
		return r;
	}
	if (r >= 0)
		r = check_node(&told->node, i, "nodes", &fault);
	const size_t len = told->node.name ? strlen(told->node.name) : 0;
	if (len > FLAT_NODE_NAME_MAX) {
		fault = (struct flat_err){ 0 };
		r = flat_fail(&fault, FLAT_CODE_CONFIG, 0,
			      "nodes[%zu].name: has more than %d characters", i,
			      FLAT_NODE_NAME_MAX);
	}
	told->node.since = i + 1;
	if ((!len || len > FLAT_NODE_NAME_MAX) && call_by_place(arena, told, i, err) < 0)
		return -ENOMEM;
	return r < 0 ? tell_fault(arena, told, &fault, err) : 0;
}

static int decode_told_list(struct flat_json_decoder *d, const struct flat_json *value,
			    void *target, struct flat_err *err)
{
	struct flat_json_list *list = target;
	const size_t count = flat_json_count(value);
	const size_t size = count < NODES_MAX ? count : NODES_MAX;
	list->items =
		flat_arena_alloc(flat_json_arena(d), (size + 1) * sizeof(struct flat_told_node));
	if (!list->items)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodes");
	return flat_json_decode_items(d, value, NODES_MAX, decode_told, list, err);
}

static int compare_names(const void *a, const void *b)
{
	const struct flat_told_node *x = *(const struct flat_told_node *const *)a;
	const struct flat_told_node *y = *(const struct flat_told_node *const *)b;
	int c = strcmp(x->node.name, y->node.name);
	return c ? c : x->node.since < y->node.since ? -1 : 1;
}

/* Of several with one name the first has it. */
static int refuse_namesakes(struct flat_arena *arena, const struct flat_json_list *list,
			    struct flat_err *err)
{
	struct flat_told_node *items = list->items;
	flat_auto_free struct flat_told_node **sorted = calloc(list->count + 1, sizeof(void *));
	if (!sorted)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodes");
	for (size_t i = 0; i < list->count; i++)
		sorted[i] = &items[i];
	qsort(sorted, list->count, sizeof(struct flat_told_node *), compare_names);
	for (size_t i = 1, first = 0; i < list->count; i++) {
		struct flat_err fault = { 0 };
		struct flat_told_node *told = sorted[i];
		if (strcmp(sorted[first]->node.name, told->node.name) != 0) {
			first = i;
			continue;
		}
		const size_t place = (size_t)(told - items);
		flat_fail(&fault, FLAT_CODE_CONFIG, 0,
			  "nodes[%zu].name: '%.64s' is the name of nodes[%zu] too", place,
			  told->node.name, (size_t)(sorted[first] - items));
		if (call_by_place(arena, told, place, err) < 0 ||
		    tell_fault(arena, told, &fault, err) < 0)
			return -ENOMEM;
	}
	return 0;
}

int flat_nodes_read_each(const char *path, struct flat_arena *arena,
			 struct flat_json_list *ret_told, struct flat_err *err)
{
	static const struct flat_json_field fields[] = {
		{ .key = "nodes",
		  FLAT_JSON_CUSTOM,
		  0,
		  .required = true,
		  .decode = decode_told_list },
		FLAT_JSON_END,
	};
	struct flat_json_list told = { 0 };
	int r = decode_nodes(path, fields, &told, arena, err);
	if (r >= 0)
		r = refuse_namesakes(arena, &told, err);
	if (r >= 0)
		*ret_told = told;
	return r;
}
