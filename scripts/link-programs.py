#!/usr/bin/env python3
"""Links the programs of a build directory into its bin/: what a user runs.

    link-programs.py BUILD_DIR

Programs are declared all over the tree (src/node, src/cli, demos); a user wants them in
one place. Reads what meson wrote about its targets, so nothing has to be listed twice.
"""
import json
import os
import sys
from pathlib import Path

NOT_PROGRAMS = ("bench", "examples", "fuzz", "tests")


def programs(build_dir):
    """Yields the file of each program that meson builds."""
    root = Path(__file__).resolve().parent.parent
    for target in json.loads((build_dir / "meson-info/intro-targets.json").read_text()):
        top = Path(target["defined_in"]).relative_to(root).parts[0]
        if target["type"] == "executable" and top not in NOT_PROGRAMS:
            yield Path(target["filename"][0])


def main():
    build_dir = Path(sys.argv[1]).resolve()
    bin_dir = build_dir / "bin"
    bin_dir.mkdir(exist_ok=True)
    wanted = {p.name: os.path.relpath(p, bin_dir) for p in programs(build_dir) if p.parent != bin_dir}
    for old in bin_dir.iterdir():
        if old.is_symlink() and wanted.get(old.name) != os.readlink(old):
            old.unlink()
    for name, path in wanted.items():
        if not (bin_dir / name).is_symlink():
            (bin_dir / name).symlink_to(path)


if __name__ == "__main__":
    main()
