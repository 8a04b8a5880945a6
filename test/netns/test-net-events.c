// SPDX-License-Identifier: Apache-2.0
/* lib/net and what the kernel tells: others change things with ip, bridge and nft. */
#include "scene.h"

#include <linux/rtnetlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KIND(kind) (1U << FLAT_EVENT_##kind)

static struct flat_monitor *listen_to(struct scene *s, unsigned kinds)
{
	struct flat_monitor *monitor = NULL;
	OK(s, flat_monitor_open(kinds, &monitor, &s->err));
	return monitor;
}

/* What was heard, a line each. */
struct heard {
	char text[32 << 10];
	size_t used;
	int counts[FLAT_EVENT_LOST + 1], all;
	int after_lost; /* events that came behind a lost one */
};

static const char *describe(const struct flat_event *e, char *buf, size_t size)
{
	char a[FLAT_PREFIX_TEXT], b[FLAT_IP_TEXT], m[FLAT_MAC_TEXT];
	switch (e->kind) {
	case FLAT_EVENT_LINK:
		snprintf(buf, size, "link %s kind=%s mtu=%u%s vni=%u", e->link.name, e->link.kind,
			 e->link.mtu, e->link.up ? " up" : "", e->link.vxlan.vni);
		break;
	case FLAT_EVENT_ADDR:
		snprintf(buf, size, "addr %s on %d", flat_prefix_text(&e->addr.address, a),
			 e->addr.index);
		break;
	case FLAT_EVENT_ROUTE:
		snprintf(buf, size, "route %s via %s on %d proto %u",
			 flat_prefix_text(&e->route.route.dst, a),
			 flat_ip_text(&e->route.route.gw, b), e->route.oif, e->route.protocol);
		break;
	case FLAT_EVENT_NEIGH:
		if (e->fdb)
			snprintf(buf, size, "fdb %s at %s on %d", flat_mac_text(&e->entry.mac, m),
				 flat_ip_text(&e->entry.dst, b), e->entry.index);
		else
			snprintf(buf, size, "neigh %s is %s on %d", flat_ip_text(&e->neigh.ip, a),
				 flat_mac_text(&e->neigh.mac, m), e->neigh.index);
		break;
	case FLAT_EVENT_RULES:
		snprintf(buf, size, "rules %u %s", e->rules.family, e->rules.table);
		break;
	case FLAT_EVENT_LOST:
		snprintf(buf, size, "lost");
		break;
	}
	return buf;
}

static void hear(void *arg, const struct flat_event *event)
{
	struct heard *heard = arg;
	char line[256];
	heard->all++;
	heard->counts[event->kind]++;
	heard->after_lost += heard->counts[FLAT_EVENT_LOST] && event->kind != FLAT_EVENT_LOST;
	describe(event, line, sizeof line);
	int n = snprintf(heard->text + heard->used, sizeof heard->text - heard->used, "%s%s\n",
			 event->gone ? "no " : "", line);
	if (n > 0 && (size_t)n < sizeof heard->text - heard->used)
		heard->used += (size_t)n;
}

