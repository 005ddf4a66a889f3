"""What a figure depends on besides the code: this machine, its settings, the compiler, the build."""

import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path

import measure

PROGRAMS = ("latencydemo", "cachedemo", "felix-broker")
SYSCTLS = ("rmem_max", "wmem_max", "rmem_default", "wmem_default")
BUILD_OPTIONS = ("buildtype", "optimization", "debug", "b_lto", "b_sanitize", "c_args", "pools")


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str | None:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _build_options() -> dict:
    text = _text(str(measure.BIN.parent / "meson-info/intro-buildoptions.json"))
    return {option["name"]: option["value"] for option in json.loads(text or "[]")
            if option["name"] in BUILD_OPTIONS}  # fmt: skip


def _compiler() -> str | None:
    """The first line that the compiler of the build says about itself."""
    text = _text(str(measure.BIN.parent / "meson-info/intro-targets.json"))
    for target in json.loads(text or "[]"):
        for source in target.get("target_sources", []):
            if source.get("language") == "c" and source.get("compiler"):
                return (_output(source["compiler"][-1], "--version") or "").partition("\n")[0] or None
    return None


def _programs_sha256() -> str:
    """Of all programs that are measured: two results with the same one come from the same build."""
    digest = hashlib.sha256()
    for name in PROGRAMS:
        path = measure.BIN / name
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()[:16]


def facts() -> dict:
    """Everything that stays the same during a session. What cannot be found out is null."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "sysctl": {f"net.core.{name}": _text(f"/proc/sys/net/core/{name}") for name in SYSCTLS},
        "compiler": _compiler(),
        "build_options": _build_options(),
        "ngtcp2": _output("pkg-config", "--modversion", "libngtcp2"),
        "gnutls": _output("pkg-config", "--modversion", "gnutls"),
        "git_sha": _output("git", "rev-parse", "HEAD"),
        "git_dirty": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "programs_sha256": _programs_sha256(),
    }


def load_average() -> float:
    return os.getloadavg()[0]
