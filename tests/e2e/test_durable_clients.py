"""Durable streams of a real broker as its clients see them: the published Python client, libfelix,
the command line, and frames by hand."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import felix
import pytest

from conftest import Scope
from felix_testlib import cli, frames
from felix_testlib import client as clients
from felix_testlib.driver import Driver, DriverError
from felix_testlib.slow import scaled, wait_until

NS = clients.NAMESPACE
TENANT = "t1"
MEMORY = "plain"


class DurableScope(Scope):
    """Streams d0 to d29 are durable, one is not; the broker forgets its rings early and writes little
    ahead to a client, so that history comes from the log and who is slow is soon behind."""

    def __init__(self, directory, env=None, **more):
        env = {
            "FELIX_DURABLE_STORAGE_DIR": str(directory) + "/logs",
            "FELIX_REPLAY_ITEMS": "16",
            "FELIX_SUBSCRIBER_QUEUE_CAPACITY": "2",
            "FELIX_CACHE_SEND_WINDOW": "65536",
            **(env or {}),
        }
        super().__init__(directory, env=env, **more)

    def scope_yaml(self):
        streams = ", ".join([f"d{i}: {{durable: true}}" for i in range(30)] + [f"{MEMORY}: {{}}"])
        return f"scope: {{tenants: {{{TENANT}: {{namespaces: {{{NS}: {{streams: {{{streams}}}}}}}}}}}}}\n"


@pytest.fixture(scope="module")
def durable(tmp_path_factory):
    scope = DurableScope(tmp_path_factory.mktemp("durable"))
    yield scope
    scope.broker.stop()


_streams = iter(range(30))


@pytest.fixture
def stream():
    """A durable stream that no other test uses."""
    return f"d{next(_streams)}"


@pytest.fixture
def client(durable):
    with clients.connect(durable.broker, tenant=TENANT, token=durable.token()) as c:
        yield c


@pytest.fixture
def new_driver(tmp_path, durable):
    drivers = []

    def new(**settings):
        home = tmp_path / f"driver{len(drivers)}"
        home.mkdir()
        drivers.append(Driver(home, **settings))
        return drivers[-1].connect(durable.broker, TENANT, durable.token())

    yield new
    for driver in drivers:
        driver.stop()


def fill(client, stream, count):
    return [client.publish(TENANT, NS, stream, b"%d" % i) for i in range(count)]


# ---- the published client


def test_publish_returns_the_offset_of_the_record(client, stream):
    assert fill(client, stream, 3) == [0, 1, 2]
    assert client.publish(TENANT, NS, stream, b"x", key=b"k") == 3
    assert client.publish(TENANT, NS, stream, b"x", ack="per_batch") == 4
    assert client.publish(TENANT, NS, stream, b"x", ack="none") is None
    assert client.publish(TENANT, NS, MEMORY, b"x") is None


def test_live_events_carry_their_offsets(client, stream):
    fill(client, stream, 2)
    with client.subscribe(TENANT, NS, stream) as events:
        assert client.publish(TENANT, NS, stream, b"live") == 2
        (event,) = clients.take(events, 1)
    assert (event.payload, event.offset, event.skipped_before) == (b"live", 2, 0)


def test_earliest_reads_the_log_and_goes_on_live(client, stream):
    fill(client, stream, 100)
    with client.subscribe(TENANT, NS, stream, start="earliest") as events:
        assert [e.offset for e in clients.take(events, 100)] == list(range(100))
        client.publish(TENANT, NS, stream, b"100")
        got = clients.take(events, 1)
    assert [(e.payload, e.offset) for e in got] == [(b"100", 100)]


@pytest.mark.parametrize("offset", [0, 7, 95, 99, 100], ids=["first", "log", "ring", "last", "end"])
def test_an_offset_is_the_first_wanted_one(client, stream, offset):
    fill(client, stream, 100)
    with client.subscribe(TENANT, NS, stream, start=offset) as events:
        client.publish(TENANT, NS, stream, b"100")
        got = clients.take(events, 101 - offset)
    assert [e.offset for e in got] == list(range(offset, 101))
    assert [e.payload for e in got] == [b"%d" % i for i in range(offset, 101)]


def test_an_offset_beyond_the_end_is_its_cursor_error_and_names_the_end(client, stream):
    fill(client, stream, 3)
    with pytest.raises(felix.CursorError, match=r"\b1000\b.*\b3\b"):
        client.subscribe(TENANT, NS, stream, start=1000)


def test_offsets_go_on_after_a_restart_and_history_is_there(tmp_path, stream):
    first = DurableScope(tmp_path / "scope")
    with clients.connect(first.broker, tenant=TENANT, token=first.token()) as client:
        assert fill(client, stream, 40) == list(range(40))
    first.broker.kill()
    first.broker.judge()
    second = DurableScope(tmp_path / "scope")
    with clients.connect(second.broker, tenant=TENANT, token=second.token()) as client:
        assert client.publish(TENANT, NS, stream, b"40") == 40
        with client.subscribe(TENANT, NS, stream, start="earliest") as events:
            assert [e.payload for e in clients.take(events, 41)] == [b"%d" % i for i in range(41)]
    second.broker.stop()


def lagging(durable):
    return durable.broker.metric("felix_subscriptions_stopped_total", default=0.0)


@contextlib.contextmanager
def asleep(pid, durable):
    """The process stands still until the broker has left records out for it."""
    before = lagging(durable)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        wait_until(lambda: lagging(durable) > before, 5, "the reader has fallen behind")
    finally:
        os.kill(pid, signal.SIGCONT)


READER = """
import felix, sys
address, tenant, token, ca, stream = sys.argv[1:]
with felix.Client(address, tenant_id=tenant, token=token, ca_file=ca) as client:
    with client.subscribe(tenant, "default", stream) as events:
        print("subscribed", flush=True)
        for event in events:
            print(event.offset, flush=True)
