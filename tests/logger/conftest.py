"""A run that W&B has written down offline."""

from pathlib import Path

import pytest
from test_train import fit


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's W&B settings."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture(scope="session")
def finished(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model is an artifact, whose learning rate is too high, and whose folder was given relatively."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = ["logger.artifacts=true", "logger.tags=[one,two]", "trainer.log_every_n_steps=2", "optimizer.lr=3"]
        fit(collection, Path("run"), "logger=wandb", *options)
    return folder / "run"
