"""The felix command: what it prints, where, and with which status it ends."""

import base64
import os
import re
import shutil
import signal
import socket
import stat
import subprocess

import pytest

from felix_testlib import client as clients
from felix_testlib import tokens
from felix_testlib.broker import REPO, binary, environment
from felix_testlib.cli import Cli, on_a_terminal, vanish
from felix_testlib.slow import scaled, wait_until

NS = clients.NAMESPACE
COMMANDS = [
    "pub", "sub", "stream create", "stream list", "stream show", "stream delete", "cache put", "cache get",
    "cache del", "ping", "bench pub", "bench sub", "bench cache", "bench latency", "log inspect", "log dump",
    "log verify", "log repair", "log backup", "log restore", "log write", "log bench", "token mint",
    "token inspect", "token keygen", "version", "help",
]  # fmt: skip


@pytest.fixture
def felix(broker, tmp_path):
    cli = Cli.of(broker, tmp_path / "home")
    yield cli
    cli.close()


@pytest.fixture
def lonely(tmp_path):
    """felix where there is no broker."""
    cli = Cli(tmp_path / "home")
    yield cli
    cli.close()


@pytest.fixture
def strict(scope, tmp_path):
    """felix with a token for a broker that knows its streams by name."""
    path = tmp_path / "t1.token"
    path.write_text(scope.token())
    cli = Cli(tmp_path / "home", FELIX_SERVER=scope.broker.address, FELIX_CA_FILE=scope.cert_path,
              FELIX_TOKEN_FILE=path)  # fmt: skip
    yield cli
    cli.close()


@pytest.fixture
def keys(lonely, tmp_path):
    """A signing key of tenant t1 and its public half."""
    lonely("token", "keygen", "--out", tmp_path / "k.jwk", "--jwks", tmp_path / "jwks.json", "--tenant", "t1")
    return tmp_path / "k.jwk", tmp_path / "jwks.json"


def started_sub(felix, broker, *args, **more):
    """`felix sub`, once the broker has its subscription."""
    before = broker.metric("felix_subscriptions")
    running = felix.start("sub", *args, **more)
    wait_until(lambda: broker.metric("felix_subscriptions") > before or running.process.poll() is not None,
               10, "subscribed")  # fmt: skip
    return running


# ---- help, version, mistakes


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_on_standard_output(lonely, command):
    by_option = lonely(*command.split(), "--help")
    by_command = lonely("help", *command.split())
    assert by_option.text.startswith(f"felix {command}: ")
    assert by_option.err == ""
    if command != "help":
        assert by_command.out == by_option.out
    for code in ("0 done", "1 not found", "2 usage", "3 connection", "4 refused", "5 timeout", "130"):
        assert code in by_option.text


def test_the_overview_lists_every_command(lonely):
    text = lonely("help").text
    assert re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", text, re.M) == COMMANDS
    assert lonely("--help").text == text
    assert lonely(status=2).err == text


def test_version(lonely):
    assert re.fullmatch(r"felix \d+\.\d+\.\d+\n", lonely("version").text)
    assert lonely("--version").out == lonely("version").out
    assert lonely("version", "--json").record["name"] == "felix"


