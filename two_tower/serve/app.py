"""The service as an ASGI application."""

# No postponed annotations: FastAPI needs the values of those below, which depend on the limits.

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from two_tower.errors import UserError
from two_tower.search import Answer, Hit, Mode
from two_tower.serve import Limits
from two_tower.serve.batcher import Batcher, QueueFull
from two_tower.serve.guard import Guard, Metrics
from two_tower.serve.runs import Runs, SearchParams

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css", "/icon.svg": "icon.svg"}
# Counted by name in the metrics; all other paths are counted together.
PATHS = frozenset({*FILES, "/search", "/health", "/runs", "/metrics", "/openapi.json"})

SearchBatcher = Batcher[SearchParams, str, Answer]
Search = Callable[[str, int, str, str | None], Awaitable[Response]]


class Reply(BaseModel):
    """An answer."""

    query: str
    hits: list[Hit] = Field(description="best first; marks are start and end of each word of the query, in code points")
    notes: list[str] = Field(description="what of the query could not be used")
    run: str
    mode: Mode


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one sentence")


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "The query, k, run or mode is not valid."},
    503: {"model": Problem, "description": "Too many requests wait; try again in a second."},
    504: {"model": Problem, "description": "The search took too long."},
}


def create_app(runs: Runs, limits: Limits | None = None) -> FastAPI:
    """The application that searches with warm runs."""
    limits = limits or Limits()
    metrics = Metrics({name: searcher.passages for name, searcher in runs})
    batcher: SearchBatcher = Batcher(runs.search, limits.queue, limits.batch, metrics.batch.observe)
    metrics.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    # No viewer at /docs: FastAPI's own loads its scripts from another site.
    app = FastAPI(title="Two-tower search", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, limits=limits, metrics=metrics, paths=PATHS)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    _add_search(app, _search(runs, batcher, limits), limits)
    _add_facts(app, runs, metrics)
    for path, file in FILES.items():
        app.add_route(path, _route(file))
    return app


def _search(runs: Runs, batcher: SearchBatcher, limits: Limits) -> Search:
    async def search(query: str, k: int, mode: str, run: str | None) -> Response:
        try:
            params = runs.params(run, mode, k)
        except UserError as error:
            raise HTTPException(422, str(error)) from error
        try:
            answer = await asyncio.wait_for(batcher(params, query), limits.seconds)
        except QueueFull:
            detail = "Too many requests wait; try again in a second."
            raise HTTPException(503, detail, {"retry-after": "1"}) from None
        except TimeoutError:
            raise HTTPException(504, f"The search took longer than {limits.seconds:g} seconds.") from None
        return JSONResponse({**answer.to_dict(), "run": params.run, "mode": params.mode})

    return search


def _add_search(app: FastAPI, search: Search, limits: Limits) -> None:
    Query = Annotated[str, Field(max_length=limits.characters, description="the question")]
    K = Annotated[int, Field(ge=1, le=limits.k, description="how many passages")]
    How = Annotated[str, Field(description="dense: by vectors; bm25: by words; hybrid: both")]
    Run = Annotated[str | None, Field(description="a run's name, see /runs; the first by default")]

    class Question(BaseModel):
        """A question."""

        model_config = ConfigDict(extra="forbid")
        query: Query
        k: K = 10
        mode: How = "dense"
        run: Run = None

    @app.get("/search", response_model=Reply, responses=_PROBLEMS, summary="Find the passages nearest to a query")
    async def get_search(q: Query, k: K = 10, mode: How = "dense", run: Run = None) -> Response:
        return await search(q, k, mode, run)

    @app.post("/search", response_model=Reply, responses=_PROBLEMS, summary="The same, from a JSON document")
    async def post_search(question: Question) -> Response:
        return await search(question.query, question.k, question.mode, question.run)


def _add_facts(app: FastAPI, runs: Runs, metrics: Metrics) -> None:
    @app.get("/health", summary="Whether the service answers")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "runs": [name for name, _ in runs]}

    @app.get("/runs", summary="What can be searched, and how")
    async def describe() -> list[dict[str, Any]]:
        return runs.describe()

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


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
