// SPDX-License-Identifier: Apache-2.0
/* Having of the source etcd: this node's own record, claimed and kept. */
#include "source-etcd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	TRIES_AT_ONCE = 8, /* at a subnet, against others who want one at the same moment */
	TTL_SLACK = 10,	   /* etcd rounds short leases up */
};

static void own_start(struct flat_source *source);
static void own_claim(struct flat_source *source);

/* ---- what is told ------------------------------------------------------------------------------
 */

static struct flat_node own_node(const struct flat_source *source,
				 const struct flat_prefix cidrs[static FLAT_FAMILIES])
{
	struct flat_node node = source->self.node;
	node.name = source->conf->node_name;
	node.pod_cidr_count = 0;
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (cidrs[f].ip.family)
			node.pod_cidrs[node.pod_cidr_count++] = cidrs[f];
	/* What it said of its VTEP was said of the subnet that it had. */
	bool same = node.pod_cidr_count == source->self.node.pod_cidr_count;
	for (size_t i = 0; same && i < node.pod_cidr_count; i++)
		same = flat_prefix_equal(&node.pod_cidrs[i], &source->self.node.pod_cidrs[i]);
	if (!same)
		memset(node.has_vtep, 0, sizeof node.has_vtep);
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		if (node.addresses[f].family && !node.has_vtep[f]) {
			node.vtep[f] = flat_node_vtep_mac(&node);
			node.has_vtep[f] = true;
		}
	}
	node.since = (uint64_t)source->create_revision;
	return node;
}

void flat_etcd_tell_self(struct flat_source *source)
{
	struct flat_node node = own_node(source, source->cidrs);
	source->told_fault = 0;
	source->listener->node(source->listener->arg, &node, NULL);
}

void flat_etcd_tell_fault(struct flat_source *source)
{
	static const struct flat_prefix none[FLAT_FAMILIES];
	const struct flat_err *trouble = &source->own_trouble;
	struct flat_node node = own_node(source, none);
	char fault[sizeof trouble->msg + sizeof trouble->details + 8];
	snprintf(fault, sizeof fault, "%s%s%s", trouble->msg, trouble->details[0] ? " - " : "",
		 trouble->details);
	uint64_t hash = flat_hash(1, fault, strlen(fault));
	if (hash == source->told_fault)
		return;
	source->told_fault = hash;
	source->listener->node(source->listener->arg, &node, fault);
}

/* ---- how it goes -------------------------------------------------------------------------------
 */

static void own_later(struct flat_source *source, double seconds)
{
	source->step = FLAT_STEP_NONE;
	ev_timer_stop(source->loop, &source->own_timer);
	ev_timer_set(&source->own_timer, seconds, 0.);
	ev_timer_start(source->loop, &source->own_timer);
}

/* It does not work now: said, and tried again. */
static void own_failed(struct flat_source *source, const struct flat_err *err)
{
	char text[sizeof err->msg + sizeof err->details + 8];
	source->own_trouble = *err;
	source->crowded = !source->held &&
			  (err->code == FLAT_CODE_EXHAUSTED || err->code == FLAT_CODE_IN_USE);
	snprintf(text, sizeof text, "%s%s%s", err->msg, err->details[0] ? " - " : "", err->details);
	if (source->held)
		flat_remark(&source->remark, FLAT_LEVEL_ERROR,
			    "this node's record in etcd cannot be brought up to date", text);
	else
		flat_etcd_tell_fault(source);
	own_later(source, flat_backoff_next(&source->own_backoff, 1, 30));
}

/* A call to etcd failed. */
static void own_unheard(struct flat_source *source, const struct flat_etcd_failure *failure)
{
	source->step = FLAT_STEP_NONE;
	if (failure->trouble == FLAT_ETCD_NO_LEASE) {
		source->lease = 0;
		own_later(source, flat_backoff_next(&source->own_backoff, 0.2, 30));
	} else if (failure->trouble == FLAT_ETCD_UNREACHABLE && !source->own_backoff.tries) {
		own_later(source, flat_backoff_next(&source->own_backoff, 0.2, 30));
	} else {
		own_failed(source, &failure->err);
	}
}

static void own_well(struct flat_source *source)
{
	source->own_backoff.tries = 0;
	source->tries = 0;
	source->own_trouble.code = 0;
	source->crowded = false;
	flat_remark_end(&source->remark, "this node's record in etcd is right again");
}

