// SPDX-License-Identifier: Apache-2.0
/*
 * Source `file`: a list of nodes that somebody keeps on this host's disk.
 *
 * The folder is watched, not the file: editors and configuration tools replace it. A change is read
 * when it has been quiet for a moment. What inotify does not see (a symbolic link into another
 * folder, a folder that is not there yet or was replaced above, no watches left on this host) a
 * slow look at the file's stat finds.
 *
 * A file that cannot be read, or has no list, changes nothing: what was told stays, and state()
 * says why. In a list each node stands for itself: one that makes no sense is told with its fault,
 * and of two that claim the same subnet the one that comes first in the list is believed.
 */
#include "source.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static const double quiet_seconds = 0.05;   /* since the last event */
static const double patience_seconds = 0.5; /* since the first one */
static const double look_seconds = 10;	    /* while the folder is watched */
static const double look_blind_seconds = 1; /* while it is not */

/* What tells one content of the file from the next without reading it. */
struct print {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct flat_source {
	struct ev_loop *loop;
	const struct flat_listener *listener;
	const char *path; /* conf's */
	char folder[PATH_MAX];
	const char *name; /* within path */

	int fd, watch; /* inotify; -1: there is none */
	struct print folder_print;
	ev_io readable;
	ev_timer settle, look;
	double first_event; /* 0: all are dealt with */

