"""``two-tower data inspect``: what is known of a collection before training, as one document of plain values."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from two_tower.cache import entry, key_of
from two_tower.config import build
from two_tower.config.build import call
from two_tower.config.compose import composed
from two_tower.console import counter
from two_tower.data.base import LOADER_KEYS, TRIPLETS, Loader, Source, full_text
from two_tower.data.stream.corpus import Corpus, Split, rows_of, trained_tokenizer
from two_tower.data.stream.token_store import written_hashes
from two_tower.doctor import texts as counted
from two_tower.doctor.inspect_page import warnings
from two_tower.doctor.texts import EXAMPLES, PAIRS, Judged, examples, pair_keys
from two_tower.files import write_json
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

LAYOUT = 1  # raise whenever what is read of a source, or what is kept of it, changes
MAX_TRIPLETS = 1_000_000  # that are read, the first of the file: MS MARCO has one with 398 million
ITSELF = 0.8  # share of a query's words in the passage with its id from which it is that passage
# Parts of notices whose content is among the facts.
AMONG_FACTS = (" left out: ", "judgements name a ")


def inspect(overrides: Sequence[str]) -> dict[str, Any]:
    """What the data is like that train.py would train on with these overrides; see `inspect_source`."""
    config = composed(overrides, {"data": LOADER_KEYS, "tokenizer": {}})
    loader = call("data", Loader, **{key: config["data"].pop(key) for key in LOADER_KEYS})
    with _notices() as notices:
        source, tokenizer = build("data", config["data"]), build("tokenizer", config["tokenizer"])
        splits = loader.train_split, loader.validation_split
        facts = inspect_source(source, tokenizer, *splits, exclude_same_id=loader.exclude_same_id)
    return {**facts, "notices": [text for text in notices if not any(part in text for part in AMONG_FACTS)]}


@contextmanager
def _notices() -> Iterator[list[str]]:
    """Collects what the package warns of, instead of showing it."""
    texts: list[str] = []
    log, handler = logging.getLogger("two_tower"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    before = log.handlers, log.propagate
    log.handlers, log.propagate = [handler], False
    try:
        yield texts
    finally:
        log.handlers, log.propagate = before


def inspect_source(
    source: Source,
    tokenizer: WordTokenizer,
    train_split: str = "train",
    validation_split: str = "dev",
    exclude_same_id: bool = False,
) -> dict[str, Any]:
    """What a collection is like, whichever splits it has. Memory: some 50 bytes a passage, however long.

    The vocabulary is the one that a run would train with this tokenizer. Texts are equal where they are so letter by
    letter. Lengths are tokens of whole texts, rates are fractions, ``examples`` are ids.

    Returns a document for JSON:

    - ``source``: ``name``, ``fingerprint``, ``splits``; ``train_split``, ``validation_split``, ``exclude_same_id``.
    - ``vocabulary``: how many ``words`` it has, the unknown word included; the ``languages`` of its rules.
    - ``passages``: what `text_facts` and `duplicates` give; ``empty``, without any word: ``count`` and ``examples``.
    - ``splits``: by name, what `text_facts` gives of the queries; ``empty`` and ``duplicates`` as above; and what
      `_judgement_facts` and `_leakage_facts` count; ``unknown_ids``, judgements that name no known query or passage.
    - ``triplets``: what `triplet_facts` gives, or None.
    - ``bad_rows``: by file the ``count`` that was left out, and their ``kinds``, each with ``count`` and ``examples``.
    - ``notices``: what else was said while the data was read (only from `inspect`).
    - ``warnings``: what is worth a thought, each with ``id``, ``evidence`` and ``remedy``.

    A source that cannot be read, or has no passages, is a UserError.
    """
    words = trained_tokenizer(source, tokenizer, train_split)
    # What is kept names files, so a copy elsewhere is read again.
    key = key_of(LAYOUT, source.fingerprint(), words.fingerprint, source.name, getattr(source, "path", ""))
    folder = entry("inspection", key, lambda path: _read(path, source, words))
    read = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    corpus = Corpus.load(source, words)
    splits = {name: Split.load(corpus, name, words) for name in source.splits()}
    judged = {name: Judged.from_split(corpus, split) for name, split in splits.items()}
    train, train_judged = splits.get(train_split), judged.get(train_split)
    sorted_corpus = np.sort(corpus.written)
    triplets = triplet_facts(corpus, train, train_judged, words)  # read to their end: their bad rows are known now
    named = {"name": source.name, "fingerprint": source.fingerprint(), "splits": [*splits]}
    chosen = {"train_split": train_split, "validation_split": validation_split, "exclude_same_id": exclude_same_id}
    facts: dict[str, Any] = {
        "source": {**named, **chosen},
        "vocabulary": {"words": len(words), "languages": [*words.rule.languages] if words.rule else []},
        "passages": {**read["passages"], **_copies(corpus.written, corpus.ids)},
        "splits": {
            name: {
                **counted.text_facts([words.encode(split.texts)], words.unknown_id, words.query_tokens),
                **_copies(split.written, split.ids),
                **_judgement_facts(corpus, sorted_corpus, split, judged[name], words),
                "unknown_ids": read["judgements"][name] - int(split.qrels.present.sum()),
                "leakage": None if split is train else _leakage_facts(train_judged, judged[name], split),
            }
            for name, split in splits.items()
        },
        "triplets": triplets,
        "bad_rows": {**_bad_rows(source), **read["bad_rows"]},
        "notices": [],
    }
    return {**facts, "warnings": warnings(facts)}


def _read(folder: Path, source: Source, tokenizer: Tokenizer) -> None:
    """What is lost where texts are cut and ids become rows: the source is read once more."""

    def whole_passages() -> Iterator[Ragged]:
        with counter(f"Reading {source.name}", "passages") as progress:
            for batch in source.corpus():
                yield tokenizer.encode(full_text(batch))
                progress(len(batch))

    passages = counted.text_facts(whole_passages(), tokenizer.unknown_id, tokenizer.document_tokens)
    judgements = {split: source.qrels(split).num_rows for split in source.splits()}
    read = {"passages": passages, "judgements": judgements, "bad_rows": _bad_rows(source)}
    write_json(folder / "facts.json", read)


def _bad_rows(source: Source) -> dict[str, Any]:
    """The bad rows of the files that were read to their end so far."""
    facts = {}
    for file, bad in source.bad_rows.items():
        kinds = {kind: {"count": n, "examples": bad.examples[kind][:EXAMPLES]} for kind, n in bad.counts.most_common()}
        if kinds:
            facts[file] = {"count": bad.counts.total(), "kinds": kinds}
    return facts


def _copies(written: np.ndarray, ids: pa.ChunkedArray) -> dict[str, Any]:
    """Texts without words, and equal ones."""
    return {"empty": examples(np.flatnonzero(written == 0), ids), "duplicates": counted.duplicates(written, ids)}


def _judgement_facts(
    corpus: Corpus, sorted_corpus: np.ndarray, split: Split, judged: Judged, tokenizer: Tokenizer
) -> dict[str, Any]:
    queries, documents = split.relevant
    own_answer = (judged.queries[queries] == judged.documents) & (judged.documents != 0)
    drawn = counted.sample(len(queries), PAIRS)
    drawn_pairs = split.tokens.select(queries[drawn]), corpus.tokens.select(documents[drawn])
    per_query = np.bincount(queries, minlength=len(split))
    return {
        "judgements": int(split.qrels.present.sum()),
        "positives": len(queries),  # relevant passages
        "positives_per_query": counted.distribution(np.bincount(per_query)),
        "without_positives": examples(np.flatnonzero(per_query == 0), split.ids),
        "unjudged_copies": int(counted.unjudged_copies(judged, sorted_corpus).sum()),
        "own_passages": examples(_own_passages(corpus, split, tokenizer), split.ids),
        "answered_by_themselves": examples(np.unique(queries[own_answer]), split.ids),
        "overlap": counted.word_overlap(*drawn_pairs, tokenizer.unknown_id),
    }


def _own_passages(corpus: Corpus, split: Split, tokenizer: Tokenizer) -> np.ndarray:
    """(K,) int64 rows of queries that are passages: one has their id and nearly all their words."""
    own = rows_of(split.ids, corpus.ids)
    queries = np.flatnonzero(own >= 0)
    drawn = queries[counted.sample(len(queries), PAIRS)]
    pairs = split.tokens.select(drawn), corpus.tokens.select(own[drawn])
    return queries if counted.mean(counted.lexical_overlap(*pairs, tokenizer.unknown_id)) > ITSELF else queries[:0]


def _leakage_facts(train: Judged | None, judged: Judged, split: Split) -> dict[str, Any] | None:
    """Queries that are training queries, and how many also have their relevant passage."""
    if train is None:
        return None
    leaked, with_answer = counted.leakage(train, judged)
    return {**examples(np.flatnonzero(leaked), split.ids), "with_same_positive": int(with_answer.sum())}


class TripletHashes(NamedTuple):
    """(T,) uint64 each: equal for texts that are equal letter by letter."""

    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


class _Triplets(NamedTuple):
    total: int  # that were read
    hashes: TripletHashes  # of those without unknown ids
    relevant: np.ndarray  # (K,) uint64, `pair_keys` of the relevant pairs
    queries: Ragged  # up to PAIRS of them, and their positives
    positives: Ragged
    name: Callable[[int], Any]  # what a triplet is called


def triplet_facts(
    corpus: Corpus, train: Split | None, judged: Judged | None, tokenizer: Tokenizer, limit: int = MAX_TRIPLETS
) -> dict[str, Any] | None:
    """What is wrong with the first ``limit`` triplets of a source; ``train`` is the split to train on, if there is one.

    None where there are no triplets, or ids without a training split. ``kind`` is ``ids`` or ``texts``; ``count`` how
    many were read, ``sample`` whether there may be more; ``unknown_ids`` how many name no passage or no query of the
    split, which are left out; ``overlap`` what `word_overlap` says of queries and positives. What
    `suspicious_triplets` finds has ``count`` and ``examples``: three ids, or the triplet's number from 1.
    """
    texts = corpus.source.text_triplets()
    if texts is not None:
        triplets = _text_triplets(_first(texts, limit), judged, tokenizer)
    else:
        ids = corpus.source.triplets()
        if ids is None or train is None or judged is None:
            return None
        triplets = _id_triplets(_first(ids, limit), corpus, train, judged)
    facts = {
        "kind": "ids" if texts is None else "texts",
        "count": triplets.total,
        "sample": triplets.total >= limit,
        "unknown_ids": triplets.total - len(triplets.hashes.queries),
        "overlap": counted.word_overlap(triplets.queries, triplets.positives, tokenizer.unknown_id),
    }
    for kind, mask in suspicious_triplets(triplets.hashes, triplets.relevant).items():
        rows = np.flatnonzero(mask)
        facts[kind] = {"count": len(rows), "examples": [triplets.name(int(row)) for row in rows[:EXAMPLES]]}
    return facts


def _first(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, rows)
        rows -= len(batch)
        if rows <= 0:
            return


def _id_triplets(batches: Iterator[pa.RecordBatch], corpus: Corpus, train: Split, judged: Judged) -> _Triplets:
    table = pa.Table.from_batches(batches, TRIPLETS)
    among = (train.ids, corpus.ids, corpus.ids)
    rows = np.stack([rows_of(table[name], ids) for name, ids in zip(TRIPLETS.names, among, strict=True)])
    known = (rows >= 0).all(axis=0)
    queries, positives, negatives = rows[:, known]
    named, drawn = table.filter(pa.array(known)), counted.sample(len(queries), PAIRS)
    hashes = TripletHashes(judged.queries[queries], corpus.written[positives], corpus.written[negatives])
    pairs = train.tokens.select(queries[drawn]), corpus.tokens.select(positives[drawn])
    name = lambda row: [column[row].as_py() for column in named.columns]  # noqa: E731
    return _Triplets(len(table), hashes, judged.pairs, *pairs, name)


def _text_triplets(batches: Iterator[pa.RecordBatch], judged: Judged | None, tokenizer: Tokenizer) -> _Triplets:
    hashes_of_batches, queries_to_compare, positives_to_compare, count = [], list[Ragged](), list[Ragged](), 0
    for batch in batches:
        tokens = [*map(tokenizer.encode, batch.columns)]
        hashes_of_batches.append([*map(written_hashes, batch.columns, tokens)])
        queries, positives = tokenizer.encode_queries(batch["query"]), tokenizer.encode_documents(batch["positive"])
        wanted = min(max(PAIRS - count, 0), len(batch))
        queries_to_compare.append(queries.slice(0, wanted))
        positives_to_compare.append(positives.slice(0, wanted))
        count += len(batch)
    joined = TripletHashes(*(np.concatenate(columns) for columns in zip(*hashes_of_batches, strict=True)))
    relevant = [pair_keys(joined.queries, joined.positives), *([] if judged is None else [judged.pairs])]
    pairs = Ragged.join(queries_to_compare), Ragged.join(positives_to_compare)
    return _Triplets(count, joined, np.concatenate(relevant), *pairs, name=lambda row: row + 1)


def suspicious_triplets(hashes: TripletHashes, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """(T,) bool each: triplets that teach something wrong, given the `pair_keys` of the relevant pairs."""
    same = hashes.positives == hashes.negatives
    return {
        "positive_is_negative": same,
        # Another relevant passage of the query, or one that is equal to it.
        "negative_is_relevant": ~same & np.isin(pair_keys(hashes.queries, hashes.negatives), relevant),
        "positive_not_relevant": ~np.isin(pair_keys(hashes.queries, hashes.positives), relevant),
        "positive_is_query": (hashes.queries == hashes.positives) & (hashes.queries != 0),
    }
