"""``data.exclude_same_id``: a query that is itself a passage, as in ArguAna, does not find itself."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from conftest import configure, word, write_collection
from test_evaluation import Scores, scores, standardised
from training import triplet_data

from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.data.stream.module import TripletData
from two_tower.doctor.facts import inspect
from two_tower.doctor.inspect_page import show
from two_tower.evaluation import evaluate_run
from two_tower.negatives.base import DrawContext, Negatives
from two_tower.negatives.bm25 import BM25Negatives
from two_tower.negatives.random import RandomNegatives
from two_tower.train import train
from two_tower.validation._evaluate import rank_split, rank_split_by_bm25

PLAIN = "asked"  # a query whose id is no passage
METRICS: dict[str, Callable[..., float]] = {
    "mrr@10": partial(oracles.reciprocal_rank, k=10),
    "mrr": oracles.reciprocal_rank,
    "recall@1": partial(oracles.recall, k=1),
    "recall@10": partial(oracles.recall, k=10),
    "recall@100": partial(oracles.recall, k=100),
    "ndcg@10": partial(oracles.ndcg, k=10),
}


def write_arguments(folder: Path, passages: int, seed: int = 0) -> Path:
    """A debate: each passage is also a query, with the same id and text, and its neighbour answers it."""
    write_collection(folder, 6, triples=False)  # its files are replaced
    rng = np.random.default_rng(seed)
    texts = {}
    for i in range(passages):
        topic = [word(2000 + i // 2), word(3000 + i // 2)]
        texts[f"p{i}"] = " ".join(rng.permutation([*topic, *(word(n) for n in rng.integers(0, 40, 12))]))
    queries = {**texts, PLAIN: f"{texts['p0']} {word(7)}"}
    for name, rows in (("corpus", texts), ("queries", queries)):
        lines = [json.dumps({"_id": i, "title": "", "text": text}) + "\n" for i, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    judged = {f"p{i}": f"p{i ^ 1}" for i in range(passages - passages % 2)}
    parts = {"train": [*judged][::2], "dev": [*judged][1::4], "test": [*judged][3::4]}
    for split, names in parts.items():
        lines = [f"{name}\t{judged[name]}\t1\n" for name in names]
        if split == "dev":  # grades, a judgement of the query's own passage, and one for a query that is none
            lines += [f"{names[0]}\t{names[0]}\t2\n", f"{names[0]}\tp5\t2\n", f"{PLAIN}\tp0\t1\n"]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


@pytest.fixture(scope="module", params=[130, 30], ids=["large", "small"])
def arguments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With more passages than are ranked for a query, and with fewer."""
    return write_arguments(tmp_path_factory.mktemp("arguments") / "beir", request.param)


