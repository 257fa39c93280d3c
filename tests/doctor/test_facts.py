"""Every defect that is planted in a collection is found, in exact figures; a clean one has none."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import word, write_collection
from training import TextTriplets, triplet_data

from two_tower.cache import cache_folder
from two_tower.data.base import QRELS
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.doctor.facts import inspect_source, triplet_facts
from two_tower.doctor.texts import Judged
from two_tower.tokenizer.word import WordTokenizer


class Folder:
    """A collection of 240 passages, 160 training, 40 dev and 40 test queries, to be damaged in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        texts = {file: file.read_text(encoding="utf-8").splitlines() for file in path.rglob("*.*")}
        jsonl = [path / "corpus.jsonl", path / "queries.jsonl"]
        self.rows = {file: [json.loads(line) for line in texts.pop(file)] for file in jsonl}
        self.passages, self.queries = self.rows.values()
        self.tables = {file: [line.split("\t") for line in lines] for file, lines in texts.items()}  # with headers
        names = ("qrels/train.tsv", "qrels/dev.tsv", "triples.tsv")
        self.train, self.dev, self.triples = (self.tables[path / name] for name in names)

    def inspect(self) -> dict[str, Any]:
        lines = {file: [json.dumps(row) for row in rows] for file, rows in self.rows.items()}
        lines |= {file: ["\t".join(row) for row in rows] for file, rows in self.tables.items()}
        for file, found in lines.items():
            file.write_text("\n".join(found) + "\n", encoding="utf-8")
        return inspect_source(Beir(str(self.path), max_bad_rows=0.05), WordTokenizer())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(write_collection(tmp_path / "beir"))


def test_a_clean_collection_has_nothing_to_warn_of(folder: Folder) -> None:
    facts = folder.inspect()
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
    f.passages.append("not an object")


def wordless_passage(f: Folder) -> None:
    f.passages.append({"_id": "dots", "text": "… ?!"})


def copies(f: Folder) -> None:
    for of, name in ((2, "copy of train"), (6, "copy of dev"), (6, "another")):
        f.passages.append({**f.passages[of], "_id": name})
    f.passages.append({**f.passages[4], "_id": "shouted", "text": f.passages[4]["text"].upper()})  # is another text


def long_passages(f: Folder) -> None:
    for row in f.passages[:40]:
        row["text"] = " ".join([row["text"]] * 20)


def asked(texts: Callable[[list[str]], dict[int, str]]) -> Callable[[Folder], None]:
    """Other queries, by their rows; made of the old ones."""

    def damage(f: Folder) -> None:
        for row, text in texts([query["text"] for query in f.queries]).items():
            f.queries[row]["text"] = text

    return damage


wordless_queries = asked(lambda _: {0: "quux?", 6: "?!", 12: "zzyzx quux"})
strange_words = asked(lambda old: {6 * i: f"{old[6 * i]} quux{i} zzyzx{i}" for i in range(20)})
equal_queries = asked(lambda old: {6: old[0], 12: old[0].upper(), 18: f"{old[0]}?", 8: old[2]})
long_queries = asked(lambda old: {6 * i: " ".join([old[6 * i]] * 22) for i in range(3)})


def nothing_relevant(f: Folder) -> None:
    f.dev[1] = ["q0", "d0", "0"]


def leaked_queries(f: Folder) -> None:
    asked(lambda old: {0: old[2], 6: old[3], 1: old[4], 12: old[5].upper(), 18: f"{old[5]}!"})(f)
    f.dev[2] = ["q6", "d3", "1"]


def slipped(start: int) -> Callable[[Folder], None]:
    def slip(f: Folder) -> None:
        without("triples.tsv")(f)
        passages = [row[1] for row in f.train]
        for row, passage in zip(f.train[start:], [*passages[start + 1 :], passages[1]], strict=True):
            row[1] = passage

    return slip


def wrong_triplets(f: Folder) -> None:
    f.train += [["q2", "d9", "1"], ["q3", "d8", "0"]]  # q2's own negative is d9
    f.queries[4]["text"] = f"{word(1012)} {f.passages[4]['text']}"
    same, swapped = ["q8", "d8", "d8"], ["q9", "d16", "d9"]
    f.triples += [["q3", "d3", "d8"], same, swapped, ["q0", "d0", "d5"], ["q10", "d10", "nowhere"]]


def without(*names: str) -> Callable[[Folder], None]:
    def remove(f: Folder) -> None:
        for name in names:
            del f.tables[f.path / name]
            (f.path / name).unlink()

    return remove


