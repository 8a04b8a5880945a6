// SPDX-License-Identifier: Apache-2.0
/*
 * spawnbench - time a CNI plugin as a runtime runs it, or two of them side by side.
 *
 *	cc -std=gnu11 -D_GNU_SOURCE -O2 -static -o spawnbench spawnbench.c     (meson does it, too)
 *	unshare -n -m ./spawnbench -a SIDE [-b SIDE] [--floor] [options]
 *
 *	-a, -b    PLUGIN,CONF,CNI_PATH: a plugin (a path, or a name looked up in CNI_PATH), the
 *	          template of its configuration and its CNI_PATH. With both, side A and side B
 *	          take turns, attachment by attachment. A chain is PLUGIN+PLUGIN...,CONF+CONF...:
 *	          ADD and CHECK run its plugins in this order, DEL the other way round, each with
 *	          the result of the one before, as libcni does, until one fails.
 *	--floor   a third side, F: the least netlink that makes the same attachment, done here
 *	-n N      attachments that count, on each side (100); with -w at most 1000
 *	-w W      attachments before them that do not count (3): the first one makes the bridge
 *	-j J      workers (1). With more than one a turn is a batch of 8*J attachments, so that the
 *	          figures per second mean something; the times are then those of calls that compete.
 *	-i IF     CNI_IFNAME (eth0)
 *	-S DIR    keep /var/lib/cni in DIR/A and DIR/B (to time a real disk) instead of a tmpfs
 *	-t DIR    one more folder of plugin state to hide under a tmpfs (it must exist; up to 8)
 *	-C        no CHECK
 *	-o FILE   every sample as CSV
 *
 * CONF is one plugin's configuration (not a list). In it @ID@ becomes the container ID, @N@ the
 * number of the attachment and @PORT@ 20000 + that number. For CHECK and DEL the result of ADD goes
 * in as prevResult.
 *
 * Order of the run: ADD of all attachments, CHECK of all, DEL of all; in each phase A, B and F take
 * turns, so that a machine that grows slower or faster does so for all sides alike, in an order
 *that changes from turn to turn: a DEL waits for RCU grace periods in the kernel, and how long
 *depends on who was there just before. The ratio B/A of the medians has a 95 % interval from 4000
 *bootstrap samples of the attachments (pairs stay together).
 *
 * What is timed: from just before posix_spawn to the return of wait4, that is exec, the plugin,
 * what the plugin executes, and exit; of a chain, from the first to the last. Not timed: making the
 *pod namespaces, the pipes and the text for stdin. CPU is user + system time of the plugin and of
 *the children it waited for.
 *
 * Peak memory: at exec the kernel takes the high-water mark of the memory that the process had
 * until then into ru_maxrss, and a child of posix_spawn has its parent's memory until then. So no
 * child can show less than this program's own mark. It is therefore kept small (link it -static),
 * and the report names the floor: what a child that does nothing shows here. A plugin at the floor
 * may be smaller than it.
 *
 * Every side has a network namespace of its own as its node, a mount namespace with /sys of that
 * node and /var/lib/cni of its own, and pods under /run/netns, made beforehand. All of it ends with
 * the processes. The program does nothing in the namespaces of PID 1: it must be started under
 * unshare -n -m.
 *
 * Exit status: 0 every call succeeded, 1 some failed, 2 it could not run.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	ADD,
	CHECK,
	DEL,
	NOPS,
	NOTHING = NOPS
}; /* NOTHING: a child that does nothing, for comparison */
static const char *const opname[NOPS] = { "ADD", "CHECK", "DEL" };
enum {
	MAXPODS = 1000,
	MAXJ = 64,
	TEXT = 60000,
	TIMEOUT_MS = 120000,
	BOOT = 4000,
	MAXLINKS = 8,
	NSIDES = 3,
	NNOTHING = 41
};

struct sample {
	uint64_t wall_ns;
	uint32_t cpu_us, rss_kb;
	int32_t status;
}; /* status: exit code, 128 + signal */

struct side {
	const char *name, *path;
	struct {
		const char *plugin, *conf;
	} link[MAXLINKS];
	int links;	       /* of the chain; the floor has none */
	int go[MAXJ], done;    /* pipes to the workers, and from all of them */
	double block_ns[NOPS]; /* wall time of the counted batches */
};

struct shared { /* one mapping for all processes: what the workers report */
	atomic_int next[NSIDES], shown;
	struct sample s[NSIDES][NOPS][MAXPODS], nothing[NNOTHING];
};

struct order {
	int op, last;
}; /* to a worker: take attachments until last */

