"""libfelix against brokers that real ones of ours are not: old, odd, broken, or losing a stream."""

import base64
import struct

import pytest

from felix_testlib import frames
from felix_testlib.driver import Driver, DriverError
from felix_testlib.fake_broker import FakeBroker
from felix_testlib.slow import wait_until

OLD_OK = frames.message("ok")
FIRST_AUTH_OK = frames.message("auth_ok", server_flags=7)


@pytest.fixture
def new_driver(tmp_path):
    drivers = []

    def new(broker, **settings):
        home = tmp_path / f"driver{len(drivers)}"
        home.mkdir()
        drivers.append(Driver(home, request_timeout_ms=settings.pop("timeout_ms", 20000), **settings))
        return drivers[-1].connect(broker)

    yield new
    for driver in drivers:
        driver.stop()


def shared(*payloads, offset=None):
    """An event frame as brokers send it."""
    flags, prefix = frames.EVENT_SHARED, b""
    if offset is not None:
        flags, prefix = flags | frames.OFFSETS, struct.pack(">Q", offset)
    return frames.frame(flags, prefix + frames.items(payloads))


def ack(request_id, error=None):
    text = (error or "").encode()
    return frames.frame(
        frames.ACK, struct.pack(">BQH", 1 if error else 0, request_id, len(text)) + text
    )


def request_id(frame):
    return struct.unpack_from(">Q", frame.body)[0]


class Subscriptions:
    """Confirms each subscription, opens its event stream, and says `first` on it."""

    def __init__(self, first=b"", finish=False, hello_first=True):
        self.first, self.finish, self.hello_first = first, finish, hello_first
        self.requests, self.streams = [], []

    def __call__(self, stream, frame):
        message = frame.json()
        assert message["type"] == "subscribe"
        self.requests.append(message)
        number = len(self.requests)
        if not self.hello_first:
            stream.say(frames.message("subscribed", subscription_id=number))
        events = stream.connection.open_event_stream(number)
        self.streams.append(events)
        events.say(self.first)
        if self.hello_first:
            stream.say(frames.message("subscribed", subscription_id=number))
        stream.finish()
        if self.finish:
            events.finish()


def texts(messages):
    return [m.text for m in messages]


def refusal(call, *args, **words):
    with pytest.raises(DriverError) as error:
        call(*args, **words)
    return error.value


# ---- a reader that does not read


@pytest.mark.parametrize("size", [40000, 200000], ids=["half", "beyond"])
def test_large_frames_for_a_stuck_reader_stay_within_its_window(tmp_path, new_driver, size):
    subscriptions = Subscriptions()
    with FakeBroker(tmp_path, subscriptions) as broker:
        driver = new_driver(broker, event_stream_recv_window=65536)
        subscription = driver.subscribe("s")
        payloads = [str(i).encode() + b"." * size for i in range(20)]
        broker.do(subscriptions.streams[0].say, *map(shared, payloads))
        wait_until(lambda: driver.stats()["received"] > 0, 20, "the first frame came")
        for _ in range(200):
            driver("ping", 10000)
        assert driver.stats()["received"] <= 3
        got = driver.take(subscription, 20)
        assert [m.text for m in got] == [str(i) for i in range(20)]


# ---- the end of a stream


def test_a_deleted_stream_ends_its_subscription_after_the_last_message(tmp_path, new_driver):
    with FakeBroker(tmp_path, Subscriptions(shared(b"a", b"b"), finish=True)) as broker:
        driver = new_driver(broker)
        by_next = driver.subscribe("s")
        assert driver.event()[:3] == ["end", str(by_next), "CLOSED"]
        assert texts(driver.take(by_next, 2)) == ["a", "b"]
        assert refusal(driver.next, by_next).code == "CLOSED"
        by_callback = driver.subscribe("s", mode="callback")
        assert [driver.event().text, driver.event().text] == ["a", "b"]
        assert driver.event()[:3] == ["end", str(by_callback), "CLOSED"]


@pytest.mark.parametrize("hello_first", [True, False])
def test_hello_and_subscribed_may_come_in_either_order(tmp_path, new_driver, hello_first):
    with FakeBroker(tmp_path, Subscriptions(shared(b"a"), hello_first=hello_first)) as broker:
        driver = new_driver(broker)
        subscriptions = [driver.subscribe("s") for _ in range(5)]
        for subscription in subscriptions:
            assert driver.next(subscription).text == "a"


