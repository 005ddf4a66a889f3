#!/usr/bin/env python3
"""Scale: thousands of connections and subscriptions, and one update for all of them.

    bench/scale.py [--connections 1000] [--subscriptions 10] [--updates 200] [--bytes 256] [--json]

Starts a development broker and bench/programs/crowd.c, one thread with all connections and a publisher.
Prints the broker's memory per connection at rest, its CPU time while everybody is idle and per update, and
how long an update takes from publish to hand-over: each single delivery, and the last one of each update.
Without options two crowds run: 2,000 connections with a subscription each, and 1,000 with ten. The crowd
has the last processor to itself and the broker the others (--no-pin: as the scheduler likes, which may
put both on one). Ends with status 1 when a delivery is missing or the broker dropped one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/e2e"))

from common.processors import pin  # noqa: E402
from felix_testlib.broker import Broker, binary  # noqa: E402

CROWD = Path(binary()).parent.parent / "bench/programs/crowd"
WARMUP_UPDATES = 20


def receive_errors() -> int:
    """Datagrams that the kernel threw away on this machine because a socket was full."""
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()
                     if line.startswith("Udp:")]  # fmt: skip
    return int(values[names.index("RcvbufErrors")])


class Crowd:
    """bench/programs/crowd, connected and subscribed when this returns."""

    def __init__(self, broker: Broker, options: argparse.Namespace):
        place = [] if options.no_pin else pin(client=True)
        sockets = max(1, options.connections // 10)
        self.process = subprocess.Popen(
            [str(word) for word in
             (*place, CROWD, f"127.0.0.1:{broker.port}", broker.data_dir, "everybody", options.connections,
              options.subscriptions, sockets, options.bytes, WARMUP_UPDATES, options.updates)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.line("ready")

    def line(self, wanted: str = "") -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        if not line or (wanted and line != wanted):
            sys.exit(f"the crowd failed: {line!r}")
        return line

    def run_updates(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def end(self) -> None:
        self.process.communicate(timeout=30)


def measure(broker: Broker, options: argparse.Namespace) -> dict[str, Any]:
    before = broker.rss_bytes()
    start = time.monotonic()
    crowd = Crowd(broker, options)
    connect_seconds = time.monotonic() - start
    time.sleep(options.rest)
    idle_bytes = broker.rss_bytes() - before
    cpu = broker.cpu_seconds()
    time.sleep(options.idle_seconds)
    idle_cpu = (broker.cpu_seconds() - cpu) / options.idle_seconds
    cpu, errors = broker.cpu_seconds(), receive_errors()
    result = crowd.run_updates()
    cpu, errors = broker.cpu_seconds() - cpu, receive_errors() - errors
    dropped = broker.metric("felix_sub_queue_dropped_total") + broker.metric("felix_broker_ingress_dropped_total")
    loaded_bytes = broker.rss_bytes() - before
    crowd.end()
    updates = WARMUP_UPDATES + options.updates
    return result | {
        "connect_seconds": round(connect_seconds, 2),
        "idle_kib_per_connection": round(idle_bytes / options.connections / 1024, 1),
        "loaded_kib_per_connection": round(loaded_bytes / options.connections / 1024, 1),
        "idle_cpu_percent": round(idle_cpu * 100, 1),
        "broker_cpu_ms_per_update": round(cpu / updates * 1000, 2),
        "dropped": int(dropped),
        "datagrams_lost_in_sockets": errors,
    }


def print_result(result: dict[str, Any]) -> None:
    everybody, delivery = result["everybody"], result["delivery"]
    print(f"{result['connections']:,} connections, {result['subscribers']:,} subscribers of one stream\n"
          f"  time to connect          {result['connect_seconds']:.1f} s\n"
          f"  memory per connection    {result['idle_kib_per_connection']:.1f} KiB idle, "
          f"{result['loaded_kib_per_connection']:.1f} KiB after traffic\n"
          f"  CPU while idle           {result['idle_cpu_percent']:.1f} % of a core\n"
          f"  an update reaches all    p50 {everybody['p50_us'] / 1000:.1f} ms, p99 {everybody['p99_us'] / 1000:.1f} ms, "
          f"max {everybody['max_us'] / 1000:.1f} ms (update {result['slowest_update']} of {result['updates']})\n"
          f"  a single delivery        p50 {delivery['p50_us'] / 1000:.1f} ms, p99 {delivery['p99_us'] / 1000:.1f} ms\n"
          f"  broker CPU per update    {result['broker_cpu_ms_per_update']:.1f} ms\n"
          f"  deliveries               {delivery['count']:,}, missing {result['missing']}, dropped {result['dropped']}; "
          f"datagrams lost in full sockets {result['datagrams_lost_in_sockets']}", flush=True)  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=0)
    parser.add_argument("--subscriptions", type=int, default=10, help="of each connection (10)")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=256, help="of each update (256)")
    parser.add_argument("--rest", metavar="SECONDS", type=float, default=2,
                        help="until late acknowledgements and path probes are over (2)")  # fmt: skip
    parser.add_argument("--idle-seconds", type=float, default=10, help="of watching the idle broker (10)")
    parser.add_argument("--no-pin", action="store_true", help="let both run on any processor")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.idle_seconds = max(options.idle_seconds, 0.01)
    return options


def raise_descriptor_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def main() -> int:
    options = arguments()
    crowds = [(options.connections, options.subscriptions)] if options.connections else [(2000, 1), (1000, 10)]
    results = []
    raise_descriptor_limit(max(connections for connections, _ in crowds) + 200)
    for options.connections, options.subscriptions in crowds:
        with tempfile.TemporaryDirectory(prefix="felix-scale-") as directory:
            broker = Broker(directory, inside=[] if options.no_pin else pin(client=False))
            try:
                results.append(measure(broker, options))
            finally:
                broker.stop(seconds=60)
        if not options.json:
            print_result(results[-1])
    if options.json:
        print(json.dumps(results, indent=2))
    return 1 if any(result["missing"] or result["dropped"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
