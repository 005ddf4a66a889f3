"""Which processors the two sides of a benchmark run on."""

import os


def pin(client: bool) -> list[str]:
    """Words in front of a command: a client gets the last processor, a broker the others. None with one processor.

    Without, a scheduler that likes to run whoever is woken beside whoever wakes may put both on one.
    """
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        return []
    return ["taskset", "--cpu-list", ",".join(map(str, processors[-1:] if client else processors[:-1]))]
