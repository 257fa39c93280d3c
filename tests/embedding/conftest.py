"""A small vocabulary and corpus."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from two_tower.data.stream.corpus import Corpus
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer


@pytest.fixture(scope="session")
def make() -> Callable[..., tuple[Tokenizer, Corpus]]:
    def made(texts: Sequence[str], fingerprint: str = "a", **settings: Any) -> tuple[Tokenizer, Corpus]:  # noqa: ANN401
        tokenizer = WordTokenizer(**{"min_frequency": 1, **settings}).train([texts])
        source: Any = SimpleNamespace(name="texts", fingerprint=lambda: fingerprint)
        ids, rows = pa.chunked_array([[str(i) for i in range(len(texts))]]), np.arange(len(texts))
        return tokenizer, Corpus(source, ids, tokenizer.encode(texts), *np.zeros((2, len(texts)), np.uint64), rows)

    return made
