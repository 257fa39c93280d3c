"""A teacher's vectors: each text encoded once, whatever happens in between."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from elsewhere import Elsewhere
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from two_tower.cache import cache_folder
from two_tower.engine.local import LOCAL
from two_tower.errors import UserError
from two_tower.teacher import _vectors as vectors
from two_tower.teacher._vectors import teacher_vectors
from two_tower.teacher.base import Teacher
from two_tower.teacher.none import NoTeacher


def vector_of(text: str) -> np.ndarray:
    drawn = np.random.default_rng([*text.encode()]).normal(size=6)
    return drawn / np.linalg.norm(drawn)


class Recorder(Teacher):
    """Notes what it is asked; gives up after some calls."""

    name, dim = "recorder", 6

    def __init__(self, print_: str = "a", calls: int = 10**9) -> None:
        self._print, self.calls, self.seen = print_, calls, []

    def fingerprint(self) -> str:
        return self._print

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        self.seen += texts
        return np.array([vector_of(text) for text in texts], np.float32)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vectors, "SHARD_ROWS", 5)
    monkeypatch.setattr(vectors, "BLOCK", 2)


TEXTS = pa.chunked_array([[f"text {'x' * (i % 4)} {i}" for i in range(7)], [f"more {i}" for i in range(10)]])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(calls=st.integers(0, 9))
def test_interrupted_it_goes_on_where_it_was(calls: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWO_TOWER_CACHE", str(tmp_path_factory.mktemp("cache")))
        first = Recorder(calls=calls)
        with suppress(KeyboardInterrupt):
            teacher_vectors(first, TEXTS, "texts")
        shards = {p: p.stat().st_mtime_ns for p in cache_folder().rglob("vectors-*.npy")}
        second = Recorder()
        made = teacher_vectors(second, TEXTS, "texts")
        assert {p: p.stat().st_mtime_ns for p in shards} == shards
        assert len(second.seen) == 17 - sum(len(np.load(p)) for p in shards)
        wanted = [vector_of(text) for text in TEXTS.to_pylist()]
        np.testing.assert_allclose(made.take(np.arange(17)), wanted, atol=1e-3)  # kept in half precision
        np.testing.assert_allclose(made.take(np.array([16, 7, 7])), [wanted[16], wanted[7], wanted[7]], atol=1e-3)
        assert (len(made), made.take(np.zeros(0, np.int64)).shape) == (17, (0, 6))


def test_an_engine_writes_the_same_files_and_more_go_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for engine in (LOCAL, Elsewhere()):
        monkeypatch.setenv("TWO_TOWER_CACHE", str(cache_folder() / "other"))
        teacher_vectors(Recorder(), TEXTS, "texts", engine=engine)
        teacher_vectors(Recorder(), pa.array(["new", "text  0"]), "texts", engine=engine)
        found.append({path.name: path.read_bytes() for path in cache_folder().glob("teacher/*/*.npy")})
    assert len(found[0]) == 2 * 5
    assert found[0] == found[1]


def test_what_is_missing_between_two_shards_goes_behind_them() -> None:
    teacher_vectors(Recorder(), TEXTS, "texts")
    for path in cache_folder().rglob("*-00001.npy"):  # the last one that a killed process would have written
        path.unlink()
    teacher_vectors(second := Recorder(), TEXTS, "texts")
    assert len(second.seen) == 5
    assert {path.name[-9:-4] for path in cache_folder().rglob("vectors-*")} == {"00000", "00002", "00003", "00004"}


def test_they_are_made_once_and_anew_when_anything_changes() -> None:
    first = Recorder()
    teacher_vectors(first, TEXTS, "texts")
    assert sorted(first.seen) == sorted(TEXTS.to_pylist())
    again = Recorder()
    teacher_vectors(again, TEXTS, "texts")
    assert again.seen == []
    other = Recorder("b")
    teacher_vectors(other, TEXTS, "texts")
    assert len(other.seen) == 17


def test_only_new_texts_are_encoded_whichever_collection_they_are_of() -> None:
    teacher_vectors(Recorder(), TEXTS, "texts")
    mixed = pa.array(["more 3", "new", "text  0", "new", "more 3", "newer", ""])
    teacher = Recorder()
    made = teacher_vectors(teacher, mixed, "others")
    assert sorted(teacher.seen) == ["", "new", "newer"]
    wanted = [vector_of(text) for text in mixed.to_pylist()]
    np.testing.assert_allclose(made.take(np.arange(7)), wanted, atol=1e-3)
    assert len(made) == 7


def test_a_damaged_part_is_told() -> None:
    with pytest.raises(KeyboardInterrupt):
        teacher_vectors(Recorder(calls=5), TEXTS, "texts")
    (part,) = cache_folder().rglob("vectors-00000.npy")
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"vectors-00000\.npy is not as it was written"):
        teacher_vectors(Recorder(), TEXTS, "texts")


def test_without_a_teacher_it_says_what_to_do() -> None:
    with pytest.raises(UserError, match="add teacher=sentence_transformer"):
        teacher_vectors(NoTeacher(), TEXTS, "texts")


def test_of_a_sample_only_the_sample_is_encoded() -> None:
    teacher, rows = Recorder(), np.array([0, 5, 16])
    made = teacher_vectors(teacher, TEXTS, "texts", rows)
    assert len(teacher.seen) == 3
    np.testing.assert_allclose(made.take(rows), [vector_of(TEXTS[int(row)].as_py()) for row in rows], atol=1e-3)
