"""The run folder: one experiment's configuration, checkpoints, history and results."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from two_tower.config.saved import Composition, differences, read, to_yaml
from two_tower.console import first_process
from two_tower.errors import UserError
from two_tower.files import write_json, write_text

PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "numba", "pyarrow", "tokenizers", "bm25s", "faiss-cpu")


class Run:
    """Paths and states of a run folder, which need not exist yet.

    ``results.json`` appears last and atomically, so its presence means that the run is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.environment = path / "config.yaml", path / "environment.json"
        self.tokenizer, self.results = path / "tokenizer.json", path / "results.json"
        self.metrics = path / "metrics.csv"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.index = path / "index"
        self.doctor = path / "doctor.json"
        self.signals = path / "signals.json"
        self.similarities = path / "similarities.svg"

    @classmethod
    def existing(cls, path: Path | str) -> Run:
        """The folder of a run that has trained at least one epoch; a UserError if it has not."""
        run = cls(Path(path))
        if not run.config.exists():
            raise UserError(f"{path} is not the folder of a run: it holds no config.yaml.")
        if not run.best.exists():
            checkpoint = run.best.relative_to(run.path)
            remedy = "the run did not finish its first epoch; start its train.py command again."
            raise UserError(f"{path} has no checkpoint yet ({checkpoint}): {remedy}")
        return run

    @property
    def complete(self) -> bool:
        return self.results.exists()

    def start(self, config: Mapping[str, Any], composition: Composition | None = None) -> bool:
        """Begin a run of a configuration in the folder, or continue the interrupted one; False if it is complete."""
        if self.config.exists():
            changed = differences(read(self.config), config)
            if changed:
                more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
                other = f"{self.path} holds a run with another configuration ({changed[0]}{more})"
                raise UserError(f"{other}: choose another run_dir or delete that folder.")
            if self.complete:
                return False
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run_dir={self.path} cannot be made: {error.strerror}.") from error
        if first_process():  # the others' command is not the user's
            write_text(self.config, to_yaml(config))
            write_json(self.environment, {**environment(), **(composition or Composition())._asdict()})
        return True

    def abandon(self) -> None:
        """Leave the folder as if the run had never begun; does nothing once there is a checkpoint.

        For a mistake that shows only when the data is read. Its correction is another configuration, which the
        folder would refuse.
        """
        if self.last.exists() or self.best.exists() or not first_process():
            return
        for file in (self.config, self.environment, self.tokenizer, self.metrics):
            file.unlink(missing_ok=True)
        for name in ("wandb", "tensorboard"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for folder in (self.checkpoints, self.path):
            if not any(folder.iterdir()):
                folder.rmdir()

    def read_results(self) -> dict[str, Any]:
        return json.loads(self.results.read_text(encoding="utf-8"))

    def composition(self) -> Composition:
        """What the configuration was composed from; empty for a run that no command made."""
        saved = json.loads(self.environment.read_text(encoding="utf-8")) if self.environment.exists() else {}
        return Composition(saved.get("choices", {}), saved.get("derived", []))


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


def _git_revision() -> str | None:
    """Commit of the code, with ``+`` where files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    folder = Path(__file__).parent
    try:
        return subprocess.check_output(command, cwd=folder, stderr=subprocess.PIPE, text=True, timeout=5).strip()
    except (OSError, subprocess.SubprocessError):
        return None
