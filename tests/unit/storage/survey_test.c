/* What a survey says of logs: whole, cut, torn, damaged, and in use. */
#include "storage/survey.h"

#include "log_fixture.h"
#include "storage/generated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define DIR "log"
#define SEGMENT_BYTES (SEGMENT_HEADER_BYTES + 10 * FIXTURE_RECORD)
#define AT_RECORD(n) (SEGMENT_HEADER_BYTES + (n) * FIXTURE_RECORD)

struct world {
    struct memory_disk memory;
    struct disk disk;
    struct survey survey;
};

static int set_up(void **state) {
    struct world *w = calloc(1, sizeof *w);
    memory_disk_init(&w->memory);
    w->disk = memory_disk_table(&w->memory);
    fixture_log(&w->memory, DIR);
    *state = w;
    return 0;
}

static int tear_down(void **state) {
    struct world *w = *state;
    assert_int_equal(memory_disk_open_handles(&w->memory), 0);
    survey_deinit(&w->survey);
    memory_disk_deinit(&w->memory);
    free(w);
    return 0;
}

/* Surveys, and makes sure that this changes nothing. */
static const struct survey *look(struct world *w) {
    survey_deinit(&w->survey);
    uint64_t before = memory_disk_hash(&w->memory);
    assert_int_equal(survey_log(&w->disk, DIR, NULL, &w->survey, NULL), FELIX_OK);
    assert_true(memory_disk_hash(&w->memory) == before);
    return &w->survey;
}

static void assert_damage(const struct survey *s, size_t i, uint64_t first, uint64_t end,
                          uint64_t segment, const char *what) {
    assert_in_range(i, 0, s->damage_count - 1);
    assert_int_equal(s->damage[i].first, first);
    assert_int_equal(s->damage[i].end, end);
    assert_int_equal(s->damage[i].segment, segment);
    assert_string_equal(s->damage[i].what, what);
}

static void a_whole_log_has_its_records_and_no_damage(void **state) {
    const struct survey *s = look(*state);
    assert_int_equal(s->segments_count, 3);
    assert_int_equal(s->oldest, 0);
    assert_int_equal(s->end, 30);
    assert_int_equal(s->records, 30);
    assert_int_equal(s->bytes, 3 * SEGMENT_BYTES);
    assert_int_equal(s->damage_count, 0);
    assert_int_equal(s->segments[1].first, 10);
    assert_int_equal(s->segments[1].end, 20);
    assert_int_equal(s->segments[1].created_us, 1001);
    assert_int_equal(s->segments[1].first_timestamp_us, 5010);
    assert_int_equal(s->segments[1].last_timestamp_us, 5019);
    assert_int_equal(s->segments[1].index, SURVEY_INDEX_MISSING);
    assert_false(s->segments[1].newest);
    assert_true(s->segments[2].newest);
}

static void every_flipped_bit_of_a_sealed_segment_is_seen(void **state) {
    struct world *w = *state;
    for (uint64_t at = 0; at < SEGMENT_BYTES; at++) {
        /* created_us is informational, but the checksum covers it; the reserved bytes are not. */
        bool reserved = at >= 28 && at < 32;
        fixture_flip(&w->memory, DIR, 1, at);
        const struct survey *s = look(w);
        if (reserved) {
            assert_int_equal(s->damage_count, 0);
        } else {
            assert_int_equal(s->damage_count, 1);
            uint64_t record = at < 32 ? 10 : 10 + (at - 32) / FIXTURE_RECORD;
            assert_damage(s, 0, record, at < 32 ? 20 : record + 1, 1, s->damage[0].what);
        }
        assert_int_equal(s->end, 30);
        fixture_flip(&w->memory, DIR, 1, at);
    }
}

static void damage_in_the_middle_loses_one_record_and_says_which_rule(void **state) {
    struct world *w = *state;
    fixture_flip(&w->memory, DIR, 1, AT_RECORD(3) + RECORD_HEADER_BYTES + 5);
    assert_damage(look(w), 0, 13, 14, 1, "checksum");
    fixture_flip(&w->memory, DIR, 1, AT_RECORD(3) + RECORD_HEADER_BYTES + 5);
    fixture_flip(&w->memory, DIR, 1, AT_RECORD(3) + 2);
    assert_damage(look(w), 0, 13, 14, 1, "header_checksum");
    assert_int_equal(w->survey.records, 29);
}

