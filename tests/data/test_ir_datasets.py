"""Collections of the package ir_datasets: generated ones, registered as the package's own are."""

import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rows import bad_summary, check_bad_row, check_refused, check_split_refused, everything, values, write_text

from two_tower.data.ir_datasets import IrDatasets

_home = tempfile.TemporaryDirectory()  # the package makes its folders there when it is imported
os.environ.setdefault("IR_DATASETS_HOME", _home.name)
library: Any = pytest.importorskip("ir_datasets", reason="the extra ir is not installed")
formats: Any = library.formats


class Animal(NamedTuple):
    doc_id: str
    title: str
    url: str
    text: str

    def default_text(self) -> str:
        return f"{self.title} {self.text}"


class Plain(NamedTuple):
    doc_id: str
    text: str
    more: str


FILES = {
    "docs": "d1\tTiger\thttp://t\tA big cat.\nd2\t\thttp://r\tTiger river.\nd3\tOak\thttp://o\t\n",
    "train.queries": "q2\tcat with stripes\nq1\twater\nq9\tnever judged\n",
    "train.qrels": "q1 0 d2 1\nq2 0 d1 2\nq2 0 d2 0\n",
    "train.docpairs": "q2\td1\td2\nq1\td2\td3\n",
    "val.queries": "q3\toak\n",
    "val.qrels": "q3 0 d3 1\n",
}

count = itertools.count()
Register = Callable[..., str]


@pytest.fixture
def register(tmp_path: Path) -> Register:
    """Registers a collection with splits train and val, and returns its id."""

    def made(changes: dict[str, str] | None = None, doc_class: type = Animal) -> str:
        whole = f"generated/animals-{next(count)}"
        file = {
            name: library.util.LocalDownload(write_text(tmp_path / whole / name, content))
            for name, content in {**FILES, **(changes or {})}.items()
        }
        docs = formats.TsvDocs(file["docs"], doc_cls=doc_class)
        library.registry.register(whole, library.Dataset(docs))
        for split in ("train", "val"):
            parts = [formats.TsvQueries(file[f"{split}.queries"]), formats.TrecQrels(file[f"{split}.qrels"], {})]
            if split == "train":
                parts.append(formats.TsvDocPairs(file["train.docpairs"]))
            library.registry.register(f"{whole}/{split}", library.Dataset(docs, *parts))
        return whole

    return made


def test_a_collection_with_its_usual_splits(register: Register) -> None:
    whole = register()
    source = IrDatasets(whole)
    assert (source.name, source.splits()) == (whole.replace("/", "-"), ("train", "dev"))
    expected = [
        [("d1", "Tiger", "A big cat."), ("d2", "", "Tiger river."), ("d3", "Oak", "")],
        [("q1", "d2", 1), ("q2", "d1", 2), ("q2", "d2", 0)],
        [("q2", "cat with stripes"), ("q1", "water")],
        [("q3", "d3", 1)],
        [("q3", "oak")],
        [("q2", "d1", "d2"), ("q1", "d2", "d3")],
        [],
    ]
    assert everything(source) == everything(source) == expected
    assert not bad_summary(source)


def test_splits_and_corpus_by_id(register: Register) -> None:
    one, other = register(), register({"docs": "d3\tOak\tu\tA tree.\nd2\t\tu\tA lake.\nd1\t\tu\tA cat.\n"})
    source = IrDatasets(one, train=f"{other}/val", test=f"{one}/train", corpus=f"{other}/val", name="zoo")
    assert (source.name, source.splits(), source.triplets()) == ("zoo", ("train", "dev", "test"), None)
    assert values(source.queries("train")) == [("q3", "oak")]
    assert values(source.corpus())[0] == ("d3", "Oak", "A tree.")


