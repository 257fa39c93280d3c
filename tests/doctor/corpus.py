"""A frozen collection: synthetic text whose statistics are those of documentation, so that towers learn from it.

Words are distributed by Zipf's law; neighbouring texts share a topic, and groups of eight a narrower one; each has some
words of its own; half of a query's words of the topic are not those of its passage but synonyms, to be learned.
"""

from typing import NamedTuple

import numpy as np
from conftest import word

TEXTS, TOPICS, GROUP = 2000, 40, 8
COMMON, TOPIC_WORDS, GROUP_WORDS, OWN_WORDS = 150, 120, 12, 3


class Text(NamedTuple):
    """A query and its passage."""

    query: str
    passage: str


def texts(seed: int = 0) -> list[Text]:
    """`TEXTS` pairs, always the same for a seed."""
    rng = np.random.default_rng(seed)
    common = range(COMMON)
    first_own = COMMON + 2 * TOPICS * TOPIC_WORDS
    pairs = []
    for number in range(TEXTS):
        topic = number * TOPICS // TEXTS
        words = COMMON + 2 * TOPIC_WORDS * topic + np.arange(TOPIC_WORDS)
        group = np.random.default_rng([seed, number // GROUP]).choice(words, GROUP_WORDS, replace=False)
        own = first_own + OWN_WORDS * number + np.arange(OWN_WORDS)
        length = int(np.clip(rng.lognormal(4.0, 0.4), 20, 180))
        sources = [(common, 0.4), (words, 0.35), (group, 0.15), (own, 0.1)]
        passage = np.concatenate([_drawn(rng, source, round(length * share)) for source, share in sources])
        asked = _drawn(rng, passage[passage < first_own], 4, zipf=False)
        synonyms = (asked >= COMMON) & (rng.random(len(asked)) < 0.5)
        query = np.concatenate([_drawn(rng, common, 2), asked + TOPIC_WORDS * synonyms, rng.choice(own, 1)])
        shuffled = (rng.permutation(numbers).tolist() for numbers in (query, passage))
        pairs.append(Text(*(" ".join(map(word, numbers)) for numbers in shuffled)))
    return pairs


def _drawn(rng: np.random.Generator, words: np.ndarray | range, count: int, zipf: bool = True) -> np.ndarray:
    """Numbers of words: the n-th of ``words`` as often as 1 / n, as Zipf's law has it, or all alike."""
    weights = 1 / np.arange(1, len(words) + 1) if zipf else np.ones(len(words))
    return rng.choice(np.asarray(words), count, p=weights / weights.sum())
