// SPDX-License-Identifier: Apache-2.0
/*
 * Tuning: what the reference plugin tuning is for. MAC, MTU, flags and queue length of the pod's
 * interface are part of the request that makes it, and go with it. Sysctls are written when all
 * else is made, in the order of the configuration, after those of flatnet itself.
 *
 * What is not of the interface outlives it when the namespace does. As with the reference, a DEL
 * leaves such sysctls as they are: it is the namespace's own business who else relies on them. A
 * failed ADD puts them back.
 */
#include "plan-internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MTU_MIN = 68, MTU_MAX = 65535, SYSCTL_PATH = 256 };

/* One place where the keys may stand. */
struct source {
	struct flat_json_list sysctls; /* struct flat_sysctl */
	int promisc, allmulti;
	uint32_t tx_queue_len;
	bool has_tx_queue_len;
	int64_t mtu;
};

/* As the JSON has it. */
struct raw {
	struct source conf;
	struct {
		struct source cni;
	} args;
};

/* ---- keys --------------------------------------------------------------------------------------
 */

static int decode_sysctl(struct flat_json_decoder *d, const char *key,
			 const struct flat_json *value, void *arg, struct flat_err *err)
{
	static const struct flat_json_field text = { .type = FLAT_JSON_STRING };
	struct flat_json_list *list = arg;
	struct flat_sysctl *sysctls = list->items;
	const char *name = flat_arena_strdup(flat_json_arena(d), key), *copy = NULL;
	if (!name)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "sysctl");
	int r = flat_json_decode_value(d, value, &text, &copy, err);
	if (r < 0)
		return r;
	if (strlen(copy) >= FLAT_SYSCTL_SIZE)
		return flat_json_fault(d, err, "the value has more than the %d bytes allowed",
				       FLAT_SYSCTL_SIZE - 1);
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(sysctls[i].key, key))
			return flat_json_fault(d, err, "is given twice: leave one of them out");
	sysctls[list->count++] = (struct flat_sysctl){ .key = name, .value = copy };
	return 0;
}

static int decode_sysctls(struct flat_json_decoder *d, const struct flat_json *value, void *target,
			  struct flat_err *err)
{
	struct flat_json_list list = {
		.items = flat_arena_alloc(flat_json_arena(d),
					  FLAT_MAX_SYSCTLS * sizeof(struct flat_sysctl)),
	};
	if (!list.items)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "sysctl");
	int r = flat_json_decode_members(d, value, FLAT_MAX_SYSCTLS, decode_sysctl, &list, err);
	if (r >= 0)
		*(struct flat_json_list *)target = list;
	return r;
}

#define SOURCE(place)                                                                              \
	{ .key = "sysctl",                                                                         \
	  FLAT_JSON_CUSTOM,                                                                        \
	  offsetof(struct raw, place.sysctls),                                                     \
	  .decode = decode_sysctls },                                                              \
		{ .key = "promisc", FLAT_JSON_TRISTATE, offsetof(struct raw, place.promisc) },     \
		{ .key = "allmulti", FLAT_JSON_TRISTATE, offsetof(struct raw, place.allmulti) },   \
	{                                                                                          \
		.key = "txQLen", FLAT_JSON_UINT32, offsetof(struct raw, place.tx_queue_len),       \
		.offset2 = offsetof(struct raw, place.has_tx_queue_len)                            \
	}

static const struct flat_json_field args_cni_fields[] = {
	SOURCE(args.cni),
	{ .key = "mtu",
	  FLAT_JSON_INT,
	  offsetof(struct raw, args.cni.mtu),
	  .min = 0,
	  .max = MTU_MAX },
	FLAT_JSON_END,
};

static const struct flat_json_field args_fields[] = {
	{ .key = "cni", FLAT_JSON_OBJECT, 0, .table = args_cni_fields },
	FLAT_JSON_END,
};

static const struct flat_json_field fields[] = {
	SOURCE(conf),
	{ .key = "args", FLAT_JSON_OBJECT, 0, .table = args_fields },
	FLAT_JSON_END,
};

/* ---- sysctls -----------------------------------------------------------------------------------
 */

#define SYSCTL_FAULT(err, s, ...) fault(err, FLAT_CODE_CONFIG, 0, s, __VA_ARGS__)
static int fault(struct flat_err *err, int code, int sys, const struct flat_sysctl *s,
		 const char *fmt, ...) FLAT_PRINTF(5, 6);
static int fault(struct flat_err *err, int code, int sys, const struct flat_sysctl *s,
		 const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return flat_fail(err, code, sys, "%s[\"%.128s\"]: %s", s->list, s->key, text);
}

