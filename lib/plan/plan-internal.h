/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share among themselves. */
#pragma once

#include <flatnet/plan.h>

/* Where the nodes and this node's subnets may come from, as the configuration says it. */
struct flat_node_source {
	struct flat_json_list nodes; /* struct flat_node */
	bool has_nodes;
	const char *nodes_file, *node_name, *subnet_file; /* NULL: not given */
	struct flat_json_list cluster_cidrs;		  /* empty: not given */
	bool ip_masq_given;
};

/* Fills in conf's nodes, self, pod_cidrs, cluster_cidrs, mtu, ipam and, from flannel's subnet.env,
 * ip_masq. */
int flat_node_resolve(struct flat_request *req, const struct flat_node_source *source,
		      const struct flat_host *host, struct flat_net *net, struct flat_conf *conf,
		      struct flat_err *err);

/* ---- apply.c -----------------------------------------------------------------------------------
 */

/* The lock of a bridge: LOCK_SH by every ADD from before it makes a link until it has ended. */
int flat_bridge_lock(const char *bridge, int operation, int timeout_ms, int *ret_fd,
		     struct flat_err *err);
/* Has any ADD worked on it, since the node's start? */
bool flat_bridge_has_lock(const char *bridge);

/* ---- bridge.c ----------------------------------------------------------------------------------
 */

/* The bridge is there and up; its index and whether it was made are in applied. Codes 2 (VLANs that
 * it cannot filter), 7 (the name is another link's), 11. */
int flat_bridge_ensure(struct flat_attachment *attachment, struct flat_net *net,
		       struct flat_applied *applied, struct flat_link *ret_bridge,
		       struct flat_err *err);
/* The node's addresses are on the gateway link; those added are in applied. FLAT_CODE_IN_USE names
 * what is in the way. */
int flat_bridge_ensure_addresses(const struct flat_attachment *attachment, struct flat_net *net,
				 struct flat_applied *applied, struct flat_err *err);
/* How many ports the bridge has, those of gateways not counted. */
int flat_bridge_count_ports(struct flat_net *net, int bridge_index, struct flat_err *err);

/* What a link of the node that has a gateway's address needs beside it: no foreign router's word,
 * and no tentative time for its address. */
int flat_link_tune(const struct flat_attachment *attachment, const char *link,
		   struct flat_err *err);

/* Sets net.FAMILY.conf.LINK.KEY in this thread's namespace; a key that the kernel does not have is
 * passed over. */
int flat_link_set_sysctl(const char *family, const char *link, const char *key, const char *value,
			 struct flat_err *err);

/* ---- pod.c -------------------------------------------------------------------------------------
 */

/* The pod's interface is up, with addresses and routes. */
int flat_pod_fill(const struct flat_attachment *attachment, int netns_fd, struct flat_err *err);
/* Its addresses can be used: with duplicate address detection that takes a while, and the port up.
 */
int flat_pod_await(const struct flat_attachment *attachment, int netns_fd, struct flat_err *err);

/* ---- gateway.c ---------------------------------------------------------------------------------
 */

/* Is it the port end of a gateway's veth pair? */
bool flat_is_gateway_port(const struct flat_link *link);
/* 1: the pair of this attachment's gateway; 0: there is none; code 7: something else has its
 * name. Only for a gateway that is not the bridge. */
int flat_gateway_find(const struct flat_attachment *attachment, struct flat_net *net,
		      struct flat_link *ret_gateway, struct flat_link *ret_port,
		      struct flat_err *err);
/* The gateway link is there, up and in its VLAN; its index and whether it was made are in
 * applied. */
int flat_gateway_ensure(struct flat_attachment *attachment, struct flat_net *net,
			const struct flat_link *bridge, struct flat_applied *applied,
			struct flat_err *err);
/* Queues the removal of the pair, and with a bridge that was made of all such pairs on it. */
void flat_gateway_undo(const struct flat_attachment *attachment, struct flat_net *net,
		       const struct flat_applied *applied);

/* The VLANs of the gateway's port; of the pod's port, which has some only when
 * flat_plan_has_vlans(). */
void flat_gateway_vlans(const struct flat_attachment *attachment, struct flat_vlans *ret_vlans);
bool flat_plan_has_vlans(const struct flat_attachment *attachment);
void flat_plan_vlans(const struct flat_attachment *attachment, struct flat_vlans *ret_vlans);

/* ---- plan.c ------------------------------------------------------------------------------------
 */

/* The MTU of the pod's end; 0: the kernel's. */
uint32_t flat_plan_pod_mtu(const struct flat_attachment *attachment);

/* ---- allowlist.c -------------------------------------------------------------------------------
 */

#define FLAT_ALLOWLIST "/etc/cni/tuning/allowlist.conf"

/* May these sysctls be set, as far as the administrator's file has a say? Without the file they
 * may. Its lines are regular expressions, as the reference plugin tuning takes them, for the key as
 * it is written. Code 7 names the key or the line that is at fault, code 5 a file that cannot be
 * read. */
int flat_allowlist_check(const char *file, const struct flat_sysctl *sysctls, size_t count,
			 struct flat_err *err);
/* Go's syntax as far as it is used, into POSIX's extended one (regcomp(3)) of at most size bytes.
 * False: too long, or something that means another thing there. */
