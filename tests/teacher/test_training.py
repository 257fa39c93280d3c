"""Learning from a teacher, in whole runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import configure, word, write_collection
from killing import assert_same_weights, killed_after
from test_train import fit
from training import embedded, history, state

from two_tower.assemble import make_data, make_model
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.evaluation import evaluate_run
from two_tower.export import export_run
from two_tower.loading import load_model
from two_tower.run import Run
from two_tower.search import Searcher
from two_tower.teacher.sentence_transformer import SentenceTransformerTeacher


@pytest.fixture(scope="module")
def taught(teacher_folder: Path) -> list[str]:
    return [
        "teacher=sentence_transformer", f"teacher.model={teacher_folder}", "embedding=transformer",
        "loss=distillation", "data.examples=passages", "trainer.log_every_n_steps=1",
    ]  # fmt: skip


MATRYOSHKA = ["loss=matryoshka", "loss@loss.loss=distillation"]
SUM = ["loss=sum", "~loss@loss.triplet", "~loss.weights.triplet", "+loss@loss.distillation=distillation"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["tower=average", "tower.dim=12", "shared_towers=false"],
        ["tower=lstm", "tower.refine=true", "tower.bidirectional=true", *MATRYOSHKA],
        ["tower=average", *SUM, "loss.weights.in_batch=0.2", "data.examples=judged"],
    ],
    ids=lambda each: " ".join(each)[:60],
)
def test_towers_come_nearer_to_it(overrides: list[str], taught: list[str], collection: Path, tmp_path: Path) -> None:
    steps = ["trainer.max_epochs=3", "scheduler=none", "optimizer.lr=0.01", "validation.bm25=false"]
    results = fit(collection, tmp_path / "run", *taught, *overrides, *steps)
    key = "distillation/kl" if "loss=sum" in overrides else "kl"
    terms = [step[key] for step in history(tmp_path / "run")]
    assert sum(terms[-5:]) < 0.97 * sum(terms[:5])
    assert results["epochs"] == 3
    model, _ = load_model(Run(tmp_path / "run"))  # without the teacher
    assert model.shared == ("shared_towers=false" not in overrides)


def test_a_continued_run_ends_as_if_it_never_stopped(taught: list[str], collection: Path, tmp_path: Path) -> None:
    options = [*taught, "tower.dim=12", "trainer.max_epochs=1", "callbacks.last.every_seconds=0"]
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == 4):
        fit(collection, tmp_path / "cut", *options)
    fit(collection, tmp_path / "cut", *options)
    fit(collection, tmp_path / "whole", *options)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    assert any("projection" in key for key in state(tmp_path / "cut"))


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the teacher encodes from now on; nothing is in the cache."""
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    texts_seen: list[str] = []
    encode = SentenceTransformerTeacher.encode

    def note(self: SentenceTransformerTeacher, texts: Any) -> Any:  # noqa: ANN401
        texts_seen.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(SentenceTransformerTeacher, "encode", note)
    return texts_seen


def test_no_query_of_dev_or_test_and_no_judgement_of_them_is_learned_from(
    taught: list[str], tmp_path: Path, seen: list[str]
) -> None:
    """The teacher never sees them, and other judgements of them change nothing."""
    weights = []
    for name in ("first", "second"):
        folder = write_collection(tmp_path / name, documents=120, triples=False)
        queries = {r["_id"]: r["text"] for r in map(json.loads, (folder / "queries.jsonl").read_text().splitlines())}
        held_out = set()
        for file in (folder / "qrels" / "dev.tsv", folder / "qrels" / "test.tsv"):
            head, *lines = file.read_text().splitlines()
            ids, answers, _ = zip(*(line.split("\t") for line in lines), strict=True)
            held_out |= {queries[q] for q in ids}
            if name == "second":  # the same texts, judged otherwise
                rows = [f"{q}\t{d}\t1" for q, d in zip(ids, answers[1:] + answers[:1], strict=True)]
                file.write_text("\n".join([head, *rows]) + "\n")
        fit(folder, tmp_path / f"run-{name}", *taught, "data.batch_size=16")
        assert held_out
        assert not held_out & set(seen)
        weights.append(state(tmp_path / f"run-{name}"))
    first, second = weights
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_loss_sees_the_teachers_vectors_of_the_batch(taught: list[str], collection: Path, tmp_path: Path) -> None:
    config = configure(collection, tmp_path / "run", *taught)
    (tmp_path / "run").mkdir()
    data = make_data(config, tmp_path / "run" / "tokenizer.json")
    model = make_model(config, data)
    batch = data.batches[1, 2]
    found = model.teacher.take(batch.query_rows, batch.document_rows)
    teacher = SentenceTransformerTeacher(config["teacher"]["model"])
    for rows, texts, vectors in (
        (batch.query_rows, data.train.texts.to_pylist(), found.queries),
        (batch.document_rows, data.corpus.texts().to_pylist(), found.documents),
    ):
        wanted = torch.from_numpy(teacher.encode([texts[row] for row in rows.tolist()]))
        torch.testing.assert_close(vectors, wanted, atol=2e-3, rtol=0)


