/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net - the kernel: links, their rates, addresses, routes, neighbours (rtnetlink), sysctls, network
 * namespaces, nf_tables.
 *
 * A struct flat_net is one conversation with one network namespace: that of the thread when it was
 * opened. Reads go out at once; changes are queued and sent by flat_net_commit() in one sendmsg
 * (the kernel takes them in order, each with its own answer). Error messages are "what was tried:
 * what the kernel said", with the extended ack in the details; err->sys is the true errno. Code:
 * FLAT_CODE_NETWORK. Lookups return 1 = found, 0 = there is none, negative errno = could not look.
 */
#pragma once

#include <flatnet/base.h>

/* Every route that flatnet adds on a node carries this protocol number (rtm_protocol, RTPROT_* in
 * linux/rtnetlink.h; 0xf1 = 241 is used by nobody in iproute2's rt_protos). */
enum { FLAT_RTPROT = 0xf1 };

/* ---- namespaces and conversations --------------------------------------------------------------
 */

/* Opens a network namespace by path. -ENOENT: no such file; -EINVAL: a file that is no network
 * namespace; code FLAT_CODE_NETNS. */
int flat_netns_open(const char *path, int *ret_fd, struct flat_err *err);
/* Is it the namespace that this thread is in? */
int flat_netns_is_own(int fd);
/* Moves this thread; *ret_back is the namespace it was in, for the way back. */
int flat_netns_enter(int fd, int *ret_back, struct flat_err *err);
/* Moves this thread back and closes *back. Cannot fail in a way that could be survived: aborts
 * then. */
void flat_netns_leave(int *back);

/* The number that net's namespace knows another one by (RTM_GETNSID): 1 = *ret_nsid, 0 = it has
 * none. */
struct flat_net;
int flat_netns_id(struct flat_net *net, int netns_fd, int *ret_nsid, struct flat_err *err);

int flat_net_open(struct flat_net **ret_net, struct flat_err *err);
void flat_net_close(struct flat_net *net); /* NULL is fine; queued changes are dropped */
void flat_net_closep(struct flat_net **net);
#define flat_auto_net __attribute__((cleanup(flat_net_closep))) struct flat_net

/* Sends what is queued since the last commit; waits for all answers; returns the first error (later
 * messages have been tried too). A queueing function that failed (message too large, out of memory)
 * makes the commit fail and nothing is sent. */
int flat_net_commit(struct flat_net *net, struct flat_err *err);

/* How a queued change takes the kernel's "no". */
enum flat_accept {
	FLAT_STRICT = 0,
	FLAT_EXISTS_OK = 1,	 /* EEXIST is success */
	FLAT_GONE_OK = 2,	 /* ENODEV, ENOENT, ESRCH, EADDRNOTAVAIL are success */
	FLAT_UNSUPPORTED_OK = 8, /* EAFNOSUPPORT, EOPNOTSUPP are: a kernel without IPv6, say */
};

/* ---- links -------------------------------------------------------------------------------------
 */

enum { FLAT_ALIAS_LEN = 256 }; /* IFALIASZ */

/* A VXLAN device: RFC 7348; drivers/net/vxlan in the kernel. */
struct flat_vxlan {
	uint32_t vni;
	uint16_t port;	      /* UDP destination, host byte order */
	int underlay;	      /* the link that carries it; 0: whichever the route takes */
	struct flat_ip local; /* the source of what it sends; family 0: the kernel's choice */
	bool learning;	      /* fills its forwarding database from what it receives */
	bool gbp, external;   /* output only: settings that flatnet never makes */
};

