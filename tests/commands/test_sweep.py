"""A sweep as its user sees it: killed and continued, extended, with a job that fails, by several launchers."""

import json
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_command, write_collection
from forked import forked, run_forked
from killing import untimed

Call = Callable[..., Any]  # see conftest.py in this folder
SWEPT, JOBS = ["tower=average,gru", "seed=0,1"], 4


def options(collection: Path, *more: str) -> list[str]:
    return [
        "-m", "data=beir", f"data.path={collection}", "trainer=cpu", "trainer.max_epochs=1", "tower.dim=8",
        "data.batch_size=32", *more,
    ]  # fmt: skip


def finished(sweep: Path) -> dict[str, dict[str, Any]]:
    """Folder's name → results of the jobs that are done."""
    return {p.parent.name: json.loads(p.read_text()) for p in sorted(sweep.glob("*/results.json"))}


def times(sweep: Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in sweep.glob("*/results.json")}


def board_of(sweep: Path) -> dict[str, Any]:
    return json.loads((sweep / "leaderboard.json").read_text())


def per_query(run: Path, column: str = "mrr@10") -> np.ndarray:
    lines = [line.split(",") for line in (run / "per_query.csv").read_text().splitlines()]
    at = lines[0].index(column)
    return np.array([float(line[at]) for line in sorted(lines[1:])])


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    """Paired randomisation test by drawing signs, in other code than the project's."""
    difference = a - b
    signs = np.random.default_rng(5).choice([-1.0, 1.0], (20_000, len(difference)))
    return float((np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9).mean())


