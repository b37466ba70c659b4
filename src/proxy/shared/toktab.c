/* toktab.c - the token table: one writer, readers in other processes, no locks
 *
 *      memfd:  [head][buckets: seq, head of chain][records: seq, next, body]
 *
 * Always true:
 *  1. Only the process that called toktab_new() writes. After the seals nobody
 *     can get a second writable mapping, also not by passing the descriptor on.
 *  2. A bucket's seq is odd while its chain changes, a record's seq while its
 *     body changes. A reader believes what it copied only if both were even and
 *     the same before and after; it gives up after TRIES with -EAGAIN, so a
 *     writer that died half way stops nobody.
 *  3. A record is in a chain exactly while it is not FREE.
 *  4. Whatever a reader takes from the memfd as an index is checked first.
 *  5. heap[0] is the live record with the earliest deadline; heap and free list
 *     are the writer's private memory.
 *
 * Sequence numbers work without fences (H. Boehm, "Can seqlocks get along with
 * programming language memory models?", 2012): the reader's loads of the body
 * are acquire loads, so the second look at seq cannot move before them; the
 * writer's stores are release stores, so the odd seq is seen before they are.
 *
 * Not here: who may be issued a token (broker), what becomes of a parked socket.
 */
#include "hyper/proxy/toktab.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"
#include "proxy/shared/toktab_layout.h"

#define TRIES 8

struct heap_node {
	int64_t when;
	uint32_t slot;
};

struct toktab {
	struct toktab_head *head; /* the mapping */
	struct toktab_bucket *buckets;
	struct toktab_record *records;
	size_t size;
	uint32_t slots; /* our own copies: the head's are not looked at again */
	uint32_t mask;
	int fd; /* -1 in a reader */

	/* The writer's only; NULL in a reader. */
	uint32_t *free_slots;
	struct heap_node *heap; /* live records, a binary heap by deadline */
	uint32_t *heap_pos;     /* of each live slot */
	size_t n_free, n_heap, n_parked;
};

static uint32_t
bucket_of(const struct toktab *t, const uint8_t hash[32])
{
	uint32_t h = (uint32_t)hash[0] | (uint32_t)hash[1] << 8 | (uint32_t)hash[2] << 16 | (uint32_t)hash[3] << 24;

	return h & t->mask;
}

static size_t
size_for(uint32_t slots, uint32_t buckets)
{
	return sizeof(struct toktab_head) + (size_t)buckets * sizeof(struct toktab_bucket) +
	       (size_t)slots * sizeof(struct toktab_record);
}

static uint32_t
buckets_for(uint32_t slots)
{
	uint32_t n = 8; /* 8 buckets are one cache line: records stay aligned */

	while (n < 2 * slots)
		n *= 2;
	return n;
}

static void
set_parts(struct toktab *t, void *map, uint32_t slots)
{
	uint32_t buckets = buckets_for(slots);

	t->head = map;
	t->size = size_for(slots, buckets);
	t->slots = slots;
	t->mask = buckets - 1;
	t->buckets = (struct toktab_bucket *)((char *)map + sizeof(struct toktab_head));
	t->records = (struct toktab_record *)(t->buckets + buckets);
}

