"""Progress shows on a terminal and nowhere else."""

import io

import pytest
import rich
from rich.console import Console

from two_tower.console import aside, counter, say


def shown(terminal: bool, monkeypatch: pytest.MonkeyPatch, total: int | None = None) -> str:
    out = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=out, force_terminal=terminal, width=120))
    with counter("Counting", "sheep", total) as progress:
        for _ in range(3):
            progress(1000)
    return out.getvalue()


def test_the_end_tells_the_time_and_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 12.0, 12.5, 100.0, 103.25])
    monkeypatch.setattr("two_tower.console.time.perf_counter", lambda: next(now))
    with counter("Counting", "sheep") as progress:
        progress(5000)
        progress(250)
        assert str(progress) == "(2.0 s, 2,625 sheep/s)"  # so far
    assert str(progress) == "(2.5 s, 2,100 sheep/s)"
    with counter("Thinking") as progress:
        pass
    assert str(progress) == "(3.2 s)"


def test_what_is_shown_beside_a_document_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    for document in (True, False):
        with aside(document):
            say("beside")
    assert capfd.readouterr() == ("beside\n", "beside\n")


def test_a_terminal_sees_the_count_and_the_share_and_a_pipe_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(False, monkeypatch).strip() == ""
    unknown, known = shown(True, monkeypatch), shown(True, monkeypatch, 4000)
    for text in (unknown, known):
        assert "Counting" in text
        assert "3,000 sheep" in text
    assert "75%" in known
    assert ("left" in known, "left" in unknown) == (True, False)
