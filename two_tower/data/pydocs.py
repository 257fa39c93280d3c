"""`data=pydocs`: the documentation of the installed Python packages; nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from two_tower.cache import cache_folder, entry, key_of
from two_tower.console import counter
from two_tower.data import _docstrings
from two_tower.data._docstrings import Doc, words
from two_tower.data.base import CORPUS, QRELS, QUERIES, SPLITS, Source, percentile
from two_tower.errors import UserError

RULES = 1  # raise whenever the harvest gives other texts, so that no cache of older rules is read
PASSAGE_WORDS = 120  # the start of a docstring says what it does; the rest is details and examples
MIN_PAIRS = 2000  # fewer means that sources are missing, and such a corpus teaches nothing
ROWS_PER_BATCH = 4096

# Import name → distribution: the project's own requirements, so that the corpus does not depend on what else there is.
PACKAGES = {
    "aiohttp": "aiohttp", "filelock": "filelock", "fsspec": "fsspec", "hydra": "hydra-core", "jinja2": "Jinja2",
    "lightning": "lightning", "lightning_fabric": "pytorch-lightning", "lightning_utilities": "lightning-utilities",
    "mpmath": "mpmath", "networkx": "networkx", "numpy": "numpy", "omegaconf": "omegaconf", "packaging": "packaging",
    "pytorch_lightning": "pytorch-lightning", "sympy": "sympy", "torch": "torch", "torchmetrics": "torchmetrics",
    "tqdm": "tqdm", "yaml": "PyYAML",
}  # fmt: skip

_SKIP = re.compile(
    r"(tests?|testing|_tests|test_.*|.*_test\.py|_pytest|benchmarks?|examples?"
    r"|_vendor|_vendored|vendored|site-packages|idlelib|lib2to3|turtledemo|ensurepip|__pycache__)(\.py)?"
)
_PROCESSES = 2  # 10 s on two cores, 16 s with one; the result is the same with any number
_FILES_PER_TASK = 256
_NEAR = 0.6  # Jaccard similarity of word 3-grams from which on two texts are one


class PyDocs(Source):
    """Find the documented function from the first sentence of its documentation.

    A query is a docstring's first sentence; its passage has the dotted name as title and the rest as text. Other
    versions of Python and of the packages give slightly other texts, but a name keeps its split. Sources are parsed,
    never imported. The first harvest takes 10 s; its result is cached.
    """

    licence = "that of each package, and Python's own"

    def __init__(self, stdlib: bool = True, cache: Path | str | None = None) -> None:
        super().__init__("pydocs")
        self.stdlib, self.cache = stdlib, Path(cache).expanduser() if cache else cache_folder()

    def corpus(self) -> Iterator[pa.RecordBatch]:
        return self._passages(self._pairs["body"])

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        """The passages with their first sentence in front, as a person wants to see and find them."""
        return self._passages(pc.binary_join_element_wise(self._pairs["summary"], self._pairs["body"], " "))

    def splits(self) -> tuple[str, ...]:
        return tuple(SPLITS)

    def queries(self, split: str) -> pa.Table:
        return pa.table(self._of_split(split).select(["query_id", "summary"]).columns, QUERIES)

    def qrels(self, split: str) -> pa.Table:
        ids = self._of_split(split).select(["query_id", "id"])
        return pa.table([*ids.columns, np.ones(len(ids), np.int32)], QRELS)

    def fingerprint(self) -> str:
        # No text holds a line break, so ("ab", "c") and ("a", "bc") differ.
        return key_of("pydocs", RULES, *("\n".join(column.to_pylist()) for column in self._pairs.columns))

    @cached_property
    def _pairs(self) -> pa.Table:
        """The harvest, sorted by name: rows of name, summary, body (cut to a passage's length)."""
        return pq.read_table(entry("pydocs", self._cache_key(), self._harvest, self.cache) / "pairs.parquet")

    def _cache_key(self) -> str:
        return key_of(RULES, sysconfig.get_python_version() if self.stdlib else "", *_versions())

    def _harvest(self, folder: Path) -> None:
        docs = _harvest(list(_source_files(self.stdlib)))
        if len(docs) < MIN_PAIRS:
            raise UserError(
                f"data=pydocs found only {len(docs)} documented names in the installed packages and needs "
                f"{MIN_PAIRS}, so their .py sources are missing or stripped: install the requirements from "
                "ordinary wheels, or choose other data, for example data=beir data.path=FOLDER"
            )
        rows = [doc._replace(body=" ".join(doc.body.split(" ")[:PASSAGE_WORDS]))._asdict() for doc in docs]
        pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet", compression="zstd")

    @cached_property
    def _ids(self) -> pa.Array:
        """The names; from its second occurrence on one with a number, ``name#2`` (overloads, one in 400)."""
        same = (enumerate(group, 1) for _, group in groupby(self._pairs["name"].to_pylist()))
        return pa.array([f"{name}#{i}" if i > 1 else name for group in same for i, name in group], pa.string())

    def _passages(self, texts: pa.ChunkedArray) -> Iterator[pa.RecordBatch]:
        table = pa.table([self._ids, self._pairs["name"], texts], CORPUS)
        yield from table.combine_chunks().to_batches(ROWS_PER_BATCH)

    def _of_split(self, split: str) -> pa.Table:
        if split not in SPLITS:
            raise self._no_split(split)
        query_ids = pc.binary_join_element_wise("q:", self._ids, "")
        own = [_split_of(name) == split for name in self._pairs["name"].to_pylist()]
        pairs = self._pairs.append_column("id", self._ids).append_column("query_id", query_ids)
        return pairs.filter(pa.array(own, pa.bool_()))


def _split_of(name: str) -> str:
    """A split that depends on the name alone: a pair keeps it when packages or versions change."""
    place = percentile(name)
    return "test" if place < 8 else "dev" if place < 12 else "train"


def _harvest(files: Sequence[tuple[str, str]]) -> list[Doc]:
    """The documented names of source files, (dotted module name, path) each, sorted by name; one of each text."""
    tasks, docs = [files[i : i + _FILES_PER_TASK] for i in range(0, len(files), _FILES_PER_TASK)], []
    title = "Reading the installed packages' documentation (once)"
    with ThreadPoolExecutor(_PROCESSES) as pool, counter(title, "files", len(files)) as progress:
        for task, found in zip(tasks, pool.map(_read, tasks), strict=True):
            docs += found
            progress(len(task))
    return sorted(drop_copies(docs), key=lambda doc: doc.name)


def _read(files: Sequence[tuple[str, str]]) -> list[Doc]:
    # A plain child process: multiprocessing would run the main script again in each child (spawn) or copy a
    # process full of the libraries' threads (fork).
    command = [sys.executable, "-I", "-S", "-W", "ignore", _docstrings.__file__]
    done = subprocess.run(command, input=json.dumps(files).encode(), stdout=subprocess.PIPE, check=True)
    return [Doc(*row) for row in json.loads(done.stdout)]


def _source_files(stdlib: bool) -> Iterator[tuple[str, str]]:
    """(dotted module name, path) of the sources of `PACKAGES` and the standard library, in a fixed order."""
    roots = [("", sysconfig.get_paths()["stdlib"])] if stdlib else []
    found = ((package, importlib.util.find_spec(package)) for package in sorted(PACKAGES))  # finds, does not import
    roots += [(package, os.path.dirname(spec.origin)) for package, spec in found if spec and spec.origin]
    for package, root in roots:
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(s for s in subfolders if s.isidentifier() and not _SKIP.fullmatch(s))
            for name in sorted(names):
                if name.endswith(".py") and not _SKIP.fullmatch(name):
                    path = Path(folder, name)
                    inner = path.relative_to(root).with_suffix("").parts
                    yield ".".join(filter(None, (package, *inner))).removesuffix(".__init__"), str(path)


def _versions() -> list[str]:
    found = []
    for distribution in sorted(set(PACKAGES.values())):
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{distribution}=={importlib.metadata.version(distribution)}")
    return found


def drop_copies(docs: Iterable[Doc]) -> list[Doc]:
    """One of each text, the one with the shortest path: ``pytorch_lightning.x``, not ``lightning.pytorch.x``.

    Copies have the same summary, the same start of the body, or most of their word 3-grams in common.
    """
    kept: list[Doc] = []
    seen: set[tuple[str, str]] = set()
    holders: dict[int, list[set[int]]] = defaultdict(list)  # 3-gram -> texts with it among their 8 smallest (min-hash)
    for doc in sorted(docs, key=lambda d: (d.name.count("."), len(d.name), d.name)):
        summary, body = (" ".join(words(text)).lower() for text in (doc.summary, doc.body))
        starts = {("summary", summary), ("body", body[:400])}
        if seen & starts:
            continue
        seen |= starts
        own = _shingles(f"{summary} {body}".split()[:140])
        smallest = sorted(own)[:8]
        rivals = (rival for gram in smallest for rival in holders[gram])
        if any(len(own & rival) / len(own | rival) >= _NEAR for rival in rivals):
            continue
        for gram in smallest:
            holders[gram].append(own)
        kept.append(doc)
    return kept


def _shingles(tokens: list[str]) -> set[int]:
    return {zlib.crc32(" ".join(tokens[i : i + 3]).encode()) for i in range(max(1, len(tokens) - 2))}
