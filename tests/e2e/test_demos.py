"""latencydemo and cachedemo: the lines that parsers rely on, the account, exit codes, manners."""

import concurrent.futures
import json
import os
import pty
import re
import select
import signal
import subprocess

import pytest
from felix_testlib.broker import SANITIZER, binary, environment, run
from felix_testlib.slow import scaled, wait_until

RESULTS = re.compile(
    r"^Results \(publish n = (?P<sent>\d+), sampled (?P<sampled>\d+), received (?P<received>\d+), "
    r"unaccounted (?P<unaccounted>\d+)\) payload=(?P<payload>\d+)B fanout=(?P<fanout>\d+) "
    r"batch=(?P<batch>\d+) binary=(?P<binary>true|false):$"
)
DURATION = r"(?:\d+ us|\d+\.\d{3} ms)"
RATES = (
    "publish submit throughput",
    "throughput",
    "effective throughput",
    "delivered throughput",
    "delivered per-sub throughput",
)
ACCOUNT = re.compile(
    r"^  accounting: sent (\d+), expected (\d+), delivered (\d+), dropped (\d+), unaccounted (\d+)$"
)
# A machine with much else to do may be silent for longer than the demo's usual patience.
PATIENT = ("--idle-ms", 30000)
SMALL = ("--warmup", 20, "--total", 200, *PATIENT)


def demo(*args, name="latencydemo", status=0, env=None, home=None, seconds=60):
    done = run(*args, name=name, env=env, home=home, seconds=seconds)
    output = done.stdout + done.stderr
    assert not SANITIZER.search(output), output
    assert done.returncode == status, f"exit status {done.returncode}:\n{output}"
    return done


def cachedemo(*args, **more):
    return demo(*args, name="cachedemo", **more)


def blocks(text):
    """The result blocks of latencydemo as the performance scripts read them."""
    found = []
    for line in text.splitlines():
        match = RESULTS.match(line)
        if match:
            found.append({"head": match.groupdict(), "lines": []})
        elif found and line.startswith("  "):
            found[-1]["lines"].append(line)
    for block in found:
        head = block["head"]
        block.update({k: int(v) for k, v in head.items() if k != "binary"})
        for line in block["lines"]:
            match = re.match(r"^ +(p50|p99|p999) += (.+)$", line)
            if match:
                block[match[1]] = match[2]
            match = re.match(r"^  ([a-z -]+) = (\d+\.\d\d) msg/s$", line)
            if match:
                block[match[1]] = float(match[2])
            match = re.match(r"^  delivered total = (\d+)$", line)
            if match:
                block["delivered"] = int(match[1])
            match = ACCOUNT.match(line)
            if match:
                block["account"] = [int(x) for x in match.groups()]
    return found


def connect_args(broker):
    return ("--connect", broker.address, "--ca", broker.ca, "--token-file", broker.path("token"))


# ---- the lines


def test_a_batched_run_prints_every_line_the_parsers_want():
    done = demo("--binary", "--fanout", 3, "--batch", 16, "--payload", 512, *SMALL)
    (block,) = blocks(done.stdout)
    assert block["head"] == {
        "sent": "200", "sampled": "200", "received": "200", "unaccounted": "0",
        "payload": "512", "fanout": "3", "batch": "16", "binary": "true",
    }  # fmt: skip
    assert block["delivered"] == 600
    assert block["account"] == [200, 600, 600, 0, 0]
    assert block["lines"][1].startswith("  queueing delay (NOT per-message latency; batch=16 run")
    for number, name in enumerate(("p50 ", "p99 ", "p999")):
        assert re.fullmatch(rf"    {name} = {DURATION}", block["lines"][2 + number])
    for rate in RATES:
        assert block[rate] > 0
    assert block["delivered throughput"] == pytest.approx(block["throughput"] * 3, rel=1e-3)
    assert block["delivered per-sub throughput"] == pytest.approx(block["throughput"], rel=1e-3)
    for name in ("publish duration", "delivery drain duration"):
        assert any(re.fullmatch(rf"  {name} = {DURATION}", line) for line in block["lines"])
    assert re.search(
        r"^Warmup: 20 messages \| Measure: 200 messages \| payload 512 bytes \| fanout 3 \| "
        r"batch 16 \| binary true \| pub conns 4 \| pub streams/conn 2 \| pub stream count 1",
        done.stdout, re.MULTILINE,
    )  # fmt: skip
    assert "Expectation: throughput-focused" in done.stdout
    assert done.stderr == ""


