"""What a sweep returns to the sweeper, and what ends it."""

import csv
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from conftest import write_collection
from forked import forked
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from two_tower.data.beir import Beir

Call = Callable[..., Any]  # see conftest.py in this folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("objective") / "beir", 90, triples=False)


def options(collection: Path, *more: str) -> list[str]:
    settings = ["trainer=cpu", "trainer.max_epochs=1", "tower.dim=8", "data.batch_size=32", "hydra.sweep.dir=s"]
    return ["-m", "data=beir", f"data.path={collection}", *settings, *more]


def one_line(text: str, *parts: str) -> bool:
    assert text.count("\n") == 1, text
    assert all(part in text for part in parts), text
    return True


class Climber(Sweeper):
    """Asks for one job after the other, as Optuna does, and keeps what each returned."""

    __module__ = "hydra_plugins.climber"  # where Hydra wants it

    def __init__(self, values: list[str]) -> None:
        self.values = values

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:  # noqa: ANN401
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        RETURNED.clear()
        for number, value in enumerate(self.values):
            (done,) = self._launcher.launch([[*arguments, value]], initial_job_idx=number)
            RETURNED.append(done.return_value)


RETURNED: list[Any] = []


@pytest.fixture
def climber(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The sweeper ``climber``, as a plug-in would bring it."""
    Plugins.instance().register(Climber)  # which has looked for the plug-ins that are installed
    package, module = ModuleType("hydra_plugins"), ModuleType(Climber.__module__)
    package.__path__, module.Climber = [], Climber  # type: ignore[attr-defined]
    for each in (package, module):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    node = {"_target_": f"{Climber.__module__}.Climber", "values": []}
    ConfigStore.instance().store(group="hydra/sweeper", name="climber", node=node, provider="tests")
    yield
    ConfigStore.instance().repo["hydra"]["sweeper"].pop("climber.yaml")


@pytest.mark.usefixtures("climber")
def test_a_sweeper_learns_the_best_figure_of_each_job(small: Path, tmp_path: Path, call: Call) -> None:
    monitor = "recall@1"  # not what is watched by default
    values = "['optimizer.lr=1e-9','optimizer.lr=0.04','tower.dim=nonsense','negatives.count=0']"
    command = [*options(small), "trainer.max_epochs=3", f"validation.monitor={monitor}"]
    command += ["hydra/sweeper=climber", f"hydra.sweeper.values={values}", "optimizer.lr=0.001", "negatives=random"]
    ended = call("train.py", *command)
    assert ended.status == 1
    poor, good, *failed = RETURNED
    assert all(math.isnan(value) for value in failed)
    assert len(failed) == 2
    assert one_line(ended.err, "2 of", "jobs failed", "tower.dim=nonsense", "negatives.count=0")
    assert poor < good
    for value, rate in ((poor, "1e-9"), (good, "0.04")):
        (metrics,) = (tmp_path / "s").glob(f"*lr={rate}*/metrics.csv")
        with metrics.open() as file:
            checks = [float(row[f"val/{monitor}"]) for row in csv.DictReader(file) if row[f"val/{monitor}"]]
        assert len(checks) == 3
        assert value == max(checks)
    before = RETURNED[:2]
    assert call("train.py", *command).status == 1  # what is complete says the same
    assert RETURNED[:2] == before


@pytest.mark.parametrize(
    "override",
    ["hydra.sweeper.params={seed:'0,1'}", "+hydra.sweeper.params={optimizer.lr:'interval(0.001,0.1)'}",
     "hydra.sweeper.params.seed=1", "++hydra.sweeper.params.optimizer.lr=choice(1,2)"],
)  # fmt: skip
def test_hydras_other_way_to_sweep_is_refused(small: Path, tmp_path: Path, call: Call, override: str) -> None:
    ended = call("train.py", *options(small), override)
    assert (ended.status, ended.out) == (2, "")
    assert one_line(ended.err, override, "write what is swept as key=a,b")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("plugin", ["hydra/sweeper=ax", "hydra/launcher=rq"])
def test_a_plug_in_that_is_not_installed(small: Path, call: Call, plugin: str) -> None:
    ended = call("train.py", *options(small), plugin, "seed=0,1")
    assert (ended.status, ended.out) == (2, "")
    assert one_line(ended.err, plugin, "pip install")


class SlowSource(Beir):
    """A folder that is read in a minute if it is called ``slow``."""

    def corpus(self) -> Iterator[pa.RecordBatch]:
        if self.path.name == "slow":
            (self.path / "begun").touch()
            time.sleep(60)
        yield from super().corpus()


def test_sigterm_ends_a_job_that_reads_its_data(small: Path, tmp_path: Path) -> None:
    slow = write_collection(tmp_path / "slow", 80, triples=False)
    paths = f"data.path={small},{slow},{tmp_path / 'more'}"
    command = ["train.py", *options(small, "data._target_=commands.test_objective.SlowSource"), paths]
    command.remove(f"data.path={small}")
    with forked(*command, cwd=tmp_path) as job:
        while not (slow / "begun").exists():
            job.check_alive()
            time.sleep(0.01)
        job.send(signal.SIGTERM)
        ended = job.ended()
    assert ended.status not in (0, 2)
    assert "Job 2 of 3" in ended.out
    assert "Job 3 of 3" not in ended.out
    assert "Traceback" not in ended.err
    assert len([*(tmp_path / "s").glob("*/results.json")]) == 1


def test_so_does_ctrl_c(small: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from two_tower import assemble

    made, make_data = [], assemble.make_data

    def interrupted(*args: Any) -> Any:  # noqa: ANN401
        made.append(args)
        if len(made) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return make_data(*args)

    monkeypatch.setattr(assemble, "make_data", interrupted)
    ended = call("train.py", *options(small), "seed=0,1,2")
    assert (ended.status, len(made)) == (1, 2)
    assert one_line(ended.err, "Interrupted", "the same command continues")
    assert len([*(tmp_path / "s").glob("*/results.json")]) == 1
