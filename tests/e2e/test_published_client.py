"""The published Python client, unmodified, against our broker."""

import asyncio
import os
import threading
import time

import felix
import pytest

from felix_testlib import client as clients
from felix_testlib.broker import Broker
from felix_testlib.slow import scaled, wait_until

NS = clients.NAMESPACE


@pytest.fixture(scope="module")
def client(broker):
    with clients.connect(broker) as c:
        yield c


@pytest.fixture
def tenant(broker):
    return broker.tenant


class Timed:
    """Nothing may hang: what runs inside ends within a limit."""

    def __init__(self, seconds):
        self.seconds = scaled(seconds)

    def __enter__(self):
        self.start = time.monotonic()
        return self

    def __exit__(self, *_):
        took = time.monotonic() - self.start
        assert took < self.seconds, f"took {took:.1f} s"


# ---- publish and subscribe


@pytest.mark.parametrize("ack", ["none", "per_message", "per_batch"])
def test_every_ack_mode_delivers(client, tenant, name, ack):
    with client.subscribe(tenant, NS, name) as events:
        sent = [b"%d" % i for i in range(20)]
        for payload in sent:
            client.publish(tenant, NS, name, payload, ack=ack)
        assert clients.payloads(clients.take(events, 20)) == sent


def test_an_event_names_its_stream_and_live_ones_of_memory_have_no_offset(client, tenant, name):
    with client.subscribe(tenant, NS, name) as events:
        assert client.publish(tenant, NS, name, b"hello") is None
        (event,) = clients.take(events, 1)
    assert (event.tenant_id, event.namespace, event.stream) == (tenant, NS, name)
    assert (event.payload, event.offset, event.skipped_before) == (b"hello", None, 0)


def test_keyed_publishes_are_delivered_in_order(client, tenant, name):
    with client.subscribe(tenant, NS, name) as events:
        for i in range(30):
            client.publish(tenant, NS, name, b"%d" % i, key=b"k%d" % (i % 3))
        client.publish(tenant, NS, name, b"empty key", key=b"")
        client.publish(tenant, NS, name, b"no answer", key=b"k", ack="none")
        got = clients.payloads(clients.take(events, 32))
    assert got == [b"%d" % i for i in range(30)] + [b"empty key", b"no answer"]


def test_at_least_once_is_served(client, tenant, name):
    with client.subscribe(tenant, NS, name) as events:
        client.publish(tenant, NS, name, b"again", at_least_once=True)
        assert clients.payloads(clients.take(events, 1)) == [b"again"]


@pytest.mark.timeout(240)
def test_ten_thousand_messages_arrive_in_order(broker, tenant, name):
    total = 10_000
    with clients.connect(broker) as producer, clients.connect(broker) as consumer:
        with consumer.subscribe(tenant, NS, name) as events:
            got, failure = [], []

            def read():
                try:
                    got.extend(clients.payloads(clients.take(events, total, 200)))
                except AssertionError as e:
                    failure.append(e)

            reader = threading.Thread(target=read)
            reader.start()
            for i in range(total):
                producer.publish(tenant, NS, name, b"%d" % i)
            reader.join(scaled(200))
            assert not failure and not reader.is_alive(), failure
    assert got == [b"%d" % i for i in range(total)]


@pytest.mark.parametrize("size", [0, 1, 1199, 65_536, 1_000_000, 3_000_000])
def test_sizes_from_empty_to_three_megabytes(client, tenant, name, size):
    payload = os.urandom(size)
    with client.subscribe(tenant, NS, name) as events:
        client.publish(tenant, NS, name, payload)
        (event,) = clients.take(events, 1)
    assert event.payload == payload


def test_two_clients_and_four_subscriptions_each_get_everything(broker, tenant, name):
    sent = [b"m%d" % i for i in range(200)]
    with clients.connect(broker) as a, clients.connect(broker) as b:
        subscriptions = [c.subscribe(tenant, NS, name) for c in (a, b, a, b)]
        for payload in sent:
            a.publish(tenant, NS, name, payload)
        for subscription in subscriptions:
            assert clients.payloads(clients.take(subscription, 200)) == sent
            subscription.close()


