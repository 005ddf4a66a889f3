"""felix stream: streams made, shown and deleted by command, and there again after a restart."""

import os
import re
import stat

import pytest

from felix_testlib import client as clients
from felix_testlib import frames, tokens
from felix_testlib.broker import Broker
from felix_testlib.cli import Cli, on_a_terminal
from felix_testlib.fake_broker import FakeBroker
from felix_testlib.peer import Peer
from felix_testlib.slow import wait_until

NS = clients.NAMESPACE


@pytest.fixture
def felix(broker, tmp_path):
    cli = Cli.of(broker, tmp_path / "home")
    yield cli
    cli.close()


class Restarted:
    """A broker that comes back on the same data directory, and felix for it."""

    def __init__(self, directory, home, **more):
        self.directory, self.home, self.more = directory, home, more
        self.env = {"FELIX_CORE_SHARDS": 2, **more.pop("env", {})}
        self.broker = self.cli = None
        self.start()

    def start(self, yaml=None):
        if yaml is not None:
            self.more["yaml"] = yaml
        self.broker = Broker(self.directory, env=self.env, **self.more)
        self.cli = Cli.of(self.broker, self.home)

    def stop(self):
        self.cli.close()
        self.broker.stop()

    def restart(self, yaml=None):
        self.stop()
        self.start(yaml)

    def __call__(self, *args, **more):
        return self.cli(*args, **more)

    def names(self, *args):
        return [r["stream"] for r in self("stream", "list", "--json", *args).records]


@pytest.fixture
def dev(tmp_path):
    one = Restarted(tmp_path / "broker", tmp_path / "home")
    yield one
    one.stop()


# ---- create


def test_a_stream_that_was_made_is_there_after_a_restart(dev):
    made = dev("stream", "create", "orders", "--json").record
    assert made["outcome"] == "made"
    assert made["entry"]["stream"] == "orders" and made["entry"]["durable"] is False
    dev("stream", "create", "é b", "--namespace", "other")
    assert dev.names() == ["orders"]
    dev.restart()
    assert dev.names() == ["orders"]
    assert dev("stream", "show", "orders", "--json").record["origin"] == "command"
    assert dev.names("--namespace", "other") == ["é b"]
    assert stat.S_IMODE(os.stat(dev.broker.path("streams.json")).st_mode) == 0o600


def test_a_stream_of_another_namespace_serves_once_it_is_made(dev):
    there = ["--namespace", "other"]
    assert "stream not found" in dev("pub", "s", "x", *there, status=1).err
    dev("stream", "create", "s", *there)
    dev("pub", "s", "x", *there)
    assert dev("sub", "s", "--from", "earliest", "--count", "1", *there).lines == [b"x"]
    entry = dev("stream", "show", "s", "--json", *there).record
    assert (entry["oldest"], entry["end"], entry["state"]) == (0, 1, "ok")


def test_making_it_again_is_no_failure(felix, name):
    assert felix("stream", "create", name, "--json").record["outcome"] == "made"
    assert felix("stream", "create", name, "--json").record["outcome"] == "exists"


def test_a_stream_that_was_used_keeps_its_messages_when_it_is_made(felix, name):
    felix("pub", name, "x")
    assert felix("stream", "show", name, "--json").record["origin"] == "use"
    assert felix("stream", "create", name, "--json").record["outcome"] == "exists"
    assert felix("stream", "show", name, "--json").record["origin"] == "command"
    assert felix("sub", name, "--from", "earliest", "--count", "1").lines == [b"x"]


def test_what_is_in_memory_is_not_made_durable_without_being_deleted(felix, name):
    felix("stream", "create", name)
    err = felix("stream", "create", name, "--durable", status=4).err
    assert "kept in memory" in err and "felix stream delete" in err


def test_no_more_streams_are_made_than_are_allowed(start_broker, tmp_path):
    broker = start_broker(env={"FELIX_MAX_STREAMS_PER_NAMESPACE": "2"})
    felix = Cli.of(broker, tmp_path / "home")
    felix("stream", "create", "a")
    felix("stream", "create", "b", "--namespace", "other")
    err = felix("stream", "create", "c", status=4).err
    assert "FELIX_MAX_STREAMS_PER_NAMESPACE" in err
    felix("stream", "delete", "a")
    felix("stream", "create", "c")


# ---- list, show


