"""Files are whole or absent."""

from pathlib import Path

import pytest

from two_tower.errors import UserError
from two_tower.files import atomic_path, read_json, write_text


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


@pytest.mark.parametrize("text", ["", '{"a": "b', "no JSON"])
def test_a_damaged_document_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(UserError, match=r"data\.json is damaged .*: restore or delete that file\."):
        read_json(tmp_path / "data.json")
    assert read_json(tmp_path / "other.json") is None
