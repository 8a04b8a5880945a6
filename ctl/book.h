/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to ctl: the address book of a network, held against the links: who has which address, and
 * does he still live? The judgement is the store's own (ipam/sweep.c); nothing is changed.
 */
#pragma once

#include "scene.h"

enum flat_entry_state {
	FLAT_ENTRY_USED,      /* a link stands for it */
	FLAT_ENTRY_IN_FLIGHT, /* an ADD is at work */
	FLAT_ENTRY_FOREIGN,   /* another program's, which no link can stand for */
	FLAT_ENTRY_LEAKED,    /* made in-process, and its link is gone */
	FLAT_ENTRY_BROKEN,    /* its file is empty or unreadable */
	FLAT_ENTRY_LOST,      /* a link claims the address, and nobody has reserved it */
};
extern const char *const flat_entry_states[];

struct flat_book_entry {
	struct flat_ip ip;
	uint64_t inode; /* 0: LOST */
	enum flat_entry_state state;
	const char *container_id, *ifname; /* NULL: BROKEN */
	const struct flat_pod *pod;	   /* whose link it is; NULL: none */
};

struct flat_book {
	const struct flat_network *network;
	struct flat_book_entry *entries; /* by address */
	size_t count;
};

/* Memory is ctl's arena. A network without a folder has no entries. */
int flat_book_read(struct flat_ctl *ctl, struct flat_scene *scene,
		   const struct flat_network *network, struct flat_book *ret_book,
		   struct flat_err *err);
size_t flat_book_count(const struct flat_book *book, enum flat_entry_state state);
/* The ranges of the network's configuration: how many addresses they have, and how many of those
 * are not reserved; UINT64_MAX stands for more. total 0: they are not known. */
struct flat_room {
	uint64_t total, free;
};
void flat_book_room(const struct flat_book *book, struct flat_room *ret_room);
/* Says what is wrong with these addresses, as problems of the report. Returns how many are. */
size_t flat_book_complain(struct flat_ctl *ctl, const struct flat_book *book);
