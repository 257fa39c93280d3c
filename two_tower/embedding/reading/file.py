"""What every file of word vectors is to its reader: blocks of words, and vectors of those that are wanted."""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from two_tower.errors import BadRows, UserError

__all__ = ["Block", "VectorFile", "count_bad", "decoded", "opened"]

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Block:
    """Some words of a file, in its order.

    Attributes:
        words: n words; an empty one stands for a row that cannot be used.
        vectors: gives for positions (k,) among the words their vectors, (k, D) float32; a row of NaN where
            the file holds no vector that can be used. To be called before the next block is asked for.
    """

    words: list[str]
    vectors: Callable[[np.ndarray], np.ndarray]


class VectorFile(ABC):
    """A file with a vector for each of its words.

    Args:
        path: the file.
        dim: dimensions of its vectors.
    """

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim

    @abstractmethod
    def blocks(self, bad: BadRows) -> Iterator[Block]:
        """All words, in blocks of bounded size; ``bad`` takes the rows that cannot be used.

        Raises:
            UserError: the file is damaged or ends too early.
        """


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed where it is a gzip file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read to its end ({reason}): get a whole copy of it.") from error


def decoded(words: list[bytes], numbers: Sequence[int], path: Path, bad: BadRows) -> list[str]:
    """The words as text; one that is not UTF-8 becomes empty and is a bad row.

    Args:
        words: n words.
        numbers: their rows in the file, for messages.
        path: the file.
        bad: takes the bad rows.
    """
    try:
        return [word.decode() for word in words]
    except UnicodeDecodeError:
        texts = [word.decode(errors="replace") for word in words]
        for i, (word, text) in enumerate(zip(words, texts, strict=True)):
            if text.encode() != word:
                bad.add("invalid UTF-8", path, numbers[i], text)
                texts[i] = ""
        return texts


def count_bad(vectors: np.ndarray, numbers: Sequence[int], path: Path, bad: BadRows) -> np.ndarray:
    """The vectors (k, D) as they are, after those with a number that is not finite were counted as bad rows."""
    for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
        bad.add("number that is not finite", path, numbers[row])
    return vectors
