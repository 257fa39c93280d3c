"""Damaged files, senseless settings, strange queries: what they cannot be taken for is one sentence, nothing else.

``make fuzz`` tries thousands of cases, ``make test`` some of them: ``CASES`` says how many. What was found is an
``@example``, or has a test of its own where its kind is tested.
"""

import functools
import gzip
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import composed
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_train import fit
from training import embedded

from two_tower.config.compose import compose_raw
from two_tower.config.compose import composed as checked
from two_tower.config.saved import leaves
from two_tower.errors import UserError
from two_tower.loading import make_source
from two_tower.search import Searcher
from two_tower.train import _types

CASES = int(os.environ.get("CASES", 60))
fuzzed = settings(
    max_examples=CASES, deadline=10_000, derandomize="CASES" not in os.environ,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip

WHOLE = {
    "pairs": {
        "faq.csv": b'question,answer\noak,"A tree, tall."\nfish,The sea.\n',
        "faq.tsv": b"what is an oak?\tA tree, tall.\nwhere are fish?\tThe sea.\n",
        "excel.csv": 'sep=;\r\nFrage;Antwort\r\nmüde;"Schläft; tief."\r\n'.encode("cp1252"),
        "faq.jsonl": b'{"question": "oak", "answer": "A tree, tall."}\n{"question": "fish", "answer": "The sea."}\n',
    },
    "passages": {
        "docs.json": b'[{"id": 7, "text": "A tree, tall."}, {"id": 8, "text": "The sea."}]',
        "more.json": b'{\n "id": 7,\n "text": "A tree."\n}\n{"id": 8, "text": "The sea.", "url": "https://a.b/c"}\n',
        "wide.tsv": "7\tA tree, tall.\n8\t海は広い\n".encode("utf-16"),
        "packed.jsonl": gzip.compress(b'{"id": "d1", "contents": "A tree, tall."}\n' * 2, mtime=0),
    },
    "beir": {
        "corpus.jsonl": b'{"_id": "d1", "title": "", "text": "A tree, tall."}\n{"_id": "d2", "text": "The sea."}\n',
        "queries.jsonl": b'{"_id": "q1", "text": "oak"}\n',
        "qrels/dev.tsv": b"query-id\tcorpus-id\tscore\nq1\td1\t1\n",
    },
}  # fmt: skip
PIECES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b'""', b"\t", b"\n", b"\r", b"\r\n", b",", b";", b"|", b"{", b"}", b"[]",
    b"null", b"NaN", b"1e999", b"\\u0000", b"\\ud800", "\u2028\u202e".encode(), b"\x1f\x8b", b"PK\x03\x04", b"0" * 400,
    b"x" * 70_000, b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n",
]  # fmt: skip


@functools.cache
def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"id": ["7", "8"], "text": ["A tree", "The sea"]}), sink)
    return bytes(sink.getvalue())


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content after one to four cuts, insertions, changed or repeated bytes."""
    for _ in range(rng.randint(1, 4)):
        a, b = sorted(rng.randint(0, len(content)) for _ in range(2))
        match rng.randrange(5):
            case 0:
                content = content[:a] + content[min(b, a + rng.randint(1, 20)) :]
            case 1:
                content = content[:a] + rng.choice(PIECES) + content[a:]
            case 2:
                content = content[:a] + bytes([rng.randrange(256)]) + content[a + 1 :]
            case 3:
                content = content[:b] + content[a:b] + content[b:]
            case 4:
                content = content[:a]
    return content


@fuzzed
@given(st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    data = rng.choice([*WHOLE])
    files = dict(WHOLE[data])
    if data != "beir":
        name, content = rng.choice([*files.items(), ("some.parquet", parquet())])
        files = {name: content}
    damage = rng.choice([*files])
    files[damage] = damaged(files[damage], rng)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        place = folder if data == "beir" else f"{folder}/{damage}"
        tolerance = rng.choice(["0", "0.6", "1"])

        def read() -> None:
            source = make_source(composed_with(data, place, tolerance))
            for batch in source.corpus():
                batch.validate(full=True)
            for split in source.splits():
                assert source.queries(split).num_rows >= 0
                assert source.qrels(split).num_rows >= 0
            source.fingerprint()

        refused_or_done(read)


def composed_with(data: str, path: str, tolerance: str) -> dict:
    config = composed(f"data={data}", "data.path=PATH")["data"]
    return {**config, "path": path, "max_bad_rows": float(tolerance)}


def refused_or_done(act: Callable[[], object]) -> None:
    """A UserError of one line, or none at all."""
    said = "something"
    try:
        act()
    except UserError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said


VALUES = [
    "", "null", "-1", "0", "1", "1.5", "1e-9", "1e999", "nan", "true", "abc", "[1,2]", "{a:1}", "'x'", "[", "}", "${x}",
    "${oc.env:HOME}", "???", "1,2", "range(1,3)", "choice(1)", "💥", "a=b", "..", "/", "~", "\\", "gru", "average",
    "-0.0", "99999999999999999999", "0x10",
]  # fmt: skip


@functools.cache
def keys() -> list[str]:
    config = compose_raw("train", [])
    return [*leaves(OmegaConf.to_container(config)), *map(str, config)]


PARTS = {group: _types().get(group, {}) for group in ("tokenizer", "data", "tower", "loss", "optimizer", "trainer")}


@fuzzed
@given(st.integers(0, 2**32))
def test_senseless_settings_are_refused(seed: int) -> None:
    rng, overrides = random.Random(seed), list[str]()
    for _ in range(rng.randint(1, 3)):
        key, value = rng.choice(keys()), rng.choice(VALUES)
        if rng.random() < 0.2:
            key = "".join(rng.sample(key, len(key)))
        overrides.append(rng.choice(["", "", "", "+", "++", "~"]) + key + rng.choice(["=", "=", "=", "", ":"]) + value)
    refused_or_done(lambda: checked(overrides, PARTS))


@pytest.fixture(scope="module")
def run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "run"
    fit(collection, path, "trainer.max_steps=2", "validation.bm25=false")
    return embedded(path)


@pytest.fixture(scope="module")
def searcher(run: Path) -> Searcher:
    return Searcher.load(run)


@fuzzed
@given(st.text(max_size=300), st.sampled_from(["dense", "bm25", "hybrid"]), st.integers(1, 400))
@example("\0", "hybrid", 1)
@example("\ud800", "bm25", 1)
def test_any_query_is_answered(searcher: Searcher, query: str, mode: str, k: int) -> None:
    (answer,) = searcher.search([query], k=k, mode=mode)
    assert len(answer.hits) <= k
    for hit in answer.hits:
        assert all(0 <= start < end <= len(hit.text) for start, end in hit.marks)


@fuzzed
@given(st.integers(0, 2**32))
def test_a_damaged_index_is_refused(run: Path, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        index = shutil.copytree(run / "index", Path(folder, "index"))
        path = rng.choice(sorted(path for path in index.rglob("*") if path.is_file()))
        content = path.read_bytes()
        path.write_bytes(damaged(content, rng))
        if path.read_bytes() == content:
            return
        refused_or_done(lambda: Searcher.load(run, index).search(["bababa"], k=3))
