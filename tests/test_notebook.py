"""The notebook of the tutorial: made of its page, and run from top to bottom."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from website.notebook import START, notebook

TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGE = """# A page

Install it first:

```sh
python -m venv .venv
source .venv/bin/activate
```

Then run:

```sh
# What it says
python train.py \\
  tower=gru

$ python -c "print({'a': 1}, '$HOME')"
```

```text
not what it says
```

    two-tower serve runs/shown-only

```python
answer = 6 * 7
print(answer)
```

The end.
"""


def cells(page: str) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook(page))["cells"]]


def test_blocks_become_cells() -> None:
    first, *rest = cells(PAGE)
    assert first[0] == "markdown"
    assert "source .venv/bin/activate" in first[1]
    assert first[1].endswith("Then run:")
    assert rest == [
        ("code", START),
        ("code", "# What it says\n!python train.py tower=gru"),
        ("code", "!python -c \"print({{'a': 1}}, '$HOME')\""),
        ("markdown", "    two-tower serve runs/shown-only"),
        ("code", "answer = 6 * 7\nprint(answer)"),
        ("markdown", "The end."),
    ]


def test_what_is_no_block_of_these_stays_text() -> None:
    page = "Text\n\n```json\n{}\n```\n\n| a |\n| --- |\n| `x` |"
    assert cells(page)[0] == ("markdown", page)


def executed(made: str, folder: Path, timeout: int) -> Any:  # noqa: ANN401
    """The notebook with its outputs; an error where a command fails, which IPython itself goes over."""
    nbclient = pytest.importorskip("nbclient", reason="needs pip install -e '.[docs]'")
    import nbformat

    loaded = nbformat.reads(made, as_version=4)
    nbformat.validate(loaded)
    for cell in loaded.cells:
        if cell.cell_type == "code" and cell.source.splitlines()[-1].startswith("!"):
            cell.source += "\nassert _exit_code == 0"
    nbclient.NotebookClient(loaded, timeout=timeout, resources={"metadata": {"path": str(folder)}}).execute()
    return loaded


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a project whose train.py says what it is given."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "train.py").write_text("import sys\nprint(*sys.argv[1:])\nsys.exit('tower=rnn' in sys.argv)\n")
    return tmp_path


def test_a_notebook_runs_from_top_to_bottom(project: Path) -> None:
    found = executed(notebook(PAGE), project / "docs", 120)
    printed = ["".join(output.text for output in cell.outputs) for cell in found.cells if cell.cell_type == "code"]
    assert [text.strip() for text in printed] == ["", "tower=gru", f"{{'a': 1}} {os.environ['HOME']}", "42"]


def test_a_command_that_fails_is_noticed(project: Path) -> None:
    page = PAGE.replace("tower=gru", "tower=rnn")
    with pytest.raises(Exception, match="assert _exit_code == 0"):
        executed(notebook(page), project / "docs", 120)


@pytest.mark.skipif("TUTORIAL" not in os.environ, reason="takes half an hour: make tutorial")
@pytest.mark.skipif(not TUTORIAL.exists(), reason="needs docs/tutorial.md")
@pytest.mark.timeout(7200)
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    copy = tmp_path / "project"  # its runs go there
    copy.mkdir()
    for name in ("train.py", "embed.py", "conf", "two_tower"):
        (copy / name).symlink_to(ROOT / name)
    executed(notebook(TUTORIAL.read_text(encoding="utf-8")), copy, 3600)
