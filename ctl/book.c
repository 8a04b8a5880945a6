// SPDX-License-Identifier: Apache-2.0
#include "book.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const flat_entry_states[] = {
	[FLAT_ENTRY_USED] = "used",	  [FLAT_ENTRY_IN_FLIGHT] = "in flight",
	[FLAT_ENTRY_FOREIGN] = "foreign", [FLAT_ENTRY_LEAKED] = "leaked",
	[FLAT_ENTRY_BROKEN] = "broken",	  [FLAT_ENTRY_LOST] = "lost",
};

struct reading {
	struct flat_ctl *ctl;
	struct flat_scene *scene;
	struct flat_book book;
	size_t room;
};

static int no_memory(struct flat_err *err)
{
	return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read the address book");
}

static struct flat_book_entry *append(struct reading *r)
{
	struct flat_book *book = &r->book;
	if (book->count == r->room) {
		const size_t room = r->room ? 2 * r->room : 64;
		struct flat_book_entry *more =
			flat_arena_alloc(&r->ctl->arena, room * sizeof *more);
		if (!more)
			return NULL;
		if (book->count)
			memcpy(more, book->entries, book->count * sizeof *more);
		book->entries = more;
		r->room = room;
	}
	return &book->entries[book->count++];
}

/* ---- what the files say ------------------------------------------------------------------------
 */

static int read_owner(struct reading *r, struct flat_store *store, struct flat_book_entry *entry,
		      const struct flat_ipam_witness *witness, struct flat_err *err)
{
	struct flat_report *report = &r->ctl->report;
	flat_auto_owner owner = { 0 };
	const bool in_flight = entry->state == FLAT_ENTRY_IN_FLIGHT;
	int got = flat_store_look_up(store, &entry->ip, &owner, err);
	if (got == -EBADMSG) {
		entry->state = in_flight ? FLAT_ENTRY_IN_FLIGHT : FLAT_ENTRY_BROKEN;
		return 1;
	}
	if (got <= 0)
		return got;
	entry->container_id = flat_keep(report, owner.container_id);
	entry->ifname = owner.ifname[0] ? flat_keep(report, owner.ifname) : NULL;
	entry->pod = flat_scene_pod(r->scene, r->book.network->name, &entry->ip);
	if (in_flight)
		return 1;
	entry->state = witness->is_alive(witness->arg, owner.container_id, owner.ifname, &entry->ip)
			       ? FLAT_ENTRY_USED
		       : owner.in_process ? FLAT_ENTRY_LEAKED
					  : FLAT_ENTRY_FOREIGN;
	return 1;
}

/* In the order of the store's own census: the list, who is in flight, then the links. An ADD that
 * was not in flight had made its link before, so the look sees it. */
static int read_store(struct reading *r, struct flat_store *store,
		      const struct flat_ipam_witness *witness, struct flat_err *err)
{
	flat_auto_free struct flat_reservation *list = NULL;
	flat_auto_free bool *in_flight = NULL;
	size_t count = 0;
	int got = flat_store_list(store, &list, &count, err);
	if (got < 0)
		return got;
	in_flight = calloc(count + 1, sizeof *in_flight);
	if (!in_flight)
		return no_memory(err);
	for (size_t i = 0; i < count; i++)
		in_flight[i] = flat_store_is_in_flight(store, &list[i].ip);
	got = witness->look(witness->arg, err);
	for (size_t i = 0; i < count && got >= 0; i++) {
		struct flat_book_entry *entry = append(r);
		if (!entry)
			return no_memory(err);
		*entry = (struct flat_book_entry){
			.ip = list[i].ip,
			.inode = list[i].inode,
			.state = in_flight[i] ? FLAT_ENTRY_IN_FLIGHT : FLAT_ENTRY_USED,
		};
		got = read_owner(r, store, entry, witness, err);
		if (got == 0) /* gone since the list was read */
			r->book.count--;
	}
	return got < 0 ? got : 0;
}

/* ---- what the links say ------------------------------------------------------------------------
 */