static const char *cidrs_text(const struct flat_prefix cidrs[static FLAT_FAMILIES], char *buf)
{
	char text[FLAT_PREFIX_TEXT];
	buf[0] = '\0';
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (cidrs[f].ip.family) {
			strcat(buf, buf[0] ? ", " : "");
			strcat(buf, flat_prefix_text(&cidrs[f], text));
		}
	return buf;
}
enum { CIDRS_TEXT = FLAT_FAMILIES * (FLAT_PREFIX_TEXT + 2) };

/* It is ours now, at this revision. */
static void own_take(struct flat_source *source, const struct flat_prefix cidrs[FLAT_FAMILIES],
		     const char *key, int64_t create_revision, int64_t mod_revision,
		     uint64_t value_hash)
{
	char text[CIDRS_TEXT];
	bool news = !source->held || strcmp(source->key, key) != 0;
	source->step = FLAT_STEP_NONE;
	source->held = true;
	source->rival = false;
	memcpy(source->cidrs, cidrs, sizeof source->cidrs);
	snprintf(source->key, sizeof source->key, "%s", key);
	source->create_revision = create_revision;
	source->mod_revision = mod_revision;
	source->value_hash = value_hash;
	if (news)
		flat_say(FLAT_LEVEL_INFO, "this node has its subnet", "podCIDR",
			 cidrs_text(cidrs, text), "key", key, NULL);
	own_well(source);
	flat_etcd_tell_self(source);
	flat_etcd_own_kick(source); /* what came in the meantime */
}

/* ---- claiming it -------------------------------------------------------------------------------
 */

void flat_etcd_put_free(struct flat_source *source)
{
	free(source->put.value);
	free(source->put.replaces);
	source->put.value = source->put.replaces = NULL;
}

static void put_done(void *arg, const struct flat_etcd_answer *answer,
		     const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	source->step = FLAT_STEP_NONE;
	if (failure) {
		own_unheard(source, failure);
		return;
	}
	const char *replaces = source->put.replaces;
	if (!answer->succeeded) {
		/* Others were quicker. The answer says who; the watch will say so, too. */
		bool stands = false;
		source->held = false;
		for (size_t i = 0; i < answer->kv_count; i++) {
			const char *key = flat_etcd_hear_key(source, &answer->kvs[i]);
			stands = stands || (replaces && key && !strcmp(key, replaces));
			flat_etcd_hear_put(source, &answer->kvs[i]);
		}
		if (replaces && !stands)
			flat_etcd_hear_gone(source, replaces, answer->revision);
		if (source->tries++ < TRIES_AT_ONCE)
			own_start(source);
		else
			own_later(source, flat_backoff_next(&source->own_backoff, 0.1, 10));
		return;
	}
	const char *key = source->put.key;
	bool same = replaces && !strcmp(replaces, key);
	struct flat_etcd_entry *entry = flat_etcd_table_find(&source->table, key);
	int64_t created = same && entry ? entry->create_revision : answer->revision;
	if (replaces && !same)
		flat_etcd_hear_gone(source, replaces, answer->revision);
	struct flat_prefix cidrs[FLAT_FAMILIES];
	memcpy(cidrs, source->put.cidrs, sizeof cidrs);
	/* The table shall know it before the watch tells: what the watch tells then is known. */
	flat_auto_free char *full = NULL;
	if (asprintf(&full, "%s%s", source->folder, key) < 0)
		full = NULL;
	const struct flat_etcd_kv kv = {
		.key = full ? full : "",
		.value = source->put.value,
		.value_len = strlen(source->put.value),
		.create_revision = created,
		.mod_revision = answer->revision,
		.lease = source->reserved ? 0 : source->lease,
	};
	uint64_t hash = flat_hash(1, kv.value, kv.value_len);
	bool was_held = source->held;
	source->held = true; /* so that it is told once, as ours */
	flat_etcd_hear_put(source, &kv);
	source->held = was_held;
	char taken[FLAT_RECORD_KEY];
	snprintf(taken, sizeof taken, "%s", key);
	flat_etcd_put_free(source);
	own_take(source, cidrs, taken, created, answer->revision, hash);
}

