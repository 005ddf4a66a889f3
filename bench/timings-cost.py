#!/usr/bin/env python3
"""What the stage timings cost: latencydemo with and without them, in turns.

    bench/timings-cost.py [--pairs 11]

Each pair runs the same case with FELIX_DISABLE_TIMINGS=0 and 1, in changing order. Prints both medians
and the median of the ratios within the pairs, with its quartiles: a ratio within a pair sees the same
minute of the machine.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts/perf"))

import measure  # noqa: E402
from common.pairs import in_turns  # noqa: E402

CASES = [
    ("fanout 1, batch 64, 256 B", "--binary --batch 64 --payload 256 --total 1000000", "delivered_throughput"),
    ("fanout 10, batch 64, 4 KiB", "--binary --fanout 10 --batch 64 --payload 4096 --total 20000",
     "delivered_throughput"),
    ("fanout 1, batch 1, acknowledged, 256 B", "--batch 1 --payload 256 --total 10000", "p50_us"),
]  # fmt: skip


def member_of(arguments, member, off):
    command = [measure.BIN / "latencydemo", "--json", *arguments.split()]
    return measure.run_json(command, {"FELIX_DISABLE_TIMINGS": "1" if off else "0"})["cases"][0][member]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=11)
    pairs = parser.parse_args().pairs
    print("| Case | timings on | timings off | on / off, median and quartiles |\n|---|---:|---:|---:|")
    for name, arguments, member in CASES:
        got = in_turns(lambda on: member_of(arguments, member, not on), pairs)  # noqa: B023 (called at once)
        unit = " us" if member == "p50_us" else "/s"
        print(f"| {name} | {got.one:,.0f}{unit} | {got.other:,.0f}{unit} "
              f"| {got.ratio_text(3)} |")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except measure.Failed as failure:
        sys.exit(str(failure))
