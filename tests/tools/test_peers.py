"""bench/peers: its arithmetic and tables, and that its load program counts what arrives."""
import json
import os
import socket
import string
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench/peers"))

import cells  # noqa: E402
import crosscheck  # noqa: E402
import programs  # noqa: E402
import report  # noqa: E402
import servers  # noqa: E402

LOAD = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin")).resolve().parent / "bench/peers/load/peer-load"
BY_NAME = {system.name: system for system in servers.SYSTEMS}
FELIX, NATS, REDIS = BY_NAME["felix"], BY_NAME["nats"], BY_NAME["redis"]
STREAM, ACKED = cells.Cell("stream", 256, 1), cells.Cell("acked", 256, 1)


def run_of(trial, cell, system, rate=1000.0, p50_us=10.0):
    figures = {"rate": rate, "p50_us": p50_us, "p99_us": 2 * p50_us}
    return {"trial": trial, "cell": cell.key, "system": system.name, "figures": figures}


# ---- ratios ----


def test_a_higher_rate_of_felix_is_a_ratio_above_one():
    runs = [run_of(0, STREAM, FELIX, rate=300), run_of(0, STREAM, NATS, rate=100)]
    assert report.ratios(runs, STREAM, FELIX, NATS) == [3.0]


def test_a_lower_latency_of_felix_is_a_ratio_above_one():
    runs = [run_of(0, ACKED, FELIX, p50_us=20), run_of(0, ACKED, NATS, p50_us=50)]
    assert report.ratios(runs, ACKED, FELIX, NATS) == [2.5]


def test_ratios_pair_runs_of_the_same_trial_and_skip_a_trial_that_one_side_lost():
    runs = [run_of(0, STREAM, FELIX, rate=10), run_of(1, STREAM, FELIX, rate=40), run_of(2, STREAM, FELIX, rate=9)]
    runs += [run_of(0, STREAM, NATS, rate=5), run_of(2, STREAM, NATS, rate=3)]
    runs += [{"trial": 1, "cell": STREAM.key, "system": "nats", "error": "gone"}]
    assert report.ratios(runs, STREAM, FELIX, NATS) == [2.0, 3.0]


@pytest.mark.parametrize("values, text", [([], "–"), ([2.0], "2.00x"), ([3.0, 1.0, 2.0], "2.00x (1.00 to 3.00)")])
def test_a_ratio_shows_its_spread(values, text):
    assert report.ratio_text(values) == text


def test_the_best_number_of_connections_is_chosen_for_each_system():
    few, many = (cells.Cell("cache", 256, op="get", connections=n) for n in (1, 8))
    runs = [run_of(0, few, FELIX, rate=10), run_of(0, many, FELIX, rate=30)]
    runs += [run_of(0, few, REDIS, rate=60), run_of(0, many, REDIS, rate=40)]
    best = report.best_of_connections(runs, [few, many])
    assert report.ratios(best, cells.Cell("cache", 256, op="get"), FELIX, REDIS) == [0.5]


def test_the_weakest_comes_first():
    other = cells.Cell("stream", 1024, 1)
    runs = [run_of(0, cell, FELIX, rate=100) for cell in (STREAM, other)]
    runs += [run_of(0, STREAM, NATS, rate=10), run_of(0, other, NATS, rate=200)]
    lines = report.weakest(runs, [STREAM, other], [FELIX, NATS])
    assert [line.split()[0] for line in lines] == ["0.50x", "10.00x"]


# ---- tables ----


def test_a_table_has_a_cell_for_each_system_and_a_range_for_each_peer():
    sizes = [cells.Cell("stream", payload, 1) for payload in (256, 1024)]
    runs = [run_of(0, cell, FELIX, rate=200_000) for cell in sizes]
    runs += [run_of(0, sizes[0], NATS, rate=100_000), run_of(0, sizes[1], NATS, rate=50_000)]
    result = {"runs": runs, "echoes": [], "cross_checks": [], "when": "today", "machine": "here",
              "versions": "", "trials": 1}  # fmt: skip
    text = report.full(result, sizes, [FELIX, NATS])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["1 subscriber, 272 B", "200 k/s", "100 k/s; 2.00x"] in rows
    assert ["NATS (plain)", "2.0x to 4.0x"] in rows


def test_a_failed_run_is_named_and_not_counted():
    runs = [run_of(0, STREAM, FELIX), {"trial": 0, "cell": STREAM.key, "system": "nats", "error": "lost 3"}]
    result = {"runs": runs, "echoes": [], "cross_checks": [], "when": "", "machine": "", "versions": "", "trials": 1}
    text = report.full(result, [STREAM], [FELIX, NATS])
    assert "failed; –" in text and "nats, stream-f1-256, trial 0: lost 3" in text


