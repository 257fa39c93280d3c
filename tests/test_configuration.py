"""docs/configuration.md has every key of conf/ with its default, its comment and what it takes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from two_tower.config.saved import CONF
from website.conf_files import Choice, Key, read
from website.configuration import escaped

FILES = sorted(CONF.rglob("*/*.yaml"))
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def section(path: Path) -> str:
    group, name = path.parent.relative_to(CONF).as_posix(), path.stem
    title = f"{group}/{name}" if name.startswith("_") else f"{group}={name}"
    found = re.search(rf"^### `{title}`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def leaves(values: Any, place: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    for key, value in values.items():
        if isinstance(value, dict) and all(str(inner).isidentifier() for inner in value):
            yield from leaves(value, f"{place}{key}.")
        elif not key.startswith("_"):
            yield f"{place}{key}", value


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_key_is_there_with_its_default(path: Path) -> None:
    group, text = path.parent.relative_to(CONF).as_posix(), section(path)
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|", text, re.MULTILINE))
    blocks = dict(re.findall(r"^The default of `(.*?)`:\n\n```yaml\n(.*?)```", text, re.MULTILINE | re.DOTALL))
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    values.pop("defaults", None)
    expected = dict(leaves(values, "" if group == "experiment" else f"{group.replace('/', '.')}."))
    shown = {key: blocks.get(key, cell.strip("`").replace("\\|", "|")) for key, cell in rows.items() if key in expected}
    assert {key: "???" if text == "required" else yaml.safe_load(text) for key, text in shown.items()} == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_comment_is_there(path: Path) -> None:
    text = section(path) + PAGE[: PAGE.index("\n## `tokenizer`")]
    for line in path.read_text(encoding="utf-8").splitlines():
        comment = line.partition(" #")[2].strip() or line.removeprefix("# ") * line.startswith("# ")
        if comment and not comment.startswith("@") and "_partial_" not in line and "_recursive_" not in line:
            assert comment in text or escaped(comment) in text, comment


def test_types_are_those_that_are_checked() -> None:
    assert "| `tower.dim` | `256` | a whole number |" in PAGE
    assert "| `loss.select` | `all` | all or hardest or semi_hard |" in PAGE
    assert "| `data.batch_size` | `null` | a whole number or null |" in PAGE
    assert "| `init_from` | `null` | a path or null |" in PAGE
    assert "| `callbacks.samples.queries` | `5` | a whole number |" in PAGE


def test_a_file_is_read_with_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("""# @package _global_
# What it is
# about.
defaults:
  - _other             # its keys
  - override /tower: gru   # a network
_target_: a.B          # builds it
text: "a # b"          # in quotes
list: [1, 2]           # of numbers
nested:                # outside
  inner: 1.0e-8        # inside
odd:                   # of files
  a.b: 1
  c.d: {e: 2}          # last
""")
    about, defaults, whole = read(path)
    assert about == "What it is about."
    assert defaults == [Choice("", "_other", "its keys"), Choice("/tower", "gru", "a network", override=True)]
    assert whole.of("_target_") == "a.B"
    assert whole.keys[1:] == [
        Key("text", '"a # b"', "in quotes"),
        Key("list", "[1, 2]", "of numbers"),
        Key("nested", "", "outside", [Key("inner", "1.0e-8", "inside")]),
        Key("odd", "a.b: 1\nc.d: {e: 2}          # last", "of files"),
    ]


def test_comments_are_no_markdown() -> None:
    assert escaped("a | b, 8 * m, _id, a_b, [x], <y> and `c|d*`") == (
        r"a \| b, 8 \* m, \_id, a_b, \[x\], &lt;y> and `c|d*`"
    )
