"""A run follows its collection: words without training, or some steps of it."""

import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, word
from scipy.sparse.linalg import lsqr
from test_train import fit

from two_tower import update
from two_tower.config import read
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus
from two_tower.embed import embed
from two_tower.embedding import _parts
from two_tower.embedding._parts import SubwordVectors
from two_tower.embedding.transformer import TransformerEmbedding
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.index.faiss import HnswIndex
from two_tower.loading import load_model
from two_tower.new_words import NewWords, facts_of
from two_tower.run import Run
from two_tower.search import Searcher
from two_tower.teacher.sentence_transformer import SentenceTransformerTeacher
from two_tower.update import add_words

A, B, C = word(0), word(1), word(2)
KNOWN = [f"{A} {B} {C}", f"{B}", ""]


@pytest.fixture
def further(collection: Path, tmp_path: Path) -> Path:
    """The collection with two more passages, of known and of new words."""
    folder = tmp_path / "further"
    shutil.copytree(collection, folder)
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        for number, text in enumerate([f"{A} quixotically {B} quixotically", f"{C} zebrafish quixotic"]):
            file.write(json.dumps({"_id": f"new{number}", "title": "", "text": text}) + "\n")
    return folder


@pytest.mark.parametrize("overrides", ["tower=gru", "shared_towers=false"])
def test_words_are_added_and_old_texts_stay(overrides: str, collection: Path, further: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "tokenizer.min_frequency=1", "trainer.max_epochs=1", overrides)
    found = add_words(Run(tmp_path / "run"), Beir(str(further)), Run(tmp_path / "more"))
    assert (found.facts["unknown"], len(found.words)) == (4, 3)
    assert "3 different ones" in str(found)
    old, new = (Encoder.load(Run(tmp_path / name)) for name in ("run", "more"))
    assert new.tokenizer.vocabulary == [*old.tokenizer.vocabulary, "quixotically", "quixotic", "zebrafish"]
    assert new.fingerprint != old.fingerprint
    for side in ("queries", "documents"):  # but for the words' frequencies, of which two more passages change little
        np.testing.assert_allclose(getattr(new, side)(KNOWN), getattr(old, side)(KNOWN), atol=1e-3)
    np.testing.assert_array_equal(old.documents([f"{A} quixotic"]), old.documents([f"{A} zebrafish"]))
    for side in ("query_tower", "document_tower"):
        before, table = getattr(old.model, side).words, getattr(new.model, side).words
        assert torch.equal(table.vectors[: len(before.vectors)], before.vectors)
        assert torch.equal(table.log_weights[-1], table.log_weights[-3])  # each is in one passage
        assert bool(table.vectors.isfinite().all())
    assert not list((tmp_path / "more").glob("results.json"))


@pytest.mark.parametrize("reads", ["words", "pieces"])
def test_a_collection_without_new_words(
    reads: str, collection: Path, further: Path, tmp_path: Path, transformer_folder: Path
) -> None:
    """What was searched before, and is searched again, needs no word."""
    pieces, changed = ["tokenizer=subword", f"tokenizer.path={transformer_folder}"], further
    if reads == "words":
        pieces, changed = ["tokenizer.min_frequency=1"], collection
    fit(collection, tmp_path / "run", "trainer.max_steps=1", *pieces)
    data = composed("data=beir", f"data.path={changed}")["data"]
    assert not update.update_run(tmp_path / "run", data, tmp_path / "new")
    old, new = (Encoder.load(Run(tmp_path / name)) for name in ("run", "new"))
    assert new.tokenizer.fingerprint == old.tokenizer.fingerprint
    np.testing.assert_array_equal(new.documents(KNOWN), old.documents(KNOWN))
    assert Searcher.load(tmp_path / "new").passages == len((changed / "corpus.jsonl").read_text().splitlines())


STEMS = ["walk", "jump", "climb", "swim", "dance", "laugh", "paint", "build", "stretch", "whisper"]
ENDINGS = ["ing", "ness", "able", "ment"]


