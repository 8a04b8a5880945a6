// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <errno.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
	/* Of one sendmsg. Each message is answered by an ack of less than 1 KiB of socket memory,
	 * so 128 of them never overflow the receive buffer. */
	BATCH_BYTES = 32 << 10,
	BATCH_MESSAGES = 128,
	RECEIVE_MEMORY = 256 << 10, /* a limit, not an allocation */
	SEND_MEMORY = 64 << 10,
	MESSAGE_BYTES = 4096,
	LABEL_BYTES = 160,
	QUEUE_MAX = 1 << 16,
};

/* It grows at its end. */
struct buffer {
	char *bytes;
	size_t used, room;
};

/* Changes as the kernel takes them, one behind the other; in another buffer, in the same order, a
 * byte with enum flat_accept and the label of each, with its NUL. */
struct queue {
	size_t count;
	struct buffer messages, labels;
};

struct flat_net {
	struct nl_sock *socket;
	int fd;
	uint32_t seq;
	struct queue queue;
	struct flat_err failure; /* of queueing: told by the commit */
	char buf[32 << 10];	 /* the kernel makes dump answers up to this size */
};

/* ---- conversations -----------------------------------------------------------------------------
 */

static int set_up(struct flat_net *net, int protocol, struct flat_err *err)
{
	net->socket = nl_socket_alloc();
	if (!net->socket)
		return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "open a netlink socket");
	errno = 0;
	if (nl_connect(net->socket, protocol) < 0) {
		int sys = errno ? errno : EIO;
		flat_fail(err, FLAT_CODE_NETWORK, sys, "open a netlink socket");
		if (sys == EPROTONOSUPPORT && protocol == NETLINK_NETFILTER)
			flat_detail(err, "the kernel has no nfnetlink: load the module nf_tables");
		return -sys;
	}
	net->fd = nl_socket_get_fd(net->socket);
	nl_socket_set_buffer_size(net->socket, RECEIVE_MEMORY, SEND_MEMORY);

	/* Each of them is a courtesy of newer kernels, and what follows does without. */
	const int on = 1;
	setsockopt(net->fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
	setsockopt(net->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
	setsockopt(net->fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
	const struct timeval patience = { .tv_sec = FLAT_NL_TIMEOUT_S };
	if (setsockopt(net->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "set up a netlink socket");
	net->seq = (uint32_t)flat_now_ms();
	return 0;
}

int flat_nl_open(int protocol, struct flat_net **ret_net, struct flat_err *err)
{
	struct flat_net *net = calloc(1, sizeof *net);
	if (!net)
		return flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "open a netlink socket");
	int r = set_up(net, protocol, err);
	if (r < 0)
		flat_net_close(net);
	else
		*ret_net = net;
	return r;
}

int flat_net_open(struct flat_net **ret_net, struct flat_err *err)
{
	return flat_nl_open(NETLINK_ROUTE, ret_net, err);
}

static void drop_queue(struct flat_net *net)
{
	free(net->queue.messages.bytes);
	free(net->queue.labels.bytes);
	net->queue = (struct queue){ 0 };
	net->failure = (struct flat_err){ 0 };
}

void flat_net_close(struct flat_net *net)
{
	if (!net)
		return;
	drop_queue(net);
	nl_socket_free(net->socket); /* NULL is fine */
	free(net);
}

void flat_net_closep(struct flat_net **net)
{
	flat_net_close(*net);
	*net = NULL;
}

uint32_t flat_nl_next_seq(struct flat_net *net)
{
	if (++net->seq == 0) /* 0 is the kernel's own: notifications */
		net->seq = 1;
	return net->seq;
}

int flat_nl_fd(struct flat_net *net)
{
	return net->fd;
}

/* ---- the builder -------------------------------------------------------------------------------
 */

void flat_nl_drop(struct flat_nl_builder *b)
{
	nlmsg_free(b->msg);
	b->msg = NULL;
}

void flat_nl_begin(struct flat_nl_builder *b, int type, int flags, const void *header, size_t len)
{
	*b = (struct flat_nl_builder){ .msg = nlmsg_alloc_size(MESSAGE_BYTES) };
	struct nlmsghdr *h =
		b->msg ? nlmsg_put(b->msg, 0, 1, type, (int)len, NLM_F_REQUEST | flags) : NULL;
	if (h)
		memcpy(nlmsg_data(h), header, len);
	else
		b->failed = true;
}

void flat_nl_put(struct flat_nl_builder *b, int attr, const void *data, size_t len)
{
	if (!b->failed && (len > MESSAGE_BYTES || nla_put(b->msg, attr, (int)len, data) < 0))
		b->failed = true;
}

void flat_nl_put_u8(struct flat_nl_builder *b, int attr, uint8_t value)
{
	flat_nl_put(b, attr, &value, sizeof value);
}

void flat_nl_put_u16(struct flat_nl_builder *b, int attr, uint16_t value)
{
	flat_nl_put(b, attr, &value, sizeof value);
}

void flat_nl_put_u32(struct flat_nl_builder *b, int attr, uint32_t value)
{
	flat_nl_put(b, attr, &value, sizeof value);
}

void flat_nl_put_text(struct flat_nl_builder *b, int attr, const char *text)
{
	flat_nl_put(b, attr, text, strlen(text) + 1);
}

void flat_nl_put_ip(struct flat_nl_builder *b, int attr, const struct flat_ip *ip)
{
	flat_nl_put(b, attr, ip->bytes, flat_ip_size(ip));
}

void flat_nl_nest(struct flat_nl_builder *b, int attr, const void *header, size_t len)
{
	if (b->failed)
		return;
	struct nlattr *nest =
		(size_t)b->depth < FLAT_LEN(b->nest) ? nla_nest_start(b->msg, attr) : NULL;
	if (!nest || (header && nlmsg_append(b->msg, (void *)header, len, NLMSG_ALIGNTO) < 0))
		b->failed = true;
	else
		b->nest[b->depth++] = nest;
}

void flat_nl_nest_end(struct flat_nl_builder *b)
{
	if (!b->failed && nla_nest_end(b->msg, b->nest[--b->depth]) < 0)
		b->failed = true;
}

struct nlmsghdr *flat_nl_message(struct flat_nl_builder *b)
{
	return b->failed ? NULL : nlmsg_hdr(b->msg);
}

/* ---- sending and receiving ---------------------------------------------------------------------
 */

static int send_all(struct flat_net *net, const void *bytes, size_t len, struct flat_err *err,
		    const char *what)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	const struct msghdr m = {
		.msg_name = &kernel, .msg_namelen = sizeof kernel, .msg_iov = &iov, .msg_iovlen = 1
	};
	ssize_t n;
	do
		n = sendmsg(net->fd, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "%s: send to the kernel", what);
	return 0;
}

/* Passes the kernel's messages with a sequence number in [first, first + count) to fn until it
 * returns something else than 0, which is returned. With MSG_DONTWAIT: 0 when there is no more.
 * Answers to an earlier request that was given up fall through the sequence number. */
static int receive(struct flat_net *net, uint32_t first, size_t count,
		   int (*fn)(void *arg, const struct nlmsghdr *h), void *arg, int flags,
		   struct flat_err *err, const char *what)
{
	for (;;) {
		struct sockaddr_nl from = { 0 };
		struct iovec iov = { .iov_base = net->buf, .iov_len = sizeof net->buf };
		struct msghdr m = { .msg_name = &from,
				    .msg_namelen = sizeof from,
				    .msg_iov = &iov,
				    .msg_iovlen = 1 };
		ssize_t n = recvmsg(net->fd, &m, flags);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN && (flags & MSG_DONTWAIT))
			return 0;
		if (n < 0 && errno == EAGAIN)
			return flat_fail(err, FLAT_CODE_TRY_LATER, ETIMEDOUT,
					 "%s: the kernel did not answer within %d s", what,
					 FLAT_NL_TIMEOUT_S);
		if (n < 0)
			return flat_fail(err,
					 errno == ENOBUFS ? FLAT_CODE_TRY_LATER : FLAT_CODE_NETWORK,
					 errno, "%s: receive from the kernel", what);
		if (from.nl_pid != 0) /* anybody may send to us; only the kernel counts */
			continue;
		if (m.msg_flags & MSG_TRUNC)
			return flat_fail(err, FLAT_CODE_NETWORK, EMSGSIZE,
					 "%s: receive from the kernel", what);
		int left = (int)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)net->buf; nlmsg_ok(h, left);
		     h = nlmsg_next(h, &left)) {
			if (h->nlmsg_seq - first >= count)
				continue;
			int r = fn(arg, h);
			if (r)
				return r;
		}
	}
}

