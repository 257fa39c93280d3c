"""The page on how cost grows: made of what was measured, by steps that run."""

from pathlib import Path

import pytest

from benchmarks.collection import write
from benchmarks.growth import STEP, Place, measure
from benchmarks.growth_page import NAMES, Measured, filled, slope


def test_every_step_has_a_name() -> None:
    assert [*NAMES] == [*STEP]


def test_a_slope_is_the_power_between_the_two_largest_sizes() -> None:
    assert slope({10: 7.0, 100: 3.0, 1000: 300.0}) == "2.00"
    assert slope({10: 7.0}) == ""
    rows = [Measured("hnsw", n, seconds=n / 10, memory=10**9, disk=0, found={"p50_ms": 2.0}) for n in (100, 1000)]
    shown = filled("<!-- growth seconds -->\n<!-- end -->", rows)
    assert "| | 100 | 1,000 | slope |" in shown
    assert "| `hnsw` | 10 s | 100 s | 1.00 |" in shown


def test_a_step_is_measured_with_its_process(tmp_path: Path) -> None:
    place = Place(tmp_path / "200")
    write(place.folder / "data", 200, training=60, validation=20)
    row = measure("prepare", place)
    assert (row.step, row.passages, row.found) == ("prepare", 200, {})
    assert row.memory > 10**8
    assert row.disk > 200 * 4 * 50  # the numbers of the words
    with pytest.raises(RuntimeError, match="nothing has failed with 1"):
        measure("nothing", place)
