"""No file of somebody else can run code when it is read: no module unpickles one, nor evaluates its text."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

#: What Ray's workers of the same program tell each other, never a file.
BETWEEN_PROCESSES = {"two_tower/engine/ray.py", "two_tower/engine/_flow.py"}
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "two_tower").rglob("*.py"))


def dangerous(source: str) -> Iterator[str]:
    """Calls that may run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, keys = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
        loads = name.rpartition(".")[2] in ("load", "loads", "Unpickler", "read_pickle")
        if loads and any(module in name for module in ("pickle", "joblib", "dill", "marshal", "shelve")):
            yield name
        if name.endswith("torch.load") and keys.get("weights_only") != "True":
            yield f"{name} without weights_only=True"
        if name == "yaml.load" and "Safe" not in ast.unparse(node):
            yield f"{name} without a safe loader"
        if {"allow_pickle", "trust_remote_code"} & {key for key, value in keys.items() if value != "False"}:
            yield f"{name} that trusts a file"
        if name in ("eval", "exec", "read_pickle", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load"):
            yield name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_runs_nothing_that_a_file_says(module: str) -> None:
    found = [*dangerous(Path(ROOT, module).read_text(encoding="utf-8"))]
    assert not found or module in BETWEEN_PROCESSES, found


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(file)", "cloudpickle.loads(x)", "torch.load(path)", "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)", "yaml.load(text, yaml.Loader)", "eval(text)", "joblib.load(path)",
        "load_dataset(name, trust_remote_code=True)", "torch.load(path, weights_only=flag)",
    ],
)  # fmt: skip
def test_it_would_be_found(line: str) -> None:
    assert len([*dangerous(line)]) == 1
