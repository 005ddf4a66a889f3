"""Time in tests: every limit is scaled by FELIX_TEST_SLOW (a sanitizer build sets it to 5 or so)."""

import os
import time

FACTOR = float(os.environ.get("FELIX_TEST_SLOW", "1") or "1")


def scaled(seconds):
    return seconds * FACTOR


def memory_bound(mib):
    """A bound on resident memory. A sanitizer shadows what is held and keeps what was freed (256 MiB in
    AddressSanitizer's quarantine alone), so its builds get a wide one."""
    return mib if FACTOR == 1 else mib * FACTOR + 400


def wait_until(predicate, seconds, what, pause=0.02):
    """Poll `predicate` until it returns something true, which is returned."""
    deadline = time.monotonic() + scaled(seconds)
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {scaled(seconds):.1f} s: {what}")
        time.sleep(pause)
