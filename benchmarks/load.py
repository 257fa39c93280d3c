"""A service under load: ``python -m benchmarks.load RUN [SECONDS]`` → docs/data/load.json → docs/serve.md.

`two-tower serve` answers the run's own validation queries, 16 and 256 clients after one another, by exact search and by
a graph. Before the last seconds, clients that are slow, break off or send nonsense have been there.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.fill import fill
from benchmarks.load_page import STORED
from benchmarks.measure import anonymous_memory
from benchmarks.rates_page import machine
from benchmarks.serve import Load, load
from benchmarks.tables import ROOT
from two_tower.console import say
from two_tower.files import write_json

CLIENTS = (16, 256)
NONSENSE = 1_000  # requests
INDEXES = {"flat": (), "hnsw": ("index=hnsw", "index.target_recall=0.99")}


class Served:
    """A running `two-tower serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process, self.url = process, url

    @property
    def megabytes(self) -> float:
        """Of memory that it has for itself."""
        return anonymous_memory(self._process.pid) / 2**20


@contextmanager
def served(run: Path, index: Path) -> Iterator[Served]:
    """The command with a run and an index, ready to answer."""
    command = [sys.executable, "-m", "two_tower", "serve", str(run), "--index", str(index), "--port", "0"]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True, cwd=ROOT)
        try:
            yield Served(process, _address(process, said))
        finally:
            process.terminate()
            process.wait(60)


def _address(process: subprocess.Popen[str], said: Any) -> str:  # noqa: ANN401
    while process.poll() is None:
        said.seek(0)
        if found := [word for word in said.read().split() if word.startswith("http://")]:
            return str(found[0].rstrip(".,;"))
        time.sleep(0.1)
    said.seek(0)
    raise RuntimeError(f"the service has ended: {said.read()}")


def disturb(url: str, seed: int = 0) -> int:
    """Send nonsense, begin requests and never end them, go before the answer; returns how much was answered."""
    rng, place, answered, slow = random.Random(seed), urlsplit(url), 0, list[socket.socket]()
    address = (place.hostname or "", place.port or 80)
    for number in range(NONSENSE):
        client = socket.create_connection(address, timeout=10)
        kind = number % 4
        if kind == 0:  # half of a body, and no more
            client.sendall(b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{")
            slow.append(client)
        elif kind == 1:  # gone before the answer
            client.sendall(b"GET /search?q=a+question&k=10 HTTP/1.1\r\nHost: a\r\n\r\n")
            client.close()
        else:
            junk = rng.randbytes(rng.randrange(1, 2_000))
            if kind == 2:
                client.sendall(b"GET /search?q=" + junk.hex().encode() + b"&k=" + junk.hex().encode())
                client.sendall(b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            else:
                client.sendall(junk + b"\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            answered += bool(client.recv(100))
            client.close()
    for client in slow[:50]:
        client.close()
    return answered


def measure(run: Path, queries: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Each index under each number of clients: what `Load` says, with the service's memory before and after."""
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in INDEXES.items():
            index = Path(folder, name)
            command = [sys.executable, "embed.py", f"run={run}", f"output={index}", *overrides]
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            with served(run, index) as service:
                load(service.url, queries, 1)
                for clients in CLIENTS:
                    before, seen = service.megabytes, load(service.url, queries, seconds, clients)
                    yield _row(name, clients, seen, before, service.megabytes)
                disturb(service.url)
                before, seen = service.megabytes, load(service.url, queries, seconds / 4, CLIENTS[0])
                yield _row(f"{name}, after {NONSENSE:,} bad requests", CLIENTS[0], seen, before, service.megabytes)


def _row(name: str, clients: int, seen: Load, before: float, after: float) -> dict[str, Any]:
    figures = {key: round(value, 1) for key, value in vars(seen).items()}
    return {"index": name, "clients": clients, **figures, "before": round(before), "after": round(after)}


def main(path: str, seconds: str = "60") -> None:
    """The command."""
    from two_tower.config import read
    from two_tower.loading import make_source
    from two_tower.store import VectorStore

    run = Path(path).resolve()
    config = read(run / "config.yaml")["data"]
    queries = make_source(config).queries(config["validation_split"])["text"].to_pylist()
    rows = []
    for row in measure(run, queries, float(seconds)):
        say(str(row))
        rows.append(row)
    store = VectorStore.open(run / "index")
    about = {"passages": store.rows, "dim": store.manifest.dim, "machine": machine()["processor"]}
    write_json(STORED, {**about, "rows": rows})
    fill()


if __name__ == "__main__":
    main(*sys.argv[1:])