struct flat_link {
	int index, master,
		peer_index; /* 0: none; peer_index is IFLA_LINK, an index in the peer's namespace */
	char name[FLAT_IFNAME_LEN];
	char kind[16]; /* IFLA_INFO_KIND: "bridge", "veth"; "" for physical devices */
	char alias[FLAT_ALIAS_LEN];
	struct flat_mac mac;
	bool has_mac; /* false: the hardware address is not 6 bytes long */
	uint32_t mtu, tx_queue_len;
	bool up, running, loopback, promisc, allmulti;
	struct { /* of a bridge port; all zero otherwise */
		bool present, hairpin, isolated, bridges_reserved;
		uint8_t state; /* BR_STATE_* */
	} port;
	bool vlan_filtering; /* of a bridge */
	int peer_nsid; /* IFLA_LINK_NETNSID: the namespace of the peer, see flat_netns_id(); -1:
			  this one, or none */
	struct flat_vxlan vxlan; /* of a link of kind "vxlan"; all zero otherwise */
};

int flat_link_by_name(struct flat_net *net, const char *name, struct flat_link *ret_link,
		      struct flat_err *err);
/* The index alone (SIOCGIFINDEX): a full answer names the peer's namespace, and looks through all
 * of them for that. */
int flat_link_find_index(struct flat_net *net, const char *name, int *ret_index,
			 struct flat_err *err);
int flat_link_by_index(struct flat_net *net, int index, struct flat_link *ret_link,
		       struct flat_err *err);
/* Dumps the links of a kind (NULL: all) with this master (0: any). fn's negative return stops the
 * calls and is returned. */
int flat_link_each(struct flat_net *net, const char *kind, int master,
		   int (*fn)(void *arg, const struct flat_link *link), void *arg,
		   struct flat_err *err);

/* Queue: a bridge, up, with an explicit MAC (so that udev's MACAddressPolicy leaves it alone), and
 * without multicast snooping. mtu 0: the kernel's. */
void flat_link_add_bridge(struct flat_net *net, const char *name, const struct flat_mac *mac,
			  uint32_t mtu, bool vlan_filtering, enum flat_accept accept);

struct flat_veth {
	const char *host_name; /* down, port of master (0: none) */
	int master;
	struct flat_mac host_mac;
	const char *pod_name; /* born in netns_fd, down: veth_open() of a peer without partner is
				 ENOTCONN */
	struct flat_mac pod_mac;
	bool pod_promisc, pod_allmulti;
	const uint32_t *pod_tx_queue_len; /* NULL: the kernel's */
	int netns_fd;			  /* -1: this namespace */
	uint32_t mtu, pod_mtu;		  /* 0: the kernel's; pod_mtu 0: as the other end */
};
void flat_link_add_veth(struct flat_net *net, const struct flat_veth *veth);

/* Queue: a VXLAN device, up, with an explicit MAC, without an IPv6 link-local address. With
 * FLAT_EXISTS_OK one of this name and VNI is brought up, with what else it has; any other link is
 * refused and left alone (EOPNOTSUPP). */
void flat_link_add_vxlan(struct flat_net *net, const char *name, const struct flat_mac *mac,
			 uint32_t mtu, const struct flat_vxlan *vxlan, enum flat_accept accept);
/* Does the link compute checksums of what it sends (tx-checksum-ip-generic, ethtool(8))? 1, 0; a
 * link without that feature: 0, and setting it is EOPNOTSUPP. By ioctl, at once, in this
 * thread's namespace. */
int flat_link_get_tx_checksum(const char *name, struct flat_err *err);
int flat_link_set_tx_checksum(const char *name, bool on, struct flat_err *err);

/* What to change in a link; what is not set stays. */
struct flat_link_change {
	const char *alias;	   /* NULL: stays */
	int up, promisc, allmulti; /* -1: stays, 0, 1 */
	int hairpin, isolated;	   /* as above; of a bridge port */
	/* likewise: what comes for 01:80:c2:00:00:0X goes the way of all frames. Else it goes to
	 * the node past some or all hooks of nf_tables, and teaches the bridge its source */
	int bridges_reserved;
	uint32_t mtu;		      /* 0: stays */
	const struct flat_mac *mac;   /* NULL: stays */
	const uint32_t *tx_queue_len; /* NULL: stays */
	int master;		      /* -1: stays, 0: none, index */
	int arp_notify;		      /* -1: stays; net.ipv4.conf.LINK.arp_notify, without a file */
	bool no_ipv6ll; /* no IPv6 link-local address when it comes up: tell before `up` */
};
#define FLAT_LINK_CHANGE                                                                           \
	{                                                                                          \
		.up = -1, .promisc = -1, .allmulti = -1, .hairpin = -1, .isolated = -1,            \
		.bridges_reserved = -1, .master = -1, .arp_notify = -1                             \
	}
