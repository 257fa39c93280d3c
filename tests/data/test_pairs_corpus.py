"""`data=pairs` with a corpus of its own: answers are found by id, by text, or added; fields stay with passages."""

import logging
from pathlib import Path
from typing import Any

import pytest
from rows import check_refused, values, write_rows

from two_tower.data.base import CORPUS, QRELS, TRIPLETS
from two_tower.data.pairs import PairsSource

PASSAGES = [{"id": f"d{i}", "text": f"passage {i}", "url": f"u{i}"} for i in range(5)]


def make(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> PairsSource:  # noqa: ANN401
    corpus = write_rows(folder / "corpus.jsonl", PASSAGES)
    return PairsSource(write_rows(folder / "faq.jsonl", rows), corpus=corpus, **settings)


def judged(source: PairsSource) -> dict[str, set[str]]:
    """The passages of each query, all splits together."""
    found: dict[str, set[str]] = {}
    for split in source.splits():
        queries = dict(values(source.queries(split)))
        for query, passage, _ in values(source.qrels(split), QRELS):
            found.setdefault(queries[query], set()).add(passage)
    return found


def test_answers_are_found_by_their_texts_or_added(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"query": "a", "answer": "passage 1", "negative": "passage 2"}, {"query": "b", "answer": " passage 3 "},
        {"query": "c", "answer": "another", "negative": "nothing"}, {"query": "a", "answer": "passage 4"},
    ]  # fmt: skip
    source = make(tmp_path, [{"negative": "", **row} for row in rows])
    passages = values(source.corpus(), CORPUS)
    assert passages[:5] == [(row["id"], "", row["text"]) for row in PASSAGES]
    assert [text for *_, text in passages[5:]] == ["another", "nothing"]
    added = passages[5][0]
    assert judged(source) == {"a": {"d1", "d4"}, "b": {"d3"}, "c": {added}}
    assert "0 are passages of" in caplog.text
    assert "3 by their texts; 1 are not there and were added" in caplog.text
    triplets = {row[1:] for row in values(source.triplets(), TRIPLETS)}
    assert triplets <= {("d1", "d2"), (added, passages[6][0])}


def test_answers_are_found_by_their_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"query": "a", "pid": "d1", "answer": "other words"}, {"query": "b", "pid": "d9", "answer": "new"},
        {"query": "c", "pid": "", "answer": "passage 2"}, {"query": "d", "pid": "d3", "answer": ""},
    ]  # fmt: skip
    source = make(tmp_path, rows)
    with caplog.at_level(logging.WARNING):
        assert judged(source) == {"a": {"d1"}, "b": {"d9"}, "c": {"d2"}, "d": {"d3"}}
    assert "2 are passages of" in caplog.text
    assert "1 by their texts; 1 are not there" in caplog.text
    assert values(source.corpus())[5:] == [("d9", "", "new")]


def test_pairs_of_queries_and_ids_need_no_texts(tmp_path: Path) -> None:
    rows = [{"query": "a", "doc": 1}, {"query": "b", "doc": 9}, {"query": "c", "doc": 3}]
    corpus = write_rows(tmp_path / "corpus.csv", [{"id": i, "text": f"text {i}"} for i in range(5)])
    path = write_rows(tmp_path / "faq.parquet", rows)
    make = {"passage_id_column": "doc", "corpus": corpus}
    check_refused(lambda: list(PairsSource(path, **make).corpus()), r"row 2: unknown passage_id \(9\); 1 of 3 rows")
    assert judged(PairsSource(path, **make, max_bad_rows=0.5)) == {"a": {"1"}, "c": {"3"}}


def test_the_fingerprint_sees_the_corpus(tmp_path: Path) -> None:
    rows = [{"query": "a", "answer": "passage 1"}, {"query": "b", "answer": "passage 2"}]
    before = make(tmp_path, rows).fingerprint()
    write_rows(tmp_path / "corpus.jsonl", PASSAGES[:3])
    assert PairsSource(tmp_path / "faq.jsonl", corpus=tmp_path / "corpus.jsonl").fingerprint() != before
    assert PairsSource(tmp_path / "faq.jsonl").fingerprint() != before
