"""Texts and paths of a command line mean what is typed, in Hydra's grammar; all else stays Hydra's."""

import functools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import DictConfig

from two_tower import embed, train
from two_tower.config.build import written
from two_tower.config.compose import compose_raw, composed
from two_tower.config.literal import as_typed, quoted
from two_tower.errors import UserError

PARSER = OverridesParser.create()
ODD = [
    "müller/faq.csv", "Download (1)/faq.csv", "l'été/faq.csv", "d'or, d'argent.csv", "数据.csv", "data/ملف.csv",
    "faq~1.csv", "faq#1.csv", "#1", "{a}.csv", "[a].csv", "[a]", "{a:b}", "{a: b}", "a,b.csv", "runs/a=b",
    "runs/tower=gru,seed=0", "a:b", "a: b", "Frage (DE)", "Frage, kurz", "質問", "Größe", " blank ",
    "two  blanks", "2024_06", "2024.10", "2024.0", "1e5", "1_000", "1E-3", "+5", "0x10", "007", ".5", "5.",
    "-1", "True", "yes", "Null", "NaN", "inf", "-inf", "null.csv", "glob(*)", "choice(a,b)", "range(1,3)",
    "int(3)", "sort(b,a)", 'say "hi"', "'half", 'half"', "'a'.csv", "a\\b", "a\\", "\\\\server\\share", "a\\(b",
    "100%", "a&b;c!", "a|b?*", "$HOME", "~", "~/dir/faq.csv", "=", "==", "e\u0301te\u0301", "😀", "@", "a\tb",
]  # fmt: skip
TEXTS = ["data.path", "data.query_column", "data.name", "data.train_split", "run_dir", "init_from", "tokenizer.path"]


@functools.cache
def _composed(program: str, choices: tuple[str, ...]) -> DictConfig:
    return compose_raw(program, choices, hydra_config=True)


def typed(program: str, choices: Sequence[str], *overrides: str, sweep: bool = False) -> list[Any]:
    """What Hydra reads of the overrides: a value, or in a sweep a list of several."""
    types = {"train": train, "embed": embed}[program]._types
    in_grammar = as_typed([*choices, *overrides], lambda _: _composed(program, tuple(choices)), types, sweep)
    parsed = PARSER.parse_overrides(in_grammar[len(choices) :])
    element = Override._convert_value
    return [[*map(element, each.sweep_iterator())] if each.is_sweep_override() else each.value() for each in parsed]


def pairs(*overrides: str, sweep: bool = False) -> list[Any]:
    return typed("train", ["data=pairs", "tokenizer=subword"], *overrides, sweep=sweep)


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_what_was_typed(key: str) -> None:
    # The rest, a number as it is usually written, is what `check` makes a text again.
    assert [written(each) for each in pairs(*(f"{key}={text}" for text in ODD))] == ODD


@given(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12))
def test_any_text_is_what_was_typed(text: str) -> None:
    assume(text != "null" and "${" not in text and text[0] + text[-1] not in ("''", '""'))
    for each in pairs(f"data.query_column={text}", f"data.path={text}", f"+data.name={text}"):
        assert written(each) == text


def test_keys_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    choices = ["data=huggingface", "tower=transformer", "logger=wandb", "embedding=pretrained"]
    choices += ["teacher=sentence_transformer"]
    of_train = ["data.splits.train", "data.corpus", "tower.path", "logger.project", "embedding.path", "teacher.model"]
    of_train += ["+trainer.default_root_dir", "hydra.sweep.dir"]
    files = ["data.queries.dev", "data.triples", "data.corpus"]
    for program, chosen, keys in (
        ("train", choices, of_train), ("train", ["data=msmarco_passage"], files),
        ("embed", ["data=passages"], ["run", "output", "data.text_column"]),
    ):  # fmt: skip
        for text in ("2024_06", "ü,[1]"):
            assert typed(program, chosen, *(f"{key}={text}" for key in keys)) == [text] * len(keys)
    assert typed("train", choices, "hydra.sweep.dir=~/ü") == ["/home/me/ü"]


def test_null_quotes_and_interpolations_mean_what_they_do_in_hydra() -> None:
    assert pairs("run_dir=null", "data.query_column=null", "data.path=null") == [None, None, "null"]
    assert pairs("data.path='ü (1)'", '+run_dir="a, b"', "data.name='null'") == ["ü (1)", "a, b", "null"]
    assert pairs("run_dir=runs/${seed}", "run_dir=runs/ä ${data.name}") == ["runs/${seed}", "runs/ä ${data.name}"]


