"""No teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from two_tower.errors import UserError
from two_tower.teacher.base import Teacher


class NoTeacher(Teacher):
    """Refuses whatever needs a teacher."""

    name = "none"

    def fingerprint(self) -> NoReturn:
        raise UserError(
            "embedding=transformer and loss=distillation need a teacher: add teacher=sentence_transformer, or choose "
            "another embedding and loss."
        )

    @property
    def dim(self) -> NoReturn:
        self.fingerprint()

    def encode(self, texts: Sequence[str]) -> NoReturn:
        self.fingerprint()