@pytest.mark.parametrize(
    "args, said",
    [
        (["nosuch"], "no command 'nosuch'"),
        (["cach"], "did you mean 'cache'?"),
        (["cache"], "which cache command?"),
        (["cache", "gte"], "did you mean 'get'?"),
        (["pub"], "too few arguments"),
        (["pub", "a", "b", "c"], "one argument too many, 'c'"),
        (["pub", "a", "b", "--cuont", "3"], "did you mean --count?"),
        (["pub", "a", "b", "--count", "0"], "--count: '0'"),
        (["pub", "a", "b", "--count"], "--count needs a value"),
        (["pub", "a", "b", "--ack", "some"], "none of none|message|batch"),
        (["pub", "a", "b", "--rate", "-1"], "--rate: '-1'"),
        (["pub", "a", "b", "--file", "x"], "exclude each other"),
        (["pub", "a", "b", "--key", "k", "--batch", "2"], "exclude each other"),
        (["sub", "a", "--from", "yesterday"], "none of latest, earliest, or an offset"),
        (["sub", "a", "--raw", "--json"], "exclude each other"),
        (["sub", "a", "--timeout", "soon"], "not a duration"),
        (["stream"], "which stream command?"),
        (["stream", "create"], "too few arguments"),
        (["stream", "create", "a", "--retention-bytes", "5"], "add --durable"),
        (["stream", "create", "a", "--durable", "--retention-bytes", "much"], "not a number of bytes"),
        (["stream", "create", "a", "--durable", "--retention-seconds", "1h"], "--retention-seconds: '1h'"),
        (["cache", "get", "a"], "too few arguments"),
        (["cache", "put", "a", "b", "c", "--ttl", "0"], "above zero"),
        (["ping", "--json=yes"], "--json takes no value"),
        (["token", "mint"], "--key FILE is missing"),
        (["token", "keygen"], "--out FILE is missing"),
        (["bench", "latency", "--size", "8"], "at least 24 bytes"),
        (["--server", "nowhere:0", "ping"], "not host:port"),
    ],
)
def test_a_mistake_is_named_and_ends_with_2(lonely, args, said):
    ended = lonely(*args, status=2)
    assert said in ended.err
    assert ended.out == b""


def test_a_variable_that_cannot_be_used_is_named(lonely):
    assert "FELIX_PUB_CONN_POOL" in lonely("ping", status=2, env={"FELIX_PUB_CONN_POOL": "many"}).err


# ---- publish and subscribe


def test_a_payload_is_published_and_received(felix, name):
    assert felix("pub", name, "hello").out == b"published\t1\t5\n"
    assert felix("sub", name, "--from", "earliest", "--count", "1").out == b"hello\n"


def test_every_line_of_standard_input_is_a_message(felix, name):
    lines = [b"one", b"", b"three \xff", b"x" * 300_000, b"the last, without a newline"]
    assert felix("pub", name, stdin=b"\n".join(lines)).text.startswith("published\t5\t")
    assert felix("sub", name, "--from", "earliest", "--count", "5").out == b"\n".join(lines) + b"\n"


def test_count_limits_the_lines_of_standard_input(felix, name):
    felix("pub", name, "--count", "2", stdin=b"1\n2\n3\n")
    assert felix("sub", name, "--from", "earliest", "--timeout", "300ms").lines == [b"1", b"2"]


def test_no_input_publishes_nothing(felix, name):
    assert felix("pub", name).out == b"published\t0\t0\n"


def test_a_line_is_published_at_once_although_more_may_come(felix, name):
    running = felix.start("pub", name, "--batch", "100")
    running.process.stdin.write(b"now\n")
    running.process.stdin.flush()
    assert felix("sub", name, "--from", "earliest", "--count", "1", "--timeout", "10s").lines == [b"now"]
    running.end(stdin=b"later\n")
    assert felix("sub", name, "--from", "1", "--count", "1").lines == [b"later"]


def test_a_refusal_is_said_while_input_is_awaited(strict):
    running = strict.start("pub", "no-such-stream")
    running.process.stdin.write(b"one\n")
    running.process.stdin.flush()
    assert running.process.wait(scaled(10)) == 1, "it waits for input although nothing can be published"
    assert "no-such-stream" in running.end(status=1).err


@pytest.mark.parametrize("ack", ["none", "message", "batch"])
def test_batches_with_every_kind_of_acknowledgement_keep_their_order(felix, name, ack):
    lines = b"".join(b"%d\n" % i for i in range(1000))
    felix("pub", name, "--batch", "64", "--ack", ack, stdin=lines)
    assert felix("sub", name, "--from", "earliest", "--count", "1000").out == lines


