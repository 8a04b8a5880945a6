// SPDX-License-Identifier: Apache-2.0
#include "scene.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *look(const char *fmt, ...)
{
	static char out[64 << 10];
	char command[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(command, sizeof command, fmt, ap);
	va_end(ap);
	strncat(command, " 2>&1", sizeof command - strlen(command) - 1);
	FILE *f = popen(command, "re");
	assert_non_null(f);
	size_t n = fread(out, 1, sizeof out - 1, f);
	out[n] = '\0';
	pclose(f);
	return out;
}

void has_text(const char *text, const char *part, int line)
{
	if (!strstr(text, part)) {
		print_error("line %d: '%s' is not in:\n%s\n", line, part, text);
		fail();
	}
}

void lacks_text(const char *text, const char *part, int line)
{
	if (strstr(text, part)) {
		print_error("line %d: '%s' is in:\n%s\n", line, part, text);
		fail();
	}
}

void is_ok(const struct scene *s, int r, int line)
{
	if (r < 0) {
		print_error("line %d: %s (%s)\n", line, s->err.msg, s->err.details);
		fail();
	}
}

size_t count_text(const char *text, const char *part)
{
	size_t n = 0;
	for (; (text = strstr(text, part)); text += strlen(part))
		n++;
	return n;
}

static int open_own(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

int setup(void **state)
{
	struct scene *s = calloc(1, sizeof *s);
	if (!s)
		return -1;
	s->home = open_own();
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	s->pod = open_own();
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	s->node = open_own();
	*state = s;
	look("ip link set lo up");
	return flat_net_open(&s->net, &s->err) < 0 ? -1 : 0;
}

int teardown(void **state)
{
	struct scene *s = *state;
	flat_net_close(s->net);
	int r = setns(s->home, CLONE_NEWNET);
	close(s->home);
	close(s->pod);
	close(s->node);
	free(s);
	return r;
}

struct flat_prefix prefix(const char *text)
{
	struct flat_prefix p = { 0 };
	assert_true(flat_prefix_parse(text, &p));
	return p;
}

struct flat_ip ip(const char *text)
{
	struct flat_ip a = { 0 };
	assert_true(flat_ip_parse(text, &a));
	return a;
}

int index_of(struct scene *s, const char *name)
{
	struct flat_link link;
	assert_int_equal(flat_link_by_name(s->net, name, &link, &s->err), 1);
	return link.index;
}
