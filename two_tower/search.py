"""From a question to ranked passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.config import build, read
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.index.base import VectorIndex
from two_tower.report.run import Run
from two_tower.store import VectorStore

__all__ = ["Hit", "Searcher"]


@dataclass(frozen=True)
class Hit:
    """A passage found.

    Attributes:
        rank: 1 is best.
        id: the passage's id.
        score: its similarity with the query, larger is nearer.
        title: may be empty.
        text: the passage.
    """

    rank: int
    id: str
    score: float
    title: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


class Searcher:
    """A run's encoder, its index and the passages.

    Args:
        encoder: encodes the queries.
        index: finds rows.
        store: holds the passages of the rows.
    """

    def __init__(self, encoder: Encoder, index: VectorIndex, store: VectorStore) -> None:
        self.encoder, self.index, self.store = encoder, index, store

    @classmethod
    def load(cls, run: Path | str, index: Path | str | None = None) -> Searcher:
        """The searcher of an embedded run.

        Args:
            run: the run folder.
            index: the folder that embed.py wrote; the run's own by default.

        Raises:
            UserError: the run has no index, or the index was made with another model.
        """
        folder = Run.existing(run)
        path = Path(index) if index else folder.index
        if not (path / "index.yaml").exists():
            raise UserError(f"{path} holds no finished index: run  python embed.py run={run}  first.")
        encoder, store = Encoder.load(folder), VectorStore.open(path)
        _check(store, encoder, folder)
        made: VectorIndex = build(read(path / "index.yaml"))
        made.load(path, encoder.model.similarity)
        return cls(encoder, made, store)

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The ``k`` nearest passages of each query, best first; none for a query without a known word."""
        scores, rows = self.index.search(self.encoder.queries(queries), k)
        known = self.encoder.known(queries).tolist()
        return [self._hits(s, r) if some else [] for s, r, some in zip(scores, rows, known, strict=True)]

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> list[Hit]:
        found = self.store.passages(rows.tolist())
        # Equal scores: the larger id first, as everywhere.
        order = sorted(range(len(found)), key=lambda i: (scores[i], found[i]["id"].encode()), reverse=True)
        return [
            Hit(rank, found[i]["id"], float(scores[i]), found[i]["title"], found[i]["text"])
            for rank, i in enumerate(order, start=1)
        ]


def _check(store: VectorStore, encoder: Encoder, run: Run) -> None:
    manifest = store.manifest
    if not manifest.complete:
        raise UserError(f"{store.path} is not finished: run  python embed.py run={run.path}  to continue.")
    if manifest.tokenizer != encoder.tokenizer.fingerprint:
        raise UserError(f"{store.path} was made with another tokenizer than {run.tokenizer}: embed again.")
    if manifest.checkpoint != encoder.fingerprint:
        raise UserError(f"{store.path} was made with another checkpoint than {run.best}: embed again.")
    if manifest.similarity != encoder.model.similarity.name:
        raise UserError(f"{store.path} was made for similarity={manifest.similarity}, not the run's: embed again.")
