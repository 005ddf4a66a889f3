/* Streams that come into being by being used, on a development broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/core.h"

static const struct core_host host;
static struct core core;

static struct slice key(const char *namespace_, const char *name) {
    static uint8_t bytes[64];
    struct slice t = slice_str("t1"), n = slice_str(namespace_), s = slice_str(name);
    core_key_write(bytes, t, n, s);
    return slice_of(bytes, core_key_bytes(t, n, s));
}

static void begin(uint32_t made_streams_max) {
    struct core_settings settings = {
        .topic = {.replay_items_max = 8,
                  .replay_bytes_max = 1000,
                  .frame = {.items_max = 64, .payload_bytes_max = 65536}},
        .cache_max_bytes = (uint64_t)1 << 20,
        .make_on_first_use = true,
        .dev_tenant = slice_str("t1"),
        .dev_namespace = slice_str("default"),
        .made_streams_max = made_streams_max,
    };
    core_init(&core, 0, 1, &settings, &host, NULL);
}

static void use_makes_a_stream_in_the_development_namespace_only(void **state) {
    begin(10);
    assert_non_null(core_find_stream(&core, key("default", "a")));
    assert_null(core_find_stream(&core, key("other", "a")));
    core_deinit(&core);
}

static void to_look_is_not_to_use(void **state) {
    begin(10);
    assert_null(core_get_stream(&core, key("default", "a")));
    struct fanout *made = core_find_stream(&core, key("default", "a"));
    assert_ptr_equal(core_get_stream(&core, key("default", "a")), made);
    core_deinit(&core);
}

static void a_deleted_stream_makes_room_for_another(void **state) {
    begin(2);
    assert_non_null(core_find_stream(&core, key("default", "a")));
    assert_non_null(core_find_stream(&core, key("default", "b")));
    assert_null(core_find_stream(&core, key("default", "c")));
    assert_true(core_remove_stream(&core, key("default", "a")));
    assert_non_null(core_find_stream(&core, key("default", "c")));
    assert_null(core_find_stream(&core, key("default", "d")));
    core_deinit(&core);
}

/* What was added is not counted, so its end gives nothing back. */
static void the_end_of_an_added_stream_makes_no_room(void **state) {
    begin(1);
    core_add_stream(&core, key("default", "a"), 0, NULL);
    assert_non_null(core_find_stream(&core, key("default", "b")));
    assert_true(core_remove_stream(&core, key("default", "a")));
    assert_null(core_find_stream(&core, key("default", "c")));
    core_deinit(&core);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(use_makes_a_stream_in_the_development_namespace_only),
        cmocka_unit_test(to_look_is_not_to_use),
        cmocka_unit_test(a_deleted_stream_makes_room_for_another),
        cmocka_unit_test(the_end_of_an_added_stream_makes_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
