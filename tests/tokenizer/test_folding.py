"""The fast path's words against the library's, for every kind of character."""

import itertools
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.tokenizer import _folding as folding
from two_tower.tokenizer._folding import Folding
from two_tower.tokenizer.word import UNKNOWN, WordTokenizer

Both = tuple[tokenizers.Tokenizer, Folding]
RULES = [(camel, accents) for camel in (False, True) for accents in (False, True)]

#: What is known to go wrong: case and marks that depend on neighbours, expansion, invisible characters.
TRICKY = [
    "ΟΔΟΣ", "ὈΔΥΣΣΕΎΣ", "ς", "İstanbul", "ıI", "Straße", "ẞ", "ﬁnd", "ﬀ", "e\u0301", "é", "\u0301", "a\u0323\u0307",
    "a\u0307\u0323", "한국어", "\u1112\u1161\u11ab", "ㅋㅋ", "ㅠㅠ", "中文字", "コーヒー", "ｶﾞ", "が", "हिन्दी", "ไทย",
    "🙂", "👩\u200d💻", "𝐀𝐁", "½", "x²", "①", "ﷺ", "㍿", "Ǆ", "ŉ", "don’t", "don't", "—", "…", "™", "℠", "co\u00adop",
    "\u200b", "\u200c", "\u2060", "\ufeff", "\0", "\u0085", "\u2028", "\n", "\t", "\u00a0", "snake_case", "3.14",
    "camelCase", "HTTPServer", "URLs", "IsA", "aBCd", "Conv2D", "sha256Hash", "éA", "aÉ", "a\u0301B", "\U000e0101",
    "\U00020000", "\U0010ffff", "ﬃx", "ªº", "ʼn", "Ⅷ", "々", "〇", "ᾳ", "ΐ", "\u0345", "ß\u0307",
]  # fmt: skip

texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*TRICKY, " ", "a", "B", "Cd", "9", "s"]), max_size=12).map("".join),
    st.text("aBcDsS1 ", max_size=20),
)


def rules(camel: bool, accents: bool) -> tokenizers.Tokenizer:
    tokenizer = WordTokenizer(split_camel_case=camel, strip_accents=accents)
    return folding.rules(tokenizer._definition([UNKNOWN]))


def fast_words(fold: Folding, documents: list[str] | list[bytes]) -> list[list[str]]:
    raw = [d.encode() if isinstance(d, str) else d for d in documents]
    starts = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    starts.flags.writeable = False
    folded, starts = fold(np.frombuffer(b"".join(raw), np.uint8), starts)
    pieces = [folded[a:b].tobytes().split(b"\0") for a, b in itertools.pairwise(starts)]
    return [[word.decode() for word in words if word] for words in pieces]


def library_words(library: tokenizers.Tokenizer, documents: list[str]) -> list[list[str]]:
    normal = [library.normalizer.normalize_str(document) for document in documents]
    return [[word for word, _ in library.pre_tokenizer.pre_tokenize_str(document)] for document in normal]


@pytest.fixture(scope="module", params=RULES, ids=str)
def both(request: pytest.FixtureRequest) -> Both:
    library = rules(*request.param)
    return library, Folding(library, request.param[0])


@settings(deadline=None, max_examples=200)  # the first example may compile
@given(documents=st.lists(texts, max_size=4))
def test_words_are_the_librarys(both: Both, documents: list[str]) -> None:
    library, fold = both
    assert fast_words(fold, documents) == library_words(library, documents)


@pytest.mark.parametrize("accents", [False, True])
def test_every_code_point_among_neighbours(accents: bool) -> None:
    """All assigned characters but most of the Han and Hangul ones, which are alike, and some unassigned ones."""

    def is_chosen(code: int) -> bool:
        alike = 0x3400 <= code < 0xD7B0 or code >= 0x17000
        category = unicodedata.category(chr(code))
        return category != "Cs" and (code % 64 == 0 if alike or category in ("Cn", "Co") else True)

    codes = filter(is_chosen, [*range(0x80, 0x1FC00), *range(0x1FC00, sys.maxunicode + 1, 97)])
    documents = [f"x{chr(c)}Y{chr(c)}{chr(c)} É{chr(c)}e\u0301{chr(c)} {chr(c)}" for c in codes]
    library = rules(False, accents)
    fast = fast_words(Folding(library, False), documents)
    wrong = [d for d, a, b in zip(documents, fast, library_words(library, documents), strict=True) if a != b]
    assert len(documents) > 20_000
    assert not wrong


def test_marks_do_not_change_places() -> None:
    """Why a table per code point is enough: those that are not stripped are too new for the library to move."""
    library = rules(False, True)
    fold = Folding(library, False)
    marks = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.combining(chr(c))]
    words = fast_words(fold, [f"x{mark}y" for mark in marks])
    kept = [mark for mark, word in zip(marks, words, strict=True) if word != ["xy"]]
    assert len(kept) < len(marks) / 4
    documents = [f"x{a}{b}\u0323y" for a in kept for b in (*kept[:60], "\u0301")]
    assert fast_words(fold, documents) == library_words(library, documents)


def test_prose_and_identifiers() -> None:
    for camel, accents, text, words in (
        (False, True, "Straße, ﬁnd x² in İSTANBUL!", "straße find x2 in istanbul"),
        (False, True, "don't don’t the world’s ½ cup", "don t don t the world s 1 2 cup"),
        (False, True, "Tylenol™ infor\u00admation 中文 コー", "tylenol information 中 文 コ ー"),
        (True, True, "HTTPServer parseJSONText", "http server parse json text"),
        (True, True, "Conv2D sha256Hash plot3DView", "conv2d sha256 hash plot3d view"),
        (False, False, "CAFÉ हिन्दी ﬁ", "café हिन्दी ﬁ"),
    ):
        assert fast_words(Folding(rules(camel, accents), camel), [text]) == [words.split()]


@settings(deadline=None, max_examples=50)
@given(broken=st.binary(max_size=30), before=texts, after=texts)
def test_bytes_that_are_not_utf8_harm_no_other_text(both: Both, broken: bytes, before: str, after: str) -> None:
    first, _, last = fast_words(both[1], [before.encode(), broken, after.encode()])
    assert [first, last] == fast_words(both[1], [before.encode(), after.encode()])


def test_foreign_rules_are_not_taken_for_ours() -> None:
    definition = WordTokenizer()._definition([UNKNOWN, "a"])
    assert folding.is_word_definition(definition)
    steps = definition["normalizer"]["normalizers"]
    changes = [
        {"normalizer": {"type": "Sequence", "normalizers": steps[::-1]}},
        {"pre_tokenizer": None},
        {"model": {**definition["model"], "vocab": {UNKNOWN: 0, "a": 2}}},
        {"model": {**definition["model"], "vocab": {UNKNOWN: 0, "a\0b": 1}}},
        {"added_tokens": [{"id": 1, "content": "a", "special": False}]},
        {"post_processor": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["a", 1]}},
    ]
    assert not any(folding.is_word_definition({**definition, **change}) for change in changes)