void flat_link_change(struct flat_net *net, int index, const struct flat_link_change *change,
		      enum flat_accept accept);
void flat_link_del(struct flat_net *net, int index, enum flat_accept accept);
/* Deletes them all at once, not queued: gathered in a link group, so that the kernel waits for RCU
 * once and not for each. Gone is success. */
int flat_link_del_many(struct flat_net *net, const int *indices, size_t count,
		       struct flat_err *err);

/* ---- shaping: how fast a link may send and receive ---------------------------------------------
 */

/* A token bucket (tc-tbf(8)): `burst` bytes at once after a pause, then `rate` bytes a second; of
 * what comes faster, `limit` bytes wait and the rest is dropped. */
struct flat_rate {
	uint64_t rate; /* 0: as fast as it can */
	uint32_t burst, limit;
};

struct flat_shaping {
	struct flat_rate to;   /* what the link sends: to its peer, the pod */
	struct flat_rate from; /* what it receives, by way of an IFB; the rest is for that alone */
	char ifb[FLAT_IFNAME_LEN];
	struct flat_mac ifb_mac;
	const char *alias; /* of the IFB: whose it is, for people */
	uint32_t mtu;	   /* likewise; 0: the kernel's */
};

/* Makes it so, for a link that was made just now: an IFB of that name is a dead one's, and is
 * replaced. After a failure the caller deletes both links. Code 2 where the kernel lacks what this
 * takes. */
int flat_shape_link(struct flat_net *net, int index, const struct flat_shaping *want,
		    struct flat_err *err);
enum { FLAT_SHAPE_WHAT = 160 };
/* 1: as wanted; 0: not, and the text says what. Changes nothing. */
int flat_shape_verify(struct flat_net *net, const char *link, const struct flat_shaping *want,
		      char ret_what[static FLAT_SHAPE_WHAT], struct flat_err *err);

/* ---- VLANs of a bridge port (of a bridge that filters) ------------------------------------------
 */

enum { FLAT_VLAN_MAX = 4094 };
struct flat_vlans {
	uint8_t member[(FLAT_VLAN_MAX + 8) / 8], untagged[(FLAT_VLAN_MAX + 8) / 8]; /* a bit each */
	uint16_t native; /* the PVID: of what comes without a tag; 0: none */
};
bool flat_vlan_has(const uint8_t *set, unsigned id);
void flat_vlan_add(struct flat_vlans *vlans, unsigned min, unsigned max); /* tagged */
void flat_vlan_add_native(struct flat_vlans *vlans, unsigned id);	  /* PVID, untagged */
bool flat_vlan_equal(const struct flat_vlans *a, const struct flat_vlans *b);
/* Queue: the port is in these VLANs, and in no others unless keep. */
void flat_vlan_set(struct flat_net *net, int index, const struct flat_vlans *vlans, bool keep);
/* -EOPNOTSUPP: a kernel without VLAN filtering, or older than Linux 5.6. */
int flat_vlan_get(struct flat_net *net, int index, struct flat_vlans *ret_vlans,
		  struct flat_err *err);

/* ---- addresses, routes, neighbours -------------------------------------------------------------
 */

struct flat_addr {
	int index; /* of the link */
	struct flat_prefix address;
	uint32_t flags; /* IFA_F_* */
};
/* Dumps the addresses of one link (index 0: all), of one family (0: both). */
int flat_addr_each(struct flat_net *net, int index, int family,
		   int (*fn)(void *arg, const struct flat_addr *addr), void *arg,
		   struct flat_err *err);
