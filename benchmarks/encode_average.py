"""Text → unit vectors in memory with an average tower: `Encoder.documents` and three libraries.

All have the same vocabulary, the same vectors (256 dimensions) and uniform word weights. With the same
tokenizer.json, Sentence Transformers' `StaticEmbedding` and model2vec compute the same function, which is checked.
Sentence Transformers' `WordEmbeddings` splits at blanks; it is checked on texts that are nothing but words. A second
row gives the peers the cheapest rules that make words (see `tokenise`), which are the same on ASCII texts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from benchmarks.inputs import passages, tokenizer
from benchmarks.measure import Call, Row, alternate, compare, require_equal
from benchmarks.tokenise import library_tokenizer, simplest
from benchmarks.vectors import DIM, random_tower

if TYPE_CHECKING:
    import tokenizers

NEEDS = ("sentence_transformers", "model2vec")
TOLERANCE = 1e-5  # of unit vectors
# Texts that StaticEmbedding takes at once: which is better depends on the machine.
BATCHES = (1024, 16_384)

Encode = Callable[[list[str]], np.ndarray]


def static_embedding(library: tokenizers.Tokenizer, table: np.ndarray, batch_size: int, device: str = "cpu") -> Encode:
    """Sentence Transformers' table of vectors with a tokenizer of the library."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    model = SentenceTransformer(modules=[StaticEmbedding(library, embedding_weights=table)], device=device)
    return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True)


def _word_embeddings(vocabulary: list[str], table: np.ndarray) -> Encode:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    splitter = WhitespaceTokenizer(vocabulary, stop_words=(), do_lower_case=True)
    model = SentenceTransformer(modules=[WordEmbeddings(splitter, table), Pooling(DIM, "mean")], device="cpu")
    # Larger batches are slower: it pads.
    return lambda texts: model.encode(texts, batch_size=256, show_progress_bar=False, normalize_embeddings=True)


def _model2vec(library: tokenizers.Tokenizer, table: np.ndarray, batch_threads: bool) -> Encode:
    from model2vec import StaticModel

    model = StaticModel(table, library, normalize=True, max_length=None)

    def encode(texts: list[str]) -> np.ndarray:
        before = os.environ.get("TOKENIZERS_PARALLELISM")
        try:
            return model.encode(texts, use_multiprocessing=batch_threads, multiprocessing_threshold=1)
        finally:  # with threads of its own it takes those of `tokenizers` away, from everybody and for good
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
            if before is not None:
                os.environ["TOKENIZERS_PARALLELISM"] = before

    return encode


def _same_function(library: tokenizers.Tokenizer, table: np.ndarray, rules: str) -> dict[str, Encode]:
    """The peers that take a tokenizer of the library."""
    peers = {
        f"StaticEmbedding{rules}, batch {size:,}": static_embedding(library, table.copy(), size) for size in BATCHES
    }
    for name, batch_threads in (("a thread per batch", True), ("threads in a batch", False)):
        peers[f"model2vec{rules}, {name}"] = _model2vec(library, table, batch_threads)
    return peers


def _check(peers: Mapping[str, Encode], ours: np.ndarray, texts: list[str]) -> None:
    for name, encode in peers.items():
        require_equal(f"vectors of {name}", ours, encode(texts), TOLERANCE)


def run(quick: bool = False) -> list[Row]:
    """The rows ``encode_average`` and ``encode_average_simplest``."""
    texts = passages(200 if quick else 30_000, quick)
    encoder, column = random_tower(tokenizer(quick)), pa.array(texts)
    table = encoder.model.document_tower.words.vectors.detach().numpy()
    library = library_tokenizer(encoder.tokenizer)

    same = _same_function(library, table, "")
    ascii_only = _same_function(simplest(library), table, ", ASCII rules")
    at_blanks = {"WordEmbeddings": _word_embeddings(encoder.tokenizer.vocabulary, table)}
    ours, few = encoder.documents(column), range(0, len(texts), max(1, len(texts) // 500))
    _check(same, ours[few], [texts[i] for i in few])
    _check(at_blanks, ours[few], [" ".join(encoder.tokenizer.words(texts[i])) for i in few])
    few_ascii = [i for i in few if texts[i].isascii()]
    _check(ascii_only, ours[few_ascii], [texts[i] for i in few_ascii])

    everybody = {**same, **ascii_only, **at_blanks}
    contestants: dict[str, Call] = {name: partial(encode, texts) for name, encode in everybody.items()}
    contestants["ours"] = partial(encoder.documents, column)
    rates = alternate(contestants, len(texts), rounds=3, quick=quick)
    return [
        compare("encode_average", "passages/s", rates, "ours", [*same, *at_blanks]),
        compare("encode_average_simplest", "passages/s", rates, "ours", ascii_only),
    ]
