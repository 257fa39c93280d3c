"""The least grade that is relevant is the source's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_collection

from two_tower.data.beir import Beir
from two_tower.data.msmarco_passage import MsMarcoPassage
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.tokenizer.word import WordTokenizer
from two_tower.validation._evaluate import rank_split_by_bm25


class Graded(Beir):
    """The second half of the dev queries has grade 1, which is not enough."""

    least = 2

    def relevant_grade(self, split: str) -> int:
        return self.least


def test_lower_grades_count_for_ndcg_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    folder = write_collection(tmp_path / "beir", documents=60)
    path = folder / "qrels" / "dev.tsv"
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    half = len(rows) // 2
    rows = [r.rsplit("\t", 1)[0] + ("\t2" if i < half else "\t1") for i, r in enumerate(rows)]
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")

    strict, lenient = Graded(str(folder)), Graded(str(folder))
    lenient.least = 1
    tokenizer = WordTokenizer(min_frequency=1).train(b.column("text") for b in strict.corpus())
    figures = {}
    for name, source in (("strict", strict), ("lenient", lenient)):
        corpus = Corpus.load(source, tokenizer)
        split = Split.load(corpus, "dev", tokenizer)
        figures[name] = rank_split_by_bm25(corpus, split, tokenizer).per_query
    np.testing.assert_array_equal(figures["strict"]["ndcg@10"], figures["lenient"]["ndcg@10"])
    np.testing.assert_array_equal(figures["strict"]["mrr@10"][:half], figures["lenient"]["mrr@10"][:half])
    assert (figures["lenient"]["mrr@10"][half:] > 0).all()
    assert (figures["strict"]["mrr@10"][half:] == 0).all()


def test_trec_takes_grade_2_for_relevant(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("1\tsome text\n", encoding="utf-8")
    source = MsMarcoPassage(str(tmp_path))
    assert [source.relevant_grade(split) for split in ("train", "dev", "test")] == [1, 1, 2]
    assert MsMarcoPassage(str(tmp_path), relevant_grades={}).relevant_grade("test") == 1
