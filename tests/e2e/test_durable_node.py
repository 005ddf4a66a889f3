"""Durable streams in the scope of a broker: where they are kept, how they come and go, what is said."""

import os
import signal
import subprocess
import time

import pytest
from felix_testlib import frames
from felix_testlib.broker import run
from felix_testlib.slow import FACTOR, wait_until

NS = "default"
FLAGS = 63  # of a client that wants no offsets


def scope_of(streams, tenants=("t1", "t2")):
    """`streams`: lines below `streams:`, the same for each tenant."""
    below = "".join(f"            {line}\n" for line in streams)
    return "scope:\n  tenants:\n" + "".join(
        f"    {t}:\n      namespaces:\n        default:\n          streams:\n{below}" for t in tenants
    )


def write_scope(s, *streams):
    with open(s.broker.config_path, "w") as out:
        out.write(scope_of(streams))


@pytest.fixture
def start_durable(start_scope, tmp_path):
    """A broker with a directory for logs, and those streams."""

    def start(*streams, **env):
        logs = {"FELIX_DURABLE_STORAGE_DIR": tmp_path / "logs"}
        s = start_scope(env={**logs, **env})
        write_scope(s, *streams)
        s.broker.signal(signal.SIGHUP)
        wait_until(lambda: "scope_reloaded" in s.broker.log(), 10, "the scope")
        return s

    return start


def publish(peer, s, stream, payload=b"x"):
    control = peer.authenticated("t1", s.token(), flags=FLAGS)
    control.send(frames.publish("t1", NS, stream, [payload], request_id=1))
    answer = control.frame()
    return answer.json() if answer.flags == 0 else frames.decode_ack(answer)


def history(peer, s, stream, count):
    _, events = peer.subscribe("t1", s.token(), NS, stream, words={"flags": FLAGS}, start="earliest")
    return events.payloads(count)


def committed(s):
    return int(s.broker.metrics()['felix_storage_committed_offset{stream="t1/default/ledger"}'])


def is_there(peer, s, stream):
    answer = publish(peer, s, stream, b"first")
    return not isinstance(answer, dict) and answer.ok


def gone(peer, s, stream):
    answer = publish(peer, s, stream)
    return isinstance(answer, dict) and "not found" in answer["message"]


def test_a_durable_stream_needs_a_directory_outside_of_development(tmp_path, start_scope, connect_peer):
    s = start_scope()
    write_scope(s, "orders: {durable: true}")
    s.broker.signal(signal.SIGHUP)
    wait_until(lambda: "scope_reload_failed" in s.broker.log(), 10, "the failure in the log")
    assert "FELIX_DURABLE_STORAGE_DIR" in s.broker.log()
    assert is_there(connect_peer(s.broker), s, "orders")  # the old scope stays in use
    got = run("--data-dir", tmp_path / "d", "--quic-bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0",
              "--auth-jwks-file", s.jwks_path, "--config", s.broker.config_path)  # fmt: skip
    assert got.returncode == 1 and "FELIX_DURABLE_STORAGE_DIR" in got.stderr, got.stderr


def test_development_keeps_them_below_its_data_directory(start_broker, connect_peer):
    broker = start_broker(yaml=scope_of(["ledger: {durable: true}"], ["t1"]))
    control = connect_peer(broker).authenticated(broker.tenant, broker.token, flags=FLAGS)
    control.send(frames.publish(broker.tenant, NS, "ledger", [b"x"], request_id=1))
    assert frames.decode_ack(control.frame()).ok
    assert any(d.startswith("t1_default_ledger_0-") for d in os.listdir(broker.path("streams")))
    # What is only in memory has no log.
    control.send(frames.publish(broker.tenant, NS, "other", [b"x"], request_id=2))
    assert frames.decode_ack(control.frame()).ok
    assert broker.metric("felix_storage_append_records_total") == 1
    assert broker.metrics()['felix_storage_committed_offset{stream="t1/default/ledger"}'] == 1


def test_without_durable_streams_nothing_is_made_for_them(start_broker):
    broker = start_broker()
    assert not os.path.exists(broker.path("streams"))
    assert not any(m.startswith("felix_storage_") for m in broker.metrics())


