// SPDX-License-Identifier: Apache-2.0
/*
 * One bounded run of another program.
 *
 * Its standard input is a memory file that holds the whole text, not a pipe: nothing has to be
 * written while it runs, so there is neither a deadlock with a program that writes before it has
 * read, nor a SIGPIPE from one that does not read at all, and /dev/stdin works.
 *
 * Its end is seen through a pidfd. End of file on its output would not do: a daemon that it leaves
 * behind may hold the pipe open. Without pidfds (before Linux 5.3) we look every few milliseconds.
 */
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	BUSY_TRIES = 20, /* ETXTBSY: somebody is just writing the executable */
	BUSY_WAIT_US = 50000,
	LOOK_EVERY_MS = 10,
	READ_SIZE = 16 << 10,
};

/* Out of the way of 0, 1 and 2, which the child gets filled: ours may have been closed. */
static int raise_fd(int fd)
{
	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	close(fd);
	return higher;
}

static int open_input(const char *text, size_t len, int *ret_fd)
{
	flat_auto_fd fd = raise_fd(memfd_create("flatnet-stdin", MFD_CLOEXEC));
	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < len;) {
		/* the position, which the child shares, stays at the start */
		ssize_t n = pwrite(fd, text + done, len - done, (off_t)done);
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int spawn_once(const struct flat_exec *run, int in, int out, pid_t *ret_pid)
{
	char *argv[] = { (char *)run->file, NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	int r = posix_spawn_file_actions_init(&files);
	if (r)
		return -r;
	r = posix_spawnattr_init(&attributes);
	if (r) {
		posix_spawn_file_actions_destroy(&files);
		return -r;
	}
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE); /* we ignore it; an ignored signal would be inherited */
	if (!(r = posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO)) &&
	    !(r = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO)) &&
	    !(r = posix_spawnattr_setsigmask(&attributes, &none)) &&
	    !(r = posix_spawnattr_setsigdefault(&attributes, &defaults)) &&
	    !(r = posix_spawnattr_setpgroup(&attributes, 0)) &&
	    !(r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP |
								POSIX_SPAWN_SETSIGMASK |
								POSIX_SPAWN_SETSIGDEF)))
		r = posix_spawn(ret_pid, run->file, &files, &attributes, argv, run->env);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	return -r;
}

static int spawn(const struct flat_exec *run, int in, int out, int64_t deadline, pid_t *ret_pid)
{
	for (int i = 1;; i++) {
		int r = spawn_once(run, in, out, ret_pid);
		if (r != -ETXTBSY || i == BUSY_TRIES || flat_now_ms() >= deadline)
			return r;
		flat_sleep_us(BUSY_WAIT_US);
	}
}

/* Reads what is there. 1: more may come, 0: end of file. */
static int read_some(struct flat_exec *run, int fd, size_t *size)
{
	if (*size - run->output_len < READ_SIZE + 1) {
		char *larger = realloc(run->output, *size + 2 * READ_SIZE);
		if (!larger)
			return -ENOMEM;
		run->output = larger;
		*size += 2 * READ_SIZE;
	}
	ssize_t n = read(fd, run->output + run->output_len, READ_SIZE);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : -errno;
	run->output_len += (size_t)n;
	run->output[run->output_len] = '\0';
	if (run->output_len > run->max_output)
		return -EFBIG;
	return n > 0;
}

/* Takes in output until the process has ended and nothing is left of what it wrote. The process is
 * not reaped here: until then nobody else can get its number. */
static int follow(struct flat_exec *run, pid_t pid, int out, int64_t deadline)
{
	flat_auto_fd pidfd = pidfd_open(pid, 0);
	bool open = true, ended = false;
	size_t size = 0;
	for (;;) {
		struct pollfd fds[] = { { .fd = open ? out : -1, .events = POLLIN },
					{ .fd = ended ? -1 : pidfd, .events = POLLIN } };
		int64_t left = deadline - flat_now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		int wait_ms = ended				   ? 0
			      : pidfd >= 0 || left < LOOK_EVERY_MS ? (int)left
								   : LOOK_EVERY_MS;
		if (poll(fds, FLAT_LEN(fds), wait_ms) < 0 && errno != EINTR)
			return -errno;
		if (fds[0].revents) {
			int r = read_some(run, out, &size);
			if (r < 0)
				return r;
			open = r > 0;
		} else if (ended) {
			return 0;
		}
		if (!ended) {
			siginfo_t info = { .si_pid = 0 };
			if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
				return -errno;
			ended = info.si_pid == pid;
		}
	}
}

int flat_exec_run(struct flat_exec *run, struct flat_err *err)
{
	int64_t deadline = flat_now_ms() + run->timeout_ms;
	int ends[2];
	flat_auto_fd in = -1;
	int r = open_input(run->text, run->text_len, &in);
	if (r < 0)
		return flat_fail(err, FLAT_CODE_IO, -r, "keep the configuration for '%s'",
				 run->file);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "make a pipe for '%s'", run->file);
	flat_auto_fd out = raise_fd(ends[0]);
	flat_auto_fd child_out = raise_fd(ends[1]);
	pid_t pid = -1;
	r = out < 0 || child_out < 0 ? -EMFILE : spawn(run, in, child_out, deadline, &pid);
	if (r < 0)
		return flat_fail(err, FLAT_CODE_IO, -r, "start '%s'", run->file);
	flat_close_fd(&child_out);
	fcntl(out, F_SETFL, O_NONBLOCK);
	r = follow(run, pid, out, deadline);
	if (r < 0)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &run->status, 0) < 0 && errno == EINTR)
		;
	if (r == -ETIMEDOUT)
		return flat_fail(err, FLAT_CODE_TRY_LATER, ETIMEDOUT,
				 "'%s' was not done after %d ms and was killed", run->file,
				 run->timeout_ms);
	if (r == -EFBIG)
		return flat_fail(err, FLAT_CODE_DECODE, EFBIG,
				 "'%s' wrote more than the %zu bytes allowed and was killed",
				 run->file, run->max_output);
	if (r < 0)
		return flat_fail(err, FLAT_CODE_IO, -r, "read from '%s'", run->file);
	return 0;
}
