#!/usr/bin/env python3
"""First speed: what one broker does on this machine, measured with latencydemo and cachedemo.

    bench/first-speed.py [--trials 5] [--quick]

Each case runs --trials times, in turns with all others, once with the broker inside the demo's
process and once (--connect) as a process of its own. TLS on, lossless: a run that lost a delivery
is an error. Prints medians, with the smallest and the largest run behind them, beside a plain UDP
echo of 256 bytes, as a table in Markdown. The last column is quoted: what the Rust original gave
on such a machine with its own demos, which always run the broker in their process.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts/perf"))

import measure  # noqa: E402

TIMINGS = {k: v for k, v in os.environ.items() if k == "FELIX_DISABLE_TIMINGS"}
HOT = "--binary --fanout 10 --batch 64 --payload 4096 --total 5000 --warmup 200"

# name, program, arguments, what to report, the original's figure
CASES = [
    ("hot case: fanout 10, batch 64, 4 KiB, 5,000 messages", "latency", HOT, "deliveries",
     "214,000 to 252,000"),
    ("the same, 100,000 messages", "latency", HOT.replace("--total 5000", "--total 100000"), "deliveries",
     "190,000 to 250,000"),
    ("fanout 1, batch 64, 256 B", "latency", "--binary --batch 64 --payload 256 --total 2000000",
     "deliveries", "680,000"),
    ("fanout 1, batch 64, 4 KiB", "latency", "--binary --batch 64 --payload 4096 --total 200000",
     "deliveries", "113,000"),
    ("fanout 10, batch 64, 256 B", "latency",
     "--binary --fanout 10 --batch 64 --payload 256 --total 400000", "deliveries", "1,900,000"),
    ("fanout 1, batch 1, acknowledged, 256 B", "latency", "--batch 1 --payload 256 --total 20000",
     "latency", "p50 105 us, p99 198 to 237 us"),
    ("fanout 10, batch 1, acknowledged, 256 B", "latency",
     "--batch 1 --fanout 10 --payload 256 --total 10000", "latency", "p50 148 us, p99 461 us"),
    ("cache put, 32 in flight, 256 B", "cache",
     "--ops put --concurrency 32 --payloads 256 --samples 400000", "operations", "61,000, p50 500 us"),
    ("cache get, 32 in flight, 256 B", "cache",
     "--ops get_hit --concurrency 32 --payloads 256 --samples 400000", "operations", "58,000, p50 520 us"),
    ("cache put, 32 in flight, 4 KiB", "cache",
     "--ops put --concurrency 32 --payloads 4096 --samples 100000", "operations", "34,000"),
    ("cache get, 32 in flight, 4 KiB", "cache",
     "--ops get_hit --concurrency 32 --payloads 4096 --samples 100000", "operations", "41,000"),
]  # fmt: skip


def measure_case(case, broker):
    """One run: a tuple of figures, the first of which orders runs."""
    _, program, arguments, what, _ = case
    command = [measure.BIN / f"{program}demo", "--json", *arguments.split()]
    document = measure.run_json(command + (measure.connect_arguments(broker) if broker else []), TIMINGS)
    if program == "cache":
        result = document["results"][0]
        return result["throughput"], result["p50_us"]
    result = document["cases"][0]
    if result["unaccounted"] or result["dropped"]:
        raise measure.Failed(f"{case[0]}: lost deliveries: {result}")
    if what == "latency":
        return result["p50_us"], result["p99_us"]
    return (result["delivered_throughput"],)


def text_of(case, runs):
    what = case[3]
    middle = [statistics.median(column) for column in zip(*runs)]
    low, high = min(run[0] for run in runs), max(run[0] for run in runs)
    if what == "latency":
        return f"p50 {middle[0]:.0f} us ({low:.0f} to {high:.0f}), p99 {middle[1]:.0f} us"
    text = f"{middle[0]:,.0f}/s ({low:,.0f} to {high:,.0f})"
    return text + (f", p50 {middle[1]:.0f} us" if what == "operations" else "")


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one trial each, to see that it works")
    options = parser.parse_args()
    trials = 1 if options.quick else options.trials
    inside, outside, echoes = ([[] for _ in CASES] for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="felix-speed-") as directory:
        broker = measure.lossless_broker(directory, TIMINGS)
        try:
            for trial in range(trials):
                for i, case in enumerate(CASES):
                    progress(f"trial {trial + 1} of {trials}: {case[0]}")
                    inside[i].append(measure_case(case, None))
                    outside[i].append(measure_case(case, broker))
                    if case[3] == "latency":
                        echoes[i].append(measure.udp_echo()["p50_us"])
        finally:
            broker.stop()
    progress("")
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {trials} trial(s), {os.cpu_count()} processors, "
          f"timings {'off' if TIMINGS.get('FELIX_DISABLE_TIMINGS') == '1' else 'on'}\n")  # fmt: skip
    print("| Case | broker in the demo's process | broker as a process of its own | the original |")
    print("|---|---|---|---|")
    for i, case in enumerate(CASES):
        print(f"| {case[0]} | {text_of(case, inside[i])} | {text_of(case, outside[i])} | {case[4]} |")
    every = [echo for runs in echoes for echo in runs]
    print(f"\nplain UDP echo of 256 bytes, there and back, run beside the latencies: p50 "
          f"{statistics.median(every):.0f} us ({min(every):.0f} to {max(every):.0f})")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except measure.Failed as failure:
        sys.exit(str(failure))