def test_one_at_a_time_is_acknowledged_and_its_percentiles_stand_alone():
    done = demo("--batch", 1, "--payload", 64, *SMALL)
    (block,) = blocks(done.stdout)
    assert "queueing" not in done.stdout and "WARNING" not in done.stdout
    assert "Expectation: latency-focused" in done.stdout
    assert any(re.fullmatch(rf"  p999 = {DURATION}", line) for line in block["lines"])
    assert block["account"] == [200, 200, 200, 0, 0]


def test_a_run_smaller_than_the_buffers_says_so():
    done = demo("--batch", 64, "--payload", 1024, *SMALL)
    assert re.search(r"^WARNING: run volume 0\.2 MB", done.stdout, re.MULTILINE)


def test_streams_share_the_load_exactly():
    args = ("--fanout", 2, "--batch", 8, "--total", 100, "--warmup", 7, *PATIENT)
    done = demo("--pub-stream-count", 3, *args)
    (block,) = blocks(done.stdout)
    assert (block["sampled"], block["received"]) == (34, 34)
    assert block["account"] == [100, 200, 200, 0, 0]


@pytest.mark.parametrize(
    "args",
    [
        ("--sub-conns", 0),
        ("--sub-conns", 3),
        ("--sub-dedicated-thread",),
        ("--sub-delivery-shaping-off", "--payload", 300),
        ("--pub-sharding", "rr", "--pub-conns", 2),
        ("--pub-yield-every-batches", 2, "--log-capacity", 10),
    ],
    ids=lambda args: " ".join(map(str, args)),
)
def test_every_arrangement_delivers_everything(args):
    done = demo("--fanout", 4, "--batch", 10, *SMALL, *args)
    (block,) = blocks(done.stdout)
    assert block["account"] == [200, 800, 800, 0, 0]


def test_nothing_is_lost_when_the_broker_can_queue_next_to_nothing():
    """Queues block unless the environment says otherwise, however short they are."""
    args = ("--binary", "--fanout", 10, "--batch", 64, "--payload", 4096, "--total", 3000)
    done = demo(*args, "--warmup", 0, *PATIENT, env={"FELIX_SUBSCRIBER_QUEUE_CAPACITY": 1})
    (block,) = blocks(done.stdout)
    assert block["account"] == [3000, 30000, 30000, 0, 0]


def test_stages_of_the_broker_are_shown_unless_turned_off():
    args = ("--batch", 10, *SMALL)
    assert re.search(r"^  timings: broker_read p50=\S+ us p99=", demo(*args).stdout, re.MULTILINE)
    assert "timings:" not in demo(*args, env={"FELIX_DISABLE_TIMINGS": 1}).stdout


# ---- sweeps


@pytest.mark.parametrize("args,cases", [((), 5), (("--all", "--binary"), 4)])
def test_the_sweep_runs_its_cases(args, cases):
    done = demo(*args, env={"FELIX_LATENCY_DEMO_FAST": 1})
    found = blocks(done.stdout)
    assert [b["account"] for b in found] == [[5, 5, 5, 0, 0]] * cases
    assert [b["batch"] for b in found] == [1] + [64] * (cases - 1)
    # The pair at the end compares pools and prints no counters.
    counted = ["frame_counters: broker" in "\n".join(b["lines"]) for b in found]
    assert counted == [True] * (cases - 2) + [False, False]
    assert "sanity:" not in done.stdout


def test_the_matrix_is_payloads_times_fanouts():
    done = demo("--matrix", "--payloads", "0,100", "--fanouts", "1,2", "--batch", 8, *SMALL)
    found = blocks(done.stdout)
    grid = [(b["payload"], b["fanout"], b["delivered"]) for b in found]
    assert grid == [(0, 1, 200), (0, 2, 400), (100, 1, 200), (100, 2, 400)]
    alone = demo("--matrix", "--payloads", "0", "--fanouts", "1", "--batch", 8)
    assert "Warmup: 200 messages | Measure: 2000 messages" in alone.stdout


def test_of_all_and_matrix_the_later_one_decides():
    env = {"FELIX_LATENCY_DEMO_FAST": 1}
    grid = ("--payloads", "0", "--fanouts", "1,3")
    assert len(blocks(demo("--matrix", "--all", env=env).stdout)) == 5
    assert len(blocks(demo("--all", "--matrix", *grid, *SMALL, env=env).stdout)) == 2


def test_shaping_is_compared_off_then_on():
    done = demo("--compare-sub-delivery-shaping", "--batch", 8, *SMALL)
    assert len(blocks(done.stdout)) == 2
    assert re.findall(r"sub delivery shaping (\w+)$", done.stdout, re.MULTILINE) == [
        "false",
        "true",
    ]


