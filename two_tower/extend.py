"""A run that knows the words of further passages, without training."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from two_tower.assemble import load_model
from two_tower.config import build, read
from two_tower.console import Advance
from two_tower.data.base import Source, full_text
from two_tower.embedding.base import Further
from two_tower.errors import UserError
from two_tower.files import file_hash, require_new, write_text
from two_tower.fusion import Fusion
from two_tower.run import Run
from two_tower.tokenizer.base import Texts, Tokenizer
from two_tower.tower.base import WordTable, word_tables

log = logging.getLogger(__name__)

RAREST = 0.1  # share of the vocabulary, its end, whose mean weight new words get: they are about as rare

MIN_LETTERS, MAX_LETTERS = 3, 6  # of a part, with a mark at the word's beginning and end
SHARED = 2  # occurrences that a part must have, else it says nothing of other words
RIDGE = 0.1  # in relation to one word: parts of few words stay near zero
STEPS = 10  # of conjugate gradients; twice as many gain next to nothing


@dataclass(frozen=True)
class Extension:
    """What the passages held."""

    tokens: int  # words of all passages
    unknown: int  # those among them that the run did not know
    words: int  # different unknown words
    mapped: bool = False  # whether their vectors are the teacher's, through the run's map

    def __str__(self) -> str:
        share = self.unknown / max(1, self.tokens)
        unknown = f"{self.unknown:,} of {self.tokens:,} words of the passages ({share:.2%}) were unknown"
        how = "the teacher's through the run's map" if self.mapped else "made of its parts"
        return f"{unknown}, {self.words:,} different ones; each has a vector now, {how}."


def extend_run(run: Path | str, source: Source, path: Path, progress: Advance | None = None) -> Extension:
    """Write a run folder whose vocabulary holds the new words of a source's passages as well.

    Where the run learned a map of a teacher's vectors of words, new words have theirs from the teacher through the map,
    else from the parts that they share with known words (see `SubwordVectors`). Their weights are those of the rarest
    known words. All others, and the vectors of texts without new words, stay as in the best checkpoint.
    """
    require_new(path)
    old, new = Run.existing(run), Run(path)
    model, tokenizer = load_model(old)
    towers = {"query_tower": model.query_tower, "document_tower": model.document_tower}
    if tokenizer.rule is None or not all(word_tables(tower) for tower in towers.values()):
        raise UserError(f"{old.path} splits words into pieces: no word is new to it, it needs no extension.")
    counts, known = tokenizer.count(_texts(source, progress)), set(tokenizer.vocabulary)
    fresh = {word: count for word, count in counts.items() if word not in known}
    words = sorted(fresh, key=lambda word: (-fresh[word], word))
    if not words:
        raise UserError(f"{old.path} knows every word of {source.name}: there is nothing to add.")
    facts = torch.load(old.best, map_location="cpu", weights_only=True)["two_tower"]
    start, maps = _further(old, facts, words), facts.get("maps", {})
    state, rows = model.state_dict(), dict[WordTable, tuple[Tensor, Tensor]]()  # shared towers have one table
    for side, tower in towers.items():
        for name, table in word_tables(tower).items():
            place = f"{side}.{name}"
            if table not in rows:
                vectors = _of_parts(table, tokenizer, words) if start is None else start @ maps[place].T
                rarest = table.log_weights[-max(1, round(RAREST * (len(tokenizer) - 1))) :]
                weights = rarest.mean().expand(len(words))
                rows[table] = torch.cat([table.vectors, vectors]), torch.cat([table.log_weights, weights])
            state[f"{place}.vectors"], state[f"{place}.log_weights"] = rows[table]
    extended = tokenizer.extended(words)
    new.checkpoints.mkdir(parents=True)
    extended.save(new.tokenizer)
    torch.save({"state_dict": state, "two_tower": {**facts, "tokenizer": extended.fingerprint}}, new.best)
    for kept, its in ((old.data, new.data), (old.learned, new.learned)):
        if kept.exists():
            shutil.copy(kept, its)
    if fusion := Fusion.read(old.hybrid, file_hash(old.best)):
        replace(fusion, checkpoint=file_hash(new.best)).write(new.hybrid)
    write_text(new.config, old.config.read_text(encoding="utf-8"))  # last: without it the folder is no run
    return Extension(sum(counts.values()), sum(fresh.values()), len(fresh), start is not None)


def _texts(source: Source, progress: Advance | None) -> Iterator[Texts]:
    for batch in source.corpus():
        yield full_text(batch)
        if progress:
            progress(len(batch))


def _further(run: Run, facts: Mapping[str, Any], words: Sequence[str]) -> Tensor | None:
    """The first vectors of new words, for the run's maps; None where it has none, or the embedding can give none."""
    if "origin" not in facts:
        return None
    config = read(run.config)
    try:
        embedding: Further = build("embedding", config["embedding"])
    except UserError as error:
        log.warning("%s Until then new words get vectors made of their parts.", error)
        return None
    torch.manual_seed(config["seed"])
    return embedding.further(words, facts["origin"])


