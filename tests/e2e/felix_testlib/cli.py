"""The felix command as a real process: run to its end, or started and looked at."""

import json
import os
import pty
import select
import subprocess
import time

from .broker import SANITIZER, binary, environment
from .slow import scaled


def vanish(broker):
    """Kill a broker whose end is no failure of the test."""
    broker.kill()
    broker.settled = True


class Ended:
    """What a command left."""

    def __init__(self, args, status, out, err, seconds):
        self.args, self.status, self.out, self.seconds = args, status, out, seconds
        self.err = err.decode(errors="replace")
        found = SANITIZER.search(self.err)
        assert not found, f"felix {args}: sanitizer report\n{self.err[:6000]}"

    @property
    def text(self):
        return self.out.decode()

    @property
    def lines(self):
        return self.out.splitlines()

    @property
    def records(self):
        """Standard output as lines of JSON: each one has to parse."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self):
        (one,) = self.records
        return one


class Running:
    """A command in the background."""

    def __init__(self, args, process):
        self.args, self.process = args, process

    @property
    def pid(self):
        return self.process.pid

    def line(self):
        """The next line of standard output."""
        return self.process.stdout.readline()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, status=0, seconds=20, stdin=None):
        began = time.monotonic()
        try:
            out, err = self.process.communicate(stdin, timeout=scaled(seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"felix {self.args} did not end:\n{err.decode()}") from None
        ended = Ended(self.args, self.process.returncode, out or b"", err or b"", time.monotonic() - began)
        said = f"felix {self.args} ended with {ended.status}, not {status}:\n{ended.err}"
        assert ended.status == status, said
        return ended

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Cli:
    """felix with an environment of its own: HOME, and what the test names."""

    def __init__(self, home, **env):
        self.home, self.env, self.running = str(home), env, []
        os.makedirs(self.home, exist_ok=True)

    @classmethod
    def of(cls, broker, home):
        """One that finds the development broker `broker` by its data directory."""
        return cls(home, FELIX_SERVER=broker.address, FELIX_DATA_DIR=broker.data_dir)

    def start(self, *args, env=None, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
        args = [str(a) for a in args]
        process = subprocess.Popen(
            [binary("felix"), *args],
            env=environment(self.home, {**self.env, **(env or {})}),
            stdin=stdin, stdout=stdout, stderr=stderr, cwd=self.home,
        )  # fmt: skip
        self.running.append(Running(args, process))
        return self.running[-1]

    def __call__(self, *args, stdin=b"", status=0, seconds=20, **more):
        """Run to the end; fails unless it ends with `status`."""
        return self.start(*args, **more).end(status, seconds, stdin)

    def close(self):
        for one in self.running:
            one.kill()


def on_a_terminal(felix, *args, typed=None, status=0):
    """Run felix with a terminal as standard output, and as input and for errors when something is
    `typed`; returns what appears there."""
    ours, theirs = pty.openpty()
    try:
        if typed is None:
            running = felix.start(*args, stdin=subprocess.DEVNULL, stdout=theirs)
        else:
            running = felix.start(*args, stdin=theirs, stdout=theirs, stderr=theirs)
            os.write(ours, typed.encode())
        os.close(theirs)
        shown, deadline = b"", time.monotonic() + scaled(20)
        while time.monotonic() < deadline and select.select([ours], [], [], scaled(10))[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            shown += piece
        running.end(status)
    finally:
        os.close(ours)
    return shown.replace(b"\r\n", b"\n").decode()
