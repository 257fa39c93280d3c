"""Double-encoded UTF-8: what was damaged comes back, what was good stays."""

import re
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.data.reading.repair import repair_encoding, repair_text

_UNDEFINED = {0x81, 0x8D, 0x8F, 0x90, 0x9D}


def latin_1(text: str) -> str:
    """The text as it looks after its UTF-8 was read as Latin-1."""
    return text.encode().decode("latin-1")


def windows_1252(text: str) -> str:
    """The same for Windows-1252, as browsers read it: undefined bytes are control characters."""
    return "".join(chr(b) if b in _UNDEFINED else bytes([b]).decode("cp1252") for b in text.encode())


DAMAGES = [latin_1, windows_1252]

GOOD = [
    "plain", "don’t", "café", "CAFÉ", "Zürich costs 5 € – “really”", "naïve coöperation", "NESCAFÉ®", "CAFÉ™",
    "voilà\u00a0« mot\u00a0»", "»Spaß«", "la “IRMÔ", "IRMÃ®", "LÃ ", "è\u00a0vero", "PERÙ²", "â”, ‘â’", "5 µm ± 2°",
    "façade…", "ÉTÉ\x85", "αβγ", "привет", "日本語", "Å", "Ä°", "è»", "😀 ok", "½ ¾ ©", "Ã", "â", "Â",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_good_text_stays(text: str) -> None:
    assert repair_text(text) == text


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "text",
    [
        "don’t", "“quoted” – and — dashes…", "café", "Déjà vu", "Zürich", "PROTÉGÉ", "37 °C", "£5", "a\u00a0b",
        "20 µg ± 3", "β-carotene, 5 μm", "Intel® Core™", "привет мир", "日本語", "x ≤ 3 → y", "ﬁne ﬂour", "😀",
        "Łukasz š ž",
    ],
)  # fmt: skip
def test_damaged_text_comes_back(text: str, damage: Callable[[str], str]) -> None:
    assert repair_text(damage(text)) == text
    assert repair_text(damage(damage(text))) == text


def test_only_the_damaged_part_changes() -> None:
    assert repair_text("NESCAFÉ® itâ\x80\x99s voilà\u00a0«") == "NESCAFÉ® it’s voilà\u00a0«"


# Without capitals: "AÃ©" may be good text.
recoverable = st.text(
    st.one_of(
        st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789 .,;:()-'\""),
        st.characters(min_codepoint=0xA0, max_codepoint=0xFF),
        st.characters(min_codepoint=0x3B1, max_codepoint=0x3C9),
        st.sampled_from("‘’“”–—…•™≤≥→−€"),
    )
)


@settings(deadline=None)
@given(recoverable, st.sampled_from(DAMAGES))
def test_any_text_of_common_letters_and_signs_comes_back(text: str, damage: Callable[[str], str]) -> None:
    # Where the text itself looks damaged ("Ã" before "©"), its repair is what can be had.
    assert repair_text(damage(text)) == repair_text(text)


@settings(deadline=None)
@given(st.text())
def test_text_without_a_double_encoded_sequence_is_unchanged(text: str) -> None:
    if not re.search("[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u02dc\u2013-\u2122]", text):
        assert repair_text(text) == text


texts = st.one_of(st.none(), st.text(), recoverable, recoverable.map(latin_1), recoverable.map(windows_1252))


@settings(deadline=None)
@given(st.lists(texts), st.integers(0, 3), st.sampled_from([pa.string(), pa.large_string()]))
def test_a_column_is_repaired_text_by_text(values: list[str | None], start: int, kind: pa.DataType) -> None:
    expected = [text if text is None else repair_text(text) for text in values]
    column = pa.array(values, kind)
    assert repair_encoding(column.slice(start)).to_pylist() == expected[start:]
    assert repair_encoding(column).type == kind
    chunks = pa.chunked_array([column.slice(0, 2), column.slice(2)])
    assert repair_encoding(chunks).to_pylist() == expected