static void damage_at_the_end_of_a_sealed_segment_reaches_to_the_next_one(void **state) {
    struct world *w = *state;
    memory_file_set_length(fixture_file(&w->memory, DIR, 1), AT_RECORD(7) + 10);
    const struct survey *s = look(w);
    assert_int_equal(s->damage_count, 1);
    assert_damage(s, 0, 17, 20, 1, "truncated_header");
}

static void records_inside_a_payload_are_not_taken_for_the_logs(void **state) {
    struct world *w = *state;
    /* A record whose payload is a record of a far offset; then its own header breaks. */
    uint8_t inner[RECORD_HEADER_BYTES + 4], header[RECORD_HEADER_BYTES];
    record_header_encode(999999, 1, slice_of("fake", 4), inner);
    memcpy(inner + RECORD_HEADER_BYTES, "fake", 4);
    struct memory_file *file = fixture_file(&w->memory, DIR, 2);
    record_header_encode(30, 5030, slice_of(inner, sizeof inner), header);
    memory_file_write(file, slice_of(header, sizeof header), AT_RECORD(10));
    memory_file_write(file, slice_of(inner, sizeof inner), AT_RECORD(10) + sizeof header);
    (void)fixture_segment(&w->memory, DIR, 3, 31, 35);
    assert_int_equal(look(w)->records, 35);
    fixture_flip(&w->memory, DIR, 2, AT_RECORD(10));
    const struct survey *s = look(w);
    assert_damage(s, 0, 30, 31, 2, "header_checksum");
    assert_int_equal(s->end, 35);
}

static void a_segment_that_is_missing_is_a_range(void **state) {
    struct world *w = *state;
    assert_int_equal(w->disk.ops->remove(&w->memory, DIR "/00000000000000000001.log"), 0);
    const struct survey *s = look(w);
    assert_int_equal(s->damage_count, 1);
    assert_damage(s, 0, 10, 20, 0, "missing");
}

static void zeros_behind_the_newest_are_length_set_ahead(void **state) {
    struct world *w = *state;
    memory_file_set_length(fixture_file(&w->memory, DIR, 2), 1 << 20);
    const struct survey *s = look(w);
    assert_int_equal(s->damage_count, 0);
    assert_int_equal(s->segments[2].tail, SURVEY_TAIL_ZEROS);
    assert_int_equal(s->segments[2].tail_bytes, (1 << 20) - SEGMENT_BYTES);
    assert_int_equal(s->segments[2].used_bytes, SEGMENT_BYTES);
    /* Also while the one that was newest waits for being cut. */
    (void)fixture_segment(&w->memory, DIR, 3, 30, 30);
    s = look(w);
    assert_int_equal(s->damage_count, 0);
    assert_int_equal(s->end, 30);
    assert_false(s->segments[3].leftover);
}

static void a_cut_record_at_the_end_is_an_unfinished_write(void **state) {
    struct world *w = *state;
    for (uint64_t bytes = AT_RECORD(9) + 1; bytes < SEGMENT_BYTES; bytes++) {
        memory_file_set_length(fixture_file(&w->memory, DIR, 2), bytes);
        const struct survey *s = look(w);
        assert_int_equal(s->damage_count, 0);
        assert_int_equal(s->end, 29);
        assert_int_equal(s->segments[2].tail_bytes, bytes - AT_RECORD(9));
        /* The length of a record begins with three bytes that are zero. */
        bool zeros = bytes <= AT_RECORD(9) + 3;
        assert_int_equal(s->segments[2].tail, zeros ? SURVEY_TAIL_ZEROS : SURVEY_TAIL_TORN);
        fixture_file(&w->memory, DIR, 2)->names--;
        w->memory.name_count--;
        (void)fixture_segment(&w->memory, DIR, 2, 20, 30);
    }
}

