"""What `meson install` puts down is all that a user of libfelix needs, in C99 and in C++."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("FELIX_BIN_DIR", ROOT / "build/bin")).resolve().parent
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic-errors", "-Werror"]
C99 = [os.environ.get("CC", "gcc"), "-std=c99", "-D_POSIX_C_SOURCE=200809L", "-pthread", *STRICT]
CXX = [os.environ.get("CXX", "c++"), "-std=c++11", *STRICT]

needs_cxx = pytest.mark.skipif(not shutil.which(CXX[0]), reason="there is no C++ compiler here")


def run(*command, **env):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, **env}
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


class Installed:
    """The tree below a DESTDIR, seen through pkg-config as a user sees it."""

    def __init__(self, root):
        self.root = root
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", root)
        (self.pc,) = root.rglob("felix.pc")
        self.lib = self.pc.parent.parent
        (self.header,) = root.rglob("felix/felix.h")

    def flags(self, *what):
        return run(
            "pkg-config", *what, "felix",
            PKG_CONFIG_PATH=str(self.pc.parent), PKG_CONFIG_SYSROOT_DIR=str(self.root),
        ).split()

    def functions(self):
        """The names that the header declares."""
        return set(re.findall(r"^FELIX_API [^;(]*\b(felix_\w+)\(", self.header.read_text(), re.M))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    if not (BUILD / "build.ninja").exists():
        pytest.fail(f"nothing is built in {BUILD}", pytrace=False)
    return Installed(tmp_path_factory.mktemp("destdir"))


def exported(library, *options):
    lines = run("nm", "-g", "--defined-only", *options, library).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if len(line.split()) == 3}


def test_library_headers_and_pkg_config_are_installed(installed):
    names = {p.name for p in installed.lib.iterdir()}
    assert {"libfelix.so", "libfelix.so.0", "libfelix.a"} <= names
    assert installed.header.parent / "errors.h" in installed.header.parent.iterdir()
    dynamic = run("objdump", "-p", installed.lib / "libfelix.so")
    assert re.search(r"SONAME +libfelix\.so\.0$", dynamic, re.M)


def test_exactly_the_functions_of_the_header_are_exported(installed):
    declared = installed.functions()
    assert "felix_connect" in declared and len(declared) > 30
    assert exported(installed.lib / "libfelix.so", "-D") - {"FELIX_0"} == declared
    assert exported(installed.lib / "libfelix.a") == declared
    run(sys.executable, ROOT / "scripts/check-exports.py", installed.lib)


def test_the_header_defines_no_name_of_anybody_else(installed):
    """Macros of its own begin with FELIX_; errors.h may not leak its helpers either."""
    base = set(macros(installed, "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n"))
    mine = set(macros(installed, "#include <felix/felix.h>\n")) - base
    assert mine and all(name.startswith("FELIX_") for name in mine), mine


def macros(installed, text):
    done = subprocess.run(
        [*C99, *installed.flags("--cflags"), "-dM", "-E", "-"],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.findall(r"^#define (\w+)", done.stdout, re.M)


@pytest.mark.parametrize("source", sorted((ROOT / "examples").glob("*.c")), ids=lambda p: p.stem)
def test_an_example_compiles_as_c99_and_links(installed, tmp_path, source):
    program = tmp_path / source.stem
    run(*C99, source, *installed.flags("--cflags", "--libs"), "-o", program)
    needed = run("objdump", "-p", program)
    assert "libfelix.so.0" in needed and "libgnutls" not in needed


@needs_cxx
@pytest.mark.parametrize("source", sorted((ROOT / "examples").glob("*.cpp")), ids=lambda p: p.stem)
def test_an_example_compiles_as_cxx_and_links(installed, tmp_path, source):
    run(*CXX, source, *installed.flags("--cflags", "--libs"), "-o", tmp_path / source.stem)


@needs_cxx
@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_header_alone_is_cxx(installed, tmp_path, standard):
    source = tmp_path / "alone.cpp"
    source.write_text("#include <felix/felix.h>\nint main() { return felix_err_name(FELIX_OK) == 0; }\n")
    flags = installed.flags("--cflags", "--libs")
    run(*CXX, f"-std={standard}", "-Wold-style-cast", source, *flags, "-o", tmp_path / "alone")


USER = """
#include <felix/felix.h>
#include <stdio.h>
#include <string.h>

/* Names that the library has inside too: they must not meet. */
int buf_new(void);
int loop_init(void);
int buf_new(void) { return 20; }
int loop_init(void) { return 22; }

int main(void) {
    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_options_set_token(options, "x") != FELIX_OK)
        return 1;
    if (felix_options_set_server(options, "127.0.0.1:1") != FELIX_OK)
        return 1;
    if (felix_connect(options, 2000, &client) == FELIX_OK)
        return 1;
    printf("%s %d %s\\n", felix_version(), buf_new() + loop_init(), felix_last_error());
    felix_options_free(options);
    return 0;
}
"""


def requires(installed):
    (line,) = re.findall(r"^Requires.private: (.*)$", installed.pc.read_text(), re.M)
    return line.split(", ")


def private_libraries(installed):
    (line,) = re.findall(r"^Libs.private: (.*)$", installed.pc.read_text(), re.M)
    return line.split()


@pytest.mark.parametrize("how", ["shared", "static"])
def test_a_users_program_links_and_runs(installed, tmp_path, how):
    source, program = tmp_path / "user.c", tmp_path / "user"
    source.write_text(USER)
    flags = installed.flags("--cflags", "--libs")
    if how == "static":
        # Only libfelix: what it uses itself comes from the system as ever.
        needs = run("pkg-config", "--libs", *requires(installed)).split() + private_libraries(installed)
        flags = [*installed.flags("--cflags"), installed.lib / "libfelix.a", *needs]
    run(*C99, source, *flags, "-o", program)
    env = {"HOME": str(tmp_path)}
    if how == "shared":
        env["LD_LIBRARY_PATH"] = str(installed.lib)
    assert run(program, **env).startswith("0.1.0 42 cannot connect to 127.0.0.1:1")
