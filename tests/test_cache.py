"""Cache entries are whole or absent, made once, and never stale."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from two_tower.cache import entry, file_fingerprint, key_of, notice


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_entry_is_made_once() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "a").write_text("content")

    first, second = entry("kind", "key", make), entry("kind", "key", make)
    assert first == second
    assert (first / "a").read_text() == "content"
    assert len(made) == 1


def test_what_a_maker_that_failed_or_was_killed_left_is_thrown_away(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("died")

    with pytest.raises(RuntimeError, match="died"):
        entry("kind", "key", fail)
    assert not (cache / "kind" / "key").exists()
    left = cache / "kind" / ".key.tmp"
    left.mkdir()
    (left / "half").touch()
    path = entry("kind", "key", lambda folder: (folder / "whole").touch())
    assert [p.name for p in path.iterdir()] == ["whole"]


def test_processes_that_start_together_make_one_entry(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from two_tower.cache import entry\n"
        "def make(folder):\n"
        "    with open(sys.argv[1], 'a') as file: file.write('made\\n')\n"
        "    time.sleep(0.5); (folder / 'a').write_text('whole')\n"
        "print((entry('kind', 'key', make) / 'a').read_text())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) for _ in range(3)]
    assert [p.communicate(timeout=60)[0].strip() for p in running] == ["whole"] * 3
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    first, times = file_fingerprint(path), path.stat()
    assert file_fingerprint(path) == first
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time of change
    assert file_fingerprint(path) != first
    (tmp_path / "copy").write_text("two")
    assert file_fingerprint(tmp_path / "copy") == file_fingerprint(path)


def test_keys_keep_their_parts_apart() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("a", 1) == key_of("a", "1")


def test_notices_are_said_once_and_kept(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path) -> None:
        notice("row 3 is bad")
        notice("row 3 is bad")

    for _ in range(2):
        entry("kind", "key", make)
    assert [record.message for record in caplog.records] == ["row 3 is bad"]
    monkeypatch.setattr("two_tower.cache._said", set())  # as in another process
    entry("kind", "key", make)
    assert [record.message for record in caplog.records] == ["row 3 is bad"] * 2


def test_notices_of_inner_entries_are_kept(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def inner() -> Path:
        return entry("inner", "key", lambda folder: notice("row 3 is bad"))

    inner()
    entry("outer", "key", lambda folder: folder.joinpath("part").symlink_to(inner()))
    caplog.clear()
    monkeypatch.setattr("two_tower.cache._said", set())
    entry("outer", "key", lambda folder: None)
    notice("a stray remark")
    assert [record.message for record in caplog.records] == ["row 3 is bad", "a stray remark"]