	struct print seen;
	bool was_read; /* seen is of the last try, whatever came of it */
};

/* ---- the file ----------------------------------------------------------------------------------
 */

static struct print take_print(const char *path)
{
	struct stat st;
	struct print print;
	memset(&print, 0, sizeof print); /* gaps too: prints are compared by memcmp() */
	if (stat(path, &st) < 0)
		return print;
	print.dev = st.st_dev;
	print.ino = st.st_ino;
	print.size = st.st_size;
	print.mtime = st.st_mtim;
	print.ctime = st.st_ctim;
	return print;
}

static void say_why(struct flat_source *source, const struct flat_err *err)
{
	char why[sizeof err->msg + sizeof err->details + 64];
	snprintf(why, sizeof why, "%s%s%s; what was known stays, and the file is watched", err->msg,
		 err->details[0] ? ": " : "", err->details);
	source->listener->state(source->listener->arg, false, why);
}

static void read_list(struct flat_source *source)
{
	const struct flat_listener *listener = source->listener;
	struct flat_arena arena = { 0 };
	struct flat_json_list nodes = { 0 };
	struct flat_err err = { 0 };
	/* before reading: a change meanwhile is found at the next look */
	source->seen = take_print(source->path);
	source->was_read = true;
	/* files are read without following symbolic links, but the one that a ConfigMap has here
	 * is meant */
	flat_auto_free char *real = realpath(source->path, NULL);
	int r = flat_nodes_read_each(real ? real : source->path, &arena, &nodes, &err);
	if (r < 0) {
		flat_wrap(&err, "list of nodes");
		say_why(source, &err);
	} else {
		listener->begin(listener->arg);
		const struct flat_told_node *told = nodes.items;
		for (size_t i = 0; i < nodes.count; i++)
			listener->node(listener->arg, &told[i].node, told[i].fault);
		listener->synced(listener->arg);
		listener->state(listener->arg, true, NULL);
	}
	flat_arena_free(&arena);
}

static void read_if_changed(struct flat_source *source)
{
	const struct print now = take_print(source->path);
	if (!source->was_read || memcmp(&now, &source->seen, sizeof now) != 0)
		read_list(source);
}

/* ---- watching ----------------------------------------------------------------------------------
 */

static void unwatch(struct flat_source *source)
{
	if (source->watch >= 0)
		inotify_rm_watch(source->fd, source->watch);
	source->watch = -1;
}

/* The folder that the path leads to now. */
static void watch_folder(struct flat_source *source)
{
	const uint32_t mask = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
			      IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
	struct stat st;
	if (source->fd < 0)
		return;
	source->watch = inotify_add_watch(source->fd, source->folder, mask);
	if (stat(source->folder, &st) < 0)
		st = (struct stat){ 0 };
	source->folder_print = (struct print){ .dev = st.st_dev, .ino = st.st_ino };
}

static void schedule_look(struct flat_source *source)
{
	source->look.repeat = source->watch >= 0 ? look_seconds : look_blind_seconds;
	ev_timer_again(source->loop, &source->look);
}

static void rewatch(struct flat_source *source)
{
	unwatch(source);
	watch_folder(source);
	schedule_look(source);
}

static void on_look(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct flat_source *source = timer->data;
	struct stat st;
	(void)loop, (void)events;
	if (source->watch < 0 || stat(source->folder, &st) < 0 ||
	    st.st_dev != source->folder_print.dev || st.st_ino != source->folder_print.ino)
		rewatch(source);
	read_if_changed(source);
}

static void on_settle(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct flat_source *source = timer->data;
	(void)loop, (void)events;
	source->first_event = 0;
	read_if_changed(source);
}

static void settle_soon(struct flat_source *source)
{
	const double now = (double)flat_now_ms() / 1000; /* the loop's is the wall clock's */
	double pause = quiet_seconds;
	if (!source->first_event)
		source->first_event = now;
	if (now + pause > source->first_event + patience_seconds)
		pause = source->first_event + patience_seconds - now;
	ev_timer_stop(source->loop, &source->settle);
	ev_timer_set(&source->settle, pause > 0 ? pause : 0, 0);
	ev_timer_start(source->loop, &source->settle);
}

static void on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct flat_source *source = io->data;
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool lost = false;
	ssize_t len;
	(void)loop, (void)revents;
	while ((len = read(source->fd, buf, sizeof buf)) > 0) {
		for (ssize_t at = 0; at < len;) {
			const struct inotify_event *event =
				(const struct inotify_event *)(const void *)(buf + at);
			at += (ssize_t)(sizeof *event + event->len);
			if (event->mask & IN_Q_OVERFLOW ||
			    (event->wd == source->watch && event->len &&
			     !strcmp(event->name, source->name)))
				source->was_read = false; /* two changes in one tick of the clock
							     have the same print */
			lost |= event->wd == source->watch &&
				event->mask &
					(IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT);
		}
	}
	if (lost)
		rewatch(source);
	settle_soon(source);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void close_file(struct flat_source *source)
{
	if (!source)
		return;
	ev_io_stop(source->loop, &source->readable);
	ev_timer_stop(source->loop, &source->settle);
	ev_timer_stop(source->loop, &source->look);
	flat_close_fd(&source->fd);
	free(source);
}

static int open_file(struct ev_loop *loop, const struct flat_agent_conf *conf,
		     const struct flat_listener *listener, struct flat_source **ret_source,
		     struct flat_err *err)
{
	const char *path = conf->file.path;
	const char *slash = path ? strrchr(path, '/') : NULL;
	if (!slash || !slash[1] || strlen(path) >= PATH_MAX)
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "file.path: \"%.128s\" is not the absolute path of a file",
				 path ? path : "");
	struct flat_source *source = calloc(1, sizeof *source);
	if (!source)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "source file");
	source->loop = loop;
	source->listener = listener;
	source->path = path;
	source->name = slash + 1;
	/* the folder of /nodes.json is / */
	memcpy(source->folder, path, (size_t)(slash - path));
	if (slash == path)
		source->folder[0] = '/';
	source->watch = -1;
	source->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	ev_io_init(&source->readable, on_readable, source->fd >= 0 ? source->fd : 0, EV_READ);
	/* nothing is told before open returns */
	ev_timer_init(&source->settle, on_settle, 0, 0);
	ev_timer_init(&source->look, on_look, 0, look_blind_seconds);
	source->readable.data = source->settle.data = source->look.data = source;
	if (source->fd >= 0)
		ev_io_start(loop, &source->readable);
	else
		flat_warn(&flat_agent_log,
			  "no inotify instance is left (%s): '%.256s' is looked at every second; "
			  "raise fs.inotify.max_user_instances",
			  strerror(errno), path);
	watch_folder(source);
	schedule_look(source);
	ev_timer_start(loop, &source->settle);
	*ret_source = source;
	return 0;
}

const struct flat_source_type flat_source_file = {
	.name = "file",
	.open = open_file,
	.close = close_file,
};
