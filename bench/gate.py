#!/usr/bin/env python3
"""Gate: instructions and system calls per message of the broker, against the committed baseline.

    bench/gate.py [--case REGEX] [--update] [--json] [--profile [N]]

Runs felix-broker under valgrind's callgrind and drives it in lock step (bench/programs/lockstep.c), so that
the counts hardly depend on how busy the machine is. What is compared with bench/gate-baseline.json: the
instructions of the broker's own code and of ngtcp2, and the system calls on sockets and for waiting. Not
compared, but printed: the packet cipher, which follows the processor, and libc. Ends with status 1 when a
case got dearer than the tolerance allows. When compiler or ngtcp2 are not those of the baseline, it says
so, compares nothing and ends with status 0. docs/testing.md tells how it is meant to be used.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from common import callgrind

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin"))
BASELINE = ROOT / "bench/gate-baseline.json"
COSTS = ROOT / "data/derived/broker_costs.json"
TOLERANCE = {"instructions_per_message": 0.05, "syscalls_per_message": 0.1}
# A case runs in slices, of which the cheapest counts: chance only adds packets and turns. Single messages are
# at its mercy most, because each has acknowledgements of its own.
SLICES, SLICES_SINGLE = 4, 10
# Connections differ too, by how their timers fell. A case that looks like a regression gets this many, of which
# the cheapest counts; the baseline is what lies in the middle of as many.
ATTEMPTS = 5
STAMP_BYTES = 16  # a message of latencydemo is its payload and these
WINDOW_BYTES = 256 << 10
SPAN_SECONDS_MAX = 120  # for one slice, on the slowest machine

# By the beginning of the object's name. What is in none of them is "other".
GROUPS = {"felix-broker": "ours", "libngtcp2.": "ngtcp2", "libngtcp2_crypto": "cipher", "libgnutls": "cipher",
          "libnettle": "cipher", "libhogweed": "cipher", "libgmp": "cipher", "libIPSec_MB": "cipher",
          "libc.": "libc", "ld-linux": "libc", "vgpreload": "libc"}  # fmt: skip
COMPARED = ("ours", "ngtcp2")
# Our calls into the cipher change with it.
OUR_CIPHER_FILE = re.compile(r"src/quic/(cipher|ipsec_mb)[^/]*\.[ch]$")
# Reading the clock needs no system call outside valgrind, and memory from the system is a matter of history.
UNCOUNTED_CALL = re.compile(r"clock_gettime|mprotect|mmap|munmap|madvise|brk|mremap")


class Case(NamedTuple):
    key: str
    load: list[Any]  # arguments of lockstep
    slices: int = SLICES


class Figures(NamedTuple):
    """Per message. `groups` holds instructions by group, `functions` the dearest of them."""

    instructions: float  # of the groups that are compared
    syscalls: float
    groups: dict[str, float]
    functions: list[tuple[str, str, float]]

    def as_json(self) -> dict[str, Any]:
        return {"instructions_per_message": round(self.instructions, 2),
                "syscalls_per_message": round(self.syscalls, 5)}  # fmt: skip


def pubsub(fanout: int, batch: int, payload: int, window: int, rounds: int, note: str = "") -> Case:
    """A case of latencydemo's matrix: batches are not acknowledged, single messages are."""
    warmup = 1100 // (batch * window) + rounds // 2  # fills the replay ring of the stream
    key = f"pubsub f{fanout} b{batch} p{payload}{note}"
    stream = re.sub("[^a-z0-9]", "-", key)
    return Case(key, ["pubsub", stream, fanout, batch, payload + STAMP_BYTES, window,
                      1 if batch == 1 else 0, warmup, rounds],
                SLICES_SINGLE if batch == 1 else SLICES)  # fmt: skip


