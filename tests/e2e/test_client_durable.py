"""What libfelix makes of what only durable streams are told: offsets and levels of acknowledgements,
timestamps, cursor errors, lag, disks that fail. The brokers are fake; one speaks as ours does, one
as the original does, which knows nothing of levels."""

import struct

import pytest

from felix_testlib import frames
from felix_testlib.driver import Driver, DriverError
from felix_testlib.fake_broker import FakeBroker
from felix_testlib.slow import wait_until

DURABLE = {"server_flags": frames.FLAGS_DURABLE, "server_features": frames.FEATURES_DURABLE}
OURS = frames.message("auth_ok", **DURABLE, felix_c=3)
THEIRS = frames.message("auth_ok", **DURABLE)


@pytest.fixture
def new_driver(tmp_path):
    drivers = []

    def new(broker, **settings):
        home = tmp_path / f"driver{len(drivers)}"
        home.mkdir()
        drivers.append(Driver(home, **settings))
        return drivers[-1].connect(broker)

    yield new
    for driver in drivers:
        driver.stop()


def ack(frame, offset=None, level=None):
    """The successful answer to a publish, in the binary form."""
    flags, body = frames.ACK, b"\0" + frame.body[:8] + b"\0\0"
    if offset is not None:
        flags, body = flags | frames.ACK_OFFSET, body + struct.pack(">Q", offset)
    if level is not None:
        flags, body = flags | frames.ACK_LEVEL, body + bytes([level])
    return frames.frame(flags, body)


def refuse(frame, message, code, retry):
    (request_id,) = struct.unpack_from(">Q", frame.body)
    return frames.message("publish_error", request_id=request_id, message=message, code=code, retry=retry)


def events(*payloads, offset, times=None):
    flags = frames.EVENT_SHARED | frames.OFFSETS | (frames.TIMESTAMPS if times else 0)
    return frames.frame(flags, struct.pack(">Q", offset) + frames.items(payloads, times=times))


class Subscriptions:
    """Confirms each subscription and says on its event stream what the test has prepared for it."""

    def __init__(self, *prepared):
        self.prepared, self.starts = list(prepared), []

    def __call__(self, stream, frame):
        self.starts.append(frame.json().get("start"))
        number = len(self.starts)
        stream.say(frames.message("subscribed", subscription_id=number, start_offset=0, live_offset=0))
        stream.finish()
        out = stream.connection.open_event_stream(number)
        for data in self.prepared.pop(0):
            out.say(data)
            if is_lagged(data):
                out.finish()


def is_lagged(data):
    return b"subscription_lagged" in data


def lagged(number, resume_from):
    return frames.message("subscription_lagged", subscription_id=number, resume_from=resume_from)


def refusal(call, *args, **words):
    with pytest.raises(DriverError) as error:
        call(*args, **words)
    return error.value


# ---- acknowledgements


def test_our_broker_tells_the_offset_and_the_level_of_each_publish(tmp_path, new_driver):
    answers = [(42, 2), (43, 1), (None, 0), (2**64 - 1, 2)]

    def on_frame(stream, frame):
        stream.say(ack(frame, *answers[len(seen)]))
        seen.append(frame)

    seen = []
    with FakeBroker(tmp_path, on_frame, OURS) as broker:
        driver = new_driver(broker)
        got = [driver.confirm("s", count=3), driver.confirm("s", key="k"), driver.confirm("s"), driver.confirm("s")]
        assert got == [(42, "flushed"), (43, "written"), (None, "memory"), (2**64 - 1, "flushed")]
        assert seen[1].flags & frames.KEYED


def test_json_answers_tell_the_same_and_an_unknown_level_is_no_level(tmp_path, new_driver):
    more = [{"offset": 7, "level": "flushed"}, {"offset": 8}, {"offset": 9, "level": "engraved"}]

    def on_frame(stream, frame):
        (request_id,) = struct.unpack_from(">Q", frame.body)
        stream.say(frames.message("publish_ok", request_id=request_id, **more.pop(0)))

    with FakeBroker(tmp_path, on_frame, OURS) as broker:
        driver = new_driver(broker)
        assert [driver.confirm("s") for _ in range(3)] == [(7, "flushed"), (8, "unknown"), (9, "unknown")]


def test_the_original_tells_the_offset_alone(tmp_path, new_driver):
    with FakeBroker(tmp_path, lambda stream, frame: stream.say(ack(frame, 5)), THEIRS) as broker:
        assert new_driver(broker).confirm("s") == (5, "unknown")


def test_a_level_that_was_not_agreed_costs_the_publish_stream(tmp_path, new_driver):
    with FakeBroker(tmp_path, lambda stream, frame: stream.say(ack(frame, 5, 2)), THEIRS) as broker:
        assert refusal(new_driver(broker).confirm, "s").code == "OUTCOME_UNKNOWN"


@pytest.mark.parametrize(("retry", "code"), [
    ("retry_after", "DISK_FULL"), ("outcome_unknown", "STORAGE"), ("fatal", "DAMAGED"),
])  # fmt: skip
def test_what_a_disk_refuses_has_an_error_of_its_own(tmp_path, new_driver, retry, code):
    def on_frame(stream, frame):
        stream.say(refuse(frame, "no", "storage", retry) if frame.body[8:9] == b"\2" else ack(frame, 1, 2))

    with FakeBroker(tmp_path, on_frame, OURS) as broker:
        driver = new_driver(broker)
        error = refusal(driver.confirm, "s")
        assert (error.code, error.text) == (code, "no")
        driver.publish("s")  # and the stream goes on


