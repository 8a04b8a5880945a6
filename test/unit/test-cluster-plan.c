// SPDX-License-Identifier: Apache-2.0
/* What the kernel should have: backends, families, flannel's mode, MTUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster.h"

#include <stdio.h>

enum { MOST = 4 };
struct scene {
	struct flat_cluster_conf conf;
	struct flat_underlay underlays[FLAT_FAMILIES];
	struct flat_node nodes[MOST];
	size_t count;
	struct flat_judgement out[MOST];
	struct flat_node_state state;
};

/* Dual stack; n2 is on the same link, n3 is not. */
static struct scene scene(enum flat_backend backend)
{
	struct scene s = { .count = 3, .conf = conf_of(backend) };
	s.underlays[FLAT_V4] = (struct flat_underlay){ .index = 2,
						       .name = "eth0",
						       .mtu = 1500,
						       .address = ip("192.0.2.1"),
						       .onlink = { prefix("192.0.2.0/24") },
						       .onlink_count = 1 };
	s.underlays[FLAT_V6] = (struct flat_underlay){ .index = 2,
						       .name = "eth0",
						       .mtu = 1500,
						       .address = ip("2001:db8::1"),
						       .onlink = { prefix("2001:db8::/64") },
						       .onlink_count = 1 };
	s.nodes[0] = node("n1", "192.0.2.1", "2001:db8::1", "10.244.1.0/24", "fd00:10:244:1::/64");
	s.nodes[1] = node("n2", "192.0.2.2", "2001:db8::2", "10.244.2.0/24", "fd00:10:244:2::/64");
	s.nodes[2] =
		node("n3", "198.51.100.3", "2001:db8:1::3", "10.244.3.0/24", "fd00:10:244:3::/64");
	return s;
}

static void free_scene(struct scene *s)
{
	flat_node_state_free(&s->state);
}
#define auto_scene __attribute__((cleanup(free_scene))) struct scene

static void plan(struct scene *s)
{
	const struct flat_node *nodes[MOST];
	struct flat_err err = { 0 };
	for (size_t i = 0; i < s->count; i++)
		nodes[i] = &s->nodes[i];
	flat_node_state_free(&s->state);
	assert_int_equal(flat_cluster_judge(&s->conf, nodes, s->count, "n1", s->out, &err), 0);
	assert_int_equal(flat_cluster_plan(&s->conf, s->underlays, &s->nodes[0], nodes, s->count,
					   s->out, &s->state, &err),
			 0);
}

/* "10.244.2.0/24 via 192.0.2.2 -1;..." */
static const char *routes(const struct scene *s)
{
	static char text[1024];
	char dst[FLAT_PREFIX_TEXT], via[FLAT_IP_TEXT];
	size_t n = 0;
	text[0] = 0;
	for (size_t i = 0; i < s->state.route_count; i++) {
		const struct flat_wanted_route *r = &s->state.routes[i];
		assert_int_equal(r->onlink, r->link >= 0);
		n += (size_t)snprintf(text + n, sizeof text - n, "%s via %s %d;",
				      flat_prefix_text(&r->dst, dst), flat_ip_text(&r->via, via),
				      r->link);
	}
	return text;
}

static const char *entries(const struct scene *s)
{
	static char text[1024];
	char m[FLAT_MAC_TEXT], a[FLAT_IP_TEXT];
	size_t n = 0;
	text[0] = 0;
	for (size_t i = 0; i < s->state.neigh_count; i++) {
		const struct flat_wanted_neigh *w = &s->state.neighs[i];
		n += (size_t)snprintf(text + n, sizeof text - n, "%s %s %d;",
				      flat_ip_text(&w->ip, a), flat_mac_text(&w->mac, m), w->link);
	}
	n += (size_t)snprintf(text + n, sizeof text - n, "|");
	for (size_t i = 0; i < s->state.fdb_count; i++) {
		const struct flat_wanted_fdb *w = &s->state.fdb[i];
		n += (size_t)snprintf(text + n, sizeof text - n, "%s %s %d;",
				      flat_mac_text(&w->mac, m), flat_ip_text(&w->dst, a), w->link);
	}
	return text;
}

