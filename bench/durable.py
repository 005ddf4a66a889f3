#!/usr/bin/env python3
"""Durable streams beside Redis, NATS JetStream and fio, on the same disk, in turns.

    bench/durable.py [--trials 3] [--seconds 2] [--gib 2] [--only one,many] [--without redis]
                     [--directory DIR] [--json] [--docs] [--from FILE]

Cases: one, many (64 publishers), batches (of 64), large (4 KiB), replay, recovery, memory. Each run
starts a server of its own with an empty directory below DIR (build/bench-durable), which is on the
disk that is measured. Before and after each run the cost of one flushed append and of a UDP echo
is measured. Peers are fetched and built into build/peers, as by bench/peers.py.

Prints what each gave and what was to be reached. Every run is kept in data/raw. --docs writes the
tables into docs/performance.md; with --from they are those of an earlier run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(ROOT / part) for part in ("bench/durable", "bench/peers", "scripts/perf")]

import workloads as work  # noqa: E402
import disk  # noqa: E402
import measure  # noqa: E402
import page  # noqa: E402
import programs  # noqa: E402
import report  # noqa: E402
import systems  # noqa: E402

DOCUMENT = ROOT / "docs/performance.md"


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def machine() -> str:
    """One line about where this ran."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 os.uname().machine)  # fmt: skip
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return (f"{os.cpu_count()} processors, {model}, Linux {os.uname().release}, loopback; "
            f"Felix {commit.stdout.strip() or 'of an unknown commit'}")  # fmt: skip


def attempt(case: work.Case, system: str, options: work.Options) -> dict[str, Any]:
    """{"figures": ..., "disk": ...} or, when a peer failed, {"error": ...}. Felix may not fail.

    The disk is measured right before and after, because it changes its mind from one second to the next.
    """
    before = disk.costs(systems.fresh(options.root))
    try:
        figures = case.run(options, system)
    except measure.Failed as failure:
        if system.startswith("felix"):
            sys.exit(f"Felix, {case.key}: {failure}")
        return {"error": str(failure)}
    after = disk.costs(systems.fresh(options.root))
    return {"figures": figures, "disk": {name: (before[name] + after[name]) / 2 for name in before}}


def run_all(cases: list[work.Case], without: list[str], options: work.Options, trials: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "disk_kind": disk.file_system(options.root),
        "versions": programs.versions(options.paths), "trials": trials, "seconds": options.seconds,
        "gib": options.gib, "runs": []}  # fmt: skip
    for trial in range(trials):
        for case in cases:
            for system in case.systems:
                if system in without:
                    continue
                progress(f"trial {trial + 1} of {trials}: {case.title}: {page.TITLES[system]}")
                result["runs"].append({"trial": trial, "case": case.key, "system": system,
                                       **attempt(case, system, options)})  # fmt: skip
    progress("")
    return result


def keep(result: dict[str, Any]) -> None:
    path = ROOT / f"data/raw/durable-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"every run is in {path.relative_to(ROOT)}", file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench durable", description=__doc__.splitlines()[0])
    keys = [case.key for case in work.CASES]
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement (2)")
    parser.add_argument("--gib", type=float, default=2, help="of replay and recovery (2; the aim names 10)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=keys, metavar="CASES",
                        help=f"of {', '.join(keys)}")  # fmt: skip
    parser.add_argument("--without", type=lambda text: text.split(","), default=[], metavar="SYSTEMS",
                        help=f"of {', '.join(page.TITLES)}")  # fmt: skip
    parser.add_argument("--directory", type=Path, default=ROOT / "build/bench-durable",
                        help="where servers keep their data (build/bench-durable)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print every run as JSON instead of tables")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--from", dest="source", type=Path, action="append", metavar="FILE",
                        help="show a run that was kept; given several times, their cases together")  # fmt: skip
    options = parser.parse_args()
    if options.trials < 1 or options.seconds < 0.2 or options.gib <= 0:
        parser.error("--trials is at least 1, --seconds at least 0.2, --gib more than nothing")
    for name in [*options.only, *options.without]:
        if name not in keys and name not in page.TITLES:
            parser.error(f"there is neither a case nor a system '{name}'")
    return options


def new_result(given: argparse.Namespace) -> dict[str, Any]:
    cases = [case for case in work.CASES if case.key in given.only]
    peers = [name for name in systems.PEERS if name not in given.without]
    given.directory.mkdir(parents=True, exist_ok=True)
    options = work.Options(given.directory, given.seconds, given.gib, systems.fetch(peers))
    try:
        result = run_all(cases, given.without, options, given.trials)
    finally:
        systems.clear(options.root)
    keep(result)
    return result


def together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs of the same machine with different cases as one result: the first one says where and how."""
    first = results[0]
    return first | {"runs": [run for result in results for run in result["runs"]]}


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = (together([json.loads(path.read_text()) for path in options.source]) if options.source
                  else new_result(options))  # fmt: skip
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the servers are stopped")
    text = page.full(result)
    if options.docs:
        DOCUMENT.write_text(report.insert(DOCUMENT.read_text(), text, page.MARKERS))
        print(f"written into {DOCUMENT.relative_to(ROOT)}", file=sys.stderr)
    print(json.dumps(result, indent=1) if options.json else text, end="\n" if options.json else "")


if __name__ == "__main__":
    main()
