"""Curves: points where the history says, inside the picture, none lost."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_tower.report.compare.curves import Curve, curves_of, curves_plot, read_history

VALUES = st.floats(-1e3, 1e3)
RUNS = st.lists(st.lists(st.tuples(st.floats(0, 100), VALUES), min_size=1, max_size=9).map(sorted), max_size=3)


def points(line: ET.Element) -> list[tuple[float, ...]]:
    """Where a line goes."""
    return [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]


def test_the_history_of_a_run_is_over_its_epochs(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text(
        "step,epoch,untrained/mrr,train/loss,val/mrr\n"
        "0,,0.1,,\n1,0,,0.5,\n4,0,,,0.2\n6,1,,0.25,\n9,1,,,0.3\n12,2,,0.2,0.35\n"  # the third epoch was stopped
    )
    assert read_history(file) == {
        "val/mrr": [(0.0, 0.1), (1.0, 0.2), (2.0, 0.3), (2.6, 0.35)],
        "train/loss": [(0.4, 0.5), (1.4, 0.25), (2.6, 0.2)],
    }
    assert read_history(tmp_path / "none.csv") == {}
    assert curves_of({"a": [read_history(file), {}], "b": [{}]}, "val/mrr")[0].name == "a"
    assert len(curves_of({"a": [read_history(file), {}], "b": [{}]}, "val/mrr")) == 1


@given(st.lists(RUNS.filter(any), min_size=1, max_size=10), st.none() | VALUES)
def test_every_point_is_drawn_inside_the_picture(
    runs: list[list[list[tuple[float, float]]]], level: float | None
) -> None:
    curves = [Curve(f"<&>{number}", each) for number, each in enumerate(runs)]
    picture = ET.fromstring(curves_plot(curves, "mrr@10", level))
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    lines = [
        [tuple(map(float, p.split(","))) for p in each.attrib["points"].split()] for each in picture.iter("polyline")
    ]
    assert [len(line) for line in lines] == [len(run) for curve in curves[:8] for run in curve.runs]
    assert all(0 <= x <= width and 0 <= y <= height for line in lines for x, y in line)
    texts = [text.text for text in picture.iter("text")]
    assert [name in texts for name in (each.name for each in curves[:8])] == [True] * len(curves[:8])
    assert ("BM25" in texts) == (level is not None)


def test_higher_values_are_higher_and_later_ones_to_the_right() -> None:
    picture = ET.fromstring(curves_plot([Curve("a", [[(0, 0.1), (1, 0.3), (4, 0.2)]])], "mrr@10", 0.25))
    (line,) = picture.iter("polyline")
    (x0, y0), (x1, y1), (x4, y4) = points(line)
    assert (x1 - x0) * 4 == pytest.approx(x4 - x0, abs=0.5)
    assert (y0 - y4) == pytest.approx(y4 - y1, abs=0.2)
    assert y1 < y4 < y0
    level = next(float(each.attrib["y1"]) for each in picture.iter("line") if each.attrib["class"] == "level")
    assert y1 < level < y4
