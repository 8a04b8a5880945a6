// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation
 *
 * Two things go on side by side. Hearing: a list of all records in pages, all of one revision R;
 * then a watch from R+1 on, which is taken up again where it stopped; if that is forgotten
 * (compacted), or the store is another one than before, list again. Having: this node's own record,
 * on a lease of its own that is kept alive. The first try of either is quiet: a member that
 * restarts, or a leader that moves, is nothing to say a word about.
 *
 * A record is claimed by one transaction: no key may begin with our IPv4 subnet (so that one with
 * both families and one without collide), or our own record must stand as we know it. Subnets of
 * different lengths, or IPv6 subnets that flannel pairs in another way, can still overlap: then the
 * older record wins, as it does when nodes are judged, and the younger node takes another subnet.
 *
 * In which order a subnet is looked for: what this node had in this life; the record with its name
 * (flannel: with its address); what it remembers from an earlier life; a free one. The same subnet
 * comes back as long as nobody else has it.
 */
#include "source.h"

#include "etcd-record.h"
#include "etcd-table.h"
#include "etcd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	PAGE = 256,	    /* records in one piece of a list */
	ALIVE_SECONDS = 60, /* at most, between two signs of life from etcd */
	ALIVE_AGAIN = 2,    /* after one that was missing */
	TRIES_AT_ONCE = 8,  /* at a subnet, against others who want one at the same moment */
	TTL_SLACK = 10,	    /* etcd rounds short leases up */
};

enum hearing {
	HEARING_NOTHING, /* the retry timer runs */
	HEARING_LIST,
	HEARING_WATCH, /* asked for */
	HEARING_LIVE,
};

enum step {
	STEP_NONE,
	STEP_CONFIG, /* flannel's configuration is read */
	STEP_REUSE,  /* is the lease of an earlier life still there? */
	STEP_GRANT,
	STEP_PUT,
};

struct flat_source {
	struct ev_loop *loop;
	const struct flat_agent_conf *conf;
	const struct flat_listener *listener;
	struct flat_etcd *etcd;
	char *folder;	  /* PREFIX/subnets/ */
	char *config_key; /* PREFIX/config */
	struct flat_etcd_table table;

	enum hearing hearing;
	ev_timer hear_timer;
	struct flat_backoff hear_backoff;
	uint64_t list;	       /* number of the last list */
	bool listed;	       /* it was whole, and the watch can go on from seen + 1 */
	bool list_again;       /* the table cannot tell what is true: list */
	int64_t list_revision; /* 0: no page of this list has come yet */
	int64_t seen;
	char cluster_id[24];
	struct flat_err hear_trouble; /* code 0: none */

	bool published;
	struct flat_self self;
	struct flat_subnet_pool pools[FLAT_FAMILIES];
	enum step step;
	ev_timer own_timer; /* the next try */
	struct flat_backoff own_backoff;
	unsigned tries;
	struct flat_err own_trouble; /* code 0: none */
	bool crowded; /* others have what this node could have: a record that goes may end it */
	struct flat_remark remark;

	/* What this node has, or had and wants back (held false). */
	bool held;
	struct flat_prefix cidrs[FLAT_FAMILIES];
	char key[FLAT_RECORD_KEY];
	int64_t create_revision, mod_revision;
	uint64_t value_hash;
	int64_t lease; /* 0: none, or not known whether it lives */
	bool reserved; /* the record is on no lease: an administrator put it there for this node */
	bool rival;    /* an older record with the same addresses has come up */

	/* What is being put. */
	struct {
		struct flat_prefix cidrs[FLAT_FAMILIES];
		char key[FLAT_RECORD_KEY];
		char *value;
		char *replaces; /* key below folder; NULL: none */
		int64_t replaces_revision;
		bool unused; /* no other key may begin with its first subnet */
	} put;

	ev_timer alive_timer;
	bool alive_asked;

	uint64_t told;	     /* hash of the last word about the connection */
	uint64_t told_fault; /* and about the want of a subnet; 0: none */
};

static void hear(struct flat_source *source);
static void own_kick(struct flat_source *source);
static void own_start(struct flat_source *source);
static void own_claim(struct flat_source *source);

/* ---- what is told ------------------------------------------------------------------------------
 */

