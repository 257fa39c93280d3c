"""Where libraries may keep what they make: below the home folder, or where there is none, below a temporary one.

Containers and batch jobs run without a home, as a user without a name, or from a read-only checkout. Compiled
kernels, caches and settings then go to a folder that can be written, and none is ever called ``~``.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def use_writable_places() -> None:
    """Point ``HOME`` and the XDG variables of this process to folders that can be written, where they do not.

    Must be called before a library is imported that reads them (numba, Hugging Face's, W&B). What can be written stays
    as it is, and so does a home that can only be read: it may hold credentials.
    """
    home = os.path.expanduser("~")  # Path.home raises where there is none
    if not Path(home).is_absolute() or not Path(home).is_dir():
        home = os.environ["HOME"] = str(temporary_folder())
    places = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config", "XDG_DATA_HOME": ".local/share"}
    for variable, below in places.items():
        if not can_write(Path(os.environ.get(variable) or Path(home, below))):
            os.environ[variable] = str(temporary_folder() / below)
    if not can_write(Path(__file__).parent):  # numba's first choice is beside the code
        cache = os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache")
        os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(cache, "numba")))


def can_write(path: Path) -> bool:
    """Whether files can be made in a folder, which need not exist yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def temporary_folder() -> Path:
    """A folder of this user alone: what lies there is executed."""
    user = os.getuid() if hasattr(os, "getuid") else 0  # on Windows all files are of user 0
    path = Path(tempfile.gettempdir(), f"two-tower-{user}")
    with suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid == user and not path.is_symlink():
            return path
    return Path(tempfile.mkdtemp(prefix="two-tower-"))
