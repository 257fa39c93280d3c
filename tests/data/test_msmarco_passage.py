"""The official passage files: every form they come in, every kind of bad row, what a mistake is answered with."""

import inspect
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import bad_summary, check_bad_row, check_refused, check_split_refused, everything, pack, values, write_text

from two_tower.data import msmarco_passage
from two_tower.data.base import SCORED_TRIPLETS, TEXT_TRIPLETS
from two_tower.data.msmarco_passage import MsMarcoPassage
from two_tower.data.reading import rows
from two_tower.data.reading.download import Download
from two_tower.data.reading.formats import TsvRows
from two_tower.data.reading.rows import read_rows
from two_tower.errors import BadRows

YAML = Path(__file__).parents[2] / "conf" / "data" / "msmarco_passage.yaml"
CONFIG = yaml.safe_load(YAML.read_text(encoding="utf-8"))
IDS, TEXTS = "qidpidtriples.train.full.2.tsv", "triples.train.small.tsv"

FILES = {
    "collection.tsv": '0\tA "big cat.\n1\tA river\u2028of\x85water.\n2\tA tree, one\x01control.\n12\tâ\x80\x99\n',
    "queries.train.tsv": "30\tcat with stripes\n7\twater\n8\tnever judged\n",
    "queries.dev.small.tsv": "9\toak\n",
    "qrels.train.tsv": "7\t0\t1\t1\n30\t0\t0\t1\n30\t0\t2\t1\n",
    "qrels.dev.small.tsv": "9\t0\t2\t1\n",
    "msmarco-test2019-queries.tsv": "19\tstripes\n20\tnobody judged it\n",
    "2019qrels-pass.txt": "19 Q0 0 3\n19 Q0 1 0\n19  Q0 2\t2\n",
    IDS: "30\t0\t1\n30\t2\t12\n7\t1\t2\n",
    TEXTS: 'cat with stripes\tA "big cat.\tA river.\nwater\tA river.\tA tree.\n',
}


def lay_out(folder: Path, form: str, files: Mapping[str, str] = FILES) -> Path:
    """Write the files as they are, each as .gz, or packed as they are published."""
    folder.mkdir(exist_ok=True)
    packed = {}
    for name, text in files.items():
        content = text.encode("utf-8", "surrogateescape")
        if form == "gz" or (form == "packed" and name.startswith(("qidpid", "msmarco-test"))):
            write_text(folder / f"{name}.gz", content)
        elif form == "plain" or name.startswith("2019"):
            write_text(folder / name, content)
        elif name == TEXTS:
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
    source = MsMarcoPassage(path, triples=IDS)
    assert source.name == "marco"
    assert source.splits() == ("train", "dev", "test")
    passages = [
        ("0", "", 'A "big cat.'), ("1", "", "A river\u2028of\x85water."),
        ("2", "", "A tree, one\x01control."), ("12", "", "â\x80\x99"),
    ]  # fmt: skip
    expected = [
        passages,
        [("7", "1", 1), ("30", "0", 1), ("30", "2", 1)],
        [("30", "cat with stripes"), ("7", "water")],
        [("9", "2", 1)],
        [("9", "oak")],
        [("19", "0", 3), ("19", "1", 0), ("19", "2", 2)],
        [("19", "stripes")],
        [("30", "0", "1"), ("30", "2", "12"), ("7", "1", "2")],
        [],
    ]
    assert everything(source) == expected
    assert values(source.search_corpus()) == passages
    assert not bad_summary(source)

    source = MsMarcoPassage(path, triples=TEXTS)
    texts = [("cat with stripes", 'A "big cat.', "A river."), ("water", "A river.", "A tree.")]
    for _ in range(2):
        assert values(source.text_triplets(), TEXT_TRIPLETS) == texts
    assert source.triplets() is None
    source = MsMarcoPassage(path, name="zoo")
    assert source.triplets() is source.text_triplets() is None
    assert source.name == "zoo"


