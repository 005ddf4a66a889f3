"""felix bench: every message is accounted for, and a stall counts for everything that it delayed."""

import signal
import time

import pytest

from felix_testlib.cli import Cli, vanish
from felix_testlib.slow import scaled, wait_until

LATENCIES = ["min", "p50", "p90", "p99", "p999", "p9999", "max"]


@pytest.fixture
def felix(broker, tmp_path):
    cli = Cli.of(broker, tmp_path / "home")
    yield cli
    cli.close()


def check(record, count, samples):
    """What holds for every report with a histogram."""
    assert record["sent"] == count
    assert record["failed"] == record["lost"] == 0
    assert record["samples"] == samples
    ascending = [record["latency_us"][name] for name in LATENCIES]
    assert ascending == sorted(ascending) and ascending[0] > 0
    assert ascending[0] <= record["latency_us"]["mean"] <= ascending[-1]
    assert record["rate"] == pytest.approx(
        (record.get("received") or record["acked"]) * 1e6 / record["elapsed_us"], rel=0.01
    )


def test_pub_counts_exactly_what_was_asked_for(felix, name):
    record = felix("bench", "pub", name, "--count", "1000", "--batch", "64", "--json").record
    check(record, 1000, 16)
    assert (record["acked"], record["loop"], record["size"], record["batch"]) == (1000, "closed", 256, 64)
    assert len(felix("sub", name, "--from", "earliest", "--timeout", "300ms").lines) == 1000


def test_pub_without_acknowledgement_has_no_latency(felix, name):
    record = felix("bench", "pub", name, "--count", "1000", "--ack", "none", "--json").record
    assert (record["sent"], record["failed"]) == (1000, 0)
    assert "acked" not in record and "latency_us" not in record


def test_cache_stores_what_it_fetches(felix, name):
    record = felix("bench", "cache", name, "--count", "500", "--keys", "100", "--json").record
    check(record, 500, 500)
    assert (record["acked"], record["missed"], record["latency"]) == (500, 0, "get")
    record = felix("bench", "cache", name, "--op", "put", "--count", "500", "--json").record
    check(record, 500, 500)
    assert record["latency"] == "put"


@pytest.mark.parametrize("more", [["--concurrency", "8"], ["--rate", "2000"], ["--rate", "2000", "--ack", "message"]])
def test_latency_is_taken_at_every_subscription(felix, name, more):
    record = felix("bench", "latency", name, "--count", "300", "--fanout", "3", "--json", *more).record
    check(record, 300, 900)
    assert record["received"] == 900
    assert record["loop"] == ("open" if "--rate" in more else "closed")


def test_messages_of_others_on_the_stream_do_not_count(felix, broker, name):
    other = felix.start("pub", name, "x" * 100, "--rate", "500", "--count", "1000000")
    wait_until(lambda: broker.metric("felix_publish_items_total") > 0, 10, "published")
    check(felix("bench", "latency", name, "--count", "100", "--json").record, 100, 100)
    other.signal(signal.SIGINT)
    other.end(130)


def test_sub_counts_and_says_what_is_lost(felix, broker, name):
    before = broker.metric("felix_subscriptions")
    running = felix.start("bench", "sub", name, "--count", "101", "--fanout", "2", "--timeout", "500ms", "--json")
    wait_until(lambda: broker.metric("felix_subscriptions") == before + 2, 10, "subscribed")
    felix("pub", name, "x" * 10, "--count", "100")
    ended = running.end(5)
    assert (ended.record["received"], ended.record["lost"], ended.record["size"]) == (200, 2, 10)
    assert "2 are lost" in ended.err


def test_sub_ends_with_1_when_nothing_came(felix, name):
    assert felix("bench", "sub", name, "--timeout", "200ms", status=1).out == b""


def test_duration_ends_a_benchmark(felix, name):
    for args in (["pub"], ["cache", "--op", "put"], ["latency"], ["latency", "--rate", "500"]):
        ended = felix("bench", args[0], name, *args[1:], "--duration", "300ms", "--json")
        assert 0.2 < ended.record["elapsed_us"] / 1e6 < scaled(2), args


def test_an_open_loop_keeps_the_rate(felix, name):
    record = felix("bench", "pub", name, "--rate", "1000", "--count", "301", "--json").record
    assert (record["loop"], record["wanted_rate"]) == ("open", 1000)
    assert record["elapsed_us"] >= 300_000


def test_plain_output_is_a_name_and_a_value_a_line(felix, name):
    lines = felix("bench", "pub", name, "--count", "10").text.splitlines()
    values = dict(line.split("\t") for line in lines)
    assert (values["bench"], values["sent"], values["acked"]) == ("pub", "10", "10")
    assert float(values["p99.9_us"]) > 0


def test_ctrl_c_reports_what_was_measured(felix, broker, name):
    before = broker.metric("felix_publish_items_total")
    running = felix.start("bench", "latency", name, "--rate", "1000", "--duration", "60s", "--json")
    wait_until(lambda: broker.metric("felix_publish_items_total") > before + 10, 10, "published")
    running.signal(signal.SIGINT)
    record = running.end(130).record
    assert record["sent"] == record["received"] > 10


def test_a_refusal_fails_the_benchmark(felix, name):
    ended = felix("bench", "pub", name, "--namespace", "nowhere", status=1)
    assert ended.out == b"" and "failed" in ended.err


def test_every_publish_is_accounted_for_when_the_broker_vanishes(start_broker, name, tmp_path):
    broker = start_broker()
    running = Cli.of(broker, tmp_path / "home").start(
        "bench", "pub", name, "--duration", "30s", "--timeout", "1s", "--json"
    )
    wait_until(lambda: broker.metric("felix_publish_items_total") > 1000, 10, "published")
    vanish(broker)
    ended = running.end(3)
    record = ended.record
    assert record["sent"] == record["acked"] + record["failed"] + record["lost"]
    assert record["failed"] > 0 and f"{record['failed']} of {record['sent']} failed" in ended.err


def test_a_stall_counts_for_everything_that_it_delayed(start_broker, name, tmp_path):
    """The broker stands still while many publishes fall due. The client's budget holds three of
    them, so the generator waits too: measured from the sending, three samples would be slow."""
    broker = start_broker()
    alone = Cli.of(broker, tmp_path / "alone")
    running = alone.start("bench", "pub", name, "--rate", "500", "--count", "500", "--json",
                          env={"FELIX_PUBLISH_INFLIGHT_BYTES": "1024"})  # fmt: skip
    wait_until(lambda: broker.metric("felix_publish_items_total") > 50, 10, "published")
    broker.signal(signal.SIGSTOP)
    time.sleep(0.5)  # the stall itself
    broker.signal(signal.SIGCONT)
    record = running.end().record
    check(record, 500, 500)
    # 500 ms of 1,000 ms: half of all publishes were delayed, evenly between 0 and 500 ms.
    assert record["latency_us"]["p90"] > 250_000
    assert record["latency_us"]["max"] > 400_000