enum flat_addr_options {
	FLAT_ADDR_PREFIX_ROUTE = 1, /* with the route to its subnet; else IFA_F_NOPREFIXROUTE */
	FLAT_ADDR_DAD =
		2, /* IPv6 with duplicate detection; else IFA_F_NODAD: unique by construction */
};
/* Queue. */
void flat_addr_add(struct flat_net *net, int index, const struct flat_prefix *address,
		   unsigned options, enum flat_accept accept);
void flat_addr_del(struct flat_net *net, int index, const struct flat_prefix *address,
		   enum flat_accept accept);

struct flat_net_route {
	struct flat_route route;
	int oif;	  /* 0: the kernel finds it by the gateway */
	uint8_t protocol; /* 0: RTPROT_BOOT */
	uint8_t type;	  /* RTN_*; 0: unicast (output of dumps: the true one) */
	bool onlink;
};
/* Dumps the main table's (or table's, or all tables') routes of a family (0: both), out of a link
 * (oif 0: any), with a protocol (0: any). */
#define FLAT_ANY_TABLE UINT32_MAX
int flat_route_each(struct flat_net *net, int family, int oif, uint8_t protocol, uint32_t table,
		    int (*fn)(void *arg, const struct flat_net_route *route), void *arg,
		    struct flat_err *err);
void flat_route_add(struct flat_net *net, const struct flat_net_route *route, bool replace,
		    enum flat_accept accept);
void flat_route_del(struct flat_net *net, const struct flat_net_route *route,
		    enum flat_accept accept);
/* How would the kernel send to this address (RTM_GETROUTE)? 1: *ret_route has type, oif, gw; 0:
 * unreachable. */
int flat_route_lookup(struct flat_net *net, const struct flat_ip *ip,
		      struct flat_net_route *ret_route, struct flat_err *err);

/* Queue: corrects the neighbour entry that is there, if there is one: a reused address must not
 * meet a stale one. Makes none: the table is small, and one for all namespaces (gc_thresh3). */
void flat_neigh_replace(struct flat_net *net, int index, const struct flat_ip *ip,
			const struct flat_mac *mac);

struct flat_neigh {
	int index;
	struct flat_ip ip;
	struct flat_mac mac;
	bool has_mac;
	uint16_t state; /* NUD_* */
	uint8_t flags;	/* NTF_* */
};
/* Dumps the neighbours of one link, of one family (0: both). */
int flat_neigh_each(struct flat_net *net, int index, int family,
		    int (*fn)(void *arg, const struct flat_neigh *neigh), void *arg,
		    struct flat_err *err);
/* Queue: a permanent entry, made or corrected. */
void flat_neigh_set(struct flat_net *net, int index, const struct flat_ip *ip,
		    const struct flat_mac *mac);
void flat_neigh_del(struct flat_net *net, int index, const struct flat_ip *ip,
		    enum flat_accept accept);
/* How many entries this namespace's tables have, and at which size the kernel refuses more
 * (gc_thresh3, one for all namespaces), of a family. */
int flat_neigh_count(struct flat_net *net, int family, uint32_t *ret_count, uint32_t *ret_limit,
		     struct flat_err *err);

/* The forwarding database of a VXLAN device: which host has this MAC. */
struct flat_fdb {
	int index;
	struct flat_mac mac; /* zero: where what is flooded goes */
	/* family 0: another way, that flatnet never makes (with its own port, VNI or link, or a
	 * group of next hops) */
	struct flat_ip dst;
	uint16_t state; /* NUD_* */
	uint8_t flags;	/* NTF_* */
};
int flat_fdb_each(struct flat_net *net, int index, int (*fn)(void *arg, const struct flat_fdb *fdb),
		  void *arg, struct flat_err *err);
