"""Single-query requests by 16 clients at once: the service, and a handler that searches for each request alone.

It searches 31,000 passages of real words by an untrained average tower of 256 dimensions; `benchmarks.load` puts a load
on a run of yours. The load comes from wrk (https://github.com/wg/wrk; Debian's package ``wrk``) over the loopback
address, so it shares the machine's cores with the service.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.inputs import passages, tokenizer
from benchmarks.measure import Rates, Row, compare
from benchmarks.vectors import random_tower, write_store
from two_tower.console import say
from two_tower.encode import Encoder
from two_tower.index import load_index, make_index
from two_tower.search import Searcher

NEEDS = ("fastapi", "uvicorn", "prometheus_client")
PROGRAMS = ("wrk",)
CLIENTS = 16
PASSAGES, QUERIES, QUERY_WORDS = 31_000, 500, 6
FLAT = {"_target_": "two_tower.index.faiss.FlatIndex"}

# Each request asks another question: a service that remembers answers would gain nothing.
_SCRIPT = """
local paths, next = {}, 0
for line in io.lines("%s") do paths[#paths + 1] = line end
request = function() next = next %% #paths + 1; return wrk.format("GET", paths[next]) end
done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  print("found", summary.requests / summary.duration * 1e6, failed,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3)
end
"""


@dataclass(frozen=True)
class Load:
    """The figures of a load test."""

    rate: float  # requests answered a second
    failed: float  # requests without an answer, or with a status of 400 and above
    p50: float  # milliseconds
    p99: float
    p999: float


def load(url: str, queries: Sequence[str], seconds: float, clients: int = CLIENTS) -> Load:
    """Put a load on a service, which is asked the queries in turns."""
    with tempfile.TemporaryDirectory() as folder:
        paths, script = Path(folder, "paths"), Path(folder, "ask.lua")
        paths.write_text("".join(f"/search?k=10&q={quote(query)}\n" for query in queries), encoding="utf-8")
        script.write_text(_SCRIPT % paths, encoding="utf-8")
        command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}", "-s", str(script), url]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    return Load(*map(float, said.rpartition("found")[2].split()))


@contextmanager
def served_app(app: Any) -> Iterator[str]:  # noqa: ANN401
    """The address of an application while it is served."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _ours(searcher: Searcher) -> Any:  # noqa: ANN401
    from two_tower.serve import Runs
    from two_tower.serve.app import create_app

    runs = Runs([searcher], bm25=False)
    runs.warm()
    return create_app(runs)


def _plain(searcher: Searcher) -> Any:  # noqa: ANN401
    """What one writes first."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/search")
    def search(q: str, k: int = 10) -> dict[str, Any]:
        return searcher.search([q], k)[0].to_dict()

    return app


def _searcher(folder: Path, texts: Sequence[str], quick: bool) -> Searcher:
    encoder: Encoder = random_tower(tokenizer(quick))
    store = write_store(folder, encoder.documents(texts), texts)
    make_index(FLAT, store, (encoder.queries(texts[:100]), "passages"))
    return Searcher(encoder, load_index(folder), store, "benchmark")


def run(quick: bool = False) -> list[Row]:
    """The row ``serve``."""
    count = 2000 if quick else PASSAGES
    texts = passages(count + QUERIES, quick)
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts[count:]]
    rates: Rates = {"ours": [], "a search for each request": []}
    p99: dict[str, list[float]] = {name: [] for name in rates}
    with tempfile.TemporaryDirectory() as folder:
        searcher = _searcher(Path(folder), texts[:count], quick)
        for _ in range(3):
            for name, app in zip(rates, (_ours(searcher), _plain(searcher)), strict=True):
                with served_app(app) as url:
                    load(url, queries, 1)  # a new thread's first calls do not count
                    seen = load(url, queries, 1 if quick else 5)
                if seen.failed:
                    raise RuntimeError(f"{name}: {seen.failed:.0f} requests failed")
                rates[name].append(seen.rate)
                p99[name].append(seen.p99)
    for name, values in p99.items():
        say(f"{name}: 99 of 100 answers within {statistics.median(values):.0f} ms", style="dim")
    return [compare("serve", "requests/s", rates, "ours", ["a search for each request"])]