def test_a_refining_network_starts_as_the_average(taught: list[str], collection: Path, tmp_path: Path) -> None:
    runs = {
        name: fit(collection, tmp_path / name, *taught, f"tower={name}", "trainer.max_steps=1", *more)
        for name, more in (("average", []), ("gru", ["tower.refine=true", "tower.bidirectional=true"]))
    }
    average, gru = ({k: v for k, v in run.items() if k.startswith("untrained/")} for run in runs.values())
    assert average == pytest.approx(gru)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["teacher=none"], "add teacher=sentence_transformer"),
        (["tower=gru", "tower.refine=true", "embedding.dim=8"], r"embedding\.dim=16"),
        (["negatives=bm25"], r"data\.examples=passages .* negatives=in_batch or random"),
        (["data.examples=passages", "loss=in_batch"], r"data\.examples=passages .* loss=distillation"),
    ],
)  # fmt: skip
def test_what_is_refused(overrides: list[str], said: str, taught: list[str], collection: Path, tmp_path: Path) -> None:
    options = taught[2:] if "teacher=none" in overrides else taught
    with pytest.raises(UserError, match=said):
        fit(collection, tmp_path / "run", *options, *overrides)


def test_the_doctor_does_not_judge_it_by_scores(taught: list[str], collection: Path, tmp_path: Path) -> None:
    options = ["data.examples=judged", "trainer.max_epochs=8", "scheduler=none"]
    fit(collection, tmp_path / "run", *taught, *options)
    found = json.loads((tmp_path / "run" / "doctor.json").read_text())
    by_scores = {"stuck_at_margin", "stuck_at_chance", "easy_negatives", "hardest_negative_collapse", "no_gradient"}
    assert not by_scores & {finding["id"] for finding in found["findings"]}
    signals = json.loads((tmp_path / "run" / "signals.json").read_text())
    assert len(signals["probes"]) >= 3
    assert all(probe["loss"] > 0 and probe["trivial"] == 0 for probe in signals["probes"])


def test_a_sample_of_passages_is_enough(taught: list[str], collection: Path, tmp_path: Path, seen: list[str]) -> None:
    """Everything is searched, and the teacher's own words are known though no text has them."""
    results = fit(collection, tmp_path / "run", *taught, "teacher.sample=40", "trainer.max_epochs=1")
    _, tokenizer = load_model(Run(tmp_path / "run"))
    assert results["documents"] == 240
    assert tokenizer.vocabulary[-1] == "token"
    texts = [text for text in seen if len(text.split()) > 1]
    assert 40 < len(texts) <= 2 * 40
    for refused in (["data.examples=judged"], ["negatives=random"]):
        with pytest.raises(UserError, match=r"teacher\.sample leaves passages without"):
            fit(collection, tmp_path / "other", *taught, "teacher.sample=40", *refused)


@pytest.mark.parametrize(
    "more",
    [
        ["tokenizer=subword", "tokenizer.path=TEACHER", "tower.lexical_scale=0.3"],
        ["experiment=distil_gru", "tower.hidden=4", "embedding.freeze=2"],
        ["shared_towers=false", "tower.tanh=true", "similarity=dot", "tower.lexical_dims=0"],
        ["tower.token_dropout=0.1", "teacher.sample=100", "embedding.common_words=false"],
    ],
    ids=lambda more: " ".join(more)[:50],
)
def test_the_preset_works_with_other_keys(
    more: list[str], teacher_folder: Path, collection: Path, tmp_path: Path
) -> None:
    """Trained, embedded, searched, evaluated on another collection, and exported where the tower can be."""
    more = [each.replace("TEACHER", str(teacher_folder)) for each in more]
    preset = ["experiment=distil_average"] if "experiment=distil_gru" not in more else []
    options = [*preset, f"teacher.model={teacher_folder}", "tower.dim=12", "trainer.max_epochs=2", *more]
    run = tmp_path / "run"
    fit(collection, run, *options)
    embedded(run)
    assert Searcher.load(run).search(["a question"], mode="hybrid")
    other = write_collection(tmp_path / "other", 100)
    assert evaluate_run(run, {"_target_": "two_tower.data.beir.Beir", "path": str(other)}, "dev")["dense/mrr@10"] > 0
    from sentence_transformers import SentenceTransformer

    if "experiment=distil_gru" not in more and "tower.tanh=true" not in more:
        export_run(run, tmp_path / "exported")
        library = SentenceTransformer(str(tmp_path / "exported"), trust_remote_code=True, device="cpu")
        texts = ["token of some words", word(0)]
        np.testing.assert_allclose(library.encode(texts), Encoder.load(Run(run)).documents(texts), atol=1e-5)


def test_neither_map_nor_words_depend_on_what_is_kept_out(teacher_folder: Path, tmp_path: Path) -> None:
    """Other texts of the passages kept out, other validation queries and judgements: the same weights, bit for bit."""
    first, second = (write_collection(tmp_path / name / "mine", 120) for name in "ab")
    out = [f"d{i}" for i in range(0, 120, 5)]
    (tmp_path / "ids").write_text("\n".join(out))
    rows = [json.loads(line) for line in (second / "corpus.jsonl").read_text().splitlines()]
    for row in rows:
        if row["_id"] in out:
            row["title"], row["text"] = "", f"quite another zebrafish {row['_id']}"
    (second / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = (second / "qrels" / "dev.tsv").read_text().splitlines()
    (second / "qrels" / "dev.tsv").write_text("\n".join([judged[0], *judged[1::2]]) + "\n")
    options = ["experiment=distil_average", f"teacher.model={teacher_folder}", "tower.dim=16", "trainer.max_epochs=2"]
    for folder in (first, second):
        fit(folder, folder.parent / "run", *options, f"data.unseen_ids={tmp_path / 'ids'}")
    assert_same_weights(first.parent / "run", second.parent / "run")
    one, other = ((folder.parent / "run" / "tokenizer.json").read_bytes() for folder in (first, second))
    assert one == other
    assert b"zebrafish" not in other
