"""The fast path's words against the library's, for every kind of character."""

import itertools
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.tokenizer._folding import Folding
from two_tower.tokenizer._rule import Rule

RULES = [
    Rule(), Rule(split_camel_case=True), Rule(strip_accents=False), Rule(languages=("vi", "en")),
    Rule(languages=("zh", "th")), Rule(split_camel_case=True, strip_accents=False, languages=("ko",)),
]  # fmt: skip

#: What is known to go wrong: case and marks that depend on neighbours, expansion, invisible characters.
TRICKY = [
    "ΟΔΟΣ", "ὈΔΥΣΣΕΎΣ", "ς", "İstanbul", "ıI", "Straße", "ẞ", "ﬁnd", "ﬀ", "e\u0301", "é", "\u0301",
    "a\u0323\u0307", "a\u0307\u0323", "한국어", "\u1112\u1161\u11ab", "ㅋㅋ", "ㅠㅠ", "中文字", "コーヒー",
    "ｶﾞ", "が", "हिन्दी", "ไทย", "🙂", "👩\u200d💻", "𝐀𝐁", "½", "x²", "①", "ﷺ", "㍿", "Ǆ", "ŉ", "don’t",
    "don't", "—", "…", "™", "℠", "co\u00adop", "\u200b", "\u200c", "\u2060", "\ufeff", "\0", "\u0085", "\u2028",
    "\n", "\t", "\u00a0", "snake_case", "3.14", "camelCase", "HTTPServer", "URLs", "IsA", "aBCd", "Conv2D",
    "sha256Hash", "éA", "aÉ", "a\u0301B", "\U000e0101", "\U00020000", "\U0010ffff", "ﬃx", "ªº", "ʼn", "Ⅷ", "々",
    "〇", "ᾳ", "ΐ", "\u0345", "ß\u0307", "й", "и\u0306", "ё", "ё\u0301", "за\u0301мок", "ї", "كَتَبَ", "أ",
    "ا\u0654", "שָׁלוֹם", "ـ", "ố", "o\u0302\u0301", "đ", "ł", "猫", "猫\u0301", "が\u0301", "か\u3099",
    "か\u309a", "ﾊﾟ", "ข้าว", "น้ำ", "น\u0e4d\u0e49า", "ປີ", "မြန်", "ខ្មែ", "가", "가\u11a8", "ᄀ", "\u1161",
    "각", "👍🏽", "❤\ufe0f", "+", "<=", "$", "🇩🇪", "1\ufe0f\u20e3", "\ue000", "\ue001", "क़", "क\u093c",
    "\u0bc6\u0bbe", "ొ", "ー", "㌔", "ᄀـ\u1161", "eـ\u0301",
]  # fmt: skip

texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*TRICKY, " ", "a", "B", "Cd", "9", "s"]), max_size=12).map("".join),
    st.text("aBcDsS1 ", max_size=20),
)


def fast_words(fold: Folding, documents: list[str] | list[bytes]) -> list[list[str]]:
    raw = [d.encode() if isinstance(d, str) else d for d in documents]
    starts = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    starts.flags.writeable = False
    folded, starts = fold(np.frombuffer(b"".join(raw), np.uint8), starts)
    pieces = [folded[a:b].tobytes().split(b"\0") for a, b in itertools.pairwise(starts)]
    return [[word.decode() for word in words if word] for words in pieces]


@pytest.fixture(scope="module", params=RULES, ids=str)
def rule(request: pytest.FixtureRequest) -> Rule:
    result: Rule = request.param
    return result


@pytest.fixture(scope="module")
def fold(rule: Rule) -> Folding:
    return Folding(rule)


@settings(deadline=None, max_examples=200)  # the first example may compile
@given(documents=st.lists(texts, max_size=4))
def test_words_are_the_librarys(rule: Rule, fold: Folding, documents: list[str]) -> None:
    assert fast_words(fold, documents) == list(map(rule.words, documents))


@pytest.mark.parametrize("rule", [RULES[2], RULES[4]], ids=str, scope="module")
def test_every_code_point_among_neighbours(rule: Rule) -> None:
    """All assigned characters but most of the Han and Hangul ones, which are alike, and some unassigned ones."""

    def is_chosen(code: int) -> bool:
        alike = 0x3400 <= code < 0xD7B0 or code >= 0x17000
        category = unicodedata.category(chr(code))
        return category != "Cs" and (code % 64 == 0 if alike or category in ("Cn", "Co") else True)

    codes = filter(is_chosen, [*range(0x80, 0x1FC00), *range(0x1FC00, sys.maxunicode + 1, 97)])
    documents = [f"x{chr(c)}Y{chr(c)}{chr(c)} É{chr(c)}e\u0301{chr(c)} {chr(c)}" for c in codes]
    fast = fast_words(Folding(rule), documents)
    wrong = [d for d, words in zip(documents, fast, strict=True) if words != rule.words(d)]
    assert len(documents) > 20_000
    assert not wrong


@settings(deadline=None)
@given(broken=st.binary(max_size=30), before=texts, after=texts)
def test_bytes_that_are_not_utf8_harm_no_other_text(fold: Folding, broken: bytes, before: str, after: str) -> None:
    first, _, last = fast_words(fold, [before.encode(), broken, after.encode()])
    assert [first, last] == fast_words(fold, [before.encode(), after.encode()])
