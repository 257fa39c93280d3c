"""Files that hold words and vectors: GloVe's text, word2vec's and fastText's text, word2vec's binary.

gensim's `load_word2vec_format` was measured and left out: on 400,000 words of 50 dimensions it took 42 to 54 s, this
1.7 to 4.8, and it stops at the first bad row where this counts them.
"""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.errors import BadRows, UserError

BLOCK_BYTES = 8 << 20
LONGEST_WORD = 8 << 20  # bytes; no word has as many


class Block(NamedTuple):
    """Some words of a file, in its order."""

    words: list[str]  # an empty one stands for a row that cannot be used
    # Positions (k,) among the words → vectors (k, D) float32, NaN for a bad row. Call it before the next block.
    vectors: Callable[[np.ndarray], np.ndarray]


class VectorFile(ABC):
    """A file with a vector of ``dim`` numbers for each of its words."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim

    @abstractmethod
    def blocks(self, bad: BadRows) -> Iterator[Block]:
        """All words, in blocks of bounded size; ``bad`` takes the rows that cannot be used."""

    def count_bad(self, vectors: np.ndarray, numbers: Sequence[int], bad: BadRows) -> np.ndarray:
        """The vectors (k, D) as they are, after rows with a number that is not finite were counted as bad."""
        for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            bad.add("number that is not finite", self.path, numbers[row])
        return vectors

    def decode(self, words: list[bytes], numbers: Sequence[int], bad: BadRows) -> list[str]:
        """The words as text; one that is not UTF-8 becomes empty and is a bad row."""
        try:
            return [word.decode() for word in words]
        except UnicodeDecodeError:
            texts = [word.decode(errors="replace") for word in words]
            for i, (word, text) in enumerate(zip(words, texts, strict=True)):
                if text.encode() != word:
                    bad.add("invalid UTF-8", self.path, numbers[i], text)
                    texts[i] = ""
            return texts


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed where it is a gzip file."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read to its end ({reason}): get a whole copy of it.") from error


class TextVectors(VectorFile):
    """A word and its numbers on each line. Only the numbers of wanted words are parsed, by Arrow, many at once.

    ``first`` is the file's first line, perhaps a header of two numbers (how many words, how many dimensions), and more.
    """

    def __init__(self, path: Path, first: bytes) -> None:
        line = first.partition(b"\n")[0].rstrip()
        cells = line.split()
        self.has_header = len(cells) == 2 and all(cell.isdigit() for cell in cells)
        dim = int(cells[1]) if self.has_header else len(cells) - 1
        if not self.has_header and (dim < 1 or _floats(cells[1:]) is None):
            raise UserError(f"{path}, row 1: {_shown(line)} is no word with a vector behind it: choose another file.")
        self._separator = b"\t" if b"\t" in line else b" "
        super().__init__(path, dim)

    def blocks(self, bad: BadRows) -> Iterator[Block]:
        first = 2 if self.has_header else 1
        for lines in self._lines():
            numbers = range(first, first + len(lines))
            first += len(lines)
            words = self.decode([line.partition(self._separator)[0] for line in lines], numbers, bad)
            yield Block(words, partial(self._vectors, lines, numbers, bad))

    def _lines(self) -> Iterator[list[bytes]]:
        with opened(self.path) as file:
            if self.has_header:
                file.readline()
            rest = b""
            while chunk := file.read(BLOCK_BYTES):
                block, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield block.split(b"\n")
            if rest:
                yield [rest]

    def _vectors(self, lines: list[bytes], numbers: Sequence[int], bad: BadRows, wanted: np.ndarray) -> np.ndarray:
        rows = [lines[i].partition(self._separator)[2].strip() for i in wanted]
        if all(row.count(self._separator) == self.dim - 1 for row in rows):
            vectors = self._parse(rows)
            if vectors is not None:
                return self.count_bad(vectors, [numbers[i] for i in wanted], bad)
        return np.stack([self._parse_one(lines[i], numbers[i], bad) for i in wanted])

    def _parse(self, rows: list[bytes]) -> np.ndarray | None:
        """The numbers of rows with the right number of cells, or None where one of these is no number."""
        try:
            text = pa.array([self._separator.join(rows)], pa.large_binary()).cast(pa.large_string())
            cells = pc.list_flatten(pc.split_pattern(text, self._separator.decode()))
            return cells.cast(pa.float32()).to_numpy().reshape(len(rows), self.dim)
        except pa.ArrowInvalid:
            return None

    def _parse_one(self, line: bytes, number: int, bad: BadRows) -> np.ndarray:
        cells = line.split()
        behind, vector = len(cells) - self.dim, _floats(cells[-self.dim :])
        if behind == 1 and vector is not None:
            return self.count_bad(vector[np.newaxis], [number], bad)[0]
        if behind < 1 or (behind > 1 and _floats(cells[1:behind]) is not None):
            bad.add("wrong number of columns", self.path, number, f"{len(cells)} instead of {self.dim + 1}")
        elif vector is None:
            bad.add("value that is no number", self.path, number, _shown(line))
        # What is left are words with blanks in them, as some GloVe files have: not an error.
        return np.full(self.dim, np.nan, np.float32)

    def is_binary(self, first: bytes) -> bool:
        """Whether none of the lines after a header is text; a first row or two of a text file may be bad."""
        rows = map(bytes.split, first.split(b"\n", 4)[1:4])
        text = any(len(cells) > self.dim and _floats(cells[-self.dim :]) is not None for cells in rows)
        return self.has_header and not text


def _floats(cells: list[bytes]) -> np.ndarray | None:
    """The numbers in cells (k,) as float32, or None where one is no number."""
    try:
        return np.array([float(cell) for cell in cells], np.float32)
    except ValueError:
        return None


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 40 else text[:40] + "…")


class BinaryVectors(VectorFile):
    """word2vec's binary format, as the original program and gensim write it.

    A line with the number of words and of dimensions, then each word, a blank and its float32s.
    """

    def __init__(self, path: Path, header: bytes) -> None:
        self._words, dim = map(int, header.split())
        super().__init__(path, dim)

    def blocks(self, bad: BadRows) -> Iterator[Block]:
        done, data = 0, b""
        with opened(self.path) as file:
            file.readline()
            while done < self._words:
                chunk = file.read(BLOCK_BYTES)
                data += chunk
                raw, starts = self._rows(data, self._words - done)
                if not raw and chunk and len(data) <= LONGEST_WORD + 4 * self.dim:
                    continue
                if not raw:
                    place = f"has no word {done + 1}" if chunk else f"ends after {done} of its {self._words} words"
                    raise UserError(f"{self.path} {place}: get a whole copy of it.")
                numbers = range(done + 1, done + 1 + len(raw))
                yield Block(self.decode(raw, numbers, bad), partial(self._vectors, data, starts, numbers, bad))
                done += len(raw)
                data = data[starts[-1] + 4 * self.dim :]

    def _vectors(
        self, data: bytes, starts: list[int], numbers: Sequence[int], bad: BadRows, wanted: np.ndarray
    ) -> np.ndarray:
        vectors = np.stack([np.frombuffer(data, "<f4", self.dim, starts[i]) for i in wanted])
        return self.count_bad(vectors, [numbers[i] for i in wanted], bad)

    def _rows(self, data: bytes, max_rows: int) -> tuple[list[bytes], list[int]]:
        """The words of the whole rows at the start of ``data``, and where the numbers of each start."""
        words, starts, position = list[bytes](), list[int](), 0
        while len(words) < max_rows:
            start = data.find(b" ", position) + 1
            if start == 0 or start + 4 * self.dim > len(data):
                break
            words.append(data[position : start - 1].lstrip(b"\n"))  # the original program ends rows with one
            starts.append(start)
            position = start + 4 * self.dim
        return words, starts
