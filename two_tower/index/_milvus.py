"""A connection to Milvus: what is lost is tried again, and what goes wrong is one sentence."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

from two_tower.errors import UserError

log = logging.getLogger(__name__)

MAX_PAUSE = 10.0  # seconds
# Else gRPC waits longer and longer between attempts to connect, and shares that among all connections to an address.
CHANNEL = {"grpc.use_local_subchannel_pool": 1, "grpc.max_reconnect_backoff_ms": 1000}
LOST, DENIED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", 2}, {"UNAUTHENTICATED", "PERMISSION_DENIED"}

Answer = TypeVar("Answer")


class Connection:
    """A client that connects when it is first asked, and ends with this object."""

    def __init__(
        self, place: str, uri: str, token: str = "", variable: str = "", database: str = "", timeout: float = 10.0,
        retries: int = 0,
    ) -> None:  # fmt: skip
        self.place, self._uri, self._token, self._variable = place, uri, token, variable
        self._database, self.timeout, self._retries = database, timeout, retries
        self._client: Any = None
        self._lost = False  # then a request is tried once, so that those behind it need not wait for their turn
        self._open = ExitStack()
        self.close = weakref.finalize(self, self._open.close)

    @classmethod
    def embedded(cls, file: Path, shared: bool) -> Connection:
        """To Milvus Lite, in this process; ``shared`` for reading what other processes read, too.

        It locks its files and writes beside them. Those that never change, which hold the vectors, are linked to from a
        folder of this process, the others copied.
        """
        from milvus_lite.server_manager import server_manager_instance

        if shared and not file.is_dir():
            raise UserError(f"{file} is missing or damaged: run embed.py again.")
        with ExitStack() as files:
            own = file.resolve()
            if shared:
                own = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="milvus-"))) / file.name
                shutil.copytree(file.resolve(), own, ignore=shutil.ignore_patterns("LOCK"), copy_function=_view)
            files.callback(server_manager_instance.release_server, str(own))
            connection = cls(f"Milvus Lite in {file}", str(own))
            connection._open.push(files.pop_all())
        return connection

    def ask(self, request: Callable[[Any], Answer]) -> Answer:
        """What ``request`` makes of a pymilvus client; a UserError says what is wrong.

        After a loss of the connection it is called again, so it must not matter whether it was carried out.
        """
        import grpc
        from pymilvus import MilvusException

        attempts = 1 if self._lost else 1 + self._retries
        for attempt in range(attempts):
            try:
                answer = request(self._connected())
            except (MilvusException, grpc.RpcError) as error:
                codes = _codes(error)
                self._lost = bool(codes & LOST) and not codes & DENIED
                if not self._lost or attempt + 1 == attempts:
                    raise self._sentence(error, codes) from error
                pause = min(2**attempt / 2, MAX_PAUSE)
                log.warning("%s does not answer: attempt %d follows in %g s.", self.place, attempt + 2, pause)
                sleep(pause)
            else:
                self._lost = False
                return answer
        raise AssertionError

    def _connected(self) -> Any:  # noqa: ANN401
        if self._client is None:
            from pymilvus import MilvusClient

            for name in ("pymilvus", "milvus_lite"):  # they write tracebacks of what becomes a sentence here
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            self._client = MilvusClient(
                self._uri, token=self._token, db_name=self._database, timeout=self.timeout, grpc_options=CHANNEL
            )
            self._open.callback(self._client.close)
        return self._client

    def _sentence(self, error: Exception, codes: set[Any]) -> UserError:
        text = " ".join(str(getattr(error, "message", None) or getattr(error, "details", str)()).split())[:200]
        if "Open local milvus failed" in text:
            reason = "another process writes it, or it is damaged: then delete it and run embed.py again"
            return UserError(f"{self.place} cannot be opened; {reason}.")
        if codes & DENIED:
            other = "another" if self._token else "a"
            return UserError(f"{self.place} wants {other} token: put it into the variable {self._variable}.")
        if self._lost:
            remedy = "is it there, is index.uri right, and does it speak the version of the installed pymilvus?"
            return UserError(f"{self.place} does not answer ({text}): {remedy}")
        return UserError(f"{self.place} refuses what it is asked: {text.rstrip('.')}.")


def _view(source: str, target: str) -> None:
    (os.symlink if source.endswith((".parquet", ".idx")) else shutil.copy)(source, target)


def _codes(error: BaseException) -> set[Any]:
    """The names of gRPC's statuses and the numbers of Milvus's, of an error and of those that it comes from."""
    return {getattr(code, "name", code) for code in (_code(each) for each in _causes(error, set()))}


def _code(error: BaseException) -> Any:  # noqa: ANN401
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def _causes(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is not None and id(error) not in seen:  # pymilvus raises errors from themselves
        seen.add(id(error))
        yield error
        yield from _causes(error.__cause__, seen)
        yield from _causes(error.__context__, seen)