static const char *extended_ack(const struct nlmsghdr *h, size_t offset)
{
	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || h->nlmsg_len < NLMSG_HDRLEN + offset)
		return "";
	const struct nlattr *attr =
		nla_find((const struct nlattr *)((const char *)h + NLMSG_HDRLEN + offset),
			 (int)(h->nlmsg_len - NLMSG_HDRLEN - offset), NLMSGERR_ATTR_MSG);
	if (!attr || nla_len(attr) < 1 || ((const char *)nla_data(attr))[nla_len(attr) - 1])
		return "";
	return nla_data(attr);
}

/* The errno in an NLMSG_ERROR or NLMSG_DONE, 0 in an ack; *ret_text: the kernel's sentence or "".
 */
static int refusal(const struct nlmsghdr *h, const char **ret_text)
{
	*ret_text = "";
	if (h->nlmsg_type == NLMSG_DONE) {
		int code = 0;
		if (h->nlmsg_len >= NLMSG_LENGTH(sizeof code))
			memcpy(&code, nlmsg_data(h), sizeof code);
		if (code >= 0)
			return 0;
		*ret_text = extended_ack(h, NLMSG_ALIGN(sizeof code));
		return -code;
	}
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
		return EBADMSG;
	const struct nlmsgerr *e = nlmsg_data(h);
	size_t offset = NLMSG_ALIGN(sizeof *e);
	if (!(h->nlmsg_flags & NLM_F_CAPPED) && e->msg.nlmsg_len >= NLMSG_HDRLEN)
		offset += NLMSG_ALIGN(e->msg.nlmsg_len - NLMSG_HDRLEN);
	if (e->error < 0)
		*ret_text = extended_ack(h, offset);
	return e->error < 0 ? -e->error : 0;
}

