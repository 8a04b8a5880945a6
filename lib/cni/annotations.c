// SPDX-License-Identifier: Apache-2.0
/*
 * Annotations of the pod. Whoever may make a pod writes them, and asks by them for what is
 * otherwise the runtime's or the administrator's to say; so each kind counts only where the
 * configuration allows it.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	ALLOW_IP = 1 << 0,
	ALLOW_MAC = 1 << 1,
	ALLOW_BANDWIDTH = 1 << 2,
};

/* Kubernetes' own limits: pkg/util/bandwidth there. */
static const double rate_min = 1e3, rate_max = 1e15;

struct input {
	unsigned allowed;
	struct flat_annotations found;
};

/* ---- values ------------------------------------------------------------------------------------
 */

static int decode_ip(struct flat_json_decoder *d, const char *text, struct flat_annotations *found,
		     struct flat_err *err)
{
	char quoted[FLAT_QUOTE], *copy = flat_arena_strdup(flat_json_arena(d), text);
	const char *bad = NULL;
	if (!copy)
		return flat_no_memory(err);
	int r = flat_ip_list_parse(flat_json_arena(d), copy, &found->ips, &bad);
	if (r == -EINVAL)
		return flat_json_fault(d, err,
				       "%s is not an IP address, like 10.244.1.23, or a list of "
				       "them with commas",
				       flat_quote(bad, quoted, sizeof quoted));
	if (r == -E2BIG)
		return flat_json_fault(d, err, "names more than %d addresses", FLAT_MAX_IP_LIST);
	return r < 0 ? flat_no_memory(err) : 0;
}

static int decode_mac(struct flat_json_decoder *d, const char *text, struct flat_annotations *found,
		      struct flat_err *err)
{
	char quoted[FLAT_QUOTE];
	struct flat_mac mac;
	if (!flat_mac_parse(text, &mac))
		return flat_json_fault(d, err, "%s is not a MAC address, like 0a:58:0a:f4:01:17",
				       flat_quote(text, quoted, sizeof quoted));
	if (mac.bytes[0] & 1)
		return flat_json_fault(d, err,
				       "%s is a multicast address: the first byte must be even",
				       text);
	found->mac = mac;
	found->has_mac = true;
	return 0;
}

/* A quantity of Kubernetes: "10M", "1.5Gi", "1e6". */
static bool parse_rate(const char *text, uint64_t *ret_rate)
{
	static const struct {
		const char *suffix;
		double factor;
	} units[] = {
		{ "", 1 },
		{ "k", 1e3 },
		{ "M", 1e6 },
		{ "G", 1e9 },
		{ "T", 1e12 },
		{ "P", 1e15 },
		{ "Ki", 1024 },
		{ "Mi", 1048576 },
		{ "Gi", 1073741824 },
		{ "Ti", 1099511627776 },
		{ "Pi", 1125899906842624 },
	};
	static const char digits[] = "0123456789";
	char number[32], *end;
	size_t len = strspn(text, digits), after;
	const bool has_digits = len > 0;
	if (text[len] == '.')
		len += 1 + strspn(text + len + 1, digits);
	if (!has_digits)
		return false;
	if (text[len] == 'e' || text[len] == 'E') {
		after = len + 1 + (text[len + 1] == '+' || text[len + 1] == '-');
		if (!strspn(text + after, digits))
			return false;
		len = after + strspn(text + after, digits);
		if (text[len])
			return false;
	}
	if (len >= sizeof number)
		return false;
	memcpy(number, text, len);
	number[len] = '\0';
	for (size_t i = 0; i < FLAT_LEN(units); i++) {
		if (strcmp(text + len, units[i].suffix) != 0)
			continue;
		const double rate = strtod(number, &end) * units[i].factor;
		if (*end || !(rate >= rate_min && rate <= rate_max))
			return false;
		*ret_rate = (uint64_t)rate;
		*ret_rate += (double)*ret_rate < rate; /* as Kubernetes rounds */
		return true;
	}
	return false;
}

static int decode_rate(struct flat_json_decoder *d, const char *text, uint64_t *ret_rate,
		       struct flat_err *err)
{
	char quoted[FLAT_QUOTE];
	if (parse_rate(text, ret_rate))
		return 0;
	return flat_json_fault(d, err,
			       "%s is not a rate in bits per second from 1k to 1P, like 10M or "
			       "1.5Gi",
			       flat_quote(text, quoted, sizeof quoted));
}

