#!/usr/bin/env python3
"""Fails on a file over 1,200 lines; names the longest file and the longest function.

    check-size.py [ROOT]

When a file needs a table of contents, it is two files. The length of functions is a gate of
clang-tidy (readability-function-size); here it is only shown.
"""
import re
import sys
from pathlib import Path

from sources import ROOT, blank, c_files, relative

FILE_LINES_MAX = 1200
TEXT_FOLDERS = ("src", "include", "demos", "examples", "tests", "fuzz", "bench", "scripts")
TEXT_SUFFIXES = {".c", ".h", ".def", ".inc", ".py", ".sh", ".awk"}

# With our format a function's body opens at the end of a line and closes with "}" in column 0.
NAME = re.compile(r"([A-Za-z_]\w*)\s*\(")


def text_files(root):
    files = [
        path
        for folder in TEXT_FOLDERS
        for path in (root / folder).rglob("*")
        if path.suffix in TEXT_SUFFIXES and path.is_file()
    ]
    return files + [path for path in (root / "dev", root / ".ci/run") if path.exists()]


def functions(text):
    """Yields (lines, name) of each function that is defined in C text."""
    lines = blank(text).splitlines()
    start, head = None, ""
    for number, line in enumerate(lines):
        if start is None:
            if re.match(r"[A-Za-z_]", line):
                start, head = number, ""
            else:
                continue
        head += line + " "
        if line.startswith("}") or (line.rstrip().endswith(";") and "{" not in head):
            name = NAME.search(head)
            if line.rstrip() == "}" and name is not None:
                yield number - start + 1, name.group(1)
            start = None


def main():
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    sizes = sorted((path.read_text().count("\n"), relative(path, root)) for path in text_files(root))
    if not sizes:
        print("no files found")
        return 1
    too_long = [row for row in sizes if row[0] > FILE_LINES_MAX]
    for lines, name in too_long:
        print(f"{name}: {lines} lines, more than {FILE_LINES_MAX}: split it by noun")
    longest = max(
        ((lines, name, relative(path, root))
         for path in c_files("src", "demos", "examples", root=root)
         for lines, name in functions(path.read_text())),
        default=(0, "none", "-"),
    )
    print(
        f"longest file {sizes[-1][1]} ({sizes[-1][0]} lines), "
        f"longest function {longest[1]} in {longest[2]} ({longest[0]} lines)"
    )
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
