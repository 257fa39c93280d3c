"""Files that are whole or absent: everything the project writes appears under its name only when finished."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import xxhash

from two_tower.errors import UserError, naming

_HERE, _SWAP = -100, 2  # AT_FDCWD: paths from the working folder; RENAME_EXCHANGE and RENAME_SWAP
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|\?xml|head|body)\b", re.IGNORECASE)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed onto it when the block ends without an exception.

    Readers see the old file or the new one, even if the process dies. The name holds the process id, so two processes
    that write the same file do not mix their bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def exchange(path: Path, other: Path) -> None:
    """Let two files or folders beside each other have each other's names: at once, where the system knows how.

    Elsewhere ``other`` is away for a moment; `settle` puts it back if the process ends then.
    """
    names = os.fsencode(path), os.fsencode(other)
    library: Any = ctypes.CDLL(None) if sys.platform in ("linux", "darwin") else None
    if hasattr(library, "renameat2") and not library.renameat2(_HERE, names[0], _HERE, names[1], _SWAP):
        return
    if hasattr(library, "renamex_np") and not library.renamex_np(*names, _SWAP):
        return
    away = _away(other)
    other.rename(away)
    path.rename(other)
    away.rename(path)


def settle(path: Path) -> None:
    """Undo what is left of an `exchange` that did not end, by which ``path`` would have been replaced."""
    if not path.exists() and _away(path).exists():
        _away(path).rename(path)


def _away(path: Path) -> Path:
    return path.with_name(f".{path.name}.away")


def require_new(path: Path) -> None:
    """Raise a UserError unless ``path`` is an empty folder or does not exist."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already: choose another folder.")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write an indented JSON document atomically."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401
    """A JSON document; None if there is no file, a UserError if it cannot be read as one."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore or delete that file.") from error


def json_line(document: Mapping[str, Any], file: TextIO) -> str:
    """The document on one line, in characters that ``file`` can take."""
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document)
    return line + "\n"


def finite(value: Any) -> Any:  # noqa: ANN401
    """The document with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_hash(path: Path) -> str:
    """XXH3 of a file's bytes, 32 hexadecimal digits: finds damage, at four times the speed of BLAKE2."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def find_again(path: object, near: Path) -> Iterator[str]:
    """Where a file that is gone could be if it moved together with ``near``: below a folder that both are in."""
    parts = Path(path).parts if isinstance(path, str) and os.path.isabs(path) and not os.path.exists(path) else ()
    places = (Path(above, *parts[i:]) for i in range(1, len(parts)) for above in near.absolute().parents)
    return (str(place) for place in places if place.exists())


def refuse_stand_in(path: object, start: bytes) -> None:
    """Raise a UserError where a file's first bytes say that it is something in place of the data."""
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS in place of the file: run  git lfs pull  to fetch it")
    if _WEB_PAGE.match(start):
        raise UserError(f"{path} is a web page (HTML or XML), as servers send with an error: download the file again")
