"""From a folder of text to search results, by the commands that a person types, from another folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import run_command, start_command

from two_tower.metrics import DEFAULT_METRICS

EPOCHS = 30
TIMES = {"seconds", "train/triplets_per_second"}


def train_command(collection: Path, run: str, *overrides: str) -> list[str]:
    return [
        "train.py", "data=beir", f"data.path={collection}", "data.batch_size=32", "tower.dim=16", "trainer=cpu",
        f"trainer.max_epochs={EPOCHS}", "callbacks.last.every_seconds=0", f"run_dir={run}", *overrides,
    ]  # fmt: skip


def files(folder: Path) -> dict[str, int]:
    """Every file with the time of its last change."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def succeeds(*arguments: str | Path, cwd: Path, stdin: str = "") -> str:
    """What a command prints; it must end well and write nothing on stderr."""
    done = run_command(*arguments, cwd=cwd, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which the commands are run."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def run(collection: Path, place: Path) -> Path:
    """A run that was never interrupted, embedded."""
    printed = succeeds(*train_command(collection, "whole"), cwd=place)
    assert "Next: python embed.py run=whole" in printed
    printed = succeeds("embed.py", "run=whole", cwd=place)
    assert 'Next: two-tower search whole "your question"' in printed
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


def test_search_answers_every_line_of_a_pipe(run: Path, collection: Path, place: Path) -> None:
    titles = [json.loads(line)["title"] for line in (collection / "corpus.jsonl").read_text().splitlines()][:2]
    for options in ([], ["--json"]):
        printed = succeeds("two-tower", "search", "whole", "-k", "1", *options, cwd=place, stdin="\n\n".join(titles))
        assert [printed.find(title) >= 0 for title in titles] == [True, True]
    assert [json.loads(line)["query"] for line in printed.splitlines()] == titles


def test_evaluate_gives_the_numbers_of_the_run(run: Path, collection: Path, place: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    printed = succeeds("two-tower", "evaluate", "whole", "--data", collection, "--split", "dev", "--json", cwd=place)
    dev = json.loads(printed)
    for name in DEFAULT_METRICS:
        assert dev.pop(f"dense/{name}") == pytest.approx(results[f"val/{name}"], abs=1e-12)
        assert dev.pop(f"bm25/{name}") == pytest.approx(results[f"bm25/{name}"], abs=1e-12)
    assert dev == {"documents": 240, "queries": 40}
    table = succeeds("two-tower", "evaluate", run, "--split", "test", cwd=place)
    assert "40 queries of 'test', each against all 240 passages" in table


def test_the_same_commands_again_change_nothing(run: Path, collection: Path, place: Path) -> None:
    before = files(run)
    assert "complete: nothing to do" in succeeds(*train_command(collection, "whole"), cwd=place)
    assert "complete: 240 passages, nothing to do" in succeeds("embed.py", "run=whole", cwd=place)
    assert files(run) == before


def test_a_folder_of_another_configuration_is_refused(run: Path, collection: Path, place: Path) -> None:
    before = files(run)
    done = run_command(*train_command(collection, "whole", "tower.dim=8"), cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert "(embedding.dim: 16 → 8 and 1 more)" in done.stderr
    assert files(run) == before


def results_but_times(run: Path) -> dict[str, float]:
    return {k: v for k, v in json.loads((run / "results.json").read_text()).items() if k not in TIMES}


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the file exists, or is another one than it was."""
    before = path.stat().st_mtime_ns if path.exists() else None
    while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
        pass
    assert process.poll() is None, process.communicate()[1]


def test_a_killed_and_interrupted_training_ends_as_if_it_never_was(run: Path, collection: Path, place: Path) -> None:
    import signal

    command, cut = train_command(collection, "cut"), place / "cut"
    with start_command(*command, cwd=place) as process:
        wait_for(cut / "checkpoints" / "last.ckpt", process)
        process.kill()
    assert not (cut / "results.json").exists()

    with start_command(*command, cwd=place) as process:
        wait_for(cut / "checkpoints" / "last.ckpt", process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 1
    step = int(err.removeprefix("Interrupted at step ").removesuffix(": the same command continues.\n"))
    assert 1 < step < EPOCHS * 5
    assert not (cut / "results.json").exists()

    succeeds(*command, cwd=place)
    assert results_but_times(cut) == results_but_times(run)


def test_a_killed_embedding_ends_as_if_it_never_was(run: Path, place: Path) -> None:
    from conftest import write_collection

    large = write_collection(place / "large", documents=3000)
    command = ["embed.py", "run=whole", "data=beir", f"data.path={large}", "shard_rows=10"]
    succeeds(*command, "output=one", cwd=place)
    with start_command(*command, "output=two", cwd=place) as process:
        wait_for(place / "two" / "vectors-00005.npy", process)
        process.kill()
    written = files(place / "two")
    assert not (place / "two" / "ids.txt").exists()
    succeeds(*command, "output=two", cwd=place)
    names = {p.name for p in (place / "one").iterdir()}
    assert names <= {p.name for p in (place / "two").iterdir()}
    for name in names:
        assert (place / "one" / name).read_bytes() == (place / "two" / name).read_bytes(), name
    kept = [f"vectors-0000{i}.npy" for i in range(5)]
    assert all(files(place / "two")[name] == written[name] for name in kept)