/* Whether all is well, as the listener shall know it; said when it changes. */
static void tell_state(struct flat_source *source)
{
	const struct flat_err *trouble = source->hear_trouble.code ? &source->hear_trouble : NULL;
	char why[sizeof trouble->msg + sizeof trouble->details + 64] = "";
	bool connected = !trouble && source->hearing == HEARING_LIVE;
	if (!trouble && !connected)
		return; /* on its way, and nothing is known to be wrong */
	if (trouble)
		snprintf(why, sizeof why, "%s%s%s; it is tried again", trouble->msg,
			 trouble->details[0] ? " - " : "", trouble->details);
	uint64_t hash = flat_hash(1, why, strlen(why));
	if (hash == source->told)
		return;
	source->told = hash;
	source->listener->state(source->listener->arg, connected, connected ? NULL : why);
}

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

static void tell_self(struct flat_source *source)
{
	struct flat_node node = own_node(source, source->cidrs);
	source->told_fault = 0;
	source->listener->node(source->listener->arg, &node, NULL);
}

/* Why this node has no subnet: told as what is wrong with its record. */
static void tell_fault(struct flat_source *source)
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

/* ---- records -----------------------------------------------------------------------------------
 */

static bool same_name(const struct flat_source *source, const char *name)
{
	return !strcmp(name, source->conf->node_name);
}

/* Is it this node's? With flannel, a record without a name is by its address: so a node keeps its
 * subnet when flanneld goes and flatnetd comes. */
static bool is_own(const struct flat_source *source, const struct flat_etcd_entry *entry)
{
	if (entry->named)
		return same_name(source, entry->name);
	if (!source->conf->cluster.flannel || !source->published)
		return false;
	for (int f = 0; f < FLAT_FAMILIES; f++) /* by the first address that both have */
		if (entry->addresses[f].family && source->self.node.addresses[f].family)
			return flat_ip_equal(&entry->addresses[f], &source->self.node.addresses[f]);
	return false;
}

static bool overlaps(const struct flat_prefix *cidr, const struct flat_etcd_entry *entry)
{
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (cidr->ip.family && cidr->ip.family == entry->cidrs[f].ip.family &&
		    flat_prefix_overlaps(cidr, &entry->cidrs[f]))
			return true;
	return false;
}

/* Can this record be believed to take addresses from others? One that reaches beyond the flat
 * network is refused by every node. */
static bool counts(const struct flat_source *source, const struct flat_etcd_entry *entry)
{
	const struct flat_cluster_conf *cluster = &source->conf->cluster;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_prefix *cidr = &entry->cidrs[f];
		bool inside = !cidr->ip.family;
		for (size_t i = 0; i < cluster->cidr_count; i++)
			inside = inside || (cluster->cidrs[i].ip.family == cidr->ip.family &&
					    cluster->cidrs[i].len <= cidr->len &&
					    flat_prefix_contains(&cluster->cidrs[i], &cidr->ip));
		if (!inside)
			return false;
	}
	return true;
}

/* The oldest record of another node that has one of these addresses. */
static const struct flat_etcd_entry *find_rival(const struct flat_source *source,
						const struct flat_prefix *cidrs, size_t count)
{
	const struct flat_etcd_entry *found = NULL, *entry = NULL;
	while ((entry = flat_etcd_table_next(&source->table, entry))) {
		bool hit = false;
		for (size_t i = 0; i < count; i++)
			hit = hit || overlaps(&cidrs[i], entry);
		if (hit && counts(source, entry) && !is_own(source, entry) &&
		    (!found || entry->create_revision < found->create_revision))
			found = entry;
	}
	return found;
}

/* Takes an entry away. Its node is gone, unless it has another record. */
static void drop_entry(struct flat_source *source, struct flat_etcd_entry *entry)
{
	char name[FLAT_NODE_NAME_MAX + 1];
	bool told = flat_etcd_table_named(&source->table, entry->name, 0) == entry;
	bool own = entry->named && is_own(source, entry);
	snprintf(name, sizeof name, "%s", entry->name);
	flat_etcd_table_remove(&source->table, entry);
	if (!told || own || source->hearing == HEARING_LIST)
		return;
	if (flat_etcd_table_named(&source->table, name, 0))
		source->list_again = true; /* what the other one says is not remembered */
	else
		source->listener->gone(source->listener->arg, name);
}

