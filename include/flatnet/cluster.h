/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster - the nodes of the flat network, and what the kernel of this one should have so that its
 * pods reach theirs.
 *
 *   nodes ──judge──▶ accepted nodes ──plan──▶ flat_node_state ──ensure──▶ one dump, one batch
 *
 * Judging and planning are pure. Level-triggered: whoever calls keeps no account of what was done
 * before; the kernel's dump tells. Used by the plugin (a list of nodes in its configuration) and by
 * the node agent.
 */
#pragma once

#include <flatnet/base.h>
#include <flatnet/cni.h>
#include <flatnet/net.h>

/* ---- nodes -------------------------------------------------------------------------------------
 */

enum { FLAT_NODE_CIDRS = 8, FLAT_NODE_NAME_MAX = 253 /* RFC 1123 subdomain, as Kubernetes */ };

/* Index of a family in the arrays below. */
enum { FLAT_V4 = 0, FLAT_V6 = 1, FLAT_FAMILIES = 2 };
int flat_family_index(int family); /* AF_INET, AF_INET6 */

enum flat_backend {
	FLAT_BACKEND_AUTO,   /* direct where the peer is on-link, else vxlan */
	FLAT_BACKEND_DIRECT, /* a route via the node's address: needs one L2 */
	FLAT_BACKEND_VXLAN,
};

struct flat_node {
	const char *name; /* borrowed or in an arena: see who fills it in */
	struct flat_prefix pod_cidrs[FLAT_NODE_CIDRS];
	size_t pod_cidr_count;
	struct flat_ip addresses[FLAT_FAMILIES]; /* by family; family 0: none. What others reach it
						    by */
	/* What the node itself told (flannel's annotations and keys); has_vtep false: derived, see
	 * flat_node_vtep_mac(). */
	struct flat_mac vtep[FLAT_FAMILIES];
	bool has_vtep[FLAT_FAMILIES];
	/* Which of two nodes that claim the same subnet was there first: a creation time or
	 * revision; the name decides between equals. */
	uint64_t since;
};

bool flat_node_equal(const struct flat_node *a, const struct flat_node *b);
/* The MAC of a node's VXLAN device: 0a:58 and its IPv4 pod subnet's network address; without one
 * 0e:5b and a hash of its IPv6 pod subnet. Both devices (over IPv4, over IPv6) have the same. */
struct flat_mac flat_node_vtep_mac(const struct flat_node *node);

/* The JSON form: {"name", "podCIDRs": [...], "address": "ip" or ["v4", "v6"]}; for tables. */
extern const struct flat_json_field flat_node_fields[];
/* Reads a file with a list of nodes (or an object {"nodes": [...]}), of at most 16384. Names are in
 * the arena. Code 11 when it is not there, 7 when it is wrong. */
int flat_nodes_read(const char *path, struct flat_arena *arena, struct flat_json_list *ret_nodes,
		    struct flat_err *err);
/* A list that a person wrote: names, addresses, host bits, overlaps; code 7 with WHERE[i].key. */
int flat_nodes_check(const struct flat_json_list *nodes, const char *where, struct flat_err *err);

/* A node of a list that is read one by one. */
struct flat_told_node {
	struct flat_node node; /* since: its place in the list, from 1 */
	const char *fault;     /* "nodes[2].podCIDRs[0]: ..."; NULL: nothing is wrong */
};
/* The same file, for who refuses nodes and not lists: *ret_told (struct flat_told_node) has all of
 * them. One without a name, with too long a one, or with that of a node before it, is called by its
 * place, "nodes[2]". Fails, with codes as above, where there is no list. Overlaps are left to
 * flat_cluster_judge(), and whether there is a way to a subnet to flat_cluster_plan(). */
int flat_nodes_read_each(const char *path, struct flat_arena *arena,
			 struct flat_json_list *ret_told, struct flat_err *err);

/* ---- which nodes are believed ------------------------------------------------------------------
 */

struct flat_cluster_conf {
	struct flat_prefix cidrs[FLAT_NFT_MAX_PREFIXES]; /* the flat network */
	size_t cidr_count;
	enum flat_backend backend;
	/* VXLAN, as flannel's on the wire: VNI 1, UDP port 8472. */
	uint32_t vni;
	uint16_t port;
	char link[FLAT_FAMILIES][FLAT_IFNAME_LEN]; /* names of the devices over IPv4 and IPv6 */
	uint32_t mtu; /* of pods; 0: the underlay's, less the overhead */
	/* Flannel's scheme: IPv6 pods over the IPv6 underlay only, MACs as told. */
	bool flannel;
};

