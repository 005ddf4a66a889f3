"""felix log and felix-log-tool: what they say of logs, what they change, and what they leave alone."""

import hashlib
import json
import os
import re
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from felix_testlib.broker import binary, environment
from felix_testlib.cli import Cli
from felix_testlib.slow import scaled

RECORD = 28 + 40
SCOPE = """
scope:
  tenants:
    t1:
      namespaces:
        default:
          streams:
            orders: {durable: true}
"""


@pytest.fixture
def felix(tmp_path):
    cli = Cli(tmp_path / "home")
    yield cli
    cli.close()


@pytest.fixture
def tool(tmp_path):
    """felix-log-tool, run to its end: (status, lines of JSON, standard error)."""

    def run(*args):
        done = subprocess.run(
            [binary("felix-log-tool"), *map(str, args)],
            env=environment(tmp_path), capture_output=True, text=True, timeout=scaled(30),
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    return run


@pytest.fixture
def log(felix, tmp_path) -> Path:
    """Three segments, 25 generated records of 40 bytes, closed in order."""
    path = tmp_path / "log"
    felix("log", "write", path, "--records", 25, "--payload-bytes", 40, "--segment-bytes", 32 + 10 * RECORD)
    return path


def segment(log: Path, number: int) -> Path:
    return log / f"{number:020}.log"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def state_of(directory: Path) -> dict[str, tuple[str, int]]:
    """Every file below a directory, with a hash of its bytes and the time it was written."""
    return {
        str(p.relative_to(directory)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in directory.rglob("*")
        if p.is_file()
    }


def generated(offset: int, length: int) -> bytes:
    """The payload of broker specification 7, written down a second time."""
    head = b"felix-record-%020d-" % offset
    return head + bytes((offset % 251 + i) % 256 for i in range(len(head), length))


def parse(path: Path, base: int) -> list[tuple[int, bytes]]:
    """The records of a segment, read as broker specification 6.2 and 6.3 say, checksums and all."""
    data = path.read_bytes()
    magic, version, flags, first, _, crc, _ = struct.unpack(">4sHHQQII", data[:32])
    assert (magic, version, flags, first) == (b"FLSG", 2, 0, base)
    assert crc == zlib.crc32(data[:24])
    records, at = [], 32
    while at < len(data):
        length, offset, _, header_crc, checksum = struct.unpack(">IQQII", data[at : at + 28])
        payload = data[at + 28 : at + 28 + length]
        assert header_crc == zlib.crc32(data[at : at + 20])
        assert checksum == zlib.crc32(data[at : at + 24] + payload)
        records.append((offset, payload))
        at += 28 + length
    return records


# ---- the format


def test_what_is_written_is_version_2_byte_for_byte(log):
    files = sorted(p.name for p in log.glob("*.log"))
    assert files == [segment(log, n).name for n in (0, 1, 2)]
    for number, (first, end) in enumerate([(0, 10), (10, 20), (20, 25)]):
        assert parse(segment(log, number), first) == [(o, generated(o, 40)) for o in range(first, end)]
        index = segment(log, number).with_suffix(".index").read_bytes()
        assert struct.unpack(">4sHHQ", index[:16]) == (b"FLSI", 2, 0, first)
        assert struct.unpack(">QQ", index[24:40]) == (first, 32)


def test_a_log_of_the_original_is_read(felix, tmp_path):
    """A directory as the original leaves it: no checkpoint; created by this test from the specification."""
    path = tmp_path / "theirs"
    path.mkdir()
    header = bytes.fromhex("464C53470002000000000000000000010000000000000002") + bytes.fromhex("7A09E5B100000000")
    record = struct.pack(">IQQ", 2, 1, 9)
    record += struct.pack(">I", zlib.crc32(record))
    record += struct.pack(">I", zlib.crc32(record + b"hi")) + b"hi"
    segment(path, 0).write_bytes(header + record)
    (one,) = felix("log", "dump", path, "--json").records
    assert (one["offset"], one["timestamp_us"], one["payload"]) == (1, 9, "hi")
    seen = felix("log", "inspect", path, "--json").record
    assert (seen["base_offset"], seen["end_offset"], seen["checkpoint"]) == (1, 2, None)
    assert seen["segments"][0]["created_us"] == 2


# ---- looking


READ_ONLY = [
    ["inspect"], ["inspect", "--json"], ["dump"], ["dump", "--json", "--payload", "hex"],
    ["verify"], ["verify", "--json", "--payload-bytes", "40"], ["repair", "--dry-run"],
]  # fmt: skip


def damage_nothing(log: Path) -> None:
    pass


def damage_record(log: Path) -> None:
    flip(segment(log, 1), 32 + 3 * RECORD + 30)


def damage_header(log: Path) -> None:
    flip(segment(log, 1), 9)


def tear_end(log: Path) -> None:
    with segment(log, 2).open("ab") as f:
        f.write(segment(log, 1).read_bytes()[32:90])


def lose_index(log: Path) -> None:
    segment(log, 0).with_suffix(".index").unlink()


def leave_roll(log: Path) -> None:
    segment(log, 3).write_bytes(b"FLSG")


@pytest.mark.parametrize("spoil", [damage_nothing, damage_record, damage_header, tear_end, lose_index, leave_roll])
def test_commands_that_only_look_change_not_one_byte(felix, log, spoil):
    spoil(log)
    before = state_of(log)
    for words in READ_ONLY:
        ended = felix.start("log", *words, log)
        ended.process.communicate(timeout=scaled(20))
        assert ended.process.returncode in (0, 1, 4), words
        assert state_of(log) == before, words


def test_dump_gives_every_record_in_every_form(felix, log):
    lines = felix("log", "dump", log, "--from", 18, "--count", 3, "--payload", "hex").text.splitlines()
    rows = [line.split("\t") for line in lines]
    assert [int(r[0]) for r in rows] == [18, 19, 20]
    assert [bytes.fromhex(r[3]) for r in rows] == [generated(o, 40) for o in (18, 19, 20)]
    records = felix("log", "dump", log, "--json").records
    assert [r["offset"] for r in records] == list(range(25))
    assert records[24]["payload"].encode() == generated(24, 40)
    assert (records[24]["segment"], records[24]["position"]) == (2, 32 + 4 * RECORD)
    assert felix("log", "dump", log, "--from", 25).text == ""


def test_dump_goes_around_damage_and_says_so(felix, log):
    damage_record(log)
    ended = felix("log", "dump", log, status=1)
    assert [int(line.split(b"\t")[0]) for line in ended.lines] == [o for o in range(25) if o != 13]
    assert "record 13 cannot be read: " not in ended.err and "checksum; record 13 cannot be read" in ended.err


def test_verify_names_every_flipped_byte(felix, log):
    assert felix("log", "verify", log, "--payload-bytes", 40, "--expect-at-least", 25).err == ""
    for at, first, what in [(32 + 30, 10, "checksum"), (32 + 5 * RECORD + 3, 15, "header_checksum")]:
        flip(segment(log, 1), at)
        ended = felix("log", "verify", log, "--json", status=1)
        assert ended.record["ok"] is False
        (damage,) = ended.record["damage"]
        assert (damage["first"], damage["end"], damage["segment"], damage["what"]) == (first, first + 1, 1, what)
        flip(segment(log, 1), at)
    damage_header(log)
    (damage,) = felix("log", "verify", log, "--json", status=1).record["damage"]
    assert (damage["first"], damage["end"]) == (10, 20)


def test_verify_fails_when_records_are_not_what_was_expected(felix, log):
    assert "26 expected" in felix("log", "verify", log, "--expect-at-least", 26, status=1).err
    assert "25 payloads are not" in felix("log", "verify", log, "--payload-bytes", 41, status=1).err


def test_an_unfinished_write_is_no_damage(felix, log):
    tear_end(log)
    ended = felix("log", "verify", log, "--json")
    assert (ended.record["ok"], ended.record["tail_offset"], ended.record["unfinished_bytes"]) == (True, 25, 58)


def test_what_is_no_log_is_not_found(felix, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no log" in felix("log", "inspect", tmp_path / "empty", status=1).err
    assert "no directory" in felix("log", "verify", tmp_path / "missing", status=1).err
    assert "stream nobody" in felix("log", "dump", "nobody", status=1).err
    assert "which log" in felix("log", "dump", status=2).err


# ---- repairing


def test_repair_does_what_the_dry_run_says_and_twice_is_once(felix, log):
    tear_end(log)
    lose_index(log)
    said = felix("log", "repair", log, "--dry-run", "--json").record
    assert (said["opens"], said["cut_bytes"], said["indexes"]) == (True, 58, 1)
    done = felix("log", "repair", log, "--json").record
    assert {**done, "dry_run": True} == said
    assert segment(log, 2).stat().st_size == 32 + 5 * RECORD
    assert segment(log, 0).with_suffix(".index").exists()
    bytes_then = {name: h for name, (h, _) in state_of(log).items() if name != "checkpoint"}
    assert "nothing to do" in felix("log", "repair", log).text
    assert {name: h for name, (h, _) in state_of(log).items() if name != "checkpoint"} == bytes_then
    felix("log", "verify", log, "--payload-bytes", 40, "--expect-at-least", 25)


def test_repair_leaves_damaged_records_in_their_files(felix, log):
    damage_record(log)
    before = segment(log, 1).read_bytes()
    assert felix("log", "repair", log, "--json", status=1).record["damaged_ranges"] == 1
    assert segment(log, 1).read_bytes() == before


# ---- writing and measuring


@pytest.mark.parametrize("fsync", ["none", "periodic", "on_commit"])
def test_acknowledged_records_survive_a_kill(felix, tool, tmp_path, fsync):
    path = tmp_path / "killed"
    end = 0
    for _ in range(2):
        running = felix.start("log", "write", path, "--records", 0, "--report-acks", "--json", "--batch", 3,
                              "--fsync", fsync, "--segment-bytes", 20000)  # fmt: skip
        for _ in range(40):
            line = running.line()
        running.kill()
        acked = json.loads(line)["last_offset"] + 1
        assert acked >= end + 100
        verified = felix("log", "verify", path, "--payload-bytes", 128, "--expect-at-least", acked, "--json").record
        end = verified["tail_offset"]
        status, lines, err = tool("verify", "--dir", path, "--payload-bytes", 128, "--expect-at-least", acked)
        assert (status, lines[0]["tail_offset"]) == (0, end), err


def test_bench_measures_what_was_asked_for(felix, tmp_path):
    path = tmp_path / "bench"
    words = ["--records", 500, "--warmup-records", 50, "--batch", 4, "--concurrency", 7, "--payload-bytes", 100]
    got = felix("log", "bench", "write", path, *words, "--label", "a b", "--json").record
    assert got["records"] == 504 and got["batch"] == 4 and got["concurrency"] == 7 and got["label"] == "a b"
    assert got["appends"] == 7 * 18
    latency = got["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"] <= latency["max"]
    assert got["records_per_second"] == pytest.approx(504 / got["seconds"], rel=0.01)
    felix("log", "verify", path, "--payload-bytes", 100, "--expect-at-least", 554)
    read = felix("log", "bench", "read", path, "--json").record
    assert (read["records"], read["payload_bytes"]) == (554, 55400)
    assert not (path / "lock").exists()


# ---- felix-log-tool


def test_the_tool_writes_and_verifies_as_the_one_before(tool, tmp_path):
    path = tmp_path / "log"
    status, lines, _ = tool("write", "--dir", path, "--records=5", "--batch", 2, "--report-acks", "--clean-shutdown")
    assert status == 0
    assert lines == [
        {"event": "opened", "dir": str(path), "start_offset": 0, "fsync": "on_commit"},
        {"event": "ack", "first_offset": 0, "last_offset": 1},
        {"event": "ack", "first_offset": 2, "last_offset": 3},
        {"event": "ack", "first_offset": 4, "last_offset": 4},
        {"event": "done", "tail_offset": 5, "durable_offset": 5},
    ]
    status, lines, _ = tool("write", "--dir", path, "--records", 1, "--fsync", "periodic", "--batch", 0)
    assert (status, lines[0]["start_offset"], lines[0]["fsync"]) == (0, 5, "periodic:250ms")
    status, (verified,), _ = tool("verify", "--dir", path, "--payload-bytes", 128)
    assert status == 0
    assert verified.pop("recovery_seconds") > 0
    assert verified == {"event": "verified", "base_offset": 0, "tail_offset": 6, "records": 6, "segments": 1}
    assert tool("verify", "--dir", path, "--expect-at-least", 7)[0] == 1
    assert tool("verify", "--dir", path, "--payload-bytes", 99)[0] == 1


def test_the_tool_makes_a_log_that_is_not_there(tool, tmp_path):
    status, (verified,), _ = tool("verify", "--dir", tmp_path / "new")
    assert (status, verified["records"], verified["segments"]) == (0, 0, 1)


def test_the_tools_bench_has_the_members_of_the_one_before(tool, tmp_path):
    status, (bench,), _ = tool("bench", "--dir", tmp_path / "b", "--records", 20, "--warmup-records", 0, "--fsync", "none")
    assert status == 0
    assert list(bench) == ["event", "label", "fsync", "records", "batch", "payload_bytes", "concurrency", "seconds",
                           "records_per_second", "appends", "latency_us"]  # fmt: skip
    assert list(bench["latency_us"]) == ["p50", "p90", "p99", "p999", "max"]
    assert (bench["label"], bench["fsync"], bench["records"], bench["appends"]) == ("run", "none", 20, 20)


def test_a_flag_without_a_value_swallows_the_word_behind_it(tool, tmp_path):
    status, lines, _ = tool("write", "--clean-shutdown", "yes", "--dir", tmp_path / "a", "--report-acks", "--records", 1)
    assert (status, len(lines)) == (0, 3)


@pytest.mark.parametrize(
    "words",
    [[], ["help"], ["--help"], ["-h"], ["write"], ["nonsense", "--dir", "x"], ["write", "--dir", "x", "--bogus"],
     ["verify", "--dir", "x", "--records", "1"], ["write", "--dir", "x", "y", "z"], ["write", "--dir"],
     ["write", "--dir", "x", "--records", "many"], ["write", "--dir", "x", "--fsync", "sometimes"]],
    ids=lambda w: " ".join(w) or "nothing",
)  # fmt: skip
def test_the_tool_refuses_other_arguments_with_status_2(tool, tmp_path, words):
    status, lines, err = tool(*[tmp_path / w if w == "x" else w for w in words])
    assert (status, lines) == (2, [])
    assert err != ""
    assert not (tmp_path / "x").exists()


# ---- backup


def test_a_backup_comes_back_as_it_was(felix, log, tmp_path):
    felix("log", "backup", log, tmp_path / "b")
    felix("log", "verify", tmp_path / "b")
    felix("log", "restore", tmp_path / "b", tmp_path / "r")
    for number in range(3):
        assert segment(tmp_path / "r", number).read_bytes() == segment(log, number).read_bytes()
    felix("log", "verify", tmp_path / "r", "--payload-bytes", 40, "--expect-at-least", 25)
    assert felix("log", "inspect", tmp_path / "r", "--json").record["checkpoint"]["clean"] is True
    assert "nothing is overwritten" in felix("log", "restore", tmp_path / "b", tmp_path / "r", status=4).err
    assert "nothing is overwritten" in felix("log", "backup", log, tmp_path / "b", status=4).err


def test_a_changed_backup_is_refused_and_leaves_nothing(felix, log, tmp_path):
    felix("log", "backup", log, tmp_path / "b")
    flip(segment(tmp_path / "b" / "log", 1), 100)
    assert "not what the manifest says" in felix("log", "restore", tmp_path / "b", tmp_path / "r", status=4).err
    assert "not what the manifest says" in felix("log", "verify", tmp_path / "b", status=1).err
    assert not (tmp_path / "r").exists() and not (tmp_path / "r.restoring").exists()
    (tmp_path / "b" / "felix-backup.manifest").unlink()
    assert "no backup" in felix("log", "restore", tmp_path / "b", tmp_path / "r", status=1).err


def test_damage_is_copied_named_and_restored_only_when_wanted(felix, log, tmp_path):
    damage_record(log)
    assert "records 13 to 13 are damaged" in felix("log", "backup", log, tmp_path / "b", status=1).err
    assert "13" in felix("log", "restore", tmp_path / "b", tmp_path / "r", status=4).err
    felix("log", "restore", "--damaged-too", tmp_path / "b", tmp_path / "r", status=1)
    assert segment(tmp_path / "r", 1).read_bytes() == segment(log, 1).read_bytes()


def test_a_node_is_backed_up_while_it_serves(start_broker, tmp_path):
    broker = start_broker(yaml=SCOPE)
    felix = Cli.of(broker, tmp_path / "home")
    felix("pub", "orders", stdin=b"".join(b"%d\n" % i for i in range(500)))
    publishing = felix.start("bench", "pub", "orders", "--duration", "30s", "--size", "100", "--batch", "8")
    streams = Path(broker.data_dir) / "streams"
    assert "broker is serving" in felix("log", "repair", "orders", status=4).err
    ends = []
    for number in range(3):
        done = felix("log", "backup", streams, tmp_path / f"backup{number}", "--json").record
        assert done["base_offset"] == 0
        ends.append(done["end_offset"])
    publishing.kill()
    assert 500 <= ends[0] <= ends[1] <= ends[2] and ends[2] > 500
    assert felix("log", "verify", "--json").record["tail_offset"] >= ends[2]
    felix("log", "restore", tmp_path / "backup2", tmp_path / "restored")
    (one,) = [p for p in (tmp_path / "restored").iterdir()]
    records = felix("log", "dump", one, "--json", "--count", 500).records
    assert [r["payload"] for r in records] == [str(i) for i in range(500)]
    broker.stop()
    again = start_broker(yaml=SCOPE, env={"FELIX_DURABLE_STORAGE_DIR": tmp_path / "restored"})
    felix_again = Cli.of(again, tmp_path / "home2")
    got = felix_again("sub", "orders", "--from", "499", "--count", 1)
    assert got.lines == [b"499"]
    assert felix_again("pub", "orders", "next", "--json").record["offset"] == ends[2]
    felix.close()
    felix_again.close()


def test_inspect_reads_for_people(felix, log):
    text = felix("log", "inspect", log).text
    assert "0 to 24 (25), 1,796 bytes in 3 segments" in text
    assert re.search(r"^ +1  10 \.\. 19 +10 +712 .*sealed, index good$", text, re.M)
    assert os.fspath(log) in text