/* The key of a record below the folder; NULL: not a record. */
static const char *key_of(const struct flat_source *source, const struct flat_etcd_kv *kv)
{
	size_t len = strlen(source->folder);
	return !strncmp(kv->key, source->folder, len) && kv->key[len] ? kv->key + len : NULL;
}

static void record_gone(struct flat_source *source, const char *key, int64_t revision)
{
	struct flat_etcd_entry *entry = flat_etcd_table_find(&source->table, key);
	if (!entry || entry->mod_revision > revision)
		return;
	drop_entry(source, entry);
	if (source->crowded) { /* now there may be room: do not wait */
		source->crowded = false;
		ev_timer_stop(source->loop, &source->own_timer);
	}
}

/* A record as it stands now. */
static void record_put(struct flat_source *source, const struct flat_etcd_kv *kv)
{
	const char *key = key_of(source, kv);
	bool listing = source->hearing == HEARING_LIST;
	struct flat_arena arena = { 0 };
	struct flat_record record;
	struct flat_err err = { 0 };
	if (!key)
		return;
	struct flat_etcd_entry *entry = flat_etcd_table_find(&source->table, key);
	if (entry && !listing && entry->mod_revision >= kv->mod_revision)
		return;
	int r = flat_record_parse(key, kv->value, kv->value_len, &arena, &record, &err);
	if (r < 0 && err.code == FLAT_CODE_INTERNAL) {
		source->list_again = true;
		flat_arena_free(&arena);
		return;
	}
	if (entry && strcmp(entry->name, record.node.name) != 0) {
		drop_entry(source, entry);
		entry = NULL;
	}
	if (!entry)
		entry = flat_etcd_table_add(&source->table, key, record.node.name);
	if (!entry) {
		source->list_again = true;
		flat_arena_free(&arena);
		return;
	}
	entry->named = record.named;
	entry->create_revision = kv->create_revision;
	entry->mod_revision = kv->mod_revision;
	entry->lease = kv->lease;
	entry->list = source->list;
	entry->value_hash = flat_hash(1, kv->value, kv->value_len);
	memcpy(entry->cidrs, record.cidrs, sizeof entry->cidrs);
	memcpy(entry->addresses, record.node.addresses, sizeof entry->addresses);
	bool own = is_own(source, entry);
	if (source->held && !own && entry->create_revision < source->create_revision)
		for (int f = 0; f < FLAT_FAMILIES; f++)
			source->rival = source->rival || overlaps(&source->cidrs[f], entry);
	record.node.since = (uint64_t)kv->create_revision;
	/* What this node has is told when it has it; until then, what it had. */
	if (!(own && source->held) && flat_etcd_table_named(&source->table, record.node.name,
							    listing ? source->list : 0) == entry)
		source->listener->node(source->listener->arg, &record.node, r < 0 ? err.msg : NULL);
	flat_arena_free(&arena);
}

/* ---- hearing -----------------------------------------------------------------------------------
 */

static void hear_later(struct flat_source *source, double seconds)
{
	flat_etcd_unwatch(source->etcd);
	source->hearing = HEARING_NOTHING;
	ev_timer_stop(source->loop, &source->hear_timer);
	ev_timer_set(&source->hear_timer, seconds, 0.);
	ev_timer_start(source->loop, &source->hear_timer);
}

static void hear_failed(struct flat_source *source, const struct flat_etcd_failure *failure)
{
	if (failure->trouble == FLAT_ETCD_COMPACTED) {
		flat_say(FLAT_LEVEL_INFO, "etcd has forgotten what came next: listing again",
			 "endpoint", flat_etcd_endpoint(source->etcd), NULL);
		source->listed = false;
		hear_later(source, flat_backoff_next(&source->hear_backoff, 0.1, 10));
		return;
	}
	/* The first time, the next endpoint may well do. */
	if (source->hear_backoff.tries)
		source->hear_trouble = failure->err;
	hear_later(source, flat_backoff_next(&source->hear_backoff, 0.2, 15));
	tell_state(source);
}

static void hear_no_memory(struct flat_source *source, const struct flat_err *err)
{
	struct flat_etcd_failure failure = { FLAT_ETCD_FAULT, *err };
	hear_failed(source, &failure);
}

