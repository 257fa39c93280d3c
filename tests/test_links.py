"""Links of the documents lead to files and headings, as GitHub resolves them; addresses elsewhere can be ones."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT

from website.links import addresses, anchors, broken, pages, slug

PAGE = """# Two towers

[here](#two-towers-1), [there](folder/other.md#-and--loss), ![seen](picture.svg), <https://example.org/a>, [x]: no link

## Two towers

`[code](nowhere.md)` and https://example.org/b.

    [indented](nowhere.md)
"""


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    assert broken(path) == []


def test_broken_links_are_noticed(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "folder" / "other.md"
    other.parent.mkdir()
    page.write_text(PAGE)
    other.write_text("# Other\n\n## `=` and *a* loss\n")
    assert broken(page) == [
        "page.md: folder/other.md#-and--loss: no such heading", "page.md: picture.svg: no such file",
    ]  # fmt: skip
    other.write_text("# Other\n\n## `=` and *:* loss\n")
    (tmp_path / "picture.svg").touch()
    assert broken(page) == []
    page.write_text(PAGE.replace("## Two towers", "## Three towers"))
    assert broken(page) == ["page.md: #two-towers-1: no such heading"]


def test_anchors_are_those_of_github() -> None:
    assert slug("Keys of Lightning's Trainer") == "keys-of-lightnings-trainer"
    assert slug("Looking for the best: Optuna") == "looking-for-the-best-optuna"
    assert slug("Über ir_datasets – 2.0, A/B") == "über-ir_datasets--20-ab"
    assert anchors(PAGE) == {"two-towers", "two-towers-1"}


def test_addresses_elsewhere_can_be_ones() -> None:
    listed = (ROOT / "website" / "links.txt").read_text(encoding="utf-8").splitlines()
    assert len(listed) >= 8
    for address in listed:
        parts = urlsplit(address)
        assert parts.scheme == "https", address
        assert "." in (parts.hostname or ""), address
        assert parts.geturl() == address
    assert addresses(PAGE) == {"https://example.org/a", "https://example.org/b"}
