/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan - the attachment: what one pod's network should look like, and the four verbs on it.
 *
 *   request ──▶ flat_conf ──▶ (lease) ──▶ flat_attachment ──┬─ apply  ──▶ kernel   ADD
 *                                                           ├─ verify ──▶ kernel   CHECK
 *                                                           └─ remove ──▶ kernel   DEL, GC
 *
 * All names derive from (network, container ID, interface), so that a later process finds
 * everything without a state file.
 */
#pragma once

#include <flatnet/base.h>
#include <flatnet/cluster.h>
#include <flatnet/cni.h>
#include <flatnet/ipam.h>
#include <flatnet/net.h>

#define FLAT_CLUSTER_CIDR "10.244.0.0/16"

/* ---- configuration of type flatnet, and of type bridge -----------------------------------------
 */

/* What a configuration means where it says nothing. */
struct flat_defaults {
	/* Everything is as with the reference bridge plugin: no key of ours counts, nothing is
	 * known of other nodes, a network without ipam has no addresses. */
	bool reference;
	bool is_gateway, is_default_gateway, hairpin;
	const char *ipam_type, *data_dir; /* of the IPAM that is carried out in-process */
	unsigned features;		  /* FLAT_FEATURE_*: those whose keys count */
};
extern const struct flat_defaults flat_defaults_flatnet, flat_defaults_bridge;

/* Who this host is; main asks the system, the library doesn't. */
struct flat_host {
	const char *node_name; /* $NODE_NAME; NULL = not set */
	const char *host_name; /* gethostname(2) */
};

enum flat_bridge_mode {
	FLAT_BRIDGE_ROUTED, /* pods reach each other through the node's IP layer, also on the same
			       bridge */
	FLAT_BRIDGE_L2, /* the subnet is on-link in the pod, as with the reference bridge plugin */
};

/* New connections from pods of other bridges; as the reference plugin firewall has it. */
enum flat_ingress_policy {
	FLAT_INGRESS_OPEN,
	FLAT_INGRESS_SAME_BRIDGE,
	FLAT_INGRESS_ISOLATED, /* and from those of the same */
};

enum flat_ipam_kind {
	FLAT_IPAM_OWN,	   /* flatnet-ipam or host-local, in-process */
	FLAT_IPAM_FOREIGN, /* another program, executed */
	FLAT_IPAM_NONE,	   /* no addresses: layer 2 only */
};

struct flat_vlan_range {
	uint16_t min, max;
};

/* An entry of portMappings. */
struct flat_port_mapping {
	uint16_t host_port, container_port;
	uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP */
	struct flat_ip
		host_ip;   /* family 0: any address of either family; all zero: any of its own */
	bool from_runtime; /* runtimeConfig's, not the configuration's own */
};
enum { FLAT_MAX_PORTS = 2048 };

/* A setting of the kernel in the pod's namespace: "net.core.somaxconn". */
struct flat_sysctl {
	const char *list, *key; /* where the configuration has it: "sysctl", "args.cni.sysctl" */
	const char *path;	/* below /proc/sys */
	const char *value;
	char *before; /* of FLAT_SYSCTL_SIZE bytes: what it was, when changed */
	bool changed;
};
enum { FLAT_SYSCTL_SIZE = 1024, FLAT_MAX_SYSCTLS = 128 };

/* What the reference plugin tuning is for. */
struct flat_tuning {
	struct flat_sysctl *sysctls; /* in the order in which they are written */
	size_t sysctl_count;
	/* of the pod's interface: */
	int promisc, allmulti; /* -1: not given, 0, 1 */
	uint32_t tx_queue_len;
	bool has_tx_queue_len;
	uint32_t mtu; /* of this end alone; 0: as the other one */
};

/* A rate as configurations give it; 0: none. */
struct flat_bandwidth {
	uint64_t rate;	/* bits per second */
	uint64_t burst; /* bits; 0: flatnet's choice */
};

