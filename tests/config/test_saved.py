"""Configurations as files, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from two_tower.config import differences, digest, read, to_yaml
from two_tower.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(st.integers())
CONFIGS = st.dictionaries(TEXT, LEAVES | st.dictionaries(TEXT, LEAVES, min_size=1), min_size=1)


@given(config=CONFIGS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_configuration_is_read_as_it_was_written(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    again = read(path)
    assert again == config
    assert differences(config, again) == []
    assert digest(again) == digest(config) == digest(dict(reversed(config.items())))


def test_differences_name_every_leaf_but_places() -> None:
    old = {"seed": 0, "tower": {"dim": 8, "words": {"freeze": False}}, "run_dir": "a"}
    new = {"seed": 0, "tower": {"dim": 9, "words": {"freeze": True}}, "run_dir": "b", "added": None}
    assert differences(old, new) == ["added: absent → None", "tower.dim: 8 → 9", "tower.words.freeze: False → True"]
    assert digest(old) != digest(new)
    assert digest(old) == digest({**old, "run_dir": "b"})


def test_what_is_no_configuration_says_so(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(UserError, match=r"config.yaml does not exist: .* is not the folder of a run"):
        read(path)
    path.write_text("a: [1")
    with pytest.raises(UserError, match="is not valid YAML"):
        read(path)
    path.write_text("just text")
    with pytest.raises(UserError, match="holds no configuration"):
        read(path)
