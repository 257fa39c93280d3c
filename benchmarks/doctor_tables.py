"""The tables of docs/doctor.md: what the doctor says of each injected failure, and of whole runs that are healthy.

python benchmarks/doctor_tables.py [MSMARCO_FOLDER]     ten minutes on two cores; without the folder only the failures
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from doctor.cases import FAILURES, doctor_of, make_data

# Fixed before any of them was run. Without triplet + random on pydocs: its negatives really are easy.
PYDOCS, MSMARCO = ["data=pydocs"], ["data=beir", "data.path={msmarco}"]
RECURRENT = ["tower.dim=64", "data.batch_size=256", "trainer.max_epochs=3"]
BEST = ["experiment=best_average", *MSMARCO]
HEALTHY = {
    "average, in-batch, pydocs, seed 0": [*PYDOCS, "seed=0"],
    "average, in-batch, pydocs, seed 1": [*PYDOCS, "seed=1"],
    "average, in-batch, pydocs, seed 2": [*PYDOCS, "seed=2"],
    "average, in-batch + BM25 negatives, pydocs": [*PYDOCS, "negatives=bm25"],
    "average, in-batch + random negatives, pydocs": [*PYDOCS, "negatives=random"],
    "average, triplet in batch, pydocs, seed 0": [*PYDOCS, "loss=triplet", "seed=0"],
    "average, triplet in batch, pydocs, seed 1": [*PYDOCS, "loss=triplet", "seed=1"],
    "average, in-batch, GloVe, pydocs": [*PYDOCS, "embedding=glove"],
    "average, in-batch, separate towers, pydocs": [*PYDOCS, "shared_towers=false"],
    "average, in-batch, dot product, pydocs": [*PYDOCS, "similarity=dot"],
    "best_average, MS MARCO sample, seed 0": [*BEST, "seed=0"],
    "best_average, MS MARCO sample, seed 1": [*BEST, "seed=1"],
    "best_average, triplet + BM25 negatives, MS MARCO sample": [*BEST, "loss=triplet", "negatives=bm25"],
    "GRU, in-batch, pydocs, seed 0": [*PYDOCS, "tower=gru", *RECURRENT, "seed=0"],
    "GRU, in-batch, pydocs, seed 1": [*PYDOCS, "tower=gru", *RECURRENT, "seed=1"],
    "GRU, triplet in batch, pydocs": [*PYDOCS, "tower=gru", *RECURRENT, "loss=triplet"],
    "GRU, in-batch, GloVe, MS MARCO sample": [*MSMARCO, "tower=gru", *RECURRENT, "embedding=glove"],
    "LSTM, in-batch, pydocs": [*PYDOCS, "tower=lstm", *RECURRENT],
    "LSTM, in-batch, GloVe, MS MARCO sample": [*MSMARCO, "tower=lstm", *RECURRENT, "embedding=glove"],
    "RNN, in-batch, pydocs": [*PYDOCS, "tower=rnn", *RECURRENT],
}


def findings(overrides: list[str], paths: dict[str, str]) -> list[dict[str, Any]]:
    """The findings of a training."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        return doctor_of(overrides, paths, Path(folder) / "run")["findings"]


def main(msmarco: str = "") -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        paths = make_data(Path(folder) / "data") | {"msmarco": msmarco}
        print("| injected | tower | first finding | at step | others |\n| --- | --- | --- | ---: | --- |")
        for name, case in FAILURES.items():
            for tower in case.towers:
                found = findings(case.all_overrides(tower), paths) or [{"id": "none", "step": 0}]
                mark = "" if found[0]["id"] == case.id else f" (expected `{case.id}`)"
                others = [f"`{f['id']}`{' (passed)' if f['severity'] == 'info' else ''}" for f in found[1:]]
                first = f"`{found[0]['id']}`{mark} | {found[0]['step']}"
                print(f"| {name} | {tower} | {first} | {', '.join(others)} |", flush=True)
        if not msmarco:
            return
        print("\n| healthy run | warnings and errors | information |\n| --- | --- | --- |")
        for name, overrides in HEALTHY.items():
            found = findings([*overrides, "callbacks.samples.console=never"], paths)
            info = [f"`{f['id']}`" for f in found if f["severity"] == "info"]
            worse = [f"`{f['id']}`" for f in found if f["severity"] != "info"]
            print(f"| {name} | {', '.join(worse) or 'none'} | {', '.join(info)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