def test_an_id_without_splits_is_the_one_it_is_called_after(register: Register) -> None:
    whole = register()
    library.registry.register(f"{whole}/other", library.load(f"{whole}/val"))
    for name, split in (("train", "train"), ("val", "dev"), ("other", "test")):
        assert IrDatasets(f"{whole}/{name}").splits() == (split,)
    assert values(IrDatasets(f"{whole}/other").corpus())[0][0] == "d1"


def test_fields_of_text_are_joined_where_the_library_does_not_say_how(register: Register) -> None:
    source = IrDatasets(register({"docs": "d1\tA cat.\tIt sleeps.\nd2\tA dog.\t\nd3\tA cow.\tx\n"}, doc_class=Plain))
    assert values(source.corpus())[:2] == [("d1", "", "A cat. It sleeps."), ("d2", "", "A dog.")]


@pytest.mark.parametrize(
    ("part", "line", "kind"),
    [
        ("docs", "d4\t\tu\t \n", "empty text"),
        ("train.qrels", "q1 0 d2 3\n", "judgement that contradicts an earlier one"),
    ],
)
def test_bad_rows(register: Register, caplog: pytest.LogCaptureFixture, part: str, line: str, kind: str) -> None:
    expected = everything(IrDatasets(register()))
    whole = register({part: FILES[part] + line})
    place = f"{whole} docs" if part == "docs" else f"{whole}/train qrels"
    check_bad_row(partial(IrDatasets, whole), expected, f"{place}, row 4: {kind}", kind, caplog)


@pytest.mark.parametrize(
    ("part", "line", "reason"),
    [("docs", "d4\tTiger\n", "expected 4 fields, got 2"), ("train.docpairs", "q1\td2\n", "expected 3 fields, got 2")],
)
def test_what_the_library_cannot_read(register: Register, tmp_path: Path, part: str, line: str, reason: str) -> None:
    whole = register({part: FILES[part] + line})
    message = rf" of {whole}.* after row {FILES[part].count(chr(10))} of {tmp_path / whole / part}: {reason}"
    check_refused(lambda: everything(IrDatasets(whole, max_bad_rows=1)), message)


def test_documents_come_in_batches(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("two_tower.data.reading.rows._BATCH_ROWS", 2)
    batches = list(IrDatasets(register()).corpus())
    assert [len(batch) for batch in batches] == [2, 1]
    assert values(batches)[2] == ("d3", "Oak", "")


def test_the_fingerprint_sees_every_file(register: Register, tmp_path: Path) -> None:
    whole = register()
    seen = {IrDatasets(whole).fingerprint() for _ in range(2)}
    for part, content in FILES.items():
        write_text(tmp_path / whole / part, content.replace("d", "e").replace("a", "o"))
        seen.add(IrDatasets(whole).fingerprint())
    assert len(seen) == len(FILES) + 1


def test_a_mistake_is_named(register: Register) -> None:
    whole = register()
    unknown = r"ir_datasets has no beir/scifct; did you mean 'beir/scifact'\?"
    check_refused(lambda: IrDatasets("beir/scifct"), unknown)
    check_refused(lambda: IrDatasets(whole, train=f"{whole}/trian"), r"has no .*/trian; did you mean '.*/train'\?")
    check_refused(lambda: IrDatasets(whole, dev=whole), r"data\.dev=.* has no queries with judgements")


def test_what_cannot_be_had_is_named(register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = register()
    check_split_refused(IrDatasets(whole), "test", "no split 'test': valid: dev, train")
    library.registry.register(f"{whole}/bare", library.Dataset(library.load(f"{whole}/val").queries_handler()))
    check_refused(lambda: IrDatasets(whole, corpus=f"{whole}/bare"), r"/bare has no documents: set data\.corpus")
    (tmp_path / whole / "docs").unlink()
    message = rf"ir_datasets cannot provide the docs of {whole}: "
    check_refused(lambda: list(IrDatasets(whole).corpus()), message)
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    check_refused(lambda: IrDatasets("beir/scifact"), r'pip install "two-tower\[ir\]"')
