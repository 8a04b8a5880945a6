// SPDX-License-Identifier: Apache-2.0
/*
 * The CNI commands of types flatnet and bridge, over the model: who gets the addresses, who applies
 * them, who takes them back.
 */
#include "verbs.h"

#include <flatnet/state.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- addresses: ours, another program's, or none -----------------------------------------------
 */

/* Where the addresses of one ADD come from, and how they go back. */
struct source {
	const struct flat_call *call;
	const struct flat_conf *conf;
	struct flat_store *store;
	struct flat_lease lease;
	struct flat_ipam_witness witness;
	bool delegated;
};

static int lease_to_result(struct flat_request *req, const struct flat_ipam_conf *conf,
			   const struct flat_lease *lease, struct flat_result *ret_result,
			   struct flat_err *err)
{
	struct flat_result_ip *ips =
		flat_arena_alloc(&req->arena, (lease->count + 1) * sizeof *ips);
	if (!ips)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "result of the IPAM");
	for (size_t i = 0; i < lease->count; i++)
		ips[i] =
			(struct flat_result_ip){ lease->ips[i].address, lease->ips[i].gateway, -1 };
	*ret_result = (struct flat_result){
		.ips = ips,
		.ip_count = lease->count,
		.routes = conf->routes.items,
		.route_count = conf->routes.count,
		.dns = conf->dns,
	};
	return 0;
}

static int source_acquire(struct source *s, struct flat_net *net, struct flat_result *ret_result,
			  struct flat_err *err)
{
	struct flat_request *req = s->call->req;
	int r;
	*ret_result = (struct flat_result){ 0 };
	switch (s->conf->ipam_kind) {
	case FLAT_IPAM_NONE:
		return 0;
	case FLAT_IPAM_FOREIGN:
		r = flat_delegate_run(req, req->ipam_type, FLAT_CMD_ADD, ret_result, err);
		s->delegated = r >= 0; /* a failed one has had its DEL */
		return r < 0 ? flat_wrap(err, "ipam '%.64s'", req->ipam_type) : 0;
	case FLAT_IPAM_OWN:
		break;
	}
	r = flat_store_open(&s->conf->ipam, req->name, true, s->call->log, &s->store, err);
	if (r >= 0)
		r = flat_witness_open(net, req->name, s->conf->gateway_link, true, &s->witness,
				      err);
	if (r >= 0)
		r = flat_store_reserve(s->store, req->container_id, req->ifname, &s->witness,
				       &s->lease, err);
	if (r >= 0)
		r = lease_to_result(req, &s->conf->ipam, &s->lease, ret_result, err);
	return r;
}

/* The way back of a failed ADD. */
static void source_give_back(struct source *s)
{
	struct flat_err e = { 0 };
	if (s->store && s->lease.count)
		flat_lease_release(s->store, &s->lease);
	if (s->delegated &&
	    flat_delegate_run(s->call->req, s->call->req->ipam_type, FLAT_CMD_DEL, NULL, &e) < 0)
		flat_warn(s->call->log, "undo: ipam '%.64s': %s", s->call->req->ipam_type, e.msg);
}

static void source_close(struct source *s)
{
	flat_lease_close(&s->lease);
	flat_store_close(s->store);
	flat_witness_close(&s->witness);
}

/* ---- the pod's namespace -----------------------------------------------------------------------
 */

