"""What a wheel holds is enough: training in an empty folder, from nothing but the unpacked wheel."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from two_tower.config.saved import CONF


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a wheel that was built from a copy of the repository."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools>=77 to build a wheel")
    copy, wheels = tmp_path_factory.mktemp("copy") / "repository", tmp_path_factory.mktemp("wheels")
    copy.mkdir()
    for name in ("two_tower", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(wheels / "unpacked")
    return wheels / "unpacked"


def lend_compiled(unpacked: Path) -> None:
    """Numba's results for the same source: half a minute's work. It knows a file by its size and time."""
    for path in (ROOT / "two_tower").rglob("*.*"):
        copy = unpacked / path.relative_to(ROOT)
        if path.suffix in (".nbi", ".nbc"):
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
        elif path.suffix == ".py":
            shutil.copystat(path, copy)


def test_the_wheel_has_every_configuration_and_page(unpacked: Path) -> None:
    for folder, original in (("conf", CONF), ("serve/page", ROOT / "two_tower" / "serve" / "page")):
        files = {path.relative_to(original) for path in original.rglob("*.*")}
        assert files == {
            p.relative_to(unpacked / "two_tower" / folder) for p in (unpacked / "two_tower" / folder).rglob("*.*")
        }


def test_a_wheel_trains_and_embeds_in_an_empty_folder(unpacked: Path, collection: Path, tmp_path: Path) -> None:
    """In a container without a home, on a terminal of Windows, as the second of four processes of a scheduler."""
    lend_compiled(unpacked)
    program = """
import sys
import two_tower
from two_tower.cli import main
for command in sys.argv[1:]:
    sys.argv = ["two-tower", *command.split("|")]
    try:
        main()
    except SystemExit as error:
        if error.code:
            raise
print(two_tower.__file__)
"""
    train = ["train", "tower=gru", "tower.dim=8", "trainer.max_steps=1", "data=beir", f"data.path={collection}"]
    train += ["data.batch_size=32", "validation.bm25=false", "run_dir=run"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(unpacked), "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    environment |= {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}
    environment |= {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "PYTHONIOENCODING": "cp1252"}  # and nothing else
    command = [sys.executable, "-c", program, "|".join(train), "embed|run=run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="cp1252", timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "Best epoch 1" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(str(unpacked))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["epochs"] == 1
    assert (tmp_path / "run" / "config.yaml").exists()
    assert (tmp_path / "run" / "index" / "ids.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # and nothing called ~
