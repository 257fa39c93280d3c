"""The doctor in a run: what it changes (nothing), where it tells, when it stops, and that it goes on where it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import configure, word
from doctor.cases import own_tower, replaced
from killing import assert_same_weights, killed_after
from test_train import STEPS_PER_EPOCH, fit

from embed import embed
from two_tower.callbacks import doctor
from two_tower.doctor.base import Check, Finding, IndexSignals, Probe, Signals, WordSignals
from two_tower.doctor.diagnose import diagnose
from two_tower.doctor.record import Record, report
from two_tower.errors import UserError
from two_tower.examine import examine
from two_tower.run import Run

TOO_HIGH = ["optimizer.lr=3"]
DIVERGING = ["optimizer.lr=1e30", "similarity=dot"]


def document(path: Path) -> dict[str, Any]:
    return json.loads((path / "doctor.json").read_text(encoding="utf-8"))


def found(path: Path) -> list[str]:
    return [finding["id"] for finding in document(path)["findings"]]


def test_it_changes_nothing(collection: Path, tmp_path: Path) -> None:
    gru = ["tower=gru", "tower.layers=2", "tower.dropout=0.2"]
    options = [*gru, "+trainer.accumulate_grad_batches=2", "trainer.max_epochs=1"]
    with_it = fit(collection, tmp_path / "with", *options)
    without = fit(collection, tmp_path / "without", *options, "~callbacks.doctor")
    assert with_it["train/loss"] == without["train/loss"]
    assert_same_weights(tmp_path / "with", tmp_path / "without")
    assert not (tmp_path / "without" / "doctor.json").exists()


def test_a_loss_that_is_read_now_and_then_only_as_on_a_gpu(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.STEPS_BETWEEN, "cpu", 10)
    fit(collection, tmp_path / "run", "trainer.max_steps=12", "data.batch_size=16", "trainer.max_epochs=2")
    kept = json.loads((tmp_path / "run" / "signals.json").read_text())["steps"]
    assert [step["step"] for step in kept] == [2, 10, 12]


def test_what_it_finds_is_told_everywhere(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    results = fit(collection, path, *TOO_HIGH)
    told = document(path)
    first = told["findings"][0]
    assert first.keys() == {"id", "severity", "step", "evidence", "cause", "remedy"}
    assert (told["healthy"], first["id"], first["severity"]) == (False, "learning_rate_too_high", "warning")
    assert results["doctor/findings"] >= 1
    assert 0 < results["doctor/seconds"] < results["seconds"]
    out = " ".join(capsys.readouterr().out.split())
    assert f"Doctor, step {first['step']}: learning_rate_too_high: {first['evidence']}" in out
    assert f"Try: {first['remedy']}" in out
    assert "─ Doctor ─" in out
    assert (path / "similarities.svg").read_text().startswith("<svg")
    names = (
        "loss", "gap", "accuracy", "alignment", "uniformity", "effective_rank", "norm", "gradient/towers_words",
        "update/towers_words", "unknown_in_queries", "known_negatives", "validation", "untrained", "bm25", "time/data",
    )  # fmt: skip
    assert {type(told["figures"][name]) for name in names} == {float}


def test_a_hopeless_run_is_stopped_only_on_demand(collection: Path, tmp_path: Path) -> None:
    hopeless, stop = [*own_tower("AveragesPadding"), "tower.dim=16"], "callbacks.doctor.on_error=stop"
    assert "stopped_at_step" not in fit(collection, tmp_path / "goes_on", *hopeless, "trainer.max_steps=2")
    path = tmp_path / "stops"
    results = fit(collection, path, *hopeless, stop)
    assert (results["stopped_at_step"], results["epochs"], found(path)[0]) == (1, 1, "batch_dependent")
    assert "Stopped by the doctor at step 1: batch_dependent" in (path / "report.md").read_text()
    results = fit(collection, tmp_path / "diverges", *DIVERGING, stop)
    first = document(tmp_path / "diverges")["findings"][0]
    assert (first["id"], first["severity"]) == ("learning_rate_too_high", "error")
    assert results["stopped_at_step"] < 2 * STEPS_PER_EPOCH
    with pytest.raises(UserError, match=r"on_error.*never"):
        configure(collection, path, "callbacks.doctor.on_error=never")


def test_an_interrupted_run_goes_on_with_what_was_measured(collection: Path, tmp_path: Path) -> None:
    whole, path, options = tmp_path / "whole", tmp_path / "run", [*TOO_HIGH, "callbacks.last.every_seconds=0"]
    fit(collection, whole, *options)
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == STEPS_PER_EPOCH + 2):
        fit(collection, path, *options)
    assert "learning_rate_too_high" in found(path)
    fit(collection, path, *options)
    one, two = (json.loads((p / "signals.json").read_text()) for p in (whole, path))
    for key in ("steps", "data", "probes"):
        assert one[key] == two[key], key
    assert found(whole) == found(path)


def test_it_knows_a_user_s_own_tower_and_loss(collection: Path, tmp_path: Path) -> None:
    own = [*own_tower("OwnTower"), *replaced("loss", "in_batch", "training.UniformityLoss"), "tower.dim=16"]
    fit(collection, tmp_path / "good", *own, "data.batch_size=16", "trainer.max_epochs=4")
    assert document(tmp_path / "good")["healthy"] is True, document(tmp_path / "good")["findings"]
    fit(collection, tmp_path / "bad", *own, *TOO_HIGH, "trainer.max_epochs=1")
    assert found(tmp_path / "bad")[0] == "learning_rate_too_high"


def finding(name: str, step: int = 1) -> Finding:
    return Finding("something", "a cause", "key=1", "warning", name, step)


def test_what_has_passed_is_kept_for_information(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(Run(tmp_path))
    record.update([finding("a"), finding("b")], Signals(), [])
    record.update([finding("b", step=9)], Signals(), [])
    assert [(f.id, f.severity, f.step) for f in record.all] == [("b", "warning", 1), ("a", "info", 1)]
    assert "No longer so" in record.all[1].evidence
    assert document(tmp_path)["healthy"] is False
    record.update([], Signals(), [])
    assert document(tmp_path)["healthy"] is True
    record.update([finding("a", step=12)], Signals(), [])  # once more
    assert [f.id for f in record.all] == ["a", "b"]
    assert capsys.readouterr().out.count("Doctor, step") == 2  # each is told once
    again = Record(Run(tmp_path))
    again.restore(json.loads(json.dumps(record.to_plain())))
    assert again.all == record.all


def test_a_cause_hides_what_it_explains_and_nothing_known_is_nothing_said() -> None:
    signals = Signals(index=IndexSignals("index", ["it was made with another checkpoint"]), alone=0.5)
    assert [f.id for f in diagnose(signals)] == ["serving_mismatch", "batch_dependent"]
    assert diagnose(Signals()) == []


class TestExamination:
    """``two-tower doctor``."""

    @pytest.fixture(scope="class")
    def finished(self, collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("examined") / "run"
        fit(collection, path, "data.batch_size=16", "trainer.max_epochs=4")
        index = {"_target_": "two_tower.index.faiss.FlatIndex"}
        embed({"run": str(path), "output": None, "shard_rows": 100, "data": None, "index": index})
        return path

    @pytest.fixture
    def copy(self, finished: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(finished, tmp_path / "copy"))

    def test_a_good_run_with_its_index(self, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert document(finished)["healthy"] is True
        before = {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
        examination = examine(finished)
        assert ([f.id for f in examination.findings], examination.unchecked) == (["few_validation_queries"], [])
        report([], examination.signals)
        assert "Healthy: nothing is wrong that the doctor knows of." in capsys.readouterr().out
        index = examination.signals.index
        assert index is not None
        assert index.checked >= 60
        assert index.difference < 1e-5
        assert {file: file.stat().st_mtime_ns for file in finished.rglob("*")} == before

    def test_a_model_trained_on_after_it_was_embedded(self, copy: Path) -> None:
        checkpoint = torch.load(copy / "checkpoints" / "best.ckpt", weights_only=True)
        for name, tensor in checkpoint["state_dict"].items():
            if name.endswith("vectors"):
                tensor.add_(0.5 * torch.randn_like(tensor))
        torch.save(checkpoint, copy / "checkpoints" / "best.ckpt")
        (first, *_) = examine(copy).findings
        assert (first.id, first.severity) == ("serving_mismatch", "error")
        assert "another checkpoint" in first.evidence
        assert "encoded again differ" in first.evidence

    @pytest.mark.parametrize(("key", "value"), [("tokenizer", "other"), ("dim", 3)])
    def test_an_index_of_something_else(self, copy: Path, key: str, value: Any) -> None:  # noqa: ANN401
        manifest = json.loads((copy / "index" / "manifest.json").read_text())
        (copy / "index" / "manifest.json").write_text(json.dumps({**manifest, key: value}))
        (first, *_) = examine(copy).findings
        assert (first.id, f"another {key}" in first.evidence) == ("serving_mismatch", True)

    def test_a_damaged_index(self, copy: Path) -> None:
        shard = copy / "index" / "vectors-00000.npy"
        shard.write_bytes(shard.read_bytes()[:-100])
        (first, *_) = examine(copy).findings
        assert (first.id, shard.name in first.evidence) == ("serving_mismatch", True)

    def test_an_index_elsewhere(self, copy: Path, tmp_path: Path) -> None:
        moved = shutil.move(copy / "index", tmp_path / "elsewhere")
        assert examine(copy).signals.index is None
        assert not any(f.severity == "error" for f in examine(copy, moved).findings)
        assert examine(copy, tmp_path / "nowhere").findings[0].id == "serving_mismatch"

    def test_a_run_that_has_only_begun(self, copy: Path) -> None:
        for name in ("checkpoints", "index"):
            shutil.rmtree(copy / name)
        (copy / "results.json").unlink()
        examination = examine(copy)
        assert all(f.severity == "info" for f in examination.findings)
        assert "has no checkpoint yet" in examination.unchecked[0]

    def test_a_run_without_a_doctor_of_its_own(self, collection: Path, tmp_path: Path) -> None:
        path = tmp_path / "run"
        fit(collection, path, "~callbacks.doctor", *DIVERGING, "trainer.log_every_n_steps=1")
        assert "learning_rate_too_high" in {f.id for f in examine(path).findings}

    def test_data_that_is_gone(self, copy: Path, collection: Path) -> None:
        config = (copy / "config.yaml").read_text()
        (copy / "config.yaml").write_text(config.replace(str(collection), "/nowhere"))
        (said, *_) = examine(copy).unchecked
        assert said.startswith("the data: ")


def probe(step: int, **given: Any) -> Probe:  # noqa: ANN401
    usual = {
        "first_epoch": False, "queries": 64, "candidates": 1.0, "loss": 0.1, "trivial": 0.3, "ideal": 0.0,
        "positive": 0.5, "negative": 0.1, "hardest": 0.1, "accuracy": 0.9, "active": 0.5, "single": False,
        "known_negatives": 0.0, "copies": 0.0, "alignment": 1.0, "uniformity": -2.0, "rank": 40.0, "cosine": 0.1,
        "norm": 1.0, "not_finite": False, "updates": {"towers": 0.01},
    }  # fmt: skip
    return Probe(step=step, **{**usual, **given})


def test_a_loss_that_goes_up_and_down_below_the_margin_is_stuck_too() -> None:
    signals = Signals(probes=[probe(s, loss=0.3 * p) for s, p in ((2, 0.98), (150, 0.9), (200, 0.8), (250, 0.99))])
    (found,) = diagnose(signals)
    assert (found.id, found.severity) == ("stuck_at_margin", "warning")
    assert found.remedy == "loss=in_batch negatives=in_batch"
    signals.words = WordSignals(True, True, 0.9, 0.2, 0.0, 0.01, 0.1)
    assert diagnose(signals)[0].remedy == "embedding.freeze=false"
    signals.probes[-1].loss = 0.05
    assert diagnose(signals) == []


def test_triplets_that_are_right_while_search_is_poor_are_easy() -> None:
    signals = Signals(probes=[probe(s, first_epoch=True) for s in (2, 20, 40)], baseline={"bm25": 0.7})
    signals.checks = [Check("epoch 1", 50, 1.0, 0.02)]
    (found,) = diagnose(signals)
    assert (found.id, found.remedy) == ("easy_negatives", "loss=in_batch negatives=in_batch")
    signals.checks = [Check("epoch 1", 50, 1.0, 0.3)]
    assert diagnose(signals) == []
    signals.checks = [Check("epoch 1", 50, 1.0, 0.02)]
    for seen_again, right in ((False, 0.6), (True, 0.9)):
        signals.probes = [probe(s, first_epoch=not seen_again, accuracy=right) for s in (2, 20, 40)]
        assert diagnose(signals) == []


def test_a_low_rate_is_not_excused_by_crawling() -> None:
    steps = (2, 20, 40, 200, 400)
    crawling = [probe(s, loss=0.3 - s * 5e-5, updates={"towers": 1e-4}) for s in steps]
    assert diagnose(Signals(probes=crawling))[0].id == "learning_rate_too_low"
    small_but_enough = [probe(s, loss=0.3 - s * 5e-4, updates={"towers": 1e-4}) for s in steps]
    assert diagnose(Signals(probes=small_but_enough)) == []


def test_a_part_that_is_not_trained_is_named() -> None:
    frozen = Signals(probes=[probe(2, frozen={"towers words": 0.9, "towers": 0.9})])
    (found,) = diagnose(frozen)
    assert (found.id, "90% of the numbers of the towers are" in found.evidence) == ("no_gradient", True)


def test_a_finished_run_does_without_the_file_of_its_vectors(collection: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("".join(f"{word(i)} {i} 1 2 {-i}\n" for i in range(60)))
    fit(collection, tmp_path / "run", "embedding=pretrained", f"embedding.path={vectors}")
    vectors.unlink()
    assert examine(tmp_path / "run").unchecked == []
