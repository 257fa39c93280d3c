"""Conditions on the fields of passages, by which a search leaves out the others."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch

from two_tower.data.base import FIELDS
from two_tower.errors import UserError, one_of, printable
from two_tower.ranking import Ranking, nearest
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

_WRITTEN = re.compile(r"\s*([^=!<>]*[^=!<>\s])\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_HOLDS = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


Scalar: TypeAlias = str | int | float | bool | None


class FilterError(UserError):
    """A filter that cannot be read, or names no field."""


@dataclass(frozen=True)
class Condition:
    """What a field must be; numbers compare as such, all else as texts, so that dates of year-month-day do too."""

    name: str
    operator: str
    value: str

    @classmethod
    def read(cls, text: str) -> Condition:
        """From the form ``lang=de``."""
        if not (read := _WRITTEN.fullmatch(text)):
            raise FilterError(f"The filter '{text}' cannot be read: write FIELD=VALUE, or with !=, <, <=, > or >=.")
        return cls(*read.groups())

    def holds(self, fields: Mapping[str, Scalar]) -> bool:
        """Of a passage's fields; one that is not there is unequal to everything, and neither more nor less."""
        found = fields.get(self.name)
        if found is None:
            return self.operator == "!="
        if isinstance(found, bool):
            found = str(found).lower()
        if not isinstance(found, str):
            with suppress(ValueError):
                return bool(_HOLDS[self.operator](found, float(self.value)))
        return bool(_HOLDS[self.operator](str(found), self.value))


def fields_of(document: str | None) -> dict[str, Scalar]:
    """A passage's fields from their JSON; a NaN or half a surrogate, which an answer may not hold, is replaced."""
    loaded = json.loads(document or "{}", parse_constant=lambda _: None)
    return {printable(k): printable(v) if isinstance(v, str) else v for k, v in loaded.items()}


def matching(store: VectorStore, written: Sequence[str]) -> np.ndarray:
    """(N,) bool: the passages for which all conditions hold; a FilterError names one that no passage could meet."""
    conditions, names, masks = [Condition.read(text) for text in written], set[str](), []
    for table in store.texts():
        documents = table[FIELDS].to_pylist() if FIELDS in table.column_names else [None] * len(table)
        read = [fields_of(document) for document in documents]
        names |= {name for fields in read for name in fields}
        masks.append([all(condition.holds(fields) for condition in conditions) for fields in read])
    for condition in conditions:
        if condition.name not in names:
            known = one_of(condition.name, sorted(names)) if names else "they have none"
            raise FilterError(f"No passage has a field {condition.name}; {known}.")
    return np.concatenate([np.array(mask, bool) for mask in masks])


def nearest_fitting(store: VectorStore, q_BD: np.ndarray, k: int, fitting: np.ndarray, order: np.ndarray) -> Ranking:
    """The nearest of the passages that fit, (N,) bool, compared one by one; ``order`` is that of `nearest`."""
    rows, similarity = np.flatnonzero(fitting), Similarity(store.manifest.similarity)
    vectors, queries = torch.from_numpy(store.take(rows)), torch.from_numpy(q_BD)
    found = nearest(queries, vectors.__getitem__, len(rows), similarity, order=order[rows], k=min(k, len(rows)))
    return replace(found, rows=np.where(found.rows >= 0, rows[found.rows], -1))


def first_fitting(best: Callable[[int], Ranking], k: int, fitting: np.ndarray) -> Ranking:
    """The first ``k`` of a ranking that fit, or fewer if there are not so many; ``best`` gives any number of firsts."""
    count, total = len(fitting), int(fitting.sum())
    depth = min(count, 2 * k * count // max(1, total))
    while True:
        ranking = best(depth)
        fits = (ranking.rows >= 0) & fitting[ranking.rows]
        ended = (ranking.rows < 0).any(axis=1)  # nothing more is found
        if depth >= count or bool(((fits.sum(1) >= min(k, total)) | ended).all()):
            break
        depth = min(count, 4 * depth)
    order = np.argsort(~fits, axis=1, kind="stable")[:, :k]
    rows, scores, fits = (np.take_along_axis(each, order, 1) for each in (ranking.rows, ranking.scores, fits))
    return Ranking(np.where(fits, rows, -1), np.where(fits, scores, -np.inf), ranking.ranks)
