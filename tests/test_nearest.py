"""Ranking by vectors against a sort of their exact scores; the product with three digits must never show."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ranking import assert_equal, brute_force, together

from two_tower.ranking import Blocks, Ranking, Share, coarse, nearest
from two_tower.similarity import Similarity


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"], autouse=True)
def _processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bfloat16 numbers itself, and one that does not."""
    monkeypatch.setattr(coarse, "_fast_bfloat16", lambda: request.param)


def exact_scores(q: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(Q, N) float32, each score on its own."""
    rows, columns = np.indices((len(q), len(d))).reshape(2, -1)
    out = np.empty(len(rows), np.float32)
    coarse.dots(q, d, rows, columns, out)
    return out.reshape(len(q), len(d))


def find(q: np.ndarray, d: np.ndarray, **options: Any) -> Ranking:  # noqa: ANN401
    documents = torch.from_numpy(d)
    return nearest(torch.from_numpy(q), lambda part: documents[part], len(d), Similarity("dot"), **options)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Threads that rank together do not wait for each other's compiler."""
    find(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), order=np.arange(3), pairs=([0], [0]), k=1)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Copies, all but copies, zeros, numbers of every size, infinities and NaN."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, documents, width = draw(st.integers(0, 7)), draw(st.integers(1, 300)), draw(st.integers(1, 40))
    q, d = rng.normal(size=(queries, width)), rng.normal(size=(draw(st.integers(1, 12)), width))
    d = d[rng.integers(0, len(d), documents)]
    d += rng.normal(size=d.shape) * draw(st.sampled_from([0, 1e-7, 1e-4, 1e-2]))
    d *= 10.0 ** rng.integers(-1, 2, (documents, 1)) ** draw(st.sampled_from([0, 1, 3]))
    scale = draw(st.sampled_from([1.0, 1e-30, 1e-18, 1e17, 1e30]))
    q, d = (q * scale).astype(np.float32), (d * scale).astype(np.float32)
    for wild in draw(st.lists(st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf]), max_size=3)):
        d[rng.integers(documents), rng.integers(width) :] = wild
    pairs = draw(st.integers(0, 20)) if queries else 0
    return {
        "q": q,
        "d": d,
        "order": rng.permutation(documents),
        "pairs": (rng.integers(0, max(queries, 1), pairs), rng.integers(-1, documents, pairs)),
        "k": draw(st.sampled_from([0, 1, 5, 50, 400])),
        "blocks": Blocks(draw(st.integers(1, 9)), draw(st.integers(1, 350))),
    }


@pytest.mark.filterwarnings("ignore:overflow")
@settings(deadline=None, max_examples=50)
@given(case=cases(), share=st.booleans())
def test_equals_a_sort_of_the_exact_scores(case: dict[str, Any], share: bool) -> None:
    expected = brute_force(exact_scores(case["q"], case["d"]), case["order"], case["pairs"], case["k"], None)
    found = together(2, lambda part: find(**case, share=part)) if share else [find(**case)]
    for each in found:
        assert_equal(each, *expected)


def test_numbers_too_small_for_some_threads_change_nothing() -> None:
    """Training flushes denormal numbers to 0 in its thread; those that it starts do not."""
    q, d = (np.full((n, 3), 1e-19, np.float32) for n in (4, 20))
    d[7] = 1e-3  # a score of 3e-22
    torch.set_flush_denormal(True)
    try:
        here = exact_scores(q, d)
        found = find(q, d, order=np.arange(20), k=20)
    finally:
        torch.set_flush_denormal(False)
    assert_equal(found, *brute_force(here, np.arange(20), (np.zeros(0), np.zeros(0)), 20, None))
    assert (found.rows[:, 0] == 7).all()
    assert (found.scores[:, 1:] == 0).all()


