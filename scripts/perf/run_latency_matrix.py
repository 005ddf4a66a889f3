#!/usr/bin/env python3
"""Measures the matrix of presets.yml and appends one record a run to data/raw/runs.jsonl.

    scripts/perf/run_latency_matrix.py [--trials 5] [--quick] [--resume] [--filter fanout=1,payload=0|256]

Trials run in turns: all cases once, then all again, with the profiles and placements of the same work
next to each other. A run is a fresh process of latencydemo or cachedemo, with the broker in it or as a
fresh process of its own. Batch 1 has a plain UDP echo of the same size measured beside it.

A trial that fails is recorded, tried again, and does not stop the others; the exit status is 1 when one
is still missing at the end. After Ctrl-C (exit status 130) or a crash, --resume measures what is missing.
What the programs print is kept in data/raw/stdout.
"""

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from typing import Callable, NoReturn

import cases
import machine
import measure
import records

STAMP_BYTES = 16  # that latencydemo puts in front of each payload
MUST_STAY = ("programs_sha256", "processor", "processors", "kernel", "sysctl")  # within a session


class Progress:
    """A bar with the time that is left, on a terminal; a line now and then elsewhere."""

    WIDTH = 24
    LINE_SECONDS = 15

    def __init__(self, total: int, expected_seconds: float) -> None:
        self.total, self.expected = total, expected_seconds
        self.done, self.start, self.printed = 0, time.monotonic(), float("-inf")
        self.terminal = sys.stderr.isatty()

    def left_seconds(self) -> float:
        """What was expected, corrected by what it took so far."""
        took, share = time.monotonic() - self.start, self.done / self.total
        # The first runs say little: they count like the expectation until a tenth is done.
        trust = min(share * 10, 1.0)
        measured = took / share if share else 0.0
        return max((trust * measured + (1 - trust) * self.expected) * (1 - share), 0.0)

    def show(self, text: str) -> None:
        now = time.monotonic()
        filled = self.WIDTH * self.done // self.total
        line = f"{self.done}/{self.total}  {duration(self.left_seconds())} left  {text}"
        if self.terminal:
            print(f"\r\033[K[{'#' * filled}{'.' * (self.WIDTH - filled)}] {line}"[:160], end="", file=sys.stderr,
                  flush=True)  # fmt: skip
        elif now - self.printed >= self.LINE_SECONDS:
            print(line, file=sys.stderr, flush=True)
            self.printed = now

    def say(self, text: str) -> None:
        """A line that stays."""
        print(f"\r\033[K{text}" if self.terminal else text, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60:02} s" if minutes else f"{round(seconds)} s"


def checked(case: cases.Case, stdout: str) -> dict:
    """The one result of a demo's document, if it is a whole and lossless one."""
    try:
        document = json.loads(stdout)
        (result,) = document["results" if case.kind == "cache" else "cases"]
    except (ValueError, KeyError, TypeError) as error:
        raise measure.Failed(f"cannot read what {case.program} printed: {error}") from None
    if case.kind == "pubsub":
        if not result.get("valid") or result.get("dropped") or result.get("unaccounted"):
            raise measure.Failed("the run is not lossless")
        if result["received"] == 0:
            raise measure.Failed("nothing was received")
    elif result["wrong"] or result["n"] == 0:
        raise measure.Failed("wrong values, or none at all")
    return result


def demo(case: cases.Case, broker, record: dict, counts: tuple[int, int] | None = None) -> str:
    """Runs the demo and returns what it printed; the record keeps command, exit code and output."""
    command = [str(measure.BIN / case.program), *case.command(counts)]
    if broker is not None:
        command += measure.connect_arguments(broker)
    done = measure.run(command, dict(case.env))
    record.update(command=command, exit_code=done.returncode)
    path = records.STDOUT / f"{record['run_id']}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as out:
        out.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
    record["stdout_path"] = os.path.relpath(path, records.DATA)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise measure.Failed(f"exit status {done.returncode}: {reason[0]}")
    return done.stdout


def run_own_process(case: cases.Case, record: dict) -> None:
    """With a fresh broker. Its CPU time is counted twice: for a client that connects and sends one
    message, and for the run; the difference is what the messages cost."""
    with tempfile.TemporaryDirectory(prefix="felix-perf-") as directory:
        broker = measure.lossless_broker(directory, dict(case.env))
        try:
            before = broker.cpu_seconds()
            demo(case, broker, record, counts=(0, 1))
            between = broker.cpu_seconds()
            record["result"] = checked(case, demo(case, broker, record))
            after = broker.cpu_seconds()
            broker.stop()
        finally:
            broker.kill()
    setup, run = between - before, after - between
    record["broker_cpu"] = {
        "setup_seconds": setup,
        "run_seconds": run,
        "us_per_message": max(run - setup, 0.0) * 1e6 / (case.warmup + case.messages),
    }


def run_case(case: cases.Case, record: dict) -> None:
    """Fills in the record; raises Failed (or what a broker's end asserts) when it cannot."""
    if case.echo_count:
        record["echo"] = measure.udp_echo(case.payload + STAMP_BYTES, case.echo_count)
    if case.placement == cases.OWN_PROCESS:
        run_own_process(case, record)
    else:
        record["result"] = checked(case, demo(case, None, record))


