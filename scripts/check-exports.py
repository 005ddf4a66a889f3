#!/usr/bin/env python3
"""Fails when libfelix exports a symbol that is not felix_*.

    check-exports.py BUILD_DIR

Internal names carry no prefix (ring_push), so a library that let them out would collide with its
user's. The shared library is judged by its dynamic symbols, the static one by all global ones.
"""
import subprocess
import sys
from pathlib import Path


def exported(library):
    """Returns the names of the global symbols that `library` defines."""
    dynamic = ["-D"] if ".so" in library.name else []
    output = subprocess.run(
        ["nm", "-g", "--defined-only", *dynamic, str(library)],
        check=True, capture_output=True, text=True,
    ).stdout
    rows = [line.split() for line in output.splitlines() if len(line.split()) == 3]
    names = {name for _, kind, name in rows if kind != "A"}  # A: the name of a symbol version
    return {name.split("@")[0] for name in names}


def main():
    build_dir = Path(sys.argv[1])
    libraries = [p for p in build_dir.rglob("libfelix.a") if p.is_file()]
    libraries += [p for p in build_dir.rglob("libfelix.so*") if p.is_file() and not p.is_symlink()
                  and p.suffix != ".symbols" and not p.name.endswith(".p")]
    if not libraries:
        print("SKIPPED: libfelix is not built in this tree")
        return 0
    failures = 0
    for library in sorted(libraries):
        names = exported(library)
        strangers = sorted(name for name in names if not name.startswith("felix_"))
        for name in strangers:
            print(f"{library}: exports {name}")
        if len(strangers) == len(names):
            print(f"{library}: exports nothing of felix_*")
            failures += 1
        failures += len(strangers)
    print(f"{len(libraries)} libraries, {failures} findings")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
