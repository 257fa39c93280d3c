"""The search service: JSON over HTTP, and a page to search with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the service accepts; anything above is refused with the status in parentheses."""

    body: int = 65_536  # bytes of a request's body (413)
    characters: int = 4096  # of a query (422)
    k: int = 100  # passages of an answer (422)
    seconds: float = 10.0  # until the answer (504), and for the body to arrive (408)
    queue: int = 256  # requests that wait (503)
    batch: int = 32  # queries that are searched for together
