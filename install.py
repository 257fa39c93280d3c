"""Make .venv and install the project into it: ``python install.py [EXTRA …]``, or all and the demo: ``--demo``.

Needs Python alone, on Linux, macOS and Windows. Variables may say which PyTorch to take: TORCH (``torch==2.13.*``), and
TORCH_INDEX, the address of a wheel index; and RUNS, where the demo's runs go.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
VERSIONS = (3, 11), (3, 13)
# The package index's wheel for Linux brings gigabytes of CUDA, this one does not.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
QUESTIONS = (
    "how to compute cosine similarity between two vectors",
    "reduce the learning rate when the loss stops improving",
    "shortest path between two nodes in a graph",
)


def install(extras: list[str]) -> None:
    """Create the environment where there is none, and install PyTorch and the project with these extras."""
    if not VERSIONS[0] <= sys.version_info[:2] <= VERSIONS[1]:
        wanted, own = (".".join(map(str, version)) for version in (VERSIONS[0], sys.version_info[:2]))
        sys.exit(f"Python {wanted} to {'.'.join(map(str, VERSIONS[1]))} is needed, this is {own}: call another python.")
    made = (BIN / f"python{'.exe' if os.name == 'nt' else ''}").exists()
    if not made and _run([sys.executable, "-m", "venv", str(ENVIRONMENT)], "Making .venv"):
        sys.exit("Python cannot make .venv: on Debian and Ubuntu install the package python3-venv.")
    torch = os.environ.get("TORCH", "torch==2.13.*")
    *others, (title, options) = torch_sources()
    missing = all(_pip([torch, *its], name, quiet=True) for name, its in others)
    if missing and _pip([torch, *options], title):
        sys.exit("PyTorch could not be installed: see pip's message above.")
    project = f".[{','.join(extras)}]" if extras else "."
    if _pip(["--editable", project], f"Installing the project{' with ' + ', '.join(extras) if extras else ''}"):
        sys.exit("The project could not be installed: see pip's message above.")


def torch_sources() -> list[tuple[str, list[str]]]:
    """Where PyTorch may come from, the best first: what to say, and the options for pip."""
    usual = ("Installing PyTorch", list[str]())
    if index := os.environ.get("TORCH_INDEX"):
        return [(f"Installing PyTorch from {index}", ["--index-url", index])]
    if sys.platform != "linux" or has_nvidia():
        return [usual]
    quickly = ["--retries", "0", "--timeout", "15"]  # pip's own patience is a minute and a half
    return [("Installing PyTorch without CUDA", ["--index-url", CPU_INDEX, *quickly]), usual]


def has_nvidia() -> bool:
    """Whether there is a card that CUDA can use."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool], capture_output=True).returncode == 0


def demo() -> None:
    """Train, embed, index and search on the documentation of what was installed."""
    runs = Path(os.environ.get("RUNS", "runs"))
    average = f"run_dir={runs / 'demo-average'}"
    python, search = [str(BIN / "python")], [str(BIN / "two-tower"), "search", str(runs / "demo-average")]
    commands = [
        [*python, "train.py", average],
        [*python, "train.py", "tower=gru", "trainer.max_epochs=3", f"run_dir={runs / 'demo-gru'}"],
        [*python, "embed.py", f"run={runs / 'demo-average'}"],
        *([*search, question, "-k", "3"] for question in QUESTIONS),
    ]
    for command in commands:
        program, *words = command
        print(f"\n$ {subprocess.list2cmdline([Path(program).name, *words])}", flush=True)
        if status := subprocess.run(command, cwd=ROOT).returncode:
            sys.exit(status)


def _pip(arguments: list[str], title: str, quiet: bool = False) -> int:
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    return _run([*pip, *arguments], title, quiet)


def _run(command: list[str], title: str, quiet: bool = False) -> int:
    """The status of a command; says how long it takes, and leaves it to the command to say why it fails."""
    print(f"{title} …", end="", flush=True)
    start = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL if quiet else None).returncode
    print(f" {'failed' if status else 'done'} ({time.monotonic() - start:.0f} s)", flush=True)
    return status


if __name__ == "__main__":
    with_demo = "--demo" in sys.argv[1:]
    install([word for word in sys.argv[1:] if word != "--demo"])
    if with_demo:
        demo()