def test_what_is_no_text_stays_hydras() -> None:
    numbers = ["optimizer.lr=1e-3", "seed=1_000", "data.batch_size=null", "data.dev_share=.5", "shared_towers=False"]
    assert pairs(*numbers) == [0.001, 1000, None, 0.5, False]
    assert pairs("trainer.devices=[0,1]", "optimizer.betas=[0.9,1e-1]") == [[0, 1], [0.9, 0.1]]
    assert typed("train", ["data=huggingface"], "data.negative_columns=[a,b]") == [["a", "b"]]
    assert typed("embed", [], "shard_rows=1_0", "dtype=int8") == [10, "int8"]
    assert pairs("tower=gru", "~data.name", "tower.dim=8,16", sweep=True) == ["gru", None, [8, 16]]


def test_in_a_sweep_commas_part_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,ü.csv").touch()
    swept = functools.partial(pairs, sweep=True)
    assert swept("data.path=müller.csv,2024_06, l'été (1).csv,b.csv") == [
        ["müller.csv", "2024_06", "l'été (1).csv", "b.csv"]
    ]
    assert swept("data.path=a,ü.csv", "data.path='b,ü.csv'", "data.path=ü.csv") == ["a,ü.csv", "b,ü.csv", "ü.csv"]
    assert swept("data.query_column='Frage, kurz',Größe") == [["Frage, kurz", "Größe"]]
    assert swept("run_dir=${a,b},ü") == [["${a,b}", "ü"]]
    assert swept("data.name=choice(a,b)", "seed=range(1,3)", "data.name=null,ü") == [["a", "b"], [1, 2], [None, "ü"]]


def test_nothing_is_composed_for_what_hydra_reads_alike() -> None:
    plain = ["data=pairs", "data.path=a/b-c_1.csv", "seed=1", "optimizer.lr=0.001", "shared_towers=false"]
    assert as_typed(plain, lambda _: pytest.fail("composed"), lambda: pytest.fail("imported")) == plain


@given(st.text(max_size=20))
def test_quotes_keep_a_text(text: str) -> None:
    assert PARSER.parse_overrides([f"key={quoted(text)}"])[0].value() == text


def test_commands_read_them_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("l'été (1).csv", "2024"):
        (tmp_path / name).touch()
    for number in ("2024", "2_024"):
        data = composed(["data=pairs", f"data.path={number}"], {"data": train._types()["data"]})["data"]
        assert data["path"] == (str(tmp_path / "2024") if number == "2024" else number)
    columns = ["data.query_column=2024.10", "data.name=2024", "data.title_column=true"]
    data = composed(["data=pairs", "data.path=~/l'été (1).csv", *columns], {"data": train._types()["data"]})["data"]
    assert data["path"] == str(tmp_path / "l'été (1).csv")
    assert [data[key] for key in ("query_column", "name", "title_column")] == ["2024.10", "2024", "true"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.negative_columns=[Größe,b]", "\"data.negative_columns=['Größe',b]\""),
        ("data.negative_columns=['a, b',l'été]", r"'l\'"),
        ("data.path=a${b.csv", "data.path has no text: '${' begins another key's value"),
        ("data.splits={train: 訓練}", "\"data.splits={train:'訓練'}\""),
        ("data.negative_columns=[2024_06]", "a list of texts (written \"['a', '2024']\") or null"),
        ("data.splits={train: [a]}", "data.splits.train=['a'] has the wrong type: it must be text or null"),
        ("data.batch_size=(3", "data.batch_size=(3 has the wrong type: it must be a whole number or null"),
        ("tower=grü", "tower=grü does not exist; did you mean 'gru'"),
    ],
)
def test_what_cannot_be_read_is_a_sentence_that_helps(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        composed(["data=huggingface", "data.path=x", override], {"data": train._types()["data"]})
    assert sentence in str(raised.value)
    if "cannot be read" in str(raised.value):  # what it says can be pasted
        (example,) = shlex.split(str(raised.value).partition("as in ")[2])
        assert composed(["data=huggingface", "data.path=x", example], {"data": train._types()["data"]})
