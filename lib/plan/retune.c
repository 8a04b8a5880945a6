// SPDX-License-Identifier: Apache-2.0
/*
 * Tuning of an interface that another plugin of the chain has made: the work of the reference's
 * tuning. The interface may outlive its pod (a device of the node, moved into it), so what it was
 * is written down before it is changed, and DEL puts it back: in the reference's file and format,
 * so that either side does it for the other. The file is named by container and interface alone.
 */
#include "plan-internal.h"

#include <flatnet/state.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MTU_MIN = 68, MTU_MAX = 65535, MAX_BACKUP = 64 << 10 };

/* As the JSON has it. */
struct raw {
	const char *data_dir;
	int64_t mtu;
	struct place {
		struct flat_mac mac;
		bool has_mac;
	} conf, runtime, args;
};

#define MAC(place)                                                                                 \
	{                                                                                          \
		.key = "mac", FLAT_JSON_MAC, offsetof(struct raw, place.mac),                      \
		.offset2 = offsetof(struct raw, place.has_mac)                                     \
	}
static const struct flat_json_field runtime_fields[] = { MAC(runtime), FLAT_JSON_END };
static const struct flat_json_field args_cni_fields[] = { MAC(args), FLAT_JSON_END };
static const struct flat_json_field args_fields[] = {
	{ .key = "cni", FLAT_JSON_OBJECT, 0, .table = args_cni_fields },
	FLAT_JSON_END,
};
static const struct flat_json_field fields[] = {
	MAC(conf),
	{ .key = "mtu", FLAT_JSON_INT, offsetof(struct raw, mtu), .min = 0, .max = MTU_MAX },
	{ .key = "dataDir", FLAT_JSON_STRING, offsetof(struct raw, data_dir) },
	{ .key = "runtimeConfig", FLAT_JSON_OBJECT, 0, .table = runtime_fields },
	{ .key = "args", FLAT_JSON_OBJECT, 0, .table = args_fields },
	FLAT_JSON_END,
};

/* The file, as the reference has it. */
struct backup {
	struct flat_mac mac;
	bool has_mac, has_tx_queue_len;
	int promisc, allmulti; /* -1: not in it */
	uint32_t mtu, tx_queue_len;
};
static const struct flat_json_field backup_fields[] = {
	{ .key = "mac",
	  FLAT_JSON_MAC,
	  offsetof(struct backup, mac),
	  .offset2 = offsetof(struct backup, has_mac) },
	{ .key = "promisc", FLAT_JSON_TRISTATE, offsetof(struct backup, promisc) },
	{ .key = "allmulti", FLAT_JSON_TRISTATE, offsetof(struct backup, allmulti) },
	{ .key = "mtu", FLAT_JSON_UINT32, offsetof(struct backup, mtu) },
	{ .key = "txQLen",
	  FLAT_JSON_UINT32,
	  offsetof(struct backup, tx_queue_len),
	  .offset2 = offsetof(struct backup, has_tx_queue_len) },
	FLAT_JSON_END,
};

static const char *data_dir_of(const struct raw *raw)
{
	return raw->data_dir && raw->data_dir[0] ? raw->data_dir : "/run/cni/tuning";
}

int flat_retuning_parse(struct flat_request *req, const struct flat_log *log,
			struct flat_retuning *ret_retuning, struct flat_err *err)
{
	struct flat_conf conf = { .reference = true };
	struct raw raw = { 0 };
	int r = flat_json_decode(req->json, "", fields, &raw, &req->arena, err);
	if (r >= 0)
		r = flat_feature_tuning.parse(req, log, &conf, err);
	if (r < 0)
		return r;
	struct flat_retuning t = { .tuning = conf.tuning, .data_dir = data_dir_of(&raw) };
	if (t.data_dir[0] != '/')
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "dataDir: \"%.128s\" must be an absolute path", t.data_dir);
	if (raw.mtu && raw.mtu < MTU_MIN)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "mtu: %d is too small: 0 (as it is) or %d to %d", (int)raw.mtu,
				 MTU_MIN, MTU_MAX);
	if (!t.tuning.mtu)
		t.tuning.mtu = (uint32_t)raw.mtu;
	/* in the reference's order, which is not that of its bridge */
	const struct place env = { .mac = req->args.mac, .has_mac = req->args.has_mac };
	const struct place *const places[] = { &raw.args, &raw.runtime, &env, &raw.conf };
	for (size_t i = 0; i < FLAT_LEN(places) && !t.has_mac; i++) {
		t.mac = places[i]->mac;
		t.has_mac = places[i]->has_mac;
	}
	if (t.has_mac && (t.mac.bytes[0] & 1))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "mac: %s is a multicast address: the first byte must be even",
				 flat_mac_text(&t.mac, (char[FLAT_MAC_TEXT]){ 0 }));
	*ret_retuning = t;
	return 0;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static char *name_backup(const struct flat_request *req)
{
	char *name = NULL;
	return asprintf(&name, "%s_%s.json", req->container_id, req->ifname) < 0 ? NULL : name;
}

