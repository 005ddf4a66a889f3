"""The peers' own measuring tools, at work that peer-load does as well.

They answer the question whether peer-load is a fair load: it must get as much out of a server as
the tool that comes with it. Without TLS, 256 bytes and the stamp's 16.
"""

import re
import subprocess

import cells
import programs

TOOLS = {"nats": "nats", "redis-benchmark": "redis"}  # tool: the system it is for
BYTES = 256 + cells.STAMP_BYTES
SUBJECT = "cross-check"
COUNT = 500_000
FANOUT_COUNT = 100_000
SECONDS_MAX = 60


def nats_rate(text):
    """Messages a second that all subscribers of `nats bench sub` got together, or None."""
    line = re.search(r"subscriber (?:aggregated )?stats: ([\d,]+) msgs/sec", text)
    return float(line[1].replace(",", "")) if line else None


def redis_rates(text):
    """Operations a second by command, out of `redis-benchmark --csv`."""
    rows = [line.replace('"', "").split(",") for line in text.splitlines() if line.startswith('"')]
    return {row[0]: float(row[1]) for row in rows if row[0] in ("SET", "GET")}


def load_rate(load, peer, *arguments):
    document = cells.run_json([load, *arguments, "--seconds", 1, *peer.arguments()])
    return document.get("throughput") or document["delivered_throughput"]


def check_nats(program, peer, load):
    found = []
    server = ["--server", f"nats://127.0.0.1:{peer.port}", "--no-progress", "--size", str(BYTES)]
    for fanout, count in ((1, COUNT), (10, FANOUT_COUNT)):
        numbers = ["--msgs", str(count)]
        subscribers = subprocess.Popen(
            [program, "bench", "sub", *server, *numbers, "--clients", str(fanout), SUBJECT],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
        try:
            peer.wait_for_subscriptions(fanout)
            subprocess.run([program, "bench", "pub", *server, *numbers, SUBJECT],
                           capture_output=True, timeout=SECONDS_MAX, check=True)  # fmt: skip
            theirs = nats_rate(subscribers.communicate(timeout=SECONDS_MAX)[0])
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            theirs = None  # its subscribers drop when they cannot follow, and then wait for ever
        finally:
            subscribers.kill()
            subscribers.wait()
        if theirs is not None:
            ours = load_rate(load, peer, "nats", "--fanout", fanout, "--payload", 256)
            found.append({"what": f"nats bench, fanout {fanout}, {BYTES} B", "theirs": theirs, "ours": ours})
    return found


def check_redis(program, peer, load):
    done = subprocess.run(
        [program, "-p", str(peer.port), "--csv", "-t", "set,get", "-d", "256", "-c", "8", "-P", "4",
         "-n", "300000", "-r", "1024"],
        capture_output=True, text=True, timeout=SECONDS_MAX, env=programs.environment())  # fmt: skip
    return [{"what": f"redis-benchmark {command}, 256 B, 8 connections, 4 in flight on each", "theirs": rate,
             "ours": load_rate(load, peer, "cache:redis", "--op", {"SET": "put", "GET": "get"}[command])}
            for command, rate in redis_rates(done.stdout).items()]  # fmt: skip


def run(tool, program, peer, load):
    """A list of {"what", "theirs", "ours"}: operations or deliveries a second."""
    try:
        return {"nats": check_nats, "redis-benchmark": check_redis}[tool](program, peer, load)
    except (cells.Failed, subprocess.TimeoutExpired):
        return []
