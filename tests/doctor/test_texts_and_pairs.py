"""Each measure of texts, pairs and triplets equals a plain reading of its definition."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_tower.doctor import texts as counted
from two_tower.doctor.facts import TripletHashes, suspicious_triplets
from two_tower.doctor.texts import Judged, distribution
from two_tower.ragged import Ragged

UNKNOWN = 0

token_lists = st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=12)
few_hashes = st.integers(1, 4)


def hashes(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


@given(st.lists(st.integers(0, 300), max_size=60))
def test_a_distribution_is_numpys(values: list[int]) -> None:
    found = distribution(np.bincount(values, minlength=1))
    edges = found["histogram"]["edges"]
    for key, share in {"min": 0, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1}.items():
        assert found[key] == (np.quantile(values, share, method="inverted_cdf") if values else 0)
    assert found["mean"] == pytest.approx(np.mean(values) if values else 0)
    assert set(edges) <= {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384}
    bins = Counter(max(edge for edge in edges if edge <= value) for value in values)
    assert found["histogram"]["counts"] == [bins[edge] for edge in edges[:-1]]
    assert not values or edges[-1] > max(values)


@given(token_lists, st.integers(1, 4), st.integers(1, 9))
def test_texts_are_counted_in_whatever_batches(texts: list[list[int]], step: int, limit: int) -> None:
    batches = (Ragged.from_lists(texts[start : start + step]) for start in range(0, len(texts), step))
    found = counted.text_facts(batches, UNKNOWN, limit)
    tokens = [t for text in texts for t in text]
    assert (found["count"], found["tokens"]) == (len(texts), len(tokens))
    assert found["unknown"]["tokens"] == tokens.count(UNKNOWN)
    assert found["unknown"]["texts"] == sum(not set(text) - {UNKNOWN} for text in texts)
    assert found["cut"]["texts"] == sum(len(text) > limit for text in texts)
    assert found["cut"]["tokens"] == sum(len(text[limit:]) for text in texts)
    assert found["cut"]["token_rate"] == pytest.approx(found["cut"]["tokens"] / max(len(tokens), 1))


@given(st.lists(st.integers(0, 6), max_size=20))
def test_duplicates_are_those_of_a_plain_count(values: list[int]) -> None:
    ids = pa.chunked_array([pa.array([f"t{i}" for i in range(len(values))], pa.string())])
    found = counted.duplicates(hashes(values), ids)
    groups = {v: [f"t{i}" for i, other in enumerate(values) if other == v] for v in values if v}
    groups = {v: rows for v, rows in groups.items() if len(rows) > 1}
    assert found["groups"] == len(groups)
    assert found["texts"] == sum(map(len, groups.values()))
    assert found["examples"] == [rows[:3] for rows in groups.values()][:3]


@given(token_lists, token_lists)
def test_overlap_is_that_of_sets(left: list[list[int]], right: list[list[int]]) -> None:
    count = min(len(left), len(right))
    found = counted.lexical_overlap(Ragged.from_lists(left[:count]), Ragged.from_lists(right[:count]), UNKNOWN)
    for share, query, document in zip(found, left, right, strict=False):
        asked = set(query) - {UNKNOWN}
        expected = len(asked & set(document)) / len(asked) if asked else np.nan
        np.testing.assert_equal(share, expected)


pairs_of_three = st.lists(st.tuples(few_hashes, few_hashes, few_hashes), max_size=30)


@given(pairs_of_three, st.lists(st.tuples(few_hashes, few_hashes), max_size=5))
def test_suspicious_triplets_are_those_of_a_plain_reading(
    triplets: list[tuple[int, int, int]], known: list[tuple[int, int]]
) -> None:
    queries, positives, negatives = (hashes([t[i] for t in triplets]) for i in range(3))
    keys = counted.pair_keys(hashes([q for q, _ in known]), hashes([d for _, d in known]))
    found = suspicious_triplets(TripletHashes(queries, positives, negatives), keys)
    for i, (query, positive, negative) in enumerate(triplets):
        assert found["positive_is_negative"][i] == (positive == negative)
        assert found["negative_is_relevant"][i] == (positive != negative and (query, negative) in known)
        assert found["positive_not_relevant"][i] == ((query, positive) not in known)
        assert found["positive_is_query"][i] == (query == positive)


@st.composite
def judgements(draw: st.DrawFn) -> Judged:
    queries = draw(st.lists(few_hashes, min_size=1, max_size=8))
    rows = sorted(draw(st.lists(st.integers(0, len(queries) - 1), max_size=12)))
    documents = draw(st.lists(few_hashes, min_size=len(rows), max_size=len(rows)))
    return Judged(hashes(queries), np.array(rows, np.int64), hashes(documents))


@given(judgements(), judgements())
def test_leakage_is_that_of_a_plain_comparison(train: Judged, other: Judged) -> None:
    leaked, with_answer = counted.leakage(train, other)
    seen = {(int(train.queries[q]), int(d)) for q, d in zip(train.query_rows, train.documents, strict=True)}
    for row, query in enumerate(other.queries):
        assert leaked[row] == (query in train.queries)
        answers = other.documents[other.query_rows == row]
        assert with_answer[row] == any((int(query), int(d)) in seen for d in answers)


@given(judgements(), st.lists(few_hashes, max_size=6))
def test_copies_that_are_not_judged_are_those_of_a_plain_count(judged: Judged, more: list[int]) -> None:
    # A passage is judged once for a query, so the corpus has as many as the most judgements of one query.
    judgements_of = Counter(zip(judged.query_rows.tolist(), judged.documents.tolist(), strict=True))
    corpus = Counter(more)
    for (_, document), count in judgements_of.items():
        corpus[document] = max(corpus[document], count)
    found = counted.unjudged_copies(judged, np.sort(hashes(list(corpus.elements()))))
    for copied, row, document in zip(found, judged.query_rows, judged.documents, strict=True):
        assert copied == (corpus[int(document)] > judgements_of[int(row), int(document)])