# ---- what is asked for


def test_timestamps_are_asked_for_only_where_they_are_wanted(tmp_path, new_driver):
    words = []

    class Listening(FakeBroker):
        def handle(self, stream, frame):
            if not stream.authenticated:
                words.append(frame.json())
            super().handle(stream, frame)

    first = events(b"a", b"b", offset=40, times=[1000, 2**64 - 1])
    with Listening(tmp_path, Subscriptions([first], [first], [first]), OURS) as broker:
        driver = new_driver(broker, event_timestamps=1)
        got = driver.take(driver.subscribe("s"), 2)
        assert [(m.text, m.offset, m.timestamp) for m in got] == [("a", 40, 1000), ("b", 41, 2**64 - 1)]
        assert driver.stats()["receive_bytes"] == 2
        by_callback = driver.subscribe("s", mode="callback")
        assert [(m.subscription, m.timestamp) for m in (driver.event(), driver.event())] == [
            (by_callback, 1000), (by_callback, 2**64 - 1)]  # fmt: skip
        assert all(w["client_flags"] & frames.TIMESTAMPS for w in words)
        words.clear()
        new_driver(broker)
        assert not any(w["client_flags"] & frames.TIMESTAMPS for w in words)
        assert words[0]["client_flags"] & frames.ACK_OFFSET and words[0]["felix_c"] & 2
        offered = frames.ACK_ON_COMMIT | frames.SUBSCRIPTION_LAGGED
        assert words[0]["client_features"] & offered == offered


# ---- cursors


@pytest.mark.parametrize(("reason", "code"), [("too_old", "CURSOR_TOO_OLD"), ("in_future", "CURSOR_IN_FUTURE")])
def test_a_cursor_error_tells_what_is_available(tmp_path, new_driver, reason, code):
    def on_frame(stream, frame):
        offset = frame.json()["start"]["offset"]
        stream.say(frames.message("subscribe_cursor_error", reason=reason, requested=offset, available=40))
        stream.finish()

    with FakeBroker(tmp_path, on_frame, OURS) as broker:
        driver = new_driver(broker)
        error = refusal(driver.subscribe, "s", start="7")
        assert error.code == code and "7" in error.text and "40" in error.text
        assert driver.cursor() == (7, 40)
        refusal(driver.set, "nonsense", "x")
        assert driver.cursor() is None


# ---- what ends an event stream with a word


def storage(retry):
    return frames.message("error", message="no", code="storage", retry=retry)


def test_a_log_that_cannot_be_read_for_the_moment_is_read_on_later(tmp_path, new_driver):
    subscriptions = Subscriptions([events(b"a", offset=40), storage("outcome_unknown")], [events(b"b", offset=41)])
    with FakeBroker(tmp_path, subscriptions, OURS) as broker:
        driver = new_driver(broker)
        got = driver.take(driver.subscribe("s", start="earliest"), 2)
        assert [(m.text, m.offset) for m in got] == [("a", 40), ("b", 41)]
        assert subscriptions.starts == ["earliest", {"offset": 41}]


def test_a_log_that_is_damaged_ends_the_subscription(tmp_path, new_driver):
    with FakeBroker(tmp_path, Subscriptions([events(b"a", offset=40), storage("fatal")]), OURS) as broker:
        driver = new_driver(broker)
        subscription = driver.subscribe("s")
        assert driver.event() == ["end", str(subscription), "DAMAGED", "no"]
        assert driver.next(subscription).offset == 40
        assert refusal(driver.next, subscription).code == "DAMAGED"


# ---- lag


def test_who_lags_reads_on_at_the_first_message_that_was_left_out(tmp_path, new_driver):
    subscriptions = Subscriptions(
        [events(b"a", b"b", offset=40), lagged(1, 42)],
        [events(b"c", offset=42), lagged(2, 43)],
        [events(b"d", offset=43)],
    )
    with FakeBroker(tmp_path, subscriptions, OURS) as broker:
        driver = new_driver(broker)
        subscription = driver.subscribe("s")
        got = driver.take(subscription, 4)
        assert [(m.text, m.offset) for m in got] == [("a", 40), ("b", 41), ("c", 42), ("d", 43)]
        assert subscriptions.starts == [None, {"offset": 42}, {"offset": 43}]
        assert driver("lagged", subscription) == ["2"]


def test_who_lags_before_the_first_message_reads_on_too(tmp_path, new_driver):
    subscriptions = Subscriptions([lagged(1, 9)], [events(b"a", offset=9)])
    with FakeBroker(tmp_path, subscriptions, OURS) as broker:
        driver = new_driver(broker)
        subscription = driver.subscribe("s", mode="callback")
        assert driver.event().offset == 9
        wait_until(lambda: driver("lagged", subscription) == ["1"], 10, "it is counted")


def test_without_resubscribing_a_lag_ends_it_and_tells_where_to_go_on(tmp_path, new_driver):
    with FakeBroker(tmp_path, Subscriptions([events(b"a", offset=40), lagged(1, 41)]), OURS) as broker:
        driver = new_driver(broker)
        subscription = driver.subscribe("s", mode="once")
        assert driver.event()[:3] == ["end", str(subscription), "LAGGED"]
        assert driver.next(subscription).offset == 40
        error = refusal(driver.next, subscription)
        assert error.code == "LAGGED" and "offset 41" in error.text
        assert driver.cursor() == (41, 41)
