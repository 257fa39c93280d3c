"""Word vectors as text: GloVe's files, and word2vec's and fastText's, which have a line with two numbers on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.embedding.reading.file import Block, VectorFile, count_bad, decoded, opened
from two_tower.errors import BadRows, UserError

__all__ = ["TextVectors", "floats"]

_BLOCK_BYTES = 8 << 20


class TextVectors(VectorFile):
    """A word and its numbers on each line, plain or ``.gz``.

    Only the numbers of wanted words are parsed, by Arrow, many lines at once.

    Args:
        path: the file.
        first: its first line and perhaps more.

    Attributes:
        has_header: whether the first line is two numbers: how many words, how many dimensions.

    Raises:
        UserError: the first line is neither a header nor a word with its vector.
    """

    def __init__(self, path: Path, first: bytes) -> None:
        line = first.partition(b"\n")[0].rstrip()
        cells = line.split()
        self.has_header = len(cells) == 2 and all(cell.isdigit() for cell in cells)
        dim = int(cells[1]) if self.has_header else len(cells) - 1
        if not self.has_header and (dim < 1 or floats(cells[1:]) is None):
            raise UserError(f"{path}, row 1: {_shown(line)} is no word with a vector behind it: choose another file.")
        self._separator = b"\t" if b"\t" in line else b" "
        super().__init__(path, dim)

    def blocks(self, bad: BadRows) -> Iterator[Block]:
        """See `VectorFile.blocks`."""
        first = 2 if self.has_header else 1
        for lines in self._lines():
            numbers = range(first, first + len(lines))
            first += len(lines)
            words = decoded([line.partition(self._separator)[0] for line in lines], numbers, self.path, bad)
            yield Block(words, partial(self._vectors, lines, numbers, bad))

    def _lines(self) -> Iterator[list[bytes]]:
        with opened(self.path) as file:
            if self.has_header:
                file.readline()
            rest = b""
            while chunk := file.read(_BLOCK_BYTES):
                block, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield block.split(b"\n")
            if rest:
                yield [rest]

    def _vectors(self, lines: list[bytes], numbers: Sequence[int], bad: BadRows, wanted: np.ndarray) -> np.ndarray:
        rows = [lines[i].partition(self._separator)[2].strip() for i in wanted]
        if all(row.count(self._separator) == self.dim - 1 for row in rows):
            found = self._parse(rows)
            if found is not None:
                return count_bad(found, [numbers[i] for i in wanted], self.path, bad)
        return np.stack([self._parse_one(lines[i], numbers[i], bad) for i in wanted])

    def _parse(self, rows: list[bytes]) -> np.ndarray | None:
        """The numbers of rows that have as many cells as they should, or None where one of these is no number."""
        try:
            text = pa.array([self._separator.join(rows)], pa.large_binary()).cast(pa.large_string())
            cells = pc.list_flatten(pc.split_pattern(text, self._separator.decode()))
            return cells.cast(pa.float32()).to_numpy().reshape(len(rows), self.dim)
        except pa.ArrowInvalid:
            return None

    def _parse_one(self, line: bytes, number: int, bad: BadRows) -> np.ndarray:
        cells = line.split()
        behind, vector = len(cells) - self.dim, floats(cells[-self.dim :])
        if behind == 1 and vector is not None:
            return count_bad(vector[np.newaxis], [number], self.path, bad)[0]
        if behind < 1 or (behind > 1 and floats(cells[1:behind]) is not None):
            bad.add("wrong number of columns", self.path, number, f"{len(cells)} instead of {self.dim + 1}")
        elif vector is None:
            bad.add("value that is no number", self.path, number, _shown(line))
        # What is left are words with blanks in them, as some GloVe files have: nothing is wrong with those.
        return np.full(self.dim, np.nan, np.float32)


def floats(cells: list[bytes]) -> np.ndarray | None:
    """The numbers in cells (k,) as float32, or None where one is no number."""
    try:
        return np.array([float(cell) for cell in cells], np.float32)
    except ValueError:
        return None


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 40 else text[:40] + "…")
