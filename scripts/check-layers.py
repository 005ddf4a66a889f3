#!/usr/bin/env python3
"""Fails on an include that the layers do not allow. The table below is the architecture.

    check-layers.py [ROOT]

Inside src/ a header is named "layer/noun.h", the public ones <felix/noun.h>. A layer may use
itself and what stands behind it in ARROWS; programs at the edge use what they show.
"""
import re
import sys
from pathlib import Path

from sources import ROOT, c_files, relative

ARROWS = {
    "base": set(),
    "wire": {"base"},
    "quic": {"base"},
    "http": {"base"},
    "auth": {"base", "wire"},
    "cache": {"base", "wire"},
    "storage": {"base", "wire"},
    "core": {"base", "wire", "cache", "storage"},
    "session": {"base", "wire", "quic", "auth", "cache", "storage", "core"},
    "node": {"base", "wire", "quic", "auth", "cache", "storage", "core", "session", "http"},
    "client": {"base", "wire", "quic"},
    "cli": {"base", "wire", "auth", "storage", "client", "node"},
}

# Libraries, and the only layers that may know them.
FOREIGN = {
    "ngtcp2/": {"quic"},
    "gnutls/": {"quic", "auth", "node"},
    "nettle/": {"auth", "quic"},
    "intel-ipsec-mb.h": {"quic"},
    "microhttpd.h": {"http"},
    "libdeflate.h": {"storage"},
    "yaml.h": {"node"},
}

# Layers that get bytes and the time and return bytes: no system calls of their own.
# Storage has threads, and one file through which it reaches the disk.
PURE = {"wire", "core", "cache", "storage"}
SYSTEM = re.compile(
    r"^(sys/(socket|epoll|eventfd|uio|mman|stat|file)|unistd|fcntl|dirent|netinet/|netdb|poll|pthread)\b"
)
ALLOWED = {
    "storage": re.compile(r"^pthread\b"),
    "storage/disk.c": SYSTEM,
    "storage/log_pool.c": re.compile(r"^unistd\b"),  # futex(2), and the priority of a thread
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)


def allowed_call(owner, file, header):
    return any(
        place in ALLOWED and ALLOWED[place].search(header) for place in (owner, f"{owner}/{file}")
    )


def complaint(root, path, quote, name):
    """Returns why `path` may not include `name`, or None."""
    place = path.relative_to(root).parts
    owner = place[1] if place[0] == "src" else None
    if owner is not None and owner not in ARROWS:
        return f"layer '{owner}' is not in the table of scripts/check-layers.py"

    target = name.split("/")[0]
    if target == "felix":
        return None
    if place[0] == "include":
        return f"a public header includes {name}, which is not installed" if quote == '"' else None
    if quote == "<":
        for prefix, allowed in FOREIGN.items():
            if name.startswith(prefix) and owner is not None and owner not in allowed:
                return f"{owner} may not know {name} (only {', '.join(sorted(allowed))})"
        if owner in PURE and SYSTEM.search(name) and not allowed_call(owner, path.name, name):
            return f"{owner} makes no system calls, so it needs no <{name}>"
        return None

    if "/" not in name:
        return None if owner is None else f'"{name}" must be named "layer/{name}"'
    if target in ARROWS and not (root / "src" / name).exists() and not name.endswith(".inc"):
        return f"src/{name} does not exist"
    if place[0] == "examples":
        return "an example may include only <felix/...> and system headers"
    if target not in ARROWS:
        return f"{name} is outside of the layers" if owner is not None else None
    if place[:2] == ("tests", "unit") and len(place) > 3:
        owner = place[2]
    if owner in ARROWS and target != owner and target not in ARROWS[owner]:
        return f"{owner} may not include {name}: the arrow does not point that way"
    return None


def main():
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    files = c_files("src", "include", "demos", "examples", "tests", "fuzz", root=root)
    failures = 0
    for path in files:
        text = path.read_text()
        for match in INCLUDE.finditer(text):
            why = complaint(root, path, *match.groups())
            if why is not None:
                line = text.count("\n", 0, match.start()) + 1
                print(f"{relative(path, root)}:{line}: {why}")
                failures += 1
    print(f"{len(files)} files, {failures} forbidden includes")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
