"""``hydra/sweeper=optuna`` as its user sees it: spaces, several processes, kills, jobs that are given up or fail."""

import csv
import functools
import itertools
import json
import math
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_collection
from forked import forked, run_forked
from hydra.core.override_parser.overrides_parser import OverridesParser
from killing import untimed

from two_tower.config.sweeper import samples, space_of
from two_tower.errors import UserError
from two_tower.study import Study

optuna = pytest.importorskip("optuna", reason="needs pip install -e '.[optuna]'")
Call = Callable[..., Any]  # see conftest.py in this folder
RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("optuna") / "beir", 90, triples=False)


def options(collection: Path, *more: str) -> list[str]:
    settings = ["trainer=cpu", "trainer.max_epochs=1", "tower.dim=8", "data.batch_size=32", "hydra.sweep.dir=s"]
    return ["-m", "hydra/sweeper=optuna", "data=beir", f"data.path={collection}", *settings, *more]


def study_of(place: Path, folder: str = "s") -> dict[str, Any]:
    return json.loads((place / folder / "study.json").read_text())


def trials_of(place: Path) -> list[Any]:
    """What Optuna itself reads of the study."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(place / "s" / "study.log")))
    return optuna.load_study(study_name="two_tower", storage=storage).get_trials()


def results_of(place: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What the run of a job measured."""
    (found,) = (p for p in (place / "s").glob("*/results.json") if all(o in p.parent.name for o in job["overrides"]))
    return json.loads(found.read_text())


def one_line(text: str, *parts: str) -> bool:
    assert text.count("\n") == 1, text
    assert all(part in text for part in parts), text
    return True


