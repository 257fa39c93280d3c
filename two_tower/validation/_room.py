"""Room for the vectors of a corpus: memory, or for large ones a file, which leaves memory to the rest."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor

from two_tower.cache import cache_folder
from two_tower.errors import UserError

IN_FILE = 2 << 30  # bytes of vectors from which they are kept in a file


class Room:
    """Keeps blocks of vectors on a device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._blocks = device, dict[int, Tensor]()

    def keep(self, block: tuple[int, Tensor]) -> None:
        """Take the (n, D) vectors of the rows from ``block[0]`` on."""
        self._blocks[block[0]] = block[1].to(self._device)

    def blocks(self) -> dict[int, Tensor]:
        """All blocks by their first row."""
        return self._blocks


class RoomInFile(Room):
    """Keeps them in a file without a name in the cache's folder, mapped: what the system needs of memory, it gets.

    It goes with the last of the vectors, however the process ends. A UserError if the disk is full.
    """

    def __init__(self, dim: int) -> None:
        self._dim, self._firsts, self._sizes = dim, list[int](), list[int]()
        cache_folder().mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=cache_folder())  # noqa: SIM115 (it lives as long as the vectors)

    def keep(self, block: tuple[int, Tensor]) -> None:
        self._firsts.append(block[0])
        self._sizes.append(len(block[1]))
        try:
            self._file.write(block[1].numpy().data)
            self._file.flush()
        except OSError as error:
            message = f"The vectors of the passages do not fit into {cache_folder()} ({error.strerror})"
            raise UserError(f"{message}: make room there, or set TWO_TOWER_CACHE to a larger disk.") from error

    def blocks(self) -> dict[int, Tensor]:
        whole = torch.from_numpy(np.memmap(self._file, np.float32, "r+", shape=(sum(self._sizes), self._dim)))
        return dict(zip(self._firsts, whole.split(self._sizes), strict=True))


def room_for(rows: int, dim: int, device: torch.device) -> Room:
    """Room for (rows, D) float32 vectors."""
    return RoomInFile(dim) if device.type == "cpu" and 4 * rows * dim >= IN_FILE else Room(device)
