"""The run folder: one experiment's configuration, checkpoints, history and results."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from two_tower.config.saved import Composition, differences, leaves, read, to_yaml
from two_tower.console import first_process
from two_tower.errors import UserError
from two_tower.files import atomic_path, read_json, write_json, write_text

PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "numba", "pyarrow", "tokenizers", "faiss-cpu")
HOLD_SECONDS = 10  # a killed process may leave children that hold the folder for some seconds


class Run:
    """Paths and states of a run folder, which need not exist yet.

    ``results.json`` appears last and atomically, so its presence means that the run is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.environment = path / "config.yaml", path / "environment.json"
        self.tokenizer, self.results = path / "tokenizer.json", path / "results.json"
        self.metrics, self.index, self.checkpoints = path / "metrics.csv", path / "index", path / "checkpoints"
        self.best, self.last = self.checkpoints / "best.ckpt", self.checkpoints / "last.ckpt"
        self.data = path / "data.json"  # what `Source.facts` said when the run began
        self.learned = path / "learned.npy"  # ascending hashes of the passages that it learned from
        self.hybrid = path / "hybrid.json"  # how its tower and BM25 are fused
        self.card = path / "report.md"
        self.doctor, self.signals = path / "doctor.json", path / "signals.json"
        self.similarities = path / "similarities.svg"
        self._lock_file = path / ".lock"
        self._lock = FileLock(self._lock_file)

    @classmethod
    def existing(cls, path: Path | str) -> Run:
        """The folder of a run that has trained at least one epoch; a UserError if it has not."""
        run = cls(Path(path))
        if not run.config.exists():
            raise UserError(f"{path} is not the folder of a run: it holds no config.yaml.")
        if not run.best.exists():
            remedy = "the run did not finish its first epoch; start its train.py command again."
            raise UserError(f"{path} has no checkpoint yet (checkpoints/best.ckpt): {remedy}")
        return run

    @property
    def complete(self) -> bool:
        return self.results.exists()

    def start(
        self, config: Mapping[str, Any], composition: Composition | None = None,
        data: Mapping[str, Any] | None = None, extensible: bool = False,
    ) -> bool:  # fmt: skip
        """Begin a run of a configuration in the folder, or continue the interrupted one; False if it is complete.

        ``data`` is what `Source.facts` says, None if it cannot be read. An ``extensible`` run may go on for more steps
        or epochs. A UserError says what else has changed, or that another process trains here. `release` lets go of it.
        """
        if not self._is_due(config, data, extensible):
            return False
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run_dir={self.path} cannot be made: {error.strerror}.") from error
        if first_process():  # the others' command is not the user's
            try:
                self._lock.acquire(timeout=HOLD_SECONDS)
            except Timeout:
                remedy = "wait for its end, or choose another run_dir"
                raise UserError(f"Another process trains in {self.path}: {remedy}") from None
            if not self._is_due(config, data, extensible):  # another process has trained meanwhile
                self.release()
                return False
            self.results.unlink(missing_ok=True)
            write_text(self.config, to_yaml(config))
            write_json(self.environment, {**environment(), **(composition or Composition())._asdict()})
            if data is not None:
                write_json(self.data, data)
        return True

    def _is_due(self, config: Mapping[str, Any], data: Mapping[str, Any] | None, extensible: bool) -> bool:
        if not self.config.exists():
            if self.last.exists() or self.best.exists():
                remedy = "choose another run_dir, or delete it"
                raise UserError(f"{self.path} holds checkpoints but no config.yaml: {remedy}")
            return True
        longer = self._check_unchanged(config, extensible)
        if data is not None:
            self.check_data(data)
        elif self.complete and longer:
            raise UserError(f"{self.path} cannot be trained further: its data cannot be read")
        return longer or not self.complete

    def _check_unchanged(self, config: Mapping[str, Any], extensible: bool) -> bool:
        """Whether only the length has changed, and grown; a UserError for any other change."""
        before, done = read(self.config), self.read_results().get("epochs", 0) if self.complete else 0
        changed = differences(before, config)
        longer = bool(changed) and all(_grown(before, config, each.partition(":")[0], done) for each in changed)
        if not changed or (longer and extensible):
            return longer
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        remedy = "choose another run_dir or delete that folder."
        if longer:
            remedy = f"its schedule ended with it; begin another run with init_from={self.path}."
        raise UserError(f"{self.path} holds a run with another configuration ({changed[0]}{more}): {remedy}")

    def check_data(self, now: Mapping[str, Any]) -> None:
        """Raise a UserError if the data has changed since the run began; ``now`` is what `Source.facts` says."""
        before = read_json(self.data)
        if before is None or before["fingerprint"] == now["fingerprint"]:
            return
        changed = {*before["parts"]} ^ {*now["parts"]}
        files = [re.fullmatch(r"(.+) [0-9a-f]{16,}", part) for part in changed]
        names = {file[1] if file else "a setting" for file in files}
        what = f" ({', '.join(sorted(names))})" if names else ""
        remedy = "choose another run_dir, put the data back, or name it as it is now (data=SOURCE data.path=…)"
        raise UserError(f"The data of {self.path} has changed since that run began: {now['name']}{what}; {remedy}")

    def release(self) -> None:
        """Let other processes train in the folder."""
        self._lock.release()
        if not self.config.exists():
            self._lock_file.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Leave the folder as if the run had never begun; does nothing once there is a checkpoint.

        For a mistake that shows only when the data is read: the folder would refuse the corrected configuration.
        """
        if self.last.exists() or self.best.exists() or not first_process():
            return
        written = [self.config, self.environment, self.tokenizer, self.metrics, self.data, self.doctor, self.signals]
        for file in (*written, self.learned, self._lock_file):
            file.unlink(missing_ok=True)
        for name in ("wandb", "tensorboard"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for folder in (self.checkpoints, self.path):
            if not any(folder.iterdir()):
                folder.rmdir()

    def keep_learned(self, texts: np.ndarray, before: Path | str | None = None) -> None:
        """Keep which texts the run learns from, by hashes (`Corpus.written`), beside those of the run ``before`` it."""
        learned = np.unique(texts)
        if before is not None and (earlier := Run(Path(before)).read_learned()) is not None:
            learned = np.union1d(learned, earlier)
        with atomic_path(self.learned) as temporary, temporary.open("wb") as file:
            np.save(file, learned)

    def read_learned(self) -> np.ndarray | None:
        """The ascending hashes of all texts that the run has learned from; None of a run that has not kept them."""
        try:
            return np.load(self.learned, mmap_mode="r") if self.learned.exists() else None
        except (ValueError, EOFError) as error:
            raise UserError(f"{self.learned} is damaged ({error}): restore or delete that file.") from error

    @property
    def keeps_out(self) -> bool:
        """Whether passages of its own data were kept out of training."""
        data = read(self.config)["data"]
        return bool(data.get("unseen_share") or data.get("unseen_ids"))

    def has_learned(self, collection: str) -> bool:
        """Whether a collection, by its fingerprint, is what the run was trained on, all of it."""
        data = read_json(self.data)
        return not self.keeps_out and (data is None or data["fingerprint"] == collection)

    def read_results(self) -> dict[str, Any]:
        return read_json(self.results)

    def composition(self) -> Composition:
        """What the configuration was composed from; empty for a run that no command made."""
        saved = read_json(self.environment) or {}
        return Composition(**{key: saved[key] for key in Composition._fields if key in saved})


def _grown(before: Mapping[str, Any], now: Mapping[str, Any], key: str, done: int) -> bool:
    """Whether a key says how long training takes, and now says longer; ``done`` epochs where it said nothing."""
    old, new = (leaves(config).get(key) for config in (before, now))
    if key not in ("trainer.max_epochs", "trainer.max_steps") or new is None:
        return False
    old = done if old is None else old
    return (math.inf if new == -1 else new) > (math.inf if old == -1 else old)


def environment() -> dict[str, Any]:
    """Code version, package versions and machine of this process."""
    return {
        "two_tower": _version("two-tower"),
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "command": sys.argv,
    }


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _git_revision() -> str | None:
    """Commit of the code that this process runs, with ``+`` where files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    folder = Path(__file__).parent
    try:
        return subprocess.check_output(command, cwd=folder, stderr=subprocess.PIPE, text=True, timeout=5).strip()
    except (OSError, subprocess.SubprocessError):
        return None
