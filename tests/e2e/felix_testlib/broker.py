"""A felix-broker process under test: started, looked into, stopped, and judged by what it left."""

import base64
import json
import os
import re
import select
import signal
import stat
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from .slow import scaled, wait_until

REPO = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))

# What must never appear in an output of ours.
SANITIZER = re.compile(
    r"ERROR: \w*Sanitizer|WARNING: \w*Sanitizer|runtime error:|SUMMARY: \w*Sanitizer|INVARIANT"
)
READY = re.compile(
    r"^felix-broker ready quic=(?P<quic>\S+) http=(?P<http>\S+) data-dir=(?P<data>.+)$"
)


def binary(name="felix-broker"):
    directory = os.environ.get("FELIX_BIN_DIR", os.path.join(REPO, "build", "bin"))
    return os.path.join(directory, name)


def environment(home, extra=None):
    """A clean one: nothing of ours leaks in but what the test names and the sanitizers need."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FELIX_") and not name.startswith("XDG_") and name != "HOME"
    }
    env["HOME"] = str(home)
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    env.update({k: str(v) for k, v in (extra or {}).items()})
    return env


def run(*args, env=None, home=None, seconds=20, name="felix-broker"):
    """Run a command to its end; returns the completed process with text output."""
    with tempfile.TemporaryDirectory(prefix="felix-home-") as fresh:
        return subprocess.run(
            [binary(name), *map(str, args)],
            env=environment(home or fresh, env),
            capture_output=True,
            text=True,
            timeout=scaled(seconds),
            stdin=subprocess.DEVNULL,
        )


def _address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


class Broker:
    """One process. `stop()` ends it and checks that nothing went wrong behind the scenes.

    directory   a fresh directory of the test's: HOME, data directory and configuration
    dev         development mode: the broker makes certificate, scope and token by itself
    env, yaml   more settings
    secrets     texts that must appear in no output (tokens, keys)
    inside      words in front of the command, which must end in exec (nsenter, setarch)
    """

    def __init__(self, directory, dev=True, env=None, yaml=None, args=None, secrets=(), ca=None,
                 quic_bind="127.0.0.1:0", metrics_bind="127.0.0.1:0", inside=(), wait=True):
        self.directory = str(directory)
        self.data_dir = os.path.join(self.directory, "data")
        self.secrets = list(secrets)
        self._ca = ca
        os.makedirs(self.directory, exist_ok=True)
        command = [*inside, binary()]
        if dev:
            command += ["--dev"]
        command += ["--data-dir", self.data_dir, "--quic-bind", quic_bind,
                    "--metrics-bind", metrics_bind]  # fmt: skip
        if yaml is not None:
            path = self.config_path = os.path.join(self.directory, "felix.yml")
            with open(path, "w") as out:
                out.write(yaml)
            command += ["--config", path]
        command += list(args or [])
        self.output, self.errors = [], []
        self.process = subprocess.Popen(
            command,
            env=environment(self.directory, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=self.directory,
        )
        self.ready = threading.Event()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.output), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        if wait:
            self.wait_ready()

    def _read(self, pipe, lines):
        for line in pipe:
            lines.append(line)
            match = READY.match(line.strip())
            if match and pipe is self.process.stdout:
                self.host, self.port = _address(match["quic"])
                self.http_host, self.http_port = _address(match["http"])
                self.printed_data_dir = match["data"]
                self.ready.set()

    def wait_ready(self, seconds=20):
        deadline = time.monotonic() + scaled(seconds)
        while not self.ready.wait(0.02):
            if self.process.poll() is not None:
                for reader in self._readers:
                    reader.join(scaled(5))
                raise AssertionError(f"broker ended with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"broker is not ready:\n{self.log()}")
        return self

    # -- facts

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def path(self, name):
        return os.path.join(self.data_dir, name)

    @property
    def ca(self):
        return self._ca or self.path("ca.pem")

    @property
    def token(self):
        """The development token."""
        with open(self.path("token")) as f:
            return f.read().strip()

    def claims(self, token=None):
        part = (token or self.token).split(".")[1]
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))

    @property
    def tenant(self):
        return self.claims()["tid"]

    def log(self):
        return "".join(self.output) + "".join(self.errors)

    def rss_bytes(self):
        return self._status("VmRSS") << 10

    def threads(self):
        return self._status("Threads")

    def cpu_seconds(self):
        """Processor time of all its threads so far: the kernel's clock of that process, in ns."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def _status(self, name):
        with open(f"/proc/{self.pid}/status") as f:
            for line in f:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
        raise KeyError(name)

    def http(self, path, method="GET", timeout=5):
        """(status, content type, body) of a request to the metrics and health listener."""
        request = urllib.request.Request(
            f"http://{self.http_host}:{self.http_port}{path}", method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=scaled(timeout)) as r:
                return r.status, r.headers.get("content-type"), r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.headers.get("content-type"), e.read().decode()

    def metrics(self):
        """All samples: {'name' or 'name{labels}': value}."""
        status, _, body = self.http("/metrics")
        assert status == 200, status
        samples = {}
        for line in body.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric(self, name, default=None):
        """One family, summed over its labels."""
        values = [v for k, v in self.metrics().items() if k.split("{")[0] == name]
        if not values:
            assert default is not None, f"no metric {name}"
            return default
        return sum(values)

    # -- ends

    def signal(self, number):
        self.process.send_signal(number)

    def pause(self):
        """Stop it where it stands: it receives nothing and answers nothing until `resume`."""
        self.signal(signal.SIGSTOP)
        # The signal reaches each thread in its own time.
        wait_until(lambda: set(self._thread_states()) == {"T"}, 10, "the broker stands still")

    def resume(self):
        self.signal(signal.SIGCONT)

    def _thread_states(self):
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/stat") as f:
                yield f.read().rpartition(")")[2].split()[0]

    def wait(self, seconds=30):
        status = self.process.wait(scaled(seconds))
        for reader in self._readers:
            reader.join(scaled(5))
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def stop(self, status=0, seconds=40):
        """SIGTERM, then the verdict. A broker that already ended is only judged."""
        secrets = self._all_secrets()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            got = self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"broker did not stop:\n{self.log()[-4000:]}") from None
        self.judge(secrets)
        assert got == status, f"exit status {got} instead of {status}:\n{self.log()[-4000:]}"

    def judge(self, secrets=None):
        log = self.log()
        match = SANITIZER.search(log)
        assert not match, f"sanitizer report:\n{log[max(0, match.start() - 500):][:6000]}"
        for secret in self._all_secrets() if secrets is None else secrets:
            assert secret not in log, f"a secret in the log: {secret[:12]}..."

    def _all_secrets(self):
        """Bodies of private keys and signatures of tokens, from the tests and from the data dir."""
        found = []
        for secret in self.secrets:
            found += [secret] if secret.count(".") != 2 else [secret.rsplit(".", 1)[1]]
        for folder, folders, names in os.walk(self.data_dir):
            if "streams" in folders:
                folders.remove("streams")  # logs of durable streams: records, which may look like anything
            for name in names:
                path = os.path.join(folder, name)
                if not stat.S_ISREG(os.lstat(path).st_mode) or os.path.getsize(path) > 1 << 20:
                    continue
                with open(path, "rb") as f:
                    content = f.read().decode("ascii", "replace")
                if "PRIVATE KEY" in content:
                    found += [x for x in content.splitlines() if len(x) > 20 and "KEY" not in x]
                elif content.count(".") == 2 and content.startswith("ey"):
                    found.append(content.strip().rsplit(".", 1)[1])
                elif '"d"' in content:
                    found.append(json.loads(content)["d"])
        return [x for x in found if len(x) >= 16]
