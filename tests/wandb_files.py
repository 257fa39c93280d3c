"""Reads what W&B wrote offline: the transaction log, LevelDB's log format with a protobuf record in each entry."""

import json
import os
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32 * 1024, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Record]:
    """The records of a ``run-ID.wandb``; the torn end of a killed run's is left out."""
    content, at, parts = path.read_bytes(), HEADER, b""
    assert content[:4] in (b"", b":W&B")
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # no header fits into the rest of the block
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        part = content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind not in (FULL, FIRST, MIDDLE, LAST) or len(part) < length:
            return
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            yield Record.FromString(parts)


class WandbRun(NamedTuple):
    """One folder that W&B wrote."""

    path: Path
    id: str
    config: dict[str, Any]  # what was logged as hyper-parameters
    history: list[dict[str, Any]]  # a row per logged step
    exit_code: int | None  # None if it never ended
    summary: dict[str, Any]  # the values that a table of runs shows
    tags: list[str]
    artifacts: list[Any]  # what was kept, and what was told: W&B's own records
    alerts: list[Any]

    def steps(self, key: str) -> list[int]:
        """The training steps at which there is a value, in the order in which they were written."""
        return [row["trainer/global_step"] for row in self.history if key in row]


def log_until_killed(folder: Path, steps: Iterable[int]) -> None:
    """Log a loss at each of the steps and stay."""
    from two_tower.logger.wandb import WandbLogger
    from two_tower.run import Run

    os.environ.pop("WANDB_SERVICE", None)  # of another process
    logger = WandbLogger(Run(folder))
    for step in steps:
        logger.log_metrics({"train/loss": step / 10}, step)
    time.sleep(120)


def wandb_runs(folder: Path, ended: int | None = None) -> list[WandbRun]:
    """The offline runs in a run folder, in the order in which they were started.

    W&B's own process goes on writing after a run has ended for the program, so this waits until ``ended`` of them, by
    default all, have an end.
    """
    for _ in range(200):
        runs = [_read(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]
        if sum(run.exit_code is not None for run in runs) == (len(runs) if ended is None else ended):
            break
        time.sleep(0.05)
    return runs


def _read(log: Path) -> WandbRun:
    run = WandbRun(log.parent, "", {}, [], None, {}, [], [], [])
    for record in records(log):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = run._replace(id=record.run.run_id, tags=[*record.run.tags] or run.tags)
            run.config.update(_items(record.run.config.update))
        elif kind == "config":
            run.config.update(_items(record.config.update))
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary.update(_items(record.summary.update))
        elif kind == "artifact":
            run.artifacts.append(record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            run.artifacts.append(record.request.log_artifact.artifact)
        elif kind == "alert":
            run.alerts.append(record.alert)
        elif kind == "exit":
            run = run._replace(exit_code=record.exit.exit_code)
    return run


def _items(items: Any) -> dict[str, Any]:  # noqa: ANN401
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
