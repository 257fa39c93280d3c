"""Prepared data on disk: made once, found again by what it was made of, whole or absent.

An entry is a folder named by a hash of everything that decides its content. So an entry is never stale: other
input has another name. Warnings that came up while it was made are repeated whenever it is opened.
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

from two_tower.errors import UserError, in_a_sentence, naming
from two_tower.files import file_hash, write_json, write_text

log = logging.getLogger(__name__)

_NOTICES = "notices.json"
_said: set[str] = set()  # notices that this process has logged
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
        with FileLock(path.with_name(f".{key}.lock")):
            if not path.is_dir():
                _make(path, make)
    if (path / _NOTICES).exists():
        for text in json.loads((path / _NOTICES).read_text(encoding="utf-8"))["notices"]:
            notice(text)
    return path


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
