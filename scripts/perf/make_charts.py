#!/usr/bin/env python3
"""Bar charts of what normalize_and_aggregate.py computed: p50, p99 and throughput.

    scripts/perf/make_charts.py [--output charts]

Writes latencydemo/PROFILE/fFANOUT_bBATCH_{p50,p99,throughput}.{png,svg} and, for the cache,
cachedemo/PROFILE/{p50,p99,throughput}.{png,svg}. Bars are medians, whiskers the quartiles. The axis ends
at the 95th percentile of a chart's bars: a taller bar is cut there, with a mark and its true value. What was
not measured has a mark of its own, and a chart without any data is not drawn.
"""

import argparse
import csv
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cases
import records
from normalize_and_aggregate import FILES, quantile

try:
    import matplotlib
except ImportError:
    sys.exit("error: matplotlib is missing; the results are safe in data/derived. "
             "Run ./dev bench latency-matrix --charts-only")  # fmt: skip

matplotlib.use("Agg")
from matplotlib import colors, pyplot, ticker  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

CHARTS = records.DATA.parent / "charts"
COLOURS = ("#1b6ca8", "#e08e2b", "#3a8f5c", "#a33b5f", "#6d5aa8", "#5b6770", "#b5a642")
PLACEMENT_NAMES = {cases.IN_PROCESS: "broker in the demo's process", cases.OWN_PROCESS: "broker as its own process"}
OP_NAMES = {"put": "put", "get_hit": "get (hit)", "get_miss": "get (miss)"}
HEADROOM = 0.16  # share of the axis above the cap: room for what stands over the bars
LOG_FROM = 20  # from this ratio of the tallest to the smallest bar, the axis is logarithmic
METRICS = ("p50", "p99", "throughput")


@dataclass
class Bar:
    """One bar; None for what was not measured."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass
class Chart:
    """What is drawn, before anything is: groups along x, one bar of each series in each."""

    title: str
    axis: str
    groups: list[str]
    series: dict[str, list[Bar]] = field(default_factory=dict)
    floors: list[float | None] = field(default_factory=list)  # a line over each group: the UDP echo
    floor_name: str = ""
    footer: str = ""
    cap_share: float = 0.95

    def values(self) -> list[float]:
        return [bar.value for bars in self.series.values() for bar in bars if bar.value is not None]

    def cap(self) -> float:
        """Where the axis ends for bars."""
        return quantile(self.values(), self.cap_share)


def short(value: float) -> str:
    """Three figures, with k and M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def number(text: str | None) -> float | None:
    return float(text) if text else None


def bar_of(row: dict | None, column: str, divisor: float = 1) -> Bar:
    """Of one row of an aggregate."""
    if row is None:
        return Bar(None)
    found = (number(row[f"{column}_{suffix}"]) for suffix in ("median", "q1", "q3"))
    return Bar(*(value if value is None else value / divisor for value in found))


# ---- drawing --------------------------------------------------------------------------------------


@dataclass
class Scale:
    """The vertical axis: linear, or logarithmic where small bars would vanish beside large ones."""

    bottom: float
    cap: float
    log: bool

    @classmethod
    def of(cls, chart: Chart) -> "Scale":
        floors = [floor for floor in chart.floors if floor is not None]
        low, cap = min(chart.values() + floors), chart.cap()
        if low > 0 and max(chart.values()) / low > LOG_FROM:
            return cls(10 ** math.floor(math.log10(low * 0.7)), cap, True)
        return cls(0, cap, False)

    def at(self, share: float) -> float:
        """The value that is drawn `share` of the way from the bottom to the cap."""
        if self.log:
            return self.bottom * (self.cap / self.bottom) ** share
        return self.bottom + (self.cap - self.bottom) * share


def _mark_clipped(axes: Axes, x: float, width: float, scale: Scale) -> None:
    """A torn top."""
    count = 2 * max(3, round(width / 0.04))
    teeth = [x - width / 2 + width * i / count for i in range(count + 1)]
    heights = [scale.at(0.955 if i % 2 else 0.985) for i in range(count + 1)]
    axes.plot(teeth, heights, color="white", linewidth=2.2, zorder=4)


def _draw_bar(axes: Axes, x: float, width: float, bar: Bar, scale: Scale, style: dict, name: str) -> None:
    text = {"xytext": (0, 3), "textcoords": "offset points", "rotation": 90, "ha": "center", "va": "bottom",
            "fontsize": 7, "zorder": 5}  # fmt: skip
    if bar.value is None:
        axes.annotate("no data", (x, scale.bottom), color="#999999", gid=f"missing {name}", **text)
        return
    height = min(bar.value, scale.cap)
    axes.bar(x, height - scale.bottom, width, bottom=scale.bottom, zorder=2, **style)
    if bar.value > scale.cap:
        _mark_clipped(axes, x, width, scale)
        axes.annotate(f"\N{UPWARDS ARROW} {short(bar.value)}", (x, scale.cap), fontweight="bold",
                      gid=f"clipped {name}", **text)  # fmt: skip
        return
    top = height
    if bar.low is not None and bar.high is not None and bar.high > bar.low:
        top = max(min(bar.high, scale.cap), height)
        axes.plot([x, x], [max(bar.low, scale.bottom), top], color="#222222", linewidth=1, zorder=3)
    axes.annotate(short(bar.value), (x, top), color="#444444", **text)


