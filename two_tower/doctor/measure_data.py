"""Signals of the collection and of the start vectors, from samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from two_tower.data.stream.corpus import Split
from two_tower.data.stream.module import TripletData
from two_tower.data.stream.token_store import text_hashes
from two_tower.doctor.signals import DataSignals, WordSignals
from two_tower.ragged import Ragged
from two_tower.tower._words import word_tables

__all__ = ["measure_data", "measure_words", "some_texts"]

PAIRS, VALIDATION_PAIRS = 192, 64  # that are compared word by word; a share is then right to 3 and 5 %
FEW = 12  # texts whose vectors must not depend on each other
TEXTS = 2048  # texts whose lengths and unknown words are counted
SHIFTS = (-2, -1, 1, 2)
# Training queries that validation queries are looked for in: a sorted search takes 0.1 s.
MOST_QUERIES = 1_000_000
NEIGHBOURS = 4096  # pairs of words that stand near each other, whose vectors are compared
NEAR = 5  # words apart at most
COPIES = 64  # pairs of which that is looked for: strings take a while
LEAST_COPIED = 4  # tokens of a query that a passage repeats: fewer may do so by chance


def measure_data(data: TripletData) -> DataSignals:
    """The signals of a collection as it is trained on; takes some 10 ms however large it is."""
    unknown = data.tokenizer.unknown_id
    queries, positives = _training_pairs(data)
    asked, answers = _words(queries, unknown), _words(positives, unknown)
    own, chance = _shared(asked, answers), _shared(asked, _rolled(answers, len(answers) // 2))
    validation = [_words(tokens, unknown) for tokens in _validation_pairs(data)]
    documents, validation_queries = _sampled(data.corpus.tokens), _sampled(data.validation.tokens)
    leaked, with_answer = _leaked(data)
    return DataSignals(
        shared=_mean(own),
        shared_by_chance=_mean(chance),
        shared_error=_error(own - chance),
        shifts=[(k, _mean(_shared(asked, _rolled(answers, k)))) for k in SHIFTS],
        validation_shared=_mean(_shared(*validation)),
        validation_shared_by_chance=_mean(_shared(validation[0], _rolled(validation[1], len(validation[1]) // 2))),
        query_length=_length(queries),
        positive_length=_length(positives),
        validation_query_length=_length(validation_queries),
        document_length=_length(documents),
        unknown_in_queries=_unknown(validation_queries, unknown),
        unknown_in_documents=_unknown(documents, unknown),
        cut_queries=_cut(validation_queries, data.tokenizer.query_tokens),
        cut_documents=_cut(documents, data.tokenizer.document_tokens),
        leaked=leaked,
        leaked_with_answer=with_answer,
        copied=_copied(queries, positives),
    )


def _training_pairs(data: TripletData) -> tuple[Ragged, Ragged]:
    """Consecutive examples: only in the order of the data can a slipped row be seen."""
    training = data.judged
    count = min(PAIRS, len(training.examples))
    start = (len(training.examples) - count) // 2
    examples = training.examples.take(np.arange(start, start + count))
    return training.queries.select(examples.query_rows), training.documents.select(examples.positive_rows)


def _validation_pairs(data: TripletData) -> tuple[Ragged, Ragged]:
    split = data.validation
    relevant = np.flatnonzero(split.qrels.relevant(split.threshold) & split.qrels.present)[:VALIDATION_PAIRS]
    queries, documents = (
        rows[relevant].astype(np.int64) for rows in (split.qrels.query_rows, split.qrels.document_rows)
    )
    return split.tokens.select(queries), data.corpus.tokens.select(documents)


def _words(tokens: Ragged, unknown: int) -> list[set[int]]:
    """The different known words of each text."""
    return [set(ids) - {unknown} for ids in tokens.to_lists()]


def _shared(asked: Sequence[set[int]], answers: Sequence[set[int]]) -> np.ndarray:
    """(B,) float64: the share of each query's words that its passage has; NaN for a query without any."""
    pairs = zip(asked, answers, strict=True)
    return np.array([len(words & answer) / len(words) if words else np.nan for words, answer in pairs])


def _rolled(answers: Sequence[set[int]], k: int) -> list[set[int]]:
    """The passages, each moved k places towards the front."""
    return [*answers[k:], *answers[:k]]


def _sampled(tokens: Ragged, most: int = TEXTS) -> Ragged:
    rows = np.linspace(0, len(tokens) - 1, min(most, len(tokens))).astype(np.int64)
    return tokens.select(rows)


def _length(tokens: Ragged) -> float:
    return _mean(tokens.lengths.numpy().astype(np.float64))


def _unknown(tokens: Ragged, unknown: int) -> float:
    return _mean(tokens.ids.numpy() == unknown)


def _cut(tokens: Ragged, most: int) -> float:
    return _mean(tokens.lengths.numpy() >= most)


def _copied(queries: Ragged, positives: Ragged) -> float:
    """Share of the pairs whose positive contains its query in one piece."""
    asked, answers = queries.slice(0, COPIES).to_lists(), positives.slice(0, COPIES).to_lists()
    long = [(q, p) for q, p in zip(asked, answers, strict=True) if len(q) >= LEAST_COPIED]
    found = sum(f" {' '.join(map(str, q))} " in f" {' '.join(map(str, p))} " for q, p in long)
    return found / len(asked) if asked else 0.0