static void the_checkpoint_tells_rot_from_an_unfinished_write(void **state) {
    struct world *w = *state;
    fixture_flip(&w->memory, DIR, 2, AT_RECORD(5) + RECORD_HEADER_BYTES);
    assert_damage(look(w), 0, 25, 26, 2, "checksum");
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){26, 2, AT_RECORD(6)});
    const struct survey *s = look(w);
    assert_damage(s, 0, 25, 26, 2, "checksum");
    assert_int_equal(s->end, 30);
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){25, 2, AT_RECORD(5)});
    s = look(w);
    assert_int_equal(s->damage_count, 0);
    assert_int_equal(s->end, 25);
    assert_int_equal(s->segments[2].tail, SURVEY_TAIL_DOUBTFUL);
    assert_int_equal(s->segments[2].tail_bytes, 5 * FIXTURE_RECORD);
}

static void what_the_checkpoint_promises_and_nobody_has_is_damage(void **state) {
    struct world *w = *state;
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){30, 2, SEGMENT_BYTES});
    memory_file_set_length(fixture_file(&w->memory, DIR, 2), AT_RECORD(8));
    const struct survey *s = look(w);
    assert_int_equal(s->damage_count, 1);
    assert_damage(s, 0, 28, 30, 2, "missing");
    assert_int_equal(s->end, 30);
}

static void leftovers_of_a_roll_are_recognised(void **state) {
    struct world *w = *state;
    (void)memory_disk_add_file(&w->memory, DIR "/00000000000000000003.log", slice_of("FLSG", 4), 4);
    const struct survey *s = look(w);
    assert_true(s->segments[3].leftover);
    assert_int_equal(s->damage_count, 0);
    assert_int_equal(s->end, 30);
}

static void behind_an_unfinished_write_later_segments_do_not_count(void **state) {
    struct world *w = *state;
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){14, 1, AT_RECORD(4)});
    fixture_flip(&w->memory, DIR, 1, AT_RECORD(6));
    const struct survey *s = look(w);
    assert_int_equal(s->damage_count, 0);
    assert_int_equal(s->end, 16);
    assert_int_equal(s->records, 16);
    assert_true(s->segments[1].newest);
    assert_int_equal(s->segments[1].tail, SURVEY_TAIL_DOUBTFUL);
    assert_true(s->segments[2].leftover);
    /* The same place, once it was flushed. */
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){22, 2, AT_RECORD(2)});
    s = look(w);
    assert_damage(s, 0, 16, 17, 1, "header_checksum");
    assert_int_equal(s->end, 30);
}

static void
bytes_behind_an_unflushed_segment_are_its_end_even_when_the_next_one_joins(void **state) {
    struct world *w = *state;
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){14, 1, AT_RECORD(4)});
    memory_file_write(fixture_file(&w->memory, DIR, 1), slice_of("xyz", 3), SEGMENT_BYTES);
    const struct survey *s = look(w);
    assert_int_equal(s->end, 20);
    assert_int_equal(s->damage_count, 0);
    assert_true(s->segments[2].leftover);
}

static void no_search_goes_beyond_the_checkpoint(void **state) {
    struct world *w = *state;
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){25, 2, AT_RECORD(5)});
    fixture_flip(&w->memory, DIR, 2, AT_RECORD(4));
    fixture_flip(&w->memory, DIR, 2, AT_RECORD(5));
    const struct survey *s = look(w);
    assert_int_equal(s->damage_count, 1);
    assert_damage(s, 0, 24, 25, 2, "header_checksum");
    assert_int_equal(s->end, 25);
}

static void an_empty_segment_lets_the_one_before_it_end_torn(void **state) {
    struct world *w = *state;
    memory_file_set_length(fixture_file(&w->memory, DIR, 2), AT_RECORD(8) + 5);
    (void)memory_disk_add_file(&w->memory, DIR "/00000000000000000003.log", slice_of("", 0), 0);
    const struct survey *s = look(w);
    assert_int_equal(s->damage_count, 0);
    assert_int_equal(s->end, 28);
    assert_true(s->segments[2].newest);
    assert_true(s->segments[3].leftover);
}

static void torn_files_are_listed_and_foreign_names_are_not(void **state) {
    struct world *w = *state;
    (void)memory_disk_add_file(&w->memory, DIR "/00000000000000000002.torn-712", slice_of("x", 1),
                               1);
    (void)memory_disk_add_file(&w->memory, DIR "/notes.txt", slice_of("x", 1), 1);
    const struct survey *s = look(w);
    assert_int_equal(s->segments_count, 3);
    assert_int_equal(s->torn_count, 1);
    assert_string_equal(s->torn[0].name, "00000000000000000002.torn-712");
    assert_int_equal(s->torn[0].bytes, 1);
}

