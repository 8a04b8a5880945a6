// SPDX-License-Identifier: Apache-2.0
/*
 * An arena is a list of blocks; small pieces are cut from the newest one, large pieces get a block
 * of their own. Nothing is given back but all at once: parsers allocate much and free nothing in
 * between.
 */
#include <flatnet/base.h>

#include <stdlib.h>
#include <string.h>

enum { BLOCK_SIZE = 4096 };

struct flat_arena_block {
	struct flat_arena_block *next;
	size_t used, size;
	_Alignas(max_align_t) unsigned char bytes[];
};

void *flat_arena_alloc(struct flat_arena *arena, size_t size)
{
	const size_t align = _Alignof(max_align_t);
	if (size > SIZE_MAX / 2)
		return NULL;
	size = (size + align - 1) & ~(align - 1);
	struct flat_arena_block *block = arena->first;
	if (!block || block->size - block->used < size) {
		size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
		block = calloc(1, sizeof *block + room);
		if (!block)
			return NULL;
		block->size = room;
		block->next = arena->first;
		arena->first = block;
	}
	void *piece = block->bytes + block->used;
	block->used += size;
	return piece;
}

char *flat_arena_strdup(struct flat_arena *arena, const char *text)
{
	size_t len = strlen(text) + 1;
	char *copy = flat_arena_alloc(arena, len);
	return copy ? memcpy(copy, text, len) : NULL;
}

void flat_arena_free(struct flat_arena *arena)
{
	while (arena->first) {
		struct flat_arena_block *block = arena->first;
		arena->first = block->next;
		free(block);
	}
}
