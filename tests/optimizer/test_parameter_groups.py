"""Which parameters end in which group."""

import pytest
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


QUERY = Tower()
FROZEN = Tower()
FROZEN.words.requires_grad_(False)


@pytest.mark.parametrize(
    ("modules", "words", "dense"),
    [
        ({"query": QUERY, "document": Tower()}, ["query", "document"], ["query", "document"]),
        ({"query": QUERY, "document": QUERY}, ["shared"], ["shared"]),
        ({"query": QUERY, "document": Tower(QUERY.words)}, ["shared"], ["query", "document"]),
        ({"query": FROZEN, "nothing": nn.Identity(), "head": nn.Linear(2, 2)}, ["query"], ["query", "head"]),
    ],
    ids=["two towers", "one tower", "a shared table", "a frozen table and an empty group"],
)
def test_groups(modules: dict[str, nn.Module], words: list[str], dense: list[str]) -> None:
    groups = parameter_groups(modules)
    expected = {f"{name}/words": (1, True) for name in words} | {f"{name}/dense": (2, False) for name in dense}
    assert {g["name"]: (len(g["params"]), g["word_table"]) for g in groups} == expected
    parameters = [p for g in groups for p in g["params"]]
    assert len(set(parameters)) == len(parameters)
    assert parameters[0] is modules["query"].words


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
