"""Signals of the collection and of the start vectors, from samples: some 10 ms however large the collection is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from two_tower.data.stream.module import TripletData
from two_tower.doctor import texts as counted
from two_tower.doctor.base import DataSignals, TeachingSignals, WordSignals
from two_tower.doctor.texts import Judged, mean
from two_tower.model import TwoTower
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer
from two_tower.tower._mapped import MappedWords
from two_tower.tower.base import word_tables

PAIRS, VALIDATION_PAIRS = 192, 64  # that are compared word by word; a share is then right to 3 and 5 %
TEXTS = 2048  # texts whose lengths and unknown words are counted
SHIFTS = (-2, -1, 1, 2)
MAX_TEXTS = 1_000_000  # training queries and passages that others are looked for in: it takes 0.1 s
CROWD = 10  # equal passages: fewer may be chance
COPIES = 64  # pairs that are searched for copied queries
MIN_COPIED, MIN_COPIED_PAIRS = 4, 16  # words, or letters and their pairs: fewer may be there by chance
ALONE = 12  # texts whose vectors must not depend on each other
PLACES, NEAR = 8192, 5  # where pairs of words are taken from to compare their vectors; words apart at most


def measure_data(data: TripletData) -> DataSignals:
    """The signals of a collection as it is trained on."""
    tokenizer = data.tokenizer
    queries, positives = _training_pairs(data)
    own, chance = (_shared(queries, positives, tokenizer, shift) for shift in (0, len(queries) // 2))
    query_rows, document_rows = (rows[:VALIDATION_PAIRS] for rows in data.validation.relevant)
    validation = data.validation.tokens.select(query_rows), data.searched.tokens.select(document_rows)
    validation_queries, documents = _evenly(data.validation.tokens, TEXTS), _evenly(data.corpus.tokens, TEXTS)
    # They are cut already: a text that is as long as the limit counts as longer.
    query_facts, document_facts = (
        counted.text_facts([tokens], tokenizer.unknown_id, limit - 1)
        for tokens, limit in ((validation_queries, tokenizer.query_tokens), (documents, tokenizer.document_tokens))
    )
    leaked, with_answer = _leaked(data)
    return DataSignals(
        shared=mean(own),
        shared_by_chance=mean(chance),
        shared_error=_standard_error(own - chance),
        shifts=[(k, mean(_shared(queries, positives, tokenizer, k))) for k in SHIFTS],
        validation_shared=mean(_shared(*validation, tokenizer)),
        validation_shared_by_chance=mean(_shared(*validation, tokenizer, len(validation[0]) // 2)),
        query_length=mean(queries.lengths.numpy()),
        positive_length=mean(positives.lengths.numpy()),
        validation_query_length=query_facts["lengths"]["mean"],
        document_length=document_facts["lengths"]["mean"],
        unknown_in_queries=query_facts["unknown"]["rate"],
        unknown_in_documents=document_facts["unknown"]["rate"],
        cut_queries=query_facts["cut"]["rate"],
        cut_documents=document_facts["cut"]["rate"],
        leaked=leaked,
        leaked_with_answer=with_answer,
        copied=_copied(queries, positives, tokenizer),
        pairs=len(queries),
        validation_queries=len(data.validation),
        unjudged_copies=_unjudged_copies(data),
        crowd=_crowd(data),
    )


def _training_pairs(data: TripletData) -> tuple[Ragged, Ragged]:
    """Consecutive examples: only in the order of the data can a slipped row be seen."""
    training = data.judged
    count = min(PAIRS, len(training.examples))
    start = (len(training.examples) - count) // 2
    examples = training.examples.take(np.arange(start, start + count))
    return training.queries.select(examples.query_rows), training.documents.select(examples.positive_rows)


def _shared(queries: Ragged, documents: Ragged, tokenizer: Tokenizer, shift: int = 0) -> np.ndarray:
    """(B,) `lexical_overlap` of each query with the passage ``shift`` pairs further on."""
    shifted = np.roll(np.arange(len(documents)), -shift)
    return counted.lexical_overlap(queries, documents.select(shifted), tokenizer.unknown_id)


def _evenly(tokens: Ragged, limit: int) -> Ragged:
    """At most ``limit`` of the texts, evenly spread."""
    return tokens.select(np.linspace(0, len(tokens) - 1, min(limit, len(tokens))).astype(np.int64))


def _copied(queries: Ragged, positives: Ragged, tokenizer: Tokenizer) -> float:
    """Share of the pairs whose positive contains its query in one piece; short queries are not looked at."""
    minimum = MIN_COPIED_PAIRS if tokenizer.rule and tokenizer.rule.in_pairs else MIN_COPIED
    pairs = list(zip(queries.slice(0, COPIES).to_lists(), positives.slice(0, COPIES).to_lists(), strict=True))
    texts = [(f" {' '.join(map(str, q))} ", f" {' '.join(map(str, p))} ") for q, p in pairs if len(q) >= minimum]
    return sum(query in passage for query, passage in texts) / max(1, len(pairs))


def _unjudged_copies(data: TripletData) -> float:
    judged, written = Judged.from_split(data.searched, data.validation), data.searched.written[:MAX_TEXTS]
    return mean(counted.unjudged_copies(judged, np.sort(written[np.isin(written, judged.documents)])))


def _crowd(data: TripletData) -> float:
    rows = np.linspace(0, len(data.corpus) - 1, min(TEXTS, len(data.corpus))).astype(np.int64)
    written = data.corpus.written[rows]
    largest = int(np.unique(written[written != 0], return_counts=True)[1].max(initial=0))
    return largest / len(rows) if largest >= CROWD else 0.0


def _leaked(data: TripletData) -> tuple[float, float]:
    """Shares of the validation queries that are training queries, and that share a relevant passage with them."""
    trained, validation = _trained_queries(data), Judged.from_split(data.searched, data.validation)
    nothing = Judged(trained, np.zeros(0, np.int64), np.zeros(0, np.uint64))
    leaked, with_answer = counted.leakage(nothing, validation)
    if leaked.any() and not data.trains_on_texts:  # only now: to look up all training passages takes a while
        of_train = Judged.from_split(data.corpus, data.train)._replace(queries=trained)
        leaked, with_answer = counted.leakage(of_train, validation)
    return mean(leaked), mean(with_answer)


def _trained_queries(data: TripletData) -> np.ndarray:
    """(Q,) uint64 hashes of the queries that are trained on, 0 for those without an example."""
    rows = data.judged.examples.take(np.arange(min(len(data.judged.examples), MAX_TEXTS))).query_rows
    hashes = np.zeros_like(data.judged.written)
    hashes[rows] = data.judged.written[rows]
    return hashes


def some_texts(data: TripletData) -> dict[str, Ragged]:
    """A few validation queries and passages, each also cut in half so that their lengths differ, by side."""
    tokens = {"queries": data.validation.tokens, "documents": data.corpus.tokens}
    sides = {side: _evenly(texts, ALONE).to_lists() for side, texts in tokens.items()}
    return {side: Ragged.from_lists([*ids, *(i[: len(i) // 2] for i in ids)]) for side, ids in sides.items()}


def measure_words(config: Mapping[str, Any], data: TripletData, model: nn.Module) -> WordSignals | None:
    """The signals of the word vectors before training; None where the towers have no word table."""
    table = next(iter(word_tables(model).values()), None)
    if table is None:
        return None
    freeze = config.get("embedding", {}).get("freeze", False)
    thawed_later = freeze is not True and freeze > 1
    pretrained, frozen = table.pretrained_dims > 0, not (table.vectors.requires_grad or thawed_later)
    if not (pretrained or frozen):
        return WordSignals(False, False, table.coverage)  # random, and trained: nothing to be said of them
    first, second = _neighbours(_evenly(data.corpus.tokens, TEXTS // 4))
    if not len(first):
        return WordSignals(pretrained, frozen, table.coverage)
    # Beside each word its neighbour, and the neighbour of a word half of the list away.
    columns = torch.from_numpy(np.stack([first, second, np.roll(second, len(second) // 2)]))
    with torch.no_grad():
        words = table.lookup(columns.flatten().to(table.vectors.device))
    vectors = words.view(*columns.shape, -1)[..., : table.pretrained_dims or None].float().cpu().numpy()
    centred = vectors - vectors.mean((0, 1))
    together, apart = _cosines(centred[0], centred[1]), _cosines(centred[0], centred[2])
    error, direction = _standard_error(together - apart), mean(_cosines(vectors[1], vectors[2]))
    return WordSignals(pretrained, frozen, table.coverage, mean(together), mean(apart), error, direction)


def measure_teaching(data: TripletData, model: TwoTower) -> TeachingSignals | None:
    """The signals of the teacher; None without one."""
    teacher, rows = model.teacher, data.taught_rows[1]
    if teacher is None:
        return None
    taught = len(data.corpus) if rows is None else len(rows)
    return TeachingSignals(taught, len(data.corpus), teacher.pieces, teacher.unread)


@torch.no_grad()
def own_of_words(model: nn.Module) -> float | None:
    """How long what words learned by themselves is, in relation to their vectors; None where they share no map."""
    table = next((t for t in word_tables(model).values() if isinstance(t, MappedWords)), None)
    if table is None:
        return None
    learned = (table.vectors != 0).any(dim=1)
    whole = float(table.whole()[learned].norm(dim=1).mean())
    return float(table.vectors[learned].norm(dim=1).mean()) / max(whole, 1e-12)


def _neighbours(tokens: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different words (no articles and the like) that stand near each other in a text, (W,) int64 each."""
    rng = np.random.default_rng(0)
    ids, owner = tokens.ids.numpy(), np.repeat(np.arange(len(tokens)), tokens.lengths.numpy())
    rare = np.bincount(ids)[ids] <= max(1.0, 0.002 * len(ids))
    left = rng.permutation(max(0, len(ids) - NEAR))[:PLACES]
    right = left + rng.integers(1, NEAR + 1, len(left))
    suits = (owner[left] == owner[right]) & rare[left] & rare[right] & (ids[left] != ids[right])
    return ids[left[suits]].astype(np.int64), ids[right[suits]].astype(np.int64)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide(np.einsum("nd,nd->n", a, b), lengths, out=np.zeros(len(a)), where=lengths > 0)


def _standard_error(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.std() / max(1, len(values)) ** 0.5)
