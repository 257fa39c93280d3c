"""From a question to ranked passages: by vectors, by words (BM25), or by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from two_tower.bm25 import BM25
from two_tower.data.base import full_text
from two_tower.encode import Encoder
from two_tower.errors import UserError, one_of
from two_tower.fusion import DEPTH, Fusion
from two_tower.highlight import Highlighter
from two_tower.index import VectorIndex, load_index
from two_tower.progress import counter
from two_tower.ranking import Ranking, id_order
from two_tower.run import Run
from two_tower.store import VectorStore

__all__ = ["MODES", "Answer", "Hit", "Mode", "Searcher"]

Mode: TypeAlias = Literal["dense", "bm25", "hybrid"]
MODES: tuple[Mode, ...] = ("dense", "bm25", "hybrid")


@dataclass(frozen=True)
class Hit:
    """A passage found.

    Attributes:
        rank: 1 is best.
        id: the passage's id.
        score: larger is nearer: a similarity, BM25's score, or a share of both.
        title: may be empty.
        text: the passage.
        title_marks: first character and the one after the last of each word of the query in the title.
        marks: the same in the text.
    """

    rank: int
    id: str
    score: float
    title: str
    text: str
    title_marks: list[tuple[int, int]] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Answer:
    """What a search gave.

    Attributes:
        query: the question.
        hits: best first.
        notes: sentences on what of the question could not be used; empty if all could.
    """

    query: str
    hits: list[Hit]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as the service shows it."""
        return {"query": self.query, "hits": [hit.to_dict() for hit in self.hits], "notes": self.notes}

    def brief(self) -> dict[str, Any]:
        """As ``two-tower search --json`` shows it: without marks, and without notes if there are none."""
        hits = [{k: v for k, v in hit.to_dict().items() if not k.endswith("marks")} for hit in self.hits]
        return {"query": self.query, "hits": hits, **({"notes": self.notes} if self.notes else {})}


