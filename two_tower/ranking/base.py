"""What every ranking needs: keys that order documents, blocks, pairs, processes that rank together, run files.

A **key** is an int64: the float32 score in the upper half, in bits that sort as the floats do, and the document's
place among equal scores in the lower half. "Ranks before" is then one integer comparison, so ties are resolved
exactly, also at the cut of a top-k. NaN counts as minus infinity, -0 as 0.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numba import njit
from torch import Tensor

from two_tower.files import atomic_path

NONE = np.iinfo(np.int64).min  # an empty entry among the best: below every key
_ALL_BUT_SIGN = 0x7FFFFFFF
_MINUS_INFINITY = -8388608  # its bits as an int32

RowPairs: TypeAlias = tuple[np.ndarray, np.ndarray]  # (P,) query rows and (P,) document rows
Ids: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best documents of every query, and the ranks of single documents."""

    rows: np.ndarray  # (Q, k) int64, document rows, best first; -1 where fewer documents were retrieved
    scores: np.ndarray  # (Q, k) float32, their scores; -inf where fewer were retrieved
    ranks: np.ndarray  # (P,) int64, 1-based rank of each pair's document among all documents; 0 = not retrieved


class Blocks(NamedTuple):
    """How many rows are scored at once, and how many bytes of scores may be kept for a second pass."""

    queries: int = 1024
    documents: int = 8192
    kept_bytes: int = 512 << 20


def slices(rows: int, size: int) -> Iterator[slice]:
    """Blocks of ``rows`` rows; each begins at a multiple of ``size``."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


class Share:
    """One process's part of the corpus: every ``size``-th block of documents, starting with block ``rank``.

    This class is the single process that owns everything; a subclass says how processes exchange arrays. Each
    block has exactly one owner, so nothing is ranked twice, whatever the number of processes.
    """

    rank = 0
    size = 1

    def owns(self, block: int) -> bool:
        return block % self.size == self.rank

    def all_reduce(self, values: np.ndarray, operation: Literal["max", "sum"]) -> np.ndarray:
        """The element-wise maximum, with no NaN among the values, or sum over all processes."""
        return values

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        """All-gather along dim 1: (Q, k) → (Q, size · k)."""
        return values


class Places:
    """Each document's place among equal scores, ``places`` (N,) int32, and the document at each, ``rows`` int64."""

    def __init__(self, order: np.ndarray | Tensor, documents: int) -> None:
        values = order.cpu().numpy() if isinstance(order, Tensor) else np.asarray(order)
        if values.shape != (documents,):
            raise ValueError(f"order has shape {values.shape}, but there are {documents} documents")
        # Any distinct integers will do, for example those of a subset of the corpus: only their order counts.
        self.rows = np.argsort(values)
        self.places = np.empty(documents, np.int32)
        self.places[self.rows] = np.arange(documents, dtype=np.int32)

    def decode(self, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, k) int64 document rows and (Q, k) float32 scores, best first, of unsorted (Q, ≤ k) keys."""
        rows = np.full((len(keys), k), -1, np.int64)
        scores = np.full((len(keys), k), -np.inf, np.float32)
        keys = np.sort(keys, axis=1)[:, ::-1]
        retrieved = np.nonzero(keys > NONE)
        rows[retrieved] = self.rows[keys[retrieved] & 0xFFFFFFFF]
        bits = (keys[retrieved] >> 32).astype(np.int32)
        scores[retrieved] = (bits ^ ((bits >> 31) & _ALL_BUT_SIGN)).view(np.float32)
        return rows, scores


@dataclass(frozen=True, eq=False)
class QueryDocumentPairs:
    """Pairs whose ranks are wanted, sorted by query."""

    queries: np.ndarray  # (P,) int64, ascending
    documents: np.ndarray  # (P,) int64; -1 = outside the corpus
    positions: np.ndarray  # (P,) int64, where each pair, in the order it was given, stands among the sorted ones

    @classmethod
    def from_rows(cls, pairs: RowPairs | None, queries: int, documents: int) -> QueryDocumentPairs:
        query_rows, document_rows = pairs if pairs is not None else ([], [])
        q, d = np.asarray(query_rows, np.int64), np.asarray(document_rows, np.int64)
        if q.shape != d.shape or q.ndim != 1:
            raise ValueError(f"pairs need as many query rows as document rows, not {q.shape} and {d.shape}")
        if len(q) and (q.min() < 0 or q.max() >= queries or d.min() < -1 or d.max() >= documents):
            raise ValueError(f"a pair lies outside the {queries} queries and {documents} documents")
        ascending = np.argsort(q, kind="stable")
        positions = np.empty(len(q), np.int64)
        positions[ascending] = np.arange(len(q))
        return cls(q[ascending], d[ascending], positions)

    def in_block(self, block: slice) -> slice:
        """The pairs of a block of queries."""
        first, last = np.searchsorted(self.queries, [block.start, block.stop])
        return slice(int(first), int(last))


def largest(keys: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` largest keys of each row, in any order."""
    return keys if keys.shape[1] == k else np.partition(keys, keys.shape[1] - k, axis=1)[:, keys.shape[1] - k :]


