"""The official passage files: every form they come in, every kind of bad row, what a mistake is answered with."""

import gzip
import inspect
import io
import tarfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import bad_summary, check_bad_row, everything, values

from two_tower.data import msmarco_passage
from two_tower.data.base import CORPUS, QRELS, QUERIES, SCORED_TRIPLETS, TEXT_TRIPLETS, TRIPLETS
from two_tower.data.msmarco_passage import MsMarcoPassage
from two_tower.data.reading import rows
from two_tower.data.reading.download import Download
from two_tower.data.reading.formats import TsvRows
from two_tower.data.reading.rows import read_rows
from two_tower.errors import BadRows, UserError

YAML = Path(__file__).parents[2] / "conf" / "data" / "msmarco_passage.yaml"

FILES = {
    "collection.tsv": '0\tA "big cat.\n1\tA river\u2028of\x85water.\n2\tA tree, one\x01control.\n12\tâ\x80\x99\n',
    "queries.train.tsv": "30\tcat with stripes\n7\twater\n8\tnever judged\n",
    "queries.dev.small.tsv": "9\toak\n",
    "qrels.train.tsv": "7\t0\t1\t1\n30\t0\t0\t1\n30\t0\t2\t1\n",
    "qrels.dev.small.tsv": "9\t0\t2\t1\n",
    "msmarco-test2019-queries.tsv": "19\tstripes\n20\tnobody judged it\n",
    "2019qrels-pass.txt": "19 Q0 0 3\n19 Q0 1 0\n19  Q0 2\t2\n",
    "qidpidtriples.train.full.2.tsv": "30\t0\t1\n30\t2\t12\n7\t1\t2\n",
    "triples.train.small.tsv": 'cat with stripes\tA "big cat.\tA river.\nwater\tA river.\tA tree.\n',
}


def pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def lay_out(folder: Path, form: str, files: Mapping[str, str] = FILES) -> Path:
    """Write the files as they are, each as .gz, or packed as they are published."""
    folder.mkdir(exist_ok=True)
    packed = {}
    for name, text in files.items():
        content = text.encode("utf-8", "surrogateescape")
        if form == "gz" or (form == "packed" and name.startswith(("qidpid", "msmarco-test"))):
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        elif form == "plain" or name.startswith("2019"):
            (folder / name).write_bytes(content)
        elif name.startswith("triples"):
            pack(folder / "triples.train.small.tar.gz", {name: content})
        else:
            packed[name] = content
    if packed:
        pack(folder / "collectionandqueries.tar.gz", packed)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "marco", "plain")


@pytest.mark.parametrize("form", ["plain", "gz", "packed"])
def test_all_files_in_every_form(tmp_path: Path, form: str) -> None:
    path = str(lay_out(tmp_path / "marco", form))
    source = MsMarcoPassage(path, triples="qidpidtriples.train.full.2.tsv")
    assert source.name == "marco"
    assert source.splits() == ("train", "dev", "test")
    batches = list(source.corpus())
    assert all(batch.schema == CORPUS for batch in batches)
    assert values(batches) == values(source.search_corpus()) == [
        ("0", "", 'A "big cat.'), ("1", "", "A river\u2028of\x85water."),
        ("2", "", "A tree, one\x01control."), ("12", "", "â\x80\x99"),
    ]  # fmt: skip
    assert source.queries("train").schema == QUERIES
    assert source.qrels("train").schema == QRELS
    assert values(source.queries("train")) == [("30", "cat with stripes"), ("7", "water")]
    assert values(source.qrels("train")) == [("7", "1", 1), ("30", "0", 1), ("30", "2", 1)]
    assert values(source.queries("dev")) == [("9", "oak")]
    assert values(source.queries("test")) == [("19", "stripes")]
    assert values(source.qrels("test")) == [("19", "0", 3), ("19", "1", 0), ("19", "2", 2)]
    triplets = source.triplets()
    assert triplets is not None
    table = pa.Table.from_batches(triplets)
    assert table.schema == TRIPLETS
    assert values(table) == [("30", "0", "1"), ("30", "2", "12"), ("7", "1", "2")]
    assert source.text_triplets() is None
    assert not bad_summary(source)

    source = MsMarcoPassage(path, triples="triples.train.small.tsv")
    for _ in range(2):
        texts = source.text_triplets()
        assert texts is not None
        table = pa.Table.from_batches(texts)
        assert table.schema == TEXT_TRIPLETS
        assert values(table) == [
            ("cat with stripes", 'A "big cat.', "A river."), ("water", "A river.", "A tree."),
        ]  # fmt: skip
    assert source.triplets() is None


