// SPDX-License-Identifier: Apache-2.0
/*
 * The plugins tell their version on standard error when they are started without CNI_COMMAND. They
 * are started with an empty environment: nothing that this process was given may look to them like
 * a call.
 */
#include "versions.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 2000 };

static int start(const char *file, int out, pid_t *ret_pid)
{
	char *argv[] = { (char *)file, NULL }, *env[] = { NULL };
	posix_spawn_file_actions_t files;
	int r = posix_spawn_file_actions_init(&files);
	if (r)
		return -r;
	if (!(r = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY,
						   0)) &&
	    !(r = posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY,
						   0)) &&
	    !(r = posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO)))
		r = posix_spawn(ret_pid, file, &files, NULL, argv, env);
	posix_spawn_file_actions_destroy(&files);
	return -r;
}

/* What it says first, until it ends or the time is over. */
static size_t listen_to(int fd, char *buf, size_t size)
{
	const int64_t deadline = flat_now_ms() + WAIT_MS;
	size_t len = 0;
	while (len + 1 < size) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		const int64_t left = deadline - flat_now_ms();
		if (left <= 0 || (poll(&p, 1, (int)left) <= 0 && errno != EINTR))
			break;
		const ssize_t n = read(fd, buf + len, size - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	return len;
}

const char *flat_version_of(struct flat_ctl *ctl, const char *file, const char **ret_why)
{
	const char *name = strrchr(file, '/'), *ignored;
	int ends[2];
	char text[256];
	pid_t pid = -1;
	if (!ret_why)
		ret_why = &ignored;
	if (pipe2(ends, O_CLOEXEC) < 0) {
		*ret_why = "no pipe for its output";
		return NULL;
	}
	flat_auto_fd in = ends[0], out = ends[1];
	int r = start(file, out, &pid);
	flat_close_fd(&out);
	if (r < 0) {
		*ret_why = r == -ENOENT ? "not installed"
					: flat_format(&ctl->report, "%s", strerror(-r));
		return NULL;
	}
	listen_to(in, text, sizeof text);
	kill(pid, SIGKILL); /* it is done, or it will not be */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	name = name ? name + 1 : file;
	const size_t len = strlen(name);
	if (strncmp(text, name, len) != 0 || text[len] != ' ') {
		*ret_why = "not of flatnet: it does not tell its version";
		return NULL;
	}
	return flat_format(&ctl->report, "%.*s", (int)strcspn(text + len + 1, ": \n"),
			   text + len + 1);
}
