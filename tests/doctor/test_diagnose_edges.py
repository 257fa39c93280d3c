"""The doctor where steps or figures mean nothing: little data, no negatives, NaN, copies, other data."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, configure, write_collection
from doctor.cases import replaced
from test_identity import write_pairs

from two_tower.data.passages import Passages
from two_tower.doctor.base import Probe, Signals, UnseenSignals
from two_tower.doctor.diagnose import diagnose
from two_tower.doctor.facts import inspect
from two_tower.doctor.measure_step import standard_errors_below
from two_tower.embed import embed
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.evaluation import evaluate_run
from two_tower.examine import examine
from two_tower.report.results import verdict
from two_tower.run import Run
from two_tower.train import train
from two_tower.update import add_words


def document(run: Path) -> dict[str, Any]:
    """``doctor.json``, in which no sentence and no figure is NaN."""
    text = (run / "doctor.json").read_text()
    told = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert "nan" not in " ".join(f["evidence"] + f["cause"] for f in told["findings"]).split()
    return told


def serious(run: Path) -> dict[str, str]:
    """Id → remedy of warnings and errors."""
    return {f["id"]: f["remedy"] for f in document(run)["findings"] if f["severity"] != "info"}


def pairs(path: Path, run: Path, *overrides: str) -> dict[str, Any]:
    return composed("data=pairs", f"data.path={path}", "tower.dim=16", "trainer=cpu", f"run_dir={run}", *overrides)


@pytest.mark.parametrize(("rows", "epochs"), [(2, 10), (20, None), (50, None), (150, None)])
def test_a_first_try_needs_no_setting(
    rows: int, epochs: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for two pairs, to which 100 epochs of one step each bring nothing new."""
    path, run = write_pairs(tmp_path / "faq.csv", rows=rows), tmp_path / "run"
    length = [f"trainer.max_epochs={epochs}"] if epochs else []
    results = train(pairs(path, run, "tokenizer.min_frequency=1", *length))
    assert results["queries"] >= min(50, rows // 2)
    shown = capsys.readouterr().out
    assert " nan" not in shown
    assert "made search worse" not in shown
    found = serious(run)
    assert ("few_validation_queries" in found) == (results["queries"] < 20)
    assert ("no_negatives" in found) == (rows <= 3)
    assert found.keys() <= {"few_validation_queries", "no_negatives"}
    if rows >= 20:
        assert json.loads((run / "signals.json").read_text())["total_steps"] >= 100
        assert results["val/mrr@10"] > 0.7


def test_texts_that_differ_in_unknown_words_are_no_copies(tmp_path: Path) -> None:
    path, run = tmp_path / "faq.csv", tmp_path / "run"
    path.write_text("question,answer\n" + "".join(f"what q{i} a{i},it c{i} d{i} f{i}\n" for i in range(12)))
    train(pairs(path, run, "trainer.max_epochs=3"))
    assert serious(run).keys() <= {"unknown_words", "few_validation_queries", "no_negatives"}  # to the towers
    facts = inspect(["data=pairs", f"data.path={path}"])
    assert facts["passages"]["duplicates"]["texts"] == facts["splits"]["dev"]["unjudged_copies"] == 0


@pytest.mark.parametrize(
    "overrides",
    [["data.batch_size=1"], ["data.batch_size=1", "loss=triplet", "negatives=in_batch"]],
)
def test_a_loss_without_a_negative_is_an_error(overrides: list[str], collection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(collection, run, "trainer.max_steps=25", *overrides))
    first = document(run)["findings"][0]
    assert (first["id"], first["severity"]) == ("no_negatives", "error")
    assert "data.batch_size=32" in first["remedy"]


@pytest.mark.parametrize("negatives", ["random", "bm25", "in_batch"])
def test_one_passage_has_no_negative(negatives: str, tmp_path: Path) -> None:
    path, run = tmp_path / "faq.csv", tmp_path / "run"
    rows = [f"what is this thing number{i},it is the only thing" for i in range(30)]
    path.write_text("\n".join(["question,answer", *rows]) + "\n")
    train(pairs(path, run, f"negatives={negatives}", "trainer.max_epochs=2"))
    assert "no_negatives" in serious(run)


def test_batches_of_two_compare_with_one(collection: Path, tmp_path: Path) -> None:
    train(configure(collection, tmp_path / "run", "data.batch_size=2", "trainer.max_steps=45"))
    assert "no_negatives" in serious(tmp_path / "run")
    triplet = ["loss=triplet", "negatives=random", "data.batch_size=2", "trainer.max_steps=45"]
    train(configure(collection, tmp_path / "triplet", *triplet))
    assert "no_negatives" not in serious(tmp_path / "triplet")  # that is what the loss is for


def test_a_temperature_that_leaves_one_candidate(collection: Path, tmp_path: Path) -> None:
    train(configure(collection, tmp_path / "run", "loss.temperature=0.0001", "trainer.max_epochs=9"))
    assert serious(tmp_path / "run")["one_candidate"] == "loss.temperature=0.05"


def test_steps_that_change_nothing(collection: Path, tmp_path: Path) -> None:
    config = configure(collection, tmp_path / "run")
    train({**config, "optimizer": {"_target_": "doctor.faulty.StandsStill", "_partial_": True}})
    first = document(tmp_path / "run")["findings"][0]
    assert (first["id"], first["severity"]) == ("unchanged", "error")


def test_eight_steps_that_teach_something_are_not_accused(collection: Path, tmp_path: Path) -> None:
    train(configure(collection, tmp_path / "good", "trainer.max_steps=8", "tower.dim=64", "trainer.max_epochs=-1"))
    assert "too_short" not in serious(tmp_path / "good")


def test_copies_make_figures_a_matter_of_ids(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "beir")
    corpus = folder / "corpus.jsonl"
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    copies = [{**line, "_id": f"copy{line['_id']}"} for line in lines[::12]]
    crowd = [{"_id": f"n{i}", "title": "", "text": "bababa beba nothing"} for i in range(40)]
    for name, more in (("copies", copies), ("crowd", crowd)):
        corpus.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]))
        train(configure(folder, tmp_path / name))
        assert "data inspect" in serious(tmp_path / name)["copies"]
        assert "copies" in {f.id for f in examine(tmp_path / name).findings}


