"""Downloads that can be interrupted: continued where they stopped, checked, and whole or absent.

(pooch 1.9 was tried instead: it starts anew after every interruption, and these files have up to 8 GB.)
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

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

Show = Callable[[int, int | None], None]  # takes the bytes so far, and those of the whole file if known


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

    Meanwhile it is called ``NAME.part``; the next call continues an interrupted one. Of several processes that call
    this together one fetches, the others wait. ``size`` is for the progress bar, and to see that the disk has room.
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
        with _progress(path.name, size) as show:
            _fetch(url, part, headers or {}, show)
        if checksum is not None:
            _verify(url, part, checksum)
        part.replace(path)
        _tag(part).unlink(missing_ok=True)


def _fetch(url: str, part: Path, headers: Mapping[str, str], show: Show) -> None:
    failed = 0
    while True:
        before = _size(part)
        try:
            return _attempt(url, part, headers, show)
        except _TRANSIENT as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT_STATUSES:
                raise UserError(f"{url} cannot be downloaded: the server says {error.code} {error.reason}") from error
            failed = 1 if _size(part) > before else failed + 1
            if failed >= _ATTEMPTS:
                raise UserError(
                    f"{url} cannot be downloaded ({error}): run the same command again to continue, "
                    f"or put the file into {part.parent} yourself"
                ) from error
            _log.warning("%s: %s; trying again.", url, error)
            time.sleep(_PAUSE * 2 ** (failed - 1))


def _attempt(url: str, part: Path, headers: Mapping[str, str], show: Show) -> None:
    """Continue where the last attempt stopped, if the server can do that and the file is still the same."""
    start = _size(part)
    range_headers = {"Range": f"bytes={start}-"} if start else {}
    if start and _tag(part).is_file() and (tag := _tag(part).read_text(encoding="utf-8")):
        range_headers["If-Range"] = tag  # the whole file comes if it has changed
    request = urllib.request.Request(url, headers={"User-Agent": "two-tower", **headers, **range_headers})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return  # interrupted after the last byte
        part.unlink()
        raise ConnectionError("the file is not what it was, starting anew") from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
            part.unlink(missing_ok=True)  # before its tag changes
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink()
            raise ConnectionError("the server continued at another place, starting anew")
        tag = response.headers.get("ETag", "W/")
        if tag.startswith("W/"):  # weak: it may not be used with ranges
            tag = response.headers.get("Last-Modified", "")
        _tag(part).write_text(tag, encoding="utf-8")
        _copy(response, part, start, show)


def _copy(response: http.client.HTTPResponse, part: Path, start: int, show: Show) -> None:
    length = response.headers.get("Content-Length")
    end = start + int(length) if length and length.isdigit() else None
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        show(start, end)
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            show(file.tell(), end)
        reached = file.tell()
    if end is not None and reached < end:
        raise ConnectionError(f"the connection ended after {reached} of {end} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _tag(part: Path) -> Path:
    """The file that says which version of the file on the server ``part`` is the beginning of."""
    return part.with_name(f".{part.name}.tag")


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


@contextmanager
def _progress(name: str, size: int | None) -> Iterator[Show]:
    import rich
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = rich.get_console()
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=size)
        yield lambda done, total: progress.update(task, completed=done, total=total or size)
