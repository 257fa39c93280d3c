"""FAISS: exact and approximate indexes, in memory or mapped from disk, on a GPU if asked for."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch

import faiss  # isort: skip (on macOS both bring OpenMP, and faiss must come after torch)

from two_tower.console import Advance
from two_tower.errors import UserError, at_least, printable
from two_tower.files import atomic_path
from two_tower.index.base import VectorIndex
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

log = logging.getLogger(__name__)

Storage: TypeAlias = Literal["int8", "float16", "float32"]
STORED: dict[Storage, str] = {"int8": "SQ8", "float16": "SQfp16", "float32": "Flat"}  # FAISS's names

TRAINING_PER_LIST = 64
MAX_TRAINING = 1_000_000
SEED = 1234
BLOCK = 16_384  # vectors added at once: between two blocks, progress shows and Ctrl-C works
MIN_PER_LIST = 39  # with fewer vectors per centre, FAISS warns
MIN_FOR_PQ = 1000  # with fewer vectors, quantization gains nothing


class FaissIndex(VectorIndex):
    """What all FAISS indexes share; a subclass gives the factory string. The file is the same with and without GPU."""

    file: ClassVar[str] = "index.faiss"
    faiss_name: ClassVar[str] = ""  # FAISS's own name of `search_param`

    def __init__(self, gpu: bool = False) -> None:
        if gpu:
            _gpu_resources()
        self._gpu = gpu
        self._index: Any = None
        self._similarity = Similarity()

    @abstractmethod
    def factory(self, rows: int, dim: int) -> str:
        """FAISS's description of an index of ``rows`` vectors of ``dim`` dimensions."""

    def build(self, store: VectorStore, progress: Advance | None = None) -> None:
        self._similarity = Similarity(store.manifest.similarity)
        rows, dim = store.rows, store.manifest.dim
        metric = faiss.METRIC_L2 if self._similarity.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.structure = self.factory(rows, dim)
        try:
            index = faiss.index_factory(dim, self.structure, metric)
            self._prepare(index)
            index = self._on_device(index)
            if not index.is_trained:
                nlist = int(getattr(index, "nlist", 0)) or 1024
                training_rows = min(rows, TRAINING_PER_LIST * max(256, nlist), MAX_TRAINING)
                index.train(store.sample(training_rows, SEED)[0])
            if not self._gpu:
                _reserve(index, rows)
            for vectors in store.vectors():
                for start in range(0, len(vectors), BLOCK):
                    block = np.ascontiguousarray(vectors[start : start + BLOCK], np.float32)
                    index.add(block)
                    if progress:
                        progress(len(block))
        except RuntimeError as error:
            what = f"{self.structure!r} for {rows:,} vectors of {dim} dimensions"
            raise UserError(f"FAISS refuses {what}: {_reason(error)}.") from error
        self._index = index
        self._apply()

    def _prepare(self, index: Any) -> None:  # noqa: ANN401
        """Settings that must come before the first vector."""

    def _on_device(self, index: Any) -> Any:  # noqa: ANN401
        if not self._gpu:
            return index
        self._resources = _gpu_resources()
        return faiss.index_cpu_to_gpu(self._resources, 0, index)

    def set_search_value(self, value: int) -> None:
        super().set_search_value(value)
        self._apply()

    def _apply(self) -> None:
        # Pass the search parameter on.
        if self.faiss_name:
            space = faiss.GpuParameterSpace() if self._gpu else faiss.ParameterSpace()
            space.set_index_parameter(self._index, self.faiss_name, getattr(self, self.search_param))

    def save(self, folder: Path) -> None:
        index = faiss.index_gpu_to_cpu(self._index) if self._gpu else self._index
        with atomic_path(folder / self.file) as temporary:
            faiss.write_index(index, str(temporary))

    def load(self, folder: Path, similarity: Similarity) -> None:
        try:  # memory-mapped, except for a GPU
            index = faiss.read_index(str(folder / self.file), 0 if self._gpu else faiss.IO_FLAG_MMAP)
        except (RuntimeError, MemoryError, TypeError) as error:  # the last for a path that is not UTF-8
            place = printable(str(folder / self.file))
            raise UserError(f"{place} is missing or damaged: run embed.py again.") from error
        self._index, self._similarity = self._on_device(index), similarity
        self._apply()

    def _search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, int(self._index.ntotal))
        if not len(q_BD):
            return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
        with faiss_threads(len(q_BD)):  # one query among 31,000 vectors takes 1.7 ms with one thread, 4.9 ms with two
            distances, rows = self._index.search(np.ascontiguousarray(q_BD, np.float32), k)
        scores = self._similarity.from_distance(torch.from_numpy(distances)).numpy()
        return np.where(rows >= 0, scores, np.float32(-np.inf)), rows


class FlatIndex(FaissIndex):
    """Compares the query with every document: exact."""

    exact = True

    def factory(self, rows: int, dim: int) -> str:
        return "Flat"


