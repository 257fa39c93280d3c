"""Filters leave the passages for which all conditions hold, in the order that they have without."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import composed, word
from test_train import fit

from two_tower import search
from two_tower.data.base import FIELDS
from two_tower.data.beir import Beir
from two_tower.embed import embed
from two_tower.filters import Condition, FilterError
from two_tower.index.faiss import FlatIndex, HnswIndex
from two_tower.search import Mode, Searcher

DAYS = ["2023-12-31", "2024-01-01", "2024-06-30"]


def fields_of(row: int) -> dict[str, Any]:
    return {} if row % 7 == 6 else {"lang": "dé" if row % 3 else "en", "year": 2000 + row, "day": DAYS[row % 3]}


class Described(Beir):
    """A BEIR folder whose passages have fields."""

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in self.corpus():
            described = [json.dumps(fields_of(row + i)) for i in range(len(batch))]
            row += len(batch)
            yield pa.RecordBatch.from_arrays([*batch.columns, pa.array(described)], [*batch.schema.names, FIELDS])


@pytest.fixture(scope="module")
def searcher(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    run = tmp_path_factory.mktemp("filters") / "run"
    fit(collection, run, "tokenizer.min_frequency=1", "trainer.max_steps=1")
    config = composed(f"run={run}", "data=beir", f"data.path={collection}", program="embed")
    config["data"]["_target_"] = f"{Described.__module__}.Described"
    embed(config)
    return Searcher.load(run)


@pytest.mark.parametrize("mode", search.MODES)
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("where", [["lang=dé"], ["year>=2100", "day<2024-02"], ["lang!=en"], ["year=2003"], ["year<0"]])
def test_what_fits_is_found_as_if_it_were_alone(
    mode: Mode, exact: bool, where: list[str], searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlatIndex, "exact", exact)  # which gives the first that fit; else these are compared one by one
    holds = {
        "lang=dé": lambda f: f.get("lang") == "dé", "lang!=en": lambda f: f.get("lang") != "en",
        "year>=2100": lambda f: f.get("year", 0) >= 2100, "day<2024-02": lambda f: f.get("day", "9") < "2024-02",
        "year=2003": lambda f: f.get("year") == 2003, "year<0": lambda f: False,
    }  # fmt: skip
    for query in (word(0), f"{word(1)} {word(5)} {word(9)}"):
        (whole,) = searcher.search([query], k=searcher.passages, mode=mode)
        (found,) = searcher.search([query], k=5, mode=mode, where=where)
        fits = [hit for hit in whole.hits if all(holds[each](hit.fields) for each in where)]
        if mode == "hybrid":  # whose scores depend on what else is among the best
            assert {hit.id for hit in found.hits} <= {hit.id for hit in fits}
            assert len(found.hits) == min(5, len(fits))
        else:
            assert [hit.id for hit in found.hits] == [hit.id for hit in fits[:5]]
            np.testing.assert_allclose([h.score for h in found.hits], [h.score for h in fits[:5]], atol=1e-5)
        matching = sum(all(holds[each](fields_of(row)) for each in where) for row in range(searcher.passages))
        assert (f"{matching:,} passages match the filter." in found.notes) == (matching < 5)


def test_an_approximate_index_is_searched_the_wider_the_fewer_fit(
    searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, asked = HnswIndex(ef_search=8), list[int]()
    index.build(searcher.store)
    change = index.set_search_value
    monkeypatch.setattr(index, "set_search_value", lambda value: (asked.append(value), change(value)))
    where, query = ["year<2040"], word(3)
    (exact,) = searcher.search([query], k=3, where=where)
    monkeypatch.setattr(searcher, "index", index)
    (few,) = searcher.search([query], k=3, where=where)
    assert not asked  # compared one by one
    monkeypatch.setattr(search, "FEW", 0)
    (found,) = searcher.search([query], k=3, where=where)
    assert [hit.id for hit in found.hits] == [hit.id for hit in few.hits] == [hit.id for hit in exact.hits]
    matching = sum(fields_of(row).get("year", 9999) < 2040 for row in range(searcher.passages))
    assert asked[0] == math.ceil(8 * (2 * 3 * searcher.passages // matching) / 3)
    assert index.ef_search == asked[-1] == 8


@pytest.mark.parametrize(
    ("written", "fields", "holds"),
    [
        ("a=1", {"a": 1}, True), ("a=1.0", {"a": 1}, True), ("a=1", {"a": "1"}, True), ("a<10", {"a": 9}, True),
        ("a<10", {"a": "9"}, False), ("a = b c ", {"a": "b c"}, True), ("a=b=c", {"a": "b=c"}, True),
        ("a=true", {"a": True}, True), ("a!=1", {}, True), ("a<1", {}, False),
        ("a>=2024-01", {"a": "2024-01-01"}, True),
        ("a=x", {"a": 1}, False), ("a=", {"a": ""}, True), ("a b>1", {"a b": 2}, True),
    ],
)  # fmt: skip
def test_conditions(written: str, fields: dict[str, Any], holds: bool) -> None:
    assert Condition.read(written).holds(fields) == holds


def test_a_filter_that_fits_nothing_by_mistake_is_told(searcher: Searcher, collection: Path, tmp_path: Path) -> None:
    for where, said in (("lnag=de", "No passage has a field lnag; did you mean 'lang'"), ("lang", "cannot be read")):
        with pytest.raises(FilterError, match=said):
            searcher.search(["x"], where=[where])
    fit(collection, tmp_path / "run", "trainer.max_steps=1")
    embed(composed(f"run={tmp_path / 'run'}", program="embed"))
    with pytest.raises(FilterError, match="No passage has a field lang; they have none"):
        Searcher.load(tmp_path / "run").search(["x"], where=["lang=de"])
