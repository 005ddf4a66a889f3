"""The broker as a program: settings, signals, files, listeners, logs."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time

import pytest
import yaml

from felix_testlib import client as clients
from felix_testlib import frames, tokens
from felix_testlib.broker import Broker, binary, environment, run
from felix_testlib.slow import FACTOR, scaled, wait_until

NS = "default"


# ---- the command line


def test_help_names_every_flag_and_needs_nothing():
    got = run("--help", env={"FELIX_QUIC_BIND": "nonsense"})
    assert got.returncode == 0, got.stderr
    for flag in ("--dev", "--data-dir", "--quic-bind", "--metrics-bind", "--config", "--print-config"):
        assert flag in got.stdout
    assert got.stderr == ""


def test_version():
    got = run("--version")
    assert got.returncode == 0
    assert re.search(r"\d+\.\d+\.\d+", got.stdout)


def test_print_config_is_yaml_that_can_be_read_back(tmp_path):
    got = run("--print-config", "--dev", env={"FELIX_CORE_SHARDS": "3"})
    assert got.returncode == 0, got.stderr
    values = yaml.safe_load(got.stdout)
    assert int(values["core_shards"]) == 3
    path = tmp_path / "felix.yml"
    path.write_text(got.stdout)
    again = run("--print-config", "--config", path)
    assert again.returncode == 0, again.stderr
    assert yaml.safe_load(again.stdout)["core_shards"] == values["core_shards"]
    assert run("--check-config", "--config", path).returncode == 0


def test_precedence_is_file_then_environment_then_flag(tmp_path):
    path = tmp_path / "felix.yml"
    path.write_text("core_shards: 2\nmax_frame_bytes: 1000000\nfanout_batch_size: 7\n")

    def value(key, *args, **env):
        got = run("--print-config", "--config", path, *args, env=env)
        assert got.returncode == 0, got.stderr
        return int(yaml.safe_load(got.stdout)[key])

    assert value("core_shards") == 2
    assert value("core_shards", FELIX_CORE_SHARDS="3") == 3
    assert value("core_shards", "--core-shards", "4", FELIX_CORE_SHARDS="3") == 4
    assert value("core_shards", "--core-shards=5") == 5
    assert value("fanout_batch_size") == 7


@pytest.mark.parametrize(
    "name, value",
    [
        ("FELIX_QUIC_BIND", "localhost:5000"),
        ("FELIX_QUIC_BIND", ""),
        ("FELIX_QUIC_BIND", "127.0.0.1:65536"),
        ("FELIX_BROKER_METRICS_BIND", "8080"),
        ("FELIX_CORE_SHARDS", "two"),
        ("FELIX_CORE_SHARDS", "-1"),
        ("FELIX_CORE_SHARDS", "257"),
        ("FELIX_MAX_FRAME_BYTES", "0"),
        ("FELIX_MAX_FRAME_BYTES", "16 apples"),
        ("FELIX_IDLE_TIMEOUT_MS", "1"),
        ("FELIX_SUB_QUEUE_POLICY", "drop_some"),
        ("FELIX_EVENT_BATCH_MAX_EVENTS", "0"),
        ("FELIX_TLS_REQUIRE_ALPN", "perhaps"),
        ("FELIX_LOG_FORMAT", "xml"),
        ("FELIX_INITIAL_MTU", "1199"),
        ("FELIX_PROFILE", "fast"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start_and_says_why(name, value):
    for args in (["--check-config"], ["--dev"]):
        got = run(*args, env={name: value})
        assert got.returncode not in (0, None) and got.returncode > 0, got.stdout
        assert name in got.stderr, got.stderr
        if value:
            assert value in got.stderr, got.stderr
        assert len(got.stderr) > len(name) + len(value) + 10, got.stderr
        assert "ready" not in got.stdout


@pytest.mark.parametrize(
    "text, said",
    [
        ("core_shards: two\n", ["core_shards", "two", ":1"]),
        ("\n\ncore_shard: 2\n", ["core_shard", ":3"]),
        ("core_shards: 1\ncore_shards: 2\n", ["core_shards", "more than once"]),
        ("core_shards: [1]\n", ["core_shards"]),
        ("core_shards: 1\n  x: :\n", ["not valid YAML"]),
        ("scope:\n  tenants:\n    t1: []\n", ["tenant"]),
        ("scope:\n  tenants:\n    t1:\n      namespaces:\n        n:\n          streams: [a, a]\n", ["more than once"]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_stops_the_start_with_its_line(tmp_path, text, said):
    path = tmp_path / "bad.yml"
    path.write_text(text)
    got = run("--check-config", "--config", path)
    assert got.returncode > 0
    for part in [str(path), *said]:
        assert part in got.stderr, got.stderr


def test_a_file_that_is_not_there_or_not_readable_stops_the_start(tmp_path):
    got = run("--check-config", "--config", tmp_path / "missing.yml")
    assert got.returncode > 0 and "missing.yml" in got.stderr
    got = run("--check-config", env={"FELIX_BROKER_CONFIG": str(tmp_path)})
    assert got.returncode > 0 and str(tmp_path) in got.stderr


@pytest.mark.parametrize("args", [["--no-such-flag"], ["--core-shards"], ["stray"], ["--dev=perhaps"]])
def test_wrong_usage_is_told_apart(args):
    got = run(*args)
    assert got.returncode > 0
    assert args[0].lstrip("-").split("=")[0] in got.stderr, got.stderr


def test_settings_of_other_programs_and_of_the_original_are_no_errors():
    got = run(
        "--check-config",
        env={"FELIX_CONTROLPLANE_URL": "http://x", "FELIX_PUB_CONN_POOL": "4",
             "FELIX_DURABLE_FSYNC_MODE": "none", "FELIX_SUB_EGRESS_LANES": "4"},
    )  # fmt: skip
    assert got.returncode == 0, got.stderr


def test_without_keys_and_without_dev_it_refuses_and_says_what_to_do(tmp_path):
    got = run("--data-dir", tmp_path / "d", "--quic-bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0")
    assert got.returncode == 1
    assert "FELIX_AUTH_JWKS_FILE" in got.stderr and "--dev" in got.stderr, got.stderr


@pytest.mark.parametrize("content", ["", "{}", '{"keys":[]}', '{"keys":[{"kty":"RSA"}]}', "not json"])
def test_keys_that_cannot_be_used_stop_the_start(tmp_path, content):
    path = tmp_path / "jwks.json"
    path.write_text(content)
    got = run("--data-dir", tmp_path / "d", "--quic-bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0",
              "--auth-jwks-file", path)  # fmt: skip
    assert got.returncode == 1
    assert str(path) in got.stderr, got.stderr


@pytest.mark.parametrize("broken", ["missing", "empty", "swapped", "foreign_key", "one_of_two"])
def test_certificates_that_cannot_be_used_stop_the_start(tmp_path, broken):
    cert, key = tokens.write_certificate(tmp_path)
    _, other_key = tokens.write_certificate(tmp_path, "other")
    if broken == "missing":
        os.unlink(cert)
    elif broken == "empty":
        open(cert, "w").close()
    elif broken == "swapped":
        cert, key = key, cert
    elif broken == "foreign_key":
        key = other_key
    env = {"FELIX_TLS_CERT": cert, "FELIX_TLS_KEY": key}
    if broken == "one_of_two":
        del env["FELIX_TLS_KEY"]
    got = run("--dev", "--data-dir", tmp_path / "d", "--quic-bind", "127.0.0.1:0",
              "--metrics-bind", "127.0.0.1:0", env=env)  # fmt: skip
    assert got.returncode == (2 if broken == "one_of_two" else 1), got.stderr
    assert (cert in got.stderr or "FELIX_TLS_CERT" in got.stderr), got.stderr
    assert "PRIVATE KEY" not in got.stderr


@pytest.mark.parametrize("which", ["quic", "http"])
def test_an_address_in_use_stops_the_start(tmp_path, which):
    kind = socket.SOCK_DGRAM if which == "quic" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        if which == "http":
            s.listen()
        taken = f"127.0.0.1:{s.getsockname()[1]}"
        quic, http = (taken, "127.0.0.1:0") if which == "quic" else ("127.0.0.1:0", taken)
        got = run("--dev", "--data-dir", tmp_path, "--quic-bind", quic, "--metrics-bind", http)
    assert got.returncode == 1
    assert taken in got.stderr, got.stderr
    assert "felix-broker ready" not in got.stdout


def test_a_data_directory_that_cannot_be_made_stops_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    got = run("--dev", "--data-dir", tmp_path / "file" / "below", "--quic-bind", "127.0.0.1:0",
              "--metrics-bind", "127.0.0.1:0")  # fmt: skip
    assert got.returncode == 1 and "below" in got.stderr, got.stderr


# ---- files


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_secrets_are_for_their_owner_only(broker):
    assert mode(broker.data_dir) & 0o077 == 0
    assert mode(broker.path("token")) == 0o600
    for name in os.listdir(broker.data_dir):
        path = broker.path(name)
        if not os.path.isfile(path) or name == "ca.pem":
            continue
        assert mode(path) & 0o077 == 0, (name, oct(mode(path)))
    with open(broker.ca) as f:
        assert "PRIVATE" not in f.read()


def test_secrets_keep_their_mode_under_any_umask(tmp_path):
    old = os.umask(0)
    try:
        broker = Broker(tmp_path)
    finally:
        os.umask(old)
    for name in os.listdir(broker.data_dir):
        if name != "ca.pem":
            assert mode(broker.path(name)) & 0o077 == 0, name
    broker.stop()


def test_a_restart_keeps_certificate_and_keys(tmp_path):
    first = Broker(tmp_path)
    ca, token = open(first.ca).read(), first.token
    first.stop()
    second = Broker(tmp_path)
    assert open(second.ca).read() == ca
    with clients.connect(second, token=token) as c:
        assert c.cache_get(second.tenant, NS, "c", "k") is None
    second.stop()


@pytest.mark.parametrize("state", ["set", "unset"])
def test_the_data_directory_defaults_to_the_state_directory(tmp_path, state):
    env = environment(tmp_path / "home", {"XDG_STATE_HOME": str(tmp_path / "state")} if state == "set" else {})
    os.makedirs(tmp_path / "home")
    process = subprocess.Popen(
        [binary(), "--dev", "--quic-bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        directory = line.strip().partition("data-dir=")[2]
        root = tmp_path / "state" if state == "set" else tmp_path / "home" / ".local" / "state"
        assert directory.startswith(str(root) + "/felix"), line
        assert os.path.exists(os.path.join(directory, "token"))
    finally:
        process.terminate()
        assert process.wait(scaled(20)) == 0
        process.stdout.close()


def test_the_certificate_is_exported(start_broker, tmp_path):
    target = tmp_path / "exported.pem"
    broker = start_broker(env={"FELIX_TLS_CERT_EXPORT": str(target)})
    assert target.read_text() == open(broker.ca).read()
    with clients.connect(broker, ca_file=str(target)) as c:
        assert c.cache_get(broker.tenant, NS, "c", "k") is None


def test_the_made_certificate_is_what_clients_accept(broker):
    from cryptography import x509

    with open(broker.ca, "rb") as f:
        certificate = x509.load_pem_x509_certificate(f.read())
    assert certificate.version == x509.Version.v3
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)


# ---- listeners


def test_health_and_metrics(broker):
    status, kind, body = broker.http("/live")
    assert (status, body.strip()) == (200, "ok")
    assert broker.http("/ready")[0] == 200
    assert broker.http("/healthz")[0] == 200
    status, kind, body = broker.http("/metrics")
    assert status == 200 and kind.startswith("text/plain")
    assert "# TYPE " in body and "# HELP " in body
    assert broker.http("/live", "HEAD") == (200, kind := broker.http("/live", "HEAD")[1], "")
    assert broker.http("/live", "POST")[0] == 405
    assert broker.http("/metrics", "DELETE")[0] == 405
    assert broker.http("/nothing")[0] == 404
    assert broker.http("/metrics/../live")[0] in (404, 400)


def test_every_metric_is_typed_and_none_is_given_twice(broker):
    body = broker.http("/metrics")[2]
    typed, seen = set(), set()
    for line in body.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in typed, line
            typed.add(name)
        elif line and not line.startswith("#"):
            sample = line.rpartition(" ")[0]
            assert sample not in seen, line
            seen.add(sample)
            family = re.sub(r"_(bucket|sum|count)$", "", sample.split("{")[0])
            assert family in typed or sample.split("{")[0] in typed, line
            assert re.fullmatch(r"[-+0-9.eEInfNa]+", line.rpartition(" ")[2]), line


@pytest.mark.parametrize(
    "request_bytes",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n",
     b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
     b"GET /live HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
     b"GET /live HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
    ids=["empty", "no_path", "version", "zeros", "long_path", "many_headers", "huge_length", "chunked"],
)  # fmt: skip
def test_bad_http_hurts_nobody(broker, request_bytes):
    with socket.create_connection((broker.http_host, broker.http_port)) as s:
        s.settimeout(scaled(25))  # the listener gives up on a silent client after 10 s
        try:
            s.sendall(request_bytes)
            s.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: s.recv(65536), b""))
            assert answer == b"" or answer.startswith(b"HTTP/1."), answer[:100]
        except TimeoutError:
            raise
        except OSError:
            pass  # closed on us while we were still sending
    assert broker.http("/live")[0] == 200


def test_http_connections_that_say_nothing_do_not_block_others(broker):
    silent = [socket.create_connection((broker.http_host, broker.http_port)) for _ in range(50)]
    try:
        for s in silent[:25]:
            s.sendall(b"GET /li")
        assert broker.http("/live")[0] == 200
        assert broker.http("/metrics")[0] == 200
    finally:
        for s in silent:
            s.close()


def test_counters_count(start_broker, connect_peer, name):
    broker = start_broker()
    peer = connect_peer(broker)
    events = peer.subscribe(broker.tenant, broker.token, NS, name)[1]
    control = peer.authenticated(broker.tenant, broker.token)
    control.send(frames.publish(broker.tenant, NS, name, [b"abc"] * 10, request_id=1))
    assert control.ack().ok
    events.payloads(10)
    samples = broker.metrics()
    ones = {k for k, v in samples.items() if v == 1}
    tens = {k for k, v in samples.items() if v == 10}
    assert any("connections" in k for k in ones), samples
    assert any("subscriptions" in k for k in ones), samples
    assert any("publish" in k for k in tens), samples


# ---- the end


def test_sigterm_and_sigint_end_with_status_0(tmp_path):
    for i, number in enumerate((signal.SIGTERM, signal.SIGINT)):
        broker = Broker(tmp_path / str(i))
        broker.signal(number)
        assert broker.wait(10) == 0
        broker.judge()


def test_an_idle_client_is_told_and_the_end_is_quick(tmp_path, connect_peer):
    broker = Broker(tmp_path)
    peer = connect_peer(broker)
    peer.authenticated(broker.tenant, broker.token)
    _, events = peer.subscribe(broker.tenant, broker.token, NS, "s")
    start = time.monotonic()
    broker.signal(signal.SIGTERM)
    code, reason = peer.wait_closed(10)
    assert code == 0
    assert "shutting down" in reason, reason
    assert broker.wait() == 0
    assert time.monotonic() - start < scaled(10)
    broker.judge()


def test_a_drain_delivers_what_is_queued(tmp_path, connect_peer):
    broker = Broker(tmp_path, env={"FELIX_SUBSCRIBER_QUEUE_CAPACITY": "100000"})
    tenant, token = broker.tenant, broker.token
    reader = connect_peer(broker, max_stream_data=64 << 10, max_data=128 << 10)
    events = reader.subscribe(tenant, token, NS, "s")[1]
    publisher = connect_peer(broker, datagram_bytes=4000)
    control = publisher.authenticated(tenant, token)
    payload = os.urandom(2000)
    for i in range(2000):
        control.send(frames.publish(tenant, NS, "s", [payload + b"%d" % i], request_id=i))
    for i in range(2000):
        assert control.ack(30).ok
    broker.signal(signal.SIGTERM)
    assert events.payloads(2000, 30) == [payload + b"%d" % i for i in range(2000)]
    assert reader.wait_closed(30)[0] == 0
    assert broker.wait() == 0
    broker.judge()


def test_while_draining_it_lives_but_is_not_ready_and_takes_nobody(tmp_path, connect_peer):
    broker = Broker(tmp_path, env={"FELIX_SHUTDOWN_DRAIN_TIMEOUT_MS": "8000"})
    tenant, token = broker.tenant, broker.token
    # A subscriber that does not read keeps the drain waiting.
    stalled = connect_peer(broker, hold_windows=True, max_stream_data=16 << 10, max_data=64 << 10)
    stalled.subscribe(tenant, token, NS, "s")
    control = connect_peer(broker).authenticated(tenant, token)
    control.send(frames.publish(tenant, NS, "s", [bytes(100_000)], request_id=1))
    assert control.ack().ok
    broker.signal(signal.SIGTERM)
    wait_until(lambda: broker.http("/ready")[0] == 503, 5, "not ready")
    assert broker.http("/ready")[2].strip() == "draining"
    assert broker.http("/live")[0] == 200

    def newcomer_is_refused():
        late = connect_peer(broker, wait=False)
        late._wait(lambda: late.closed or late.ready, 5, "an answer to a new connection")
        return not late.ready

    # Readiness goes first, so that nobody is sent here any more; the reactors follow.
    wait_until(newcomer_is_refused, 5, "the refusal of a new connection")
    assert broker.wait(20) == 0
    assert "drain_incomplete" in broker.log()
    broker.judge()


def test_a_second_signal_ends_at_once_with_another_status(tmp_path, connect_peer):
    broker = Broker(tmp_path, env={"FELIX_SHUTDOWN_DRAIN_TIMEOUT_MS": "60000"})
    tenant, token = broker.tenant, broker.token
    stalled = connect_peer(broker, hold_windows=True, max_stream_data=16 << 10, max_data=64 << 10)
    stalled.subscribe(tenant, token, NS, "s")
    control = connect_peer(broker).authenticated(tenant, token)
    control.send(frames.publish(tenant, NS, "s", [bytes(100_000)], request_id=1))
    assert control.ack().ok
    broker.signal(signal.SIGTERM)
    wait_until(lambda: broker.http("/ready")[0] == 503, 5, "the drain")
    assert broker.process.poll() is None
    broker.signal(signal.SIGTERM)
    status = broker.wait(5)
    assert status not in (0, None), status
    broker.judge()


def test_a_lost_stdout_and_sigpipe_do_not_kill_it(tmp_path):
    os.makedirs(tmp_path / "home")
    process = subprocess.Popen(
        [binary(), "--dev", "--data-dir", str(tmp_path / "d"), "--quic-bind", "127.0.0.1:0",
         "--metrics-bind", "127.0.0.1:0"],
        env=environment(tmp_path / "home"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    http = re.search(r"http=(\S+)", line)[1]
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    host, _, port = http.rpartition(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as s:
            s.sendall(b"GET /live HTTP/1.1\r\n\r\n")
        time.sleep(0.1)
    assert process.poll() is None
    process.terminate()
    assert process.wait(scaled(20)) == 0


# ---- reload


def served_certificate(broker, connect_peer):
    peer = connect_peer(broker, ca=None)
    der = peer.quic.tls._peer_certificate
    peer.close()
    return der


@pytest.mark.parametrize("how", ["SIGHUP", "file"])
def test_a_new_certificate_is_served_without_dropping_a_connection(start_scope, connect_peer, tmp_path, how):
    s = start_scope()
    directory = os.path.dirname(s.cert_path)
    peer = connect_peer(s.broker)
    _, events = peer.subscribe("t1", s.token(), NS, "orders")
    control = peer.authenticated("t1", s.token())
    before = served_certificate(s.broker, connect_peer)
    if how == "SIGHUP":
        # Written in place of a link, so that nothing but the signal tells.
        new_cert, new_key = tokens.write_certificate(tmp_path, "new", "after")
        shutil.copy(new_cert, s.cert_path)
        shutil.copy(new_key, s.key_path)
        s.broker.signal(signal.SIGHUP)
    else:
        tokens.write_certificate(directory, "tls", "after")
    wait_until(lambda: served_certificate(s.broker, connect_peer) != before, 10, "the new certificate")
    control.send(frames.publish("t1", NS, "orders", [b"x"], request_id=1))
    assert control.ack().ok and events.payloads(1) == [b"x"]
    connect_peer(s.broker, ca=s.cert_path)


def test_a_reload_that_fails_keeps_the_old_certificate(start_scope, connect_peer):
    s = start_scope()
    before = served_certificate(s.broker, connect_peer)
    with open(s.cert_path, "w") as f:
        f.write("not a certificate")
    s.broker.signal(signal.SIGHUP)
    wait_until(lambda: "reload_failed" in s.broker.log(), 10, "the failure in the log")
    assert served_certificate(s.broker, connect_peer) == before


def test_new_keys_are_served_after_a_reload_and_old_ones_are_not(start_scope, connect_peer):
    s = start_scope()
    old_token = s.token()
    old = connect_peer(s.broker).authenticated("t1", old_token)
    new = tokens.Issuer("t1", kid="new")
    with open(s.jwks_path + ".new", "w") as f:
        f.write(tokens.jwks(new))
    os.rename(s.jwks_path + ".new", s.jwks_path)
    s.broker.signal(signal.SIGHUP)

    def accepted(token):
        stream = connect_peer(s.broker).bi().send(frames.auth("t1", token))
        return stream.json()["type"] == "auth_ok"

    wait_until(lambda: accepted(new.token()), 10, "the new key")
    assert not accepted(old_token)
    # What was authenticated stays.
    old.send(frames.publish("t1", NS, "orders", [b"x"], request_id=1))
    assert old.ack().ok


# ---- logs


def test_log_lines_are_json_on_request(start_broker, connect_peer):
    broker = start_broker(env={"FELIX_LOG_FORMAT": "json"})
    connect_peer(broker).bi().send(frames.auth(broker.tenant, "not.a.token")).expect("error")
    broker.stop()
    broker.settled = True
    lines = [x for x in broker.errors if x.strip()]
    assert len(lines) >= 3, broker.log()
    for line in lines:
        assert isinstance(json.loads(line), dict), line


def test_a_refused_token_is_logged_without_the_token(start_broker, connect_peer):
    broker = start_broker()
    stranger = tokens.Issuer(broker.tenant).token()
    broker.secrets.append(stranger)
    for _ in range(50):
        connect_peer(broker).bi().send(frames.auth(broker.tenant, stranger)).expect("error")
    wait_until(lambda: "auth_failed" in broker.log(), 5, "the refusal in the log")
    assert stranger[:40] not in broker.log()
    # A flood of refusals is not a flood of lines.
    assert broker.log().count("auth_failed") < 30


def test_hostile_names_do_not_break_the_log(start_broker, connect_peer):
    broker = start_broker(env={"FELIX_LOG": "debug"})
    peer = connect_peer(broker)
    for tenant in ("a\nfake=line", "\x1b[31mred", 'quote"d', "x" * 10_000, "\u2028"):
        peer.bi().send(frames.auth(tenant, "t")).expect("error")
    broker.stop()
    broker.settled = True
    assert not any(line.startswith("fake=line") for line in broker.errors)
    assert "\x1b" not in broker.log()
    assert all(len(line) < 5000 for line in broker.errors)


# ---- idleness


def strace_works():
    if not shutil.which("strace"):
        return False
    got = subprocess.run(["strace", "-c", "true"], capture_output=True)
    return got.returncode == 0


@pytest.mark.skipif(not strace_works(), reason="strace is not there or may not attach")
@pytest.mark.skipif(FACTOR > 1, reason="a sanitizer's own threads wake up")
@pytest.mark.parametrize("clients_connected", [0, 1])
def test_an_idle_broker_makes_no_wake_ups(start_broker, connect_peer, tmp_path, clients_connected):
    broker = start_broker()
    for _ in range(clients_connected):
        connect_peer(broker).subscribe(broker.tenant, broker.token, NS, "s")
    time.sleep(2)  # acknowledgements, path MTU probes
    seconds = 5
    report = tmp_path / "strace"
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-o", str(report), "-p", str(broker.pid)], stderr=subprocess.PIPE
    )
    time.sleep(seconds)
    tracer.send_signal(signal.SIGINT)
    _, errors = tracer.communicate(timeout=30)
    if b"ptrace" in errors and b"Operation not permitted" in errors:
        pytest.skip("strace may not attach to processes here")
    calls = 0
    for line in report.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0][0].isdigit() and fields[-1] != "total":
            calls += int(fields[3])
    # Attaching itself restarts the waits of a handful of threads.
    assert calls <= 12 + 20 * clients_connected, report.read_text()


# ---- the scope, read again


def write_scope(s, streams, caches):
    s.STREAMS, s.CACHES = streams, caches
    with open(s.broker.config_path, "w") as out:
        out.write(s.scope_yaml())


def publish_is_taken(peer, s, stream):
    control = peer.authenticated("t1", s.token())
    control.send(frames.publish("t1", NS, stream, [b"x"], request_id=1))
    answer = control.frame()
    if answer.flags == 0:
        assert answer.json()["type"] == "publish_error" and "stream not found" in answer.json()["message"]
        return False
    return frames.decode_ack(answer).ok


@pytest.mark.parametrize("reactors", ["1", "2"])
def test_a_stream_taken_out_of_the_scope_ends_at_once_and_a_new_one_serves(start_scope, connect_peer, reactors):
    s = start_scope(env={"FELIX_CORE_SHARDS": reactors})
    peer = connect_peer(s.broker)
    _, orders = peer.subscribe("t1", s.token(), NS, "orders")
    _, other = peer.subscribe("t1", s.token(), NS, "other")
    write_scope(s, ("other", "added"), ("sessions",))
    s.broker.signal(signal.SIGHUP)
    orders.expect_fin(10)
    assert not publish_is_taken(peer, s, "orders")
    wait_until(lambda: publish_is_taken(peer, s, "added"), 10, "the new stream")
    # What stayed was not touched.
    assert publish_is_taken(peer, s, "other") and other.payloads(1) == [b"x"]
    assert "event=scope_reloaded added=2 removed=2 need_restart=0" in s.broker.log()  # two tenants


def test_a_cache_taken_out_of_the_scope_is_gone_and_comes_back_empty(start_scope, connect_peer):
    s = start_scope()
    peer = connect_peer(s.broker)

    def ask(type_, **more):
        control = peer.authenticated("t1", s.token())
        control.send(frames.message(type_, tenant_id="t1", namespace=NS, cache="sessions", key="k",
                                    request_id=1, **more))  # fmt: skip
        return control.json()

    assert ask("cache_put", value="AAAA")["type"] == "cache_ok"
    write_scope(s, ("orders",), ())
    s.broker.signal(signal.SIGHUP)
    wait_until(lambda: ask("cache_get")["type"] == "error", 10, "the end of the cache")
    write_scope(s, ("orders",), ("sessions",))
    s.broker.signal(signal.SIGHUP)
    wait_until(lambda: ask("cache_get")["type"] == "cache_value", 10, "the new cache")
    assert ask("cache_get")["value"] is None


@pytest.mark.parametrize(
    "yaml",
    ["scope: [", "scope:\n  tenants:\n    t1:\n      namespaces:\n        default:\n          streams: [a, a]\n",
     "scope:\n  tenants:\n    t1:\n      namespaces:\n        default:\n          streams:\n"
     "            - other: {durable: true}\n"],
    ids=["no yaml", "twice", "settings in a list"],
)  # fmt: skip
def test_a_scope_that_cannot_be_used_changes_nothing(start_scope, connect_peer, yaml):
    s = start_scope()
    peer = connect_peer(s.broker)
    with open(s.broker.config_path, "w") as out:
        out.write(yaml)
    s.broker.signal(signal.SIGHUP)
    wait_until(lambda: "scope_reload_failed" in s.broker.log(), 10, "the failure in the log")
    assert publish_is_taken(peer, s, "orders")