static struct side side[NSIDES];
static int nsides, N = 100, W = 3, J = 1, docheck = 1, nhide;
static const char *ifname = "eth0", *statedir, *rawfile, *hide[8];
static struct shared *sh;
static volatile sig_atomic_t stop;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fputs("spawnbench: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	exit(2);
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t cpu_us(const struct rusage *r)
{
	return (uint32_t)((r->ru_utime.tv_sec + r->ru_stime.tv_sec) * 1000000 +
			  r->ru_utime.tv_usec + r->ru_stime.tv_usec);
}

/* ---- one call of a plugin ----------------------------------------------------------------------
 */

/* The text of a file into buf, without stdio and malloc: both would add to this program's memory.
 */
static size_t slurp(const char *file, char *buf)
{
	size_t n = 0;
	ssize_t r;
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (n < TEXT - 1 && (r = read(fd, buf + n, TEXT - 1 - n)) > 0)
		n += (size_t)r;
	close(fd);
	buf[n] = 0;
	return n;
}

static void append(char *dst, size_t *n, const char *src, size_t len)
{
	if (*n + len >= TEXT)
		die("the configuration with prevResult is longer than %d bytes", TEXT);
	memcpy(dst + *n, src, len);
	*n += len;
	dst[*n] = 0;
}

/* The plugin's stdin: the template with its placeholders filled in and, where there is one, the
 * result of ADD. */
static size_t configuration(const char *tmpl, const char *prev, const char *id, int pod, char *out)
{
	size_t n = 0;
	char num[16], port[16];
	snprintf(num, sizeof num, "%d", pod);
	snprintf(port, sizeof port, "%d", 20000 + pod);
	const struct {
		const char *mark, *text;
	} ph[] = { { "@ID@", id }, { "@N@", num }, { "@PORT@", port } };
	const char *end = prev[0] ? strrchr(tmpl, '}') : NULL;
	for (const char *p = tmpl; *p;) {
		if (p == end) {
			append(out, &n, ",\"prevResult\":", 14);
			append(out, &n, prev, strlen(prev));
		}
		size_t skip = 0;
		for (size_t k = 0; k < sizeof ph / sizeof *ph && !skip; k++)
			if (!strncmp(p, ph[k].mark, strlen(ph[k].mark))) {
				append(out, &n, ph[k].text, strlen(ph[k].text));
				skip = strlen(ph[k].mark);
			}
		if (!skip)
			append(out, &n, p, skip = 1);
		p += skip;
	}
	return n;
}

/* Run argv, in on its stdin, what it says into out, and time that. */
static void spawn(char *const argv[], char *const envp[], const char *in, size_t inlen, char *out,
		  struct sample *s)
{
	int pi[2], po[2], st = 0, e;
	pid_t pid;
	struct rusage ru;
	posix_spawn_file_actions_t fa;
	if (pipe2(pi, O_CLOEXEC) || pipe2(po, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	if (inlen && write(pi[1], in, inlen) != (ssize_t)inlen)
		die("pipe: short write"); /* it fits: TEXT is below 64 KiB */
	close(pi[1]);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, pi[0], 0);
	posix_spawn_file_actions_adddup2(&fa, po[1], 1);

	uint64_t t0 = now();
	if ((e = posix_spawn(&pid, argv[0], &fa, NULL, argv, envp)))
		die("%s: %s", argv[0], strerror(e));
	close(pi[0]);
	close(po[1]);
	size_t n = 0;
	ssize_t r = 0;
	struct pollfd pf = { .fd = po[0], .events = POLLIN };
	for (;;) {
		if (poll(&pf, 1, TIMEOUT_MS) == 0) {
			kill(pid, SIGKILL);
			break;
		}
		char *at = n < TEXT - 1 ? out + n : out; /* too long: read on, over the old text */
		r = read(po[0], at, n < TEXT - 1 ? TEXT - 1 - n : TEXT - 1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		if (n < TEXT - 1)
			n += (size_t)r;
	}
	while (wait4(pid, &st, 0, &ru) < 0)
		if (errno != EINTR)
			die("wait4: %s", strerror(errno));
	uint64_t t1 = now();

	out[n] = 0;
	close(po[0]);
	posix_spawn_file_actions_destroy(&fa);
	s->wall_ns = t1 - t0;
	s->cpu_us = cpu_us(&ru);
	s->rss_kb = (uint32_t)ru.ru_maxrss;
	s->status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

/* One CNI operation on attachment pod, by all plugins of the side. The result of ADD is kept in a
 * file on the side's tmpfs, not in memory. */
static void plugin_op(struct side *sd, int op, int pod, struct sample *s)
{
	static char tmpl[TEXT], in[TEXT], out[TEXT];
	char id[32], res[64], e_cmd[32], e_id[64], e_ns[96], e_if[64], e_path[PATH_MAX],
		e_args[192];
	snprintf(id, sizeof id, "spawnbench-%06d", pod);
	snprintf(res, sizeof res, "/run/netns/result-%d", pod);
	snprintf(e_cmd, sizeof e_cmd, "CNI_COMMAND=%s", opname[op]);
	snprintf(e_id, sizeof e_id, "CNI_CONTAINERID=%s", id);
	snprintf(e_ns, sizeof e_ns, "CNI_NETNS=/run/netns/pod-%d", pod);
	snprintf(e_if, sizeof e_if, "CNI_IFNAME=%s", ifname);
	snprintf(e_path, sizeof e_path, "CNI_PATH=%s", sd->path);
	snprintf(
		e_args, sizeof e_args,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod-%d;K8S_POD_INFRA_CONTAINER_ID=%s",
		pod, id);
	char *envp[] = {
		e_cmd,
		e_id,
		e_ns,
		e_if,
		e_path,
		e_args,
		(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		NULL
	};

	out[0] = 0;
	if (op != ADD)
		slurp(res, out);
	if (op == CHECK && !out[0]) {
		*s = (struct sample){ .status = 255 };
		return;
	} /* its ADD failed */
	static char prev[TEXT];
	memcpy(prev, out, strlen(out) + 1);
	*s = (struct sample){ 0 };
	uint64_t t0 = now();
	for (int i = 0; i < sd->links && !s->status; i++) {
		const int k = op == DEL ? sd->links - 1 - i : i;
		char *argv[] = { (char *)sd->link[k].plugin, NULL };
		struct sample one;
		slurp(sd->link[k].conf, tmpl);
		size_t n = configuration(tmpl, op == ADD ? out : prev, id, pod, in);
		spawn(argv, envp, in, n, out, &one);
		s->cpu_us += one.cpu_us;
		s->rss_kb = one.rss_kb > s->rss_kb ? one.rss_kb : s->rss_kb;
		s->wall_ns = sd->links == 1 ? one.wall_ns : now() - t0;
		s->status = one.status;
		if (s->status && atomic_fetch_add(&sh->shown, 1) < 3)
			fprintf(stderr, "spawnbench: %s %s of attachment %d: %s: status %d: %s\n",
				sd->name, opname[op], pod, argv[0], s->status, out);
	}
	if (op == ADD && !s->status) {
		int fd = open(res, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0 || write(fd, out, strlen(out)) < 0)
			die("%s: %s", res, strerror(errno));
		close(fd);
	}
}

/* ---- the floor: the same attachment with the least netlink
 * --------------------------------------- */

struct nl {
	_Alignas(NLMSG_ALIGNTO) char b[1024];
	size_t len;
	struct nlmsghdr *h;
	int acks;
};

static void nl_begin(struct nl *m, uint16_t type, uint16_t flags, const void *hdr, size_t hlen)
{
	m->h = (struct nlmsghdr *)(void *)(m->b + m->len);
	memset(m->h, 0, NLMSG_SPACE(hlen));
	*m->h = (struct nlmsghdr){ .nlmsg_type = type,
				   .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags),
				   .nlmsg_len = (uint32_t)NLMSG_LENGTH(hlen) };
	memcpy(NLMSG_DATA(m->h), hdr, hlen);
}

static struct rtattr *nl_attr(struct nl *m, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = (struct rtattr *)(void *)((char *)m->h + NLMSG_ALIGN(m->h->nlmsg_len));
	*a = (struct rtattr){ .rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(len) };
	if (len)
		memcpy(RTA_DATA(a), data, len);
	m->h->nlmsg_len = (uint32_t)(NLMSG_ALIGN(m->h->nlmsg_len) + RTA_ALIGN(a->rta_len));
	return a;
}

static void nl_nest_end(struct nl *m, struct rtattr *a)
{
	a->rta_len = (uint16_t)((char *)m->h + m->h->nlmsg_len - (char *)a);
}
static void nl_end(struct nl *m)
{
	m->len += NLMSG_ALIGN(m->h->nlmsg_len);
	m->acks++;
}

/* Send the batch on a socket of the current network namespace; 0, or the first error as a positive
 * errno. */
static int nl_talk(struct nl *m)
{
	_Alignas(NLMSG_ALIGNTO) char r[8192];
	int err = 0, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0 || send(fd, m->b, m->len, 0) < 0) {
		err = errno;
		m->acks = 0;
	}
	while (m->acks > 0) {
		ssize_t got = recv(fd, r, sizeof r, 0);
		if (got < 0) {
			err = errno;
			break;
		}
		size_t l = (size_t)got;
		for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)r; NLMSG_OK(h, l);
		     h = NLMSG_NEXT(h, l))
			if (h->nlmsg_type == NLMSG_ERROR) {
				int e = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
				if (e && !err)
					err = e;
				m->acks--;
			}
	}
	if (fd >= 0)
		close(fd);
	m->len = 0;
	m->acks = 0;
	return err;
}

static int link_up(const char *name)
{
	struct nl m = { .len = 0 };
	struct ifinfomsg li = { .ifi_index = (int)if_nametoindex(name),
				.ifi_flags = IFF_UP,
				.ifi_change = IFF_UP };
	nl_begin(&m, RTM_NEWLINK, 0, &li, sizeof li);
	nl_end(&m);
	return nl_talk(&m);
}

static void add_address(struct nl *m, int index, uint32_t addr)
{
	struct ifaddrmsg am = { .ifa_family = AF_INET,
				.ifa_prefixlen = 16,
				.ifa_index = (uint32_t)index };
	uint32_t a = htonl(addr), bc = htonl(addr | 0xffff);
	nl_begin(m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &am, sizeof am);
	nl_attr(m, IFA_LOCAL, &a, 4);
	nl_attr(m, IFA_ADDRESS, &a, 4);
	nl_attr(m, IFA_BROADCAST, &bc, 4);
	nl_end(m);
}

enum { FLOOR_NET = 0x0af40000 }; /* 10.244.0.0/16, in namespaces of its own */
static int floor_node = -1, floor_bridge;

/* The node of the floor: a bridge with the gateway's address. */
static int floor_setup(void)
{
	struct nl m = { .len = 0 };
	struct ifinfomsg li = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	int e;
	nl_begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &li, sizeof li);
	nl_attr(&m, IFLA_IFNAME, "floor0", 7);
	struct rtattr *info = nl_attr(&m, IFLA_LINKINFO, NULL, 0);
	nl_attr(&m, IFLA_INFO_KIND, "bridge", 6);
	nl_nest_end(&m, info);
	nl_end(&m);
	if ((e = nl_talk(&m)))
		return e;
	floor_bridge = (int)if_nametoindex("floor0");
	add_address(&m, floor_bridge, FLOOR_NET + 1);
	if ((e = nl_talk(&m)))
		return e;
	floor_node = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return floor_node < 0 ? errno : 0;
}

