"""Small blocks for every kernel."""

from collections.abc import Iterator

import pytest
import torch

from two_tower.tower import _recurrence as recurrence
from two_tower.tower import transformer


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks so small that few texts make several, and the number of threads as it was."""
    monkeypatch.setattr(recurrence, "BLOCK", 4)
    monkeypatch.setattr(transformer, "CPU_BLOCK", 20)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