# ---- JSON


def test_json_is_one_document_that_adds_up():
    done = demo("--json", "--binary", "--fanout", 2, "--batch", 16, "--payload", 128, *SMALL)
    document = json.loads(done.stdout)
    assert document["broker"] == "in-process" and document["mode"] == "single"
    (case,) = document["cases"]
    assert case["valid"] is True and case["binary"] is True and case["acked"] is False
    assert case["expected"] == case["delivered"] + case["dropped"] + case["unaccounted"] == 400
    assert 0 < case["p50_us"] <= case["p99_us"] <= case["p999_us"] <= case["max_us"]
    assert case["elapsed_us"] == pytest.approx(case["publish_us"] + case["drain_us"], abs=0.3)
    assert case["delivered_throughput"] == pytest.approx(400e6 / case["elapsed_us"], rel=1e-3)
    assert case["stages"]["decode"]["count"] == 13
    assert case["undersized"] is True


def test_json_of_acknowledged_messages_has_their_round_trips_beside():
    document = json.loads(demo("--json", "--batch", 1, *SMALL).stdout)
    (case,) = document["cases"]
    assert case["acked"] is True
    assert 0 < case["ack_p50_us"] <= case["ack_p99_us"] <= case["ack_max_us"] <= case["publish_us"]
    assert 200 * case["ack_p50_us"] <= 2.1 * case["publish_us"]


def test_json_of_a_sweep_is_one_document():
    document = json.loads(demo("--json", env={"FELIX_LATENCY_DEMO_FAST": 1}).stdout)
    assert [c["delivered"] for c in document["cases"]] == [5] * 5


def test_json_of_a_failed_run_says_why():
    args = ("--json", *SMALL, "--connect", "127.0.0.1:1")
    done = demo(*args, env={"FELIX_AUTH_TOKEN": "x.y.z"}, status=3)
    (case,) = json.loads(done.stdout)["cases"]
    assert case["valid"] is False and "127.0.0.1:1" in case["detail"]


# ---- what is missing


def test_what_the_broker_dropped_is_counted_as_such():
    env = {"FELIX_SUB_QUEUE_POLICY": "drop_new", "FELIX_SUBSCRIBER_QUEUE_CAPACITY": 1}
    args = ("--binary", "--fanout", 10, "--batch", 64, "--payload", 4096, "--total", 3000)
    done = demo(*args, "--warmup", 0, *PATIENT, env=env, status=1)
    (block,) = blocks(done.stdout)
    sent, expected, delivered, dropped, unaccounted = block["account"]
    assert (sent, expected) == (3000, 30000)
    assert dropped > 0 and unaccounted == 0
    assert delivered + dropped == expected
    assert "sanity: INVALID RUN" in done.stdout
    assert f"{dropped} were dropped" in done.stderr


def test_what_a_foreign_broker_dropped_is_unaccounted(start_broker):
    broker = start_broker(env={"FELIX_SUBSCRIBER_QUEUE_CAPACITY": 1})
    args = ("--binary", "--fanout", 10, "--batch", 64, "--payload", 4096, "--total", 3000)
    done = demo(*args, "--warmup", 0, "--idle-ms", 2000, *connect_args(broker), status=1)
    (block,) = blocks(done.stdout)
    sent, expected, delivered, dropped, unaccounted = block["account"]
    assert unaccounted > 0 and dropped == 0
    assert delivered + unaccounted == expected == 30000
    assert broker.metric("felix_sub_queue_dropped_total") == unaccounted


# ---- another broker


def test_connect_measures_a_broker_that_runs_already(broker):
    before = broker.metric("felix_publish_items_total")
    done = demo("--fanout", 2, "--batch", 10, *SMALL, *connect_args(broker))
    (block,) = blocks(done.stdout)
    assert block["account"] == [200, 400, 400, 0, 0]
    assert broker.address in done.stdout and "/metrics of the broker" in done.stdout
    assert broker.metric("felix_publish_items_total") - before == 220


def test_a_development_broker_is_found_without_flags(broker):
    env = {"FELIX_DATA_DIR": broker.data_dir}
    demo("--batch", 10, *SMALL, "--connect", broker.address, env=env)
    cachedemo("--samples", 20, "--keys", 5, "--payloads", 16, "--connect", broker.address, env=env)


