"""Checks within an epoch: when they come, which is best, exactly resumed, found by other callbacks, and their cost."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from killing import assert_same_weights, killed_after, untimed
from lightning.pytorch.callbacks import Callback

from two_tower.callbacks import speed
from two_tower.callbacks.speed import Speed
from two_tower.run import Run
from two_tower.validation.full import FullValidation
from two_tower.validation.subset import SubsetValidation

Fixture = Callable[..., Any]  # see conftest.py in this folder

BATCHES = 5  # of an epoch
WILD = ["tower.dim=32", "optimizer.lr=0.3", "scheduler=none"]
EVERY_2 = [(2, 0.4), (4, 0.8), (5, 1), (6, 1.2), (8, 1.6), (10, 2)]
ACCUMULATED = [(2, 0.8), (3, 1), (4, 1.4), (6, 2)]  # 3 steps an epoch, of 2, 2 and 1 batches


def checks(run: Path) -> list[tuple[int, float]]:
    """Step and epoch of every check, as the checkpoint has them."""
    return [(row["step"], row["epoch"]) for row in kept(run)["history"]]


def kept(run: Path) -> dict[str, Any]:
    """What the validation knows at the end of a run."""
    callbacks = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    return next(state for name, state in callbacks.items() if name.endswith("Validation"))


def logged(run: Path) -> list[dict[str, str]]:
    """The rows of the history in which a check was logged."""
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["val/mrr@10"]]


@pytest.mark.parametrize(
    ("every", "option", "expected"),
    [
        (2, "", EVERY_2),
        (100, "", [(5, 1), (10, 2)]),
        (2, "+trainer.accumulate_grad_batches=2", ACCUMULATED),
        (4, "trainer.max_steps=8", [(4, 0.8), (5, 1), (8, 1.6)]),
        (3, "trainer.max_steps=8", [(3, 0.6), (5, 1), (6, 1.2), (8, 2)]),
    ],
)
def test_checks_come_when_they_are_due_and_never_twice(
    every: int, option: str, expected: list[tuple[int, float]], fit: Fixture, tmp_path: Path
) -> None:
    options = ["trainer.max_epochs=2", "validation.bm25=false", f"validation.every_n_steps={every}", *option.split()]
    results = fit(tmp_path / "run", *options)
    assert checks(tmp_path / "run") == [(step, pytest.approx(epoch)) for step, epoch in expected]
    assert [int(row["step"]) + 1 for row in logged(tmp_path / "run")] == [step for step, _ in expected]
    assert results["epochs"] == 2


def test_the_best_check_is_the_checkpoint_and_the_ranking(
    fit: Fixture, by_loops: Fixture, run_file: Fixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["validation.every_n_steps=1", "validation.monitor=ndcg@10", "optimizer.lr=0.1"]
    results = fit(tmp_path / "run", *WILD, *options)
    rows = logged(tmp_path / "run")
    values = [float(row["val/ndcg@10"]) for row in rows]
    assert len(values) == 4 * BATCHES
    best = values.index(max(values))
    assert (best + 1) % BATCHES  # within an epoch
    assert (results["best_step"], results["best_epoch"]) == (best + 1, 1 + best // BATCHES)
    assert type(results["best_epoch"]) is int
    expected = by_loops(tmp_path / "run")
    for name, value in expected.means.items():
        assert results[f"val/{name}"] == pytest.approx(value, abs=1e-9), name
    assert run_file(tmp_path / "run") == expected.rankings
    told = capsys.readouterr().out.splitlines()
    starred = [line.split("  ")[0] for line in told if line.endswith("*")]
    assert starred[-1] == f"step {best + 1}"
    name = f"step {best + 1} (epoch {results['best_epoch']})"
    assert any(line.startswith(f"Best {name}: ndcg@10 {max(values):.3f}") for line in told)
    page = (tmp_path / "run" / "report.md").read_text()
    assert f"| step {best + 1} * |" in page
    assert "| epoch 4 |" in page


PLATEAU = ["scheduler=plateau", "scheduler.patience=0"]


@pytest.mark.parametrize(
    ("options", "hook", "step"),
    [
        ([*WILD, "validation.hybrid=true", "validation=subset", "validation.sample=40"], "on_train_batch_end", 4),
        ([*WILD, "callbacks.last.every_seconds=1000"], "on_train_batch_end", 8),  # from epoch 1 again
        ([*PLATEAU], "on_train_batch_end", 7),  # between two checks
        ([*PLATEAU], "on_train_epoch_end", 10),
        (["+trainer.accumulate_grad_batches=2", "validation.every_n_steps=1"], "on_train_batch_end", 5),
        (["+trainer.accumulate_grad_batches=2"], "on_train_batch_end", "batch 8"),  # the first of two
        (["trainer.max_steps=8"], "on_train_batch_end", 8),  # the last step, which is checked; nothing is left to train
        (["trainer.max_steps=9"], "on_train_batch_end", 9),
        (["trainer.max_steps=9"], "on_train_epoch_end", 9),
    ],
)
def test_a_continued_run_has_the_same_checks(
    options: list[str], hook: str, step: int | str, fit: Fixture, whole: Fixture, tmp_path: Path
) -> None:
    base = ["validation.every_n_steps=2", "callbacks.last.every_seconds=0", "trainer.log_every_n_steps=1"]
    uncut, results = whole(*base, *options)

    def now(trainer: Any) -> bool:  # noqa: ANN401
        return step in (trainer.global_step, f"batch {trainer.fit_loop.total_batch_idx + 1}")

    with killed_after(hook, now):
        fit(tmp_path / "cut", *base, *options)
    assert untimed(fit(tmp_path / "cut", *base, *options)) == untimed(results)
    assert_same_weights(uncut, tmp_path / "cut")
    found = []
    for run in (uncut, tmp_path / "cut"):
        history, ranking = kept(run)["history"], (run / "run.trec").read_text().replace(f" {run.name}\n", "\n")
        rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
        found.append((ranking, [untimed(row) for row in history], [untimed(row) for row in rows]))
    assert found[0] == found[1]


class Listener(Callback):
    """Notes what the validation says in each hook."""

    seen: list[tuple[str, int, str, bool]]

    def __init__(self, validation: FullValidation) -> None:
        self.validation = validation
        Listener.seen = []

    def _note(self, hook: str, trainer: Any) -> None:  # noqa: ANN401
        v = self.validation
        if v.just_evaluated:
            assert v.latest is not None
            assert v.latest.means == {name: v.history[-1][name] for name in v.metrics}
        Listener.seen.append((hook, trainer.global_step, v.latest_name, v.just_evaluated))

    def on_train_start(self, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        v = self.validation
        assert v.latest is None
        assert v.baseline is not None
        assert v.bm25_evaluation is not None
        assert (v.baseline.means, v.bm25_evaluation.means) == (v.untrained, v.bm25)
        assert (len(v.corpus), len(v.queries_split)) == (120, 20)
        self._note("start", trainer)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        self._note("batch", trainer)

    def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        self._note("epoch", trainer)


def test_a_check_at_the_end_of_an_epoch_is_found_once(fit: Fixture, tmp_path: Path) -> None:
    options = ["trainer.max_epochs=2", "validation.every_n_steps=5"]
    fit(tmp_path / "run", f"+callbacks.listener._target_={__name__}.Listener", *options)
    assert [seen[2] for seen in Listener.seen if seen[3]] == ["epoch 1", "epoch 2"]


def test_other_callbacks_find_each_check_once(fit: Fixture, tmp_path: Path) -> None:
    options = ["trainer.max_epochs=1", "validation.every_n_steps=2", "+trainer.accumulate_grad_batches=2"]
    fit(tmp_path / "run", f"+callbacks.listener._target_={__name__}.Listener", *options)
    steps = [("start", 0), ("batch", 0), ("batch", 1), ("batch", 1), ("batch", 2), ("batch", 3), ("epoch", 3)]
    assert [(hook, step) for hook, step, _, _ in Listener.seen] == steps
    untrained = [("untrained", False)] * 4
    assert [seen[2:] for seen in Listener.seen] == [*untrained, ("step 2", True), ("step 2", False), ("epoch 1", True)]


def test_a_line_has_the_loss_of_its_step_and_the_cost_is_told(
    fit: Fixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["validation.every_n_steps=2", "validation.hybrid=true", "trainer.log_every_n_steps=1"]
    results = fit(tmp_path / "run", *options, "trainer.max_epochs=2")
    spent, whole = results["validation/seconds"], results["seconds"]
    rows = kept(tmp_path / "run")["history"]
    assert [row["loss"] for row in rows] == [float(row["train/loss"]) for row in logged(tmp_path / "run")]
    assert len({row["loss"] for row in rows}) == len(rows)
    assert sum(row["seconds"] + row["hybrid_seconds"] for row in rows) < spent < whole
    sentence = f"Validation took {spent:.0f} s of {whole:.0f} s ({100 * spent / whole:.0f} %)."
    assert sentence in capsys.readouterr().out.splitlines()
    assert sentence in (tmp_path / "run" / "report.md").read_text().splitlines()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["validation/seconds"] == spent


def test_the_speed_of_training_is_without_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 1 second, a check 10; the run is killed within an epoch and continued."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    class Check:
        overhead_seconds = 0.0

        def __call__(self) -> None:
            clock.now += 10
            self.overhead_seconds += 10

    clock, check = Clock(), Check()
    monkeypatch.setattr(speed, "time", clock)

    def step(watch: Any, times: int, checked: bool = False) -> None:  # noqa: ANN401
        for _ in range(times):
            clock.now += 1
            if checked:
                check()
            watch.on_train_batch_end(trainer, None, None, range(4), 0)

    one: Any = Speed()
    two: Any = Speed()
    trainer: Any = SimpleNamespace(callbacks=(check, one), world_size=1, loggers=())
    one.on_fit_start(trainer, None)
    check()
    one.on_train_start(trainer, None)
    one.on_train_epoch_start(trainer, None)
    step(one, 3)
    step(one, 2, checked=True)
    assert (one.seconds, one.training_seconds) == (35, 5)

    two.load_state_dict(one.state_dict())
    trainer.callbacks = (check, two)
    clock.now += 500
    two.on_fit_start(trainer, None)
    check()
    two.on_train_start(trainer, None)
    step(two, 5)  # of the epoch that goes on
    check()
    two.on_train_epoch_end(trainer, None)
    two.on_train_epoch_start(trainer, None)
    step(two, 1)
    assert (two.seconds, two.training_seconds) == (35 + 26, 11)
    assert two.triplets_per_second == pytest.approx(4)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    for kind in (FullValidation, SubsetValidation):
        with pytest.raises(ValueError, match=r"^every_n_steps=0 "):
            kind(Run(tmp_path), every_n_steps=0)
        with pytest.raises(ValueError, match=r"^hybrid=true .* validation\.bm25=true"):
            kind(Run(tmp_path), hybrid=True, bm25=False)
