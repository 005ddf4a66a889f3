"""./dev bench gate: what it reads, what it compares, and when it must not compare."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import gate  # noqa: E402
from common import callgrind  # noqa: E402

# publish (broker) costs 5 + 7 by itself, 7 of them in an inlined function of another file; it calls
# sendmsg twice, whose 40 instructions and 2 system calls stand under its own name as well.
PROFILE = """\
# callgrind format
positions: line
event: sysTime : sysTime (elapsed ms)
events: Ir sysCount sysTime
summary: 52 2 1

ob=(1) /work/build/bin/felix-broker
fl=(1) ../src/core/stream.c
fn=(1) publish
10 5
fi=(2) ../src/base/buf.h
+3 7
fe=(1)
cob=(2) /usr/lib/libc.so.6
cfi=(3) ???
cfn=(2) sendmsg
calls=2 0
* 40 2 1

ob=(2)
fl=(3)
fn=(2)
0 40 2 1
"""


def test_callgrind_counts_each_function_without_what_it_calls():
    costs = {(cost.object, cost.file, cost.function): (cost.instructions, cost.syscalls)
             for cost in callgrind.parse(PROFILE.splitlines(keepends=True))}
    assert costs == {
        ("felix-broker", "../src/core/stream.c", "publish"): (5, 0),
        ("felix-broker", "../src/base/buf.h", "publish"): (7, 0),
        ("libc.so.6", "???", "sendmsg"): (40, 2),
    }


def test_a_file_that_is_no_profile_is_refused():
    with pytest.raises(ValueError):
        callgrind.parse(["valgrind: no such tool\n", "calls=3\n"])


def cost(obj, function, instructions, syscalls=0, file="src/x.c"):
    return callgrind.Cost(obj, file, function, instructions, syscalls)


COSTS = [
    cost("felix-broker", "topic_publish", 600),
    cost("felix-broker", "encrypt", 50, file="../src/quic/ipsec_mb.c"),
    cost("libngtcp2.so.16.2.9", "ngtcp2_conn_read_pkt", 400),
    cost("libngtcp2_crypto_gnutls.so.8.2.0", "ngtcp2_crypto_encrypt", 90),
    cost("libgnutls.so.30.34.3", "aesni_gcm_encrypt", 9000),
    cost("libc.so.6", "recvmmsg", 10, 3),
    cost("libc.so.6", "clock_gettime@@GLIBC_2.17", 10, 500),
    cost("libc.so.6", "mprotect", 10, 20),
]


def test_cipher_and_libc_are_not_compared_and_only_calls_on_sockets_count():
    figures = gate.figures_of(COSTS, 10)
    assert (figures.instructions, figures.syscalls) == (100.0, 0.3)
    assert figures.groups == {"ours": 60.0, "ngtcp2": 40.0, "cipher": 914.0, "libc": 3.0}
    assert figures.functions[0] == ("aesni_gcm_encrypt", "cipher", 900.0)


def test_the_cheapest_slice_counts_each_figure_by_itself():
    runs = [gate.Figures(100.0, 0.5, {"ours": 100.0}, []), gate.Figures(90.0, 0.7, {"ours": 90.0}, [])]
    assert gate.cheapest(runs) == gate.Figures(90.0, 0.5, {"ours": 90.0}, [])


def test_the_middle_run_counts_each_figure_by_itself():
    runs = [gate.Figures(count, calls, {}, []) for count, calls in ((3.0, 0.1), (1.0, 0.3), (2.0, 0.2))]
    assert gate.middle(runs)[:2] == (2.0, 0.2)


def counted(monkeypatch, instructions, update=False):
    """How a case is judged whose connections cost `instructions`, one after another, against 100."""
    runs = iter(instructions)
    monkeypatch.setattr(gate, "count", lambda *_: gate.Figures(next(runs), 2.0, {}, []))
    figures = gate.count_until_sure(None, gate.Case("a", []), {} if update else baseline(), update)
    return figures.instructions, len(list(runs))


def test_what_looks_like_a_regression_is_counted_again(monkeypatch):
    assert counted(monkeypatch, [104.0, 90.0, 90.0]) == (104.0, 2)
    assert counted(monkeypatch, [110.0, 103.0, 90.0]) == (103.0, 1)
    assert counted(monkeypatch, [110.0, 108.0, 109.0, 111.0, 112.0]) == (108.0, 0)


def test_a_new_baseline_is_the_middle_of_several_connections(monkeypatch):
    assert counted(monkeypatch, [120.0, 90.0, 100.0, 80.0, 130.0], update=True) == (100.0, 0)


def baseline(**made_with):
    return {"made_with": made_with, "tolerance": {"instructions_per_message": 0.05, "syscalls_per_message": 0.1},
            "cases": {"a": {"instructions_per_message": 100.0, "syscalls_per_message": 2.0}}}


@pytest.mark.parametrize(("instructions", "syscalls", "wrong"), [
    (104.9, 2.19, []),
    (105.1, 2.0, ["instructions_per_message"]),
    (50.0, 2.21, ["syscalls_per_message"]),
    (200.0, 4.0, ["instructions_per_message", "syscalls_per_message"]),
])
def test_more_than_the_tolerance_is_a_regression(instructions, syscalls, wrong):
    assert gate.regressions(baseline(), "a", gate.Figures(instructions, syscalls, {}, [])) == wrong


def test_a_case_that_the_baseline_lacks_is_new_and_no_regression():
    figures = gate.Figures(1e9, 1e9, {}, [])
    assert gate.regressions(baseline(), "b", figures) == []
    assert " new " in gate.line_of("b", figures, baseline())
    assert "REGRESSION" in gate.line_of("a", figures, baseline())


def test_another_compiler_or_library_cannot_be_compared():
    ours = {"compiler": "GCC: (Debian) 12.2.0", "libngtcp2": "1.11.0"}
    assert gate.differences(ours, baseline(**ours)) == []
    assert gate.differences(ours, baseline(compiler="GCC: (Debian) 14.2.0", libngtcp2="1.11.0")) == [
        "compiler is 'GCC: (Debian) 12.2.0', the baseline's was 'GCC: (Debian) 14.2.0'"]
    assert len(gate.differences(ours, {})) == 2


def test_the_committed_baseline_has_every_case():
    document = json.loads(gate.BASELINE.read_text())
    assert sorted(document["cases"]) == sorted(case.key for case in gate.cases())
    assert all(value > 0 for case in document["cases"].values() for value in case.values())
    assert set(document["made_with"]) == {"compiler", "build", "libngtcp2", "machine"}


@pytest.mark.parametrize("arguments", [
    [], ["pubsub", "s", "1"], ["pubsub", "s", "1", "1", "x", "1", "0", "0", "1"], ["put", "c", "1", "0", "1", "1"],
])
def test_the_load_refuses_what_it_does_not_understand(arguments):
    program = gate.BIN.parent / "bench/programs/lockstep"
    run = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("usage: lockstep")
