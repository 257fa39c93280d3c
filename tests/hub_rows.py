"""What tests of data sets of the hub share: a small one, and what a source gives of it as texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rows import check_refused, values

from two_tower.data.base import CORPUS, QRELS, QUERIES, TRIPLETS
from two_tower.data.huggingface import HuggingFace

Rows = Sequence[dict[str, Any]]

ANIMALS: Rows = [
    {"query": "big cat", "positive": "A tiger.", "negative": "A river."},
    {"query": "water", "positive": "A river.", "negative": "A tree."},
    {"query": "big cat", "positive": "A lion.", "negative": "A tiger."},
    {"query": "oak", "positive": "A tree.", "negative": None},
]


def read(path: Path, **settings: Any) -> HuggingFace:  # noqa: ANN401
    return HuggingFace(str(path), **{"dev_share": 0, **settings})


def refused(path: Path, message: str, **settings: Any) -> None:  # noqa: ANN401
    check_refused(lambda: list(HuggingFace(str(path), **settings).corpus()), message)


def texts(source: HuggingFace, split: str = "train") -> tuple[list[str], set[tuple], set[tuple] | None]:
    """The corpus, the relevant pairs of a split and the triplets, as texts."""
    corpus = values(source.corpus(), CORPUS)
    passages = {name: f"{title} {text}".strip() for name, title, text in corpus}
    assert len(passages) == len(corpus)
    queries, judged = dict(values(source.queries(split), QUERIES)), values(source.qrels(split), QRELS)
    assert {query for query, _, _ in judged} == set(queries)
    relevant = {(queries[query], passages[name]) for query, name, grade in judged if grade > 0}
    if source.triplets() is None:
        return list(passages.values()), relevant, None
    found = values(source.triplets(), TRIPLETS)
    assert len(set(found)) == len(found)
    train = dict(values(source.queries("train")))
    return list(passages.values()), relevant, {(train[q], passages[p], passages[n]) for q, p, n in found}
