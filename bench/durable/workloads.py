"""What is measured: the cases of the durable comparison, each a function that gives figures.

A case is run trial by trial, and within a trial by each system in turn; `figures` are what one run
of one system gave. What Felix has to reach is computed by `verdict` from the medians of a case.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import disk
import measure
import systems
from systems import STREAM, Felix, Peer

Figures = dict[str, float]
Table = Mapping[str, Mapping[str, float]]  # system -> figure -> median

FILL_BATCH, FILL_BYTES = 64, 4096
RECOVERY_LOAD_SECONDS = 0.5
LARGE_BYTES = 64 << 10  # of one publish: then the page cache counts
TOUCHED_GIB_PER_SECOND = 2.0
SHARED = "-shared"  # end of a system's name: all its publishers share one connection
PROBE_RATE = 1000  # messages a second whose latency is watched


@dataclass
class Options:
    root: Path  # where servers keep their data
    seconds: float  # of each measurement
    gib: float  # of replay and recovery
    paths: dict[str, Path] = field(default_factory=dict)  # of the peers' programs

    @property
    def warmup_ms(self) -> int:
        return round(1000 * self.seconds * 0.2)

    @property
    def ms(self) -> int:
        return round(1000 * self.seconds)

    @property
    def records(self) -> int:
        """That make `gib` of payload."""
        return int(self.gib * (1 << 30) / FILL_BYTES)


@dataclass(frozen=True)
class Case:
    key: str
    title: str
    systems: tuple[str, ...]
    run: Callable[[Options, str], Figures]
    verdict: Callable[[Table], tuple[str, bool]]  # what was to be reached beside what was; whether it was


# ---- acknowledged appends ----


def appends(publishers: int, batch: int, payload: int, sync: str) -> Callable[[Options, str], Figures]:
    """A case of closed loops: `publishers`, each with a batch on its way."""

    def run(options: Options, system: str) -> Figures:
        place = systems.fresh(options.root)
        if payload * batch >= LARGE_BYTES:
            systems.touch_memory(options.root, TOUCHED_GIB_PER_SECOND * options.seconds)
        if system == "fio":
            return disk.fio(options.paths["fio"], place, options.seconds)
        connections = 1 if system.endswith(SHARED) else publishers
        name = system.removesuffix(SHARED)
        if name.startswith("felix"):
            with Felix(place, sync, durable=name != "felix-memory") as felix:
                return felix.load("publish", publishers, connections, batch, payload, 0, options.warmup_ms,
                                  options.ms)  # fmt: skip
        with Peer(name, place, sync, options.paths) as peer:
            return peer.load(connections, publishers * batch, payload, "--seconds", f"{options.seconds:g}",
                             "--warmup-ms", str(options.warmup_ms))  # fmt: skip

    return run


def times(table: Table, peer: str, figure: str, felix: str = "felix") -> float:
    """How many times more of `figure` Felix gives; 0 when one of them was not measured."""
    if felix not in table or peer not in table or not table[peer].get(figure):
        return 0.0
    return table[felix][figure] / table[peer][figure]


def one_verdict(table: Table) -> tuple[str, bool]:
    flush, echo = table["disk"]["fdatasync_us"], table["disk"]["udp_echo_us"]
    limit = 1.25 * flush + echo
    got = table["felix"]["p50_us"]
    return f"p50 {got:.0f} us; at most 1.25 x {flush:.0f} + {echo:.0f} = {limit:.0f} us", got <= limit


def many_verdict(table: Table) -> tuple[str, bool]:
    """Reached only if it is in both arrangements: like is compared with like."""
    texts, good = [], True
    for title, end in (("64 connections", ""), ("one connection", SHARED)):
        redis, jetstream = (times(table, peer + end, "records_per_s", f"felix{end}") for peer in ("redis", "jetstream"))
        texts.append(f"{title}: {redis:.2f} x Redis (2 x), {jetstream:.1f} x JetStream (20 x)")
        good = good and redis >= 2 and jetstream >= 20
    cross = times(table, "redis", "records_per_s", f"felix{SHARED}")
    return "; ".join(texts) + f"; ours over one against theirs over 64: {cross:.2f} x Redis", good


def batches_verdict(table: Table) -> tuple[str, bool]:
    """A million records a second where a flush takes 0.2 ms, a hundred thousand where it takes 4 ms; in between
    as the flush."""
    flush_ms = table["disk"]["fdatasync_us"] / 1000
    least = 1e6 if flush_ms <= 0.2 else max(1e5, 1e6 * 0.2 / flush_ms)
    got, jetstream = table["felix"]["records_per_s"], times(table, "jetstream", "records_per_s")
    return (f"{got / 1e6:.2f} M/s ({least / 1e6:.2f} M/s), {jetstream:.0f} x JetStream (100 x)",
            got >= least and jetstream >= 100)  # fmt: skip


def large_verdict(table: Table) -> tuple[str, bool]:
    jetstream, fio = times(table, "jetstream", "bytes_per_s"), times(table, "fio", "bytes_per_s")
    cached = table["felix"]["bytes_per_s"] / table["fio"]["buffered_bytes_per_s"] if fio else 0.0
    return (f"{jetstream:.1f} x JetStream (3 x), {100 * fio:.0f} % of fio (80 %), {100 * cached:.0f} % of fio "
            "through the page cache", jetstream >= 3 and fio >= 0.8)  # fmt: skip


# ---- reading back ----


def replay(options: Options, system: str) -> Figures:
    """Writes the records, then reads all of them back; with Felix also beside a publisher who waits for flushes."""
    place = systems.fresh(options.root)
    systems.touch_memory(options.root, options.gib + 1)
    if system == "felix":
        with Felix(place, "on_commit") as felix:
            felix.load("fill", options.records, FILL_BATCH, FILL_BYTES)
            return replay_beside_a_publisher(options, felix)
    with Peer(system, place, "periodic", options.paths) as peer:
        peer.load(1, FILL_BATCH, FILL_BYTES, "--records", str(options.records))
        return peer.load(1, 1, FILL_BYTES, "--records", str(options.records), "--replay")


def replay_beside_a_publisher(options: Options, felix: Felix) -> Figures:
    """The publisher has a durable stream of its own: alone, beside a replay, alone."""
    other = f"{STREAM}-live"
    felix.command("stream", "create", other, "--durable")
    words = (1, 1, 1, 256, 0, options.warmup_ms)
    alone = felix.load("replay", options.records, FILL_BYTES)
    before = felix.load("publish", *words, options.ms, stream=other)
    beside_ms = max(300, round(1000 * alone["seconds"]) - options.warmup_ms - 200)
    publisher = felix.start_load("publish", *words, beside_ms, stream=other)
    time.sleep(options.warmup_ms / 1000)
    beside = felix.load("replay", options.records, FILL_BYTES)
    during = finish(publisher)
    after = felix.load("publish", *words, options.ms, stream=other)
    quiet = statistics.mean((before["records_per_s"], after["records_per_s"]))
    return {"bytes_per_s": alone["bytes_per_s"], "beside_bytes_per_s": beside["bytes_per_s"],
            "publisher_alone_per_s": quiet, "publisher_beside_per_s": during["records_per_s"],
            "slowed_percent": 100 * (1 - during["records_per_s"] / quiet)}  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    output, errors = process.communicate(timeout=systems.LOAD_SECONDS_MAX)
    if process.returncode != 0:
        raise measure.Failed(f"{process.args}: exit status {process.returncode}\n{errors}")
    result: dict[str, Any] = json.loads(output)
    return result


def replay_verdict(table: Table) -> tuple[str, bool]:
    rate, slowed = table["felix"]["bytes_per_s"] / 1e9, table["felix"]["slowed_percent"]
    return f"{rate:.2f} GB/s (1), publisher slowed by {slowed:.0f} % (10 %)", rate >= 1 and slowed <= 10


# ---- recovery ----


def recovery(options: Options, system: str) -> Figures:
    """Killed under load beside the records of the case before; then the first answers of its successor."""
    with Felix(systems.fresh(options.root), "periodic") as felix:
        felix.load("fill", options.records, FILL_BATCH, FILL_BYTES)
        load = felix.start_load("publish", 8, 8, FILL_BATCH, FILL_BYTES, 0, 0, 60000)
        time.sleep(RECOVERY_LOAD_SECONDS)
        felix.broker.kill()
        load.kill()
        load.communicate()
        start = time.monotonic()
        felix.kill_and_start()
        ready = time.monotonic()
        felix.load("fill", 1, 1, FILL_BYTES)
        published = time.monotonic()
        felix.load("replay", 1, FILL_BYTES)
        read = time.monotonic()
        return {"ready_ms": 1000 * (ready - start), "published_ms": 1000 * (published - start),
                "read_ms": 1000 * (read - start)}  # fmt: skip


def recovery_verdict(table: Table) -> tuple[str, bool]:
    ready, read = table["felix"]["ready_ms"], table["felix"]["read_ms"]
    return f"ready after {ready:.0f} ms, published and read after {read:.0f} ms (1000 ms)", read <= 1000


# ---- streams in memory beside a busy disk ----


def memory(options: Options, system: str) -> Figures:
    """The latency of a stream in memory: alone, beside a durable stream that keeps the disk busy, and beside the
    same publishes at the same rate to a stream in memory, which cost the processors the same but no disk."""
    with Felix(systems.fresh(options.root), "on_commit") as felix:
        alone = probe(felix, options)
        load = felix.start_load("publish", 4, 4, FILL_BATCH, FILL_BYTES, 0, options.warmup_ms, options.ms + 500)
        time.sleep(options.warmup_ms / 1000)
        beside = probe(felix, options)
        disk_rate = finish(load)["records_per_s"]
        rate = max(1, round(disk_rate / FILL_BATCH))
        load = felix.start_load("publish", 4, 4, FILL_BATCH, FILL_BYTES, rate, options.warmup_ms, options.ms + 500,
                                stream=f"{STREAM}-in-memory")  # fmt: skip
        time.sleep(options.warmup_ms / 1000)
        control = probe(felix, options)
        finish(load)
        again = probe(felix, options)
    quiet = statistics.mean((alone["p99_us"], again["p99_us"]))
    return {"p99_us": quiet, "beside_p99_us": beside["p99_us"], "control_p99_us": control["p99_us"],
            "p50_us": alone["p50_us"], "beside_p50_us": beside["p50_us"], "control_p50_us": control["p50_us"],
            "load_bytes_per_s": disk_rate * FILL_BYTES,
            "grown_percent": 100 * (beside["p99_us"] / quiet - 1),
            "grown_beside_control_percent": 100 * (beside["p99_us"] / control["p99_us"] - 1)}  # fmt: skip


def probe(felix: Felix, options: Options) -> Figures:
    """An open loop of small acknowledged messages to a stream in memory."""
    words = ["bench", "latency", f"{STREAM}-probe", "--rate", str(PROBE_RATE), "--duration", f"{options.ms}ms", "--json"]
    document = json.loads(felix.command(*words).splitlines()[-1])
    return {f"{name}_us": document["latency_us"][name] for name in ("p50", "p99")}


def memory_verdict(table: Table) -> tuple[str, bool]:
    felix = table["felix"]
    return (f"p99 {felix['p99_us']:.0f} us alone, {felix['beside_p99_us']:.0f} beside the disk "
            f"({felix['grown_percent']:+.0f} %; 10 %), {felix['control_p99_us']:.0f} beside the same load without "
            f"disk", felix["grown_percent"] <= 10)  # fmt: skip


CASES = (
    Case("one", "256 B, flushed, one publisher", ("felix", "redis", "jetstream"),
         appends(1, 1, 256, "on_commit"), one_verdict),
    Case("many", "256 B, flushed, 64 publishers",
         ("felix", "felix-shared", "redis", "redis-shared", "jetstream", "jetstream-shared"),
         appends(64, 1, 256, "on_commit"), many_verdict),
    Case("batches", "256 B in batches of 64, flushed, 8 publishers", ("felix", "felix-shared", "redis", "jetstream"),
         appends(8, 64, 256, "on_commit"), batches_verdict),
    Case("large", "4 KiB in batches of 64, periodic, 8 publishers", ("felix", "redis", "jetstream", "fio"),
         appends(8, 64, 4096, "periodic"), large_verdict),
    Case("replay", "replay from the page cache", ("felix", "jetstream"), replay, replay_verdict),
    Case("recovery", "recovery after kill -9", ("felix",), recovery, recovery_verdict),
    Case("memory", "a stream in memory beside a busy disk", ("felix",), memory, memory_verdict),
)  # fmt: skip