struct flat_conf {
	bool reference; /* see struct flat_defaults */
	const char *bridge;
	char gateway_link[FLAT_IFNAME_LEN]; /* see flat_name_gateway() */
	bool is_gateway, is_default_gateway, force_address, ip_masq;
	bool hairpin, promisc, enable_dad, disable_container_interface, port_isolation;
	uint32_t mtu; /* 0: not given and not known */
	uint16_t vlan;
	struct flat_json_list vlan_trunk; /* struct flat_vlan_range */
	bool preserve_default_vlan;
	enum flat_bridge_mode mode;
	struct flat_mac mac;
	bool has_mac;
	struct flat_annotations annotations;
	struct flat_dns dns;
	struct flat_json_list ports; /* struct flat_port_mapping */
	bool ports_snat, ports_masquerade_all;
	uint32_t ports_mark;				   /* 0: none */
	const char *ports_conditions4, *ports_conditions6; /* nft expressions; NULL: none */
	struct flat_tuning tuning;
	struct flat_bandwidth ingress, egress; /* to the pod, from the pod */
	bool mac_spoof_check, ip_spoof_check;
	enum flat_ingress_policy ingress_policy;

	enum flat_ipam_kind ipam_kind;
	bool ipam_over_link;	    /* it talks over the pod's link, which has to be there before */
	struct flat_ipam_conf ipam; /* when FLAT_IPAM_OWN */

	struct flat_json_list cluster_cidrs; /* struct flat_prefix; at least the pods' subnets */
	struct flat_json_list
		pod_cidrs; /* struct flat_prefix: this node's pods; empty: as the lease tells */
	struct flat_json_list nodes;  /* struct flat_node; empty: no list was given */
	const struct flat_node *self; /* this node among them */
};

/* Decodes and validates everything that ADD, CHECK and STATUS need: keys of the configuration,
 * runtimeConfig, args.cni and CNI_ARGS in the spec's precedence, nodes or subnet file, the
 * underlay's MTU. Memory is req's arena. Code 7 for what is wrong in the configuration, 2 for what
 * is not supported, 11 while the node's subnet is not known yet. */
int flat_conf_parse(struct flat_request *req, const struct flat_defaults *defaults,
		    const struct flat_host *host, struct flat_net *net, const struct flat_log *log,
		    struct flat_conf *ret_conf, struct flat_err *err);
/* The tables of all keys that a configuration of type flatnet may have, one after the other, NULL
 * after the last. A key may be in several: runtimeConfig is. */
const struct flat_json_field *flat_conf_table(size_t i);
/* Code 7 names a key of the request's configuration that nobody knows, and the one that it is like:
 * for who looks at a file that a person wrote. Runtimes may send what they like. */
int flat_conf_check_keys(const struct flat_request *req, struct flat_err *err);
/* The little that DEL and GC need, and that must work whatever has become of the rest: bridge, kind
 * of IPAM, data directory. */
void flat_conf_parse_lenient(struct flat_request *req, const struct flat_defaults *defaults,
			     struct flat_conf *ret_conf);

/* ---- names -------------------------------------------------------------------------------------
 */

/* Host veth: "veth" and 11 hex digits (44 bits) of the hash. */
void flat_name_host_veth(const char *network, const char *container_id, const char *ifname,
			 char ret_name[static FLAT_IFNAME_LEN]);

/* The link with the node's addresses for pods of this VLAN of this bridge, and its peer, a port of
 * the bridge. VLAN 0: the bridge itself, and "". */
void flat_name_gateway(const char *bridge, uint16_t vlan, char ret_name[static FLAT_IFNAME_LEN],
		       char ret_port[static FLAT_IFNAME_LEN]);

/* The IFB that what a host veth receives is led through: "fbw" and the same digits. */
void flat_name_ifb(const char *host_ifname, char ret_name[static FLAT_IFNAME_LEN]);
/* Is it a name that this can be told of: a host veth of ours, or "veth" and 8 hex digits, as the
 * reference plugins call theirs? */
bool flat_name_has_ifb(const char *host_ifname);

/* May it be such a name? */
bool flat_name_is_host_veth(const char *name);

/* The host veth's ifalias: "flatnet NETWORK CONTAINERID IFNAME IP[,IP...] [NAMESPACE/POD]". A
 * network name or container ID that makes it too long is written as "~" and 16 hex digits of its
 * hash. */
