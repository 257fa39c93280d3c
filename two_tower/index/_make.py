"""From vectors to an index on disk whose recall (against exact search) and speed are measured, and back."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from two_tower.cache import key_of
from two_tower.config import build, read, to_yaml
from two_tower.console import Advance
from two_tower.errors import UserError
from two_tower.files import file_hash, read_json, write_json, write_text
from two_tower.index._copies import COPIES, Copies, DistinctVectors
from two_tower.index.base import MEASURE_KEYS, SECRETS, VectorIndex
from two_tower.index.faiss import faiss_threads
from two_tower.ranking import nearest
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

log = logging.getLogger(__name__)

K = 10
TOLERANCE = 1e-5  # of scores in float32 that are computed in another order, and of distances, whose squares cancel
LATENCY_QUERIES, LATENCY_SECONDS = (30, 300), 1.0  # at least and at most; no more than that once the time is over
STANDARD_ERRORS = 2.33  # above the target: then 99 of 100 samples of other queries reach it

Queries = tuple[np.ndarray, str]  # vectors (B, D) of queries, and a description of them in the plural


@dataclass(frozen=True)
class Report:
    """The figures of a build, as ``report.json`` has them."""

    vectors: int  # how many
    structure: str
    bytes: int  # on disk
    build_seconds: float
    recall: float  # share of the exact 10 nearest among the 10 found, mean over the queries
    p50_ms: float  # milliseconds of a single query on one thread: the median,
    p99_ms: float  # and the 99th percentile
    queries: str  # how many of which kind
    search_param: str = ""  # index.KEY=VALUE; empty for exact search
    target_reached: bool | None = None  # None without a target

    def __str__(self) -> str:
        param = f" with {self.search_param}" if self.search_param else ""
        size = f"{self.vectors:,} vectors as {self.structure}, {self.bytes / 1e6:.1f} MB"
        return (
            f"{size}, built in {self.build_seconds:.1f} s.\nrecall@{K} {self.recall:.3f}{param}, a query takes "
            f"{self.p50_ms:.2f} ms (p99 {self.p99_ms:.2f} ms) on one thread; measured with {self.queries}."
        )


@dataclass(frozen=True)
class Sample:
    """Queries to measure an index with."""

    vectors: np.ndarray  # (B, D) float32
    kind: str  # what they are, in the plural
    own_rows: np.ndarray | None = None  # (B,) int64: where the queries are documents, the rows to leave out of the hits

    @classmethod
    def draw(cls, store: VectorStore, queries: Queries | None, size: int) -> Sample:
        """At most ``size`` real queries; without any, documents, each of which then looks for others than itself."""
        if queries is not None and len(queries[0]):
            vectors, kind = queries
            return cls(vectors[np.sort(np.random.default_rng(0).permutation(len(vectors))[:size])], kind)
        vectors, rows = store.sample(min(size, store.rows), seed=0)
        return cls(vectors, "passages as queries (each looks for the others)", rows)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, part: slice) -> Sample:
        return Sample(self.vectors[part], self.kind, None if self.own_rows is None else self.own_rows[part])

    @property
    def k(self) -> int:
        """How many hits to ask for, to be left with `K`."""
        return K if self.own_rows is None else K + 1

    def without_own(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(B, K) of the hits' ``values`` (B, `k`): without those of the query's own row, else of the last hit."""
        if self.own_rows is None or not rows.shape[1]:
            return values
        keep = rows != self.own_rows[:, None]
        keep[keep.all(axis=1), -1] = False
        return values[keep].reshape(len(rows), -1)


