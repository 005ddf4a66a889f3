#!/usr/bin/env python3
"""Tables and charts of the latency matrix as Markdown, between two markers of docs/performance.md.

    scripts/perf/render_markdown_snippets.py [--page docs/performance.md] [--charts charts]

Replaces what stands between the markers, copies the charts (SVG) and the aggregate (CSV) to assets/perf
beside the page, and removes what an earlier run left there. Running it twice changes
nothing. A quick look or a part of the matrix is never written into the page; --print shows it.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import cases
import make_charts
import measure
import records
from make_charts import number, short
from normalize_and_aggregate import COST_COLUMNS, FILES

BEGIN, END = "<!-- latency-matrix: begin; written by ./dev bench latency-matrix -->", "<!-- latency-matrix: end -->"
PAGE = measure.ROOT / "docs/performance.md"
NOTHING = "–"
PLACEMENT_HEADS = {cases.IN_PROCESS: "in the demo", cases.OWN_PROCESS: "own process"}
COST_HEADS = dict(zip(COST_COLUMNS, ("instructions a message", "system calls a message")))


def text_of(value: float, column: str) -> str:
    """Three figures; times stay in microseconds however long they are."""
    return f"{value:,.0f}" if column.endswith("_us") and value >= 1000 else short(value)


def figure(row: dict | None, column: str, form: str = "{}") -> str:
    """The median; nothing is not zero."""
    value = number(row[f"{column}_median"]) if row else None
    return NOTHING if value is None else form.format(text_of(value, column))


def spread(row: dict | None, column: str, form: str = "{}") -> str:
    """The median with its quartiles."""
    if row is None or not row[f"{column}_median"]:
        return NOTHING
    low, middle, high = (text_of(float(row[f"{column}_{suffix}"]), column) for suffix in ("q1", "median", "q3"))
    text = form.format(middle)
    return f"{text} ({low} to {high})" if int(row["trial_count"]) > 1 else text


def rate_text(row: dict | None) -> str:
    """Of a batched run."""
    mark = " †" if row and row["undersized"] == "True" else ""
    return spread(row, "delivered_throughput", "{}/s") + mark


def latency_text(row: dict | None) -> str:
    if row is None or not row["p50_us_median"]:
        return NOTHING
    acks = f"; acknowledged {figure(row, 'ack_p50_us')}, {figure(row, 'ack_p99_us')}" if row["ack_p50_us_median"] else ""
    return f"{spread(row, 'p50_us')}, {spread(row, 'p99_us')}{acks}"


def cache_text(row: dict | None) -> str:
    if row is None or not row["throughput_median"]:
        return NOTHING
    return f"{spread(row, 'throughput', '{}/s')}, {figure(row, 'p50_us')}, {figure(row, 'p99_us')}"


class Table:
    """Rows of the same work side by side: one column for each profile and placement."""

    def __init__(self, rows: list[dict], config: dict, text, first: str) -> None:
        self.text, self.config, self.lines = text, config, {}
        self.setups = [(profile, placement) for profile in config["profiles"] for placement in config["placements"]
                       if any((row["profile"], row["placement"]) == (profile, placement) for row in rows)]  # fmt: skip
        self.costs = [column for column in COST_COLUMNS if any(row[column] for row in rows)]
        self.echo = any(row["echo_p50_us_median"] for row in rows)
        self.first = first
        for row in rows:
            self.lines.setdefault(row["cell"], {})[row["profile"], row["placement"]] = row

    def head(self) -> list[str]:
        found = [self.first, *(f"{profile}, {PLACEMENT_HEADS[placement]}" for profile, placement in self.setups)]
        found += ["UDP echo"] * self.echo + ["broker CPU a message"]
        return found + [COST_HEADS[column] for column in self.costs] + ["the original"]

    def line(self, cell: str, name: str) -> list[str]:
        rows = self.lines[cell]
        some = next(iter(rows.values()))
        # The first profile stands for all where a column has room for one.
        own = next((row for (_, placement), row in rows.items() if placement == cases.OWN_PROCESS), None)
        found = [name, *(self.text(rows.get(setup)) for setup in self.setups)]
        if self.echo:
            echoes = [make_charts.echo_of(list(rows.values()), metric) for metric in ("p50", "p99")]
            found.append(", ".join(NOTHING if echo is None else short(echo) for echo in echoes))
        found.append(figure(own, "broker_cpu_us_per_message", "{} us"))
        found += [short(float(some[column])) if some[column] else NOTHING for column in self.costs]
        return found + [self.config["original"].get(cell, NOTHING)]

    def markdown(self, names: dict[str, str]) -> list[str]:
        if not self.lines:
            return []
        head = self.head()
        rows = [self.line(cell, name) for cell, name in names.items() if cell in self.lines]
        return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]] + [""]


def size(payload: int) -> str:
    return f"{payload // 1024} KiB" if payload >= 1024 else f"{payload} B"


def pubsub_names(config: dict, batch: int) -> dict[str, str]:
    grid = config["pubsub"]
    return {f"f{fanout}_b{batch}_p{payload}": f"fanout {fanout}, {size(payload)}"
            for fanout in grid["fanout"] for payload in grid["payload"]}  # fmt: skip


def cache_names(config: dict) -> dict[str, str]:
    grid = config["cache"]
    return {f"cache_{op}_p{payload}": f"{make_charts.OP_NAMES[op]}, {size(payload)}"
            for op in grid["ops"] for payload in grid["payload"]}  # fmt: skip


def table_preset(rows: list[dict], config: dict) -> str:
    """The preset that stands in the tables: the first of the default ones that was measured."""
    measured = {row["preset"] for row in rows}
    return next((name for name in [*config["default_presets"], *config["presets"]] if name in measured), "")


def facts_lines(facts: dict, config: dict, preset: str) -> list[str]:
    host, sysctl = facts["machine"], facts["machine"]["sysctl"]
    options = host["build_options"]
    dirty = ", **with changes that are not committed**" if facts["git_dirty"] else ""
    extra = "".join(f" `{name}={value}`" for name, value in facts["extra_env"].items())
    failed = f" {facts['failed_attempts']} attempts failed and were repeated." if facts["failed_attempts"] else ""
    return [
        f"Session `{facts['session']}` of {facts['first_run'][:10]}: {facts['runs']} runs in turns, trials of each "
        f"case: {facts['trials']}.{failed} {host['processors']} processors {host['processor']}, Linux {host['kernel']}, "
        f"`net.core.rmem_max` {sysctl['net.core.rmem_max']}, `wmem_max` {sysctl['net.core.wmem_max']}; load average "
        f"{facts['load_average_median']:.1f} (at most {facts['load_average_max']:.1f}, the runs themselves included). "
        f"{host['compiler']}, `-O{options.get('optimization', '?')}`, ngtcp2 {host['ngtcp2']}, GnuTLS {host['gnutls']}. "
        f"Commit {', '.join(sha[:12] for sha in facts['git_shas'])}{dirty}. Loopback, TLS 1.3, lossless, stage timings "
        f"off{'; with' + extra if extra else ''}.",
        "",
        f"Medians, quartiles in brackets. Publisher as in preset `{preset}`; the other presets are in "
        "the charts. Broker CPU is processor time of a broker that is its own process, without setting up connections, "
        "with its spinning, in the first profile, for each message published, all its deliveries included.",
        "",
    ]  # fmt: skip


def table_lines(rows: dict[str, list[dict]], config: dict, preset: str) -> list[str]:
    pubsub = [row for row in rows["pubsub"] if row["preset"] == preset]
    lines: list[str] = []
    for batch, title, text in (
        ("1", "Acknowledged, one message at a time: p50 and p99 in microseconds, publish to delivery; then until the acknowledgement was back", latency_text),
        ("64", "Batches of 64, not acknowledged: deliveries a second", rate_text),
    ):
        table = Table([row for row in pubsub if row["batch"] == batch], config, text, "Case").markdown(
            pubsub_names(config, int(batch)))  # fmt: skip
        lines += [f"### {title}", "", *table] if table else []
        if any("†" in line for line in table):
            lines += ["† small enough to fit into the buffers on the way", ""]
    table = Table(rows["cache"], config, cache_text, "Operation").markdown(cache_names(config))
    title = (f"Cache, {config['cache']['concurrency']} operations in flight, {config['cache']['keys']:,} keys: operations a "
             "second, p50 and p99 in microseconds")  # fmt: skip
    return lines + ([f"### {title}", "", *table] if table else [])


def image_lines(names: list[str], config: dict, base: str) -> list[str]:
    """The charts that exist, by profile, latency first."""
    lines: list[str] = []
    for profile in config["profiles"]:
        mine = [name for name in names if name.split("/")[1] == profile]
        if mine:
            lines += [f"### Charts, {profile}", ""]
        for name in mine:
            title = " ".join(name.split("/")[::2]).replace("_", " ")
            lines += [f"![{title}, {profile}]({base}/{name}.svg)", ""]
    return lines


def snippet(rows: dict[str, list[dict]], facts: dict, config: dict, names: list[str], base: str) -> str:
    preset = table_preset(rows["pubsub"], config)
    lines = facts_lines(facts, config, preset) + table_lines(rows, config, preset)
    lines += image_lines(names, config, base)
    return "\n".join(lines).strip() + "\n"


def replaced(page: str, text: str) -> str:
    """The page with `text` between the markers."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        sys.exit(f"error: the page needs one line {BEGIN} and below it one line {END}")
    return page[: page.index(BEGIN) + len(BEGIN)] + "\n\n" + text + "\n" + page[page.index(END) :]


