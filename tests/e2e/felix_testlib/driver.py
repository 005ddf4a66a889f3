"""libfelix under the hand of a test: the client driver, a C program that does as it is told.

Each instance is one process with one client. `connect()` takes broker, tenant and token from a
broker under test; whatever is wrong raises DriverError with the code that libfelix returned.
"""

import os
import queue
import subprocess
import threading
import time

from .broker import SANITIZER, binary, environment
from .slow import scaled


def built(*path):
    """A program of the build directory that is not in its bin/."""
    return os.path.join(os.path.dirname(binary()), "..", *path)


class DriverError(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Message:
    """offset and timestamp (microseconds) are None where the broker gave none."""

    def __init__(self, line):
        words = line.split(" ", 4)
        self.subscription = int(words[1])
        offset, _, timestamp = words[2].partition("@")
        self.offset = None if offset == "-" else int(offset)
        self.timestamp = int(timestamp) if timestamp else None
        self.size, self.text = int(words[3]), words[4]

    def __repr__(self):
        return f"<{self.text} {self.size} bytes at {self.offset}>"


class Driver:
    def __init__(self, directory, env=None, **settings):
        self.process = subprocess.Popen(
            [built("tests", "e2e", "client_driver")],
            env=environment(directory, env),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, bufsize=1, errors="replace",
        )  # fmt: skip
        self.answers, self.events = queue.Queue(), queue.Queue()
        self.errors = []
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.version = self._answer(10)[1]
        for name, value in settings.items():
            self.set(name, value)

    def _read_answers(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            which = self.events if line.startswith(("event ", "end ")) else self.answers
            which.put(line)
        self.answers.put(None)

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def _answer(self, seconds):
        try:
            line = self.answers.get(timeout=scaled(seconds))
        except queue.Empty:
            raise AssertionError("the driver does not answer: " + "".join(self.errors)) from None
        assert line is not None, "the driver has died: " + "".join(self.errors)
        words = line.split(" ", 2)
        if words[0] == "error":
            raise DriverError(words[1], words[2])
        return line.split(" ")

    def send(self, *words):
        """Give a command without waiting for its answer, which `finish` takes."""
        line = " ".join(map(str, words))
        assert "\n" not in line
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def finish(self, seconds=60):
        return self._answer(seconds)[1:]

    def __call__(self, *words, seconds=60):
        self.send(*words)
        return self.finish(seconds)

    # -- options and life

    def set(self, name, value):
        self("set", name, value)

    def use(self, broker, tenant=None, token=None):
        self.set("server", broker.address)
        self.set("ca_file", broker.ca)
        self.set("auth_tenant", tenant or broker.tenant)
        self.set("auth_token", token or broker.token)
        return self

    def connect(self, broker, tenant=None, token=None, seconds=20):
        self.use(broker, tenant, token)
        self("connect", int(scaled(seconds) * 1000), seconds=seconds + 10)
        return self

    def close(self, seconds=10):
        self("close", int(scaled(seconds) * 1000), seconds=seconds + 10)

    def flush(self, seconds=20):
        self("flush", int(scaled(seconds) * 1000), seconds=seconds + 10)

    def stats(self):
        pairs = (word.split("=") for word in self("stats"))
        return {name: int(value) for name, value in pairs}

    # -- publish

    def publish(self, stream, text="m", ack="message", count=1, size=32, seconds=60):
        self("publish", stream, ack, count, size, text, seconds=seconds)

    def batch(self, stream, count, text="m", ack="batch", size=32):
        self("batch", stream, ack, count, size, text)

    def confirm(self, stream, text="m", key="-", count=1, size=32):
        """(offset or None, level) of an acknowledged batch"""
        offset, level = self("confirm", stream, key, count, size, text)
        return None if offset == "-" else int(offset), level

    def cursor(self):
        """(requested, available) of the failure before; None when it was another one"""
        try:
            return tuple(map(int, self("cursor")))
        except DriverError:
            return None

    def pipeline(self, stream, count, text="m", ack="message", size=32):
        self("pipeline", stream, ack, count, size, text)

    def settle(self, seconds=30):
        """How often which code came, once nothing is pending."""
        words = self("settle", int(scaled(seconds) * 1000), seconds=seconds + 10)
        counts = {name: int(value) for name, value in (word.split("=") for word in words)}
        assert counts.pop("pending") == 0, f"unanswered calls beside {counts}"
        return counts

    # -- subscribe

    def subscribe(self, stream, start="live", mode="next", target="-", queue_max=0, policy="block"):
        return int(self("subscribe", stream, start, mode, target, queue_max, policy)[0])

    def next(self, subscription, seconds=20):
        self.send("next", subscription, int(scaled(seconds) * 1000))
        return Message("message " + " ".join(self.finish(seconds + 10)))

    def take(self, subscription, count, seconds=20):
        """The next `count` messages."""
        self.send("take", subscription, count, int(scaled(seconds) * 1000))
        messages, deadline = [], time.monotonic() + scaled(seconds + 40)
        while True:
            words = self._answer(max(0.1, deadline - time.monotonic()))
            if words[0] == "ok":
                return messages
            messages.append(Message(" ".join(words)))

    def event(self, seconds=20):
        """The next line of a callback: a Message, or the words of another line."""
        try:
            line = self.events.get(timeout=scaled(seconds))
        except queue.Empty:
            raise AssertionError("no callback in time: " + "".join(self.errors)) from None
        words = line.split(" ", 2)
        if words[0] == "end" or words[2].startswith("misuse"):
            return line.split(" ")
        return Message(line)

    # -- cache

    def put(self, cache, key, text="v", size=32, ttl_ms=0):
        self("put", cache, key, size, text, ttl_ms)

    def get(self, cache, key):
        return Message("value " + " ".join(self("get", cache, key)))

    def delete(self, cache, key):
        return Message("value " + " ".join(self("del", cache, key)))

    # -- the end

    def stop(self):
        """End of input: the driver closes everything and must leave nothing behind."""
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            status = self.process.wait(scaled(30))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the driver does not end") from None
        for reader in self._readers:
            reader.join(scaled(5))
        errors = "".join(self.errors)
        assert not SANITIZER.search(errors), errors[-6000:]
        assert status == 0, f"the driver's exit status is {status}: {errors[-4000:]}"