def make_index(
    config: Mapping[str, Any],
    store: VectorStore,
    queries: Queries | None,
    progress: Advance | None = None,
    earlier: Path | None = None,
) -> Report:
    """Build, save and measure an index of a complete store, in its folder; ``config`` is the group ``index``.

    ``earlier`` is the folder of the index that this one will replace; it is taken over if nothing that counts is new.
    ``index.yaml`` appears last, so its presence means that the index is whole.
    """
    index, folder = _built(config), store.path
    target, size = config.get("target_recall"), config.get("sample", 1000)
    if target is not None and not 0 < target <= 1:
        raise UserError(f"index.target_recall={target} must be above 0 and at most 1.")
    if size < 1:
        raise UserError(f"index.sample={size} must be at least 1.")
    (folder / "index.yaml").unlink(missing_ok=True)
    if earlier is not None:
        for name in index.carried:
            _copy(earlier / name, folder)
        if index.file and _serves(earlier, store) and is_made(earlier, config):
            for name in (index.file, COPIES, "report.json", "index.yaml"):
                _copy(earlier / name, folder)
            return Report(**read_json(folder / "report.json"))
    start = time.perf_counter()
    (folder / COPIES).unlink(missing_ok=True)
    copies = index.copies = Copies.find(store)
    index.build(store if copies is None else DistinctVectors(store, copies), progress)
    index.save(folder)
    if copies is not None:
        copies.save(folder)
        _warn_of_crowd(copies, store)
    seconds = time.perf_counter() - start
    sample = Sample.draw(store, queries, size)
    exact = exact_hits(store, sample)
    chosen, reached = None, None
    if target is not None and index.search_param:
        # Measured on the half that chose it, the recall would be flattering.
        half = len(sample) // 2
        reached = choose_search_value(index, store, sample[:half], exact[:half], target)
        chosen, sample, exact = index.search_value, sample[half:], exact[half:]
    recall, p50, p99 = _measure(index, store, sample, exact)
    report = Report(
        vectors=store.rows,
        structure=index.structure,
        bytes=index.size(folder),
        build_seconds=seconds,
        recall=recall,
        p50_ms=p50,
        p99_ms=p99,
        queries=f"{len(sample):,} {sample.kind}",
        search_param=f"index.{index.search_param}={index.search_value}" if index.search_param else "",
        target_reached=reached,
    )
    if reached is False:
        message = "index.target_recall=%g is not reached: recall@%d is %.3f with the best value, %s."
        log.warning(message, target, K, recall, report.search_param)
    write_json(folder / "report.json", vars(report))
    saved = {"index": _written(config), "search_value": chosen, "vectors": _identity(store)}
    write_text(folder / "index.yaml", to_yaml({**saved, "checksum": _checksum(index, folder)}))
    return report


def load_index(folder: Path) -> VectorIndex:
    """The finished index in a folder; a UserError if it is missing, damaged, or of other vectors than those there."""
    saved = read(folder / "index.yaml")
    if not ({"search_value", "vectors", "checksum"} <= saved.keys() and isinstance(saved.get("index"), dict)):
        raise UserError(f"{folder / 'index.yaml'} is of another version of two_tower: run embed.py again.")
    store = VectorStore.open(folder)
    if saved["vectors"] != _identity(store):
        raise UserError(f"The index in {folder} was made of other vectors than those beside it: run embed.py again.")
    index = _built(saved["index"])
    if _checksum(index, folder) != saved["checksum"]:  # FAISS reads a changed byte without a word
        raise UserError(f"{folder / index.file} is missing or damaged: run embed.py again.")
    index.load(folder, Similarity(store.manifest.similarity))
    index.copies = Copies.load(folder)
    if saved["search_value"] is not None:
        index.set_search_value(saved["search_value"])
    return index


