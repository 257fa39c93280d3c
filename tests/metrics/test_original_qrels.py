"""Figures equal pytrec_eval's on the written run file with the judgements as they are in the data's own file."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
import torch
from conftest import SHARED_DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.fusion import Fusion
from two_tower.metrics import DEFAULT_METRICS, from_ranks
from two_tower.model import TwoTower
from two_tower.ranking import Ranking, write_run
from two_tower.similarity import Similarity
from two_tower.tokenizer.word import WordTokenizer
from two_tower.tower.average import AverageTower
from two_tower.tower.base import WordTable
from two_tower.validation._evaluate import Evaluation, rank_split, rank_split_by_bm25

Qrels = dict[str, dict[str, int]]
OFFICIAL = {"mrr": "recip_rank", "recall": "recall", "ndcg": "ndcg_cut"}
WORDS = ["salt", "sea", "ship", "sun", "sand", "sail", "star", "stone"]
# Ids as people have them: blanks, slashes, quotes, other scripts; a tab cannot stand in a qrels file, nor what a
# program would have written for an id without quotes.
IDS = st.text(st.sampled_from("ab7/ :'\"é数_-."), min_size=1, max_size=4).filter(
    lambda text: text == text.strip() and '""' not in text and not text[0] == text[-1] == '"'
)


def official(qrels: Qrels, run: Path, names: tuple[str, ...] = DEFAULT_METRICS) -> dict[str, dict[str, float]]:
    """Metric → query → value by pytrec_eval; a judged query without hits scores 0, as with ``trec_eval -c``."""
    found: dict[str, dict[str, float]] = {query: {} for query in qrels}
    for line in run.read_text(encoding="utf-8").splitlines():
        query, _, document, _, score, _ = line.split("\t" if "\t" in line else " ")
        found[query][document] = float(score)
    values = {}
    qrels = {q: {d: max(grade, 0) for d, grade in its.items()} for q, its in qrels.items()}  # negative ones crash it
    for name in names:
        base, _, cutoff = name.partition("@")
        cut = {q: dict(sorted(d.items(), key=lambda x: (-np.float32(x[1]), x[0].encode()))) for q, d in found.items()}
        if base == "mrr" and cutoff:  # trec_eval has no cutoff of its own for it; ties by descending id
            cut = {q: {d: s for d, s in best(docs)[: int(cutoff)]} for q, docs in found.items()}
        measure = OFFICIAL[base] + ("" if base == "mrr" else f"_{cutoff}")
        result = pytrec_eval.RelevanceEvaluator(
            qrels, {measure.replace("_cut_", "_cut.").replace("recall_", "recall.")}
        )
        per_query = result.evaluate({q: d for q, d in cut.items() if d})
        values[name] = {query: per_query.get(query, {}).get(measure, 0.0) for query in qrels}
    return values


def best(documents: dict[str, float]) -> list[tuple[str, float]]:
    ascending = sorted(documents.items(), key=lambda item: (np.float32(item[1]), item[0].encode()))
    return ascending[::-1]


def written(ranking: Ranking, corpus: Corpus, split: Split, path: Path) -> Path:
    write_run(path, split.ids, corpus.ids, ranking, "run")
    return path


def check(qrels: Qrels, values: dict[str, np.ndarray], ids: list[str], run: Path) -> None:
    expected = official(qrels, run)
    assert sorted(ids) == sorted(qrels)  # no judged query is left out
    for name, by_query in expected.items():
        for query, value in zip(ids, values[name].tolist(), strict=True):
            assert math.isclose(value, by_query[query], abs_tol=1e-9), (name, query, value, by_query[query])


def model_of(vocabulary: int) -> TwoTower:
    torch.manual_seed(0)
    words = WordTable(vocabulary, 8)
    words.initialize(torch.randn(vocabulary, 8), None)
    tower = AverageTower(words, 8)
    return TwoTower(tower, tower, Similarity("cosine"))


def all_systems(folder: Path, name: str, qrels: Qrels, run: Path) -> None:
    """BM25, towers and their fusion on a split, each against pytrec_eval."""
    source = Beir(folder, max_bad_rows=1.0)
    tokenizer_file = run.with_suffix(".json")
    texts = [batch["text"] for batch in source.corpus()]
    WordTokenizer(min_frequency=1).train(texts).save(tokenizer_file)
    from two_tower.tokenizer.base import Tokenizer

    tokenizer = Tokenizer.load(tokenizer_file)
    corpus = Corpus.load(source, tokenizer)
    split = Split.load(corpus, name, tokenizer)
    depth, ids = len(corpus), split.ids.to_pylist()
    dense: Evaluation = rank_split(model_of(len(tokenizer)), corpus, split, depth)
    bm25 = rank_split_by_bm25(corpus, split, tokenizer, depth)
    for each in (dense, bm25):
        check(qrels, each.per_query, ids, written(each.ranking, corpus, split, run))
    fusion = Fusion("weighted_sum", 0.4, depth, name, "mrr")
    fused = fusion(dense.ranking, bm25.ranking, order=corpus.order, pairs=split.qrels.pairs)
    values = from_ranks(fused.ranks, split.qrels, DEFAULT_METRICS, split.threshold)
    check(qrels, values, ids, written(fused, corpus, split, run))


@st.composite
def collections(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[tuple[str, str]], Qrels]:
    """Passages (some empty, some copies), queries (some without a known word), judgements (some of nothing)."""
    texts = st.lists(st.sampled_from([*WORDS, ""]), max_size=3).map(" ".join)
    ids = draw(st.lists(IDS, min_size=3, max_size=8, unique=True))
    passages = [(ids[0], "salt sea"), *((i, draw(texts)) for i in ids[1:])]
    query_ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    queries = [
        (i, " ".join(draw(st.lists(st.sampled_from([*WORDS, "quux"]), min_size=1, max_size=3)))) for i in query_ids
    ]
    judged = st.dictionaries(st.sampled_from([*ids, "gone", "lost too"]), st.integers(-2, 3), min_size=1, max_size=5)
    qrels = {i: draw(judged) for i in query_ids}
    qrels[query_ids[0]][ids[0]] = 1  # a split in which no judged passage exists is refused
    return passages, queries, qrels


def write(folder: Path, passages: list[tuple[str, str]], queries: list[tuple[str, str]], qrels: Qrels) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": i, "title": "", "text": text}) + "\n" for i, text in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    lines = [f"{q}\t{d}\t{grade}\n" for q, judged in qrels.items() for d, grade in judged.items()]
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


@settings(max_examples=100)
@given(collections())
def test_random_collections(collection: tuple[list[tuple[str, str]], list[tuple[str, str]], Qrels]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        all_systems(write(folder / "beir", *collection), "dev", collection[2], folder / "run.trec")
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["msmarco-small", "medquad"])
def test_real_collections(name: str, tmp_path: Path) -> None:
    """With a tenth of the judged passages taken away, as in a sample of a larger corpus."""
    folder = SHARED_DATA / name
    if not folder.exists():
        pytest.skip("shared data is not there")

    def opened(path: Path) -> Iterator[str]:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from file

    qrels: Qrels = {}
    for line in [*opened(next((folder / "qrels").glob("dev.tsv*")))][1:80]:
        query, document, grade = line.rstrip("\n").split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    judged = {document for its in qrels.values() for document in its}
    gone = {document for document in judged if sum(document.encode()) % 10 == 0}
    passages, queries = (
        [
            (row["_id"], f"{row.get('title', '')} {row['text']}")
            for row in map(json.loads, opened(next(folder.glob(glob))))
        ]
        for glob in ("corpus.jsonl*", "queries.jsonl*")
    )
    kept = [row for i, row in enumerate(passages) if row[0] not in gone and (i % 40 == 0 or row[0] in judged)]
    write(tmp_path / "beir", kept, [row for row in queries if row[0] in qrels], qrels)
    all_systems(tmp_path / "beir", "dev", qrels, tmp_path / "run.trec")
    assert gone