def test_a_file_goes_and_comes_byte_for_byte(felix, name, tmp_path):
    content = os.urandom(100_000)
    (tmp_path / "in").write_bytes(content)
    felix("pub", name, "--file", tmp_path / "in")
    felix("pub", name, "--file", "-", stdin=content)
    got = felix("sub", name, "--from", "earliest", "--count", "2", "--raw").out
    assert got == content + content


def test_a_file_that_cannot_be_read_ends_with_2_before_connecting(lonely, tmp_path):
    err = lonely("pub", "a", "--file", tmp_path / "none", status=2).err
    assert str(tmp_path / "none") in err and err.count("No such file") == 1


def test_count_repeats_the_payload(felix, name):
    assert felix("pub", name, "x", "--count", "250", "--batch", "100").out == b"published\t250\t250\n"
    assert felix("sub", name, "--from", "earliest", "--timeout", "300ms").lines == [b"x"] * 250


def test_rate_spreads_the_messages(felix, name):
    assert felix("pub", name, "x", "--count", "31", "--rate", "100").seconds >= 0.3


def test_a_key_is_sent(felix, broker, name):
    with clients.connect(broker) as client, client.subscribe(broker.tenant, NS, name) as events:
        felix("pub", name, "x", "--key", "k")
        assert clients.payloads(clients.take(events, 1)) == [b"x"]


def test_a_payload_over_the_frame_limit_ends_with_2(felix, name, tmp_path):
    (tmp_path / "big").write_bytes(bytes((16 << 20) + 1))
    assert "limit" in felix("pub", name, "--file", tmp_path / "big", status=2).err


def test_latest_begins_at_the_end(felix, broker, name):
    felix("pub", name, "old")
    running = started_sub(felix, broker, name, "--count", "1")
    felix("pub", name, "new")
    assert running.end().lines == [b"new"]


def test_an_offset_is_a_place_to_begin(felix, name):
    felix("pub", name, stdin=b"0\n1\n2\n")
    assert felix("sub", name, "--from", "1", "--count", "2").lines == [b"1", b"2"]
    err = felix("sub", name, "--from", "4", "--count", "1", status=4).err
    assert "4" in err and "3" in err


def test_nothing_in_time_ends_with_1_and_too_little_with_5(felix, name):
    assert "nothing was received" in felix("sub", name, "--timeout", "200ms", status=1).err
    felix("pub", name, "x")
    ended = felix("sub", name, "--from", "earliest", "--count", "2", "--timeout", "200ms", status=5)
    assert ended.out == b"x\n" and "only 1 of 2" in ended.err


def test_json_of_publish_and_subscribe(felix, name):
    payloads = ['quote " and \\', "ünïcode \U0001f600", "tab\tnul\x01"]
    record = felix("pub", name, "--json", stdin="\n".join(payloads).encode() + b"\n\xff\xfe\n").record
    assert record["messages"] == 4 and (record["namespace"], record["stream"]) == (NS, name)
    got = felix("sub", name, "--from", "earliest", "--count", "4", "--json").records
    assert [r["offset"] for r in got] == [0, 1, 2, 3]
    assert [r["payload"] for r in got[:3]] == payloads
    assert base64.b64decode(got[3]["payload_base64"]) == b"\xff\xfe"


def test_quiet_prints_only_what_was_asked_for(felix, name):
    assert felix("pub", name, "x", "-q").out == b""
    assert felix("cache", "put", name, "k", "v", "--quiet").out == b""
    assert felix("sub", name, "--from", "earliest", "--count", "1", "-q").out == b"x\n"


# ---- signals, pipes, terminals


def test_ctrl_c_is_the_normal_end_of_a_subscription(felix, broker, name):
    running = started_sub(felix, broker, name)
    felix("pub", name, "x")
    assert running.line() == b"x\n"
    running.signal(signal.SIGINT)
    assert running.end(0).err == ""


