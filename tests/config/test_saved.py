"""Configurations as files: read as written, compared, and refused where a key has another name now."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from two_tower.config import differences, digest, read, saved, to_yaml
from two_tower.config.compose import check_overrides
from two_tower.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(st.integers())
# Hypothesis also tries constants of the code under test, such as ``index.probes``, which is refused.
RENAMED = {key.partition(".")[0] for key in (*saved.RENAMED, *saved.REMOVED)}
GROUPS = TEXT.filter(lambda key: key.partition(".")[0] not in RENAMED)
CONFIGS = st.dictionaries(GROUPS, LEAVES | st.dictionaries(TEXT, LEAVES, min_size=1), min_size=1)


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
    for workers in (1, 2):  # who computes does not change what is computed; older runs do not say who
        elsewhere = {**old, "engine": {"_target_": "x", "workers": workers}}
        assert differences(old, elsewhere) == []
        assert digest(elsewhere) == digest(old)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "config.yaml does not exist: .* is not the folder of a run"),
        ("a: [1", "is not valid YAML"),
        ("just text", "holds no configuration"),
    ],
)
def test_what_is_no_configuration_says_so(text: str | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read(path)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("negatives.share", "negatives.share is now called negatives.in_batch: "),
        ("negatives.random.share", "negatives.random.share is now called negatives.random.in_batch: "),
        ("memory", "memory is now called cross_batch.size: "),
        ("loss.deep.nested.gone", "loss.deep.nested.gone is gone: it did not help"),
    ],
)
def test_a_renamed_key_is_refused_on_the_command_line_and_in_older_runs(
    key: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"negatives.share": "negatives.in_batch", "memory": "cross_batch.size"}
    monkeypatch.setattr(saved, "RENAMED", names)
    monkeypatch.setattr(saved, "REMOVED", {"loss.gone": "it did not help"})
    for prefix in ("", "+", "~"):
        with pytest.raises(UserError, match=f"^{sentence}"):
            check_overrides([f"{prefix}{key}=1"])
    config: Any = 1
    for name in reversed(key.split(".")):
        config = {name: config}
    (tmp_path / "config.yaml").write_text(to_yaml({"seed": 0, **config}))
    with pytest.raises(UserError, match=rf"config\.yaml: {sentence}"):
        read(tmp_path / "config.yaml")
    check_overrides(["negatives.in_batch=1", "loss=triplet", "data.memory=1"])


def test_every_renamed_key_is_gone_and_has_a_place_to_go() -> None:
    from conftest import composed

    keys = {*saved.leaves(composed()), *saved.leaves(composed("run=x", program="embed"))}
    assert not keys & {*saved.RENAMED, *saved.REMOVED}


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data:\n  path: x\nshared_to")
    with pytest.raises(UserError, match=r"holds no|is not valid YAML"):
        read(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("data:\n  path: x\n")
    config = read(tmp_path / "config.yaml")
    assert config == {"data": {"path": "x"}}
    assert to_yaml(config) == "data:\n  path: x\n"
    with pytest.raises(UserError, match=r"config\.yaml lacks 'loss', perhaps since it was cut short"):
        config["loss"]
