"""The official passage files: every form they come in, every kind of bad row, what a mistake is answered with."""

import re
import shutil
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
from two_tower.data.reading.triples import TriplesFile
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
        alone = name.startswith(("qidpid", "msmarco-test", "2019"))
        if form == "packed" and not alone:
            packed[name] = text.encode("utf-8", "surrogateescape")
        else:
            write_text(folder / (name if form == "plain" or name.startswith("2019") else f"{name}.gz"), text)
    triples = {name: packed.pop(name) for name in [TEXTS] if name in packed}
    for archive, members in (("collectionandqueries", packed), ("triples.train.small", triples)):
        if members:
            pack(folder / f"{archive}.tar.gz", members)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "marco", "plain")


@pytest.mark.parametrize("form", ["plain", "gz", "packed"])
def test_all_files_in_every_form(tmp_path: Path, form: str) -> None:
    path = str(lay_out(tmp_path / "marco", form))
    source = MsMarcoPassage(path, triples=IDS)
    assert (source.name, source.splits()) == ("marco", ("train", "dev", "test"))
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
    assert (source.triplets(), source.text_triplets(), source.name) == (None, None, "zoo")


def test_triples_with_a_teachers_scores(tmp_path: Path) -> None:
    scored = {**FILES, "scores_ids.tsv": "7.5\t-1.25\t30\t0\t1\n2\t3.5\t30\t2\t12\n"}
    source = MsMarcoPassage(str(lay_out(tmp_path / "marco", "gz", scored)), triples="scores_ids.tsv")
    for _ in range(2):
        assert values(source.triplets(), SCORED_TRIPLETS) == [("30", "0", "1", 8.75), ("30", "2", "12", -1.5)]
    assert source.text_triplets() is None


@pytest.mark.parametrize(
    ("form", "file", "line", "kind"),
    [
        ("plain", "collection.tsv", b"13\ttext\tmore", "wrong number of columns"),
        ("packed", "collection.tsv", b"13\t\xff", "invalid UTF-8"),
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


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "gz", {name: text for name, text in FILES.items() if name != "collection.tsv"})
    noise = np.random.default_rng(0).integers(0, 10**9, (2000, 9)).tolist()
    content = "".join(f"{i}\t{' '.join(map(str, row))}\n" for i, row in enumerate(noise))
    path = pack(tmp_path / "collection.tar.gz", {"collection.tsv": content.encode()})
    path.write_bytes(path.read_bytes()[:-10_000])
    check_refused(lambda: list(MsMarcoPassage(str(tmp_path)).corpus()), rf"{path.name}.* cannot be read to its end")


@pytest.mark.parametrize("triples", [TEXTS, IDS])
def test_triples_alone_are_not_enough(tmp_path: Path, triples: str) -> None:
    lay_out(tmp_path, "packed", {name: text for name, text in FILES.items() if "triples" in name})
    training = "" if triples == TEXTS else "queries.train.tsv, qrels.train.tsv, "
    missing = f"collection.tsv, {training}queries.dev.small.tsv, qrels.dev.small.tsv"
    message = f"{tmp_path} holds none of {missing}: .* so put these files there too"
    check_refused(lambda: MsMarcoPassage(str(tmp_path), triples=triples).splits(), message)
    check_refused(lambda: list(MsMarcoPassage(str(tmp_path), triples=triples).corpus()), message)


def test_triples_of_texts_can_be_read_alone_and_need_no_training_queries(tmp_path: Path) -> None:
    kept = {name: text for name, text in FILES.items() if not name.endswith(".train.tsv")}
    for folder, files, splits in (("alone", {TEXTS: FILES[TEXTS]}, None), ("kept", kept, ("dev", "test"))):
        source = MsMarcoPassage(str(lay_out(tmp_path / folder, "packed", files)), triples=TEXTS)
        assert len(values(source.text_triplets())) == 2
        assert source.fingerprint()
        assert splits is None or source.splits() == splits
    check_refused(lambda: source.qrels("train"), r"holds no qrels\.train\.tsv")


def test_splits_are_those_whose_files_are_there(folder: Path) -> None:
    source = MsMarcoPassage(str(folder), queries={"train": "queries.train.tsv", "test": None})
    assert source.splits() == ("train",)
    check_split_refused(source, "test", r"data\.queries\.test is null")
    (folder / "2019qrels-pass.txt").unlink()
    (folder / "queries.dev.small.tsv").rename(folder / "queries.dev.tsv")
    source = MsMarcoPassage(str(folder))
    assert source.splits() == ("train",)
    check_split_refused(source, "trian", "did you mean 'train'")
    check_split_refused(source, "test", "holds no 2019qrels")
    message = r"no queries\.dev\.small\.tsv \(did you mean data\.queries\.dev=queries\.dev"
    check_refused(lambda: source.queries("dev"), message)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"queries": {"validation": "queries.dev.tsv"}}, r"queries\.validation is no split; valid: dev, test"),
        ({"corpus": "colection.tsv"}, r"no colection\.tsv \(did you mean data\.corpus=collection\.tsv"),
        ({"triples": "triples.tsv"}, r"no triples\.tsv \(did you mean data\.triples=triples\.train\.small\.tsv"),
        ({"path": "nowhere"}, r"nowhere is no folder: data\.path must"),
        ({"download": True, "corpus": "mine.tsv"}, r"no address for mine\.tsv.*data\.corpus=null"),
        ({"downloads": {"a.tsv": {"url": "http://x", "md5": "1"}}}, r"a\.tsv\.md5, which does not exist"),
        ({"downloads": {"a.tsv": {"size": 3}}}, r"no url for a\.tsv"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, arguments: dict[str, Any], answer: str) -> None:
    check_refused(lambda: MsMarcoPassage(**{"path": str(folder), **arguments}), answer)