def test_a_lost_event_stream_is_asked_for_again_at_the_next_offset(tmp_path, new_driver):
    subscriptions = Subscriptions(shared(b"a", b"b", offset=40))
    with FakeBroker(tmp_path, subscriptions, frames.AUTH_OK) as broker:
        driver = new_driver(broker)
        subscription = driver.subscribe("s", start="earliest")
        assert [m.offset for m in driver.take(subscription, 2)] == [40, 41]
        subscriptions.first = shared(b"c", offset=42)
        broker.do(subscriptions.streams[0].reset)
        assert driver.next(subscription).offset == 42
        assert [r["start"] for r in subscriptions.requests] == ["earliest", {"offset": 42}]


@pytest.mark.parametrize("junk", [
    b"not a frame at all",
    frames.frame(frames.EVENT_SHARED, b"\x00\x00\x00\x05"),
    frames.frame(0x8000, b""),
    frames.frame(0, b"{"),
    frames.frame(frames.EVENT, struct.pack(">Q", 99) + frames.items([b"x"])),
    frames.frame(frames.EVENT_SHARED, b"", length=64 << 20),
], ids=["magic", "count", "flags", "json", "foreign_id", "too_large"])  # fmt: skip
def test_junk_on_an_event_stream_ends_that_subscription_only(tmp_path, new_driver, junk):
    subscriptions = Subscriptions(shared(b"good"))
    with FakeBroker(tmp_path, subscriptions) as broker:
        driver = new_driver(broker, event_conn_pool=1)
        bad, good = driver.subscribe("s"), driver.subscribe("s")
        assert driver.next(bad).text == "good"
        broker.do(subscriptions.streams[0].say, junk)
        end = driver.event()
        assert end[:2] == ["end", str(bad)] and end[2] != "CLOSED"
        assert refusal(driver.next, bad).code == end[2]
        broker.do(subscriptions.streams[1].say, shared(b"still"))
        assert texts(driver.take(good, 2)) == ["good", "still"]


def test_json_events_of_other_brokers_are_understood(tmp_path, new_driver):
    encoded = base64.b64encode(b"json").decode()
    names = {"tenant_id": "t1", "namespace": "default", "stream": "s"}
    first = frames.message("event", **names, payload=encoded, offset=7) + frames.message(
        "event_batch", **names, payloads=[encoded, encoded], base_offset=8
    )
    with FakeBroker(tmp_path, Subscriptions(first)) as broker:
        driver = new_driver(broker)
        got = driver.take(driver.subscribe("s"), 3)
        assert texts(got) == ["json"] * 3 and [m.offset for m in got] == [7, 8, 9]


# ---- refusals without a word


def test_a_refusal_without_a_word_is_asked_again_and_then_told(tmp_path, new_driver):
    asked = []

    def on_frame(stream, frame):
        asked.append(frame.json()["stream"])
        stream.finish()

    with FakeBroker(tmp_path, on_frame) as broker:
        driver = new_driver(broker)
        error = refusal(driver.subscribe, "s")
        assert error.code == "FORBIDDEN" and "without saying why" in error.text
        assert len(asked) > 1


# ---- publishes


def test_acknowledgements_may_come_in_any_order(tmp_path, new_driver):
    waiting = []

    def on_frame(stream, frame):
        waiting.append(request_id(frame))
        if len(waiting) == 10:
            stream.say(*(ack(i, "stream not found" if i % 2 else None) for i in reversed(waiting)))

    with FakeBroker(tmp_path, on_frame) as broker:
        driver = new_driver(broker)
        driver.pipeline("s", 10)
        assert driver.settle() == {"OK": 5, "NOT_FOUND": 5}


def test_a_publish_that_is_not_answered_times_out_and_a_late_answer_is_ignored(tmp_path, new_driver):
    late = []

    def on_frame(stream, frame):
        if late:
            stream.say(*(ack(i) for i in late), ack(request_id(frame)))
        late.append(request_id(frame))

    with FakeBroker(tmp_path, on_frame) as broker:
        driver = new_driver(broker, timeout_ms=200)
        assert refusal(driver.publish, "s").code == "TIMED_OUT"
        driver.publish("s")


def test_a_publish_stream_that_is_reset_leaves_outcomes_unknown_and_opens_again(tmp_path, new_driver):
    seen = []

    def on_frame(stream, frame):
        seen.append(stream)
        if len(seen) == 1:
            stream.reset()
        else:
            stream.say(ack(request_id(frame)))

    with FakeBroker(tmp_path, on_frame) as broker:
        driver = new_driver(broker)
        assert refusal(driver.publish, "s").code == "OUTCOME_UNKNOWN"
        driver.publish("s")
        assert seen[0].connection is seen[1].connection and seen[0].id != seen[1].id