static void own_put(struct flat_source *source)
{
	flat_auto_free char *key = NULL, *unused = NULL, *replaces = NULL;
	struct flat_prefix first[FLAT_FAMILIES] = { 0 };
	char text[FLAT_RECORD_KEY];
	struct flat_err err = { 0 };
	int f = source->put.cidrs[FLAT_V4].ip.family ? FLAT_V4 : FLAT_V6;
	first[f] = source->put.cidrs[f];
	if (asprintf(&key, "%s%s", source->folder, source->put.key) < 0)
		key = NULL;
	if (asprintf(&unused, "%s%s", source->folder, flat_record_key_text(first, text)) < 0)
		unused = NULL;
	if (source->put.replaces &&
	    asprintf(&replaces, "%s%s", source->folder, source->put.replaces) < 0)
		replaces = NULL;
	const struct flat_etcd_put put = {
		.key = key,
		.value = source->put.value,
		.lease = source->reserved ? 0 : source->lease,
		.unused = source->put.unused ? unused : NULL,
		.replaces = replaces,
		.replaces_revision = source->put.replaces_revision,
	};
	source->step = FLAT_STEP_PUT;
	if (!key || !unused || (source->put.replaces && !replaces) ||
	    flat_etcd_put(source->etcd, &put, put_done, source, &err) < 0) {
		flat_fail(&err, FLAT_CODE_INTERNAL, ENOMEM, "claim a subnet");
		own_failed(source, &err);
	}
}

static void grant_done(void *arg, const struct flat_etcd_answer *answer,
		       const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	source->step = FLAT_STEP_NONE;
	if (failure) {
		own_unheard(source, failure);
		return;
	}
	source->lease = answer->lease;
	own_claim(source); /* from the start: the world may have changed */
}

static void reuse_done(void *arg, const struct flat_etcd_answer *answer,
		       const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	source->step = FLAT_STEP_NONE;
	if (failure && failure->trouble != FLAT_ETCD_NO_LEASE) {
		own_unheard(source, failure);
		return;
	}
	struct flat_err err = { 0 };
	int64_t ttl = failure ? 0 : answer->ttl, wanted = source->conf->etcd.lease_ttl;
	if (ttl >= wanted && ttl <= wanted + TTL_SLACK) {
		source->lease = answer->lease;
		own_claim(source);
		return;
	}
	source->step = FLAT_STEP_GRANT;
	if (flat_etcd_grant(source->etcd, source->conf->etcd.lease_ttl, grant_done, source, &err) <
	    0)
		own_failed(source, &err);
}

/* A lease for the record: the one that it has from an earlier life, or a new one. */
static void own_lease(struct flat_source *source, int64_t former)
{
	struct flat_err err = { 0 };
	int r;
	source->step = former ? FLAT_STEP_REUSE : FLAT_STEP_GRANT;
	if (former)
		r = flat_etcd_keepalive(source->etcd, former, reuse_done, source, &err);
	else
		r = flat_etcd_grant(source->etcd, source->conf->etcd.lease_ttl, grant_done, source,
				    &err);
	if (r < 0)
		own_failed(source, &err);
}

/* Decides what this node's record shall be, and takes the next step to it. */
static void own_claim(struct flat_source *source)
{
	struct flat_prefix cidrs[FLAT_FAMILIES] = { 0 };
	struct flat_etcd_entry *own = flat_etcd_own_entry(source);
	struct flat_err err = { 0 };
	if (source->held)
		memcpy(cidrs, source->cidrs, sizeof cidrs);
	else if (flat_etcd_choose(source, own, cidrs, &err) < 0) {
		own_failed(source, &err);
		return;
	}
	source->reserved = own && !own->lease;
	if (!source->reserved && !source->lease) {
		own_lease(source, own ? own->lease : 0);
		return;
	}
	struct flat_node node = own_node(source, cidrs);
	flat_etcd_put_free(source);
	memcpy(source->put.cidrs, cidrs, sizeof cidrs);
	flat_record_key_text(cidrs, source->put.key);
	source->put.value =
		flat_record_print(&node, source->self.backend, source->conf->cluster.vni);
	source->put.replaces = own ? strdup(own->key) : NULL;
	source->put.replaces_revision = own ? own->mod_revision : 0;
	if (!source->put.value || (own && !source->put.replaces)) {
		flat_fail(&err, FLAT_CODE_INTERNAL, ENOMEM, "claim a subnet");
		own_failed(source, &err);
		return;
	}
	int f = cidrs[FLAT_V4].ip.family ? FLAT_V4 : FLAT_V6;
	source->put.unused =
		!own || !own->cidrs[f].ip.family || !flat_prefix_equal(&own->cidrs[f], &cidrs[f]);
	uint64_t hash = flat_hash(1, source->put.value, strlen(source->put.value));
	if (own && !strcmp(own->key, source->put.key) && own->value_hash == hash &&
	    own->lease == (source->reserved ? 0 : source->lease)) {
		/* It stands as it should: nothing is written when an agent restarts. */
		char key[FLAT_RECORD_KEY];
		snprintf(key, sizeof key, "%s", own->key);
		own_take(source, cidrs, key, own->create_revision, own->mod_revision, hash);
		return;
	}
	own_put(source);
}