static void watch_created(void *arg, const struct flat_etcd_answer *answer)
{
	struct flat_source *source = arg;
	/* A store that was made anew, or put back from a copy, knows nothing of our revision. */
	if (answer->revision < source->seen ||
	    strncmp(answer->cluster_id, source->cluster_id, sizeof source->cluster_id - 1) != 0) {
		flat_say(FLAT_LEVEL_WARN, "etcd is not the store it was: listing again", "endpoint",
			 flat_etcd_endpoint(source->etcd), NULL);
		source->listed = false;
		hear_later(source, flat_backoff_next(&source->hear_backoff, 0.1, 10));
		return;
	}
	source->hearing = HEARING_LIVE;
	source->hear_backoff.tries = 0;
	source->hear_trouble.code = 0;
	tell_state(source);
	own_kick(source);
}

static void watch_events(void *arg, const struct flat_etcd_answer *answer)
{
	struct flat_source *source = arg;
	int64_t seen = answer->revision;
	for (size_t i = 0; i < answer->kv_count; i++) {
		const struct flat_etcd_kv *kv = &answer->kvs[i];
		seen = kv->mod_revision;
		if (!kv->deleted)
			record_put(source, kv);
		else if (key_of(source, kv))
			record_gone(source, key_of(source, kv), kv->mod_revision);
	}
	if (seen > source->seen)
		source->seen = seen;
	if (source->list_again) {
		source->listed = false;
		hear_later(source, 0.);
		return;
	}
	own_kick(source);
}

static void watch_ended(void *arg, const struct flat_etcd_failure *failure)
{
	hear_failed(arg, failure);
}

static void hear_watch(struct flat_source *source)
{
	const struct flat_etcd_watcher watcher = {
		.created = watch_created,
		.events = watch_events,
		.ended = watch_ended,
		.arg = source,
	};
	struct flat_err err = { 0 };
	source->hearing = HEARING_WATCH;
	if (flat_etcd_watch(source->etcd, source->folder, source->seen + 1, &watcher, &err) < 0)
		hear_no_memory(source, &err);
}

/* What the list did not have is gone. */
static void drop_unlisted(struct flat_source *source)
{
	struct flat_etcd_entry *last = NULL, *entry;
	while ((entry = flat_etcd_table_next(&source->table, last))) {
		if (entry->list == source->list)
			last = entry;
		else
			flat_etcd_table_remove(&source->table, entry);
	}
}

static void list_page(struct flat_source *source, const char *after, size_t after_len);

static void list_done(void *arg, const struct flat_etcd_answer *answer,
		      const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	if (failure) {
		hear_failed(source, failure);
		return;
	}
	if (!source->list_revision) {
		source->list++;
		source->list_revision = answer->revision;
		snprintf(source->cluster_id, sizeof source->cluster_id, "%s", answer->cluster_id);
		source->listener->begin(source->listener->arg);
	}
	for (size_t i = 0; i < answer->kv_count; i++)
		record_put(source, &answer->kvs[i]);
	if (answer->more && answer->after) {
		list_page(source, answer->after, answer->after_len);
		return;
	}
	drop_unlisted(source);
	source->told_fault = 0;
	if (source->held)
		tell_self(source);
	else if (source->own_trouble.code)
		tell_fault(source);
	source->seen = source->list_revision;
	source->listed = !source->list_again;
	source->list_again = false;
	source->listener->synced(source->listener->arg);
	hear_watch(source);
}

static void list_page(struct flat_source *source, const char *after, size_t after_len)
{
	const struct flat_etcd_range range = {
		.key = source->folder,
		.prefix = true,
		.after = after,
		.after_len = after_len,
		.limit = PAGE,
		.revision = source->list_revision,
	};
	struct flat_err err = { 0 };
	source->hearing = HEARING_LIST;
	if (flat_etcd_range(source->etcd, &range, list_done, source, &err) < 0)
		hear_no_memory(source, &err);
}

static void hear(struct flat_source *source)
{
	if (source->listed) {
		hear_watch(source);
	} else {
		source->list_revision = 0;
		list_page(source, NULL, 0);
	}
}

static void on_hear_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	hear(timer->data);
}