def compositional() -> tuple[list[str], torch.Tensor]:
    """Words whose vectors are those of their stem and their ending together."""
    generator = torch.Generator().manual_seed(0)
    stems, endings = (torch.randn(len(part), 24, generator=generator) for part in (STEMS, ENDINGS))
    pairs = list(itertools.product(range(len(STEMS)), range(len(ENDINGS))))
    return [STEMS[i] + ENDINGS[j] for i, j in pairs], torch.stack([stems[i] + endings[j] for i, j in pairs])


def test_a_new_word_gets_what_ridge_regression_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "STEPS", 300)
    words, vectors = compositional()
    made = SubwordVectors(words, vectors)
    assert made([]).shape == (0, 24)
    torch.testing.assert_close(made(["квант", "", "a"]), vectors.mean(0).expand(3, -1))  # nothing is shared
    torch.testing.assert_close(SubwordVectors(["ab"], vectors[:1])(["abc"]), vectors[:1])
    ours = made(["walkable", "swimming", "unpainted"])
    parts = [{f"<{w}>"[i : i + n] for n in range(3, 7) for i in range(len(w) + 3 - n)} for w in words]
    counts = {part: sum(part in of for of in parts) for of in parts for part in of}
    shared = sorted(part for part, count in counts.items() if count >= 2)

    def rows(texts: list[str]) -> np.ndarray:
        out = np.zeros((len(texts), len(shared)))
        for row, text in zip(out, texts, strict=True):
            for part in (f"<{text}>"[i : i + n] for n in range(3, 7) for i in range(len(text) + 3 - n)):
                if part in shared:
                    row[shared.index(part)] += 1
            row /= max(1, row.sum())
        return out

    mean, wanted = vectors.mean(0).numpy(), (vectors - vectors.mean(0)).numpy()
    solved = [lsqr(rows(words), column, damp=_parts.RIDGE**0.5, atol=1e-12, btol=1e-12)[0] for column in wanted.T]
    theirs = rows(["walkable", "swimming", "unpainted"]) @ np.stack(solved, axis=1) + mean
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


TAUGHT = ["teacher=sentence_transformer", "embedding=transformer", "embedding.pull=1", "tokenizer.min_frequency=1"]


@pytest.mark.parametrize(("dim", "shared"), [(16, "true"), (12, "false"), (20, "true")])
def test_a_teachers_vectors_of_new_words_go_through_the_map(
    dim: int, shared: str, collection: Path, further: Path, tmp_path: Path, transformer_folder: Path
) -> None:
    pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    overrides = [*TAUGHT, f"teacher.model={transformer_folder}", f"tower.dim={dim}", f"shared_towers={shared}"]
    fit(collection, tmp_path / "run", *overrides)
    found = add_words(Run(tmp_path / "run"), Beir(str(further)), Run(tmp_path / "more"))
    assert "the teacher's through the run's map" in str(found)
    facts = torch.load(tmp_path / "more" / "checkpoints" / "best.ckpt", weights_only=True)["two_tower"]
    assert "origin" in facts  # so that it can be extended again
    source, tokenizer = Beir(str(further)), Encoder.load(Run(tmp_path / "more")).tokenizer
    embedding = TransformerEmbedding(SentenceTransformerTeacher(str(transformer_folder)), dim)
    (first,) = embedding.further([A], facts["origin"])[:, : min(dim, 16)]
    of_all = Encoder.load(Run(tmp_path / "more")).model
    for side in ("query_tower", "document_tower"):
        table, matrix = getattr(of_all, side).words, facts["maps"][f"{side}.words"]
        row = tokenizer.vocabulary.index("zebrafish")
        start = table.vectors[row] @ torch.linalg.inv(matrix).T
        wanted = embedding.further(["zebrafish"], facts["origin"])[0]
        torch.testing.assert_close(start[: min(dim, 16)], wanted[: min(dim, 16)], atol=1e-3, rtol=1e-3)
    own = embedding.vectors(tokenizer, Corpus.load(source, tokenizer))[tokenizer.vocabulary.index(A)]
    assert float(torch.cosine_similarity(own[: len(first)].abs(), first.abs(), dim=0)) > 0.9  # of another mean


