"""What a run says: for people, nothing but warnings, or one document for programs."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import rich
from conftest import configure
from forked import run_forked
from rich.console import Console

from train import train
from two_tower.callbacks.speed import TrainingProgress, _total_batches
from two_tower.console import on_terminal, print_document, say, set_mode, show_log


def options(collection: Path) -> list[str]:
    return ["train.py", "data=beir", f"data.path={collection}", "trainer=cpu", "tower.dim=8", "data.batch_size=32",
            "trainer.max_epochs=1", "run_dir=run"]  # fmt: skip


def test_json_is_one_document_and_nothing_else(collection: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a complete run says the same
        done = run_forked(*options(collection), "console=json", cwd=tmp_path)
        assert done.status == 0
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert json.loads(done.out) == {"run_dir": "run", **results}
        assert "two-tower search" in done.err or "nothing to do" in done.err


def test_quiet_says_nothing_but_warnings(collection: Path, tmp_path: Path) -> None:
    done = run_forked(*options(collection), "console=quiet", cwd=tmp_path)
    assert (done.status, done.out) == (0, "")
    assert all(line.startswith("Warning: ") for line in done.err.splitlines())
    assert run_forked(*options(collection), cwd=tmp_path).out.count("nothing to do") == 1  # no other configuration


def test_warnings_are_heard_in_every_mode(capfd: pytest.CaptureFixture[str]) -> None:
    show_log()
    heard = {}
    for mode in ("normal", "quiet", "json"):
        set_mode(mode)  # type: ignore[arg-type]
        logging.getLogger("two_tower.x").warning("look at %s", "this")
        logging.getLogger("two_tower.x").info("beside")
        say("for people")
        print_document({"a": 1.5, "b": float("nan")})
        heard[mode] = capfd.readouterr()
    assert heard["normal"] == ("Warning: look at this\nbeside\nfor people\n", "")
    assert heard["quiet"] == ("", "Warning: look at this\n")
    assert heard["json"] == ('{"a": 1.5, "b": null}\n', "Warning: look at this\nbeside\nfor people\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A terminal 150 wide; what it has shown so far."""
    console = Console(force_terminal=True, width=150, record=True)
    monkeypatch.setattr(rich, "_console", console)
    return lambda: console.export_text(clear=False)


def test_the_line_of_a_run_tells_speed_and_time_left(
    collection: Path, tmp_path: Path, terminal: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    original = TrainingProgress.on_train_batch_end

    def show(self: TrainingProgress, *args: Any) -> None:  # noqa: ANN401
        original(self, *args)
        assert self._bar is not None
        self._bar.refresh()
        console = Console(width=150, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(self._bar.get_renderable())
        lines.append(console.export_text().strip())

    monkeypatch.setattr(TrainingProgress, "on_train_batch_end", show)
    assert on_terminal()
    train(configure(collection, tmp_path / "run", "trainer.log_every_n_steps=1"))
    assert lines[-1].startswith("Epoch 2 of 2 ")
    assert "batch 5 of 5" in lines[-1]
    assert "triplets/s" in lines[-1]
    assert "loss 0." in lines[-1] or "loss 1." in lines[-1] or "loss 2." in lines[-1]
    assert " left " in lines[-1]
    assert "batch 1 of 5" in lines[0]
    assert "Validation: " in terminal()


def test_a_run_without_an_end_has_no_time_left() -> None:
    trainer = L.Trainer(max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert _total_batches(trainer) is None
    trainer = L.Trainer(max_steps=7, accumulate_grad_batches=3, logger=False, enable_checkpointing=False)
    trainer.fit_loop.max_epochs = -1
    assert _total_batches(trainer) == 21
