"""Which vector of a file each word of the vocabulary gets, against a plain loop; runs that start from a file."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import fit

from two_tower.embedding import _files as files
from two_tower.embedding.base import Pretrained
from two_tower.embedding.pretrained import open_vectors, read_pretrained
from two_tower.errors import UserError
from two_tower.loading import load_model
from two_tower.run import Run
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

WIDTH = 12


def trained(words: Sequence[str], **rules: bool) -> Tokenizer:
    return WordTokenizer(min_frequency=1, language="none", **rules).train([list(words)])


def numbered(path: Path, words: Sequence[str]) -> Path:
    """A file in which word i has the vector (i, -i)."""
    path.write_text("".join(f"{word} {i} {-i}\n" for i, word in enumerate(words)), encoding="utf-8")
    return path


def matched(tokenizer: Tokenizer, known: Pretrained) -> dict[str, int]:
    """Word of the vocabulary → the file's row whose vector it has."""
    assert not known.vectors[~known.has_vector].any()
    assert (known.vectors[:, 0] == -known.vectors[:, 1]).all()
    return {tokenizer.vocabulary[i]: int(known.vectors[i, 0]) for i in np.flatnonzero(known.has_vector)}


def test_examples(tmp_path: Path) -> None:
    for vocabulary, file, expected in (
        (["cat", "dog"], ["Cat", "DOG", "bird"], {"cat": 0, "dog": 1}),
        (["cat"], ["Cat", "CAT"], {"cat": 0}),  # the first, which is the more frequent one
        (["cat"], ["Cat", "CAT", "cat", "cAt"], {"cat": 2}),  # as it is written comes first
        (["cafe", "strasse"], ["café", "cafe", "Straße"], {"cafe": 1, "strasse": 2}),
        (["한국"], ["\u1112\u1161\u11ab국", "한"], {"한국": 0}),  # written as jamo in the file
        (["don", "t"], ["don't", "t"], {"t": 1}),  # two words for the tokenizer
        (["unk", "pad"], ["<pad>", "<unk>", "</s>", "[CLS]"], {"[UNK]": 1}),  # marks are no words
        (["unk"], ["unk", "[UNK]"], {"unk": 0, "[UNK]": 1}),
    ):
        tokenizer = trained([*vocabulary, "unrelated"])
        known = read_pretrained(open_vectors(numbered(tmp_path / "v", file)), tokenizer)
        shown = {tokenizer.words(word)[0] if word in vocabulary else word: row for word, row in expected.items()}
        assert matched(tokenizer, known) == shown


WORDS = st.text(st.sampled_from("abABéÉﬁ중한한_'.İı"), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, max_size=25), st.booleans(), st.booleans())
def test_every_word_gets_what_a_plain_loop_finds(
    tmp_path_factory: pytest.TempPathFactory, vocabulary: list[str], file: list[str], accents: bool, camel: bool
) -> None:
    tokenizer = trained([*vocabulary, "b"], strip_accents=accents, split_camel_case=camel)
    rows = {word: row for row, word in enumerate(tokenizer.vocabulary)}
    expected: dict[str, int] = {}
    for exact in (True, False):
        for i, word in enumerate(["x", *file]):
            names = [word] if exact else tokenizer.words(word)
            if len(names) == 1 and names[0] in rows:
                expected.setdefault(names[0], i)
    path = numbered(tmp_path_factory.mktemp("file") / "v", ["x", *file])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", 20)  # what was found in an earlier block counts in a later one
        known = read_pretrained(open_vectors(path), tokenizer)
    assert matched(tokenizer, known) == expected
    assert known.source_words == len(file) + 1
    assert known.single_words == sum(word in rows or len(tokenizer.words(word)) == 1 for word in ["x", *file])


def test_other_tokenizers_match_their_pieces_as_they_are_written(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "cat": 1, "##s": 2}, unk_token="[UNK]"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(json.loads(library.to_str()))
    known = read_pretrained(open_vectors(numbered(tmp_path / "v", ["##s", "cats", "cat"])), tokenizer)
    assert matched(tokenizer, known) == {"##s": 0, "cat": 2}


def test_bad_rows_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 8)  # the good row of a word may be in another block
    path = tmp_path / "v"
    path.write_text("a 0 0\nb 1 x\nb 2 -2\nc 3 -3\nd 4 -4\n")
    tokenizer = trained(["a b c d"])
    assert matched(tokenizer, read_pretrained(open_vectors(path), tokenizer)) == {"a": 0, "b": 2, "c": 3, "d": 4}
    assert f"{path}: 1 bad row was left out: 1 with value that is no number ({path}, row 2" in caplog.text
    path.write_text("a 0 0\nb 1\nc 2\nd 4 -4\nx 9\n")
    with pytest.raises(UserError, match=f"{path}, row 2: wrong number of columns .*: 2 of the 3 rows"):
        read_pretrained(open_vectors(path), trained(["a b c"]))


@pytest.fixture(scope="module")
def file(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors for half of the collection's words."""
    passages = [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]
    words = sorted({word for passage in passages for word in passage["text"].split()})[::2]
    vectors = np.random.default_rng(0).normal(size=(len(words), WIDTH)) * 0.3
    rows = [" ".join([word, *(f"{x:.4f}" for x in vector)]) for word, vector in zip(words, vectors, strict=True)]
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_text("\n".join(rows))
    return path


def options(file: Path, *more: str) -> list[str]:
    return ["embedding=pretrained", f"embedding.path={file}", "trainer.max_epochs=1", *more]


def test_runs_start_from_a_files_vectors_and_from_those_of_a_run(file: Path, collection: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(file.read_bytes())
    frozen = ["embedding.freeze=true", "tower.dim=16"]
    fit(collection, tmp_path / "first", *options(copy, *frozen, "tower=gru"))
    copy.unlink()  # the run no longer needs it
    first, tokenizer = load_model(Run(tmp_path / "first"))
    table = first.query_tower.words.vectors
    assert table.shape == (len(tokenizer), WIDTH)
    rows = {word: row for row, word in enumerate(tokenizer.vocabulary)}
    for line in file.read_text().splitlines():
        word, *numbers = line.split()
        assert table[rows[word]].tolist() == np.array(numbers, np.float32).tolist()
    # With fixed weights the projection is all that is trained.
    frozen += ["tower.learn_weights=false", "shared_towers=false"]
    words = f"embedding.vocabulary={tmp_path}/first/tokenizer.json"
    fit(collection, tmp_path / "second", *options(tmp_path / "first" / "checkpoints" / "best.ckpt", words, *frozen))
    second, _ = load_model(Run(tmp_path / "second"))
    for tower in (second.query_tower, second.document_tower):
        assert torch.equal(tower.words.vectors, table)
    assert second.queries(tokenizer.encode(["baba"])).shape == (1, 16)


def test_mistakes_are_told_before_any_data_is_read(file: Path, tmp_path: Path) -> None:
    trains_nothing = ["embedding.freeze=2", "tower.learn_weights=false", "tower.dim=12"]
    with pytest.raises(UserError, match=r"embedding\.freeze=2 leaves nothing to train"):
        fit(tmp_path / "no data", tmp_path / "run", *options(file), *trains_nothing)
    assert not (tmp_path / "run").exists()
