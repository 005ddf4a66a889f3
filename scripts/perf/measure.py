"""What all measuring scripts share: where the programs are, a broker, a run, a plain UDP echo.

The programs come from FELIX_BIN_DIR, build/bin by default. Nothing of the caller's FELIX_* settings
reaches them but what a script names: a figure must not depend on the shell it was measured in.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin"))
sys.path.insert(0, str(ROOT / "tests/e2e"))

from felix_testlib.broker import Broker  # noqa: E402

RUN_SECONDS_MAX = 300
# Every queue of the broker blocks: what was sent has to arrive.
LOSSLESS = {"FELIX_SUB_QUEUE_POLICY": "block", "FELIX_PUB_INGRESS_WAIT": "1"}


class Failed(Exception):
    """A measuring program that did not do what it should; the text says what."""


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """The caller's environment without settings of ours, and `extra`."""
    return {k: v for k, v in os.environ.items() if not k.startswith("FELIX_")} | dict(extra)


def lossless_broker(directory: str | Path, env: Mapping[str, str] = {}) -> Broker:
    """felix-broker --dev as a process of its own; the caller calls stop()."""
    return Broker(directory, env=LOSSLESS | dict(env))


def connect_arguments(broker: Broker) -> list[str]:
    """What makes a demo measure `broker` instead of one in its own process."""
    return ["--connect", broker.address, "--ca", broker.ca, "--token-file", broker.path("token"),
            "--tenant", broker.tenant]  # fmt: skip


def run(command: Sequence[str | Path], env: Mapping[str, str] = {},
        seconds: float = RUN_SECONDS_MAX) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Runs a program to its end, whatever that is; raises Failed when it takes too long."""
    try:
        return subprocess.run(list(map(str, command)), env=environment(env), text=True, timeout=seconds,
                              capture_output=True, stdin=subprocess.DEVNULL)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} took more than {seconds:g} s") from None


def run_json(command: Sequence[str | Path], env: Mapping[str, str] = {}) -> dict:
    """The JSON document that a program prints; raises Failed when it ended badly."""
    done = run(command, env)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}\n  exit status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def udp_echo(payload_bytes: int = 256, count: int = 20000) -> dict:
    """A plain UDP echo between two processes that block: the floor beside each latency."""
    return run_json([BIN.parent / "bench/micro/udp_echo", str(payload_bytes), str(count)])
