/* test_slab.c - slab.h and idmap.h: items of one size, and items by number */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/idmap.h"
#include "hyper/base/slab.h"

struct item {
	union {
		uint64_t id;
		struct idmap_item item;
	};
	unsigned char rest[88];
};

static void
test_slab_items_are_zero_and_apart(void **state)
{
	struct slab s = SLAB_OF(struct item);
	struct item *all[1000];

	(void)state;
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < 1000; i++) {
			all[i] = slab_get(&s);
			assert_non_null(all[i]);
			for (size_t k = 0; k < sizeof(*all[i]); k++)
				assert_int_equal(((unsigned char *)all[i])[k], 0);
			memset(all[i], (int)(i & 0xff) + 1, sizeof(*all[i]));
		}
		for (size_t i = 0; i < 1000; i++) {
			assert_int_equal(all[i]->rest[0], (unsigned char)((i & 0xff) + 1));
			assert_int_equal(all[i]->rest[87], (unsigned char)((i & 0xff) + 1));
			slab_put(&s, all[i]);
		}
	}
	slab_put(&s, NULL);
	slab_fini(&s);
	slab_fini(&s);
}

static void
test_idmap_against_an_array(void **state)
{
	enum { N = 5000 };
	static struct item items[N];
	struct idmap m;
	size_t n = 0;

	(void)state;
	assert_int_equal(idmap_init(&m), 0);
	assert_null(idmap_next(&m, NULL));
	srandom(1);
	for (int step = 0; step < 40000; step++) {
		struct item *it = &items[(size_t)random() % N];

		/* two numbers of each bucket, and numbers far apart */
		if (!it->id) {
			it->id = (uint64_t)(it - items) * (step % 2 ? 1 : 1000003) + 1;
			if (idmap_find(&m, it->id)) {
				it->id = 0;
				continue;
			}
			idmap_add(&m, &it->item);
			n++;
		} else {
			assert_ptr_equal(idmap_find(&m, it->id), it);
			idmap_remove(&m, &it->item);
			assert_null(idmap_find(&m, it->id));
			it->id = 0;
			n--;
		}
		assert_int_equal(m.n, n);
	}
	for (size_t i = 0; i < N; i++)
		if (items[i].id)
			assert_ptr_equal(idmap_find(&m, items[i].id), &items[i]);
	assert_true(m.n_buckets < 4 * N);
	/* all of them once, each taken out after the next one was found */
	for (struct item *it = idmap_next(&m, NULL), *next; it; it = next) {
		next = idmap_next(&m, it);
		idmap_remove(&m, &it->item);
		n--;
	}
	assert_int_equal(n, 0);
	assert_int_equal(m.n, 0);
	idmap_fini(&m);
	idmap_fini(&m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slab_items_are_zero_and_apart),
		cmocka_unit_test(test_idmap_against_an_array),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
