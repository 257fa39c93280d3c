"""Marks against what BM25 finds, and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_tower.bm25 import BM25
from two_tower.highlight import COMMON, Highlighter
from two_tower.tokenizer.base import Rule

TEXT = "Learning rates: the ReduceLROnPlateau scheduler learns when rates_fall. Ünïcode, don't!"
ENGLISH = Rule(languages=("en",))


def marked(query: str, text: str, rule: Rule = ENGLISH) -> list[str]:
    return [text[a:b] for a, b in Highlighter(rule).marker(query)(text)]


def test_inflections_and_parts_of_names_are_found_and_common_words_only_where_there_are_no_others() -> None:
    for text in (TEXT, TEXT.replace("Ünï", "Uni")):  # read in two ways
        assert marked("how do I learn the rate?", text) == ["Learning", "rates", "learns", "rates"]
        assert marked("reduce LR", text) == []
        assert marked("reduce LR plateau", text, Rule(True, languages=("en",))) == ["Reduce", "LR", "Plateau"]
        assert marked("the scheduler", text) == ["scheduler"]
        assert marked("when the", text) == ["the", "when"]
        assert marked("", text) == marked("?!", text) == []


@pytest.mark.parametrize(
    ("language", "query", "text", "marks"),
    [
        ("fr", "ete", "un e\u0301te\u0301, l’été", ["e\u0301te\u0301", "été"]),
        ("es", "educacion", "la educación y las educaciones", ["educación", "educaciones"]),
        ("es", "educación", "la educación y las educaciones", ["educación", "educaciones"]),
        ("hi", "पोस्ट", "यह पोस्ट, प स ट", ["पोस्ट"]),
        ("th", "ข้าว", "ฉันชอบข้าวผัด ขาว", ["ข้าว", "าว"]),
        ("zh", "学习算法", "机器学习算法很有用，法学", ["学习算法"]),
        ("zh", "用", "机器学习算法很有用", ["用"]),
        ("ko", "책", "학교에서 책을 읽다", ["책"]),
        ("ar", "كتب", "كَتَبَ الولد", ["كَتَبَ"]),
        ("he", "שלום", "שָׁלוֹם עולם", ["שָׁלוֹם"]),
        ("en", "👍", "👍🏽 👎", ["👍"]),
        ("en", "<", "< >", ["<"]),
    ],
)
def test_words_of_many_languages(language: str, query: str, text: str, marks: list[str]) -> None:
    assert marked(query, text, Rule(languages=(language,))) == marks


@given(st.text(max_size=40), st.text(max_size=60), st.sampled_from([(), ("en",), ("zh", "es"), ("vi",)]), st.booleans())
def test_what_bm25_finds_is_marked(query: str, text: str, languages: tuple[str, ...], split: bool) -> None:
    rule = Rule(split, languages=languages)
    rare = [word for word in rule.words(query) if word not in COMMON]
    if rare and BM25([text], rule).known(" ".join(rare)):
        marks = Highlighter(rule).marker(query)(text)
        assert marks == sorted(marks)
        assert all(a < b <= c for (a, b), (c, _) in zip(marks, [*marks[1:], (len(text), 0)], strict=True))
        assert marks