def test_streams_do_not_mix(client, tenant, name):
    with client.subscribe(tenant, NS, name + "a") as a, client.subscribe(tenant, NS, name + "b") as b:
        client.publish(tenant, NS, name + "a", b"for a")
        client.publish(tenant, NS, name + "b", b"for b")
        assert clients.payloads(clients.take(a, 1)) == [b"for a"]
        assert clients.payloads(clients.take(b, 1)) == [b"for b"]
        assert a.next_event(timeout=scaled(0.2)) is None


def test_a_closed_subscription_is_gone_at_the_broker(broker, client, tenant, name):
    before = broker.metric("felix_subscriptions", default=0.0)
    subscription = client.subscribe(tenant, NS, name)
    client.publish(tenant, NS, name, b"x")
    clients.take(subscription, 1)
    subscription.close()

    def publish_until_noticed():
        # The client stops the stream when it next reads a frame.
        client.publish(tenant, NS, name, b"y")
        return broker.metric("felix_subscriptions", default=0.0) <= before

    wait_until(publish_until_noticed, 10, "the subscription to go away")


# ---- start positions


def fill(client, tenant, name, count, size=None):
    for i in range(count):
        client.publish(tenant, NS, name, b"%d" % i)


def test_earliest_replays_with_offsets_and_goes_on_live(client, tenant, name):
    fill(client, tenant, name, 10)
    with client.subscribe(tenant, NS, name, start="earliest") as events:
        replay = clients.take(events, 10)
        assert [(e.payload, e.offset) for e in replay] == [(b"%d" % i, i) for i in range(10)]
        client.publish(tenant, NS, name, b"live")
        assert clients.payloads(clients.take(events, 1)) == [b"live"]


def test_latest_sees_only_what_follows(client, tenant, name):
    fill(client, tenant, name, 5)
    with client.subscribe(tenant, NS, name, start="latest") as events:
        client.publish(tenant, NS, name, b"new")
        assert clients.payloads(clients.take(events, 1)) == [b"new"]


@pytest.mark.parametrize("offset", [0, 4, 9, 10])
def test_an_offset_is_the_first_wanted_one_and_the_tail_is_allowed(client, tenant, name, offset):
    fill(client, tenant, name, 10)
    with client.subscribe(tenant, NS, name, start=offset) as events:
        client.publish(tenant, NS, name, b"10")
        got = clients.payloads(clients.take(events, 11 - offset))
    assert got == [b"%d" % i for i in range(offset, 11)]


def test_an_offset_beyond_the_tail_is_a_typed_cursor_error(client, tenant, name):
    fill(client, tenant, name, 3)
    with Timed(15), pytest.raises(felix.CursorError):
        client.subscribe(tenant, NS, name, start=1000)


def test_an_offset_that_left_the_ring_is_a_typed_cursor_error(client, tenant, name):
    # The replay ring keeps 1024 items by default.
    fill(client, tenant, name, 1200)
    with Timed(15), pytest.raises(felix.CursorError):
        client.subscribe(tenant, NS, name, start=0)
    with client.subscribe(tenant, NS, name, start="earliest") as events:
        first = clients.take(events, 1)[0]
        assert first.offset is not None and 0 < first.offset <= 1200 - 512
        assert first.payload == b"%d" % first.offset


# ---- cache


def test_cache_put_get_delete_and_miss(client, tenant, name):
    assert client.cache_get(tenant, NS, "c", name) is None
    client.cache_put(tenant, NS, "c", name, b"one")
    assert client.cache_get(tenant, NS, "c", name) == b"one"
    client.cache_put(tenant, NS, "c", name, b"two")
    assert client.cache_get(tenant, NS, "c", name) == b"two"
    assert client.cache_delete(tenant, NS, "c", name) == b"two"
    assert client.cache_delete(tenant, NS, "c", name) is None
    assert client.cache_get(tenant, NS, "c", name) is None


def test_cache_entries_expire_and_a_put_without_ttl_makes_them_permanent(client, tenant, name):
    client.cache_put(tenant, NS, "c", name, b"short", ttl=scaled(0.4))
    client.cache_put(tenant, NS, "c", name + "2", b"short", ttl=scaled(0.4))
    client.cache_put(tenant, NS, "c", name + "2", b"for ever")
    assert client.cache_get(tenant, NS, "c", name) == b"short"
    time.sleep(scaled(0.6))
    assert client.cache_get(tenant, NS, "c", name) is None
    assert client.cache_get(tenant, NS, "c", name + "2") == b"for ever"


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_cache_values_of_any_size(client, tenant, name, size):
    value = os.urandom(size)
    client.cache_put(tenant, NS, "c", name, value)
    assert client.cache_get(tenant, NS, "c", name) == value