def test_a_load_program_that_is_slower_than_the_peers_own_tool_is_said():
    slow, fair = report.cross_check_lines([("tool", 1000, 500), ("tool", 1000, 950)])
    assert "SLOWER" in slow and "SLOWER" not in fair


def test_inserting_into_a_document_twice_changes_nothing_more():
    document = "before\n<!-- peers:begin -->\nold\n<!-- peers:end -->\nafter\n"
    once = report.insert(document, "new\n")
    assert once == "before\n<!-- peers:begin -->\nnew\n<!-- peers:end -->\nafter\n"
    assert report.insert(once, "new\n") == once


@pytest.mark.parametrize("document", ["none", "<!-- peers:end --><!-- peers:begin -->", "<!-- peers:begin -->"])
def test_a_document_without_both_markers_is_refused(document):
    with pytest.raises(ValueError):
        report.insert(document, "text")


def test_the_document_has_the_markers():
    report.insert((ROOT / "docs/performance.md").read_text(), "text")


# ---- what is run ----


def test_a_name_selects_both_kinds_of_a_peer_and_felix_is_always_there():
    assert [s.name for s in cells.select_systems(["redis"])] == ["felix", "redis-tls", "redis"]
    assert [s.name for s in cells.select_systems(["nats-tls"])] == ["felix", "nats-tls"]
    assert cells.select_systems([]) == servers.SYSTEMS
    with pytest.raises(ValueError, match="kafka"):
        cells.select_systems(["kafka"])


def test_every_cell_has_a_key_of_its_own():
    keys = [cell.key for cell in cells.all_cells()]
    assert len(keys) == len(set(keys)) == 2 * 2 * 4 + 3 * 2 * 2


def test_felix_and_peers_get_the_same_number_of_operations_in_flight():
    for connections in cells.CACHE_CONNECTIONS:
        cell = cells.Cell("cache", 256, op="get", connections=connections)
        pools = cells.felix_command(cell, 1000)[2]
        assert int(pools["FELIX_CACHE_CONN_POOL"]) == connections
        assert int(pools["FELIX_CACHE_CONN_POOL"]) * int(pools["FELIX_CACHE_STREAMS_PER_CONN"]) == cells.IN_FLIGHT
        command = cells.peer_command(REDIS, cell, 1)
        assert command[command.index("--connections") + 1] == connections


def test_a_run_of_felix_is_long_enough_for_its_time_and_for_the_buffers_on_the_way():
    big = cells.Cell("stream", 4096, 1)
    assert cells.felix_count(big, 200_000, 1.5) == 300_000
    assert cells.felix_count(big, 100, 1.5) * (4096 + cells.STAMP_BYTES) > 128 << 20
    assert cells.felix_count(ACKED, 10_000, 0.5) == 5_000


def test_a_run_of_felix_that_lost_something_is_refused():
    case = {"expected": 10, "delivered": 9, "dropped": 0, "delivered_throughput": 1, "p50_us": 1, "p99_us": 1}
    with pytest.raises(cells.Failed):
        cells.felix_figures(STREAM, {"cases": [case]})
    assert cells.felix_figures(STREAM, {"cases": [case | {"delivered": 10}]})["rate"] == 1


@pytest.mark.parametrize("system", servers.SYSTEMS[1:], ids=lambda s: s.name)
def test_the_settings_of_a_peer_have_no_name_that_is_not_filled_in(system):
    template = string.Template((servers.CONFIG / f"{system.name}.conf").read_text())
    names = {"port", "monitor_port", "directory", "certificate", "key", "user"}
    text = template.substitute(dict.fromkeys(names, "x"))
    assert ("certificate" in template.template) == system.tls and "$" not in text


def test_arguments_in_a_file_skip_comments_and_empty_lines():
    assert servers.argument_lines("# no\n\n--a=1\n  --b\n") == ["--a=1", "--b"]


# ---- what other programs print ----


def test_the_rate_of_nats_bench_is_that_of_all_subscribers():
    one = "NATS Core NATS subscriber stats: 399,790 msgs/sec ~ 39 MiB/sec ~ min: 0.05us\n"
    ten = "  [1] 151,203 msgs/sec ~ 39 MiB/sec\n NATS Core NATS subscriber aggregated stats: 1,383,815 msgs/sec ~ 3 MiB\n"
    assert crosscheck.nats_rate(one) == 399790
    assert crosscheck.nats_rate(ten) == 1383815
    assert crosscheck.nats_rate("nothing") is None


def test_the_rates_of_redis_benchmark_are_read_by_command():
    text = '"test","rps","avg_latency_ms"\n"SET","184000.50","0.1"\n"GET","181000.00","0.1"\n'
    assert crosscheck.redis_rates(text) == {"SET": 184000.5, "GET": 181000.0}


