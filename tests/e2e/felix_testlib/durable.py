"""Durable streams of a development broker, and a broker that is killed again and again.

KillLoop drives a broker and tests/e2e/drivers/kill_load.c: publishers and subscribers that outlive
the broker, and a checker that knows everything that was acknowledged.
"""

import random
import subprocess
import threading
import time

from . import cli
from .broker import SANITIZER, Broker, environment
from .driver import built
from .slow import scaled

STREAMS, PUBLISHERS = 3, 2
LOAD_SECONDS = (0.02, 0.5)  # that a broker lives under load
EARLY_KILL_SECONDS = 0.05  # of a broker that is killed while it starts
ANSWER_SECONDS = 150


def create_stream(broker, home, name, *options):
    """A durable stream of a development broker."""
    commands = cli.Cli.of(broker, home)
    try:
        return commands("stream", "create", name, "--durable", *options)
    finally:
        commands.close()


class KillLoad:
    """kill_load at work: `ask` gives a command and returns its answer."""

    def __init__(self, broker, prefix, seed, level="flushed"):
        self.process = subprocess.Popen(
            [built("tests", "e2e", "kill_load"), prefix, str(STREAMS), str(PUBLISHERS), str(seed), level],
            env=environment(broker.directory, {"FELIX_SERVER": broker.address, "FELIX_DATA_DIR": broker.data_dir}),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.errors = []
        self._reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)
        self._reader.start()
        self.read()

    def read(self):
        """The next answer; {} unless it has numbers. AssertionError when something is wrong."""
        watch = threading.Timer(scaled(ANSWER_SECONDS), self.process.kill)
        watch.start()
        line = self.process.stdout.readline().strip()
        watch.cancel()
        if not line:
            self._reader.join(5)
        assert line.startswith("ok"), line or "kill_load ended: " + "".join(self.errors)
        return {name: int(value) for name, _, value in (word.partition("=") for word in line.split()) if value}

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        return self.read()

    def stop(self):
        self.process.stdin.close()
        status = self.process.wait(scaled(60))
        self._reader.join(5)
        text = "".join(self.errors)
        assert not SANITIZER.search(text), text[-6000:]
        assert status == 0, f"kill_load ended with {status}: {text}"

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class KillLoop:
    """Cycles of load, SIGKILL at a moment that the seed decides, restart and check.

    Every fourth broker or so is killed again while it starts; every eighth ends in order instead.
    """

    def __init__(self, directory, seed, env=None, prefix="kill"):
        self.directory, self.random, self.env = str(directory), random.Random(seed), env or {}
        self.kills = self.early_kills = self.stops = 0
        self.broker = Broker(self.directory, env=self.env)
        self.bind = self.broker.address
        self.load = None
        try:
            self.begin(prefix, seed)
        except BaseException:
            self.broker.kill()
            raise

    def begin(self, prefix, seed):
        """A new load with new streams; the old ones stay."""
        if self.load is not None:
            self.load.stop()
        for number in range(STREAMS):
            create_stream(self.broker, self.directory, f"{prefix}{number}")
        self.load = KillLoad(self.broker, prefix, seed)

    def kill(self):
        self.broker.kill()
        self.broker.judge()
        self.kills += 1

    def start(self):
        if self.random.random() < 0.25:
            self.broker = Broker(self.directory, env=self.env, quic_bind=self.bind, wait=False)
            time.sleep(self.random.uniform(0, EARLY_KILL_SECONDS))
            self.kill()
            self.early_kills += 1
        self.broker = Broker(self.directory, env=self.env, quic_bind=self.bind)

    def cycle(self, meanwhile=lambda: None):
        """One of them; returns the counts of the checker. `meanwhile` is called while there is no broker."""
        self.load.ask("run")
        time.sleep(self.random.uniform(*LOAD_SECONDS))
        if self.random.random() < 0.125:
            self.broker.stop()
            self.stops += 1
        else:
            self.kill()
        meanwhile()
        self.start()
        return self.load.ask("check")

    def end(self):
        self.load.stop()
        self.broker.stop()

    def abandon(self):
        """After a failure."""
        if self.load is not None:
            self.load.kill()
        self.broker.kill()
