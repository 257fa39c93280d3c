"""What a collection costs that has changed: the same `embed.py` again, beside one from scratch."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.tables import ROOT
from two_tower.loading import own_source
from two_tower.run import Run

SHARE = 100  # one passage of so many is deleted, another changed, a third one added


def renewal(path: Path, split: str) -> dict[str, float]:
    """Seconds of `embed.py` for a run's passages: all of them, after 1 % has changed in each way, after nothing has.

    Each is a process of its own with all of its imports. A RuntimeError if the changed folder is not, file for file,
    one that is made from scratch.
    """
    rows = [row for batch in own_source(Run(path)).corpus() for row in batch.to_pylist()]
    with TemporaryDirectory() as folder:
        before, after = (Path(folder) / f"{name}.jsonl" for name in ("before", "after"))
        _write(before, rows)
        _write(after, _changed(rows))
        kept, fresh = Path(folder) / "kept", Path(folder) / "fresh"
        found = {
            "cost/scratch_s": _embed(path, before, kept),
            "cost/changed_s": _embed(path, after, kept),
            "cost/same_s": _embed(path, after, kept),
        }
        _embed(path, after, fresh)
        for file in fresh.iterdir():  # the report says how long it took
            if file.name != "report.json" and file.read_bytes() != (kept / file.name).read_bytes():
                raise RuntimeError(f"{file.name} is not what it is from scratch")
    return found


def _changed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    rng, count = random.Random(0), len(rows) // SHARE
    chosen = rng.sample(range(len(rows)), 2 * count)
    deleted, changed = {*chosen[:count]}, {*chosen[count:]}
    added = [
        {**rows[i], "id": f"new{i}", "text": f"{rows[i]['text']} zebra{i}"} for i in rng.sample(range(len(rows)), count)
    ]
    kept = [(i, row) for i, row in enumerate(rows) if i not in deleted]
    return [{**row, "text": f"{row['text']} yesterday"} if i in changed else row for i, row in kept] + added


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _embed(run: Path, data: Path, output: Path) -> float:
    start = time.perf_counter()
    command = [str(ROOT / "embed.py"), f"run={run}", "data=passages", f"data.path={data}", f"output={output}"]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
