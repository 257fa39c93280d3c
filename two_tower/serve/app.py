"""The service as an ASGI application, with limits on every request, headers on every answer, and metrics."""

# No postponed annotations: FastAPI needs the values of those below, which depend on the limits.

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi import Query as From
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from two_tower.errors import UserError
from two_tower.filters import FilterError
from two_tower.search import Answer, Hit, Mode
from two_tower.serve import Limits, Runs, SearchParams
from two_tower.serve.batcher import Batcher, QueueFull
from two_tower.serve.files import Files
from two_tower.serve.renewal import renewed

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {"/": "index.html"} | {f"/{file.name}": file.name for file in PAGE.iterdir() if file.suffix != ".html"}
# Counted by name in the metrics; all other paths are counted together.
PATHS = frozenset({*PAGE_FILES, "/search", "/health", "/runs", "/metrics", "/openapi.json"})
_HEADERS = {
    # Passages and queries come from outside: nothing in them may run or load anything.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)

_Batcher = Batcher[SearchParams, str, Answer]
Search = Callable[[str, int, str, str | None, list[str]], Awaitable[Response]]


class Reply(BaseModel):
    """An answer."""

    query: str
    hits: list[Hit] = Field(
        description="best first; marks are start and end of each word of the query, in code points; "
        "fields are what else a passage's row holds"
    )
    notes: list[str] = Field(description="what of the query could not be used")
    run: str
    mode: Mode


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one sentence")


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "The query, k, run, mode or filter is not valid."},
    503: {"model": Problem, "description": "Too many requests wait, or the index does not answer."},
    504: {"model": Problem, "description": "The search took too long."},
}


