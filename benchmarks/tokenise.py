"""Tokenisation: `Tokenizer.encode` and `tokenizers.encode_batch_fast` on the same tokenizer.json.

Each side gets its texts in its own best form: an Arrow column, a list of strings. A second row gives the library
simpler rules (lower case, ASCII letters and digits only): the fastest words it can make, though not the same ones.
One more row for each of some other scripts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import tokenizers

from benchmarks.inputs import SCRIPTS, in_script, passages, tokenizer
from benchmarks.measure import Row, alternate, compare
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer


def library_tokenizer(ours: Tokenizer) -> tokenizers.Tokenizer:
    """The library's tokenizer of the same tokenizer.json, without truncation."""
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder) / "tokenizer.json")
        result = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    result.no_truncation()
    return result


def simplest(library: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The library's tokenizer of the same vocabulary with the cheapest rules that make words."""
    result = tokenizers.Tokenizer.from_str(library.to_str())
    result.normalizer = tokenizers.normalizers.Lowercase()
    result.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("[^a-z0-9]+"), "removed")
    return result


def _require_equal_ids(library: tokenizers.Tokenizer, ours: Tokenizer, texts: Sequence[str]) -> None:
    if [encoding.ids for encoding in library.encode_batch_fast(texts)] != ours.encode(texts).to_lists():
        raise RuntimeError("the ids differ from those of the tokenizers library")


def _in_script(language: str, english: Sequence[str], quick: bool) -> Row:
    texts = in_script(english, language)
    column, ours = pa.array(texts), WordTokenizer(language=language).train([texts])
    library = library_tokenizer(ours)
    _require_equal_ids(library, ours, texts)
    contestants = {"ours": lambda: ours.encode(column), "tokenizers": lambda: library.encode_batch_fast(texts)}
    rates = alternate(contestants, len(texts), rounds=3, quick=quick)
    return compare(f"tokenise_{language}", "texts/s", rates, "ours", ["tokenizers"])


def run(quick: bool = False) -> list[Row]:
    """The rows ``tokenise``, ``tokenise_simplest`` and ``tokenise_LANGUAGE``."""
    texts = passages(200 if quick else 30_000, quick)
    column, ours = pa.array(texts), tokenizer(quick)
    library = library_tokenizer(ours)
    simple = simplest(library)
    _require_equal_ids(library, ours, texts)
    _require_equal_ids(simple, ours, [text for text in texts if text.isascii()])
    contestants = {
        "ours": lambda: ours.encode(column),
        "tokenizers": lambda: library.encode_batch_fast(texts),
        "tokenizers, ASCII rules": lambda: simple.encode_batch_fast(texts),
    }
    rates = alternate(contestants, len(texts), rounds=5, quick=quick)
    scripts = [_in_script(language, texts[: len(texts) // 4], quick) for language in SCRIPTS]
    return [
        compare("tokenise", "texts/s", rates, "ours", ["tokenizers"]),
        compare("tokenise_simplest", "texts/s", rates, "ours", ["tokenizers, ASCII rules"]),
        *scripts,
    ]
