#!/usr/bin/env python3
"""From records of runs to medians and quartiles, as CSV in data/derived.

    scripts/perf/normalize_and_aggregate.py [--session latest]

Writes, for latencydemo and cachedemo each, NAME_runs.csv (one row a run, failed ones too) and NAME_agg.csv
(one row a case: medians over its good trials, with the first and the third quartile), and session.json with
what all of them have in common. What was not measured is an empty field, never a zero.

data/derived/broker_costs.json, when it is there, adds what one message costs the broker in instructions
and system calls. It maps the name of some work (see costs_key) to an object with at least two numbers:

    {"pubsub f1 b64 p256": {"instructions_per_message": 1234.5, "syscalls_per_message": 0.125},
     "cache put c32 p256": {...}, "cache get c32 p256": {...}}
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Iterable

import records

COSTS = "broker_costs.json"
COST_COLUMNS = ("instructions_per_message", "syscalls_per_message")
RESULT_METRICS = {
    "pubsub": ("p50_us", "p90_us", "p99_us", "p999_us", "max_us", "throughput", "publish_submit_throughput",
               "delivered_throughput", "delivered_mb_per_s", "ack_p50_us", "ack_p99_us"),
    "cache": ("p50_us", "p99_us", "p999_us", "avg_us", "throughput"),
}  # fmt: skip
OTHER_METRICS = ("echo_p50_us", "echo_p99_us", "broker_cpu_us_per_message")
CASE_COLUMNS = {
    "pubsub": ("key", "cell", "profile", "placement", "fanout", "batch", "payload", "preset", "warmup", "messages"),
    "cache": ("key", "cell", "profile", "placement", "op", "payload", "warmup", "messages"),
}
FILES = {"pubsub": "latencydemo", "cache": "cachedemo"}


def quantile(values: list[float], share: float) -> float:
    """By linear interpolation between the neighbours; `values` must not be empty."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def costs_key(case: dict) -> str:
    """The name of a case's work in broker_costs.json: fanout, batch, payload, operations in flight."""
    if case["kind"] == "cache":
        operation = "get" if case["op"] == "get_hit" else case["op"]
        return f"cache {operation} c{case['concurrency']} p{case['payload']}"
    return f"pubsub f{case['fanout']} b{case['batch']} p{case['payload']}"


def metrics_of(record: dict) -> dict[str, float | None]:
    """All figures of a run; None for what it does not have."""
    kind, result = record["case"]["kind"], record.get("result") or {}
    echo, cpu = record.get("echo") or {}, record.get("broker_cpu") or {}
    found = {name: result.get(name) for name in RESULT_METRICS[kind]}
    good = record["ok"]
    return found | {
        "echo_p50_us": echo.get("p50_us") if good else None,
        "echo_p99_us": echo.get("p99_us") if good else None,
        "broker_cpu_us_per_message": cpu.get("us_per_message") if good else None,
    }


def normalized(record: dict) -> dict:
    """One flat row of a run."""
    case = record["case"]
    row = {name: case[name] for name in CASE_COLUMNS[case["kind"]]}
    row |= {name: record.get(name) for name in ("session", "run_id", "started", "trial", "attempt", "ok", "error",
                                                "seconds", "load_before", "load_after")}  # fmt: skip
    row |= {"git_sha": record["machine"]["git_sha"], "git_dirty": record["machine"]["git_dirty"]}
    return row | metrics_of(record)


def aggregated(runs: list[dict], costs: dict) -> dict:
    """One row of a case from its records. A trial counts once, however often it was tried."""
    case = runs[0]["case"]
    kind = case["kind"]
    good = {record["trial"]: record for record in runs if record["ok"]}
    row = {name: case[name] for name in CASE_COLUMNS[kind]}
    row |= {"trial_count": len(good), "failed_attempts": sum(not record["ok"] for record in runs)}
    undersized = [record["result"].get("undersized", False) for record in good.values()]
    row["undersized"] = any(undersized)
    figures = [metrics_of(record) for record in good.values()]
    for name in (*RESULT_METRICS[kind], *OTHER_METRICS):
        values = [figure[name] for figure in figures if figure[name] is not None]
        for suffix, share in (("median", 0.5), ("q1", 0.25), ("q3", 0.75)):
            row[f"{name}_{suffix}"] = quantile(values, share) if values else None
    cost = costs.get(costs_key(case), {})
    return row | {name: cost.get(name) for name in COST_COLUMNS}


def session_facts(found: list[dict]) -> dict:
    """What the runs have in common, and how far apart their circumstances were."""
    loads = [record["load_before"] for record in found]
    started = sorted(record["started"] for record in found)
    return {
        "session": found[0]["session"],
        "quick": found[0]["quick"],
        "partial": found[-1]["partial"],
        "extra_env": found[0]["extra_env"],
        "first_run": started[0],
        "last_run": started[-1],
        "runs": len(found),
        "failed_attempts": sum(not record["ok"] for record in found),
        "trials": max(record["trial"] for record in found),
        "load_average_median": quantile(loads, 0.5),
        "load_average_max": max(loads),
        "git_shas": sorted({record["machine"]["git_sha"] or "unknown" for record in found}),
        "git_dirty": any(record["machine"]["git_dirty"] for record in found),
        "machine": found[-1]["machine"],
    }


def write_csv(path: Path, rows: Iterable[dict]) -> None:
    """An empty file when there is nothing: what an earlier session left must not stay."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as out:
        if rows:
            writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def read_costs(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def by_case(found: list[dict]) -> list[list[dict]]:
    """Records grouped by case, in the order in which the cases first ran in trial 1."""
    groups: dict[str, list[dict]] = {}
    for record in found:
        groups.setdefault(record["case"]["key"], []).append(record)
    return list(groups.values())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, default=records.RUNS)
    parser.add_argument("--session", default="latest", help="or the beginning of a session's name")
    options = parser.parse_args(arguments)
    found = records.of_session(records.read(options.input), options.session)
    if not found:
        print(f"{options.input} has no such session", file=sys.stderr)
        return 1
    costs = read_costs(records.DERIVED / COSTS)
    if costs and not any(costs_key(record["case"]) in costs for record in found):
        print(f"{COSTS} knows none of these cases; it has {', '.join(costs)}", file=sys.stderr)
    for kind, name in FILES.items():
        runs = [record for record in found if record["case"]["kind"] == kind]
        write_csv(records.DERIVED / f"{name}_runs.csv", map(normalized, runs))
        write_csv(records.DERIVED / f"{name}_agg.csv", (aggregated(group, costs) for group in by_case(runs)))
    facts = session_facts(found)
    (records.DERIVED / "session.json").write_text(json.dumps(facts, indent=1) + "\n")
    dirty = ", tree with changes" if facts["git_dirty"] else ""
    print(f"session {facts['session']}: {facts['runs']} runs, {facts['failed_attempts']} failed attempts{dirty}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
