"""The file of results: one JSON object a line, only ever appended to.

A session is what one build gave on one machine with one configuration; it goes on with --resume.
A line that was cut off (power, a full disk) is left out when reading, and everything else counts.
"""

import json
import os
import sys
from pathlib import Path

import measure

DATA = Path(os.environ.get("FELIX_PERF_DATA", measure.ROOT / "data"))
RUNS = DATA / "raw/runs.jsonl"
STDOUT = DATA / "raw/stdout"
DERIVED = DATA / "derived"


def append(record: dict, path: Path = RUNS) -> None:
    """Adds one line, on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, separators=(",", ":")) + "\n"
    with open(path, "a+b") as out:
        # What a crash left behind must not swallow this line too.
        if out.tell() > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                line = "\n" + line
        out.write(line.encode())
        out.flush()
        os.fsync(out.fileno())


def read(path: Path = RUNS) -> list[dict]:
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            if line:
                print(f"{path}:{number}: not a whole record, left out", file=sys.stderr)
    return found


def of_session(every: list[dict], session: str = "latest") -> list[dict]:
    """The records of the newest session, or of the one whose name starts with `session`."""
    if not every:
        return []
    wanted = every[-1]["session"] if session == "latest" else session
    found = [record for record in every if record["session"].startswith(wanted)]
    names = {record["session"] for record in found}
    if len(names) > 1:
        sys.exit(f"session {wanted}: there are {', '.join(sorted(names))}")
    return found
