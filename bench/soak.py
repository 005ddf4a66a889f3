#!/usr/bin/env python3
"""Soak: a broker under changing load for a long time, watched for what grows or gets stuck.

    bench/soak.py [--minutes 60] [--warmup-minutes 3]

Starts felix-broker --dev and, until the time is up, runs the commands of `felix bench` against it in turns
and at once: publishing, latency with fan-out, cache; each run is a new client with new connections. Between
rounds it waits until the broker has no connection left, then looks at its memory, descriptors and
counters. Fails when a command fails or loses something, when a connection stays, when descriptors grow, or
when memory at rest is more than a quarter and 16 MiB above what it was after the warm-up.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin"))
REST_SECONDS_MAX = 45  # longer than the idle timeout of a client that vanished


class Broker:
    def __init__(self, directory):
        self.directory = directory
        env = {name: value for name, value in os.environ.items() if not name.startswith("FELIX_")}
        env |= {"FELIX_SUB_QUEUE_POLICY": "block", "FELIX_PUB_INGRESS_WAIT": "1"}
        self.log = open(f"{directory}/log", "w")
        self.process = subprocess.Popen(
            [BIN / "felix-broker", "--dev", "--data-dir", directory, "--quic-bind", "127.0.0.1:0",
             "--metrics-bind", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=self.log, text=True, env=env)  # fmt: skip
        line = self.process.stdout.readline()
        if "quic=" not in line:
            sys.exit(f"the broker did not start: {line!r}")
        self.quic, self.http = (line.split(f"{what}=")[1].split()[0] for what in ("quic", "http"))

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as page:
            values = [float(line.split()[-1]) for line in page.read().decode().splitlines()
                      if line.split("{")[0].split(" ")[0] == name]  # fmt: skip
        if not values:
            sys.exit(f"the broker has no metric {name}")
        return sum(values)

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rest(self):
        """Wait until no connection is left."""
        until = time.monotonic() + REST_SECONDS_MAX
        while self.metric("felix_connections") > 0:
            if time.monotonic() > until:
                return False
            time.sleep(0.2)
        return True


def start_load(broker, words):
    env = {name: value for name, value in os.environ.items() if not name.startswith("FELIX_")}
    env |= {"FELIX_SERVER": broker.quic, "FELIX_DATA_DIR": broker.directory}
    return words, subprocess.Popen([BIN / "felix", "bench", *words], env=env, text=True,
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--warmup-minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    random_numbers = random.Random(options.seed)
    start, number, before = time.monotonic(), 0, None
    with tempfile.TemporaryDirectory(prefix="felix-soak-") as directory:
        broker = Broker(directory)
        try:
            while (minutes := (time.monotonic() - start) / 60) < options.minutes:
                wrong = one_round(broker, number, random_numbers)
                number += 1
                if not wrong and not broker.rest():
                    wrong = [f"{broker.metric('felix_connections'):.0f} connections stay after their clients ended"]
                now = (broker.rss_mib(), broker.descriptors())
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
        finally:
            broker.process.terminate()
            status = broker.process.wait(60)
        if status != 0:
            sys.exit(f"FAILED: the broker ended with status {status}")
    print(f"passed: {number} rounds, {now[0]:.1f} MiB at the end, {before[0]:.1f} after the warm-up")


if __name__ == "__main__":
    main()