class Searcher:
    """A run's encoder, its index, and the passages.

    Args:
        encoder: encodes the queries.
        index: finds rows.
        store: holds the passages of the rows.
        name: what the run is called.
        fusion: how vectors and BM25 are fused; by default by their ranks.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        store: VectorStore,
        name: str = "",
        fusion: Fusion | None = None,
    ) -> None:
        self.encoder, self.index, self.store, self.name = encoder, index, store, name
        self.fusion = fusion or Fusion("reciprocal_rank", None, DEPTH, "", "")
        self._highlighter = Highlighter(encoder.tokenizer.split_camel_case)

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
        store.verify()
        made = load_index(path, encoder.model.similarity)
        fusion = Fusion.read(folder.path / "hybrid.json")  # of other weights, it may not suit these
        fits = fusion is not None and fusion.checkpoint == encoder.fingerprint
        return cls(encoder, made, store, folder.path.resolve().name, fusion if fits else None)

    @property
    def passages(self) -> int:
        """How many are searched."""
        return self.store.manifest.rows

    def search(self, queries: Sequence[str], k: int = 10, mode: Mode = "dense") -> list[Answer]:
        """The ``k`` best passages of each query, best first.

        Args:
            queries: questions.
            k: how many passages of each.
            mode: ``dense``: by the vectors' similarity; none for a query without a known word. ``bm25``: by words;
                passages without a word of the query are not found. ``hybrid``: the best 100 of both, fused as
                ``two-tower evaluate --hybrid`` has chosen it for the run, else by reciprocal ranks.

        Raises:
            UserError: there is no such mode, or ``k`` is less than 1.
        """
        if mode not in MODES:
            raise UserError(f"mode={mode} does not exist; {one_of(mode, MODES)}.")
        if k < 1:
            raise UserError(f"k={k} must be at least 1.")
        if not queries:
            return []
        notes = self._notes(queries, mode)
        found = {"dense": self._dense, "bm25": self._lexical, "hybrid": self._hybrid}[mode](queries, k)
        return [
            Answer(query, self._hits(query, rows, scores), said)
            for query, rows, scores, said in zip(queries, found.rows[:, :k], found.scores[:, :k], notes, strict=True)
        ]

    def _dense(self, queries: Sequence[str], k: int) -> Ranking:
        scores, rows = self.index.search(self.encoder.queries(queries), k)
        rows = np.where(self.encoder.known(queries)[:, None], rows, -1)
        # Equal scores: the larger id first, as everywhere.
        order = np.lexsort((self._order[rows], np.where(rows >= 0, scores, -np.inf)), axis=1)[:, ::-1]
        return Ranking(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1), _NO_RANKS)

    def _lexical(self, queries: Sequence[str], k: int) -> Ranking:
        return self.bm25.rank(queries, order=self._order, k=min(k, self.passages))

    def _hybrid(self, queries: Sequence[str], k: int) -> Ranking:
        depth = min(max(k, self.fusion.depth), self.passages)
        return self.fusion(self._dense(queries, depth), self._lexical(queries, depth), order=self._order)

    @cached_property
    def bm25(self) -> BM25:
        """BM25 over the same passages; made when first asked for, then kept beside the vectors."""
        split = self.encoder.tokenizer.split_camel_case
        path = self.store.path / "bm25.npz"
        kept = BM25.load(path, split, self.store.manifest.corpus)
        if kept is None:
            with counter("Indexing words", "passages") as progress:
                texts = []
                for table in self.store.texts():
                    texts.append(full_text(table))
                    progress(len(table))
                kept = BM25(pa.chunked_array(texts, pa.string()), split_camel_case=split)
            kept.save(path, self.store.manifest.corpus)
        return kept

    @cached_property
    def _order(self) -> np.ndarray:
        ids = pa.chunked_array([chunk for table in self.store.texts() for chunk in table["id"].chunks], pa.string())
        return id_order(ids)

    def _notes(self, queries: Sequence[str], mode: Mode) -> list[list[str]]:
        """What of each query cannot be used, in sentences."""
        said: list[list[str]] = [[] if query.strip() else ["The query is empty."] for query in queries]
        asked = [(query, notes) for query, notes in zip(queries, said, strict=True) if not notes]
        if mode != "bm25":
            tokens = self.encoder.tokenizer.encode([query for query, _ in asked])
            unknown = (tokens.ids == self.encoder.tokenizer.unknown_id).tolist()
            for (query, notes), (first, end) in zip(asked, pairwise(tokens.offsets.tolist()), strict=True):
                notes += self._unread(query, unknown[first:end])
        if mode != "dense":
            for query, notes in asked:
                if not self.bm25.known(query):
                    notes.append(f"No passage has a word of '{query}'.")
        return said

    def _unread(self, query: str, unknown: Sequence[bool]) -> list[str]:
        """What the model does not read of a query, given which of its tokens it does not know."""
        if all(unknown):
            return [f"No word of '{query}' is in the vocabulary of this model: nothing to search with."]
        notes = []
        if any(unknown):
            words = self.encoder.tokenizer.words(query)
            which = [word for word, absent in zip(words, unknown, strict=False) if absent]
            told = f": {', '.join(dict.fromkeys(which))}" if len(words) == len(unknown) else ""
            notes.append(f"Not in the vocabulary of this model, so left out{told}.")
        most = self.encoder.tokenizer.query_tokens
        if len(unknown) > most:
            notes.append(f"Only the first {most} of its {len(unknown)} tokens count.")
        return notes

    def _hits(self, query: str, rows: np.ndarray, scores: np.ndarray) -> list[Hit]:
        some = rows >= 0
        mark = self._highlighter.of(query)
        passages = self.store.passages(rows[some].tolist())
        return [
            Hit(rank, p["id"], score, p["title"], p["text"], mark(p["title"]), mark(p["text"]))
            for rank, (p, score) in enumerate(zip(passages, scores[some].tolist(), strict=True), start=1)
        ]


_NO_RANKS = np.zeros(0, np.int64)


def _check(store: VectorStore, encoder: Encoder, run: Run) -> None:
    if not store.manifest.complete:
        raise UserError(f"{store.path} is not finished: run  python embed.py run={run.path}  to continue.")
    problems = encoder.mismatches(store.manifest)
    if problems:
        raise UserError(f"{store.path} was made {', '.join(problems)}: embed again.")
