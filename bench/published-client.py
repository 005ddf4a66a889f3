#!/usr/bin/env python3
"""What the published client (felix-client, Python) gets from the broker, compared with another build of it.

    bench/published-client.py [--against BIN_DIR] [--pairs 5]

Cache operations of that client travel as JSON, whatever our own client does; this shows that they have not
become dearer. Each pair runs both brokers in changing order: put and get of 256 bytes, by one thread and by
eight. Prints operations per second, the broker's processor time for each, and the ratios. Without --against
the broker is compared with itself, which shows what chance does.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts/perf"))

import measure  # noqa: E402
from common.pairs import in_turns  # noqa: E402
from felix_testlib.client import NAMESPACE, connect  # noqa: E402

VALUE = bytes(256)
SECONDS = 2.0
KEYS = 64


def repeat(operation: Callable[[str], object], threads: int) -> float:
    """Operations per second of so many threads that call it one after the other."""
    counts = [0] * threads
    end = time.monotonic() + SECONDS

    def work(thread: int) -> None:
        while time.monotonic() < end:
            operation(f"k{thread}-{counts[thread] % KEYS}")
            counts[thread] += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / SECONDS


def run(binaries: Path, put: bool, threads: int, cpu_us: dict[Path, list[float]]) -> float:
    os.environ["FELIX_BIN_DIR"] = str(binaries)  # where felix_testlib takes the broker from
    with tempfile.TemporaryDirectory(prefix="felix-published-") as directory:
        broker = measure.lossless_broker(directory)
        try:
            client = connect(broker)

            def store(key: str) -> None:
                client.cache_put(broker.tenant, NAMESPACE, "sessions", key, VALUE)

            def load(key: str) -> bytes | None:
                return client.cache_get(broker.tenant, NAMESPACE, "sessions", key)

            for thread in range(threads):
                for number in range(KEYS):
                    store(f"k{thread}-{number}")
            before = broker.cpu_seconds()
            rate = repeat(store if put else load, threads)
            cpu_us[binaries].append((broker.cpu_seconds() - before) / (rate * SECONDS) * 1e6)
            del client
            broker.stop(seconds=60)
        finally:
            broker.kill()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="BIN_DIR", type=Path, default=measure.BIN, help="the other build's programs")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    ours, other = measure.BIN.resolve(), options.against.resolve()
    print("| Operation | this build | the other | ratio, median and quartiles | broker CPU, us an operation |\n"
          "|---|---:|---:|---:|---:|")  # fmt: skip
    for put, name in ((True, "put"), (False, "get")):
        for threads in (1, 8):
            cpu_us: dict[Path, list[float]] = {ours: [], other: []}
            got = in_turns(lambda mine: run(ours if mine else other, put, threads, cpu_us), options.pairs)  # noqa: B023
            cpu = " and ".join(f"{statistics.median(cpu_us[which]):.1f}" for which in (ours, other))
            print(f"| {name}, {threads} at a time | {got.one:,.0f}/s | {got.other:,.0f}/s "
                  f"| {got.ratio_text()} | {cpu} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
