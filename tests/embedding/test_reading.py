"""Every format gives the same words and numbers; what is damaged or dangerous is refused in one sentence."""

import gzip
import itertools
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from two_tower.embedding import _files as files
from two_tower.embedding._files import VectorFile
from two_tower.embedding.pretrained import open_vectors
from two_tower.errors import BadRows, UserError

WORDS = ["the", "Köln", "<unk>", "日本", "don't", "x" * 300]
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 7)).astype(np.float32)


def lines(words: list[str], vectors: np.ndarray, separator: str = " ", end: str = "\n") -> str:
    return "".join(separator.join([w, *map(repr, v.tolist())]) + end for w, v in zip(words, vectors, strict=True))


def binary_bytes(words: list[str], vectors: np.ndarray, end: bytes) -> bytes:
    rows = [w.encode() + b" " + v.astype("<f4").tobytes() + end for w, v in zip(words, vectors, strict=True)]
    return f"{len(words)} {vectors.shape[1]}\n".encode() + b"".join(rows)


def read(file: VectorFile, bad: BadRows | None = None) -> tuple[list[str], np.ndarray]:
    """All words with the vectors of all positions, block by block."""
    words, vectors = [], [np.zeros((0, file.dim), np.float32)]
    for block in file.blocks(bad or BadRows(1)):
        named = np.array([i for i, word in enumerate(block.words) if word], np.int64)
        words += [block.words[i] for i in named]
        if len(named):
            vectors.append(block.vectors(named))
    return words, np.concatenate(vectors)


HEADER = f"{len(WORDS)} {VECTORS.shape[1]}\n"
WITH_WORDS: dict[str, bytes] = {
    "glove.txt": lines(WORDS, VECTORS).encode(),
    "no end of line": lines(WORDS, VECTORS).removesuffix("\n").encode(),
    "tabs": lines(WORDS, VECTORS, "\t").encode(),
    "windows": lines(WORDS, VECTORS, end="\r\n").encode(),
    "word2vec.txt": (HEADER + lines(WORDS, VECTORS)).encode(),
    "fasttext.vec": (HEADER + lines(WORDS, VECTORS, end=" \n")).encode(),
    "gensim.bin": binary_bytes(WORDS, VECTORS, b""),
    "word2vec.bin": binary_bytes(WORDS, VECTORS, b"\n"),
}


def holds_everything(file: VectorFile) -> None:
    assert file.dim == 7
    words, vectors = read(file)
    assert words == WORDS
    np.testing.assert_array_equal(vectors, VECTORS)


