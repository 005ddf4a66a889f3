"""Felix and its peers as processes: started on a free port of 127.0.0.1, stopped, gone."""

import json
import os
import pwd
import signal
import socket
import string
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import programs

CONFIG = Path(__file__).resolve().parent / "config"
START_SECONDS = 15


@dataclass(frozen=True)
class System:
    """One column of the table."""

    name: str
    title: str
    tls: bool
    program: str
    protocol: str  # of peer-load; empty: it carries no messages
    cache: str  # the same for the cache
    arguments: tuple = ()  # $config is the file, $lines its lines


SYSTEMS = [
    System("felix", "Felix (TLS)", True, "felix-broker", "felix", "felix"),
    System("nats-tls", "NATS (TLS)", True, "nats-server", "nats", "", ("-c", "$config")),
    System("nats", "NATS (plain)", False, "nats-server", "nats", "", ("-c", "$config")),
    System("redis-tls", "Redis (TLS)", True, "redis-server", "redis", "redis", ("$config",)),
    System("redis", "Redis (plain)", False, "redis-server", "redis", "redis", ("$config",)),
    System("memcached-tls", "memcached (TLS)", True, "memcached", "", "memcached", ("$lines",)),
    System("memcached", "memcached (plain)", False, "memcached", "", "memcached", ("$lines",)),
    System("mosquitto-tls", "Mosquitto (TLS)", True, "mosquitto", "mqtt", "", ("-c", "$config")),
]  # fmt: skip


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def argument_lines(text):
    """The arguments in a file that holds one a line, with comments."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def answers(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A child that ends with us: also when we are killed, by the death signal set for it."""

    def __init__(self, command, directory, env=None, **more):
        self.log = Path(directory) / "log"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
                stdin=subprocess.DEVNULL, stderr=log, env=env, start_new_session=True,
                **({"stdout": log} | more))  # fmt: skip

    def died(self, what):
        self.stop()
        sys.exit(f"{what} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()


class Felix:
    """felix-broker --dev, queues blocking. Its certificate is what the peers use, too."""

    def __init__(self, directory, bin_dir):
        env = {name: value for name, value in os.environ.items() if not name.startswith("FELIX_")}
        env |= {"FELIX_SUB_QUEUE_POLICY": "block", "FELIX_PUB_INGRESS_WAIT": "1",
                "FELIX_DISABLE_TIMINGS": "1"}  # fmt: skip
        self.directory = directory
        self.process = Process(
            [bin_dir / "felix-broker", "--dev", "--data-dir", directory,
             "--quic-bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0"],
            directory, env=env, stdout=subprocess.PIPE, text=True)  # fmt: skip
        line = self.process.child.stdout.readline()
        if "quic=" not in line:
            self.process.died("felix-broker")
        self.address = line.split("quic=")[1].split()[0]

    def arguments(self):
        return ["--connect", self.address, "--ca", f"{self.directory}/ca.pem",
                "--token-file", f"{self.directory}/token", "--tenant", "t1"]  # fmt: skip

    def stop(self):
        self.process.stop()


class Peer:
    """Another server, with its file from config/; `more` are further names to fill in there."""

    def __init__(self, system, program, directory, certificates, **more):
        self.port, self.monitor_port = free_port(), free_port()
        self.certificate = f"{certificates}/ca.pem" if system.tls else None
        text = string.Template((CONFIG / f"{system.name}.conf").read_text()).safe_substitute(
            port=self.port, monitor_port=self.monitor_port, directory=directory, certificate=f"{certificates}/ca.pem",
            key=f"{certificates}/key.pem",
            user=pwd.getpwuid(os.getuid()).pw_name, **more)  # fmt: skip
        config = Path(directory) / "config"
        config.write_text(text)
        command = [program]
        for argument in system.arguments:
            command += argument_lines(text) if argument == "$lines" else [
                argument.replace("$config", str(config))]  # fmt: skip
        self.process = Process(command, directory, env=programs.environment())
        end = time.monotonic() + START_SECONDS
        while not answers(self.port):
            if self.process.child.poll() is not None or time.monotonic() > end:
                self.process.died(system.title)
            time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()

    def wait_for_subscriptions(self, count):
        """NATS only: until it has so many of them."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor_port}/connz?subs=1", timeout=5) as page:
                have = sum(client["subscriptions"] for client in json.load(page)["connections"])
            if have >= count:
                return
            time.sleep(0.02)

    def arguments(self):
        ca = ["--ca", self.certificate] if self.certificate else []
        return ["--port", str(self.port), *ca]
