"""Hash sets and first rows against Python's own sets."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.data.reading.rows import BadRows
from two_tower.data.reading.unique import HashSet, Unique, hash_rows

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(st.integers(1, 30), max_size=12), max_size=30), st.lists(st.integers(1, 35)))
def test_the_set_of_hashes_is_a_set(batches: list[list[int]], questions: list[int]) -> None:
    hashes, known = HashSet(), set()
    for batch in batches:
        expected = []
        for key in batch:
            expected.append(key in known)
            known.add(key)
        assert hashes.add(np.array(batch, np.uint64)).tolist() == expected
    assert len(hashes) == len(known)
    assert hashes.contains(np.array(questions, np.uint64)).tolist() == [q in known for q in questions]


def test_zero_is_a_hash_too() -> None:
    zero = np.zeros(1, np.uint64)
    hashes = HashSet()
    assert not hashes.contains(zero).any()
    assert hashes.add(np.repeat(zero, 2)).tolist() == [False, True]
    assert hashes.contains(zero).all()


def test_the_set_grows_and_keeps_all() -> None:
    rng = np.random.default_rng(0)
    hashes, keys = HashSet(), rng.integers(2, 2**63, 50_000).astype(np.uint64)
    for part in np.array_split(keys, 7):
        hashes.add(part)
    assert len(hashes) == len(set(keys.tolist()))
    assert hashes.contains(keys).all()
    assert not hashes.contains(rng.integers(2**63, 2**64, 1000, dtype=np.uint64)).any()


@settings(deadline=None)
@given(st.lists(st.tuples(text, text), min_size=1), st.integers(0, 3))
def test_equal_rows_have_equal_hashes_and_others_have_not(rows: list[tuple[str, str]], cut: int) -> None:
    first, second = (pa.array(column, pa.string()) for column in zip(*rows, strict=True))
    chunks = [pa.chunked_array([c[:cut], c[cut:]], pa.string()) for c in (first, second)]
    hashes = hash_rows(*chunks).tolist()
    assert hashes == hash_rows(pa.chunked_array([first]), pa.chunked_array([second])).tolist()
    assert len(set(hashes)) == len(set(rows))
    # A row alone, too: neither its place nor its neighbours matter.
    assert hash_rows(*(pa.chunked_array([[value]], pa.string()) for value in rows[-1])).tolist() == hashes[-1:]


def test_where_a_text_ends_matters() -> None:
    rows = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("a\0", ""), ("a", ""), ("a" * 8, ""), ("a" * 16, "")]
    columns = [pa.chunked_array([list(column)]) for column in zip(*rows, strict=True)]
    assert len(set(hash_rows(*columns).tolist())) == len(rows)


def test_first_rows_pass_and_contradictions_are_bad() -> None:
    unique, bad = Unique(key=1), BadRows(1)
    table = pa.table({"id": ["1", "2", "1", "1", "2"], "text": ["a", "b", "a", "c", "b"]})
    kept = unique.filter(table, np.arange(1, 6), bad, Path("corpus.tsv"), "id again")
    assert kept.to_pydict() == {"id": ["1", "2"], "text": ["a", "b"]}
    later = unique.filter(table.slice(2, 3), np.arange(6, 9), bad, Path("corpus.tsv"), "id again")
    assert len(later) == 0
    assert bad.counts == {"id again": 1}  # the row that came at 7 had come before
    assert bad.examples == {"id again": ["corpus.tsv, row 4: id again (1)"]}