@pytest.mark.parametrize("form", ["plain", "gz"])
def test_triples_with_a_teachers_scores(tmp_path: Path, form: str) -> None:
    scored = {**FILES, "scores_ids.tsv": "7.5\t-1.25\t30\t0\t1\n2\t3.5\t30\t2\t12\n"}
    source = MsMarcoPassage(str(lay_out(tmp_path / "marco", form, scored)), triples="scores_ids.tsv")
    for _ in range(2):
        assert values(source.triplets(), SCORED_TRIPLETS) == [("30", "0", "1", 8.75), ("30", "2", "12", -1.5)]
    assert source.text_triplets() is None


@pytest.mark.parametrize(
    ("form", "file", "line", "kind"),
    [
        ("plain", "collection.tsv", b"13\ttext\tmore", "wrong number of columns"),
        ("packed", "collection.tsv", b"13\t \xc2\xa0", "empty text"),
        ("plain", "collection.tsv", b"\ttext", "empty id"),
        ("packed", "collection.tsv", b"13\t\xff", "invalid UTF-8"),
        ("plain", "collection.tsv", b"2\tAnother tree.", "id that another text had before"),
        ("packed", "queries.train.tsv", b"7\tother", "id that another text had before"),
        ("packed", "qrels.train.tsv", b"7\t0\t2\thigh", "value that is no whole number"),
        ("plain", "qrels.train.tsv", b"9\t0\t2\t1", "unknown query_id"),
        ("packed", "qrels.train.tsv", b"7\t0\t99\t1", "unknown document_id"),
        ("packed", "qrels.train.tsv", b"7\t0\t1\t0", "judgement that contradicts an earlier one"),
        ("plain", "2019qrels-pass.txt", b"19 Q0 2", "wrong number of columns"),
        ("packed", IDS, b"30\t0\t", "empty negative_id"),
        ("packed", TEXTS, b"water\t \tA river.", "empty positive"),
    ],
)
def test_bad_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, file: str, line: bytes, kind: str
) -> None:
    make = partial(MsMarcoPassage, triples=file if "triples" in file else None)
    expected = everything(make(str(lay_out(tmp_path / "good", "plain"))))
    spoilt = {**FILES, file: FILES[file] + line.decode("utf-8", "surrogateescape") + "\n"}
    message = rf"{file}(\.gz)?, row {spoilt[file].count(chr(10))}: {kind}"
    check_bad_row(partial(make, str(lay_out(tmp_path / "marco", form, spoilt))), expected, message, kind, caplog)


def test_equal_rows_twice_are_no_mistake(tmp_path: Path, folder: Path) -> None:
    doubled = {name: text if "triples" in name else text * 2 for name, text in FILES.items()}
    source = MsMarcoPassage(str(lay_out(tmp_path / "doubled", "plain", doubled)))
    assert everything(source) == everything(MsMarcoPassage(str(folder)))
    assert not bad_summary(source)
    (folder / "collection.tsv").write_bytes(b"\xff")  # which judgements need not read
    assert len(MsMarcoPassage(str(folder)).qrels("train")) == 3


@pytest.mark.parametrize(("file", "packed", "keep"), [("collection.tsv", True, 0.9), (TEXTS, False, 0.6)])
def test_a_cut_file_is_named(tmp_path: Path, file: str, packed: bool, keep: float) -> None:
    rng = np.random.default_rng(0)
    content = "\n".join(f"{i}\t{' '.join(map(str, rng.integers(0, 10**9, 9)))}" for i in range(2000))
    lay_out(tmp_path, "gz", {**FILES, "collection.tsv": "0\tx\n", file: content})
    path = tmp_path / f"{file}.gz"
    if packed:
        path.unlink()
        path = pack(tmp_path / f"{Path(file).stem}.tar.gz", {file: content.encode()})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    source = MsMarcoPassage(str(tmp_path), triples=TEXTS)
    read = source.corpus if file == "collection.tsv" else source.text_triplets
    check_refused(lambda: list(read() or ()), rf"{path.name}.* cannot be read to its end")


