#include "quic/cid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"

static int marks[1000]; /* addresses that stand for connections */

static void fresh_id_names_its_reactor(void **) {
    for (unsigned reactor = 0; reactor < 256; reactor++) {
        struct cid cid = cid_generate((uint8_t)reactor);
        assert_int_equal(cid.len, CID_BYTES);
        assert_int_equal(cid_reactor(cid.bytes, cid.len), reactor);
    }
}

static void fresh_ids_differ(void **) {
    struct cid_table table;
    cid_table_init(&table);
    for (size_t i = 0; i < 1000; i++) {
        struct cid cid = cid_generate(3);
        assert_null(cid_table_find(&table, cid.bytes, cid.len));
        cid_table_insert(&table, cid.bytes, cid.len, &marks[i]);
    }
    assert_int_equal(table.count, 1000);
    cid_table_deinit(&table);
}

static void foreign_ids_name_no_reactor(void **) {
    struct cid cid = cid_generate(5);
    uint8_t longer[CID_BYTES_MAX] = {0};
    memcpy(longer, cid.bytes, CID_BYTES);
    for (size_t len = 0; len <= CID_BYTES_MAX; len++) {
        if (len != CID_BYTES)
            assert_int_equal(cid_reactor(longer, len), -1);
    }
    for (unsigned tag = 0; tag < 256; tag++) {
        cid.bytes[0] = (uint8_t)tag;
        assert_int_equal(cid_reactor(cid.bytes, cid.len), tag == CID_TAG ? 5 : -1);
    }
}

static void id_with_any_byte_changed_is_another_id(void **) {
    struct cid_table table;
    cid_table_init(&table);
    struct cid cid = cid_generate(1);
    cid_table_insert(&table, cid.bytes, cid.len, &marks[0]);
    for (size_t at = 0; at < CID_BYTES; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct cid tampered = cid;
            tampered.bytes[at] ^= (uint8_t)(1u << bit);
            assert_null(cid_table_find(&table, tampered.bytes, tampered.len));
        }
    }
    assert_ptr_equal(cid_table_find(&table, cid.bytes, cid.len), &marks[0]);
    cid_table_deinit(&table);
}

static void ids_of_different_length_are_different(void **) {
    static const uint8_t zeros[CID_BYTES_MAX + 1];
    struct cid_table table;
    cid_table_init(&table);
    for (size_t len = 0; len <= CID_BYTES_MAX; len++)
        cid_table_insert(&table, zeros, len, &marks[len]);
    for (size_t len = 0; len <= CID_BYTES_MAX; len++)
        assert_ptr_equal(cid_table_find(&table, zeros, len), &marks[len]);
    assert_null(cid_table_find(&table, zeros, CID_BYTES_MAX + 1));
    cid_table_remove(&table, zeros, CID_BYTES_MAX + 1);
    assert_int_equal(table.count, CID_BYTES_MAX + 1);
    cid_table_deinit(&table);
}

static void inserting_the_same_id_replaces(void **) {
    struct cid_table table;
    cid_table_init(&table);
    struct cid cid = cid_generate(1);
    cid_table_insert(&table, cid.bytes, cid.len, &marks[0]);
    cid_table_insert(&table, cid.bytes, cid.len, &marks[1]);
    assert_int_equal(table.count, 1);
    assert_ptr_equal(cid_table_find(&table, cid.bytes, cid.len), &marks[1]);
    cid_table_remove(&table, cid.bytes, cid.len);
    assert_null(cid_table_find(&table, cid.bytes, cid.len));
    cid_table_remove(&table, cid.bytes, cid.len);
    assert_int_equal(table.count, 0);
    cid_table_deinit(&table);
}

/* Against an array of what should be there; the ids are few, so that runs of neighbours form and
 * are torn apart. */
static void table_agrees_with_a_plain_array(void **) {
    enum { IDS = 700 };
    struct cid ids[IDS];
    int *expected[IDS] = {0};
    struct rng rng;
    struct cid_table table;
    cid_table_init(&table);
    rng_seed(&rng, 11);
    for (size_t i = 0; i < IDS; i++) {
        ids[i] = cid_generate((uint8_t)i);
        ids[i].len = (uint8_t)(4 + i % 17);
        memcpy(ids[i].bytes, &i, sizeof(uint32_t));
    }
    for (size_t step = 0; step < 20000; step++) {
        size_t at = rng_below(&rng, IDS);
        if (rng_below(&rng, 2) == 0) {
            expected[at] = &marks[rng_below(&rng, 10)];
            cid_table_insert(&table, ids[at].bytes, ids[at].len, expected[at]);
        } else {
            expected[at] = NULL;
            cid_table_remove(&table, ids[at].bytes, ids[at].len);
        }
        if (step % 500 != 0)
            continue;
        size_t count = 0;
        for (size_t i = 0; i < IDS; i++) {
            assert_ptr_equal(cid_table_find(&table, ids[i].bytes, ids[i].len), expected[i]);
            count += expected[i] != NULL;
        }
        assert_int_equal(table.count, count);
    }
    cid_table_deinit(&table);
}

static void all_ids_of_a_connection_go_and_no_other(void **) {
    struct cid ids[300];
    struct cid_table table;
    cid_table_init(&table);
    for (size_t i = 0; i < 300; i++) {
        ids[i] = cid_generate(0);
        cid_table_insert(&table, ids[i].bytes, ids[i].len, &marks[i % 3]);
    }
    cid_table_remove_conn(&table, &marks[1]);
    for (size_t i = 0; i < 300; i++)
        assert_ptr_equal(cid_table_find(&table, ids[i].bytes, ids[i].len),
                         i % 3 == 1 ? NULL : &marks[i % 3]);
    assert_int_equal(table.count, 200);
    cid_table_deinit(&table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_id_names_its_reactor),
        cmocka_unit_test(fresh_ids_differ),
        cmocka_unit_test(foreign_ids_name_no_reactor),
        cmocka_unit_test(id_with_any_byte_changed_is_another_id),
        cmocka_unit_test(ids_of_different_length_are_different),
        cmocka_unit_test(inserting_the_same_id_replaces),
        cmocka_unit_test(table_agrees_with_a_plain_array),
        cmocka_unit_test(all_ids_of_a_connection_go_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