def copy_assets(charts: Path, names: list[str], assets: Path) -> None:
    """Charts and aggregate; what is there already stays untouched when it is the same."""
    wanted = {assets / f"{name}.svg": charts / f"{name}.svg" for name in names}
    wanted |= {assets / name / "aggregate.csv": records.DERIVED / f"{name}_agg.csv" for name in FILES.values()}
    for name in FILES.values():  # other measurements have their files beside these
        for old in (assets / name).rglob("*.*"):
            if old not in wanted:
                old.unlink()
    for to, source in wanted.items():
        if not to.exists() or to.read_bytes() != source.read_bytes():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=cases.PRESETS)
    parser.add_argument("--charts", type=Path, default=make_charts.CHARTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--print", action="store_true", help="to standard output, and no page is changed")
    options = parser.parse_args(arguments)
    config, rows = cases.load(options.config), make_charts.read_rows()
    facts = json.loads((records.DERIVED / "session.json").read_text())
    every = make_charts.charts(rows, config, "")
    names = [name for name in every if (options.charts / f"{name}.svg").exists()]
    if options.print:
        print(snippet(rows, facts, config, names, str(options.charts)), end="")
        return 0
    if facts["quick"] or facts["partial"]:
        sys.exit("error: a quick look or a part of the matrix is not written into a page (--print shows it)")
    assets = options.page.parent / "assets/perf"
    page = options.page.read_text()
    changed = replaced(page, snippet(rows, facts, config, names, "assets/perf"))
    copy_assets(options.charts, names, assets)
    if changed != page:
        options.page.write_text(changed)
    print(f"{options.page}: {'written' if changed != page else 'is as it should be'}, {len(names)} charts in {assets}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
