#!/usr/bin/env python3
"""Thousands of connections with a subscription each: what does an idle one cost?

    bench/scale.py [--connections 2000] [--messages 20]

Starts a development broker (FELIX_BIN_DIR, default build/bin), connects raw QUIC peers one after
another, and prints the broker's memory per connection, the time to connect, its CPU time while
everybody is idle, and how long one message takes to reach everybody. Needs what
tests/e2e/requirements.txt names. The peers are Python: times are upper bounds, memory is not
affected.
"""

import argparse
import os
import resource
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))

from felix_testlib import frames  # noqa: E402
from felix_testlib.broker import Broker  # noqa: E402
from felix_testlib.peer import Peer  # noqa: E402

NAMESPACE, STREAM = "default", "everybody"


def connect(broker, tenant, token, count):
    events = []
    for i in range(count):
        peer = Peer(broker.port, ca=broker.ca, idle_timeout=600)
        events.append(peer.subscribe(tenant, token, NAMESPACE, STREAM)[1])
        if (i + 1) % 500 == 0:
            print(f"  {i + 1} connected, {broker.rss_bytes() >> 20} MiB", flush=True)
    return events


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--idle-seconds", type=float, default=10)
    options = parser.parse_args()
    wanted = options.connections + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))

    with tempfile.TemporaryDirectory(prefix="felix-scale-") as directory:
        broker = Broker(directory)
        try:
            measure(broker, options)
        finally:
            broker.stop(seconds=60)


def measure(broker, options):
    tenant, token = broker.tenant, broker.token
    control = Peer(broker.port, ca=broker.ca, idle_timeout=600).authenticated(tenant, token)
    before = broker.rss_bytes()
    start = time.monotonic()
    events = connect(broker, tenant, token, options.connections)
    took = time.monotonic() - start
    grown = broker.rss_bytes() - before
    print(f"connections              {options.connections}")
    print(f"time to connect          {took:.1f} s ({took / options.connections * 1000:.2f} ms each)")
    print(f"memory per connection    {grown / options.connections / 1024:.1f} KiB")

    time.sleep(2)
    cpu = broker.cpu_seconds()
    time.sleep(options.idle_seconds)
    cpu = broker.cpu_seconds() - cpu
    print(f"CPU while idle           {cpu / options.idle_seconds * 100:.1f} %")

    slowest = 0.0
    for i in range(options.messages):
        start = time.monotonic()
        control.send(frames.publish(tenant, NAMESPACE, STREAM, [b"%d" % i], request_id=i))
        assert control.ack(60).ok
        for stream in events:
            assert stream.payloads(1, 60) == [b"%d" % i]
        slowest = max(slowest, time.monotonic() - start)
    print(f"one message to everybody {slowest * 1000:.0f} ms at most")
    print(f"memory per connection    {(broker.rss_bytes() - before) / options.connections / 1024:.1f} KiB"
          " after traffic")  # fmt: skip


if __name__ == "__main__":
    main()
