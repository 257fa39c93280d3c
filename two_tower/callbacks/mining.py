"""Mines the documents of ``negatives=ann`` with the current model, at the beginning of an epoch."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import xxhash
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from two_tower.data.stream.module import TripletData
from two_tower.engine.base import Engine
from two_tower.engine.local import LOCAL
from two_tower.errors import UserError
from two_tower.files import atomic_path, file_hash, read_json, write_json
from two_tower.model import TwoTower
from two_tower.negatives._mined import SearchResult, min_scores
from two_tower.negatives.ann import ANNNegatives
from two_tower.validation._evaluate import EncodedCorpus

log = logging.getLogger(__name__)

_MINE, _USE = "mine", "use"  # what the first process decides; anything else is an error message


class Mining(Callback):
    """Writes ``negatives/epoch-NNNN.npy`` in the run folder, and beside it which weights it was mined from.

    Does nothing unless the strategy wants it. Lightning takes the first batch of an epoch after these hooks, and no
    process's loader prepares one ahead, so an epoch has one table. A run that is killed while it mines mines again from
    the same weights; later in the epoch it continues with the table, if the checkpoint was trained with that one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._records: dict[str, dict[str, Any]] = {}  # by folder, which table is in use

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
        epoch = data.state_dict()["epoch"]  # the next batch's; with limit_train_batches not the trainer's
        for strategy in data.negatives.parts(epoch):
            path = strategy.table_path(epoch) if isinstance(strategy, ANNNegatives) else None
            if path is not None:
                self._ensure_table(cast(ANNNegatives, strategy), path, trainer, cast(TwoTower, pl_module))

    on_train_start = on_train_epoch_start  # for an epoch that is continued: Lightning does not start it again

    def _ensure_table(self, strategy: ANNNegatives, path: Path, trainer: L.Trainer, model: TwoTower) -> None:
        """Find the table, or mine it; all processes do the same."""
        folder = path.parent.relative_to(trainer.datamodule.collection.folder).as_posix()  # type: ignore[attr-defined]
        weights = {"step": trainer.global_step, "weights": checksum(model)}
        # The first process decides: it may be writing while the others look.
        decision = _decision(path, self._records.get(folder), weights) if trainer.is_global_zero else ""
        decision = trainer.strategy.broadcast(decision)
        if decision == _MINE:
            _mine(strategy, path, trainer, model, weights, self._engine)
            trainer.strategy.barrier("negatives")
        elif decision != _USE:
            raise UserError(decision)
        self._records[folder] = read_json(_record_path(path))

    def state_dict(self) -> dict[str, Any]:
        return {"records": self._records}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._records = dict(state_dict["records"])


def _decision(path: Path, in_use: dict[str, Any] | None, weights: dict[str, Any]) -> str:
    """Whether to use the table at ``path``, which the checkpoint may remember as ``in_use``, or to mine it."""
    record = read_json(_record_path(path))
    whole = record is not None and path.exists() and record["table"] == file_hash(path)
    if in_use is not None and in_use["file"] == path.name:
        if whole and record == in_use:
            return _USE
        return (
            f"{path} is not the table that this run has trained with (mined at step {in_use['step']}): put that file "
            "and its .json back, or start again in another run_dir."
        )
    return _USE if whole and record is not None and record.items() >= weights.items() else _MINE


def _mine(
    strategy: ANNNegatives, path: Path, trainer: L.Trainer, model: TwoTower, weights: dict[str, Any], engine: Engine
) -> None:
    start, data = time.perf_counter(), cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
    found = search(model, data, strategy.last_rank, engine)
    if not trainer.is_global_zero:
        return
    table, kept = strategy.choose(found, data.collection)
    _record_path(path).unlink(missing_ok=True)  # of other weights: never beside a table that it does not describe
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, table)
    write_json(_record_path(path), {"file": path.name, **weights, "table": file_hash(path)})
    described, seconds = strategy.describe(len(table), kept), time.perf_counter() - start
    log.info(f"Negatives from the model after {weights['step']} steps: {described}; {seconds:.1f} s.")


def search(model: TwoTower, data: TripletData, k: int, engine: Engine = LOCAL) -> SearchResult:
    """The ``k`` documents that a model ranks highest for each training query, and the scores of the positives.

    Processes that train together share the documents, see `EncodedCorpus`; all get the whole result.
    """
    encoded = EncodedCorpus.from_model(model, data.corpus, data.train.tokens, engine=engine)
    pairs = data.collection.pairs
    scores, device = np.full(len(pairs[0]), -np.inf, np.float32), encoded.queries.device
    for first, block in encoded.blocks.items():
        here = np.flatnonzero((pairs[1] >= first) & (pairs[1] < first + len(block)))
        rows, columns = (torch.from_numpy(r).to(device) for r in (pairs[0][here], pairs[1][here] - first))
        scores[here] = _pair_scores(model, encoded.queries[rows], block[columns])
    ranking = encoded.rank(k)
    minimum = min_scores(pairs, encoded.share.all_reduce(scores, "max"), len(encoded.queries))
    return SearchResult(ranking.rows, ranking.scores, minimum)


@torch.inference_mode()
def _pair_scores(model: TwoTower, q_PD: Tensor, d_PD: Tensor) -> np.ndarray:
    """(P,) float32, the similarity of single pairs."""
    one = torch.vmap(lambda q, d: model.similarity.scores(q[None], d[None])[0, 0])
    return one(q_PD, d_PD).cpu().numpy() if len(q_PD) else np.zeros(0, np.float32)


def checksum(module: nn.Module) -> str:
    """A hash of all weights of a module, 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")
