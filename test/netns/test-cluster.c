// SPDX-License-Identifier: Apache-2.0
/* lib/cluster on the kernel of this machine; started by in-netns or test/run. Each test has a fresh
 * namespace with a link 'under' that has addresses of both families. What is damaged is damaged
 * with ip and bridge, and looked at with them. */
#include "scene.h"

#include <flatnet/cluster.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MANY = 5000 };

struct world {
	struct scene *scene;
	struct flat_net *net; /* the scene's */
	struct flat_err err;
	struct flat_cluster_conf conf;
	struct flat_underlay underlays[FLAT_FAMILIES];
	struct flat_node nodes[MANY + 1];
	const struct flat_node *list[MANY + 1];
	size_t count;
	struct flat_judgement out[MANY + 1];
	struct flat_node_state state;
	struct flat_repairs repairs;
	struct flat_monitor *monitor;
	size_t events, disturbing, disturbing_links;
};

/* Says nothing when it works. */
static void run(const char *command, int line)
{
	const char *said = look("%s", command);
	if (said[0]) {
		print_error("line %d: %s: %s\n", line, command, said);
		fail();
	}
}
#define RUN(command) run(command, __LINE__)

/* ---- the scene ---------------------------------------------------------------------------------
 */

static int build(void **state)
{
	struct world *s = calloc(1, sizeof *s);
	void *scene = NULL;
	if (!s || setup(&scene) < 0)
		return -1;
	*state = s;
	s->scene = scene;
	s->net = s->scene->net;
	RUN("ip link add under type veth peer name over && "
	    "ip link set under up && ip link set over up && ip address add 192.0.2.1/24 dev under && "
	    "ip address add 2001:db8::1/64 dev under nodad");
	s->conf = (struct flat_cluster_conf){
		.cidrs = { prefix("10.244.0.0/16"), prefix("fd00:10:244::/56") },
		.cidr_count = 2,
		.backend = FLAT_BACKEND_VXLAN,
		.vni = 1,
		.port = 8472,
		.link = { "flannel.1", "flannel-v6.1" },
	};
	const int index = index_of(s->scene, "under");
	for (int f = 0; f < FLAT_FAMILIES; f++)
		s->underlays[f] = (struct flat_underlay){
			.index = index, .name = "under", .mtu = 1500, .onlink_count = 1
		};
	s->underlays[FLAT_V4].address = ip("192.0.2.1");
	s->underlays[FLAT_V4].onlink[0] = prefix("192.0.2.0/24");
	s->underlays[FLAT_V6].address = ip("2001:db8::1");
	s->underlays[FLAT_V6].onlink[0] = prefix("2001:db8::/64");
	for (int i = 0; i < 4; i++) {
		static const char *const names[] = { "n1", "n2", "n3", "n4" };
		struct flat_node *n = &s->nodes[i];
		*n = (struct flat_node){ .name = names[i], .pod_cidr_count = 2 };
		n->addresses[FLAT_V4] = ip("192.0.2.1");
		n->addresses[FLAT_V4].bytes[3] = (uint8_t)(i + 1);
		n->addresses[FLAT_V6] = ip("2001:db8::1");
		n->addresses[FLAT_V6].bytes[15] = (uint8_t)(i + 1);
		n->pod_cidrs[0] = prefix("10.244.1.0/24");
		n->pod_cidrs[0].ip.bytes[2] = (uint8_t)(i + 1);
		n->pod_cidrs[1] = prefix("fd00:10:244:1::/64");
		n->pod_cidrs[1].ip.bytes[7] = (uint8_t)(i + 1);
	}
	s->count = 3;
	return flat_monitor_open(1u << FLAT_EVENT_LINK | 1u << FLAT_EVENT_ADDR |
					 1u << FLAT_EVENT_ROUTE | 1u << FLAT_EVENT_NEIGH,
				 &s->monitor, &s->err);
}

static int take_down(void **state)
{
	struct world *s = *state;
	flat_monitor_close(s->monitor);
	flat_node_state_free(&s->state);
	flat_repairs_free(&s->repairs);
	void *scene = s->scene;
	free(s);
	return teardown(&scene);
}