def test_ctrl_c_before_the_count_ends_with_130(felix, broker, name):
    running = started_sub(felix, broker, name, "--count", "2")
    felix("pub", name, "x")
    assert running.line() == b"x\n"
    running.signal(signal.SIGTERM)
    running.end(130)


def test_an_interrupted_publish_says_how_far_it_came(felix, name):
    running = felix.start("pub", name, "x", "--count", "100000", "--rate", "100")
    assert felix("sub", name, "--from", "earliest", "--count", "3", "--timeout", "10s").lines == [b"x"] * 3
    running.signal(signal.SIGINT)
    published = int(running.end(130).out.split(b"\t")[1])
    got = felix("sub", name, "--from", "earliest", "--timeout", "300ms").lines
    assert len(got) == published < 100000


def test_an_interrupted_wait_for_input_ends_with_130(felix, name):
    running = felix.start("pub", name)
    running.process.stdin.write(b"x\n")
    running.process.stdin.flush()
    felix("sub", name, "--from", "earliest", "--count", "1", "--timeout", "10s")
    running.signal(signal.SIGINT)
    assert running.process.wait(scaled(10)) == 130
    assert running.end(130).out == b"published\t1\t1\n"


def test_a_reader_that_goes_away_ends_a_quiet_subscription(felix, broker, name):
    running = started_sub(felix, broker, name)
    running.process.stdout.close()
    assert running.process.wait(scaled(5)) == 0


def test_a_reader_that_goes_away_ends_a_busy_subscription(felix, name):
    felix("pub", name, "x" * 100, "--count", "20000", "--batch", "100")
    running = felix.start("sub", name, "--from", "earliest")
    assert running.line() == b"x" * 100 + b"\n"
    running.process.stdout.close()
    assert running.process.wait(scaled(5)) == 0


@pytest.mark.parametrize("args", [["version"], ["sub", "NAME", "--from", "earliest", "--count", "1"]])
def test_a_full_disk_ends_with_2(felix, name, args):
    felix("pub", name, "x")
    with open("/dev/full", "wb") as full:
        ended = felix(*[name if a == "NAME" else a for a in args], status=2, stdout=full)
    assert "cannot write the output" in ended.err


def test_on_a_terminal_results_are_for_people(felix, name):
    assert re.fullmatch(rf"published 2,000 messages \(2,000 bytes\) to default/{name} in .*\n",
                        on_a_terminal(felix, "pub", name, "x", "--count", "2000"))  # fmt: skip
    assert on_a_terminal(felix, "cache", "put", name, "k", "v") == f"stored 1 bytes as 'k' in cache '{name}'\n"
    assert on_a_terminal(felix, "cache", "get", name, "k") == "v\n"
    assert re.match(r"pong from 127\.0\.0\.1:\d+: [\d.]+ (us|ms)\n",
                    on_a_terminal(felix, "ping", "--count", "1"))  # fmt: skip
    assert "p99.99" in on_a_terminal(felix, "bench", "latency", "--count", "10")


def test_a_payload_cannot_steer_the_terminal(felix, name):
    felix("pub", name, "\x1b]0;pwned\x07 \x9b31m ü")
    shown = on_a_terminal(felix, "sub", name, "--from", "earliest", "--count", "1")
    assert shown == "\\x1b]0;pwned\\x07 \\xc2\\x9b31m ü\n"


# ---- cache


def test_a_value_comes_back_byte_for_byte(felix, name):
    value = os.urandom(50_000)
    felix("cache", "put", name, "k", stdin=value)
    assert felix("cache", "get", name, "k").out == value


def test_a_miss_ends_with_1(felix, name):
    ended = felix("cache", "get", name, "k", status=1)
    assert ended.out == b"" and "no value 'k'" in ended.err
    felix("cache", "del", name, "k", status=1)


def test_delete_removes_a_value(felix, name):
    felix("cache", "put", name, "k", "v")
    felix("cache", "del", name, "k")
    felix("cache", "get", name, "k", status=1)


