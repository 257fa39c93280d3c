"""A collection on which nothing is easy, and its figures by plain loops."""

import json
from collections import Counter
from collections.abc import Callable, Collection
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import oracles
import pytest
from conftest import configure, write_collection
from rows import write_rows
from training import triplet_data

from train import train
from two_tower.data.beir import Beir
from two_tower.data.stream.module import TripletData
from two_tower.loading import load_model
from two_tower.run import Run

PASSAGES = 120
# Judged, but relevant to no one, or only to a second query.
EXTRA = [("q0", "d7", 0), ("q0", "d8", 2), ("q6", "d9", -1), ("q12", "d119", 1), ("q18", "d1", 3)]


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def judgements(folder: Path) -> dict[str, dict[str, int]]:
    """Query → document → grade, of the split dev."""
    grades: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "dev.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades.setdefault(query, {})[document] = int(grade)
    return grades


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder whose queries are common words, with grades from -1 to 3 in the split dev."""
    folder = write_collection(tmp_path_factory.mktemp("graded") / "beir", PASSAGES)
    passages = [set(row["text"].split()) for row in read(folder / "corpus.jsonl")]
    frequency = Counter(word for passage in passages for word in passage)
    queries = []
    for i, passage in enumerate(passages):
        rarest = sorted((w for w in passage if frequency[w] > 1), key=lambda w: (frequency[w], w))
        queries.append({"_id": f"q{i}", "text": " ".join(rarest[:3])})
    write_rows(folder / "queries.jsonl", queries)
    with (folder / "qrels" / "dev.tsv").open("a") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in EXTRA)
    return folder


@pytest.fixture(scope="session")
def judged(graded: Path) -> set[str]:
    return {document for grades in judgements(graded).values() for document in grades}


@pytest.fixture
def data(graded: Path, tmp_path: Path) -> TripletData:
    return triplet_data(Beir(str(graded)), tmp_path)


@pytest.fixture
def only(graded: Path, tmp_path: Path) -> Callable[[Collection[str]], Beir]:
    """``only(ids)``: a source that has nothing but these passages and the split dev."""

    def make(ids: Collection[str]) -> Beir:
        folder = tmp_path / "only"
        (folder / "qrels").mkdir(parents=True)
        write_rows(folder / "corpus.jsonl", [row for row in read(graded / "corpus.jsonl") if row["_id"] in ids])
        for name in ("queries.jsonl", "qrels/dev.tsv"):
            (folder / name).write_text((graded / name).read_text())
        return Beir(str(folder))

    return make


def short_run(collection: Path, path: Path, *overrides: str) -> dict[str, Any]:
    base = ["data.batch_size=16", "tower.dim=8", "validation.depth=1000"]
    return train(configure(collection, path, *base, *overrides))


@pytest.fixture
def fit(graded: Path) -> Callable[..., dict[str, Any]]:
    """``fit(run, *overrides)``: results of a short training."""
    return partial(short_run, graded)


@pytest.fixture(scope="session")
def whole(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """``whole(*overrides)``: the folder and results of an uninterrupted run, trained once for all tests."""

    @cache
    def run(*overrides: str) -> tuple[Path, dict[str, Any]]:
        path = tmp_path_factory.mktemp("uninterrupted") / "whole"
        return path, short_run(graded, path, *overrides)

    return run


class Figures(NamedTuple):
    means: dict[str, float]
    rankings: dict[str, list[str]]


METRICS = {
    "mrr": (oracles.reciprocal_rank, None), "mrr@10": (oracles.reciprocal_rank, 10),
    **{f"recall@{k}": (oracles.recall, k) for k in (1, 5, 10, 100)}, "ndcg@10": (oracles.ndcg, 10),
}  # fmt: skip


@pytest.fixture
def by_loops(graded: Path) -> Callable[..., Figures]:
    """``by_loops(run, ids)``: figures of a run's best checkpoint on dev, ranking the passages ``ids`` only."""

    def figures(run: Path, ids: Collection[str] | None = None) -> Figures:
        model, tokenizer = load_model(Run(run))
        texts = {row["_id"]: f"{row['title']} {row['text']}" for row in read(graded / "corpus.jsonl")}
        texts = {name: text for name, text in texts.items() if ids is None or name in ids}
        questions = {row["_id"]: row["text"] for row in read(graded / "queries.jsonl")}
        encoded = {name: tokenizer.encode_documents([text]) for name, text in texts.items()}
        documents = {name: model.encode("documents", tokens)[0].tolist() for name, tokens in encoded.items()}
        rankings, means = {}, {}
        for query in judgements(graded):
            vector = model.encode("queries", tokenizer.encode_queries([questions[query]]))[0].tolist()
            scores = {name: sum(map(float.__mul__, vector, other)) for name, other in documents.items()}
            rankings[query] = oracles.ranked(scores)
        for name, (metric, k) in METRICS.items():
            values = [metric(rankings[query], grades, k) for query, grades in judgements(graded).items()]
            means[name] = sum(values) / len(values)
        return Figures(means, rankings)

    return figures


@pytest.fixture
def run_file() -> Callable[[Path], dict[str, list[str]]]:
    """``run_file(run)``: query → its ranked passages, as ``run.trec`` has them."""

    def rankings(run: Path) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in (run / "run.trec").read_text().splitlines():
            query, _, document, rank, _, tag = line.split()
            found.setdefault(query, []).append(document)
            assert (int(rank), tag) == (len(found[query]), run.name)
        return found

    return rankings
