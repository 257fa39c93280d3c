"""`microsoft/ms_marco` through the real `datasets`, on local Parquet files with the hub's column types."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rows import bad_summary, check_bad_row, check_refused, check_split_refused, everything, values

from two_tower.data.base import TRIPLETS
from two_tower.data.msmarco import MsMarco
from two_tower.data.reading.hub import HubData

pytestmark = pytest.mark.usefixtures("hub_cache")

# What `datasets` writes for microsoft/ms_marco.
LISTS = {"is_selected": pa.int32(), "passage_text": pa.string(), "url": pa.string()}
PASSAGES = pa.struct({name: pa.list_(kind) for name, kind in LISTS.items()})
OTHERS = {"answers": pa.list_(pa.string()), "query_type": pa.string()}  # and more that is not read
HUB = pa.schema({"passages": PASSAGES, "query": pa.string(), "query_id": pa.int32(), **OTHERS})

Row = tuple[int | None, str | None, list[tuple[str | None, int]]]

TRAIN: list[Row] = [
    (7, "capital of france", [("Paris is old.", 0), ("Paris is the capital.", 1), ("Rome is a city.", 0)]),
    (8, "what is rba", [("A bank.", 0), ("Another bank.", 0)]),
    (9, "capital of italy", [("Rome is a city.", 1), ("It is Rome.", 1), ("Paris is old.", 0), ("It is Rome.", 0)]),
]
DEV: list[Row] = [(3, "old city", [("Paris is old.", 1), ("Oslo is new.", 0)])]
TEST: list[Row] = [(1, "anything", [("Unmarked.", 0)])]


def hub_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    found = []
    for query_id, query, passages in rows:
        texts, selected = [text for text, _ in passages], [selected for _, selected in passages]
        lists = {"is_selected": selected, "passage_text": texts, "url": ["https://example.org"] * len(passages)}
        found.append({"passages": lists, "query": query, "query_id": query_id, "answers": ["an answer"]})
    return found


def write_split(folder: Path, split: str, rows: Sequence[Row], files: int = 1, group: int = 1000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        table = pa.Table.from_pylist(hub_rows(rows[i] for i in part), HUB)
        pq.write_table(table, folder / f"{split}-{number:05}-of-{files:05}.parquet", row_group_size=group)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    for split, rows in (("train", TRAIN), ("validation", DEV), ("test", TEST)):
        write_split(tmp_path / "ms_marco" / "v1.1", split, rows)
    return tmp_path / "ms_marco"


def test_everything_in_one_pass(hub: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    read: list[str] = []
    rows = HubData.rows
    monkeypatch.setattr(HubData, "rows", lambda self, split, *rest: read.append(split) or rows(self, split, *rest))
    source = MsMarco(path=str(hub))
    assert source.name == "msmarco-v1.1"
    assert source.triplets() is not None
    assert read == []  # asking whether there are any reads nothing
    assert source.splits() == ("train", "dev")
    for split in source.splits():
        source.queries(split)
        source.qrels(split)
    values(source.triplets())
    assert read == ["train", "validation"]
    assert everything(source) == [
        [("7-0", "", "Paris is old."), ("7-1", "", "Paris is the capital."), ("7-2", "", "Rome is a city."),
         ("8-0", "", "A bank."), ("8-1", "", "Another bank."), ("9-1", "", "It is Rome."), ("3-1", "", "Oslo is new.")],
        [("7", "7-0", 0), ("7", "7-1", 1), ("7", "7-2", 0),
         ("9", "7-0", 0), ("9", "7-2", 1), ("9", "9-1", 1)],  # marked at one of its two places
        [("7", "capital of france"), ("9", "capital of italy")],
        [("3", "7-0", 1), ("3", "3-1", 0)],
        [("3", "old city")],
        [("7", "7-1", "7-0"), ("7", "7-1", "7-2"), ("9", "7-2", "7-0"), ("9", "9-1", "7-0")],
        [],
    ]  # fmt: skip
    assert not bad_summary(source)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [  # once, however often it is read
        "msmarco-v1.1, split train: 1 of 3 queries have no passage that is marked as an answer; left out."
    ]


@pytest.mark.parametrize(
    ("chosen", "first", "splits"),
    [(["test", "dev"], "3-0", ("dev",)), (["test"], "1-0", ()), (["train"], "7-0", ("train",))],
)
def test_the_corpus_is_that_of_the_chosen_splits(hub: Path, chosen: list[str], first: str, splits: tuple) -> None:
    source = MsMarco(path=str(hub), corpus_splits=chosen)
    passages = values(source.corpus())
    assert (passages[0][0], source.splits()) == (first, splits)
    assert (("1-0", "", "Unmarked.") in passages) == ("test" in chosen)
    assert (source.triplets() is None) == ("train" not in chosen)


@pytest.mark.parametrize("streaming", [True, False])
def test_downloaded_or_streamed_in_several_files(tmp_path: Path, streaming: bool) -> None:
    numbers = range(10, 2510)
    many: list[Row] = [(i, f"query {i}", [(f"passage {i} {j}", int(j == i % 3)) for j in range(3)]) for i in numbers]
    write_split(tmp_path / "hub/v2.1", "train", many, files=3, group=70)
    write_split(tmp_path / "hub/v2.1", "validation", DEV)
    source = MsMarco("v2.1", str(tmp_path / "hub"), streaming=streaming)
    assert [row[0] for row in values(source.corpus())][:7500] == [f"{i}-{j}" for i in numbers for j in range(3)]
    assert values(source.qrels("train"))[5:7] == [("11", "11-2", 1), ("12", "12-0", 1)]
    assert sum(map(len, source.triplets() or ())) == 5000


texts = st.sampled_from(["a", "b", "c", "d", "e", "f g", "ä", "😀 h"])
groups = st.lists(st.tuples(texts, st.lists(st.tuples(texts, st.integers(0, 1)), max_size=5)), min_size=1, max_size=8)


@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
@given(groups, st.booleans())
def test_any_rows_against_a_plain_reading(
    tmp_path_factory: pytest.TempPathFactory, groups: list[tuple[str, list[tuple[str, int]]]], unique: bool
) -> None:
    folder = tmp_path_factory.mktemp("hub")
    rows: list[Row] = [(10 * i, query, list(passages)) for i, (query, passages) in enumerate(groups)]
    write_split(folder, "train", rows, group=3)
    source = MsMarco(path=str(folder), corpus_splits=["train"], unique_passages=unique)

    first: dict[object, str] = {}
    qrels: dict[tuple[str, str], int] = {}
    corpus, triplets, answered = [], set(), []
    for query_id, query, passages in rows:
        grades: dict[str, int] = {}
        for place, (text, selected) in enumerate(passages):
            own = f"{query_id}-{place}"
            name = first.setdefault(text if unique else own, own)
            if name == own:
                corpus.append((own, "", text))
            grades[name] = max(grades.get(name, 0), selected)
        if any(grades.values()):
            answered.append((str(query_id), query))
            qrels |= {(str(query_id), name): grade for name, grade in grades.items()}
        good = [name for name, grade in grades.items() if grade]
        triplets |= {(str(query_id), p, n) for p, n in product(good, grades) if not grades[n]}

    if not corpus:
        return check_refused(lambda: values(source.corpus()), "holds no passage")
    assert values(source.corpus()) == corpus
    if not answered:
        return check_refused(lambda: source.queries("train"), r"No query of .* train, has a passage that is marked")
    assert values(source.queries("train")) == answered
    assert sorted(values(source.qrels("train"))) == sorted((*pair, grade) for pair, grade in qrels.items())
    found = values(pa.Table.from_batches(source.triplets() or (), TRIPLETS))
    assert sorted(found) == sorted(triplets)
    return None


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ((4, None, [("x", 0)]), "query without text"),
        ((7, "another", [("x", 0)]), "query_id that another query had before"),
        ((4, "query", [(None, 0)]), "empty passage"),
    ],
)
def test_bad_rows(hub: Path, caplog: pytest.LogCaptureFixture, row: Row, kind: str) -> None:
    expected = everything(MsMarco(path=str(hub)))
    write_split(hub / "v1.1", "train", [*TRAIN, row])
    check_bad_row(partial(MsMarco, path=str(hub)), expected, rf"train-\S+\.parquet, row 4: {kind}", kind, caplog)


def test_lists_of_unequal_length_and_invalid_text_are_bad_rows(hub: Path) -> None:
    expected = len(values(MsMarco(path=str(hub)).corpus()))
    rows = hub_rows([*TRAIN, (5, "q", [("x", 1)]), (6, "q", [("y", 1)]), (4, "q", [("z", 0)])])
    rows[3]["passages"]["is_selected"] = [1, 0]
    table = pa.Table.from_pylist(rows, HUB)
    invalid = pa.array([b"q"] * 4 + [b"\xff", b"q"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, HUB.field("query"), invalid), hub / "v1.1/train-00000-of-00001.parquet")
    source = MsMarco(path=str(hub), max_bad_rows=0.5)
    passages = values(source.corpus())
    assert passages[6] == ("4-0", "", "z")
    assert len(passages) == expected + 1
    assert "parquet, row 4: lists of unequal length" in bad_summary(source)
    assert "parquet, row 5: invalid UTF-8" in bad_summary(source)


def test_the_fingerprint_is_that_of_the_content(hub: Path) -> None:
    def fingerprint(**settings: Any) -> str:  # noqa: ANN401
        return MsMarco(**{"path": str(hub), **settings}).fingerprint()

    before = fingerprint()
    hub = hub.rename(hub.with_name("elsewhere"))
    assert fingerprint() == fingerprint(path=str(hub / "v1.1")) == before
    others = [fingerprint(corpus_splits=["dev"]), fingerprint(unique_passages=False)]
    write_split(hub / "v1.1", "validation", [(3, "old city", [("Paris is old.", 1), ("Oslo is old.", 0)])])
    assert before not in [*others, fingerprint()]


def test_mistakes_are_named(hub: Path) -> None:
    source = MsMarco(path=str(hub), corpus_splits=["dev", "test"])
    check_split_refused(source, "test", "test of msmarco-v1.1 has no marked passages")
    check_split_refused(source, "train", "train of msmarco-v1.1 is not among data.corpus_splits")
    check_refused(lambda: MsMarco(path="/nowhere"), r"^path=/nowhere does not exist: give a folder")
    check_refused(lambda: MsMarco(corpus_splits=["train", "validation"]), r"^corpus_splits names 'validation'")
    check_refused(lambda: MsMarco(corpus_splits=[]), r"^corpus_splits is empty")


def test_files_that_are_not_what_they_should_be(tmp_path: Path, hub: Path) -> None:
    def check(answer: str, path: Path = hub, **arguments: Any) -> None:  # noqa: ANN401
        check_refused(lambda: list(MsMarco(path=str(path), **arguments).corpus()), answer)

    (tmp_path / "empty").mkdir()
    check(r"data\.path must be a folder of Parquet", tmp_path / "empty")
    (hub / "v1.1/validation-00000-of-00001.parquet").unlink()
    check(r"has no split dev: leave it out of data\.corpus_splits")
    damaged = hub / "v1.1/train-00000-of-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    check(f"{damaged} cannot be read", corpus_splits=["train"])
    row = {"query_id": 1, "query": "q"}
    for wrong, answer in (
        ({"query": "q", "text": "t"}, r"parquet has no column query_id, but query, text"),
        ({**row, "passages": {"text": ["a"]}}, r"must hold lists is_selected and passage_text, not \['text'\]"),
        ({**row, "passages": "a"}, r"\[\]"),
        ({**row, "passages": {"is_selected": ["yes"], "passage_text": ["a"]}}, "does not hold what its name says"),
    ):
        pq.write_table(pa.Table.from_pylist([wrong]), damaged)
        check(answer, corpus_splits=["train"])


def test_without_a_network_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = r"microsoft/ms_marco v1\.1 cannot be read from the hub.* set data\.path=FOLDER"
    check_refused(lambda: list(MsMarco().corpus()), message)
    check_refused(MsMarco().fingerprint, message)
