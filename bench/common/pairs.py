"""Two ways of running the same thing, in turns: a ratio within a pair sees the same minute of the machine."""

import statistics
from collections.abc import Callable
from typing import NamedTuple


class Pairs(NamedTuple):
    """Medians of both ways, and median and quartiles of the ratios within the pairs."""

    one: float
    other: float
    low: float
    ratio: float
    high: float

    def ratio_text(self, digits: int = 2) -> str:
        return f"{self.ratio:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def in_turns(run: Callable[[bool], float], pairs: int) -> Pairs:
    """Calls run(True) and run(False) `pairs` times each (at least twice), in changing order."""
    figures: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(pairs):
        for which in (True, False) if pair % 2 else (False, True):
            figures[which].append(run(which))
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(figures[True], figures[False])], n=4)
    return Pairs(statistics.median(figures[True]), statistics.median(figures[False]), low, ratio, high)
