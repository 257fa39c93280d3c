"""What W&B wrote offline, read back: everything is there, once, under one id, however often a run is interrupted."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import Killed, killed_after
from test_train import STEPS_PER_EPOCH, fit
from wandb_files import WandbRun, wandb_runs

from embed import embed
from two_tower.callbacks.checkpoint import LastCheckpoint
from two_tower.errors import UserError
from two_tower.files import finite
from two_tower.logger import make_loggers
from two_tower.logger.csv import CsvLogger
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES, Progress, WandbLogger
from two_tower.run import Run, environment

OPTIONS = ["logger=wandb", "trainer.log_every_n_steps=2"]
FLAT = {"_target_": "two_tower.index.faiss.FlatIndex"}
STEPS = 2 * STEPS_PER_EPOCH
LOSS_STEPS = list(range(1, STEPS, 2))
EPOCH_STEPS = list(range(STEPS_PER_EPOCH - 1, STEPS, STEPS_PER_EPOCH))


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's W&B settings."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def only(folder: Path) -> WandbRun:
    (run,) = wandb_runs(folder)
    return run


@pytest.fixture(scope="module")
def finished(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model is an artifact, and whose learning rate is too high."""
    path = tmp_path_factory.mktemp("finished") / "run"
    fit(collection, path, *OPTIONS, "logger.artifacts=true", "optimizer.lr=3")
    return path


