// SPDX-License-Identifier: Apache-2.0
/* Which events are worth a look: what others do is, what we did is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

static const int indices[FLAT_FAMILIES] = { 7, 0 };
static struct flat_wanted_route routes[2];
static struct flat_wanted_neigh neighs[1];
static struct flat_wanted_fdb fdb[1];
static struct flat_node_state wanted;

static int setup(void **state)
{
	(void)state;
	wanted = (struct flat_node_state){
		.cidrs = { prefix("10.244.0.0/16") },
		.cidr_count = 1,
		.links[FLAT_V4] = { .name = "flannel.1",
				    .mac = mac("0a:58:0a:f4:01:00"),
				    .mtu = 1450,
				    .vxlan = { .vni = 1,
					       .port = 8472,
					       .underlay = 2,
					       .local = ip("192.0.2.1") },
				    .addresses = { prefix("10.244.1.0/32") },
				    .address_count = 1 },
		.idle[FLAT_V6] = { "flannel-v6.1", 1 },
		.routes = routes,
		.route_count = 2,
		.neighs = neighs,
		.neigh_count = 1,
		.fdb = fdb,
		.fdb_count = 1,
	};
	routes[0] = (struct flat_wanted_route){ prefix("10.244.3.0/24"), ip("10.244.3.0"), FLAT_V4,
						true, "n3" };
	routes[1] = (struct flat_wanted_route){ prefix("10.244.2.0/24"), ip("192.0.2.2"), -1, false,
						"n2" };
	neighs[0] = (struct flat_wanted_neigh){ ip("10.244.3.0"), mac("0a:58:0a:f4:03:00"), FLAT_V4,
						"n3" };
	fdb[0] = (struct flat_wanted_fdb){ mac("0a:58:0a:f4:03:00"), ip("198.51.100.3"), FLAT_V4,
					   "n3" };
	flat_node_state_sort(&wanted);
	return 0;
}

#define DISTURBS(event) assert_true(flat_node_state_is_disturbed(&wanted, indices, &(event)))
#define IS_CALM(event)	assert_false(flat_node_state_is_disturbed(&wanted, indices, &(event)))

static struct flat_event link_event(void)
{
	const struct flat_wanted_link *want = &wanted.links[FLAT_V4];
	struct flat_event e = { .kind = FLAT_EVENT_LINK };
	e.link = (struct flat_link){ .index = 7,
				     .name = "flannel.1",
				     .kind = "vxlan",
				     .mac = want->mac,
				     .has_mac = true,
				     .mtu = 1450,
				     .up = true,
				     .vxlan = want->vxlan };
	return e;
}

static void test_links(void **state)
{
	struct flat_event e = link_event();
	(void)state;
	IS_CALM(e);
	e.gone = true;
	DISTURBS(e);
	e.link.index = 6; /* the one that was made anew */
	IS_CALM(e);
	e = link_event();
	e.link.index = 9;
	DISTURBS(e);
	e = link_event();
	strcpy(e.link.name, "other");
	DISTURBS(e);
	e = link_event();
	e.link.up = false;
	DISTURBS(e);
	e = link_event();
	e.link.mtu = 1400;
	DISTURBS(e);
	e = link_event();
	e.link.mac.bytes[5]++;
	DISTURBS(e);
	e = link_event();
	e.link.vxlan.learning = true;
	DISTURBS(e);
	e = link_event();
	e.link.vxlan.local = ip("192.0.2.9");
	DISTURBS(e);
	e = (struct flat_event){ .kind = FLAT_EVENT_LINK,
				 .link = { .index = 12, .name = "vethabc", .kind = "veth" } };
	IS_CALM(e);
	e.gone = true;
	IS_CALM(e);
	e = (struct flat_event){
		.kind = FLAT_EVENT_LINK,
		.link = { .index = 13, .name = "flannel-v6.1", .kind = "vxlan", .vxlan.vni = 1 }
	};
	DISTURBS(e);
	e.link.vxlan.vni = 2;
	IS_CALM(e);
}