def near_ties(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Many are nearer to each other than three digits can tell: queries upright on what most documents share."""
    rng = np.random.default_rng(seed)
    q, centre = rng.normal(size=(40, 64)), rng.normal(size=64)
    q -= np.outer(q @ centre, centre) / (centre @ centre)
    d = np.concatenate([rng.normal(size=(3000, 64)), centre + rng.normal(size=(2000, 64)) * 1e-3])
    d = np.concatenate([d, d[::7]])  # and copies
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, d)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32)


@pytest.mark.parametrize(
    ("k", "threads", "blocks"), [(0, 1, (1024, 8192)), (100, 1, (7, 100)), (10, 2, (1, 5001)), (10, 2, (40, 64))]
)
def test_scores_that_three_digits_cannot_tell_apart(k: int, threads: int, blocks: tuple[int, int]) -> None:
    q, d = near_ties()
    rng = np.random.default_rng(1)
    pairs = (rng.integers(0, len(q), 300), rng.integers(0, len(d), 300))
    order = rng.permutation(len(d))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = find(q, d, order=order, pairs=pairs, k=k, blocks=Blocks(*blocks))
    finally:
        torch.set_num_threads(before)
    assert_equal(found, *brute_force(exact_scores(q, d), order, pairs, k, None))


def test_the_bound_on_the_error_is_what_makes_it_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with a bound of nothing the same search is wrong."""
    monkeypatch.setattr(coarse, "_fast_bfloat16", lambda: True)
    q, d = near_ties()
    pairs = (np.arange(40), 3000 + np.arange(40))
    options = {"order": np.arange(len(d)), "pairs": pairs, "blocks": Blocks(documents=500), "k": 2500}
    expected = find(q, d, **options)
    monkeypatch.setattr("two_tower.ranking.vectors.slacks", lambda queries, _: np.zeros(len(queries.norms)))
    wrong = find(q, d, **options)
    assert (wrong.rows != expected.rows).any()
    assert (wrong.ranks != expected.ranks).any()


@pytest.mark.parametrize(("width", "scale"), [(1, 1.0), (7, 1e-3), (256, 1e3), (1024, 1.0)])
def test_products_lie_within_the_bound(width: int, scale: float) -> None:
    rng = np.random.default_rng(width)
    q, d = (rng.normal(size=(n, width)).astype(np.float32) * np.float32(scale) for n in (50, 400))
    rounded = [coarse.Rounded.from_vectors(torch.from_numpy(v)) for v in (q, d)]
    bits = coarse.products(rounded[0].vectors, rounded[1].vectors)
    found = torch.from_numpy(bits).view(torch.bfloat16).float().numpy().astype(np.float64)
    exact = exact_scores(q, d)
    inner = q.astype(np.float64) @ d.astype(np.float64).T
    np.testing.assert_allclose(exact, inner, rtol=0, atol=1e-6 * width * scale**2)
    error = np.abs(found - exact)
    bound = coarse.slacks(*rounded)[:, None]
    assert (error <= bound + np.abs(found) / 256).all()
    lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(d, axis=1).max()
    assert (bound < 0.01 * lengths).all()  # and it is no wider than it must be


def test_each_process_asks_for_its_own_blocks_only() -> None:
    asked: list[set[int]] = [set(), set()]
    q, d = torch.rand(3, 8), torch.rand(25, 8)
    options: dict[str, Any] = {"order": np.arange(25), "pairs": ([0, 2], [24, 3]), "blocks": Blocks(documents=5)}

    def of(share: Share) -> Ranking:
        def vectors(part: slice) -> torch.Tensor:
            asked[share.rank].add(part.start)
            return d[part]

        return nearest(q, vectors, 25, Similarity("dot"), **options, k=2, share=share)

    together(2, of)
    assert asked == [{0, 10, 20}, {5, 15}]


def test_vectors_of_half_precision_and_no_queries_or_documents() -> None:
    q, d = torch.randn(4, 8), torch.randn(50, 8).half()
    find = partial(nearest, vectors=lambda part: d[part], similarity=Similarity("dot"), k=3)
    scores = exact_scores(q.numpy(), d.float().numpy())
    found = find(q, documents=50, order=np.arange(50))
    assert_equal(found, *brute_force(scores, np.arange(50), (np.zeros(0), np.zeros(0)), 3, None))
    assert find(q[:0], documents=50, order=np.arange(50)).rows.shape == (0, 3)
    empty = find(q, documents=0, order=np.arange(0), pairs=(np.array([1]), np.array([-1])))
    assert ((empty.rows == -1).all(), empty.ranks.tolist()) == (True, [0])
