"""Checks within an epoch: when they come, which is best, exactly resumed, found by other callbacks, and their cost."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from killing import assert_same_weights, killed_after, untimed
from lightning.pytorch.callbacks import Callback
from training import checkpoint, rows_with

from two_tower.callbacks import speed
from two_tower.callbacks.speed import Speed
from two_tower.run import Run
from two_tower.validation.full import FullValidation
from two_tower.validation.subset import SubsetValidation

Fixture = Callable[..., Any]  # see conftest.py in this folder

BATCHES = 5  # of an epoch
WILD = ["tower.dim=32", "optimizer.lr=0.3", "scheduler=none"]


def kept(run: Path) -> dict[str, Any]:
    return next(state for name, state in checkpoint(run)["callbacks"].items() if name.endswith("Validation"))


@pytest.mark.parametrize(
    ("every", "option", "expected"),
    [
        (2, "+trainer.accumulate_grad_batches=2", [(2, 0.8), (3, 1), (4, 1.4), (6, 2)]),  # of 2, 2 and 1 batches
        (4, "trainer.max_steps=8", [(4, 0.8), (5, 1), (8, 1.6)]),
        (3, "trainer.max_steps=8", [(3, 0.6), (5, 1), (6, 1.2), (8, 2)]),
    ],
)
def test_checks_come_when_they_are_due_and_never_twice(
    every: int, option: str, expected: list[tuple[int, float]], fit: Fixture, tmp_path: Path
) -> None:
    results = fit(tmp_path / "run", "validation.bm25=false", f"validation.every_n_steps={every}", option)
    found = [(row["step"], row["epoch"]) for row in kept(tmp_path / "run")["history"]]
    assert found == [(step, pytest.approx(epoch)) for step, epoch in expected]
    assert [int(row["step"]) + 1 for row in rows_with("val/mrr@10", tmp_path / "run")] == [step for step, _ in expected]
    assert results["epochs"] == 2


def test_the_best_check_is_the_checkpoint_and_the_ranking_and_the_cost_is_told(
    fit: Fixture, by_loops: Fixture, run_file: Fixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["validation.every_n_steps=1", "validation.monitor=ndcg@10", "trainer.log_every_n_steps=1"]
    results = fit(tmp_path / "run", *options, "scheduler=none", "optimizer.lr=0.2", "validation.hybrid=true")
    rows, history = rows_with("val/mrr@10", tmp_path / "run"), kept(tmp_path / "run")["history"]
    values = [float(row["val/ndcg@10"]) for row in rows]
    assert len(values) == 2 * BATCHES
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
    assert "| epoch 2 |" in page

    assert [row["loss"] for row in history] == [float(row["train/loss"]) for row in rows]
    assert len({row["loss"] for row in history}) == len(history)
    spent, whole = results["validation/seconds"], results["seconds"]
    assert sum(row["seconds"] + row["hybrid_seconds"] for row in history) < spent < whole
    sentence = f"Validation took {spent:.0f} s of {whole:.0f} s ({100 * spent / whole:.0f} %)."
    assert sentence in told
    assert sentence in page.splitlines()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["validation/seconds"] == spent


PLATEAU = ["scheduler=plateau", "scheduler.patience=0"]


@pytest.mark.parametrize(
    ("options", "hook", "step"),
    [
        ([*WILD, "validation.hybrid=true", "validation=subset", "validation.sample=40"], "on_train_batch_end", 4),
        ([*WILD, "callbacks.last.every_seconds=1000"], "on_train_batch_end", 8),  # from epoch 1 again
        (PLATEAU, "on_train_batch_end", 7),  # between two checks
        (PLATEAU, "on_train_epoch_end", 5),
        (["+trainer.accumulate_grad_batches=2"], "on_train_batch_end", "batch 8"),  # the first of two
        (["trainer.max_steps=8"], "on_train_batch_end", 8),  # the last step, which is checked; nothing is left to train
        (["trainer.max_steps=9"], "on_train_batch_end", 9),
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
        found.append((ranking, [untimed(row) for row in [*history, *rows_with("step", run)]]))
    assert found[0] == found[1]


class Listener(Callback):
    seen: list[tuple[str, int, str, bool]]  # what the validation says in each hook

    def __init__(self, validation: FullValidation) -> None:
        self.validation = validation
        Listener.seen = []

    def _note(self, hook: str, trainer: Any) -> None:  # noqa: ANN401
        v = self.validation
        if v.just_evaluated:
            assert v.latest.means == {name: v.history[-1][name] for name in v.metrics}
        Listener.seen.append((hook, trainer.global_step, v.latest_name, v.just_evaluated))

    def on_train_start(self, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        v = self.validation
        assert v.latest is None
        assert (v.baseline.means, v.bm25_evaluation.means) == (v.untrained, v.bm25)
        assert (len(v.corpus), len(v.queries_split)) == (120, 20)
        self._note("start", trainer)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        self._note("batch", trainer)

    def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        self._note("epoch", trainer)


def test_other_callbacks_find_each_check_once(fit: Fixture, tmp_path: Path) -> None:
    """Also the one that is due after a step and at the end of the epoch."""
    options = ["validation.every_n_steps=2", "+trainer.accumulate_grad_batches=2"]
    fit(tmp_path / "run", f"+callbacks.listener._target_={__name__}.Listener", *options)
    fresh = [("batch", 2, "step 2"), ("epoch", 3, "epoch 1"), ("batch", 4, "step 4"), ("batch", 6, "epoch 2")]
    assert [seen[:3] for seen in Listener.seen if seen[3]] == fresh
    latest = ["untrained"] * 4 + ["step 2"] * 2 + ["epoch 1"] * 2 + ["step 4"] * 3 + ["epoch 2"] * 2
    assert [seen[2] for seen in Listener.seen] == latest


def test_the_speed_of_training_is_without_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 1 second, a check 10; the run is killed within an epoch and continued."""
    clock, validation = SimpleNamespace(now=1000.0), SimpleNamespace(overhead_seconds=0.0)
    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def check() -> None:
        clock.now += 10
        validation.overhead_seconds += 10

    def start(watch: Any) -> Any:  # noqa: ANN401
        trainer = SimpleNamespace(callbacks=(validation, watch), world_size=1, loggers=())
        watch.on_fit_start(trainer, None)
        check()
        watch.on_train_start(trainer, None)
        return trainer

    def step(watch: Any, times: int, checked: bool = False) -> None:  # noqa: ANN401
        for _ in range(times):
            clock.now += 1
            if checked:
                check()
            watch.on_train_batch_end(trainer, None, None, range(4), 0)

    one, two = Speed(), Speed()
    trainer = start(one)
    one.on_train_epoch_start(trainer, None)
    step(one, 3)
    step(one, 2, checked=True)
    assert (one.seconds, one.training_seconds) == (35, 5)

    two.load_state_dict(one.state_dict())
    clock.now += 500
    trainer = start(two)
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