/* Removes the oldest segments while they are wanted. */
static bool remove_oldest(void *context, const struct survey_segment *segment, uint64_t position,
                          const struct record *record) {
    struct world *w = context;
    if (segment->id == 0 && record->offset == 0) {
        (void)w->disk.ops->remove(&w->memory, DIR "/00000000000000000000.log");
        (void)w->disk.ops->remove(&w->memory, DIR "/00000000000000000001.log");
    }
    return true;
}

static void segments_that_retention_takes_meanwhile_are_left_out(void **state) {
    struct world *w = *state;
    const struct survey_options options = {.on_record = remove_oldest, .context = w};
    assert_int_equal(survey_log(&w->disk, DIR, &options, &w->survey, NULL), FELIX_OK);
    assert_int_equal(w->survey.removed_under_us, 2);
    assert_int_equal(w->survey.oldest, 20);
    assert_int_equal(w->survey.end, 30);
    assert_int_equal(w->survey.damage_count, 0);
}

struct seen {
    uint64_t first, count;
};

static bool note(void *context, const struct survey_segment *segment, uint64_t position,
                 const struct record *record) {
    struct seen *seen = context;
    assert_true(generated_is(record->offset, FIXTURE_PAYLOAD, record->payload));
    assert_int_equal(position, AT_RECORD(record->offset % 10));
    if (seen->count++ == 0)
        seen->first = record->offset;
    return seen->count < 5;
}

static void records_are_told_from_an_offset_on_until_it_is_enough(void **state) {
    struct world *w = *state;
    struct seen seen = {0};
    const struct survey_options options = {.on_record = note, .context = &seen, .from = 17};
    assert_int_equal(survey_log(&w->disk, DIR, &options, &w->survey, NULL), FELIX_OK);
    assert_int_equal(seen.first, 17);
    assert_int_equal(seen.count, 5);
    assert_int_equal(w->survey.segments[0].records, 0);
}

static void a_directory_without_segments_is_no_log(void **state) {
    struct world *w = *state;
    memory_disk_add_dir(&w->memory, "empty");
    struct survey survey;
    struct felix_error error;
    assert_int_equal(survey_log(&w->disk, "empty", NULL, &survey, &error), FELIX_NOT_FOUND);
    assert_int_equal(survey_log(&w->disk, "nowhere", NULL, &survey, &error), FELIX_NOT_FOUND);
    assert_false(survey_is_log(&w->disk, "empty"));
    assert_true(survey_is_log(&w->disk, DIR));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_whole_log_has_its_records_and_no_damage),
        TEST(every_flipped_bit_of_a_sealed_segment_is_seen),
        TEST(damage_in_the_middle_loses_one_record_and_says_which_rule),
        TEST(damage_at_the_end_of_a_sealed_segment_reaches_to_the_next_one),
        TEST(records_inside_a_payload_are_not_taken_for_the_logs),
        TEST(a_segment_that_is_missing_is_a_range),
        TEST(zeros_behind_the_newest_are_length_set_ahead),
        TEST(a_cut_record_at_the_end_is_an_unfinished_write),
        TEST(the_checkpoint_tells_rot_from_an_unfinished_write),
        TEST(what_the_checkpoint_promises_and_nobody_has_is_damage),
        TEST(leftovers_of_a_roll_are_recognised),
        TEST(behind_an_unfinished_write_later_segments_do_not_count),
        TEST(bytes_behind_an_unflushed_segment_are_its_end_even_when_the_next_one_joins),
        TEST(no_search_goes_beyond_the_checkpoint),
        TEST(an_empty_segment_lets_the_one_before_it_end_torn),
        TEST(torn_files_are_listed_and_foreign_names_are_not),
        TEST(segments_that_retention_takes_meanwhile_are_left_out),
        TEST(records_are_told_from_an_offset_on_until_it_is_enough),
        TEST(a_directory_without_segments_is_no_log),
    };
    return cmocka_run_group_tests_name("storage/survey", tests, NULL, NULL);
}