static void test_direct(void **state)
{
	auto_scene s = scene(FLAT_BACKEND_DIRECT);
	(void)state;
	plan(&s);
	assert_string_equal(routes(&s), "10.244.2.0/24 via 192.0.2.2 -1;"
					"fd00:10:244:2::/64 via 2001:db8::2 -1;");
	assert_string_equal(entries(&s), "|");
	assert_string_equal(s.state.links[0].name, "");
	assert_string_equal(s.state.links[1].name, "");
	assert_string_equal(s.state.idle[0].name, "flannel.1"); /* of an earlier backend */
	assert_int_equal(s.state.pod_mtu, 1500);
	assert_int_equal(s.state.direct, 1);
	assert_int_equal(s.state.tunnelled, 0);
	assert_int_equal(s.state.cidr_count, 2);
	assert_int_equal(s.out[1].verdict, FLAT_NODE_ACCEPTED);
	assert_int_equal(s.out[2].verdict, FLAT_NODE_WAITING);
	assert_has(s.out[2].why, "its address 198.51.100.3 is in no network of 'eth0'");
	flat_node_state_free(&s.state);
	flat_node_state_free(&s.state);
}

static void test_vxlan(void **state)
{
	auto_scene s = scene(FLAT_BACKEND_VXLAN);
	const struct flat_wanted_link *link = s.state.links;
	(void)state;
	plan(&s);
	assert_string_equal(routes(&s), "10.244.2.0/24 via 10.244.2.0 0;"
					"10.244.3.0/24 via 10.244.3.0 0;"
					"fd00:10:244:2::/64 via fd00:10:244:2:: 1;"
					"fd00:10:244:3::/64 via fd00:10:244:3:: 1;");
	assert_string_equal(entries(&s), "10.244.2.0 0a:58:0a:f4:02:00 0;"
					 "10.244.3.0 0a:58:0a:f4:03:00 0;"
					 "fd00:10:244:2:: 0a:58:0a:f4:02:00 1;"
					 "fd00:10:244:3:: 0a:58:0a:f4:03:00 1;|"
					 "0a:58:0a:f4:02:00 192.0.2.2 0;"
					 "0a:58:0a:f4:02:00 2001:db8::2 1;"
					 "0a:58:0a:f4:03:00 198.51.100.3 0;"
					 "0a:58:0a:f4:03:00 2001:db8:1::3 1;");
	assert_string_equal(link[0].name, "flannel.1");
	assert_string_equal(link[1].name, "flannel-v6.1");
	assert_int_equal(link[0].mtu, 1450);
	assert_int_equal(link[1].mtu, 1430);
	assert_int_equal(s.state.pod_mtu, 1430);
	assert_int_equal(link[0].vxlan.vni, 1);
	assert_int_equal(link[0].vxlan.port, 8472);
	assert_int_equal(link[0].vxlan.underlay, 2);
	assert_false(link[0].vxlan.learning);
	assert_true(flat_ip_equal(&link[1].vxlan.local, &s.underlays[1].address));
	const struct flat_mac own = mac("0a:58:0a:f4:01:00");
	assert_memory_equal(&link[0].mac, &own, sizeof own);
	assert_int_equal(link[0].address_count, 2);
	assert_true(flat_prefix_equal(&link[0].addresses[0],
				      &(struct flat_prefix){ ip("10.244.1.0"), 32 }));
	assert_string_equal(s.state.idle[0].name, "");
	assert_int_equal(s.state.tunnelled, 2);

	s.conf.mtu = 1400;
	plan(&s);
	assert_int_equal(s.state.pod_mtu, 1400);
	assert_int_equal(link[0].mtu, 1400);

	/* alone: the device is there for who comes */
	s.count = 1;
	s.conf.mtu = 0;
	plan(&s);
	assert_string_equal(link[0].name, "flannel.1");
	assert_int_equal(s.state.pod_mtu, 1430);
	assert_int_equal(s.state.route_count, 0);

	/* no underlay: neither made nor removed */
	s.underlays[FLAT_V6] = (struct flat_underlay){ 0 };
	plan(&s);
	assert_string_equal(s.state.links[1].name, "");
	assert_string_equal(s.state.idle[1].name, "");
	assert_int_equal(s.state.pod_mtu, 1450);

	/* told MACs are taken */
	free_scene(&s);
	s = scene(FLAT_BACKEND_VXLAN);
	s.nodes[1].vtep[FLAT_V4] = mac("0a:11:22:33:44:55");
	s.nodes[1].has_vtep[FLAT_V4] = true;
	plan(&s);
	assert_has(entries(&s), "10.244.2.0 0a:11:22:33:44:55 0;");
	assert_has(entries(&s), "0a:11:22:33:44:55 192.0.2.2 0;");
	assert_has(entries(&s), "0a:58:0a:f4:02:00 2001:db8::2 1;");
	flat_node_state_free(&s.state);
}

