// SPDX-License-Identifier: Apache-2.0
#include "agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 1000, ANSWER_MAX = 256 << 10 };

/* ---- one request -------------------------------------------------------------------------------
 */

struct place {
	struct flat_ip ip;
	uint16_t port;
};

/* "127.0.0.1:9464", "[::1]:9464" */
static int parse_place(const char *text, struct place *ret_place, struct flat_err *err)
{
	char ip[FLAT_IP_TEXT];
	const char *colon = strrchr(text, ':');
	const bool bracket = text[0] == '[';
	uint64_t port = 0;
	const size_t len = colon ? (size_t)(colon - text) : 0;
	if (len > 2 * (size_t)bracket && len - 2 * (size_t)bracket < sizeof ip &&
	    (!bracket || colon[-1] == ']')) {
		snprintf(ip, sizeof ip, "%.*s", (int)(len - 2 * (size_t)bracket), text + bracket);
		if (flat_ip_parse(ip, &ret_place->ip) && flat_uint_parse(colon + 1, 65535, &port) &&
		    port) {
			ret_place->port = (uint16_t)port;
			return 0;
		}
	}
	flat_fail(err, FLAT_CODE_CONFIG, 0, "--agent: '%.64s' is not ADDRESS:PORT", text);
	return flat_detail(err, "like " FLAT_AGENT_ADDRESS " or [::1]:9464");
}

static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	const int64_t left = deadline - flat_now_ms();
	int r = left > 0 ? poll(&p, 1, (int)left) : 0;
	return r > 0 ? 0 : r < 0 ? -errno : -ETIMEDOUT;
}

static int open_socket(const struct place *place, int64_t deadline, int *ret_fd)
{
	const bool v6 = place->ip.family == AF_INET6;
	struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(place->port) };
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(place->port) };
	int error = 0;
	socklen_t size = sizeof error;
	memcpy(v6 ? (void *)&to6.sin6_addr : (void *)&to4.sin_addr, place->ip.bytes,
	       flat_ip_size(&place->ip));
	flat_auto_fd fd =
		socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, v6 ? (const struct sockaddr *)&to6 : (const struct sockaddr *)&to4,
		    v6 ? sizeof to6 : sizeof to4) < 0 &&
	    errno != EINPROGRESS)
		return -errno;
	int r = wait_for(fd, POLLOUT, deadline);
	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)
		return -(error ? error : errno);
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* The whole answer, NUL-terminated, into buf. */
static int get(const struct place *place, const char *path, char buf[static ANSWER_MAX])
{
	const int64_t deadline = flat_now_ms() + WAIT_MS;
	char request[128];
	flat_auto_fd fd = -1;
	size_t len = 0;
	int r = open_socket(place, deadline, &fd);
	if (r < 0)
		return r;
	const int size = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", path);
	if (send(fd, request, (size_t)size, MSG_NOSIGNAL) != size) /* fits any socket's buffer */
		return -EIO;
	while (len < ANSWER_MAX - 1) {
		r = wait_for(fd, POLLIN, deadline);
		const ssize_t n = r < 0 ? r : read(fd, buf + len, ANSWER_MAX - 1 - len);
		if (n < 0)
			return r < 0 ? r : -errno;
		if (!n)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	return strncmp(buf, "HTTP/1.", 7) ? -EPROTO : 0;
}

/* ---- metrics -----------------------------------------------------------------------------------
 */

/* The value of a sample by its whole name, with labels; NULL: there is none. Sums for a prefix
 * that ends with '{'. */
static double metric(const char *text, const char *name)
{
	const size_t len = strlen(name);
	double sum = 0;
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, len) != 0)
			continue;
		const char *value = strchr(line, ' ');
		if (value && (name[len - 1] == '{' || line[len] == ' '))
			sum += strtod(value, NULL);
	}
	return sum;
}

/* The value of the first label of this metric's first sample. */
static const char *label(struct flat_ctl *ctl, const char *text, const char *name)
{
	const char *at = strstr(text, name);
	const char *value = at ? strchr(at, '"') : NULL;
	const size_t len = value ? strcspn(value + 1, "\"\n") : 0;
	return len ? flat_format(&ctl->report, "%.*s", (int)len, value + 1) : NULL;
}

static const char *body(const char *answer)
{
	const char *end = strstr(answer, "\r\n\r\n");
	return end ? end + 4 : "";
}

int flat_agent_ask(struct flat_ctl *ctl, struct flat_agent_word *ret_word, struct flat_err *err)
{
	struct flat_agent_word word = { .address = ctl->agent ? ctl->agent : FLAT_AGENT_ADDRESS };
	flat_auto_free char *answer = malloc(ANSWER_MAX);
	struct place place = { 0 };
	if (!answer)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "ask the agent");
	int r = parse_place(word.address, &place, err);
	if (r < 0)
		return r;
	if (get(&place, "/readyz", answer) >= 0) {
		const char *text = body(answer);
		word.reached = true;
		word.ready = strstr(answer, " 200 ") && strstr(answer, " 200 ") < text;
		if (!word.ready)
			word.why =
				flat_format(&ctl->report, "%.*s", (int)strcspn(text, "\r\n"), text);
	}
	if (word.reached && get(&place, "/metrics", answer) >= 0) {
		const char *text = body(answer);
		word.version = label(ctl, text, "flatnet_build_info{");
		word.source = label(ctl, text, "flatnet_source_connected{");
		word.connected = metric(text, "flatnet_source_connected{") > 0;
		word.failing = metric(text, "flatnet_reconcile_failing") > 0;
		word.repairs = (uint64_t)metric(text, "flatnet_repairs_total{");
		word.direct = (uint64_t)metric(text, "flatnet_peers{path=\"direct\"}");
		word.tunnelled = (uint64_t)metric(text, "flatnet_peers{path=\"vxlan\"}");
		word.refused = (uint64_t)metric(text, "flatnet_nodes{state=\"refused\"}");
		word.waiting = (uint64_t)metric(text, "flatnet_nodes{state=\"waiting\"}");
	}
	*ret_word = word;
	return 0;
}
