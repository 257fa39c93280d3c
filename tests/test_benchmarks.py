"""The benchmarks run, check that the work is equal, and give well-formed rows. No test looks at a rate's size."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from benchmarks import __main__ as command
from benchmarks import measure, tokenise
from two_tower.tokenizer.base import Tokenizer


@pytest.mark.parametrize("name", command.NAMES)
def test_a_benchmark_gives_well_formed_rows(name: str, tmp_path: Path) -> None:
    if packages := command.missing(name):
        pytest.skip(f"needs {' and '.join(packages)}: pip install -e '.[bench]'")
    output = tmp_path / "results.json"
    command.main([name, "--quick", "--output", str(output)])
    rows = json.loads(output.read_text(encoding="utf-8"))
    assert rows[0]["name"] == name
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == ["name", "ours", "peer", "unit", "ratio", "peer_name"]
        assert min(row["ours"], row["peer"], row["ratio"]) > 0
        assert (row["name"].startswith(name), row["unit"][-2:], row["peer_name"] == "ours") == (True, "/s", False)


def test_the_fastest_peer_counts_and_ratios_are_taken_round_by_round() -> None:
    rates = {"ours": [10.0, 30.0, 20.0], "slow": [1.0, 9.0, 1.0], "fast": [2.0, 5.0, 5.0]}
    row = measure.compare("work", "texts/s", rates, "ours", ["slow", "fast"])
    assert row == measure.Row("work", ours=20, peer=5, unit="texts/s", ratio=5, peer_name="fast")


def test_contestants_take_turns_after_a_call_that_does_not_count() -> None:
    calls: list[str] = []
    contestants = {name: lambda name=name: calls.append(name) for name in "ab"}
    rates = measure.alternate(contestants, work=7, rounds=2, seconds=0)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in rates.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize("other", [[1.0, 2.1], [1.0, np.nan], [1.0]])
def test_unequal_work_is_refused(other: list[float]) -> None:
    with pytest.raises(RuntimeError, match="vectors of peer"):
        measure.require_equal("vectors of peer", np.array([1.0, 2.0]), np.array(other), 1e-5)
    measure.require_equal("vectors of peer", np.array([1.0, 2.0]), np.array([1.0, 2.000001]), 1e-5)


def test_a_peer_that_does_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    make = tokenise.library_tokenizer

    def truncating(ours: Tokenizer) -> tokenizers.Tokenizer:
        library = make(ours)
        library.enable_truncation(20)
        return library

    monkeypatch.setattr(tokenise, "library_tokenizer", truncating)
    monkeypatch.setattr(tokenise, "alternate", lambda *_: pytest.fail("timed unequal work"))
    with pytest.raises(RuntimeError, match="ids differ"):
        tokenise.run(quick=True)


def test_a_benchmark_without_its_peer_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda package: None)
    command.main(["validate", "--quick", "--output", str(tmp_path / "results.json")])
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == []
    assert "sentence_transformers not installed" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_name_is_an_error_that_lists_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        command.main(["encode"])
    assert error.value.code == 2
    assert "encode_average" in capsys.readouterr().err
