"""What every request passes: limits on its body, headers on its answer, and the metrics."""

from __future__ import annotations

import asyncio
import time

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from two_tower.serve import Limits

_HEADERS = {
    # Passages and queries come from outside: nothing in them may run or load anything.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts and times of one service, for Prometheus."""

    def __init__(self, passages: dict[str, int]) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter(
            "two_tower_requests", "Requests answered, by path and HTTP status.", ["path", "status"], registry=own
        )
        self.seconds = Histogram(
            "two_tower_search_seconds", "From a search's arrival to its answer.", registry=own, buckets=_SECONDS
        )
        self.batch = Histogram(
            "two_tower_batch_queries", "Queries searched for together.", registry=own, buckets=_SIZES
        )
        self.waiting = Gauge("two_tower_waiting_requests", "Requests that wait to be searched for.", registry=own)
        size = Gauge("two_tower_passages", "Passages that a run searches.", ["run"], registry=own)
        for run, number in passages.items():
            size.labels(run).set(number)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)


class Guard:
    """ASGI middleware. Requests to ``paths`` are counted by name, all others together."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self._limits, self._metrics, self._paths = app, limits, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # nginx's status if the client goes away

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            await self.app(scope, self._limited(receive), send_with_headers)
        except Exception:
            status = 500
            raise
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
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