@pytest.mark.parametrize("text, version", [
    ("nats-server: v2.15.2\n", "2.15.2"),
    ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", "7.0.15"),
    ("mosquitto version 2.0.11\n\nmosquitto is an MQTT v5.0", "2.0.11"),
    ("?", "of an unknown version"),
])  # fmt: skip
def test_a_version_is_found(text, version):
    assert programs.version_in(text) == version


# ---- peer-load, against servers that are ours ----


class Lines:
    """A server on one thread per connection; `serve(self, connection, file)` does the talking."""

    def __init__(self, serve):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.serve, self.lock, self.subscribers = serve, threading.Lock(), []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        try:
            with connection, connection.makefile("rb") as file:
                self.serve(self, connection, file)
        except OSError:
            pass


def nats(piece=1 << 20, lose=0, repeat=0, deaf_after=None):
    """A tiny NATS that sends in pieces of `piece` bytes, loses or repeats the Nth delivery, or
    delivers nothing after the Nth."""
    count = 0

    def deliver(server, message):
        for subscriber in server.subscribers:
            for i in range(0, len(message), piece):
                subscriber.sendall(message[i : i + piece])

    def serve(server, connection, file):
        nonlocal count
        connection.sendall(b"INFO {}\r\n")
        for line in file:
            if line.startswith(b"SUB"):
                server.subscribers.append(connection)
            elif line.startswith(b"PING"):
                connection.sendall(b"PONG\r\n")
            elif line.startswith(b"PUB"):
                payload = file.read(int(line.split()[2]) + 2)
                count += 1
                message = b"MSG felix 1 %d\r\n%s" % (len(payload) - 2, payload)
                if count != lose and (deaf_after is None or count <= deaf_after):
                    deliver(server, message)
                if count == repeat:
                    deliver(server, message)

    return Lines(serve)


def redis(value=lambda stored: stored):
    """A tiny Redis with SET and GET; `value` spoils what is given back."""
    store = {}

    def bulk(file):
        return file.read(int(file.readline()[1:]) + 2)[:-2]

    def serve(server, connection, file):
        for line in file:
            command, *arguments = (bulk(file) for _ in range(int(line[1:])))
            if command == b"SET":
                store[arguments[0]] = arguments[1]
                connection.sendall(b"+OK\r\n")
            else:
                stored = value(store[arguments[0]])
                connection.sendall(b"$%d\r\n%s\r\n" % (len(stored), stored))

    return Lines(serve)


def load(server, *arguments):
    short = ["--seconds", "0.02", "--warmup-ms", "5", "--idle-ms", "200", "--window-bytes", "1000"]
    command = [LOAD, *arguments, *short, "--port", server.port]
    try:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)
    finally:
        server.listener.close()


@pytest.mark.parametrize("acked", [[], ["--acked"]], ids=["blocks", "acked"])
@pytest.mark.parametrize("piece", [300, 1 << 20])
def test_every_delivery_is_counted_however_it_is_cut(piece, acked):
    done = load(nats(piece), "nats", "--fanout", 2, "--payload", 1000, *acked)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["delivered"] == document["expected"] == 2 * document["sent"] > 0
    assert 0 < document["p50_us"] <= document["p99_us"]


@pytest.mark.parametrize("fault, number", [({"lose": 5}, "number 5 instead of 4"),
                                           ({"repeat": 5}, "number 4 instead of 5")])  # fmt: skip
def test_a_delivery_that_is_lost_or_comes_twice_fails_the_run(fault, number):
    done = load(nats(**fault), "nats", "--payload", 1000)
    assert done.returncode == 1 and number in done.stderr


def test_deliveries_that_stop_coming_fail_the_run():
    done = load(nats(deaf_after=100), "nats", "--payload", 1000)
    assert done.returncode == 1 and "the slowest subscriber has 100 of" in done.stderr


@pytest.mark.parametrize("op", ["put", "get"])
@pytest.mark.parametrize("connections", [1, 4])
def test_cache_operations_are_answered_and_timed(op, connections):
    done = load(redis(), "cache:redis", "--op", op, "--connections", connections, "--in-flight", 4, "--keys", 8)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["operations"] >= 4 and document["throughput"] > 0


def test_a_value_that_comes_back_changed_fails_the_run():
    spoil = lambda stored: stored[:-1] + b"!"  # noqa: E731
    done = load(redis(spoil), "cache:redis", "--op", "get", "--keys", 8)
    assert done.returncode == 1 and "came back changed" in done.stderr


def test_a_peer_that_complains_fails_the_run_with_its_words():
    def serve(server, connection, file):
        connection.sendall(b"-ERR 'Authorization Violation'\r\n")
        file.read()

    done = load(Lines(serve), "nats")
    assert done.returncode == 1 and "Authorization Violation" in done.stderr
