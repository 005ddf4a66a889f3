#!/usr/bin/env python3
"""What looking again before sleeping (FELIX_SPIN_US) gives and takes, also where processors are short.

    bench/spin.py [--pairs 7] [--busy 0,1,2] [--case REGEX]

Each pair runs a case with the default and with FELIX_SPIN_US=0, for broker and client alike, in changing
order: against a broker process of its own, beside as many processes that do nothing but compute as --busy
says. Prints both medians and the median of the ratios within the pairs, with its quartiles.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts/perf"))

import measure  # noqa: E402
from common.pairs import in_turns  # noqa: E402


class Case(NamedTuple):
    name: str
    program: str
    arguments: str
    member: str
    unit: str


LATENCY = "--batch 1 --payload 256 --total 10000"
CACHE = "--ops get_hit --concurrency 32 --payloads 256 --samples 200000"
CASES = [
    Case("single acknowledged messages, p50", "latencydemo", LATENCY, "p50_us", " us"),
    Case("single acknowledged messages, p99", "latencydemo", LATENCY, "p99_us", " us"),
    Case("cache gets, 32 in flight", "cachedemo", CACHE, "throughput", "/s"),
    Case("batches of 64, fanout 1", "latencydemo", "--binary --batch 64 --payload 256 --total 600000",
         "delivered_throughput", "/s"),
    Case("batches of 64, fanout 10", "latencydemo", "--binary --fanout 10 --batch 64 --payload 256 --total 150000",
         "delivered_throughput", "/s"),
]  # fmt: skip


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Others that would have the processors for themselves."""
    others = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def figure_of(case: Case, spin: bool) -> float:
    env = {} if spin else {"FELIX_SPIN_US": "0"}
    with tempfile.TemporaryDirectory(prefix="felix-spin-") as directory:
        broker = measure.lossless_broker(directory, env)
        try:
            command = [measure.BIN / case.program, "--json", *case.arguments.split(),
                       *measure.connect_arguments(broker)]  # fmt: skip
            document = measure.run_json(command, env)
            broker.stop()
        finally:
            broker.kill()
    return (document.get("cases") or document["results"])[0][case.member]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="of runs of each case (7)")
    parser.add_argument("--busy", default="0,1,2", help="numbers of busy processes beside it (0,1,2)")
    parser.add_argument("--case", metavar="REGEX", default=".", help="only cases whose name matches")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors; {options.pairs} pairs\n\n"
          "| Case | busy processes | spin (default) | FELIX_SPIN_US=0 | spin / none, median and quartiles |\n"
          "|---|---:|---:|---:|---:|")  # fmt: skip
    for case in (case for case in CASES if re.search(options.case, case.name)):
        for busy in map(int, options.busy.split(",")):
            with busy_processes(busy):
                got = in_turns(lambda spin: figure_of(case, spin), options.pairs)  # noqa: B023 (called at once)
            print(f"| {case.name} | {busy} | {got.one:,.0f}{case.unit} | {got.other:,.0f}{case.unit} "
                  f"| {got.ratio_text()} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except measure.Failed as failure:
        sys.exit(str(failure))