def publish_each(dev, names, payload=b"x"):
    """Publish once to each over one raw connection, one after the other; returns how many were
    acknowledged."""
    ok = 0
    with Peer(dev.broker.port, ca=dev.broker.ca) as peer:
        control = peer.authenticated(dev.broker.tenant, dev.broker.token)
        for i, name in enumerate(names):
            control.send(frames.publish(dev.broker.tenant, NS, name, [payload], request_id=i))
            ok += control.ack().ok
    return ok


def test_a_list_is_in_order_and_longer_than_one_answer(dev):
    """The broker puts 500 into one answer."""
    want = [f"s{i:04}" for i in range(1100)]
    assert publish_each(dev, reversed(want)) == len(want)
    assert dev.names() == want


def test_into_a_pipe_a_stream_is_a_line_of_fields(felix, name):
    felix("pub", name, "abc")
    felix("pub", name, "abc")
    (line,) = felix("stream", "show", name).lines
    fields = line.decode().split("\t")
    assert fields[:5] == [name, "memory", "ok", "0", "2"]
    assert int(fields[5]) > 0 and fields[6:] == ["0", "0", "0", "0"]
    assert line in felix("stream", "list").lines


def test_subscriptions_are_counted(felix, broker, name):
    before = broker.metric("felix_subscriptions")
    running = felix.start("sub", name)
    wait_until(lambda: broker.metric("felix_subscriptions") > before, 10, "subscribed")
    assert felix("stream", "show", name, "--json").record["subscriptions"] == 1
    running.kill()


def test_a_stream_that_is_not_there_is_1(felix, name):
    assert f"there is no stream '{name}' in t1/default" in felix("stream", "show", name, status=1).err
    assert name in felix("stream", "delete", name, status=1).err
    assert name not in felix("stream", "list").text, "to look is not to use"


def test_on_a_terminal_streams_are_for_people(dev):
    dev("pub", "s", "x", "--count", "2000")
    shown = on_a_terminal(dev.cli, "stream", "list")
    head, line = shown.splitlines()
    assert head.split() == ["STREAM", "KIND", "STATE", "OLDEST", "END", "BYTES", "FILES", "KEPT", "SUBSCRIBERS"]
    assert line.split()[:3] == ["s", "memory", "ok"] and "2,000" in line
    details = on_a_terminal(dev.cli, "stream", "show", "s")
    assert re.search(r"^kind +memory, made by its first use$", details, re.M)
    assert on_a_terminal(dev.cli, "stream", "create", "new") == "stream 'new' (in memory) is made\n"
    assert "exists already" in on_a_terminal(dev.cli, "stream", "create", "new")
    assert on_a_terminal(dev.cli, "stream", "delete", "new") == "stream 'new' (in memory) is deleted\n"


# ---- delete


def test_a_deleted_stream_is_gone_for_good(dev):
    dev("stream", "create", "a")
    dev("stream", "create", "b")
    assert dev("stream", "delete", "a", "--json").record["outcome"] == "deleted"
    assert dev.names() == ["b"]
    dev.restart()
    assert dev.names() == ["b"]


def test_subscriptions_end_when_their_stream_is_deleted(dev):
    there = ["--namespace", "other"]
    dev("stream", "create", "s", *there)
    running = dev.cli.start("sub", "s", *there)
    wait_until(lambda: dev.broker.metric("felix_subscriptions") == 1, 10, "subscribed")
    dev("stream", "delete", "s", *there)
    wait_until(lambda: dev.broker.metric("felix_subscriptions") == 0, 10, "ended")
    dev("pub", "s", "x", *there, status=1)
    running.kill()


def test_a_stream_that_is_made_again_begins_anew(dev):
    there = ["--namespace", "other"]
    for payload in ("one", "two", "three"):
        dev("stream", "create", "s", *there)
        dev("pub", "s", payload, *there)
        got = dev("sub", "s", "--from", "earliest", "--count", "1", *there)
        assert got.lines == [payload.encode()]
        assert dev("stream", "show", "s", "--json", *there).record["end"] == 1
        dev("stream", "delete", "s", *there)


def test_a_purge_is_confirmed(dev):
    dev("stream", "create", "s")
    dev("pub", "s", "x", "--count", "3")
    assert "--yes" in dev("stream", "delete", "s", "--purge", status=2).err
    shown = on_a_terminal(dev.cli, "stream", "delete", "s", "--purge", typed="n\n", status=1)
    assert dev.names() == ["s"]
    assert "3 records" in shown
    on_a_terminal(dev.cli, "stream", "delete", "s", "--purge", typed="y\n")
    assert dev.names() == []
    dev("stream", "create", "s")
    dev("stream", "delete", "s", "--purge", "--yes")


