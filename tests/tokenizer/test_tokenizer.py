"""Ids, limits and files of the tokenizer against Hugging Face `tokenizers` reading the same `tokenizer.json`."""

import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from two_tower.errors import UserError
from two_tower.ragged import Ragged
from two_tower.tokenizer import _hash_table as hash_table
from two_tower.tokenizer import base as module
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import UNKNOWN, WordTokenizer

#: Real words, punctuation and scripts, cut from no corpus.
PIECES = ["What", "is", "the", "naïve", "don’t", "“quoted”", "HTTPServer", "中文", "İZMİR", "3.5", "a", "🙂", "—"]

documents = st.lists(
    st.one_of(st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join), st.text(max_size=30)), max_size=8
)


def library(tokenizer: Tokenizer, max_tokens: int | None = None) -> tokenizers.Tokenizer:
    """The reference: the library itself, from the same definition."""
    reference = tokenizers.Tokenizer.from_str(json.dumps(tokenizer._definition))
    reference.no_padding()
    reference.no_truncation()
    if max_tokens is not None:
        reference.enable_truncation(max_tokens)
    return reference


def expected(tokenizer: Tokenizer, texts: list[str], max_tokens: int | None = None) -> list[list[int]]:
    return [encoding.ids for encoding in library(tokenizer, max_tokens).encode_batch(texts)]


def same(a: Ragged, b: Ragged) -> bool:
    return torch.equal(a.ids, b.ids) and torch.equal(a.offsets, b.offsets)


@pytest.fixture(scope="module", params=list(itertools.product((False, True), repeat=2)), ids=str)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A word tokenizer that knows about half of the words of `PIECES`."""
    camel, accents = request.param
    trainer = WordTokenizer(vocabulary_size=12, min_frequency=1, split_camel_case=camel, strip_accents=accents)
    return trainer.train([[" ".join(PIECES)]])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)


@settings(deadline=None, max_examples=50)
@given(texts=documents, max_tokens=st.one_of(st.none(), st.integers(1, 8)))
def test_ids_are_the_librarys(tokenizer: Tokenizer, texts: list[str], max_tokens: int | None) -> None:
    tokens = tokenizer.encode(texts, max_tokens)
    assert tokens.to_lists() == expected(tokenizer, texts, max_tokens)
    assert (tokens.ids.dtype, tokens.offsets.dtype) == (torch.int32, torch.int64)


@settings(deadline=None)
@given(known=st.sets(st.text("ab", min_size=1, max_size=20)), texts=st.lists(st.text("ab ", max_size=60)))
def test_long_words_that_differ_little(known: set[str], texts: list[str]) -> None:
    """Words of 7, 8, 9, 16, 17 letters are where the hash's blocks end."""
    tokenizer = Tokenizer(WordTokenizer()._definition([UNKNOWN, *sorted(known)]))
    texts = [*texts, " ".join(known), " ".join(word + "a" for word in known)]
    assert tokenizer.encode(texts).to_lists() == expected(tokenizer, texts)


def test_a_hash_collision_gives_no_wrong_id() -> None:
    """A table whose slot has the hash of the word looked up, but holds another word of the same length."""

    def table(word: bytes) -> hash_table.HashTable:
        return hash_table.count(np.frombuffer(bytearray(word + b"\0"), np.uint8), hash_table.empty())

    wanted, other = table(b"photosynthesis"), table(b"photosynthetic")
    forged = (wanted[0], *other[1:])
    text, starts = np.frombuffer(bytearray(b"photosynthesis\0"), np.uint8), np.array([0, 15])
    assert hash_table.look_up(text, starts, wanted, 7, 9)[0].tolist() == [0]
    assert hash_table.look_up(text, starts, forged, 7, 9)[0].tolist() == [7]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("max_tokens", [None, 3])
def test_any_number_of_threads_gives_the_same(tokenizer: Tokenizer, max_tokens: int | None) -> None:
    texts = [" ".join(PIECES[i % 5 : i % 14]) + chr(0x400 + i) for i in range(97)]
    alone = tokenizer.encode(texts, max_tokens, threads=1)
    for threads in (2, 5):
        assert same(Tokenizer(tokenizer._definition).encode(texts, max_tokens, threads), alone)


TEXTS = ["What is", "", "the naïve “quoted” a", "İZMİR 中文", "unseen a a"]


