"""Leaderboards of made-up runs: p-values against every exchange counted, refusals, and what people see."""

import itertools
import json
import operator
import re
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from two_tower.config.compose import compose_raw
from two_tower.config.entry import composition_of
from two_tower.config.saved import Composition
from two_tower.errors import UserError
from two_tower.metrics import write_per_query
from two_tower.metrics.significance import holm
from two_tower.report.leaderboard import distinguish, experiment, leaderboard, row_names
from two_tower.report.page import html_page, markdown_page

BM25 = [1, 2, 2, 5, 0, 1, 3, 2, 10, 2]  # ranks of the relevant passage; 0 = not found
WIDE = [[1, 1, 1, 2, 2, 1, 2, 1, 10, 1], [1, 1, 2, 2, 1, 1, 2, 1, 10, 1], [1, 1, 1, 1, 2, 1, 3, 1, 10, 1]]
NARROW = [[2, 3, 1, 2, 2, 4, 2, 1, 0, 5], [2, 3, 2, 2, 2, 4, 3, 1, 0, 5], [2, 3, 1, 4, 2, 4, 2, 2, 0, 5]]

Ranks = Sequence[int]
Make = Callable[..., Path]


def values(ranks: Ranks) -> list[Fraction]:
    return [Fraction(1, rank) if rank else Fraction(0) for rank in ranks]


