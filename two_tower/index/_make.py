"""From vectors to an index that says what it is worth."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from two_tower.config import build, read, to_yaml
from two_tower.errors import UserError
from two_tower.files import write_json, write_text
from two_tower.index._measure import K, Report, choose_effort, exact, measure
from two_tower.index._sample import Queries, Sample, sample
from two_tower.index.base import Progress, VectorIndex
from two_tower.similarity import Similarity
from two_tower.store import VectorStore, checksum

__all__ = ["Queries", "is_made", "load_index", "make_index"]

log = logging.getLogger(__name__)

SAMPLE = 1000
# Keys of the group that are not the index's own.
_OURS = ("target_recall", "sample")


def _made(config: Mapping[str, Any]) -> VectorIndex:
    made: VectorIndex = build("index", {key: value for key, value in config.items() if key not in _OURS})
    return made


def _of(store: VectorStore) -> str:
    """Identifies the vectors of a store."""
    sums = "".join(shard.checksum for shard in store.manifest.shards.values())
    return hashlib.blake2b(sums.encode(), digest_size=16).hexdigest()


def load_index(folder: Path, similarity: Similarity) -> VectorIndex:
    """The finished index in a folder.

    Raises:
        UserError: it is missing, damaged, or of other vectors than those in the folder.
    """
    kept = read(folder / "index.yaml")
    if not {"index", "effort", "vectors", "checksum"} <= kept.keys():
        raise UserError(f"{folder / 'index.yaml'} is of another version of two_tower: run embed.py again.")
    if kept["vectors"] != _of(VectorStore.open(folder)):
        raise UserError(f"The index in {folder} was made of other vectors than those beside it: run embed.py again.")
    index = _made(kept["index"])
    if _checksum(index, folder) != kept["checksum"]:  # FAISS reads a changed byte without a word
        raise UserError(f"{folder / index.file} is missing or damaged: run embed.py again.")
    index.load(folder, similarity)
    if kept["effort"] is not None:
        index.set_effort(kept["effort"])
    return index


def _checksum(index: VectorIndex, folder: Path) -> str:
    """Of the index's file; empty where it is missing or there is none."""
    path = folder / index.file
    return checksum(path) if index.file and path.exists() else ""


def is_made(folder: Path, config: Mapping[str, Any], similarity: Similarity) -> bool:
    """Whether the folder holds a whole index of this configuration."""
    try:
        return read(folder / "index.yaml").get("index") == dict(config) and bool(load_index(folder, similarity))
    except UserError:
        return False


def make_index(
    folder: Path,
    config: Mapping[str, Any],
    store: VectorStore,
    similarity: Similarity,
    queries: Queries | None,
    progress: Progress | None = None,
) -> Report:
    """Build, measure and save an index; ``index.yaml`` appears last, so its presence means that it is whole.

    Args:
        folder: of the store.
        config: the group ``index``: the index's own keys, and ``target_recall``, the recall@10 for which the search's
            effort is chosen, or None; ``sample``, queries to measure with.
        store: complete.
        similarity: what vectors are compared by.
        queries: vectors of real queries; without any, documents are searched for.
        progress: called with the number of vectors added since the last call.

    Raises:
        UserError: the index refuses its settings.
    """
    index, target, count = _made(config), config.get("target_recall"), config.get("sample", SAMPLE)
    _check(target, count)
    (folder / "index.yaml").unlink(missing_ok=True)
    start = time.perf_counter()
    index.build(store, similarity, folder, progress)
    index.save(folder)
    seconds = time.perf_counter() - start
    asked = sample(store, queries, count)
    wanted = exact(store, similarity, asked)
    effort, reached, rest = None, None, slice(None)
    if target is not None and index.grid:
        # The half that the effort is chosen on would flatter it.
        half = len(asked) // 2
        effort = choose_effort(index, asked[:half], wanted[:half], target)
        reached, rest = effort is not None, slice(half, None)
        effort = getattr(index, index.name)
    report = _report(index, store, folder, seconds, measure(index, asked[rest], wanted[rest]), asked[rest], reached)
    if reached is False:
        message = "index.target_recall=%g is not reached: recall@%d is %.3f with the best effort, %s."
        log.warning(message, target, K, report.recall, report.effort)
    write_json(folder / "report.json", report.to_dict())
    kept = {"index": dict(config), "effort": effort, "vectors": _of(store), "checksum": _checksum(index, folder)}
    write_text(folder / "index.yaml", to_yaml(kept))
    return report


def _check(target: float | None, count: int) -> None:
    if target is not None and not 0 < target <= 1:
        raise UserError(f"index.target_recall={target} must be above 0 and at most 1.")
    if count < 1:
        raise UserError(f"index.sample={count} must be at least 1.")


def _report(
    index: VectorIndex,
    store: VectorStore,
    folder: Path,
    seconds: float,
    measured: tuple[float, float, float],
    asked: Sample,
    reached: bool | None,
) -> Report:
    share, p50, p99 = measured
    return Report(
        vectors=store.manifest.rows,
        structure=index.structure,
        bytes=index.size(folder),
        build_seconds=seconds,
        recall=share,
        p50_ms=p50,
        p99_ms=p99,
        queries=f"{len(asked):,} {asked.which}",
        effort=f"index.{index.name}={getattr(index, index.name)}" if index.name else "",
        target_reached=reached,
    )
