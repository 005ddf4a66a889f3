"""Reads what valgrind --tool=callgrind --collect-systime=yes has written."""

import re
from collections import Counter
from typing import Iterable, NamedTuple


class Cost(NamedTuple):
    """What one function did by itself, without what it called."""

    object: str  # file name of the program or library, without its directory
    file: str  # source file as the debug information names it; "???" without
    function: str
    instructions: int
    syscalls: int


# Two spellings of one kind share a table of abbreviations: "fn=(3) name" defines, "cfn=(3)" refers.
_KINDS = {"ob": "ob", "cob": "ob", "fl": "fl", "fi": "fl", "fe": "fl", "cfi": "fl", "cfl": "fl",
          "fn": "fn", "cfn": "fn"}  # fmt: skip
_NAME = re.compile(r"(ob|cob|fl|fi|fe|cfi|cfl|fn|cfn)=(?:\((\d+)\) ?)?(.*)$")
_COST = re.compile(r"(?:\*|[+-]?(?:0x)?[0-9a-f]+)((?: \d+)*)$")


def parse(lines: Iterable[str]) -> list[Cost]:
    """The costs of each function. Raises ValueError for what is not a profile with instructions."""
    names: dict[tuple[str, str], str] = {}
    now = {"ob": "???", "fl": "???", "fn": "???"}
    instructions: Counter[tuple[str, str, str]] = Counter()
    syscalls: Counter[tuple[str, str, str]] = Counter()
    events: list[str] = []
    inclusive = False  # the line after "calls=" is what the called function cost
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith("events:"):
            events = line.split()[1:]
        elif match := _NAME.match(line):
            spelling, number, text = match.groups()
            kind = _KINDS[spelling]
            name = names.setdefault((kind, number), text) if number else text
            if not spelling.startswith("c"):
                now[kind] = name
        elif line.startswith("calls="):
            inclusive = True
        elif match := _COST.match(line):
            if not inclusive:
                costs = dict(zip(events, map(int, match.group(1).split())))
                key = (now["ob"].rpartition("/")[2], now["fl"], now["fn"])
                instructions[key] += costs.get("Ir", 0)
                syscalls[key] += costs.get("sysCount", 0)
            inclusive = False
    if "Ir" not in events:
        raise ValueError("not a callgrind profile: it counts no instructions")
    return [Cost(*key, count, syscalls[key]) for key, count in instructions.items()]
