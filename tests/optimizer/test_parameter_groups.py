"""Which parameters end in which group."""

from __future__ import annotations

import torch
from torch import nn

from two_tower.optimizer.adam import Adam
from two_tower.optimizer.base import learning_rate, parameter_groups

OPTIONS = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "embedding_weight_decay": 0.0, "row_wise": True}


class Tower(nn.Module):
    def __init__(self, words: nn.Parameter | None = None) -> None:
        super().__init__()
        self.words = words if words is not None else nn.Parameter(torch.zeros(5, 3))
        self.words.is_word_table = True  # type: ignore[attr-defined]
        self.projection = nn.Linear(3, 2)


def names(groups: list[dict]) -> dict[str, tuple[int, bool]]:
    return {g["name"]: (len(g["params"]), g["word_table"]) for g in groups}


def test_two_towers_have_four_groups() -> None:
    query, document = Tower(), Tower()
    groups = parameter_groups({"query": query, "document": document})
    assert names(groups) == {
        "query/words": (1, True),
        "query/dense": (2, False),
        "document/words": (1, True),
        "document/dense": (2, False),
    }
    assert groups[0]["params"][0] is query.words


def test_one_tower_for_both_is_shared() -> None:
    tower = Tower()
    assert names(parameter_groups({"query": tower, "document": tower})) == {
        "shared/words": (1, True),
        "shared/dense": (2, False),
    }


def test_a_shared_table_is_in_one_group() -> None:
    query = Tower()
    groups = parameter_groups({"query": query, "document": Tower(query.words)})
    assert names(groups) == {"shared/words": (1, True), "query/dense": (2, False), "document/dense": (2, False)}
    parameters = [p for g in groups for p in g["params"]]
    assert len(set(parameters)) == len(parameters)


def test_frozen_parameters_are_grouped_and_empty_groups_left_out() -> None:
    tower = Tower()
    tower.words.requires_grad_(False)
    groups = parameter_groups({"query": tower, "nothing": nn.Identity(), "head": nn.Linear(2, 2)})
    assert names(groups) == {"query/words": (1, True), "query/dense": (2, False), "head/dense": (2, False)}


def test_the_learning_rate_is_without_the_scale_of_word_tables() -> None:
    tower = Tower()
    optimizer = Adam(parameter_groups({"query": tower}), lr=0.25, embedding_lr_scale=4.0, **OPTIONS)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.25]
    assert learning_rate(optimizer.param_groups) == 0.25
    for scale in (4.0, 0.0):
        groups = [{"params": [tower.words], "word_table": True}]
        words = Adam(groups, lr=0.25, embedding_lr_scale=scale, **OPTIONS)
        assert learning_rate(words.param_groups) == (0.25 if scale else 0.0)
    assert learning_rate(torch.optim.SGD(tower.parameters(), lr=0.5).param_groups) == 0.5
