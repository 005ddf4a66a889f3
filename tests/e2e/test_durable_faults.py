"""Disks that are full, damaged or somebody else's: what is refused, what goes on, and what is said."""

import os
import subprocess

import pytest
from felix_testlib.broker import Broker, run
from felix_testlib.driver import Driver, DriverError
from felix_testlib.durable import create_stream
from felix_testlib.slow import wait_until

DISK_BYTES = 12 << 20
ROOM_BYTES = 1 << 18
SMALL_SEGMENTS = {"FELIX_DURABLE_SEGMENT_BYTES": 1 << 20}


@pytest.fixture
def new_driver(tmp_path):
    drivers = []

    def make(broker):
        drivers.append(Driver(tmp_path).connect(broker))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.stop()


# ---- a full disk


def small_disk(mount_point):
    """Words in front of a command: it sees a small file system at `mount_point`, which goes with it."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    script = f'mount -t tmpfs -o size={DISK_BYTES} felix-test "$0" && exec "$@"'
    return [*own, "sh", "-c", script, str(mount_point)]


@pytest.fixture
def broker_on_small_disk(tmp_path, start_broker):
    place = tmp_path / "disk"
    place.mkdir()
    inside = small_disk(place)
    tried = subprocess.run([*inside, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"cannot mount a file system of our own here: {tried.stderr.strip()}")
    broker = start_broker(inside=inside, env={**SMALL_SEGMENTS, "FELIX_DURABLE_STORAGE_DIR": place})
    broker.disk = f"/proc/{broker.pid}/root{place}"  # as the broker sees it
    return broker


def fill(broker):
    """Takes all the room that is left but for some records; returns the file that does."""
    path = os.path.join(broker.disk, "ballast")
    with open(path, "wb", buffering=0) as out:
        try:
            while out.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    os.truncate(path, os.path.getsize(path) - ROOM_BYTES)
    return path


def publish_until_refused(driver, stream):
    """How many were acknowledged, and the refusal."""
    for count in range(10_000):
        try:
            driver.publish(stream, text=f"r{count}-", size=3000)
        except DriverError as refusal:
            return count, refusal
    raise AssertionError("a full disk takes everything")


def test_a_full_disk_refuses_and_takes_again_when_there_is_room(broker_on_small_disk, new_driver, name, tmp_path):
    broker = broker_on_small_disk
    create_stream(broker, tmp_path, name)
    driver = new_driver(broker)
    driver.publish(name, text="first", size=100)
    ballast = fill(broker)
    count, refusal = publish_until_refused(driver, name)
    assert refusal.code == "DISK_FULL" and "full" in refusal.text, str(refusal)
    assert count > 10, "there was room for more"
    # What needs no disk goes on, what is stored can be read, and the broker says what is the matter.
    driver.publish(f"{name}-in-memory", count=100)
    driver.take(driver.subscribe(name, start="earliest"), 1 + count)
    assert broker.metric("felix_storage_disk_full_total") > 0
    os.unlink(ballast)
    wait_until(lambda: accepts(driver, name), 10, "there is room again")
    messages = driver.take(driver.subscribe(name, start="earliest"), 2 + count)
    assert [m.offset for m in messages] == list(range(2 + count))
    assert [m.text for m in messages] == ["first0", *(f"r{i}-0" for i in range(count)), "again0"]


def accepts(driver, stream):
    try:
        driver.publish(stream, text="again", size=100)
        return True
    except DriverError as refusal:
        assert refusal.code == "DISK_FULL", str(refusal)
        return False


# ---- a damaged log


def newest_segment(broker, stream):
    """Path of the log file that is written to."""
    root = broker.path("streams")
    (directory,) = (d for d in os.listdir(root) if d.startswith(f"t1_default_{stream}_"))
    segments = [f for f in os.listdir(os.path.join(root, directory)) if f.endswith(".log")]
    return os.path.join(root, directory, max(segments))


def flip(path, share):
    """Damages the byte at `share` of the file."""
    with open(path, "r+b") as f:
        f.seek(int(os.path.getsize(path) * share))
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 0x40]))


RECORDS = 200


@pytest.fixture
def start_after_damage(tmp_path, start_broker, new_driver):
    """Fills streams `bad` and `good`, damages the log of the first at `share` of its file, starts again."""

    def start(share):
        broker = Broker(tmp_path / "b")
        driver = new_driver(broker)
        for stream in ("bad", "good"):
            create_stream(broker, tmp_path, stream)
            driver.publish(stream, count=RECORDS, size=500)
        broker.stop()
        flip(newest_segment(broker, "bad"), share)
        again = Broker(tmp_path / "b")
        return again, new_driver(again)

    return start


def serves(driver, stream):
    return len(driver.take(driver.subscribe(stream, start="earliest"), RECORDS)) == RECORDS and accepts(driver, stream)


def test_a_damaged_record_is_left_out_and_said(start_after_damage):
    broker, driver = start_after_damage(0.5)
    try:
        assert serves(driver, "good")
        messages = driver.take(driver.subscribe("bad", start="earliest"), RECORDS - 1)
        gone = set(range(RECORDS)) - {m.offset for m in messages}
        assert len(gone) == 1 and all(m.text == f"m{m.offset}" for m in messages), gone
        assert accepts(driver, "bad")
        assert broker.metrics()['felix_storage_log_damaged_ranges{stream="t1/default/bad"}'] == 1
        (first,) = gone
        assert f"event=records_damaged log=t1/default/bad first_offset={first} end_offset={first + 1}" in broker.log()
    finally:
        broker.stop()


def test_a_log_that_cannot_be_opened_is_said_and_the_others_serve(start_after_damage):
    broker, driver = start_after_damage(0)
    try:
        assert serves(driver, "good")
        for refused in (driver.publish, driver.subscribe):
            with pytest.raises(DriverError, match="^DAMAGED: .*damaged"):
                refused("bad")
        status, _, body = broker.http("/ready")
        assert status == 503 and "t1/default/bad" in body and "damaged" in body, (status, body)
        assert "good" not in body
        metrics = broker.metrics()
        assert metrics['felix_storage_log_failed{stream="t1/default/bad"}'] == 1
        assert metrics['felix_storage_log_failed{stream="t1/default/good"}'] == 0
    finally:
        broker.stop()


# ---- somebody else's directory


def test_two_brokers_in_one_storage_directory_the_second_says_why_it_cannot(tmp_path, start_broker, new_driver):
    """With durable streams in its scope or not, it does not start. The first one does not notice."""
    storage = tmp_path / "logs"
    env = {"FELIX_DURABLE_STORAGE_DIR": storage}
    first = start_broker(env=env)
    create_stream(first, tmp_path, "orders")
    second = run("--dev", "--data-dir", tmp_path / "second", "--quic-bind", "127.0.0.1:0",
                 "--metrics-bind", "127.0.0.1:0", env=env)  # fmt: skip
    assert second.returncode == 1, second.stderr
    assert str(storage) in second.stderr and "ready" not in second.stdout, second.stderr
    scope = tmp_path / "felix.yml"
    scope.write_text("scope:\n  tenants:\n    t1:\n      namespaces:\n        default:\n"
                     "          streams: {orders: {durable: true}}\n")  # fmt: skip
    third = run("--dev", "--config", scope, "--data-dir", tmp_path / "third", "--quic-bind", "127.0.0.1:0",
                "--metrics-bind", "127.0.0.1:0", env=env)  # fmt: skip
    assert third.returncode == 1, third.stderr
    assert str(storage) in third.stderr and "ready" not in third.stdout, third.stderr
    new_driver(first).publish("orders")
