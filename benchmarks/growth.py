"""How cost grows with a collection: ``python -m benchmarks.growth FOLDER PASSAGES…`` measures every step at each size.

Each step is a process of its own, whose seconds, anonymous memory (mapped files do not count, the system can drop
those) and files are written down in docs/data/scale.json, and from there into docs/scale.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.collection import PASSAGES, TRAINING, VALIDATION, write
from benchmarks.fill import fill
from benchmarks.growth_page import STORED, Measured, stored
from benchmarks.measure import anonymous_memory
from benchmarks.tables import ROOT
from two_tower.console import say
from two_tower.files import read_json, write_json

STEPS, FEW_STEPS = 2_000, 200  # of training, at the full size and below: a step costs the same


class Place(NamedTuple):
    """Where a collection and what is made of it lie."""

    folder: Path

    @property
    def data(self) -> list[str]:
        """The collection, as overrides of a configuration."""
        return ["data=msmarco_passage", f"data.path={self.folder / 'data'}"]

    @property
    def passages(self) -> int:
        """How many there are."""
        return int(self.folder.name)

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.folder / "run"


def _config(place: Place, *overrides: str) -> dict[str, Any]:
    from two_tower.config.compose import compose_raw
    from two_tower.train import resolve

    steps = STEPS if place.passages == PASSAGES else FEW_STEPS
    length = [f"trainer.max_steps={steps}", "trainer.max_epochs=-1", "trainer=cpu"]
    return resolve(compose_raw("train", [*place.data, *length, f"run_dir={place.run}", *overrides]))


def prepare(place: Place) -> None:
    """Read the collection, choose the words, number them."""
    from two_tower.assemble import make_data

    make_data(_config(place), place.folder / "tokenizer.json").open()


def train(place: Place) -> dict[str, Any]:
    """Train an average tower for some steps; ranks a sample after each epoch."""
    from two_tower.train import train

    # A sample so small that it does not matter how many epochs the steps are.
    found = train(_config(place, "validation=subset", "validation.sample=1000", "validation.bm25=false"))
    return {"steps_per_second": found["train/triplets_per_second"] / 512}


def _opened(place: Place) -> tuple[Any, Any, Any]:
    from two_tower.data.stream.corpus import Corpus, Split
    from two_tower.encode import Encoder
    from two_tower.loading import own_source
    from two_tower.run import Run

    run = Run(place.run)
    encoder = Encoder.load(run)
    corpus = Corpus.load(own_source(run), encoder.tokenizer)
    return encoder, corpus, Split.load(corpus, "dev", encoder.tokenizer)


def validate(place: Place) -> dict[str, Any]:
    """Rank all passages for all validation queries by the towers."""
    from two_tower.validation._evaluate import rank_split

    encoder, *rest = _opened(place)
    return {"mrr@10": rank_split(encoder.model, *rest).means["mrr@10"]}


def bm25(place: Place) -> dict[str, Any]:
    """Rank all passages for all validation queries by BM25."""
    from two_tower.validation._evaluate import rank_split_by_bm25

    encoder, *rest = _opened(place)
    return {"mrr@10": rank_split_by_bm25(*rest, encoder.tokenizer).means["mrr@10"]}


def _index(place: Place, *overrides: str) -> dict[str, Any]:
    from two_tower.config.compose import compose_raw
    from two_tower.embed import embed, resolve

    folder = embed(resolve(compose_raw("embed", [f"run={place.run}", *overrides])))
    return {key: value for key, value in read_json(folder / "report.json").items() if isinstance(value, int | float)}


STEP: dict[str, Callable[[Place], dict[str, Any] | None]] = {
    "prepare": prepare,
    "train": train,
    "validate": validate,
    "bm25": bm25,
    "embed_float16": lambda place: _index(place, "dtype=float16"),
    "embed_int8": lambda place: _index(place, "dtype=int8", f"output={place.folder / 'int8'}"),
    "ivf": lambda place: _index(place, "index=ivf", "index.dtype=int8", "index.target_recall=0.95", "dtype=float16"),
    "ivf_pq": lambda place: _index(place, "index=ivf_pq", "index.target_recall=0.95", "dtype=float16"),
    "hnsw": lambda place: _index(place, "index=hnsw", "index.target_recall=0.95", "dtype=float16"),
}


def measure(step: str, place: Place) -> Measured:
    """Do a step in a process of its own; a RuntimeError if it fails."""
    before, start, most = _bytes(place.folder), time.perf_counter(), 0
    command = [sys.executable, "-m", "benchmarks.growth", "step", step, str(place.folder)]
    environment = {**os.environ, "TWO_TOWER_CACHE": str(place.folder / "cache"), "PYTHONPATH": str(ROOT)}
    with (place.folder / f"{step}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        while process.poll() is None:
            most = max(most, _anonymous(process.pid))
            time.sleep(0.2)  # more often, it would take a tenth of a core
    seconds, path = time.perf_counter() - start, place.folder / f"{step}.json"
    if process.returncode:
        raise RuntimeError(f"{step} has failed with {process.returncode}: see {place.folder / f'{step}.log'}")
    return Measured(step, place.passages, round(seconds, 2), most, _bytes(place.folder) - before, read_json(path))


def _anonymous(group: int) -> int:
    """Bytes of anonymous memory of all processes of a group."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                total += anonymous_memory(folder.name)
        except (OSError, IndexError, ValueError):  # it has ended
            continue
    return total


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def keep(row: Measured) -> None:
    """Store a result in place of an earlier one."""
    others = [each for each in stored() if (each.step, each.passages) != (row.step, row.passages)]
    rows = sorted([*others, row], key=lambda each: ([*STEP].index(each.step), each.passages))
    write_json(STORED, [each._asdict() for each in rows])


def run(work: Path, sizes: Sequence[int], steps: Sequence[str]) -> None:
    """Measure steps at each size."""
    for passages in sizes:
        place = Place(work / str(passages))
        if not (place.folder / "data" / "qrels.dev.small.tsv").exists():
            write(place.folder / "data", passages, TRAINING * passages // PASSAGES, min(VALIDATION, passages // 10))
        if steps[0] == "prepare":  # from scratch: what is there already would not be measured
            for made in place.folder.iterdir():
                if made.name != "data":
                    shutil.rmtree(made) if made.is_dir() else made.unlink()
        for step in steps:
            row = measure(step, place)
            keep(row)
            shutil.rmtree(place.folder / "int8", ignore_errors=True)  # nothing needs it, and its index is large
            found = ", ".join(f"{key} {value:.4g}" for key, value in row.found.items())
            size = f"{row.memory / 1e9:.2f} GB of memory, {row.disk / 1e9:.2f} GB of files"
            say(f"{step}, {passages:,} passages: {row.seconds:.1f} s, {size}. {found}")


def main(folder: str, *more: str) -> None:
    """The command."""
    if folder == "step":
        name, place = more
        found = STEP[name](Place(Path(place)))
        (Path(place) / f"{name}.json").write_text(json.dumps(found or {}), encoding="utf-8")
        return
    sizes = [int(each.replace("_", "")) for each in more if each[0].isdigit()]
    run(Path(folder).resolve(), sizes, [each for each in more if each in STEP] or [*STEP])
    fill()


if __name__ == "__main__":
    main(*sys.argv[1:])