static void test_addresses(void **state)
{
	struct flat_event e = { .kind = FLAT_EVENT_ADDR,
				.addr = { .index = 7, .address = prefix("10.244.1.0/32") } };
	(void)state;
	IS_CALM(e);
	e.gone = true;
	DISTURBS(e);
	e.addr.address = prefix("10.244.9.0/32");
	IS_CALM(e);
	e.gone = false;
	DISTURBS(e);
	e.addr.index = 3;
	IS_CALM(e);
	e.addr = (struct flat_addr){ .index = 7, .address = prefix("fe80::1/64") };
	IS_CALM(e);
}

static void test_routes(void **state)
{
	struct flat_event e = { .kind = FLAT_EVENT_ROUTE,
				.route = { .route = { .dst = prefix("10.244.3.0/24"),
						      .gw = ip("10.244.3.0") },
					   .oif = 7,
					   .protocol = FLAT_RTPROT } };
	(void)state;
	IS_CALM(e);
	e.gone = true;
	DISTURBS(e);
	e.route.oif = 6; /* over the device that was there before */
	IS_CALM(e);
	e.gone = false;
	DISTURBS(e);
	e.route.oif = 7;
	e.route.protocol = RTPROT_STATIC;
	DISTURBS(e);
	e.gone = true;
	DISTURBS(e);
	e.route = (struct flat_net_route){ .route = { .dst = prefix("10.244.2.0/24"),
						      .gw = ip("192.0.2.2") },
					   .oif = 2,
					   .protocol = FLAT_RTPROT };
	DISTURBS(e);
	e.gone = false;
	IS_CALM(e);
	e.route.route.gw = ip("192.0.2.3");
	DISTURBS(e);
	/* to no node */
	e.route.route.dst = prefix("10.244.9.0/24");
	DISTURBS(e);
	e.gone = true;
	IS_CALM(e);
	e.gone = false;
	e.route.protocol = RTPROT_STATIC;
	IS_CALM(e);
	e.route.protocol = FLAT_RTPROT;
	e.route.route.dst = prefix("10.99.0.0/24");
	IS_CALM(e);
}

static void test_neighbours(void **state)
{
	struct flat_event e = { .kind = FLAT_EVENT_NEIGH,
				.neigh = { .index = 7,
					   .ip = ip("10.244.3.0"),
					   .mac = mac("0a:58:0a:f4:03:00"),
					   .has_mac = true,
					   .state = NUD_PERMANENT } };
	(void)state;
	IS_CALM(e);
	e.neigh.state = NUD_STALE;
	DISTURBS(e);
	e.neigh.state = NUD_PERMANENT;
	e.neigh.mac.bytes[5]++;
	DISTURBS(e);
	e.gone = true;
	DISTURBS(e);
	e.neigh.index = 3;
	IS_CALM(e);
	e.neigh.index = 7;
	e.neigh.ip = ip("10.244.9.0");
	IS_CALM(e);
	e.gone = false;
	DISTURBS(e);
	e.neigh.state = NUD_REACHABLE;
	IS_CALM(e);
}

static void test_forwarding(void **state)
{
	struct flat_event e = { .kind = FLAT_EVENT_NEIGH,
				.fdb = true,
				.entry = { .index = 7,
					   .mac = mac("0a:58:0a:f4:03:00"),
					   .dst = ip("198.51.100.3"),
					   .state = NUD_PERMANENT } };
	(void)state;
	IS_CALM(e);
	e.gone = true;
	DISTURBS(e);
	e.entry.dst = ip("198.51.100.9"); /* what was replaced */
	IS_CALM(e);
	e.gone = false;
	DISTURBS(e);
	e.entry.mac = mac("00:00:00:00:00:00"); /* floods to somewhere */
	DISTURBS(e);
	e.gone = true;
	IS_CALM(e);
	e.gone = false;
	e.entry.index = 4;
	IS_CALM(e);
}

static void test_others(void **state)
{
	struct flat_event e = { .kind = FLAT_EVENT_LOST };
	(void)state;
	DISTURBS(e);
	e.kind = FLAT_EVENT_RULES;
	IS_CALM(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_links, setup),
		cmocka_unit_test_setup(test_addresses, setup),
		cmocka_unit_test_setup(test_routes, setup),
		cmocka_unit_test_setup(test_neighbours, setup),
		cmocka_unit_test_setup(test_forwarding, setup),
		cmocka_unit_test_setup(test_others, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