int flat_call_netns(const struct flat_call *call, int *ret_fd, struct flat_err *err)
{
	const struct flat_request *req = call->req;
	flat_auto_fd fd = -1;
	int r = flat_netns_open(req->netns, &fd, err);
	if (r < 0)
		return r;
	if (!req->netns_override && flat_netns_is_own(fd) > 0) {
		flat_fail(err, FLAT_CODE_NETNS, 0,
			  "CNI_NETNS: '%.128s' is the namespace that the plugin itself runs in",
			  req->netns);
		return flat_detail(
			err,
			"a container needs a network namespace of its own; CNI_NETNS_OVERRIDE=1 allows it");
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* ---- ADD ---------------------------------------------------------------------------------------
 */

static int print_result(const struct flat_call *call, const struct flat_attachment *attachment,
			struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	struct flat_result result;
	int r = flat_plan_result(call->req, attachment, &result, err);
	if (r >= 0)
		r = flat_result_print(&result, call->req->version, &text, err);
	return r < 0 ? r : flat_output_write(call->output_fd, text, err);
}

/* The IPAM will talk over it. */
static int add_link(const struct flat_call *call, struct flat_conf *conf, struct flat_net *net,
		    int netns, struct flat_attachment *attachment, struct flat_applied *applied,
		    struct flat_err *err)
{
	flat_plan_link(call->req, conf, attachment);
	int r = flat_attachment_apply_link(attachment, net, netns, call->log, applied, err);
	conf->mac = attachment->pod_mac; /* what the others have seen stays */
	conf->has_mac = true;
	return r;
}

int flat_verb_add(const struct flat_call *call, struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_fd netns = -1;
	flat_auto_net *net = NULL;
	struct flat_conf conf;
	struct flat_result lease;
	struct source source = { .call = call, .conf = &conf };
	struct flat_applied applied = FLAT_APPLIED;
	struct flat_attachment *attachment = flat_arena_alloc(&req->arena, sizeof *attachment);
	int r;

	if (!attachment)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "attachment");
	r = flat_call_netns(call, &netns, err);
	if (r >= 0)
		r = flat_net_open(&net, err);
	if (r >= 0)
		r = flat_conf_parse(req, call->defaults, &call->host, net, call->log, &conf, err);
	if (r < 0)
		return r;

	if (conf.ipam_over_link)
		r = add_link(call, &conf, net, netns, attachment, &applied, err);
	if (r >= 0)
		r = source_acquire(&source, net, &lease, err);
	if (r >= 0)
		r = flat_plan_attachment(req, &conf, &lease, attachment, err);
	if (r >= 0)
		r = flat_attachment_apply(attachment, net, netns, call->log, &applied, err);
	if (r >= 0)
		r = print_result(call, attachment, err); /* the point of no return */
	if (r < 0 && conf.ipam_over_link)
		source_give_back(&source);
	if (r < 0)
		flat_attachment_undo(attachment, net, &applied, call->log);
	if (r < 0 && !conf.ipam_over_link)
		source_give_back(&source);
	source_close(&source);
	flat_applied_close(&applied);
	return r;
}

/* ---- DEL ---------------------------------------------------------------------------------------
 */

/* The addresses that prevResult names for our interface: where to look first. */
static size_t hints(const struct flat_request *req, struct flat_ip ret_ips[static FLAT_MAX_LEASE])
{
	size_t n = 0;
	for (size_t i = 0; req->prev_result && i < req->prev_result->ip_count && n < FLAT_MAX_LEASE;
	     i++)
		ret_ips[n++] = req->prev_result->ips[i].address.ip;
	return n;
}

static int release_own(const struct flat_call *call, const struct flat_conf *conf,
		       struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_store *store = NULL;
	struct flat_ip ips[FLAT_MAX_LEASE];
	size_t count = hints(req, ips);
	int r = flat_store_open(&conf->ipam, req->name, false, call->log, &store, err);
	if (r == -ENOENT && !err->code)
		return 0;
	if (r >= 0)
		r = flat_store_release(store, req->container_id, req->ifname, count ? ips : NULL,
				       count, err);
	return r < 0 ? r : 0;
}

static int release_foreign(const struct flat_call *call, struct flat_err *err)
{
	int r = flat_delegate_run(call->req, call->req->ipam_type, FLAT_CMD_DEL, NULL, err);
	return r < 0 ? flat_wrap(err, "ipam '%.64s'", call->req->ipam_type) : 0;
}

/* The host veth as prevResult tells it: the first link of the node that is neither the bridge nor
 * its gateway. NULL: it tells none. */
static const char *told_host_veth(const struct flat_request *req, const struct flat_conf *conf)
{
	const struct flat_result *prev = req->prev_result;
	for (size_t i = 0; prev && i < prev->interface_count; i++) {
		const struct flat_result_interface *link = &prev->interfaces[i];
		if (!(link->sandbox && link->sandbox[0]) && strcmp(link->name, conf->bridge) != 0 &&
		    strcmp(link->name, conf->gateway_link) != 0 && flat_ifname_is_valid(link->name))
			return link->name;
	}
	return NULL;
}

/* 1: there was a link, 0: there was none. */
static int remove_link(const struct flat_call *call, const struct flat_conf *conf,
		       struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_net *net = NULL;
	int r = flat_net_open(&net, err);
	if (r >= 0)
		r = flat_attachment_remove(net, req->name, req->container_id, req->ifname, err);
	if (r == 0 && conf->reference) /* it may be of the time before we had this name */
		r = flat_attachment_remove_reference(net, req, conf->bridge,
						     told_host_veth(req, conf), err);
	return r;
}

int flat_verb_del(const struct flat_call *call, struct flat_err *err)
{
	struct flat_request *req = call->req;
	struct flat_conf conf;
	struct flat_err e = { 0 };
	int removed, r = 0;

	flat_conf_parse_lenient(req, call->defaults, &conf);
	if (conf.ipam_over_link) /* while there is a link to say good-bye by */
		r = release_foreign(call, &e);
	removed = remove_link(call, &conf, err);
	/* the address of a link that is still there would be given out twice: the runtime will come
	 * again */
	if (conf.ipam_kind == FLAT_IPAM_OWN)
		return removed < 0 ? removed : release_own(call, &conf, err);
	if (conf.ipam_kind == FLAT_IPAM_FOREIGN && !conf.ipam_over_link)
		r = release_foreign(call, &e);
	if (r < 0 && removed >= 0)
		*err = e;
	return removed < 0 ? removed : r;
}

/* ---- CHECK -------------------------------------------------------------------------------------
 */

/* Of prevResult, what is ours: the addresses of our interface. */
static int own_part(struct flat_request *req, struct flat_result *ret_lease,
		    struct flat_attachment *ret_seen, struct flat_err *err)
{
	const struct flat_result *prev = req->prev_result;
	int ours = -1;
	if (!prev) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "CHECK needs prevResult: the result of ADD");
		return flat_detail(
			err,
			"libcni passes it from its cache; by hand, add it to the configuration");
	}
	for (size_t i = 0; i < prev->interface_count; i++)
		if (prev->interfaces[i].sandbox && prev->interfaces[i].sandbox[0] &&
		    !strcmp(prev->interfaces[i].name, req->ifname))
			ours = (int)i;
	if (prev->interface_count && ours < 0)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "prevResult names no interface '%s' inside a container",
				 req->ifname);
	if (ours >= 0 && strcmp(prev->interfaces[ours].sandbox, req->netns) != 0)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0,
				 "prevResult has '%s' in '%.128s', CNI_NETNS is '%.128s'",
				 req->ifname, prev->interfaces[ours].sandbox, req->netns);
	struct flat_result_ip *ips =
		flat_arena_alloc(&req->arena, (prev->ip_count + 1) * sizeof *ips);
	if (!ips)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "prevResult");
	*ret_lease = (struct flat_result){ .ips = ips,
					   .routes = prev->routes,
					   .route_count = prev->route_count };
	for (size_t i = 0; i < prev->ip_count; i++)
		if (prev->ips[i].interface < 0 || prev->ips[i].interface == ours)
			ips[ret_lease->ip_count++] = prev->ips[i];
	if (ours >= 0) {
		ret_seen->pod_mac = prev->interfaces[ours].mac;
		ret_seen->mtu = prev->interfaces[ours].mtu;
	}
	return ours >= 0 && prev->interfaces[ours].has_mac;
}

