"""No teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from two_tower.errors import UserError
from two_tower.teacher.base import Teacher


class NoTeacher(Teacher):
    """Refuses whatever needs a teacher."""

    name = "none"

    @property
    def dim(self) -> int:
        self._refuse()

    def fingerprint(self) -> str:
        self._refuse()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise UserError(
            "embedding=transformer and loss=distillation need a teacher: add teacher=sentence_transformer, or choose "
            "another embedding and loss."
        )
