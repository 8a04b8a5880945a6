/* SPDX-License-Identifier: Apache-2.0 */
/* Private to agent: Node objects as Kubernetes tells them, read from a stream of JSON. */
#pragma once

#include <flatnet/cluster.h>

/* Flannel's annotations of a node, without their prefix. */
#define FLAT_KUBE_PREFIX "flannel.alpha.coreos.com/"
enum flat_kube_annotation {
	FLAT_KUBE_MANAGED,	/* kube-subnet-manager: "true" */
	FLAT_KUBE_BACKEND_TYPE, /* "vxlan", "host-gw" */
	FLAT_KUBE_BACKEND_DATA, /* {"VNI":1,"VtepMAC":"..."}, or null */
	FLAT_KUBE_BACKEND_V6_DATA,
	FLAT_KUBE_PUBLIC_IP,
	FLAT_KUBE_PUBLIC_IPV6,
	FLAT_KUBE_OVERWRITE, /* a person's word: what public-ip is to be */
	FLAT_KUBE_OVERWRITE_V6,
	FLAT_KUBE_ANNOTATIONS,
};
extern const char *const flat_kube_annotation_names[FLAT_KUBE_ANNOTATIONS];

enum { FLAT_KUBE_TEXT = 256 };

/* An item of a list, or an event of a watch. */
struct flat_kube_object {
	char type[16];	  /* "": of a list; else ADDED, MODIFIED, DELETED, BOOKMARK, ERROR */
	char version[64]; /* resourceVersion; opaque */
	char name[FLAT_NODE_NAME_MAX + 1];
	struct flat_node node; /* name is the one above */
	char fault[200];       /* what is wrong with it; "": nothing */
	char annotations[FLAT_KUBE_ANNOTATIONS][FLAT_KUBE_TEXT];
	bool network_unavailable;     /* the condition is not False, or not there */
	int code;		      /* of an ERROR ... */
	char message[FLAT_KUBE_TEXT]; /* ... and what it says */
};

struct flat_kube_reader;
/* conf and self (this node's name) are borrowed. In flannel's mode a node's addresses are those
 * that it told by annotations, but for this node's own: what is in them was written by us, or is
 * about to be. */
int flat_kube_reader_open(const struct flat_cluster_conf *conf, const char *self,
			  void (*heard)(void *arg, const struct flat_kube_object *object),
			  void *arg, struct flat_kube_reader **ret_reader, struct flat_err *err);
void flat_kube_reader_close(struct flat_kube_reader *reader); /* not from within heard() */
int flat_kube_reader_feed(struct flat_kube_reader *reader, const char *data, size_t len,
			  struct flat_err *err);
/* Whether all is whole. */
int flat_kube_reader_end(struct flat_kube_reader *reader, struct flat_err *err);
/* Of a list, at its end: its resourceVersion, and the token of the next page ("": it was the last).
 * NULL: too long to be true. */
const char *flat_kube_reader_version(const struct flat_kube_reader *reader);
const char *flat_kube_reader_continue(const struct flat_kube_reader *reader);
/* What a Status object says; the text itself where it is none. */
void flat_kube_message(const char *body, char *buf, size_t size);