/* Queue: a permanent entry of the device itself, made or corrected: the MAC is at dst and nowhere
 * else. A group of next hops alone has to be deleted before: the kernel keeps it, without a word.
 */
void flat_fdb_set(struct flat_net *net, int index, const struct flat_mac *mac,
		  const struct flat_ip *dst);
/* Queue. dst of family 0: wherever it is. */
void flat_fdb_del(struct flat_net *net, int index, const struct flat_mac *mac,
		  const struct flat_ip *dst, enum flat_accept accept);

/* ---- events ------------------------------------------------------------------------------------
 */

enum flat_event_kind {
	FLAT_EVENT_LINK,  /* a link came, changed or went */
	FLAT_EVENT_ADDR,  /* an address */
	FLAT_EVENT_ROUTE, /* a route of the main table */
	FLAT_EVENT_NEIGH, /* a neighbour, or an entry of a VXLAN device's forwarding database (fdb)
			   */
	FLAT_EVENT_RULES, /* nf_tables: tables, chains, rules; sets are not told */
	FLAT_EVENT_LOST,  /* the kernel had more to tell than fits (ENOBUFS): look at everything */
};

/* Only what belongs to the kind is set. */
struct flat_event {
	enum flat_event_kind kind;
	bool gone;
	struct flat_link link;	     /* LINK */
	struct flat_addr addr;	     /* ADDR */
	struct flat_net_route route; /* ROUTE */
	bool fdb;		     /* NEIGH: an entry of a forwarding database, else neigh */
	union {
		struct flat_neigh neigh;
		struct flat_fdb entry;
	};
	struct {		/* RULES */
		uint8_t family; /* NFPROTO_* */
		char table[32];
	} rules;
};

/* Which kinds: bits 1 << FLAT_EVENT_*; LOST is always told. Of this thread's namespace. What the
 * kernel does not tell: IPv4 routes that go with their link or its address; the settings of a
 * bridge port. */
struct flat_monitor;
int flat_monitor_open(unsigned kinds, struct flat_monitor **ret_monitor, struct flat_err *err);
void flat_monitor_close(struct flat_monitor *monitor); /* NULL is fine */
/* Descriptors to poll for reading: at most two; returns how many. */
size_t flat_monitor_fds(const struct flat_monitor *monitor, int ret_fds[static 2]);
/* Tells what has happened since the last call, without waiting; at most a bounded number of events
 * a call (the descriptor stays readable when there are more). A lost event is told once, after the
 * socket has been emptied. Returns how many. */
int flat_monitor_read(struct flat_monitor *monitor,
		      void (*fn)(void *arg, const struct flat_event *event), void *arg,
		      struct flat_err *err);

/* Which of these addresses answer on this link (ARP request, neighbour solicitation), within
 * timeout_ms? The link must have an address to ask from for IPv6; ARP probes are sent with sender
 * 0.0.0.0 (RFC 5227). */
int flat_net_probe(int index, const struct flat_mac *own_mac, const struct flat_ip *ips,
		   size_t count, int timeout_ms, bool *ret_answers, struct flat_err *err);

/* Which of these addresses answer an echo request within timeout_ms, by whatever way? *ret_rtt_us
 * has the microseconds of each; -1: no answer. Needs CAP_NET_RAW. */
int flat_net_ping(const struct flat_ip *ips, size_t count, int timeout_ms, int32_t *ret_rtt_us,
		  struct flat_err *err);

/* ---- sysctls of this thread's namespace --------------------------------------------------------
 */

/* path below /proc/sys, as "net/ipv4/ip_forward". Written only when it differs. -ENOENT: the kernel
 * has no such (err not set). Returns 1 when it was written, 0 when it was so already. */
int flat_sysctl_set(const char *path, const char *value, struct flat_err *err);
/* Written in any case; also what can be written only. "" as an empty line. */
int flat_sysctl_write(const char *path, const char *value, struct flat_err *err);
/* The value without its newline, as much as fits; -ENOENT as above. Returns its length. */
int flat_sysctl_get(const char *path, char *buf, size_t size, struct flat_err *err);