static bool accepted(int accept, int sys)
{
	switch (sys) {
	case EEXIST:
		return accept & FLAT_EXISTS_OK;
	case ENODEV:
	case ENOENT:
	case ESRCH:
	case EADDRNOTAVAIL:
		return accept & FLAT_GONE_OK;
	case EAFNOSUPPORT:
	case EOPNOTSUPP:
		return accept & FLAT_UNSUPPORTED_OK;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case EACCES: /* a route of type prohibit */
	case EINVAL: /* a route of type blackhole */
		return accept & FLAT_UNREACHABLE_OK;
	default:
		return false;
	}
}

static int refused(struct flat_err *err, int sys, const char *text, const char *what)
{
	if (!err || err->code != FLAT_CODE_NONE) /* keep this sentence out of an earlier error */
		return -sys;
	flat_fail(err, FLAT_CODE_NETWORK, sys, "%s", what);
	if (*text)
		flat_detail(err, "%s", text);
	else if (sys == EPERM)
		flat_detail(err, "this needs root, or CAP_NET_ADMIN over the network namespace");
	return -sys;
}

/* ---- changes -----------------------------------------------------------------------------------
 */

/* Room for len more bytes, not yet used; NULL: no memory. */
static char *reserve(struct buffer *buffer, size_t len)
{
	size_t room = buffer->room ? buffer->room : 1024;
	while (room - buffer->used < len)
		room *= 2;
	if (room > buffer->room) {
		char *bytes = realloc(buffer->bytes, room);
		if (!bytes)
			return NULL;
		buffer->bytes = bytes;
		buffer->room = room;
	}
	return buffer->bytes + buffer->used;
}