# ---- durable streams


def logs_of(dev):
    root = dev.broker.path("streams")
    return [n for n in os.listdir(root) if os.path.isdir(os.path.join(root, n))]


def segments_of(dev):
    (log,) = logs_of(dev)
    directory = dev.broker.path(os.path.join("streams", log))
    return [os.path.join(directory, n) for n in sorted(os.listdir(directory)) if n.endswith(".log")]


def test_a_durable_stream_and_its_records_are_there_after_a_restart(dev):
    made = dev("stream", "create", "s", "--durable", "--json").record
    assert made["outcome"] == "made" and made["entry"]["durable"]
    dev("pub", "s", stdin=b"one\ntwo\nthree\n")
    for _ in range(2):
        entry = dev("stream", "show", "s", "--json").record
        assert (entry["durable"], entry["oldest"], entry["end"], entry["state"]) == (True, 0, 3, "ok")
        assert entry["segments"] == 1 and entry["bytes"] > 3 * 28
        got = dev("sub", "s", "--from", "earliest", "--count", "3")
        assert got.lines == [b"one", b"two", b"three"]
        dev.restart()
    assert dev("stream", "create", "s", "--durable", "--json").record["outcome"] == "exists"
    assert "is durable" in dev("stream", "create", "s", status=4).err


def test_a_stream_in_memory_becomes_durable_by_way_of_its_end(dev):
    """In the namespace where streams come by being used: every reactor has the durable one then."""
    names = [f"s{i}" for i in range(8)]
    assert publish_each(dev, names) == len(names)
    for name in names:
        assert "felix stream delete" in dev("stream", "create", name, "--durable", status=4).err
        dev("stream", "delete", name)
        dev("stream", "create", name, "--durable")
    assert publish_each(dev, names) == len(names)
    assert [r["end"] for r in dev("stream", "list", "--json").records] == [1] * len(names)


def test_a_deleted_durable_stream_is_found_again(dev):
    dev("stream", "create", "s", "--durable")
    dev("pub", "s", "x", "--count", "5")
    assert dev("stream", "delete", "s", "--json").record["entry"]["end"] == 5
    assert dev.names() == [] and len(logs_of(dev)) == 1
    shown = on_a_terminal(dev.cli, "stream", "create", "s", "--durable")
    assert "with 5 records of one before it" in shown
    assert dev("sub", "s", "--from", "4", "--count", "1").lines == [b"x"]


def test_a_purged_durable_stream_is_not(dev):
    dev("stream", "create", "s", "--durable")
    dev("pub", "s", "x", "--count", "5")
    shown = on_a_terminal(dev.cli, "stream", "delete", "s", "--purge", typed="y\n")
    assert "its 5 records" in shown
    wait_until(lambda: logs_of(dev) == [], 10, "the files are gone")
    made = dev("stream", "create", "s", "--durable", "--json").record
    assert (made["outcome"], made["entry"]["end"]) == ("made", 0)


def retention(record):
    entry = record.get("entry", record)
    return record.get("outcome"), entry["retention_bytes"], entry["retention_seconds"]


def test_retention_is_changed_by_making_it_again_and_what_was_not_given_stays(dev):
    create = ["stream", "create", "s", "--durable", "--json"]
    assert retention(dev(*create, "--retention-bytes", "10MiB").record) == ("made", 10 << 20, 0)
    assert retention(dev(*create, "--retention-seconds", "60").record) == ("changed", 10 << 20, 60)
    assert retention(dev(*create).record) == ("exists", 10 << 20, 60)
    dev.restart()
    assert retention(dev("stream", "show", "s", "--json").record) == (None, 10 << 20, 60)
    assert retention(dev(*create, "--retention-bytes", "0").record) == ("changed", 0, 60)
    assert "10.0 MiB, 1 minute" not in on_a_terminal(dev.cli, "stream", "show", "s")
    for option, value in (("bytes", (1 << 62) + 1), ("seconds", (1 << 40) + 1)):
        assert "at most" in dev(*create, f"--retention-{option}", value, status=4).err


SMALL = {"FELIX_DURABLE_SEGMENT_BYTES": "4096", "FELIX_DURABLE_RETENTION_INTERVAL_SECONDS": "1"}


@pytest.fixture
def small(tmp_path):
    """One whose logs have small files, which retention looks at each second."""
    one = Restarted(tmp_path / "broker", tmp_path / "home", env=SMALL)
    yield one
    one.stop()


