"""Progress shows on a terminal and nowhere else."""

from __future__ import annotations

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


def test_a_terminal_sees_title_and_count_and_for_a_known_total_the_share_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown, known = shown(True, monkeypatch), shown(True, monkeypatch, 4000)
    for text in (unknown, known):
        assert "Counting" in text
        assert "3,000 sheep" in text
    assert "75%" in known
    assert ("left" in known, "left" in unknown) == (True, False)


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(False, monkeypatch).strip() == ""
