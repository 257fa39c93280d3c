"""Mistakes inside of a component are named with their whole key, before any data is read."""

from pathlib import Path

import pytest
from conftest import configure
from hydra import compose, initialize_config_dir

from two_tower.assemble import try_parts
from two_tower.config.compose import explain
from two_tower.config.saved import CONF
from two_tower.errors import UserError

# Base, mistake → the message.
MISTAKES = {
    "loss=sum +loss.triplet.margn=1": r"loss\.triplet\.margn .* did you mean 'margin'",
    "loss=sum loss.triplet.margin=wide": r"loss\.triplet\.margin=wide has the wrong type",
    "loss=sum loss.triplet.margin=-1": r"^loss\.triplet\.margin=-1(\.0)? must be above 0",
    "loss=sum +loss.weights.tripelt=1": r"loss\.weights\.tripelt .* triplet",
    "loss=sum loss.weights.triplet=x": r"loss\.weights\.triplet=x must be a number",
    "loss=sum +loss.wieghts=3": r"loss\.wieghts .* \+loss@loss\.wieghts=CHOICE",
    "loss=matryoshka loss@loss.loss=sum loss.loss.triplet.margin=-1": r"^loss\.loss\.triplet\.margin=-1",
    "loss=matryoshka loss.dims=[8,32]": r"loss\.dims=\[8, 32\] must be from 1 to 16",
    "negatives=mixed +negatives.bm25.lastrank=1": r"negatives\.bm25\.lastrank .* did you mean 'last_rank'",
    "negatives=mixed negatives.bm25.first_rank=0": r"^negatives\.bm25\.first_rank=0 must be at least 1",
    "negatives=mixed negatives.random.count=2": r"^negatives\.random\.count has no effect in a mixture",
    "negatives=mixed +negatives.weights.bm52=1": r"negatives\.weights\.bm52 .* bm25",
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.items())
def test_mistakes_inside_are_named_before_data_is_read(overrides: str, message: str, tmp_path: Path) -> None:
    *base, mistake = overrides.split()

    def parts(*overrides: str) -> None:
        try_parts(configure(tmp_path / "absent", tmp_path / "run", *overrides))

    parts(*base)  # negative control: without the mistake it is fine
    with pytest.raises(UserError, match=message):
        parts(*base, mistake)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=sum", "loss.triplet.margn=1"], "loss.triplet.margn does not exist; did you mean 'loss.triplet.margin'"),
        (["loss=matryoshka", "loss@loss.loss=tripelt"], "loss=tripelt does not exist; did you mean 'triplet'"),
        (["negatives=mixed", "negatives.bm25.lastrank=1"], "negatives.bm25.lastrank does not exist; did you mean"),
        (["negatives=mixed", "negatives@negatives.bm25=bm52"], "negatives=bm52 does not exist; did you mean 'bm25'"),
    ],
)
def test_what_hydra_refuses_inside_is_explained(overrides: list[str], message: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(Exception) as caught:  # noqa: PT011
        compose("train", overrides)
    assert explain(caught.value, "train", overrides).startswith(message)
