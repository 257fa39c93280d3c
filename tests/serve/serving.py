"""A service within the test's process, and requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from two_tower.serve import Limits
from two_tower.serve.runs import Runs

if TYPE_CHECKING:
    from fastapi import FastAPI


def application(runs: Runs, limits: Limits | None = None) -> FastAPI:
    """The service; imported here, so that tests are skipped where it is not installed."""
    from two_tower.serve.app import create_app

    return create_app(runs, limits)


@dataclass(frozen=True)
class Service:
    """Where a service listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, body: bytes | str | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (read, if it is JSON) and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        content = body.encode() if isinstance(body, str) else body
        sent = {"content-type": "application/json"} if body is not None else {}
        connection.request(method or ("GET" if body is None else "POST"), path, content, {**sent, **headers})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        said = {key.lower(): value for key, value in response.getheaders()}
        return response.status, json.loads(text) if "json" in said.get("content-type", "") else text.decode(), said

    def send(self, data: bytes, silence: float = 0.2) -> bytes:
        """What comes back for raw bytes, until the service closes or says nothing more."""
        parts: list[bytes] = []
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            try:
                connection.sendall(data)
                connection.settimeout(silence)
                while part := connection.recv(65_536):
                    parts.append(part)
            except (ConnectionError, TimeoutError):
                pass
        return b"".join(parts)


@contextmanager
def served(app: FastAPI) -> Iterator[Service]:
    """Serve an application in a thread."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Service(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
