"""Prepared data on disk: made once, found again by what it was made of, whole or absent.

An entry is a folder named by a hash of everything that decides its content. So an entry is never stale: other
input has another name. Warnings that came up while it was made are repeated whenever it is opened. All entries
together stay within a limit: those that were used last are kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from two_tower.errors import UserError, in_a_sentence, naming
from two_tower.files import file_hash, write_json, write_text

log = logging.getLogger(__name__)

VARIABLE = "TWO_TOWER_CACHE_LIMIT"
DEFAULT = "20GB"
IN_USE = 600.0  # seconds after its last use during which an entry is not deleted: a process may be reading it
WAITING = 2.0  # seconds before that is said
_UNITS = {"": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
# What costs most to make again, by the byte: deleted last.
_DEAR = ("teacher",)
_NOTICES = "notices.json"
_said: set[str] = set()  # notices that this process has logged
_written = {"bytes": math.inf}  # by this process since it counted all
_of_entry: ContextVar[list[str] | None] = ContextVar("_of_entry", default=None)


def cache_folder() -> Path:
    """``$TWO_TOWER_CACHE``, else ``two-tower`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("TWO_TOWER_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "two-tower"


def key_of(*parts: object) -> str:
    """A name of 24 hexadecimal digits made of the parts' texts (SHA-256): equal parts, equal name."""
    return hashlib.sha256("".join(f"{part}\0" for part in parts).encode()).hexdigest()[:24]


def notice(text: str) -> None:
    """Warn once per process; while an entry is being made, store the warning with it so that later runs repeat it."""
    collected = _of_entry.get()
    if collected is not None and text not in collected:
        collected.append(text)
    if text not in _said:
        _said.add(text)
        log.warning("%s", text)


def entry(kind: str, key: str, make: Callable[[Path], None], root: Path | None = None) -> Path:
    """The folder of an entry; ``make`` fills it if it does not exist yet.

    Of several processes that start together one makes the entry, the others wait for it. One that dies meanwhile leaves
    nothing that anyone would read. The ``kind`` is for people who look in; ``root`` replaces `cache_folder`.
    """
    path = (root or cache_folder()) / kind / key
    if not path.is_dir():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "set TWO_TOWER_CACHE to a folder that can be written"
            raise UserError(f"{in_a_sentence(error)}: prepared data is kept there; {remedy}") from error
        with _alone(FileLock(path.with_name(f".{key}.lock")), path):
            if not path.is_dir():
                _make(path, make)
                keep_limit(path)
    mark_used(path)
    if (path / _NOTICES).exists():
        for text in json.loads((path / _NOTICES).read_text(encoding="utf-8"))["notices"]:
            notice(text)
    return path


@contextmanager
def _alone(lock: FileLock, path: Path) -> Iterator[None]:
    """Hold the lock of an entry; who must wait for another process says so."""
    try:
        lock.acquire(timeout=WAITING)
    except Timeout:
        log.info("Waiting for another process, which prepares the same data (%s).", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(path: Path, make: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed: we hold the lock
    temporary.mkdir()
    notices: list[str] = []
    collecting = _of_entry.set(notices)
    try:
        with naming(path):
            make(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        _of_entry.reset(collecting)
    if notices:
        write_json(temporary / _NOTICES, {"notices": notices})
    temporary.rename(path)


@dataclass(frozen=True)
class Kept:
    """An entry of the cache."""

    path: Path
    kind: str
    bytes: int
    used: float  # seconds since 1970, of the last use


def entries() -> list[Kept]:
    """All entries; a kind of single files is one."""
    found = []
    for kind in sorted(cache_folder().glob("[!.]*/")):
        paths = [*kind.glob("[!.]*")]
        for path in paths if all(path.is_dir() for path in paths) else [kind]:
            # Earlier versions kept a teacher's vectors by collection, which nothing reads any more.
            by_collection = kind.name == "teacher" and not any(path.glob("texts-*"))
            with suppress(FileNotFoundError):  # which another process has just deleted
                kind_name = "earlier-teacher" if by_collection else kind.name
                found.append(Kept(path, kind_name, _size(path), path.stat().st_mtime))
    return found


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def size_of(count: float) -> str:
    """Bytes for people."""
    if count == math.inf:
        return "any size"
    unit = next((unit for unit in reversed(_UNITS) if count >= _UNITS[unit]), "")
    return f"{count / _UNITS[unit]:.3g} {unit or 'bytes'}"


def limit() -> float:
    """The most bytes that the cache may hold, from `VARIABLE`."""
    text = os.environ.get(VARIABLE) or DEFAULT
    if text == "none":
        return math.inf
    if not (read := re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?B)?", text, re.IGNORECASE)):
        raise UserError(f"{VARIABLE}={text} is no size: write it as in 20GB or 500MB, or none for no limit")
    return float(read[1]) * _UNITS[(read[2] or "").upper().removeprefix("B")]


def keep_limit(new: Path) -> None:
    """Delete what was not used for longest, until the rest is within the limit or in use; ``new`` was just written.

    All are counted by the first entry that a process writes, and then whenever it has written a hundredth of the limit.
    """
    _written["bytes"] += _size(new)
    if _written["bytes"] < limit() / 100:
        return
    kept, _written["bytes"] = entries(), 0
    excess, now = sum(each.bytes for each in kept) - limit(), time.time()
    for each in sorted(kept, key=lambda each: (each.kind in _DEAR, each.used)):
        if excess <= 0:
            return
        if now - each.used > IN_USE and _delete(each.path):
            excess -= each.bytes


def clear(kinds: Iterable[str] = ()) -> list[Kept]:
    """Delete the entries of some kinds, or all; returns those that are gone."""
    kept, kinds = entries(), [*kinds]
    known = sorted({each.kind for each in kept})
    for kind in kinds:
        if kind not in known:
            raise UserError(f"The cache holds nothing of the kind {kind}; it has {', '.join(known) or 'nothing'}.")
    return [each for each in kept if (not kinds or each.kind in kinds) and _delete(each.path)]


def _delete(path: Path) -> bool:
    """Whether an entry is gone, that no other process is making or adding to."""
    lock = path / ".lock" if (path / ".lock").exists() else path.with_name(f".{path.name}.lock")
    gone = path.with_name(f".{path.name}.tmp")
    with suppress(Timeout, OSError), FileLock(lock, timeout=0):
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)  # no process finds half of it
        shutil.rmtree(gone, ignore_errors=True)
        return True
    return False


def mark_used(path: Path) -> None:
    """Note that an entry is used now."""
    with suppress(OSError):  # a cache that can only be read
        os.utime(path)


def file_fingerprint(path: Path) -> str:
    """A hash of a file's bytes, 32 hexadecimal digits.

    It is remembered under the file's place, size and times. Among these is the time of the last change of status,
    which no program can set back, so only a file that was written to is read again.
    """
    status = path.stat()
    place = (path.resolve(), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    remembered = cache_folder() / "fingerprint" / key_of(*place)
    try:
        return remembered.read_text(encoding="ascii")
    except OSError:
        fingerprint = file_hash(path)
        write_text(remembered, fingerprint)
        return fingerprint
