"""Two processes rank, measure and learn as one does: one pair of real processes over gloo, for all that is asked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import configure, write_collection
from forked import find_server
from torch import Tensor
from training import UniformityLoss

from two_tower.assemble import make_data, make_model
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.distributed import ProcessShare, processes, share_of
from two_tower.loss.base import Loss
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.sum import SumLoss
from two_tower.metrics import DEFAULT_METRICS, Qrels, from_ranks, mean
from two_tower.metrics.rank_metrics import RankMetrics
from two_tower.model import TwoTower
from two_tower.ranking import Blocks, Share, rank
from two_tower.similarity import Similarity
from two_tower.tokenizer.word import WordTokenizer
from two_tower.tower.average import AverageTower
from two_tower.tower.base import Tower, WordTable
from two_tower.tower.recurrent import RecurrentTower
from two_tower.trainer import average_gradients
from two_tower.validation import _evaluate as evaluate

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch with gloo")

RANKS = 2
Arrays = dict[str, np.ndarray]


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def ranking(share: Share) -> Arrays:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 50, (20, 300)).astype(np.float32))
    pairs = (rng.integers(0, 20, 60), rng.integers(-1, 300, 60))
    order = rng.permutation(300)
    blocks = Blocks(documents=64)
    return vars(rank(lambda q, d: scores[q, d], 20, 300, order=order, pairs=pairs, k=7, blocks=blocks, share=share))


def test_two_processes_give_the_ranking_of_one(ranks: list[dict]) -> None:
    whole = ranking(Share())
    for found in ranks:
        assert_same(found["ranking"], whole)


def test_one_process_owns_everything() -> None:
    share = share_of(torch.device("cpu"))
    assert not isinstance(share, ProcessShare)
    assert all(share.owns(block) for block in range(5))


def judged(queries: range) -> tuple[np.ndarray, Qrels]:
    """Ranks and judgements of some of 30 queries, numbered from 0: three of each."""
    rng = np.random.default_rng(0)
    ranks, grades = (rng.integers(0, high, (30, 3))[queries.start : queries.stop].ravel() for high in (12, 3))
    return ranks, Qrels(np.repeat(np.arange(len(queries)), 3), np.arange(len(ranks)), grades, len(queries))


# Which queries each of two processes sees, batch by batch.
SHARES: list[list[list[range]]] = [
    [[range(15)], [range(15, 30)]],
    [[range(20, 30)], [range(8), range(8, 9), range(9, 20)]],
    [[range(4), range(4, 30)], []],  # torchmetrics sends something of its own for such a process
    [[], []],
]
NAMES = [*DEFAULT_METRICS, "map"]


def measured(number: int) -> list[dict[str, float]]:
    metrics, found = RankMetrics(NAMES), []
    for shares in SHARES:
        for queries in shares[number]:
            metrics.update(*judged(queries))
        found.append({name: value.item() for name, value in metrics.compute().items()})
        metrics.reset()
    return found


def test_two_processes_give_the_metrics_of_one(ranks: list[dict]) -> None:
    whole = mean(from_ranks(*judged(range(30)), NAMES))
    assert whole != mean(from_ranks(*judged(range(29)), NAMES))  # one query fewer would be seen
    for found in ranks:
        assert found["metrics"] == [whole, whole, whole, dict.fromkeys(NAMES, 0.0)]  # bit for bit


# --- evaluation: one process or two, one thread or two, bit for bit --------------------------------------------

DOCUMENTS, DIM, BLOCK = 420, 48, 128  # with a copy of every other text: five blocks, the last one not full
TOWERS = ("average", "gru")
SIMILARITIES = ("cosine", "euclidean")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def figures(folder: Path) -> Arrays:
    """Everything that evaluation says of each tower and similarity."""
    source = Beir(str(folder))
    tokenizer = WordTokenizer(min_frequency=1).train(batch.column("text") for batch in source.corpus())
    corpus = Corpus.load(source, tokenizer)
    split = Split.load(corpus, "dev", tokenizer)
    found: Arrays = {}
    for name in TOWERS:
        shared = tower(name, len(tokenizer))
        for similarity in SIMILARITIES:
            model = TwoTower(shared, shared, Similarity(similarity))
            evaluation = evaluate.rank_split(model, corpus, split, top_k=20)
            parts = {**vars(evaluation.ranking), **evaluation.per_query}
            parts |= {f"mean {metric}": np.array(mean) for metric, mean in evaluation.means.items()}
            found |= {f"{name} {similarity} {part}": values for part, values in parts.items()}
    return found


def with_threads(folder: Path, counts: tuple[int, ...] = (1, 2)) -> list[Arrays]:
    before, found = torch.get_num_threads(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "DOCUMENT_BLOCK", BLOCK)
        for count in counts:
            torch.set_num_threads(count)
            found.append(figures(folder))
    torch.set_num_threads(before)
    return found


@pytest.fixture(scope="module")
def alone(copies: Path) -> list[Arrays]:
    """The figures of one process with one thread and with two."""
    return with_threads(copies)


def test_processes_and_threads_change_no_figure(alone: list[Arrays], ranks: list[dict]) -> None:
    one, two = alone
    assert_same(two, one)
    for found in ranks:
        assert_same(found["figures"], one)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_figures_are_worth_comparing(name: str, similarity: str, copies: Path, alone: list[Arrays]) -> None:
    """Neither perfect nor by chance, and of many equal scores across blocks of which the larger id comes first."""
    rows, scores = (alone[0][f"{name} {similarity} {part}"] for part in ("rows", "scores"))
    assert 0.05 < alone[0][f"{name} {similarity} mean mrr@10"] < 0.95
    q, place = np.nonzero(scores[:, 1:] == scores[:, :-1])
    first, second = rows[q, place], rows[q, place + 1]
    assert len(q) > 200
    assert (first // BLOCK != second // BLOCK).all()
    ids = [json.loads(line)["_id"] for line in (copies / "corpus.jsonl").read_text().splitlines()]
    assert all(ids[a] > ids[b] for a, b in zip(first, second, strict=True))


def test_the_comparison_notices_another_order_of_ties(copies: Path, alone: list[Arrays], tmp_path: Path) -> None:
    """Negative control: the figures of a collection whose copies have other ids are others."""
    other = shutil.copytree(copies, tmp_path / "other")
    corpus = other / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"_id": "z', '"_id": "Z'))
    (two,) = with_threads(other, (1,))
    assert alone[0]["average cosine mean mrr@10"] != two["average cosine mean mrr@10"]
    with pytest.raises(AssertionError):
        assert_same(two, alone[0])


# --- learning: two processes with 63 and 64 examples, and one with all --------------------------------------------

BATCH, STEPS = 127, 2

# Without dropout: the processes draw other numbers than one would.
CASES = {
    "one direction": ["loss.symmetric=false", "similarity=dot", "negatives=random", "negatives.count=2"],
    "extras": ["negatives=given", "loss.learn_temperature=true"],
    "own extras": ["negatives=given", "negatives.in_batch_negatives=false"],
    "two towers": ["shared_towers=false", "negatives=given", "negatives.mask_known_positives=false"],
    "triplet": ["loss=triplet", "negatives=given", "similarity=euclidean"],
    "triplet in the batch": ["loss=triplet", "negatives=in_batch", "loss.select=semi_hard"],
    "gradient cache": ["tower=gru", "encode_chunk=24", "negatives=given"],
    "memory": ["cross_batch_memory=150", "cross_batch_start=0", "negatives=given"],
    "large memory": ["cross_batch_memory=1000", "cross_batch_start=0", "loss=matryoshka", "negatives=given"],
    "vectors alone": ["negatives=random", "cross_batch_memory=150", "cross_batch_start=0"],
    "vectors in a sum": ["cross_batch_memory=150", "cross_batch_start=0"],
    "shortened vectors": ["negatives=given", "cross_batch_memory=150", "cross_batch_start=0"],
}
# Losses of one's own, on vectors alone or with others.
OWN: dict[str, Callable[[], Loss]] = {
    "vectors alone": UniformityLoss,
    "vectors in a sum": lambda: SumLoss({"uniform": 0.3}, uniform=UniformityLoss(), in_batch=InBatchLoss()),
    "shortened vectors": lambda: MatryoshkaLoss(UniformityLoss(), 12, [5]),
}


class Learnt(NamedTuple):
    """What a process computes in the last of some steps."""

    losses: list[Tensor]
    grads: dict[str, Tensor]
    buffers: dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every query has two relevant passages, which may lie in the batches of different processes."""
    folder = write_collection(tmp_path_factory.mktemp("gathered") / "beir")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.writelines(f"q{d}\td{(d + 1) % 240}\t1\n" for d in range(240) if d % 6 > 1)
    triples = (f"q{d}\td{(d + 1) % 240}\td{(5 * d) % 240}\n" for d in range(240) if d % 6 > 1)
    with (folder / "triples.tsv").open("a") as file:
        file.writelines(triples)
    return folder