def attempt(case: cases.Case, trial: int, number: int, session: dict) -> dict:
    """One run, whatever comes of it, as a record that is on disk."""
    run_id = f"{session['session']}-{secrets.token_hex(4)}"
    record = session | {"run_id": run_id, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                        "trial": trial, "attempt": number, "case": case.document(), "ok": False,
                        "load_before": machine.load_average()}  # fmt: skip
    start = time.monotonic()
    try:
        run_case(case, record)
        record["ok"] = True
    except (measure.Failed, AssertionError, OSError) as error:
        record.pop("result", None)
        record["error"] = str(error)[:2000]
    record.update(seconds=round(time.monotonic() - start, 3), load_after=machine.load_average())
    records.append(record)
    return record


def identity(record: dict) -> tuple:
    """What a run must have in common with a case and trial to stand for it."""
    return json.dumps(record["case"], sort_keys=True), record["trial"]


def resumed(wanted: list[cases.Case], session: dict) -> tuple[str, set]:
    """The session to go on with and what it already has; it must be of the same kind."""
    found = records.of_session(records.read())
    if not found:
        raise cases.ConfigError("nothing to resume: there is no session yet")
    last, documents = found[-1], {case.key: case.document() for case in wanted}
    changed = [name for name in MUST_STAY if last["machine"].get(name) != session["machine"][name]]
    changed += [name for name in ("quick", "extra_env") if last[name] != session[name]]
    if any(documents.get(record["case"]["key"], record["case"]) != record["case"] for record in found):
        changed.append("presets.yml")
    if changed:
        raise cases.ConfigError(f"the last session was measured with another {', '.join(changed)}: start a new one")
    return last["session"], {identity(record) for record in found if record["ok"]}


def run_plan(plan: list[tuple[int, cases.Case]], session: dict, retries: int, expected_seconds: float) -> int:
    """All of it; returns how many cases are still without a result."""
    progress, missing = Progress(len(plan), expected_seconds), 0
    for trial, case in plan:
        progress.show(f"trial {trial}: {case.key}")
        for number in range(1, retries + 2):
            record = attempt(case, trial, number, session)
            if record["ok"]:
                break
            progress.say(f"failed: trial {trial}, attempt {number}: {case.key}: {record['error']}")
        missing += not record["ok"]
        progress.done += 1
    progress.end()
    return missing


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=cases.Path, default=cases.PRESETS, help="instead of presets.yml")
    parser.add_argument("--trials", type=int, help="of each case (presets.yml says 5)")
    parser.add_argument("--quick", action="store_true", help="one small trial, to see that everything works")
    parser.add_argument("--presets", help="CSV, or all")
    parser.add_argument("--filter", default="", help="NAME=VALUE|VALUE,...: kind, profile, placement, fanout, batch, "
                        "payload, preset, op, cell")  # fmt: skip
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE",
                        help="a further setting of client and broker, in every run")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with the last session")
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and for how long")
    options = parser.parse_args(arguments)
    if options.trials is not None and options.trials < 1:
        parser.error("--trials needs a positive number")
    if any("=" not in setting for setting in options.env):
        parser.error("--env needs NAME=VALUE")
    return options


def run_program(program: Callable[[], int]) -> NoReturn:
    """Run a main function and exit with its status. After Ctrl-C the run at hand is lost, all before it are
    on disk."""
    try:
        sys.exit(program())
    except cases.ConfigError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted; --resume goes on from here", file=sys.stderr)
        sys.exit(130)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    config = cases.load(options.config)
    if options.quick:
        config = cases.quick(config)
    trials = options.trials or config["trials"]
    presets = {None: None, "all": list(config["presets"])}.get(options.presets, (options.presets or "").split(","))
    env = dict(setting.split("=", 1) for setting in options.env)
    wanted = cases.filtered(cases.cases(config, presets, env), options.filter)
    if not wanted:
        raise cases.ConfigError("no case is left by --filter")
    name, done = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(2), set()
    session = {"session": name, "quick": options.quick, "partial": bool(options.filter or options.presets),
               "extra_env": env, "machine": machine.facts()}  # fmt: skip
    if options.resume:
        name, done = resumed(wanted, session)
        session["session"] = name
    plan = [(trial, case) for trial, case in cases.in_turns(wanted, trials)
            if identity({"case": case.document(), "trial": trial}) not in done]  # fmt: skip
    seconds = len(plan) * config["seconds_per_run"] * (0.5 if options.quick else 1.0)
    print(f"session {name}: {len(plan)} of {len(wanted) * trials} runs, {trials} trial(s), about "
          f"{duration(seconds)}; ends about {time.strftime('%H:%M', time.localtime(time.time() + seconds))}")  # fmt: skip
    if options.dry_run:
        for trial, case in plan:
            print(f"{trial} {case.key}: {case.program} {' '.join(case.command())}")
        return 0
    missing = run_plan(plan, session, config["max_retries"], seconds) if plan else 0
    if missing:
        print(f"{missing} of {len(plan)} runs failed; --resume tries them again", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    run_program(main)