static int save(const struct flat_request *req, const struct flat_retuning *t,
		const struct flat_link *link, struct flat_err *err)
{
	flat_auto_free char *name = name_backup(req);
	flat_auto_free char *text = NULL;
	flat_auto_fd dir = -1;
	char mac[64] = "", mtu[32] = "", queue[32] = "", flags[64] = "";
	char mac_text[FLAT_MAC_TEXT];
	size_t n = 0;
	if (t->has_mac && link->has_mac)
		snprintf(mac, sizeof mac, ",\"mac\":\"%s\"", flat_mac_text(&link->mac, mac_text));
	if (t->tuning.mtu)
		snprintf(mtu, sizeof mtu, ",\"mtu\":%u", link->mtu);
	if (t->tuning.has_tx_queue_len)
		snprintf(queue, sizeof queue, ",\"txQLen\":%u", link->tx_queue_len);
	if (t->tuning.promisc >= 0)
		n = (size_t)snprintf(flags, sizeof flags, ",\"promisc\":%s",
				     link->promisc ? "true" : "false");
	if (t->tuning.allmulti >= 0)
		snprintf(flags + n, sizeof flags - n, ",\"allmulti\":%s",
			 link->allmulti ? "true" : "false");
	if (!mac[0] && !mtu[0] && !queue[0] && !flags[0])
		return 0;
	int len = asprintf(&text, "{%s%s%s%s}\n", mac, mtu, queue, flags);
	if (len < 0 || !name)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "tuning");
	memmove(text + 1, text + 2, (size_t)len - 1); /* the first comma */
	int r = flat_state_open_dir(t->data_dir, true, &dir, err);
	if (r >= 0)
		r = flat_state_replace(dir, name, text, (size_t)len - 1, err);
	return r < 0 ? flat_wrap(err, "what '%s' was, in '%.128s'", req->ifname, t->data_dir) : 0;
}

/* 1: read; 0: there is none, or nobody can read it. */
static int load(struct flat_request *req, int dir, const char *name, struct backup *ret_backup,
		struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	struct flat_json *json = NULL;
	struct backup b = { .promisc = -1, .allmulti = -1 };
	int len = flat_state_read(dir, name, MAX_BACKUP, &text, err);
	if (len < 0)
		return len == -ENOENT ? 0 : len;
	int r = flat_json_parse(text, (size_t)len, &json, NULL);
	if (r >= 0)
		r = flat_json_decode(json, "", backup_fields, &b, &req->arena, NULL);
	flat_json_free(json);
	if (r < 0)
		return 0;
	*ret_backup = b;
	return 1;
}

/* ---- inside the pod ----------------------------------------------------------------------------
 */

static int find(struct flat_net **ret_net, const char *ifname, struct flat_link *ret_link,
		struct flat_err *err)
{
	int r = flat_net_open(ret_net, err);
	return r < 0 ? r : flat_link_by_name(*ret_net, ifname, ret_link, err);
}

static int change_link(const struct flat_request *req, const struct flat_retuning *t,
		       struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	struct flat_link link;
	int r = find(&pod, req->ifname, &link, err);
	if (r == 0)
		return flat_fail(err, FLAT_CODE_CONFIG, ENODEV,
				 "interface '%s' is not there to be tuned: put this plugin behind "
				 "the one that makes it",
				 req->ifname);
	if (r >= 0)
		r = save(req, t, &link, err);
	if (r < 0)
		return r;
	struct flat_link_change change = FLAT_LINK_CHANGE;
	change.mac = t->has_mac ? &t->mac : NULL;
	flat_link_change(pod, link.index, &change, FLAT_STRICT);
	flat_tuning_change(&t->tuning, pod, link.index);
	r = flat_net_commit(pod, err);
	return r < 0 ? r : flat_tuning_write(&t->tuning, err);
}

