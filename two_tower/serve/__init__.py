"""The search service: JSON over HTTP, and a page to search with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the service accepts. Anything above is refused with the status in parentheses.

    Attributes:
        body: bytes of a request's body (413).
        characters: of a query (422).
        k: passages of an answer (422).
        seconds: from a request's arrival to its answer (504), and for its body to arrive (408).
        queue: requests that wait (503).
        batch: queries that are searched for together.
    """

    body: int = 65_536
    characters: int = 4096
    k: int = 100
    seconds: float = 10.0
    queue: int = 256
    batch: int = 32
