#!/usr/bin/env python3
"""What the stage timings cost: latencydemo with and without them, in turns.

    bench/timings-cost.py [--pairs 11]

Each pair runs the same case with FELIX_DISABLE_TIMINGS=0 and 1, in changing order. Prints both medians
and the median of the ratios within the pairs, with its quartiles: a ratio within a pair sees the same
minute of the machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin"))
CASES = [
    ("fanout 1, batch 64, 256 B", "--binary --batch 64 --payload 256 --total 1000000", "delivered_throughput"),
    ("fanout 10, batch 64, 4 KiB", "--binary --fanout 10 --batch 64 --payload 4096 --total 20000",
     "delivered_throughput"),
    ("fanout 1, batch 1, acknowledged, 256 B", "--batch 1 --payload 256 --total 10000", "p50_us"),
]  # fmt: skip


def measure(arguments, member, off):
    env = {name: value for name, value in os.environ.items() if not name.startswith("FELIX_")}
    env["FELIX_DISABLE_TIMINGS"] = "1" if off else "0"
    done = subprocess.run([BIN / "latencydemo", "--json", *arguments.split()],
                          capture_output=True, text=True, env=env, timeout=300)  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"latencydemo {arguments}: exit status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)["cases"][0][member]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=11)
    pairs = parser.parse_args().pairs
    print("| Case | timings on | timings off | on / off, median and quartiles |\n|---|---:|---:|---:|")
    for name, arguments, member in CASES:
        runs = {False: [], True: []}
        for pair in range(pairs):
            for off in (False, True) if pair % 2 else (True, False):
                runs[off].append(measure(arguments, member, off))
        ratios = [on / off for on, off in zip(runs[False], runs[True])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        on, off = (statistics.median(runs[key]) for key in (False, True))
        unit = " us" if member == "p50_us" else "/s"
        print(f"| {name} | {on:,.0f}{unit} | {off:,.0f}{unit} | {middle:.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main()
