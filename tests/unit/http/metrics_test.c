/* The text as a Prometheus server reads it. */
#include "http/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct text out;

static int clear(void **) {
    text_deinit(&out);
    return 0;
}

static void a_counter_has_help_type_and_value(void **) {
    metric_counter(&out, "felix_x_total", "Things\nwith \\ in them", UINT64_MAX);
    assert_string_equal(text_str(&out), "# HELP felix_x_total Things\\nwith \\\\ in them\n"
                                        "# TYPE felix_x_total counter\n"
                                        "felix_x_total 18446744073709551615\n");
}

static void label_values_of_a_peer_are_escaped(void **) {
    const struct metric_label labels[] = {{"stream", slice_of("a\"b\\c\nd\xff\xc3\xa9", 10)},
                                          {"reason", slice_str("queue")}};
    metric_family(&out, "felix_g", METRIC_GAUGE, "h");
    text_reset(&out);
    metric_sample_labelled(&out, "felix_g", labels, 2, 3);
    assert_string_equal(
        text_str(&out),
        "felix_g{stream=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\xc3\xa9\",reason=\"queue\"} 3\n");
}

static void histogram_buckets_are_cumulative_and_in_seconds(void **) {
    static struct hist h;
    const struct metric_label label = {"stage", slice_str("decode")};
    hist_record(&h, 900);
    hist_record(&h, 1000);
    hist_record(&h, 3000000);
    hist_record(&h, 2000000000);
    hist_record(&h, 100000000000);
    metric_family(&out, "felix_t_seconds", METRIC_HISTOGRAM, "h");
    metric_histogram(&out, "felix_t_seconds", &label, 1, &h);
    const char *const lines[] = {
        "# TYPE felix_t_seconds histogram\n",
        "felix_t_seconds_bucket{stage=\"decode\",le=\"1e-06\"} 2\n",
        "felix_t_seconds_bucket{stage=\"decode\",le=\"0.0025\"} 2\n",
        "felix_t_seconds_bucket{stage=\"decode\",le=\"0.005\"} 3\n",
        "felix_t_seconds_bucket{stage=\"decode\",le=\"1\"} 3\n",
        "felix_t_seconds_bucket{stage=\"decode\",le=\"2.5\"} 4\n",
        "felix_t_seconds_bucket{stage=\"decode\",le=\"10\"} 4\n",
        "felix_t_seconds_bucket{stage=\"decode\",le=\"+Inf\"} 5\n",
        "felix_t_seconds_sum{stage=\"decode\"} 102.003001900\n",
        "felix_t_seconds_count{stage=\"decode\"} 5\n",
    };
    const char *at = text_str(&out);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        at = strstr(at, lines[i]); /* and in this order */
        assert_non_null(at);
    }
}

static void histogram_without_labels_has_only_le(void **) {
    static struct hist h;
    metric_histogram(&out, "t_seconds", NULL, 0, &h);
    assert_memory_equal(text_str(&out), "t_seconds_bucket{le=\"1e-06\"} 0\n", 31);
    assert_non_null(strstr(text_str(&out), "\nt_seconds_sum 0.000000000\nt_seconds_count 0\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_counter_has_help_type_and_value, clear),
        cmocka_unit_test_teardown(label_values_of_a_peer_are_escaped, clear),
        cmocka_unit_test_teardown(histogram_buckets_are_cumulative_and_in_seconds, clear),
        cmocka_unit_test_teardown(histogram_without_labels_has_only_le, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
