"""Every defect that is planted in a collection is found, in exact figures; a clean one has none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import word, write_collection
from training import triplet_data

from two_tower.cache import cache_folder
from two_tower.data.base import QRELS, TEXT_TRIPLETS
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.doctor.facts import inspect_source, triplet_facts
from two_tower.doctor.texts import Judged, word_hashes
from two_tower.tokenizer.word import WordTokenizer

Rows = list[dict[str, Any]]


class Folder:
    """A collection of 240 passages, 160 training, 40 dev and 40 test queries, to be damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def change(self, name: str, change: Callable[[Rows], object]) -> None:
        file = self.path / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        change(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def ask(self, texts: dict[int, str]) -> None:
        self.change("queries", lambda rows: [rows[i].update(text=text) for i, text in texts.items()])

    def text(self, name: str, row: int) -> str:
        return json.loads((self.path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[row])["text"]

    def table(self, name: str, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
        file = self.path / name
        head, *lines = file.read_text(encoding="utf-8").splitlines()
        changed = change([line.split("\t") for line in lines])
        file.write_text("\n".join([head, *("\t".join(row) for row in changed)]) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(write_collection(tmp_path / "beir"))


def inspect_beir(folder: Folder, **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    return inspect_source(Beir(str(folder.path), max_bad_rows=0.05), WordTokenizer(), **settings)


def test_a_clean_collection_has_nothing_to_warn_of(folder: Folder) -> None:
    facts = inspect_beir(folder)
    assert facts["warnings"] == []
    assert json.loads(json.dumps(facts)) == facts
    assert facts["source"]["splits"] == ["train", "dev", "test"]
    passages, dev = facts["passages"], facts["splits"]["dev"]
    assert (passages["count"], passages["tokens"], passages["lengths"]["mean"]) == (240, 240 * 19, 19)
    assert passages["lengths"]["histogram"] == {"edges": [16, 24], "counts": [240]}
    assert (dev["count"], dev["judgements"], dev["positives"], dev["lengths"]["max"]) == (40, 40, 40, 3)
    assert dev["positives_per_query"]["histogram"] == {"edges": [1, 2], "counts": [40]}
    assert facts["splits"]["train"]["leakage"] is None
    assert dev["overlap"]["shared"] == 1
    assert dev["overlap"]["nothing_shared_by_chance"] > 0.5
    assert facts["triplets"]["count"] == 160


def bad_row(f: Folder) -> None:
    with (f.path / "corpus.jsonl").open("a") as file:
        file.write("{no json}\n")


def wordless_passage(f: Folder) -> None:
    f.change("corpus", lambda rows: rows.append({"_id": "dots", "title": "", "text": "… ?!"}))


def copies(f: Folder) -> None:
    def copy(rows: Rows) -> None:
        for of, name in ((2, "copy of train"), (6, "copy of dev"), (6, "another")):
            rows.append({"_id": name, "title": "", "text": f"{rows[of]['title']}: {rows[of]['text'].upper()}"})

    f.change("corpus", copy)


def long_passages(f: Folder) -> None:
    f.change("corpus", lambda rows: [row.update(text=" ".join([row["text"]] * 20)) for row in rows[:40]])


def asked(texts: Callable[[Folder], dict[int, str]]) -> Callable[[Folder], None]:
    """Other queries: by their rows."""
    return lambda f: f.ask(texts(f))


def judged(change: Callable[[list[list[str]]], list[list[str]]]) -> Callable[[Folder], None]:
    """Other judgements of dev."""
    return lambda f: f.table("qrels/dev.tsv", change)


wordless_queries = asked(lambda _: {0: "quux?", 6: "?!", 12: "zzyzx quux"})
strange_words = asked(lambda f: {6 * i: f"{f.text('queries', 6 * i)} quux{i} zzyzx{i}" for i in range(20)})
equal_queries = asked(lambda f: {6: f.text("queries", 0).upper() + "?", 8: f.text("queries", 2)})
long_queries = asked(lambda f: {6 * i: " ".join([f.text("queries", 6 * i)] * 22) for i in range(3)})
own_answer = asked(lambda f: {0: f"{word(1000)} {f.text('corpus', 0)}"})
unknown_ids = judged(lambda rows: [*rows, ["q0", "nowhere", "1"], ["nobody", "d0", "1"]])
nothing_relevant = judged(lambda rows: [["q0", "d0", "0"], *rows[1:]])


def leaked_queries(f: Folder) -> None:
    f.ask({0: f.text("queries", 2).upper(), 6: f.text("queries", 3) + "!", 1: f.text("queries", 4)})
    f.table("qrels/dev.tsv", lambda rows: [["q6", "d3", "1"] if row[0] == "q6" else row for row in rows])


def slipped(start: int) -> Callable[[Folder], None]:
    def change(rows: list[list[str]]) -> list[list[str]]:
        following = [*rows[1:], rows[0]]
        return [*rows[:start], *([q, following[start + i][1], g] for i, (q, _, g) in enumerate(rows[start:]))]

    def slip(f: Folder) -> None:
        without("triples.tsv")(f)
        f.table("qrels/train.tsv", change)

    return slip


def wrong_triplets(f: Folder) -> None:
    f.table("qrels/train.tsv", lambda rows: [*rows, ["q2", "d9", "1"], ["q3", "d8", "0"]])
    f.ask({4: f"{word(1012)} {f.text('corpus', 4)}"})

    def change(rows: list[list[str]]) -> list[list[str]]:
        assert [row[0] for row in rows[:4]] == ["q2", "q3", "q4", "q5"]  # q2's own negative is d9
        same, swapped = ["q8", "d8", "d8"], ["q9", "d16", "d9"]
        return [*rows, ["q3", "d3", "d8"], same, swapped, ["q0", "d0", "d5"], ["q10", "d10", "nowhere"]]

    f.table("triples.tsv", change)


def without(*names: str) -> Callable[[Folder], None]:
    def remove(f: Folder) -> None:
        for name in names:
            (f.path / name).unlink()

    return remove


# What is done → all warnings that it gives, in order: ids and evidence.
PLANTED: list[tuple[Callable[[Folder], None], list[str]]] = [
    (bad_row, [r"bad_rows: 1 rows of \S*corpus.jsonl were left out: 1 with malformed JSON \(.* row 241"]),
    (wordless_passage, [r"empty_passages: 1 of 241 passages have no word at all \(dots\)"]),
    (copies, [
        r"duplicate_passages: 5 of 243 .*, in 2 groups \(d2 = copy of train; d6 = copy of dev = another\)",
        "unjudged_copies: 1 of 40 relevant passages of dev have a copy",
    ]),
    (long_passages, ["cut_passages: 16.7 % of the passages are longer than 256 tokens, and 23.0 % of all"]),
    (wordless_queries, ["queries_without_known_word: 3 of 40 dev queries have no word"]),
    (strange_words, ["unknown_words: 25.0 % of the words of the dev queries"]),
    (equal_queries, [r"duplicate_queries: 2 of 40 dev queries are equal to another one \(q0 = q6\)"]),
    (long_queries, ["cut_queries: 7.5 % of the dev queries are longer than 64 tokens"]),
    (leaked_queries, [
        r"leakage: 2 of 40 dev queries are also training queries, 1 with the same .* \(q0, q6\): .* on dev",
        r"leakage: 1 of 40 test queries are also training queries, 0 with the same .* \(q1\): .* on test",
    ]),
    (unknown_ids, [r"bad_rows: 2 rows of \S*dev.tsv were left out: 1 with unknown \w+_id, 1 with unknown \w+_id"]),
    (nothing_relevant, [r"queries_without_positives: 1 of 40 dev queries have no relevant passage \(q0\)"]),
    (own_answer, [r"answered_by_themselves: 1 of 40 dev queries are equal to their relevant passage \(q0\)"]),
    (slipped(0), [r"no_common_words: relevant passages repeat \d.\d % of the words of the train queries and"]),
    (slipped(107), ["no_common_words: .* of the words of the train queries, 67% to 100% of them, and"]),
    (wrong_triplets, [
        r"bad_rows: 1 rows of \S*triples.tsv were left out: 1 with unknown negative_id",
        r"answered_by_themselves: 1 of 160 train queries are equal to their relevant passage \(q4\)",
        "triplets_left_out: 1 of 164 triplets",
        r"positive_is_negative: 1 of 164 triplets .* \(q8 d8 d8\)",
        r"negative_is_relevant: 2 of 164 triplets .* \(q2 d2 d9, q9 d16 d9\)",
        r"positive_not_relevant: 1 of 164 triplets .* \(q9 d16 d9\)",
        r"positive_is_query: 1 of 164 triplets .* \(q4 d4 d11\)",
    ]),
    (without("qrels/dev.tsv"), ["no_validation_split: there is no split dev to validate on; splits: train, test"]),
    (
        without("qrels/train.tsv", "qrels/test.tsv", "triples.tsv"),
        ["no_train_split: there is no split train to train on; splits: dev"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), PLANTED, ids=[expected[0].split(":")[0] for _, expected in PLANTED])
def test_what_is_planted_is_found_and_nothing_else(
    damage: Callable[[Folder], None], expected: list[str], folder: Folder
) -> None:
    damage(folder)
    warnings = inspect_beir(folder)["warnings"]
    for warning, pattern in zip(warnings, expected, strict=True):
        assert re.match(pattern, f"{warning['id']}: {warning['evidence']}"), warnings
        assert set(warning) == {"id", "evidence", "remedy"}


def test_the_figures_of_what_is_planted(folder: Folder) -> None:
    for damage in (wordless_passage, copies, wordless_queries, equal_queries, leaked_queries, bad_row):
        damage(folder)
    facts = inspect_beir(folder)
    passages, dev, train = facts["passages"], facts["splits"]["dev"], facts["splits"]["train"]
    (file,) = facts["bad_rows"].values()
    assert file["count"] == file["kinds"]["malformed JSON"]["count"] == 1
    assert passages["empty"] == {"count": 1, "examples": ["dots"]}
    assert (passages["duplicates"]["texts"], passages["lengths"]["min"]) == (5, 0)
    assert train["duplicates"] == {"texts": 2, "groups": 1, "examples": [["q2", "q8"]]}
    assert (train["unjudged_copies"], dev["unjudged_copies"]) == (1, 0)
    assert dev["unknown"]["texts"] == 1  # the others were overwritten
    assert dev["leakage"] == {"count": 2, "examples": ["q0", "q6"], "with_same_positive": 1}


def test_the_text_is_read_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_row(folder)
    (folder.path / "triples.tsv").unlink()  # triplets are read each time
    first = inspect_beir(folder)

    def corpus(self: Beir) -> Iterator[pa.RecordBatch]:
        raise AssertionError("read again")

    monkeypatch.setattr(Beir, "corpus", corpus)
    assert inspect_beir(folder) == first
    assert first["bad_rows"]


def test_the_vocabulary_is_the_one_of_a_run(folder: Folder, tmp_path: Path) -> None:
    facts = inspect_beir(folder)
    before = set((cache_folder() / "tokenizer").iterdir())
    data = triplet_data(Beir(str(folder.path), max_bad_rows=0.05), tmp_path / "run")
    assert len(data.tokenizer) == facts["vocabulary"]["words"]
    assert set((cache_folder() / "tokenizer").iterdir()) == before


class Unchecked(Beir):
    """A source that passes on judgements of ids that do not exist."""

    def qrels(self, split: str) -> pa.Table:
        more = pa.table([["nobody", "q0", "q0"], ["d0", "nowhere", "d0"], [1, 1, 0]], QRELS)
        return pa.concat_tables([super().qrels(split), more]) if split == "dev" else super().qrels(split)

    def fingerprint(self) -> str:
        return super().fingerprint() + "unchecked"


def test_judgements_of_unknown_ids_are_counted(folder: Folder) -> None:
    facts = inspect_source(Unchecked(str(folder.path)), WordTokenizer())
    assert [w["id"] for w in facts["warnings"]] == ["unknown_ids"]
    assert facts["warnings"][0]["evidence"].startswith("2 judgements of dev name a query or passage")
    dev = facts["splits"]["dev"]
    assert (dev["judgements"], dev["positives"], dev["unknown_ids"]) == (41, 40, 2)


class Texts(Beir):
    """A collection whose triplets come as texts."""

    rows = [  # noqa: RUF012
        (f"{word(1000 + 3 * i)} {word(1)}", f"{word(1000 + 3 * i)} {word(2)}", f"{word(1001 + 3 * i)} {word(3)}")
        for i in range(60)
    ]

    def text_triplets(self) -> Iterator[pa.RecordBatch]:
        columns = list(zip(*self.rows, strict=True))
        yield from pa.table([list(c) for c in columns], TEXT_TRIPLETS).to_batches(7)

    def fingerprint(self) -> str:
        return super().fingerprint() + str(self.rows)


class WrongTexts(Texts):
    rows = [  # noqa: RUF012
        *Texts.rows,
        (f"{word(4)} {word(5)}", f"{word(6)} {word(7)}", f"{word(6).upper()}, {word(7)}"),
        (f"{word(1015)} {word(1)}!", word(8), f"{word(1015)} {word(2)}"),  # the positive of the sixth triplet
        (f"{word(4)} {word(5)}", f"{word(4)}: {word(5)}", word(9)),
    ]


def test_triplets_of_texts_need_no_training_split(folder: Folder) -> None:
    (folder.path / "qrels" / "train.tsv").unlink()
    clean = inspect_source(Texts(str(folder.path)), WordTokenizer(min_frequency=1))
    assert clean["warnings"] == []
    found = clean["triplets"]
    assert (found["kind"], found["count"], found["sample"]) == ("texts", 60, False)
    assert (found["overlap"]["pairs"], found["overlap"]["shared"]) == (60, 0.5)

    wrong = inspect_source(WrongTexts(str(folder.path)), WordTokenizer(min_frequency=1))
    assert [w["id"] for w in wrong["warnings"]] == ["positive_is_negative", "negative_is_relevant", "positive_is_query"]
    assert wrong["triplets"]["positive_is_negative"] == {"count": 1, "examples": [61]}
    assert wrong["triplets"]["negative_is_relevant"] == {"count": 1, "examples": [62]}
    assert wrong["triplets"]["positive_is_query"] == {"count": 1, "examples": [63]}


def test_only_the_first_triplets_of_very_many_are_read(folder: Folder) -> None:
    source = Beir(str(folder.path))
    tokenizer = WordTokenizer().train([["ba be", "ba be"]])
    corpus = Corpus.load(source, tokenizer)
    train = Split.load(corpus, "train", tokenizer)
    judged = Judged.from_split(corpus, train, word_hashes(train.texts, tokenizer))
    found = triplet_facts(corpus, train, judged, tokenizer, limit=10)
    assert found is not None
    assert (found["count"], found["sample"], found["overlap"]["pairs"] <= 10) == (10, True, True)
    whole = triplet_facts(corpus, train, judged, tokenizer)
    assert whole is not None
    assert (whole["count"], whole["sample"]) == (160, False)
    assert triplet_facts(corpus, None, None, tokenizer) is None


def test_a_copy_elsewhere_is_named_by_its_own_place(folder: Folder, tmp_path: Path) -> None:
    bad_row(folder)
    inspect_beir(folder)
    copy = shutil.copytree(folder.path, tmp_path / "elsewhere" / "beir")
    assert list(inspect_beir(Folder(copy))["bad_rows"]) == [str(copy / "corpus.jsonl")]


def test_texts_without_words_are_not_told_to_be_equal(folder: Folder) -> None:
    wordless_passage(folder)
    folder.change("corpus", lambda rows: rows.append({"_id": "more dots", "title": "", "text": "…"}))
    folder.ask({2: "?!", 0: "!", 6: "..."})
    folder.table("qrels/train.tsv", lambda rows: [["q2", "dots", "1"], *rows[1:]])
    folder.table("qrels/dev.tsv", lambda rows: [["q0", "dots", "1"], *rows[1:]])
    folder.table("triples.tsv", lambda rows: [["q2", "dots", "d9"], *rows[1:]])
    warnings = [w["id"] for w in inspect_beir(folder)["warnings"]]
    assert warnings == ["empty_passages", "queries_without_known_word", "queries_without_known_word"]
