"""From runs to ratios and tables. Pure: what goes in are runs, what comes out is text.

A ratio tells how many times better Felix was than a peer: above 1 Felix is faster. It is taken
within a trial, between runs that stood side by side; what is printed is the median over the trials
with the smallest and the largest behind it.
"""

import statistics

from cells import Cell

MARKERS = ("<!-- peers:begin -->", "<!-- peers:end -->")
NOTHING = "–"


def figures_of(runs, cell, system):
    """The figures of one cell and system, by trial; failed runs are not there."""
    return {run["trial"]: run["figures"] for run in runs
            if run["cell"] == cell.key and run["system"] == system.name
            and run.get("figures")}  # fmt: skip


def ratio(cell, ours, theirs):
    """How many times better ours is, of one trial."""
    a, b = ours[cell.figure], theirs[cell.figure]
    return b / a if cell.figure == "p50_us" else a / b


def ratios(runs, cell, felix, peer):
    """One ratio for each trial that both have figures of."""
    ours, theirs = figures_of(runs, cell, felix), figures_of(runs, cell, peer)
    return [ratio(cell, ours[trial], theirs[trial]) for trial in sorted(ours) if trial in theirs]


def middle(figures, name):
    return statistics.median(figure[name] for figure in figures.values())


def rate_text(rate):
    if rate >= 1e6:
        return f"{rate / 1e6:.2f} M/s"
    return f"{rate / 1e3:.0f} k/s" if rate >= 1e4 else f"{rate / 1e3:.1f} k/s"


def ratio_text(values):
    """"2.4x (2.2 to 2.5)"; one trial has no spread."""
    if not values:
        return NOTHING
    text = f"{statistics.median(values):.2f}x"
    return text if len(values) < 2 else f"{text} ({min(values):.2f} to {max(values):.2f})"


def figure_text(cell, figures):
    if not figures:
        return "failed"
    if cell.kind == "acked":
        return f"{middle(figures, 'p50_us'):.0f} / {middle(figures, 'p99_us'):.0f} us"
    text = rate_text(middle(figures, "rate"))
    return f"{text}, {middle(figures, 'p50_us'):.0f} us" if cell.kind == "cache" else text