@pytest.mark.parametrize("form", ["plain", "gz"])
def test_triples_with_a_teachers_scores(tmp_path: Path, form: str) -> None:
    scored = {**FILES, "scores_ids.tsv": "7.5\t-1.25\t30\t0\t1\n2\t3.5\t30\t2\t12\n"}
    source = MsMarcoPassage(str(lay_out(tmp_path / "marco", form, scored)), triples="scores_ids.tsv")
    for _ in range(2):
        table = pa.Table.from_batches(source.triplets() or ())
        assert table.schema == SCORED_TRIPLETS
        assert values(table) == [("30", "0", "1", 8.75), ("30", "2", "12", -1.5)]
    assert source.text_triplets() is None


def test_no_triples_unless_asked_for(folder: Path) -> None:
    source = MsMarcoPassage(str(folder), name="zoo")
    assert source.triplets() is source.text_triplets() is None
    assert source.name == "zoo"


BAD_LINES = [
    ("collection.tsv", b"13", "wrong number of columns"),
    ("collection.tsv", b"13\ttext\tmore", "wrong number of columns"),
    ("collection.tsv", b"13\t \xc2\xa0", "empty text"),
    ("collection.tsv", b"\ttext", "empty id"),
    ("collection.tsv", b"13\t\xff", "invalid UTF-8"),
    ("collection.tsv", b"2\tAnother tree.", "id that another text had before"),
    ("queries.train.tsv", b"31", "wrong number of columns"),
    ("queries.train.tsv", b"31\t", "empty text"),
    ("queries.train.tsv", b"7\tother", "id that another text had before"),
    ("qrels.train.tsv", b"7\t0\t2", "wrong number of columns"),
    ("qrels.train.tsv", b"7\t0\t2\thigh", "value that is no whole number"),
    ("qrels.train.tsv", b"9\t0\t2\t1", "unknown query_id"),
    ("qrels.train.tsv", b"7\t0\t99\t1", "unknown document_id"),
    ("qrels.train.tsv", b"7\t0\t1\t0", "judgement that contradicts an earlier one"),
    ("2019qrels-pass.txt", b"19 Q0 2", "wrong number of columns"),
    ("qidpidtriples.train.full.2.tsv", b"30\t0", "wrong number of columns"),
    ("qidpidtriples.train.full.2.tsv", b"30\t0\t", "empty negative_id"),
    ("triples.train.small.tsv", b"water\tA river.", "wrong number of columns"),
    ("triples.train.small.tsv", b"water\t \tA river.", "empty positive"),
    ("triples.train.small.tsv", b"water\tx\t\xe2\x80", "invalid UTF-8"),
]


@pytest.mark.parametrize(("file", "line", "kind"), BAD_LINES)
@pytest.mark.parametrize("form", ["plain", "packed"])
def test_a_bad_row_is_an_error_that_names_it_or_is_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, file: str, line: bytes, kind: str
) -> None:
    make = partial(MsMarcoPassage, triples=file if "triples" in file else None)
    expected = everything(make(str(lay_out(tmp_path / "good", "plain"))))
    spoilt = {**FILES, file: FILES[file] + line.decode("utf-8", "surrogateescape") + "\n"}
    message = rf"{file}(\.gz)?, row {spoilt[file].count(chr(10))}: {kind}"
    check_bad_row(partial(make, str(lay_out(tmp_path / "marco", form, spoilt))), expected, message, kind, caplog)


