"""The folder ``conf``: a subfolder per group, a file per choice."""

from __future__ import annotations

from pathlib import Path

# In a wheel inside the package, in a clone beside it.
CONF = next(filter(Path.is_dir, (folder / "conf" for folder in Path(__file__).parents[1:3])))


def groups() -> frozenset[str]:
    """The names of all groups."""
    return frozenset(path.name for path in CONF.iterdir() if path.is_dir())


def choices(group: str) -> list[str]:
    """The choices of a group; a file whose name begins with ``_`` is a part of others."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))