static bool is_readable(const struct flat_monitor *monitor)
{
	int fds[2] = { -1, -1 };
	struct pollfd polls[2] = { 0 };
	size_t n = flat_monitor_fds(monitor, fds);
	for (size_t i = 0; i < n; i++)
		polls[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	return poll(polls, (nfds_t)n, 0) > 0;
}

/* What was told until now, behind what was heard before. */
static void hear_more(struct scene *s, struct flat_monitor *monitor, struct heard *heard)
{
	while (is_readable(monitor)) {
		int before = heard->all, r = flat_monitor_read(monitor, hear, heard, &s->err);
		OK(s, r);
		assert_int_equal(r, heard->all - before);
	}
}

/* All that was told until now; nearly everything is before the command that changes it ends. */
static const struct heard *hear_all(struct scene *s, struct flat_monitor *monitor)
{
	static struct heard heard;
	heard = (struct heard){ 0 };
	hear_more(s, monitor, &heard);
	return &heard;
}

static const char *hear_text(struct scene *s, struct flat_monitor *monitor)
{
	return hear_all(s, monitor)->text;
}

/* For what the kernel does later. */
static const char *hear_until(struct scene *s, struct flat_monitor *monitor, const char *part)
{
	static struct heard heard;
	heard = (struct heard){ 0 };
	for (int64_t end = flat_now_ms() + 5000;
	     flat_now_ms() < end && !strstr(heard.text, part);) {
		hear_more(s, monitor, &heard);
		flat_sleep_us(1000);
	}
	return heard.text;
}

/* ---- kinds -------------------------------------------------------------------------------------
 */

static void test_links(void **state)
{
	struct scene *s = *state;
	struct flat_monitor *m = listen_to(s, KIND(LINK));
	assert_int_equal(flat_monitor_read(m, hear, NULL, &s->err), 0); /* does not wait */
	look("ip link add veth1 type veth peer name veth2");
	const char *text = hear_text(s, m);
	HAS(text, "link veth1 kind=veth mtu=1500 vni=0\n");
	HAS(text, "link veth2 kind=veth mtu=1500 vni=0\n");
	LACKS(text, "no link");
	look("ip link set veth1 mtu 1400");
	HAS(hear_text(s, m), "link veth1 kind=veth mtu=1400 ");
	look("ip link set veth1 up; ip link set veth2 up");
	HAS(hear_text(s, m), "link veth1 kind=veth mtu=1400 up ");
	look("ip link add v type vxlan id 9 dstport 99");
	HAS(hear_text(s, m), "link v kind=vxlan mtu=1500 vni=9\n");

	/* what leaves a bridge is not gone */
	look("ip link add br0 type bridge; ip link set veth1 master br0");
	hear_all(s, m);
	look("ip link set veth1 nomaster");
	text = hear_text(s, m);
	HAS(text, "link veth1 ");
	LACKS(text, "no link");

	look("ip addr add 192.0.2.1/24 dev veth1; ip neigh add 192.0.2.9 lladdr 0a:58:00:00:00:09 "
	     "dev veth1; nft add table inet t");
	const struct heard *heard = hear_all(s, m);
	assert_int_equal(heard->counts[FLAT_EVENT_LINK], heard->all);
	look("ip link del veth1");
	text = hear_text(s, m);
	HAS(text, "no link veth1 ");
	HAS(text, "no link veth2 ");
	flat_monitor_close(m);
}

static void test_addresses(void **state)
{
	struct scene *s = *state;
	char line[128];
	look("ip link add veth1 type veth peer name veth2; ip link set veth1 up");
	int index = index_of(s, "veth1");
	struct flat_monitor *m = listen_to(s, KIND(ADDR));
	look("ip addr add 192.0.2.1/24 dev veth1");
	snprintf(line, sizeof line, "addr 192.0.2.1/24 on %d\n", index);
	HAS(hear_text(s, m), line);
	/* told by the worker that would look for duplicates */
	look("ip addr add 2001:db8::1/64 dev veth1 nodad");
	snprintf(line, sizeof line, "addr 2001:db8::1/64 on %d\n", index);
	HAS(hear_until(s, m, line), line);
	look("ip addr del 192.0.2.1/24 dev veth1");
	HAS(hear_text(s, m), "no addr 192.0.2.1/24 on ");
	look("ip link del veth1");
	HAS(hear_text(s, m), "no addr 2001:db8::1/64 on ");
	flat_monitor_close(m);
}

static void test_routes(void **state)
{
	struct scene *s = *state;
	look("ip link add veth1 type veth peer name veth2; ip link set veth2 up; "
	     "ip addr add 192.0.2.1/24 dev veth1; ip link set veth1 up");
	struct flat_monitor *m = listen_to(s, KIND(ROUTE));
	look("ip route add 10.244.2.0/24 via 192.0.2.2 proto 241; ip route add fd00:2::/64 dev veth1; "
	     "ip route add 10.9.0.0/16 via 192.0.2.2 table 99");
	const char *text = hear_text(s, m);
	HAS(text, "route 10.244.2.0/24 via 192.0.2.2 on ");
	HAS(text, "proto 241\n");
	HAS(text, "route fd00:2::/64 via none on ");
	LACKS(text, "10.9.0.0"); /* another table */
	look("ip route del 10.244.2.0/24; ip route replace fd00:2::/64 via fe80::9 dev veth1");
	text = hear_text(s, m);
	HAS(text, "no route 10.244.2.0/24 via 192.0.2.2 on ");
	HAS(text, "route fd00:2::/64 via fe80::9 on ");
	flat_monitor_close(m);
}

static void test_neighbours(void **state)
{
	struct scene *s = *state;
	look("ip link add v type vxlan id 9 dstport 99; ip link set v up; "
	     "ip link add br0 type bridge; ip link add veth1 type veth peer name veth2; "
	     "ip link set veth1 master br0");
	struct flat_monitor *m = listen_to(s, KIND(NEIGH));
	look("ip neigh add 10.244.2.0 lladdr 0a:58:00:00:00:02 dev v; "
	     "bridge fdb add 0a:58:00:00:00:02 dev v dst 192.0.2.2 self");
	const char *text = hear_text(s, m);
	HAS(text, "neigh 10.244.2.0 is 0a:58:00:00:00:02 on ");
	HAS(text, "fdb 0a:58:00:00:00:02 at 192.0.2.2 on ");
	LACKS(text, "no ");
	look("bridge fdb replace 0a:58:00:00:00:02 dev v dst 192.0.2.3 self");
	HAS(hear_text(s, m), "fdb 0a:58:00:00:00:02 at 192.0.2.3 on ");
	look("bridge fdb del 0a:58:00:00:00:02 dev v; ip neigh del 10.244.2.0 dev v");
	text = hear_text(s, m);
	HAS(text, "no fdb 0a:58:00:00:00:02 at 192.0.2.3 on ");
	HAS(text, "neigh 10.244.2.0 is ");
	/* what a bridge has in its database */
	look("bridge fdb add 0a:58:00:00:00:03 dev veth1 master static");
	HAS(look("bridge fdb show br br0"), "0a:58:00:00:00:03");
	LACKS(hear_text(s, m), "0a:58:00:00:00:03");
	flat_monitor_close(m);
}

static void test_rules(void **state)
{
	struct scene *s = *state;
	struct flat_monitor *m = listen_to(s, KIND(RULES));
	assert_string_equal(look("nft add table inet flatnet"), "");
	assert_string_equal(hear_text(s, m), "rules 1 flatnet\n"); /* NFPROTO_INET */
	look("nft add chain inet flatnet c; nft add rule inet flatnet c counter accept");
	assert_string_equal(hear_text(s, m), "rules 1 flatnet\nrules 1 flatnet\n");
	look("nft 'add set inet flatnet services { type ipv4_addr; }'; "
	     "nft add element inet flatnet services { 10.96.0.1, 10.96.0.10 }");
	HAS(look("nft list ruleset"), "10.96.0.10");
	assert_int_equal(hear_all(s, m)->all, 0);
	look("nft flush chain inet flatnet c");
	assert_string_equal(hear_text(s, m), "no rules 1 flatnet\n");
	look("nft add table ip other; nft add chain ip other c");
	assert_string_equal(hear_text(s, m), "rules 2 other\nrules 2 other\n");
	look("nft flush ruleset");
	const char *text = hear_text(s, m);
	HAS(text, "no rules 1 flatnet\n");
	HAS(text, "no rules 2 other\n");
	flat_monitor_close(m);
}

static void test_open(void **state)
{
	struct scene *s = *state;
	int fds[2] = { -1, -1 };
	struct flat_monitor *m = listen_to(s, 0);
	assert_int_equal(flat_monitor_fds(m, fds), 0);
	assert_int_equal(flat_monitor_read(m, hear, NULL, &s->err), 0);
	flat_monitor_close(m);
	m = listen_to(s, KIND(RULES));
	assert_int_equal(flat_monitor_fds(m, fds), 1);
	flat_monitor_close(m);
	m = listen_to(s, KIND(LINK) | KIND(ADDR) | KIND(ROUTE) | KIND(NEIGH) | KIND(RULES));
	assert_int_equal(flat_monitor_fds(m, fds), 2);
	assert_true(fds[0] >= 0 && fds[1] >= 0 && fds[0] != fds[1]);

	/* all at once; of another namespace nothing */
	look("nsenter --net=/proc/%d/fd/%d sh -c 'ip link set lo up; nft add table ip elsewhere'",
	     (int)getpid(), s->pod);
	assert_int_equal(hear_all(s, m)->all, 0);
	look("ip link add veth1 type veth peer name veth2; ip addr add 192.0.2.1/24 dev veth1; "
	     "ip link set veth1 up; ip link set veth2 up; nft add table ip t; "
	     "ip neigh add 192.0.2.9 lladdr 0a:58:00:00:00:09 dev veth1");
	const struct heard *heard = hear_all(s, m);
	for (int kind = FLAT_EVENT_LINK; kind < FLAT_EVENT_LOST; kind++)
		assert_true(heard->counts[kind] > 0);
	assert_int_equal(heard->counts[FLAT_EVENT_LOST], 0);

	flat_monitor_close(m);
	flat_monitor_close(NULL);
}

/* Anybody may send to a netlink socket; only the kernel is believed. */
static void test_forged(void **state)
{
	struct scene *s = *state;
	struct flat_monitor *m = listen_to(s, KIND(ROUTE));
	const struct {
		struct nlmsghdr head;
		struct rtmsg route;
	} forged = {
		.head = { .nlmsg_len = sizeof forged, .nlmsg_type = RTM_NEWROUTE },
		.route = { .rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN },
	};
	struct sockaddr_nl to = { 0 };
	socklen_t len = sizeof to;
	int fds[2] = { -1, -1 }, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	flat_monitor_fds(m, fds);
	assert_int_equal(getsockname(fds[0], (struct sockaddr *)&to, &len), 0);
	hear_all(s, m);
	assert_int_equal(sendto(fd, &forged, sizeof forged, 0, (const struct sockaddr *)&to,
				sizeof to),
			 sizeof forged);
	assert_true(is_readable(m));
	assert_int_equal(hear_all(s, m)->all, 0);
	assert_false(is_readable(m));
	close(fd);
	flat_monitor_close(m);
}

/* ---- more than fits ----------------------------------------------------------------------------
 */

static void add_routes(struct scene *s, int index, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++) {
		struct flat_net_route route = {
			.route = { .dst = { { AF_INET, { 10, (uint8_t)(i >> 8), (uint8_t)i, 0 } },
					    24 },
				   .scope = -1 },
			.oif = index,
			.protocol = FLAT_RTPROT,
		};
		flat_route_add(s->net, &route, false, FLAT_STRICT);
	}
	OK(s, flat_net_commit(s->net, &s->err));
}