static void test_auto(void **state)
{
	auto_scene s = scene(FLAT_BACKEND_AUTO);
	(void)state;
	plan(&s);
	assert_string_equal(routes(&s), "10.244.2.0/24 via 192.0.2.2 -1;"
					"10.244.3.0/24 via 10.244.3.0 0;"
					"fd00:10:244:2::/64 via 2001:db8::2 -1;"
					"fd00:10:244:3::/64 via fd00:10:244:3:: 1;");
	assert_int_equal(s.state.direct, 1);
	assert_int_equal(s.state.tunnelled, 1);
	assert_int_equal(s.state.pod_mtu, 1430);
	assert_string_equal(s.state.links[0].name, "flannel.1");

	/* none is off-link: no device, and the same MTU */
	s.count = 2;
	plan(&s);
	assert_string_equal(s.state.links[0].name, "");
	assert_string_equal(s.state.idle[0].name, "flannel.1");
	assert_int_equal(s.state.idle[0].vni, 1);
	assert_int_equal(s.state.pod_mtu, 1430);
	flat_node_state_free(&s.state);
}

/* IPv6 pods on nodes with IPv4 addresses, and the other way. */
static void test_other_family(void **state)
{
	auto_scene s = scene(FLAT_BACKEND_VXLAN);
	(void)state;
	s.underlays[FLAT_V6] = (struct flat_underlay){ 0 };
	for (size_t i = 0; i < s.count; i++)
		s.nodes[i].addresses[FLAT_V6] = (struct flat_ip){ 0 };
	plan(&s);
	assert_has(routes(&s), "fd00:10:244:2::/64 via fd00:10:244:2:: 0;");
	assert_string_equal(s.state.links[1].name, "");
	assert_int_equal(s.state.fdb_count, 2); /* one for both subnets */
	assert_int_equal(s.state.pod_mtu, 1450);

	s.conf.flannel = true; /* not so there */
	for (int i = 0; i < 3; i++) {
		s.nodes[i].has_vtep[FLAT_V4] = true;
		s.nodes[i].vtep[FLAT_V4] = flat_node_vtep_mac(&s.nodes[i]);
	}
	plan(&s);
	assert_string_equal(routes(&s), "10.244.2.0/24 via 10.244.2.0 0;"
					"10.244.3.0/24 via 10.244.3.0 0;");
	assert_int_equal(s.out[1].verdict, FLAT_NODE_ACCEPTED);
	assert_has(s.out[1].why, "fd00:10:244:2::/64: this node has no IPv6 address");
	assert_int_equal(s.state.links[0].address_count, 1);

	/* an IPv6 underlay alone */
	free_scene(&s);
	s = scene(FLAT_BACKEND_VXLAN);
	s.underlays[FLAT_V4] = (struct flat_underlay){ 0 };
	plan(&s);
	assert_has(routes(&s), "10.244.2.0/24 via 10.244.2.0 1;");
	assert_int_equal(s.state.pod_mtu, 1430);
	s.conf.backend = FLAT_BACKEND_DIRECT;
	plan(&s);
	assert_has(routes(&s), "10.244.2.0/24 via 2001:db8::2 -1;");

	/* an IPv6 route has no IPv4 gateway: a tunnel, where there may be one */
	free_scene(&s);
	s = scene(FLAT_BACKEND_DIRECT);
	s.underlays[FLAT_V6] = (struct flat_underlay){ 0 };
	plan(&s);
	assert_has(s.out[1].why, "an IPv6 route needs an IPv6 address");
	assert_int_equal(s.out[1].verdict, FLAT_NODE_ACCEPTED);
	s.conf.backend = FLAT_BACKEND_AUTO;
	plan(&s);
	assert_string_equal(routes(&s), "10.244.2.0/24 via 192.0.2.2 -1;"
					"10.244.3.0/24 via 10.244.3.0 0;"
					"fd00:10:244:2::/64 via fd00:10:244:2:: 0;"
					"fd00:10:244:3::/64 via fd00:10:244:3:: 0;");

	/* only the peer lacks it */
	free_scene(&s);
	s = scene(FLAT_BACKEND_VXLAN);
	s.nodes[1].addresses[FLAT_V6] = (struct flat_ip){ 0 };
	plan(&s);
	assert_has(routes(&s), "fd00:10:244:2::/64 via fd00:10:244:2:: 0;");
	assert_has(routes(&s), "fd00:10:244:3::/64 via fd00:10:244:3:: 1;");

	/* nothing at all */
	s.nodes[1].addresses[FLAT_V6] = ip("2001:db8::2");
	s.nodes[1].addresses[FLAT_V4] = (struct flat_ip){ 0 };
	s.underlays[FLAT_V6] = (struct flat_underlay){ 0 };
	plan(&s);
	assert_int_equal(s.out[1].verdict, FLAT_NODE_WAITING);
	assert_has(s.out[1].why, "has no IPv4 address");
	flat_node_state_free(&s.state);
}

