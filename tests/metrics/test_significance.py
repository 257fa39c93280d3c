"""P-values against every exchange counted one by one, in fractions; intervals against how often they are right."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.metrics.significance import MAX_EXACT, holm, mean_interval, randomisation_test

RANKS = st.integers(1, 10)


def reciprocal(ranks: list[int]) -> np.ndarray:
    return np.array([1 / rank for rank in ranks])


def counted(pairs: list[tuple[int, int]]) -> Fraction:
    """The share of all exchanges that move the means at least as far apart; exact."""
    differences = [Fraction(1, a) - Fraction(1, b) for a, b in pairs]
    observed = abs(sum(differences))
    exchanges = itertools.product((1, -1), repeat=len(pairs))
    sums = [abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) for signs in exchanges]
    return Fraction(sum(s >= observed for s in sums), len(sums))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(RANKS, RANKS), max_size=8))
def test_few_queries_are_counted_exactly(pairs: list[tuple[int, int]]) -> None:
    a, b = reciprocal([a for a, _ in pairs]), reciprocal([b for _, b in pairs])
    expected = float(counted(pairs))
    assert randomisation_test(a, b) == pytest.approx(expected, abs=1e-15)
    assert randomisation_test(b, a) == pytest.approx(expected, abs=1e-15)
    # Queries without a difference change nothing, however many there are.
    same = np.full(100, 0.3)
    assert randomisation_test(np.append(a, same), np.append(b, same)) == pytest.approx(expected, abs=1e-15)


def by_distribution(differences: list[int]) -> float:
    """The exact p-value of whole-number differences: the distribution of their signed sum, built up one by one."""
    ways = {0: 1}
    for difference in differences:
        after: dict[int, int] = {}
        for total, count in ways.items():
            for moved in (total + difference, total - difference):
                after[moved] = after.get(moved, 0) + count
        ways = after
    observed = abs(sum(differences))
    return sum(count for total, count in ways.items() if abs(total) >= observed) / 2 ** len(differences)


@pytest.mark.parametrize("queries", [MAX_EXACT, MAX_EXACT + 1, 150])
@pytest.mark.parametrize("shift", [0, 2])
def test_drawn_exchanges_come_near_the_exact_value(queries: int, shift: int) -> None:
    rng = np.random.default_rng(queries)
    differences = [int(d) for d in rng.integers(-6, 7, queries) + shift]
    expected = by_distribution(differences)
    found = randomisation_test(np.array(differences) / 7, np.zeros(queries))
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 1e5) + 2e-5)


def test_it_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    rng = np.random.default_rng(3)
    for _ in range(5):
        a, b = rng.random((2, 10))
        test = stats.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert randomisation_test(a, b) == pytest.approx(test.pvalue, abs=1e-12)


def test_drawn_p_values_repeat_and_are_never_zero() -> None:
    a, b = np.ones(300), np.zeros(300)
    assert randomisation_test(a, b, resamples=999) == 1 / 1000
    assert randomisation_test(a, b, resamples=999, seed=5) == 1 / 1000
    noisy = np.random.default_rng(0).random(300)
    assert randomisation_test(noisy, 1 - noisy) == randomisation_test(noisy, 1 - noisy)
    assert randomisation_test(noisy, 1 - noisy) != randomisation_test(noisy, 1 - noisy, seed=1)
    assert randomisation_test(noisy, noisy) == 1


def test_p_values_of_equal_systems_are_uniform() -> None:
    rng = np.random.default_rng(0)
    p_values = np.array([randomisation_test(*rng.random((2, 40)), resamples=999) for _ in range(400)])
    for level in (0.05, 0.2, 0.5):
        assert (p_values <= level).mean() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 400))


def rejected(p_values: list[float], level: float) -> set[int]:
    """Holm's procedure as it is told: from the least p-value on, stop at the first that is too large."""
    out: set[int] = set()
    for i in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        if p_values[i] > level / (len(p_values) - len(out)):
            break
        out.add(i)
    return out


@given(
    st.lists(st.sampled_from([n / 32 for n in range(33)]), max_size=6), st.sampled_from([1 / 64, 3 / 64, 0.25, 33 / 64])
)
def test_holm_rejects_what_the_procedure_rejects(p_values: list[float], level: float) -> None:
    adjusted = holm(p_values)
    assert {i for i, p in enumerate(adjusted) if p <= level} == rejected(p_values, level)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    ranks = 1 / rng.integers(1, 11, (80, 500))
    low, high = mean_interval(ranks, level=0.9, resamples=1000)
    truth = sum(1 / r for r in range(1, 11)) / 10
    assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(0.9, abs=0.05)
    # Each column is as if it were alone.
    alone = mean_interval(ranks[:, 7:8], level=0.9, resamples=1000)
    assert (alone[0][0], alone[1][0]) == pytest.approx((low[7], high[7]), abs=1e-12)


def test_of_many_values_the_interval_is_the_normal_one_and_of_few_or_equal_ones_a_point() -> None:
    values = np.random.default_rng(1).random((1500, 1))  # more than one block of resamples
    mean, half = values.mean(), 1.96 * values.std() / math.sqrt(len(values))
    assert np.ravel(mean_interval(values)) == pytest.approx([mean - half, mean + half], abs=0.06 * half)
    for few, point in ((np.zeros((0, 2)), [0, 0]), (np.array([[0.25, 1.0]]), [0.25, 1.0]), (np.ones((9, 1)), [1])):
        assert [end.tolist() for end in mean_interval(few)] == [point, point]