static int add_link(struct scene *s)
{
	/* without link-local addresses: their routes come when they like */
	look("ip link add veth1 type veth peer name veth2; ip link set veth1 addrgenmode none; "
	     "ip link set veth2 addrgenmode none; ip link set veth2 up; ip link set veth1 up");
	return index_of(s, "veth1");
}

/* Many, but not too many: all are told, a part of them in each call. */
static void test_bounded(void **state)
{
	struct scene *s = *state;
	struct heard heard = { 0 };
	int index = add_link(s), calls = 0;
	struct flat_monitor *m = listen_to(s, KIND(ROUTE));
	hear_all(s, m);
	add_routes(s, index, 0, 600);
	for (; is_readable(m); calls++) {
		int r = flat_monitor_read(m, hear, &heard, &s->err);
		OK(s, r);
		assert_in_range(r, 1, 300);
	}
	assert_int_equal(heard.counts[FLAT_EVENT_ROUTE], 600);
	assert_int_equal(heard.all, 600);
	assert_in_range(calls, 3, 10);
	flat_monitor_close(m);
}

static void test_lost(void **state)
{
	struct scene *s = *state;
	enum { ROUTES = 20000 };
	int index = add_link(s);
	struct flat_monitor *m = listen_to(s, KIND(ROUTE));
	hear_all(s, m);
	add_routes(s, index, 0, ROUTES);
	const struct heard *heard = hear_all(s, m);
	assert_int_equal(heard->counts[FLAT_EVENT_LOST], 1);
	assert_int_equal(heard->after_lost, 0); /* emptied, then told */
	assert_true(heard->all < ROUTES);
	HAS(look("ip route show proto 241 | wc -l"), "20000\n");
	assert_int_equal(hear_all(s, m)->all, 0);

	/* from then on it hears again */
	look("ip route add 192.0.2.0/24 dev veth1");
	heard = hear_all(s, m);
	assert_int_equal(heard->all, 1);
	HAS(heard->text, "route 192.0.2.0/24 via none");
	/* and loses again */
	look("ip route flush proto 241");
	assert_int_equal(hear_all(s, m)->counts[FLAT_EVENT_LOST], 1);
	flat_monitor_close(m);
}

