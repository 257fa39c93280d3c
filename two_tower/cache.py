"""Prepared data on disk: made once, found again by what it was made of, whole or absent.

An entry is a folder whose name is a hash of everything that decides its content. So a stale entry cannot be
read: other input has another name. What its maker had to warn of is said again whenever the entry is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock

from two_tower.files import write_json, write_text

__all__ = ["cache_folder", "entry", "file_fingerprint", "key_of", "notice"]

log = logging.getLogger(__name__)

_NOTICES = "notices.json"
_said: set[str] = set()  # in this process
_of_entry: ContextVar[list[str] | None] = ContextVar("_of_entry", default=None)


def cache_folder() -> Path:
    """``$TWO_TOWER_CACHE``, else ``two-tower`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    chosen = os.environ.get("TWO_TOWER_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "two-tower"


def key_of(*parts: object) -> str:
    """A short hash of the parts' texts; equal parts, equal key."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()


def notice(text: str) -> None:
    """Warn of something about the data: once in a process, and again when the entry being made is opened later."""
    collected = _of_entry.get()
    if collected is not None and text not in collected:
        collected.append(text)
    if text not in _said:
        _said.add(text)
        log.warning("%s", text)


def entry(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder of an entry; ``make`` fills it if it does not exist yet.

    Safe for processes that start together: one makes the entry, the others wait for it. A maker that dies
    leaves nothing that anyone would read.

    Args:
        kind: what it is, for a person who looks into the cache: ``corpus``, ``split``, ``tokenizer`` …
        key: see `key_of`.
        make: writes the content into an empty folder that gets its name when it is complete.
    """
    path = cache_folder() / kind / key
    if path.is_dir():
        return _opened(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{key}.lock")):
        if not path.is_dir():
            temporary = path.with_name(f".{key}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)  # of a maker that was killed: the lock is ours
            temporary.mkdir()
            notices: list[str] = []
            collecting = _of_entry.set(notices)
            try:
                make(temporary)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            finally:
                _of_entry.reset(collecting)
            if notices:
                write_json(temporary / _NOTICES, {"notices": notices})
            temporary.rename(path)
    return _opened(path)


def _opened(path: Path) -> Path:
    """The entry's folder, after its notices were said (to the entry being made around it, too)."""
    if (path / _NOTICES).exists():
        for text in json.loads((path / _NOTICES).read_text(encoding="utf-8"))["notices"]:
            notice(text)
    return path


def file_fingerprint(path: Path) -> str:
    """A hash of a file's bytes, 24 hexadecimal digits.

    A large file is not read twice: its hash is remembered under its place, size and times. The time of
    the last change of status is among them, which no program can set back, so a file that was written to
    is always read again.
    """
    status = path.stat()
    place = (path.resolve(), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    memory = cache_folder() / "fingerprint" / key_of(*place)
    try:
        return memory.read_text(encoding="ascii")
    except OSError:
        pass
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
    write_text(memory, found)
    return found
