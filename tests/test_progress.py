"""Progress shows on a terminal and nowhere else."""

import io

import pytest
import rich
from rich.console import Console

from two_tower.console import counter


def shown(terminal: bool, monkeypatch: pytest.MonkeyPatch, total: int | None = None) -> str:
    out = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=out, force_terminal=terminal, width=120))
    with counter("Counting", "sheep", total) as progress:
        for _ in range(3):
            progress(1000)
    return out.getvalue()


def test_a_terminal_sees_the_count_and_the_share_and_a_pipe_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(False, monkeypatch).strip() == ""
    unknown, known = shown(True, monkeypatch), shown(True, monkeypatch, 4000)
    for text in (unknown, known):
        assert "Counting" in text
        assert "3,000 sheep" in text
    assert "75%" in known
    assert ("left" in known, "left" in unknown) == (True, False)
