"""What the server of `forked` imports, also at first use: pyarrow looks for pandas, numba reads a compiled function."""

import gc

import numpy as np
import pyarrow
import yaml

import two_tower.cli
import two_tower.embed
import two_tower.report.results
import two_tower.search
import two_tower.train  # noqa: F401
from two_tower.ragged import Ragged

Ragged.from_numpy(np.zeros(1, np.int32), np.arange(2)).select(np.zeros(1, np.int64))
pyarrow.array(np.zeros(1))
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # as in conftest.py
gc.freeze()  # of what was imported nothing is garbage
