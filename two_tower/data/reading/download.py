"""Downloads that can be interrupted: continued where they stopped, checked, and whole or absent."""

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

__all__ = ["Download", "download"]

_log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 18
_TIMEOUT = 60.0  # seconds without a byte
# What another attempt may not meet: troubles of the connection, and these HTTP statuses.
_TROUBLES = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_GIB = 1 << 30


@dataclass(frozen=True)
class Download:
    """Where a file comes from.

    Attributes:
        url: its address.
        size: its bytes, as published.
        checksum: ``md5:HEX`` or another algorithm, as published; None where it is not.
        holds: names of the files in it, if it is an archive of several.
    """

    url: str
    size: int | None = None
    checksum: str | None = None
    holds: Sequence[str] = ()

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> Download:
        """One entry of the configuration.

        Raises:
            UserError: an unknown key, or no address.
        """
        for key in entry:
            if key not in cls.__annotations__:
                raise UserError(
                    f"data.downloads has {name}.{key}, which does not exist; {one_of(key, cls.__annotations__)}"
                )
        if not entry.get("url"):
            raise UserError(f"data.downloads has no url for {name}: give its address, or leave {name} out")
        return cls(**entry)

    def provides(self, own_name: str, file: str) -> bool:
        """Whether ``file`` is this download, called ``own_name``, or in it."""
        return own_name in (file, f"{file}.gz", f"{Path(file).stem}.tar.gz") or file in self.holds


def download(
    url: str,
    path: Path,
    size: int | None = None,
    checksum: str | None = None,
    headers: Mapping[str, str] | None = None,
    attempts: int = 5,
    pause: float = 1.0,
) -> Path:
    """Fetch a file, unless it is there.

    While it is fetched it is called ``NAME.part``; interrupted, the next call continues it. Several processes
    may call this together: one fetches, the others wait. A progress bar is shown on a terminal.

    Args:
        url: an http or https address.
        path: where the file shall be.
        size: bytes, as published; only for the progress bar and to see that the disk can hold it.
        checksum: ``md5:HEX`` or another of hashlib's algorithms; None checks nothing.
        headers: more HTTP headers.
        attempts: how often in a row to try without any progress.
        pause: seconds before the second attempt, doubled before each further one.

    Returns:
        ``path``.

    Raises:
        UserError: the address cannot be fetched, or another file came than ``checksum`` says.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url} is no address to download from: it must begin with https:// or http://")
    if checksum is not None and checksum.partition(":")[0] not in hashlib.algorithms_guaranteed:
        raise UserError(f"checksum {checksum} of {url} must be written md5:HEX or sha256:HEX")
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            _check_space(url, path.parent, (size or 0) - _size(part))
            _log.info("Downloading %s to %s.", url, path)
            with _progress(path.name, size) as show:
                _fetch_all(_Request(url, part, dict(headers or {}), show), attempts, pause)
            _check_sum(url, part, checksum)
            part.replace(path)
            _tag(part).unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class _Request:
    """What is fetched; ``show`` takes the bytes there are and those there will be, if known."""

    url: str
    part: Path
    headers: dict[str, str]
    show: Callable[[int, int | None], None]


def _fetch_all(request: _Request, attempts: int, pause: float) -> None:
    failed = 0
    while True:
        before = _size(request.part)
        try:
            _fetch(request)
            return
        except _TROUBLES as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _PASSING:
                raise UserError(
                    f"{request.url} cannot be downloaded: the server says {error.code} {error.reason}"
                ) from error
            failed = 1 if _size(request.part) > before else failed + 1
            if failed >= attempts:
                raise UserError(
                    f"{request.url} cannot be downloaded ({error}): run the same command again to continue, "
                    f"or put the file into {request.part.parent} yourself"
                ) from error
            _log.warning("%s: %s; trying again.", request.url, error)
            time.sleep(pause * 2 ** (failed - 1))


def _fetch(request: _Request) -> None:
    """One attempt, from where the last one stopped if the server can do that and the file is still the same."""
    part, start = request.part, _size(request.part)
    try:
        response = urllib.request.urlopen(_http_request(request, start), timeout=_TIMEOUT)
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
        _tag(part).write_text(_validator(response), encoding="utf-8")
        _copy(response, part, start, request.show)


def _http_request(request: _Request, start: int) -> urllib.request.Request:
    headers = {"User-Agent": "two-tower", **request.headers}
    if start:
        headers["Range"] = f"bytes={start}-"
        tag = _tag(request.part)
        if tag.is_file() and (validator := tag.read_text(encoding="utf-8")):
            headers["If-Range"] = validator  # the whole file comes if it has changed
    return urllib.request.Request(request.url, headers=headers)


def _validator(response: http.client.HTTPResponse) -> str:
    """What identifies this version of the file; a weak tag may not be used with ranges."""
    tag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def _copy(response: http.client.HTTPResponse, part: Path, start: int, show: Callable[[int, int | None], None]) -> None:
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
    return part.with_name(f".{part.name}.tag")


def _check_space(url: str, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{url} needs {needed / _GIB:.1f} GiB in {folder}, which has {free / _GIB:.1f} GiB left: "
            "make room or choose another folder"
        )


def _check_sum(url: str, part: Path, checksum: str | None) -> None:
    if checksum is None:
        return
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
def _progress(name: str, size: int | None) -> Iterator[Callable[[int, int | None], None]]:
    import rich
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = rich.get_console()
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=size)

        def show(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total or size)

        yield show