/* A memfd of `size` bytes, mapped for writing once and sealed against every further writer. */
static int
sealed_map(size_t size, int *ret_fd, void **ret_map)
{
	void *map = MAP_FAILED;
	int fd, r = 0;

	fd = memfd_create("hyper-tokens", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0) {
		r = -errno;
		goto out;
	}
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	/* A forked child would inherit the one writable mapping. */
	if (map == MAP_FAILED || madvise(map, size, MADV_DONTFORK) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		r = -errno;
out:
	if (r < 0) {
		if (map != MAP_FAILED)
			munmap(map, size);
		fd_close(&fd);
		return r;
	}
	*ret_fd = fd;
	*ret_map = map;
	return 0;
}

static void
head_write(struct toktab *t)
{
	*t->head = (struct toktab_head){
		.magic = TOKTAB_MAGIC,
		.version = TOKTAB_VERSION,
		.size = t->size,
		.slots = t->slots,
		.buckets = t->mask + 1,
		.buckets_off = (uint64_t)((char *)t->buckets - (char *)t->head),
		.records_off = (uint64_t)((char *)t->records - (char *)t->head),
	};
}

int
toktab_new(size_t slots, struct toktab **ret)
{
	struct toktab *t;
	void *map = NULL;
	int r;

	if (slots == 0 || slots > TOKTAB_SLOTS_MAX)
		return -EINVAL;
	t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->fd = -1;
	t->free_slots = calloc(slots, sizeof *t->free_slots);
	t->heap = calloc(slots, sizeof *t->heap);
	t->heap_pos = calloc(slots, sizeof *t->heap_pos);
	r = -ENOMEM;
	if (!t->free_slots || !t->heap || !t->heap_pos)
		goto out;
	r = sealed_map(size_for((uint32_t)slots, buckets_for((uint32_t)slots)), &t->fd, &map);
	if (r < 0)
		goto out;
	set_parts(t, map, (uint32_t)slots);
	head_write(t);
	while (t->n_free < slots) { /* slot 0 comes out first */
		t->free_slots[t->n_free] = (uint32_t)(slots - 1 - t->n_free);
		t->n_free++;
	}
	*ret = t;
	return 0;
out:
	toktab_free(t);
	return r;
}

/* Is this, byte for byte, a head that toktab_new() would write for a memfd of this size? */
static int
head_check(const struct toktab_head *h, uint64_t size)
{
	uint32_t buckets;

	if (h->magic != TOKTAB_MAGIC || h->version != TOKTAB_VERSION || h->size != size)
		return -EPROTO;
	if (h->slots == 0 || h->slots > TOKTAB_SLOTS_MAX)
		return -EPROTO;
	buckets = buckets_for(h->slots);
	if (h->buckets != buckets || h->buckets_off != sizeof *h ||
	    h->records_off != sizeof *h + (uint64_t)buckets * sizeof(struct toktab_bucket) ||
	    size != size_for(h->slots, buckets))
		return -EPROTO;
	return 0;
}

int
toktab_map(int fd, struct toktab **ret)
{
	struct toktab *t;
	struct stat st;
	void *map;
	int seals;

	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return errno == EINVAL ? -EPROTO : -errno; /* EINVAL: not a memfd */
	if (fstat(fd, &st) < 0)
		return -errno;
	/* Without F_SEAL_SHRINK a holder could cut the memfd and a look-up would end in SIGBUS. */
	if (!(seals & F_SEAL_SHRINK) || st.st_size < (off_t)sizeof(struct toktab_head))
		return -EPROTO;
	t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		free(t);
		return -errno;
	}
	if (head_check(map, (uint64_t)st.st_size) < 0) {
		munmap(map, (size_t)st.st_size);
		free(t);
		return -EPROTO;
	}
	set_parts(t, map, ((const struct toktab_head *)map)->slots);
	t->fd = -1;
	*ret = t;
	return 0;
}

void
toktab_free(struct toktab *t)
{
	if (!t)
		return;
	if (t->head)
		munmap(t->head, t->size);
	fd_close(&t->fd);
	free(t->free_slots);
	free(t->heap);
	free(t->heap_pos);
	free(t);
}

int
toktab_fd(const struct toktab *t)
{
	return t->fd;
}

/* --- sequence numbers ------------------------------------------------------ */