def _leaked(data: TripletData) -> tuple[float, float]:
    """Shares of the validation queries that are training queries, and that share a relevant passage with it."""
    split = data.validation
    asked, usable = split.hashes, _without(split.tokens, data.tokenizer.unknown_id)
    trained, rows = _training_hashes(data)
    if not len(asked) or not len(trained):
        return 0.0, 0.0
    among = np.unique(asked)
    places = np.minimum(np.searchsorted(among, trained), len(among) - 1)
    hits = among[places] == trained
    leaked = np.isin(asked, trained[hits]) & usable
    if rows is None or not leaked.any():
        return float(leaked.mean()), 0.0
    return float(leaked.mean()), float((leaked & _same_answer(data, rows[hits], trained[hits])).mean())


def _training_hashes(data: TripletData) -> tuple[np.ndarray, np.ndarray | None]:
    """Hashes of the queries that are trained on, and their rows in the training split, if they are of one."""
    examples = data.judged.examples
    count = min(len(examples), MOST_QUERIES)
    rows = examples.take(np.arange(count)).query_rows
    if data.trains_on_texts:
        return text_hashes(data.judged.queries.select(rows)), None
    return data.train.hashes[rows], rows


def _same_answer(data: TripletData, rows: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """(Q,) bool: validation queries of which a relevant passage is relevant to an equal training query."""
    by_row = dict(zip(rows.tolist(), hashes.tolist(), strict=True))
    trained = zip(*_relevant(data.train), strict=True)
    pairs = {(by_row[row], document) for row, document in trained if row in by_row}
    same = np.zeros(len(data.validation), bool)
    hash_of = data.validation.hashes
    for row, document in zip(*_relevant(data.validation), strict=True):
        same[row] |= (int(hash_of[row]), document) in pairs
    return same


def _relevant(split: Split) -> tuple[list[int], list[int]]:
    kept = split.qrels.relevant(split.threshold) & split.qrels.present
    return split.qrels.query_rows[kept].tolist(), split.qrels.document_rows[kept].tolist()


def _without(tokens: Ragged, unknown: int) -> np.ndarray:
    """(B,) bool: texts of known words only; two with unknown ones may differ in these."""
    ends = np.concatenate([[0], np.cumsum(tokens.ids.numpy() == unknown)])
    offsets = tokens.offsets.numpy()
    return (ends[offsets[1:]] == ends[offsets[:-1]]) & (np.diff(offsets) > 0)


def some_texts(data: TripletData) -> dict[str, Ragged]:
    """A few validation queries and passages, each also cut in half so that their lengths differ, by side."""
    sides = {"queries": data.validation.tokens, "documents": data.corpus.tokens}
    whole = {side: _sampled(tokens, FEW).to_lists() for side, tokens in sides.items()}
    return {
        side: Ragged.from_lists([*texts, *(ids[: len(ids) // 2] for ids in texts)]) for side, texts in whole.items()
    }


def measure_words(config: Mapping[str, Any], data: TripletData, model: nn.Module) -> WordSignals | None:
    """The signals of the word vectors before training; None where the towers have no word table."""
    table = next(iter(word_tables(model).values()), None)
    if table is None:
        return None
    pretrained, frozen = table.informed > 0, not table.vectors.requires_grad and not _thawed_later(config)
    if not (pretrained or frozen):
        return WordSignals(False, False, table.coverage)  # random, and learned: nothing to be said of them
    rng = np.random.default_rng(0)
    tokens = _sampled(data.corpus.tokens, TEXTS // 4)
    ids, owner = tokens.ids.numpy(), np.repeat(np.arange(len(tokens)), tokens.lengths.numpy())
    rare = _rare(ids)
    left = rng.permutation(max(0, len(ids) - NEAR))[: 2 * NEIGHBOURS]
    right = left + rng.integers(1, NEAR + 1, len(left))
    beside = np.flatnonzero((owner[left] == owner[right]) & rare[left] & rare[right] & (ids[left] != ids[right]))
    first, second = ids[left[beside]].astype(np.int64), ids[right[beside]].astype(np.int64)
    other = np.roll(second, len(second) // 2)
    with torch.no_grad():
        rows = table.vectors[torch.from_numpy(np.concatenate([first, second, other])).to(table.vectors.device)]
    vectors = rows[:, : table.informed or None].float().cpu().numpy()
    if not len(first):
        return WordSignals(pretrained, frozen, table.coverage)
    direction = _mean(_cosines(*np.split(vectors, 3)[1:]))
    together, apart = _compared(vectors - vectors.mean(0))
    error = _error(together - apart)
    return WordSignals(pretrained, frozen, table.coverage, _mean(together), _mean(apart), error, direction)


def _compared(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second, other = np.split(vectors, 3)
    return _cosines(first, second), _cosines(first, other)


def _rare(ids: np.ndarray) -> np.ndarray:
    """(T,) bool: not among the words that stand beside all others, such as articles."""
    counts = np.bincount(ids)
    return counts[ids] <= max(1.0, 0.002 * len(ids))


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide(np.einsum("nd,nd->n", a, b), lengths, out=np.zeros(len(a)), where=lengths > 0)


def _thawed_later(config: Mapping[str, Any]) -> bool:
    freeze = config.get("embedding", {}).get("freeze", False)
    return freeze is not True and freeze > 1


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return float(values.mean()) if len(values) else 0.0


def _error(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.std() / max(1, len(values)) ** 0.5)
