/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state - files that survive a crash of their writer: whole or not there at all.
 *
 * Everything is relative to a directory fd, O_CLOEXEC, and never follows a symbolic link in the
 * last component. Nothing is fsynced but by flat_state_replace_durable(): what is kept here mostly
 * describes things that die with the machine (links, namespaces), so after a power loss a lost or
 * empty file is as good as none.
 */
#pragma once

#include <flatnet/base.h>

/* Opens the directory `path`, making missing parts with mode 0755 when create is set. Refuses a
 * directory that others can write to (world-writable without the sticky bit). -ENOENT: not there
 * and not created; err is then not set.
 */
int flat_state_open_dir(const char *path, bool create, int *ret_fd, struct flat_err *err);
/* As above for one name (no slash) inside dirfd. */
int flat_state_open_subdir(int dirfd, const char *name, bool create, int *ret_fd,
			   struct flat_err *err);

/* Reads a whole regular file of at most max bytes; *ret_text is NUL-terminated and the caller's to
 * free. Returns its length. -ENOENT: no such file, err not set. -EFBIG: larger than max. dirfd may
 * be AT_FDCWD. */
int flat_state_read(int dirfd, const char *name, size_t max, char **ret_text, struct flat_err *err);

/* Creates `name` with this content, whole or not at all: no reader ever sees a part of it, and a
 * crash leaves nothing (O_TMPFILE, written, then linkat(2)). The new file is flock(2)ed LOCK_EX
 * before it becomes visible; *ret_fd keeps the lock until it is closed or its process dies.
 * -EEXIST: the name is taken, err not set. Mode 0600. */
int flat_state_create(int dirfd, const char *name, const char *text, size_t len, int *ret_fd,
		      struct flat_err *err);

/* What names of temporary files start with. A crash can leave one, where there is no O_TMPFILE or
 * within flat_state_replace(): whoever holds the lock of all writers may remove them. */
#define FLAT_STATE_TEMP_PREFIX ".flatnet-"

/* Replaces the content of `name`: temporary file in the same directory, then rename(2). */
int flat_state_replace(int dirfd, const char *name, const char *text, size_t len,
		       struct flat_err *err);
/* As above, and once it has returned 0 the new content survives a loss of power; before that the
 * old one does, whole: the file is synced before it gets its name, and the directory after. Takes
 * as long as the disk takes. */
int flat_state_replace_durable(int dirfd, const char *name, const char *text, size_t len,
			       struct flat_err *err);

/* Opens `name` (created empty, 0600) and takes flock(2) LOCK_SH or LOCK_EX, waiting at most
 * timeout_ms. 0 = do not wait. -ETIMEDOUT: somebody else holds it (code 11); the lock ends when
 * *ret_fd is closed. */
int flat_state_lock(int dirfd, const char *name, int operation, int timeout_ms, int *ret_fd,
		    struct flat_err *err);

/* Is `name` locked (LOCK_EX) by a living process? 1 yes, 0 no or not there, negative errno
 * otherwise. */
int flat_state_is_locked(int dirfd, const char *name);
