"""The words of a query are found in a text in whatever inflection, and nothing else is marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_tower.bm25 import BM25, word_spans, words
from two_tower.search import COMMON, Highlighter

TEXT = "Learning rates: the ReduceLROnPlateau scheduler learns when rates_fall. Ünïcode, don't!"


def marked(query: str, text: str, split: bool = False) -> list[str]:
    return [text[a:b] for a, b in Highlighter(split).marker(query)(text)]


def test_inflections_and_parts_of_names_are_found() -> None:
    assert marked("how do I learn the rate?", TEXT) == ["Learning", "rates", "learns", "rates"]
    assert marked("reduce LR", TEXT) == []
    assert marked("reduce LR plateau", TEXT, split=True) == ["Reduce", "LR", "Plateau"]


def test_common_words_count_only_where_there_are_no_others() -> None:
    assert marked("the scheduler", TEXT) == ["scheduler"]
    assert marked("when the", TEXT) == ["the", "when"]
    assert marked("", TEXT) == marked("?!", TEXT) == []


@given(st.text(max_size=60), st.booleans())
def test_spans_are_where_the_words_are(text: str, split: bool) -> None:
    spans = word_spans(text, split)
    assert [text[a:b].lower() for a, b in spans] == words(text, split) or text != text.lower()
    assert all(a < b for a, b in spans)
    assert spans == sorted(spans)


@given(st.text(max_size=40), st.text(max_size=60), st.booleans())
def test_what_bm25_finds_is_marked(query: str, text: str, split: bool) -> None:
    rare = {word for word in words(query, split)} - COMMON
    found = bool(rare) and BM25([text], split_camel_case=split).known(" ".join(sorted(rare)))
    if found and query == query.lower():
        assert marked(query, text, split)


@given(st.text(max_size=60), st.text(max_size=4))
def test_runs_are_left_out_by_their_first_letter_only(text: str, letters: str) -> None:
    first = "".join({word[0] for word in words(letters)})
    spans = word_spans(text)
    wanted = [(a, b) for a, b in spans if text[a:b].lower()[0] in first]
    if first:  # it may find more: what is alike but for case in any sense
        assert set(wanted) <= set(word_spans(text, initials=first)) <= set(spans)


@pytest.mark.parametrize("split", [False, True])
def test_an_index_of_words_is_kept(tmp_path, split: bool) -> None:  # noqa: ANN001
    texts, path = ["alpha betaGamma", "beta delta", "", "gamma gamma epsilon"], tmp_path / "bm25.npz"
    made = BM25(texts, split_camel_case=split)
    made.save(path, "these")
    kept = BM25.load(path, split, "these")
    assert kept is not None
    queries = ["beta", "gammas betas", "nothing", ""]
    one, two = (b.scorer(queries)(slice(0, 4), slice(0, 4)) for b in (made, kept))
    assert one.tolist() == two.tolist()
    assert one.max() > 0
    for args in ((path, split, "others"), (path, not split, "these"), (tmp_path / "none", split, "these")):
        assert BM25.load(*args) is None
    path.write_bytes(path.read_bytes()[:-40])
    assert BM25.load(path, split, "these") is None
