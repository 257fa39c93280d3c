"""Lightning is imported in two thirds of the time after this: processes of the tests start with it.

It imports torchmetrics, which imports transformers and SciPy's signals, where they are installed, for its own metrics.
"""

from importlib.metadata import PackageNotFoundError

from lightning_utilities.core import imports

_version, _is_there = imports._version, imports.package_available
UNUSED = ("transformers", "scipy")


def _version_if_used(package: str) -> str:
    if package in UNUSED:
        raise PackageNotFoundError(package)
    return _version(package)


imports._version = _version_if_used
imports.package_available = lambda package: package not in UNUSED and _is_there(package)