def test_a_value_with_a_time_to_live_is_forgotten(felix, name):
    felix("cache", "put", name, "k", "v", "--ttl", "1500ms")
    felix("cache", "put", name, "stays", "v")
    assert felix("cache", "get", name, "k").out == b"v"
    wait_until(lambda: felix.start("cache", "get", name, "k").process.wait(scaled(10)) == 1, 10, "forgotten")
    assert felix("cache", "get", name, "stays").out == b"v"


def test_json_of_the_cache(felix, name):
    assert felix("cache", "get", name, "k", "--json", status=1).record == {"found": False}
    assert felix("cache", "del", name, "k", "--json", status=1).record == {"deleted": False}
    stored = felix("cache", "put", name, "k", "a\nb", "--ttl", "1h", "--json").record
    assert stored == {"stored": True, "bytes": 3, "ttl_ms": 3600000}
    assert felix("cache", "get", name, "k", "--json").record == {"found": True, "value": "a\nb"}
    felix("cache", "put", name, "k", stdin=b"\xff")
    assert felix("cache", "get", name, "k", "--json").record == {"found": True, "value_base64": "/w=="}
    assert felix("cache", "del", name, "k", "--json").record == {"deleted": True}


# ---- ping


def test_ping(felix, broker):
    lines = felix("ping", "--count", "3", "--interval", "1ms").lines
    assert [line.split(b"\t")[0] for line in lines] == [b"1", b"2", b"3"]
    record = felix("ping", "--count", "3", "--interval", "1ms", "--json").record
    assert record["server"] == broker.address and record["count"] == len(record["rtt_us"]) == 3
    assert 0 < record["min_us"] <= record["mean_us"] <= record["max_us"]


# ---- a broker that vanishes


@pytest.fixture
def mortal(start_broker, tmp_path):
    """A broker that the test kills, and felix with it."""
    broker = start_broker()
    cli = Cli.of(broker, tmp_path / "home")
    yield broker, cli
    cli.close()


def test_a_publish_whose_broker_vanishes_ends_with_3(mortal, name):
    broker, felix = mortal
    running = felix.start("pub", name, "x", "--rate", "200", "--count", "100000")
    wait_until(lambda: broker.metric("felix_publish_items_total") > 0, 10, "published")
    vanish(broker)
    assert name in running.end(3).err


def test_ctrl_c_ends_a_subscription_at_once_without_its_broker(mortal, name):
    broker, felix = mortal
    running = started_sub(felix, broker, name)
    vanish(broker)
    running.signal(signal.SIGINT)
    assert running.end(0).seconds < scaled(3)


# ---- finding the broker, and what is said when there is none


def test_the_default_data_directory_is_found(start_broker, tmp_path):
    home = tmp_path / "home"
    broker = start_broker(args=["--data-dir", str(home / ".local/state/felix/dev")])
    Cli(home)("ping", "--count", "1", "--server", broker.address)
    state = Cli(tmp_path / "other", XDG_STATE_HOME=home / ".local/state", FELIX_SERVER=broker.address)
    state("ping", "--count", "1")


def test_options_win_over_variables(felix, broker, tmp_path):
    wrong = {"FELIX_SERVER": "127.0.0.1:1", "FELIX_CA_FILE": "/none", "FELIX_TOKEN_FILE": "/none",
             "FELIX_TENANT": "nobody", "FELIX_NAMESPACE": "nowhere"}  # fmt: skip
    felix("pub", "a", "x", "--server", broker.address, "--ca", broker.ca, "--token-file", broker.path("token"),
          "--tenant", "t1", "--namespace", NS, env=wrong)  # fmt: skip
    lonely = Cli(tmp_path / "empty", FELIX_SERVER=broker.address, FELIX_CA_FILE=broker.ca,
                 FELIX_TOKEN_FILE=broker.path("token"))  # fmt: skip
    lonely("pub", "a", "x")
    felix("pub", "a", "x", env={"FELIX_TENANT": "nobody"}, status=4)
    felix("pub", "a", "x", env={"FELIX_NAMESPACE": "nowhere"}, status=1)


