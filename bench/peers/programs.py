"""Where the programs of the peers come from, and how they get into build/peers.

NATS is built by the Go toolchain from pinned modules. The others are Debian's: apt fetches what is
not installed, with the libraries it needs, and the packages are unpacked below build/peers. They
are not installed: nothing of the system changes, no daemon is started, and `rm -rf build/peers`
removes all of it.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build/peers"

GO_MODULES = {
    "nats-server": ("github.com/nats-io/nats-server/v2", "v2.15.2"),
    "nats": ("github.com/nats-io/natscli/nats", "v0.5.1"),
}
# program: package, and where it is in it
DEBIAN = {
    "redis-server": ("redis-server", "usr/bin/redis-server"),
    "redis-benchmark": ("redis-tools", "usr/bin/redis-benchmark"),
    "memcached": ("memcached", "usr/bin/memcached"),
    "mosquitto": ("mosquitto", "usr/sbin/mosquitto"),
    "fio": ("fio", "usr/bin/fio"),
}


def say(text):
    print(f"setup   {text}", file=sys.stderr, flush=True)


def run_quietly(command, **more):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n  exit status {done.returncode}\n"
                 f"{done.stdout[-3000:]}{done.stderr[-3000:]}")  # fmt: skip
    return done


def environment():
    """The environment in which unpacked programs find their libraries."""
    triplet = f"{platform.machine()}-linux-gnu"
    return os.environ | {
        "LD_LIBRARY_PATH": f"{CACHE}/debian/usr/lib/{triplet}:{CACHE}/debian/lib/{triplet}"
    }


def go_program(name):
    module, version = GO_MODULES[name]
    target = CACHE / "bin" / version / name
    if target.exists():
        return target
    if shutil.which("go") is None:
        sys.exit(f"{name} is built with the Go toolchain, and there is no `go` here: install it "
                 "(https://go.dev/dl/), or leave NATS out with --only")  # fmt: skip
    say(f"building {module} {version} with go install into {target.parent.relative_to(ROOT)}")
    env = os.environ | {
        "GOBIN": str(target.parent),
        "GOMODCACHE": str(CACHE / "go/mod"),
        "GOCACHE": str(CACHE / "go/cache"),
        "GOFLAGS": "-modcacherw",
    }
    run_quietly(["go", "install", f"{module}@{version}"], env=env)
    return target


def unpack_packages(packages):
    """Fetches packages and what they depend on and is not installed; unpacks all of it."""
    archives = CACHE / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    say(f"fetching {', '.join(packages)} with apt; unpacked into build/peers/debian, not installed")
    command = ["apt-get", "--yes", "--no-install-recommends", "--download-only",
               "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1",
               "install", *packages]  # fmt: skip
    if subprocess.run(command, capture_output=True).returncode != 0:
        say("apt does not find them; updating its lists first")
        sudo = [] if os.getuid() == 0 else ["sudo"]
        run_quietly([*sudo, "apt-get", "update"])
        run_quietly(command)
    for archive in sorted(archives.glob("*.deb")):
        run_quietly(["dpkg-deb", "-x", archive, CACHE / "debian"])


def debian_programs(names):
    """Paths of programs, by name: installed ones, else unpacked ones."""
    found, missing = {}, []
    for name in names:
        package, path = DEBIAN[name]
        unpacked = CACHE / "debian" / path
        installed = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if installed or unpacked.exists():
            found[name] = Path(installed or unpacked)
        else:
            missing.append(package)
    if missing:
        unpack_packages(sorted(set(missing)))
        found |= {name: CACHE / "debian" / DEBIAN[name][1] for name in names if name not in found}
    return found


def fetch(names):
    """Paths of the programs `names`; fetches and builds those that are not there."""
    paths = debian_programs([name for name in names if name in DEBIAN])
    return paths | {name: go_program(name) for name in names if name in GO_MODULES}


# How each tells its version, and where it is in what they print.
VERSIONS = {
    "nats-server": ("NATS", ["--version"]),
    "redis-server": ("Redis", ["--version"]),
    "memcached": ("memcached", ["--version"]),
    "mosquitto": ("Mosquitto", ["-h"]),
    "fio": ("fio", ["--version"]),
}


def version_in(text):
    """The first number with dots in what a program prints."""
    found = re.search(r"\d+(\.\d+)+", text)
    return found.group() if found else "of an unknown version"


def versions(paths):
    """One line: "NATS 2.15.2, Redis 7.0.15"."""
    names = []
    for program, (title, arguments) in VERSIONS.items():
        if program in paths:
            done = subprocess.run([paths[program], *arguments], capture_output=True, text=True,
                                  env=environment())  # fmt: skip
            names.append(f"{title} {version_in(done.stdout + done.stderr)}")
    return ", ".join(names)