@pytest.mark.parametrize("name", WITH_WORDS)
def test_formats_with_words(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vectors"
    for block in (80, 1 << 20):  # small ones cut rows in the middle
        monkeypatch.setattr(files, "BLOCK_BYTES", block)
        for content in (WITH_WORDS[name], gzip.compress(WITH_WORDS[name])):
            path.write_bytes(content)
            holds_everything(open_vectors(path))


def save_npy(path: Path, matrix: np.ndarray = VECTORS) -> Path:
    with path.open("wb") as file:
        np.save(file, matrix)
    return path


def save_list(folder: Path, text: str = "\n".join(WORDS), name: str = "words.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


OLD = "pth, old format"
TABLE = torch.from_numpy(VECTORS)
TENSORS = {"embedding.weight": TABLE, "head.weight": torch.zeros(3, 7)}
SHARED = {"state_dict": {"query.words": TABLE, "document.words": TABLE}, "epoch": 3, "exp_avg": TABLE + 0}
MATRICES: dict[str, Callable[[Path], object]] = {
    "npy": save_npy,
    "npy, by columns": lambda path: save_npy(path, np.asfortranarray(VECTORS)),
    "pth": lambda path: torch.save(TENSORS, path),
    "pth, the tensor alone": lambda path: torch.save(TABLE, path),
    OLD: lambda path: torch.save(TENSORS, path, _use_new_zipfile_serialization=False),
    "checkpoint, shared towers": lambda path: torch.save(SHARED, path),
    "safetensors": lambda path: save_file(TENSORS, path),
}
ROWS = {word: row for row, word in enumerate(WORDS)}
LISTS: dict[str, str] = {
    "lines.txt": "\n".join(WORDS) + "\n",
    "list.json": json.dumps(WORDS),
    "words.json": json.dumps(dict(enumerate(WORDS))),
    "beside.json": json.dumps({"size": 6, "word2idx": ROWS}),
    "tokenizer.json": json.dumps({"version": "1", "model": {"type": "WordLevel", "vocab": ROWS}}),
}


@pytest.mark.parametrize(("matrix", "words"), zip(MATRICES, itertools.cycle(LISTS)))
def test_matrices_with_lists_of_words(matrix: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / ("matrix.pth" if matrix == OLD else "matrix.any")  # an old file looks like any pickle
    MATRICES[matrix](path)
    holds_everything(open_vectors(path, save_list(tmp_path, LISTS[words], words)))


def test_other_number_types_become_float32_and_rows_without_a_word_are_left_out(tmp_path: Path) -> None:
    for dtype in (np.float16, np.float64, np.int32):
        matrix: np.ndarray = (VECTORS * 100).astype(dtype)
        found = read(open_vectors(save_npy(tmp_path / "m.npy", matrix), save_list(tmp_path)))[1]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, matrix.astype(np.float32))
    table = TABLE.bfloat16()
    torch.save({"a": table, "b": table[:5] + 0}, tmp_path / "m.pth")
    words, vectors = read(open_vectors(tmp_path / "m.pth", save_list(tmp_path, '{"x": 2, "y": 4}', "w.json")))
    assert words == ["x", "y"]
    np.testing.assert_array_equal(vectors, table[[2, 4]].float().numpy())
    words, vectors = read(open_vectors(tmp_path / "m.pth", save_list(tmp_path, "a\nb"), "a"))  # more rows, for padding
    assert words == ["a", "b"]
    np.testing.assert_array_equal(vectors, table[:2].float().numpy())


ANY_WORD = st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8)
ANY_VECTOR = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(ANY_WORD, ANY_VECTOR), min_size=1, max_size=20))
def test_any_words_and_numbers(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[float]]]) -> None:
    words, vectors = [w for w, _ in rows], np.array([v for _, v in rows], np.float32)
    path = tmp_path_factory.mktemp("any") / "vectors"
    header = f"{len(words)} 3\n"
    for content in ((header + lines(words, vectors)).encode(), binary_bytes(words, vectors, b"\n")):
        path.write_bytes(content)
        found, numbers = read(open_vectors(path))
        assert found == words
        np.testing.assert_array_equal(numbers, vectors)


BAD = [
    *(("wrong number of columns", line) for line in ("b 1 2", "b 1 2 3 4")),
    ("value that is no number", "b 1 x 3"),
    ("number that is not finite", "b inf 2 3"),
]


@pytest.mark.parametrize("header", ["", "3 3\n"])
@pytest.mark.parametrize(("kind", "line"), BAD)
def test_bad_lines_are_counted_with_their_place(kind: str, line: str, header: str, tmp_path: Path) -> None:
    path, bad = save_list(tmp_path, f"{header}a 1 2 3\n{line}\n\nc 7 8e0 +9\n"), BadRows(1)
    words, vectors = read(open_vectors(path), bad)
    assert words == ["a", "b", "c"]
    usable = np.isfinite(vectors).all(axis=1)
    assert usable.tolist() == [True, False, True]
    np.testing.assert_array_equal(vectors[usable], [[1, 2, 3], [7, 8, 9]])
    assert bad.counts == {kind: 1}
    assert bad.examples[kind][0].startswith(f"{path}, row {3 if header else 2}: ")


def test_words_with_blanks_are_no_bad_rows(tmp_path: Path) -> None:
    bad = BadRows(1)
    words, vectors = read(open_vectors(save_list(tmp_path, "a 1 2 3\nat b@c.com 4 5 6\n. . . 7 8 9\n")), bad)
    assert words == ["a", "at", "."]
    assert np.isfinite(vectors).all(axis=1).tolist() == [True, False, False]
    assert not bad.counts