def space(*overrides: str) -> dict[str, Any]:
    return space_of(OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.parametrize(
    ("written", "low", "high", "log", "step", "whole"),
    [
        ("interval(0,1)", 0, 1, False, None, False),
        ("int(interval(1,8))", 1, 8, False, 1, True),
        ("tag(log,interval(1e-4,1e-1))", 1e-4, 1e-1, True, None, False),
        ("tag(log,int(interval(16,512)))", 16, 512, True, 1, True),
        ("range(8,33,8)", 8, 32, False, 8, True),
        ("range(9,1,-3)", 3, 9, False, 3, True),
        ("range(0.1,0.5,0.1)", 0.1, 0.4, False, 0.1, False),
        ("tag(log,range(1,9))", 1, 8, True, 1, True),
    ],
)
def test_numbers_in_hydras_syntax(
    written: str, low: float, high: float, log: bool, step: float | None, whole: bool
) -> None:
    found = space(f"k={written}")["k"]
    assert isinstance(found, optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution)
    assert (found.low, found.high, found.log, found.step) == (low, high, log, step)


@pytest.mark.parametrize(
    ("written", "choices"),
    [("a,b", ["a", "b"]), ("2,0.5,null", ["0.5", "2", "null"]), ("shuffle(b,a,'c d')", ["a", "b", "c\\ d"]),
     ("choice([1,2],[3])", ["[1,2]", "[3]"])],
)  # fmt: skip
def test_choices_in_hydras_syntax(written: str, choices: list[str]) -> None:
    assert space(f"k={written}")["k"].choices == tuple(choices)


@pytest.mark.parametrize(
    ("written", "said"),
    [("tag(log,interval(0,1))", "must hold for .log=True"), ("interval(2,1)", "low"), ("range(3,3)", "it is empty"),
     ("tag(logarithmic,interval(1,2))", "the tag logarithmic says nothing; valid: log"),
     ("tag(log,choice(1,2))", "choices have no order"), ("tag(log,range(1,9,2))", "step")],
)  # fmt: skip
def test_what_is_no_space(written: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"k={written[:3]}.* is no space to search: .*{said}"):
        space(f"k={written}")


def test_every_choice_and_limit_is_tried_before_any_job_starts() -> None:
    tried = samples(space("tower=average,gru", "optimizer.lr=interval(0.1,0.3)", "loss=triplet,in_batch"))
    assert tried[0] == ("tower=average", "optimizer.lr=0.1", "loss=in_batch")
    assert {*itertools.chain(*tried)} == {
        "tower=average", "tower=gru", "optimizer.lr=0.1", "optimizer.lr=0.3", "loss=in_batch", "loss=triplet",
    }  # fmt: skip
    assert len(tried) == 4


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "nothing to choose"),
        (["loss=triplet", "loss.margin=interval(-1,1)"], "loss.margin=-1 must be above 0"),
        (["tower.dim=interval(8,16.5)"], "tower.dim=16.5 has the wrong type: it must be a whole number"),
        ([RATE, "hydra.sweeper.metric=val/mrr@1"], "hydra.sweeper.metric=val/mrr@1 is no figure of a run"),
        ([RATE, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0 must be at least 1"),
        ([RATE, "hydra.sweeper.n_trials=many"], "hydra.sweeper.n_trials=many has the wrong type"),
        ([RATE, "hydra/sweeper/sampler=tpf"], "hydra/sweeper/sampler=tpf does not exist; did you mean 'tpe'"),
        ([RATE, "hydra.sweeper.sampler.sed=1"], "did you mean 'hydra.sweeper.sampler.seed'?"),
        ([RATE, "trainer=ddp"], "A study trains each job in one process"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_before_any_job_starts(
    overrides: list[str], said: str, small: Path, tmp_path: Path, call: Call
) -> None:
    ended = call("train.py", *options(small), *overrides)
    assert (ended.status, ended.out) == (2, "")
    assert one_line(ended.err, said)
    assert not (tmp_path / "s").exists()


def test_an_interval_needs_a_sweeper_that_chooses(small: Path, call: Call) -> None:
    without = [each for each in options(small, RATE) if not each.startswith("hydra/")]
    assert one_line(call("train.py", *without).err, "optimizer.lr", "no end of values: add hydra/sweeper=optuna")
    assert one_line(call("train.py", *without[1:]).err, "optimizer.lr=", "has several values: add -m")


def test_without_its_package(small: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    ended = call("train.py", *options(small, RATE))
    assert (ended.status, ended.out) == (2, "")
    assert one_line(ended.err, 'hydra/sweeper=optuna needs its package: pip install -e ".[optuna]"')
    assert not (tmp_path / "s").exists()


def test_a_study_of_choices_and_numbers(small: Path, tmp_path: Path, call: Call) -> None:
    command = [*options(small, "loss=in_batch,triplet", RATE, "hydra.sweeper.metric=train/loss"), "console=quiet"]
    command += ["hydra.sweeper.direction=minimize", "hydra.sweeper.n_trials=4", "hydra/sweeper/pruner=none"]
    assert call("train.py", *command).status == 0
    study = study_of(tmp_path)
    assert [job["state"] for job in study["jobs"]] == ["complete"] * 4
    assert {job["overrides"][0] for job in study["jobs"]} == {"loss=in_batch", "loss=triplet"}
    for job in study["jobs"]:
        assert job["value"] == results_of(tmp_path, job)["train/loss"]
    best = study["jobs"][study["best"]]
    assert best["value"] == min(job["value"] for job in study["jobs"])
    assert sum(study["importance"].values()) == pytest.approx(1)
    assert [each.value for each in trials_of(tmp_path)] == [job["value"] for job in study["jobs"]]
    page = (tmp_path / "s" / "leaderboard.html").read_text()
    for picture in ("train/loss of every job, and the best so far", "How much each key matters"):
        assert f'aria-label="{picture}"' in page

    fresh = [each for each in options(small)[2:] if not each.startswith("hydra.")]
    assert call("train.py", *fresh, *best["overrides"], "run_dir=fresh").status == 0
    assert untimed(json.loads((tmp_path / "fresh" / "results.json").read_text())) == untimed(results_of(tmp_path, best))

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*/results.json")}
    ended = call("train.py", *command[:-4], *command[-3:], "hydra.sweeper.n_trials=5", "console=normal")
    assert ended.status == 0
    assert "Job 5 of 5" in ended.out
    assert "Job 4 of 5" not in ended.out
    assert study_of(tmp_path)["jobs"][:4] == study["jobs"]
    assert len(trials_of(tmp_path)) == 5
    assert before.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*/results.json")}.items()

    other = [each.replace("1e-1", "1e-2") for each in command]
    assert one_line(
        call("train.py", *other).err, "s holds a study with another optimizer.lr (tag(log,interval(1e-4,1e-1))"
    )


def test_several_processes_one_of_which_is_killed(small: Path, tmp_path: Path) -> None:
    """Two do one study; one is killed in a job, which another goes on with; one more comes late, and none is left."""
    total, command = 6, ["train.py", *options(small, RATE, "hydra/sweeper/pruner=none", "hydra.sweeper.n_trials=6")]
    with forked(*command, cwd=tmp_path) as first, forked(*command, cwd=tmp_path) as second:
        while len([*(tmp_path / "s").glob("*/results.json")]) < 2:
            first.check_alive()
            second.check_alive()
            time.sleep(0.01)
        second.send(signal.SIGKILL)
        third = run_forked(*command, cwd=tmp_path)
        one, two = first.ended(), second.ended()
    assert (one.status, two.status, third.status) == (0, -signal.SIGKILL, 0), (one.err, third.err)
    trials, study = trials_of(tmp_path), study_of(tmp_path)
    assert len(trials) == len(study["jobs"]) == total
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert len({trial.params["optimizer.lr"] for trial in trials}) == total
    assert len([*(tmp_path / "s").glob("*/results.json")]) == total
    begun = [re.findall(rf"Job (\d+) of {total}: ", ended.out) for ended in (one, two, third)]
    assert {*map(int, itertools.chain(*begun))} == {*range(1, total + 1)}
    for job in study["jobs"]:
        assert job["value"] == results_of(tmp_path, job)["val/mrr@10"]
    for ended in (one, third):  # both wait for the end
        assert f"{total} jobs: {total} complete." in ended.out


def test_what_is_left_by_a_process_that_has_ended(tmp_path: Path) -> None:
    """Whatever it was doing, down to the byte that it wrote; but not while a worker of it lives on."""
    axes, storage = space(RATE, "tower.dim=8,16"), tmp_path / "study.log"

    def study() -> Study:
        joined = Study(tmp_path, str(storage), "two_tower", "val/mrr@10", "maximize")
        joined.begin({"a": "1"})
        return joined

    def sampler(trial: int) -> Any:  # noqa: ANN401
        return optuna.samplers.RandomSampler(seed=trial)

    one, two = study(), study()
    taken = one.take(2, 3, axes, sampler)
    assert [*taken] == [0, 1]
    (other,) = two.take(2, 3, axes, sampler).items()
    assert other[0] == 2
    assert other[1] not in taken.values()
    two.tell(2, math.nan)
    assert two.take(2, 3, axes, sampler) == {}  # one does the others, and what fails is not tried again at once
    assert not two.is_over(3)
    worker = one.hold(1)
    worker.acquire()
    one._own.release()  # as if it had died; one of its workers goes on
    two._study.ask()  # and as if another had died before it knew what to try
    with storage.open("a") as file:
        file.write('{"op_code": 4, "wor')
    assert two.take(3, 3, axes, sampler) == {0: taken[0]}
    worker.release()
    assert two.take(3, 3, axes, sampler) == taken  # which it does not do now
    two.tell(0, 0.25)
    two.tell(1, None)
    assert two.is_over(3)
    two._own.release()
    assert study().take(3, 3, axes, sampler) == dict([other])  # what has failed
    with pytest.raises(UserError, match=r"holds a study with another a \(1 → absent\): choose another hydra.sweep.dir"):
        two.begin({})


def test_two_jobs_that_try_the_same_do_not_meet(tmp_path: Path) -> None:
    axes = space("tower.dim=choice(8)")
    studies = [Study(tmp_path, str(tmp_path / "study.log"), "two_tower", "val/mrr@10", "maximize") for _ in range(2)]
    for each in studies:
        each.begin({})
    take = [functools.partial(each.take, 2, 3, axes, optuna.samplers.RandomSampler) for each in studies]
    for number in range(3):
        assert take[number % 2]() == {number: ["tower.dim=8"]}
        assert take[number % 2 - 1]() == {}
        studies[number % 2].tell(number, 0.5)
    assert studies[0].is_over(3)


def test_a_bad_job_is_given_up_and_is_no_result(small: Path, tmp_path: Path, call: Call) -> None:
    command = [*options(small, "optimizer.lr=tag(log,interval(1e-9,1e-1))"), "trainer.max_epochs=3"]
    command += ["hydra/sweeper/sampler=random", "hydra.sweeper.pruner.n_startup_trials=2", "hydra.sweeper.n_trials=6"]
    ended = call("train.py", *command)
    assert ended.status == 0
    jobs = study_of(tmp_path)["jobs"]
    poor = [job for job in jobs if job["state"] == "pruned"]
    assert poor
    assert {job["state"] for job in jobs} == {"complete", "pruned"}
    page = (tmp_path / "s" / "leaderboard.md").read_text()
    assert f"6 jobs: {6 - len(poor)} complete, {len(poor)} given up." in page
    for job in poor:
        (folder,) = (tmp_path / "s").glob(f"*{job['overrides'][0]}*")
        with (folder / "metrics.csv").open() as file:
            checks = [float(row["val/mrr@10"]) for row in csv.DictReader(file) if row["val/mrr@10"]]
        assert job["checks"] == len(checks) < 3
        assert job["value"] == pytest.approx(checks[-1])
        assert (folder / "checkpoints" / "best.ckpt").exists()
        assert not any((folder / name).exists() for name in ("results.json", "failure.json"))
        assert f"| {job['job'] + 1}   | {job['overrides'][0]}" in page.partition("### Given up")[2]
    board = json.loads((tmp_path / "s" / "leaderboard.json").read_text())
    assert (len(board["rows"]), board["failed"]) == (6 - len(poor), [])

    again = [each for each in options(small)[2:] if not each.startswith("hydra.")]
    ended = call("train.py", *again, *job["overrides"], "trainer.max_epochs=3", f"run_dir={folder}")
    assert ended.status == 0
    assert "is complete" not in ended.out
    assert json.loads((folder / "results.json").read_text())["epochs"] == 3


def test_a_job_that_fails_is_tried_again(small: Path, tmp_path: Path, call: Call) -> None:
    command = [*options(small, "negatives=given,in_batch", "seed=range(0,2)"), "hydra.sweeper.n_trials=4"]
    command += ["hydra/sweeper/sampler=random"]
    first = call("train.py", *command)
    jobs = study_of(tmp_path)["jobs"]
    failed = [job for job in jobs if job["state"] == "fail"]
    assert 0 < len(failed) < 4
    assert [job["value"] for job in failed] == [None] * len(failed)
    again = call("train.py", *command)
    for ended in (first, again):
        assert ended.status == 1
        assert one_line(ended.err, "of 4 jobs failed (", "negatives=given needs data with triplets")
    assert re.findall(r"Job (\d) of 4", again.out) == [str(job["job"] + 1) for job in failed]
    assert study_of(tmp_path)["jobs"] == jobs
    assert len(trials_of(tmp_path)) == 4 + len(failed)
