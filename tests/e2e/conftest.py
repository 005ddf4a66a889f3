"""Fixtures. Every broker is a real process on ports of its own and is judged when it ends."""

import itertools
import os
import sys
import uuid

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from felix_testlib import tokens  # noqa: E402
from felix_testlib.broker import Broker, binary  # noqa: E402
from felix_testlib.peer import Peer  # noqa: E402
from felix_testlib.slow import FACTOR  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than ten seconds")


def pytest_collection_modifyitems(config, items):
    """No test hangs: a limit of its own, or two minutes, times FELIX_TEST_SLOW."""
    if not config.pluginmanager.hasplugin("timeout"):
        return
    for item in items:
        mark = item.get_closest_marker("timeout")
        seconds = (mark.args[0] if mark and mark.args else 120) * FACTOR
        item.own_markers = [m for m in item.own_markers if m.name != "timeout"]
        item.add_marker(pytest.mark.timeout(seconds, method="thread"))


@pytest.fixture(scope="session", autouse=True)
def the_binary():
    if not os.access(binary(), os.X_OK):
        pytest.fail(f"no broker at {binary()}: build it, or set FELIX_BIN_DIR", pytrace=False)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A development broker that the tests of one module share."""
    b = Broker(tmp_path_factory.mktemp("broker"))
    yield b
    b.stop()


@pytest.fixture
def start_broker(tmp_path):
    """Start brokers of one test's own; each is stopped and judged unless the test did so."""
    brokers, numbers = [], itertools.count()

    def start(**more):
        brokers.append(Broker(tmp_path / f"b{next(numbers)}", **more))
        return brokers[-1]

    yield start
    problems = []
    for b in brokers:
        try:
            if getattr(b, "settled", False):
                b.judge()
            else:
                b.stop()
        except AssertionError as e:
            problems.append(str(e))
        finally:
            if b.process.poll() is None:
                b.kill()
    assert not problems, "\n".join(problems)


class Scope:
    """A broker that is not in development mode: named streams and caches, our own keys."""

    STREAMS = ("orders", "other")
    CACHES = ("sessions",)

    def __init__(self, directory, env=None, yaml="", tenants=("t1", "t2"), start=Broker, **more):
        directory = str(directory)
        os.makedirs(directory, exist_ok=True)
        self.issuers = {t: tokens.Issuer(t, kid=f"e2e-{t}") for t in tenants}
        self.jwks_path = os.path.join(directory, "jwks.json")
        with open(self.jwks_path, "w") as out:
            out.write(tokens.jwks(*self.issuers.values()))
        self.cert_path, self.key_path = tokens.write_certificate(directory)
        env = {
            "FELIX_AUTH_JWKS_FILE": self.jwks_path,
            "FELIX_TLS_CERT": self.cert_path,
            "FELIX_TLS_KEY": self.key_path,
            **(env or {}),
        }
        with open(self.key_path) as f:
            secrets = [x.strip() for x in f if len(x) > 20 and "KEY" not in x]
        secrets += [tokens.b64url(i.seed) for i in self.issuers.values()]
        self.broker = start(
            directory=directory, dev=False, env=env, yaml=self.scope_yaml() + yaml,
            ca=self.cert_path, secrets=secrets, **more,
        )  # fmt: skip

    def scope_yaml(self):
        tenants = "".join(
            f"    {t}:\n      namespaces:\n        default:\n"
            f"          streams:\n{self._names(self.STREAMS)}"
            f"          caches:\n{self._names(self.CACHES)}"
            for t in self.issuers
        )
        return "scope:\n  tenants:\n" + tenants

    @staticmethod
    def _names(names):
        return "".join(f"            - {n}\n" for n in names)

    def token(self, tenant="t1", **changes):
        return self.issuers[tenant].token(**changes)


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    """A broker with tenants t1 and t2, shared by the tests of one module."""
    s = Scope(tmp_path_factory.mktemp("scope"))
    yield s
    s.broker.stop()


@pytest.fixture
def start_scope(tmp_path):
    scopes, numbers = [], itertools.count()

    def start(**more):
        scopes.append(Scope(tmp_path / f"s{next(numbers)}", **more))
        return scopes[-1]

    yield start
    for s in scopes:
        if getattr(s.broker, "settled", False):
            s.broker.judge()
        else:
            s.broker.stop()


@pytest.fixture
def name():
    """A stream, cache or key name that no other test uses."""
    return "n-" + uuid.uuid4().hex[:12]


@pytest.fixture
def connect_peer():
    """Open raw connections; all are closed at the end."""
    peers = []

    def connect(broker, **more):
        more.setdefault("ca", broker.ca)
        peers.append(Peer(broker.port, **more))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(broker, connect_peer):
    """One raw connection to the module's broker."""
    return connect_peer(broker)


@pytest.fixture
def authed(broker, peer):
    """Makes authenticated bidirectional streams on `peer`."""
    return lambda **words: peer.authenticated(broker.tenant, broker.token, **words)