def test_two_runs_on_one_stream_do_not_count_each_other(start_broker):
    broker = start_broker(env={"FELIX_SUB_QUEUE_POLICY": "block", "FELIX_PUB_INGRESS_WAIT": 1})
    args = ("--fanout", 2, "--batch", 4, "--total", 4000, *PATIENT, *connect_args(broker))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: demo(*args), range(2)))
    assert [blocks(d.stdout)[0]["account"] for d in done] == [[4000, 8000, 8000, 0, 0]] * 2


def test_a_stream_that_does_not_exist_is_an_error_that_says_so(scope, tmp_path):
    token = tmp_path / "token"
    token.write_text(scope.token())
    done = demo(*SMALL, "--connect", scope.broker.address, "--ca", scope.cert_path,
                "--token-file", token, status=4)  # fmt: skip
    assert "cannot subscribe" in done.stderr


def test_nobody_at_the_address_ends_with_a_status_of_its_own():
    for name in ("latencydemo", "cachedemo"):
        done = demo("--connect", "127.0.0.1:1", name=name, env={"FELIX_AUTH_TOKEN": "x.y.z"},
                    status=3)  # fmt: skip
        assert done.stderr.startswith(f"{name}: cannot connect to 127.0.0.1:1: nothing listens")


def test_without_a_token_the_message_says_where_one_comes_from():
    done = cachedemo("--connect", "127.0.0.1:1", status=4)
    assert "FELIX_TOKEN_FILE" in done.stderr


# ---- arguments


