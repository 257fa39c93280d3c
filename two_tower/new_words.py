"""Words of another collection that a run's vocabulary lacks: vectors and weights for them, without training."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from two_tower.config import build, read
from two_tower.console import Advance, counter
from two_tower.data.base import Source, full_text
from two_tower.data.reading.unique import hash_rows
from two_tower.embedding._parts import SubwordVectors
from two_tower.embedding.base import Further, idf_of
from two_tower.errors import UserError
from two_tower.files import atomic_path, file_hash
from two_tower.run import Run
from two_tower.tokenizer.base import Texts, Tokenizer
from two_tower.tower.base import WordTable, word_tables
from two_tower.vectors import Towers

log = logging.getLogger(__name__)

MOST_WORDS = 500_000  # the most frequent ones; the others stay unknown
FAMILIAR = 0.5  # share of a collection's passages that the run has learned from, from which on its weights stay
COARSE = 4  # costs nothing: MRR@10 of .502 instead of .498 on MedQuAD, .520 instead of .524 on pydocs
ADAPTED = 0.5  # of how much rarer or more frequent a known word is in the collection than it was in training
RAREST = 10  # the last of so many parts of a vocabulary holds its rarest words
_KEYS = ("vectors", "log_weights")  # of a word table
_MAPPED = "the teacher's through the run's map"


@dataclass(frozen=True)
class NewWords:
    """What a run needs for another collection: words beside its own, and weights that know the frequencies there.

    Where the run learned a map of a teacher's vectors of words, new words have theirs from the teacher through the map;
    where its vectors were drawn at random, theirs are; else they are made of the parts that they share with known words
    (see `SubwordVectors`). Their weights are their idf in the collection; those of known words are half way between
    what was learned and what that would be with the idf of the collection (measured in docs/experiments.md). Where most
    passages are those that the run has learned from, and where weights are uniform, all stay as they are, and a new
    word has that of the rarest known ones.

    A word's vector and weight change little with the collection: frequencies count by powers of `COARSE`. So a few
    passages more or less leave the vectors of most others as they are, bit for bit.
    """

    words: Sequence[str]  # W of them, the most frequent first
    rows: Mapping[str, tuple[Tensor, Tensor]]  # of each table: vectors (W, D), log weights of all words (V + W,)
    facts: Mapping[str, Any]  # what they were found in: ``checkpoint``, ``corpus``, ``tokens``, ``unknown``, ``how``
    idf: Tensor | None = None  # (V + W,) of all words in the collection, if the run has that of its own

    @classmethod
    def find(cls, run: Run, model: Towers, tokenizer: Tokenizer, source: Source) -> NewWords | None:
        """Those of a source's passages; None where words are not what the run reads."""
        tables = dict(_tables(model))
        if tokenizer.rule is None or not tables:
            return None
        passages = CountedTexts(source, run.read_learned())
        with counter(f"Looking for new words in {source.name}", "passages", source.estimated_size()) as progress:
            found = tokenizer.frequencies(passages.read(progress))
        known = set(tokenizer.vocabulary)
        unknown = {word: counts[0] for word, counts in found.items() if word not in known}
        words = sorted(unknown, key=lambda word: (-unknown[word], word))[:MOST_WORDS]
        facts = facts_of(run)
        frequencies = np.array([found.get(word, (0, 0))[1] for word in (*tokenizer.vocabulary, *words)])
        idf = facts.get("idf")
        if idf is not None and passages.learned >= FAMILIAR * passages.count:
            idf = torch.cat([idf, idf.max().expand(len(words))])
        elif idf is not None:
            idf = idf_of(_coarse(frequencies), float(_coarse(passages.count)))
        start, maps = _further(run, facts, words), facts.get("maps", {})
        rows = dict[WordTable, tuple[Tensor, Tensor]]()  # shared towers have one table
        for place, table in tables.items():
            if table not in rows:
                if start is None:
                    vectors = _of_parts(table, tokenizer, words)
                else:
                    vectors = start @ maps[place].T if place in maps else start
                rows[table] = vectors, _log_weights(table, len(words), facts.get("idf"), idf)
        how = "made of its parts" if start is None else _MAPPED if maps else "drawn at random as all were"
        tokens = sum(occurrences for occurrences, _ in found.values())
        identity = {"checkpoint": file_hash(run.best), "corpus": source.fingerprint()}
        told = {**identity, "tokens": tokens, "unknown": sum(unknown.values()), "how": how}
        return cls(words, {place: rows[table] for place, table in tables.items()}, told, idf)

    def add_to(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a model that knows these words, from the ``state`` of the run's."""
        known = dict(state)
        for place, (vectors, log_weights) in self.rows.items():
            known[f"{place}.vectors"] = torch.cat([state[f"{place}.vectors"], vectors])
            known[f"{place}.log_weights"] = log_weights
        return known

    def _tensors(self) -> dict[str, Tensor]:
        rows = ((place, zip(_KEYS, row, strict=True)) for place, row in self.rows.items())
        return {f"{place}.{key}": values.contiguous() for place, row in rows for key, values in row}

    def are_of(self, run: Run, source: Source) -> bool:
        """Whether they were found for this run in this collection."""
        return (self.facts["checkpoint"], self.facts["corpus"]) == (file_hash(run.best), source.fingerprint())

    @property
    def fingerprint(self) -> str:
        """Changes with any word or number."""
        digest = xxhash.xxh3_64("\0".join(self.words).encode())
        for values in self._tensors().values():
            digest.update(values.numpy().data)
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write them, atomically, as a safetensors file."""
        stored = {id(row): place for place, row in self.rows.items()}  # once, what towers share
        places = {place: stored[id(row)] for place, row in self.rows.items()}
        parts = {"words": self.words, "facts": dict(self.facts), "places": places}
        tensors = {name: v for name, v in self._tensors().items() if name.rpartition(".")[0] in places.values()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"new_words": json.dumps(parts)})  # of several keys the order is by chance

    @classmethod
    def read(cls, path: Path) -> NewWords | None:
        """What `write` wrote; None if there is no such file."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                parts = json.loads(file.metadata()["new_words"])
                stored = {each: _row(file.get_tensor, each) for each in {*parts["places"].values()}}
            return cls(parts["words"], {place: stored[its] for place, its in parts["places"].items()}, parts["facts"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete its folder and embed again.") from error

    def __str__(self) -> str:
        tokens, unknown, words = self.facts["tokens"], self.facts["unknown"], len(self.words)
        share = f"{unknown:,} of {tokens:,} words of the passages ({unknown / max(1, tokens):.2%}) were unknown"
        how = f", {words:,} different ones; each has a vector now, {self.facts['how']}" if words else ""
        return f"{share}{how}."


def facts_of(run: Run) -> dict[str, Any]:
    """What the best checkpoint of a run holds besides weights."""
    facts: dict[str, Any] = torch.load(run.best, map_location="cpu", weights_only=True, mmap=True)["two_tower"]
    return facts


def _row(tensor: Callable[[str], Tensor], place: str) -> tuple[Tensor, Tensor]:
    vectors, log_weights = (tensor(f"{place}.{key}") for key in _KEYS)
    return vectors, log_weights


def _tables(model: Towers) -> Iterator[tuple[str, WordTable]]:
    """The word tables, by their places in the model's state; shared towers have theirs in two places."""
    for side, tower in (("query_tower", model.query_tower), ("document_tower", model.document_tower)):
        for name, table in word_tables(tower).items():
            yield f"{side}.{name}", table


def _log_weights(table: WordTable, new: int, before: Tensor | None, now: Tensor | None) -> Tensor:
    """The weights of V known and W ``new`` words, by the idf ``before`` (V,) in training and ``now`` (V + W,)."""
    learned = table.log_weights
    if before is None or now is None:
        return torch.cat([learned, learned[-max(1, len(learned) // RAREST) :].mean().expand(new)])
    beyond = (learned - before.log()).mean()  # what training made of idf
    known, fresh = now[: len(learned)], now[len(learned) :]
    return torch.cat([learned + ADAPTED * (known / before).log(), fresh.log() + beyond])


class CountedTexts:
    """The texts of a source's passages, counted as they are read, as are those of the hashes ``learned``."""

    def __init__(self, source: Source, learned: np.ndarray | None) -> None:
        self._source, self._learned = source, learned
        self.count = self.learned = 0

    def read(self, progress: Advance) -> Iterator[Texts]:
        for batch in self._source.corpus():
            yield (texts := full_text(batch))
            self.count += len(batch)
            if self._learned is not None:
                self.learned += int(np.isin(hash_rows(texts), self._learned).sum())
            progress(len(batch))


def _coarse(counts: np.ndarray | int) -> np.ndarray:
    """Counts as the nearest powers of `COARSE`; 0 stays."""
    logarithms = np.log(np.maximum(counts, 1)) / np.log(COARSE)
    return np.where(np.asarray(counts) > 0, float(COARSE) ** np.round(logarithms), 0)


def _further(run: Run, facts: Mapping[str, Any], words: Sequence[str]) -> Tensor | None:
    """The first vectors of new words, for the run's maps; None where it has none, or the embedding can give none."""
    if "origin" not in facts:
        return None
    try:
        embedding: Further = build("embedding", read(run.config)["embedding"])
    except UserError as error:
        log.warning("%s Until then new words get vectors made of their parts.", error)
        return None
    return embedding.further(words, facts["origin"])


def _of_parts(table: WordTable, tokenizer: Tokenizer, words: Sequence[str]) -> Tensor:
    if not words:
        return table.vectors[:0]
    known = [i for i in range(len(tokenizer)) if i != tokenizer.unknown_id]
    return SubwordVectors([tokenizer.vocabulary[i] for i in known], table.vectors[known])(words)
