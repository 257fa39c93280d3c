"""Sweeps as Hydra sees them: which jobs a command line means, and where each of them works."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # the one place that knows the product of values
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from two_tower.config.groups import CONF
from two_tower.config.saved import digest
from two_tower.errors import UserError

__all__ = ["Job", "Sweep", "begin", "folder_name", "settle", "this_job"]

# Characters of a folder's name, and of a value in it; file systems take 255 bytes.
LONGEST_NAME, LONGEST_VALUE = 200, 24


@dataclass(frozen=True)
class Job:
    """One combination of a sweep.

    Attributes:
        folder: where it works; its name stands for the overrides.
        overrides: what tells it from the default configuration, as typed.
        number: its place in the sweep, from 0.
        sweep: folder of the sweep.
    """

    folder: Path
    overrides: tuple[str, ...]
    number: int
    sweep: Path


class Sweep(Protocol):
    """What a command does around the jobs of a sweep. A launcher may copy it into other processes."""

    def check(self, composed: DictConfig) -> object:
        """Raise a UserError for a combination that cannot work; called for each before any job starts."""

    def begin(self, folder: Path, jobs: int | None, composed: DictConfig) -> None:
        """The sweep starts.

        Args:
            folder: of the sweep.
            jobs: how many; None where that is not known.
            composed: the configuration without what is swept.
        """

    def run(self, job: Job, work: Callable[[], object]) -> None:
        """Do one job. What it raises ends the whole sweep."""

    def end(self, folder: Path) -> None:
        """All jobs have been done, perhaps by other processes; exits if the sweep has failed."""


def folder_name(overrides: str) -> str:
    """The name of a job's folder: its overrides, as far as a file system takes them and people read them.

    Of a long value, a path for example, its end is kept. What is replaced or cut off is told by eight digits of a
    checksum in the end, so that no two jobs share a folder.
    """
    items = [item.partition("=") for item in overrides.split(",")]
    short = ",".join(f"{key}{equals}{value[-LONGEST_VALUE:]}" for key, equals, value in items)
    name = re.sub(r"[^\w.,=+@-]+", "-", short, flags=re.ASCII)[:LONGEST_NAME].strip("-.")
    if name == overrides:
        return name or "default"
    return f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}".strip("-")


OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def this_job() -> Job:
    """The job that the process works on."""
    config = HydraConfig.get()
    return Job(
        Path(config.runtime.output_dir), tuple(config.overrides.task), int(config.job.num), Path(config.sweep.dir)
    )


def settle(config: dict[str, Any]) -> bool:
    """Choose the run folder of a checked configuration if it has none; in a sweep, the job's, and W&B's group.

    Returns:
        Whether the run is none of a sweep's.
    """
    hydra_config = HydraConfig.get()
    alone = hydra_config.mode != RunMode.MULTIRUN
    if not alone and "group" in config["logger"]:
        config["logger"]["group"] = config["logger"]["group"] or Path(hydra_config.sweep.dir).name
    if config["run_dir"] is None:
        parts = [hydra_config.runtime.choices[group] for group in ("data", "tower", "loss", "negatives")]
        name = f"runs/{'-'.join(parts)}-{digest(config)}"
        config["run_dir"] = name if alone else os.path.relpath(hydra_config.runtime.output_dir)
    return alone


def begin(sweep: Sweep, config_name: str, overrides: Sequence[str]) -> Path:
    """Check every combination of a sweep before any job starts, and begin it; returns its folder.

    Args:
        sweep: what checks.
        config_name: the configuration, e.g. ``train``.
        overrides: the command line's.

    Raises:
        UserError: a combination that cannot work, with its overrides.
        Exception: of Hydra, what it cannot compose.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))
        plain = [o for o in parsed if not o.is_sweep_override()]
        combinations = _combinations(parsed)
        composed = compose(config_name, _written(plain), return_hydra_config=True)
        for combination in combinations or [_written(plain)]:
            _check(sweep, config_name, combination, {o.key_or_group for o in parsed if o.is_sweep_override()})
    GlobalHydra.instance().clear()
    folder = Path(composed.hydra.sweep.dir)
    if composed.get("run_dir") is not None:
        raise UserError(
            f"run_dir={composed.run_dir} is the folder of one run: in a sweep write hydra.sweep.dir=FOLDER, in which "
            "each job has a folder of its own."
        )
    sweep.begin(folder, len(combinations) or None, composed)
    return folder


def _written(overrides: Sequence[Override]) -> list[str]:
    return [str(override.input_line) for override in overrides]


def _combinations(parsed: Sequence[Override]) -> list[list[str]]:
    """The overrides of every job; empty where another sweeper than Hydra's own chooses them while it runs."""
    if any(override.key_or_group == "hydra/sweeper" for override in parsed):
        return []
    (combinations,) = BasicSweeper.split_arguments(list(parsed), max_batch_size=None)
    return combinations


def _check(sweep: Sweep, config_name: str, combination: Sequence[str], swept: set[Any]) -> None:
    try:
        sweep.check(compose(config_name, list(combination)))
    except UserError as error:
        own = [each for each in combination if each.lstrip("+~").partition("=")[0] in swept]
        raise UserError(f"{error} (in the job {' '.join(own)})" if own else str(error)) from error