def create_app(runs: Runs, limits: Limits | None = None, watch: bool = False, files: Path | None = None) -> FastAPI:
    """The application that searches with warm runs.

    See `two_tower.serve.renewal.renewed` for ``watch``, `two_tower.serve.files.Files` for ``files``.
    """
    limits = limits or Limits()
    metrics = Metrics()
    metrics.count(runs)
    batcher: _Batcher = Batcher(runs.search, limits.queue, limits.batch, metrics.batch.observe)
    metrics.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        async with renewed(runs, watch, lambda: metrics.count(runs)):
            yield
        await batcher.stop()

    # No viewer at /docs: FastAPI's own loads its scripts from another site.
    app = FastAPI(title="Two-tower search", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, limits=limits, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    _add_search(app, _search(runs, batcher, limits), limits)
    documents = None if files is None else Files(files)
    _add_facts(app, runs, metrics, limits, documents)
    for path, file in PAGE_FILES.items():
        app.add_route(path, _route(file))
    if documents is not None:
        app.add_route("/files/{path:path}", documents.answer)
    return app


class Metrics:
    """Counts and times of one service, for Prometheus."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        help_text = "Requests answered, by path and HTTP status."
        self.requests = Counter("two_tower_requests", help_text, ["path", "status"], registry=own)
        help_text = "From a search's arrival to its answer."
        self.seconds = Histogram("two_tower_search_seconds", help_text, registry=own, buckets=_SECONDS)
        help_text = "Queries searched for together."
        self.batch = Histogram("two_tower_batch_queries", help_text, registry=own, buckets=_SIZES)
        self.waiting = Gauge("two_tower_waiting_requests", "Requests that wait to be searched for.", registry=own)
        self.passages = Gauge("two_tower_passages", "Passages that a run searches.", ["run"], registry=own)

    def count(self, runs: Runs) -> None:
        """Note how many passages there are now."""
        self.passages.clear()
        for name, searcher in runs:
            self.passages.labels(name).set(searcher.passages)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self.app, self._limits, self._metrics = app, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # nginx's status if the client goes away

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)  # a document has a policy of its own
            await send(message)

        try:
            await self.app(scope, self._limited(receive), send_with_headers)
        except Exception:
            status = 500
            raise
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            if path == "/search":
                self._metrics.seconds.observe(time.perf_counter() - start)

    def _limited(self, receive: Receive) -> Receive:
        """The body's parts, up to its limits of size and time. FastAPI answers with the HTTPException."""
        size, arriving, deadline = 0, True, asyncio.get_running_loop().time() + self._limits.seconds
        close = {"connection": "close"}  # the rest of the body is not read

        async def limited() -> Message:
            nonlocal size, arriving
            if not arriving:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"The request's body did not arrive within {self._limits.seconds:g} seconds."
                raise HTTPException(408, detail, close) from None
            size += len(message.get("body", b""))
            if size > self._limits.body:
                raise HTTPException(413, f"The request's body is larger than {self._limits.body:,} bytes.", close)
            arriving = message.get("more_body", False)
            return message

        return limited


def _search(runs: Runs, batcher: _Batcher, limits: Limits) -> Search:
    async def search(query: str, k: int, mode: str, run: str | None, where: list[str]) -> Response:
        try:
            params = runs.params(run, mode, k, where)
        except UserError as error:
            raise HTTPException(422, str(error)) from error
        try:
            answer = await asyncio.wait_for(batcher(params, query), limits.seconds)
        except QueueFull:
            raise HTTPException(503, "Too many requests wait; try again in a second.", {"retry-after": "1"}) from None
        except TimeoutError:
            raise HTTPException(504, f"The search took longer than {limits.seconds:g} seconds.") from None
        except FilterError as error:
            raise HTTPException(422, str(error)) from error
        except UserError as error:  # a database that no longer answers, an index that was taken away
            raise HTTPException(503, str(error)) from error
        return JSONResponse({**answer.to_dict(), "run": params.run, "mode": params.mode})

    return search


def _add_search(app: FastAPI, search: Search, limits: Limits) -> None:
    Query = Annotated[str, Field(max_length=limits.characters, description="the question")]
    K = Annotated[int, Field(ge=1, le=limits.k, description="how many passages")]
    How = Annotated[str, Field(description="dense: by vectors; bm25: by words; hybrid: both")]
    Run = Annotated[str | None, Field(description="a run's name, see /runs; the first by default")]
    Where = Annotated[list[str], Field(max_length=16, description="conditions on fields: lang=de, year>=2020")]

    class Question(BaseModel):
        """A question."""

        model_config = ConfigDict(extra="forbid")
        query: Query
        k: K = 10
        mode: How = "dense"
        run: Run = None
        filter: Where = []

    @app.get("/search", response_model=Reply, responses=_PROBLEMS, summary="Find the passages nearest to a query")
    async def get_search(
        q: Query, k: K = 10, mode: How = "dense", run: Run = None,
        where: Annotated[Where, From(alias="filter")] = [],  # noqa: B006 (FastAPI copies it)
    ) -> Response:  # fmt: skip
        return await search(q, k, mode, run, where)

    @app.post("/search", response_model=Reply, responses=_PROBLEMS, summary="The same, from a JSON document")
    async def post_search(question: Question) -> Response:
        return await search(question.query, question.k, question.mode, question.run, question.filter)


def _add_facts(app: FastAPI, runs: Runs, metrics: Metrics, limits: Limits, documents: Files | None) -> None:
    of_service = {"max_k": limits.k, "files": [] if documents is None else documents.addresses}

    @app.get("/health", summary="Whether the service answers")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "runs": [name for name, _ in runs], "indexes": runs.indexes(), "since": runs.since}

    @app.get("/runs", summary="What can be searched, and how")
    async def describe() -> list[dict[str, Any]]:
        return [{**run, **of_service} for run in runs.describe()]

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


def _route(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def file(_: Request) -> Response:
        return FileResponse(PAGE / name, headers={"cache-control": "no-cache"})

    return file


async def _invalid(_: Request, error: Exception) -> Response:
    """One sentence. FastAPI's own answer repeats the input, which JSON may not be able to hold."""
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": "; ".join(_sentence(e) for e in error.errors()) + "."}, 422)


def _sentence(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"][1:]) or "body"
    if error["type"] == "json_invalid":
        return f"The body is not JSON: {error['ctx']['error']} at character {where}"
    if error["loc"] == ("body",) and error["type"] != "missing":
        return 'The body must be a JSON object such as {"query": "a question", "k": 10}, sent as application/json'
    name = where.encode("utf-8", "replace").decode()[:100]
    return f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}"


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "The service failed; its log says how."}, 500)
