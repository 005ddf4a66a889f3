#include "latency_report.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull;

static const char *truth(bool value) {
    return value ? "true" : "false";
}

static double rate(uint64_t n, uint64_t ns) {
    return ns == 0 ? 0 : (double)n * 1e9 / (double)ns;
}

static const char *mode_name(enum latency_mode mode) {
    static const char *const names[] = {"single", "all", "matrix", "smoke", "compare-shaping"};
    return names[mode];
}

static const char *broker_name(const struct latency_settings *s) {
    return s->target.connect != NULL ? s->target.connect : "in-process";
}

void latency_report_begin(const struct latency_settings *s, size_t cases) {
    if (s->json) {
        (void)printf("{\"demo\":\"latencydemo\",\"version\":\"%s\",\"mode\":\"%s\",\"broker\":",
                     felix_version(), mode_name(s->mode));
        struct text name = {0};
        text_quoted(&name, slice_str(broker_name(s)));
        (void)printf("%s,\"cases\":[", text_str(&name));
        text_deinit(&name);
        return;
    }
    (void)printf("== Felix latency demo ==\n"
                 "Mode: %s | broker: %s | QUIC, TLS 1.3\n"
                 "Note: frames and deliveries are binary in any case; batch 1 without --binary "
                 "waits for the broker's answer to each message, all else does not.\n",
                 mode_name(s->mode), broker_name(s));
    if (s->mode == MODE_ALL)
        (void)printf("Running all: %zu cases, one trial each; quote medians of several runs.\n",
                     cases);
}

void latency_report_case(const struct latency_settings *s, const struct latency_case *c) {
    if (s->json)
        return;
    (void)printf("\nWarmup: %llu messages | Measure: %llu messages | payload %llu bytes | fanout "
                 "%llu | batch %llu | binary %s | pub conns %llu | pub streams/conn %llu | pub "
                 "stream count %llu | sub conns %llu | pub yield every %llu batches | sub "
                 "dedicated thread %s | sub delivery shaping %s\n",
                 (ull)c->warmup, (ull)c->total, (ull)c->payload_bytes, (ull)c->fanout,
                 (ull)c->batch, truth(c->binary), (ull)c->pub_conns, (ull)c->pub_streams_per_conn,
                 (ull)c->stream_count, (ull)c->sub_conns, (ull)s->yield_batches,
                 truth(c->dedicated), truth(c->shaping));
    if (latency_acked(c))
        (void)printf("Expectation: latency-focused run, p999 <= 1 ms on an idle machine\n");
    else
        (void)printf("Expectation: throughput-focused run, delays grow with the queue\n");
    if (latency_undersized(c))
        (void)printf("WARNING: run volume %.1f MB is smaller than the buffers on the way (%.0f "
                     "MB): this may measure how fast they fill; raise --total\n",
                     (double)(c->total * (c->payload_bytes + STAMP_BYTES)) / 1e6,
                     (double)BUFFERS_BYTES / 1e6);
    (void)fflush(stdout);
}

/* ---- text ---- */

static void print_percentiles(const struct latency_case *c, const struct samples *samples) {
    static const struct {
        const char *name;
        double p;
    } rows[] = {{"p50 ", 0.50}, {"p99 ", 0.99}, {"p999", 0.999}};
    const char *indent = c->batch > 1 ? "    " : "  ";
    if (c->batch > 1)
        (void)printf("  queueing delay (NOT per-message latency; batch=%llu run, grows with "
                     "--total):\n",
                     (ull)c->batch);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (samples->count == 0)
            (void)printf("%s%s = n/a (no received samples)\n", indent, rows[i].name);
        else
            (void)printf("%s%s = %s\n", indent, rows[i].name,
                         demo_duration(samples_rounded_index(samples, rows[i].p)).text);
    }
}

static void print_throughput(const struct latency_case *c, const struct latency_result *r) {
    double delivered = rate(r->delivered, r->elapsed_ns);
    (void)printf("  publish submit throughput = %.2f msg/s\n", rate(r->sent, r->publish_ns));
    (void)printf("  publish duration = %s\n", demo_duration(r->publish_ns).text);
    (void)printf("  delivery drain duration = %s\n",
                 demo_duration(r->elapsed_ns - r->publish_ns).text);
    (void)printf("  throughput = %.2f msg/s\n", rate(r->sent, r->elapsed_ns));
    (void)printf("  effective throughput = %.2f msg/s\n", rate(r->samples.count, r->elapsed_ns));
    (void)printf("  delivered throughput = %.2f msg/s\n", delivered);
    (void)printf("  delivered per-sub throughput = %.2f msg/s\n", delivered / (double)c->fanout);
}

