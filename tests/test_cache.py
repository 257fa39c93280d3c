"""Cache entries are whole or absent, made once, and never stale."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from two_tower import cache as kept
from two_tower.cache import entry, file_fingerprint, key_of, notice
from two_tower.errors import UserError


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


def made(key: str, size: int = 1000, kind: str = "kind", age: float = 3600) -> Path:
    def make(folder: Path) -> None:
        (folder / ("texts-00000.npy" if key == "dear" else "a")).write_bytes(bytes(size))

    path = entry(kind, key, make)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_was_not_used_for_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    old, dear, young, used = made("old"), made("dear", kind="teacher", age=1e6), made("young", age=1), made("used")
    entry("kind", "used", lambda _: None)
    monkeypatch.setenv("TWO_TOWER_CACHE_LIMIT", "3.5KB")
    new = made("new", age=0)
    assert [path.exists() for path in (old, dear, young, used, new)] == [False, False, True, True, True]
    monkeypatch.setenv("TWO_TOWER_CACHE_LIMIT", "2KB")
    last = made("last")
    assert all(path.exists() for path in (young, used, new, last))  # all are in use


def test_a_teachers_vectors_go_last(monkeypatch: pytest.MonkeyPatch) -> None:
    dear, other, earlier = made("dear", kind="teacher", age=1e6), made("other"), made("earlier", kind="teacher")
    monkeypatch.setenv("TWO_TOWER_CACHE_LIMIT", "2 kb")
    new = made("new")
    assert [path.exists() for path in (dear, other, earlier, new)] == [True, False, False, True]


def test_the_cache_is_cleared_whole_or_by_kinds(cache: Path) -> None:
    for key, kind in (("a", "corpus"), ("b", "corpus"), ("c", "bm25")):
        made(key, kind=kind)
    with pytest.raises(UserError, match="nothing of the kind split; it has bm25, corpus"):
        kept.clear(["split"])
    assert sum(each.bytes for each in kept.clear(["corpus"])) == 2000
    assert [each.kind for each in kept.entries()] == ["bm25"]
    kept.clear()
    assert not kept.entries()
    entry("bm25", "c", lambda folder: (folder / "a").touch())
    assert (cache / "bm25" / "c" / "a").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20e9), ("1.5 mb", 1.5e6), ("300", 300), ("7B", 7), ("none", math.inf)]
)
def test_limits_are_read(text: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE_LIMIT", text)
    assert kept.limit() == size


def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE_LIMIT", "much")
    with pytest.raises(UserError, match="TWO_TOWER_CACHE_LIMIT=much is no size"):
        kept.limit()


def test_sizes_are_for_people() -> None:
    assert [kept.size_of(count) for count in (0, 999, 1e3, 2.345e9, math.inf)] == [
        "0 bytes", "999 bytes", "1 KB", "2.35 GB", "any size",
    ]  # fmt: skip
