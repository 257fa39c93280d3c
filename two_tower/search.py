"""From a question to ranked passages: by vectors, by words (BM25), or by both."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa

from two_tower.bm25 import BM25
from two_tower.console import command, counter
from two_tower.data.base import FIELDS, full_text
from two_tower.encode import WORDS, Encoder
from two_tower.errors import UserError, one_of, printable
from two_tower.filters import Scalar, fields_of, first_fitting, matching, nearest_fitting
from two_tower.fusion import EVEN, Fusion
from two_tower.highlight import Highlighter, Marks
from two_tower.index import VectorIndex, load_index
from two_tower.new_words import NewWords
from two_tower.ranking import Ranking, id_order
from two_tower.run import Run
from two_tower.store import VectorStore
from two_tower.tokenizer.base import Rule

Mode: TypeAlias = Literal["dense", "bm25", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
# Passages that a filter leaves are compared one by one while n² is at most this times all of them: comparing n takes
# 75 ns each, and a graph in which one of N / n nodes counts takes 440 µs N / n (256 dimensions, two cores).
FEW = 6000
FILTERS = 32  # whose passages are kept
URL_FIELDS = ("url", "link", "source")


@dataclass(frozen=True)
class Hit:
    """A passage found."""

    rank: int  # 1 is best
    id: str
    score: float  # larger is nearer: a similarity, BM25's score, or their fusion
    title: str
    text: str
    title_marks: Marks = field(default_factory=list)
    marks: Marks = field(default_factory=list)  # of the text
    fields: dict[str, Scalar] = field(default_factory=dict)  # what else its row holds: a date, a language, a URL

    @property
    def url(self) -> str | None:
        """Where the passage is to be read, on the web or on this disk, if a field says so."""
        named = {name.casefold(): value for name, value in reversed(self.fields.items())}
        values = (named.get(name) for name in URL_FIELDS)
        return next(
            (each for each in values if isinstance(each, str) and re.fullmatch(r"(?i)(https?|file)://\S+", each)), None
        )


@dataclass(frozen=True)
class Answer:
    """The result of a search."""

    query: str
    hits: list[Hit]  # best first
    notes: list[str] = field(default_factory=list)  # sentences on what of the query could not be used

    def to_dict(self) -> dict[str, Any]:
        """As the service shows it."""
        return {"query": self.query, "hits": [dict(vars(hit)) for hit in self.hits], "notes": self.notes}

    def brief(self) -> dict[str, Any]:
        """As ``two-tower search --json`` shows it: without marks, and without fields and notes if there are none."""
        hits = [{k: v for k, v in vars(hit).items() if not k.endswith("marks") and v != {}} for hit in self.hits]
        return {"query": self.query, "hits": hits, **({"notes": self.notes} if self.notes else {})}


class Searcher:
    """A run's encoder, its index, and the passages; ``fusion`` with BM25 is even if not given."""

    def __init__(
        self, encoder: Encoder, index: VectorIndex, store: VectorStore, name: str = "", fusion: Fusion | None = None,
        run: Run | None = None,
    ) -> None:  # fmt: skip
        self.encoder, self.index, self.store, self.name, self.run = encoder, index, store, name, run
        self.fusion = fusion or EVEN
        self._filters: dict[tuple[str, ...], np.ndarray] = {}

    @classmethod
    def load(cls, run: Path | str, index: Path | str | None = None) -> Searcher:
        """The searcher of an embedded run, with its own index or that in another folder."""
        (searcher,) = load_searchers([run], [index] if index else [])
        return searcher

    @property
    def passages(self) -> int:  # how many are searched
        return self.store.manifest.rows

    def search(
        self, queries: Sequence[str], k: int = 10, mode: Mode = "dense", where: Sequence[str] = ()
    ) -> list[Answer]:
        """The ``k`` best passages of each query, of those whose fields meet all conditions ``where`` (``lang=de``).

        ``dense`` finds nothing for a query without a known word, ``bm25`` no passage without a word of the query.
        ``hybrid`` fuses the best 100 of both as ``two-tower evaluate --hybrid`` has chosen, else evenly.
        """
        if mode not in MODES:
            raise UserError(f"mode={mode} does not exist; {one_of(mode, MODES)}.")
        if k < 1:
            raise UserError(f"k={k} must be at least 1.")
        if not queries:
            return []
        queries = [printable(query) for query in queries]
        rank = {"dense": self._dense, "bm25": self._bm25, "hybrid": self._hybrid}[mode]
        fitting = self._fitting(tuple(where)) if where else None
        notes, ranking = self._notes(queries, mode), rank(queries, k, fitting)
        passages = self.passages if fitting is None else int(fitting.sum())
        for sentences, rows in zip(notes, ranking.rows[:, :k], strict=True):
            count = int((rows >= 0).sum())
            if passages < min(k, self.passages):
                sentences.append(f"{passages:,} passages match the filter.")
            elif count < min(k, passages) and (count or not sentences):  # else it is said why nothing was found
                sentences.append(self._too_few(count, k, mode))
        found = zip(queries, ranking.rows[:, :k], ranking.scores[:, :k], notes, strict=True)
        return [Answer(query, self._hits(query, rows, scores), its_notes) for query, rows, scores, its_notes in found]

    def _dense(self, queries: Sequence[str], k: int, fitting: np.ndarray | None) -> Ranking:
        if fitting is not None:
            return self._dense_among(queries, k, fitting)
        scores, rows = self.index.search(self.encoder.queries(queries), k)
        rows = np.where(self.encoder.known(queries)[:, None], rows, -1)
        # Among equal scores the larger id comes first, as everywhere.
        order = np.lexsort((self._order[rows], np.where(rows >= 0, scores, -np.inf)), axis=1)[:, ::-1]
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        return Ranking(rows, scores, ranks=np.zeros(0, np.int64))

    def _dense_among(self, queries: Sequence[str], k: int, fitting: np.ndarray) -> Ranking:
        """Exact where few passages are left, else the first ones that fit in a search as wide as it goes deep."""
        few = int(fitting.sum()) ** 2 <= FEW * len(fitting)
        if self.index.exact or (self.index.search_value and not few):
            return first_fitting(lambda depth: self._wider(queries, depth, depth / k), k, fitting)
        found = nearest_fitting(self.store, self.encoder.queries(queries), k, fitting, self._order)
        rows = np.where(self.encoder.known(queries)[:, None], found.rows, -1)
        return Ranking(rows, np.where(rows >= 0, found.scores, -np.inf), found.ranks)

    def _wider(self, queries: Sequence[str], k: int, factor: float) -> Ranking:
        value = self.index.search_value
        if value is None or factor <= 1:
            return self._dense(queries, k, None)
        self.index.set_search_value(math.ceil(value * factor))
        try:
            return self._dense(queries, k, None)
        finally:
            self.index.set_search_value(value)

    def _bm25(self, queries: Sequence[str], k: int, fitting: np.ndarray | None) -> Ranking:
        def best(depth: int) -> Ranking:
            return self.bm25.rank(queries, order=self._order, k=min(depth, self.passages))

        return best(k) if fitting is None else first_fitting(best, k, fitting)

    def _hybrid(self, queries: Sequence[str], k: int, fitting: np.ndarray | None) -> Ranking:
        depth = min(max(k, self.fusion.depth), self.passages)
        if fitting is not None and not fitting.any():
            return self._dense(queries, k, fitting)
        dense, bm25 = (rank(queries, depth, fitting) for rank in (self._dense, self._bm25))
        return self.fusion(dense, bm25, order=self._order)

    def _fitting(self, where: tuple[str, ...]) -> np.ndarray:
        """(N,) bool: the passages that meet all conditions; the last ones are kept."""
        if where not in self._filters:
            self._filters[where] = matching(self.store, where)
            if len(self._filters) > FILTERS:
                del self._filters[next(iter(self._filters))]
        return self._filters[where]

    @cached_property
    def bm25(self) -> BM25:
        """BM25 over the same passages; made on first use, then kept beside the vectors."""
        rule = self.encoder.tokenizer.rule
        path, corpus = self.store.path / "bm25.npz", self.store.manifest.corpus
        bm25 = BM25.load(path, rule, corpus)
        if bm25 is None:
            texts = []
            with counter("Indexing words", "passages") as progress:
                for table in self.store.texts():
                    texts.append(full_text(table))
                    progress(len(table))
                bm25 = BM25(pa.chunked_array(texts, pa.string()), rule)
            with suppress(OSError):  # a folder that can only be read is searched all the same
                bm25.save(path, corpus)
        return bm25

    @cached_property
    def _highlighter(self) -> Highlighter:
        texts = (full_text(table) for table in self.store.texts())
        return Highlighter(self.encoder.tokenizer.rule or Rule.found(texts))

    @cached_property
    def _order(self) -> np.ndarray:
        return id_order(self.store.ids())

    def _notes(self, queries: Sequence[str], mode: Mode) -> list[list[str]]:
        notes: list[list[str]] = [[] if query.strip() else ["The query is empty."] for query in queries]
        written = [(query, sentences) for query, sentences in zip(queries, notes, strict=True) if not sentences]
        if mode != "bm25":
            tokens = self.encoder.tokenizer.encode([query for query, _ in written])
            unknown = (tokens.ids == self.encoder.tokenizer.unknown_id).tolist()
            for (query, sentences), (start, end) in zip(written, pairwise(tokens.offsets.tolist()), strict=True):
                sentences += self._left_out(query, unknown[start:end])
        if mode != "dense":
            for query, sentences in written:
                if not self.bm25.known(query):
                    sentences.append(f"No passage has a word of '{query}'.")
        return notes

    def _too_few(self, count: int, k: int, mode: Mode) -> str:
        """Why fewer than ``k`` passages were found."""
        if mode == "bm25":
            return f"{count:,} passages have a word of the query."
        param = self.index.search_param
        remedy = f": a larger index.{param} than {self.index.search_value} finds more" if param else ""
        return f"The index found {count:,} passages instead of {k:,}{remedy}."

    def _left_out(self, query: str, unknown: Sequence[bool]) -> list[str]:
        """What the model does not read of a query, given which of its tokens are unknown."""
        if all(unknown):
            return [f"No word of '{query}' is in the vocabulary of this model: nothing to search with."]
        notes = []
        if any(unknown):
            words = self.encoder.tokenizer.words(query)
            names = dict.fromkeys(word for word, absent in zip(words, unknown, strict=False) if absent)
            listing = f": {', '.join(names)}" if len(words) == len(unknown) else ""
            notes.append(f"Not in the vocabulary of this model, so left out{listing}.")
        limit = self.encoder.tokenizer.query_tokens
        if len(unknown) > limit:
            notes.append(f"Only the first {limit} of its {len(unknown)} tokens count.")
        return notes

    def _hits(self, query: str, rows: np.ndarray, scores: np.ndarray) -> list[Hit]:
        found, mark = rows >= 0, self._highlighter.marker(query)
        passages = self.store.passages(rows[found].tolist())
        return [
            Hit(
                rank, p["id"], score, p["title"], p["text"], mark(p["title"]), mark(p["text"]), fields_of(p.get(FIELDS))
            )
            for rank, (p, score) in enumerate(zip(passages, scores[found].tolist(), strict=True), start=1)
        ]


