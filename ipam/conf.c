// SPDX-License-Identifier: Apache-2.0
/*
 * The configuration, with the reference host-local's keys. Reading has two halves: what is there
 * (tables; wrong types are faults for every command) and whether it makes sense (for the commands
 * that use ranges: DEL and GC must get their work done whatever became of the ranges since).
 */
#include "range.h"

#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	MAX_SETS = FLAT_MAX_LEASE,
	MAX_RANGES = 64, /* of one set */
	MAX_REQUESTED = 64,
	MAX_RESOLV_CONF = 64 << 10,
	MAX_RESOLV_ITEMS = 64, /* of one kind */
};

/* The keys as they stand, in a form of ours. */
struct input {
	const char *data_dir, *resolv_conf;
	struct flat_ip_range single;
	struct flat_json_list ranges, runtime_ranges; /* struct flat_ip_range_set */
	struct flat_json_list routes;		      /* struct flat_route */
	struct flat_json_list args_ips, runtime_ips;  /* struct flat_ip */
};

static int no_memory(struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read the IPAM configuration");
}

/* ---- ranges ------------------------------------------------------------------------------------
 */

static const struct flat_json_field range_fields[] = {
	{ "subnet", FLAT_JSON_PREFIX, offsetof(struct flat_ip_range, subnet) },
	{ "rangeStart", FLAT_JSON_IP, offsetof(struct flat_ip_range, start) },
	{ "rangeEnd", FLAT_JSON_IP, offsetof(struct flat_ip_range, end) },
	{ "gateway", FLAT_JSON_IP, offsetof(struct flat_ip_range, gateway) },
	FLAT_JSON_END,
};

static int decode_range(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
			void *arg, struct flat_err *err)
{
	struct flat_ip_range *ranges = arg;
	return flat_json_decode_object(d, item, range_fields, &ranges[i], err);
}

/* A list of ranges; at least one element is allocated, so that the list can be told from none. */
static int decode_ranges(struct flat_json_decoder *d, const struct flat_json *value,
			 struct flat_json_list *ret_list, struct flat_err *err)
{
	size_t count = flat_json_count(value);
	size_t room = count && count <= MAX_RANGES ? count : 1;
	struct flat_ip_range *ranges = flat_arena_alloc(flat_json_arena(d), room * sizeof *ranges);
	if (!ranges)
		return no_memory(err);
	int r = flat_json_decode_items(d, value, MAX_RANGES, decode_range, ranges, err);
	if (r < 0)
		return r;
	*ret_list = (struct flat_json_list){ .items = ranges, .count = count };
	return 0;
}

static int decode_set(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
		      void *arg, struct flat_err *err)
{
	struct flat_ip_range_set *sets = arg;
	return decode_ranges(d, item, &sets[i].ranges, err);
}

static int decode_sets(struct flat_json_decoder *d, const struct flat_json *value, void *target,
		       struct flat_err *err)
{
	size_t count = flat_json_count(value);
	size_t room = count && count <= MAX_SETS ? count : 1;
	struct flat_ip_range_set *sets = flat_arena_alloc(flat_json_arena(d), room * sizeof *sets);
	if (!sets)
		return no_memory(err);
	int r = flat_json_decode_items(d, value, MAX_SETS, decode_set, sets, err);
	if (r < 0)
		return r;
	*(struct flat_json_list *)target = (struct flat_json_list){ .items = sets, .count = count };
	return 0;
}

struct first_item {
	bool seen, is_object;
};

static int look_at_first(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
			 void *arg, struct flat_err *err)
{
	struct first_item *first = arg;
	(void)d;
	(void)err;
	if (i == 0)
		*first =
			(struct first_item){ .seen = true, .is_object = flat_json_is_object(item) };
	return 0;
}