@pytest.mark.parametrize("key", ["", "a/b:c*", "käse \U0001f9c0", 'quote " back \\ slash', "nul\0nul"])
def test_cache_keys_are_any_text(client, tenant, name, key):
    client.cache_put(tenant, NS, name, key, b"v")
    assert client.cache_get(tenant, NS, name, key) == b"v"


def test_caches_do_not_mix(client, tenant, name):
    client.cache_put(tenant, NS, "c1", name, b"1")
    assert client.cache_get(tenant, NS, "c2", name) is None


def test_two_clients_share_a_cache(broker, client, tenant, name):
    client.cache_put(tenant, NS, "c", name, b"shared")
    with clients.connect(broker) as other:
        assert other.cache_get(tenant, NS, "c", name) == b"shared"


# ---- asyncio


def test_the_async_surface(broker, tenant, name):
    async def run():
        client = await felix.AsyncClient.connect(
            broker.address, tenant_id=tenant, token=broker.token, ca_file=broker.ca
        )
        async with client:
            async with await client.subscribe(tenant, NS, name) as events:
                await asyncio.gather(
                    *(client.publish(tenant, NS, name, b"%d" % i) for i in range(100))
                )
                got = []
                async for event in events:
                    got.append(event.payload)
                    if len(got) == 100:
                        break
            assert sorted(got) == sorted(b"%d" % i for i in range(100))
            await client.cache_put(tenant, NS, "c", name, b"v", ttl=30.0)
            assert await client.cache_get(tenant, NS, "c", name) == b"v"
            assert await client.cache_delete(tenant, NS, "c", name) == b"v"
            assert await client.cache_get(tenant, NS, "c", name) is None

    asyncio.run(asyncio.wait_for(run(), scaled(60)))


def test_many_concurrent_cache_requests_each_get_their_own_answer(broker, tenant, name):
    async def run():
        client = await felix.AsyncClient.connect(
            broker.address, tenant_id=tenant, token=broker.token, ca_file=broker.ca
        )
        async with client:

            async def one(i):
                await client.cache_put(tenant, NS, "c", f"{name}{i}", b"%d" % i)
                assert await client.cache_get(tenant, NS, "c", f"{name}{i}") == b"%d" % i

            await asyncio.gather(*(one(i) for i in range(300)))

    asyncio.run(asyncio.wait_for(run(), scaled(60)))


# ---- connecting


def test_a_client_that_offers_alpn(broker, tenant, name):
    with clients.connect(broker, offer_alpn=True) as c:
        c.cache_put(tenant, NS, "c", name, b"v")
        assert c.cache_get(tenant, NS, "c", name) == b"v"
        assert c.publish(tenant, NS, name, b"x") is None


def test_a_certificate_that_is_not_trusted_ends_the_connect(broker, tenant, tmp_path):
    from felix_testlib import tokens

    foreign, _ = tokens.write_certificate(tmp_path)
    with Timed(30), pytest.raises(felix.FelixError):
        clients.connect(broker, ca_file=foreign)
    # The broker goes on.
    with clients.connect(broker) as c:
        c.cache_put(tenant, NS, "c", "k", b"v")


def test_a_refused_token_is_an_auth_error(broker):
    with Timed(30), pytest.raises(felix.AuthError):
        clients.connect(broker, token="not.a.token")


def test_a_token_of_another_key_is_an_auth_error(scope):
    from felix_testlib import tokens

    stranger = tokens.Issuer("t1")
    with Timed(30), pytest.raises(felix.AuthError):
        clients.connect(scope.broker, tenant="t1", token=stranger.token())


