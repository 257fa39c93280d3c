"""A finished run again: its data, its towers with their weights, its tokenizer. Nothing here imports what trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from two_tower.config import build, read
from two_tower.data.base import LOADER_KEYS, Source
from two_tower.embedding.base import Embedding
from two_tower.errors import UserError, first_line
from two_tower.files import find_again
from two_tower.new_words import NewWords
from two_tower.run import Run
from two_tower.similarity import Similarity
from two_tower.tokenizer.base import Tokenizer
from two_tower.tower._mapped import MappedWords
from two_tower.tower.base import Tower, WordTable
from two_tower.vectors import LoadedTowers


def make_source(config: Mapping[str, Any]) -> Source:
    """The data source of a configuration's ``data`` group."""
    return build("data", {k: v for k, v in config.items() if k not in LOADER_KEYS})


def own_config(run: Run) -> dict[str, Any]:
    """The configuration of a run. Data that is gone is looked for where it would be had it moved with the run."""
    config = read(run.config)
    for path in find_again(config["data"].get("path"), run.path) if run.data.exists() else ():
        moved = {**config["data"], "path": path}
        with suppress(UserError):  # another file of that name
            run.check_data(make_source(moved).facts())
            return {**config, "data": moved}
    return config


def own_source(run: Run) -> Source:
    """The data that a run was trained on; a UserError if it has changed since, or says where it was."""
    try:
        source = make_source(own_config(run)["data"])
    except UserError as error:
        raise UserError(f"The data of {run.path} cannot be read: {error}") from error
    run.check_data(source.facts())
    return source


def make_towers(
    config: Mapping[str, Any], spelling: Sequence[str], width: int, embedding: Embedding | None = None
) -> tuple[Tower, Tower]:
    """Query and document tower with empty word tables of ``width`` dimensions; two of their own start equal.

    They are to be used, or trained as the ``embedding`` says.
    """
    size, pull = len(spelling), embedding.pull if embedding else None

    def tower() -> Tower:
        words = WordTable(size, width) if pull is None else MappedWords(size, width, pull)
        words.spelling = spelling
        built: Tower = build("tower", config["tower"], offer={"words": words})  # a transformer has its own
        words.freeze(embedding is not None and embedding.frozen)
        return built

    query_tower = tower()
    if config["shared_towers"]:
        return query_tower, query_tower
    document_tower = tower()
    document_tower.load_state_dict(query_tower.state_dict())
    return query_tower, document_tower


def load_model(run: Run, further: NewWords | None = None) -> tuple[LoadedTowers, Tokenizer]:
    """The best model of a run, ready for use, and its tokenizer; a UserError if they do not belong together.

    With ``further`` words they know these as well.
    """
    config, tokenizer = read(run.config), Tokenizer.load(run.tokenizer)
    try:
        checkpoint = torch.load(run.best, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{run.best} cannot be read as a checkpoint: {first_line(error)}") from error
    if checkpoint["two_tower"]["tokenizer"] != tokenizer.fingerprint:
        raise UserError(f"{run.tokenizer} is not the tokenizer that {run.best} was trained with: restore that file.")
    # Only the towers': a loss' learned numbers and remembered vectors are for training.
    state = {k: v for k, v in checkpoint["state_dict"].items() if k.startswith(("query_tower.", "document_tower."))}
    if further is not None:
        state, tokenizer = further.add_to(state), tokenizer.extended(further.words)
    # The word vectors' width is a fact: the file that they once came from need not exist any more.
    towers = make_towers(config, tokenizer.spelling, checkpoint["two_tower"]["width"])
    model = LoadedTowers(*towers, Similarity(config["similarity"]))
    model.load_state_dict(state)
    return model.eval().requires_grad_(False), tokenizer