@pytest.mark.parametrize(
    "args", [["pub", "a", "x"], ["sub", "a"], ["cache", "get", "a", "k"], ["ping"], ["bench", "pub"]]
)
def test_no_broker_is_said_at_once_with_its_address_and_what_to_do(lonely, args):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    ended = lonely(*args, "--server", address, status=3, env={"FELIX_AUTH_TOKEN": "some"})
    assert address in ended.err and "felix-broker --dev" in ended.err and "--server" in ended.err
    assert ended.seconds < scaled(3)


def test_an_address_that_stays_silent_is_given_up(lonely):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
        ended = lonely("ping", "--server", address, "--timeout", "500ms", status=3, env={"FELIX_AUTH_TOKEN": "some"})
    assert address in ended.err and ended.seconds < scaled(3)


def test_a_name_that_nobody_knows_ends_with_3(lonely):
    assert "broker.invalid" in lonely("ping", "--server", "broker.invalid:5000", status=3).err


def test_a_foreign_certificate_is_refused(felix, tmp_path):
    cert, _ = tokens.write_certificate(str(tmp_path))
    err = felix("ping", "--ca", cert, status=3).err
    assert "not trusted" in err.lower() and cert in err and "--ca" in err


def test_a_certificate_file_that_is_not_there_ends_with_2(felix):
    assert "/none.pem: No such file" in felix("ping", "--ca", "/none.pem", status=2).err


# ---- tokens that do not fit


def test_a_stranger_is_told_where_a_token_comes_from(lonely):
    err = lonely("ping", status=4).err
    assert "127.0.0.1:5000: no token" in err and "FELIX_TOKEN_FILE" in err and "--dev" in err


def test_a_token_file_that_is_not_there_ends_with_2(felix):
    err = felix("ping", "--token-file", "/none.token", status=2).err
    assert "/none.token" in err and err.count("No such file") == 1


@pytest.mark.parametrize(
    "token, said",
    [
        (lambda s: "nonsense", "holds no token"),
        (lambda s: s.token(iat=1000, exp=2000), "expired"),
        (lambda s: s.token(nbf=4_000_000_000), "not valid before"),
        (lambda s: s.token(tenant="t2"), "is for tenant 't2', not 't1'; see --tenant"),
        (lambda s: tokens.Issuer("t1").token(), "does not know the key"),
    ],
    ids=["garbage", "expired", "early", "tenant", "key"],
)
def test_a_token_that_the_broker_refuses_is_explained(strict, scope, tmp_path, token, said):
    path = tmp_path / "bad.token"
    path.write_text(token(scope))
    err = strict("ping", "--token-file", path, status=4).err
    assert said in err and str(path) in err


def test_what_a_token_does_not_permit_ends_with_4(strict, scope, tmp_path):
    path = tmp_path / "pub.token"
    path.write_text(scope.token(perms=["stream.publish:stream:t1/default/orders"]))
    strict("pub", "orders", "x", "--token-file", path)
    for args in (["pub", "other", "x"], ["sub", "orders"], ["cache", "get", "sessions", "k"]):
        assert "forbidden" in strict(*args, "--token-file", path, status=4).err


@pytest.mark.parametrize("args", [["pub", "none", "x"], ["sub", "none"], ["cache", "put", "none", "k", "v"],
                                  ["bench", "latency", "none"]])  # fmt: skip
def test_what_a_strict_broker_does_not_know_ends_with_1(strict, args):
    assert strict(*args, status=1).out == b""


# ---- making tokens


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_keys_and_tokens_are_for_their_owner_alone(lonely, keys, tmp_path):
    lonely("token", "mint", "--key", keys[0], "--tenant", "t1", "--subject", "p:a", "--all", "--out", tmp_path / "t")
    assert (mode(keys[0]), mode(tmp_path / "t")) == (0o600, 0o600)
    assert b'"d"' not in keys[1].read_bytes()


