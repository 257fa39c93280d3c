"""The made-up collection of MS MARCO's size: small, whole, and of the real one's shape."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.collection import growth, ranks, spelled, write
from two_tower.data.msmarco_passage import MsMarcoPassage


def test_its_vocabulary_grows_as_that_of_the_sample() -> None:
    """Different words among so many of msmarco-small's passages, in lower case, cut at what is no letter or digit."""
    measured = {56_869: 9_242, 171_038: 18_868, 569_722: 37_184, 1_775_776: 62_638}
    for tokens, words in measured.items():
        assert growth(tokens) == pytest.approx(words, rel=0.2)  # after the first 100,000 within a twelfth


def test_every_rank_has_a_word_of_its_own() -> None:
    assert len(set(spelled().to_pylist())) == len(spelled())
    drawn = ranks(np.linspace(0, 1, 10_000, endpoint=False))
    assert (np.diff(drawn) >= 0).all()
    assert drawn[0] == 1


def test_it_is_read_whole_and_queries_are_answered_by_words(tmp_path: Path) -> None:
    for name, passages in (("small", 900), ("again", 900)):
        write(tmp_path / name, passages, training=300, validation=60, seed=1)
    for path in (tmp_path / "small").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    source = MsMarcoPassage(tmp_path / "small")
    passages = {row["id"]: row["text"] for row in pa.Table.from_batches(source.corpus()).to_pylist()}
    assert len(passages) == 900
    lengths = [len(text.split()) for text in passages.values()]
    assert np.mean(lengths) == pytest.approx(59, rel=0.1)
    for split, count in (("train", 300), ("dev", 60)):
        queries = {row["id"]: row["text"].split() for row in source.queries(split).to_pylist()}
        qrels = source.qrels(split).to_pylist()
        assert len(queries) == len(qrels) == count
        for row in qrels:
            words = {word.rstrip(",.").removesuffix("’s") for word in passages[row["document_id"]].split()}
            assert len(words & {*queries[row["query_id"]]}) >= 1