def test_words_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    for content in (
        b"a 1 2\n\xffb 3 4\nc 5 6\n",
        b"3 2\na " + struct.pack("<2f", 1, 2) + b"\xffb " + struct.pack("<2f", 3, 4) + b"c " + struct.pack("<2f", 5, 6),
    ):
        path.write_bytes(content)
        bad = BadRows(1)
        assert read(open_vectors(path), bad)[0] == ["a", "c"]
        assert bad.counts == {"invalid UTF-8": 1}
        assert "row 2" in bad.examples["invalid UTF-8"][0]


class Danger:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["vectors.kv", "vectors.pkl", "vectors.npy", "vectors.pth", "vectors.pt", "new.pth"])
def test_no_code_in_a_file_is_run(name: str, tmp_path: Path) -> None:
    trace, path, words = tmp_path / "trace", tmp_path / name, save_list(tmp_path, "a\nb")
    if name == "vectors.npy":
        save_npy(path, np.array([[Danger(trace)]], object))
    elif name == "new.pth":
        torch.save({"w": torch.zeros(2, 3), "x": Danger(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"w": Danger(trace)}))
    with pytest.raises(UserError, match=str(path)) as caught:
        open_vectors(path, words)
    assert not trace.exists()
    if name.endswith(("kv", "pkl")):
        assert "save_word2vec_format" in str(caught.value)
    pickle.loads(pickle.dumps(Danger(trace)))  # the trap works
    assert trace.exists()


def glove(path: Path, content: bytes = b"a 1 2\n") -> None:
    path.write_bytes(content)


REFUSED: dict[str, tuple[Callable[[Path], None], dict[str, str], str]] = {
    "nothing there": (lambda p: None, {}, r"embedding\.path=\S+ does not exist"),
    "prose": (lambda p: glove(p, b"Call me Ishmael.\n"), {}, "row 1: 'Call me Ishmael.' is no word with a vector"),
    "cut gzip": (lambda p: glove(p, gzip.compress(b"a 1 2\n" * 999)[:-9]), {}, "cannot be read to its end"),
    "zip": (lambda p: glove(p, b"PK\x03\x04glove"), {}, "is a zip archive: unpack it"),
    "fasttext": (lambda p: glove(p, b"\xba\x16\x4f\x2f\x0c"), {}, r"give its \.vec file"),
    "words twice": (glove, {"vocabulary": "a"}, r"embedding\.vocabulary is not for .* holds its own words"),
    "no words": (lambda p: save_npy(p, VECTORS), {}, r"holds vectors but no words: add embedding\.vocabulary"),
    "other list": (lambda p: save_npy(p, VECTORS), {"vocabulary": "a\nb"}, "has 6 rows and .* 2 words"),
    "no matrix": (lambda p: save_npy(p, VECTORS[0]), {"vocabulary": "a"}, "a matrix of numbers is needed"),
    "which": (lambda p: torch.save({"a": torch.ones(2, 3), "b": torch.ones(2, 4)}, p), {"vocabulary": "a\nb"},
              r"holds 2 matrices with 2 rows.* embedding\.tensor=NAME \(a 2×3, b 2×4\)"),
    "typo": (lambda p: torch.save({"words": torch.ones(2, 3)}, p), {"vocabulary": "a\nb", "tensor": "word"},
             "did you mean 'words'"),
    "too small": (lambda p: torch.save({"w": torch.ones(1, 3)}, p), {"vocabulary": "a\nb", "tensor": "w"},
                  r"embedding\.tensor=w in \S+ has 1 rows and .* 2 words"),
    "no tensors": (lambda p: torch.save([1, 2], p), {"vocabulary": "a\nb"}, "it holds no matrix"),
    "cut binary": (lambda p: glove(p, WITH_WORDS["gensim.bin"][:-1]), {}, "ends after 5 of its 6 words"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    write, options, message = REFUSED[name]
    write(tmp_path / "vectors")
    words = save_list(tmp_path, options["vocabulary"]) if "vocabulary" in options else None
    with pytest.raises(UserError, match=message):
        read(open_vectors(tmp_path / "vectors", words, options.get("tensor")))


def test_json_that_is_no_list_of_words(tmp_path: Path) -> None:
    for content in ("{", "3", '{"a": 1, "b": 1}', '{"a": [1]}'):
        words = save_list(tmp_path, content, "w.json")
        with pytest.raises(UserError, match=str(words)):
            open_vectors(save_npy(tmp_path / "m.npy"), words)
