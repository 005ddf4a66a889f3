#!/usr/bin/env python3
"""The same work done by Felix, NATS, Redis, memcached and Mosquitto, side by side.

    bench/peers.py [--trials 3] [--only nats,redis] [--quick] [--json] [--docs] [--from FILE]

Fetches and builds the peers it needs into build/peers (bench/peers/programs.py), starts each for
each run on a free port of 127.0.0.1 with the settings of bench/peers/config, and measures it in
turns with Felix: trials outside, then what is done, then who does it. Felix runs as a process of
its own with latencydemo and cachedemo, with TLS; the peers are measured by peer-load, which counts
in the same way. A run that lost a delivery fails.

Prints tables, the last of which sums up, and what cannot be compared. Every single run is kept in
data/raw. --docs writes the tables into docs/performance.md; with --from they are those of an
earlier run, and nothing is measured.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin"))
sys.path.insert(0, str(ROOT / "bench/peers"))

import cells as work  # noqa: E402
import crosscheck  # noqa: E402
import programs  # noqa: E402
import report  # noqa: E402
import servers  # noqa: E402

DOCUMENT = ROOT / "docs/performance.md"
SECONDS = {"stream": 1.2, "acked": 0.5, "cache": 0.5}
QUICK_SECONDS = {"stream": 0.3, "acked": 0.2, "cache": 0.2}


class Comparison:
    """All runs of one call."""

    def __init__(self, systems, quick, certificates):
        self.systems, self.certificates = systems, certificates
        self.seconds = QUICK_SECONDS if quick else SECONDS
        self.felix = work.FelixRunner(BIN)
        self.load = BIN.parent / "bench/peers/load/peer-load"
        self.micro = BIN.parent / "bench/micro"
        wanted = [system.program for system in systems if system.name != "felix"]
        tools = [tool for tool, name in crosscheck.TOOLS.items() if any(s.name == name for s in systems)]
        self.programs = programs.fetch(sorted(set(wanted + tools)))

    def run(self, system, cell):
        """One run against a server of its own."""
        with tempfile.TemporaryDirectory(prefix="felix-peers-") as directory:
            if system.name == "felix":
                broker = servers.Felix(directory, BIN)
                try:
                    return self.felix.run(cell, broker, self.seconds[cell.kind])
                finally:
                    broker.stop()
            with self.peer(system, directory) as peer:
                return work.run_peer(system, cell, peer, self.load, self.seconds[cell.kind])

    def peer(self, system, directory):
        return servers.Peer(system, self.programs[system.program], directory, self.certificates)

    def attempt(self, system, cell):
        """{"figures": ...} or, when a peer failed, {"error": ...}. Felix may not fail."""
        try:
            return {"figures": self.run(system, cell)}
        except work.Failed as failure:
            if system.name == "felix":
                sys.exit(f"Felix, {cell.key}: {failure}")
            return {"error": str(failure)}

    def echo(self, cell):
        return {"cell": cell.key, "udp": work.run_echo(self.micro / "udp_echo", cell.payload),
                "tcp": work.run_echo(self.micro / "tcp_echo", cell.payload)}  # fmt: skip

    def cross_checks(self):
        found = []
        for tool, name in crosscheck.TOOLS.items():
            system = next((s for s in self.systems if s.name == name), None)
            if system is None:
                continue
            with tempfile.TemporaryDirectory(prefix="felix-peers-") as directory:
                with self.peer(system, directory) as peer:
                    found += crosscheck.run(tool, self.programs[tool], peer, self.load)
        return found


def progress(done, of, text):
    if sys.stderr.isatty():
        bar = "#" * (20 * done // of)
        print(f"\r\033[K[{bar:20}] {done}/{of} {text}", end="", file=sys.stderr, flush=True)


def machine():
    """One line about where this ran."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 os.uname().machine)  # fmt: skip
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return (f"{os.cpu_count()} processors, {model}, Linux {os.uname().release}, loopback; "
            f"Felix {commit.stdout.strip() or 'of an unknown commit'}")  # fmt: skip


def measure(comparison, cells, trials, save):
    """Fills in and returns the result; `save` keeps what there is after each trial."""
    turns = [(cell, system) for cell in cells for system in comparison.systems if work.takes_part(system, cell)]
    result = {"when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "trials": 0,
              "versions": programs.versions(comparison.programs), "runs": [], "echoes": [],
              "systems": [system.name for system in comparison.systems],
              "cells": [cell.key for cell in cells], "cross_checks": []}  # fmt: skip
    for trial in range(trials):
        for i, (cell, system) in enumerate(turns):
            progress(trial * len(turns) + i, trials * len(turns), f"{system.title}: {cell.key}")
            if system.name == "felix" and cell.kind == "acked":
                result["echoes"].append(comparison.echo(cell))
            result["runs"].append({"trial": trial, "cell": cell.key, "system": system.name,
                                   **comparison.attempt(system, cell)})  # fmt: skip
        result["trials"] = trial + 1
        save(result)
    progress(1, 1, "the peers' own tools")
    result["cross_checks"] = comparison.cross_checks()
    save(result)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return result


def saver():
    """Returns the function that keeps a result, and where it does."""
    path = ROOT / f"data/raw/peers-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    def save(result):
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(result, indent=1) + "\n")
        fresh.replace(path)

    return save, path


def new_result(options):
    systems = work.select_systems(options.only)
    with tempfile.TemporaryDirectory(prefix="felix-peers-") as certificates:
        servers.Felix(certificates, BIN).stop()  # makes a certificate and its key
        comparison = Comparison(systems, options.quick, certificates)
        save, path = saver()
        cells = [cell for cell in work.all_cells(options.quick)
                 if any(work.takes_part(system, cell) for system in systems[1:])]  # fmt: skip
        result = measure(comparison, cells, options.trials, save)
    print(f"every run is in {path.relative_to(ROOT)}", file=sys.stderr)
    return result


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench peers", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="NAMES",
                        help="of nats, redis, memcached, mosquitto; NAME-tls is one with TLS alone")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one short trial, 256 B only: to see that it works")
    parser.add_argument("--json", action="store_true", help="print every run as JSON instead of tables")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="show a run that was kept")
    options = parser.parse_args()
    if options.trials < 1:
        parser.error("--trials is at least 1")
    try:
        work.select_systems(options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        options.trials = 1
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background has it ignored
    try:
        result = json.loads(options.source.read_text()) if options.source else new_result(options)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the servers are stopped")
    systems = [system for system in servers.SYSTEMS if system.name in result["systems"]]
    cells = [cell for cell in work.all_cells() if cell.key in result["cells"]]
    text = report.full(result, cells, systems)
    if options.docs:
        DOCUMENT.write_text(report.insert(DOCUMENT.read_text(), text))
        print(f"written into {DOCUMENT.relative_to(ROOT)}", file=sys.stderr)
    print(json.dumps(result, indent=1) if options.json else text, end="\n" if options.json else "")


if __name__ == "__main__":
    main()