def test_a_bound_that_is_given_later_removes_what_is_there(small):
    small("stream", "create", "s", "--durable")
    assert publish_each(small, ["s"] * 20, b"x" * 3000) == 20
    assert small("stream", "show", "s", "--json").record["oldest"] == 0
    small("stream", "create", "s", "--durable", "--retention-bytes", "10000")
    wait_until(lambda: small("stream", "show", "s", "--json").record["bytes"] <= 10000, 10, "removed")
    entry = small("stream", "show", "s", "--json").record
    assert entry["oldest"] > 10 and entry["end"] == 20


def test_damage_is_shown_with_its_offsets(small):
    small("stream", "create", "s", "--durable")
    assert publish_each(small, ["s"] * 9, b"x" * 1000) == 9
    small.stop()
    with open(segments_of(small)[0], "r+b") as f:
        f.seek(32 + 28 + 500)
        f.write(b"y")
    small.start()
    wait_until(lambda: small("stream", "show", "s", "--json").record["state"] == "damaged", 10, "found")
    entry = small("stream", "show", "s", "--json").record
    assert entry["damaged_ranges"] == 1 and entry["damage"][0]["first"] == 0
    shown = on_a_terminal(small.cli, "stream", "show", "s")
    assert re.search(r"^state +damaged$", shown, re.M)
    assert re.search(r"^damaged +offsets 0 to \d+ cannot be read$", shown, re.M)
    small("pub", "s", "x")


def test_a_log_that_cannot_be_opened_is_shown_with_the_reason_and_the_others_serve(dev):
    dev("stream", "create", "bad", "--durable")
    (log,) = logs_of(dev)
    dev("stream", "create", "good", "--durable")
    dev.stop()
    path = dev.broker.path(os.path.join("streams", log))
    os.rename(path, path + ".away")
    with open(path, "w"):
        pass
    dev.start()
    bad, good = dev("stream", "list", "--json").records
    assert (bad["state"], good["state"]) == ("failed", "ok")
    assert bad["reason"]
    dev("pub", "good", "x")
    dev("pub", "bad", "x", status=4)
    os.remove(path)


# ---- who may, and where


def test_a_token_without_the_permission_is_told_which_one(dev, tmp_path):
    path = tmp_path / "token"
    mint = ["token", "mint", "--key", dev.broker.path("signing-key.jwk"), "--tenant", "t1", "--subject", "p:a"]
    dev(*mint, "--perm", "stream.publish:stream:t1/*", "--perm", "stream.manage:stream:t1/default/a*", "--out", path)
    dev("stream", "create", "ab", "--token-file", path)
    err = dev("stream", "create", "b", "--token-file", path, status=4).err
    assert "stream.manage:stream:t1/default/b" in err
    err = dev("stream", "list", "--token-file", path, status=4).err
    assert "stream.manage:stream:t1/default/*" in err
    assert dev.names() == ["ab"]


def test_a_broker_that_is_not_for_development_names_its_configuration(start_scope, tmp_path):
    scope = start_scope()
    path = tmp_path / "token"
    path.write_text(scope.token(perms=[*tokens.every_permission("t1"), "stream.manage:stream:t1/*"]))
    felix = Cli(tmp_path / "home", FELIX_SERVER=scope.broker.address, FELIX_CA_FILE=scope.cert_path,
                FELIX_TOKEN_FILE=path)  # fmt: skip
    assert [r["stream"] for r in felix("stream", "list", "--json").records] == ["orders", "other"]
    assert felix("stream", "show", "orders", "--json").record["origin"] == "scope"
    for command in ("create", "delete"):
        err = felix("stream", command, "orders", status=4).err
        assert "scope section of" in err and "felix.yml" in err and "SIGHUP" in err
    assert not os.path.exists(scope.broker.path("streams.json"))


SCOPE = """
scope:
  tenants:
    t1:
      namespaces:
        other: {streams: [%s]}
"""


def test_what_the_scope_names_is_left_to_it(dev):
    there = ["--namespace", "other"]
    dev("stream", "create", "both", *there)
    dev.restart(yaml=SCOPE % "both, one")
    assert {r["stream"]: r["origin"] for r in dev("stream", "list", "--json", *there).records} == {
        "both": "scope",
        "one": "scope",
    }
    assert "stream_named_twice" in dev.broker.log()
    err = dev("stream", "delete", "one", *there, status=4).err
    assert "scope section of" in err and "SIGHUP" in err
    assert dev("stream", "create", "one", "--json", *there).record["outcome"] == "exists"