def test_junk_instead_of_an_acknowledgement_leaves_the_outcome_unknown(tmp_path, new_driver):
    seen = []

    def on_frame(stream, frame):
        seen.append(frame)
        stream.say(frames.frame(frames.ACK, b"\x07") if len(seen) == 1 else ack(request_id(frame)))

    with FakeBroker(tmp_path, on_frame) as broker:
        driver = new_driver(broker)
        assert refusal(driver.publish, "s").code == "OUTCOME_UNKNOWN"
        driver.publish("s")


# ---- brokers of before


@pytest.mark.parametrize("auth_answer", [OLD_OK, FIRST_AUTH_OK], ids=["ok", "auth_ok_7"])
def test_a_broker_without_acknowledged_batches_is_published_to_as_json(
    tmp_path, new_driver, auth_answer
):
    seen = []

    def on_frame(stream, frame):
        message = frame.json()
        seen.append(message)
        stream.say(frames.message("publish_ok", request_id=message["request_id"]))

    with FakeBroker(tmp_path, on_frame, auth_answer) as broker:
        driver = new_driver(broker)
        driver.batch("s", 2, text="j", size=2)
        (message,) = seen
        assert message["type"] == "publish_batch" and message["ack"] == "per_batch"
        assert [base64.b64decode(p) for p in message["payloads"]] == [b"j0", b"j1"]
        assert refusal(driver, "keyed", "s", "message", "k", 8, "m").code == "UNSUPPORTED"
        assert refusal(driver.subscribe, "s", start="earliest").code == "UNSUPPORTED"
        assert refusal(driver.delete, "c", "k").code == "UNSUPPORTED"
        assert len(seen) == 1


# ---- cache


def test_cache_answers_are_matched_by_their_id(tmp_path, new_driver):
    waiting = []

    def on_frame(stream, frame):
        waiting.append((stream, frame.json()["request_id"]))
        if len(waiting) == 8:
            for s, i in reversed(waiting):
                s.say(frames.message("cache_ok", request_id=i))

    with FakeBroker(tmp_path, on_frame) as broker:
        driver = new_driver(broker)
        driver("cache_pipeline", "c", 8, 16, "k")
        assert driver.settle() == {"OK": 8}


class CacheFrames:
    """A broker that agreed on cache frames; `answer(stream, request)` is the test's."""

    def __init__(self, tmp_path, answer):
        self.answer, self.binds, self.requests = answer, [], []
        self.broker = FakeBroker(tmp_path, self.on_frame, frames.AUTH_OK_CACHE_FRAMES)

    def on_frame(self, stream, frame):
        request = frames.decode_cache_request(frame)
        if request.op == frames.BIND:
            self.binds.append((request.handle, *request.names))
            return
        self.requests.append(request)
        self.answer(stream, request)


def answer_alike(stream, request):
    if request.op == frames.PUT:
        stream.say(frames.cache_reply(frames.DONE, request.request_id))
    else:
        stream.say(frames.cache_reply(frames.VALUE, request.request_id, b"v"))


def test_cache_frames_bind_once_and_are_answered_in_any_order(tmp_path, new_driver):
    waiting = []

    def answer(stream, request):
        waiting.append((stream, request))
        if len(waiting) == 8:
            for s, r in reversed(waiting):
                answer_alike(s, r)

    peer = CacheFrames(tmp_path, answer)
    with peer.broker as broker:
        driver = new_driver(broker)
        driver("cache_pipeline", "c", 8, 16, "k")
        assert driver.settle() == {"OK": 8}
        assert peer.binds == [(0, "t1", "default", "c")]
        assert [r.key for r in peer.requests] == [f"k{i}" for i in range(8)]
        assert len({r.request_id for r in peer.requests}) == 8


def test_cache_frames_carry_values_of_any_size_and_their_ttl(tmp_path, new_driver):
    peer = CacheFrames(tmp_path, answer_alike)
    with peer.broker as broker:
        driver = new_driver(broker)
        for size in (0, 1, 8000, 9000, 40000, 1 << 20):
            driver.put("c", "k", text="v", size=size, ttl_ms=size)
            request = peer.requests.pop()
            assert len(request.value) == size
            assert request.ttl_ms == (size or None)


