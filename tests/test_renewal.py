"""Where a collection has changed, only what is new is encoded, and the folder is as if it were made from scratch."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import composed, word
from test_train import fit

from two_tower import files
from two_tower.embed import embed
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.search import Searcher

Row = dict[str, Any]


@pytest.fixture(scope="module")
def runs(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for tower in ("average", "gru"):
        fit(collection, folder / tower, f"tower={tower}", "tokenizer.min_frequency=1", "trainer.max_epochs=1")
    return {tower: folder / tower for tower in ("average", "gru")}


@pytest.fixture
def rows(collection: Path) -> list[Row]:
    """The passages of the collection that the runs were trained on."""
    return [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many passages each call has encoded."""
    counts, documents = list[int](), Encoder.documents

    def counted(self: Encoder, texts: Any, *rest: Any) -> np.ndarray:  # noqa: ANN401
        counts.append(len(texts))
        return documents(self, texts, *rest)

    monkeypatch.setattr(Encoder, "documents", counted)
    return counts


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def embed_rows(run: Path, file: Path, output: Path, *options: str) -> None:
    data = ("data=passages", f"data.path={file}", "shard_rows=50")
    embed(composed(f"run={run}", f"output={output}", *data, *options, program="embed"))


@pytest.fixture
def begun(runs: dict[str, Path], rows: list[Row], tmp_path: Path) -> tuple[Path, Path, Path]:
    """A run, the file of its passages, which has changed since, and the index that was made before."""
    run, file, output = runs["average"], tmp_path / "mine.jsonl", tmp_path / "index"
    embed_rows(run, write(file, rows), output)
    write(file, changed(rows))
    return run, file, output


def assert_as_from_scratch(run: Path, file: Path, output: Path, *options: str) -> None:
    fresh = output.with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    embed_rows(run, file, fresh, *options)
    names = {path.name for path in fresh.iterdir()}
    assert {path.name for path in output.iterdir()} == names
    for name in names - {"report.json"}:  # which says how long it took
        assert (output / name).read_bytes() == (fresh / name).read_bytes(), name
    assert not [path for path in output.parent.iterdir() if path.name.startswith(".")]


def changed(rows: list[Row]) -> list[Row]:
    """One passage more, one less, one with another text, and one with another text and a word that no run knows."""
    others = [dict(row) for row in rows if row["_id"] != rows[7]["_id"]]
    others[20]["text"] += f" {word(3)}"
    others[60]["text"] += " zebrafish"
    return [*others, {"_id": "more", "title": "", "text": f"{word(1)} {word(2)}"}]


@pytest.mark.parametrize(
    ("tower", "dtype", "engine"),
    [("average", "float32", "two_tower.engine.local.LocalEngine"), ("gru", "int8", "elsewhere.Elsewhere")],
)
def test_only_what_is_new_is_encoded(
    tower: str, dtype: str, engine: str, runs: dict[str, Path], rows: list[Row], encoded: list[int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, output = runs[tower], tmp_path / "index"
    embed_rows(run, write(tmp_path / "mine.jsonl", rows), output, f"dtype={dtype}")
    file = write(tmp_path / "mine.jsonl", changed(rows))
    encoded.clear()
    capsys.readouterr()
    embed_rows(run, file, output, f"dtype={dtype}", f"engine._target_={engine}")
    assert sum(encoded) == 3
    assert f"{len(rows) - 3:,} kept, 1 added, 2 changed, 1 deleted; 3 encoded" in " ".join(
        capsys.readouterr().out.split()
    )
    assert_as_from_scratch(run, file, output, f"dtype={dtype}")
    assert not Searcher.load(run, output).search(["zebrafish"])[0].notes


def test_order_fields_and_shards_encode_nothing(
    runs: dict[str, Path], rows: list[Row], encoded: list[int], tmp_path: Path
) -> None:
    run, output = runs["average"], tmp_path / "index"
    embed_rows(run, write(tmp_path / "mine.jsonl", rows), output)
    shuffled = random.Random(0).sample(rows, len(rows))
    encoded.clear()
    for others, options in (
        (shuffled, ()),
        ([{**row, "date": "today"} for row in shuffled], ()),
        (shuffled, ("shard_rows=70",)),
    ):
        file = write(tmp_path / "mine.jsonl", others)
        embed_rows(run, file, output, *options)
        assert not sum(encoded)
        assert_as_from_scratch(run, file, output, *options)
        encoded.clear()


def test_passages_with_a_word_that_means_something_else_now_are_encoded(
    runs: dict[str, Path], encoded: list[int], tmp_path: Path
) -> None:
    """Elsewhere a word weighs less once more passages have it."""
    run, output = runs["average"], tmp_path / "index"
    rows = [{"_id": str(i), "text": f"{word(i)} {'rare' if i == 5 else 'other'}"} for i in range(40)]
    embed_rows(run, write(tmp_path / "mine.jsonl", rows), output)
    rows += [{"_id": f"more {i}", "text": f"rare {word(i)}"} for i in range(3)]
    encoded.clear()
    file = write(tmp_path / "mine.jsonl", rows)
    embed_rows(run, file, output)
    assert 4 <= sum(encoded) < 20  # the three, the fifth, and those with a word of the three
    assert_as_from_scratch(run, file, output)


def test_the_old_state_is_whole_until_the_new_one_is(
    begun: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file, output = begun
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    for part in ("store.VectorStore.finish", "index.faiss.FaissIndex.build", "renewal.exchange"):
        monkeypatch.setattr(f"two_tower.{part}", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed_rows(run, file, output)
        monkeypatch.undo()
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before, part
    embed_rows(run, file, output)
    assert_as_from_scratch(run, file, output)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_state_that_is_past_is_not_continued(
    begun: tuple[Path, Path, Path], rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file, output = begun
    monkeypatch.setattr("two_tower.store.VectorStore.finish", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed_rows(run, file, output)
    monkeypatch.undo()
    write(file, changed(rows)[::-1])
    embed_rows(run, file, output)
    assert_as_from_scratch(run, file, output)


def test_what_a_process_left_that_was_killed_at_its_very_end_is_deleted(
    begun: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file, output = begun
    exchange = files.exchange

    def interrupted(*folders: Path) -> None:
        exchange(*folders)
        raise KeyboardInterrupt

    monkeypatch.setattr("two_tower.renewal.exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed_rows(run, file, output)
    monkeypatch.undo()
    assert output.with_name(".index.next").exists()
    embed_rows(run, file, output)
    assert_as_from_scratch(run, file, output)


def test_another_run_is_still_refused(runs: dict[str, Path], rows: list[Row], tmp_path: Path) -> None:
    file, output = write(tmp_path / "mine.jsonl", rows), tmp_path / "index"
    embed_rows(runs["average"], file, output)
    write(file, changed(rows))
    with pytest.raises(UserError, match=r"checkpoint.*delete that folder"):
        embed_rows(runs["gru"], file, output)
    with pytest.raises(UserError, match=r"dtype.*delete that folder"):
        embed_rows(runs["average"], file, output, "dtype=float16")


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_folders_exchange_their_names(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, or one after the other; what was cut in between is settled."""
    monkeypatch.setattr("sys.platform", system)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    files.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
    (tmp_path / "b").rename(tmp_path / ".b.away")
    files.settle(tmp_path / "b")
    assert (tmp_path / "b" / "a").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
