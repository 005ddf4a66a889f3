#!/usr/bin/env python3
"""Runs clang-tidy-19 over our sources, one process per core, and remembers what was clean.

    check-tidy.py BUILD_DIR

A file is looked at again when it, any header of ours, or .clang-tidy has changed.
"""
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sources import ROOT, c_files, relative

FOLDERS = ("src", "demos", "examples")


def our_sources(build_dir):
    """Returns the compiled C files below FOLDERS, the largest first: the last ones are short."""
    commands = json.loads((build_dir / "compile_commands.json").read_text())
    files = {(Path(c["directory"]) / c["file"]).resolve() for c in commands}
    ours = [f for f in files if any(f.is_relative_to(ROOT / folder) for folder in FOLDERS)]
    return sorted(ours, key=lambda f: -f.stat().st_size)


def digest(paths):
    state = hashlib.sha256()
    for path in paths:
        state.update(path.read_bytes())
        state.update(b"\0")
    return state


def main():
    build_dir = Path(sys.argv[1]).resolve()
    cache = build_dir / "tidy"
    cache.mkdir(exist_ok=True)
    headers = [p for p in c_files("src", "include", *FOLDERS[1:]) if p.suffix == ".h"]
    headers += sorted((ROOT / "src").rglob("*.def"))
    common = digest([ROOT / ".clang-tidy", *headers])

    def check(source):
        state = common.copy()
        state.update(source.read_bytes())
        stamp = cache / (relative(source).replace("/", "-") + ".clean")
        if stamp.exists() and stamp.read_text() == state.hexdigest():
            return None
        run = subprocess.run(
            ["clang-tidy-19", "--quiet", "--warnings-as-errors=*", "-p", str(build_dir), str(source)],
            capture_output=True, text=True,
        )
        if run.returncode == 0:
            stamp.write_text(state.hexdigest())
            return ""
        return run.stdout + run.stderr

    sources = our_sources(build_dir)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, sources))
    findings = [text for text in results if text]
    for text in findings:
        print(text)
    fresh = sum(1 for text in results if text is not None)
    print(f"{len(sources)} files, {fresh} looked at again, {len(findings)} with findings")
    return 1 if findings or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