/* ---- having ------------------------------------------------------------------------------------
 */

static void own_later(struct flat_source *source, double seconds)
{
	source->step = STEP_NONE;
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
		tell_fault(source);
	own_later(source, flat_backoff_next(&source->own_backoff, 1, 30));
}

/* A call to etcd failed. */
static void own_unheard(struct flat_source *source, const struct flat_etcd_failure *failure)
{
	source->step = STEP_NONE;
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
	source->step = STEP_NONE;
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
	tell_self(source);
	own_kick(source); /* what came in the meantime */
}

static struct flat_etcd_entry *own_entry(const struct flat_source *source)
{
	struct flat_etcd_entry *found = NULL, *entry = NULL;
	while ((entry = flat_etcd_table_next(&source->table, entry)))
		if (is_own(source, entry) &&
		    (!found || entry->create_revision > found->create_revision))
			found = entry;
	return found;
}

/* ---- which subnet ------------------------------------------------------------------------------
 */

static int taken_by(const struct flat_prefix *cidr, const struct flat_etcd_entry *rival,
		    struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT], address[FLAT_IP_TEXT] = "no address";
	for (int f = FLAT_FAMILIES - 1; f >= 0; f--)
		if (rival->addresses[f].family)
			flat_ip_text(&rival->addresses[f], address);
	return flat_fail(err, FLAT_CODE_IN_USE, 0,
			 "the subnet %s of this node is taken by node '%s' (%s, key %s)",
			 flat_prefix_text(cidr, text), rival->name, address, rival->key);
}

/* podCIDRs of the configuration are not for us to choose. */
static int choose_fixed(const struct flat_source *source, struct flat_prefix *ret_cidrs,
			struct flat_err *err)
{
	const struct flat_agent_conf *conf = source->conf;
	for (size_t i = 0; i < conf->pod_cidr_count; i++) {
		const struct flat_prefix *cidr = &conf->pod_cidrs[i];
		const struct flat_etcd_entry *rival = find_rival(source, cidr, 1);
		if (rival) {
			taken_by(cidr, rival, err);
			return flat_detail(err, "give one of the two nodes other podCIDRs, or "
						"delete the record if that node is gone");
		}
		ret_cidrs[flat_family_index(cidr->ip.family)] = *cidr;
	}
	return 0;
}

/* Keeps of this candidate what fits and is free. loud: it was ours until now. */
static void keep_candidate(const struct flat_source *source, const struct flat_prefix *cidrs,
			   size_t count, bool loud, struct flat_prefix *keep)
{
	for (size_t i = 0; i < count; i++) {
		if (!cidrs[i].ip.family)
			continue;
		int f = flat_family_index(cidrs[i].ip.family);
		char text[FLAT_PREFIX_TEXT];
		if (keep[f].ip.family)
			continue;
		if (!flat_subnets_fits(&source->pools[f], &cidrs[i])) {
			if (loud && source->pools[f].net.ip.family)
				flat_say(
					FLAT_LEVEL_WARN,
					"the subnet of this node is none of those to hand out now: "
					"another one is taken",
					"podCIDR", flat_prefix_text(&cidrs[i], text), NULL);
			continue;
		}
		const struct flat_etcd_entry *rival = find_rival(source, &cidrs[i], 1);
		if (!rival) {
			keep[f] = cidrs[i];
			continue;
		}
		struct flat_err err = { 0 };
		taken_by(&cidrs[i], rival, &err);
		flat_detail(&err, "another one is taken; pods that have addresses of the old one "
				  "are not reached any more: delete them");
		if (loud)
			flat_say_error(FLAT_LEVEL_ERROR, "this node has lost its subnet", &err);
	}
}

