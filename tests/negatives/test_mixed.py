"""A mixture: whose documents how often in which epoch, and mistakes in its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from test_train import configure

from two_tower.assemble import try_parts
from two_tower.config import build
from two_tower.config.compose import explain
from two_tower.config.groups import CONF
from two_tower.errors import UserError
from two_tower.negatives.ann import ANNNegatives
from two_tower.negatives.base import Collection, DrawnNegatives, KnownPositives, Positives
from two_tower.negatives.given import GivenNegatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.negatives.mixed import MixedNegatives
from two_tower.negatives.random import RandomNegatives


class Only(DrawnNegatives):
    """Proposes one document; keeps what it is told."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row, self.epochs, self.collections = row, [], []

    def prepare(self, collection: Collection) -> None:
        self.collections.append(collection)

    def start_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def draw(
        self,
        count: int,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        return np.full((len(query_rows), count), self.row)


NOTHING = KnownPositives(np.zeros(0, int), np.zeros(0, int), np.arange(9), np.arange(9))


def shares(mixed: MixedNegatives, epoch: int, size: int = 6000) -> list[float]:
    mixed.start_epoch(epoch)
    drawn = mixed.extras(np.zeros(size, int), None, NOTHING, np.random.default_rng(epoch))
    assert drawn.shape == (size, mixed.count)
    return (np.bincount(drawn.ravel(), minlength=3) / drawn.size).tolist()


def test_weights_follow_the_schedule_and_the_last_one_stays() -> None:
    mixed = MixedNegatives(2, {"a": 1, "b": [0, 0.5, 3], "c": [2, 0]}, a=Only(0), b=Only(1), c=Only(2))
    for epoch, expected in enumerate([[1 / 3, 0, 2 / 3], [2 / 3, 1 / 3, 0], [1 / 4, 3 / 4, 0], [1 / 4, 3 / 4, 0]]):
        assert shares(mixed, epoch) == pytest.approx(expected, abs=0.03)
    assert [strategy.epochs for strategy in mixed.strategies.values()] == [[0, 1, 2, 3], [1, 2, 3], [0]]
    assert [[part.row for part in mixed.parts(epoch)] for epoch in range(3)] == [[0, 2], [0, 1], [0, 1]]


def test_the_documents_of_a_query_mix_and_follow_from_the_generator() -> None:
    mixed = MixedNegatives(4, a=Only(0), b=Only(1))
    drawn = [mixed.extras(np.zeros(50, int), None, NOTHING, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    assert len({tuple(row) for row in drawn[0].tolist()}) > 8


def test_what_the_strategies_need_the_mixture_needs() -> None:
    mixed = MixedNegatives(a=RandomNegatives(), b=GivenNegatives())
    assert (mixed.needs_triplets, mixed.needs_collection, mixed.stochastic) == (True, False, True)
    mixed = MixedNegatives(mask_known_positives=False, a=RandomNegatives(), b=ANNNegatives())
    assert (mixed.needs_triplets, mixed.needs_collection) == (False, True)
    assert not any(strategy.mask_known_positives for strategy in mixed.strategies.values())
    given = np.array([[5, 6, 7]] * 300)
    only = MixedNegatives(2, {"random": 0}, random=RandomNegatives(), given=GivenNegatives())
    drawn = only.extras(np.zeros(300, int), given, NOTHING, np.random.default_rng(0))
    assert (np.sort(drawn, 1)[:, 0] < np.sort(drawn, 1)[:, 1]).all()
    assert set(drawn.ravel().tolist()) == {5, 6, 7}


def test_each_has_a_folder_of_its_own(tmp_path: Path) -> None:
    inner = MixedNegatives(c=Only(0))
    MixedNegatives(a=Only(1), b=inner).prepare(
        Collection(None, None, None, None, NOTHING, False, "", tmp_path)  # type: ignore[arg-type]
    )
    assert inner.strategies["c"].collections[0].folder == tmp_path / "b" / "c"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_batch": InBatchNegatives()}, r"negatives\.in_batch has no documents of its own to mix in"),
        ({"hard": 3}, r"negatives\.hard is neither a strategy nor a key .* \+negatives@negatives\.hard=CHOICE"),
        ({}, r"negatives=mixed has no strategy left"),
        ({"a": Only(0), "weights": {"a": 0}}, r"negatives\.weights are all 0 in epoch 1"),
        ({"a": Only(0), "b": Only(1), "weights": {"a": [1, 0], "b": [0, 0, 1]}}, r"are all 0 in epoch 2"),
        ({"a": Only(0), "weights": {"a": []}}, r"negatives\.weights\.a=\[\] must be a number of at least 0, or a list"),
        ({"a": Only(0), "weights": {"a": [1, -1]}}, r"negatives\.weights\.a=\[1, -1\] must be a number"),
        ({"a": Only(0), "weights": {"a": True}}, r"negatives\.weights\.a=True must be a number"),
        (
            {"random": Only(0), "weights": {"radnom": 1}},
            r"weights\.radnom belongs to no strategy; did you mean 'random'",
        ),
        ({"a": RandomNegatives(2)}, r"negatives\.a\.count says nothing in a mixture: set negatives\.count instead"),
        ({"a": RandomNegatives(mask_known_positives=False)}, r"negatives\.a\.mask_known_positives says nothing"),
        ({"count": 0, "a": Only(0)}, r"negatives\.count=0 must be at least 1"),
    ],
)
def test_a_mixture_that_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MixedNegatives(**settings)


def test_a_mixture_of_ones_own_choice(tmp_path: Path) -> None:
    overrides = [
        "negatives=mixed", "~negatives@negatives.bm25", "~negatives.weights.bm25", "+negatives@negatives.hard=ann",
        "negatives.hard.last_rank=30", "+negatives.weights.hard=[0,2]", "negatives.count=3",
    ]  # fmt: skip
    mixed = build("negatives", configure(tmp_path, tmp_path / "run", *overrides)["negatives"])
    assert list(mixed.strategies) == ["random", "hard"]
    assert (mixed.count, mixed.strategies["hard"].last_rank) == (3, 30)
    assert [len(mixed.parts(epoch)) for epoch in range(2)] == [1, 2]


MISTAKES = {
    "a key": (["+negatives.bm25.lastrank=1"], r"negatives\.bm25\.lastrank does not exist; did you mean 'last_rank'"),
    "a type": (["negatives.bm25.last_rank=far"], r"negatives\.bm25\.last_rank=far has the wrong type"),
    "a choice": (["negatives.random.distribution=unifrom"], r"distribution=unifrom .* did you mean 'uniform'"),
    "a weight's name": (["+negatives.weights.bm52=1"], r"negatives\.weights\.bm52 .* did you mean 'bm25'"),
    "a weight": (["negatives.weights.bm25=x"], r"negatives\.weights\.bm25=x must be a number"),
    "a name": (["+negatives.wieghts=3"], r"negatives\.wieghts is neither a strategy nor a key"),
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_inside_are_named_before_data_is_read(overrides: list[str], message: str, tmp_path: Path) -> None:
    def parts(*overrides: str) -> None:
        try_parts(configure(tmp_path / "absent", tmp_path / "run", "negatives=mixed", *overrides))

    parts()  # negative control: without the mistake it is fine
    with pytest.raises(UserError, match=message):
        parts(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["negatives.bm25.lastrank=1"],
            "negatives.bm25.lastrank does not exist; did you mean 'negatives.bm25.last_rank",
        ),
        (["negatives@negatives.bm25=bm52"], "negatives=bm52 does not exist; did you mean 'bm25'"),
    ],
)
def test_what_hydra_refuses_inside_is_explained(overrides: list[str], message: str) -> None:
    overrides = ["negatives=mixed", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(Exception) as caught:  # noqa: PT011
        compose("train", overrides)
    assert explain(caught.value, "train", overrides).startswith(message)