bool flat_allowlist_translate(const char *go, char *ret_posix, size_t size);

/* ---- tuning.c ----------------------------------------------------------------------------------
 */

/* Writes the sysctls in this thread's namespace, those that are otherwise; what each was is in it
 * afterwards. Code 2 for one that is not there, 7 for a value that is refused. After a failure
 * those before it are written. */
int flat_tuning_write(const struct flat_tuning *tuning, struct flat_err *err);
/* Writes what was there before. Goes on after a failure, and returns the first. */
int flat_tuning_restore(const struct flat_tuning *tuning, struct flat_err *err);
/* Queue, for a link that is there already: what flatnet's own is born with. */
void flat_tuning_change(const struct flat_tuning *tuning, struct flat_net *pod, int index);
/* In this thread's namespace. link: as it is there; code FLAT_CODE_MISMATCH names what is not as
 * wanted. */
int flat_tuning_verify(const struct flat_tuning *tuning, const struct flat_link *link,
		       struct flat_err *err);

/* ---- verify.c ----------------------------------------------------------------------------------
 */

/* FLAT_CODE_MISMATCH when the sysctl is another or does not exist. */
int flat_verify_sysctl(const char *path, const char *want, struct flat_err *err);

/* ---- features.c --------------------------------------------------------------------------------
 */

/* Whose things are to go: an attachment of which nothing else needs to be known. */
struct flat_removal {
	char host_ifname[FLAT_IFNAME_LEN];
	int links[2]; /* to be deleted together: the host veth, and what a feature adds to it */
	size_t link_count;
	/* closed last: the kernel waits for what was changed by it; of whoever speaks with
	 * nf_tables first, NULL before */
	struct flat_net *slow;
};

/* What a pod is given beside its link, addresses and routes, and elsewhere takes one more plugin of
 * a chain. All hooks are there, do nothing where the attachment does not want the feature, and
 * return < 0 for failure. */
struct flat_feature {
	const char *name; /* for people */
	unsigned bit;	  /* FLAT_FEATURE_* */
	/* its keys at the top of the configuration, runtimeConfig and args among them */
	const struct flat_json_field *fields;
	/* Decodes and validates them. Codes 7, 2. */
	int (*parse)(struct flat_request *req, const struct flat_log *log, struct flat_conf *conf,
		     struct flat_err *err);
	/* Decides, when all else of the attachment is decided; looks at no kernel. Code 7. */
	int (*plan)(struct flat_request *req, const struct flat_conf *conf,
		    struct flat_attachment *attachment, struct flat_err *err);
	/* Makes it so, when all else is made and the pod's interface is up. Sets its bit in
	 * applied->features before the first change. */
	int (*apply)(const struct flat_attachment *attachment, struct flat_net *net, int netns_fd,
		     struct flat_applied *applied, const struct flat_log *log,
		     struct flat_err *err);
	/* Takes back what a failed ADD made of it, whose bit is set; the link is still there. */
	int (*undo)(const struct flat_attachment *attachment, struct flat_net *net,
		    const struct flat_applied *applied, struct flat_err *err);
	int (*verify)(const struct flat_attachment *attachment, struct flat_net *net, int netns_fd,
		      struct flat_err *err);
	/* DEL, before the link goes; the pod's namespace may be gone. Nothing there is success, and
	 * has to be cheap to find out. Returns how many things it found. */
	int (*remove)(struct flat_net *net, struct flat_removal *removal, struct flat_err *err);
	/* Removes what stands for links that are gone. Returns how many. */
	int (*sweep)(struct flat_net *net, const struct flat_log *log, struct flat_err *err);
};
extern const struct flat_feature flat_feature_bandwidth, flat_feature_guard, flat_feature_ports,
	flat_feature_tuning;

/* Each of them in turn; `which`: some of them, by their bits. The removals go on after a failure
 * and return the first, else how many things went. */
int flat_features_parse(struct flat_request *req, unsigned which, const struct flat_log *log,
			struct flat_conf *conf, struct flat_err *err);
int flat_features_plan(struct flat_request *req, const struct flat_conf *conf,
		       struct flat_attachment *attachment, struct flat_err *err);
int flat_features_apply(const struct flat_attachment *attachment, struct flat_net *net,
			int netns_fd, struct flat_applied *applied, const struct flat_log *log,
			struct flat_err *err);
void flat_features_undo(const struct flat_attachment *attachment, struct flat_net *net,
			const struct flat_applied *applied, const struct flat_log *log);
int flat_features_verify(const struct flat_attachment *attachment, struct flat_net *net,
			 int netns_fd, struct flat_err *err);
int flat_features_remove(struct flat_net *net, unsigned which, struct flat_removal *removal,
			 struct flat_err *err);
int flat_features_sweep_some(struct flat_net *net, unsigned which, const struct flat_log *log,
			     struct flat_err *err);

/* ---- remove.c ----------------------------------------------------------------------------------
 */

/* 1: the node's end of the veth that is called ifname in this namespace; 0: there is none. */
int flat_find_host_end(struct flat_net *net, int netns_fd, const char *ifname,
		       struct flat_link *ret_link, struct flat_err *err);