/* containerd's go-cni sends a flat list of ranges: one pool for each address family. */
static int decode_runtime_ranges(struct flat_json_decoder *d, const struct flat_json *value,
				 void *target, struct flat_err *err)
{
	struct first_item first = { 0 };
	int r = flat_json_decode_items(d, value, MAX_RANGES, look_at_first, &first, err);
	if (r < 0)
		return r;
	if (!first.is_object)
		return decode_sets(d, value, target, err);
	struct flat_json_list all = { 0 };
	r = decode_ranges(d, value, &all, err);
	if (r < 0)
		return r;
	struct flat_ip_range_set *sets = flat_arena_alloc(flat_json_arena(d), 2 * sizeof *sets);
	const struct flat_ip_range *ranges = all.items;
	size_t count = 0;
	if (!sets)
		return no_memory(err);
	for (size_t i = 0; i < all.count; i++) {
		uint8_t family = ranges[i].subnet.ip.family;
		struct flat_ip_range_set *set = NULL;
		for (size_t s = 0; s < count && !set; s++)
			if (((struct flat_ip_range *)sets[s].ranges.items)->subnet.ip.family ==
			    family)
				set = &sets[s];
		if (!family)
			return flat_json_fault(d, err, "item %zu has no subnet", i);
		if (!set) {
			set = &sets[count++];
			set->ranges.items =
				flat_arena_alloc(flat_json_arena(d), all.count * sizeof *ranges);
			if (!set->ranges.items)
				return no_memory(err);
		}
		((struct flat_ip_range *)set->ranges.items)[set->ranges.count++] = ranges[i];
	}
	*(struct flat_json_list *)target = (struct flat_json_list){ .items = sets, .count = count };
	return 0;
}

/* ---- requested addresses -----------------------------------------------------------------------
 */

static int decode_ip(struct flat_json_decoder *d, const struct flat_json *item, size_t i, void *arg,
		     struct flat_err *err)
{
	struct flat_ip *ips = arg;
	struct flat_prefix prefix;
	const char *text = flat_json_text(item);
	if (text && flat_prefix_parse(text, &prefix))
		ips[i] = prefix.ip; /* the length is the range's to say */
	else if (!text || !flat_ip_parse(text, &ips[i]))
		return flat_json_fault(d, err, "'%.64s' is not an IP address, like 10.244.1.23",
				       text ? text : "(no string)");
	return 0;
}

static int decode_ips(struct flat_json_decoder *d, const struct flat_json *value, void *target,
		      struct flat_err *err)
{
	struct flat_ip *ips = flat_arena_alloc(flat_json_arena(d), MAX_REQUESTED * sizeof *ips);
	if (!ips)
		return no_memory(err);
	int r = flat_json_decode_items(d, value, MAX_REQUESTED, decode_ip, ips, err);
	if (r < 0)
		return r;
	*(struct flat_json_list *)target =
		(struct flat_json_list){ .items = ips, .count = flat_json_count(value) };
	return 0;
}

/* ---- the tables --------------------------------------------------------------------------------
 */

static const struct flat_json_field ipam_fields[] = {
	{ "dataDir", FLAT_JSON_STRING, offsetof(struct input, data_dir) },
	{ "resolvConf", FLAT_JSON_STRING, offsetof(struct input, resolv_conf) },
	{ "subnet", FLAT_JSON_PREFIX, offsetof(struct input, single.subnet) },
	{ "rangeStart", FLAT_JSON_IP, offsetof(struct input, single.start) },
	{ "rangeEnd", FLAT_JSON_IP, offsetof(struct input, single.end) },
	{ "gateway", FLAT_JSON_IP, offsetof(struct input, single.gateway) },
	{ "ranges", FLAT_JSON_CUSTOM, offsetof(struct input, ranges), .table = range_fields,
	  .decode = decode_sets },
	{ "routes", FLAT_JSON_OBJECT_LIST, offsetof(struct input, routes), .max = FLAT_MAX_ROUTES,
	  .table = flat_route_fields, .elem_size = sizeof(struct flat_route),
	  .init = flat_route_init },
	FLAT_JSON_END,
};

