"""Run the service until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from two_tower.console import say
from two_tower.errors import UserError
from two_tower.serve import Limits

GRACE = 10  # seconds for the current requests to end when the service stops


def serve(paths: Sequence[Path], host: str, port: int, limits: Limits, bm25: bool = True) -> None:
    """Serve embedded runs over HTTP until SIGINT or SIGTERM; current requests are answered first.

    Raises:
        UserError: the extra is not installed, the address is not free, or a run cannot be searched.
    """
    try:
        import uvicorn

        from two_tower.serve.app import create_app
    except ModuleNotFoundError as error:
        raise UserError(f'two-tower serve needs {error.name}: pip install -e ".[serve]"') from error
    from two_tower.serve.runs import Runs

    with _bound(host, port) as listener:  # at once, not after the seconds that loading takes
        runs = Runs.load(paths, bm25)
        say("Warming up …", style="dim")
        runs.warm()
        config = uvicorn.Config(
            create_app(runs, limits),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        listener.listen(2048)
        for name, searcher in runs:
            say(f"{name}: {searcher.passages:,} passages")
        address = _address(listener)
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


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Once uvicorn has ended in order, it raises the signal again: that shall not end this process."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