@pytest.fixture
def archived(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_is_written_down_without_account_or_chatter(
    collection: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    results = fit(collection, path, *OPTIONS, "logger.tags=[one,two]")
    run = only(path)
    assert run.exit_code == 0
    assert run.config["tower"]["dim"] == 16
    assert run.config["data"]["path"] == str(collection)
    assert run.steps("train/loss") == LOSS_STEPS
    assert run.steps("val/mrr@10") == EPOCH_STEPS
    assert run.steps("untrained/mrr@10") == run.steps("bm25/mrr@10") == [0]
    assert max(row.get("val/mrr@10", 0) for row in run.history) == results["val/mrr@10"]
    with (path / "metrics.csv").open() as file:  # always written, with the same figures
        for row in csv.DictReader(file):
            (same,) = [found for found in run.history if found["trainer/global_step"] == int(row["step"])]
            assert all(float(v) == same[k] for k, v in row.items() if k != "step" and v)
    out, err = capfd.readouterr()
    assert f"wandb sync {path}/wandb/offline-run-*" in " ".join(out.split("\n"))
    assert f"wandb leet {path}/wandb" in " ".join(out.split("\n"))
    assert "wandb:" not in out + err
    assert run.config["choice"]["tower"] == "average"
    assert run.config["environment"]["packages"]["torch"] == torch.__version__
    assert run.config["environment"]["git"] == environment()["git"]
    # The summary shows the best check, not the last one, and all other results.
    assert {key: run.summary[key] for key in results} == finite(results)
    assert run.summary["doctor/healthy"] in (True, False)
    logged = {key for row in run.history for key in row}
    assert {f"{kind}/{m}" for kind in ("val", "untrained", "bm25") for m in ("mrr", "recall@1", "ndcg@10")} < logged
    assert {"train/loss", "train/accuracy", "train/learning_rate", "train/triplets_per_second", "epoch"} < logged
    rates = [row["train/learning_rate"] for row in run.history if "train/learning_rate" in row]
    assert max(rates) < 1.01 * run.config["optimizer"]["lr"]  # not that of the word tables, which is four times as high
    assert rates == sorted(rates, reverse=True)
    assert run.tags == ["one", "two"]
    embedded(path)
    assert artifact_types(only(path)) == []  # without the switch nothing is kept


def test_the_doctor_s_warning_is_an_alert_and_its_figures_are_in_the_summary(finished: Path) -> None:
    run = only(finished)
    assert (run.alerts[0].title, run.alerts[0].level) == ("learning_rate_too_high", "WARN")
    assert "Try: optimizer.lr=" in run.alerts[0].text
    assert run.summary["doctor/healthy"] is False
    assert "learning_rate_too_high" in run.summary["doctor/found"]
    assert run.summary["doctor/findings"] >= 1  # how many, as in results.json
    assert run.summary["doctor/effective_rank"] > 1


def test_histograms_of_similarities_are_those_of_the_doctor(finished: Path) -> None:
    run, signals = only(finished), json.loads((finished / "signals.json").read_text())
    for kind in ("positive", "negative"):
        name = f"doctor/{kind}_similarities"
        drawn = {row["trainer/global_step"]: row for row in run.history if f"{name}/values" in row}
        wanted = {probe["step"] - 1: probe for probe in signals["probes"]}
        assert drawn.keys() == wanted.keys()
        for step, probe in wanted.items():
            assert drawn[step][f"{name}/_type"] == "histogram"
            assert drawn[step][f"{name}/values"] == probe[f"{kind}s"]
            bins = drawn[step][f"{name}/bins"]
            assert bins == pytest.approx(np.linspace(*probe["limits"], len(probe[f"{kind}s"]) + 1))


def artifact_types(run: WandbRun) -> list[str]:
    return [made.type for made in run.artifacts if made.type != "run_table"]  # which W&B makes of a table


def leaves(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    """``key/key`` → value: W&B writes nested values in several ways."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{place}{key}/") if isinstance(value, dict) else {place + key: value}
    return found


def embedded(path: Path, **index: object) -> None:
    embed({"run": str(path), "output": None, "data": None, "index": FLAT | index, "shard_rows": 100})


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail


def test_artifacts_are_found_from_any_folder_and_not_copied(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(collection, Path("run"), *OPTIONS, "logger.artifacts=true")
    embedded(Path("run"))
    kept = [entry for run in wandb_runs(Path("run")) for made in run.artifacts for entry in made.manifest.contents]
    ours = [entry for entry in kept if not entry.path.endswith(".table.json")]
    assert {Path(entry.local_path) for entry in ours} == {
        tmp_path / "run" / name for name in ("checkpoints/best.ckpt", "tokenizer.json", "config.yaml")
    } | {path for path in (tmp_path / "run" / "index").rglob("*") if path.is_file()}
    assert all(entry.skip_cache for entry in ours)


def test_an_index_is_kept_once_also_by_the_next_command_and_with_the_summary(
    archived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # killed after the index was made
        patch.setattr(WandbLogger, "archive", failing(Killed()))
        with pytest.raises(Killed):
            embedded(archived)
    for _ in range(2):  # there is nothing to do, but for the artifact
        embedded(archived)
    first, second = wandb_runs(archived)
    assert [artifact_types(run) for run in (first, second)] == [["model"], ["index"]]
    results = json.loads((archived / "results.json").read_text())
    for run in (first, second):
        assert {key: run.summary[key] for key in results} == results
    # A sync replaces the whole summary: tables, histograms and the doctor's figures must not be lost with it.
    whole, kept = leaves(first.summary), leaves(second.summary)
    assert {f"{SAMPLES}/path", f"{HISTOGRAMS[0]}/values", "doctor/healthy", "train/loss"} <= whole.keys()
    assert {key: kept.get(key) for key in whole if key[0] != "_"} == {k: v for k, v in whole.items() if k[0] != "_"}
    embedded(archived, sample=5)
    assert [artifact_types(run) for run in wandb_runs(archived)] == [["model"], ["index"], ["index"]]


def test_an_index_is_made_also_where_it_cannot_be_uploaded(archived: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = archived / "config.yaml"
    config.write_text(config.read_text().replace("offline: true", "offline: false"))
    embedded(archived)
    assert "The index is no artifact of its run: logger.offline=false" in capsys.readouterr().out
    assert (archived / "index" / "index.faiss").exists()


def test_a_run_that_is_not_complete_is_not_ended_by_its_index(
    archived: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archived / "results.json").unlink()
    embedded(archived)
    assert "The index is no artifact of its run" in capsys.readouterr().out
    assert artifact_types(only(archived)) == ["model"]


def test_what_the_server_cannot_be_asked_about_is_left_out(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def log_artifact(self: wandb.Run, artifact: wandb.Artifact, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        tried.append(artifact.type)  # of a table as well
        raise wandb.errors.AuthenticationError("no connection")

    monkeypatch.setattr(wandb.Run, "log_artifact", log_artifact)
    fit(collection, tmp_path / "run", *OPTIONS, "logger.artifacts=true")
    run = only(tmp_path / "run")
    assert run.exit_code == 0
    assert run.steps("val/mrr@10") == EPOCH_STEPS
    assert run.steps("val/samples/path") == []
    assert tried == ["run_table", "model"]  # later tables would wait for the server as long
    shown = capsys.readouterr().out
    assert "Warning: W&B does not take tables any more: no connection" in shown
    assert "Warning: W&B does not take the model: no connection" in shown


def test_tables_end_where_the_server_does_not_answer(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("two_tower.logger.wandb.SECONDS_FOR_TABLES", 0.0)
    fit(collection, tmp_path / "run", *OPTIONS)
    assert capsys.readouterr().out.count("W&B does not take tables any more: its server does not answer") == 1
    assert only(tmp_path / "run").steps("val/mrr@10") == EPOCH_STEPS


def ended(logger: WandbLogger) -> None:
    logger.log_hyperparams({})
    logger.finalize("success")
    logger.close()


def test_a_run_without_a_checkpoint_ends_well(tmp_path: Path) -> None:
    ended(WandbLogger(Run(tmp_path), artifacts=True))
    assert only(tmp_path).exit_code == 0


def test_each_check_has_its_table_of_sample_queries(finished: Path) -> None:
    run = only(finished)
    assert run.steps("val/samples/path") == EPOCH_STEPS
    names = []
    for row in run.history:
        if "val/samples/path" in row:
            table = json.loads((run.path / "files" / row["val/samples/path"]).read_text())
            assert table["columns"][:4] == ["check", "query", "rank", "before"]
            assert len(table["data"]) == 5
            names.append({cells[0] for cells in table["data"]})
    assert names == [{"epoch 1"}, {"epoch 2"}]


# In the second epoch: just after a checkpoint; three steps after it, so that these are done again.
@pytest.mark.parametrize(("seconds", "killed_at"), [(0, 7), (1000, 8)])
def test_a_continued_run_keeps_its_id_and_repeats_nothing(
    seconds: int, killed_at: int, collection: Path, tmp_path: Path
) -> None:
    path, often = tmp_path / "run", f"callbacks.last.every_seconds={seconds}"
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == killed_at):
        fit(collection, path, *OPTIONS, often)
    wandb.teardown()  # as at the end of the process
    fit(collection, path, *OPTIONS, often)
    runs = wandb_runs(path)
    assert [run.exit_code for run in runs] == [1, 0]
    assert runs[0].id == runs[1].id
    assert all(run.history for run in runs)
    for name, steps in (("train/loss", LOSS_STEPS), ("val/mrr@10", EPOCH_STEPS), ("untrained/mrr", [0])):
        assert [step for run in runs for step in run.steps(name)] == steps, name
    rows = [row["_step"] for run in runs for row in run.history]
    assert rows == sorted(set(rows))
    assert leaves(runs[0].summary).keys() - {"_wandb/runtime"} <= leaves(runs[1].summary).keys()


def test_two_jobs_of_a_process_are_two_runs(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_epoch_end", failing(RuntimeError("something in training")))
        with pytest.raises(RuntimeError, match="something in training"):
            fit(collection, tmp_path / "one", *OPTIONS)
    fit(collection, tmp_path / "two", *OPTIONS, "seed=1")
    one, two = only(tmp_path / "one"), only(tmp_path / "two")
    assert (one.exit_code, two.exit_code) == (1, 0)
    assert one.id != two.id
    assert (one.config["seed"], two.config["seed"]) == (0, 1)
    assert one.steps("val/mrr") == EPOCH_STEPS[:1]
    assert two.steps("val/mrr") == EPOCH_STEPS


def test_a_run_whose_results_are_not_written_is_marked_as_failed(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("two_tower.report.results.write_json", failing(OSError("No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            fit(collection, tmp_path / "run", *OPTIONS)
    assert only(tmp_path / "run").exit_code == 1
    results = fit(collection, tmp_path / "run", *OPTIONS)  # the same command again
    first, second = wandb_runs(tmp_path / "run")
    assert (first.id, second.exit_code) == (second.id, 0)
    assert {key: second.summary[key] for key in results} == finite(results)


def test_what_a_killed_process_logged_is_there(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from two_tower.logger.wandb import WandbLogger; from two_tower.run import Run\n"
        "logger = WandbLogger(Run(Path(sys.argv[1])))\n"
        "for step in (4, 9, 14): logger.log_metrics({'train/loss': step / 10}, step)\n"
        "time.sleep(120)"
    )
    wandb.teardown()  # a process of its own has its own service
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT) as process:
        written: list[WandbRun] = []
        while process.poll() is None and not (written and len(written[0].history) == 2):
            time.sleep(0.05)  # W&B's own process writes what it was handed a moment later
            written = wandb_runs(tmp_path, ended=0)
        process.kill()
    assert process.returncode == -9
    logger = WandbLogger(Run(tmp_path))
    for step in (9, 14, 19):  # 14 was not handed over yet
        logger.log_metrics({"train/loss": step / 10}, step)
    logger.finalize("success")
    logger.close()
    first, second = wandb_runs(tmp_path, ended=1)
    assert first.id == second.id
    assert (first.exit_code, second.exit_code) == (None, 0)
    assert [row["train/loss"] for row in (*first.history, *second.history)] == [0.4, 0.9, 1.4, 1.9]


CALLS = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 30), st.sets(st.sampled_from("abc"), min_size=1))), max_size=25
)


@settings(max_examples=6)
@given(calls=CALLS)
def test_nothing_is_dropped_in_whatever_order_it_comes(
    calls: list[tuple[int, set[str]] | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A call is a step and the names of its values, or a flush (None)."""
    path = tmp_path_factory.mktemp("run")
    logger, expected = WandbLogger(Run(path)), set()
    for call in calls:
        if call is None:
            logger.flush()
        else:
            step, names = call
            logger.log_metrics(dict.fromkeys(names, 1.0), step)
            expected |= {(step, name) for name in names}
    ended(logger)
    history = only(path).history
    assert {(row["trainer/global_step"], name) for row in history for name in row if name in "abc"} == expected
    rows = [row["_step"] for row in history]
    assert rows == sorted(set(rows))


@pytest.mark.parametrize("key", [None, "too short"])
def test_uploading_needs_an_account_and_never_asks(
    key: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises((ValueError, UserError), match="offline=false"):
        WandbLogger(Run(tmp_path / "run"), offline=False)
    assert not (tmp_path / "run").exists()


def test_csv_is_always_written_and_only_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (alone,) = make_loggers({"_target_": "two_tower.logger.csv.CsvLogger"}, run)
    assert isinstance(alone, CsvLogger)
    history, chosen = make_loggers({"_target_": "two_tower.logger.wandb.WandbLogger", "offline": True}, run)
    assert isinstance(history, CsvLogger)
    assert isinstance(chosen, WandbLogger)


@settings(max_examples=25)
@given(st.from_regex(r"[0-9a-f]{8}", fullmatch=True), st.integers(-1, 10**15), st.integers(-1, 10**15))
def test_progress_reads_back(tmp_path_factory: pytest.TempPathFactory, name: str, row: int, step: int) -> None:
    path = tmp_path_factory.getbasetemp() / "progress.txt"
    progress = Progress(name, row, step)
    progress.write(path)  # over another one, longer or shorter
    assert Progress.read(path) == progress
