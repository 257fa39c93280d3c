"""The least grade that is relevant is the source's; that others count for nDCG only: test_evaluation.py."""

from pathlib import Path

from two_tower.data.msmarco_passage import MsMarcoPassage


def test_trec_takes_grade_2_for_relevant(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("1\tsome text\n", encoding="utf-8")
    source = MsMarcoPassage(str(tmp_path))
    assert [source.relevant_grade(split) for split in ("train", "dev", "test")] == [1, 1, 2]
    assert MsMarcoPassage(str(tmp_path), relevant_grades={}).relevant_grade("test") == 1
