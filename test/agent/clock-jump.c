// SPDX-License-Identifier: Apache-2.0
/*
 * Preloaded into a process, it moves the wall clock by as many seconds as the file CLOCK_JUMP says
 * at that moment; the steady clocks go on as they are. It allocates nothing and looks nothing up: a
 * sanitizer asks for the time before it can serve either. (libfaketime does both; whether the two
 * come to a deadlock depends on which sizes were allocated before.)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t jump(void)
{
	const char *path = getenv("CLOCK_JUMP");
	char text[24] = "";
	const int was = errno;
	const long fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		if (syscall(SYS_read, fd, text, sizeof text - 1) < 0)
			text[0] = '\0';
		syscall(SYS_close, fd);
	}
	const time_t seconds = strtol(text, NULL, 10);
	errno = was;
	return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *ret_now)
{
	if (syscall(SYS_clock_gettime, clock, ret_now) < 0)
		return -1;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		ret_now->tv_sec += jump();
	return 0;
}

time_t time(time_t *ret_now)
{
	struct timespec now = { 0 };
	clock_gettime(CLOCK_REALTIME, &now);
	if (ret_now)
		*ret_now = now.tv_sec;
	return now.tv_sec;
}

int gettimeofday(struct timeval *restrict ret_now, void *restrict zone)
{
	struct timespec now = { 0 };
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	ret_now->tv_sec = now.tv_sec;
	ret_now->tv_usec = now.tv_nsec / 1000;
	return 0;
}
