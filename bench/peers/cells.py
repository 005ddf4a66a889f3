"""What is measured: the cells of the comparison, and how Felix and a peer are made to do each.

A run is a dictionary of figures: `rate` (deliveries or operations a second), `p50_us`, `p99_us`.
"""

import json
import os
import subprocess
from dataclasses import dataclass

import servers

PAYLOADS = (0, 256, 1024, 4096)
FANOUTS = (1, 10)
CACHE_PAYLOADS = (256, 4096)
IN_FLIGHT = 32
CACHE_CONNECTIONS = (8, 32, 1)  # cachedemo's own number first
WARMUP_SHARE = 0.2  # of what is measured; peer-load warms up for as long
PILOT_SECONDS = 0.2
STAMP_BYTES = 16
BUFFERS_BYTES = 128 << 20  # latencydemo warns of runs that send less
RUN_SECONDS_MAX = 120


@dataclass(frozen=True)
class Cell:
    """One row: `kind` is stream (as fast as it goes), acked (one at a time) or cache."""

    kind: str
    payload: int
    fanout: int = 1
    op: str = ""
    connections: int = 0

    @property
    def key(self):
        if self.kind == "cache":
            return f"cache-{self.op}-{self.payload}-c{self.connections}"
        return f"{self.kind}-f{self.fanout}-{self.payload}"

    @property
    def figure(self):
        """The figure that is compared."""
        return "p50_us" if self.kind == "acked" else "rate"

    @property
    def title(self):
        if self.kind == "cache":
            plural = "connection" if self.connections == 1 else "connections"
            return f"{self.op} {size(self.payload)}, {self.connections} {plural}"
        subscribers = "1 subscriber" if self.fanout == 1 else f"{self.fanout} subscribers"
        return f"{subscribers}, {size(self.payload + STAMP_BYTES)}"


def size(count):
    if count >= 1024:
        return f"{count // 1024} KiB" + (f" + {count % 1024} B" if count % 1024 else "")
    return f"{count} B"


def all_cells(quick=False):
    payloads = (256,) if quick else PAYLOADS
    messages = [Cell(kind, payload, fanout)
                for kind in ("stream", "acked") for fanout in FANOUTS for payload in payloads]
    cache = [Cell("cache", payload, op=op, connections=connections)
             for connections in CACHE_CONNECTIONS for op in ("put", "get")
             for payload in ((256,) if quick else CACHE_PAYLOADS)]  # fmt: skip
    return messages + cache


def takes_part(system, cell):
    return bool(system.cache if cell.kind == "cache" else system.protocol)


class Failed(Exception):
    """A run that gave no figures: why."""


