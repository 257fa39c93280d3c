"""Vectors as the rows of a matrix, their words in another file: .npy, PyTorch's files, safetensors. No code is run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from two_tower.embedding._files import Block, VectorFile, opened
from two_tower.errors import BadRows, UserError, first_line, one_of

BLOCK_ROWS = 1 << 16

STATES = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights among other things

# Name → shape, and what loads the tensor.
Matrices: TypeAlias = Mapping[str, tuple[tuple[int, ...], Callable[[], Tensor]]]


class MatrixVectors(VectorFile):
    """A matrix in a file, and the words of its rows (row → word; a row without one is left out)."""

    def __init__(
        self, path: Path, words: Mapping[int, str], dim: int, rows: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        super().__init__(path, dim)
        self._words, self._rows = words, rows

    def blocks(self, bad: BadRows) -> Iterator[Block]:
        end = max(self._words) + 1
        for start in range(0, end, BLOCK_ROWS):
            words = [self._words.get(row, "") for row in range(start, min(start + BLOCK_ROWS, end))]
            yield Block(words, partial(self._vectors, start, bad))

    def _vectors(self, start: int, bad: BadRows, wanted: np.ndarray) -> np.ndarray:
        rows = start + wanted
        return self.count_bad(self._rows(rows), (rows + 1).tolist(), bad)


def npy_vectors(path: Path, words: Mapping[int, str]) -> MatrixVectors:
    """A matrix that NumPy saved, with a row for each word."""
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a matrix of numbers: {first_line(error)}.") from error
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise UserError(f"{path} holds {matrix.dtype} of shape {matrix.shape}: a matrix of numbers is needed.")
    if len(matrix) != max(words) + 1:
        raise UserError(f"{path} has {len(matrix)} rows and embedding.vocabulary {max(words) + 1} words: use a pair.")
    return MatrixVectors(path, words, matrix.shape[1], lambda rows: matrix[rows].astype(np.float32))


def torch_vectors(path: Path, words: Mapping[int, str], name: str | None) -> MatrixVectors:
    """A matrix in a file of `torch.save`: a state, a checkpoint that holds one, or the tensor alone."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises whatever its unpickler met
        raise UserError(
            f"{path} cannot be read as tensors alone, and reading more could run code that is in it: "
            "save the weights by themselves with torch.save(model.state_dict(), FILE)."
        ) from error
    state = loaded if isinstance(loaded, Mapping) else {"tensor": loaded}
    state = next((state[key] for key in STATES if isinstance(state.get(key), Mapping)), state)
    first: dict[tuple[int, torch.Size], str] = {}  # of those that share their memory, as shared towers do
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point():
            first.setdefault((value.data_ptr(), value.shape), key)
    matrices = {key: (tuple(state[key].shape), partial(state.__getitem__, key)) for key in first.values()}
    return _vectors(path, words, name, matrices)


def safetensors_vectors(path: Path, words: Mapping[int, str], name: str | None) -> MatrixVectors:
    """A matrix in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    def load(key: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(key)

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}.") from error
    matrices = {key: (shape, partial(load, key)) for key, shape in shapes.items() if len(shape) == 2}
    return _vectors(path, words, name, matrices)


def _vectors(path: Path, words: Mapping[int, str], name: str | None, matrices: Matrices) -> MatrixVectors:
    shape, load = matrices[_choose(path, max(words) + 1, name, matrices)]
    matrix = load()
    return MatrixVectors(path, words, shape[1], lambda rows: matrix[torch.from_numpy(rows)].float().numpy())


def _choose(path: Path, rows: int, name: str | None, matrices: Matrices) -> str:
    """The name of the matrix with a row per word; a named one may have more rows, for padding."""
    if name is not None:
        if name not in matrices:
            raise UserError(f"embedding.tensor={name} is no matrix in {path}; {one_of(name, matrices)}.")
        if matrices[name][0][0] < rows:
            raise UserError(
                f"embedding.tensor={name} in {path} has {matrices[name][0][0]} rows and embedding.vocabulary "
                f"{rows} words: use a pair."
            )
        return name
    fitting = [key for key, (shape, _) in matrices.items() if shape[0] == rows]
    if len(fitting) != 1:
        shapes = ", ".join(f"{key} {shape[0]}×{shape[1]}" for key, (shape, _) in matrices.items())
        raise UserError(
            f"{path} holds {len(fitting) or 'no'} matrices with {rows} rows, the number of words in "
            f"embedding.vocabulary: choose one with embedding.tensor=NAME ({shapes or 'it holds no matrix'})."
        )
    return fitting[0]


def read_words(path: Path) -> dict[int, str]:
    """The words of a matrix' rows: row → word.

    From a text file with a word per line, plain or ``.gz``; a ``.json`` with a list of words, or with words and rows in
    a mapping, by itself or inside another object (as in a ``tokenizer.json``); a ``.parquet`` with one text column.
    """
    if not path.is_file():
        raise UserError(f"embedding.vocabulary={path} does not exist: give the file with the words of the rows.")
    try:
        words = _read_words(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a list of words: {first_line(error)}.") from error
    if not words:
        raise UserError(f"{path} holds no words: give a list of words, or a mapping of words to rows.")
    return words


def _read_words(path: Path) -> dict[int, str] | None:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        texts = [c for c in table.columns if pa.types.is_string(c.type) or pa.types.is_large_string(c.type)]
        return dict(enumerate(word or "" for word in texts[0].to_pylist())) if len(texts) == 1 else None
    with opened(path) as file:
        content = file.read().decode("utf-8-sig")
    if path.suffixes[-1:] == [".json"] or path.suffixes[-2:] == [".json", ".gz"]:
        return next((words for part in _parts(json.loads(content)) if (words := _words_of_json(part))), None)
    lines = content.removesuffix("\n").split("\n")
    return {row: line.removesuffix("\r") for row, line in enumerate(lines)} if content else None


def _parts(document: Any, depth: int = 2) -> Iterator[Any]:  # noqa: ANN401
    """A JSON document and what is in it: vocabularies are often saved beside other things."""
    yield document
    if isinstance(document, Mapping) and depth:
        for value in document.values():
            yield from _parts(value, depth - 1)


def _words_of_json(document: Any) -> dict[int, str] | None:  # noqa: ANN401
    if isinstance(document, list) and all(isinstance(word, str) for word in document):
        return dict(enumerate(document))
    if not isinstance(document, Mapping):
        return None
    if all(type(row) is int and row >= 0 for row in document.values()):
        words = {row: word for word, row in document.items()}
        if len(words) < len(document):
            raise ValueError("two words have the same row")
        return words
    if all(row.isdecimal() and isinstance(word, str) for row, word in document.items()):
        return {int(row): word for row, word in document.items()}
    return None