def test_judgements_need_no_reading_of_the_collection(folder: Path) -> None:
    qrels = folder / "qrels.train.tsv"
    qrels.write_text(qrels.read_text() + "7\t0\t99\t1\n")
    (folder / "collection.tsv").write_bytes(b"\xff")
    assert ("7", "99", 1) in values(MsMarcoPassage(str(folder)).qrels("train"))


def test_equal_rows_twice_are_no_mistake(tmp_path: Path, folder: Path) -> None:
    doubled = {name: text if "triples" in name else text * 2 for name, text in FILES.items()}
    source = MsMarcoPassage(str(lay_out(tmp_path / "doubled", "plain", doubled)))
    assert everything(source) == everything(MsMarcoPassage(str(folder)))
    assert not bad_summary(source)


@pytest.mark.parametrize("file", ["collection.tsv", "triples.train.small.tsv"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [0.6, 0.9])
def test_a_cut_file_is_named(tmp_path: Path, file: str, packed: bool, keep: float) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{i}\t{' '.join(map(str, rng.integers(0, 10**9, 9)))}" for i in range(2000)]
    lay_out(tmp_path, "gz", {**FILES, "collection.tsv": "0\tx\n", file: "\n".join(lines)})
    path = tmp_path / f"{file}.gz"
    if packed:
        content = gzip.decompress(path.read_bytes())
        path.unlink()
        path = tmp_path / f"{Path(file).stem}.tar.gz"
        pack(path, {file: content})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    source = MsMarcoPassage(str(tmp_path), triples="triples.train.small.tsv")
    with pytest.raises(UserError, match=rf"{path.name}.* cannot be read to its end"):
        list(source.corpus() if file == "collection.tsv" else source.text_triplets() or ())


@pytest.mark.parametrize("triples", [None, "triples.train.small.tsv", "qidpidtriples.train.full.2.tsv"])
def test_triples_alone_are_not_enough(tmp_path: Path, triples: str | None) -> None:
    lay_out(tmp_path, "packed", {name: text for name, text in FILES.items() if "triples" in name})
    training = "" if triples == "triples.train.small.tsv" else "queries.train.tsv, qrels.train.tsv, "
    missing = f"collection.tsv, {training}queries.dev.small.tsv, qrels.dev.small.tsv"
    for ask in (MsMarcoPassage.splits, lambda source: list(source.corpus())):
        with pytest.raises(UserError, match=f"{tmp_path} holds none of {missing}: .* so put these files there too"):
            ask(MsMarcoPassage(str(tmp_path), triples=triples))


def test_triples_alone_can_be_read(tmp_path: Path) -> None:
    lay_out(tmp_path, "packed", {"triples.train.small.tsv": FILES["triples.train.small.tsv"]})
    source = MsMarcoPassage(str(tmp_path), triples="triples.train.small.tsv")
    assert len(values(source.text_triplets())) == 2
    assert source.fingerprint()


def test_triples_of_texts_need_no_training_queries(tmp_path: Path) -> None:
    kept = {name: text for name, text in FILES.items() if not name.endswith(".train.tsv")}
    source = MsMarcoPassage(str(lay_out(tmp_path, "packed", kept)), triples="triples.train.small.tsv")
    assert source.splits() == ("dev", "test")
    assert len(values(source.text_triplets())) == 2
    with pytest.raises(UserError, match=r"holds no qrels\.train\.tsv"):
        source.qrels("train")


@pytest.mark.parametrize(
    ("split", "answer"),
    [("tset", "no split 'tset': valid: dev, train"), ("trian", "did you mean 'train'"), ("test", "holds no 2019qrels")],
)
def test_an_unknown_split_is_answered_with_the_nearest(folder: Path, split: str, answer: str) -> None:
    (folder / "2019qrels-pass.txt").unlink()
    source = MsMarcoPassage(str(folder))
    assert source.splits() == ("train", "dev")
    for method in (source.qrels, source.queries):
        with pytest.raises(UserError, match=answer):
            method(split)


def test_a_file_of_a_similar_name_is_proposed(folder: Path) -> None:
    (folder / "queries.dev.small.tsv").rename(folder / "queries.dev.tsv")
    source = MsMarcoPassage(str(folder))
    assert source.splits() == ("train", "test")
    with pytest.raises(UserError, match=r"no queries\.dev\.small\.tsv \(did you mean data\.queries\.dev=queries\.dev"):
        source.queries("dev")


def test_a_split_can_be_switched_off(folder: Path) -> None:
    source = MsMarcoPassage(str(folder), queries={"train": "queries.train.tsv", "test": None})
    assert source.splits() == ("train",)
    with pytest.raises(UserError, match=r"data\.queries\.test is null"):
        source.queries("test")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"queries": {"validation": "queries.dev.tsv"}}, r"queries\.validation is no split; valid: dev, test"),
        ({"corpus": "colection.tsv"}, r"no colection\.tsv \(did you mean data\.corpus=collection\.tsv"),
        ({"triples": "triples.tsv"}, r"no triples\.tsv \(did you mean data\.triples=triples\.train\.small\.tsv"),
        ({"max_bad_rows": 3}, r"max_bad_rows=3 "),
        ({"download": True, "corpus": "mine.tsv"}, r"no address for mine\.tsv.*data\.corpus=null"),
        ({"downloads": {"a.tsv": {"url": "http://x", "md5": "1"}}}, r"a\.tsv\.md5, which does not exist"),
        ({"downloads": {"a.tsv": {"size": 3}}}, r"no url for a\.tsv"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, arguments: dict[str, Any], answer: str) -> None:
    with pytest.raises((UserError, ValueError), match=answer):
        MsMarcoPassage(str(folder), **arguments)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is no folder: data\.path must"):
        MsMarcoPassage(str(tmp_path / "nowhere"))