static void plan(struct world *s)
{
	flat_node_state_free(&s->state);
	for (size_t i = 0; i < s->count; i++)
		s->list[i] = &s->nodes[i];
	assert_int_equal(flat_cluster_judge(&s->conf, s->list, s->count, "n1", s->out, &s->err), 0);
	assert_int_equal(flat_cluster_plan(&s->conf, s->underlays, &s->nodes[0], s->list, s->count,
					   s->out, &s->state, &s->err),
			 0);
}

static int ensure(struct world *s)
{
	flat_repairs_free(&s->repairs);
	s->err = (struct flat_err){ 0 };
	return flat_node_state_ensure(&s->state, s->net, &s->repairs, &s->err);
}

static void ensures(struct world *s, int line)
{
	if (ensure(s) < 0) {
		print_error("line %d: %s (%s)\n", line, s->err.msg, s->err.details);
		fail();
	}
}
#define ENSURE(s) ensures(s, __LINE__)

static int verify(struct world *s)
{
	s->err = (struct flat_err){ 0 };
	return flat_node_state_verify(&s->state, s->net, &s->err);
}

static void verifies(struct world *s, int line)
{
	if (verify(s) < 0) {
		print_error("line %d: %s\n", line, s->err.msg);
		fail();
	}
}
#define VERIFY(s) verifies(s, __LINE__)

static size_t count_repairs(const struct world *s)
{
	size_t n = 0;
	for (int i = 0; i < FLAT_REPAIR_KINDS; i++)
		n += s->repairs.set[i] + s->repairs.removed[i];
	return n;
}

static void hear(void *arg, const struct flat_event *event)
{
	struct world *s = arg;
	int indices[FLAT_FAMILIES] = { 0 };
	for (int f = 0; f < FLAT_FAMILIES; f++)
		flat_link_find_index(s->net, s->conf.link[f], &indices[f], NULL);
	s->events++;
	if (!flat_node_state_is_disturbed(&s->state, indices, event))
		return;
	s->disturbing++;
	s->disturbing_links += event->kind == FLAT_EVENT_LINK;
}