def run_json(command, env=None):
    """The JSON object that a measuring program prints."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env,
                              timeout=RUN_SECONDS_MAX)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"no end after {RUN_SECONDS_MAX} s") from None
    if done.returncode != 0:
        raise Failed(done.stderr.strip()[-500:] or f"exit status {done.returncode}")
    return json.loads(done.stdout)


# ---- Felix ----

# Where the first, short run begins: messages or operations a second, by kind and fanout.
FIRST_RATES = {("stream", 1): 200_000, ("stream", 10): 40_000, ("acked", 1): 10_000,
               ("acked", 10): 5_000, ("cache", 1): 100_000}  # fmt: skip


def felix_command(cell, count):
    """Program, arguments and environment for `count` messages or operations."""
    warmup = max(int(count * WARMUP_SHARE), 200)
    if cell.kind == "cache":
        pools = {"FELIX_CACHE_CONN_POOL": str(cell.connections),
                 "FELIX_CACHE_STREAMS_PER_CONN": str(IN_FLIGHT // cell.connections)}  # fmt: skip
        op = {"put": "put", "get": "get_hit"}[cell.op]
        return "cachedemo", ["--ops", op, "--concurrency", IN_FLIGHT, "--payloads", cell.payload,
                             "--samples", count, "--warmup", warmup], pools  # fmt: skip
    mode = ["--binary", "--batch", 64] if cell.kind == "stream" else ["--batch", 1]
    return "latencydemo", [*mode, "--fanout", cell.fanout, "--payload", cell.payload,
                           "--total", count, "--warmup", warmup], {}  # fmt: skip


def felix_figures(cell, document):
    """Figures out of what latencydemo or cachedemo printed."""
    if cell.kind == "cache":
        result = document["results"][0]
        rate = result["throughput"]
    else:
        result = document["cases"][0]
        if result["delivered"] != result["expected"] or result["dropped"]:
            raise Failed(f"lost deliveries: {result}")
        rate = result["delivered_throughput"]
    return {"rate": rate, "p50_us": result["p50_us"], "p99_us": result["p99_us"]}


def felix_count(cell, rate, seconds):
    """How many messages or operations to measure: so many seconds, but no run that fits into buffers."""
    least = BUFFERS_BYTES // (cell.payload + STAMP_BYTES) + 1 if cell.kind == "stream" else 200
    return max(int(rate * seconds), least)


class FelixRunner:
    """latencydemo and cachedemo count messages, not seconds: a short run tells the rate first."""

    def __init__(self, bin_dir):
        self.bin_dir = bin_dir
        self.counts = {}

    def once(self, cell, broker, count):
        program, arguments, more = felix_command(cell, count)
        env = {name: value for name, value in os.environ.items() if not name.startswith("FELIX_")}
        env |= more
        command = [self.bin_dir / program, "--json", *arguments, *broker.arguments()]
        return felix_figures(cell, run_json(command, env))

    def run(self, cell, broker, seconds):
        if cell not in self.counts:
            first = int(FIRST_RATES[cell.kind, cell.fanout] * PILOT_SECONDS)
            rate = self.once(cell, broker, first)["rate"] / cell.fanout
            self.counts[cell] = felix_count(cell, rate, seconds)
        return self.once(cell, broker, self.counts[cell])


# ---- peers ----


def peer_command(system, cell, seconds):
    """Arguments of peer-load, without where the peer is."""
    warmup_ms = int(1000 * seconds * WARMUP_SHARE)
    if cell.kind == "cache":
        return [f"cache:{system.cache}", "--op", cell.op, "--payload", cell.payload,
                "--connections", cell.connections, "--in-flight", IN_FLIGHT,
                "--seconds", seconds, "--warmup-ms", warmup_ms]  # fmt: skip
    acked = ["--acked"] if cell.kind == "acked" else []
    return [system.protocol, "--fanout", cell.fanout, "--payload", cell.payload,
            "--seconds", seconds, "--warmup-ms", warmup_ms, *acked]  # fmt: skip


def peer_figures(cell, document):
    rate = document["throughput" if cell.kind == "cache" else "delivered_throughput"]
    return {"rate": rate, "p50_us": document["p50_us"], "p99_us": document["p99_us"]}


def run_peer(system, cell, peer, load_program, seconds):
    command = [load_program, *peer_command(system, cell, seconds), *peer.arguments()]
    return peer_figures(cell, run_json(command))


# ---- plain echoes ----


def run_echo(program, payload):
    """Microseconds of a round trip of bare datagrams or segments of a message's size."""
    return run_json([program, payload + STAMP_BYTES, 3000])["p50_us"]


def select_systems(names):
    """Felix and the systems of `names`: "nats" means both of NATS. Raises ValueError."""
    if not names:
        return servers.SYSTEMS
    known = {system.name.removesuffix("-tls") for system in servers.SYSTEMS} - {"felix"}
    for name in names:
        if name.removesuffix("-tls") not in known:
            raise ValueError(f"there is no peer '{name}'; there are {', '.join(sorted(known))}")
    return [system for system in servers.SYSTEMS
            if system.name == "felix" or system.name in names
            or system.name.removesuffix("-tls") in names]  # fmt: skip