def cases() -> list[Case]:
    all_cases = []
    for fanout in (1, 10):
        for payload, rounds in ((0, 10), (256, 12), (1024, 14), (4096, 10 if fanout == 1 else 6)):
            window = max(1, min(64, WINDOW_BYTES // (64 * (payload + STAMP_BYTES))))
            all_cases.append(pubsub(fanout, 64, payload, window, rounds))
        all_cases.append(pubsub(fanout, 1, 256, 1, 150))
        all_cases.append(pubsub(fanout, 1, 256, 16, 30, " w16"))
    for payload in (256, 4096):
        for operation in ("put", "get"):
            all_cases.append(Case(f"cache {operation} c32 p{payload}", [operation, "gate", payload, 32, 40, 10], SLICES_SINGLE))
    return all_cases


# ---- counting ----


def group_of(cost: callgrind.Cost) -> str:
    if OUR_CIPHER_FILE.search(cost.file):
        return "cipher"
    return next((group for start, group in GROUPS.items() if cost.object.startswith(start)), "other")


def figures_of(costs: list[callgrind.Cost], messages: int) -> Figures:
    groups: Counter[str] = Counter()
    functions: Counter[tuple[str, str]] = Counter()
    syscalls = 0
    for cost in costs:
        group = group_of(cost)
        groups[group] += cost.instructions
        functions[cost.function, group] += cost.instructions
        syscalls += 0 if UNCOUNTED_CALL.search(cost.function) else cost.syscalls
    return Figures(
        sum(groups[group] for group in COMPARED) / messages,
        syscalls / messages,
        {group: groups[group] / messages for group in sorted(groups)},
        [(name, group, count / messages) for (name, group), count in functions.most_common(40)],
    )


def cheapest(runs: list[Figures]) -> Figures:
    """The run with the fewest instructions, with the fewest system calls that any run needed."""
    best = min(runs, key=lambda run: run.instructions)
    return best._replace(syscalls=min(run.syscalls for run in runs))


def middle(runs: list[Figures]) -> Figures:
    """The run with the median of instructions, with the median of system calls."""
    by_instructions = sorted(runs, key=lambda run: run.instructions)
    return by_instructions[len(runs) // 2]._replace(syscalls=sorted(run.syscalls for run in runs)[len(runs) // 2])


class Broker:
    """felix-broker --dev under callgrind: one reactor, which never looks for work before it sleeps."""

    def __init__(self, directory: str):
        self.directory = Path(directory)
        self.dumps = 0
        env = {name: value for name, value in os.environ.items() if not name.startswith("FELIX_")}
        self.client_env = env | {"FELIX_DATA_DIR": f"{directory}/data", "FELIX_EVENT_CONN_POOL": "1"}
        env |= {"FELIX_CORE_SHARDS": "1", "FELIX_SPIN_US": "0", "FELIX_SUB_QUEUE_POLICY": "block",
                "FELIX_PUB_INGRESS_WAIT": "1"}  # fmt: skip
        self.log = open(f"{directory}/log", "w")
        self.process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--collect-systime=yes", f"--callgrind-out-file={directory}/profile",
             BIN / "felix-broker", "--dev", "--data-dir", f"{directory}/data", "--quic-bind", "127.0.0.1:0",
             "--metrics-bind", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=env)  # fmt: skip
        line = self.process.stdout.readline() if self.process.stdout else ""
        if "quic=" not in line:
            self.stop()
            sys.exit("the broker did not start under valgrind:\n" + (self.directory / "log").read_text())
        self.client_env["FELIX_SERVER"] = line.split("quic=")[1].split()[0]

    def dump(self) -> Path:
        """What was counted since the last dump. (callgrind_control --zero forgets to zero system calls.)"""
        self.dumps += 1
        path = self.directory / f"profile.{self.dumps}"
        done = subprocess.run(["callgrind_control", "--dump", str(self.process.pid)], capture_output=True, text=True)
        until = time.monotonic() + 10
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        if done.returncode != 0 or not path.exists():
            sys.exit(f"callgrind_control could not dump the counts:\n{done.stdout}{done.stderr}")
        return path

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def count(broker: Broker, case: Case, number: int) -> Figures:
    """Run a case on connections, and a stream, of its own; returns its cheapest slice."""
    load = [case.load[0], f"{case.load[1]}-{number}", *case.load[2:]]
    program = BIN.parent / "bench/programs/lockstep"
    runs = []
    with subprocess.Popen([program, *map(str, load)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env=broker.client_env) as client:  # fmt: skip
        assert client.stdin and client.stdout
        try:
            if client.stdout.readline() != "ready\n":
                sys.exit(f"{case.key}: the load failed")
            broker.dump()
            for _ in range(case.slices):
                client.stdin.write("\n")
                client.stdin.flush()
                words = client.stdout.readline().split()
                if len(words) != 2:
                    sys.exit(f"{case.key}: the load failed")
                with broker.dump().open() as profile:
                    runs.append(figures_of(callgrind.parse(profile), int(words[1])))
            client.stdin.close()
            client.wait(SPAN_SECONDS_MAX)
        finally:
            client.kill()
    return cheapest(runs)


def count_until_sure(broker: Broker, case: Case, baseline: dict[str, Any], update: bool) -> Figures:
    runs = [count(broker, case, 0)]
    for attempt in range(1, ATTEMPTS):
        if update or regressions(baseline, case.key, cheapest(runs)):
            runs.append(count(broker, case, attempt))
    return middle(runs) if update else cheapest(runs)


# ---- comparing ----


def fingerprint() -> dict[str, str]:
    """What the counts depend on besides our own code."""
    program = (BIN / "felix-broker").read_bytes()
    compiler = re.search(rb"clang version ([0-9.]+)", program) or re.search(rb"GCC: \([^)]*\) ([0-9.]+)", program)
    libraries = json.loads((BIN.parent / "meson-info/intro-dependencies.json").read_text())
    versions = {library["name"]: library.get("version", "") for library in libraries}
    options = json.loads((BIN.parent / "meson-info/intro-buildoptions.json").read_text())
    values = {option["name"]: option["value"] for option in options}
    return {
        "compiler": f"{'clang' if b'clang' in compiler[0] else 'gcc'} {compiler[1].decode()}" if compiler else "unknown",
        "build": f"{values['buildtype']}, sanitizer {values['b_sanitize']}, pools {values['pools']}",
        "libngtcp2": versions.get("libngtcp2", "unknown"),
        "machine": platform.machine(),
    }


def differences(ours: dict[str, str], baseline: dict[str, Any]) -> list[str]:
    """Why figures of `ours` cannot be compared with the baseline's; empty when they can."""
    theirs = baseline.get("made_with", {})
    return [f"{name} is '{value}', the baseline's was '{theirs.get(name, 'not recorded')}'"
            for name, value in ours.items() if theirs.get(name) != value]  # fmt: skip


def change(baseline: dict[str, Any], key: str, figures: Figures) -> dict[str, float]:
    """Relative change of each figure that the baseline has: 0.03 is three percent more."""
    before = baseline.get("cases", {}).get(key, {})
    return {name: value / before[name] - 1 for name, value in figures.as_json().items() if before.get(name)}


def regressions(baseline: dict[str, Any], key: str, figures: Figures) -> list[str]:
    tolerance = TOLERANCE | baseline.get("tolerance", {})
    return [name for name, more in change(baseline, key, figures).items() if more > tolerance[name]]


# ---- telling ----


def line_of(key: str, figures: Figures, baseline: dict[str, Any]) -> str:
    changes = change(baseline, key, figures)
    wrong = regressions(baseline, key, figures)
    columns = f"{key:22} {figures.instructions:10,.1f}"
    columns += f" {changes['instructions_per_message']:+7.1%}" if changes else f" {'new':>7}"
    columns += f" {figures.syscalls:9.4f}"
    columns += f" {changes['syscalls_per_message']:+7.1%}" if "syscalls_per_message" in changes else f" {'new':>7}"
    for group in ("ours", "ngtcp2", "cipher", "libc"):
        columns += f" {figures.groups.get(group, 0):10,.1f}"
    return columns + ("  REGRESSION" if wrong else "")


HEADING = (f"{'case':22} {'compared':>10} {'change':>7} {'syscalls':>9} {'change':>7}"
           f" {'ours':>10} {'ngtcp2':>10} {'cipher':>10} {'libc':>10}")  # fmt: skip


def costs_document(all_figures: dict[str, Figures]) -> dict[str, Any]:
    """Everything the broker executes in user space; the cipher as valgrind's processor knows it."""
    return {
        key: {
            "instructions_per_message": round(sum(figures.groups.values()), 1),
            "syscalls_per_message": round(figures.syscalls, 5),
            "by_group": {group: round(count, 1) for group, count in figures.groups.items() if count >= 0.05},
        }
        for key, figures in all_figures.items()
    }


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def measure(options: argparse.Namespace, baseline: dict[str, Any]) -> dict[str, Figures]:
    """Counts all wanted cases and prints each as it comes."""
    all_figures = {}
    with tempfile.TemporaryDirectory(prefix="felix-gate-") as directory:
        broker = Broker(directory)
        try:
            for case in cases():
                if options.case and not re.search(options.case, case.key):
                    continue
                figures = count_until_sure(broker, case, baseline, options.update)
                all_figures[case.key] = figures
                if not options.json:
                    print(line_of(case.key, figures, baseline), flush=True)
                if options.profile:
                    for name, group, instructions in figures.functions[: options.profile]:
                        print(f"    {instructions:12,.2f}  {group:7} {name}")
        finally:
            broker.stop()
    return all_figures


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", metavar="REGEX", help="only the cases whose name matches")
    parser.add_argument("--update", action="store_true", help="make today's counts the baseline")
    parser.add_argument("--json", action="store_true", help="one object instead of the table")
    parser.add_argument("--profile", metavar="N", type=int, nargs="?", const=15, default=0,
                        help="with each case its N dearest functions (15)")  # fmt: skip
    parser.add_argument("--baseline", metavar="FILE", type=Path, default=BASELINE)
    parser.add_argument("--costs", metavar="FILE", type=Path, default=COSTS,
                        help="where the whole costs go after a run of all cases")  # fmt: skip
    return parser.parse_args()


def main() -> int:
    options = arguments()
    baseline = json.loads(options.baseline.read_text()) if options.baseline.exists() else {}
    made_with = fingerprint()
    wrong = differences(made_with, baseline) if baseline else ["there is no baseline"]
    comparable = not wrong
    known = baseline if comparable and not options.update else {}
    if not options.json:
        print(HEADING, flush=True)
    figures = measure(options, known)
    bad = {key: regressions(known, key, figures[key]) for key in figures if regressions(known, key, figures[key])}
    if not options.case:
        write_json(options.costs, costs_document(figures))
    if options.update:
        kept = baseline.get("cases", {}) if options.case and comparable else {}
        merged = kept | {key: each.as_json() for key, each in figures.items()}
        write_json(options.baseline, {"made_with": made_with, "tolerance": TOLERANCE, "cases": merged})
    if options.json:
        print(json.dumps({"comparable": comparable, "why_not": wrong, "made_with": made_with, "regressions": bad,
                          "cases": {key: each.as_json() | {"change": change(known, key, each), "by_group": each.groups}
                                    for key, each in figures.items()}}, indent=2))  # fmt: skip
        return 1 if bad else 0
    if options.update:
        print(f"\nthe baseline is now what was counted: {options.baseline}")
    elif not comparable:
        print("\nnothing was compared: " + "; ".join(wrong))
    elif bad:
        print(f"\n{len(bad)} of {len(figures)} cases cost more than the tolerance allows. "
              "Meant to be? ./dev bench gate --update, and say why in the commit.")  # fmt: skip
    else:
        print(f"\n{len(figures)} cases within the tolerance")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