/* ---- nf_tables: node-wide rules ----------------------------------------------------------------
 */

enum { FLAT_NFT_MAX_PREFIXES = 24 }; /* of each list; all of them fit one rule */

/* What one network wants from the node. The rules are in table `inet flatnet`, tagged with the
 * network's name and a digest of their content, so that a dump of the tags tells whether they are
 * as wanted. Where the chain FORWARD of iptables' table `filter` has the policy drop, accept rules
 * go there, too: an accept elsewhere does not save a packet from it. */
struct flat_nft_network {
	const char *name;
	const struct flat_prefix *cluster; /* the flat network: traffic inside is never masqueraded,
					      forwarding is accepted */
	size_t cluster_count;
	const struct flat_prefix
		*pods; /* this node's pods: what leaves from here to the outside is masqueraded */
	size_t pod_count;
	bool masquerade;
	bool forward; /* accept forwarding from and to `cluster` */
};

/* Makes it so: one dump when it is so already (returns 0), else one transaction (returns 1), tried
 * again a bounded number of times when others change the rules in between (NFNL_BATCH_GENID). */
int flat_nft_ensure(const struct flat_nft_network *want, struct flat_err *err);
/* 1: as wanted; 0: not, *ret_what (static text) names the first difference. Changes nothing. */
int flat_nft_verify(const struct flat_nft_network *want, const char **ret_what,
		    struct flat_err *err);
enum { FLAT_NFT_BLOCKER = 512 };
/* Does anybody else drop what this network's pods forward, whom no rule of ours can overcome:
 * firewalld, a base chain with the policy drop, iptables-legacy? 1: the text names one, and the
 * cure. They may have been told of the pods already, so this is a hint. */
int flat_nft_find_blocker(const struct flat_nft_network *of, char ret_what[static FLAT_NFT_BLOCKER],
			  struct flat_err *err);
/* Removes this network's rules, and the table with the last of them. Nothing there is success. */
int flat_nft_remove(const char *name, struct flat_err *err);

/* Removes the rules that the reference plugins made for the ipMasq of this attachment, with
 * iptables (iptables-nft; by network and container alone, as it does) or nft. Nothing there is
 * success. Returns how many there were. */
int flat_nft_remove_reference_masquerade(const char *network, const char *container_id,
					 const char *ifname, struct flat_err *err);
/* How many it made for host ports of this container (of nft: of all its networks, as it does);
 * remove: they go. */
int flat_nft_reference_ports(const char *network, const char *container_id, bool remove,
			     struct flat_err *err);

/* ---- nf_tables: host ports ---------------------------------------------------------------------
 */

/* Connections to this port of the node go to that port of a pod. */
struct flat_port {
	uint8_t protocol;	 /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP */
	uint16_t port, pod_port; /* host byte order */
	struct flat_ip host;	 /* an address of the node; only its family set: any of them */
	struct flat_ip pod;	 /* of the same family */
};

/* All of one attachment. They are elements of maps in table `inet flatnet`, whose comment says
 * whose they are: found by any later process, and of no cost to packets however many there are. */
struct flat_ports {
	const char *owner; /* its host veth: the ports of a link that is gone are nobody's */
	const char *label; /* who that is, for people: "NAMESPACE/POD CONTAINERID" */
	/* the bridge over which neighbours' answers would pass by the node's IP layer; NULL: none
	 */
	const char *bridge;
	const struct flat_port *items;
	size_t count;
	bool snat;	     /* to itself, and from the node's loopback: with the node's address */
	bool masquerade_all; /* from anywhere */
	uint32_t mark;	     /* these bits are set in the mark of what is masqueraded; 0: none */
	/* from the node's ::1, too; of all ports of the node, as whoever came last says it. Where
	 * an answer cannot find back, such a connection is left alone, and so refused at once. */
	bool loopback6;
	/* nft expressions, of connections that may use the ports at all; NULL: all */
	const char *conditions4, *conditions6;
};

