// SPDX-License-Identifier: Apache-2.0
/* lib/net and what an overlay is made of: VXLAN devices, neighbours, forwarding entries; few and
 * many. */
#include "scene.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/neighbour.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct flat_mac vtep_mac = { { 0x0a, 0x58, 10, 244, 1, 0 } };

static struct flat_mac mac(const char *text)
{
	struct flat_mac m = { 0 };
	assert_true(flat_mac_parse(text, &m));
	return m;
}

static int add_underlay(struct scene *s)
{
	look("ip link add up0 type veth peer name up1; ip link set up1 up; ip link set up0 up; "
	     "ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad");
	return index_of(s, "up0");
}

static int add_vxlan(struct scene *s)
{
	struct flat_vxlan vxlan = {
		.vni = 1, .port = 8472, .underlay = add_underlay(s), .local = ip("192.0.2.1")
	};
	flat_link_add_vxlan(s->net, "flannel.1", &vtep_mac, 1450, &vxlan, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	return index_of(s, "flannel.1");
}

/* ---- VXLAN devices -----------------------------------------------------------------------------
 */

static void test_vxlan(void **state)
{
	struct scene *s = *state;
	struct flat_link link;
	int index = add_vxlan(s), underlay = index_of(s, "up0");
	const char *text = look("ip -d -j link show flannel.1");
	HAS(text, "\"id\":1,");
	HAS(text, "\"port\":8472");
	HAS(text, "\"local\":\"192.0.2.1\"");
	HAS(text, "\"link\":\"up0\"");
	HAS(text, "\"learning\":false");
	HAS(text, "\"mtu\":1450");
	HAS(text, "\"address\":\"0a:58:0a:f4:01:00\"");
	HAS(text, "\"UP\"");
	LACKS(look("ip -6 addr show flannel.1"), "inet6");
	HAS(look("unshare -m sh -c 'mount -t sysfs sysfs /sys; "
		 "cat /sys/class/net/flannel.1/addr_assign_type'"),
	    "3"); /* NET_ADDR_SET: udev leaves it alone */
	assert_int_equal(flat_link_by_index(s->net, index, &link, &s->err), 1);
	assert_string_equal(link.kind, "vxlan");
	assert_int_equal(link.vxlan.vni, 1);
	assert_int_equal(link.vxlan.port, 8472);
	assert_int_equal(link.vxlan.underlay, underlay);
	assert_true(
		flat_ip_equal(&link.vxlan.local, &(struct flat_ip){ AF_INET, { 192, 0, 2, 1 } }));
	assert_true(link.up && !link.vxlan.learning && !link.vxlan.gbp && !link.vxlan.external);
	assert_int_equal(link.peer_nsid, -1);

	/* what may change while it lives */
	struct flat_link_change change = FLAT_LINK_CHANGE;
	struct flat_mac other = mac("0a:58:0a:f4:02:00");
	change.mtu = 1400;
	change.mac = &other;
	flat_link_change(s->net, index, &change, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	text = look("ip -j link show flannel.1");
	HAS(text, "\"mtu\":1400");
	HAS(text, "0a:58:0a:f4:02:00");

	/* over IPv6; without an underlay; with what flatnet never makes */
	struct flat_vxlan v6 = {
		.vni = 2, .port = 4789, .local = ip("2001:db8::1"), .learning = true
	};
	flat_link_add_vxlan(s->net, "flannel-v6.1", &vtep_mac, 0, &v6, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	text = look("ip -d -j link show flannel-v6.1");
	HAS(text, "\"local6\":\"2001:db8::1\"");
	HAS(text, "\"port\":4789");
	HAS(text, "\"learning\":true");
	assert_int_equal(flat_link_by_name(s->net, "flannel-v6.1", &link, &s->err), 1);
	assert_true(flat_ip_equal(&link.vxlan.local, &v6.local));
	assert_true(link.vxlan.learning);
	assert_int_equal(link.vxlan.underlay, 0);
	assert_string_equal(look("ip link add odd type vxlan id 7 dstport 99 gbp; "
				 "ip link add ext type vxlan dstport 98 external"),
			    "");
	assert_int_equal(flat_link_by_name(s->net, "odd", &link, &s->err), 1);
	assert_true(link.vxlan.gbp && link.vxlan.learning && link.vxlan.vni == 7);
	assert_int_equal(flat_link_by_name(s->net, "ext", &link, &s->err), 1);
	assert_true(link.vxlan.external && link.vxlan.port == 98);
	assert_int_equal(flat_link_by_name(s->net, "up0", &link, &s->err), 1);
	assert_int_equal(link.vxlan.vni | link.vxlan.port, 0);
}

static void test_vxlan_names(void **state)
{
	struct scene *s = *state;
	struct flat_err err = { 0 };
	int index = add_vxlan(s);
	struct flat_vxlan vxlan = { .vni = 1, .port = 8472 };
	flat_link_add_vxlan(s->net, "flannel.1", &vtep_mac, 0, &vxlan, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &err), -EEXIST);
	HAS(err.msg, "add VXLAN device 'flannel.1': File exists");

	/* two makers: whoever comes second finds it up */
	look("ip link set flannel.1 down");
	flat_link_add_vxlan(s->net, "flannel.1", &vtep_mac, 0, &vxlan, FLAT_EXISTS_OK);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip -j link show flannel.1"), "\"UP\"");
	HAS(look("ip -d -j link show flannel.1"), "\"local\":\"192.0.2.1\"");
	assert_int_equal(index_of(s, "flannel.1"), index);

	/* what is not ours stays as it is */
	look("ip link set flannel.1 down; ip link add stranger type veth peer name other");
	vxlan.vni = 2;
	flat_link_add_vxlan(s->net, "flannel.1", &vtep_mac, 0, &vxlan, FLAT_EXISTS_OK);
	assert_int_equal(flat_net_commit(s->net, &s->err), -EOPNOTSUPP);
	flat_link_add_vxlan(s->net, "stranger", &vtep_mac, 0, &vxlan, FLAT_EXISTS_OK);
	assert_int_equal(flat_net_commit(s->net, &s->err), -EOPNOTSUPP);
	LACKS(look("ip -j link show flannel.1"), "\"UP\"");
	LACKS(look("ip -j link show stranger"), "\"UP\"");
	HAS(look("ip -d -j link show stranger"), "\"inet6_addr_gen_mode\":\"eui64\"");
}

/* Is the feature on? As ethtool -k finds out: by its name in the list of all. */
static bool has_feature(const char *link, const char *feature)
{
	union {
		struct ethtool_sset_info head;
		uint32_t words[8];
	} set = { .head = { .cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ULL << ETH_SS_FEATURES } };
	static union {
		struct ethtool_gstrings head;
		char bytes[8192];
	} names;
	static union {
		struct ethtool_gfeatures head;
		char bytes[1024];
	} features;
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool on = false;
	strncpy(request.ifr_name, link, sizeof request.ifr_name - 1);
	request.ifr_data = (void *)&set;
	assert_int_equal(ioctl(fd, SIOCETHTOOL, &request), 0);
	const uint32_t count = set.words[sizeof set.head / sizeof *set.words];
	assert_in_range(count, 1, 200);
	names.head = (struct ethtool_gstrings){ .cmd = ETHTOOL_GSTRINGS,
						.string_set = ETH_SS_FEATURES,
						.len = count };
	request.ifr_data = names.bytes;
	assert_int_equal(ioctl(fd, SIOCETHTOOL, &request), 0);
	features.head =
		(struct ethtool_gfeatures){ .cmd = ETHTOOL_GFEATURES, .size = (count + 31) / 32 };
	request.ifr_data = features.bytes;
	assert_int_equal(ioctl(fd, SIOCETHTOOL, &request), 0);
	for (uint32_t i = 0; i < count; i++) {
		const char *name = names.bytes + sizeof names.head + i * ETH_GSTRING_LEN;
		const struct ethtool_get_features_block *block =
			(const void *)(features.bytes + sizeof features.head);
		if (!strncmp(name, feature, ETH_GSTRING_LEN))
			on = block[i / 32].active >> i % 32 & 1;
	}
	close(fd);
	return on;
}

static void test_checksum(void **state)
{
	static const char feature[] = "tx-checksum-ip-generic";
	struct scene *s = *state;
	struct flat_err err = { 0 };
	add_vxlan(s);
	assert_true(has_feature("flannel.1", feature));
	assert_int_equal(flat_link_get_tx_checksum("flannel.1", &s->err), 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(flat_link_set_tx_checksum("flannel.1", false, &s->err), 0);
		assert_false(has_feature("flannel.1", feature));
		assert_int_equal(flat_link_get_tx_checksum("flannel.1", &s->err), 0);
	}
	assert_int_equal(flat_link_set_tx_checksum("flannel.1", true, &s->err), 0);
	assert_true(has_feature("flannel.1", feature));
	assert_int_equal(s->err.code, 0);

	assert_int_equal(flat_link_set_tx_checksum("lo", false, &err), -EOPNOTSUPP);
	HAS(err.msg, "set checksum offload of link 'lo': ");
	assert_int_equal(flat_link_get_tx_checksum("nothing", NULL), -ENODEV);
	assert_int_equal(flat_link_get_tx_checksum("a-name-that-is-too-long", NULL), -ENODEV);
	assert_int_equal(flat_link_set_tx_checksum("", true, NULL), -ENODEV);
}

static void test_netns_id(void **state)
{
	struct scene *s = *state;
	struct flat_link link;
	int nsid = -7;
	assert_int_equal(flat_netns_id(s->net, s->pod, &nsid, &s->err), 0);
	assert_int_equal(nsid, -7);
	look("ip link add veth1 type veth peer name eth0 netns /proc/%d/fd/%d", (int)getpid(),
	     s->pod);
	assert_int_equal(flat_netns_id(s->net, s->pod, &nsid, &s->err), 1);
	char part[64];
	snprintf(part, sizeof part, "\"link_netnsid\":%d", nsid);
	HAS(look("ip -j link show veth1"), part);
	assert_int_equal(flat_link_by_name(s->net, "veth1", &link, &s->err), 1);
	assert_int_equal(link.peer_nsid, nsid);
	assert_int_equal(flat_netns_id(s->net, STDIN_FILENO, &nsid, &s->err), -EINVAL);
	HAS(s->err.msg, "look up the number of a network namespace");
}

/* ---- neighbours --------------------------------------------------------------------------------
 */

struct seen {
	size_t count, permanent;
	struct flat_neigh neigh; /* the last one */
	struct flat_fdb fdb;
	struct flat_ip wanted; /* family 0: any */
};

static int see_neigh(void *arg, const struct flat_neigh *neigh)
{
	struct seen *seen = arg;
	if (seen->wanted.family && !flat_ip_equal(&seen->wanted, &neigh->ip))
		return 0;
	seen->count++;
	seen->permanent += neigh->state == NUD_PERMANENT;
	seen->neigh = *neigh;
	return 0;
}

static int stop_at_once(void *arg, const struct flat_neigh *neigh)
{
	(void)neigh;
	++*(int *)arg;
	return -ECANCELED;
}

static void test_neighbours(void **state)
{
	struct scene *s = *state;
	int index = add_vxlan(s), calls = 0;
	const struct flat_ip a = ip("10.244.2.0"), b = ip("fd00:2::");
	struct flat_mac one = mac("0a:58:0a:f4:02:00"), two = mac("0a:58:0a:f4:03:00");
	flat_neigh_set(s->net, index, &a, &one);
	flat_neigh_set(s->net, index, &b, &one);
	OK(s, flat_net_commit(s->net, &s->err));
	const char *text = look("ip neigh show dev flannel.1 nud permanent");
	HAS(text, "10.244.2.0 lladdr 0a:58:0a:f4:02:00 PERMANENT");
	HAS(text, "fd00:2:: lladdr 0a:58:0a:f4:02:00 PERMANENT");
	flat_neigh_set(s->net, index, &a, &two);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip neigh show dev flannel.1"), "10.244.2.0 lladdr 0a:58:0a:f4:03:00 PERMANENT");
	look("ip neigh replace 10.244.2.0 lladdr 0a:58:00:00:00:09 nud reachable dev flannel.1");
	flat_neigh_set(s->net, index, &a, &two);
	OK(s, flat_net_commit(s->net, &s->err));
	HAS(look("ip neigh show dev flannel.1"), "10.244.2.0 lladdr 0a:58:0a:f4:03:00 PERMANENT");

	look("ip neigh add 192.0.2.9 lladdr 0a:58:00:00:00:09 nud permanent dev up0");
	struct seen seen = { 0 };
	OK(s, flat_neigh_each(s->net, index, AF_INET, see_neigh, &seen, &s->err));
	assert_int_equal(seen.count, 1);
	assert_true(flat_ip_equal(&seen.neigh.ip, &a) && seen.neigh.has_mac);
	assert_memory_equal(&seen.neigh.mac, &two, sizeof two);
	assert_int_equal(seen.neigh.state, NUD_PERMANENT);
	assert_int_equal(seen.neigh.index, index);
	seen = (struct seen){ .wanted = b };
	OK(s, flat_neigh_each(s->net, index, 0, see_neigh, &seen, &s->err));
	assert_int_equal(seen.count, 1);
	assert_int_equal(flat_neigh_each(s->net, index, 0, stop_at_once, &calls, &s->err),
			 -ECANCELED);
	assert_int_equal(calls, 1);
	/* one that does not answer has no MAC */
	look("ping -c1 -W1 192.0.2.77");
	seen = (struct seen){ .wanted = ip("192.0.2.77") };
	OK(s, flat_neigh_each(s->net, index_of(s, "up0"), AF_INET, see_neigh, &seen, &s->err));
	assert_int_equal(seen.count, 1);
	assert_false(seen.neigh.has_mac);

	flat_neigh_del(s->net, index, &a, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	LACKS(look("ip neigh show dev flannel.1"), "10.244.2.0");
	flat_neigh_del(s->net, index, &a, FLAT_GONE_OK);
	OK(s, flat_net_commit(s->net, &s->err));
	flat_neigh_del(s->net, index, &a, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &s->err), -ENOENT);
	HAS(s->err.msg, "delete neighbour 10.244.2.0 on link ");
}

static void test_neigh_count(void **state)
{
	struct scene *s = *state;
	uint32_t before[2], after[2], limit;
	char part[64];
	int index = add_vxlan(s);
	OK(s, flat_neigh_count(s->net, AF_INET, &before[0], &limit, &s->err));
	OK(s, flat_neigh_count(s->net, AF_INET6, &before[1], &limit, &s->err));
	snprintf(part, sizeof part, " thresh3 %u", limit);
	HAS(look("ip ntable show name ndisc_cache"), part);
	look("for i in 1 2 3 4 5; do ip neigh add 10.244.$i.0 lladdr 0a:58:00:00:00:09 dev flannel.1; "
	     "done; ip neigh add fd00:2:: lladdr 0a:58:00:00:00:09 dev flannel.1");
	/* others' are not counted */
	look("nsenter --net=/proc/%d/fd/%d sh -c 'ip link set lo up; ip link add a type veth peer "
	     "name b; ip neigh add 10.9.9.9 lladdr 0a:58:00:00:00:09 dev a'",
	     (int)getpid(), s->pod);
	OK(s, flat_neigh_count(s->net, AF_INET, &after[0], &limit, &s->err));
	OK(s, flat_neigh_count(s->net, AF_INET6, &after[1], &limit, &s->err));
	assert_int_equal(after[0], before[0] + 5);
	/* the kernel adds some by itself, for multicast */
	assert_in_range(after[1], before[1] + 1, before[1] + 16);
	struct seen seen = { 0 };
	OK(s, flat_neigh_each(s->net, index, AF_INET, see_neigh, &seen, &s->err));
	assert_int_equal(seen.count, 5);
}

/* ---- forwarding entries ------------------------------------------------------------------------
 */

static int see_fdb(void *arg, const struct flat_fdb *fdb)
{
	struct seen *seen = arg;
	seen->count++;
	seen->permanent += fdb->state == NUD_PERMANENT && fdb->dst.family != 0;
	seen->fdb = *fdb;
	return 0;
}

static void set_fdb(struct scene *s, int index, const struct flat_mac *m, const char *dst)
{
	struct flat_ip host = ip(dst);
	flat_fdb_set(s->net, index, m, &host);
	OK(s, flat_net_commit(s->net, &s->err));
}

/* The entries of one MAC as bridge(8) shows them. */
static const char *fdb_of(const char *m)
{
	return look("bridge fdb show dev flannel.1 | grep ^%s", m);
}

static void test_fdb(void **state)
{
	struct scene *s = *state;
	static const char text[] = "0a:58:0a:f4:02:00";
	static const char good[] = "0a:58:0a:f4:02:00 dst 192.0.2.7 self permanent\n";
	int index = add_vxlan(s);
	const struct flat_mac m = mac(text), zero = { 0 };
	const struct flat_ip there = ip("192.0.2.7"), nowhere = { 0 };
	struct seen seen = { 0 };
	set_fdb(s, index, &m, "192.0.2.7");
	assert_string_equal(fdb_of(text), good);
	HAS(look("bridge -j fdb show dev flannel.1"), "\"dst\":\"192.0.2.7\"");
	OK(s, flat_fdb_each(s->net, index, see_fdb, &seen, &s->err));
	assert_int_equal(seen.count, 1);
	assert_memory_equal(&seen.fdb.mac, &m, sizeof m);
	assert_true(flat_ip_equal(&seen.fdb.dst, &there));
	assert_int_equal(seen.fdb.state, NUD_PERMANENT);
	assert_int_equal(seen.fdb.flags & NTF_SELF, NTF_SELF);

	/* whatever was there, one destination is left */
	static const char *const others[][2] = {
		{ "replace", "dst 192.0.2.8 self permanent" },
		{ "replace", "dst 192.0.2.8 self dynamic" },
		{ "replace", "dst 192.0.2.7 self dynamic" },
		{ "replace", "dst 192.0.2.7 port 99 self permanent" },
		{ "replace", "dst 192.0.2.7 vni 4 self permanent" },
		{ "replace", "dst 192.0.2.7 via up0 self permanent" },
		{ "append", "dst 192.0.2.9 self permanent" },
	};
	for (size_t i = 0; i < FLAT_LEN(others); i++) {
		assert_string_equal(look("bridge fdb %s %s dev flannel.1 %s", others[i][0], text,
					 others[i][1]),
				    "");
		seen = (struct seen){ 0 };
		OK(s, flat_fdb_each(s->net, index, see_fdb, &seen, &s->err));
		assert_int_equal(seen.count, 1);
		/* and it is told to be another; append changes nothing but the state */
		assert_true(seen.fdb.state != NUD_PERMANENT ||
			    !flat_ip_equal(&seen.fdb.dst, &there) ||
			    !strcmp(others[i][0], "append"));
		set_fdb(s, index, &m, "192.0.2.7");
		assert_string_equal(fdb_of(text), good);
	}

	/* a group of next hops has to be deleted first */
	look("bridge fdb del %s dev flannel.1; ip nexthop add id 1 via 192.0.2.66 fdb; "
	     "ip nexthop add id 2 group 1 fdb; bridge fdb add %s dev flannel.1 nhid 2 self",
	     text, text);
	HAS(fdb_of(text), "nhid 2");
	seen = (struct seen){ 0 };
	OK(s, flat_fdb_each(s->net, index, see_fdb, &seen, &s->err));
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.fdb.dst.family, 0);
	flat_fdb_del(s->net, index, &m, &nowhere, FLAT_STRICT);
	set_fdb(s, index, &m, "192.0.2.7");
	assert_string_equal(fdb_of(text), good);

	/* what is flooded may go to several */
	look("bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.8; "
	     "bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.9");
	assert_int_equal(count_text(fdb_of("00:00"), "dst"), 2);
	set_fdb(s, index, &zero, "192.0.2.7");
	assert_string_equal(fdb_of("00:00"), "00:00:00:00:00:00 dst 192.0.2.7 self permanent\n");
	set_fdb(s, index, &zero, "192.0.2.8");
	assert_string_equal(fdb_of("00:00"), "00:00:00:00:00:00 dst 192.0.2.8 self permanent\n");

	flat_fdb_del(s->net, index, &m, &there, FLAT_STRICT);
	OK(s, flat_net_commit(s->net, &s->err));
	assert_string_equal(fdb_of(text), "");
	flat_fdb_del(s->net, index, &m, &there, FLAT_GONE_OK);
	OK(s, flat_net_commit(s->net, &s->err));
	flat_fdb_del(s->net, index, &m, &there, FLAT_STRICT);
	assert_int_equal(flat_net_commit(s->net, &s->err), -ENOENT);
	HAS(s->err.msg, "delete forwarding entry 0a:58:0a:f4:02:00 to 192.0.2.7 on link ");
}

