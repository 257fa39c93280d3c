"""Downloads that can be interrupted: continued where they stopped, checked, and whole or absent.

(pooch 1.9 starts anew after every interruption, and these files have up to 8 GB. ``http_get`` of huggingface_hub 1.33
gives up at once when a server is busy, and where only the check of a whole file was interrupted.)
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from filelock import FileLock

from two_tower.console import counter
from two_tower.errors import UserError, one_of

_log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 18
_TIMEOUT = 60.0  # seconds without a byte
_ATTEMPTS = 5  # in a row that may fail without any progress
_PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
# What may go better in another attempt: connection errors, and these HTTP statuses.
_TRANSIENT = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_GIB = 1 << 30


@dataclass(frozen=True)
class Download:
    """Where a file comes from."""

    url: str
    size: int | None = None  # its bytes, as published
    checksum: str | None = None  # ``md5:HEX`` or another algorithm, as published; None where it is not
    holds: Sequence[str] = ()  # names of the files in it, if it is an archive of several

    @classmethod
    def from_config(cls, name: str, entry: Mapping[str, Any]) -> Download:
        for key in entry:
            if key not in cls.__annotations__:
                valid = one_of(key, cls.__annotations__)
                raise ValueError(f"downloads has {name}.{key}, which does not exist; {valid}")
        if not entry.get("url"):
            raise ValueError(f"downloads has no url for {name}: give its address, or leave {name} out")
        return cls(**entry)

    def provides(self, own_name: str, file: str) -> bool:
        """Whether ``file`` is this download, called ``own_name``, or in it."""
        return own_name in (file, f"{file}.gz", f"{Path(file).stem}.tar.gz") or file in self.holds


def download(
    url: str, path: Path, size: int | None = None, checksum: str | None = None, headers: Mapping[str, str] | None = None
) -> None:
    """Fetch a file, unless it is there.

    Meanwhile it is called ``NAME.part``; if a ``checksum`` tells that the pieces fit together, an interrupted one is
    continued, also by the next call. Of several processes that call this together one fetches, the others wait.
    ``size`` is to see that the disk has room.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url} is no address to download from: it must begin with https:// or http://")
    if checksum is not None and checksum.partition(":")[0] not in hashlib.algorithms_guaranteed:
        raise UserError(f"checksum {checksum} of {url} must be written md5:HEX or sha256:HEX")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.is_file():
            return
        needed, free = (size or 0) - _size(part), shutil.disk_usage(path.parent).free
        if needed > free:
            raise UserError(
                f"{url} needs {needed / _GIB:.1f} GiB in {path.parent}, which has {free / _GIB:.1f} GiB left: "
                "make room or choose another folder"
            )
        _log.info("Downloading %s to %s.", url, path)
        _fetch(url, part, headers or {}, continuing=checksum is not None)
        if checksum is not None:
            _verify(url, part, checksum)
        part.replace(path)


def _fetch(url: str, part: Path, headers: Mapping[str, str], continuing: bool) -> None:
    failed = 0
    while True:
        before = _size(part)
        try:
            return _attempt(url, part, headers, before if continuing else 0)
        except _TRANSIENT as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT_STATUSES:
                raise UserError(f"{url} cannot be downloaded: the server says {error.code} {error.reason}") from error
            failed = 1 if _size(part) > before else failed + 1
            if failed >= _ATTEMPTS:
                again = "run the same command again" + (" to continue" if continuing else "")
                raise UserError(
                    f"{url} cannot be downloaded ({error}): {again}, or put the file into {part.parent} yourself"
                ) from error
            _log.warning("%s: %s; trying again.", url, error)
            time.sleep(_PAUSE * 2 ** (failed - 1))


def _attempt(url: str, part: Path, headers: Mapping[str, str], start: int) -> None:
    """Fetch the file from byte ``start`` on, if the server can do that, else all of it."""
    wanted = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers={"User-Agent": "two-tower", **headers, **wanted})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        response = error
    with response:
        place = response.headers.get("Content-Range", "")
        if place == f"bytes */{start}":
            return  # interrupted after the last byte
        whole = response.status not in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        if not whole and not place.startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError("the server cannot continue at that place, starting anew")
        _copy(response, part, 0 if whole else start)


def _copy(response: http.client.HTTPResponse, part: Path, start: int) -> None:
    end = None if response.length is None else start + response.length
    with part.open("ab" if start else "wb") as file, counter(part.stem, "bytes", end) as progress:
        progress(start)
        while block := response.read(_BLOCK_BYTES):
            progress(file.write(block))
        reached = file.tell()
    if response.length:  # what is missing
        raise ConnectionError(f"the connection ended after {reached} of {end} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _verify(url: str, part: Path, checksum: str) -> None:
    algorithm, _, expected = checksum.partition(":")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected.lower():
        part.unlink()
        raise UserError(
            f"{url} sent another file than expected ({algorithm} {found} instead of {expected}); it was deleted: "
            "try again, or correct the checksum if the file was replaced on purpose"
        )