static int choose_free(const struct flat_source *source, const struct flat_etcd_entry *own,
		       struct flat_prefix *ret_cidrs, struct flat_err *err)
{
	const char *name = source->conf->node_name;
	struct flat_prefix keep[FLAT_FAMILIES] = { 0 };
	flat_auto_free struct flat_prefix *taken =
		calloc(source->table.count * FLAT_FAMILIES + 1, sizeof *taken);
	const struct flat_etcd_entry *entry = NULL;
	size_t count = 0;
	if (!taken)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "choose a subnet");
	while ((entry = flat_etcd_table_next(&source->table, entry))) {
		if (is_own(source, entry) || !counts(source, entry))
			continue;
		for (int f = 0; f < FLAT_FAMILIES; f++)
			if (entry->cidrs[f].ip.family)
				taken[count++] = entry->cidrs[f];
	}
	keep_candidate(source, source->cidrs, FLAT_FAMILIES, true, keep);
	if (own)
		keep_candidate(source, own->cidrs, FLAT_FAMILIES,
			       !source->cidrs[0].ip.family && !source->cidrs[1].ip.family, keep);
	keep_candidate(source, source->self.node.pod_cidrs, source->self.node.pod_cidr_count,
		       !own && !source->cidrs[0].ip.family && !source->cidrs[1].ip.family, keep);
	return flat_subnets_choose(source->pools, keep, taken, count,
				   flat_hash(0, name, strlen(name)), ret_cidrs, err);
}

/* ---- claiming it -------------------------------------------------------------------------------
 */

static void put_free(struct flat_source *source)
{
	free(source->put.value);
	free(source->put.replaces);
	source->put.value = source->put.replaces = NULL;
}

static void put_done(void *arg, const struct flat_etcd_answer *answer,
		     const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	source->step = STEP_NONE;
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
			const char *key = key_of(source, &answer->kvs[i]);
			stands = stands || (replaces && key && !strcmp(key, replaces));
			record_put(source, &answer->kvs[i]);
		}
		if (replaces && !stands)
			record_gone(source, replaces, answer->revision);
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
		record_gone(source, replaces, answer->revision);
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
	record_put(source, &kv);
	source->held = was_held;
	char taken[FLAT_RECORD_KEY];
	snprintf(taken, sizeof taken, "%s", key);
	put_free(source);
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
	source->step = STEP_PUT;
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
	source->step = STEP_NONE;
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
	source->step = STEP_NONE;
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
	source->step = STEP_GRANT;
	if (flat_etcd_grant(source->etcd, source->conf->etcd.lease_ttl, grant_done, source, &err) <
	    0)
		own_failed(source, &err);
}

/* A lease for the record: the one that it has from an earlier life, or a new one. */
static void own_lease(struct flat_source *source, int64_t former)
{
	struct flat_err err = { 0 };
	int r;
	source->step = former ? STEP_REUSE : STEP_GRANT;
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
	struct flat_etcd_entry *own = own_entry(source);
	struct flat_err err = { 0 };
	if (source->held)
		memcpy(cidrs, source->cidrs, sizeof cidrs);
	else if ((source->conf->pod_cidr_count ? choose_fixed(source, cidrs, &err)
					       : choose_free(source, own, cidrs, &err)) < 0) {
		own_failed(source, &err);
		return;
	}
	source->reserved = own && !own->lease;
	if (!source->reserved && !source->lease) {
		own_lease(source, own ? own->lease : 0);
		return;
	}
	struct flat_node node = own_node(source, cidrs);
	put_free(source);
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

/* ---- flannel's configuration -------------------------------------------------------------------
 */

static bool in_cluster(const struct flat_cluster_conf *cluster, const struct flat_prefix *net)
{
	for (size_t i = 0; i < cluster->cidr_count; i++)
		if (cluster->cidrs[i].ip.family == net->ip.family &&
		    cluster->cidrs[i].len <= net->len &&
		    flat_prefix_contains(&cluster->cidrs[i], &net->ip))
			return true;
	return false;
}

/* What flannel's nodes go by must be what this one goes by. */
static int check_netconf(const struct flat_source *source, const struct flat_netconf *netconf,
			 struct flat_err *err)
{
	const struct flat_cluster_conf *cluster = &source->conf->cluster;
	char net[FLAT_PREFIX_TEXT];
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		const struct flat_prefix *network = &netconf->pools[f].net;
		if (!network->ip.family || in_cluster(cluster, network))
			continue;
		flat_fail(err, FLAT_CODE_CONFIG, 0, "flannel's network %s is not this node's",
			  flat_prefix_text(network, net));
		return flat_detail(err, "set clusterCIDR to %s", flat_prefix_text(network, net));
	}
	bool vxlan = !strcmp(netconf->backend, "vxlan");
	if (!vxlan && strcmp(netconf->backend, "host-gw") != 0) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "flannel's backend is neither vxlan nor host-gw");
		return flat_detail(err, "no other one is spoken here: \"Backend\": "
					"{\"Type\": \"vxlan\"}");
	}
	if (vxlan != (source->self.backend != FLAT_BACKEND_DIRECT)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "flannel's backend is %s, this node's is not",
			  netconf->backend);
		return flat_detail(err, "set backend to %s", vxlan ? "vxlan" : "direct");
	}
	if (vxlan && (netconf->vni != cluster->vni || netconf->port != cluster->port)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "flannel's VXLAN has VNI %u and port %u, this node's %u and %u",
			  netconf->vni, netconf->port, cluster->vni, cluster->port);
		return flat_detail(err, "set vxlan.vni to %u and vxlan.port to %u", netconf->vni,
				   netconf->port);
	}
	return 0;
}

