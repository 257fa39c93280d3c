"""How training batches are made: the keys of ``conf/data/_loader.yaml``, which every data source shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_type_hints


@dataclass(frozen=True)
class Loader:
    """The keys of a data source that concern batches; the YAML has their defaults."""

    batch_size: int
    num_workers: int
    train_split: str
    validation_split: str
    max_examples: int
    examples: Literal["judged", "passages"]

    def __post_init__(self) -> None:
        for name, minimum in (("batch_size", 1), ("num_workers", 0), ("max_examples", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {minimum}")


LOADER_KEYS = get_type_hints(Loader)  # with their types
