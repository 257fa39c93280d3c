"""BM25 against its formula written out, against bm25s, and its published figures on real data."""

import gzip
import json
from pathlib import Path

import bm25s
import numpy as np
import oracles
import pytest
import torch
from conftest import SHARED_DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.bm25 import BM25
from two_tower.errors import UserError
from two_tower.metrics import Qrels, from_ranks, mean
from two_tower.ranking import id_order
from two_tower.tokenizer.base import Rule

DATA = SHARED_DATA / "msmarco-small"

# Words that the stemmer leaves alone, so that the formula can be checked without a stemmer.
VOCABULARY = ["cat", "dog", "fish", "bird", "x1", "é", "中"]
TEXTS = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join), min_size=1, max_size=20)


def all_scores(bm25: BM25, queries: list[str]) -> np.ndarray:
    return bm25.scorer(queries)(slice(0, len(queries)), slice(0, len(bm25))).numpy()


@settings(max_examples=40)
@given(TEXTS, TEXTS, st.sampled_from([(0.9, 0.4), (1.5, 0.75), (0.5, 0.0), (2.0, 1.0)]))
def test_scores_equal_the_formula(documents: list[str], queries: list[str], parameters: tuple) -> None:
    k1, b = parameters
    if not any(documents):  # the mean length, 0, has no formula
        documents = [*documents, "cat"]
    scores = all_scores(BM25(documents, k1=k1, b=b), queries)
    split = [d.split() for d in documents]
    expected = [oracles.bm25(split, query.split(), k1, b) for query in queries]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    assert scores.dtype == np.float32


@settings(max_examples=40)
@given(TEXTS, TEXTS, st.integers(1, 5), st.integers(1, 21))
def test_blocks_do_not_change_a_score(documents: list[str], queries: list[str], some: int, more: int) -> None:
    bm25 = BM25(documents)
    score, whole = bm25.scorer(queries), all_scores(bm25, queries)
    for q in range(0, len(queries), some):
        for d in range(0, len(documents), more):
            rows, columns = slice(q, q + some), slice(d, d + more)
            np.testing.assert_array_equal(score(rows, columns).numpy(), whole[rows, columns])


def test_scores_are_those_of_bm25s_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    documents = [" ".join(rng.choice(VOCABULARY, n)) for n in rng.integers(1, 40, 200)]
    queries = [" ".join(rng.choice(VOCABULARY, n)) for n in rng.integers(1, 8, 50)]
    index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    index.index([d.split() for d in documents], show_progress=False)
    expected = np.stack([index.get_scores(query.split()) for query in queries])
    threads = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            np.testing.assert_array_equal(all_scores(BM25(documents), queries), expected)
    finally:
        torch.set_num_threads(threads)
    robertson = bm25s.BM25(k1=0.9, b=0.4, method="robertson")  # negative control
    robertson.index([d.split() for d in documents], show_progress=False)
    assert not np.allclose(robertson.get_scores(queries[0].split()), expected[0], atol=0.01)


def test_inflected_words_match_and_none_is_a_stop_word() -> None:
    bm25 = BM25(["Running horses", "a RUNNER", "he runs", "nothing here"])
    for query in ("run horse", "runs", "RUNNING horses"):
        assert (all_scores(bm25, [query])[0] > 0).tolist() == [True, False, True, False]
    assert (all_scores(BM25(["the", "who is it", "not"]), ["the who"])[0] > 0).tolist() == [True, True, False]


def test_camel_case_is_split_in_queries_too() -> None:
    documents = ["class ReduceLROnPlateau", "class Plateau"]
    queries = ["reduce on plateau", "ReduceLROnPlateau"]
    assert (all_scores(BM25(documents), queries) > 0).tolist() == [[False, True], [True, False]]
    split = BM25(documents, Rule(split_camel_case=True))
    assert (all_scores(split, queries) > 0).tolist() == [[True, True], [True, True]]


@pytest.mark.parametrize(
    ("language", "text", "finds", "others"),
    [
        ("es", "Las educaciones", ["educación", "educacion", "EDUCACIÓN", "educaciones"], ["edad"]),
        ("fr", "été, élève", ["e\u0301te\u0301", "ete", "eleve", "élèves"], ["te", "e"]),
        ("de", "Die Straßen in Köln", ["strasse", "STRASSE", "köln", "koln"], ["ko"]),
        ("ru", "За\u0301мок и ёлка, мой", ["замок", "елки", "мои\u0306"], ["зам"]),
        ("el", "Η ΟΔΟΣ", ["οδός", "οδοσ"], ["δος"]),
        ("vi", "cà phê Đà Nẵng", ["cà phê", "ca\u0300 phe\u0302"], ["ca", "phe", "cá", "da"]),
        ("hi", "पोस्ट यहाँ", ["पोस्ट", "यहाँ"], ["पसट", "प"]),
        ("ar", "كَتَبَ الكِتابَ", ["كتب", "كتاب"], ["بيت"]),
        ("he", "שָׁלוֹם עולם", ["שלום"], ["של"]),
        ("th", "ฉันชอบข้าวผัด", ["ข้าว"], ["ข่าว", "ขาว"]),
        ("ja", "かぎの店、パンダ", ["かぎ", "ハ\u309aンタ\u3099", "ﾊﾟﾝﾀﾞ"], ["かき", "ハ"]),
        ("zh", "机器学习算法很有用", ["算法", "学习算法", "用"], ["法算", "器机"]),
        ("ko", "학교에서 책을 읽다", ["학교", "책"], ["학국"]),
        ("en", "What about C++? 👍", ["C"], ["+", "👍"]),
        ("none", "👍🏽 ❤️", ["👍", "❤"], ["💔"]),
    ],
)  # fmt: skip
def test_words_of_many_languages(language: str, text: str, finds: list[str], others: list[str]) -> None:
    bm25 = BM25([text], Rule(languages=() if language == "none" else (language,)))
    assert [query for query in finds if not bm25.known(query)] == []
    scores = all_scores(bm25, [finds[0], *others])
    assert [query for query, score in zip(others, scores[1:], strict=True) if score >= scores[0]] == []


