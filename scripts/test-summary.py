#!/usr/bin/env python3
"""Counts single test cases of the runners that ./dev test uses.

    test-summary.py meson TESTLOG_JSON STATUS
    test-summary.py pytest NAME JUNIT_XML STATUS FILTERED SANITIZER_DIR
    test-summary.py total RESULTS

The first two print one line, "NAME PASSED FAILED SKIPPED". The last adds such lines up, prints
"N passed, N failed" and exits with 1 when something failed or nothing ran.

A unit test program counts as its cmocka cases. One that fails without a failed case (a crash, a
leak, a timeout) counts as one failure, one that passes without cmocka as one case. A runner that
ends badly without naming a failure counts as one failure as well: nothing is lost in between.
"""
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

PYTEST_NOTHING_COLLECTED = 5


def cmocka_count(word, output):
    """Adds up the closing lines of all groups: "[  PASSED  ] 3 test(s)."."""
    return sum(int(n) for n in re.findall(rf"^\[ +{word} +\] (\d+) test\(s\)", output, re.MULTILINE))


def program_counts(entry):
    """Returns (passed, failed, skipped) of one test program, an object of meson's testlog.json."""
    output = (entry.get("stdout") or "") + "\n" + (entry.get("stderr") or "")
    passed, failed, skipped = (cmocka_count(w, output) for w in ("PASSED", "FAILED", "SKIPPED"))
    if entry["result"] in ("OK", "EXPECTEDFAIL"):
        return (passed or (0 if skipped else 1), failed, skipped)
    if entry["result"] == "SKIP":
        return (passed, failed, skipped or 1)
    return (passed, failed or 1, skipped)


def count_meson(log, status):
    path = Path(log)
    lines = path.read_text().splitlines() if path.exists() else []
    counts = [program_counts(json.loads(line)) for line in lines]
    passed, failed, skipped = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    if (int(status) != 0 or not counts) and failed == 0:
        failed = 1
    return f"unit {passed} {failed} {skipped}"


def count_pytest(name, xml, status, filtered, sanitizer_dir):
    passed = failed = skipped = 0
    try:
        for suite in ElementTree.parse(xml).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            failed += bad
            skipped += int(suite.get("skipped", 0))
            passed += max(0, int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0)))
    except (OSError, ElementTree.ParseError):
        failed = 1
    nothing_is_fine = filtered and int(status) == PYTEST_NOTHING_COLLECTED
    if int(status) != 0 and failed == 0 and not nothing_is_fine:
        failed = 1
    if nothing_is_fine:
        failed = 0
    # Sanitizer reports of processes whose exit status no test looked at.
    reports = sum(1 for f in Path(sanitizer_dir).glob("*") if f.is_file())
    if failed == 0:
        failed = reports
    return f"{name} {passed} {failed} {skipped}"


def total(results):
    rows = [line.split() for line in Path(results).read_text().splitlines()]
    passed, failed, skipped = (sum(int(row[i]) for row in rows) for i in (1, 2, 3))
    if skipped:
        print(f"{skipped} skipped")
    if passed + failed == 0:
        print("error: no test ran", file=sys.stderr)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if passed and not failed else 1


def main():
    kind, *rest = sys.argv[1:]
    if kind == "total":
        return total(*rest)
    print(count_meson(*rest) if kind == "meson" else count_pytest(*rest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