/* A bridge has a database, too: of its ports, and it is not ours to read. */
static void test_fdb_of_bridge(void **state)
{
	struct scene *s = *state;
	struct seen seen = { 0 };
	int index = add_vxlan(s);
	look("ip link add br0 type bridge; ip link set br0 up; ip link set flannel.1 master br0; "
	     "bridge fdb add 0a:58:00:00:00:01 dev flannel.1 master static");
	HAS(look("bridge fdb show dev flannel.1"), "0a:58:00:00:00:01 master br0 static");
	const struct flat_mac m = mac("0a:58:00:00:00:02");
	set_fdb(s, index, &m, "192.0.2.7");
	OK(s, flat_fdb_each(s->net, index, see_fdb, &seen, &s->err));
	assert_int_equal(seen.count, 1);
	assert_memory_equal(&seen.fdb.mac, &m, sizeof m);
	seen = (struct seen){ 0 };
	OK(s, flat_fdb_each(s->net, 4711, see_fdb, &seen, &s->err));
	assert_int_equal(seen.count, 0);
}

/* ---- many --------------------------------------------------------------------------------------
 */

enum { NODES = 5000, LIMIT_KB = 4096 };

static long memory_kb(const char *key)
{
	char line[128];
	long kb = -1;
	FILE *f = fopen("/proc/self/status", "re");
	assert_non_null(f);
	while (kb < 0 && fgets(line, sizeof line, f)) {
		if (!strncmp(line, key, strlen(key)))
			kb = strtol(line + strlen(key), NULL, 10);
	}
	fclose(f);
	assert_true(kb > 0);
	return kb;
}

