"""What the disk can do by itself: one flush of an append, and writing in sequence with fio."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import measure
import programs

PROGRAMS = measure.BIN.parent / "bench/programs"
RECORD_BYTES = 256 + 28
FLUSHES = 200
FIO_BLOCK = 64 * 4096  # as large as what a batch of the case beside it writes


def costs(directory: Path) -> dict[str, float]:
    """Microseconds of a flushed append in `directory`, and of a plain UDP echo, one after the other."""
    flush = measure.run_json([PROGRAMS / "fdatasync_cost", directory, str(RECORD_BYTES), str(FLUSHES)])
    echo = measure.udp_echo(256, 2000)
    return {"fdatasync_us": flush["growing_p50_us"], "fdatasync_p99_us": flush["growing_p99_us"],
            "fdatasync_ahead_us": flush["set_ahead_p50_us"], "udp_echo_us": echo["p50_us"]}  # fmt: skip


def fio_run(program: Path, directory: Path, seconds: float, *more: str) -> float:
    """Bytes a second that fio writes in sequence, with the flush at the end."""
    place = directory / "fio"
    place.mkdir()
    command = [program, "--name=sequential", f"--directory={place}", "--rw=write", f"--bs={FIO_BLOCK}",
               "--size=64g", "--time_based", f"--runtime={max(1, round(seconds))}", "--fallocate=none",
               "--output-format=json", *more]  # fmt: skip
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                              timeout=measure.RUN_SECONDS_MAX, env=programs.environment())  # fmt: skip
    finally:
        shutil.rmtree(place)
    if done.returncode != 0:
        raise measure.Failed(f"fio: exit status {done.returncode}\n{done.stderr[-2000:]}")
    job: dict[str, Any] = json.loads(done.stdout)["jobs"][0]
    milliseconds = max(job["job_runtime"], job["write"]["runtime"])
    return job["write"]["io_bytes"] / (milliseconds / 1000)


def fio(program: Path, directory: Path, seconds: float) -> dict[str, float]:
    """fio through the page cache with a flush at the end, and around it; the faster one counts."""
    buffered = fio_run(program, directory, seconds, "--ioengine=psync", "--direct=0", "--end_fsync=1")
    direct = fio_run(program, directory, seconds, "--ioengine=psync", "--direct=1")
    return {"bytes_per_s": max(buffered, direct), "buffered_bytes_per_s": buffered,
            "direct_bytes_per_s": direct}  # fmt: skip


def file_system(directory: Path) -> str:
    """"ext4 on /dev/vda"."""
    path = os.path.realpath(directory)
    best = ("", "", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[1]):
            best = (device, point, kind)
    return f"{best[2]} on {best[0]}"
