"""An embedding that is killed ends as if it never was, and one that is damaged or of another run is not searched."""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_collection
from forked import Command, forked, run_forked
from test_train import fit

Call = Callable[..., Any]  # see conftest.py in this folder
SHARD_ROWS, PASSAGES = 10, 800
AS_BYTES = ("shard_rows=100", "dtype=int8", "index=hnsw")


@pytest.fixture(scope="module")
def place(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which the commands are run; ``run`` and ``other`` are runs in it."""
    folder = tmp_path_factory.mktemp("place")
    fit(collection, folder / "run")
    fit(collection, folder / "other", "tokenizer.min_frequency=3")
    return folder


def refused(ended: Any, said: str) -> None:  # noqa: ANN401
    assert (ended.status, said in ended.err, ended.err.count("\n")) == (2, True, 1), ended


def finished(folder: Path) -> int:
    """How many shards the manifest names."""
    try:
        return len(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError):
        return 0


def identity(folder: Path, shards: int) -> dict[str, tuple[int, int]]:
    """Inode and time of the last change of the files of the first shards."""
    names = [f"{kind}-{n:05}.{end}" for n in range(shards) for kind, end in (("vectors", "npy"), ("passages", "arrow"))]
    return {name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in names}


def kill_after(process: Command, folder: Path, shards: int, seconds: float) -> None:
    while finished(folder) < shards:
        process.check_alive()
        time.sleep(0.0005)
    time.sleep(seconds)
    process.send(signal.SIGKILL)
    assert process.ended().status == -signal.SIGKILL


def test_killed_twice_it_ends_as_if_it_never_was(place: Path, call: Call) -> None:
    large = write_collection(place / "large", documents=PASSAGES)
    command = ["embed.py", "run=run", "data=beir", f"data.path={large}", f"shard_rows={SHARD_ROWS}"]
    seed = time.time_ns()
    print(f"random.Random({seed})")  # noqa: T201  (shown where the test fails)
    rng, cut = random.Random(seed), place / "cut"
    for point in sorted(rng.sample(range(1, PASSAGES // SHARD_ROWS - 20), 2)):
        with forked(*command, "output=cut", cwd=place) as process:
            before = finished(cut)
            kept = identity(cut, before)
            kill_after(process, cut, max(point, before + 1), rng.random() * 0.01)
        assert not (cut / "ids.txt").exists()
        assert identity(cut, before) == kept
    kept = identity(cut, finished(cut))
    done = run_forked(*command, "output=cut", cwd=place)
    assert (done.status, "--index cut" in done.out.splitlines()[-1]) == (0, True), done
    assert identity(cut, len(kept) // 2) == kept

    assert call(*command, "output=whole", cwd=place).status == 0
    names = {path.name for path in (place / "whole").iterdir()}
    assert names == {path.name for path in cut.iterdir()}
    for name in names - {"report.json"}:  # which says how long it took
        assert (cut / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    again = call(*command, "output=cut", cwd=place)
    assert again.status == 0
    assert "cut is complete: 800 passages, nothing to do." in again.out


@pytest.fixture
def embedded(place: Path, tmp_path: Path, call: Call) -> Path:
    """A copy of the run, embedded in bytes, that may be damaged."""
    if not (place / "run" / "index").exists():
        assert call("embed.py", f"run={place / 'run'}", *AS_BYTES).status == 0
    return shutil.copytree(place / "run", tmp_path / "run")


@pytest.mark.parametrize("name", ["vectors-00001.npy", "passages-00002.arrow", "scales-00000.npy", "index.faiss"])
def test_a_damaged_file_is_named(embedded: Path, call: Call, name: str) -> None:
    file = embedded / "index" / name
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    file.write_bytes(content)
    commands = [("two-tower", "search", embedded, "bababa")]
    if name != "index.faiss":  # which embed.py makes again
        commands.append(("embed.py", f"run={embedded}", *AS_BYTES))
    for command in commands:
        refused(call(*command), file.name)


def test_what_does_not_belong_together_is_told(place: Path, embedded: Path, call: Call) -> None:
    other = place / "other"
    for arguments, said in (
        (("two-tower", "search", other, "bababa", "--index", embedded / "index"), "another tokenizer"),
        (("two-tower", "search", other, "bababa"), "embed.py run="),
        (("embed.py", f"run={other}", f"output={embedded / 'index'}", "shard_rows=100", "dtype=int8"), "tokenizer"),
        (("embed.py", f"run={embedded}", "shard_rows=100", "dtype=float16"), "dtype"),
    ):
        refused(call(*arguments), said)


def test_a_changed_tokenizer_or_checkpoint_is_refused(embedded: Path, place: Path, call: Call) -> None:
    checkpoint = embedded / "checkpoints" / "best.ckpt"
    before = checkpoint.read_bytes()
    changed = torch.load(checkpoint, weights_only=True)
    next(v for v in changed["state_dict"].values() if v.is_floating_point())[0] += 1
    torch.save(changed, checkpoint)
    for command in (("two-tower", "search", embedded, "bababa"), ("embed.py", f"run={embedded}", *AS_BYTES)):
        refused(call(*command), "another checkpoint")
    checkpoint.write_bytes(before)
    shutil.copy(place / "other" / "tokenizer.json", embedded / "tokenizer.json")
    refused(call("two-tower", "search", embedded, "bababa"), "tokenizer")
