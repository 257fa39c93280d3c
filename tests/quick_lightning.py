"""Lightning is imported in two thirds of the time after this, and trains at once: the processes of tests start with it.

It imports torchmetrics, which imports transformers and SciPy's signals, where they are installed, for metrics of its
own. And each trainer looks for callbacks in all installed packages.
"""

import functools
from importlib import metadata

from lightning_utilities.core import imports

UNUSED = ("transformers", "scipy")
_version, _is_there = imports._version, imports.package_available


def _version_if_used(package: str) -> str:
    if package in UNUSED:
        raise metadata.PackageNotFoundError(package)
    return _version(package)


imports._version = _version_if_used
imports.package_available = lambda package: package not in UNUSED and _is_there(package)
metadata.entry_points = functools.cache(metadata.entry_points)
