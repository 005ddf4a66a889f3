"""The measuring pipeline of scripts/perf: what counts, what is repeated, what a chart and a page show."""
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts/perf"
sys.path.insert(0, str(SCRIPTS))

import cases  # noqa: E402
import make_charts  # noqa: E402
import normalize_and_aggregate as aggregate  # noqa: E402
import records  # noqa: E402
import render_markdown_snippets as render  # noqa: E402
import run_latency_matrix as runner  # noqa: E402

RESULT = {"valid": True, "dropped": 0, "unaccounted": 0, "received": 5, "undersized": False, "p50_us": 10.0,
          "p90_us": 15.0, "p99_us": 20.0, "p999_us": 30.0, "max_us": 40.0, "throughput": 1000.0,
          "publish_submit_throughput": 1000.0, "delivered_throughput": 1000.0, "delivered_mb_per_s": 1.0}  # fmt: skip


# ---- the plan ---------------------------------------------------------------------------------


def test_a_trial_runs_all_cases_and_the_next_one_goes_backwards():
    every = cases.filtered(cases.cases(cases.load()), "kind=pubsub,fanout=1,batch=1,payload=0|256,preset=P1_hash")
    keys = [case.key for case in every]
    plan = [(trial, case.key) for trial, case in cases.in_turns(every, 2)]
    assert plan == [(1, key) for key in keys] + [(2, key) for key in reversed(keys)]
    assert [case.profile for case in every[:2]] == ["balanced", "high_memory"]
    assert len(keys) == len(set(keys)) == 8


def test_no_batched_run_of_the_matrix_fits_into_the_buffers():
    batched = [case for case in cases.cases(cases.load()) if case.batch == 64]
    assert batched and all((case.payload + runner.STAMP_BYTES) * case.messages >= 128 << 20 for case in batched)


def test_only_batch_one_is_acknowledged_and_has_an_echo_beside_it():
    for case in cases.cases(cases.load()):
        acked = case.kind == "pubsub" and case.batch == 1
        assert ("--binary" not in case.arguments and case.kind == "pubsub") == acked == (case.echo_count > 0)


@pytest.mark.parametrize("expression", ["fanout", "colour=red", "fanout:1"])
def test_a_filter_that_means_nothing_is_refused(expression):
    with pytest.raises(cases.ConfigError):
        cases.filtered(cases.cases(cases.load()), expression)


def test_an_unknown_preset_is_refused():
    with pytest.raises(cases.ConfigError, match="P9"):
        cases.cases(cases.load(), ["P9"])


# ---- what a run must print ----------------------------------------------------------------------


def pubsub_case(**fields):
    return cases.Case(**{"kind": "pubsub", "profile": "balanced", "placement": "in_process", "payload": 0,
                         "preset": "P1_hash", "fanout": 1, "batch": 1, "messages": 5, **fields})  # fmt: skip


@pytest.mark.parametrize("change", [{"valid": False}, {"dropped": 1}, {"unaccounted": 1}, {"received": 0}])
def test_a_run_that_lost_something_is_a_failed_run(change):
    with pytest.raises(runner.measure.Failed):
        runner.checked(pubsub_case(), json.dumps({"cases": [RESULT | change]}))
    assert runner.checked(pubsub_case(), json.dumps({"cases": [RESULT]})) == RESULT


@pytest.mark.parametrize("text", ["", "Results: fine", "{}", '{"cases":[]}', '{"cases":[{},{}]}', "[1]"])
def test_output_that_is_not_one_result_is_a_failed_run(text):
    with pytest.raises(runner.measure.Failed):
        runner.checked(pubsub_case(), text)


# ---- medians ----------------------------------------------------------------------------------------


def test_quartiles_are_interpolated():
    assert [aggregate.quantile([4, 1, 3, 2], share) for share in (0.25, 0.5, 0.75)] == [1.75, 2.5, 3.25]
    assert [aggregate.quantile([7], share) for share in (0, 0.5, 1)] == [7, 7, 7]


