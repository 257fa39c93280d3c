"""What the server of `forked` imports, also at first use: pyarrow looks for pandas, numba reads a compiled function."""

import gc
import importlib
import pkgutil
from contextlib import suppress
from importlib import metadata

import numpy as np
import pyarrow
import quick_hydra  # noqa: F401
import quick_lightning  # noqa: F401
import rich._emoji_codes  # noqa: F401
import torch.profiler  # noqa: F401
import typer._adapters  # noqa: F401

import two_tower
from two_tower.config.compose import compose_raw
from two_tower.ragged import Ragged
from two_tower.tokenizer._languages import _identify

for module in pkgutil.walk_packages(two_tower.__path__, "two_tower."):
    with suppress(ImportError):  # needs an extra
        importlib.import_module(module.name)
with suppress(ImportError):
    importlib.import_module("optuna.importance")
compose_raw("train", [])
_identify()  # reads its model
metadata.entry_points(group="lightning.pytorch.callbacks_factory")

Ragged.from_numpy(np.zeros(1, np.int32), np.arange(2)).select(np.zeros(1, np.int64))
pyarrow.array(np.zeros(1))
gc.freeze()  # of what was imported nothing is garbage