@pytest.mark.parametrize("key", ["k", "k" * 64, "k" * 65, "k" * 5000])
def test_a_framed_get_is_asked_again_after_a_loss_and_a_put_is_not(tmp_path, new_driver, key):
    def answer(stream, request):
        if len(peer.requests) in (1, 3):
            stream.reset()
        else:
            answer_alike(stream, request)

    peer = CacheFrames(tmp_path, answer)
    with peer.broker as broker:
        driver = new_driver(broker)
        assert driver.get("c", key).text == "v"
        assert refusal(driver.put, "c", key).code == "OUTCOME_UNKNOWN"
        driver.put("c", key)
        assert [r.op for r in peer.requests] == [frames.GET, frames.GET, frames.PUT, frames.PUT]
        assert {r.key for r in peer.requests} == {key}
        assert peer.binds == [(0, "t1", "default", "c")] * 3


def test_a_framed_get_is_asked_again_as_json_where_frames_are_not_spoken(tmp_path, new_driver):
    """The broker behind the address was replaced by an older one while a get was under way."""
    asked = []

    def on_frame(stream, frame):
        if frame.flags == 0:
            question = frame.json()
            asked.append(question)
            names = {n: question[n] for n in ("tenant_id", "namespace", "cache", "key", "request_id")}
            value = base64.b64encode(b"v").decode()
            stream.say(frames.message("cache_value", **names, value=value))
        elif frames.decode_cache_request(frame).op != frames.BIND:
            broker.auth_answer = OLD_OK
            stream.reset()

    with FakeBroker(tmp_path, on_frame, frames.AUTH_OK_CACHE_FRAMES) as broker:
        driver = new_driver(broker)
        for _ in range(2):
            assert driver.get("c", "k").text == "v"
        assert [a["tenant_id"] for a in asked] == ["t1", "t1"]
        assert asked[0]["request_id"] != asked[1]["request_id"]


@pytest.mark.parametrize("code, expected", [(2, "FORBIDDEN"), (3, "NOT_FOUND"), (11, "LIMIT"), (999, "INTERNAL")])
def test_a_refused_cache_frame_fails_alone(tmp_path, new_driver, code, expected):
    def answer(stream, request):
        if request.key == "bad":
            stream.say(frames.cache_reply(frames.REFUSED, request.request_id, b"the reason", code))
        else:
            answer_alike(stream, request)

    peer = CacheFrames(tmp_path, answer)
    with peer.broker as broker:
        driver = new_driver(broker)
        error = refusal(driver.put, "c", "bad")
        assert error.code == expected and "the reason" in str(error)
        driver.put("c", "good")
        assert len(peer.binds) == 1


def test_a_framed_miss_is_not_found(tmp_path, new_driver):
    peer = CacheFrames(tmp_path, lambda s, r: s.say(frames.cache_reply(frames.MISS, r.request_id)))
    with peer.broker as broker:
        driver = new_driver(broker)
        assert refusal(driver.get, "c", "k").code == "NOT_FOUND"
        assert refusal(driver.delete, "c", "k").code == "NOT_FOUND"
        assert refusal(driver.put, "c", "k").code == "PROTOCOL"


def done(request_id):
    return frames.cache_reply(frames.DONE, request_id)


@pytest.mark.parametrize(
    "reply",
    [
        lambda asked: done(0),
        lambda asked: done(2**64 - 1),
        lambda asked: done(1 << 24 | 63),
        lambda asked: done(asked + (1 << 24)),
        lambda asked: frames.frame(frames.CACHE, b"\0"),
        lambda asked: frames.cache_reply(4, asked),
        lambda asked: frames.frame(0x8000, b""),
    ],
)
def test_a_broken_cache_reply_costs_the_lane_and_nothing_more(tmp_path, new_driver, reply):
    def answer(stream, request):
        if len(peer.requests) == 1:
            stream.say(reply(request.request_id))
        else:
            answer_alike(stream, request)

    peer = CacheFrames(tmp_path, answer)
    with peer.broker as broker:
        driver = new_driver(broker)
        assert refusal(driver.put, "c", "k").code == "OUTCOME_UNKNOWN"
        driver.put("c", "k")
        assert len(peer.binds) == 2