def test_killed_in_the_middle_and_continued(collection: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    command = ["train.py", *options(collection), *SWEPT, "hydra.sweep.dir=sweep"]
    with forked(*command, cwd=tmp_path) as process:
        while len(times(sweep)) < 2:
            process.check_alive()
            time.sleep(0.02)
        process.send(signal.SIGKILL)
        process.ended()
    before = times(sweep)
    assert 2 <= len(before) < JOBS
    assert len(board_of(sweep)["rows"]) >= 1  # up to date after every job

    done = run_forked(*command, cwd=tmp_path)
    assert done.status == 0, done.err
    after = times(sweep)
    assert len(after) == JOBS
    assert {name: after[name] for name in before} == before  # not repeated
    assert done.out.count("is complete: nothing to do") == len(before)
    assert f"Job {JOBS} of {JOBS}: " in done.out

    board = board_of(sweep)
    assert len(board["rows"]) == 2
    for row in board["rows"]:
        assert set(row["overrides"]) == {"tower"}
        runs = [Path(tmp_path, run["path"]) for run in row["runs"]]
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        assert all(f"tower={row['overrides']['tower']}" in run.name for run in runs)
        figures = [json.loads((run / "results.json").read_text()) for run in runs]
        for run, figure in zip(row["runs"], figures, strict=True):
            assert run["val/mrr@10"] == figure["val/mrr@10"]
        means = [figure["val/mrr@10"] for figure in figures]
        assert row["mean"] == pytest.approx(statistics.mean(means), abs=1e-9)
        assert row["std"] == pytest.approx(statistics.stdev(means), abs=1e-9)
        assert row["seconds"] == pytest.approx(statistics.mean(figure["seconds"] for figure in figures))
    averages = [np.mean([per_query(Path(tmp_path, run["path"])) for run in row["runs"]], 0) for row in board["rows"]]
    first = Path(tmp_path, board["rows"][0]["runs"][0]["path"])
    for row, values in zip(board["rows"], averages, strict=True):
        assert row["raw_p_vs_bm25"] == pytest.approx(p_value(values, per_query(first, "bm25/mrr@10")), abs=0.02)
        if row is not board["rows"][0]:
            assert row["raw_p_vs_best"] == pytest.approx(p_value(averages[0], values), abs=0.02)
    page = (sweep / "leaderboard.md").read_text()
    head = next(line for line in page.splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "configuration", "runs", "mrr@10", "95 % interval", "std", "p vs best", "p vs BM25", "seconds", "doctor",
    ]  # fmt: skip
    assert (sweep / "leaderboard.html").read_text().count("<svg") >= 3  # intervals, curves, loss


@pytest.fixture(scope="module")
def finished_place(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the sweep ``s`` of two seeds has been done, and what it printed."""
    swept = ["seed=0,1", "console=json", "hydra.sweep.dir=s"]
    place = tmp_path_factory.mktemp("finished")
    done = run_forked("train.py", *options(collection), *swept, cwd=place)
    assert done.status == 0, done.err
    (place / "out").write_text(done.out)
    (place / "err").write_text(done.err)
    return place


@pytest.fixture
def place(finished_place: Path, tmp_path: Path) -> Path:
    """A copy of that folder, the current one of `call`."""
    return shutil.copytree(finished_place, tmp_path, dirs_exist_ok=True)


def test_the_document_of_a_sweep_is_its_leaderboard(finished_place: Path) -> None:
    assert json.loads((finished_place / "out").read_text()) == board_of(finished_place / "s")
    assert "Job 2 of 2" in (finished_place / "err").read_text()


def test_a_value_added_later_uses_what_is_there(collection: Path, place: Path, call: Call) -> None:
    before = times(place / "s")
    assert call("train.py", *options(collection), "seed=0,1,2", "hydra.sweep.dir=s").status == 0
    after = times(place / "s")
    assert (len(before), len(after)) == (2, 3)
    assert before.items() <= after.items()
    (row,) = board_of(place / "s")["rows"]
    assert [run["seed"] for run in row["runs"]] == [0, 1, 2]
    assert row["name"] == "seed=0,1,2"  # what was swept
    assert "| seed=0,1,2 |" in (place / "s" / "leaderboard.md").read_text()


def test_another_configuration_in_a_jobs_folder_is_no_result_of_it(collection: Path, place: Path, call: Call) -> None:
    config = next((place / "s").glob("*seed=1*/config.yaml"))
    config.write_text(config.read_text().replace("lr: 0.002", "lr: 0.004"))
    ended = call("train.py", *options(collection), "seed=0,1", "hydra.sweep.dir=s")
    assert ended.status == 1
    assert re_one_line(ended.err, "1 of 2 jobs failed", "seed=1", "holds a run with another configuration")


def test_a_jobs_folder_can_be_typed_as_it_is(place: Path, call: Call) -> None:
    """Its name holds what Hydra reads as something else."""
    folder = next((place / "s").glob("*seed=1*"))
    assert "," in folder.name
    ended = call("embed.py", f"run=s/{folder.name}")
    assert ended.status == 0, ended.err
    assert (folder / "index" / "ids.txt").exists()


@pytest.fixture
def without_triples(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "beir", documents=120, triples=False)


def test_one_of_two_fails(without_triples: Path, tmp_path: Path, call: Call) -> None:
    command = ["train.py", *options(without_triples), "hydra.sweep.dir=s", "negatives=given,random"]
    for _ in range(2):  # the failed job is tried again, the others are not
        ended = call(*command)
        assert ended.status == 1
        assert re_one_line(ended.err, "1 of 2 jobs failed (", "negatives=given", "needs data with triplets")
        assert len(finished(tmp_path / "s")) == 1
        (failure,) = (tmp_path / "s").glob("*/failure.json")
        read = json.loads(failure.read_text())
        assert "negatives=given" in failure.parent.name
        assert "negatives=given needs data with triplets" in read["error"]
        assert "UserError" in read["traceback"]
        board = board_of(tmp_path / "s")
        assert len(board["rows"]) == 1
        assert [each["error"] for each in board["failed"]] == [read["error"]]
        assert "negatives=given needs data with triplets" in (tmp_path / "s" / "leaderboard.md").read_text()
        assert "## Failed" in ended.out
    assert call(*command[:-1], "negatives=random").status == 0  # an old failure is not this sweep's


def re_one_line(text: str, *parts: str) -> bool:
    assert text.count("\n") == 1, text
    assert all(part in text for part in parts), text
    return True


def test_a_bug_in_a_job_stops_no_other(collection: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from two_tower.model import TwoTower

    original = TwoTower.training_step

    def step(self: TwoTower, *args: Any) -> Any:  # noqa: ANN401
        if self._seed == 1:
            raise ZeroDivisionError("something in training")
        return original(self, *args)

    monkeypatch.setattr(TwoTower, "training_step", step)
    ended = call("train.py", *options(collection), "seed=1,0", "hydra.sweep.dir=s")
    assert ended.status == 1
    assert re_one_line(ended.err, "1 of 2 jobs failed", "ZeroDivisionError: something in training")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tower=average,gur"], "tower=gur does not exist; did you mean 'gru'"),
        (["tower.dim=8,abc"], "tower.dim=abc has the wrong type: it must be a whole number (in the job tower.dim=abc)"),
        (["loss=triplet", "loss.margin=0.3,-1"], "loss.margin=-1 must be above 0"),
        (["seed=0,1", "run_dir=x"], "run_dir=x is the folder of one run"),
        (["seed=0,1", "hydra/launcher=jobli"], "hydra/launcher=jobli does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_any_job_starts(
    overrides: list[str], said: str, collection: Path, tmp_path: Path, call: Call
) -> None:
    ended = call("train.py", *options(collection), *overrides, "hydra.sweep.dir=s")
    assert (ended.status, ended.out) == (2, "")
    assert re_one_line(ended.err, said)
    assert not (tmp_path / "s").exists()


def test_runs_of_different_collections_share_no_table(
    collection: Path, without_triples: Path, tmp_path: Path, call: Call
) -> None:
    swept = ["-m", "data=beir", f"data.path={collection},{without_triples}", *options(collection)[3:]]
    assert call("train.py", *swept, "hydra.sweep.dir=s").status == 0
    board = board_of(tmp_path / "s")
    assert board["rows"] == []
    assert "cannot be compared" in board["problem"]
    assert "cannot be compared" in (tmp_path / "s" / "leaderboard.md").read_text()
    assert len(finished(tmp_path / "s")) == 2


@pytest.mark.parametrize(
    ("launcher", "setting"),
    [("joblib", "hydra.launcher.n_jobs=2"), ("submitit_local", "hydra.launcher.timeout_min=9")],
)
def test_launchers_give_the_same_results(launcher: str, setting: str, without_triples: Path, tmp_path: Path) -> None:
    """Each job in a process of its own, one of which fails."""
    plugin = f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher"
    pytest.importorskip(plugin, reason="needs pip install -e '.[launchers]'")
    command = ["train.py", *options(without_triples), "negatives=in_batch,given"]
    one = run_forked(*command, "hydra.sweep.dir=basic", cwd=tmp_path)
    several = run_command(*command, "hydra.sweep.dir=other", f"hydra/launcher={launcher}", setting, cwd=tmp_path)
    assert (one.status, several.returncode) == (1, 1)
    for last in (one.err.splitlines()[-1], several.stderr.splitlines()[-1]):
        assert "1 of 2 jobs failed" in last
        assert "negatives=given needs data with triplets" in last
    (basic,), (other,) = (finished(tmp_path / folder).items() for folder in ("basic", "other"))
    assert basic[0] == other[0]
    assert untimed(basic[1]) == untimed(other[1])
    first, second = (tmp_path / folder / basic[0] / "run.trec" for folder in ("basic", "other"))
    assert first.read_bytes() == second.read_bytes()
    a, b = board_of(tmp_path / "basic"), board_of(tmp_path / "other")
    assert [row["mean"] for row in a["rows"]] == [row["mean"] for row in b["rows"]]
    assert [each["error"] for each in a["failed"]] == [each["error"] for each in b["failed"]]


def test_groups_of_wandb_are_the_sweep(collection: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[dict[str, Any]] = []
    monkeypatch.setattr("two_tower.train.train", lambda config, *more: configs.append(config) or {})
    assert call("train.py", *options(collection), "logger=wandb", "seed=0,1", "hydra.sweep.dir=s").status == 0
    assert [config["logger"]["group"] for config in configs] == ["s", "s"]
