"""What a word is: by hand, by Unicode's own segmentation (ICU), and the same whether composed or not."""

import json
import unicodedata

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from icu4py.breakers import WordBreaker
from icu4py.locale import Locale

from two_tower.tokenizer.base import Rule
from two_tower.tokenizer.word import WordTokenizer

# A letter of each script first: a mark at the start of a text belongs to nothing.
SCRIPTS = ["abcXYZéñß", "абвйё", "αβγώ", "कखगिींा्", "ابتَ", "אבשָׁ", "0123456789", "தமிழ்", "অআকি", "აბგ", "ԱԲգ"]
BETWEEN = [" ", ", ", "! ", "? ", "(", ")", "—", "/", " - ", "\n"]

words = st.lists(st.sampled_from(SCRIPTS), min_size=1, max_size=2).flatmap(
    lambda pools: st.text("".join(pools), max_size=6).map(lambda rest: pools[0][0] + rest)
)
texts = st.lists(st.tuples(words, st.sampled_from(BETWEEN)).map("".join), max_size=8).map("".join)


def by_icu(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for segment in WordBreaker(text, Locale("en")):
        if any(unicodedata.category(letter)[0] in "LMN" for letter in segment):
            spans.append((start, start + len(segment)))
        start += len(segment)
    return spans


@given(texts, st.sampled_from(["NFC", "NFD"]))
def test_words_are_unicodes(text: str, form: str) -> None:
    text = unicodedata.normalize(form, text)
    assert [(start, end) for _, start, end in Rule(strip_accents=False).spans(text)] == by_icu(text)


@given(texts, st.sampled_from([(), ("vi",), ("zh",)]), st.booleans())
def test_composed_and_decomposed_texts_are_the_same(text: str, languages: tuple[str, ...], strip: bool) -> None:
    rule = Rule(strip_accents=strip, languages=languages)
    composed, decomposed = (rule.words(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    assert composed == decomposed


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        (Rule(), "Straße, ﬁnd x² in İSTANBUL! STRASSE", "strasse find x2 in istanbul strasse"),
        (Rule(), "don't don’t the world’s ½ cup snake_case", "don t don t the world s 1 2 cup snake case"),
        (Rule(), "Tylenol™ infor\u00admation Łódź Ærø", "tylenol information lodz aero"),
        (Rule(True), "HTTPServer parseJSONText", "http server parse json text"),
        (Rule(True), "Conv2D sha256Hash plot3DView", "conv2d sha256 hash plot3d view"),
        (Rule(strip_accents=False), "CAFÉ cafe\u0301 हिन्दी ﬁ", "café café हिन्दी fi"),
        (Rule(), "за\u0301мок ёлка мои\u0306 ї", "замок елка мой ї"),
        (Rule(), "ΟΔΟΣ οδός ᾠδή", "οδοσ οδοσ ωδη"),
        (Rule(), "كَتَبَ أحمد ـكتابـ", "كتب أحمد كتاب"),
        (Rule(), "שָׁלוֹם", "שלום"),
        (Rule(), "पोस्ट क\u093c क़", "पोस्ट क़ क़"),
        (Rule(languages=("vi",)), "Đà Nẵng ca phê", "đà nẵng ca phê"),
        (Rule(languages=("vi", "fr")), "été", "été"),
        (Rule(languages=("ja",)), "iPhone手机4 黒い猫が", "iphone 手 手机 机 4 黒 黒い い猫 猫 猫が"),
        (Rule(languages=("ja",)), "ﾊﾟﾝﾀﾞ ハ\u309aンタ\u3099 コー", "パン ンダ パン ンダ コー"),
        (Rule(languages=("th",)), "ข้าวผัด ก", "ข้า าว วผ ผัด ก"),
        (Rule(languages=("my",)), "မြန်မာ", "မြန န်မ"),
        (Rule(languages=("ko",)), "학교에서", "학 학교 교 교에 에 에서 서"),
        (Rule(), "C++ 👍", "c"),
        (Rule(), "👍🏽 ❤\ufe0f + !", "👍 🏽 ❤ +"),
    ],
)
def test_examples(rule: Rule, text: str, expected: str) -> None:
    assert rule.words(text) == [unicodedata.normalize("NFC", word) for word in expected.split()]


@pytest.mark.parametrize("rule", [Rule(), Rule(True), Rule(False, False), Rule(languages=("zh", "vi"))])
def test_a_tokenizer_is_read_back_with_its_rule(rule: Rule) -> None:
    trained = WordTokenizer(
        min_frequency=1, split_camel_case=rule.split_camel_case, strip_accents=rule.strip_accents,
        language=rule.languages or "none",
    ).train([["a 手机 b"]])  # fmt: skip
    assert trained.rule == rule
    definition = json.loads(json.dumps(trained._definition))
    assert Rule.of(definition) == rule
    assert (
        tokenizers.Tokenizer.from_str(json.dumps(definition)).encode("手机 b").ids
        == trained.encode(["手机 b"]).to_lists()[0]
    )
    steps = definition["normalizer"]["normalizers"]
    changed = [{"normalizer": {"type": "Sequence", "normalizers": steps[::-1]}}, {"pre_tokenizer": None}]
    assert [Rule.of({**definition, **change}) for change in changed] == [None, None]