static void config_done(void *arg, const struct flat_etcd_answer *answer,
			const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	struct flat_arena arena = { 0 };
	struct flat_netconf netconf;
	struct flat_err err = { 0 };
	int r = 0;
	source->step = STEP_NONE;
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
			r = check_netconf(source, &netconf, &err);
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
	source->step = STEP_CONFIG;
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
	} else if (entry->mod_revision != source->mod_revision && !is_own(source, entry)) {
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
			find_rival(source, source->cidrs, FLAT_FAMILIES);
		if (rival && rival->create_revision < source->create_revision)
			own_lost(source);
		source->rival = false;
	}
	return true;
}

/* Something has changed: is there anything to do about our record? */
static void own_kick(struct flat_source *source)
{
	if (!source->published || source->hearing != HEARING_LIVE || source->step != STEP_NONE ||
	    ev_is_active(&source->own_timer))
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

static void on_own_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct flat_source *source = timer->data;
	(void)loop;
	(void)revents;
	source->tries = 0;
	own_kick(source);
}

/* ---- signs of life -----------------------------------------------------------------------------
 */

static double alive_seconds(const struct flat_source *source)
{
	double third = source->conf->etcd.lease_ttl / 3.;
	return third < 1 ? 1 : third < ALIVE_SECONDS ? third : ALIVE_SECONDS;
}

static void alive_later(struct flat_source *source, double seconds)
{
	ev_timer_stop(source->loop, &source->alive_timer);
	ev_timer_set(&source->alive_timer, seconds, 0.);
	ev_timer_start(source->loop, &source->alive_timer);
}

static void alive_done(void *arg, const struct flat_etcd_answer *answer,
		       const struct flat_etcd_failure *failure)
{
	struct flat_source *source = arg;
	source->alive_asked = false;
	if (failure && failure->trouble != FLAT_ETCD_NO_LEASE) {
		/* The watch may well be silent for the same reason: take it up elsewhere. */
		double soon = alive_seconds(source);
		alive_later(source, soon < ALIVE_AGAIN ? soon : ALIVE_AGAIN);
		if (source->hearing == HEARING_LIVE)
			hear_failed(source, failure);
		return;
	}
	alive_later(source, alive_seconds(source));
	if (source->lease && (failure || !answer->ttl)) {
		flat_say(FLAT_LEVEL_WARN,
			 "the lease of this node's subnet ran out: it is taken again", NULL);
		source->lease = 0;
		own_kick(source);
	}
}

/* Keeps the lease; without one, asks whether anybody is there. Both need a leader, and so tell of a
 * member that is cut off from the others, whose watches are silent. */
static void on_alive_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct flat_source *source = timer->data;
	const struct flat_etcd_range range = { .key = source->config_key, .limit = 1 };
	struct flat_err err = { 0 };
	int r;
	(void)loop;
	(void)revents;
	alive_later(source, alive_seconds(source));
	if (source->alive_asked || (!source->lease && source->hearing != HEARING_LIVE))
		return;
	if (source->lease)
		r = flat_etcd_keepalive(source->etcd, source->lease, alive_done, source, &err);
	else
		r = flat_etcd_range(source->etcd, &range, alive_done, source, &err);
	source->alive_asked = r >= 0;
}

/* ---- the source --------------------------------------------------------------------------------
 */

/* What is handed out when we decide: of each family, the network that has the bounds, else the
 * first. */
