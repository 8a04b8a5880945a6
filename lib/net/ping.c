// SPDX-License-Identifier: Apache-2.0
/*
 * Echo requests (RFC 792, RFC 4443) to many addresses at once, from raw sockets: the kernel's own
 * ping sockets are closed by default (net.ipv4.ping_group_range). All answers to this host come to
 * every such socket; ours are told by identifier and a cookie, and who sent them must be whom we
 * asked. Whoever is silent is asked again.
 */
#include <flatnet/net.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

enum { ROUNDS = 3, WAVE = 64, PACKET_MAX = 2048, RECEIVE_BUFFER = 1 << 20 };

/* The same layout in both protocols; fields in network byte order. */
struct echo {
	uint8_t type, code;
	uint16_t checksum, id, sequence; /* sequence: the address's index, its lower half */
	uint32_t index, cookie;
};

struct ping {
	const struct flat_ip *ips;
	size_t count, missing;
	int32_t *rtt_us; /* -1: no answer yet */
	int64_t *sent_us;
	uint32_t cookie;
	int fds[2]; /* IPv4, IPv6; -1: no address of this family is asked for */
};

static int64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* RFC 1071; of ICMPv6 the kernel writes it. */
static uint16_t checksum(const struct echo *echo)
{
	uint16_t words[sizeof *echo / 2];
	uint32_t sum = 0;
	memcpy(words, echo, sizeof *echo);
	for (size_t i = 0; i < FLAT_LEN(words); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	return (uint16_t)~sum;
}

static int open_socket(struct ping *p, int family, struct flat_err *err)
{
	const bool v6 = family == AF_INET6;
	const int size = RECEIVE_BUFFER;
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
			v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	if (fd < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "socket for echo requests");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	p->fds[v6] = fd;
	return 0;
}

static void send_one(struct ping *p, size_t i)
{
	const struct flat_ip *ip = &p->ips[i];
	const bool v6 = ip->family == AF_INET6;
	struct sockaddr_in to4 = { .sin_family = AF_INET };
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6 };
	struct echo echo = {
		.type = v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO,
		.id = htons((uint16_t)p->cookie),
		.sequence = htons((uint16_t)i),
		.index = htonl((uint32_t)i),
		.cookie = p->cookie,
	};
	memcpy(v6 ? (void *)&to6.sin6_addr : (void *)&to4.sin_addr, ip->bytes, flat_ip_size(ip));
	if (!v6)
		echo.checksum = checksum(&echo);
	p->sent_us[i] = now_us();
	/* cannot be sent (no route, no neighbour): as good as no answer */
	(void)!sendto(p->fds[v6], &echo, sizeof echo, 0,
		      v6 ? (const struct sockaddr *)&to6 : (const struct sockaddr *)&to4,
		      v6 ? sizeof to6 : sizeof to4);
}

static void take_answer(struct ping *p, bool v6, const char *packet, size_t len,
			const struct flat_ip *from)
{
	const size_t head = v6 || len < sizeof(struct iphdr) ? 0 : (size_t)(packet[0] & 15) * 4;
	struct echo echo;
	if (len < head + sizeof echo)
		return;
	memcpy(&echo, packet + head, sizeof echo);
	const size_t i = ntohl(echo.index);
	if (echo.type != (v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) || echo.cookie != p->cookie ||
	    i >= p->count || p->rtt_us[i] >= 0 || !flat_ip_equal(&p->ips[i], from))
		return;
	const int64_t took = now_us() - p->sent_us[i];
	p->rtt_us[i] = took < INT32_MAX ? (int32_t)took : INT32_MAX;
	p->missing--;
}

static void receive(struct ping *p, bool v6)
{
	for (;;) {
		char packet[PACKET_MAX];
		struct sockaddr_storage from;
		socklen_t size = sizeof from;
		struct flat_ip ip = { .family = v6 ? AF_INET6 : AF_INET };
		const ssize_t len = recvfrom(p->fds[v6], packet, sizeof packet, 0,
					     (struct sockaddr *)&from, &size);
		if (len < 0)
			return;
		if (v6)
			memcpy(ip.bytes, &((struct sockaddr_in6 *)&from)->sin6_addr, 16);
		else
			memcpy(ip.bytes, &((struct sockaddr_in *)&from)->sin_addr, 4);
		take_answer(p, v6, packet, (size_t)len, &ip);
	}
}

static void listen_until(struct ping *p, int64_t end_ms)
{
	while (p->missing) {
		struct pollfd fds[2] = { { .fd = p->fds[0], .events = POLLIN },
					 { .fd = p->fds[1], .events = POLLIN } };
		const int64_t left = end_ms - flat_now_ms();
		if (left <= 0 || (poll(fds, 2, (int)left) < 0 && errno != EINTR))
			return;
		for (int v6 = 0; v6 < 2; v6++)
			if (fds[v6].fd >= 0)
				receive(p, v6);
	}
}

static void ask_all(struct ping *p, int timeout_ms)
{
	const int64_t start = flat_now_ms();
	for (int round = 1; round <= ROUNDS && p->missing; round++) {
		for (size_t i = 0, sent = 0; i < p->count; i++) {
			if (p->rtt_us[i] >= 0)
				continue;
			send_one(p, i);
			if (++sent % WAVE == 0)
				listen_until(p, flat_now_ms() + 1);
		}
		listen_until(p, start + (int64_t)timeout_ms * round / ROUNDS);
	}
}

int flat_net_ping(const struct flat_ip *ips, size_t count, int timeout_ms, int32_t *ret_rtt_us,
		  struct flat_err *err)
{
	flat_auto_free int64_t *sent = calloc(count + 1, sizeof *sent);
	struct ping p = { .ips = ips,
			  .count = count,
			  .missing = count,
			  .rtt_us = ret_rtt_us,
			  .sent_us = sent,
			  .fds = { -1, -1 } };
	int r = 0;
	if (!sent)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "echo requests");
	if (getrandom(&p.cookie, sizeof p.cookie, GRND_NONBLOCK) < 0)
		p.cookie = (uint32_t)now_us();
	for (size_t i = 0; i < count && r >= 0; i++) {
		ret_rtt_us[i] = -1;
		if (p.fds[ips[i].family == AF_INET6] < 0)
			r = open_socket(&p, ips[i].family, err);
	}
	if (r >= 0)
		ask_all(&p, timeout_ms);
	flat_close_fd(&p.fds[0]);
	flat_close_fd(&p.fds[1]);
	return r;
}
