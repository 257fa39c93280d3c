"""The runs that a service searches with, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from two_tower.errors import UserError, one_of
from two_tower.search import MODES, Answer, Mode, Searcher


class SearchParams(NamedTuple):
    """What queries that are searched for together have in common."""

    run: str
    mode: Mode
    k: int


class Runs:
    """One or more searchers by name, the first by default; those with equal names get a number."""

    def __init__(self, searchers: Iterable[Searcher], bm25: bool = True) -> None:
        self._by_name: dict[str, Searcher] = {}
        for searcher in searchers:
            name = searcher.name or "run"
            names = (name, *(f"{name}-{number}" for number in range(2, len(self._by_name) + 2)))
            self._by_name[next(unused for unused in names if unused not in self._by_name)] = searcher
        if not self._by_name:
            raise UserError("There is no run to serve.")
        self.default = next(iter(self._by_name))
        self.modes: tuple[Mode, ...] = MODES if bm25 else ("dense",)

    @classmethod
    def load(cls, paths: Sequence[Path], bm25: bool = True) -> Runs:
        return cls([Searcher.load(path) for path in paths], bm25)

    def __iter__(self) -> Iterator[tuple[str, Searcher]]:
        return iter(self._by_name.items())

    def warm(self) -> None:
        """Do now what the first search would wait for: compiling, reading, indexing for BM25."""
        by_corpus: dict[tuple[str, bool], Searcher] = {}
        for name, searcher in self:
            if "bm25" in self.modes:  # runs over one corpus share one index
                corpus = (searcher.store.manifest.corpus, searcher.encoder.tokenizer.split_camel_case)
                searcher.bm25 = by_corpus.setdefault(corpus, searcher).bm25
            for mode in self.modes:
                for queries in (["warm up"], ["warm", "up"]):  # one and several are searched in different ways
                    self.search(SearchParams(name, mode, 1), queries)

    def params(self, run: str | None, mode: str, k: int) -> SearchParams:
        """How to search; a UserError if there is no such run or mode here."""
        name = self.default if run is None else run
        if name not in self._by_name:
            raise UserError(f"run={name} is not served here; {one_of(name, self._by_name)}")
        for known in self.modes:
            if mode == known:
                return SearchParams(name, known, k)
        raise UserError(f"mode={mode} does not exist here; {one_of(mode, self.modes)}")

    def search(self, params: SearchParams, queries: Sequence[str]) -> list[Answer]:
        return self._by_name[params.run].search(queries, params.k, params.mode)

    def describe(self) -> list[dict[str, Any]]:
        """What a client needs to choose between them."""
        return [
            {
                "name": name,
                "passages": searcher.passages,
                "corpus": searcher.store.manifest.corpus,
                "dimensions": searcher.store.manifest.dim,
                "similarity": searcher.store.manifest.similarity,
                "index": type(searcher.index).__name__.removesuffix("Index").lower(),
                "modes": list(self.modes),
            }
            for name, searcher in self
        ]
