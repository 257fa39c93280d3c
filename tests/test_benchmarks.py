"""The benchmarks run, check that the work is equal, and give well-formed rows. No test looks at a rate's size."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
import tokenizers

from benchmarks import __main__ as command
from benchmarks import gpu, load, load_page, measure, rates_page, serve, tokenise
from benchmarks.inputs import passages
from two_tower.tokenizer.base import Tokenizer


@pytest.mark.parametrize("name", command.NAMES)
def test_a_benchmark_gives_well_formed_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if packages := command.missing(name):
        pytest.skip(f"needs {' and '.join(packages)}: pip install -e '.[bench]'")
    # Threads instead of its processes, which import everything anew, and fewer texts for recurrent networks.
    monkeypatch.setattr("benchmarks.embed_corpus.ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))
    monkeypatch.setattr("benchmarks.recurrent.passages", lambda count, quick: passages(12, quick))
    output = tmp_path / "results.json"
    command.main([name, "--quick", "--output", str(output)])
    rows = json.loads(output.read_text(encoding="utf-8"))
    assert rows[0]["name"] == name
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == ["name", "ours", "peer", "unit", "ratio", "peer_name"]
        assert min(row["ours"], row["peer"], row["ratio"]) > 0
        assert (row["name"].startswith(name), row["unit"][-2:], row["peer_name"] == "ours") == (True, "/s", False)


def test_contestants_take_turns_the_fastest_peer_counts_and_ratios_are_taken_round_by_round() -> None:
    calls: list[str] = []
    measure.alternate({name: lambda name=name: calls.append(name) for name in "ab"}, work=7, rounds=2, seconds=0)
    assert calls == ["a", "b"] * 3  # the first does not count
    rates = {"ours": [10.0, 30.0, 20.0], "slow": [1.0, 9.0, 1.0], "fast": [2.0, 5.0, 5.0]}
    row = measure.compare("work", "texts/s", rates, "ours", ["slow", "fast"])
    assert row == measure.Row("work", ours=20, peer=5, unit="texts/s", ratio=5, peer_name="fast")


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


def test_what_is_published_is_kept_by_row_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_page, "STORED", tmp_path / "benchmarks.json")
    here = {name: "1" for name in rates_page.PACKAGES}
    monkeypatch.setattr(rates_page, "machine", lambda: {"processor": "slow", **here})
    rates = {"ours, float32": [20.0, 30.0, 40.0], "slow": [1.0, 1.0, 1.0], "fast": [10.0, 10.0, 10.0]}
    for name in "abb":
        rates_page.publish([measure.compare(name, "texts/s", rates, "ours, float32", ["slow", "fast"])])
    stored = rates_page.stored()
    assert [row["name"] for row in stored["rows"]] == ["a", "b"]
    empty = "".join(f"<!-- benchmarks {name} -->\n<!-- end -->\n" for name in ("rows", "all", "machine"))
    page = rates_page.filled(empty, stored)
    assert "| `a` | 30 texts/s | 10 texts/s | **3.0** | 2.0–4.0 |" in page
    assert "| `b`, texts/s | ours, float32 | 30 | 20–40 |\n| | slow | 1 | 1–1 |" in page
    assert "slow; torch 1, " in page
    assert rates_page.picture(stored["rows"]).count("<rect") == 2
    monkeypatch.setattr(rates_page, "machine", lambda: {"processor": "fast", **here})
    rates_page.publish([measure.compare("c", "texts/s", rates, "ours, float32", ["slow", "fast"])])
    assert [row["name"] for row in rates_page.stored()["rows"]] == ["c"]


def test_what_a_card_computes_is_compared(tmp_path: Path) -> None:
    """On the processor, where the device is the reference; and with a bound that nothing meets."""
    found = [*gpu.rankings("cpu", True), *gpu.curves(tmp_path, "cpu", True), *gpu.indexes(tmp_path, False)]
    assert [check for check in found if not check.passed] == []
    rounded = next(check for check in found if "bf16-mixed" in check.name)
    assert 0 < rounded.error < rounded.bound
    assert not rounded._replace(bound=rounded.error / 2).passed
    assert not rounded._replace(error=np.nan).passed


@pytest.mark.parametrize("part", ["teachers", "rates"])
def test_a_card_beside_sentence_transformers(part: str) -> None:
    for package in ("sentence_transformers", gpu.TEACHER):
        pytest.importorskip(package, reason="needs pip install -e '.[bench,teacher]'")
    assert [*getattr(gpu, part)("cpu", True)]


def test_a_disturbed_service_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if packages := [name for name in command.missing("serve") if name != "wrk"]:
        pytest.skip(f"needs {' and '.join(packages)}: pip install -e '.[serve]'")
    texts = passages(40, quick=True)
    searcher = serve._searcher(tmp_path, texts, quick=True)
    monkeypatch.setattr(load, "NONSENSE", 40)
    with serve.served_app(serve._ours(searcher)) as url:
        assert load.disturb(url) == 20  # half of them are not waited for
        with urlopen(f"{url}/search?q={quote(texts[3][:40])}&k=3") as answer:
            assert len(json.load(answer)["hits"]) == 3


def test_the_table_of_a_load() -> None:
    seen = serve.Load(rate=512.3, failed=0.0, p50=25.1, p99=33.0, p999=41.7)
    stored = {"passages": 31_058, "dim": 256, "machine": "slow", "rows": [load._row("flat", 16, seen, 400.4, 401.0)]}
    page = load_page.filled("<!-- load table -->\n<!-- end -->", stored)
    assert "31,058 passages of 256 dimensions; slow.\n" in page
    assert "| flat | 16 | 512 | 25 ms | 33 ms | 42 ms | 0 | 400 MB | 401 MB |" in page
