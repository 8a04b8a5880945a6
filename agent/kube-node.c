// SPDX-License-Identifier: Apache-2.0
#include "kube-node.h"

#include "stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
	NOTHING,
	ROOT,
	TYPE,
	LIST_VERSION,
	LIST_CONTINUE,
	MESSAGE,
	CODE,
	NODE,
	NAME,
	VERSION,
	CREATED,
	POD_CIDR,
	POD_CIDRS,
	ADDRESS,
	ADDRESS_TYPE,
	ADDRESS_IP,
	CONDITION,
	CONDITION_TYPE,
	CONDITION_STATUS,
	ANNOTATION, /* and those that follow */
};

#define ANNOTATE(which, name)                                                                      \
	{                                                                                          \
		FLAT_KUBE_PREFIX name, ANNOTATION + (which), NULL                                  \
	}
static const struct flat_pick annotation_picks[] = {
	ANNOTATE(FLAT_KUBE_MANAGED, "kube-subnet-manager"),
	ANNOTATE(FLAT_KUBE_BACKEND_TYPE, "backend-type"),
	ANNOTATE(FLAT_KUBE_BACKEND_DATA, "backend-data"),
	ANNOTATE(FLAT_KUBE_BACKEND_V6_DATA, "backend-v6-data"),
	ANNOTATE(FLAT_KUBE_PUBLIC_IP, "public-ip"),
	ANNOTATE(FLAT_KUBE_PUBLIC_IPV6, "public-ipv6"),
	ANNOTATE(FLAT_KUBE_OVERWRITE, "public-ip-overwrite"),
	ANNOTATE(FLAT_KUBE_OVERWRITE_V6, "public-ipv6-overwrite"),
	{ 0 },
};
const char *const flat_kube_annotation_names[FLAT_KUBE_ANNOTATIONS] = {
	[FLAT_KUBE_MANAGED] = "kube-subnet-manager",
	[FLAT_KUBE_BACKEND_TYPE] = "backend-type",
	[FLAT_KUBE_BACKEND_DATA] = "backend-data",
	[FLAT_KUBE_BACKEND_V6_DATA] = "backend-v6-data",
	[FLAT_KUBE_PUBLIC_IP] = "public-ip",
	[FLAT_KUBE_PUBLIC_IPV6] = "public-ipv6",
	[FLAT_KUBE_OVERWRITE] = "public-ip-overwrite",
	[FLAT_KUBE_OVERWRITE_V6] = "public-ipv6-overwrite",
};
static const struct flat_pick metadata_picks[] = {
	{ "name", NAME, NULL },
	{ "resourceVersion", VERSION, NULL },
	{ "creationTimestamp", CREATED, NULL },
	{ "annotations", NOTHING, annotation_picks },
	{ 0 },
};
static const struct flat_pick pod_cidrs_picks[] = { { "", POD_CIDRS, NULL }, { 0 } };
static const struct flat_pick spec_picks[] = {
	{ "podCIDR", POD_CIDR, NULL },
	{ "podCIDRs", NOTHING, pod_cidrs_picks },
	{ 0 },
};
static const struct flat_pick address_picks[] = {
	{ "type", ADDRESS_TYPE, NULL },
	{ "address", ADDRESS_IP, NULL },
	{ 0 },
};
static const struct flat_pick addresses_picks[] = { { "", ADDRESS, address_picks }, { 0 } };
static const struct flat_pick condition_picks[] = {
	{ "type", CONDITION_TYPE, NULL },
	{ "status", CONDITION_STATUS, NULL },
	{ 0 },
};
static const struct flat_pick conditions_picks[] = { { "", CONDITION, condition_picks }, { 0 } };
static const struct flat_pick status_picks[] = {
	{ "addresses", NOTHING, addresses_picks },
	{ "conditions", NOTHING, conditions_picks },
	{ 0 },
};
static const struct flat_pick node_picks[] = {
	{ "metadata", NOTHING, metadata_picks },
	{ "spec", NOTHING, spec_picks },
	{ "status", NOTHING, status_picks },
	{ "message", MESSAGE, NULL }, /* it may be a Status */
	{ "code", CODE, NULL },
	{ 0 },
};
static const struct flat_pick items_picks[] = { { "", NODE, node_picks }, { 0 } };
static const struct flat_pick list_picks[] = {
	{ "resourceVersion", LIST_VERSION, NULL },
	{ "continue", LIST_CONTINUE, NULL },
	{ 0 },
};
static const struct flat_pick root_picks[] = {
	{ "type", TYPE, NULL },
	{ "object", NOTHING, node_picks },
	{ "items", NOTHING, items_picks },
	{ "metadata", NOTHING, list_picks },
	{ "message", MESSAGE, NULL },
	{ 0 },
};
static const struct flat_pick root = { NULL, ROOT, root_picks };

