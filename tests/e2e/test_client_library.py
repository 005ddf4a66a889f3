"""libfelix against real brokers: what felix.h promises, from a C program that does as it is told."""

import itertools
import os
import socket
import subprocess
import threading
import time

import pytest

from felix_testlib import client as clients
from felix_testlib.broker import Broker, environment
from felix_testlib.driver import Driver, DriverError, built
from felix_testlib.relay import Relay
from felix_testlib.slow import scaled, wait_until

NS = clients.NAMESPACE


@pytest.fixture
def new_driver(tmp_path):
    drivers, numbers = [], itertools.count()

    def new(env=None, **settings):
        home = tmp_path / f"d{next(numbers)}"
        home.mkdir()
        drivers.append(Driver(home, env=env, **settings))
        return drivers[-1]

    yield new
    problems = []
    for driver in drivers:
        try:
            driver.stop()
        except AssertionError as e:
            problems.append(str(e))
    assert not problems, "\n".join(problems)


@pytest.fixture
def driver(broker, new_driver):
    """One that is connected to the module's broker."""
    return new_driver().connect(broker)


def texts(messages):
    return [m.text for m in messages]


def run_of(text, count):
    return [f"{text}{i}" for i in range(count)]


def refusal(call, *args, **words):
    with pytest.raises(DriverError) as error:
        call(*args, **words)
    return error.value


# ---- connecting


def test_a_development_broker_is_found_without_a_word(start_broker, new_driver, name):
    broker = start_broker()
    driver = new_driver(env={"FELIX_DATA_DIR": broker.data_dir, "FELIX_SERVER": broker.address})
    driver("connect", 20000)
    driver.publish(name)


def test_connections_open_on_demand_up_to_the_pools_sizes(start_broker, new_driver, name):
    broker = start_broker()
    driver = new_driver(pub_conn_pool=2, event_conn_pool=3, event_conn_subscriptions=2,
                        cache_conn_pool=2, cache_streams_per_conn=1).connect(broker)  # fmt: skip
    assert broker.metric("felix_connections") == 1
    for i in range(40):
        driver.publish(f"{name}-{i}")
    assert broker.metric("felix_connections") == 2
    for subscriptions, connections in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (7, 3)):
        driver.subscribe(f"{name}-{subscriptions}")
        assert broker.metric("felix_connections") == 2 + connections
    driver("cache_pipeline", "c", 2000, 64, name)
    assert driver.settle() == {"OK": 2000}
    assert broker.metric("felix_connections") == 2 + 3 + 2
    stats = driver.stats()
    assert (stats["connections"], stats["connects"], stats["reconnects"]) == (7, 7, 0)
    driver.close()
    wait_until(lambda: broker.metric("felix_connections") == 0, 10, "connections are gone")


def test_nobody_at_the_address_is_said_at_once(new_driver, broker):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    driver = new_driver().use(broker)
    driver.set("server", f"127.0.0.1:{port}")
    error = refusal(driver, "connect", 20000, seconds=10)
    assert error.code == "NOT_CONNECTED" and str(port) in error.text


