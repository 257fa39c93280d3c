"""TensorBoard: event files where the package is installed, one sentence where it is not."""

from pathlib import Path

import pytest
from lightning.fabric.loggers import tensorboard as fabric
from lightning.pytorch.loggers import tensorboard as pytorch

from two_tower.errors import UserError
from two_tower.logger.tensorboard import TensorBoardLogger
from two_tower.run import Run


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fabric, pytorch):
        for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
            monkeypatch.setattr(module, name, False, raising=False)
    with pytest.raises(UserError, match=r'pip install -e "\.\[tensorboard\]"'):
        TensorBoardLogger(Run(tmp_path))


def test_figures_and_tables_are_written(collection: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from test_train import fit

    fit(collection, tmp_path / "run", "logger=tensorboard", "trainer.log_every_n_steps=2")
    sizes = {"scalars": 0, "tensors": 0, "histograms": 0}
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), sizes).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [1, 3, 5, 7, 9]
    assert [e.step for e in events.Scalars("val/mrr")] == [4, 9]
    assert b"epoch 2" in events.Tensors("val/samples/text_summary")[-1].tensor_proto.string_val[0]
    first = events.Histograms("doctor/positive_similarities")[0]
    assert (first.step, first.histogram_value.num) == (1, 32)
    assert (tmp_path / "run" / "metrics.csv").exists()
