#!/usr/bin/env python3
"""Tails: latency at 70 % of saturation, open loop, and what explains its maximum.

    bench/tails.py [--minutes 10] [--load 0.7] [--bytes 256] [--pin] [--json]

A closed loop of full batches (bench/programs/tails.c) finds what broker and client get through on this
machine. An open loop has smaller calls, whatever is due, and gets through less: saturation is the largest
tenth of the closed loop's rate at which short open loops keep up. The long one offers a share of that. Latency counts from when each message was due, so a stall counts for
everything that it delayed. Beside it, once a second: who waited for a core and for how long, who was
preempted, what the hypervisor took, what other processes used, datagrams lost in full sockets. The worst
seconds are printed with what happened in them. Ends with status 1 when a message is missing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/e2e"))

from common.processors import pin  # noqa: E402
from felix_testlib.broker import Broker, binary, environment  # noqa: E402

TAILS = Path(binary()).parent.parent / "bench/programs/tails"
SATURATION_RUNS, SATURATION_SECONDS = 3, 3
OPEN_SECONDS = 2
KEPT_UP_P99_US = 20_000  # above it messages pile up; a scheduler's turn or two is still below
WORST_SECONDS = 5
TARGET_RATIO = 5.0
LOSSLESS = {"FELIX_SUB_QUEUE_POLICY": "block", "FELIX_PUB_INGRESS_WAIT": "1"}
TICKS = os.sysconf("SC_CLK_TCK")


class ThreadCounts(NamedTuple):
    run_ns: int
    waited_ns: int  # ready to run, but without a core
    voluntary: int
    involuntary: int

    def since(self, before: "ThreadCounts") -> "ThreadCounts":
        return ThreadCounts(*(now - then for now, then in zip(self, before)))


class Sample(NamedTuple):
    """The system at one moment: counters that only grow."""

    at_ns: int
    threads: dict[str, ThreadCounts]
    busy_ticks: int
    steal_ticks: int
    datagrams_lost: int


def thread_counts(label: str, pid: int) -> dict[str, ThreadCounts]:
    counts = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            status = (task / "status").read_text()
            run_ns, waited_ns = map(int, (task / "schedstat").read_text().split()[:2])
        except (FileNotFoundError, ProcessLookupError):
            continue
        switches = [int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line]
        counts[f"{label}/{name} {task.name}"] = ThreadCounts(run_ns, waited_ns, switches[0], switches[1])
    return counts


def take_sample(broker: int, clients: int) -> Sample:
    cpu = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()
                     if line.startswith("Udp:")]  # fmt: skip
    return Sample(time.monotonic_ns(), thread_counts("broker", broker) | thread_counts("client", clients),
                  sum(cpu[0:3]) + sum(cpu[5:7]), cpu[7], int(values[names.index("RcvbufErrors")]))  # fmt: skip


def difference(before: Sample, after: Sample) -> dict[str, Any]:
    """What happened between two samples, in words that a table can show."""
    threads = {name: counts.since(before.threads[name]) for name, counts in after.threads.items()
               if name in before.threads}  # fmt: skip
    ours = sum(each.run_ns for each in threads.values()) / 1e9
    busy = (after.busy_ticks - before.busy_ticks) / TICKS
    return {
        "waited_for_a_core_ms": {name: round(each.waited_ns / 1e6, 2) for name, each in threads.items()
                                 if each.waited_ns >= 100_000},
        "preempted": {name: each.involuntary for name, each in threads.items() if each.involuntary > 0},
        "other_processes_cpu_s": round(max(0.0, busy - ours), 2),
        "stolen_ms": round((after.steal_ticks - before.steal_ticks) / TICKS * 1000),
        "datagrams_lost": after.datagrams_lost - before.datagrams_lost,
    }  # fmt: skip


def bounds_of(samples: list[Sample], at_ns: int) -> tuple[Sample, Sample]:
    """The samples just before and just after a moment."""
    later = next((i for i, sample in enumerate(samples) if sample.at_ns >= at_ns), len(samples) - 1)
    later = max(later, 1)
    return samples[later - 1], samples[later]


def worst_seconds(result: dict[str, Any], counted_ns: int, samples: list[Sample]) -> list[dict[str, Any]]:
    ordered = sorted(result["seconds"], key=lambda second: -second["worst_us"])[:WORST_SECONDS]
    if len(samples) < 2:
        return ordered
    return [second | difference(*bounds_of(samples, counted_ns + int(second["worst_at_s"] * 1e9)))
            for second in ordered]  # fmt: skip


def start(broker: Broker, stream: str, options: argparse.Namespace, rate: int, seconds: int) -> subprocess.Popen[str]:
    env = environment(broker.directory, {"FELIX_SERVER": broker.address, "FELIX_DATA_DIR": broker.data_dir})
    place = pin(client=True) if options.pin else []
    return subprocess.Popen([str(word) for word in (*place, TAILS, stream, options.bytes, rate, seconds)],
                            stdout=subprocess.PIPE, text=True, env=env)  # fmt: skip


def run(broker: Broker, stream: str, options: argparse.Namespace, rate: int, seconds: int) -> dict[str, Any]:
    """One run of the load; the result with its worst seconds explained."""
    samples = []
    with start(broker, stream, options, rate, seconds) as process:
        assert process.stdout
        first = process.stdout.readline()
        if not first:
            sys.exit("the load failed")
        counted_ns = json.loads(first)["counted_from_ns"]
        end = time.monotonic() + seconds + 1.5
        while rate > 0 and process.poll() is None and time.monotonic() < end:
            samples.append(take_sample(broker.pid, process.pid))
            time.sleep(1)
        output = process.stdout.read()
    if not output:
        sys.exit(f"the load failed with status {process.returncode}")
    result = json.loads(output)
    return result | {"missing": result["sent"] - result["received"],
                     "worst": worst_seconds(result, counted_ns, samples),
                     "whole": difference(samples[0], samples[-1]) if len(samples) > 1 else {}}  # fmt: skip


def find_saturation(broker: Broker, options: argparse.Namespace) -> tuple[float, float]:
    """Messages per second of the closed loop, and of the fastest open loop that keeps up with its rate."""
    rates = [run(broker, f"closed-{i}", options, 0, SATURATION_SECONDS)["rate"] for i in range(SATURATION_RUNS)]
    closed = sorted(rates)[len(rates) // 2]
    for tenths in range(10, 0, -1):
        rate = closed * tenths / 10
        result = run(broker, f"open-{tenths}", options, int(rate), OPEN_SECONDS)
        if result["latency"]["p99_us"] <= KEPT_UP_P99_US and result["missing"] == 0:
            return closed, rate
    sys.exit(f"no open loop keeps up, not even with {rate:,.0f} msg/s")


def stage_table(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """Of each stage of the broker: the bucket edges, in microseconds, that hold 99.9 % and all of its times."""
    buckets: dict[str, list[tuple[float, float]]] = {}
    for name, value in metrics.items():
        if name.startswith("felix_stage_seconds_bucket{"):
            labels = dict(pair.split("=") for pair in name[name.index("{") + 1 : -1].replace('"', "").split(","))
            buckets.setdefault(labels["stage"], []).append((float(labels["le"].replace("+Inf", "inf")), value))
    table = {}
    for stage, edges in buckets.items():
        edges.sort()
        total = edges[-1][1]
        if total > 0:
            within = {name: next(edge for edge, count in edges if count >= total * share)
                      for name, share in (("p50", 0.5), ("p999", 0.999), ("max", 1.0))}  # fmt: skip
            table[stage] = {"count": total} | {name: edge * 1e6 for name, edge in within.items()}
    return table


def print_result(closed: float, saturation: float, result: dict[str, Any], stages: dict[str, dict[str, float]]) -> None:
    latency, late = result["latency"], result["publisher_late"]
    ratio = latency["p999_us"] / latency["p50_us"]
    if saturation > 0:
        print(f"saturation  {saturation:,.0f} msg/s in an open loop, {closed:,.0f} in a closed one of full batches")
    print(f"open loop   {result['rate']:,.0f} msg/s for {len(result['seconds']) - 1} s, "
          f"{result['sent'] / result['calls']:.1f} messages in a call, {result['missing']} missing\n"
          f"latency     p50 {latency['p50_us']:.0f} us, p90 {latency['p90_us']:.0f}, p99 {latency['p99_us']:.0f}, "
          f"p99.9 {latency['p999_us']:.0f}, p99.99 {latency['p9999_us']:.0f}, max {latency['max_us']:.0f}\n"
          f"p99.9/p50   {ratio:.1f} ({'reached' if ratio <= TARGET_RATIO else 'missed'}: at most {TARGET_RATIO:g})\n"
          f"publisher   late by p50 {late['p50_us']:.0f} us, p99.9 {late['p999_us']:.0f}, max {late['max_us']:.0f}\n"
          "worst seconds (when, worst latency, and what happened in that second):")  # fmt: skip
    for second in result["worst"]:
        print(f"  {second['worst_at_s']:8.3f} s  {second['worst_us']:10,.0f} us", end="")
        print("".join(f"\n      {name}: {value}" for name, value in second.items()
                      if name not in ("count", "worst_us", "worst_at_s") and value))  # fmt: skip
    print("the whole run: " + ", ".join(f"{name} {value}" for name, value in result["whole"].items() if value))
    print("stages of the broker, upper edges of buckets in us: " + "; ".join(
        f"{stage} p50 {edges['p50']:g} p99.9 {edges['p999']:g} max {edges['max']:g}" for stage, edges in stages.items()))  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--load", type=float, default=0.7, help="share of the saturation (0.7)")
    parser.add_argument("--rate", type=int, default=0, help="messages per second, instead of --load")
    parser.add_argument("--bytes", type=int, default=256, help="of each message (256)")
    parser.add_argument("--pin", action="store_true", help="client on the last processor, broker on the others")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="felix-tails-") as directory:
        broker = Broker(directory, env=LOSSLESS, inside=pin(client=False) if options.pin else [])
        try:
            closed, saturation = (0.0, 0.0) if options.rate else find_saturation(broker, options)
            rate = options.rate or max(1, int(saturation * options.load))
            result = run(broker, "tails", options, rate, max(1, round(options.minutes * 60)))
            stages = stage_table(broker.metrics())
        finally:
            broker.stop(seconds=60)
    if options.json:
        print(json.dumps({"closed_loop": closed, "saturation": saturation, "stages": stages} | result, indent=2))
    else:
        print_result(closed, saturation, result, stages)
    return 1 if result["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
