"""No teacher: training learns from judgements alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from two_tower.errors import UserError
from two_tower.teacher.base import Teacher

__all__ = ["NoTeacher"]


class NoTeacher(Teacher):
    """Says what to do when something wants to be taught."""

    name = "none"

    @property
    def dim(self) -> int:
        """See `Teacher.dim`.

        Raises:
            UserError: always.
        """
        self._absent()

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`.

        Raises:
            UserError: always.
        """
        self._absent()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Teacher.encode`.

        Raises:
            UserError: always.
        """
        self._absent()

    @staticmethod
    def _absent() -> NoReturn:
        raise UserError(
            "embedding=transformer and loss=distillation need a teacher: add teacher=sentence_transformer, or choose "
            "another embedding and loss."
        )