static void config_done(void *arg, const struct flat_etcd_answer *answer,
			const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	struct flat_arena arena = { 0 };
	struct flat_netconf netconf;
	struct flat_err err = { 0 };
	int r = 0;
	source->step = FLAT_STEP_NONE;
	if (failure) {
		own_unheard(source, failure);
		return;
	}
	if (!answer->kv_count) {
		flat_fail(&err, FLAT_CODE_NOT_READY, 0,
			  "flannel's configuration is not in etcd yet");
		r = flat_detail(&err,
				"etcdctl put %s '{\"Network\": \"10.244.0.0/16\", "
				"\"Backend\": {\"Type\": \"vxlan\"}}'",
				source->config_key);
	} else {
		r = flat_netconf_parse(answer->kvs[0].value, answer->kvs[0].value_len, &arena,
				       &netconf, &err);
		if (r >= 0)
			r = flat_etcd_check_netconf(source, &netconf, &err);
		if (r < 0)
			flat_wrap(&err, "etcd's key %s", source->config_key);
	}
	if (r >= 0) {
		memcpy(source->pools, netconf.pools, sizeof source->pools);
		own_claim(source);
	} else {
		own_failed(source, &err);
	}
	flat_arena_free(&arena);
}

static void own_start(struct flat_source *source)
{
	const struct flat_etcd_range range = { .key = source->config_key };
	struct flat_err err = { 0 };
	if (!source->conf->cluster.flannel || source->held || source->conf->pod_cidr_count) {
		own_claim(source);
		return;
	}
	source->step = FLAT_STEP_CONFIG;
	if (flat_etcd_range(source->etcd, &range, config_done, source, &err) < 0)
		own_failed(source, &err);
}

/* ---- keeping it --------------------------------------------------------------------------------
 */

/* Another node has our subnet: say so, and take another one, unless this one is fixed. */
static void own_lost(struct flat_source *source)
{
	source->held = false;
	source->rival = false;
}

/* Does our record stand as we left it? False: it is being seen to, later. */
static bool own_verify(struct flat_source *source)
{
	struct flat_etcd_entry *entry = flat_etcd_table_find(&source->table, source->key);
	if (!entry) {
		flat_say(FLAT_LEVEL_WARN, "this node's record is gone from etcd: it is put back",
			 "key", source->key, NULL);
		own_lost(source);
	} else if (entry->mod_revision != source->mod_revision &&
		   !flat_etcd_is_own(source, entry)) {
		own_lost(source); /* who has it is said where another one is chosen */
	} else if (entry->mod_revision != source->mod_revision) {
		char address[FLAT_IP_TEXT] = "no address";
		struct flat_err err = { 0 };
		for (int f = FLAT_FAMILIES - 1; f >= 0; f--)
			if (entry->addresses[f].family)
				flat_ip_text(&entry->addresses[f], address);
		flat_fail(&err, FLAT_CODE_IN_USE, 0,
			  "somebody else (%s) writes the record of node '%s'", address,
			  source->conf->node_name);
		flat_detail(&err,
			    "two nodes of one name, or two agents on this one: give each node "
			    "a name of its own (--node-name), and stop all but one agent");
		source->mod_revision = entry->mod_revision;
		source->value_hash = entry->value_hash;
		if (source->own_backoff.tries < 3)
			source->own_backoff.tries = 3;
		own_failed(source, &err);
		return false;
	} else if (source->rival) {
		const struct flat_etcd_entry *rival =
			flat_etcd_find_rival(source, source->cidrs, FLAT_FAMILIES);
		if (rival && rival->create_revision < source->create_revision)
			own_lost(source);
		source->rival = false;
	}
	return true;
}

void flat_etcd_own_kick(struct flat_source *source)
{
	if (!source->published || source->hearing != FLAT_HEARING_LIVE ||
	    source->step != FLAT_STEP_NONE || ev_is_active(&source->own_timer))
		return;
	if (source->held && !own_verify(source))
		return;
	if (source->held) {
		struct flat_node node = own_node(source, source->cidrs);
		flat_auto_free char *value =
			flat_record_print(&node, source->self.backend, source->conf->cluster.vni);
		if (value && flat_hash(1, value, strlen(value)) == source->value_hash &&
		    (source->lease || source->reserved))
			return;
	}
	own_start(source);
}

void flat_etcd_on_own_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct flat_source *source = timer->data;
	(void)loop;
	(void)revents;
	source->tries = 0;
	flat_etcd_own_kick(source);
}
