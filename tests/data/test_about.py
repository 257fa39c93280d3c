"""How many passages there are is known before they are read, where that is cheap."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from two_tower.data.beir import Beir
from two_tower.data.passages import Passages
from two_tower.data.reading.columns import lines_about


@pytest.mark.parametrize("sample", [1000, 1 << 22])
def test_lines_are_estimated_by_the_beginning(tmp_path: Path, sample: int) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"a line with number {number:06}\n" for number in range(5000)), encoding="utf-8")
    assert lines_about(path, sample) == pytest.approx(5000, rel=0.05)
    if sample > 5000:
        assert lines_about(path, sample) == 5000
    (tmp_path / "empty").touch()
    assert lines_about(tmp_path / "empty") == 0


def test_sources_tell(tmp_path: Path, collection: Path) -> None:
    assert Beir(str(collection)).about() == 240
    rows = [{"id": str(number), "text": f"text {number}"} for number in range(30)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [Passages(str(tmp_path / name)).about() for name in ("a.jsonl", "a.parquet", "a.jsonl.gz")] == [30, 30, None]
