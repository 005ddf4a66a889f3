"""Many clients at once, small enough for every run. bench/scale.py is the larger one."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from felix_testlib import client as clients
from felix_testlib import frames
from felix_testlib.slow import FACTOR, scaled, wait_until

BENCH = Path(__file__).resolve().parents[2] / "bench"
NS = "default"
MEBI = 1 << 20


@pytest.mark.timeout(240)
def test_two_hundred_connections_with_a_subscription_each(start_broker, connect_peer):
    broker = start_broker()
    tenant, token = broker.tenant, broker.token
    control = connect_peer(broker).authenticated(tenant, token)
    before = broker.rss_bytes()
    start = time.monotonic()
    subscribers = [connect_peer(broker, idle_timeout=300).subscribe(tenant, token, NS, "all")[1]
                   for _ in range(200)]  # fmt: skip
    took = time.monotonic() - start
    grown = broker.rss_bytes() - before
    print(f"200 connections in {took:.1f} s, {grown / 200 / 1024:.0f} KiB each")
    assert broker.metric("felix_subscriptions") == 200
    if FACTOR == 1:
        assert grown < 200 * MEBI
    sent = [b"%d" % i for i in range(20)]
    for i, payload in enumerate(sent):
        control.send(frames.publish(tenant, NS, "all", [payload], request_id=i))
        assert control.ack().ok
    for events in subscribers:
        assert events.payloads(20, 30) == sent
    for events in subscribers:
        events.peer.close()
    wait_until(lambda: broker.metric("felix_subscriptions") == 0, 20, "the end of all subscriptions")


@pytest.mark.timeout(240)
def test_connections_that_come_and_go_leave_nothing_behind(start_broker, connect_peer):
    broker = start_broker()
    tenant, token = broker.tenant, broker.token

    def round_of(count):
        for _ in range(count):
            peer = connect_peer(broker)
            peer.subscribe(tenant, token, NS, "s")
            peer.close()
        wait_until(lambda: broker.metric("felix_subscriptions", 0.0) == 0, 20, "their end")

    round_of(150)
    time.sleep(scaled(1))
    before = broker.rss_bytes()
    round_of(300)
    time.sleep(scaled(1))
    grown = broker.rss_bytes() - before
    assert FACTOR > 1 or grown < 16 * MEBI, f"{grown / MEBI:.1f} MiB after 300 connections"


@pytest.mark.timeout(240)
def test_twenty_published_clients_talk_to_each_other(start_broker):
    broker = start_broker()
    tenant = broker.tenant
    everyone = [clients.connect(broker) for _ in range(20)]
    try:
        subscriptions = [c.subscribe(tenant, NS, "room") for c in everyone]
        for i, c in enumerate(everyone):
            c.publish(tenant, NS, "room", b"%d" % i)
        for subscription in subscriptions:
            got = clients.payloads(clients.take(subscription, 20))
            assert sorted(got) == sorted(b"%d" % i for i in range(20))
    finally:
        for c in everyone:
            c.__exit__()


def bench(script, *words):
    run = subprocess.run([sys.executable, BENCH / script, "--json", *words], capture_output=True, text=True,
                         timeout=scaled(60))  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


def test_the_scale_benchmark_accounts_for_every_delivery():
    (result,) = bench("scale.py", "--connections", "20", "--subscriptions", "3", "--updates", "5", "--rest", "0",
                      "--idle-seconds", "0.1")  # fmt: skip
    assert result["delivery"]["count"] == 20 * 3 * 5
    assert result["everybody"]["count"] == 5
    assert 0 < result["delivery"]["p50_us"] <= result["everybody"]["max_us"]
    assert (result["missing"], result["unexpected"], result["dropped"]) == (0, 0, 0)


def test_the_tails_benchmark_counts_from_when_a_message_was_due():
    result = bench("tails.py", "--rate", "2000", "--minutes", "0.02")
    assert result["received"] == result["sent"] == result["latency"]["count"] + 2000  # a second warms up
    assert sum(second["count"] for second in result["seconds"]) == result["latency"]["count"]
    assert 0 < result["latency"]["p50_us"] <= result["latency"]["p999_us"] <= result["latency"]["max_us"]
    assert result["worst"][0]["worst_us"] == pytest.approx(result["latency"]["max_us"], abs=1)
