"""Two-tower (dual-encoder) search: towers, losses, negatives, whole-corpus evaluation, diagnosis, search."""

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

# Threads that wait for work sleep instead of spinning. On a busy or virtual machine spinning made small
# steps up to ten times slower; on a quiet one sleeping costs up to a fifth of an RNN's step, nothing of the
# average's. Your own setting wins. It must be made before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

# Where these are installed, torchmetrics, which Lightning needs, imports them for metrics that are not used here, and
# scikit-learn and pandas with them. That took 4.3 of the 11.9 seconds of CPU time in which a command started.
_NEEDLESS = ("transformers", "scipy")


class _LeanTorchmetrics(importlib.abc.MetaPathFinder):
    """Imports torchmetrics as if these packages were not installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == "torchmetrics" else None
        if spec and spec.loader:
            spec.loader.exec_module = partial(_execute_alone, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def _execute_alone(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    imports: Any = importlib.import_module("lightning_utilities.core.imports")
    requirement, available = imports.RequirementCache, imports.package_available
    met = requirement.__bool__
    requirement.__bool__ = lambda self: not str(self.requirement).startswith(_NEEDLESS) and met(self)
    imports.package_available = lambda package: package not in _NEEDLESS and available(package)
    try:
        execute(module)
    finally:
        requirement.__bool__, imports.package_available = met, available


sys.meta_path.insert(0, _LeanTorchmetrics())