static const struct flat_json_field runtime_fields[] = {
	{ "ipRanges", FLAT_JSON_CUSTOM, offsetof(struct input, runtime_ranges),
	  .table = range_fields, .decode = decode_runtime_ranges },
	{ "ips", FLAT_JSON_CUSTOM, offsetof(struct input, runtime_ips), .decode = decode_ips },
	FLAT_JSON_END,
};

static const struct flat_json_field args_cni_fields[] = {
	{ "ips", FLAT_JSON_CUSTOM, offsetof(struct input, args_ips), .decode = decode_ips },
	FLAT_JSON_END,
};

static const struct flat_json_field args_fields[] = {
	{ "cni", FLAT_JSON_OBJECT, 0, .table = args_cni_fields },
	FLAT_JSON_END,
};

const struct flat_json_field flat_ipam_fields[] = {
	{ "ipam", FLAT_JSON_OBJECT, 0, .table = ipam_fields },
	{ "runtimeConfig", FLAT_JSON_OBJECT, 0, .table = runtime_fields },
	{ "args", FLAT_JSON_OBJECT, 0, .table = args_fields },
	FLAT_JSON_END,
};

/* ---- does it make sense? -----------------------------------------------------------------------
 */

/* The order is the reference's: what the runtime says, the single range, the list. */
static int gather_sets(struct flat_request *req, const struct input *in,
		       const struct flat_json_list *subnets, struct flat_json_list *ret_sets,
		       struct flat_err *err)
{
	bool single = in->single.subnet.ip.family != 0;
	size_t count = in->runtime_ranges.count + single + in->ranges.count;
	size_t from_subnets = !count && subnets ? subnets->count : 0;
	size_t total = count + from_subnets, n = 0;
	struct flat_ip_range_set *sets = flat_arena_alloc(&req->arena, (total + 1) * sizeof *sets);
	struct flat_ip_range *ranges =
		flat_arena_alloc(&req->arena, (from_subnets + 1) * sizeof *ranges);
	if (!sets || !ranges)
		return no_memory(err);
	for (size_t i = 0; i < in->runtime_ranges.count; i++)
		sets[n++] = ((struct flat_ip_range_set *)in->runtime_ranges.items)[i];
	if (single) {
		ranges[0] = in->single;
		sets[n++].ranges = (struct flat_json_list){ .items = ranges, .count = 1 };
	}
	for (size_t i = 0; i < in->ranges.count; i++)
		sets[n++] = ((struct flat_ip_range_set *)in->ranges.items)[i];
	for (size_t i = 0; i < from_subnets; i++) {
		ranges[i].subnet = ((const struct flat_prefix *)subnets->items)[i];
		sets[n++].ranges = (struct flat_json_list){ .items = &ranges[i], .count = 1 };
	}
	*ret_sets = (struct flat_json_list){ .items = sets, .count = n };
	return 0;
}

static int check_sets(const struct flat_request *req, const struct flat_json_list *list,
		      struct flat_err *err)
{
	struct flat_ip_range_set *sets = list->items;
	unsigned v4 = 0, v6 = 0;
	if (!list->count) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "no IP ranges specified");
		return flat_detail(err, "set ipam.subnet, like \"10.244.1.0/24\", or ipam.ranges");
	}
	if (list->count > MAX_SETS)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "ipam: %zu range sets are more than the %d allowed", list->count,
				 MAX_SETS);
	for (size_t i = 0; i < list->count; i++) {
		struct flat_ip_range *ranges = sets[i].ranges.items;
		int r = 0;
		for (size_t j = 0; j < sets[i].ranges.count && r >= 0; j++)
			r = flat_ipam_range_complete(&ranges[j], err);
		if (r >= 0)
			r = flat_ipam_set_check(&sets[i], err);
		if (r < 0)
			return flat_wrap(err, "invalid range set %zu", i);
		v4 += ranges[0].start.family == AF_INET;
		v6 += ranges[0].start.family == AF_INET6;
		for (size_t j = 0; j < i; j++)
			if (flat_ipam_sets_overlap(&sets[j], &sets[i]))
				return flat_fail(err, FLAT_CODE_CONFIG, 0,
						 "range set %zu overlaps with %zu", j, i);
	}
	if ((v4 > 1 || v6 > 1) && req->version < FLAT_VERSION_0_3_0)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "CNI version %s does not support more than 1 address per family",
				 flat_version_text(req->version));
	return 0;
}