def test_empty_files_are_named(folder: Path) -> None:
    for name in ("collection.tsv", "qrels.dev.small.tsv", "triples.train.small.tsv"):
        (folder / name).write_bytes(b"\n")
    source = MsMarcoPassage(str(folder), triples="triples.train.small.tsv")
    with pytest.raises(UserError, match=r"collection\.tsv holds no passage"):
        list(source.corpus())
    with pytest.raises(UserError, match=r"qrels\.dev\.small\.tsv holds no judgement"):
        source.qrels("dev")
    with pytest.raises(UserError, match=r"triples\.train\.small\.tsv holds no triple"):
        source.text_triplets()


@pytest.mark.parametrize("file", [name for name in FILES if not name.startswith("qidpid")])
@pytest.mark.parametrize("form", ["plain", "packed"])
def test_the_fingerprint_sees_every_byte_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, file: str
) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))

    def fingerprint(folder: Path) -> str:
        return MsMarcoPassage(str(folder), triples="triples.train.small.tsv").fingerprint()

    monkeypatch.setattr(time, "time", lambda: 1.7e9)  # it is written into gzip's header
    before = fingerprint(lay_out(tmp_path / "a", form))
    assert fingerprint(lay_out(tmp_path / "b", form)) == before
    changed = {**FILES, file: FILES[file].replace("a", "b").replace("1", "2")}
    assert fingerprint(lay_out(tmp_path / "c", form, changed)) != before


def test_the_files_are_the_ones_with_the_right_role(folder: Path) -> None:
    swapped = {"train": "queries.dev.small.tsv", "dev": "queries.train.tsv"}
    assert MsMarcoPassage(str(folder), queries=swapped).fingerprint() != MsMarcoPassage(str(folder)).fingerprint()


