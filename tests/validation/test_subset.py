"""Validation on a part of the corpus: the right part, figures of its own, never taken for those of the whole."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from killing import untimed

from two_tower.data.base import CORPUS, PartOfSource
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.data.stream.module import TripletData
from two_tower.evaluation import evaluate_run
from two_tower.run import Run
from two_tower.validation._evaluate import rank_split_by_bm25
from two_tower.validation.subset import SubsetValidation, sampled_rows

Fixture = Callable[..., Any]  # see conftest.py in this folder

JUDGED, OTHERS = 25, 95  # passages of the collection


def subset(data: TripletData, path: Path, sample: int, seed: int = 0) -> tuple[Corpus, Split]:
    return SubsetValidation(Run(path), sample=sample, sample_seed=seed).collection(data)


@given(st.integers(1, 60), st.data())
def test_all_judged_rows_and_as_many_others_as_asked_for(documents: int, draw: st.DataObject) -> None:
    judged = np.array(sorted(draw.draw(st.sets(st.integers(0, documents - 1)))), np.int64)
    sample = draw.draw(st.integers(0, documents - len(judged)))
    seed = draw.draw(st.integers(0, 2**40))
    rows = sampled_rows(documents, judged, sample, seed).tolist()
    assert rows == sorted(set(rows))
    assert set(judged.tolist()) <= set(rows) <= set(range(documents))
    assert len(rows) == len(judged) + sample
    assert rows == sampled_rows(documents, judged, sample, seed).tolist()


def test_every_other_row_is_equally_likely() -> None:
    judged, seeds = np.array([0, 1, 5, 11]), 2000
    drawn = Counter(row for seed in range(seeds) for row in sampled_rows(12, judged, 3, seed).tolist())
    assert {drawn.pop(row) for row in judged.tolist()} == {seeds}
    assert set(drawn) == {2, 3, 4, 6, 7, 8, 9, 10}
    assert all(abs(count / seeds - 3 / 8) < 0.06 for count in drawn.values())  # 5 standard deviations


@pytest.mark.parametrize(("sample", "seed"), [(0, 0), (40, 3)])
def test_a_subset_is_the_collection_that_has_only_its_passages(
    sample: int, seed: int, data: TripletData, judged: set[str], only: Fixture, tmp_path: Path
) -> None:
    corpus, split = subset(data, tmp_path, sample, seed)
    ids = corpus.ids.to_pylist()
    assert judged <= set(ids)
    assert len(ids) == len(set(ids)) == JUDGED + sample == len(corpus)

    alone = Corpus.load(only(ids), data.tokenizer)
    assert ids == alone.ids.to_pylist()  # the order of the corpus
    assert corpus.texts().to_pylist() == alone.texts().to_pylist()
    assert corpus.tokens.to_lists() == alone.tokens.to_lists()
    np.testing.assert_array_equal(corpus.hashes, alone.hashes)
    np.testing.assert_array_equal(corpus.order, alone.order)
    expected = Split.load(alone, "dev", data.tokenizer)
    assert split.name == "dev"
    assert split.ids.to_pylist() == expected.ids.to_pylist()
    for name in ("query_rows", "document_rows", "grades"):
        np.testing.assert_array_equal(getattr(split.qrels, name), getattr(expected.qrels, name))
    assert set(split.qrels.grades.tolist()) == {-1, 0, 1, 2, 3}
    bm25 = [rank_split_by_bm25(*each, data.tokenizer).means for each in ((corpus, split), (alone, expected))]
    assert bm25[0] == bm25[1]


def test_the_figures_are_those_of_loops_over_the_passages(
    data: TripletData, fit: Fixture, by_loops: Fixture, run_file: Fixture, judged: set[str], tmp_path: Path
) -> None:
    options = ["validation=subset", "validation.sample=40", "tower.dim=32", "optimizer.lr=0.1"]
    results = fit(tmp_path / "run", *options, "seed=1")
    assert (results["documents"], results["queries"]) == (JUDGED + 40, 20)
    rankings = run_file(tmp_path / "run")
    ids = set(rankings["q0"])
    assert judged <= ids
    assert len(ids) == JUDGED + 40
    assert ids == set(subset(data, tmp_path, 40)[0].ids.to_pylist())  # whatever the seed of the run is
    expected, all_passages = by_loops(tmp_path / "run", ids), by_loops(tmp_path / "run")
    assert rankings == expected.rankings
    for name, value in expected.means.items():
        assert results[f"val/{name}"] == pytest.approx(value, abs=1e-9), name
        assert value >= all_passages.means[name]
    assert expected.means["mrr@10"] > all_passages.means["mrr@10"]

    found = evaluate_run(tmp_path / "run", None, "dev")  # of all passages, whatever validation ranked
    assert found["documents"] == 120
    for name, value in all_passages.means.items():
        assert found[f"dense/{name}"] == pytest.approx(value, abs=1e-9), name
    assert found["bm25/mrr@10"] < results["bm25/mrr@10"]


def test_no_figure_of_bm25_is_taken_for_that_of_other_passages(data: TripletData, tmp_path: Path) -> None:
    """Measured in this order, so that each finds what the others left in the cache."""
    parts = [(40, 0), (40, 1), (10, 0), (OTHERS, 0), (40, 0)]
    found = [rank_split_by_bm25(*subset(data, tmp_path, *part), data.tokenizer).means["mrr"] for part in parts]
    full = rank_split_by_bm25(data.corpus, data.validation, data.tokenizer).means["mrr"]
    assert found[0] == found[4]
    assert found[3] == full
    assert len({*found[:3], full}) == 4
    assert full == min(found)


def test_a_part_has_its_sources_questions_and_its_own_fingerprint(data: TripletData, collection: Path) -> None:
    rows = np.array([1, 4, 7])
    parts = [PartOfSource(data.source, some) for some in (rows, rows + 1, rows[:2])]
    sources = [data.source, *parts, PartOfSource(Beir(str(collection)), rows)]
    assert len({source.fingerprint() for source in sources}) == 5
    same = PartOfSource(data.source, rows.astype(np.int32))
    assert same.fingerprint() == parts[0].fingerprint()
    assert (same.name, same.splits()) == (data.source.name, data.source.splits())
    assert same.queries("dev").equals(data.source.queries("dev"))
    assert same.qrels("dev").equals(data.source.qrels("dev"))
    assert next(iter(same.search_corpus()))["id"].to_pylist() == ["d1", "d4", "d7"]


def test_a_sample_as_large_as_the_corpus_is_the_corpus(
    data: TripletData, fit: Fixture, whole: Fixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(subset(data, tmp_path, OTHERS - 1)[0]) == 119
    for sample in (OTHERS, OTHERS + 1, 100_000):
        assert subset(data, tmp_path, sample) == (data.corpus, data.validation)
    uncut, expected = whole()
    capsys.readouterr()
    results = fit(tmp_path / "run", "validation=subset", f"validation.sample={OTHERS}")
    assert untimed(results) == untimed(expected)
    assert (tmp_path / "run" / "run.trec").read_text().replace(" run\n", " whole\n") == (uncut / "run.trec").read_text()
    told = capsys.readouterr().out
    assert f"25 judged passages and a sample of {OTHERS} are no fewer than the corpus has" in told
    assert "each against all 120 passages\n" in told


def test_a_negative_number_is_refused(tmp_path: Path) -> None:
    for key in ("sample", "sample_seed"):
        with pytest.raises(ValueError, match=f"^{key}=-1 must be at least 0"):
            SubsetValidation(Run(tmp_path), **{key: -1})  # type: ignore[arg-type]


BATCHES, BATCH_ROWS, TEXT = 40, 100, "x" * 10_000  # 1 MB a batch


class Large(Beir):
    """Makes its passages as they are read, and notes how much memory Arrow holds at each batch."""

    def corpus(self) -> Iterator[pa.RecordBatch]:
        start, self.held = pa.total_allocated_bytes(), list[int]()
        for batch in range(BATCHES):
            ids = [f"d{batch * BATCH_ROWS + row}" for row in range(BATCH_ROWS)]
            yield pa.record_batch([ids, [""] * BATCH_ROWS, [TEXT] * BATCH_ROWS], schema=CORPUS)
            self.held.append(pa.total_allocated_bytes() - start)


def test_reading_a_part_holds_the_part_and_one_batch(collection: Path) -> None:
    source, batch_bytes = Large(str(collection)), BATCH_ROWS * len(TEXT)
    kept = list(PartOfSource(source, np.arange(0, BATCHES * BATCH_ROWS, BATCH_ROWS)).corpus())
    assert [batch["id"].to_pylist() for batch in kept] == [[f"d{row}"] for row in range(0, 4000, 100)]
    assert max(source.held) < 4 * batch_bytes
    whole = list(source.corpus())  # the measure works: all batches are held here
    assert len(whole) == BATCHES
    assert max(source.held) > 30 * batch_bytes
