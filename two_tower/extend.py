"""A run that knows the words of further passages, without training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from two_tower.assemble import load_model
from two_tower.data.base import Source, full_text
from two_tower.errors import UserError
from two_tower.files import require_new, write_text
from two_tower.run import Run
from two_tower.tokenizer.base import Texts, Tokenizer
from two_tower.tower._words import word_tables
from two_tower.tower.base import Tower
from two_tower.tower.subwords import SubwordVectors

__all__ = ["Extension", "extend_run"]

RAREST = 0.1  # share of the vocabulary, its end, whose mean weight new words get: they are about as rare


@dataclass(frozen=True)
class Extension:
    """What was found in the passages, and made of it.

    Attributes:
        tokens: words of all passages.
        unknown: those among them that the run did not know.
        words: how many different ones these were; each has a vector now.
    """

    tokens: int
    unknown: int
    words: int

    def __str__(self) -> str:
        share = self.unknown / max(1, self.tokens)
        return (
            f"{self.unknown:,} of {self.tokens:,} words of the passages ({share:.2%}) were unknown, {self.words:,} "
            "different ones; each has a vector now, made of its parts."
        )


def extend_run(run: Path | str, source: Source, path: Path, progress: Callable[[int], None] | None = None) -> Extension:
    """Write a run folder whose vocabulary holds the new words of a source's passages as well.

    Their vectors come from the parts that they share with known words (see `SubwordVectors`), their weights are those
    of the rarest known words. All other vectors, and texts without new words, stay as they are.

    Args:
        run: the run folder; its best checkpoint is extended.
        source: whose passages are read.
        path: the new folder.
        progress: called with the number of passages read since the last call.

    Raises:
        UserError: the folder is not empty, the run's tokenizer is not of whole words, or no word is new.
    """
    require_new(path)
    old, new = Run.existing(run), Run(path)
    model, tokenizer = load_model(old)
    towers = {"query_tower": model.query_tower, "document_tower": model.document_tower}
    if not tokenizer.of_words or not all(word_tables(tower) for tower in towers.values()):
        raise UserError(f"{old.path} splits words into pieces: no word is new to it, it needs no extension.")
    counts, known = tokenizer.count(_texts(source, progress)), set(tokenizer.vocabulary)
    fresh = {word: count for word, count in counts.items() if word not in known}
    words = sorted(fresh, key=lambda word: (-fresh[word], word))
    if not words:
        raise UserError(f"{old.path} knows every word of {source.name}: there is nothing to add.")
    state, made = model.state_dict(), {tower: _rows(tower, tokenizer, words) for tower in set(towers.values())}
    for key in state:
        side, _, name = key.partition(".")
        if side in towers and name in made[towers[side]]:
            state[key] = torch.cat([state[key], made[towers[side]][name]])
    facts = torch.load(old.best, map_location="cpu", weights_only=True)["two_tower"]
    extended = tokenizer.extended(words)
    new.checkpoints.mkdir(parents=True)
    extended.save(new.tokenizer)
    torch.save({"state_dict": state, "two_tower": {**facts, "tokenizer": extended.fingerprint}}, new.best)
    write_text(new.config, old.config.read_text(encoding="utf-8"))  # last: without it the folder is no run
    return Extension(sum(counts.values()), sum(fresh.values()), len(fresh))


def _texts(source: Source, progress: Callable[[int], None] | None) -> Iterator[Texts]:
    for batch in source.corpus():
        yield full_text(batch)
        if progress:
            progress(len(batch))


def _rows(tower: Tower, tokenizer: Tokenizer, words: Sequence[str]) -> dict[str, Tensor]:
    """The rows of new words for each parameter of a tower's word tables, by name."""
    rows: dict[str, Tensor] = {}
    for name, table in word_tables(tower).items():
        known = [i for i in range(len(tokenizer)) if i != tokenizer.unknown_id]
        parts = SubwordVectors([tokenizer.vocabulary[i] for i in known], table.vectors[known])
        rows[f"{name}.vectors"] = parts(words)
        rarest = table.log_weights[-max(1, round(RAREST * len(known))) :]
        rows[f"{name}.log_weights"] = rarest.mean().expand(len(words))
    return rows
