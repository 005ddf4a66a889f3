"""Who is measured: Felix and its peers, each a process of its own on the disk under test."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
import programs
import servers

LOAD = measure.BIN.parent / "bench/programs/durable_load"
PEER_LOAD = measure.BIN.parent / "bench/peers/load/peer-load"
STREAM = "bench-durable"
PERIODIC_MS = 250
LOAD_SECONDS_MAX = 120

PEERS = {
    "redis": servers.System("redis-durable", "Redis", False, "redis-server", "redis", "", ("$config",)),
    "jetstream": servers.System("nats-durable", "JetStream", False, "nats-server", "jetstream", "",
                                ("-c", "$config")),
}  # fmt: skip
# How each is told to flush before it answers, or by itself now and then.
PEER_SYNC = {
    ("redis", "on_commit"): "always", ("redis", "periodic"): "everysec",
    ("jetstream", "on_commit"): "always", ("jetstream", "periodic"): f"{PERIODIC_MS}ms",
}  # fmt: skip


def run_json(command: Sequence[object], env: Mapping[str, str] = {}) -> dict[str, Any]:
    """The document that a load prints; raises Failed when it ended badly or not at all."""
    done = measure.run(list(map(str, command)), env, LOAD_SECONDS_MAX)
    if done.returncode != 0:
        raise measure.Failed(f"{' '.join(map(str, command))}\n  exit status {done.returncode}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Felix:
    """felix-broker --dev with one stream, durable unless it is the control that stays in memory."""

    def __init__(self, directory: Path, sync: str, durable: bool = True):
        self.directory, self.durable = directory, durable
        self.env = {"FELIX_DURABLE_FSYNC_MODE": sync, "FELIX_DURABLE_FSYNC_INTERVAL_MS": str(PERIODIC_MS),
                    "FELIX_DISABLE_TIMINGS": "1"}  # fmt: skip
        self.broker = measure.lossless_broker(directory, self.env)
        if durable:
            self.command("stream", "create", STREAM, "--durable")

    def client_env(self) -> dict[str, str]:
        return {"FELIX_SERVER": self.broker.address, "FELIX_DATA_DIR": self.broker.data_dir}

    def command(self, *words: str) -> str:
        done = measure.run([measure.BIN / "felix", *words], self.client_env())
        if done.returncode != 0:
            raise measure.Failed(f"felix {' '.join(words)}: exit status {done.returncode}\n{done.stderr}")
        return done.stdout

    def load_command(self, what: str, *numbers: int, stream: str = STREAM) -> list[str]:
        return [str(LOAD), what, stream, *(str(round(number)) for number in numbers)]

    def load(self, what: str, *numbers: int, stream: str = STREAM) -> dict[str, Any]:
        return run_json(self.load_command(what, *numbers, stream=stream), self.client_env())

    def start_load(self, what: str, *numbers: int, stream: str = STREAM) -> "subprocess.Popen[str]":
        return subprocess.Popen(self.load_command(what, *numbers, stream=stream), text=True,
                                env=measure.environment(self.client_env()), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)  # fmt: skip

    def kill_and_start(self) -> None:
        self.broker.kill()
        self.broker = measure.lossless_broker(self.directory, self.env)

    def stop(self) -> None:
        try:
            self.broker.stop(seconds=60)
        except AssertionError as failure:
            sys.exit(f"felix-broker: {failure}")
        finally:
            self.broker.kill()

    def __enter__(self) -> "Felix":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.broker.kill()


class Peer:
    """Redis or NATS, with the load that goes with it."""

    def __init__(self, name: str, directory: Path, sync: str, paths: dict[str, Path]):
        system = PEERS[name]
        self.name = name
        self.server = servers.Peer(system, paths[system.program], directory, "", sync=PEER_SYNC[name, sync])

    def load(self, connections: int, in_flight: int, payload: int, *more: str) -> dict[str, Any]:
        return run_json([PEER_LOAD, f"durable:{PEERS[self.name].protocol}", "--port", self.server.port,
                         "--connections", connections, "--in-flight", in_flight, "--payload", payload,
                         *more])  # fmt: skip

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()


def fetch(names: list[str]) -> dict[str, Path]:
    """Paths of the programs of the peers `names`, and of fio."""
    return programs.fetch([*(PEERS[name].program for name in names), "fio"])


def clear(root: Path) -> None:
    shutil.rmtree(root / "run", ignore_errors=True)


def touch_memory(root: Path, gib: float) -> None:
    """Fills the page cache with a file that is removed again.

    A virtual machine may get its memory from the host at the first touch of each page, at 4 to 8 us a page: then
    whoever writes files first measures the host (0.5 GB/s here, 4 GB/s afterwards).
    """
    block = bytes(1 << 20)
    path = root / "touch"
    with open(path, "wb", buffering=0) as out:
        for _ in range(int(gib * 1024)):
            out.write(block)
    path.unlink()


def fresh(root: Path) -> Path:
    """An empty directory of the disk under test, after everything written before is on disk."""
    clear(root)
    os.sync()
    place = root / "run"
    place.mkdir(parents=True)
    return place
