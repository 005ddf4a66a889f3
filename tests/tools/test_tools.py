"""The tools behind ./dev: each gate must be seen failing, and the apt source must be derived right."""
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

DEB822 = """\
Types: deb deb-src
# a snapshot of somewhere
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def derive(tmp_path, **files):
    """Runs the derivation over files given as name=text, where `_` in a name is a dot."""
    paths = []
    for name, text in files.items():
        path = tmp_path / name.replace("_", ".")
        path.write_text(text)
        paths.append(str(path))
    return subprocess.run(
        ["awk", "-v", "codename=bookworm", "-f", str(SCRIPTS / "backports-source.awk"), *paths],
        capture_output=True, text=True,
    )


def fields(run):
    assert run.returncode == 0, run
    return dict(line.split(": ", 1) for line in run.stdout.splitlines())


def test_a_deb822_source_is_repeated_with_the_backports_suite(tmp_path):
    assert derive(tmp_path, debian_sources=DEB822).stdout == (
        "Types: deb\n"
        "URIs: http://mirror.example/debian\n"
        "Suites: bookworm-backports\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )


def test_an_embedded_key_is_repeated_whole(tmp_path):
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n"
    text = f"Types: deb\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\n{key}"
    run = derive(tmp_path, debian_sources=text)
    assert run.returncode == 0
    assert " .\n mQINBF\n -----END" in run.stdout


def test_a_one_line_source_keeps_its_options(tmp_path):
    line = "deb [ arch=amd64,arm64 signed-by=/k,1.gpg trusted=yes ] https://m/debian/ bookworm main non-free # x\n"
    assert fields(derive(tmp_path, sources_list="# deb http://no/ bookworm main\n" + line)) == {
        "Types": "deb",
        "URIs": "https://m/debian/",
        "Suites": "bookworm-backports",
        "Components": "main",
        "Architectures": "amd64 arm64",
        "Signed-By": "/k,1.gpg",
        "Trusted": "yes",
    }


def test_a_plain_one_line_source_is_enough(tmp_path):
    run = derive(tmp_path, sources_list="deb-src http://m/d bookworm main\ndeb http://m/d bookworm main\n")
    assert fields(run)["URIs"] == "http://m/d"


@pytest.mark.parametrize("configured", [
    {"b_list": "deb http://m/d bookworm-backports main\n"},
    {"b_sources": "Types: deb\nURIs: http://m/d\nSuites: bookworm-backports\nComponents: main\n"},
])
def test_backports_that_are_configured_are_not_added_again(tmp_path, configured):
    run = derive(tmp_path, debian_sources=DEB822, **configured)
    assert (run.returncode, run.stdout) == (3, "")


def test_entries_that_are_off_or_on_a_disc_do_not_count(tmp_path):
    off = DEB822.replace("Types: deb deb-src", "Enabled: no\nTypes: deb")
    backports_off = "Enabled: no\nTypes: deb\nURIs: http://m\nSuites: bookworm-backports\nComponents: main\n"
    disc = "deb cdrom:[Debian_12]/ bookworm main\ndeb http://m/sec bookworm-security main\n"
    run = derive(tmp_path, a_sources=off, b_sources=backports_off, sources_list=disc)
    assert (run.returncode, run.stdout) == (4, "")


def run_script(name, *arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *map(str, arguments)], capture_output=True, text=True
    )


def tree(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_h", ".h").replace("_c", ".c")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("text", [
    '#include "core/topic.h"\n',
    '#include "base/missing.h"\n',
    '#include "local.h"\n',
    "#include <ngtcp2/ngtcp2.h>\n",
    "#include <sys/socket.h>\n",
])
def test_layers_refuses_what_the_arrows_do_not_allow(tmp_path, text):
    tree(tmp_path, src__core__topic_h="", src__wire__local_h="", src__wire__x_c=text)
    run = run_script("check-layers.py", tmp_path)
    assert run.returncode == 1 and "src/wire/x.c:1:" in run.stdout


def test_layers_allows_arrows_that_point_down(tmp_path):
    text = '#include "base/err.h"\n#include "felix/errors.h"\n#include <string.h>\n#include "wire/x.h"\n'
    tree(tmp_path, src__base__err_h="", src__wire__x_h="", src__wire__x_c=text)
    assert run_script("check-layers.py", tmp_path).returncode == 0


def test_layers_lets_only_one_file_of_storage_reach_the_disk(tmp_path):
    tree(tmp_path, src__storage__disk_c="#include <fcntl.h>\n#include <unistd.h>\n")
    tree(tmp_path, src__storage__x_c="#include <pthread.h>\n")
    assert run_script("check-layers.py", tmp_path).returncode == 0
    tree(tmp_path, src__storage__x_c="#include <unistd.h>\n")
    run = run_script("check-layers.py", tmp_path)
    assert run.returncode == 1 and "src/storage/x.c:1:" in run.stdout


def test_a_file_of_1200_lines_is_allowed_one_more_is_not(tmp_path):
    tree(tmp_path, src__base__x_c="\n" * 1200)
    assert run_script("check-size.py", tmp_path).returncode == 0
    tree(tmp_path, src__base__x_c="\n" * 1201)
    assert run_script("check-size.py", tmp_path).returncode == 1


def test_size_names_the_longest_function(tmp_path):
    text = "struct a {\n    int b[9];\n\n\n};\n\nstatic int\nlong_one(int c,\n         int d) {\n    return '}';\n}\n"
    tree(tmp_path, src__base__x_c=text)
    assert "longest function long_one in src/base/x.c (5 lines)" in run_script("check-size.py", tmp_path).stdout


@pytest.mark.parametrize("text", [
    "strcpy(a, b);",
    "x = atoi (s);",
    "t = gmtime(&now);",
    "f(); // NOLINT",
    "// NOLINTNEXTLINE(bugprone-foo)\nf();",
    "// cppcheck-suppress memleak\nf();",
])
def test_banned_calls_and_bare_suppressions_are_refused(tmp_path, text):
    tree(tmp_path, src__base__x_c=text + "\n")
    assert run_script("check-banned.py", tmp_path).returncode == 1


@pytest.mark.parametrize("text", [
    "gmtime_r(&now, &tm);",
    "// strcpy(a, b)",
    'puts("never sprintf(x)");',
    "// NOLINTNEXTLINE(bugprone-foo): the table is sorted\nf();",
    "// cppcheck-suppress memleak ; the list owns it now\nf();",
])
def test_banned_reads_code_and_not_words(tmp_path, text):
    tree(tmp_path, src__base__x_c=text + "\n")
    assert run_script("check-banned.py", tmp_path).returncode == 0


def test_exports_refuses_a_symbol_without_prefix(tmp_path):
    source = tmp_path / "x.c"
    for text, status in (("int felix_a;", 0), ("int felix_a; int ring_push;", 1)):
        source.write_text(text)
        subprocess.run(["gcc", "-c", source, "-o", tmp_path / "x.o"], check=True)
        (tmp_path / "libfelix.a").unlink(missing_ok=True)
        subprocess.run(["ar", "rc", tmp_path / "libfelix.a", tmp_path / "x.o"], check=True)
        assert run_script("check-exports.py", tmp_path).returncode == status


def summary():
    spec = importlib.util.spec_from_file_location("test_summary", SCRIPTS / "test-summary.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CMOCKA_GOOD = "[==========] 3 test(s) run.\n[  PASSED  ] 3 test(s).\n"
CMOCKA_BAD = "[  PASSED  ] 2 test(s).\n[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] a_case\n"


@pytest.mark.parametrize(("result", "output", "counts"), [
    ("OK", CMOCKA_GOOD, "unit 3 0 0"),
    ("OK", CMOCKA_GOOD * 2, "unit 6 0 0"),
    ("OK", "", "unit 1 0 0"),
    ("FAIL", CMOCKA_BAD, "unit 2 1 0"),
    ("FAIL", CMOCKA_GOOD, "unit 3 1 0"),
    ("TIMEOUT", "", "unit 0 1 0"),
    ("ERROR", "[==========] Running 3 test(s).\n", "unit 0 1 0"),
])
def test_cases_are_counted_and_a_crash_is_one_failure(tmp_path, result, output, counts):
    log = tmp_path / "testlog.json"
    log.write_text(json.dumps({"name": "x", "result": result, "stdout": "", "stderr": output}) + "\n")
    assert summary().count_meson(log, "0") == counts


def test_a_runner_that_says_nothing_is_a_failure(tmp_path):
    assert summary().count_meson(tmp_path / "missing", "1") == "unit 0 1 0"
    assert summary().count_pytest("e2e", tmp_path / "missing", "2", "", tmp_path) == "e2e 0 1 0"


def test_a_sanitizer_report_that_no_test_noticed_is_a_failure(tmp_path):
    xml = tmp_path / "x.xml"
    xml.write_text('<testsuites><testsuite tests="4" failures="0" errors="0" skipped="1"/></testsuites>')
    reports = tmp_path / "reports"
    reports.mkdir()
    assert summary().count_pytest("e2e", xml, "0", "", reports) == "e2e 3 0 1"
    (reports / "asan.1").write_text("heap-use-after-free")
    assert summary().count_pytest("e2e", xml, "0", "", reports) == "e2e 3 1 1"


def test_the_total_is_one_line_and_nothing_run_is_no_success(tmp_path):
    results = tmp_path / "results.txt"
    for text, line, status in (
        ("unit 3 0 0\ne2e 4 0 0\n", "7 passed, 0 failed\n", 0),
        ("unit 3 1 0\n", "3 passed, 1 failed\n", 1),
        ("", "0 passed, 0 failed\n", 1),
    ):
        results.write_text(text)
        run = run_script("test-summary.py", "total", results)
        assert (run.stdout, run.returncode) == (line, status)
