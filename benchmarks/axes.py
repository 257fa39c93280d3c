"""How a step of training and encoding grow with words, batch and dimensions: ``python -m benchmarks.axes``.

Average towers on invented texts of MS MARCO's word frequencies (`benchmarks.collection`). Each size is measured in a
process of its own; docs/data/axes.json keeps what it took, docs/scale.md shows it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.collection import ranks
from benchmarks.fill import fill
from benchmarks.growth_page import AXES, AXES_STORED
from benchmarks.measure import watched_memory
from benchmarks.train_average import in_batches, trainable
from two_tower.console import say
from two_tower.files import write_json
from two_tower.ragged import Ragged

BASE = {"words": 30_000, "batch": 1_024, "dim": 256}
WORDS, QUERY_WORDS = 57, 7  # of a passage, of a query
BATCHES, SECONDS, PASSAGES = 4, 5.0, 20_000


def _texts(count: int, length: int, words: int, rng: np.random.Generator) -> Ragged:
    ids = np.minimum(ranks(rng.random(count * length)), words - 1).astype(np.int32)
    return Ragged.from_numpy(ids, np.arange(count + 1, dtype=np.int64) * length)


def measure(words: int, batch: int, dim: int) -> dict[str, float]:
    """Milliseconds of a step, passages a second, gigabytes at most."""
    warnings.filterwarnings("ignore", message=".*self.trainer.*")  # a model that no trainer drives
    rng, n = np.random.default_rng(0), batch * BATCHES
    batches = in_batches(_texts(n, QUERY_WORDS, words, rng), _texts(2 * n, WORDS, words, rng), batch)
    with watched_memory() as seen:
        model = trainable(words, dim)
        optimizer, steps, start = model.configure_optimizers(), 0, 0.0
        while steps < 3 or time.perf_counter() - start < SECONDS:
            start = time.perf_counter() if steps == 2 else start  # the first two compile
            loss = model.training_step(batches[(0, steps % BATCHES)], steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        step = (time.perf_counter() - start) / (steps - 2)
        texts = _texts(PASSAGES, WORDS, words, rng)
        model.encode("documents", texts)
        start = time.perf_counter()
        model.encode("documents", texts)
        encoded = time.perf_counter() - start
    return {"step_ms": 1000 * step, "passages_per_second": PASSAGES / encoded, "gigabytes": max(seen) / 1e9}


def main(*sizes: str) -> None:
    """The command; with sizes, what it does in each process."""
    if sizes:
        print(json.dumps(measure(*map(int, sizes))))
        return
    found: list[Mapping[str, Any]] = []
    for axis, values in AXES.items():
        for value in values:
            chosen = {**BASE, axis: value}
            command = [sys.executable, "-m", "benchmarks.axes", *map(str, chosen.values())]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append({"axis": axis, **chosen, **json.loads(said.splitlines()[-1])})
            say(str(found[-1]))
    write_json(AXES_STORED, found)
    fill()


if __name__ == "__main__":
    main(*sys.argv[1:])
