"""The file of per-query values."""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.errors import UserError
from two_tower.metrics import read_per_query as read
from two_tower.metrics import write_per_query as write

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
FIGURES = st.floats(allow_nan=False)


@settings(max_examples=40)
@given(st.lists(st.tuples(TEXTS, TEXTS, FIGURES, FIGURES), max_size=5), st.booleans())
def test_what_is_written_reads_back_equal(rows: list[tuple[str, str, float, float]], with_texts: bool) -> None:
    ids, texts, a, b = ([row[i] for row in rows] for i in range(4))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "per_query.csv"
        write(path, ids, {"mrr@10": np.array(a), "bm25/mrr@10": np.array(b)}, texts if with_texts else None)
        found = read(path)
    assert (found.ids, found.texts) == (ids, texts if with_texts else [])
    assert list(found.values) == ["mrr@10", "bm25/mrr@10"]
    np.testing.assert_array_equal(found.values["mrr@10"], np.array(a, np.float64))
    np.testing.assert_array_equal(found.values["bm25/mrr@10"], np.array(b, np.float64))


def test_other_programs_read_it(tmp_path: Path) -> None:
    write(tmp_path / "q.csv", ["a", "b,c"], {"mrr@10": np.array([1 / 3, 1])}, ['say "hi"', "two\nlines"])
    with (tmp_path / "q.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"query": "b,c", "text": "two\nlines", "mrr@10": "1.0"}
    assert rows[0]["mrr@10"] == repr(1 / 3)


def test_columns_must_be_equally_long(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write(tmp_path / "q.csv", ["a", "b"], {"mrr": np.array([1.0])})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "id,mrr\na,1\n", "query,mrr\na,many\n", "query,mrr\na,1\nb\n"])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(content)
    with pytest.raises(UserError, match="is not a table of queries"):
        read(tmp_path / "q.csv")
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none.csv")
