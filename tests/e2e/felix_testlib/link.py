"""A bad network in user space: two network namespaces, and between them a wire that loses, doubles,
delays and reorders.

Run as a program, it makes two fresh namespaces without a name, a TUN device in each, says where they
are, and carries IP packets between the two until its standard input ends. The namespaces live as
long as this process and whoever entered them, so nothing is left over however a test ends. Works
where the kernel has no netem.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_UP, IFF_RUNNING = 1, 0x1000, 1, 0x40
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFMTU, SIOCSIFNETMASK = 0x8914, 0x8916, 0x8922, 0x891C
ADDRESSES = ("10.99.0.1", "10.99.0.2")
QUEUE_PACKETS = 4096  # what a router holds, and more


class NotPermitted(Exception):
    """This machine does not let us; the text says what failed."""


# ---- inside the process that is the wire


def _configure(name, address, mtu):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:

        def ask(request, value):
            fcntl.ioctl(s, request, struct.pack("16s24s", name.encode(), value))

        if address:
            ask(SIOCSIFADDR, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(address)))
            ask(SIOCSIFNETMASK, struct.pack("HH4s", socket.AF_INET, 0, b"\xff\xff\xff\0"))
            ask(SIOCSIFMTU, struct.pack("i", mtu))
        ask(SIOCSIFFLAGS, struct.pack("H", IFF_UP | IFF_RUNNING))


def _end(address, mtu):
    """Enter a fresh namespace; returns (its file descriptor, that of its TUN device)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    space = os.open("/proc/self/ns/net", os.O_RDONLY)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
    _configure("lo", None, 0)
    _configure("wire", address, mtu)
    return space, tun


def _carry(tuns, rule, chance):
    counts = {"carried": 0, "lost": 0, "doubled": 0, "late": 0}
    waiting, number = [], 0
    while True:
        timeout = None if not waiting else max(0.0, waiting[0][0] - time.monotonic())
        ready, _, _ = select.select([sys.stdin, *tuns], [], [], timeout)
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, tun, packet = heapq.heappop(waiting)
            try:
                os.write(tun, packet)
            except OSError:
                pass  # its queue is full: one more loss
        if sys.stdin in ready:
            print(json.dumps(counts), flush=True)
            return
        for at, tun in enumerate(tuns):
            for _ in range(64 if tun in ready else 0):
                try:
                    packet = os.read(tun, 65536)
                except BlockingIOError:
                    break
                if chance.random() < rule["loss"] or len(waiting) >= QUEUE_PACKETS:
                    counts["lost"] += 1
                    continue
                due = now + rule["delay"]
                if chance.random() < rule["reorder"]:
                    counts["late"] += 1
                    due += rule["late"]
                counts["carried"] += 1
                for _ in range(2 if chance.random() < rule["duplicate"] else 1):
                    number += 1
                    heapq.heappush(waiting, (due, number, tuns[1 - at], packet))
                    counts["doubled"] += 1
                counts["doubled"] -= 1


def _main():
    rule = json.loads(sys.argv[1])
    try:
        ends = [_end(address, rule["mtu"]) for address in ADDRESSES]
    except OSError as e:
        print(json.dumps({"error": str(e)}), flush=True)
        return
    print(json.dumps({"spaces": [space for space, _ in ends]}), flush=True)
    _carry([tun for _, tun in ends], rule, random.Random(rule["seed"]))


# ---- for tests


class Link:
    """The wire while a test runs. Probabilities of 0 to 1 for each packet and direction, seconds."""

    def __init__(self, loss=0.0, duplicate=0.0, reorder=0.0, delay=0.0, late=0.01, mtu=1500, seed=1):
        rule = {"loss": loss, "duplicate": duplicate, "reorder": reorder, "delay": delay,
                "late": late, "mtu": mtu, "seed": seed}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), json.dumps(rule)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        answer = json.loads(self.process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            self.process.wait()
            raise NotPermitted(f"no network namespaces with TUN devices here: {answer['error']}")
        self.spaces = answer["spaces"]

    def inside(self, end):
        """The words in front of a command that is to run at this end, 0 or 1."""
        return ["nsenter", f"--net=/proc/{self.process.pid}/fd/{self.spaces[end]}", "--"]

    def close(self):
        """Returns what happened to the packets."""
        out, _ = self.process.communicate("")
        return json.loads(out)


if __name__ == "__main__":
    _main()
