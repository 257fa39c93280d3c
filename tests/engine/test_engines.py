"""Every engine gives the same folder, and loses nothing that was done."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import composed
from elsewhere import Elsewhere, Square, numbers
from test_encode import random_encoder
from training import WithFields

from two_tower.console import Advance
from two_tower.embed import embed
from two_tower.encode import Encoder, embed_corpus
from two_tower.engine.base import Work
from two_tower.engine.local import LOCAL
from two_tower.errors import UserError
from two_tower.model import TwoTower
from two_tower.similarity import Similarity
from two_tower.tower.base import WordTable
from two_tower.tower.recurrent import RecurrentTower


def test_this_process_keeps_what_is_done_before_the_next_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept, counted = list[tuple[int, int]](), list[int]()
    with pytest.raises(UserError, match="-1 cannot be squared"):
        LOCAL.run(Square(), lambda: numbers(2, 3, -1, 4), kept.append, counted.append)
    assert (kept, counted) == ([(2, 4), (3, 9)], [1, 1])
    with pytest.raises(UserError, match="a bad row"):
        LOCAL.run(Square(), lambda: numbers(5, error="a bad row"), kept.append)
    assert kept[2:] == [(5, 25)]


def test_a_result_that_cannot_be_kept_ends_the_work() -> None:
    class Same(Work[int, int]):
        def __call__(self, item: int, progress: Advance | None) -> Callable[[], int]:
            return lambda: item

    def endless() -> Iterator[int]:
        while True:
            yield 0

    with pytest.raises(OSError, match="full"):
        LOCAL.run(Same(), endless, refuse)


def refuse(result: object) -> None:
    raise OSError("full")


def recurrent() -> Encoder:
    """An untrained gru of 16 dimensions."""
    tokenizer = random_encoder(["bababa dedeba fobaba"]).tokenizer
    words = WordTable(len(tokenizer), 16)
    words.initialize(torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(0)), None)
    torch.manual_seed(0)
    tower = RecurrentTower(words, 16)
    return Encoder(TwoTower(tower, tower, Similarity()), tokenizer)


@pytest.mark.parametrize("encoder", [lambda: random_encoder(["bababa dedeba"]), recurrent])
def test_a_folder_that_was_made_elsewhere_is_the_same(
    encoder: Callable[[], Encoder], collection: Path, tmp_path: Path
) -> None:
    source, counts = WithFields(str(collection)), []
    for engine in (LOCAL, Elsewhere()):
        own = encoder()
        embed_corpus(own, source, tmp_path / type(engine).__name__, 70, dtype="int8", engine=engine)
        counts.append(own.passages.counts)
    assert counts[0] == counts[1]
    assert counts[0].passages == 240
    local, other = tmp_path / "LocalEngine", tmp_path / "Elsewhere"
    names = {path.name for path in local.iterdir()}
    assert len(names) == 4 * 3 + 2
    assert {path.name for path in other.iterdir()} == names
    for name in names:
        assert (other / name).read_bytes() == (local / name).read_bytes(), name


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'engine=ray needs its package: pip install -e "\.\[ray\]"'):
        embed(composed("run=x", "engine=ray", program="embed"))