static void print_counters(const struct latency_result *r) {
    const struct felix_stats *pub = &r->pub;
    (void)printf("  frame_counters: client pub_items_out_ok=%llu pub_bytes_out=%llu "
                 "acks_in_ok=%llu pub_items_out_err=%llu datagrams_out=%llu datagrams_in=%llu\n",
                 (ull)pub->published, (ull)pub->publish_bytes, (ull)pub->publish_acked,
                 (ull)pub->publish_failed, (ull)pub->datagrams_out, (ull)pub->datagrams_in);
    const struct node_stats *n = &r->node;
    if (r->inside)
        (void)printf("  frame_counters: broker pub_in_ok=%llu pub_items_in_ok=%llu "
                     "ack_out_ok=%llu sub_items_out_ok=%llu sub_batches_out_ok=%llu "
                     "datagrams_in=%llu datagrams_out=%llu recv_calls=%llu send_calls=%llu "
                     "wakeups=%llu\n",
                     (ull)n->publish_frames, (ull)n->publish_items, (ull)n->acks_sent,
                     (ull)n->delivered_items, (ull)n->delivered_frames, (ull)n->datagrams_in,
                     (ull)n->datagrams_out, (ull)n->recv_calls, (ull)n->send_calls,
                     (ull)n->wakeups);
}

static void sanity(bool good, const char *what, uint64_t got, uint64_t wanted) {
    if (!good)
        (void)printf("  sanity: %s is %llu, should be %llu\n", what, (ull)got, (ull)wanted);
}

static void print_sanity(const struct latency_case *c, const struct latency_result *r) {
    uint64_t items = c->warmup + c->total;
    sanity(r->pub.published == items, "client items out", r->pub.published, items);
    if (!r->inside)
        return;
    sanity(r->node.publish_items == items, "broker items in", r->node.publish_items, items);
    sanity(r->node.delivered_items == items * c->fanout, "broker items out",
           r->node.delivered_items, items * c->fanout);
    sanity(r->node.acks_sent == (latency_acked(c) ? items : 0), "broker acknowledgements",
           r->node.acks_sent, latency_acked(c) ? items : 0);
}

static void print_timings(const struct latency_settings *s, const struct latency_result *r) {
    struct text line = {0};
    if (r->stages != NULL) {
        stages_line(r->stages, &line);
        (void)printf("  timings: %s\n", text_str(&line));
    } else if (s->target.connect != NULL) {
        (void)printf("  timings of the stages: /metrics of the broker has them "
                     "(felix_stage_seconds)\n");
    }
    text_deinit(&line);
}

static void print_text(const struct latency_settings *s, const struct latency_case *c,
                       const struct latency_result *r) {
    (void)printf("Results (publish n = %llu, sampled %llu, received %llu, unaccounted %llu) "
                 "payload=%lluB fanout=%llu batch=%llu binary=%s:\n",
                 (ull)r->sent, (ull)r->sampled, (ull)r->samples.count, (ull)r->unaccounted,
                 (ull)c->payload_bytes, (ull)c->fanout, (ull)c->batch, truth(c->binary));
    (void)printf("  delivered total = %llu\n", (ull)r->delivered);
    print_percentiles(c, &r->samples);
    print_throughput(c, r);
    if (r->acks.count > 0)
        (void)printf("  acknowledged (there and back): p50 = %s, p99 = %s, p999 = %s\n",
                     demo_duration(samples_rounded_index(&r->acks, 0.50)).text,
                     demo_duration(samples_rounded_index(&r->acks, 0.99)).text,
                     demo_duration(samples_rounded_index(&r->acks, 0.999)).text);
    (void)printf("  accounting: sent %llu, expected %llu, delivered %llu, dropped %llu, "
                 "unaccounted %llu\n",
                 (ull)r->sent, (ull)r->expected, (ull)r->delivered, (ull)r->dropped,
                 (ull)r->unaccounted);
    print_timings(s, r);
    if (c->counted) {
        print_counters(r);
        print_sanity(c, r);
    }
    if (!latency_result_good(r))
        (void)printf("  sanity: INVALID RUN: %llu of %llu deliveries, %llu more than once\n",
                     (ull)r->delivered, (ull)r->expected, (ull)r->duplicates);
}

/* ---- JSON ---- */