def test_an_idle_subscription_outlives_the_idle_timeout(start_broker, name):
    broker = start_broker(env={"FELIX_IDLE_TIMEOUT_MS": "2000"})
    with clients.connect(broker) as producer, clients.connect(broker) as consumer:
        with consumer.subscribe(broker.tenant, NS, name) as events:
            time.sleep(6)
            producer.publish(broker.tenant, NS, name, b"after the silence")
            assert clients.payloads(clients.take(events, 1)) == [b"after the silence"]


@pytest.mark.timeout(180)
def test_a_client_survives_a_restart_of_the_broker(tmp_path, name):
    first = Broker(tmp_path)
    tenant, port = first.tenant, first.port
    with clients.connect(first) as c:
        c.publish(tenant, NS, name, b"before")
        first.stop()
        second = Broker(tmp_path, quic_bind=f"127.0.0.1:{port}")
        try:

            def publish():
                try:
                    c.publish(tenant, NS, name, b"after")
                    return True
                except felix.FelixError:
                    return False

            wait_until(publish, 60, "a publish after the restart", pause=0.2)
            with c.subscribe(tenant, NS, name) as events:
                c.publish(tenant, NS, name, b"and again")
                assert clients.payloads(clients.take(events, 1)) == [b"and again"]
        finally:
            second.stop()


@pytest.mark.parametrize("reactors", [2, 3])
def test_several_reactors_serve_one_client_as_one_does(start_broker, name, reactors):
    broker = start_broker(env={"FELIX_CORE_SHARDS": str(reactors)})
    tenant = broker.tenant
    everyone = [clients.connect(broker) for _ in range(4)]
    try:
        streams = [f"{name}-{i}" for i in range(6)]
        subscriptions = [(s, c.subscribe(tenant, NS, s)) for s in streams for c in everyone]
        for i in range(50):
            for n, s in enumerate(streams):
                everyone[n % 4].publish(tenant, NS, s, f"{s} {i}".encode())
        for s, subscription in subscriptions:
            got = clients.payloads(clients.take(subscription, 50))
            assert got == [f"{s} {i}".encode() for i in range(50)]
        for s in streams:
            with everyone[0].subscribe(tenant, NS, s, start=40) as events:
                assert [e.offset for e in clients.take(events, 10)] == list(range(40, 50))
        with pytest.raises(felix.CursorError):
            everyone[1].subscribe(tenant, NS, streams[0], start=999)
        for i in range(40):
            everyone[i % 4].cache_put(tenant, NS, "c", f"k{i}", b"%d" % i)
        for i in range(40):
            assert everyone[(i + 1) % 4].cache_get(tenant, NS, "c", f"k{i}") == b"%d" % i
            assert everyone[(i + 2) % 4].cache_delete(tenant, NS, "c", f"k{i}") == b"%d" % i
            assert everyone[(i + 3) % 4].cache_get(tenant, NS, "c", f"k{i}") is None
    finally:
        for c in everyone:
            c.__exit__()


# ---- names, grants and identities


def code_of(error):
    return error.value.code


def test_an_unknown_stream_is_not_found(scope):
    with clients.connect(scope.broker, "t1", scope.token()) as c:
        with Timed(20), pytest.raises(felix.NotFoundError):
            c.publish("t1", NS, "nowhere", b"x")
        with Timed(20), pytest.raises(felix.NotFoundError):
            c.subscribe("t1", NS, "nowhere")
        with Timed(20), pytest.raises(felix.NotFoundError):
            c.cache_get("t1", NS, "nowhere", "k")
        # The client is as good as before.
        assert c.publish("t1", NS, "orders", b"x") is None
        assert c.cache_get("t1", NS, "sessions", "k") is None


def test_what_is_not_granted_is_forbidden(scope):
    token = scope.token(perms=["stream.publish:stream:t1/default/orders"])
    with clients.connect(scope.broker, "t1", token) as c:
        c.publish("t1", NS, "orders", b"granted")
        for refused in (
            lambda: c.publish("t1", NS, "other", b"x"),
            lambda: c.subscribe("t1", NS, "orders"),
            lambda: c.cache_get("t1", NS, "sessions", "k"),
            lambda: c.cache_put("t1", NS, "sessions", "k", b"v"),
            lambda: c.cache_delete("t1", NS, "sessions", "k"),
        ):
            with Timed(20), pytest.raises(felix.FelixError) as error:
                refused()
            assert code_of(error) == "forbidden", error.value
        c.publish("t1", NS, "orders", b"still granted")