static bool is_listed(const struct flat_book *book, size_t count, const struct flat_ip *ip)
{
	for (size_t low = 0, high = count; low < high;) {
		const size_t middle = low + (high - low) / 2;
		const int c = flat_ip_compare(&book->entries[middle].ip, ip);
		if (!c)
			return true;
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

static int compare(const void *a, const void *b)
{
	return flat_ip_compare(&((const struct flat_book_entry *)a)->ip,
			       &((const struct flat_book_entry *)b)->ip);
}

static int add_claims(struct reading *r, struct flat_err *err)
{
	const size_t sorted = r->book.count;
	for (size_t i = 0; i < r->scene->pod_count; i++) {
		const struct flat_pod *pod = &r->scene->pods[i];
		if (strcmp(pod->network, r->book.network->name) != 0)
			continue;
		for (size_t k = 0; k < pod->alias.ip_count; k++) {
			if (is_listed(&r->book, sorted, &pod->alias.ips[k]))
				continue;
			struct flat_book_entry *entry = append(r);
			if (!entry)
				return no_memory(err);
			*entry = (struct flat_book_entry){
				.ip = pod->alias.ips[k],
				.state = FLAT_ENTRY_LOST,
				.container_id = pod->alias.container_id,
				.ifname = pod->alias.ifname,
				.pod = pod,
			};
		}
	}
	if (r->book.count)
		qsort(r->book.entries, r->book.count, sizeof *r->book.entries, compare);
	return 0;
}

/* ---- together ----------------------------------------------------------------------------------
 */

int flat_book_read(struct flat_ctl *ctl, struct flat_scene *scene,
		   const struct flat_network *network, struct flat_book *ret_book,
		   struct flat_err *err)
{
	struct reading r = { .ctl = ctl, .scene = scene, .book = { .network = network } };
	struct flat_ipam_witness witness = { 0 };
	flat_auto_store *store = NULL;
	int got = flat_store_open(&network->conf.ipam, network->name, false, NULL, &store, err);
	if (got == -ENOENT && !err->code)
		got = 0;
	if (got >= 0 && store)
		got = flat_witness_open(scene->net, network->name, network->conf.gateway_link, true,
					&witness, err);
	if (got >= 0 && store)
		got = read_store(&r, store, &witness, err);
	/* addresses that are kept elsewhere are not lost here */
	if (got >= 0 && !network->foreign_ipam)
		got = add_claims(&r, err);
	flat_witness_close(&witness);
	if (got == -EACCES)
		flat_detail(err, "reservations are root's to read: run it as root");
	if (got >= 0)
		*ret_book = r.book;
	return got < 0 ? got : 0;
}

size_t flat_book_count(const struct flat_book *book, enum flat_entry_state state)
{
	size_t n = 0;
	for (size_t i = 0; i < book->count; i++)
		n += book->entries[i].state == state;
	return n;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

void flat_book_room(const struct flat_book *book, struct flat_room *ret_room)
{
	const struct flat_json_list *list = &book->network->conf.ipam.sets;
	const struct flat_ip_range_set *sets = list->items;
	struct flat_room room = { 0 };
	for (size_t i = 0; book->network->has_conf && i < list->count; i++) {
		const uint64_t size = flat_ipam_set_size(&sets[i]);
		uint64_t taken = 0;
		for (size_t k = 0; k < book->count; k++)
			taken += flat_ipam_set_find(&sets[i], &book->entries[k].ip) &&
				 !flat_ipam_set_is_gateway(&sets[i], &book->entries[k].ip);
		room.total = plus(room.total, size);
		room.free = plus(room.free, size == UINT64_MAX ? size
					    : size > taken     ? size - taken
							       : 0);
	}
	*ret_room = room;
}

/* ---- what is wrong -----------------------------------------------------------------------------
 */

/* Two pods with one address: the second one's packets go to the first. */
static size_t complain_of_twins(struct flat_ctl *ctl, const struct flat_book *book, size_t i)
{
	const struct flat_book_entry *a = &book->entries[i], *b = a + 1;
	char ip[FLAT_IP_TEXT];
	if (i + 1 == book->count || !flat_ip_equal(&a->ip, &b->ip) || !a->pod || !b->pod)
		return 0;
	flat_report_problem(&ctl->report,
			    flat_format(&ctl->report, "ip link show %s; ip link show %s",
					a->pod->link.name, b->pod->link.name),
			    "delete one of the two pods; a new one gets another address",
			    "network '%s': %s is claimed by two pods, %s and %s",
			    book->network->name, flat_ip_text(&a->ip, ip), a->container_id,
			    b->container_id);
	return 1;
}

/* What the file says and what the link says of one address. */
static bool is_claimed_by_another(const struct flat_book_entry *e)
{
	return e->state == FLAT_ENTRY_USED && e->pod && e->container_id &&
	       !flat_alias_names(e->pod->alias.container_id, e->container_id);
}

static size_t complain_of(struct flat_ctl *ctl, const struct flat_book *book,
			  const struct flat_book_entry *e)
{
	struct flat_report *report = &ctl->report;
	const char *network = book->network->name;
	char ip[FLAT_IP_TEXT];
	flat_ip_text(&e->ip, ip);
	const char *file =
		flat_format(report, "cat -A %s/%s/%s", book->network->data_dir, network, ip);
	const char *release =
		flat_format(report, "flatnetctl ipam release %s --network %s", ip, network);
	if (e->state == FLAT_ENTRY_LEAKED)
		flat_report_problem(report, file, release,
				    "network '%s': %s is leaked: container %s has no link any more",
				    network, ip, e->container_id);
	else if (e->state == FLAT_ENTRY_BROKEN)
		flat_report_problem(report, file, release,
				    "network '%s': the reservation of %s is empty or unreadable",
				    network, ip);
	else if (e->state == FLAT_ENTRY_LOST)
		flat_report_problem(
			report,
			e->pod ? flat_format(report, "ip link show %s", e->pod->link.name) : NULL,
			"flatnetd writes it anew within seconds; without it, delete the pod and let "
			"it be made again",
			"network '%s': %s is used by container %s, and nobody has reserved it",
			network, ip, e->container_id);
	else if (is_claimed_by_another(e))
		flat_report_problem(report, file,
				    "delete both pods; new ones get addresses of their own",
				    "network '%s': %s is reserved for container %s, and used by "
				    "container %s",
				    network, ip, e->container_id, e->pod->alias.container_id);
	else
		return 0;
	return 1;
}

size_t flat_book_complain(struct flat_ctl *ctl, const struct flat_book *book)
{
	size_t n = 0;
	for (size_t i = 0; i < book->count; i++) {
		size_t twins = complain_of_twins(ctl, book, i);
		n += twins ? twins : complain_of(ctl, book, &book->entries[i]);
	}
	return n;
}