void flat_nl_queue(struct flat_net *net, struct flat_nl_builder *b, enum flat_accept accept,
		   const char *fmt, ...)
{
	struct queue *queue = &net->queue;
	char label[1 + LABEL_BYTES] = { (char)accept };
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(label + 1, sizeof label - 1, fmt, ap);
	va_end(ap);
	int sys = EMSGSIZE;
	if (!b->failed && queue->count < QUEUE_MAX) {
		const struct nlmsghdr *h = nlmsg_hdr(b->msg);
		size_t len = NLMSG_ALIGN(h->nlmsg_len), label_len = 2 + strlen(label + 1);
		char *message = reserve(&queue->messages, len);
		char *name = reserve(&queue->labels, label_len);
		sys = message && name ? 0 : ENOMEM;
		if (sys == 0) {
			memcpy(message, h, len);
			memcpy(name, label, label_len);
			queue->messages.used += len;
			queue->labels.used += label_len;
			queue->count++;
		}
	}
	if (sys)
		flat_fail(&net->failure, FLAT_CODE_NETWORK, sys, "%s", label + 1);
	flat_nl_drop(b);
}

/* What goes out in one sendmsg. */
struct batch {
	const char *labels; /* of its messages */
	size_t bytes, count, answered;
	uint32_t first;
	bool is_answered[BATCH_MESSAGES];
	struct flat_err *err;
	int result;
};

static const char *next_label(const char *label)
{
	return label + 2 + strlen(label + 1);
}

static int take_answer(void *arg, const struct nlmsghdr *h)
{
	struct batch *batch = arg;
	size_t i = h->nlmsg_seq - batch->first;
	if (h->nlmsg_type != NLMSG_ERROR || batch->is_answered[i]) /* an echo is not an answer */
		return 0;
	const char *text, *label = batch->labels;
	int sys = refusal(h, &text);
	for (size_t n = 0; sys && n < i; n++)
		label = next_label(label);
	if (sys && !accepted(*label, sys)) {
		refused(batch->err, sys, text, label + 1);
		if (!batch->result)
			batch->result = -sys;
	}
	batch->is_answered[i] = true;
	return ++batch->answered == batch->count;
}

/* Takes what fits from the messages in [start, end), and numbers it. */
static void gather(struct flat_net *net, struct batch *batch, char *start, const char *end)
{
	while (batch->count < BATCH_MESSAGES && start + batch->bytes < end) {
		struct nlmsghdr *h = (struct nlmsghdr *)(start + batch->bytes);
		size_t len = NLMSG_ALIGN(h->nlmsg_len);
		if (batch->count && batch->bytes + len > BATCH_BYTES)
			break;
		h->nlmsg_seq = flat_nl_next_seq(net);
		if (batch->count == 0)
			batch->first = h->nlmsg_seq;
		else if (h->nlmsg_seq != batch->first + batch->count)
			break; /* the counter has wrapped: the next batch starts anew */
		h->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
		batch->bytes += len;
		batch->count++;
	}
}

