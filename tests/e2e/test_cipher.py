"""The packet cipher of the broker, forced to either library, against clients that are not ours and
ours, which has a setting of the same name."""

import re

import pytest

from felix_testlib import client as clients
from felix_testlib.broker import run
from felix_testlib.cli import Cli
from felix_testlib.slow import wait_until

NS = clients.NAMESPACE
SIZES = (0, 1, 1300, 70_000, 1_000_000)


@pytest.fixture(params=["ipsec-mb", "gnutls"])
def forced(request, start_broker):
    """A broker with one of the ciphers, and the other's name."""
    if chosen(start_broker()) == "gnutls":
        pytest.skip("libipsec-mb cannot be had here: there is no other cipher")
    broker = start_broker(env={"FELIX_QUIC_CIPHER": request.param})
    assert chosen(broker).split(" ")[0] == request.param
    return broker, "gnutls" if request.param == "ipsec-mb" else "ipsec-mb"


def chosen(broker):
    """What the log of a running broker names."""
    pattern = re.compile(r'event=packet_cipher chosen="?([^"\n]+)')
    wait_until(lambda: pattern.search(broker.log()), 10, "the log names the cipher")
    return pattern.search(broker.log()).group(1)


def test_the_published_client_gets_its_bytes(forced, name):
    broker, _ = forced
    sent = [bytes(i % 251 for i in range(size)) for size in SIZES]
    with clients.connect(broker) as client:
        with client.subscribe(broker.tenant, NS, name) as events:
            for payload in sent:
                client.publish(broker.tenant, NS, name, payload, ack="per_message")
            assert clients.payloads(clients.take(events, len(sent))) == sent


def test_our_client_may_have_the_other_cipher(forced, name, tmp_path):
    broker, other = forced
    felix = Cli.of(broker, tmp_path / "home")
    felix.env["FELIX_QUIC_CIPHER"] = other
    payload = b"x" * 300_000
    felix("pub", name, stdin=payload)
    assert felix("sub", name, "--from", "earliest", "--count", "1").out == payload + b"\n"


def test_an_unknown_cipher_is_named_with_what_there_is(tmp_path):
    done = run("--dev", "--quic-cipher", "rot13", home=tmp_path)
    assert done.returncode == 2
    assert "quic-cipher" in done.stderr and "ipsec-mb" in done.stderr
