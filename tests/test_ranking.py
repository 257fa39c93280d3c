"""Exact ranking against a brute-force sort, and written runs against trec_eval."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import ir_measures
import numpy as np
import oracles
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, nDCG
from torch import Tensor

from two_tower.metrics import Qrels, from_ranks
from two_tower.ranking import Blocks, Ranking, Score, Share, exact, id_order, rank, write_run


def scorer(scores: np.ndarray, device: str = "cpu") -> Score:
    """Blocks of a matrix that must not be written to."""
    frozen = torch.from_numpy(scores.copy()).to(device)
    return lambda queries, documents: frozen[queries, documents]


def brute_force(
    scores: np.ndarray, order: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], k: int, floor: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort every row: NaN as minus infinity, score descending, then order descending."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    rows, values = np.full((len(scores), k), -1), np.full((len(scores), k), -np.inf, np.float32)
    ranks = np.zeros(len(pairs[0]), np.int64)
    for q, row in enumerate(scores):
        best = np.lexsort((-order, -row))
        if floor is not None:
            best = best[row[best] > np.float32(floor)]
        hits = min(k, len(best))
        rows[q, :hits], values[q, :hits] = best[:hits], row[best[:hits]]
        for p in np.flatnonzero(pairs[0] == q):
            place = np.flatnonzero(best == pairs[1][p])
            ranks[p] = place[0] + 1 if len(place) else 0
    return rows, values, ranks


def assert_equal(a: Ranking, rows: np.ndarray, scores: np.ndarray, ranks: np.ndarray) -> None:
    np.testing.assert_array_equal(a.rows, rows)
    np.testing.assert_array_equal(a.scores, scores)
    np.testing.assert_array_equal(a.ranks, ranks)
    assert (a.rows.dtype, a.scores.dtype, a.ranks.dtype) == (np.int64, np.float32, np.int64)


VALUES = [-np.inf, np.nan, -2.0, -0.0, 0.0, 0.5, 0.5000001, 3.0, np.inf]


@st.composite
def cases(draw: st.DrawFn) -> dict:
    """Many equal scores (also -0 and 0), NaN, infinities; blocks from one row to more than there are."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, documents = draw(st.integers(0, 7)), draw(st.integers(1, 200))
    values = np.array(draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=6)), np.float32)
    pairs = draw(st.integers(0, 20)) if queries else 0
    return {
        "scores": rng.choice(values, (queries, documents)),
        "order": rng.permutation(documents) * draw(st.sampled_from([1, 1000])),
        "pairs": (rng.integers(0, max(queries, 1), pairs), rng.integers(-1, documents, pairs)),
        "k": draw(st.integers(0, documents + 3)),
        "floor": draw(st.sampled_from([None, 0.0, -2.0, 0.5, -np.inf])),
        "blocks": Blocks(draw(st.integers(1, 9)), draw(st.integers(1, 250)), draw(st.sampled_from([0, 1 << 30]))),
    }


def check(case: dict, device: str = "cpu", processes: int = 0) -> None:
    scores = case.pop("scores")
    expected = brute_force(scores, *(case[name] for name in ("order", "pairs", "k", "floor")))

    def ranked(share: Share | None) -> Ranking:
        return rank(scorer(scores, device), *scores.shape, share=share, **case)

    for found in together(processes, ranked) if processes else [ranked(None)]:
        assert_equal(found, *expected)


@settings(max_examples=40)
@given(cases())
def test_equals_a_sort(case: dict) -> None:
    check(case)


