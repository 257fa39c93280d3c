"""``hydra/sweeper=optuna``: the values of a sweep are chosen while it runs, by what came of those before.

Spaces are written in Hydra's syntax: ``interval(0,1)`` is any number, ``int(interval(1,8))`` any whole one up to 8,
``tag(log,interval(1e-4,1e-1))`` is even on a logarithmic scale, ``range(8,65,8)`` goes in steps, and ``a,b``,
``choice(a,b)`` and ``glob(*)`` are choices without an order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from two_tower.config.build import build, call, check
from two_tower.errors import UserError, at_least
from two_tower.study import Direction, Study, text_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

log = logging.getLogger(__name__)

_NAME = "hydra_plugins.two_tower.OptunaSweeper"  # where Hydra wants a plug-in; see conf/hydra/sweeper/optuna.yaml


class Search:
    """The settings of ``conf/hydra/sweeper/optuna.yaml``."""

    def __init__(
        self, n_trials: int, n_jobs: int, metric: str, direction: Direction, storage: str, study_name: str,
        sampler: dict[str, Any], pruner: dict[str, Any], job: int | None = None,
    ) -> None:  # fmt: skip
        at_least(1, n_trials=n_trials, n_jobs=n_jobs)
        self.n_trials, self.n_jobs, self.metric, self.direction, self.job = n_trials, n_jobs, metric, direction, job
        self._storage, self._study_name, self._sampler = storage, study_name, sampler
        self._pruner = build("hydra.sweeper.pruner", pruner)
        self.sampler(0)  # what is wrong with its settings shows

    @classmethod
    def of(cls, hydra: Any) -> Search:  # noqa: ANN401
        """What Hydra's own configuration says, checked; a UserError names the key that is wrong."""
        if not all(find_spec(package) for package in ("optuna", "sklearn")):  # the latter at the end
            raise UserError('hydra/sweeper=optuna needs its package: pip install -e ".[optuna]"')
        settings: Any = OmegaConf.to_container(hydra.sweeper, resolve=True)
        own = {**settings, "_target_": f"{cls.__module__}.{cls.__name__}"}
        checked = check(OmegaConf.create({"hydra.sweeper": own}))["hydra.sweeper"]
        return call("hydra.sweeper", cls, **{key: value for key, value in checked.items() if not key.startswith("_")})

    def sampler(self, trial: int) -> BaseSampler:
        """What chooses the values of a trial."""
        more: dict[str, Any] = {}
        if self._sampler.get("seed") is not None:
            more["seed"] = int(np.random.default_rng([self._sampler["seed"], trial]).integers(2**31))
        return build("hydra.sweeper.sampler", self._sampler, **more)

    def study(self, folder: Path) -> Study:
        """The study that a sweep in a folder works on."""
        return Study(folder, self._storage, self._study_name, self.metric, self.direction, self._pruner)


class OptunaSweeper(Sweeper):
    """Asks a `Study` for jobs and hands them to the launcher. They tell the study themselves what came of them."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        pass  # `Search` takes them from the configuration and checks them

    @classmethod
    def register(cls) -> None:
        """Let Hydra find the class; the workers of launchers import it from here."""
        Plugins.instance().class_name_to_class[_NAME] = cls

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._search, self._loader = Search.of(config.hydra), hydra_context.config_loader
        self._study = self._search.study(Path(config.hydra.sweep.dir))
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Do jobs until there are ``n_trials`` of the study, in whatever processes."""
        search, study, waiting = self._search, self._study, False
        parsed = OverridesParser.create(self._loader).parse_overrides(arguments)
        space = space_of([each for each in parsed if each.is_sweep_override()])
        fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
        given = {each.get_key_element(): str(each.input_line).partition("=")[2] for each in parsed}
        given.pop("console", None)
        study.begin({**given, "hydra.sweeper.metric": search.metric, "hydra.sweeper.direction": search.direction})
        while not study.is_over(search.n_trials):
            if taken := study.take(search.n_jobs, search.n_trials, space, search.sampler):
                jobs = [[*fixed, *values, f"hydra.sweeper.job={job}"] for job, values in taken.items()]
                for each in self._launcher.launch(jobs, initial_job_idx=min(taken)):
                    _ = each.return_value  # raises what has ended the sweep in another process
                continue
            if not waiting:
                log.info("The last jobs are done by other processes: waiting for them.")
            waiting = True
            time.sleep(0.5)
        study.write(over=True)


def space_of(axes: Sequence[Override]) -> dict[str, BaseDistribution]:
    """Key → the values that it may have, as Optuna describes them; a UserError for a space that has none."""
    if not axes:
        raise UserError("hydra/sweeper=optuna has nothing to choose: add for example optimizer.lr=interval(0.001,0.1)")
    space = {}
    for axis in axes:
        key = axis.get_key_element()
        try:
            space[key] = _distribution(axis)
        except ValueError as error:
            raise UserError(f"{axis.input_line} is no space to search: {error}") from error
    return space


def _distribution(axis: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = axis.value()
    tags: set[str] = getattr(sweep, "tags", set())
    if not isinstance(sweep, IntervalSweep | RangeSweep):
        if tags:
            raise ValueError(f"choices have no order, so none is {', '.join(sorted(tags))}")
        return CategoricalDistribution(sorted({*axis.sweep_string_iterator()}))
    if unknown := tags - {"log"}:
        raise ValueError(f"the tag {min(unknown)} says nothing; valid: log")
    limits: list[Any] = [sweep.start, sweep.end] if isinstance(sweep, IntervalSweep) else sorted(sweep.range())
    if not limits:
        raise ValueError("it is empty")
    low, high, step = limits[0], limits[-1], getattr(sweep, "step", None)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log="log" in tags, step=abs(step or 1))
    return FloatDistribution(low, round(high, 12), log="log" in tags, step=step and abs(step))


def samples(space: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Overrides of a few jobs: each choice and each limit of each key occurs, beside the first of the others."""
    values: dict[str, list[Any]] = {}
    for key, each in space.items():
        values[key] = [*each.choices] if hasattr(each, "choices") else [each.low, each.high]
    texts = {key: [f"{key}={text_of(each, space[key])}" for each in its] for key, its in values.items()}
    jobs = [
        tuple(text if other == key else its[0] for other, its in texts.items()) for key in texts for text in texts[key]
    ]
    return [*dict.fromkeys(jobs)]
