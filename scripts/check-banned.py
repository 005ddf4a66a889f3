#!/usr/bin/env python3
"""Fails on functions that have bitten somebody before, and on suppressions without a reason.

    check-banned.py [ROOT]

A suppression names its check and says why:
    // NOLINTNEXTLINE(bugprone-foo): the table is sorted
    // cppcheck-suppress memleak ; the list owns it now
"""
import re
import sys
from pathlib import Path

from sources import ROOT, blank, c_files, relative

BANNED = {
    "strcpy": "snprintf or memcpy with the length",
    "strcat": "snprintf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "strtok": "a cursor over a slice",
    "gmtime": "gmtime_r",
    "atoi": "strtol with all its errors checked",
    "gets": "fgets",
}
CALL = re.compile(r"\b(" + "|".join(BANNED) + r")\s*\(")
NOLINT = re.compile(r"\bNOLINT(?:NEXTLINE|BEGIN)?\b(\([a-z][\w.,\- ]*\): *\S.*)?")
CPPCHECK = re.compile(r"\bcppcheck-suppress\b( *\S+ *; *\S.*)?")


def complaints(text):
    """Yields (offset, why) for each finding in C text."""
    for match in CALL.finditer(blank(text)):
        yield match.start(), f"{match.group(1)} is banned: use {BANNED[match.group(1)]}"
    for pattern in (NOLINT, CPPCHECK):
        for match in pattern.finditer(text):
            if match.group(1) is None:
                yield match.start(), "a suppression names its check and gives a reason"


def main():
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    files = c_files("src", "include", "demos", "examples", root=root)
    failures = 0
    for path in files:
        text = path.read_text()
        for offset, why in sorted(complaints(text)):
            print(f"{relative(path, root)}:{text.count(chr(10), 0, offset) + 1}: {why}")
            failures += 1
    print(f"{len(files)} files, {failures} findings")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
