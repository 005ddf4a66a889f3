#!/usr/bin/env python3
"""The whole measurement: matrix, medians, charts, and the tables of docs/performance.md.

    bench/latency-matrix.py [--trials 5] [--quick] [--filter NAME=VALUE|VALUE,...] [--resume] [...]

Runs the scripts of scripts/perf in their order. What is measured says scripts/perf/presets.yml, the options
of the measurement are those of run_latency_matrix.py. A whole session without failures ends up in
docs/performance.md; a part of one (--quick, --filter) only in data/derived and charts, with its tables on
standard output. --charts-only measures nothing and draws and writes the last session again.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts/perf"))

import make_charts  # noqa: E402
import normalize_and_aggregate  # noqa: E402
import records  # noqa: E402
import render_markdown_snippets  # noqa: E402
import run_latency_matrix  # noqa: E402


def main() -> int:
    arguments = sys.argv[1:]
    status = 0
    if arguments != ["--charts-only"]:
        status = run_latency_matrix.main(arguments)
        if "--dry-run" in arguments:
            return status
    if normalize_and_aggregate.main([]) != 0:
        return 1
    make_charts.main([])
    facts = json.loads((records.DERIVED / "session.json").read_text())
    whole = status == 0 and not facts["quick"] and not facts["partial"]
    render_markdown_snippets.main([] if whole else ["--print"])
    return status


if __name__ == "__main__":
    run_latency_matrix.run_program(main)