int flat_verb_check(const struct flat_call *call, struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_fd netns = -1;
	flat_auto_net *net = NULL;
	struct flat_conf conf;
	struct flat_result lease;
	struct flat_attachment *attachment = flat_arena_alloc(&req->arena, sizeof *attachment);
	struct flat_attachment *seen = flat_arena_alloc(&req->arena, sizeof *seen);
	int r, has_mac;

	if (!attachment || !seen)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "attachment");
	has_mac = own_part(req, &lease, seen, err);
	if (has_mac < 0)
		return has_mac;
	r = flat_call_netns(call, &netns, err);
	if (r >= 0)
		r = flat_net_open(&net, err);
	if (r >= 0)
		r = flat_conf_parse(req, call->defaults, &call->host, net, call->log, &conf, err);
	if (r < 0)
		return r;
	/* prevResult has it, unless somebody took it away again, as multus for another network's */
	conf.is_default_gateway = false;
	r = flat_plan_attachment(req, &conf, &lease, attachment, err);
	if (r < 0)
		return r;
	if (has_mac)
		attachment->pod_mac = seen->pod_mac; /* a later plugin may have set another */
	if (seen->mtu)
		*(attachment->tuning.mtu ? &attachment->tuning.mtu : &attachment->mtu) = seen->mtu;
	const char *veth = conf.reference ? told_host_veth(req, &conf) : NULL;
	if (veth && strcmp(veth, attachment->host_ifname) != 0) {
		/* of the time before we had this name; its rules are elsewhere */
		snprintf(attachment->host_ifname, sizeof attachment->host_ifname, "%s", veth);
		attachment->nft.name = NULL;
		attachment->guard = (struct flat_guard){ 0 };
	}
	r = flat_attachment_verify(attachment, net, netns, err);
	if (r < 0)
		return r;

	if (conf.ipam_kind == FLAT_IPAM_FOREIGN) {
		r = flat_delegate_run(req, req->ipam_type, FLAT_CMD_CHECK, NULL, err);
		return r < 0 ? flat_wrap(err, "ipam '%.64s'", req->ipam_type) : 0;
	}
	if (conf.ipam_kind == FLAT_IPAM_OWN) {
		flat_auto_store *store = NULL;
		struct flat_ip ips[FLAT_MAX_LEASE];
		for (size_t i = 0; i < attachment->ip_count; i++)
			ips[i] = attachment->ips[i].address.ip;
		r = flat_store_open(&conf.ipam, req->name, false, call->log, &store, err);
		if (r == -ENOENT && !err->code)
			return flat_fail(err, FLAT_CODE_MISMATCH, 0,
					 "the address store '%.128s/%.64s' is gone",
					 conf.ipam.data_dir, req->name);
		if (r >= 0)
			r = flat_store_check(store, req->container_id, req->ifname, ips,
					     attachment->ip_count, err);
	}
	return r < 0 ? r : 0;
}