/* As the reference has it: every '.' is a '/', and the first IFNAME is the interface, whose own
 * dots stay. What is in between must be there, so no path leads up again. */
static int resolve(struct flat_request *req, struct flat_sysctl *s, struct flat_err *err)
{
	static const char net[] = "net/", name[] = "IFNAME";
	const char *key = s->key[0] == '/' ? s->key + 1 : s->key;
	const char *place = strstr(key, name);
	char path[SYSCTL_PATH] = "";
	size_t n = 0;
	for (const char *p = key; *p && n + FLAT_IFNAME_LEN < sizeof path; p++) {
		if (p == place && req->ifname[0]) {
			n += (size_t)snprintf(path + n, sizeof path - n, "%s", req->ifname);
			p += sizeof name - 2;
		} else if ((unsigned char)*p < ' ' || *p == 0x7f) {
			return SYSCTL_FAULT(err, s, "a key has no control characters");
		} else {
			path[n++] = *p == '.' ? '/' : *p;
		}
	}
	path[n] = '\0';
	if (n + FLAT_IFNAME_LEN >= sizeof path)
		return SYSCTL_FAULT(err, s, "is longer than %d bytes",
				    (int)sizeof path - FLAT_IFNAME_LEN);
	if (strncmp(path, net, sizeof net - 1) != 0)
		return SYSCTL_FAULT(
			err, s,
			"is not below \"net.\": only settings of the pod's own network can be set");
	if (strstr(path, "//") || path[n - 1] == '/')
		return SYSCTL_FAULT(
			err, s,
			"a part of the key is empty: use names like \"net.ipv4.conf.IFNAME.arp_filter\"");
	s->path = flat_arena_strdup(&req->arena, path);
	return s->path ? 0 : flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "sysctl");
}

/* Those of args.cni take the place of the configuration's, and else stand behind them. */
static int join_sysctls(struct flat_request *req, const struct raw *raw, struct flat_tuning *t,
			struct flat_err *err)
{
	const struct {
		const char *name;
		const struct flat_json_list *list;
	} lists[] = { { "sysctl", &raw->conf.sysctls },
		      { "args.cni.sysctl", &raw->args.cni.sysctls } };
	const size_t total = lists[0].list->count + lists[1].list->count;
	if (!total)
		return 0;
	t->sysctls = flat_arena_alloc(&req->arena, total * sizeof *t->sysctls);
	if (!t->sysctls)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "sysctl");
	for (size_t l = 0; l < FLAT_LEN(lists); l++) {
		for (size_t i = 0; i < lists[l].list->count; i++) {
			struct flat_sysctl s = ((struct flat_sysctl *)lists[l].list->items)[i];
			size_t k = 0;
			s.list = lists[l].name;
			int r = resolve(req, &s, err);
			if (r < 0)
				return r;
			while (k < t->sysctl_count && strcmp(t->sysctls[k].path, s.path) != 0)
				k++;
			if (k < t->sysctl_count && t->sysctls[k].list == s.list)
				return SYSCTL_FAULT(err, &s,
						    "is \"%.64s\" again: leave one of them out",
						    t->sysctls[k].key);
			s.before = flat_arena_alloc(&req->arena, FLAT_SYSCTL_SIZE);
			if (!s.before)
				return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "sysctl");
			t->sysctls[k] = s;
			t->sysctl_count += k == t->sysctl_count;
		}
	}
	return 0;
}

static int parse(struct flat_request *req, const struct flat_log *log, struct flat_conf *conf,
		 struct flat_err *err)
{
	const struct source none = { .promisc = -1, .allmulti = -1 };
	struct raw raw = { .conf = none, .args.cni = none };
	struct flat_tuning t = { 0 };
	(void)log;
	int r = flat_json_decode(req->json, "", fields, &raw, &req->arena, err);
	if (r < 0)
		return r;
	const struct source *own = &raw.conf, *args = &raw.args.cni;
	if (args->mtu && args->mtu < MTU_MIN)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "args.cni.mtu: %d is too small: 0 (as configured) or %d to %d",
				 (int)args->mtu, MTU_MIN, MTU_MAX);
	t.promisc = args->promisc >= 0 ? args->promisc : own->promisc;
	t.allmulti = args->allmulti >= 0 ? args->allmulti : own->allmulti;
	t.has_tx_queue_len = args->has_tx_queue_len || own->has_tx_queue_len;
	t.tx_queue_len = args->has_tx_queue_len ? args->tx_queue_len : own->tx_queue_len;
	t.mtu = (uint32_t)args->mtu;
	r = join_sysctls(req, &raw, &t, err);
	/* a pod that was let in is not at fault when the list is made shorter */
	if (r >= 0 && t.sysctl_count && req->command != FLAT_CMD_CHECK)
		r = flat_allowlist_check(FLAT_ALLOWLIST, t.sysctls, t.sysctl_count, err);
	if (r < 0)
		return r;
	conf->tuning = t;
	return 0;
}

