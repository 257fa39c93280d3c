"""What a passage has beside id, title and text: kept for search in every source, as it is; never read for training."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import values, write_rows, write_text

from two_tower.data.base import CORPUS, FIELDS, Source
from two_tower.data.beir import Beir
from two_tower.data.huggingface import HuggingFace
from two_tower.data.pairs import PairsSource
from two_tower.data.passages import Passages

URL = "https://example.org/a?b=1"


def found(source: Source) -> list[dict[str, Any] | str]:
    """The fields of each passage; what training reads has none."""
    plain = list(source.corpus())
    assert all(batch.schema == CORPUS for batch in plain)
    shown = list(source.search_corpus())
    assert [row for batch in shown for row in batch.select(CORPUS.names).to_pylist()] == [
        row for batch in plain for row in batch.to_pylist()
    ]
    texts = [text for batch in shown for text in batch[FIELDS].to_pylist()]
    return [json.loads(text) if text else "" for text in texts]


JSON_ROWS = [
    {"_id": "a", "text": "x", "url": URL, "views": 12345678901234567890123, "score": 1.5, "new": True, "date": None},
    {"_id": "b", "text": "y", "url": None, "metadata": {"a": 1}, "tags": ["t"], "date": "2024-01-02"},
    {"_id": "c", "text": "z", "url": None, "metadata": {}},
    {"_id": "d", "text": "w", "metadata": "now a text", "lang": "日本語"},
]
JSON_FIELDS = [
    {"url": URL, "views": 12345678901234567890123, "score": 1.5, "new": True}, {"date": "2024-01-02"}, "",
    {"metadata": "now a text", "lang": "日本語"},
]  # fmt: skip


def beir(folder: Path) -> Source:
    write_rows(folder / "corpus.jsonl", JSON_ROWS)
    return Beir(folder)


def hub(folder: Path) -> Source:
    write_rows(folder / "corpus/train.jsonl", JSON_ROWS)
    rows = [{"query_id": "q", "query": "?", "positive_document_ids": ["a"], "negative_document_ids": []}]
    return HuggingFace(write_rows(folder / "rows.jsonl", rows), corpus=folder / "corpus", dev_share=0)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize(
    "make", [lambda folder: Passages(write_rows(folder / "a.jsonl", JSON_ROWS)), beir, hub], ids=["file", "beir", "hub"]
)
def test_json(make: Callable[[Path], Source], tmp_path: Path) -> None:
    assert found(make(tmp_path)) == JSON_FIELDS


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz"])
def test_delimited_text(kind: str, tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "x", "url": URL, "n": "007"}, {"id": "b", "text": "y", "url": "", "n": ""}]
    assert found(Passages(write_rows(tmp_path / f"a.{kind}", rows))) == [{"url": URL, "n": "007"}, ""]


def test_parquet(tmp_path: Path) -> None:
    rows = [
        {"id": 2**60 + 1, "text": "x", "day": datetime.date(2024, 1, 2), "f": float("nan"), "l": [1], "b": False},
        {"id": 2, "text": "y", "day": None, "f": None, "l": [2], "b": None},
    ]
    source = Passages(write_rows(tmp_path / "a.parquet", rows))
    assert found(source) == [{"day": "2024-01-02", "b": False}, ""]
    assert values(source.corpus())[0][0] == str(2**60 + 1)


def test_pairs(tmp_path: Path) -> None:
    rows = [{"query": q, "answer": f"to {q}", "negative": "no", "url": f"u{q}"} for q in "ab"]
    assert found(PairsSource(write_rows(tmp_path / "a.csv", rows))) == [{"url": "ua"}, {"url": "ub"}, ""]
    corpus = write_rows(tmp_path / "c.jsonl", [{"id": "1", "text": "to a", "lang": "en"}, {"id": "2", "text": "more"}])
    source = PairsSource(tmp_path / "a.csv", corpus=corpus)
    assert found(source) == [{"lang": "en"}, "", {"url": "ub"}, ""]


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_of_texts(kind: str, tmp_path: Path) -> None:
    rows = [{"query": q, "positive": f"to {q}", "negative": "no", "url": f"u{q}"} for q in "ab"]
    source = HuggingFace(write_rows(tmp_path / f"a.{kind}", rows), dev_share=0)
    assert found(source) == [{"url": "ua"}, {"url": "ub"}, ""] or found(source) == [{"url": "ua"}, "", {"url": "ub"}]


def test_sources_without_such_columns_give_none(tmp_path: Path) -> None:
    rows = [{"id": "a", "title": "t", "text": "x", "metadata": {"a": 1}}]
    for source in (
        Passages(write_rows(tmp_path / "a.jsonl", rows)),
        Passages(write_text(tmp_path / "a.tsv", "a\tone, two.\n")),
        PairsSource(write_rows(tmp_path / "b.csv", [{"query": q, "answer": q} for q in "ab"])),
    ):
        assert all(batch.schema == CORPUS for batch in source.search_corpus())