/* The peak (VmHWM) starts anew: proc(5), clear_refs. */
static long start_measuring(void)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "5", 1), 1);
	close(fd);
	return memory_kb("VmRSS:");
}

static void took_less(long start, const char *what)
{
	long took = memory_kb("VmHWM:") - start;
	print_message("# %s: %ld KiB\n", what, took);
	if (took >= LIMIT_KB && !getenv("FLAT_SANITIZED"))
		fail_msg("%s took %ld KiB", what, took);
}

static int see_route(void *arg, const struct flat_net_route *route)
{
	struct seen *seen = arg;
	seen->count += route->protocol == FLAT_RTPROT;
	return 0;
}

/* What a cluster of 5,000 nodes needs on each: 15,000 changes in one commit. */
static void test_many(void **state)
{
	struct scene *s = *state;
	int index = add_vxlan(s);
	long start = start_measuring();
	for (unsigned i = 0; i < NODES; i++) {
		uint8_t high = (uint8_t)(i >> 8), low = (uint8_t)i;
		struct flat_ip gw = { AF_INET, { 10, high, low, 0 } };
		struct flat_ip host = { AF_INET, { 192, 0, high, low } };
		struct flat_mac m = { { 0x0a, 0x58, 10, high, low, 0 } };
		struct flat_net_route route = {
			.route = { .dst = { gw, 24 }, .gw = gw, .scope = -1 },
			.oif = index,
			.protocol = FLAT_RTPROT,
			.onlink = true,
		};
		flat_neigh_set(s->net, index, &gw, &m);
		flat_fdb_set(s->net, index, &m, &host);
		flat_route_add(s->net, &route, true, FLAT_STRICT);
		/* the first error is told, and those that come after it are tried */
		if (i == 3000 || i == 4000)
			flat_neigh_del(s->net, index, &host, FLAT_STRICT);
	}
	took_less(start, "15,000 queued changes");
	assert_int_equal(flat_net_commit(s->net, &s->err), -ENOENT);
	HAS(s->err.msg, "delete neighbour 192.0.11.184 on link ");
	took_less(start, "15,000 sent changes");
	HAS(look("ip route show proto 241 | wc -l"), "5000\n");
	HAS(look("ip neigh show dev flannel.1 nud permanent | wc -l"), "5000\n");
	HAS(look("bridge fdb show dev flannel.1 | wc -l"), "5000\n");
	HAS(look("ip route show 10.19.135.0/24"), "via 10.19.135.0 dev flannel.1 proto 241 onlink");
	HAS(look("bridge fdb show dev flannel.1 | grep 0a:58:0a:13:87:00"), "dst 192.0.19.135");

	struct seen neighs = { 0 }, entries = { 0 }, routes = { 0 };
	start = start_measuring();
	OK(s, flat_neigh_each(s->net, index, AF_INET, see_neigh, &neighs, NULL));
	OK(s, flat_fdb_each(s->net, index, see_fdb, &entries, NULL));
	OK(s, flat_route_each(s->net, AF_INET, index, FLAT_RTPROT, 0, see_route, &routes, NULL));
	took_less(start, "three dumps of 5,000 entries");
	assert_int_equal(neighs.count, NODES);
	assert_int_equal(neighs.permanent, NODES);
	assert_int_equal(entries.count, NODES);
	assert_int_equal(entries.permanent, NODES);
	assert_int_equal(routes.count, NODES);
	uint32_t count, limit;
	OK(s, flat_neigh_count(s->net, AF_INET, &count, &limit, NULL));
	assert_in_range(count, NODES, NODES + 16);

	/* 15,000 of one kind */
	start = start_measuring();
	for (unsigned i = NODES; i < 3 * NODES; i++) {
		struct flat_ip a = { AF_INET, { 10, (uint8_t)(i >> 8), (uint8_t)i, 0 } };
		flat_neigh_set(s->net, index, &a, &vtep_mac);
	}
	OK(s, flat_net_commit(s->net, NULL));
	neighs = (struct seen){ 0 };
	OK(s, flat_neigh_each(s->net, index, AF_INET, see_neigh, &neighs, NULL));
	took_less(start, "a dump of 15,000 entries");
	assert_int_equal(neighs.count, 3 * NODES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_vxlan),    TEST(test_vxlan_names),   TEST(test_checksum),
		TEST(test_netns_id), TEST(test_neighbours),    TEST(test_neigh_count),
		TEST(test_fdb),	     TEST(test_fdb_of_bridge), TEST(test_many),
	};
	return cmocka_run_group_tests_name("net-overlay", tests, NULL, NULL);
}