/* ---- the verbs ---------------------------------------------------------------------------------
 */

static int plan(struct flat_request *req, const struct flat_conf *conf, struct flat_attachment *a,
		struct flat_err *err)
{
	(void)req;
	(void)err;
	a->tuning = conf->tuning;
	return 0;
}

/* Numbers as the kernel reads them: "010" is 8. */
static bool is_same_word(const char *a, size_t a_len, const char *b, size_t b_len)
{
	char x[24], y[24], *x_end, *y_end;
	if (a_len == b_len && !memcmp(a, b, a_len))
		return true;
	if (!a_len || !b_len || a_len >= sizeof x || b_len >= sizeof y)
		return false;
	memcpy(x, a, a_len);
	memcpy(y, b, b_len);
	x[a_len] = y[b_len] = '\0';
	return strtoll(x, &x_end, 0) == strtoll(y, &y_end, 0) && !*x_end && !*y_end;
}

/* The kernel writes a tab where a person writes a space. */
static bool is_same_value(const char *a, const char *b)
{
	static const char white[] = " \t\n";
	for (;;) {
		a += strspn(a, white);
		b += strspn(b, white);
		if (!*a || !*b)
			return !*a && !*b;
		size_t a_len = strcspn(a, white), b_len = strcspn(b, white);
		if (!is_same_word(a, a_len, b, b_len))
			return false;
		a += a_len;
		b += b_len;
	}
}

static int write_one(struct flat_sysctl *s, struct flat_err *err)
{
	bool readable = true;
	int r = flat_sysctl_get(s->path, s->before, FLAT_SYSCTL_SIZE, NULL);
	if (r == -ENOENT)
		return fault(err, FLAT_CODE_UNSUPPORTED, 0, s,
			     "\"%.64s\" cannot be set: there is no /proc/sys/%s in this pod",
			     s->value, s->path);
	if (r == -EISDIR)
		return SYSCTL_FAULT(err, s, "is a group of settings: name one of them");
	if (r == FLAT_SYSCTL_SIZE - 1)
		return fault(err, FLAT_CODE_UNSUPPORTED, 0, s,
			     "has a value of %d bytes or more, which could not be put back", r);
	if (r == -EACCES || r == -EPERM)
		readable = false; /* it may be one that can be written only */
	else if (r < 0)
		return fault(err, FLAT_CODE_NETWORK, -r, s, "read /proc/sys/%s", s->path);
	if (readable && is_same_value(s->before, s->value))
		return 0;
	r = flat_sysctl_write(s->path, s->value, NULL);
	if (r == -EINVAL || r == -ERANGE || r == -EISDIR) {
		fault(err, FLAT_CODE_CONFIG, -r, s, "the kernel refuses \"%.64s\"", s->value);
		return readable ? flat_detail(err, "it is '%.64s' now", s->before) : r;
	}
	if (r < 0) {
		fault(err, FLAT_CODE_NETWORK, -r, s, "write \"%.64s\"", s->value);
		return flat_detail(err,
				   "is /proc/sys read-only, or is it a setting of the whole node?");
	}
	s->changed = readable;
	return 0;
}

int flat_tuning_write(const struct flat_tuning *t, struct flat_err *err)
{
	int r = 0;
	for (size_t i = 0; i < t->sysctl_count && r >= 0; i++)
		r = write_one(&t->sysctls[i], err);
	return r;
}

int flat_tuning_restore(const struct flat_tuning *t, struct flat_err *err)
{
	int first = 0;
	for (size_t i = t->sysctl_count; i-- > 0;) {
		struct flat_sysctl *s = &t->sysctls[i];
		int r = s->changed ? flat_sysctl_write(s->path, s->before, err) : 0;
		s->changed = false;
		if (r < 0 && first >= 0)
			first = r;
	}
	return first;
}

void flat_tuning_change(const struct flat_tuning *t, struct flat_net *pod, int index)
{
	struct flat_link_change change = FLAT_LINK_CHANGE;
	change.promisc = t->promisc;
	change.allmulti = t->allmulti;
	change.tx_queue_len = t->has_tx_queue_len ? &t->tx_queue_len : NULL;
	change.mtu = t->mtu;
	flat_link_change(pod, index, &change, FLAT_STRICT);
}

