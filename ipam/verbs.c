// SPDX-License-Identifier: Apache-2.0
/*
 * The address store as a CNI IPAM plugin of its own, for whatever plugin delegates to it (CNI spec
 * 1.1.0, section 4).
 */
#include <flatnet/ipam.h>

#include <errno.h>

/* ---- the verbs ---------------------------------------------------------------------------------
 */

static int make_result(struct flat_request *req, const struct flat_ipam_conf *conf,
		       const struct flat_lease *lease, char **ret_text, struct flat_err *err)
{
	struct flat_result_ip ips[FLAT_MAX_LEASE];
	struct flat_result result = {
		.ips = ips,
		.ip_count = lease->count,
		.routes = conf->routes.items,
		.route_count = conf->routes.count,
		.dns = conf->dns,
	};
	for (size_t i = 0; i < lease->count; i++)
		ips[i] = (struct flat_result_ip){
			.address = lease->ips[i].address,
			.gateway = lease->ips[i].gateway,
			.interface = -1,
		};
	return flat_result_print(&result, req->version, ret_text, err);
}

static int add(struct flat_request *req, const struct flat_ipam_conf *conf,
	       const struct flat_log *log, int output_fd, struct flat_err *err)
{
	flat_auto_store *store = NULL;
	flat_auto_free char *text = NULL;
	struct flat_lease lease;
	int r = flat_store_open(conf, req->name, true, log, &store, err);
	if (r < 0)
		return r;
	r = flat_store_reserve(store, req->container_id, req->ifname, NULL, &lease, err);
	if (r < 0)
		return r;
	r = make_result(req, conf, &lease, &text, err);
	if (r >= 0)
		r = flat_output_write(output_fd, text, err);
	if (r < 0) /* nobody has heard of the addresses */
		flat_lease_release(store, &lease);
	flat_lease_close(&lease);
	return r;
}

/* The addresses of prevResult that are ours to keep; more of them may be other plugins'. */
static size_t own_ips(const struct flat_request *req, const struct flat_ipam_conf *conf,
		      struct flat_ip *ips, size_t max)
{
	size_t n = 0;
	const struct flat_ip_range_set *sets = conf->sets.items;
	for (size_t i = 0; req->prev_result && i < req->prev_result->ip_count && n < max; i++) {
		const struct flat_ip *ip = &req->prev_result->ips[i].address.ip;
		bool ours = false;
		for (size_t s = 0; s < conf->sets.count && !ours; s++) {
			const struct flat_ip_range *ranges = sets[s].ranges.items;
			for (size_t j = 0; j < sets[s].ranges.count && !ours; j++)
				ours = flat_prefix_contains(&ranges[j].subnet, ip);
		}
		if (ours)
			ips[n++] = *ip;
	}
	return n;
}

static int del(struct flat_request *req, const struct flat_ipam_conf *conf,
	       const struct flat_log *log, struct flat_err *err)
{
	flat_auto_store *store = NULL;
	struct flat_ip hints[FLAT_MAX_LEASE];
	int r = flat_store_open(conf, req->name, false, log, &store, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	size_t count = own_ips(req, conf, hints, FLAT_LEN(hints));
	r = flat_store_release(store, req->container_id, req->ifname, hints, count, err);
	return r < 0 ? r : 0;
}

static int check(struct flat_request *req, const struct flat_ipam_conf *conf,
		 const struct flat_log *log, struct flat_err *err)
{
	flat_auto_store *store = NULL;
	struct flat_ip ips[FLAT_MAX_LEASE];
	int r = flat_store_open(conf, req->name, false, log, &store, err);
	if (r == -ENOENT)
		return flat_fail(err, FLAT_CODE_MISMATCH, 0,
				 "no address is reserved for container '%.128s': '%s/%s' does not "
				 "exist",
				 req->container_id, conf->data_dir, req->name);
	if (r < 0)
		return r;
	size_t count = own_ips(req, conf, ips, FLAT_LEN(ips));
	return flat_store_check(store, req->container_id, req->ifname, count ? ips : NULL, count,
				err);
}

static int gc(struct flat_request *req, const struct flat_ipam_conf *conf,
	      const struct flat_log *log, struct flat_err *err)
{
	flat_auto_store *store = NULL;
	if (!req->has_valid)
		return 0; /* nobody said what is valid, and we see no links */
	int r = flat_store_open(conf, req->name, false, log, &store, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = flat_store_gc(store, &req->valid, NULL, NULL, NULL, err);
	return r < 0 ? r : 0;
}

int flat_ipam_carry_out(struct flat_request *req, const char *data_dir, const struct flat_log *log,
			int output_fd, struct flat_err *err)
{
	struct flat_ipam_conf conf;
	int r = flat_ipam_conf_parse(req, data_dir, NULL, &conf, err);
	if (r < 0)
		return r;
	switch (req->command) {
	case FLAT_CMD_ADD:
		return add(req, &conf, log, output_fd, err);
	case FLAT_CMD_DEL:
		return del(req, &conf, log, err);
	case FLAT_CMD_CHECK:
		return check(req, &conf, log, err);
	case FLAT_CMD_GC:
		return gc(req, &conf, log, err);
	case FLAT_CMD_STATUS:
		return flat_ipam_status(&conf, req->name, NULL, err);
	case FLAT_CMD_VERSION:
		break; /* answered before */
	}
	return 0;
}