static int floor_add(int pod)
{
	struct nl m = { .len = 0 };
	char name[IFNAMSIZ], path[64];
	uint32_t mtu = 1500, gw = htonl(FLOOR_NET + 1);
	int e;
	snprintf(path, sizeof path, "/run/netns/pod-%d", pod);
	snprintf(name, sizeof name, "veth%08x", (unsigned)pod);
	int ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0)
		return errno;

	/* 1. in the node: the pair, its host end up and a port of the bridge, its other end born in
	 * the pod */
	struct ifinfomsg li = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP }, pl = { 0 };
	nl_begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &li, sizeof li);
	nl_attr(&m, IFLA_IFNAME, name, strlen(name) + 1);
	nl_attr(&m, IFLA_MTU, &mtu, 4);
	nl_attr(&m, IFLA_MASTER, &floor_bridge, 4);
	struct rtattr *info = nl_attr(&m, IFLA_LINKINFO, NULL, 0);
	nl_attr(&m, IFLA_INFO_KIND, "veth", 4);
	struct rtattr *data = nl_attr(&m, IFLA_INFO_DATA, NULL, 0);
	struct rtattr *peer = nl_attr(&m, VETH_INFO_PEER, &pl, sizeof pl);
	nl_attr(&m, IFLA_IFNAME, ifname, strlen(ifname) + 1);
	nl_attr(&m, IFLA_MTU, &mtu, 4);
	nl_attr(&m, IFLA_NET_NS_FD, &ns, 4);
	nl_nest_end(&m, peer);
	nl_nest_end(&m, data);
	nl_nest_end(&m, info);
	nl_end(&m);
	if ((e = nl_talk(&m))) {
		close(ns);
		return e;
	}

	/* 2. in the pod: link up, address, default route, in one send */
	if (setns(ns, CLONE_NEWNET)) {
		e = errno;
		close(ns);
		return e;
	}
	li.ifi_index = (int)if_nametoindex(ifname);
	nl_begin(&m, RTM_NEWLINK, 0, &li, sizeof li);
	nl_end(&m);
	add_address(&m, li.ifi_index, FLOOR_NET + 2 + (uint32_t)pod);
	struct rtmsg rm = { .rtm_family = AF_INET,
			    .rtm_table = RT_TABLE_MAIN,
			    .rtm_protocol = RTPROT_BOOT,
			    .rtm_scope = RT_SCOPE_UNIVERSE,
			    .rtm_type = RTN_UNICAST };
	nl_begin(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &rm, sizeof rm);
	nl_attr(&m, RTA_GATEWAY, &gw, 4);
	nl_end(&m);
	e = nl_talk(&m);
	if (setns(floor_node, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
	close(ns);
	return e;
}

static int floor_del(int pod)
{
	struct nl m = { .len = 0 };
	struct ifinfomsg li = { 0 };
	char name[IFNAMSIZ];
	snprintf(name, sizeof name, "veth%08x", (unsigned)pod);
	nl_begin(&m, RTM_DELLINK, 0, &li, sizeof li);
	nl_attr(&m, IFLA_IFNAME, name, strlen(name) + 1);
	nl_end(&m);
	return nl_talk(&m);
}

static void floor_op(int op, int pod, struct sample *s)
{
	struct rusage r0, r1;
	getrusage(RUSAGE_SELF, &r0);
	uint64_t t0 = now();
	int e = op == ADD ? floor_add(pod) : floor_del(pod);
	s->wall_ns = now() - t0;
	getrusage(RUSAGE_SELF, &r1);
	s->cpu_us = cpu_us(&r1) - cpu_us(&r0);
	s->rss_kb = (uint32_t)r1.ru_maxrss;
	s->status = e;
	if (e && atomic_fetch_add(&sh->shown, 1) < 3)
		fprintf(stderr, "spawnbench: floor, %s of attachment %d: %s\n", opname[op], pod,
			strerror(e));
}

/* ---- processes
 * ----------------------------------------------------------------------------------- */

static void nothing(struct sample *s)
{
	static char out[TEXT];
	char *argv[] = { (char *)"/proc/self/exe", (char *)"--nothing", NULL }, *envp[] = { NULL };
	spawn(argv, envp, "", 0, out, s);
}

/* Each side is a keeper, which makes its namespaces and waits, and J workers inside them. */

static void worker(int k, int go, int done)
{
	struct order o;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (write(done, "", 1) != 1)
		_exit(2); /* ready */
	while (read(go, &o, sizeof o) == (ssize_t)sizeof o) {
		for (int i; (i = atomic_fetch_add(&sh->next[k], 1)) < o.last;) {
			struct sample *s = o.op == NOTHING ? &sh->nothing[i] : &sh->s[k][o.op][i];
			if (o.op == NOTHING)
				nothing(s);
			else if (side[k].links)
				plugin_op(&side[k], o.op, i, s);
			else
				floor_op(o.op, i, s);
		}
		if (write(done, "", 1) != 1)
			_exit(2);
	}
	_exit(0);
}

static void cover(const char *dir, const char *from)
{
	if (from ? mount(from, dir, NULL, MS_BIND, NULL)
		 : mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"))
		die("mount on %s: %s", dir, strerror(errno));
}

static void keeper(int k, int go[][2], int done)
{
	char path[PATH_MAX];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNET | CLONE_NEWNS))
		die("unshare: %s", strerror(errno));
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("mount: %s", strerror(errno));
	if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  NULL)) /* that of the new node */
		fprintf(stderr, "spawnbench: note: /sys is not the node's: %s\n", strerror(errno));
	cover("/run/netns", NULL);
	for (int i = 0; i < nhide; i++)
		cover(hide[i], NULL);
	if (statedir && side[k].links) {
		snprintf(path, sizeof path, "%s/%s", statedir, side[k].name);
		if (mkdir(path, 0755) && errno != EEXIST)
			die("%s: %s", path, strerror(errno));
		cover("/var/lib/cni", path);
	} else
		cover("/var/lib/cni", NULL);
	int e = link_up("lo");
	if (e)
		die("lo up: %s", strerror(e));
	if (!side[k].links && (e = floor_setup()))
		die("floor: bridge: %s", strerror(e));

	/* the pods: network namespaces held by a bind mount, as a runtime's are */
	int node = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (node < 0)
		die("/proc/self/ns/net: %s", strerror(errno));
	for (int i = 0; i < W + N; i++) {
		snprintf(path, sizeof path, "/run/netns/pod-%d", i);
		int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);
		if (fd < 0 || unshare(CLONE_NEWNET) ||
		    mount("/proc/self/ns/net", path, "none", MS_BIND, NULL))
			die("pod %d: %s", i, strerror(errno));
		close(fd);
	}
	if (setns(node, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
	close(node);

	for (int j = 0; j < J; j++) {
		pid_t p = fork();
		if (p < 0)
			die("fork: %s", strerror(errno));
		if (!p)
			worker(k, go[j][0], done);
	}
	for (int j = 0; j < J; j++) {
		close(go[j][0]);
		close(go[j][1]);
	}
	close(done);
	for (int st; wait(&st) > 0;)
		if (st)
			_exit(2); /* the others go by PDEATHSIG */
	_exit(0);
}

static void await_workers(struct side *sd)
{
	char c;
	for (int j = 0; j < J; j++) {
		ssize_t r;
		while ((r = read(sd->done, &c, 1)) < 0 && errno == EINTR && !stop)
			;
		if (r != 1)
			die(stop ? "interrupted" : "side %s has ended early", sd->name);
	}
}

static void start_side(int k)
{
	int go[MAXJ][2], done[2];
	if (pipe2(done, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	for (int j = 0; j < J; j++) {
		if (pipe2(go[j], O_CLOEXEC))
			die("pipe: %s", strerror(errno));
		side[k].go[j] = go[j][1];
	}
	pid_t p = fork();
	if (p < 0)
		die("fork: %s", strerror(errno));
	if (!p) {
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		keeper(k, go, done[1]);
	}
	for (int j = 0; j < J; j++)
		close(go[j][0]);
	close(done[1]);
	side[k].done = done[0];
	await_workers(&side[k]);
}

/* Attachments first to last-1 of one side; adds up the time when they count. */
static void batch(int k, int op, int first, int last)
{
	struct order o = { op, last };
	atomic_store(&sh->next[k], first);
	uint64_t t0 = now();
	for (int j = 0; j < J; j++)
		if (write(side[k].go[j], &o, sizeof o) != (ssize_t)sizeof o)
			die("side %s has ended early", side[k].name);
	await_workers(&side[k]);
	if (first >= W && op < NOPS)
		side[k].block_ns[op] += (double)(now() - t0);
}

/* ---- the report
 * ---------------------------------------------------------------------------------- */

static int cmp(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}
static double quantile(const double *v, int n, double q)
{
	return v[(int)(q * (n - 1) + 0.5)];
}
static double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof *v, cmp);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static int report_side(int k, int op)
{
	static double wall[MAXPODS], cpu[MAXPODS];
	int n = 0, failed = 0;
	uint32_t rss = 0;
	for (int i = W; i < W + N; i++) {
		const struct sample *s = &sh->s[k][op][i];
		if (s->status) {
			failed++;
			continue;
		}
		wall[n] = (double)s->wall_ns / 1e6;
		cpu[n++] = s->cpu_us / 1e3;
		if (s->rss_kb > rss)
			rss = s->rss_kb;
	}
	printf("%-6s %-4s %5d %6d", opname[op], side[k].name, n, failed);
	if (n) {
		double m = median(wall, n);
		printf(" %8.3f %8.3f %8.3f %8.3f %8.3f", wall[0], m, quantile(wall, n, .95),
		       wall[n - 1], median(cpu, n));
		if (side[k].links)
			printf(" %8u", rss);
		else
			printf(" %8s", "-");
		printf(" %8.1f", N / (side[k].block_ns[op] / 1e9));
	}
	putchar('\n');
	return failed;
}

static void report_ratio(int op)
{
	static double a[MAXPODS], b[MAXPODS], x[MAXPODS], y[MAXPODS], r[BOOT];
	int n = 0;
	for (int i = W; i < W + N; i++) {
		const struct sample *s = &sh->s[0][op][i], *t = &sh->s[1][op][i];
		if (s->status || t->status)
			continue;
		a[n] = (double)s->wall_ns;
		b[n++] = (double)t->wall_ns;
	}
	if (n < 5) {
		printf("%-6s B/A  too few pairs\n", opname[op]);
		return;
	}
	uint64_t g = 0x9e3779b97f4a7c15u; /* xorshift64, always the same: a report can be made again
					     from its samples */
	for (int k = 0; k < BOOT; k++) {
		for (int i = 0; i < n; i++) {
			g ^= g << 13;
			g ^= g >> 7;
			g ^= g << 17;
			int j = (int)((g >> 11) % (uint64_t)n);
			x[i] = a[j];
			y[i] = b[j];
		}
		r[k] = median(y, n) / median(x, n);
	}
	qsort(r, BOOT, sizeof *r, cmp);
	printf("%-6s B/A  %.3f  [%.3f, %.3f]  ratio of medians, 95 %% bootstrap interval, %d pairs\n",
	       opname[op], median(b, n) / median(a, n), quantile(r, BOOT, .025),
	       quantile(r, BOOT, .975), n);
}

static void write_raw(void)
{
	FILE *f = fopen(rawfile, "we");
	if (!f)
		die("%s: %s", rawfile, strerror(errno));
	fprintf(f, "op,side,attachment,counts,wall_us,cpu_us,maxrss_kb,status\n");
	for (int op = 0; op < NOPS; op++)
		for (int i = 0; i < W + N; i++)
			for (int k = 0; k < nsides; k++) {
				const struct sample *s = &sh->s[k][op][i];
				if (op == CHECK && (!docheck || !side[k].links))
					continue;
				fprintf(f, "%s,%s,%d,%d,%.1f,%u,%u,%d\n", opname[op], side[k].name,
					i, i >= W, (double)s->wall_ns / 1e3, s->cpu_us, s->rss_kb,
					s->status);
			}
	if (fclose(f))
		die("%s: %s", rawfile, strerror(errno));
}

/* ---- start
 * --------------------------------------------------------------------------------------- */

static int same_as_pid1(const char *ns)
{
	char p[64];
	struct stat a, b;
	snprintf(p, sizeof p, "/proc/1/ns/%s", ns);
	if (stat(p, &a))
		return 0; /* not for us to see: no telling */
	snprintf(p, sizeof p, "/proc/self/ns/%s", ns);
	if (stat(p, &b))
		return 1;
	return a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static const char *find_plugin(const char *name, const char *path)
{
	char found[PATH_MAX];
	snprintf(found, sizeof found, "%s", name);
	for (const char *p = path; *p && !strchr(name, '/');) {
		size_t l = strcspn(p, ":");
		snprintf(found, sizeof found, "%.*s/%s", (int)l, p, name);
		if (!access(found, X_OK))
			break;
		p += l;
		p += *p == ':';
	}
	if (access(found, X_OK))
		die("plugin %s: not to be executed, or not in %s", name, path);
	return strdup(found);
}

static void parse_side(int k, const char *name, char *arg)
{
	char *conf = strchr(arg, ','), *path = conf ? strchr(conf + 1, ',') : NULL;
	static char buf[TEXT];
	if (!path)
		die("-%c wants PLUGIN,CONF,CNI_PATH", name[0] | 32);
	*conf++ = 0;
	*path++ = 0;
	side[k] = (struct side){ .name = name, .path = path };
	while (arg && conf) {
		char *plugin = strsep(&arg, "+"), *file = strsep(&conf, "+");
		if (side[k].links == MAXLINKS)
			die("-%c: at most %d plugins", name[0] | 32, MAXLINKS);
		size_t n = slurp(file, buf);
		if (!n || n >= TEXT - 1 || !strrchr(buf, '}'))
			die("%s: no configuration of a plugin in it", file);
		side[k].link[side[k].links].plugin = find_plugin(plugin, path);
		side[k].link[side[k].links++].conf = file;
	}
	if (arg || conf)
		die("-%c wants a CONF for each PLUGIN", name[0] | 32);
}

static void on_signal(int n)
{
	stop = n;
}

static int number(const char *s, int min, int max, const char *what)
{
	char *e;
	long v = strtol(s, &e, 10);
	if (*e || e == s || v < min || v > max)
		die("%s must be %d to %d", what, min, max);
	return (int)v;
}

static const char *made[2]; /* folders that had to be made in order to mount on them */
static pid_t self;
static void cleanup(void)
{
	if (getpid() == self)
		for (int i = 0; i < 2; i++)
			if (made[i])
				rmdir(made[i]);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		return 0; /* the child that does nothing */
	static const struct option lo[] = { { "floor", no_argument, NULL, 'F' },
					    { "help", no_argument, NULL, 'h' },
					    { 0 } };
	char *a = NULL, *b = NULL;
	int want_floor = 0, o;
	while ((o = getopt_long(argc, argv, "a:b:n:w:j:i:S:t:Co:h", lo, NULL)) != -1)
		switch (o) {
		case 'a':
			a = optarg;
			break;
		case 'b':
			b = optarg;
			break;
		case 'n':
			N = number(optarg, 1, MAXPODS, "-n");
			break;
		case 'w':
			W = number(optarg, 0, MAXPODS, "-w");
			break;
		case 'j':
			J = number(optarg, 1, MAXJ, "-j");
			break;
		case 'i':
			ifname = optarg;
			break;
		case 'S':
			statedir = optarg;
			break;
		case 't':
			if (nhide == 8)
				die("-t: at most 8");
			hide[nhide++] = optarg;
			break;
		case 'C':
			docheck = 0;
			break;
		case 'o':
			rawfile = optarg;
			break;
		case 'F':
			want_floor = 1;
			break;
		default:
			fprintf(o == 'h' ? stdout : stderr,
				"usage: unshare -n -m spawnbench -a PLUGIN,CONF,CNI_PATH [-b PLUGIN,CONF,CNI_PATH] [--floor]\n"
				"       [-n N] [-w WARMUP] [-j WORKERS] [-i IFNAME] [-S STATEDIR] [-t DIR] [-C] [-o CSV]\n");
			return o == 'h' ? 0 : 2;
		}
	if (optind < argc || (b && !a) || (!a && !want_floor))
		die("want -a, -a and -b, or --floor (see --help)");
	if (N + W > MAXPODS)
		die("-n and -w together: at most %d (a bridge has 1023 ports)", MAXPODS);
	if (strlen(ifname) >= IFNAMSIZ || !*ifname)
		die("-i: not a name of an interface");
	/* Where PID 1's cannot be seen: only the initial network namespace has this file under
	 * /proc/sys/net/core. */
	if (same_as_pid1("net") || same_as_pid1("mnt") ||
	    !access("/proc/sys/net/core/netdev_max_backlog", F_OK))
		die("this is a namespace of the host: start me under unshare -n -m, as root");
	if (a)
		parse_side(nsides++, "A", a);
	if (b)
		parse_side(nsides++, "B", b);
	if (want_floor)
		side[nsides++] = (struct side){ .name = "F" };

	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	self = getpid();
	atexit(cleanup);
	if (!mkdir("/run/netns", 0755))
		made[0] = "/run/netns";
	if (!mkdir("/var/lib/cni", 0755))
		made[1] = "/var/lib/cni";
	struct sigaction sa = { .sa_handler = on_signal };
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);

	double load0[3] = { 0 }, load1[3] = { 0 };
	getloadavg(load0, 3);
	for (int k = 0; k < nsides; k++)
		start_side(k);
	int step = J == 1 ? 1 : 8 * J;
	for (int op = 0; op < NOPS; op++) {
		if (op == CHECK && !docheck)
			continue;
		for (int first = 0, turn = 0; first < W + N; turn++) {
			int last = first < W ? W : first + step < W + N ? first + step : W + N;
			for (int i = 0; i < nsides; i++) {
				/* the other way round every other turn: each follows each alike */
				int k = (turn % 2 ? nsides - 1 - i : i) + turn / 2;
				k %= nsides;
				if (op != CHECK || side[k].links)
					batch(k, op, first, last);
			}
			first = last;
		}
	}
	batch(0, NOTHING, 0, NNOTHING); /* by the workers, whose mark is the floor of maxrss */
	for (int k = 0; k < nsides; k++)
		for (int j = 0; j < J; j++)
			close(side[k].go[j]);
	getloadavg(load1, 3);

	double w[NNOTHING];
	uint32_t rss = 0;
	for (int i = 0; i < NNOTHING; i++) {
		w[i] = (double)sh->nothing[i].wall_ns / 1e6;
		if (sh->nothing[i].rss_kb > rss)
			rss = sh->nothing[i].rss_kb;
	}
	struct utsname u;
	uname(&u);
	printf("kernel %s, %d CPUs, load %.2f before, %.2f after; %d attachments a side after %d, %d worker%s\n",
	       u.release, get_nprocs(), load0[0], load1[0], N, W, J, J > 1 ? "s" : "");
	for (int k = 0; k < nsides; k++) {
		printf("%s =%s", side[k].name,
		       side[k].links ? "" : " netlink in this program (floor)");
		for (int i = 0; i < side[k].links; i++)
			printf(" %s %s", side[k].link[i].plugin, side[k].link[i].conf);
		putchar('\n');
	}
	printf("a child that does nothing: %.3f ms, %u kB (maxrss shows nothing below that)\n\n",
	       median(w, NNOTHING), rss);
	printf("%-6s %-4s %5s %6s %8s %8s %8s %8s %8s %8s %8s\n", "", "side", "ok", "failed",
	       "min ms", "median", "p95", "max", "cpu ms", "rss kB", "per s");
	int bad = 0;
	for (int op = 0; op < NOPS; op++) {
		if (op == CHECK && !docheck)
			continue;
		for (int k = 0; k < nsides; k++)
			if (op != CHECK || side[k].links)
				bad += report_side(k, op);
		if (b)
			report_ratio(op);
	}
	if (rawfile)
		write_raw();
	return bad ? 1 : 0;
}