int flat_net_commit(struct flat_net *net, struct flat_err *err)
{
	int result = 0;
	if (net->failure.code != FLAT_CODE_NONE) {
		result = -net->failure.sys;
		if (err && err->code == FLAT_CODE_NONE)
			*err = net->failure;
		drop_queue(net);
		return result;
	}
	if (net->queue.count == 0)
		return 0;
	char *message = net->queue.messages.bytes;
	const char *label = net->queue.labels.bytes, *end = message + net->queue.messages.used;
	while (message < end) {
		struct batch batch = { .labels = label, .err = err };
		gather(net, &batch, message, end);
		int r = send_all(net, message, batch.bytes, err, label + 1);
		if (r == 0)
			r = receive(net, batch.first, batch.count, take_answer, &batch, 0, err,
				    label + 1);
		if (!result)
			result = batch.result;
		if (r < 0) {
			if (!result)
				result = r;
			break;
		}
		message += batch.bytes;
		for (size_t i = 0; i < batch.count; i++)
			label = next_label(label);
	}
	drop_queue(net);
	return result;
}

/* ---- reads -------------------------------------------------------------------------------------
 */

struct ask {
	int accept;
	flat_nl_parse_fn *parse;
	void *elem, *arg;
	struct flat_err *err;
	const char *what;
	int result;
};

static int take_reply(void *arg, const struct nlmsghdr *h)
{
	struct ask *ask = arg;
	const char *text;
	if (h->nlmsg_type == NLMSG_ERROR) {
		int sys = refusal(h, &text);
		if (sys && !accepted(ask->accept, sys))
			ask->result = refused(ask->err, sys, text, ask->what);
		else
			ask->result = 0;
	} else {
		ask->result = ask->parse(h, ask->elem, ask->arg);
		if (ask->result < 0)
			flat_fail(ask->err, FLAT_CODE_NETWORK, -ask->result,
				  "%s: the kernel's answer", ask->what);
	}
	return 1;
}

int flat_nl_ask(struct flat_net *net, struct nlmsghdr *request, int accept, flat_nl_parse_fn *parse,
		void *elem, void *arg, struct flat_err *err, const char *fmt, ...)
{
	char what[LABEL_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	if (!request)
		return flat_fail(err, FLAT_CODE_NETWORK, EMSGSIZE, "%s", what);
	request->nlmsg_seq = flat_nl_next_seq(net);
	struct ask ask = { accept, parse, elem, arg, err, what, 0 };
	int r = send_all(net, request, request->nlmsg_len, err, what);
	if (r == 0)
		r = receive(net, request->nlmsg_seq, 1, take_reply, &ask, 0, err, what);
	return r < 0 ? r : ask.result;
}

void flat_nl_list_free(struct flat_nl_list *list)
{
	free(list->items);
	*list = (struct flat_nl_list){ 0 };
}

void *flat_nl_list_add(struct flat_nl_list *list, size_t size)
{
	if (list->count == list->room) {
		size_t room = list->room ? list->room * 2 : 16;
		char *items = reallocarray(list->items, room, size);
		if (!items)
			return NULL;
		list->items = items;
		list->room = room;
	}
	return memset(list->items + list->count++ * size, 0, size);
}

struct dump {
	int accept;
	flat_nl_parse_fn *parse;
	size_t elem_size;
	void *arg;
	struct flat_nl_list *list;
	bool interrupted;
	int failed; /* negative errno of the first answer that made no sense */
	struct flat_err *err;
	const char *what;
	int result;
};

/* Reads to the end whatever happens: the kernel starts no second dump on a socket before. */
static int take_part(void *arg, const struct nlmsghdr *h)
{
	struct dump *dump = arg;
	const char *text;
	if (h->nlmsg_flags & NLM_F_DUMP_INTR)
		dump->interrupted = true;
	if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
		int sys = refusal(h, &text);
		if (sys && !accepted(dump->accept, sys))
			dump->result = refused(dump->err, sys, text, dump->what);
		return 1;
	}
	if (dump->failed || dump->interrupted)
		return 0;
	void *elem = flat_nl_list_add(dump->list, dump->elem_size);
	if (!elem) {
		dump->failed = -ENOMEM;
		return 0;
	}
	int r = dump->parse(h, elem, dump->arg);
	if (r <= 0)
		dump->list->count--;
	if (r < 0)
		dump->failed = r;
	return 0;
}