def record(trial=1, ok=True, case=None, attempt=1, **result):
    found = {"session": "s1", "run_id": f"r{trial}", "started": f"2026-01-0{trial}T00:00:00Z", "trial": trial,
             "attempt": attempt, "case": (case or pubsub_case()).document(), "ok": ok, "seconds": 1, "quick": False,
             "partial": False, "extra_env": {}, "load_before": 0.5, "load_after": 0.5,
             "machine": {"git_sha": "abc", "git_dirty": False, "processor": "x", "processors": 2, "kernel": "6",
                         "compiler": "gcc", "ngtcp2": "1", "gnutls": "3", "build_options": {},
                         "sysctl": {"net.core.rmem_max": "1", "net.core.wmem_max": "1"}}}  # fmt: skip
    return found | ({"result": RESULT | result} if ok else {"error": "broken"})


def test_a_trial_counts_once_and_failed_attempts_do_not_move_the_median():
    runs = [record(1, p50_us=10), record(2, ok=False), record(2, attempt=2, p50_us=30), record(3, p50_us=20)]
    row = aggregate.aggregated(runs, {})
    assert (row["trial_count"], row["failed_attempts"]) == (3, 1)
    assert [row[f"p50_us_{which}"] for which in ("q1", "median", "q3")] == [15, 20, 25]


def test_what_was_not_measured_is_empty_and_not_zero(tmp_path):
    row = aggregate.aggregated([record(ok=False)], {})
    assert row["trial_count"] == 0 and row["p50_us_median"] is None
    aggregate.write_csv(tmp_path / "x.csv", [row])
    with open(tmp_path / "x.csv", newline="") as table:
        assert next(csv.DictReader(table))["p50_us_median"] == ""


def test_what_a_message_costs_the_broker_is_joined_by_the_name_of_the_work():
    costs = {"pubsub f1 b1 p0": {"instructions_per_message": 900.0, "syscalls_per_message": 0.5}}
    row = aggregate.aggregated([record()], costs)
    assert (row["instructions_per_message"], row["syscalls_per_message"]) == (900.0, 0.5)
    assert aggregate.aggregated([record()], {})["instructions_per_message"] is None
    get = cases.Case(kind="cache", profile="balanced", placement="in_process", payload=256, op="get_hit", concurrency=32)
    assert aggregate.costs_key(get.document()) == "cache get c32 p256"


def test_the_newest_session_counts_alone():
    every = [record() | {"session": "a1"}, record() | {"session": "b2"}]
    assert {r["session"] for r in records.of_session(every)} == {"b2"}
    assert {r["session"] for r in records.of_session(every, "a")} == {"a1"}