def test_a_second_reply_to_one_request_costs_the_lane(tmp_path, new_driver):
    def answer(stream, request):
        if len(peer.requests) == 2:
            stream.say(done(peer.requests[0].request_id))
        answer_alike(stream, request)

    peer = CacheFrames(tmp_path, answer)
    with peer.broker as broker:
        driver = new_driver(broker)
        driver.put("c", "k")
        assert refusal(driver.put, "c", "k").code == "OUTCOME_UNKNOWN"
        driver.put("c", "k")


def test_framed_requests_without_an_answer_time_out_once_and_late_answers_are_ignored(tmp_path, new_driver):
    def answer(stream, request):
        if request.key == "last":
            stream.say(*(done(r.request_id) for r in peer.requests))

    peer = CacheFrames(tmp_path, answer)
    with peer.broker as broker:
        driver = new_driver(broker, timeout_ms=200)
        driver("cache_pipeline", "c", 2, 16, "k")
        assert driver.settle() == {"TIMED_OUT": 2}
        driver.put("c", "last")
        assert driver.settle() == {}
        assert len(peer.binds) == 1


def test_caches_beyond_the_handles_of_a_stream_go_by_json(tmp_path, new_driver):
    json_caches = []

    def on_frame(stream, frame):
        if frame.flags == frames.CACHE:
            peer.on_frame(stream, frame)
            return
        message = frame.json()
        json_caches.append(message["cache"])
        stream.say(frames.message("cache_ok", request_id=message["request_id"]))

    peer = CacheFrames(tmp_path, answer_alike)
    peer.broker.on_frame = on_frame
    with peer.broker as broker:
        driver = new_driver(broker)
        for i in range(258):
            driver.put(f"c{i}", "k")
        driver.put("c255", "k")
        assert [names[0] for names in peer.binds] == list(range(256))
        assert json_caches == ["c256", "c257"]
        assert len(peer.requests) == 257


def test_a_broker_that_does_not_offer_cache_frames_gets_json(tmp_path, new_driver):
    seen = []

    def on_frame(stream, frame):
        seen.append(frame.json()["type"])
        stream.say(frames.message("cache_ok", request_id=frame.json()["request_id"]))

    for answer in (OLD_OK, FIRST_AUTH_OK, frames.message("auth_ok", server_flags=127, felix_c=2)):
        (tmp_path / str(len(seen))).mkdir()
        with FakeBroker(tmp_path / str(len(seen)), on_frame, answer) as broker:
            new_driver(broker).put("c", "k")
    assert seen == ["cache_put"] * 3


def test_a_get_is_asked_again_after_a_loss_and_a_put_is_not(tmp_path, new_driver):
    seen = []

    def on_frame(stream, frame):
        message = frame.json()
        seen.append(message["type"])
        if len(seen) in (1, 3):
            stream.reset()
        elif message["type"] == "cache_get":
            value = base64.b64encode(b"v").decode()
            members = {n: message[n] for n in ("tenant_id", "namespace", "cache", "key")}
            stream.say(frames.message("cache_value", **members, value=value,
                                      request_id=message["request_id"]))  # fmt: skip
        else:
            stream.say(frames.message("cache_ok", request_id=message["request_id"]))

    with FakeBroker(tmp_path, on_frame) as broker:
        driver = new_driver(broker)
        assert driver.get("c", "k").text == "v"
        assert refusal(driver.put, "c", "k").code == "OUTCOME_UNKNOWN"
        driver.put("c", "k")
        assert seen == ["cache_get", "cache_get", "cache_put", "cache_put"]


# ---- connecting


@pytest.mark.parametrize("answer", [
    frames.message("error", message="auth failed"),
    frames.message("error", message="auth failed", code="unauthenticated", retry="fatal"),
], ids=["words", "code"])  # fmt: skip
def test_a_refused_auth_ends_the_connect_at_once(tmp_path, new_driver, answer):
    with FakeBroker(tmp_path, lambda *_: None, answer) as broker:
        assert refusal(new_driver, broker).code == "UNAUTHENTICATED"


def test_a_broker_that_is_busy_with_auth_is_tried_again(tmp_path, new_driver):
    answers = [frames.message("error", message="busy", code="overloaded", retry="retry_after")]
    asked = []

    class Busy(FakeBroker):
        def handle(self, stream, frame):
            asked.append(frame)
            self.auth_answer = answers.pop() if answers else frames.AUTH_OK
            super().handle(stream, frame)

    with Busy(tmp_path, lambda *_: None) as broker:
        new_driver(broker)
        wait_until(lambda: len(asked) >= 2, 10, "asked again")
