"""From a folder of text to search results, by the commands that a person types, from another folder."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from forked import run_forked

from embed import embed
from two_tower import cli
from two_tower.metrics import DEFAULT_METRICS
from two_tower.search import Searcher

Call = Callable[..., Any]  # see conftest.py in this folder


def train_command(collection: Path, run: str, *overrides: str) -> list[str]:
    return [
        "train.py", "data=beir", f"data.path={collection}", "data.batch_size=32", "tower.dim=16", "trainer=cpu",
        "trainer.max_epochs=8", f"run_dir={run}", *overrides,
    ]  # fmt: skip


def files(folder: Path) -> dict[str, int]:
    """Every file with the time of its last change."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def succeeds(*arguments: str | Path, cwd: Path) -> str:
    """What a command prints; it must end well and write nothing on stderr."""
    done = run_forked(*arguments, cwd=cwd)
    assert (done.status, done.err) == (0, ""), done.err
    return done.out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which the commands are run."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def run(collection: Path, place: Path) -> Path:
    """A run that was never interrupted, embedded."""
    printed = succeeds(*train_command(collection, "whole"), cwd=place)
    assert "Next: python embed.py run=whole" in printed
    flat = {"_target_": "two_tower.index.faiss.FlatIndex", "gpu": False, "target_recall": None, "sample": 1000}
    embed({"run": str(place / "whole"), "output": None, "data": None, "index": flat, "shard_rows": 65_536})
    return place / "whole"


def test_search_prints_one_json_document(run: Path, collection: Path, place: Path) -> None:
    passages = [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]
    wanted = passages[17]
    printed = succeeds("two-tower", "search", "whole", wanted["text"], "-k", "3", "--json", cwd=place)
    found = json.loads(printed)
    assert set(found) == {"query", "hits"}
    assert found["query"] == wanted["text"]
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert {k: v for k, v in found["hits"][0].items() if k not in ("rank", "score")} == {
        "id": "d17", "title": wanted["title"], "text": wanted["text"],
    }  # fmt: skip
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_search_answers_every_line_of_a_pipe(run: Path, collection: Path, call: Call) -> None:
    titles = [json.loads(line)["title"] for line in (collection / "corpus.jsonl").read_text().splitlines()][:2]
    ended = call("two-tower", "search", run, "-k", "1", "--json", stdin="\n\n".join(titles))
    assert [json.loads(line)["query"] for line in ended.out.splitlines()] == titles
    ended = call("two-tower", "search", run, "-k", "2", stdin="\n\n".join(titles))
    assert [line.split()[0] for line in ended.out.splitlines()[::2]] == ["1", "2", "1", "2"]


def test_ctrl_c_ends_a_search_with_one_sentence(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Searcher, "search", interrupted)
    assert call("two-tower", "search", run, "x") == (1, "", "Interrupted.\n")


def test_evaluate_gives_the_numbers_of_the_run(run: Path, collection: Path, call: Call) -> None:
    results = json.loads((run / "results.json").read_text())
    ended = call("two-tower", "evaluate", run, "--data", collection, "--split", "dev", "--json")
    assert (ended.status, ended.err) == (0, "")
    dev = json.loads(ended.out)
    for system, name in itertools.product(("dense", "bm25"), DEFAULT_METRICS):
        low, high = (dev.pop(f"{system}/{name}/{end}") for end in ("low", "high"))
        assert low <= dev[f"{system}/{name}"] <= high
    for name in DEFAULT_METRICS:
        assert 0 < dev.pop(f"dense/{name}/p_vs_bm25") <= 1
        assert dev.pop(f"dense/{name}") == pytest.approx(results[f"val/{name}"], abs=1e-12)
        assert dev.pop(f"bm25/{name}") == pytest.approx(results[f"bm25/{name}"], abs=1e-12)
    assert dev == {"documents": 240, "queries": 40, "split": "dev"}
    table = call("two-tower", "evaluate", run, "--split", "test").out
    assert "40 queries of 'test', each against all 240 passages" in table