def test_silence_at_the_address_is_a_timeout(new_driver, broker):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        driver = new_driver().use(broker)
        driver.set("server", f"127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert refusal(driver, "connect", 300, seconds=10).code == "TIMED_OUT"
        assert 0.3 <= time.monotonic() - started < scaled(5)


def test_a_foreign_certificate_is_a_tls_error(new_driver, broker, tmp_path):
    from felix_testlib import tokens

    driver = new_driver().use(broker)
    driver.set("ca_file", tokens.write_certificate(tmp_path)[0])
    assert refusal(driver, "connect", 20000).code == "TLS"
    # The same client may try again with better settings.
    driver.set("ca_file", broker.ca)
    driver("connect", 20000)


def test_a_certificate_for_another_name_is_a_tls_error(new_driver, broker):
    driver = new_driver().use(broker)
    driver.set("server_name", "elsewhere.example")
    assert refusal(driver, "connect", 20000).code == "TLS"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_server_is_named_or_numbered(start_broker, new_driver, name, host):
    if host == "::1" and not ipv6_works():
        pytest.skip("this machine has no IPv6")
    bracketed = f"[{host}]" if ":" in host else host
    broker = start_broker(quic_bind=f"{'127.0.0.1' if host == 'localhost' else bracketed}:0")
    driver = new_driver().use(broker)
    driver.set("server", f"{bracketed}:{broker.port}")
    driver("connect", 20000)
    driver.publish(name)


def ipv6_works():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


def test_a_missing_certificate_file_is_named(new_driver, broker):
    driver = new_driver().use(broker)
    driver.set("ca_file", "/nowhere/ca.pem")
    error = refusal(driver, "connect", 20000)
    assert error.code == "SYSTEM" and "/nowhere/ca.pem" in error.text


def test_a_ping_takes_less_than_the_call(driver):
    started = time.monotonic_ns()
    (round_trip_ns,) = driver("ping", 10000)
    assert 0 < int(round_trip_ns) < time.monotonic_ns() - started


@pytest.mark.parametrize("wrong", ["rubbish", "expired", "foreign_key", "other_tenant"])
def test_a_refused_token_is_unauthenticated(new_driver, scope, wrong):
    from felix_testlib import tokens

    now = int(time.time())
    token = {
        "rubbish": "not.a.token",
        "expired": scope.token(iat=now - 7200, exp=now - 3600),
        "foreign_key": tokens.Issuer("t1").token(),
        "other_tenant": scope.token("t2"),
    }[wrong]
    driver = new_driver().use(scope.broker, "t1", token)
    error = refusal(driver, "connect", 20000)
    assert error.code == "UNAUTHENTICATED" and "127.0.0.1" in error.text, error


def test_a_renewed_token_file_is_read_by_the_next_stream(new_driver, scope, tmp_path):
    path = tmp_path / "token"
    path.write_text(scope.token() + "\n")
    driver = new_driver(event_conn_pool=1).use(scope.broker, "t1", "unused")
    driver.set("token_file", path)
    driver("connect", 20000)
    driver.subscribe("orders")
    path.write_text("not.a.token")
    assert refusal(driver.subscribe, "orders").code == "UNAUTHENTICATED"
    assert refusal(driver.put, "sessions", "k").code == "UNAUTHENTICATED"
    path.write_text(scope.token())
    driver.subscribe("orders")
    driver.put("sessions", "k")
    # For as long as there is no file, the last token has to do.
    path.unlink()
    driver.subscribe("orders")


# ---- publish and subscribe


@pytest.mark.parametrize("ack", ["none", "message", "batch"])
@pytest.mark.parametrize("how", ["publish", "batch", "pipeline"])
def test_every_ack_mode_delivers_in_order(driver, name, ack, how):
    subscription = driver.subscribe(name)
    if how == "batch":
        driver.batch(name, 20, ack=ack)
    elif how == "pipeline":
        driver.pipeline(name, 20, ack=ack)
        assert driver.settle() == {"OK": 20}
    else:
        driver.publish(name, ack=ack, count=20)
    assert texts(driver.take(subscription, 20)) == run_of("m", 20)


def test_ten_thousand_messages_arrive_in_order_by_callback(driver, name):
    subscription = driver.subscribe(name, mode="callback")
    driver.pipeline(name, 10000, size=64)
    assert texts(driver.event() for _ in range(10000)) == run_of("m", 10000)
    assert driver.settle() == {"OK": 10000}
    driver("unsubscribe", subscription)


def test_ten_thousand_messages_arrive_in_order_by_next(driver, name):
    subscription = driver.subscribe(name)
    driver.pipeline(name, 10000, ack="none", size=64)
    assert texts(driver.take(subscription, 10000)) == run_of("m", 10000)
    assert driver.settle() == {"OK": 10000}


@pytest.mark.parametrize("size", [0, 1, 65536, 3 << 20])
def test_sizes_from_empty_to_three_megabytes(driver, name, size):
    by_next = driver.subscribe(name)
    driver.subscribe(name, mode="callback")
    driver.publish(name, count=2, size=size)
    for message in [*driver.take(by_next, 2), driver.event(), driver.event()]:
        assert message.size == size and message.text in ("m0"[:size], "m1"[:size])


def test_what_exceeds_the_frame_limit_is_refused_and_harms_nothing(broker, new_driver, name):
    driver = new_driver(max_frame_bytes=4096).connect(broker)
    assert refusal(driver.publish, name, size=5000).code == "TOO_LARGE"
    assert refusal(driver.put, "c", name, size=5000).code == "TOO_LARGE"
    driver.publish(name, size=3000)
    driver.put("c", name, size=2000)


def test_a_keyed_publish_is_delivered(driver, name):
    subscription = driver.subscribe(name)
    driver("keyed", name, "message", "some-key", 32, "k")
    assert driver.next(subscription).text == "k0"


def test_starts_earliest_latest_and_at_an_offset(driver, name):
    driver.publish(name, count=10)
    earliest = driver.subscribe(name, start="earliest")
    seventh = driver.subscribe(name, start=7)
    latest = driver.subscribe(name, start="latest")
    driver.publish(name, text="n")
    got = driver.take(earliest, 11)
    assert texts(got) == run_of("m", 10) + ["n0"]
    # Replayed messages of a stream in memory have an offset, live ones have none.
    assert [m.offset for m in got] == [*range(10), None]
    assert texts(driver.take(seventh, 4)) == ["m7", "m8", "m9", "n0"]
    assert texts(driver.take(latest, 1)) == ["n0"]


def test_cursor_errors_name_what_is_available(start_broker, new_driver, name):
    broker = start_broker(env={"FELIX_REPLAY_ITEMS": "10"})
    driver = new_driver().connect(broker)
    driver.publish(name, count=100)
    error = refusal(driver.subscribe, name, start=1000)
    assert error.code == "CURSOR_IN_FUTURE" and "1000" in error.text and "100" in error.text
    oldest = driver.next(driver.subscribe(name, start="earliest")).offset
    assert oldest > 0
    error = refusal(driver.subscribe, name, start=0)
    assert error.code == "CURSOR_TOO_OLD" and str(oldest) in error.text


def test_next_times_out_and_goes_on(driver, name):
    subscription = driver.subscribe(name)
    assert refusal(driver, "next", subscription, 30).code == "TIMED_OUT"
    assert refusal(driver, "next", subscription, 0).code == "TIMED_OUT"
    driver.publish(name)
    assert driver.next(subscription).text == "m0"


def test_unsubscribe_ends_it_at_the_broker(start_broker, new_driver, name):
    broker = start_broker()
    driver = new_driver().connect(broker)
    subscriptions = [driver.subscribe(name, mode=mode) for mode in ("next", "callback")]
    assert broker.metric("felix_subscriptions") == 2
    for subscription in subscriptions:
        driver("unsubscribe", subscription)
    wait_until(lambda: broker.metric("felix_subscriptions") == 0, 10, "subscriptions are gone")


def test_sixty_subscriptions_of_one_client_each_get_everything(driver, name):
    subscriptions = [driver.subscribe(name) for _ in range(60)]
    driver.publish(name, count=20)
    for subscription in subscriptions:
        assert texts(driver.take(subscription, 20)) == run_of("m", 20)


def test_a_reader_that_is_stuck_lets_go_of_its_connection_when_it_leaves(broker, new_driver, name):
    settings = {"event_stream_recv_window": 65536, "event_conn_recv_window": 65536}
    driver = new_driver(event_conn_pool=1, **settings).connect(broker)
    for _ in range(3):
        stuck = driver.subscribe(name)
        before = driver.stats()["bytes_in"]
        driver.publish(name, count=100, size=10000)
        wait_until(lambda: driver.stats()["bytes_in"] - before > 50000, 20, "its window is full")
        driver("unsubscribe", stuck)
        other = driver.subscribe(name + "-other")
        driver.publish(name + "-other", size=60000, count=3)
        assert len(driver.take(other, 3)) == 3
        driver("unsubscribe", other)


def test_large_frames_for_many_subscriptions_pass_a_small_window(broker, new_driver, name):
    """The first halves of ten frames fill the window: each has to get its second half all the same."""
    settings = {"event_stream_recv_window": 65536, "event_conn_recv_window": 65536}
    driver = new_driver(event_conn_pool=1, **settings).connect(broker)
    subscriptions = [driver.subscribe(name) for _ in range(10)]
    for _ in range(4):
        driver.batch(name, 8, size=8000)
    for subscription in subscriptions:
        assert len(driver.take(subscription, 32)) == 32


def test_a_reader_that_is_stuck_keeps_nothing_from_its_neighbours(broker, new_driver, name):
    settings = {"event_stream_recv_window": 65536, "event_conn_recv_window": 65536}
    driver = new_driver(event_conn_pool=1, **settings).connect(broker)
    for i in range(3):
        driver.subscribe(f"{name}-stuck")
    driver.publish(f"{name}-stuck", count=100, size=10000)
    reader = driver.subscribe(name)
    driver.publish(name, count=100, size=10000)
    assert len(driver.take(reader, 100)) == 100


def test_flush_returns_when_everything_was_answered(driver, name):
    driver.pipeline(name, 2000, size=512)
    driver.flush()
    # So the answers are there without waiting.
    assert driver.settle(0) == {"OK": 2000}


def test_a_full_pipeline_makes_threads_wait_and_loses_nothing(broker, new_driver, name):
    driver = new_driver(publish_inflight_bytes=4096).connect(broker)
    subscription = driver.subscribe(name)
    driver.pipeline(name, 500, size=512)
    assert driver.settle() == {"OK": 500}
    assert texts(driver.take(subscription, 500)) == run_of("m", 500)


def test_a_full_pipeline_refuses_callbacks_instead_of_blocking(broker, new_driver, name):
    driver = new_driver(publish_inflight_bytes=4096).connect(broker)
    copy = driver.subscribe(name + "-copy")
    driver.subscribe(name, mode="echo", target=name + "-copy")
    new_driver().connect(broker).batch(name, 100, size=512)
    counts = wait_for_echoes(driver, 100)
    assert counts["WOULD_BLOCK"] > 0 and counts["OK"] > 0
    assert len(driver.take(copy, counts["OK"])) == counts["OK"]


def wait_for_echoes(driver, count):
    """The tally once `count` answers to echoes came."""
    counts = {}

    def all_came():
        for code, n in driver.settle().items():
            counts[code] = counts.get(code, 0) + n
        return sum(counts.values()) == count

    wait_until(all_came, 20, f"{count} echoes")
    return counts


def test_a_callback_may_publish(driver, name):
    copy = driver.subscribe(name + "-copy")
    driver.subscribe(name, mode="echo", target=name + "-copy")
    driver.publish(name, count=100)
    assert texts(driver.take(copy, 100)) == run_of("m", 100)
    assert wait_for_echoes(driver, 100) == {"OK": 100}


def test_what_would_block_in_a_callback_is_refused_there(driver, name):
    driver.subscribe(name, mode="misuse")
    driver.publish(name)
    line = driver.event()
    assert [word.split("=")[1] for word in line[3:]] == ["INVALID_ARGUMENT"] * 5, line


# ---- queue policies


def fill(driver, name, policy, queue_max=10):
    """Forty messages for a queue of ten that nobody reads, one frame each."""
    subscription = driver.subscribe(name, policy=policy, queue_max=queue_max)
    before = driver.stats()["received"]
    driver.publish(name, count=40)
    wait_until(lambda: driver.stats()["received"] - before == 40, 20, "40 messages came")
    return subscription


def test_drop_new_keeps_the_oldest_and_counts(driver, name):
    subscription = fill(driver, name, "drop_new")
    assert driver("dropped", subscription) == ["30"]
    assert texts(driver.take(subscription, 10)) == run_of("m", 10)
    assert driver.stats()["receive_dropped"] == 30
    driver.publish(name, text="after")
    assert driver.next(subscription).text == "after0"


def test_drop_old_keeps_the_newest_and_counts(driver, name):
    subscription = fill(driver, name, "drop_old")
    assert driver("dropped", subscription) == ["30"]
    assert texts(driver.take(subscription, 10)) == run_of("m", 40)[30:]
    assert driver.stats()["receive_dropped"] == 30


def test_block_loses_nothing_and_holds_the_broker_back(broker, new_driver, name):
    """A queue of 64 KiB of window, four megabytes for it: the rest waits at the broker."""
    settings = {"event_stream_recv_window": 65536, "event_conn_recv_window": 65536}
    driver = new_driver(**settings).connect(broker)
    subscription = driver.subscribe(name)
    driver.publish(name, count=400, size=10000, ack="none")
    driver.flush()
    got = driver.take(subscription, 400)
    assert texts(got) == run_of("m", 400)
    assert all(m.size == 10000 for m in got)
    assert driver("dropped", subscription) == ["0"]


# ---- cache


def test_cache_put_get_delete_and_miss(driver, name):
    assert refusal(driver.get, "c", name).code == "NOT_FOUND"
    driver.put("c", name, text="v")
    assert driver.get("c", name).text == "v0"
    driver.put("c", name, text="w", size=3 << 20)
    value = driver.get("c", name)
    assert value.text == "w0" and value.size == 3 << 20
    assert driver.delete("c", name).text == "w0"
    assert refusal(driver.delete, "c", name).code == "NOT_FOUND"
    assert refusal(driver.get, "c", name).code == "NOT_FOUND"


def test_an_empty_value_is_no_miss(driver, name):
    driver.put("c", name, size=0)
    assert driver.get("c", name).size == 0


def test_a_value_expires(driver, name):
    driver.put("c", name, ttl_ms=50)

    def gone():
        try:
            driver.get("c", name)
            return False
        except DriverError as e:
            return e.code == "NOT_FOUND"

    wait_until(gone, 10, "expiry")


def test_thousands_of_cache_requests_at_once_are_each_answered(driver, name):
    driver("cache_pipeline", "c", 5000, 100, name)
    assert driver.settle() == {"OK": 5000}
    assert driver.get("c", f"{name}4999").text == f"{name}4999"
    assert driver.stats()["cache_requests"] == 5001


# ---- refusals


def test_unknown_streams_and_caches_are_not_found(new_driver, scope):
    driver = new_driver().connect(scope.broker, "t1", scope.token())
    for call in (
        lambda: driver.publish("nowhere"),
        lambda: driver.subscribe("nowhere"),
        lambda: driver.get("nowhere", "k"),
        lambda: driver.put("nowhere", "k"),
        lambda: driver.delete("nowhere", "k"),
    ):
        error = refusal(call)
        assert error.code == "NOT_FOUND" and "nowhere" in error.text, error
    driver.publish("orders")


def test_what_is_not_granted_is_forbidden(new_driver, scope):
    token = scope.token(perms=["stream.publish:stream:t1/default/orders"])
    driver = new_driver().connect(scope.broker, "t1", token)
    for call in (
        lambda: driver.publish("other"),
        lambda: driver.subscribe("orders"),
        lambda: driver.get("sessions", "k"),
        lambda: driver.put("sessions", "k"),
        lambda: driver.delete("sessions", "k"),
    ):
        assert refusal(call).code == "FORBIDDEN"
    driver.publish("orders")


def test_refused_publishes_of_a_pipeline_are_told_one_by_one(new_driver, scope):
    driver = new_driver().connect(scope.broker, "t1", scope.token())
    driver.pipeline("nowhere", 50)
    assert driver.settle() == {"NOT_FOUND": 50}
    assert driver.stats()["publish_failed"] == 50


# ---- reconnecting


class Restart:
    """A broker that is killed and started again at the same address with the same data."""

    def __init__(self, directory):
        self.directory = directory
        self.env = {"FELIX_REPLAY_ITEMS": "100000"}
        self.dead = False
        self.broker = Broker(directory, env=self.env)
        self.bind = self.broker.address

    def kill(self):
        self.broker.kill()
        self.dead = True

    def start(self):
        self.dead = False
        self.broker = Broker(self.directory, env=self.env, quic_bind=self.bind)


@pytest.fixture
def restart(tmp_path):
    r = Restart(tmp_path / "restart")
    yield r
    if r.dead:  # the test failed in between
        r.broker.judge()
    else:
        r.broker.stop()


def test_publishes_in_flight_when_the_broker_dies_have_an_unknown_outcome(restart, new_driver, name):
    driver = new_driver().connect(restart.broker)
    driver.publish(name)
    restart.broker.pause()
    driver.pipeline(name, 100)
    wait_until(lambda: sent_all(driver), 10, "the frames are on the network")
    restart.kill()
    counts = driver.settle()
    assert counts == {"OUTCOME_UNKNOWN": 100}
    restart.start()
    driver.publish(name, text="after", count=3)
    assert driver.stats()["reconnects"] >= 1


def sent_all(driver):
    """Nothing leaves any more but what is sent again."""
    before = driver.stats()["datagrams_out"]
    time.sleep(0.02)
    return driver.stats()["datagrams_out"] - before <= 1


def test_flush_and_ping_of_a_silent_broker_end_in_time(restart, new_driver, name):
    driver = new_driver().connect(restart.broker)
    driver.publish(name)
    restart.broker.pause()
    driver.pipeline(name, 5)
    assert refusal(driver, "flush", 100).code == "TIMED_OUT"
    assert refusal(driver, "ping", 100).code == "TIMED_OUT"
    restart.broker.resume()
    driver.flush()
    assert driver.settle(0) == {"OK": 5}


@pytest.mark.parametrize("ack", ["message", "none"])
def test_a_pipeline_across_a_restart_loses_only_what_was_unanswered(restart, new_driver, name, ack):
    """What reaches the second broker is one run without a gap, up to the last message."""
    driver = new_driver(publish_inflight_bytes=1 << 20).connect(restart.broker)
    subscription = driver.subscribe(name)
    count = 20000
    driver.send("pipeline", name, ack, count, 1000, "m")
    wait_until(lambda: restart.broker.metric("felix_publish_items_total") > 100, 20, "it flows")
    restart.kill()
    restart.start()
    driver.finish()
    driver.flush()
    counts = driver.settle()
    assert sum(counts.values()) == count and set(counts) <= {"OK", "OUTCOME_UNKNOWN"}, counts
    driver("unsubscribe", subscription)
    got = driver.take(driver.subscribe(name, start="earliest"), 1)
    driver.publish(name, text="end")
    last = count - 1
    first = int(got[0].text[1:])
    assert first > 0, "the first broker had nothing"
    rest = texts(driver.take(0, last - first + 1))
    assert rest == [f"m{i}" for i in range(first + 1, count)] + ["end0"]


def test_publishes_that_were_not_sent_yet_survive_the_restart(restart, new_driver, name):
    driver = new_driver().connect(restart.broker)
    driver.publish(name)
    restart.kill()
    wait_until(lambda: driver.stats()["connections"] == 0, 30, "the loss is noticed")
    driver.pipeline(name, 100)
    restart.start()
    assert driver.settle() == {"OK": 100}
    assert texts(driver.take(driver.subscribe(name, start="earliest"), 100)) == run_of("m", 100)


def test_a_live_subscription_comes_back_after_a_restart(restart, new_driver, name):
    # The keep-alive notices it: a quiet subscription sends nothing else.
    driver = new_driver(keep_alive_ms=200, event_conn_subscriptions=1).connect(restart.broker)
    by_next = driver.subscribe(name)
    driver.subscribe(name, mode="callback")
    driver.publish(name, text="before")
    assert driver.next(by_next).text == "before0"
    assert driver.event().text == "before0"
    restart.kill()
    restart.start()
    wait_until(lambda: restart.broker.metric("felix_subscriptions") == 2, 30, "subscribed again")
    wait_until(lambda: restart.broker.metric("felix_connections") >= 3, 30, "publishing is back too")
    driver.publish(name, text="after", count=5)
    assert texts(driver.take(by_next, 5)) == run_of("after", 5)
    assert texts(driver.event() for _ in range(5)) == run_of("after", 5)


def test_a_subscription_that_wants_no_resubscribing_ends_with_the_connection(
    restart, new_driver, name
):
    driver = new_driver(keep_alive_ms=200).connect(restart.broker)
    subscription = driver.subscribe(name, mode="once")
    driver.publish(name)
    wait_until(lambda: driver.stats()["received"] == 1, 20, "the message is here")
    restart.kill()
    restart.start()
    assert driver.event()[:3] == ["end", str(subscription), "NOT_CONNECTED"]
    # What came before the loss is still there.
    assert driver.next(subscription).text == "m0"
    assert refusal(driver.next, subscription).code == "NOT_CONNECTED"


def test_the_cache_works_again_after_a_restart(restart, new_driver, name):
    driver = new_driver().connect(restart.broker)
    driver.put("c", name)
    restart.kill()
    restart.start()
    assert refusal(driver.get, "c", name).code == "NOT_FOUND"
    driver.put("c", name, text="after")
    assert driver.get("c", name).text == "after0"


def test_what_timed_out_unsent_keeps_its_room_until_it_is_sent(restart, new_driver, name):
    driver = new_driver(request_timeout_ms=int(scaled(500)), publish_inflight_bytes=20000).connect(restart.broker)
    driver.publish(name)
    restart.kill()
    wait_until(lambda: driver.stats()["connections"] == 0, 30, "the loss is noticed")
    for _ in range(2):
        driver.pipeline(name, 1, size=8000)
        assert driver.settle() == {"TIMED_OUT": 1}
    assert refusal(driver.pipeline, name, 1, size=8000).code == "TIMED_OUT"
    restart.start()
    wait_until(lambda: restart.broker.metric("felix_publish_items_total") == 2, 30, "both were sent")
    driver.publish(name, size=16000)


def test_a_dead_broker_is_a_timeout_and_no_hang(restart, new_driver, name):
    driver = new_driver(request_timeout_ms=500).connect(restart.broker)
    driver.publish(name)
    driver.put("c", name)
    restart.kill()
    assert refusal(driver.publish, name).code in ("TIMED_OUT", "OUTCOME_UNKNOWN")
    assert refusal(driver.get, "c", name).code == "TIMED_OUT"
    assert refusal(driver.subscribe, name).code == "TIMED_OUT"
    restart.start()


def test_a_lost_connection_resumes_at_the_next_offset(broker, new_driver, name):
    """The network goes away, not the broker: nothing that was published meanwhile is missed."""
    with Relay(broker.port) as relay:
        reader = new_driver(idle_timeout_ms=1000, keep_alive_ms=200).use(broker)
        reader.set("server", f"127.0.0.1:{relay.port}")
        reader("connect", 20000)
        writer = new_driver().connect(broker)
        writer.publish(name, count=5)
        by_next = reader.subscribe(name, start="earliest")
        reader.subscribe(name, start="earliest", mode="callback")
        assert texts(reader.take(by_next, 5)) == run_of("m", 5)
        relay.cut()
        wait_until(lambda: reader.stats()["connections"] == 0, 20, "the loss is noticed")
        writer.publish(name, text="missed", count=5)
        relay.mend()
        got = reader.take(by_next, 5)
        assert texts(got) == run_of("missed", 5)
        assert [m.offset for m in got] == list(range(5, 10))
        assert texts(reader.event() for _ in range(10)) == run_of("m", 5) + run_of("missed", 5)
        assert reader.stats()["reconnects"] >= 1


# ---- closing


@pytest.mark.parametrize("ack", ["none", "message"])
@pytest.mark.parametrize("how", ["close", "close_elsewhere"])
def test_close_sends_everything_that_is_queued(driver, new_driver, broker, name, ack, how):
    watcher = new_driver().connect(broker)
    subscription = watcher.subscribe(name)
    driver.pipeline(name, 3000, ack=ack, size=1000)
    driver(how, 30000)
    assert driver.settle(0) == {"OK": 3000}
    assert texts(watcher.take(subscription, 3000)) == run_of("m", 3000)


def test_close_without_time_answers_what_did_not_finish(restart, new_driver, name):
    driver = new_driver().connect(restart.broker)
    driver.publish(name)
    restart.broker.pause()
    driver.pipeline(name, 50)
    driver("close", 100, seconds=10)
    restart.broker.resume()
    assert driver.settle(0) == {"CLOSED": 50}


def test_close_after_the_broker_died_takes_no_longer_than_it_may(restart, new_driver, name):
    driver = new_driver().connect(restart.broker)
    driver.publish(name)
    driver.subscribe(name, mode="callback")
    driver.put("c", name)
    restart.kill()
    driver.pipeline(name, 10)
    started = time.monotonic()
    driver("close", 200, seconds=10)
    assert time.monotonic() - started < scaled(5)
    counts = driver.settle(0)
    assert sum(counts.values()) == 10 and set(counts) <= {"CLOSED", "OUTCOME_UNKNOWN"}
    assert driver.event()[2] == "CLOSED"
    restart.start()


def test_a_connection_lost_while_closing_ends_its_subscription_as_closed(restart, new_driver, name):
    driver = new_driver(event_conn_pool=1, keep_alive_ms=100).connect(restart.broker)
    driver.publish(name)
    subscription = driver.subscribe(name)
    restart.broker.pause()
    driver.pipeline(name, 10)
    driver.send("close", 3000)
    restart.kill()
    assert driver.event()[:3] == ["end", str(subscription), "CLOSED"]
    driver.finish()
    assert sum(driver.settle(0).values()) == 10
    restart.start()


def test_close_ends_subscriptions_and_tells_them(driver, name):
    by_next = driver.subscribe(name)
    callback = driver.subscribe(name, mode="callback")
    driver.publish(name)
    assert driver.event().text == "m0"
    wait_until(lambda: driver.stats()["received"] == 2, 20, "both have the message")
    driver.close()
    ends = sorted(driver.event()[:3] for _ in range(2))
    assert ends == sorted([["end", str(by_next), "CLOSED"], ["end", str(callback), "CLOSED"]])
    # What was received may still be taken.
    assert driver.next(by_next).text == "m0"
    assert refusal(driver.next, by_next).code == "CLOSED"


def test_a_draining_broker_costs_no_acknowledged_publish(restart, new_driver, name):
    driver = new_driver().connect(restart.broker)
    driver.publish(name)
    restart.broker.stop()
    restart.start()
    driver.publish(name, text="after", count=3)
    assert texts(driver.take(driver.subscribe(name, start="earliest"), 3)) == run_of("after", 3)


# ---- threads


def test_many_threads_publish_on_one_client_each_in_its_order(driver, name):
    subscription = driver.subscribe(name)
    driver("publish_threads", name, 8, 200, 64)
    got = texts(driver.take(subscription, 1600))
    for thread in range(8):
        mine = [t for t in got if t.startswith(f"t{thread}-")]
        assert mine == run_of(f"t{thread}-", 200)


@pytest.mark.parametrize("caller_io", [1, 0])
def test_many_threads_do_everything_on_one_client(new_driver, broker, name, caller_io):
    driver = new_driver(caller_io=caller_io).connect(broker)
    driver.subscribe(name, mode="callback")
    driver("mixed_threads", name, 6, 60, seconds=60)
    assert len([driver.event() for _ in range(360)]) == 360


def test_what_arrives_while_a_thread_waits_is_handed_over_on_that_thread(driver, name):
    assert int(driver("callback_threads", name, 200)[0]) >= 20


def test_with_caller_io_off_callbacks_run_on_the_background_thread(new_driver, broker, name):
    driver = new_driver(caller_io=0).connect(broker)
    assert driver("callback_threads", name, 200) == ["0"]


@pytest.mark.parametrize("caller_io", [1, 0])
def test_closing_tells_every_thread_that_waits_for_messages(new_driver, broker, name, caller_io):
    driver = new_driver(caller_io=caller_io).connect(broker)
    assert driver("close_under_readers", name, 4) == ["4"]


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_unsubscribing_while_on_end_runs_waits_for_it(driver, name, where):
    assert driver("unsubscribe_at_the_end", name, where) == ["over"]


def test_several_reactors_serve_one_client(start_broker, new_driver, name):
    broker = start_broker(env={"FELIX_CORE_SHARDS": "3"})
    driver = new_driver().connect(broker)
    streams = [f"{name}-{i}" for i in range(8)]
    subscriptions = [driver.subscribe(s) for s in streams]
    for stream in streams:
        driver.pipeline(stream, 200, text=stream + "/")
    assert driver.settle() == {"OK": 1600}
    for stream, subscription in zip(streams, subscriptions):
        assert texts(driver.take(subscription, 200)) == run_of(stream + "/", 200)
    driver("cache_pipeline", "c", 500, 64, name)
    assert driver.settle() == {"OK": 500}
    for i in range(0, 500, 50):
        assert driver.get("c", f"{name}{i}").text == f"{name}{i}"


# ---- with the published Python client


def test_python_publishes_and_c_receives(driver, broker, name):
    subscription = driver.subscribe(name)
    with clients.connect(broker) as python:
        for i in range(100):
            python.publish(broker.tenant, NS, name, f"p{i}".encode())
    assert texts(driver.take(subscription, 100)) == run_of("p", 100)


def test_c_publishes_and_python_receives(driver, broker, name):
    with clients.connect(broker) as python:
        with python.subscribe(broker.tenant, NS, name) as events:
            driver.publish(name, count=50, size=4)
            driver.batch(name, 50, text="b", size=4)
            got = clients.payloads(clients.take(events, 100))
    assert got == [f"{t:.<4}".encode() for t in run_of("m", 50) + run_of("b", 50)]


def test_python_and_c_share_a_cache(driver, broker, name):
    with clients.connect(broker) as python:
        driver.put("c", name, text="of-c", size=6)
        assert python.cache_get(broker.tenant, NS, "c", name) == b"of-c0."
        python.cache_put(broker.tenant, NS, "c", name, b"of-python")
        assert driver.get("c", name).text == "of-python"
        assert driver.delete("c", name).text == "of-python"
        assert python.cache_get(broker.tenant, NS, "c", name) is None


# ---- the examples


def example(broker, program, *args, seconds=30):
    env = {"FELIX_SERVER": broker.address, "FELIX_DATA_DIR": broker.data_dir}
    return subprocess.run(
        [built("examples", program), *map(str, args)],
        env=environment(broker.directory, env), capture_output=True, text=True,
        timeout=scaled(seconds), stdin=subprocess.DEVNULL,
    )  # fmt: skip


def good(run):
    assert run.returncode == 0, run
    return run.stdout.splitlines()


@pytest.mark.parametrize("program, args, says", [
    ("publish", ["hello"], 'the broker has "hello"'),
    ("publish_batch", ["64"], "the broker has all 64"),
    ("publish_async", ["5000"], "5000 answers, 0 failures"),
    ("publish_keyed", [], "account-7: close"),
    ("cache", [], "is not there"),
    ("cache_async", ["500"], "500 of 500 values came back"),
    ("errors", [], "CURSOR_IN_FUTURE"),
    ("statistics", [], "acknowledged 100, failed 0"),
    ("drain", ["5000"], "5000 published and delivered to the broker"),
    ("hello", [], "hello from C++"),
])
def test_an_example_does_what_it_says(broker, name, program, args, says):
    if program == "hello" and not os.path.exists(built("examples", program)):
        pytest.skip("built without a C++ compiler")
    args = [] if program == "errors" else [name, *args]
    assert says in "\n".join(good(example(broker, program, *args)))


def test_the_drain_example_delivers_everything(broker, driver, name):
    subscription = driver.subscribe(name)
    good(example(broker, "drain", name, 5000))
    got = driver.take(subscription, 5000)
    assert len(got) == 5000


@pytest.mark.parametrize("program, args", [("subscribe_callback", ["3"]), ("subscribe_next", ["2000"])])
def test_the_subscribe_examples_print_what_is_published(broker, driver, name, program, args):
    env = {"FELIX_SERVER": broker.address, "FELIX_DATA_DIR": broker.data_dir}
    with subprocess.Popen(
        [built("examples", program), name, *args],
        env=environment(broker.directory, env),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        guard = threading.Timer(scaled(60), process.kill)
        guard.start()
        assert process.stderr.readline() == f"subscribed to {name}\n"
        driver.publish(name, count=3, size=2)
        assert process.stdout.read().split() == run_of("m", 3)
        assert process.wait() == 0
        guard.cancel()


def test_the_resume_example_goes_on_where_it_stopped(broker, driver, name, tmp_path):
    driver.publish(name, count=3, size=2)
    offsets = tmp_path / "offset"
    assert good(example(broker, "resume", name, offsets, 300)) == ["0 m0", "1 m1", "2 m2"]
    driver.publish(name, text="n", size=2)
    assert good(example(broker, "resume", name, offsets, 300)) == ["3 n0"]


def test_an_example_without_a_broker_says_so(broker, new_driver, name):
    env = {"FELIX_SERVER": "127.0.0.1:1", "FELIX_DATA_DIR": broker.data_dir}
    run = subprocess.run(
        [built("examples", "publish"), name], env=environment(broker.directory, env),
        capture_output=True, text=True, timeout=scaled(30),
    )  # fmt: skip
    assert run.returncode == 1 and "is a Felix broker running at that address?" in run.stderr