struct flat_alias {
	char network[256], container_id[256], ifname[FLAT_IFNAME_LEN];
	struct flat_ip ips[FLAT_MAX_LEASE];
	size_t ip_count;
	bool cut; /* so full that it may not name all of the pod's addresses */
};
void flat_alias_format(const char *network, const char *container_id, const char *ifname,
		       const struct flat_result_ip *ips, size_t ip_count, const char *pod_namespace,
		       const char *pod_name, char ret_text[static FLAT_ALIAS_LEN]);
/* False: not an alias of ours. */
bool flat_alias_parse(const char *text, struct flat_alias *ret_alias);
/* The pod that an alias of ours names, "NAMESPACE/POD", inside text; NULL: none. */
const char *flat_alias_pod(const char *text);
/* Is `written` (a field of an alias) this name, in clear or hashed? */
bool flat_alias_names(const char *written, const char *name);

/* ---- the attachment ----------------------------------------------------------------------------
 */

enum { FLAT_MAX_POD_ROUTES = 256 };

struct flat_attachment {
	const char *network, *container_id, *ifname, *netns;
	char host_ifname[FLAT_IFNAME_LEN];
	char alias[FLAT_ALIAS_LEN];
	struct flat_mac pod_mac; /* the host end has the bridge's: see apply.c */

	struct {
		const char *name;
		struct flat_mac mac;
		struct flat_prefix
			gateways[FLAT_MAX_LEASE]; /* addresses of the node on the gateway link */
		size_t gateway_count;
		/* those of this network's other ranges, which its other pods may use */
		const struct flat_ip *siblings;
		size_t sibling_count;
		bool promisc, force_address, routed;
	} bridge;

	/* the link with the node's addresses: the bridge itself, or BRIDGE.VLAN, the end of a veth
	 * pair whose other end is a port of the bridge */
	struct {
		char name[FLAT_IFNAME_LEN], port[FLAT_IFNAME_LEN]; /* port "": it is the bridge */
		struct flat_mac mac, port_mac;
	} gateway;

	uint32_t mtu; /* of the bridge when it is created, and of both ends of the veth; 0: the
			 kernel's */
	bool hairpin, isolated;
	bool pod_up, enable_dad;
	bool link_local; /* also without an IPv6 address the pod has one of its link */
	uint16_t vlan;
	const struct flat_vlan_range *vlan_trunk;
	size_t vlan_trunk_count;
	bool preserve_default_vlan;

	struct flat_result_ip ips[FLAT_MAX_LEASE]; /* interface: 2, the pod's in the result */
	size_t ip_count;
	struct flat_net_route
		pod_routes[FLAT_MAX_POD_ROUTES]; /* in the order in which they are added */
	size_t pod_route_count;
	struct flat_route result_routes[FLAT_MAX_POD_ROUTES]; /* what the result tells: the IPAM's,
								 and the default */
	size_t result_route_count;
	struct flat_dns dns;

	struct flat_ports ports; /* count 0: none */
	bool ports_loopback;	 /* from 127.0.0.1, too */
	struct flat_tuning tuning;

	struct flat_shaping shaping; /* rates 0: none; the IFB's name is there in any case */
	char ifb_alias[FLAT_ALIAS_LEN];
	struct flat_guard guard; /* owner NULL: neither checks nor a policy */

	/* node-wide: */
	bool forward4, forward6;
	struct flat_node_state nodes; /* the routes to the others, in req's arena; routes NULL: no
					 list of nodes was given */
	struct flat_nft_network nft;  /* name NULL: no rules wanted */
};

/* Configuration and addresses to attachment. lease is the IPAM's result (own or foreign): ips,
 * routes, dns. Pure: looks at no kernel. Code 7. Memory is req's arena. */
int flat_plan_attachment(struct flat_request *req, const struct flat_conf *conf,
			 const struct flat_result *lease, struct flat_attachment *ret_attachment,
			 struct flat_err *err);
/* As far as that goes without addresses: the link alone, for an IPAM that talks over it. A MAC that
 * is not configured does not derive from an address then: keep it for flat_plan_attachment(). */
void flat_plan_link(struct flat_request *req, const struct flat_conf *conf,
		    struct flat_attachment *ret_attachment);