def config_of(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    config = {
        "data": {"validation_split": "dev"},
        "tokenizer": {"split_camel_case": False},
        "tower": {"_target_": "two_tower.tower.average.AverageTower", "dim": 64},
        "embedding": {"dim": 64, "seed": changes.get("seed", 0)},
        "validation": {"monitor": "mrr@10"},
        "similarity": "cosine",
        "seed": 0,
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        config[group] = {**config[group], name: value} if name else value
    return config


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make(name, ranks, **changes)``: the folder of a finished run; ``tower__dim=8`` changes its configuration."""

    def run(
        name: str, ranks: Ranks, bm25: Ranks | None = BM25, ids: Sequence[str] | None = None, documents: int = 100,
        **changes: Any,  # noqa: ANN401
    ) -> Path:  # fmt: skip
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(yaml.safe_dump({**config_of(**changes), "run_dir": str(path)}))
        ids = ids or [f"q{i}" for i in range(len(ranks))]
        columns = {"mrr@10": ranks, "recall@1": [1 if rank == 1 else 0 for rank in ranks]}
        if bm25 is not None:
            columns["bm25/mrr@10"] = bm25
        floats = {k: np.array([float(v) for v in (values(c) if "mrr" in k else c)]) for k, c in columns.items()}
        write_per_query(
            path / "per_query.csv", ids, floats, [f"text of {each}" for each in ids] if bm25 is not None else None
        )
        results = {f"val/{k}": v.mean() for k, v in floats.items() if "/" not in k}
        results |= {"queries": len(ids), "documents": documents, "val/mrr": None}
        (path / "results.json").write_text(json.dumps(results))
        return path

    return run


@pytest.fixture
def six(make: Make) -> list[Path]:
    wide = [make(f"wide-{s}", ranks, seed=s, tower__dim=256, embedding__dim=256) for s, ranks in enumerate(WIDE)]
    return [*(make(f"narrow-{s}", ranks, seed=s) for s, ranks in enumerate(NARROW)), *wide]


def averaged(runs: Sequence[Ranks]) -> list[Fraction]:
    return [sum(each, Fraction(0)) / len(runs) for each in zip(*map(values, runs), strict=True)]


def p_value(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    """Of the paired randomisation test: all exchanges, one by one, in fractions."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    sums = [sum(map(operator.mul, signs, differences)) for signs in itertools.product((1, -1), repeat=len(a))]
    return Fraction(sum(abs(s) >= abs(sum(differences)) for s in sums), len(sums))


def test_three_seeds_each_of_two_towers(six: list[Path]) -> None:
    board = json.loads(json.dumps(leaderboard(six).to_dict()))
    wide, narrow = averaged(WIDE), averaged(NARROW)
    first, second = board["rows"]
    assert first["overrides"] == {"tower.dim": 256, "embedding.dim": 256}
    assert second["overrides"] == {"tower.dim": 64, "embedding.dim": 64}
    assert [run["path"] for run in first["runs"]] == [str(path) for path in six[3:]]
    assert [run["seed"] for run in second["runs"]] == [0, 1, 2]
    for row, runs in ((first, WIDE), (second, NARROW)):
        means = [float(sum(values(ranks)) / len(ranks)) for ranks in runs]
        assert [run["val/mrr@10"] for run in row["runs"]] == pytest.approx(means)
        assert row["mean"] == pytest.approx(statistics.mean(means), abs=1e-12)
        assert row["std"] == pytest.approx(statistics.stdev(means), abs=1e-12)
        assert row["low"] < row["mean"] < row["high"]
    assert first["p_vs_best"] is None
    assert second["p_vs_best"] == pytest.approx(float(p_value(narrow, wide)), abs=1e-12)
    raw = [float(p_value(each, values(BM25))) for each in (wide, narrow)]
    assert [row["raw_p_vs_bm25"] for row in (first, second)] == pytest.approx(raw, abs=1e-12)
    assert (board["metric"], board["split"], board["queries"], board["documents"]) == ("mrr@10", "dev", 10, 100)
    assert board["bm25/mrr@10"] == pytest.approx(float(sum(values(BM25)) / 10))


def test_three_rows_are_tested_against_the_best_and_against_bm25_and_corrected_together(make: Make) -> None:
    ranks = {256: WIDE[0], 128: [1, 2, 1, 3, 0, 1, 2, 2, 5, 2], 64: NARROW[0]}
    paths = [make(str(dim), each, tower__dim=dim) for dim, each in ranks.items()]
    rows = leaderboard(paths).to_dict()["rows"]
    assert [row["overrides"]["tower.dim"] for row in rows] == [256, 128, 64]
    for against, other, first in (("best", WIDE[0], 1), ("bm25", BM25, 0)):
        raw = [float(p_value(values(each), values(other))) for each in [*ranks.values()][first:]]
        assert [row[f"raw_p_vs_{against}"] for row in rows[first:]] == pytest.approx(raw, abs=1e-12)
        assert [row[f"p_vs_{against}"] for row in rows[first:]] == pytest.approx(holm(raw), abs=1e-12)


def test_wins_and_losses_name_the_queries(six: list[Path]) -> None:
    with_bm25, with_second = leaderboard(six).to_dict()["comparisons"]
    assert (with_bm25["a"], with_bm25["b"]) == ("embedding.dim=256 tower.dim=256", "BM25")
    assert (with_second["a"], with_second["b"]) == ("embedding.dim=256 tower.dim=256", "embedding.dim=64 tower.dim=64")
    differences = [w - b for w, b in zip(averaged(WIDE), values(BM25), strict=True)]
    assert with_bm25["wins"] == sum(d > 0 for d in differences)
    assert with_bm25["losses"] == sum(d < 0 for d in differences) == 0
    # Among them a tenth, whose average over three seeds is off by rounding.
    assert with_bm25["ties"] == sum(d == 0 for d in differences) == 3
    falling = sorted(range(10), key=lambda i: -differences[i])[:5]
    assert [each["query"] for each in with_bm25["won"]] == [f"q{i}" for i in falling]
    assert with_bm25["won"][0] == {"query": "q4", "text": "text of q4", "a": pytest.approx(2 / 3), "b": 0}
    assert with_bm25["lost"] == []


def test_another_metric_orders_and_tests(six: list[Path]) -> None:
    board = leaderboard(six, "recall@1")
    assert [row.means["recall@1"] for row in board.rows] == pytest.approx([19 / 30, 4 / 30])
    assert board.rows[1].vs_bm25 is None  # BM25's was not measured
    assert board.comparisons[0].b == board.rows[1].name
    with pytest.raises(UserError, match=r"narrow-0 has not measured recall@10; did you mean 'recall@1'\?"):
        leaderboard(six, "recall@10")


def test_queries_in_another_order_are_the_same_queries(make: Make) -> None:
    ids, order = [f"q{i}" for i in range(10)], [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    paths = [make("a", WIDE[0], seed=0), make("b", NARROW[0], seed=1, tower__dim=8)]
    expected = [row.to_dict("mrr@10") for row in leaderboard(paths).rows]
    ranks, bm25, ids = ([each[i] for i in order] for each in (NARROW[0], BM25, ids))
    shuffled = make("c", ranks, bm25, ids, tower__dim=8)
    found = [row.to_dict("mrr@10") for row in leaderboard([paths[0], shuffled]).rows]
    for key in ("p_vs_best", "p_vs_bm25"):
        assert [row[key] for row in found] == [row[key] for row in expected]


def test_one_run_and_no_bm25(make: Make) -> None:
    path = make("alone", WIDE[0], bm25=None)
    board = leaderboard([path, path])  # twice the same is once
    (row,) = board.to_dict()["rows"]
    assert (row["overrides"], row["std"], row["p_vs_best"], row["p_vs_bm25"]) == ({}, None, None, None)
    assert board.rows[0].name == "alone"
    assert board.comparisons == []
    assert "BM25" not in re.sub(r"p vs BM25", "", markdown_page(board))


def test_a_sweeps_folder_stands_for_its_runs(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    paths = [make(f"sweep/{name}", WIDE[0], tower__dim=dim) for name, dim in (("a", 8), ("b", 16), ("c", 32))]
    (paths[2] / "results.json").unlink()
    board = leaderboard([paths[0].parent])
    assert sorted(run.path for row in board.rows for run in row.runs) == paths[:2]
    assert f"{paths[2]} is left out" in caplog.text
    with pytest.raises(UserError, match="c is not finished"):
        leaderboard(paths)
    with pytest.raises(UserError, match="holds no finished run"):
        leaderboard([paths[0] / "nothing"])
    (paths[0] / "per_query.csv").unlink()
    with pytest.raises(UserError, match=r"per_query.csv does not exist"):
        leaderboard([paths[0]])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "documents": ({"documents": 99}, "100 and 99 documents"),
    "other queries": ({"ids": [f"q{i}" for i in range(1, 11)]}, "on different queries"),
    "another sample": ({"validation__sample_seed": 1}, r"different samples \(validation.sample_seed=0, 1\)"),
    "other texts": ({"bm25": [2, *BM25[1:]]}, "bm25/mrr@10 differs"),
    "monitor": ({"validation__monitor": "recall@1"}, "say by which to compare: --metric"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_figures_that_mean_different_things_are_not_compared(what: str, make: Make) -> None:
    changes, sentence = REFUSED[what]
    first = make("first", WIDE[0], validation__sample_seed=0)
    second = make("second", **{"ranks": NARROW[0], **changes})
    with pytest.raises(UserError, match=f"first .*second .*{sentence}"):
        leaderboard([first, second])


def test_bm25_may_read_other_words(make: Make) -> None:
    better = [1, *BM25[1:3], 1, *BM25[4:]]
    first = make("first", WIDE[0])
    board = leaderboard([first, make("second", NARROW[0], better, tokenizer__split_camel_case=True)])
    assert board.bm25["mrr@10"] == pytest.approx(float(sum(values(better)) / 10))  # the stronger one is to beat
    assert leaderboard([first, make("third", NARROW[0], None, tower__dim=1)]).bm25["mrr@10"] < board.bm25["mrr@10"]


def test_configurations_are_told_apart_as_they_are_typed() -> None:
    other = "loss=triplet embedding=word2vec similarity=dot"
    experiments = ["", "tower=gru", "tower.dim=32 loss.temperature=0.1", other]
    commands = [[*each.split(), f"seed={seed}"] for seed, each in enumerate(experiments)]
    configs = [OmegaConf.to_container(compose_raw("train", each), resolve=True) for each in commands]
    composed = [compose_raw("train", each, hydra_config=True) for each in commands]
    compositions = [composition_of(each, each.hydra.runtime.choices) for each in composed]
    base, gru, narrow, other = distinguish(configs, compositions)
    rest = {"similarity": "cosine", "embedding": "random", "loss": "in_batch"}
    assert base == {**rest, "tower": "average", "tower.dim": base["tower.dim"], "loss.temperature": 0.05}
    assert gru["tower"] == "gru"
    assert (narrow["tower.dim"], narrow["loss.temperature"], narrow["tower"]) == (32, 0.1, "average")
    assert (other["loss"], other["embedding"], other["similarity"]) == ("triplet", "word2vec", "dot")
    assert "loss.temperature" not in other
    assert "loss.margin" not in other  # it only comes with the loss


def test_what_only_some_have_is_told_alone_and_beside_other_differences() -> None:
    """Else a row would be called by its tower alone, though it was trained on less."""
    with_more = config_of(tower__layers=2)
    assert distinguish([config_of(), with_more]) == [{"tower.layers": None}, {"tower.layers": 2}]
    config = {**config_of(), "trainer": {"_target_": "lightning.Trainer", "max_epochs": 3}}
    gru = {"_target_": "two_tower.tower.recurrent.RecurrentTower", "cell": "gru", "dim": 64, "layers": 2}
    shorter = {**config, "tower": gru, "trainer": {**config["trainer"], "limit_train_batches": 30}}
    choices = [Composition({"tower": "average"}), Composition({"tower": "gru"})]
    assert distinguish([config, shorter], choices) == [
        {"tower": "average", "trainer.limit_train_batches": None},
        {"tower": "gru", "trainer.limit_train_batches": 30},
    ]


def test_what_is_shown_of_a_run_makes_no_other_experiment() -> None:
    base = {**config_of(), "logger": {"tags": ["a"]}, "callbacks": {"samples": {"console": "end"}}}
    other = {**base, "logger": {"tags": ["b"]}, "callbacks": {"samples": {"console": "never"}}, "seed": 1}
    assert experiment(base) == experiment(other)
    assert experiment(base) != experiment({**other, "callbacks": {"early_stopping": {"patience": 1}}})
    assert experiment({**base, "loggers": 1}) != experiment(base)


def test_long_overrides_give_way_to_the_names_of_the_folders() -> None:
    long = [{"tower": "gru", "loss": each * 80} for each in "ab"]
    folders = [[Path("runs/plan_1_0"), Path("runs/plan_1_1")], [Path("runs/plan_2")]]
    assert row_names(long, folders) == ["plan_1", "plan_2"]
    assert row_names([{"dim": 1}, {"dim": 2}], folders) == ["dim=1", "dim=2"]
    assert row_names([{}], folders[1:]) == ["plan_2"]
    for alike in ([[Path("0"), Path("1")], [Path("2")]], [[Path("a_0")], [Path("a_0")]]):  # no names, equal names
        assert row_names(long, alike) == [f"tower=gru loss={each * 80}" for each in "ab"]


def test_the_page_is_a_table_that_a_reader_can_act_on(six: list[Path]) -> None:
    page = markdown_page(leaderboard(six))
    assert "10 queries of 'dev', each against 100 passages." in page
    assert "Best: embedding.dim=256 tower.dim=256, mrr@10 0.771 (the mean of 3 runs)." in page
    assert re.search(r"It is 0.308 above BM25 \(0.463\), more than chance \(p = 0\.0\d+\)", page)
    assert "Below the best by more than chance: embedding.dim=64 tower.dim=64." in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
        assert len({len(line) for line in table}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[0]]
    assert cells[0][:4] == ["embedding.dim", "tower.dim", "runs", "mrr@10"]  # a column for each axis
    assert [row[:3] for row in cells[2:]] == [["256", "256", "3"], ["BM25", "", ""], ["64", "64", "3"]]


def test_what_may_be_chance_is_called_so(make: Make) -> None:
    paths = [make(f"r{i}", [*WIDE[0][: 10 - i], *BM25[10 - i :]], tower__dim=i) for i in range(7)]
    page = markdown_page(leaderboard(paths))
    assert "Not to be told apart from the best with 10 queries: 6 rows." in page
    page = markdown_page(leaderboard([paths[6]]))
    assert re.search(r"above BM25 \(0.463\), which may be chance \(p = 0\.\d+\)", page)


def test_texts_of_people_stay_texts_and_the_html_needs_nothing_else(make: Make) -> None:
    nasty = ["e", "<script>alert(1)</script>", "a|b\nc", '"&amp;"', "q" * 300, *"fghij"]
    board = leaderboard([make("<run>", WIDE[0], ids=nasty)])
    page, html = markdown_page(board), html_page(board)
    assert "a\\|b c" in page
    assert "q" * 101 + " " not in page.replace("q" * 300, "")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    closed = html.removeprefix("<!doctype html>").replace('<meta charset="utf-8">', "")
    ET.fromstring(closed.replace('1">\n<title>', '1"/>\n<title>'))
    assert not re.search(r"https?:|src=|@import|url\(|<link", html)
    assert html.count("<svg") == 2
    assert "prefers-color-scheme: dark" in html


def test_one_name_for_two_collections_is_never_averaged(make: Make) -> None:
    paths = [make(f"run{seed}", WIDE[seed], seed=seed) for seed in range(3)]
    for path, fingerprint in zip(paths, ("old", "old", "new"), strict=True):
        (path / "data.json").write_text(json.dumps({"name": "mine", "fingerprint": fingerprint, "parts": []}))
    assert len(leaderboard(paths[:2]).rows[0].runs) == 2
    with pytest.raises(UserError, match=r"run0 and .*run2 cannot be compared: mine changed between them"):
        leaderboard(paths)
    assert len(leaderboard([paths[0], make("other", NARROW[0], data__path="elsewhere")]).rows) == 2


def test_a_run_and_its_update_are_compared_on_the_queries_they_share(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    before = make("before", WIDE[0], documents=100)
    ids = [f"q{i}" for i in range(2, 12)]
    after = make("after", NARROW[0], BM25[::-1], ids, documents=120, init_from=str(before))
    for path in (before, after):
        (path / "data.json").write_text(json.dumps({"name": "mine", "fingerprint": path.name, "parts": []}))
    board = leaderboard([before, after])
    assert board.queries == 8
    wanted = {"before": WIDE[0][2:], "after": NARROW[0][:8]}
    for row in board.rows:
        ranks = wanted[row.runs[0].path.name]
        np.testing.assert_allclose(row.values, [float(value) for value in values(ranks)])
    assert f"{before} among 100, {after} among 120" in caplog.text
    assert "on the 8 queries of all of them" in caplog.text
    with pytest.raises(UserError, match="they share no query"):
        leaderboard([before, make("gone", WIDE[1], ids=[f"new{i}" for i in range(10)], init_from=str(before))])
    with pytest.raises(UserError, match="validated with 100 and 120 documents"):
        leaderboard([before, make("other", NARROW[0], documents=120)])


def test_a_run_made_twice_counts_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    runs = [make("one", WIDE[0]), make("again", WIDE[0]), make("two", WIDE[1], seed=1)]
    (row,) = leaderboard(runs).rows
    assert [run.path.name for run in row.runs] == ["one", "two"]
    assert "again is left out: it is " in caplog.text
    (row,) = leaderboard([runs[0], make("on another machine", WIDE[2])]).rows  # the same seed, other figures
    assert len(row.runs) == 2


def test_new_passages_have_a_table_of_their_own(make: Make) -> None:
    runs = [make(f"{i}", WIDE[i], seed=i) for i in range(2)] + [make("whole", NARROW[0], tower__dim=8)]
    assert "New passages" not in markdown_page(leaderboard(runs))
    for number, run in enumerate(runs[:2]):
        results = json.loads((run / "results.json").read_text())
        figures = {"val_seen": 0.5, "val_unseen": 0.25, "val_new": 0.75, "bm25_seen": 0.5, "bm25_unseen": 0.125}
        results |= {f"{name}/mrr@10": figure + number / 100 for name, figure in figures.items()}
        (run / "results.json").write_text(json.dumps(results))
    page = markdown_page(leaderboard(runs)).partition("## New passages")[2].partition("## ")[0]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line]
    assert table[0] == ["configuration", "seen", "unseen", "among new"]
    assert table[2:] == [["tower.dim=64", "0.5050", "0.2550", "0.7550"], ["BM25 on the same", "0.5050", "0.1300", ""]]
    assert "<h2>New passages</h2>" in html_page(leaderboard(runs))
    assert leaderboard(runs).rows[0].runs[0].to_dict()["val_unseen/mrr@10"] == 0.25
