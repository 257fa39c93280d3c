"""From vectors to a measured index on disk, and back."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from two_tower.cache import key_of
from two_tower.config import build, read, to_yaml
from two_tower.errors import UserError
from two_tower.files import file_hash, write_json, write_text
from two_tower.index._measure import K, Queries, Report, Sample, choose_search_value, exact_hits, measure
from two_tower.index.base import MEASURE_KEYS, VectorIndex
from two_tower.progress import Advance
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

log = logging.getLogger(__name__)


def make_index(
    folder: Path,
    config: Mapping[str, Any],
    store: VectorStore,
    similarity: Similarity,
    queries: Queries | None,
    progress: Advance | None = None,
) -> Report:
    """Build, save and measure an index; ``index.yaml`` appears last, so its presence means that it is whole.

    Args:
        folder: of the store, which is complete.
        config: the group ``index``.
        store: the vectors.
        similarity: how they are compared.
        queries: real queries to measure with; without any, documents are searched for.
        progress: called with the number of vectors added since the last call.
    """
    index, target, size = _built(config), config.get("target_recall"), config.get("sample", 1000)
    _check(target, size)
    (folder / "index.yaml").unlink(missing_ok=True)
    start = time.perf_counter()
    index.build(store, similarity, folder, progress)
    index.save(folder)
    seconds = time.perf_counter() - start
    sample = Sample.draw(store, queries, size)
    exact = exact_hits(store, similarity, sample)
    chosen, reached = None, None
    if target is not None and index.search_param:
        # Measured on the half that chose it, the recall would be flattering.
        half = len(sample) // 2
        reached = choose_search_value(index, sample[:half], exact[:half], target)
        chosen, sample, exact = index.search_value, sample[half:], exact[half:]
    recall, p50, p99 = measure(index, sample, exact)
    report = Report(
        vectors=store.manifest.rows,
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
    saved = {"index": dict(config), "search_value": chosen, "vectors": _identity(store)}
    write_text(folder / "index.yaml", to_yaml({**saved, "checksum": _checksum(index, folder)}))
    return report


def load_index(folder: Path, similarity: Similarity) -> VectorIndex:
    """The finished index in a folder.

    Raises:
        UserError: it is missing, damaged, or of other vectors than those in the folder.
    """
    saved = read(folder / "index.yaml")
    if not {"index", "search_value", "vectors", "checksum"} <= saved.keys():
        raise UserError(f"{folder / 'index.yaml'} is of another version of two_tower: run embed.py again.")
    if saved["vectors"] != _identity(VectorStore.open(folder)):
        raise UserError(f"The index in {folder} was made of other vectors than those beside it: run embed.py again.")
    index = _built(saved["index"])
    if _checksum(index, folder) != saved["checksum"]:  # FAISS reads a changed byte without a word
        raise UserError(f"{folder / index.file} is missing or damaged: run embed.py again.")
    index.load(folder, similarity)
    if saved["search_value"] is not None:
        index.set_search_value(saved["search_value"])
    return index


def is_made(folder: Path, config: Mapping[str, Any], similarity: Similarity) -> bool:
    """Whether the folder holds a whole index of this configuration."""
    try:
        return read(folder / "index.yaml").get("index") == dict(config) and bool(load_index(folder, similarity))
    except UserError:
        return False


def _built(config: Mapping[str, Any]) -> VectorIndex:
    index: VectorIndex = build("index", {key: value for key, value in config.items() if key not in MEASURE_KEYS})
    return index


def _check(target: float | None, size: int) -> None:
    if target is not None and not 0 < target <= 1:
        raise UserError(f"index.target_recall={target} must be above 0 and at most 1.")
    if size < 1:
        raise UserError(f"index.sample={size} must be at least 1.")


def _identity(store: VectorStore) -> str:
    """A digest of the store's vectors."""
    return key_of(*(shard.checksum for shard in store.manifest.shards.values()))


def _checksum(index: VectorIndex, folder: Path) -> str:
    """Of the index's file; empty if there is none."""
    path = folder / index.file
    return file_hash(path) if index.file and path.exists() else ""
