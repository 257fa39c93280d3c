"""Vectors on disk: what is kept is what was given, in every precision, and whatever changes is noticed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from two_tower.errors import UserError
from two_tower.store import Manifest, VectorStore

DIM, ROWS, SHARD = 16, 23, 10


def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    made = rng.normal(size=(ROWS, DIM)).astype(np.float32) * rng.uniform(0.01, 100, (ROWS, 1)).astype(np.float32)
    made[7] = 0  # a text without any known word
    return made


def stored(
    folder: Path, given: np.ndarray, shard: int = SHARD, similarity: str = "dot", dtype: str = "float32"
) -> VectorStore:
    store = VectorStore(folder, Manifest("c", "t", "x", similarity, given.shape[1], shard, dtype))
    for number, start in enumerate(range(0, len(given), shard)):
        part = given[start : start + shard]
        ids = [str(start + i) for i in range(len(part))]
        store.write(number, part, pa.table({"id": ids, "title": ids, "text": ids}))
    store.finish()
    return VectorStore.open(folder)


@pytest.mark.parametrize(
    ("dtype", "error", "size"), [("float32", 0.0, 4 * DIM), ("float16", 0.001, 2 * DIM), ("int8", 0.005, DIM + 4)]
)
def test_vectors_come_back_as_float32(tmp_path: Path, dtype: str, error: float, size: int) -> None:
    given = vectors()
    store = stored(tmp_path, given, dtype=dtype)
    found = list(store.vectors())
    assert [(len(part), part.dtype) for part in found] == [(10, np.float32), (10, np.float32), (3, np.float32)]
    whole = np.concatenate(found)
    assert (np.abs(whole - given) <= error * np.abs(given).max(1, keepdims=True)).all()
    assert (whole[7] == 0).all()
    assert np.load(tmp_path / "vectors-00001.npy").dtype == np.dtype(dtype)
    files = [*tmp_path.glob("vectors-*"), *tmp_path.glob("scales-*")]
    assert sum(np.load(file).nbytes for file in files) == ROWS * size
    store.verify()
    sample, rows = store.sample(9, seed=0)
    np.testing.assert_array_equal(sample, whole[rows])
    assert (np.diff(rows) > 0).all()


def test_shards_may_be_finished_in_any_order(tmp_path: Path) -> None:
    given = vectors()
    whole = stored(tmp_path / "whole", given, dtype="int8")
    store = VectorStore(tmp_path / "parts", Manifest("c", "t", "x", "dot", DIM, SHARD, "int8"))
    for numbers in ([2], [0, 2], [0, 1, 2]):
        number = next(n for n in numbers if n not in store.shards)
        texts = next(table for n, table in enumerate(whole.texts()) if n == number)
        store.write(number, given[number * SHARD : (number + 1) * SHARD], texts)
        store = VectorStore.open(tmp_path / "parts")
        assert [*store.shards] == numbers
        store.verify()
        expected = np.concatenate([part for n, part in enumerate(whole.vectors()) if n in numbers])
        np.testing.assert_array_equal(np.concatenate([*store.vectors()]), expected)
        assert store.ids().to_pylist() == [str(row) for row in range(ROWS) if row // SHARD in numbers]
    store.finish()
    for name in ("manifest.json", "ids.txt"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("name", ["vectors-00001.npy", "passages-00002.arrow", "scales-00000.npy"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_every_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    store, path = stored(tmp_path, vectors(), dtype="int8"), tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-1])
    if damage == "gone":
        path.unlink()
    with pytest.raises(UserError, match=f"{name} is not as it was written"):
        store.verify()
    if name.startswith("passages") and damage != "flipped":
        with pytest.raises(UserError, match=f"{name} is missing or damaged: embed again"):
            list(VectorStore.open(tmp_path).texts())


def test_a_shard_of_another_size_a_damaged_manifest_and_an_unknown_precision_are_refused(tmp_path: Path) -> None:
    store, path = stored(tmp_path, vectors()), tmp_path / "vectors-00001.npy"
    np.save(path, np.zeros((4, DIM), np.float32))
    with pytest.raises(UserError, match="does not hold its 10 vectors"):
        list(store.vectors())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"vectors-00001\.npy is missing or damaged"):
        list(store.vectors())
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        VectorStore.open(tmp_path)
    with pytest.raises(UserError, match=r"dtype=int4 does not exist"):
        Manifest("c", "t", "x", "dot", DIM, SHARD, "int4")
