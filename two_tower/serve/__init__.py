"""The search service: JSON over HTTP, and a page to search with."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from two_tower.console import say
from two_tower.errors import UserError

GRACE = 10  # seconds for the current requests to end when the service stops


@dataclass(frozen=True)
class Limits:
    """What the service accepts; anything above is refused with the status in parentheses."""

    body: int = 65_536  # bytes of a request's body (413)
    characters: int = 4096  # of a query (422)
    k: int = 100  # passages of an answer (422)
    seconds: float = 10.0  # until the answer (504), and for the body to arrive (408)
    queue: int = 256  # requests that wait (503)
    batch: int = 32  # queries that are searched for together


def serve(paths: Sequence[Path], host: str, port: int, limits: Limits, bm25: bool = True) -> None:
    """Serve embedded runs over HTTP until SIGINT or SIGTERM; current requests are answered first."""
    try:
        import uvicorn

        from two_tower.serve.app import create_app
        from two_tower.serve.runs import Runs
    except ModuleNotFoundError as error:
        raise UserError(f'two-tower serve needs {error.name}: pip install -e ".[serve]"') from error
    with _bound(host, port) as listener:  # at once, not after the seconds that loading takes
        runs = Runs.load(paths, bm25)
        say("Warming up …", style="dim")
        runs.warm()
        quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
        config = uvicorn.Config(create_app(runs, limits), timeout_graceful_shutdown=GRACE, **quiet)
        listener.listen(2048)
        for name, searcher in runs:
            say(f"{name}: {searcher.passages:,} passages")
        name, number = listener.getsockname()[:2]
        address = f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
        say(f"Search page: {address}  (API: {address}/openapi.json; stop with Ctrl-C)")
        with _signals_ignored():
            uvicorn.Server(config).run(sockets=[listener])
    say("Stopped.", style="dim")


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot listen on {host} port {port}: {reason}; choose others with --host, --port.") from error
    return listener


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Once uvicorn has ended in order, it raises the signal again: that shall not end this process."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