enum flat_verdict {
	FLAT_NODE_ACCEPTED,
	FLAT_NODE_SELF,
	FLAT_NODE_WAITING, /* no pod subnet or no address yet: nothing to say against it */
	FLAT_NODE_REFUSED,
};

struct flat_judgement {
	enum flat_verdict verdict;
	/* Of WAITING and REFUSED: thing, cause, cure. Of ACCEPTED: which of its subnets cannot be
	 * reached and why, "" when all can. Starts like "its pod subnet ...". */
	char why[200];
};

/* Judges count nodes; ret_judgements has as many elements. Nodes are heard in the order in which
 * they were there: this one, then by since, then by name. A node is refused whole when a pod subnet
 * of its has host bits, is not inside the flat network, overlaps this node's or one of a node
 * before it, or contains the address of one before it; when its address is unspecified, loopback,
 * multicast, link-local, this node's own or in the pod subnet of one before it; or when the MAC of
 * its VXLAN device is none, or that of one before it. self NULL: this node is not known yet. Names
 * occur once. O(n log n). */
int flat_cluster_judge(const struct flat_cluster_conf *conf, const struct flat_node *const *nodes,
		       size_t count, const char *self, struct flat_judgement *ret_judgements,
		       struct flat_err *err);

/* ---- what the kernel should have ---------------------------------------------------------------
 */

/* How this node is on the network, of one family. */
struct flat_underlay {
	int index; /* 0: there is none of this family */
	char name[FLAT_IFNAME_LEN];
	uint32_t mtu;
	struct flat_ip address;	       /* of the link: the source of tunnels */
	struct flat_prefix onlink[16]; /* its networks: who is in them needs no router */
	size_t onlink_count;
};

struct flat_wanted_link {	    /* a VXLAN device */
	char name[FLAT_IFNAME_LEN]; /* "": not wanted */
	struct flat_mac mac;
	uint32_t mtu;
	struct flat_vxlan vxlan;
	/* The network addresses of this node's pod subnets, as single addresses: flannel's scheme,
	 * and the source of what this node itself sends to pods. */
	struct flat_prefix addresses[FLAT_NODE_CIDRS];
	size_t address_count;
};

/* Who is reached by a wanted thing; link: FLAT_V4 or FLAT_V6, a device of the state; -1: the
 * underlay. */
struct flat_wanted_route {
	struct flat_prefix dst;
	struct flat_ip via;
	int link;
	bool onlink;	  /* via is not in a network of the link: take it as a neighbour */
	const char *node; /* for messages; borrowed from the nodes */
};
struct flat_wanted_neigh {
	struct flat_ip ip;
	struct flat_mac mac;
	int link;
	const char *node;
};
struct flat_wanted_fdb {
	struct flat_mac mac;
	struct flat_ip dst;
	int link;
	const char *node;
};

/* The plan: what there should be on this node. Arrays are sorted by their first member, then by
 * link, so that a dump can be held against them. Free with flat_node_state_free(). */
struct flat_node_state {
	struct flat_prefix cidrs[FLAT_NFT_MAX_PREFIXES]; /* routes of ours into these, and no
							    others, are ours to remove */
	size_t cidr_count;
	struct flat_wanted_link links[FLAT_FAMILIES];
	/* Devices that would be ours and have no work: they go, if they are VXLAN with this VNI. */
	struct {
		char name[FLAT_IFNAME_LEN]; /* "": none */
		uint32_t vni;
	} idle[FLAT_FAMILIES];
	struct flat_wanted_route *routes;
	size_t route_count;
	struct flat_wanted_neigh *neighs;
	size_t neigh_count;
	struct flat_wanted_fdb *fdb;
	size_t fdb_count;
	uint32_t pod_mtu;	  /* what pods get; 0: not known */
	size_t direct, tunnelled; /* nodes reached each way */
};

/* Plans the way to each accepted node. A node of which no subnet can be reached with this backend
 * and underlay becomes FLAT_NODE_WAITING, with the reason; one whose subnets contain an address of
 * the underlay's is refused. self NULL or without a pod subnet: no links, no routes, and none of
 * those that are there are touched (cidr_count 0): they may be right. Pure. */
