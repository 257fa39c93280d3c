"""Whether a difference is more than chance: paired randomisation tests, Holm's correction, intervals of means.

Chance draws the queries: all of it asks how figures would move with other queries of the same kind, for the very
models that were measured. Smucker, Allan and Carterette (2007) compare the tests that retrieval uses; the
randomisation test assumes least, and Student's t and the bootstrap agree with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

Values = Mapping[str, np.ndarray]  # metric → (Q,) values


# A p-value of .05 then has a standard error of .0007; 400 queries take 20 ms, 7,000 take 0.3 s.
RESAMPLES = 100_000
# With up to this many differing queries, all 2 ** n exchanges are fewer than RESAMPLES.
MAX_EXACT = 16
# Resampled means of an interval: its ends are then within about 1 % of its width.
MEANS = 5_000

SIGNIFICANT = 0.05  # p-values below it are called more than chance
LEGEND = (  # of what `cell` writes
    "in brackets 95 % intervals (bootstrap over the queries); * differs from BM25 by more than chance (paired "
    "randomisation test, p < .05)"
)

_SYSTEMS = ("hybrid", "dense", "bm25")  # each is tested against those behind it
_ROUNDING = 1e-12  # of metrics, which are at most 1
_CELLS = 1 << 22  # of a block of resamples: 32 MB of int64


def paired_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(Q,) float64, a - b; exactly 0 where they differ by rounding, as an average of equal values may."""
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return np.where(np.abs(differences) < _ROUNDING, 0.0, differences)


def randomisation_test(a: np.ndarray, b: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test (Fisher's) for a difference of means.

    The share of exchanges of the two systems' values (Q,) of the same queries, ``a`` and ``b``, that move the means at
    least as far apart as they are. With up to 16 queries that differ, all are counted; with more, ``resamples`` are
    drawn, and p is (hits + 1) / (drawn + 1), so never 0 (Phipson and Smyth 2010). It is 1 if no query differs.
    """
    differences = paired_differences(a, b)
    differences = differences[differences != 0]  # exchanging equal values changes nothing
    # Equal sums may differ by rounding; they must count as equal.
    threshold = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    if len(differences) <= MAX_EXACT:
        return float((np.abs(_signed_sums(differences)) >= threshold).mean())
    rng, sums = np.random.default_rng(seed), np.zeros(resamples)
    for start in range(0, len(differences), 8):  # the signs of eight are one random byte
        eight = _signed_sums(differences[start : start + 8])
        sums += eight[rng.integers(0, len(eight), resamples, np.uint8)]
    return (int((np.abs(sums) >= threshold).sum()) + 1) / (resamples + 1)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """(2 ** n,) sums of n values under all patterns of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction for several tests: adjusted p-values, in the order given.

    Whoever calls all those below .05 significant is wrong about any of them in at most 5 % of such families.
    """
    order = np.argsort(p_values, kind="stable")
    raised = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return [float(p) for p in adjusted]


def mean_interval(
    values: np.ndarray, level: float = 0.95, resamples: int = MEANS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of means over queries: (M,) lower and (M,) upper ends.

    ``values`` (Q, M) hold M figures for each query, which are resampled together. With fewer than two queries both
    ends are the mean. Unlike Student's the intervals never leave the range of the values, and are as skewed as these.
    """
    values = np.asarray(values, np.float64)
    queries = len(values)
    if queries < 2:
        mean = values.mean(0) if queries else np.zeros(values.shape[1])
        return mean, mean
    rng, means = np.random.default_rng(seed), []
    block = max(1, _CELLS // queries)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, queries, (count, queries), np.int32)
        drawn += np.arange(count, dtype=np.int32)[:, None] * queries
        times = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
        means.append(times @ values / queries)
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high


def figures_of(systems: Mapping[str, Values]) -> dict[str, float]:
    """Means of several systems with their intervals, and p-values of tests against each other.

    ``systems`` are ``hybrid``, ``dense`` and ``bm25``, or one of these with a group (``dense_unseen``). The keys of
    what is returned are ``SYSTEM/METRIC``, ``…/low``, ``…/high`` and ``…/p_vs_OTHER``.
    """
    columns = {f"{system}/{metric}": values for system, its in systems.items() for metric, values in its.items()}
    lows, highs = mean_interval(np.stack(list(columns.values()), axis=1))
    results: dict[str, float] = {}
    for (name, values), low, high in zip(columns.items(), lows.tolist(), highs.tolist(), strict=True):
        results |= {name: float(values.mean()), f"{name}/low": low, f"{name}/high": high}
    ordered = sorted(systems, key=lambda system: _SYSTEMS.index(system.partition("_")[0]))
    for system, other in itertools.combinations(ordered, 2):
        for metric, values in systems[system].items():
            p_value = randomisation_test(values, systems[other][metric])
            results[f"{system}/{metric}/p_vs_{other.partition('_')[0]}"] = p_value
    return results


def cell(figures: Mapping[str, float], name: str) -> str:
    """A figure of `figures_of` with its interval, and a star where it differs from BM25 by more than chance."""
    star = " *" if figures.get(f"{name}/p_vs_bm25", 1) < SIGNIFICANT else ""
    return f"{figures[name]:.3f} [{figures[f'{name}/low']:.3f}, {figures[f'{name}/high']:.3f}]{star}"


def clearest(differences: np.ndarray, sign: int, count: int) -> list[int]:
    """Up to ``count`` rows of (Q,) differences: the largest first, with ``sign`` -1 the smallest; none that is 0."""
    largest = np.argsort(-sign * differences, kind="stable")[:count]
    return [row for row in largest.tolist() if sign * differences[row] > 0]