def _of_parts(table: WordTable, tokenizer: Tokenizer, words: Sequence[str]) -> Tensor:
    known = [i for i in range(len(tokenizer)) if i != tokenizer.unknown_id]
    return SubwordVectors([tokenizer.vocabulary[i] for i in known], table.vectors[known])(words)


class SubwordVectors:
    """A vector for each part of words (3 to 6 letters), such that the mean over a word's parts is near its vector.

    Zhao et al. 2018, "Generalizing Word Embeddings using Bag of Subwords", arXiv:1809.04259; here conjugate gradients
    minimize the squared error, with ridge regression.
    """

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:  # V different words, (V, D)
        table = vectors.detach().cpu()
        self._mean = table.mean(0)
        counts = Counter(part for word in words for part in _parts(word))
        shared = (part for part, count in counts.items() if count >= SHARED)
        self._number = {part: i for i, part in enumerate(shared)}
        self._vectors = _ridge(self._averages(words), table - self._mean)

    def __call__(self, words: Sequence[str]) -> Tensor:
        """The vectors of other words, (W, D) float32; the mean of all for one that shares no part with any."""
        return self._averages(words) @ self._vectors + self._mean

    def _averages(self, words: Sequence[str]) -> Tensor:
        """The sparse matrix (W, P) whose product with the parts' vectors is the mean over each word's parts."""
        numbers = [[self._number[part] for part in _parts(word) if part in self._number] for word in words]
        counts = torch.tensor([len(parts) for parts in numbers], dtype=torch.int64)
        rows = torch.repeat_interleave(torch.arange(len(words)), counts)
        columns = torch.tensor([part for parts in numbers for part in parts], dtype=torch.int64)
        values, size = 1 / counts[rows].float(), (len(words), len(self._number))
        return torch.sparse_coo_tensor(torch.stack([rows, columns]), values, size, check_invariants=False)


def _parts(word: str) -> list[str]:
    marked = f"<{word}>"
    return [marked[i : i + n] for n in range(MIN_LETTERS, MAX_LETTERS + 1) for i in range(len(marked) - n + 1)]


def _ridge(rows: Tensor, targets: Tensor) -> Tensor:
    """The x (P, D) that minimises ``|rows x - targets|² + RIDGE |x|²``, column by column."""
    rows, transposed = rows.coalesce(), rows.t().coalesce()
    x = torch.zeros(rows.shape[1], targets.shape[1])
    residual = transposed @ targets
    direction, square = residual.clone(), residual.square().sum(0)
    for _ in range(STEPS):
        image = rows @ direction
        curvature = image.square().sum(0) + RIDGE * direction.square().sum(0)
        step = square / curvature.clamp(min=1e-30)
        x += step * direction
        residual -= step * (transposed @ image + RIDGE * direction)
        smaller = residual.square().sum(0)
        direction = residual + (smaller / square.clamp(min=1e-30)) * direction
        square = smaller
    return x
