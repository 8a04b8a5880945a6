// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/net_namespace.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* Not /proc/self: a thread may be in another namespace than its process. */
static const char own_path[] = "/proc/thread-self/ns/net";

int flat_netns_open(const char *path, int *ret_fd, struct flat_err *err)
{
	/* O_NONBLOCK: whatever else the path names (a FIFO, say) must not hold us up */
	flat_auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		int sys = errno;
		flat_fail(err, FLAT_CODE_NETNS, sys, "network namespace '%s'", path);
		if (sys == ENOENT)
			flat_detail(err, "the container is gone, or the path is wrong");
		return -sys;
	}
	/* the file system first: another file's driver may take our ioctl for something else */
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC ||
	    ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET) {
		flat_fail(err, FLAT_CODE_NETNS, EINVAL, "'%s' is not a network namespace", path);
		return flat_detail(err, "a leftover file of a namespace that is no longer mounted "
					"there can be removed");
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int flat_netns_is_own(int fd)
{
	struct stat own, other;
	if (stat(own_path, &own) < 0 || fstat(fd, &other) < 0)
		return -errno;
	return own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

int flat_netns_enter(int fd, int *ret_back, struct flat_err *err)
{
	flat_auto_fd back = open(own_path, O_RDONLY | O_CLOEXEC);
	if (back < 0)
		return flat_fail(err, FLAT_CODE_NETNS, errno, "open '%s'", own_path);
	if (setns(fd, CLONE_NEWNET) < 0) {
		int sys = errno;
		flat_fail(err, FLAT_CODE_NETNS, sys, "enter the network namespace");
		if (sys == EPERM)
			flat_detail(err, "this needs root, or CAP_SYS_ADMIN over the namespace");
		return -sys;
	}
	*ret_back = back;
	back = -1;
	return 0;
}

void flat_netns_leave(int *back)
{
	if (*back >= 0 && setns(*back, CLONE_NEWNET) < 0)
		abort(); /* to go on in the pod's namespace would break the pod or the node */
	flat_close_fd(back);
}

static int parse_id(const struct nlmsghdr *h, void *elem, void *arg)
{
	struct nlattr *tb[NETNSA_MAX + 1];
	(void)arg;
	if (h->nlmsg_type != RTM_NEWNSID)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct rtgenmsg), tb, NETNSA_MAX, NULL) < 0 ||
	    !tb[NETNSA_NSID] || nla_len(tb[NETNSA_NSID]) != sizeof(int32_t))
		return -EBADMSG;
	*(int *)elem = (int)nla_get_u32(tb[NETNSA_NSID]);
	return 1;
}

int flat_netns_id(struct flat_net *net, int netns_fd, int *ret_nsid, struct flat_err *err)
{
	const struct rtgenmsg header = { .rtgen_family = AF_UNSPEC };
	int nsid;
	flat_auto_builder b;
	flat_nl_begin(&b, RTM_GETNSID, 0, &header, sizeof header);
	flat_nl_put_u32(&b, NETNSA_FD, (uint32_t)netns_fd);
	int r = flat_nl_ask(net, flat_nl_message(&b), 0, parse_id, &nsid, NULL, err,
			    "look up the number of a network namespace");
	if (r <= 0)
		return r;
	if (nsid < 0) /* NETNSA_NSID_NOT_ASSIGNED */
		return 0;
	*ret_nsid = nsid;
	return 1;
}
