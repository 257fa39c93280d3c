"""The service as an ASGI application."""

# Annotations are values here, for FastAPI reads those of functions within functions, which depend on the limits.

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from two_tower.errors import UserError
from two_tower.search import Answer, Mode
from two_tower.serve.batcher import Batcher, Full
from two_tower.serve.collection import Runs, Way
from two_tower.serve.gauges import Gauges
from two_tower.serve.guard import Guard
from two_tower.serve.limits import Limits

__all__ = ["create_app"]

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
K = 10
FILES = {
    "/": "index.html",
    "/page.js": "page.js",
    "/page.css": "page.css",
    "/icon.svg": "icon.svg",
    "/docs": "docs.html",
    "/docs.js": "docs.js",
}
# Only of these is known how many there are; others are counted together.
PATHS = frozenset({*FILES, "/search", "/health", "/runs", "/metrics", "/openapi.json"})


class Found(BaseModel):
    """A passage of an answer."""

    rank: int = Field(description="1 is best")
    id: str
    score: float = Field(description="larger is nearer")
    title: str
    text: str
    title_marks: list[tuple[int, int]] = Field(
        description="first character of each word of the query in the title, and the one after its last; in Unicode "
        "code points"
    )
    marks: list[tuple[int, int]] = Field(description="the same in the text")


class Reply(BaseModel):
    """An answer."""

    query: str
    hits: list[Found] = Field(description="best first")
    notes: list[str] = Field(description="what of the query could not be used")
    run: str
    mode: Mode


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one sentence")


class _Sentence(Exception):
    """An answer that is a status and one sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "The query, k, run or mode cannot be."},
    503: {"model": Problem, "description": "Too many requests wait; try again in a second."},
    504: {"model": Problem, "description": "The search took too long."},
}


def create_app(runs: Runs, limits: Limits | None = None) -> FastAPI:
    """The application.

    Args:
        runs: what is searched; warm.
        limits: what is accepted.
    """
    limits = limits or Limits()
    batcher: Batcher[Way, str, Answer] = Batcher(
        runs.search, limits.queue, limits.batch, lambda size: gauges.batch(size)
    )
    gauges = Gauges(lambda: batcher.waiting, {name: searcher.passages for name, searcher in runs})

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    app = FastAPI(title="Two-tower search", version="1", docs_url=None, redoc_url=None, lifespan=life)
    app.add_middleware(Guard, limits=limits, paths=PATHS, answered=gauges.answered)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(_Sentence, _said)
    app.add_exception_handler(Exception, _failed)
    _add_search(app, _Search(runs, batcher, limits), limits)
    _add_facts(app, runs, gauges)
    for path, file in FILES.items():
        app.add_api_route(path, _file(file), include_in_schema=False)
    return app


class _Search:
    """One search, from question to response."""

    def __init__(self, runs: Runs, batcher: Batcher[Way, str, Answer], limits: Limits) -> None:
        self._runs, self._batcher, self._limits = runs, batcher, limits

    async def __call__(self, query: str, k: int, mode: str, run: str | None) -> Response:
        try:
            way = self._runs.way(run, mode, k)
        except UserError as error:
            raise _Sentence(422, str(error)) from error
        try:
            answer = await asyncio.wait_for(self._batcher(way, query), self._limits.seconds)
        except Full:
            raise _Sentence(503, "Too many requests wait; try again in a second.") from None
        except TimeoutError:
            raise _Sentence(504, f"The search took longer than {self._limits.seconds:g} seconds.") from None
        return _json({**answer.to_dict(), "run": way.run, "mode": way.mode})


def _add_search(app: FastAPI, search: _Search, limits: Limits) -> None:
    Text = Annotated[str, Field(max_length=limits.characters, description="the question")]
    Count = Annotated[int, Field(ge=1, le=limits.k, description="how many passages")]
    How = Annotated[str, Field(description="dense: by vectors; bm25: by words; hybrid: both")]
    Which = Annotated[str | None, Field(description="a run's name, see /runs; the first by default")]

    class Question(BaseModel):
        """A question."""

        model_config = ConfigDict(extra="forbid")
        query: Text
        k: Count = K
        mode: How = "dense"
        run: Which = None

    @app.get("/search", response_model=Reply, responses=_PROBLEMS, summary="Find the passages nearest to a query")
    async def get_search(q: Text, k: Count = K, mode: How = "dense", run: Which = None) -> Response:
        return await search(q, k, mode, run)

    @app.post("/search", response_model=Reply, responses=_PROBLEMS, summary="The same, from a JSON document")
    async def post_search(question: Question) -> Response:
        return await search(question.query, question.k, question.mode, question.run)


def _add_facts(app: FastAPI, runs: Runs, gauges: Gauges) -> None:
    @app.get("/health", summary="Whether the service answers")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "runs": [name for name, _ in runs]}

    @app.get("/runs", summary="What can be searched, and how")
    async def describe() -> list[dict[str, Any]]:
        return runs.describe()

    @app.get("/metrics", summary="Counts and times, as Prometheus reads them", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(gauges.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _json(document: Any) -> Response:  # noqa: ANN401
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return Response(content, media_type="application/json")


def _file(name: str) -> Callable[[], Any]:
    async def file() -> FileResponse:
        return FileResponse(PAGE / name, headers={"cache-control": "no-cache"})

    return file


async def _said(_: Request, error: Exception) -> Response:
    assert isinstance(error, _Sentence)
    headers = {"retry-after": "1"} if error.status == 503 else None
    return JSONResponse({"detail": error.detail}, error.status, headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """A sentence; FastAPI's own answer repeats the input, which need not be writable as JSON."""
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
