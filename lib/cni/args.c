// SPDX-License-Identifier: Apache-2.0
#include "private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct parser {
	struct flat_arena *arena;
	struct flat_args *args;
	const char *unknown; /* the first one */
	bool ignore_unknown, lenient;
	struct flat_err *err;
};

int flat_ip_list_parse(struct flat_arena *arena, char *text, struct flat_json_list *ret_ips,
		       const char **ret_bad)
{
	struct flat_ip *ips = flat_arena_alloc(arena, FLAT_MAX_IP_LIST * sizeof *ips);
	char *rest = text;
	size_t count = 0;
	if (!ips)
		return -ENOMEM;
	for (char *one; (one = strsep(&rest, ","));) {
		struct flat_prefix prefix;
		if (!one[0])
			continue;
		if (count == FLAT_MAX_IP_LIST)
			return -E2BIG;
		if (!strchr(one, '/') && flat_ip_parse(one, &ips[count])) {
			count++;
		} else if (flat_prefix_parse(one, &prefix)) {
			ips[count++] = prefix.ip; /* the subnet's length is the IPAM's to know */
		} else {
			*ret_bad = one;
			return -EINVAL;
		}
	}
	*ret_ips = (struct flat_json_list){ .items = ips, .count = count };
	return 0;
}

static int set_ips(struct parser *p, char *value)
{
	char quoted[FLAT_QUOTE];
	const char *bad = NULL;
	int r = flat_ip_list_parse(p->arena, value, &p->args->ips, &bad);
	if (r == -EINVAL)
		return flat_fail(p->err, FLAT_CODE_ENV, 0,
				 "CNI_ARGS: IP: %s is not an IP address, like 10.244.1.23",
				 flat_quote(bad, quoted, sizeof quoted));
	if (r == -E2BIG)
		return flat_fail(p->err, FLAT_CODE_ENV, 0,
				 "CNI_ARGS: IP names more than %d addresses", FLAT_MAX_IP_LIST);
	return r < 0 ? flat_no_memory(p->err) : 0;
}

static int set_mac(struct parser *p, const char *value)
{
	char quoted[FLAT_QUOTE];
	if (!value[0])
		return 0;
	if (!flat_mac_parse(value, &p->args->mac))
		return flat_fail(p->err, FLAT_CODE_ENV, 0,
				 "CNI_ARGS: MAC: %s is not a MAC address, like 0a:58:0a:f4:01:17",
				 flat_quote(value, quoted, sizeof quoted));
	p->args->has_mac = true;
	return 0;
}

static int set_pair(struct parser *p, const char *key, char *value)
{
	const struct {
		const char *key, **target;
	} texts[] = {
		{ "K8S_POD_NAMESPACE", &p->args->pod_namespace },
		{ "K8S_POD_NAME", &p->args->pod_name },
		{ "K8S_POD_UID", &p->args->pod_uid },
		{ "K8S_POD_INFRA_CONTAINER_ID", &p->args->pod_infra_id },
	};
	for (size_t i = 0; i < FLAT_LEN(texts); i++) {
		if (!strcmp(key, texts[i].key)) {
			*texts[i].target = value;
			return 0;
		}
	}
	if (!strcmp(key, "IP"))
		return set_ips(p, value);
	if (!strcmp(key, "MAC"))
		return set_mac(p, value);
	if (!strcmp(key, "IgnoreUnknown"))
		p->ignore_unknown = !strcmp(value, "1") || !strcasecmp(value, "true");
	else if (!p->unknown)
		p->unknown = key;
	return 0;
}

/* A fault of one pair, unless faults are passed over; out of memory is never passed over. */
static int parse_pair(struct parser *p, char *pair)
{
	char quoted[FLAT_QUOTE], *equals = strchr(pair, '=');
	struct flat_err ignored = { 0 };
	struct parser lenient = *p;
	if (!equals && p->lenient)
		return 0;
	if (!equals)
		return flat_fail(p->err, FLAT_CODE_ENV, 0, "CNI_ARGS: %s is not KEY=VALUE",
				 flat_quote(pair, quoted, sizeof quoted));
	*equals = '\0';
	if (!p->lenient)
		return set_pair(p, pair, equals + 1);
	lenient.err = &ignored;
	int r = set_pair(&lenient, pair, equals + 1);
	if (r < 0 && ignored.code != FLAT_CODE_ENV)
		return flat_no_memory(p->err);
	return 0;
}

int flat_args_parse(const char *text, bool lenient, struct flat_arena *arena,
		    struct flat_args *ret_args, struct flat_err *err)
{
	struct flat_args args = { 0 };
	struct parser p = { .arena = arena, .args = &args, .lenient = lenient, .err = err };
	char quoted[FLAT_QUOTE], *rest = flat_arena_strdup(arena, text);
	if (!rest)
		return flat_no_memory(err);
	/* the order is random: containerd writes them out of a map */
	for (char *pair; (pair = strsep(&rest, ";"));) {
		int r = pair[0] ? parse_pair(&p, pair) : 0;
		if (r < 0)
			return r;
	}
	if (p.unknown && !p.ignore_unknown && !lenient)
		return flat_fail(
			err, FLAT_CODE_ENV, 0,
			"CNI_ARGS: the key %s is not known; add IgnoreUnknown=1 to have it "
			"passed over",
			flat_quote(p.unknown, quoted, sizeof quoted));
	*ret_args = args;
	return 0;
}