@pytest.mark.parametrize(
    "args,text",
    [
        (("--fan-out", "3"), "did you mean --fanout?"),
        (("--total", "ten"), "'ten' is not a number"),
        (("--total", "0"), "--total"),
        (("--batch", "0"), "--batch"),
        (("--fanout", "-1"), "--fanout"),
        (("--payload",), "--payload needs a value"),
        (("--pub-sharding", "random"), "hash_stream|rr"),
        (("--matrix", "--payloads", "1,x"), "'1,x' is not a list"),
        (("--matrix", "--fanouts", "0"), "'0' is not a list"),
        (("--all", "false"), "'false' is not an option"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_what_cannot_be_meant_is_an_error(args, text):
    done = demo(*args, status=2)
    assert text in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    "name,variable,value",
    [
        ("latencydemo", "FELIX_SUB_EGRESS_CONNS", "many"),
        ("latencydemo", "FELIX_LATENCY_DEMO_FAST", "quick"),
        ("cachedemo", "FELIX_CACHE_BENCH_SAMPLES", "0"),
        ("cachedemo", "FELIX_CACHE_BENCH_PAYLOADS", "1,,2"),
        ("cachedemo", "FELIX_CACHE_BENCH_OPS", "put,del"),
        ("cachedemo", "FELIX_CACHE_BENCH_TIMINGS", "often"),
    ],
)
def test_a_variable_that_cannot_be_used_is_an_error(name, variable, value):
    done = demo(name=name, env={variable: value}, status=2)
    assert value.split(",")[-1] in done.stderr and done.stdout == ""


def test_what_has_no_meaning_here_is_accepted_with_one_warning():
    done = demo("--sub-writer-lanes", 4, "--sub-lane-shard", "auto", "--batch", 10, *SMALL,
                env={"FELIX_WORKER_THREADS": 2, "FELIX_BENCH_EMBED_TS": 1})  # fmt: skip
    warnings = done.stderr.splitlines()
    assert len(warnings) == 2
    assert "--sub-lane-shard have no effect" in warnings[0]
    assert "FELIX_WORKER_THREADS, FELIX_BENCH_EMBED_TS" in warnings[1]


def test_the_environment_stands_for_flags_and_flags_win():
    env = {"FELIX_PUB_CONN_POOL": 2, "FELIX_SUB_CONNS": 3, "FELIX_SUB_DELIVERY_SHAPING": 0}
    line = demo("--batch", 10, *SMALL, env=env).stdout
    assert "| pub conns 2 |" in line and "| sub conns 3 |" in line
    assert "shaping false" in line
    assert "| pub conns 5 |" in demo("--pub-conns", 5, *SMALL, env=env).stdout


@pytest.mark.parametrize("name", ["latencydemo", "cachedemo"])
def test_help_names_every_option_and_starts_nothing(name):
    done = demo("--help", name=name)
    for word in ("--connect", "--json", "exit codes:", "environment:"):
        assert word in done.stdout


# ---- manners


@pytest.mark.parametrize("name", ["latencydemo", "cachedemo"])
def test_nothing_is_left_behind_after_an_interruption(name, tmp_path):
    args = {"latencydemo": ("--total", 100000000), "cachedemo": ("--samples", 100000000)}[name]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [binary(name), *map(str, args)],
        env=environment(tmp_path, {"TMPDIR": temporary}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: list(temporary.glob("*/token")), 20, "the broker inside is up")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=scaled(30))
    finally:
        process.kill()
    assert process.returncode == 1, out + err
    assert os.listdir(temporary) == []


def test_progress_is_for_terminals_only(tmp_path):
    """With a terminal as standard error there is a bar; all other tests see none."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [binary("latencydemo"), "--total", "100000000"],
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while b"measure" not in seen and select.select([master], [], [], scaled(10))[0]:
            seen += os.read(master, 4096)
    finally:
        process.send_signal(signal.SIGINT)
        # Somebody has to read, or the demo could block on its own bar.
        while True:
            try:
                if not os.read(master, 4096):
                    break
            except OSError:
                break
        process.wait(scaled(30))
        os.close(master)
    assert re.search(rb"\r  measure +\[[# ]{30}\] +\d+ % \([\d,]+ of 100,000,000\)", seen)


# ---- the cache

OP = re.compile(
    r"^(put|get_hit|get_miss): n=(\d+) p50=(\d+\.\d\d)us p99=(\d+\.\d\d)us p999=(\d+\.\d\d)us "
    r"avg=(\d+\.\d\d)us throughput=(\d+\.\d\d) ops/s$",
    re.MULTILINE,
)
CACHE_SMALL = {
    "FELIX_CACHE_BENCH_WARMUP": 10,
    "FELIX_CACHE_BENCH_SAMPLES": 100,
    "FELIX_CACHE_BENCH_KEYS": 16,
}


def test_cachedemo_prints_its_steps_and_lines():
    done = cachedemo(env=CACHE_SMALL)
    for step in range(1, 5):
        assert f"Step {step}/4" in done.stdout
    assert "payloads=[0, 64, 256, 1024, 4096] ttl_ms=none concurrency=1 keys=16" in done.stdout
    sizes = re.findall(r"^Payload size: (\d+) bytes$", done.stdout, re.MULTILINE)
    assert sizes == ["0", "64", "256", "1024", "4096"]
    assert "Validation: get_hit value_len=4096 bytes" in done.stdout
    ops = OP.findall(done.stdout)
    assert [o[0] for o in ops] == ["put", "get_hit", "get_miss"] * 5
    assert all(o[1] == "100" and float(o[2]) <= float(o[3]) <= float(o[4]) for o in ops)
    assert done.stdout.endswith(
        "Cache get response: cached\nCache get after TTL: None\nDemo complete.\n"
    )
    assert done.stderr == ""


def test_cachedemo_keeps_many_in_flight_and_checks_each():
    done = cachedemo("--concurrency", 32, "--validate-each", "--payloads", "0,300", "--samples", 500,
                     "--ops", "get_miss,get_hit", "--json", env=CACHE_SMALL)  # fmt: skip
    document = json.loads(done.stdout)
    assert document["valid"] is True and document["concurrency"] == 32
    results = [(r["op"], r["payload"], r["n"], r["misses"]) for r in document["results"]]
    assert results == [
        ("get_hit", 0, 500, 0),
        ("get_miss", 0, 500, 500),
        ("get_hit", 300, 500, 0),
        ("get_miss", 300, 500, 500),
    ]


def test_cachedemo_shows_stages_when_asked():
    args = ("--payloads", 64, "--ops", "put")
    env = {**CACHE_SMALL, "FELIX_CACHE_BENCH_TIMINGS": 1}
    assert "\ntimings[put] broker_read p50=" in cachedemo(*args, env=env).stdout
    assert "timings[put]" not in cachedemo(*args, env=CACHE_SMALL).stdout


def test_hits_that_are_none_fail_the_run():
    """A time to live that ends while the keys are read turns hits into misses."""
    done = cachedemo("--ttl-ms", 300, "--payloads", 64, "--ops", "get_hit", "--keys", 16,
                     "--samples", 40000, status=1)  # fmt: skip
    assert re.search(r"get_hit: \d+ of 40000 found nothing", done.stderr)


def test_keys_that_are_gone_at_once_fail_the_validation():
    done = cachedemo("--ttl-ms", 1, "--payloads", 64, "--keys", 4000, status=1)
    assert "validation of hit-64-0" in done.stderr


def test_cachedemo_measures_another_broker(broker):
    before = broker.metric("felix_cache_misses_total")
    done = cachedemo("--payloads", 64, *connect_args(broker), env=CACHE_SMALL)
    assert len(OP.findall(done.stdout)) == 3
    assert broker.metric("felix_cache_misses_total") - before >= 110
