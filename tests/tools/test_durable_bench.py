"""bench/durable: what counts as reached, and that its loads count answers and records."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[1:1] = [str(ROOT / part) for part in ("bench/durable", "bench/peers", "scripts/perf", "tests/tools")]

import workloads  # noqa: E402
import page  # noqa: E402
from test_peers import Lines, load  # noqa: E402

BUILD = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin")).resolve().parent
BY_KEY = {case.key: case for case in workloads.CASES}
DISK = {"fdatasync_us": 200.0, "fdatasync_ahead_us": 150.0, "udp_echo_us": 50.0}


def reached(key, **table):
    return BY_KEY[key].verdict({"disk": DISK, **table})[1]


# ---- what counts as reached ----


@pytest.mark.parametrize("p50_us, good", [(300, True), (300.1, False)])
def test_one_publisher_may_take_five_quarters_of_a_flush_and_an_echo(p50_us, good):
    assert reached("one", felix={"p50_us": p50_us}) == good


@pytest.mark.parametrize("felix, shared, good", [(200, 400, True), (199, 400, False), (200, 399, False)])
def test_many_publishers_are_compared_over_many_connections_and_over_one(felix, shared, good):
    rates = {"felix": felix, "redis": 100, "jetstream": 10, "felix-shared": shared, "redis-shared": 200, "jetstream-shared": 20}
    assert reached("many", **{name: {"records_per_s": rate} for name, rate in rates.items()}) == good


def test_a_peer_that_was_not_measured_is_not_beaten():
    assert not reached("many", felix={"records_per_s": 1e9}, redis={"records_per_s": 1})


@pytest.mark.parametrize("flush_us, least", [(100, 1e6), (200, 1e6), (400, 5e5), (4000, 1e5), (9000, 1e5)])
def test_batches_have_to_be_as_fast_as_the_disk_flushes(flush_us, least):
    def table(rate):
        return {"disk": DISK | {"fdatasync_us": flush_us}, "felix": {"records_per_s": rate},
                "jetstream": {"records_per_s": 100}}  # fmt: skip

    assert workloads.batches_verdict(table(least * 1.001))[1]
    assert not workloads.batches_verdict(table(least * 0.99))[1]


def test_large_batches_are_held_against_the_faster_way_of_fio():
    fio = {"bytes_per_s": 1e9, "buffered_bytes_per_s": 5e8, "direct_bytes_per_s": 1e9}
    assert reached("large", felix={"bytes_per_s": 8e8}, jetstream={"bytes_per_s": 2e8}, fio=fio)
    assert not reached("large", felix={"bytes_per_s": 7.9e8}, jetstream={"bytes_per_s": 2e8}, fio=fio)


# ---- the page ----


def result(*runs):
    return {"when": "now", "machine": "here", "disk_kind": "ext4", "versions": "", "trials": 1, "seconds": 1,
            "gib": 1, "runs": list(runs)}  # fmt: skip


def run_of(case, system, **figures):
    return {"trial": 0, "case": case, "system": system, "figures": figures, "disk": DISK}


def test_the_page_has_a_verdict_for_each_case_and_a_row_for_each_system():
    rate = {"records_per_s": 5000.0, "p50_us": 310.0, "p99_us": 400.0}
    text = page.full(result(run_of("one", "felix", **rate), run_of("one", "redis", **rate)))
    assert "310 us; at most 1.25 x 200 + 50 = 300 us: MISSED" in text
    assert text.count("5.0 k/s, p50 310 us") == 2 and "| Redis" in text


def test_a_run_that_failed_is_named_with_its_reason():
    text = page.full(result({"trial": 2, "case": "one", "system": "jetstream", "error": "it burned"}))
    assert "JetStream, one, trial 2: it burned" in text and "not measured" in text


def test_medians_are_those_of_the_runs_that_worked():
    assert page.medians([{"a": 1.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0}
    assert page.medians([]) == {}


# ---- the loads ----


def redis():
    """A tiny Redis that answers XADD."""

    def serve(server, connection, file):
        for line in file:
            if line.startswith(b"PING"):
                connection.sendall(b"+PONG\r\n")
                continue
            for _ in range(int(line[1:])):
                file.read(int(file.readline()[1:]) + 2)
            connection.sendall(b"$3\r\n1-0\r\n")

    return Lines(serve)


def jetstream(answer=b'{"stream":"felix","seq":1}', records=()):
    """A tiny JetStream: answers appends with `answer`, and a new consumer with `records` before the answer."""

    def serve(server, connection, file):
        connection.sendall(b"INFO {}\r\n")
        for line in file:
            words = line.split()
            if words[0] == b"PING":
                connection.sendall(b"PONG\r\n")
            elif words[0] == b"PUB":
                file.read(int(words[3]) + 2)
                if b"CONSUMER" in words[1]:
                    for record in records:
                        connection.sendall(b"MSG felix 2 $JS.ACK %d\r\n%s\r\n" % (len(record), record))
                said = b'{"type":"made"}' if words[1].startswith(b"$JS") else answer
                connection.sendall(b"MSG %s 1 %d\r\n%s\r\n" % (words[2], len(said), said))

    return Lines(serve)


@pytest.mark.parametrize("server, protocol", [(redis, "redis"), (jetstream, "jetstream")])
@pytest.mark.parametrize("connections, in_flight", [(1, 1), (4, 16)])
def test_appends_are_answered_and_counted(server, protocol, connections, in_flight):
    done = load(server(), f"durable:{protocol}", "--connections", connections, "--in-flight", in_flight)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["records"] > 0 and 0 < document["p50_us"] <= document["p99_us"]


def test_as_many_records_are_appended_as_were_asked_for():
    document = json.loads(load(redis(), "durable:redis", "--in-flight", 4, "--connections", 2, "--records", 37).stdout)
    assert document["records"] == 37


def test_an_append_that_is_refused_fails_the_run():
    done = load(jetstream(answer=b'{"error":{"code":503,"description":"no room"}}'), "durable:jetstream",
                "--connections", 1, "--in-flight", 1)  # fmt: skip
    assert done.returncode == 1 and "no room" in done.stderr


@pytest.mark.parametrize("records, status", [([b"x" * 8] * 5, 0), ([b"x" * 8] * 4 + [b"short"], 1)])
def test_records_are_read_back_though_they_come_before_the_answer(records, status):
    done = load(jetstream(records=records), "durable:jetstream", "--connections", 1, "--in-flight", 1, "--payload", 8,
                "--records", 5, "--replay")  # fmt: skip
    assert done.returncode == status, done.stderr
    assert status == 1 or json.loads(done.stdout)["records"] == 5


def test_the_cost_of_a_flush_is_measured_in_both_ways(tmp_path):
    done = subprocess.run([BUILD / "bench/programs/fdatasync_cost", tmp_path, "284", "20"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["growing_p50_us"] > 0 and document["set_ahead_p50_us"] > 0
    assert list(tmp_path.iterdir()) == []
