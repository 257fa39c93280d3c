"""What the benchmarks work on: real words, made-up vectors."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa

from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

# All come with the project's own requirements; together they use 32,000 words, the first 3,000.
PACKAGES = ("pyarrow", "torch", "numpy", "sympy", "networkx", "lightning")
WORDS = 57  # per text, as in MS MARCO passages
TYPOGRAPHIC = 0.23  # share of the texts with characters beyond ASCII, as there


def _docstrings(packages: Sequence[str]) -> Iterator[str]:
    for package in packages:
        spec = find_spec(package)  # finds without importing, which would take seconds
        assert spec is not None
        for file in sorted(Path(str(spec.origin)).parent.rglob("*.py")):
            yield from re.findall(r'"""(.+?)"""', file.read_text(encoding="utf-8", errors="ignore"), re.DOTALL)


@cache
def _words(quick: bool) -> list[str]:
    docstrings = _docstrings(PACKAGES[:1] if quick else PACKAGES)
    return [word for docstring in docstrings for word in docstring.split()]


def passages(count: int, quick: bool = False) -> list[str]:
    """Real English: cuts of the docstrings of installed packages, some with typographic quotes and dashes.

    With ``quick`` those of one package.
    """
    words = _words(quick)
    rng, texts = random.Random(0), []
    for _ in range(count):
        start = rng.randrange(len(words) - 2 * WORDS)
        text = words[start : start + rng.randint(WORDS // 2, WORDS * 3 // 2)]
        if rng.random() < TYPOGRAPHIC:
            text[3], text[9] = f"“{text[3]}”", f"{text[9]}’s —"
        texts.append(" ".join(text))
    return texts


@cache
def tokenizer(quick: bool = False) -> Tokenizer:
    """Knows every word of `passages`."""
    return WordTokenizer(min_frequency=1).train([pa.array([" ".join(_words(quick)), "s"])])


#: Letters of other scripts, and what stands between words.
SCRIPTS = {
    "ru": ("абвгдежзийклмнопрстуфхцчшщыьэюяё", " "),
    "hi": ("कखगघचजटतदनपबमयरलवशसहािीुेो्ं", " "),
    "ar": ("ابتثجحخدذرزسشصضطظعغفقكلمنهويَُِ", " "),
    "vi": ("aăâbcdđeêghiklmnoôơpqrstuưvxyáàảãạấầẩẫậắằẳẵặ", " "),
    "th": ("กขคงจฉชซญดตถทธนบปผพฟมยรลวสหอ่้ิีุูาเแโ", ""),
    "zh": ("".join(map(chr, range(0x4E00, 0x4E00 + 5600, 7))), ""),
    "ko": ("".join(map(chr, range(0xAC00, 0xAC00 + 7800, 13))), " "),
}


def in_script(texts: Sequence[str], language: str) -> list[str]:
    """Texts with as many words as these, as often repeated, but of random letters of a language's script."""
    (letters, blank), rng, words = SCRIPTS[language], random.Random(0), dict[str, str]()
    for text in texts:
        for word in text.split():
            size = max(1, len(word) // (1 if blank else 3))
            words.setdefault(word, "".join(rng.choices(letters, k=size)))
    return [blank.join(words[word] for word in text.split()) for text in texts]


def vectors(queries: int, documents: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors, (Q, D) and (N, D) float32, among which search is neither trivial nor hopeless.

    The third array, (Q,) int64, has the one document that each query was made from.
    """
    rng = np.random.default_rng(seed)
    d_ND = rng.standard_normal((documents, dim), np.float32)
    relevant = rng.integers(documents, size=queries)
    q_QD = d_ND[relevant] + 3 * rng.standard_normal((queries, dim), np.float32)
    for x in (q_QD, d_ND):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return q_QD, d_ND, relevant