def test_a_hybrid_search_finds_by_words_too(run: Path, collection: Path, call: Call) -> None:
    passage = json.loads((collection / "corpus.jsonl").read_text().splitlines()[17])
    ended = call("two-tower", "search", run, f"{passage['title']} unheard", "--hybrid", "-k", "2", "--json")
    found = json.loads(ended.out)
    assert found["hits"][0]["id"] == "d17"
    assert found["notes"] == ["Not in the vocabulary of this model, so left out: unheard."]
    shown = call("two-tower", "search", run, f"{passage['title']} unheard", "-k", "1").out
    assert shown.startswith("Not in the vocabulary")


def test_the_doctor_examines_a_run_and_its_index(run: Path, call: Call, tmp_path: Path) -> None:
    before = files(run)
    ended = call("two-tower", "doctor", run, "--json")
    assert (ended.status, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert isinstance(told["healthy"], bool)
    assert told["unchecked"] == []
    assert "serving_mismatch" not in {finding["id"] for finding in told["findings"]}
    assert "Doctor" in call("two-tower", "doctor", run).out
    assert files(run) == before
    assert call("two-tower", "doctor", tmp_path).status == 2


def test_the_same_commands_again_change_nothing(run: Path, collection: Path, place: Path, call: Call) -> None:
    before = files(run)
    trained = call(*train_command(collection, "whole"), cwd=place)
    assert (trained.status, trained.err) == (0, "")
    assert "complete: nothing to do" in trained.out
    embedded = call("embed.py", "run=whole", cwd=place)
    assert (embedded.status, embedded.err) == (0, "")
    assert "complete: 240 passages, nothing to do" in embedded.out
    assert files(run) == before


def test_a_folder_of_another_configuration_is_refused(run: Path, collection: Path, place: Path, call: Call) -> None:
    before = files(run)
    ended = call(*train_command(collection, "whole", "tower.dim=8"), cwd=place)
    assert (ended.status, ended.out) == (2, "")
    assert "(embedding.dim: 16 → 8 and 1 more)" in ended.err
    assert files(run) == before


def test_a_lost_index_is_made_again(run: Path, call: Call, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "index" / "index.faiss").unlink()
    assert "run embed.py again" in call("two-tower", "search", copy, "x").err
    assert call("embed.py", f"run={copy}").status == 0
    assert (copy / "index" / "index.faiss").read_bytes() == (run / "index" / "index.faiss").read_bytes()


def test_the_installed_command_is_the_module() -> None:
    (script,) = entry_points(group="console_scripts", name="two-tower")
    assert script.load() is cli.main


def test_help_answers_without_loading_a_model(tmp_path: Path) -> None:
    code = "import sys\nfrom two_tower.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "search" in done.stdout
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert {"two_tower", "typer"} <= loaded
    assert not loaded & {"torch", "lightning", "numpy", "numba", "pyarrow", "hydra", "faiss", "bm25s"}


def test_hybrid_and_compare(run: Path, collection: Path, place: Path, call: Call) -> None:
    results = json.loads(call("two-tower", "evaluate", run, "--split", "test", "--hybrid", "--json").out)
    assert {"hybrid/mrr@10", "fusion/weight"} <= set(results)
    assert not results["fusion/chosen_here"]
    assert json.loads((run / "hybrid.json").read_text())["split"] == "dev"
    ended = call("two-tower", "compare", run, "--json", "--html", place / "page.html")
    assert (ended.status, ended.err) == (0, "")
    (row,) = json.loads(ended.out)["rows"]
    assert row["runs"][0]["path"] == str(run)
    assert "<svg" in (place / "page.html").read_text()
    both = call("two-tower", "evaluate", run, "data=beir", f"data.path={collection}", "--data", collection)
    assert both.status == 2