static size_t set_of(const struct flat_json_list *sets, const struct flat_ip *ip)
{
	const struct flat_ip_range_set *items = sets->items;
	size_t i = 0;
	while (i < sets->count && !flat_ipam_set_find(&items[i], ip))
		i++;
	return i;
}

/* The pod's own wish does not know the ranges of the node that it came to. */
static int check_annotated(const struct flat_json_list *sets, const struct flat_json_list *list,
			   struct flat_err *err)
{
	const struct flat_ip *ips = list->items;
	char ip[FLAT_IP_TEXT], range[FLAT_IPAM_SET_TEXT];
	for (size_t i = 0; i < list->count; i++) {
		if (set_of(sets, &ips[i]) < sets->count)
			continue;
		flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: %s is not in a range of this node: %s%s",
			  FLAT_ANNOTATION_PATH(FLAT_ANNOTATION_IP), flat_ip_text(&ips[i], ip),
			  flat_ipam_set_text(sets->items, range), sets->count > 1 ? ", ..." : "");
		return flat_detail(err, "let the pod come to the node that has the address");
	}
	return 0;
}

/* runtimeConfig goes before args, and args before CNI_ARGS (CNI conventions), and all of them
 * before the pod's annotations, set by set: an IPv4 address in one and an IPv6 address in another
 * are both meant. */
static int gather_requested(struct flat_request *req, const struct input *in,
			    const struct flat_json_list *sets, struct flat_json_list *ret_ips,
			    struct flat_err *err)
{
	struct flat_annotations annotations;
	int r = flat_annotations_parse(req, &annotations, err);
	if (r >= 0)
		r = check_annotated(sets, &annotations.ips, err);
	if (r < 0)
		return r;
	const struct flat_json_list *sources[] = { &in->runtime_ips, &in->args_ips, &req->args.ips,
						   &annotations.ips };
	bool spoken_for[MAX_SETS] = { false };
	size_t count = 0, n = 0;
	for (size_t s = 0; s < FLAT_LEN(sources); s++)
		count += sources[s]->count;
	struct flat_ip *ips = flat_arena_alloc(&req->arena, (count + 1) * sizeof *ips);
	if (!ips)
		return no_memory(err);
	for (size_t s = 0; s < FLAT_LEN(sources); s++) {
		const struct flat_ip *items = sources[s]->items;
		size_t before = n;
		for (size_t i = 0; i < sources[s]->count; i++) {
			size_t set = set_of(sets, &items[i]);
			if (set == sets->count || !spoken_for[set])
				ips[n++] = items[i];
		}
		for (size_t i = before; i < n; i++) {
			size_t set = set_of(sets, &ips[i]);
			if (set < sets->count)
				spoken_for[set] = true;
		}
	}
	*ret_ips = (struct flat_json_list){ .items = ips, .count = n };
	return 0;
}

/* ---- resolv.conf(5) ----------------------------------------------------------------------------
 */

static int append_text(struct flat_arena *arena, struct flat_json_list *list, const char *text)
{
	const char **items = list->items;
	if (!items)
		list->items = items =
			flat_arena_alloc(arena, MAX_RESOLV_ITEMS * sizeof(const char *));
	if (!items)
		return -ENOMEM;
	if (list->count == MAX_RESOLV_ITEMS)
		return 0; /* resolvers read a handful */
	items[list->count] = flat_arena_strdup(arena, text);
	return items[list->count++] ? 0 : -ENOMEM;
}