def test_a_model_that_became_nan_is_refused_by_name(collection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(collection, run, "trainer.max_steps=3"))
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    name = next(key for key in checkpoint["state_dict"] if key.endswith("vectors"))
    checkpoint["state_dict"][name][1, 2] = math.nan
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    for use in (
        lambda: Encoder.load(Run(run)),  # search and serve
        lambda: embed(composed(f"run={run}", program="embed")),
        lambda: evaluate_run(run, None, "dev"),
    ):
        with pytest.raises(UserError, match=r"best\.ckpt are NaN .* two-tower doctor"):
            use()
    assert examine(run).findings[0].id == "not_finite"


def test_a_loss_that_begins_as_nan_is_not_the_learning_rate_s(collection: Path, tmp_path: Path) -> None:
    nan = replaced("loss", "in_batch", "doctor.faulty.DividesByZero")
    train(configure(collection, tmp_path / "run", *nan, "trainer.max_steps=5"))
    ids = [f["id"] for f in document(tmp_path / "run")["findings"]]
    assert ids[0] == "not_finite"
    assert "learning_rate_too_high" not in ids


def test_a_run_that_is_older_than_its_data(tmp_path: Path) -> None:
    path, run = write_pairs(tmp_path / "faq.csv"), tmp_path / "run"
    train(pairs(path, run, "trainer.max_epochs=1"))
    assert "data_changed" not in {f.id for f in examine(run).findings}
    write_pairs(path, rows=61)
    told = {f.id: f for f in examine(run).findings}
    assert "faq.csv" in told["data_changed"].evidence