def test_a_file_without_triples_is_named(folder: Path) -> None:
    for text, message in ((b"a\tb\n", r"small\.tsv holds no triple"), (b"\n", r"small\.tsv is empty")):
        (folder / TEXTS).write_bytes(text)
        check_refused(MsMarcoPassage(str(folder), triples=TEXTS).text_triplets, message)


@pytest.mark.parametrize("form", ["plain", "packed"])
def test_the_fingerprint_sees_every_byte_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def fingerprint(folder: str, files: Mapping[str, str] = FILES, **roles: Any) -> str:  # noqa: ANN401
        return MsMarcoPassage(str(lay_out(tmp_path / folder, form, files)), triples=TEXTS, **roles).fingerprint()

    monkeypatch.setattr(time, "time", lambda: 1.7e9)  # it is written into gzip's header
    changed = [{**FILES, f: FILES[f].replace("a", "b").replace("1", "2")} for f in FILES if f != IDS]
    seen = [fingerprint(f"c{number}", files) for number, files in enumerate([FILES, *changed])]
    seen.append(fingerprint("roles", queries={"train": "queries.dev.small.tsv", "dev": "queries.train.tsv"}))
    assert len(set(seen)) == len(seen)
    assert fingerprint("elsewhere") == seen[0]


cell = st.text(st.sampled_from("ab\"\\',; \r\x00\x0b\x85\u2028\ufeffé"), max_size=6)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.tuples(cell, cell, cell).map("\t".join), cell), max_size=6), st.integers(1, 60))
def test_triples_equal_plain_splitting(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], block_bytes: int
) -> None:
    lines = ["a b\tb\tc", *lines]
    path = write_text(tmp_path_factory.mktemp("triples") / "triples.tsv", "\n".join(lines))
    split = [line.removesuffix("\r").split("\t") for line in lines]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_BLOCK_BYTES", block_bytes)
        found = [row for table, _ in TriplesFile(path).read(BadRows(1)) for row in values(table)]
    assert found == [tuple(row) for row in split if len(row) == 3 and all(text.strip() for text in row)]


def test_the_published_addresses_serve_every_file_of_the_configuration() -> None:
    downloads = {name: Download.from_config(name, entry) for name, entry in CONFIG["downloads"].items()}
    for file in [CONFIG["corpus"], *CONFIG["queries"].values(), *CONFIG["qrels"].values(), IDS, TEXTS]:
        assert any(entry.provides(name, file) for name, entry in downloads.items()), file
    for name, entry in downloads.items():
        assert re.fullmatch(rf"https://.*/{re.escape(name)}", entry.url)
        assert entry.size
        assert re.fullmatch(r"md5:[0-9a-f]{32}", entry.checksum or "")


def test_what_is_missing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    published = lay_out(tmp_path / "published", "packed")

    def fetch(url: str, path: Path, *rest: Any) -> None:  # noqa: ANN401
        asked.append((path.name, *rest))
        path.parent.mkdir(exist_ok=True)
        shutil.copy(published / path.name, path)

    monkeypatch.setattr(msmarco_passage, "fetch", fetch)
    settings = {"downloads": CONFIG["downloads"], "headers": CONFIG["headers"], "triples": IDS}
    make = partial(MsMarcoPassage, str(tmp_path / "new"), **settings)
    for _ in range(2):
        assert make(download=True).splits() == ("train", "dev", "test")
    names = ["collectionandqueries.tar.gz", f"{IDS}.gz", "msmarco-test2019-queries.tsv.gz", "2019qrels-pass.txt"]
    assert [name for name, *_ in asked] == names
    assert asked[0][1:] == (1057717952, "md5:31644046b18952c1386cd4564ba2ae69", {"X-Ms-Version": "2019-12-12"})

    (tmp_path / "new" / "2019qrels-pass.txt").unlink()
    check_refused(lambda: make().qrels("test"), r"no 2019qrels-pass\.txt \(data\.download=true fetches it\)")