"""


def test_a_subscriber_that_falls_behind_is_told_and_loses_nothing(durable, stream, new_driver):
    """The client takes `subscription_lagged` and reads on at the first record that was left out."""
    driver = new_driver()
    words = [durable.broker.address, TENANT, durable.token(), durable.broker.ca, stream]
    with subprocess.Popen([sys.executable, "-c", READER, *words], stdout=subprocess.PIPE, text=True) as reader:
        watch = threading.Timer(scaled(40), reader.kill)
        watch.start()
        try:
            assert reader.stdout.readline() == "subscribed\n"
            with asleep(reader.pid, durable):
                for _ in range(10):
                    driver.batch(stream, 64, size=2000)
            driver.publish(stream)
            assert [int(reader.stdout.readline()) for _ in range(641)] == list(range(641))
        finally:
            watch.cancel()
            reader.kill()


# ---- libfelix


def test_libfelix_is_told_offset_level_times_and_lag(durable, stream, new_driver):
    driver = new_driver(event_timestamps=1)
    began_us = int(time.time() * 1e6)
    subscription = driver.subscribe(stream)
    assert driver.confirm(stream, count=5, text="a") == (0, "flushed")
    assert driver.confirm(stream, count=5, text="b") == (5, "flushed")
    assert driver.confirm(MEMORY) == (None, "memory")
    live = driver.take(subscription, 10)
    assert [m.offset for m in live] == list(range(10))
    other = new_driver()
    with asleep(driver.process.pid, durable):
        for _ in range(10):
            other.batch(stream, 64, size=2000)
    got = driver.take(subscription, 640, 60)
    assert [m.offset for m in got] == list(range(10, 650))
    assert int(driver("lagged", subscription)[0]) == 1
    replayed = driver.take(driver.subscribe(stream, start="earliest"), 10)
    assert [(m.offset, m.text, m.timestamp) for m in replayed] == [(m.offset, m.text, m.timestamp) for m in live]
    times = [m.timestamp for m in live + got]
    assert times == sorted(times)
    assert began_us - 1e6 < times[0] and times[-1] < time.time() * 1e6 + 1e6


def test_libfelix_ends_with_lagged_where_that_is_wanted(durable, stream, new_driver):
    driver, other = new_driver(), new_driver()
    subscription = driver.subscribe(stream, mode="once")
    with asleep(driver.process.pid, durable):
        for _ in range(10):
            other.batch(stream, 64, size=2000)
    got = []
    with pytest.raises(DriverError) as error:
        while True:
            got.append(driver.next(subscription, 20).offset)
    assert error.value.code == "LAGGED"
    assert got == list(range(len(got))) and driver.cursor() == (len(got), len(got))


def test_libfelix_cursor_errors_name_what_is_available(stream, new_driver):
    driver = new_driver()
    driver.batch(stream, 7)
    with pytest.raises(DriverError) as error:
        driver.subscribe(stream, start="8")
    assert error.value.code == "CURSOR_IN_FUTURE" and driver.cursor() == (8, 7)


# ---- the command line


@pytest.fixture
def run(durable, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(durable.token())
    home = tmp_path / "home"
    home.mkdir()
    commands = cli.Cli(
        home,
        FELIX_SERVER=durable.broker.address, FELIX_CA_FILE=durable.broker.ca,
        FELIX_TOKEN_FILE=str(token_file), FELIX_AUTH_TENANT=TENANT,
    )  # fmt: skip
    yield commands
    commands.close()


TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def test_felix_pub_tells_offset_and_level(run, stream):
    assert run("pub", stream, "hello").out == b"published\t1\t5\t0\tflushed\n"
    assert run("pub", stream, "x", "--count", "10", "--batch", "4").out == b"published\t10\t10\t1\tflushed\n"
    told = json.loads(run("pub", stream, "x", "--json").out)
    assert (told["offset"], told["level"]) == (11, "flushed")
    assert run("pub", stream, "x", "--ack", "none").out == b"published\t1\t1\n"
    assert run("pub", MEMORY, "hello").out == b"published\t1\t5\n"
    assert json.loads(run("pub", MEMORY, "x", "--json").out)["level"] == "memory"


def test_felix_sub_prints_offsets_and_times(run, stream):
    run("pub", stream, "a")
    run("pub", stream, "b")
    whole = run("sub", stream, "--from", "earliest", "--count", "2", "--json", "--timestamps").out.decode()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [(line["offset"], line["payload"]) for line in lines] == [(0, "a"), (1, "b")]
    assert all(re.fullmatch(TIME, line["timestamp"]) for line in lines)
    text = run("sub", stream, "--from", "1", "--count", "1", "--timestamps").out.decode()
    assert re.fullmatch(rf"{TIME}\tb\n", text) and text.startswith(lines[1]["timestamp"])
    plain = run("sub", stream, "--from", "1", "--count", "1", "--json").out
    assert json.loads(plain) == {"offset": 1, "payload": "b"}
    assert "lies beyond the end of the stream, which is 2" in run("sub", stream, "--from", "9", status=4).err


# ---- frames by hand


def test_frames_tell_each_client_what_it_listed_and_nothing_else(durable, connect_peer, stream):
    peer = connect_peer(durable.broker)
    words = {"flags": 0x507F, "own": 0xFFFFFFFB}
    publisher = peer.authenticated(TENANT, durable.token(), **words)
    publisher.send(frames.publish(TENANT, NS, stream, [b"a", b"b"], request_id=1))
    told = frames.decode_ack(publisher.frame())
    assert (told.ok, told.request_id, told.offset, told.level) == (True, 1, 0, 2)
    publisher.send(frames.message("publish", tenant_id=TENANT, namespace=NS, stream=stream, payload="Yw==", request_id=2))
    publisher.expect("publish_ok", request_id=2, offset=2, level="flushed")

    old = peer.authenticated(TENANT, durable.token(), flags=63, features=None, hi=None)
    old.send(frames.publish(TENANT, NS, stream, [b"d"], request_id=3))
    assert old.frame().flags == frames.ACK

    control = peer.authenticated(TENANT, durable.token(), **words)
    control.send(frames.message("subscribe", tenant_id=TENANT, namespace=NS, stream=stream, start={"offset": 1}), fin=True)
    control.expect("subscribed", start_offset=1, live_offset=4)
    events = peer.accept()
    events.expect("event_stream_hello")
    got = frames.decode_events(events.frame())
    assert got.flags == frames.EVENT | frames.OFFSETS | frames.TIMESTAMPS
    assert (got.base_offset, got.payloads[0]) == (1, b"b") and got.times == sorted(got.times)

    _, events = peer.subscribe(TENANT, durable.token(), NS, stream, words={"flags": 63}, start={"offset": 3})
    assert frames.decode_events(events.frame()).flags == frames.EVENT | frames.OFFSETS


def test_a_reader_that_stops_is_told_where_to_go_on(durable, connect_peer, stream, new_driver):
    peer = connect_peer(durable.broker, max_stream_data=100_000, hold_windows=True)
    number, events = peer.subscribe(TENANT, durable.token(), NS, stream)
    before = lagging(durable)
    driver = new_driver()
    for _ in range(10):
        driver.batch(stream, 64, size=2000)
    wait_until(lambda: lagging(durable) > before, 20, "the reader has fallen behind")
    peer.widen()
    payloads = 0
    while (frame := events.frame(timeout=20)).flags != 0:
        got = frames.decode_events(frame)
        assert got.base_offset == payloads
        payloads += len(got.payloads)
    assert frame.json() == {"type": "subscription_lagged", "subscription_id": number, "resume_from": payloads}
    events.expect_fin()
    assert 0 < payloads < 640
