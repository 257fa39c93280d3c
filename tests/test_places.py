"""Where it runs: without a home, without room, on other terminals, under a scheduler's variables."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import composed, configure

from two_tower import places
from two_tower.assemble import make_trainer, try_parts
from two_tower.errors import UserError, exit_statuses, naming, printable
from two_tower.files import json_line, write_text
from two_tower.run import Run
from two_tower.train import train
from two_tower.validation.full import FullValidation


def test_a_home_that_can_be_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    places.use_writable_places()
    assert os.environ["HOME"] == str(tmp_path)
    assert not any(name.startswith("XDG_") for name in os.environ if name.endswith(("CACHE_HOME", "DATA_HOME")))


def test_of_a_home_that_can_only_be_read_the_caches_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(places, "temporary_folder", lambda: tmp_path / "mine")
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(home))
    places.use_writable_places()
    assert os.environ["HOME"] == str(home)  # credentials are read from it
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "mine" / ".cache")


@pytest.mark.parametrize(
    "number", [errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG, errno.EMFILE, errno.EIO, errno.EACCES]
)
def test_what_the_machine_refuses_is_one_sentence(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exit_statuses():
        raise OSError(number, os.strerror(number), "/some/file")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"/some/file cannot be used: {os.strerror(number)}")


def test_an_error_in_words_only_is_a_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_statuses():
        raise PermissionError("Unable to write to /x")
    assert capsys.readouterr().err == "Unable to write to /x.\n"


def test_a_full_disk_is_called_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="file") as raised, naming(tmp_path / "file"):
        raise OSError("600 requested and 496 written")  # numpy's
    assert raised.value.filename == str(tmp_path / "file")
    with pytest.raises(ZeroDivisionError), naming(tmp_path / "file"):
        _ = 1 / 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left") as raised, naming(tmp_path / "file"):
        raise RuntimeError("write error in file: 16339 != 25600")  # faiss's
    assert raised.value.filename == str(tmp_path / "file")
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="No space left") as raised, naming(tmp_path / "f"):
            Path("/dev/full").write_text("x")
        assert raised.value.filename


def test_a_bug_stays_a_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exit_statuses():
        _ = 1 / 0


@pytest.mark.parametrize("text", ["plain", "caf\udce9", "\ud83d", "数\udcff"])
def test_text_that_is_none_can_be_printed(text: str) -> None:
    assert printable(text).encode("utf-8")
    assert printable("plain") == "plain"
    file = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    assert json.loads(json_line({"a": "数 é"}, file)) == {"a": "数 é"}


REFUSED = ["overfit_batches=1", "val_check_interval=50", "limit_val_batches=2", "precision=64-true",
           "precision=16-true", "precision=bf16-true", "strategy=ddp",
           "limit_train_batches=0", "accumulate_grad_batches=0", "num_nodes=2", "model_registry=x",
           "logger=false", "enable_checkpointing=false"]  # fmt: skip


@pytest.mark.parametrize("setting", REFUSED)
def test_a_key_of_the_trainer_that_cannot_work_is_refused_by_name(
    collection: Path, tmp_path: Path, setting: str
) -> None:
    key = setting.partition("=")[0]
    sign = "" if key == "precision" else "+"
    config = configure(collection, tmp_path / "run", f"{sign}trainer.{setting}")
    with pytest.raises(UserError, match=rf"^trainer\.{key}="):
        try_parts(config)


WORKING = ["limit_train_batches=2 accumulate_grad_batches=2 min_epochs=1 profiler=simple deterministic=false",
           "limit_train_batches=0.5 gradient_clip_algorithm=value max_time='00:00:10:00' benchmark=true",
           "precision=bf16-mixed detect_anomaly=true", "fast_dev_run=2"]  # fmt: skip


@pytest.mark.parametrize("keys", WORKING)
def test_the_others_work(collection: Path, tmp_path: Path, keys: str) -> None:
    more = [f"{'' if key.startswith(('precision', 'deterministic')) else '+'}trainer.{key}" for key in keys.split()]
    train(configure(collection, tmp_path / "run", *more, "trainer.max_epochs=1"))
    assert (tmp_path / "run" / "results.json").exists()


def test_a_share_of_the_batches_that_is_none_is_a_sentence(collection: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="limit_train_batches"):
        train(configure(collection, tmp_path / "run", "+trainer.limit_train_batches=0.1", "trainer.max_epochs=1"))


def test_two_devices_average_by_row_without_being_told(collection: Path, tmp_path: Path) -> None:
    config = configure(collection, tmp_path / "run", "trainer.devices=2")
    run = Run(tmp_path / "run")
    trainer = make_trainer(config, run, FullValidation(run))
    assert type(trainer.strategy).__name__ == "RowDDP"


def test_apples_gpu_is_left_alone(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.accelerators import MPSAccelerator

    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    run = Run(tmp_path / "run")
    overrides = ["data=beir", f"data.path={collection}", f"run_dir={tmp_path / 'run'}"]
    trainer = make_trainer(composed(*overrides), run, FullValidation(run))
    assert type(trainer.accelerator).__name__ == "CPUAccelerator"
    with pytest.raises(UserError, match=r"trainer\.accelerator=mps is Apple's GPU .*trainer=cpu"):
        make_trainer(composed(*overrides, "trainer.accelerator=mps"), run, FullValidation(run))


def test_training_leaves_no_handler_and_no_file_behind(collection: Path, tmp_path: Path) -> None:
    """Handlers kept every run of a sweep alive, with its memory and ten files, and swallowed SIGTERM."""
    folder = Path("/proc/self/fd")
    before, files = signal.getsignal(signal.SIGTERM), []
    for number in range(3):
        train(configure(collection, tmp_path / str(number), "trainer.max_steps=2", "validation.bm25=false"))
        assert signal.getsignal(signal.SIGTERM) == before
        gc.collect()
        files.append(len(list(folder.iterdir())) if folder.exists() else 0)
    assert files[-1] <= files[1] + 2, files


def test_text_is_written_whole_or_not(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as raised:
        write_text(tmp_path / ("x" * 300), "text")
    assert raised.value.filename


def test_a_terminal_that_fails_costs_no_results(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise OSError(5, "Input/output error")

    for place in ("callbacks.samples.say", "callbacks.doctor.report"):
        monkeypatch.setattr(f"two_tower.{place}", fail)
        run = tmp_path / place
        with pytest.raises(OSError, match="Input/output error"):
            train(configure(collection, run, "trainer.max_steps=4", "validation.bm25=false"))
        assert (run / "results.json").exists()
        assert (run / "doctor.json").exists()
        monkeypatch.undo()
