"""Broker and published client with a bad network between them (felix_testlib/link.py)."""

import json
import os
import subprocess
import sys

import pytest

from felix_testlib import far_client
from felix_testlib.broker import Broker
from felix_testlib.link import ADDRESSES, Link, NotPermitted
from felix_testlib.slow import scaled


@pytest.fixture
def wire():
    """Makes the wire; skips where the machine does not permit it, and says so."""
    links = []

    def make(**rule):
        try:
            links.append(Link(**rule))
        except NotPermitted as e:
            pytest.skip(str(e))
        return links[-1]

    yield make
    for link in links:
        if link.process.poll() is None:
            link.close()


def far_client_result(link, broker, messages, seconds):
    got = subprocess.run(
        [*link.inside(1), sys.executable, os.path.abspath(far_client.__file__),
         broker.address, broker.ca, broker.token, broker.tenant, str(messages)],
        capture_output=True, text=True, timeout=scaled(seconds),
    )  # fmt: skip
    assert got.returncode == 0, got.stdout + got.stderr
    return json.loads(got.stdout)


@pytest.mark.parametrize("mtu", [1280, 9000])
def test_nothing_is_lost_or_out_of_order_on_a_bad_network(wire, tmp_path, mtu):
    link = wire(loss=0.05, reorder=0.1, duplicate=0.05, delay=0.02, mtu=mtu)
    messages = 3000
    broker = Broker(
        tmp_path, quic_bind=f"{ADDRESSES[0]}:0", inside=link.inside(0),
        env={"FELIX_SUB_QUEUE_POLICY": "block"},
    )  # fmt: skip
    try:
        result = far_client_result(link, broker, messages, 100)
    finally:
        broker.stop()
    packets = link.close()
    print(result, packets)
    assert result["delivered"] == messages + far_client.ACKNOWLEDGED
    assert result["in_order"] and result["acknowledged_in_order"]
    assert result["cached"]
    # It was as bad as it should be.
    assert packets["lost"] > 20 and packets["doubled"] > 20 and packets["late"] > 40, packets
