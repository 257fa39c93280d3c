"""A run that knows the words of further passages, without training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from two_tower.assemble import load_model
from two_tower.data.base import Source
from two_tower.errors import UserError
from two_tower.files import file_hash, require_new, write_text
from two_tower.fusion import Fusion
from two_tower.new_words import NewWords, facts_of
from two_tower.run import Run


def extend_run(run: Path | str, source: Source, path: Path) -> NewWords:
    """Write a run folder whose vocabulary holds the new words of a source's passages as well."""
    require_new(path)
    old, new = Run.existing(run), Run(path)
    model, tokenizer = load_model(old)
    if tokenizer.rule is None:
        raise UserError(f"{old.path} splits words into pieces: no word is new to it, it needs no extension.")
    words = NewWords.find(old, model, tokenizer, source)
    if words is None or not words.words:
        raise UserError(f"{old.path} knows every word of {source.name}: there is nothing to add.")
    facts = facts_of(old)
    extended = tokenizer.extended(words.words)
    new.checkpoints.mkdir(parents=True)
    extended.save(new.tokenizer)
    state = words.add_to(model.state_dict())
    facts |= {"tokenizer": extended.fingerprint} | ({} if words.idf is None else {"idf": words.idf})
    torch.save({"state_dict": state, "two_tower": facts}, new.best)
    for kept, its in ((old.data, new.data), (old.learned, new.learned)):
        if kept.exists():
            shutil.copy(kept, its)
    if fusion := Fusion.read(old.hybrid, file_hash(old.best)):
        replace(fusion, checkpoint=file_hash(new.best)).write(new.hybrid)
    write_text(new.config, old.config.read_text(encoding="utf-8"))  # last: without it the folder is no run
    return words