@pytest.mark.parametrize("reactors", ["1", "2"])
def test_a_durable_stream_taken_out_of_the_scope_keeps_its_history(start_durable, connect_peer, reactors):
    s = start_durable("ledger: {durable: true}", "audit: {durable: true}", FELIX_CORE_SHARDS=reactors)
    peer = connect_peer(s.broker)
    wait_until(lambda: is_there(peer, s, "ledger"), 10, "the durable stream")
    taken = committed(s)
    write_scope(s, "audit: {durable: true}")
    s.broker.signal(signal.SIGHUP)
    wait_until(lambda: gone(peer, s, "ledger"), 10, "the end of the stream")
    assert is_there(peer, s, "audit")
    write_scope(s, "ledger: {durable: true}", "audit: {durable: true}")
    s.broker.signal(signal.SIGHUP)
    wait_until(lambda: is_there(peer, s, "ledger"), 10, "the stream is back")
    assert committed(s) > taken  # what was published while it ended counts, too
    payloads = history(peer, s, "ledger", committed(s))
    assert payloads[:taken] == [b"first"] * taken and payloads[-1] == b"first"


def test_what_was_acknowledged_is_there_after_a_kill(start_durable, start_scope, connect_peer, tmp_path):
    s = start_durable("ledger: {durable: true}")
    peer = connect_peer(s.broker)
    wait_until(lambda: is_there(peer, s, "ledger"), 10, "the durable stream")
    for i in range(50):
        assert publish(peer, s, "ledger", b"%d" % i).ok
    s.broker.kill()
    s.broker.settled = True
    again = start_scope(env={"FELIX_DURABLE_STORAGE_DIR": tmp_path / "logs"})
    write_scope(again, "ledger: {durable: true}")
    again.broker.signal(signal.SIGHUP)
    peer = connect_peer(again.broker)
    wait_until(lambda: "scope_reloaded" in again.broker.log(), 10, "the scope")
    payloads = history(peer, again, "ledger", 51)
    assert payloads[-50:] == [b"%d" % i for i in range(50)]


def test_a_stop_in_order_is_seen_at_the_next_start(start_broker, connect_peer, tmp_path):
    storage, yaml = tmp_path / "logs", scope_of(["ledger: {durable: true}"], ["t1"])
    env = {"FELIX_DURABLE_STORAGE_DIR": storage, "FELIX_DURABLE_FSYNC_MODE": "periodic",
           "FELIX_DURABLE_FSYNC_INTERVAL_MS": "3600000"}  # fmt: skip
    broker = start_broker(yaml=yaml, env=env)
    control = connect_peer(broker).authenticated(broker.tenant, broker.token, flags=FLAGS)
    control.send(frames.publish(broker.tenant, NS, "ledger", [b"x"] * 5, request_id=1))
    assert frames.decode_ack(control.frame()).ok
    assert broker.metric("felix_storage_unsynced_records") == 5
    broker.stop()
    again = start_broker(yaml=yaml, env=env)
    (opened,) = (line for line in again.errors if "event=log_opened" in line)
    assert "end=5" in opened and "clean=true" in opened, opened


@pytest.mark.skipif(FACTOR > 1, reason="a sanitizer's own threads wake up")
def test_an_idle_broker_with_durable_streams_makes_no_wake_ups(start_broker, connect_peer, tmp_path):
    yaml = scope_of(["ledger: {durable: true, retention_seconds: 1000000}"], ["t1"])
    env = {"FELIX_DURABLE_FSYNC_MODE": "periodic", "FELIX_DURABLE_FSYNC_INTERVAL_MS": "20",
           "FELIX_DURABLE_RETENTION_INTERVAL_SECONDS": "1"}  # fmt: skip
    broker = start_broker(yaml=yaml, env=env)
    peer = connect_peer(broker)
    control = peer.authenticated(broker.tenant, broker.token, flags=FLAGS)
    control.send(frames.publish(broker.tenant, NS, "ledger", [b"x"], request_id=1))
    assert frames.decode_ack(control.frame()).ok
    peer.close()
    time.sleep(2.5)  # the flush, the looks at what is old, the end of the connection
    report = tmp_path / "strace"
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-o", str(report), "-p", str(broker.pid)], stderr=subprocess.PIPE
    )
    time.sleep(3)
    tracer.send_signal(signal.SIGINT)
    _, errors = tracer.communicate(timeout=30)
    if b"ptrace" in errors and b"Operation not permitted" in errors:
        pytest.skip("strace may not attach to processes here")
    calls = 0
    for line in report.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0][0].isdigit() and fields[-1] != "total":
            calls += int(fields[3])
    # Attaching itself restarts the waits of the threads, of which there are some more here.
    assert calls <= 30, report.read_text()
