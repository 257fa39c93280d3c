"""Ray on two machines, which are processes here: the same folder, though the command is killed and a machine lost."""

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, composed, write_collection
from elsewhere import Square, numbers
from forked import forked
from test_train import fit

from two_tower.embed import embed
from two_tower.engine import _flow
from two_tower.errors import UserError

ray = pytest.importorskip("ray", reason="needs pip install -e '.[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from two_tower.engine.ray import RayEngine  # noqa: E402

pytestmark = pytest.mark.timeout(600)

PASSAGES, SHARD_ROWS = 800, 10
# A machine that is lost is noticed within a second, not fifteen.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 200, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One machine with a core, to which tests add."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def engine(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayEngine:  # noqa: ANN401
    monkeypatch.chdir(tmp_path)
    return RayEngine(cluster.address)


def finished(folder: Path) -> int:
    """How many shards the manifest names."""
    try:
        return len(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError):
        return 0


def wait_for(shards: int, folder: Path, check: Callable[[], object] = lambda: None) -> int:
    while (found := finished(folder)) < shards:
        check()
        time.sleep(0.001)
    return found


def test_a_killed_command_and_a_lost_machine_cost_what_they_had_in_hand(
    cluster: Any,  # noqa: ANN401
    collection: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(collection, tmp_path / "run", "tower=gru", "trainer.max_epochs=1")
    write_collection(tmp_path / "large", documents=PASSAGES)
    options = ["run=run", "data=beir", "data.path=large", f"shard_rows={SHARD_ROWS}"]
    elsewhere = [*options, "output=cut", "engine=ray", f"engine.address={cluster.address}", "engine.workers=2"]
    machine, cut = cluster.add_node(num_cpus=1), tmp_path / "cut"
    with forked("embed.py", *elsewhere, cwd=tmp_path, PYTHONPATH=os.environ["PYTHONPATH"]) as process:
        wait_for(8, cut, process.check_alive)
        process.send(signal.SIGKILL)
        assert process.ended().status == -signal.SIGKILL
    before = finished(cut)
    kept = {path.name: path.stat().st_mtime_ns for path in cut.glob("vectors-*") if named(cut, path.name)}
    assert len(kept) == before < PASSAGES // SHARD_ROWS

    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(1) as pool:

        def lose() -> int:
            found = wait_for(before + 8, cut)
            cluster.remove_node(machine, allow_graceful=False)
            return found

        lost = pool.submit(lose)
        embed(composed(*elsewhere, program="embed"))
    assert before + 8 <= lost.result() < PASSAGES // SHARD_ROWS
    assert {name: (cut / name).stat().st_mtime_ns for name in kept} == kept
    assert not ray.is_initialized()

    embed(composed(*options, "output=whole", program="embed"))
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in cut.iterdir()}
    for name in names - {"report.json"}:  # which says how long it took
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def named(folder: Path, name: str) -> bool:
    return name in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["shards"]


def test_each_item_is_done_once_and_what_is_said_arrives(engine: RayEngine, caplog: pytest.LogCaptureFixture) -> None:
    kept, counted, bad = list[tuple[int, int]](), list[int](), "corpus.jsonl, row 21: bad"
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match=f"^{bad}$"):
        engine.run(Square(), partial(numbers, *range(20), error=bad), kept.append, counted.append)
    assert sorted(kept) == [(n, n * n) for n in range(20)]
    assert sum(counted) == 20
    assert sorted(map(int, Path("noted").read_text().split())) == list(range(20))
    assert [record.getMessage() for record in caplog.records].count("7 is odd.") == 1
    assert not ray.is_initialized()


def test_what_cannot_be_done_is_told(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_flow, "TRIES", 2)
    with engine.ready("elsewhere"):
        with pytest.raises(UserError, match=r"^-1 cannot be squared: leave it out\.$"):
            engine.run(Square(), partial(numbers, 1, -1), lambda _: None)
        with pytest.raises(UserError, match="2 workers have ended with the same part of the data in hand"):
            engine.run(Square(), partial(numbers, -2), lambda _: None)
    assert Path("noted").read_text().split().count("-2") == 2


def test_an_address_at_which_nobody_answers_is_told() -> None:
    for address in ("ray://127.0.0.1:1", "127.0.0.1:1"):
        with pytest.raises(UserError, match=rf"^engine\.address={address} is no Ray that answers \(.*refused\): start"):
            RayEngine(address).run(Square(), partial(numbers, 1), lambda _: None)


CPU, GPU = {"CPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("settings", "machines", "pool"),
    [
        ({}, [CPU], (1, 8, 0)),
        ({}, [CPU, {"CPU": 2.0}], (2, 4, 0)),  # two of 4 on the large one, rather than one of 2 on each
        ({}, [{"CPU": 0.0}, CPU, CPU], (2, 8, 0)),  # a head that does no work
        ({"workers": 3}, [CPU], (3, 2, 0)),
        ({"workers": 3, "cpus": 1}, [CPU], (3, 1, 0)),
        ({}, [CPU, GPU], (4, 4, 1)),
        ({"gpus": 0.5}, [GPU], (8, 2, 0.5)),
        ({"gpus": 0}, [CPU, GPU], (2, 8, 0)),
    ],
)
def test_workers_get_their_part_of_what_is_there(
    settings: dict[str, Any], machines: list[dict[str, float]], pool: tuple[int, int, float]
) -> None:
    assert tuple(RayEngine(**settings)._pool(machines).values()) == pool


@pytest.mark.parametrize("settings", [{"cpus": 9}, {"gpus": 1}])
def test_more_than_a_machine_has_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"engine.{next(iter(settings))}="):
        RayEngine(**settings)._pool([CPU])
