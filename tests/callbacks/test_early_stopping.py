"""Training ends after the check that Lightning's own rule would choose, and stays ended when it is continued."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from killing import assert_same_weights, killed_after, untimed
from lightning.pytorch import callbacks as library
from test_train import STEPS_PER_EPOCH, fit
from training import checkpoint, rows_with

from two_tower.callbacks.early_stopping import EarlyStopping
from two_tower.errors import UserError
from two_tower.run import Run
from two_tower.validation.full import FullValidation

STOP = ["callbacks=early_stopping", "callbacks.early_stopping.patience=2"]
# Such steps are too large: it gets better and worse by chance.
WILD = ["optimizer.lr=1", "scheduler=none", "trainer.max_epochs=6"]


def stopping(**options: Any) -> EarlyStopping:  # noqa: ANN401
    return EarlyStopping(FullValidation(Run(Path("none"))), **options)


def checked(callback: EarlyStopping, values: list[float]) -> int | None:
    """After how many of these checks training was stopped."""
    trainer: Any = SimpleNamespace(should_stop=False, strategy=SimpleNamespace(broadcast=lambda value: value))
    for number, value in enumerate(values, start=1):
        trainer.global_step, trainer.callback_metrics = 10 * number, {callback.monitor: torch.tensor(value)}
        callback.validation.history.append({"epoch": number / 2, "step": 10 * number})
        for fresh in (True, False):  # a second look at the same check changes nothing
            callback.validation.just_evaluated = fresh
            callback.on_train_batch_end(trainer, SimpleNamespace(figures={}))
        if trainer.should_stop:
            return number
    return None


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, float("nan"), float("inf")]), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.15]),
    st.sampled_from(["max", "min"]),
)
def test_rule_is_lightnings(values: list[float], patience: int, min_delta: float, mode: Literal["max", "min"]) -> None:
    theirs = library.EarlyStopping("x", min_delta, patience, mode=mode)
    ends = (n for n, v in enumerate(values, 1) if theirs._evaluate_stopping_criteria(torch.tensor(v))[0])
    expected = next(ends, None)
    callback = stopping(patience=patience, min_delta=min_delta, mode=mode)
    assert checked(callback, values) == expected
    assert callback.stopped_at == (expected and 10 * expected)
    assert bool(callback.reason) == (expected is not None)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=2, max_size=12), st.data())
def test_a_continued_count_is_the_same(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(values) - 1))
    whole, one, two = (stopping(patience=2) for _ in range(3))
    expected = checked(whole, values)
    first = checked(one, values[:cut])
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))  # plain values
    if first is None:
        rest = checked(two, values[cut:])
        assert expected == (rest and rest + cut)
        assert bool(two.reason) == bool(whole.reason)
    else:
        assert two.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("options", "values", "reason"),
    [
        ({"patience": 1}, [0.3, 0.25], "epoch 1: val/mrr@10 was not above 0.3 (step 10) in the last check."),
        ({"monitor": "train/loss", "min_delta": 0.1, "patience": 2}, [1.0, 0.95, 0.91],
         "step 30: train/loss was not below 1 (step 10) by more than 0.1 in the last 2 checks."),
        ({"monitor": "train/loss"}, [float("nan")], "step 10: train/loss is nan."),
    ],
)  # fmt: skip
def test_it_says_why(options: dict[str, Any], values: list[float], reason: str) -> None:
    callback = stopping(**options)
    assert checked(callback, values) == len(values)
    assert callback.reason == f"Stopped early after {reason}"


def test_the_name_says_which_way_is_better() -> None:
    for monitor, mode in (("val/ndcg@10", "max"), ("train/dim_8/loss", "min"), ("train/accuracy", "max")):
        assert stopping(monitor=monitor).mode == mode
        assert stopping(monitor=monitor, mode="max").mode == "max"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"monitor": "val/mrr@1"}, r"^monitor=val/mrr@1 is not logged; did you mean 'val/mrr@10'\?"),
        ({"monitor": "mrr@10"}, r"did you mean 'val/mrr@10'\? \(valid: train/loss, val/mrr, val/mrr@10"),
        ({"monitor": "train/temperature"}, r"does not say which way is better: set .*\.mode=max or min"),
        ({"patience": 0}, "^patience=0 must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        stopping(**options)


def test_a_figure_that_training_does_not_have_is_told_after_the_first_step(collection: Path, tmp_path: Path) -> None:
    wrong = ["callbacks.early_stopping.monitor=train/los", "callbacks.early_stopping.mode=min"]
    with pytest.raises(UserError, match=r"early_stopping\.monitor=train/los is not logged; .*'train/loss'\?"):
        fit(collection, tmp_path / "run", *STOP, *wrong, "callbacks.last.every_seconds=0")
    assert not (tmp_path / "run").exists()  # so that the corrected command may use the folder


RUNS = {
    "epochs": [],
    "steps": ["validation.every_n_steps=2", "optimizer.lr=1e-30"],  # nothing is learnt: stops after 4 of 5 steps
    "loss": ["validation.every_n_steps=3", "callbacks.early_stopping.monitor=train/loss"],
}


@pytest.mark.parametrize(
    ("kind", "hook", "killed_at"),
    [
        ("epochs", "on_train_epoch_end", "stop"),  # there is nothing left to do but to write the results
        ("steps", "on_train_batch_end", "stop"),  # before the epoch, which is cut short, has ended
        ("loss", "on_train_batch_end", 4),
        ("loss", "on_train_epoch_end", "stop"),
    ],
)
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    kind: str, hook: str, killed_at: int | str, collection: Path, tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = [*WILD, *STOP, "callbacks.last.every_seconds=0", "trainer.log_every_n_steps=1", *RUNS[kind]]
    base.append("callbacks.early_stopping.patience=1")
    path = tmp_path_factory.getbasetemp() / kind
    whole = fit(collection, path, *base)  # does nothing where an earlier case has trained it
    end = whole["stopped_at_step"]
    assert end == 4 if kind == "steps" else end < 6 * STEPS_PER_EPOCH
    assert [int(row["step"]) for row in rows_with("train/loss", path)] == list(range(end))
    assert whole["epochs"] == -(-end // STEPS_PER_EPOCH)
    assert "Stopped early after " in (path / "report.md").read_text()
    cut = tmp_path_factory.mktemp("cut") / "run"
    step = end if killed_at == "stop" else killed_at
    with killed_after(hook, lambda trainer: trainer.global_step == step):
        fit(collection, cut, *base)
    capsys.readouterr()
    again = fit(collection, cut, *base)
    assert capsys.readouterr().out.count("Stopped early after ") == 1
    assert untimed(again) == untimed(whole)
    for column in ("train/loss", "val/mrr@10", "train/triplets_per_second"):
        steps = [[row["step"] for row in rows_with(column, run)] for run in (cut, path)]
        assert steps[0] == steps[1]
    assert_same_weights(path, cut)


def test_a_figure_of_training_is_that_of_the_step_whether_it_is_logged_or_not(collection: Path, tmp_path: Path) -> None:
    def stopped(every: int) -> int:
        monitor = "callbacks.early_stopping.monitor=train/accuracy"
        more = [*WILD, *STOP, "validation.every_n_steps=3", monitor, f"trainer.log_every_n_steps={every}"]
        return fit(collection, tmp_path / f"{every}", *more)["stopped_at_step"]

    assert stopped(1) == stopped(10) < 6 * STEPS_PER_EPOCH


def test_a_hybrid_metric_may_decide_and_a_run_that_gets_better_goes_on(collection: Path, tmp_path: Path) -> None:
    options = ["validation.hybrid=true", "callbacks.early_stopping.monitor=hybrid/mrr@10", *STOP]
    results = fit(collection, tmp_path / "run", *options)
    assert results["hybrid/mrr@10"] > 0
    assert "stopped_at_step" not in results
    assert results["epochs"] == 2
    assert "Stopped" not in (tmp_path / "run" / "report.md").read_text()
    state = checkpoint(tmp_path / "run")["callbacks"]
    values = [row["hybrid/mrr@10"] for row in state["FullValidation"]["history"]]
    assert state["EarlyStopping"]["best"] == pytest.approx(max(values), abs=1e-6)
