"""Which format a file of word vectors has: its first bytes say it, whatever it is called."""

from __future__ import annotations

from pathlib import Path

from two_tower.embedding.reading.binary import BinaryVectors
from two_tower.embedding.reading.file import VectorFile, opened
from two_tower.embedding.reading.matrix import npy_vectors, safetensors_vectors, torch_vectors
from two_tower.embedding.reading.text import TextVectors, floats
from two_tower.embedding.reading.vocabulary import read_words
from two_tower.errors import UserError

__all__ = ["open_vectors"]

_TORCH = (".pth", ".pt", ".ckpt")
_FASTTEXT = b"\xba\x16\x4f\x2f"
_FIRST_BYTES = 1 << 20


def open_vectors(path: Path, vocabulary: Path | None = None, tensor: str | None = None) -> VectorFile:
    """A file of word vectors; reads no more of it than is needed to know the dimensions.

    Args:
        path: GloVe or word2vec text, word2vec binary (these three also ``.gz``), ``.npy``, ``.pth``, safetensors.
        vocabulary: the words of the rows, for the formats that hold none; see `read_words`.
        tensor: which tensor of a state, where it is not clear from the number of words.

    Raises:
        UserError: there is no such file, it has none of the formats or could run code when read, or
            the arguments do not fit the format.
    """
    if not path.is_file():
        raise UserError(f"embedding.path={path} does not exist: give the path of a file of word vectors.")
    with opened(path) as file:
        first = file.read(_FIRST_BYTES)
    kind = _kind(path, first)
    if kind in ("text", "binary"):
        if vocabulary or tensor:
            key = "embedding.vocabulary" if vocabulary else "embedding.tensor"
            raise UserError(f"{key} is not for {path}, which holds its own words: leave it out.")
        return _with_words(path, first)
    if vocabulary is None:
        raise UserError(f"{path} holds vectors but no words: add embedding.vocabulary=FILE with the words of its rows.")
    words = read_words(vocabulary)
    if kind == "npy":
        return npy_vectors(path, words)
    return torch_vectors(path, words, tensor) if kind == "torch" else safetensors_vectors(path, words, tensor)


def _kind(path: Path, first: bytes) -> str:
    if first.startswith(b"\x93NUMPY"):
        return "npy"
    if path.suffix == ".safetensors" or first[8:10] == b'{"':
        return "safetensors"
    if path.suffix in _TORCH or (first.startswith(b"PK") and b"/data.pkl" in first):
        return "torch"
    if first.startswith(b"PK"):
        raise UserError(f"{path} is a zip archive: unpack it and give one of its files.")
    if first.startswith(b"\x80"):
        raise UserError(
            f"{path} is a pickle, which could run code when it is read: convert it once where you trust it, for gensim "
            f"with  KeyedVectors.load('{path}').save_word2vec_format('{path.stem}.bin', binary=True)  "
            "(a Word2Vec model's vectors are its .wv)."
        )
    if first.startswith(_FASTTEXT):
        raise UserError(f"{path} is a fastText model: give its .vec file, which holds the word vectors as text.")
    return "text"


def _with_words(path: Path, first: bytes) -> VectorFile:
    text = TextVectors(path, first)
    if text.has_header:
        header, *lines = first.split(b"\n", 4)[:4]
        if not any(_is_row(line.split(), text.dim) for line in lines):  # a first row or two of text may be bad
            return BinaryVectors(path, *map(int, header.split()))
    return text


def _is_row(cells: list[bytes], dim: int) -> bool:
    return len(cells) > dim and floats(cells[-dim:]) is not None
