"""Tokenisation side by side: `Tokenizer.encode` and `tokenizers.encode_batch_fast` on the same tokenizer.json.

    python benchmarks/tokenise.py

Each side gets its texts in its own best form (an Arrow column, a list of strings) and all threads. Ids are compared
first, then rounds alternate in one process, so that a busy machine slows both. A second row gives the library simpler
rules (lower case, ASCII letters and digits only): the fastest words it can make, though not the same ones.
"""

from __future__ import annotations

import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers

from two_tower.tokenizer.word import WordTokenizer

WORDS = 57  # per text, as in MS MARCO passages
TYPOGRAPHIC = 0.23  # share of the texts with characters beyond ASCII, as there


def passages(count: int, seed: int = 0) -> list[str]:
    """Real English: ``count`` cuts of the docstrings of installed packages, some with typographic quotes and dashes."""
    words: list[str] = []
    for package in ("torch", "numpy", "pyarrow"):
        for file in sorted(Path(str(import_module(package).__file__)).parent.rglob("*.py")):
            for docstring in re.findall(r'"""(.+?)"""', file.read_text(encoding="utf-8", errors="ignore"), re.DOTALL):
                words += docstring.split()
    rng, texts = random.Random(seed), []
    for _ in range(count):
        start = rng.randrange(len(words) - 2 * WORDS)
        text = words[start : start + rng.randint(WORDS // 2, WORDS * 3 // 2)]
        if rng.random() < TYPOGRAPHIC:
            text[3], text[9] = f"“{text[3]}”", f"{text[9]}’s —"
        texts.append(" ".join(text))
    return texts


def simplest(library: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The library's tokenizer of the same vocabulary with the cheapest rules that make words."""
    result = tokenizers.Tokenizer.from_str(library.to_str())
    result.normalizer = tokenizers.normalizers.Lowercase()
    result.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("[^a-z0-9]+"), "removed")
    return result


def rate(encode: Callable[[], Any], count: int) -> float:
    """Texts per second of one call."""
    start = time.perf_counter()
    encode()
    return count / (time.perf_counter() - start)


def row(name: str, ours: list[float], peer: list[float], peer_name: str) -> dict[str, Any]:
    """A row of the benchmark table: medians over the rounds."""
    return {
        "name": name,
        "ours": round(statistics.median(ours)),
        "peer": round(statistics.median(peer)),
        "unit": "texts/s",
        "ratio": round(statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 1),
        "peer_name": peer_name,
    }


def run(count: int = 20_000, rounds: int = 5) -> list[dict[str, Any]]:
    """Compare both; the rows ``tokenise`` and ``tokenise_simplest`` of the benchmark table.

    Args:
        count: number of texts.
        rounds: times that each side encodes all texts; medians are reported.

    Raises:
        RuntimeError: the ids differ.
    """
    texts = passages(count)
    column = pa.array(texts)
    tokenizer = WordTokenizer().train([column])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer.json")
        library = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    library.no_truncation()
    if [encoding.ids for encoding in library.encode_batch_fast(texts)] != tokenizer.encode(column).to_lists():
        raise RuntimeError("the ids differ from those of the tokenizers library")
    simple = simplest(library)
    contestants: dict[str, Callable[[], Any]] = {
        "ours": lambda: tokenizer.encode(column),
        "same": lambda: library.encode_batch_fast(texts),
        "simplest": lambda: simple.encode_batch_fast(texts),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, encode in contestants.items():
            rates[name].append(rate(encode, count))
    return [
        row("tokenise", rates["ours"], rates["same"], "tokenizers"),
        row("tokenise_simplest", rates["ours"], rates["simplest"], "tokenizers, ASCII rules"),
    ]


if __name__ == "__main__":
    for result in run():
        print("{name}: {ours:,} {unit}, {peer_name} {peer:,}: {ratio} times".format(**result))
