"""Vectors of large corpora are kept in a file, and rank as those in memory do."""

from pathlib import Path

import pytest
import torch

from two_tower.errors import UserError
from two_tower.validation import _room
from two_tower.validation._room import Room, RoomInFile, room_for

CPU = torch.device("cpu")


def test_a_file_holds_what_memory_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path))
    monkeypatch.setattr(_room, "IN_FILE", 4 * 10 * 3)
    rooms = room_for(10, 3, CPU), room_for(9, 3, CPU)
    assert [type(room) for room in rooms] == [RoomInFile, Room]
    assert type(room_for(10, 3, torch.device("meta"))) is Room
    parts = {0: torch.randn(4, 3), 8: torch.randn(2, 3), 4: torch.randn(4, 3)}  # workers end in any order
    for room in rooms:
        for part in parts.items():
            room.keep(part)
        kept = room.blocks()
        assert {first: block.tolist() for first, block in kept.items()} == {f: p.tolist() for f, p in parts.items()}
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path))
    room = RoomInFile(3)
    room._file = open("/dev/full", "r+b", buffering=0)  # type: ignore[assignment]  # noqa: SIM115
    with pytest.raises(UserError, match=r"do not fit into .* \(No space left on device\): make room there"):
        room.keep((0, torch.ones(5, 3)))