def is_made(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds a whole index of this configuration."""
    try:
        return read(folder / "index.yaml").get("index") == _written(config) and bool(load_index(folder))
    except UserError:
        return False


def _serves(earlier: Path, store: VectorStore) -> bool:
    """Whether the index in a folder is one of these vectors and ids too."""
    its = VectorStore.open(earlier)
    return its.manifest.complete and _identity(its) == _identity(store) and its.ids().equals(store.ids())


def _written(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in SECRETS}


def _copy(path: Path, folder: Path) -> None:
    if path.is_file():
        shutil.copy(path, folder)
    elif path.is_dir():
        shutil.rmtree(folder / path.name, ignore_errors=True)
        shutil.copytree(path, folder / path.name)


def _built(config: Mapping[str, Any]) -> VectorIndex:
    index: VectorIndex = build("index", {key: value for key, value in config.items() if key not in MEASURE_KEYS})
    return index


def _identity(store: VectorStore) -> str:
    """A digest of the store's vectors."""
    return key_of(*(shard.checksum for shard in store.manifest.shards.values()))


def _checksum(index: VectorIndex, folder: Path) -> str:
    """Of the index's file; empty if there is none."""
    path = folder / index.file
    return file_hash(path) if index.file and path.exists() else ""


def _warn_of_crowd(copies: Copies, store: VectorStore) -> None:
    sizes = np.diff(copies.starts)
    if sizes.max() > K:
        example = store.passages([int(copies.rows[copies.starts[sizes.argmax()]])])[0]["id"]
        log.warning(
            f"{sizes.max():,} of {store.rows:,} passages have one vector, that of {example}: copies of a text, or "
            "texts without a known word. A search that finds them shows those with the largest ids only; "
            "two-tower data inspect says more."
        )


def exact_hits(store: VectorStore, sample: Sample) -> np.ndarray:
    """(B, 10) float32 scores of the nearest documents, comparing with all, shard by shard."""
    start, q_BD, similarity = 0, torch.from_numpy(sample.vectors), Similarity(store.manifest.similarity)
    scores, rows = np.empty((len(sample), 0), np.float32), np.empty((len(sample), 0), np.int64)
    for vectors in store.vectors():

        def block(part: slice, vectors: np.ndarray = vectors) -> torch.Tensor:
            return torch.from_numpy(np.array(vectors[part], np.float32))

        count = len(vectors)
        found = nearest(q_BD, block, count, similarity, order=np.arange(count), k=min(sample.k, count))
        scores, rows = np.hstack([scores, found.scores]), np.hstack([rows, found.rows + start])
        best = np.argsort(-scores, axis=1, kind="stable")[:, : sample.k]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        start += count
    return sample.without_own(rows, scores)


def recalls(store: VectorStore, sample: Sample, rows: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """(B,) share of the exact (B, k) best scores that the rows found, (B, n) int64, reach; 1 where there are none.

    Of documents that are equally near any will do. The scores are computed anew, since an index may round them.
    """
    if not exact.size:
        return np.ones(1)
    similarity, shares = Similarity(store.manifest.similarity), np.zeros(len(rows))
    different, places = np.unique(rows, return_inverse=True)
    vectors, places = torch.from_numpy(store.take(np.maximum(different, 0))), places.reshape(rows.shape)
    for i, found in enumerate(rows):
        query = torch.from_numpy(sample.vectors[i : i + 1])
        scores = similarity.scores(query, vectors[torch.from_numpy(places[i, found >= 0])])[0].numpy()
        last = exact[i].min()
        shares[i] = min((scores >= last - TOLERANCE * max(1, abs(last))).sum(), exact.shape[1]) / exact.shape[1]
    return shares


def _recalls(index: VectorIndex, store: VectorStore, sample: Sample, exact: np.ndarray) -> np.ndarray:
    rows = index.search(sample.vectors, sample.k)[1]
    return recalls(store, sample, sample.without_own(rows, rows), exact)


def choose_search_value(
    index: VectorIndex, store: VectorStore, sample: Sample, exact: np.ndarray, target: float
) -> bool:
    """Set the smallest search value whose recall is above the target by `STANDARD_ERRORS`, else the best value.

    Returns whether the recall on these queries is at least the target.
    """
    means: dict[int, float] = {}
    for value in index.search_values:
        index.set_search_value(value)
        shares = _recalls(index, store, sample, exact)
        means[value] = float(shares.mean())
        if means[value] - STANDARD_ERRORS * shares.std() / np.sqrt(len(shares)) >= target:
            return True
    best = max(means, key=lambda value: means[value])  # the smallest of equals
    index.set_search_value(best)
    return means[best] >= target


def _measure(index: VectorIndex, store: VectorStore, sample: Sample, exact: np.ndarray) -> tuple[float, float, float]:
    """Recall, and the median and the 99th percentile of a single query's milliseconds on one thread."""
    recall = float(_recalls(index, store, sample, exact).mean())
    times = list[float]()
    fewest, most = LATENCY_QUERIES
    with faiss_threads(1):
        for query in sample.vectors[:most]:
            start = time.perf_counter()
            index.search(query[None], K)
            times.append(1000 * (time.perf_counter() - start))
            if len(times) >= fewest and sum(times) >= 1000 * LATENCY_SECONDS:
                break
    return recall, float(np.percentile(times, 50)), float(np.percentile(times, 99))
