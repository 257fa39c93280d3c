"""Vocabularies against a plain count of the library's words."""

import random
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.tokenizer.base import Rule
from two_tower.tokenizer.word import UNKNOWN, WordTokenizer


def expected(tokenizer: WordTokenizer, texts: list[str]) -> list[str]:
    rule = Rule(tokenizer.split_camel_case, tokenizer.strip_accents, tokenizer.language)
    counts = Counter(word for text in texts for word in rule.words(text))
    kept = [word for word, count in counts.items() if count >= tokenizer.min_frequency]
    ranked = sorted(kept, key=lambda word: (-counts[word], word))
    return [UNKNOWN, *ranked[: tokenizer.vocabulary_size - 1]]


some_texts = st.lists(st.one_of(st.text("abAB é中ﬁ’", max_size=30), st.text(max_size=30)))


@settings(deadline=None, max_examples=50)
@given(some_texts, st.booleans(), st.booleans(), st.sampled_from(["none", "zh"]), st.integers(2, 12), st.integers(1, 3))
def test_most_frequent_words(
    texts: list[str], camel: bool, accents: bool, language: str, size: int, min_frequency: int
) -> None:
    texts = [*texts, "a " * min_frequency]
    tokenizer = WordTokenizer(size, min_frequency, split_camel_case=camel, strip_accents=accents, language=language)
    assert tokenizer.train([texts]).vocabulary == expected(tokenizer, texts)


def test_many_words() -> None:
    """More words than a new table has room for, several times over, some of them long."""
    rng = random.Random(0)
    words = [f"{rng.randrange(20_000):x}" * rng.randrange(1, 4) for _ in range(30_000)]
    texts = [" ".join(words[i : i + 50]) for i in range(0, len(words), 50)]
    tokenizer = WordTokenizer(vocabulary_size=10_000, language="none")
    assert tokenizer.train([texts]).vocabulary == expected(tokenizer, texts)


def test_batches_make_no_difference() -> None:
    texts = ["b a b", "c é", "", "C c — b", "É a"]

    def batches() -> Iterator[pa.ChunkedArray | pa.Array | list[str]]:
        yield pa.array(texts[:2])
        yield pa.chunked_array([texts[2:3], texts[3:4]])
        yield texts[4:]

    tokenizer = WordTokenizer(min_frequency=1)
    whole = tokenizer.train([texts])
    assert whole.vocabulary == [UNKNOWN, "b", "c", "a", "e"]
    assert tokenizer.train(batches()).fingerprint == whole.fingerprint
    assert tokenizer.train([texts[::-1]]).fingerprint == whole.fingerprint