int flat_cluster_plan(const struct flat_cluster_conf *conf,
		      const struct flat_underlay underlays[static FLAT_FAMILIES],
		      const struct flat_node *self, const struct flat_node *const *nodes,
		      size_t count, struct flat_judgement *judgements,
		      struct flat_node_state *ret_state, struct flat_err *err);
/* Sorts the arrays, for those who fill in a state by themselves. */
void flat_node_state_sort(struct flat_node_state *state);
void flat_node_state_free(struct flat_node_state *state); /* zeroed is fine, and again */

/* ---- making it so ------------------------------------------------------------------------------
 */

enum flat_repair {
	FLAT_REPAIR_LINK,    /* a VXLAN device made, made anew or changed */
	FLAT_REPAIR_ADDRESS, /* of such a device */
	FLAT_REPAIR_ROUTE,
	FLAT_REPAIR_NEIGH,
	FLAT_REPAIR_FDB,
	FLAT_REPAIR_KINDS,
};

/* What was done: how often of each kind, and a word about the first of each. */
struct flat_repairs {
	size_t set[FLAT_REPAIR_KINDS], removed[FLAT_REPAIR_KINDS];
	char first[FLAT_REPAIR_KINDS][160]; /* "route to 10.244.2.0/24 of node 'n2' was missing" */
	struct flat_prefix *added;	    /* destinations of routes that were not there before */
	size_t added_count;
};
void flat_repairs_free(struct flat_repairs *repairs);

/* Makes it so: links first, then routes, neighbours and forwarding entries from one dump of each,
 * what differs in one batch; nothing is written when nothing differs. Routes carry FLAT_RTPROT.
 * What an earlier life left behind goes: routes with that protocol into the flat network, entries
 * of our devices, and a device of a name of ours that is not wanted any more. A route of another
 * protocol that leads the same way is left to do the work. Goes on after errors and returns the
 * first: *ret_repairs is valid in either case; free it. Code 11 where a node's address is not
 * on-link. */
int flat_node_state_ensure(const struct flat_node_state *state, struct flat_net *net,
			   struct flat_repairs *ret_repairs, struct flat_err *err);
/* As flat_node_state_ensure(), without a change: 0 = all is there, or FLAT_CODE_MISMATCH with the
 * first difference. What is too much is none. */
int flat_node_state_verify(const struct flat_node_state *state, struct flat_net *net,
			   struct flat_err *err);
/* Writes at once what two plans differ in, as if the kernel had the old one: a look at all of it
 * takes longer than the change of a node. Says nothing and tells no error, for
 * flat_node_state_ensure() has to follow. Nothing is written, and 0 returned, when more than `most`
 * differs or the devices do; else how much. indices: of the devices in the kernel, 0 for none. */
int flat_node_state_step(const struct flat_node_state *old, const struct flat_node_state *new,
			 const int indices[static FLAT_FAMILIES], size_t most,
			 struct flat_net *net);
/* Does this event tell of something that is not as planned? Our own changes come back as events,
 * and are as planned. indices: of the devices in the kernel, 0 for none. */
bool flat_node_state_is_disturbed(const struct flat_node_state *state,
				  const int indices[static FLAT_FAMILIES],
				  const struct flat_event *event);

/* ---- the node's own file -----------------------------------------------------------------------
 */

/* What the agent tells the plugin about this node: JSON, {"podCIDRs", "clusterCIDR", "mtu",
 * "nodeName"}. */
struct flat_node_file {
	struct flat_json_list pod_cidrs, cluster_cidrs; /* struct flat_prefix */
	uint32_t mtu;					/* 0: not told */
	int flannel_masq;      /* FLANNEL_IPMASQ of flannel's subnet.env; -1: not told */
	const char *node_name; /* NULL: not told */
};
#define FLAT_RUN_DIR   "/run/flatnet"
#define FLAT_NODE_FILE FLAT_RUN_DIR "/node.json"
/* Reads it, or flannel's subnet.env. Code 11 while it is not there or names no subnet. */
int flat_node_file_read(const char *path, struct flat_arena *arena, struct flat_node_file *ret_file,
			struct flat_err *err);
/* The JSON text, for flat_state_replace(); the caller frees. */
int flat_node_file_print(const struct flat_node_file *file, char **ret_text, struct flat_err *err);