static void listen_now(struct world *s)
{
	s->events = s->disturbing = s->disturbing_links = 0;
	while (flat_monitor_read(s->monitor, hear, s, &s->err) > 0)
		;
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_from_nothing(void **state)
{
	struct world *s = *state;
	plan(s);
	assert_int_equal(verify(s), -EINVAL);
	assert_int_equal(s->err.code, FLAT_CODE_MISMATCH);
	assert_string_equal(s->err.msg, "VXLAN device 'flannel.1' is missing");
	listen_now(s);
	ENSURE(s);
	assert_int_equal(s->repairs.set[FLAT_REPAIR_LINK], 2);
	assert_int_equal(s->repairs.set[FLAT_REPAIR_ROUTE], 4);
	assert_int_equal(s->repairs.set[FLAT_REPAIR_NEIGH], 4);
	assert_int_equal(s->repairs.set[FLAT_REPAIR_FDB], 4);
	assert_int_equal(s->repairs.added_count, 4);
	HAS(s->repairs.first[FLAT_REPAIR_ROUTE], "route to 10.244.2.0/24 of node 'n2' was missing");
	HAS(look("ip -d link show flannel.1"),
	    "vxlan id 1 local 192.0.2.1 dev under srcport 0 0 dstport 8472 nolearning");
	HAS(look("ip link show flannel.1"), "mtu 1450");
	HAS(look("ip link show flannel.1"), "0a:58:0a:f4:01:00");
	HAS(look("ip address show flannel.1"), "inet 10.244.1.0/32 scope global");
	LACKS(look("ip address show flannel.1"), "fe80");
	HAS(look("ip -d link show flannel-v6.1"), "local 2001:db8::1 dev under");
	HAS(look("ip route show"), "10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 241 onlink");
	HAS(look("ip -6 route show proto 241"),
	    "fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1");
	HAS(look("ip neigh show dev flannel.1"), "10.244.2.0 lladdr 0a:58:0a:f4:02:00 PERMANENT");
	HAS(look("bridge fdb show dev flannel.1"),
	    "0a:58:0a:f4:02:00 dst 192.0.2.2 self permanent");
	HAS(look("bridge fdb show dev flannel-v6.1"),
	    "0a:58:0a:f4:03:00 dst 2001:db8::3 self permanent");
	VERIFY(s);
	/* our own changes come back as planned; a device comes up in several steps */
	listen_now(s);
	assert_true(s->events >= 14);
	assert_int_equal(s->disturbing, s->disturbing_links);

	ENSURE(s);
	assert_int_equal(count_repairs(s), 0);
	listen_now(s);
	assert_int_equal(s->events, 0);
}

static void test_damage(void **state)
{
	static const struct {
		const char *command;
		enum flat_repair kind;
		bool is_seen; /* CHECK sees it; what is too much, it does not */
	} damage[] = {
		{ "ip link del flannel.1", FLAT_REPAIR_LINK, true },
		{ "ip link del flannel-v6.1", FLAT_REPAIR_LINK, true },
		{ "ip link set flannel.1 down", FLAT_REPAIR_LINK, true },
		{ "ip link set flannel-v6.1 down", FLAT_REPAIR_LINK, true },
		{ "ip link set flannel.1 mtu 1300", FLAT_REPAIR_LINK, true },
		{ "ip link set flannel.1 address 0a:58:00:00:00:01", FLAT_REPAIR_LINK, true },
		{ "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dstport 8473 "
		  "local 192.0.2.1 dev under nolearning && ip link set flannel.1 up",
		  FLAT_REPAIR_LINK, true },
		{ "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dstport 8472 "
		  "local 192.0.2.1 dev under learning && ip link set flannel.1 up",
		  FLAT_REPAIR_LINK, true },
		{ "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dstport 8472 "
		  "local 192.0.2.7 dev under nolearning && ip link set flannel.1 up",
		  FLAT_REPAIR_LINK, true },
		{ "ip address flush dev flannel.1", FLAT_REPAIR_ADDRESS, true },
		{ "ip address add 10.9.9.9/32 dev flannel.1", FLAT_REPAIR_ADDRESS, false },
		{ "ip route del 10.244.2.0/24", FLAT_REPAIR_ROUTE, true },
		{ "ip -6 route del fd00:10:244:3::/64", FLAT_REPAIR_ROUTE, true },
		{ "ip route replace 10.244.2.0/24 via 192.0.2.9 proto 241", FLAT_REPAIR_ROUTE,
		  true },
		{ "ip route add 10.244.2.0/24 via 192.0.2.9 metric 7 proto 241", FLAT_REPAIR_ROUTE,
		  false },
		{ "ip route add 10.244.99.0/24 via 192.0.2.9 proto 241", FLAT_REPAIR_ROUTE, false },
		{ "ip -6 route add fd00:10:244:99::/64 via 2001:db8::9 proto 241",
		  FLAT_REPAIR_ROUTE, false },
		{ "ip neigh del 10.244.2.0 dev flannel.1", FLAT_REPAIR_NEIGH, true },
		{ "ip neigh replace 10.244.2.0 lladdr 0a:58:0a:f4:09:00 dev flannel.1 nud permanent",
		  FLAT_REPAIR_NEIGH, true },
		{ "ip neigh replace 10.244.2.0 lladdr 0a:58:0a:f4:02:00 dev flannel.1 nud stale",
		  FLAT_REPAIR_NEIGH, true },
		{ "ip neigh add 10.244.99.0 lladdr 0a:58:0a:f4:63:00 dev flannel.1 nud permanent",
		  FLAT_REPAIR_NEIGH, false },
		{ "ip neigh flush dev flannel.1 nud permanent", FLAT_REPAIR_NEIGH, true },
		{ "bridge fdb del 0a:58:0a:f4:02:00 dev flannel.1 dst 192.0.2.2", FLAT_REPAIR_FDB,
		  true },
		{ "bridge fdb replace 0a:58:0a:f4:02:00 dev flannel.1 dst 192.0.2.9",
		  FLAT_REPAIR_FDB, true },
		{ "bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.9",
		  FLAT_REPAIR_FDB, false },
		{ "bridge fdb add 0a:58:0a:f4:63:00 dev flannel.1 dst 192.0.2.9", FLAT_REPAIR_FDB,
		  false },
		{ "bridge fdb del 0a:58:0a:f4:02:00 dev flannel-v6.1", FLAT_REPAIR_FDB, true },
	};
	struct world *s = *state;
	plan(s);
	ENSURE(s);
	for (size_t i = 0; i < FLAT_LEN(damage); i++) {
		listen_now(s);
		RUN(damage[i].command);
		listen_now(s);
		if (!s->disturbing)
			fail_msg("'%s' went unheard", damage[i].command);
		if ((verify(s) < 0) != damage[i].is_seen)
			fail_msg("'%s': verify: '%s'", damage[i].command, s->err.msg);
		if (damage[i].is_seen)
			assert_int_equal(s->err.code, FLAT_CODE_MISMATCH);
		ENSURE(s);
		if (!s->repairs.set[damage[i].kind] + !s->repairs.removed[damage[i].kind] == 2 ||
		    !s->repairs.first[damage[i].kind][0])
			fail_msg("'%s' went unrepaired", damage[i].command);
		if (verify(s) < 0)
			fail_msg("'%s': still %s", damage[i].command, s->err.msg);
		ENSURE(s);
		if (count_repairs(s))
			fail_msg("'%s': not all at once", damage[i].command);
	}
	LACKS(look("bridge fdb show dev flannel.1"), "192.0.2.9");
	LACKS(look("ip route show"), "192.0.2.9");
	LACKS(look("ip neigh show dev flannel.1"), "10.244.99.0");
	LACKS(look("ip address show flannel.1"), "10.9.9.9");
}

/* The nodes change: what belongs to those that left goes. */
static void test_changes(void **state)
{
	struct world *s = *state;
	plan(s);
	ENSURE(s);
	s->count = 2;
	plan(s);
	ENSURE(s);
	assert_int_equal(s->repairs.removed[FLAT_REPAIR_ROUTE], 2);
	assert_int_equal(s->repairs.removed[FLAT_REPAIR_NEIGH], 2);
	assert_int_equal(s->repairs.removed[FLAT_REPAIR_FDB], 2);
	LACKS(look("ip route show; ip -6 route show; ip neigh show; bridge fdb show dev flannel.1"),
	      "10.244.3.");
	/* n2 has another address, n3 is back, with another subnet */
	s->count = 3;
	s->nodes[1].addresses[FLAT_V4] = ip("192.0.2.22");
	s->nodes[2].pod_cidrs[0] = prefix("10.244.4.0/24");
	plan(s);
	ENSURE(s);
	VERIFY(s);
	LACKS(look("bridge fdb show dev flannel.1"), "192.0.2.2 ");
	HAS(look("bridge fdb show dev flannel.1"), "0a:58:0a:f4:02:00 dst 192.0.2.22");
	HAS(look("ip route show"), "10.244.4.0/24 via 10.244.4.0 dev flannel.1");

	/* the device follows its underlay */
	s->underlays[FLAT_V4].mtu = 1400;
	s->underlays[FLAT_V4].address = ip("192.0.2.11");
	plan(s);
	ENSURE(s);
	VERIFY(s);
	HAS(look("ip -d link show flannel.1"), "local 192.0.2.11");
	HAS(look("ip link show flannel.1"), "mtu 1350");

	/* no tunnels any more: routes stay without a gap, devices go */
	s->conf.backend = FLAT_BACKEND_AUTO;
	plan(s);
	ENSURE(s);
	VERIFY(s);
	HAS(look("ip route show"), "10.244.2.0/24 via 192.0.2.22 dev under proto 241");
	HAS(look("ip -6 route show"), "fd00:10:244:2::/64 via 2001:db8::2 dev under proto 241");
	LACKS(look("ip link show type vxlan"), "flannel");
	ENSURE(s);
	assert_int_equal(count_repairs(s), 0);

	/* off-link again */
	s->nodes[1].addresses[FLAT_V4] = ip("198.51.100.2");
	plan(s);
	ENSURE(s);
	VERIFY(s);
	HAS(look("ip route show"), "10.244.2.0/24 via 10.244.2.0 dev flannel.1");
	HAS(look("ip route show"), "10.244.4.0/24 via 192.0.2.3 dev under");
	assert_int_equal(s->state.pod_mtu, 1350);

	/* this node is not known: nothing is touched */
	flat_node_state_free(&s->state);
	assert_int_equal(flat_cluster_plan(&s->conf, s->underlays, NULL, s->list, s->count, s->out,
					   &s->state, &s->err),
			 0);
	ENSURE(s);
	assert_int_equal(count_repairs(s), 0);
}

/* From the state's plan to a new one, by what they differ in. */
static int step(struct world *s, size_t most)
{
	struct flat_node_state old = s->state;
	int indices[FLAT_FAMILIES] = { 0 };
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (old.links[f].name[0])
			indices[f] = index_of(s->scene, old.links[f].name);
	s->state = (struct flat_node_state){ 0 };
	plan(s);
	const int r = flat_node_state_step(&old, &s->state, indices, most, s->net);
	flat_node_state_free(&old);
	return r;
}

/* Without a look: it is as it should be all the same, and a look finds nothing to do. */
static void test_step(void **state)
{
	struct world *s = *state;
	plan(s);
	ENSURE(s);
	assert_int_equal(step(s, 100), 0); /* nothing new */
	/* n2 has another address, n3 other subnets, n4 is new */
	s->nodes[1].addresses[FLAT_V4] = ip("192.0.2.22");
	s->nodes[2].pod_cidrs[0] = prefix("10.244.5.0/24");
	s->nodes[2].pod_cidrs[1] = prefix("fd00:10:244:5::/64");
	s->count = 4;
	assert_int_equal(step(s, 3), 0);
	assert_int_equal(verify(s), -EINVAL);
	ENSURE(s);
	VERIFY(s);

	s->nodes[1].addresses[FLAT_V4] = ip("192.0.2.2");
	s->nodes[2].pod_cidrs[0] = prefix("10.244.3.0/24");
	s->nodes[2].pod_cidrs[1] = prefix("fd00:10:244:3::/64");
	s->count = 3;
	assert_true(step(s, 100) > 0);
	VERIFY(s);
	HAS(look("bridge fdb show dev flannel.1"), "0a:58:0a:f4:02:00 dst 192.0.2.2 ");
	LACKS(look("ip route show; ip neigh show"), "10.244.4.0");
	LACKS(look("ip route show; ip neigh show"), "10.244.5.0");
	ENSURE(s);
	assert_int_equal(count_repairs(s), 0);

	/* other devices: that is for a look */
	s->conf.backend = FLAT_BACKEND_AUTO;
	assert_int_equal(step(s, 100), 0);
	ENSURE(s);
	s->nodes[1].addresses[FLAT_V4] = ip("192.0.2.22");
	s->nodes[1].addresses[FLAT_V6] = ip("2001:db8::22");
	assert_int_equal(step(s, 100), 2);
	HAS(look("ip route show"), "10.244.2.0/24 via 192.0.2.22 dev under proto 241");
	HAS(look("ip -6 route show"), "fd00:10:244:2::/64 via 2001:db8::22 dev under proto 241");
	ENSURE(s);
	assert_int_equal(count_repairs(s), 0);

	/* what stands in the place of ours is left alone */
	RUN("ip route replace 10.244.2.0/24 via 192.0.2.77 proto static");
	s->nodes[1].addresses[FLAT_V4] = ip("192.0.2.23");
	assert_int_equal(step(s, 100), 1);
	HAS(look("ip route show"), "10.244.2.0/24 via 192.0.2.77 dev under proto static");
	LACKS(look("ip route show"), "192.0.2.23");
	s->count = 1;
	assert_true(step(s, 100) > 0);
	HAS(look("ip route show"), "10.244.2.0/24 via 192.0.2.77 dev under proto static");
	LACKS(look("ip route show; ip -6 route show"), "proto 241");
}

static void test_other_family(void **state)
{
	struct world *s = *state;
	/* IPv4 pods of nodes that have IPv6 addresses only */
	s->underlays[FLAT_V4] = (struct flat_underlay){ 0 };
	for (int i = 0; i < 3; i++)
		s->nodes[i].addresses[FLAT_V4] = (struct flat_ip){ 0 };
	s->conf.backend = FLAT_BACKEND_DIRECT;
	plan(s);
	ENSURE(s);
	VERIFY(s);
	HAS(look("ip route show"), "10.244.2.0/24 via inet6 2001:db8::2 dev under proto 241");
	s->conf.backend = FLAT_BACKEND_VXLAN;
	plan(s);
	ENSURE(s);
	VERIFY(s);
	HAS(look("ip route show"), "10.244.2.0/24 via 10.244.2.0 dev flannel-v6.1");
	HAS(look("ip neigh show dev flannel-v6.1"), "10.244.2.0 lladdr 0a:58:0a:f4:02:00");
	ENSURE(s);
	assert_int_equal(count_repairs(s), 0);
}

static void test_foreign(void **state)
{
	struct world *s = *state;
	RUN("ip route add 10.244.77.0/24 via 192.0.2.9 && ip route add 10.99.0.0/24 via 192.0.2.9 proto 241 && "
	    "ip link add vx9 type vxlan id 9 dstport 8472 dev under && ip link set vx9 up && "
	    "bridge fdb append 0a:58:0a:f4:63:00 dev vx9 dst 192.0.2.9 && "
	    "ip neigh add 192.0.2.77 lladdr 0a:58:0a:f4:63:00 dev under nud permanent");
	plan(s);
	ENSURE(s);
	ENSURE(s);
	assert_int_equal(count_repairs(s), 0);
	HAS(look("ip route show"), "10.244.77.0/24 via 192.0.2.9");
	HAS(look("ip route show"), "10.99.0.0/24 via 192.0.2.9");
	HAS(look("bridge fdb show dev vx9"), "0a:58:0a:f4:63:00 dst 192.0.2.9");
	HAS(look("ip neigh show dev under"), "192.0.2.77");

	/* a route in the way that does the same work: left to do it, and not counted */
	RUN("ip route del 10.244.2.0/24 && "
	    "ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto static");
	ENSURE(s);
	VERIFY(s);
	assert_int_equal(count_repairs(s), 0);
	RUN("ip route replace 10.244.2.0/24 via 192.0.2.9 proto static && ip route del 10.244.3.0/24");
	assert_int_equal(ensure(s), -EEXIST);
	assert_int_equal(s->err.code, FLAT_CODE_NETWORK);
	HAS(s->err.msg, "route to node 'n2' (10.244.2.0/24 via 10.244.2.0)");
	HAS(s->err.details, "another program's route");
	assert_int_equal(s->repairs.set[FLAT_REPAIR_ROUTE], 1); /* the others are served */
	HAS(look("ip route show"), "10.244.3.0/24 via 10.244.3.0 dev flannel.1");
	HAS(look("ip route show"), "10.244.2.0/24 via 192.0.2.9 dev under proto static");
	RUN("ip route del 10.244.2.0/24");
	ENSURE(s);
	VERIFY(s);

	/* links that have the name, or the VNI */
	RUN("ip link del flannel.1 && ip link add flannel.1 type bridge");
	assert_true(ensure(s) < 0);
	assert_int_equal(s->err.code, FLAT_CODE_CONFIG);
	HAS(s->err.msg, "'flannel.1' exists and is not a VXLAN device");
	HAS(look("ip -d link show flannel.1"), "bridge");
	HAS(look("ip -6 route show"), "fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1");
	RUN("ip link del flannel.1 && ip link add flannel.9 type vxlan id 1 dstport 8472 local 192.0.2.1 dev under");
	assert_true(ensure(s) < 0);
	HAS(s->err.msg, "'flannel.9' has VNI 1 and port 8472 already");
	RUN("ip link del flannel.9");
	ENSURE(s);
	RUN("ip link set flannel.1 down && ip link set flannel.1 name old.1");
	assert_true(ensure(s) < 0);
	HAS(s->err.msg, "'old.1' has VNI 1 and port 8472 already");
	HAS(s->err.details, "ip link del old.1");
	RUN("ip link del old.1");
	ENSURE(s);
	VERIFY(s);

	/* flannel's device is taken over as it is, but for the MAC */
	RUN("ip link del flannel.1 && ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1 dev under "
	    "nolearning && ip link set flannel.1 up");
	const int index = index_of(s->scene, "flannel.1");
	ENSURE(s);
	VERIFY(s);
	assert_int_equal(index_of(s->scene, "flannel.1"), index);
	HAS(look("ip link show flannel.1"), "0a:58:0a:f4:01:00");

	/* not ours to remove: another VNI, another kind */
	RUN("ip link del flannel-v6.1 && ip link add flannel-v6.1 type vxlan id 5 dstport 8472 dev under");
	s->conf.backend = FLAT_BACKEND_DIRECT;
	plan(s);
	ENSURE(s);
	HAS(look("ip link show"), "flannel-v6.1");
	LACKS(look("ip link show"), "flannel.1:");
}

/* A node that cannot be reached does not keep the others from being so. */
static void test_unreachable(void **state)
{
	struct world *s = *state;
	s->conf.backend = FLAT_BACKEND_DIRECT;
	s->underlays[FLAT_V4].onlink[0] = prefix("0.0.0.0/0"); /* so it was told */
	s->nodes[1].addresses[FLAT_V4] = ip("198.51.100.2");
	plan(s);
	assert_true(ensure(s) < 0);
	assert_int_equal(s->err.code, FLAT_CODE_TRY_LATER);
	HAS(s->err.msg, "route to node 'n2' (10.244.2.0/24 via 198.51.100.2)");
	HAS(s->err.details, "a node's address must be on a network of this host that is up");
	HAS(look("ip route show"), "10.244.3.0/24 via 192.0.2.3 dev under proto 241");
	assert_int_equal(s->repairs.set[FLAT_REPAIR_ROUTE], 3);
	assert_true(ensure(s) < 0);
	assert_int_equal(count_repairs(s), 0);
}

static long peak_kib(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

static void test_many(void **state)
{
	struct world *s = *state;
	static char names[MANY + 1][16];
	s->conf.cidrs[0] = prefix("10.0.0.0/8");
	for (unsigned i = 1; i <= MANY; i++) {
		struct flat_node *n = &s->nodes[i];
		snprintf(names[i], sizeof names[i], "m%u", i);
		*n = (struct flat_node){ .name = names[i], .pod_cidr_count = 1 };
		n->addresses[FLAT_V4] = ip("198.18.0.0");
		n->addresses[FLAT_V4].bytes[2] = (uint8_t)(i >> 8);
		n->addresses[FLAT_V4].bytes[3] = (uint8_t)i;
		n->pod_cidrs[0] = prefix("10.0.0.0/24");
		n->pod_cidrs[0].ip.bytes[1] = (uint8_t)(i >> 8);
		n->pod_cidrs[0].ip.bytes[2] = (uint8_t)i;
	}
	s->count = MANY + 1;
	s->nodes[0].pod_cidr_count = 1;
	const long before = peak_kib();
	int64_t start = flat_now_ms();
	plan(s);
	const int64_t planned = flat_now_ms();
	assert_int_equal(s->state.tunnelled, MANY);
	ENSURE(s);
	const int64_t first = flat_now_ms();
	assert_int_equal(s->repairs.set[FLAT_REPAIR_ROUTE], MANY);
	assert_int_equal(s->repairs.set[FLAT_REPAIR_NEIGH], MANY);
	assert_int_equal(s->repairs.set[FLAT_REPAIR_FDB], MANY);
	const long peak = peak_kib() - before;
	int64_t again = flat_now_ms();
	ENSURE(s);
	const int64_t second = flat_now_ms();
	assert_int_equal(count_repairs(s), 0);
	s->count--; /* one node leaves */
	plan(s);
	const int64_t one = flat_now_ms();
	ENSURE(s);
	assert_int_equal(count_repairs(s), 3);
	const int64_t left = flat_now_ms();
	VERIFY(s);
	printf("# %d peers: judged and planned in %d ms, first ensure %d ms, no change %d ms, one left %d ms; %ld KiB at the peak\n",
	       MANY, (int)(planned - start), (int)(first - planned), (int)(second - again),
	       (int)(left - one), peak);
	assert_true(first - start < 5000);
	assert_true(second - again < 1000);
	assert_true(peak < 10 << 10 || getenv("FLAT_SANITIZED"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_from_nothing, build, take_down),
		cmocka_unit_test_setup_teardown(test_damage, build, take_down),
		cmocka_unit_test_setup_teardown(test_changes, build, take_down),
		cmocka_unit_test_setup_teardown(test_step, build, take_down),
		cmocka_unit_test_setup_teardown(test_other_family, build, take_down),
		cmocka_unit_test_setup_teardown(test_foreign, build, take_down),
		cmocka_unit_test_setup_teardown(test_unreachable, build, take_down),
		cmocka_unit_test_setup_teardown(test_many, build, take_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