def test_ties_are_no_deterioration() -> None:
    figures = {"val/mrr@10": 0.5, "untrained/mrr@10": 0.5, "best_epoch": 1}
    assert "worse" not in verdict(figures, "mrr@10")
    assert "worse" in verdict({**figures, "val/mrr@10": 0.4}, "mrr@10")
    same = np.linspace(0, 1, 40)
    assert standard_errors_below(same, same) == 0
    assert math.isnan(standard_errors_below(np.zeros(5), np.ones(5)))  # of five queries nobody knows


def test_a_copy_of_a_run_keeps_how_it_is_fused(collection: Path, tmp_path: Path) -> None:
    run, new = tmp_path / "run", tmp_path / "new"
    train(configure(collection, run, "trainer.max_epochs=1"))
    before = evaluate_run(run, None, "test", hybrid=True)
    path = tmp_path / "more.jsonl"
    path.write_text('{"_id": "1", "text": "zebrafish quixotic"}\n')
    add_words(Run(run), Passages(str(path)), Run(new))
    for name in ("hybrid.json", "data.json"):
        assert (new / name).exists()
    after = evaluate_run(new, None, "test", hybrid=True)
    assert after["fusion/weight"] == before["fusion/weight"]
    assert after["hybrid/mrr@10"] == pytest.approx(before["hybrid/mrr@10"])


def probe(step: int, **changes: Any) -> Probe:  # noqa: ANN401
    values: dict[str, Any] = {
        "step": step, "first_epoch": True, "queries": 8, "candidates": 7.0, "loss": 2.0, "trivial": 2.08, "ideal": 0.1,
        "positive": 0.1, "negative": 0.1, "hardest": 0.2, "accuracy": 0.0, "active": 1.0, "single": False,
        "known_negatives": 0.0, "copies": 0.0, "alignment": 1.0, "uniformity": -1.0, "rank": 8.0, "cosine": 0.1,
        "norm": 1.0, "not_finite": False, "updates": {"towers": 0.01},
    }  # fmt: skip
    return Probe(**{**values, **changes})


def test_a_short_run_is_judged_at_its_end_only() -> None:
    signals = Signals(probes=[probe(2), probe(8)], total_steps=8)
    assert [f.id for f in diagnose(signals)] == ["too_short"]
    assert diagnose(Signals(probes=[probe(2)], total_steps=8)) == []
    assert diagnose(Signals(probes=[probe(2), probe(8, loss=1.5)], total_steps=8)) == []
    right = [probe(2), probe(8, accuracy=0.4)]
    assert diagnose(Signals(probes=right, total_steps=8)) == []


@pytest.mark.parametrize(
    ("settings", "figures", "remedy"),
    [
        ({"embedding": {"pull": None}}, (0.86, 0.64, 0.83, 0.84), "embedding.pull=1; tower.lexical_dims=256"),
        ({"embedding": {"_target_": "x.RandomEmbedding"}}, (0.86, 0.64, math.nan, math.nan), "embedding=transformer"),
        ({"embedding": {"pull": 1}, "tower": {"lexical_dims": 64}}, (0.8, 0.7, 0.8, 0.8), r"embedding.pull=3$"),
        ({}, (0.86, 0.64, 0.86, 0.65), None),  # BM25 finds them worse, too
        ({}, (0.86, 0.82, 0.83, 0.83), None),
        ({}, (0.64, 0.86, 0.83, 0.83), None),
    ],
)
def test_what_is_known_by_heart(settings: dict[str, Any], figures: tuple[float, ...], remedy: str | None) -> None:
    signals = Signals(config=settings, unseen=UnseenSignals(*figures, error=0.02))
    found = [finding for finding in diagnose(signals) if finding.id == "memorised"]
    assert len(found) == (remedy is not None)
    if remedy is not None:
        assert re.search(remedy, found[0].remedy)
        assert "nan" not in found[0].evidence
        assert f"is {figures[0]:.3f} for queries whose passages were learned from" in found[0].evidence
    again = Signals.from_plain(signals.to_plain(), settings)
    assert again.unseen == signals.unseen
    assert not [f for f in diagnose(Signals(unseen=UnseenSignals(*figures, error=0.2))) if f.id == "memorised"]