static int native_pools(struct flat_source *source, struct flat_err *err)
{
	const struct flat_agent_conf *conf = source->conf;
	for (int f = 0; f < FLAT_FAMILIES; f++) {
		struct flat_subnet_pool *pool = &source->pools[f];
		pool->len = conf->etcd.subnet_len[f];
		pool->min = conf->etcd.subnet_min[f];
		pool->max = conf->etcd.subnet_max[f];
		const struct flat_ip *bound = pool->min.family ? &pool->min : &pool->max;
		for (size_t i = 0; i < conf->cluster.cidr_count; i++) {
			const struct flat_prefix *cidr = &conf->cluster.cidrs[i];
			if (flat_family_index(cidr->ip.family) != f)
				continue;
			if (!pool->net.ip.family ||
			    (bound->family && !flat_prefix_contains(&pool->net, bound)))
				pool->net = *cidr;
		}
		int r = flat_subnets_check(pool, err);
		if (r < 0)
			return flat_wrap(err, f == FLAT_V4 ? "etcd.subnetLen, subnetMin, subnetMax"
							   : "etcd.ipv6SubnetLen, ipv6SubnetMin, "
							     "ipv6SubnetMax");
	}
	return 0;
}

static int fixed_subnets(const struct flat_agent_conf *conf, struct flat_err *err)
{
	size_t count[FLAT_FAMILIES] = { 0 };
	for (size_t i = 0; i < conf->pod_cidr_count; i++)
		if (++count[flat_family_index(conf->pod_cidrs[i].ip.family)] > 1)
			return flat_fail(err, FLAT_CODE_CONFIG, 0,
					 "podCIDRs: with source etcd a node has one subnet of each "
					 "IP version");
	return 0;
}

static void source_close(struct flat_source *source)
{
	if (!source)
		return;
	ev_timer_stop(source->loop, &source->hear_timer);
	ev_timer_stop(source->loop, &source->own_timer);
	ev_timer_stop(source->loop, &source->alive_timer);
	flat_etcd_close(source->etcd);
	flat_etcd_table_clear(&source->table);
	put_free(source);
	free(source->folder);
	free(source->config_key);
	free(source);
}

static int source_open(struct ev_loop *loop, const struct flat_agent_conf *conf,
		       const struct flat_listener *listener, struct flat_source **ret_source,
		       struct flat_err *err)
{
	struct flat_source *source = calloc(1, sizeof *source);
	if (!source)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "open the source");
	source->loop = loop;
	source->conf = conf;
	source->listener = listener;
	ev_timer_init(&source->hear_timer, on_hear_timer, 0., 0.);
	ev_timer_init(&source->own_timer, on_own_timer, 0., 0.);
	ev_timer_init(&source->alive_timer, on_alive_timer, alive_seconds(source), 0.);
	source->hear_timer.data = source->own_timer.data = source->alive_timer.data = source;
	int r = 0;
	if (asprintf(&source->folder, "%s/subnets/", conf->etcd.prefix) < 0)
		source->folder = NULL;
	if (asprintf(&source->config_key, "%s/config", conf->etcd.prefix) < 0)
		source->config_key = NULL;
	if (!source->folder || !source->config_key)
		r = flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "open the source");
	if (r >= 0)
		r = fixed_subnets(conf, err);
	if (r >= 0 && !conf->pod_cidr_count && !conf->cluster.flannel)
		r = native_pools(source, err);
	if (r >= 0)
		r = flat_etcd_open(loop, conf, &source->etcd, err);
	if (r < 0) {
		source_close(source);
		return r;
	}
	ev_timer_start(loop,
		       &source->hear_timer); /* at once, but nothing is told before we return */
	ev_timer_start(loop, &source->alive_timer);
	*ret_source = source;
	return 0;
}

static void source_publish(struct flat_source *source, const struct flat_self *self)
{
	source->self = *self;
	source->self.node.name = source->conf->node_name;
	/* Nobody can reach a node without an address: it is no node yet. */
	source->published =
		self->node.addresses[FLAT_V4].family || self->node.addresses[FLAT_V6].family;
	own_kick(source);
}

const struct flat_source_type flat_source_etcd = {
	.name = "etcd",
	.open = source_open,
	.publish = source_publish,
	.close = source_close,
};
