"""Figures in documents are those that are stored, and tables are made of these."""

import json
from pathlib import Path

import pytest
from conftest import composed

from benchmarks import experiments, tables
from benchmarks.fill import WRITTEN, read
from benchmarks.subsets import answers_of, write_subset
from benchmarks.tables import Column, Experiment, Row, figure, filled, table
from two_tower.data.beir import Beir
from two_tower.train import train


@pytest.mark.parametrize("name", WRITTEN)
def test_the_documents_show_what_is_stored(name: str) -> None:
    text = read(name)
    assert text
    assert WRITTEN[name](text) == text, "run  python -m benchmarks.fill"


ROWS = [
    {"experiment": "x", "row": row, "variant": "seen", "seed": seed, "seconds": 40 + seed,
     "figures": {"dense/mrr@10": value, "bm25/mrr@10": 0.699, "dense/mrr@10/p_vs_bm25": p, "queries": 3490}}
    for row, seed, value, p in (("a", 0, 0.5, 0.0001), ("a", 1, 0.6, 0.0002), ("b", 0, 0.75, 0.04))
]  # fmt: skip


def test_figures_are_means_with_deviations() -> None:
    assert figure(ROWS, "x", "a", "seen", "dense/mrr@10") == ".550 ± .071"
    assert figure(ROWS, "x", "b", "seen", "dense/mrr@10") == ".750"
    assert figure(ROWS, "x", "a", "seen", "dense/mrr@10/p_vs_bm25") == "< .001"
    assert figure(ROWS, "x", "b", "seen", "dense/mrr@10/p_vs_bm25") == ".040"
    assert figure(ROWS, "x", "a", "seen", "queries") == "3,490"
    assert figure(ROWS, "x", "a", "seen", "seconds") == "40 s"
    assert figure(ROWS, "x", "c", "seen", "dense/mrr@10") == figure(ROWS, "x", "a", "seen", "dense/absent") == ""


def test_tables_and_single_figures_are_filled_in() -> None:
    columns = [Column("MRR@10", "seen", "dense/mrr@10"), Column("time", "seen", "seconds")]
    shown = {"x": Experiment({"a": Row("A"), "b": Row("b"), "c": Row("c")}, {}, columns)}
    head, a, b = "| | MRR@10 | time |\n| --- | ---: | ---: |", "| A | .550 ± .071 | 40 s |", "| b | .750 | 40 s |"
    wanted = f"{head}\n{a}\n{b}\n| *BM25* | *.699* | |"
    assert table(ROWS, "x", shown["x"]) == wanted
    page = "# A page\n\n<!-- figures x -->\nold\n<!-- end -->\n\n"
    page += "It is .123<!-- x | b | seen | dense/mrr@10 --> of 7."
    once = filled(page, ROWS, shown)
    assert f"<!-- figures x -->\n{wanted}\n<!-- end -->" in once
    assert "It is .750<!-- x | b | seen | dense/mrr@10 --> of 7." in once
    assert filled(once, ROWS, shown) == once


def test_parts_of_collections(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path))
    part = write_subset("part", collection, 60, queries=10, training=20)
    assert write_subset("part", collection, 60, queries=10, training=20) == part
    source = Beir(part)
    assert sum(len(batch) for batch in source.corpus()) == 60
    assert (len(source.queries("dev")), len(source.queries("train"))) == (10, 20)
    assert len(source.qrels("dev")) >= 10
    relevant = {row["document_id"] for row in Beir(collection).qrels("dev").to_pylist() if row["grade"] > 0}
    assert set(answers_of(collection, "dev").read_text().split()) == relevant


def test_an_experiment_is_run_once(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FIGURES", tmp_path / "figures.json")
    small = ("trainer.max_epochs=1", "tower.dim=8", "data.batch_size=32", "trainer=cpu")
    variants = {"all": experiments._data("beir")}
    monkeypatch.setitem(
        experiments.EXPERIMENTS, "x", Experiment({"a": Row("A", small)}, variants, [], split="dev", seeds=(3,))
    )
    monkeypatch.setattr(experiments, "_train", lambda overrides: train(composed(*overrides)))  # in this process
    for _ in range(2):
        experiments.run("x", {"beir": collection}, tmp_path / "runs")
    (row,) = json.loads((tmp_path / "figures.json").read_text())
    assert (row["experiment"], row["row"], row["variant"], row["seed"]) == ("x", "a", "all", 3)
    assert {"dense/mrr@10", "bm25/recall@100", "hybrid/mrr@10/p_vs_bm25", "untrained/mrr@10", "queries"} <= {
        *row["figures"]
    }
    assert not any(key.endswith("/low") for key in row["figures"])