def table(head, rows):
    """A table in Markdown that reads well as plain text, too."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    line = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    texts = ["| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths)) + " |"
             for row in [head, *rows]]  # fmt: skip
    return "\n".join([texts[0], line, *texts[1:]])


SECTIONS = {
    "stream": "Deliveries a second, publishing without waiting for answers, nothing lost",
    "acked": "One message at a time, each acknowledged: microseconds from publish to hand-over at "
             "the subscriber, p50 / p99",
    "cache": "Cache, 32 operations in flight: operations a second, p50",
}  # fmt: skip


def section(runs, kind, cells, systems, echoes):
    """The table of one kind of work: a row for each cell, a column for each system."""
    felix, peers = systems[0], [s for s in systems[1:] if (s.cache if kind == "cache" else s.protocol)]
    echoed = kind == "acked" and echoes
    head = ["", felix.title, *(peer.title for peer in peers)]
    head += ["UDP / TCP echo"] if echoed else []
    rows = []
    for cell in cells:
        row = [cell.title, figure_text(cell, figures_of(runs, cell, felix))]
        for peer in peers:
            text = figure_text(cell, figures_of(runs, cell, peer))
            row.append(f"{text}; {ratio_text(ratios(runs, cell, felix, peer))}")
        if echoed:
            row.append(echo_text(echoes, cell))
        rows.append(row)
    return f"**{SECTIONS[kind]}.**\n\n{table(head, rows)}"


def echo_text(echoes, cell):
    values = [[echo[name] for echo in echoes if echo["cell"] == cell.key] for name in ("udp", "tcp")]
    return " / ".join(f"{statistics.median(v):.0f}" if v else NOTHING for v in values) + " us"


# ---- the last table ----


def best_of_connections(runs, cells):
    """Runs of cache cells that stand for the best number of connections, by trial and system."""
    by_key = {cell.key: cell for cell in cells if cell.kind == "cache"}
    best = {}
    for run in runs:
        cell = by_key.get(run["cell"])
        if cell is None or not run.get("figures"):
            continue
        key = (run["trial"], run["system"], cell.op, cell.payload)
        if key not in best or run["figures"]["rate"] > best[key]["figures"]["rate"]:
            best[key] = run
    return [run | {"cell": Cell("cache", key[3], op=key[2]).key} for key, run in best.items()]


def groups(cells):
    """The columns of the last table: title, cells."""
    named = [("deliveries/s, 1 subscriber", [c for c in cells if c.kind == "stream" and c.fanout == 1]),
             ("deliveries/s, 10 subscribers", [c for c in cells if c.kind == "stream" and c.fanout == 10]),
             ("latency, 1 subscriber", [c for c in cells if c.kind == "acked" and c.fanout == 1]),
             ("latency, 10 subscribers", [c for c in cells if c.kind == "acked" and c.fanout == 10]),
             ("cache, 8 connections", [c for c in cells if c.kind == "cache" and c.connections == 8]),
             ("cache, each at its best", sorted({Cell("cache", c.payload, op=c.op) for c in cells
                                                 if c.kind == "cache"}, key=lambda c: c.key))]  # fmt: skip
    return [(title, members) for title, members in named if members]


def range_text(values):
    if not values:
        return NOTHING
    low, high = min(values), max(values)
    return f"{low:.1f}x" if len(values) == 1 else f"{low:.1f}x to {high:.1f}x"


def median_ratios(runs, cells, felix, peer):
    """(median ratio, cell) for each cell that both have figures of."""
    found = ((ratios(runs, cell, felix, peer), cell) for cell in cells)
    return [(statistics.median(values), cell) for values, cell in found if values]


def summary(runs, cells, systems):
    """How many times faster Felix is, from the weakest to the strongest size of message."""
    felix, runs = systems[0], runs + best_of_connections(runs, cells)
    columns = groups(cells)
    rows = [[peer.title, *(range_text([value for value, _ in median_ratios(runs, members, felix, peer)])
                           for _, members in columns)] for peer in systems[1:]]  # fmt: skip
    return table(["Felix (TLS) against", *(title for title, _ in columns)], rows)


def weakest(runs, cells, systems, count=8):
    """Lines that name the cells where Felix is least ahead."""
    felix = systems[0]
    all_ratios = [(value, peer.title, cell) for peer in systems[1:]
                  for value, cell in median_ratios(runs, cells, felix, peer)]  # fmt: skip
    all_ratios.sort(key=lambda entry: entry[0])
    kinds = {"stream": "deliveries/s", "acked": "latency", "cache": "cache"}
    return [f"{value:.2f}x against {peer}: {kinds[cell.kind]}, {cell.title}"
            for value, peer, cell in all_ratios[:count]]  # fmt: skip


CAVEATS = """\
What is not comparable. Felix always encrypts and always runs over QUIC; the plain columns are peers that do less
work, and are there because many run them so. Felix packs 64 messages into a publish and encodes a batch once for all
subscribers; NATS, Redis and MQTT know no batches: their publishers pipeline single messages in writes of 64 KiB, which
is the nearest they have. Felix holds a publisher back when a subscriber cannot follow; the peers queue and in the end
drop or cut off, so the load program keeps its publisher at most 2 MiB ahead of the slowest subscriber, which suits them
(larger windows were slower for NATS and Redis and made no difference to Mosquitto). An acknowledgement is not the same promise everywhere: Felix answers when the message is
accepted and in the replay ring; a NATS publisher sends PING and hears PONG when the server has read all before it
(what its libraries call flush); Redis answers PUBLISH with the number of receivers; Mosquitto answers QoS 1, with
subscribers at QoS 0. The delay is that of the first subscriber in all systems: a peer that writes to its subscribers
one after another serves that one before the others. Everything is kept in memory only. Felix is measured through its
client library, with callbacks and copies; it looks again for a moment before it sleeps, where that helps. The peers are
measured by a C program that sends prepared bytes, parses just enough to count, and sleeps in the kernel: less work than
an application's client does, which favours them, and later awake, which does not. Felix's client puts up to 16
subscriptions on one connection, where a message to all of them is few packets; with the peers each subscriber has a
connection of its own, as subscribers in different programs have, so the rows with 10 subscribers favour Felix.
In the cache that program sends all requests that one read
allows in one write, so a single connection with 32 in flight becomes few system calls: the best case of a pipelining
client, not that of 32 independent callers, whose case is the one with 32 connections. Redis and memcached ran with
room for everything, nothing was evicted. Client, server and subscribers share the processors and the loopback
interface: real networks and more cores will move these ratios, and a server with more threads gains from cores that it
did not have here."""


def cross_check_lines(checks):
    """What the peers' own tools measured beside ours, as lines; `checks` are (what, theirs, ours)."""
    lines = []
    for what, theirs, ours in checks:
        verdict = "ours asks at least as much of the server" if ours >= 0.9 * theirs else (
            "OURS IS THE SLOWER ONE: the ratios above flatter Felix")  # fmt: skip
        lines.append(f"{what}: {rate_text(theirs)}; peer-load: {rate_text(ours)} ({verdict})")
    return lines


def insert(document, text, markers=MARKERS):
    """`document` with `text` between the markers. Raises ValueError when they are not there."""
    begin, end = markers
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"needs one {begin} and after it one {end}")
    before, rest = document.split(begin)
    return f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}"


def wrap(text, width=120):
    """`text` as one paragraph with lines of up to `width` characters."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def full(result, cells, systems):
    """Everything, as Markdown."""
    runs = result["runs"]
    failures = [f"- {run['system']}, {run['cell']}, trial {run['trial']}: {run['error']}"
                for run in runs if run.get("error")]  # fmt: skip
    parts = [wrap(f"Measured on {result['when']}: {result['machine']}. {result['versions']}. "
                  f"Medians of {result['trials']} trial(s), all systems in turns within each; behind a figure "
                  "how many times better Felix was, with the smallest and the largest trial. Sizes are payloads "
                  "with their stamp.")]  # fmt: skip
    for kind in SECTIONS:
        of_kind = [cell for cell in cells if cell.kind == kind]
        if of_kind:
            parts.append(section(runs, kind, of_kind, systems, result["echoes"]))
    if result["cross_checks"]:
        checks = cross_check_lines([(c["what"], c["theirs"], c["ours"]) for c in result["cross_checks"]])
        parts.append("The peers' own measuring tools beside ours:\n\n" + "\n".join(f"- {c}" for c in checks))
    if failures:
        parts.append("Runs that failed:\n\n" + "\n".join(failures))
    weak = "\n".join(f"- {line}" for line in weakest(runs, cells, systems))
    parts.append(f"Where Felix is least ahead:\n\n{weak}")
    parts.append("**How many times faster Felix is, from the weakest to the strongest message size** (below 1: "
                 "slower).\n\n" + summary(runs, cells, systems))  # fmt: skip
    parts.append(wrap(CAVEATS))
    return "\n\n".join(parts) + "\n"
