"""Pictures: points where the values say, inside the frame, none lost; files of their own."""

import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from two_tower.plot import Picture, Scale
from two_tower.report.page import curves, differences, intervals, pictures
from two_tower.report.runs import read_history

FIGURES = st.floats(-1, 1)
VALUES = st.floats(-1e3, 1e3)
RUNS = st.lists(st.lists(st.tuples(st.floats(0, 100), VALUES), min_size=1, max_size=9).map(sorted), max_size=3)
HORIZONTAL, VERTICAL = ("x", "x1", "x2", "cx"), ("y", "y1", "y2", "cy")


def drawn(picture: Picture) -> ET.Element:
    """The picture, all of whose elements lie inside its frame."""
    root = ET.fromstring(picture.element())
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for part in root.iter():
        at = {key: float(value) for key, value in part.attrib.items() if key in HORIZONTAL + VERTICAL}
        assert all(0 <= v <= (width if key in HORIZONTAL else height) for key, v in at.items()), at
        corners = points(part) if "points" in part.attrib else []
        if part.tag == "rect":
            corners = [(at["x"] + float(part.attrib["width"]), at["y"] + float(part.attrib["height"]))]
        for x, y in corners:
            assert 0 <= x <= width + 0.1
            assert 0 <= y <= height + 0.1
    return root


def points(line: ET.Element) -> list[tuple[float, ...]]:
    return [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]


def board_of(*means: tuple[float, float, float], bm25: float | None = None, **history: Any) -> Any:  # noqa: ANN401
    """What a picture needs of a leaderboard whose rows have these intervals and means, and two runs each."""
    rows = []
    for low, mean, high in map(sorted, means):
        run = SimpleNamespace(history=history)
        row = {"name": "<&>", "values": np.array([mean]), "interval": (low, high), "runs": [run, run]}
        rows.append(SimpleNamespace(**row, run_means=lambda metric, ends=(low, high): ends))
    known = {} if bm25 is None else {"mrr@10": bm25}
    interval = None if bm25 is None else (bm25, bm25)
    return SimpleNamespace(metric="mrr@10", rows=rows, bm25=known, bm25_interval=interval)


@given(st.lists(st.tuples(FIGURES, FIGURES, FIGURES), min_size=1, max_size=5), st.none() | FIGURES)
def test_every_row_has_its_interval(systems: list[tuple[float, float, float]], bm25: float | None) -> None:
    root = drawn(intervals(board_of(*systems, bm25=bm25)))
    assert len(root.findall("line[@class='interval']")) == len(systems) + (bm25 is not None)
    assert len(root.findall("circle[@class='hollow']")) == 2 * len(systems)


@given(st.lists(FIGURES, max_size=900))
def test_every_difference_has_a_bar_until_there_are_too_many(values: list[float]) -> None:
    root = drawn(differences(SimpleNamespace(a="<a>", b="&b", differences=np.array(values))))  # type: ignore[arg-type]
    for kind, sign in (("a", 1), ("b", -1)):
        if len(values) <= 400:
            assert len(root.findall(f"rect[@class='{kind}']")) == sum(sign * v > 0 for v in values)
    assert len(root.findall("rect")) <= 400


@given(st.lists(RUNS.filter(any), min_size=1, max_size=10), st.none() | VALUES)
def test_every_point_is_drawn(runs: list[list[list[tuple[float, float]]]], level: float | None) -> None:
    named = {f"<&>{number}": each for number, each in enumerate(runs)}
    root = drawn(curves(named, "mrr@10", level))
    assert [len(points(line)) for line in root.iter("polyline")] == [len(run) for each in runs[:8] for run in each]
    texts = [text.text for text in root.iter("text")]
    assert {*named} & {*texts} == {*list(named)[:8]}
    assert ("BM25" in texts) == (level is not None)


def test_higher_values_are_higher_and_later_ones_to_the_right() -> None:
    root = drawn(curves({"a": [[(0, 0.1), (1, 0.3), (4, 0.2)]]}, "mrr@10", 0.25))
    (line,) = root.iter("polyline")
    (x0, y0), (x1, y1), (x4, y4) = points(line)
    assert (x1 - x0) * 4 == pytest.approx(x4 - x0, abs=0.5)
    assert (y0 - y4) == pytest.approx(y4 - y1, abs=0.2)
    assert y1 < y4 < y0
    (level,) = root.findall("line[@class='level']")
    assert y1 < float(level.attrib["y1"]) < y4


@given(VALUES, VALUES)
@example(10.0, -5e-324)
def test_ticks_are_round_and_enclose_the_values(a: float, b: float) -> None:
    scale = Scale([a, b], 100, 200)
    assert scale.ticks[0] <= min(a, b) <= max(a, b) <= scale.ticks[-1]
    assert 2 <= len(scale.ticks) <= 12
    assert [len(f"{tick:g}") for tick in scale.ticks] <= [9] * len(scale.ticks)
    assert [scale(scale.ticks[0]), scale(scale.ticks[-1])] == [100, 200]


def test_pictures_are_files_of_their_own() -> None:
    history = {"val/mrr@10": [(0.0, 0.1)], "train/loss": [(1.0, 0.5)]}
    assert list(pictures(board_of((0, 0.1, 0.2)))) == ["intervals"]
    found = pictures(board_of((0, 0.1, 0.2), bm25=0.3, **history))
    assert list(found) == ["intervals", "curves", "loss"]
    for picture in found.values():
        file = ET.fromstring(picture.document())
        assert file.tag == "{http://www.w3.org/2000/svg}svg"
        assert "--ink" in str(file[0].text)
        assert [element.tag.rpartition("}")[2] for element in file.iter()].count("style") == 1


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