def test_a_broker_accepts_minted_tokens_for_what_they_permit(lonely, keys, start_scope, tmp_path, start_broker):
    """The keys of the test's own broker are those that felix made."""
    scope = start_scope(env={"FELIX_AUTH_JWKS_FILE": str(keys[1])})
    base = ["--server", scope.broker.address, "--ca", scope.cert_path]
    mint = ["token", "mint", "--key", keys[0], "--tenant", "t1", "--subject", "p:alice", "--ttl", "5m"]
    lonely(*mint, "--perm", "stream.publish:stream:t1/default/orders", "--out", tmp_path / "one")
    lonely(*mint, "--all", "--out", tmp_path / "all")
    lonely("pub", "orders", "x", "--token-file", tmp_path / "one", *base)
    lonely("sub", "orders", "--token-file", tmp_path / "one", *base, status=4)
    assert lonely("sub", "orders", "--from", "earliest", "--count", "1", "--token-file", tmp_path / "all",
                  *base).lines == [b"x"]  # fmt: skip
    lonely("cache", "put", "sessions", "k", "v", "--token-file", tmp_path / "all", *base)


def test_inspect_shows_what_mint_made(lonely, keys, tmp_path):
    token = lonely("token", "mint", "--key", keys[0], "--tenant", "t1", "--subject", "p:alice", "--ttl", "5h",
                   "--perm", "cache.read:cache:t1/default/a", "--perm", "cache.write:cache:t1/default/a").text.strip()  # fmt: skip
    record = lonely("token", "inspect", token, "--jwks", keys[1], "--json").record
    claims = record["claims"]
    assert (claims["tid"], claims["sub"], claims["exp"] - claims["iat"]) == ("t1", "p:alice", 18000)
    assert claims["perms"] == ["cache.read:cache:t1/default/a", "cache.write:cache:t1/default/a"]
    assert record["header"]["alg"] == "EdDSA" and record["valid_now"] and record["accepted"]
    (tmp_path / "file").write_text(token + "\n")
    by_file, by_input = lonely("token", "inspect", tmp_path / "file"), lonely("token", "inspect", stdin=token.encode())
    assert by_file.out == by_input.out == lonely("token", "inspect", token).out
    assert '"p:alice"' in by_file.text and "valid for 5 hours" in by_file.text


def test_inspect_verifies(lonely, keys, tmp_path):
    token = tokens.Issuer("t1").token()
    assert lonely("token", "inspect", token).status == 0
    assert lonely("token", "inspect", token, "--jwks", keys[1], "--json", status=4).record["accepted"] is False
    expired = lonely("token", "inspect", tokens.Issuer("t1").token(exp=1000), "--json").record
    assert expired["valid_now"] is False and "expired" in expired["validity"]
    assert "no token" in lonely("token", "inspect", stdin=b"nonsense", status=2).err


def test_inspect_prints_one_line_whatever_the_token_holds(lonely):
    def part(text):
        return tokens.b64url(text.encode())

    token = part('{"alg":\n"none"}') + "." + part('{\r\n "sub": "a\\nb",\n "x": [1,\n2]}') + "." + part("s")
    record = lonely("token", "inspect", token, "--json").record
    assert record["claims"] == {"sub": "a\nb", "x": [1, 2]}


def test_mint_as_json_and_a_missing_permission(lonely, keys):
    mint = ["token", "mint", "--key", keys[0], "--tenant", "t1", "--subject", "p:a"]
    assert lonely(*mint, "--all", "--json").record["token"].count(".") == 2
    assert "--perm" in lonely(*mint, status=2).err


# ---- the published client on the other side


def test_the_published_client_publishes_and_felix_receives(felix, broker, name):
    running = started_sub(felix, broker, name, "--count", "100")
    with clients.connect(broker) as client:
        for i in range(100):
            client.publish(broker.tenant, NS, name, b"%d" % i)
    assert running.end().lines == [b"%d" % i for i in range(100)]