def learnt(folder: Path, tokenizer: Path, case: str, more: str | None = None, rank: int = 0, ranks: int = 1) -> Learnt:
    """The batches of a rank through the model, with the gradients of the last step averaged over the ranks."""
    overrides = [*CASES.get(case, []), *([more] if more else [])]
    config = configure(folder, folder, *overrides, f"data.global_batch_size={BATCH}", "tower.dim=12", "embedding.dim=8")
    data = make_data(config, tokenizer)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    model = make_model(config, data)
    if case in OWN:
        model.loss = OWN[case]()
    found = []
    for step in range(STEPS):
        model.zero_grad()
        loss = model.training_step(data.batches[0, step], step)
        loss.backward()
        found.append(loss.detach())
    if ranks > 1:
        average_gradients(model.parameters())
    grads = {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name: b.clone() for name, b in model.named_buffers() if name.startswith("cross_batch.")}
    return Learnt(found, grads, buffers)


def _process(rank: int, folder: Path, copies: Path, path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    share = share_of(torch.device("cpu"))
    assert isinstance(share, ProcessShare)
    assert share.all_gather(np.empty((3, 0), np.int64)).shape == (3, 0)
    runs = {name: (name, "cross_device=true") for name in CASES}
    runs |= {
        "apart": ("default", None),
        "apart with memory": ("memory", None),
        "own extras apart": ("own extras", None),
    }
    found: dict[str, Any] = {
        name: tuple(learnt(folder, path / "tokenizer.json", case, more, rank, RANKS))
        for name, (case, more) in runs.items()
    }
    found |= {"ranking": ranking(share), "metrics": measured(rank)}
    (found["figures"],) = with_threads(copies, (2,))
    torch.save(found, path / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(folder: Path, copies: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes found: starting them takes longer than all that they do."""
    path = tmp_path_factory.mktemp("ranks")
    learnt(folder, path / "tokenizer.json", "default")  # writes the tokenizer and the token store
    find_server()  # which has imported what the processes need
    mp.start_processes(_process, (folder, copies, path), nprocs=RANKS, start_method="forkserver")
    return [torch.load(path / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.mark.parametrize("case", CASES)
def test_two_halves_learn_what_one_process_learns(case: str, folder: Path, ranks: list[dict], tmp_path: Path) -> None:
    whole = learnt(folder, tmp_path / "tokenizer.json", case)
    for found in (Learnt(*each[case]) for each in ranks):
        torch.testing.assert_close(found.losses, whole.losses, atol=1e-6, rtol=1e-6)
        assert found.grads.keys() == whole.grads.keys()
        for name, grad in whole.grads.items():
            assert grad.any(), name
            torch.testing.assert_close(found.grads[name], grad, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(found.buffers, whole.buffers)
    assert ("cross_batch_memory" in " ".join(CASES[case])) == bool(whole.buffers)


def test_without_gathering_each_half_is_a_smaller_task(folder: Path, ranks: list[dict], tmp_path: Path) -> None:
    """Negative control: what the cases above would find if nothing were gathered."""
    whole = learnt(folder, tmp_path / "tokenizer.json", "default")
    apart = [Learnt(*each["apart"]) for each in ranks]
    assert sum(half.losses[0] for half in apart) / RANKS < whole.losses[0] - 0.1  # half as many negatives
    name = "query_tower.words.vectors"
    assert not torch.allclose(apart[0].grads[name], whole.grads[name], atol=1e-4)


def test_unequal_shares_count_by_their_size(folder: Path, ranks: list[dict], tmp_path: Path) -> None:
    """Where no query looks beyond its own documents, the mean over the processes is that over all queries."""
    whole = learnt(folder, tmp_path / "tokenizer.json", "own extras")
    parts = [Learnt(*each["own extras apart"]) for each in ranks]
    torch.testing.assert_close(sum(part.losses[0] for part in parts) / RANKS, whole.losses[0])
    for name, grad in whole.grads.items():
        torch.testing.assert_close(parts[0].grads[name], grad, atol=1e-6, rtol=1e-6)


def test_processes_that_are_compared_apart_remember_the_same(ranks: list[dict]) -> None:
    """One of them writes the checkpoint, so its memory must be that of all."""
    one, two = (Learnt(*each["apart with memory"]) for each in ranks)
    assert one.buffers["cross_batch.memory.rows"].min() >= 0
    torch.testing.assert_close(one.buffers, two.buffers, atol=0, rtol=0)
    assert one.losses[1] != two.losses[1]


def test_one_process_has_nothing_to_gather(folder: Path, tmp_path: Path) -> None:
    assert processes() == 1
    gathered, usual = (
        learnt(folder, tmp_path / "tokenizer.json", "default", more) for more in ("cross_device=true", None)
    )
    assert gathered.losses == usual.losses
    assert all(torch.equal(gathered.grads[name], grad) for name, grad in usual.grads.items())