/* The result of ADD: interfaces bridge, host veth, pod, then the gateway and the IFB where there
 * are such; ips; routes; dns. Memory is req's arena. */
int flat_plan_result(struct flat_request *req, const struct flat_attachment *attachment,
		     struct flat_result *ret_result, struct flat_err *err);

/* What a pod may be given beside its link, addresses and routes; each has a file in lib/plan. */
enum {
	FLAT_FEATURE_PORTS = 1 << 0,	 /* host ports */
	FLAT_FEATURE_TUNING = 1 << 1,	 /* sysctls, and what the pod's interface is born with */
	FLAT_FEATURE_BANDWIDTH = 1 << 2, /* rates */
	FLAT_FEATURE_GUARD = 1 << 3,	 /* what it may send, and who may reach it */
	FLAT_FEATURES_ALL = ~0,
};

/* What an apply has made so far, for the way back. Initialise with FLAT_APPLIED. */
struct flat_applied {
	int lock_fd;   /* shared among ADDs on one bridge; see apply.c */
	void *reserve; /* memory that the way back may need when there is no other */
	int veth_index, bridge_index, gateway_index;
	/* made, or asked for without an answer */
	bool veth_made, bridge_made, gateway_made, nft_made;
	unsigned features; /* FLAT_FEATURE_*, likewise */
	bool port_chains_made;
	int netns_fd;	     /* borrowed: the pod's, where its sysctls were written */
	unsigned guard_made; /* FLAT_GUARD_MADE_* */
	struct flat_prefix gateways[FLAT_MAX_LEASE];
	size_t gateway_count;
	struct flat_repairs routes; /* to other nodes */
};
#define FLAT_APPLIED                                                                               \
	{                                                                                          \
		.lock_fd = -1, .netns_fd = -1                                                      \
	}

/* ADD: makes it so. On failure call flat_attachment_undo() with what was made. netns_fd is the
 * pod's namespace. */
int flat_attachment_apply(struct flat_attachment *attachment, struct flat_net *net, int netns_fd,
			  const struct flat_log *log, struct flat_applied *applied,
			  struct flat_err *err);
/* Only the bridge and the link, until it forwards packets: as flat_plan_link() has it. An apply
 * after it, with the same applied, does the rest. */
int flat_attachment_apply_link(struct flat_attachment *attachment, struct flat_net *net,
			       int netns_fd, const struct flat_log *log,
			       struct flat_applied *applied, struct flat_err *err);
/* Takes back what this apply made. Node-wide things (bridge, its address, routes to nodes, rules)
 * only when no other attachment is there or on its way. Cannot fail: what goes wrong is logged. */
void flat_attachment_undo(const struct flat_attachment *attachment, struct flat_net *net,
			  struct flat_applied *applied, const struct flat_log *log);
void flat_applied_close(struct flat_applied *applied);

/* CHECK: compares the attachment with the kernel, changes nothing. Code FLAT_CODE_MISMATCH names
 * the first difference. */
int flat_attachment_verify(const struct flat_attachment *attachment, struct flat_net *net,
			   int netns_fd, struct flat_err *err);

/* DEL: removes the features of (network, container_id, ifname), its host veth, and with that the
 * pod's interface. 1: the link was there; 0: gone is success; a link of that name which belongs to
 * somebody else is left alone. */
int flat_attachment_remove(struct flat_net *net, const char *network, const char *container_id,
			   const char *ifname, struct flat_err *err);

/* DEL of what the reference bridge plugin made for it: the port of `bridge` that is called
 * host_ifname (NULL: not known), else that whose peer is `ifname` in netns ("": gone), and the
 * rules of its ipMasq. 1: there was something; 0: there was nothing. What is not the reference's is
 * left alone, and so are rules of iptables-legacy. */
int flat_attachment_remove_reference(struct flat_net *net, const struct flat_request *req,
				     const char *bridge, const char *host_ifname,
				     struct flat_err *err);

/* ---- a feature alone, behind another plugin of a chain -----------------------------------------
 */

