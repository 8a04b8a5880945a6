// SPDX-License-Identifier: Apache-2.0
/* lib/net on the kernel of this machine; started by in-netns or test/run. Each test has a fresh
 * namespace and another one, the pod's. */
#include "scene.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct flat_mac bridge_mac = { { 0x0a, 0x58, 10, 244, 1, 1 } };
static const struct flat_mac pod_mac = { { 0x0a, 0x58, 10, 244, 1, 23 } };
static const struct flat_mac host_mac = { { 0x0a, 0x58, 0, 0, 0, 1 } };

static int add_bridge(struct scene *s)
{
	flat_link_add_bridge(s->net, "cni0", &bridge_mac, 0, false, FLAT_EXISTS_OK);
	OK(s, flat_net_commit(s->net, &s->err));
	return index_of(s, "cni0");
}

static int add_veth(struct scene *s, const char *name, int master)
{
	const struct flat_veth veth = {
		.host_name = name,
		.master = master,
		.host_mac = host_mac,
		.pod_name = "eth0",
		.pod_mac = pod_mac,
		.netns_fd = s->pod,
		.mtu = 1450,
	};
	flat_link_add_veth(s->net, &veth);
	OK(s, flat_net_commit(s->net, &s->err));
	LACKS(look("ip link show up"), name); /* it comes up when it has all its settings */
	struct flat_link_change up = FLAT_LINK_CHANGE;
	up.up = 1;
	struct flat_link_change bare = FLAT_LINK_CHANGE;
	bare.no_ipv6ll = true;
	int index = index_of(s, name);
	flat_link_change(s->net, index, &bare, FLAT_STRICT);
	flat_link_change(s->net, index, &up, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	return index;
}

/* Another conversation, in the pod's namespace. */
static struct flat_net *open_pod(struct scene *s)
{
	struct flat_net *net = NULL;
	int back = -1;
	OK(s, flat_netns_enter(s->pod, &back, &s->err));
	OK(s, flat_net_open(&net, &s->err));
	flat_netns_leave(&back);
	return net;
}

static const char *look_in_pod(struct scene *s, const char *command)
{
	return look("nsenter --net=/proc/%d/fd/%d %s", (int)getpid(), s->pod, command);
}

/* ---- links -------------------------------------------------------------------------------------
 */

static void test_bridge(void **state)
{
	struct scene *s = *state;
	struct flat_link link = { .index = -7 };
	assert_int_equal(flat_link_by_name(s->net, "cni0", &link, &s->err), 0);
	assert_int_equal(flat_link_by_name(s->net, "a-name-that-is-too-long", &link, &s->err), 0);
	assert_int_equal(flat_link_by_index(s->net, 4711, &link, &s->err), 0);
	assert_int_equal(link.index, -7);
	assert_int_equal(s->err.code, 0);

	flat_link_add_bridge(s->net, "cni0", &bridge_mac, 1400, false, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip -d link show cni0"), "0a:58:0a:f4:01:01");
	HAS(look("ip -d link show cni0"), "mtu 1400");
	HAS(look("ip -d link show cni0"), ",UP");
	assert_int_equal(flat_link_by_name(s->net, "cni0", &link, &s->err), 1);
	assert_string_equal(link.name, "cni0");
	assert_string_equal(link.kind, "bridge");
	assert_int_equal(link.mtu, 1400);
	assert_true(link.up && link.has_mac && !link.loopback && !link.port.present);
	assert_memory_equal(&link.mac, &bridge_mac, sizeof bridge_mac);
	assert_int_equal(flat_link_by_index(s->net, link.index, &link, &s->err), 1);
	assert_string_equal(link.name, "cni0");

	flat_link_add_bridge(s->net, "cni0", &bridge_mac, 0, false, FLAT_EXISTS_OK);
	OK(s, flat_net_commit(s->net, &s->err));
	flat_link_add_bridge(s->net, "cni0", &bridge_mac, 0, false, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &s->err), -EEXIST);
	assert_int_equal(s->err.sys, EEXIST);
	assert_int_equal(s->err.code, FLAT_CODE_NETWORK);
	assert_string_equal(s->err.msg, "add bridge 'cni0': File exists");
}

static void test_bridge_race(void **state)
{
	struct scene *s = *state;
	pid_t pids[8];
	for (size_t i = 0; i < FLAT_LEN(pids); i++) {
		pids[i] = fork();
		if (pids[i])
			continue;
		struct flat_net *net = NULL;
		struct flat_link link;
		if (flat_net_open(&net, NULL) < 0)
			_exit(1);
		flat_link_add_bridge(net, "cni0", &bridge_mac, 0, false, FLAT_EXISTS_OK);
		int r = flat_net_commit(net, NULL);
		_exit(r < 0 || flat_link_by_name(net, "cni0", &link, NULL) != 1);
	}
	for (size_t i = 0; i < FLAT_LEN(pids); i++) {
		int status = -1;
		waitpid(pids[i], &status, 0);
		assert_int_equal(status, 0);
	}
	assert_int_equal(count_text(look("ip -o link show type bridge"), "cni0"), 1);
	(void)s;
}

static void test_veth(void **state)
{
	struct scene *s = *state;
	struct flat_link link;
	int bridge = add_bridge(s), host = add_veth(s, "veth1", bridge);
	const char *text = look("ip -d link show veth1");
	HAS(text, "master cni0");
	HAS(text, "mtu 1450");
	HAS(text, "0a:58:00:00:00:01");
	HAS(text, "numtxqueues 1 numrxqueues 1");
	HAS(text, ",UP");
	LACKS(look("ip -6 address show veth1"), "fe80");
	text = look_in_pod(s, "ip link show eth0");
	HAS(text, "0a:58:0a:f4:01:17");
	HAS(text, "mtu 1450");
	HAS(text, "state DOWN");

	struct flat_link_change change = FLAT_LINK_CHANGE;
	change.alias = "flatnet net c0ffee eth0 10.244.1.23";
	change.hairpin = 1;
	change.isolated = 1;
	flat_link_change(s->net, host, &change, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	text = look("ip -d link show veth1");
	HAS(text, "alias flatnet net c0ffee eth0 10.244.1.23");
	HAS(text, "hairpin on");
	HAS(text, "isolated on");
	HAS(text, ",UP");
	assert_int_equal(flat_link_by_index(s->net, host, &link, &s->err), 1);
	assert_string_equal(link.alias, change.alias);
	assert_string_equal(link.kind, "veth");
	assert_true(link.port.present && link.port.hairpin && link.port.isolated);
	assert_int_equal(link.master, bridge);
	HAS(look_in_pod(s, "ip link show eth0"), "2: eth0");
	assert_int_equal(link.peer_index, 2);

	/* what is not set stays */
	struct flat_link_change less = FLAT_LINK_CHANGE;
	less.isolated = 0;
	less.mtu = 1300;
	flat_link_change(s->net, host, &less, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	text = look("ip -d link show veth1");
	HAS(text, "hairpin on");
	HAS(text, "isolated off");
	HAS(text, "mtu 1300");
	HAS(text, "alias flatnet");

	/* off its bridge and back, with a port setting in the same call */
	struct flat_link_change move = FLAT_LINK_CHANGE;
	move.master = 0;
	flat_link_change(s->net, host, &move, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	LACKS(look("ip link show veth1"), "master");
	move.master = bridge;
	move.hairpin = 1;
	move.promisc = 1;
	flat_link_change(s->net, host, &move, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip -d link show veth1"), "hairpin on");
	HAS(look("ip link show veth1"), "master cni0");
	assert_int_equal(flat_link_by_index(s->net, host, &link, &s->err), 1);
	assert_true(link.promisc);

	flat_link_del(s->net, host, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip link show veth1"), "does not exist");
	HAS(look_in_pod(s, "ip link show eth0"), "does not exist");
	flat_link_del(s->net, host, FLAT_GONE_OK);
	OK(s, flat_net_commit(s->net, &s->err));
	flat_link_del(s->net, host, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &s->err), -ENODEV);
}

static void test_batch_errors(void **state)
{
	struct scene *s = *state;
	const struct flat_prefix address = prefix("10.244.1.1/24");
	struct flat_net_route route = {
		.route = { .dst = prefix("10.9.0.0/16"), .gw = ip("192.0.2.1"), .scope = -1 }
	};
	int bridge = add_bridge(s);
	flat_route_add(s->net, &route, false, FLAT_STRICT);
	flat_addr_add(s->net, 4711, &address, FLAT_ADDR_PREFIX_ROUTE, FLAT_STRICT);
	flat_addr_add(s->net, bridge, &address, FLAT_ADDR_PREFIX_ROUTE, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &s->err), -ENETUNREACH);
	assert_int_equal(s->err.sys, ENETUNREACH);
	assert_string_equal(s->err.msg,
			    "add route to 10.9.0.0/16 via 192.0.2.1: Network is unreachable");
	HAS(s->err.details, "Nexthop has invalid gateway"); /* the kernel's own words */
	HAS(look("ip addr show cni0"), "10.244.1.1/24");    /* later messages were tried */

	/* a message that cannot be built: nothing is sent, and the next commit is clean */
	char huge[8192];
	memset(huge, 'x', sizeof huge - 1);
	huge[sizeof huge - 1] = '\0';
	struct flat_link_change change = FLAT_LINK_CHANGE;
	change.alias = huge;
	struct flat_err err = { 0 };
	flat_addr_del(s->net, bridge, &address, FLAT_STRICT);
	flat_link_change(s->net, bridge, &change, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &err), -EMSGSIZE);
	assert_int_equal(err.sys, EMSGSIZE);
	HAS(look("ip addr show cni0"), "10.244.1.1/24");
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_net_commit(s->net, &err), 0);

	/* more than fits one sendmsg */
	for (int i = 0; i < 1000; i++) {
		char text[FLAT_PREFIX_TEXT];
		snprintf(text, sizeof text, "10.%d.%d.0/24", 100 + i / 250, i % 250);
		struct flat_net_route many = { .route = { .dst = prefix(text), .scope = -1 },
					       .oif = bridge,
					       .protocol = FLAT_RTPROT };
		flat_route_add(s->net, &many, false, FLAT_STRICT);
	}
	OK(s, flat_net_commit(s->net, &err));
	assert_int_equal(count_text(look("ip route show proto 241"), "/24"), 1000);
}

static int count_link(void *arg, const struct flat_link *link)
{
	int *n = arg;
	++*n;
	return link->index > 0 ? 0 : -EINVAL;
}

static int stop_at_once(void *arg, const struct flat_link *link)
{
	(void)link;
	++*(int *)arg;
	return -ECANCELED;
}

static void test_link_each(void **state)
{
	struct scene *s = *state;
	int n = 0, bridge = add_bridge(s);
	look("for i in 1 2 3 4 5; do ip link add port$i master cni0 type veth peer name peer$i; "
	     "done");
	OK(s, flat_link_each(s->net, "veth", bridge, count_link, &n, &s->err));
	assert_int_equal(n, 5);
	n = 0;
	OK(s, flat_link_each(s->net, "veth", 0, count_link, &n, &s->err));
	assert_int_equal(n, 10);
	n = 0;
	OK(s, flat_link_each(s->net, NULL, 0, count_link, &n, &s->err));
	assert_int_equal(n, (int)count_text(look("ip -o link"), "link/"));
	n = 0;
	OK(s, flat_link_each(s->net, "no such kind", 0, count_link, &n, &s->err));
	assert_int_equal(n, 0);
	assert_int_equal(flat_link_each(s->net, "veth", 0, stop_at_once, &n, &s->err), -ECANCELED);
	assert_int_equal(n, 1);
}

static void test_del_many(void **state)
{
	struct scene *s = *state;
	int indices[41] = { 0 };
	look("for i in $(seq 42); do ip link add port$i type veth peer name peer$i; done");
	for (int i = 0; i < 40; i++) {
		char name[FLAT_IFNAME_LEN];
		snprintf(name, sizeof name, "port%d", i + 1);
		indices[i] = index_of(s, name);
	}
	indices[40] = 4711; /* gone already */
	look("ip link set port42 group 77");
	OK(s, flat_link_del_many(s->net, indices, 41, &s->err));
	const char *left = look("ip -o link show type veth");
	assert_int_equal(count_text(left, "link/ether"), 4);
	HAS(left, "port41");
	HAS(left, "port42");
	OK(s, flat_link_del_many(s->net, indices, 41, &s->err));
	OK(s, flat_link_del_many(s->net, indices, 0, &s->err));

	/* a link that cannot be deleted does not protect the others, and keeps its group */
	const int some[] = { index_of(s, "lo"), index_of(s, "port41") };
	assert_int_equal(flat_link_del_many(s->net, some, 2, &s->err), -EOPNOTSUPP);
	HAS(look("ip link show port41"), "does not exist");
	HAS(look("ip link show lo"), "group default");
	HAS(look("ip link show port42"), "group 77");
}

/* ---- addresses and routes ----------------------------------------------------------------------
 */

struct found {
	int count;
	struct flat_addr addr;
	struct flat_net_route route;
};

static int keep_addr(void *arg, const struct flat_addr *addr)
{
	struct found *f = arg;
	f->count++;
	f->addr = *addr;
	return 0;
}

static int keep_route(void *arg, const struct flat_net_route *route)
{
	struct found *f = arg;
	f->count++;
	f->route = *route;
	return 0;
}

static void test_addresses(void **state)
{
	struct scene *s = *state;
	const struct flat_prefix v4 = prefix("10.244.1.1/24"), v6 = prefix("fd00:10:1::1/64"),
				 bare = prefix("10.99.0.1/24");
	int bridge = add_bridge(s);
	flat_addr_add(s->net, bridge, &v4, FLAT_ADDR_PREFIX_ROUTE, FLAT_STRICT);
	flat_addr_add(s->net, bridge, &v6, FLAT_ADDR_PREFIX_ROUTE, FLAT_STRICT);
	flat_addr_add(s->net, bridge, &bare, 0, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	const char *text = look("ip addr show cni0");
	HAS(text, "inet 10.244.1.1/24 brd 10.244.1.255 scope global cni0");
	HAS(text, "inet6 fd00:10:1::1/64 scope global nodad");
	LACKS(text, "fd00:10:1::1/64 scope global tentative");
	HAS(text, "inet 10.99.0.1/24 brd 10.99.0.255 scope global noprefixroute");
	HAS(look("ip route"), "10.244.1.0/24 dev cni0");
	LACKS(look("ip route"), "10.99.0.0/24");
	const struct flat_prefix checked = prefix("fd00:10:1::2/64");
	flat_addr_add(s->net, bridge, &checked, FLAT_ADDR_PREFIX_ROUTE | FLAT_ADDR_DAD,
		      FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip addr show cni0"), "inet6 fd00:10:1::2/64 scope global");
	LACKS(look("ip addr show cni0"), "fd00:10:1::2/64 scope global nodad");

	flat_addr_add(s->net, bridge, &v4, FLAT_ADDR_PREFIX_ROUTE, FLAT_EXISTS_OK);
	flat_addr_add(s->net, bridge, &v6, FLAT_ADDR_PREFIX_ROUTE, FLAT_EXISTS_OK);
	OK(s, flat_net_commit(s->net, &s->err));
	struct found f = { 0 };
	OK(s, flat_addr_each(s->net, bridge, AF_INET, keep_addr, &f, &s->err));
	assert_int_equal(f.count, 2);
	assert_int_equal(f.addr.index, bridge);
	assert_true(flat_prefix_equal(&f.addr.address, &bare));
	assert_true(f.addr.flags & IFA_F_NOPREFIXROUTE);
	f.count = 0;
	OK(s, flat_addr_each(s->net, bridge, 0, keep_addr, &f, &s->err));
	assert_int_equal(f.count, (int)count_text(look("ip addr show cni0"), "inet"));
	f.count = 0;
	OK(s, flat_addr_each(s->net, 0, 0, keep_addr, &f, &s->err));
	assert_int_equal(f.count, (int)count_text(look("ip addr"), "inet"));

	flat_addr_del(s->net, bridge, &bare, FLAT_STRICT);
	flat_addr_del(s->net, bridge, &v6, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	LACKS(look("ip addr show cni0"), "10.99.0.1");
	LACKS(look("ip addr show cni0"), "fd00:10:1::1");
	flat_addr_del(s->net, bridge, &bare, FLAT_GONE_OK);
	flat_addr_del(s->net, bridge, &v6, FLAT_GONE_OK);
	OK(s, flat_net_commit(s->net, &s->err));
}

static void test_routes(void **state)
{
	struct scene *s = *state;
	int bridge = add_bridge(s);
	look("ip addr add 10.244.1.1/24 dev cni0; ip addr add fd00:10:1::1/64 dev cni0 nodad");
	struct flat_net_route full = {
		.route = { .dst = prefix("10.244.2.0/24"),
			   .gw = ip("10.244.1.2"),
			   .mtu = 1400,
			   .advmss = 1360,
			   .priority = 7,
			   .table = 1000,
			   .scope = RT_SCOPE_UNIVERSE },
		.protocol = FLAT_RTPROT,
	};
	struct flat_net_route link = { .route = { .dst = prefix("10.3.0.0/16"), .scope = -1 },
				       .oif = bridge };
	struct flat_net_route v6 = {
		.route = { .dst = prefix("fd00:10:2::/64"), .gw = ip("fd00:10:1::2"), .scope = -1 },
		.protocol = FLAT_RTPROT
	};
	struct flat_net_route over6 = {
		.route = { .dst = prefix("10.4.0.0/16"), .gw = ip("fd00:10:1::2"), .scope = -1 },
		.oif = bridge
	};
	struct flat_net_route onlink = {
		.route = { .dst = prefix("10.5.0.0/16"), .gw = ip("192.0.2.1"), .scope = -1 },
		.oif = bridge,
		.onlink = true
	};
	flat_route_add(s->net, &full, false, FLAT_STRICT);
	flat_route_add(s->net, &link, false, FLAT_STRICT);
	flat_route_add(s->net, &v6, false, FLAT_STRICT);
	flat_route_add(s->net, &over6, false, FLAT_STRICT);
	flat_route_add(s->net, &onlink, false, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	const char *text = look("ip -N route show table 1000");
	HAS(text, "10.244.2.0/24 via 10.244.1.2 dev cni0 proto 241 metric 7");
	HAS(text, "mtu 1400 advmss 1360");
	text = look("ip -N route");
	HAS(text, "10.3.0.0/16 dev cni0 scope 253");
	HAS(text, "10.4.0.0/16 via inet6 fd00:10:1::2 dev cni0");
	HAS(text, "10.5.0.0/16 via 192.0.2.1 dev cni0");
	HAS(text, "onlink");
	HAS(look("ip -N -6 route"), "fd00:10:2::/64 via fd00:10:1::2 dev cni0 proto 241");

	struct found f = { 0 };
	OK(s, flat_route_each(s->net, 0, 0, FLAT_RTPROT, 0, keep_route, &f, &s->err));
	assert_int_equal(f.count, 1); /* the other one is in table 1000 */
	assert_true(flat_prefix_equal(&f.route.route.dst, &v6.route.dst));
	assert_true(flat_ip_equal(&f.route.route.gw, &v6.route.gw));
	assert_int_equal(f.route.oif, bridge);
	f = (struct found){ 0 };
	OK(s, flat_route_each(s->net, AF_INET, bridge, FLAT_RTPROT, 1000, keep_route, &f, &s->err));
	assert_int_equal(f.count, 1);
	assert_int_equal(f.route.route.mtu, 1400);
	assert_int_equal(f.route.route.advmss, 1360);
	assert_int_equal(f.route.route.priority, 7);
	assert_int_equal(f.route.route.table, 1000);
	assert_int_equal(f.route.type, RTN_UNICAST);
	f = (struct found){ 0 };
	OK(s, flat_route_each(s->net, 0, 0, FLAT_RTPROT, FLAT_ANY_TABLE, keep_route, &f, &s->err));
	assert_int_equal(f.count, 2);
	f = (struct found){ 0 };
	OK(s, flat_route_each(s->net, AF_INET, 0, 0, 4242, keep_route, &f, &s->err));
	assert_int_equal(f.count, 0);
	OK(s, flat_route_each(s->net, AF_INET, 4711, 0, 0, keep_route, &f, &s->err));
	assert_int_equal(f.count, 0);
	OK(s, flat_route_each(s->net, AF_INET, 0, 0, 0, keep_route, &f, &s->err));
	assert_int_equal(f.count, (int)count_text(look("ip -4 route"), "dev"));

	/* corrected in place; a second strict one is refused */
	v6.route.mtu = 1300;
	full.route.gw = ip("10.244.1.3");
	flat_route_add(s->net, &full, true, FLAT_STRICT);
	flat_route_add(s->net, &v6, FLAT_ADDR_PREFIX_ROUTE, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip route show table 1000"), "via 10.244.1.3");
	assert_int_equal(count_text(look("ip route show table 1000"), "10.244.2.0/24"), 1);
	HAS(look("ip -6 route"), "mtu 1300");
	struct flat_err err = { 0 };
	flat_route_add(s->net, &full, false, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &err), -EEXIST);

	flat_route_del(s->net, &full, FLAT_STRICT);
	flat_route_del(s->net, &v6, FLAT_STRICT);
	flat_route_del(s->net, &link, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	LACKS(look("ip route show table 1000"), "10.244.2.0/24");
	LACKS(look("ip -6 route"), "fd00:10:2::");
	LACKS(look("ip route"), "10.3.0.0");
	flat_route_del(s->net, &full, FLAT_GONE_OK);
	flat_route_del(s->net, &v6, FLAT_GONE_OK);
	OK(s, flat_net_commit(s->net, &s->err));
}

static void test_route_lookup(void **state)
{
	struct scene *s = *state;
	struct flat_net_route route = { .oif = -7 };
	struct flat_ip own = ip("10.244.1.1"), near = ip("10.244.1.9"), far = ip("10.9.0.1"),
		       near6 = ip("fd00:10:1::9"), far6 = ip("fd00:99::1"),
		       nowhere = ip("192.0.2.1"), hole = ip("192.0.3.1");
	int bridge = add_bridge(s);
	look("ip addr add 10.244.1.1/24 dev cni0; ip addr add fd00:10:1::1/64 dev cni0 nodad;"
	     "ip route add 10.9.0.0/16 via 10.244.1.2; ip route add unreachable 192.0.2.0/24;"
	     "ip route add blackhole 192.0.3.0/24");
	assert_int_equal(flat_route_lookup(s->net, &far6, &route, &s->err), 0);
	assert_int_equal(flat_route_lookup(s->net, &nowhere, &route, &s->err), 0);
	assert_int_equal(flat_route_lookup(s->net, &hole, &route, &s->err), 0);
	struct flat_ip outside = ip("198.51.100.1");
	assert_int_equal(flat_route_lookup(s->net, &outside, &route, &s->err), 0);
	assert_int_equal(route.oif, -7);
	assert_int_equal(s->err.code, 0);
	assert_int_equal(flat_route_lookup(s->net, &own, &route, &s->err), 1);
	assert_int_equal(route.type, RTN_LOCAL);
	assert_int_equal(flat_route_lookup(s->net, &near, &route, &s->err), 1);
	assert_int_equal(route.type, RTN_UNICAST);
	assert_int_equal(route.oif, bridge);
	assert_int_equal(route.route.gw.family, 0);
	assert_int_equal(flat_route_lookup(s->net, &far, &route, &s->err), 1);
	struct flat_ip gw = ip("10.244.1.2");
	assert_true(flat_ip_equal(&route.route.gw, &gw));
	assert_int_equal(flat_route_lookup(s->net, &near6, &route, &s->err), 1);
	assert_int_equal(route.oif, bridge);
}

static void test_neighbour(void **state)
{
	struct scene *s = *state;
	const struct flat_ip v4 = ip("10.244.1.23"), v6 = ip("fd00:10:1::23");
	int bridge = add_bridge(s);
	look("ip neigh add 10.244.1.23 lladdr 02:00:00:00:00:01 dev cni0 nud stale");
	flat_neigh_replace(s->net, bridge, &v4, &pod_mac);
	flat_neigh_replace(s->net, bridge, &v6, &pod_mac);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip neigh show 10.244.1.23 dev cni0"), "lladdr 0a:58:0a:f4:01:17 REACHABLE");
	/* there was none, and none is made */
	assert_string_equal(look("ip -6 neigh show fd00:10:1::23 dev cni0"), "");
}

/* ---- sysctls, namespaces, probes ---------------------------------------------------------------
 */

static void test_sysctl(void **state)
{
	struct scene *s = *state;
	char text[64];
	look("sysctl -w net.ipv4.ip_forward=0");
	assert_int_equal(flat_sysctl_set("net/ipv4/ip_forward", "1", &s->err), 1);
	assert_int_equal(flat_sysctl_set("net/ipv4/ip_forward", "1", &s->err), 0);
	HAS(look("cat /proc/sys/net/ipv4/ip_forward"), "1");
	assert_int_equal(flat_sysctl_get("net/ipv4/ip_forward", text, sizeof text, &s->err), 1);
	assert_string_equal(text, "1");
	/* of this namespace only */
	HAS(look_in_pod(s, "cat /proc/sys/net/ipv4/conf/all/rp_filter"), "0");
	assert_int_equal(flat_sysctl_get("net/no/such", text, sizeof text, &s->err), -ENOENT);
	assert_int_equal(flat_sysctl_set("net/no/such", "1", &s->err), -ENOENT);
	assert_int_equal(s->err.code, 0);
	assert_int_equal(flat_sysctl_set("net/ipv4/ip_forward", "nonsense", &s->err), -EINVAL);
	HAS(s->err.msg, "write 'nonsense' to /proc/sys/net/ipv4/ip_forward");
}

static void test_netns(void **state)
{
	struct scene *s = *state;
	char path[64];
	int fd = -1, back = -1;
	struct flat_err err = { 0 };
	assert_int_equal(flat_netns_open("/run/no-such", &fd, &err), -ENOENT);
	assert_int_equal(err.code, FLAT_CODE_NETNS);
	HAS(err.msg, "/run/no-such");
	err = (struct flat_err){ 0 };
	look("echo left over >/run/plain");
	assert_int_equal(flat_netns_open("/run/plain", &fd, &err), -EINVAL);
	assert_int_equal(err.code, FLAT_CODE_NETNS);
	assert_int_equal(mkfifo("/run/fifo", 0600), 0);
	assert_int_equal(flat_netns_open("/run/fifo", &fd, NULL), -EINVAL);
	assert_int_equal(flat_netns_open("/proc/self/ns/mnt", &fd, NULL), -EINVAL);
	assert_int_equal(fd, -1);
	snprintf(path, sizeof path, "/proc/self/fd/%d", s->pod);
	OK(s, flat_netns_open(path, &fd, &s->err));
	assert_int_equal(flat_netns_is_own(fd), 0);
	assert_int_equal(flat_netns_is_own(s->node), 1);
	OK(s, flat_netns_enter(fd, &back, &s->err));
	assert_int_equal(flat_netns_is_own(fd), 1);
	flat_netns_leave(&back);
	assert_int_equal(back, -1);
	assert_int_equal(flat_netns_is_own(s->node), 1);
	close(fd);
}

static void test_probe(void **state)
{
	struct scene *s = *state;
	int bridge = add_bridge(s);
	struct flat_prefix v4 = prefix("10.244.1.23/24"), v6 = prefix("fd00:10:1::23/64");
	add_veth(s, "veth1", bridge);
	look("ip addr add fd00:10:1::1/64 dev cni0 nodad; sleep 0.1");
	struct flat_net *pod = open_pod(s);
	struct flat_link eth0;
	assert_int_equal(flat_link_by_name(pod, "eth0", &eth0, &s->err), 1);
	struct flat_link_change up = FLAT_LINK_CHANGE;
	up.up = 1;
	flat_link_change(pod, eth0.index, &up, FLAT_STRICT);
	flat_addr_add(pod, eth0.index, &v4, FLAT_ADDR_PREFIX_ROUTE, FLAT_STRICT);
	flat_addr_add(pod, eth0.index, &v6, FLAT_ADDR_PREFIX_ROUTE, FLAT_STRICT);
	OK(s, flat_net_commit(pod, &s->err));
	flat_net_close(pod);

	struct flat_ip ips[1024];
	bool answers[FLAT_LEN(ips)];
	ips[0] = ip("10.244.1.24");
	ips[1] = v4.ip;
	ips[2] = ip("fd00:10:1::24");
	ips[3] = v6.ip;
	int64_t start = flat_now_ms();
	OK(s, flat_net_probe(bridge, &bridge_mac, ips, 4, 600, answers, &s->err));
	assert_true(flat_now_ms() - start < 900);
	assert_false(answers[0]);
	assert_true(answers[1]);
	assert_false(answers[2]);
	assert_true(answers[3]);
	/* nothing was learned on the way, and a full house of questions is bounded */
	LACKS(look("ip neigh show dev cni0"), "10.244.1.2");
	start = flat_now_ms();
	OK(s, flat_net_probe(bridge, &bridge_mac, &ips[3], 1, 5000, answers, &s->err));
	OK(s, flat_net_probe(bridge, &bridge_mac, &ips[1], 1, 5000, answers, &s->err));
	assert_true(flat_now_ms() - start < 2000); /* all have answered: no more waiting */
	ips[0] = ip("10.244.0.0");
	for (size_t i = 1; i < FLAT_LEN(ips); i++)
		ips[i] = flat_ip_next(&ips[i - 1]);
	start = flat_now_ms();
	OK(s, flat_net_probe(bridge, &bridge_mac, ips, FLAT_LEN(ips), 300, answers, &s->err));
	assert_true(flat_now_ms() - start < 900);
	for (size_t i = 0; i < FLAT_LEN(ips); i++)
		assert_int_equal(answers[i], flat_ip_equal(&ips[i], &v4.ip));
}

/* ---- rules -------------------------------------------------------------------------------------
 */

static struct flat_prefix cluster[2], pods[2];

static struct flat_nft_network network(const char *name)
{
	cluster[0] = prefix("10.244.0.0/16");
	cluster[1] = prefix("fd00:10::/30");
	pods[0] = prefix("10.244.1.0/24");
	pods[1] = prefix("fd00:10:1::/64");
	return (struct flat_nft_network){ name, cluster, 2, pods, 2, true, true };
}

static void is_whole(struct scene *s, const struct flat_nft_network *n)
{
	const char *what = "", *text = look("nft list table inet flatnet");
	HAS(text, "type nat hook postrouting priority srcnat; policy accept;");
	HAS(text, "type filter hook forward priority filter; policy accept;");
	HAS(text, "meta mark & 0x00004000 == 0x00004000 return");
	HAS(text, "ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 "
		  "masquerade fully-random");
	HAS(text, "ip6 saddr fd00:10:1::/64 ip6 daddr != fd00:10::/30 ip6 daddr != ff00::/8 "
		  "masquerade fully-random");
	HAS(text, "ip saddr 10.244.0.0/16 accept");
	HAS(text, "ip6 daddr fd00:10::/30 accept");
	assert_int_equal(count_text(text, "flatnet:"), 7);
	assert_int_equal(flat_nft_verify(n, &what, &s->err), 1);
	assert_int_equal(flat_nft_ensure(n, &s->err), 0);
}

static void test_rules(void **state)
{
	struct scene *s = *state;
	struct flat_nft_network a = network("alpha"), b = network("beta");
	const char *what = NULL;
	assert_int_equal(flat_nft_verify(&a, &what, &s->err), 0);
	HAS(what, "masquerade");
	assert_string_equal(look("nft list ruleset"), ""); /* it only looked */
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	is_whole(s, &a);

	/* content that changed though the tag did not; out of order; one too many */
	static const char *const harm[] = {
		"nft flush chain inet flatnet postrouting",
		"nft flush chain inet flatnet forward",
		"nft delete table inet flatnet",
		"nft delete rule inet flatnet forward handle "
		"$(nft -a list chain inet flatnet forward | sed -n 's/.*accept.*handle //p' | head "
		"-1)",
		"nft list table inet flatnet >/run/t; sed -i s,224.0.0.0/4,225.0.0.0/8, /run/t; "
		"nft flush table inet flatnet; nft -f /run/t",
		"nft list table inet flatnet >/run/t; sed -i 's/ fully-random//' /run/t; "
		"nft flush table inet flatnet; nft -f /run/t",
		"nft list table inet flatnet >/run/t; nft -f /run/t", /* every rule twice */
	};
	for (size_t i = 0; i < FLAT_LEN(harm); i++) {
		assert_string_equal(look("%s", harm[i]), "");
		assert_int_equal(flat_nft_verify(&a, &what, &s->err), 0);
		assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
		is_whole(s, &a);
	}

	/* two networks, and one that wants less than before */
	assert_int_equal(flat_nft_ensure(&b, &s->err), 1);
	assert_int_equal(count_text(look("nft list ruleset"), "flatnet:alpha:"), 7);
	assert_int_equal(count_text(look("nft list ruleset"), "flatnet:beta:"), 7);
	assert_int_equal(flat_nft_ensure(&a, &s->err), 0);
	b.masquerade = false;
	assert_int_equal(flat_nft_ensure(&b, &s->err), 1);
	assert_int_equal(flat_nft_ensure(&b, &s->err), 0);
	assert_int_equal(count_text(look("nft list ruleset"), "flatnet:beta:"), 4);
	assert_int_equal(count_text(look("nft list ruleset"), "masquerade"), 2);
	OK(s, flat_nft_remove("alpha", &s->err));
	LACKS(look("nft list ruleset"), "alpha");
	assert_int_equal(count_text(look("nft list ruleset"), "flatnet:beta:"), 4);
	OK(s, flat_nft_remove("beta", &s->err));
	assert_string_equal(look("nft list ruleset"), "");
	OK(s, flat_nft_remove("beta", &s->err));

	/* a name too long for a comment, and as many prefixes as the contract allows */
	char name[300];
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	struct flat_prefix many[FLAT_NFT_MAX_PREFIXES];
	for (size_t i = 0; i < FLAT_LEN(many); i++) {
		char text[FLAT_PREFIX_TEXT];
		snprintf(text, sizeof text, "fd00:%zx::/33", i + 1);
		many[i] = prefix(text);
	}
	struct flat_nft_network big = {
		name, many, FLAT_LEN(many), many, FLAT_LEN(many), true, true
	};
	assert_int_equal(flat_nft_ensure(&big, &s->err), 1);
	assert_int_equal(flat_nft_ensure(&big, &s->err), 0);
	assert_int_equal(count_text(look("nft list ruleset"), "flatnet:~"),
			 1 + 3 * FLAT_NFT_MAX_PREFIXES);
	OK(s, flat_nft_remove(name, &s->err));
	assert_string_equal(look("nft list ruleset"), "");
	big.cluster_count++;
	assert_int_equal(flat_nft_ensure(&big, &s->err), -E2BIG);
}

/* ---- host ports --------------------------------------------------------------------------------
 */

static void test_ports(void **state)
{
	struct scene *s = *state;
	struct flat_nft_network a = network("alpha");
	struct flat_port items[] = {
		{ IPPROTO_TCP, 8080, 80, { .family = AF_INET }, prefix("10.244.1.2/24").ip },
		{ IPPROTO_UDP, 53, 53, prefix("192.0.2.1/24").ip, prefix("10.244.1.2/24").ip },
		{ IPPROTO_SCTP, 9, 7, { .family = AF_INET6 }, prefix("fd00::2/64").ip },
	};
	struct flat_ports one = { "lo", "one", NULL, items, 3, true, false };
	struct flat_ports two = { "veth-two", "two", NULL, items, 1, true, true };
	char what[FLAT_PORTS_WHAT] = "";
	bool made = false;
	assert_int_equal(flat_ports_verify(&one, what, &s->err), 0);
	HAS(what, "chains of host ports");
	assert_int_equal(flat_ports_remove("lo", false, NULL, NULL, &s->err), 0);
	assert_int_equal(flat_ports_sweep(NULL, &s->err), 0);
	assert_string_equal(look("nft list ruleset"), ""); /* they only looked */

	OK(s, flat_ports_ensure(&one, &made, NULL, &s->err));
	assert_true(made);
	assert_int_equal(flat_ports_verify(&one, what, &s->err), 1);
	const char *text = look("nft list table inet flatnet");
	HAS(text, "tcp . 8080 comment \"flatnet lo one\" : 10.244.1.2 . 80");
	HAS(text, "192.0.2.1 . udp . 53 comment \"flatnet lo one\" : 10.244.1.2 . 53");
	HAS(text, "sctp . 9 comment \"flatnet lo one\" : fd00::2 . 7");
	OK(s, flat_ports_ensure(&one, &made, NULL, &s->err)); /* again */
	assert_false(made);
	assert_int_equal(count_text(look("nft list table inet flatnet"), "flatnet lo one"), 5);

	/* the owner lives: there is always a link "lo" */
	assert_int_equal(flat_ports_ensure(&two, &made, NULL, &s->err), -EADDRINUSE);
	assert_int_equal(s->err.code, FLAT_CODE_IN_USE);
	HAS(s->err.msg, "host port 8080/tcp is taken by one");
	s->err = (struct flat_err){ 0 };
	items[0].host = prefix("192.0.2.7/24").ip; /* one address of any */
	assert_int_equal(flat_ports_ensure(&two, &made, NULL, &s->err), -EADDRINUSE);
	s->err = (struct flat_err){ 0 };
	items[0].protocol = IPPROTO_UDP;
	OK(s, flat_ports_ensure(&two, &made, NULL, &s->err));
	HAS(look("nft list table inet flatnet"),
	    "10.244.1.2 . udp . 8080 comment \"flatnet veth-two two\"");
	assert_int_equal(flat_ports_verify(&two, what, &s->err), 1);

	/* the networks' rules come and go beside them; the table stays for the last port */
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	assert_int_equal(flat_nft_ensure(&a, &s->err), 0);
	OK(s, flat_nft_remove("alpha", &s->err));
	text = look("nft list ruleset");
	LACKS(text, "alpha");
	HAS(text, "flatnet lo one");
	/* nobody is called veth-two */
	assert_int_equal(flat_ports_sweep(NULL, &s->err), 3);
	assert_int_equal(flat_ports_sweep(NULL, &s->err), 0);
	LACKS(look("nft list ruleset"), "two");
	assert_int_equal(flat_ports_remove("lo", false, NULL, NULL, &s->err),
			 4);				  /* the pod was two's */
	HAS(look("nft list ruleset"), "chain hostports"); /* for the next */
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	OK(s, flat_nft_remove("alpha", &s->err)); /* the last of all */
	assert_string_equal(look("nft list ruleset"), "");

	/* what an ADD takes back: all, or all but the networks' */
	OK(s, flat_ports_ensure(&one, &made, NULL, &s->err));
	OK(s, flat_ports_remove("lo", true, NULL, NULL, &s->err));
	assert_string_equal(look("nft list ruleset"), "");
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	OK(s, flat_ports_ensure(&one, &made, NULL, &s->err));
	OK(s, flat_ports_remove("lo", true, NULL, NULL, &s->err));
	is_whole(s, &a);
	LACKS(look("nft list ruleset"), "hostports");
	OK(s, flat_nft_remove("alpha", &s->err));
}

static void test_rules_race(void **state)
{
	struct scene *s = *state;
	struct flat_nft_network a = network("alpha");
	pid_t pids[9];
	for (size_t i = 0; i < FLAT_LEN(pids); i++) {
		pids[i] = fork();
		if (pids[i])
			continue;
		if (i == 0) { /* somebody else at work: kube-proxy */
			look("for i in $(seq 30); do nft add table ip other; nft delete table ip "
			     "other; done");
			_exit(0);
		}
		for (int k = 0; k < 20; k++) {
			struct flat_err err = { 0 };
			char name[16];
			snprintf(name, sizeof name, "own%zu", i % 2);
			struct flat_nft_network own = network(name);
			if (flat_nft_ensure(&a, &err) < 0 ||
			    (k % 5 == 0 && flat_nft_ensure(&own, &err) < 0)) {
				print_error("%s (%s)\n", err.msg, err.details);
				_exit(1);
			}
		}
		_exit(0);
	}
	for (size_t i = 0; i < FLAT_LEN(pids); i++) {
		int status = -1;
		waitpid(pids[i], &status, 0);
		assert_int_equal(status, 0);
	}
	assert_int_equal(count_text(look("nft list ruleset"), "flatnet:own0:"), 7);
	OK(s, flat_nft_remove("own0", &s->err));
	OK(s, flat_nft_remove("own1", &s->err));
	is_whole(s, &a);
}

static void test_forward_drop(void **state)
{
	struct scene *s = *state;
	struct flat_nft_network a = network("alpha");
	const char *what = "", *text;
	if (strstr(look("iptables -V"), "nf_tables") == NULL) {
		if (getenv("FLAT_MUST_RUN"))
			fail_msg("iptables is not iptables-nft");
		print_message("# skip: iptables is not iptables-nft\n");
		skip();
	}
	look("iptables -A FORWARD -i foo -j REJECT");
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	LACKS(look("iptables -S FORWARD"), "flatnet"); /* it accepts by itself */
	look("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
	assert_int_equal(flat_nft_verify(&a, &what, &s->err), 0);
	HAS(what, "iptables");
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	is_whole(s, &a);
	text = look("iptables -S FORWARD");
	HAS(text,
	    "-P FORWARD DROP\n-A FORWARD -s 10.244.0.0/16 -m comment --comment \"flatnet:alpha:");
	HAS(text, "-A FORWARD -d 10.244.0.0/16 -m comment --comment \"flatnet:alpha:");
	HAS(text, "-j ACCEPT\n-A FORWARD -i foo -j REJECT"); /* ours come first */
	text = look("ip6tables -S FORWARD");
	HAS(text, "-A FORWARD -s fd00:10::/30 -m comment --comment \"flatnet:alpha:");
	HAS(look("iptables-save"), "-A FORWARD -s 10.244.0.0/16");

	/* iptables goes on as before; it restores our rules in a form of its own, which we replace
	 */
	assert_string_equal(look("iptables -I FORWARD -s 1.2.3.4 -j DROP && "
				 "iptables -D FORWARD -s 1.2.3.4 -j DROP"),
			    "");
	is_whole(s, &a);
	assert_string_equal(look("iptables-save >/run/saved && iptables-restore </run/saved"), "");
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	assert_int_equal(flat_nft_ensure(&a, &s->err), 0);
	assert_int_equal(count_text(look("iptables -S FORWARD"), "flatnet:alpha:"), 2);
	look("iptables -F FORWARD");
	assert_int_equal(flat_nft_verify(&a, &what, &s->err), 0);
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	HAS(look("iptables -S FORWARD"), "flatnet:alpha:");

	look("iptables -P FORWARD ACCEPT");
	assert_int_equal(flat_nft_verify(&a, &what, &s->err), 1);
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	LACKS(look("iptables -S FORWARD"), "flatnet");
	HAS(look("ip6tables -S FORWARD"), "flatnet");
	OK(s, flat_nft_remove("alpha", &s->err));
	LACKS(look("nft list ruleset"), "flatnet");
	HAS(look("ip6tables -S FORWARD"), "-P FORWARD DROP");
}

/* What the rules do to packets: from a pod to a host outside that has no route back, and to another
 * pod of the cluster. */
static void test_masquerade(void **state)
{
	struct scene *s = *state;
	struct flat_nft_network a = network("alpha");
	int bridge = add_bridge(s);
	add_veth(s, "veth1", bridge);
	look_in_pod(s, "sh -c 'ip link set lo up; ip link set eth0 up; "
		       "ip addr add 10.244.1.23/24 dev eth0; ip route add default via 10.244.1.1'");
	look("ip addr add 10.244.1.1/24 dev cni0; sysctl -w net.ipv4.ip_forward=1; "
	     "ip netns add out; ip link add up0 type veth peer name up1 netns out; "
	     "ip addr add 192.0.2.1/24 dev up0; ip link set up0 up; "
	     "ip -n out addr add 192.0.2.2/24 dev up1; ip -n out link set up1 up; "
	     "ip -n out addr add 10.244.2.5/32 dev up1; ip route add 10.244.2.0/24 via 192.0.2.2");
	LACKS(look_in_pod(s, "ping -c1 -W1 192.0.2.2"), " 0% packet loss");
	assert_int_equal(flat_nft_ensure(&a, &s->err), 1);
	HAS(look_in_pod(s, "ping -c1 -W2 192.0.2.2"), " 0% packet loss");
	/* inside the cluster the source stays: without a way back to it there is no answer */
	LACKS(look_in_pod(s, "ping -c1 -W1 10.244.2.5"), " 0% packet loss");
	look("ip -n out route add 10.244.1.0/24 via 192.0.2.1");
	HAS(look_in_pod(s, "ping -c1 -W2 10.244.2.5"), " 0% packet loss");
	look("ip netns del out");
}

static void test_no_permission(void **state)
{
	struct scene *s = *state;
	struct flat_nft_network a = network("alpha");
	pid_t pid = fork();
	if (pid == 0) {
		/* all capabilities there, and none over this network namespace */
		if (unshare(CLONE_NEWUSER) < 0)
			_exit(3);
		struct flat_err err = { 0 }, other = { 0 };
		bool told = flat_nft_ensure(&a, &err) == -EPERM && err.sys == EPERM &&
			    strstr(err.details, "CAP_NET_ADMIN");
		flat_link_add_bridge(s->net, "cni0", &bridge_mac, 0, false, FLAT_EXISTS_OK);
		struct flat_net *net = NULL;
		if (flat_net_open(&net, &other) < 0)
			_exit(2);
		flat_link_add_bridge(net, "cni0", &bridge_mac, 0, false, FLAT_EXISTS_OK);
		told = told && flat_net_commit(net, &other) == -EPERM &&
		       strstr(other.details, "CAP_NET_ADMIN");
		_exit(told ? 0 : 1);
	}
	int status = -1;
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bridge),	  TEST(test_bridge_race),  TEST(test_veth),
		TEST(test_batch_errors),  TEST(test_link_each),	   TEST(test_del_many),
		TEST(test_addresses),	  TEST(test_routes),	   TEST(test_route_lookup),
		TEST(test_neighbour),	  TEST(test_sysctl),	   TEST(test_netns),
		TEST(test_probe),	  TEST(test_rules),	   TEST(test_rules_race),
		TEST(test_ports),	  TEST(test_forward_drop), TEST(test_masquerade),
		TEST(test_no_permission),
	};
	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
