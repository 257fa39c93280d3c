"""Word vectors as the rows of a matrix, their words in another file: .npy, PyTorch's files, safetensors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from two_tower.embedding.reading.file import Block, VectorFile, count_bad
from two_tower.errors import BadRows, UserError, one_of

__all__ = ["MatrixVectors", "npy_vectors", "safetensors_vectors", "torch_vectors"]

_BLOCK_ROWS = 1 << 16

# Where training scripts put the weights among other things.
_STATES = ("state_dict", "model_state_dict", "model")


class MatrixVectors(VectorFile):
    """A matrix in a file, and the words of its rows.

    Args:
        path: the matrix' file.
        words: row → word; a row without one is left out.
        dim: dimensions of a vector.
        rows: gives rows (k,) of the matrix, (k, D) float32.
    """

    def __init__(
        self, path: Path, words: Mapping[int, str], dim: int, rows: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        super().__init__(path, dim)
        self._words, self._rows = words, rows

    def blocks(self, bad: BadRows) -> Iterator[Block]:
        """See `VectorFile.blocks`."""
        end = max(self._words) + 1
        for start in range(0, end, _BLOCK_ROWS):
            words = [self._words.get(row, "") for row in range(start, min(start + _BLOCK_ROWS, end))]
            yield Block(words, partial(self._vectors, start, bad))

    def _vectors(self, start: int, bad: BadRows, wanted: np.ndarray) -> np.ndarray:
        rows = start + wanted
        return count_bad(self._rows(rows), (rows + 1).tolist(), self.path, bad)


def npy_vectors(path: Path, words: Mapping[int, str]) -> MatrixVectors:
    """A matrix that NumPy saved.

    Raises:
        UserError: it is none, or has another number of rows than there are words.
    """
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a matrix of numbers: {str(error).splitlines()[0]}.") from error
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise UserError(f"{path} holds {matrix.dtype} of shape {matrix.shape}: a matrix of numbers is needed.")
    if len(matrix) != max(words) + 1:
        raise UserError(f"{path} has {len(matrix)} rows and embedding.vocabulary {max(words) + 1} words: use a pair.")
    return MatrixVectors(path, words, matrix.shape[1], lambda rows: matrix[rows].astype(np.float32))


@dataclass(frozen=True)
class _Candidate:
    """A tensor of a file: its shape, and how to get it."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]


def torch_vectors(path: Path, words: Mapping[int, str], name: str | None) -> MatrixVectors:
    """A matrix in a file of `torch.save`: a state, a checkpoint that holds one, or the tensor alone.

    Raises:
        UserError: the file holds other things than plain data, or not one fitting matrix.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises whatever its unpickler met
        raise UserError(
            f"{path} cannot be read as tensors alone, and reading more could run code that is in it: "
            "save the weights by themselves with torch.save(model.state_dict(), FILE)."
        ) from error
    return _vectors(path, words, name, _matrices(_state(loaded)))


def _state(loaded: Any) -> Mapping[str, Any]:  # noqa: ANN401
    if not isinstance(loaded, Mapping):
        return {"tensor": loaded}
    return next((loaded[key] for key in _STATES if isinstance(loaded.get(key), Mapping)), loaded)


def _matrices(state: Mapping[str, Any]) -> dict[str, _Candidate]:
    """The matrices of a state; of those that share their memory only the first, as shared towers do."""
    matrices: dict[tuple[int, torch.Size], str] = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point():
            matrices.setdefault((value.data_ptr(), value.shape), name)
    return {name: _Candidate(tuple(state[name].shape), partial(state.__getitem__, name)) for name in matrices.values()}


def safetensors_vectors(path: Path, words: Mapping[int, str], name: str | None) -> MatrixVectors:
    """A matrix in a safetensors file.

    Raises:
        UserError: the file is damaged, or holds not one fitting matrix.
    """
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="pt").__enter__()  # stays open: tensors are read when they are needed
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}.") from error
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    matrices = {
        key: _Candidate(shape, partial(file.get_tensor, key)) for key, shape in shapes.items() if len(shape) == 2
    }
    return _vectors(path, words, name, matrices)


def _vectors(path: Path, words: Mapping[int, str], name: str | None, matrices: dict[str, _Candidate]) -> MatrixVectors:
    chosen = matrices[_chosen(path, max(words) + 1, name, matrices)]
    matrix = chosen.load()
    return MatrixVectors(path, words, chosen.shape[1], lambda rows: matrix[torch.from_numpy(rows)].float().numpy())


def _chosen(path: Path, rows: int, name: str | None, matrices: dict[str, _Candidate]) -> str:
    """The name of the matrix with a row per word; one that was asked for may have more rows, for padding."""
    if name is not None:
        if name not in matrices:
            raise UserError(f"embedding.tensor={name} is no matrix in {path}; {one_of(name, matrices)}.")
        if matrices[name].shape[0] < rows:
            raise UserError(
                f"embedding.tensor={name} in {path} has {matrices[name].shape[0]} rows and embedding.vocabulary "
                f"{rows} words: use a pair."
            )
        return name
    fitting = [key for key, candidate in matrices.items() if candidate.shape[0] == rows]
    if len(fitting) != 1:
        shapes = ", ".join(f"{key} {candidate.shape[0]}×{candidate.shape[1]}" for key, candidate in matrices.items())
        raise UserError(
            f"{path} holds {len(fitting) or 'no'} matrices with {rows} rows, the number of words in "
            f"embedding.vocabulary: choose one with embedding.tensor=NAME ({shapes or 'it holds no matrix'})."
        )
    return fitting[0]