def _draw_floors(axes: Axes, chart: Chart, scale: Scale) -> None:
    """Drawn over the bars; one that lies above the axis is left to the tables."""
    label = chart.floor_name
    for i, floor in enumerate(chart.floors):
        if floor is not None and floor <= scale.cap:
            axes.plot([i - 0.46, i + 0.46], [floor, floor], color="black", linewidth=1.4, linestyle=(0, (4, 2)),
                      zorder=6, label=label)  # fmt: skip
            label = ""


def _styles(names: list[str]) -> dict[str, dict]:
    """A colour for each preset or operation, pale for the broker in the demo's process."""
    kinds = list(dict.fromkeys(name.partition(", ")[0] for name in names))
    found = {}
    for name in names:
        colour = COLOURS[kinds.index(name.partition(", ")[0]) % len(COLOURS)]
        red, green, blue = colors.to_rgb(colour)
        pale = (0.45 + red * 0.55, 0.45 + green * 0.55, 0.45 + blue * 0.55)
        inside = name.endswith(PLACEMENT_NAMES[cases.IN_PROCESS])
        found[name] = {"facecolor": pale if inside else colour, "edgecolor": colour, "linewidth": 0.8}
    return found


def _dress(axes: Axes, chart: Chart, scale: Scale) -> None:
    """Axes, title and legend."""
    if scale.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_ylim(scale.bottom, scale.at(1 + HEADROOM))
    axes.set_xlim(-0.55, len(chart.groups) - 0.45)
    axes.set_xticks(range(len(chart.groups)), chart.groups)
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short(value) if value else "0"))
    axes.grid(axis="y", color="#dddddd", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    cut = any(value > scale.cap for value in chart.values())
    notes = ["logarithmic"] * scale.log + [f"cut at p{chart.cap_share * 100:g} of the bars"] * cut
    axes.set_ylabel(chart.axis + (f"\n({', '.join(notes)})" if notes else ""), fontsize=9)
    axes.set_title(chart.title, loc="left", fontsize=11, pad=10)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i] == chart.floor_name)  # the echo last
    axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="upper center",
                bbox_to_anchor=(0.5, -0.07), ncols=3, frameon=False, fontsize=8)  # fmt: skip


def draw(chart: Chart, path: Path) -> bool:
    """Writes `path`.png and `path`.svg, the same bytes for the same chart; False without data."""
    if not chart.values():
        return False
    scale, width = Scale.of(chart), 0.84 / len(chart.series)
    figure, axes = pyplot.subplots(figsize=(10, 5))
    styles = _styles(list(chart.series))
    for i, (name, bars) in enumerate(chart.series.items()):
        axes.bar(0, 0, label=name, **styles[name])  # for the legend, also when the first bar is missing
        for group, bar in enumerate(bars):
            x = group - 0.42 + width * (i + 0.5)
            _draw_bar(axes, x, width * 0.92, bar, scale, styles[name], f"{group} {i}")
    _draw_floors(axes, chart, scale)
    _dress(axes, chart, scale)
    figure.text(0.012, 0.012, chart.footer, fontsize=6.5, color="#666666")
    figure.subplots_adjust(left=0.085, right=0.99, top=0.92, bottom=0.22)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=140, metadata={"Software": None})
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "felix"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)
    return True


# ---- from rows to charts ----------------------------------------------------------------------------


def unique(rows: list[dict], column: str, order: list[str] | None = None) -> list[str]:
    """The values of a column: in `order` where that is known, numbers by size, else as they come."""
    found = list(dict.fromkeys(row[column] for row in rows))
    if order is not None:
        return sorted(found, key=lambda value: order.index(value) if value in order else len(order))
    return sorted(found, key=int)


def footer_of(facts: dict) -> str:
    host = facts["machine"]
    dirty = " with changes (DIRTY)" if facts["git_dirty"] else ""
    quick = "QUICK LOOK, NOT FOR QUOTING   " if facts["quick"] else ""
    extra = "".join(f"   {name}={value}" for name, value in facts["extra_env"].items())
    return (f"{quick}{', '.join(sha[:12] for sha in facts['git_shas'])}{dirty}   {facts['first_run'][:10]}   "
            f"{host['processors']} x {host['processor']}, Linux {host['kernel']}, loopback, TLS 1.3{extra}")  # fmt: skip


def trials_text(rows: list[dict]) -> str:
    counts = sorted({int(row["trial_count"]) for row in rows})
    if len(counts) > 1:
        return f"medians of {counts[0]} to {counts[-1]} trials"
    return f"median of {counts[0]} trials" if counts[0] > 1 else "one trial"


