"""Packed files: read in place, bytes equal to what was packed, whatever the compressor's blocks."""

import gzip
import random
from pathlib import Path
from typing import Any

import pytest
from rows import pack

from two_tower.data.reading import archive
from two_tower.data.reading.archive import Archive, Folder, Member
from two_tower.errors import UserError


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def content_of(member: Any) -> bytes:  # noqa: ANN401
    assert isinstance(member, Member)
    with member.open() as file:
        return file.read()


MEMBERS = {
    "./data/collection.tsv": b"0\tfirst passage\n" * 5000 + noise(700_000),
    "./data/empty.tsv": b"",
    "qrels.tsv": noise(512, seed=1),
    "a/very/long/" + "name/" * 60 + "queries.tsv": b"1\tquery\n" * 3000,
}


@pytest.mark.parametrize(("part_size", "order"), [(None, 1), (512, -1), (10_240, 1), (100_001, -1)])
@pytest.mark.parametrize("kept", [0, 10_000, 1 << 27])
def test_members_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_size: int | None, order: int, kept: int
) -> None:
    monkeypatch.setattr(archive, "_KEPT_BYTES", kept)
    packed = Archive(pack(tmp_path / "all.tar.gz", MEMBERS, part_size))
    for name, content in list(MEMBERS.items())[::order]:
        member = packed.find(name.rpartition("/")[2])
        assert content_of(member) == content_of(member) == content
    assert [packed.find("absent.tsv") for _ in range(2)] == [None, None]
    assert list(packed.members) == ["collection.tsv", "empty.tsv", "qrels.tsv", "queries.tsv"]


def test_two_members_at_the_same_time(tmp_path: Path) -> None:
    contents = {"a": noise(100_000, 1), "b": noise(100_000, 2)}
    packed = Archive(pack(tmp_path / "all.tar.gz", contents))
    with packed.find("a").open() as a, packed.find("b").open() as b:
        pieces = [(a.read(1001), b.read(1001)) for _ in range(100)]
    assert [b"".join(parts) for parts in zip(*pieces, strict=True)] == list(contents.values())


def test_finding_stops_at_the_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_KEPT_BYTES", 1 << 20)
    path = pack(tmp_path / "all.tar.gz", {"first.tsv": b"1\tx\n", "large.tsv": noise(3_000_000)})
    path.write_bytes(path.read_bytes()[:1_000_000])
    packed = Archive(path)
    assert content_of(packed.find("first.tsv")) == b"1\tx\n"
    with pytest.raises(UserError, match=r"all\.tar\.gz cannot be read to its end"):
        packed.find("last.tsv")
    with pytest.raises(EOFError):
        content_of(packed.find("large.tsv"))


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.gz"
    for content in (b"", b"<html>", gzip.compress(b"no tar" * 200), gzip.compress(b"")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"all\.tar\.gz (cannot be read|is a web page)"):
            Archive(path).find("a")


def test_only_archives_that_were_named_are_searched(tmp_path: Path) -> None:
    pack(tmp_path / "several.tar.gz", {"queries.tsv": b"packed"})
    assert Folder(tmp_path).find("queries.tsv") is None
    found = Folder(tmp_path, ["absent.tar.gz", "several.tar.gz"]).find("queries.tsv")
    assert content_of(found) == b"packed"
    assert str(found) == f"{tmp_path}/several.tar.gz/queries.tsv"
