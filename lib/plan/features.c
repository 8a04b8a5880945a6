// SPDX-License-Identifier: Apache-2.0
/*
 * The features of an attachment, one after the other. Each has a file of its own, and no other one
 * knows of it.
 */
#include "plan-internal.h"

#include <string.h>

/* In the order in which they are applied; they go in the other one. */
static const struct flat_feature *const features[] = {
	&flat_feature_tuning,
	&flat_feature_bandwidth,
	&flat_feature_guard,
	&flat_feature_ports,
};

const struct flat_feature *flat_feature_at(size_t i)
{
	return i < FLAT_LEN(features) ? features[i] : NULL;
}

int flat_features_parse(struct flat_request *req, unsigned which, const struct flat_log *log,
			struct flat_conf *conf, struct flat_err *err)
{
	int r = 0;
	for (size_t i = 0; i < FLAT_LEN(features) && r >= 0; i++)
		if (features[i]->bit & which)
			r = features[i]->parse(req, log, conf, err);
	return r;
}

int flat_features_plan(struct flat_request *req, const struct flat_conf *conf,
		       struct flat_attachment *a, struct flat_err *err)
{
	int r = 0;
	for (size_t i = 0; i < FLAT_LEN(features) && r >= 0; i++)
		r = features[i]->plan(req, conf, a, err);
	return r;
}

int flat_features_apply(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
			struct flat_applied *applied, const struct flat_log *log,
			struct flat_err *err)
{
	int r = 0;
	for (size_t i = 0; i < FLAT_LEN(features) && r >= 0; i++)
		r = features[i]->apply(a, net, netns_fd, applied, log, err);
	return r;
}

void flat_features_undo(const struct flat_attachment *a, struct flat_net *net,
			const struct flat_applied *applied, const struct flat_log *log)
{
	for (size_t i = FLAT_LEN(features); i-- > 0;) {
		struct flat_err e = { 0 };
		if (applied->features & features[i]->bit &&
		    features[i]->undo(a, net, applied, &e) < 0)
			flat_warn(log, "undo: %s: %s", features[i]->name, e.msg);
	}
}

int flat_features_verify(const struct flat_attachment *a, struct flat_net *net, int netns_fd,
			 struct flat_err *err)
{
	int r = 0;
	for (size_t i = 0; i < FLAT_LEN(features) && r >= 0; i++)
		r = features[i]->verify(a, net, netns_fd, err);
	return r;
}

int flat_features_remove(struct flat_net *net, unsigned which, struct flat_removal *removal,
			 struct flat_err *err)
{
	int first = 0, removed = 0;
	for (size_t i = FLAT_LEN(features); i-- > 0;) {
		struct flat_err e = { 0 };
		int r = features[i]->bit & which ? features[i]->remove(net, removal, &e) : 0;
		if (r >= 0) {
			removed += r;
		} else if (first >= 0) {
			first = r;
			if (err)
				*err = e;
		}
	}
	return first < 0 ? first : removed;
}

int flat_features_sweep(struct flat_net *net, const struct flat_log *log, struct flat_err *err)
{
	return flat_features_sweep_some(net, (unsigned)FLAT_FEATURES_ALL, log, err);
}

int flat_features_sweep_some(struct flat_net *net, unsigned which, const struct flat_log *log,
			     struct flat_err *err)
{
	int first = 0, removed = 0;
	for (size_t i = FLAT_LEN(features); i-- > 0;) {
		struct flat_err e = { 0 };
		int r = features[i]->bit & which ? features[i]->sweep(net, log, &e) : 0;
		if (r >= 0) {
			removed += r;
		} else if (first >= 0) {
			first = r;
			if (err)
				*err = e;
		}
	}
	return first < 0 ? first : removed;
}
