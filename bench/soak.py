#!/usr/bin/env python3
"""Soak: a broker under changing load for a long time, watched for what grows or gets stuck.

    bench/soak.py [--minutes 60] [--warmup-minutes 3] [--seed N]
    bench/soak.py --kill-cycles 200 [--seed N]

Starts felix-broker --dev and, until the time is up, runs the commands of `felix bench` against it in turns
and at once: publishing, latency with fan-out, cache; each run is a new client with new connections. Between
rounds it waits until the broker has no connection left, then looks at its memory, descriptors and
counters. Fails when a command fails or loses something, when a connection stays, when descriptors grow, or
when memory at rest is more than a quarter and 16 MiB above what it was after the warm-up.

With --kill-cycles a broker with durable streams is killed (SIGKILL) so often, at moments that the seed decides,
under publishers and subscribers that outlive it; after each restart everything is read back. Fails when an
acknowledged record is missing or elsewhere than was said, when a record is twice, late, damaged or changed,
or when a subscription did not go on where it was (tests/e2e/drivers/kill_load.c).
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts/perf"))

import measure  # noqa: E402
from felix_testlib.durable import KillLoop  # noqa: E402

REST_SECONDS_MAX = 45  # longer than the idle timeout of a client that vanished


def descriptors(broker):
    return len(os.listdir(f"/proc/{broker.pid}/fd"))


def rss_mib(broker):
    return broker.rss_bytes() / (1 << 20)


def comes_to_rest(broker):
    """Wait until no connection is left; whether that came true."""
    until = time.monotonic() + REST_SECONDS_MAX
    while broker.metric("felix_connections") > 0:
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def start_load(broker, words):
    env = measure.environment({"FELIX_SERVER": broker.address, "FELIX_DATA_DIR": broker.data_dir})
    return words, subprocess.Popen([measure.BIN / "felix", "bench", *words], env=env, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def one_round(broker, number, random_numbers):
    """Some loads at once; returns what went wrong."""
    size = random_numbers.choice(["24", "256", "4096", "65536"])
    loads = [
        ["latency", f"soak-latency-{number % 7}", "--duration", "4s", "--fanout", str(random_numbers.randint(1, 20)),
         "--size", size, "--rate", str(random_numbers.randint(50, 500))],
        ["pub", f"soak-pub-{number % 5}", "--duration", "3s", "--size", size],
        ["cache", f"soak-cache-{number % 3}", "--duration", "3s", "--size", size],
    ]  # fmt: skip
    wanted = random_numbers.sample(loads, random_numbers.randint(1, len(loads)))
    wrong = []
    for words, process in [start_load(broker, load) for load in wanted]:
        output, _ = process.communicate(timeout=120)
        if process.returncode != 0:
            wrong.append(f"felix bench {' '.join(words)}: exit status {process.returncode}\n{output}")
    return wrong


KILL_SETTINGS = {"FELIX_DURABLE_SEGMENT_BYTES": "4194304"}  # so that brokers die while they roll over, too
CYCLES_WITH_SAME_STREAMS = 20  # each check reads a stream from its beginning


def kill_cycles(count, seed):
    """Ends the program when something is wrong; the directory stays then."""
    directory = tempfile.mkdtemp(prefix="felix-kill-")
    loop = KillLoop(directory, seed, env=KILL_SETTINGS)
    records = acked = 0
    try:
        for cycle in range(1, count + 1):
            counts = loop.cycle()
            if cycle % CYCLES_WITH_SAME_STREAMS == 0 or cycle == count:
                records, acked = records + counts["records"], acked + counts["acked"]
                print(f"cycle {cycle:4}: {counts['records']} records, {counts['acked']} acknowledged, "
                      f"{counts['unknown']} never answered, {counts['refused']} refused", flush=True)  # fmt: skip
                if cycle < count:
                    loop.begin(f"kill{cycle}-", seed + cycle)
        loop.end()
    except AssertionError as failure:
        sys.exit(f"FAILED with seed {seed} in cycle {cycle}: {failure}\nwhat is on disk: {directory}")
    finally:
        loop.abandon()
    shutil.rmtree(directory)
    print(f"passed: {count} cycles, {loop.kills} kills, {loop.early_kills} of them while starting, "
          f"{loop.stops} stops; {records} records, {acked} acknowledged, none missing")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--warmup-minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kill-cycles", type=int, default=0, metavar="N", help="kill a broker with durable streams")
    options = parser.parse_args()
    if options.kill_cycles > 0:
        print(f"seed {options.seed}, {options.kill_cycles} cycles", flush=True)
        kill_cycles(options.kill_cycles, options.seed)
        return
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    random_numbers = random.Random(options.seed)
    start, number, before = time.monotonic(), 0, None
    with tempfile.TemporaryDirectory(prefix="felix-soak-") as directory:
        broker = measure.lossless_broker(directory)
        try:
            while (minutes := (time.monotonic() - start) / 60) < options.minutes:
                wrong = one_round(broker, number, random_numbers)
                number += 1
                if not wrong and not comes_to_rest(broker):
                    wrong = [f"{broker.metric('felix_connections'):.0f} connections stay after their clients ended"]
                now = (rss_mib(broker), descriptors(broker))
                if before is None and minutes >= min(options.warmup_minutes, options.minutes / 2):
                    before = now
                if before and now[0] > before[0] * 1.25 + 16:
                    wrong.append(f"memory at rest grew from {before[0]:.1f} to {now[0]:.1f} MiB")
                if before and now[1] > before[1] + 2:  # one or two may be our own look at /metrics
                    wrong.append(f"descriptors grew from {before[1]} to {now[1]}")
                if number % 10 == 1 or wrong:
                    print(f"{minutes:6.1f} min  round {number:5}  {now[0]:7.1f} MiB  {now[1]} descriptors", flush=True)
                if wrong:
                    sys.exit("FAILED: " + "\n".join(wrong))
        except BaseException:
            broker.kill()
            raise
        try:
            broker.stop(seconds=60)
        except AssertionError as failure:
            sys.exit(f"FAILED: {failure}")
    print(f"passed: {number} rounds, {now[0]:.1f} MiB at the end, {before[0]:.1f} after the warm-up")


if __name__ == "__main__":
    main()