static void test_flannel(void **state)
{
	auto_scene s = scene(FLAT_BACKEND_VXLAN);
	(void)state;
	s.conf.flannel = true;
	s.nodes[2].has_vtep[FLAT_V4] = true;
	s.nodes[2].vtep[FLAT_V4] = mac("0a:11:22:33:44:55");
	plan(&s);
	assert_string_equal(routes(&s), "10.244.3.0/24 via 10.244.3.0 0;");
	assert_int_equal(s.out[1].verdict, FLAT_NODE_WAITING);
	assert_has(s.out[1].why, "has not told the MAC");
	assert_int_equal(s.state.links[0].address_count, 1);
	assert_int_equal(s.state.links[1].address_count, 1);
	assert_int_equal(s.state.links[1].addresses[0].ip.family, AF_INET6);
	flat_node_state_free(&s.state);
}

static void test_cut_off(void **state)
{
	auto_scene s = scene(FLAT_BACKEND_DIRECT);
	(void)state;
	/* this node's address is another one for others: there is a translation between */
	s.nodes[0].addresses[FLAT_V4] = ip("203.0.113.1");
	s.conf.cidrs[0] = prefix("0.0.0.0/0");
	s.nodes[1].pod_cidrs[0] = prefix("192.0.2.0/31");
	plan(&s);
	assert_int_equal(s.out[1].verdict, FLAT_NODE_REFUSED);
	assert_has(s.out[1].why, "contains 192.0.2.1, this node's address on 'eth0'");
	flat_node_state_free(&s.state);
}

static void test_self_unknown(void **state)
{
	auto_scene s = scene(FLAT_BACKEND_VXLAN);
	const struct flat_node *nodes[] = { &s.nodes[1] };
	struct flat_err err = { 0 };
	(void)state;
	s.out[0].verdict = FLAT_NODE_ACCEPTED;
	assert_int_equal(flat_cluster_plan(&s.conf, s.underlays, NULL, nodes, 1, s.out, &s.state,
					   &err),
			 0);
	assert_int_equal(s.state.route_count, 0);
	assert_int_equal(s.state.cidr_count, 0);
	assert_string_equal(s.state.links[0].name, "");
	assert_string_equal(s.state.idle[0].name, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_direct),	     cmocka_unit_test(test_vxlan),
		cmocka_unit_test(test_auto),	     cmocka_unit_test(test_other_family),
		cmocka_unit_test(test_flannel),	     cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_self_unknown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
