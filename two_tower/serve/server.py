"""Run the service until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from two_tower.console import say
from two_tower.errors import UserError
from two_tower.serve.limits import Limits

__all__ = ["serve"]

# Seconds that requests at hand may take when the service stops.
GRACE = 10


def serve(paths: Sequence[Path], host: str, port: int, limits: Limits, words: bool = True) -> None:
    """Serve runs over HTTP until SIGINT or SIGTERM; requests at hand are answered first.

    Args:
        paths: run folders, embedded.
        host: the address to listen on.
        port: 0 takes any that is free.
        limits: what is accepted.
        words: whether to search by words (BM25), too.

    Raises:
        UserError: the extra is not installed, the address is not free, or a run cannot be searched.
    """
    try:
        import uvicorn

        from two_tower.serve.app import create_app
    except ModuleNotFoundError as error:
        raise UserError(f'two-tower serve needs {error.name}: pip install -e ".[serve]"') from error
    from two_tower.serve.collection import Runs

    listener = _listen(host, port)  # at once, not after the seconds that loading takes
    with listener:
        runs = Runs.load(paths, words)
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
        say(f"Search page: {_address(listener)}  (API: {_address(listener)}/docs; stop with Ctrl-C)")
        _run(uvicorn.Server(config), listener)
    say("Stopped.", style="dim")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"Cannot listen on {host} port {port}: {reason}; choose others with --host and --port."
        ) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _run(server: object, listener: socket.socket) -> None:
    """Serve; once it has ended in order, a signal shall not end the process a second time, as uvicorn wants it to."""
    import uvicorn

    assert isinstance(server, uvicorn.Server)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