@pytest.mark.parametrize(
    "column",
    [
        lambda texts: pa.array(texts, pa.string_view()),
        lambda texts: pa.array(texts).dictionary_encode(),
        lambda texts: pa.array(["x y", *texts, None], pa.large_string()).slice(1, len(texts)),
        lambda texts: pa.chunked_array([texts[:2], [], texts[2:]], pa.string()),
        lambda texts: np.array(texts, object),
        tuple,
    ],
)
@pytest.mark.usefixtures("small_chunks")
def test_any_kind_of_column(tokenizer: Tokenizer, column: Callable[[list[str]], Any]) -> None:
    assert tokenizer.encode(column(TEXTS)).to_lists() == expected(tokenizer, TEXTS)


def test_no_texts_nulls_half_a_surrogate_pair_and_one_string(tokenizer: Tokenizer) -> None:
    for nothing in ([], pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        tokens = tokenizer.encode(nothing)
        assert (len(tokens), len(tokens.ids), tokens.ids.dtype) == (0, 0, torch.int32)
    with pytest.raises(TypeError, match="sequence of strings"):
        tokenizer.encode("what is")
    with pytest.raises(ValueError, match="at least 1"):
        tokenizer.encode(["a"], max_tokens=0)
    _, starts, text = pa.array(["a", "the", "is"]).buffers()
    hidden = pa.StringArray.from_buffers(3, starts, text, pa.py_buffer(bytes([0b101])))  # a null over "the"
    nulls = ["a", None, "is"]
    for texts in (nulls, pa.array(nulls), pa.array(["x", *nulls]).slice(1), hidden):
        assert tokenizer.encode(texts).to_lists() == expected(tokenizer, ["a", "", "is"])
    assert tokenizer.encode(pa.nulls(2)).to_lists() == [[], []]
    texts = ["a\ud83dis", None, "the"]
    assert tokenizer.encode(texts).to_lists() == expected(tokenizer, ["a is", "", "the"])


def test_saving_loading_and_pickling_change_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "run" / "tokenizer.json"
    tokenizer.save(path)
    for copy in (Tokenizer.load(path), pickle.loads(pickle.dumps(tokenizer))):
        for name in ("fingerprint", "vocabulary", "rule", "query_tokens", "document_tokens"):
            assert getattr(copy, name) == getattr(tokenizer, name)
        assert same(copy.encode(TEXTS), tokenizer.encode(TEXTS))
    reference = tokenizers.Tokenizer.from_file(str(path))
    assert reference.get_vocab() == {word: i for i, word in enumerate(tokenizer.vocabulary)}
    assert reference.truncation["max_length"] == tokenizer.document_tokens
    assert reference.encode(" ".join(PIECES)).ids == tokenizer.encode([" ".join(PIECES)]).to_lists()[0]


def test_fingerprint_sees_every_difference() -> None:
    settings_of: list[dict[str, Any]] = [
        {}, {"split_camel_case": True}, {"strip_accents": False}, {"query_tokens": 63}, {"document_tokens": 255},
        {"vocabulary_size": 2},
    ]  # fmt: skip
    found = {WordTokenizer(min_frequency=1, **options).train([["a b"]]).fingerprint for options in settings_of}
    assert len(found) == len(settings_of)
    assert WordTokenizer(min_frequency=1).train([["a", "b"]]).fingerprint in found


WORD = WordTokenizer()._definition([UNKNOWN])
MALFORMED = ["", "[1]", '{"model": {"type": "WordLevel"}}', "\udcff"]
MALFORMED += [json.dumps(WORD | {"truncation": {"query_tokens": "6"}})]


@pytest.mark.parametrize("content", MALFORMED)
def test_a_malformed_or_missing_file_is_a_users_mistake(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match=r"tokenizer\.json does not exist"):
        Tokenizer.load(path)
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=str(path)) as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("kind", "unknown", "limit"), [("byte pairs", -1, 256), ("word pieces", 1, 7)])
def test_foreign_tokenizers_work_too(kind: str, unknown: int, limit: int, transformer_folder: Path) -> None:
    definition = (transformer_folder / "tokenizer.json").read_text()
    if kind == "byte pairs":
        library_s = tokenizers.Tokenizer(models.BPE())
        library_s.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library_s.train_from_iterator(["what is the word", "unhappy naïve person"], trainers.BpeTrainer(vocab_size=300))
        definition = library_s.to_str()
    tokenizer = Tokenizer(json.loads(definition))
    texts = [*PIECES, "", "what is the unseen word", "The Words of naïve persons in the world"]
    for max_tokens in (None, 5):
        assert tokenizer.encode(texts, max_tokens).to_lists() == expected(tokenizer, texts, max_tokens)
    assert (tokenizer.unknown_id, tokenizer.document_tokens, tokenizer.query_tokens) == (unknown, limit, min(limit, 64))
    assert dict(enumerate(tokenizer.vocabulary)) == {i: word for word, i in library(tokenizer).get_vocab().items()}
    assert len(tokenizer) == len(tokenizer.vocabulary)
