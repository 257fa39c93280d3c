"""A service within the test's process, and requests to it."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from two_tower.serve import Limits, Runs


@dataclass(frozen=True)
class Service:
    url: str

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    def listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(self.address) == 0

    def ask(self, path: str, body: str | None = None) -> tuple[int, Any, dict[str, str]]:
        """Status, body (read, if it is JSON) and headers of a GET, or of a POST if there is a body."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        kind = {} if body is None else {"content-type": "application/json"}
        connection.request("GET" if body is None else "POST", path, body and body.encode(), kind)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        headers = {key.lower(): value for key, value in response.getheaders()}
        content = json.loads(text) if "json" in headers.get("content-type", "") else text.decode()
        return response.status, content, headers

    def send(self, data: bytes, silence: float = 0.2) -> bytes:
        """What comes back for raw bytes, until the service closes or is silent for some seconds."""
        answer = b""
        with socket.create_connection(self.address, timeout=5) as connection, suppress(ConnectionError, TimeoutError):
            connection.sendall(data)
            connection.settimeout(silence)
            while part := connection.recv(65_536):
                answer += part
        return answer


@contextmanager
def served(
    runs: Runs, limits: Limits | None = None, watch: bool = False, files: Path | None = None
) -> Iterator[Service]:
    """Serve runs in a thread; imports within, so that tests are skipped where the service is not installed."""
    from benchmarks.serve import served_app
    from two_tower.serve.app import create_app

    with served_app(create_app(runs, limits, watch, files)) as url:
        yield Service(url)
