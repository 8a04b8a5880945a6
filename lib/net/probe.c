// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation. Both questions go out on one link and never touch the node's own neighbour
 * table: ARP probes (RFC 5227: sender 0.0.0.0, so that no cache on the link learns anything) from a
 * packet socket, neighbour solicitations (RFC 4861) from a raw ICMPv6 socket, for which the kernel
 * picks the source address and writes the checksum. Whoever does not answer is asked again, three
 * times in all, a few at a time: a bridge floods each question to every port, and a port's queue is
 * short.
 */
#include <flatnet/net.h>

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROUNDS = 3, WAVE = 64, PROBE_MAX = 1024 };

struct probe {
	int index;
	const struct flat_mac *own_mac;
	const struct flat_ip *ips;
	size_t count, missing;
	bool *answers;
	int arp, nd; /* sockets; -1: no address of this family is asked for */
};

static void heard(struct probe *p, int family, const void *bytes)
{
	for (size_t i = 0; i < p->count; i++) {
		if (p->ips[i].family == family && !p->answers[i] &&
		    !memcmp(p->ips[i].bytes, bytes, flat_ip_size(&p->ips[i]))) {
			p->answers[i] = true;
			p->missing--;
		}
	}
}

static int open_arp(struct probe *p, struct flat_err *err)
{
	const struct sockaddr_ll here = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ARP),
		.sll_ifindex = p->index,
	};
	p->arp = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ARP));
	if (p->arp < 0 || bind(p->arp, (const struct sockaddr *)&here, sizeof here) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "ARP socket on link %d", p->index);
	return 0;
}

static int open_nd(struct probe *p, struct flat_err *err)
{
	const int hops = 255; /* RFC 4861 section 7.1.1: anything less is ignored */
	struct icmp6_filter filter;
	ICMP6_FILTER_SETBLOCKALL(&filter);
	ICMP6_FILTER_SETPASS(ND_NEIGHBOR_ADVERT, &filter);
	p->nd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6);
	if (p->nd < 0 ||
	    setsockopt(p->nd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter) < 0 ||
	    setsockopt(p->nd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops) < 0 ||
	    setsockopt(p->nd, SOL_SOCKET, SO_BINDTOIFINDEX, &p->index, sizeof p->index) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "ICMPv6 socket on link %d",
				 p->index);
	return 0;
}

static int ask_arp(const struct probe *p, const struct flat_ip *ip)
{
	const struct sockaddr_ll everybody = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ARP),
		.sll_ifindex = p->index,
		.sll_halen = ETH_ALEN,
		.sll_addr = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
	};
	struct ether_arp q = {
		.ea_hdr = { .ar_hrd = htons(ARPHRD_ETHER),
			    .ar_pro = htons(ETH_P_IP),
			    .ar_hln = ETH_ALEN,
			    .ar_pln = 4,
			    .ar_op = htons(ARPOP_REQUEST) },
	};
	memcpy(q.arp_sha, p->own_mac->bytes, sizeof q.arp_sha);
	memcpy(q.arp_tpa, ip->bytes, sizeof q.arp_tpa);
	ssize_t n = sendto(p->arp, &q, sizeof q, 0, (const struct sockaddr *)&everybody,
			   sizeof everybody);
	return n < 0 ? -errno : 0;
}

static int ask_nd(const struct probe *p, const struct flat_ip *ip)
{
	struct {
		struct nd_neighbor_solicit ns;
		struct nd_opt_hdr option;
		uint8_t mac[6];
	} q = {
		.ns.nd_ns_type = ND_NEIGHBOR_SOLICIT,
		.option = { .nd_opt_type = ND_OPT_SOURCE_LINKADDR, .nd_opt_len = 1 },
	};
	/* the solicited-node group: ff02::1:ff and the last three bytes */
	struct sockaddr_in6 group = {
		.sin6_family = AF_INET6,
		.sin6_scope_id = (uint32_t)p->index,
		.sin6_addr.s6_addr = { 0xff, 0x02, [11] = 1, 0xff },
	};
	memcpy(group.sin6_addr.s6_addr + 13, ip->bytes + 13, 3);
	memcpy(&q.ns.nd_ns_target, ip->bytes, 16);
	memcpy(q.mac, p->own_mac->bytes, sizeof q.mac);
	ssize_t n = sendto(p->nd, &q, sizeof q, 0, (const struct sockaddr *)&group, sizeof group);
	return n < 0 ? -errno : 0;
}