def test_felix_publishes_and_the_published_client_receives(felix, broker, name):
    with clients.connect(broker) as client, client.subscribe(broker.tenant, NS, name) as events:
        felix("pub", name, "--batch", "16", stdin=b"".join(b"%d\n" % i for i in range(100)))
        assert clients.payloads(clients.take(events, 100)) == [b"%d" % i for i in range(100)]


def test_the_cache_is_the_same_for_both(felix, broker, name):
    with clients.connect(broker) as client:
        client.cache_put(broker.tenant, NS, name, "k", b"from python")
        assert felix("cache", "get", name, "k").out == b"from python"
        felix("cache", "put", name, "k", "from felix")
        assert client.cache_get(broker.tenant, NS, name, "k") == b"from felix"


# ---- completion and manual pages


def complete(words):
    """What bash offers for the last of the words."""
    script = os.path.join(REPO, "src", "cli", "completion.bash")
    code = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _felix felix; printf "%s\\n" "${COMPREPLY[@]}"'
    env = environment("/nonexistent")
    env["PATH"] = os.path.dirname(binary()) + os.pathsep + env["PATH"]
    got = subprocess.run(["bash", "-c", code, "bash", script, "felix", *words], env=env, capture_output=True, text=True)
    assert (got.returncode, got.stderr) == (0, "")
    return got.stdout.split()


@pytest.mark.parametrize(
    "words, offered",
    [
        ([""], ["pub", "sub", "stream", "cache", "ping", "bench", "log", "token", "version", "help"]),
        (["be"], ["bench"]),
        (["cache", ""], ["put", "get", "del"]),
        (["stream", ""], ["create", "list", "show", "delete"]),
        (["stream", "create", "--r"], ["--retention-bytes", "--retention-seconds"]),
        (["--server", "cache", "bench", "l"], ["latency"]),
        (["pub", "--ack", ""], ["none", "message", "batch"]),
        (["pub", "--ack", "=", "m"], ["message"]),
        (["sub", "--from", ""], ["latest", "earliest"]),
        (["-q", "sub", "orders", "--c"], ["--count", "--ca"]),
        (["bench", "cache", "--op", "g"], ["get"]),
        (["help", "token", "in"], ["inspect"]),
        (["--t"], ["--token-file", "--tenant", "--timeout"]),
        (["pub", "orders", ""], []),
    ],
)
def test_completion_offers_commands_options_and_words(words, offered):
    assert complete(words) == offered


def test_completion_is_registered():
    script = os.path.join(REPO, "src", "cli", "completion.bash")
    got = subprocess.run(["bash", "-c", f'source "{script}" && complete -p felix'], capture_output=True, text=True)
    assert got.stdout == "complete -F _felix felix\n"


def page(name):
    with open(os.path.join(REPO, "docs", "man", name + ".scd")) as f:
        return f.read()


@pytest.mark.parametrize("name", ["felix.1", "felix-broker.1"])
def test_a_manual_page_is_clean(name, tmp_path):
    roff = subprocess.run(["scdoc"], input=page(name), capture_output=True, text=True)
    assert (roff.returncode, roff.stderr) == (0, "")
    (tmp_path / name).write_text(roff.stdout)
    if shutil.which("man") is None:
        return  # scdoc itself was strict; only the look for warnings of groff is left out
    shown = subprocess.run(["man", "--warnings", "-l", str(tmp_path / name)], capture_output=True, text=True,
                           env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")


def test_the_manual_page_names_every_command_and_option(lonely):
    text = page("felix.1").replace("\\", "")
    for command in COMMANDS:
        helped = lonely(*command.split(), "--help").text
        for option in re.findall(r"^  (?:-[a-z], )?(--[a-z-]+)", helped, re.M):
            assert f"*{option}*" in text, f"{command} {option}"
        head = "## felix bench pub|sub|cache|latency" if command.startswith("bench") else f"## felix {command}"
        assert head in text or command in ("version", "help"), command
