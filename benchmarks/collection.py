"""A collection of MS MARCO's size and shape, of invented words: ``python -m benchmarks.collection FOLDER``.

Lengths, word frequencies and the growth of the vocabulary are those of a sample of MS MARCO's passages; nothing of
their text is here. The files are named and made as MS MARCO's own (``data=msmarco_passage``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.console import counter
from two_tower.files import atomic_path, write_text

PASSAGES, TRAINING, VALIDATION = 8_841_823, 502_939, 6_980
# Frequencies fall with the rank of a word as 1 / r up to `BREAK` and as r ** -STEEP beyond (Gerlach and Altmann 2013,
# doi:10.1103/PhysRevX.3.021006), from which the vocabulary grows as it does in the sample: `growth` has both.
BREAK, STEEP = 4_500, 1.85
LENGTH, SPREAD = 4.005, 0.389  # of the logarithm of a passage's number of words
SHORTEST, LONGEST = 5, 260
QUERY_WORDS, FEWEST = 7.1, 3  # of a query: at least these, the mean
COMMON = 200  # ranks below tell little
#: So many passages in a row have one subject, and each subject one of the topics. Of the words between two ranks these
#: shares are the subject's and the topic's own. All were chosen so that a search in some inverted lists finds as many
#: of the nearest passages as in the sample; without them it finds a fourth: in nothing but noise all are far away.
SUBJECT, TOPICS = 10, 220
OF_SUBJECT, OF_TOPIC = 0.23, 0.76
NOT_RARE, RARE = 50, 7_000
CELLS = 100  # of the frequencies, in each of which a subject and a topic have one word of their own
ENDINGS = pa.array(["", ",", ".", "’s", " —"])  # of a word, and how often: one text in four is not ASCII
OFTEN = np.cumsum([0.86, 0.06, 0.075, 0.0025, 0.0025])
SPELLED = 1_000_000  # words with a spelling; rarer ones are numbers, as many of the rare are
BLOCK = 100_000  # passages that are made together


class Block(NamedTuple):
    """Passages by their words' ranks, those of one after those of another."""

    ranks: np.ndarray  # (W,) int64, 1 is the most frequent word
    offsets: np.ndarray  # (N + 1,) int64
    texts: pa.Array  # (N,) strings


def ranks(uniform: np.ndarray) -> np.ndarray:
    """The ranks of words, int64, that numbers in [0, 1) stand for."""
    head = np.log(BREAK)
    place = uniform * (head + 1 / (STEEP - 1))
    with np.errstate(over="ignore"):
        tail = BREAK * np.maximum(1e-12, 1 - (place - head) * (STEEP - 1)) ** (-1 / (STEEP - 1))
    return np.where(place < head, np.exp(np.minimum(place, head)), np.minimum(tail, 1e15)).astype(np.int64)