static void
seq_begin(uint32_t *seq)
{
	__atomic_store_n(seq, __atomic_load_n(seq, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
}

static void
seq_end(uint32_t *seq)
{
	__atomic_store_n(seq, __atomic_load_n(seq, __ATOMIC_RELAXED) + 1, __ATOMIC_RELEASE);
}

static void
body_write(struct toktab_record *r, const struct toktab_body *b)
{
	uint64_t words[TOKTAB_BODY_WORDS];

	memcpy(words, b, sizeof words);
	seq_begin(&r->seq);
	for (size_t i = 0; i < TOKTAB_BODY_WORDS; i++)
		__atomic_store_n(&r->body[i], words[i], __ATOMIC_RELEASE);
	seq_end(&r->seq);
}

/* One attempt; false when the writer was inside. */
static bool
body_read(const struct toktab_record *r, struct toktab_body *ret)
{
	uint64_t words[TOKTAB_BODY_WORDS];
	uint32_t seq = __atomic_load_n(&r->seq, __ATOMIC_ACQUIRE);

	if (seq & 1)
		return false;
	for (size_t i = 0; i < TOKTAB_BODY_WORDS; i++)
		words[i] = __atomic_load_n(&r->body[i], __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&r->seq, __ATOMIC_RELAXED) != seq)
		return false;
	memcpy(ret, words, sizeof *ret);
	return true;
}

/* --- the writer ------------------------------------------------------------ */

static struct toktab_body
body_of(const struct toktab *t, uint32_t slot)
{
	struct toktab_body b;

	BUG_ON(slot >= t->slots);
	BUG_ON(!body_read(&t->records[slot], &b)); /* the writer itself is never inside here */
	return b;
}

static void
chain_link(struct toktab *t, uint32_t slot, const uint8_t hash[32])
{
	struct toktab_bucket *b = &t->buckets[bucket_of(t, hash)];

	seq_begin(&b->seq);
	__atomic_store_n(&t->records[slot].next, b->head, __ATOMIC_RELEASE);
	__atomic_store_n(&b->head, slot + 1, __ATOMIC_RELEASE);
	seq_end(&b->seq);
}

static void
chain_unlink(struct toktab *t, uint32_t slot, const uint8_t hash[32])
{
	struct toktab_bucket *b = &t->buckets[bucket_of(t, hash)];
	uint32_t *link = &b->head;

	while (*link != slot + 1) {
		BUG_ON(*link == 0 || *link > t->slots);
		link = &t->records[*link - 1].next;
	}
	seq_begin(&b->seq);
	__atomic_store_n(link, t->records[slot].next, __ATOMIC_RELEASE);
	seq_end(&b->seq);
}

static void
heap_set(struct toktab *t, size_t pos, struct heap_node node)
{
	t->heap[pos] = node;
	t->heap_pos[node.slot] = (uint32_t)pos;
}

/* Puts `node` where it belongs, starting at the empty position `pos`. */
static void
heap_sift(struct toktab *t, size_t pos, struct heap_node node)
{
	while (pos > 0 && t->heap[(pos - 1) / 2].when > node.when) {
		heap_set(t, pos, t->heap[(pos - 1) / 2]);
		pos = (pos - 1) / 2;
	}
	for (;;) {
		size_t kid = 2 * pos + 1;

		if (kid + 1 < t->n_heap && t->heap[kid + 1].when < t->heap[kid].when)
			kid++;
		if (kid >= t->n_heap || t->heap[kid].when >= node.when)
			break;
		heap_set(t, pos, t->heap[kid]);
		pos = kid;
	}
	heap_set(t, pos, node);
}

static void
heap_remove(struct toktab *t, uint32_t slot)
{
	size_t pos = t->heap_pos[slot];
	struct heap_node last;

	BUG_ON(t->n_heap == 0 || pos >= t->n_heap || t->heap[pos].slot != slot);
	last = t->heap[--t->n_heap];
	if (last.slot != slot)
		heap_sift(t, pos, last);
}

static void
name_put(char ret[TOKTAB_NAME_MAX], const char from[TOKTAB_NAME_MAX])
{
	size_t len = strnlen(from, TOKTAB_NAME_MAX - 1);

	memset(ret, 0, TOKTAB_NAME_MAX);
	memcpy(ret, from, len);
}

int
toktab_issue(struct toktab *t, const struct toktab_rec *rec, uint32_t *ret_slot, uint32_t *ret_gen)
{
	struct toktab_body b = { .state = TOKTAB_ISSUED, .parked_fd = -1 };
	struct toktab_rec other;
	uint32_t slot;

	BUG_ON(!t->heap);
	if (toktab_find(t, rec->hash, INT64_MIN, &other) == 0)
		return -EEXIST;
	if (t->n_free == 0)
		return -ENOSPC;
	slot = t->free_slots[--t->n_free];
	memcpy(b.hash, rec->hash, sizeof b.hash);
	b.issued_ns = rec->issued_ns;
	b.deadline_ns = rec->deadline_ns;
	b.gen = body_of(t, slot).gen + 1;
	name_put(b.from, rec->from);
	name_put(b.to, rec->to);
	name_put(b.channel, rec->channel);
	body_write(&t->records[slot], &b);
	chain_link(t, slot, b.hash);
	t->n_heap++;
	heap_sift(t, t->n_heap - 1, (struct heap_node){ .when = b.deadline_ns, .slot = slot });
	*ret_slot = slot;
	*ret_gen = b.gen;
	return 0;
}

void
toktab_park(struct toktab *t, uint32_t slot, int parked_fd)
{
	struct toktab_body b = body_of(t, slot);

	BUG_ON(!t->heap || b.state != TOKTAB_ISSUED || parked_fd < 0);
	b.state = TOKTAB_PARKED;
	b.parked_fd = parked_fd;
	body_write(&t->records[slot], &b);
	t->n_parked++;
}

void
toktab_release(struct toktab *t, uint32_t slot)
{
	struct toktab_body b = body_of(t, slot), empty = { .parked_fd = -1 };

	BUG_ON(!t->heap || b.state == TOKTAB_FREE);
	if (b.state == TOKTAB_PARKED)
		t->n_parked--;
	chain_unlink(t, slot, b.hash);
	heap_remove(t, slot);
	empty.gen = b.gen; /* grows over the uses of a slot, and is all that stays */
	body_write(&t->records[slot], &empty);
	t->free_slots[t->n_free++] = slot;
}

/* --- readers, the writer included ------------------------------------------ */

static void
rec_from_body(uint32_t slot, const struct toktab_body *b, struct toktab_rec *ret)
{
	memset(ret, 0, sizeof *ret);
	memcpy(ret->hash, b->hash, sizeof ret->hash);
	ret->slot = slot;
	ret->gen = b->gen;
	ret->state = (enum toktab_state)b->state;
	ret->parked_fd = b->parked_fd;
	ret->issued_ns = b->issued_ns;
	ret->deadline_ns = b->deadline_ns;
	name_put(ret->from, b->from);
	name_put(ret->to, b->to);
	name_put(ret->channel, b->channel);
}

/* One walk along a chain. -EAGAIN: the chain or a record changed meanwhile. */
static int
find_once(const struct toktab *t, const uint8_t hash[32], int64_t now_ns, struct toktab_rec *ret)
{
	const struct toktab_bucket *bucket = &t->buckets[bucket_of(t, hash)];
	uint32_t seq = __atomic_load_n(&bucket->seq, __ATOMIC_ACQUIRE);
	uint32_t at = __atomic_load_n(&bucket->head, __ATOMIC_ACQUIRE);
	struct toktab_body b;
	uint32_t slot;

	if (seq & 1)
		return -EAGAIN;
	for (uint32_t steps = 0; at != 0; steps++) {
		if (at > t->slots || steps > t->slots)
			return -EAGAIN; /* half changed, or a ring: nothing to follow */
		slot = at - 1;
		at = __atomic_load_n(&t->records[slot].next, __ATOMIC_ACQUIRE);
		if (!body_read(&t->records[slot], &b) || __atomic_load_n(&bucket->seq, __ATOMIC_RELAXED) != seq)
			return -EAGAIN;
		if (CRYPTO_memcmp(b.hash, hash, sizeof b.hash) != 0)
			continue;
		if (b.state == TOKTAB_FREE || b.state >= TOKTAB_STATE_MAX || b.deadline_ns <= now_ns)
			return -ENOENT;
		rec_from_body(slot, &b, ret);
		return 0;
	}
	return __atomic_load_n(&bucket->seq, __ATOMIC_RELAXED) == seq ? -ENOENT : -EAGAIN;
}

int
toktab_find(const struct toktab *t, const uint8_t hash[32], int64_t now_ns, struct toktab_rec *ret)
{
	int r = -EAGAIN;

	for (int i = 0; i < TRIES && r == -EAGAIN; i++)
		r = find_once(t, hash, now_ns, ret);
	return r;
}

void
toktab_get(const struct toktab *t, uint32_t slot, struct toktab_rec *ret)
{
	struct toktab_body b = body_of(t, slot);

	BUG_ON(!t->heap || b.state == TOKTAB_FREE);
	rec_from_body(slot, &b, ret);
}

bool
toktab_expired(struct toktab *t, int64_t now_ns, struct toktab_rec *ret)
{
	struct toktab_body b;

	BUG_ON(!t->heap);
	if (t->n_heap == 0 || t->heap[0].when > now_ns)
		return false;
	b = body_of(t, t->heap[0].slot);
	rec_from_body(t->heap[0].slot, &b, ret);
	return true;
}

int64_t
toktab_next_deadline_ns(const struct toktab *t)
{
	BUG_ON(!t->heap);
	return t->n_heap == 0 ? INT64_MAX : t->heap[0].when;
}

struct toktab_counts
toktab_counts(const struct toktab *t)
{
	return (struct toktab_counts){
		.slots = t->slots,
		.issued = t->n_heap - t->n_parked,
		.parked = t->n_parked,
	};
}
