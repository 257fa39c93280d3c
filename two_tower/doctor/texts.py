"""What can be counted of texts: lengths, unknown words, what is cut off, copies. Results are ready for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from two_tower.data.stream.token_store import text_hashes
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

#: Ids that are given of whatever is found.
EXAMPLES = 3


class TextCounts(NamedTuple):
    """Sums over texts."""

    lengths: np.ndarray  # (L,) int64; lengths[n] texts have n tokens
    unknown: int  # tokens that stand for a word outside the vocabulary
    without_known: int  # texts without any word of the vocabulary, empty ones included


def count_texts(batches: Iterable[Ragged], unknown_id: int) -> TextCounts:
    """Count batch by batch, so that memory holds one of them."""
    lengths, unknown, without_known = np.zeros(1, np.int64), 0, 0
    for tokens in batches:
        batch_lengths = np.bincount(tokens.lengths.numpy(), minlength=len(lengths))
        batch_lengths[: len(lengths)] += lengths
        lengths = batch_lengths
        known = tokens.ids.numpy() != unknown_id
        unknown += len(known) - int(np.count_nonzero(known))
        ends = np.concatenate([[0], np.cumsum(known)])[tokens.offsets.numpy()]
        without_known += int(np.count_nonzero(np.diff(ends) == 0))
    return TextCounts(lengths, unknown, without_known)


def text_facts(counts: TextCounts, limit: int) -> dict[str, Any]:
    """What the counts of whole texts say if ``limit`` tokens are kept of each.

    Returns:
        - ``count`` texts and their ``tokens``;
        - ``lengths``, see `distribution`;
        - ``cut``: the ``limit``, how many ``texts`` are longer and their ``rate``, the ``tokens`` beyond it and
          their ``token_rate``;
        - ``unknown``: ``tokens`` outside the vocabulary and their ``rate``, ``texts`` without any known word and
          their ``text_rate``.
    """
    sizes = np.arange(len(counts.lengths))
    texts, tokens = int(counts.lengths.sum()), int(counts.lengths @ sizes)
    longer, lost = int(counts.lengths[limit + 1 :].sum()), int(counts.lengths @ np.maximum(sizes - limit, 0))
    cut = {"texts": longer, "rate": _rate(longer, texts), "tokens": lost, "token_rate": _rate(lost, tokens)}
    unknown = {"tokens": counts.unknown, "rate": _rate(counts.unknown, tokens)}
    without_known = {"texts": counts.without_known, "text_rate": _rate(counts.without_known, texts)}
    return {
        "count": texts,
        "tokens": tokens,
        "lengths": distribution(counts.lengths),
        "cut": {"limit": limit, **cut},
        "unknown": unknown | without_known,
    }


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def distribution(counts: np.ndarray) -> dict[str, Any]:
    """How values are spread, where ``counts[v]`` things have the value ``v``.

    Returns:
        ``min``, ``median``, ``mean``, ``p95``, ``p99``, ``max`` (a quantile is the smallest value that occurs with
        at least that share at or below it), and ``histogram``: ``edges`` (E + 1,) and ``counts`` (E,), where
        bin ``i`` holds ``edges[i] <= v < edges[i + 1]``. Edges are 0, 1, 2, 3, 4, 6, 8, 12, 16 … wherever the
        values lie, so that histograms can be compared. Zeros and no bins where there is nothing.
    """
    ends = np.concatenate([[0], np.cumsum(counts)])
    total = int(ends[-1])
    if not total:
        return {**dict.fromkeys(("min", "median", "mean", "p95", "p99", "max"), 0), "histogram": _histogram(ends)}
    median, p95, p99 = (int(np.searchsorted(ends[1:], share * total)) for share in (0.5, 0.95, 0.99))
    occurring = np.flatnonzero(counts)
    return {
        "min": int(occurring[0]),
        "median": median,
        "mean": float(counts @ np.arange(len(counts))) / total,
        "p95": p95,
        "p99": p99,
        "max": int(occurring[-1]),
        "histogram": _histogram(ends),
    }


def _histogram(ends: np.ndarray) -> dict[str, list[int]]:
    edges = [0, 1, 2]
    while edges[-1] < len(ends) - 1:
        last = edges[-1]
        edges.append(last * 3 // 2 if last & (last - 1) == 0 else last * 4 // 3)
    counts = np.diff(ends[np.minimum(edges, len(ends) - 1)])
    filled = np.flatnonzero(counts)
    if not len(filled):
        return {"edges": [], "counts": []}
    first, stop = int(filled[0]), int(filled[-1]) + 1
    return {"edges": edges[first : stop + 1], "counts": counts[first:stop].tolist()}


@cache
def empty_hash() -> np.uint64:
    """The hash of a text without tokens; all of these are equal, which says nothing about them."""
    return text_hashes(Ragged.from_lists([[]]))[0]


def word_hashes(texts: pa.ChunkedArray, tokenizer: Tokenizer) -> np.ndarray:
    """(B,) uint64: equal for texts of the same words, whether the vocabulary has them or not.

    To a model all words outside the vocabulary are one, but "who is Xu" and "who is Qi" are two questions.
    Texts with such words cost some microseconds each, the others much less.
    """
    tokens = tokenizer.encode(texts)
    hashes = text_hashes(tokens)
    rows = np.flatnonzero(has_unknown(tokens, tokenizer.unknown_id))
    for row, text in zip(rows, texts.take(pa.array(rows)).to_pylist(), strict=True):
        words = "\0".join(tokenizer.words(text)).encode()
        hashes[row] = xxhash.xxh3_64_intdigest(words)
    return hashes


def has_unknown(tokens: Ragged, unknown_id: int) -> np.ndarray:
    """(B,) bool: texts with a word that is not in the vocabulary."""
    ends = np.concatenate([[0], np.cumsum(tokens.ids.numpy() == unknown_id)])
    return np.diff(ends[tokens.offsets.numpy()]) > 0


def duplicates(hashes: np.ndarray, ids: pa.ChunkedArray) -> dict[str, Any]:
    """Texts with equal hashes (B,), without the empty ones.

    Returns:
        ``texts``: how many have an equal; ``groups``: how many different texts these are; ``examples``: ids of the
        first groups, each a list.
    """
    rows = np.flatnonzero(hashes != empty_hash())
    rows = rows[np.argsort(hashes[rows], kind="stable")]
    ordered = hashes[rows]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(rows)])
    sizes = np.diff(starts, append=len(rows))
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    firsts = np.argsort(rows[starts])[:EXAMPLES]
    groups = [rows[starts[g] : starts[g] + min(sizes[g], EXAMPLES)] for g in firsts]
    return {
        "texts": int(sizes.sum()),
        "groups": len(sizes),
        "examples": [[ids[int(row)].as_py() for row in group] for group in groups],
    }


def examples(rows: np.ndarray, ids: pa.ChunkedArray) -> dict[str, Any]:
    """How many texts there are: ``count``, and ``examples``, the ids of the first ones."""
    return {"count": len(rows), "examples": [ids[int(row)].as_py() for row in rows[:EXAMPLES]]}