static void json_case(const struct latency_settings *s, const struct latency_case *c,
                      struct text *out) {
    text_printf(out,
                "{\"warmup\":%llu,\"total\":%llu,\"payload\":%llu,\"fanout\":%llu,\"batch\":%llu,"
                "\"binary\":%s,\"acked\":%s,\"pub_conns\":%llu,\"pub_streams_per_conn\":%llu,"
                "\"pub_stream_count\":%llu,\"pub_sharding\":\"%s\",\"sub_conns\":%llu,"
                "\"sub_dedicated_thread\":%s,\"sub_delivery_shaping\":%s,\"undersized\":%s",
                (ull)c->warmup, (ull)c->total, (ull)c->payload_bytes, (ull)c->fanout, (ull)c->batch,
                truth(c->binary), truth(latency_acked(c)), (ull)c->pub_conns,
                (ull)c->pub_streams_per_conn, (ull)c->stream_count,
                s->sharding == 0 ? "hash_stream" : "rr", (ull)c->sub_conns, truth(c->dedicated),
                truth(c->shaping), truth(latency_undersized(c)));
}

static void json_percentiles(const struct samples *samples, const char *prefix, struct text *out) {
    static const struct {
        const char *name;
        double p;
    } rows[] = {{"p50", 0.50}, {"p90", 0.90}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (samples->count == 0)
            text_printf(out, ",\"%s%s_us\":null", prefix, rows[i].name);
        else
            text_printf(out, ",\"%s%s_us\":%.3f", prefix, rows[i].name,
                        (double)samples_rounded_index(samples, rows[i].p) / 1e3);
    }
}

static void json_result(const struct latency_case *c, const struct latency_result *r,
                        struct text *out) {
    double delivered = rate(r->delivered, r->elapsed_ns);
    text_printf(out,
                ",\"valid\":%s,\"sent\":%llu,\"expected\":%llu,\"delivered\":%llu,"
                "\"dropped\":%llu,\"unaccounted\":%llu,\"duplicates\":%llu,\"sampled\":%llu,"
                "\"received\":%llu",
                truth(latency_result_good(r)), (ull)r->sent, (ull)r->expected, (ull)r->delivered,
                (ull)r->dropped, (ull)r->unaccounted, (ull)r->duplicates, (ull)r->sampled,
                (ull)r->samples.count);
    json_percentiles(&r->samples, "", out);
    if (latency_acked(c))
        json_percentiles(&r->acks, "ack_", out);
    text_printf(out,
                ",\"publish_us\":%.1f,\"drain_us\":%.1f,\"elapsed_us\":%.1f,"
                "\"publish_submit_throughput\":%.2f,\"throughput\":%.2f,"
                "\"effective_throughput\":%.2f,\"delivered_throughput\":%.2f,"
                "\"delivered_per_sub_throughput\":%.2f,\"delivered_mb_per_s\":%.3f",
                (double)r->publish_ns / 1e3, (double)(r->elapsed_ns - r->publish_ns) / 1e3,
                (double)r->elapsed_ns / 1e3, rate(r->sent, r->publish_ns),
                rate(r->sent, r->elapsed_ns), rate(r->samples.count, r->elapsed_ns), delivered,
                delivered / (double)c->fanout,
                delivered * (double)(c->payload_bytes + STAMP_BYTES) / 1e6);
    if (r->stages != NULL) {
        text_add(out, ",\"stages\":");
        stages_json(r->stages, out);
    }
}

static void print_json(const struct latency_settings *s, const struct latency_case *c,
                       const struct latency_result *r) {
    static bool first = true;
    struct text out = {0};
    text_add(&out, first ? "\n" : ",\n");
    first = false;
    json_case(s, c, &out);
    if (r->err != FELIX_OK) {
        text_printf(&out, ",\"valid\":false,\"error\":\"%s\",\"detail\":", felix_err_name(r->err));
        text_quoted(&out, slice_str(r->error));
    } else {
        json_result(c, r, &out);
    }
    text_add(&out, "}");
    (void)fputs(text_str(&out), stdout);
    text_deinit(&out);
}

void latency_report_result(const struct latency_settings *s, const struct latency_case *c,
                           const struct latency_result *r) {
    if (s->json)
        print_json(s, c, r);
    else if (r->err == FELIX_OK)
        print_text(s, c, r);
    (void)fflush(stdout);
    if (r->err != FELIX_OK && r->expected == 0)
        out_error("%s", r->error);
    else if (r->err != FELIX_OK)
        out_error("the run failed: %s (%llu of %llu deliveries had arrived)", r->error,
                  (ull)r->delivered, (ull)r->expected);
    else if (r->interrupted)
        out_error("interrupted after %llu of %llu deliveries", (ull)r->delivered, (ull)r->expected);
    else if (!latency_result_good(r))
        out_error("%llu of %llu deliveries arrived, %llu were dropped, %llu are unaccounted",
                  (ull)r->delivered, (ull)r->expected, (ull)r->dropped, (ull)r->unaccounted);
}

void latency_report_end(const struct latency_settings *s) {
    if (s->json)
        (void)puts("]}");
}
