"""From presets.yml to the list of runs: what is measured, with which arguments, in which order."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import yaml

PRESETS = Path(__file__).resolve().parent / "presets.yml"
IN_PROCESS, OWN_PROCESS = "in_process", "own_process"


class ConfigError(Exception):
    """presets.yml, or what was asked of it, makes no sense; the text says why."""


@dataclass(frozen=True)
class Case:
    """One thing to measure. `cell` names the work alone, `key` also how it was set up."""

    kind: str  # pubsub or cache
    profile: str
    placement: str
    payload: int
    preset: str = ""  # pubsub
    fanout: int = 0
    batch: int = 0
    op: str = ""  # cache
    concurrency: int = 0
    messages: int = 0  # measured ones
    warmup: int = 0
    arguments: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    echo_count: int = 0  # datagrams of a UDP echo beside it; 0: none

    @property
    def cell(self) -> str:
        """The row of a table that it belongs to."""
        if self.kind == "cache":
            return f"cache_{self.op}_p{self.payload}"
        return f"f{self.fanout}_b{self.batch}_p{self.payload}"

    @property
    def key(self) -> str:
        preset = f"/{self.preset}" if self.preset else ""
        return f"{self.profile}/{self.placement}/{self.cell}{preset}"

    @property
    def program(self) -> str:
        return "cachedemo" if self.kind == "cache" else "latencydemo"

    def command(self, counts: tuple[int, int] | None = None) -> list[str]:
        """The arguments; `counts` replaces warm-up and measured messages."""
        warmup, messages = counts or (self.warmup, self.messages)
        total = "--samples" if self.kind == "cache" else "--total"
        return ["--json", *self.arguments, "--warmup", str(warmup), total, str(messages)]

    def document(self) -> dict:
        """What a record keeps of the case; two that differ here are not the same measurement."""
        fields = dataclasses.asdict(self)
        return fields | {"arguments": list(self.arguments), "env": dict(self.env), "cell": self.cell,
                         "key": self.key}  # fmt: skip


def load(path: Path = PRESETS) -> dict:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    for name in config["default_presets"] + config["quick"]["presets"]:
        if name not in config["presets"]:
            raise ConfigError(f"{path}: there is no preset {name}")
    return config


def quick(config: dict) -> dict:
    """The same with one trial, few presets and small totals."""
    few = config["quick"]
    divide = few["divide_totals_by"]

    def smaller(table):
        if isinstance(table, dict):
            return {key: smaller(value) for key, value in table.items()}
        return max(table // divide, 1)

    return config | {
        "trials": few["trials"],
        "default_presets": few["presets"],
        "pubsub": config["pubsub"] | {"total": smaller(config["pubsub"]["total"])},
        "cache": config["cache"] | {"samples": smaller(config["cache"]["samples"])},
    }


def _pubsub(config: dict, presets: list[str]) -> Iterator[tuple[dict, list[str]]]:
    """(fields, arguments) of each publish and subscribe cell and preset."""
    grid = config["pubsub"]
    for fanout in grid["fanout"]:
        for batch in grid["batch"]:
            for payload in grid["payload"]:
                for name in presets:
                    preset = config["presets"][name]
                    arguments = [] if batch == 1 else ["--binary"]
                    arguments += ["--fanout", fanout, "--batch", batch, "--payload", payload,
                                  "--pub-conns", preset["conns"],
                                  "--pub-streams-per-conn", preset["streams_per_conn"],
                                  "--pub-sharding", preset["sharding"],
                                  "--pub-stream-count", preset["felix_streams"]]  # fmt: skip
                    yield {"kind": "pubsub", "preset": name, "fanout": fanout, "batch": batch,
                           "payload": payload, "messages": grid["total"][batch][fanout][payload],
                           "warmup": grid["warmup"][batch],
                           "echo_count": grid["echo_count"] if batch == 1 else 0}, arguments  # fmt: skip


def _cache(config: dict) -> Iterator[tuple[dict, list[str]]]:
    grid = config["cache"]
    for op in grid["ops"]:
        for payload in grid["payload"]:
            arguments = ["--ops", op, "--payloads", payload, "--concurrency", grid["concurrency"],
                         "--keys", grid["keys"]]  # fmt: skip
            yield {"kind": "cache", "op": op, "payload": payload, "concurrency": grid["concurrency"],
                   "warmup": grid["warmup"], "messages": grid["samples"][payload]}, arguments  # fmt: skip


def cases(config: dict, presets: list[str] | None = None, env: dict[str, str] | None = None) -> list[Case]:
    """All of them, in the order in which one trial runs them: profiles and placements of the same
    work follow each other, so that they see the same minute of the machine."""
    wanted = presets or config["default_presets"]
    unknown = [name for name in wanted if name not in config["presets"]]
    if unknown:
        raise ConfigError(f"there is no preset {unknown[0]}; there are {', '.join(config['presets'])}")
    found = []
    for fields, arguments in [*_pubsub(config, wanted), *_cache(config)]:
        for placement in config["placements"]:
            for profile, settings in config["profiles"].items():
                every = {name: str(value) for name, value in settings.items()} | (env or {})
                found.append(Case(profile=profile, placement=placement, env=tuple(sorted(every.items())),
                                  arguments=tuple(map(str, arguments)), **fields))  # fmt: skip
    return found


def filtered(every: list[Case], expression: str) -> list[Case]:
    """`expression`: fanout=1,payload=0|256 (also with ;). All parts must hold."""
    parts = [part for part in expression.replace(";", ",").split(",") if part]
    names = {field.name for field in dataclasses.fields(Case)} - {"arguments", "env"} | {"cell"}
    for part in parts:
        name, equals, values = part.partition("=")
        if not equals or name not in names:
            raise ConfigError(f"filter {part}: must be NAME=VALUE|VALUE with one of {', '.join(sorted(names))}")
        every = [case for case in every if str(getattr(case, name)) in values.split("|")]
    return every


def in_turns(every: list[Case], trials: int) -> Iterator[tuple[int, Case]]:
    """(trial, case): all cases, then all again. Every second trial goes backwards, so that no
    profile or placement always comes after the same other."""
    for trial in range(1, trials + 1):
        for case in every if trial % 2 else reversed(every):
            yield trial, case
