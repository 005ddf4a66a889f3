"""From runs to tables. Pure: what goes in are runs, what comes out is text."""

import statistics
from collections.abc import Iterable
from typing import Any

import report
from workloads import CASES, Case

MARKERS = ("<!-- durable:begin -->", "<!-- durable:end -->")
TITLES = {"felix": "Felix", "felix-shared": "Felix, one connection for all", "felix-memory": "Felix, in memory",
          "redis": "Redis", "redis-shared": "Redis, one connection for all", "jetstream": "JetStream",
          "jetstream-shared": "JetStream, one connection for all", "fio": "fio"}  # fmt: skip

CAVEATS = """\
How it is measured. Each run has a server of its own with an empty directory on the same file system; systems take
turns within a trial, and the cost of a flushed append (a pwrite of 284 bytes that makes the file longer, and fdatasync)
and of a UDP echo is measured right before and after each run.
"Flushed" is Felix' on_commit, Redis' appendfsync always, JetStream's sync_interval always. A publisher waits for the
answer to what it sent. 64 publishers are 64 connections that one thread of peer-load, or of libfelix, serves; "one
connection for all" is what 64 threads of one program have: with libfelix by default, and with NATS' clients. Redis and JetStream know no batches: a publisher keeps 64
single messages on its way and sends what the answers of one read allow in one write. Felix encrypts, the peers do not.
Redis keeps everything in memory beside its file, and answers XADD; JetStream writes to its file store. fio
writes blocks of 256 KiB in sequence, through the page cache with a flush at the end or around it; the faster one
counts. The publisher beside the replay waits for a flush with each message."""


def figures(result: dict[str, Any], case: Case, system: str) -> list[dict[str, float]]:
    return [run["figures"] for run in result["runs"]
            if run["case"] == case.key and run["system"] == system and run.get("figures")]  # fmt: skip


def medians(runs: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(runs)
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]} if rows else {}


def table_of(result: dict[str, Any], case: Case) -> dict[str, dict[str, float]]:
    """Medians by system, and of the disk as it was around the runs of Felix."""
    table = {system: medians(figures(result, case, system)) for system in TITLES}
    table["disk"] = disk_of(result, case, "felix")
    return {system: row for system, row in table.items() if row}


def disk_of(result: dict[str, Any], case: Case, system: str) -> dict[str, float]:
    return medians(run["disk"] for run in result["runs"]
                   if run["case"] == case.key and run["system"] == system and run.get("disk"))  # fmt: skip


def bytes_text(rate: float) -> str:
    return f"{rate / 1e9:.2f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.0f} MB/s"


def row_text(case: Case, row: dict[str, float]) -> str:
    """What one system gave in one case."""
    if case.key in ("one", "many", "batches"):
        return f"{report.rate_text(row['records_per_s'])}, p50 {row['p50_us']:.0f} us, p99 {row['p99_us']:.0f}"
    if case.key == "replay" and "slowed_percent" in row:
        return (f"{bytes_text(row['bytes_per_s'])}, beside a publisher {bytes_text(row['beside_bytes_per_s'])}; "
                f"who gets {row['publisher_alone_per_s']:.0f}/s alone and {row['publisher_beside_per_s']:.0f}/s then")  # fmt: skip
    if case.key == "recovery":
        return (f"ready after {row['ready_ms']:.0f} ms, a publish answered after {row['published_ms']:.0f}, "
                f"the first record read after {row['read_ms']:.0f}")  # fmt: skip
    if case.key == "memory":
        return (f"p50 / p99 {row['p50_us']:.0f} / {row['p99_us']:.0f} us alone, "
                f"{row['beside_p50_us']:.0f} / {row['beside_p99_us']:.0f} beside {bytes_text(row['load_bytes_per_s'])} "
                f"to disk, {row['control_p50_us']:.0f} / {row['control_p99_us']:.0f} beside as much in memory")  # fmt: skip
    if "direct_bytes_per_s" in row:
        return (f"{bytes_text(row['direct_bytes_per_s'])} around the page cache, "
                f"{bytes_text(row['buffered_bytes_per_s'])} through it, flushed at the end")  # fmt: skip
    return bytes_text(row["bytes_per_s"])


def disk_text(row: dict[str, float]) -> str:
    if not row:
        return "not measured"
    return (f"fdatasync {row['fdatasync_us']:.0f} us (length set ahead {row['fdatasync_ahead_us']:.0f}), "
            f"UDP echo {row['udp_echo_us']:.0f}")  # fmt: skip


def flush_text(result: dict[str, Any], case: Case, system: str) -> str:
    row = disk_of(result, case, system)
    return f"{row['fdatasync_us']:.0f} us" if row else report.NOTHING


def verdict_text(case: Case, table: dict[str, dict[str, float]]) -> str:
    if "felix" not in table:
        return "not measured"
    text, reached = case.verdict(table)
    return f"{text}: {'reached' if reached else 'MISSED'}"


def full(result: dict[str, Any]) -> str:
    """Everything, as Markdown."""
    cases = [case for case in CASES if any(run["case"] == case.key for run in result["runs"])]
    parts = [report.wrap(f"Measured on {result['when']}: {result['machine']}; {result['disk_kind']}. "
                         f"{result['versions']}. Medians of {result['trials']} trial(s) of {result['seconds']:g} s; "
                         f"replay and recovery of {result['gib']:g} GiB.")]  # fmt: skip
    rows, verdicts = [], []
    for case in cases:
        table = table_of(result, case)
        verdicts.append([case.title, verdict_text(case, table), disk_text(table.get("disk", {}))])
        rows += [[case.title, TITLES[system], row_text(case, table[system]), flush_text(result, case, system)]
                 for system in TITLES if system in table]  # fmt: skip
    parts.append(report.table(["Case", "Reached (to reach)", "One flush, one echo, p50"], verdicts))
    parts.append(report.table(["Case", "Who", "Gave", "One flush then"], rows))
    failures = [f"- {TITLES[run['system']]}, {run['case']}, trial {run['trial']}: {run['error']}"
                for run in result["runs"] if run.get("error")]  # fmt: skip
    if failures:
        parts.append("Runs that failed:\n\n" + "\n".join(failures))
    parts.append(report.wrap(CAVEATS))
    return "\n\n".join(parts) + "\n"