def test_the_language_is_found_in_the_documents() -> None:
    assert BM25(["机器学习算法很有用", "数据库", "我喜欢吃苹果"]).rule.languages == ("zh",)
    mixed = ["the children are playing in the garden"] * 20 + ["дети играют в саду весь день"] * 5
    bm25 = BM25(mixed)
    assert bm25.rule.languages == ("en", "ru")
    assert (all_scores(bm25, ["child plays", "сады"]) > 0).sum(axis=1).tolist() == [20, 5]


def test_a_query_without_a_known_word_retrieves_nothing_and_equal_scores_are_ranked_by_order() -> None:
    bm25, pairs = BM25(["cat", "fish", "", "cat"]), (np.array([0, 0, 2, 3]), np.array([0, 1, 1, 3]))
    found = bm25.rank(["  ,;", "unknown words only", "fish", "cat"], order=np.array([1, 0, 2, 3]), pairs=pairs, k=2)
    assert found.rows.tolist() == [[-1, -1], [-1, -1], [1, -1], [3, 0]]
    assert found.ranks.tolist() == [0, 0, 1, 1]


def test_no_words_no_queries_no_documents() -> None:
    found = BM25(["", "--"]).rank(["cat", ""], order=np.arange(2), k=1)
    assert found.rows.tolist() == [[-1], [-1]]
    assert BM25(["cat"]).rank([], order=np.arange(1), k=1).rows.shape == (0, 1)
    with pytest.raises(UserError, match="at least one document"):
        BM25([])


@pytest.mark.parametrize("split", [False, True])
def test_an_index_of_words_is_kept(tmp_path: Path, split: bool) -> None:
    texts, path = ["alpha betaGamma", "beta delta", "", "gamma gamma epsilon", "étés"], tmp_path / "bm25.npz"
    rule, other = (Rule(split_camel_case=each, languages=("en", "fr")) for each in (split, not split))
    made = BM25(texts, rule)
    made.save(path, "these")
    queries = ["beta", "gammas betas", "nothing", "", "etes"]
    for kept in (BM25.load(path, rule, "these"), BM25.load(path, None, "these")):
        assert kept is not None
        assert kept.rule == rule
        one, two = (all_scores(b, queries) for b in (made, kept))
        assert one.tolist() == two.tolist()
        assert (one.max(axis=1) > 0).tolist() == [True, True, False, False, True]
    for args in ((path, rule, "others"), (path, other, "these"), (tmp_path / "none", rule, "these")):
        assert BM25.load(*args) is None
    path.write_bytes(path.read_bytes()[:-40])
    assert BM25.load(path, rule, "these") is None


def read(name: str) -> list[dict]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.skipif(not DATA.exists(), reason="msmarco-small is not here")
def test_published_figures_on_real_data() -> None:
    corpus = read("corpus")
    texts = [f"{d['title']} {d['text']}" if d["title"] else d["text"] for d in corpus]
    documents = {d["_id"]: row for row, d in enumerate(corpus)}
    queries = {q["_id"]: q["text"] for q in read("queries")}
    bm25, order = BM25(texts), id_order(list(documents))
    for split, mrr, recall in (("dev", 0.699, 0.973), ("test", 0.829, 0.978)):
        lines = [line.split("\t") for line in (DATA / f"qrels/{split}.tsv").read_text().splitlines()[1:]]
        rows = {q: row for row, q in enumerate(dict.fromkeys(q for q, _, _ in lines))}
        pairs = (np.array([rows[q] for q, _, _ in lines]), np.array([documents[d] for _, d, _ in lines]))
        qrels = Qrels(*pairs, np.array([int(g) for _, _, g in lines], np.int32), len(rows))
        ranks = bm25.rank([queries[q] for q in rows], order=order, pairs=pairs).ranks
        means = mean(from_ranks(ranks, qrels, ["mrr@10", "recall@100"]))
        assert means == pytest.approx({"mrr@10": mrr, "recall@100": recall}, abs=0.005)