def test_read_and_write_of_a_cache_are_separate_grants(scope):
    reader = scope.token(perms=["cache.read:cache:t1/default/sessions"])
    writer = scope.token(perms=["cache.write:cache:t1/default/*"])
    with clients.connect(scope.broker, "t1", writer) as w, clients.connect(
        scope.broker, "t1", reader
    ) as r:
        w.cache_put("t1", NS, "sessions", "rw", b"v")
        assert r.cache_get("t1", NS, "sessions", "rw") == b"v"
        with pytest.raises(felix.FelixError):
            w.cache_get("t1", NS, "sessions", "rw")
        with pytest.raises(felix.FelixError):
            r.cache_put("t1", NS, "sessions", "rw", b"w")


def test_two_principals_share_one_connection(scope):
    with clients.connect(scope.broker, "t1", scope.token("t1")) as one:
        before = scope.broker.metric("felix_connections", default=0.0)
        two = one.with_identity("t2", scope.token("t2"))
        with one.subscribe("t1", NS, "orders") as a, two.subscribe("t2", NS, "orders") as b:
            one.publish("t1", NS, "orders", b"of t1")
            two.publish("t2", NS, "orders", b"of t2")
            assert clients.payloads(clients.take(a, 1)) == [b"of t1"]
            assert clients.payloads(clients.take(b, 1)) == [b"of t2"]
        # Less when a connection of an earlier test was just going away.
        assert scope.broker.metric("felix_connections", default=0.0) <= before
        with pytest.raises(felix.FelixError):
            two.publish("t1", NS, "orders", b"not mine")


def test_a_token_provider_is_asked(scope):
    asked = []

    def provide():
        asked.append(1)
        return scope.token()

    with clients.connect(scope.broker, "t1", token_provider=provide) as c:
        c.publish("t1", NS, "orders", b"x")
    assert asked


# ---- what is not offered yet


def refusals():
    t, n = "t1", "orders"
    op = felix.CommitOp.publish(n, b"x")
    yield "group_poll", lambda c: c.group_poll(t, NS, n, 0, "g", wait=1.0)
    yield "group_ack", lambda c: c.group_ack(t, NS, n, 0, "g", 0)
    yield "group_dead_letters", lambda c: c.group_dead_letters(t, NS, n, 0, "g")
    yield "group_discard", lambda c: c.group_discard(t, NS, n, 0, "g", 0)
    yield "group_redrive", lambda c: c.group_redrive(t, NS, n, 0, "g", 0)
    yield "counter_add", lambda c: c.counter_add(t, NS, "sessions", "k", 1)
    yield "counter_get", lambda c: c.counter_get(t, NS, "sessions", "k")
    yield "watch_cache", lambda c: c.watch_cache(t, NS, "sessions", felix.CacheWatchFilter.key("k"))
    yield "commit", lambda c: c.commit(t, NS, b"e", [op])
    yield "state_get", lambda c: c.state_get(t, NS, n, b"e", "k")
    yield "stream_shards", lambda c: c.stream_shards(t, NS, n)
    yield "subscribe_sharded", lambda c: c.subscribe_sharded(t, NS, n)


@pytest.mark.parametrize("call", [c for _, c in refusals()], ids=[n for n, _ in refusals()])
def test_what_is_not_offered_is_refused_with_the_clients_own_error(scope, call):
    with clients.connect(scope.broker, "t1", scope.token()) as c:
        with Timed(30), pytest.raises(felix.FelixError) as error:
            call(c)
        assert str(error.value)
        # The client is as good as before.
        c.publish("t1", NS, "orders", b"x")


def test_the_async_surface_refuses_what_is_not_offered(scope):
    async def run():
        client = await felix.AsyncClient.connect(
            scope.broker.address, tenant_id="t1", token=scope.token(), ca_file=scope.broker.ca
        )
        async with client:
            with pytest.raises(felix.FelixError):
                await client.stream_shards("t1", NS, "orders")
            with pytest.raises(felix.FelixError):
                await client.counter_get("t1", NS, "sessions", "k")
            await client.publish("t1", NS, "orders", b"x")

    asyncio.run(asyncio.wait_for(run(), scaled(60)))
