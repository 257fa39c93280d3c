"""What is asked of a tower, said in one sentence to whoever writes one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from two_tower.config import build
from two_tower.errors import UserError
from two_tower.model import TwoTower
from two_tower.ragged import Ragged
from two_tower.similarity import Similarity
from two_tower.tower.base import Tower


class Returns(Tower):
    """A tower that returns what it is told."""

    def __init__(self, value: Any) -> None:  # noqa: ANN401
        super().__init__(8)
        self.value = value

    def forward(self, tokens: Ragged) -> Tensor:
        return self.value


@pytest.mark.parametrize("value", [torch.zeros(2, 9), torch.zeros(5, 8), torch.zeros(8), None, (torch.zeros(2, 8),)])
def test_vectors_of_another_shape_are_refused(value: Any) -> None:  # noqa: ANN401
    tower = Returns(value)
    with pytest.raises(UserError, match=r"Returns returns vectors of the shape .*\(2, 8\)"):
        TwoTower(tower, tower, Similarity("cosine")).encode("documents", Ragged.from_lists([[1, 2, 3], [4, 5]]))


def test_what_a_class_needs_and_nothing_gives_is_named() -> None:
    with pytest.raises(
        UserError, match=r"tower \(AverageTower\) cannot be built: .*'words'; its YAML file must have its keys"
    ):
        build("tower", {"_target_": "two_tower.tower.average.AverageTower", "dim": 8})