@pytest.mark.parametrize("triples", [None, TEXTS, IDS])
def test_triples_alone_are_not_enough(tmp_path: Path, triples: str | None) -> None:
    lay_out(tmp_path, "packed", {name: text for name, text in FILES.items() if "triples" in name})
    training = "" if triples == TEXTS else "queries.train.tsv, qrels.train.tsv, "
    missing = f"collection.tsv, {training}queries.dev.small.tsv, qrels.dev.small.tsv"
    for ask in (MsMarcoPassage.splits, lambda source: list(source.corpus())):
        message = f"{tmp_path} holds none of {missing}: .* so put these files there too"
        check_refused(lambda ask=ask: ask(MsMarcoPassage(str(tmp_path), triples=triples)), message)


def test_triples_of_texts_can_be_read_alone_and_need_no_training_queries(tmp_path: Path) -> None:
    source = MsMarcoPassage(str(lay_out(tmp_path / "alone", "packed", {TEXTS: FILES[TEXTS]})), triples=TEXTS)
    assert len(values(source.text_triplets())) == 2
    assert source.fingerprint()
    kept = {name: text for name, text in FILES.items() if not name.endswith(".train.tsv")}
    source = MsMarcoPassage(str(lay_out(tmp_path / "kept", "packed", kept)), triples=TEXTS)
    assert source.splits() == ("dev", "test")
    assert len(values(source.text_triplets())) == 2
    check_refused(lambda: source.qrels("train"), r"holds no qrels\.train\.tsv")


@pytest.mark.parametrize(
    ("split", "answer"),
    [("tset", "no split 'tset': valid: dev, train"), ("trian", "did you mean 'train'"), ("test", "holds no 2019qrels")],
)
def test_an_unknown_split_is_answered_with_the_nearest(folder: Path, split: str, answer: str) -> None:
    (folder / "2019qrels-pass.txt").unlink()
    source = MsMarcoPassage(str(folder))
    assert source.splits() == ("train", "dev")
    check_split_refused(source, split, answer)


def test_a_split_can_be_switched_off_or_have_files_of_other_names(folder: Path) -> None:
    source = MsMarcoPassage(str(folder), queries={"train": "queries.train.tsv", "test": None})
    assert source.splits() == ("train",)
    check_split_refused(source, "test", r"data\.queries\.test is null")
    (folder / "queries.dev.small.tsv").rename(folder / "queries.dev.tsv")
    source = MsMarcoPassage(str(folder))
    assert source.splits() == ("train", "test")
    message = r"no queries\.dev\.small\.tsv \(did you mean data\.queries\.dev=queries\.dev"
    check_refused(lambda: source.queries("dev"), message)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"queries": {"validation": "queries.dev.tsv"}}, r"queries\.validation is no split; valid: dev, test"),
        ({"corpus": "colection.tsv"}, r"no colection\.tsv \(did you mean data\.corpus=collection\.tsv"),
        ({"triples": "triples.tsv"}, r"no triples\.tsv \(did you mean data\.triples=triples\.train\.small\.tsv"),
        ({"max_bad_rows": 3}, r"max_bad_rows=3 "),
        ({"path": "nowhere"}, r"nowhere is no folder: data\.path must"),
        ({"download": True, "corpus": "mine.tsv"}, r"no address for mine\.tsv.*data\.corpus=null"),
        ({"downloads": {"a.tsv": {"url": "http://x", "md5": "1"}}}, r"a\.tsv\.md5, which does not exist"),
        ({"downloads": {"a.tsv": {"size": 3}}}, r"no url for a\.tsv"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, arguments: dict[str, Any], answer: str) -> None:
    check_refused(lambda: MsMarcoPassage(**{"path": str(folder), **arguments}), answer)


def test_empty_files_are_named(folder: Path) -> None:
    for name in ("collection.tsv", "qrels.dev.small.tsv", TEXTS):
        (folder / name).write_bytes(b"\n")
    source = MsMarcoPassage(str(folder), triples=TEXTS)
    check_refused(lambda: list(source.corpus()), r"collection\.tsv holds no passage")
    check_refused(lambda: source.qrels("dev"), r"qrels\.dev\.small\.tsv holds no judgement")
    check_refused(source.text_triplets, r"triples\.train\.small\.tsv holds no triple")