struct flat_kube_reader {
	struct flat_stream *stream;
	const struct flat_cluster_conf *conf;
	const char *self;
	void (*heard)(void *arg, const struct flat_kube_object *object);
	void *arg;
	bool in_list;
	struct flat_kube_object object;
	/* of the object, as long as it is read */
	struct flat_prefix pod_cidr; /* the first, where podCIDRs is missing */
	char address_type[32], address[64], condition_type[32], condition_status[16];
	bool annotation_cut[FLAT_KUBE_ANNOTATIONS];
	/* of the list */
	char version[64], next[FLAT_STREAM_TEXT];
	bool next_cut;
};

static void object_reset(struct flat_kube_reader *reader)
{
	struct flat_kube_object *object = &reader->object;
	char type[sizeof object->type];
	memcpy(type, object->type, sizeof type);
	*object = (struct flat_kube_object){ .network_unavailable = true };
	memcpy(object->type, type, sizeof type);
	object->node.since = UINT64_MAX; /* who does not say since when has the last word */
	object->node.name = object->name;
	reader->pod_cidr = (struct flat_prefix){ 0 };
	memset(reader->annotation_cut, 0, sizeof reader->annotation_cut);
}

/* The first fault is told. */
FLAT_PRINTF(2, 3)
static void fault(struct flat_kube_object *object, const char *fmt, ...)
{
	if (object->fault[0])
		return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(object->fault, sizeof object->fault, fmt, ap);
	va_end(ap);
}

/* False: it does not fit, and is left empty. */
static bool copy(char *buf, size_t size, const char *text, size_t len)
{
	buf[0] = '\0';
	if (len >= size || memchr(text, '\0', len))
		return false;
	memcpy(buf, text, len);
	buf[len] = '\0';
	return true;
}

static uint64_t parse_time(const char *text)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	time_t when = end && !*end ? timegm(&tm) : -1;
	return when < 0 ? UINT64_MAX : (uint64_t)when;
}

static void take_pod_cidr(struct flat_kube_object *object, const char *text)
{
	struct flat_prefix prefix;
	struct flat_node *node = &object->node;
	if (!flat_prefix_parse(text, &prefix))
		fault(object, "its podCIDR '%.64s' is not a subnet", text);
	else if (node->pod_cidr_count == FLAT_NODE_CIDRS)
		fault(object, "it has more than %d podCIDRs", FLAT_NODE_CIDRS);
	else
		node->pod_cidrs[node->pod_cidr_count++] = prefix;
}

/* The first address of each family is the one that the kubelet prefers. */
static void take_address(struct flat_kube_reader *reader)
{
	struct flat_kube_object *object = &reader->object;
	struct flat_ip ip;
	if (strcmp(reader->address_type, "InternalIP") != 0)
		return;
	if (!flat_ip_parse(reader->address, &ip)) {
		fault(object, "its InternalIP '%.64s' is not an address", reader->address);
		return;
	}
	struct flat_ip *kept = &object->node.addresses[flat_family_index(ip.family)];
	if (!kept->family)
		*kept = ip;
}

/* ---- flannel's annotations ---- */

enum { DATA_VNI = 1, DATA_MAC };
static const struct flat_pick data_picks[] = {
	{ "VNI", DATA_VNI, NULL },
	{ "VtepMAC", DATA_MAC, NULL },
	{ 0 },
};
static const struct flat_pick data_root = { NULL, NOTHING, data_picks };

struct data {
	char vni[16], mac[FLAT_MAC_TEXT];
};

static void on_data(void *arg, int id, const char *text, size_t len)
{
	struct data *data = arg;
	if (id == DATA_VNI)
		copy(data->vni, sizeof data->vni, text, len);
	else
		copy(data->mac, sizeof data->mac, text, len);
}