static int parse_resolv_line(struct flat_arena *arena, char *line, struct flat_dns *dns)
{
	char *rest = NULL, *word = strtok_r(line, " \t\r", &rest);
	struct flat_json_list *list = NULL;
	if (!word)
		return 0;
	if (!strcmp(word, "nameserver"))
		list = &dns->nameservers;
	else if (!strcmp(word, "search"))
		list = &dns->search;
	else if (!strcmp(word, "options"))
		list = &dns->options;
	else if (strcmp(word, "domain") != 0)
		return 0;
	bool one = !list || list == &dns->nameservers;
	while ((word = strtok_r(NULL, " \t\r", &rest))) {
		if (!list)
			dns->domain = flat_arena_strdup(arena, word);
		int r = list ? append_text(arena, list, word) : dns->domain ? 0 : -ENOMEM;
		if (r < 0 || one)
			return r;
	}
	return 0;
}

static int read_resolv_conf(struct flat_arena *arena, const char *path, struct flat_dns *ret_dns,
			    struct flat_err *err)
{
	/* it usually is a symbolic link, and that is fine: the administrator named it */
	flat_auto_free char *real = realpath(path, NULL);
	flat_auto_free char *text = NULL;
	struct flat_dns dns = { 0 };
	int r = real ? flat_state_read(AT_FDCWD, real, MAX_RESOLV_CONF, &text, err) : -errno;
	if (r < 0) {
		flat_fail(err, FLAT_CODE_IO, -r, "open '%s'", path);
		flat_wrap(err, "ipam.resolvConf");
		return flat_detail(err, "make the file, or take the key out");
	}
	char *rest = NULL;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		if (parse_resolv_line(arena, line, &dns) < 0)
			return no_memory(err);
	*ret_dns = dns;
	return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

int flat_ipam_conf_parse(struct flat_request *req, const char *data_dir,
			 const struct flat_json_list *subnets, struct flat_ipam_conf *ret_conf,
			 struct flat_err *err)
{
	struct input in = { 0 };
	struct flat_ipam_conf conf = { .data_dir = data_dir };
	int r = flat_json_decode(req->json, "", flat_ipam_fields, &in, &req->arena, err);
	if (r < 0)
		return r;
	if (in.data_dir && in.data_dir[0])
		conf.data_dir = in.data_dir;
	if (conf.data_dir[0] != '/')
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "ipam.dataDir: '%.128s' is not an absolute path, like '%s'",
				 conf.data_dir, data_dir);
	conf.routes = in.routes;
	r = gather_sets(req, &in, subnets, &conf.sets, err);
	if (r < 0)
		return r;
	bool cleaning = req->command == FLAT_CMD_DEL || req->command == FLAT_CMD_GC;
	r = check_sets(req, &conf.sets, cleaning ? NULL : err);
	if (r < 0 && !cleaning)
		return r;
	if (r < 0)
		conf.sets = (struct flat_json_list){ 0 };
	if (req->command == FLAT_CMD_ADD) {
		r = gather_requested(req, &in, &conf.sets, &conf.requested, err);
		if (r >= 0 && in.resolv_conf && in.resolv_conf[0])
			r = read_resolv_conf(&req->arena, in.resolv_conf, &conf.dns, err);
		if (r < 0)
			return r;
	}
	*ret_conf = conf;
	return 0;
}

bool flat_ipam_conf_has_range(const struct flat_request *req)
{
	const struct flat_json *ipam = flat_json_get(req->json, "ipam");
	const struct flat_json *runtime = flat_json_get(req->json, "runtimeConfig");
	const struct flat_json *subnet = ipam ? flat_json_get(ipam, "subnet") : NULL;
	const char *text = subnet ? flat_json_text(subnet) : NULL;
	if (subnet && (!text || text[0]))
		return true;
	return (ipam && flat_json_count(flat_json_get(ipam, "ranges"))) ||
	       (runtime && flat_json_count(flat_json_get(runtime, "ipRanges")));
}