def load_searchers(runs: Iterable[Path | str], indexes: Sequence[Path | str] = ()) -> list[Searcher]:
    """A searcher of each index with the run that made it; of a run that made none of them, with its own index.

    They are called by the index' folder, or by the run if it is its own.
    """
    folders = [Run.existing(run) for run in runs]
    stores = {Path(index): _store(Path(index), folders) for index in indexes}
    searchers = []
    for run in folders:
        encoder = Encoder.load(run)  # of all its indexes but those with words of their own
        made = [path for path in stores if stores[path].manifest.checkpoint == encoder.fingerprint or len(folders) == 1]
        own = [] if made else [_store(run.index, [run])]
        searchers += [_searcher(run, encoder, store) for store in [*map(stores.pop, made), *own]]
    if stores:
        names = ", ".join(str(run.path) for run in folders)
        raise UserError(f"{next(iter(stores))} was made by none of {names}: name the run that made it, too")
    return searchers


def _searcher(run: Run, encoder: Encoder, store: VectorStore) -> Searcher:
    if words := NewWords.read(store.path / WORDS):
        encoder = Encoder.load(run, words)
    for key in encoder.mismatches(store.manifest):
        raise UserError(f"{store.path} was made with another {key} than that of {run.path}: embed again.")
    store.verify()
    own = store.path.name == run.index.name
    name = (store.path.parent if own else store.path).resolve().name
    fusion = Fusion.read(run.hybrid, encoder.fingerprint)
    if fusion and not (fusion.unseen or run.has_learned(store.manifest.corpus)):
        fusion = None
    return Searcher(encoder, load_index(store.path), store, name, fusion, run)


def _store(path: Path, runs: Sequence[Run]) -> VectorStore:
    """The finished vectors of an index that one of some runs has made."""
    run = runs[0].path if len(runs) == 1 else "RUN"
    own = path in [run.index for run in runs]
    making = command("python", "embed.py", f"run={run}", *([] if own else [f"output={path}"]))
    if not (path / "index.yaml").exists():
        other = "" if own else ", with data=… for other passages than the run's own"
        raise UserError(f"{path} holds no finished index: run  {making}  first{other}.")
    store = VectorStore.open(path)
    if not store.manifest.complete:
        raise UserError(f"{path} is not finished: run  {making}  to continue.")
    return store


def by_name(searchers: Iterable[Searcher]) -> dict[str, Searcher]:
    """Searchers by their names; those with equal names get a number."""
    named: dict[str, Searcher] = {}
    for searcher in searchers:
        name = searcher.name or "run"
        names = (name, *(f"{name}-{number}" for number in range(2, len(named) + 2)))
        named[next(unused for unused in names if unused not in named)] = searcher
    return named
