"""What W&B wrote offline, read back: everything is there, once, under one id, however often a run is interrupted."""

import csv
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from shutil import which
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import wandb
from forked import FORKS, find_server
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import Killed, killed_after
from test_train import STEPS_PER_EPOCH, fit
from training import embedded, history
from wandb_files import WandbRun, log_until_killed, wandb_runs

from two_tower.errors import UserError
from two_tower.files import finite
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES, Progress, WandbLogger
from two_tower.run import Run, environment

OPTIONS = ["logger=wandb", "trainer.log_every_n_steps=2"]
STEPS = 2 * STEPS_PER_EPOCH
LOSS_STEPS = list(range(1, STEPS, 2))
EPOCH_STEPS = list(range(STEPS_PER_EPOCH - 1, STEPS, STEPS_PER_EPOCH))


def only(folder: Path) -> WandbRun:
    (run,) = wandb_runs(folder)
    return run


@pytest.fixture
def archived(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def artifact_types(run: WandbRun) -> list[str]:
    return [made.type for made in run.artifacts if made.type != "run_table"]  # which W&B makes of a table


def test_a_run_is_written_down(collection: Path, finished: Path) -> None:
    run, results = only(finished), json.loads((finished / "results.json").read_text())
    assert (run.exit_code, run.tags) == (0, ["one", "two"])
    assert run.config["data"]["path"] == str(collection)
    assert run.config["choice"]["tower"] == "average"
    assert run.config["environment"]["packages"]["torch"] == torch.__version__
    assert run.config["environment"]["git"] == environment()["git"]
    assert run.steps("train/loss") == LOSS_STEPS
    assert run.steps("val/mrr@10") == EPOCH_STEPS
    assert run.steps("untrained/mrr@10") == run.steps("bm25/mrr@10") == [0]
    assert max(row.get("val/mrr@10", 0) for row in run.history) == results["val/mrr@10"]
    with (finished / "metrics.csv").open() as file:  # always written, with the same figures
        for row in csv.DictReader(file):
            (same,) = [found for found in run.history if found["trainer/global_step"] == int(row["step"])]
            assert all(float(v) == same[k] for k, v in row.items() if k != "step" and v)
    # The summary shows the best check, not the last one, and all other results.
    assert {key: run.summary[key] for key in results} == results
    logged = {key for row in run.history for key in row}
    assert {f"{kind}/{m}" for kind in ("val", "untrained", "bm25") for m in ("mrr", "recall@1", "ndcg@10")} < logged
    assert {"train/loss", "train/accuracy", "train/learning_rate", "train/triplets_per_second", "epoch"} < logged
    rates = [row["train/learning_rate"] for row in run.history if "train/learning_rate" in row]
    assert max(rates) < 1.01 * run.config["optimizer"]["lr"]  # not that of the word tables, which is four times as high
    assert rates == sorted(rates, reverse=True)


def leaves(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    """``key/key`` → value: W&B writes nested values in several ways."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{place}{key}/") if isinstance(value, dict) else {place + key: value}
    return found


def ended(logger: WandbLogger) -> None:
    logger.log_hyperparams({})
    logger.finalize("success")
    logger.close()


def test_findings_histograms_and_sample_queries_are_those_of_the_run(finished: Path) -> None:
    run, signals = only(finished), json.loads((finished / "signals.json").read_text())
    assert (run.alerts[0].title, run.alerts[0].level) == ("learning_rate_too_high", "WARN")
    assert "Try: optimizer.lr=" in run.alerts[0].text
    assert run.summary["doctor/healthy"] is False
    assert "learning_rate_too_high" in run.summary["doctor/found"]
    assert run.summary["doctor/findings"] >= 1  # how many, as in results.json
    assert run.summary["doctor/effective_rank"] > 1
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
    places = [row["val/samples/path"] for row in run.history if "val/samples/path" in row]
    tables = [json.loads((run.path / "files" / place).read_text()) for place in places]
    assert [{cells[0] for cells in table["data"]} for table in tables] == [{"epoch 1"}, {"epoch 2"}]
    assert run.steps("val/samples/path") == EPOCH_STEPS
    for table in tables:
        assert table["columns"][:4] == ["check", "query", "rank", "before"]
        assert len(table["data"]) == 5


def test_artifacts_are_kept_once_uncopied(archived: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And found from any folder; the summary stays whole."""
    monkeypatch.chdir(archived.parent)
    with monkeypatch.context() as patch:  # killed after the index was made
        patch.setattr(WandbLogger, "archive", Mock(side_effect=Killed()))
        with pytest.raises(Killed):
            embedded(Path("run"))
    for _ in range(2):  # there is nothing to do, but for the artifact
        embedded(Path("run"))
    first, second = wandb_runs(archived)
    assert [artifact_types(run) for run in (first, second)] == [["model"], ["index"]]
    kept = [entry for run in (first, second) for made in run.artifacts for entry in made.manifest.contents]
    ours = [entry for entry in kept if not entry.path.endswith(".table.json")]
    assert {Path(entry.local_path) for entry in ours} == {
        finished / name for name in ("checkpoints/best.ckpt", "tokenizer.json", "config.yaml")
    } | {path for path in (archived / "index").rglob("*") if path.is_file()}
    assert all(entry.skip_cache for entry in ours)
    results = json.loads((archived / "results.json").read_text())
    for run in (first, second):
        assert {key: run.summary[key] for key in results} == results
    # A sync replaces the whole summary: tables, histograms and the doctor's figures must not be lost with it.
    whole, now = leaves(first.summary), leaves(second.summary)
    assert {f"{SAMPLES}/path", f"{HISTOGRAMS[0]}/values", "doctor/healthy", "train/loss"} <= whole.keys()
    assert {key: now.get(key) for key in whole if key[0] != "_"} == {k: v for k, v in whole.items() if k[0] != "_"}
    embedded(Path("run"), sample=5)
    assert [artifact_types(run) for run in wandb_runs(archived)] == [["model"], ["index"], ["index"]]


@pytest.mark.parametrize("problem", ["offline=false", "not complete"])
def test_an_index_is_made_without_artifact(problem: str, archived: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if problem == "offline=false":
        config = archived / "config.yaml"
        config.write_text(config.read_text().replace("offline: true", "offline: false"))
    else:
        (archived / "results.json").unlink()
    embedded(archived)
    assert "The index is no artifact of its run" in capsys.readouterr().out
    assert artifact_types(only(archived)) == ["model"]
    assert (archived / "index" / "index.faiss").exists()


@pytest.mark.parametrize("problem", ["no connection", "its server does not answer"])
def test_what_the_server_cannot_be_asked_about_is_left_out(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def log_artifact(self: wandb.Run, artifact: wandb.Artifact, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        tried.append(artifact.type)  # of a table as well
        raise wandb.errors.AuthenticationError(problem)

    logger, refused = WandbLogger(Run(tmp_path), artifacts=True), problem == "no connection"
    if refused:
        monkeypatch.setattr(wandb.Run, "log_artifact", log_artifact)
    else:
        monkeypatch.setattr("two_tower.logger.wandb.SECONDS_FOR_TABLES", 0.0)
    for step in (4, 9):
        logger.log_metrics({"val/mrr": 0.5, SAMPLES: wandb.Table(columns=["query"], data=[["a"]])}, step)
        logger.flush()
    assert logger.archive("model", [Path(__file__)]) is not refused
    ended(logger)
    run = only(tmp_path)
    assert run.exit_code == 0
    assert run.steps("val/mrr") == [4, 9]
    assert run.steps(f"{SAMPLES}/path") == ([] if refused else [4])
    assert tried == (["run_table", "model"] if refused else [])  # later tables would wait for the server as long
    assert caplog.text.count(f"W&B does not take tables any more: {problem}") == 1
    assert (f"W&B does not take the model: {problem}" in caplog.text) is refused


# In the second epoch: just after a checkpoint; three steps after it, so that these are done again.
@pytest.mark.parametrize(("seconds", "killed_at"), [(0, 7), (1000, 8)])
def test_a_continued_run_repeats_nothing(seconds: int, killed_at: int, collection: Path, tmp_path: Path) -> None:
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


def test_jobs_of_a_process_are_runs_of_their_own_without_chatter_and_a_failed_one_is_continued(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("two_tower.report.results.write_json", Mock(side_effect=OSError("No space left")))
        with pytest.raises(OSError, match="No space left"):
            fit(collection, tmp_path / "one", *OPTIONS)
    fit(collection, tmp_path / "two", *OPTIONS, "seed=1")
    one, two = only(tmp_path / "one"), only(tmp_path / "two")
    assert (one.exit_code, two.exit_code) == (1, 0)
    assert one.id != two.id
    assert (one.config["seed"], two.config["seed"]) == (0, 1)
    assert one.steps("val/mrr") == two.steps("val/mrr") == EPOCH_STEPS
    out, err = capfd.readouterr()
    for command in (f"wandb sync {tmp_path}/two/wandb/offline-run-*", f"wandb leet {tmp_path}/two/wandb"):
        assert command in " ".join(out.split("\n"))
    assert "wandb:" not in out + err
    embedded(tmp_path / "two")
    assert artifact_types(only(tmp_path / "two")) == []  # without the switch nothing is kept
    results = fit(collection, tmp_path / "one", *OPTIONS)  # the same command again
    _, second = wandb_runs(tmp_path / "one")
    assert (second.id, second.exit_code) == (one.id, 0)
    assert {key: second.summary[key] for key in results} == finite(results)


def test_what_a_killed_process_logged_is_there(tmp_path: Path) -> None:
    find_server()
    process = FORKS.Process(target=log_until_killed, args=(tmp_path, (4, 9, 14)))
    process.start()
    written: list[WandbRun] = []
    while process.is_alive() and not (written and len(written[0].history) == 2):
        time.sleep(0.05)  # W&B's own process writes what it was handed a moment later
        written = wandb_runs(tmp_path, ended=0)
    process.kill()
    process.join()
    assert process.exitcode == -9
    logger = WandbLogger(Run(tmp_path))
    for step in (9, 14, 19):  # 14 was not handed over yet
        logger.log_metrics({"train/loss": step / 10}, step)
    logger.finalize("success")
    logger.close()
    first, second = wandb_runs(tmp_path, ended=1)
    assert first.id == second.id
    assert (first.exit_code, second.exit_code) == (None, 0)
    assert [row["train/loss"] for row in (*first.history, *second.history)] == [0.4, 0.9, 1.4, 1.9]


def test_training_goes_on_where_wandb_has_gone(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if which("pkill") is None:
        pytest.skip("needs pkill, to find W&B's own process")
    original = WandbLogger.log_hyperparams

    def killing(self: WandbLogger, *arguments: Any) -> None:  # noqa: ANN401
        original(self, *arguments)
        subprocess.run(["pkill", "-9", "-P", str(os.getpid()), "wandb-core"], check=True)

    with monkeypatch.context() as patch:
        patch.setattr(WandbLogger, "log_hyperparams", killing)
        results = fit(collection, tmp_path / "lost", *OPTIONS)
    said = " ".join(" ".join(capsys.readouterr()).split())
    assert said.count("W&B has gone") == said.count("metrics.csv has all of it") == 1
    assert history(tmp_path / "lost")[-1]
    assert results["val/mrr@10"] >= 0
    fit(collection, tmp_path / "next", *OPTIONS)  # of the same process
    assert only(tmp_path / "next").exit_code == 0


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


def test_uploading_needs_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with pytest.raises((ValueError, UserError), match="offline=false"):
            WandbLogger(Run(tmp_path / "run"), offline=False)
        assert not (tmp_path / "run").exists()
        monkeypatch.setenv("WANDB_API_KEY", "too short")


@settings(max_examples=25)
@given(st.from_regex(r"[0-9a-f]{8}", fullmatch=True), st.integers(-1, 10**15), st.integers(-1, 10**15))
def test_progress_reads_back(tmp_path_factory: pytest.TempPathFactory, name: str, row: int, step: int) -> None:
    path = tmp_path_factory.getbasetemp() / "progress.txt"
    progress = Progress(name, row, step)
    progress.write(path)  # over another one, longer or shorter
    assert Progress.read(path) == progress
