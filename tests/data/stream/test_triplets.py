"""Triplets of ids and of texts become the batches that a plain reading of the data gives."""

from pathlib import Path

import numpy as np
import pytest
from conftest import word, write_collection
from hypothesis import given
from hypothesis import strategies as st
from training import TextTriplets

from two_tower.data.beir import Beir
from two_tower.data.stream.batch import Batches
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.data.stream.triplets import EveryPassage, id_triplets, text_triplets
from two_tower.errors import UserError
from two_tower.negatives.base import NegativeMask, Negatives
from two_tower.negatives.given import GivenNegatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.negatives.random import RandomNegatives
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

# Some queries and passages occur in several of them.
ROWS = [
    (f"{word(i % 40)} {word(100 + i % 40)}", f"{word(200 + i % 60)} yes", f"{word(200 + (i + 7) % 50)} no")
    for i in range(90)
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return WordTokenizer(min_frequency=1).train([[" ".join(row) for row in ROWS]])


@pytest.mark.parametrize(
    ("negatives", "extras"), [(GivenNegatives(), 1), (InBatchNegatives(), 0), (RandomNegatives(2), 2)]
)
@pytest.mark.parametrize("whole_batch", [True, False])
def test_batches_of_texts_equal_a_plain_reading(
    negatives: Negatives, extras: int, whole_batch: bool, collection: Path, tokenizer: Tokenizer
) -> None:
    data = text_triplets(TextTriplets(str(collection), ROWS), tokenizer)
    batch = Batches(data, negatives, NegativeMask(data.positives, whole_batch), 32, seed=0)[0, 1]
    rows = [ROWS[r] for r in batch.query_rows.tolist()]
    queries, documents = batch.queries.to_lists(), batch.documents.to_lists()
    assert queries == tokenizer.encode_queries([r[0] for r in rows]).to_lists()
    assert documents[:32] == tokenizer.encode_documents([r[1] for r in rows]).to_lists()
    assert len(documents) == 32 * (1 + extras)
    if isinstance(negatives, GivenNegatives):
        assert documents[32:] == tokenizer.encode_documents([r[2] for r in rows]).to_lists()
    for i, row in enumerate(batch.negatives.tolist()):
        known = [documents[j] for j in range(32) if queries[j] == queries[i]]
        for j, negative in enumerate(row):
            own = j >= 32 and (j - 32) // max(extras, 1) == i
            assert negative == ((whole_batch or own) and documents[j] not in known)


def test_texts_are_parsed_once(collection: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "two_tower")
    for _ in range(2):
        assert len(text_triplets(TextTriplets(str(collection), ROWS[1:]), tokenizer).examples) == 89
        assert caplog.text.count("parsed and tokenised 89 triplets") == 1


def test_id_triplets_of_other_splits_and_unknown_passages_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_collection(tmp_path / "c", documents=60)
    with (folder / "triples.tsv").open("a") as file:
        file.write("q0\td0\td1\n")  # a dev query
    source = Beir(str(folder))
    tokenizer = WordTokenizer().train([["ba be", "ba be"]])
    corpus = Corpus.load(source, tokenizer)
    split = Split.load(corpus, "train", tokenizer)
    with caplog.at_level("WARNING", "two_tower"):
        data = id_triplets(corpus, split)
    assert "1 of 41 triplets are left out" in caplog.text
    examples = data.examples.take(np.array([0, 5]))
    assert examples.negative_rows is not None
    for q, d, n in zip(examples.query_rows, examples.positive_rows, examples.negative_rows, strict=True):
        number = int(split.ids[int(q)].as_py()[1:])
        assert (d, n.tolist()) == (number, [(number + 7) % 60])
    (folder / "triples.tsv").write_text("q0\td0\td1\n")
    fresh = Beir(str(folder))
    with pytest.raises(UserError, match="None of the 1 triplets"):
        id_triplets(Corpus.load(fresh, tokenizer), Split.load(corpus, "train", tokenizer))


@given(st.integers(1, 200), st.integers(1, 200), st.none() | st.integers(1, 250))
def test_every_passage_comes_once_and_queries_equally_often(queries: int, passages: int, sample: int | None) -> None:
    every = EveryPassage.spread(queries, passages, sample)
    rows = every.take(np.arange(len(every)))
    assert np.unique(rows.positive_rows).tolist() == rows.positive_rows.tolist() == every.rows()[1].tolist()
    assert len(every) == min(passages, sample or passages)
    assert (rows.positive_rows.max() < passages, rows.query_rows.max() < queries) == (True, True)
    times = np.bincount(rows.query_rows)[every.rows()[0]]
    assert (len(times), times.max() - times.min() <= 1) == (min(queries, len(every)), True)


@given(st.integers(10, 200), st.sets(st.integers(0, 9)), st.floats(0, 0.9), st.none() | st.integers(1, 250))
def test_some_passages_make_up_a_share(passages: int, some: set[int], share: float, sample: int | None) -> None:
    rows = np.array(sorted(some), np.int64)
    every = EveryPassage.spread(5, passages, sample)
    others = {*every.passages.tolist()} - some
    listed = every.with_share(rows, share).passages
    times = np.bincount(listed, minlength=passages)
    assert {*listed.tolist()} == others | some
    assert (times[[*others]] == 1).all()
    assert len({*times[rows].tolist()}) <= 1
    if some and times[rows[0]] > 1:  # as near to the share as whole numbers allow
        assert abs(times[rows].sum() - share / (1 - share) * len(others)) <= len(some) / 2