static void hear_arp(struct probe *p)
{
	struct ether_arp a;
	for (int i = 0; i < PROBE_MAX; i++) { /* a flood must not keep us */
		ssize_t n = recv(p->arp, &a, sizeof a, 0);
		if (n < 0)
			return;
		/* whoever speaks as this address has it: replies, announcements, requests */
		if (n == sizeof a && a.ea_hdr.ar_pln == 4 && a.ea_hdr.ar_hln == ETH_ALEN &&
		    memcmp(a.arp_sha, p->own_mac->bytes, ETH_ALEN) != 0)
			heard(p, AF_INET, a.arp_spa);
	}
}

static void hear_nd(struct probe *p)
{
	union {
		struct nd_neighbor_advert na;
		uint8_t bytes[256];
	} a;
	for (int i = 0; i < PROBE_MAX; i++) {
		ssize_t n = recv(p->nd, &a, sizeof a, 0);
		if (n < 0)
			return;
		if ((size_t)n >= sizeof a.na && a.na.nd_na_type == ND_NEIGHBOR_ADVERT)
			heard(p, AF_INET6, &a.na.nd_na_target);
	}
}

static void listen_until(struct probe *p, int64_t deadline)
{
	struct pollfd fds[] = { { .fd = p->arp, .events = POLLIN },
				{ .fd = p->nd, .events = POLLIN } };
	while (p->missing) {
		int64_t left = deadline - flat_now_ms();
		int r = poll(fds, FLAT_LEN(fds), left > 0 ? (int)left : 0);
		if (r > 0 && fds[0].revents)
			hear_arp(p);
		if (r > 0 && fds[1].revents)
			hear_nd(p);
		if (left <= 0)
			return;
	}
}

static int ask_round(struct probe *p, int64_t deadline, struct flat_err *err)
{
	size_t asked = 0;
	for (size_t i = 0; i < p->count && p->missing && flat_now_ms() <= deadline; i++) {
		if (p->answers[i])
			continue;
		int r = p->ips[i].family == AF_INET ? ask_arp(p, &p->ips[i])
						    : ask_nd(p, &p->ips[i]);
		if (r < 0 && r != -ENOBUFS && r != -EAGAIN && r != -EINTR) {
			char text[FLAT_IP_TEXT];
			flat_fail(err, FLAT_CODE_NETWORK, -r, "ask who has %s on link %d",
				  flat_ip_text(&p->ips[i], text), p->index);
			if (r == -EADDRNOTAVAIL)
				flat_detail(err, "the link has no usable IPv6 address");
			return r;
		}
		if (++asked % WAVE == 0)
			listen_until(p, flat_now_ms() + 1);
	}
	return 0;
}

static int ask_all(struct probe *p, int timeout_ms, struct flat_err *err)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < p->count; i++) {
		if (p->ips[i].family == AF_INET && p->arp < 0)
			r = open_arp(p, err);
		else if (p->ips[i].family == AF_INET6 && p->nd < 0)
			r = open_nd(p, err);
	}
	int64_t start = flat_now_ms();
	for (int round = 1; r == 0 && p->missing && round <= ROUNDS; round++) {
		int64_t deadline = start + (int64_t)timeout_ms * round / ROUNDS;
		r = ask_round(p, deadline, err);
		if (r == 0)
			listen_until(p, deadline);
	}
	return r;
}

int flat_net_probe(int index, const struct flat_mac *own_mac, const struct flat_ip *ips,
		   size_t count, int timeout_ms, bool *ret_answers, struct flat_err *err)
{
	bool answers[PROBE_MAX] = { false };
	if (count > PROBE_MAX)
		return flat_fail(err, FLAT_CODE_INTERNAL, E2BIG, "probe %zu addresses", count);
	struct probe p = { index, own_mac, ips, count, count, answers, -1, -1 };
	int r = ask_all(&p, timeout_ms, err);
	flat_close_fd(&p.arp);
	flat_close_fd(&p.nd);
	if (r == 0)
		memcpy(ret_answers, answers, count * sizeof *answers);
	return r;
}
