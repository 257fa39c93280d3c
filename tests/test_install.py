"""install.py: no CUDA without a card, the package index where PyTorch's cannot be reached, one sentence otherwise."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from conftest import ROOT


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("installer", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BIN", tmp_path / "bin")
    for variable in ("TORCH", "TORCH_INDEX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(module.sys, "platform", "linux")
    return module


class Pip:
    """Takes the place of all programs; fails where the command holds one of these words."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.commands = failing, list[list[str]]()

    def __call__(self, command: list[str], **_: object) -> SimpleNamespace:
        self.commands.append(command)
        return SimpleNamespace(returncode=int(any(word in command for word in self.failing)))

    def installed(self) -> list[str]:
        return [" ".join(command[command.index("--quiet") + 1 :]) for command in self.commands if "--quiet" in command]


def run(installer: ModuleType, monkeypatch: pytest.MonkeyPatch, *failing: str, extras: tuple[str, ...] = ()) -> Pip:
    pip = Pip(*failing)
    monkeypatch.setattr(installer.subprocess, "run", pip)
    installer.install([*extras])
    return pip


def test_without_a_card_torch_comes_without_cuda(installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.shutil, "which", lambda name: None)
    torch, project = run(installer, monkeypatch, extras=("dev",)).installed()
    assert torch.startswith(f"torch==2.13.* --index-url {installer.CPU_INDEX}")
    assert project == "--editable .[dev]"
    pip = run(installer, monkeypatch, installer.CPU_INDEX)  # it cannot be reached
    assert pip.installed()[1:] == ["torch==2.13.*", "--editable ."]


def test_with_a_card_or_elsewhere_it_is_the_usual_one(installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert run(installer, monkeypatch).installed() == ["torch==2.13.*", "--editable ."]
    assert installer.CPU_INDEX in run(installer, monkeypatch, "/usr/bin/nvidia-smi").installed()[0]
    monkeypatch.setattr(installer.sys, "platform", "darwin")
    assert run(installer, monkeypatch, "/usr/bin/nvidia-smi").installed() == ["torch==2.13.*", "--editable ."]
    monkeypatch.setenv("TORCH_INDEX", "https://a.b/c")
    assert run(installer, monkeypatch).installed()[0] == "torch==2.13.* --index-url https://a.b/c"


@pytest.mark.parametrize(
    ("failing", "why"),
    [("torch==2.13.*", "PyTorch could not"), (".[dev]", "The project could not"), ("venv", "python3-venv")],
)
def test_what_fails_is_said(failing: str, why: str, installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=why):
        run(installer, monkeypatch, failing, extras=("dev",))


def test_an_old_python_is_named() -> None:
    code = "import sys, install; sys.version_info = (3, 10, 1); install.install([])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "Python 3.11 to 3.13 is needed, this is 3.10: call another python.\n")
