"""Files that are whole or absent: everything the project writes appears under its name only when finished."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from two_tower.errors import UserError

__all__ = ["atomic_path", "finite", "require_new", "write_json", "write_text"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; renamed onto it when the block ends without an exception.

    Readers see the old file or the new one, never a part, whenever the process dies. The temporary name
    holds the process id, so two processes that write the same file do not mix their bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_new(path: Path) -> None:
    """Check that a folder can be made, or is empty.

    Raises:
        UserError: something is there.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already: choose another folder.")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document atomically, readable for people too."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:  # noqa: ANN401
    """A document as JSON takes it, which knows no NaN: a number that does not exist is None."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
