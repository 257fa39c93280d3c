"""Files are whole or absent."""

from pathlib import Path

import pytest

from two_tower.errors import nearest, one_of
from two_tower.files import atomic_path, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_json_is_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ü": 1.5})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ü": 1.5\n}\n'


def test_nearest_names() -> None:
    assert nearest("averge", ["average", "gru"]) == "average"
    assert nearest("zzz", ["average", "gru"]) is None
    assert one_of("averge", ["gru", "average"]) == "did you mean 'average'? (valid: average, gru)"
    assert one_of("zzz", ["gru", "average"]) == "valid: average, gru"