int flat_nl_dump(struct flat_net *net, struct nlmsghdr *request, int accept,
		 flat_nl_parse_fn *parse, size_t elem_size, void *arg, void (*reset)(void *arg),
		 struct flat_nl_list *ret_list, struct flat_err *err, const char *fmt, ...)
{
	char what[LABEL_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	if (!request)
		return flat_fail(err, FLAT_CODE_NETWORK, EMSGSIZE, "%s", what);
	request->nlmsg_flags |= NLM_F_DUMP;
	for (int i = 0; i < FLAT_NL_TRIES; i++) {
		struct dump dump = {
			accept, parse, elem_size, arg, ret_list, false, 0, err, what, 0
		};
		ret_list->count = 0;
		if (reset)
			reset(arg);
		request->nlmsg_seq = flat_nl_next_seq(net);
		int r = send_all(net, request, request->nlmsg_len, err, what);
		if (r == 0)
			r = receive(net, request->nlmsg_seq, 1, take_part, &dump, 0, err, what);
		if (r < 0)
			return r;
		if (dump.result < 0)
			return dump.result;
		if (dump.failed)
			return flat_fail(err, FLAT_CODE_NETWORK, -dump.failed,
					 "%s: the kernel's answer", what);
		if (!dump.interrupted)
			return 0;
		flat_sleep_us(100U << (i < 6 ? i : 6));
	}
	flat_fail(err, FLAT_CODE_TRY_LATER, EAGAIN, "%s", what);
	return flat_detail(err, "it changed under each of %d readings", FLAT_NL_TRIES);
}

struct transaction {
	uint32_t seq;
	int result;
	char *text;
	size_t text_size;
};

static int take_verdict(void *arg, const struct nlmsghdr *h)
{
	struct transaction *t = arg;
	const char *text;
	int sys = h->nlmsg_type == NLMSG_ERROR ? refusal(h, &text) : 0;
	if (sys && !t->result) {
		t->result = -sys;
		t->seq = h->nlmsg_seq;
		snprintf(t->text, t->text_size, "%s", text);
	}
	return 0;
}

int flat_nl_transact(struct flat_net *net, const void *messages, size_t len, uint32_t *ret_seq,
		     char *text, size_t text_size, struct flat_err *err)
{
	static const char what[] = "nf_tables transaction";
	struct transaction t = { .text = text, .text_size = text_size };
	if (len > BATCH_BYTES) {
		const int room = (int)len * 2;
		if (setsockopt(net->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) < 0)
			setsockopt(net->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	}
	*ret_seq = 0;
	text[0] = '\0';
	int r = send_all(net, messages, len, err, what);
	if (r == 0)
		r = receive(net, 1, UINT32_MAX, take_verdict, &t, MSG_DONTWAIT, err, what);
	if (r < 0)
		return r;
	*ret_seq = t.seq;
	return t.result;
}

/* ---- parsing -----------------------------------------------------------------------------------
 */

void flat_nl_text(const struct nlattr *attr, char *buf, size_t size)
{
	size_t n = attr ? strnlen(nla_data(attr), (size_t)nla_len(attr)) : 0;
	if (n >= size)
		n = size - 1;
	if (n)
		memcpy(buf, nla_data(attr), n);
	buf[n] = '\0';
}

bool flat_nl_ip(const struct nlattr *attr, int family, struct flat_ip *ret_ip)
{
	struct flat_ip ip = { .family = (uint8_t)family };
	if (!attr || (size_t)nla_len(attr) != flat_ip_size(&ip))
		return false;
	memcpy(ip.bytes, nla_data(attr), flat_ip_size(&ip));
	*ret_ip = ip;
	return true;
}