class HnswIndex(FaissIndex):
    """A graph of near neighbours (Malkov and Yashunin 2018, arXiv:1603.09320)."""

    search_param, faiss_name = "ef_search", "efSearch"
    search_values = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

    # No gpu: FAISS has no such graph there.
    def __init__(
        self, m: int = 32, ef_construction: int = 200, ef_search: int = 64, dtype: Storage = "float16"
    ) -> None:
        super().__init__()
        at_least(2, m=m)  # with fewer, FAISS ends the process
        at_least(1, ef_construction=ef_construction, ef_search=ef_search)
        self.m, self.ef_construction, self.ef_search = m, ef_construction, ef_search
        self.dtype = dtype

    def factory(self, rows: int, dim: int) -> str:
        return f"HNSW{self.m},{STORED[self.dtype]}"

    def _prepare(self, index: Any) -> None:  # noqa: ANN401
        index.hnsw.efConstruction = self.ef_construction


class IvfIndex(FaissIndex):
    """Inverted lists: each vector belongs to its nearest centre, and a search reads ``nprobe`` of ``nlist`` lists."""

    search_param = faiss_name = "nprobe"
    search_values = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)

    def __init__(
        self, nlist: int | None = None, nprobe: int = 16, gpu: bool = False, dtype: Storage = "float16"
    ) -> None:
        super().__init__(gpu)
        at_least(1, nlist=nlist, nprobe=nprobe)
        self.nlist, self.nprobe, self.dtype = nlist, nprobe, dtype

    def factory(self, rows: int, dim: int) -> str:
        return f"IVF{self._lists(rows)},{STORED[self.dtype]}"

    def _prepare(self, index: Any) -> None:  # noqa: ANN401
        self.search_values = (*(value for value in type(self).search_values if value < index.nlist), index.nlist)
        if hasattr(index, "do_polysemous_training"):  # takes most of the time, for searches that are not made here
            index.do_polysemous_training = False

    def _lists(self, rows: int) -> int:
        limit = max(1, rows // MIN_PER_LIST)
        if self.nlist is not None and self.nlist > limit:
            log.warning("index.nlist=%d is too many for %s vectors: %d lists.", self.nlist, f"{rows:,}", limit)
        return min(self.nlist or round(4 * math.sqrt(rows)), limit)


class IvfPqIndex(IvfIndex):
    """`IvfIndex` with each vector in ``pq_m`` sub-vectors of a byte (product quantization, Jégou et al. 2011)."""

    def __init__(self, nlist: int | None = None, nprobe: int = 32, pq_m: int | None = None, gpu: bool = False) -> None:
        super().__init__(nlist, nprobe, gpu)
        at_least(1, pq_m=pq_m)
        self.pq_m = pq_m

    def factory(self, rows: int, dim: int) -> str:
        """Fewer bits for each sub-vector where there are too few vectors for 256 centres; below 1,000 no PQ at all."""
        pq_m = self.pq_m or max(m for m in range(1, max(1, dim // 4) + 1) if dim % m == 0)
        if dim % pq_m:
            raise UserError(f"index.pq_m={pq_m} must divide the {dim} dimensions of the vectors.")
        if rows < MIN_FOR_PQ:
            return super().factory(rows, dim)
        bits = max(1, min(8, int(math.log2(max(2, rows / MIN_PER_LIST)))))
        return f"IVF{self._lists(rows)},PQ{pq_m}x{bits}"


class FactoryIndex(FaissIndex):
    """Whatever FAISS's factory strings describe; ``parameters`` are FAISS's own for the search, separated by commas."""

    def __init__(self, factory_string: str = "Flat", parameters: str = "", gpu: bool = False) -> None:
        super().__init__(gpu)
        self.factory_string, self.parameters = factory_string, parameters

    def factory(self, rows: int, dim: int) -> str:
        return self.factory_string

    def _apply(self) -> None:
        try:
            if self.parameters:
                faiss.ParameterSpace().set_index_parameters(self._index, self.parameters)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise UserError(f"index.parameters={self.parameters} is refused by FAISS: {_reason(error)}.") from error


@contextmanager
def faiss_threads(maximum: int) -> Iterator[None]:
    """Let FAISS use fewer threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, maximum))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _reserve(index: Any, rows: int) -> None:  # noqa: ANN401
    """Make room for so many vectors: growing, an array is there twice, the old one and one of twice its size."""
    array: Any = faiss.downcast_index(getattr(index, "storage", index))
    if hasattr(array, "codes"):
        array.codes.resize(rows * array.code_size)
        array.codes.resize(0)


def _gpu_resources() -> Any:  # noqa: ANN401
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise ValueError("gpu=true needs faiss-gpu and a GPU: install it in place of faiss-cpu, or leave it out.")
    return faiss.StandardGpuResources()


def _reason(error: RuntimeError) -> str:
    """FAISS's message without the place in its source."""
    return str(error).split("failed: ")[-1].splitlines()[0].rstrip(".")
