"""The search service: JSON over HTTP, and a page to search with."""

from __future__ import annotations

import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from two_tower.console import counter, say
from two_tower.errors import UserError, one_of
from two_tower.search import MODES, Answer, Mode, Searcher, by_name, load_searchers
from two_tower.serve.opening import best_mode, examples
from two_tower.tokenizer.base import Rule

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


class SearchParams(NamedTuple):
    """What queries that are searched for together have in common."""

    run: str
    mode: Mode
    k: int
    where: tuple[str, ...] = ()  # conditions on the passages' fields


class Runs:
    """One or more searchers by name, the first by default; those with equal names get a number.

    ``load`` gives them as they are on disk now.
    """

    def __init__(
        self, searchers: Iterable[Searcher], bm25: bool = True, load: Callable[[], Iterable[Searcher]] | None = None
    ) -> None:
        self._by_name, self._load = by_name(searchers), load
        self.since = _now()
        if not self._by_name:
            raise UserError("There is no run to serve.")
        self.default = next(iter(self._by_name))
        self.modes: tuple[Mode, ...] = MODES if bm25 else ("dense",)
        self._openings = {name: (best_mode(each, self.modes), examples(each)) for name, each in self}

    def __iter__(self) -> Iterator[tuple[str, Searcher]]:
        return iter(self._by_name.items())

    def warm(self) -> None:
        """Do now what the first search would wait for: compiling, reading, indexing for BM25."""
        by_corpus: dict[tuple[str, Rule | None], Searcher] = {}
        for name, searcher in self:
            if "bm25" in self.modes:  # runs over one corpus share one index
                corpus = (searcher.store.manifest.corpus, searcher.encoder.tokenizer.rule)
                searcher.bm25 = by_corpus.setdefault(corpus, searcher).bm25
            for mode in self.modes:
                for queries in (["warm up"], ["warm", "up"]):  # one and several are searched in different ways
                    self.search(SearchParams(name, mode, 1), queries)

    def renew(self) -> None:
        """Search the indexes as they are on disk once they are warm; a UserError says why they cannot be loaded."""
        assert self._load is not None
        fresh = Runs(self._load(), "bm25" in self.modes)
        fresh.warm()
        self._by_name, self.default, self.since = fresh._by_name, fresh.default, fresh.since
        self._openings = fresh._openings

    def indexes(self) -> dict[str, dict[str, Any]]:
        """Which state of its collection each index is of."""
        return {
            name: {"passages": searcher.passages, "corpus": searcher.store.manifest.corpus} for name, searcher in self
        }

    def states(self) -> dict[str, tuple[int, int] | None]:
        """For each index what changes with it."""
        return {name: _state(searcher.store.path / "index.yaml") for name, searcher in self}

    def params(self, run: str | None, mode: str, k: int, where: Sequence[str] = ()) -> SearchParams:
        """How to search; a UserError if there is no such run or mode here."""
        name = self.default if run is None else run
        if name not in self._by_name:
            raise UserError(f"run={name} is not served here; {one_of(name, self._by_name)}")
        for known in self.modes:
            if mode == known:
                return SearchParams(name, known, k, tuple(where))
        raise UserError(f"mode={mode} does not exist here; {one_of(mode, self.modes)}")

    def search(self, params: SearchParams, queries: Sequence[str]) -> list[Answer]:
        searcher = self._by_name.get(params.run)
        if searcher is None:  # it went while the query waited
            raise UserError(f"run={params.run} is not served here any more.")
        return searcher.search(queries, params.k, params.mode, params.where)

    def describe(self) -> list[dict[str, Any]]:
        """What a client needs to choose between them."""
        return [
            {
                "name": name,
                "passages": searcher.passages,
                "corpus": searcher.store.manifest.corpus,
                "dimensions": searcher.store.manifest.dim,
                "similarity": searcher.store.manifest.similarity,
                "index": type(searcher.index).__name__.removesuffix("Index").lower(),
                "modes": list(self.modes),
                "best": self._openings[name][0],
                "examples": self._openings[name][1],
            }
            for name, searcher in self
        ]


def serve(
    paths: Sequence[Path],
    host: str,
    port: int,
    limits: Limits,
    bm25: bool = True,
    indexes: Sequence[Path] = (),
    watch: bool = False,
    files: Path | None = None,
    browser: bool = False,
) -> None:
    """Serve embedded runs over HTTP until SIGINT or SIGTERM; current requests are answered first.

    ``indexes`` are folders that embed.py wrote, see `two_tower.search.load_searchers`. SIGHUP, or with ``watch`` a
    change of their folders, makes the service take them up anew. ``files`` is the folder of the documents that the
    passages were made of: the page links to them. With ``browser`` the page is opened in one.
    """
    if files is not None and not files.is_dir():
        raise UserError(f"--files {files} is no folder: name the one that the documents are in.")
    try:
        import uvicorn

        from two_tower.serve.app import create_app
    except ModuleNotFoundError as error:
        raise UserError(f'two-tower serve needs {error.name}: pip install -e ".[serve]"') from error
    with _bound(host, port) as listener:  # at once, not after the seconds that loading takes
        load = partial(load_searchers, paths, indexes)
        say("Warming up …", style="dim")
        with counter("Loading and warming up") as pace:
            runs = Runs(load(), bm25, load)
            runs.warm()
        quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
        config = uvicorn.Config(create_app(runs, limits, watch, files), timeout_graceful_shutdown=GRACE, **quiet)
        listener.listen(2048)
        for name, searcher in runs:
            say(f"{name}: {searcher.passages:,} passages")
        say(f"Ready {pace}.", style="dim")
        name, number = listener.getsockname()[:2]
        address = f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
        say(f"Search page: {address}  (API: {address}/openapi.json; stop with Ctrl-C)")
        if browser:
            place = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
            threading.Timer(0.5, webbrowser.open, [place]).start()  # once the server answers
        with _signals_ignored():
            uvicorn.Server(config).run(sockets=[listener])
    say("Stopped.", style="dim")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:  # it is being replaced
        return None
    return found.st_ino, found.st_mtime_ns


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
