"""Vectors on disk: what is kept is what was given, in every precision, and whatever changes is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from two_tower.errors import UserError
from two_tower.files import file_hash
from two_tower.store import Manifest, VectorStore

DIM, ROWS, SHARD = 16, 23, 10


def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    made = rng.normal(size=(ROWS, DIM)).astype(np.float32) * rng.uniform(0.01, 100, (ROWS, 1)).astype(np.float32)
    made[7] = 0  # a text without any known word
    return made


def stored(folder: Path, dtype: str = "float32") -> VectorStore:
    store = VectorStore(folder, Manifest("c", "t", "x", "dot", DIM, SHARD, dtype))
    for number, start in enumerate(range(0, ROWS, SHARD)):
        part = vectors()[start : start + SHARD]
        names = [f"d{start + i}" for i in range(len(part))]
        store.write(number, part, pa.table({"id": names, "title": names, "text": names}))
    store.finish()
    return VectorStore.open(folder)


@pytest.mark.parametrize(
    ("dtype", "error", "size"), [("float32", 0.0, 4 * DIM), ("float16", 0.001, 2 * DIM), ("int8", 0.005, DIM + 4)]
)
def test_vectors_come_back_as_float32_and_smaller_numbers_need_less_space(
    tmp_path: Path, dtype: str, error: float, size: int
) -> None:
    store, given = stored(tmp_path, dtype), vectors()
    found = list(store.vectors())
    assert [len(part) for part in found] == [10, 10, 3]
    assert all(part.dtype == np.float32 for part in found)
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


@pytest.mark.parametrize("name", ["vectors-00001.npy", "passages-00002.arrow", "scales-00000.npy"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_every_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    store, path = stored(tmp_path, "int8"), tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-1])
    if damage == "gone":
        path.unlink()
    with pytest.raises(UserError, match=f"{name} is not as it was written"):
        store.verify()


def test_a_shard_of_another_size_is_refused(tmp_path: Path) -> None:
    store, path = stored(tmp_path), tmp_path / "vectors-00001.npy"
    np.save(path, np.zeros((4, DIM), np.float32))
    with pytest.raises(UserError, match="does not hold its 10 vectors"):
        list(store.vectors())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"vectors-00001\.npy is missing or damaged"):
        list(store.vectors())


def test_the_manifest_says_what_it_is(tmp_path: Path) -> None:
    manifest = json.loads((stored(tmp_path).path / "manifest.json").read_text())
    assert (manifest["dtype"], manifest["dim"], manifest["complete"]) == ("float32", DIM, True)
    shard = manifest["shards"]["vectors-00002.npy"]
    assert shard["rows"] == 3
    assert shard["checksum"] == file_hash(tmp_path / "vectors-00002.npy")
    with pytest.raises(UserError, match=r"dtype=int4 does not exist"):
        Manifest("c", "t", "x", "dot", DIM, SHARD, "int4")