static void take_backend_data(struct flat_kube_reader *reader, int family, int which)
{
	struct flat_kube_object *object = &reader->object;
	const char *text = object->annotations[which], *name = flat_kube_annotation_names[which];
	struct data data = { 0 };
	struct flat_stream_calls calls = { .value = on_data, .arg = &data };
	uint64_t vni;
	struct flat_mac *mac = &object->node.vtep[family];
	if (flat_stream_read(&data_root, &calls, text, strlen(text), NULL) < 0 ||
	    !flat_mac_parse(data.mac, mac) || !flat_uint_parse(data.vni, UINT32_MAX, &vni)) {
		fault(object, "its annotation %s '%.64s' makes no sense", name, text);
		return;
	}
	if (vni != reader->conf->vni) {
		fault(object, "its VNI is %s, but this node's is %u", data.vni, reader->conf->vni);
		return;
	}
	object->node.has_vtep[family] = true;
}

static void take_public_ip(struct flat_kube_reader *reader, int family, int which)
{
	struct flat_kube_object *object = &reader->object;
	const char *text = object->annotations[which];
	struct flat_ip ip;
	if (!flat_ip_parse(text, &ip) || flat_family_index(ip.family) != family)
		fault(object, "its annotation %s '%.64s' is not an address",
		      flat_kube_annotation_names[which], text);
	else
		object->node.addresses[family] = ip;
}

/* What flannel says of this node; without that, it is not there yet. */
static void take_flannel(struct flat_kube_reader *reader)
{
	static const int public_ips[] = { FLAT_KUBE_PUBLIC_IP, FLAT_KUBE_PUBLIC_IPV6 };
	static const int data[] = { FLAT_KUBE_BACKEND_DATA, FLAT_KUBE_BACKEND_V6_DATA };
	struct flat_kube_object *object = &reader->object;
	const char *type = object->annotations[FLAT_KUBE_BACKEND_TYPE];
	memset(object->node.addresses, 0, sizeof object->node.addresses);
	if (strcmp(object->annotations[FLAT_KUBE_MANAGED], "true") != 0)
		return;
	for (int i = 0; i < FLAT_KUBE_ANNOTATIONS; i++) {
		if (reader->annotation_cut[i])
			fault(object, "its annotation %s is too long",
			      flat_kube_annotation_names[i]);
	}
	bool vxlan = !strcmp(type, "vxlan");
	if (!vxlan && strcmp(type, "host-gw") != 0) {
		fault(object, "it has flannel's backend '%.32s'; only vxlan and host-gw are spoken",
		      type);
		return;
	}
	for (int family = 0; family < FLAT_FAMILIES; family++) {
		if (!object->annotations[public_ips[family]][0])
			continue;
		take_public_ip(reader, family, public_ips[family]);
		if (vxlan)
			take_backend_data(reader, family, data[family]);
	}
}

/* ---- the stream ---- */

static void on_begin(void *arg, int id)
{
	struct flat_kube_reader *reader = arg;
	switch (id) {
	case ROOT:
		reader->object.type[0] = '\0';
		reader->in_list = false;
		object_reset(reader);
		break;
	case NODE:
		reader->in_list = true;
		object_reset(reader);
		break;
	case ADDRESS:
		reader->address_type[0] = reader->address[0] = '\0';
		break;
	case CONDITION:
		reader->condition_type[0] = reader->condition_status[0] = '\0';
		break;
	default:
		break;
	}
}

static void object_end(struct flat_kube_reader *reader)
{
	struct flat_kube_object *object = &reader->object;
	struct flat_node *node = &object->node;
	if (!node->pod_cidr_count && reader->pod_cidr.ip.family)
		node->pod_cidrs[node->pod_cidr_count++] = reader->pod_cidr;
	if (reader->conf->flannel && strcmp(object->name, reader->self) != 0)
		take_flannel(reader);
	reader->heard(reader->arg, object);
}

static void on_end(void *arg, int id)
{
	struct flat_kube_reader *reader = arg;
	switch (id) {
	case ROOT: /* its type may have come after the object */
		if (!reader->in_list && reader->object.type[0])
			object_end(reader);
		break;
	case NODE:
		object_end(reader);
		break;
	case ADDRESS:
		take_address(reader);
		break;
	case CONDITION:
		if (!strcmp(reader->condition_type, "NetworkUnavailable"))
			reader->object.network_unavailable =
				strcmp(reader->condition_status, "False") != 0;
		break;
	default:
		break;
	}
}

