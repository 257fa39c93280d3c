"""``two-tower data inspect``: what is known of a collection before training, as one document of plain values."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.cache import entry, key_of
from two_tower.config import build
from two_tower.config.build import call
from two_tower.config.compose import composed
from two_tower.data._loader import LOADER_KEYS, Loader
from two_tower.data.base import Source, full_text
from two_tower.data.stream.corpus import Corpus, Split, trained_tokenizer
from two_tower.doctor import pairs
from two_tower.doctor.inspect_page import warnings
from two_tower.doctor.pairs import Judged
from two_tower.doctor.texts import EXAMPLES, count_texts, duplicates, empty_hash, examples, text_facts, word_hashes
from two_tower.files import write_json
from two_tower.progress import counter
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

# Raise whenever what is read of a source, or what is kept of it, changes.
LAYOUT = 1

# Parts of notices whose content is among the facts.
AMONG_FACTS = ("bad rows were left out", "judgements name a query or passage that does not exist")


def inspect(overrides: Sequence[str]) -> dict[str, Any]:
    """What the data is like that train.py would train on with these overrides; see `inspect_source`."""
    config = composed(overrides, {"data": LOADER_KEYS, "tokenizer": {}})
    loader = call("data", Loader, **{key: config["data"].pop(key) for key in LOADER_KEYS})
    with _notices() as notices:
        source, tokenizer = build("data", config["data"]), build("tokenizer", config["tokenizer"])
        facts = inspect_source(source, tokenizer, loader.train_split, loader.validation_split)
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
    source: Source, tokenizer: WordTokenizer, train_split: str = "train", validation_split: str = "dev"
) -> dict[str, Any]:
    """What a collection is like, whichever splits it has. Memory: some 50 bytes a passage, however long.

    The vocabulary is the one that a run would train with this tokenizer. Passages are equal where a model cannot tell
    them apart: in the tokens that are kept of them. Queries are equal where their words are, known or not. Lengths are
    tokens of whole texts, rates are fractions, ``examples`` are ids.

    Returns:
        A document for JSON:

        - ``source``: ``name``, ``fingerprint``, ``splits``, ``train_split``, ``validation_split``.
        - ``vocabulary``: how many ``words`` it has, the unknown word included.
        - ``passages``: what `text_facts` gives; ``empty`` (without any word) with ``count`` and ``examples``;
          what `duplicates` gives.
        - ``splits``: by name, what `text_facts` gives of the queries; ``empty`` and ``duplicates`` as above; what
          `judgement_facts` gives; ``unknown_ids``, judgements that name no known query or passage;
          ``unjudged_copies``, relevant passages with a copy that is not judged; ``answered_by_themselves``,
          queries that are equal to their relevant passage, with ``count`` and ``examples``; ``overlap``, what
          `word_overlap` gives of all judged pairs or `PAIRS` random ones; ``leakage``, None where there is
          nothing to compare with: queries that are training queries, with ``count``, ``examples`` and how many
          also have their relevant passage, ``with_same_positive``.
        - ``triplets``: what `triplet_facts` gives, or None.
        - ``bad_rows``: by file the ``count`` of rows that were left out, and their ``kinds``, each with ``count`` and
          ``examples``.
        - ``notices``: what else was said while the data was read (only from `inspect`).
        - ``warnings``: what is worth a thought, each with ``id``, ``evidence`` and ``remedy``.

    Raises:
        UserError: the source cannot be read, or has no passages.
    """
    words = trained_tokenizer(source, tokenizer, train_split)
    # First of all: a source that has read its passages finds judgements of unknown ones by itself.
    # What is kept names files, so a copy elsewhere is read by itself.
    key = key_of(LAYOUT, source.fingerprint(), words.fingerprint, source.name, getattr(source, "path", ""))
    folder = entry("inspection", key, lambda path: _read(path, source, words))
    read = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    corpus = Corpus.load(source, words)
    splits = {name: Split.load(corpus, name, words) for name in source.splits()}
    judged = {name: Judged.from_split(corpus, split, word_hashes(split.texts, words)) for name, split in splits.items()}
    train, train_judged = splits.get(train_split), judged.get(train_split)
    sorted_corpus = np.sort(corpus.hashes)
    triplets = pairs.triplet_facts(corpus, train, train_judged, words)
    named = {"name": source.name, "fingerprint": source.fingerprint(), "splits": [*splits]}
    facts = {
        "source": {**named, "train_split": train_split, "validation_split": validation_split},
        "vocabulary": {"words": len(words)},
        "passages": {
            **read["passages"],
            "empty": examples(np.flatnonzero(corpus.hashes == empty_hash()), corpus.ids),
            "duplicates": duplicates(corpus.hashes, corpus.ids),
        },
        "splits": {
            name: {
                **_query_facts(split, judged[name], words),
                **_judgement_facts(corpus, sorted_corpus, split, judged[name], words),
                "unknown_ids": read["judgements"][name] - int(split.qrels.present.sum()),
                "leakage": None if split is train else _leakage_facts(train_judged, judged[name], split),
            }
            for name, split in splits.items()
        },
        "triplets": triplets,
        "bad_rows": {**_bad_rows(source), **read["bad_rows"]},  # by now those of triplets are known, too
        "notices": [],
    }
    found = [{"id": w.id, "evidence": w.evidence, "remedy": w.remedy} for w in warnings(facts)]
    return {**facts, "warnings": found}


def _read(folder: Path, source: Source, tokenizer: Tokenizer) -> None:
    """What is lost where texts are cut and ids become rows: the source is read once more."""
    counts = count_texts(_whole_passages(source, tokenizer), tokenizer.unknown_id)
    facts = {
        "passages": text_facts(counts, tokenizer.document_tokens),
        "judgements": {split: source.qrels(split).num_rows for split in source.splits()},
    }
    write_json(folder / "facts.json", {**facts, "bad_rows": _bad_rows(source)})


def _whole_passages(source: Source, tokenizer: Tokenizer) -> Iterator[Ragged]:
    with counter(f"Reading {source.name}", "passages") as progress:
        for batch in source.corpus():
            yield tokenizer.encode(full_text(batch))
            progress(len(batch))


def _bad_rows(source: Source) -> dict[str, Any]:
    """The bad rows of the files that were read to their end so far."""
    files = getattr(source, "bad_rows", {})  # sources that read no files have none
    return {
        file: {
            "count": bad.counts.total(),
            "kinds": {
                kind: {"count": count, "examples": bad.examples[kind][:EXAMPLES]}
                for kind, count in bad.counts.most_common()
            },
        }
        for file, bad in files.items()
        if bad.counts
    }


def _query_facts(split: Split, judged: Judged, tokenizer: Tokenizer) -> dict[str, Any]:
    counts = count_texts([tokenizer.encode(split.texts)], tokenizer.unknown_id)
    return {
        **text_facts(counts, tokenizer.query_tokens),
        "empty": examples(np.flatnonzero(split.hashes == empty_hash()), split.ids),
        "duplicates": duplicates(judged.queries, split.ids),
    }


def _judgement_facts(
    corpus: Corpus, sorted_corpus: np.ndarray, split: Split, judged: Judged, tokenizer: Tokenizer
) -> dict[str, Any]:
    queries, documents = pairs.relevant_rows(split)
    own_answer = (split.hashes[queries] == judged.documents) & (judged.documents != empty_hash())
    drawn = pairs.sample(len(queries), pairs.PAIRS)
    drawn_pairs = split.tokens.select(queries[drawn]), corpus.tokens.select(documents[drawn])
    return {
        **pairs.judgement_facts(split),
        "unjudged_copies": int(pairs.unjudged_copies(judged, sorted_corpus).sum()),
        "answered_by_themselves": examples(np.unique(queries[own_answer]), split.ids),
        "overlap": pairs.word_overlap(*drawn_pairs, tokenizer.unknown_id),
    }


def _leakage_facts(train: Judged | None, judged: Judged, split: Split) -> dict[str, Any] | None:
    if train is None:
        return None
    leaked, with_answer = pairs.leakage(train, judged)
    return {**examples(np.flatnonzero(leaked), split.ids), "with_same_positive": int(with_answer.sum())}