# Negative floats sort backwards by their bits. Flipping all but the sign bit of those, which
# `bits ^ ((bits >> 31) & 0x7FFFFFFF)` does without a branch, makes bits sort as the floats do; it is its own inverse.


def torch_keys(scores: Tensor, places: Tensor) -> Tensor:
    """(…, n) int64 keys of scores (…, n) float32 and places (n,) int32, on any device."""
    bits = (torch.where(scores.isnan(), -torch.inf, scores) + 0.0).view(torch.int32)  # -0 + 0 is 0
    return ((bits ^ ((bits >> 31) & _ALL_BUT_SIGN)).to(torch.int64) << 32) | places


@njit(nogil=True, cache=True)
def key_of(score: np.float32, place: int) -> np.int64:
    """The key of one document."""
    if score == 0:  # also -0, whose bits differ
        bits = np.int32(0)
    elif score > -np.inf:
        bits = np.float32(score).view(np.int32)
    else:
        bits = np.int32(_MINUS_INFINITY)
    return (np.int64(bits ^ ((bits >> 31) & _ALL_BUT_SIGN)) << 32) | np.int64(place)


@njit(nogil=True, cache=True)
def key_score(key: np.int64) -> np.float32:
    """The score in one key."""
    bits = np.int32(key >> 32)
    return np.int32(bits ^ ((bits >> 31) & _ALL_BUT_SIGN)).view(np.float32)


def id_order(ids: Ids) -> np.ndarray:
    """(N,) int64, each unique id's place in ascending order of its UTF-8 bytes (C's strcmp, as in trec_eval)."""
    ascending = pc.sort_indices(_strings(ids)).to_numpy()
    places = np.empty(len(ascending), np.int64)
    places[ascending] = np.arange(len(ascending))
    return places


def write_run(path: str | os.PathLike[str], query_ids: Ids, document_ids: Ids, ranking: Ranking, tag: str) -> None:
    """Write a ranking as a TREC run file: lines ``query Q0 document rank score tag``, all or nothing.

    Scores are written as ``%.9g``, so they read back equal in float32. Blanks separate the fields, tabs where an id
    has a blank; a tab or a line break inside an id is written as a blank.
    """
    documents = _strings(document_ids)
    blanks = any(pc.any(pc.match_substring_regex(ids, r"\s")).as_py() for ids in (_strings(query_ids), documents))
    tag = re.sub(r"\s", "_", tag)
    between = "\t" if blanks else " "
    retrieved = ranking.rows >= 0
    found, which = np.unique(ranking.rows[retrieved], return_inverse=True)
    names = _fields(documents.take(pa.array(found)))
    hits = zip(which.tolist(), ranking.scores[retrieved].tolist(), strict=True)
    with atomic_path(Path(path)) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for query, count in zip(_fields(_strings(query_ids)), retrieved.sum(1).tolist(), strict=True):
            for place, (document, score) in enumerate(itertools.islice(hits, count), 1):
                file.write(f"{between.join((query, 'Q0', names[document], str(place), f'{score:.9g}', tag))}\n")


def read_first(path: str | os.PathLike[str], query_ids: Sequence[str]) -> dict[str, str]:
    """The document that a TREC run file has first for each of some queries, where it has one."""
    wanted, first = {field: query for field, query in zip(_fields(pa.array(query_ids)), query_ids, strict=True)}, {}
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            query, _, document, place, *_ = line.split("\t" if "\t" in line else " ")
            if place == "1" and query in wanted:
                first[wanted[query]] = document
    return first


def _strings(ids: Ids) -> pa.Array | pa.ChunkedArray:
    return ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string())


def _fields(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    return [re.sub(r"\s", " ", text) for text in texts.to_pylist()]
