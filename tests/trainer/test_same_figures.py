"""One process or two, one thread or two: the same ranks, rankings and metrics of the same towers, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import write_collection

from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.model import TwoTower
from two_tower.similarity import Similarity
from two_tower.tokenizer.word import WordTokenizer
from two_tower.tower.average import AverageTower
from two_tower.tower.base import Tower, WordTable
from two_tower.tower.recurrent import RecurrentTower
from two_tower.validation import _evaluate as evaluate

DOCUMENTS, DIM, BLOCK = 700, 48, 256  # with a copy of every other text: five blocks, the last one not full
TOWERS = ("average", "gru")
SIMILARITIES = ("cosine", "euclidean")

Figures = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection in which every other passage has a copy, far behind it and under another id."""
    folder = write_collection(tmp_path_factory.mktemp("copies") / "beir", DOCUMENTS, triples=False)
    corpus = folder / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    rows += [{**row, "_id": f"{'a' if i % 3 else 'z'}{i}"} for i, row in enumerate(rows[::2])]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tower(name: str, words: int) -> Tower:
    torch.manual_seed(0)
    table = WordTable(words, DIM)
    table.initialize(torch.randn(words, DIM), torch.rand(words) + 0.1)
    return AverageTower(table, DIM) if name == "average" else RecurrentTower(table, DIM, cell="gru")


def figures(folder: Path) -> Figures:
    """Everything that evaluation says of each tower and similarity."""
    source = Beir(str(folder))
    tokenizer = WordTokenizer(min_frequency=1).train(batch.column("text") for batch in source.corpus())
    corpus = Corpus.load(source, tokenizer)
    split = Split.load(corpus, "dev", tokenizer)
    found: dict[str, np.ndarray] = {}
    for name in TOWERS:
        shared = tower(name, len(tokenizer))
        for similarity in SIMILARITIES:
            model = TwoTower(shared, shared, Similarity(similarity))
            evaluation = evaluate.rank_split(model, corpus, split, top_k=20)
            ranking = evaluation.ranking
            parts = {"rows": ranking.rows, "scores": ranking.scores, "ranks": ranking.ranks, **evaluation.per_query}
            parts |= {f"mean {metric}": np.array(mean) for metric, mean in evaluation.means.items()}
            found |= {f"{name} {similarity} {part}": values for part, values in parts.items()}
    return found


def with_threads(folder: Path, counts: tuple[int, ...] = (1, 2)) -> list[Figures]:
    before, block = torch.get_num_threads(), evaluate.DOCUMENT_BLOCK
    evaluate.DOCUMENT_BLOCK = BLOCK
    found = []
    try:
        for count in counts:
            torch.set_num_threads(count)
            found.append(figures(folder))
    finally:
        torch.set_num_threads(before)
        evaluate.DOCUMENT_BLOCK = block
    return found


def _process(number: int, folder: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=number, world_size=2)
    for threads, found in enumerate(with_threads(Path(folder)), start=1):
        np.savez(f"{out}/{number}-{threads}.npz", allow_pickle=False, **found)
    dist.destroy_process_group()


def assert_same(found: Figures, expected: Figures, what: str) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=f"{what}: {name}")


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch with gloo")
def test_processes_and_threads_change_no_figure(folder: Path, tmp_path: Path) -> None:
    one, two = with_threads(folder)
    assert_same(two, one, "2 threads")
    mp.spawn(_process, (str(folder), str(tmp_path)), nprocs=2)
    for number in range(2):
        for threads in (1, 2):
            with np.load(tmp_path / f"{number}-{threads}.npz") as saved:
                assert_same(dict(saved), one, f"process {number} of 2, {threads} threads")


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_figures_are_worth_comparing(name: str, similarity: str, folder: Path) -> None:
    """Neither perfect nor by chance, and of many equal scores across blocks of which the larger id comes first."""
    (found,) = with_threads(folder, (2,))
    rows, scores = (found[f"{name} {similarity} {part}"] for part in ("rows", "scores"))
    assert 0.05 < found[f"{name} {similarity} mean mrr@10"] < 0.95
    q, place = np.nonzero(scores[:, 1:] == scores[:, :-1])
    first, second = rows[q, place], rows[q, place + 1]
    assert len(q) > 200
    assert (first // BLOCK != second // BLOCK).all()
    ids = [json.loads(line)["_id"] for line in (folder / "corpus.jsonl").read_text().splitlines()]
    assert all(ids[a] > ids[b] for a, b in zip(first, second, strict=True))


def test_the_comparison_notices_another_order_of_ties(folder: Path, tmp_path: Path) -> None:
    """Negative control: the figures of a collection whose copies have other ids are others."""
    other = shutil.copytree(folder, tmp_path / "other")
    corpus = other / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"_id": "z', '"_id": "Z'))
    (one,), (two,) = with_threads(folder, (1,)), with_threads(other, (1,))
    assert one["average cosine mean mrr@10"] != two["average cosine mean mrr@10"]
    with pytest.raises(AssertionError):
        assert_same(two, one, "other ids")