/* What prevResult and the pod's interface tell, as an attachment that has this feature
 * (FLAT_FEATURE_*) and else nothing. What a feature makes belongs to the node's end of the
 * interface, whoever made that and whatever its name. 1; 0: the configuration wants nothing of it.
 * Codes 7, and 2 for an interface without such an end. *applied then knows the link. */
int flat_chained_plan(struct flat_request *req, unsigned feature, struct flat_net *net,
		      int netns_fd, const struct flat_log *log,
		      struct flat_attachment *ret_attachment, struct flat_applied *applied,
		      struct flat_err *err);
/* On failure call flat_chained_undo(). */
int flat_chained_apply(const struct flat_attachment *attachment, struct flat_net *net, int netns_fd,
		       const struct flat_log *log, struct flat_applied *applied,
		       struct flat_err *err);
void flat_chained_undo(const struct flat_attachment *attachment, struct flat_net *net,
		       struct flat_applied *applied, const struct flat_log *log);
/* What the reference plugin made of the same is right, too. */
int flat_chained_verify(struct flat_request *req, struct flat_attachment *attachment,
			struct flat_net *net, int netns_fd, struct flat_err *err);
/* DEL, with what the reference plugin made. */
int flat_chained_remove(struct flat_request *req, unsigned feature, struct flat_net *net,
			const struct flat_log *log, struct flat_err *err);
int flat_chained_sweep(struct flat_net *net, unsigned feature, const struct flat_log *log,
		       struct flat_err *err);

/* Tuning of an interface that is there already. */
struct flat_retuning {
	struct flat_tuning tuning; /* mtu: of the interface */
	struct flat_mac mac;
	bool has_mac;
	const char *data_dir; /* where it is written down what was, for DEL */
};
int flat_retuning_parse(struct flat_request *req, const struct flat_log *log,
			struct flat_retuning *ret_retuning, struct flat_err *err);
/* Makes it so, or nothing. */
int flat_retuning_apply(struct flat_request *req, const struct flat_retuning *retuning,
			int netns_fd, const struct flat_log *log, struct flat_err *err);
/* The way back of an ADD. What goes wrong is logged. */
void flat_retuning_undo(struct flat_request *req, const struct flat_retuning *retuning,
			int netns_fd, const struct flat_log *log);
int flat_retuning_verify(struct flat_request *req, const struct flat_retuning *retuning,
			 int netns_fd, struct flat_err *err);
/* DEL: the interface is as it was, where the namespace (-1: gone) and it are still there. Sysctls
 * stay, as with the reference. */
int flat_retuning_remove(struct flat_request *req, int netns_fd, struct flat_err *err);

/* ---- witness: what the links tell about reservations -------------------------------------------
 */

struct flat_witness_state;
/* net and strings are borrowed. A link with the derived name and no alias is of an ADD that was
 * killed, or has not come further yet; trust_bare: it stands for its reservation. */
int flat_witness_open(struct flat_net *net, const char *network, const char *bridge,
		      bool trust_bare, struct flat_ipam_witness *ret_witness, struct flat_err *err);
void flat_witness_close(struct flat_ipam_witness *witness);

/* Removes a host veth without an alias, whose ADD was killed; at once by its index, so that no
 * other link of that name is hit. in_store: its reservation was there before the call and not in
 * flight, so a link that is still bare now is dead. Else the lock of its bridge, which every ADD
 * shares, must be free, and the link must look like one of ours. 1: removed; 0: it is gone, it has
 * an alias now, or its ADD may still be at work. */
int flat_attachment_remove_bare(struct flat_net *net, int index, const char *name, bool in_store,
				struct flat_err *err);

/* GC: removes the host veths of this network that are whole (an ADD signs with the alias when all
 * else is done) and not of a valid attachment. Returns how many. */
int flat_attachment_sweep(struct flat_net *net, const char *network,
			  const struct flat_json_list *valid, struct flat_err *err);

/* What stands for links that went without a DEL, with their pod's namespace: host ports and other
 * features. Returns how many such things it removed. */
int flat_features_sweep(struct flat_net *net, const struct flat_log *log, struct flat_err *err);

/* Features by number, NULL after the last. */
struct flat_feature;
const struct flat_feature *flat_feature_at(size_t i);
