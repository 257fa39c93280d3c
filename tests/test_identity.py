"""A run belongs to its data: what has changed is said, nothing is mixed, and the data is found from any folder."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import composed, configure, write_collection
from filelock import FileLock
from killing import killed_after
from training import state

from two_tower import run as run_module
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.embed import embed
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.evaluation import evaluate_run
from two_tower.examine import examine
from two_tower.loading import make_source
from two_tower.run import Run
from two_tower.tokenizer.base import Tokenizer
from two_tower.train import train
from two_tower.validation._evaluate import rank_split

SMALL = ("tower.dim=8", "data.batch_size=8", "trainer.max_epochs=1", "callbacks.samples.console=never", "trainer=cpu")


def write_pairs(path: Path, first: int = 0, rows: int = 60) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer"])
        writer.writerows(
            [f"what is thing{i} of kind{i % 7}", f"thing{i} is kind{i % 7}"] for i in range(first, first + rows)
        )
    return path


def pairs(path: Path | str, run: Path, *overrides: str) -> dict[str, Any]:
    return composed("data=pairs", f"data.path={path}", *SMALL, f"run_dir={run}", *overrides)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replaced(path: Path) -> None:
    write_pairs(path, first=1000)


def longer(path: Path) -> None:
    write_pairs(path, rows=61)


def shorter(path: Path) -> None:
    write_pairs(path, rows=59)


@pytest.mark.parametrize("change", [replaced, longer, shorter])
def test_a_complete_run_does_not_take_other_data(work: Path, change: Callable[[Path], None]) -> None:
    path = write_pairs(work / "mine.csv")
    train(pairs(path, work / "run"))
    change(path)
    for again in (lambda: train(pairs(path, work / "run")), lambda: evaluate_run(work / "run", None, "dev")):
        with pytest.raises(UserError, match=r"data of .*run has changed .*mine\.csv"):
            again()
    with pytest.raises(UserError, match=r"has changed .*mine\.csv"):
        embed(composed(f"run={work / 'run'}", program="embed"))
    evaluate_run(work / "run", pairs(path, work / "run")["data"], "dev")  # said explicitly


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/dev.tsv"])
def test_an_interrupted_run_says_which_file_has_changed(work: Path, name: str) -> None:
    folder = write_collection(work / "beir", documents=60, triples=False)
    config = configure(folder, work / "run", "data.batch_size=4", "callbacks.last.every_seconds=0")
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == 3):
        train(config)
    text = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join([*text[:-1]]))
    with pytest.raises(UserError, match=rf"has changed .*\({name}\)"):
        train(config)
    (folder / name).write_text("".join(text))
    train(config)


def test_the_data_is_that_of_the_runs_own_folder(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, first in (("a", 0), ("b", 500)):
        (work / name).mkdir()
        write_pairs(work / name / "faq.csv", first, rows=60 + first // 100)
    monkeypatch.chdir(work / "a")
    train(pairs("faq.csv", work / "run"))
    monkeypatch.chdir(work / "b")
    folder = embed(composed(f"run={work / 'run'}", program="embed"))
    assert len((folder / "ids.txt").read_text().split()) == 60
    assert evaluate_run(work / "run", None, "dev")["documents"] == 60
    assert not examine(work / "run").unchecked
    (work / "a" / "faq.csv").unlink()
    with pytest.raises(UserError, match=str(work / "a" / "faq.csv")):
        evaluate_run(work / "run", None, "dev")


def test_a_run_moves_with_its_data(work: Path) -> None:
    """And takes no other file of that name, be it nearer."""
    old, new = work / "project", work / "elsewhere" / "renamed"
    (old / "data").mkdir(parents=True)
    write_pairs(old / "data" / "faq.csv")
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == 3):
        train(pairs(old / "data" / "faq.csv", old / "run", "callbacks.last.every_seconds=0"))
    new.parent.mkdir()
    shutil.move(old, new)
    config = pairs(new / "data" / "faq.csv", new / "run", "callbacks.last.every_seconds=0")
    assert train(config)["epochs"] == 1  # goes on
    shutil.move(new, old)
    write_pairs(old / "faq.csv", first=500)
    assert evaluate_run(old / "run", None, "dev")["documents"] == 60
    assert not examine(old / "run").unchecked
    assert embed(composed(f"run={old / 'run'}", program="embed")).exists()
    assert train(pairs(old / "data" / "faq.csv", old / "run", "callbacks.last.every_seconds=0"))["epochs"] == 1
    (old / "data" / "faq.csv").unlink()
    with pytest.raises(UserError, match=rf"data of .*run cannot be read: {new}/data/faq.csv is no file"):
        evaluate_run(old / "run", None, "dev")
    with pytest.raises(UserError, match=r"another configuration \(data\.path|has changed"):
        train(pairs(old / "faq.csv", old / "run", "callbacks.last.every_seconds=0"))


def test_checkpoints_without_a_configuration_are_not_continued(work: Path) -> None:
    path = write_pairs(work / "mine.csv")
    train(pairs(path, work / "run"))
    (work / "run" / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints but no config\.yaml"):
        train(pairs(path, work / "run", "seed=6"))


def test_two_processes_do_not_share_a_folder(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "HOLD_SECONDS", 0.1)
    config = pairs(write_pairs(work / "mine.csv"), work / "run")
    (work / "run").mkdir()
    with FileLock(work / "run" / ".lock"), pytest.raises(UserError, match="Another process trains in"):
        train(config)
    train(config)


@pytest.mark.parametrize("scheduler", ["none", "plateau"])
def test_more_epochs_continue_where_the_schedule_has_no_end(work: Path, scheduler: str) -> None:
    path = write_pairs(work / "mine.csv")
    chosen = f"scheduler={scheduler}"
    train(pairs(path, work / "grown", chosen))
    results = train(pairs(path, work / "grown", chosen, "trainer.max_epochs=3"))
    train(pairs(path, work / "whole", chosen, "trainer.max_epochs=3"))
    assert results["epochs"] == 3
    grown, whole = state(work / "grown"), state(work / "whole")
    assert grown.keys() == whole.keys()
    assert all(torch.equal(grown[name], whole[name]) for name in whole)
    with pytest.raises(UserError, match=r"trainer\.max_epochs: 3 → 2"):
        train(pairs(path, work / "grown", chosen, "trainer.max_epochs=2"))


def test_a_schedule_that_has_ended_leads_to_init_from(work: Path) -> None:
    path = write_pairs(work / "mine.csv")
    train(pairs(path, work / "old"))
    with pytest.raises(UserError, match=r"init_from=.*old"):
        train(pairs(path, work / "old", "trainer.max_epochs=3"))
    write_pairs(path, rows=80)  # a new run, on more data
    results = train(pairs(path, work / "new", f"init_from={work / 'old'}"))
    new = make_source(pairs(path, work / "new")["data"])
    old = Encoder.of_collection(Run(work / "old"), new)  # with the new words
    assert old.tokenizer.fingerprint == Tokenizer.load(work / "new" / "tokenizer.json").fingerprint
    corpus = Corpus.load(new, old.tokenizer)
    ranked = rank_split(old.model, corpus, Split.load(corpus, "dev", old.tokenizer), 100)
    assert results["untrained/mrr@10"] == pytest.approx(ranked.means["mrr@10"], abs=1e-12)
    with pytest.raises(UserError, match=r"init_from=.*other towers"):
        train(pairs(path, work / "gru", f"init_from={work / 'old'}", "tower=gru"))


def test_a_run_that_is_stopped_lets_go_of_its_folder(work: Path) -> None:
    config = pairs(
        write_pairs(work / "mine.csv"), work / "run", "callbacks.last.every_seconds=0", "trainer.max_epochs=2"
    )
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == 2):
        train(config)
    shutil.copytree(work / "run", work / "copy")
    assert train(config)["epochs"] == 2
