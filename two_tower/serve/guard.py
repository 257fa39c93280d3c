"""What every request passes: its body is limited in size and time, its answer gets headers and is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from two_tower.serve.limits import Limits

__all__ = ["Guard"]

_HEADERS = {
    # Passages and queries come from outside: nothing of them may run or load anything.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class _Refused(Exception):
    """A body that is too large or too slow."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """ASGI middleware.

    Args:
        app: what answers.
        limits: of the body.
        paths: those that are counted by name; all others are counted together.
        answered: called with path, status and seconds of each request.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, paths: frozenset[str], answered: Callable[[str, int, float], None]
    ) -> None:
        self.app, self._limits, self._paths, self._answered = app, limits, paths, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # as nginx has it: the client went away

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            body = await asyncio.wait_for(self._body(receive), self._limits.seconds)
            await self.app(scope, _replay(body, receive), note)
        except TimeoutError:
            seconds = self._limits.seconds
            await _refuse(408, f"The request's body did not arrive within {seconds:g} seconds.", scope, receive, note)
        except _Refused as refused:
            await _refuse(refused.status, refused.detail, scope, receive, note)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._answered(path, status, time.perf_counter() - start)

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":  # the client went away; what answers will see it
                return b"".join(parts)
            part = message.get("body", b"")
            size += len(part)
            if size > self._limits.body:
                raise _Refused(413, f"The request's body is larger than {self._limits.body:,} bytes.")
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


async def _refuse(status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of the body is not read, so this connection cannot be used again.
    await JSONResponse({"detail": detail}, status, {"connection": "close"})(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