static int decode_ingress(struct flat_json_decoder *d, const char *text,
			  struct flat_annotations *found, struct flat_err *err)
{
	return decode_rate(d, text, &found->ingress_rate, err);
}

static int decode_egress(struct flat_json_decoder *d, const char *text,
			 struct flat_annotations *found, struct flat_err *err)
{
	return decode_rate(d, text, &found->egress_rate, err);
}

/* ---- keys --------------------------------------------------------------------------------------
 */

static int decode_annotation(struct flat_json_decoder *d, const char *key,
			     const struct flat_json *value, void *arg, struct flat_err *err)
{
	static const struct {
		const char *key;
		unsigned allow;
		int (*decode)(struct flat_json_decoder *d, const char *text,
			      struct flat_annotations *found, struct flat_err *err);
	} annotations[] = {
		{ FLAT_ANNOTATION_IP, ALLOW_IP, decode_ip },
		{ "cni.flatnet/mac", ALLOW_MAC, decode_mac },
		{ "kubernetes.io/ingress-bandwidth", ALLOW_BANDWIDTH, decode_ingress },
		{ "kubernetes.io/egress-bandwidth", ALLOW_BANDWIDTH, decode_egress },
	};
	struct input *in = arg;
	for (size_t i = 0; i < FLAT_LEN(annotations); i++) {
		/* of annotations, unlike of keys, the case counts */
		if (strcmp(key, annotations[i].key) != 0 || !(in->allowed & annotations[i].allow))
			continue;
		const char *text = flat_json_text(value);
		if (!text)
			return flat_json_fault(d, err, "is not a string");
		return text[0] ? annotations[i].decode(d, text, &in->found, err) : 0;
	}
	return 0;
}

static int decode_annotations(struct flat_json_decoder *d, const struct flat_json *value,
			      void *target, struct flat_err *err)
{
	struct input *in = target;
	if (!in->allowed)
		return 0;
	return flat_json_decode_members(d, value, FLAT_JSON_MAX_SIZE, decode_annotation, in, err);
}

static int decode_allowed_item(struct flat_json_decoder *d, const struct flat_json *item, size_t i,
			       void *arg, struct flat_err *err)
{
	static const struct {
		const char *name;
		unsigned bit;
	} kinds[] = {
		{ "ip", ALLOW_IP },
		{ "mac", ALLOW_MAC },
		{ "bandwidth", ALLOW_BANDWIDTH },
	};
	const char *text = flat_json_text(item);
	char quoted[FLAT_QUOTE];
	(void)i;
	for (size_t k = 0; text && k < FLAT_LEN(kinds); k++) {
		if (!strcmp(text, kinds[k].name)) {
			*(unsigned *)arg |= kinds[k].bit;
			return 0;
		}
	}
	return flat_json_fault(d, err, "%s is not \"ip\", \"mac\" or \"bandwidth\"",
			       text ? flat_quote(text, quoted, sizeof quoted)
				    : "what stands there");
}

static int decode_allowed(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			  struct flat_err *err)
{
	return flat_json_decode_items(d, value, 8, decode_allowed_item, target, err);
}

static const struct flat_json_field runtime_fields[] = {
	{ "io.kubernetes.cri.pod-annotations", FLAT_JSON_CUSTOM, 0, .decode = decode_annotations },
	FLAT_JSON_END,
};

/* What is allowed is read first. */
const struct flat_json_field flat_annotation_fields[] = {
	{ "allowPodAnnotations", FLAT_JSON_CUSTOM, offsetof(struct input, allowed),
	  .decode = decode_allowed },
	{ "runtimeConfig", FLAT_JSON_OBJECT, 0, .table = runtime_fields },
	FLAT_JSON_END,
};

int flat_annotations_parse(struct flat_request *req, struct flat_annotations *ret_annotations,
			   struct flat_err *err)
{
	struct input in = { 0 };
	int r = flat_json_decode(req->json, "", flat_annotation_fields, &in, &req->arena, err);
	if (r >= 0)
		*ret_annotations = in.found;
	return r;
}