def _fill(chart: Chart, rows: list[dict], names: list[tuple[str, str, str]], by: str, column: str,
          divisor: float = 1) -> None:  # fmt: skip
    """One series for each (label, value of `by`, placement) that was measured at all."""
    payloads = unique(rows, "payload")
    for label, value, placement in names:
        mine = {row["payload"]: row for row in rows if row[by] == value and row["placement"] == placement}
        if mine:
            chart.series[label] = [bar_of(mine.get(payload), column, divisor) for payload in payloads]


def _groups(rows: list[dict]) -> list[str]:
    return [f"{int(payload):,} B" for payload in unique(rows, "payload")]


def echo_of(rows: list[dict], metric: str) -> float | None:
    """The plain UDP echo that ran beside these rows, over all of them."""
    echoes = [number(row[f"echo_{metric}_us_median"]) for row in rows]
    known = [echo for echo in echoes if echo is not None]
    return quantile(known, 0.5) if known else None


def _add_floors(chart: Chart, rows: list[dict], metric: str) -> None:
    chart.floor_name = f"plain UDP echo, there and back, {metric}"
    for payload in unique(rows, "payload"):
        chart.floors.append(echo_of([row for row in rows if row["payload"] == payload], metric))


def pubsub_chart(rows: list[dict], metric: str, config: dict, footer: str) -> Chart:
    """Of the rows of one profile, fanout and batch."""
    acked, rate = rows[0]["batch"] == "1", metric == "throughput"
    if rate:
        what, axis = "all deliveries", "deliveries a second"
    else:
        what = f"{metric} from publish to delivery" if acked else f"{metric} of the time in queues, not of a request"
        axis = f"{metric}, {'microseconds' if acked else 'milliseconds'}"
    chart = Chart(
        title=f"{rows[0]['profile']}, fanout {rows[0]['fanout']}, batch {rows[0]['batch']}"
              f"{', each acknowledged' if acked else ''}: {what} ({trials_text(rows)})",
        axis=axis, groups=_groups(rows), footer=footer, cap_share=config["outlier_cap_percentile"],
    )  # fmt: skip
    names = [(f"{preset}, {PLACEMENT_NAMES[placement]}", preset, placement)
             for preset in unique(rows, "preset", list(config["presets"])) for placement in config["placements"]]  # fmt: skip
    column = "delivered_throughput" if rate else f"{metric}_us"
    _fill(chart, rows, names, "preset", column, 1 if rate or acked else 1000)
    if acked and not rate:
        _add_floors(chart, rows, metric)
    return chart


def cache_chart(rows: list[dict], metric: str, config: dict, footer: str) -> Chart:
    """Of the rows of one profile."""
    rate = metric == "throughput"
    chart = Chart(
        title=f"{rows[0]['profile']}, cache, {config['cache']['concurrency']} operations in flight: "
              f"{metric} ({trials_text(rows)})",
        axis="operations a second" if rate else f"{metric}, microseconds",
        groups=_groups(rows), footer=footer, cap_share=config["outlier_cap_percentile"],
    )  # fmt: skip
    names = [(f"{OP_NAMES[op]}, {PLACEMENT_NAMES[placement]}", op, placement)
             for op in config["cache"]["ops"] for placement in config["placements"]]  # fmt: skip
    _fill(chart, rows, names, "op", "throughput" if rate else f"{metric}_us")
    return chart


def charts(rows: dict[str, list[dict]], config: dict, footer: str) -> dict[str, Chart]:
    """All charts by their file name below the output directory, without suffix."""
    found = {}
    for profile in config["profiles"]:
        mine = [row for row in rows["pubsub"] if row["profile"] == profile]
        for fanout, batch in dict.fromkeys((row["fanout"], row["batch"]) for row in mine):
            cell = [row for row in mine if (row["fanout"], row["batch"]) == (fanout, batch)]
            for metric in METRICS:
                name = f"{FILES['pubsub']}/{profile}/f{fanout}_b{batch}_{metric}"
                found[name] = pubsub_chart(cell, metric, config, footer)
        mine = [row for row in rows["cache"] if row["profile"] == profile]
        for metric in METRICS if mine else ():
            found[f"{FILES['cache']}/{profile}/{metric}"] = cache_chart(mine, metric, config, footer)
    return found


def read_rows() -> dict[str, list[dict]]:
    """The aggregate of both kinds."""
    rows = {}
    for kind, name in FILES.items():
        with open(records.DERIVED / f"{name}_agg.csv", newline="") as table:
            rows[kind] = list(csv.DictReader(table))
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=cases.PRESETS)
    parser.add_argument("--output", type=Path, default=CHARTS)
    options = parser.parse_args(arguments)
    footer = footer_of(json.loads((records.DERIVED / "session.json").read_text()))
    every = charts(read_rows(), cases.load(options.config), footer)
    drawn = 0
    for kind in FILES.values():  # what an earlier session left must not look like this one's
        for old in (options.output / kind).glob("*/*.*"):
            old.unlink()
    for name, chart in every.items():
        drawn += draw(chart, options.output / name)
    print(f"{drawn} charts in {options.output}, as PNG and SVG")
    return 0


if __name__ == "__main__":
    sys.exit(main())
