"""FAISS: exact and approximate indexes, in memory or mapped from disk, on a GPU by switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from two_tower.errors import UserError
from two_tower.files import atomic_path
from two_tower.index._sample import drawn
from two_tower.index.base import Progress, VectorIndex
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

__all__ = ["FaissIndex", "reason"]

# Vectors per list that a training reads.
PER_LIST = 64
MOST_TRAINING = 1_000_000
SEED = 1234
BLOCK = 16_384  # vectors added at once: between two, progress shows and Ctrl-C works


class FaissIndex(VectorIndex):
    """What all FAISS indexes have in common; a subclass says by which factory string they are made.

    Args:
        gpu: build and search on the first GPU; needs faiss-gpu. The file is the same.

    Raises:
        UserError: ``gpu`` where the installed FAISS has none.
    """

    file: ClassVar[str] = "index.faiss"
    # FAISS's name of the search parameter that trades speed for recall; none for exact search.
    knob: ClassVar[str] = ""

    def __init__(self, gpu: bool = False) -> None:
        if gpu:
            _gpu_resources()
        self._gpu = gpu
        self._index: Any = None
        self._similarity = Similarity()

    def factory(self, rows: int, dim: int) -> str:
        """The string from which FAISS makes an index of ``rows`` vectors of ``dim`` dimensions."""
        raise NotImplementedError

    def build(self, store: VectorStore, similarity: Similarity, folder: Path, progress: Progress | None = None) -> None:
        """Train on a sample where that is needed, then add all vectors.

        Raises:
            UserError: FAISS refuses the factory string or its sizes.
        """
        import faiss  # late: on macOS faiss and torch both bring OpenMP, and faiss must come second

        self._similarity = similarity
        rows, dim = store.manifest.rows, store.manifest.dim
        metric = faiss.METRIC_L2 if similarity.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.structure = self.factory(rows, dim)
        try:
            index = faiss.index_factory(dim, self.structure, metric)
            self._prepare(index)
            index = self._on_device(index)
            if not index.is_trained:
                index.train(drawn(store, _training_rows(index, rows), SEED)[0])
            for block in _blocks(store):
                index.add(block)
                if progress:
                    progress(len(block))
        except RuntimeError as error:
            what = f"{self.structure!r} for {rows:,} vectors of {dim}"
            raise UserError(f"FAISS refuses {what}: {reason(error)}.") from error
        self._index = index
        self._apply()

    def _prepare(self, index: Any) -> None:  # noqa: ANN401
        """Settings that must come before the first vector."""

    def _on_device(self, index: Any) -> Any:  # noqa: ANN401
        if not self._gpu:
            return index
        import faiss

        self._resources = _gpu_resources()
        return faiss.index_cpu_to_gpu(self._resources, 0, index)

    def set_effort(self, value: int) -> None:
        """Search with another value of `knob`: more is slower and finds more."""
        setattr(self, self.name, value)
        self._apply()

    def _apply(self) -> None:
        import faiss

        if self.knob:
            space = faiss.GpuParameterSpace() if self._gpu else faiss.ParameterSpace()
            space.set_index_parameter(self._index, self.knob, getattr(self, self.name))

    def save(self, folder: Path) -> None:
        """Write ``index.faiss``."""
        import faiss

        index = faiss.index_gpu_to_cpu(self._index) if self._gpu else self._index
        with atomic_path(folder / self.file) as temporary:
            faiss.write_index(index, str(temporary))

    def load(self, folder: Path, similarity: Similarity) -> None:
        """Read ``index.faiss``; memory-mapped, except on a GPU.

        Raises:
            UserError: it is missing or damaged.
        """
        import faiss

        try:
            index = faiss.read_index(str(folder / self.file), 0 if self._gpu else faiss.IO_FLAG_MMAP)
        except (RuntimeError, MemoryError) as error:
            raise UserError(f"{folder / self.file} is missing or damaged: run embed.py again.") from error
        self._index, self._similarity = self._on_device(index), similarity
        self._apply()

    @property
    def rows(self) -> int:
        """Vectors in the index."""
        return int(self._index.ntotal)

    def search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `VectorIndex.search`."""
        k = min(k, self.rows)
        if not len(q_BD):
            return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
        with _threads(len(q_BD)):
            found, rows = self._index.search(np.ascontiguousarray(q_BD, np.float32), k)
        scores = self._similarity.from_distance(torch.from_numpy(found)).numpy()
        return np.where(rows >= 0, scores, np.float32(-np.inf)), rows


@contextmanager
def _threads(queries: int) -> Iterator[None]:
    """No more threads than queries: one query among 31,000 vectors takes 1.7 ms with one thread, 4.9 with two."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(threads, queries))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _blocks(store: VectorStore) -> Iterator[np.ndarray]:
    for vectors in store.vectors():
        for start in range(0, len(vectors), BLOCK):
            yield np.ascontiguousarray(vectors[start : start + BLOCK], np.float32)


def _training_rows(index: Any, rows: int) -> int:  # noqa: ANN401
    lists = int(getattr(index, "nlist", 0)) or 1024
    return min(rows, max(256 * PER_LIST, lists * PER_LIST), MOST_TRAINING)


def _gpu_resources() -> Any:  # noqa: ANN401
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise UserError("index.gpu=true needs faiss-gpu and a GPU: install it in place of faiss-cpu, or leave it out.")
    return faiss.StandardGpuResources()


def reason(error: RuntimeError) -> str:
    """FAISS's own words without the place in its source."""
    return str(error).split("failed: ")[-1].splitlines()[0].rstrip(".")