enum { FLAT_MAX_CONDITIONS = 1024 };
/* Is it one list of expressions, without an end or a verdict of its own? Code 7, with the key. What
 * the expressions mean is seen only when they are written. */
int flat_conditions_check(const char *key, const char *text, struct flat_err *err);

/* Makes it so, in one transaction, with the chains and maps where they are missing (*ret_made).
 * What is there under this owner, and of owners that are gone and in the way, is replaced. Code
 * FLAT_CODE_IN_USE names the owner of a port that is taken; code 7 tells what nft does not take of
 * the conditions, 2 that they cannot be had here. The conntrack entries that remember
 * otherwise are forgotten; where that fails, it is logged. */
int flat_ports_ensure(const struct flat_ports *want, bool *ret_made, const struct flat_log *log,
		      struct flat_err *err);
enum { FLAT_PORTS_WHAT = 160 };
/* 1: as wanted; 0: not, and the text says what. Changes nothing. */
int flat_ports_verify(const struct flat_ports *want, char ret_what[static FLAT_PORTS_WHAT],
		      struct flat_err *err);
/* Removes all of an owner, and what conntrack has of its pod. Nothing there is success, and costs
 * one question. unmake: the chains and maps go, too, when nobody has a port any more. Returns how
 * many elements went. The kernel clears away behind such a change for some 10 ms, and closing the
 * conversation waits for that: *ret_net, also set on failure, is for the caller to close when he
 * has nothing else to do; NULL is fine as argument and as value, and one that is open already is
 * used. */
int flat_ports_remove(const char *owner, bool unmake, struct flat_net **ret_net,
		      const struct flat_log *log, struct flat_err *err);
/* The same for every owner that is gone. */
int flat_ports_sweep(const struct flat_log *log, struct flat_err *err);

/* ---- nf_tables: isolation ----------------------------------------------------------------------
 */

/* What one attachment may send, and which pods may reach it. It is said by elements of sets, in
 * tables `bridge flatnet` and `inet flatnet_ingress`, whose comment says whose they are; the rules
 * are the same for all pods, and of the same cost to packets however many there are. */
struct flat_guard {
	const char *owner; /* its host veth, a port of a bridge */

	bool spoof; /* only frames from mac pass; with addresses only what is from these, too: ARP,
		       IPv4 and IPv6 of its own, no router's advertisement, and nothing else */
	bool addresses, dhcp; /* dhcp: it may ask for an address */
	struct flat_mac mac;
	const struct flat_ip *ips; /* those of link-local scope included */
	size_t ip_count;

	/* The link by which the node's IP layer reaches the pod; NULL: no policy. New connections
	 * that come from another such link are dropped, and where any pod of this link is isolated
	 * those from this one, too. */
	const char *bridge;
	bool isolated;
};

/* Which of the two tables was made: bits for flat_guard_remove(). */
enum { FLAT_GUARD_MADE_SPOOF = 1, FLAT_GUARD_MADE_INGRESS = 2 };
/* Makes it so, in one transaction. What was there of this owner is replaced. Code 2: the kernel has
 * no nf_tables for bridges. */
int flat_guard_ensure(const struct flat_guard *want, unsigned *ret_made, struct flat_err *err);
enum { FLAT_GUARD_WHAT = 160 };
/* 1: as wanted; 0: not, and the text says what. Changes nothing. */
int flat_guard_verify(const struct flat_guard *want, char ret_what[static FLAT_GUARD_WHAT],
		      struct flat_err *err);
/* Removes all of an owner. unmake: these tables go, too, when nobody has anything in them any more.
 * Otherwise as flat_ports_remove(), which see for ret_net. */
int flat_guard_remove(const char *owner, unsigned unmake, struct flat_net **ret_net,
		      struct flat_err *err);
/* The same for every owner that is gone. */
int flat_guard_sweep(struct flat_err *err);
