"""The table of sample queries: ranks and passages are those of loops, queries stay the same, text is harmless."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracles
import pytest
import rich.console
from hypothesis import given
from hypothesis import strategies as st
from killing import killed_after
from rows import write_rows
from test_train import fit
from training import checkpoint

from two_tower.callbacks.samples import Sample, SampleQueries, beginnings, first_ranks, spread
from two_tower.data.beir import Beir
from two_tower.loading import load_model
from two_tower.metrics import Qrels
from two_tower.run import Run


def saved(run: Path) -> list[dict[str, Any]]:
    callbacks = checkpoint(run)["callbacks"]
    return next(state["samples"] for name, state in callbacks.items() if name.startswith("SampleQueries"))


def test_ranks_and_passages_equal_loops(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(collection, tmp_path / "run", "trainer.max_epochs=1", "optimizer.lr=0.001")
    out = capsys.readouterr().out
    model, tokenizer = load_model(Run(tmp_path / "run"))  # of the one epoch
    source = Beir(str(collection))
    passages = [row for batch in source.corpus() for row in batch.to_pylist()]
    titles = {row["id"]: row["title"] for row in passages}
    texts = {row["id"]: f"{row['title']} {row['text']}" for row in passages}
    ids = {row["text"]: row["id"] for row in source.queries("dev").to_pylist()}
    vectors = model.encode("documents", tokenizer.encode_documents(list(texts.values())))
    samples = saved(tmp_path / "run")
    assert len({sample["text"] for sample in samples}) == 5
    assert len({sample["untrained"] for sample in samples}) > 1
    for sample in samples:
        vector = model.encode("queries", tokenizer.encode_queries([sample["text"]]))[0]
        ranking = oracles.ranked(dict(zip(texts, (vectors @ vector).tolist(), strict=True)))
        right = ids[sample["text"]].replace("q", "d")  # each query has one relevant passage, of its number
        assert sample["ranks"] == [ranking.index(right) + 1]
        assert sample["hits"] == [[titles[d], d == right] for d in ranking[:3]]
        line = f"untrained {sample['untrained']} → {sample['ranks'][0]}  (BM25 {sample['bm25'] or '–'})"
        block = out[out.index(f"  {sample['text']}\n") :].split("\n\n")[0].splitlines()
        assert block[1].strip() == line
        marked = [re.fullmatch(r" +(\d) (✓| ) (\w+)", hit) for hit in block[2:5]]
        assert [(hit[3], hit[2] == "✓") for hit in marked if hit] == [tuple(hit) for hit in sample["hits"]]


def test_the_queries_are_the_same_in_every_run_and_after_a_resume(collection: Path, tmp_path: Path) -> None:
    each_step = "callbacks.last.every_seconds=0"
    fit(collection, tmp_path / "whole", each_step)
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == 7):
        fit(collection, tmp_path / "cut", each_step)
    assert [len(sample["ranks"]) for sample in saved(tmp_path / "cut")] == [1] * 5
    fit(collection, tmp_path / "cut", each_step)
    whole = saved(tmp_path / "whole")
    assert saved(tmp_path / "cut") == whole
    assert [len(sample["ranks"]) for sample in whole] == [2] * 5
    fit(collection, tmp_path / "other", "trainer.max_steps=1", "tower=gru", "seed=3")
    assert [sample["row"] for sample in saved(tmp_path / "other")] == [sample["row"] for sample in whole]


@pytest.mark.parametrize("console", ["each", "never"])
def test_where_it_is_shown(console: str, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["validation.every_n_steps=3", "validation.bm25=false", f"callbacks.samples.console={console}"]
    fit(collection, tmp_path / "run", "trainer.max_epochs=1", *options, "callbacks.samples.queries=2")
    out = capsys.readouterr().out
    heads = [line.split()[:4] for line in out.splitlines() if "before" in line]
    assert heads == [["now", "before", "untrained", "BM25"]] * (2 if console == "each" else 0)  # after steps 3 and 5
    assert "Sample queries" not in out
    samples = saved(tmp_path / "run")
    assert [len(sample["ranks"]) for sample in samples] == [2, 2]
    if console == "each":
        for line, sample in zip(out[out.rindex("before") :].splitlines()[1:3], samples, strict=True):
            before, now = sample["ranks"]
            assert line.split() == [str(now), str(before), str(sample["untrained"]), "–", *sample["text"].split()]


JUDGED = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 9)), st.tuples(st.integers(-1, 3), st.integers(0, 9)), min_size=1
)


@given(judged=JUDGED, threshold=st.integers(1, 2))
def test_the_rank_is_the_best_relevant_passages(judged: dict[tuple[int, int], tuple[int, int]], threshold: int) -> None:
    """(query, document) → (grade, rank)."""
    queries, documents = (np.array(column) for column in zip(*sorted(judged), strict=True))
    grades, ranks = (np.array(column) for column in zip(*(judged[pair] for pair in sorted(judged)), strict=True))
    split: Any = SimpleNamespace(qrels=Qrels(queries, documents, grades, 7), threshold=threshold)
    evaluation: Any = SimpleNamespace(ranking=SimpleNamespace(ranks=ranks))
    for row, found in enumerate(first_ranks(evaluation, split).tolist()):
        right = (rank for (q, _), (grade, rank) in judged.items() if q == row and grade >= threshold and rank)
        assert found == min(right, default=0)


@given(ranks=st.lists(st.integers(0, 40), min_size=1), count=st.integers(1, 8), data=st.data())
def test_queries_are_spread_from_the_easiest_to_the_hardest(ranks: list[int], count: int, data: Any) -> None:  # noqa: ANN401
    rows = sorted(data.draw(st.sets(st.integers(0, len(ranks) - 1))))
    chosen = spread(np.array(ranks), np.array(rows, np.int64), count)
    assert len(chosen) == len(set(chosen)) == min(count, len(rows))
    assert set(chosen) <= set(rows)
    places = sorted(rows, key=lambda row: (ranks[row] or 1000, row))
    parts = [places.index(row) * len(chosen) // len(rows) for row in chosen]
    assert parts == list(range(len(chosen)))  # one of each of as many equal parts


def test_a_passage_without_a_title_is_shown_by_its_beginning(tmp_path: Path) -> None:
    passages = [("a", "A title", "text"), ("b", "", "  ünder " + "x" * 500), ("c", " ", "third")]
    write_rows(tmp_path / "corpus.jsonl", [{"_id": i, "title": title, "text": text} for i, title, text in passages])
    write_rows(tmp_path / "queries.jsonl", [{"_id": "q", "text": "query"}])
    write_rows(tmp_path / "qrels" / "dev.tsv", [{"query-id": "q", "corpus-id": "a", "score": 1}])
    first, second, third = beginnings(SimpleNamespace(source=Beir(str(tmp_path)))).to_pylist()  # type: ignore[arg-type]
    assert (first, third) == ("A title", "third")
    assert re.fullmatch("ünder x{100,300}", second)


def test_foreign_text_harms_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(rich, "_console", rich.console.Console(width=60))
    callback = SampleQueries(SimpleNamespace(latest_name="epoch 1"))  # type: ignore[arg-type]
    evil = "a\nb\r\x1b[2Jc\u202ed\u2028e [bold]f[/nothing] 検索 " + "long " * 40
    callback.samples = [Sample(0, evil, 0, 1234, [5] * 30, [[evil, True], [evil, False]])]
    callback.show()
    out = capsys.readouterr().out
    assert not set(out) & set("\r\x1b\u202e\u2028")
    shown = out.splitlines()
    assert len(shown) == 8
    assert all(len(line) + 2 <= 60 for line in shown[-4:] if "検" in line)  # the two characters are two columns wide
    assert sum("a b [2Jc d e [bold]f[/nothing] 検索 long" in line and line.endswith("…") for line in shown) == 3
    assert "untrained 1,234 → 5 → 5 → 5 → 5 → 5 → … → 5 → 5 → 5 → 5 → 5  (BM25 –)" in out


def test_values_that_show_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="queries=0"):
        SampleQueries(SimpleNamespace(), queries=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hits=-1"):
        SampleQueries(SimpleNamespace(), hits=-1)  # type: ignore[arg-type]