static void test_lost_rules(void **state)
{
	struct scene *s = *state;
	struct flat_monitor *m = listen_to(s, KIND(RULES) | KIND(LINK));
	/* few at a time: a user without privileges has a small send buffer */
	assert_string_equal(
		look("nft 'add table ip t; add chain ip t c'; rules=$(for i in $(seq 500); do "
		     "echo add rule ip t c ip saddr 10.0.0.1 counter accept; done); "
		     "for i in $(seq 40); do echo \"$rules\" | nft -f - || exit; done"),
		"");
	look("ip link add veth1 type veth peer name veth2");
	const struct heard *heard = hear_all(s, m);
	assert_int_equal(heard->counts[FLAT_EVENT_LOST], 1);
	/* the other socket has lost nothing */
	HAS(heard->text, "link veth1 ");
	assert_true(heard->counts[FLAT_EVENT_RULES] < 20000);
	look("nft delete table ip t; nft add table ip u");
	hear_all(s, m);
	look("nft add chain ip u c");
	assert_string_equal(hear_text(s, m), "rules 2 u\n");
	flat_monitor_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_links), TEST(test_addresses),	 TEST(test_routes), TEST(test_neighbours),
		TEST(test_rules), TEST(test_open),	 TEST(test_forged), TEST(test_bounded),
		TEST(test_lost),  TEST(test_lost_rules),
	};
	return cmocka_run_group_tests_name("net-events", tests, NULL, NULL);
}
