"""What the server of `forked` imports; and a compiled function, since numba takes a second for the first."""

import numpy as np

import two_tower.cli
import two_tower.embed
import two_tower.report.results
import two_tower.search
import two_tower.train  # noqa: F401
from two_tower.ragged import Ragged

Ragged.from_numpy(np.zeros(1, np.int32), np.arange(2)).select(np.zeros(1, np.int64))