static int verify_flag(const struct flat_link *link, const char *name, bool have, int want,
		       struct flat_err *err)
{
	if (want < 0 || have == (want != 0))
		return 0;
	return flat_fail(err, FLAT_CODE_MISMATCH, 0,
			 "interface '%s' has %s %s: `ip link set %s %s %s`", link->name, name,
			 have ? "on" : "off", link->name, name, want ? "on" : "off");
}

static int verify_sysctl(const struct flat_sysctl *s, struct flat_err *err)
{
	char now[FLAT_SYSCTL_SIZE];
	int r = flat_sysctl_get(s->path, now, sizeof now, NULL);
	if (r == -EACCES || r == -EPERM)
		return 0; /* nobody can tell */
	if (r < 0)
		return fault(err, FLAT_CODE_MISMATCH, -r, s, "read /proc/sys/%s", s->path);
	return is_same_value(now, s->value) ? 0
					    : fault(err, FLAT_CODE_MISMATCH, 0, s,
						    "is '%.64s', not '%.64s'", now, s->value);
}

int flat_tuning_verify(const struct flat_tuning *t, const struct flat_link *link,
		       struct flat_err *err)
{
	int r = verify_flag(link, "promisc", link->promisc, t->promisc, err);
	if (r >= 0)
		r = verify_flag(link, "allmulticast", link->allmulti, t->allmulti, err);
	if (r >= 0 && t->has_tx_queue_len && link->tx_queue_len != t->tx_queue_len)
		r = flat_fail(err, FLAT_CODE_MISMATCH, 0,
			      "interface '%s' has a queue of %u packets (txQLen), not %u",
			      link->name, link->tx_queue_len, t->tx_queue_len);
	for (size_t i = 0; i < t->sysctl_count && r >= 0; i++)
		r = verify_sysctl(&t->sysctls[i], err);
	return r;
}

static int inside(const struct flat_attachment *a, int netns_fd,
		  int (*fn)(const struct flat_tuning *t, struct flat_err *err),
		  struct flat_err *err)
{
	int back = -1;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = fn(&a->tuning, err);
	flat_netns_leave(&back);
	return r < 0 ? flat_wrap(err, "in '%.128s'", a->netns) : 0;
}

static int apply(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		 struct flat_applied *applied, const struct flat_log *log, struct flat_err *err)
{
	(void)net;
	(void)log;
	if (!a->tuning.sysctl_count)
		return 0;
	applied->netns_fd = netns_fd;
	applied->features |= FLAT_FEATURE_TUNING;
	return inside(a, netns_fd, flat_tuning_write, err);
}

static int undo(const struct flat_attachment *a, struct flat_net *net,
		const struct flat_applied *applied, struct flat_err *err)
{
	(void)net;
	return inside(a, applied->netns_fd, flat_tuning_restore, err);
}

static int verify_inside(const struct flat_attachment *a, struct flat_err *err)
{
	flat_auto_net *pod = NULL;
	struct flat_link link;
	int r = flat_net_open(&pod, err);
	if (r >= 0)
		r = flat_link_by_name(pod, a->ifname, &link, err);
	if (r == 0)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0, "interface '%s' is missing",
				 a->ifname);
	return r < 0 ? r : flat_tuning_verify(&a->tuning, &link, err);
}

static int verify(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
		  struct flat_err *err)
{
	const struct flat_tuning *t = &a->tuning;
	int back = -1;
	(void)net;
	if (!t->sysctl_count && t->promisc < 0 && t->allmulti < 0 && !t->has_tx_queue_len)
		return 0;
	int r = flat_netns_enter(netns_fd, &back, err);
	if (r < 0)
		return r;
	r = verify_inside(a, err);
	flat_netns_leave(&back);
	return r < 0 ? flat_wrap(err, "in '%.128s'", a->netns) : 0;
}

/* All of it is in the pod's namespace, and of the interface, or stays. */
static int remove_nothing(struct flat_net *net, struct flat_removal *removal, struct flat_err *err)
{
	(void)net;
	(void)removal;
	(void)err;
	return 0;
}

static int sweep_nothing(struct flat_net *net, const struct flat_log *log, struct flat_err *err)
{
	(void)net;
	(void)log;
	(void)err;
	return 0;
}

const struct flat_feature flat_feature_tuning = {
	.name = "tuning",
	.bit = FLAT_FEATURE_TUNING,
	.fields = fields,
	.parse = parse,
	.plan = plan,
	.apply = apply,
	.undo = undo,
	.verify = verify,
	.remove = remove_nothing,
	.sweep = sweep_nothing,
};