/* ---- GC ----------------------------------------------------------------------------------------
 */

/* Without a list of valid attachments nothing is known to be stale but what is dead. */
static int collect_links(const struct flat_call *call, struct flat_net *net, struct flat_err *err)
{
	const struct flat_request *req = call->req;
	if (!req->has_valid) {
		flat_warn(
			call->log,
			"GC without cni.dev/valid-attachments: only reservations without a link are freed");
		return 0;
	}
	int r = flat_attachment_sweep(net, req->name, &req->valid, err);
	return r < 0 ? flat_wrap(err, "stale links of network '%.64s'", req->name) : 0;
}

/* A reservation whose ADD was killed before the link had its alias: the derived name finds the
 * link. */
struct killed {
	const struct flat_call *call;
	struct flat_net *net;
};

static void remove_link_of(void *arg, const char *container_id, const char *ifname,
			   const struct flat_ip *ip)
{
	struct killed *k = arg;
	struct flat_err e = { 0 };
	(void)ip;
	if (flat_attachment_remove(k->net, k->call->req->name, container_id, ifname, &e) < 0)
		flat_warn(k->call->log, "GC: %s", e.msg);
}

int flat_verb_gc(const struct flat_call *call, struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_net *net = NULL;
	flat_auto_store *store = NULL;
	struct flat_ipam_witness witness = { 0 };
	struct flat_conf conf;
	struct flat_err e = { 0 };
	int r, first = 0;

	flat_conf_parse_lenient(req, call->defaults, &conf);
	r = flat_net_open(&net, err);
	if (r < 0)
		return r;
	if (conf.ipam_kind == FLAT_IPAM_OWN) {
		r = flat_store_open(&conf.ipam, req->name, false, call->log, &store, &e);
		if (r < 0 && (r != -ENOENT || e.code))
			first = flat_fail(err, e.code, 0, "%s", e.msg);
	}
	e = (struct flat_err){ 0 };
	if (collect_links(call, net, &e) < 0)
		first = flat_fail(err, e.code, 0, "%s", e.msg);
	e = (struct flat_err){ 0 };
	/* those of links that went with their pod's namespace; no list says less than that */
	if (!req->has_valid && flat_features_sweep(net, call->log, &e) < 0)
		first = flat_fail(err, e.code, 0, "%s", e.msg);
	e = (struct flat_err){ 0 };
	if (store) {
		struct killed killed = { call, net };
		r = flat_witness_open(net, req->name, conf.gateway_link, !req->has_valid, &witness,
				      &e);
		if (r >= 0)
			r = flat_store_gc(store, req->has_valid ? &req->valid : NULL, &witness,
					  remove_link_of, &killed, &e);
		if (r < 0)
			first = flat_fail(err, e.code, 0, "%s", e.msg);
		flat_witness_close(&witness);
	}
	e = (struct flat_err){ 0 };
	if (conf.ipam_kind == FLAT_IPAM_FOREIGN &&
	    flat_delegate_run(req, req->ipam_type, FLAT_CMD_GC, NULL, &e) < 0)
		first = flat_fail(err, e.code, 0, "ipam '%.64s': %s", req->ipam_type, e.msg);
	return first;
}