# What is done → all warnings that it gives, in order: ids and evidence.
PLANTED: list[tuple[Callable[[Folder], None], list[str]]] = [
    (bad_row, [r"bad_rows: 1 rows of \S*corpus.jsonl were left out: 1 with malformed JSON \(.* row 241"]),
    (wordless_passage, [r"empty_passages: 1 of 241 passages have no word at all \(dots\)"]),
    (copies, [
        r"duplicate_passages: 5 of 244 .*, in 2 groups \(d2 = copy of train; d6 = copy of dev = another\)",
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
    (nothing_relevant, [r"queries_without_positives: 1 of 40 dev queries have no relevant passage \(q0\)"]),
    (slipped(1), [r"no_common_words: relevant passages repeat \d.\d % of the words of the train queries and"]),
    (slipped(108), ["no_common_words: .* of the words of the train queries, 67% to 100% of them, and"]),
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
    warnings = folder.inspect()["warnings"]
    for warning, pattern in zip(warnings, expected, strict=True):
        assert re.match(pattern, f"{warning['id']}: {warning['evidence']}"), warnings
        assert set(warning) == {"id", "evidence", "remedy"}


def test_the_text_is_read_once_and_a_copy_of_it_is_named_by_its_own_place(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for damage in (bad_row, without("triples.tsv")):  # triplets are read each time
        damage(folder)
    first = folder.inspect()
    copy = shutil.copytree(folder.path, tmp_path / "elsewhere" / "beir")
    with monkeypatch.context() as patch:
        patch.setattr(Beir, "corpus", lambda *_: pytest.fail("read again"))
        assert folder.inspect() == first
    assert list(first["bad_rows"]) == [str(folder.path / "corpus.jsonl")]
    again = inspect_source(Beir(str(copy), max_bad_rows=0.05), WordTokenizer())
    assert list(again["bad_rows"]) == [str(copy / "corpus.jsonl")]


def test_the_vocabulary_is_the_one_of_a_run(folder: Folder, tmp_path: Path) -> None:
    facts = folder.inspect()
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
    (warning,) = facts["warnings"]
    assert warning["id"] == "unknown_ids"
    assert warning["evidence"].startswith("2 judgements of dev name a query or passage")
    dev = facts["splits"]["dev"]
    assert (dev["judgements"], dev["positives"], dev["unknown_ids"]) == (41, 40, 2)


CLEAN = [(f"{word(i)} {word(1)}", f"{word(i)} {word(2)}", f"{word(i + 1)} {word(3)}") for i in range(1000, 1180, 3)]
WRONG = {
    "positive_is_negative": (f"{word(4)} {word(5)}", f"{word(6)} {word(7)}", f"{word(6)} {word(7)}"),
    "negative_is_relevant": (CLEAN[5][0], word(8), CLEAN[5][1]),
    "positive_is_query": (f"{word(4)} {word(5)}", f"{word(4)} {word(5)}", word(9)),
}


def test_triplets_of_texts_need_no_training_split(folder: Folder) -> None:
    without("qrels/train.tsv")(folder)
    clean, wrong = (
        inspect_source(TextTriplets(str(folder.path), rows), WordTokenizer(min_frequency=1))
        for rows in (CLEAN, [*CLEAN, *WRONG.values()])
    )
    assert clean["warnings"] == []
    found = clean["triplets"]
    assert (found["kind"], found["count"], found["sample"]) == ("texts", 60, False)
    assert (found["overlap"]["pairs"], found["overlap"]["shared"]) == (60, 0.5)
    assert [w["id"] for w in wrong["warnings"]] == list(WRONG)
    for row, key in enumerate(WRONG, 61):
        assert wrong["triplets"][key] == {"count": 1, "examples": [row]}


def test_only_the_first_triplets_of_very_many_are_read(folder: Folder) -> None:
    source = Beir(str(folder.path))
    tokenizer = WordTokenizer().train([["ba be", "ba be"]])
    corpus = Corpus.load(source, tokenizer)
    train = Split.load(corpus, "train", tokenizer)
    judged = Judged.from_split(corpus, train)
    found = triplet_facts(corpus, train, judged, tokenizer, limit=10)
    assert found is not None
    assert (found["count"], found["sample"], found["overlap"]["pairs"] <= 10) == (10, True, True)
    whole = triplet_facts(corpus, train, judged, tokenizer)
    assert whole is not None
    assert (whole["count"], whole["sample"]) == (160, False)
    assert triplet_facts(corpus, None, None, tokenizer) is None


def test_texts_without_words_are_not_told_to_be_equal(folder: Folder) -> None:
    wordless_passage(folder)
    folder.passages.append({"_id": "more dots", "text": "…"})
    asked(lambda _: {2: "?!", 0: "!", 6: "..."})(folder)
    folder.train[1], folder.dev[1], folder.triples[1] = ["q2", "dots", "1"], ["q0", "dots", "1"], ["q2", "dots", "d9"]
    warnings = [w["id"] for w in folder.inspect()["warnings"]]
    assert warnings == ["empty_passages", "queries_without_known_word", "queries_without_known_word"]