def about(uniform: np.ndarray, subjects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Such numbers, (W,), where some words become those of their passage's subject or topic, (W,) integers.

    Over all subjects a number is as probable as before, so the frequencies of words are.
    """
    kind = rng.random(len(uniform))
    topics = _random(subjects) * TOPICS
    whose = np.where(kind < OF_SUBJECT, subjects, -1 - topics.astype(np.int64))
    cells = (uniform * CELLS).astype(np.int64)
    own = (cells + _random(whose * CELLS + cells)) / CELLS
    drawn = ranks(uniform)
    return np.where((kind < OF_SUBJECT + OF_TOPIC) & (drawn > NOT_RARE) & (drawn < RARE), own, uniform)


def _random(seeds: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each integer, the same each time (splitmix64)."""
    bits = seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return (bits >> np.uint64(11)).astype(np.float64) / 2**53


def spelled() -> pa.Array:
    """The words of the first ranks, shorter ones first."""
    syllables = np.array([f"{c}{v}" for c in "bcdfghjklmnpqrstvwxz" for v in "aeiou"])
    numbers = np.arange(SPELLED)
    low, middle, high = numbers % 100, numbers // 100 % 100, numbers // 10_000
    words = np.where(numbers >= 10_000, syllables[high], "").astype("U8")
    words = np.char.add(words, np.where(numbers >= 100, syllables[middle], ""))
    words = np.char.add(words, syllables[low])
    return pa.array(np.char.add(words, np.where(numbers >= 100, "n", "")))


def blocks(passages: int, seed: int) -> Iterator[Block]:
    """The passages, the same for a seed whatever their number but for the last block."""
    words = spelled()
    for number, first in enumerate(range(0, passages, BLOCK)):
        rng = np.random.default_rng([seed, number])
        lengths = np.exp(rng.normal(LENGTH, SPREAD, BLOCK)).astype(np.int64).clip(SHORTEST, LONGEST)
        lengths = lengths[: passages - first]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        subjects = np.repeat((first + np.arange(len(lengths))) // SUBJECT, lengths)
        drawn = ranks(about(rng.random(offsets[-1]), subjects, rng))
        rare = drawn > SPELLED
        flat = words.take(pa.array(np.minimum(drawn, SPELLED) - 1))
        flat = pc.replace_with_mask(flat, pa.array(rare), pc.cast(pa.array(drawn[rare]), pa.string()))
        endings = ENDINGS.take(pa.array(np.searchsorted(OFTEN, rng.random(len(drawn)) * OFTEN[-1])))
        flat = pc.binary_join_element_wise(flat, endings, "")
        yield Block(drawn, offsets, pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat), " "))


def question(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The ranks of a query's words: half of them tell of the passage with ``words``, some are common ones."""
    size = FEWEST + rng.poisson(QUERY_WORDS - FEWEST)
    telling = np.unique(words[words > COMMON])
    telling = rng.permutation(telling)[: max(1, size // 2)]
    return np.concatenate([ranks(rng.random(2) / 3), telling, rng.choice(words, max(0, size - 2 - len(telling)))])


def write(folder: Path, passages: int, training: int, validation: int, seed: int = 0) -> None:
    """Write the files of a collection, whose queries are made of words of the passages that answer them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, words = np.random.default_rng([seed, 2**31]), spelled().to_pylist()
    asked = rng.integers(passages, size=training + validation)
    order = np.argsort(asked, kind="stable")  # the block of each
    queries, done, first = [""] * len(asked), 0, 0
    with (
        counter(f"Writing {folder}", "passages", passages) as progress,
        atomic_path(folder / "collection.tsv") as path,
        path.open("wb") as file,
    ):
        for block in blocks(passages, seed):
            count = len(block.texts)
            names = pc.cast(pa.array(np.arange(first, first + count)), pa.string())
            lines = pc.binary_join_element_wise(names, block.texts, "\t")
            file.write(("\n".join(lines.to_pylist()) + "\n").encode())
            while done < len(order) and asked[order[done]] < first + count:
                row = asked[order[done]] - first
                found = question(block.ranks[block.offsets[row] : block.offsets[row + 1]], rng)
                queries[order[done]] = " ".join(words[r - 1] if r <= SPELLED else str(r) for r in found)
                done += 1
            first += count
            progress(count)
    for split, part in (("train", slice(training)), ("dev.small", slice(training, None))):
        rows = range(len(asked))[part]
        write_text(folder / f"queries.{split}.tsv", "".join(f"{row}\t{queries[row]}\n" for row in rows))
        write_text(folder / f"qrels.{split}.tsv", "".join(f"{row}\t0\t{asked[row]}\t1\n" for row in rows))


def growth(tokens: int, seed: int = 0) -> int:
    """How many different words so many tokens hold."""
    rng = np.random.default_rng(seed)
    subjects = np.arange(tokens) // (SUBJECT * round(np.exp(LENGTH)))
    return len(np.unique(ranks(about(rng.random(tokens), subjects, rng))))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.collection", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--queries", type=int, default=TRAINING, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(options.folder, options.passages, options.queries, min(VALIDATION, options.passages), options.seed)


if __name__ == "__main__":
    main()
