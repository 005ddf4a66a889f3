"""kill -9 under load: nothing that was acknowledged is missing, and who reads goes on where it was."""

import random
import shutil

import pytest
from felix_testlib.durable import KillLoop

CYCLES = 10
# Small segments, so that brokers die while they roll over, too.
SETTINGS = {"FELIX_DURABLE_FSYNC_MODE": "on_commit", "FELIX_DURABLE_SEGMENT_BYTES": "262144"}


@pytest.fixture
def start_loop(tmp_path):
    loops = []

    def start(seed, **more):
        loops.append(KillLoop(tmp_path / f"k{len(loops)}", seed, **more))
        return loops[-1]

    yield start
    for loop in loops:
        loop.abandon()


def test_killed_brokers_lose_nothing_that_they_acknowledged(start_loop):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown when it fails
    loop = start_loop(seed, env=SETTINGS)
    counts = {}
    for _ in range(CYCLES):
        counts = loop.cycle()
    loop.end()
    assert counts["acked"] > CYCLES, counts
    assert loop.kills > 0


def test_the_checker_notices_a_log_that_has_lost_something(start_loop, tmp_path):
    """A copy of before the last load is put back: a good log, but not all of it."""
    loop = start_loop(1, env=SETTINGS)
    loop.cycle()
    logs, copy = loop.broker.path("streams"), tmp_path / "copy"
    shutil.copytree(logs, copy)

    def put_back():
        shutil.rmtree(logs)
        shutil.copytree(copy, logs)

    with pytest.raises(AssertionError, match="wrong .*(missing|elsewhere|another record|ends at offset|ended at offset)"):
        loop.cycle(meanwhile=put_back)
