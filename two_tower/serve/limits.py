"""What the service accepts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What the service accepts; anything above is refused with a status of its own.

    Attributes:
        body: most bytes of a request's body (413).
        characters: most characters of a query (422).
        k: most passages of an answer (422).
        seconds: longest time from a request's arrival to its answer (504), and of its body to arrive (408).
        queue: most requests that wait (503).
        batch: most queries that are searched for together.
    """

    body: int = 65_536
    characters: int = 4096
    k: int = 100
    seconds: float = 10.0
    queue: int = 256
    batch: int = 32