static void on_value(void *arg, int id, const char *text, size_t len)
{
	struct flat_kube_reader *reader = arg;
	struct flat_kube_object *object = &reader->object;
	uint64_t number;
	if (id >= ANNOTATION) {
		int which = id - ANNOTATION;
		reader->annotation_cut[which] =
			!copy(object->annotations[which], FLAT_KUBE_TEXT, text, len);
		return;
	}
	switch (id) {
	case TYPE:
		copy(object->type, sizeof object->type, text, len);
		break;
	case LIST_VERSION:
		copy(reader->version, sizeof reader->version, text, len);
		break;
	case LIST_CONTINUE:
		reader->next_cut = !copy(reader->next, sizeof reader->next, text, len);
		break;
	case MESSAGE:
		snprintf(object->message, sizeof object->message, "%s", text);
		break;
	case CODE:
		if (flat_uint_parse(text, 999, &number))
			object->code = (int)number;
		break;
	case NAME:
		copy(object->name, sizeof object->name, text, len);
		break;
	case VERSION:
		copy(object->version, sizeof object->version, text, len);
		break;
	case CREATED:
		object->node.since = parse_time(text);
		break;
	case POD_CIDR: /* told again by podCIDRs, where there is that */
		if (len && !flat_prefix_parse(text, &reader->pod_cidr))
			fault(object, "its podCIDR '%.64s' is not a subnet", text);
		break;
	case POD_CIDRS:
		take_pod_cidr(object, text);
		break;
	case ADDRESS_TYPE:
		copy(reader->address_type, sizeof reader->address_type, text, len);
		break;
	case ADDRESS_IP:
		snprintf(reader->address, sizeof reader->address, "%s", text);
		break;
	case CONDITION_TYPE:
		copy(reader->condition_type, sizeof reader->condition_type, text, len);
		break;
	case CONDITION_STATUS:
		copy(reader->condition_status, sizeof reader->condition_status, text, len);
		break;
	default:
		break;
	}
}

int flat_kube_reader_open(const struct flat_cluster_conf *conf, const char *self,
			  void (*heard)(void *arg, const struct flat_kube_object *object),
			  void *arg, struct flat_kube_reader **ret_reader, struct flat_err *err)
{
	struct flat_kube_reader *reader = calloc(1, sizeof *reader);
	if (!reader)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read nodes");
	*reader =
		(struct flat_kube_reader){ .conf = conf, .self = self, .heard = heard, .arg = arg };
	struct flat_stream_calls calls = { on_begin, on_end, on_value, reader };
	int r = flat_stream_open(&root, &calls, &reader->stream, err);
	if (r < 0) {
		free(reader);
		return r;
	}
	*ret_reader = reader;
	return 0;
}

void flat_kube_reader_close(struct flat_kube_reader *reader)
{
	if (!reader)
		return;
	flat_stream_close(reader->stream);
	free(reader);
}

int flat_kube_reader_feed(struct flat_kube_reader *reader, const char *data, size_t len,
			  struct flat_err *err)
{
	return flat_stream_feed(reader->stream, data, len, err);
}

int flat_kube_reader_end(struct flat_kube_reader *reader, struct flat_err *err)
{
	return flat_stream_end(reader->stream, err);
}

const char *flat_kube_reader_version(const struct flat_kube_reader *reader)
{
	return reader->version;
}

const char *flat_kube_reader_continue(const struct flat_kube_reader *reader)
{
	return reader->next_cut ? NULL : reader->next;
}

/* ---- messages ---- */

struct message {
	char *buf;
	size_t size;
};

static void on_message_edge(void *arg, int id)
{
	(void)arg;
	(void)id;
}

static void on_message(void *arg, int id, const char *text, size_t len)
{
	struct message *message = arg;
	(void)len;
	if (id == MESSAGE)
		snprintf(message->buf, message->size, "%s", text);
}

void flat_kube_message(const char *body, char *buf, size_t size)
{
	struct message message = { buf, size };
	struct flat_stream_calls calls = { on_message_edge, on_message_edge, on_message, &message };
	buf[0] = '\0';
	if (flat_stream_read(&root, &calls, body, strlen(body), NULL) < 0 || !buf[0])
		snprintf(buf, size, "%.*s", (int)strcspn(body, "\r\n"), body);
}
