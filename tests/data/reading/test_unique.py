"""Numbered keys and first rows against Python's own dictionaries."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from two_tower.data.reading.unique import Numbering, OneText, hash_rows, hexadecimal

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Few keys, so that they repeat, some of them equal in the bits that choose a slot; 0 is a key like any other.
keys = st.one_of(st.integers(0, 20), st.integers(0, 5).map(lambda k: k << 32), st.integers(2**64 - 3, 2**64 - 1))


@given(st.lists(st.lists(keys, max_size=15), max_size=20), st.lists(keys))
def test_keys_are_numbered_in_the_order_in_which_they_come(batches: list[list[int]], wanted: list[int]) -> None:
    numbering = Numbering()
    expected: dict[int, int] = {}
    for batch in batches:
        first = [key not in expected and key not in batch[:at] for at, key in enumerate(batch)]
        for key in batch:
            expected.setdefault(key, len(expected))
        numbers, new = numbering.add(np.array(batch, np.uint64))
        assert numbers.tolist() == [expected[key] for key in batch]
        assert new.tolist() == first
    assert len(numbering) == len(expected)
    assert numbering.find(np.array(wanted, np.uint64)).tolist() == [expected.get(key, -1) for key in wanted]


def test_a_numbering_grows() -> None:
    numbering = Numbering()
    many = np.unique(np.random.default_rng(0).integers(2**64, size=50_000, dtype=np.uint64))
    for part in np.array_split(many, 7):
        numbering.add(part)
    assert numbering.find(many).tolist() == list(range(len(many)))
    assert not numbering.add(many[::-1])[1].any()


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


def test_hashes_as_text() -> None:
    assert hexadecimal(np.array([1, 0x75625272DDE3C3B7], np.uint64)).to_pylist() == ["0" * 15 + "1", "75625272dde3c3b7"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1), st.integers(0, 5))
def test_an_id_has_the_text_of_its_first_row(rows: list[tuple[str, str]], cut: int) -> None:
    first: dict[str, str] = {}
    expected = []
    for at, (name, written) in enumerate(rows):
        new, wrong = name not in first, first.setdefault(name, written) != written
        expected.append((new, wrong and (name, written) not in rows[:at], wrong))
    known, found = OneText(), []
    for part in (rows[:cut], rows[cut:]):
        columns = zip(*part, strict=True) if part else ((), ())
        found += zip(*known.add(*(pa.array(column, pa.string()) for column in columns)), strict=True)
    assert found == expected
