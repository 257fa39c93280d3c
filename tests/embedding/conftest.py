"""A small vocabulary and corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from two_tower.data.stream.corpus import Corpus
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer


def made(texts: Sequence[str], fingerprint: str = "a", **settings: Any) -> tuple[Tokenizer, Corpus]:  # noqa: ANN401
    """A tokenizer trained on texts, and a corpus of them."""
    tokenizer = WordTokenizer(**{"min_frequency": 1, **settings}).train([texts])
    tokens = tokenizer.encode(texts)
    source: Any = SimpleNamespace(name="texts", fingerprint=lambda: fingerprint)
    ids = pa.chunked_array([[str(i) for i in range(len(texts))]])
    return tokenizer, Corpus(source, ids, tokens, np.zeros(len(texts), np.uint64), np.arange(len(texts)))


@pytest.fixture
def make() -> Callable[..., tuple[Tokenizer, Corpus]]:
    """See `made`."""
    return made