def test_a_line_that_was_cut_off_costs_nothing_but_itself(tmp_path, capsys):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"a":1}\n{"b":')
    records.append({"c": 3}, path)
    assert records.read(path) == [{"a": 1}, {"c": 3}]
    assert "runs.jsonl:2" in capsys.readouterr().err


# ---- a session, with programs that only pretend ----------------------------------------------------


class Bench:
    """A place with its own data, programs and presets.yml; payload 256 misbehaves on request."""

    def __init__(self, directory):
        self.directory = directory
        self.bin = directory / "build/bin"
        self.runs = directory / "data/raw/runs.jsonl"
        document = json.dumps({"cases": [RESULT]})
        self.program(self.bin / "latencydemo", f"""
            echo "$*" >>{directory}/calls
            case "$*" in *"--payload 256"*)
                if [ -e {directory}/fail ]; then echo "it broke" >&2; exit 1; fi
                if [ -e {directory}/hang ]; then echo started >{directory}/hang; exec sleep 600; fi ;;
            esac
            echo '{document}'""")  # fmt: skip
        self.program(self.bin.parent / "bench/micro/udp_echo", """echo '{"p50_us": 5.0, "p99_us": 6.0}'""")
        self.config = directory / "presets.yml"
        self.config.write_text(yaml.safe_dump(cases.load()))
        self.change(placements=["in_process"], max_retries=1, default_presets=["P1_hash"], fanout=[1],
                    payload=[0, 256, 1024], ops=[])  # fmt: skip
        self.environment = os.environ | {"FELIX_BIN_DIR": str(self.bin), "FELIX_PERF_DATA": str(directory / "data")}

    def change(self, **values):
        """Sets members of presets.yml, wherever they are in it."""
        config = yaml.safe_load(self.config.read_text())
        for name, value in values.items():
            place = next((part for part in (config, config["pubsub"], config["cache"]) if name in part))
            place[name] = value
        self.config.write_text(yaml.safe_dump(config))

    def program(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" + text + "\n")
        path.chmod(0o755)

    def start(self, script, *arguments):
        return subprocess.Popen([sys.executable, SCRIPTS / script, "--config", self.config, *map(str, arguments)],
                                env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def run(self, script, *arguments):
        process = self.start(script, *arguments)
        process.output, process.errors = process.communicate(timeout=60)
        return process

    def measure(self, *arguments):
        return self.run("run_latency_matrix.py", "--trials", 2, *arguments)

    def records(self):
        return [json.loads(line) for line in self.runs.read_text().splitlines()]

    def good(self):
        return [(r["case"]["key"], r["trial"]) for r in self.records() if r["ok"]]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_failed_trial_is_recorded_repeated_and_does_not_stop_the_others(bench):
    (bench.directory / "fail").touch()
    done = bench.measure("--filter", "profile=balanced,batch=1")
    assert done.returncode == 1, done.errors
    failed = [r for r in bench.records() if not r["ok"]]
    assert [(r["trial"], r["attempt"]) for r in failed] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all("it broke" in r["error"] and r["exit_code"] == 1 and "result" not in r for r in failed)
    assert len(bench.good()) == 4
    assert "\033" not in done.errors  # no terminal, no control characters
    outputs = (bench.directory / "data" / failed[0]["stdout_path"]).read_text()
    assert "latencydemo --json" in outputs and "it broke" in outputs


def test_resume_measures_what_failed_and_nothing_else(bench):
    (bench.directory / "fail").touch()
    bench.measure()
    (bench.directory / "fail").unlink()
    (bench.directory / "calls").unlink()
    assert bench.measure("--resume").returncode == 0
    calls = (bench.directory / "calls").read_text().splitlines()
    assert len(calls) == 8 and all("--payload 256" in call for call in calls)
    assert len(bench.good()) == len(set(bench.good())) == 24
    assert bench.measure("--resume").returncode == 0 and len(bench.records()) == 24 + 16
    assert len({r["session"] for r in bench.records()}) == 1


def test_an_interrupted_session_can_be_resumed(bench):
    hang = bench.directory / "hang"
    os.mkfifo(hang)
    process = bench.start("run_latency_matrix.py", "--trials", 2)
    with open(hang) as started:
        started.read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in errors and "Traceback" not in errors
    before = len(bench.good())
    assert 0 < before < 24
    hang.unlink()
    assert bench.measure("--resume").returncode == 0
    assert len(bench.good()) == len(set(bench.good())) == 24


@pytest.mark.parametrize("change", ["build", "presets", "quick"])
def test_a_session_is_not_resumed_with_something_else(bench, change):
    bench.measure("--filter", "profile=balanced,payload=0")
    arguments = ["--resume"]
    if change == "build":
        bench.program(bench.bin / "felix-broker", "exit 0")
    elif change == "presets":
        bench.change(echo_count=4001)
    else:
        arguments.append("--quick")
    before = len(bench.records())
    done = bench.measure(*arguments)
    assert done.returncode == 1 and "start a new one" in done.errors
    assert len(bench.records()) == before


def test_every_record_says_on_what_it_was_measured(bench):
    bench.measure("--filter", "batch=1,payload=0,profile=balanced", "--env", "FELIX_SPIN_US=0")
    found = bench.records()[0]
    assert found["case"]["env"]["FELIX_SPIN_US"] == "0" and found["extra_env"] == {"FELIX_SPIN_US": "0"}
    assert found["echo"] == {"p50_us": 5.0, "p99_us": 6.0}
    for fact in ("processor", "kernel", "git_sha", "programs_sha256"):
        assert found["machine"][fact]
    assert found["load_before"] >= 0 and found["load_after"] >= 0


def test_a_real_broker_as_its_own_process_has_its_cpu_time_counted(bench):
    bench.change(placements=["own_process"], total={1: {1: {0: 200}}, 64: {1: {0: 20000}}}, payload=[0], echo_count=50)
    bench.environment["FELIX_BIN_DIR"] = os.environ.get("FELIX_BIN_DIR", str(ROOT / "build/bin"))
    done = bench.run("run_latency_matrix.py", "--trials", 1, "--filter", "profile=balanced")
    assert done.returncode == 0, done.errors
    assert [r["result"]["sent"] for r in bench.records()] == [200, 20000]
    assert all(0 < r["broker_cpu"]["us_per_message"] < 1e5 for r in bench.records())


# ---- charts and page -----------------------------------------------------------------------------------


def chart(values):
    bars = [make_charts.Bar(value, None, None) for value in values]
    return make_charts.Chart("title", "axis", [str(i) for i in range(len(bars))], {"P1_hash, x": bars}, footer="footer")


def test_a_bar_that_is_cut_is_marked_with_its_value_and_a_missing_one_is_marked_too(tmp_path):
    assert make_charts.draw(chart([10, 11, 9, None, 1234]), tmp_path / "x")
    svg = (tmp_path / "x.svg").read_text()
    assert 'id="clipped 4 0"' in svg and "1.23k" in svg and svg.count('id="clipped') == 1
    assert 'id="missing 3 0"' in svg and svg.count('id="missing') == 1
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_chart_without_data_is_not_drawn(tmp_path):
    assert not make_charts.draw(chart([None, None]), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_bars_of_very_different_height_get_a_logarithmic_axis():
    assert make_charts.Scale.of(chart([1, 100])).log
    assert not make_charts.Scale.of(chart([10, 100])).log


def page_of(bench):
    page = bench.directory / "docs/performance.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(f"# Performance\n\nbefore\n\n{render.BEGIN}\nold\n{render.END}\n\nafter\n")
    return page


def aggregated(bench, *arguments):
    """A measured session with its medians."""
    bench.measure(*arguments)
    process = subprocess.run([sys.executable, SCRIPTS / "normalize_and_aggregate.py"], env=bench.environment,
                             capture_output=True, text=True, timeout=60)  # fmt: skip
    assert process.returncode == 0, process.stderr


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*.*"))}


def test_rendering_twice_gives_the_same_page_with_the_charts_it_names(bench):
    page = page_of(bench)
    bench.change(profiles={"balanced": {}}, batch=[1])
    aggregated(bench)
    assert bench.run("make_charts.py").returncode == 0
    stale, foreign = (page.parent / "assets/perf" / name for name in ("latencydemo/balanced/old.svg", "peers/x.svg"))
    for path in (stale, foreign):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    assert bench.run("render_markdown_snippets.py", "--page", page).returncode == 0
    first = contents(page.parent)
    text = page.read_text()
    assert text.startswith("# Performance\n\nbefore\n") and text.endswith("\n\nafter\n") and "old" not in text
    assert "| fanout 1, 256 B | 10 (10 to 10), 20 (20 to 20) | 5, 6 | – |" in text
    images = [line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert images == [f"assets/perf/latencydemo/balanced/f1_b1_{what}.svg" for what in ("p50", "p99", "throughput")]
    assert all((page.parent / image).exists() for image in images)
    assert not stale.exists() and foreign.exists()
    assert bench.run("make_charts.py").returncode == 0
    assert "is as it should be" in bench.run("render_markdown_snippets.py", "--page", page).output
    assert contents(page.parent) == first


@pytest.mark.parametrize("part", [["--quick"], ["--filter", "batch=1"]])
def test_a_part_of_the_matrix_is_not_written_into_the_page(bench, part):
    page = page_of(bench)
    aggregated(bench, *part)
    before = page.read_text()
    assert bench.run("render_markdown_snippets.py", "--page", page).returncode == 1
    assert page.read_text() == before
    assert "| fanout 1, 256 B |" in bench.run("render_markdown_snippets.py", "--print").output


@pytest.mark.parametrize("text", ["", render.BEGIN, f"{render.END}\n{render.BEGIN}", (render.BEGIN + render.END) * 2])
def test_a_page_without_its_two_markers_is_refused(text):
    with pytest.raises(SystemExit):
        render.replaced(text, "new")