def test_what_is_made_by_command_outlives_a_new_scope(dev):
    there = ["--namespace", "other"]
    dev.restart(yaml=SCOPE % "one")
    dev("stream", "create", "mine", *there)
    with open(dev.broker.config_path, "w") as out:
        out.write(SCOPE % "two")
    dev.broker.signal(1)
    wait_until(lambda: "scope_reloaded" in dev.broker.log(), 10, "reloaded")
    assert dev.names(*there) == ["mine", "two"]


def test_another_retention_of_the_scope_counts_at_once(dev):
    scope = SCOPE.replace("[%s]", "{s: {durable: true, retention_bytes: %s}}")
    there = ["--namespace", "other"]
    dev.restart(yaml=scope % "1GiB")
    assert "SIGHUP" in dev("stream", "create", "s", "--durable", "--retention-bytes", "5", *there, status=4).err
    with open(dev.broker.config_path, "w") as out:
        out.write(scope % "2GiB")
    dev.broker.signal(1)
    wait_until(lambda: "scope_reloaded" in dev.broker.log(), 10, "reloaded")
    assert "need_restart=0" in dev.broker.log()
    assert retention(dev("stream", "show", "s", "--json", *there).record) == (None, 2 << 30, 0)


def test_a_catalog_that_cannot_be_read_stops_nothing_and_is_not_overwritten(dev):
    dev("stream", "create", "a", "--namespace", "other")
    dev.stop()
    path = dev.broker.path("streams.json")
    with open(path, "a") as out:
        out.write("rot")
    with open(path) as f:
        before = f.read()
    dev.start()
    assert "catalog_unreadable" in dev.broker.log()
    assert dev.names("--namespace", "other") == []
    err = dev("stream", "create", "b", "--namespace", "other", status=4).err
    assert "repair the file" in err
    with open(path) as f:
        assert f.read() == before


# ---- what a broker may answer


def agreed():
    return frames.message("auth_ok", server_flags=0x7F, server_features=0x2804, felix_c=4)


@pytest.mark.parametrize(
    "auth, said, status, text",
    [
        (frames.AUTH_OK, None, 4, "does not take such commands"),
        (agreed(), frames.message("unsupported", request_type="extension"), 4, "does not know the request"),
        (agreed(), frames.message("error", message="no disk", code="storage"), 4, "no disk"),
        (agreed(), frames.message("extension_result", name="felix.streams", body={}), 3, "unreadable answer"),
        (agreed(), frames.message("extension_result", name="felix.streams",
                                  body={"outcome": "listed", "streams": []}), 3, "unreadable answer"),
        (agreed(), frames.message("ok"), 3, "unexpected answer"),
        (agreed(), frames.frame(0, b"{"), 3, "unreadable answer"),
    ],
)  # fmt: skip
def test_what_a_broker_answers_is_told(tmp_path, auth, said, status, text):
    def on_frame(stream, frame):
        assert frame.json()["type"] == "extension"
        stream.say(said)

    with FakeBroker(tmp_path, on_frame, auth) as fake:
        felix = Cli(tmp_path / "home", FELIX_SERVER=fake.address, FELIX_CA_FILE=fake.ca, FELIX_AUTH_TOKEN="x")
        assert text in felix("stream", "show", "s", status=status).err


def test_a_list_that_leads_nowhere_ends(tmp_path):
    numbers = dict.fromkeys(("bytes", "segments", "oldest", "end", "subscriptions", "retention_bytes",
                             "retention_seconds", "damaged_ranges"), 0)  # fmt: skip
    entry = {"stream": "a", "durable": False, "origin": "use", "state": "ok", **numbers}
    page = {"outcome": "listed", "streams": [entry], "more": True}

    def on_frame(stream, frame):
        stream.say(frames.message("extension_result", name="felix.streams", request_id=1, body=page))

    with FakeBroker(tmp_path, on_frame, agreed()) as fake:
        felix = Cli(tmp_path / "home", FELIX_SERVER=fake.address, FELIX_CA_FILE=fake.ca, FELIX_AUTH_TOKEN="x")
        assert "unreadable answer" in felix("stream", "list", status=3).err


def test_silence_is_a_timeout(tmp_path):
    with FakeBroker(tmp_path, lambda stream, frame: None, agreed()) as fake:
        felix = Cli(tmp_path / "home", FELIX_SERVER=fake.address, FELIX_CA_FILE=fake.ca, FELIX_AUTH_TOKEN="x")
        assert "in time" in felix("stream", "list", "--timeout", "300ms", status=5).err
