"""Word vectors in word2vec's binary format: a line with two numbers, then each word, a blank and its float32s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from two_tower.embedding.reading.file import Block, VectorFile, count_bad, decoded, opened
from two_tower.errors import BadRows, UserError

__all__ = ["BinaryVectors"]

_BLOCK_BYTES = 8 << 20
_LONGEST = 8 << 20  # bytes that no word has


class BinaryVectors(VectorFile):
    """word2vec's binary format as the original program and gensim write it, plain or ``.gz``.

    Args:
        path: the file.
        words: how many words the header promises.
        dim: dimensions of a vector.
    """

    def __init__(self, path: Path, words: int, dim: int) -> None:
        super().__init__(path, dim)
        self._words = words

    def blocks(self, bad: BadRows) -> Iterator[Block]:
        """See `VectorFile.blocks`."""
        done, data = 0, b""
        with opened(self.path) as file:
            file.readline()
            while done < self._words:
                chunk = file.read(_BLOCK_BYTES)
                data += chunk
                raw, starts = self._rows(data, self._words - done)
                if not raw and chunk and len(data) <= _LONGEST + 4 * self.dim:
                    continue
                if not raw:
                    place = f"has no word {done + 1}" if chunk else f"ends after {done} of its {self._words} words"
                    raise UserError(f"{self.path} {place}: get a whole copy of it.")
                numbers = range(done + 1, done + 1 + len(raw))
                words = decoded(raw, numbers, self.path, bad)
                yield Block(words, partial(self._vectors, data, starts, numbers, bad))
                done += len(raw)
                data = data[starts[-1] + 4 * self.dim :]

    def _vectors(
        self, data: bytes, starts: list[int], numbers: Sequence[int], bad: BadRows, wanted: np.ndarray
    ) -> np.ndarray:
        found = np.stack([np.frombuffer(data, "<f4", self.dim, starts[i]) for i in wanted])
        return count_bad(found, [numbers[i] for i in wanted], self.path, bad)

    def _rows(self, data: bytes, most: int) -> tuple[list[bytes], list[int]]:
        """The words of the whole rows at the start of ``data``, and where the numbers of each start."""
        words, starts, position = list[bytes](), list[int](), 0
        while len(words) < most:
            start = data.find(b" ", position) + 1
            if start == 0 or start + 4 * self.dim > len(data):
                break
            words.append(data[position : start - 1].lstrip(b"\n"))  # the original program ends rows with one
            starts.append(start)
            position = start + 4 * self.dim
        return words, starts