@pytest.fixture(scope="module")
def torch_operations() -> Iterator[str]:
    """The way of other devices, on a GPU if there is one and otherwise on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact._Block, "_scan_cpu", exact._Block._scan_torch)
        patch.setattr(exact, "_GPU_PAIRS", 3)
        yield "cuda" if torch.cuda.is_available() else "cpu"


@settings(max_examples=40)
@given(case=cases())
def test_torch_operations_equal_a_sort(torch_operations: str, case: dict) -> None:
    check(case, torch_operations)


@pytest.mark.parametrize("k", [1, 100])
def test_long_rows_equal_a_sort(k: int) -> None:
    """Whole chunks are skipped; ascending rows replace the worst at every step."""
    rng = np.random.default_rng(k)
    scores = rng.normal(size=(8, 20_000)).astype(np.float32).round(2)
    scores[0].sort()
    scores[1] = -np.sort(-scores[1])
    scores[2] = 0
    order, pairs = rng.permutation(20_000), (rng.integers(0, 8, 50), rng.integers(0, 20_000, 50))
    found = rank(scorer(scores), 8, 20_000, order=order, pairs=pairs, k=k, blocks=Blocks(documents=4096))
    assert_equal(found, *brute_force(scores, order, pairs, k, None))


def product(queries: int, documents: int, seed: int = 0) -> Score:
    """A real matrix product; every document occurs twice, so equal scores are common."""
    generator = torch.Generator().manual_seed(seed)
    q_QD = torch.randn(queries, 48, generator=generator)
    d_ND = torch.randn((documents + 1) // 2, 48, generator=generator).repeat(2, 1)[:documents]
    return lambda rows, columns: q_QD[rows] @ d_ND[columns].T


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(2, 150), st.integers(2, 13), st.integers(5, 151), st.integers(0, 99))
def test_ranks_are_places_in_the_full_ranking(queries: int, documents: int, some: int, more: int, seed: int) -> None:
    """A product may round differently in blocks of another shape; a pair is compared within its own."""
    rng, score = np.random.default_rng(seed), product(queries, documents, seed)
    pairs = (rng.integers(0, queries, 30), rng.integers(0, documents, 30))
    order, blocks = rng.permutation(documents), Blocks(some, more)
    found = rank(score, queries, documents, order=order, pairs=pairs, k=documents, blocks=blocks)
    np.testing.assert_array_equal(found.rows[pairs[0], found.ranks - 1], pairs[1])
    np.testing.assert_array_equal(np.sort(found.rows), np.broadcast_to(np.arange(documents), found.rows.shape))


def ranking_of_product(**options: Any) -> Ranking:  # noqa: ANN401
    rng = np.random.default_rng(1)
    pairs, order = (rng.integers(0, 150, 500), rng.integers(0, 1501, 500)), rng.permutation(1501)
    options = {"blocks": Blocks(64, 256), "k": 20} | options
    return rank(product(150, 1501), 150, 1501, order=order, pairs=pairs, **options)


def test_threads_do_not_change_the_result() -> None:
    threads = torch.get_num_threads()
    whole = ranking_of_product()
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            assert_equal(ranking_of_product(), whole.rows, whole.scores, whole.ranks)
    finally:
        torch.set_num_threads(threads)


class ThreadShare(Share):
    def __init__(self, rank: int, barrier: Barrier, board: list[np.ndarray | None]) -> None:
        self.rank, self.size, self._barrier, self._board = rank, len(board), barrier, board

    def _everyone(self, values: np.ndarray) -> list[np.ndarray]:
        self._board[self.rank] = values
        self._barrier.wait()
        everyone = [v.copy() for v in self._board if v is not None]
        self._barrier.wait()
        return everyone

    def all_reduce(self, values: np.ndarray, operation: str) -> np.ndarray:
        return {"max": np.max, "sum": np.sum}[operation](self._everyone(values), axis=0)

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        return np.concatenate(self._everyone(values), axis=1)


def together(size: int, call: Callable[[Share], Ranking]) -> list[Ranking]:
    barrier, board = Barrier(size, timeout=20), [None] * size
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda r: call(ThreadShare(r, barrier, board)), range(size)))


@pytest.mark.parametrize(("size", "k"), [(2, 20), (3, 0), (7, 2000)])
def test_processes_that_share_the_documents_out_all_get_the_same_result(size: int, k: int) -> None:
    whole = ranking_of_product(k=k)
    for part in together(size, lambda share: ranking_of_product(k=k, share=share)):
        assert_equal(part, whole.rows, whole.scores, whole.ranks)


@settings(max_examples=30)
@given(case=cases())
def test_ties_nan_and_unknown_documents_are_ranked_together_as_alone(case: dict) -> None:
    check(case, processes=2)


class Zeros:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int, int]] = []

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        self.asked.append((rows.start, rows.stop, columns.start, columns.stop))
        return torch.zeros(rows.stop - rows.start, columns.stop - columns.start)


def test_each_process_scores_only_its_own_blocks() -> None:
    scores = Zeros(), Zeros()
    options = {"order": np.arange(25), "k": 2, "blocks": Blocks(documents=5)}
    together(2, lambda share: rank(scores[share.rank], 3, 25, **options, share=share))
    assert [sorted(block[2] for block in each.asked) for each in scores] == [[0, 10, 20], [5, 15]]


@pytest.mark.parametrize(("budget", "calls"), [(0, 2), (5 * 30 * 4, 1)])
def test_blocks_are_computed_once_if_they_fit_and_at_absolute_rows(budget: int, calls: int) -> None:
    pair, score = (np.array([6]), np.array([3])), Zeros()  # only the second block of queries has a pair
    rank(score, 7, 30, order=np.arange(30), pairs=pair, blocks=Blocks(5, 16, budget))
    assert score.asked == [(0, 5, 0, 16), (0, 5, 16, 30)] + [(5, 7, 0, 16), (5, 7, 16, 30)] * calls


def test_scores_of_other_kinds_are_ranked_as_float32_and_the_order_may_be_a_tensor() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    for given_scores in (scores, scores.double(), scores.bfloat16(), scores.T.contiguous().T):
        found = rank(lambda _q, _d, s=given_scores: s, 1, 3, order=np.arange(3), k=3)
        assert found.rows.tolist() == [[1, 2, 0]]
    found = rank(scorer(np.zeros((1, 3), np.float32)), 1, 3, order=torch.tensor([5, 9, 7]), k=3)
    assert found.rows.tolist() == [[1, 2, 0]]


def test_without_documents_nothing_is_retrieved() -> None:
    pairs = (np.array([0]), np.array([-1]))
    found = rank(scorer(np.zeros((2, 0), np.float32)), 2, 0, order=np.arange(0), pairs=pairs, k=2)
    assert (found.rows.tolist(), found.ranks.tolist()) == ([[-1, -1], [-1, -1]], [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": np.arange(4)}, "order has shape"),
        ({"pairs": (np.array([-1]), np.array([0]))}, "outside"),
        ({"pairs": (np.array([0]), np.array([3]))}, "outside"),
        ({"pairs": (np.array([0]), np.array([0, 1]))}, "as many"),
        ({"score": lambda _q, _d: torch.zeros(3, 2)}, "shape"),
    ],
)
def test_wrong_arguments(changes: dict, message: str) -> None:
    right = {"score": scorer(np.zeros((2, 3), np.float32)), "order": np.arange(3)}
    with pytest.raises(ValueError, match=message):
        rank(queries=2, documents=3, **(right | changes))


@settings(max_examples=40)
@given(st.lists(st.text(), unique=True))
def test_id_order_is_that_of_the_bytes(ids: list[str]) -> None:
    ascending = sorted(ids, key=str.encode)
    assert id_order(ids).tolist() == [ascending.index(i) for i in ids]
    half = len(ids) // 2
    chunks = pa.chunked_array([pa.array(ids[:half], pa.string()), pa.array(ids[half:], pa.string())])
    assert id_order(chunks).tolist() == id_order(ids).tolist()


@settings(max_examples=40)
@given(cases())
def test_order_is_that_of_trec_eval(case: dict) -> None:
    scores = np.nan_to_num(case["scores"], nan=-1.0)
    ids = [str(7 * d) for d in range(scores.shape[1])]
    found = rank(scorer(scores), *scores.shape, order=id_order(ids), k=len(ids))
    for rows, row in zip(found.rows, scores, strict=True):
        assert [ids[d] for d in rows] == oracles.ranked(dict(zip(ids, row.tolist(), strict=True)))


def test_written_run_has_in_trec_eval_the_metrics_computed_here(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    queries, documents = 30, 400
    scores = rng.normal(size=(queries, documents)).astype(np.float32).round(1)  # many ties
    query_ids, ids = [f"q{i}" for i in range(queries)], [str(i) for i in rng.permutation(documents)]
    pairs = (np.repeat(np.arange(queries), 5), np.concatenate([rng.permutation(documents)[:5] for _ in range(queries)]))
    qrels = Qrels(*pairs, rng.integers(0, 4, len(pairs[0])).astype(np.int32), queries)
    ranking = rank(scorer(scores), queries, documents, order=id_order(ids), pairs=pairs, k=documents)
    write_run(tmp_path / "run.trec", query_ids, pa.array(ids), ranking, "two tower")

    judged = [
        ir_measures.Qrel(query_ids[q], ids[d], int(grade)) for q, d, grade in zip(*pairs, qrels.grades, strict=True)
    ]
    run = list(ir_measures.read_trec_run(str(tmp_path / "run.trec")))
    measures = {"mrr": RR, "recall@10": R @ 10, "recall@100": R @ 100, "ndcg@10": nDCG @ 10, "map": AP}
    expected = {(str(m.measure), m.query_id): m.value for m in ir_measures.iter_calc(measures.values(), judged, run)}
    values = from_ranks(ranking.ranks, qrels, list(measures))
    for name, measure in measures.items():
        row = [expected[str(measure), q] for q in query_ids]
        np.testing.assert_allclose(values[name], row, rtol=0, atol=1e-9, err_msg=name)
    wrong = rank(scorer(scores), queries, documents, order=-id_order(ids), pairs=pairs)
    assert not np.allclose(from_ranks(wrong.ranks, qrels, ["mrr"])["mrr"], values["mrr"])  # negative control


def test_run_file(tmp_path: Path) -> None:
    scores = np.array([[0.1, -1e-8], [-np.inf, -np.inf], [16777216, -np.inf]], np.float32)
    ranking = Ranking(np.array([[1, 0], [-1, -1], [0, -1]]), scores, np.zeros(0, np.int64))
    queries = pa.chunked_array([["q 1"], ["q2", "q3"]])
    write_run(tmp_path / "run.trec", queries, ["d0", "d\t1 é"], ranking, "my run")
    assert (tmp_path / "run.trec").read_text(encoding="utf-8").splitlines() == [
        "q 1\tQ0\td 1 é\t1\t0.100000001\tmy_run",
        "q 1\tQ0\td0\t2\t-9.99999994e-09\tmy_run",
        "q3\tQ0\td0\t1\t16777216\tmy_run",
    ]
    write_run(tmp_path / "plain", ["q1", "q2", "q3"], ["d0", "d1"], ranking, "run")
    assert (tmp_path / "plain").read_text(encoding="utf-8").splitlines()[0] == "q1 Q0 d1 1 0.100000001 run"


def test_written_scores_read_back_equal_and_an_interrupted_write_leaves_them(tmp_path: Path) -> None:
    path, ids = tmp_path / "run.trec", [str(i) for i in range(500)]
    scores = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32)
    ranking = rank(scorer(scores), 2, 500, order=np.arange(500), k=500)
    write_run(path, ["p", "q"], ids, ranking, "x")
    read = [float(line.split()[4]) for line in path.read_text().splitlines()]
    np.testing.assert_array_equal(np.array(read, np.float32), ranking.scores.ravel())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="zip"):
        write_run(path, ["one id for two queries"], ids, ranking, "x")
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (before, 1)


def test_flushing_denormal_numbers_retrieves_nothing_more() -> None:
    """Training computes without them; what scores the floor must be left out there, too."""
    score, pairs = scorer(np.array([[0.0, 1.0, 0.0]], np.float32)), (np.zeros(2, int), np.arange(2))
    for flush in (False, True):
        torch.set_flush_denormal(flush)  # put back by conftest.py
        found = rank(score, 1, 3, order=np.arange(3), pairs=pairs, k=3, floor=0.0)
        assert (found.rows.tolist(), found.ranks.tolist()) == ([[1, -1, -1]], [0, 1])
