// SPDX-License-Identifier: Apache-2.0
#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child writes: less than PIPE_BUF, so it comes whole. */
struct answer {
	char why[160];
	uint32_t count;
	struct flat_ip ips[FLAT_RESOLVE_MAX];
};
_Static_assert(sizeof(struct answer) <= PIPE_BUF, "an answer is written at once");

struct flat_resolve {
	struct ev_loop *loop;
	ev_io io;
	ev_timer timer;
	int fd;
	flat_resolve_done *done;
	void *arg;
};

static void ask(const char *host, struct answer *answer)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	int r = getaddrinfo(host, NULL, &hints, &list);
	if (r) {
		strncpy(answer->why, r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r),
			sizeof answer->why - 1);
		return;
	}
	for (struct addrinfo *a = list; a && answer->count < FLAT_RESOLVE_MAX; a = a->ai_next) {
		struct flat_ip ip = { .family = (uint8_t)a->ai_family };
		if (a->ai_family == AF_INET)
			memcpy(ip.bytes, &((struct sockaddr_in *)(void *)a->ai_addr)->sin_addr, 4);
		else if (a->ai_family == AF_INET6)
			memcpy(ip.bytes, &((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_addr,
			       16);
		else
			continue;
		answer->ips[answer->count++] = ip;
	}
	if (!answer->count)
		strncpy(answer->why, "it has no address", sizeof answer->why - 1);
}

/* Nothing of the agent's may live on here: not its sockets, not its lock, not its signals. */
_Noreturn static void be_child(int out, const char *host, unsigned seconds)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGALRM, SIGPIPE };
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		signal(signals[i], SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (out != STDERR_FILENO + 1 && dup2(out, STDERR_FILENO + 1) < 0)
		_exit(1);
	close_range(STDERR_FILENO + 2, ~0U, 0);
	alarm(seconds);
	struct answer answer = { 0 };
	ask(host, &answer);
	_exit(write(STDERR_FILENO + 1, &answer, sizeof answer) == sizeof answer ? 0 : 1);
}

/* Twice: nobody waits for the second, and no zombie is left when the answer is not wanted. */
static int fork_twice(int out, const char *host, unsigned seconds)
{
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		pid = fork();
		if (pid)
			_exit(pid < 0 ? 1 : 0);
		be_child(out, host, seconds);
	}
	int status = 0;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return 0; /* somebody else took it; the pipe will tell */
	}
	return status ? -EAGAIN : 0;
}

static void finish(struct flat_resolve *resolve, const struct flat_ip *ips, size_t count,
		   const char *why)
{
	flat_resolve_done *done = resolve->done;
	void *arg = resolve->arg;
	flat_resolve_cancel(resolve);
	done(arg, ips, count, why);
}

static void on_readable(struct ev_loop *loop, ev_io *io, int events)
{
	(void)loop;
	(void)events;
	struct flat_resolve *resolve = io->data;
	struct answer answer;
	ssize_t n = read(resolve->fd, &answer, sizeof answer);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof answer || answer.count > FLAT_RESOLVE_MAX) {
		finish(resolve, NULL, 0, "no answer");
		return;
	}
	answer.why[sizeof answer.why - 1] = '\0';
	finish(resolve, answer.ips, answer.count, answer.why);
}

static void on_timeout(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	finish(timer->data, NULL, 0, "no answer from DNS in time");
}

int flat_resolve_start(struct ev_loop *loop, const char *host, unsigned seconds,
		       flat_resolve_done *done, void *arg, struct flat_resolve **ret_resolve,
		       struct flat_err *err)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "look up '%s'", host);
	flat_auto_fd in = fds[0], out = fds[1];
	fcntl(in, F_SETFL, O_NONBLOCK);
	struct flat_resolve *resolve = calloc(1, sizeof *resolve);
	if (!resolve)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "look up '%s'", host);
	int r = fork_twice(out, host, seconds);
	if (r < 0) {
		free(resolve);
		return flat_fail(err, FLAT_CODE_IO, -r, "look up '%s'", host);
	}
	*resolve = (struct flat_resolve){ .loop = loop, .fd = in, .done = done, .arg = arg };
	in = -1;
	ev_io_init(&resolve->io, on_readable, resolve->fd, EV_READ);
	ev_timer_init(&resolve->timer, on_timeout, seconds, 0.);
	resolve->io.data = resolve->timer.data = resolve;
	ev_io_start(loop, &resolve->io);
	ev_timer_start(loop, &resolve->timer);
	*ret_resolve = resolve;
	return 0;
}

void flat_resolve_cancel(struct flat_resolve *resolve)
{
	if (!resolve)
		return;
	ev_io_stop(resolve->loop, &resolve->io);
	ev_timer_stop(resolve->loop, &resolve->timer);
	close(resolve->fd);
	free(resolve);
}
