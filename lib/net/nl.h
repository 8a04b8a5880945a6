/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to lib/net: one netlink conversation, of rtnetlink or of nfnetlink.
 *
 * A message is built with libnl's nlmsg_ and nla_ functions through a builder whose error sticks:
 * a put that does not fit marks it, and whoever takes the message looks once. Three ways lead to
 * the kernel: ask (one request, one answer), dump (one request, many answers), and the queue of
 * changes that flat_net_commit() sends. All of them read true errnos and the extended ack, which
 * libnl's own receive path does not (libnl 3.7).
 */
#pragma once

#include <flatnet/net.h>

#include <netlink/attr.h>
#include <netlink/msg.h>

enum {
	FLAT_NL_TIMEOUT_S = 10,
	FLAT_NL_TRIES = 16, /* of a dump that others keep interrupting */
	/* More than enum flat_accept, for reads: "no route" is an answer. */
	FLAT_UNREACHABLE_OK = 4,
};

/* Both are private; a struct flat_net may be opened for any netlink protocol. */
int flat_nl_open(int protocol, struct flat_net **ret_net, struct flat_err *err);
uint32_t flat_nl_next_seq(struct flat_net *net);
int flat_nl_fd(struct flat_net *net);

struct flat_nl_builder {
	struct nl_msg *msg;
	struct nlattr *nest[6];
	int depth;
	bool failed;
};
void flat_nl_drop(struct flat_nl_builder *b);
#define flat_auto_builder __attribute__((cleanup(flat_nl_drop))) struct flat_nl_builder

void flat_nl_begin(struct flat_nl_builder *b, int type, int flags, const void *header, size_t len);
void flat_nl_put(struct flat_nl_builder *b, int attr, const void *data, size_t len);
void flat_nl_put_u8(struct flat_nl_builder *b, int attr, uint8_t value);
void flat_nl_put_u16(struct flat_nl_builder *b, int attr, uint16_t value);
void flat_nl_put_u32(struct flat_nl_builder *b, int attr, uint32_t value);
void flat_nl_put_text(struct flat_nl_builder *b, int attr, const char *text);
void flat_nl_put_ip(struct flat_nl_builder *b, int attr, const struct flat_ip *ip);
/* Opens a nested attribute; header: a fixed struct at its start, NULL: none. */
void flat_nl_nest(struct flat_nl_builder *b, int attr, const void *header, size_t len);
void flat_nl_nest_end(struct flat_nl_builder *b);
/* The message, as long as the builder lives; NULL when a put failed. */
struct nlmsghdr *flat_nl_message(struct flat_nl_builder *b);

/* Queues the message (and takes it out of the builder) until flat_net_commit(). The text says what
 * the message does: it starts the error message if the kernel refuses. */
void flat_nl_queue(struct flat_net *net, struct flat_nl_builder *b, enum flat_accept accept,
		   const char *fmt, ...) FLAT_PRINTF(4, 5);

/* Reads an answer: of flat_nl_dump() returns 1 to keep *elem, 0 to skip it; negative errno when the
 * answer makes no sense. */
typedef int flat_nl_parse_fn(const struct nlmsghdr *answer, void *elem, void *arg);

/* Sends a request that has one answer. 1: parsed into elem; 0: the kernel refused with an errno
 * that `accept` allows, or the answer was skipped; negative errno otherwise. request NULL (a failed
 * builder) is -EMSGSIZE. */
int flat_nl_ask(struct flat_net *net, struct nlmsghdr *request, int accept, flat_nl_parse_fn *parse,
		void *elem, void *arg, struct flat_err *err, const char *fmt, ...)
	FLAT_PRINTF(8, 9);

struct flat_nl_list {
	char *items;
	size_t count, room;
};
void flat_nl_list_free(struct flat_nl_list *list);
#define flat_auto_list __attribute__((cleanup(flat_nl_list_free))) struct flat_nl_list
/* A new zeroed element at the end; NULL: no memory. */
void *flat_nl_list_add(struct flat_nl_list *list, size_t size);

/* Sends a dump request; collects the elements that parse keeps. A dump that changes on the way is
 * started again; so nothing is handed on before all of it is there. Refusals that `accept` allows
 * are an empty list. reset, where not NULL, is called before each try. */
int flat_nl_dump(struct flat_net *net, struct nlmsghdr *request, int accept,
		 flat_nl_parse_fn *parse, size_t elem_size, void *arg, void (*reset)(void *arg),
		 struct flat_nl_list *ret_list, struct flat_err *err, const char *fmt, ...)
	FLAT_PRINTF(10, 11);

/* Sends messages that the kernel takes as one transaction (nfnetlink batch). The answers are there
 * when sendmsg() returns. 0, or the first refusal as negative errno, with its sequence number in
 * *ret_seq and the kernel's sentence in text; err is set only when the conversation itself broke
 * (then *ret_seq is 0). */
int flat_nl_transact(struct flat_net *net, const void *messages, size_t len, uint32_t *ret_seq,
		     char *text, size_t text_size, struct flat_err *err);

/* Messages of a dump, and the same as notifications, which come with RTM_DEL types, too. The
 * element is the struct of net.h that they are named after. */
flat_nl_parse_fn flat_link_parse, flat_addr_parse, flat_route_parse, flat_neigh_parse,
	flat_fdb_parse;
/* IFLA_INFO_DATA of a link of kind "vxlan". */
int flat_vxlan_parse(struct nlattr *data, struct flat_vxlan *ret_vxlan);

/* Copies the text of a string attribute, cut to fit; "" for NULL. */
void flat_nl_text(const struct nlattr *attr, char *buf, size_t size);
/* False: absent, or the wrong length. */
bool flat_nl_ip(const struct nlattr *attr, int family, struct flat_ip *ret_ip);