def test_without_its_teacher_new_words_are_made_of_their_parts(
    collection: Path, further: Path, tmp_path: Path, transformer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    teacher = tmp_path / "teacher"
    shutil.copytree(transformer_folder, teacher)
    fit(collection, tmp_path / "run", *TAUGHT, f"teacher.model={teacher}", "trainer.max_steps=1")
    shutil.rmtree(teacher)
    found = add_words(Run(tmp_path / "run"), Beir(str(further)), Run(tmp_path / "more"))
    assert "made of its parts" in str(found)
    assert "Until then new words get vectors made of their parts" in caplog.text


@pytest.mark.parametrize("overrides", [[], ["shared_towers=false"]])
def test_training_goes_on_with_new_words(
    overrides: list[str], collection: Path, further: Path, tmp_path: Path, transformer_folder: Path
) -> None:
    """They start where a search would have them, and more of them go through both maps."""
    pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    taught = [*TAUGHT, *overrides, f"teacher.model={transformer_folder}", "tower.dim=16"]
    fit(collection, tmp_path / "run", *taught)
    found = NewWords.find(Run(tmp_path / "run"), *load_model(Run(tmp_path / "run")), Beir(str(further)))
    assert found is not None
    begin = [*taught, f"init_from={tmp_path / 'run'}"]
    fit(further, tmp_path / "still", *begin, "optimizer.lr=1e-12", "trainer.max_steps=1")
    for place, (vectors, log_weights) in found.rows.items():
        state = torch.load(tmp_path / "still" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        torch.testing.assert_close(state[f"{place}.vectors"][-len(vectors) :], vectors, atol=1e-6, rtol=0)
        torch.testing.assert_close(state[f"{place}.log_weights"], log_weights, atol=1e-6, rtol=0)
    fit(further, tmp_path / "more", *begin, "optimizer.lr=0.01", "trainer.max_steps=5")
    before, after = (facts_of(Run(tmp_path / name)) for name in ("run", "more"))
    assert torch.equal(before["origin"]["mean"], after["origin"]["mean"])
    last = torch.load(tmp_path / "more" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for place in found.rows:
        torch.testing.assert_close(after["maps"][place], last[f"{place}.map"] @ before["maps"][place])


def test_a_taught_run_follows_its_collection(
    collection: Path, further: Path, tmp_path: Path, transformer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns from the new passages as well, from its weights, and is embedded as before."""
    pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    taught = [*TAUGHT, f"teacher.model={transformer_folder}", "loss=distillation", "data.examples=passages"]
    fit(collection, tmp_path / "run", *taught, "data.unseen_share=0.1")
    embed(composed(f"run={tmp_path / 'run'}", "dtype=int8", "index=hnsw", program="embed"))
    monkeypatch.setattr(update, "STEPS", 3)
    update.update_run(tmp_path / "run", composed("data=beir", f"data.path={further}")["data"], tmp_path / "more")
    run = Run(tmp_path / "more")
    config, results = read(run.config), run.read_results()
    new = len(run.read_learned()) - len(Run(tmp_path / "run").read_learned())
    steps, size = config["trainer"]["max_steps"], config["data"]["batch_size"]
    assert steps == max(3, math.ceil(2 * update.TIMES * new / size)) >= results["best_step"]
    assert (config["data"]["examples"], config["data"]["unseen_share"]) == ("passages", 0)
    assert config["data"]["new_share"] == pytest.approx(min(0.5, update.TIMES * new / (steps * size)))
    assert run.has_learned(Beir(str(further)).fingerprint())
    searcher = Searcher.load(run.path)
    assert (searcher.passages, searcher.store.manifest.dtype) == (242, "int8")
    assert isinstance(searcher.index, HnswIndex)
    assert not searcher.search(["zebrafish quixotic"])[0].notes
    with pytest.raises(UserError, match="exists already"):
        update.update_run(run.path, config["data"], run.path)
