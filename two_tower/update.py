"""``two-tower update``: a run that follows its collection, in a fraction of the time that one from scratch takes."""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from two_tower.config import read
from two_tower.config.compose import compose_raw
from two_tower.console import counter, say
from two_tower.data.base import LOADER_KEYS, Source
from two_tower.data.stream.module import TAUGHT_BATCH, usual_batch
from two_tower.embed import embed, resolve
from two_tower.files import atomic_path, file_hash, read_json, require_new, write_json, write_text
from two_tower.fusion import Fusion
from two_tower.loading import load_model, make_source
from two_tower.new_words import CountedTexts, NewWords, facts_of
from two_tower.run import Run
from two_tower.store import VectorStore
from two_tower.train import train

# How often each new passage is learned, as from scratch, beside as many old ones at least; the fewest steps; and their
# rate as a part of that from scratch, which would make old passages worse to find (measured in docs/experiments.md).
TIMES, STEPS, RATE = 8, 24, 0.6
BEGUN = "update.json"  # in the new folder: which update makes it
ALL = {"unseen_share": 0.0, "unseen_ids": None}  # every passage is to be learned


def update_run(run: Path | str, data: Mapping[str, Any], path: Path) -> bool:
    """Write the folder of a run that knows a changed collection, with its index.

    ``data`` is the configuration of a source. A run that learned passages from a teacher goes on with that, from its
    weights, on all of them. Another, or one whose new data has no queries, is given vectors for new words. Returns
    whether it was trained. The same update again continues an interrupted one.
    """
    before, source = Run.existing(run), make_source(data)
    begun = {"run": str(before.path.absolute()), "checkpoint": file_hash(before.best), "data": source.fingerprint()}
    if read_json(path / BEGUN) != begun:
        require_new(path)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / BEGUN, begun)
    config = read(before.config)
    loader = {key: config["data"][key] for key in LOADER_KEYS if key in config["data"]} | ALL
    splits = {loader["train_split"], loader["validation_split"]}
    taught = loader["examples"] == "passages" and splits <= {*source.splits()}
    if taught:
        steps, share = _plan(*_counted(source, before.read_learned()), loader["batch_size"])
        length = {"max_steps": steps, "max_epochs": -1, "max_time": None}
        slower = {"lr": RATE * config["optimizer"]["lr"]}
        loader |= {"new_share": share}
        changed = {"data": {**data, **loader}, "init_from": str(before.path), "run_dir": str(path)}
        changed |= {"trainer": {**config["trainer"], **length}, "optimizer": {**config["optimizer"], **slower}}
        train({**config, **changed})
    elif not Run(path).config.exists():
        words = add_words(before, source, Run(path))
        say(str(words) if words and words.words else f"{before.path} knows every word of {source.name}.")
    usual = resolve(compose_raw("embed", ["run=RUN"]))
    embed({**usual, **_embedding_of(before), "run": str(path), "data": None if taught else dict(data)})
    return taught


def _counted(source: Source, learned: np.ndarray | None) -> tuple[int, int]:
    """How many passages a source has, and how many of them are new to a run that has kept what it learned."""
    if learned is None:
        return 0, 0
    texts = CountedTexts(source, learned)
    with counter(f"Looking for new passages in {source.name}", "passages", source.estimated_size()) as progress:
        deque(texts.read(progress), maxlen=0)
    return texts.count, texts.count - texts.learned


def _plan(passages: int, new: int, batch_size: int | None) -> tuple[int, float]:
    """The steps of an update, and the share of the new passages in what it learns from."""
    size = batch_size or usual_batch(passages, TAUGHT_BATCH)
    steps = max(STEPS, math.ceil(2 * TIMES * new / size))
    return steps, min(0.5, TIMES * new / (steps * size))


def _embedding_of(run: Run) -> dict[str, Any]:
    """How the index of a run was made; empty if it has none."""
    if not (run.index / "index.yaml").exists():
        return {}
    manifest = VectorStore.open(run.index).manifest
    kept = {"shard_rows": manifest.shard_rows, "dtype": manifest.dtype}
    return {**kept, "index": read(run.index / "index.yaml")["index"]}


def add_words(old: Run, source: Source, new: Run) -> NewWords | None:
    """Write a run whose vocabulary holds the new words of a source's passages as well, without training.

    None where no word is new to it, since it reads pieces of words.
    """
    model, tokenizer = load_model(old)
    facts, state, words = facts_of(old), model.state_dict(), NewWords.find(old, model, tokenizer, source)
    if words is not None:
        tokenizer, state = tokenizer.extended(words.words), words.add_to(state)
        facts |= {"tokenizer": tokenizer.fingerprint} | ({} if words.idf is None else {"idf": words.idf})
    new.checkpoints.mkdir(parents=True, exist_ok=True)
    tokenizer.save(new.tokenizer)
    with atomic_path(new.best) as temporary:
        torch.save({"state_dict": state, "two_tower": facts}, temporary)
    for kept, its in ((old.data, new.data), (old.learned, new.learned)):
        if kept.exists():
            shutil.copy(kept, its)
    if fusion := Fusion.read(old.hybrid, file_hash(old.best)):
        replace(fusion, checkpoint=file_hash(new.best)).write(new.hybrid)
    write_text(new.config, old.config.read_text(encoding="utf-8"))  # last: without it the folder is no run
    return words
