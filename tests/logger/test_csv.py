"""The history survives interruption."""

import csv
from pathlib import Path

from two_tower.logger.csv import CsvLogger


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_rows_columns_and_late_metrics(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 0.5}, step=9)
    logger.log_metrics({"val/mrr": 0.25, "epoch": 0}, step=9)
    logger.log_metrics({"train/loss": 0.4}, step=19)
    logger.finalize("success")
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "9", "epoch": "0", "train/loss": "0.5", "val/mrr": "0.25"},
        {"step": "19", "train/loss": "0.4"},
    ]


def test_a_continued_run_keeps_what_its_checkpoint_knows(tmp_path: Path) -> None:
    first = CsvLogger(tmp_path / "metrics.csv")
    for step in (4, 9, 14):
        first.log_metrics({"train/loss": step / 10}, step)
    first.flush()
    second = CsvLogger(tmp_path / "metrics.csv")
    second.rewind(10)  # the checkpoint was written after step 9
    second.log_metrics({"train/loss": 7.0, "new": 1.0}, 14)
    second.finalize("success")
    found = rows(tmp_path / "metrics.csv")
    assert [r["step"] for r in found] == ["4", "9", "14"]
    assert found[-1] == {"step": "14", "train/loss": "7.0", "new": "1.0"}
