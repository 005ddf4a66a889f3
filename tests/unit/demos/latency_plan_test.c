/* The sweep's cases and the sizes of its runs. Source: demos and performance, 2.3 and 2.4. */
#include "latency_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct latency_case base = {.fanout = 1,
                                         .batch = 1,
                                         .pub_conns = 7,
                                         .pub_streams_per_conn = 3,
                                         .stream_count = 1,
                                         .sub_conns = 1};
static struct latency_case cases[LATENCY_SWEEP_MAX];

static void totals_are_those_of_the_specification(void **) {
    assert_int_equal(latency_sweep_total(0, 1), 200000);
    assert_int_equal(latency_sweep_total(0, 10), 150000);
    assert_int_equal(latency_sweep_total(1024, 1), 196608);
    assert_int_equal(latency_sweep_total(1024, 10), 150000);
    assert_int_equal(latency_sweep_total(4096, 1), 49152);
    assert_int_equal(latency_sweep_total(4096, 10), 49152);
    assert_int_equal(latency_sweep_total(256, 1), 786432);
}

static void a_large_fanout_never_goes_below_five_thousand(void **) {
    assert_int_equal(latency_sweep_total(0, 1000), 5000);
    assert_int_equal(latency_sweep_total(256, 1000), 5000);
}

static void between_them_time_decides(void **) {
    assert_int_equal(latency_sweep_total(4096, 30), 49152);
    assert_int_equal(latency_sweep_total(4096, 40), 37500);
    assert_int_equal(latency_sweep_total(4096, 100), 15000);
}

static void the_sweep_has_twenty_cases(void **) {
    assert_int_equal(latency_plan_all(&base, false, cases), 20);
    for (size_t i = 0; i < 6; i++) {
        assert_true(latency_acked(&cases[i]));
        assert_int_equal(cases[i].warmup, 200);
        assert_int_equal(cases[i].total, 2000);
        assert_true(cases[i].counted);
    }
    for (size_t i = 6; i < 18; i++) {
        assert_int_equal(cases[i].batch, 64);
        assert_int_equal(cases[i].binary, i % 2);
        assert_int_equal(cases[i].total,
                         latency_sweep_total(cases[i].payload_bytes, cases[i].fanout));
    }
    assert_int_equal(cases[17].payload_bytes, 4096);
    assert_int_equal(cases[17].fanout, 10);
}

static void with_binary_it_has_fourteen_and_none_is_acknowledged(void **) {
    struct latency_case binary = base;
    binary.binary = true;
    assert_int_equal(latency_plan_all(&binary, false, cases), 14);
    for (size_t i = 0; i < 14; i++)
        assert_false(latency_acked(&cases[i]));
}

static void the_last_pair_compares_pools(void **) {
    size_t count = latency_plan_all(&base, false, cases);
    const struct latency_case *one = &cases[count - 2];
    const struct latency_case *many = &cases[count - 1];
    assert_int_equal(one->pub_conns * one->pub_streams_per_conn, 1);
    assert_int_equal(many->pub_conns, 4);
    assert_int_equal(many->pub_streams_per_conn, 2);
    assert_int_equal(one->payload_bytes, 256);
    assert_int_equal(many->total, 786432);
    assert_false(one->counted);
    assert_int_equal(cases[0].pub_conns, 7); /* elsewhere the flags count */
}

static void fast_is_five_cases_of_five_messages(void **) {
    struct latency_case binary = base;
    binary.binary = true;
    assert_int_equal(latency_plan_all(&binary, true, cases), 4);
    assert_int_equal(latency_plan_all(&base, true, cases), 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(cases[i].warmup, 1);
        assert_int_equal(cases[i].total, 5);
        assert_int_equal(cases[i].payload_bytes, 0);
        assert_int_equal(cases[i].fanout, 1);
    }
}

static void shares_differ_by_one_and_add_up(void **) {
    assert_int_equal(latency_share(20000, 8, 0), 2500);
    assert_int_equal(latency_share(10, 4, 0), 3);
    assert_int_equal(latency_share(10, 4, 1), 3);
    assert_int_equal(latency_share(10, 4, 2), 2);
    assert_int_equal(latency_share(10, 4, 3), 2);
    assert_int_equal(latency_share(1, 3, 2), 0);
}

static void only_unacknowledged_runs_can_be_too_small(void **) {
    struct latency_case c = base;
    c.payload_bytes = 4096;
    c.total = 5000;
    assert_false(latency_undersized(&c));
    c.batch = 64;
    assert_true(latency_undersized(&c));
    c.total = (128u << 20) / (4096 + STAMP_BYTES);
    assert_true(latency_undersized(&c));
    c.total++;
    assert_false(latency_undersized(&c));
}

static void acknowledged_is_one_at_a_time_and_not_binary(void **) {
    struct latency_case c = base;
    assert_true(latency_acked(&c));
    c.batch = 2;
    assert_false(latency_acked(&c));
    c.batch = 1;
    c.binary = true;
    assert_false(latency_acked(&c));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totals_are_those_of_the_specification),
        cmocka_unit_test(a_large_fanout_never_goes_below_five_thousand),
        cmocka_unit_test(between_them_time_decides),
        cmocka_unit_test(the_sweep_has_twenty_cases),
        cmocka_unit_test(with_binary_it_has_fourteen_and_none_is_acknowledged),
        cmocka_unit_test(the_last_pair_compares_pools),
        cmocka_unit_test(fast_is_five_cases_of_five_messages),
        cmocka_unit_test(shares_differ_by_one_and_add_up),
        cmocka_unit_test(only_unacknowledged_runs_can_be_too_small),
        cmocka_unit_test(acknowledged_is_one_at_a_time_and_not_binary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