static int restore_link(const char *ifname, const struct backup *b, struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	struct flat_link link;
	struct flat_link_change change = FLAT_LINK_CHANGE;
	int r = find(&pod, ifname, &link, err);
	if (r <= 0)
		return r;
	change.mac = b->has_mac ? &b->mac : NULL;
	change.mtu = b->mtu;
	change.promisc = b->promisc;
	change.allmulti = b->allmulti;
	change.tx_queue_len = b->has_tx_queue_len ? &b->tx_queue_len : NULL;
	flat_link_change(pod, link.index, &change, FLAT_STRICT);
	return flat_net_commit(pod, err);
}

static int verify_link(const struct flat_request *req, const struct flat_retuning *t,
		       struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	struct flat_link link;
	char have[FLAT_MAC_TEXT], want[FLAT_MAC_TEXT];
	int r = find(&pod, req->ifname, &link, err);
	if (r < 0)
		return r;
	if (r == 0)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0, "interface '%s' is missing",
				 req->ifname);
	if (t->has_mac && memcmp(&link.mac, &t->mac, sizeof link.mac) != 0)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0, "interface '%s' has MAC %s, not %s",
				 req->ifname, flat_mac_text(&link.mac, have),
				 flat_mac_text(&t->mac, want));
	if (t->tuning.mtu && link.mtu != t->tuning.mtu)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0, "interface '%s' has MTU %u, not %u",
				 req->ifname, link.mtu, t->tuning.mtu);
	return flat_tuning_verify(&t->tuning, &link, err);
}

static int leave(const struct flat_request *req, int *back, int r, struct flat_err *err)
{
	flat_netns_leave(back);
	return r < 0 ? flat_wrap(err, "in '%.128s'", req->netns) : 0;
}

int flat_retuning_apply(struct flat_request *req, const struct flat_retuning *t, int netns_fd,
			const struct flat_log *log, struct flat_err *err)
{
	int back = -1;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = leave(req, &back, change_link(req, t, err), err);
	if (r < 0)
		flat_retuning_undo(req, t, netns_fd, log);
	return r;
}

void flat_retuning_undo(struct flat_request *req, const struct flat_retuning *t, int netns_fd,
			const struct flat_log *log)
{
	struct flat_err e = { 0 };
	int back = -1;
	int r = flat_netns_enter(netns_fd, &back, &e);
	if (r >= 0)
		r = leave(req, &back, flat_tuning_restore(&t->tuning, &e), &e);
	if (r < 0)
		flat_warn(log, "undo: %s", e.msg);
	e = (struct flat_err){ 0 };
	if (flat_retuning_remove(req, netns_fd, &e) < 0)
		flat_warn(log, "undo: %s", e.msg);
}

int flat_retuning_verify(struct flat_request *req, const struct flat_retuning *t, int netns_fd,
			 struct flat_err *err)
{
	int back = -1;
	int r = flat_netns_enter(netns_fd, &back, err);
	return r < 0 ? r : leave(req, &back, verify_link(req, t, err), err);
}

int flat_retuning_remove(struct flat_request *req, int netns_fd, struct flat_err *err)
{
	flat_auto_free char *name = name_backup(req);
	flat_auto_fd dir = -1;
	struct raw raw = { 0 };
	struct backup b;
	int back = -1;
	const struct flat_json *given = flat_json_get(req->json, "dataDir");
	raw.data_dir = given ? flat_json_text(given) : NULL; /* whatever has become of the rest */
	if (!name)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "tuning");
	int r = flat_state_open_dir(data_dir_of(&raw), false, &dir, err);
	if (r >= 0)
		r = load(req, dir, name, &b, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (r > 0 && netns_fd >= 0) {
		r = flat_netns_enter(netns_fd, &back, err);
		if (r >= 0)
			r = leave(req, &back, restore_link(req->ifname, &b, err), err);
		if (r < 0)
			return r;
	}
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		return flat_fail(err, FLAT_CODE_IO, errno, "remove '%s' in '%.128s'", name,
				 data_dir_of(&raw));
	return 0;
}