/* ---- STATUS ------------------------------------------------------------------------------------
 */

static int status(const struct flat_call *call, struct flat_err *err)
{
	struct flat_request *req = call->req;
	flat_auto_net *net = NULL;
	struct flat_conf conf;
	struct flat_link link;
	int r = flat_net_open(&net, err);
	if (r >= 0)
		r = flat_conf_parse(req, call->defaults, &call->host, net, NULL, &conf, err);
	if (r < 0)
		return r;
	r = flat_link_by_name(net, conf.bridge, &link, err);
	if (r < 0)
		return r;
	if (r > 0 && strcmp(link.kind, "bridge") != 0)
		return flat_fail(
			err, FLAT_CODE_NOT_READY, 0,
			"a link '%s' exists and is not a bridge: remove it, or set \"bridge\"",
			conf.bridge);
	if (conf.ipam_kind == FLAT_IPAM_FOREIGN) {
		r = flat_delegate_run(req, req->ipam_type, FLAT_CMD_STATUS, NULL, err);
		if (r == -ENOENT) /* the configuration is right, the program is not installed */
			err->code = FLAT_CODE_NOT_READY;
		return r < 0 ? flat_wrap(err, "ipam '%.64s'", req->ipam_type) : 0;
	}
	if (conf.ipam_kind == FLAT_IPAM_OWN) {
		struct flat_ipam_witness witness = { 0 };
		r = flat_witness_open(net, req->name, conf.gateway_link, true, &witness, err);
		if (r >= 0)
			r = flat_ipam_status(&conf.ipam, req->name, &witness, err);
		flat_witness_close(&witness);
	}
	if (r >= 0 && conf.ip_masq) {
		const struct flat_nft_network none = { .name = req->name };
		const char *what = NULL;
		r = flat_nft_verify(&none, &what, err); /* can they be read at all? */
	}
	if (r >= 0 && conf.is_gateway) {
		const struct flat_nft_network own = { .cluster = conf.cluster_cidrs.items,
						      .cluster_count = conf.cluster_cidrs.count };
		char blocker[FLAT_NFT_BLOCKER];
		/* whether it lets pods pass all the same is more than can be read from outside */
		if (flat_nft_find_blocker(&own, blocker, NULL) > 0)
			flat_warn(call->log, "pods may be cut off: %s", blocker);
	}
	return r < 0 ? r : 0;
}

int flat_verb_status(const struct flat_call *call, struct flat_err *err)
{
	int r = status(call, err);
	/* a configuration that is wrong stays code 7; whatever else keeps an ADD from succeeding is
	 * "not ready" */
	if (r < 0 && err->code != FLAT_CODE_CONFIG && err->code != FLAT_CODE_UNSUPPORTED &&
	    err->code != FLAT_CODE_DEGRADED)
		err->code = FLAT_CODE_NOT_READY;
	return r;
}