@pytest.fixture(scope="module")
def trained(arguments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("same") / "run"
    train(configure(arguments, run, "data.exclude_same_id=true", "data.batch_size=8", "tower.dim=8"))
    return run


def without_own(found: Scores) -> Scores:
    return {query: {d: s for d, s in its.items() if d != query} for query, its in found.items()}


def means(ranked: dict[str, list[str]], grades: dict[str, dict[str, int]]) -> dict[str, float]:
    return {n: statistics.mean(metric(ranked[q], grades[q]) for q in grades) for n, metric in METRICS.items()}


def in_order(found: Scores, depth: int | None = None) -> dict[str, list[str]]:
    return {query: oracles.ranked(its)[:depth] for query, its in found.items()}


def test_every_figure_is_that_of_the_run_without_the_own_passage(trained: Path, arguments: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    dense, lexical, grades = scores(trained, arguments, "dev")
    assert PLAIN in grades
    assert any(query in judged for query, judged in grades.items())
    assert all(
        oracles.ranked(lexical[query])[0] == query for query in grades if query != PLAIN
    )  # else a test of nothing
    expected = {kind: means(in_order(without_own(each)), grades) for kind, each in (("val", dense), ("bm25", lexical))}
    for kind, figures in expected.items():
        for name, value in figures.items():
            if f"{kind}/{name}" in results:
                assert results[f"{kind}/{name}"] == pytest.approx(value, abs=1e-6), (kind, name)


def test_the_run_file_holds_all_other_passages(trained: Path, arguments: Path) -> None:
    dense, _, grades = scores(trained, arguments, "dev")
    rows = [line.split() for line in (trained / "run.trec").read_text().splitlines()]
    found = {query: [row[2] for row in rows if row[0] == query] for query in grades}
    assert found == in_order(without_own(dense), 100)
    assert "p0" in found[PLAIN]
    results = json.loads((trained / "results.json").read_text())
    assert results["val/mrr@10"] == pytest.approx(means(found, grades)["mrr@10"], abs=1e-9)


@pytest.mark.parametrize("split", ["test"])  # dev chooses the weight
def test_evaluate_and_its_hybrid_leave_it_out(trained: Path, arguments: Path, tmp_path: Path, split: str) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    results = evaluate_run(run, None, split, hybrid=True)
    dense, lexical, grades = scores(run, arguments, split)
    dense, lexical = without_own(dense), without_own(lexical)
    weight, fused = json.loads((run / "hybrid.json").read_text())["weight"], Scores()
    assert weight == results["fusion/weight"]
    for query in grades:
        if weight is None:  # reciprocal ranks
            pytest.fail("the test needs a weighted sum")
        towers, words = standardised(dense[query], None), standardised(lexical[query], 0.0)
        fused[query] = {d: weight * towers.get(d, 0) + (1 - weight) * words.get(d, 0) for d in towers | words}
    systems = {"dense": dense, "bm25": lexical, "hybrid": fused}
    if len(dense[query]) < 100:
        del systems["hybrid"]  # how many places are filled up is no matter of this test
    for system, each in systems.items():
        for name, value in means(in_order(each), grades).items():
            if f"{system}/{name}" in results:
                assert results[f"{system}/{name}"] == pytest.approx(value, abs=1e-6), (system, name)


def data_of(folder: Path, work: Path, negatives: Negatives, **settings: Any) -> TripletData:  # noqa: ANN401
    return triplet_data(Beir(str(folder)), work, negatives, batch_size=8, **settings)


NEGATIVES = {
    "bm25": partial(BM25Negatives, count=3, relative_margin=None),
    "random": partial(RandomNegatives, count=20),
}


@pytest.mark.parametrize("kind", NEGATIVES)
def test_the_own_passage_is_no_negative(arguments: Path, tmp_path: Path, kind: str) -> None:
    """Although BM25 mined the same collection without the key before."""
    drawn = {}
    for exclude in (False, True):
        data = data_of(arguments, tmp_path / f"run{exclude}", NEGATIVES[kind](), exclude_same_id=exclude)
        names, passages = data.train.ids.to_pylist(), data.corpus.ids.to_pylist()
        queries = np.repeat(np.arange(len(names)), 30)
        context = DrawContext(queries, None, data.training_set.positives, np.random.default_rng(0))
        rows = data.negatives.extra_negatives(context)
        drawn[exclude] = sum(passages[d] == names[q] for q, row in zip(queries, rows, strict=True) for d in row)
    assert drawn[False] > 0
    assert drawn[True] == 0


@pytest.mark.parametrize("exclude", [True, False])
def test_what_the_model_mines_leaves_it_out(arguments: Path, tmp_path: Path, exclude: bool) -> None:
    keys = ["negatives=ann", "negatives.first_epoch=1", "negatives.last_rank=20", "negatives.relative_margin=null"]
    keys += ["trainer.max_epochs=1", "validation.bm25=false", f"data.exclude_same_id={str(exclude).lower()}"]
    train(configure(arguments, tmp_path / "run", *keys, "data.batch_size=8", "tower.dim=8"))
    (path,) = (tmp_path / "run" / "negatives").glob("*.npy")
    data = data_of(arguments, tmp_path / "data", NEGATIVES["random"]())
    names, passages = data.train.ids.to_pylist(), data.corpus.ids.to_pylist()
    own = [name in {passages[row] for row in rows if row >= 0} for name, rows in zip(names, np.load(path), strict=True)]
    assert any(own) is not exclude


def test_no_negative_within_a_batch_either(arguments: Path, tmp_path: Path) -> None:
    """The own passage may come as the answer to another query."""
    for exclude in (False, True):
        data = data_of(arguments, tmp_path / f"run{exclude}", NEGATIVES["random"](), exclude_same_id=exclude)
        names, passages = data.train.ids.to_pylist(), data.corpus.ids.to_pylist()
        own = np.array([passages.index(name) for name in names])
        mask = data.negative_mask.in_batch(np.roll(np.arange(len(names)), 1), own)  # no query has its own row
        assert mask[np.arange(len(names)), np.roll(np.arange(len(names)), 1)].any() != exclude


@pytest.mark.parametrize("key", [[], ["data.exclude_same_id=true"], ["data.exclude_same_id=false"]])
def test_inspect_says_when_it_is_needed(arguments: Path, key: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    facts = inspect(["data=beir", f"data.path={arguments}", *key])
    assert ("own_passages" in [each["id"] for each in facts["warnings"]]) is (key != ["data.exclude_same_id=true"])
    show(facts)
    assert ("exclude_same_id=true" in capsys.readouterr().out) is (key != ["data.exclude_same_id=true"])


def test_numbers_as_ids_are_no_sign_of_it(tmp_path: Path) -> None:
    """Queries and passages counted from 0 share ids and nothing else."""
    folder = write_collection(tmp_path / "beir", 60, triples=False)
    for path in folder.rglob("*.*"):
        text = path.read_text()
        path.write_text(text.replace('"q', '"n').replace('"d', '"n').replace("\nq", "\nn").replace("\td", "\tn"))
    lines = (folder / "queries.jsonl").read_text().splitlines()
    rotated = [json.dumps({**json.loads(line), "_id": f"n{(i + 9) % 60}"}) + "\n" for i, line in enumerate(lines)]
    (folder / "queries.jsonl").write_text("".join(rotated))
    assert "own_passages" not in [each["id"] for each in inspect(["data=beir", f"data.path={folder}"])["warnings"]]


def test_the_fusion_is_chosen_as_the_run_ranks(trained: Path, arguments: Path, tmp_path: Path) -> None:
    """However the queries are ranked that are evaluated first."""
    chosen = []
    for number, data in enumerate((None, {"_target_": "two_tower.data.beir.Beir", "path": str(arguments)})):
        run = shutil.copytree(trained, tmp_path / str(number))
        evaluate_run(run, data, "dev", hybrid=True)
        chosen.append(json.loads((run / "hybrid.json").read_text()))
    assert chosen[0] == chosen[1]


def test_a_query_that_is_no_passage_keeps_its_figures(trained: Path, arguments: Path) -> None:
    """And a split without any of the others is ranked as ever."""
    from two_tower.encode import Encoder
    from two_tower.run import Run

    encoder = Encoder.load(Run(trained))
    corpus = Corpus.load(Beir(str(arguments)), encoder.tokenizer)
    with_key, without = (Split.load(corpus, "dev", encoder.tokenizer, each) for each in (True, False))
    at = with_key.ids.to_pylist().index(PLAIN)
    for rank in (
        lambda split: rank_split(encoder.model, corpus, split, 20),
        lambda split: rank_split_by_bm25(corpus, split, encoder.tokenizer, 20),
    ):
        one, other = rank(with_key), rank(without)
        assert {name: values[at] for name, values in one.per_query.items()} == {
            name: values[at] for name, values in other.per_query.items()
        }
        np.testing.assert_array_equal(one.ranking.rows[at], other.ranking.rows[at])
        assert one.ranking.rows.shape[1] == 20


def test_a_subset_of_the_passages_leaves_it_out(arguments: Path, tmp_path: Path) -> None:
    """Whether it is in the subset or not."""
    keys = ["data.exclude_same_id=true", "data.batch_size=8", "tower.dim=8", "trainer.max_epochs=1"]
    keys += ["validation=subset", "validation.sample=12", "validation.hybrid=true"]
    results = train(configure(arguments, tmp_path / "run", *keys))
    dense, _, grades = scores(tmp_path / "run", arguments, "dev")
    rows = [line.split() for line in (tmp_path / "run" / "run.trec").read_text().splitlines()]
    drawn = {row[2] for row in rows}
    assert 0 < sum(query in drawn for query in grades) < len(grades)
    few = {q: {d: s for d, s in its.items() if d in drawn and d != q} for q, its in dense.items()}
    assert {query: [row[2] for row in rows if row[0] == query] for query in grades} == in_order(few, 100)
    for name, value in means(in_order(few), grades).items():
        if f"val/{name}" in results:
            assert results[f"val/{name}"] == pytest.approx(value, abs=1e-6), name