@pytest.mark.parametrize("form", ["plain", "packed"])
def test_the_fingerprint_sees_every_byte_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def fingerprint(folder: str, files: Mapping[str, str] = FILES) -> str:
        return MsMarcoPassage(str(lay_out(tmp_path / folder, form, files)), triples=TEXTS).fingerprint()

    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "time", lambda: 1.7e9)  # it is written into gzip's header
    before = fingerprint("a")
    assert fingerprint("b") == before
    changed = [{**FILES, f: FILES[f].replace("a", "b").replace("1", "2")} for f in FILES if f != IDS]
    seen = [fingerprint(f"c{number}", files) for number, files in enumerate(changed)]
    swapped = {"train": "queries.dev.small.tsv", "dev": "queries.train.tsv"}  # a file has another role
    seen.append(MsMarcoPassage(str(tmp_path / "a"), queries=swapped, triples=TEXTS).fingerprint())
    assert len({before, *seen}) == len(FILES) + 1


@pytest.fixture(scope="module")
def any_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triples")


cell = st.text(st.sampled_from("ab\"\\',; \r\x00\x0b\x85\u2028\ufeffé"), max_size=6)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.tuples(cell, cell, cell).map("\t".join), cell), max_size=6), st.integers(1, 60))
def test_triples_equal_plain_splitting(any_folder: Path, lines: list[str], block_bytes: int) -> None:
    path = any_folder / "triples.tsv"
    path.write_bytes("\n".join(["a\tb\tc", *lines]).encode())
    expected = [line.removesuffix("\r").split("\t") for line in ["a\tb\tc", *lines]]
    expected = [tuple(row) for row in expected if len(row) == 3 and all(text.strip() for text in row)]
    row_format = TsvRows(TEXT_TRIPLETS, filled=TEXT_TRIPLETS.names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_BLOCK_BYTES", block_bytes)
        found = [row for table, _ in read_rows(path, row_format, BadRows(1)) for row in values(table)]
    assert found == expected


def test_the_published_addresses_serve_every_file_of_the_configuration() -> None:
    downloads = {name: Download.from_config(name, entry) for name, entry in CONFIG["downloads"].items()}
    for file in [CONFIG["corpus"], *CONFIG["queries"].values(), *CONFIG["qrels"].values(), IDS, TEXTS]:
        assert any(entry.provides(name, file) for name, entry in downloads.items()), file
    for name, entry in downloads.items():
        assert entry.url.startswith("https://")
        assert entry.url.endswith(f"/{name}")
        assert entry.size
        assert len((entry.checksum or "").removeprefix("md5:")) == 32
    for name, parameter in inspect.signature(MsMarcoPassage).parameters.items():
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        assert name in ("path", "downloads", "headers") or CONFIG[name] == default, name


def test_what_is_missing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(url: str, path: Path, *rest: Any) -> None:  # noqa: ANN401
        asked.append((url, *rest))
        path.parent.mkdir(exist_ok=True)
        names = [n for n in FILES if n.startswith(("collection.", "queries.", "qrels."))]
        if path.name == "collectionandqueries.tar.gz":
            pack(path, {name: FILES[name].encode() for name in names})
        else:
            write_text(path, FILES[path.name.removesuffix(".gz")])

    monkeypatch.setattr(msmarco_passage, "fetch", fetch)
    make = partial(
        MsMarcoPassage, str(tmp_path / "new"), downloads=CONFIG["downloads"], headers=CONFIG["headers"], triples=IDS
    )
    for _ in range(2):
        assert make(download=True).splits() == ("train", "dev", "test")
    assert [url.rpartition("/")[2] for url, *_ in asked] == [
        "collectionandqueries.tar.gz", f"{IDS}.gz", "msmarco-test2019-queries.tsv.gz", "2019qrels-pass.txt"
    ]  # fmt: skip
    assert asked[0][1:] == (1057717952, "md5:31644046b18952c1386cd4564ba2ae69", {"X-Ms-Version": "2019-12-12"})

    (tmp_path / "new" / "2019qrels-pass.txt").unlink()
    check_refused(lambda: make().qrels("test"), r"no 2019qrels-pass\.txt \(data\.download=true fetches it\)")
