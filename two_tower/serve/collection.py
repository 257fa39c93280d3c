"""The runs that a service searches with, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from two_tower.errors import UserError, one_of
from two_tower.search import MODES, Answer, Mode, Searcher

__all__ = ["Runs", "Way"]


@dataclass(frozen=True)
class Way:
    """How to search.

    Attributes:
        run: the run's name.
        mode: see `Searcher.search`.
        k: how many passages.
    """

    run: str
    mode: Mode
    k: int


class Runs:
    """Searchers by name.

    Args:
        searchers: one or more; the first is the default. Those of equal names get a number.
        words: whether to search by words (BM25), too.
    """

    def __init__(self, searchers: Iterable[Searcher], words: bool = True) -> None:
        self._by_name: dict[str, Searcher] = {}
        for searcher in searchers:
            self._by_name[_free(searcher.name or "run", self._by_name)] = searcher
        if not self._by_name:
            raise UserError("There is no run to serve.")
        self.modes: tuple[Mode, ...] = MODES if words else ("dense",)

    @classmethod
    def load(cls, paths: Sequence[Path], words: bool = True) -> Runs:
        """The runs in folders.

        Raises:
            UserError: see `Searcher.load`.
        """
        return cls([Searcher.load(path) for path in paths], words)

    def __iter__(self) -> Iterator[tuple[str, Searcher]]:
        """Names and searchers."""
        return iter(self._by_name.items())

    @property
    def default(self) -> str:
        """The name of the first."""
        return next(iter(self._by_name))

    def warm(self) -> None:
        """Do now what the first search would wait for: compiling, reading, the index of words."""
        by_corpus: dict[tuple[str, bool], Searcher] = {}
        for name, searcher in self:
            if "bm25" in self.modes:  # of several runs over one corpus, one index of words is enough
                same = (searcher.store.manifest.corpus, searcher.encoder.tokenizer.split_camel_case)
                searcher.bm25 = by_corpus.setdefault(same, searcher).bm25
            for mode in self.modes:
                for queries in (["warm up"], ["warm", "up"]):  # one and several are searched in different ways
                    self.search(Way(name, mode, 1), queries)

    def way(self, run: str | None, mode: str, k: int) -> Way:
        """How to search, checked.

        Raises:
            UserError: there is no such run or mode here.
        """
        name = self.default if run is None else run
        if name not in self._by_name:
            raise UserError(f"run={name} is not served here; {one_of(name, self._by_name)}")
        for known in self.modes:
            if mode == known:
                return Way(name, known, k)
        raise UserError(f"mode={mode} does not exist here; {one_of(mode, self.modes)}")

    def search(self, way: Way, queries: Sequence[str]) -> list[Answer]:
        """An answer to each query."""
        return self._by_name[way.run].search(queries, way.k, way.mode)

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


def _free(name: str, taken: dict[str, Searcher]) -> str:
    names = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in names if candidate not in taken)