def test_blocks_do_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everything(MsMarcoPassage(str(folder), triples="triples.train.small.tsv"))
    for size in (1, 5, 40):
        monkeypatch.setattr(rows, "_BLOCK_BYTES", size)
        assert everything(MsMarcoPassage(str(folder), triples="triples.train.small.tsv")) == expected


@pytest.fixture(scope="module")
def any_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triples")


cell = st.text(st.sampled_from("ab\"\\',; \r\x00\x0b\x85\u2028\ufeffé"), max_size=6)


@settings(deadline=None)
@given(st.lists(st.one_of(st.tuples(cell, cell, cell).map("\t".join), cell), max_size=6))
def test_triples_equal_plain_splitting(any_folder: Path, lines: list[str]) -> None:
    path = any_folder / "triples.tsv"
    path.write_bytes("\n".join(["a\tb\tc", *lines]).encode())
    expected = [line.removesuffix("\r").split("\t") for line in ["a\tb\tc", *lines]]
    expected = [tuple(row) for row in expected if len(row) == 3 and all(text.strip() for text in row)]
    row_format = TsvRows(TEXT_TRIPLETS, filled=TEXT_TRIPLETS.names)
    found = [row for table, _ in read_rows(path, row_format, BadRows(1)) for row in values(table)]
    assert found == expected


def test_the_published_addresses_serve_every_file_of_the_configuration() -> None:
    config = yaml.safe_load(YAML.read_text(encoding="utf-8"))
    downloads = {name: Download.from_config(name, entry) for name, entry in config["downloads"].items()}
    names = [config["corpus"], *config["queries"].values(), *config["qrels"].values()]
    for file in [*names, "qidpidtriples.train.full.2.tsv", "triples.train.small.tsv"]:
        assert any(entry.provides(name, file) for name, entry in downloads.items()), file
    for name, entry in downloads.items():
        assert entry.url.startswith("https://")
        assert entry.url.endswith(f"/{name}")
        assert entry.size
        assert len((entry.checksum or "").removeprefix("md5:")) == 32
    for name, parameter in inspect.signature(MsMarcoPassage).parameters.items():
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        assert name in ("path", "downloads", "headers") or config[name] == default, name


def test_what_is_missing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(url: str, path: Path, size: int | None, checksum: str | None, headers: dict[str, str]) -> None:
        asked.append((url, size, checksum, headers))
        path.parent.mkdir(exist_ok=True)
        names = [n for n in FILES if n.startswith(("collection.", "queries.", "qrels."))]
        if path.name == "collectionandqueries.tar.gz":
            pack(path, {name: FILES[name].encode() for name in names})
        else:
            content = FILES[path.name.removesuffix(".gz")].encode()
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    monkeypatch.setattr(msmarco_passage, "fetch", fetch)
    config = yaml.safe_load(YAML.read_text(encoding="utf-8"))
    for _ in range(2):
        source = MsMarcoPassage(
            str(tmp_path / "new"), triples="qidpidtriples.train.full.2.tsv", download=True,
            downloads=config["downloads"], headers=config["headers"],
        )  # fmt: skip
        assert source.splits() == ("train", "dev", "test")
    assert [url.rpartition("/")[2] for url, *_ in asked] == [
        "collectionandqueries.tar.gz", "qidpidtriples.train.full.2.tsv.gz",
        "msmarco-test2019-queries.tsv.gz", "2019qrels-pass.txt",
    ]  # fmt: skip
    assert asked[0][1:] == (1057717952, "md5:31644046b18952c1386cd4564ba2ae69", {"X-Ms-Version": "2019-12-12"})

    (tmp_path / "new" / "2019qrels-pass.txt").unlink()
    offline = MsMarcoPassage(str(tmp_path / "new"), downloads=config["downloads"])
    with pytest.raises(UserError, match=r"no 2019qrels-pass\.txt \(data\.download=true fetches it\)"):
        offline.qrels("test")
